/*
 * serve.c -- `sluice serve`: the engine until SIGTERM; reload on SIGHUP
 */
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "base/log.h"
#include "cli/cli.h"
#include "runtime/runtime.h"

static const char help[] =
    "Usage: sluice serve [OPTIONS]\n\n"
    "Runs the engine until SIGTERM or SIGINT, then drains: calls in flight finish or are recorded as unknown.\n"
    "SIGHUP reads policies, connectors' settings, issuers and certificates again; what is wrong is said and changes nothing.\n\n"
    "  --config FILE     configuration (YAML, docs/configuration.md); without: the embedded default,\n"
    "                    ./sluice-data, 127.0.0.1:7411, deny-all policies\n"
    "  --listen ADDR     IP:PORT instead of the configured one; port 0 takes a free one\n"
    "  --data DIR        directory instead of the configured one\n"
    "  --policies PATH   a *.cedar file or a directory of them; may be repeated; replaces the configured ones\n"
    "  --workers N       worker threads; 0: one per core\n"
    "  --no-auth         every caller is the configured user and agent; on loopback only\n"
    "  --check           read configuration and policies, say whether they are acceptable, and exit\n";

struct options {
    const char *config, *listen, *data, *workers, *policies[CONFIG_LIST_MAX];
    size_t n_policies;
    bool no_auth, check;
};

static int load(const struct options *o, struct config **ret)
{
    struct errinfo info = { "" };
    uint64_t workers = 0;
    int rc = config_open(&verb_serve, o->config, ret);
    struct config *c;

    if (rc)
        return rc;
    c = *ret;
    if (o->listen)
        c->listen = o->listen;
    if (o->no_auth)
        c->no_auth = true;
    if (o->data) {
        c->data = o->data;
        c->root_key = arena_printf(&c->arena, "file:%s/root.key", o->data).p;
    }
    if (o->workers) {
        if (!str_to_u64(str_of(o->workers), &workers) || workers > 256)
            return complain(&verb_serve, 2, "--workers takes a number from 0 to 256");
        c->workers = (int64_t)workers;
    }
    if (o->n_policies) {
        memset(c->policies, 0, sizeof(c->policies));
        memcpy(c->policies, o->policies, o->n_policies * sizeof(o->policies[0]));
    }
    if (config_check(c, &info))
        return complain(&verb_serve, 1, "%s", info.text);
    return 0;
}

/* Thousands of calls are thousands of sockets: take what the hard limit gives. */
static void raise_files(void)
{
    struct rlimit r;

    if (getrlimit(RLIMIT_NOFILE, &r) == 0 && r.rlim_cur < r.rlim_max) {
        r.rlim_cur = r.rlim_max;
        setrlimit(RLIMIT_NOFILE, &r);
    }
}

static int check(const struct config *c)
{
    struct policy_set *policy = NULL;
    struct registry *registry = NULL;
    struct errinfo info = { "" };
    struct registry_options opt = { .setups = c->providers, .n_setups = c->n_providers, .enabled = c->connectors[0] ? c->connectors : NULL };
    enum err e = policies_load(c->policies, &policy, &info);

    opt.policy = policy;
    if (!e)
        e = registry_build(&opt, &registry, &info);
    if (!e)
        printf("acceptable: %zu policies, %zu tools of %zu connectors\n", policy_set_count(policy), registry->n_tools, registry->n_providers);
    registry_unref(registry);
    policy_set_unref(policy);
    return e ? complain(&verb_serve, 1, "%s", info.text) : 0;
}

static void reload(struct runtime *rt, const struct options *o)
{
    struct errinfo info = { "" };
    struct config *next = NULL;

    if (load(o, &next) || runtime_reload(rt, next, &info)) {
        LOG_ERROR("the new configuration was not taken; the old one stays", LOG_S("why", info.text[0] ? info.text : "see above"));
        config_free(next);
        return;
    }
    LOG_INFO("reloaded");
}

/* Signals are taken here, on one thread; workers block them all. */
static bool serve_until_told(struct runtime *rt, const struct options *o, const sigset_t *set)
{
    int sig;

    for (;;) {
        if (sigwait(set, &sig) != 0)
            continue;
        if (sig == SIGHUP) {
            reload(rt, o);
            continue;
        }
        LOG_INFO("draining", LOG_S("signal", sig == SIGTERM ? "SIGTERM" : "SIGINT"));
        return runtime_stop(rt);
    }
}

static int run(int argc, char **argv)
{
    struct options o = { 0 };
    const struct option_spec specs[] = {
        { .name = "config", .value = &o.config }, { .name = "listen", .value = &o.listen }, { .name = "data", .value = &o.data },
        { .name = "workers", .value = &o.workers }, { .name = "no-auth", .flag = &o.no_auth }, { .name = "check", .flag = &o.check },
        { .name = "policies", .list = o.policies, .n_list = &o.n_policies, .max_list = CONFIG_LIST_MAX - 1 }, { 0 },
    };
    struct errinfo info = { "" };
    struct config *config = NULL;
    struct runtime *rt = NULL;
    sigset_t set;
    int words, rc = options_read(&verb_serve, argc, argv, specs, NULL, 0, &words);

    if (rc)
        return rc < 0 ? 0 : rc;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    raise_files();
    rc = load(&o, &config);
    if (!rc && o.check)
        rc = check(config);
    if (rc || o.check) {
        config_free(config);
        return rc;
    }
    log_setup(config->log_level, config->log_format);
    if (runtime_start(config, &rt, &info))
        return complain(&verb_serve, 1, "%s", info.text);
    LOG_INFO("listening", LOG_S("address", runtime_address(rt)), LOG_S("mcp", runtime_mcp_url(rt)), LOG_S("version", SLUICE_VERSION));
    if (!serve_until_told(rt, &o, &set)) {
        LOG_ERROR("the journal could not be closed in order; the next start recovers it");
        return 1;
    }
    LOG_INFO("stopped");
    return 0;
}

const struct verb verb_serve = { "serve", "run the engine", help, run };
