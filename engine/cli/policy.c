/* policy.c -- `sluice policy`: the way to its words */
#include <string.h>

#include "base/check.h"
#include "cli/cli.h"
#include "cli/policy_verbs.h"

static const char help[] =
    "Usage: sluice policy check [--config FILE | --schema FILE] [--deny-warnings] PATH...\n"
    "       sluice policy schema [--config FILE]\n"
    "       sluice policy explain --policies FILE --entities FILE --principal P --action A --resource R\n"
    "       sluice policy explain --call ID [--policies PATH] [--config FILE] [--data DIR]\n"
    "       sluice policy replay --policies PATH [--since 7d] [--config FILE] [--data DIR]\n"
    "       sluice policy flips [--since 7d] [--config FILE] [--data DIR]\n"
    "       sluice policy authorize --policies FILE --entities FILE --principal P --action A --resource R\n"
    "       sluice policy test [--root DIR] CASE.json...\n\n"
    "check reads Cedar policies, files or directories of *.cedar, as the engine would. What is wrong is\n"
    "said as file:line:column, and the exit code is 1. It warns of policies that can do nothing: that\n"
    "another one covers or overrides, that never apply, or that always fail. Runs without an engine: for\n"
    "editors, commit hooks and CI.\n\n"
    "  sluice policy check --config /etc/sluice/sluice.yaml /etc/sluice/policies\n\n"
    "  --config FILE         validate with the schema that `policy schema` makes of this configuration\n"
    "  --schema FILE         validate with this schema, Cedar or JSON\n"
    "  --deny-warnings       warnings make the exit code 1 too\n\n"
    "test runs cases in the format of Cedar's integration tests: a JSON object that names files of\n"
    "policies, entities and a schema, and says whether the policies validate and how requests are\n"
    "decided. What comes out otherwise is said; the last line counts; the exit code is 1 if anything\n"
    "was wrong.\n\n"
    "  --root DIR            where the names in the cases are (default: the current directory)\n\n"
    "explain decides one request and shows why: each policy that is about it, each condition, each\n"
    "expression with its value. It takes the options of authorize, and\n\n"
    "  --all                 shows also the policies that are about other requests, and what does not match\n"
    "  --call ID             instead: a call of the journal, side by side, by the configured policies or\n"
    "                        by those of --policies\n\n"
    "replay decides the journal's calls again under other policies, and lists each that would be decided\n"
    "otherwise, with what decided then and now. The exit code is 0 without flips, 2 with, 1 when it could\n"
    "not be done. It disturbs no running engine.\n\n"
    "  --policies PATH       the candidates: a file or a directory of *.cedar; may be repeated\n"
    "  --since TIME          only calls of the last 90m, 8h, 30d\n"
    "  --data DIR            the engine's data directory, for its journal; --config as below, for the\n"
    "                        tools and entities of now\n\n"
    "flips lists the calls of the journal that the candidates of shadow_policies, asked at the time,\n"
    "would have decided otherwise; --since, --config, --data and the exit codes are those of replay.\n\n"
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

static int run(int argc, char **argv)
{
    static const struct { const char *word; int (*run)(int argc, char **argv); } words[] = {
        { "check", policy_check }, { "test", policy_test }, { "authorize", policy_authorize },
        { "explain", policy_explain_verb }, { "replay", policy_replay }, { "flips", policy_flips },
        { "schema", policy_schema },
    };
    int n, rc;

    for (size_t i = 0; i < ARRAY_LEN(words) && argc > 1; i++)
        if (strcmp(argv[1], words[i].word) == 0)
            return words[i].run(argc - 1, argv + 1);
    rc = options_read(&verb_policy, argc, argv, NULL, NULL, 0, &n);
    if (rc < 0)
        return 0;
    return complain(&verb_policy, EXIT_USAGE,
                    "write: sluice policy check, schema, explain, replay, flips, authorize or test ...");
}

const struct verb verb_policy = { "policy", "check, test and ask policies without an engine", help, run };
