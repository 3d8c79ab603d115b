/*
 * engine.h -- what all calls share, and what a worker has of its own
 *
 * runtime/ makes one struct engine and one struct worker per core, and takes them down; the rooms below only use them.
 */
#ifndef CALL_ENGINE_H
#define CALL_ENGINE_H

#include <stdatomic.h>

#include "base/clock.h"
#include "base/err.h"
#include "call/keys.h"
#include "call/overload.h"
#include "loop/lag.h"
#include "loop/loop.h"

struct breakers;
struct call;
struct fetch;
struct identity;
struct journal;
struct journal_lane;
struct loop;
struct once_table;
struct registry_hold;
struct rl;
struct vault;

/* The call's own budgets (ADMIT): 0 means no limit of that kind. Hours begin with the hour, UTC. */
struct admission_rule {
    int64_t per_minute, at_once, writes_per_hour, destroys_per_hour;
};

/* A tenant's calls of one tool. The tool's effect says whether they read, write or destroy. */
struct tool_budget {
    const char *tool;
    int64_t per_minute, per_hour, at_once;
    uint16_t rule;                          /* of the limiter; 0: none taken yet */
};

/* Whose budgets: each tenant's, each agent's of it, each user's of it. */
enum budget { BUDGET_TENANT, BUDGET_AGENT, BUDGET_USER, BUDGETS };

enum { BUDGET_RULES_MAX = 640 };            /* two snapshots that have nothing in common */

/*
 * Which budget of a tool or of policies has which rule of the limiter.  A budget is known by a tag, not by its place in
 * a list, so one more of them moves no other to another rule, which would forget what was used.  Rules are taken by
 * main's thread alone; a snapshot gives its own back on whatever thread it ends.
 */
struct budget_rules {
    struct {
        uint64_t tag;                       /* 0: none yet; kept when nobody uses it any more */
        atomic_uint users;                  /* snapshots */
    } of[BUDGET_RULES_MAX];
    unsigned next;                          /* where to look first for one that nobody uses */
};

struct engine_options {
    unsigned calls_max;                     /* in flight per worker; 0: 16,000 */
    ns_t once_ttl;                          /* how long an idempotency key is remembered; 0: 24 h */
    ns_t overload_delay;                    /* overload.h; 0: nobody is put off */
    bool answer_reads_early;                /* a read's answer does not wait until its outcome is on disk */
    bool record_arguments;                  /* seal the arguments into the journal (policy replay needs them) */
};

struct engine {
    struct engine_options opt;
    struct vault *vault;
    struct identity *identity;              /* NULL: --no-auth */
    struct rl *limiter;
    struct breakers *breakers;              /* NULL: none */
    struct once_table *once;
    struct journal *journal;
    struct worker *workers;
    unsigned n_workers;
    struct budget_rules budget_rules;
};

struct worker {
    unsigned id;
    struct engine *engine;
    struct loop *loop;
    struct journal_lane *lane;
    struct fetch *fetch;
    struct registry_hold *held;             /* the current snapshot; swapped on the worker's own thread */
    unsigned calls;                         /* in flight */
    unsigned admitted;                      /* of these: past ADMIT, so calls_max bounds them */
    struct call *first_call;                /* all of them */
    bool draining;
    struct overload overload;
    struct lag lag;
    struct key_cache keys;
    struct {                                /* calls of this second, to measure some of them only */
        ns_t second;
        unsigned calls;
    } measured;
    struct refusals {                       /* of nobody in particular: recorded one by one only so often */
        ns_t second;
        unsigned recorded, skipped;
        struct timer end;                   /* of the second, once some are left out */
    } refusals;
    char apart[64];                         /* they stand in a row: no line is written by one and read by another */
};

/* The calling thread's worker. */
struct worker *worker_self(void);
void worker_enter(struct worker *w);        /* at the start of its thread */

#endif
