/*
 * queue.c -- who waits where, and who goes next
 *
 * A waiter is in ONE queue: that of a key that blocks it (its home).  A queue is ordered by arrival over the whole
 * limiter.  Rules:
 *
 *   - nobody is granted past an older waiter that is queued at one of his keys (FIFO per key, no stealing);
 *   - when its home could let it go, the oldest there is tried with its whole set: granted, or, if another key now
 *     blocks it, moved to that key's queue, where it takes the place its arrival gives it; then the next is tried.  So
 *     a key's queue never stands behind a waiter that is blocked elsewhere (a full mailbox does not hold up its
 *     tenant's others);
 *   - which leaves one way to starve: two busy keys free in turns, and each time the other is taken.  A waiter moved
 *     PATIENCE times becomes a barrier on its keys: nobody younger passes there.  The oldest such waiter can only be
 *     overtaken by the finitely many older ones, so its turn comes.
 *   - a barrier may idle a key, so it is held only while that is cheap: on key k while the waiter waits for time no
 *     longer than k takes to refill what it asks (or HOLD_NS), and while it waits, first in line, for a place in
 *     flight.  The turn still comes: its slowest key is held once had, then the next slowest, and so on.
 *
 * No wake-up is lost because every change that could let somebody go (a permit returned, a queue's oldest gone, a
 * barrier lifted, a pause ended, a rule changed, time) puts the key on the list of an operation under way or in the
 * stripe's timers, under the key's lock, and serving looks again under that lock.
 *
 * Timers: each queued waiter is in the timers of its home's stripe, at its deadline, or earlier if it is the oldest of
 * its queue and time alone ends its block.
 *
 * Fairness by weight later needs only another `order` than that of arrival.  What can fail: memory for a line
 * (refused).
 */
#include <stdlib.h>

#include "internal.h"

#define PATIENCE      4
#define HOLD_NS       ((int64_t)100 * 1000000)
#define SERVE_BATCH   64        /* tries before the locks are let go and the granted are woken */
#define WAITING_MAGIC 0x57414954u
#define DECIDED_MAGIC 0x44454349u

static uint32_t draw(uint64_t x)
{
    x ^= x >> 30;
    x *= 0xbf58476d1ce4e5b9;
    x ^= x >> 27;
    x *= 0x94d049bb133111eb;
    return (uint32_t)(x >> 32);
}

static uint64_t timer_key(int64_t at)
{
    return (uint64_t)at ^ ((uint64_t)1 << 63);      /* signed order as unsigned order */
}

bool rl_is_waiting(const struct rl_waiter *w)
{
    RL_ASSERT(w->magic == WAITING_MAGIC || w->magic == DECIDED_MAGIC);
    return w->magic == WAITING_MAGIC;
}

static struct rl_stripe *stripe_of(struct rl *rl, const struct rl_key *k)
{
    return &rl->stripes[k->stripe];
}

/* ---- timers */

static void due_changed(struct rl_work *work, struct rl_stripe *s)
{
    struct rl_node *n = rl_tree_min(s->timers);
    int64_t at = n ? (int64_t)(n->key ^ ((uint64_t)1 << 63)) : RL_FOREVER;

    atomic_store(&work->rl->due[s - work->rl->stripes], at);
    if (at < work->soonest)
        work->soonest = at;
}

static int64_t deadline_at(const struct rl_waiter *w)
{
    /* at the deadline itself it may still be granted */
    return w->deadline == RL_FOREVER ? RL_FOREVER : w->deadline + 1;
}

static void timer_set(struct rl_work *work, struct rl_waiter *w, int64_t due)
{
    struct rl_stripe *s = stripe_of(work->rl, w->home);
    int64_t at = deadline_at(w);

    w->timer.key = timer_key(due < at ? due : at);
    rl_tree_add(&s->timers, &w->timer);
    due_changed(work, s);
}

static void timer_move(struct rl_work *work, struct rl_waiter *w, int64_t due)
{
    rl_tree_del(&stripe_of(work->rl, w->home)->timers, &w->timer);
    timer_set(work, w, due);
}

struct rl_waiter *rl_first_due(struct rl_stripe *s, int64_t now)
{
    struct rl_node *n = rl_tree_min(s->timers);

    return n && n->key <= timer_key(now) ? RL_CONTAINER(n, struct rl_waiter, timer) : NULL;
}

