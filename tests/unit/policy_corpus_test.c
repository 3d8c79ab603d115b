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
#include "policy/policy.h"

struct counts {
    unsigned requests, run, wrong, files;
    unsigned templates, schema;             /* requests of cases that need what is not there yet */
    unsigned nul_files;                     /* files whose JSON the engine refuses for U+0000 in a key */
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

static void run_request(struct arena *a, const struct policy_set *set, const struct policy_layer *layer,
    const struct json *j, const char *name, struct counts *n)
{
    struct policy_uid principal = uid_of(json_get(j, "principal")), action = uid_of(json_get(j, "action")),
        resource = uid_of(json_get(j, "resource"));
    struct policy_request r = { .principal = &principal, .action = &action, .resource = &resource, .entities = layer,
        .scratch = a };
    bool allow = str_is(json_str(json_get(j, "decision")), "allow"), right;
    struct policy_decision d;
    struct errinfo info;

    if (policy_value_from_json(a, json_get(j, "context"), POLICY_JSON_CEDAR, &r.context, &info))
        fail_msg("%s: context: %s", name, info.text);
    assert_int_equal(policy_decide(set, &r, &d), OK);
    n->run++;
    right = (d.effect == POLICY_ALLOW) == allow && same_ids(set, json_get(j, "reason"), d.n_reasons, reason_at, &d)
        && same_ids(set, json_get(j, "errors"), d.n_errors, error_at, &d);
    /* What is allowed must never be hidden, and knowing less must not hide it either. */
    if (d.effect != POLICY_DENY) {
        right &= policy_could_allow(set, &r);
        r.resource_unknown = true;
        right &= policy_could_allow(set, &r);
        r.resource_type = resource.type;
        right &= policy_could_allow(set, &r);
        r.context = policy_unknown();
        right &= policy_could_allow(set, &r);
    }
    if (!right) {
        n->wrong++;
        print_message("%s: %.*s: got %s, %u reasons, %u errors (first: %s at %u:%u)\n", name,
            STR_ARG(json_str(json_get(j, "description"))), d.effect == POLICY_ALLOW ? "allow" : "deny", d.n_reasons,
                d.n_errors,
            d.n_errors ? policy_fault_text(d.errors[0].fault) : "-", d.n_errors ? d.errors[0].line : 0,
            d.n_errors ? d.errors[0].column : 0);
    }
}

/* False if the text has U+0000 in a key, which our JSON refuses; every other refusal is a failure. */
static bool readable(const char *name, struct str text, struct arena *a, struct json **ret)
{
    const struct json_limits limits = { .nodes_max = 1u << 24 };
    struct json_error where = { 0 };

    if (json_parse(a, text, &limits, ret, &where) == OK)
        return true;
    if (!strstr(where.message, "U+0000"))
        fail_msg("%s:%u:%u: %s", name, where.line, where.column, where.message);
    return false;
}

/* Their entities write references without "__entity": only the schema tells a reference from a record. */
static bool needs_schema(const char *name)
{
    static const char *const names[] = { "tests/multi/3.json", "tests/multi/4.json", "tests/example_use_cases/4d.json",
        "tests/example_use_cases/4e.json", "tests/example_use_cases/4f.json" };

    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        if (strcmp(name, names[i]) == 0)
            return true;
    return false;
}

static void run_requests(struct arena *a, const struct policy_set *set, struct str entities,
    const struct json *requests,
    const char *name, struct counts *n)
{
    struct policy_entities *store = policy_entities_new();
    struct policy_layer layer;
    struct errinfo info;

    if (policy_entities_add_json(store, entities, &info) || policy_entities_freeze(store, &info))
        fail_msg("%s: entities: %s", name, info.text);
    policy_layer_init(&layer, store);
    for (const struct json *r = json_first(requests); r; r = json_next(r))
        run_request(a, set, &layer, r, name, n);
    policy_entities_unref(store);
}

static void run_case(const char *root, const char *name, struct counts *n)
{
    struct str text, entities;
    struct policy_set *set = NULL;
    struct policy_source source;
    struct json *j, *ignored;
    struct errinfo info;
    struct arena a;
    char path[800];

    arena_init(&a, 256 << 20);
    n->files++;
    text = load(&a, root, name);
    if (!readable(name, text, &a, &j)) {
        n->nul_files++;
        goto out;
    }
    snprintf(path, sizeof(path), "%.*s", STR_ARG(json_str(json_get(j, "entities"))));
    entities = load(&a, root, path);
    if (!readable(path, entities, &a, &ignored)) {
        n->nul_files++;
        goto out;
    }
    n->requests += (unsigned)json_len(json_get(j, "requests"));
    snprintf(path, sizeof(path), "%.*s", STR_ARG(json_str(json_get(j, "policies"))));
    source = (struct policy_source){ STR_NULL, load(&a, root, path) };
    if (needs_schema(name))
        n->schema += (unsigned)json_len(json_get(j, "requests"));
    else if (policy_set_parse(&source, 1, POLICY_IDS_POSITIONAL, &set, &info) == OK)
        run_requests(&a, set, entities, json_get(j, "requests"), name, n);
    else if (strstr(info.text, "templates"))
        n->templates += (unsigned)json_len(json_get(j, "requests"));
    else
        fail_msg("%s: %s", name, info.text);
out:
    policy_set_unref(set);
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
    print_message("%u of %u requests in %u files run, %u wrong; skipped: %u templates, %u references told by a schema, "
        "%u files with U+0000 in a key\n", n.run, n.requests, n.files - n.nul_files, n.wrong, n.templates, n.schema,
        n.nul_files);
    assert_true(n.run > 2500);
    assert_int_equal(n.wrong, 0);
    assert_int_equal(n.run + n.templates + n.schema, n.requests);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_corpus),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
