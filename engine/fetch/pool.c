/*
 * pool.c -- connections by tenant and origin: kept ones newest first, newcomers in line
 *
 * A group has `per_origin_max` places.  Whoever wants a connection takes the newest kept one, else a free place and
 * opens one, else waits in line; what is released goes to the first in line.  Everything here is O(1) in connections,
 * waiters and groups.  A group without places taken, waiters or transfers is forgotten.
 *
 * A kept connection has a poll armed for as long as it is idle: bytes or a close while idle end it.  Just before a
 * request is sent on it, it is asked once more, without waiting (exchange.c): TLS may hold bytes the poll cannot see,
 * and some may have come since it was taken.
 *
 * Keys contain the guard as well, so that what a loose guard let through never serves a request under a strict one.
 */
#include <poll.h>
#include <stdlib.h>

#include "base/check.h"
#include "base/metric.h"
#include "fetch/internal.h"

struct waiter {
    struct wake wake;
    struct conn *conn;                  /* given: a kept connection, its place included ... */
    bool place;                         /* ... or a place */
    struct waiter *next, *prev;
};

/* ---- groups ------------------------------------------------------------------------------------------------------ */

enum { KEY_MAX = 8 + FETCH_HOST_MAX + FETCH_TENANT_MAX };

STATIC_ASSERT((int)KEY_MAX <= (int)SCRATCH_SIZE, "a key fits the scratch");

static struct str group_key(char out[KEY_MAX], struct str tenant, const struct fetch_origin *o,
                            const struct fetch_guard *g)
{
    size_t host = strlen(o->host);
    char *p = out;

    *p++ = (char)((o->tls ? 1 : 0) | (g->allow_loopback ? 2 : 0) | (g->allow_private ? 4 : 0) |
                  (g->allow_plain_http ? 8 : 0));
    *p++ = (char)(o->port >> 8);
    *p++ = (char)(o->port & 0xff);
    *p++ = (char)host;                  /* lengths, not separators: a tenant's name may hold any byte */
    memcpy(p, o->host, host);
    p += host;
    memcpy(p, tenant.p, tenant.len);
    return str_n(out, (size_t)(p - out) + tenant.len);
}

struct group *group_known(struct fetch *f, const struct fetch_request *req, const struct fetch_guard *guard)
{
    if (req->tenant.len == 0 || req->tenant.len > FETCH_TENANT_MAX ||
        !memchr(req->origin->host, '\0', sizeof(req->origin->host)))
        return NULL;
    return map_get(&f->groups, group_key(f->scratch, req->tenant, req->origin, guard));
}

static struct group *group_get(struct fetch *f, const struct fetch_request *req, const struct fetch_guard *guard)
{
    /* in the scratch: half a kilobyte of a task's stack, touched once, would stay */
    struct str key = group_key(f->scratch, req->tenant, req->origin, guard);
    struct group *g = map_get(&f->groups, key);

    if (g)
        return g;
    g = calloc(1, sizeof(*g) + key.len);
    if (!g)
        return NULL;
    memcpy(g + 1, key.p, key.len);
    g->f = f;
    g->origin = *req->origin;
    g->guard = *guard;
    g->key = str_n(g + 1, key.len);
    g->hash = hash_bytes(g->key.p, g->key.len);
    TAILQ_INIT(&g->seekers);
    map_put(&f->groups, g->key, g);
    return g;
}

static void group_forget_if_empty(struct group *g)
{
    if (g->places > 0 || g->first || g->full || g->full_users > 0)
        return;
    ASSERT(!g->idle && g->finders == 0 && TAILQ_EMPTY(&g->seekers));
    ASSERT(g->full_users == 0 && !timer_is_set(&g->full_timer));
    map_del(&g->f->groups, g->key);
    free(g);
}

/* ---- idle connections -------------------------------------------------------------------------------------------- */

static void on_readable(struct op *op, int res);
static void conn_destroy(struct conn *c);
static void place_release(struct group *g);

static void conn_arm(struct conn *c)
{
    c->poll.events = POLLIN;
    c->poll.done = on_readable;
    op_submit(&c->poll);
}

static void idle_remove(struct conn *c)
{
    struct group *g = c->group;
    struct fetch *f = g->f;

    ASSERT(c->idle && f->n_idle > 0);
    c->idle = false;
    f->n_idle--;
    if (c->above)
        c->above->below = c->below;
    else
        g->idle = c->below;
    if (c->below)
        c->below->above = c->above;
    if (c->older)
        c->older->newer = c->newer;
    else
        f->oldest = c->newer;
    if (c->newer)
        c->newer->older = c->older;
    else
        f->newest = c->older;
    c->above = c->below = c->older = c->newer = NULL;
}

static void idle_close(struct conn *c)
{
    struct group *g = c->group;

    idle_remove(c);
    conn_destroy(c);
    place_release(g);
}

