/* policy_test.c -- `sluice policy test`: runs test cases, see policy/cases.h for their format */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/policy_verbs.h"
#include "cli/print.h"
#include "policy/cases.h"

enum { CASES_MAX = 65536, FILE_MAX = 256 << 20 };

struct run {
    const char *root;
    const char *file;           /* the case, as it stands on the command line */
};

/* A case's own name is that of a file as it is, else under the root; the names in a case are under the root. */
static enum err read_file(void *arg, struct str name, struct arena *a, struct str *ret, struct errinfo *info)
{
    const struct run *run = arg;
    bool as_it_is = (name.len && name.p[0] == '/') || (name.p == run->file && access(run->file, F_OK) == 0);
    const char *path = as_it_is ? arena_z(a, name) : arena_printf(a, "%s/%.*s", run->root, STR_ARG(name)).p;
    struct buf text = BUF_INIT(FILE_MAX);
    enum err e = OK;

    if (!path || input_read(&verb_policy, path, &text))
        e = err_set(info, E_CONFIG, "a file could not be read");
    else
        *ret = arena_str(a, buf_str(&text));
    buf_release(&text);
    if (!e && !ret->p)
        e = err_set(info, E_CALL_TOO_LARGE, "the files of the case are too large");
    return e;
}

static void tell(void *arg, const char *line)
{
    print_line(stderr, str_of(line));
    fprintf(stderr, "\n");
}

int policy_test(int argc, char **argv)
{
    struct run run = { .root = "." };
    const struct option_spec specs[] = { { .name = "root", .value = &run.root }, { NULL } };
    struct policy_cases c = { .arg = &run, .read = read_file, .tell = tell };
    char **words = calloc(CASES_MAX, sizeof(*words));
    int n, rc = options_read(&verb_policy, argc, argv, specs, words, CASES_MAX, &n);

    if (!rc && n == 0)
        rc = complain(&verb_policy, EXIT_USAGE, "write: sluice policy test --root ROOT CASE.json...");
    for (int i = 0; !rc && i < n; i++) {
        run.file = words[i];
        policy_case_run(&c, str_of(words[i]));
    }
    free(words);
    if (rc)
        return rc < 0 ? 0 : rc;
    printf("%zu decisions, %zu wrong; %zu validations, %zu wrong\n", c.decisions, c.wrong, c.validations,
        c.wrong_validations);
    return c.wrong || c.wrong_validations ? EXIT_UNABLE : EXIT_DONE;
}
