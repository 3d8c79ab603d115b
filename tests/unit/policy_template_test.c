/*
 * policy_template_test.c -- templates and their links, and policies in JSON: what they decide, and what is refused
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>

#include "base/check.h"
#include "policy/policy.h"

#define TEMPLATE                                                                                                       \
    "@id(\"mine\") permit(principal == ?principal, action, resource is Box in ?resource) "                             \
    "when { context.n < 10 };"

static struct policy_set *parsed(const struct policy_source *sources, size_t n)
{
    struct errinfo info = { "" };
    struct policy_set *set = NULL;

    if (policy_set_parse(sources, n, 0, &set, &info))
        fail_msg("%s", info.text);
    return set;
}

static struct policy_set *parsed_json(const char *json)
{
    struct policy_source source = { STR("set.json"), str_of(json), true };

    return parsed(&source, 1);
}

/* Who is refused with which words; the message begins with them. */
static void refused(const char *json, const char *words)
{
    struct policy_source source = { STR("set.json"), str_of(json), true };
    struct errinfo info = { "" };
    struct policy_set *set = NULL;

    assert_int_equal(policy_set_parse(&source, 1, 0, &set, &info), E_CONFIG);
    assert_null(set);
    if (strncmp(info.text, words, strlen(words)) != 0)
        fail_msg("expected: %s\ngot:      %s", words, info.text);
}

/* Does it allow `user` to act on Box::"b" of Team::"t" with context.n? By which policy, if by one. */
static bool allows(const struct policy_set *set, const char *user, int64_t n, struct str *ret_by)
{
    struct policy_uid team = policy_uid(STR("Team"), STR("t")), principal = policy_uid(STR("User"), str_of(user)),
                      action = policy_uid(STR("Action"), STR("read")), box = policy_uid(STR("Box"), STR("b"));
    const struct policy_uid *above[] = { &team };
    struct policy_attr attr = { STR("n"), policy_long(n) };
    struct policy_layer layer;
    struct policy_decision d;
    struct policy_request r = { .principal = &principal,
                                .action = &action,
                                .resource = &box,
                                .entities = &layer,
                                .context = policy_record_of(&attr, 1) };
    struct arena a;

    arena_init(&a, 1 << 20);
    r.scratch = &a;
    policy_layer_init(&layer, NULL);
    assert_int_equal(policy_layer_add(&layer, &a, box, (struct policy_value){ 0 }, above, 1), OK);
    assert_int_equal(policy_decide(set, &r, &d), OK);
    if (ret_by)
        *ret_by = d.n_reasons == 1 ? policy_set_info(set, d.reasons[0]).id : STR_NULL;
    arena_release(&a);
    return d.effect == POLICY_ALLOW;
}

/* --- templates -------------------------------------------------------------------------------------------------- */

static void test_links_of_other_sources(void **state)
{
    const struct policy_source sources[] = {
        { STR("links.json"),
          STR("{\"templateLinks\": [{\"templateId\": \"mine\", \"newId\": \"alice's\", \"values\": "
              "{\"?principal\": {\"type\": \"User\", \"id\": \"alice\"}, \"?resource\": {\"__entity\": "
              "[\"Team\", \"t\"]}}}]}"),
          true },
        { STR("a.cedar"), STR(TEMPLATE), false },
    };
    struct policy_set *set = parsed(sources, 2), *alone = parsed(&sources[1], 1);
    struct policy_info info;
    struct str by;

    assert_int_equal(policy_set_count(set), 1);
    assert_int_equal(policy_set_template_count(set), 1);
    assert_true(allows(set, "alice", 3, &by));
    assert_true(str_is(by, "alice's"));
    assert_false(allows(set, "alice", 10, NULL));
    assert_false(allows(set, "bob", 3, NULL));
    info = policy_set_info(set, 0);
    assert_true(str_is(info.template, "mine") && str_is(info.file, "a.cedar") && info.line == 1);

    assert_int_equal(policy_set_count(alone), 0); /* a template alone decides nothing */
    assert_int_equal(policy_set_template_count(alone), 1);
    assert_false(allows(alone, "alice", 3, NULL));
    assert_string_not_equal(policy_set_version(set), policy_set_version(alone));
    policy_set_unref(set);
    policy_set_unref(alone);
}

