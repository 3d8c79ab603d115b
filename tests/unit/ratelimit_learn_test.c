/*
 * ratelimit_learn_test.c -- what providers say: throttles, what is left, lower limits; and leases of a shared store
 *
 * The providers here are strict fakes on simulated time, whose real limit differs from the one declared.
 */
#include "ratelimit_test.h"

static enum rl_result throttled(struct rl *rl, const char *key, uint16_t rule, int64_t granted, int64_t until,
                                int64_t now)
{
    return rl_throttled(rl, ASK(key, rule), granted, until, now);
}

static struct rl_key_stats look(struct rl *rl, const char *key, int64_t now)
{
    struct rl_key_stats s;

    assert_true(rl_key_stats(rl, ASK(key, 1), now, &s));
    return s;
}

static void test_a_throttle_pauses_and_tightens_that_key_alone(void **state)
{
    struct rl *rl = make();
    struct rl_waiter w;

    rule_rate(rl, 1, RL_RATE_BUCKET, 100, S, 100);
    assert_int_equal(get(rl, &w, "a", 1, 1, 0, 0), RL_GRANTED);
    done(rl, &w, 0);
    assert_int_equal(throttled(rl, "a", 1, 0, 5 * S, 1 * S), RL_GRANTED);
    assert_int_equal(throttled(rl, "a", 1, 0, 3 * S, 1 * S), RL_GRANTED);     /* one burst: one cut; not shorter */
    assert_int_equal(get(rl, &w, "a", 1, 1, 0, 2 * S), RL_LATE);
    assert_int_equal(w.retry_at, 5 * S);
    assert_int_equal(get(rl, &w, "b", 1, 100, 0, 2 * S), RL_GRANTED);
    done(rl, &w, 2 * S);
    assert_true(look(rl, "a", 2 * S).tightened == 0.75);
    assert_int_equal(look(rl, "a", 2 * S).throttled, 2);
    assert_int_equal(look(rl, "a", 2 * S).paused_until, 5 * S);
    assert_true(look(rl, "b", 2 * S).tightened == 1);
    assert_int_equal(look(rl, "a", 20 * S).available, 75);
    /* a cost above the tightened burst is possible still, with the bucket full */
    assert_int_equal(get(rl, &w, "a", 1, 90, 0, 20 * S), RL_GRANTED);
    done(rl, &w, 20 * S);
    assert_int_equal(get(rl, &w, "a", 1, 101, 0, 20 * S), RL_NEVER);
    /* a request granted after the cut: another one; however many, never below 1/64 */
    for (int64_t i = 0; i < 100; i++)
        assert_int_equal(throttled(rl, "a", 1, (21 + 2 * i) * S, 0, (21 + 2 * i) * S), RL_GRANTED);
    assert_true(look(rl, "a", 230 * S).tightened == 1.0 / 64);
    assert_true(look(rl, "a", 220 * S).paused_until <= 219 * S + 2 * S);
    /* a day without one: all of it, and nothing is remembered */
    assert_true(look(rl, "a", 219 * S + 86400 * S).tightened == 1);
    assert_int_equal(look(rl, "a", 219 * S + 86400 * S).throttled, 0);
    rl_free(rl);
}

/* ---- a provider whose real limit is lower than declared */

struct provider {
    int64_t window;
    uint64_t real, declared;
    uint32_t in_flight;
    bool fixed, hints, counts_throttled;
    int64_t begun;              /* fixed: of the window */
    uint64_t used;
    int64_t *log;               /* sliding: when what was counted came */
    size_t head, tail;
};

enum { LOG = 1 << 20, WORKERS = 40, WINDOWS_MAX = 64 };

/* 0: served; else throttled until then. */
static int64_t serve(struct provider *p, int64_t now)
{
    int64_t free_at;
    bool full;

    if (p->fixed) {
        if (now - p->begun >= p->window) {
            p->begun = now - (now - p->begun) % p->window;
            p->used = 0;
        }
        full = p->used >= p->real;
        free_at = p->begun + p->window;
        p->used += !full || p->counts_throttled;
        return full ? free_at : 0;
    }
    while (p->tail < p->head && p->log[p->tail % LOG] <= now - p->window)
        p->tail++;
    full = p->head - p->tail >= p->real;
    free_at = full ? p->log[p->tail % LOG] + p->window : 0;
    if (!full || p->counts_throttled)
        p->log[p->head++ % LOG] = now;
    return free_at;
}

struct worker {
    struct rl_waiter w;
    int64_t arrives, granted;       /* at the provider; 0: waiting for a permit */
};

