/*
 * runtime.c -- assembling, reloading and ending the engine
 *
 * main's thread owns struct runtime; each worker's thread owns its struct worker.  They talk by mail to the worker and
 * a condition variable back.  What workers share is made before they start and ended after they have.
 */
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "admin/admin.h"
#include "admin/memory.h"
#include "base/check.h"
#include "base/log.h"
#include "base/metric.h"
#include "call/breaker.h"
#include "call/call.h"
#include "call/once.h"
#include "http/http.h"
#include "identity/identity.h"
#include "loop/world.h"
#include "mcp/mcp.h"
#include "ratelimit/ratelimit.h"
#include "runtime/egress.h"
#include "runtime/limits.h"
#include "runtime/recover.h"
#include "runtime/runtime.h"
#include "store/store.h"
#include "vault/vault.h"

enum {
    WORKERS_MAX = 256,
    POLL_MS = 10,
    LAST_WORDS_MS = 2000,       /* for the answers of calls that were cut */
};

/* HUNG: ended, but for what waits for a device that does not answer. GONE: its thread needs nothing any more. */
enum phase { STARTING, RUNNING, DRAINING, ENDED, FAILED, HUNG, GONE };

struct seat {                               /* a worker and what runtime keeps about it */
    struct runtime *rt;
    struct worker *worker;
    struct loop *loop;
    struct http_server *http;
    pthread_t thread;
    bool has_thread, clean;
    enum phase phase;                       /* under rt->lock */
    unsigned requests;                      /* whose handler runs: its own thread's */
    struct errinfo why;
    struct mail drain_mail, swap_mail, tick_mail;
    struct timer poll, tick;
    ns_t drain_until;
    bool cut;
    struct registry *swap_to;
    struct http_tls *swap_tls;
};

struct runtime {
    struct config *config;                  /* the newest; an older one stays as long as its snapshot */
    struct engine engine;
    struct seat seats[WORKERS_MAX];
    struct worker workers[WORKERS_MAX];
    struct store *store;
    struct secret *root;
    struct identity_local *local;
    struct registry *registry;
    struct recovery *recovery;
    struct limits_keeper *limits;
    struct mcp *mcp;
    struct http_tls *tls;
    char address[64], mcp_url[256];
    int listener;                           /* worker 0's, until its server owns it */
    pthread_mutex_t lock;
    pthread_cond_t changed;
    unsigned swaps_done;
    atomic_bool failed, tick_posted;
};

const char *runtime_address(const struct runtime *rt)   { return rt->address; }
const char *runtime_mcp_url(const struct runtime *rt)   { return rt->mcp_url; }
bool runtime_failed(const struct runtime *rt)           { return atomic_load(&((struct runtime *)rt)->failed); }

/* ---- requests ---------------------------------------------------------------------------------------------------- */

static void handle(struct http_request *rq, void *arg)
{
    struct seat *seat = arg;
    struct str at = http_path(rq);

    seat->requests++;
    if (mcp_serves(seat->rt->mcp, at)) {
        mcp_handle(rq, seat->rt->mcp);
    } else if (admin_serves(at)) {
        admin_handle(rq, seat->worker, seat->rt->mcp);
    } else {
        const struct http_header type = { STR("Content-Type"), STR("text/plain; charset=utf-8") };

        call_record_bad_request(seat->worker, E_HTTP_NOT_FOUND, err_text(E_HTTP_NOT_FOUND), http_peer(rq),
                                http_body(rq).len);
        await_http_reply(rq, 404, &type, 1, STR("nothing is served at this path\n"));
    }
    seat->requests--;
}

static enum err refused_for(int status)
{
    switch (status) {
    case 408:
        return E_HTTP_TIMEOUT;
    case 413:
    case 414:
    case 431:
        return E_HTTP_TOO_LARGE;
    case 503:
        return E_OVERLOADED;
    default:
        return E_HTTP_MALFORMED;
    }
}

static void on_bad_request(const struct http_bad_request *bad, void *arg)
{
    struct seat *seat = arg;

    call_record_bad_request(seat->worker, refused_for(bad->status), http_fault_text(bad->fault), bad->peer,
                            bad->bytes.len);
}

