/*
 * policy_validate_test.c -- the validator: for each policy, what is found and where
 *
 * Whether a policy has errors was compared with the reference implementation (4.13) in strict mode.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>

#include <pthread.h>

#include "base/check.h"
#include "policy/schema.h"

static const char app[] =
    "entity User in [Team] { name: String, age: Long, boss?: User, home: { zip?: Long, city: String }, at: datetime,"
    "    team: Team, teams: Set<Team>, ip: ipaddr, pay?: decimal, any?: Set<Long>, more?: { a?: { b?: Long } } }"
    "    tags Set<String>;"
    "entity Robot; entity Team in [Team] { lead?: User };"
    "entity Photo in [Album] { owner: User, name: String, title?: String }; entity Album { owner: User };"
    "entity Color enum [\"red\", \"blue\"];"
    "action all; action reads in all;"
    "action view in reads appliesTo { principal: [User, Robot], resource: [Photo, Album], context: C };"
    "action paint appliesTo { principal: User, resource: Color };"
    "action never;"
    "type C = { n: Long, m?: Long, who?: User, deep: { x?: { y?: Long } } };";

static struct policy_schema *schema;

static int setup(void **state)
{
    struct errinfo info;

    if (policy_schema_parse(STR("app"), str_of(app), POLICY_SCHEMA_TEXT, &schema, NULL, &info))
        fail_msg("%s", info.text);
    return 0;
}

static int teardown(void **state)
{
    schema = policy_schema_unref(schema);
    return 0;
}

/* `found`: "kind@line:column kind@..." in order; a place within a condition counts from its first character. */
static void policy(const char *text, const char *found)
{
    struct policy_source source = { STR("p"), str_of(text) };
    struct policy_set *set = NULL;
    struct policy_report report;
    struct buf b = BUF_INIT(4000);
    struct errinfo info;

    policy_report_init(&report);
    if (policy_set_parse(&source, 1, 0, &set, &info))
        fail_msg("%s", info.text);
    assert_int_equal(policy_schema_validate(schema, set, &report, &info), OK);
    for (const struct policy_finding *f = report.first; f; f = f->next)
        buf_addf(&b, "%s%s@%u:%u", b.len ? " " : "", policy_finding_name(f->kind), f->line, f->column);
    buf_add_c(&b, '\0');
    if (strcmp(b.p, found) != 0) {
        print_message("%s\n", text);
        for (const struct policy_finding *f = report.first; f; f = f->next)
            print_message("  %u:%u: %.*s\n", f->line, f->column, STR_ARG(f->text));
    }
    assert_string_equal(b.p, found);
    buf_release(&b);
    policy_set_unref(set);
    policy_report_release(&report);
}

/* A condition, on a line of its own, of requests of users who view photos. */
static void when(const char *condition, const char *found)
{
    struct buf b = BUF_INIT(1 << 20);

    buf_add_z(&b, "permit(principal is User, action == Action::\"view\", resource is Photo) when {\n");
    buf_add_z(&b, condition);
    buf_add_z(&b, " };");
    buf_add_c(&b, '\0');
    policy(b.p, found);
    buf_release(&b);
}

static void test_attributes(void **state)
{
    when("principal.name == resource.name && principal.age > context.n", "");
    when("principal.nam == \"x\"", "no-such-attribute@2:11");
    when("principal[\"no such\"] == \"x\"", "no-such-attribute@2:10");
    when("principal.name.x", "wrong-type@2:11");
    when("principal.home.city like \"a*\" && principal.home.zip == 1", "may-lack-attribute@2:49");
    when("principal.home has zip && principal.home.zip == 1", "");
    when("principal.home.zip == 1 && principal.home has zip", "may-lack-attribute@2:16");
    when("principal has home.zip && principal[\"home\"].zip == 1", "");
    when("!(principal has boss) || principal.boss.age > 3", "may-lack-attribute@2:36");
    when("principal has boss && (principal.boss has boss && principal.boss.boss.age > 1)", "");
    when("principal has boss || principal.boss.age > 1", "may-lack-attribute@2:33");
    when("(principal has boss || principal has boss) && principal.boss.age > 1", "");
    when("(principal has boss || principal has pay) && principal.boss.age > 1", "may-lack-attribute@2:56");
    when("(principal has boss || false) && principal.boss.age > 1", "");
    when("if principal has boss then principal.boss.age > 1 else false", "");
    when("if principal has boss then false else principal.boss.age > 1", "may-lack-attribute@2:49");
    when("(if context.n == 1 then principal has boss else principal has boss) && principal.boss.age > 1", "");
    when("context has deep.x.y && context.deep.x.y > 1", "");
    when("context has deep.x && context.deep.x.y > 1", "may-lack-attribute@2:38");
    when("principal has more.a.b && principal.more.a.b == 1", "");
    when("principal has nothing && principal.nothing == 1", "impossible@1:1");
    when("context has n && context.n == 1", "");
    when("context.n has x", "wrong-type@2:9");
    when("{a: 1, \"b\": {c: true}}.b.c", "");
    when("{a: 1}.b == 1", "no-such-attribute@2:8");
    when("{a: 1} has a && {a: 1} has b", "impossible@1:1");
    when("action has x", "impossible@1:1");
    when("action.x == 1", "no-such-attribute@2:8");
}

