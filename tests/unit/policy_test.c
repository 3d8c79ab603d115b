/*
 * policy_test.c -- what policies mean: expressions, heads, errors, approvals, entities, values, messages, listing
 *
 * Expected results of single expressions were compared with the reference implementation (4.13).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>

#include <stdio.h>

#include "base/check.h"
#include "json/json.h"
#include "policy/policy.h"

static struct arena arena;
static struct policy_entities *store;
static struct policy_layer layer;

static const char entities_json[] =
    "[{\"uid\": {\"type\": \"U\", \"id\": \"a\"}, \"attrs\": {\"n\": 1, \"s\": \"text\", \"r\": {\"a\": {\"b\": 2}},"
    " \"ip\": {\"__extn\": {\"fn\": \"ip\", \"arg\": \"10.1.2.3\"}}, \"friend\": {\"__entity\": {\"type\": \"U\", "
    "\"id\": \"b\"}}},"
    " \"parents\": [{\"type\": \"G\", \"id\": \"staff\"}], \"tags\": {\"team\": \"red\"}},"
    " {\"uid\": {\"type\": \"U\", \"id\": \"b\"}, \"attrs\": {}, \"parents\": []},"
    " {\"uid\": {\"type\": \"G\", \"id\": \"staff\"}, \"attrs\": {}, \"parents\": [{\"type\": \"G\", \"id\": "
    "\"all\"}]},"
    " {\"uid\": {\"type\": \"Action\", \"id\": \"send\"}, \"attrs\": {}, \"parents\": [{\"type\": \"Action\", "
    "\"id\": \"writes\"}]}]";

static int setup(void **state)
{
    struct errinfo info;

    arena_init(&arena, 16 << 20);
    store = policy_entities_new();
    if (policy_entities_add_json(store, str_of(entities_json), &info) || policy_entities_freeze(store, &info))
        fail_msg("%s", info.text);
    policy_layer_init(&layer, store);
    return 0;
}

static int teardown(void **state)
{
    store = policy_entities_unref(store);
    arena_release(&arena);
    return 0;
}

static struct policy_set *parse(const char *text)
{
    struct policy_source source = { STR_NULL, str_of(text) };
    struct policy_set *set = NULL;
    struct errinfo info;

    if (policy_set_parse(&source, 1, 0, &set, &info))
        fail_msg("%s\n%s", info.text, text);
    return set;
}

static struct policy_uid who, what, which;

static struct policy_request request(const char *user, const char *action, const char *resource)
{
    who = policy_uid(STR("U"), str_of(user));
    what = policy_uid(STR("Action"), str_of(action));
    which = policy_uid(STR("R"), str_of(resource));
    return (struct policy_request){ .principal = &who, .action = &what, .resource = &which, .entities = &layer,
        .context = policy_record_of(NULL, 0), .scratch = &arena };
}

static struct policy_decision decide_text(const char *text, struct policy_request r)
{
    struct policy_set *set = parse(text);
    struct policy_decision d;

    assert_int_equal(policy_decide(set, &r, &d), OK);
    policy_set_unref(set);
    return d;
}

/* 'a' allow, 'd' deny, 'e' the condition fails, 'p' it does not parse. */
static char outcome(const char *expr)
{
    struct policy_request r = request("a", "send", "box");
    struct policy_set *set = NULL;
    struct policy_decision d;
    struct policy_source source = { STR("t"), STR_NULL };
    char text[3000];
    struct errinfo info;

    snprintf(text, sizeof(text), "permit(principal, action, resource) when { %s };", expr);
    source.text = str_of(text);
    if (policy_set_parse(&source, 1, 0, &set, &info))
        return 'p';
    assert_int_equal(policy_decide(set, &r, &d), OK);
    policy_set_unref(set);
    assert_int_equal(d.n_errors + d.n_reasons, d.effect == POLICY_ALLOW || d.n_errors);
    return d.n_errors ? 'e' : d.effect == POLICY_ALLOW ? 'a' : 'd';
}

struct expected {
    char outcome;
    const char *expr;
};

static void check_all(const struct expected *e, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (outcome(e[i].expr) != e[i].outcome)
            fail_msg("%s: expected %c, got %c", e[i].expr, e[i].outcome, outcome(e[i].expr));
}

static void test_operators(void **state)
{
    static const struct expected e[] = {
        { 'a', "1 + 2 * 3 == 7" }, { 'a', "2 - 1 - 1 == 0" }, { 'a', "1--1 == 2" }, { 'a', "1 * -1 == -1" },
        { 'a', "1 < 2 && 2 <= 2 && 3 > 2 && 3 >= 3" }, { 'd', "2 < 2" }, { 'a', "1 != 2" }, { 'a', "1 != \"a\"" },
        { 'd', "true == 1" }, { 'e', "1 + true == 1" }, { 'e', "true < false" }, { 'e', "\"a\" < \"b\"" },
        { 'e', "9223372036854775807 + 1 == 1" }, { 'e', "-9223372036854775808 - 1 == 1" },
        { 'e', "9223372036854775807 * 2 == 1" }, { 'e', "-9223372036854775808 * -1 == 1" },
        { 'a', "-9223372036854775808 == -9223372036854775807 - 1" }, { 'e', "--9223372036854775808 == 1" },
        { 'e', "-(-9223372036854775808) == 1" }, { 'a', "-(-1) == 1" }, { 'a', "----1 == 1" }, { 'a', "!!!!true" },
        { 'a', "-principal.n == -1" }, { 'e', "!principal.n" }, { 'e', "-principal == 1" },
        { 'a', "true || 1" }, { 'e', "false || 1" }, { 'e', "1 || true" }, { 'e', "true && 1" }, { 'd', "false && 1" },
        { 'e', "1 && false" }, { 'a', "true && (if true then true else 1)" },
        { 'a', "(if true then 1 else principal.zz) == 1" }, { 'e', "if 1 then true else true" },
        { 'd', "if true then if false then true else false else true" },
        { 'a', "if false then false else true && true" }, { 'a', "(if true then principal else resource).n == 1" },
        { 'a', "[1, 2] == [2, 1, 1]" }, { 'a', "[1, \"a\"] == [\"a\", 1]" }, { 'd', "[1] == [1, 2]" },
        { 'a', "[[1], [2, 1]] == [[1, 2], [1, 1]]" }, { 'a', "{a: 1, \"b\": 2} == {b: 2, a: 1}" },
        { 'd', "{a: 1} == {a: 2}" }, { 'd', "{a: 1} == {a: 1, b: 1}" }, { 'a', "{a: principal.n}.a == 1" },
        { 'a', "{a: {b: 1}} == {a: {b: principal.n}}" }, { 'a', "[principal.n, 1] == [1]" },
        { 'a', "principal == U::\"a\"" }, { 'd', "principal == V::\"a\"" }, { 'a', "context == {}" },
        { 'e', "principal.n" }, { 'a', "\"a\\u{62}\\x63\\n\" == \"abc\n\"" }, { 'a', "0001 == 1" },
    };

    check_all(e, ARRAY_LEN(e));
}

