/*
 * cedar_batch.c -- engine/policy as a batch process for tests/fuzz/cedar/diff.py: a case a line in, an answer a line
 * out
 *
 * diff.py says what a case and an answer look like.
 */
#include <stdio.h>
#include <stdlib.h>

#include "base/check.h"
#include "json/json.h"
#include "policy/policy.h"
#include "policy/schema.h"

enum { LINE_MAX_BYTES = 64 << 20 };

struct batch {
    struct arena arena;
    const struct json *in;
    struct json *out;
    struct policy_set *set;
    struct policy_schema *schema; /* NULL: the case has none */
    struct policy_entities *entities;
    struct errinfo info;
};

static void put(struct batch *b, const char *key, struct json *value)
{
    json_set(&b->arena, b->out, key, value);
}

static struct json *strings(struct batch *b, const struct str *s, size_t n)
{
    struct json *list = json_array(&b->arena);

    for (size_t i = 0; i < n; i++)
        json_push(&b->arena, list, json_string(&b->arena, s[i]));
    return list;
}

static int by_bytes(const void *a, const void *b)
{
    const struct str *x = a, *y = b;
    int c = memcmp(x->p, y->p, x->len < y->len ? x->len : y->len);

    return c ? c : (x->len > y->len) - (x->len < y->len);
}

static bool load_policies(struct batch *b)
{
    struct buf text = BUF_INIT(LINE_MAX_BYTES);
    struct policy_source source = { .json = true };
    enum err e;

    json_write(&text, json_get(b->in, "policies"));
    source.text = buf_str(&text);
    e = policy_set_parse(&source, 1, POLICY_IDS_POSITIONAL, &b->set, &b->info);
    buf_release(&text);
    put(b, "policies", json_bool_new(&b->arena, !e));
    if (e)
        put(b, "why", json_string(&b->arena, str_of(b->info.text)));
    return !e;
}

static bool load_schema(struct batch *b)
{
    const struct json *schema = json_get(b->in, "schema");
    bool text = json_is(schema, JSON_STRING);
    struct buf in = BUF_INIT(LINE_MAX_BYTES);
    enum err e;

    if (!schema)
        return true;
    if (text)
        buf_add_str(&in, json_str(schema));
    else
        json_write(&in, schema);
    e = policy_schema_parse(STR("schema"), buf_str(&in), text ? POLICY_SCHEMA_TEXT : POLICY_SCHEMA_JSON, &b->schema,
                            NULL, &b->info);
    buf_release(&in);
    put(b, "schema", json_bool_new(&b->arena, !e));
    if (e)
        put(b, "why", json_string(&b->arena, str_of(b->info.text)));
    return !e;
}

/* The policies with findings of some sort, each once. */
static struct json *found(struct batch *b, const struct policy_report *report,
                          bool (*sort)(const struct policy_finding *))
{
    struct str *ids = ARENA_ARRAY(&b->arena, struct str, report->n_errors + report->n_warnings + 1);
    size_t n = 0, kept = 0;

    ASSERT(ids != NULL);
    for (const struct policy_finding *f = report->first; f; f = f->next)
        if (sort(f))
            ids[n++] = f->policy;
    qsort(ids, n, sizeof(ids[0]), by_bytes);
    for (size_t i = 0; i < n; i++)
        if (kept == 0 || !str_eq(ids[kept - 1], ids[i]))
            ids[kept++] = ids[i];
    return strings(b, ids, kept);
}

/* That no action applies was an error up to Cedar 4.12, and here; to 4.13 it is a warning. So it is told apart. */
static bool is_error(const struct policy_finding *f)
{
    return !f->warning && f->kind != POLICY_NO_ACTION_APPLIES;
}

static bool is_inapplicable(const struct policy_finding *f)
{
    return f->kind == POLICY_NO_ACTION_APPLIES;
}

static bool is_impossible(const struct policy_finding *f)
{
    return f->kind == POLICY_IMPOSSIBLE;
}

static void validate(struct batch *b)
{
    struct json *said = json_array(&b->arena);
    struct policy_report report;

    policy_report_init(&report);
    ASSERT(policy_schema_validate(b->schema, b->set, &report, &b->info) == OK);
    put(b, "invalid", found(b, &report, is_error));
    put(b, "inapplicable", found(b, &report, is_inapplicable));
    put(b, "impossible", found(b, &report, is_impossible));
    for (const struct policy_finding *f = report.first; f; f = f->next)
        json_push(&b->arena, said,
                  json_string(&b->arena,
                              arena_printf(&b->arena, "%.*s: %.*s", STR_ARG(f->policy), STR_ARG(f->text))));
    put(b, "findings", said);
    policy_report_release(&report);
}