/* ---- the limiter's clock: worker 0 ------------------------------------------------------------------------------- */

static void tick(struct timer *t)
{
    struct seat *seat = CONTAINER_OF(t, struct seat, tick);
    int64_t next = rl_tick(seat->rt->engine.limiter, loop_now());

    if (next != RL_FOREVER && seat->phase < ENDED)
        timer_set(&seat->tick, next, tick);
}

static void tick_mail(struct mail *m)
{
    struct seat *seat = CONTAINER_OF(m, struct seat, tick_mail);

    atomic_store(&seat->rt->tick_posted, false);
    tick(&seat->tick);
}

static void on_alarm(void *arg, int64_t at)
{
    struct runtime *rt = arg;
    struct seat *first = &rt->seats[0];

    (void)at;                       /* the tick looks for itself */
    if (!atomic_exchange(&rt->tick_posted, true))
        loop_post(first->loop, &first->tick_mail);
}

/* ---- a worker's thread ------------------------------------------------------------------------------------------- */

static void seat_phase(struct seat *seat, enum phase phase)
{
    pthread_mutex_lock(&seat->rt->lock);
    seat->phase = phase;
    pthread_cond_broadcast(&seat->rt->changed);
    pthread_mutex_unlock(&seat->rt->lock);
}

static void record_admin(struct seat *seat, const char *event)
{
    struct buf b = BUF_INIT(1024);
    uint64_t seq;

    buf_addf(&b, "{\"event\":\"%s\",\"version\":\"%s\",\"policy\":\"%s\",\"tools\":%zu}", event, SLUICE_VERSION,
             policy_set_version(seat->worker->held->registry->policy), seat->worker->held->registry->n_tools);
    if (journal_append(seat->worker->lane, JOURNAL_ADMIN, buf_str(&b), NULL, &seq))
        LOG_WARN("an operator's act could not be recorded", LOG_S("event", event));
    buf_release(&b);
}

/* All but the lane. */
static enum err seat_open(struct seat *seat)
{
    struct runtime *rt = seat->rt;
    struct worker *w = seat->worker;
    /* how many may be under way at a provider is the limiter's business, not the pool's */
    const struct fetch_options fetch = { .per_origin_max = 65536,
                                         .ca_file = rt->config->tls_provider_ca,
                                         .http2 = rt->config->tls_provider_http2 ? FETCH_HTTP2_SHARED
                                                                                 : FETCH_HTTP2_NEVER };
    struct http_server_options http = { .listen = w->id == 0 ? NULL : rt->address,
                                        .fd = rt->listener,
                                        .reuse_port = true,
                                        .connections_max = (unsigned)rt->config->connections_max,
                                        .tls = rt->tls,
                                        .handler = handle,
                                        .on_bad_request = on_bad_request,
                                        .arg = seat };
    enum err e = fetch_create(&fetch, &w->fetch, &seat->why);

    if (!e)
        e = lag_open(&w->lag, &seat->why);
    if (!e)
        e = http_server_start(&http, &seat->http, &seat->why);
    if (!e && w->id == 0) {
        rt->listener = -1;
        record_admin(seat, "start");
    }
    return e;
}

static void seat_close_task(void *arg)
{
    struct seat *seat = arg;
    enum err e = OK;

    task_shield(+1);
    if (seat->worker->lane) {
        call_record_refusals(seat->worker);
        if (seat->worker->id == 0)
            record_admin(seat, "stop");
        e = await_journal_lane_close(seat->worker->lane);
        seat->clean = e == OK;
    }
    if (seat->worker->fetch)
        fetch_drain(seat->worker->fetch);
    task_shield(-1);
    timer_clear(&seat->tick);
    lag_close(&seat->worker->lag);
    loop_stop(seat->loop);
    if (e == E_TIMEOUT)
        seat_phase(seat, HUNG);         /* what the store has to keep waits for the same device */
}

static void seat_end(struct seat *seat)
{
    seat_phase(seat, ENDED);
    ASSERT(task_spawn("closing", seat_close_task, seat) != NULL);
}