static void test_entities_in_expressions(void **state)
{
    static const struct expected e[] = {
        { 'a', "principal in G::\"staff\"" }, { 'a', "principal in G::\"all\"" }, { 'd', "principal in G::\"other\"" },
        { 'a', "principal in [G::\"x\", G::\"all\"]" }, { 'd', "principal in []" },
        { 'e', "principal in [principal, 1]" },
        { 'e', "principal in [1]" }, { 'e', "1 in [1]" }, { 'e', "principal in {}" }, { 'e', "principal in \"a\"" },
        { 'a', "U::\"zz\" in U::\"zz\"" }, { 'a', "action in Action::\"writes\"" },
        { 'a', "principal is U" }, { 'd', "principal is U::V" }, { 'a', "principal is U in G::\"all\"" },
        { 'd', "principal is G in principal.zz" }, { 'e', "principal is U in principal.zz" },
        { 'a', "principal is U in [G::\"staff\"]" }, { 'e', "1 is U" }, { 'e', "principal is U in 1" },
        { 'a', "principal.n == 1" }, { 'a', "principal[\"n\"] == 1" }, { 'a', "principal.r[\"a\"].b == 2" },
        { 'e', "principal.zz == 1" }, { 'e', "principal.n.m" }, { 'e', "U::\"zz\".n == 1" }, { 'e', "resource.n == 1" },
        { 'e', "{}.a" }, { 'e', "principal.friend.n == 1" }, { 'a', "principal.friend == U::\"b\"" },
        { 'a', "principal has n" }, { 'd', "principal has zz" }, { 'd', "U::\"zz\" has n" },
        { 'a', "principal has \"n\"" },
        { 'a', "principal has r.a.b" }, { 'd', "principal has r.a.z" }, { 'd', "principal has zz.a" },
        { 'e', "principal has n.a" }, { 'd', "principal has friend.n" }, { 'e', "1 has a" }, { 'e', "\"a\" has b" },
        { 'd', "context has principal" }, { 'a', "{permit: 1} has permit" },
        { 'a', "principal.hasTag(\"team\")" }, { 'd', "principal.hasTag(\"zz\")" },
        { 'a', "principal.getTag(\"team\") == \"red\"" },
        { 'e', "principal.getTag(\"zz\") == 1" }, { 'd', "U::\"zz\".hasTag(\"a\")" },
        { 'e', "U::\"zz\".getTag(\"a\")" },
        { 'e', "principal.hasTag(1)" }, { 'e', "context.hasTag(\"a\")" },
        { 'a', "[1, 2].contains(1)" }, { 'd', "[1].contains(\"1\")" }, { 'e', "1.contains(1)" },
        { 'a', "[1, 2, 3].containsAll([3, 1])" }, { 'd', "[1].containsAll([1, 2])" }, { 'a', "[1].containsAll([])" },
        { 'a', "[1, 2].containsAny([3, 2])" }, { 'd', "[1].containsAny([])" }, { 'e', "[1].containsAll(1)" },
        { 'a', "[].isEmpty()" }, { 'd', "[1].isEmpty()" }, { 'e', "\"\".isEmpty()" },
        { 'a', "[9,8,7,6,5,4,3,2,1,0,principal.n].contains(9)" },
        { 'd', "[9,8,7,6,5,4,3,2,1,0,principal.n].contains(10)" },
    };

    check_all(e, ARRAY_LEN(e));
}

static void test_like(void **state)
{
    static const struct expected e[] = {
        { 'a', "\"\" like \"\"" }, { 'd', "\"a\" like \"\"" }, { 'a', "\"\" like \"*\"" },
        { 'a', "\"abc\" like \"*\"" },
        { 'a', "\"abc\" like \"a*c\"" }, { 'a', "\"ac\" like \"a*c\"" }, { 'd', "\"a\" like \"a*a\"" },
        { 'a', "\"a-b-c\" like \"*-*-*\"" }, { 'd', "\"a-b\" like \"*-*-*\"" }, { 'a', "\"aab\" like \"*ab\"" },
        { 'a', "\"abab\" like \"*ab\"" }, { 'a', "\"abcabd\" like \"*ab**d\"" }, { 'd', "\"abc\" like \"abc*d\"" },
        { 'a', "\"*\" like \"\\*\"" }, { 'd', "\"a\" like \"\\*\"" }, { 'a', "\"ab\" like \"\\u{2a}\"" },
        { 'a', "\"ab\" like \"\\x2A\"" }, { 'a', "\"a\\\\b\" like \"a\\\\*\"" }, { 'e', "1 like \"*\"" },
        { 'a', "\"mississippi\" like \"m*issip*i\"" }, { 'd', "\"mississippi\" like \"m*issipp*is\"" },
    };

    check_all(e, ARRAY_LEN(e));
}

