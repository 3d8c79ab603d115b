/*
 * sim_test.c -- runs of the simulated world, one per seed
 *
 *   sim_test                          300 seeds from 1 (or the one that SLUICE_SEED names)
 *   sim_test --seeds N --from S       N seeds from S
 *   sim_test --list FILE              the seeds of a file, one per line
 *   sim_test --twice ...              each seed twice: both runs must leave the same trace
 *   sim_test --tell ...               says what happens
 *   sim_test --steady                 agents that never stop, for a minute of a calm world: what of a limit is used
 *   sim_test --count ...              says how often clients heard which end: what the runs reach
 *
 * A run that finds something wrong prints its seed and what it found, and the program ends with 1.
 */
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/check.h"
#include "base/log.h"
#include "base/map.h"
#include "sim.h"
#include "simworld.h"
#include "tests/unit/memworld.h"
#include "upstream.h"

enum { STORMY_LIVES_MAX = 4, STEADY_WORLDS = 3, LOG_TAIL = 4000 };

struct sim sim;
static int terminal, log_fd; /* the real stderr; what the engine believes to be it */

/* ---- telling ----------------------------------------------------------------------------------------------------- */

static void say(const char *text)
{
    size_t n = strlen(text);

    while (n > 0) {
        ssize_t k = write(terminal, text, n);

        if (k <= 0)
            return;
        text += k;
        n -= (size_t)k;
    }
}

static void tell_log(void)
{
    static char tail[LOG_TAIL + 1];
    off_t end = lseek(log_fd, 0, SEEK_END), from = end > LOG_TAIL ? end - LOG_TAIL : 0;
    ssize_t n = pread(log_fd, tail, LOG_TAIL, from);

    tail[n > 0 ? n : 0] = '\0';
    say(tail);
}

static void on_abort(int sig)
{
    char line[200];

    tell_log();
    snprintf(line, sizeof(line), "seed=%" PRIu64 ": the engine aborted in life %u at %lld ms\n", sim.seed, sim.life,
             (long long)(simworld_now() / NS_PER_MS));
    say(line);
    signal(sig, SIG_DFL);
    raise(sig);
}

void sim_violation(const char *fmt, ...)
{
    char text[500], line[600];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    if (sim.violations++ == 0)
        snprintf(sim.first_violation, sizeof(sim.first_violation), "%s", text);
    if (sim.violations <= 10) {
        snprintf(line, sizeof(line), "seed=%" PRIu64 " life=%u at %lld ms: %s\n", sim.seed, sim.life,
                 (long long)(simworld_now() / NS_PER_MS), text);
        say(line);
    }
}

static void hash_bytes_in(const char *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        sim.trace_hash = (sim.trace_hash ^ (unsigned char)p[i]) * 0x100000001b3u;
}

void sim_trace(const char *fmt, ...)
{
    char text[600], line[700];
    va_list ap;
    int n;

    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    n = snprintf(line, sizeof(line), "%12.6f %s\n", (double)simworld_now() / 1e9, text);
    hash_bytes_in(line, (size_t)n);
    if (sim.verbose)
        say(line);
}

/* The log of a run is part of its trace, and must hold no token. */
static void check_log(void)
{
    static const char *const secrets[] = { UPSTREAM_ACCESS, UPSTREAM_REFRESH, UPSTREAM_SECRET };
    off_t n = lseek(log_fd, 0, SEEK_END);
    char *p = malloc((size_t)n + 1);

    ASSERT(p && pread(log_fd, p, (size_t)n, 0) == n);
    for (size_t i = 0; i < ARRAY_LEN(secrets); i++)
        if (memmem(p, (size_t)n, secrets[i], strlen(secrets[i])))
            sim_violation("a token is in the log");
    hash_bytes_in(p, (size_t)n);
    free(p);
}

/* ---- a run ------------------------------------------------------------------------------------------------------- */

static void live(bool calm)
{
    bool died;

    sim.life++;
    sim.calm = calm;
    sim_trace("life %u begins%s", sim.life, calm ? ", calm" : "");
    engine_live();
    died = simworld_dead();
    check_life(died);
    sim.crashes += died;
    if (died)
        simworld_crash(&sim.dice);
    else
        simworld_end();
}