/* ---- lines */

static struct rl_line *line_get(struct rl_key *k)
{
    if (!k->line)
        k->line = calloc(1, sizeof(*k->line));
    return k->line;
}

static void line_put(struct rl_key *k)
{
    if (k->line && !k->line->waiting && !k->line->barrier && !k->line->todo) {
        free(k->line);
        k->line = NULL;
    }
}

static struct rl_waiter *oldest(const struct rl_key *k)
{
    struct rl_node *n = k->line ? rl_tree_min(k->line->root) : NULL;

    return n ? RL_CONTAINER(n, struct rl_waiter, line) : NULL;
}

static void line_join(struct rl_work *work, struct rl_waiter *w, struct rl_key *k, uint32_t cost, int64_t due)
{
    w->home = k;
    rl_tree_add(&k->line->root, &w->line);
    k->line->waiting++;
    k->line->cost += cost;
    timer_set(work, w, oldest(k) == w ? due : RL_FOREVER);
}

static uint32_t cost_at(const struct rl_waiter *w, const struct rl_key *k)
{
    uint32_t i = 0;

    while (w->permit.hold[i].key != k)
        RL_ASSERT(++i < w->permit.n);
    return w->permit.hold[i].cost;
}

static void line_quit(struct rl_work *work, struct rl_waiter *w)
{
    struct rl_key *k = w->home;
    struct rl_stripe *s = stripe_of(work->rl, k);

    rl_tree_del(&s->timers, &w->timer);
    due_changed(work, s);
    rl_tree_del(&k->line->root, &w->line);
    k->line->waiting--;
    k->line->cost -= cost_at(w, k);
    w->home = NULL;
}

void rl_todo(struct rl_work *work, struct rl_key *k)
{
    if (!k->line || k->line->todo || !k->line->waiting)
        return;
    k->line->todo = true;
    k->pins++;
    k->line->todo_next = work->todo;
    work->todo = k;
}

void rl_due(struct rl_work *work, struct rl_waiter *w)
{
    timer_move(work, w, RL_FOREVER);
    rl_todo(work, w->home);
}

/* ---- looking, taking, leaving */

static bool somebody_ahead(const struct rl_key *k, const struct rl_waiter *w, uint64_t order)
{
    const struct rl_line *line = k->line;
    const struct rl_waiter *first;

    if (line->barrier && line->barrier != w && line->barrier->line.key < order)
        return true;
    first = oldest(k);
    return first && first != w && first->line.key < order;
}

/* order UINT64_MAX: a fresh arrival, younger than all. A waiter stays at its home as long as that blocks it; else the
   block that takes longest, as far as time tells, is where to wait. */
void rl_examine(struct rl *rl, struct rl_waiter *w, uint64_t order, int64_t now, struct rl_look *ret)
{
    bool settled = false;

    *ret = (struct rl_look){ .block = -1, .due = RL_FOREVER, .earliest = now };
    for (uint32_t i = 0; i < w->permit.n; i++) {
        struct rl_key *k = w->permit.hold[i].key;
        const struct rl_limit *l = &rl->rules[k->rule];
        uint64_t cost = w->permit.hold[i].cost;
        int64_t due, far;
        bool behind;

        rl_rate_sync(k, l, now);
        if (l->per_unit && cost > l->burst) {
            *ret = (struct rl_look){ .block = (int)i, .due = RL_FOREVER, .earliest = RL_FOREVER, .never = true };
            return;
        }
        due = far = rl_rate_due(k, l, cost, now);
        behind = k->line && somebody_ahead(k, w, order);
        if (__builtin_expect(k->line != NULL, 0) && order == UINT64_MAX)
            far = rl_rate_due(k, l, cost + k->line->cost, now);
        if (due < k->paused_until)
            due = k->paused_until;
        if (far < due)
            far = due;
        if (far > ret->earliest)
            ret->earliest = far;
        if (settled || (due <= now && !behind && !(l->cap && k->in_flight >= l->cap)))
            continue;
        settled = k == w->home;
        if (due <= now)
            due = RL_FOREVER;
        if (settled || ret->block < 0 || (due != RL_FOREVER && (ret->due == RL_FOREVER || due > ret->due))) {
            ret->block = (int)i;
            ret->due = due;
            ret->behind = behind;
        }
    }
}

