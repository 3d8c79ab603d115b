/*
 * conn.c -- one connection: what it waits for, how long, and how it ends
 *
 *   HANDSHAKE --> HEAD --> BODY --> HANDLING --> HEAD ...          (TLS starts at HANDSHAKE, plain at HEAD)
 *       any phase --conn_refuse, last reply--> LINGER --> CLOSED
 *       any phase --conn_abort----------------> CLOSED
 *
 * HANDSHAKE, HEAD, BODY, LINGER have a deadline, HANDLING has none (the handler has its own); another watches that the
 * peer takes what we send.  One timer serves both: it is set for the first of them and stays where it is when that is
 * over, for the next one nearly always comes later; what it finds not yet due when it fires, it is set for anew.
 * Receiving stays armed in every phase, so that a peer that goes away is noticed; it is paused only while pipelined
 * requests fill `in`.
 *
 * LINGER exists because closing a socket with unread input makes the kernel reset the connection, which may destroy the
 * answer before the peer has read it: so our side is shut down first and input dropped until the peer closes too.
 */
#include "http/internal.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "base/metric.h"
#include "loop/world.h"

static void recv_done(struct op *op, int res);
static void conn_step(struct conn *c);

/* ---- lists and timers -------------------------------------------------------------------------------------------- */

static void move_to(struct conn *c, struct conn_list *list)
{
    if (c->list)
        TAILQ_REMOVE(c->list, c, link);
    TAILQ_INSERT_TAIL(list, c, link);
    c->list = list;
}

static void timed_out(struct timer *t);

static void timer_arm(struct conn *c)
{
    ns_t at = c->due < c->send_due ? c->due : c->send_due;

    if (at != NS_NEVER && (!timer_is_set(&c->timer) || c->timer.at > at))
        timer_set(&c->timer, at, timed_out);
}

/* Of the phase; NS_NEVER: none. */
static void deadline(struct conn *c, ns_t at)
{
    c->due = at;
    timer_arm(c);
}

/* ---- requests that never reach a handler ------------------------------------------------------------------------- */

/* Tells whoever keeps the journal, once per request: it is forgotten here. */
static void tell(struct conn *c, enum http_fault why, struct str head)
{
    struct http_request *rq = c->rq;
    struct http_bad_request bad = {
        .fault = why, .status = http_fault_status(why), .peer = c->peer, .bytes = head, .arrived = c->started_wall,
    };

    ASSERT(c->phase == HEAD || c->phase == BODY);
    metric_add(M_HTTP_REFUSED_TOTAL, 1);
    if (rq)
        bad.bytes = str_n(rq->head_bytes, rq->head_len);
    if (bad.bytes.len > HTTP_HEAD_MAX)
        bad.bytes.len = HTTP_HEAD_MAX;
    if (c->srv->opt.on_bad_request)
        c->srv->opt.on_bad_request(&bad, c->srv->opt.arg);
    if (rq) {
        c->rq = NULL;
        request_free(rq);
    }
    buf_release(&c->in);
}

/* A connection that ends in the middle of a request takes it along. */
static void tell_if_cut_off(struct conn *c)
{
    if (c->phase == BODY || (c->phase == HEAD && c->in.len > 0))
        tell(c, HTTP_FAULT_CUT_OFF, buf_str(&c->in));
}

/* ---- closing ----------------------------------------------------------------------------------------------------- */

static void conn_free_if_over(struct conn *c)
{
    struct http_server *srv = c->srv;

    if (c->phase != CLOSED || c->fd >= 0 || op_active(&c->close) || c->rq)
        return;
    ASSERT(!op_active(&c->recv) && !op_active(&c->send) && !timer_is_set(&c->timer));
    TAILQ_REMOVE(c->list, c, link);
    tls_close(c->tls);
    c->magic = 0;
    free(c);
    server_conn_gone(srv);
}

static void close_done(struct op *op, int res)
{
    (void)res;
    conn_free_if_over(CONTAINER_OF(op, struct conn, close));
}

/* The socket is closed when nothing of ours uses it any more. */
static void close_if_quiet(struct conn *c)
{
    if (c->phase != CLOSED || c->fd < 0 || op_active(&c->recv) || op_active(&c->send))
        return;
    buf_release(&c->in);
    buf_release(&c->sending);
    buf_release(&c->pending);
    c->close.kind = OP_CLOSE;
    c->close.fd = c->fd;
    c->close.done = close_done;
    c->fd = -1;
    op_submit(&c->close);
}

