/*
 * call_listing_test.c -- lists shared by classes of callers are the lists that each caller would get alone, and nothing
 * that they hide is allowed
 *
 * Random policies of the engine's own vocabulary; random callers with groups and delegates, the same few over and over,
 * so that classes are met again.  Each list is compared with what the policies answer when asked tool by tool, without
 * any class; then calls are decided, by the engine's DECIDE, with several arguments and resources: none that is allowed
 * may be hidden, and none that any single side denies may be allowed.  LISTING_SEED and LISTING_SETS go on.
 */
#include "call/internal.h"
#include "call/listing.h"

#include <stdlib.h>

#include "base_test.h"                  /* after connector.h: cmocka's fail() is a macro */
#include "dice.h"

/* ---- policies ---------------------------------------------------------------------------------------------------- */

/* personal: conditions may look at who asks. */
static void add_condition(struct buf *b, bool personal)
{
    if (personal && below(2))
        buf_add_z(b, PICK("context.user == \"u1\"", "principal in Group::\"night\"", "context.delegator == principal",
                          "context.scopes.contains(\"mail\")", "Group::\"day\" in Tenant::\"t1\"",
                          "principal has level && principal.level > 2", "context has delegation", "context == {}",
                          "User::\"u1\" in Group::\"day\"", "context.agent like \"a*\""));
    else
        buf_add_z(b, PICK("context.side == \"user\"", "context.args has count && context.args.count < 5", "1 == 2",
                          "context.args has to && context.args.to.contains(\"a@b.c\")", "true",
                          "action == Action::\"outlook.send_mail\"", "action in Action::\"reads\"",
                          "context.time > datetime(\"2020-01-01\")", "resource == resource", "context.args.nope"));
}

static void add_policy(struct buf *b, bool personal)
{
    buf_addf(b, "%s(%s, %s, %s)", below(3) ? "permit" : "forbid",
             PICK("principal", "principal", "principal is User", "principal is Agent", "principal == User::\"u1\"",
                  "principal in Group::\"day\"", "principal in Group::\"night\"", "principal in Tenant::\"t1\"",
                  "principal is Agent in Tenant::\"t1\"", "principal == Agent::\"a1\"",
                  "principal is User in Group::\"day\""),
             PICK("action", "action", "action in Action::\"reads\"", "action in Action::\"writes\"",
                  "action == Action::\"outlook.send_mail\"", "action in [Action::\"gmail\", Action::\"slack\"]"),
             PICK("resource", "resource", "resource is Mailbox", "resource in Tenant::\"t1\"",
                  "resource == Mailbox::\"m1\"", "resource is Channel in Tenant::\"t2\""));
    for (unsigned n = below(3); n > 0; n--) {
        buf_add_z(b, below(4) ? " when { " : " unless { ");
        add_condition(b, personal);
        buf_add_z(b, " }");
    }
    buf_add_z(b, ";\n");
}

static struct policy_set *random_set(void)
{
    struct buf text = BUF_INIT(1 << 20);
    struct policy_source source = { STR("p"), STR_NULL };
    bool personal = below(2);
    struct policy_set *set;
    struct errinfo info;

    buf_add_z(&text, "permit(principal in Tenant::\"t1\", action, resource);\n");
    for (unsigned n = 1 + below(8); n > 0; n--)
        add_policy(&text, personal);
    source.text = buf_str(&text);
    if (policy_set_parse(&source, 1, 0, &set, &info))
        fail_msg("%s\n%.*s", info.text, STR_ARG(source.text));
    buf_release(&text);
    return set;
}

/* ---- callers ----------------------------------------------------------------------------------------------------- */

struct bed {
    struct engine engine;
    struct worker worker;
    struct policy_entities *entities;
    struct registry *registry;
    struct arena arena;
    unsigned lists, shown, allowed, denied;
};

struct who {
    struct caller caller;
    struct caller_actor actors[3];
    struct str groups[2], scopes[1];
};

static void random_caller(struct who *w)
{
    static const char *const users[] = { "u1", "u2", "u3" }, *const agents[] = { "a1", "b1" };

    *w = (struct who){ .groups = { STR("day"), STR("night") }, .scopes = { STR("mail") } };
    w->caller = (struct caller){ .tenant = str_of(below(3) ? "t1" : "t2"), .user = str_of(users[below(3)]),
                                 .actors = w->actors, .n_actors = 1 + below(3), .groups = w->groups,
                                 .n_groups = below(3), .scopes = w->scopes, .n_scopes = below(2),
                                 .auth = CALLER_AUTH_JWT };
    for (unsigned i = 0; i < w->caller.n_actors; i++)
        w->actors[i].name = str_of(agents[below(2)]);
    w->caller.agent = w->actors[0].name;
}

