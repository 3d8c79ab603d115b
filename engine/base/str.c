/*
 * str.c -- views and growing buffers
 *
 * A buf that has overflowed takes nothing more until it is cleared or released: what it holds is a prefix of the
 * message, never a message with a hole.  A malloc that fails counts as overflow.
 */
#include "base/str.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/check.h"

enum { BUF_FIRST = 256 };

static unsigned char fold(char c)
{
    return (unsigned char)(c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c);
}

static uint64_t eight(const char *p)
{
    uint64_t v;

    memcpy(&v, p, 8);
    return v;
}

/* In each byte that is an ASCII letter its highest bit is set. */
static uint64_t letters8(uint64_t v)
{
    const uint64_t ones = 0x0101010101010101u;
    uint64_t low = (v | ones * 0x20) & ones * 0x7f;

    return (low + ones * (0x80 - 'a')) & ~(low + ones * (0x80 - 'z' - 1)) & ~v & ones * 0x80;
}

/* Texts of one meaning differ in the bit of case alone, and only in letters. Most that are compared differ in others,
 * or are written alike. */
static bool ieq8(const char *a, const char *b)
{
    const uint64_t cases = 0x2020202020202020u;
    uint64_t x = eight(a), differ = x ^ eight(b);

    return differ == 0 || ((differ & ~cases) == 0 && (differ << 2 & ~letters8(x)) == 0);
}

bool str_ieq_bytes(const char *a, const char *b, size_t n)
{
    size_t i = 0;

    for (; i + 8 <= n; i += 8) {
        if (!ieq8(a + i, b + i))
            return false;
    }
    if (n >= 8)
        return i == n || ieq8(a + n - 8, b + n - 8);
    for (; i < n; i++) {
        if (a[i] != b[i] && fold(a[i]) != fold(b[i]))
            return false;
    }
    return true;
}

bool str_starts(struct str s, struct str prefix)
{
    return s.len >= prefix.len && str_eq(str_n(s.p, prefix.len), prefix);
}

bool str_ends(struct str s, struct str suffix)
{
    return s.len >= suffix.len && (suffix.len == 0 || str_eq(str_n(s.p + (s.len - suffix.len), suffix.len), suffix));
}

int str_cmp(struct str a, struct str b)
{
    size_t n = a.len < b.len ? a.len : b.len;
    int d = n > 0 ? memcmp(a.p, b.p, n) : 0;

    return d ? d : (a.len > b.len) - (a.len < b.len);
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t';
}

struct str str_trim_blanks(struct str s)
{
    while (s.len > 0 && is_blank(s.p[s.len - 1]))
        s.len--;
    while (s.len > 0 && is_blank(*s.p)) {
        s.p++;
        s.len--;
    }
    return s;
}

struct str str_from(struct str s, size_t off)
{
    if (off > s.len)
        off = s.len;
    return off == 0 ? s : str_n(s.p + off, s.len - off);
}

bool str_cut(struct str s, char c, struct str *head, struct str *rest)
{
    const char *at = s.len > 0 ? memchr(s.p, c, s.len) : NULL;

    if (!at)
        return false;
    *head = str_n(s.p, (size_t)(at - s.p));
    *rest = str_n(at + 1, s.len - head->len - 1);
    return true;
}

bool str_to_u64(struct str s, uint64_t *ret)
{
    uint64_t v = 0;

    if (s.len == 0)
        return false;
    for (size_t i = 0; i < s.len; i++) {
        unsigned d = (unsigned char)s.p[i] - (unsigned)'0';

        if (d > 9 || __builtin_mul_overflow(v, (uint64_t)10, &v) || __builtin_add_overflow(v, (uint64_t)d, &v))
            return false;
    }
    *ret = v;
    return true;
}

struct str str_of_u64(char room[U64_DIGITS], uint64_t v)
{
    static const char pairs[] =
        "0001020304050607080910111213141516171819202122232425262728293031323334353637383940414243444546474849"
        "5051525354555657585960616263646566676869707172737475767778798081828384858687888990919293949596979899";
    char *end = room + U64_DIGITS, *d = end;

    for (; v >= 10; v /= 100) {
        d -= 2;
        memcpy(d, pairs + v % 100 * 2, 2);
    }
    if (v > 0 || d == end)
        *--d = (char)('0' + v);
    return str_n(d, (size_t)(end - d));
}

