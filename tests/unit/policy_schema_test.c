/*
 * policy_schema_test.c -- schemas in both forms: what is accepted, what is refused and where; entities, contexts and
 * requests read and checked by one
 *
 * What is accepted and refused was compared with the reference implementation (4.13).
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
#include "policy/schema.h"

static struct policy_schema *parse_as(const char *text, enum policy_schema_format format, struct errinfo *info)
{
    struct policy_schema *s = NULL;
    enum err e = policy_schema_parse(STR("s"), str_of(text), format, &s, NULL, info);

    assert_true(e == OK || e == E_CONFIG);
    assert_true((e == OK) == (s != NULL));
    return s;
}

static struct policy_schema *schema(const char *text)
{
    struct errinfo info;
    struct policy_schema *s = parse_as(text, POLICY_SCHEMA_AUTO, &info);

    if (!s)
        fail_msg("%s\n%s", info.text, text);
    return s;
}

static void accepted(const char *text)
{
    policy_schema_unref(schema(text));
}

static void refused(const char *text, const char *message)
{
    struct errinfo info = { "" };
    struct policy_schema *s = parse_as(text, POLICY_SCHEMA_AUTO, &info);

    if (s)
        fail_msg("accepted: %s", text);
    assert_string_equal(info.text, message);
}

/* --- text --------------------------------------------------------------------------------------------------------- */

static void test_text_accepted(void **state)
{
    static const char *const good[] = {
        "", "// nothing\n", "namespace N {}", "entity A;", "entity A, B in [C] = { x: Long, }; entity C;",
        "entity A { a?: Set<Set<Long>>, \"b c\": { d: A } } tags Set<String>;",
        "entity A in A;", "entity A in [B]; entity B in [A];", "entity A in [];",
        "entity A enum [\"x\", \"y\"]; entity B in A;", "entity Set; entity B { a: Set, b: Set<Set> };",
        "entity entity; entity type; entity action { action: action }; entity namespace; entity enum, tags, in_;",
        "entity Long { l: __cedar::Long }; entity B { l: Long };",
        ("type T = { a: U }; type U = Set<V>; type V = decimal; entity A { t: T, ip: ipaddr, d: datetime, u: duration "
         "};"),
        "type T = Long; entity T; entity A { t: T };",
        "type decimal = Long; entity A { d: decimal, e: __cedar::decimal };",
        "@a @b(\"c\") namespace N::M { @doc(\"x\") entity A { @if a: Long }; @x action b; @y type T = A; }",
        "namespace N { entity A; entity B { a: A, b: N::A, c: M::A }; } namespace M { entity A; }",
        "namespace N { entity A { b: B }; } entity B;", "namespace N { type Long2 = Long; } type T = N::Long2;",
        "action a, \"b c\" in [d, \"e\", Action::\"f\"]; action d; action e; action f;",
        "action a appliesTo { principal: A, resource: [A, B], context: { x?: Long } }; entity A, B;",
        "action a appliesTo { context: C, resource: A, principal: [A], }; entity A; type C = {};",
        "action a attributes {};", "action a in N::Action::\"b\"; namespace N { action b; action c in Action::\"b\"; }",
        "entity A { a: Action }; action x;", "entity A { a: Long, a: String };",
        "entity A { \"\\u{1F600}\\n\": Long, principal: String, Bool: Bool };",
    };

    for (size_t i = 0; i < ARRAY_LEN(good); i++)
        accepted(good[i]);
}

