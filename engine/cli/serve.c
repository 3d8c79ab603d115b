/*
 * serve.c -- `sluice serve`: the engine until SIGTERM; reload on SIGHUP
 */
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "cli/demo.h"
#include "cli/link.h"
#include "runtime/runtime.h"

static const char help[] =
    "Usage: sluice serve [OPTIONS]\n\n"
    "Runs the engine until SIGTERM or SIGINT, then drains: calls in flight finish or are recorded as\n"
    "unknown. SIGHUP reads policies, connectors' settings, issuers and certificates again; what is\n"
    "wrong is said and changes nothing.\n\n"
    "  --config FILE     configuration (YAML, docs/operating.md); without: the embedded default,\n"
    "                    ./sluice-data, 127.0.0.1:7411, the sandbox as provider, deny-all policies\n"
    "  --listen ADDR     IP:PORT instead of the configured one; port 0 takes a free one\n"
    "  --data DIR        directory instead of the configured one\n"
    "  --policies PATH   a *.cedar file or a directory of them; may be repeated; replaces the\n"
    "                    configured ones\n"
    "  --workers N       worker threads; 0: one per core\n"
    "  --no-auth         every caller is the configured user and agent; on loopback only\n"
    "  --check           read configuration, secrets of providers and policies, say whether they are\n"
    "                    acceptable, and exit\n";

struct options {
    const char *config, *listen, *data, *workers, *policies[CONFIG_LIST_MAX];
    size_t n_policies;
    bool no_auth, check;
};

static int load(const struct options *o, struct config **ret)
{
    struct errinfo info = { "" };
    int rc = config_open(&verb_serve, o->config, o->data, ret);
    struct config *c;

    if (rc)
        return rc;
    c = *ret;
    if (o->listen)
        c->listen = o->listen;
    if (o->no_auth)
        c->no_auth = true;
    rc = option_number(&verb_serve, "--workers", o->workers, 0, 256, &c->workers);
    if (rc)
        return rc;
    if (o->n_policies) {
        memset(c->policies, 0, sizeof(c->policies));
        memcpy(c->policies, o->policies, o->n_policies * sizeof(o->policies[0]));
    }
    if (config_check(c, &info))
        return complain(&verb_serve, 1, "%s", info.text);
    return 0;
}

static int check(struct config *c)
{
    struct registry *registry = NULL;
    struct errinfo info = { "" };

    if (config_secrets(c, &info) || snapshot_build(c, &registry, &info))
        return complain(&verb_serve, 1, "%s", info.text);
    printf("acceptable: %zu policies, %zu tools of %zu connectors\n", policy_set_count(registry->policy),
           registry->n_tools, registry->n_providers);
    registry_unref(registry);
    return 0;
}

/* The sandbox stays as it is: a reload only points the provider to it again. */
static void reload(struct runtime *rt, const struct options *o, const char *sandbox)
{
    struct errinfo info = { "" };
    struct config *next = NULL;
    int rc = load(o, &next);

    if (!rc && sandbox[0])
        demo_provider(next, sandbox);
    if (rc || runtime_reload(rt, next, &info)) {
        LOG_ERROR("the new configuration was not taken; the old one stays",
                  LOG_S("why", info.text[0] ? info.text : "see above"));
        config_free(next);
        return;
    }
    LOG_INFO("reloaded");
}

/* Signals are taken here, on one thread; workers block them all. */
static bool serve_until_told(struct runtime *rt, const struct options *o, const char *data, const char *sandbox,
                             const sigset_t *set)
{
    int sig;

    for (;;) {
        if (sigwait(set, &sig) != 0)
            continue;
        if (sig == SIGHUP) {
            reload(rt, o, sandbox);
            continue;
        }
        LOG_INFO("draining", LOG_S("signal", sig == SIGTERM ? "SIGTERM" : "SIGINT"));
        return engine_end(rt, data);
    }
}

/* Takes the configuration over. */
static int serve(const struct options *o, struct config *config, const sigset_t *set)
{
    struct sandbox_thread *sandbox = NULL;
    struct runtime *rt = NULL;
    struct errinfo info = { "" };
    struct arena a;
    const char *data;
    char name[64] = "";
    bool clean = false;
    int rc = 0;

    log_setup(config->log_level, config->log_format);
    arena_init(&a, 65536);
    data = arena_z(&a, str_of(config->data));
    if (config->sandbox_listen)
        rc = demo_sandbox(&verb_serve, config, &sandbox, name);
    if (sandbox)
        demo_provider(config, name);
    if (rc) {
        config_free(config);
    } else if (runtime_start(config, &rt, &info)) {
        rc = complain(&verb_serve, EXIT_UNABLE, "%s", info.text);
    } else {
        endpoint_write(data, runtime_mcp_url(rt));
        LOG_INFO("listening", LOG_S("address", runtime_address(rt)), LOG_S("mcp", runtime_mcp_url(rt)),
                 LOG_S("version", SLUICE_VERSION));
        clean = serve_until_told(rt, o, data, name, set);
        if (clean)
            LOG_INFO("stopped");
        else
            LOG_ERROR("the journal could not be closed in order; the next start recovers it");
        rc = clean ? 0 : EXIT_UNABLE;
    }
    if (sandbox)
        sandbox_thread_stop(sandbox);
    arena_release(&a);
    return rc;
}

static int run(int argc, char **argv)
{
    struct options o = { 0 };
    const struct option_spec specs[] = {
        { .name = "config", .value = &o.config },
        { .name = "listen", .value = &o.listen },
        { .name = "data", .value = &o.data },
        { .name = "workers", .value = &o.workers },
        { .name = "no-auth", .flag = &o.no_auth },
        { .name = "check", .flag = &o.check },
        { .name = "policies", .list = o.policies, .n_list = &o.n_policies, .max_list = CONFIG_LIST_MAX - 1 },
        { 0 },
    };
    struct config *config = NULL;
    sigset_t set;
    int words, rc = options_read(&verb_serve, argc, argv, specs, NULL, 0, &words);

    if (rc)
        return rc < 0 ? 0 : rc;
    signals_take(&set);
    files_raise();
    rc = load(&o, &config);
    if (!rc && o.check)
        rc = check(config);
    if (rc || o.check) {
        config_free(config);
        return rc;
    }
    return serve(&o, config, &set);
}

const struct verb verb_serve = { "serve", "run the engine", help, run };
