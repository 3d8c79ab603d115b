/*
 * fuzz_policy.c -- any bytes as policies, entities and a context: refused with a place, or decided
 *
 * Two targets: policies as text, and as JSON (FUZZ_JSON 1: sets with templates and links, or one policy).
 *
 * Input: policies, then perhaps entities (JSON), then perhaps a context (JSON), separated by lines of "----".
 * What must hold: a refusal names a line; a decision ends, twice alike; what is allowed is never hidden from a listing,
 * however little the listing knows.
 */
#include <stdint.h>

#include "base/check.h"
#include "tests/fuzz/parts.h"
#include "json/json.h"
#include "policy/policy.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct policy_value read_context(struct arena *a, struct str text, enum policy_json mode)
{
    struct policy_value v = policy_record_of(NULL, 0), read = { 0 };
    struct errinfo info;
    struct json *j;

    if (json_parse(a, text, NULL, &j, NULL) == OK && policy_value_from_json(a, j, mode, &read, &info) == OK
        && read.kind == POLICY_RECORD)
        v = read;
    return v;
}

static void decide(const struct policy_set *set, const struct policy_layer *layer, struct policy_value context,
    struct arena *a)
{
    struct policy_uid who = policy_uid(STR("User"), STR("alice")), what = policy_uid(STR("Action"), STR("view")),
        which = policy_uid(STR("Photo"), STR("beach"));
    struct policy_request r = { .principal = &who, .action = &what, .resource = &which, .context = context,
        .entities = layer,
        .scratch = a };
    struct policy_decision d, again;
    enum err e = policy_decide(set, &r, &d);

    ASSERT(e == OK || e == E_CALL_TOO_LARGE);
    if (e)
        return;
    ASSERT(policy_decide(set, &r, &again) == OK);
    ASSERT(d.effect == again.effect && d.n_reasons == again.n_reasons && d.n_errors == again.n_errors);
    ASSERT(d.effect == POLICY_DENY || d.n_reasons > 0);
    for (uint32_t i = 0; i < d.n_errors && i < POLICY_NAMED_MAX; i++)
        ASSERT(d.errors[i].policy < policy_set_count(set) && (FUZZ_JSON || d.errors[i].line > 0)
            && d.errors[i].fault != POLICY_FAULT_NONE);
    if (d.effect == POLICY_DENY)
        return;
    ASSERT(policy_could_allow(set, &r));
    r.resource_unknown = true;
    r.resource_type = STR("Photo");
    ASSERT(policy_could_allow(set, &r));
    r.context = policy_unknown();
    ASSERT(policy_could_allow(set, &r));
    r.resource_type = STR("");
    ASSERT(policy_could_allow(set, &r));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct str rest = str_n(data, size), policies = next_part(&rest), entities = next_part(&rest),
        context = next_part(&rest);
    struct policy_entities *store = policy_entities_new();
    struct policy_source source = { STR("f"), policies, FUZZ_JSON };
    struct policy_set *set = NULL;
    struct errinfo info = { "" };
    struct policy_layer layer;
    struct arena a;
    enum err e;

    if (policy_entities_add_json(store, entities, &info) || policy_entities_freeze(store, &info)) {
        store = policy_entities_unref(store);
        store = policy_entities_new();
        ASSERT(policy_entities_freeze(store, NULL) == OK);
    }
    policy_layer_init(&layer, store);
    arena_init(&a, 1 << 20);
    e = policy_set_parse(&source, 1, 0, &set, &info);
    if (e == OK) {
        decide(set, &layer, read_context(&a, context, POLICY_JSON_CEDAR), &a);
        decide(set, &layer, read_context(&a, context, POLICY_JSON_PLAIN), &a);
    } else {
        ASSERT(!set && (e == E_CONFIG || e == E_CALL_TOO_LARGE));
        ASSERT(info.text[0] == 'f' && info.text[1] == ':');
    }
    arena_release(&a);
    policy_set_unref(set);
    policy_entities_unref(store);
    return 0;
}