static void test_tags(void **state)
{
    when("principal.hasTag(\"x\") && principal.getTag(\"x\").contains(\"y\")", "");
    when("principal.getTag(\"x\").contains(\"y\")", "may-lack-tag@2:11");
    when("principal.hasTag(\"x\") && principal.getTag(\"z\").contains(\"y\")", "may-lack-tag@2:36");
    when("principal.hasTag(resource.name) && principal.getTag(resource.name).contains(\"y\")", "");
    when("principal.hasTag(1)", "wrong-type@2:18");
    when("resource.hasTag(\"x\")", "impossible@1:1");
    when("resource.hasTag(\"x\") && resource.getTag(\"x\") == 1", "impossible@1:1");
    when("(resource.hasTag(\"x\") || true) && resource.getTag(\"x\") == 1", "may-lack-tag@2:44");
    when("context.hasTag(\"x\")", "wrong-type@2:1");
}

static void test_types(void **state)
{
    when("principal.age + 1 > 2 * -principal.age", "");
    when("principal.name + 1 > 2", "wrong-type@2:11");
    when("principal.age && true", "wrong-type@2:11");
    when("!principal.age", "wrong-type@2:12");
    when("principal.age", "wrong-type@2:11");
    when("principal.age < \"1\"", "wrong-type@2:17");
    when("principal.name < principal.name", "wrong-type@2:11 wrong-type@2:28");
    when("principal.at < datetime(\"2026-01-01\") && duration(\"1d\") < duration(\"1h\")", "");
    when("principal.at < 1", "wrong-type@2:11");
    when("decimal(\"1.0\") < decimal(\"2.0\")", "wrong-type@2:1 wrong-type@2:18");
    when("decimal(\"1.0\").lessThan(decimal(\"2.0\"))", "");
    when("principal.name like \"a\" && principal.age like \"b\"", "wrong-type@2:38");
    when("principal.ip.isInRange(ip(\"10.0.0.0/8\"))", "");
    when("principal.ip.isInRange(\"10.0.0.0/8\")", "wrong-type@2:24");
    when("ip(principal.name).isIpv4()", "not-constant@2:1");
    when("ip(\"x\").isIpv4()", "bad-constant@2:1");
    when("ip(1).isIpv4()", "wrong-type@2:4");
    when("ip(\"::1\", \"::2\").isIpv4() && principal.ip.isIpv4(1)", "wrong-arity@2:1 wrong-arity@2:43");
    when("principal.at.toDate().durationSince(principal.at) == duration(\"0s\") && duration(\"1s\").toDays() == 1", "");
}

static void test_equality(void **state)
{
    when("principal == resource.owner && principal.team == Team::\"x\"", "");
    when("principal == resource", "impossible@1:1");
    when("principal != resource && true", "");
    when("principal.age == \"1\"", "mixed-types@2:15");
    when("1 == \"1\"", "impossible@1:1");
    when("1 == 1 && (true && false) == false && \"a\" != \"b\"", "");
    when("principal.home == {city: \"x\"}", "mixed-types@2:16");
    when("{a: 1} == {a: 2} && {a: 1 == 1} == {a: 1 == 2}", "");
    when("{a: 1} == {b: 1}", "mixed-types@2:8");
    when("action == Action::\"view\"", "");
    when("action == Action::\"paint\"", "impossible@1:1");
    when("principal == context", "mixed-types@2:11");
}

