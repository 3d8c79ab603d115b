/*
 * ratelimit_stress_test.c -- the limiter under real threads; meant for ThreadSanitizer as much as for its own checks
 *
 * Four acquirers of three tenants on a handful of keys take, hold, return, cancel and time out, while a fifth thread
 * ticks, pauses, resumes, throttles, observes, sets the wall clock, saves and changes rules.  Time is a counter, so
 * nothing depends on how fast the machine is; nobody sleeps.
 * Checked: in flight never above the largest cap a key ever had, per key and counted outside the library; each queued
 * waiter is told exactly once; everything ends.
 */
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "ratelimit/ratelimit.h"

#define US ((int64_t)1000)

enum { THREADS = 4, KEYS = 12, ROUNDS = 20000, BATCH = 6, RULE_MIXED = 1, RULE_CAP = 2, RULE_RATE = 3, CAP_MAX = 3 };

struct taker {
    struct rl_waiter w;
    _Atomic int woken;
    uint64_t keys;
    int waiting, held;
};

static struct rl *rl;
static _Atomic int64_t now;
static _Atomic int in_flight[KEYS];
static _Atomic int running;
static _Atomic uint64_t granted, wakes, queued, cancelled, broken;

static uint64_t draw(uint64_t *state, uint64_t below)
{
    uint64_t x = *state += 0x9e3779b97f4a7c15;

    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
    x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
    return (x ^ (x >> 31)) % below;
}

static void on_wake(struct rl_waiter *w)
{
    struct taker *t = (struct taker *)w;

    atomic_fetch_add(&wakes, 1);
    if (atomic_exchange(&t->woken, 1))
        atomic_fetch_add(&broken, 1);
}

/* keys 0..3 have a cap and a rate, 4..7 a cap, 8.. a rate */
static uint16_t rule_of(int key)
{
    return key < 4 ? RULE_MIXED : key < 8 ? RULE_CAP : RULE_RATE;
}

static void count(struct taker *t, int by)
{
    for (int k = 0; k < KEYS; k++) {
        if (!(t->keys >> k & 1))
            continue;
        if (atomic_fetch_add(&in_flight[k], by) + by > CAP_MAX && k < 8)
            atomic_fetch_add(&broken, 1);
    }
}

static void hold(struct taker *t)
{
    t->held = 1;
    count(t, 1);
    atomic_fetch_add(&granted, 1);
}

/* Odd keys are composed from one scope, and all threads share where they were found. */
static struct rl_ask ask_of(int key, const char *name)
{
    static uint32_t places[KEYS];
    struct rl_ask a = { .key = name, .key_len = (uint16_t)strlen(name), .rule = rule_of(key) };

    if (key % 2) {
        a.id = rl_id_nth(rl_id_of(rl, "scope", 5), (uint16_t)key);
        a.place = &places[key];
    }
    return a;
}

static void ask(struct taker *t, uint64_t *state)
{
    struct rl_ask asks[RL_ASKS_MAX];
    char names[RL_ASKS_MAX][8];
    int64_t at = atomic_load(&now), patience = (int64_t)draw(state, 4);
    enum rl_result r;
    size_t n = 0;

    t->keys = 0;
    while (n < 1 + draw(state, 3)) {
        int k = (int)draw(state, KEYS);

        if (t->keys >> k & 1)
            continue;
        t->keys |= (uint64_t)1 << k;
        snprintf(names[n], sizeof(names[n]), "key%d", k);
        asks[n] = ask_of(k, names[n]);
        asks[n].cost = 1;
        n++;
    }
    t->w.wake = on_wake;
    t->w.tenant = draw(state, 3);
    t->w.agent = draw(state, 3);
    t->w.tenant_weight = (uint16_t)(1 + t->w.tenant);
    atomic_store(&t->woken, 0);
    r = rl_acquire(rl, &t->w, asks, n, patience ? at + patience * patience * 100 * US : RL_FOREVER, at);
    if (r == RL_GRANTED) {
        hold(t);
    } else if (r == RL_QUEUED) {
        t->waiting = 1;
        atomic_fetch_add(&queued, 1);
    } else if (r != RL_LATE) {
        atomic_fetch_add(&broken, 1);
    }
}

