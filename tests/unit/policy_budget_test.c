/*
 * policy_budget_test.c -- @budget: how it is read, what is refused, which budgets a decision counts in
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>

#include "base/check.h"
#include "policy/policy.h"

static enum err read_set(const char *text, bool json, struct policy_set **ret, struct errinfo *info)
{
    struct policy_source source = { str_of(json ? "mail.json" : "mail.cedar"), str_of(text), json };

    return policy_set_parse(&source, 1, 0, ret, info);
}

static struct policy_set *parsed(const char *text)
{
    struct errinfo info = { "" };
    struct policy_set *set = NULL;

    if (read_set(text, false, &set, &info))
        fail_msg("%s", info.text);
    return set;
}

static void refused_with(const char *text, bool json, const char *message)
{
    struct policy_set *set = NULL;
    struct errinfo info = { "" };

    assert_int_equal(read_set(text, json, &set, &info), E_CONFIG);
    assert_null(set);
    assert_string_equal(info.text, message);
}

/* User::"a" asks to send from Box::"b". */
static struct policy_decision decided(const char *text)
{
    struct policy_uid principal = policy_uid(STR("User"), STR("a")), action = policy_uid(STR("Action"), STR("send")),
                      resource = policy_uid(STR("Box"), STR("b"));
    struct policy_set *set = parsed(text);
    struct policy_decision d;
    struct policy_layer layer;
    struct policy_request r = { .principal = &principal, .action = &action, .resource = &resource, .entities = &layer,
                                .context = policy_record_of(NULL, 0) };
    struct arena scratch;

    arena_init(&scratch, 1 << 20);
    policy_layer_init(&layer, NULL);
    r.scratch = &scratch;
    assert_int_equal(policy_decide(set, &r, &d), OK);
    arena_release(&scratch);
    policy_set_unref(set);
    return d;
}

/* The budgets that a decision counts in, as letters: policy0 is A. */
static void counts_in(const char *text, const char *want)
{
    struct policy_decision d = decided(text);
    char got[POLICY_BUDGETS_MAX + 1] = "";

    for (uint32_t i = 0; i < d.n_budgets && i < POLICY_BUDGETS_MAX; i++)
        got[i] = (char)('A' + d.budgets[i]);
    assert_string_equal(got, want);
}

static void test_budgets(void **state)
{
#define PERMIT "permit(principal, action, resource);"
    struct policy_set *set = parsed("@budget(\"calls/min=10, writes/hour=5 ,destroys/day=1000000000\")" PERMIT PERMIT);
    const struct policy_budget *b;
    uint32_t n;

    b = policy_set_budgets(set, 0, &n);
    assert_int_equal(n, 3);
    assert_true(b[0].what == POLICY_COUNTS_CALLS && b[0].window_s == 60 && b[0].amount == 10);
    assert_true(b[1].what == POLICY_COUNTS_WRITES && b[1].window_s == 3600 && b[1].amount == 5);
    assert_true(b[2].what == POLICY_COUNTS_DESTROYS && b[2].window_s == 86400 && b[2].amount == POLICY_BUDGET_MAX);
    assert_string_equal(policy_budget_what(&b[1]), "writes");
    assert_string_equal(policy_budget_window(&b[2]), "day");
    policy_set_budgets(set, 1, &n);
    assert_int_equal(n, 0);
    policy_set_unref(set);

#define BUDGET "@budget(\"calls/min=1\")"
    counts_in(BUDGET PERMIT, "A");
    counts_in(BUDGET PERMIT "permit(principal is Nobody, action, resource);", "A");
    counts_in(BUDGET PERMIT PERMIT, "");                        /* one without sets it free */
    counts_in("@approval(\"x\")" PERMIT BUDGET PERMIT, "B");    /* ... unless that one needs an approval */
    counts_in(BUDGET "permit(principal, action, resource == Box::\"other\");" BUDGET PERMIT BUDGET PERMIT, "BC");
    counts_in(BUDGET PERMIT "forbid(principal, action, resource);", "");
    counts_in("forbid(principal, action, resource);" BUDGET PERMIT, "");
    counts_in("@approval(\"x\")" BUDGET PERMIT, "");
#undef PERMIT
#undef BUDGET
}

