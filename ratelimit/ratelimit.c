/*
 * ratelimit.c -- the limiter's calls: asking, returning, rules, the passing of time
 *
 * Each follows one pattern: lock the stripes of the keys concerned, look and change, note what that may let go
 * (rl_todo), unlock, and then do what was noted (rl_work_run).  Asking has a short way for the usual case, in which
 * nobody waits at any of the keys and all can be had: it is what has to be fast.  Fails only with a typed answer; what
 * the caller promised (a permit is returned once, 1 to RL_ASKS_MAX keys) is asserted.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "internal.h"

#define ALL_STRIPES (~(uint64_t)0)
#define WALL_SLACK  ((int64_t)1000000)      /* a wall clock that is slewed by less is left alone */

_Static_assert(RL_STRIPES == 64, "a set of stripes is one 64 bit mask, and the id's top six bits choose one");

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

static void take_defaults(struct rl_config *cfg)
{
    if (!cfg->keys_max)
        cfg->keys_max = (size_t)1 << 20;
    if (!cfg->waiters_max)
        cfg->waiters_max = (size_t)1 << 20;
    if (!cfg->waiters_per_key_max)
        cfg->waiters_per_key_max = (size_t)1 << 16;
    if (!cfg->rules_max)
        cfg->rules_max = 1024;
    if (!cfg->names_max)
        cfg->names_max = 4096;
}

struct rl *rl_new(const struct rl_config *config)
{
    struct rl *rl;

    if (config->rules_max > RL_RULES_MAX || config->keys_max > RL_KEYS_MAX || config->names_max > RL_KEYS_MAX
        || !(rl = aligned_alloc(_Alignof(struct rl), sizeof(*rl))))
        return NULL;
    memset(rl, 0, sizeof(*rl));
    rl->cfg = *config;
    take_defaults(&rl->cfg);
    atomic_store(&rl->armed, RL_FOREVER);
    for (unsigned i = 0; i < RL_STRIPES; i++)
        atomic_store(&rl->due[i], RL_FOREVER);
    for (rl->names_mask = 3; rl->names_mask + 1 < rl->cfg.names_max; rl->names_mask = 2 * rl->names_mask + 1)
        continue;
    rl->names = calloc(rl->names_mask + 1, sizeof(*rl->names));
    rl->rules = aligned_alloc(64, rl->cfg.rules_max * sizeof(*rl->rules));
    if (rl->rules)
        memset(rl->rules, 0, rl->cfg.rules_max * sizeof(*rl->rules));
    if (rl->names && rl->rules && rl_table_init(rl))
        return rl;
    rl_free(rl);
    return NULL;
}

void rl_free(struct rl *rl)
{
    if (!rl)
        return;
    RL_ASSERT(atomic_load(&rl->waiting) == 0);
    rl_table_release(rl);
    for (size_t i = 0; rl->names && i <= rl->names_mask; i++)
        free(rl->names[i].bytes);
    free(rl->names);
    free(rl->rules);
    free(rl);
}

/* ---- rules and the clock */

static bool look_again(struct rl *rl, struct rl_key *k, void *arg)
{
    (void)rl;
    rl_todo(arg, k);
    return true;
}

struct change {
    struct rl_work work;
    uint16_t id;
};

/* Converts the key to the new generation, so that the next change finds no key of the one before the present. */
static bool follow_change(struct rl *rl, struct rl_key *k, void *arg)
{
    struct change *c = arg;

    if (k->rule != c->id)
        return true;
    (void)rl_limit_of(rl, k, c->work.now);
    rl_todo(&c->work, k);
    return true;
}

static bool same_rule(const struct rl_limit *a, const struct rl_limit *b)
{
    return a->set && a->per_unit == b->per_unit && a->burst == b->burst && a->cap == b->cap && a->spacing == b->spacing
           && a->leased == b->leased && a->calendar == b->calendar && a->window_amount == b->window_amount
           && a->window_ns == b->window_ns && a->window_offset == b->window_offset && a->amount == b->amount
           && a->span == b->span && a->tag == b->tag;
}

/* False: it is as it was. */
static bool replace_rule(struct rl *rl, uint16_t id, struct rl_limit *limit)
{
    struct rl_limit *l = &rl->rules[id];
    bool same;

    rl_lock(rl, ALL_STRIPES);
    same = same_rule(l, limit);
    if (!same) {
        limit->gen = l->gen ^ KEY_GEN;
        limit->was_per_unit = l->per_unit;
        limit->was_window_ns = l->window_ns;
        limit->was_window_offset = l->window_offset;
        *l = *limit;
        rl->rules_gen++;
    }
    rl_unlock(rl, ALL_STRIPES);
    return !same;
}

