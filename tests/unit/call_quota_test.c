/* call_quota_test.c -- moments in five encodings, quotas in three shapes, and what is none of them */
#include "base_test.h"

#include "call/quota.h"

#define NOW 1795186800000LL             /* 2026-11-20T15:00:00Z */

static int64_t wait_of(const char *value)
{
    return quota_wait_ms(str_of(value), NOW);
}

static void test_a_moment_in_each_encoding(void **state)
{
    (void)state;
    assert_int_equal(wait_of("0"), 0);
    assert_int_equal(wait_of("30"), 30000);
    assert_int_equal(wait_of(" 30 "), 30000);
    assert_int_equal(wait_of("1.5"), 2000);
    assert_int_equal(wait_of("1795186860"), 60000);                     /* seconds since 1970 */
    assert_int_equal(wait_of("1795186860000"), 60000);                  /* milliseconds */
    assert_int_equal(wait_of("1795186860250"), 60250);
    assert_int_equal(wait_of("2026-11-20T15:01:00Z"), 60000);
    assert_int_equal(wait_of("2026-11-20T15:01Z"), 60000);
    assert_int_equal(wait_of("2026-11-20T16:01:00.500+01:00"), 60500);
    assert_int_equal(wait_of("Fri, 20 Nov 2026 15:01:00 GMT"), 60000);
    assert_int_equal(wait_of("Friday, 20-Nov-26 15:01:00 GMT"), 60000);
    assert_int_equal(wait_of("Fri Nov 20 15:01:00 2026"), 60000);
}

static void test_the_past_is_now_and_absurd_waits_are_cut(void **state)
{
    (void)state;
    assert_int_equal(wait_of("1795186740"), 0);
    assert_int_equal(wait_of("Sun Nov  6 08:49:37 1994"), 0);
    assert_int_equal(wait_of("Sunday, 06-Nov-94 08:49:37 GMT"), 0);
    assert_int_equal(wait_of("1970-01-01T00:00:00Z"), 0);
    assert_int_equal(wait_of("99999999"), QUOTA_WAIT_MS_MAX);
    assert_int_equal(wait_of("9999-12-31T23:59:59Z"), QUOTA_WAIT_MS_MAX);
    assert_int_equal(wait_of("18446744073709551615"), QUOTA_WAIT_MS_MAX);
}

static void test_what_is_no_moment(void **state)
{
    static const char *const bad[] = {
        "", " ", "-1", "soon", "1 minute", "1.", "1.x", "0x10", "1e3", "18446744073709551616",
        "2026-13-20T15:01:00Z", "2026-11-31T15:01:00Z", "2026-11-20", "Fri, 20 Nov 2026 15:01:00",
        "Fri, 32 Nov 2026 15:01:00 GMT", "Fri, 20 Foo 2026 15:01:00 GMT", "Fri, 20 Nov 2026 25:01:00 GMT",
        "Fri, 20 Nov 2026 15.01.00 GMT", "Fri,", "Fri Nov 20 15:01:00", ",", "Fri, 20 Nov 20x6 15:01:00 GMT",
    };

    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        if (wait_of(bad[i]) != -1)
            fail_msg("\"%s\" was read as %lld", bad[i], (long long)wait_of(bad[i]));
}

/* ---- quotas ------------------------------------------------------------------------------------------------------ */

struct fields {
    const char *names[4], *values[4];
};

static const char *field(void *arg, const char *name)
{
    const struct fields *f = arg;

    for (int i = 0; i < 4 && f->names[i]; i++)
        if (str_ieq(str_of(f->names[i]), str_of(name)))
            return f->values[i];
    return NULL;
}

static void expect(const char *told, struct fields f, int64_t limit, int64_t remaining, int64_t reset_ms)
{
    struct quota_seen q;

    assert_int_equal(quota_read(told, field, &f, NOW, &q), limit >= 0 || remaining >= 0);
    assert_int_equal(q.limit, limit);
    assert_int_equal(q.remaining, remaining);
    assert_int_equal(q.reset_ms, reset_ms);
}

