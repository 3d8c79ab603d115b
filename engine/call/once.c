/*
 * once.c -- the table of idempotency keys
 *
 * 64 stripes, each a map and a list by age under its own mutex, held for a few instructions.  An entry that is RUNNING
 * belongs to the call that claimed it; waiters hang on it and are told by mail to look again.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "base/check.h"
#include "base/map.h"
#include "call/once.h"
#include "loop/task.h"

enum { STRIPES = 64, NAME_MAX_BYTES = 2048 };

struct once_waiter {
    struct once_waiter *next, **prev;   /* prev NULL: taken off, mail is on its way or delivered */
    struct loop *loop;
    struct mail mail;
    struct wake wake;
};

struct once_entry {
    bool running;
    enum outcome outcome;
    enum err err;
    wall_ms_t expires;
    char digest[65], call_id[40];
    struct buf result;
    struct once_waiter *waiters;
    struct once_entry *older, *newer;   /* by age within the stripe; settled ones only */
    size_t name_len;
    char name[];                        /* tenant, user, agent, tool, key; each with its length in front */
};

struct stripe {
    pthread_mutex_t lock;
    struct map map;
    struct once_entry *oldest, *newest; /* in the order they expire in */
    struct once_entry *near;            /* where the one before was linked, and so about where the next belongs */
};

struct tenant_share {
    size_t entries;
    char name[];
};

struct once_table {
    wall_ms_t ttl_ms;
    atomic_size_t result_bytes;
    pthread_mutex_t tenants_lock;
    struct map tenants;                 /* name -> struct tenant_share */
    struct stripe stripes[STRIPES];
};

struct once_table *once_new(ns_t ttl)
{
    struct once_table *t = calloc(1, sizeof(*t));

    if (!t)
        return NULL;
    t->ttl_ms = ttl / NS_PER_MS;
    pthread_mutex_init(&t->tenants_lock, NULL);
    for (int i = 0; i < STRIPES; i++)
        pthread_mutex_init(&t->stripes[i].lock, NULL);
    return t;
}

/* The tenant stands first in the name. Adds to its count; false, adding nothing, if there are `most` already. */
static bool tenant_count(struct once_table *t, const char *name, int delta, size_t most)
{
    struct str tenant = str_n(name + 2, (size_t)(unsigned char)name[0] << 8 | (unsigned char)name[1]);
    struct tenant_share *share;
    bool room = true;

    pthread_mutex_lock(&t->tenants_lock);
    share = map_get(&t->tenants, tenant);
    if (!share) {
        share = calloc(1, sizeof(*share) + tenant.len + 1);
        ASSERT(share != NULL);
        memcpy(share->name, tenant.p, tenant.len);
        map_put(&t->tenants, str_n(share->name, tenant.len), share);
    }
    if (delta > 0 && share->entries >= most)
        room = false;
    else
        share->entries = (size_t)((int64_t)share->entries + delta);
    if (share->entries == 0) {
        map_del(&t->tenants, tenant);
        free(share);
    }
    pthread_mutex_unlock(&t->tenants_lock);
    return room;
}

static void entry_free(struct once_table *t, struct once_entry *e)
{
    ASSERT(e->waiters == NULL);
    tenant_count(t, e->name, -1, 0);
    atomic_fetch_sub(&t->result_bytes, e->result.len);
    buf_release(&e->result);
    free(e);
}

/* What is too much to keep is left out: a replay then says that the call is done, and no more. */
static void result_keep(struct once_table *t, struct once_entry *e, struct str sealed)
{
    if (atomic_fetch_add(&t->result_bytes, sealed.len) + sealed.len > ONCE_RESULT_BYTES)
        atomic_fetch_sub(&t->result_bytes, sealed.len);
    else
        buf_add_str(&e->result, sealed);
}

void once_free(struct once_table *t)
{
    if (!t)
        return;
    for (int i = 0; i < STRIPES; i++) {
        struct map_slot *slot;
        size_t at = 0;

        while ((slot = map_next(&t->stripes[i].map, &at)))
            entry_free(t, slot->value);
        map_release(&t->stripes[i].map);
        pthread_mutex_destroy(&t->stripes[i].lock);
    }
    ASSERT(t->tenants.len == 0 && atomic_load(&t->result_bytes) == 0);
    map_release(&t->tenants);
    pthread_mutex_destroy(&t->tenants_lock);
    free(t);
}

