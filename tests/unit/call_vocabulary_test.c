/*
 * call_vocabulary_test.c -- the generated schema: it is one, policies are checked by it, and every question of the
 * engine fits it
 *
 * The questions are made as DECIDE makes them, for all tools of all connectors that are no fixtures and for the
 * engine's own actions, with all arguments and with the required ones only, on every side.
 */
#include "call/vocabulary.h"
#include "policy/schema.h"

#include "base_test.h"                  /* after connector.h: cmocka's fail() is a macro */

static const char entities[] =
    "[{\"uid\": {\"type\": \"User\", \"id\": \"alice\"}, \"attrs\": {\"level\": 3, \"home\": {\"city\": \"b\","
    " \"zip\": 1},"
    " \"boss\": {\"__entity\": {\"type\": \"User\", \"id\": \"bob\"}}, \"odd\": 1, \"none\": []},"
    " \"parents\": [{\"type\": \"HR::Team\", \"id\": \"t\"}], \"tags\": {\"a\": \"x\"}},"
    "{\"uid\": {\"type\": \"User\", \"id\": \"bob\"}, \"attrs\": {\"level\": 4, \"home\": {\"city\": \"c\"},"
    " \"if\": [\"x\"], \"odd\": \"s\"}, \"parents\": []},"
    "{\"uid\": {\"type\": \"HR::Team\", \"id\": \"t\"}, \"attrs\": {\"open\": true, \"net\": {\"__extn\": {"
    "\"fn\": \"ip\", \"arg\": \"10.0.0.1\"}}}, \"parents\": [{\"type\": \"HR::Unit\", \"id\": \"u\"}]},"
    "{\"uid\": {\"type\": \"Action\", \"id\": \"outlook.send_mail\"}, \"attrs\": {}, \"parents\": [{\"type\":"
    " \"Action\", \"id\": \"says things\"}, {\"type\": \"Action\", \"id\": \"outlook.list_mail\"}]},"
    "{\"uid\": {\"type\": \"Action\", \"id\": \"limits.list\"}, \"attrs\": {}, \"parents\": [{\"type\":"
    " \"Action\", \"id\": \"operating\"}]},"
    "{\"uid\": {\"type\": \"HR::Odd\", \"id\": \"o\"}, \"attrs\": {\"of\": {\"__entity\": {\"type\": \"Action\","
    " \"id\": \"x\"}}},"
    " \"parents\": [{\"type\": \"Action\", \"id\": \"x\"}]}]";

struct bed {
    struct registry *registry;
    struct policy_schema *schema;
    struct policy_entities *entities;
    struct arena arena;
    struct buf text;
};

static struct policy_set *policies(const char *text)
{
    struct policy_source source = { STR("p.cedar"), str_of(text) };
    struct policy_set *set;
    struct errinfo info;

    if (policy_set_parse(&source, 1, 0, &set, &info))
        fail_msg("%s", info.text);
    return set;
}

static void bed_open(struct bed *b)
{
    struct registry_options opt = { .policy = policies("") };
    struct errinfo info = { "" };
    enum err e;

    *b = (struct bed){ .entities = policy_entities_new(), .text = BUF_INIT(1 << 20) };
    arena_init(&b->arena, 64 << 20);
    e = policy_entities_add_json(b->entities, str_of(entities), &info);
    opt.entities = b->entities;
    if (e || policy_entities_freeze(b->entities, &info) || registry_build(&opt, &b->registry, &info))
        fail_msg("%s", info.text);
    assert_int_equal(vocabulary_write(b->registry, &b->text, &info), OK);
    if (policy_schema_parse(STR("made"), buf_str(&b->text), POLICY_SCHEMA_TEXT, &b->schema, NULL, &info))
        fail_msg("%s\n%.*s", info.text, (int)b->text.len, b->text.p);
    policy_set_unref(opt.policy);
}

static void bed_close(struct bed *b)
{
    policy_schema_unref(b->schema);
    registry_unref(b->registry);
    policy_entities_unref(b->entities);
    arena_release(&b->arena);
    buf_release(&b->text);
}

/* ---- questions --------------------------------------------------------------------------------------------------- */

static struct json *sample(struct arena *a, const struct json *schema)
{
    struct str type = json_str(json_get(schema, "type"));
    struct json *v;

    if (str_is(type, "integer"))
        return json_int_new(a, 7);
    if (str_is(type, "boolean"))
        return json_bool_new(a, true);
    if (str_is(type, "array")) {
        v = json_array(a);
        json_push(a, v, sample(a, json_get(schema, "items")));
        return v;
    }
    assert_true(str_is(type, "string"));
    return json_string(a, STR("x"));
}

static struct json *arguments(struct arena *a, const struct json *schema, bool all)
{
    struct json *args = json_object(a);

