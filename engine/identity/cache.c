/*
 * cache.c -- tokens that were verified a moment ago
 *
 * Sets of eight entries, found by the token's SHA-256: a digest of the whole text, so that nothing short of a
 * collision can be mistaken for a verified token.  A full set gives up the entry that was used longest ago.  Bounded
 * by construction. 16 locks for all sets, held for a look at one set.
 *
 * A set begins with the first eight bytes of each of its digests, on a line of the processor's cache, and the callers
 * on another: they say which entry to look at, one more line, and the others stay where they are.  With many callers
 * all of it has left the caches: cache_expect() and cache_expect_entry() ask memory for it while other calls go on.
 *
 * An entry is refused (and dropped) past its time to live, past the token's own expiry, and when the epoch has moved
 * on: the epoch is raised whenever keys or configuration change.
 */
#include "identity/internal.h"

#include "base/ahead.h"
#include "base/crypto.h"

#include <stdlib.h>

enum { WAYS = 8, STRIPES = 16, TAG_LEN = 8 };

struct entry {
    uint8_t rest[SHA256_LEN - TAG_LEN]; /* of the digest, behind its tag */
    uint64_t epoch;
    wall_ms_t expires;
    ns_t until;
    uint64_t used;                  /* the stripe's count at the last use */
    uint64_t spare;                 /* fills the line */
};

/* What is looked at ahead is atomic: it may be changed meanwhile. */
struct set {
    _Atomic uint64_t tags[WAYS];    /* tag_of() each entry's digest */
    _Atomic(struct caller *) callers[WAYS];     /* NULL: the entry is free */
    struct entry entries[WAYS];
};

STATIC_ASSERT(sizeof(struct entry) == 64 && sizeof(uint64_t) == TAG_LEN, "an entry is a line");

struct stripe {
    pthread_mutex_t lock;
    uint64_t clock;
    size_t count;
} __attribute__((aligned(64)));

struct token_cache {
    struct stripe stripes[STRIPES];
    size_t n_sets;
    struct set *sets;
};

struct token_cache *cache_create(size_t max)
{
    struct token_cache *c = aligned_alloc(64, sizeof(*c));

    ASSERT(c);
    memset(c, 0, sizeof(*c));
    c->n_sets = max < WAYS ? 1 : max / WAYS;
    c->sets = calloc(c->n_sets, sizeof(*c->sets));
    ASSERT(c->sets);
    for (size_t i = 0; i < STRIPES; i++)
        pthread_mutex_init(&c->stripes[i].lock, NULL);
    return c;
}

void cache_destroy(struct token_cache *c)
{
    cache_clear(c);
    for (size_t i = 0; i < STRIPES; i++)
        pthread_mutex_destroy(&c->stripes[i].lock);
    free(c->sets);
    free(c);
}

static size_t set_number(const struct token_cache *c, const uint8_t digest[32])
{
    uint64_t h;

    memcpy(&h, digest + 8, sizeof(h));
    return h % c->n_sets;
}

static struct set *set_of(struct token_cache *c, const uint8_t digest[32], struct stripe **ret_stripe)
{
    size_t i = set_number(c, digest);

    *ret_stripe = &c->stripes[i % STRIPES];
    return &c->sets[i];
}

static uint64_t tag_of(const uint8_t digest[32])
{
    uint64_t tag;

    memcpy(&tag, digest, sizeof(tag));
    return tag;
}

/* Its entry's place in the set; WAYS: it has none. */
static size_t way_of(const struct set *set, const uint8_t digest[32])
{
    uint64_t tag = tag_of(digest);

    for (size_t i = 0; i < WAYS; i++) {
        const struct entry *e = &set->entries[i];

        if (set->tags[i] == tag && set->callers[i] && memcmp(e->rest, digest + TAG_LEN, sizeof(e->rest)) == 0)
            return i;
    }
    return WAYS;
}

void cache_expect(const struct token_cache *c, const uint8_t digest[32])
{
    ahead(&c->sets[set_number(c, digest)], offsetof(struct set, entries));
}

void cache_expect_entry(const struct token_cache *c, const uint8_t digest[32])
{
    const struct set *set = &c->sets[set_number(c, digest)];
    uint64_t tag = tag_of(digest);

    for (size_t i = 0; i < WAYS; i++) {
        if (atomic_load_explicit(&set->tags[i], memory_order_relaxed) != tag)
            continue;
        ahead(&set->entries[i], sizeof(set->entries[i]));
        caller_expect(atomic_load_explicit(&set->callers[i], memory_order_relaxed));
    }
}

/* Where a new one goes: a free place, or that of the entry that was used longest ago. */
static size_t way_for(const struct set *set)
{
    size_t at = 0;

    for (size_t i = 0; i < WAYS && set->callers[at]; i++) {
        if (!set->callers[i] || set->entries[i].used < set->entries[at].used)
            at = i;
    }
    return at;
}

static void drop(struct stripe *s, struct set *set, size_t way)
{
    caller_release(set->callers[way]);
    set->callers[way] = NULL;
    set->tags[way] = 0;
    s->count--;
}

struct caller *cache_get(struct token_cache *c, const uint8_t digest[32], uint64_t epoch, wall_ms_t now, ns_t mono)
{
    struct stripe *s;
    struct set *set = set_of(c, digest, &s);
    struct caller *found = NULL;
    size_t way;

    pthread_mutex_lock(&s->lock);
    way = way_of(set, digest);
    if (way < WAYS) {
        struct entry *e = &set->entries[way];

        if (e->epoch != epoch || mono >= e->until || now >= e->expires) {
            drop(s, set, way);
        } else {
            e->used = ++s->clock;
            found = caller_ref(set->callers[way]);
        }
    }
    pthread_mutex_unlock(&s->lock);
    return found;
}

void cache_put(struct token_cache *c, const uint8_t digest[32], uint64_t epoch, struct caller *caller,
    wall_ms_t expires,
    ns_t until)
{
    struct stripe *s;
    struct set *set = set_of(c, digest, &s);
    struct entry *e;
    size_t way;

    pthread_mutex_lock(&s->lock);
    way = way_of(set, digest);
    if (way == WAYS)
        way = way_for(set);
    e = &set->entries[way];
    if (set->callers[way])
        drop(s, set, way);
    memcpy(e->rest, digest + TAG_LEN, sizeof(e->rest));
    set->callers[way] = caller_ref(caller);
    e->epoch = epoch;
    e->expires = expires;
    e->until = until;
    e->used = ++s->clock;
    set->tags[way] = tag_of(digest);
    s->count++;
    pthread_mutex_unlock(&s->lock);
}

void cache_clear(struct token_cache *c)
{
    for (size_t i = 0; i < STRIPES; i++)
        pthread_mutex_lock(&c->stripes[i].lock);
    for (size_t i = 0; i < c->n_sets * WAYS; i++) {
        struct set *set = &c->sets[i / WAYS];

        if (set->callers[i % WAYS])
            drop(&c->stripes[i / WAYS % STRIPES], set, i % WAYS);
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
