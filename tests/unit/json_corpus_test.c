/*
 * json_corpus_test.c -- public test data: JSONTestSuite (what to accept and refuse) and the files of RFC 8785
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
#include "json/json.h"

static const char *corpora(void)
{
    const char *dir = getenv("SLUICE_CORPORA");

    return dir && *dir ? dir : "../shared/corpora";
}

static DIR *open_or_skip(const char *sub, char path[600])
{
    DIR *dir;

    snprintf(path, 600, "%s/%s", corpora(), sub);
    dir = opendir(path);
    if (!dir) {
        print_message("skipped: no test data at %s (set SLUICE_CORPORA)\n", path);
        skip();
    }
    return dir;
}

/* The file in memory of exactly its size, so that sanitizers see a read past its end. */
static struct str load(const char *dir, const char *name)
{
    char path[900], *p;
    FILE *f;
    long n;

    snprintf(path, sizeof(path), "%s/%s", dir, name);
    f = fopen(path, "rb");
    assert_non_null(f);
    assert_int_equal(fseek(f, 0, SEEK_END), 0);
    n = ftell(f);
    assert_true(n >= 0);
    rewind(f);
    p = malloc(n ? (size_t)n : 1);
    assert_non_null(p);
    assert_int_equal(fread(p, 1, (size_t)n, f), n);
    fclose(f);
    return str_n(p, (size_t)n);
}

/* Accepted by RFC 8259, refused here on purpose: what a name means must not depend on who reads it. */
static bool stricter_than_rfc(const char *name)
{
    static const char *const names[] = { "y_object_duplicated_key.json", "y_object_duplicated_key_and_value.json",
        "y_object_escaped_null_in_key.json" };

    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        if (strcmp(name, names[i]) == 0)
            return true;
    return false;
}

/* What was accepted must survive being written and read again, in each form. */
static void round_trip(const struct json *j, struct arena *a)
{
    struct buf text = BUF_INIT(1 << 22), again = BUF_INIT(1 << 22);
    struct json *back;

    json_write(&text, j);
    assert_false(text.overflow);
    assert_int_equal(json_parse(a, buf_str(&text), NULL, &back, NULL), OK);
    assert_true(json_equal(j, back));
    json_write(&again, back);
    assert_true(str_eq(buf_str(&text), buf_str(&again)));
    buf_clear(&text);
    buf_clear(&again);
    json_canonical(&text, j);
    assert_int_equal(json_parse(a, buf_str(&text), NULL, &back, NULL), OK);
    json_canonical(&again, back);
    assert_true(str_eq(buf_str(&text), buf_str(&again)));
    buf_release(&text);
    buf_release(&again);
}

static void parse_one(const char *dir, const char *name)
{
    struct str text = load(dir, name);
    struct json_error where = { 0 };
    struct json *j = NULL;
    struct arena a;
    enum err e;

    arena_init(&a, 64 << 20);
    e = json_parse(&a, text, NULL, &j, &where);
    if (name[0] != 'i' && (e == OK) != (name[0] == 'y' && !stricter_than_rfc(name)))
        fail_msg("%s: %s (%s)", name, e ? "refused" : "accepted", e ? where.message : "");
    if (e) {
        assert_int_equal(e, E_JSON_MALFORMED);
        assert_non_null(where.message);
        assert_true(where.offset <= text.len && where.line >= 1 && where.column >= 1);
    } else {
        round_trip(j, &a);
    }
    arena_release(&a);
    free((void *)(uintptr_t)text.p);
}

static void test_accepts_and_refuses(void **state)
{
    char path[600];
    DIR *dir = open_or_skip("json/test_parsing", path);
    struct dirent *d;
    int n = 0;

    while ((d = readdir(dir))) {
        if (d->d_name[0] == '.')
            continue;
        parse_one(path, d->d_name);
        n++;
    }
    closedir(dir);
    assert_true(n >= 300);
}

static void canonical_one(const char *in, const char *out, const char *name)
{
    struct str text = load(in, name), want = load(out, name);
    struct buf got = BUF_INIT(1 << 20);
    struct json *j;
    struct arena a;

    arena_init(&a, 1 << 20);
    assert_int_equal(json_parse(&a, text, NULL, &j, NULL), OK);
    json_canonical(&got, j);
    if (!str_eq(str_trim(want), buf_str(&got)))
        fail_msg("%s: %.*s", name, STR_ARG(buf_str(&got)));
    buf_release(&got);
    arena_release(&a);
    free((void *)(uintptr_t)text.p);
    free((void *)(uintptr_t)want.p);
}

static void test_canonical_files(void **state)
{
    char in[600], out[600];
    DIR *dir = open_or_skip("jcs/testdata/input", in);
    struct dirent *d;
    int n = 0;

    snprintf(out, sizeof(out), "%s/jcs/testdata/output", corpora());
    while ((d = readdir(dir))) {
        if (d->d_name[0] == '.')
            continue;
        canonical_one(in, out, d->d_name);
        n++;
    }
    closedir(dir);
    assert_true(n >= 6);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_accepts_and_refuses),
        cmocka_unit_test(test_canonical_files),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
