/*
 * ratelimit_test.h -- what the limiter's tests on virtual time share: a limiter, rules in one line, asking in one line
 */
#ifndef RATELIMIT_TEST_H
#define RATELIMIT_TEST_H

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "ratelimit/internal.h"

#define MS ((int64_t)1000000)
#define S  ((int64_t)1000000000)

static struct rl_waiter *woken[64] __attribute__((unused));
static size_t nwoken __attribute__((unused));

static inline void on_wake(struct rl_waiter *w)
{
    assert_true(nwoken < 64);
    woken[nwoken++] = w;
}

static int64_t alarm_at = RL_FOREVER;

static inline void on_alarm(void *arg, int64_t at)
{
    assert_ptr_equal(arg, &alarm_at);
    assert_true(at < alarm_at);
    alarm_at = at;
}

static inline int64_t tick(struct rl *rl, int64_t now)
{
    return alarm_at = rl_tick(rl, now);
}

static inline struct rl *make(void)
{
    struct rl_config config = { .seed = { 1, 2 }, .alarm = on_alarm, .alarm_arg = &alarm_at };
    struct rl *rl = rl_new(&config);

    assert_non_null(rl);
    nwoken = 0;
    alarm_at = RL_FOREVER;
    return rl;
}

static inline void rule_rate(struct rl *rl, uint16_t id, enum rl_rate kind, uint64_t amount, int64_t window,
                             uint64_t burst)
{
    struct rl_rule r = { .rate = kind, .amount = amount, .window_ns = window, .burst = burst };

    assert_true(rl_rule_set(rl, id, &r, 0));
}

static inline void rule_cap(struct rl *rl, uint16_t id, uint32_t cap, int64_t now)
{
    struct rl_rule r = { .concurrency = cap };

    assert_true(rl_rule_set(rl, id, &r, now));
}

static inline struct rl_ask ask(const char *key, uint16_t rule, uint32_t cost)
{
    return (struct rl_ask){ key, (uint16_t)strlen(key), rule, cost };
}

#define ASK(key, rule) (&(struct rl_ask){ key, (uint16_t)strlen(key), rule, 0, { 0, 0 } })

static inline enum rl_result get(struct rl *rl, struct rl_waiter *w, const char *key, uint16_t rule, uint32_t cost,
                          int64_t deadline, int64_t now)
{
    struct rl_ask a = ask(key, rule, cost);

    memset(w, 0x5a, sizeof(*w));
    w->wake = on_wake;
    w->tenant = w->agent = 0;
    w->tenant_weight = w->agent_weight = 0;
    return rl_acquire(rl, w, &a, 1, deadline, now);
}

static inline enum rl_result get2(struct rl *rl, struct rl_waiter *w, struct rl_ask a, struct rl_ask b,
                                  int64_t deadline, int64_t now)
{
    struct rl_ask both[] = { a, b };

    memset(w, 0x5a, sizeof(*w));
    w->wake = on_wake;
    w->tenant = w->agent = 0;
    w->tenant_weight = w->agent_weight = 0;
    return rl_acquire(rl, w, both, 2, deadline, now);
}

static inline void done(struct rl *rl, struct rl_waiter *w, int64_t now)
{
    assert_int_equal(w->result, RL_GRANTED);
    rl_release(rl, &w->permit, now);
}

static inline uint64_t available(struct rl *rl, const char *key, int64_t now)
{
    struct rl_key_stats s;

    assert_true(rl_key_stats(rl, ASK(key, 1), now, &s));
    return s.available;
}

#endif
