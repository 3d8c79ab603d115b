/* call_breaker_test.c -- circuits open, are probed and close; repeats stay within a tenth */
#include "base_test.h"

#include "base/clock.h"
#include "base/map.h"
#include "call/breaker.h"

#define MS NS_PER_MS

#define OF(t, p)    ((struct breaker_of){ str_of(t), hash_bytes(t, strlen(t)), p })

enum { LEAST = 10 };

static struct breakers *b;
static ns_t now;

static int setup(void **state)
{
    (void)state;
    b = breakers_new(LEAST, 10);
    now = 1000 * NS_PER_S;
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    breakers_free(b);
    return 0;
}

/* One exchange of tenant `t`: -1 refused, else whether it opened the circuit. */
static int once(const char *t, enum breaker_health health)
{
    struct breaker_pass pass;
    ns_t at;

    if (!breaker_enter(b, &OF(t, 7), true, now, &pass, &at)) {
        assert_true(at > now);
        return -1;
    }
    return breaker_leave(b, &pass, health, now);
}

static void fail_until_open(void)
{
    for (int i = 0; i < LEAST - 1; i++)
        assert_int_equal(once("acme", BREAKER_ILL), 0);
    assert_int_equal(once("acme", BREAKER_ILL), 1);
    assert_int_equal(breakers_open(b), 1);
}

static void test_half_of_enough_failing_opens_it(void **state)
{
    (void)state;
    for (int i = 0; i < 100; i++) {
        assert_int_equal(once("acme", BREAKER_WELL), 0);
        now += 10 * MS;
    }
    for (int i = 0; i < 99; i++)
        assert_int_equal(once("acme", BREAKER_ILL), 0);
    assert_int_equal(once("acme", BREAKER_ILL), 1);
    assert_int_equal(once("acme", BREAKER_WELL), -1);
    assert_int_equal(once("other", BREAKER_WELL), 0);          /* nobody else is stopped */
}

static void test_old_failures_are_forgotten(void **state)
{
    (void)state;
    for (int i = 0; i < LEAST - 1; i++)
        assert_int_equal(once("acme", BREAKER_ILL), 0);
    now += 20 * NS_PER_S;
    assert_int_equal(once("acme", BREAKER_ILL), 0);
    for (int i = 0; i < 100; i++)
        assert_int_equal(once("acme", BREAKER_NOTHING), 0);    /* says nothing of the provider */
}

static void test_one_probe_at_a_time_and_three_close_it(void **state)
{
    struct breaker_pass pass, second;
    ns_t at;

    (void)state;
    fail_until_open();
    now += 999 * MS;
    assert_int_equal(once("acme", BREAKER_WELL), -1);
    now += MS;
    assert_true(breaker_enter(b, &OF("acme", 7), true, now, &pass, &at));
    assert_true(pass.probe);
    assert_false(breaker_enter(b, &OF("acme", 7), true, now, &second, &at));
    assert_false(breaker_leave(b, &second, BREAKER_ILL, now));         /* refused: there is nothing to leave */
    breaker_leave(b, &pass, BREAKER_WELL, now);
    assert_int_equal(once("acme", BREAKER_WELL), 0);
    assert_int_equal(breakers_open(b), 1);
    assert_int_equal(once("acme", BREAKER_WELL), 0);
    assert_int_equal(breakers_open(b), 0);
    for (int i = 0; i < LEAST - 1; i++)                /* it begins anew */
        assert_int_equal(once("acme", BREAKER_ILL), 0);
}

static void test_a_failing_probe_waits_twice_as_long(void **state)
{
    ns_t wait = NS_PER_S;

    (void)state;
    fail_until_open();
    for (int i = 0; i < 10; i++) {
        now += wait - 1;
        assert_int_equal(once("acme", BREAKER_ILL), -1);
        now += 1;
        assert_int_equal(once("acme", BREAKER_ILL), 1);
        wait = wait * 2 > 60 * NS_PER_S ? 60 * NS_PER_S : wait * 2;
    }
}

static void test_a_probe_that_is_lost_or_says_nothing_does_not_block(void **state)
{
    struct breaker_pass pass;
    ns_t at;

    (void)state;
    fail_until_open();
    now += NS_PER_S;
    assert_true(breaker_enter(b, &OF("acme", 7), true, now, &pass, &at));      /* and never comes back */
    now += 59 * NS_PER_S;
    assert_int_equal(once("acme", BREAKER_WELL), -1);
    now += NS_PER_S;
    assert_int_equal(once("acme", BREAKER_NOTHING), 0);
    assert_int_equal(once("acme", BREAKER_WELL), 0);
}