static void on_permit(struct rl_waiter *w)
{
    struct worker *k = RL_CONTAINER(w, struct worker, w);

    assert_int_equal(w->result, RL_GRANTED);
    k->granted = w->permit.granted_at;
    k->arrives = w->permit.granted_at + 40 * MS;
}

struct score {
    uint64_t served[WINDOWS_MAX], throttled[WINDOWS_MAX];
};

static void hammer(struct provider *p, int windows, struct score *score)
{
    static struct worker workers[WORKERS];
    struct rl *rl = make();
    struct rl_ask a = ask("box", 1, 1);
    struct rl_rule rule = { .rate = RL_RATE_WINDOW, .amount = p->declared, .window_ns = p->window,
                            .concurrency = p->in_flight };
    int64_t now, step = 20 * MS;

    memset(workers, 0, sizeof(workers));
    memset(score, 0, sizeof(*score));
    p->log = calloc(LOG, sizeof(*p->log));
    assert_non_null(p->log);
    assert_true(rl_rule_set(rl, 1, &rule, 0));
    for (now = step; now < windows * p->window; now += step) {
        if (rl_next(rl) <= now)
            tick(rl, now);
        for (struct worker *k = workers; k < workers + WORKERS; k++) {
            if (k->arrives > now || (k->arrives == 0 && k->granted))
                continue;
            if (k->arrives) {
                int64_t until = serve(p, now);

                rl_release(rl, &k->w.permit, now);
                (until ? score->throttled : score->served)[now / p->window]++;
                if (until)
                    rl_throttled(rl, &a, k->granted, p->hints ? until : 0, now);
            }
            k->w.wake = on_permit;
            k->arrives = 0;
            k->granted = 1;             /* asked */
            if (rl_acquire(rl, &k->w, &a, 1, RL_FOREVER, now) == RL_GRANTED)
                on_permit(&k->w);
        }
    }
    for (struct worker *k = workers; k < workers + WORKERS; k++) {
        if (k->arrives)
            rl_release(rl, &k->w.permit, now);
        else
            (void)rl_cancel(rl, &k->w, now);
    }
    for (struct worker *k = workers; k < workers + WORKERS; k++)
        if (k->w.result == RL_GRANTED && k->w.permit.magic == RL_PERMIT_HELD)
            rl_release(rl, &k->w.permit, now);
    rl_free(rl);
    free(p->log);
}

static void judge(struct provider p, const char *what)
{
    enum { WINDOWS = 40 };
    static struct score s;
    uint64_t served = 0, throttled = 0, early = 0, most = 0;
    int first = 0;

    hammer(&p, WINDOWS, &s);
    while (first < WINDOWS && s.throttled[first] == 0)
        first++;
    assert_true(first < 2);             /* it really was too high */
    for (int i = 0; i < WINDOWS; i++) {
        served += i >= first + 2 ? s.served[i] : 0;
        throttled += i >= first + 2 ? s.throttled[i] : 0;
        early += i < first + 2 ? s.throttled[i] : 0;
        if (i >= first + 2 && s.throttled[i] > most)
            most = s.throttled[i];
    }
    print_message("%s: %llu throttled in the first two windows, then %.4f%% of %llu, at most %llu in a window; %.0f%% "
                  "of what is possible used\n", what, (unsigned long long)early,
                  (double)throttled * 100 / (double)(served + throttled), (unsigned long long)(served + throttled),
                  (unsigned long long)most, (double)served * 100 / (double)(p.real * (uint64_t)(WINDOWS - first - 2)));
    assert_true(most <= (p.in_flight ? p.in_flight : WORKERS));
    assert_true(throttled * 1000 < served);
    assert_true(served * 100 > p.real * (uint64_t)(WINDOWS - first - 2) * 85);
}

static void test_a_limit_declared_too_high_is_learned(void **state)
{
    /* Outlook's: 10,000 in ten minutes, four at once; declared 13,000 */
    struct provider p = { .window = 600 * S, .real = 10000, .declared = 13000, .in_flight = 4, .hints = true };

    judge(p, "sliding, with Retry-After");
    p.counts_throttled = true;
    judge(p, "sliding, throttled count");
    p.hints = false;
    p.counts_throttled = false;
    judge(p, "sliding, no hint");
    p.fixed = true;
    judge(p, "fixed, no hint");
    p.hints = true;
    judge(p, "fixed, with Retry-After");
    p = (struct provider){ .window = 60 * S, .real = 1000, .declared = 1300, .in_flight = 0, .fixed = true,
                           .hints = true };
    judge(p, "a minute, fixed, no cap");
}

