/*
 * tour.c -- `sluice tour`: engine and sandbox in one process, a story about them, then serving until Ctrl-C
 */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "cli/demo.h"
#include "cli/tour.h"
#include "loop/world.h"
#include "runtime/runtime.h"

static const char help[] =
    "Usage: sluice tour [--once] [--listen ADDR] [--data DIR]\n\n"
    "Shows what the engine does, on this machine alone: starts it with the built-in sandbox as\n"
    "provider and the demo tenant's policies, connects an account, makes calls as an MCP client and\n"
    "tells what happened to each, verifies the journal, and keeps serving until Ctrl-C, with an\n"
    "address and a token for clients of your own.\n\n"
    "  --once            ends after the tour; exit code 1 if any step went wrong\n"
    "  --listen ADDR     IP:PORT; 127.0.0.1:7411 if left out, or a free port if that is taken\n"
    "  --data DIR        the data directory; ./sluice-data if left out\n\n"
    "While it serves, SIGHUP reads the policies in DIR/demo-policies again: edit them and see.\n";

struct setup {
    const char *listen, *data;
    bool once;
    struct arena a;
    struct sandbox_thread *sandbox;
    char sandbox_name[64];
    struct runtime *rt;
    sigset_t signals;
};

/* Another engine has the usual port: then its data directory is its own, too. */
static int choose(struct setup *s)
{
    char dir[] = "/tmp/sluice-tour-XXXXXX";

    if (!s->listen) {
        s->listen = "127.0.0.1:7411";
        if (!demo_port_free(s->listen)) {
            printf("Port 7411 is taken: this engine takes a free one.\n");
            s->listen = "127.0.0.1:0";
            if (!s->data) {
                if (!mkdtemp(dir))
                    return complain(&verb_tour, EXIT_UNABLE,
                                    "cannot make a data directory in /tmp: name one with --data");
                s->data = arena_z(&s->a, str_of(dir));
            }
        }
    }
    if (!s->data)
        s->data = "./sluice-data";
    return 0;
}

static int configure(struct setup *s, struct config **ret)
{
    const char *policies;
    int rc = demo_write(&verb_tour, &s->a, s->data, &policies);

    if (!rc)
        rc = config_open(&verb_tour, NULL, s->data, ret);
    if (rc)
        return rc;
    (*ret)->listen = s->listen;
    (*ret)->policies[0] = policies;
    (*ret)->log_level = LOG_LEVEL_WARN;
    if (!s->sandbox)
        rc = demo_sandbox(&verb_tour, *ret, &s->sandbox, s->sandbox_name);
    if (!rc)
        demo_provider(*ret, s->sandbox_name);
    return rc;
}

static int start(struct setup *s)
{
    struct config *config = NULL;
    struct errinfo info = { "" };
    int rc;

    log_setup(LOG_LEVEL_WARN, LOG_FORMAT_LOGFMT);
    rc = configure(s, &config);
    if (rc) {
        config_free(config);
        return rc;
    }
    if (runtime_start(config, &s->rt, &info))
        return complain(&verb_tour, EXIT_UNABLE, "%s", info.text);
    endpoint_write(s->data, runtime_mcp_url(s->rt));
    printf("sluice %s\n\n", SLUICE_VERSION);
    printf("   engine    %s, its data and journal in %s\n", runtime_mcp_url(s->rt), s->data);
    printf("   sandbox   http://%s, with OAuth, mail and calendar of its own: nothing leaves this machine\n",
           s->sandbox_name);
    printf("   policies  %s/demo-policies; what they do not permit is denied\n", s->data);
    return 0;
}

/* ---- tokens ------------------------------------------------------------------------------------------------------ */

static int token_for(struct setup *s, const char *agent, struct buf *out)
{
    struct identity_mint m = { .tenant = STR(TOUR_TENANT), .user = STR(TOUR_USER), .agent = str_of(agent),
                               .audience = str_of(runtime_mcp_url(s->rt)), .ttl = 12 * 3600 * NS_PER_S };

    return mint(&verb_tour, s->data, &m, out);
}

static const char *program(struct setup *s)
{
    char path[4096];
    ssize_t n = readlink("/proc/self/exe", path, sizeof(path) - 1);

    return n > 0 ? arena_z(&s->a, str_n(path, (size_t)n)) : "sluice";
}

/* ---- the end of the story: over to the reader -------------------------------------------------------------------- */