static void test_decimal_and_ip(void **state)
{
    static const struct expected e[] = {
        { 'a', "decimal(\"1.0\") == decimal(\"1.00\")" }, { 'e', "decimal(\"1\") == decimal(\"1.0\")" },
        { 'e', "decimal(\"1.\") == 1" }, { 'e', "decimal(\".1\") == 1" }, { 'e', "decimal(\"+1.0\") == 1" },
        { 'e', "decimal(\"1.00000\") == 1" }, { 'e', "decimal(\"922337203685477.5808\") == 1" },
        { 'a', "decimal(\"-922337203685477.5808\").lessThan(decimal(\"922337203685477.5807\"))" },
        { 'e', "decimal(\"-922337203685477.5809\") == 1" }, { 'a', "decimal(\"-0.0\") == decimal(\"0.0\")" },
        { 'a', "decimal(\"-0.1\").lessThan(decimal(\"0.0\"))" }, { 'e', "decimal(1) == 1" },
        { 'e', "decimal(\"1.0\") < decimal(\"2.0\")" }, { 'e', "decimal(\"1.0\").lessThan(1)" },
        { 'a', "decimal(\"1.0\").greaterThanOrEqual(decimal(\"1.0\"))" }, { 'e', "ip() == 1" },
        { 'e', "decimal(\"1.0\").lessThan(decimal(\"1.0\"), decimal(\"1.0\"))" }, { 'd', "decimal(\"1.0\") == 1" },
        { 'a', "ip(\"127.0.0.1\") == ip(\"127.0.0.1/32\")" }, { 'd', "ip(\"10.0.0.1/8\") == ip(\"10.0.0.2/8\")" },
        { 'e', "ip(\"1.2.3.4/33\").isIpv4()" }, { 'e', "ip(\"1.2.3.4/08\").isIpv4()" },
        { 'a', "ip(\"1.2.3.4/0\").isIpv4()" },
        { 'e', "ip(\"1.2.3.4/\").isIpv4()" }, { 'e', "ip(\"01.2.3.4\").isIpv4()" }, { 'e', "ip(\"1.2.3\").isIpv4()" },
        { 'e', "ip(\"1.2.3.4.5\").isIpv4()" }, { 'e', "ip(\"256.2.3.4\").isIpv4()" }, { 'e', "ip(\"\").isIpv4()" },
        { 'e', "ip(\"::ffff:1.2.3.4\").isIpv6()" }, { 'a', "ip(\"::\").isIpv6()" }, { 'a', "ip(\"1::\").isIpv6()" },
        { 'a', "ip(\"1:2:3:4:5:6:7:8\").isIpv6()" }, { 'a', "ip(\"1:2:3:4:5:6:7::\").isIpv6()" },
        { 'a', "ip(\"::2:3:4:5:6:7:8\").isIpv6()" }, { 'e', "ip(\"1:2:3:4:5:6:7::8\").isIpv6()" },
        { 'e', "ip(\"1:2:3:4:5:6:7\").isIpv6()" }, { 'e', "ip(\"12345::\").isIpv6()" }, { 'e', "ip(\":::\").isIpv6()" },
        { 'e', "ip(\"::1::\").isIpv6()" }, { 'e', "ip(\"1:2:\").isIpv6()" }, { 'e', "ip(\":1::2\").isIpv6()" },
        { 'e', "ip(\"::1/129\").isIpv6()" }, { 'e', "ip(\"::/000\").isIpv6()" },
        { 'a', "ip(\"A:b:C:d::\") == ip(\"a:B:c:D:0::\")" },
        { 'a', "ip(\"::1\").isLoopback()" }, { 'd', "ip(\"::1/127\").isLoopback()" },
        { 'a', "ip(\"127.9.9.9/8\").isLoopback()" },
        { 'd', "ip(\"127.0.0.1/7\").isLoopback()" }, { 'a', "ip(\"224.0.0.1/4\").isMulticast()" },
        { 'd', "ip(\"224.0.0.1/3\").isMulticast()" }, { 'a', "ip(\"ff00::1/8\").isMulticast()" },
        { 'a', "principal.ip.isInRange(ip(\"10.0.0.0/8\"))" }, { 'd', "principal.ip.isInRange(ip(\"10.1.2.4/31\"))" },
        { 'a', "principal.ip.isInRange(ip(\"10.1.2.2/31\"))" },
        { 'd', "ip(\"10.0.0.0/7\").isInRange(ip(\"10.0.0.0/8\"))" },
        { 'd', "ip(\"::1\").isInRange(ip(\"0.0.0.0/0\"))" },
        { 'a', "[ip(\"1.1.1.1\"), ip(\"1.1.1.1/32\")] == [ip(\"1.1.1.1\")]" },
    };

    check_all(e, ARRAY_LEN(e));
}

static void test_datetime_and_duration(void **state)
{
    static const struct expected e[] = {
        { 'a', "datetime(\"2024-01-01\") == datetime(\"2024-01-01T00:00:00Z\")" },
        { 'e', "datetime(\"2024-01-01T00:00:00\") == 1" }, { 'e', "datetime(\"2024-01-01T00:00:00.00Z\") == 1" },
        { 'a', "datetime(\"2024-01-01T00:00:00+0100\") < datetime(\"2024-01-01T00:00:00Z\")" },
        { 'a', "datetime(\"2024-01-01T00:00:00.123-0100\") == datetime(\"2024-01-01T01:00:00.123Z\")" },
        { 'e', "datetime(\"2024-01-01T00:00:00+01:00\") == 1" }, { 'e', "datetime(\"2024-01-01T00:00:00+2400\") == 1" },
        { 'e', "datetime(\"2024-01-01T00:00:00+0060\") == 1" }, { 'e', "datetime(\"2024-01-01T23:59:60Z\") == 1" },
        { 'e', "datetime(\"2023-02-29\") == 1" }, { 'e', "datetime(\"1900-02-29\") == 1" },
        { 'd', "datetime(\"2000-02-29\") == 1" },
        { 'e', "datetime(\"2024-00-01\") == 1" }, { 'e', "datetime(\"2024-1-01\") == 1" },
        { 'e', "datetime(\"2024-01-01Z\") == 1" },
        { 'e', "datetime(\"2024-01-01t00:00:00z\") == 1" }, { 'd', "datetime(\"0000-01-01\") == 1" },
        { 'a', "datetime(\"1970-01-01\").offset(duration(\"1d\")) == datetime(\"1970-01-02\")" },
        { 'a', "datetime(\"0000-01-01\").durationSince(datetime(\"1970-01-01\")) == duration(\"-62167219200000ms\")" },
        { 'a', "datetime(\"9999-12-31\").durationSince(datetime(\"1970-01-01\")) == duration(\"2932896d\")" },
        { 'a', "datetime(\"2000-03-01\").durationSince(datetime(\"2000-02-28\")) == duration(\"2d\")" },
        { 'a', "datetime(\"2100-03-01\").durationSince(datetime(\"2100-02-28\")) == duration(\"1d\")" },
        { 'e', "datetime(\"1970-01-02\").offset(duration(\"9223372036854775807ms\")) == 1" },
        { 'e', "datetime(\"1969-12-31\")"
            ".durationSince(datetime(\"1970-01-01\").offset(duration(\"9223372036854775807ms\"))) == 1" },
        { 'a', "datetime(\"1970-01-01\").offset(duration(\"-1ms\")).toDate() == datetime(\"1969-12-31\")" },
        { 'a', "datetime(\"1970-01-01\").offset(duration(\"-1ms\")).toTime() == duration(\"23h59m59s999ms\")" },
        { 'a', "datetime(\"1969-12-31\").toDate() == datetime(\"1969-12-31\")" },
        { 'e', "datetime(\"1970-01-01\").offset(duration(\"-9223372036854775808ms\")).toDate() == 1" },
        { 'a', "datetime(\"1970-01-01\").offset(duration(\"-9223372036854775808ms\")).toTime() > duration(\"0ms\")" },
        { 'e', "duration(\"\") == 1" }, { 'e', "duration(\"-\") == 1" }, { 'e', "duration(\"1\") == 1" },
        { 'e', "duration(\"d\") == 1" },
        { 'e', "duration(\"1h1d\") == 1" }, { 'e', "duration(\"1dd\") == 1" }, { 'e', "duration(\"1 d\") == 1" },
        { 'e', "duration(\"1d1d\") == 1" }, { 'e', "duration(\"1d-1h\") == 1" }, { 'e', "duration(\"1D\") == 1" },
        { 'a', "duration(\"1m1ms\").toMilliseconds() == 60001" },
        { 'a', "duration(\"-1d1h1m1s1ms\").toMilliseconds() == -90061001" },
        { 'e', "duration(\"9223372036854775808ms\") == 1" }, { 'd', "duration(\"-9223372036854775808ms\") == 1" },
        { 'a', "duration(\"-106751991167d7h12m55s808ms\").toMilliseconds() == -9223372036854775808" },
        { 'e', "duration(\"-106751991168d\") == 1" }, { 'a', "duration(\"-1999ms\").toSeconds() == -1" },
        { 'a', "duration(\"61s\").toMinutes() == 1 && duration(\"61m\").toHours() == 1 && "
        "duration(\"-25h\").toDays() == -1" },
        { 'a', "duration(\"1d\") > duration(\"1h\")" }, { 'e', "duration(\"1d\") > 5" },
        { 'e', "duration(\"1d\") > datetime(\"1970-01-01\")" },
    };

    check_all(e, ARRAY_LEN(e));
}