static void test_text_refused(void **state)
{
    refused("entity A", "s:1:9: expected `,`, `in`, `enum`, `{`, `tags` or `;`, found the end of the file");
    refused("entity A { x: };", "s:1:15: expected a type, found `}`");
    refused("entity A {\n  x Long };", "s:2:5: expected `?` or `:`, found `Long`");
    refused("entity in;", "s:1:8: expected the name of an entity type, found the reserved word `in`");
    refused("entity \xc3\xa9;", "s:1:8: this character begins no token");
    refused("entity A { x: Set<Long };", "s:1:24: expected `>`, found `}`");
    refused("entity A = T; type T = {};", "s:1:12: expected `{`, found `T`");
    refused("entity A enum [];", "s:1:16: expected a string, found `]`");
    refused("entity A in [B,]; entity B;", "s:1:16: expected the name of an entity type, found `]`");
    refused("@a @a entity A;", "s:1:5: there are two annotations @a here");
    refused("permit(principal, action, resource);",
        "s:1:1: expected `namespace`, `entity`, `action` or `type`, found `permit`");
    refused("namespace N { namespace M {} }", "s:1:15: expected `entity`, `action`, `type` or `}`, found `namespace`");
    refused("action a appliesTo { principal: A }; entity A;", "s:1:10: `appliesTo` must name the types of its "
        "resource");
    refused("action a appliesTo { principal: [], resource: A }; entity A;", "s:1:22: the list of `principal` types is "
        "empty: leave `appliesTo` out if the action applies to nothing");
    refused("action a appliesTo { principal: A, principal: A, resource: A };", "s:1:36: `principal` is given twice");
    refused("action a appliesTo {};", "s:1:21: expected `principal`, `resource` or `context`, found `}`");
    refused("action a attributes { x: 1 };", "s:1:23: expected `}`: actions have no attributes, found `x`");
    refused("\xff", "s:1:1: the file is not valid UTF-8");
}

static void test_names(void **state)
{
    refused("entity A { x: B };", "s:1:15: `B` is not declared as a common or entity type");
    refused("namespace N { entity A in B; }", "s:1:27: neither `N::B` nor `B` is declared as an entity type");
    refused("entity A in B; type B = Long;", "s:1:13: `B` is not declared as an entity type");
    refused("action a appliesTo { principal: A, resource: A, context: A }; entity A;",
        "s:1:58: `A` is not declared as a common type");
    refused("action a appliesTo { principal: A, resource: A, context: C }; entity A; type C = Long;",
        "s:1:58: expected a record, found another type");
    refused("action a in b;", "s:1:13: the action Action::\"b\" is not declared");
    refused("entity A; entity B, A;", "s:1:21: the entity type `A` is declared twice");
    refused("type A = Long; type A = Long;", "s:1:21: the type `A` is declared twice");
    refused("action a; action \"a\";", "s:1:18: the action `a` is declared twice");
    refused("namespace N {} namespace N {}", "s:1:16: the namespace `N` is declared twice");
    refused("type A = B; type B = Set<A>;", "s:1:26: the type `A` is defined by itself");
    refused("type A = { a: A };", "s:1:15: the type `A` is defined by itself");
    refused("action a in b; action b in a;", "s:1:8: the action `a` would be in itself");
    refused("action a in a;", "s:1:8: the action `a` would be in itself");
    refused("type Long = String;", "s:1:6: the name `Long` is reserved");
    refused("type Record = String;", "s:1:6: the name `Record` is reserved");
    refused("entity __cedar;", "s:1:8: the name `__cedar` is reserved");
    refused("namespace __cedar {}", "s:1:1: the name `__cedar` is reserved");
    refused("entity Action;", "s:1:8: an entity type must not be named Action: that is the type of actions");
    refused("entity A; namespace N { entity A; }",
        "s:1:32: `N::A` would hide `A`, which is declared without a namespace");
    refused("entity A; namespace N { type A = Long; }",
        "s:1:30: `N::A` would hide `A`, which is declared without a namespace");
    refused("action a; namespace N { action a; }",
        "s:1:32: the action `a` would hide the one declared without a namespace");
    refused("action a appliesTo { principal: Action, resource: A }; entity A;",
        "s:1:33: `Action` is the type of actions; expected another entity type");
    refused("entity A { b: Boolean };", "s:1:15: `Boolean` is not declared as a common or entity type");
    refused("entity A { b: __cedar::Boolean };", "s:1:15: `__cedar::Boolean` is not declared as a common or entity "
        "type");
}

