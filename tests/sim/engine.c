/*
 * engine.c -- one life of an engine in the simulated world: assembled like runtime/ does it, watched, ended or killed
 *
 * The real rooms are put together here: store, vault, limiter, keys, journal with its recovery, registry, identity, one
 * or two workers.  A director task runs the life: it brings up the weather, lets the clients begin, reloads, decides
 * when the engine is told to stop or dies, and takes everything down; a task per worker follows it.  Dying means: at
 * one instant nothing reaches the outside any more, neither files nor provider nor clients; what the dead engine still
 * does is an orderly end that nobody sees and that frees its memory.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/check.h"
#include "base/metric.h"
#include "call/once.h"
#include "identity/identity.h"
#include "ratelimit/ratelimit.h"
#include "runtime/egress.h"
#include "runtime/recover.h"
#include "sim.h"
#include "simworld.h"
#include "store/store.h"
#include "upstream.h"
#include "vault/vault.h"

enum { LIFE_S_MAX = 1800, GRACE_S = 60 };

enum death { DEATH_NONE, DEATH_TIME, DEATH_EFFECT, DEATH_TOKEN, DEATH_EARLY, DEATH_STOP, DEATH_KINDS };
enum phase { PHASE_START, PHASE_WORK, PHASE_STOP, PHASE_CLOSE };

static struct {
    struct timer tick;
    struct mail tick_mail;
    bool tick_posted;
    struct recovery *recovery;
    struct secret *client_secret;
    enum death death;
    ns_t death_at;
    unsigned death_count; /* effects, or renewed tokens, until it */
    int fuse;             /* changes of files until it; -1: not lit */
    ns_t failed_at;
    enum phase phase;
    struct seat {
        struct mail news[PHASE_CLOSE + 1];
        struct wake wake;
    } seats[SIM_WORKERS_MAX];
    unsigned workers_up;
    unsigned steps; /* of the machine's clock, in permille of looks */
} life;

/* ---- dying ------------------------------------------------------------------------------------------------------- */

static void files_changed(void)
{
    if (life.fuse > 0 && --life.fuse == 0 && !simworld_dead()) {
        simworld_die();
        sim_trace("death");
    }
}

static void light_fuse(void)
{
    if (life.fuse < 0 && !simworld_dead())
        life.fuse = (int)dice_scale(&sim.dice, 1, 12);
}

static void something_happened(bool token)
{
    if (life.death == (token ? DEATH_TOKEN : DEATH_EFFECT) && life.death_count > 0 && --life.death_count == 0)
        light_fuse();
}

/* Before anything is opened: the earliest deaths come while a journal is being recovered. */
static void draw_death(void)
{
    life.fuse = -1;
    life.death = sim.calm ? DEATH_NONE : (enum death)dice_below(&sim.dice, DEATH_KINDS);
    life.death_at = simworld_now() + dice_scale(&sim.dice, NS_PER_MS, 60 * NS_PER_S);
    life.death_count = (unsigned)dice_scale(&sim.dice, 1, life.death == DEATH_TOKEN ? 6 : 40);
    if (life.death == DEATH_EARLY)
        life.fuse = (int)dice_scale(&sim.dice, 1, 150);
}

/* ---- assembling -------------------------------------------------------------------------------------------------- */

static void lane_failed(void *arg, unsigned lane, const char *why)
{
    sim.lane_failed = true;
    life.failed_at = loop_now();
    sim_trace("lane failed");
}

static void tick(struct timer *t)
{
    int64_t next = rl_tick(sim.engine.limiter, loop_now());

    if (next != RL_FOREVER && !sim.closing)
        timer_set(&life.tick, next, tick);
}

static void tick_by_mail(struct mail *m)
{
    life.tick_posted = false;
    if (!sim.closing)
        tick(&life.tick);
}

static void on_alarm(void *arg, int64_t at)
{
    if (life.tick_posted || !sim.started)
        return;
    life.tick_posted = true;
    loop_post(sim.workers[0].loop, &life.tick_mail);
}

/* Of this life: drawn once, kept over reloads. */
static struct admission_rule budget_tenant, budget_agent;

static enum err open_registry(struct registry **ret, struct errinfo *info)
{
    const char *const enabled[] = { "sim", "outlook", NULL };
    struct policy_source source = { STR("sim.cedar"), str_of(sim.policy) };
    const struct provider_setup setups[] = {
        { .name = "sim",
          .client_id = "simulated",
          .client_secret = life.client_secret,
          .limits = { { .name = "mailbox_requests", .amount = sim.rate, .concurrency = -1 } },
          .n_limits = 1 },
        { .name = "outlook", .client_id = "simulated", .client_secret = life.client_secret },
    };
    struct registry_options opt = { .setups = setups,
                                    .n_setups = ARRAY_LEN(setups),
                                    .enabled = enabled,
                                    .budgets = { [BUDGET_TENANT] = budget_tenant, [BUDGET_AGENT] = budget_agent } };
    enum err e = policy_set_parse(&source, 1, 0, &opt.policy, info);

