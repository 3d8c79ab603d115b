/*
 * check.c -- what must hold after each life and at the end of a run
 *
 * Three witnesses are joined: what clients heard (attempts), what the journal says, what the provider did (effects).
 * After a life the journal is verified, its files and the log are searched for tokens, and every effect of that life is
 * looked up: its intent must have been durable when the request left.  At the end each call is followed through all
 * three.
 */
#include <stdio.h>
#include <stdlib.h>

#include "base/check.h"
#include "base/map.h"
#include "journal/journal.h"
#include "sim.h"
#include "simworld.h"
#include "tests/unit/memworld.h"
#include "upstream.h"

/* What the journal says about one call. */
struct story {
    char call[SIM_CALL_ID];
    unsigned intents, ends;
    enum journal_type end;
    enum outcome outcome;
    bool replay, all_allow;
    unsigned sides;
    char error[40], tenant[24], user[24], agent[24], tool[40];
    char file[200];
    int64_t offset, length; /* of the intent */
    bool matched;
};

struct stories {
    struct story *list;
    size_t n, cap;
    struct map by_call;
};

/* ---- reading the journal ----------------------------------------------------------------------------------------- */

static void copy(char *to, size_t size, const struct json *j, const char *member)
{
    struct str s = json_str(json_get(j, member));

    if (s.len)
        snprintf(to, size, "%.*s", STR_ARG(s));
}

static struct story *story_of(struct stories *all, struct str call)
{
    struct story *s;

    for (size_t i = 0; i < all->n; i++)
        if (str_is(call, all->list[i].call))
            return &all->list[i];
    if (all->n == all->cap) {
        all->cap = all->cap ? all->cap * 2 : 256;
        all->list = realloc(all->list, all->cap * sizeof(*all->list));
        ASSERT(all->list);
    }
    s = &all->list[all->n++];
    *s = (struct story){ .all_allow = true };
    snprintf(s->call, sizeof(s->call), "%.*s", STR_ARG(call));
    return s;
}

static void read_intent(struct story *s, const struct journal_record *r, const struct json *j)
{
    s->intents++;
    snprintf(s->file, sizeof(s->file), "%s", r->file);
    s->offset = r->offset;
    s->length = JOURNAL_FRAME_BYTES + (int64_t)r->payload.len;
    for (const struct json *d = json_first(json_get(j, "decisions")); d; d = json_next(d)) {
        s->sides++;
        s->all_allow = s->all_allow && str_is(json_str(json_get(d, "effect")), "allow");
    }
}

static void read_end(struct story *s, const struct journal_record *r, const struct json *j)
{
    struct str outcome = json_str(json_get(j, "outcome"));

    s->ends++;
    s->end = r->type;
    s->replay = json_get(j, "replay_of") != NULL;
    copy(s->error, sizeof(s->error), j, "error");
    for (int o = OUTCOME_DONE; o <= OUTCOME_UNKNOWN; o++)
        if (str_is(outcome, outcome_name((enum outcome)o)))
            s->outcome = (enum outcome)o;
}

static bool read_record(const struct journal_record *r, void *arg)
{
    struct json_error where;
    struct json *j = NULL;
    struct arena a;
    struct story *s;

    arena_init(&a, 8 << 20);
    if (json_parse(&a, r->payload, NULL, &j, &where)) {
        sim_violation("a record that is no JSON at %s:%lld", r->file, (long long)r->offset);
    } else if (json_get(j, "call")) {
        s = story_of(arg, json_str(json_get(j, "call")));
        copy(s->tenant, sizeof(s->tenant), j, "tenant");
        copy(s->user, sizeof(s->user), j, "user");
        copy(s->agent, sizeof(s->agent), j, "agent");
        copy(s->tool, sizeof(s->tool), j, "tool");
        if (r->type == JOURNAL_INTENT)
            read_intent(s, r, j);
        else
            read_end(s, r, j);
    }
    arena_release(&a);
    return true;
}

