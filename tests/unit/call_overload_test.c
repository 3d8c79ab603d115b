/* call_overload_test.c -- who is put off when, and that a burst is nobody's overload */
#include "base_test.h"

#include "call/overload.h"

#define MS NS_PER_MS

enum { DELAY_MS = 100, FLOOD = 7, SMALL = 8 };

static struct overload o;
static ns_t now;

static int setup(void **state)
{
    (void)state;
    now = 1000 * NS_PER_S;
    o = (struct overload){ .delay = DELAY_MS * MS, .looked = now };
    return 0;
}

static bool reached(uint64_t tenant, bool dear, int64_t lag_ms)
{
    return overload_admits(&o, tenant, dear, lag_ms * MS, now);
}

/* Requests each millisecond for so long, with such a line. How many were put off. */
static unsigned line_of(int64_t lag_ms, int64_t for_ms, bool dear)
{
    unsigned off = 0;

    for (int64_t i = 0; i < for_ms; i++, now += MS)
        off += !reached(FLOOD, dear, lag_ms);
    return off;
}

static void test_a_short_line_is_none(void **state)
{
    (void)state;
    assert_int_equal(line_of(DELAY_MS, 60000, true), 0);
    assert_int_equal(o.pressure, 0);
}

static void test_a_burst_is_worked_through(void **state)
{
    (void)state;
    for (int i = 0; i < 20; i++) {
        assert_int_equal(line_of(900, 900, true), 0);
        now += 4 * NS_PER_S;                        /* idle, four times as long */
        assert_int_equal(line_of(0, 1, false), 0);
        assert_int_equal(o.pressure, 0);
    }
}

static void test_what_lasts_is_overload(void **state)
{
    (void)state;
    assert_int_equal(line_of(2 * DELAY_MS, 1000, false), 0);
    assert_int_equal(line_of(2 * DELAY_MS, 1000, false), 1000);
    assert_int_equal(line_of(DELAY_MS * 3 / 2, 1000, false), 500);  /* half of what is half too much */
    assert_int_equal(line_of(DELAY_MS, 100, false), 0);             /* the line is short enough again */
    assert_int_equal(line_of(DELAY_MS, 100, true), 100);            /* ... for what is cheap */
    assert_int_equal(line_of(DELAY_MS / 2, 100, true), 0);
    assert_int_equal(line_of(0, 4 * 1100, true), 0);                /* well again, and patient again */
    assert_false(o.overloaded);
    assert_int_equal(line_of(2 * DELAY_MS, 900, true), 0);
}

/* A request each second that waited too long: what was between them nobody saw. */
static void test_idle_time_is_no_pressure(void **state)
{
    (void)state;
    for (int i = 0; i < 9; i++, now += NS_PER_S)
        assert_true(reached(FLOOD, false, DELAY_MS + 1));
    assert_false(o.overloaded);
}

static void test_a_flood_is_refused_to_its_tenant_first(void **state)
{
    unsigned small_off = 0, flood_off = 0;

    (void)state;
    for (int64_t i = 0; i < 4000; i++, now += MS) {
        flood_off += !reached(FLOOD, false, 2 * DELAY_MS);
        if (i % 20 == 0)
            small_off += !reached(SMALL, false, 2 * DELAY_MS);
    }
    assert_in_range(flood_off, 2990, 3000);
    assert_int_equal(small_off, 0);
    assert_false(reached(SMALL, false, 4 * DELAY_MS));              /* twice the time, and no more */
    assert_true(reached(SMALL, true, DELAY_MS));
}

/* Two that ask for as much are both put off. */
static void test_equal_shares(void **state)
{
    unsigned off = 0;

    (void)state;
    for (int64_t i = 0; i < 4000; i++, now += MS)
        off += !reached(FLOOD, false, 2 * DELAY_MS) + !reached(SMALL, false, 2 * DELAY_MS);
    assert_in_range(off, 5990, 6000);
}

static void test_they_do_not_come_back_together(void **state)
{
    unsigned tenths[10] = { 0 };

    (void)state;
    line_of(0, 1, false);
    for (int i = 0; i < 1000; i++)
        tenths[(overload_retry(&o) - o.retry / 2) * 10 / o.retry]++;
    for (int i = 0; i < 10; i++)
        assert_in_range(tenths[i], 90, 110);
}

/* The more must be put off, the later they come back; and sooner again. */
static void test_they_come_back_the_later_the_more_there_are(void **state)
{
    (void)state;
    line_of(0, 1100, false);
    assert_int_equal(o.retry, OVERLOAD_RETRY_MIN);
    line_of(2 * DELAY_MS, 2500, false);
    assert_in_range(o.retry, 3 * OVERLOAD_RETRY_MIN, 9 * OVERLOAD_RETRY_MIN);
    line_of(2 * DELAY_MS, 20000, false);
    assert_int_equal(o.retry, OVERLOAD_RETRY_MAX);
    line_of(DELAY_MS * 6 / 5, 5000, false);                         /* a fifth is put off: it stays */
    assert_in_range(o.retry, OVERLOAD_RETRY_MAX * 2 / 3, OVERLOAD_RETRY_MAX);
    line_of(0, 20000, false);
    assert_int_equal(o.retry, OVERLOAD_RETRY_MIN);
}

static void test_switched_off(void **state)
{
    (void)state;
    o.delay = 0;
    assert_int_equal(line_of(10000, 10000, true), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_a_short_line_is_none, setup),
        cmocka_unit_test_setup(test_a_burst_is_worked_through, setup),
        cmocka_unit_test_setup(test_what_lasts_is_overload, setup),
        cmocka_unit_test_setup(test_idle_time_is_no_pressure, setup),
        cmocka_unit_test_setup(test_a_flood_is_refused_to_its_tenant_first, setup),
        cmocka_unit_test_setup(test_equal_shares, setup),
        cmocka_unit_test_setup(test_they_do_not_come_back_together, setup),
        cmocka_unit_test_setup(test_they_come_back_the_later_the_more_there_are, setup),
        cmocka_unit_test_setup(test_switched_off, setup),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