/* Lengths in front keep ("ab","c") and ("a","bc") apart. Returns 0 if the names are too long, or would not be the same
 * when they come back from the journal: JSON has UTF-8 only. */
static size_t name_bytes(const struct once_name *n, char out[NAME_MAX_BYTES])
{
    const struct str parts[] = { n->tenant, n->user, n->agent, n->tool, n->key };
    size_t at = 0;

    for (size_t i = 0; i < ARRAY_LEN(parts); i++) {
        if (parts[i].len > 65535 || at + 2 + parts[i].len > NAME_MAX_BYTES || !str_utf8_valid(parts[i]))
            return 0;
        out[at++] = (char)(parts[i].len >> 8);
        out[at++] = (char)parts[i].len;
        if (parts[i].len)
            memcpy(out + at, parts[i].p, parts[i].len);
        at += parts[i].len;
    }
    return at;
}

static struct stripe *stripe_of(struct once_table *t, struct str name)
{
    return &t->stripes[(hash_bytes(name.p, name.len) >> 7) % STRIPES];
}

static void age_unlink(struct stripe *s, struct once_entry *e)
{
    if (s->near == e)
        s->near = e->older ? e->older : e->newer;
    *(e->older ? &e->older->newer : &s->oldest) = e->newer;
    *(e->newer ? &e->newer->older : &s->newest) = e->older;
    e->older = e->newer = NULL;
}

/* Settled keys come as they expire, but for a clock that is set back. Restored ones come lane by lane, each in order: a
 * walk through the list for each lane, as it goes on from where the one before was put. */
static void age_link(struct stripe *s, struct once_entry *e)
{
    struct once_entry *older = s->near, *newer;

    while (older && older->expires > e->expires)
        older = older->older;
    newer = older ? older->newer : s->oldest;
    while (newer && newer->expires <= e->expires) {
        older = newer;
        newer = newer->newer;
    }
    e->older = older;
    e->newer = newer;
    *(older ? &older->newer : &s->oldest) = e;
    *(newer ? &newer->older : &s->newest) = e;
    s->near = e;
}

static void drop_expired(struct once_table *t, struct stripe *s, wall_ms_t now)
{
    struct once_entry *e;

    while ((e = s->oldest) && e->expires <= now) {
        age_unlink(s, e);
        map_del(&s->map, str_n(e->name, e->name_len));
        entry_free(t, e);
    }
}

static struct once_entry *entry_new(struct once_table *t, struct stripe *s, struct str name, struct str digest,
                                    struct str call_id, size_t tenant_most)
{
    struct once_entry *e;

    if (!tenant_count(t, name.p, +1, tenant_most))
        return NULL;
    e = calloc(1, sizeof(*e) + name.len);
    ASSERT(e != NULL);
    e->result = BUF_INIT(1 << 20);
    e->name_len = name.len;
    memcpy(e->name, name.p, name.len);
    memcpy(e->digest, digest.p, digest.len < sizeof(e->digest) ? digest.len : sizeof(e->digest) - 1);
    memcpy(e->call_id, call_id.p, call_id.len < sizeof(e->call_id) ? call_id.len : sizeof(e->call_id) - 1);
    map_put(&s->map, str_n(e->name, e->name_len), e);
    return e;
}

static void waiter_mail(struct mail *m)
{
    wake_fire(&CONTAINER_OF(m, struct once_waiter, mail)->wake);
}

/* Called with the lock held; returns with it released. */
static enum err await_settled(struct stripe *s, struct once_entry *e, ns_t deadline)
{
    struct once_waiter w = { .loop = loop_self(), .mail.fn = waiter_mail };
    enum err err;
    bool mailed;

    w.next = e->waiters;
    if (w.next)
        w.next->prev = &w.next;
    w.prev = &e->waiters;
    e->waiters = &w;
    pthread_mutex_unlock(&s->lock);
    err = await_wake(&w.wake, deadline);
    if (!err)
        return OK;
    pthread_mutex_lock(&s->lock);
    mailed = w.prev == NULL;
    if (!mailed) {
        *w.prev = w.next;
        if (w.next)
            w.next->prev = w.prev;
    }
    pthread_mutex_unlock(&s->lock);
    if (mailed) {                       /* the mail names this stack frame: it must arrive first */
        task_shield(+1);
        ASSERT(await_wake(&w.wake, NS_NEVER) == OK);
        task_shield(-1);
    }
    return err == E_TIMEOUT ? E_DEADLINE : err;
}