    if (e)
        return e;
    e = registry_build(&opt, ret, info);
    policy_set_unref(opt.policy);
    return e;
}

static enum err open_identity(struct errinfo *info)
{
    struct str audience = STR(SIM_AUDIENCE);
    struct identity_config config = { .local_audiences = &audience, .n_local_audiences = 1 };
    enum err e = identity_local_open(SIM_DIR, STR("sim:local"), true, &sim.local, info);

    config.local = sim.local;
    return e ? e : identity_create(&config, &sim.engine.identity, info);
}

static enum err open_shared(struct errinfo *info)
{
    struct journal_options journal = { .dir = SIM_JOURNAL,
                                       .segment_bytes = sim.steady ? SIM_STEADY_SEGMENT : SIM_JOURNAL_SEGMENT,
                                       .checkpoint_every = 50,
                                       .failed = lane_failed,
                                       .build = "sim" };
    struct rl_config limiter = { .alarm = on_alarm, .seed = { sim.seed, 1 } };
    struct vault_config vault = { .http = egress_vault_http() };
    enum err e = vault_root_load(STR("file:" SIM_DIR "/root.key"), true, &sim.root, info);

    if (!e) /* the store makes its file with open(2), for its mode: this one is there, and SQLite's is ours */
        e = store_open("/dev/null", &sim.store, info);
    vault.store = sim.store;
    vault.root = sim.root;
    if (!e)
        e = vault_open(&vault, &sim.engine.vault, info);
    if (!e)
        e = open_identity(info);
    if (e)
        return e;
    sim.engine.once = once_new(24 * 3600 * NS_PER_S);
    sim.engine.limiter = rl_new(&limiter);
    ASSERT(sim.engine.once && sim.engine.limiter);
    e = journal_open(&journal, &sim.engine.journal, info);
    if (!e)
        e = recover_scan(SIM_JOURNAL, sim.engine.once, world->wall_ms(), &life.recovery, info);
    return e;
}

static enum err open_workers(struct errinfo *info)
{
    struct loop_options loop = { .tasks_max = 2048, .stack_size = 128 * 1024 };
    enum err e = OK;

    for (unsigned i = 0; i < sim.n_workers && !e; i++) {
        sim.workers[i] = (struct worker){ .id = i, .engine = &sim.engine, .held = registry_hold(sim.registry) };
        loop.id = i;
        e = loop_create(&loop, &sim.workers[i].loop, info);
    }
    return e;
}

static void assemble(void)
{
    struct dice early = dice_for(sim.seed + sim.life, "early");
    struct errinfo info = { "" };
    enum err e;

    sim.n_workers = (unsigned)dice_between(&sim.dice, 1, SIM_WORKERS_MAX);
    sim.engine = (struct engine){ .workers = sim.workers,
                                  .n_workers = sim.n_workers,
                                  .opt = { .record_arguments = dice_permille(&sim.dice, 500),
                                           .answer_reads_early = dice_permille(&early, 300) && !sim.steady } };
    budget_tenant = budget_agent = (struct admission_rule){ 0 };
    if (dice_permille(&sim.dice, 300) && !sim.steady)
        budget_agent = (struct admission_rule){ .at_once = dice_between(&sim.dice, 1, 8) };
    if (dice_permille(&sim.dice, 300) && !sim.steady)
        budget_tenant = (struct admission_rule){ .per_minute = dice_between(&sim.dice, 60, 600) };
    life.client_secret = secret_copy(UPSTREAM_SECRET, strlen(UPSTREAM_SECRET));
    e = open_registry(&sim.registry, &info);
    if (!e)
        e = open_shared(&info);
    if (!e)
        e = registry_take_rules(sim.registry, &sim.engine.budget_rules, &info);
    if (!e) {
        registry_apply_limits(sim.registry, sim.engine.limiter, world->now());
        registry_make_keys(sim.registry, sim.engine.limiter);
        e = open_workers(&info);
    }
    if (e)
        sim_violation("the engine does not start: %s: %s", err_name(e), info.text);
}

