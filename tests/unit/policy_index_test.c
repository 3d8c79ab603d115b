/*
 * policy_index_test.c -- what the index leaves out decides nothing: whole sets against each policy alone, at random;
 * and its order does not show in what a decision names
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

static int setup(void **state)
{
    arena_init(&arena, 16 << 20);
    return 0;
}

static int teardown(void **state)
{
    arena_release(&arena);
    return 0;
}

/* --- heads ------------------------------------------------------------------------------------------------------ */

static uint64_t rng = 88172645463325252u;

static unsigned pick(unsigned n)
{
    rng ^= rng << 13;
    rng ^= rng >> 7;
    rng ^= rng << 17;
    return (unsigned)(rng % n);
}

static void add_side(struct buf *b, const char *name, const char *type)
{
    buf_add_z(b, name);
    switch (pick(6)) {
    case 0: buf_addf(b, " == %s::\"%u\"", type, pick(20)); break;
    case 1: buf_addf(b, " in Group::\"%u\"", pick(20)); break;
    case 2: buf_addf(b, " is %s", pick(4) ? type : "Other"); break;
    case 3: buf_addf(b, " is %s in Group::\"%u\"", type, pick(20)); break;
    }
}

static void add_policy(struct buf *b)
{
    buf_add_z(b, pick(4) ? "permit(" : "forbid(");
    add_side(b, "principal", "User");
    buf_add_z(b, ", action");
    switch (pick(4)) {
    case 0: buf_addf(b, " == Action::\"%u\"", pick(10)); break;
    case 1: buf_addf(b, " in Action::\"g%u\"", pick(3)); break;
    case 2: buf_addf(b, " in [Action::\"%u\", Action::\"g%u\", Action::\"%u\"]", pick(10), pick(3), pick(10)); break;
    }
    buf_add_z(b, ", ");
    add_side(b, "resource", "Box");
    buf_add_z(b, ");\n");
}

/* The n-th policy of the text, alone in a set of its own, is its own index. */
static bool holds_alone(struct str policy, const struct policy_request *r)
{
    struct policy_source source = { STR_NULL, policy };
    struct policy_set *set;
    struct policy_decision d;

    assert_int_equal(policy_set_parse(&source, 1, 0, &set, NULL), OK);
    assert_int_equal(policy_decide(set, r, &d), OK);
    policy_set_unref(set);
    return d.n_reasons == 1;
}

struct seen {
    unsigned times[400];
};

static void observe(void *arg, uint32_t policy, int verdict)
{
    struct seen *s = arg;

    assert_int_equal(verdict, POLICY_IS_TRUE);
    s->times[policy]++;
}

static void one_request(const struct policy_set *set, const struct policy_layer *l, struct str *policies, unsigned n)
{
    char id[4][8];
    struct policy_uid p, a, r;
    struct policy_request q = { .principal = &p, .action = &a, .resource = &r, .entities = l, .scratch = &arena,
        .context = policy_record_of(NULL, 0) };
    struct policy_decision d;
    struct seen s = { { 0 } };

    for (int i = 0; i < 3; i++)
        snprintf(id[i], sizeof(id[i]), "%u", pick(i == 1 ? 10 : 20));
    p = policy_uid(pick(9) ? STR("User") : STR("Other"), str_of(id[0]));
    a = policy_uid(STR("Action"), str_of(id[1]));
    r = policy_uid(STR("Box"), str_of(id[2]));
    q.observe = observe;
    q.observe_arg = &s;
    assert_int_equal(policy_decide(set, &q, &d), OK);
    q.observe = NULL;
    for (unsigned i = 0; i < n; i++)
        if (s.times[i] != holds_alone(policies[i], &q))
            fail_msg("policy reached %u times: %.*s for %s, %s, %s", s.times[i], STR_ARG(policies[i]), id[0], id[1],
                id[2]);
}