    for (const struct json *p = json_first(json_get(schema, "properties")); p; p = json_next(p)) {
        bool wanted = all;

        for (const struct json *r = json_first(json_get(schema, "required")); r; r = json_next(r))
            wanted |= str_eq(json_str(r), json_key(p));
        if (wanted)
            json_set(a, args, arena_z(a, json_key(p)), sample(a, p));
    }
    return args;
}

static void check_question(struct bed *b, const struct policy_entity *action, const char *resource,
                           const struct json *args)
{
    static const struct str actions[] = { { "reads", 5 } }, groups[] = { { "sales", 5 } }, scopes[] = { { "mail", 4 } };
    static const struct vault_delegation forever = { .since = 5, .expires = INT64_MAX },
                                         some = { .actions = actions, .n_actions = 1, .since = 5, .expires = 9 };
    const struct caller_actor actors[] = { { STR("assistant"), STR_NULL }, { STR("planner"), STR_NULL } };
    const struct vault_delegation *const delegations[] = { &forever, &some };
    struct question q = { .tenant = STR("acme"), .user = STR("alice"), .auth = STR("jwt"), .actors = actors,
                          .n_actors = 2, .groups = groups, .n_groups = 1, .scopes = scopes, .n_scopes = 1,
                          .delegations = delegations, .action = action, .resource_type = str_of(resource),
                          .resource_id = STR("r"), .time = 1 };
    struct asked x;
    struct errinfo info = { "" };

    assert_int_equal(policy_value_from_json(&b->arena, args, POLICY_JSON_PLAIN, &q.args, &info), OK);
    assert_int_equal(question_ask(&q, b->entities, &b->arena, &x), OK);
    assert_int_equal(x.n, 3);
    for (unsigned i = 0; i < x.n; i++)
        if (policy_schema_check_request(b->schema, &x.requests[i], &info))
            fail_msg("%.*s, side %u: %s", STR_ARG(action->uid.id), i, info.text);
}

static void every_question_fits(void **state)
{
    struct bed b;

    bed_open(&b);
    assert_true(b.registry->n_tools >= 10);
    for (size_t i = 0; i < b.registry->n_tools; i++) {
        const struct tool *t = &b.registry->tools[i];

        arena_clear(&b.arena);
        check_question(&b, &t->action, t->resource_type, arguments(&b.arena, t->input_tree, true));
        check_question(&b, &t->action, t->resource_type, arguments(&b.arena, t->input_tree, false));
    }
    bed_close(&b);
}

static void the_engines_own_actions_fit(void **state)
{
    static const struct { const char *group, *name, *resource; } own[] = {
        { "accounts", "list", "Tenant" }, { "accounts", "connect", "Mailbox" }, { "accounts", "put", "Channel" },
        { "accounts", "disconnect", "Mailbox" }, { "delegations", "list", "Tenant" },
        { "delegations", "record", "Agent" }, { "delegations", "revoke", "Agent" }, { "limits", "list", "Tenant" },
    };
    struct policy_entity action;
    struct bed b;

    bed_open(&b);
    for (size_t i = 0; i < ARRAY_LEN(own); i++) {
        struct str name = arena_printf(&b.arena, "%s.%s", own[i].group, own[i].name);

        assert_true(engine_action_known(str_of(own[i].group), str_of(own[i].name)));
        assert_int_equal(question_action(b.entities, &b.arena, name, str_of(own[i].group), 0, &action), OK);
        check_question(&b, &action, own[i].resource, json_object(&b.arena));
    }
    assert_false(engine_action_known(STR("accounts"), STR("steal")));
    bed_close(&b);
}

static void what_does_not_fit_is_refused(void **state)
{
    const struct tool *t;
    struct policy_uid user = policy_uid(STR("User"), STR("a")), box = policy_uid(STR("Channel"), STR("c"));
    struct policy_request r = { .principal = &user, .resource = &box };
    struct errinfo info;
    struct bed b;

    bed_open(&b);
    t = registry_tool(b.registry, STR("outlook.send_mail"));
    r.action = &t->action.uid;
    r.context = policy_record_of(NULL, 0);
    assert_int_equal(policy_schema_check_request(b.schema, &r, &info), E_CONFIG);
    bed_close(&b);
}

/* ---- policies ---------------------------------------------------------------------------------------------------- */

/* How many errors and warnings the validator finds. */
static size_t findings_in(struct bed *b, const char *text)
{
    struct policy_set *set = policies(text);
    struct policy_report r;
    struct errinfo info;
    size_t n;

    policy_report_init(&r);
    assert_int_equal(policy_schema_validate(b->schema, set, &r, &info), OK);
    n = r.n_errors + r.n_warnings;
    policy_report_release(&r);
    policy_set_unref(set);
    return n;
}