static void take_down(void)
{
    recover_free(life.recovery);
    for (unsigned i = 0; i < sim.n_workers; i++) {
        if (sim.workers[i].loop)
            loop_destroy(sim.workers[i].loop);
        registry_leave(sim.workers[i].held);
        sim.workers[i] = (struct worker){ 0 };
    }
    rl_free(sim.engine.limiter);
    journal_close(sim.engine.journal);
    once_free(sim.engine.once);
    if (sim.engine.identity)
        identity_destroy(sim.engine.identity);
    identity_local_close(sim.local);
    if (sim.engine.vault)
        vault_close(sim.engine.vault);
    store_close(sim.store);
    secret_release(sim.root);
    secret_release(life.client_secret);
    registry_unref(sim.registry);
    sim.engine = (struct engine){ 0 };
    sim.local = NULL;
    sim.store = NULL;
    sim.root = NULL;
    sim.registry = NULL;
}

/* ---- accounts ---------------------------------------------------------------------------------------------------- */

enum err await_connect(const char *provider, const char *tenant, const char *user)
{
    struct registry *registry = registry_ref(sim.registry); /* a reload may come meanwhile */
    const struct provider_conf *p = registry_provider(registry, str_of(provider));
    struct errinfo info = { "" };
    struct vault_callback back = { 0 };
    struct str url, id;
    struct arena a;
    char code[80];
    enum err e = await_vault_tenant(sim.engine.vault, str_of(tenant), &info);

    arena_init(&a, 256 * 1024);
    if (!e)
        e = await_vault_connect_begin(sim.engine.vault, &p->vault, str_of(tenant), str_of(user), STR(""),
                                      STR("https://sim.example/back"), &a, &url, &back.state, &info);
    upstream_code(str_of(provider), str_of(tenant), str_of(user), code);
    back.code = str_of(code);
    if (!e)
        e = await_vault_connect_finish(sim.engine.vault, &p->vault, &back, loop_now() + 30 * NS_PER_S, &a, &id, &info);
    if (e && sim.calm)
        sim_violation("%s/%s could not connect to %s: %s", tenant, user, provider, info.text);
    arena_release(&a);
    registry_unref(registry);
    return e;
}

/* E_ACCOUNT_MISSING: there is none. */
static enum err account_of(const char *provider, const char *tenant, const char *user, char id[80], bool *ret_connected)
{
    struct vault_account account;
    struct caller *who;
    struct arena a;
    enum err e = caller_named(str_of(tenant), str_of(user), STR("sim"), &who, NULL);

    if (e)
        return e;
    arena_init(&a, 64 * 1024);
    e = vault_account_find(sim.engine.vault, who, str_of(provider), STR_NULL, &a, &account);
    if (!e) {
        snprintf(id, 80, "%.*s", STR_ARG(account.id));
        *ret_connected = account.status == ACCOUNT_CONNECTED;
        vault_account_release(&account);
    }
    caller_release(who);
    arena_release(&a);
    return e;
}

static void await_accounts(void)
{
    for (unsigned i = 0; i < 2 * ARRAY_LEN(sim_tenants) * ARRAY_LEN(sim_users) && !simworld_dead(); i++) {
        const char *provider = sim_providers[i % 2], *tenant = sim_tenants[i / 2 % 2], *user = sim_users[i / 4];
        bool connected = false;
        char id[80];

        if (account_of(provider, tenant, user, id, &connected) || !connected)
            await_connect(provider, tenant, user);
    }
}

static void await_disconnect(void)
{
    const char *provider = sim_providers[dice_below(&sim.dice, 2)], *tenant = sim_tenants[dice_below(&sim.dice, 2)];
    const char *user = sim_users[dice_below(&sim.dice, 3)];
    struct registry *registry = registry_ref(sim.registry);
    const struct provider_conf *p = registry_provider(registry, str_of(provider));
    struct errinfo info = { "" };
    bool connected, revoked;
    char id[80];
    enum err e = account_of(provider, tenant, user, id, &connected);

    if (!e)
        e = await_vault_disconnect(sim.engine.vault, str_of(tenant), str_of(id), &p->vault, loop_now() + 5 * NS_PER_S,
                                   &revoked, &info);
    registry_unref(registry);
    if (!e)
        upstream_disconnected(str_of(provider), tenant, user);
    sim_trace("disconnect %s/%s from %s: %s", tenant, user, provider, err_name(e));
}

/* ---- the director ------------------------------------------------------------------------------------------------ */

