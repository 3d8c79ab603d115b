/*
 * server.c -- listening, the limit of connections, draining and stopping
 *
 * Can fail: the process runs out of descriptors (accepting pauses, existing connections go on) or of memory (the new
 * connection is closed).
 */
#include "http/internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "base/metric.h"
#include "loop/world.h"

enum { RETRY_MS = 100, WARN_S = 10 };

static void accept_done(struct op *op, int res);

static void set_default(ns_t *t, ns_t by_default)
{
    if (*t == 0)
        *t = by_default;
    ASSERT(*t > 0);
}

static void set_defaults(struct http_server_options *o)
{
    if (o->connections_max == 0)
        o->connections_max = 10000;
    if (o->requests_max == 0)
        o->requests_max = 10000;
    if (o->head_max == 0 || o->head_max > HTTP_HEAD_MAX)
        o->head_max = HTTP_HEAD_MAX;
    if (o->body_max == 0)
        o->body_max = 4 * 1024 * 1024;
    if (o->bodies_max == 0)
        o->bodies_max = 256 * 1024 * 1024;
    if (o->rate_min == 0)
        o->rate_min = 256;
    set_default(&o->handshake_timeout, 10 * NS_PER_S);
    set_default(&o->head_timeout, 5 * NS_PER_S);
    set_default(&o->request_timeout, 30 * NS_PER_S);
    set_default(&o->idle_timeout, 75 * NS_PER_S);
    set_default(&o->write_timeout, 30 * NS_PER_S);
    set_default(&o->linger_timeout, 2 * NS_PER_S);
}

static void accept_start(struct http_server *srv)
{
    srv->accept.kind = OP_ACCEPT;
    srv->accept.fd = srv->fd;
    srv->accept.done = accept_done;
    op_submit(&srv->accept);
}

enum err http_server_start(const struct http_server_options *opt, struct http_server **ret, struct errinfo *info)
{
    struct http_server *srv;
    int fd = opt->fd;

    ASSERT(opt->handler != NULL);
    if (opt->listen) {
        enum err e = net_listen(opt->listen, opt->reuse_port, &fd, info);

        if (e)
            return e;
    }
    srv = calloc(1, sizeof(*srv));
    if (!srv) {
        close(fd);
        return err_set(info, E_IO, "no memory for a server");
    }
    srv->magic = SERVER_MAGIC;
    srv->opt = *opt;
    srv->opt.listen = NULL;
    set_defaults(&srv->opt);
    srv->fd = fd;
    srv->tls = opt->tls ? tls_hold(opt->tls) : NULL;
    srv->date_s = -1;
    TAILQ_INIT(&srv->idle);
    TAILQ_INIT(&srv->busy);
    TAILQ_INIT(&srv->dying);
    accept_start(srv);
    *ret = srv;
    return OK;
}

void http_server_name(const struct http_server *srv, char out[64])
{
    MAGIC_CHECK(srv, SERVER_MAGIC);
    ASSERT(srv->fd >= 0);
    net_name(srv->fd, false, out);
}

bool http_server_draining(const struct http_server *srv)
{
    MAGIC_CHECK(srv, SERVER_MAGIC);
    return srv->draining;
}

unsigned http_server_connections(const struct http_server *srv)
{
    MAGIC_CHECK(srv, SERVER_MAGIC);
    return srv->n_conns;
}

bool http_server_idle(const struct http_server *srv)
{
    MAGIC_CHECK(srv, SERVER_MAGIC);
    return srv->draining && srv->n_conns == 0;
}

void http_server_reload_tls(struct http_server *srv, struct http_tls *tls)
{
    struct http_tls *old = srv->tls;

    MAGIC_CHECK(srv, SERVER_MAGIC);
    ASSERT(old != NULL && tls != NULL);
    srv->tls = tls_hold(tls);
    http_tls_release(old);
}

/* ---- accepting --------------------------------------------------------------------------------------------------- */

static void accept_retry(struct timer *t)
{
    struct http_server *srv = CONTAINER_OF(t, struct http_server, retry);

    if (!srv->draining && !op_active(&srv->accept))
        accept_start(srv);
}

static void server_free_if_over(struct http_server *srv)
{
    if (!srv->stopped || srv->n_conns > 0 || op_active(&srv->accept) || op_active(&srv->close) || srv->fd >= 0)
        return;
    ASSERT(TAILQ_EMPTY(&srv->idle) && TAILQ_EMPTY(&srv->busy) && TAILQ_EMPTY(&srv->dying) && srv->bodies == 0);
    timer_clear(&srv->retry);
    http_tls_release(srv->tls);
    srv->magic = 0;
    free(srv);
}

static void close_done(struct op *op, int res)
{
    (void)res;
    server_free_if_over(CONTAINER_OF(op, struct http_server, close));
}