static enum err replay_copy(const struct once_entry *e, struct arena *a, struct once_record *ret)
{
    memcpy(ret->call_id, e->call_id, sizeof(ret->call_id));
    ret->outcome = e->outcome;
    ret->err = e->err;
    ret->result = arena_str(a, buf_str(&e->result));
    return arena_overflowed(a) ? E_CALL_TOO_LARGE : OK;
}

enum err await_once_claim(struct once_table *t, const struct once_name *name, const char digest[65],
                          const char *call_id, wall_ms_t now, ns_t deadline, struct arena *a, struct once_entry **ret,
                          struct once_record *replay)
{
    char bytes[NAME_MAX_BYTES];
    struct str full = str_n(bytes, name_bytes(name, bytes));
    struct stripe *s;

    *ret = NULL;
    if (full.len == 0)
        return E_ARGS_INVALID;
    s = stripe_of(t, full);
    for (;;) {
        struct once_entry *e;
        enum err err = OK;

        pthread_mutex_lock(&s->lock);
        drop_expired(t, s, now);
        e = map_get(&s->map, full);
        if (!e) {
            if (s->map.len < ONCE_ENTRIES_MAX / STRIPES)
                e = entry_new(t, s, full, str_of(digest), str_of(call_id), ONCE_TENANT_MAX);
            if (e)
                e->running = true;
            pthread_mutex_unlock(&s->lock);
            *ret = e;
            return e ? OK : E_OVERLOADED;
        }
        if (memcmp(e->digest, digest, sizeof(e->digest)) != 0)
            err = E_KEY_REUSED;
        else if (!e->running)
            err = replay_copy(e, a, replay);
        else {
            err = await_settled(s, e, deadline);        /* unlocks */
            if (err)
                return err;
            continue;
        }
        pthread_mutex_unlock(&s->lock);
        return err;
    }
}

void once_settle(struct once_table *t, struct once_entry *e, enum outcome outcome, enum err err,
                 struct str sealed_result)
{
    struct stripe *s = stripe_of(t, str_n(e->name, e->name_len));
    struct once_waiter *w;

    pthread_mutex_lock(&s->lock);
    ASSERT(e->running);
    while ((w = e->waiters)) {
        e->waiters = w->next;
        if (w->next)
            w->next->prev = &e->waiters;
        w->prev = NULL;
        loop_post(w->loop, &w->mail);
    }
    e->running = false;
    if (outcome == OUTCOME_DONE || outcome == OUTCOME_UNKNOWN) {
        e->outcome = outcome;
        e->err = err;
        result_keep(t, e, sealed_result);
        e->expires = loop_wall_ms() + t->ttl_ms;
        age_link(s, e);
    } else {
        map_del(&s->map, str_n(e->name, e->name_len));
        entry_free(t, e);
    }
    pthread_mutex_unlock(&s->lock);
}

void once_restore(struct once_table *t, const struct once_name *name, struct str digest, struct str call_id,
                  wall_ms_t when, wall_ms_t now, enum outcome outcome, enum err err, struct str sealed_result)
{
    char bytes[NAME_MAX_BYTES];
    struct str full = str_n(bytes, name_bytes(name, bytes));
    struct once_entry *e;
    struct stripe *s;

    if (full.len == 0 || when + t->ttl_ms <= now)
        return;
    s = stripe_of(t, full);
    pthread_mutex_lock(&s->lock);
    e = map_get(&s->map, full);
    if (e && e->expires > when + t->ttl_ms) {
        pthread_mutex_unlock(&s->lock);
        return;
    }
    if (e) {
        age_unlink(s, e);
        map_del(&s->map, full);
        entry_free(t, e);
    }
    if (outcome == OUTCOME_DONE || outcome == OUTCOME_UNKNOWN) {
        e = entry_new(t, s, full, digest, call_id, SIZE_MAX);
        e->outcome = outcome;
        e->err = err;
        e->expires = when + t->ttl_ms;
        result_keep(t, e, sealed_result);
        age_link(s, e);
    }
    pthread_mutex_unlock(&s->lock);
}

size_t once_count(struct once_table *t)
{
    size_t n = 0;

    for (int i = 0; i < STRIPES; i++) {
        pthread_mutex_lock(&t->stripes[i].lock);
        n += t->stripes[i].map.len;
        pthread_mutex_unlock(&t->stripes[i].lock);
    }
    return n;
}
