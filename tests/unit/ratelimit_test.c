/*
 * ratelimit_test.c -- the limiter's promises, one by one, on virtual time
 *
 * Bounds, forgetting and views are ratelimit_table_test.c, the simulation of many acquirers is ratelimit_model_test.c,
 * real threads are ratelimit_stress_test.c.
 */
#include "ratelimit_test.h"

static void test_bucket_gives_its_burst_then_its_rate(void **state)
{
    struct rl *rl = make();
    struct rl_waiter w;

    rule_rate(rl, 1, RL_RATE_BUCKET, 10, S, 5);         /* 100 ms per unit */
    for (int i = 0; i < 5; i++) {
        assert_int_equal(get(rl, &w, "k", 1, 1, 0, 7 * S), RL_GRANTED);
        done(rl, &w, 7 * S);
    }
    assert_int_equal(get(rl, &w, "k", 1, 1, 0, 7 * S), RL_LATE);
    assert_int_equal(w.retry_at, 7 * S + 100 * MS);
    assert_int_equal(get(rl, &w, "k", 1, 1, 0, 7 * S + 100 * MS - 1), RL_LATE);
    assert_int_equal(get(rl, &w, "k", 1, 1, 0, 7 * S + 100 * MS), RL_GRANTED);
    done(rl, &w, 7 * S);
    assert_int_equal(get(rl, &w, "k", 1, 4, 0, 7 * S + 200 * MS), RL_LATE);
    assert_int_equal(w.retry_at, 7 * S + 500 * MS);     /* one there, three to come */
    assert_int_equal(get(rl, &w, "k", 1, 0, 0, 7 * S + 100 * MS), RL_GRANTED);
    done(rl, &w, 7 * S);
    assert_int_equal(get(rl, &w, "k", 1, 6, RL_FOREVER, 20 * S), RL_NEVER);
    assert_int_equal(w.retry_at, RL_FOREVER);
    assert_int_equal(get(rl, &w, "k", 1, 5, 0, 20 * S), RL_GRANTED);
    done(rl, &w, 20 * S);
    rl_free(rl);
}

/* The greediest caller there is: asks at every nanosecond. No half open window holds more than the amount. */
static void test_window_is_never_exceeded_wherever_it_begins(void **state)
{
    static const struct { uint64_t amount, burst; int64_t window; } cases[] = {
        { 1, 1, 100 }, { 2, 1, 100 }, { 7, 3, 100 }, { 10, 10, 100 }, { 100, 5, 97 }, { 3, 2, 1000 }, { 50, 0, 333 },
    };
    enum { SPAN = 5000 };
    static uint32_t at[SPAN];

    for (size_t c = 0; c < sizeof(cases) / sizeof(cases[0]); c++) {
        struct rl *rl = make();
        uint64_t sum = 0, total = 0;
        struct rl_waiter w;

        memset(at, 0, sizeof(at));
        rule_rate(rl, 1, RL_RATE_WINDOW, cases[c].amount, cases[c].window, cases[c].burst);
        for (int64_t t = 0; t < SPAN; t++) {
            while (get(rl, &w, "k", 1, 1, 0, t) == RL_GRANTED) {
                done(rl, &w, t);
                at[t]++;
            }
            sum += at[t];
            sum -= t >= cases[c].window ? at[t - cases[c].window] : 0;
            total += at[t];
            assert_true(sum <= cases[c].amount);
        }
        /* and the rate is used: all but burst - 1 units of each window, less the rounding to whole nanoseconds */
        assert_true(total >= (uint64_t)SPAN / (uint64_t)(cases[c].window / (int64_t)(cases[c].amount
                                                         - (cases[c].burst ? cases[c].burst : 2) + 1) + 1));
        rl_free(rl);
    }
}

