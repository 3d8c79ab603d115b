/* call_registry_test.c -- declarations that contradict themselves stop the start, and say which and why */
#include "call/internal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

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
    struct budget_rules rules = { 0 };
    struct rl *rl = rl_new(&(struct rl_config){ 0 });

    assert_int_equal(policy_set_parse(NULL, 0, 0, &opt.policy, &info), OK);
    assert_int_equal(registry_build(&opt, &r, &info), OK);
    assert_int_equal(registry_take_rules(r, &rules, &info), OK);
    registry_apply_limits(r, rl, 0);
    registry_unref(r);
    opt.budgets[BUDGET_AGENT].at_once++;
    assert_int_equal(registry_build(&opt, &r, &info), E_CONFIG);
    assert_non_null(strstr(info.text, "at_once at most 8388607"));
    policy_set_unref(opt.policy);
    rl_free(rl);
}

static void count_release(void *lender)
{
    ++*(unsigned *)lender;
}

/* What the options point to is given back once: with the last reference, or when nothing came of them. */
static void what_was_lent_is_given_back_once(void **state)
{
    struct policy_source source = { STR("p"), STR("permit(principal, action, resource);") };
    const char *const good[] = { "good", NULL }, *const unknown[] = { "unknown", NULL };
    unsigned released = 0;
    struct registry_options opt = { .enabled = good, .lender = &released, .lender_release = count_release };
    struct errinfo info = { "" };
    struct registry *r = NULL;

    assert_int_equal(policy_set_parse(&source, 1, 0, &opt.policy, &info), OK);
    assert_int_equal(registry_build(&opt, &r, &info), OK);
    registry_unref(registry_ref(r));
    assert_int_equal(released, 0);
    registry_unref(r);
    assert_int_equal(released, 1);
    opt.enabled = unknown;
    assert_int_equal(registry_build(&opt, &r, &info), E_CONFIG);
    assert_int_equal(released, 2);
    policy_set_unref(opt.policy);
}

enum { DAY_S = 86400 };

/* A snapshot whose policies grant `from` to `to` calls a day, and what else is said. */
static struct registry *granting(int from, int to, const char *more)
{
    const char *const enabled[] = { "good", NULL };
    struct registry_options opt = { .enabled = enabled };
    struct buf text = BUF_INIT(1 << 20);
    struct policy_source source = { .name = STR("p") };
    struct errinfo info = { "" };
    struct registry *r = NULL;

    for (int i = from; i <= to; i++)
        buf_addf(&text, "@id(\"p%d\") @budget(\"calls/day=%d\") permit (principal, action, resource);\n", i, i);
    buf_addf(&text, "%s", more);
    source.text = buf_str(&text);
    assert_int_equal(policy_set_parse(&source, 1, 0, &opt.policy, &info), OK);
    if (registry_build(&opt, &r, &info))
        fail_msg("%s", info.text);
    policy_set_unref(opt.policy);
    buf_release(&text);
    return r;
}

/* Of so many calls a day; 0: the snapshot grants nobody that. */
static uint16_t rule_of(const struct registry *r, int64_t amount)
{
    for (size_t i = 0; i < r->n_policy_rules; i++)
        if (r->policy_rules[i].window_s == DAY_S && r->policy_rules[i].amount == amount)
            return r->policy_rules[i].rule;
    return 0;
}

static void a_budget_keeps_its_rule_whatever_is_beside_it(void **state)
{
    const char *const other = "@id(\"o\") @budget(\"calls/min=30, writes/hour=7\") permit (principal, action, "
                              "resource);";
    struct budget_rules *rules = calloc(1, sizeof(*rules));
    struct errinfo info = { "" };
    struct registry *r = granting(5, 6, "");
    uint16_t five, six;

    assert_int_equal(registry_take_rules(r, rules, &info), OK);
    five = rule_of(r, 5);
    six = rule_of(r, 6);
    assert_true(five >= RULE_BUDGETS && six >= RULE_BUDGETS && five != six);
    registry_unref(r);
    r = granting(1, 6, other);
    assert_int_equal(registry_take_rules(r, rules, &info), OK);
    assert_int_equal(rule_of(r, 5), five);
    assert_int_equal(rule_of(r, 6), six);
    for (size_t i = 0; i < r->n_policy_rules; i++)
        for (size_t k = 0; k < i; k++)
            assert_int_not_equal(r->policy_rules[i].rule, r->policy_rules[k].rule);
    registry_unref(r);
    r = granting(6, 6, "");                 /* five are not granted for a while */
    assert_int_equal(registry_take_rules(r, rules, &info), OK);
    registry_unref(r);
    r = granting(1, 6, "");
    assert_int_equal(registry_take_rules(r, rules, &info), OK);
    assert_int_equal(rule_of(r, 5), five);
    registry_unref(r);
    free(rules);
}

/* Calls may stay in a snapshot for long: what it has is nobody else's until they have left. */
static void rules_in_use_are_given_to_nobody_else(void **state)
{
    struct budget_rules *rules = calloc(1, sizeof(*rules));
    struct errinfo info = { "" };
    struct registry *old = granting(1, POLICY_RULES_MAX, ""), *now, *next;

    assert_int_equal(registry_take_rules(old, rules, &info), OK);
    now = granting(1001, 1000 + POLICY_RULES_MAX, "");
    assert_int_equal(registry_take_rules(now, rules, &info), OK);
    next = granting(2001, 2000 + POLICY_RULES_MAX, "");
    assert_int_equal(registry_take_rules(next, rules, &info), E_CONFIG);
    assert_non_null(strstr(info.text, "hold all 640 rules: try again later"));
    registry_unref(next);
    for (int round = 2; round < 12; round++) {      /* what was refused holds nothing; each takes another's */
        next = granting(1000 * round + 1, 1000 * round + POLICY_RULES_MAX, "");
        registry_unref(old);
        assert_int_equal(registry_take_rules(next, rules, &info), OK);
        for (int i = 1; i <= POLICY_RULES_MAX; i++)
            for (int k = 1; k <= POLICY_RULES_MAX; k++)
                assert_int_not_equal(rule_of(now, 1000 * (round - 1) + i), rule_of(next, 1000 * round + k));
        old = now;
        now = next;
    }
    registry_unref(old);
    registry_unref(now);
    for (unsigned i = 0; i < BUDGET_RULES_MAX; i++)
        assert_int_equal(atomic_load(&rules->of[i].users), 0);
    free(rules);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plain_providers_are_meant_to_be),
        cmocka_unit_test(headers_that_cannot_be_sent_stop_the_start),
        cmocka_unit_test(budgets_are_within_the_limiters_bounds),
        cmocka_unit_test(what_was_lent_is_given_back_once),
        cmocka_unit_test(a_budget_keeps_its_rule_whatever_is_beside_it),
        cmocka_unit_test(rules_in_use_are_given_to_nobody_else),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
