/* client.c -- curl_multi behind a few functions */
#include <curl/curl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/check.h"
#include "cli/client.h"

struct client {
    CURLM *multi;
    struct transfer *open;
    size_t n_open;
};

struct transfer {
    struct client *client;
    struct transfer *prev, *next;
    CURL *easy;
    struct curl_slist *headers;
    struct client_spec spec;
    struct client_reply reply;
    bool refused;                   /* by on_bytes */
    char why[CURL_ERROR_SIZE];
};

enum err client_new(struct client **ret, struct errinfo *info)
{
    struct client *c = calloc(1, sizeof(*c));

    ASSERT(c != NULL);
    curl_global_init(CURL_GLOBAL_DEFAULT);
    c->multi = curl_multi_init();
    if (!c->multi) {
        free(c);
        return err_set(info, E_IO, "libcurl could not be set up");
    }
    *ret = c;
    return OK;
}

static void transfer_free(struct transfer *t)
{
    curl_multi_remove_handle(t->client->multi, t->easy);
    curl_easy_cleanup(t->easy);
    curl_slist_free_all(t->headers);
    buf_release(&t->reply.body);
    if (t->prev)
        t->prev->next = t->next;
    else
        t->client->open = t->next;
    if (t->next)
        t->next->prev = t->prev;
    t->client->n_open--;
    free(t);
}

void client_free(struct client *c)
{
    if (!c)
        return;
    for (struct transfer *t = c->open, *next; t; t = next) {
        next = t->next;
        transfer_free(t);
    }
    curl_multi_cleanup(c->multi);
    free(c);
}

struct client_reply *transfer_reply(struct transfer *t) { return &t->reply; }
void client_cancel(struct transfer *t)                  { transfer_free(t); }
size_t client_open(const struct client *c)              { return c->n_open; }

void client_reply_release(struct client_reply *r)
{
    buf_release(&r->body);
}

/* ---- what libcurl calls ------------------------------------------------------------------------------------------ */

static size_t on_write(char *p, size_t size, size_t n, void *arg)
{
    struct transfer *t = arg;
    struct str bytes = str_n(p, size * n);

    if (t->spec.on_bytes) {
        t->refused = !t->spec.on_bytes(t, bytes, t->spec.arg);
        return t->refused ? 0 : bytes.len;
    }
    buf_add_str(&t->reply.body, bytes);
    return t->reply.body.overflow ? 0 : bytes.len;
}

static void keep(char *out, size_t cap, struct str value)
{
    if (value.len < cap) {
        memcpy(out, value.p, value.len);
        out[value.len] = '\0';
    }
}

static size_t on_header(char *p, size_t size, size_t n, void *arg)
{
    struct transfer *t = arg;
    struct str line = str_n(p, size * n), name, value, cookie, rest;
    long status = 0;

    while (line.len && (line.p[line.len - 1] == '\n' || line.p[line.len - 1] == '\r'))
        line.len--;
    curl_easy_getinfo(t->easy, CURLINFO_RESPONSE_CODE, &status);
    t->reply.status = (int)status;
    if (!str_cut(line, ':', &name, &value))
        return size * n;
    value = str_trim(value);
    if (str_ieq(name, STR("location")))
        keep(t->reply.location, sizeof(t->reply.location), value);
    else if (str_ieq(name, STR("mcp-session-id")))
        keep(t->reply.session, sizeof(t->reply.session), value);
    else if (str_ieq(name, STR("set-cookie")))
        keep(t->reply.cookie, sizeof(t->reply.cookie), str_cut(value, ';', &cookie, &rest) ? cookie : value);
    else if (str_ieq(name, STR("content-type")))
        t->reply.event_stream = value.len >= 17 && str_ieq(str_n(value.p, 17), STR("text/event-stream"));
    return size * n;
}

/* ---- transfers --------------------------------------------------------------------------------------------------- */

static void set_headers(struct transfer *t)
{
    /* libcurl's own habits that a plain JSON client has no use for */
    t->headers = curl_slist_append(NULL, "Expect:");
    for (size_t i = 0; i < t->spec.n_headers; i++)
        t->headers = curl_slist_append(t->headers, t->spec.headers[i]);
    curl_easy_setopt(t->easy, CURLOPT_HTTPHEADER, t->headers);
}

struct transfer *client_begin(struct client *c, const struct client_spec *spec)
{
    struct transfer *t = calloc(1, sizeof(*t));
    int64_t timeout = spec->timeout_ms ? spec->timeout_ms : CLIENT_TIMEOUT_MS;

