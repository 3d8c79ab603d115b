/*
 * ratelimit_model_test.c -- thousands of acquirers on a few dozen keys, simulated time, judged by a slow model
 *
 * One seed drives everything: who asks for what, when, with which deadline, how long it holds, who cancels or returns
 * unused, which key is paused. The seed is printed; SLUICE_SEED=n runs that one only, SLUICE_MODEL_SEEDS=n the first n
 * (300, more than a million arrivals). After every step it must hold:
 *
 *   - in flight per key never above the cap;
 *   - what was used on a key fits its rate over every span (an exact leaky bucket, or a sum over a sliding window), its
 *     calendar windows and its spacing;
 *   - nobody is granted before an older one of the same agent that wants the same keys (FIFO);
 *   - nobody waits who could go: a waiter with no older one on any of its keys (of several tenants: with no other) is
 *     never grantable;
 *   - nothing is granted on a paused key; nothing is granted after its deadline or refused before it could be known;
 * and when arrivals stop, everything ends: no wake-up is lost, nobody starves, all keys are forgotten as idle.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "ratelimit/ratelimit.h"

#define ASK(k, rule) (&(struct rl_ask){ (k)->name, (uint16_t)strlen((k)->name), (uint16_t)(rule), 0, (k)->id })

#define MS ((int64_t)1000000)
#define S  ((int64_t)1000000000)

#define WALL (1700000000 * S)

enum { KEYS = 40, SETS = 60, ACTORS = 3000, LOG = 1 << 16 };

struct used {
    int64_t at;
    uint32_t cost;
};

struct model_key {
    char name[24];
    struct rl_id id;                /* in one of two worlds: composed, so that most sets of keys are under one lock */
    uint32_t place;
    bool keeps_place;
    struct rl_rule rule;
    uint64_t burst;                 /* with the default filled in */
    uint32_t in_flight;
    int64_t paused_until, spaced_until;
    struct used *log;               /* grants in order of time; cost 0: returned unused */
    size_t nlog, room;
    uint64_t total;
};

enum state { IDLE, WAITING, HOLDING };

struct actor {
    struct rl_waiter w;
    enum state state;
    int set;
    uint32_t cost[RL_ASKS_MAX];
    int64_t deadline;
    int64_t next;                   /* when it does something */
    uint64_t arrival;
    size_t logged[RL_ASKS_MAX];
    bool stuck;                     /* not again: its cost is above a burst */
};

struct key_set {
    int n, key[RL_ASKS_MAX];
    uint64_t mask;
};

struct world {
    struct rl *rl;
    uint64_t state;
    int64_t now;
    struct model_key keys[KEYS];
    struct key_set sets[SETS];
    struct actor *actors;
    int nactors, live;
    uint64_t arrivals, granted, refused, timed_out, cancelled, waited;
    bool closing, several;          /* tenants and agents, or all one */
};

static struct world *world;         /* wake() finds it here */

static uint64_t draw(struct world *m, uint64_t below)
{
    uint64_t x = m->state += 0x9e3779b97f4a7c15;

    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
    x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
    return below ? (x ^ (x >> 31)) % below : 0;
}

/* ---- the model */

static void model_grant(struct world *m, struct actor *a)
{
    const struct key_set *set = &m->sets[a->set];

    for (int i = 0; i < set->n; i++) {
        struct model_key *k = &m->keys[set->key[i]];

        if (k->nlog == k->room) {
            k->room = k->room ? 2 * k->room : 256;
            k->log = realloc(k->log, k->room * sizeof(*k->log));
            assert_non_null(k->log);
        }
        assert_true(k->paused_until <= m->now && k->spaced_until <= m->now);
        k->spaced_until = m->now + k->rule.spacing_ns;
        k->log[k->nlog] = (struct used){ m->now, a->cost[i] };
        a->logged[i] = k->nlog++;
        k->total += a->cost[i];
        k->in_flight++;
        if (k->rule.concurrency)
            assert_true(k->in_flight <= k->rule.concurrency);
    }
    a->state = HOLDING;
    a->next = m->now + (draw(m, 20) ? (int64_t)draw(m, 30 * MS) : (int64_t)draw(m, S));
    m->granted++;
}