bool rl_rule_set(struct rl *rl, uint16_t id, const struct rl_rule *rule, int64_t now)
{
    struct change change = { .id = id };
    struct rl_limit limit;

    if (id >= rl->cfg.rules_max || !rl_limit_make(rule, &limit))
        return false;
    rl_lock_one(&rl->rules_locked);     /* one change at a time: two would leave keys of three generations */
    if (replace_rule(rl, id, &limit)) {
        for (unsigned i = 0; i < RL_STRIPES; i++) {
            rl_work_init(&change.work, rl, now);
            rl_table_each(rl, i, follow_change, &change);
            rl_work_run(&change.work);
        }
    }
    rl_unlock_one(&rl->rules_locked);
    return true;
}

bool rl_rule_sound(const struct rl_rule *rule)
{
    struct rl_limit limit;

    return rl_limit_make(rule, &limit);
}

void rl_wall(struct rl *rl, int64_t wall_ns, int64_t now)
{
    int64_t offset = wall_ns - now, was = rl_wall_offset(rl);
    struct rl_work work;

    if (offset - was < WALL_SLACK && was - offset < WALL_SLACK)
        return;
    atomic_store_explicit(&rl->wall_offset, offset, memory_order_relaxed);
    for (unsigned i = 0; i < RL_STRIPES; i++) {
        if (atomic_load(&rl->due[i]) == RL_FOREVER)
            continue;                   /* nobody there waits for time */
        rl_work_init(&work, rl, now);
        rl_table_each(rl, i, look_again, &work);
        rl_work_run(&work);
    }
}

/* ---- asking */

struct rl_id rl_ask_id(const struct rl *rl, const struct rl_ask *ask)
{
    if (rl_id_set(ask->id))
        return ask->id;
    RL_ASSERT(ask->key_len >= 1 && ask->key_len <= RL_KEY_MAX);
    return rl_id_of(rl, ask->key, ask->key_len);
}

static bool rule_known(const struct rl *rl, uint16_t rule)
{
    return rule < rl->cfg.rules_max && rl->rules[rule].set;
}

/* The key follows another rule from now on. False: memory is out. */
static bool change_rule(struct rl_work *work, struct rl_key *k, uint16_t rule)
{
    struct rl *rl = work->rl;
    const struct rl_limit *was = rl_limit_of(rl, k, work->now), *l = &rl->rules[rule];
    uint64_t per_unit = was->per_unit;
    int64_t window_ns = was->window_ns, window_offset = was->window_offset;

    k->rule = rule;
    k->flags = (uint8_t)((k->flags & ~KEY_GEN) | l->gen);
    rl_convert_window(k, l, window_ns, window_offset, work->now + rl_wall_offset(rl));
    rl_convert(k, per_unit, l->per_unit, work->now);
    if (k->flags & KEY_LEARNED)
        rl_learned_rule(rl, k);
    else if (l->leased && !rl_learned_get(rl, k))
        return false;
    rl_todo(work, k);
    return true;
}

struct rl_key *rl_follow(struct rl_work *work, uint64_t held, struct rl_id id, uint16_t rule, enum rl_result *ret_why)
{
    struct rl *rl = work->rl;
    struct rl_key *k;

    if (RL_UNLIKELY(!rule_known(rl, rule))) {
        *ret_why = RL_NO_RULE;
        return NULL;
    }
    *ret_why = RL_TABLE_FULL;
    k = rl_table_find(rl, id);
    if (RL_UNLIKELY(!k)) {
        k = rl_table_add(rl, held, id, rule, work->now);
        if (k && RL_UNLIKELY(rl->rules[rule].leased) && !rl_learned_get(rl, k))
            return NULL;
    } else if (RL_UNLIKELY(k->rule != rule) && !change_rule(work, k, rule)) {
        return NULL;
    }
    if (k)
        *ret_why = RL_GRANTED;
    return k;
}

/* Where the caller found the key last, if it remembers. A place never changes its stripe, so the key's lock covers it
   whoever has it now. */
static inline uint32_t place_hint(const struct rl *rl, const struct rl_ask *ask)
{
    uint32_t place = ask->place ? __atomic_load_n(ask->place, __ATOMIC_RELAXED) : 0;

    return RL_LIKELY(place <= rl->slots_max) ? place : 0;
}

