/*
 * ratelimit_time_test.c -- calendar windows, spacing, clocks that are set, absurd times, a day in seconds, a crowd
 */
#include "ratelimit_test.h"

#include <time.h>

#define DAY  (86400 * S)
#define NOON (1700049600 * S)        /* of 2023-11-15, UTC */

static void calendar(struct rl *rl, uint16_t id, uint64_t amount, int64_t ns, int64_t offset)
{
    struct rl_rule r = { .calendar_amount = amount, .calendar_ns = ns, .calendar_offset_ns = offset };

    assert_true(rl_rule_set(rl, id, &r, 0));
}

static enum rl_result once(struct rl *rl, const char *key, uint16_t rule, uint32_t cost, int64_t now, int64_t *retry)
{
    struct rl_waiter w;
    enum rl_result r = get(rl, &w, key, rule, cost, 0, now);

    if (r == RL_GRANTED)
        done(rl, &w, now);
    if (retry)
        *retry = w.retry_at;
    return r;
}

static void test_a_day_begins_at_midnight_there(void **state)
{
    struct rl *rl = make();
    struct rl_waiter w;
    int64_t retry;

    rl_wall(rl, NOON, 1000 * S);
    calendar(rl, 1, 10, DAY, 0);
    calendar(rl, 2, 10, DAY, 8 * 3600 * S);         /* UTC-8: its midnight is at 08:00 UTC */
    calendar(rl, 3, 10, DAY, -3600 * S);            /* UTC+1 */
    for (uint16_t rule = 1; rule <= 3; rule++) {
        static const int64_t hours[] = { 12, 20, 11 };
        const char *key = rule == 1 ? "a" : rule == 2 ? "b" : "c";
        int64_t midnight = 1000 * S + hours[rule - 1] * 3600 * S;

        assert_int_equal(once(rl, key, rule, 10, 1000 * S, NULL), RL_GRANTED);      /* all at once, which is allowed */
        assert_int_equal(once(rl, key, rule, 1, 1000 * S, &retry), RL_LATE);
        assert_int_equal(retry, midnight);
        assert_int_equal(once(rl, key, rule, 1, midnight - 1, NULL), RL_LATE);
        assert_int_equal(get(rl, &w, key, rule, 3, RL_FOREVER, 1000 * S), RL_QUEUED);
        assert_int_equal(rl_next(rl), midnight);
        tick(rl, midnight);
        assert_int_equal(w.result, RL_GRANTED);
        rl_return(rl, &w.permit, midnight);
        assert_int_equal(once(rl, key, rule, 10, midnight, NULL), RL_GRANTED);      /* all of it was given back */
        assert_int_equal(once(rl, key, rule, 11, midnight, NULL), RL_NEVER);
    }
    rl_free(rl);
}

static void test_a_window_is_not_opened_twice(void **state)
{
    struct rl *rl = make();
    struct rl_waiter w;
    int64_t retry;

    rl_wall(rl, NOON + 1800 * S, 0);
    calendar(rl, 1, 10, 3600 * S, 0);
    assert_int_equal(once(rl, "k", 1, 10, 0, NULL), RL_GRANTED);
    rl_wall(rl, NOON - 600 * S, S);                 /* set back into the hour before */
    assert_int_equal(once(rl, "k", 1, 1, S, &retry), RL_LATE);
    assert_int_equal(retry, S + 600 * S + 3600 * S);
    assert_int_equal(once(rl, "k", 1, 1, S + 600 * S, NULL), RL_LATE);          /* that hour again: was used */
    assert_int_equal(once(rl, "k", 1, 10, S + 4200 * S, NULL), RL_GRANTED);
    /* a clock that was years ahead for a moment blocks nothing for years */
    rl_wall(rl, NOON + 3650 * DAY, 5000 * S);
    assert_int_equal(once(rl, "k", 1, 10, 5000 * S, NULL), RL_GRANTED);
    rl_wall(rl, NOON, 5001 * S);
    assert_int_equal(get(rl, &w, "k", 1, 1, RL_FOREVER, 5001 * S), RL_QUEUED);
    assert_int_equal(rl_next(rl), 5001 * S + 3600 * S);
    /* and who waits for a boundary is looked at when the clock says that it has passed */
    rl_wall(rl, NOON + 3601 * S, 5002 * S);
    assert_int_equal(w.result, RL_GRANTED);
    done(rl, &w, 5002 * S);
    rl_free(rl);
}