static void random_store(struct policy_entities *s)
{
    char id[3][8];
    struct policy_uid uid, up[2];
    struct policy_value none = { 0 };

    for (unsigned i = 0; i < 20; i++) {
        for (int k = 0; k < 3; k++)
            snprintf(id[k], sizeof(id[k]), k ? "%u" : "%u", k ? pick(20) : i);
        up[0] = policy_uid(STR("Group"), str_of(id[1]));
        up[1] = policy_uid(STR("Group"), str_of(id[2]));
        uid = policy_uid(STR("User"), str_of(id[0]));
        assert_int_equal(policy_entities_add(s, &uid, none, none, up, pick(3), NULL), OK);
        uid = policy_uid(STR("Box"), str_of(id[0]));
        assert_int_equal(policy_entities_add(s, &uid, none, none, up, pick(3), NULL), OK);
        snprintf(id[1], sizeof(id[1]), "%u", i + 1 + pick(5));      /* upwards only: no ring */
        up[0] = policy_uid(STR("Group"), str_of(id[1]));
        uid = policy_uid(STR("Group"), str_of(id[0]));
        assert_int_equal(policy_entities_add(s, &uid, none, none, up, 1, NULL), OK);
        snprintf(id[1], sizeof(id[1]), "g%u", pick(3));
        snprintf(id[2], sizeof(id[2]), "g%u", pick(3));
        up[0] = policy_uid(STR("Action"), str_of(id[1]));
        up[1] = policy_uid(STR("Action"), str_of(id[2]));
        uid = policy_uid(STR("Action"), str_of(id[0]));
        assert_int_equal(policy_entities_add(s, &uid, none, none, up, pick(3), NULL), OK);
    }
    assert_int_equal(policy_entities_freeze(s, NULL), OK);
}

static void test_index(void **state)
{
    for (int round = 0; round < 6; round++) {
        struct policy_entities *s = policy_entities_new();
        struct buf text = BUF_INIT(1 << 20);
        struct policy_source source;
        struct policy_layer l;
        struct policy_set *set;
        struct str policies[400];
        size_t from[401] = { 0 };
        unsigned n = round == 0 ? 8 : 400;

        random_store(s);
        for (unsigned i = 0; i < n; i++) {
            add_policy(&text);
            from[i + 1] = text.len;
        }
        for (unsigned i = 0; i < n; i++)
            policies[i] = str_n(text.p + from[i], from[i + 1] - from[i]);
        source = (struct policy_source){ STR_NULL, buf_str(&text) };
        assert_int_equal(policy_set_parse(&source, 1, 0, &set, NULL), OK);
        policy_layer_init(&l, s);
        for (int k = 0; k < 15; k++)
            one_request(set, &l, policies, n);
        policy_set_unref(set);
        policy_entities_unref(s);
        buf_release(&text);
    }
}

/* --- conditions ------------------------------------------------------------------------------------------------- */

enum { MANY = 100, REQUESTS = 60, ROUNDS = 80, CONJUNCTS = 30, THEMES = 3 };

/* What most conjuncts of a set are like: an index splits by what many have. */
static unsigned themes[THEMES];

/* Of what an index may use, of what it may not, and of what only looks like it. */
static void add_conjunct(struct buf *b)
{
    unsigned n = pick(3), m = pick(3);

    switch (pick(6) ? themes[pick(THEMES)] : pick(CONJUNCTS)) {
    case 0: buf_addf(b, "principal in Group::\"%u\"", n); break;
    case 1: buf_addf(b, "principal == User::\"%u\"", n); break;
    case 2: buf_addf(b, "Action::\"%u\" == action", n); break;
    case 3: buf_add_z(b, n ? "principal is User" : "principal is Other"); break;
    case 4: buf_addf(b, "resource is Box in Group::\"%u\"", n); break;
    case 5: buf_addf(b, "action in [Action::\"g%u\", Action::\"%u\"]", n, m); break;
    case 6: buf_addf(b, "resource in Group::\"%u\"", n); break;
    case 7: buf_add_z(b, n ? "principal in resource" : "resource in context.a"); break;
    case 8: case 9: buf_add_z(b, "principal has name"); break;
    case 10: case 11: buf_addf(b, "principal.name == \"n%u\"", n); break;
    case 12: buf_addf(b, "\"n%u\" == resource.name", n); break;
    case 13: buf_add_z(b, "principal has friend"); break;
    case 14: buf_addf(b, "principal.friend == User::\"%u\"", n); break;
    case 15: buf_addf(b, "principal.friend.name == \"n%u\"", n); break;
    case 16: buf_add_z(b, "principal.friend has name"); break;
    case 17: case 18: buf_add_z(b, "context has a"); break;
    case 19: buf_addf(b, "context.a == %u", n); break;
    case 20: buf_add_z(b, "context.a has b"); break;
    case 21: buf_add_z(b, n ? "context has a.b" : "context has a.b.c"); break;
    case 22: case 23: buf_addf(b, "context.a.b == %u", n); break;
    case 24: buf_addf(b, "context.a.b.c == %s", n ? "true" : "false"); break;
    case 25: buf_addf(b, "context.a == \"%u\"", n); break;
    case 26: buf_add_z(b, "true"); break;
    case 27: buf_addf(b, "context.a < %u", n); break;
    case 28: buf_addf(b, "(context.a == %u || principal.name == \"n%u\")", n, m); break;
    default: buf_addf(b, "(principal has name && principal.name != \"n%u\")", n);
    }
}

