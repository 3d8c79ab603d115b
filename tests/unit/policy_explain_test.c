/* policy_explain_test.c -- expressions back to text, explanations word by word, and what lint says */
#include "base_test.h"

#include "policy/ast.h"
#include "policy/explain.h"
#include "policy/lint.h"

static struct policy_set *parsed(const char *text)
{
    struct policy_source source = { STR("p.cedar"), str_of(text), text[0] == '{' };
    struct policy_set *set;
    struct errinfo info;

    if (policy_set_parse(&source, 1, 0, &set, &info))
        fail_msg("%s", info.text);
    return set;
}

/* ---- trees to text ----------------------------------------------------------------------------------------------- */

static struct str rewritten(struct arena *a, struct str expr)
{
    struct str text = arena_printf(a, "permit(principal, action, resource) when { %.*s };", STR_ARG(expr));
    struct buf out = BUF_INIT(1 << 20);
    struct ast_file file;
    struct errinfo info;
    struct str ret;

    if (ast_parse(a, STR("t"), text, NULL, &file, &info))
        fail_msg("%s: %.*s", info.text, STR_ARG(expr));
    ast_write(&out, file.first->conditions->expr);
    ret = arena_str(a, buf_str(&out));
    buf_release(&out);
    return ret;
}

static void test_expressions_come_back(void **state)
{
    static const char *const same[] = {
        "true", "-1", "\"a\\n\\\"\"", "App::User::\"a\"", "principal.a.b[\"c d\"]", "principal[\"if\"]", "!true",
        "true && principal.a", "1 + 2 - 3 == 4 * 5", "1 - (2 - 3) == 0", "(1 + 2) * 3 > -4", "(1 == 2) == (3 == 4)",
        "principal in [A::\"1\", A::\"2\"]", "principal is A in B::\"x\"", "(if 1 == 1 then 2 else 3) == 2",
        "if principal has a then principal.a else true", "!(true && false) || true && (false || true)",
        "context has a.b.c", "context has \"a b\"", "context.x like \"a*\\*b*\"", "[1, 2].containsAll([context.x])",
        "{a: 1, \"b c\": [true]}.a == 1", "ip(\"::1\").isInRange(ip(context.x))",
        "decimal(\"1.5\").lessThan(context.d)",
        "principal.hasTag(\"x\") && principal.getTag(\"x\") == 1", "[].isEmpty()", "-principal.a == -(1 + 2)",
        "!!principal.a", "(if true then principal else resource).x", "(true || false) && true",
        "context.a < 1 && context.b >= 2 && context.c != 3",
    };
    static const char *const changed[][2] = {
        { "((1))==(2)", "1 == 2" }, { "principal[\"a\"]", "principal.a" }, { "context has \"a\"", "context has a" },
        { "(((true)||false))", "true || false" }, { "true&&(1 == 2)", "true && 1 == 2" },
    };
    struct arena a;

    arena_init(&a, 1 << 20);
    for (size_t i = 0; i < ARRAY_LEN(same); i++)
        if (!str_is(rewritten(&a, str_of(same[i])), same[i]))
            fail_msg("%s became %.*s", same[i], STR_ARG(rewritten(&a, str_of(same[i]))));
    for (size_t i = 0; i < ARRAY_LEN(changed); i++)
        if (!str_is(rewritten(&a, str_of(changed[i][0])), changed[i][1]))
            fail_msg("%s became %.*s", changed[i][0], STR_ARG(rewritten(&a, str_of(changed[i][0]))));
    arena_release(&a);
}

/* ---- explanations ------------------------------------------------------------------------------------------------ */

static void expect_text(const char *policies, int64_t count, unsigned flags, const char *expected)
{
    struct policy_uid user = policy_uid(STR("User"), STR("alice")), action = policy_uid(STR("Action"), STR("list")),
                      box = policy_uid(STR("Box"), STR("b")), group = policy_uid(STR("Group"), STR("sales"));
    const struct policy_uid *above[] = { &group };
    struct policy_attr at[] = { { STR("count"), policy_long(count) } };
    struct policy_set *set = parsed(policies);
    struct buf out = BUF_INIT(1 << 20);
    struct policy_layer layer;
    struct arena a;
    struct policy_request r = { .principal = &user, .action = &action, .resource = &box, .entities = &layer,
                                .context = policy_record_of(at, 1), .scratch = &a };

    arena_init(&a, 1 << 20);
    policy_layer_init(&layer, NULL);
    assert_int_equal(policy_layer_add(&layer, &a, user, (struct policy_value){ 0 }, above, 1), OK);
    assert_int_equal(policy_explain(set, &r, flags, &out), OK);
    buf_add_c(&out, '\0');
    assert_string_equal(out.p, expected);
    buf_release(&out);
    arena_release(&a);
    policy_set_unref(set);
}