static void test_places_in_flight_are_handed_over_in_order(void **state)
{
    struct rl *rl = make();
    struct rl_waiter w[5], late;
    struct rl_key_stats s;

    rule_cap(rl, 1, 2, 0);
    assert_int_equal(get(rl, &w[0], "box", 1, 1, RL_FOREVER, 0), RL_GRANTED);
    assert_int_equal(get(rl, &w[1], "box", 1, 1, RL_FOREVER, 0), RL_GRANTED);
    for (int i = 2; i < 5; i++)
        assert_int_equal(get(rl, &w[i], "box", 1, 1, RL_FOREVER, 0), RL_QUEUED);
    assert_true(rl_key_stats(rl, ASK("box", 1), 0, &s));
    assert_int_equal(s.in_flight, 2);
    assert_int_equal(s.waiting, 3);
    assert_int_equal(s.concurrency, 2);
    assert_true(s.available == UINT64_MAX);
    for (int i = 2; i < 5; i++) {
        done(rl, &w[i - 2], i);
        assert_int_equal(nwoken, i - 1);
        assert_ptr_equal(woken[i - 2], &w[i]);
        assert_int_equal(w[i].result, RL_GRANTED);
        if (i < 4) {    /* the place went to the waiter: somebody new cannot have it */
            assert_int_equal(get(rl, &late, "box", 1, 1, 0, i), RL_LATE);
        }
    }
    done(rl, &w[3], 9);
    done(rl, &w[4], 9);
    assert_true(rl_key_stats(rl, ASK("box", 1), 9, &s));
    assert_int_equal(s.in_flight + s.waiting, 0);
    assert_int_equal(s.granted, 5);
    assert_int_equal(s.refused, 2);
    rl_free(rl);
}

static void test_all_or_nothing(void **state)
{
    struct rl *rl = make();
    struct rl_waiter a, b;

    rule_rate(rl, 1, RL_RATE_BUCKET, 4, S, 4);
    rule_cap(rl, 2, 1, 0);
    assert_int_equal(get(rl, &a, "box", 2, 1, 0, 0), RL_GRANTED);
    assert_int_equal(get2(rl, &b, ask("tenant", 1, 2), ask("box", 2, 1), RL_FOREVER, 0), RL_QUEUED);
    assert_int_equal(b.blocked, 1);
    assert_int_equal(available(rl, "tenant", 0), 4);    /* nothing was taken from what was free */
    done(rl, &a, 1);
    assert_int_equal(nwoken, 1);
    assert_int_equal(b.result, RL_GRANTED);
    assert_int_equal(available(rl, "tenant", 1), 2);
    done(rl, &b, 2);
    rl_free(rl);
}

static void test_a_full_mailbox_does_not_hold_up_the_others(void **state)
{
    struct rl *rl = make();
    struct rl_waiter hog[2], q[8], other;

    rule_cap(rl, 1, 3, 0);      /* tenant */
    rule_cap(rl, 2, 1, 0);      /* mailbox */
    assert_int_equal(get2(rl, &hog[0], ask("t", 1, 1), ask("m1", 2, 1), RL_FOREVER, 0), RL_GRANTED);
    for (int i = 0; i < 8; i++)
        assert_int_equal(get2(rl, &q[i], ask("t", 1, 1), ask("m1", 2, 1), RL_FOREVER, 0), RL_QUEUED);
    assert_int_equal(get2(rl, &other, ask("t", 1, 1), ask("m2", 2, 1), RL_FOREVER, 0), RL_GRANTED);
    assert_int_equal(get2(rl, &hog[1], ask("t", 1, 1), ask("m3", 2, 1), RL_FOREVER, 0), RL_GRANTED);
    /* now the tenant is full: m4 waits at the tenant, and is next there although eight of m1 arrived before */
    done(rl, &hog[0], 1);
    assert_int_equal(nwoken, 1);
    assert_ptr_equal(woken[0], &q[0]);
    {
        struct rl_waiter m4;

        assert_int_equal(get2(rl, &m4, ask("t", 1, 1), ask("m4", 2, 1), RL_FOREVER, 1), RL_QUEUED);
        done(rl, &other, 2);
        assert_int_equal(nwoken, 2);
        assert_ptr_equal(woken[1], &m4);
        done(rl, &m4, 3);
    }
    done(rl, &hog[1], 4);
    for (int i = 0; i < 8; i++)
        done(rl, &q[i], 5 + i);
    assert_int_equal(nwoken, 9);
    rl_free(rl);
}