static void test_grammar(void **state)
{
    static const struct expected e[] = {
        { 'p', "true && if true then true else true" }, { 'p', "1 < 2 < 3" }, { 'p', "1 == 1 == true" },
        { 'p', "!!!!!true" },
        { 'p', "-----1 == -1" }, { 'p', "!-1 == 1" }, { 'p', "-!true" }, { 'p', "9223372036854775808 == 1" },
        { 'p', "-9223372036854775809 == 1" }, { 'p', "-(9223372036854775808) == 1" },
        { 'p', "-9223372036854775808.a == 1" },
        { 'e', "-1.a == 1" }, { 'p', "principal.if == 1" }, { 'e', "principal.permit == 1" }, { 'p', "{if: 1} == 1" },
        { 'd', "{\"if\": 1} == 1" }, { 'p', "{a: 1, \"a\": 2} == 1" }, { 'a', "{a: 1,} == {a: 1}" },
        { 'a', "[1,] == [1]" },
        { 'p', "[,] == 1" }, { 'p', "{,} == 1" }, { 'p', "principal has \"r\".a" }, { 'p', "principal has (n)" },
        { 'p', "principal has if" }, { 'p', "principal has n == true" }, { 'a', "\"a\\u{1_0}\" != \"a\"" },
        { 'p', "\"\\x80\" == 1" },
        { 'p', "\"\\e\" == 1" }, { 'p', "\"\\u{d800}\" == 1" }, { 'p', "\"\\u{110000}\" == 1" },
        { 'p', "\"\\u{}\" == 1" },
        { 'p', "\"\\u{_1}\" == 1" }, { 'p', "\"\\*\" == 1" }, { 'p', "\"a\" like principal" },
        { 'p', "\"a\" like (\"a\")" },
        { 'p', "principal is \"U\"" }, { 'p', "principal is __cedar::U" }, { 'p', "principal.__cedar" },
        { 'e', "principal[\"__cedar\"]" }, { 'p', "principal[\"r\" + \"a\"]" }, { 'e', "principal.contains == 1" },
        { 'p', "[1].contains(1, 2)" }, { 'p', "[1].contains()" }, { 'p', "[].isEmpty(1)" }, { 'p', "[1].foo(1)" },
        { 'p', "foo(1)" }, { 'p', "isIpv4(ip(\"1.1.1.1\"))" }, { 'p', "\"1.1.1.1\".ip()" }, { 'p', "A::ip(\"1\")" },
        { 'p', "ip" },
        { 'd', "ip::\"a\" == 1" }, { 'd', "principal::\"a\" == 1" }, { 'd', "context::A::\"a\" == 1" },
        { 'p', "if::\"a\" == 1" },
        { 'a', "U :: \"a\" == principal" }, { 'p', "U::\"a\\*\" == 1" }, { 'p', "U::{a: 1}" }, { 'p', "A::b.c" },
        { 'p', "1 = 1" }, { 'p', "1 / 2" }, { 'p', "1 % 2" }, { 'p', "a" }, { 'p', "1a == 1" }, { 'p', "principal()" },
        { 'p', "(principal.contains)(1)" }, { 'p', "?principal == principal" }, { 'p', "unknown(\"x\")" },
        { 'p', "'a'" },
        { 'p', "true & true" }, { 'p', "\"a" }, { 'p', "principal is U in U::\"a\" in U::\"b\"" },
        { 'e', "1 in 2 + 3" },
        { 'p', "if true then 1" }, { 'p', "\"a\rb\" == 1" }, { 'a', "\"a\nb\" like \"a*b\"" }, { 'p', "/* x */ true" },
        { 'a', "true // comment\n" }, { 'a', "\xe2\x80\xa8true\xc2\xa0" }, { 'p', "" },
    };

    check_all(e, ARRAY_LEN(e));
}

static bool parses(const char *text)
{
    struct policy_source source = { STR("p"), str_of(text) };
    struct policy_set *set = NULL;
    bool ok = policy_set_parse(&source, 1, 0, &set, NULL) == OK;

    policy_set_unref(set);
    return ok;
}