void conn_abort(struct conn *c)
{
    MAGIC_CHECK(c, CONN_MAGIC);
    if (c->phase == CLOSED)
        return;
    tell_if_cut_off(c);
    c->phase = CLOSED;
    move_to(c, &c->srv->dying);
    timer_clear(&c->timer);
    op_cancel(&c->recv);
    op_cancel(&c->send);
    if (c->rq)
        request_gone(c->rq);
    close_if_quiet(c);
}

static void recv_start(struct conn *c)
{
    c->recv.kind = OP_RECV;
    c->recv.fd = c->fd;
    c->recv.done = recv_done;
    op_submit(&c->recv);
}

/* Lets input flow again after a pause; a cancellation still on its way is waited for (recv_done starts anew). */
static void resume(struct conn *c)
{
    if (!c->paused)
        return;
    c->paused = false;
    if (!op_active(&c->recv) && !c->eof)
        recv_start(c);
}

/* LINGER, when everything is out. */
static void send_fin(struct conn *c)
{
    if (c->flushed_fin || conn_out_len(c) > 0)
        return;
    c->flushed_fin = true;
    if (c->eof) {
        conn_abort(c);
        return;
    }
    shutdown(c->fd, SHUT_WR);
    deadline(c, loop_now() + c->srv->opt.linger_timeout);
}

void conn_linger(struct conn *c)
{
    MAGIC_CHECK(c, CONN_MAGIC);
    if (c->phase == LINGER || c->phase == CLOSED)
        return;
    ASSERT(!c->rq);
    c->phase = LINGER;
    move_to(c, &c->srv->busy);
    deadline(c, NS_NEVER);      /* until all is out the write deadline watches */
    buf_release(&c->in);
    if (c->tls)
        tls_shutdown(c->tls);
    resume(c);
    conn_flush(c);
    if (c->phase == LINGER)
        send_fin(c);
}

/* ---- output ------------------------------------------------------------------------------------------------------ */

size_t conn_out_len(const struct conn *c)
{
    return c->sending.len - c->sent + c->pending.len;
}

static void send_done(struct op *op, int res);

static void send_piece(struct conn *c)
{
    size_t left = c->sending.len - c->sent;

    ASSERT(left > 0);
    c->send.kind = OP_SEND;
    c->send.fd = c->fd;
    c->send.buf = c->sending.p + c->sent;
    c->send.len = left < PIECE ? left : PIECE;
    c->send.done = send_done;
    c->send_due = loop_now() + c->srv->opt.write_timeout;
    timer_arm(c);
    op_submit(&c->send);
}

void conn_flush(struct conn *c)
{
    if (c->phase == CLOSED)
        return;
    if (c->pending.overflow) {
        conn_abort(c);
        return;
    }
    if (op_active(&c->send) || c->pending.len == 0)
        return;
    ASSERT(c->sending.len == 0 && c->sent == 0);
    c->sending = c->pending;
    c->pending = BUF_INIT(OUT_MAX);
    c->sent = 0;
    send_piece(c);
}

static void send_done(struct op *op, int res)
{
    struct conn *c = CONTAINER_OF(op, struct conn, send);

    MAGIC_CHECK(c, CONN_MAGIC);
    c->send_due = NS_NEVER;
    if (c->phase == CLOSED) {
        close_if_quiet(c);
        return;
    }
    if (res <= 0) {
        conn_abort(c);
        return;
    }
    c->sent += (size_t)res;
    if (c->sent < c->sending.len) {
        send_piece(c);
    } else {
        buf_release(&c->sending);       /* an idle connection keeps no buffer */
        c->sent = 0;
        conn_flush(c);
    }
    if (c->rq)
        request_room(c->rq);
    conn_step(c);
}

void conn_out(struct conn *c, struct str bytes)
{
    if (c->phase == CLOSED || str_empty(bytes))
        return;
    if (!c->tls)
        buf_add_str(&c->pending, bytes);
    else if (!tls_output(c->tls, bytes))
        conn_abort(c);
}

void conn_out_over(struct conn *c, struct buf *b, size_t from)
{
    ASSERT(from < b->len);
    if (c->phase == CLOSED)
        return;
    if (c->tls || c->pending.len > 0 || op_active(&c->send)) {
        conn_out(c, str_from(buf_str(b), from));
        conn_flush(c);
        return;
    }
    buf_release(&c->pending);
    c->sending = *b;
    c->sent = from;
    *b = BUF_INIT(b->max);
    send_piece(c);
}

