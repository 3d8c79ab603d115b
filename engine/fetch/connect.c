/*
 * connect.c -- a new connection to an origin: the way there, the socket, TLS
 *
 * libcurl finds the way: it looks the name up, goes through a proxy, lets addresses race.  That takes an easy handle,
 * 12 KB, for as long as it lasts, and 0.1 ms of the loop.  The address that answered is the group's way for
 * WAY_LASTS: until then sockets of that group are connected to it directly.  What does not connect (in WAY_PATIENCE),
 * or then fails in the handshake, is no way any more: libcurl looks again, in the same attempt, and says what is wrong.
 *
 * While there is no way only FINDERS_MAX of a group look for one, the others wait for what they find: a thousand calls
 * that come at once to a host that is far away cost sixteen easy handles, not a thousand.
 *
 * Through a proxy there is no way to remember: what answers is the proxy, which has to be asked each time.
 */
#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/check.h"
#include "fetch/internal.h"

enum {
    FINDERS_MAX = 16,
    KEEPALIVE_S = 60,                   /* as libcurl has it: idle that long, then asked that often */
};

#define WAY_LASTS    (30 * NS_PER_S)    /* half of what libcurl's own memory of names takes */
#define WAY_PATIENCE (1 * NS_PER_S)     /* one lost packet is forgiven */

struct seeker {
    struct wake wake;
    TAILQ_ENTRY(seeker) link;
};

int provider_socket(int family)
{
    int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, IPPROTO_TCP), one = 1, s = KEEPALIVE_S;

    if (fd < 0)
        return -1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof(one));
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &s, sizeof(s));
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &s, sizeof(s));
    return fd;
}

/* ---- by libcurl -------------------------------------------------------------------------------------------------- */

/* On the heap: it is not to lie on the stack of a task. */
struct find {
    struct group *g;
    struct xfer x;
    bool started;
    int fd;
    char url[FETCH_HOST_MAX + 32];
};

/* libcurl goes deep; neither of these waits (task_deep). */
static void find_start(void *arg)
{
    struct find *t = arg;
    struct group *g = t->g;
    struct multi *m = multi_roomy(g->f);

    /* to libcurl all is http: what is spoken on the connection is not its business */
    snprintf(t->url, sizeof(t->url), "http://%s:%u/", g->origin.host, g->origin.port);
    t->started = m && xfer_open(&t->x, g->f, &g->guard, t->url) && xfer_connects_only(&t->x) && xfer_start(&t->x, m);
}

static void find_end(void *arg)
{
    struct find *t = arg;

    xfer_close(&t->x);
}

/* Is the peer one that may be connected to? Then it is the way. */
static bool way_learn(struct group *g, int fd)
{
    struct way w = { .len = sizeof(w.to), .until = loop_now() + WAY_LASTS };

    if (g->f->proxy)
        return true;
    if (getpeername(fd, &w.to.any, &w.len) < 0 || !fetch_guard_allows(&g->guard, fetch_net_of(&w.to.any)))
        return false;
    g->way = w;
    return true;
}

static enum err find_result(struct find *t, struct errinfo *info)
{
    const char *host = t->g->origin.host;
    const struct xfer *x = &t->x;

    if (x->result != CURLE_OK && x->denied)
        return err_set(info, E_EGRESS_DENIED, "%s: its address is one that may not be connected to", host);
    if (x->result != CURLE_OK)
        return err_set(info, E_UPSTREAM_DOWN, "%s: %s", host, x->why[0] ? x->why : curl_easy_strerror(x->result));
    t->fd = xfer_take_socket(&t->x);
    if (t->fd < 0)
        return err_set(info, E_UPSTREAM_DOWN, "%s: the connection was gone at once", host);
    if (!way_learn(t->g, t->fd))
        return err_set(info, E_EGRESS_DENIED, "%s: its peer is one that may not be connected to", host);
    return OK;
}

/* A socket to the origin, by libcurl; nothing of libcurl's is left afterwards. */
static enum err await_found(struct group *g, ns_t until, int *ret_fd, struct errinfo *info)
{
    struct find *t = calloc(1, sizeof(*t));
    enum err e;

    if (!t)
        return err_set(info, E_OVERLOADED, "no memory for a connection");
    t->g = g;
    t->fd = -1;
    task_deep(find_start, t);
    e = t->started ? await_xfer(&t->x, until) : err_set(info, E_OVERLOADED, "no memory for a connection");
    if (!e)
        e = find_result(t, info);
    task_deep(find_end, t);
    if (e && t->fd >= 0)
        close(t->fd);
    *ret_fd = e ? -1 : t->fd;
    free(t);
    return e;
}

/* ---- directly ---------------------------------------------------------------------------------------------------- */

static bool way_known(const struct group *g)
{
    return g->way.len > 0 && loop_now() < g->way.until;
}

static void way_forget(struct group *g)
{
    g->way = (struct way){ 0 };
}

/* A socket that is connected to the group's way. E_CLOSED: it leads nowhere. */
static enum err await_direct(struct group *g, ns_t until, int *ret_fd)
{
    struct op op = { .kind = OP_POLL, .fd = -1, .events = POLLOUT };
    ns_t patience = loop_now() + WAY_PATIENCE;
    int events, failed = 0;
    socklen_t len = sizeof(failed);
    enum err e = OK;