static void test_spacing_and_several_dimensions_of_one_key(void **state)
{
    struct rl *rl = make();
    struct rl_rule r = { .rate = RL_RATE_BUCKET, .amount = 100, .window_ns = S, .burst = 50, .calendar_amount = 60,
                         .calendar_ns = 60 * S, .concurrency = 2, .spacing_ns = 10 * MS };
    struct rl_waiter w[3];
    int64_t retry;

    assert_true(rl_rule_set(rl, 1, &r, 0));
    assert_int_equal(get(rl, &w[0], "k", 1, 20, 0, 0), RL_GRANTED);
    assert_int_equal(once(rl, "k", 1, 1, 9 * MS, &retry), RL_LATE);         /* spacing */
    assert_int_equal(retry, 10 * MS);
    assert_int_equal(get(rl, &w[1], "k", 1, 20, 0, 10 * MS), RL_GRANTED);
    assert_int_equal(get(rl, &w[2], "k", 1, 1, RL_FOREVER, 20 * MS), RL_QUEUED);        /* places */
    done(rl, &w[1], 30 * MS);
    assert_int_equal(w[2].result, RL_GRANTED);
    done(rl, &w[2], 30 * MS);
    assert_int_equal(once(rl, "k", 1, 20, 40 * MS, &retry), RL_LATE);       /* the minute: 41 of 60 are used */
    assert_int_equal(retry, 60 * S);
    assert_int_equal(once(rl, "k", 1, 19, 40 * MS, &retry), RL_LATE);       /* the bucket: 50 - 41 + 4 */
    assert_true(retry < S);
    assert_int_equal(once(rl, "k", 1, 51, 60 * S, NULL), RL_NEVER);
    assert_int_equal(once(rl, "k", 1, 50, 60 * S, NULL), RL_GRANTED);
    done(rl, &w[0], 60 * S);
    /* a pause ended early does not end the spacing */
    assert_int_equal(rl_pause(rl, ASK("k", 1), 100 * S, 61 * S), RL_GRANTED);
    rl_resume(rl, ASK("k", 1), 62 * S);
    assert_int_equal(once(rl, "k", 1, 1, 62 * S + 9 * MS, NULL), RL_LATE);
    assert_int_equal(once(rl, "k", 1, 1, 62 * S + 10 * MS, NULL), RL_GRANTED);
    rl_free(rl);
}

static void test_a_clock_that_jumps(void **state)
{
    struct rl *rl = make();
    struct rl_waiter w, q;
    uint64_t got = 0;

    rule_rate(rl, 1, RL_RATE_BUCKET, 10, S, 10);
    for (int64_t now = 100 * S; now > 90 * S; now -= 10 * MS)       /* backwards: not one more than the burst */
        got += once(rl, "k", 1, 1, now, NULL) == RL_GRANTED;
    assert_in_range(got, 1, 10);
    assert_int_equal(get(rl, &q, "k", 1, 1, 200 * S, 50 * S), RL_QUEUED);
    assert_int_equal(tick(rl, 10 * S), rl_next(rl));
    tick(rl, 101 * S);
    assert_int_equal(q.result, RL_GRANTED);
    done(rl, &q, 100 * S);
    /* far forward, to where 64 bits nearly end, and back */
    assert_int_equal(once(rl, "k", 1, 10, (int64_t)1 << 61, NULL), RL_GRANTED);
    assert_int_equal(once(rl, "k", 1, 1, (int64_t)1 << 61, NULL), RL_LATE);
    assert_int_equal(once(rl, "k", 1, 1, 200 * S, NULL), RL_LATE);
    assert_int_equal(get(rl, &w, "k", 1, 1, 201 * S, 200 * S), RL_LATE);        /* it cannot be in time: said at once */
    /* deadlines in the past, at both ends of time */
    assert_int_equal(get(rl, &w, "l", 1, 1, INT64_MIN, 0), RL_GRANTED);
    done(rl, &w, 0);
    assert_int_equal(get(rl, &w, "l", 1, 10, INT64_MIN, 0), RL_LATE);
    assert_int_equal(get(rl, &w, "m", 1, 10, 0, -5000 * S), RL_GRANTED);
    done(rl, &w, -5000 * S);
    assert_int_equal(get(rl, &w, "m", 1, 1, -5000 * S, -5000 * S), RL_LATE);
    rl_free(rl);
}