static void policies_are_checked_by_it(void **state)
{
    static const char *const good[] = {
        "permit(principal in Group::\"sales\", action in Action::\"reads\", resource in Tenant::\"acme\");",
        "permit(principal, action == Action::\"outlook.send_mail\", resource is Mailbox)\n"
        "when { [\"a@b.c\"].containsAll(context.args.to) && context.side == \"user\" };",
        "permit(principal, action in Action::\"operating\", resource is Tenant);",
        "permit(principal, action in Action::\"outlook.list_mail\", resource) when { context.args has to };",
        "permit(principal is User, action, resource) when { principal has odd && !(principal has none) };",
        "permit(principal, action in Action::\"says things\", resource) when { context.delegator == principal };",
        "forbid(principal is User, action, resource) when { principal has level && principal.level > 3 };",
        "forbid(principal is User in HR::Team::\"t\", action, resource) unless { principal has home && "
        "principal.home has zip && principal.home.zip == 1 };",
        "permit(principal in HR::Unit::\"u\", action, resource) when { principal is User && principal has boss && "
        "principal.boss has \"if\" && principal.boss[\"if\"].contains(\"x\") };",
        "permit(principal is User, action == Action::\"delegations.record\", resource is Agent);",
        "permit(principal is User, action, resource) when { principal.hasTag(\"a\") && "
        "principal.getTag(\"a\") == \"x\" };",
        "permit(principal, action, resource) when { context has delegation && context.delegation.covers };",
    };
    static const char *const bad[] = {
        "permit(principal, action == Action::\"outlook.send_mial\", resource);",
        "permit(principal is Usr, action, resource);",
        "permit(principal, action == Action::\"outlook.send_mail\", resource is Channel);",
        "permit(principal, action == Action::\"outlook.send_mail\", resource) when { context.args.too == \"x\" };",
        "permit(principal, action == Action::\"outlook.send_mail\", resource) when { context.args.to == \"x\" };",
        "permit(principal is User, action, resource) when { principal.level > 3 };",
        "permit(principal is User, action, resource) when { principal has odd && principal.odd == 1 };",
        "permit(principal is User, action, resource) when { principal has none && principal.none.isEmpty() };",
    };
    struct bed b;

    bed_open(&b);
    for (size_t i = 0; i < ARRAY_LEN(good); i++)
        if (findings_in(&b, good[i]))
            fail_msg("does not validate: %s", good[i]);
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        if (!findings_in(&b, bad[i]))
            fail_msg("validates: %s", bad[i]);
    bed_close(&b);
}

static void the_operators_entities_fit(void **state)
{
    struct policy_entities *typed = policy_entities_new();
    struct errinfo info = { "" };
    struct bed b;

    bed_open(&b);
    assert_non_null(strstr(b.text.p, "    none?: Untyped,\n    odd?: Untyped,\n}"));
    assert_int_equal(policy_entities_add_json_typed(typed, b.schema, STR(
        "[{\"uid\": {\"type\": \"HR::Team\", \"id\": \"t\"}, \"attrs\": {\"open\": true, \"net\": \"10.0.0.1\"}, "
        "\"parents\": [{\"type\": \"HR::Unit\", \"id\": \"u\"}]}]"), &info), OK);
    policy_entities_unref(typed);
    bed_close(&b);
}

/* The same text each time, also in another process: hashes must not show. Here: entities in another order. */
static void the_text_does_not_depend_on_order(void **state)
{
    struct policy_entities *store = policy_entities_new();
    struct registry_options opt = { .policy = policies("") };
    struct registry *again;
    struct buf text = BUF_INIT(1 << 20);
    struct json *all, *turned;
    struct json_error where;
    struct errinfo info;
    struct bed b;

    bed_open(&b);
    assert_int_equal(json_parse(&b.arena, str_of(entities), NULL, &all, &where), OK);
    turned = json_array(&b.arena);
    for (size_t i = json_len(all); i > 0; i--)
        json_push(&b.arena, turned, json_copy(&b.arena, json_at(all, i - 1)));
    json_write(&text, turned);
    assert_int_equal(policy_entities_add_json(store, buf_str(&text), &info), OK);
    assert_int_equal(policy_entities_freeze(store, &info), OK);
    opt.entities = store;
    assert_int_equal(registry_build(&opt, &again, &info), OK);
    text.len = 0;
    assert_int_equal(vocabulary_write(again, &text, &info), OK);
    assert_true(str_eq(buf_str(&text), buf_str(&b.text)));
    buf_release(&text);
    registry_unref(again);
    policy_entities_unref(store);
    policy_set_unref(opt.policy);
    bed_close(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_question_fits), cmocka_unit_test(the_engines_own_actions_fit),
        cmocka_unit_test(what_does_not_fit_is_refused), cmocka_unit_test(policies_are_checked_by_it),
        cmocka_unit_test(the_operators_entities_fit), cmocka_unit_test(the_text_does_not_depend_on_order),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