static void test_policy_grammar(void **state)
{
    static const char *const good[] = {
        "", " // nothing\n", "permit(principal,action,resource);", "permit(principal,action,resource,);",
        "permit(principal==U::\"a\",action==Action::\"a\",resource==R::\"b\");",
        "permit(principal,action in [],resource);",
        "permit(principal,action in [Action::\"a\",X::Action::\"b\",],resource);",
        "permit(principal,action in Action::\"a\",resource);",
        "permit(principal is U,action,resource is R in R::\"b\");", "permit(principal == (U::\"a\"),action,resource);",
        "permit(principal,action,resource) when {true} unless {false} when {1 == 1};",
        "@if @permit(\"\") @__cedar(\"x\") permit(principal,action,resource);",
        "permit(principal is principal,action,resource);", "permit(principal == permit::\"a\",action,resource);",
        "permit(principal,action,resource);forbid(principal,action,resource);",
    };
    static const char *const bad[] = {
        "permit(principal,action,resource)", "permit(action,principal,resource);", "permit(principal,action);",
        "permit(principal in [U::\"a\"],action,resource);", "permit(principal,action in U::\"a\",resource);",
        "permit(principal,action == Xaction::\"a\",resource);", "permit(principal,action is Action,resource);",
        "permit(principal is U == U::\"a\",action,resource);", "permit(principal in U::\"a\" is U,action,resource);",
        "permit(principal,action,resource) when {};", "permit(principal,action,resource) when true;",
        "permit(principal,action,resource) advice {true};", "@a(\"x\") @a permit(principal,action,resource);",
        "@a() permit(principal,action,resource);", "@a::b(\"x\") permit(principal,action,resource);", ";",
        "Permit(principal,action,resource);", "permit(principal == principal,action,resource);",
        "permit(principal == ?resource,action,resource);", "permit(principal,action == ?action,resource);",
        "permit(principal > U::\"a\",action,resource);", "permit(principal: U,action,resource);",
        "permit(principal is if,action,resource);", "\xef\xbb\xbfpermit(principal,action,resource);",
        "permit(principal,action,resource) when { \"\xff\" == 1 };",
    };

    for (size_t i = 0; i < ARRAY_LEN(good); i++)
        if (!parses(good[i]))
            fail_msg("refused: %s", good[i]);
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        if (parses(bad[i]))
            fail_msg("accepted: %s", bad[i]);
}

static void refused_with(const char *text, const char *message)
{
    struct policy_source source = { STR("mail.cedar"), str_of(text) };
    struct policy_set *set = NULL;
    struct errinfo info = { "" };

    assert_int_equal(policy_set_parse(&source, 1, 0, &set, &info), E_CONFIG);
    assert_null(set);
    if (strcmp(info.text, message) != 0)
        fail_msg("%s\nexpected: %s\ngot:      %s", text, message, info.text);
}

static void test_messages(void **state)
{
    refused_with("permit(principal, action, resource)\nwhen { context.amount < }",
        "mail.cedar:2:25: expected an expression, found `}`");
    refused_with("permit(principal, action, resource)",
        "mail.cedar:1:36: expected `when {`, `unless {` or `;`, found the end of the file");
    refused_with("permit(\n  principal = U::\"a\", action, resource);",
        "mail.cedar:2:13: expected `==`, `in`, `is` or `,`, found `=`");
    refused_with("permit(principal == ?resource, action, resource);",
        "mail.cedar:1:21: expected ?principal here, found `?resource`");
    refused_with("permit(principal, action, resource) when { foo };",
        "mail.cedar:1:44: `foo` is no variable; there are principal, "
        "action, resource and context (an entity is written foo::\"id\")");
    refused_with("permit(principal, action, resource) when { \"\xc3\xa4\xc3\xb6\" == \"\\q\" };",
        "mail.cedar:1:52: `\\q` is not an escape that strings know");
    refused_with("permit(principal, action, resource) when { 1 = 1 };",
        "mail.cedar:1:46: `=` is no operator; did you mean `==`?");
    refused_with("permit(principal, action == User::\"a\", resource);",
        "mail.cedar:1:29: expected an entity of type Action, found one of type User");
    refused_with("permit(principal, action, resource) when { # };",
        "mail.cedar:1:44: this character begins no token");
    refused_with("@id(\"x\") permit(principal, action, resource);\n@id(\"x\") forbid(principal, action, resource);",
        "mail.cedar:2:1: there is a policy with the id `x` already, at mail.cedar:1:1");
}

/* --- heads and effects ------------------------------------------------------------------------------------------ */

static void test_heads(void **state)
{
    static const struct { bool match; const char *head; } cases[] = {
        { true, "principal, action, resource" }, { true, "principal == U::\"a\", action, resource" },
        { false, "principal == U::\"b\", action, resource" }, { false, "principal == G::\"staff\", action, resource" },
        { true, "principal in U::\"a\", action, resource" }, { true, "principal in G::\"all\", action, resource" },
        { false, "principal in G::\"none\", action, resource" }, { true, "principal is U, action, resource" },
        { false, "principal is G, action, resource" }, { true, "principal is U in G::\"staff\", action, resource" },
        { false, "principal is G in G::\"staff\", action, resource" },
        { true, "principal, action == Action::\"send\", resource" },
        { false, "principal, action == Action::\"writes\", resource" },
        { true, "principal, action in Action::\"writes\", resource" },
        { true, "principal, action in [Action::\"x\", Action::\"send\", Action::\"writes\"], resource" },
        { false, "principal, action in [Action::\"x\"], resource" }, { false, "principal, action in [], resource" },
        { true, "principal, action, resource == R::\"box\"" },
        { true, "principal, action, resource is R in R::\"box\"" },
        { false, "principal, action, resource in R::\"other\"" }, { false, "principal, action, resource is U" },
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct policy_decision d;
        char text[300];

        snprintf(text, sizeof(text), "permit(%s);", cases[i].head);
        d = decide_text(text, request("a", "send", "box"));
        if ((d.effect == POLICY_ALLOW) != cases[i].match)
            fail_msg("%s", text);
    }
}

static void test_effects(void **state)
{
    struct policy_decision d;

    d = decide_text("", request("a", "send", "box"));
    assert_int_equal(d.effect, POLICY_DENY);
    assert_int_equal(d.n_reasons, 0);

    d = decide_text("permit(principal, action, resource); permit(principal is G, action, resource); "
        "permit(principal, action, resource);",
        request("a", "send", "box"));
    assert_int_equal(d.effect, POLICY_ALLOW);
    assert_int_equal(d.n_reasons, 2);
    assert_int_equal(d.reasons[0], 0);
    assert_int_equal(d.reasons[1], 2);

    d = decide_text("permit(principal, action, resource); forbid(principal, action, resource) when { principal.n == "
        "1 };"
        "forbid(principal, action, resource) when { principal.zz == 1 }; permit(principal, action, resource) when { "
        "1 };",
        request("a", "send", "box"));
    assert_int_equal(d.effect, POLICY_DENY);
    assert_int_equal(d.n_reasons, 1);
    assert_int_equal(d.reasons[0], 1);
    assert_int_equal(d.n_errors, 2);
    assert_int_equal(d.n_forbid_errors, 1);
    assert_int_equal(d.errors[0].policy, 2);
    assert_int_equal(d.errors[0].fault, POLICY_FAULT_NO_ATTR);
    assert_int_equal(d.errors[0].line, 1);
    assert_int_equal(d.errors[1].fault, POLICY_FAULT_TYPE);

    /* A forbid that fails does not forbid. */
    d = decide_text("permit(principal, action, resource); forbid(principal, action, resource) when { principal.zz };",
        request("a", "send", "box"));
    assert_int_equal(d.effect, POLICY_ALLOW);
    assert_int_equal(d.n_forbid_errors, 1);
    d = decide_text("permit(principal, action, resource) unless { principal.n == 1 };", request("a", "send", "box"));
    assert_int_equal(d.effect, POLICY_DENY);
}