static void test_repeats_are_a_tenth(void **state)
{
    unsigned repeats = 0;

    (void)state;
    for (int i = 0; i < 10000; i++) {
        once("acme", BREAKER_WELL);
        while (breaker_retry(b, &OF("acme", 7)))
            repeats++;
    }
    assert_in_range(repeats, 1000, 1000 + RETRY_RESERVE);
    assert_false(breaker_retry(b, &OF("acme", 7)));
    assert_true(breaker_retry(b, &OF("unknown", 7)));
}

static void many_tenants(void)
{
    char name[32];

    for (int i = 0; i < 3 * BREAKERS_MAX; i++) {
        snprintf(name, sizeof(name), "t%d", i);
        assert_int_equal(once(name, BREAKER_ILL), 0);
        now += 10 * MS;
    }
}

static void test_tenants_without_end_are_bounded(void **state)
{
    struct breaker_pass pass;

    (void)state;
    many_tenants();
    assert_int_equal(breakers_open(b), 0);
    assert_true(breaker_enter(NULL, &OF("t", 1), true, now, &pass, &(ns_t){ 0 }));
    assert_false(breaker_leave(NULL, &pass, BREAKER_ILL, now));
}

/* Each provider of a tenant has a circuit of its own, which is forgotten by itself. */
static void test_providers_are_apart(void **state)
{
    struct breaker_pass passes[3];
    ns_t at;

    (void)state;
    fail_until_open();
    for (unsigned i = 0; i < 3; i++)
        assert_true(breaker_enter(b, &OF("acme", 8 + i), true, now, &passes[i], &at));
    assert_false(breaker_leave(b, &passes[0], BREAKER_WELL, now));
    assert_false(breaker_leave(b, &passes[2], BREAKER_WELL, now));
    assert_int_equal(once("acme", BREAKER_WELL), -1);
    many_tenants();
    assert_int_equal(breakers_open(b), 1);
    assert_false(breaker_leave(b, &passes[1], BREAKER_WELL, now));
    for (unsigned i = 0; i < 3; i++) {
        assert_true(breaker_enter(b, &OF("acme", 8 + i), true, now, &passes[i], &at));
        assert_false(breaker_leave(b, &passes[i], BREAKER_WELL, now));
    }
    many_tenants();                             /* but for the open one all of them go */
    assert_int_equal(once("acme", BREAKER_WELL), 0);
}

static void test_who_is_under_way_is_not_forgotten(void **state)
{
    struct breaker_pass passes[LEAST];
    ns_t at;

    (void)state;
    for (int i = 0; i < LEAST - 1; i++)
        assert_true(breaker_enter(b, &OF("slow", 7), true, now, &passes[i], &at));
    breaker_pass(b, &OF("slow", 7), &passes[LEAST - 1]);        /* whatever it says: it counts, too */
    many_tenants();
    for (int i = 0; i < LEAST - 1; i++)
        assert_false(breaker_leave(b, &passes[i], BREAKER_ILL, now));
    assert_true(breaker_leave(b, &passes[LEAST - 1], BREAKER_ILL, now));
    assert_int_equal(breakers_open(b), 1);
    breaker_pass(b, &OF("unknown", 7), &passes[0]);
    assert_false(breaker_leave(b, &passes[0], BREAKER_ILL, now));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_half_of_enough_failing_opens_it, setup, teardown),
        cmocka_unit_test_setup_teardown(test_old_failures_are_forgotten, setup, teardown),
        cmocka_unit_test_setup_teardown(test_one_probe_at_a_time_and_three_close_it, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_failing_probe_waits_twice_as_long, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_probe_that_is_lost_or_says_nothing_does_not_block, setup, teardown),
        cmocka_unit_test_setup_teardown(test_repeats_are_a_tenth, setup, teardown),
        cmocka_unit_test_setup_teardown(test_tenants_without_end_are_bounded, setup, teardown),
        cmocka_unit_test_setup_teardown(test_providers_are_apart, setup, teardown),
        cmocka_unit_test_setup_teardown(test_who_is_under_way_is_not_forgotten, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