static void add_conditional(struct buf *b)
{
    static const char *const heads[] = { "principal, action, resource", "principal is User, action, resource",
        "principal, action in [Action::\"0\", Action::\"g1\", Action::\"2\"], resource",
        "principal in Group::\"1\", action, resource is Box" };

    buf_addf(b, "%s(%s)", pick(4) ? "permit" : "forbid", heads[pick(2) ? 0 : pick(4)]);
    for (unsigned k = 1 + pick(2); k > 0; k--) {
        buf_add_z(b, pick(8) ? " when { " : " unless { ");
        add_conjunct(b);
        for (unsigned i = pick(4); i > 0; i--) {
            buf_add_z(b, " && ");
            add_conjunct(b);
        }
        buf_add_z(b, " }");
    }
    buf_add_z(b, ";\n");
}

static struct policy_entities *people(void)
{
    struct buf text = BUF_INIT(1 << 20);
    struct policy_entities *s = policy_entities_new();
    struct errinfo info;

    buf_add_c(&text, '[');
    for (unsigned i = 0; i < 12; i++) {
        static const char *const types[] = { "User", "Box", "Other" };

        buf_addf(&text, "%s{\"uid\":{\"type\":\"%s\",\"id\":\"%u\"},\"attrs\":{", i ? "," : "", types[i % 3], i / 3);
        if (pick(3))
            buf_addf(&text, pick(5) ? "\"name\":\"n%u\"" : "\"name\":%u", pick(4));
        else
            buf_addf(&text, "\"friend\":{\"__entity\":{\"type\":\"User\",\"id\":\"%u\"}}", pick(6));
        buf_addf(&text, "},\"parents\":[{\"type\":\"Group\",\"id\":\"%u\"}]}", pick(4));
    }
    for (unsigned i = 0; i < 3; i++)
        buf_addf(&text, ",{\"uid\":{\"type\":\"Action\",\"id\":\"%u\"},\"attrs\":{},\"parents\":[{\"type\":"
            "\"Action\",\"id\":\"g%u\"}]}", i, pick(3));
    buf_add_c(&text, ']');
    if (policy_entities_add_json(s, buf_str(&text), &info) || policy_entities_freeze(s, &info))
        fail_msg("%s", info.text);
    buf_release(&text);
    return s;
}

static struct policy_value one_of(const char *key, struct policy_value v)
{
    struct policy_attr *at = ARENA_NEW(&arena, struct policy_attr);

    *at = (struct policy_attr){ str_of(key), v };
    return policy_record_of(at, 1);
}

/* What stands at a step of context.a.b.c, or below it: of every kind, and perhaps unknown. */
static struct policy_value something(const char *below, bool unknown)
{
    static struct policy_uid users[6];
    struct policy_value elem = policy_long(1);

    switch (pick(unknown ? 9 : 8)) {
    case 0: return policy_long(pick(4));
    case 1: return policy_string(pick(2) ? STR("1") : STR("2"));
    case 2: return policy_bool(pick(2));
    case 3: return policy_set_of(&elem, 0);
    case 4:
        users[0] = policy_uid(STR("User"), pick(2) ? STR("1") : STR("nobody"));
        return policy_entity_value(&users[0]);
    case 8: return policy_unknown();
    }
    return below ? one_of(below, something(*below == 'b' ? "c" : NULL, unknown)) : policy_bool(pick(2));
}

struct verdicts {
    unsigned times[MANY];
    int what[MANY];             /* of what is not run: false */
};

static void hear(void *arg, uint32_t policy, int verdict)
{
    struct verdicts *v = arg;

    v->times[policy]++;
    v->what[policy] = verdict;
}

