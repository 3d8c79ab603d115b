/*
 * policy_property_test.c -- what must hold over any policies: random sets, templates and links among them, asked for
 * random calls
 *
 * Each call has three sides (user, agent, delegate), and is allowed if all of them are.  Each side is decided twice: by
 * the set, and policy by policy, each in a set of its own, put together by hand.  What must hold:
 *
 *   no call is allowed that any single side denies, and no side is allowed that holds a forbid or no permit;
 *   reasons and errors of a set are those of its policies;
 *   what lint says of a policy is so: without a redundant or a shadowed one all decisions are the same, and what never
 *   applies or always fails never holds;
 *   what an explanation finds expression by expression is what the decision found (it asserts that itself);
 *   no tool that is hidden from a list (some side could not be allowed, arguments unknown, with the resource's type
 *   known or not) is allowed by any arguments on any resource tried.
 *
 * PROPERTY_SEED and PROPERTY_SETS in the environment go on where this ends.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>

#include <stdio.h>

#include "base/check.h"
#include "dice.h"
#include "policy/explain.h"
#include "policy/lint.h"
#include "policy/policy.h"

enum { POLICIES_MAX = 10, SIDES = 3, TOOLS = 4, RESOURCES = 4, TRIES = 12 };

/* One policy: its text; a template has a link, too. */
struct made {
    char text[3000], link[400];
    struct policy_set *alone;
    struct policy_set *without;         /* the set without it, if lint says that this changes nothing */
    bool never;                         /* lint says that it never holds */
};

struct world {
    struct arena arena, scratch;
    struct policy_entities *store;
    struct policy_uid users[3], agents[3], tools[TOOLS], resources[RESOURCES];
    struct made made[POLICIES_MAX];
    unsigned n;
    struct policy_set *set;
    unsigned asked, allowed, hidden, errors, links, useless;
};

static const char entities[] =
    "[{\"uid\": {\"type\": \"U\", \"id\": \"0\"}, \"attrs\": {\"level\": 1, \"ip\": {\"__extn\": {\"fn\": \"ip\", "
    "\"arg\": \"10.0.0.1\"}}}, \"parents\": [{\"type\": \"G\", \"id\": \"0\"}], \"tags\": {\"x\": 1}},"
    "{\"uid\": {\"type\": \"U\", \"id\": \"1\"}, \"attrs\": {\"level\": 5}, \"parents\": [{\"type\": \"G\", \"id\": "
    "\"0\"}, {\"type\": \"G\", \"id\": \"1\"}]},"
    "{\"uid\": {\"type\": \"G\", \"id\": \"0\"}, \"attrs\": {}, \"parents\": [{\"type\": \"G\", \"id\": \"2\"}]},"
    "{\"uid\": {\"type\": \"A\", \"id\": \"0\"}, \"attrs\": {\"level\": 3}, \"parents\": [{\"type\": \"G\", \"id\": "
    "\"1\"}]},"
    "{\"uid\": {\"type\": \"R\", \"id\": \"0\"}, \"attrs\": {\"owner\": {\"__entity\": {\"type\": \"U\", \"id\": "
    "\"0\"}}, \"n\": 1}, \"parents\": [{\"type\": \"T\", \"id\": \"0\"}]},"
    "{\"uid\": {\"type\": \"R\", \"id\": \"1\"}, \"attrs\": {\"owner\": {\"__entity\": {\"type\": \"A\", \"id\": "
    "\"0\"}}, \"n\": 2}, \"parents\": [{\"type\": \"T\", \"id\": \"1\"}]},"
    "{\"uid\": {\"type\": \"Action\", \"id\": \"0\"}, \"attrs\": {}, \"parents\": [{\"type\": \"Action\", \"id\": "
    "\"c0\"}, {\"type\": \"Action\", \"id\": \"reads\"}]},"
    "{\"uid\": {\"type\": \"Action\", \"id\": \"1\"}, \"attrs\": {}, \"parents\": [{\"type\": \"Action\", \"id\": "
    "\"c0\"}]},"
    "{\"uid\": {\"type\": \"Action\", \"id\": \"2\"}, \"attrs\": {}, \"parents\": [{\"type\": \"Action\", \"id\": "
    "\"c1\"}, {\"type\": \"Action\", \"id\": \"reads\"}]}]";

/* --- policies ----------------------------------------------------------------------------------------------------- */

