/*
 * ratelimit.c -- the limiter's calls: asking, returning, pausing, the passing of time
 *
 * Each follows one pattern: lock the stripes of the keys concerned, look and change, note what that may let go
 * (rl_todo), unlock, and then do what was noted (rl_work_run).  Fails only with a typed answer; what the caller
 * promised (a permit is returned once, 1 to RL_ASKS_MAX keys) is asserted.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "internal.h"

#define ALL_STRIPES (~(uint64_t)0)
#define PAUSE_MAX   ((int64_t)1 << 60)

_Static_assert(RL_STRIPES == 64, "a set of stripes is one 64 bit mask, and the hash's top six bits choose one");
_Static_assert(sizeof(struct rl_key) <= 72, "an idle key with its share of the index stays below 96 bytes");

void rl_broken(const char *expr, const char *file, int line)
{
    fprintf(stderr, "ratelimit: assertion failed: %s (%s:%d)\n", expr, file, line);
    abort();
}

const char *rl_result_name(enum rl_result r)
{
    static const char *const names[] = {
        [RL_GRANTED] = "granted", [RL_QUEUED] = "queued", [RL_LATE] = "late", [RL_NEVER] = "never",
        [RL_BUSY] = "busy", [RL_TABLE_FULL] = "table_full", [RL_NO_RULE] = "no_rule",
        [RL_TIMED_OUT] = "timed_out", [RL_CANCELLED] = "cancelled",
    };

    return (unsigned)r < sizeof(names) / sizeof(names[0]) ? names[r] : "?";
}

struct rl *rl_new(const struct rl_config *config)
{
    struct rl *rl;
    size_t made = 0;

    if (config->rules_max > RL_RULES_MAX || !(rl = aligned_alloc(64, sizeof(*rl))))
        return NULL;
    memset(rl, 0, sizeof(*rl));
    rl->cfg = *config;
    if (!rl->cfg.keys_max)
        rl->cfg.keys_max = (size_t)1 << 20;
    if (!rl->cfg.waiters_max)
        rl->cfg.waiters_max = (size_t)1 << 20;
    if (!rl->cfg.waiters_per_key_max)
        rl->cfg.waiters_per_key_max = (size_t)1 << 16;
    if (!rl->cfg.rules_max)
        rl->cfg.rules_max = 1024;
    atomic_store(&rl->armed, RL_FOREVER);
    rl->rules = calloc(rl->cfg.rules_max, sizeof(*rl->rules));
    for (; rl->rules && made < RL_STRIPES; made++) {
        atomic_store(&rl->due[made], RL_FOREVER);
        if (!rl_table_init(&rl->stripes[made]))
            break;
    }
    if (made == RL_STRIPES)
        return rl;
    for (size_t i = 0; rl->rules && i <= made; i++)
        rl_table_release(&rl->stripes[i]);
    free(rl->rules);
    free(rl);
    return NULL;
}

void rl_free(struct rl *rl)
{
    if (!rl)
        return;
    RL_ASSERT(atomic_load(&rl->waiting) == 0);
    for (unsigned i = 0; i < RL_STRIPES; i++)
        rl_table_release(&rl->stripes[i]);
    free(rl->rules);
    free(rl);
}

bool rl_rule_set(struct rl *rl, uint16_t id, const struct rl_rule *rule, int64_t now)
{
    struct rl_limit limit;
    struct rl_work work;
    bool same;

    if (id >= rl->cfg.rules_max || !rl_limit_make(rule, &limit))
        return false;
    rl_lock(rl, ALL_STRIPES);
    same = memcmp(&rl->rules[id], &limit, sizeof(limit)) == 0;
    rl->rules_gen += !same;
    rl->rules[id] = limit;
    rl_unlock(rl, ALL_STRIPES);
    if (same)
        return true;
    rl_work_init(&work, rl, now);
    for (unsigned i = 0; i < RL_STRIPES; i++) {
        struct rl_stripe *s = &rl->stripes[i];

        rl_lock(rl, (uint64_t)1 << i);
        for (uint32_t b = 0; s->timers && b < s->n; b++)
            for (struct rl_key *k = s->buckets[b]; k; k = k->next)
                if (k->rule == id)
                    rl_todo(&work, k);
        rl_unlock(rl, (uint64_t)1 << i);
        rl_work_run(&work);
    }
    return true;
}

/* ---- asking */

