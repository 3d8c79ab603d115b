/* server.c -- see server.h */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "bench/gen/h2.h"
#include "bench/gen/server.h"

enum { EVENTS = 64, READ_MAX = 1 << 18, KEPT_MAX = 1 << 16 };

struct peer {
    struct wire wire;
    SSL_CTX *tls;                       /* a listener's: for what it accepts */
    bool is_listener, busy, taking, gone;   /* busy: asked and not answered; taking: within its handler */
    bool listed;                        /* among server.unsent */
    struct buf in, out;
    size_t out_at;
    struct h2 *h2;                      /* NULL: it speaks HTTP/1.1 */
    size_t streams;                     /* of h2, asked and not answered */
    struct peer *of;                    /* a stream's: its connection */
    int32_t id;                         /* and its number there */
    struct peer *next, *older;          /* of the free or the unsent ones; of all */
};

static volatile sig_atomic_t stopped;

static void on_signal(int number)
{
    stopped = number;
}

void server_init(struct server *s)
{
    struct sigaction act = { .sa_handler = on_signal };

    sigaction(SIGTERM, &act, NULL);
    sigaction(SIGINT, &act, NULL);
    raise_limits();
    s->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (s->epoll < 0)
        die_errno("epoll");
    s->bytes = need(malloc(READ_MAX));
}

static struct peer *peer_new(struct server *s)
{
    struct peer *p = s->free, *older;

    if (p) {
        s->free = p->next;
        older = p->older;
    } else {
        older = s->all;
        s->all = p = need(malloc(sizeof(*p)));
    }
    *p = (struct peer){ .wire.fd = -1, .older = older, .in = BUF_INIT(SERVER_REQUEST_MAX),
                        .out = BUF_INIT(SERVER_REQUEST_MAX) };
    return p;
}

static void peer_free(struct server *s, struct peer *p)
{
    wire_close(&p->wire);
    buf_release(&p->in);
    buf_release(&p->out);
    p->next = s->free;
    s->free = p;
}

/* The other side has gone, or is not worth listening to. Who still waits for an answer is kept until there is one. */
static void peer_drop(struct server *s, struct peer *p)
{
    wire_close(&p->wire);
    h2_free(p->h2);
    p->h2 = NULL;
    if (!p->busy && p->streams == 0 && !p->listed)
        peer_free(s, p);
}

/* ---- requests ---------------------------------------------------------------------------------------------------- */

/* Content-Length of a head; false if it is no number or the body comes in chunks. */
static bool body_length(struct str head, uint64_t *ret)
{
    struct str line, name, value;

    *ret = 0;
    while (str_cut(head, '\n', &line, &head)) {
        if (!str_cut(line, ':', &name, &value))
            continue;
        if (str_ieq(name, STR("transfer-encoding")))
            return false;
        if (str_ieq(name, STR("content-length"))) {
            value = str_trim(value);
            if (value.len && value.p[value.len - 1] == '\r')
                value.len--;
            if (!str_to_u64(str_trim(value), ret) || *ret > SERVER_REQUEST_MAX)
                return false;
        }
    }
    return true;
}

/* Splits a request off the front of `in`: its length; 0 if it has not all come, SIZE_MAX if it is none. */
static size_t request_read(struct str in, struct server_request *ret)
{
    const char *end = in.len ? memmem(in.p, in.len, "\r\n\r\n", 4) : NULL;
    struct str line, rest;
    uint64_t length;

    if (!end)
        return in.len > 65536 ? SIZE_MAX : 0;
    ret->head = str_n(in.p, (size_t)(end + 2 - in.p));
    if (!body_length(ret->head, &length) || !str_cut(ret->head, '\r', &line, &rest) ||
        !str_cut(line, ' ', &ret->method, &rest) || !str_cut(rest, ' ', &ret->path, &line))
        return SIZE_MAX;
    ret->body = str_n(end + 4, (size_t)length);
    return in.len - ret->head.len - 2 < length ? 0 : ret->head.len + 2 + (size_t)length;
}