/* No older one that wants exactly these keys may still wait. */
static void check_fifo(struct world *m, const struct actor *a)
{
    for (int i = 0; i < m->nactors; i++) {
        const struct actor *o = &m->actors[i];

        if (o != a && o->state == WAITING && o->set == a->set && o->w.tenant == a->w.tenant
            && o->w.agent == a->w.agent)
            assert_true(o->arrival > a->arrival);
    }
}

static bool could_go(struct world *m, const struct actor *a)
{
    const struct key_set *set = &m->sets[a->set];

    for (int i = 0; i < set->n; i++) {
        const struct model_key *k = &m->keys[set->key[i]];
        struct rl_key_stats s;

        assert_true(rl_key_stats(m->rl, ASK(k, 0), m->now, &s));
        if (k->rule.concurrency)
            assert_int_equal(s.in_flight, k->in_flight);
        if (s.available < a->cost[i] || k->paused_until > m->now || k->spaced_until > m->now
            || (k->rule.concurrency && k->in_flight >= k->rule.concurrency))
            return false;
    }
    return true;
}

static int by_arrival(const void *x, const void *y)
{
    const struct actor *const *a = x, *const *b = y;

    return (*a)->arrival < (*b)->arrival ? -1 : (*a)->arrival > (*b)->arrival;
}

static void check_nobody_waits_in_vain(struct world *m)
{
    static struct actor *waiting[ACTORS];
    uint64_t wanted = 0, times[64] = { 0 };
    int n = 0;

    for (int i = 0; i < m->nactors; i++)
        if (m->actors[i].state == WAITING)
            waiting[n++] = &m->actors[i];
    qsort(waiting, (size_t)n, sizeof(waiting[0]), by_arrival);
    for (int i = 0; m->several && i < n; i++)
        for (int k = 0; k < KEYS; k++)
            times[k] += m->sets[waiting[i]->set].mask >> k & 1;
    for (int k = 0; k < KEYS; k++)
        wanted |= (uint64_t)(times[k] > 1) << k;
    for (int i = 0; i < n; i++) {
        uint64_t mask = m->sets[waiting[i]->set].mask;

        if (!(mask & wanted))
            assert_false(could_go(m, waiting[i]));
        wanted |= mask;
    }
}

static void check_calendar(const struct model_key *k)
{
    uint64_t sum = 0;

    for (size_t i = 0; k->rule.calendar_amount && i < k->nlog; i++) {
        int64_t ns = k->rule.calendar_ns, offset = k->rule.calendar_offset_ns;

        if (i > 0 && (k->log[i].at + WALL - offset) / ns != (k->log[i - 1].at + WALL - offset) / ns)
            sum = 0;
        sum += k->log[i].cost;
        assert_true(sum <= k->rule.calendar_amount);
    }
}

/* Exact: the level is counted in (units * window), which drains by `amount` per nanosecond. */
static void check_rates(const struct model_key *k)
{
    unsigned __int128 level = 0, limit = (unsigned __int128)k->burst * (uint64_t)k->rule.window_ns;
    uint64_t sum = 0;
    size_t tail = 0;

    check_calendar(k);
    if (k->rule.rate == RL_RATE_NONE)
        return;
    for (size_t i = 0; i < k->nlog; i++) {
        if (k->rule.rate == RL_RATE_BUCKET) {
            unsigned __int128 drained = i ? (unsigned __int128)(k->log[i].at - k->log[i - 1].at) * k->rule.amount : 0;

            level = level > drained ? level - drained : 0;
            level += (unsigned __int128)k->log[i].cost * (uint64_t)k->rule.window_ns;
            assert_true(level <= limit);
        } else {
            sum += k->log[i].cost;
            while (k->log[tail].at <= k->log[i].at - k->rule.window_ns)
                sum -= k->log[tail++].cost;
            assert_true(sum <= k->rule.amount);
        }
    }
}

