/*
 * session.c -- sessions of legacy clients, bound to their callers
 *
 * A session id is a name, not a capability: it is looked up among the sessions of the caller that presents it, so
 * another caller's id is as unknown as a made-up one.  The table is striped by caller; under the lock of a stripe are
 * its owners (callers), their sessions and the requests in flight of those.  A session may be used by all workers at
 * once.
 *
 * Bounds: so many sessions in all, OWNER_SESSIONS_MAX per caller (then its least recently used one goes), and idle ones
 * are forgotten.  What a session knows: the negotiated revision, what the client can be asked, the level of its log.
 */
#include <stdlib.h>

#include "mcp/internal.h"

enum { OWNER_KEY_MAX = 64 * 1024 };     /* names and issuers are far shorter: a token has 8 KiB */

TAILQ_HEAD(sessions, session);

struct owner {
    struct str key;                     /* see owner_key(); the bytes follow */
    struct sessions sessions;
    unsigned n;
};

struct stripe {
    pthread_mutex_t lock;
    struct map by_id, owners;
};

struct session_table {
    unsigned max;
    ns_t idle;
    atomic_uint n;
    struct stripe stripes[STRIPES];
};

static void add_piece(struct buf *b, struct str s)
{
    uint32_t n = (uint32_t)s.len;

    buf_add(b, &n, sizeof(n));
    buf_add_str(b, s);
}

/* Whoever is the same in all four is the same caller: issuers may give the same names to different people. */
static void owner_key(struct buf *b, const struct caller *who)
{
    add_piece(b, who->tenant);
    add_piece(b, who->user);
    add_piece(b, who->agent);
    add_piece(b, who->issuer);
    ASSERT(!b->overflow);               /* a key cut short could be another caller's */
}

bool caller_same(const struct caller *a, const struct caller *b)
{
    return str_eq(a->tenant, b->tenant) && str_eq(a->user, b->user) && str_eq(a->agent, b->agent) &&
        str_eq(a->issuer, b->issuer);
}

static struct stripe *stripe_of(struct session_table *t, struct str key)
{
    return &t->stripes[hash_bytes(key.p, key.len) % STRIPES];
}

struct session_table *session_table_new(unsigned max, ns_t idle)
{
    struct session_table *t = calloc(1, sizeof(*t));

    ASSERT(t != NULL);
    t->max = max;
    t->idle = idle;
    atomic_init(&t->n, 0);
    for (int i = 0; i < STRIPES; i++)
        pthread_mutex_init(&t->stripes[i].lock, NULL);
    return t;
}

size_t session_count(struct session_table *t)
{
    return atomic_load(&t->n);
}

void session_release(struct session *s)
{
    if (!s)
        return;
    MAGIC_CHECK(s, SESSION_MAGIC);
    if (atomic_fetch_sub_explicit(&s->refs, 1, memory_order_acq_rel) > 1)
        return;
    ASSERT(s->dead && LIST_EMPTY(&s->inflights));
    s->magic = 0;
    free(s);
}

/* ---- under the stripe's lock ------------------------------------------------------------------------------------- */

static void kill_session(struct session_table *t, struct stripe *st, struct session *s)
{
    struct owner *o = s->owner;

    ASSERT(!s->dead && o->n > 0);
    map_del(&st->by_id, str_of(s->id.z));
    TAILQ_REMOVE(&o->sessions, s, link);
    s->dead = true;
    s->owner = NULL;
    if (--o->n == 0) {
        map_del(&st->owners, o->key);
        free(o);
    }
    atomic_fetch_sub(&t->n, 1);
    session_release(s);
}

static void kill_idle(struct session_table *t, struct stripe *st, ns_t now)
{
    struct map_slot *slot;
    size_t i = 0;

    while ((slot = map_next(&st->by_id, &i))) {
        struct session *s = slot->value;

        if (now - s->used > t->idle && LIST_EMPTY(&s->inflights) && !s->streaming)
            kill_session(t, st, s);
    }
}