static void stories_read(struct stories *all)
{
    struct journal_scan_options opt = { .lane = -1,
                                        .types = 1u << JOURNAL_INTENT | 1u << JOURNAL_OUTCOME | 1u << JOURNAL_REQUEST };
    struct errinfo info = { "" };
    enum err e = journal_scan(SIM_JOURNAL, &opt, read_record, all, &info);

    if (e && e != E_NOT_FOUND)
        sim_violation("the journal cannot be read: %s: %s", err_name(e), info.text);
}

static void stories_release(struct stories *all)
{
    free(all->list);
    *all = (struct stories){ 0 };
}

/* ---- after each life --------------------------------------------------------------------------------------------- */

static void tell_note(const struct journal_note *n, void *arg)
{
    if (n->problem)
        sim_violation("journal: %s at %s:%lld", n->text, n->file ? n->file : "?", (long long)n->offset);
}

static void check_journal(void)
{
    struct journal_verify_options opt = { 0 };
    struct journal_report report;
    struct errinfo info = { "" };
    enum err e = journal_verify(SIM_JOURNAL, &opt, tell_note, NULL, &report, &info);

    if (e && e != E_NOT_FOUND)
        sim_violation("the journal does not verify: %s: %s", err_name(e), info.text);
}

struct tree {
    char dir[300];
};

static void search_file(const char *path)
{
    static const char *const secrets[] = { UPSTREAM_ACCESS, UPSTREAM_REFRESH, UPSTREAM_SECRET };
    size_t n = 0;
    const char *p = memworld_file(path, &n);

    for (size_t i = 0; p && i < ARRAY_LEN(secrets); i++)
        if (memmem(p, n, secrets[i], strlen(secrets[i])))
            sim_violation("a token lies open in %s", path);
    for (size_t i = 0; p && i < n; i += 97)
        sim.trace_hash = (sim.trace_hash ^ (unsigned char)p[i]) * 0x100000001b3u;
}

static void search_tree(const char *name, void *arg)
{
    const struct tree *above = arg;
    struct tree here;

    snprintf(here.dir, sizeof(here.dir), "%.150s/%.100s", above->dir, name);
    if (world->list(here.dir, search_tree, &here) < 0)
        search_file(here.dir);
}

static void check_files(void)
{
    struct tree root[] = { { SIM_DIR }, { "/dev" } };

    for (size_t i = 0; i < ARRAY_LEN(root); i++)
        world->list(root[i].dir, search_tree, &root[i]);
}

/* P1, N1: the intent of each effect of this life was on disk when the request left, and every side had allowed it. */
static void check_intents(const struct stories *all)
{
    for (size_t i = 0; i < upstream_n_effects; i++) {
        const struct deed *e = &upstream_effects[i];
        const struct story *s = NULL;

        if (e->life != sim.life)
            continue;
        for (size_t k = 0; k < all->n && !s; k++)
            if (strcmp(all->list[k].call, e->call) == 0)
                s = &all->list[k];
        if (!s || s->intents == 0)
            sim_violation("effect of op %lld (%s) without an intent", (long long)e->op, e->call);
        else if (simworld_durable_at(s->file, s->offset, (size_t)s->length) > e->event)
            sim_violation("effect of op %lld (%s): its intent was not on disk when the request left", (long long)e->op,
                          e->call);
        else if (!s->all_allow || s->sides < 2)
            sim_violation("effect of op %lld (%s) without the permission of every side", (long long)e->op, e->call);
    }
}

/* P6: an end in order leaves nothing that the next start would have to guess. */
static void check_ended(const struct stories *all)
{
    for (size_t i = 0; i < all->n; i++)
        if (all->list[i].intents > 0 && all->list[i].ends == 0)
            sim_violation("%s is open, though the engine ended in order", all->list[i].call);
}

/* Who ends in order has everything on disk, what was said early included. */
static void expect_all(void)
{
    for (unsigned i = 0; i < sim.n_ops; i++)
        for (unsigned k = 0; k < sim.ops[i].n_attempts; k++)
            if (sim.ops[i].attempts[k].life == sim.life)
                sim.ops[i].attempts[k].early = false;
}

