/*
 * ratelimit_bench.c -- what a permit costs
 *
 * Measures rl_acquire() + rl_release() of three keys (tenant, mailbox with concurrency, mailbox with a rate), none of
 * which blocks, in ns per pair, on this thread's CPU clock (so that neighbours on the machine weigh less):
 *
 *   hot        one tenant, one mailbox
 *   cold       a random one of N mailboxes (and of N/64 tenants) each time: every key is a cache miss
 *   threads    two threads at once on mailboxes of their own, sharing one tenant, or sharing nothing
 *
 * asked for in four ways: by id (the caller keeps the three ids), by id and place (it also keeps where each key was
 * found), by parts (the ids are made in the call from the tenant's name, 14 bytes, and the mailbox's, 35 bytes, hashed
 * within the tenant), and by three whole names of about 46 bytes each, which share nothing, so that each key has a lock
 * of its own.
 *
 * What making the names costs is measured by itself and taken off; and the memory of an idle key: what the process
 * grew by (resident), for everything.  Each figure is the least of ROUNDS short rounds: what the machine can do when
 * nobody else disturbs it; of two threads the median too, since they do disturb each other.
 *
 * The growth of a governed call's CPU from 1 to N accounts is given for a call of CALL_NS (argument 3, default 20000):
 * (call + cold) / (call + hot).
 *
 * Arguments: number of mailboxes (default 500000, which makes 1,000,000 mailbox keys), pairs per round (default 20000),
 * CPU of a whole call in ns (default 20000), seed (default 1).  Prints one line per figure: name, value, unit.
 */
#include <pthread.h>
#include <stdatomic.h>
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

enum how { BY_PLACE, BY_ID, BY_PARTS, BY_NAME };

struct run {
    struct rl *rl;
    struct box_ids *ids;
    enum how how;
    size_t first, nboxes;
    uint64_t state, pairs, made;
    int64_t now;                /* virtual: a microsecond per pair */
    bool only_make;             /* the names or ids, without asking */
    struct meeting *meeting;    /* of two threads; NULL: alone */
    double ns;
} __attribute__((aligned(128)));    /* of two threads, on lines of their own */

