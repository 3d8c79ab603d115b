/*
 * policy_corpus_test.c -- public cases of the reference implementation: decision, deciding policies and failing
 * policies
 *
 * Read from $SLUICE_CORPORA, else ../shared/corpora; without them the test is skipped, with one line that says so.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>

#include <dirent.h>
#include <stdio.h>
#include <sys/stat.h>

#include "base/check.h"
#include "json/json.h"
#include "policy/schema.h"

struct counts {
    unsigned files, requests, wrong, validations, wrong_validations;
    unsigned templates;                     /* requests of cases that need templates */
};

struct bench {
    struct arena *arena;
    const char *name;
    struct policy_set *set;
    struct policy_schema *schema;
    struct policy_layer layer;
    struct counts *n;
};

static const char *corpora(void)
{
    const char *dir = getenv("SLUICE_CORPORA");

    return dir && *dir ? dir : "../shared/corpora";
}

static struct str load(struct arena *a, const char *root, const char *name)
{
    char path[900], *p;
    FILE *f;
    long n;

    snprintf(path, sizeof(path), "%s/%s", root, name);
    f = fopen(path, "rb");
    if (!f)
        fail_msg("cannot read %s", path);
    assert_int_equal(fseek(f, 0, SEEK_END), 0);
    n = ftell(f);
    assert_true(n >= 0);
    rewind(f);
    p = arena_alloc(a, (size_t)n + 1);
    assert_non_null(p);
    assert_int_equal(fread(p, 1, (size_t)n, f), n);
    fclose(f);
    return str_n(p, (size_t)n);
}

static struct policy_uid uid_of(const struct json *j)
{
    assert_true(json_is(json_get(j, "type"), JSON_STRING) && json_is(json_get(j, "id"), JSON_STRING));
    return policy_uid(json_str(json_get(j, "type")), json_str(json_get(j, "id")));
}

/* The ids in `wanted` are exactly those of the n numbers. */
static bool same_ids(const struct policy_set *set, const struct json *wanted, uint32_t n,
    uint32_t (*number)(const void *, uint32_t),
    const void *arg)
{
    assert_true(n <= POLICY_NAMED_MAX);
    if (json_len(wanted) != n)
        return false;
    for (uint32_t i = 0; i < n; i++) {
        struct str id = policy_set_info(set, number(arg, i)).id;
        bool found = false;

        for (const struct json *w = json_first(wanted); w; w = json_next(w))
            found |= str_eq(json_str(w), id);
        if (!found)
            return false;
    }
    return true;
}

static uint32_t reason_at(const void *d, uint32_t i)
{
    return ((const struct policy_decision *)d)->reasons[i];
}

static uint32_t error_at(const void *d, uint32_t i)
{
    return ((const struct policy_decision *)d)->errors[i].policy;
}

static bool decide(const struct bench *b, struct policy_request *r, const struct json *j, struct policy_decision *d)
{
    bool allow = str_is(json_str(json_get(j, "decision")), "allow"), right;

    assert_int_equal(policy_decide(b->set, r, d), OK);
    right = (d->effect == POLICY_ALLOW) == allow && same_ids(b->set, json_get(j, "reason"), d->n_reasons, reason_at, d)
        && same_ids(b->set, json_get(j, "errors"), d->n_errors, error_at, d);
    /* What is allowed must never be hidden, and knowing less must not hide it either. */
    if (d->effect != POLICY_DENY) {
        right &= policy_could_allow(b->set, r);
        r->resource_unknown = true;
        right &= policy_could_allow(b->set, r);
        r->resource_type = r->resource->type;
        right &= policy_could_allow(b->set, r);
        r->context = policy_unknown();
        right &= policy_could_allow(b->set, r);
    }
    return right;
}

static void run_request(const struct bench *b, const struct json *j)
{
    struct policy_uid principal = uid_of(json_get(j, "principal")), action = uid_of(json_get(j, "action")),
        resource = uid_of(json_get(j, "resource"));
    struct policy_request r = { .principal = &principal, .action = &action, .resource = &resource,
        .entities = &b->layer, .scratch = b->arena };
    struct str what = json_str(json_get(j, "description"));
    struct policy_decision d;
    struct errinfo info;
    bool checked = true;

    json_bool(json_get(j, "validateRequest"), &checked);
    if (policy_context_from_json(b->arena, json_get(j, "context"), b->schema, &action, &r.context, &info))
        fail_msg("%s: %.*s: context: %s", b->name, STR_ARG(what), info.text);
    if (checked && policy_schema_check_request(b->schema, &r, &info))
        fail_msg("%s: %.*s: %s", b->name, STR_ARG(what), info.text);
    b->n->requests++;
    if (!decide(b, &r, j, &d)) {
        b->n->wrong++;
        print_message("%s: %.*s: got %s, %u reasons, %u errors (first: %s at %u:%u)\n", b->name, STR_ARG(what),
            d.effect == POLICY_ALLOW ? "allow" : "deny", d.n_reasons, d.n_errors,
            d.n_errors ? policy_fault_text(d.errors[0].fault) : "-", d.n_errors ? d.errors[0].line : 0,
            d.n_errors ? d.errors[0].column : 0);
    }
}