/* --- JSON --------------------------------------------------------------------------------------------------------- */

#define NS(entities, actions, commons) \
    "{\"\": {\"entityTypes\": {" entities "}, \"actions\": {" actions "}, \"commonTypes\": {" commons "}}}"

static void test_json_accepted(void **state)
{
    static const char *const good[] = {
        "{}", "{\"N::M\": {\"entityTypes\": {}, \"actions\": {}, \"annotations\": {\"a\": \"b\", \"if\": null}}}",
        NS("\"A\": {}", "\"a\": {}", ""), NS("\"A\": {\"memberOfTypes\": [\"A\"], \"tags\": {\"type\": \"Long\"}}",
            "", ""),
        NS("\"A\": {\"shape\": {\"type\": \"Record\", \"attributes\": {\"a\": {\"type\": \"Set\", \"element\": "
            "{\"type\": \"Entity\", \"name\": \"A\"}, \"required\": false}}, \"additionalAttributes\": false}}",
            "", ""),
        NS("\"A\": {\"shape\": {\"type\": \"T\"}}", "", "\"T\": {\"type\": \"Record\", \"attributes\": {}}"),
        NS("\"A\": {\"enum\": [\"x\"], \"annotations\": {}}", "", ""),
        NS("\"A\": {\"tags\": {\"type\": \"Bool\"}}", "", ""), NS("\"A\": {\"tags\": {\"type\": \"ipaddr\"}}", "", ""),
        NS("\"A\": {\"tags\": {\"type\": \"Extension\", \"name\": \"decimal\"}}", "", ""),
        NS("\"A\": {\"tags\": {\"type\": \"EntityOrCommon\", \"name\": \"__cedar::Long\"}}", "", ""),
        NS("\"A\": {}", "\"a\": {\"memberOf\": [{\"id\": \"b\"}, {\"id\": \"b\", \"type\": null}, {\"id\": \"b\", "
            "\"type\": \"Action\"}], \"attributes\": null, \"appliesTo\": {\"principalTypes\": [], "
            "\"resourceTypes\": [\"A\"]}},"
            " \"b\": {\"appliesTo\": null, \"memberOf\": null}", ""),
    };

    for (size_t i = 0; i < ARRAY_LEN(good); i++)
        accepted(good[i]);
}