    if (!fetch_guard_allows(&g->guard, fetch_net_of(&g->way.to.any)))
        return E_CLOSED;
    op.fd = provider_socket(g->way.to.any.sa_family);
    if (op.fd < 0)
        return E_CLOSED;
    if (connect(op.fd, &g->way.to.any, g->way.len) < 0) {
        e = errno == EINPROGRESS ? await_op(&op, patience < until ? patience : until, &events) : E_CLOSED;
        if (e == E_TIMEOUT && loop_now() < until)
            e = E_CLOSED;
        if (!e && (getsockopt(op.fd, SOL_SOCKET, SO_ERROR, &failed, &len) < 0 || failed))
            e = E_CLOSED;
    }
    if (e)
        close(op.fd);
    *ret_fd = e ? -1 : op.fd;
    return e;
}

/* ---- the way ----------------------------------------------------------------------------------------------------- */

/* OK: the way is known, or *ret_finds: the caller is one of those who look for it, until way_told(). */
static enum err await_way(struct group *g, ns_t until, bool *ret_finds)
{
    *ret_finds = false;
    while (!way_known(g)) {
        struct seeker s = { 0 };
        enum err e;

        if (g->finders < FINDERS_MAX || g->f->proxy) {
            g->finders++;
            *ret_finds = true;
            return OK;
        }
        TAILQ_INSERT_TAIL(&g->seekers, &s, link);
        e = await_wake(&s.wake, until);
        if (e) {
            TAILQ_REMOVE(&g->seekers, &s, link);
            return e;
        }
    }
    return OK;
}

/* One that looked has ended: all go on if there is a way now, else one takes its place. */
static void way_told(struct group *g)
{
    struct seeker *s;

    g->finders--;
    while ((s = TAILQ_FIRST(&g->seekers))) {
        TAILQ_REMOVE(&g->seekers, s, link);
        wake_fire(&s->wake);
        if (!way_known(g))
            return;
    }
}

/* ---- connections ------------------------------------------------------------------------------------------------- */

/* A thousand calls may want a connection in one turn; their handshakes would hold the loop for seconds. */
enum err await_begin(struct fetch *f, bool handshake, ns_t deadline)
{
    unsigned cost = handshake ? BEGIN_TLS : BEGIN_PLAIN;
    enum err e = OK;

    while (!e) {
        if (f->begin_turn != loop_now()) {
            f->begin_turn = loop_now();
            f->begin_cost = 0;
        }
        if (f->begin_cost + cost <= BEGIN_MAX) {
            f->begin_cost += cost;
            return OK;
        }
        await_turn();
        e = loop_now() >= deadline ? E_TIMEOUT : await_sleep(0);
    }
    return e;
}

static enum err await_socket(struct group *g, ns_t until, int *ret_fd, struct errinfo *info)
{
    enum err e = E_CLOSED;

    if (way_known(g)) {
        e = await_direct(g, until, ret_fd);
        if (e == E_CLOSED)
            way_forget(g);
    }
    return e == E_CLOSED ? await_found(g, until, ret_fd, info) : e;
}

/* Waiting for the connection ended before there was one. */
static enum err given_up(const struct group *g, const struct fetch_request *req, enum err e, struct errinfo *info)
{
    if (e != E_TIMEOUT)
        return e;
    if (loop_now() >= req->deadline)
        return err_set(info, E_DEADLINE, "%s: not connected before the deadline", g->origin.host);
    return err_set(info, E_UPSTREAM_DOWN, "%s: not connected within %lld ms", g->origin.host,
                   (long long)(g->f->opt.connect_timeout / NS_PER_MS));
}

bool group_speaks_http2(const struct group *g, const struct channel *ch)
{
    return g->origin.tls ? channel_speaks_http2(ch) : g->origin.plain_http2;
}

/* TLS, if that is what the origin speaks; and in HTTP/1.1 nothing may come before the peer was asked. */
static enum err await_ready(struct group *g, struct channel *ch, bool http2, ns_t until, struct errinfo *info)
{
    char byte;
    size_t n;
    enum err e = g->origin.tls ? await_channel_tls(ch, g->f->tls, g->origin.host, http2, until, info) : OK;

    if (!e && !group_speaks_http2(g, ch) && channel_recv(ch, &byte, 1, &n) != MOVED_LATER)
        e = err_set(info, E_UPSTREAM_DOWN, "%s: closed, or spoke before it was asked", g->origin.host);
    return e;
}

enum err await_channel(struct group *g, const struct fetch_request *req, bool http2, struct channel *ret,
                       struct errinfo *info)
{
    ns_t until = loop_now() + g->f->opt.connect_timeout, asked;
    bool finds;
    enum err e = await_way(g, until < req->deadline ? until : req->deadline, &finds);

    *ret = (struct channel){ .fd = -1 };
    asked = loop_now();
    if (!e)
        e = await_begin(g->f, g->origin.tls, req->deadline);
    until += loop_now() - asked;        /* the peer's time, not that of waiting for a turn */
    if (until > req->deadline)
        until = req->deadline;
    if (!e)
        e = await_socket(g, until, &ret->fd, info);
    if (finds)
        way_told(g);
    if (!e) {
        e = await_ready(g, ret, http2, until, info);
        if (e)
            way_forget(g);
    }
    if (e)
        channel_close(ret);
    return given_up(g, req, e, info);
}
