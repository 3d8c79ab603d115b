/*
 * exchange.c -- one request and its answer on a connection: the hot path
 *
 * Send the bytes, read until the answer is complete.  The connection goes back to the pool only if nothing about it is
 * in doubt: the whole request left before the answer began, the answer ended by its own framing with not a byte behind
 * it, and neither side said close.  Everything else closes it.
 *
 * `sent` is set before bytes can have left, never after: with TLS a record may be half written when OpenSSL waits.
 */
#include <poll.h>

#include "base/check.h"
#include "base/metric.h"
#include "fetch/internal.h"

enum {
    PIECE = 64 * 1024,                  /* handed to the kernel, or to OpenSSL, at once */
    PIECES_PER_TURN = 16,               /* then the other tasks of the worker get their turn */
    DIRECT = 16 * 1024,                 /* bodies with at least this much to come are received in place */
};

struct exchange {
    struct conn *c;
    const struct fetch_request *req;
    struct wire wire;
    size_t total, off;                  /* bytes of it, and of those handed over */
    struct reader r;
    enum fetch_sent sent;
    ns_t sent_at;
    bool kept;                          /* the connection had an exchange before */
    bool early;                         /* the answer began before the request had left */
    bool behind;                        /* bytes behind the answer */
};

/* Lets others run; E_TIMEOUT, E_CANCELLED. */
static enum err await_breath(const struct exchange *x)
{
    await_turn();
    return loop_now() >= x->req->deadline ? E_TIMEOUT : await_sleep(0);
}

/* One receive. *ret_more: there may be more to read at once. E_CLOSED: the peer is gone, the answer incomplete. */
static enum err receive(struct exchange *x, bool *ret_more)
{
    struct fetch *f = x->c->f;
    size_t size = 0, n = 0, used;
    char *room = reader_room(&x->r, &size);
    bool direct = room && size >= DIRECT;
    struct channel *ch = &x->c->channel;
    enum moved moved = channel_recv(ch, direct ? room : f->scratch, direct ? size : sizeof(f->scratch), &n);
    enum err e;

    *ret_more = moved == MOVED;
    if (moved == MOVED_LATER)
        return OK;
    if (moved == MOVED_NEVER)
        return E_CLOSED;
    if (n == 0)
        return channel_said_goodbye(ch) ? reader_eof(&x->r) : E_CLOSED;
    if (direct)
        return reader_filled(&x->r, n);
    e = reader_feed(&x->r, str_n(f->scratch, n), &used);
    if (!e)
        x->behind = used < n;
    return e;
}

struct receiving {
    struct exchange *x;
    bool more;
    enum err err;
};

static void receive_deep(void *arg)
{
    struct receiving *r = arg;

    r->err = receive(r->x, &r->more);
}

/* On the loop's stack: a head is parsed in 2 KB of it, which would be a second page of each task's own. */
static enum err receive_apart(struct exchange *x, bool *ret_more)
{
    struct receiving r = { .x = x };

    task_deep(receive_deep, &r);
    *ret_more = r.more;
    return r.err;
}

/* The socket takes nothing. Waits until it does, or until the peer says something: then x->early, or an error. */
static enum err await_writable(struct exchange *x)
{
    struct op op = { .kind = OP_POLL, .fd = x->c->channel.fd, .events = POLLIN | POLLOUT };
    bool more = true;
    int events;
    enum err e = await_op(&op, x->req->deadline, &events);

    if (e)
        return e;
    if (events < 0)
        return E_CLOSED;
    if (!(events & ~POLLOUT))
        return OK;
    while (!e && more && !reader_done(&x->r) && !x->r.any)
        e = receive_apart(x, &more);
    x->early = x->r.any;
    return e;
}

static enum err await_send(struct exchange *x)
{
    const struct wire *w = &x->wire;
    unsigned pieces = 0;
    enum err e;