/* In a calm world everybody gets what they want. */
static void add_probes(void)
{
    for (unsigned t = 0; t < 2; t++) {
        for (unsigned u = 0; u < 3; u++) {
            struct errand *o = &sim.ops[sim.n_ops];

            *o = (struct errand){ .number = 1000 + sim.n_ops,
                                  .tenant = sim_tenants[t],
                                  .user = sim_users[u],
                                  .agent = "helper",
                                  .tool = "sim.post",
                                  .subject = "plain",
                                  .copies = 1 };
            snprintf(o->key, sizeof(o->key), "probe");
            sim.n_ops++;
        }
    }
}

static void check_probes(void)
{
    for (unsigned i = sim.n_ops - 6; i < sim.n_ops; i++) {
        const struct errand *o = &sim.ops[i];
        const struct attempt *a = o->n_attempts ? &o->attempts[o->n_attempts - 1] : NULL;

        if (!a || !a->acked || a->outcome != OUTCOME_DONE)
            sim_violation("in a calm world %s/%s still gets nothing done: %s", o->tenant, o->user,
                          a ? err_name(a->err) : "never asked");
    }
}

/* A new world, with nothing in it but the provider. */
static void world_of(uint64_t seed)
{
    sim.seed = seed;
    sim.life = sim.violations = 0;
    sim.trace_hash = 0xcbf29ce484222325u;
    ASSERT(ftruncate(log_fd, 0) == 0 && lseek(log_fd, 0, SEEK_SET) == 0);
    sim.dice = dice_for(seed, "director");
    simworld_begin(seed);
    simvfs_begin();
    world->mkdir(SIM_DIR, 0700);
    world->mkdir("/dev", 0700);
    simworld_end();
    upstream_begin(seed);
}

static void run_seed(uint64_t seed)
{
    unsigned stormy;

    world_of(seed);
    clients_plan();
    sim.rate = dice_scale(&sim.dice, 5, 100);
    stormy = (unsigned)dice_between(&sim.dice, 0, STORMY_LIVES_MAX);
    for (unsigned i = 0; i < stormy && !sim.violations; i++)
        live(false);
    add_probes();
    if (!sim.violations)
        live(true);
    if (!sim.violations) {
        check_probes();
        check_run();
    }
    check_log();
    upstream_end();
    memworld_reset();
}

/* What came of a rate in all its worlds: 95 % must be used. One world's six mailboxes may have been slow six times: by
 * itself it may miss that by little. */
struct steady {
    double done, possible;
};

/*
 * Four at once and so many in ten seconds of each mailbox, counted as they arrive and to the letter (upstream.c), ten
 * agents at each, nobody else's noise: nearly all of it must be used, and by all of them alike.
 */
static void check_steady(struct steady *sum)
{
    double done = 0, squares = 0, possible = 6 * (double)sim.rate * 60 / 10, used, jain;
    unsigned long other = 0;

    for (unsigned i = 0; i < sim.n_ops; i++) {
        done += (double)sim.ops[i].done;
        squares += (double)sim.ops[i].done * (double)sim.ops[i].done;
        other += sim.ops[i].other;
    }
    used = 100 * done / possible;
    jain = squares > 0 ? done * done / (sim.n_ops * squares) : 0;
    printf("figures: a minute of %lld requests in 10 s and mailbox: %.0f of %.0f, %.1f %% used, Jain %.4f\n",
           (long long)sim.rate, done, possible, used, jain);
    if (used < 94 || used > 100)
        sim_violation("%.1f %% of what the provider allows was used", used);
    sum->done += done;
    sum->possible += possible;
    if (jain < 0.95)
        sim_violation("agents were not served alike: Jain's index is %.4f", jain);
    if (other)
        sim_violation("%lu calls did not end in done", other);
}

static bool told(void)
{
    char line[700];

    if (sim.violations == 0)
        return true;
    tell_log();
    snprintf(line, sizeof(line),
             "seed=%" PRIu64 ": %u violations, first: %s\n  again: SLUICE_SEED=%" PRIu64 " sim_test --tell\n", sim.seed,
             sim.violations, sim.first_violation, sim.seed);
    say(line);
    return false;
}

