/*
 * map.c -- linear probing over a power of two, SipHash-1-3 (Aumasson and Bernstein, 2012)
 *
 * One round per word and three at the end are what its authors give for tables, where a peer never sees a hash; nothing
 * here is a signature.
 *
 * At most three quarters of the slots are in use, deleted ones included, so a probe always meets an empty slot.  A full
 * table is rebuilt with at least twice the room its live entries need: a map of constant size under churn is rebuilt
 * at its own size, and the cost per insertion stays constant.
 */
#include "base/map.h"

#include <stdlib.h>
#include <sys/random.h>

#include "base/check.h"

enum { SLOT_EMPTY = 0, SLOT_DELETED = 1, CAP_FIRST = 16 };

static uint64_t seed0, seed1;

/* Maps filled by programs that never seed (tests, tools) are still keyed by chance. */
__attribute__((constructor)) static void seed_at_start(void)
{
    uint64_t k[2] = { 0 };
    ssize_t n = getrandom(k, sizeof(k), GRND_NONBLOCK);

    (void)n;    /* no entropy at early boot: hash_seed() comes before any peer */
    hash_seed(k[0], k[1]);
}

void hash_seed(uint64_t k0, uint64_t k1)
{
    seed0 = k0;
    seed1 = k1;
}

static inline uint64_t rotl(uint64_t x, int by)
{
    return x << by | x >> (64 - by);
}

struct sip {
    uint64_t v0, v1, v2, v3;
};

static inline void sip_round(struct sip *s)
{
    s->v0 += s->v1;
    s->v2 += s->v3;
    s->v1 = rotl(s->v1, 13) ^ s->v0;
    s->v3 = rotl(s->v3, 16) ^ s->v2;
    s->v0 = rotl(s->v0, 32);
    s->v2 += s->v1;
    s->v0 += s->v3;
    s->v1 = rotl(s->v1, 17) ^ s->v2;
    s->v3 = rotl(s->v3, 21) ^ s->v0;
    s->v2 = rotl(s->v2, 32);
}

static inline void sip_word(struct sip *s, uint64_t m)
{
    s->v3 ^= m;
    sip_round(s);
    s->v0 ^= m;
}

/* Words are little-endian; so is every machine this runs on. */
static inline uint64_t word_at(const unsigned char *p)
{
    uint64_t word;

    memcpy(&word, p, 8);
    return word;
}

/* The last n % 8 of n bytes. */
static inline uint64_t last_bytes(const unsigned char *p, size_t n)
{
    size_t left = n % 8;
    uint64_t word = 0;

    if (left == 0)
        return 0;
    if (n >= 8)
        return word_at(p + n - 8) >> (64 - 8 * left);
    while (left > 0)
        word = word << 8 | p[--left];
    return word;
}

static uint64_t siphash(uint64_t k0, uint64_t k1, const unsigned char *p, size_t n)
{
    struct sip s = {
        k0 ^ 0x736f6d6570736575u, k1 ^ 0x646f72616e646f6du, k0 ^ 0x6c7967656e657261u, k1 ^ 0x7465646279746573u,
    };
    size_t words = n / 8;

    for (size_t i = 0; i < words; i++)
        sip_word(&s, word_at(p + 8 * i));
    sip_word(&s, (uint64_t)n << 56 | last_bytes(p, n));
    s.v2 ^= 0xff;
    for (int i = 0; i < 3; i++)
        sip_round(&s);
    return s.v0 ^ s.v1 ^ s.v2 ^ s.v3;
}

STATIC_ASSERT(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "word_at() reads words as they lie");

uint64_t hash_bytes(const void *p, size_t n)
{
    uint64_t h = siphash(seed0, seed1, p, n);

    return h <= SLOT_DELETED ? h + 2 : h;
}

void map_release(struct map *m)
{
    free(m->slots);
    *m = MAP_INIT;
}

/*
 * By the high half: whoever spreads entries over several maps does so by the low one.  If both looked at the same bits,
 * the keys of one map would all begin in one of 64 places, and probes would walk through thousands.
 */
static size_t home(const struct map *m, uint64_t hash)
{
    return hash >> 32 & (m->cap - 1);
}

static struct map_slot *find(const struct map *m, uint64_t hash, struct str key)
{
    if (m->cap == 0)
        return NULL;
    for (size_t i = home(m, hash); m->slots[i].hash != SLOT_EMPTY; i = (i + 1) & (m->cap - 1)) {
        if (m->slots[i].hash == hash && str_eq(m->slots[i].key, key))
            return &m->slots[i];
    }
    return NULL;
}

/* The slot where an absent key goes: the first that is empty or deleted. */
static struct map_slot *find_room(struct map *m, uint64_t hash)
{
    size_t i = home(m, hash);

    while (m->slots[i].hash > SLOT_DELETED)
        i = (i + 1) & (m->cap - 1);
    return &m->slots[i];
}

static void rebuild(struct map *m)
{
    struct map old = *m;

    m->cap = CAP_FIRST;
    while (m->cap < (old.len + 1) * 2)
        m->cap *= 2;
    m->slots = calloc(m->cap, sizeof(*m->slots));
    ASSERT(m->slots);
    m->used = old.len;
    for (size_t i = 0; i < old.cap; i++) {
        if (old.slots[i].hash > SLOT_DELETED)
            *find_room(m, old.slots[i].hash) = old.slots[i];
    }
    free(old.slots);
}

void *map_get_hashed(const struct map *m, struct str key, uint64_t hash)
{
    struct map_slot *slot = find(m, hash, key);

    return slot ? slot->value : NULL;
}

const void *map_place(const struct map *m, uint64_t hash)
{
    return m->cap ? &m->slots[home(m, hash)] : NULL;
}

void *map_get(const struct map *m, struct str key)
{
    return m->len > 0 ? map_get_hashed(m, key, hash_bytes(key.p, key.len)) : NULL;
}

void *map_put(struct map *m, struct str key, void *value)
{
    uint64_t hash = hash_bytes(key.p, key.len);
    struct map_slot *slot = find(m, hash, key);

    if (slot) {
        void *before = slot->value;

        slot->key = key;        /* the old key may be about to die with the old value */
        slot->value = value;
        return before;
    }
    if (m->used >= m->cap / 4 * 3)
        rebuild(m);
    slot = find_room(m, hash);
    if (slot->hash == SLOT_EMPTY)
        m->used++;
    m->len++;
    *slot = (struct map_slot){ hash, key, value };
    return NULL;
}

void *map_del(struct map *m, struct str key)
{
    struct map_slot *slot = m->len > 0 ? find(m, hash_bytes(key.p, key.len), key) : NULL;
    size_t i, mask = m->cap - 1;
    void *value;

    if (!slot)
        return NULL;
    value = slot->value;
    *slot = (struct map_slot){ .hash = SLOT_DELETED };
    m->len--;
    /* No probe passes a deleted slot that stands before an empty one: it, and those before it, can be empty too. */
    i = (size_t)(slot - m->slots);
    while (m->slots[i].hash == SLOT_DELETED && m->slots[(i + 1) & mask].hash == SLOT_EMPTY) {
        m->slots[i].hash = SLOT_EMPTY;
        m->used--;
        i = (i - 1) & mask;
    }
    return value;
}

struct map_slot *map_next(const struct map *m, size_t *i)
{
    while (*i < m->cap) {
        struct map_slot *slot = &m->slots[(*i)++];

        if (slot->hash > SLOT_DELETED)
            return slot;
    }
    return NULL;
}
