/*
 * ratelimit_bench.c -- what a permit costs
 *
 * Measures rl_acquire() + rl_release() of three keys (tenant, mailbox with concurrency, mailbox with a rate), none of
 * which blocks, in ns per pair, on this thread's CPU clock (so that neighbours on the machine weigh less):
 *
 *   hot        one tenant, one mailbox; asked for by id (the caller keeps ids of what it asks for often) and by name
 *              (about 46 bytes each, hashed in the call)
 *              or by id and place (it also keeps where the key was found)
 *   cold       a random one of N mailboxes (and of N/64 tenants) each time: every key is a cache miss
 *   threads    two threads at once on mailboxes of their own, sharing one tenant, or sharing nothing
 *
 * what making the names costs is measured by itself and taken off; and the memory of an idle key: what the process
 * grew by (resident), for everything.  Each figure is the least of ROUNDS short rounds: what the machine can do when
 * nobody else disturbs it.
 *
 * The growth of a governed call's CPU from 1 to N accounts is given for a call of CALL_NS (argument 3, default 20000):
 * (call + cold) / (call + hot).
 *
 * Arguments: number of mailboxes (default 500000, which makes 1,000,000 mailbox keys), pairs per round (default 20000),
 * CPU of a whole call in ns (default 20000), seed (default 1).  Prints one line per figure: name, value, unit.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "ratelimit/ratelimit.h"

#define ROUNDS 40

enum { RULE_TENANT, RULE_IN_FLIGHT, RULE_REQUESTS };

struct box_ids {
    struct rl_id id[3];
    uint32_t place[3];
};

struct run {
    struct rl *rl;
    struct box_ids *ids;        /* NULL: by name */
    size_t first, nboxes;
    uint64_t state, pairs;
    int64_t now;                /* virtual: a microsecond per pair */
    bool places;                /* and the caller remembers places */
    bool only_make;             /* the names or ids, without asking */
    double ns;
};