/* ---- the actors */

static void rest(struct world *m, struct actor *a)
{
    a->state = IDLE;
    a->next = m->now + 1 + (int64_t)draw(m, draw(m, 4) ? 100 * MS : 5 * S);
    if (m->closing) {
        a->next = RL_FOREVER;
        m->live--;
    }
}

static void on_wake(struct rl_waiter *w)
{
    struct actor *a = (struct actor *)w;
    struct world *m = world;

    assert_int_equal(a->state, WAITING);
    m->waited++;
    a->state = IDLE;
    if (w->result == RL_GRANTED) {
        assert_true(m->now <= a->deadline);
        check_fifo(m, a);
        model_grant(m, a);
        return;
    }
    if (w->result == RL_TIMED_OUT) {
        assert_true(m->now > a->deadline);
        m->timed_out++;
    } else {
        assert_int_equal(w->result, RL_LATE);
        assert_true(w->retry_at > a->deadline);
        m->refused++;
    }
    rest(m, a);
}

static void arrive(struct world *m, struct actor *a)
{
    static const int64_t patience[] = { 0, 10 * MS, 200 * MS, 3 * S, 60 * S };
    struct rl_ask asks[RL_ASKS_MAX];
    const struct key_set *set;

    if (!a->stuck) {
        a->set = (int)draw(m, SETS);
        a->arrival = m->arrivals++;
    }
    set = &m->sets[a->set];
    for (int i = 0; i < set->n; i++) {
        struct model_key *k = &m->keys[set->key[i]];

        a->cost[i] = 1 + (uint32_t)draw(m, k->burst && k->burst < 8 ? k->burst : 8);
        if (draw(m, 3))
            a->cost[i] = 1;
        asks[i] = *ASK(k, set->key[i]);
        asks[i].cost = a->cost[i];
        asks[i].place = k->keeps_place ? &k->place : NULL;
    }
    a->deadline = draw(m, 6) ? m->now + patience[draw(m, 5)] : RL_FOREVER;
    a->w.wake = on_wake;
    a->w.tenant = m->several ? draw(m, 4) : 0;
    a->w.agent = m->several ? draw(m, 3) : 0;
    a->w.tenant_weight = (uint16_t)(a->w.tenant * 3);
    a->state = WAITING;
    /* the short way first, as often as not: what it does not give must be as if it had not been asked */
    switch (draw(m, 2) && rl_try(m->rl, &a->w.permit, asks, (size_t)set->n, m->now)
                ? RL_GRANTED : rl_acquire(m->rl, &a->w, asks, (size_t)set->n, a->deadline, m->now)) {
    case RL_GRANTED:
        check_fifo(m, a);
        model_grant(m, a);
        break;
    case RL_QUEUED:
        if (a->state == WAITING)        /* it may have been its turn at once, and wake() was called */
            a->next = draw(m, 10) ? RL_FOREVER : m->now + (int64_t)draw(m, S);      /* may lose patience */
        break;
    case RL_LATE:
        assert_true(a->w.retry_at > a->deadline || a->deadline <= m->now);
        m->refused++;
        rest(m, a);
        break;
    default:
        fail_msg("unexpected answer: %s", rl_result_name(a->w.result));
    }
}

static void finish(struct world *m, struct actor *a)
{
    const struct key_set *set = &m->sets[a->set];
    bool unused = draw(m, 20) == 0;

    for (int i = 0; i < set->n; i++) {
        struct model_key *k = &m->keys[set->key[i]];

        k->in_flight--;
        if (unused)
            k->log[a->logged[i]].cost = 0;
    }
    a->state = IDLE;
    if (unused)
        rl_return(m->rl, &a->w.permit, m->now);
    else
        rl_release(m->rl, &a->w.permit, m->now);
    rest(m, a);
}