static void test_approvals(void **state)
{
    struct policy_set *set = parse("@approval(\"finance\") permit(principal, action, resource); @approval(\"legal\") "
        "permit(principal, action, resource); @approval(\"finance\") permit(principal is U, action, resource);");
    struct policy_request r = request("a", "send", "box");
    struct policy_decision d;

    assert_int_equal(policy_decide(set, &r, &d), OK);
    assert_int_equal(d.effect, POLICY_NEEDS_APPROVAL);
    assert_int_equal(d.n_reasons, 3);
    assert_int_equal(d.n_roles, 2);
    assert_true(str_is(d.roles[0], "finance"));
    assert_true(str_is(d.roles[1], "legal"));
    policy_set_unref(set);

    d = decide_text("@approval(\"finance\") permit(principal, action, resource); permit(principal, action, resource);",
        request("a", "send", "box"));
    assert_int_equal(d.effect, POLICY_ALLOW);
    assert_int_equal(d.n_roles, 0);

    d = decide_text("@approval(\"finance\") permit(principal, action, resource); @approval(\"x\") forbid(principal, "
        "action, resource);",
        request("a", "send", "box"));
    assert_int_equal(d.effect, POLICY_DENY);
    assert_int_equal(d.n_roles, 0);
    assert_int_equal(d.n_reasons, 1);
}

static void test_ids_and_version(void **state)
{
    static const char one[] = "@id(\"first\") permit(principal, action, resource);\npermit(principal, action, "
        "resource);";
    struct policy_source sources[] = { { STR("a.cedar"), str_of(one) },
        { STR("b.cedar"), STR("forbid(principal,action,resource);") } };
    struct policy_source spaced = { STR("a.cedar"),
        STR("@id(\"first\")\tpermit ( principal,action,resource ) ; // words\n permit(principal,action,resource);") };
    struct policy_set *a, *b, *c;

    assert_int_equal(policy_set_parse(sources, 2, 0, &a, NULL), OK);
    assert_int_equal(policy_set_count(a), 3);
    assert_true(str_is(policy_set_info(a, 0).id, "first"));
    assert_true(str_is(policy_set_info(a, 1).id, "a.cedar#1"));
    assert_true(str_is(policy_set_info(a, 2).id, "b.cedar#0"));
    assert_true(policy_set_info(a, 2).forbid);
    assert_int_equal(policy_set_info(a, 1).line, 2);
    assert_true(str_is(policy_set_annotation(a, 0, "id"), "first"));
    assert_null(policy_set_annotation(a, 1, "id").p);
    assert_int_equal(strlen(policy_set_version(a)), 64);

    assert_int_equal(policy_set_parse(sources, 1, 0, &b, NULL), OK);
    assert_int_equal(policy_set_parse(&spaced, 1, 0, &c, NULL), OK);
    assert_string_equal(policy_set_version(b), policy_set_version(c));
    assert_string_not_equal(policy_set_version(a), policy_set_version(b));
    policy_set_unref(b);
    policy_set_unref(c);
    assert_int_equal(policy_set_parse(sources, 2, POLICY_IDS_POSITIONAL, &b, NULL), OK);
    assert_true(str_is(policy_set_info(b, 2).id, "policy2"));
    policy_set_unref(policy_set_ref(b));
    policy_set_unref(b);
    policy_set_unref(a);
    c = parse("permit(principal,action,resource);permit(principal,action,resource);");
    assert_true(str_is(policy_set_info(c, 1).id, "policy1"));
    policy_set_unref(c);
}

/* --- entities and values ------------------------------------------------------------------------------------------ */

static enum err add_json(const char *json)
{
    struct policy_entities *s = policy_entities_new();
    enum err e = policy_entities_add_json(s, str_of(json), NULL);

    if (!e)
        e = policy_entities_freeze(s, NULL);
    policy_entities_unref(s);
    return e;
}

#define ENTITY(id, rest) "{\"uid\": {\"type\": \"U\", \"id\": \"" id "\"}, " rest "}"
#define PLAIN "\"attrs\": {}, \"parents\": []"
#define ATTR(v) "[" ENTITY("a", "\"attrs\": {\"x\": " v "}, \"parents\": []") "]"

static void test_entity_json(void **state)
{
    static const char *const good[] = {
        "[]", "[" ENTITY("a", PLAIN) "]", "[" ENTITY("a", PLAIN) ", " ENTITY("a", PLAIN) "]", ATTR("[1, \"a\", {}]"),
        "[{\"uid\": {\"__entity\": {\"type\": \"A::B\", \"id\": \"\"}}, " PLAIN "}]", ATTR("{\"__entity\": 1}"),
        ATTR("{\"__extn\": {\"fn\": \"offset\", \"args\": [{\"__extn\": {\"fn\": \"datetime\", \"arg\": "
            "\"1970-01-01\"}},"
            "{\"__extn\": {\"fn\": \"duration\", \"arg\": \"1ms\"}}]}}"),
    };
    static const char *const bad[] = {
        "", "{}", "[1]", "[" ENTITY("a", "\"parents\": []") "]", "[" ENTITY("a", "\"attrs\": {}") "]", ATTR("null"),
        ATTR("1.5"),
        ATTR("9223372036854775808"), ATTR("{\"__extn\": {\"fn\": \"ip\", \"arg\": \"x\"}}"),
            ATTR("{\"__extn\": {\"fn\": \"zip\", \"arg\": \"x\"}}"),
        ATTR("{\"__expr\": \"1\"}"), ATTR("{\"__entity\": {\"type\": \"if\", \"id\": \"a\"}}"),
            ATTR("{\"a\": 1, \"a\": 2}"),
        "[{\"uid\": {\"type\": \"U ::B\", \"id\": \"\"}, " PLAIN "}]", "[{\"uid\": \"U::a\", " PLAIN "}]",
        "[" ENTITY("a", "\"attrs\": {}, \"parents\": [{\"type\": \"U\", \"id\": \"a\"}]") "]",
        "[" ENTITY("a", "\"attrs\": {}, \"parents\": [{\"type\": \"U\", \"id\": \"b\"}]") ", "
            ENTITY("b", "\"attrs\": {}, \"parents\": [{\"type\": \"U\", \"id\": \"a\"}]") "]",
        "[" ENTITY("a", PLAIN) ", " ENTITY("a", "\"attrs\": {\"x\": 1}, \"parents\": []") "]",
        ("[{\"uid\": {\"type\": \"Action\", \"id\": \"\"}, \"attrs\": {}, "
            "\"parents\": [{\"type\": \"U\", \"id\": \"a\"}]}]"),
    };

    for (size_t i = 0; i < ARRAY_LEN(good); i++)
        if (add_json(good[i]))
            fail_msg("refused: %s", good[i]);
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        if (!add_json(bad[i]))
            fail_msg("accepted: %s", bad[i]);
}