static void invite(struct setup *s, struct str token)
{
    const char *url = runtime_mcp_url(s->rt), *self = program(s);
    const char *data = arena_printf(&s->a, " --data %s", s->data).p;

    printf("\nNow you. The engine keeps serving until Ctrl-C.\n\n"
           "   MCP endpoint   %s\n"
           "   token          for " TOUR_USER " through " TOUR_AGENT ", good for 12 hours:\n\n"
           "export SLUICE_TOKEN=%.*s\n\n", url, STR_ARG(token));
    printf("   MCP Inspector (Node 20 or later):\n\n"
           "npx -y @modelcontextprotocol/inspector@0.22.0 --cli %s --transport http \\\n"
           "    --header \"Authorization: Bearer $SLUICE_TOKEN\" --method tools/list\n\n"
           "   Anything that starts its servers itself, through mcp-remote:\n\n"
           "npx -y mcp-remote@0.15.1 %s --header \"Authorization: Bearer $SLUICE_TOKEN\" --allow-http --transport "
           "http-only\n\n",
           url, url);
    printf("   Claude Desktop (claude_desktop_config.json), Cursor (mcp.json), and others alike:\n\n"
           "{ \"mcpServers\": { \"sluice\": {\n"
           "    \"command\": \"%s\", \"args\": [\"stdio\", \"--url\", \"%s\"],\n"
           "    \"env\": { \"SLUICE_TOKEN\": \"%.*s\" } } } }\n\n", self, url, STR_ARG(token));
    printf("   Here, in another terminal:\n\n"
           "%s tools%s --tenant " TOUR_TENANT " --as " TOUR_USER " --agent " TOUR_AGENT "\n"
           "%s audit tail --follow%s\n\n", self, data, self, data);
    fflush(stdout);
}

/* ---- the verb ---------------------------------------------------------------------------------------------------- */

static bool interrupted(void)
{
    sigset_t set;

    sigpending(&set);
    return sigismember(&set, SIGINT) || sigismember(&set, SIGTERM);
}

static int tell(struct setup *s, struct buf *token, bool *ret_ok)
{
    struct link_options o = {
        .url = runtime_mcp_url(s->rt), .tenant = TOUR_TENANT, .user = TOUR_USER, .agent = TOUR_AGENT, .data = s->data
    };
    struct tour t = { .sandbox = arena_printf(&s->a, "http://%s", s->sandbox_name).p,
                      .journal = arena_printf(&s->a, "%s/journal", s->data).p,
                      .audit_options = arena_printf(&s->a, " --data %s", s->data).p,
                      .interrupted = interrupted };
    struct buf other = BUF_INIT(IDENTITY_TOKEN_MAX);
    struct link l;
    int rc = link_open(&verb_tour, &o, &l);

    if (!rc)
        rc = token_for(s, TOUR_AGENT, token);
    if (!rc)
        rc = token_for(s, TOUR_OTHER_AGENT, &other);
    t.other_authorization = arena_printf(&s->a, "Authorization: Bearer %.*s", STR_ARG(buf_str(&other))).p;
    buf_release(&other);
    t.link = &l;
    *ret_ok = !rc && tour_story(&t);
    link_close(&l);
    return rc;
}

static void reload(struct setup *s)
{
    struct config *next = NULL;
    struct errinfo info = { "" };
    int rc = config_open(&verb_tour, NULL, s->data, &next);

    if (rc)
        return;
    next->listen = s->listen;
    next->policies[0] = arena_printf(&next->arena, "%s/demo-policies", s->data).p;
    next->log_level = LOG_LEVEL_WARN;
    demo_provider(next, s->sandbox_name);
    if (runtime_reload(s->rt, next, &info)) {
        complain(&verb_tour, EXIT_UNABLE, "%s; the old policies stay", info.text);
        config_free(next);
        return;
    }
    printf("Policies were read again.\n");
    fflush(stdout);
}

static void serve(struct setup *s)
{
    int sig = 0;

    while (sig != SIGTERM && sig != SIGINT)
        if (sigwait(&s->signals, &sig) == 0 && sig == SIGHUP)
            reload(s);
    printf("\nDraining: calls in flight finish or are recorded as unknown.\n");
    fflush(stdout);
}

static int tour(struct setup *s)
{
    struct buf token = BUF_INIT(IDENTITY_TOKEN_MAX);
    bool ok = false, clean = true;
    int rc = start(s);

    if (!rc)
        rc = tell(s, &token, &ok);
    if (!rc && !ok)
        printf("\nNot everything went as it should; see above.\n");
    if (!rc && !s->once && !interrupted())
        invite(s, buf_str(&token));
    if (!rc && !s->once)
        serve(s);
    else if (!rc && ok)
        printf("\nEverything went as it should. `sluice tour` without --once keeps serving.\n");
    buf_release(&token);
    if (s->rt)
        clean = engine_end(s->rt, s->data);
    if (s->sandbox)
        sandbox_thread_stop(s->sandbox);
    if (!clean)
        return complain(&verb_tour, EXIT_UNABLE,
                        "the journal could not be closed in order; the next start recovers it");
    return rc ? rc : ok ? 0 : EXIT_UNABLE;
}

static int run(int argc, char **argv)
{
    struct setup s = { 0 };
    const struct option_spec specs[] = {
        { .name = "once", .flag = &s.once },
        { .name = "listen", .value = &s.listen },
        { .name = "data", .value = &s.data },
        { 0 },
    };
    int words, rc = options_read(&verb_tour, argc, argv, specs, NULL, 0, &words);

    if (rc)
        return rc < 0 ? 0 : rc;
    signals_take(&s.signals);
    files_raise();
    arena_init(&s.a, 1 << 20);
    rc = choose(&s);
    if (!rc)
        rc = tour(&s);
    arena_release(&s.a);
    return rc;
}

const struct verb verb_tour = { "tour", "see what the engine does, on this machine alone", help, run };