/* ---- another process eats from the same quota */

static void test_what_remains_is_believed_when_it_is_less(void **state)
{
    struct rl *rl = make();
    struct rl_heard more = { RL_UNKNOWN, 900, 50 * S }, less = { RL_UNKNOWN, 3, 50 * S };
    struct rl_waiter w;

    rule_rate(rl, 1, RL_RATE_BUCKET, 1000, 60 * S, 100);
    assert_int_equal(get(rl, &w, "k", 1, 1, 0, S), RL_GRANTED);
    done(rl, &w, S);
    assert_int_equal(rl_observe(rl, ASK("k", 1), &more, S), RL_GRANTED);        /* no news */
    assert_int_equal(get(rl, &w, "k", 1, 50, 0, S), RL_GRANTED);
    done(rl, &w, S);
    assert_int_equal(rl_observe(rl, ASK("k", 1), &less, 10 * S), RL_GRANTED);
    more.remaining = 40;
    assert_int_equal(rl_observe(rl, ASK("k", 1), &more, 10 * S), RL_GRANTED);   /* an older answer, come later */
    assert_int_equal(look(rl, "k", 10 * S).available, 3);
    assert_int_equal(get(rl, &w, "k", 1, 4, 0, 10 * S), RL_LATE);
    assert_int_equal(w.retry_at, 50 * S);
    assert_int_equal(get(rl, &w, "k", 1, 3, 0, 10 * S), RL_GRANTED);
    done(rl, &w, 10 * S);
    assert_int_equal(get(rl, &w, "k", 1, 1, RL_FOREVER, 10 * S), RL_QUEUED);
    assert_int_equal(alarm_at, 50 * S);
    tick(rl, 50 * S);
    assert_int_equal(w.result, RL_GRANTED);
    done(rl, &w, 50 * S);
    assert_int_equal(look(rl, "k", 51 * S).available, 99 + 1);
    /* a reset in the year 50000 is a misread one */
    less = (struct rl_heard){ RL_UNKNOWN, 0, RL_FOREVER };
    assert_int_equal(rl_observe(rl, ASK("k", 1), &less, 60 * S), RL_GRANTED);
    assert_int_equal(get(rl, &w, "k", 1, 1, 0, 60 * S), RL_LATE);
    assert_true(w.retry_at <= 60 * S + 3600 * S);
    /* a lower limit than declared is taken over */
    less = (struct rl_heard){ 500, RL_UNKNOWN, 0 };
    assert_int_equal(rl_observe(rl, ASK("other", 1), &less, 60 * S), RL_GRANTED);
    assert_true(look(rl, "other", 60 * S).tightened == 0.5);
    less = (struct rl_heard){ 0, 0, -5 };
    assert_int_equal(rl_observe(rl, ASK("zero", 1), &less, 60 * S), RL_GRANTED);
    assert_true(look(rl, "zero", 60 * S).tightened == 1.0 / 64);
    rl_free(rl);
}

static void test_another_rule_forgets_what_was_learned_of_the_former(void **state)
{
    struct rl *rl = make();
    struct rl_waiter w;

    rule_rate(rl, 1, RL_RATE_BUCKET, 100, S, 100);
    rule_rate(rl, 2, RL_RATE_BUCKET, 50, S, 50);
    assert_int_equal(throttled(rl, "k", 1, 0, S, 0), RL_GRANTED);
    assert_true(look(rl, "k", 0).tightened == 0.75);
    rule_rate(rl, 1, RL_RATE_BUCKET, 200, S, 200);              /* its own rule changed: still tightened */
    assert_int_equal(look(rl, "k", 100 * S).available, 150);
    assert_int_equal(get(rl, &w, "k", 2, 50, 0, 100 * S), RL_GRANTED);
    done(rl, &w, 100 * S);
    assert_true(look(rl, "k", 100 * S).tightened == 1);
    rl_free(rl);
}

/* ---- two nodes, one quota */

enum { NODES = 2, RULE_SHARED = 1 };

static struct {
    struct rl *store, *node[NODES];
    int64_t now;
    uint64_t leased, calls;
} share;

/* What the nodes want is asked of the store's own limiter, each node a tenant. */
struct asked {
    struct rl_waiter w;
    struct rl *node;
    struct rl_id id;
    uint32_t units;
} asked[NODES];