static void seat_failed(struct seat *seat)
{
    seat_phase(seat, FAILED);
    if (seat->http)
        http_server_stop(seat->http);
    ASSERT(task_spawn("closing", seat_close_task, seat) != NULL);
}

static void seat_serve(void *arg)
{
    struct seat *seat = arg;

    if (seat_open(seat))
        seat_failed(seat);
    else
        seat_phase(seat, RUNNING);
}

/* Nothing is served before what the process before left open is settled: its keys are used up. */
static void seat_settle_task(void *arg)
{
    struct seat *seat = arg;

    if (await_recover_settle(seat->rt->recovery, seat->worker->lane, &seat->why))
        seat_failed(seat);
    else
        task_deep(seat_serve, seat);
}

static void seat_start(void *arg)
{
    struct seat *seat = arg;

    if (journal_lane_open(seat->rt->engine.journal, seat->worker->id, &seat->worker->lane, &seat->why))
        seat_failed(seat);
    else if (seat->worker->id == 0)
        ASSERT(task_spawn("settling", seat_settle_task, seat) != NULL);
    else
        seat_serve(seat);
}

static void *seat_main(void *arg)
{
    struct seat *seat = arg;
    char name[16];

    snprintf(name, sizeof(name), "worker-%u", seat->worker->id);
    pthread_setname_np(pthread_self(), name);
    memory_worker_enter();
    worker_enter(seat->worker);
    loop_run(seat->loop, seat_start, seat);
    fetch_destroy(seat->worker->fetch);
    registry_leave(seat->worker->held);
    seat_phase(seat, GONE);
    return NULL;
}

/* ---- draining ---------------------------------------------------------------------------------------------------- */

/* Worker 0 keeps the limiter's clock for the others and ends last. */
static bool others_ended(struct runtime *rt)
{
    bool ended = true;

    pthread_mutex_lock(&rt->lock);
    for (unsigned i = 1; i < rt->engine.n_workers; i++)
        ended = ended && (!rt->seats[i].has_thread || rt->seats[i].phase >= ENDED);
    pthread_mutex_unlock(&rt->lock);
    return ended;
}

/* Calls in flight finish; what has not by the deadline is cancelled, which records it as unknown once bytes have
 * left.  A request that is no call yet (a batch that waits for its sender) may still become one to be recorded: the
 * lane stays open until every handler has returned. */
static void drain_poll(struct timer *t)
{
    struct seat *seat = CONTAINER_OF(t, struct seat, poll);

    if (seat->http && seat->worker->calls == 0 && http_server_idle(seat->http)) {
        http_server_stop(seat->http);
        seat->http = NULL;
    }
    if (seat->http && !seat->cut && loop_now() >= seat->drain_until) {
        LOG_WARN("calls are cut at the end of the drain time", LOG_I("worker", seat->worker->id),
                 LOG_I("calls", seat->worker->calls));
        calls_cut(seat->worker);
        seat->cut = true;
    }
    if (seat->http && loop_now() >= seat->drain_until + LAST_WORDS_MS * NS_PER_MS) {
        http_server_stop(seat->http);
        seat->http = NULL;
    }
    if (!seat->http && seat->requests == 0 && (seat->worker->id != 0 || others_ended(seat->rt))) {
        seat_end(seat);
        return;
    }
    timer_set(&seat->poll, loop_now() + POLL_MS * NS_PER_MS, drain_poll);
}

static void drain_mail(struct mail *m)
{
    struct seat *seat = CONTAINER_OF(m, struct seat, drain_mail);

    seat->worker->draining = true;
    seat_phase(seat, DRAINING);
    seat->drain_until = loop_now() + seat->rt->config->drain_s * NS_PER_S;
    http_server_drain(seat->http);
    drain_poll(&seat->poll);
}

/* ---- reloading --------------------------------------------------------------------------------------------------- */

