/* main.c -- finds the verb */
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "base/check.h"
#include "base/secret.h"
#include "call/registry.h"
#include "cli/cli.h"

static void help(FILE *to)
{
    fprintf(to, "sluice: the execution layer between AI agents and the systems they act on\n\n"
                "Usage: sluice VERB [OPTIONS]\n\n");
    for (const struct verb *const *v = cli_verbs; *v; v++)
        fprintf(to, "  %-11s %s\n", (*v)->name, (*v)->summary);
    fprintf(
        to,
        "\n`sluice VERB --help` teaches a verb. A first look: `sluice tour`, which needs nothing but itself; then, in\n"
        "another terminal, `sluice tools --tenant demo --as alice@demo.example --agent demo-agent`.\n");
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
    for (const struct verb *const *v = cli_verbs; *v; v++)
        if (strcmp(argv[1], (*v)->name) == 0)
            return (*v)->run(argc - 1, argv + 1);
    fprintf(stderr, "sluice: there is no verb \"%s\"; see sluice --help\n", argv[1]);
    return 2;
}