/* ---- input ------------------------------------------------------------------------------------------------------- */

/* Answers a request that will not reach a handler. `head`: what came of its head. */
static void refuse(struct conn *c, enum http_fault why, struct str head)
{
    tell(c, why, head);
    reply_refusal(c, why);
    conn_linger(c);
}

/* Refuses the request whose head is in c->rq or, so far as it came, in c->in. */
static void conn_refuse(struct conn *c, enum http_fault why)
{
    refuse(c, why, buf_str(&c->in));
}

/* Some bytes of a request are there: its clock runs. */
static void started(struct conn *c)
{
    c->started = loop_now();
    c->started_wall = loop_wall_ms();
    move_to(c, &c->srv->busy);
    deadline(c, c->started + c->srv->opt.head_timeout);
}

static void wait_for_request(struct conn *c)
{
    c->phase = HEAD;
    c->in_seen = 0;
    move_to(c, &c->srv->idle);
    if (c->in.len > 0) {
        started(c);
        return;
    }
    buf_release(&c->in);
    deadline(c, loop_now() + (c->requests == 0 ? c->srv->opt.head_timeout : c->srv->opt.idle_timeout));
}

void conn_ready(struct conn *c)
{
    ASSERT(c->phase == HANDSHAKE);
    wait_for_request(c);
}

static void body_deadline(struct conn *c)
{
    ns_t at = c->started + c->srv->opt.request_timeout;

    deadline(c, at < c->window_end ? at : c->window_end);
}

/* The minimum rate is looked at when a window ends, and the whole request's deadline always. */
static void body_timeout(struct conn *c)
{
    ns_t now = loop_now();

    if (now >= c->started + c->srv->opt.request_timeout || c->window_bytes < c->srv->opt.rate_min * RATE_WINDOW_S) {
        conn_refuse(c, HTTP_FAULT_SLOW_BODY);
        return;
    }
    c->window_end = now + RATE_WINDOW_S * NS_PER_S;
    c->window_bytes = 0;
    body_deadline(c);
}

static void timed_out(struct timer *t)
{
    struct conn *c = CONTAINER_OF(t, struct conn, timer);
    bool late;

    MAGIC_CHECK(c, CONN_MAGIC);
    late = c->due <= loop_now();
    if (late)
        c->due = NS_NEVER;
    timer_arm(c);
    if (c->send_due <= loop_now())
        conn_abort(c);
    else if (late && c->phase == BODY)
        body_timeout(c);
    else if (late && c->phase == HEAD && c->in.len > 0)
        conn_refuse(c, HTTP_FAULT_SLOW_HEAD);
    else if (late && c->phase == HANDLING)
        conn_step(c);                   /* it has rested */
    else if (late)
        conn_abort(c);
}

/* The whole request is there. */
static void dispatch(struct conn *c)
{
    deadline(c, NS_NEVER);
    if (!request_start(c->rq)) {
        conn_refuse(c, HTTP_FAULT_OVERLOADED);
        return;
    }
    c->phase = HANDLING;
    c->requests++;
}

/* Takes a head off the front of `in`, and a small body with it that is there, too; the bytes used, 0 if there is none
 * yet. A refused head uses nothing: see c->phase. */
