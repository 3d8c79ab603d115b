/*
 * full.c -- one exchange as a full libcurl transfer, for what the hot path does not speak: odd proxies
 *
 * Behind the same function and the same guard.  Each group has a multi of its own for these, because libcurl keeps and
 * reuses connections inside a multi and would share them between tenants.  libcurl parses the answer; what comes out of
 * its callbacks is bounded here all the same.
 *
 * libcurl sends a request again by itself when a kept connection turns out dead: on_ready() in multi.c counts and stops
 * the second time unless the method is safe.  Costs about three times the CPU of the hot path.
 */
#include <stdio.h>

#include "base/check.h"
#include "base/metric.h"
#include "fetch/internal.h"

struct full {
    struct xfer x;
    const struct fetch_request *req;
    struct arena *arena;
    struct wire fields, body;
    struct curl_slist *list;
    struct fetch_reply reply;
    struct fetch_field field[HTTP_HEADERS_MAX];
    unsigned heads;                     /* status lines seen */
    size_t head_len;
    bool head_done;                     /* the final head is complete: what follows are trailers */
    struct buf in;
    enum err failed;                    /* why a callback stopped the transfer */
    const char *why;
};

static size_t stop(struct full *t, enum err e, const char *why)
{
    t->failed = e;
    t->why = why;
    return CURL_WRITEFUNC_ERROR;
}

static bool status_line(struct str line, int *ret)
{
    struct str version, rest;
    uint64_t status;

    if (!str_cut(line, ' ', &version, &rest) || rest.len < 3 || !str_to_u64(str_n(rest.p, 3), &status) || status < 100)
        return false;
    *ret = (int)status;
    return true;
}

static size_t on_header(char *p, size_t size, size_t n, void *arg)
{
    struct full *t = arg;
    struct str line = str_n(p, size * n), name, value;
    struct fetch_field *f = &t->field[t->reply.n_fields];

    if (t->head_done)
        return line.len;
    while (line.len > 0 && (line.p[line.len - 1] == '\n' || line.p[line.len - 1] == '\r'))
        line.len--;
    t->head_len += size * n;
    if (t->head_len > HTTP_HEAD_MAX)
        return stop(t, E_UPSTREAM_GARBLED, http_fault_text(HTTP_FAULT_HEAD_LONG));
    if (str_starts(line, STR("HTTP/"))) {
        t->reply.n_fields = 0;
        if (t->heads++ > FETCH_INTERIM_MAX)
            return stop(t, E_UPSTREAM_GARBLED, "interim answers without end");
        return status_line(line, &t->reply.status) ? size * n
                                                   : stop(t, E_UPSTREAM_GARBLED, http_fault_text(HTTP_FAULT_STATUS));
    }
    if (line.len == 0) {
        t->head_done = t->reply.status >= 200;
        return size * n;
    }
    if (!str_cut(line, ':', &name, &value) || name.len == 0)
        return stop(t, E_UPSTREAM_GARBLED, http_fault_text(HTTP_FAULT_NAME));
    if (t->reply.n_fields == HTTP_HEADERS_MAX)
        return stop(t, E_UPSTREAM_GARBLED, http_fault_text(HTTP_FAULT_FIELDS_MANY));
    f->name = arena_str(t->arena, name);
    f->value = arena_str(t->arena, str_trim(value));
    if (!f->name.p || !f->value.p)
        return stop(t, E_UPSTREAM_TOO_LARGE, "the answer's head does not fit the memory of the call");
    t->reply.n_fields++;
    return size * n;
}

static size_t on_body(char *p, size_t size, size_t n, void *arg)
{
    struct full *t = arg;

    buf_add(&t->in, p, size * n);
    return t->in.overflow ? stop(t, E_UPSTREAM_TOO_LARGE, "the answer's body is longer than allowed") : size * n;
}

/* ---- the request ------------------------------------------------------------------------------------------------- */

static bool list_add(struct full *t, const char *line)
{
    struct curl_slist *grown = curl_slist_append(t->list, line);

    if (!grown)
        return false;
    t->list = grown;
    return true;
}