/* ---- a day: 86,400 s of a thousand mailboxes under three limits each, waiting and released, in a second or two */

enum { BOXES = 1000, ARRIVALS = 1000000 };

static size_t waited, let_go;
static uint32_t by_day[2][BOXES];
static int64_t sim_now;
static struct rl *day;

static void on_day(struct rl_waiter *w)
{
    if (w->result == RL_GRANTED) {
        let_go++;
        by_day[sim_now >= DAY / 2][w->tenant]++;
        rl_release(day, &w->permit, sim_now);
    }
    w->home = NULL;
}

static void test_a_day_in_seconds(void **state)
{
    enum { WAITERS = 1 << 16 };
    struct rl_rule per_app = { .rate = RL_RATE_BUCKET, .amount = 12, .window_ns = S, .burst = 24 };
    struct rl_rule per_box = { .rate = RL_RATE_WINDOW, .amount = 20, .window_ns = 600 * S, .burst = 5 };
    struct rl_rule per_day = { .calendar_amount = 900, .calendar_ns = DAY };
    struct rl_waiter *all = calloc(WAITERS, sizeof(*all));
    uint64_t x = 88172645463325252u, granted = 0;
    struct rl_stats s;

    assert_non_null(all);
    day = make();
    rl_wall(day, NOON, 0);
    assert_true(rl_rule_set(day, 1, &per_app, 0) && rl_rule_set(day, 2, &per_box, 0));
    assert_true(rl_rule_set(day, 3, &per_day, 0));
    waited = let_go = 0;
    for (int i = 0; i < ARRIVALS; i++) {
        char box[16], quota[16];
        struct rl_waiter *w = &all[i % WAITERS];
        struct rl_ask asks[3] = { ask("app", 1, 1) };
        int64_t next = (int64_t)i * (DAY / ARRIVALS);
        uint32_t b;

        for (int64_t at; (at = rl_next(day)) <= next;) {
            sim_now = at > sim_now ? at : sim_now;
            tick(day, sim_now);
        }
        sim_now = next;
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        b = (uint32_t)(x % BOXES) * (uint32_t)(x >> 32 & 1);        /* half of all want box 0 */
        snprintf(box, sizeof(box), "box%u", b);
        snprintf(quota, sizeof(quota), "day%u", b);
        asks[1] = ask(box, 2, 1);
        asks[2] = ask(quota, 3, 1);
        assert_null(w->home);
        w->wake = on_day;
        w->tenant = b;
        if (rl_acquire(day, w, asks, 3, next + 60 * S, next) == RL_GRANTED) {
            granted++;
            by_day[next >= DAY / 2][b]++;
            rl_release(day, &w->permit, next);
        } else {
            waited += w->result == RL_QUEUED;
        }
    }
    while (rl_next(day) != RL_FOREVER) {
        sim_now = rl_next(day);
        tick(day, sim_now);
    }
    rl_stats(day, &s);
    assert_int_equal(s.waiting, 0);
    assert_int_equal(s.granted, granted + let_go);
    assert_true(waited > 2000 && let_go > 1500);
    for (int i = 1; i < BOXES; i++)
        assert_in_range(by_day[0][i] + by_day[1][i], 200, 1800);
    assert_int_equal(by_day[0][0], 900);        /* the greedy one had what it may have each day, and no more */
    assert_int_equal(by_day[1][0], 900);
    print_message("a day: %d asked, %llu granted, %llu after waiting, %llu refused or timed out\n", ARRIVALS,
                  (unsigned long long)s.granted, (unsigned long long)let_go,
                  (unsigned long long)(s.late + s.timed_out));
    rl_free(day);
    free(all);
}