static void test_late_counts_those_ahead(void **state)
{
    struct rl *rl = make();
    struct rl_waiter a, b, c;

    rule_rate(rl, 1, RL_RATE_BUCKET, 1, S, 1);
    assert_int_equal(get(rl, &a, "k", 1, 1, 0, 0), RL_GRANTED);
    done(rl, &a, 0);
    assert_int_equal(get(rl, &a, "k", 1, 1, 5 * S, 0), RL_QUEUED);
    assert_int_equal(get(rl, &b, "k", 1, 1, 5 * S, 0), RL_QUEUED);
    assert_int_equal(get(rl, &c, "k", 1, 1, 3 * S - 1, 0), RL_LATE);
    assert_int_equal(c.retry_at, 3 * S);
    assert_true(rl_cancel(rl, &b, 0));
    assert_int_equal(get(rl, &b, "k", 1, 1, 2 * S - 1, 0), RL_LATE);    /* one less ahead */
    assert_int_equal(b.retry_at, 2 * S);
    assert_int_equal(get(rl, &b, "k", 1, 1, 5 * S, 0), RL_QUEUED);
    assert_int_equal(get(rl, &c, "k", 1, 1, 3 * S, 0), RL_QUEUED);      /* on the very deadline is in time */
    assert_int_equal(tick(rl, S), 2 * S);
    assert_int_equal(tick(rl, 2 * S), 3 * S);
    assert_int_equal(tick(rl, 3 * S), RL_FOREVER);
    assert_int_equal(nwoken, 3);
    assert_ptr_equal(woken[2], &c);
    done(rl, &a, 3 * S);
    done(rl, &b, 3 * S);
    done(rl, &c, 3 * S);
    rl_free(rl);
}

static void test_deadlines(void **state)
{
    struct rl *rl = make();
    struct rl_waiter a, b, c;
    struct rl_stats s;

    rule_cap(rl, 1, 1, 0);
    assert_int_equal(get(rl, &a, "k", 1, 1, -5, 10), RL_GRANTED);       /* past, but free now */
    assert_int_equal(get(rl, &b, "k", 1, 1, 10, 10), RL_LATE);
    assert_int_equal(get(rl, &b, "k", 1, 1, 20, 10), RL_QUEUED);
    assert_int_equal(get(rl, &c, "k", 1, 1, 30, 10), RL_QUEUED);
    assert_int_equal(alarm_at, 21);
    assert_int_equal(rl_next(rl), 21);
    assert_int_equal(tick(rl, 20), 21);
    assert_int_equal(nwoken, 0);
    assert_int_equal(tick(rl, 21), 31);
    assert_int_equal(nwoken, 1);
    assert_int_equal(b.result, RL_TIMED_OUT);
    done(rl, &a, 30);
    assert_int_equal(c.result, RL_GRANTED);
    done(rl, &c, 31);
    assert_int_equal(tick(rl, 100), RL_FOREVER);
    rl_stats(rl, &s);
    assert_int_equal(s.timed_out, 1);
    assert_int_equal(s.late, 1);
    assert_int_equal(s.queued, 2);
    assert_int_equal(s.granted, 2);
    assert_int_equal(s.waiting, 0);
    rl_free(rl);
}

static void test_cancel(void **state)
{
    struct rl *rl = make();
    struct rl_waiter a, b, c, d;

    rule_cap(rl, 1, 1, 0);
    assert_int_equal(get(rl, &a, "k", 1, 1, RL_FOREVER, 0), RL_GRANTED);
    assert_int_equal(get(rl, &b, "k", 1, 1, RL_FOREVER, 0), RL_QUEUED);
    assert_int_equal(get(rl, &c, "k", 1, 1, RL_FOREVER, 0), RL_QUEUED);
    assert_int_equal(get(rl, &d, "k", 1, 1, RL_FOREVER, 0), RL_QUEUED);
    assert_true(rl_cancel(rl, &c, 1));      /* from the middle */
    assert_int_equal(c.result, RL_CANCELLED);
    assert_true(rl_cancel(rl, &b, 1));      /* the oldest */
    assert_int_equal(nwoken, 0);
    done(rl, &a, 2);
    assert_int_equal(nwoken, 1);
    assert_false(rl_cancel(rl, &d, 3));     /* too late: it is granted, and ours to return */
    done(rl, &d, 3);
    assert_int_equal(get(rl, &a, "k", 1, 1, 0, 4), RL_GRANTED);
    done(rl, &a, 4);
    rl_free(rl);
}