static void idle_expire(struct timer *t)
{
    struct fetch *f = CONTAINER_OF(t, struct fetch, idle_timer);

    while (f->oldest && f->oldest->idle_since + f->opt.idle_timeout <= loop_now())
        idle_close(f->oldest);
    if (f->oldest)
        timer_set(t, f->oldest->idle_since + f->opt.idle_timeout, idle_expire);
}

static void idle_add(struct conn *c)
{
    struct group *g = c->group;
    struct fetch *f = g->f;

    ASSERT(!c->idle && !c->wake && !g->first && !f->draining);
    c->idle = true;
    c->idle_since = loop_now();
    c->below = g->idle;
    if (c->below)
        c->below->above = c;
    g->idle = c;
    c->older = f->newest;
    if (c->older)
        c->older->newer = c;
    else
        f->oldest = c;
    f->newest = c;
    f->n_idle++;
    c->readable = false;
    if (!op_active(&c->poll))
        conn_arm(c);
    if (!timer_is_set(&f->idle_timer))
        timer_set(&f->idle_timer, c->idle_since + f->opt.idle_timeout, idle_expire);
    if (f->n_idle > f->opt.idle_max)
        idle_close(f->oldest);
}

static void on_readable(struct op *op, int res)
{
    struct conn *c = CONTAINER_OF(op, struct conn, poll);

    MAGIC_CHECK(c, CONN_MAGIC);
    if (c->dead) {
        c->f->n_socks--;
        c->magic = 0;
        free(c);
        return;
    }
    c->readable = true;
    if (c->wake)
        wake_fire(c->wake);
    else if (c->idle && !channel_quiet(&c->channel))
        idle_close(c);
    else if (c->idle)
        conn_arm(c);                    /* TLS housekeeping, a session ticket for example */
}

enum err await_readable(struct conn *c, ns_t deadline)
{
    struct wake w = { 0 };
    enum err e = OK;

    ASSERT(!c->idle && !c->dead && !c->wake);
    if (!c->readable) {
        if (!op_active(&c->poll))
            conn_arm(c);
        c->wake = &w;
        e = await_wake(&w, deadline);
        c->wake = NULL;
    }
    if (!e)
        c->readable = false;
    return e;
}

/* ---- opening and closing ----------------------------------------------------------------------------------------- */

/* Closes; its place stays taken. */
static void conn_destroy(struct conn *c)
{
    struct fetch *f = c->f;

    MAGIC_CHECK(c, CONN_MAGIC);
    ASSERT(!c->idle && !c->wake && !c->dead);
    channel_close(&c->channel);
    c->group = NULL;
    f->n_conns--;
    metric_add(M_FETCH_CONNECTIONS, -1);
    if (op_active(&c->poll)) {
        c->dead = true;                 /* on_readable() frees it */
        f->n_socks++;
        op_cancel(&c->poll);
        return;
    }
    c->magic = 0;
    free(c);
}

/* Opens a connection on a place that the caller holds; on failure the place is given back. */
static enum err await_open(struct group *g, const struct fetch_request *req, struct conn **ret, struct errinfo *info)
{
    struct fetch *f = g->f;
    struct conn *c = NULL;
    struct channel ch;
    enum err e = await_channel(g, req, &ch, info);

    if (!e && !(c = calloc(1, sizeof(*c)))) {
        channel_close(&ch);
        e = err_set(info, E_OVERLOADED, "no memory for a connection");
    }
    if (e) {
        place_release(g);
        return e;
    }
    *c = (struct conn){ .magic = CONN_MAGIC, .f = f, .group = g, .channel = ch };
    c->poll.kind = OP_POLL;
    c->poll.fd = ch.fd;
    f->n_conns++;
    metric_add(M_FETCH_CONNECTIONS, +1);
    metric_add(M_FETCH_CONNECTS_TOTAL, 1);
    *ret = c;
    return OK;
}

/* ---- the line ---------------------------------------------------------------------------------------------------- */

static void line_remove(struct group *g, struct waiter *w)
{
    if (w->prev)
        w->prev->next = w->next;
    else
        g->first = w->next;
    if (w->next)
        w->next->prev = w->prev;
    else
        g->last = w->prev;
}

static struct waiter *line_first(struct group *g)
{
    struct waiter *w = g->first;

    if (w)
        line_remove(g, w);
    return w;
}

static void place_release(struct group *g)
{
    struct waiter *w = line_first(g);

    ASSERT(g->places > 0);
    if (w) {
        w->place = true;
        wake_fire(&w->wake);
        return;
    }
    g->places--;
    group_forget_if_empty(g);
}

