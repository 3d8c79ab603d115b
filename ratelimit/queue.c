/*
 * queue.c -- who waits where, and who goes next
 *
 * A waiter is in ONE queue: that of a key that blocks it (its home).  fair.c says whose turn is next there.  Rules:
 *
 *   - nobody is granted past a queue at one of his keys before his turn came there (no stealing);
 *   - when its home could let it go, the next one there is tried with its whole set: granted, or, if another key now
 *     blocks it, moved to that key's queue, keeping the turn it has had; then the next is tried.  So a key's queue
 *     never stands behind a waiter that is blocked elsewhere (a full mailbox does not hold up its tenant's others);
 *   - who had his turn at a key goes before those who have not, and among such the one that arrived first;
 *   - which leaves one way to starve: two busy keys free in turns, and each time the other is taken.  A waiter moved
 *     PATIENCE times becomes a barrier on its keys: nobody younger passes there.  The oldest such waiter can only be
 *     overtaken by the finitely many older ones, so its turn comes.
 *   - a barrier may idle a key, so it is held only while that is cheap: on key k while the waiter waits for time no
 *     longer than k takes to refill what it asks (or HOLD_NS), and while it waits, first in line, for a place in
 *     flight.  The turn still comes: its slowest key is held once had, then the next slowest, and so on.
 *
 * No wake-up is lost because every change that could let somebody go (a permit returned, a queue's next gone or new, a
 * barrier lifted, a pause ended, a rule changed, a lease, time) puts the key on the list of an operation under way or
 * in the stripe's timers, under the key's lock, and serving looks again under that lock.
 *
 * Timers, two trees per stripe: each queued waiter by its deadline; each line whose next waits for time alone, by that
 * time.
 *
 * One operation decides RL_BATCH waiters at most; a queue it leaves unfinished is due at once for the next rl_tick().
 *
 * What can fail: memory for a line (refused).
 */
#include <stdlib.h>

#include "internal.h"

#define PATIENCE      4
#define HOLD_NS       ((int64_t)100 * 1000000)
#define SERVE_BATCH   64        /* tries before the locks are let go and the granted are woken */
#define WAITING_MAGIC 0x57414954u
#define DECIDED_MAGIC 0x44454349u

static uint64_t timer_key(int64_t at)
{
    return (uint64_t)at ^ ((uint64_t)1 << 63);      /* signed order as unsigned order */
}

bool rl_is_waiting(const struct rl_waiter *w)
{
    RL_ASSERT(w->magic == WAITING_MAGIC || w->magic == DECIDED_MAGIC);
    return w->magic == WAITING_MAGIC;
}

bool rl_is_queued_at(const struct rl_line *line)
{
    return line && (line->waiting || line->barrier);
}

static struct rl_stripe *stripe_of(struct rl *rl, const struct rl_key *k)
{
    return &rl->stripes[RL_STRIPE_OF(k->id)];
}

/* ---- timers */

static int64_t first_of(struct rl_node *root)
{
    struct rl_node *n = rl_tree_min(root);

    return n ? (int64_t)(n->key ^ ((uint64_t)1 << 63)) : RL_FOREVER;
}

static void due_changed(struct rl_work *work, struct rl_stripe *s)
{
    int64_t at = first_of(s->timers), due = first_of(s->dues);

    if (due < at)
        at = due;
    atomic_store(&work->rl->due[s - work->rl->stripes], at);
    if (at < work->soonest)
        work->soonest = at;
}

/* RL_FOREVER: none. */
static void line_due(struct rl_work *work, struct rl_line *line, int64_t at)
{
    struct rl_stripe *s = stripe_of(work->rl, line->key);

    if (line->due_set && at != RL_FOREVER && line->due.key == timer_key(at))
        return;
    if (line->due_set)
        rl_tree_del(&s->dues, &line->due);
    line->due_set = at != RL_FOREVER;
    line->due.key = timer_key(at);
    if (line->due_set)
        rl_tree_add(&s->dues, &line->due);
    due_changed(work, s);
}

struct rl_waiter *rl_first_late(struct rl_stripe *s, int64_t now)
{
    struct rl_node *n = rl_tree_min(s->timers);

    return n && n->key <= timer_key(now) ? RL_CONTAINER(n, struct rl_waiter, timer) : NULL;
}

