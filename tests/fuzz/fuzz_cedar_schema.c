/*
 * fuzz_cedar_schema.c -- any bytes as a schema, in both forms; then as policies, entities and a context under it
 *
 * Input: a schema, then perhaps policies, entities (JSON) and a context (JSON), separated by lines of "----".  What
 * must hold: a refusal names a line; a schema is read twice alike; validating ends, twice alike; what is read by a type
 * and passes the check of a request is decided.
 */
#include <stdint.h>

#include "base/check.h"
#include "tests/fuzz/parts.h"
#include "json/json.h"
#include "policy/schema.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct policy_schema *read_schema(struct str text, enum policy_schema_format format)
{
    struct errinfo info = { "" }, again = { "" };
    struct policy_schema *s = NULL, *t = NULL;
    struct policy_report report;
    enum err e;

    policy_report_init(&report);
    e = policy_schema_parse(STR("s"), text, format, &s, &report, &info);
    ASSERT(e == OK || (e == E_CONFIG && strncmp(info.text, "s:", 2) == 0) || e == E_CALL_TOO_LARGE);
    ASSERT(report.n_errors == 0);
    ASSERT(policy_schema_parse(STR("s"), text, format, &t, NULL, &again) == e);
    ASSERT(strcmp(info.text, again.text) == 0);
    if (!e)
        ASSERT(policy_schema_actions(s) == policy_schema_actions(t));
    policy_schema_unref(t);
    policy_report_release(&report);
    return s;
}

static void validate(const struct policy_schema *s, const struct policy_set *set)
{
    struct policy_report one, two;
    enum err e;

    policy_report_init(&one);
    policy_report_init(&two);
    e = policy_schema_validate(s, set, &one, NULL);
    ASSERT(e == OK || e == E_CALL_TOO_LARGE);
    ASSERT(policy_schema_validate(s, set, &two, NULL) == e);
    ASSERT(one.n_errors == two.n_errors && one.n_warnings == two.n_warnings);
    for (const struct policy_finding *f = one.first; f; f = f->next)
        ASSERT(f->text.len > 0);
    policy_report_release(&one);
    policy_report_release(&two);
}

static void decide(const struct policy_schema *s, const struct policy_set *set, struct policy_entities *store,
    struct str context)
{
    struct policy_uid who = policy_uid(STR("User"), STR("a")), what = policy_uid(STR("Action"), STR("view")),
        which = policy_uid(STR("Doc"), STR("d"));
    struct policy_request r = { .principal = &who, .action = &what, .resource = &which };
    struct policy_layer layer;
    struct policy_decision d;
    struct arena a;
    struct json *j;
    enum err e;

    arena_init(&a, 16 << 20);
    policy_layer_init(&layer, store);
    r.entities = &layer;
    r.scratch = &a;
    if (json_parse(&a, context, NULL, &j, NULL) == OK
        && policy_context_from_json(&a, j, s, &what, &r.context, NULL) == OK
        && policy_schema_check_request(s, &r, NULL) == OK) {
        e = policy_decide(set, &r, &d);
        ASSERT(e == OK || e == E_CALL_TOO_LARGE);
    }
    arena_release(&a);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct str rest = str_n(data, size), text = next_part(&rest);
    struct policy_source source = { STR("p"), next_part(&rest) };
    struct str entities = next_part(&rest), context = next_part(&rest);
    struct policy_schema *s = read_schema(text, POLICY_SCHEMA_AUTO);
    struct policy_entities *store = policy_entities_new();
    struct policy_set *set = NULL;

    policy_schema_unref(read_schema(text, POLICY_SCHEMA_JSON));
    if (s && policy_set_parse(&source, 1, 0, &set, NULL) == OK) {
        validate(s, set);
        if (policy_entities_add_json_typed(store, s, entities, NULL) == OK && policy_entities_freeze(store, NULL) == OK)
            decide(s, set, store, context);
    }
    policy_set_unref(set);
    policy_entities_unref(store);
    policy_schema_unref(s);
    return 0;
}