static void listener_close(struct http_server *srv)
{
    ASSERT(!op_active(&srv->accept));
    srv->close.kind = OP_CLOSE;
    srv->close.fd = srv->fd;
    srv->close.done = close_done;
    srv->fd = -1;
    op_submit(&srv->close);
}

/* Makes room for a new connection: true if there is any. */
static bool make_room(struct http_server *srv)
{
    struct conn *oldest = TAILQ_FIRST(&srv->idle);

    if (srv->n_conns < srv->opt.connections_max)
        return true;
    if (!oldest)
        return false;
    conn_abort(oldest);
    return true;
}

static void accept_done(struct op *op, int res)
{
    struct http_server *srv = CONTAINER_OF(op, struct http_server, accept);

    MAGIC_CHECK(srv, SERVER_MAGIC);
    if (res >= 0) {
        if (!srv->draining && make_room(srv)) {
            conn_accept(srv, res);
        } else {
            metric_add(M_HTTP_REFUSED_TOTAL, 1);
            close(res);
        }
    }
    if (op->more)
        return;
    if (srv->draining) {
        listener_close(srv);
        return;
    }
    if (res < 0 && (srv->warned == 0 || loop_now() - srv->warned >= WARN_S * NS_PER_S)) {
        LOG_WARN("cannot accept connections; trying again all the time", LOG_S("error", strerror(-res)));
        srv->warned = loop_now();
    }
    timer_set(&srv->retry, loop_now() + RETRY_MS * NS_PER_MS, accept_retry);
}

/* ---- ending ------------------------------------------------------------------------------------------------------ */

void http_server_drain(struct http_server *srv)
{
    MAGIC_CHECK(srv, SERVER_MAGIC);
    if (srv->draining)
        return;
    srv->draining = true;
    timer_clear(&srv->retry);
    if (op_active(&srv->accept))
        op_cancel(&srv->accept);
    else
        listener_close(srv);
    while (!TAILQ_EMPTY(&srv->idle))
        conn_abort(TAILQ_FIRST(&srv->idle));
}

void http_server_stop(struct http_server *srv)
{
    struct conn *c;

    MAGIC_CHECK(srv, SERVER_MAGIC);
    ASSERT(!srv->stopped);
    http_server_drain(srv);
    srv->stopped = true;
    while (!TAILQ_EMPTY(&srv->busy))
        conn_abort(TAILQ_FIRST(&srv->busy));
    TAILQ_FOREACH(c, &srv->dying, link)
        if (c->rq)
            http_cancel_on_disconnect(c->rq, true);
    server_free_if_over(srv);
}

void server_conn_gone(struct http_server *srv)
{
    MAGIC_CHECK(srv, SERVER_MAGIC);
    ASSERT(srv->n_conns > 0);
    srv->n_conns--;
    metric_add(M_HTTP_CONNECTIONS, -1);
    server_free_if_over(srv);
}

/* ---- small things ------------------------------------------------------------------------------------------------ */

void server_count(struct http_server *srv, int status)
{
    char text[16];

    ASSERT(status > 0 && status < (int)ARRAY_LEN(srv->slots));
    if (srv->slots[status] == 0) {
        snprintf(text, sizeof(text), "%d", status);
        srv->slots[status] = (unsigned short)(metric_label(M_HTTP_REQUESTS_TOTAL, str_of(text)) + 1);
    }
    metric_add_at(M_HTTP_REQUESTS_TOTAL, srv->slots[status] - 1u, 1);
}

/* IMF-fixdate, RFC 9110 5.6.7, made once a second. */
static void date_make(struct http_server *srv, time_t now)
{
    static const char days[] = "SunMonTueWedThuFriSat", months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
    static const struct str before = STR("HTTP/1.1 200 OK\r\nDate: ");
    struct tm tm;
    int n;

    gmtime_r(&now, &tm);
    n = snprintf(srv->ok, sizeof(srv->ok), "%s%.3s, %02d %.3s %04d %02d:%02d:%02d GMT\r\n", before.p,
                 days + 3 * tm.tm_wday, tm.tm_mday, months + 3 * tm.tm_mon, (tm.tm_year + 1900) % 10000, tm.tm_hour,
                 tm.tm_min, tm.tm_sec);
    ASSERT(n > (int)before.len && n < (int)sizeof(srv->ok));
    srv->ok_text = str_n(srv->ok, (size_t)n);
    srv->date = str_n(srv->ok + before.len, (size_t)n - before.len - strlen("\r\n"));
    srv->date_s = now;
}

struct str server_ok(struct http_server *srv)
{
    time_t now = (time_t)(loop_wall_ms() / 1000);

    if (now != srv->date_s)
        date_make(srv, now);
    return srv->ok_text;
}

struct str server_date(struct http_server *srv)
{
    server_ok(srv);
    return srv->date;
}