static void call_begin(struct bed *b, const struct who *w, struct call *c)
{
    *c = (struct call){ .magic = CALL_MAGIC, .worker = &b->worker, .caller = (struct caller *)&w->caller,
                        .registry = b->registry, .began_wall = 1795186800000 };
    arena_init(&c->arena, CALL_ARENA_MAX);
    arena_init(&c->deciding, CALL_ARENA_MAX);
}

static void call_end(struct call *c)
{
    call_unsay(c);
    arena_release(&c->arena);
    arena_release(&c->deciding);
}

/* ---- what must hold ---------------------------------------------------------------------------------------------- */

/* One side of a question, without any list or index of classes. */
static bool alone(struct bed *b, struct call *c, const struct tool *t)
{
    struct question q;
    struct asked x;

    assert_int_equal(call_question(c, &t->action, &q), OK);
    q.resource_type = str_of(t->resource_type);
    assert_int_equal(question_ask(&q, b->entities, &c->arena, &x), OK);
    for (unsigned i = 0; i < x.n; i++)
        if (!policy_could_allow(b->registry->policy, &x.requests[i]))
            return false;
    return true;
}

static bool decided(struct bed *b, const struct who *w, const struct tool *t)
{
    static const char *const args[] = { "{}", "{\"count\":3}", "{\"to\":[\"a@b.c\"],\"count\":9}", "{\"nope\":true}" };
    static const char *const resources[] = { "m1", "x" };
    struct json_error where;
    struct call c;
    bool allowed;

    call_begin(b, w, &c);
    c.tool = t;
    assert_int_equal(json_parse(&c.arena, str_of(args[below(4)]), NULL, &c.args, &where), OK);
    c.frozen = STR("{}");
    c.resource_type = str_of(t->resource_type);
    c.resource_id = str_of(resources[below(2)]);
    allowed = call_decide(&c) == OK;
    assert_int_equal(c.n_sides, 1 + w->caller.n_actors);
    for (unsigned i = 0; i < c.n_sides && allowed; i++) {
        struct policy_decision d;

        assert_int_equal(policy_decide(b->registry->policy, &c.asked->requests[i], &d), OK);
        assert_true(d.effect == POLICY_ALLOW && d.n_forbid_errors == 0);
    }
    call_end(&c);
    b->allowed += allowed;
    b->denied += !allowed;
    return allowed;
}

static void list(struct bed *b, const struct who *w)
{
    struct call c;

    call_begin(b, w, &c);
    b->lists++;
    for (size_t i = 0; i < b->registry->n_tools; i++) {
        const struct tool *t = &b->registry->tools[i];
        bool shown = call_could_allow(&c, t);

        b->shown += shown;
        if (shown != alone(b, &c, t))
            fail_msg("%.*s of %.*s: %s", STR_ARG(w->caller.user), STR_ARG(w->caller.tenant), t->decl->name);
        if (decided(b, w, t) && !shown)
            fail_msg("%s is hidden and allowed", t->decl->name);
    }
    call_end(&c);
}

static int64_t counted(const char *answer)
{
    struct buf text = BUF_INIT(1 << 20);
    char line[80];
    const char *at;
    int64_t n;

    metric_render(&text);
    buf_add_c(&text, '\0');
    snprintf(line, sizeof(line), "sluice_lists_total{answer=\"%s\"} ", answer);
    at = strstr(text.p, line);
    n = at ? atoll(at + strlen(line)) : 0;
    buf_release(&text);
    return n;
}

static void one_set(struct bed *b)
{
    struct registry_options opt = { .policy = random_set(), .entities = b->entities };
    struct errinfo info;

    if (registry_build(&opt, &b->registry, &info))
        fail_msg("%s", info.text);
    for (int i = 0; i < 12; i++) {
        struct who w;

        random_caller(&w);
        list(b, &w);
    }
    registry_unref(b->registry);
    policy_set_unref(opt.policy);
}