static void ask(const struct policy_set *set, struct policy_request *q, bool could, struct verdicts *ret)
{
    struct policy_decision d;

    memset(ret, 0, sizeof(*ret));
    q->observe = hear;
    q->observe_arg = ret;
    if (could)
        policy_could_allow(set, q);
    else
        assert_int_equal(policy_decide(set, q, &d), OK);
}

static void compare_sets(const struct policy_set *whole, struct policy_set *const *alone, const struct str *policies,
    const struct policy_layer *l, bool could)
{
    char id[3][8];
    struct policy_uid uids[3];
    struct policy_request q = { .principal = &uids[0], .action = &uids[1], .resource = &uids[2], .entities = l,
        .scratch = &arena };
    struct verdicts all, one;

    for (int i = 0; i < 3; i++)
        snprintf(id[i], sizeof(id[i]), "%u", pick(5));
    uids[0] = policy_uid(pick(4) ? STR("User") : STR("Other"), str_of(id[0]));
    uids[1] = policy_uid(STR("Action"), str_of(id[1]));
    uids[2] = policy_uid(STR("Box"), str_of(id[2]));
    q.context = pick(6) ? one_of("a", something("b", could)) : policy_record_of(NULL, 0);
    q.resource_unknown = could && pick(2);
    ask(whole, &q, could, &all);
    for (unsigned i = 0; i < MANY; i++) {
        ask(alone[i], &q, could, &one);
        if (all.times[i] > 1 || all.what[i] != one.what[0])
            fail_msg("run %u times to %d, alone to %d: %.*s", all.times[i], all.what[i], one.what[0],
                STR_ARG(policies[i]));
    }
}

static void test_conditions(void **state)
{
    static struct policy_set *alone[MANY];
    static struct str policies[MANY];

    for (int round = 0; round < ROUNDS; round++) {
        struct policy_entities *s = people();
        struct buf text = BUF_INIT(1 << 20);
        struct policy_source source;
        struct policy_set *whole;
        struct policy_layer l;
        size_t from[MANY + 1] = { 0 };

        for (unsigned i = 0; i < THEMES; i++)
            themes[i] = pick(CONJUNCTS);
        for (unsigned i = 0; i < MANY; i++) {
            add_conditional(&text);
            from[i + 1] = text.len;
        }
        for (unsigned i = 0; i < MANY; i++) {
            policies[i] = str_n(text.p + from[i], from[i + 1] - from[i]);
            source = (struct policy_source){ STR_NULL, policies[i] };
            assert_int_equal(policy_set_parse(&source, 1, 0, &alone[i], NULL), OK);
        }
        source = (struct policy_source){ STR_NULL, buf_str(&text) };
        assert_int_equal(policy_set_parse(&source, 1, 0, &whole, NULL), OK);
        policy_layer_init(&l, s);
        for (int k = 0; k < REQUESTS; k++) {
            arena_clear(&arena);
            compare_sets(whole, alone, policies, &l, k % 2);
        }
        for (unsigned i = 0; i < MANY; i++)
            policy_set_unref(alone[i]);
        policy_set_unref(whole);
        policy_entities_unref(s);
        buf_release(&text);
    }
}

/* Policies without a head that are told apart by an attribute: run are the one that is meant, and those that fail. */
static void test_conditions_are_indexed(void **state)
{
    struct buf text = BUF_INIT(1 << 20);
    struct policy_source source;
    struct policy_set *set;
    struct policy_uid who = policy_uid(STR("User"), STR("u")), what = policy_uid(STR("Action"), STR("a"));
    struct policy_request q = { .principal = &who, .action = &what, .resource = &who, .scratch = &arena };
    struct verdicts v;
    unsigned run = 0;

    for (unsigned i = 0; i < MANY; i++)
        buf_addf(&text, "permit(principal, action, resource) when { context has a && context.a == %u };\n", i);
    source = (struct policy_source){ STR_NULL, buf_str(&text) };
    assert_int_equal(policy_set_parse(&source, 1, 0, &set, NULL), OK);
    q.context = one_of("a", policy_long(17));
    ask(set, &q, false, &v);
    for (unsigned i = 0; i < MANY; i++)
        run += v.times[i];
    assert_int_equal(run, 1);
    assert_int_equal(v.what[17], POLICY_IS_TRUE);
    q.context = policy_record_of(NULL, 0);
    ask(set, &q, false, &v);
    for (unsigned i = 0; i < MANY; i++)
        assert_int_equal(v.times[i], 0);
    policy_set_unref(set);
    buf_release(&text);
}

