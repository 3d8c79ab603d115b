/*
 * cache.c -- tokens that were verified a moment ago
 *
 * Sets of eight entries, found by the token's SHA-256: a digest of the whole text, so that nothing short of a
 * collision can be mistaken for a verified token.  A full set gives up the entry that was used longest ago.  Bounded
 * by construction. 16 locks for all sets, held for the comparison of eight digests.
 *
 * An entry is refused (and dropped) past its time to live, past the token's own expiry, and when the epoch has moved
 * on: the epoch is raised whenever keys or configuration change.
 */
#include "identity/internal.h"

#include "base/crypto.h"

#include <stdlib.h>

enum { WAYS = 8, STRIPES = 16 };

struct entry {
    uint8_t digest[SHA256_LEN];
    struct caller *caller;          /* NULL: free */
    uint64_t epoch;
    wall_ms_t expires;
    ns_t until;
    uint64_t used;                  /* the stripe's count at the last use */
};

struct stripe {
    pthread_mutex_t lock;
    uint64_t clock;
    size_t count;
} __attribute__((aligned(64)));

struct token_cache {
    struct stripe stripes[STRIPES];
    size_t n_sets;
    struct entry *entries;
};

struct token_cache *cache_create(size_t max)
{
    struct token_cache *c = aligned_alloc(64, sizeof(*c));

    ASSERT(c);
    memset(c, 0, sizeof(*c));
    c->n_sets = max < WAYS ? 1 : max / WAYS;
    c->entries = calloc(c->n_sets * WAYS, sizeof(*c->entries));
    ASSERT(c->entries);
    for (size_t i = 0; i < STRIPES; i++)
        pthread_mutex_init(&c->stripes[i].lock, NULL);
    return c;
}

void cache_destroy(struct token_cache *c)
{
    cache_clear(c);
    for (size_t i = 0; i < STRIPES; i++)
        pthread_mutex_destroy(&c->stripes[i].lock);
    free(c->entries);
    free(c);
}

static struct entry *set_of(struct token_cache *c, const uint8_t digest[32], struct stripe **ret_stripe)
{
    uint64_t h;
    size_t set;

    memcpy(&h, digest + 8, sizeof(h));
    set = h % c->n_sets;
    *ret_stripe = &c->stripes[set % STRIPES];
    return c->entries + set * WAYS;
}

static void drop(struct stripe *s, struct entry *e)
{
    caller_release(e->caller);
    e->caller = NULL;
    s->count--;
}

struct caller *cache_get(struct token_cache *c, const uint8_t digest[32], uint64_t epoch, wall_ms_t now, ns_t mono)
{
    struct stripe *s;
    struct entry *e = set_of(c, digest, &s);
    struct caller *found = NULL;

    pthread_mutex_lock(&s->lock);
    for (size_t i = 0; i < WAYS; i++, e++) {
        if (!e->caller || memcmp(e->digest, digest, SHA256_LEN) != 0)
            continue;
        if (e->epoch != epoch || mono >= e->until || now >= e->expires) {
            drop(s, e);
        } else {
            e->used = ++s->clock;
            found = caller_ref(e->caller);
        }
        break;
    }
    pthread_mutex_unlock(&s->lock);
    return found;
}

void cache_put(struct token_cache *c, const uint8_t digest[32], uint64_t epoch, struct caller *caller,
    wall_ms_t expires,
    ns_t until)
{
    struct stripe *s;
    struct entry *set = set_of(c, digest, &s), *e = set;

    pthread_mutex_lock(&s->lock);
    for (size_t i = 0; i < WAYS; i++) {
        if (set[i].caller && memcmp(set[i].digest, digest, SHA256_LEN) == 0) {
            e = &set[i];
            break;
        }
        if (e->caller && (!set[i].caller || set[i].used < e->used))
            e = &set[i];
    }
    if (e->caller)
        drop(s, e);
    memcpy(e->digest, digest, SHA256_LEN);
    e->caller = caller_ref(caller);
    e->epoch = epoch;
    e->expires = expires;
    e->until = until;
    e->used = ++s->clock;
    s->count++;
    pthread_mutex_unlock(&s->lock);
}

void cache_clear(struct token_cache *c)
{
    for (size_t i = 0; i < STRIPES; i++)
        pthread_mutex_lock(&c->stripes[i].lock);
    for (size_t i = 0; i < c->n_sets * WAYS; i++) {
        if (c->entries[i].caller)
            drop(&c->stripes[i / WAYS % STRIPES], &c->entries[i]);
    }
    for (size_t i = 0; i < STRIPES; i++)
        pthread_mutex_unlock(&c->stripes[i].lock);
}

size_t cache_count(struct token_cache *c)
{
    size_t n = 0;

    for (size_t i = 0; i < STRIPES; i++) {
        pthread_mutex_lock(&c->stripes[i].lock);
        n += c->stripes[i].count;
        pthread_mutex_unlock(&c->stripes[i].lock);
    }
    return n;
}