/* Links share their template's code: ten thousand of them are told apart by their heads alone. */
static void test_many_links(void **state)
{
    struct buf json = BUF_INIT(8 << 20);
    struct policy_set *set;
    struct str by;

    buf_add_z(&json,
              "{\"templates\": {\"t\": \"permit(principal == ?principal, action, resource) when { context.n < 5 };\""
              "}, \"templateLinks\": [");
    for (int i = 0; i < 10000; i++)
        buf_addf(&json,
                 "%s{\"templateId\": \"t\", \"newId\": \"l%d\", \"values\": {\"?principal\": {\"type\": \"User\", "
                 "\"id\": \"u%d\"}}}",
                 i ? "," : "", i, i);
    buf_add_z(&json, "]}");
    buf_add_c(&json, '\0');
    set = parsed_json(json.p);
    assert_int_equal(policy_set_count(set), 10000);
    for (int i = 0; i < 10000; i += 999) {
        char user[16], id[16];

        snprintf(user, sizeof(user), "u%d", i);
        snprintf(id, sizeof(id), "l%d", i);
        assert_true(allows(set, user, 4, &by));
        assert_true(str_is(by, id));
        assert_false(allows(set, user, 5, NULL));
    }
    assert_false(allows(set, "u10000", 4, NULL));
    policy_set_unref(set);
    buf_release(&json);
}

#define ONE(links)                                                                                                     \
    "{\"templates\": {\"t\": \"permit(principal in ?principal, action, resource);\"}, "                                \
    "\"staticPolicies\": {\"s\": \"forbid(principal, action, resource);\"}, \"templateLinks\": [" links "]}"
#define ALICE "{\"type\": \"User\", \"id\": \"alice\"}"

static void test_bad_links(void **state)
{
    refused(ONE("{\"templateId\": \"t\", \"newId\": \"l\", \"values\": {}}"),
            "set.json: templateLinks[0]: template `t` has ?principal, and a link gives a value for each and for "
            "nothing else");
    refused(ONE("{\"templateId\": \"t\", \"newId\": \"l\", \"values\": {\"?principal\": " ALICE
                ", \"?resource\": " ALICE "}}"),
            "set.json: templateLinks[0]: template `t` has ?principal, and");
    refused(ONE("{\"templateId\": \"s\", \"newId\": \"l\", \"values\": {\"?principal\": " ALICE "}}"),
            "set.json: templateLinks[0]: there is no template `s`");
    refused(ONE("{\"templateId\": \"t\", \"newId\": \"l\", \"values\": {\"?action\": " ALICE "}}"),
            "set.json: templateLinks[0].values: `?action` is not known here");
    refused(
        ONE("{\"templateId\": \"t\", \"newId\": \"l\", \"values\": {\"?principal\": {\"type\": \"9\", \"id\": \"\"}}}"),
        "set.json: templateLinks[0].values.?principal: `9` is not the name of an entity type");
    for (int i = 0; i < 2; i++) {
        struct policy_source source = {
            STR("set.json"),
            str_of(i ? ONE("{\"templateId\": \"t\", \"newId\": \"s\", \"values\": {\"?principal\": " ALICE "}}")
                     : ONE("{\"templateId\": \"t\", \"newId\": \"t\", \"values\": {\"?principal\": " ALICE "}}")),
            true
        };
        struct errinfo info = { "" };
        struct policy_set *set = NULL;

        assert_int_equal(policy_set_parse(&source, 1, 0, &set, &info), E_CONFIG);
        assert_non_null(strstr(info.text, "there is a policy with the id `"));
    }
}

/* --- JSON ------------------------------------------------------------------------------------------------------- */

#define HEAD       "\"principal\": {\"op\": \"All\"}, \"action\": {\"op\": \"All\"}, \"resource\": {\"op\": \"All\"}"
#define WHEN(body) "{\"effect\": \"permit\", " HEAD ", \"conditions\": [{\"kind\": \"when\", \"body\": " body "}]}"

