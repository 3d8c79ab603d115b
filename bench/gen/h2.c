/* h2.c -- see h2.h */
#include <nghttp2/nghttp2.h>
#include <stdlib.h>

#include "bench/gen/h2.h"
#include "bench/gen/server.h"

enum { STREAMS_MAX = 250, WINDOW = 1 << 24, OUT_MAX = 1 << 18, FIELDS_MAX = 32, FRAME_HEAD = 9, KEPT_MAX = 1 << 16 };

struct stream {
    nghttp2_rcbuf *method, *path;
    struct buf body, answer;            /* of the request; of the answer, what comes after its head */
    size_t answer_at;
    struct stream *next, *older;        /* of the free ones; of all */
};

struct h2 {
    nghttp2_session *h2;
    struct server *server;
    struct peer *connection;
    h2_handler *handler;
    struct buf *out;                    /* within h2_collect() */
    struct stream *all, *free;
};

static int good(int rc)
{
    if (rc == NGHTTP2_ERR_NOMEM)
        die("nghttp2: %s", nghttp2_strerror(rc));
    return rc;
}

/* ---- streams ----------------------------------------------------------------------------------------------------- */

static struct stream *stream_new(struct h2 *x)
{
    struct stream *st = x->free;

    if (st) {
        x->free = st->next;
        return st;
    }
    st = need(malloc(sizeof(*st)));
    *st = (struct stream){ .body = BUF_INIT(SERVER_REQUEST_MAX), .answer = BUF_INIT(SERVER_REQUEST_MAX),
                           .older = x->all };
    x->all = st;
    return st;
}

static void forget(nghttp2_rcbuf **text)
{
    if (*text)
        nghttp2_rcbuf_decref(*text);
    *text = NULL;
}

static void keep(nghttp2_rcbuf **text, nghttp2_rcbuf *value)
{
    nghttp2_rcbuf_incref(value);
    forget(text);
    *text = value;
}

static struct str str_of_rc(nghttp2_rcbuf *text)
{
    nghttp2_vec v = text ? nghttp2_rcbuf_get_buf(text) : (nghttp2_vec){ 0 };

    return v.base ? str_n(v.base, v.len) : STR("");
}

static void empty(struct buf *b)
{
    buf_clear(b);
    if (b->cap > KEPT_MAX)
        buf_release(b);
}

static void stream_free(struct h2 *x, struct stream *st)
{
    forget(&st->method);
    forget(&st->path);
    empty(&st->body);
    empty(&st->answer);
    st->answer_at = 0;
    st->next = x->free;
    x->free = st;
}

/* ---- requests ---------------------------------------------------------------------------------------------------- */

static int on_begin(nghttp2_session *h2, const nghttp2_frame *frame, void *arg)
{
    if (frame->headers.cat != NGHTTP2_HCAT_REQUEST)
        return 0;
    return good(nghttp2_session_set_stream_user_data(h2, frame->hd.stream_id, stream_new(arg)));
}

static int on_header(nghttp2_session *h2, const nghttp2_frame *frame, nghttp2_rcbuf *name, nghttp2_rcbuf *value,
                     uint8_t flags, void *arg)
{
    struct stream *st = nghttp2_session_get_stream_user_data(h2, frame->hd.stream_id);
    struct str s = str_of_rc(name);

    if (!st || s.p[0] != ':')
        return 0;
    if (str_is(s, ":method"))
        keep(&st->method, value);
    else if (str_is(s, ":path"))
        keep(&st->path, value);
    return 0;
}

static int on_data(nghttp2_session *h2, uint8_t flags, int32_t id, const uint8_t *bytes, size_t n, void *arg)
{
    struct stream *st = nghttp2_session_get_stream_user_data(h2, id);

    if (st)
        buf_add(&st->body, bytes, n);
    return st && st->body.overflow ? NGHTTP2_ERR_CALLBACK_FAILURE : 0;
}

static int on_frame(nghttp2_session *h2, const nghttp2_frame *frame, void *arg)
{
    struct server_request rq = { .head = STR("") };
    struct h2 *x = arg;
    struct stream *st;

    if ((frame->hd.type != NGHTTP2_HEADERS && frame->hd.type != NGHTTP2_DATA) ||
        !(frame->hd.flags & NGHTTP2_FLAG_END_STREAM))
        return 0;
    st = nghttp2_session_get_stream_user_data(h2, frame->hd.stream_id);
    if (!st)
        return 0;
    rq.method = str_of_rc(st->method);
    rq.path = str_of_rc(st->path);
    rq.body = st->body.len ? buf_str(&st->body) : STR("");
    x->handler(x->server, x->connection, frame->hd.stream_id, &rq);
    return 0;
}

static int on_close(nghttp2_session *h2, int32_t id, uint32_t why, void *arg)
{
    struct stream *st = nghttp2_session_get_stream_user_data(h2, id);

    if (st)
        stream_free(arg, st);
    return 0;
}

/* ---- answers ----------------------------------------------------------------------------------------------------- */

/* What an answer's head says about the connection, not about the answer: HTTP/2 has no such fields. */
static bool is_of_connection(struct str name)
{
    return str_ieq(name, STR("connection")) || str_ieq(name, STR("keep-alive")) ||
           str_ieq(name, STR("proxy-connection")) || str_ieq(name, STR("transfer-encoding")) ||
           str_ieq(name, STR("upgrade"));
}