static void add_number(struct buf *b, unsigned depth)
{
    if (depth && below(3) == 0) {
        buf_add_c(b, '(');
        add_number(b, depth - 1);
        buf_add_z(b, PICK(" + ", " - ", " * "));
        add_number(b, depth - 1);
        buf_add_c(b, ')');
        return;
    }
    buf_add_z(b, PICK("0", "1", "2", "-1", "9223372036854775807", "context.args.n", "context.args.n", "principal.level",
                      "resource.n", "context.args.r.a", "context.args[\"n\"]"));
}

static void add_atom(struct buf *b)
{
    switch (below(8)) {
    case 0:
        buf_add_z(b, PICK("true", "true", "false"));
        return;
    case 1:
    case 2:
        add_number(b, 2);
        buf_add_z(b, PICK(" < ", " <= ", " == ", " != ", " > ", " >= "));
        add_number(b, 1);
        return;
    case 3:
        buf_add_z(b, PICK("context.args has n", "context.args has r.a", "principal has level", "resource has owner",
                          "context.args.r has a", "context has side", "resource has owner.level"));
        return;
    case 4:
        buf_add_z(b, PICK("principal in G::\"0\"", "principal in G::\"2\"", "principal in [G::\"1\", G::\"2\"]",
                          "principal is U", "principal is A in G::\"1\"", "resource in T::\"0\"", "resource is R",
                          "resource is R in T::\"1\"", "action in Action::\"c0\"", "action == Action::\"3\"",
                          "resource in context.args.to", "principal in resource", "resource in principal"));
        return;
    case 5:
        buf_add_z(b, PICK("context.side == \"user\"", "context.side == \"agent\"", "context.side like \"*e*\"",
                          "context.args.s like \"a*\"", "context.args.s == \"a\"", "principal == context.user",
                          "resource.owner == principal", "resource == R::\"1\"", "context.args == {}",
                          "context.args == {n: 1}", "context.args.s != context.args.n"));
        return;
    case 6:
        buf_add_z(b, PICK("context.args.l.contains(1)", "context.args.l.containsAll([1, 2])",
                          "context.args.l.isEmpty()", "[1, context.args.n].containsAny(context.args.l)",
                          "context.args.b", "context.args.r.b",
                          "[resource, principal].contains(resource.owner)", "principal.hasTag(context.args.s)",
                          "principal.getTag(\"x\") == 1", "{a: context.args.n, b: 1}.b == 1"));
        return;
    default:
        buf_add_z(b, PICK("ip(context.args.s).isIpv4()", "principal.ip.isInRange(ip(\"10.0.0.0/8\"))",
                          "decimal(context.args.s).lessThan(decimal(\"2.0\"))", "duration(\"1h\") > duration(\"1m\")",
                          "datetime(context.args.s) > datetime(\"2020-01-01\")"));
    }
}

static void add_condition(struct buf *b, unsigned depth)
{
    unsigned form = depth ? below(6) : 5;

    if (form == 5) {
        add_atom(b);
        return;
    }
    buf_add_c(b, '(');
    if (form == 0) {
        buf_add_c(b, '!');
        buf_add_c(b, '(');
        add_condition(b, depth - 1);
        buf_add_c(b, ')');
    } else if (form == 1) {
        buf_add_z(b, "if ");
        add_condition(b, depth - 1);
        buf_add_z(b, " then ");
        add_condition(b, depth - 1);
        buf_add_z(b, " else ");
        add_condition(b, depth - 1);
    } else {
        add_condition(b, depth - 1);
        buf_add_z(b, form == 2 ? " || " : " && ");
        add_condition(b, depth - 1);
    }
    buf_add_c(b, ')');
}

/* A head; the slots of a template are filled by its link. */
static void add_head(struct buf *b, bool template, struct buf *link)
{
    const char *who = template ? PICK("principal == ?principal", "principal in ?principal", "principal is U in "
                                      "?principal")
        : PICK("principal", "principal", "principal == U::\"0\"", "principal == A::\"0\"", "principal in G::\"0\"",
               "principal in G::\"2\"", "principal is U", "principal is A", "principal is U in G::\"1\"");
    const char *what = PICK("action", "action", "action == Action::\"0\"", "action in Action::\"c0\"", "action in "
                            "[Action::\"2\", Action::\"3\"]", "action in Action::\"reads\"", "action in []");
    const char *which = template && below(2) ? PICK("resource == ?resource", "resource in ?resource", "resource is R "
                                                    "in ?resource")
        : PICK("resource", "resource", "resource", "resource == R::\"0\"", "resource in T::\"0\"", "resource is R",
               "resource is S", "resource is R in T::\"1\"");

    buf_addf(b, "(%s, %s, %s)", who, what, which);
    if (template)
        buf_addf(link, "\"?principal\": {\"type\": \"%s\", \"id\": \"%u\"}", PICK("U", "A", "G"), below(3));
    if (template && strstr(which, "?resource"))
        buf_addf(link, ", \"?resource\": {\"type\": \"%s\", \"id\": \"%u\"}", PICK("R", "S", "T"), below(3));
}