static bool load_entities(struct batch *b)
{
    struct buf text = BUF_INIT(LINE_MAX_BYTES);
    enum err e;

    json_write(&text, json_get(b->in, "entities"));
    b->entities = policy_entities_new();
    if (b->schema)
        e = policy_entities_add_json_typed(b->entities, b->schema, buf_str(&text), &b->info);
    else
        e = policy_entities_add_json(b->entities, buf_str(&text), &b->info);
    if (!e)
        e = policy_entities_freeze(b->entities, &b->info);
    buf_release(&text);
    return !e;
}

static bool uid_of(const struct json *j, struct policy_uid *ret)
{
    return (policy_uid_from_json(json_get(j, "__entity"), ret) || policy_uid_from_json(j, ret))
        && policy_type_valid(ret->type);
}

static struct json *refused(struct batch *b)
{
    struct json *out = json_array(&b->arena);

    json_push(&b->arena, out, json_string(&b->arena, STR("refused")));
    json_push(&b->arena, out, json_array(&b->arena));
    json_push(&b->arena, out, json_array(&b->arena));
    json_push(&b->arena, out, json_string(&b->arena, str_of(b->info.text)));
    return out;
}

static struct json *decided(struct batch *b, const struct policy_decision *d)
{
    struct json *out = json_array(&b->arena);
    struct str names[POLICY_NAMED_MAX];

    ASSERT(d->n_reasons <= POLICY_NAMED_MAX && d->n_errors <= POLICY_NAMED_MAX);
    json_push(&b->arena, out, json_string(&b->arena, d->effect == POLICY_DENY ? STR("deny") : STR("allow")));
    for (uint32_t i = 0; i < d->n_reasons; i++)
        names[i] = policy_set_info(b->set, d->reasons[i]).id;
    qsort(names, d->n_reasons, sizeof(names[0]), by_bytes);
    json_push(&b->arena, out, strings(b, names, d->n_reasons));
    for (uint32_t i = 0; i < d->n_errors; i++)
        names[i] = policy_set_info(b->set, d->errors[i].policy).id;
    qsort(names, d->n_errors, sizeof(names[0]), by_bytes);
    json_push(&b->arena, out, strings(b, names, d->n_errors));
    return out;
}

static struct json *decide(struct batch *b, const struct json *r)
{
    struct policy_uid principal, action, resource;
    struct policy_layer layer;
    struct policy_request request = {
        .principal = &principal, .action = &action, .resource = &resource, .entities = &layer, .scratch = &b->arena
    };
    struct policy_decision d;
    bool check = false;

    policy_layer_init(&layer, b->entities);
    if (!uid_of(json_get(r, "principal"), &principal) || !uid_of(json_get(r, "action"), &action) ||
        !uid_of(json_get(r, "resource"), &resource) ||
        policy_context_from_json(&b->arena, json_get(r, "context"), b->schema, &action, &request.context, &b->info))
        return refused(b);
    if (b->schema && json_bool(json_get(b->in, "check"), &check) && check
        && policy_schema_check_request(b->schema, &request, &b->info))
        return refused(b);
    ASSERT(policy_decide(b->set, &request, &d) == OK);
    return decided(b, &d);
}

static void answer(struct batch *b)
{
    struct json *list = json_array(&b->arena);
    bool entities, policies = load_policies(b);

    if (!load_schema(b) || !policies)
        return;
    if (b->schema && json_get(b->in, "validate"))
        validate(b);
    entities = load_entities(b);
    for (const struct json *r = json_first(json_get(b->in, "requests")); r; r = json_next(r))
        json_push(&b->arena, list, entities ? decide(b, r) : refused(b));
    put(b, "requests", list);
}

static void one_line(struct str line)
{
    static const struct json_limits limits = { .depth_max = JSON_DEPTH_MAX, .nul_keys = true };
    struct batch b = { .in = NULL };
    struct buf text = BUF_INIT(LINE_MAX_BYTES);
    struct json_error where;
    struct json *in;

    arena_init(&b.arena, (size_t)1 << 30);
    if (json_parse(&b.arena, line, &limits, &in, &where)) {
        fprintf(stderr, "cedar_batch: column %u: %s\n", where.column, where.message);
        exit(1);
    }
    b.in = in;
    b.out = json_object(&b.arena);
    answer(&b);
    json_write(&text, b.out);
    fwrite(text.p, 1, text.len, stdout);
    putchar('\n');
    fflush(stdout);
    buf_release(&text);
    policy_set_unref(b.set);
    policy_schema_unref(b.schema);
    policy_entities_unref(b.entities);
    arena_release(&b.arena);
}

int main(void)
{
    char *line = NULL;
    size_t cap = 0;
    ssize_t n;

    while ((n = getline(&line, &cap, stdin)) > 0)
        one_line(str_n(line, (size_t)n));
    free(line);
    return 0;
}