static void budget_refused_with(const char *budget, const char *wrong)
{
    char text[300], message[400];

    snprintf(text, sizeof(text), "@id(\"x\")\n  @budget(\"%s\") permit(principal, action, resource);", budget);
    snprintf(message, sizeof(message), "mail.cedar:2:11: @budget: %s; for example @budget(\"calls/min=10, "
             "writes/hour=5\")", wrong);
    refused_with(text, false, message);
}

static void test_bad_budgets(void **state)
{
    static const char form[] = "expected WHAT/WINDOW=AMOUNT",
                      amount[] = "the amount is a whole number from 1 to 1000000000",
                      twice[] = "the same is counted in the same window twice";

    budget_refused_with("", form);
    budget_refused_with("calls/min", form);
    budget_refused_with("calls=10", form);
    budget_refused_with("calls/min=10,", form);
    budget_refused_with("calls/min=10;writes/min=5", amount);
    budget_refused_with("reads/min=10", "what is counted is one of calls, writes, destroys");
    budget_refused_with("calls/minute=10", "the window is one of min, hour, day");
    budget_refused_with("calls/min=0", amount);
    budget_refused_with("calls/min=1000000001", amount);
    budget_refused_with("calls/min=99999999999999999999999", amount);
    budget_refused_with("calls/min=-1", amount);
    budget_refused_with("calls/min=ten", amount);
    budget_refused_with("calls/min =10", "the window is one of min, hour, day");
    budget_refused_with("calls/min=10, calls/hour=20, calls/min=30", twice);
    budget_refused_with("calls/min=1,calls/hour=1,calls/day=1,writes/min=1,writes/hour=1,writes/day=1,destroys/min=1,"
                        "destroys/hour=1,destroys/day=1,calls/min=1", twice);
    refused_with("@budget permit(principal, action, resource);", false,
        "mail.cedar:1:2: @budget: expected WHAT/WINDOW=AMOUNT; for example @budget(\"calls/min=10, writes/hour=5\")");
    refused_with("@budget(\"calls/min=1\") forbid(principal, action, resource);", false,
        "mail.cedar:1:9: @budget: only a permit has a budget; for example @budget(\"calls/min=10, writes/hour=5\")");
    refused_with("{ \"staticPolicies\": { \"x\": { \"effect\": \"permit\", \"principal\": { \"op\": \"All\" }, "
                 "\"action\": { \"op\": \"All\" }, \"resource\": { \"op\": \"All\" }, \"conditions\": [], "
                 "\"annotations\": { \"budget\": \"calls/min\" } } } }", true,
                 "mail.json: policy `x`: @budget: expected WHAT/WINDOW=AMOUNT; for example "
                 "@budget(\"calls/min=10, writes/hour=5\")");
}

/* A link is a policy of its own: with its template's budget, under its own name. */
static void test_links(void **state)
{
    static const char text[] =
        "{ \"templates\": { \"t\": { \"effect\": \"permit\", \"principal\": { \"op\": \"==\", \"slot\": "
        "\"?principal\" }, \"action\": { \"op\": \"All\" }, \"resource\": { \"op\": \"All\" }, \"conditions\": [], "
        "\"annotations\": { \"budget\": \"calls/day=7\" } } }, \"templateLinks\": [ { \"templateId\": \"t\", "
        "\"newId\": \"one\", \"values\": { \"?principal\": { \"type\": \"User\", \"id\": \"a\" } } } ] }";
    struct policy_set *set = NULL;
    struct errinfo info = { "" };
    const struct policy_budget *b;
    uint32_t n;

    if (read_set(text, true, &set, &info))
        fail_msg("%s", info.text);
    assert_int_equal(policy_set_count(set), 1);
    b = policy_set_budgets(set, 0, &n);
    assert_true(n == 1 && b[0].window_s == 86400 && b[0].amount == 7);
    assert_true(str_is(policy_set_info(set, 0).id, "one"));
    policy_set_unref(set);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_budgets),
        cmocka_unit_test(test_bad_budgets),
        cmocka_unit_test(test_links),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