static void test_json_refused(void **state)
{
    refused("{\n \"a b\": {}}", "s:2:2: this is no name for a namespace: \"a b\"");
    refused("{\"N\": {\"entityTypes\": {}}}", "s:1:2: a namespace needs both \"entityTypes\" and \"actions\"");
    refused("{\"\": {\"entityTypes\": {}, \"actions\": {}, \"annotations\": {\"a\": \"\"}}}",
        "s:1:2: the namespace without a name cannot have annotations");
    refused(NS("\"A\": {\"foo\": 1}", "", ""), "s:1:29: nothing of this name is expected here: \"foo\"");
    refused(NS("\"A\": {\"shape\": null}", "", ""), "s:1:29: expected a type, an object");
    refused(NS("\"A\": {\"shape\": {}}", "", ""), "s:1:29: a type needs a \"type\"");
    refused(NS("\"A\": {\"shape\": {\"type\": \"String\"}}", "", ""), "s:1:29: expected a record, found another type");
    refused(NS("\"A\": {\"tags\": {\"type\": \"Set\"}}", "", ""), "s:1:29: a Set needs the type of its \"element\"");
    refused(NS("\"A\": {\"tags\": {\"type\": \"Long\", \"name\": \"x\"}}", "", ""),
        "s:1:54: nothing of this name is expected here: \"name\"");
    refused(NS("\"A\": {\"tags\": {\"type\": \"Long\", \"required\": true}}", "", ""),
        "s:1:29: nothing of this name is expected here: \"required\"");
    refused(NS("\"A\": {\"tags\": {\"type\": \"Record\"}}", "", ""), "s:1:29: a Record needs its \"attributes\"");
    refused(NS("\"A\": {\"tags\": {\"type\": \"Record\", \"attributes\": {}, \"additionalAttributes\": true}}", "", ""),
        "s:1:74: records with additional attributes are not supported");
    refused(NS("\"A\": {\"enum\": []}", "", ""), "s:1:29: an enumerated type needs at least one id");
    refused(NS("\"A\": {\"enum\": [\"a\"], \"tags\": {\"type\": \"Long\"}}", "", ""),
        "s:1:44: nothing of this name is expected here: \"tags\"");
    refused(NS("\"A B\": {}", "", ""), "s:1:23: this is no name for an entity type: \"A B\"");
    refused(NS("\"N::A\": {}", "", ""), "s:1:23: this is no name for an entity type: \"N::A\"");
    refused(NS("", "\"a\": {\"attributes\": {}}", ""), "s:1:44: actions have no attributes");
    refused(NS("", "\"a\": {\"appliesTo\": {\"principalTypes\": []}}", ""),
        "s:1:44: \"appliesTo\" needs both \"principalTypes\" and \"resourceTypes\"");
    refused(NS("\"A\": {\"tags\": {\"type\": \"Extension\", \"name\": \"foo\"}}", "", ""),
        "s:1:29: `foo` is no extension type; there are decimal, ipaddr, datetime and duration");
    refused(NS("\"A\": {\"tags\": {\"type\": \"Entity\", \"name\": \"B\"}}", "", ""),
        "s:1:29: `B` is not declared as an entity type");
    refused(NS("", "", "\"Set\": {\"type\": \"Long\"}"), "s:1:57: the name `Set` is reserved");
    refused("{\"\": {\"entityTypes\": {}, \"entityTypes\": {}, \"actions\": {}}}",
        "s:1:27: two members have the same key");
}

static void test_depth(void **state)
{
    struct buf b = BUF_INIT(1 << 20);

    buf_add_z(&b, "entity A { a: ");
    for (int i = 0; i < 5000; i++)
        buf_add_z(&b, "Set<");
    buf_add_c(&b, '\0');
    refused(b.p, "s:1:815: types are nested more than 200 deep");
    buf_clear(&b);
    /* Shared parts: written out this type would have 2^100 attributes. */
    buf_add_z(&b, "type T0 = { x: Long };");
    for (int i = 1; i <= 100; i++)
        buf_addf(&b, "type T%d = { a: T%d, b: T%d };", i, i - 1, i - 1);
    buf_add_z(&b, "entity A { t: T100, u: T99 };");
    buf_add_c(&b, '\0');
    accepted(b.p);
    buf_clear(&b);
    for (int i = 0; i < 300; i++)
        buf_addf(&b, "type T%d = { a: T%d };", i + 1, i);
    buf_add_z(&b, "type T0 = Long;");
    buf_add_c(&b, '\0');
    refused(b.p, "s:1:4571: this type is nested more than 200 deep");
    buf_release(&b);
}

static void test_warnings(void **state)
{
    struct policy_report report;
    struct policy_schema *s = NULL;
    struct errinfo info;

    policy_report_init(&report);
    assert_int_equal(policy_schema_parse(STR("s"), STR("entity Long, T; type T = String;"), POLICY_SCHEMA_TEXT, &s,
        &report, &info), OK);
    assert_int_equal(report.n_warnings, 2);
    assert_int_equal(report.n_errors, 0);
    assert_int_equal(report.first->column, 8);
    assert_int_equal(report.first->next->column, 22);
    assert_int_equal(policy_schema_entity_types(s), 2);
    assert_int_equal(policy_schema_actions(s), 0);
    policy_schema_unref(s);
    policy_report_release(&report);
}

/* --- entities and requests ---------------------------------------------------------------------------------------- */