static int64_t clock_ns(clockid_t id)
{
    struct timespec t;

    clock_gettime(id, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static uint64_t next(uint64_t *state)
{
    uint64_t x = *state += 0x9e3779b97f4a7c15;

    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
    x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
    return x ^ (x >> 31);
}

/* ---- names */

struct names {
    char text[3][64];
    struct rl_ask asks[3];
};

static void number(char *at, size_t x)
{
    for (int i = 6; i >= 0; i--, x /= 10)
        at[i] = (char)('0' + x % 10);
}

static void names_init(struct names *n)
{
    snprintf(n->text[0], sizeof(n->text[0]), "tenant-%07d", 0);
    snprintf(n->text[1], sizeof(n->text[1]), "tenant-%07d|outlook|user-%07d@example.com|c", 0, 0);
    snprintf(n->text[2], sizeof(n->text[2]), "tenant-%07d|outlook|user-%07d@example.com|r", 0, 0);
    for (int i = 0; i < 3; i++)
        n->asks[i] = (struct rl_ask){ .key = n->text[i], .key_len = (uint16_t)strlen(n->text[i]),
                                      .rule = (uint16_t)(RULE_TENANT + i), .cost = 1 };
}

static void names_set(struct names *n, size_t box)
{
    for (int i = 0; i < 3; i++) {
        number(n->text[i] + 7, box / 64);
        if (i)
            number(n->text[i] + 28, box);
    }
}

/* ---- the limiter */

static struct rl *limiter(uint64_t seed)
{
    struct rl_config config = { .keys_max = (size_t)4 << 20, .seed = { seed, ~seed } };
    struct rl_rule tenant = { .rate = RL_RATE_BUCKET, .amount = (uint64_t)1 << 40, .window_ns = 600000000000 };
    struct rl_rule in_flight = { .concurrency = 4 };
    struct rl_rule requests = { .rate = RL_RATE_WINDOW, .amount = (uint64_t)1 << 40, .window_ns = 600000000000 };
    struct rl *rl = rl_new(&config);

    if (!rl || !rl_rule_set(rl, RULE_TENANT, &tenant, 0) || !rl_rule_set(rl, RULE_IN_FLIGHT, &in_flight, 0)
        || !rl_rule_set(rl, RULE_REQUESTS, &requests, 0))
        abort();
    return rl;
}

static size_t draw(struct run *r)
{
    size_t i = r->first + (r->nboxes == 1 ? 0 : next(&r->state) % r->nboxes);

    /* fetched one round ahead: a caller has just had them in hand, only the limiter's own state is cold */
    if (r->ids) {
        __builtin_prefetch(&r->ids[i]);
        __builtin_prefetch((char *)&r->ids[i + 1] - 1);
    }
    return i;
}

static void *pairs(void *arg)
{
    struct run *r = arg;
    int64_t from, now = r->now;
    size_t box, ahead = draw(r);
    struct rl_waiter w;
    struct names names;

    names_init(&names);
    memset(&w, 0, sizeof(w));
    from = clock_ns(CLOCK_THREAD_CPUTIME_ID);
    for (uint64_t i = 0; i < r->pairs; i++) {
        box = ahead;
        ahead = draw(r);
        now += 1000;
        if (r->ids) {
            for (int k = 0; k < 3; k++) {
                names.asks[k].id = r->ids[box].id[k];
                names.asks[k].place = r->places ? &r->ids[box].place[k] : NULL;
            }
        } else if (r->nboxes > 1) {
            names_set(&names, box);
        }
        __asm__ volatile("" : : "r"(&names) : "memory");
        if (r->only_make)
            continue;
        if (rl_acquire(r->rl, &w, names.asks, 3, RL_FOREVER, now) != RL_GRANTED)
            abort();
        rl_release(r->rl, &w.permit, now);
    }
    r->ns = (double)(clock_ns(CLOCK_THREAD_CPUTIME_ID) - from) / (double)r->pairs;
    r->now = now;
    return NULL;
}

static double least(struct run *r)
{
    double best = 1e9;

    for (int i = 0; i < ROUNDS; i++) {
        pairs(r);
        if (r->ns < best)
            best = r->ns;
    }
    return best;
}

static double asking(struct run *r)
{
    struct run make = *r;

    make.only_make = true;
    return least(r) - least(&make);
}

static void two_threads(const char *what, struct run a, struct run b)
{
    double best = 1e9;

    for (int i = 0; i < ROUNDS; i++) {
        pthread_t t;

        if (pthread_create(&t, NULL, pairs, &b) != 0)
            abort();
        pairs(&a);
        pthread_join(t, NULL);
        if ((a.ns + b.ns) / 2 < best)
            best = (a.ns + b.ns) / 2;
    }
    printf("%-44s %8.1f ns of CPU per pair\n", what, best);
}

static double resident(void)
{
    long pages = 0, all = 0;
    FILE *f = fopen("/proc/self/statm", "r");

    if (!f || fscanf(f, "%ld %ld", &all, &pages) != 2)
        abort();
    fclose(f);
    return (double)pages * (double)sysconf(_SC_PAGESIZE);
}

/* Names every mailbox once, so that all are known; the ids come back for asking by id. */
static void know_all(struct rl *rl, struct box_ids *ids, size_t nboxes, int64_t now)
{
    struct names names;

    names_init(&names);
    for (size_t i = 0; i < nboxes; i++) {
        struct rl_waiter w = { 0 };

        names_set(&names, i);
        for (int k = 0; k < 3; k++)
            ids[i].id[k] = rl_id_of(rl, names.asks[k].key, names.asks[k].key_len);
        for (int k = 0; k < 3; k++)
            names.asks[k].place = &ids[i].place[k];
        if (rl_acquire(rl, &w, names.asks, 3, RL_FOREVER, now) != RL_GRANTED)
            abort();
        rl_release(rl, &w.permit, now);
    }
}

int main(int argc, char **argv)
{
    size_t nboxes = argc > 1 ? strtoull(argv[1], NULL, 10) : 500000;
    uint64_t npairs = argc > 2 ? strtoull(argv[2], NULL, 10) : 20000;
    double call = argc > 3 ? strtod(argv[3], NULL) : 20000, hot, cold, grown;
    uint64_t seed = argc > 4 ? strtoull(argv[4], NULL, 10) : 1;
    struct box_ids *ids = calloc(nboxes, sizeof(*ids));
    struct rl *rl;
    struct run r, a, b;
    struct rl_stats stats;

    if (!ids || nboxes < 256)
        return 1;
    memset(ids, 1, nboxes * sizeof(*ids));      /* resident before the limiter is measured */
    rl = limiter(seed);
    grown = resident();
    printf("mailboxes %zu, pairs per round %llu, seed %llu\n", nboxes, (unsigned long long)npairs,
           (unsigned long long)seed);
    know_all(rl, ids, nboxes, 0);
    grown = resident() - grown;
    rl_stats(rl, &stats);
    printf("%-44s %8llu keys\n", "known", (unsigned long long)stats.keys);
    printf("%-44s %8.1f bytes\n", "an idle key, by the process's resident memory", grown / (double)stats.keys);
    printf("%-44s %8.1f bytes\n", "an idle key, by rl_stats()", (double)stats.bytes / (double)stats.keys);
    r = (struct run){ .rl = rl, .ids = ids, .nboxes = 1, .state = seed, .pairs = npairs, .places = true };
    printf("%-44s %8.1f ns per pair\n", "3 keys hot, by id and place", hot = asking(&r));
    r.places = false;
    printf("%-44s %8.1f ns per pair\n", "3 keys hot, by id", asking(&r));
    r.ids = NULL;
    printf("%-44s %8.1f ns per pair\n", "3 keys hot, by name", asking(&r));
    r.ids = ids;
    r.places = true;
    a = b = r;
    b.first = 1;
    two_threads("3 keys hot, two threads, one tenant", a, b);
    b.first = 64;
    two_threads("3 keys hot, two threads, own tenants", a, b);
    r.now *= 4;
    r.nboxes = nboxes;
    printf("%-44s %8.1f ns per pair\n", "3 keys cold, by id and place", cold = asking(&r));
    a = b = r;
    a.nboxes = b.nboxes = b.first = nboxes / 2;
    two_threads("3 keys cold, by id and place, two threads", a, b);
    r.now *= 4;
    r.places = false;
    printf("%-44s %8.1f ns per pair\n", "3 keys cold, by id", asking(&r));
    r.ids = NULL;
    printf("%-44s %8.1f ns per pair\n", "3 keys cold, by name", asking(&r));
    printf("%-44s %8.4f times the CPU of a call of %.0f ns\n", "growth from 1 account to all of them",
           (call + cold) / (call + hot), call);
    rl_free(rl);
    free(ids);
    return 0;
}