static void look(struct taker *t)
{
    if (!atomic_load(&t->woken))
        return;
    t->waiting = 0;
    if (t->w.result == RL_GRANTED)
        hold(t);
    else if (t->w.result != RL_TIMED_OUT && t->w.result != RL_LATE)
        atomic_fetch_add(&broken, 1);
}

static void give_up(struct taker *t)
{
    if (rl_cancel(rl, &t->w, atomic_load(&now))) {
        t->waiting = 0;
        atomic_fetch_add(&cancelled, 1);
        return;
    }
    while (!atomic_load(&t->woken))     /* decided: the other thread is about to say so */
        sched_yield();
    look(t);
}

static void put_back(struct taker *t, uint64_t *state)
{
    t->held = 0;
    count(t, -1);
    if (draw(state, 10))
        rl_release(rl, &t->w.permit, atomic_load(&now));
    else
        rl_return(rl, &t->w.permit, atomic_load(&now));
}

static void *acquirer(void *arg)
{
    uint64_t state = (uint64_t)(uintptr_t)arg;
    struct taker *takers = calloc(BATCH, sizeof(*takers));
    int left = 0, asked = 0;

    if (!takers)
        abort();
    while (asked < ROUNDS || left > 0) {
        struct taker *t = &takers[draw(&state, BATCH)];

        if (t->waiting) {
            look(t);
            if (t->waiting && draw(&state, 50) == 0)
                give_up(t);
            if (!t->waiting && !t->held)
                left--;
        } else if (t->held) {
            put_back(t, &state);
            left--;
        } else if (asked < ROUNDS) {
            asked++;
            atomic_fetch_add(&now, (int64_t)draw(&state, 10) * US);
            ask(t, &state);
            left += t->waiting || t->held;
        }
        if (t->waiting || draw(&state, 8) == 0)
            sched_yield();
    }
    free(takers);
    atomic_fetch_sub(&running, 1);
    return NULL;
}

static void set_rules(uint64_t *state)
{
    struct rl_rule mixed = { .rate = RL_RATE_BUCKET, .amount = 20 + draw(state, 20), .window_ns = 1000 * US,
                             .concurrency = 1 + (uint32_t)draw(state, CAP_MAX) };
    struct rl_rule cap = { .concurrency = 1 + (uint32_t)draw(state, CAP_MAX) };
    struct rl_rule rate = { .rate = RL_RATE_WINDOW, .amount = 10 + draw(state, 30), .window_ns = 500 * US, .burst = 4 };

    if (!rl_rule_set(rl, RULE_MIXED, &mixed, atomic_load(&now)) || !rl_rule_set(rl, RULE_CAP, &cap, atomic_load(&now))
        || !rl_rule_set(rl, RULE_RATE, &rate, atomic_load(&now)))
        atomic_fetch_add(&broken, 1);
}

static bool add_up(void *arg, const struct rl_key_stats *s)
{
    *(uint64_t *)arg += s->waiting + s->in_flight;
    return true;
}

static bool write_nowhere(void *arg, const void *p, size_t n)
{
    return arg == NULL && p && n;
}