static void swap_mail(struct mail *m)
{
    struct seat *seat = CONTAINER_OF(m, struct seat, swap_mail);

    if (seat->phase == RUNNING) {
        registry_leave(seat->worker->held);
        seat->worker->held = registry_hold(seat->swap_to);
        if (seat->swap_tls && seat->http)
            http_server_reload_tls(seat->http, seat->swap_tls);
        if (seat->worker->id == 0)
            record_admin(seat, "reload");
    }
    pthread_mutex_lock(&seat->rt->lock);
    seat->rt->swaps_done++;
    pthread_cond_broadcast(&seat->rt->changed);
    pthread_mutex_unlock(&seat->rt->lock);
}

static enum err tls_of(const struct config *c, struct http_tls **ret, struct errinfo *info)
{
    struct http_tls_options opt = { c->tls_cert, c->tls_key, c->tls_client_ca, c->tls_client_required };

    *ret = NULL;
    return c->tls_cert ? http_tls_load(&opt, ret, info) : OK;
}

struct issuers {
    struct identity_issuer list[IDENTITY_ISSUERS_MAX];
    struct str strs[IDENTITY_ISSUERS_MAX][2 * CONFIG_LIST_MAX], local[CONFIG_LIST_MAX + 1];
    struct identity_config config;
};

static size_t strs_of(const char *const *from, struct str *to)
{
    size_t n = 0;

    for (; from[n]; n++)
        to[n] = str_of(from[n]);
    return n;
}

/* `out` must stay until identity has copied it. */
static void issuers_of(struct runtime *rt, const struct config *c, struct issuers *out)
{
    for (size_t i = 0; i < c->n_issuers; i++) {
        const struct config_issuer *f = &c->issuers[i];
        struct identity_issuer *to = &out->list[i];

        *to = (struct identity_issuer){ .issuer = str_of(f->issuer),
                                        .audiences = out->strs[i],
                                        .tenants = out->strs[i] + CONFIG_LIST_MAX,
                                        .tenant = str_of(f->tenant),
                                        .tenant_claim = str_of(f->tenant_claim),
                                        .user_claim = str_of(f->user_claim),
                                        .prefix = str_of(f->prefix),
                                        .scope_claim = str_of(f->scope_claim),
                                        .groups_claim = str_of(f->groups_claim),
                                        .agent_default = str_of(f->agent_default),
                                        .typ_jwt_allowed = f->typ_jwt,
                                        .lifetime_max = f->lifetime_s * NS_PER_S };
        identity_alg_parse(str_of(f->algorithm), &to->alg);
        to->n_audiences = strs_of(f->audiences, out->strs[i]);
        to->n_tenants = strs_of(f->tenants, out->strs[i] + CONFIG_LIST_MAX);
        if (to->n_audiences == 0) {
            out->strs[i][0] = str_of(rt->mcp_url);
            to->n_audiences = 1;
        }
        if (strncmp(f->jwks, "file:", 5) == 0)
            to->jwks_path = str_of(f->jwks + 5);
        else
            to->jwks_url = str_of(f->jwks);
    }
    out->config = (struct identity_config){ .issuers = out->list,
                                            .n_issuers = c->n_issuers,
                                            .local = rt->local,
                                            .local_audiences = out->local,
                                            .cache_max = (size_t)c->tokens_max,
                                            .fetcher = egress_identity_fetcher() };
    out->config.n_local_audiences = strs_of(c->audiences, out->local);
    if (out->config.n_local_audiences == 0)
        out->local[out->config.n_local_audiences++] = str_of(rt->mcp_url);
}

static enum err identity_setup(struct runtime *rt, const struct config *c, bool reload, struct errinfo *info)
{
    struct issuers *issuers;
    enum err e;

    if (c->no_auth)
        return OK;
    issuers = calloc(1, sizeof(*issuers));
    ASSERT(issuers != NULL);
    issuers_of(rt, c, issuers);
    e = reload ? identity_reload(rt->engine.identity, &issuers->config, info)
               : identity_create(&issuers->config, &rt->engine.identity, info);
    free(issuers);
    return e;
}

/* Whoever hears of it may ask any worker: when all have the new snapshot, not before. Connectors bring all three. */
static void announce(struct mcp *m)
{
    mcp_announce(m, STR_NULL, "tools");
    mcp_announce(m, STR_NULL, "prompts");
    mcp_announce(m, STR_NULL, "resources");
}