static void test_explanations(void **state)
{
    static const char text[] =
        "@id(\"few\") permit(principal in Group::\"sales\", action, resource is Box)\n"
        "when { context.count < 5 || principal has boss } unless { context.count == 0 };\n"
        "@id(\"other\") permit(principal, action in [Action::\"send\", Action::\"book\"], resource);\n"
        "@id(\"odd\") forbid(principal, action, resource) when { if context.count == 9 then context.nope else false };";

    expect_text(text, 3, POLICY_EXPLAIN_ALL,
        "ALLOW\ndecided by \"few\"\n"
        "\npermit \"few\"  p.cedar:1:1\n"
        "    principal in Group::\"sales\"  ->  yes, it is User::\"alice\"\n"
        "    resource is Box  ->  yes, it is Box::\"b\"\n"
        "    when context.count < 5 || principal has boss  ->  true\n"
        "        context.count < 5  ->  true\n"
        "            context.count  ->  3\n"
        "        principal has boss  ->  (not evaluated)\n"
        "    unless context.count == 0  ->  false\n"
        "        context.count  ->  3\n"
        "    => permits\n"
        "\npermit \"other\"  p.cedar:3:1\n"
        "    action in [Action::\"send\", Action::\"book\"]  ->  no, it is Action::\"list\"\n"
        "\nforbid \"odd\"  p.cedar:4:1\n"
        "    when if context.count == 9 then context.nope else false  ->  false\n"
        "        context.count == 9  ->  false\n"
        "            context.count  ->  3\n"
        "        context.nope  ->  (not evaluated)\n"
        "    => does not apply\n");
    expect_text(text, 9, 0,
        "DENY\nno policy permits it (default deny)\n"
        "\npermit \"few\"  p.cedar:1:1\n"
        "    principal in Group::\"sales\"  ->  yes, it is User::\"alice\"\n"
        "    resource is Box  ->  yes, it is Box::\"b\"\n"
        "    when context.count < 5 || principal has boss  ->  false\n"
        "        context.count < 5  ->  false\n"
        "            context.count  ->  9\n"
        "        principal has boss  ->  false\n"
        "    unless context.count == 0  ->  (not evaluated)\n"
        "    => does not apply\n"
        "\nforbid \"odd\"  p.cedar:4:1\n"
        "    when if context.count == 9 then context.nope else false  ->  fails: the attribute does not exist\n"
        "        context.count == 9  ->  true\n"
        "            context.count  ->  9\n"
        "        context.nope  ->  fails: the attribute does not exist\n"
        "    => fails, and is skipped: the attribute does not exist, at 4:90\n"
        "\n1 more policy is not about this request: another principal, action or resource\n");
    expect_text("@id(\"one\\ntwo\") permit(principal, action, resource);\n"
        "@id(\"odd\") forbid(principal, action, resource) when { context.nope };", 1, POLICY_EXPLAIN_FAILED_FORBIDS,
        "DENY\n1 forbid failed to evaluate, which refuses what else would be permitted\n"
        "\npermit \"one\\ntwo\"  p.cedar:1:1\n    => permits\n"
        "\nforbid \"odd\"  p.cedar:2:1\n"
        "    when context.nope  ->  fails: the attribute does not exist\n"
        "    => fails, which refuses, as it forbids: the attribute does not exist, at 2:63\n");
    expect_text("", 1, 0, "DENY\nno policy permits it (default deny)\n");
}

/* In JSON a method can be called on nothing; so written it is a function, as the reference writes it. */
static void test_a_method_of_nothing(void **state)
{
    expect_text("{\"effect\": \"permit\", \"principal\": {\"op\": \"All\"}, \"action\": {\"op\": \"All\"}, "
        "\"resource\": {\"op\": \"All\"}, \"conditions\": [{\"kind\": \"when\", \"body\": {\"||\": {"
        "\"left\": {\"Value\": true}, \"right\": {\"isIpv4\": []}}}}]}", 1, 0,
        "ALLOW\ndecided by \"p.cedar#0\"\n"
        "\npermit \"p.cedar#0\"\n"
        "    when true || isIpv4()  ->  true\n"
        "        isIpv4()  ->  (not evaluated)\n"
        "    => permits\n");
}

/* ---- lint -------------------------------------------------------------------------------------------------------- */