void check_life(bool died)
{
    struct stories all = { 0 };

    if (!died && !sim.lane_failed)
        expect_all();
    if (!sim.lane_failed) /* a failed write may have left half a record: recovery cuts it first */
        check_journal();
    check_files();
    stories_read(&all);
    check_intents(&all);
    if (!died && !sim.lane_failed && sim.started)
        check_ended(&all);
    stories_release(&all);
}

/* ---- at the end -------------------------------------------------------------------------------------------------- */

static unsigned effects_of_call(const char *call, int step)
{
    unsigned n = 0;

    for (size_t i = 0; i < upstream_n_effects; i++)
        n += strcmp(upstream_effects[i].call, call) == 0 && (step == 0 || upstream_effects[i].step == step);
    return n;
}

static unsigned effects_of_op(const struct errand *o, int step)
{
    unsigned n = 0;

    for (size_t i = 0; i < upstream_n_effects; i++)
        n += upstream_effects[i].op == o->number && upstream_effects[i].step == step;
    return n;
}

static int steps_of(const struct errand *o)
{
    bool writes = strcmp(o->tool, "sim.look") != 0 && strcmp(o->tool, "outlook.list_mail") != 0 &&
                  strcmp(o->tool, "outlook.find_free_slot") != 0;

    return o->quirk || !writes ? 0 : strcmp(o->tool, "sim.pair") == 0 ? 2 : 1;
}

/* P2, N2. */
static void check_once(const struct errand *o)
{
    for (int step = 1; step <= 2; step++) {
        unsigned n = effects_of_op(o, step);

        if (n > 1)
            sim_violation("op %lld (%s, key \"%s\") happened %u times", (long long)o->number, o->tool, o->key, n);
        if (n > 0 && (o->expect != EXPECT_ALLOW || o->quirk))
            sim_violation("op %lld (%s) happened though it was not allowed", (long long)o->number, o->tool);
    }
}

/* What was said about effects must be so: the outcome as recorded, or as heard. */
static void check_outcome(const struct errand *o, const char *call, enum outcome outcome, bool replay, const char *who)
{
    int steps = steps_of(o);
    unsigned n = effects_of_call(call, 0);

    if (replay && n > 0)
        sim_violation("%s was answered from the record and yet had an effect", call);
    if (outcome == OUTCOME_DONE)
        for (int step = 1; step <= steps; step++)
            if (replay ? effects_of_op(o, step) != 1 : effects_of_call(call, step) != 1)
                sim_violation("op %lld (%s, %s) is done, says the %s, but step %d is not", (long long)o->number,
                              o->tool, call, who, step);
    if ((outcome == OUTCOME_REFUSED || outcome == OUTCOME_FAILED) && n > 0)
        sim_violation("op %lld (%s, %s) did not happen, says the %s, but it did", (long long)o->number, o->tool, call,
                      who);
}

/* P6, P9, N3, N4: a call has one end on record, and it is the one that the client heard. */
static void check_records(const struct attempt *a, const struct story *s)
{
    bool told = a->acked && !a->early && a->err != E_JOURNAL_UNWRITABLE;
    /* "it happened (or may have), but that could not be recorded": it became durable after the client had been told */
    bool late = s && a->err == E_OUTCOME_UNKNOWN && (s->outcome == OUTCOME_DONE || s->outcome == OUTCOME_UNKNOWN);

    if (!s) {
        if (told)
            sim_violation("%s was answered and is not in the journal", a->call);
        return;
    }
    if (s->intents > 1 || s->ends > 1 || (s->intents == 1 && s->ends == 0))
        sim_violation("%s has %u intents and %u ends on record", a->call, s->intents, s->ends);
    if (told && s->ends != 1)
        sim_violation("%s was answered and its end is not on record", a->call);
    if (told && !late && s->ends == 1 &&
        (s->outcome != a->outcome || strcmp(s->error, a->err ? err_name(a->err) : "") != 0))
        sim_violation("%s was told %s %s, the journal says %s %s", a->call, outcome_name(a->outcome),
                      a->err ? err_name(a->err) : "", outcome_name(s->outcome), s->error);
    if (s->tenant[0] && (strcmp(s->tenant, a->op->tenant) != 0 || strcmp(s->user, a->op->user) != 0 ||
                         strcmp(s->agent, a->op->agent) != 0))
        sim_violation("%s of %s/%s/%s is recorded for %s/%s/%s", a->call, a->op->tenant, a->op->user, a->op->agent,
                      s->tenant, s->user, s->agent);
    if (s->intents > 0 && (a->op->expect != EXPECT_ALLOW || a->op->quirk))
        sim_violation("%s has an intent though it was not allowed", a->call);
    if (s->ends == 1)
        check_outcome(a->op, a->call, s->outcome, s->replay, "journal");
}