/* Finds or makes the key; it follows the rule. The stripes in `held` are locked. */
static struct rl_key *follow(struct rl_work *work, uint64_t held, uint64_t hash, const void *key, size_t len,
                             uint16_t rule)
{
    struct rl *rl = work->rl;
    struct rl_key *k = rl_table_find(&rl->stripes[RL_STRIPE_OF(hash)], hash, key, len);

    if (__builtin_expect(!k, 0)) {
        k = rl_table_add(rl, held, hash, key, len, work->now);
        if (!k)
            return NULL;
        k->rule = rule;
    }
    if (__builtin_expect(k->rule != rule, 0)) {
        k->rule = rule;
        rl_todo(work, k);
    }
    return k;
}

/* Keys one after another; each is pinned until all are there, so that making one does not forget another. */
static enum rl_result resolve_all(struct rl_work *work, struct rl_permit *p, const uint64_t *hashes,
                                  const struct rl_ask *asks, size_t n, uint32_t *ret_at)
{
    enum rl_result r = RL_GRANTED;

    p->n = 0;
    for (size_t i = 0; i < n && r == RL_GRANTED; i++) {
        struct rl_key *k;
        uint32_t j = 0;

        *ret_at = (uint32_t)i;
        if (asks[i].rule >= work->rl->cfg.rules_max || !work->rl->rules[asks[i].rule].set) {
            r = RL_NO_RULE;
            break;
        }
        k = follow(work, p->stripes, hashes[i], asks[i].key, asks[i].key_len, asks[i].rule);
        if (!k) {
            r = RL_TABLE_FULL;
            break;
        }
        while (j < p->n && p->hold[j].key != k)
            j++;
        if (j < p->n) {
            uint64_t sum = (uint64_t)p->hold[j].cost + asks[i].cost;

            p->hold[j].cost = sum > UINT32_MAX ? UINT32_MAX : (uint32_t)sum;
            continue;
        }
        k->pins++;
        p->hold[p->n++] = (struct rl_hold){ k, asks[i].cost };
    }
    for (uint32_t i = 0; i < p->n; i++)
        p->hold[i].key->pins--;
    return r;
}

static enum rl_result decide(struct rl_work *work, struct rl_waiter *w)
{
    struct rl *rl = work->rl;
    struct rl_look look;
    enum rl_result r;
    struct rl_key *k;

    rl_examine(rl, w, UINT64_MAX, work->now, &look);
    if (look.block < 0) {
        rl_take(rl, w, work->now);
        return RL_GRANTED;
    }
    k = w->permit.hold[look.block].key;
    w->blocked = (uint32_t)look.block;
    w->retry_at = look.earliest;
    if (look.never)
        r = RL_NEVER;
    else if (w->deadline <= work->now || (w->deadline != RL_FOREVER && look.earliest > w->deadline))
        r = RL_LATE;
    else
        r = rl_enqueue(work, w, &look);
    if (r == RL_QUEUED)
        rl->stripes[k->stripe].counts.queued++;
    else if (r == RL_NEVER)
        rl->stripes[k->stripe].counts.never++;
    else if (r == RL_LATE)
        rl->stripes[k->stripe].counts.late++;
    else
        rl->stripes[k->stripe].counts.busy++;
    k->refused += r != RL_QUEUED;
    return r;
}

