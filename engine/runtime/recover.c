/*
 * recover.c -- the journal read back at start
 *
 * An INTENT without an OUTCOME is a call whose process ended in the middle: an effect's outcome is unknown (it is never
 * run again), a read's is failed.  An INTENT with a key and its OUTCOME restore that key; an open effect with a key
 * restores it as unknown, so that a repeat is told so instead of being executed.  Reads name a key and claim none
 * (call/once.h): theirs are not restored.
 *
 * Lanes are read one after the other, so nothing here may depend on the order of records of different lanes:
 *
 *   - an earlier start settles intents of any lane on its own lane 0, so such an OUTCOME may come before its INTENT
 *   - calls with one key may have run on different lanes: one that was refused or failed has freed nothing that another
 *     one holds; of two that are done or unknown the later counts (once_restore). The earlier was told that it was not
 *     made, for want of a disk, but its intent is there, and open
 */
#include <stdlib.h>

#include "base/check.h"
#include "base/map.h"
#include "journal/journal.h"
#include "json/json.h"
#include "runtime/recover.h"

struct open_intent {
    struct open_intent *next;
    struct arena arena;
    struct str call, tenant, user, agent, tool, key, digest;
    bool effect, settled;
    wall_ms_t when;
};

/* The end of a call whose INTENT has not been seen. */
struct early_end {
    enum outcome outcome;
    char call[40];
};

struct recovery {
    struct map open;                    /* call id -> struct open_intent */
    struct map early;                   /* call id -> struct early_end */
    struct once_table *once;
    wall_ms_t now;
};

static struct str kept(struct arena *a, const struct json *j, const char *name)
{
    return arena_str(a, json_str(json_get(j, name)));
}

static void restore(struct recovery *r, const struct open_intent *o, enum outcome outcome, enum err err,
                    struct str result)
{
    struct once_name name = { o->tenant, o->user, o->agent, o->tool, o->key };

    if (o->effect && o->key.len && (outcome == OUTCOME_DONE || outcome == OUTCOME_UNKNOWN))
        once_restore(r->once, &name, o->digest, o->call, o->when, r->now, outcome, err, result);
}

static void intent_free(struct open_intent *o)
{
    arena_release(&o->arena);
    free(o);
}

/* Was its end written by an earlier start? Then it is not open. */
static bool ended_early(struct recovery *r, struct open_intent *o)
{
    struct early_end *end = map_del(&r->early, o->call);

    if (!end)
        return false;
    restore(r, o, end->outcome, E_OUTCOME_UNKNOWN, STR_NULL);
    free(end);
    intent_free(o);
    return true;
}

static void end_early(struct recovery *r, struct str call, enum outcome outcome)
{
    struct early_end *end = calloc(1, sizeof(*end));

    ASSERT(end != NULL);
    end->outcome = outcome;
    if (call.len && call.len < sizeof(end->call)) {
        memcpy(end->call, call.p, call.len);
        end = map_put(&r->early, str_n(end->call, call.len), end);
    }
    free(end);                          /* one that is no name, or told twice */
}

static void see_intent(struct recovery *r, const struct journal_record *rec, const struct json *j)
{
    struct open_intent *o = calloc(1, sizeof(*o));
    struct open_intent *old;

    ASSERT(o != NULL);
    arena_init(&o->arena, 64 * 1024);
    o->call = kept(&o->arena, j, "call");
    o->tenant = kept(&o->arena, j, "tenant");
    o->user = kept(&o->arena, j, "user");
    o->agent = kept(&o->arena, j, "agent");
    o->tool = kept(&o->arena, j, "tool");
    o->key = kept(&o->arena, j, "key");
    o->digest = kept(&o->arena, j, "args_digest");
    o->effect = !str_is(json_str(json_get(j, "effect")), "reads");
    o->when = rec->time;
    if (ended_early(r, o))
        return;
    old = map_put(&r->open, o->call, o);
    if (old)
        intent_free(old);
}