/* All is clear: the permit is the waiter's. */
void rl_take(struct rl *rl, struct rl_waiter *w, int64_t now)
{
    struct rl_permit *p = &w->permit;

    for (uint32_t i = 0; i < p->n; i++) {
        struct rl_key *k = p->hold[i].key;

        rl_rate_take(k, p->hold[i].cost, now);
        k->in_flight++;
        k->granted++;
        k->recent = true;
        RL_ASSERT(k->in_flight != 0);
    }
    p->magic = RL_PERMIT_HELD;
    p->granted_at = now;
    p->rules_gen = rl->rules_gen;
    rl->stripes[__builtin_ctzll(p->stripes)].counts.granted++;
}

/* A barrier is set where holding the key back for the wait ahead is cheap, and lifted where it is not. */
static void hold_back(struct rl_work *work, struct rl_waiter *w, const struct rl_look *look)
{
    int64_t wait = look->behind ? RL_FOREVER : look->due == RL_FOREVER ? 0 : look->due - work->now;

    for (uint32_t i = 0; i < w->permit.n; i++) {
        struct rl_key *k = w->permit.hold[i].key;
        int64_t cheap = rl_cost_ns(work->rl->rules[k->rule].per_unit, w->permit.hold[i].cost);
        bool want = wait <= (cheap > HOLD_NS ? cheap : HOLD_NS);
        struct rl_line *line = want ? line_get(k) : k->line;

        if (!line)
            continue;       /* nothing to lift; or no memory to set one, which the next move tries again */
        if (want && (!line->barrier || line->barrier->line.key > w->line.key)) {
            line->barrier = w;
        } else if (!want && line->barrier == w) {
            line->barrier = NULL;
            rl_todo(work, k);
            line_put(k);
        }
    }
}

/* Out of every queue, with the answer; wake() follows when the locks are dropped, unless it was cancelled. */
void rl_leave(struct rl_work *work, struct rl_waiter *w, enum rl_result result)
{
    struct rl_key *home = w->home;
    bool first = oldest(home) == w;

    RL_ASSERT(w->magic == WAITING_MAGIC);
    line_quit(work, w);
    for (uint32_t i = 0; i < w->permit.n; i++) {
        struct rl_key *k = w->permit.hold[i].key;

        RL_ASSERT(k->pins > 0);
        k->pins--;
        if (k->line && k->line->barrier == w) {
            k->line->barrier = NULL;
            rl_todo(work, k);
        }
        if (k == home && first)
            rl_todo(work, k);
        line_put(k);
    }
    atomic_fetch_sub_explicit(&work->rl->waiting, 1, memory_order_relaxed);
    w->magic = DECIDED_MAGIC;
    w->result = result;
    if (result == RL_CANCELLED)
        return;
    w->next = NULL;
    *work->woken_end = w;
    work->woken_end = &w->next;
}

/* A fresh arrival that is blocked. RL_QUEUED or RL_BUSY. */
enum rl_result rl_enqueue(struct rl_work *work, struct rl_waiter *w, const struct rl_look *look)
{
    struct rl *rl = work->rl;
    struct rl_key *k = w->permit.hold[look->block].key;
    bool room = !k->line || k->line->waiting < rl->cfg.waiters_per_key_max;

    if (atomic_fetch_add_explicit(&rl->waiting, 1, memory_order_relaxed) >= rl->cfg.waiters_max || !room
        || !line_get(k)) {
        atomic_fetch_sub_explicit(&rl->waiting, 1, memory_order_relaxed);
        return RL_BUSY;
    }
    w->line.key = atomic_fetch_add_explicit(&rl->order, 1, memory_order_relaxed);
    w->line.prio = draw(w->line.key ^ rl->cfg.seed[0]);
    w->timer.prio = draw(w->line.key ^ rl->cfg.seed[1]);
    w->magic = WAITING_MAGIC;
    w->moves = 0;
    w->result = RL_QUEUED;
    for (uint32_t i = 0; i < w->permit.n; i++)
        w->permit.hold[i].key->pins++;
    line_join(work, w, k, w->permit.hold[look->block].cost, look->due);
    return RL_QUEUED;
}

/* ---- serving */

