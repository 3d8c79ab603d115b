/*
 * budget.h -- the call's own budgets: which of them count a call, and the limiter's keys that they are kept under
 *
 * Two kinds.  Configuration grants them to each tenant, each agent and each user of it, and to a tenant's use of a
 * tool; a permit with @budget (policy/budget.c) grants one to each user and agent that it permits.  Keys begin with the
 * tenant, as those of providers do (limits.h): "acme||agent calls|claude", "acme||policy calls/min|NAME|alice|claude".
 * What tells keys apart is the limiter's id, made part by part, so that no name can be chosen to look like two; the
 * text is for showing.
 */
#ifndef CALL_BUDGET_H
#define CALL_BUDGET_H

#include "call/call.h"
#include "ratelimit/ratelimit.h"

enum {
    BUDGET_LINES_OF_CONFIG = 2 * BUDGETS + 1,   /* calls of tenant, agent, user; what they do; the tool's */
    BUDGET_LINES_OF_POLICY = 2 * RL_ASKS_MAX,
};

/* One budget that counts the call. */
struct budget_line {
    const struct budget_lines *among;
    const char *label;                          /* "agent calls": of its key */
    const struct policy_budget *of;             /* a policy's, whose number is: */
    uint32_t policy;
    uint8_t owner;                              /* an enum budget, or one of these: */
    uint8_t what;                               /* calls, writes or destroys: of configuration's */
};
enum { BUDGET_TOOL = BUDGETS, BUDGET_POLICY };

struct budget_lines {
    const struct call *call;
    unsigned n;
    struct rl_ask asks[BUDGET_LINES_OF_POLICY];
    struct budget_line of[BUDGET_LINES_OF_POLICY];
};

/* registry_build(): E_CONFIG where an amount is out of bounds, a tool unknown, or policies say too many things. */
enum err budgets_make(struct registry *r, const struct registry_options *opt, struct errinfo *info);
/* registry_take_rules(), and what is given back when the snapshot ends. */
enum err budgets_take_rules(struct registry *r, struct budget_rules *rules, struct errinfo *info);
void budgets_leave_rules(struct registry *r);
/* Sets the limiter's rules. */
void budgets_apply(const struct registry *r, struct rl *rl, ns_t now);

/* The budgets of configuration that count this call: at most RL_ASKS_MAX. What the limiter shows a line's key as is
 * made from the line when it wants to: `ret` stays where it is while it is asked for. */
void budgets_of_config(struct call *c, struct budget_lines *ret);
/* Those of the policies that permit it. E_POLICY_DENIED: more than are looked at; E_CALL_TOO_LARGE. */
enum err budgets_of_policy(struct call *c, struct budget_lines *ret);
/* "the agent's budget of writes", "policy "x", which permits 5 writes per hour to this user and agent". */
void budget_name(const struct call *c, const struct budget_line *line, struct buf *to);
/* It was refused by `line` (E_RATE_LIMITED, E_DEADLINE): says so, with the time that c->retry_after_ms names. */
enum err budget_refused(struct call *c, enum err e, const struct budget_line *line);

#endif
