/*
 * stream.c -- one request and its answer on a connection that speaks HTTP/2 (session.c)
 *
 * The task hands the request to nghttp2 and sleeps; callbacks fill the answer and wake it.  Requests that come to the
 * sending stage in one turn leave together: the first of them lets the others come and flushes for all.
 *
 * `sent` is set when nghttp2 begins to write the request's HEADERS, before a byte can have left.  A stream that ends
 * takes its name out of nghttp2 first, so that no callback finds a task that has gone on.
 *
 * Only fields that say the same in every request go into the compression's memory: a credential, or what somebody's
 * arguments say, is marked as never to be indexed (RFC 7541 7.1.3), here and on its way.
 */
#include "base/check.h"
#include "base/metric.h"
#include "fetch/session.h"

enum {
    NV_MAX = FETCH_HEADERS_MAX + 8,     /* the caller's fields, ours, and those that begin with ':' */
    FIELD_OVERHEAD = 32,                /* of a field, where its size counts (RFC 9113 6.5.2) */
};

/* ---- the request ------------------------------------------------------------------------------------------------- */

#define KEEP (NGHTTP2_NV_FLAG_NO_COPY_NAME | NGHTTP2_NV_FLAG_NO_COPY_VALUE)

static nghttp2_nv nv(struct str name, struct str value, unsigned flags)
{
    return (nghttp2_nv){ (uint8_t *)(uintptr_t)name.p, (uint8_t *)(uintptr_t)value.p, name.len, value.len,
                         (uint8_t)flags };
}

static bool is_common(struct str name)
{
    static const struct str names[] = {
        STR("accept"), STR("accept-encoding"), STR("content-type"), STR("user-agent"),
    };

    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        if (str_eq(name, names[i]))
            return true;
    return false;
}

/* Lines as wire_build_fields() writes them, "Name: value\0"; names become lower case in place (RFC 9113 8.2.1). */
static size_t add_fields(nghttp2_nv *to, size_t most, const struct wire *w)
{
    size_t n = 0;

    for (char *p = w->p, *end = w->p + w->len; p < end; n++) {
        char *colon = strchr(p, ':'), *value = colon + 2;
        size_t len = strlen(value);
        struct str name = str_n(p, (size_t)(colon - p));

        ASSERT(n < most);
        for (char *c = p; c < colon; c++)
            if (*c >= 'A' && *c <= 'Z')
                *c = (char)(*c - 'A' + 'a');
        to[n] = nv(name, str_n(value, len), is_common(name) ? KEEP : KEEP | NGHTTP2_NV_FLAG_NO_INDEX);
        p = value + len + 1;
    }
    return n;
}

static ssize_t read_body(nghttp2_session *h2, int32_t id, uint8_t *to, size_t room, uint32_t *flags,
                         nghttp2_data_source *source, void *arg)
{
    struct stream *x = nghttp2_session_get_stream_user_data(h2, id);
    size_t n = 0;

    if (!x)
        return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
    while (n < room && x->body_off < x->body_len) {
        bool first = x->body_off < x->body.len;
        const char *from = first ? x->body.p + x->body_off : x->body.rest.p + (x->body_off - x->body.len);
        size_t left = (first ? x->body.len : x->body_len) - x->body_off;

        left = left < room - n ? left : room - n;
        memcpy(to + n, from, left);
        n += left;
        x->body_off += left;
    }
    if (x->body_off == x->body_len)
        *flags |= NGHTTP2_DATA_FLAG_EOF;
    return (ssize_t)n;
}

bool stream_init(struct stream *x, struct conn *c, const struct fetch_request *req, struct arena *arena)
{
    *x = (struct stream){ .c = c, .req = req };
    reader_init(&x->r, arena, req->reply_max, str_is(req->method, "HEAD"));
    if (!wire_build_fields(&x->fields, req))
        return false;
    if (!wire_build_body(&x->body, req)) {
        wire_wipe(&x->fields);
        return false;
    }
    x->body_len = x->body.len + x->body.rest.len;
    return true;
}

