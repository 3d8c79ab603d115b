/*
 * lint.h -- policies that cannot do what somebody wrote them for
 *
 * Findings are warnings, and sound: what is said of a policy holds for every request, whatever the entities are. What
 * depends on entities or on a schema is left to the validator (schema.h).
 *
 *   shadowed        a permit that a forbid overrides whenever it holds
 *   redundant       a policy that another one of its kind covers: without it every decision would be the same
 *   never-asked     an approval or a budget that never counts, since another permit holds whenever this one does
 *   never-applies   no request can meet its head or its conditions
 *   always-fails    a part that is evaluated whenever the policy is, and fails: it never applies either
 */
#ifndef POLICY_LINT_H
#define POLICY_LINT_H

#include "policy/schema.h"

/* Adds to the report. Pairs of policies are compared: for some hundred thousand of them this takes minutes.
 * E_CALL_TOO_LARGE. */
enum err policy_lint(const struct policy_set *set, struct policy_report *ret);

#endif
