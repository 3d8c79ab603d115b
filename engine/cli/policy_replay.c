/*
 * policy_replay.c -- `sluice policy replay`, `policy flips` and `policy explain --call`: decisions of the
 * journal, taken again, or as the candidates of the time took them
 */
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

enum { PATHS_MAX = CONFIG_LIST_MAX - 1, EXIT_FLIPS = 2 };
enum { EXPLANATION_MAX = 256 << 20, SCHEMA_MAX = 64 << 20, FLIP_MEMORY_MAX = 64 << 20 };

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

static struct str in(const struct json *record, const char *member)
{
    return json_str(json_get(record, member));
}

/* after: the policies that decide now. */
static void print_flip(wall_ms_t time, const struct json *rec, enum decided was, struct str now, struct str after)
{
    struct buf line = BUF_INIT(1 << 20), before = BUF_INIT(1 << 18);
    char when[25];

    wall_format(time, when);
    add_recorded_policies(&before, rec);
    buf_addf(&line, "%s  %.*s  %.*s  %.*s for %.*s of %.*s: %s (%.*s) -> %.*s (%.*s)", when, STR_ARG(in(rec, "call")),
             STR_ARG(in(rec, "tool")), STR_ARG(in(rec, "agent")), STR_ARG(in(rec, "user")),
             STR_ARG(in(rec, "tenant")), decided_name(was), STR_ARG(none_or(&before)), STR_ARG(now), STR_ARG(after));
    print_line(stdout, buf_str(&line));
    putchar('\n');
    buf_release(&line);
    buf_release(&before);
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
        struct buf after = BUF_INIT(1 << 18);

        p->flips++;
        add_policies(&after, p->journal->registry->policy, sides, n);
        print_flip(r->time, r->record, r->was, str_of(decided_name(now)), none_or(&after));
        buf_release(&after);
    }
    return !ferror(stdout);
}

static int replay_all(struct recorded_journal *j, wall_ms_t since)
{
    struct replay p = { .journal = j };
    int rc = recorded_each(j, since, NULL, replay_one, &p);

    if (rc)
        return rc;
    if (p.other_entities)
        fprintf(stderr, "%zu were decided with other entities than the configuration has now\n", p.other_entities);
    printf("%zu %s replayed, %zu %s, %zu not replayable", p.calls, p.calls == 1 ? "call" : "calls", p.flips,
           p.flips == 1 ? "flip" : "flips", p.lacking);
    for (size_t i = 0; i < ARRAY_LEN(p.lacks) && p.lacks[i]; i++)
        printf("%s%s: %zu", i ? "; " : " (", p.lacks[i], p.lack[i]);
    puts(p.lacking ? ")" : "");
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

/* ---- flips ------------------------------------------------------------------------------------------------------- */

struct flips {
    struct arena arena;
    size_t n;
};

static bool flip_one(const struct journal_record *r, void *arg)
{
    struct flips *f = arg;
    struct buf after = BUF_INIT(1 << 18);
    const struct json *candidate;
    struct json *rec = NULL;
    struct json_error where;

    arena_clear(&f->arena);
    candidate = json_parse(&f->arena, r->payload, NULL, &rec, &where) ? NULL : json_get(rec, "candidate");
    if (!candidate)
        return true;
    for (const struct json *p = json_first(json_get(candidate, "policies")); p; p = json_next(p)) {
        buf_add_z(&after, after.len ? ", " : "");
        buf_add_str(&after, json_str(p));
    }
    f->n++;
    print_flip(r->time, rec, recorded_was(rec), in(candidate, "decision"), none_or(&after));
    buf_release(&after);
    return !ferror(stdout);
}

int policy_flips(int argc, char **argv)
{
    const char *config = NULL, *data = NULL, *since = NULL;
    const struct option_spec specs[] = { { .name = "config", .value = &config }, { .name = "data", .value = &data },
                                         { .name = "since", .value = &since }, { NULL } };
    struct journal_scan_options opt = { .lane = -1, .types = 1u << JOURNAL_INTENT | 1u << JOURNAL_OUTCOME };
    struct flips f = { .n = 0 };
    struct errinfo info = { "" };
    struct config *c = NULL;
    char dir[4096];
    int64_t back_s = 0;
    enum err e;
    int n, rc = options_read(&verb_policy, argc, argv, specs, NULL, 0, &n);

    if (rc)
        return rc < 0 ? 0 : EXIT_UNABLE;
    if (since && !duration_read(since, 10LL * 365 * 86400, &back_s))
        return complain(&verb_policy, EXIT_UNABLE, "--since takes a time like 90m, 8h or 30d, not \"%s\"", since);
    if (config_open(&verb_policy, config, data, &c))
        return EXIT_UNABLE;
    opt.since = since ? world->wall_ms() - back_s * 1000 : 0;
    snprintf(dir, sizeof(dir), "%s/journal", c->data);
    arena_init(&f.arena, FLIP_MEMORY_MAX);
    e = journal_scan(dir, &opt, flip_one, &f, &info);
    arena_release(&f.arena);
    config_free(c);
    if (e)
        return complain(&verb_policy, EXIT_UNABLE, "%s", info.text[0] ? info.text : err_text(e));
    printf("%zu %s\n", f.n, f.n == 1 ? "flip" : "flips");
    return f.n ? EXIT_FLIPS : EXIT_DONE;
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
