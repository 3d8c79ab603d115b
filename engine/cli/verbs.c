/* verbs.c -- the table of verbs: help, completion and main() read it */
#include "cli/cli.h"

const struct verb *const cli_verbs[] = {
    &verb_serve, &verb_tour,  &verb_call,    &verb_tools,      &verb_token,   &verb_connect, &verb_delegate,
    &verb_policy, &verb_audit, &verb_limits, &verb_stdio, &verb_sandbox, &verb_completion, &verb_version, NULL,
};