static void test_sets(void **state)
{
    when("[1, 2].contains(principal.age) && [principal.age].containsAny([1]) && ![1].isEmpty()", "");
    when("[] == [1]", "empty-set@2:1");
    when("[1, \"a\"].contains(1)", "mixed-types@2:5");
    when("[principal, resource].contains(principal)", "mixed-types@2:13");
    when("[true, false].contains(true) && [[1], [2]].contains([3]) && [{a: true}, {a: false}].contains({a: true})", "");
    when("[1].contains(\"a\")", "mixed-types@2:5");
    when("[1].containsAll([\"a\"])", "mixed-types@2:5");
    when("[1].containsAll(1)", "wrong-type@2:17");
    when("principal.age.contains(1)", "wrong-type@2:11");
    when("principal.name.isEmpty()", "wrong-type@2:11");
    when("if true then true else 1", "");
    when("(if context.n == 1 then 1 else \"1\") == 1", "mixed-types@2:2");
    when("(if context.n == 1 then principal.name else \"1\") == \"a\"", "");
}

static void test_in(void **state)
{
    when("principal in Team::\"x\" && resource in Album::\"y\" && principal in [Team::\"a\", principal.team]", "");
    when("principal in principal.teams", "");
    when("principal in Album::\"x\"", "impossible@1:1");
    when("principal in 1", "wrong-type@2:14");
    when("principal in [1]", "wrong-type@2:14");
    when("1 in principal", "wrong-type@2:1");
    when("principal in [Team::\"x\", Album::\"y\"]", "mixed-types@2:26");
    when("action in Action::\"all\" && action in [Action::\"reads\", Action::\"never\"] && action in action", "");
    when("action in Action::\"never\"", "impossible@1:1");
    when("action in Album::\"x\"", "impossible@1:1");
    when("Action::\"view\" in Action::\"reads\" && Action::\"never\" in Action::\"all\"", "impossible@1:1");
    when("principal is User && resource is Photo in Album::\"x\"", "");
    when("principal is Team", "impossible@1:1");
    when("principal is Nobody", "impossible@1:1 unknown-type@2:11");
    when("principal is Team in [1]", "impossible@1:1");
    when("principal.age is User", "wrong-type@2:11");
}

static void test_names(void **state)
{
    when("principal == Usr::\"x\"", "unknown-type@2:14");
    when("action == Action::\"vew\"", "impossible@1:1 unknown-action@2:11");
    when("false && principal == Usr::\"x\"", "impossible@1:1 unknown-type@2:23");
    when("[Color::\"red\", Color::\"green\"] == [Color::\"blue\"]", "unknown-id@2:16");
    policy("permit(principal == Usr::\"x\", action, resource);", "no-action-applies@1:1 unknown-type@1:21");
    policy("permit(principal, action == Action::\"x\", resource is Foo);",
        "no-action-applies@1:1 impossible@1:1 unknown-action@1:29 unknown-type@1:54");
    policy("permit(principal, action == Action::\"paint\", resource == Color::\"green\");", "unknown-id@1:58");
}

static void test_heads(void **state)
{
    policy("permit(principal, action, resource);", "");
    policy("forbid(principal in Team::\"x\", action in Action::\"all\", resource in Album::\"y\") unless { context.n > "
        "1 };",
        "");
    policy("permit(principal, action == Action::\"never\", resource);", "no-action-applies@1:1 impossible@1:1");
    policy("permit(principal is Team, action, resource);", "no-action-applies@1:1 impossible@1:1");
    policy("permit(principal == Team::\"x\", action, resource);", "no-action-applies@1:1 impossible@1:1");
    policy("permit(principal, action in [Action::\"view\", Action::\"reads\"], resource is Album in Album::\"x\");",
        "");
    policy("permit(principal, action == Action::\"paint\", resource is Photo);",
        "no-action-applies@1:1 impossible@1:1");
    policy("permit(principal is Robot, action == Action::\"paint\", resource);",
        "no-action-applies@1:1 impossible@1:1");
    policy("permit(principal, action in [], resource);", "no-action-applies@1:1 empty-set@1:29");
    /* Every kind of request counts: robots have no name, and albums are viewed too. */
    policy("permit(principal, action, resource) when { principal.name == \"x\" };", "no-such-attribute@1:54");
    policy("permit(principal, action, resource) when { principal has name && principal.name == \"x\" };", "");
    policy("permit(principal, action, resource) when { principal is User && principal.age > 1 };", "");
    policy("permit(principal is User, action, resource) when { resource is Photo && resource.name == \"x\" ||\n"
        "resource is Color && resource == Color::\"red\" };", "");
    policy("permit(principal, action, resource) when { context.n > 1 };", "no-such-attribute@1:52");
    policy("permit(principal, action == Action::\"view\", resource) when { context.n > 1 } unless { context has m &&\n"
        "context.m == 1 };", "");
    policy("permit(principal, action == Action::\"view\", resource) when { context has m } when { context.m > 1 };",
        "");
    /* What is wrong leaves open what the policy is, unless what stands before it says so. */
    policy("permit(principal is User, action, resource) when { principal.age } when { false };", "wrong-type@1:62");
    policy("permit(principal is User, action, resource) when { true } when { principal.age } when { false };",
        "wrong-type@1:76");
    policy("permit(principal is User, action, resource) when { principal.age && true && false };",
        "impossible@1:1 wrong-type@1:62");
    policy("permit(principal is User, action, resource) when { false } when { principal.age };", "impossible@1:1");
    policy("permit(principal, action == Action::\"view\", resource) unless { context has m } when { context.m > 1 };",
        "may-lack-attribute@1:95");
}

