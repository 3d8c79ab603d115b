/*
 * schema_members.c -- finding a member's name in a table that was made at compile time
 *
 * Up to NAMES_FEW names are compared one by one, length first; more are hashed over all their bytes.  The hash needs no
 * secret: only the schema fills the table, at most a quarter of it, and a caller's names are only looked up.  Members
 * usually come in the order of the schema, so the caller's hint is tried first and mostly right.
 */
#include "base/check.h"
#include "json/schema_internal.h"

enum { NAMES_FEW = 8 };

static uint64_t mix(uint64_t a, uint64_t b)
{
    unsigned __int128 m = (unsigned __int128)(a ^ 0x9e3779b97f4a7c15u) * (b ^ 0xd1b54a32d192ed03u);

    return (uint64_t)m ^ (uint64_t)(m >> 64);
}

static uint32_t name_hash(struct str key)
{
    uint64_t h = key.len, word = 0;
    size_t i = 0;

    for (; key.len - i >= 8; i += 8) {
        memcpy(&word, key.p + i, 8);
        h = mix(h, word);
    }
    if (i < key.len) {
        word = 0;
        memcpy(&word, key.p + i, key.len - i);
        h = mix(h, word);
    }
    return (uint32_t)(h ^ h >> 32);
}

/* Names are short: a call of memcmp costs more than this. */
static inline bool same(struct str a, struct str b)
{
    uint64_t x, y;

    if (a.len != b.len)
        return false;
    if (a.len > 16 || a.len < 8) {
        for (size_t i = 0; i < a.len && i < 8; i++)
            if (a.p[i] != b.p[i])
                return false;
        return a.len <= 8 || memcmp(a.p + 8, b.p + 8, a.len - 8) == 0;
    }
    memcpy(&x, a.p, 8);
    memcpy(&y, b.p, 8);
    if (x != y)
        return false;
    memcpy(&x, a.p + a.len - 8, 8);
    memcpy(&y, b.p + b.len - 8, 8);
    return x == y;
}

uint32_t names_find(const struct names *names, struct str key, uint32_t hint)
{
    if (hint < names->n && same(names->keys[hint], key))
        return hint;
    if (!names->mask) {
        for (uint32_t i = 0; i < names->n; i++)
            if (same(names->keys[i], key))
                return i;
        return NAMES_ABSENT;
    }
    for (uint32_t at = name_hash(key) & names->mask;; at = (at + 1) & names->mask) {
        uint32_t slot = names->slots[at];

        if (!slot)
            return NAMES_ABSENT;
        if (same(names->keys[slot - 1], key))
            return slot - 1;
    }
}

bool names_build(struct arena *a, const struct str *keys, uint32_t n, struct names *ret)
{
    uint32_t size = 32, *slots;

    *ret = (struct names){ .n = n, .keys = keys };
    if (n <= NAMES_FEW)
        return true;
    ASSERT(n < UINT32_MAX / 8);
    while (size < n * 4)
        size *= 2;
    slots = ARENA_ARRAY(a, uint32_t, size);
    if (!slots)
        return false;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t at = name_hash(keys[i]) & (size - 1);

        while (slots[at])
            at = (at + 1) & (size - 1);
        slots[at] = i + 1;
    }
    ret->slots = slots;
    ret->mask = size - 1;
    return true;
}
