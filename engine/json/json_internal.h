/*
 * json_internal.h -- what the files of this room share and nobody else sees: flags of a node, the scan of string bytes,
 * exact decimals.
 */
#ifndef JSON_INTERNAL_H
#define JSON_INTERNAL_H

#include "json/json.h"

/* JSON_PORTABLE leaves the vector code out: a test runs the other way on the machines that have it. */
#if defined(__SSE2__) && !defined(JSON_PORTABLE)
#define JSON_SSE2 1
#include <emmintrin.h>
#endif

/* Where the compiler would rather call, and saving registers costs more than what is done. */
#define ALWAYS_INLINE static inline __attribute__((always_inline))

enum {
    F_CHILD     = 1,            /* has a parent: may not be linked anywhere else */
    F_PLAIN     = 2,            /* a string valid in UTF-8 that needs no escape: written by one copy */
    F_KEY_PLAIN = 4,            /* the same of the key */
    F_ALIKE     = 8,            /* the parser's, while an object is open: two of its keys may be the same */
};

/* Up to here pairs are compared one by one; past it a table or a sort is used, so that no object costs its square. */
#define OBJECT_SMALL 16

/*
 * The value of a number, exactly: sign, digits without zeros at either end, and where the point stands:
 * 0.d1d2d3... * 10^point.  Zero has no digits, no sign and point 0.
 */
struct decimal {
    bool negative;
    uint32_t n;
    int64_t point;
    char digits[JSON_NUMBER_MAX];
};

/* `raw` follows the grammar of a JSON number and is at most JSON_NUMBER_MAX long (asserted). */
void decimal_from(struct decimal *d, struct str raw);
static inline bool decimal_integral(const struct decimal *d) { return d->point >= (int64_t)d->n; }

/* The nearest double of number text (same conditions), whatever the locale; infinite when out of range. */
double number_to_double(struct str raw);
/* Appends the canonical text of a number. */
void number_canonical(struct buf *out, const struct json *j);

static inline bool same_word(const char *a, const char *b)
{
    uint64_t x, y;

    memcpy(&x, a, 8);
    memcpy(&y, b, 8);
    return x == y;
}

/* Words at a time, the last of which may overlap the one before it. */
static inline bool same_bytes(const char *a, const char *b, size_t n)
{
    uint32_t x4, y4;

    if (n >= 8) {
        for (size_t i = 0; i < n - 8; i += 8)
            if (!same_word(a + i, b + i))
                return false;
        return same_word(a + n - 8, b + n - 8);
    }
    if (n >= 4) {
        memcpy(&x4, a, 4);
        memcpy(&y4, b, 4);
        if (x4 != y4)
            return false;
        memcpy(&x4, a + n - 4, 4);
        memcpy(&y4, b + n - 4, 4);
        return x4 == y4;
    }
    return n == 0 || (a[0] == b[0] && a[n / 2] == b[n / 2] && a[n - 1] == b[n - 1]);
}

/* Sorts members by the UTF-16 code units of their keys. */
void members_sort(const struct json **v, size_t n);

/* The length of the well-formed UTF-8 sequence of two bytes or more at p, 0 if there is none. */
static inline size_t utf8_multibyte(const unsigned char *p, const unsigned char *end)
{
    size_t left = (size_t)(end - p);
    unsigned c = p[0];

    if (left < 2 || (p[1] & 0xc0) != 0x80)
        return 0;
    if (c >= 0xc2 && c <= 0xdf)
        return 2;
    if (left < 3 || (p[2] & 0xc0) != 0x80)
        return 0;
    if (c == 0xe0)
        return p[1] >= 0xa0 ? 3 : 0;
    if (c == 0xed)
        return p[1] <= 0x9f ? 3 : 0;           /* above are the surrogates */
    if (c >= 0xe1 && c <= 0xef)
        return 3;
    if (left < 4 || (p[3] & 0xc0) != 0x80)
        return 0;
    if (c == 0xf0)
        return p[1] >= 0x90 ? 4 : 0;
    if (c == 0xf4)
        return p[1] <= 0x8f ? 4 : 0;
    return c >= 0xf1 && c <= 0xf3 ? 4 : 0;
}

static inline bool byte_special(unsigned char c)
{
    return c < 0x20 || c >= 0x80 || c == '"' || c == '\\';
}

/* Bit 7 of each special byte is set; of the bits set only the lowest is sure to be right (a borrow may set others). */
static inline uint64_t word_special(uint64_t x)
{
    const uint64_t ones = 0x0101010101010101u, high = 0x8080808080808080u;
    uint64_t quote = x ^ ones * '"', slash = x ^ ones * '\\';

    return (x | (x - ones * 0x20) | ((quote - ones) & ~quote) | ((slash - ones) & ~slash)) & high;
}

#ifdef JSON_SSE2
/* A bit for each of the 16 bytes that is special. */
static inline unsigned special_among(__m128i v)
{
    /* With its second bit turned over a control is still one, the quote is the 0x20 behind them, and nothing else is:
     * one comparison leaves out all of these. It is signed, so that it leaves out everything from 0x80, too. */
    __m128i text = _mm_cmpgt_epi8(_mm_xor_si128(v, _mm_set1_epi8(2)), _mm_set1_epi8(0x20));

    return (unsigned)_mm_movemask_epi8(_mm_andnot_si128(_mm_cmpeq_epi8(v, _mm_set1_epi8('\\')), text)) ^ 0xffff;
}

static inline unsigned special_at(const char *p)
{
    return special_among(_mm_loadu_si128((const __m128i *)(const void *)p));
}

/* How many of the 16 bytes are plain before the first special one: 16 if all are. */
static inline unsigned plain_run(__m128i v)
{
    return (unsigned)__builtin_ctz(special_among(v) | 1u << 16);
}
#endif

/*
 * The first byte in [p, end) that a JSON string cannot simply pass over: quote, backslash, control, or the start of a
 * multibyte sequence; `end` if there is none.  Never reads outside [p, end).
 */
static inline const char *scan_special(const char *p, const char *end)
{
#ifdef JSON_SSE2
    for (; end - p >= 16; p += 16) {
        unsigned special = special_at(p);

        if (special)
            return p + __builtin_ctzll(special);
    }
#endif
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    for (; end - p >= 8; p += 8) {
        uint64_t x, hit;

        memcpy(&x, p, 8);
        hit = word_special(x);
        if (hit)
            return p + (__builtin_ctzll(hit) >> 3);
    }
#endif
    while (p < end && !byte_special((unsigned char)*p))
        p++;
    return p;
}

#endif