static void message(const char *policies, const char *policy, const char *text)
{
    struct policy_source source = { STR("p"), str_of(policies), policies[0] == '{' };
    struct policy_set *set = NULL;
    struct policy_report report;

    policy_report_init(&report);
    assert_int_equal(policy_set_parse(&source, 1, 0, &set, NULL), OK);
    assert_int_equal(policy_schema_validate(schema, set, &report, NULL), OK);
    assert_int_equal(report.n_errors, 1);
    assert_true(str_is(report.first->policy, policy) && str_is(report.first->file, "p"));
    if (!str_is(report.first->text, text))
        fail_msg("expected: %s\ngot:      %.*s", text, STR_ARG(report.first->text));
    policy_set_unref(set);
    policy_report_release(&report);
}

static void test_messages(void **state)
{
    message("@id(\"x\") permit(principal is User, action == Action::\"view\", resource) when { principal.home < 1 };",
        "x", "expected Long, found {zip?: Long, city: String}");
    message("permit(principal is User, action == Action::\"view\", resource) when { ip(\"::1\").isIpv4(1) };", "p#0",
        "`isIpv4` takes 0 arguments, found 1");
    message("{\"effect\": \"permit\", \"principal\": {\"op\": \"is\", \"entity_type\": \"User\"}, \"action\": {"
        "\"op\": \"==\", \"entity\": {\"type\": \"Action\", \"id\": \"view\"}}, \"resource\": {\"op\": \"All\"}, "
        "\"conditions\": [{\"kind\": \"when\", \"body\": {\"isIpv4\": []}}]}", "p#0",
        "`isIpv4` takes 1 argument, found 0");
}

/* `before` n times, then `middle`, then `after` n times. */
static void deep(const char *before, const char *middle, const char *after, int n)
{
    struct buf b = BUF_INIT(1 << 20);

    for (int i = 0; i < n; i++)
        buf_add_z(&b, before);
    buf_add_z(&b, middle);
    for (int i = 0; i < n; i++)
        buf_add_z(&b, after);
    buf_add_c(&b, '\0');
    when(b.p, "");
    buf_release(&b);
}

static void *at_the_limit(void *arg)
{
    deep("1 + ", "1 > 0", "", 990);
    deep("", "principal.at == principal.at", ".toDate()", 980);
    deep("(", "true", ")", 190);
    deep("(if context.n == 1 then ", "true", " else false)", 95);
    deep("context.n == 1 && ", "true", "", 3000);
    deep("context.n == 1 || ", "true", "", 3000);
    return NULL;
}

/* On the stack that the interface asks for; ThreadSanitizer's frames are twice as large. */
#if defined(__SANITIZE_THREAD__)
enum { STACK = 2 << 20 };
#else
enum { STACK = 1 << 20 };
#endif

static void test_depth(void **state)
{
    pthread_attr_t attr;
    pthread_t thread;

    assert_int_equal(pthread_attr_init(&attr), 0);
    assert_int_equal(pthread_attr_setstacksize(&attr, STACK), 0);
    assert_int_equal(pthread_create(&thread, &attr, at_the_limit, NULL), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(pthread_attr_destroy(&attr), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_attributes), cmocka_unit_test(test_tags), cmocka_unit_test(test_types),
        cmocka_unit_test(test_equality), cmocka_unit_test(test_sets), cmocka_unit_test(test_in),
        cmocka_unit_test(test_names), cmocka_unit_test(test_heads), cmocka_unit_test(test_messages),
        cmocka_unit_test(test_depth),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
