/* policy_replay.c -- `sluice policy replay` and `policy explain --call`: decisions of the journal, taken again */
#include <stdio.h>
#include <string.h>

#include "base/check.h"
#include "call/registry.h"
#include "call/vocabulary.h"
#include "cli/policy_verbs.h"
#include "cli/print.h"
#include "cli/recorded.h"
#include "json/json.h"
#include "loop/world.h"
#include "policy/explain.h"
#include "policy/schema.h"

enum { PATHS_MAX = CONFIG_LIST_MAX - 1, EXIT_FLIPS = 2, EXPLANATION_MAX = 256 << 20, SCHEMA_MAX = 64 << 20 };

/* ---- replay ------------------------------------------------------------------------------------------------------ */

struct replay {
    struct recorded_journal *journal;
    size_t calls, flips, lacking, other_entities;
    const char *lacks[16];              /* why; literals of recorded.c */
    size_t lack[16];
    bool failed;
};

static void count_lack(struct replay *p, const char *why)
{
    size_t i = 0;

    while (i + 1 < ARRAY_LEN(p->lacks) && p->lacks[i] && strcmp(p->lacks[i], why) != 0)
        i++;
    p->lacks[i] = why;
    p->lack[i]++;
    p->lacking++;
}

/* "a", "b" of the sides that are decisive: those that refuse, or all. */
static void add_recorded_policies(struct buf *b, const struct json *record)
{
    for (const struct json *s = json_first(json_get(record, "decisions")); s; s = json_next(s))
        for (const struct json *p = json_first(json_get(s, "policies")); p; p = json_next(p)) {
            buf_add_z(b, b->len ? ", " : "");
            buf_add_str(b, json_str(p));
        }
}

static void add_policies(struct buf *b, const struct policy_set *set, const struct policy_decision *sides, size_t n)
{
    for (size_t i = 0; i < n; i++)
        for (uint32_t k = 0; k < sides[i].n_reasons && k < POLICY_NAMED_MAX; k++) {
            buf_add_z(b, b->len ? ", " : "");
            buf_add_str(b, policy_set_info(set, sides[i].reasons[k]).id);
        }
}

static struct str none_or(const struct buf *b)
{
    return b->len ? buf_str(b) : STR("no policy");
}

static void print_flip(const struct replay *p, const struct recorded *r, enum decided now,
                       const struct policy_decision *sides, size_t n)
{
    struct buf line = BUF_INIT(1 << 20), before = BUF_INIT(1 << 18), after = BUF_INIT(1 << 18);
    char when[25];

    wall_format(r->time, when);
    add_recorded_policies(&before, r->record);
    add_policies(&after, p->journal->registry->policy, sides, n);
    buf_addf(&line, "%s  %.*s  %.*s  %.*s for %.*s of %.*s: %s (%.*s) -> %s (%.*s)", when, STR_ARG(r->call),
             STR_ARG(r->tool), STR_ARG(r->question.actors[0].name), STR_ARG(r->question.user),
             STR_ARG(r->question.tenant), decided_name(r->was), STR_ARG(none_or(&before)), decided_name(now),
             STR_ARG(none_or(&after)));
    print_line(stdout, buf_str(&line));
    putchar('\n');
    buf_release(&line);
    buf_release(&before);
    buf_release(&after);
}

static bool replay_one(const struct recorded *r, struct arena *a, void *arg)
{
    struct policy_decision sides[QUESTION_SIDES_MAX];
    struct replay *p = arg;
    enum decided now;
    size_t n = 0;

    if (r->lacks) {
        count_lack(p, r->lacks);
        return true;
    }
    if (policy_decide_sides(p->journal->registry->policy, r->asked->requests, r->asked->n, sides, &n)) {
        count_lack(p, "its decision takes more memory than allowed");
        return true;
    }
    now = question_decided(&r->question, sides, r->delegation_required);
    p->calls++;
    p->other_entities += !str_is(r->entities, p->journal->registry->entities_version);
    if (now != r->was) {
        p->flips++;
        print_flip(p, r, now, sides, n);
    }
    return !ferror(stdout);
}

static int replay_all(struct recorded_journal *j, wall_ms_t since)
{
    struct replay p = { .journal = j };
    int rc = recorded_each(j, since, NULL, replay_one, &p);

    if (rc)
        return rc;
    for (size_t i = 0; i < ARRAY_LEN(p.lacks) && p.lacks[i]; i++)
        fprintf(stderr, "not replayable: %s (%zu)\n", p.lacks[i], p.lack[i]);
    if (p.other_entities)
        fprintf(stderr, "%zu were decided with other entities than the configuration has now\n", p.other_entities);
    printf("%zu %s replayed, %zu %s, %zu not replayable\n", p.calls, p.calls == 1 ? "call" : "calls", p.flips,
           p.flips == 1 ? "flip" : "flips", p.lacking);
    return p.flips ? EXIT_FLIPS : EXIT_DONE;
}