static struct owner *owner_get(struct stripe *st, struct str key)
{
    struct owner *o = map_get(&st->owners, key);

    if (o)
        return o;
    o = malloc(sizeof(*o) + key.len);
    ASSERT(o != NULL);
    memcpy(o + 1, key.p, key.len);
    o->key = str_n(o + 1, key.len);
    o->n = 0;
    TAILQ_INIT(&o->sessions);
    map_put(&st->owners, o->key, o);
    return o;
}

static struct session *session_new(struct session_table *t, struct stripe *st, struct str key, enum revision r,
                                   unsigned can)
{
    struct session *s = calloc(1, sizeof(*s));
    struct owner *o = owner_get(st, key);

    ASSERT(s != NULL);
    s->magic = SESSION_MAGIC;
    atomic_init(&s->refs, 2);           /* the table's and the caller's */
    atomic_init(&s->log_level, -1);
    s->id = id_new("sess");
    s->revision = r;
    s->can = can;
    s->used = loop_now();
    LIST_INIT(&s->inflights);
    s->owner = o;
    s->stripe = (unsigned)(st - t->stripes);
    TAILQ_INSERT_TAIL(&o->sessions, s, link);
    if (++o->n > OWNER_SESSIONS_MAX)
        kill_session(t, st, TAILQ_FIRST(&o->sessions));
    map_put(&st->by_id, str_of(s->id.z), s);
    return s;
}

void session_table_free(struct session_table *t)
{
    if (!t)
        return;
    for (int i = 0; i < STRIPES; i++) {
        struct stripe *st = &t->stripes[i];
        struct map_slot *slot;
        size_t at = 0;

        while ((slot = map_next(&st->by_id, &at)))
            kill_session(t, st, slot->value);
        ASSERT(st->owners.len == 0);
        map_release(&st->by_id);
        map_release(&st->owners);
        pthread_mutex_destroy(&st->lock);
    }
    ASSERT(atomic_load(&t->n) == 0);
    free(t);
}

/* ---- finding ----------------------------------------------------------------------------------------------------- */

/* Room for one more, counted; at the limit what is idle goes first. */
static bool table_room(struct session_table *t)
{
    ns_t now = loop_now();

    if (atomic_fetch_add(&t->n, 1) < t->max)
        return true;
    for (int i = 0; i < STRIPES; i++) {
        pthread_mutex_lock(&t->stripes[i].lock);
        kill_idle(t, &t->stripes[i], now);
        pthread_mutex_unlock(&t->stripes[i].lock);
    }
    if (atomic_load(&t->n) <= t->max)
        return true;
    atomic_fetch_sub(&t->n, 1);
    return false;
}

enum err session_mint(struct session_table *t, const struct caller *who, enum revision r, unsigned can,
                      struct session **ret)
{
    struct buf key = BUF_INIT(OWNER_KEY_MAX);
    struct stripe *st;

    if (!table_room(t))
        return E_OVERLOADED;
    owner_key(&key, who);
    st = stripe_of(t, buf_str(&key));
    pthread_mutex_lock(&st->lock);
    *ret = session_new(t, st, buf_str(&key), r, can);
    pthread_mutex_unlock(&st->lock);
    buf_release(&key);
    return OK;
}

enum err session_find(struct session_table *t, const struct caller *who, struct str id, struct session **ret)
{
    struct buf key = BUF_INIT(OWNER_KEY_MAX);
    ns_t now = loop_now();
    struct session *s;
    struct stripe *st;

    owner_key(&key, who);
    st = stripe_of(t, buf_str(&key));
    pthread_mutex_lock(&st->lock);
    s = map_get(&st->by_id, id);
    if (s && !str_eq(s->owner->key, buf_str(&key)))
        s = NULL;                       /* a neighbour's in this stripe */
    if (s && now - s->used > t->idle && LIST_EMPTY(&s->inflights) && !s->streaming) {
        kill_session(t, st, s);
        s = NULL;
    }
    if (s) {
        s->used = now;
        TAILQ_REMOVE(&s->owner->sessions, s, link);
        TAILQ_INSERT_TAIL(&s->owner->sessions, s, link);
        atomic_fetch_add_explicit(&s->refs, 1, memory_order_relaxed);
    }
    pthread_mutex_unlock(&st->lock);
    buf_release(&key);
    if (!s)
        return E_SESSION_UNKNOWN;
    *ret = s;
    return OK;
}