static void shared_lists_are_the_callers_own(void **state)
{
    static const char people[] =
        "[{\"uid\": {\"type\": \"User\", \"id\": \"u2\"}, \"attrs\": {\"level\": 3},"
        " \"parents\": [{\"type\": \"Group\", \"id\": \"night\"}]},"
        " {\"uid\": {\"type\": \"Group\", \"id\": \"night\"}, \"attrs\": {},"
        " \"parents\": [{\"type\": \"Group\", \"id\": \"day\"}]}]";
    const char *given = getenv("LISTING_SEED"), *many = getenv("LISTING_SETS");
    unsigned sets = many ? (unsigned)atoi(many) : 150;
    struct bed b = { .entities = policy_entities_new() };
    int64_t shared = counted("shared"), own = counted("own"), found = counted("found");
    struct errinfo info;

    seed = given ? strtoull(given, NULL, 10) : 20261126;
    print_message("seed %llu\n", (unsigned long long)seed);
    b.worker.engine = &b.engine;
    assert_int_equal(policy_entities_add_json(b.entities, str_of(people), &info), OK);
    assert_int_equal(policy_entities_freeze(b.entities, &info), OK);
    for (unsigned i = 0; i < sets; i++)
        one_set(&b);
    shared = counted("shared") - shared;
    own = counted("own") - own;
    found = counted("found") - found;
    print_message("%u lists: %lld shared, %lld found, %lld own; %u tools shown; %u calls allowed, %u denied\n", b.lists,
                  (long long)shared, (long long)found, (long long)own, b.shown, b.allowed, b.denied);
    assert_int_equal(shared + own + found, b.lists);
    assert_true(shared > b.lists / 20 && own > b.lists / 20 && found > b.lists / 20);
    assert_true(b.allowed > b.denied / 20 && b.shown > b.lists);
    policy_entities_unref(b.entities);
}

/* Ten thousand users of one group, each with an agent of its own name: one list. */
static void users_of_a_group_share_one_list(void **state)
{
    static const char text[] = "permit(principal in Group::\"day\", action in Action::\"reads\", resource);\n"
                               "permit(principal is Agent, action, resource) when { context.args has count };\n"
                               "permit(principal == User::\"boss\", action, resource);\n";
    struct policy_source source = { STR("p"), str_of(text) };
    struct registry_options opt = { 0 };
    int64_t shared = counted("shared"), found = counted("found");
    struct bed b = { 0 };
    struct errinfo info;
    struct who w;

    b.worker.engine = &b.engine;
    assert_int_equal(policy_set_parse(&source, 1, 0, &opt.policy, &info), OK);
    assert_int_equal(registry_build(&opt, &b.registry, &info), OK);
    for (int i = 0; i <= 10000; i++) {
        char name[16];
        struct call c;

        random_caller(&w);
        snprintf(name, sizeof(name), i == 10000 ? "boss" : "user%d", i);
        w.caller.tenant = STR("t1");
        w.caller.user = w.caller.agent = w.actors[0].name = str_of(name);
        w.caller.n_groups = 1;
        w.caller.n_actors = 1;
        call_begin(&b, &w, &c);
        assert_true(call_could_allow(&c, registry_tool(b.registry, STR("outlook.list_mail"))));
        assert_int_equal(call_could_allow(&c, registry_tool(b.registry, STR("outlook.send_mail"))), i == 10000);
        call_end(&c);
    }
    assert_int_equal(counted("found") - found, 2);
    assert_int_equal(counted("shared") - shared, 9999);
    registry_unref(b.registry);
    policy_set_unref(opt.policy);
}

/* Policies cannot tell them apart; the second of a tenant shares with the first, and never with the other tenant's. */
static void nothing_is_shared_between_tenants(void **state)
{
    static const char *const tenants[] = { "t1", "t2", "t1", "t2" };
    struct policy_source source = { STR("p"), STR("permit(principal, action, resource);") };
    struct registry_options opt = { 0 };
    int64_t shared = counted("shared"), found = counted("found");
    struct bed b = { 0 };
    struct errinfo info;

    b.worker.engine = &b.engine;
    assert_int_equal(policy_set_parse(&source, 1, 0, &opt.policy, &info), OK);
    assert_int_equal(registry_build(&opt, &b.registry, &info), OK);
    for (size_t i = 0; i < ARRAY_LEN(tenants); i++) {
        struct call c;
        struct who w;

        random_caller(&w);
        w.caller.tenant = str_of(tenants[i]);
        w.caller.n_actors = 1;
        call_begin(&b, &w, &c);
        assert_true(call_could_allow(&c, &b.registry->tools[0]));
        call_end(&c);
    }
    assert_int_equal(counted("found") - found, 2);
    assert_int_equal(counted("shared") - shared, 2);
    registry_unref(b.registry);
    policy_set_unref(opt.policy);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shared_lists_are_the_callers_own), cmocka_unit_test(users_of_a_group_share_one_list),
        cmocka_unit_test(nothing_is_shared_between_tenants),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