static size_t take_head(struct conn *c, struct str in)
{
    static const struct str go_on = STR("HTTP/1.1 100 Continue\r\n\r\n");
    struct http_body framing;
    enum http_fault why = HTTP_FAULT_NONE;
    UNSET struct http_head head;
    size_t head_max = c->srv->opt.head_max, body = 0;
    int n;

    if (!http_head_worth(in, c->in_seen) && in.len < head_max)
        return 0;
    n = http_parse_request_head(in, &head, &why);
    c->in_seen = in.len;
    if (n >= 0 && (n == 0 ? in.len : (size_t)n) > head_max) {
        n = -1;
        why = HTTP_FAULT_HEAD_LONG;
    }
    if (n == 0)
        return 0;
    if (n > 0 && !http_request_framing(&head, &framing, &why))
        n = -1;
    if (n > 0 && framing.framing == HTTP_BODY_LENGTH && framing.length > c->srv->opt.body_max) {
        n = -1;
        why = HTTP_FAULT_BODY_LONG;
    }
    if (n > 0) {
        if (framing.framing == HTTP_BODY_LENGTH && framing.length <= BODY_TOGETHER &&
            framing.length <= in.len - (size_t)n)
            body = (size_t)framing.length;
        c->rq = request_new(c, &head, str_n(in.p, (size_t)n + body), body);
        if (!c->rq) {
            n = -1;
            why = HTTP_FAULT_OVERLOADED;
        }
    }
    if (n < 0) {
        refuse(c, why, in);
        return 0;
    }
    c->in_seen = 0;
    c->rq->framing = framing;
    if (framing.framing == HTTP_BODY_NONE || (framing.framing == HTTP_BODY_LENGTH && framing.length == body)) {
        dispatch(c);
        return (size_t)n + body;
    }
    c->phase = BODY;
    c->window_end = loop_now() + RATE_WINDOW_S * NS_PER_S;
    c->window_bytes = 0;
    body_deadline(c);
    if (framing.expect_continue && (size_t)n == in.len) {
        conn_out(c, go_on);
        conn_flush(c);
    }
    return (size_t)n;
}

/* Whoever reaches the port can send bodies, and has not said who he is: together they may fill no more than bodies_max.
 * Small ones are not counted (connections_max bounds them), so that those who send little are not refused for those who
 * send much.  False: this one is too much. */
static bool body_counted(struct http_request *rq)
{
    struct http_server *srv = rq->conn->srv;
    size_t holds = rq->body.cap > BODY_SMALL ? rq->body.cap : 0;

    ASSERT(holds >= rq->counted && rq->counted <= srv->bodies);
    srv->bodies += holds - rq->counted;
    rq->counted = holds;
    return holds == 0 || srv->bodies <= srv->opt.bodies_max;
}

/* Takes body off the front of `in`; the bytes used. */
static size_t take_body(struct conn *c, struct str in)
{
    struct http_request *rq = c->rq;
    enum http_fault why = HTTP_FAULT_NONE;
    size_t used = 0;
    bool done;

    if (rq->framing.framing == HTTP_BODY_LENGTH) {
        size_t left = (size_t)rq->framing.length - rq->body.len;

        used = in.len < left ? in.len : left;
        buf_add(&rq->body, in.p, used);
        done = rq->body.len == rq->framing.length;
    } else {
        while (used < in.len && !rq->chunked.done && !rq->body.overflow) {
            struct str data;
            int64_t n = http_chunked_decode(&rq->chunked, str_from(in, used), &data, &why);

            if (n < 0) {
                conn_refuse(c, why);
                return 0;
            }
            buf_add_str(&rq->body, data);
            used += (size_t)n;
        }
        done = rq->chunked.done;
    }
    c->window_bytes += used;
    if (rq->body.overflow)
        conn_refuse(c, HTTP_FAULT_BODY_LONG);
    else if (!body_counted(rq))
        conn_refuse(c, HTTP_FAULT_OVERLOADED);
    else if (done)
        dispatch(c);
    return used;
}

/* Reads on from `in`, as far as the phase allows; the bytes used. */
static size_t take(struct conn *c, struct str in)
{
    size_t used = 0, n;

    do {
        struct str rest = str_from(in, used);

        n = 0;
        if (c->phase == HEAD && rest.len > 0)
            n = take_head(c, rest);
        else if (c->phase == BODY && rest.len > 0)
            n = take_body(c, rest);
        used += n;
    } while (n > 0 && (c->phase == HEAD || c->phase == BODY));
    return used;
}

void conn_input(struct conn *c, struct str bytes)
{
    bool buffered = c->in.len > 0;
    struct str view = bytes;
    size_t used;

    ASSERT(c->phase != HANDSHAKE);
    if (c->phase == LINGER || c->phase == CLOSED || str_empty(bytes))
        return;
    if (c->phase == HEAD && !buffered)
        started(c);
    if (buffered) {
        buf_add_str(&c->in, bytes);
        view = buf_str(&c->in);
    }
    used = take(c, view);
    if (c->phase == LINGER || c->phase == CLOSED)
        return;
    if (buffered)
        buf_drop_front(&c->in, used);
    else
        buf_add_str(&c->in, str_from(view, used));
    if (c->in.overflow) {
        conn_abort(c);
        return;
    }
    if (c->in.len == 0)
        buf_release(&c->in);
    if (c->phase == HANDLING && c->in.len > PIPELINE_HIGH && !c->paused) {
        c->paused = true;
        op_cancel(&c->recv);
    }
}