static void act(struct world *m, struct actor *a)
{
    if (a->state == HOLDING) {
        finish(m, a);
    } else if (a->state == IDLE) {
        if (m->closing)
            rest(m, a);
        else
            arrive(m, a);
    } else {
        a->state = IDLE;            /* before: others may be granted while it leaves */
        assert_true(rl_cancel(m->rl, &a->w, m->now));
        m->cancelled++;
        rest(m, a);
    }
}

static void maybe_pause(struct world *m)
{
    int i = (int)draw(m, KEYS);
    struct model_key *k = &m->keys[i];
    int64_t until = m->now + (int64_t)draw(m, 2 * S);

    if (m->closing)
        return;
    assert_int_equal(rl_pause(m->rl, ASK(k, i), until, m->now), RL_GRANTED);
    if (until > k->paused_until)
        k->paused_until = until;
    if (draw(m, 3) == 0) {
        int64_t spaced = m->now + k->rule.spacing_ns;

        /* a pause hides when the last grant was: after it a whole spacing is kept, or what was left of the pause */
        if (k->rule.spacing_ns && k->spaced_until < spaced)
            k->spaced_until = spaced < k->paused_until ? spaced : k->paused_until;
        k->paused_until = 0;
        rl_resume(m->rl, ASK(k, i), m->now);
    }
}

/* ---- a run */

/* Three in four keys belong to one tenant, ten of a mailbox. */
static struct rl_id composed(const struct rl *rl, int key)
{
    struct rl_id tenant = rl_id_of(rl, key % 4 ? "a" : "b", 1);

    return rl_id_nth(rl_id_sub(tenant, "mailbox", (size_t)(key % 4) + 1), (uint16_t)(key + 1));
}

static void set_up(struct world *m, uint64_t seed, int nactors)
{
    static const int64_t windows[] = { 100 * MS, S, 7 * S + 1, 60 * S };
    struct rl_config config = { .seed = { seed, 7 }, .rules_max = KEYS };

    memset(m, 0, sizeof(*m));
    m->state = seed;
    m->now = (int64_t)draw(m, 1000 * S);
    m->several = seed % 2;
    m->rl = rl_new(&config);
    m->nactors = m->live = nactors;
    m->actors = calloc((size_t)nactors, sizeof(*m->actors));
    assert_non_null(m->rl);
    assert_non_null(m->actors);
    rl_wall(m->rl, WALL + m->now, m->now);
    for (int i = 0; i < KEYS; i++) {
        struct model_key *k = &m->keys[i];
        uint64_t kind = draw(m, 4);

        snprintf(k->name, sizeof(k->name), "key-%d", i);
        if (seed / 2 % 2)
            k->id = composed(m->rl, i);
        k->keeps_place = i % 2;
        k->rule = (struct rl_rule){ 0 };
        if (kind != 0) {        /* a rate that a share of the actors can exceed */
            k->rule.rate = kind == 1 ? RL_RATE_WINDOW : RL_RATE_BUCKET;
            k->rule.window_ns = windows[draw(m, 4)];
            k->rule.amount = 8 + draw(m, 1 + (uint64_t)k->rule.window_ns / (uint64_t)(2 * MS));
            k->rule.burst = draw(m, 2) ? 0 : 8 + draw(m, k->rule.amount - 7);
            k->burst = k->rule.burst;
            if (!k->burst)
                k->burst = kind == 1 ? k->rule.amount / 20 + !(k->rule.amount / 20) : k->rule.amount;
        }
        if (kind == 0 || draw(m, 3) == 0)
            k->rule.concurrency = 1 + (uint32_t)draw(m, draw(m, 2) ? 4 : 40);
        if (draw(m, 4) == 0) {
            k->rule.calendar_ns = draw(m, 2) ? S : 20 * S;
            k->rule.calendar_offset_ns = (int64_t)draw(m, (uint64_t)S);
            k->rule.calendar_amount = 8 + draw(m, 200);
        }
        if (draw(m, 6) == 0)
            k->rule.spacing_ns = 1 + (int64_t)draw(m, 50 * MS);
        assert_true(rl_rule_set(m->rl, (uint16_t)i, &k->rule, m->now));
    }
    for (int i = 0; i < SETS; i++) {
        struct key_set *set = &m->sets[i];

        for (int n = 1 + (int)draw(m, 5); n > 0; n--) {
            int key = (int)draw(m, draw(m, 3) ? KEYS : 4);      /* the first four are everybody's: tenants, apps */

            if (set->mask >> key & 1)
                continue;
            set->mask |= (uint64_t)1 << key;
            set->key[set->n++] = key;
        }
    }
    for (int i = 0; i < nactors; i++)
        m->actors[i].next = m->now + (int64_t)draw(m, 2 * S);
}