    await_last();                       /* requests of one turn leave together */
    e = await_sleep(0);                 /* a kept connection came without a wait: cancelled before that? */
    x->sent_at = loop_now();
    if (!e && x->kept) {
        if (!channel_quiet(&x->c->channel))
            return E_CLOSED;            /* it ended, or said what can be no answer to this */
        metric_add(M_FETCH_REUSES_TOTAL, 1);
    }
    while (!e && !x->early && x->off < x->total) {
        bool head = x->off < w->len;
        const char *p = head ? w->p + x->off : w->rest.p + (x->off - w->len);
        size_t left = head ? w->len - x->off : x->total - x->off, n = 0;
        enum moved moved = channel_send(&x->c->channel, p, left < PIECE ? left : PIECE, &n);

        if (n > 0 || x->c->channel.ssl)
            x->sent = FETCH_SENT;
        if (moved == MOVED_NEVER)
            return E_CLOSED;
        x->off += n;
        if (moved == MOVED_LATER || n == 0)
            e = await_writable(x);
        else if (++pieces % PIECES_PER_TURN == 0)
            e = await_breath(x);
    }
    wire_wipe(&x->wire);                /* the answer may take long: neither the token nor the memory waits for it */
    return e;
}

static enum err await_receive(struct exchange *x)
{
    bool more = x->early;               /* else there is nothing yet: ask the kernel first */
    unsigned pieces = 0;
    enum err e = OK;

    while (!e && !reader_done(&x->r)) {
        if (!more)
            e = await_readable(x->c, x->req->deadline);
        else if (++pieces % PIECES_PER_TURN == 0)
            e = await_breath(x);
        if (!e)
            e = receive_apart(x, &more);
    }
    return e;
}

/* A peer that stops reading often has said why: a send that failed is followed by a look at what came in. */
static enum err await_both(struct exchange *x)
{
    enum err e = await_send(x);

    if (e && (e != E_CLOSED || x->sent == FETCH_NOT_SENT))
        return e;
    x->early = x->early || e == E_CLOSED;
    return await_receive(x);
}

enum err exchange_outcome(const struct fetch_request *req, enum fetch_sent sent, const struct reader *r, enum err e,
                          struct errinfo *info)
{
    const char *host = req->origin->host;
    bool left = sent != FETCH_NOT_SENT;

    switch (e) {
    case OK:
        return OK;
    case E_TIMEOUT:
        return err_set(info, left ? E_OUTCOME_UNKNOWN : E_DEADLINE, "%s: %s", host,
                       left ? "sent, but no complete answer came before the deadline" : "not sent before the deadline");
    case E_CANCELLED:
        return left ? err_set(info, E_OUTCOME_UNKNOWN, "%s: given up after the request was sent", host) : e;
    case E_CLOSED:
        if (!r->any)
            return err_set(info, E_CLOSED, "%s: closed the connection without an answer", host);
        return err_set(info, E_OUTCOME_UNKNOWN, "%s: closed the connection within its answer", host);
    case E_UPSTREAM_GARBLED:
    case E_UPSTREAM_TOO_LARGE:
        return err_set(info, e, "%s: %s", host, r->why);
    default:
        UNREACHABLE();
    }
}

enum err exchange_end(struct conn *c, bool keep, struct reader *r, enum err e, struct fetch_reply *ret,
                      enum fetch_sent *sent)
{
    if (!e)
        e = reader_finish(r, ret);
    if (!e)
        conn_looked(c, ret->looked);
    conn_release(c, keep);
    if (reader_has_head(r))
        *sent = FETCH_ANSWERED;
    if (e)
        *ret = (struct fetch_reply){ .status = r->reply.status };
    ret->answered_at = loop_now();
    return e;
}

enum err await_exchange(struct conn *c, bool kept, const struct fetch_request *req, struct arena *arena,
                        struct fetch_reply *ret, enum fetch_sent *ret_sent, struct errinfo *info)
{
    struct exchange x = { .c = c, .req = req, .kept = kept };
    bool keep;
    enum err e = loop_now() >= req->deadline ? E_TIMEOUT : OK;

    reader_init(&x.r, arena, req->reply_max, str_is(req->method, "HEAD"));
    if (!e && !wire_build(&x.wire, req)) {
        conn_release(c, true);
        return err_set(info, E_OVERLOADED, "no memory for a request");
    }
    x.total = x.wire.len + x.wire.rest.len;
    if (!e)
        e = await_both(&x);
    keep = e ? x.sent == FETCH_NOT_SENT && e != E_CLOSED
             : x.r.keeps && !x.early && !x.behind && x.off == x.total;
    wire_wipe(&x.wire);
    e = exchange_end(c, keep, &x.r, e, ret, &x.sent);
    ret->sent_at = x.sent_at;
    *ret_sent = x.sent;
    e = exchange_outcome(req, x.sent, &x.r, e, info);
    reader_release(&x.r);
    return e;
}
