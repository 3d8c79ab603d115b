/*
 * reply.c -- answers: head, body, streams, server-sent events, refusals
 *
 *   reply   = status line, Date, the caller's fields, Content-Length, [Connection], empty line, body
 *   stream  = the same with Transfer-Encoding: chunked (HTTP/1.1) or ended by close (HTTP/1.0)
 *
 * Everything is copied to the connection at once, so that nothing of the handler's has to outlive it; but a body with
 * room for its head in front becomes the connection's.  Framing fields are written here only: no caller can make a
 * message whose end is in doubt.
 */
#include <stdio.h>

#include "base/log.h"
#include "http/internal.h"

enum {
    HEAD_MAX = 1 << 20,
    BODY_COPY = 4096,                   /* bodies up to here leave in one piece with their head */
    HEAD_TYPICAL = 512,
};

static const char *status_text(int status)
{
    switch (status) {
    case 200: return "OK";
    case 201: return "Created";
    case 202: return "Accepted";
    case 204: return "No Content";
    case 301: return "Moved Permanently";
    case 302: return "Found";
    case 303: return "See Other";
    case 304: return "Not Modified";
    case 307: return "Temporary Redirect";
    case 308: return "Permanent Redirect";
    case 400: return "Bad Request";
    case 401: return "Unauthorized";
    case 403: return "Forbidden";
    case 404: return "Not Found";
    case 405: return "Method Not Allowed";
    case 406: return "Not Acceptable";
    case 408: return "Request Timeout";
    case 409: return "Conflict";
    case 410: return "Gone";
    case 413: return "Content Too Large";
    case 414: return "URI Too Long";
    case 415: return "Unsupported Media Type";
    case 417: return "Expectation Failed";
    case 421: return "Misdirected Request";
    case 422: return "Unprocessable Content";
    case 429: return "Too Many Requests";
    case 431: return "Request Header Fields Too Large";
    case 499: return "Client Closed Request";
    case 500: return "Internal Server Error";
    case 501: return "Not Implemented";
    case 502: return "Bad Gateway";
    case 503: return "Service Unavailable";
    case 504: return "Gateway Timeout";
    case 505: return "HTTP Version Not Supported";
    default:  return "";
    }
}

/* ---- heads ------------------------------------------------------------------------------------------------------- */

static bool is_ours(struct str name)
{
    return str_ieq(name, STR("content-length")) || str_ieq(name, STR("transfer-encoding")) ||
           str_ieq(name, STR("connection")) || str_ieq(name, STR("date"));
}

static enum err check_fields(const struct http_header *headers, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        ASSERT(http_is_token(headers[i].name) && !is_ours(headers[i].name));
        if (!http_is_value(headers[i].value))
            return E_FORMAT;
    }
    return OK;
}

/* The caller's part of a head. */
struct fields {
    const struct http_lines *lines;     /* first; NULL: none */
    const struct http_header *list;
    unsigned n;
};

static void add_fields(struct buf *b, const struct http_header *list, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        buf_add_str(b, list[i].name);
        buf_add_z(b, ": ");
        buf_add_str(b, list[i].value);
        buf_add_z(b, "\r\n");
    }
}

static void add_start(struct conn *c, struct buf *b, int status, const struct fields *f)
{
    if (status == 200) {
        buf_add_str(b, server_ok(c->srv));
    } else {
        buf_add_z(b, "HTTP/1.1 ");
        buf_add_u64(b, (uint64_t)status);
        buf_add_c(b, ' ');
        buf_add_z(b, status_text(status));
        buf_add_z(b, "\r\nDate: ");
        buf_add_str(b, server_date(c->srv));
        buf_add_z(b, "\r\n");
    }
    if (f->lines)
        buf_add(b, f->lines->text, f->lines->len);
    add_fields(b, f->list, f->n);
}

void http_lines_make(struct http_lines *lines, const struct http_header *headers, unsigned n)
{
    struct buf b = { .p = lines->text, .cap = sizeof(lines->text), .max = sizeof(lines->text) };    /* it cannot grow */

    ASSERT(!check_fields(headers, n));
    add_fields(&b, headers, n);
    ASSERT(!b.overflow);
    lines->len = b.len;
}

/* Connection, where the version's default is not what will happen, and the end of the head. */
static void add_end(struct http_request *rq, struct buf *b)
{
    struct conn *c = rq->conn;

    if (!rq->keep || c->srv->draining || c->requests >= c->srv->opt.requests_max)
        c->closing = true;
    if (c->closing)
        buf_add_z(b, "Connection: close\r\n");
    else if (rq->old)
        buf_add_z(b, "Connection: keep-alive\r\n");
    buf_add_z(b, "\r\n");
}

/* May a reply begin? Marks it as begun when it may. */
static enum err begin(struct http_request *rq, int status, const struct fields *f)
{
    enum err e;