/* --- what is named ------------------------------------------------------------------------------------------------ */

/*
 * What User::"a" gets of 40 policies, of which those that ask nothing of the principal are met first and have the
 * highest numbers; others that do not match (40 to 79) make it worth while to index them; `last` follows.
 */
static struct policy_set *decide_many(const char *annotation, const char *condition, const char *last,
                                      struct policy_decision *ret)
{
    struct policy_uid u = policy_uid(STR("User"), STR("a")), act = policy_uid(STR("Action"), STR("send")),
                      box = policy_uid(STR("Box"), STR("b"));
    struct policy_request r = { .principal = &u, .action = &act, .resource = &box, .scratch = &arena,
                                .context = policy_record_of(NULL, 0) };
    struct buf text = BUF_INIT(1 << 16);
    struct policy_source source = { STR("p"), STR_NULL };
    struct policy_set *set;

    for (int i = 0; i < 40; i++)
        buf_addf(&text, "@%s(\"%s\") permit(principal%s, action, resource)%s;", annotation,
                 strcmp(annotation, "budget") == 0 ? "calls/min=1" : i % 2 ? "odd" : i < 20 ? "even" : "late",
                 i < 20 ? " is User" : "", condition);
    for (int i = 40; i < 80; i++)
        buf_addf(&text, "permit(principal == User::\"%d\", action, resource);", i);
    buf_add_z(&text, last);
    source.text = buf_str(&text);
    assert_int_equal(policy_set_parse(&source, 1, 0, &set, NULL), OK);
    assert_int_equal(policy_decide(set, &r, ret), OK);
    buf_release(&text);
    return set;
}

static void expect_lowest(const uint32_t *v, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        assert_int_equal(v[i], i);
}

static void test_the_lowest_are_named(void **state)
{
    struct policy_decision d;

    policy_set_unref(decide_many("note", "", "", &d));
    assert_int_equal(d.n_reasons, 40);
    expect_lowest(d.reasons, POLICY_NAMED_MAX);
    policy_set_unref(decide_many("budget", "", "", &d));
    assert_int_equal(d.n_budgets, 40);
    expect_lowest(d.budgets, POLICY_BUDGETS_MAX);
}

static void test_roles_are_those_of_the_permits_named(void **state)
{
    struct policy_decision d;
    struct policy_set *set = decide_many("approval", "", "", &d);

    assert_int_equal(d.effect, POLICY_NEEDS_APPROVAL);
    expect_lowest(d.reasons, POLICY_NAMED_MAX);
    assert_int_equal(d.n_roles, 2);
    assert_true(str_is(d.roles[0], "even") && str_is(d.roles[1], "odd"));
    policy_set_unref(set);
}

/* A forbid that failed refuses: it is named, whatever else failed. */
static void test_errors_of_forbids_are_named_first(void **state)
{
    struct policy_decision d;

    policy_set_unref(decide_many("note", " when { context.zz }",
        "forbid(principal is User, action, resource) when { context.zz }; permit(principal, action, resource);"
        "forbid(principal, action, resource) when { 1 < context.zz };", &d));
    assert_int_equal(d.effect, POLICY_ALLOW);       /* by 81 */
    assert_int_equal(d.n_errors, 42);
    assert_int_equal(d.n_forbid_errors, 2);
    assert_int_equal(d.errors[0].policy, 80);
    assert_int_equal(d.errors[1].policy, 82);
    for (uint32_t i = 2; i < POLICY_NAMED_MAX; i++) {
        assert_int_equal(d.errors[i].policy, i - 2);
        assert_int_equal(d.errors[i].fault, POLICY_FAULT_NO_ATTR);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_index, setup, teardown),
        cmocka_unit_test_setup_teardown(test_conditions, setup, teardown),
        cmocka_unit_test_setup_teardown(test_conditions_are_indexed, setup, teardown),
        cmocka_unit_test_setup_teardown(test_the_lowest_are_named, setup, teardown),
        cmocka_unit_test_setup_teardown(test_roles_are_those_of_the_permits_named, setup, teardown),
        cmocka_unit_test_setup_teardown(test_errors_of_forbids_are_named_first, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
