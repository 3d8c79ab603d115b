/*
 * cases.c -- running test cases
 */
#include "policy/cases.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/check.h"
#include "base/map.h"
#include "json/json.h"
#include "policy/entities_json.h"

enum { CASE_MAX = 512 << 20, CONTEXT_MAX = 64 << 20 };

struct running {
    struct policy_cases *c;
    struct str name;
    struct arena arena;         /* of the case */
    struct arena scratch;       /* of one request */
    const struct json *json;
    struct policy_schema *schema;
    struct policy_set *set;
    struct policy_entities *entities;
    struct map ids;             /* id -> &verdicts[number] */
    uint8_t *verdicts;          /* enum policy_verdict by number: of the request at hand */
    struct errinfo info;
};

static void tell(struct running *r, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static void tell(struct running *r, const char *fmt, ...)
{
    char line[1000];
    va_list ap;
    int n = snprintf(line, sizeof(line), "%.*s: ", STR_ARG(r->name));

    ASSERT(n >= 0);
    va_start(ap, fmt);
    if ((size_t)n < sizeof(line))
        vsnprintf(line + n, sizeof(line) - (size_t)n, fmt, ap);
    va_end(ap);
    r->c->tell(r->c->arg, line);
}

/* --- reading ------------------------------------------------------------------------------------------------------ */

static enum err read_named(struct running *r, const char *key, struct str *ret)
{
    const struct json *j = json_get(r->json, key);

    if (!json_is(j, JSON_STRING))
        return err_set(&r->info, E_FORMAT, "expected the name of a file as \"%s\"", key);
    return r->c->read(r->c->arg, json_str(j), &r->arena, ret, &r->info);
}

static enum err read_case(struct running *r)
{
    const struct json_limits limits = { .nodes_max = 1u << 24, .nul_keys = true };
    struct json_error where;
    struct json *j;
    struct str text;
    enum err e = r->c->read(r->c->arg, r->name, &r->arena, &text, &r->info);

    if (e)
        return e;
    e = json_parse(&r->arena, text, &limits, &j, &where);
    if (e)
        return err_set(&r->info, e, "%u:%u: %s", where.line, where.column, where.message);
    if (!json_is(j, JSON_OBJECT) || !json_is(json_get(j, "requests"), JSON_ARRAY))
        return err_set(&r->info, E_FORMAT, "expected a test case: an object with \"policies\", \"entities\", "
            "\"schema\" and \"requests\"");
    r->json = j;
    return OK;
}

static enum err read_schema(struct running *r)
{
    struct str format = json_str(json_get(r->json, "schemaFormat")), text;
    enum err e;

    if (!json_get(r->json, "schema"))
        return OK;
    e = read_named(r, "schema", &text);
    return e ? e : policy_schema_parse(json_str(json_get(r->json, "schema")), text,
        str_is(format, "json") ? POLICY_SCHEMA_JSON : str_is(format, "cedar") ? POLICY_SCHEMA_TEXT : POLICY_SCHEMA_AUTO,
        &r->schema, NULL, &r->info);
}

static enum err read_policies(struct running *r)
{
    struct str format = json_str(json_get(r->json, "policyFormat"));
    struct policy_source source = { 0 };
    enum err e = read_named(r, "policies", &source.text);
    size_t n;

    source.json = str_is(format, "json") || (!format.len && policy_looks_like_json(source.text));
    if (!e)
        e = policy_set_parse(&source, 1, POLICY_IDS_POSITIONAL, &r->set, &r->info);
    if (e)
        return e;
    n = policy_set_count(r->set);
    r->verdicts = arena_zalloc(&r->arena, n + 1);
    if (!r->verdicts)
        return err_set(&r->info, E_CALL_TOO_LARGE, "the case is too large");
    for (size_t i = 0; i < n; i++)
        map_put(&r->ids, policy_set_info(r->set, i).id, &r->verdicts[i]);
    return OK;
}

static enum err read_entities(struct running *r)
{
    struct str text;
    enum err e = read_named(r, "entities", &text);

    if (!e)
        e = policy_entities_add_json_typed(r->entities, r->schema, text, &r->info);
    return e ? e : policy_entities_freeze(r->entities, &r->info);
}

/* --- requests ----------------------------------------------------------------------------------------------------- */

static void observe(void *arg, uint32_t policy, int verdict)
{
    struct running *r = arg;

    r->verdicts[policy] = (uint8_t)verdict;
}

/* Whether policy i is one of those that decided (allowing or not), or (`errors`) of those that failed. */
static bool is_named(const struct running *r, size_t i, bool errors, bool allow)
{
    if (errors)
        return r->verdicts[i] == POLICY_IS_ERROR;
    return r->verdicts[i] == POLICY_IS_TRUE && policy_set_info(r->set, i).forbid != allow;
}

/* Whether the ids in `wanted` are those of exactly these policies. */
static bool same_ids(const struct running *r, const struct json *wanted, bool errors, bool allow)
{
    size_t n = 0;

    for (size_t i = 0; i < policy_set_count(r->set); i++)
        n += is_named(r, i, errors, allow);
    if (json_len(wanted) != n)
        return false;
    for (const struct json *k = json_first(wanted); k; k = json_next(k)) {
        const uint8_t *verdict = map_get(&r->ids, json_str(k));

        if (!verdict || !is_named(r, (size_t)(verdict - r->verdicts), errors, allow))
            return false;
    }
    return true;
}

static enum err read_request(struct running *r, const struct json *j, struct policy_uid uids[3],
    struct policy_request *ret)
{
    bool validate = true;
    enum err e = entities_read_uid(json_get(j, "principal"), &uids[0], &r->info);

    if (!e)
        e = entities_read_uid(json_get(j, "action"), &uids[1], &r->info);
    if (!e)
        e = entities_read_uid(json_get(j, "resource"), &uids[2], &r->info);
    if (!e)
        e = policy_context_from_json(&r->scratch, json_get(j, "context"), r->schema, &uids[1], &ret->context, &r->info);
    json_bool(json_get(j, "validateRequest"), &validate);
    if (!e && validate && r->schema)
        e = policy_schema_check_request(r->schema, ret, &r->info);
    return e;
}

/* Empty: as the case says. */
static const char *run_request(struct running *r, const struct json *j)
{
    bool allow = str_is(json_str(json_get(j, "decision")), "allow");
    struct policy_uid uids[3];
    struct policy_layer layer;
    struct policy_request req = { .principal = &uids[0], .action = &uids[1], .resource = &uids[2],
        .entities = &layer, .scratch = &r->scratch, .observe = observe, .observe_arg = r };
    struct policy_decision d;

    if (read_request(r, j, uids, &req))
        return r->info.text;
    policy_layer_init(&layer, r->entities);
    memset(r->verdicts, POLICY_IS_FALSE, policy_set_count(r->set));
    if (policy_decide(r->set, &req, &d))
        return "the decision needs too much memory";
    if ((d.effect != POLICY_DENY) != allow)
        return allow ? "denied, expected allow" : "allowed, expected deny";
    if (!same_ids(r, json_get(j, "reason"), false, allow))
        return "decided as expected, but by other policies";
    if (!same_ids(r, json_get(j, "errors"), true, allow))
        return "decided as expected, but other policies failed to evaluate";
    req.observe = NULL;
    if (r->c->check && !r->c->check(r->c->arg, r->set, &req, &d))
        return "decided as expected, but a check of the decision failed";
    return "";
}

static void run_requests(struct running *r)
{
    for (const struct json *j = json_first(json_get(r->json, "requests")); j; j = json_next(j)) {
        const char *wrong = run_request(r, j);

        r->c->decisions++;
        if (*wrong) {
            r->c->wrong++;
            tell(r, "%.*s: %s", STR_ARG(json_str(json_get(j, "description"))), wrong);
        }
        arena_clear(&r->scratch);
    }
}

/* --- validation --------------------------------------------------------------------------------------------------- */

static void validate(struct running *r)
{
    struct policy_report report;
    bool should = false, known = json_bool(json_get(r->json, "shouldValidate"), &should), wrong;

    if (!r->schema || !known)
        return;
    policy_report_init(&report);
    wrong = policy_schema_validate(r->schema, r->set, &report, &r->info) || should != (report.n_errors == 0);
    r->c->validations++;
    r->c->wrong_validations += wrong;
    if (wrong)
        tell(r, "%zu validation errors, expected %s", report.n_errors, should ? "none" : "some");
    for (const struct policy_finding *f = wrong ? report.first : NULL; f; f = f->next)
        tell(r, "  %.*s at %u:%u: %s: %.*s", STR_ARG(f->policy), f->line, f->column, policy_finding_name(f->kind),
            STR_ARG(f->text));
    policy_report_release(&report);
}

static void give_up(struct running *r)
{
    size_t n = json_len(json_get(r->json, "requests"));

    tell(r, "%s", r->info.text);
    r->c->validations++;
    r->c->wrong_validations++;
    r->c->decisions += n;
    r->c->wrong += n;
}

void policy_case_run(struct policy_cases *c, struct str name)
{
    struct running *r = calloc(1, sizeof(*r));
    enum err e;

    ASSERT(r != NULL);
    r->c = c;
    r->name = name;
    arena_init(&r->arena, CASE_MAX);
    arena_init(&r->scratch, CONTEXT_MAX);
    r->entities = policy_entities_new();
    e = read_case(r);
    if (!e)
        e = read_schema(r);
    if (!e)
        e = read_policies(r);
    if (!e)
        e = read_entities(r);
    if (e) {
        give_up(r);
    } else {
        validate(r);
        run_requests(r);
    }
    map_release(&r->ids);
    policy_set_unref(r->set);
    policy_schema_unref(r->schema);
    policy_entities_unref(r->entities);
    arena_release(&r->scratch);
    arena_release(&r->arena);
    free(r);
}