/* Fetches what the lookups will touch, all keys side by side: cold, that is a third of an acquisition. */
static void warm(struct rl *rl, const uint64_t *hashes, size_t n)
{
    for (size_t i = 0; i < n; i++)
        __builtin_prefetch(rl_bucket(&rl->stripes[RL_STRIPE_OF(hashes[i])], (uint32_t)hashes[i]));
    for (size_t i = 0; i < n; i++) {
        struct rl_key *k = *rl_bucket(&rl->stripes[RL_STRIPE_OF(hashes[i])], (uint32_t)hashes[i]);

        __builtin_prefetch(k, 1);
        __builtin_prefetch((char *)k + 64, 1);
    }
}

enum rl_result rl_acquire(struct rl *rl, struct rl_waiter *w, const struct rl_ask *asks, size_t n, int64_t deadline,
                          int64_t now)
{
    uint64_t hashes[RL_ASKS_MAX], stripes = 0;
    struct rl_work work;
    enum rl_result r;
    uint32_t at = 0;

    RL_ASSERT(n >= 1 && n <= RL_ASKS_MAX);
    for (size_t i = 0; i < n; i++) {
        RL_ASSERT(asks[i].key_len >= 1 && asks[i].key_len <= RL_KEY_MAX);
        hashes[i] = rl_hash(rl, asks[i].key, asks[i].key_len);
        stripes |= (uint64_t)1 << RL_STRIPE_OF(hashes[i]);
    }
    rl_work_init(&work, rl, now);
    w->permit.magic = RL_PERMIT_RETURNED;
    w->permit.stripes = stripes;
    w->deadline = deadline;
    w->home = NULL;
    w->retry_at = RL_FOREVER;
    rl_lock(rl, stripes);
    warm(rl, hashes, n);
    r = resolve_all(&work, &w->permit, hashes, asks, n, &at);
    if (__builtin_expect(r == RL_GRANTED, 1)) {
        r = decide(&work, w);
    } else {
        w->blocked = at;
        if (r == RL_TABLE_FULL) {
            w->retry_at = now;
            rl->stripes[RL_STRIPE_OF(hashes[at])].counts.table_full++;
        }
    }
    if (r != RL_QUEUED)
        w->result = r;
    rl_unlock(rl, stripes);
    /* a queued waiter may already be granted and gone: not ours to touch any more */
    if (__builtin_expect(work.todo || r == RL_QUEUED, 0))
        rl_work_run(&work);
    return r;
}

bool rl_cancel(struct rl *rl, struct rl_waiter *w, int64_t now)
{
    uint64_t stripes = w->permit.stripes;
    struct rl_work work;
    bool waiting;

    rl_work_init(&work, rl, now);
    rl_lock(rl, stripes);
    waiting = rl_is_waiting(w);
    if (waiting) {
        rl->stripes[w->home->stripe].counts.cancelled++;
        rl_leave(&work, w, RL_CANCELLED);
    }
    rl_unlock(rl, stripes);
    rl_work_run(&work);
    return waiting;
}

/* ---- returning */

static void give_back(struct rl *rl, struct rl_permit *p, int64_t now, bool unused)
{
    struct rl_work work;

    RL_ASSERT(p->magic == RL_PERMIT_HELD);
    p->magic = RL_PERMIT_RETURNED;
    rl_work_init(&work, rl, now);
    for (uint32_t i = 0; i < p->n; i++)
        __builtin_prefetch(p->hold[i].key, 1);
    rl_lock(rl, p->stripes);
    for (uint32_t i = 0; i < p->n; i++) {
        struct rl_key *k = p->hold[i].key;

        RL_ASSERT(k->in_flight > 0);
        k->in_flight--;
        if (unused && p->rules_gen == rl->rules_gen)
            rl_rate_refund(k, p->hold[i].cost, p->granted_at, now);
        if (__builtin_expect(k->line != NULL, 0))
            rl_todo(&work, k);
    }
    rl_unlock(rl, p->stripes);
    if (work.todo)
        rl_work_run(&work);
}