static void test_fields_with_a_prefix(void **state)
{
    (void)state;
    expect("X-RateLimit", (struct fields){ { "x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset" },
                                           { "5000", "4999", "1795190400" } }, 5000, 4999, 3600000);
    expect("X-RateLimit-Requests", (struct fields){ { "X-RateLimit-Requests-Remaining", "X-RateLimit-Requests-Reset" },
                                                    { "0", "1795186800500" } }, -1, 0, 500);
    expect("X-Rate-Limit", (struct fields){ { "X-Rate-Limit", "X-Rate-Limit-Remaining" }, { "700", "699" } },
           700, 699, -1);
    expect("X-HubSpot-RateLimit", (struct fields){ { "X-HubSpot-RateLimit-Max", "X-HubSpot-RateLimit-Remaining" },
                                                   { "110", "3" } }, 110, 3, -1);
    expect("RateLimit", (struct fields){ { "RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset" },
                                         { "100, 100;w=60", "12.9", "7" } }, 100, 12, 7000);
    expect("X-RateLimit", (struct fields){ { "X-RateLimit-Limit", "X-RateLimit-Remaining" }, { "many", "-3" } },
           -1, -1, -1);
    expect("X-RateLimit", (struct fields){ { "X-RateLimit-Remaining" }, { "99999999999999" } }, -1, 1LL << 40, -1);
    expect("X-RateLimit", (struct fields){ { "Content-Type" }, { "text/plain" } }, -1, -1, -1);
}

static void test_items_of_a_list(void **state)
{
    (void)state;
    expect("Beta-RateLimit;global-app-quota",
           (struct fields){ { "Beta-RateLimit" }, { "\"other\";r=1;t=1, \"global-app-quota\";r=11000;t=600" } },
           -1, 11000, 600000);
    expect("Beta-RateLimit;global-app-quota", (struct fields){ { "Beta-RateLimit" }, { "\"global-app-quota\";t=600" } },
           -1, -1, 600000);
    expect("Beta-RateLimit;global-app-quota", (struct fields){ { "Beta-RateLimit" }, { "\"another\";r=1" } },
           -1, -1, -1);
    expect("Zendesk-RateLimit-tickets;",
           (struct fields){ { "Zendesk-RateLimit-tickets" }, { "total=100; remaining=99; resets=60" } },
           100, 99, 60000);
    expect("Beta-RateLimit;a", (struct fields){ { "Beta-RateLimit" }, { ";;,\"a\";r;r=;=5;r=4," } }, -1, 4, -1);
}

static void test_used_of_total(void **state)
{
    (void)state;
    expect("Sforce-Limit-Info=api-usage", (struct fields){ { "Sforce-Limit-Info" }, { "api-usage=18/5000" } },
           5000, 4982, -1);
    expect("Sforce-Limit-Info=api-usage",
           (struct fields){ { "Sforce-Limit-Info" }, { "per-app-api-usage=17/250(appName=x), api-usage=5001/5000" } },
           5000, 0, -1);
    expect("Sforce-Limit-Info=api-usage", (struct fields){ { "Sforce-Limit-Info" }, { "api-usage=18" } }, -1, -1, -1);
}

static void test_the_providers_clock_is_its_own(void **state)
{
    struct fields f = { { "Date" }, { "Fri, 20 Nov 2026 14:00:00 GMT" } }, none = { { "Date" }, { "today" } };

    (void)state;
    assert_int_equal(quota_clock(field, &f, NOW), NOW - 3600000);
    assert_int_equal(quota_clock(field, &none, NOW), NOW);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_moment_in_each_encoding),
        cmocka_unit_test(test_the_past_is_now_and_absurd_waits_are_cut),
        cmocka_unit_test(test_what_is_no_moment),
        cmocka_unit_test(test_fields_with_a_prefix),
        cmocka_unit_test(test_items_of_a_list),
        cmocka_unit_test(test_used_of_total),
        cmocka_unit_test(test_the_providers_clock_is_its_own),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