static inline void remember_place(const struct rl *rl, const struct rl_ask *ask, const struct rl_key *k)
{
    uint32_t place = (uint32_t)(k - rl->slots) + 1;

    if (ask->place && __atomic_load_n(ask->place, __ATOMIC_RELAXED) != place)
        __atomic_store_n(ask->place, place, __ATOMIC_RELAXED);
}

/* Keys one after another; each is kept until all are there, so that making one does not forget another. */
static enum rl_result find_all(struct rl_work *work, struct rl_permit *p, const struct rl_id *ids,
                               const struct rl_ask *asks, size_t n, uint32_t *ret_at)
{
    const struct rl *rl = work->rl;
    enum rl_result r = RL_GRANTED;
    uint32_t held = 0;

    for (size_t i = 0; i < n; i++) {
        struct rl_key *k = rl_follow(work, p->stripes, ids[i], asks[i].rule, &r);
        uint32_t j = 0;

        if (RL_UNLIKELY(!k)) {
            *ret_at = (uint32_t)i;
            break;
        }
        k->flags |= KEY_KEEP;
        remember_place(rl, &asks[i], k);
        while (j < held && p->hold[j].key != k)
            j++;
        if (RL_UNLIKELY(j < held)) {
            uint64_t sum = (uint64_t)p->hold[j].cost + asks[i].cost;

            p->hold[j].cost = sum > UINT32_MAX ? UINT32_MAX : (uint32_t)sum;
            continue;
        }
        p->hold[held].key = k;
        p->hold[held].check = k->id.b;
        p->hold[held++].cost = asks[i].cost;
    }
    p->n = held;
    for (uint32_t i = 0; i < held; i++)
        p->hold[i].key->flags &= (uint8_t)~KEY_KEEP;
    return r;
}

static enum rl_result decide(struct rl_work *work, struct rl_waiter *w)
{
    struct rl *rl = work->rl;
    struct rl_look look;
    struct rl_counts *c;
    enum rl_result r;
    struct rl_key *k;

    rl_examine(work, w, true, &look);
    if (look.block < 0) {
        rl_take(work, w);
        return RL_GRANTED;
    }
    k = w->permit.hold[look.block].key;
    w->blocked = (uint32_t)look.block;
    w->retry_at = look.earliest;
    w->expected_by = w->blocked;
    w->expected_at = w->retry_at;
    if (look.never)
        r = RL_NEVER;
    else if (w->deadline <= work->now || (w->deadline != RL_FOREVER && look.earliest > w->deadline))
        r = RL_LATE;
    else
        r = rl_enqueue(work, w, &look);
    c = &rl->stripes[RL_STRIPE_OF(k->id)].counts;
    if (r == RL_QUEUED)
        c->queued++;
    else if (r == RL_NEVER)
        c->never++;
    else if (r == RL_LATE)
        c->late++;
    else
        c->busy++;
    k->refused += r != RL_QUEUED;
    return r;
}

/* ---- the usual case: all keys are known, nobody waits at them, nothing was learned of them, and all can be had */

/* What finding the keys will touch is fetched for all of them side by side, while the locks are still taken: cold, that
   is most of an acquisition. Without a lock these are only addresses, which may be out of date. */
static inline void fetch(const struct rl *rl, const struct rl_ask *ask, struct rl_id id)
{
    const struct rl_stripe *s = &rl->stripes[RL_STRIPE_OF(id)];
    uint32_t place = place_hint(rl, ask);

    if (place) {
        __builtin_prefetch(&rl->slots[place - 1], 1);
    } else {
        uintptr_t index = (uintptr_t)__atomic_load_n(&s->index, __ATOMIC_RELAXED);
        uint32_t at = (uint32_t)id.a & __atomic_load_n(&s->mask, __ATOMIC_RELAXED);

        __builtin_prefetch((const void *)(index + at * sizeof(*s->index)));
    }
}

/* Finds the keys. False: one is not there, or not where its tag or its place says, or there twice. */
static inline bool find_quickly(struct rl *rl, const struct rl_ask *asks, const struct rl_id *ids, size_t n,
                                struct rl_key **ret)
{
    bool found = true;

    for (size_t i = 0; i < n; i++) {
        const struct rl_stripe *s = &rl->stripes[RL_STRIPE_OF(ids[i])];
        uint32_t at = (uint32_t)ids[i].a & s->mask, tag = rl_word_tag(ids[i]), word, place = place_hint(rl, &asks[i]);

        if (RL_LIKELY(place)) {
            ret[i] = &rl->slots[place - 1];
            continue;
        }
        word = s->index[at];
        while (RL_UNLIKELY((word & ~RL_SLOT_MASK) != tag) && word != 0)
            word = s->index[++at & s->mask];
        ret[i] = &rl->slots[(word & RL_SLOT_MASK) - (word != 0)];
        __builtin_prefetch(ret[i], 1);
    }
    for (size_t i = 0; i < n; i++) {
        found &= rl_id_eq(ret[i]->id, ids[i]);
        for (size_t j = 0; j < i; j++)
            found &= ret[i] != ret[j];
    }
    return found;
}

