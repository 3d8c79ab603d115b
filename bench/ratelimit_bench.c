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
 * and the memory of an idle key. Arguments: number of mailboxes (default 500000, which makes 1,000,000 mailbox keys),
 * pairs per run (default 2000000), seed (default 1). Prints one line per figure: name, value, unit. The best of
 * three runs counts.
 */
#include <malloc.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "ratelimit/ratelimit.h"

enum { RULE_TENANT, RULE_IN_FLIGHT, RULE_REQUESTS };

struct mailbox {
    char text[3][72];
    struct rl_ask asks[3];
};

struct run {
    struct rl *rl;
    struct mailbox *boxes;
    uint64_t state, pairs;
    size_t nboxes;
    int64_t now;                /* virtual: a microsecond per pair */
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

static void name_box(struct mailbox *b, size_t tenant, size_t box)
{
    snprintf(b->text[0], sizeof(b->text[0]), "tenant-%06zu", tenant);
    snprintf(b->text[1], sizeof(b->text[1]), "tenant-%06zu|outlook|user-%07zu@example.com|c", tenant, box);
    snprintf(b->text[2], sizeof(b->text[2]), "tenant-%06zu|outlook|user-%07zu@example.com|r", tenant, box);
    for (int i = 0; i < 3; i++)
        b->asks[i] = (struct rl_ask){ b->text[i], (uint16_t)strlen(b->text[i]), (uint16_t)(RULE_TENANT + i), 1 };
}

static struct rl *limiter(uint64_t seed)
{
    struct rl_config config = { .keys_max = (size_t)1 << 24, .seed = { seed, ~seed } };
    struct rl_rule tenant = { .rate = RL_RATE_BUCKET, .amount = (uint64_t)1 << 40, .window_ns = 600000000000 };
    struct rl_rule in_flight = { .concurrency = 4 };
    struct rl_rule requests = { .rate = RL_RATE_WINDOW, .amount = (uint64_t)1 << 40, .window_ns = 600000000000 };
    struct rl *rl = rl_new(&config);

    if (!rl || !rl_rule_set(rl, RULE_TENANT, &tenant, 0) || !rl_rule_set(rl, RULE_IN_FLIGHT, &in_flight, 0)
        || !rl_rule_set(rl, RULE_REQUESTS, &requests, 0))
        abort();
    return rl;
}

static struct mailbox *draw(struct run *r)
{
    struct mailbox *b = r->nboxes == 1 ? r->boxes : &r->boxes[next(&r->state) % r->nboxes];

    /* fetched one round ahead: a caller has just written the names it asks by, only the limiter's own state is cold */
    for (size_t at = 0; at < sizeof(*b); at += 64)
        __builtin_prefetch((char *)b + at);
    return b;
}

static void *pairs(void *arg)
{
    struct run *r = arg;
    int64_t from = clock_ns(CLOCK_THREAD_CPUTIME_ID);
    int64_t now = r->now;
    struct mailbox *b, *ahead = draw(r);
    struct rl_waiter w;

    memset(&w, 0, sizeof(w));
    for (uint64_t i = 0; i < r->pairs; i++) {
        b = ahead;
        ahead = draw(r);
        now += 1000;
        if (rl_acquire(r->rl, &w, b->asks, 3, RL_FOREVER, now) != RL_GRANTED)
            abort();
        rl_release(r->rl, &w.permit, now);
    }
    r->now = now;
    r->ns = (double)(clock_ns(CLOCK_THREAD_CPUTIME_ID) - from) / (double)r->pairs;
    return NULL;
}

static void two_threads(const char *what, struct run a, struct run b)
{
    double best = 1e9;

    for (int i = 0; i < 3; i++) {
        pthread_t t;

        if (pthread_create(&t, NULL, pairs, &b) != 0)
            abort();
        pairs(&a);
        pthread_join(t, NULL);
        if ((a.ns + b.ns) / 2 < best)
            best = (a.ns + b.ns) / 2;
    }
    printf("%-40s %8.1f ns of CPU per pair\n", what, best);
}

int main(int argc, char **argv)
{
    size_t nboxes = argc > 1 ? strtoull(argv[1], NULL, 10) : 500000;
    uint64_t npairs = argc > 2 ? strtoull(argv[2], NULL, 10) : 2000000;
    uint64_t seed = argc > 3 ? strtoull(argv[3], NULL, 10) : 1;
    struct mailbox *boxes = calloc(nboxes, sizeof(*boxes)), one[3];
    struct rl *rl = limiter(seed);
    struct run r = { rl, one, seed, npairs, 1, 0, 0 };
    double best = 1e9;
    int64_t now;
    size_t heap;
    struct rl_stats stats;

    if (!boxes || nboxes < 64)
        return 1;
    printf("mailboxes %zu, pairs %llu, seed %llu\n", nboxes, (unsigned long long)npairs, (unsigned long long)seed);
    name_box(&one[0], 999999, 1);
    name_box(&one[1], 999999, 2);
    name_box(&one[2], 999998, 3);
    for (int i = 0; i < 3; i++, best = r.ns < best ? r.ns : best)
        pairs(&r);
    printf("%-40s %8.1f ns per pair\n", "3 keys hot", best);
    now = r.now;
    two_threads("3 keys hot, two threads, one tenant", (struct run){ rl, &one[0], seed, npairs, 1, now, 0 },
                (struct run){ rl, &one[1], seed, npairs, 1, now, 0 });
    now += 3000 * (int64_t)npairs;
    two_threads("3 keys hot, two threads, nothing shared", (struct run){ rl, &one[0], seed, npairs, 1, now, 0 },
                (struct run){ rl, &one[2], seed, npairs, 1, now, 0 });

    now += 3000 * (int64_t)npairs;
    for (size_t i = 0; i < nboxes; i++)
        name_box(&boxes[i], i / 64, i);
    heap = mallinfo2().uordblks + mallinfo2().hblkhd;
    for (size_t i = 0; i < nboxes; i++) {
        struct rl_waiter w = { 0 };

        if (rl_acquire(rl, &w, boxes[i].asks, 3, RL_FOREVER, now) != RL_GRANTED)
            abort();
        rl_release(rl, &w.permit, now);
    }
    heap = mallinfo2().uordblks + mallinfo2().hblkhd - heap;
    rl_stats(rl, &stats);
    printf("%-40s %8llu keys\n", "known", (unsigned long long)stats.keys);
    printf("%-40s %8.1f bytes\n", "idle key, its own bytes (about 46) too", (double)stats.bytes / (double)stats.keys);
    if (heap)
        printf("%-40s %8.1f bytes\n", "idle key, as the C library's heap saw it", (double)heap / (double)stats.keys);
    r = (struct run){ rl, boxes, seed, npairs, nboxes, now, 0 };
    best = 1e9;
    for (int i = 0; i < 3; i++, best = r.ns < best ? r.ns : best)
        pairs(&r);
    printf("%-40s %8.1f ns per pair\n", "3 keys cold", best);
    rl_free(rl);
    free(boxes);
    return 0;
}
