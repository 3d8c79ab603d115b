/*
 * pool.c -- connections by tenant and origin: kept ones newest first, newcomers in line
 *
 * A group has `per_origin_max` places.  Whoever wants a connection takes the newest kept one, else a free place and
 * opens one, else waits in line; what is released goes to the first in line.  Everything here is O(1) in connections,
 * waiters and groups; only who tries a second time, and wants a connection younger than the one that ended, looks
 * through the shared ones, and is passed over by those that are older.  A group without places taken, waiters or
 * transfers is forgotten.
 *
 * A kept connection has a poll armed for as long as it is idle: bytes or a close while idle end it.  Just before a
 * request is sent on it, it is asked once more, without waiting (exchange.c): TLS may hold bytes the poll cannot see,
 * and some may have come since it was taken.
 *
 * A connection that speaks HTTP/2 (session.c) is shared by exchanges of its group while it has room: among the kept
 * ones it is taken first, and who is in line is given a share of it.  Whether an origin speaks it shows when the first
 * connection is open, and how many share it when its peer has said so: until then only one for SHARE_EXPECTED in line
 * is opened.  Nobody counts on that for longer than opening a connection may take: then it opens one of its own.
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
    bool opens;                         /* a place is for a connection, not for a full transfer ... */
    bool http2;                         /* ... and it may speak HTTP/2: counted as opening */
    ns_t since;                         /* 0: any kept one will do, else a shared one that was opened then or later */
    struct waiter *next, *prev;
};

/* ---- groups ------------------------------------------------------------------------------------------------------ */

enum {
    SHARE_EXPECTED = 64,                /* exchanges that a connection being opened is expected to take */
};

enum { KEY_MAX = 8 + FETCH_HOST_MAX + FETCH_TENANT_MAX };

STATIC_ASSERT((int)KEY_MAX <= (int)SCRATCH_SIZE, "a key fits the scratch");

