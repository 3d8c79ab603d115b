/* call_registry_test.c -- declarations that contradict themselves stop the start, and say which and why */
#include "call/internal.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#define A_PROVIDER(id, ...) \
    PROVIDER(id, .name = #id, .title = #id, .base_url = "https://" #id ".example.com", .fixture = true, \
             .headers = NAMES(__VA_ARGS__))

A_PROVIDER(good, "X-Version: 1", "X-Empty:", "Prefer: a=\"b\"")
A_PROVIDER(full, "X-A: 1", "X-B: 1", "X-C: 1", "X-D: 1", "X-E: 1", "X-F: 1", "X-G: 1", "X-H: 1", "X-I: 1", "X-J: 1",
           "X-K: 1", "X-L: 1", "X-M: 1")
A_PROVIDER(many, "X-A: 1", "X-B: 1", "X-C: 1", "X-D: 1", "X-E: 1", "X-F: 1", "X-G: 1", "X-H: 1", "X-I: 1", "X-J: 1",
           "X-K: 1", "X-L: 1", "X-M: 1", "X-N: 1")
A_PROVIDER(bare, "X-Version")
A_PROVIDER(spaced, "X Version: 1")
A_PROVIDER(broken, "X-Version: 1\r\nX-Other: 2")
A_PROVIDER(token, "Authorization: Bearer abc")
A_PROVIDER(framing, "Content-Length: 3")

/* "": it starts. setup: what the configuration says of it; NULL: nothing. */
static void assert_set_up(const char *name, const struct provider_setup *setup, const char *said)
{
    struct policy_source source = { STR("p"), STR("permit(principal, action, resource);") };
    const char *const enabled[] = { name, NULL };
    struct registry_options opt = { .enabled = enabled, .setups = setup, .n_setups = setup ? 1 : 0 };
    struct errinfo info = { "" };
    struct registry *r = NULL;
    enum err e;

    assert_int_equal(policy_set_parse(&source, 1, 0, &opt.policy, &info), OK);
    e = registry_build(&opt, &r, &info);
    policy_set_unref(opt.policy);
    if (!*said && e)
        fail_msg("%s: %s", name, info.text);
    assert_int_equal(e, *said ? E_CONFIG : OK);
    if (e) {
        assert_non_null(strstr(info.text, name));
        if (!strstr(info.text, said))
            fail_msg("%s: %s", name, info.text);
        return;
    }
    registry_unref(r);
}

static void assert_starts(const char *name, const char *said)
{
    assert_set_up(name, NULL, said);
}

/* What goes without TLS goes so only if that is meant. */
static void plain_providers_are_meant_to_be(void **state)
{
    struct provider_setup s = { .name = "good", .base_url = "http://127.0.0.1:9" };

    assert_set_up("good", &s, "is not https; set allow_plain_http");
    s.guard.allow_plain_http = true;
    assert_set_up("good", &s, "");
    s.plain_http2 = true;
    assert_set_up("good", &s, "");
    s.base_url = "https://127.0.0.1:9";
    assert_set_up("good", &s, "plain_http2 is for a base_url that is http");
}

static void headers_that_cannot_be_sent_stop_the_start(void **state)
{
    assert_starts("good", "");
    assert_starts("full", "");
    assert_starts("many", "more than 16");
    assert_starts("bare", "\"X-Version\" is not \"Name: value\"");
    assert_starts("spaced", "a name it may not have");
    assert_starts("broken", "header field X-Version has a value");
    assert_starts("token", "a name it may not have");
    assert_starts("framing", "a name it may not have");
}

/* What a snapshot is built of, the limiter takes: the most that is accepted, and one more. */
static void budgets_are_within_the_limiters_bounds(void **state)
{
    const struct admission_rule most = { .per_minute = LIMIT_AMOUNT_MAX / 2, .at_once = LIMIT_AT_ONCE_MAX,
                                         .writes_per_hour = LIMIT_AMOUNT_MAX / 2,
                                         .destroys_per_hour = LIMIT_AMOUNT_MAX / 2 };
    const char *const enabled[] = { "good", NULL };
    struct registry_options opt = { .enabled = enabled, .budgets = { most, most, most } };
    struct errinfo info = { "" };
    struct registry *r;
    struct rl *rl = rl_new(&(struct rl_config){ 0 });

    assert_int_equal(policy_set_parse(NULL, 0, 0, &opt.policy, &info), OK);
    assert_int_equal(registry_build(&opt, &r, &info), OK);
    registry_apply_limits(r, rl, 0);
    registry_unref(r);
    opt.budgets[BUDGET_AGENT].at_once++;
    assert_int_equal(registry_build(&opt, &r, &info), E_CONFIG);
    assert_non_null(strstr(info.text, "at_once at most 8388607"));
    policy_set_unref(opt.policy);
    rl_free(rl);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plain_providers_are_meant_to_be),
        cmocka_unit_test(headers_that_cannot_be_sent_stop_the_start),
        cmocka_unit_test(budgets_are_within_the_limiters_bounds),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