static enum outcome outcome_named(struct str s)
{
    for (int o = OUTCOME_DONE; o <= OUTCOME_UNKNOWN; o++)
        if (str_is(s, outcome_name((enum outcome)o)))
            return (enum outcome)o;
    return OUTCOME_NONE;
}

static void see_outcome(struct recovery *r, const struct json *j)
{
    struct open_intent *o = map_del(&r->open, json_str(json_get(j, "call")));
    enum outcome outcome = outcome_named(json_str(json_get(j, "outcome")));
    bool recovered = false;

    if (!o) {
        if (json_bool(json_get(j, "recovered"), &recovered) && recovered)
            end_early(r, json_str(json_get(j, "call")), outcome);
        return;
    }
    restore(r, o, outcome, outcome == OUTCOME_UNKNOWN ? E_OUTCOME_UNKNOWN : OK, json_str(json_get(j, "result")));
    intent_free(o);
}

static bool see(const struct journal_record *rec, void *arg)
{
    struct recovery *r = arg;
    struct json_error where;
    struct json *j = NULL;
    struct arena a;

    arena_init(&a, 8 << 20);
    if (!json_parse(&a, rec->payload, NULL, &j, &where)) {
        if (rec->type == JOURNAL_INTENT)
            see_intent(r, rec, j);
        else
            see_outcome(r, j);
    }
    arena_release(&a);
    return true;
}

enum err recover_scan(const char *dir, struct once_table *once, wall_ms_t now, struct recovery **ret,
                      struct errinfo *info)
{
    struct journal_scan_options opt = { .types = (1u << JOURNAL_INTENT) | (1u << JOURNAL_OUTCOME), .lane = -1 };
    struct recovery *r = calloc(1, sizeof(*r));
    enum err e;

    ASSERT(r != NULL);
    r->once = once;
    r->now = now;
    e = journal_scan(dir, &opt, see, r, info);
    if (e) {
        recover_free(r);
        return e;
    }
    *ret = r;
    return OK;
}

size_t recover_open(const struct recovery *r)
{
    return r->open.len;
}

/* In line: a crash may have left more open than may be queued at once. */
static enum err await_append(struct journal_lane *lane, struct str payload)
{
    struct journal_room room = { 0 };
    uint64_t seq;
    enum err e = await_journal_reserve(lane, 1, payload.len, NS_NEVER, &room);

    if (!e)
        e = journal_append(lane, JOURNAL_OUTCOME, payload, &room, &seq);
    journal_unreserve(lane, &room);
    return e;
}

enum err await_recover_settle(struct recovery *r, struct journal_lane *lane, struct errinfo *info)
{
    struct map_slot *slot;
    size_t at = 0;

    while ((slot = map_next(&r->open, &at))) {
        struct open_intent *o = slot->value;
        struct buf b = BUF_INIT(4096);
        enum err e;

        buf_add_z(&b, "{\"call\":");
        buf_add_json_str(&b, o->call);
        buf_addf(&b, ",\"outcome\":\"%s\",\"error\":\"%s\","
                 "\"why\":\"the engine stopped before the outcome was recorded\",\"recovered\":true}",
                 o->effect ? "unknown" : "failed", o->effect ? "outcome_unknown" : "cancelled");
        e = await_append(lane, buf_str(&b));
        buf_release(&b);
        if (e)
            return err_set(info, e, "the end of calls that the process before left open could not be recorded: %s",
                           err_name(e));
        restore(r, o, OUTCOME_UNKNOWN, E_OUTCOME_UNKNOWN, STR_NULL);
    }
    return await_journal_turn(lane, NS_NEVER);      /* others are to find room as they would at any start */
}

void recover_free(struct recovery *r)
{
    struct map_slot *slot;
    size_t at = 0;

    if (!r)
        return;
    while ((slot = map_next(&r->open, &at)))
        intent_free(slot->value);
    map_release(&r->open);
    at = 0;
    while ((slot = map_next(&r->early, &at)))
        free(slot->value);
    map_release(&r->early);
    free(r);
}