static void tend(void)
{
    uint64_t state = 99, seen = 0;

    while (atomic_load(&running) > 0) {
        struct rl_ask a;
        char name[8];

        atomic_fetch_add(&now, (int64_t)draw(&state, 40) * US);
        if (rl_next(rl) <= atomic_load(&now))
            rl_tick(rl, atomic_load(&now));
        snprintf(name, sizeof(name), "key%d", (int)draw(&state, KEYS));
        a = ask_of(atoi(name + 3), name);
        if (draw(&state, 100) == 0)
            rl_pause(rl, &a, atomic_load(&now) + 500 * US, atomic_load(&now));
        if (draw(&state, 200) == 0)
            rl_resume(rl, &a, atomic_load(&now));
        if (draw(&state, 300) == 0)
            set_rules(&state);
        if (draw(&state, 100) == 0)
            rl_throttled(rl, &a, atomic_load(&now) - 50 * US, draw(&state, 2) ? atomic_load(&now) + 100 * US : 0,
                         atomic_load(&now));
        if (draw(&state, 100) == 0)
            rl_observe(rl, &a, &(struct rl_heard){ RL_UNKNOWN, draw(&state, 4), atomic_load(&now) + 200 * US },
                       atomic_load(&now));
        if (draw(&state, 300) == 0)
            rl_wall(rl, 1700000000000000000 + (int64_t)draw(&state, 10) * 3600000000000, atomic_load(&now));
        if (draw(&state, 1000) == 0)
            rl_save(rl, write_nowhere, NULL, atomic_load(&now));
        if (draw(&state, 300) == 0)
            rl_visit(rl, false, atomic_load(&now), add_up, &seen);
        sched_yield();
    }
}

static void test_threads(void **state)
{
    struct rl_config config = { .seed = { 5, 6 } };
    pthread_t threads[THREADS];
    struct rl_stats s;
    uint64_t rules = 1, left = 0;

    rl = rl_new(&config);
    assert_non_null(rl);
    set_rules(&rules);
    atomic_store(&running, THREADS);
    for (uintptr_t i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, acquirer, (void *)(i + 1)), 0);
    tend();
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    rl_stats(rl, &s);
    rl_visit(rl, true, atomic_load(&now), add_up, &left);
    assert_int_equal(atomic_load(&broken), 0);
    assert_int_equal(left, 0);
    assert_int_equal(s.waiting, 0);
    assert_int_equal(s.granted, atomic_load(&granted));
    assert_int_equal(s.cancelled, atomic_load(&cancelled));
    assert_int_equal(atomic_load(&queued), atomic_load(&wakes) + atomic_load(&cancelled));
    assert_true(atomic_load(&wakes) > 100);     /* it was contended, or this shows nothing */
    print_message("%llu granted, %llu of %llu queued were cancelled, %llu timed out\n", (unsigned long long)s.granted,
                  (unsigned long long)s.cancelled, (unsigned long long)s.queued, (unsigned long long)s.timed_out);
    rl_free(rl);
}

/* Two threads, each the other's waker: every permit is handed over through a queue, so one lost wake-up hangs both (and
   the test's time limit says so). */
static void *pass_on(void *arg)
{
    struct rl_ask a = { "ball", 4, RULE_CAP, 1 };
    struct taker *t = calloc(1, sizeof(*t));

    if (!t)
        abort();
    t->w.wake = on_wake;
    for (int i = 0; i < ROUNDS; i++) {
        atomic_store(&t->woken, 0);
        if (rl_acquire(rl, &t->w, &a, 1, RL_FOREVER, 0) == RL_QUEUED)
            while (!atomic_load(&t->woken))
                sched_yield();
        if (atomic_fetch_add(&in_flight[0], 1) != 0)
            atomic_fetch_add(&broken, 1);
        sched_yield();
        atomic_fetch_sub(&in_flight[0], 1);
        rl_release(rl, &t->w.permit, 0);
    }
    free(t);
    return NULL;
}

static void test_hand_over(void **state)
{
    struct rl_config config = { .seed = { 7, 8 } };
    struct rl_rule one = { .concurrency = 1 };
    pthread_t threads[THREADS];

    rl = rl_new(&config);
    assert_non_null(rl);
    assert_true(rl_rule_set(rl, RULE_CAP, &one, 0));
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, pass_on, NULL), 0);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(atomic_load(&broken), 0);
    rl_free(rl);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_hand_over),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