static bool run(uint64_t seed, bool twice)
{
    uint64_t first;

    run_seed(seed);
    first = sim.trace_hash;
    if (!sim.violations && twice) {
        run_seed(seed);
        if (sim.trace_hash != first)
            sim_violation("the same seed left two traces");
    }
    return told();
}

static bool run_steady(uint64_t seed)
{
    static const int64_t rates[] = { 20, 45, 90 };

    for (size_t i = 0; i < ARRAY_LEN(rates); i++) {
        struct steady sum = { 0 };

        for (unsigned k = 0; k < STEADY_WORLDS; k++) {
            bool last = k == STEADY_WORLDS - 1;

            world_of(seed + i + k * ARRAY_LEN(rates));
            sim.steady = true;
            sim.steady_until = 0;
            clients_plan_steady();
            sim.rate = rates[i];
            live(true);
            if (!sim.violations)
                check_steady(&sum);
            if (last && !sim.violations && 100 * sum.done / sum.possible < 95)
                sim_violation("%.1f %% of what the provider allows was used", 100 * sum.done / sum.possible);
            upstream_end();
            memworld_reset();
            if (!told())
                return false;
        }
    }
    return true;
}

/* ---- the program ------------------------------------------------------------------------------------------------- */

static void setup(void)
{
    terminal = dup(STDERR_FILENO);
    log_fd = memfd_create("log", MFD_CLOEXEC);
    ASSERT(terminal >= 0 && log_fd >= 0 && dup2(log_fd, STDERR_FILENO) >= 0);
    signal(SIGABRT, on_abort);
    log_setup(LOG_LEVEL_INFO, LOG_FORMAT_LOGFMT);
    hash_seed(1, 2);
    simvfs_install();
    world_use(&simworld);
    fetch_use(&upstream_fetch);
}

static bool run_list(const char *path, bool twice)
{
    FILE *f = fopen(path, "r");
    char line[200];
    bool good = f != NULL;

    while (f && good && fgets(line, sizeof(line), f))
        if (line[0] >= '0' && line[0] <= '9')
            good = run(strtoull(line, NULL, 10), twice);
    if (f)
        fclose(f);
    return good;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        { "seeds", required_argument, NULL, 'n' },
        { "from", required_argument, NULL, 'f' },
        { "list", required_argument, NULL, 'l' },
        { "twice", no_argument, NULL, '2' },
        { "tell", no_argument, NULL, 't' },
        { "count", no_argument, NULL, 'c' },
        { "steady", no_argument, NULL, 's' },
        { 0 },
    };
    const char *named = getenv("SLUICE_SEED"), *list = NULL;
    uint64_t from = named ? strtoull(named, NULL, 10) : 1, n = named ? 1 : 300;
    bool twice = false, count = false, steady = false, good = true;
    int c;

    while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (c) {
        case 'n':
            n = strtoull(optarg, NULL, 10);
            break;
        case 'f':
            from = strtoull(optarg, NULL, 10);
            break;
        case 'l':
            list = optarg;
            break;
        case '2':
            twice = true;
            break;
        case 't':
            sim.verbose = true;
            break;
        case 'c':
            count = true;
            break;
        case 's':
            steady = true;
            break;
        default:
            return 2;
        }
    }
    setup();
    printf("seed=%" PRIu64 "%s\n", from, n > 1 ? " and on" : "");
    fflush(stdout);
    if (list)
        good = run_list(list, twice);
    else if (steady)
        good = run_steady(from);
    for (uint64_t i = 0; !list && !steady && good && i < n; i++)
        good = run(from + i, twice);
    if (good && !list && !steady && n >= 100 && sim.told_early == 0) {
        printf("no read was answered while the device did not\n");
        good = false;
    }
    printf("%s: %llu calls, %llu effects, %llu deaths, %llu replays, %llu unknown, %llu refreshes, trace %016" PRIx64
           "\n",
           good ? "good" : "BAD", sim.calls, sim.effects, sim.crashes, sim.replays, sim.unknowns, sim.refreshes,
           sim.trace_hash);
    for (int e = 0; count && e < ERR_COUNT; e++)
        if (sim.heard[e])
            printf("%10llu %s\n", sim.heard[e], err_name((enum err)e));
    return good ? 0 : 1;
}