static void make_policy(struct made *m, unsigned number)
{
    struct buf b = BUF_INIT(sizeof(m->text) - 1), link = BUF_INIT(sizeof(m->link) - 1);
    bool template = below(4) == 0;

    buf_addf(&b, "@id(\"%c%u\") %s ", template ? 't' : 'p', number, below(3) ? "permit" : "forbid");
    buf_addf(&link, "{\"templateId\": \"t%u\", \"newId\": \"p%u\", \"values\": {", number, number);
    add_head(&b, template, &link);
    for (unsigned n = below(3); n > 0; n--) {
        buf_add_z(&b, below(4) ? " when { " : " unless { ");
        add_condition(&b, 2);
        buf_add_z(&b, " }");
    }
    buf_add_z(&b, ";\n");
    buf_add_z(&link, "}}");
    assert_false(b.overflow || link.overflow);
    snprintf(m->text, sizeof(m->text), "%.*s", STR_ARG(buf_str(&b)));
    snprintf(m->link, sizeof(m->link), "%.*s", template ? (int)link.len : 0, link.p);
    buf_release(&b);
    buf_release(&link);
}

static struct policy_set *parse(const struct made *m, unsigned n)
{
    struct buf text = BUF_INIT(1 << 20), links = BUF_INIT(1 << 20);
    struct policy_source sources[2] = { { .name = STR("t") }, { .name = STR("l"), .json = true } };
    struct policy_set *set = NULL;
    struct errinfo info;

    buf_add_z(&links, "{\"templateLinks\": [");
    for (unsigned i = 0, k = 0; i < n; i++) {
        buf_add_z(&text, m[i].text);
        if (m[i].link[0])
            buf_addf(&links, "%s%s", k++ ? ", " : "", m[i].link);
    }
    buf_add_z(&links, "]}");
    sources[0].text = buf_str(&text);
    sources[1].text = buf_str(&links);
    if (policy_set_parse(sources, 2, 0, &set, &info))
        fail_msg("%s\n%.*s%.*s", info.text, STR_ARG(sources[0].text), STR_ARG(sources[1].text));
    buf_release(&text);
    buf_release(&links);
    return set;
}

/* --- calls -------------------------------------------------------------------------------------------------------- */

static struct policy_value longs(struct arena *a)
{
    unsigned n = below(3);
    struct policy_value *v = ARENA_ARRAY(a, struct policy_value, 2);

    for (unsigned i = 0; i < n; i++)
        v[i] = policy_long((int64_t)below(3));
    return policy_set_of(v, n);
}

/* Any of the arguments that conditions speak of may be missing, or of another type. */
static struct policy_value random_args(struct world *w)
{
    static const int64_t numbers[] = { 0, 1, 2, -1, INT64_MAX, INT64_MIN };
    static const char *const texts[] = { "a", "x", "ab", "10.0.0.1", "1.5", "2024-01-01", "" };
    struct policy_attr *at = ARENA_ARRAY(&w->scratch, struct policy_attr, 6), *r =
        ARENA_ARRAY(&w->scratch, struct policy_attr, 2);
    size_t n = 0;

    r[0] = (struct policy_attr){ STR("a"), policy_long(below(3)) };
    r[1] = (struct policy_attr){ STR("b"), policy_bool(below(2)) };
    if (below(4))
        at[n++] = (struct policy_attr){ STR("n"), below(8) ? policy_long(numbers[below(6)]) : policy_bool(true) };
    if (below(4))
        at[n++] = (struct policy_attr){ STR("s"), below(8) ? policy_string(str_of(texts[below(7)])) : policy_long(1) };
    if (below(4))
        at[n++] = (struct policy_attr){ STR("b"), policy_bool(below(2)) };
    if (below(4))
        at[n++] = (struct policy_attr){ STR("l"), longs(&w->scratch) };
    if (below(4))
        at[n++] = (struct policy_attr){ STR("r"), policy_record_of(r, below(3)) };
    if (below(2))
        at[n++] = (struct policy_attr){ STR("to"), policy_entity_value(&w->resources[below(RESOURCES)]) };
    return policy_record_of(at, n);
}