/*
 * Hands on what has come, one request at a time; false when the peer is gone.  A handler that answers at once does so
 * within this loop, one that answers later enters it again: so pipelined requests nest nothing.
 */
static bool peer_take(struct server *s, struct peer *p)
{
    while (!p->busy && !p->gone && p->in.len) {
        struct server_request rq;
        size_t n = request_read(buf_str(&p->in), &rq);

        if (n == 0)
            return true;
        if (n == SIZE_MAX) {
            p->gone = true;
            break;
        }
        p->busy = p->taking = true;
        s->handler(s, p, &rq);
        p->taking = false;
        buf_drop_front(&p->in, n);
        if (p->in.len == 0 && p->in.cap > KEPT_MAX)
            buf_release(&p->in);
    }
    if (p->gone)
        peer_drop(s, p);
    return !p->gone;
}

/* ---- streams of HTTP/2 ------------------------------------------------------------------------------------------- */

static void stream_take(struct server *s, struct peer *connection, int32_t id, const struct server_request *rq)
{
    struct peer *p = peer_new(s);

    p->of = connection;
    p->id = id;
    connection->streams++;
    s->handler(s, p, rq);
}

/* What a round of events makes one connection say is sent at its end, in one piece. */
static void send_later(struct server *s, struct peer *p)
{
    if (p->listed)
        return;
    p->listed = true;
    p->next = s->unsent;
    s->unsent = p;
}

static void stream_reply(struct server *s, struct peer *p, struct str bytes)
{
    struct peer *connection = p->of;

    if (connection->h2) {
        h2_answer(connection->h2, p->id, bytes);
        send_later(s, connection);
    }
    peer_free(s, p);
    connection->streams--;
    if (connection->gone)
        peer_drop(s, connection);
}

/* ---- answers ----------------------------------------------------------------------------------------------------- */

static void peer_write(struct peer *p)
{
    int rc = wire_flush(&p->wire, &p->out, &p->out_at);

    if (rc == WIRE_BROKEN)
        p->gone = true;
    if (rc == 1) {
        p->out_at = 0;
        buf_clear(&p->out);
        if (p->out.cap > KEPT_MAX && !p->h2)    /* those are few, and fill it again at once */
            buf_release(&p->out);
    }
}

void peer_reply(struct server *s, struct peer *p, struct str bytes)
{
    if (p->of) {
        stream_reply(s, p, bytes);
        return;
    }
    p->busy = false;
    if (!p->gone) {
        buf_add_str(&p->out, bytes);
        p->gone = p->out.overflow;
        peer_write(p);
    }
    if (p->taking)
        return;
    if (p->gone)
        peer_drop(s, p);
    else
        peer_take(s, p);
}

void peer_reply_json(struct server *s, struct peer *p, int status, const char *fields, struct str body)
{
    struct buf b = BUF_INIT(SERVER_REQUEST_MAX);

    buf_addf(&b, "HTTP/1.1 %d %s\r\nContent-Type: application/json\r\n%sContent-Length: %zu\r\n\r\n", status,
             status < 300 ? "OK" : "Not OK", fields, body.len);
    buf_add_str(&b, body);
    peer_reply(s, p, buf_str(&b));
    buf_release(&b);
}

/* ---- events ------------------------------------------------------------------------------------------------------ */

/* Without TLS who speaks HTTP/2 just begins with its preface (RFC 9113 3.4), which comes in one piece here. */
static bool peer_got(struct server *s, struct peer *p, const char *bytes, size_t n)
{
    if (!p->h2 && p->in.len == 0 && str_starts(str_n(bytes, n), STR("PRI * HTTP/2.0\r\n")))
        p->h2 = h2_new(s, p, stream_take);
    if (p->h2)
        return h2_take(p->h2, bytes, n);
    buf_add(&p->in, bytes, n);
    return !p->in.overflow;
}