static inline bool clear(struct rl_key *k, const struct rl_limit *l, const struct rl_ask *ask,
                         int64_t now, int64_t wall_offset)
{
    return k->rule == ask->rule && !k->line && (k->flags & KEY_GEN) == l->gen && ask->cost <= l->never
           && (!l->cap || k->in_flight < l->cap) && rl_time_due(k, l, ask->cost, now, wall_offset) <= now;
}

/* True: granted. False: nothing was changed. */
static inline bool take_quickly(struct rl *rl, struct rl_permit *p, const struct rl_ask *asks, const struct rl_id *ids,
                                size_t n, int64_t now)
{
    RL_NO_INIT(struct rl_key *keys[RL_ASKS_MAX]);
    int64_t wall_offset = rl_wall_offset(rl);

    if (!find_quickly(rl, asks, ids, n, keys))
        return false;
    for (size_t i = 0; i < n; i++)
        if (RL_UNLIKELY(!clear(keys[i], &rl->rules[keys[i]->rule], &asks[i], now, wall_offset)))
            return false;
    p->n = (uint32_t)n;
    p->counted = 0;
    for (size_t i = 0; i < n; i++) {
        p->hold[i] = (struct rl_hold){ .key = keys[i], .check = ids[i].b, .cost = asks[i].cost };
        rl_take_key(p, &p->hold[i], &rl->rules[keys[i]->rule], now);
        if (RL_UNLIKELY(keys[i]->granted % RL_NAME_EVERY == RL_NAME_FROM))
            rl_name_note(rl, ids[i], &asks[i]);
    }
    rl_granted(rl, p, now);
    return true;
}

/* Any other case. The locks are held, and are given back. */
static enum rl_result acquire_locked(struct rl_work *work, struct rl_waiter *w, const struct rl_ask *asks,
                                     const struct rl_id *ids, size_t n)
{
    struct rl *rl = work->rl;
    uint32_t at = 0;
    enum rl_result r = find_all(work, &w->permit, ids, asks, n, &at);

    if (r == RL_GRANTED) {
        r = decide(work, w);
        for (size_t i = 0; i < n && r != RL_GRANTED; i++)       /* a key that blocks is worth showing */
            if (w->permit.hold[w->blocked].check == ids[i].b)
                rl_name_note(rl, ids[i], &asks[i]);
    } else {
        w->blocked = at;
        if (r == RL_TABLE_FULL) {
            w->retry_at = work->now;
            rl->stripes[RL_STRIPE_OF(ids[at])].counts.table_full++;
        }
    }
    if (r != RL_QUEUED)
        w->result = r;
    rl_unlock(rl, w->permit.stripes);
    /* a queued waiter may already be granted and gone: not ours to touch any more */
    return r;
}

static enum rl_result __attribute__((noinline)) acquire_slowly(struct rl *rl, struct rl_waiter *w,
                                                               const struct rl_ask *asks, const struct rl_id *ids,
                                                               size_t n, int64_t now)
{
    struct rl_work work;
    enum rl_result r;

    rl_work_init(&work, rl, now);
    r = acquire_locked(&work, w, asks, ids, n);
    rl_work_run(&work);
    return r;
}

/* Which keys are asked for, and what they are under. */
static inline void name_keys(const struct rl *rl, struct rl_permit *p, const struct rl_ask *asks, size_t n,
                             struct rl_id *ret_ids)
{
    uint64_t stripes = 0;

    RL_ASSERT(n >= 1 && n <= RL_ASKS_MAX);
    for (size_t i = 0; i < n; i++) {
        ret_ids[i] = rl_ask_id(rl, &asks[i]);
        stripes |= RL_BIT_OF(ret_ids[i]);
        fetch(rl, &asks[i], ret_ids[i]);
    }
    p->magic = RL_PERMIT_RETURNED;
    p->stripes = stripes;
}

bool rl_try(struct rl *rl, struct rl_permit *ret, const struct rl_ask *asks, size_t n, int64_t now)
{
    RL_NO_INIT(struct rl_id ids[RL_ASKS_MAX]);
    bool taken;

    name_keys(rl, ret, asks, n, ids);
    rl_lock(rl, ret->stripes);
    taken = take_quickly(rl, ret, asks, ids, n, now);
    rl_unlock(rl, ret->stripes);
    return taken;
}

