/*
 * hash.c -- bytes -> id: SipHash-1-3 with 128 bits of result
 *
 * Keyed, because who can name keys (a mailbox, a channel) must not be able to make them meet; 128 bits, because the
 * hash IS the key from here on: nothing else of it is kept, and two keys with one hash would be one key (of 2^24 keys,
 * once in 2^81 tries).  A part within a scope is hashed under the scope's id as the key: paths of different parts
 * cannot be made the same by moving a boundary.  Of such an id the bits that choose the stripe are the scope's, which
 * leaves 122, of keys of that scope.  Cannot fail.
 */
#include <string.h>

#include "internal.h"

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

/* The last 0 to 7 bytes as a number, without reading past the end. */
static inline uint64_t tail(const uint8_t *at, size_t n)
{
    uint64_t word = 0;
    uint32_t four;

    if (n >= 4) {
        memcpy(&four, at, 4);
        word = four;
        memcpy(&four, at + n - 4, 4);
        return word | (uint64_t)four << (8 * (n - 4));
    }
    if (n)
        word = at[0] | (uint64_t)at[n / 2] << (8 * (n / 2)) | (uint64_t)at[n - 1] << (8 * (n - 1));
    return word;
}

static inline struct rl_id sip(struct rl_id key, const void *p, size_t n)
{
    uint64_t a = key.a ^ 0x736f6d6570736575, b = key.b ^ 0x646f72616e646f6d ^ 0xee;
    uint64_t c = key.a ^ 0x6c7967656e657261, d = key.b ^ 0x7465646279746573;
    const uint8_t *at = p;
    size_t left = n;
    uint64_t word;
    struct rl_id id;

    for (; left >= 8; at += 8, left -= 8) {
        memcpy(&word, at, 8);
        d ^= word;
        SIP_ROUND(a, b, c, d);
        a ^= word;
    }
    word = (uint64_t)n << 56 | tail(at, left);
    d ^= word;
    SIP_ROUND(a, b, c, d);
    a ^= word;
    c ^= 0xee;
    SIP_ROUND(a, b, c, d);
    SIP_ROUND(a, b, c, d);
    SIP_ROUND(a, b, c, d);
    id.a = a ^ b ^ c ^ d;
    b ^= 0xdd;
    SIP_ROUND(a, b, c, d);
    SIP_ROUND(a, b, c, d);
    SIP_ROUND(a, b, c, d);
    id.b = a ^ b ^ c ^ d;
    id.b += (id.a | id.b) == 0;         /* both zero means none */
    return id;
}

struct rl_id rl_id_of(const struct rl *rl, const void *key, size_t len)
{
    return sip((struct rl_id){ rl->cfg.seed[0], rl->cfg.seed[1] }, key, len);
}

struct rl_id rl_id_sub(struct rl_id scope, const void *part, size_t len)
{
    struct rl_id id = sip(scope, part, len);

    id.a = (id.a & ~RL_STRIPE_BITS) | (scope.a & RL_STRIPE_BITS);
    id.b += (id.a | id.b) == 0;         /* both zero means none */
    return id;
}

/* Finds what a disk or a crash did to a file; it does not stop who can write it. */
uint64_t rl_checksum(const void *p, size_t n)
{
    return sip((struct rl_id){ 0x726c736176656431, 0 }, p, n).a;
}