/* What is found in the policies, each finding as "kind line:column id; ". */
static void expect_findings(const char *policies, const char *expected)
{
    struct policy_set *set = parsed(policies);
    struct policy_report r;
    struct buf out = BUF_INIT(1 << 16);

    policy_report_init(&r);
    assert_int_equal(policy_lint(set, &r), OK);
    for (const struct policy_finding *f = r.first; f; f = f->next) {
        assert_true(f->warning);
        buf_addf(&out, "%s %u:%u %.*s; ", policy_finding_name(f->kind), f->line, f->column, STR_ARG(f->policy));
    }
    buf_add_c(&out, '\0');
    assert_string_equal(out.p, expected);
    buf_release(&out);
    policy_report_release(&r);
    policy_set_unref(set);
}

#define WIDE "@id(\"w\") permit(principal, action, resource);\n"
#define COND "when { context.n > 1 }"

static void test_lint(void **state)
{
    static const struct { const char *policies, *findings; } cases[] = {
        { "", "" }, { WIDE, "" },
        { WIDE "@id(\"p\") permit(principal is U, action == Action::\"a\", resource) when { context.n > 1 };",
          "redundant 2:1 p; " },
        { "@id(\"a\") permit(principal is U, action, resource) " COND ";\n@id(\"b\") permit(principal is U, action, "
          "resource) " COND ";", "redundant 2:1 b; " },
        { "@id(\"f\") forbid(principal is U, action, resource) " COND ";\n@id(\"p\") permit(principal == U::\"1\", "
          "action in [Action::\"a\"], resource in R::\"1\") when { principal has x && context.n > 1 };",
          "shadowed 2:1 p; " },
        { "@id(\"f\") forbid(principal, action in [Action::\"a\", Action::\"b\"], resource);\n"
          "@id(\"p\") permit(principal, action == Action::\"b\", resource);", "shadowed 2:1 p; " },
        { WIDE "@id(\"p\") @approval(\"boss\") permit(principal, action, resource) " COND ";", "never-asked 2:1 p; " },
        { WIDE "@id(\"p\") @budget(\"calls/min=3\") permit(principal, action, resource);", "never-asked 2:1 p; " },
        { "@id(\"a\") @approval(\"x\") permit(principal, action, resource);\n"
          "@id(\"b\") @approval(\"y\") permit(principal, action, resource);", "" },
        { "@id(\"a\") @approval(\"x\") permit(principal, action, resource);\n"
          "@id(\"b\") permit(principal == U::\"a\", action, resource);", "" },
        { "@id(\"p\") permit(principal, action in [], resource);", "never-applies 1:38 p; " },
        { "@id(\"p\") permit(principal, action, resource) when { 1 > 2 };", "never-applies 1:55 p; " },
        { "@id(\"p\") permit(principal, action, resource) when { context.x && decimal(\"1.0\") == 1 };",
          "never-applies 1:81 p; " },
        { "@id(\"p\") permit(principal, action, resource) unless { [1].contains(1) };", "never-applies 1:59 p; " },
        { "@id(\"p\") permit(principal, action, resource) when { principal.x == ip(\"no\") };",
          "always-fails 1:68 p; " },
        { "@id(\"p\") permit(principal, action, resource) when { \"a\" };", "always-fails 1:53 p; " },
        { "@id(\"f\") forbid(principal, action, resource) " COND ";\n"
          "@id(\"g\") forbid(principal is U, action, resource) when { context.n > 1 && context.m };",
          "redundant 2:1 g; " },
        /* a forbid that fails refuses calls: g may, where f does not hold */
        { "@id(\"f\") forbid(principal, action, resource) " COND ";\n"
          "@id(\"g\") forbid(principal is U, action, resource) when { context.m && context.n > 1 };", "" },
        /* what may be evaluated or not, or depends on entities, is nobody's fault */
        { "@id(\"p\") permit(principal, action, resource) when { principal has x || ip(\"no\").isIpv4() };", "" },
        { "@id(\"p\") permit(principal, action, resource) when { U::\"a\" in U::\"b\" };", "" },
        { "@id(\"f\") forbid(principal in G::\"1\", action, resource);\n"
          "@id(\"p\") permit(principal == U::\"1\", action, resource);", "" },
        { "@id(\"f\") forbid(principal, action, resource) when { context.n > 1 && context.m };\n"
          "@id(\"p\") permit(principal, action, resource) " COND ";", "" },
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        expect_findings(cases[i].policies, cases[i].findings);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_expressions_come_back), cmocka_unit_test(test_explanations),
        cmocka_unit_test(test_a_method_of_nothing), cmocka_unit_test(test_lint),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