    ASSERT(t != NULL && spec->n_headers <= CLIENT_HEADERS_MAX);
    *t = (struct transfer){ .client = c, .next = c->open, .easy = curl_easy_init(), .spec = *spec };
    ASSERT(t->easy != NULL);
    t->reply.body = BUF_INIT(CLIENT_REPLY_MAX);
    if (c->open)
        c->open->prev = t;
    c->open = t;
    c->n_open++;
    set_headers(t);
    curl_easy_setopt(t->easy, CURLOPT_PRIVATE, t);
    curl_easy_setopt(t->easy, CURLOPT_URL, spec->url);
    curl_easy_setopt(t->easy, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(t->easy, CURLOPT_PROXY, "");
    curl_easy_setopt(t->easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(t->easy, CURLOPT_FOLLOWLOCATION, 0L);
    curl_easy_setopt(t->easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    curl_easy_setopt(t->easy, CURLOPT_ERRORBUFFER, t->why);
    curl_easy_setopt(t->easy, CURLOPT_WRITEFUNCTION, on_write);
    curl_easy_setopt(t->easy, CURLOPT_WRITEDATA, t);
    curl_easy_setopt(t->easy, CURLOPT_HEADERFUNCTION, on_header);
    curl_easy_setopt(t->easy, CURLOPT_HEADERDATA, t);
    curl_easy_setopt(t->easy, CURLOPT_CONNECTTIMEOUT_MS, 5000L);
    curl_easy_setopt(t->easy, CURLOPT_TIMEOUT_MS, (long)(timeout > 0 ? timeout : 0));
    curl_easy_setopt(t->easy, CURLOPT_FRESH_CONNECT, spec->once ? 1L : 0L);
    curl_easy_setopt(t->easy, CURLOPT_CUSTOMREQUEST, spec->method);
    if (spec->body.p) {
        curl_easy_setopt(t->easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)spec->body.len);
        curl_easy_setopt(t->easy, CURLOPT_COPYPOSTFIELDS, spec->body.p);
    }
    ASSERT(curl_multi_add_handle(c->multi, t->easy) == CURLM_OK);
    return t;
}

/* What a failed transfer means to the caller: above all, whether the request can have had an effect. */
static enum err end_of(struct transfer *t, CURLcode code, struct errinfo *info)
{
    const char *why = t->why[0] ? t->why : curl_easy_strerror(code);
    long sent = 0;

    curl_easy_getinfo(t->easy, CURLINFO_REQUEST_SIZE, &sent);
    t->reply.unsent = sent == 0;
    switch (code) {
    case CURLE_OK:
        return OK;
    case CURLE_OPERATION_TIMEDOUT:
        return err_set(info, E_TIMEOUT, "%s: %s", t->spec.url, why);
    case CURLE_WRITE_ERROR:
        return t->refused ? E_CLOSED
                          : err_set(info, E_CALL_TOO_LARGE, "%s: the answer is larger than %d bytes", t->spec.url,
                                    CLIENT_REPLY_MAX);
    default:
        return err_set(info, E_UPSTREAM_DOWN, "%s: %s", t->spec.url, why);
    }
}

static void reap(struct client *c)
{
    struct CURLMsg *m;
    int left;

    while ((m = curl_multi_info_read(c->multi, &left))) {
        struct errinfo info = { "" };
        struct transfer *t = NULL;
        enum err e;

        if (m->msg != CURLMSG_DONE)
            continue;
        curl_easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, &t);
        e = end_of(t, m->data.result, &info);
        if (t->spec.on_done)
            t->spec.on_done(t, e, &info, t->spec.arg);
        transfer_free(t);
    }
}

bool client_step(struct client *c, int extra_fd, int timeout_ms)
{
    struct curl_waitfd extra = { .fd = extra_fd, .events = CURL_WAIT_POLLIN };
    struct pollfd end = { .fd = extra_fd, .events = POLLIN };
    int running, seen;

    curl_multi_perform(c->multi, &running);
    reap(c);
    if (c->n_open == 0 && extra_fd < 0)
        return false;
    curl_multi_poll(c->multi, &extra, extra_fd >= 0 ? 1 : 0, timeout_ms, &seen);
    curl_multi_perform(c->multi, &running);
    reap(c);
    /* libcurl says nothing of a pipe whose other end was closed */
    return extra_fd >= 0 && poll(&end, 1, 0) > 0 && end.revents;
}

/* ---- one transfer ------------------------------------------------------------------------------------------------ */

struct waiting {
    bool done;
    enum err err;
    struct client_reply *reply;
    struct errinfo *info;
};

static void on_waited(struct transfer *t, enum err e, const struct errinfo *info, void *arg)
{
    struct waiting *w = arg;

    w->done = true;
    w->err = e;
    if (w->info)
        *w->info = *info;
    *w->reply = t->reply;
    t->reply.body = BUF_INIT(0);            /* the caller's now */
}

enum err client_do(struct client *c, const struct client_spec *spec, struct client_reply *ret, struct errinfo *info)
{
    struct waiting w = { .reply = ret, .info = info };
    struct client_spec mine = *spec;

    mine.on_done = on_waited;
    mine.arg = &w;
    client_begin(c, &mine);
    while (!w.done)
        client_step(c, -1, 1000);
    return w.err;
}