void rl_release(struct rl *rl, struct rl_permit *p, int64_t now)
{
    give_back(rl, p, now, false);
}

void rl_return(struct rl *rl, struct rl_permit *p, int64_t now)
{
    give_back(rl, p, now, true);
}

/* ---- pausing */

enum rl_result rl_pause(struct rl *rl, const void *key, size_t key_len, uint16_t rule, int64_t until, int64_t now)
{
    uint64_t hash, stripe;
    struct rl_work work;
    struct rl_key *k = NULL;
    bool known;

    RL_ASSERT(key_len >= 1 && key_len <= RL_KEY_MAX);
    hash = rl_hash(rl, key, key_len);
    stripe = (uint64_t)1 << RL_STRIPE_OF(hash);
    if (until > now + PAUSE_MAX)
        until = now + PAUSE_MAX;
    rl_work_init(&work, rl, now);
    rl_lock(rl, stripe);
    known = rule < rl->cfg.rules_max && rl->rules[rule].set;
    if (known)
        k = follow(&work, stripe, hash, key, key_len, rule);
    if (k && until > k->paused_until)
        k->paused_until = until;
    rl_unlock(rl, stripe);
    rl_work_run(&work);
    return !known ? RL_NO_RULE : k ? RL_GRANTED : RL_TABLE_FULL;
}

void rl_resume(struct rl *rl, const void *key, size_t key_len, int64_t now)
{
    uint64_t hash = rl_hash(rl, key, key_len), stripe = (uint64_t)1 << RL_STRIPE_OF(hash);
    struct rl_work work;
    struct rl_key *k;

    rl_work_init(&work, rl, now);
    rl_lock(rl, stripe);
    k = rl_table_find(&rl->stripes[RL_STRIPE_OF(hash)], hash, key, key_len);
    if (k) {
        k->paused_until = INT64_MIN;
        rl_todo(&work, k);
    }
    rl_unlock(rl, stripe);
    rl_work_run(&work);
}

/* ---- the passing of time */

/* Deals with the first timer of a stripe that is due. false: none is. */
static bool fire(struct rl_work *work, unsigned stripe)
{
    struct rl *rl = work->rl;
    struct rl_stripe *s = &rl->stripes[stripe];
    uint64_t held = (uint64_t)1 << stripe;
    bool fired = false;

    rl_lock(rl, held);
    for (;;) {
        struct rl_waiter *w = rl_first_due(s, work->now);
        uint64_t needed = w ? w->permit.stripes : 0;

        if (!w)
            break;
        fired = true;
        if (w->deadline >= work->now) {
            rl_due(work, w);
        } else if (needed & ~held) {
            rl_unlock(rl, held);
            held |= needed;
            rl_lock(rl, held);
            continue;           /* perhaps another one is first now */
        } else {
            rl_time_out(work, w);
        }
        break;
    }
    rl_unlock(rl, held);
    return fired;
}

int64_t rl_tick(struct rl *rl, int64_t now)
{
    struct rl_work work;
    int64_t armed, next;

    rl_work_init(&work, rl, now);
    work.ticking = true;
    atomic_store(&rl->armed, RL_FOREVER);       /* before looking at due[]: who sets a timer from here on will alarm */
    for (unsigned i = 0; i < RL_STRIPES; i++)
        while (atomic_load(&rl->due[i]) <= now && fire(&work, i))
            rl_work_run(&work);
    next = rl_next(rl);
    armed = atomic_load(&rl->armed);
    while (next < armed)
        if (atomic_compare_exchange_weak(&rl->armed, &armed, next))
            return next;
    return armed;
}

int64_t rl_next(struct rl *rl)
{
    int64_t next = RL_FOREVER;

    for (unsigned i = 0; i < RL_STRIPES; i++) {
        int64_t due = atomic_load(&rl->due[i]);

        if (due < next)
            next = due;
    }
    return next;
}
