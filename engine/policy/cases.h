/*
 * cases.h -- test cases for policies, in the format of Cedar's integration tests
 *
 * A case is a JSON object that names files and says what is to come of them:
 *
 *   { "policies", "entities", "schema": names of files,
 *     "policyFormat", "schemaFormat": "cedar" or "json" (if left out: as the text looks),
 *     "shouldValidate": whether the validator finds no error in the policies,
 *     "requests": [{ "description", "principal", "action", "resource", "context", "validateRequest" (default true),
 *       "decision": "allow" or "deny", "reason": [ids that decided], "errors": [ids that failed to evaluate] }] }
 *
 * Policies are called policy0, policy1, ... in the order of the file, whatever their annotations say.  Without a schema
 * nothing is validated.
 */
#ifndef POLICY_CASES_H
#define POLICY_CASES_H

#include "policy/schema.h"

struct policy_cases {
    void *arg;
    /* The whole of a file, by the name that the case gives, in the arena. */
    enum err (*read)(void *arg, struct str name, struct arena *a, struct str *ret, struct errinfo *info);
    /* Called with one line for everything that is not as the case says. */
    void (*tell)(void *arg, const char *line);
    /* May be NULL. Called for every decision; false counts it as wrong. */
    bool (*check)(void *arg, const struct policy_set *set, const struct policy_request *request,
        const struct policy_decision *decision);

    size_t decisions, wrong;
    size_t validations, wrong_validations;
};

/*
 * Runs the case in the file `name`. A case that cannot be run counts as one wrong validation, and its requests as wrong
 * decisions. Needs up to 1 MiB of stack.
 */
void policy_case_run(struct policy_cases *c, struct str name);

#endif
