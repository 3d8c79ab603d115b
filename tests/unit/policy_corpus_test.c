/*
 * policy_corpus_test.c -- public cases of the reference implementation: schemas, validation, requests, decisions, which
 * policies decided and which failed
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

#include "policy/cases.h"

static char root[500];

static enum err read_file(void *arg, struct str name, struct arena *a, struct str *ret, struct errinfo *info)
{
    char path[900], *p;
    FILE *f;
    long n;

    snprintf(path, sizeof(path), "%s/%.*s", root, STR_ARG(name));
    f = fopen(path, "rb");
    if (!f)
        return err_set(info, E_CONFIG, "cannot read %s", path);
    assert_int_equal(fseek(f, 0, SEEK_END), 0);
    n = ftell(f);
    assert_true(n >= 0);
    rewind(f);
    p = arena_alloc(a, (size_t)n + 1);
    assert_non_null(p);
    assert_int_equal(fread(p, 1, (size_t)n, f), n);
    fclose(f);
    *ret = str_n(p, (size_t)n);
    return OK;
}

static void tell(void *arg, const char *line)
{
    print_message("%s\n", line);
}

/* What is allowed must never be hidden, and knowing less must not hide it either. */
static bool never_hidden(void *arg, const struct policy_set *set, const struct policy_request *request,
    const struct policy_decision *d)
{
    struct policy_request r = *request;
    bool seen;

    if (d->effect == POLICY_DENY)
        return true;
    seen = policy_could_allow(set, &r);
    r.resource_unknown = true;
    seen &= policy_could_allow(set, &r);
    r.resource_type = r.resource->type;
    seen &= policy_could_allow(set, &r);
    r.context = policy_unknown();
    return seen && policy_could_allow(set, &r);
}

static void run_dir(struct policy_cases *c, const char *sub)
{
    char path[1800];
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
            run_dir(c, path);
        else if (str_ends(str_of(path), STR(".json")) && !str_ends(str_of(path), STR(".entities.json")))
            policy_case_run(c, str_of(path));
    }
    closedir(dir);
}

static void test_corpus(void **state)
{
    struct policy_cases c = { .read = read_file, .tell = tell, .check = never_hidden };
    const char *corpora = getenv("SLUICE_CORPORA");
    struct stat st;

    snprintf(root, sizeof(root), "%s/cedar", corpora && *corpora ? corpora : "../shared/corpora");
    if (stat(root, &st)) {
        print_message("skipped: no test data at %s (set SLUICE_CORPORA)\n", root);
        skip();
    }
    run_dir(&c, "corpus-tests");
    run_dir(&c, "tests");
    print_message("%zu decisions, %zu wrong; %zu validations, %zu wrong\n", c.decisions, c.wrong, c.validations,
        c.wrong_validations);
    assert_int_equal(c.wrong, 0);
    assert_int_equal(c.wrong_validations, 0);
    assert_true(c.decisions > 3000 && c.validations > 400);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_corpus),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