    MAGIC_CHECK(rq, REQUEST_MAGIC);
    ASSERT(!rq->replied && status >= 200 && status <= 599);
    e = check_fields(f->list, f->n);
    if (e)
        return e;
    rq->replied = true;
    if (rq->conn->phase != HANDLING)
        return E_CLOSED;
    server_count(rq->conn->srv, status);
    return OK;
}

static void send_buf(struct conn *c, struct buf *b)
{
    ASSERT(!b->overflow);
    conn_out(c, buf_str(b));
    buf_release(b);
}

/* ---- replies ----------------------------------------------------------------------------------------------------- */

/* Its answers have no body, whatever was asked. */
static bool is_bodyless_status(int status)
{
    return status == 204 || status == 304;
}

static bool is_bodyless(const struct http_request *rq, int status)
{
    return is_bodyless_status(status) || rq->is_head;
}

static void add_head(struct http_request *rq, struct buf *b, int status, const struct fields *f, size_t body_len)
{
    add_start(rq->conn, b, status, f);
    if (!is_bodyless_status(status)) {
        buf_add_z(b, "Content-Length: ");
        buf_add_u64(b, body_len);
        buf_add_z(b, "\r\n");
    }
    add_end(rq, b);
}

/* A reply that has begun. */
static enum err reply_copied(struct http_request *rq, int status, const struct fields *f, struct str body)
{
    struct conn *c = rq->conn;
    struct buf own = BUF_INIT(OUT_MAX), *b = c->tls ? &own : &c->pending;
    size_t before = b->len;

    buf_reserve(b, HEAD_TYPICAL + (body.len <= BODY_COPY ? body.len : 0));
    add_head(rq, b, status, f, body.len);
    if (b->overflow || b->len - before > HEAD_MAX) {
        LOG_ERROR("a reply's fields are larger than 1 MB");
        buf_release(&own);
        conn_abort(c);
        return E_CLOSED;
    }
    if (is_bodyless(rq, status))
        body = STR_NULL;
    if (body.len <= BODY_COPY) {
        buf_add_str(b, body);       /* one TLS record, one copy */
        body = STR_NULL;
    }
    if (c->tls)
        send_buf(c, &own);
    conn_out(c, body);
    conn_flush(c);
    return c->phase == HANDLING ? OK : E_CLOSED;
}

enum err await_http_reply(struct http_request *rq, int status, const struct http_header *headers, unsigned n,
                         struct str body)
{
    const struct fields f = { NULL, headers, n };
    enum err e = body.len > HTTP_REPLY_MAX ? E_CALL_TOO_LARGE : begin(rq, status, &f);

    return e ? e : reply_copied(rq, status, &f, body);
}

void http_body_begin(struct buf *b, size_t n)
{
    buf_clear(b);
    if (buf_reserve(b, HTTP_HEAD_ROOM + n))
        b->len = HTTP_HEAD_ROOM;
}

struct str http_body_text(const struct buf *b)
{
    return b->len < HTTP_HEAD_ROOM ? STR_NULL : str_from(buf_str(b), HTTP_HEAD_ROOM);
}

/* Writes the head into the room in front of a body; where it begins. False: it does not fit. */
static bool head_in_front(struct http_request *rq, struct buf *body, int status, const struct fields *f,
                          size_t *ret_at)
{
    struct buf room = { .p = body->p, .cap = HTTP_HEAD_ROOM, .max = HTTP_HEAD_ROOM };   /* it cannot grow */

    add_head(rq, &room, status, f, body->len - HTTP_HEAD_ROOM);
    if (room.overflow)
        return false;
    *ret_at = HTTP_HEAD_ROOM - room.len;
    memmove(body->p + *ret_at, body->p, room.len);
    return true;
}

enum err await_http_reply_over(struct http_request *rq, int status, const struct http_lines *lines,
                               const struct http_header *headers, unsigned n, struct buf *body)
{
    const struct fields f = { lines, headers, n };
    struct str text = http_body_text(body);
    struct conn *c = rq->conn;
    enum err e = text.len > HTTP_REPLY_MAX ? E_CALL_TOO_LARGE : begin(rq, status, &f);
    size_t at;

    if (e)
        return e;
    if (str_empty(text) || is_bodyless(rq, status) || !head_in_front(rq, body, status, &f, &at))
        return reply_copied(rq, status, &f, text);
    conn_out_over(c, body, at);
    return c->phase == HANDLING ? OK : E_CLOSED;
}

enum err await_http_stream_begin(struct http_request *rq, int status, const struct http_header *headers, unsigned n)
{
    const struct fields f = { NULL, headers, n };
    struct conn *c = rq->conn;
    struct buf b = BUF_INIT(1 << 20);
    enum err e = begin(rq, status, &f);