/* The oldest of a queue asks more than there is; when it goes away, who asks less is let through. */
static void test_cancel_of_the_oldest_lets_the_next_go(void **state)
{
    struct rl *rl = make();
    struct rl_waiter big, small;

    rule_rate(rl, 1, RL_RATE_BUCKET, 10, 10 * S, 10);
    assert_int_equal(get(rl, &small, "k", 1, 8, 0, 0), RL_GRANTED);
    done(rl, &small, 0);
    assert_int_equal(get(rl, &big, "k", 1, 9, RL_FOREVER, 0), RL_QUEUED);
    assert_int_equal(get(rl, &small, "k", 1, 2, RL_FOREVER, 0), RL_QUEUED);
    assert_true(rl_cancel(rl, &big, 0));
    assert_int_equal(nwoken, 1);
    assert_int_equal(small.result, RL_GRANTED);
    done(rl, &small, 0);
    rl_free(rl);
}

static void returns_twice(void)
{
    struct rl *rl = make();
    struct rl_waiter w;

    rule_cap(rl, 1, 1, 0);
    get(rl, &w, "k", 1, 1, 0, 0);
    rl_release(rl, &w.permit, 0);
    if (!freopen("/dev/null", "w", stderr))
        _exit(1);
    rl_release(rl, &w.permit, 0);
}