static void test_deep_hierarchy(void **state)
{
    struct policy_entities *s = policy_entities_new();
    struct policy_value none = { 0 };
    struct policy_uid first, uid, up;
    char a[16], b[16];

    for (unsigned i = 0; i < 1500; i++) {
        snprintf(a, sizeof(a), "%u", i);
        snprintf(b, sizeof(b), "%u", i + 1);
        uid = policy_uid(STR("G"), str_of(a));
        up = policy_uid(STR("G"), str_of(b));
        assert_int_equal(policy_entities_add(s, &uid, none, none, &up, 1, NULL), OK);
    }
    assert_int_equal(policy_entities_freeze(s, NULL), OK);
    first = policy_uid(STR("G"), STR("0"));
    assert_int_equal(policy_entities_count(s), 1500);
    assert_int_equal(policy_entities_find(s, &first)->n_ancestors, 1500);
    policy_entities_unref(policy_entities_ref(s));
    policy_entities_unref(s);
}

static void test_layer(void **state)
{
    struct policy_uid tenant = policy_uid(STR("Tenant"), STR("t")), group = policy_uid(STR("G"), STR("staff"));
    const struct policy_uid *up[] = { &group, &tenant }, *above[] = { &tenant };
    struct policy_request r = request("new", "send", "box");
    struct policy_attr attrs[] = { { STR("level"), policy_long(7) } };
    struct policy_layer l;
    struct policy_decision d;

    policy_layer_init(&l, store);
    assert_int_equal(policy_layer_add(&l, &arena, who, policy_record_of(attrs, 1), up, 2), OK);
    assert_int_equal(policy_layer_add(&l, &arena, which, (struct policy_value){ 0 }, above, 1), OK);
    assert_int_equal(policy_layer_add(&l, &arena, who, (struct policy_value){ 0 }, NULL, 0), E_CALL_TOO_LARGE);
    r.entities = &l;
    d = decide_text("permit(principal in G::\"all\", action in Action::\"writes\", resource in Tenant::\"t\")"
        "when { principal.level == 7 && principal in Tenant::\"t\" };", r);
    assert_int_equal(d.effect, POLICY_ALLOW);
    /* The base is still there. */
    who = policy_uid(STR("U"), STR("a"));
    d = decide_text("permit(principal in G::\"staff\", action, resource) when { principal.n == 1 };", r);
    assert_int_equal(d.effect, POLICY_ALLOW);
}

static struct policy_value from_json(const char *json, enum policy_json mode)
{
    struct policy_value v = { 0 };
    struct json *j;

    assert_int_equal(json_parse(&arena, str_of(json), NULL, &j, NULL), OK);
    return policy_value_from_json(&arena, j, mode, &v, NULL) ? (struct policy_value){ 0 } : v;
}

static void check_text(const char *json, const char *text)
{
    struct policy_value v = from_json(json, POLICY_JSON_PLAIN);
    struct buf b = BUF_INIT(1000);

    policy_value_write(&b, &v);
    if (!str_is(buf_str(&b), text))
        fail_msg("%s: expected %s, got %.*s", json, text, STR_ARG(buf_str(&b)));
    buf_release(&b);
}

static void test_plain_json(void **state)
{
    struct policy_request r = request("a", "send", "box");

    check_text("{\"b\": [2, 1, 2], \"a\": \"x\\n\", \"n\": null}", "{\"a\": \"x\\n\", \"b\": [1, 2]}");
    check_text("{\"__entity\": {\"type\": \"U\", \"id\": \"root\"}}",
        "{\"__entity\": {\"id\": \"root\", \"type\": \"U\"}}");
    check_text("[1.50, -0.25, 3.0, 2e2]", "[3, 200, decimal(\"-0.2500\"), decimal(\"1.5000\")]");
    check_text("1.00001", "<not a Cedar value: 1.00001>");
    check_text("[null]", "[<not a Cedar value: null>]");
    assert_int_equal(from_json("1.5", POLICY_JSON_CEDAR).kind, POLICY_NONE);
    assert_int_equal(from_json("[null]", POLICY_JSON_CEDAR).kind, POLICY_NONE);
    assert_int_equal(from_json("{\"__entity\": {\"type\": \"U\", \"id\": \"a\"}}", POLICY_JSON_CEDAR).kind,
        POLICY_ENTITY);

    /* What a caller sends cannot become an entity, and a number that does not fit is an error, not a small number. */
    r.context = from_json("{\"args\": {\"to\": {\"__entity\": {\"type\": \"U\", \"id\": \"a\"}}, \"amount\": "
        "0.00001}}", POLICY_JSON_PLAIN);
    assert_int_equal(decide_text("permit(principal, action, resource) when { context.args.to == principal };",
        r).effect, POLICY_DENY);
    assert_int_equal(decide_text("permit(principal, action, resource) when { context.args.amount < 1 };", r).n_errors,
        1);
}

static void test_scratch_overflow(void **state)
{
    struct policy_request r = request("a", "send", "box");
    struct policy_set *set = parse("permit(principal, action, resource); forbid(principal, action, resource) when { "
        "[principal.n, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13].contains(1) };");
    struct policy_decision d;
    struct arena tiny;

    /* A forbid that runs out of memory must not be passed over. */
    arena_init(&tiny, 64);
    r.scratch = &tiny;
    assert_int_equal(policy_decide(set, &r, &d), E_CALL_TOO_LARGE);
    arena_release(&tiny);
    r.scratch = &arena;
    assert_int_equal(policy_decide(set, &r, &d), OK);
    assert_int_equal(d.effect, POLICY_DENY);
    r.context = (struct policy_value){ 0 };
    assert_int_equal(policy_decide(set, &r, &d), E_CALL_TOO_LARGE);
    policy_set_unref(set);
}

/* --- listing ---------------------------------------------------------------------------------------------------- */