static void storm(void)
{
    struct dice *d = &sim.dice;

    upstream_weather = (struct upstream_weather){
        .slow = dice_mood(d),
        .refuse = dice_mood(d),
        .lose_before = dice_mood(d),
        .lose_after = dice_mood(d),
        .late = dice_mood(d),
        .limited = dice_mood(d),
        .busy = dice_mood(d),
        .broken = dice_mood(d),
        .garbage = dice_mood(d),
        .garbled = dice_mood(d),
        .conflict = dice_mood(d),
        .refused = dice_mood(d),
        .redirect = dice_mood(d),
        .revoke = dice_mood(d) / 2,
        .token_refuse = dice_mood(d),
        .token_lose_before = dice_mood(d),
        .token_lose_after = dice_mood(d),
        .token_busy = dice_mood(d),
        .token_dead = dice_mood(d) / 2,
        .token_garbage = dice_mood(d),
    };
    simworld_weather = (struct simworld_weather){
        .slow = dice_mood(d),
        .hang = dice_mood(d) / 10,
        .ring_error = dice_mood(d) / 25,
        .file_error = dice_mood(d) / 10,
    };
    life.steps = dice_permille(d, 100) ? 5 : 0;
    if (dice_permille(d, 200))
        simworld_space(dice_scale(d, 1000, 400000));
}

static void calm_down(void)
{
    upstream_weather = (struct upstream_weather){ 0 };
    simworld_weather = (struct simworld_weather){ 0 };
    simworld_space(0);
}

/* Policies and limits again, as SIGHUP does it. */
static void reload(void)
{
    struct registry *next;
    struct errinfo info = { "" };

    if (open_registry(&next, &info) || registry_take_rules(next, &sim.engine.budget_rules, &info)) {
        sim_violation("no reload: %s", info.text);
        return;
    }
    registry_apply_limits(next, sim.engine.limiter, world->now());
    registry_make_keys(next, sim.engine.limiter);
    for (unsigned i = 0; i < sim.n_workers; i++) {
        registry_leave(sim.workers[i].held);
        sim.workers[i].held = registry_hold(next);
    }
    registry_unref(sim.registry);
    sim.registry = next;
    sim_trace("reloaded");
}

static bool watch(void)
{
    if (simworld_dead())
        return false;
    if (life.death == DEATH_TIME && loop_now() >= life.death_at)
        light_fuse();
    /* told that its lane has failed a process drains for a moment and ends; this one is killed on the way */
    if (sim.lane_failed && loop_now() >= life.failed_at + dice_between(&sim.dice, 0, 2 * NS_PER_S)) {
        simworld_die();
        sim_trace("death after the journal's");
        return false;
    }
    if (life.death == DEATH_STOP && loop_now() >= life.death_at)
        return false;
    return !clients_done();
}

static unsigned calls_in_flight(void)
{
    unsigned n = 0;

    for (unsigned i = 0; i < sim.n_workers; i++)
        n += sim.workers[i].calls;
    return n;
}

/* SIGTERM: newcomers are refused, calls in flight have a while to finish. */
static void await_drain(void)
{
    ns_t until = loop_now() + dice_scale(&sim.dice, NS_PER_MS, 10 * NS_PER_S);

    sim_trace("draining, %u calls", calls_in_flight());
    for (unsigned i = 0; i < sim.n_workers; i++)
        sim.workers[i].draining = true;
    while (calls_in_flight() > 0 && loop_now() < until && !simworld_dead() && !sim.lane_failed)
        await_sleep(loop_now() + 10 * NS_PER_MS);
}

/* Beside the clients' tasks and refreshes in the background a loop has its lane's three, the worker's, and the
 * director. */
static bool quiet(void)
{
    for (unsigned i = 0; i < sim.n_workers; i++)
        if (loop_tasks(sim.workers[i].loop) > (i == 0 ? 5 : 4))
            return false;
    return clients_running() == 0;
}

/* Everybody goes. What stays too long is said. */
static void await_quiet(void)
{
    ns_t until = loop_now() + GRACE_S * NS_PER_S;

    while (!quiet() && loop_now() < until)
        await_sleep(loop_now() + 5 * NS_PER_MS);
    if (!quiet())
        sim_violation("%u clients and %u tasks do not end", clients_running(), loop_tasks(sim.workers[0].loop));
}

static bool key_busy(void *arg, const struct rl_key_stats *s)
{
    if (s->in_flight || s->waiting)
        sim_violation("the limiter still counts %u in flight and %u waiting for %.*s", s->in_flight, s->waiting,
                      (int)s->key_len, (const char *)s->key);
    return true;
}

static void check_returned(void)
{
    rl_visit(sim.engine.limiter, false, loop_now(), key_busy, NULL);
    if (calls_in_flight())
        sim_violation("%u calls are still counted", calls_in_flight());
    if (metric_sum(M_CALLS_IN_FLIGHT) || metric_sum(M_LIMIT_WAITING))
        sim_violation("gauges do not come back to zero");
}

