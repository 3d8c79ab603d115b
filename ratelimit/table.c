/*
 * table.c -- bytes -> key, spread over stripes, bounded, forgetting what is idle
 *
 * Each stripe has a chained table that grows by linear hashing: every insert beyond one key per bucket splits one
 * bucket, so a table of a million keys never stops to rehash, and the index costs 8 to 16 bytes per key.
 *
 * The hash is SipHash-1-3 under a seed given by the owner: who can name keys (a mailbox, a channel) must not be able to
 * make them meet in one bucket.  Its top six bits choose the stripe, its low half the bucket.
 *
 * A key is idle when forgetting it changes no decision: bucket full, nothing in flight, nobody waiting, no pause.  When
 * keys_max is reached a new key takes the place of an idle one: of its own stripe first, then of any stripe whose lock
 * is free (try-lock, so the order of locks does not matter).  The search is bounded, so a table full of busy keys
 * answers "full" in bounded time.  Fails only so, or when memory is out.
 */
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "internal.h"

#define BUCKETS_MIN 8
#define BUCKETS_MAX ((uint32_t)1 << 28)
#define LOOK_HOME   128     /* buckets looked at for an idle key in the key's own stripe ... */
#define LOOK_OTHER  32      /* ... and in each other one */

#define SPINS       64

/* ---- hash */

static inline uint64_t rotl(uint64_t x, int b)
{
    return (x << b) | (x >> (64 - b));
}

#define SIP_ROUND(a, b, c, d)                                                                                          \
    do {                                                                                                               \
        a += b; b = rotl(b, 13); b ^= a; a = rotl(a, 32);                                                              \
        c += d; d = rotl(d, 16); d ^= c;                                                                               \
        a += d; d = rotl(d, 21); d ^= a;                                                                               \
        c += b; b = rotl(b, 17); b ^= c; c = rotl(c, 32);                                                              \
    } while (0)

uint64_t rl_hash(const struct rl *rl, const void *p, size_t n)
{
    uint64_t a = rl->cfg.seed[0] ^ 0x736f6d6570736575, b = rl->cfg.seed[1] ^ 0x646f72616e646f6d;
    uint64_t c = rl->cfg.seed[0] ^ 0x6c7967656e657261, d = rl->cfg.seed[1] ^ 0x7465646279746573;
    const uint8_t *at = p;
    size_t left = n;
    uint64_t word;

    for (; left >= 8; at += 8, left -= 8) {
        memcpy(&word, at, 8);
        d ^= word;
        SIP_ROUND(a, b, c, d);
        a ^= word;
    }
    word = (uint64_t)n << 56;
    for (size_t i = 0; i < left; i++)
        word |= (uint64_t)at[i] << (8 * i);
    d ^= word;
    SIP_ROUND(a, b, c, d);
    a ^= word;
    c ^= 0xff;
    SIP_ROUND(a, b, c, d);
    SIP_ROUND(a, b, c, d);
    SIP_ROUND(a, b, c, d);
    return a ^ b ^ c ^ d;
}

/* ---- locks: they are held for tens of nanoseconds, so threads that meet spin; a mutex that puts them to sleep was
   measured up to four times slower with two threads on one key. One exchange to take, one store to give back. */

static bool try_lock(struct rl_stripe *s)
{
    return !atomic_load_explicit(&s->locked, memory_order_relaxed)
           && !atomic_exchange_explicit(&s->locked, true, memory_order_acquire);
}

static void unlock(struct rl_stripe *s)
{
    atomic_store_explicit(&s->locked, false, memory_order_release);
}

/* The holder is some tens of nanoseconds from done, unless it was sent off its core: then let it run. */
static void __attribute__((noinline)) lock_slowly(struct rl_stripe *s)
{
    for (unsigned spins = 1; !try_lock(s); spins++) {
        if (spins % SPINS == 0)
            sched_yield();
#if defined(__x86_64__)
        else
            __builtin_ia32_pause();
#endif
    }
}

void rl_lock(struct rl *rl, uint64_t stripes)
{
    for (; stripes; stripes &= stripes - 1) {
        struct rl_stripe *s = &rl->stripes[__builtin_ctzll(stripes)];

        if (__builtin_expect(atomic_exchange_explicit(&s->locked, true, memory_order_acquire), 0))
            lock_slowly(s);
    }
}

void rl_unlock(struct rl *rl, uint64_t stripes)
{
    for (; stripes; stripes &= stripes - 1)
        unlock(&rl->stripes[__builtin_ctzll(stripes)]);
}

/* ---- the table of a stripe */

bool rl_table_init(struct rl_stripe *s)
{
    s->buckets = calloc(BUCKETS_MIN, sizeof(*s->buckets));
    s->n = s->half = s->room = BUCKETS_MIN;
    return s->buckets != NULL;
}

void rl_table_release(struct rl_stripe *s)
{
    for (uint32_t i = 0; s->buckets && i < s->n; i++) {
        while (s->buckets[i]) {
            struct rl_key *k = s->buckets[i];

            s->buckets[i] = k->next;
            free(k->line);
            free(k);
        }
    }
    free(s->buckets);
    s->buckets = NULL;
}

