/*
 * schema_corpus_test.c -- the JSON Schema Test Suite, draft 2020-12
 *
 * Every test of the required part must pass.  The optional part is counted and printed, its formats as assertions; its
 * counts may not fall below what was reached (what fails is listed when SCHEMA_VERBOSE is set).  Missing of it on
 * purpose: documents of older drafts, formats beyond ASCII, uri-template, decoding of A-labels.  Documents under
 * remotes/ are known to the resolver by the URIs the suite gives them (http://localhost:1234/...).
 *
 * Read from $SLUICE_CORPORA, else ../shared/corpora; without them the tests are skipped, with one line that says so.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>

#include <dirent.h>
#include <stdio.h>

#include "base/check.h"
#include "json/schema.h"

enum { REQUIRED_TESTS = 1299, OPTIONAL_TESTS = 161, FORMAT_TESTS = 664 };

struct tally {
    unsigned passed, failed;
    bool optional;
};

/* Documents that were read; their texts and trees stay until the end of a test. */
static struct arena documents;

static const char *suite(void)
{
    const char *dir = getenv("SLUICE_CORPORA");
    static char path[600];

    snprintf(path, sizeof(path), "%s/json-schema", dir && *dir ? dir : "../shared/corpora");
    return path;
}

static const struct json *load(const char *path)
{
    struct json *j = NULL;
    FILE *f = fopen(path, "rb");
    char *p;
    long n;

    if (!f)
        return NULL;
    assert_int_equal(fseek(f, 0, SEEK_END), 0);
    n = ftell(f);
    assert_true(n > 0);
    rewind(f);
    p = arena_alloc(&documents, (size_t)n);
    assert_non_null(p);
    assert_int_equal(fread(p, 1, (size_t)n, f), n);
    fclose(f);
    assert_int_equal(json_parse(&documents, str_n(p, (size_t)n), NULL, &j, NULL), OK);
    return j;
}

static const struct json *resolve(void *ctx, struct str uri)
{
    const struct str prefix = STR("http://localhost:1234/");
    char path[900];

    if (!str_starts(uri, prefix))
        return NULL;
    uri = str_from(uri, prefix.len);
    snprintf(path, sizeof(path), "%s/remotes/%.*s", suite(), STR_ARG(uri));
    return load(path);
}

static void report(const struct tally *t, const char *file, const struct json *group, const struct json *test,
    const char *why)
{
    if (t->optional && !getenv("SCHEMA_VERBOSE"))
        return;
    print_message("%s: %.*s: %.*s: %s\n", file, STR_ARG(json_str(json_get(group, "description"))),
        STR_ARG(json_str(json_get(test, "description"))), why);
}

static void check_test(struct tally *t, const char *file, const struct json *group, const struct json *test,
    const struct schema *s)
{
    struct schema_fault fault = { "unset", "unset" };
    bool valid = false, got;
    struct arena scratch;

    arena_init(&scratch, 1 << 20);
    assert_true(json_bool(json_get(test, "valid"), &valid));
    got = schema_check(s, json_get(test, "data"), &scratch, &fault) == OK;
    assert_int_equal(schema_check(s, json_get(test, "data"), &scratch, NULL) == OK, got);
    assert_true(got == (fault.what[0] == 0));
    arena_release(&scratch);
    if (got == valid) {
        t->passed++;
        return;
    }
    t->failed++;
    report(t, file, group, test, got ? "accepted" : fault.what);
}

static void check_group(struct tally *t, const char *file, const struct json *group)
{
    const struct schema_options options = {
        .resolve = resolve, .format_assertion = t->optional, .check_metaschema = !t->optional,
    };
    struct errinfo info = { "" };
    struct schema *s = NULL;

    if (schema_compile_with(json_get(group, "schema"), &options, &s, &info) != OK) {
        report(t, file, group, NULL, info.text);
        t->failed += (unsigned)json_len(json_get(group, "tests"));
        return;
    }
    for (const struct json *test = json_first(json_get(group, "tests")); test; test = json_next(test))
        check_test(t, file, group, test, s);
    schema_free(s);
}

static void run_dir(struct tally *t, const char *sub)
{
    char path[900];
    struct dirent *entry;
    DIR *dir;

    snprintf(path, sizeof(path), "%s/tests/draft2020-12/%s", suite(), sub);
    dir = opendir(path);
    if (!dir) {
        if (!t->optional)
            print_message("skipped: no test data at %s (set SLUICE_CORPORA)\n", path);
        skip();
    }
    while ((entry = readdir(dir))) {
        if (!str_ends(str_of(entry->d_name), STR(".json")))
            continue;
        arena_init(&documents, 64 << 20);
        snprintf(path, sizeof(path), "%s/tests/draft2020-12/%s/%s", suite(), sub, entry->d_name);
        for (const struct json *group = json_first(load(path)); group; group = json_next(group))
            check_group(t, entry->d_name, group);
        arena_release(&documents);
    }
    closedir(dir);
}

static void every_required_test_passes(void **state)
{
    struct tally t = { 0 };

    run_dir(&t, "");
    print_message("required: %u of %u\n", t.passed, t.passed + t.failed);
    assert_int_equal(t.failed, 0);
    assert_int_equal(t.passed, REQUIRED_TESTS);
}

static void optional_tests_do_not_get_worse(void **state)
{
    struct tally other = { .optional = true }, format = { .optional = true };

    run_dir(&other, "optional");
    run_dir(&format, "optional/format");
    print_message("optional: %u of %u; formats: %u of %u\n", other.passed, other.passed + other.failed, format.passed,
        format.passed + format.failed);
    assert_true(other.passed >= OPTIONAL_TESTS);
    assert_true(format.passed >= FORMAT_TESTS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_required_test_passes),
        cmocka_unit_test(optional_tests_do_not_get_worse),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