void conn_release(struct conn *c, bool keep)
{
    struct group *g = c->group;
    struct waiter *w;

    MAGIC_CHECK(c, CONN_MAGIC);
    if (!keep || g->f->draining) {
        conn_destroy(c);
        place_release(g);
        return;
    }
    w = line_first(g);
    if (!w) {
        idle_add(c);
        return;
    }
    w->conn = c;
    wake_fire(&w->wake);
}

void conn_looked(const struct conn *c, const void *ret[FETCH_LOOKED])
{
    ret[0] = map_place(&c->f->groups, c->group->hash);
    ret[1] = c->group->key.p;
    ret[2] = c->group;
    ret[3] = c;
}

/* Turns a connection into its place. */
static struct conn *only_place(struct conn *c, bool kept_will_do)
{
    if (kept_will_do)
        return c;
    conn_destroy(c);
    return NULL;
}

/* OK: *ret is a kept connection, or NULL and a place is held. */
static enum err await_line(struct group *g, const struct fetch_request *req, bool kept_will_do, struct conn **ret,
                           struct errinfo *info)
{
    struct waiter w = { .prev = g->last };
    struct conn *c = g->idle;
    enum err e;

    *ret = NULL;
    ASSERT(!c || !g->first);
    if (!g->first && (!c || !kept_will_do) && g->places < g->f->opt.per_origin_max) {
        g->places++;
        return OK;
    }
    if (c) {
        idle_remove(c);
        *ret = only_place(c, kept_will_do);
        return OK;
    }
    *(g->last ? &g->last->next : &g->first) = &w;
    g->last = &w;
    e = await_wake(&w.wake, req->deadline);
    if (e) {
        line_remove(g, &w);
        group_forget_if_empty(g);
        return e == E_TIMEOUT
                   ? err_set(info, E_DEADLINE, "no connection to %s was free before the deadline", req->origin->host)
                   : e;
    }
    if (w.conn)
        *ret = only_place(w.conn, kept_will_do);
    else if (!w.place)
        return err_set(info, E_DRAINING, "the engine is stopping");
    return OK;
}

enum err await_conn(struct fetch *f, const struct fetch_request *req, const struct fetch_guard *guard,
                    struct group *known, bool fresh, struct conn **ret, bool *ret_reused, struct errinfo *info)
{
    struct group *g = known ? known : group_get(f, req, guard);
    struct conn *c;
    enum err e;

    if (!g)
        return err_set(info, E_OVERLOADED, "no memory for a connection");
    e = await_line(g, req, !fresh, &c, info);
    if (e)
        return e;
    *ret_reused = c != NULL;
    *ret = c;
    return c ? OK : await_open(g, req, ret, info);
}

/* ---- full transfers ---------------------------------------------------------------------------------------------- */

static void full_close(struct group *g)
{
    struct multi *m;

    ASSERT(g->full_users == 0);
    while ((m = g->full)) {
        g->full = m->next;
        multi_close(m);
    }
}

static void full_forget(struct timer *t)
{
    struct group *g = CONTAINER_OF(t, struct group, full_timer);

    timer_clear(t);
    full_close(g);
    group_forget_if_empty(g);
}

struct multi *full_multi(struct group *g)
{
    struct multi *m;

    for (m = g->full; m; m = m->next)
        if (m->n < MULTI_CONNECTIONS)
            return m;
    m = multi_open(g->f);
    if (m) {
        m->next = g->full;
        g->full = m;
    }
    return m;
}

enum err await_place(struct fetch *f, const struct fetch_request *req, const struct fetch_guard *guard,
                     struct group **ret, struct errinfo *info)
{
    struct group *g = group_get(f, req, guard);
    struct conn *c;
    enum err e;

    if (!g)
        return err_set(info, E_OVERLOADED, "no memory for a connection");
    e = await_line(g, req, false, &c, info);
    if (e)
        return e;
    ASSERT(!c);
    timer_clear(&g->full_timer);
    g->full_users++;
    *ret = g;
    return OK;
}

void full_release(struct group *g)
{
    ASSERT(g->full_users > 0);
    g->full_users--;
    if (g->full_users == 0 && g->full && !g->f->draining)
        timer_set(&g->full_timer, loop_now() + g->f->opt.idle_timeout, full_forget);
    else if (g->full_users == 0)
        full_close(g);
    place_release(g);
}

void pool_drain(struct fetch *f)
{
    struct map_slot *slot;
    struct waiter *w;
    size_t i = 0;

    for (struct conn *c; (c = f->oldest); ) {
        idle_close(c);
        ASSERT(f->oldest != c);
    }
    timer_clear(&f->idle_timer);
    while ((slot = map_next(&f->groups, &i))) {
        struct group *g = slot->value;

        while ((w = line_first(g)))
            wake_fire(&w->wake);        /* with neither connection nor place: refused */
        if (g->full && g->full_users == 0)
            full_forget(&g->full_timer);
    }
}