enum rl_result rl_acquire(struct rl *rl, struct rl_waiter *w, const struct rl_ask *asks, size_t n, int64_t deadline,
                          int64_t now)
{
    RL_NO_INIT(struct rl_id ids[RL_ASKS_MAX]);

    name_keys(rl, &w->permit, asks, n, ids);
    w->deadline = deadline;
    w->home = NULL;
    w->retry_at = RL_FOREVER;
    rl_lock(rl, w->permit.stripes);
    if (RL_UNLIKELY(!take_quickly(rl, &w->permit, asks, ids, n, now)))
        return acquire_slowly(rl, w, asks, ids, n, now);
    rl_unlock(rl, w->permit.stripes);
    return w->result = RL_GRANTED;
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
        rl->stripes[RL_STRIPE_OF(w->home->id)].counts.cancelled++;
        rl_leave(&work, w, RL_CANCELLED);
    }
    rl_unlock(rl, stripes);
    rl_work_run(&work);
    return waiting;
}

/* ---- returning */

/* Units nothing was sent for. The key may have been forgotten meanwhile, and its place be another's: then there is
   nothing to give back. */
static void refund(struct rl_work *work, const struct rl_permit *p, const struct rl_hold *h)
{
    struct rl *rl = work->rl;
    const struct rl_limit *l;

    if (h->key->id.b != h->check || p->rules_gen != rl->rules_gen)
        return;
    l = rl_limit_of(rl, h->key, work->now);
    rl_rate_refund(h->key, l, h->cost, p->granted_at, work->now, rl_wall_offset(rl));
    if (l->leased && h->key->line->learned->left_until > work->now)
        h->key->line->learned->left += h->cost;
    rl_todo(work, h->key);
}

static void __attribute__((noinline)) give_back_slowly(struct rl *rl, struct rl_permit *p, int64_t now, bool unused)
{
    struct rl_work work;

    rl_work_init(&work, rl, now);
    for (uint32_t i = 0; i < p->n; i++) {
        struct rl_hold *h = &p->hold[i];

        if (unused)
            refund(&work, p, h);
        if (h->counted) {
            RL_ASSERT(h->key->in_flight > 0);
            h->key->in_flight--;
            rl_todo(&work, h->key);
        }
    }
    rl_unlock(rl, unused ? p->stripes : p->counted);
    rl_work_run(&work);
}

/* Usually nobody waits for the places that become free. */
void rl_release(struct rl *rl, struct rl_permit *p, int64_t now)
{
    RL_ASSERT(p->magic == RL_PERMIT_HELD);
    p->magic = RL_PERMIT_RETURNED;
    if (!p->counted)
        return;
    rl_lock(rl, p->counted);
    for (uint32_t i = 0; i < p->n; i++) {
        if (p->hold[i].counted && RL_UNLIKELY(p->hold[i].key->line != NULL)) {
            give_back_slowly(rl, p, now, false);
            return;
        }
    }
    for (uint32_t i = 0; i < p->n; i++) {
        if (p->hold[i].counted) {
            RL_ASSERT(p->hold[i].key->in_flight > 0);
            p->hold[i].key->in_flight--;
        }
    }
    rl_unlock(rl, p->counted);
}

void rl_return(struct rl *rl, struct rl_permit *p, int64_t now)
{
    RL_ASSERT(p->magic == RL_PERMIT_HELD);
    p->magic = RL_PERMIT_RETURNED;
    rl_lock(rl, p->stripes);
    give_back_slowly(rl, p, now, true);
}

/* ---- the passing of time */

/* Deals with the first timer of a stripe that is due. false: none is. */
static bool fire(struct rl_work *work, unsigned stripe)
{
    struct rl *rl = work->rl;
    struct rl_stripe *s = &rl->stripes[stripe];
    uint64_t held = (uint64_t)1 << stripe;
    bool fired;

    rl_lock(rl, held);
    fired = rl_dues_fire(work, s);
    while (!fired) {
        struct rl_waiter *w = rl_first_late(s, work->now);
        uint64_t needed = w ? w->permit.stripes : 0;

        if (!w)
            break;
        if (needed & ~held) {
            rl_unlock(rl, held);
            held |= needed;
            rl_lock(rl, held);
            continue;           /* perhaps another one is first now */
        }
        work->left--;
        rl_time_out(work, w);
        fired = true;
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
        while (work.left > 0 && atomic_load(&rl->due[i]) <= now && fire(&work, i))
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