static struct str group_key(char out[KEY_MAX], struct str tenant, const struct fetch_origin *o,
                            const struct fetch_guard *g)
{
    size_t host = strlen(o->host);
    char *p = out;

    *p++ = (char)((o->tls ? 1 : 0) | (g->allow_loopback ? 2 : 0) | (g->allow_private ? 4 : 0) |
                  (g->allow_plain_http ? 8 : 0) | (o->plain_http2 ? 16 : 0));
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

/* Of what this worker has seen, the entry for an origin; n_seen: there is none. */
static unsigned seen_find(const struct fetch *f, const struct fetch_origin *o)
{
    unsigned n = f->n_seen < ORIGINS_MAX ? f->n_seen : ORIGINS_MAX;

    for (unsigned i = 0; i < n; i++)
        if (fetch_origin_eq(&f->seen[i].origin, o))
            return i;
    return f->n_seen;
}

static int speaks_guess(const struct fetch *f, const struct fetch_origin *o)
{
    unsigned i = seen_find(f, o);

    if (!o->tls)
        return o->plain_http2 ? SPEAKS_HTTP2 : SPEAKS_HTTP1;
    if (f->opt.http2 == FETCH_HTTP2_NEVER)
        return SPEAKS_HTTP1;
    return i == f->n_seen ? SPEAKS_UNKNOWN : f->seen[i % ORIGINS_MAX].http2 ? SPEAKS_HTTP2 : SPEAKS_HTTP1;
}

static void speaks_learn(struct group *g, bool http2)
{
    struct fetch *f = g->f;
    unsigned i = seen_find(f, &g->origin);

    g->speaks = http2 ? SPEAKS_HTTP2 : SPEAKS_HTTP1;
    if (!g->origin.tls)
        return;
    if (i == f->n_seen)
        f->seen[f->n_seen++ % ORIGINS_MAX].origin = g->origin;
    f->seen[i % ORIGINS_MAX].http2 = http2;
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
    g->speaks = speaks_guess(f, req->origin);
    TAILQ_INIT(&g->seekers);
    map_put(&f->groups, g->key, g);
    return g;
}

static void group_forget_if_empty(struct group *g)
{
    if (g->places > 0 || g->first || g->full || g->full_users > 0)
        return;
    ASSERT(!g->idle && !g->shared && g->finders == 0 && g->opening == 0 && TAILQ_EMPTY(&g->seekers));
    ASSERT(g->full_users == 0 && !timer_is_set(&g->full_timer));
    map_del(&g->f->groups, g->key);
    free(g);
}

/* ---- idle connections -------------------------------------------------------------------------------------------- */

static void on_readable(struct op *op, int res);
static void conn_destroy(struct conn *c);
static void place_release(struct group *g);
static void line_open(struct group *g);
static void offer(struct conn *c);

static void conn_arm(struct conn *c, unsigned events)
{
    c->poll.events = events;
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

    ASSERT(!c->idle && !c->wake && !c->shared && (c->session || !g->first) && !f->draining);
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
        conn_arm(c, POLLIN);
    if (!timer_is_set(&f->idle_timer))
        timer_set(&f->idle_timer, c->idle_since + f->opt.idle_timeout, idle_expire);
    if (f->n_idle > f->opt.idle_max)
        idle_close(f->oldest);
}

static void on_session(struct conn *c, int res)
{
    unsigned events = session_events(c, res);

    if (c->idle && session_room(c) == 0)
        idle_close(c);                  /* it is closing, or its peer takes nothing any more (RFC 9113 6.5.2) */
    else if (events)
        conn_arm(c, events);
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
    if (c->session) {
        on_session(c, res);
        return;
    }
    c->readable = true;
    if (c->wake)
        wake_fire(c->wake);
    else if (c->idle && !channel_quiet(&c->channel))
        idle_close(c);
    else if (c->idle)
        conn_arm(c, POLLIN);            /* TLS housekeeping, a session ticket for example */
}

enum err await_readable(struct conn *c, ns_t deadline)
{
    struct wake w = { 0 };
    enum err e = OK;

    ASSERT(!c->idle && !c->dead && !c->wake);
    if (!c->readable) {
        if (!op_active(&c->poll))
            conn_arm(c, POLLIN);
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
    ASSERT(!c->idle && !c->wake && !c->dead && !c->shared && c->users == 0);
    if (c->opening)
        c->group->opening--;
    c->opening = false;
    if (c->session)
        session_close(c);
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

static struct conn *conn_new(struct group *g, struct channel ch)
{
    struct conn *c = calloc(1, sizeof(*c));

    if (!c)
        return NULL;
    *c = (struct conn){ .magic = CONN_MAGIC, .f = g->f, .group = g, .channel = ch };
    c->poll.kind = OP_POLL;
    c->poll.fd = ch.fd;
    if (group_speaks_http2(g, &ch) && !session_open(c)) {
        free(c);
        return NULL;
    }
    g->f->n_conns++;
    metric_add(M_FETCH_CONNECTIONS, +1);
    metric_add(M_FETCH_CONNECTS_TOTAL, 1);
    return c;
}

/* Opens a connection on a place that the caller holds; on failure the place is given back. */
static enum err await_open(struct group *g, const struct fetch_request *req, bool http2, struct conn **ret,
                           struct errinfo *info)
{
    struct conn *c = NULL;
    struct channel ch;
    enum err e = await_channel(g, req, http2, &ch, info);

    if (!e && !(c = conn_new(g, ch))) {
        channel_close(&ch);
        e = err_set(info, E_OVERLOADED, "no memory for a connection");
    }
    if (e) {
        g->opening -= http2;
        place_release(g);
        return e;
    }
    if (http2)
        speaks_learn(g, c->session != NULL);
    if (c->session) {
        c->users = 1;
        c->opening = true;              /* until its peer has said how many it takes */
        conn_arm(c, POLLIN);
    } else {
        g->opening -= http2;
    }
    line_open(g);
    *ret = c;
    return OK;
}

/* ---- the line ---------------------------------------------------------------------------------------------------- */

/* Whether a connection that is opened on one more place may speak HTTP/2. */
static bool may_speak_http2(const struct group *g)
{
    enum fetch_http2 http2 = g->f->opt.http2;

    if (!g->origin.tls)
        return g->origin.plain_http2;
    return http2 == FETCH_HTTP2_ALWAYS || (http2 == FETCH_HTTP2_SHARED && g->places >= FETCH_HTTP1_FIRST);
}

/* Whether those who open a connection now may be expected to open enough for so many in line: over HTTP/2 they will
 * share it, and what an origin speaks over TLS is known only after the first time. */
static bool enough_open(const struct group *g, unsigned in_line)
{
    if (!may_speak_http2(g))
        return false;
    return g->speaks != SPEAKS_HTTP1 && in_line <= g->opening * SHARE_EXPECTED;
}

static void line_add(struct group *g, struct waiter *w)
{
    w->prev = g->last;
    *(g->last ? &g->last->next : &g->first) = w;
    g->last = w;
    g->in_line++;
}

static void line_remove(struct group *g, struct waiter *w)
{
    g->in_line--;
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

static void place_grant(struct group *g, struct waiter *w)
{
    w->http2 = w->opens && may_speak_http2(g);
    w->place = true;
    g->opening += w->http2;
    g->places++;
}

/* What is being opened, or was given, is less than those in line need. */
static void line_open(struct group *g)
{
    while (g->first && g->places < g->f->opt.per_origin_max && !enough_open(g, g->in_line)) {
        struct waiter *w = line_first(g);

        place_grant(g, w);
        wake_fire(&w->wake);
    }
}

static void place_release(struct group *g)
{
    ASSERT(g->places > 0);
    g->places--;
    line_open(g);
    group_forget_if_empty(g);
}

/* ---- connections that several use -------------------------------------------------------------------------------- */

static void conn_share(struct conn *c)
{
    struct group *g = c->group;

    c->shared = true;
    c->above = NULL;
    c->below = g->shared;
    if (c->below)
        c->below->above = c;
    g->shared = c;
}

static void conn_unshare(struct conn *c)
{
    if (!c->shared)
        return;
    c->shared = false;
    *(c->above ? &c->above->below : &c->group->shared) = c->below;
    if (c->below)
        c->below->above = c->above;
    c->above = c->below = NULL;
}

/* To those in line, as far as it has room; then to who comes next, if it still has. */
static void offer(struct conn *c)
{
    struct group *g = c->group;
    struct waiter *w, *next;

    for (w = g->first; w && session_room(c) > 0; w = next) {
        next = w->next;
        if (!w->opens || w->since > session_opened_at(c))
            continue;
        line_remove(g, w);
        w->conn = c;
        c->users++;
        wake_fire(&w->wake);
    }
    if (c->users == 0 || session_room(c) == 0)
        conn_unshare(c);
    else if (!c->shared)
        conn_share(c);
}

void conn_settled(struct conn *c)
{
    struct group *g = c->group;

    if (c->opening)
        g->opening--;
    c->opening = false;
    if (session_closing(c))
        conn_unshare(c);
    else if (c->users > 0)
        offer(c);
    line_open(g);
}

static struct conn *shared_one(struct group *g, ns_t since)
{
    struct conn *c = g->shared;

    while (c && (session_room(c) == 0 || session_opened_at(c) < since))
        c = c->below;
    return c;
}

static void conn_join(struct conn *c)
{
    c->users++;
    if (!c->shared && session_room(c) > 0)
        conn_share(c);
    else if (c->shared && session_room(c) == 0)
        conn_unshare(c);
}

static void conn_leave(struct conn *c)
{
    struct group *g = c->group;
    bool over = session_closing(c) || g->f->draining;

    ASSERT(c->users > 0);
    c->users--;
    if (!over)
        offer(c);
    if (c->users > 0)
        return;
    conn_unshare(c);
    if (!over && session_room(c) > 0 && !(g->first && g->places >= g->f->opt.per_origin_max)) {
        idle_add(c);
        return;
    }
    conn_destroy(c);                    /* or who is in line wants its place: a full transfer, or a newer one */
    place_release(g);
}

/* ---- taking and giving back -------------------------------------------------------------------------------------- */

void conn_release(struct conn *c, bool keep)
{
    struct group *g = c->group;
    struct waiter *w;

    MAGIC_CHECK(c, CONN_MAGIC);
    if (c->session) {
        conn_leave(c);
        return;
    }
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

/* Without waiting: *ret is a kept connection, or NULL and a place is held. False: there is neither. */
static bool take(struct group *g, struct waiter *w, struct conn **ret)
{
    struct conn *idle = g->idle, *shared = w->opens ? shared_one(g, w->since) : NULL;

    *ret = shared ? shared : w->opens && w->since == 0 ? idle : NULL;
    if (*ret == idle && idle)
        idle_remove(idle);
    if (*ret && (*ret)->session)
        conn_join(*ret);
    if (*ret)
        return true;
    if (g->first || (w->opens && enough_open(g, g->in_line + 1)))
        return false;
    if (g->places >= g->f->opt.per_origin_max && idle) {
        idle_remove(idle);
        conn_destroy(idle);             /* its place is what counts */
        g->places--;
    }
    if (g->places >= g->f->opt.per_origin_max)
        return false;
    place_grant(g, w);
    return true;
}

/* In line until something is given. Who waits there though places are free counts on a connection that another opens:
 * for as long as opening one may take, then it takes a place for its own. */
static enum err await_given(struct group *g, struct waiter *w, ns_t deadline)
{
    enum err e;

    line_add(g, w);
    do {
        ns_t until = loop_now() + g->f->opt.connect_timeout;

        e = await_wake(&w->wake, until < deadline ? until : deadline);
        if (e == E_TIMEOUT && loop_now() < deadline && g->places < g->f->opt.per_origin_max) {
            line_remove(g, w);
            place_grant(g, w);
            return OK;
        }
    } while (e == E_TIMEOUT && loop_now() < deadline);
    if (e)
        line_remove(g, w);
    return e;
}

/* OK: *ret is a kept connection, or NULL and a place is held. */
static enum err await_line(struct group *g, const struct fetch_request *req, struct waiter *w, struct conn **ret,
                           struct errinfo *info)
{
    bool full;
    enum err e;

    if (take(g, w, ret))
        return OK;
    e = await_given(g, w, req->deadline);
    if (e) {
        full = g->places >= g->f->opt.per_origin_max;
        group_forget_if_empty(g);
        return e == E_TIMEOUT ? err_set(info, E_DEADLINE, "no connection to %s was %s before the deadline",
                                        req->origin->host, full ? "free" : "open")
                              : e;
    }
    if (!w->conn && !w->place)
        return err_set(info, E_DRAINING, "the engine is stopping");
    *ret = w->conn;
    if (w->conn && !w->conn->session && (!w->opens || w->since != 0)) {
        conn_destroy(w->conn);          /* its place is what counts */
        g->places--;
        place_grant(g, w);
        *ret = NULL;
    }
    return OK;
}

enum err await_conn(struct fetch *f, const struct fetch_request *req, const struct fetch_guard *guard,
                    struct group *known, ns_t since, struct conn **ret, bool *ret_reused, struct errinfo *info)
{
    struct group *g = known ? known : group_get(f, req, guard);
    struct waiter w = { .opens = true, .since = since };
    struct conn *c;
    enum err e;

    if (!g)
        return err_set(info, E_OVERLOADED, "no memory for a connection");
    e = await_line(g, req, &w, &c, info);
    if (e)
        return e;
    *ret_reused = c != NULL;
    *ret = c;
    return c ? OK : await_open(g, req, w.http2, ret, info);
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
    struct waiter w = { .opens = false };
    struct conn *c;
    enum err e;

    if (!g)
        return err_set(info, E_OVERLOADED, "no memory for a connection");
    e = await_line(g, req, &w, &c, info);
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