/* libcurl adds these unless told otherwise; in its lists "Name:" takes a field out. */
static bool list_suppress(struct full *t)
{
    static const char *const added[] = { "Accept:", "Content-Type:", "Expect:" };
    bool ok = true;

    for (size_t i = 0; i < ARRAY_LEN(added); i++) {
        bool named = fetch_request_names(t->req, str_n(added[i], strlen(added[i]) - 1));

        ok = ok && (named || list_add(t, added[i]));
    }
    return ok;
}

static bool list_build(struct full *t)
{
    bool ok = true;

    if (!wire_build_fields(&t->fields, t->req))
        return false;
    for (size_t at = 0; ok && at < t->fields.len;) {
        char *line = t->fields.p + at;
        size_t n = strlen(line);

        if (n > 2 && line[n - 1] == ' ' && line[n - 2] == ':')
            memcpy(line + n - 2, ";", 2);               /* an empty value: libcurl writes "Name;" */
        ok = list_add(t, line);
        at += n + 1;
    }
    return ok && list_suppress(t);
}

static bool options(struct full *t)
{
    const struct fetch_request *req = t->req;
    CURL *c = t->x.easy;
    struct str body = t->body.p ? str_n(t->body.p, t->body.len) : t->body.rest;
    bool post = str_is(req->method, "POST");
    bool posts = post || body.len > 0 || str_is(req->method, "PUT") || str_is(req->method, "PATCH");
    char method[20];
    CURLcode rc = CURLE_OK;

    snprintf(method, sizeof(method), "%.*s", STR_ARG(req->method));
#define SET(option, value) (rc = rc ? rc : curl_easy_setopt(c, option, value))
    SET(CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    SET(CURLOPT_PATH_AS_IS, 1L);
    SET(CURLOPT_HTTPHEADER, t->list);
    SET(CURLOPT_HEADERFUNCTION, on_header);
    SET(CURLOPT_HEADERDATA, t);
    SET(CURLOPT_WRITEFUNCTION, on_body);
    SET(CURLOPT_WRITEDATA, t);
    SET(CURLOPT_MAXFILESIZE_LARGE, (curl_off_t)req->reply_max);
    if (str_is(req->method, "HEAD"))
        SET(CURLOPT_NOBODY, 1L);
    if (posts) {
        SET(CURLOPT_POST, 1L);
        SET(CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)body.len);
        SET(CURLOPT_POSTFIELDS, body.len > 0 ? body.p : "");
    }
    if (!post && !fetch_is_safe(req))
        SET(CURLOPT_CUSTOMREQUEST, method);
#undef SET
    return rc == CURLE_OK;
}

/* ---- the end ----------------------------------------------------------------------------------------------------- */

static enum err outcome(const struct full *t, enum err e, struct errinfo *info)
{
    const char *host = t->req->origin->host;
    const char *why = t->x.why[0] ? t->x.why : curl_easy_strerror(t->x.result);
    bool left = t->x.sends > 0;

    if (e == E_CANCELLED)
        return left ? err_set(info, E_OUTCOME_UNKNOWN, "%s: given up after the request was sent", host) : e;
    if (e == E_TIMEOUT)
        return err_set(info, left ? E_OUTCOME_UNKNOWN : E_DEADLINE, "%s: %s", host,
                       left ? "sent, but no complete answer came before the deadline" : "not sent before the deadline");
    if (t->failed)
        return err_set(info, t->failed, "%s: %s", host, t->why);
    if (t->x.denied)
        return err_set(info, E_EGRESS_DENIED, "%s: its address is one that may not be connected to", host);
    switch (t->x.result) {
    case CURLE_OK:
        return OK;
    case CURLE_FILESIZE_EXCEEDED:
        return err_set(info, E_UPSTREAM_TOO_LARGE, "%s: the answer announces a longer body than allowed", host);
    case CURLE_WEIRD_SERVER_REPLY:
    case CURLE_BAD_CONTENT_ENCODING:
    case CURLE_UNSUPPORTED_PROTOCOL:
        return err_set(info, E_UPSTREAM_GARBLED, "%s: %s", host, why);
    default:
        return err_set(info, left ? E_OUTCOME_UNKNOWN : E_UPSTREAM_DOWN, "%s: %s", host, why);
    }
}