void stream_submit(void *arg)
{
    struct stream *x = arg;
    struct session *s = x->c->session;
    const struct fetch_request *req = x->req;
    bool always = str_is(req->method, "POST") || str_is(req->method, "PUT") || str_is(req->method, "PATCH");
    nghttp2_data_provider body = { .read_callback = read_body };
    char length[U64_DIGITS];
    UNSET nghttp2_nv nva[NV_MAX];
    size_t n = 0;

    nva[n++] = nv(STR(":method"), req->method, KEEP);
    nva[n++] = nv(STR(":scheme"), req->origin->tls ? STR("https") : STR("http"), KEEP);
    nva[n++] = nv(STR(":authority"), str_of(s->authority), KEEP);
    nva[n++] = nv(STR(":path"), req->path, KEEP | NGHTTP2_NV_FLAG_NO_INDEX);
    n += add_fields(nva + n, NV_MAX - 1 - n, &x->fields);
    if (x->body_len > 0 || always)
        nva[n++] = nv(STR("content-length"), str_of_u64(length, x->body_len),
                      NGHTTP2_NV_FLAG_NO_COPY_NAME | NGHTTP2_NV_FLAG_NO_INDEX);
    x->id = nghttp2_submit_request(s->h2, NULL, nva, n, x->body_len > 0 ? &body : NULL, x);
    if (x->id < 0) {                    /* out of numbers, or of memory */
        session_leave(x->c);
        return;
    }
    TAILQ_INSERT_TAIL(&s->streams, x, link);
    x->linked = true;
}

/* ---- the end ----------------------------------------------------------------------------------------------------- */

static void unlink_stream(struct stream *x)
{
    if (!x->linked)
        return;
    x->linked = false;
    TAILQ_REMOVE(&x->c->session->streams, x, link);
    nghttp2_session_set_stream_user_data(x->c->session->h2, x->id, NULL);
}

static void stream_end(struct stream *x, enum err e, const char *why)
{
    unlink_stream(x);
    x->result = e;
    x->r.why = why;
    wake_fire(&x->wake);
}

/* Within nghttp2's callbacks, which all may return 0: other errors of theirs mean the whole connection (but see
 * NO_MORE_FIELDS). */
static int stream_fail(struct stream *x, enum err e, const char *why)
{
    int32_t id = x->id;

    stream_end(x, e, why);
    nghttp2_submit_rst_stream(x->c->session->h2, NGHTTP2_FLAG_NONE, id, NGHTTP2_CANCEL);
    return 0;
}

void stream_over(struct stream *x, enum err e)
{
    bool unsent = x->sent == FETCH_NOT_SENT;

    stream_end(x, unsent ? E_CLOSED : e, "the peer breaks the rules of HTTP/2");
}

/* ---- the answer -------------------------------------------------------------------------------------------------- */

/* Says of the rest of a block of fields that nghttp2 may forget it: it goes on to decode it, as all that come later
 * need that, but neither looks at it nor calls for it. */
#define NO_MORE_FIELDS NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE

struct kept_field {
    uint32_t name_len, value_len;       /* what follows */
};

static int on_begin(nghttp2_session *h2, const nghttp2_frame *frame, void *arg)
{
    struct stream *x = nghttp2_session_get_stream_user_data(h2, frame->hd.stream_id);

    if (x)
        x->block = 0;
    if (x && !reader_has_head(&x->r)) {
        buf_clear(&x->r.part);
        x->n_fields = 0;
        x->status = 0;
        x->r.any = true;
    }
    return 0;
}

static int head_too_large(struct stream *x)
{
    stream_fail(x, E_UPSTREAM_GARBLED, "the head is too large");
    return NO_MORE_FIELDS;
}