static struct policy_value context(struct world *w, unsigned side, const struct policy_uid *user,
    struct policy_value args)
{
    static const char *const sides[SIDES] = { "user", "agent", "delegate" };
    struct policy_attr *at = ARENA_ARRAY(&w->scratch, struct policy_attr, 3);

    at[0] = (struct policy_attr){ STR("args"), args };
    at[1] = (struct policy_attr){ STR("side"), policy_string(str_of(sides[side])) };
    at[2] = (struct policy_attr){ STR("user"), policy_entity_value(user) };
    return policy_record_of(at, 3);
}

struct asking {
    const struct policy_uid *who[SIDES], *tool;
    struct policy_layer layer;
};

static struct policy_request side_of(struct world *w, const struct asking *k, unsigned side, struct policy_value args,
    const struct policy_uid *resource)
{
    return (struct policy_request){ .principal = k->who[side], .action = k->tool, .resource = resource,
        .context = context(w, side, k->who[0], args), .entities = &k->layer, .scratch = &w->scratch };
}

/* --- what must hold ----------------------------------------------------------------------------------------------- */

/* Policy by policy, put together by hand; the set must say the same. */
static bool side_allows(struct world *w, const struct policy_request *r)
{
    unsigned permits = 0, forbids = 0, errors = 0;
    struct policy_decision d;

    for (unsigned i = 0; i < w->n; i++) {
        assert_int_equal(policy_decide(w->made[i].alone, r, &d), OK);
        errors += d.n_errors;
        assert_false(w->made[i].never && d.n_reasons);
        permits += policy_set_info(w->made[i].alone, 0).forbid ? 0 : d.n_reasons;
        forbids += policy_set_info(w->made[i].alone, 0).forbid ? d.n_reasons : 0;
    }
    assert_int_equal(policy_decide(w->set, r, &d), OK);
    assert_int_equal(d.effect, permits && !forbids ? POLICY_ALLOW : POLICY_DENY);
    assert_int_equal(d.n_reasons, forbids ? forbids : permits);
    assert_int_equal(d.n_errors, errors);
    w->errors += errors;
    for (unsigned i = 0; i < w->n; i++) {
        struct policy_decision other;

        if (!w->made[i].without)
            continue;
        assert_int_equal(policy_decide(w->made[i].without, r, &other), OK);
        assert_int_equal(other.effect, d.effect);
        /* for a call, which a forbid that fails refuses too */
        assert_int_equal(other.effect == POLICY_DENY || other.n_forbid_errors > 0,
                         d.effect == POLICY_DENY || d.n_forbid_errors > 0);
    }
    return d.effect == POLICY_ALLOW;
}

/* Is the tool in the list? */
static bool listed(struct world *w, const struct asking *k, const char *type)
{
    for (unsigned s = 0; s < SIDES; s++) {
        struct policy_request r = side_of(w, k, s, policy_unknown(), &w->resources[0]);

        r.resource_unknown = true;
        r.resource_type = str_of(type);
        if (!policy_could_allow(w->set, &r))
            return false;
    }
    return true;
}

static void explained(struct world *w, const struct policy_request *r)
{
    struct buf text = BUF_INIT(16 << 20);

    assert_int_equal(policy_explain(w->set, r, below(2) ? POLICY_EXPLAIN_ALL : 0, &text), OK);
    assert_true(text.len > 0);
    buf_release(&text);
}

static void try_calls(struct world *w, const struct asking *k, bool in_list, bool in_typed_list)
{
    for (unsigned t = 0; t < TRIES; t++) {
        const struct policy_uid *resource = &w->resources[below(RESOURCES)];
        struct policy_value args = random_args(w);
        unsigned allowing = 0;

        for (unsigned s = 0; s < SIDES; s++) {
            struct policy_request r = side_of(w, k, s, args, resource);

            allowing += side_allows(w, &r);
            if (t == 0)
                explained(w, &r);
        }
        w->asked++;
        w->allowed += allowing == SIDES;
        if (allowing == SIDES && (!in_list || (!in_typed_list && str_is(resource->type, "R")))) {
            for (unsigned i = 0; i < w->n; i++)
                print_message("%s%s\n", w->made[i].text, w->made[i].link);
            fail_msg("a hidden tool was allowed");
        }
        arena_clear(&w->scratch);
    }
}