enum err runtime_reload(struct runtime *rt, struct config *config, struct errinfo *info)
{
    struct registry *next = NULL;
    struct http_tls *tls = NULL;
    enum err e;

    if (config->no_auth != rt->config->no_auth)
        return err_set(info, E_CONFIG, "auth.none cannot change while the engine runs: restart it");
    if ((config->tls_cert != NULL) != (rt->tls != NULL))
        return err_set(info, E_CONFIG, "TLS cannot be switched on or off while the engine runs: restart it");
    e = config_secrets(config, info);
    if (!e)
        e = snapshot_build(config, &next, info);
    if (!e)
        e = tls_of(config, &tls, info);
    if (!e)
        e = registry_take_rules(next, &rt->engine.budget_rules, info);
    if (!e)
        e = identity_setup(rt, config, true, info);
    if (e) {
        registry_unref(next);
        http_tls_release(tls);
        return e;
    }
    registry_apply_limits(next, rt->engine.limiter, world->now());
    registry_make_keys(next, rt->engine.limiter);
    pthread_mutex_lock(&rt->lock);
    rt->swaps_done = 0;
    for (unsigned i = 0; i < rt->engine.n_workers; i++) {
        rt->seats[i].swap_to = next;
        rt->seats[i].swap_tls = tls;
        loop_post(rt->seats[i].loop, &rt->seats[i].swap_mail);
    }
    while (rt->swaps_done < rt->engine.n_workers)
        pthread_cond_wait(&rt->changed, &rt->lock);
    pthread_mutex_unlock(&rt->lock);
    registry_unref(rt->registry);
    rt->registry = next;
    http_tls_release(rt->tls);          /* the old key stays no longer than connections that were made with it */
    rt->tls = tls;
    config_free(rt->config);
    rt->config = config;
    announce(rt->mcp);
    return OK;
}

/* ---- start ------------------------------------------------------------------------------------------------------- */

static void lane_failed(void *arg, unsigned lane, const char *why)
{
    struct runtime *rt = arg;

    LOG_ERROR("the journal cannot be written any more: no call is made from here on", LOG_I("lane", lane),
              LOG_S("why", why));
    atomic_store(&rt->failed, true);
    kill(getpid(), SIGTERM);
}

static enum err open_shared(struct runtime *rt, struct errinfo *info)
{
    const struct config *c = rt->config;
    struct journal_options journal = { .segment_bytes = c->segment_mb << 20, .failed = lane_failed, .failed_arg = rt };
    struct vault_config vault = { .http = egress_vault_http() };
    char at[4096];
    enum err e;
    int made = world->mkdir(c->data, 0700);

    if (made < 0)
        return err_set(info, E_IO, "cannot make the data directory %s: %s", c->data, strerror(-made));
    snprintf(at, sizeof(at), "file:%s/root.key", c->data);
    e = vault_root_load(str_of(c->root_key ? c->root_key : at), true, &rt->root, info);
    snprintf(at, sizeof(at), "%s/sluice.db", c->data);
    if (!e)
        e = store_open(at, &rt->store, info);
    if (e)
        return e;
    vault.store = rt->store;
    vault.root = rt->root;
    e = vault_open(&vault, &rt->engine.vault, info);
    if (!e && !c->no_auth && c->local_issuer)
        e = identity_local_open(c->data, STR(RUNTIME_LOCAL_ISSUER), true, &rt->local, info);
    if (e)
        return e;
    rt->engine.once = once_new(c->engine.once_ttl ? c->engine.once_ttl : 24 * 3600 * NS_PER_S);
    snprintf(at, sizeof(at), "%s/journal", c->data);
    journal.dir = at;
    e = journal_open(&journal, &rt->engine.journal, info);
    if (!e)
        e = recover_scan(at, rt->engine.once, world->wall_ms(), &rt->recovery, info);
    if (!e && recover_open(rt->recovery))
        LOG_WARN("calls of the process before have no outcome and are recorded as unknown or failed",
                 LOG_I("calls", (int64_t)recover_open(rt->recovery)));
    return e;
}