/* Length of the well-formed sequence of two to four bytes at p (n bytes are there), or 0. RFC 3629 section 4. */
static size_t utf8_sequence(const unsigned char *p, size_t n)
{
    unsigned char low = 0x80, high = 0xbf;      /* bounds of the second byte */
    size_t len;

    if (p[0] >= 0xc2 && p[0] <= 0xdf) {
        len = 2;
    } else if (p[0] >= 0xe0 && p[0] <= 0xef) {
        len = 3;
        if (p[0] == 0xe0)
            low = 0xa0;                         /* shorter forms exist below */
        if (p[0] == 0xed)
            high = 0x9f;                        /* surrogates above */
    } else if (p[0] >= 0xf0 && p[0] <= 0xf4) {
        len = 4;
        if (p[0] == 0xf0)
            low = 0x90;
        if (p[0] == 0xf4)
            high = 0x8f;                        /* nothing above U+10FFFF */
    } else {
        return 0;
    }
    if (n < len || p[1] < low || p[1] > high)
        return 0;
    for (size_t i = 2; i < len; i++) {
        if ((p[i] & 0xc0) != 0x80)
            return 0;
    }
    return len;
}

bool str_utf8_valid(struct str s)
{
    const unsigned char *p = (const unsigned char *)s.p;
    size_t n = s.len;

    while (n > 0) {
        size_t len = 1;

        if (n >= 8) {
            uint64_t word;

            memcpy(&word, p, 8);
            if ((word & 0x8080808080808080u) == 0) {
                p += 8;
                n -= 8;
                continue;
            }
        }
        if (*p >= 0x80)
            len = utf8_sequence(p, n);
        if (len == 0)
            return false;
        p += len;
        n -= len;
    }
    return true;
}

void buf_release(struct buf *b)
{
    if (b->p)                   /* many have had nothing to hold */
        free(b->p);
    *b = BUF_INIT(b->max);
}

void buf_clear(struct buf *b)
{
    b->len = 0;
    b->overflow = false;
}

char *buf_grow(struct buf *b, size_t n)
{
    size_t want, cap;
    char *p;

    ASSERT(b->len <= b->cap);
    if (b->overflow)
        return NULL;
    if (b->p && n <= b->cap - b->len)
        return b->p + b->len;
    if (__builtin_add_overflow(b->len, n, &want) || want > b->max) {
        b->overflow = true;
        return NULL;
    }
    cap = b->cap > b->max / 2 ? b->max : b->cap * 2;
    if (cap < BUF_FIRST)
        cap = b->max < BUF_FIRST ? b->max : BUF_FIRST;
    if (cap < want)
        cap = want;
    /* One byte more than `cap`: vsnprintf() always writes a NUL. */
    p = cap == SIZE_MAX ? NULL : b->p ? realloc(b->p, cap + 1) : malloc(cap + 1);
    if (!p) {
        b->overflow = true;
        return NULL;
    }
    b->p = p;
    b->cap = cap;
    return b->p + b->len;
}

void buf_add_u64(struct buf *b, uint64_t v)
{
    char room[U64_DIGITS];

    buf_add_str(b, str_of_u64(room, v));
}

void buf_add_i64(struct buf *b, int64_t v)
{
    if (v < 0)
        buf_add_str(b, STR("-"));
    buf_add_u64(b, v < 0 ? 0 - (uint64_t)v : (uint64_t)v);
}

void buf_addf(struct buf *b, const char *fmt, ...)
{
    size_t free_ = b->overflow || !b->p ? 0 : b->cap - b->len + 1;      /* the byte for the NUL included */
    va_list ap, again;
    int n;

    va_start(ap, fmt);
    va_copy(again, ap);
    n = vsnprintf(free_ ? b->p + b->len : NULL, free_, fmt, ap);
    ASSERT(n >= 0);
    if ((size_t)n < free_) {
        b->len += (size_t)n;
    } else if (n > 0 && buf_reserve(b, (size_t)n)) {
        vsnprintf(b->p + b->len, (size_t)n + 1, fmt, again);
        b->len += (size_t)n;
    }
    va_end(again);
    va_end(ap);
}

void buf_drop_front(struct buf *b, size_t n)
{
    ASSERT(n <= b->len);
    if (n == 0)
        return;
    b->len -= n;
    if (b->len > 0)
        memmove(b->p, b->p + n, b->len);
}

char *buf_take(struct buf *b, size_t *ret_len)
{
    char *p = b->p;

    *ret_len = b->len;
    *b = BUF_INIT(b->max);
    return p;
}