    ASSERT(!is_bodyless_status(status));
    rq->streaming = rq->replied;        /* on E_CLOSED too: a handler may go on writing, into nothing */
    if (e)
        return e;
    rq->headless = rq->is_head;
    rq->chunks = !rq->old;
    add_start(c, &b, status, &f);
    if (rq->chunks)
        buf_add_z(&b, "Transfer-Encoding: chunked\r\n");
    else
        rq->keep = false;
    add_end(rq, &b);
    if (b.overflow) {
        LOG_ERROR("a reply's fields are larger than 1 MB");
        buf_release(&b);
        conn_abort(c);
        return E_CLOSED;
    }
    send_buf(c, &b);
    conn_flush(c);
    return c->phase == HANDLING ? OK : E_CLOSED;
}

/* Waits until the peer has taken enough of what was written before. */
static enum err await_room(struct http_request *rq)
{
    struct conn *c = rq->conn;

    while (c->phase == HANDLING && conn_out_len(c) > OUT_HIGH) {
        enum err e;

        rq->room = (struct wake){ 0 };
        rq->waiting = true;
        e = await_wake(&rq->room, NS_NEVER);
        rq->waiting = false;
        if (e)
            return e;
    }
    return c->phase == HANDLING ? OK : E_CLOSED;
}

enum err await_http_stream_write(struct http_request *rq, struct str bytes)
{
    struct conn *c = rq->conn;

    MAGIC_CHECK(rq, REQUEST_MAGIC);
    ASSERT(rq->streaming);
    while (bytes.len > 0) {
        struct str piece = str_n(bytes.p, bytes.len < PIECE ? bytes.len : PIECE);
        struct buf b = BUF_INIT(PIECE + 64);
        enum err e = await_room(rq);

        if (e)
            return e;
        bytes = str_from(bytes, piece.len);
        if (rq->headless)
            continue;
        if (rq->chunks)
            buf_addf(&b, "%zx\r\n", piece.len);
        buf_add_str(&b, piece);
        if (rq->chunks)
            buf_add_z(&b, "\r\n");
        send_buf(c, &b);
        conn_flush(c);
    }
    return c->phase == HANDLING ? OK : E_CLOSED;
}

bool http_stream_soon(const struct http_request *rq)
{
    _Static_assert((int)HTTP_SOON <= (int)PIECE && (int)HTTP_SOON < (int)OUT_HIGH, "await_room() waits above that");
    return rq->conn->phase == HANDLING && conn_out_len(rq->conn) < HTTP_SOON;
}

enum err await_http_stream_end(struct http_request *rq)
{
    struct conn *c = rq->conn;

    MAGIC_CHECK(rq, REQUEST_MAGIC);
    ASSERT(rq->streaming);
    rq->streaming = false;
    if (rq->chunks && !rq->headless)
        conn_out(c, STR("0\r\n\r\n"));
    conn_flush(c);
    return c->phase == HANDLING ? OK : E_CLOSED;
}

/* What a request gets that never reached a handler. */
void reply_refusal(struct conn *c, enum http_fault why)
{
    static const struct http_header fields[] = { { STR("Content-Type"), STR("text/plain; charset=utf-8") },
                                                 { STR("Retry-After"), STR("1") } };
    const struct fields f = { NULL, fields, http_fault_status(why) == 503 ? 2 : 1 };
    const char *text = http_fault_text(why);
    struct buf b = BUF_INIT(4096);

    add_start(c, &b, http_fault_status(why), &f);
    buf_addf(&b, "Content-Length: %zu\r\nConnection: close\r\n\r\n%s\n", strlen(text) + 1, text);
    server_count(c->srv, http_fault_status(why));
    send_buf(c, &b);
}

/* ---- server-sent events ------------------------------------------------------------------------------------------ */

static bool one_line(struct str s)
{
    for (size_t i = 0; i < s.len; i++)
        if (s.p[i] == '\r' || s.p[i] == '\n' || s.p[i] == '\0')
            return false;
    return true;
}

void http_sse_event(struct buf *b, struct str event, struct str id, struct str data)
{
    size_t at = 0;

    ASSERT(one_line(event) && one_line(id));
    if (event.p) {
        buf_add_z(b, "event: ");
        buf_add_str(b, event);
        buf_add_c(b, '\n');
    }
    if (id.p) {
        buf_add_z(b, "id: ");
        buf_add_str(b, id);
        buf_add_c(b, '\n');
    }
    do {
        size_t end = at;

        while (end < data.len && data.p[end] != '\n' && data.p[end] != '\r')
            end++;
        buf_add_z(b, "data: ");
        buf_add_str(b, str_from(str_n(data.p, end), at));
        buf_add_c(b, '\n');
        at = end + 1;
        if (end + 1 < data.len && data.p[end] == '\r' && data.p[end + 1] == '\n')
            at++;
    } while (at <= data.len && data.len > 0);
    buf_add_c(b, '\n');
}

void http_sse_retry(struct buf *b, unsigned ms)
{
    buf_addf(b, "retry: %u\n\n", ms);
}

void http_sse_ping(struct buf *b)
{
    buf_add_z(b, ":\n\n");
}