static struct stripe *session_lock(struct session_table *t, struct session *s)
{
    MAGIC_CHECK(s, SESSION_MAGIC);
    pthread_mutex_lock(&t->stripes[s->stripe].lock);
    return &t->stripes[s->stripe];
}

static void session_unlock(struct session_table *t, struct session *s)
{
    pthread_mutex_unlock(&t->stripes[s->stripe].lock);
}

void session_end(struct session_table *t, struct session *s)
{
    struct stripe *st = session_lock(t, s);

    if (!s->dead)
        kill_session(t, st, s);
    pthread_mutex_unlock(&st->lock);
}

bool session_ended(struct session_table *t, struct session *s)
{
    bool dead;

    session_lock(t, s);
    dead = s->dead;
    session_unlock(t, s);
    return dead;
}

bool session_stream_take(struct session_table *t, struct session *s)
{
    bool taken;

    session_lock(t, s);
    taken = s->streaming;
    s->streaming = true;
    session_unlock(t, s);
    return !taken;
}

void session_stream_give(struct session_table *t, struct session *s)
{
    session_lock(t, s);
    ASSERT(s->streaming);
    s->streaming = false;
    s->used = loop_now();
    session_unlock(t, s);
}

/* ---- requests in flight, and cancelling them --------------------------------------------------------------------- */

void session_inflight_add(struct session_table *t, struct session *s, struct inflight *f)
{
    ASSERT(!f->linked && f->task == task_self());
    session_lock(t, s);
    LIST_INSERT_HEAD(&s->inflights, f, link);
    f->linked = true;
    session_unlock(t, s);
}

void session_inflight_del(struct session_table *t, struct session *s, struct inflight *f)
{
    if (!f->linked)
        return;
    session_lock(t, s);
    LIST_REMOVE(f, link);
    f->linked = false;
    s->used = loop_now();
    session_unlock(t, s);
}

/* `w` NULL: on any worker. */
static struct inflight *inflight_find(struct session *s, struct str id, const struct worker *w)
{
    struct inflight *f;

    LIST_FOREACH(f, &s->inflights, link)
        if (str_eq(f->id, id) && (!w || f->worker == w))
            return f;
    return NULL;
}

struct cancel_mail {
    struct mail mail;
    struct session_table *table;
    struct session *session;            /* a reference */
    size_t len;
    char id[];
};

/* On the worker that runs it: an entry of ours cannot go away while we look, only this thread takes it out. */
static void cancel_here(struct mail *m)
{
    struct cancel_mail *c = CONTAINER_OF(m, struct cancel_mail, mail);
    struct inflight *f;

    session_lock(c->table, c->session);
    f = inflight_find(c->session, str_n(c->id, c->len), worker_self());
    session_unlock(c->table, c->session);
    if (f && !f->cancelled) {
        f->cancelled = true;
        task_cancel(f->task);
    }
    session_release(c->session);
    free(c);
}

void session_cancel(struct session_table *t, struct session *s, struct str id)
{
    struct worker *w = NULL;
    struct cancel_mail *c;
    struct inflight *f;

    session_lock(t, s);
    f = inflight_find(s, id, NULL);
    if (f)
        w = f->worker;
    session_unlock(t, s);
    if (!w)
        return;                         /* unknown, or done already */
    c = malloc(sizeof(*c) + id.len);
    ASSERT(c != NULL);
    *c = (struct cancel_mail){ .mail.fn = cancel_here, .table = t, .session = s, .len = id.len };
    memcpy(c->id, id.p, id.len);
    atomic_fetch_add_explicit(&s->refs, 1, memory_order_relaxed);
    loop_post(w->loop, &c->mail);
}