static void test_forms(void **state)
{
    static const char *const holds[] = {
        WHEN("{\"==\": {\"left\": {\".\": {\"left\": {\"Var\": \"context\"}, \"attr\": \"n\"}}, "
             "\"right\": {\"Value\": 3}}}"),
        WHEN("{\"has\": {\"left\": {\"Var\": \"context\"}, \"attr\": \"n\"}}"),
        WHEN("{\"!\": {\"arg\": {\"has\": {\"left\": {\"Var\": \"context\"}, \"attr\": [\"x\", \"y\"]}}}}"),
        WHEN("{\"like\": {\"left\": {\"Value\": \"a*bc\"}, \"pattern\": [{\"Literal\": \"a*\"}, \"Wildcard\", "
             "{\"Literal\": \"c\"}]}}"),
        WHEN(
            "{\"is\": {\"left\": {\"Var\": \"resource\"}, \"entity_type\": \"Box\", \"in\": {\"Value\": {\"__entity\": "
            "{\"type\": \"Team\", \"id\": \"t\"}}}}}"),
        WHEN("{\"if-then-else\": {\"if\": {\"Value\": false}, \"then\": {\"Value\": 1}, \"else\": {\"isEmpty\": "
             "{\"arg\": "
             "{\"Set\": []}}}}}"),
        WHEN("{\"lessThan\": [{\"decimal\": [{\"Value\": \"1.0\"}]}, {\"Value\": {\"__extn\": {\"fn\": \"decimal\", "
             "\"arg\": \"1.5\"}}}]}"),
        WHEN("{\"==\": {\"left\": {\"Record\": {\"a\": {\"neg\": {\"arg\": {\"Value\": 2}}}}}, "
             "\"right\": {\"Value\": {\"a\": -2}}}}"),
        "{\"staticPolicies\": [\"permit(principal, action, resource) unless { context.n == 4 };\"]}",
        "{\"staticPolicies\": \"permit(principal, action, resource);\"}",
        ("{\"effect\": \"permit\", \"principal\": {\"op\": \"is\", \"entity_type\": \"User\", \"in\": null}, "
         "\"action\": {\"op\": \"all\"}, \"resource\": {\"op\": \"all\"}, \"conditions\": []}"),
    };

    for (size_t i = 0; i < ARRAY_LEN(holds); i++) {
        struct policy_set *set = parsed_json(holds[i]);

        if (!allows(set, "alice", 3, NULL))
            fail_msg("does not hold: %s", holds[i]);
        policy_set_unref(set);
    }
}

/* A condition with "k0", "k1" and so on between `before` and `after`, each followed by `unit`. */
static char *long_json(const char *before, const char *unit, unsigned n, const char *after)
{
    struct buf b = BUF_INIT(16 << 20);
    size_t len;

    buf_addf(&b, "{\"effect\": \"permit\", " HEAD ", \"conditions\": [{\"kind\": \"when\", \"body\": %s", before);
    for (unsigned i = 0; i < n; i++)
        buf_addf(&b, "%s\"k%u\"%s", i ? ", " : "", i, unit);
    buf_addf(&b, "%s}]}", after);
    buf_add_c(&b, '\0');
    return buf_take(&b, &len);
}

/* What the syntax bounds is bounded here, too: code has 16 bits for it. */
static void test_bounds(void **state)
{
    static const struct {
        const char *before, *unit, *after, *words;
        unsigned max;
    } cases[] = {
        { "{\"has\": {\"left\": {\"Record\": {", ": {\"Var\": \"context\"}", "}}, \"attr\": \"k7\"}}",
          "set.json: conditions[0].body.has.left.Record: a record literal has at most 1000 attributes", 1000 },
        { "{\"has\": {\"left\": {\"Value\": {", ": 1", "}}, \"attr\": \"k7\"}}",
          "set.json: conditions[0].body.has.left.Value: a record literal has at most 1000 attributes", 1000 },
        { "{\"!\": {\"arg\": {\"has\": {\"left\": {\"Var\": \"context\"}, \"attr\": [", "", "]}}}}",
          "set.json: conditions[0].body.!.arg.has: a path has at most 64 names", 64 },
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char *most = long_json(cases[i].before, cases[i].unit, cases[i].max, cases[i].after);
        char *more = long_json(cases[i].before, cases[i].unit, cases[i].max + 1, cases[i].after);
        char *many = long_json(cases[i].before, cases[i].unit, 65536, cases[i].after);
        struct policy_set *set = parsed_json(most);

        assert_true(allows(set, "alice", 3, NULL));
        refused(more, cases[i].words);
        refused(many, cases[i].words);
        policy_set_unref(set);
        free(most);
        free(more);
        free(many);
    }
}

