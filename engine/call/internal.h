/*
 * internal.h -- what the files of call/ share. Not for other rooms.
 */
#ifndef CALL_INTERNAL_H
#define CALL_INTERNAL_H

#include "call/call.h"
#include "call/once.h"
#include "ratelimit/ratelimit.h"

enum { CALL_MAGIC = 0x63616c6c };

/* Where the calls of a turn go on together (loop/task.h): steps, by their numbers, and within RUN. */
enum { STAGE_LEAVE = STEP_COUNT, STAGE_HEAR, STAGE_RESULT };
_Static_assert((int)STAGE_RESULT < (int)STAGE_LAST, "the loop has too few stages");

/* ratelimit.h's bounds */
#define LIMIT_WINDOW_MS_MAX   (400LL * 24 * 3600 * 1000)
#define LIMIT_AMOUNT_MAX      (1LL << 40)
#define LIMIT_AT_ONCE_MAX     ((1LL << 23) - 1)

/* check.c: CHECK. Arguments against the schema; the snapshot; the resource; the account's name. */
enum err call_check(struct call *c);
/* check.c: the declared result, and what else a body has left behind. */
enum err call_check_result(struct call *c);
/* decide.c: DECIDE, three sides. */
enum err call_decide(struct call *c);
/* What policies are asked about the call's caller: arguments, resource and time unknown. E_CALL_TOO_LARGE. */
enum err call_question(struct call *c, const struct policy_entity *action, struct question *q);
/* shadow.c: asks the candidate policies of the snapshot, which must have some; once all sides are decided. */
void call_shadow(struct call *c, const struct question *q);
/* admit.c: ADMIT, and giving it back. */
enum err await_admit(struct call *c);
/* Has the worker room for one more call under way? */
bool call_room(const struct worker *w);
void call_unadmit(struct call *c);
void call_unadmit_ahead(const struct call *c);  /* base/ahead.h */
/* Where the limiter has what this permit took, from `at` on in the trail of the call's caller. */
void call_permit_left(const struct call *c, enum caller_trail at, const struct rl_permit *p);
/* intent.c: INTENT. E_KEY_REUSED...; *ret_replay: the key has been settled before, the outcome is filled in. */
enum err await_intent(struct call *c, bool *ret_replay);
/* record.c. Bytes that the intent needs for who asks and why, beside what every intent needs. */
size_t call_record_room(const struct call *c);
/* What every record says of a tool, and of the versions that calls are decided by: put together once per snapshot. */
struct tool_recorded call_recorded_tool(struct arena *a, const struct tool *t);
struct str call_recorded_versions(struct arena *a, const struct registry *r);
enum err await_record_intent(struct call *c);
/* Waits for nothing: *ret_seq is the record to wait for before anybody is told, or 0. */
enum err call_record_outcome(struct call *c, uint64_t *ret_seq);
/* Seals the result for its key; empty when there is nothing to keep. */
struct str call_seal_result(struct call *c);
enum err call_unseal_result(struct call *c, struct str sealed);
/* What a permit is asked for: keys, and what each is called when its holder is told that it waits for it. */
struct permit_asked {
    const struct rl_ask *asks;
    unsigned n;
    void (*name)(const struct permit_asked *p, unsigned i, struct call *c, struct buf *to);
    const void *of;                     /* for `name` */
};
/* OK: *ret is held, return it with rl_release() or rl_return(). E_RATE_LIMITED (with *ret_retry_at), E_OVERLOADED,
 * E_CANCELLED; *ret_blocked: which of the asks refused; both are set when it fails only. A client that asked for
 * progress is told of a wait of more than a second, and every five. */
enum err await_permit(struct call *c, const struct permit_asked *p, ns_t deadline, struct rl_permit *ret,
                      unsigned *ret_blocked, int64_t *ret_retry_at);

/* Rule ids of the limiter: for each owner of a budget calls, writes, destroys; tools' and policies', as they are taken
 * (budget_rules); then those of providers, in the order of the linker. */
enum {
    RULES_PER_BUDGET = 3,
    RULE_BUDGETS = BUDGETS * RULES_PER_BUDGET,
    RULE_PROVIDERS = RULE_BUDGETS + BUDGET_RULES_MAX,
};

#endif