static void run_requests(struct bench *b, struct str entities, const struct json *requests)
{
    struct policy_entities *store = policy_entities_new();
    struct errinfo info;

    if (policy_entities_add_json_typed(store, b->schema, entities, &info) || policy_entities_freeze(store, &info))
        fail_msg("%s: entities: %s", b->name, info.text);
    policy_layer_init(&b->layer, store);
    for (const struct json *r = json_first(requests); r; r = json_next(r))
        run_request(b, r);
    policy_entities_unref(store);
}

static void validate(struct bench *b, const struct json *j)
{
    struct policy_report report;
    bool should = false;

    policy_report_init(&report);
    assert_int_equal(policy_schema_validate(b->schema, b->set, &report, NULL), OK);
    assert_true(json_bool(json_get(j, "shouldValidate"), &should));
    b->n->validations++;
    if (should != (report.n_errors == 0)) {
        b->n->wrong_validations++;
        print_message("%s: validation: %zu errors, expected %s\n", b->name, report.n_errors, should ? "none" : "some");
        for (const struct policy_finding *f = report.first; f; f = f->next)
            print_message("  %.*s:%u:%u: %s: %.*s\n", STR_ARG(f->policy), f->line, f->column,
                policy_finding_name(f->kind), STR_ARG(f->text));
    }
    policy_report_release(&report);
}

static struct str load_named(struct bench *b, const char *root, const struct json *j, const char *key)
{
    char path[800];

    snprintf(path, sizeof(path), "%.*s", STR_ARG(json_str(json_get(j, key))));
    return load(b->arena, root, path);
}

static void run_case(const char *root, const char *name, struct counts *n)
{
    const struct json_limits limits = { .nul_keys = true };
    struct arena a;
    struct bench b = { .arena = &a, .name = name, .n = n };
    struct policy_source source;
    struct json *j;
    struct errinfo info;

    arena_init(&a, 256 << 20);
    n->files++;
    assert_int_equal(json_parse(&a, load(&a, root, name), &limits, &j, NULL), OK);
    if (policy_schema_parse(STR("schema"), load_named(&b, root, j, "schema"), POLICY_SCHEMA_AUTO, &b.schema, NULL,
        &info))
        fail_msg("%s: %s", name, info.text);
    source = (struct policy_source){ STR_NULL, load_named(&b, root, j, "policies") };
    if (policy_set_parse(&source, 1, POLICY_IDS_POSITIONAL, &b.set, &info) == OK) {
        validate(&b, j);
        run_requests(&b, load_named(&b, root, j, "entities"), json_get(j, "requests"));
    } else if (strstr(info.text, "templates")) {
        n->templates += (unsigned)json_len(json_get(j, "requests"));
    } else {
        fail_msg("%s: %s", name, info.text);
    }
    policy_set_unref(b.set);
    policy_schema_unref(b.schema);
    arena_release(&a);
}

static void run_dir(const char *root, const char *sub, struct counts *n)
{
    char path[700];
    struct dirent *d;
    struct stat st;
    DIR *dir;

    snprintf(path, sizeof(path), "%s/%s", root, sub);
    dir = opendir(path);
    assert_non_null(dir);
    while ((d = readdir(dir))) {
        if (d->d_name[0] == '.')
            continue;
        snprintf(path, sizeof(path), "%s/%s/%s", root, sub, d->d_name);
        assert_int_equal(stat(path, &st), 0);
        snprintf(path, sizeof(path), "%s/%s", sub, d->d_name);
        if (S_ISDIR(st.st_mode))
            run_dir(root, path, n);
        else if (str_ends(str_of(path), STR(".json")) && !str_ends(str_of(path), STR(".entities.json")))
            run_case(root, path, n);
    }
    closedir(dir);
}

static void test_corpus(void **state)
{
    struct counts n = { 0 };
    struct stat st;
    char root[500];

    snprintf(root, sizeof(root), "%s/cedar", corpora());
    if (stat(root, &st)) {
        print_message("skipped: no test data at %s (set SLUICE_CORPORA)\n", root);
        skip();
    }
    run_dir(root, "corpus-tests", &n);
    run_dir(root, "tests", &n);
    print_message("%u files: %u requests, %u wrong; %u validations, %u wrong; skipped: %u requests for templates\n",
        n.files, n.requests, n.wrong, n.validations, n.wrong_validations, n.templates);
    assert_true(n.requests > 2500);
    assert_int_equal(n.wrong, 0);
    assert_int_equal(n.wrong_validations, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_corpus),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