/* ---- a million waiters on one key: no call is long */

enum { CROWD = 1000000 };

static size_t gone;

static void on_crowd(struct rl_waiter *w)
{
    gone++;
}

static int64_t cpu(void)
{
    struct timespec t;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (int64_t)t.tv_sec * S + t.tv_nsec;
}

static int64_t longest;

static void lap(int64_t *from)
{
    int64_t now = cpu();

    if (now - *from > longest)
        longest = now - *from;
    *from = cpu();
}

static void finish(struct rl *rl, int64_t now, size_t until)
{
    int64_t from = cpu();
    int calls = 0;

    while (gone < until) {
        size_t before = gone;

        rl_tick(rl, now);
        lap(&from);
        assert_true(gone - before <= RL_BATCH && gone > before);
        calls++;
    }
    assert_true(calls >= (int)((until + RL_BATCH - 1) / RL_BATCH) / 2);
}

static void test_a_million_waiters_on_one_key(void **state)
{
    struct rl_config config = { .seed = { 1, 2 }, .waiters_max = CROWD, .waiters_per_key_max = CROWD };
    struct rl_waiter *w = calloc(CROWD, sizeof(*w)), holder;
    struct rl *rl = rl_new(&config);
    struct rl_ask a = ask("k", 1, 1);
    int64_t from;

    assert_non_null(w);
    rule_cap(rl, 1, 1, 0);
    for (int round = 0; round < 3; round++) {
        gone = 0;
        rule_cap(rl, 1, 1, 0);
        assert_int_equal(get(rl, &holder, "k", 1, 1, 0, 0), RL_GRANTED);
        from = cpu();
        for (int i = 0; i < CROWD; i++) {
            w[i].wake = on_crowd;
            assert_int_equal(rl_acquire(rl, &w[i], &a, 1, round == 0 ? 10 : RL_FOREVER, 0), RL_QUEUED);
            lap(&from);
        }
        if (round == 0) {                       /* all time out at one moment */
            finish(rl, 11, CROWD);
        } else if (round == 1) {                /* all leave */
            for (int i = 0; i < CROWD; i++) {
                assert_true(rl_cancel(rl, &w[(size_t)i * 7919 % CROWD], 1));
                lap(&from);
            }
        } else {                                /* all can go at once: a rule without a cap */
            struct rl_rule none = { .rate = RL_RATE_NONE };

            from = cpu();
            assert_true(rl_rule_set(rl, 1, &none, 2));
            lap(&from);
            assert_in_range(gone, 1, RL_BATCH);
            finish(rl, 2, CROWD);
            for (int i = 0; i < CROWD; i++)
                rl_release(rl, &w[i].permit, 3);
        }
        done(rl, &holder, 20);
        assert_int_equal(rl_next(rl), RL_FOREVER);
    }
    print_message("the longest call with a million waiting took %.2f ms of CPU\n", (double)longest / 1e6);
    rl_free(rl);
    free(w);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_day_begins_at_midnight_there),
        cmocka_unit_test(test_a_window_is_not_opened_twice),
        cmocka_unit_test(test_spacing_and_several_dimensions_of_one_key),
        cmocka_unit_test(test_a_clock_that_jumps),
        cmocka_unit_test(test_a_day_in_seconds),
        cmocka_unit_test(test_a_million_waiters_on_one_key),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