static nghttp2_nv pair(struct str name, struct str value)
{
    return (nghttp2_nv){ (uint8_t *)name.p, (uint8_t *)value.p, name.len, value.len, NGHTTP2_NV_FLAG_NONE };
}

/* The fields of "HTTP/1.1 200 OK\r\nName: value\r\n..."; nghttp2 makes the names lower-case. */
static size_t fields_read(struct str head, nghttp2_nv *fields)
{
    struct str line, name, value;
    size_t n = 0;

    fields[n++] = pair(STR(":status"), str_n(str_from(head, 9).p, 3));
    while (n < FIELDS_MAX && str_cut(head, '\n', &line, &head)) {
        if (!str_cut(line, ':', &name, &value) || is_of_connection(name))
            continue;
        if (value.len && value.p[value.len - 1] == '\r')
            value.len--;
        fields[n++] = pair(name, str_trim(value));
    }
    return n;
}

/* How much of the answer goes into the next frame; on_send() puts it there. */
static ssize_t on_read(nghttp2_session *h2, int32_t id, uint8_t *to, size_t n, uint32_t *flags,
                       nghttp2_data_source *source, void *arg)
{
    struct stream *st = source->ptr;
    size_t left = st->answer.len - st->answer_at;

    *flags |= NGHTTP2_DATA_FLAG_NO_COPY | (left <= n ? NGHTTP2_DATA_FLAG_EOF : 0u);
    return (ssize_t)(left <= n ? left : n);
}

static int on_send(nghttp2_session *h2, nghttp2_frame *frame, const uint8_t *head, size_t n,
                   nghttp2_data_source *source, void *arg)
{
    struct stream *st = source->ptr;
    struct h2 *x = arg;

    if (x->out->len >= OUT_MAX)
        return NGHTTP2_ERR_WOULDBLOCK;
    buf_add(x->out, head, FRAME_HEAD);
    buf_add(x->out, st->answer.p + st->answer_at, n);
    st->answer_at += n;
    return 0;
}

void h2_answer(struct h2 *x, int32_t id, struct str bytes)
{
    struct stream *st = nghttp2_session_get_stream_user_data(x->h2, id);
    nghttp2_data_provider body = { .source.ptr = st, .read_callback = on_read };
    const char *end = memmem(bytes.p, bytes.len, "\r\n\r\n", 4);
    nghttp2_nv fields[FIELDS_MAX];
    size_t n;

    if (!st || !end)
        return;
    n = fields_read(str_n(bytes.p, (size_t)(end + 2 - bytes.p)), fields);
    buf_add_str(&st->answer, str_from(bytes, (size_t)(end + 4 - bytes.p)));
    good(nghttp2_submit_response(x->h2, id, fields, n, st->answer.len ? &body : NULL));
}

/* ---- the connection ---------------------------------------------------------------------------------------------- */

struct h2 *h2_new(struct server *s, struct peer *connection, h2_handler *handler)
{
    static const nghttp2_settings_entry settings[] = {
        { NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, STREAMS_MAX },
        { NGHTTP2_SETTINGS_NO_RFC7540_PRIORITIES, 1 },
    };
    struct h2 *x = need(malloc(sizeof(*x)));
    nghttp2_session_callbacks *calls;
    nghttp2_option *option;

    *x = (struct h2){ .server = s, .connection = connection, .handler = handler };
    good(nghttp2_session_callbacks_new(&calls));
    nghttp2_session_callbacks_set_on_begin_headers_callback(calls, on_begin);
    nghttp2_session_callbacks_set_on_header_callback2(calls, on_header);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(calls, on_data);
    nghttp2_session_callbacks_set_on_frame_recv_callback(calls, on_frame);
    nghttp2_session_callbacks_set_on_stream_close_callback(calls, on_close);
    nghttp2_session_callbacks_set_send_data_callback(calls, on_send);
    good(nghttp2_option_new(&option));
    nghttp2_option_set_no_closed_streams(option, 1);
    good(nghttp2_session_server_new2(&x->h2, calls, x, option));
    nghttp2_option_del(option);
    nghttp2_session_callbacks_del(calls);
    good(nghttp2_submit_settings(x->h2, NGHTTP2_FLAG_NONE, settings, sizeof(settings) / sizeof(settings[0])));
    good(nghttp2_session_set_local_window_size(x->h2, NGHTTP2_FLAG_NONE, 0, WINDOW));
    return x;
}

void h2_free(struct h2 *x)
{
    struct stream *st;

    if (!x)
        return;
    while ((st = x->all)) {
        x->all = st->older;
        forget(&st->method);
        forget(&st->path);
        buf_release(&st->body);
        buf_release(&st->answer);
        free(st);
    }
    nghttp2_session_del(x->h2);
    free(x);
}

bool h2_take(struct h2 *x, const void *bytes, size_t n)
{
    return nghttp2_session_mem_recv(x->h2, bytes, n) == (ssize_t)n;
}

bool h2_collect(struct h2 *x, struct buf *out)
{
    const uint8_t *bytes;
    ssize_t n = 0;

    x->out = out;
    while (out->len < OUT_MAX && (n = nghttp2_session_mem_send(x->h2, &bytes)) > 0)
        buf_add(out, bytes, (size_t)n);
    x->out = NULL;
    return n >= 0 && !out->overflow;
}

bool h2_over(struct h2 *x)
{
    return !nghttp2_session_want_read(x->h2) && !nghttp2_session_want_write(x->h2);
}