static void peer_event(struct server *s, struct peer *p)
{
    int rc = p->wire.fd < 0 ? WIRE_AGAIN : wire_handshake(&p->wire);

    if (rc == WIRE_AGAIN)
        return;
    if (rc == 1 && !p->h2 && wire_is_h2(&p->wire))
        p->h2 = h2_new(s, p, stream_take);
    if (p->out_at < p->out.len)
        peer_write(p);
    for (bool more = rc == 1 && !p->gone; more;) {
        ssize_t n = wire_read(&p->wire, s->bytes, READ_MAX);

        if (n == WIRE_AGAIN)
            break;
        p->gone = n <= 0 || !peer_got(s, p, s->bytes, (size_t)n);
        more = !p->gone && (p->wire.ssl || n == READ_MAX);
    }
    if (rc == WIRE_BROKEN || p->gone) {
        p->gone = true;
        peer_drop(s, p);
    } else if (p->h2) {
        send_later(s, p);
    } else {
        peer_take(s, p);
    }
}

/* All that HTTP/2 has to say to it, as far as the socket takes it: at the next event it goes on. */
static void h2_send(struct peer *p)
{
    while (!p->gone && p->out.len == 0) {
        p->gone = !h2_collect(p->h2, &p->out);
        if (p->gone || p->out.len == 0)
            break;
        peer_write(p);
    }
    if (!p->gone && p->out.len == 0)
        p->gone = h2_over(p->h2);
}

static void send_unsent(struct server *s)
{
    struct peer *p;

    while ((p = s->unsent)) {
        s->unsent = p->next;
        p->listed = false;
        if (!p->gone)
            h2_send(p);
        if (p->gone)
            peer_drop(s, p);
    }
}

static void watch(struct server *s, struct peer *p, uint32_t events)
{
    struct epoll_event ev = { .events = events, .data.ptr = p };

    if (epoll_ctl(s->epoll, EPOLL_CTL_ADD, p->wire.fd, &ev) < 0)
        die_errno("epoll");
}

static void accept_all(struct server *s, struct peer *listener)
{
    for (;;) {
        int fd = accept4(listener->wire.fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        struct peer *p;

        if (fd < 0) {
            if (errno == EAGAIN || errno == ECONNABORTED || errno == EINTR)
                return;
            die_errno("accept");
        }
        p = peer_new(s);
        if (wire_accepted(&p->wire, fd, listener->tls))
            watch(s, p, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET);
        else
            peer_free(s, p);
    }
}

void server_listen(struct server *s, int port, SSL_CTX *tls)
{
    struct peer *p = peer_new(s);

    p->wire.fd = wire_listen(&port);
    p->is_listener = true;
    p->tls = tls;
    watch(s, p, EPOLLIN);
    printf("listening %s://127.0.0.1:%d\n", tls ? "https" : "http", port);
    fflush(stdout);
}

void server_run(struct server *s)
{
    struct epoll_event events[EVENTS];

    while (!stopped) {
        int64_t now = now_ns(), until = s->between ? s->between(s, now) : now + NS_PER_S, wait;
        struct timespec t;
        int n;

        send_unsent(s);
        wait = until > now + NS_PER_S ? NS_PER_S : until > now ? until - now : 0;
        t = (struct timespec){ wait / NS_PER_S, wait % NS_PER_S };
        n = epoll_pwait2(s->epoll, events, EVENTS, &t, NULL);
        if (n < 0 && errno != EINTR)
            die_errno("epoll");
        for (int i = 0; i < n; i++) {
            struct peer *p = events[i].data.ptr;

            if ((uintptr_t)p & 1)
                s->other((void *)((uintptr_t)p & ~(uintptr_t)1), events[i].events);
            else if (p->is_listener)
                accept_all(s, p);
            else
                peer_event(s, p);
        }
    }
}

void server_release(struct server *s)
{
    struct peer *p;

    while ((p = s->all)) {
        s->all = p->older;
        wire_close(&p->wire);
        h2_free(p->h2);
        buf_release(&p->in);
        buf_release(&p->out);
        free(p);
    }
    close(s->epoll);
    free(s->bytes);
}