static void hand_on(struct asked *a)
{
    assert_int_equal(a->w.result, RL_GRANTED);
    rl_release(share.store, &a->w.permit, share.now);
    share.leased += a->units;
    rl_lease(a->node, a->id, a->units, RL_KEEP, share.now + 10 * S, share.now);
}

static void on_asked(struct rl_waiter *w)
{
    hand_on(RL_CONTAINER(w, struct asked, w));
}

static void want(void *arg, struct rl *rl, const struct rl_want *w, int64_t now)
{
    int i = rl == share.node[1];
    struct rl_ask ask = { .rule = RULE_SHARED, .cost = w->units < 5 ? (uint32_t)w->units : 5, .id = w->id };

    assert_ptr_equal(arg, &share);
    assert_int_equal(asked[i].node ? asked[i].w.result : RL_GRANTED, RL_GRANTED);      /* one at a time */
    share.calls++;
    share.now = now;
    asked[i] = (struct asked){ .node = rl, .id = w->id, .units = ask.cost };
    asked[i].w.wake = on_asked;
    asked[i].w.tenant = 1 + (uint64_t)i;
    if (rl_acquire(share.store, &asked[i].w, &ask, 1, RL_FOREVER, now) == RL_GRANTED)
        hand_on(&asked[i]);
}

static uint64_t granted;

static void on_share(struct rl_waiter *w)
{
    granted += w->result == RL_GRANTED;
}

static void test_nodes_share_a_quota_by_leases(void **state)
{
    struct rl_store store = { &share, want };
    struct rl_config config = { .seed = { 9, 9 }, .store = &store };
    struct rl_rule whole = { .rate = RL_RATE_BUCKET, .amount = 100, .window_ns = S, .burst = 20 }, leased = whole;
    static struct rl_waiter w[NODES][64];
    struct rl_ask a = ask("app", RULE_SHARED, 1);
    uint64_t each[NODES] = { 0 };

    leased.leased = true;
    share.store = rl_new(&config);
    assert_true(rl_rule_set(share.store, RULE_SHARED, &whole, 0));
    for (int i = 0; i < NODES; i++) {
        share.node[i] = rl_new(&config);
        assert_true(rl_rule_set(share.node[i], RULE_SHARED, &leased, 0));
    }
    memset(w, 0, sizeof(w));
    granted = 0;
    for (int64_t now = 0; now <= 20 * S; now += MS) {
        share.now = now;
        if (rl_next(share.store) <= now)
            rl_tick(share.store, now);
        for (int i = 0; i < NODES; i++) {
            for (int k = 0; k < 64; k++) {
                struct rl_waiter *x = &w[i][k];

                if (x->wake && x->result == RL_QUEUED)
                    continue;
                if (x->wake && x->result == RL_GRANTED) {
                    each[i]++;
                    rl_release(share.node[i], &x->permit, now);
                }
                x->wake = on_share;
                (void)rl_acquire(share.node[i], x, &a, 1, RL_FOREVER, now);
            }
            if (rl_next(share.node[i]) <= now)
                rl_tick(share.node[i], now);
        }
        /* never more than the one quota: its burst and what time has added, however many nodes */
        assert_true(each[0] + each[1] <= 20 + (uint64_t)now / (10 * MS));
    }
    assert_true(each[0] + each[1] >= 20 * 100 * 95 / 100);
    print_message("two nodes: %llu and %llu granted of %llu leased in %llu calls to the store\n",
                  (unsigned long long)each[0], (unsigned long long)each[1], (unsigned long long)share.leased,
                  (unsigned long long)share.calls);
    assert_true(each[0] > 950 && each[1] > 950);
    for (int i = 0; i < NODES; i++)
        if (asked[i].w.result == RL_QUEUED)
            assert_true(rl_cancel(share.store, &asked[i].w, 20 * S));
    for (int i = 0; i < NODES; i++) {
        for (int k = 0; k < 64; k++)
            if (w[i][k].result == RL_QUEUED)
                assert_true(rl_cancel(share.node[i], &w[i][k], 20 * S));
            else
                rl_release(share.node[i], &w[i][k].permit, 20 * S);
        rl_free(share.node[i]);
    }
    rl_free(share.store);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_throttle_pauses_and_tightens_that_key_alone),
        cmocka_unit_test(test_a_limit_declared_too_high_is_learned),
        cmocka_unit_test(test_what_remains_is_believed_when_it_is_less),
        cmocka_unit_test(test_another_rule_forgets_what_was_learned_of_the_former),
        cmocka_unit_test(test_nodes_share_a_quota_by_leases),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