/* Fields of a head are kept as they come, one behind the other; nghttp2 has checked their order and their bytes. One
 * byte on the wire may mean kilobytes of them: no block, trailers or not, is looked at beyond what SETTINGS said. */
static int on_header(nghttp2_session *h2, const nghttp2_frame *frame, const uint8_t *name, size_t name_len,
                     const uint8_t *value, size_t value_len, uint8_t flags, void *arg)
{
    struct stream *x = nghttp2_session_get_stream_user_data(h2, frame->hd.stream_id);
    struct kept_field f = { (uint32_t)name_len, (uint32_t)value_len };
    struct buf *b;
    uint64_t status;

    if (!x)
        return NO_MORE_FIELDS;
    x->block += name_len + value_len + FIELD_OVERHEAD;
    if (x->block > HTTP_HEAD_MAX)
        return head_too_large(x);
    if (reader_has_head(&x->r))
        return 0;                       /* trailers say nothing to anybody here */
    if (name[0] == ':') {
        if (str_to_u64(str_n(value, value_len), &status) && status >= 100 && status <= 999)
            x->status = (int)status;
        return 0;
    }
    b = &x->r.part;
    buf_add(b, &f, sizeof(f));
    buf_add(b, name, name_len);
    buf_add(b, value, value_len);
    if (b->overflow || ++x->n_fields > HTTP_HEADERS_MAX)
        return head_too_large(x);
    return 0;
}

static bool keep_fields(struct stream *x, struct fetch_field **ret)
{
    struct str copy = arena_str(x->r.arena, buf_str(&x->r.part));
    struct fetch_field *fields = arena_array(x->r.arena, x->n_fields, sizeof(*fields));
    const char *p = copy.p;

    if (x->n_fields > 0 && (!p || !fields))
        return false;
    for (unsigned i = 0; i < x->n_fields; i++) {
        struct kept_field f;

        memcpy(&f, p, sizeof(f));
        p += sizeof(f);
        fields[i] = (struct fetch_field){ str_n(p, f.name_len), str_n(p + f.name_len, f.value_len) };
        p += f.name_len + f.value_len;
    }
    *ret = fields;
    return true;
}

/* nghttp2 has checked that there is at most one Content-Length, that it is a number, and checks that it is true. */
static enum err head_done(struct stream *x, bool ends)
{
    struct http_body body = { .framing = ends ? HTTP_BODY_NONE : HTTP_BODY_UNTIL_CLOSE };
    struct fetch_field *fields;
    uint64_t length;

    if (x->status < 200) {
        x->r.why = x->status == 0 ? http_fault_text(HTTP_FAULT_STATUS) : "interim answers without end";
        return x->status == 0 || ++x->r.interim > FETCH_INTERIM_MAX || ends ? E_UPSTREAM_GARBLED : OK;
    }
    if (!keep_fields(x, &fields)) {
        x->r.why = "the answer's head does not fit the memory of the call";
        return E_UPSTREAM_TOO_LARGE;
    }
    buf_clear(&x->r.part);
    for (unsigned i = 0; i < x->n_fields && !ends; i++) {
        if (str_is(fields[i].name, "content-length") && str_to_u64(fields[i].value, &length))
            body = (struct http_body){ .framing = HTTP_BODY_LENGTH, .length = length };
    }
    return reader_head(&x->r, x->status, fields, x->n_fields, &body);
}

static int on_data(nghttp2_session *h2, uint8_t flags, int32_t id, const uint8_t *p, size_t n, void *arg)
{
    struct stream *x = nghttp2_session_get_stream_user_data(h2, id);
    size_t used;
    enum err e;

    if (!x || n == 0)
        return 0;
    if (reader_done(&x->r))
        return stream_fail(x, E_UPSTREAM_GARBLED, "a body where there may be none");
    e = reader_feed(&x->r, str_n(p, n), &used);
    return e ? stream_fail(x, e, x->r.why) : 0;
}

