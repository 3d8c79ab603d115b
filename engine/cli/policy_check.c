/* policy_check.c -- `sluice policy check`: what is wrong with policies, or useless in them */
#include <stdio.h>

#include "cli/cli.h"
#include "cli/policy_verbs.h"
#include "cli/print.h"
#include "policy/lint.h"
#include "policy/schema.h"
#include "runtime/runtime.h"

enum { PATHS_MAX = 256, SCHEMA_MAX = 64 << 20 };

struct options {
    const char *config, *schema;
    bool deny_warnings;
};

/* The schema to validate with; NULL: none was asked for. */
static int read_schema(const struct options *o, struct policy_schema **ret)
{
    struct buf text = BUF_INIT(SCHEMA_MAX);
    struct errinfo info = { "" };
    int rc = 0;

    if (o->schema)
        rc = input_read(&verb_policy, o->schema, &text);
    else if (o->config)
        rc = policy_vocabulary(o->config, &text);
    if (!rc && (o->schema || o->config)
        && policy_schema_parse(str_of(o->schema ? o->schema : "(schema)"), buf_str(&text), POLICY_SCHEMA_AUTO, ret,
                               NULL, &info))
        rc = complain(&verb_policy, EXIT_UNABLE, "%s", info.text);
    buf_release(&text);
    return rc;
}

static bool same_place(const struct policy_finding *a, const struct policy_finding *b)
{
    return a->kind == b->kind && a->line == b->line && a->column == b->column && str_eq(a->policy, b->policy);
}

/* What is wrong for many kinds of requests in the same way is said once, with the first of them. */
static void print_findings(const struct policy_report *r)
{
    const struct policy_finding *next;
    struct buf line = BUF_INIT(1 << 20);
    size_t shown = 0;

    for (const struct policy_finding *f = r->first; f; f = next) {
        size_t like_it = 0;

        for (next = f->next; next && same_place(f, next); next = next->next)
            like_it++;
        shown += 1 + like_it;
        buf_addf(&line, "%.*s", STR_ARG(f->file));
        if (f->line)
            buf_addf(&line, ":%u:%u", f->line, f->column);
        buf_addf(&line, ": %s: policy \"%.*s\": %.*s", f->warning ? "warning" : "error", STR_ARG(f->policy),
                 STR_ARG(f->text));
        if (like_it)
            buf_addf(&line, ", and %zu more like it", like_it);
        buf_addf(&line, " [%s]", policy_finding_name(f->kind));
        print_line(stdout, buf_str(&line));
        printf("\n");
        buf_clear(&line);
    }
    if (shown < r->n_errors + r->n_warnings)
        printf("and %zu more\n", r->n_errors + r->n_warnings - shown);
    buf_release(&line);
}

static int check(const struct options *o, const struct policy_set *set, const struct policy_schema *schema)
{
    struct policy_report r;
    struct errinfo info = { "" };
    size_t n = policy_set_count(set), forbids = 0;
    enum err e;
    int rc = 0;

    policy_report_init(&r);
    e = schema ? policy_schema_validate(schema, set, &r, &info) : OK;
    if (!e)
        e = policy_lint(set, &r);
    if (e)
        rc = complain(&verb_policy, EXIT_UNABLE, "%s", info.text[0] ? info.text : err_text(e));
    print_findings(&r);
    for (size_t i = 0; i < n; i++)
        forbids += policy_set_info(set, i).forbid;
    if (!rc)
        printf("%zu %s: %zu permit, %zu forbid; version %.12s\n", n, n == 1 ? "policy" : "policies", n - forbids,
               forbids, policy_set_version(set));
    if (!rc && r.n_errors + r.n_warnings)
        printf("%zu %s, %zu %s\n", r.n_errors, r.n_errors == 1 ? "error" : "errors", r.n_warnings,
               r.n_warnings == 1 ? "warning" : "warnings");
    if (!rc && n == 0)
        fprintf(stderr, "no policy: everything would be denied\n");
    if (r.n_errors || (o->deny_warnings && r.n_warnings))
        rc = EXIT_UNABLE;
    policy_report_release(&r);
    return rc;
}

int policy_check(int argc, char **argv)
{
    struct options o = { 0 };
    const struct option_spec specs[] = { { .name = "config", .value = &o.config },
                                         { .name = "schema", .value = &o.schema },
                                         { .name = "deny-warnings", .flag = &o.deny_warnings }, { NULL } };
    struct policy_schema *schema = NULL;
    struct policy_set *set = NULL;
    struct errinfo info = { "" };
    char *words[PATHS_MAX];
    const char *paths[PATHS_MAX + 1] = { NULL };
    int n, rc = options_read(&verb_policy, argc, argv, specs, words, PATHS_MAX, &n);

    if (rc)
        return rc < 0 ? 0 : rc;
    if (n == 0 || (o.config && o.schema))
        return complain(&verb_policy, EXIT_USAGE,
                        "write: sluice policy check [--config FILE | --schema FILE] [--deny-warnings] PATH...");
    for (int i = 0; i < n; i++)
        paths[i] = words[i];
    if (policies_load(paths, &set, &info))
        rc = complain(&verb_policy, EXIT_UNABLE, "%s", info.text);
    if (!rc)
        rc = read_schema(&o, &schema);
    if (!rc)
        rc = check(&o, set, schema);
    policy_schema_unref(schema);
    policy_set_unref(set);
    return rc;
}
