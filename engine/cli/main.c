/* main.c -- finds the verb */
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

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

static bool nobody_reads(void)
{
    struct pollfd out = { .fd = STDOUT_FILENO };

    return poll(&out, 1, 0) == 1 && (out.revents & POLLERR);
}

/* Half of what was to be said is no success, unless the reader has seen enough. */
static int said(const char *verb, int code)
{
    if ((fflush(stdout) == 0 && !ferror(stdout)) || nobody_reads())
        return code;
    fprintf(stderr, "sluice %s: not everything could be written to the standard output\n", verb);
    return code ? code : EXIT_UNABLE;
}

int main(int argc, char **argv)
{
    /* the linker drops silently what it believes unused: a program without its connectors must not start */
    ASSERT(registry_linked_tools() == SLUICE_TOOLS_COUNTED);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN);           /* a limit of file sizes is an error of the write, like a full disk */
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
            return said((*v)->name, (*v)->run(argc - 1, argv + 1));
    fprintf(stderr, "sluice: there is no verb \"%s\"; see sluice --help\n", argv[1]);
    return 2;
}
