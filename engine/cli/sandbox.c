/* sandbox.c -- `sluice sandbox`: the built-in provider alone, until SIGTERM */
#include <stdio.h>

#include "cli/cli.h"
#include "connectors/sandbox/sandbox.h"

static const char help[] =
    "Usage: sluice sandbox [OPTIONS]\n\n"
    "Runs the built-in provider alone, until SIGTERM: a strict OAuth server and an Outlook-like mail\n"
    "and calendar API, in memory, on loopback. For tests and benches, and to see what a connector\n"
    "does to its provider. Prints its address.\n\n"
    "  --listen ADDR     IP:PORT; 127.0.0.1:7412 if left out; port 0 takes a free one\n"
    "  --delay-ms N      before each answer of the API; 0 if left out\n"
    "  --token-ttl S     seconds an access token is good for; 3600 if left out\n"
    "  --concurrency N   requests at once per mailbox, more are answered 429; 4 if left out\n\n"
    "An engine uses it with, in its configuration:\n\n"
    "  providers:\n"
    "    outlook: { base_url: \"http://127.0.0.1:7412\", auth_url: \"http://127.0.0.1:7412\", client_id: "
    "sandbox-client,\n"
    "               client_secret: \"env:SANDBOX_SECRET\", allow_loopback: true, allow_plain_http: true }\n\n"
    "and SANDBOX_SECRET=sandbox-secret in its environment. GET /sandbox/stats says what has happened.\n";

static int run(int argc, char **argv)
{
    struct sandbox_options opt = { .listen = "127.0.0.1:7412" };
    const char *delay = NULL, *ttl = NULL, *concurrency = NULL;
    const struct option_spec specs[] = {
        { .name = "listen", .value = &opt.listen },
        { .name = "delay-ms", .value = &delay },
        { .name = "token-ttl", .value = &ttl },
        { .name = "concurrency", .value = &concurrency },
        { 0 },
    };
    struct sandbox_thread *sandbox;
    struct errinfo info = { "" };
    sigset_t set;
    char name[64];
    int sig, words, rc = options_read(&verb_sandbox, argc, argv, specs, NULL, 0, &words);

    if (!rc)
        rc = option_number(&verb_sandbox, "--delay-ms", delay, 0, 3600000, &opt.delay_ms);
    if (!rc)
        rc = option_number(&verb_sandbox, "--token-ttl", ttl, 1, 86400, &opt.token_ttl_s);
    if (!rc)
        rc = option_number(&verb_sandbox, "--concurrency", concurrency, 1, 100000, &opt.concurrency);
    if (rc)
        return rc < 0 ? 0 : rc;
    signals_take(&set);
    files_raise();
    if (sandbox_thread_start(&opt, &sandbox, name, &info))
        return complain(&verb_sandbox, EXIT_UNABLE, "%s", info.text);
    printf("http://%s\n", name);
    fflush(stdout);
    while (sigwait(&set, &sig) != 0 || sig == SIGHUP)
        continue;
    sandbox_thread_stop(sandbox);
    return 0;
}

const struct verb verb_sandbox = { "sandbox", "run the built-in provider alone", help, run };
