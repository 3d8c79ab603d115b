/*
 * loop_timer_test.c -- the wheel: what fires, what does not, and what comes next
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "loop/internal.h"

static void run(void (*start)(void *), void *arg)
{
    static const struct loop_options opt = { 0 };
    struct loop *l;

    assert_int_equal(loop_create(&opt, &l, NULL), OK);
    loop_run(l, start, arg);
    loop_destroy(l);
}

static struct timer timers[3000];
static int fired;

static void timer_fired(struct timer *t)
{
    assert_true(loop_now() >= t->at);
    assert_true(loop_now() < t->at + 2 * NS_PER_S);
    assert_false(timer_is_set(t));
    /* clears its neighbour, which may be due in the same turn: it must then not fire */
    if ((t - timers) % 3 == 0)
        timer_clear(t + 1);
    if (++fired == 2000)
        loop_stop(loop_self());
}

static void start_timers(void *arg)
{
    for (int i = 0; i < 3000; i++)
        timer_set(&timers[i], loop_now() + (ns_t)(i / 3 % 40) * NS_PER_MS + 1 + (i % 3 == 1 ? 300 * NS_PER_MS : 0),
                  timer_fired);
}

static void cleared_timers_do_not_fire(void **state)
{
    run(start_timers, NULL);
    assert_int_equal(fired, 2000);
}

/* What the loop sleeps until is the least of what is set, wherever in the wheel that lies. */
static void next_of_timers(void *arg)
{
    static struct timer some[8];
    const struct wheel *w = &loop_self()->wheel;
    unsigned dice = 1;

    assert_true(wheel_next(w) == NS_NEVER);
    for (int round = 0; round < 20000; round++) {
        struct timer *t = &some[round % ARRAY_LEN(some)];
        ns_t least = NS_NEVER;

        dice = dice * 1103515245 + 12345;
        if (dice >> 30)
            timer_set(t, (w->tick + 1 + dice / 7 % (WHEEL_SLOTS - 1)) * NS_PER_MS, timer_fired);
        else
            timer_clear(t);
        for (size_t i = 0; i < ARRAY_LEN(some); i++)
            if (timer_is_set(&some[i]) && some[i].at < least)
                least = some[i].at;
        assert_true(wheel_next(w) == least);
    }
    for (size_t i = 0; i < ARRAY_LEN(some); i++)
        timer_clear(&some[i]);
    assert_true(wheel_next(w) == NS_NEVER);
    loop_stop(loop_self());
}

static void the_next_timer_is_found(void **state)
{
    run(next_of_timers, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cleared_timers_do_not_fire),
        cmocka_unit_test(the_next_timer_is_found),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