static bool could(const char *text, const char *resource_type)
{
    struct policy_attr attrs[] = { { STR("args"), policy_unknown() }, { STR("side"), policy_string(STR("user")) } };
    struct policy_request r = request("a", "send", "box");
    struct policy_set *set = parse(text);
    bool yes;

    r.context = policy_record_of(attrs, 2);
    r.resource_unknown = resource_type != NULL;
    r.resource_type = str_of(resource_type);
    yes = policy_could_allow(set, &r);
    policy_set_unref(set);
    return yes;
}

static void test_could_allow(void **state)
{
    static const struct { bool yes; const char *text; } cases[] = {
        { false, "" }, { true, "permit(principal, action, resource);" },
        { false, "permit(principal, action, resource); forbid(principal, action, resource);" },
        { true, "permit(principal, action, resource) when { context.args.n > 3 };" },
        { true, "permit(principal, action, resource); forbid(principal, action, resource) when { context.args.n > 3 "
        "};" },
        { false, "permit(principal, action, resource) when { context.args.n > 3 && principal.n == 2 };" },
        { true, "permit(principal, action, resource) when { context.args.n > 3 || principal.n == 2 };" },
        { false, "permit(principal, action, resource) when { context.args.n > 3 && principal.zz == 2 };" },
        { false, "permit(principal, action, resource) when { context.side == \"agent\" };" },
        { true, "permit(principal, action, resource); forbid(principal, action, resource) when { context.args.n > 3 "
        "&& principal.n == 1 };" },
        { false, "permit(principal, action, resource); forbid(principal, action, resource) when { principal.n == 1 "
        "};" },
        { true, "permit(principal, action, resource == R::\"other\");" },
        { false, "permit(principal, action, resource == S::\"other\");" },
        { true, "permit(principal, action, resource in G::\"x\");" },
        { false, "permit(principal, action, resource is S);" },
        { true, "permit(principal, action, resource is R in G::\"x\");" },
        { true, "permit(principal, action, resource) when { resource.owner == principal };" },
        { true, "permit(principal, action, resource); forbid(principal, action, resource in G::\"x\");" },
        { false, "permit(principal, action, resource); forbid(principal, action, resource is R);" },
        { false, "permit(principal, action, resource) when { resource is S };" },
        { true, "permit(principal, action, resource) when { resource is R };" },
        { true, "permit(principal, action, resource) when { if context.args.b then false else false };" },
        { true, "@approval(\"x\") permit(principal, action, resource);" },
        { true, "permit(principal, action, resource); forbid(principal, action, resource) unless { "
        "[context.args.zz].isEmpty() };" },
        { true, "permit(principal, action, resource); forbid(principal, action, resource) when { {a: "
        "context.args.zz, b: 1}.b == 1 };" },
        { false, "permit(principal, action == Action::\"other\", resource) when { context.args.n > 3 };" },
        { true, "permit(principal, action, resource) when { [context.args.a, 1] == [2] && {a: context.args}.a.b && "
        "context == {} };" },
        { true, "permit(principal, action, resource) when { ip(context.args.ip).isLoopback() && context.args.s like "
        "\"a*\" && context.args has b.c };" },
        { true, "permit(principal, action, resource) when { principal in context.args.groups && !context.args.no && "
        "-context.args.k + 1 < 2 };" },
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        if (could(cases[i].text, "R") != cases[i].yes)
            fail_msg("%s", cases[i].text);
    assert_true(could("permit(principal, action, resource is S);", ""));
    assert_false(could("permit(principal, action, resource == R::\"other\");", NULL));
}

/* --- limits ------------------------------------------------------------------------------------------------------- */

static char *repeat(const char *before, const char *unit, const char *middle, const char *close, unsigned n,
    const char *after)
{
    struct buf b = BUF_INIT(16 << 20);
    size_t len;

    buf_add_z(&b, before);
    for (unsigned i = 0; i < n; i++)
        buf_add_z(&b, unit);
    buf_add_z(&b, middle);
    for (unsigned i = 0; i < n; i++)
        buf_add_z(&b, close);
    buf_add_z(&b, after);
    buf_add_c(&b, '\0');
    return buf_take(&b, &len);
}

static void parses_deep(bool ok, const char *unit, const char *middle, const char *close, unsigned n)
{
    char *text = repeat("permit(principal, action, resource) when { ", unit, middle, close, n, " };");

    if (parses(text) != ok)
        fail_msg("%u times %s%s", n, unit, close);
    free(text);
}

static void test_depth(void **state)
{
    parses_deep(true, "(", "true", ")", 190);
    parses_deep(false, "(", "true", ")", 100000);
    parses_deep(false, "[", "", "]", 100000);
    parses_deep(false, "{a:", "1", "}", 100000);
    parses_deep(false, "if true then ", "1", " else 1", 100000);
    parses_deep(true, "true && ", "true", "", 20000);
    parses_deep(true, "false || ", "true", "", 20000);
    parses_deep(true, "1 + ", "1", "", 900);
    parses_deep(false, "1 + ", "1", "", 100000);
    parses_deep(false, "", "context", ".a", 100000);
    parses_deep(false, "", "context has a", ".a", 100000);
    parses_deep(true, "[1].contains(", "1", ")", 190);
    parses_deep(false, "ip(", "", ")", 100000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_operators, setup, teardown),
        cmocka_unit_test_setup_teardown(test_entities_in_expressions, setup, teardown),
        cmocka_unit_test_setup_teardown(test_like, setup, teardown),
        cmocka_unit_test_setup_teardown(test_decimal_and_ip, setup, teardown),
        cmocka_unit_test_setup_teardown(test_datetime_and_duration, setup, teardown),
        cmocka_unit_test_setup_teardown(test_grammar, setup, teardown),
        cmocka_unit_test(test_policy_grammar),
        cmocka_unit_test(test_messages),
        cmocka_unit_test_setup_teardown(test_heads, setup, teardown),
        cmocka_unit_test_setup_teardown(test_effects, setup, teardown),
        cmocka_unit_test_setup_teardown(test_approvals, setup, teardown),
        cmocka_unit_test(test_ids_and_version),
        cmocka_unit_test(test_entity_json),
        cmocka_unit_test(test_deep_hierarchy),
        cmocka_unit_test_setup_teardown(test_layer, setup, teardown),
        cmocka_unit_test_setup_teardown(test_plain_json, setup, teardown),
        cmocka_unit_test_setup_teardown(test_scratch_overflow, setup, teardown),
        cmocka_unit_test_setup_teardown(test_could_allow, setup, teardown),
        cmocka_unit_test(test_depth),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