/* libcurl takes a TLS connection that was cut off for the end of a body without a length: then nobody knows. */
static bool ends_unproved(const struct full *t)
{
    struct str value;

    return t->req->origin->tls && t->in.len > 0 &&
           !fetch_reply_header(&t->reply, "content-length", &value) &&
           !fetch_reply_header(&t->reply, "transfer-encoding", &value);
}

static enum err finish(struct full *t, struct fetch_reply *ret, struct errinfo *info)
{
    long opened = 0;
    const char *why = "";
    enum err e;

    t->reply.fields = t->field;
    if (t->reply.status < 200)
        return err_set(info, E_UPSTREAM_GARBLED, "%s: no answer but interim ones", t->req->origin->host);
    if (ends_unproved(t))
        return err_set(info, E_OUTCOME_UNKNOWN, "%s: an answer without a length may have been cut off",
                       t->req->origin->host);
    t->reply.body = t->in.len > 0 ? arena_str(t->arena, buf_str(&t->in)) : STR("");
    t->reply.fields = ARENA_ARRAY(t->arena, struct fetch_field, t->reply.n_fields);
    if (!t->reply.body.p || (!t->reply.fields && t->reply.n_fields > 0))
        return err_set(info, E_UPSTREAM_TOO_LARGE, "%s: the answer does not fit the memory of the call",
                       t->req->origin->host);
    memcpy((void *)(uintptr_t)t->reply.fields, t->field, t->reply.n_fields * sizeof(t->field[0]));
    e = reply_unpack(&t->reply, t->arena, t->req->reply_max, &why);
    if (e)
        return err_set(info, e, "%s: %s", t->req->origin->host, why);
    curl_easy_getinfo(t->x.easy, CURLINFO_NUM_CONNECTS, &opened);
    metric_add(opened > 0 ? M_FETCH_CONNECTS_TOTAL : M_FETCH_REUSES_TOTAL, 1);
    t->reply.reused = opened == 0;
    *ret = t->reply;
    return OK;
}

static enum err await_transfer(struct full *t, struct group *g, struct fetch_reply *ret, struct errinfo *info)
{
    const struct fetch_request *req = t->req;
    char url[FETCH_HOST_MAX + 32 + FETCH_PATH_MAX];
    struct multi *m;
    enum err e;

    snprintf(url, sizeof(url), "%s://%s:%u%.*s", req->origin->tls ? "https" : "http", req->origin->host,
             req->origin->port, STR_ARG(req->path));
    if (!xfer_open(&t->x, g->f, &g->guard, url) || !list_build(t) || !wire_build_body(&t->body, req) ||
        !options(t))
        return err_set(info, E_OVERLOADED, "no memory for a request");
    t->x.safe = fetch_is_safe(req);
    e = await_begin(g->f, false, req->deadline);
    if (e)
        return outcome(t, e, info);
    m = full_multi(g);
    if (!m || !xfer_start(&t->x, m))
        return err_set(info, E_OVERLOADED, "no memory for a request");
    e = await_xfer(&t->x, req->deadline);
    e = outcome(t, e, info);
    return e ? e : finish(t, ret, info);
}

enum err await_full(struct fetch *f, const struct fetch_request *req, const struct fetch_guard *guard,
                    struct arena *arena, struct fetch_reply *ret, enum fetch_sent *ret_sent, struct errinfo *info)
{
    struct full *t;
    struct group *g;
    ns_t from;
    enum err e = await_place(f, req, guard, &g, info);

    if (e)
        return e;
    t = ARENA_NEW(arena, struct full);
    if (!t) {
        full_release(g);
        return err_set(info, E_CALL_TOO_LARGE, "no room for a request in the memory of the call");
    }
    t->req = req;
    t->arena = arena;
    t->in = BUF_INIT(req->reply_max);
    from = loop_now();
    e = await_transfer(t, g, ret, info);
    xfer_close(&t->x);
    curl_slist_free_all(t->list);
    wire_wipe(&t->fields);
    wire_wipe(&t->body);
    buf_release(&t->in);
    full_release(g);
    *ret_sent = t->reply.status >= 200 ? FETCH_ANSWERED : t->x.sends > 0 ? FETCH_SENT : FETCH_NOT_SENT;
    if (e)
        *ret = (struct fetch_reply){ .status = t->reply.status >= 200 ? t->reply.status : 0 };
    ret->sent_at = from;
    ret->answered_at = loop_now();
    return e;
}