static enum err open_limiter(struct runtime *rt, struct errinfo *info)
{
    struct rl_config config = { .alarm = on_alarm, .alarm_arg = rt };
    enum err e;

    world->random(config.seed, sizeof(config.seed));
    rt->engine.limiter = rl_new(&config);
    if (!rt->engine.limiter)
        return err_set(info, E_IO, "no memory for the limiter");
    rt->engine.breakers = breakers_new((unsigned)rt->config->breaker_least,
                                        (unsigned)rt->config->repeats_percent);
    e = registry_take_rules(rt->registry, &rt->engine.budget_rules, info);
    if (e)
        return e;
    registry_apply_limits(rt->registry, rt->engine.limiter, world->now());
    e = limits_keep(rt->engine.limiter, rt->config->data, &rt->limits, info);
    registry_make_keys(rt->registry, rt->engine.limiter);       /* of the seed that was loaded */
    return e;
}

static enum err make_workers(struct runtime *rt, struct errinfo *info)
{
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    unsigned n = rt->config->workers                ? (unsigned)rt->config->workers
                 : cores > 0 && cores < WORKERS_MAX ? (unsigned)cores
                                                    : 1;

    rt->engine.workers = rt->workers;
    for (unsigned i = 0; i < n; i++) {
        struct seat *seat = &rt->seats[i];
        struct loop_options opt = { .id = i,
                                    .idle_poll = rt->config->idle_poll_us * NS_PER_US,
                                    .tasks_max = rt->engine.opt.calls_max ? rt->engine.opt.calls_max + 1024 : 17000 };
        enum err e = loop_create(&opt, &seat->loop, info);

        if (e)
            return e;
        *seat = (struct seat){ .rt = rt,
                               .worker = &rt->workers[i],
                               .loop = seat->loop,
                               .drain_mail.fn = drain_mail,
                               .swap_mail.fn = swap_mail,
                               .tick_mail.fn = tick_mail,
                               .clean = true };
        rt->workers[i] = (struct worker){ .id = i, .engine = &rt->engine, .loop = seat->loop,
                                         .overload.delay = rt->engine.opt.overload_delay };
        rt->engine.n_workers = i + 1;
    }
    return OK;
}

static enum err start_worker(struct runtime *rt, unsigned i, struct errinfo *info)
{
    struct seat *seat = &rt->seats[i];

    seat->worker->held = registry_hold(rt->registry);
    if (pthread_create(&seat->thread, NULL, seat_main, seat) != 0) {
        registry_leave(seat->worker->held);
        return err_set(info, E_IO, "cannot start the thread of worker %u", i);
    }
    seat->has_thread = true;
    pthread_mutex_lock(&rt->lock);
    while (seat->phase == STARTING)
        pthread_cond_wait(&rt->changed, &rt->lock);
    pthread_mutex_unlock(&rt->lock);
    if (seat->phase != RUNNING) {
        *info = seat->why;
        return E_IO;
    }
    return OK;
}

/* The port is bound before anything else is opened, so that a second engine leaves the first one's files alone.  With
 * SO_REUSEPORT a taken port is not an error to the kernel: a plain bind asks first. */
static enum err bind_endpoint(struct runtime *rt, struct errinfo *info)
{
    const struct config *c = rt->config;
    int probe;
    enum err e = net_listen(c->listen, false, &probe, info);

    if (e)
        return e;
    net_name(probe, false, rt->address);
    close(probe);
    e = net_listen(rt->address, true, &rt->listener, info);
    if (e)
        return e;
    if (c->public_url)
        snprintf(rt->mcp_url, sizeof(rt->mcp_url), "%s/mcp", c->public_url);
    else
        snprintf(rt->mcp_url, sizeof(rt->mcp_url), "%s://%s/mcp", c->tls_cert ? "https" : "http", rt->address);
    return OK;
}

static enum err open_mcp(struct runtime *rt, struct errinfo *info)
{
    const struct config *c = rt->config;
    struct mcp_options opt = { .engine = &rt->engine,
                               .public_url = c->public_url,
                               .listen = rt->address,
                               .hosts = c->hosts,
                               .origins = c->origins,
                               .no_auth = c->no_auth,
                               .tenant = c->tenant,
                               .user = c->user,
                               .agent = c->agent };

