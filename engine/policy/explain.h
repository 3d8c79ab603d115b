/*
 * explain.h -- why a request was decided so: every policy's head and conditions, each expression with its value
 */
#ifndef POLICY_EXPLAIN_H
#define POLICY_EXPLAIN_H

#include "policy/policy.h"

enum {
    POLICY_EXPLAIN_ALL = 1,     /* also the policies whose heads do not match, with what does not */
    /* A forbid that fails refuses, as for calls (call/decide.c), in place of being skipped, as in Cedar. */
    POLICY_EXPLAIN_FAILED_FORBIDS = 2,
};

/*
 * Writes the decision, then policy by policy what came of it: of a head that matches each condition and below it, in
 * the order of evaluation, every expression that is not a literal or a variable, with its value, its fault, or that it
 * was not evaluated.  A rerun, expression by expression: it costs some microseconds for each, and decides nothing.
 * Scratch of the request is used. Values longer than 200 bytes are cut; at most 200 expressions of a policy are shown.
 * E_CALL_TOO_LARGE: as policy_decide(), or `out` is full.
 */
enum err policy_explain(const struct policy_set *set, const struct policy_request *request, unsigned flags,
    struct buf *out);

#endif