static enum err quirk_error(enum quirk q)
{
    switch (q) {
    case QUIRK_MALFORMED:
        return E_JSON_MALFORMED;
    case QUIRK_TOKEN:
        return E_TOKEN_EXPIRED;
    case QUIRK_TOOL:
        return E_TOOL_UNKNOWN;
    case QUIRK_ARGS:
        return E_ARGS_INVALID;
    case QUIRK_LIST:
    case QUIRK_NONE:
        break;
    }
    return OK;
}

/* P3: what policy says by hand is what the client was told. */
static void check_decision(const struct attempt *a)
{
    const struct errand *o = a->op;
    enum err want = o->quirk                       ? quirk_error(o->quirk)
                    : o->expect == EXPECT_DENY     ? E_POLICY_DENIED
                    : o->expect == EXPECT_APPROVAL ? E_APPROVAL_NEEDED
                                                   : OK;
    bool passing =
        a->err == E_JOURNAL_UNWRITABLE || a->err == E_STORE_UNAVAILABLE || a->err == E_DRAINING || a->cancelled;

    if (want && a->err != want && !passing)
        sim_violation("%s (op %lld) should have been refused with %s, was told %s", a->call, (long long)o->number,
                      err_name(want), a->err ? err_name(a->err) : "ok");
    if (!want && (a->err == E_POLICY_DENIED || a->err == E_APPROVAL_NEEDED))
        sim_violation("%s (op %lld) was refused by policy and should not have been", a->call, (long long)o->number);
    if (a->err == E_INTERNAL || a->err == E_CONNECTOR_FAULT || a->err == E_CALL_TOO_LARGE)
        sim_violation("%s ended in %s", a->call, err_name(a->err));
}

static void check_attempt(const struct attempt *a, struct stories *all)
{
    struct story *s = NULL;
    char owner[64];

    if (!a->call[0])
        return;
    for (size_t i = 0; i < all->n && !s; i++)
        if (strcmp(all->list[i].call, a->call) == 0)
            s = &all->list[i];
    if (s)
        s->matched = true;
    check_records(a, s);
    if (!a->acked)
        return;
    check_decision(a);
    check_outcome(a->op, a->call, a->outcome, a->replayed, "client");
    snprintf(owner, sizeof(owner), "%s/%s", a->op->tenant, a->op->user);
    if (!a->err && !a->op->quirk && strncmp(a->op->tool, "sim.", 4) == 0 && strcmp(a->owner, owner) != 0)
        sim_violation("%s of %s was answered with what belongs to %s", a->call, owner, a->owner);
    sim.replays += a->replayed;
    sim.unknowns += a->outcome == OUTCOME_UNKNOWN;
}

void check_run(void)
{
    struct stories all = { 0 };

    stories_read(&all);
    for (unsigned i = 0; i < sim.n_ops; i++) {
        check_once(&sim.ops[i]);
        for (unsigned k = 0; k < sim.ops[i].n_attempts; k++)
            check_attempt(&sim.ops[i].attempts[k], &all);
    }
    for (size_t i = 0; i < all.n; i++)
        if (!all.list[i].matched)
            sim_violation("the journal knows a call that nobody made: %s", all.list[i].call);
    sim.effects += upstream_n_effects;
    sim.refreshes += upstream_refreshes;
    stories_release(&all);
}