static int64_t soonest(const struct world *m)
{
    int64_t at = rl_next(m->rl);

    for (int i = 0; i < m->nactors; i++)
        if (m->actors[i].next < at)
            at = m->actors[i].next;
    return at;
}

static void check_all_over(struct world *m)
{
    struct rl_stats s;

    rl_stats(m->rl, &s);
    assert_int_equal(s.waiting, 0);
    assert_int_equal(rl_next(m->rl), RL_FOREVER);
    assert_int_equal(s.granted, m->granted);
    for (int i = 0; i < KEYS; i++) {
        struct model_key *k = &m->keys[i];
        struct rl_key_stats ks;

        assert_int_equal(k->in_flight, 0);
        check_rates(k);
        if (rl_key_stats(m->rl, ASK(k, 0), m->now, &ks)) {
            assert_int_equal(ks.in_flight + ks.waiting, 0);
            assert_int_equal(ks.granted, k->nlog);
        }
        free(k->log);
    }
}

static void run(uint64_t seed, int nactors, uint64_t arrivals)
{
    static struct world m;
    uint64_t steps = 0;

    world = &m;
    set_up(&m, seed, nactors);
    while (m.live > 0) {
        int64_t at = soonest(&m);

        assert_true(at != RL_FOREVER);      /* somebody waits, and nothing would ever wake him: a lost wake-up */
        assert_true(at >= m.now);
        m.now = at;
        m.closing = m.arrivals >= arrivals;
        if (rl_next(m.rl) <= m.now)
            assert_true(rl_tick(m.rl, m.now) > m.now);
        for (int i = 0; i < m.nactors; i++)
            if (m.actors[i].next <= m.now)
                act(&m, &m.actors[i]);
        if (draw(&m, 200) == 0)
            maybe_pause(&m);
        if (steps++ % 64 == 0) {
            if (rl_next(m.rl) <= m.now)
                rl_tick(m.rl, m.now);
            check_nobody_waits_in_vain(&m);
        }
    }
    check_all_over(&m);
    print_message("seed %llu: %d actors, %llu arrivals: %llu granted (%llu after waiting), %llu refused, "
                  "%llu timed out, %llu cancelled\n", (unsigned long long)seed, nactors, (unsigned long long)m.arrivals,
                  (unsigned long long)m.granted, (unsigned long long)m.waited, (unsigned long long)m.refused,
                  (unsigned long long)m.timed_out, (unsigned long long)m.cancelled);
    rl_free(m.rl);
    free(m.actors);
}

static void test_simulation(void **state)
{
    const char *one = getenv("SLUICE_SEED"), *many = getenv("SLUICE_MODEL_SEEDS");
    uint64_t seeds = many ? strtoull(many, NULL, 10) : 300;

    if (one) {
        run(strtoull(one, NULL, 10), ACTORS, 60000);
        return;
    }
    for (uint64_t seed = 1; seed <= seeds; seed++)
        run(seed, 30 + (int)(seed * 7 % 90), 4000);
    for (uint64_t seed = 101; seed <= 103; seed++)
        run(seed, ACTORS, 30000);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_simulation),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