static void test_annotations_and_scopes(void **state)
{
    struct policy_set *set = parsed_json(
        "{\"staticPolicies\": {\"a\": {\"effect\": \"permit\", \"principal\": {\"op\": "
        "\"==\", \"entity\": " ALICE "}, \"action\": {\"op\": \"in\", \"entities\": [{\"type\": \"Action\", \"id\": "
        "\"read\"}]}, \"resource\": {\"op\": \"is\", \"entity_type\": \"Box\", \"in\": {\"entity\": {\"type\": "
        "\"Team\", "
        "\"id\": \"t\"}}}, \"conditions\": [], \"annotations\": {\"approval\": \"finance\", \"note\": null}}}}");

    assert_int_equal(policy_set_count(set), 1);
    assert_true(str_is(policy_set_info(set, 0).id, "a"));
    assert_true(policy_set_info(set, 0).approval && str_is(policy_set_info(set, 0).role, "finance"));
    assert_true(str_is(policy_set_annotation(set, 0, "note"), ""));
    assert_false(allows(set, "alice", 0, NULL)); /* allowed once finance approves */
    policy_set_unref(set);
}

static void test_bad_json(void **state)
{
    refused("{\"staticPolicies\": {", "set.json:1:");
    refused("{\"policies\": {}}", "set.json: `policies` is not known here");
    refused("{\"staticPolicies\": {\"a\": " WHEN("{\"Value\": 1, \"Var\": \"context\"}") "}}",
            "set.json: staticPolicies.a.conditions[0].body: expected an expression: an object with one member");
    refused(WHEN("{\"frobnicate\": [{\"Value\": 1}]}"),
            "set.json: conditions[0].body.frobnicate: `frobnicate` is neither an operator nor an extension function");
    refused(WHEN("{\"+\": {\"left\": {\"Value\": 1}}}"), "set.json: conditions[0].body.+: expected a member \"right\"");
    refused(WHEN("{\"Value\": 1.5}"), "set.json: conditions[0].body.Value: expected a boolean, an integer");
    refused(WHEN("{\"Value\": 9223372036854775808}"), "set.json: conditions[0].body.Value: ");
    refused(WHEN("{\"Slot\": \"?principal\"}"),
            "set.json: conditions[0].body.Slot: a template's slot cannot stand in a condition");
    refused("{\"templates\": {\"t\": \"permit(principal, action, resource);\"}}",
            "set.json: templates.t: expected a template, found a policy without a slot");
    refused("{\"staticPolicies\": {\"p\": \"permit(principal == ?principal, action, resource);\"}}",
            "set.json: staticPolicies.p: expected a policy without slots");
    refused("{\"staticPolicies\": {\"p\": \"permit(principal, action, resource) when { 1 = 1 };\"}}",
            "set.json: staticPolicies.p: policy:1:46: `=` is no operator; did you mean `==`?");
    refused("{\"effect\": \"permit\", \"principal\": {\"op\": \"==\", \"slot\": \"?resource\"}}",
            "set.json: principal: expected the slot to be \"?principal\"");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_links_of_other_sources),
        cmocka_unit_test(test_many_links),
        cmocka_unit_test(test_bad_links),
        cmocka_unit_test(test_forms),
        cmocka_unit_test(test_bounds),
        cmocka_unit_test(test_annotations_and_scopes),
        cmocka_unit_test(test_bad_json),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