/* An answer may be complete before the request is: then nobody wants the rest of that. */
static void on_end(nghttp2_session *h2, struct stream *x)
{
    enum err e = reader_eof(&x->r);
    int32_t id = x->id;

    stream_end(x, e == E_CLOSED ? E_UPSTREAM_GARBLED : e, "the answer ends before it is complete");
    if (!nghttp2_session_get_stream_local_close(h2, id))
        nghttp2_submit_rst_stream(h2, NGHTTP2_FLAG_NONE, id, NGHTTP2_NO_ERROR);
}

static int on_frame(nghttp2_session *h2, const nghttp2_frame *frame, void *arg)
{
    struct conn *c = arg;
    bool ends = (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0;
    struct stream *x;
    enum err e;

    if (frame->hd.type == NGHTTP2_SETTINGS && !(frame->hd.flags & NGHTTP2_FLAG_ACK))
        session_settle(c);
    if (frame->hd.type == NGHTTP2_GOAWAY)
        session_leave(c);
    if (frame->hd.stream_id == 0 || !(x = nghttp2_session_get_stream_user_data(h2, frame->hd.stream_id)))
        return 0;
    if (frame->hd.type == NGHTTP2_RST_STREAM)
        x->reset = true;
    if (frame->hd.type == NGHTTP2_HEADERS && !reader_has_head(&x->r) && (e = head_done(x, ends)))
        return stream_fail(x, e, x->r.why);
    if (ends && (frame->hd.type == NGHTTP2_HEADERS || frame->hd.type == NGHTTP2_DATA))
        on_end(h2, x);
    return 0;
}

/* Closed before its answer was complete. */
static int on_close(nghttp2_session *h2, int32_t id, uint32_t code, void *arg)
{
    struct stream *x = nghttp2_session_get_stream_user_data(h2, id);

    if (!x)
        return 0;
    if (code == NGHTTP2_REFUSED_STREAM && !x->r.any) {
        x->sent = FETCH_NOT_SENT;       /* so the peer says */
        stream_end(x, x->reset ? E_UPSTREAM_DOWN : E_CLOSED, "refused the request");
    } else if (x->reset) {
        stream_end(x, E_OUTCOME_UNKNOWN, nghttp2_http2_strerror(code));
    } else {
        stream_end(x, E_UPSTREAM_GARBLED, "the answer breaks the rules of HTTP/2");
    }
    return 0;
}

/* ---- on the way out ---------------------------------------------------------------------------------------------- */

static int before_send(nghttp2_session *h2, const nghttp2_frame *frame, void *arg)
{
    struct stream *x = NULL;

    if (frame->hd.type == NGHTTP2_HEADERS)
        x = nghttp2_session_get_stream_user_data(h2, frame->hd.stream_id);
    if (x) {
        x->sent = FETCH_SENT;
        x->sent_at = loop_now();
    }
    return 0;
}

static int on_sent(nghttp2_session *h2, const nghttp2_frame *frame, void *arg)
{
    struct stream *x = NULL;

    if (frame->hd.type == NGHTTP2_HEADERS)
        x = nghttp2_session_get_stream_user_data(h2, frame->hd.stream_id);
    if (x)
        wire_wipe(&x->fields);          /* the answer may take long: neither the token nor the memory waits for it */
    return 0;
}

/* The peer said goodbye before the request was written: nghttp2 has no stream of it yet. */
static int on_not_sent(nghttp2_session *h2, const nghttp2_frame *frame, int error, void *arg)
{
    struct conn *c = arg;
    struct stream *x, *next;

    if (frame->hd.type != NGHTTP2_HEADERS)
        return 0;
    for (x = TAILQ_FIRST(&c->session->streams); x; x = next) {
        next = TAILQ_NEXT(x, link);
        if (x->id == frame->hd.stream_id)
            stream_end(x, E_CLOSED, "");
    }
    return 0;
}

void stream_callbacks(nghttp2_session_callbacks *cb)
{
    nghttp2_session_callbacks_set_on_begin_headers_callback(cb, on_begin);
    nghttp2_session_callbacks_set_on_header_callback(cb, on_header);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(cb, on_data);
    nghttp2_session_callbacks_set_on_frame_recv_callback(cb, on_frame);
    nghttp2_session_callbacks_set_on_stream_close_callback(cb, on_close);
    nghttp2_session_callbacks_set_before_frame_send_callback(cb, before_send);
    nghttp2_session_callbacks_set_on_frame_send_callback(cb, on_sent);
    nghttp2_session_callbacks_set_on_frame_not_send_callback(cb, on_not_sent);
}

/* ---- the task ---------------------------------------------------------------------------------------------------- */

static void turn(void *arg)
{
    session_turn(arg);
}

static enum err await_submitted(struct stream *x)
{
    struct session *s = x->c->session;
    enum err e;

    if (loop_now() >= x->req->deadline)
        return E_TIMEOUT;
    await_last();                       /* requests of one turn leave together */
    e = await_sleep(0);                 /* cancelled before that? */
    if (e)
        return e;
    if (s->closing)
        return E_CLOSED;
    task_deep(stream_submit, x);
    if (!x->linked)
        return E_CLOSED;
    if (!s->flushing) {
        s->flushing = true;
        await_last();
        s->flushing = false;
        task_deep(turn, x->c);
    }
    return OK;
}

/* Nobody waits for it any more. A peer that has said nothing at all since it was sent may be gone, and what stands
 * between has not told; one that does not take what is there for it may be stuck: nothing more is sent there. Nor to
 * one that has never said a word, whatever x is given up for: who is next in line would wait for that instead. The
 * place it leaves is not for one that is too late as well. */
static void give_up(struct stream *x, enum err e)
{
    struct session *s = x->c->session;
    struct stream *y, *next;

    if (x->linked)
        stream_fail(x, e, "");
    for (y = TAILQ_FIRST(&s->streams); y; y = next) {
        next = TAILQ_NEXT(y, link);
        if (y->sent == FETCH_NOT_SENT && y->req->deadline <= loop_now())
            stream_fail(y, E_TIMEOUT, "");
    }
    if (!s->settled ||
        (e == E_TIMEOUT && (s->out.len > 0 || (x->sent != FETCH_NOT_SENT && s->heard_at <= x->sent_at))))
        session_leave(x->c);
    task_deep(turn, x->c);
}

static enum err said(const struct stream *x, enum err e, struct errinfo *info)
{
    const char *host = x->req->origin->host;

    if (e == E_UPSTREAM_DOWN)
        return err_set(info, e, "%s: %s", host, x->r.why);
    if (e == E_OUTCOME_UNKNOWN)
        return err_set(info, e, "%s: ended the exchange without an answer (%s)", host, x->r.why);
    return exchange_outcome(x->req, x->sent, &x->r, e, info);
}

enum err await_stream(struct conn *c, bool kept, const struct fetch_request *req, struct arena *arena,
                      struct fetch_reply *ret, enum fetch_sent *ret_sent, struct errinfo *info)
{
    struct stream x;
    enum err e;

    if (!stream_init(&x, c, req, arena)) {
        conn_release(c, true);
        return err_set(info, E_OVERLOADED, "no memory for a request");
    }
    e = await_submitted(&x);
    if (!e) {
        e = await_wake(&x.wake, req->deadline);
        if (e)
            give_up(&x, e);
        else
            e = x.result;
    }
    wire_wipe(&x.fields);
    wire_wipe(&x.body);
    if (kept && x.sent != FETCH_NOT_SENT)
        metric_add(M_FETCH_REUSES_TOTAL, 1);
    e = exchange_end(c, true, &x.r, e, ret, &x.sent);
    ret->sent_at = x.sent_at;
    *ret_sent = x.sent;
    e = said(&x, e, info);
    reader_release(&x.r);
    return e;
}
