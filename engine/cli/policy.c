/* policy.c -- `sluice policy check`, and the way to the other words */
#include <stdio.h>

#include "cli/cli.h"
#include "cli/policy_verbs.h"
#include "policy/policy.h"
#include "runtime/runtime.h"

static const char help[] =
    "Usage: sluice policy check PATH...\n"
    "       sluice policy test [--root DIR] CASE.json...\n"
    "       sluice policy schema [--config FILE]\n"
    "       sluice policy authorize --policies FILE --entities FILE --principal P --action A --resource R\n\n"
    "Reads Cedar policies, files or directories of *.cedar, as the engine would, and says how many\n"
    "there are. What is wrong is said as file:line:column, and the exit code is 1. Runs without an\n"
    "engine: for editors, commit hooks and CI.\n\n"
    "  sluice policy check /etc/sluice/policies\n\n"
    "test runs cases in the format of Cedar's integration tests: a JSON object that names files of\n"
    "policies, entities and a schema, and says whether the policies validate and how requests are\n"
    "decided. What comes out otherwise is said; the last line counts; the exit code is 1 if anything\n"
    "was wrong.\n\n"
    "  --root DIR            where the names in the cases are (default: the current directory)\n\n"
    "authorize decides one request and prints ALLOW or DENY, with the options, files and exit codes of\n"
    "the reference implementation's command: 0 allow, 2 deny, 1 could not decide.\n\n"
    "  --policies FILE       policies and templates, Cedar or JSON (default: standard input); -p\n"
    "  --policy-format F     cedar or json (default: as the text looks)\n"
    "  --template-linked FILE  links of templates, a JSON array of {template_id, link_id, args}; -k\n"
    "  --entities FILE       entities, a JSON array\n"
    "  --schema FILE         read entities and context by it, and check the request; -s\n"
    "  --schema-format F     cedar or json (default: as the text looks)\n"
    "  --principal ENTITY    who asks, as in User::\"alice\"; -l\n"
    "  --action ENTITY       to do what; -a\n"
    "  --resource ENTITY     with what; -r\n"
    "  --context FILE        the context, a JSON object (default: empty); -c\n"
    "  --request-json FILE   all four in one JSON object, in place of those options\n"
    "  --request-validation B  false: do not check the request by the schema\n"
    "  --verbose             name the policies that decided; -v\n"
    "  --timing              print how long deciding took; -t\n\n"
    "schema prints a Cedar schema of everything that policies can be asked with a configuration: its\n"
    "tools with their arguments, its entities with their attributes. Policies can be validated with it\n"
    "before they are loaded.\n\n"
    "  --config FILE         the engine's configuration (default: the embedded one); policies are not read\n\n"
    "What policies can speak of: principal User::\"...\" or Agent::\"...\" in Tenant::\"...\"; action\n"
    "Action::\"outlook.send_mail\" in Action::\"outlook\" and in Action::\"reads\", \"writes\" or \"destroys\";\n"
    "resource what the tool names, Mailbox::\"...\"; context args, user, agent, tenant, side, auth,\n"
    "scopes, time. User, agent and each delegation are asked; all must be permitted.\n";

enum { PATHS_MAX = 256 };

static int run(int argc, char **argv)
{
    struct policy_set *set = NULL;
    struct errinfo info = { "" };
    char *words[PATHS_MAX + 1];
    const char *paths[PATHS_MAX + 1] = { NULL };
    size_t forbids = 0, n;
    int n_words, rc;

    if (argc > 1 && str_is(str_of(argv[1]), "test"))
        return policy_test(argc - 1, argv + 1);
    if (argc > 1 && str_is(str_of(argv[1]), "authorize"))
        return policy_authorize(argc - 1, argv + 1);
    if (argc > 1 && str_is(str_of(argv[1]), "schema"))
        return policy_schema(argc - 1, argv + 1);
    rc = options_read(&verb_policy, argc, argv, NULL, words, PATHS_MAX + 1, &n_words);
    if (rc)
        return rc < 0 ? 0 : rc;
    if (n_words < 2 || !str_is(str_of(words[0]), "check"))
        return complain(&verb_policy, EXIT_USAGE,
                        "write: sluice policy check PATH..., policy test CASE.json... or policy authorize ...");
    for (int i = 1; i < n_words; i++)
        paths[i - 1] = words[i];
    if (policies_load(paths, &set, &info))
        return complain(&verb_policy, EXIT_UNABLE, "%s", info.text);
    n = policy_set_count(set);
    for (size_t i = 0; i < n; i++)
        forbids += policy_set_info(set, i).forbid;
    printf("%zu %s: %zu permit, %zu forbid; version %.12s\n", n, n == 1 ? "policy" : "policies", n - forbids, forbids,
           policy_set_version(set));
    if (n == 0)
        fprintf(stderr, "no policy: everything would be denied\n");
    policy_set_unref(set);
    return 0;
}

const struct verb verb_policy = { "policy", "check, test and ask policies without an engine", help, run };