    return mcp_new(&opt, &rt->mcp, info);
}

enum err runtime_start(struct config *config, struct runtime **ret, struct errinfo *info)
{
    struct runtime *rt = calloc(1, sizeof(*rt));
    enum err e;

    ASSERT(rt != NULL);
    rt->config = config;
    rt->engine.opt = config->engine;
    pthread_mutex_init(&rt->lock, NULL);
    pthread_cond_init(&rt->changed, NULL);
    rt->listener = -1;
    e = config_check(config, info);
    if (!e)
        e = config_secrets(config, info);
    if (!e)
        e = bind_endpoint(rt, info);
    if (!e)
        e = snapshot_build(config, &rt->registry, info);
    if (!e)
        e = tls_of(config, &rt->tls, info);
    if (!e)
        e = open_shared(rt, info);
    if (!e)
        e = open_limiter(rt, info);
    if (!e)
        e = identity_setup(rt, config, false, info);
    if (!e)
        e = make_workers(rt, info);
    if (!e)
        e = open_mcp(rt, info);
    for (unsigned i = 0; !e && i < rt->engine.n_workers; i++)
        e = start_worker(rt, i, info);
    recover_free(rt->recovery);
    rt->recovery = NULL;
    if (e) {
        if (runtime_drain(rt))              /* else it stays: the process ends for this error */
            runtime_stop(rt);
        return e;
    }
    *ret = rt;
    return OK;
}

/* ---- end --------------------------------------------------------------------------------------------------------- */

static void release_shared(struct runtime *rt)
{
    mcp_free(rt->mcp);
    limits_kept(rt->limits);
    rl_free(rt->engine.limiter);
    breakers_free(rt->engine.breakers);
    journal_close(rt->engine.journal);
    once_free(rt->engine.once);
    if (rt->engine.identity)
        identity_destroy(rt->engine.identity);
    identity_local_close(rt->local);
    if (rt->engine.vault)
        vault_close(rt->engine.vault);
    if (rt->store)
        store_close(rt->store);
    secret_release(rt->root);
    registry_unref(rt->registry);
    http_tls_release(rt->tls);
    recover_free(rt->recovery);
    if (rt->listener >= 0)
        close(rt->listener);
    config_free(rt->config);
    pthread_mutex_destroy(&rt->lock);
    pthread_cond_destroy(&rt->changed);
    free(rt);
}

bool runtime_drain(struct runtime *rt)
{
    bool hung = false;

    if (rt->mcp)
        mcp_drain(rt->mcp);
    for (unsigned i = 0; i < rt->engine.n_workers; i++) {
        struct seat *seat = &rt->seats[i];

        if (seat->has_thread && seat->phase == RUNNING)
            loop_post(seat->loop, &seat->drain_mail);
    }
    pthread_mutex_lock(&rt->lock);
    for (unsigned i = 0; i < rt->engine.n_workers; i++)
        while (rt->seats[i].has_thread && rt->seats[i].phase < HUNG)
            pthread_cond_wait(&rt->changed, &rt->lock);
    for (unsigned i = 0; i < rt->engine.n_workers; i++)
        hung = hung || rt->seats[i].phase == HUNG;
    pthread_mutex_unlock(&rt->lock);
    return !hung;
}

bool runtime_stop(struct runtime *rt)
{
    bool clean = true;

    for (unsigned i = 0; i < rt->engine.n_workers; i++) {
        struct seat *seat = &rt->seats[i];

        ASSERT(!seat->has_thread || seat->phase == GONE);        /* drained: else this would wait for ever */
        if (seat->has_thread)
            pthread_join(seat->thread, NULL);
        clean = clean && seat->clean;
    }
    for (unsigned i = 0; i < rt->engine.n_workers; i++)
        loop_destroy(rt->seats[i].loop);        /* only now: a worker may post mail to another up to its own end */
    clean = clean && !atomic_load(&rt->failed);
    release_shared(rt);
    return clean;
}