/* Puts the line that is due first on the list. False: none is. */
bool rl_dues_fire(struct rl_work *work, struct rl_stripe *s)
{
    struct rl_node *n = rl_tree_min(s->dues);
    struct rl_line *line;

    if (!n || n->key > timer_key(work->now))
        return false;
    line = RL_CONTAINER(n, struct rl_line, due);
    line_due(work, line, RL_FOREVER);
    rl_todo(work, line->key);
    return true;
}

static void timer_set(struct rl_work *work, struct rl_waiter *w)
{
    struct rl_stripe *s = stripe_of(work->rl, w->home);

    if (w->deadline == RL_FOREVER)
        return;
    w->timer.key = timer_key(w->deadline + 1);      /* at the deadline itself it may still be granted */
    rl_tree_add(&s->timers, &w->timer);
    due_changed(work, s);
}

/* ---- lines */

static void line_settle(struct rl_work *work, struct rl_key *k)
{
    if (!k->line)
        return;
    if (!k->line->waiting && k->line->due_set)
        line_due(work, k->line, RL_FOREVER);
    rl_line_put(work->rl, k);
}

/* Into the queue of hold[i], to which it has a line and, unless its turn there came before, a flow. */
static void line_join(struct rl_work *work, struct rl_waiter *w, uint32_t i, struct rl_flow *flow, int64_t due)
{
    struct rl_key *k = w->permit.hold[i].key;
    bool first = k->line->waiting == 0;

    w->home = k;
    w->home_i = i;
    rl_line_add(k->line, w, flow, w->permit.hold[i].cost);
    timer_set(work, w);
    if (first)
        line_due(work, k->line, due);
    else if (rl_line_head(work->rl, k->line) == w || (flow && k->line->turned))
        rl_todo(work, k);   /* it goes before those there, and what they wait for need not be what it waits for; or it
                               may be older than one of its agent that had its turn */
}

static void line_quit(struct rl_work *work, struct rl_waiter *w)
{
    struct rl_stripe *s = stripe_of(work->rl, w->home);

    if (w->deadline != RL_FOREVER) {
        rl_tree_del(&s->timers, &w->timer);
        due_changed(work, s);
    }
    rl_line_del(work->rl, w->home->line, w, w->permit.hold[w->home_i].cost);
    w->home = NULL;
}

void rl_todo(struct rl_work *work, struct rl_key *k)
{
    if (!k->line || k->line->todo || !k->line->waiting)
        return;
    k->line->todo = true;
    k->line->pins++;
    k->line->todo_next = work->todo;
    work->todo = k;
}

/* ---- looking, taking, leaving */

/* A younger one that had its turn at this key does not pass an older one of its own agent that came here since. */
static bool own_ahead(const struct rl_line *line, const struct rl_waiter *w)
{
    const struct rl_flow *f = line->all.waiting ? rl_flow_find(line, w) : NULL;
    struct rl_node *n = f ? rl_tree_min(f->waiters) : NULL;

    return n && n->key < w->line.key;
}

/* At hold[i] somebody goes before w. fresh: it is not queued yet. */
static bool somebody_ahead(struct rl_work *work, const struct rl_waiter *w, uint32_t i, bool fresh)
{
    struct rl_line *line = w->permit.hold[i].key->line;
    struct rl_node *n;

    if (line->barrier && line->barrier != w && (fresh || line->barrier->line.key < w->line.key))
        return true;
    if (!line->waiting)
        return false;
    if (fresh)
        return true;
    if (w->home == line->key)
        return rl_line_head(work->rl, line) != w;
    if (!(w->turns >> i & 1))
        return true;
    n = rl_tree_min(line->turned);
    return (n && n->key < w->line.key) || own_ahead(line, w);
}

/* The costs queued at hold[i] that certainly go before a fresh arrival. */
static uint64_t cost_ahead(const struct rl_waiter *w, uint32_t i)
{
    const struct rl_line *line = w->permit.hold[i].key->line;
    const struct rl_flow *f = line->waiting ? rl_flow_find(line, w) : NULL;

    return line->turned_cost + (f ? f->cost : 0);
}

/* A waiter stays at its home as long as that blocks it; else the block that takes longest, as far as time tells, is
   where to wait. */