static void refuse(struct rl_work *work, struct rl_waiter *w, const struct rl_look *look, enum rl_result result)
{
    struct rl_key *k = w->permit.hold[look->block].key;
    struct rl_counts *c = &stripe_of(work->rl, k)->counts;

    k->refused++;
    w->blocked = (uint32_t)look->block;
    w->retry_at = look->earliest;
    if (result == RL_NEVER)
        c->never++;
    else if (result == RL_LATE)
        c->late++;
    else
        c->busy++;
    rl_leave(work, w, result);
}

void rl_time_out(struct rl_work *work, struct rl_waiter *w)
{
    struct rl *rl = work->rl;
    struct rl_look look;

    rl_examine(rl, w, w->line.key, work->now, &look);
    w->retry_at = look.earliest;
    w->home->refused++;
    stripe_of(rl, w->home)->counts.timed_out++;
    rl_leave(work, w, RL_TIMED_OUT);
}

/* The oldest of queue k, tried with all its keys' locks held. true: k's next may be tried. */
static bool try_oldest(struct rl_work *work, struct rl_key *k, struct rl_waiter *w)
{
    struct rl_look look;
    struct rl_key *to;

    if (w->deadline < work->now) {
        rl_time_out(work, w);
        return true;
    }
    rl_examine(work->rl, w, w->line.key, work->now, &look);
    if (look.block < 0) {
        rl_take(work->rl, w, work->now);
        rl_leave(work, w, RL_GRANTED);
        return true;
    }
    if (look.never || (w->deadline != RL_FOREVER && look.earliest > w->deadline)) {
        refuse(work, w, &look, look.never ? RL_NEVER : RL_LATE);
        return true;
    }
    w->blocked = (uint32_t)look.block;
    to = w->permit.hold[look.block].key;
    if (to != k) {
        if (!line_get(to)) {
            refuse(work, w, &look, RL_BUSY);
            return true;
        }
        line_quit(work, w);
        w->moves++;
        line_join(work, w, to, w->permit.hold[look.block].cost, look.due);
    } else {
        timer_move(work, w, look.due);
    }
    if (w->moves >= PATIENCE)
        hold_back(work, w, &look);
    return to != k;
}

/* Grants from k's queue until it blocks. k is on the list, which pins it and its line; no lock is held. */
static void serve(struct rl_work *work, struct rl_key *k)
{
    struct rl *rl = work->rl;
    uint64_t own = (uint64_t)1 << k->stripe, held = own;
    bool more = true;

    rl_lock(rl, own);
    for (int tries = 0; more && tries < SERVE_BATCH; tries++) {
        struct rl_waiter *w = oldest(k);
        uint64_t order;

        if (!w) {
            more = false;
            break;
        }
        order = w->line.key;
        if (w->permit.stripes & ~held) {
            uint64_t needed = w->permit.stripes | own;

            /* more locks, in their order: so drop what we have, and see whether it is still the same waiter */
            rl_unlock(rl, held);
            held = needed;
            rl_lock(rl, held);
            w = oldest(k);
            if (!w || w->line.key != order)
                continue;
        }
        more = try_oldest(work, k, w);
    }
    if (more) {
        k->line->todo_next = work->todo;
        work->todo = k;
    } else {
        /* cleared only now, under the lock of the last look: a change made since will put k on a list again */
        k->line->todo = false;
        k->pins--;
        line_put(k);
    }
    rl_unlock(rl, held);
}

static void wake_all(struct rl_work *work)
{
    struct rl_waiter *w = work->woken;

    work->woken = NULL;
    work->woken_end = &work->woken;
    while (w) {
        struct rl_waiter *next = w->next;

        w->wake(w);         /* may free it */
        w = next;
    }
}

void rl_work_init(struct rl_work *work, struct rl *rl, int64_t now)
{
    *work = (struct rl_work){ .rl = rl, .now = now, .soonest = RL_FOREVER };
    work->woken_end = &work->woken;
}

void rl_work_run(struct rl_work *work)
{
    struct rl *rl = work->rl;
    int64_t armed;

    wake_all(work);
    while (work->todo) {
        struct rl_key *k = work->todo;

        work->todo = k->line->todo_next;
        serve(work, k);
        wake_all(work);
    }
    armed = atomic_load(&rl->armed);
    while (work->soonest < armed && !work->ticking) {
        if (!atomic_compare_exchange_weak(&rl->armed, &armed, work->soonest))
            continue;
        if (rl->cfg.alarm)
            rl->cfg.alarm(rl->cfg.alarm_arg, work->soonest);
        break;
    }
    work->soonest = RL_FOREVER;
}