static void ask(struct world *w)
{
    struct asking k = { .who = { &w->users[below(3)], &w->agents[below(3)], &w->agents[below(3)] },
        .tool = &w->tools[below(TOOLS)] };
    bool in_list, in_typed_list;

    policy_layer_init(&k.layer, w->store);
    in_list = listed(w, &k, "");
    in_typed_list = listed(w, &k, "R");
    assert_true(in_list || !in_typed_list);
    w->hidden += !in_list;
    try_calls(w, &k, in_list, in_typed_list);
}

static void take_findings(struct world *w)
{
    struct policy_report r;

    policy_report_init(&r);
    assert_int_equal(policy_lint(w->set, &r), OK);
    assert_int_equal(r.n_errors, 0);
    for (const struct policy_finding *f = r.first; f; f = f->next) {
        struct made others[POLICIES_MAX], *m = &w->made[atoi(f->policy.p + 1)];
        unsigned n = 0;

        w->useless++;
        m->never |= f->kind == POLICY_NEVER || f->kind == POLICY_ALWAYS_FAILS;
        if (m->without || (f->kind != POLICY_REDUNDANT && f->kind != POLICY_SHADOWED))
            continue;
        for (unsigned i = 0; i < w->n; i++)
            if (&w->made[i] != m)
                others[n++] = w->made[i];
        m->without = parse(others, n);
    }
    policy_report_release(&r);
}

static void one_set(struct world *w)
{
    w->n = 2 + below(POLICIES_MAX - 1);
    for (unsigned i = 0; i < w->n; i++) {
        make_policy(&w->made[i], i);
        w->made[i].alone = parse(&w->made[i], 1);
        w->made[i].without = NULL;
        w->made[i].never = false;
        w->links += w->made[i].link[0] != '\0';
    }
    w->set = parse(w->made, w->n);
    take_findings(w);
    assert_int_equal(policy_set_count(w->set), w->n);
    for (int i = 0; i < 8; i++)
        ask(w);
    policy_set_unref(w->set);
    for (unsigned i = 0; i < w->n; i++) {
        policy_set_unref(w->made[i].alone);
        policy_set_unref(w->made[i].without);
    }
}

static struct policy_uid named(struct world *w, const char *type, unsigned id)
{
    return policy_uid(str_of(type), arena_printf(&w->arena, "%u", id));
}

static void test_properties(void **state)
{
    const char *given = getenv("PROPERTY_SEED"), *many = getenv("PROPERTY_SETS");
    unsigned sets = many ? (unsigned)atoi(many) : 400;
    struct world *w = calloc(1, sizeof(*w));
    struct errinfo info;

    seed = given ? strtoull(given, NULL, 10) : 20261126;
    ASSERT(w != NULL && seed != 0);
    print_message("seed %llu\n", (unsigned long long)seed);
    arena_init(&w->arena, 1 << 20);
    arena_init(&w->scratch, 16 << 20);
    w->store = policy_entities_new();
    if (policy_entities_add_json(w->store, str_of(entities), &info) || policy_entities_freeze(w->store, &info))
        fail_msg("%s", info.text);
    for (unsigned i = 0; i < 3; i++) {
        w->users[i] = named(w, "U", i);
        w->agents[i] = named(w, "A", i);
    }
    for (unsigned i = 0; i < TOOLS; i++)
        w->tools[i] = named(w, "Action", i);
    for (unsigned i = 0; i < RESOURCES; i++)
        w->resources[i] = named(w, i < 3 ? "R" : "S", i);
    for (unsigned i = 0; i < sets; i++)
        one_set(w);
    print_message("%u calls of three sides: %u allowed; %u lists without the tool; %u links; %u errors; %u useless\n",
                  w->asked, w->allowed, w->hidden, w->links, w->errors, w->useless);
    assert_true(w->allowed > w->asked / 100 && w->hidden > sets / 4);
    assert_true(w->useless > sets / 2);
    assert_true(w->links > sets / 2 && w->errors > w->asked / 10);
    policy_entities_unref(w->store);
    arena_release(&w->scratch);
    arena_release(&w->arena);
    free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_properties),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
