/*
 * session.c -- a connection that speaks HTTP/2 (RFC 9113): many exchanges of one tenant share it
 *
 * nghttp2 has the frames, the compression of fields and the windows; the loop has the socket.  What comes in is handed
 * to nghttp2 when the socket has something, on the loop's stack; its callbacks fill the answers of streams (stream.c)
 * and fire their wakes.  What goes out is collected first: the requests of a turn leave in one send, and so do
 * nghttp2's own frames.
 *
 *   open      exchanges come and go                              conn_release(), pool.c
 *   closing   no new ones: the peer said GOAWAY, is silent or stuck; those under way go on to their end
 *   over      nothing more will come: every stream has been told
 *
 * A peer's claim that it has not looked at a request (GOAWAY below its number, REFUSED_STREAM: RFC 9113 8.7) is
 * believed: whether an effect happened is known by nobody else.  Pushed streams are refused; so are lists of fields
 * beyond HTTP_HEAD_MAX.  Floods of frames that must be answered, and of CONTINUATION, end the connection (nghttp2).
 *
 * What fields looked like on the wire is a credential still, Huffman code or not: it is wiped wherever it passes.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/check.h"
#include "base/crypto.h"
#include "fetch/session.h"

enum {
    READS_PER_TURN = 16,                /* of SCRATCH_SIZE, or of one TLS record; then the others get their turn */
    GATHER = SCRATCH_SIZE - 16 * 1024 - 16,     /* beyond this a frame of nghttp2's might not fit */
    OUT_MAX = 1 << 20,                  /* what the socket did not take; nothing is added before it has */
    /* What may come before we have said that it came: a large answer from far away takes a round trip for each window.
     * They bound no memory, for what comes is taken at once: an answer is bounded by reply_max. */
    STREAM_WINDOW = 1 << 20,
    CONNECTION_WINDOW = 1 << 23,
};

/* ---- nghttp2's memory -------------------------------------------------------------------------------------------- */

static void *h2_malloc(size_t n, void *arg)             { return malloc(n); }
static void h2_free(void *p, void *arg)                 { wiping_free(p); }
static void *h2_calloc(size_t n, size_t each, void *arg) { return calloc(n, each); }
static void *h2_realloc(void *p, size_t n, void *arg)   { return wiping_realloc(p, n); }

static nghttp2_mem wiping = { NULL, h2_malloc, h2_free, h2_calloc, h2_realloc };

static void session_flush(struct conn *c);

/* ---- birth and death --------------------------------------------------------------------------------------------- */

bool session_setup(struct fetch *f)
{
    if (nghttp2_session_callbacks_new(&f->h2_callbacks) != 0 || nghttp2_option_new(&f->h2_options) != 0)
        return false;
    stream_callbacks(f->h2_callbacks);
    nghttp2_option_set_no_closed_streams(f->h2_options, 1);
    nghttp2_option_set_peer_max_concurrent_streams(f->h2_options, SESSION_STREAMS_MAX);
    return true;
}

void session_unset(struct fetch *f)
{
    nghttp2_session_callbacks_del(f->h2_callbacks);
    nghttp2_option_del(f->h2_options);
}

static void write_authority(char out[AUTHORITY_SIZE], const struct fetch_origin *o)
{
    bool usual = o->port == (o->tls ? 443 : 80);

    snprintf(out, AUTHORITY_SIZE, usual ? "%s" : "%s:%u", o->host, o->port);
}

bool session_open(struct conn *c)
{
    static const nghttp2_settings_entry settings[] = {
        { NGHTTP2_SETTINGS_ENABLE_PUSH, 0 },
        { NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, STREAM_WINDOW },
        { NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, HTTP_HEAD_MAX },
    };
    struct session *s = calloc(1, sizeof(*s));

    if (!s)
        return false;
    TAILQ_INIT(&s->streams);
    write_authority(s->authority, &c->group->origin);
    s->out = BUF_INIT(OUT_MAX);
    s->opened_at = s->heard_at = loop_now();
    if (nghttp2_session_client_new3(&s->h2, c->f->h2_callbacks, c, c->f->h2_options, &wiping) != 0 ||
        nghttp2_submit_settings(s->h2, NGHTTP2_FLAG_NONE, settings, ARRAY_LEN(settings)) != 0 ||
        nghttp2_session_set_local_window_size(s->h2, NGHTTP2_FLAG_NONE, 0, CONNECTION_WINDOW) != 0) {
        nghttp2_session_del(s->h2);
        free(s);
        return false;
    }
    c->session = s;
    return true;
}

/* Says goodbye if that can be said at once. */
void session_close(struct conn *c)
{
    struct session *s = c->session;

    ASSERT(TAILQ_EMPTY(&s->streams) && !s->flushing);
    if (!s->over && nghttp2_session_terminate_session(s->h2, NGHTTP2_NO_ERROR) == 0)
        session_flush(c);
    nghttp2_session_del(s->h2);
    if (s->out.p)
        bytes_wipe(s->out.p, s->out.cap);
    buf_release(&s->out);
    free(s);
    c->session = NULL;
}

