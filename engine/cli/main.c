/* main.c -- finds the verb */
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "base/check.h"
#include "base/secret.h"
#include "call/registry.h"
#include "cli/cli.h"

static const struct verb *const verbs[] = {
    &verb_serve, &verb_tour, &verb_call, &verb_tools, &verb_token, &verb_connect, &verb_policy, &verb_audit, &verb_stdio, &verb_sandbox,
    &verb_completion, &verb_version,
};

static void help(FILE *to)
{
    fprintf(to, "sluice: the execution layer between AI agents and the systems they act on\n\n"
                "Usage: sluice VERB [OPTIONS]\n\n");
    for (size_t i = 0; i < ARRAY_LEN(verbs); i++)
        fprintf(to, "  %-11s %s\n", verbs[i]->name, verbs[i]->summary);
    fprintf(to, "\n`sluice VERB --help` teaches a verb. A first look: ./dev run, or `sluice serve` and in another terminal\n"
                "`sluice tools --as alice --agent shell`.\n");
}

int main(int argc, char **argv)
{
    /* the linker drops silently what it believes unused: a program without its connectors must not start */
    ASSERT(registry_linked_tools() == SLUICE_TOOLS_COUNTED);
    signal(SIGPIPE, SIG_IGN);
    secret_harden_process();
    if (argc < 2) {
        help(stderr);
        return 2;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 || strcmp(argv[1], "help") == 0) {
        help(stdout);
        return 0;
    }
    if (strcmp(argv[1], "--version") == 0)
        argv[1] = (char *)"version";
    for (size_t i = 0; i < ARRAY_LEN(verbs); i++)
        if (strcmp(argv[1], verbs[i]->name) == 0)
            return verbs[i]->run(argc - 1, argv + 1);
    fprintf(stderr, "sluice: there is no verb \"%s\"; see sluice --help\n", argv[1]);
    return 2;
}