static uint32_t bucket_of(const struct rl_stripe *s, uint32_t hash)
{
    uint32_t i = hash & (2 * s->half - 1);

    return i < s->n ? i : hash & (s->half - 1);
}

struct rl_key **rl_bucket(struct rl_stripe *s, uint32_t hash)
{
    return &s->buckets[bucket_of(s, hash)];
}

struct rl_key *rl_table_find(struct rl_stripe *s, uint64_t hash, const void *p, size_t n)
{
    struct rl_key *k = *rl_bucket(s, (uint32_t)hash);

    while (k && (k->hash != (uint32_t)hash || k->len != n || memcmp(k->bytes, p, n) != 0))
        k = k->next;
    return k;
}

/* One more bucket: the one its keys came from so far is split. Without memory the chains just grow longer. */
static void grow(struct rl_stripe *s)
{
    struct rl_key **from, *k, *stay = NULL, *go = NULL;
    uint32_t fresh = s->n;

    if (fresh == s->room) {
        struct rl_key **more;

        if (s->room >= BUCKETS_MAX || !(more = realloc(s->buckets, 2 * (size_t)s->room * sizeof(*more))))
            return;
        s->buckets = more;
        s->room *= 2;
    }
    from = &s->buckets[fresh - s->half];
    while ((k = *from)) {
        *from = k->next;
        if ((k->hash & (2 * s->half - 1)) == fresh) {
            k->next = go;
            go = k;
        } else {
            k->next = stay;
            stay = k;
        }
    }
    *from = stay;
    s->buckets[fresh] = go;
    s->n++;
    if (s->n == 2 * s->half)
        s->half = s->n;
}

bool rl_key_idle(const struct rl_key *k, int64_t now)
{
    return !k->line && !k->pins && !k->in_flight && k->paused_until <= now && k->full_at <= now;
}

static void forget(struct rl *rl, struct rl_stripe *s, struct rl_key **at)
{
    struct rl_key *k = *at;

    *at = k->next;
    s->len--;
    s->key_bytes -= sizeof(*k) + k->len;
    s->counts.evicted++;
    atomic_fetch_sub_explicit(&rl->keys, 1, memory_order_relaxed);
    free(k);
}

/* Forgets one idle key, if the next `look` buckets have one: the first not used lately, else any. The lock is held. */
static bool evict(struct rl *rl, struct rl_stripe *s, uint32_t look, int64_t now)
{
    struct rl_key **second = NULL;

    for (uint32_t i = 0; i < look && i < s->n; i++) {
        s->hand = s->hand + 1 < s->n ? s->hand + 1 : 0;
        for (struct rl_key **at = &s->buckets[s->hand]; *at; at = &(*at)->next) {
            if (!rl_key_idle(*at, now))
                continue;
            if (!(*at)->recent) {
                forget(rl, s, at);
                return true;
            }
            (*at)->recent = false;
            second = at;
        }
    }
    if (second)
        forget(rl, s, second);
    return second != NULL;
}

static bool make_room(struct rl *rl, uint64_t held, unsigned home, int64_t now)
{
    if (evict(rl, &rl->stripes[home], LOOK_HOME, now))
        return true;
    for (unsigned i = 1; i < RL_STRIPES; i++) {
        unsigned other = (home + i) % RL_STRIPES;
        bool mine = held >> other & 1, done;

        if (!mine && !try_lock(&rl->stripes[other]))
            continue;
        done = evict(rl, &rl->stripes[other], LOOK_OTHER, now);
        if (!mine)
            unlock(&rl->stripes[other]);
        if (done)
            return true;
    }
    return false;
}

struct rl_key *rl_table_add(struct rl *rl, uint64_t held, uint64_t hash, const void *p, size_t n, int64_t now)
{
    unsigned stripe = RL_STRIPE_OF(hash);
    struct rl_stripe *s = &rl->stripes[stripe];
    struct rl_key *k, **at;

    RL_ASSERT(held >> stripe & 1);
    while (atomic_fetch_add_explicit(&rl->keys, 1, memory_order_relaxed) >= rl->cfg.keys_max) {
        atomic_fetch_sub_explicit(&rl->keys, 1, memory_order_relaxed);
        if (!make_room(rl, held, stripe, now))
            return NULL;
    }
    k = calloc(1, sizeof(*k) + n);
    if (!k) {
        atomic_fetch_sub_explicit(&rl->keys, 1, memory_order_relaxed);
        return NULL;
    }
    k->hash = (uint32_t)hash;
    k->stripe = (uint8_t)stripe;
    k->len = (uint16_t)n;
    k->full_at = now;
    k->paused_until = INT64_MIN;
    memcpy(k->bytes, p, n);
    at = rl_bucket(s, k->hash);
    k->next = *at;
    *at = k;
    s->key_bytes += sizeof(*k) + n;
    if (++s->len > s->n)
        grow(s);
    return k;
}