static const char app[] =
    "entity User in [Team] { name: String, boss?: User, net: ipaddr, pay: decimal, teams: Set<Team>,"
    "    home: { city: String, zip?: Long } } tags Set<String>;"
    "entity Team, Doc; entity Color enum [\"red\", \"blue\"];"
    "action read in [all, reads] appliesTo { principal: User, resource: [Doc, Color],"
    "    context: { at: datetime, color?: Color, via?: Action, n?: Long } };"
    "action all; action reads in all;";

static enum err add(const struct policy_schema *s, const char *json, struct policy_entities **ret,
    struct errinfo *info)
{
    struct policy_entities *store = policy_entities_new();
    enum err e = policy_entities_add_json_typed(store, s, str_of(json), info);

    if (!e)
        e = policy_entities_freeze(store, info);
    if (!e && ret)
        *ret = store;
    else
        policy_entities_unref(store);
    return e;
}

#define USER(attrs, parents, more) \
    "[{\"uid\": {\"type\": \"User\", \"id\": \"a\"}, \"attrs\": {" attrs "}, \"parents\": [" \
    parents "]" more "}]"
#define WELL "\"name\": \"n\", \"net\": \"10.0.0.0/8\", \"pay\": {\"fn\": \"decimal\", \"arg\": \"1.5\"}, " \
    "\"teams\": [{\"type\": \"Team\", \"id\": \"t\"}, {\"__entity\": {\"type\": \"Team\", \"id\": \"u\"}}], " \
    "\"home\": {\"city\": \"c\"}"

static void test_entities(void **state)
{
    struct policy_uid user = policy_uid(STR("User"), STR("a")), read = policy_uid(STR("Action"), STR("read"));
    struct policy_schema *s = schema(app);
    const struct policy_entity *e;
    struct policy_entities *store;
    struct buf b = BUF_INIT(1000);
    struct errinfo info;

    if (add(s, USER(WELL, "{\"type\": \"Team\", \"id\": \"t\"}", ", \"tags\": {\"x\": [\"y\"]}"), &store, &info))
        fail_msg("%s", info.text);
    e = policy_entities_find(store, &user);
    assert_non_null(e);
    assert_int_equal(e->n_ancestors, 1);
    assert_int_equal(e->n_tags, 1);
    policy_value_write(&b, policy_record_get(e->attrs, e->n_attrs, STR("net")));
    policy_value_write(&b, policy_record_get(e->attrs, e->n_attrs, STR("pay")));
    policy_value_write(&b, policy_record_get(e->attrs, e->n_attrs, STR("teams")));
    assert_true(str_starts(buf_str(&b), STR("ip(\"10.0.0.0/8\")decimal(\"1.5000\")[Team::")));
    e = policy_entities_find(store, &read);
    assert_non_null(e);
    assert_int_equal(e->n_ancestors, 2);
    policy_entities_unref(store);
    policy_schema_unref(s);
    buf_release(&b);
}

/* ["type", "id"] is an entity's reference only where nothing else can stand. */
static void test_entity_as_pair(void **state)
{
    static const char *const bad[] = {
        USER(WELL ", \"boss\": [\"User\"]", "", ""), USER(WELL ", \"boss\": [\"User\", \"b\", \"c\"]", "", ""),
        USER(WELL ", \"boss\": [\"User\", 1]", "", ""), USER(WELL ", \"boss\": [\"if\", \"b\"]", "", ""),
        USER(WELL, "[\"Team\"]", ""), USER(WELL, "[\"if\", \"t\"]", ""),
    };
    struct policy_uid user = policy_uid(STR("User"), STR("a"));
    struct policy_schema *s = schema(app);
    struct policy_entities *store;
    const struct policy_entity *e;
    struct errinfo info;

    if (add(s, USER(WELL ", \"boss\": [\"User\", \"b\"]", "[\"Team\", \"t\"]", ""), &store, &info))
        fail_msg("%s", info.text);
    e = policy_entities_find(store, &user);
    assert_int_equal(e->n_ancestors, 1);
    assert_int_equal(policy_record_get(e->attrs, e->n_attrs, STR("boss"))->kind, POLICY_ENTITY);
    policy_entities_unref(store);
    assert_int_equal(add(NULL, "[{\"uid\": [\"User\", \"a\"], \"attrs\": {\"x\": [\"User\", \"b\"]}, "
        "\"parents\": []}]", &store, &info), OK);
    e = policy_entities_find(store, &user);
    assert_int_equal(policy_record_get(e->attrs, e->n_attrs, STR("x"))->kind, POLICY_SET);
    policy_entities_unref(store);
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        assert_int_equal(add(s, bad[i], NULL, &info), E_FORMAT);
    policy_schema_unref(s);
}