static void phase_news(struct mail *m)
{
    wake_fire(&life.seats[worker_self()->id].wake);
}

static void phase_begin(enum phase p)
{
    life.phase = p;
    for (unsigned i = 0; i < sim.n_workers; i++)
        loop_post(sim.workers[i].loop, &life.seats[i].news[p]);
}

static void await_phase(enum phase p)
{
    struct seat *seat = &life.seats[worker_self()->id];

    while (life.phase < p) {
        seat->wake = (struct wake){ 0 };
        await_wake(&seat->wake, NS_NEVER);
    }
}

static void worker_main(void *arg)
{
    await_phase(PHASE_WORK);
    clients_start();
    await_phase(PHASE_STOP);
    clients_stop();
    await_phase(PHASE_CLOSE);
    await_journal_lane_close(worker_self()->lane);
    loop_stop(loop_self());
}

static void director_main(void *arg)
{
    ns_t began = loop_now();
    struct errinfo info = { "" };

    if (await_recover_settle(life.recovery, worker_self()->lane, &info) && !simworld_dead() && !sim.lane_failed)
        sim_violation("%s", info.text);
    while (life.workers_up < sim.n_workers)
        await_sleep(loop_now() + NS_PER_MS);
    await_accounts();
    if (!sim.calm)
        storm();
    phase_begin(PHASE_WORK);
    await_sleep(loop_now() + 20 * NS_PER_MS);
    while (watch()) {
        await_sleep(loop_now() + 20 * NS_PER_MS);
        if (!sim.calm && dice_permille(&sim.dice, 2))
            storm();
        if (dice_permille(&sim.dice, 1))
            reload();
        if (!sim.calm && dice_permille(&sim.dice, 1))
            await_disconnect();
        if (!sim.calm && dice_permille(&sim.dice, life.steps))
            simworld_step_wall(dice_between(&sim.dice, -3600 * 1000, 3600 * 1000));
        if (loop_now() - began > LIFE_S_MAX * NS_PER_S) {
            if (sim.calm)
                sim_violation("clients are not done after %d s without any fault", LIFE_S_MAX);
            break;
        }
    }
    if (!simworld_dead() && !clients_done())
        await_drain();
    calm_down();
    sim.stopping = true;
    phase_begin(PHASE_STOP);
    await_quiet();
    check_returned();
    sim.closing = true;
    timer_clear(&life.tick);
    phase_begin(PHASE_CLOSE);
}

static void start(void *arg)
{
    struct worker *w = arg;
    struct errinfo info = { "" };
    enum err e;

    worker_enter(w);
    sim.started = true;
    e = journal_lane_open(sim.engine.journal, w->id, &w->lane, &info);
    if (e) {
        sim_violation("worker %u does not start: %s: %s", w->id, err_name(e), info.text);
        loop_stop(w->loop);
        return;
    }
    life.workers_up++;
    ASSERT(task_spawn("worker", worker_main, NULL) != NULL);
    if (w->id == 0)
        ASSERT(task_spawn("director", director_main, NULL) != NULL);
}

static void run_worker(void *arg)
{
    struct worker *w = arg;

    loop_run(w->loop, start, w);
}

static void *worker_thread(void *arg)
{
    struct worker *w = arg;

    simworld_run(w->id, run_worker, w);
    return NULL;
}

static void run_workers(void)
{
    pthread_t threads[SIM_WORKERS_MAX];

    for (unsigned i = 1; i < sim.n_workers; i++)
        ASSERT(pthread_create(&threads[i], NULL, worker_thread, &sim.workers[i]) == 0);
    worker_thread(&sim.workers[0]);
    for (unsigned i = 1; i < sim.n_workers; i++)
        pthread_join(threads[i], NULL);
}

bool engine_live(void)
{
    sim.lane_failed = sim.closing = sim.started = sim.stopping = false;
    memset(&life, 0, sizeof(life));
    life.tick_mail.fn = tick_by_mail;
    for (unsigned i = 0; i < SIM_WORKERS_MAX; i++)
        for (enum phase p = PHASE_START; p <= PHASE_CLOSE; p++)
            life.seats[i].news[p].fn = phase_news;
    simworld_changed = files_changed;
    upstream_happened = something_happened;
    upstream_new_life(sim.life);
    calm_down();
    draw_death();
    assemble();
    if (!sim.violations)
        run_workers();
    simworld_changed = NULL;
    take_down();
    upstream_end_life();
    return !simworld_dead() && clients_done();
}