static void test_returning_twice_aborts(void **state)
{
    pid_t child = fork();
    int status;

    assert_true(child >= 0);
    if (child == 0) {
        signal(SIGABRT, SIG_DFL);
        returns_twice();
        _exit(0);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
}

static void test_pause(void **state)
{
    struct rl *rl = make();
    struct rl_waiter a, b, c;
    struct rl_key_stats s;

    rule_cap(rl, 1, 4, 0);
    assert_int_equal(rl_pause(rl, ASK("k", 9), 5 * S, 0), RL_NO_RULE);
    assert_int_equal(rl_pause(rl, ASK("k", 1), 5 * S, 0), RL_GRANTED);
    assert_int_equal(rl_pause(rl, ASK("k", 1), 3 * S, 0), RL_GRANTED);    /* never shortens */
    assert_int_equal(get(rl, &a, "k", 1, 1, 4 * S, S), RL_LATE);
    assert_int_equal(a.retry_at, 5 * S);
    assert_int_equal(get(rl, &a, "k", 1, 1, 6 * S, S), RL_QUEUED);
    assert_int_equal(get(rl, &b, "k", 1, 1, 20 * S, S), RL_QUEUED);
    assert_int_equal(alarm_at, 5 * S);
    assert_int_equal(rl_pause(rl, ASK("k", 1), 9 * S, 2 * S), RL_GRANTED);
    tick(rl, 5 * S);
    assert_int_equal(nwoken, 1);                /* a cannot make it any more, and is told at once */
    assert_ptr_equal(woken[0], &a);
    assert_int_equal(a.result, RL_LATE);
    assert_int_equal(a.retry_at, 9 * S);
    assert_true(rl_key_stats(rl, ASK("k", 1), 5 * S, &s));
    assert_int_equal(s.paused_until, 9 * S);
    assert_int_equal(s.waiting, 1);
    rl_resume(rl, ASK("k", 1), 6 * S);
    assert_int_equal(b.result, RL_GRANTED);
    assert_int_equal(get(rl, &c, "k", 1, 1, 0, 6 * S), RL_GRANTED);
    done(rl, &b, 7 * S);
    done(rl, &c, 7 * S);
    /* for ever is a long time, not a special one */
    assert_int_equal(rl_pause(rl, ASK("k", 1), RL_FOREVER, 7 * S), RL_GRANTED);
    assert_int_equal(get(rl, &a, "k", 1, 1, 100 * S, 7 * S), RL_LATE);
    rl_free(rl);
}

static void test_a_changed_rule_keeps_what_was_used(void **state)
{
    struct rl *rl = make();
    struct rl_waiter w[4], big;
    struct rl_rule bad = { .rate = RL_RATE_BUCKET, .amount = 0, .window_ns = S };

    rule_rate(rl, 1, RL_RATE_BUCKET, 100, S, 100);
    assert_int_equal(get(rl, &w[0], "k", 1, 60, 0, 0), RL_GRANTED);
    done(rl, &w[0], 0);
    rule_rate(rl, 1, RL_RATE_BUCKET, 100, 100 * S, 100);        /* a hundred times slower: 60 are still used */
    assert_int_equal(available(rl, "k", 0), 40 - 1);            /* rounded against us */
    assert_int_equal(available(rl, "k", 10 * S), 50 - 1);
    assert_int_equal(get(rl, &big, "k", 1, 90, RL_FOREVER, 10 * S), RL_QUEUED);
    assert_false(rl_rule_set(rl, 1, &bad, 10 * S));
    rule_rate(rl, 1, RL_RATE_BUCKET, 100, 100 * S, 80);         /* now that can never be */
    assert_int_equal(big.result, RL_NEVER);

    rule_cap(rl, 2, 1, 0);
    for (int i = 0; i < 4; i++)
        assert_int_equal(get(rl, &w[i], "c", 2, 1, RL_FOREVER, 0), i ? RL_QUEUED : RL_GRANTED);
    rule_cap(rl, 2, 3, 1);                  /* more room: two go at once */
    assert_int_equal(nwoken, 3);
    rule_cap(rl, 2, 1, 2);                  /* less: three are in flight, and must drain before the next */
    done(rl, &w[0], 3);
    done(rl, &w[1], 3);
    assert_int_equal(nwoken, 3);
    done(rl, &w[2], 3);
    assert_int_equal(nwoken, 4);
    done(rl, &w[3], 3);

    /* a learned plan: the same key under another rule */
    rule_cap(rl, 3, 2, 0);
    assert_int_equal(get(rl, &w[0], "c", 2, 1, RL_FOREVER, 4), RL_GRANTED);
    assert_int_equal(get(rl, &w[1], "c", 2, 1, RL_FOREVER, 4), RL_QUEUED);
    assert_int_equal(get(rl, &w[2], "c", 3, 1, RL_FOREVER, 4), RL_QUEUED);
    assert_int_equal(w[1].result, RL_GRANTED);
    done(rl, &w[0], 5);
    done(rl, &w[1], 5);
    done(rl, &w[2], 5);
    rl_free(rl);
}

static void test_one_key_named_twice_is_one_key(void **state)
{
    struct rl *rl = make();
    struct rl_waiter w;
    struct rl_key_stats s;

    rule_rate(rl, 1, RL_RATE_BUCKET, 10, S, 10);
    assert_int_equal(get2(rl, &w, ask("k", 1, 3), ask("k", 1, 4), 0, 0), RL_GRANTED);
    assert_true(rl_key_stats(rl, ASK("k", 1), 0, &s));
    assert_int_equal(s.granted, 1);
    assert_int_equal(s.available, 3);
    done(rl, &w, 0);
    assert_int_equal(get2(rl, &w, ask("k", 1, UINT32_MAX), ask("k", 1, UINT32_MAX), 0, 0), RL_NEVER);
    rl_free(rl);
}

static void test_an_unused_permit_gives_back_no_more_than_it_took(void **state)
{
    struct rl *rl = make();
    struct rl_waiter a, b, c;

    rule_rate(rl, 1, RL_RATE_BUCKET, 1, S, 1);
    assert_int_equal(get(rl, &a, "k", 1, 1, 0, 0), RL_GRANTED);
    assert_int_equal(get(rl, &b, "k", 1, 1, RL_FOREVER, 0), RL_QUEUED);
    rl_return(rl, &a.permit, 0);                /* at once: all of it, and the waiter goes */
    assert_int_equal(b.result, RL_GRANTED);
    done(rl, &b, 0);
    /* a at 1 s, b at 2 s; a given back at 2 s has been refilled by time: giving it again would be a burst of 2 */
    assert_int_equal(get(rl, &a, "k", 1, 1, 0, S), RL_GRANTED);
    assert_int_equal(get(rl, &b, "k", 1, 1, 0, 2 * S), RL_GRANTED);
    rl_return(rl, &a.permit, 2 * S);
    assert_int_equal(get(rl, &c, "k", 1, 1, 0, 2 * S), RL_LATE);
    assert_int_equal(c.retry_at, 3 * S);
    done(rl, &b, 2 * S);
    rl_free(rl);
}

static void test_absurd_rules_and_limits(void **state)
{
    static const struct rl_rule bad[] = {
        { .rate = RL_RATE_BUCKET, .amount = 0, .window_ns = S },
        { .rate = RL_RATE_BUCKET, .amount = 1, .window_ns = 0 },
        { .rate = RL_RATE_BUCKET, .amount = 1, .window_ns = -S },
        { .rate = RL_RATE_BUCKET, .amount = 1, .window_ns = INT64_MAX },
        { .rate = RL_RATE_BUCKET, .amount = UINT64_MAX, .window_ns = 1 },
        { .rate = RL_RATE_BUCKET, .amount = 1, .window_ns = 86400 * S, .burst = (uint64_t)1 << 40 },
        { .rate = RL_RATE_WINDOW, .amount = 5, .window_ns = S, .burst = 6 },
        { .rate = RL_RATE_WINDOW, .amount = 100, .window_ns = 180 * 86400 * S, .burst = 100 },
        { .concurrency = 1 << 23 },
    };
    struct rl_rule fastest = { .rate = RL_RATE_BUCKET, .amount = (uint64_t)1 << 40, .window_ns = 1 };
    struct rl_rule slowest = { .rate = RL_RATE_BUCKET, .amount = 1, .window_ns = 400 * 86400 * S };
    struct rl_config config = { .rules_max = 8, .waiters_max = 3, .waiters_per_key_max = 2 };
    struct rl *rl = rl_new(&config);
    struct rl_waiter w, q[4];

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_false(rl_rule_sound(&bad[i]) || rl_rule_set(rl, 1, &bad[i], 0));
    assert_true(rl_rule_sound(&fastest) && rl_rule_sound(&slowest));
    assert_false(rl_rule_set(rl, 8, &fastest, 0));
    assert_true(rl_rule_set(rl, 1, &fastest, 0));
    assert_true(rl_rule_set(rl, 2, &slowest, 0));
    assert_int_equal(get(rl, &w, "fast", 1, UINT32_MAX, 0, 0), RL_GRANTED);
    done(rl, &w, 0);
    assert_int_equal(get(rl, &w, "slow", 2, 1, 0, 1), RL_GRANTED);
    done(rl, &w, 1);
    assert_int_equal(get(rl, &w, "slow", 2, 1, 0, 1), RL_LATE);
    assert_int_equal(w.retry_at, 400 * 86400 * S + 1);
    assert_int_equal(get(rl, &w, "k", 3, 1, 0, 1), RL_NO_RULE);
    assert_int_equal(get(rl, &w, "k", 60000, 1, 0, 1), RL_NO_RULE);
    assert_int_equal(get(rl, &q[0], "slow", 2, 1, RL_FOREVER, 1), RL_QUEUED);
    assert_int_equal(get(rl, &q[1], "slow", 2, 1, RL_FOREVER, 1), RL_QUEUED);
    assert_int_equal(get(rl, &w, "slow", 2, 1, RL_FOREVER, 1), RL_BUSY);
    assert_int_equal(rl_pause(rl, ASK("fast", 1), S, 1), RL_GRANTED);
    assert_int_equal(get(rl, &q[2], "fast", 1, 1, RL_FOREVER, 1), RL_QUEUED);
    assert_int_equal(get(rl, &w, "fast", 1, 1, RL_FOREVER, 1), RL_BUSY);
    for (int i = 0; i < 3; i++)
        assert_true(rl_cancel(rl, &q[i], 2));
    assert_null(rl_new(&(struct rl_config){ .rules_max = 65536 }));
    assert_string_equal(rl_result_name(RL_TABLE_FULL), "table_full");
    rl_free(rl);
}

/* Two mailboxes of one place each, always asked for by somebody; one wants both at once. Each time one comes free the
   other is taken, until it has been passed over often enough: then its turn comes. */
static void test_who_wants_two_busy_things_is_served(void **state)
{
    struct rl *rl = make();
    struct rl_waiter a[64], b[64], both;
    size_t na = 0, nb = 0, oa = 0, ob = 0;
    int rounds = 0;

    rule_cap(rl, 1, 1, 0);
    assert_int_equal(get(rl, &a[na++], "a", 1, 1, RL_FOREVER, 0), RL_GRANTED);
    assert_int_equal(get(rl, &b[nb++], "b", 1, 1, RL_FOREVER, 0), RL_GRANTED);
    assert_int_equal(get2(rl, &both, ask("a", 1, 1), ask("b", 1, 1), RL_FOREVER, 0), RL_QUEUED);
    while (both.result == RL_QUEUED) {
        assert_true(++rounds < 12);
        nwoken = 0;
        assert_int_equal(get(rl, &a[na++], "a", 1, 1, RL_FOREVER, 0), RL_QUEUED);
        assert_int_equal(get(rl, &b[nb++], "b", 1, 1, RL_FOREVER, 0), RL_QUEUED);
        if (a[oa].result == RL_GRANTED)
            done(rl, &a[oa++], 0);
        if (both.result == RL_QUEUED && b[ob].result == RL_GRANTED)
            done(rl, &b[ob++], 0);
    }
    assert_true(rounds > 2);            /* it really was passed over */
    done(rl, &both, 0);
    while (oa < na)
        done(rl, &a[oa++], 0);
    while (ob < nb)
        done(rl, &b[ob++], 0);
    rl_free(rl);
}

/* The same, but what it waits for takes a minute: the tenant's place is not kept idle for that long. */
static void test_nothing_quick_is_held_back_for_something_slow(void **state)
{
    struct rl *rl = make();
    struct rl_waiter t[40], slow[40], both;
    int64_t now = 0;
    size_t nt = 0, ot = 0;

    rule_cap(rl, 1, 1, 0);                              /* tenant */
    rule_rate(rl, 2, RL_RATE_BUCKET, 1, 60 * S, 1);     /* ticket: one a minute */
    assert_int_equal(get(rl, &slow[0], "ticket", 2, 1, 0, 0), RL_GRANTED);
    done(rl, &slow[0], 0);
    assert_int_equal(get2(rl, &both, ask("tenant", 1, 1), ask("ticket", 2, 1), RL_FOREVER, 0), RL_QUEUED);
    assert_int_equal(both.blocked, 1);
    /* each minute the tenant is busy at the moment the ticket is free; meanwhile others use the tenant without delay */
    for (int minute = 1; minute < 10 && both.result == RL_QUEUED; minute++) {
        assert_int_equal(get(rl, &t[nt++], "tenant", 1, 1, RL_FOREVER, now), RL_GRANTED);
        now = minute * 60 * S;
        assert_int_equal(get(rl, &t[nt++], "tenant", 1, 1, RL_FOREVER, now - 1), RL_QUEUED);
        tick(rl, now);
        while (ot < nt && both.result == RL_QUEUED) {
            assert_int_equal(t[ot].result, RL_GRANTED);
            done(rl, &t[ot++], now);
        }
    }
    assert_int_equal(both.result, RL_GRANTED);
    done(rl, &both, now);
    while (ot < nt)
        done(rl, &t[ot++], now);
    rl_free(rl);
}

/* One who wants the tenant's place and the ticket of the minute, passed over at both in turns until it is a barrier. */
static void pass_over(struct rl *rl, struct rl_waiter *both, struct rl_ask quick, struct rl_ask ticket, int64_t *now)
{
    struct rl_waiter thief, holder;

    assert_int_equal(get2(rl, &thief, quick, ticket, 0, *now), RL_GRANTED);
    done(rl, &thief, *now);
    assert_int_equal(get2(rl, both, quick, ticket, RL_FOREVER, *now), RL_QUEUED);
    assert_int_equal(both->blocked, 1);
    for (int times = 0; times < 2; times++) {
        *now += 60 * S;
        assert_int_equal(get2(rl, &holder, quick, quick, 0, *now - 1), RL_GRANTED);
        tick(rl, *now);                      /* the ticket is there, the quick one is not */
        assert_int_equal(both->result, RL_QUEUED);
        assert_int_equal(both->blocked, 0);
        assert_int_equal(rl_acquire(rl, &thief, &ticket, 1, 0, *now), RL_GRANTED);
        done(rl, &thief, *now);
        rl_release(rl, &holder.permit, *now);
        tick(rl, *now + S);                  /* and the other way round */
        assert_int_equal(both->result, RL_QUEUED);
        assert_int_equal(both->blocked, 1);
    }
}

static void test_a_barrier_holds_the_slow_key_and_not_the_quick_one(void **state)
{
    struct rl *rl = make();
    struct rl_ask tenant = ask("tenant", 1, 1), second = ask("second", 2, 1), ticket = ask("ticket", 3, 1);
    struct rl_waiter both, other;
    int64_t now = 0;

    rule_cap(rl, 1, 1, 0);
    rule_rate(rl, 2, RL_RATE_BUCKET, 2, 2 * S, 2);
    rule_rate(rl, 3, RL_RATE_BUCKET, 1, 60 * S, 1);
    pass_over(rl, &both, tenant, ticket, &now);
    now += 2 * S;
    for (int i = 0; i < 50; i++) {      /* a minute to wait: the tenant is everybody's meanwhile */
        assert_int_equal(get(rl, &other, "tenant", 1, 1, 0, now), RL_GRANTED);
        done(rl, &other, now);
    }
    assert_int_equal(get(rl, &other, "tenant", 1, 1, 0, now), RL_GRANTED);
    now += 58 * S;
    tick(rl, now);
    assert_int_equal(both.result, RL_QUEUED);
    assert_int_equal(get(rl, &(struct rl_waiter){ 0 }, "ticket", 3, 1, 0, now), RL_LATE);       /* kept for it */
    done(rl, &other, now);
    assert_int_equal(both.result, RL_GRANTED);
    done(rl, &both, now);

    /* a rate of one a second instead of the tenant: a second of an idle ticket is cheap, as it takes a minute to get */
    now += 120 * S;
    pass_over(rl, &both, second, ticket, &now);
    now += 2 * S;
    assert_int_equal(get(rl, &other, "second", 2, 2, 0, now), RL_GRANTED);
    done(rl, &other, now);
    now += 58 * S;
    assert_int_equal(get(rl, &other, "second", 2, 2, 0, now - 1), RL_GRANTED);
    done(rl, &other, now);
    tick(rl, now);
    assert_int_equal(both.result, RL_QUEUED);
    assert_int_equal(get(rl, &other, "ticket", 3, 1, 0, now), RL_LATE);
    tick(rl, now + S);
    assert_int_equal(both.result, RL_GRANTED);
    done(rl, &both, now + S);
    rl_free(rl);
}

static void test_alarm_only_for_earlier(void **state)
{
    struct rl *rl = make();
    struct rl_waiter a, b, c;

    rule_rate(rl, 1, RL_RATE_BUCKET, 1, 10 * S, 1);
    rule_rate(rl, 2, RL_RATE_BUCKET, 1, S, 1);
    assert_int_equal(get(rl, &a, "slow", 1, 1, 0, 0), RL_GRANTED);
    done(rl, &a, 0);
    assert_int_equal(get(rl, &a, "fast", 2, 1, 0, 0), RL_GRANTED);
    done(rl, &a, 0);
    assert_int_equal(alarm_at, RL_FOREVER);
    assert_int_equal(get(rl, &a, "slow", 1, 1, RL_FOREVER, 0), RL_QUEUED);
    assert_int_equal(alarm_at, 10 * S);
    assert_int_equal(get(rl, &b, "slow", 1, 1, RL_FOREVER, 0), RL_QUEUED);
    assert_int_equal(alarm_at, 10 * S);
    assert_int_equal(get(rl, &c, "fast", 2, 1, RL_FOREVER, 0), RL_QUEUED);
    assert_int_equal(alarm_at, S);
    assert_int_equal(tick(rl, S / 2), S);
    alarm_at = S;
    assert_int_equal(tick(rl, S), 10 * S);
    assert_int_equal(c.result, RL_GRANTED);
    assert_int_equal(tick(rl, 10 * S), 20 * S);
    assert_int_equal(tick(rl, 20 * S), RL_FOREVER);
    done(rl, &a, 20 * S);
    done(rl, &b, 20 * S);
    done(rl, &c, 20 * S);
    rl_free(rl);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bucket_gives_its_burst_then_its_rate),
        cmocka_unit_test(test_window_is_never_exceeded_wherever_it_begins),
        cmocka_unit_test(test_places_in_flight_are_handed_over_in_order),
        cmocka_unit_test(test_all_or_nothing),
        cmocka_unit_test(test_a_full_mailbox_does_not_hold_up_the_others),
        cmocka_unit_test(test_late_counts_those_ahead),
        cmocka_unit_test(test_deadlines),
        cmocka_unit_test(test_cancel),
        cmocka_unit_test(test_cancel_of_the_oldest_lets_the_next_go),
        cmocka_unit_test(test_returning_twice_aborts),
        cmocka_unit_test(test_pause),
        cmocka_unit_test(test_a_changed_rule_keeps_what_was_used),
        cmocka_unit_test(test_one_key_named_twice_is_one_key),
        cmocka_unit_test(test_an_unused_permit_gives_back_no_more_than_it_took),
        cmocka_unit_test(test_absurd_rules_and_limits),
        cmocka_unit_test(test_who_wants_two_busy_things_is_served),
        cmocka_unit_test(test_nothing_quick_is_held_back_for_something_slow),
        cmocka_unit_test(test_a_barrier_holds_the_slow_key_and_not_the_quick_one),
        cmocka_unit_test(test_alarm_only_for_earlier),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