static void test_entities_refused(void **state)
{
    static const struct { const char *json, *message; } bad[] = {
        { USER("\"name\": \"n\"", "", ""), "the attribute `net` is missing: User::\"a\"" },
        { USER(WELL ", \"x\": 1", "", ""), "there is no attribute `x`: User::\"a\"" },
        { USER("\"name\": 1, \"net\": \"::1\", \"pay\": \"1.0\", \"teams\": [], \"home\": {\"city\": \"\"}", "", ""),
            "attrs.name: expected String, found Long: User::\"a\"" },
        { USER("\"name\": \"\", \"net\": \"nowhere\", \"pay\": \"1.0\", \"teams\": [], \"home\": {\"city\": \"\"}",
            "", ""),
            "these are no arguments for `ip`: User::\"a\"" },
        { USER("\"name\": \"\", \"net\": \"::1\", \"pay\": {\"__extn\": {\"fn\": \"ip\", \"arg\": \"::1\"}}, "
            "\"teams\": [], "
            "\"home\": {\"city\": \"\"}", "", ""), "attrs.pay: expected decimal, found ipaddr: User::\"a\"" },
        { USER(WELL ", \"boss\": {\"type\": \"Doc\", \"id\": \"x\"}", "", ""),
            "attrs.boss: expected User, found Doc: User::\"a\"" },
        { USER(WELL ", \"boss\": \"x\"", "", ""), "expected an entity of type User as {\"type\": \"...\", \"id\": "
            "\"...\"}: User::\"a\"" },
        { USER(WELL, "{\"type\": \"Doc\", \"id\": \"d\"}", ""),
            "entities of this type cannot be in one of type Doc: User::\"a\"" },
        { USER(WELL, "", ", \"tags\": {\"t\": [1]}"), "tags[]: expected String, found Long: User::\"a\"" },
        { "[{\"uid\": {\"type\": \"Doc\", \"id\": \"d\"}, \"attrs\": {}, \"parents\": [], \"tags\": {\"a\": 1}}]",
            "entities of this type have no tags: Doc::\"d\"" },
        { "[{\"uid\": {\"type\": \"Foo\", \"id\": \"d\"}, \"attrs\": {}, \"parents\": []}]",
            "the schema declares no entity type for this: Foo::\"d\"" },
        { "[{\"uid\": {\"type\": \"Color\", \"id\": \"green\"}, \"attrs\": {}, \"parents\": []}]",
            "the enumerated type Color has no \"green\"" },
        { "[{\"uid\": {\"type\": \"Action\", \"id\": \"x\"}, \"attrs\": {}, \"parents\": []}]",
            "the schema has no such action: Action::\"x\"" },
        { "[{\"uid\": {\"type\": \"Action\", \"id\": \"read\"}, \"attrs\": {}, \"parents\": []}]",
            "this action is in other actions than the schema says: Action::\"read\"" },
        { "[{\"uid\": {\"type\": \"Action\", \"id\": \"all\"}, \"attrs\": {\"x\": 1}, \"parents\": []}]",
            "actions have neither attributes nor tags: Action::\"all\"" },
    };
    struct policy_schema *s = schema(app);
    struct errinfo info;

    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        assert_int_not_equal(add(s, bad[i].json, NULL, &info), OK);
        assert_string_equal(info.text, bad[i].message);
    }
    /* What the schema says may be said again, directly or through what it says. */
    assert_int_equal(add(s, "[{\"uid\": {\"type\": \"Action\", \"id\": \"read\"}, \"attrs\": {}, \"parents\": ["
        "{\"type\": \"Action\", \"id\": \"reads\"}]}, {\"uid\": {\"type\": \"Action\", \"id\": \"reads\"}, \"attrs\": "
            "{}, "
        "\"parents\": [{\"type\": \"Action\", \"id\": \"all\"}]}]", NULL, &info), OK);
    policy_schema_unref(s);
}