/* The peer sends no more: what is there must do. */
void conn_eof(struct conn *c)
{
    c->eof = true;
    if (c->phase == HANDLING && c->rq)
        request_gone(c->rq);
    else if (c->phase == HANDLING)
        return;                 /* the reply is on its way out: conn_step() goes on */
    else if ((c->phase == HEAD && c->in.len > 0) || c->phase == BODY)
        conn_refuse(c, HTTP_FAULT_CUT_OFF);
    else if (c->phase != LINGER || c->flushed_fin)
        conn_abort(c);
}

/* The peer is told by an alert, where there is one; a handler at work has nobody to answer to any more. */
static void tls_failed(struct conn *c)
{
    if (c->phase == HANDSHAKE)
        metric_add(M_HTTP_REFUSED_TOTAL, 1);
    tell_if_cut_off(c);
    if (c->rq)
        conn_abort(c);
    else
        conn_linger(c);
}

static void recv_done(struct op *op, int res)
{
    struct conn *c = CONTAINER_OF(op, struct conn, recv);

    MAGIC_CHECK(c, CONN_MAGIC);
    if (res > 0 && c->phase != CLOSED) {
        struct str bytes = str_n(op->data, (size_t)res);

        if (!c->tls)
            conn_input(c, bytes);
        else if (c->phase != LINGER && !tls_input(c->tls, bytes))
            tls_failed(c);
    } else if (res == 0 && c->phase != CLOSED) {
        conn_eof(c);
    } else if (res < 0 && res != -ECANCELED) {
        conn_abort(c);
    }
    if (op->more || op_active(op))
        return;
    if (c->phase == CLOSED)
        close_if_quiet(c);
    else if (!c->paused && !c->eof)
        recv_start(c);          /* a pause was over before its cancellation arrived */
}

/* ---- turns ------------------------------------------------------------------------------------------------------- */

/* Goes on when a request is done and its reply out. */
static void conn_step(struct conn *c)
{
    if (c->phase == LINGER) {
        send_fin(c);
        return;
    }
    if (c->phase != HANDLING || c->rq || conn_out_len(c) > 0)
        return;
    if (c->closing || c->srv->draining) {
        conn_linger(c);
        return;
    }
    if (c->rest > loop_now() && !c->eof) {
        move_to(c, &c->srv->idle);
        deadline(c, c->rest);
        return;
    }
    wait_for_request(c);
    if (c->in.len > 0) {
        size_t used = take(c, buf_str(&c->in));

        if (c->phase == LINGER || c->phase == CLOSED)
            return;
        buf_drop_front(&c->in, used);
        if (c->in.len == 0)
            buf_release(&c->in);
    }
    if (c->phase != HANDLING || c->in.len <= PIPELINE_HIGH)
        resume(c);
    if (c->eof)
        conn_eof(c);
}

void conn_request_done(struct conn *c)
{
    MAGIC_CHECK(c, CONN_MAGIC);
    ASSERT(!c->rq && (c->phase == HANDLING || c->phase == CLOSED || c->phase == LINGER));
    if (c->phase == CLOSED) {
        conn_free_if_over(c);
        return;
    }
    conn_flush(c);
    conn_step(c);
}

void conn_accept(struct http_server *srv, int fd)
{
    struct conn *c = calloc(1, sizeof(*c));

    srv->n_conns++;
    metric_add(M_HTTP_CONNECTIONS, 1);
    if (!c) {
        metric_add(M_HTTP_REFUSED_TOTAL, 1);
        world->close(fd);
        server_conn_gone(srv);
        return;
    }
    c->magic = CONN_MAGIC;
    c->srv = srv;
    c->fd = fd;
    c->due = c->send_due = NS_NEVER;
    c->in = BUF_INIT(IN_MAX);
    c->sending = c->pending = BUF_INIT(OUT_MAX);
    net_name(fd, true, c->peer);
    if (srv->tls) {
        c->tls = tls_open(srv->tls, c);
        c->phase = HANDSHAKE;
        move_to(c, &srv->idle);
        deadline(c, loop_now() + srv->opt.handshake_timeout);
        if (!c->tls) {
            conn_abort(c);
            return;
        }
    } else {
        wait_for_request(c);
    }
    recv_start(c);
}