void rl_examine(struct rl_work *work, struct rl_waiter *w, bool fresh, struct rl_look *ret)
{
    int64_t now = work->now, wall_offset = rl_wall_offset(work->rl);
    bool settled = false;

    *ret = (struct rl_look){ .block = -1, .due = RL_FOREVER, .earliest = now };
    for (uint32_t i = 0; i < w->permit.n; i++) {
        struct rl_key *k = w->permit.hold[i].key;
        const struct rl_limit *l = rl_limit_of(work->rl, k, now);
        uint64_t cost = w->permit.hold[i].cost;
        bool behind = false, left = false;
        int64_t due, far;

        if (cost > l->never) {
            *ret = (struct rl_look){ .block = (int)i, .due = RL_FOREVER, .earliest = RL_FOREVER, .never = true };
            return;
        }
        due = far = rl_time_due(k, l, cost, now, wall_offset);
        if (RL_UNLIKELY(k->line != NULL)) {
            behind = somebody_ahead(work, w, i, fresh);
            if (fresh)
                far = rl_time_due(k, l, cost + cost_ahead(w, i), now, wall_offset);
            if (k->line->learned)
                left = rl_left_blocks(work->rl, k, cost, now, &due);
            if (left && !behind && l->leased)
                rl_want_more(work, k, cost);
        }
        if (far < due)
            far = due;
        if (far > ret->earliest)
            ret->earliest = far;
        if (settled || (due <= now && !behind && !left && !(l->cap && k->in_flight >= l->cap)))
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
void rl_take(struct rl_work *work, struct rl_waiter *w)
{
    struct rl_permit *p = &w->permit;

    p->counted = 0;
    for (uint32_t i = 0; i < p->n; i++) {
        struct rl_hold *h = &p->hold[i];
        const struct rl_limit *l = rl_limit_of(work->rl, h->key, work->now);
        struct rl_learned *ln = h->key->flags & KEY_LEARNED ? h->key->line->learned : NULL;

        rl_take_key(p, h, l, work->now);
        if (!ln || ln->left == RL_UNKNOWN)
            continue;
        ln->left -= h->cost < ln->left ? h->cost : ln->left;
        if (l->leased && ln->left < ln->leased / 4)
            rl_want_more(work, h->key, 0);
    }
    rl_granted(work->rl, p, work->now);
}

/* A barrier is set where holding the key back for the wait ahead is cheap, and lifted where it is not. */
static void hold_back(struct rl_work *work, struct rl_waiter *w, const struct rl_look *look)
{
    int64_t wait = look->behind ? RL_FOREVER : look->due == RL_FOREVER ? 0 : look->due - work->now;

    for (uint32_t i = 0; i < w->permit.n; i++) {
        struct rl_key *k = w->permit.hold[i].key;
        int64_t cheap = rl_cost_ns_slow(rl_limit_of(work->rl, k, work->now)->per_unit, w->permit.hold[i].cost);
        bool want = wait <= (cheap > HOLD_NS ? cheap : HOLD_NS);
        struct rl_line *line = want ? rl_line_get(work->rl, k) : k->line;

        if (!line)
            continue;       /* nothing to lift; or no memory to set one, which the next move tries again */
        if (want && (!line->barrier || line->barrier->line.key > w->line.key)) {
            line->barrier = w;
            if (k == w->home)
                rl_todo(work, k);       /* it goes first there from now on */
        } else if (!want && line->barrier == w) {
            line->barrier = NULL;
            rl_todo(work, k);
            line_settle(work, k);
        }
    }
}

/* Its turn at home has come. Its share pays for it once, even if it has to stand in line again. */
static void charge(struct rl_waiter *w)
{
    uint8_t bit = (uint8_t)(1u << w->home_i);

    if (!(w->paid & bit))
        rl_line_charge(w, w->permit.hold[w->home_i].cost);
    w->paid |= bit;
    w->turns |= bit;
}

/* Out of every queue, with the answer; wake() follows when the locks are dropped, unless it was cancelled. */
void rl_leave(struct rl_work *work, struct rl_waiter *w, enum rl_result result)
{
    struct rl_key *home = w->home;
    bool first = rl_line_head(work->rl, home->line) == w;

    RL_ASSERT(w->magic == WAITING_MAGIC);
    if (result == RL_GRANTED)
        charge(w);
    line_quit(work, w);
    for (uint32_t i = 0; i < w->permit.n; i++) {
        struct rl_key *k = w->permit.hold[i].key;

        RL_ASSERT(k->line && k->line->pins > 0);
        k->line->pins--;
        if (k->line->barrier == w) {
            k->line->barrier = NULL;
            rl_todo(work, k);
        }
        if (k == home && first)
            rl_todo(work, k);
        line_settle(work, k);
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

/* All its keys get a line, which pins them. False: memory is out, and nothing is changed. */
static bool pin_all(struct rl_work *work, struct rl_waiter *w)
{
    uint32_t i = 0;

    for (; i < w->permit.n; i++) {
        struct rl_line *line = rl_line_get(work->rl, w->permit.hold[i].key);

        if (!line)
            break;
        line->pins++;
    }
    if (i == w->permit.n)
        return true;
    while (i > 0) {
        struct rl_key *k = w->permit.hold[--i].key;

        k->line->pins--;
        line_settle(work, k);
    }
    return false;
}

static void unpin_all(struct rl_work *work, struct rl_waiter *w)
{
    for (uint32_t i = 0; i < w->permit.n; i++) {
        w->permit.hold[i].key->line->pins--;
        line_settle(work, w->permit.hold[i].key);
    }
}

/* A fresh arrival that is blocked. RL_QUEUED or RL_BUSY. */
enum rl_result rl_enqueue(struct rl_work *work, struct rl_waiter *w, const struct rl_look *look)
{
    struct rl *rl = work->rl;
    struct rl_key *k = w->permit.hold[look->block].key;
    struct rl_flow *flow;

    if (atomic_fetch_add_explicit(&rl->waiting, 1, memory_order_relaxed) >= rl->cfg.waiters_max
        || !rl_line_room(rl, k->line, w->tenant) || !pin_all(work, w)) {
        atomic_fetch_sub_explicit(&rl->waiting, 1, memory_order_relaxed);
        return RL_BUSY;
    }
    flow = rl_flow_get(rl, k->line, w);
    if (!flow) {
        unpin_all(work, w);
        atomic_fetch_sub_explicit(&rl->waiting, 1, memory_order_relaxed);
        return RL_BUSY;
    }
    w->line.key = atomic_fetch_add_explicit(&rl->order, 1, memory_order_relaxed);
    w->line.prio = rl_draw(w->line.key ^ rl->cfg.seed[0]);
    w->timer.prio = rl_draw(w->line.key ^ rl->cfg.seed[1]);
    w->magic = WAITING_MAGIC;
    w->moves = 0;
    w->turns = w->paid = 0;
    w->queued_at = work->now;
    w->result = RL_QUEUED;
    line_join(work, w, (uint32_t)look->block, flow, look->due);
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

    rl_examine(work, w, false, &look);
    w->retry_at = look.earliest;
    w->home->refused++;
    stripe_of(rl, w->home)->counts.timed_out++;
    rl_leave(work, w, RL_TIMED_OUT);
}

/* From home, where its turn has come, to the key that blocks it now. False: memory is out, and it was refused. */
static bool move_on(struct rl_work *work, struct rl_waiter *w, const struct rl_look *look)
{
    uint32_t to = (uint32_t)look->block;
    struct rl_flow *flow = NULL;

    if (!(w->turns >> to & 1) || own_ahead(w->permit.hold[to].key->line, w)) {
        flow = rl_flow_get(work->rl, w->permit.hold[to].key->line, w);
        if (!flow) {
            refuse(work, w, look, RL_BUSY);
            return false;
        }
    }
    charge(w);
    line_quit(work, w);
    w->moves++;
    line_join(work, w, to, flow, look->due);
    return true;
}

/* Its turn at k came before that of an older one of its own agent: back to where arrival puts it. */
static void stand_in_line(struct rl_work *work, struct rl_key *k, struct rl_waiter *w)
{
    uint32_t i = w->home_i;

    line_quit(work, w);
    w->turns &= (uint8_t)~(1u << i);
    line_join(work, w, i, rl_flow_find(k->line, w), RL_FOREVER);
}

/* The next of queue k, tried with all its keys' locks held. true: k's next may be tried. */
static bool try_next(struct rl_work *work, struct rl_key *k, struct rl_waiter *w)
{
    struct rl_look look;
    bool moved;

    work->left--;
    if (w->deadline < work->now) {
        rl_time_out(work, w);
        return true;
    }
    if (!w->flow && own_ahead(k->line, w)) {
        stand_in_line(work, k, w);
        return true;
    }
    rl_examine(work, w, false, &look);
    if (look.block < 0) {
        rl_take(work, w);
        rl_leave(work, w, RL_GRANTED);
        return true;
    }
    if (look.never || (w->deadline != RL_FOREVER && look.earliest > w->deadline)) {
        refuse(work, w, &look, look.never ? RL_NEVER : RL_LATE);
        return true;
    }
    w->blocked = (uint32_t)look.block;
    moved = w->permit.hold[look.block].key != k;
    if (!moved)
        line_due(work, k->line, look.due);
    else if (!move_on(work, w, &look))
        return true;
    if (w->moves >= PATIENCE)
        hold_back(work, w, &look);
    return moved;
}

/* Taken off the list only under the lock of the last look: a change made since will put it on a list again. */
static void off_the_list(struct rl_work *work, struct rl_key *k)
{
    k->line->todo = false;
    k->line->pins--;
    line_settle(work, k);
}

/* Grants from k's queue until it blocks. k is on the list, which pins it and its line; no lock is held. */
static void serve(struct rl_work *work, struct rl_key *k)
{
    struct rl *rl = work->rl;
    uint64_t own = RL_BIT_OF(k->id), held = own;
    bool more = true;

    rl_lock(rl, own);
    for (int tries = 0; more && tries < SERVE_BATCH && work->left > 0; tries++) {
        struct rl_waiter *w = rl_line_head(rl, k->line);
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
            w = rl_line_head(rl, k->line);
            if (!w || w->line.key != order)
                continue;
        }
        more = try_next(work, k, w);
    }
    if (more && work->left > 0) {
        k->line->todo_next = work->todo;
        work->todo = k;
    } else {
        if (more)
            line_due(work, k->line, work->now);
        off_the_list(work, k);
    }
    rl_unlock(rl, held);
}

/* This operation has done its share: the rest is due at once, for whoever ticks. */
static void put_off(struct rl_work *work, struct rl_key *k)
{
    uint64_t own = RL_BIT_OF(k->id);

    rl_lock(work->rl, own);
    line_due(work, k->line, work->now);
    off_the_list(work, k);
    rl_unlock(work->rl, own);
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

/* What the store is asked for: what is wanted now and about as much as the last lease, so that it lasts a while. */
void rl_want_more(struct rl_work *work, struct rl_key *k, uint64_t units)
{
    struct rl_learned *ln = k->line->learned;
    const struct rl_limit *l = &work->rl->rules[k->rule];
    const struct rl_store *store = work->rl->cfg.store;

    if (!store || ln->wanting || work->n_wants == RL_ASKS_MAX || (ln->left_until > work->now && ln->leased == 0))
        return;
    ln->wanting = true;
    units += k->line->all.cost + k->line->turned_cost;
    work->wants[work->n_wants++] = (struct rl_want){
        .id = k->id, .rule = k->rule, .rule_tag = l->tag, .units = units > ln->leased ? units : ln->leased,
        .places = l->cap && k->in_flight >= ln->places ? ln->places + k->line->waiting + 1 : 0,
    };
}

static void send_wants(struct rl_work *work)
{
    while (work->n_wants > 0) {
        struct rl_want want = work->wants[--work->n_wants];

        work->rl->cfg.store->want(work->rl->cfg.store->arg, work->rl, &want, work->now);
    }
}

void rl_work_init(struct rl_work *work, struct rl *rl, int64_t now)
{
    work->rl = rl;
    work->now = now;
    work->soonest = RL_FOREVER;
    work->todo = NULL;
    work->woken = NULL;
    work->woken_end = &work->woken;
    work->left = RL_BATCH;
    work->ticking = false;
    work->n_wants = 0;
}

void rl_work_run(struct rl_work *work)
{
    struct rl *rl = work->rl;
    int64_t armed;

    wake_all(work);
    while (work->todo) {
        struct rl_key *k = work->todo;

        work->todo = k->line->todo_next;
        if (work->left > 0)
            serve(work, k);
        else
            put_off(work, k);
        wake_all(work);
    }
    send_wants(work);
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