/* "" if the request passes. */
static void request(const char *principal, const char *action, const char *type, const char *id, const char *context,
    const char *message)
{
    struct policy_uid p = policy_uid(str_of(principal), STR("a")), a = policy_uid(STR("Action"), str_of(action)),
        r = policy_uid(str_of(type), str_of(id));
    struct policy_request req = { .principal = &p, .action = &a, .resource = &r };
    struct policy_schema *s = schema(app);
    struct errinfo info = { "" };
    struct arena arena;
    struct json *j;

    arena_init(&arena, 1 << 20);
    assert_int_equal(json_parse(&arena, str_of(context), NULL, &j, NULL), OK);
    if (policy_context_from_json(&arena, j, s, &a, &req.context, &info) == OK)
        policy_schema_check_request(s, &req, &info);
    assert_string_equal(info.text, message);
    arena_release(&arena);
    policy_schema_unref(s);
}

static void test_requests(void **state)
{
    static const char at[] = "{\"at\": \"2026-01-01\"}";

    request("User", "read", "Doc", "d", at, "");
    request("User", "read", "Color", "red", at, "");
    request("User", "read", "Color", "green", at, "the enumerated type Color has no \"green\"");
    request("Doc", "read", "Doc", "d", at, "Action::\"read\" does not apply to a principal of type Doc");
    request("User", "read", "User", "d", at, "Action::\"read\" does not apply to a resource of type User");
    request("Foo", "read", "Doc", "d", at, "the schema has no entity type Foo, which is the principal's");
    request("User", "write", "Doc", "d", at, "the schema has no action Action::\"write\"");
    request("User", "all", "Doc", "d", "{}", "Action::\"all\" does not apply to a principal of type User");
    request("User", "read", "Doc", "d", "{}", "the attribute `at` is missing");
    request("User", "read", "Doc", "d", "[]", "a context is an object");
    request("User", "read", "Doc", "d", "{\"at\": \"2026-01-01\", \"n\": \"1\"}",
        "context.n: expected Long, found String");
    request("User", "read", "Doc", "d", "{\"at\": \"2026-01-01\", \"m\": 1}", "there is no attribute `m`");
    request("User", "read", "Doc", "d", "{\"at\": {\"fn\": \"offset\", \"args\": [\"2026-01-01\", \"1d\"]}}", "");
    request("User", "read", "Doc", "d", "{\"at\": \"2026-01-01\", \"color\": {\"type\": \"Color\", \"id\": \"x\"}}",
        "context.color: the enumerated type Color has no \"x\"");
    request("User", "read", "Doc", "d", "{\"at\": \"2026-01-01\", \"via\": {\"type\": \"Action\", \"id\": \"x\"}}",
        "context.via: the schema has no action Action::\"x\"");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_text_accepted), cmocka_unit_test(test_text_refused), cmocka_unit_test(test_names),
        cmocka_unit_test(test_json_accepted), cmocka_unit_test(test_json_refused), cmocka_unit_test(test_depth),
        cmocka_unit_test(test_warnings), cmocka_unit_test(test_entities), cmocka_unit_test(test_entity_as_pair),
        cmocka_unit_test(test_entities_refused),
        cmocka_unit_test(test_requests),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