int policy_replay(int argc, char **argv)
{
    const char *config = NULL, *data = NULL, *since = NULL, *paths[PATHS_MAX + 1] = { NULL };
    size_t n_paths = 0;
    const struct option_spec specs[] = { { .name = "config", .value = &config }, { .name = "data", .value = &data },
                                         { .name = "since", .value = &since },
                                         { .name = "policies", .list = paths, .n_list = &n_paths,
                                           .max_list = PATHS_MAX }, { NULL } };
    struct recorded_journal j;
    int64_t back_s = 0;
    int n, rc = options_read(&verb_policy, argc, argv, specs, NULL, 0, &n);

    if (rc)
        return rc < 0 ? 0 : EXIT_UNABLE;
    if (n_paths == 0)
        return complain(&verb_policy, EXIT_UNABLE, "write: sluice policy replay --policies PATH [--since 7d] "
                        "[--config FILE] [--data DIR]");
    if (since && !duration_read(since, 10LL * 365 * 86400, &back_s))
        return complain(&verb_policy, EXIT_UNABLE, "--since takes a time like 90m, 8h or 30d, not \"%s\"", since);
    rc = recorded_open(&j, &verb_policy, config, data, paths);
    if (!rc)
        rc = replay_all(&j, since ? world->wall_ms() - back_s * 1000 : 0);
    recorded_close(&j);
    return rc;
}

/* ---- explain ----------------------------------------------------------------------------------------------------- */

struct explaining {
    struct recorded_journal *journal;
    struct policy_schema *schema;       /* NULL: none can be made */
    const char *lacks;
    unsigned flags;
    bool full;
};

/* Without a schema nothing is said to be outside of it: explaining needs none. */
static void make_schema(struct explaining *x)
{
    struct buf text = BUF_INIT(SCHEMA_MAX);
    struct errinfo info;

    if (!vocabulary_write(x->journal->registry, &text, &info))
        policy_schema_parse(STR("(schema)"), buf_str(&text), POLICY_SCHEMA_TEXT, &x->schema, NULL, &info);
    buf_release(&text);
}

static void explain_side(struct explaining *x, const struct recorded *r, unsigned i, struct buf *out)
{
    struct question_side side = question_side(&r->question, i);
    struct errinfo why = { "" };

    buf_addf(out, "\n=== %s %.*s: ", side.name, STR_ARG(side.who));
    x->full = policy_explain(x->journal->registry->policy, &r->asked->requests[i], x->flags, out) != OK;
    if (x->schema && policy_schema_check_request(x->schema, &r->asked->requests[i], &why))
        buf_addf(out, "\nthis is more than `policy schema` says can be asked, so validation promises nothing: %s\n",
                 why.text);
}

static bool explain_one(const struct recorded *r, struct arena *a, void *arg)
{
    struct explaining *x = arg;
    struct buf out = BUF_INIT(EXPLANATION_MAX);
    char when[25];

    x->lacks = r->lacks;
    if (r->lacks)
        return false;
    wall_format(r->time, when);
    buf_addf(&out, "call %.*s, %s: %.*s on %.*s::\"%.*s\": %s\n", STR_ARG(r->call), when, STR_ARG(r->tool),
             STR_ARG(r->question.resource_type), STR_ARG(r->question.resource_id), decided_name(r->was));
    if (!str_is(r->policy, policy_set_version(x->journal->registry->policy)))
        buf_addf(&out, "it was decided by other policies (version %.12s) than these (%.12s)\n", r->policy.p,
                 policy_set_version(x->journal->registry->policy));
    if (!str_is(r->entities, x->journal->registry->entities_version))
        buf_addf(&out, "it was decided with other entities than the configuration has now\n");
    for (unsigned i = 0; i < r->asked->n && !x->full; i++)
        explain_side(x, r, i, &out);
    for (unsigned i = 0; r->delegation_required && i < r->question.n_actors; i++)
        if (!delegation_covers(r->question.delegations ? r->question.delegations[i] : NULL, r->question.action))
            buf_addf(&out, "\n=== delegation to %.*s: DENY\nthe user had recorded none that covers %.*s\n",
                     STR_ARG(r->question.actors[i].name), STR_ARG(r->tool));
    print_text(stdout, buf_str(&out));
    buf_release(&out);
    return false;
}

int policy_explain_call(int argc, char **argv)
{
    const char *config = NULL, *data = NULL, *call = NULL, *paths[PATHS_MAX + 1] = { NULL };
    size_t n_paths = 0;
    bool all = false;
    const struct option_spec specs[] = { { .name = "config", .value = &config }, { .name = "data", .value = &data },
                                         { .name = "call", .value = &call }, { .name = "all", .flag = &all },
                                         { .name = "policies", .list = paths, .n_list = &n_paths,
                                           .max_list = PATHS_MAX }, { NULL } };
    struct recorded_journal j;
    struct explaining x = { .journal = &j };
    int n, rc = options_read(&verb_policy, argc, argv, specs, NULL, 0, &n);

    if (rc)
        return rc < 0 ? 0 : EXIT_UNABLE;
    x.flags = POLICY_EXPLAIN_FAILED_FORBIDS | (all ? POLICY_EXPLAIN_ALL : 0);
    rc = recorded_open(&j, &verb_policy, config, data, n_paths ? paths : NULL);
    if (!rc) {
        make_schema(&x);
        rc = recorded_each(&j, 0, call, explain_one, &x);
    }
    policy_schema_unref(x.schema);
    if (!rc && x.lacks)
        rc = complain(&verb_policy, EXIT_UNABLE, "%s cannot be asked again: %s", call, x.lacks);
    if (!rc && x.full)
        rc = complain(&verb_policy, EXIT_UNABLE, "the explanation needs more memory than allowed");
    recorded_close(&j);
    return rc;
}