/* Two threads begin together, and who is done first stops the other: what is measured, both were there for. */
struct meeting {
    _Atomic unsigned ready;
    _Atomic bool done;
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

/* Sets the ids of the asks from the parts of the last name. */
static void ids_of(const struct rl *rl, struct names *n)
{
    struct rl_id tenant = rl_id_of(rl, n->text[2], 14);
    struct rl_id box = rl_id_sub(tenant, n->text[2] + 15, n->asks[2].key_len - 17);

    n->asks[0].id = tenant;
    n->asks[1].id = rl_id_nth(box, 1);
    n->asks[2].id = rl_id_nth(box, 2);
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
    if (r->how <= BY_ID) {
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
    uint64_t made;
    struct rl_waiter w;
    struct names names;

    names_init(&names);
    memset(&w, 0, sizeof(w));
    if (r->meeting) {
        atomic_fetch_add(&r->meeting->ready, 1);
        while (atomic_load(&r->meeting->ready) < 2)
            continue;
    }
    from = clock_ns(CLOCK_THREAD_CPUTIME_ID);
    for (made = 0; made < r->pairs; made++) {
        if (r->meeting && atomic_load_explicit(&r->meeting->done, memory_order_relaxed))
            break;
        box = ahead;
        ahead = draw(r);
        now += 1000;
        if (r->how > BY_ID && r->nboxes > 1)
            names_set(&names, box);
        for (int k = 0; r->how <= BY_ID && k < 3; k++) {
            names.asks[k].id = r->ids[box].id[k];
            names.asks[k].place = r->how == BY_PLACE ? &r->ids[box].place[k] : NULL;
        }
        __asm__ volatile("" : : "r"(&names) : "memory");
        if (r->only_make)
            continue;
        if (r->how == BY_PARTS)
            ids_of(r->rl, &names);
        if (rl_acquire(r->rl, &w, names.asks, 3, RL_FOREVER, now) != RL_GRANTED)
            abort();
        rl_release(r->rl, &w.permit, now);
    }
    r->ns = (double)(clock_ns(CLOCK_THREAD_CPUTIME_ID) - from) / (double)(made ? made : 1);
    r->made = made;
    r->now = now;
    if (r->meeting)
        atomic_store(&r->meeting->done, true);
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

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return x < y ? -1 : x > y;
}

/* The median of the rounds in which both really ran: in others one of them waited for a core. */
static void two_threads(const char *what, struct run *a, struct run *b)
{
    double ns[ROUNDS];
    size_t n = 0;

    for (int i = 0; i < ROUNDS; i++) {
        struct meeting m = { 0 };
        pthread_t t;

        a->meeting = b->meeting = &m;
        if (pthread_create(&t, NULL, pairs, b) != 0)
            abort();
        pairs(a);
        pthread_join(t, NULL);
        if (a->made > b->made / 2 && b->made > a->made / 2)
            ns[n++] = (a->ns + b->ns) / 2;
    }
    if (n == 0) {
        printf("%-44s          never did two run at once\n", what);
        return;
    }
    qsort(ns, n, sizeof(ns[0]), by_value);
    printf("%-44s %8.1f ns of CPU per pair, least %.1f\n", what, ns[n / 2], ns[0]);
}

/* On this thread, asking in one way for one of nboxes each time. */
static double alone(const char *what, struct run *r, enum how how, size_t nboxes)
{
    double ns;

    r->how = how;
    r->nboxes = nboxes;
    r->now += (int64_t)1 << 40;
    ns = asking(r);
    printf("%-44s %8.1f ns per pair\n", what, ns);
    return ns;
}

/* By id and place: one thread from mailbox 0 on, the other from `other` on. */
static void together(const char *what, struct run *r, size_t other, size_t nboxes)
{
    struct run a, b;

    r->how = BY_PLACE;
    r->nboxes = nboxes;
    r->now += (int64_t)1 << 40;
    a = b = *r;
    b.first = other;
    b.state = ~r->state;
    two_threads(what, &a, &b);
}

/* The first mailbox of another tenant, which is not by chance (1 in 64) under the lock of the first tenant. */
static size_t other_stripe(const struct box_ids *ids)
{
    size_t at = 64;

    while (ids[at].id[0].a >> 58 == ids[0].id[0].a >> 58)
        at += 64;
    return at;
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

/* Names every mailbox once, so that all are known; with `ids` by parts, and the ids come back for asking by id. */
static void know_all(struct rl *rl, struct box_ids *ids, size_t nboxes, int64_t now)
{
    struct names names;

    names_init(&names);
    for (size_t i = 0; i < nboxes; i++) {
        struct rl_waiter w = { 0 };

        names_set(&names, i);
        if (ids)
            ids_of(rl, &names);
        for (int k = 0; ids && k < 3; k++) {
            ids[i].id[k] = names.asks[k].id;
            names.asks[k].place = &ids[i].place[k];
        }
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
    struct run r;
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
    r = (struct run){ .rl = rl, .ids = ids, .nboxes = 1, .state = seed, .pairs = npairs };
    hot = alone("3 keys hot, by id and place", &r, BY_PLACE, 1);
    alone("3 keys hot, by id", &r, BY_ID, 1);
    alone("3 keys hot, by parts", &r, BY_PARTS, 1);
    together("3 keys hot, two threads, one tenant", &r, 1, 1);
    together("3 keys hot, two threads, own tenants", &r, other_stripe(ids), 1);
    cold = alone("3 keys cold, by id and place", &r, BY_PLACE, nboxes);
    alone("3 keys cold, by id", &r, BY_ID, nboxes);
    alone("3 keys cold, by parts", &r, BY_PARTS, nboxes);
    together("3 keys cold, two threads, own tenants", &r, nboxes / 2, nboxes / 2);
    printf("%-44s %8.4f times the CPU of a call of %.0f ns\n", "growth from 1 account to all of them",
           (call + cold) / (call + hot), call);
    rl_free(rl);
    r.rl = limiter(seed);
    know_all(r.rl, NULL, nboxes, r.now);
    alone("3 keys hot, by whole names", &r, BY_NAME, 1);
    alone("3 keys cold, by whole names", &r, BY_NAME, nboxes);
    rl_free(r.rl);
    free(ids);
    return 0;
}