ns_t session_opened_at(const struct conn *c)    { return c->session->opened_at; }
bool session_closing(const struct conn *c)      { return c->session->closing; }

unsigned session_room(const struct conn *c)
{
    const struct session *s = c->session;
    uint32_t most = nghttp2_session_get_remote_settings(s->h2, NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS);

    if (s->closing)
        return 0;
    most = most < SESSION_STREAMS_MAX ? most : SESSION_STREAMS_MAX;
    if (!s->settled)
        most = 1;                       /* more might be refused */
    return c->users < most ? most - c->users : 0;
}

/* e: what that means to those of whom something was sent. */
static void over(struct conn *c, enum err e)
{
    struct session *s = c->session;
    struct stream *x;

    if (s->over)
        return;
    s->over = e;
    session_leave(c);
    while ((x = TAILQ_FIRST(&s->streams)))
        stream_over(x, e);
}

void session_leave(struct conn *c)
{
    c->session->closing = true;
    conn_settled(c);
}

void session_settle(struct conn *c)
{
    c->session->settled = true;
    if (!c->session->closing)
        conn_settled(c);
}

/* ---- out --------------------------------------------------------------------------------------------------------- */

static void send_gathered(struct conn *c, const char *p, size_t n)
{
    struct session *s = c->session;
    size_t off = 0;

    while (off < n) {
        size_t sent = 0;
        enum moved moved = channel_send(&c->channel, p + off, n - off, &sent);

        off += sent;
        if (moved == MOVED_NEVER) {
            over(c, E_CLOSED);
            break;
        }
        if (moved == MOVED_LATER || sent == 0) {
            buf_add(&s->out, p + off, n - off);
            if (s->out.overflow)
                over(c, E_CLOSED);
            break;
        }
    }
}

/* What did not go last time. */
static bool send_rest(struct conn *c)
{
    struct session *s = c->session;

    while (s->out.len > 0 && !s->over) {
        size_t sent = 0;
        enum moved moved = channel_send(&c->channel, s->out.p, s->out.len, &sent);

        if (moved == MOVED_NEVER)
            over(c, E_CLOSED);
        else if (moved == MOVED_LATER || sent == 0)
            return false;
        buf_drop_front(&s->out, sent);
    }
    if (s->out.p) {
        bytes_wipe(s->out.p, s->out.cap);
        buf_release(&s->out);
    }
    return !s->over;
}

static void session_flush(struct conn *c)
{
    struct session *s = c->session;
    char *to = c->f->scratch;

    if (s->over || !send_rest(c))
        return;
    for (ssize_t n = 1; n > 0 && !s->over && s->out.len == 0; ) {
        const uint8_t *p;
        size_t len = 0;

        while (len <= GATHER && (n = nghttp2_session_mem_send(s->h2, &p)) > 0) {
            ASSERT((size_t)n <= SCRATCH_SIZE - len);
            memcpy(to + len, p, (size_t)n);
            bytes_wipe((void *)(uintptr_t)p, (size_t)n);       /* it is not looked at again */
            len += (size_t)n;
        }
        if (n < 0)
            over(c, E_CLOSED);
        else
            send_gathered(c, to, len);
        bytes_wipe(to, len);
    }
    /* after an error of the peer's nghttp2 says GOAWAY and wants nothing more */
    if (!s->over && !nghttp2_session_want_read(s->h2))
        over(c, E_UPSTREAM_GARBLED);
}

/* ---- in ---------------------------------------------------------------------------------------------------------- */

static void session_read(struct conn *c)
{
    struct session *s = c->session;

    s->more = false;
    for (unsigned i = 0; !s->over; i++) {
        size_t n = 0;
        enum moved moved = MOVED_LATER;

        s->more = i == READS_PER_TURN;
        if (!s->more)
            moved = channel_recv(&c->channel, c->f->scratch, SCRATCH_SIZE, &n);
        if (moved == MOVED_LATER)
            return;
        if (moved == MOVED_NEVER || n == 0) {
            over(c, E_CLOSED);
            return;
        }
        s->heard_at = loop_now();
        if (nghttp2_session_mem_recv(s->h2, (const uint8_t *)c->f->scratch, n) < 0)
            over(c, E_UPSTREAM_GARBLED);
    }
}

/* What OpenSSL has read already no poll tells of: a socket that can be written to tells at once. */
static bool wants_more(const struct session *s)
{
    return s->more || s->out.len > 0;
}

void session_turn(struct conn *c)
{
    struct session *s = c->session;

    session_read(c);                    /* a goodbye that is here already is heard before a request leaves */
    session_flush(c);
    if (wants_more(s) && op_active(&c->poll) && !(c->poll.events & POLLOUT))
        op_cancel(&c->poll);            /* session_events() says what to wait for */
}

unsigned session_events(struct conn *c, int events)
{
    struct session *s = c->session;

    if (events != -ECANCELED)
        session_read(c);
    session_flush(c);
    return s->over ? 0 : POLLIN | (wants_more(s) ? POLLOUT : 0);
}
