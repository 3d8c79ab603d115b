/*
 * str.h -- views of bytes, and buffers that grow to a limit
 *
 * struct str is a view: it owns nothing and need not end in NUL.  struct buf owns heap bytes, grows up to `max`, and
 * when something does not fit it drops the write and remembers (`overflow`), so that a whole message is built first
 * and asked about once.
 */
#ifndef BASE_STR_H
#define BASE_STR_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct str {
    const char *p;
    size_t len;
};

#define STR(literal)    ((struct str){ "" literal, sizeof(literal) - 1 })
#define STR_NULL        ((struct str){ NULL, 0 })
/* for printf: "%.*s", STR_ARG(s) */
#define STR_ARG(s)      (int)((s).len > 0x7fffffff ? 0x7fffffff : (s).len), (s).p ? (s).p : ""

static inline struct str str_of(const char *z)              { return (struct str){ z, z ? strlen(z) : 0 }; }
static inline struct str str_n(const void *p, size_t n)     { return (struct str){ p, n }; }
static inline bool str_eq(struct str a, struct str b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.p, b.p, a.len) == 0);
}
static inline bool str_is(struct str a, const char *z)      { return str_eq(a, str_of(z)); }
static inline bool str_empty(struct str a)                  { return a.len == 0; }
bool str_ieq_bytes(const char *a, const char *b, size_t n); /* str_ieq() of two texts of one length */
static inline bool str_ieq(struct str a, struct str b)      /* ASCII case folded */
{
    /* letters that differ in case differ in that one bit: most others end here */
    return a.len == b.len && (a.len == 0 || (((a.p[0] ^ b.p[0]) & 0xdf) == 0 && str_ieq_bytes(a.p, b.p, a.len)));
}
bool str_starts(struct str s, struct str prefix);
bool str_ends(struct str s, struct str suffix);
int  str_cmp(struct str a, struct str b);                   /* by bytes, like memcmp */
struct str str_trim_blanks(struct str s);                   /* str_trim() where there may be something to take */
static inline struct str str_trim(struct str s)             /* SP and HTAB off both ends */
{
    return s.len == 0 || (s.p[0] > ' ' && s.p[s.len - 1] > ' ') ? s : str_trim_blanks(s);
}
struct str str_from(struct str s, size_t off);              /* the rest from off; empty past the end */
/* Splits off what stands before the first `c`: true and *head, *rest set; false if `c` does not occur. */
bool str_cut(struct str s, char c, struct str *head, struct str *rest);
/* Decimal digits only, no sign, no overflow: false otherwise. */
bool str_to_u64(struct str s, uint64_t *ret);
enum { U64_DIGITS = 20 };
struct str str_of_u64(char room[U64_DIGITS], uint64_t v);   /* decimal digits, in room */
bool str_utf8_valid(struct str s);                          /* RFC 3629: no surrogates, no overlong forms */

struct buf {
    char *p;
    size_t len, cap, max;
    bool overflow;
};

#define BUF_INIT(limit) ((struct buf){ NULL, 0, 0, (limit), false })

void buf_release(struct buf *b);                /* frees; the buf may be used again */
void buf_clear(struct buf *b);                  /* length 0, keeps the memory, clears overflow */
char *buf_grow(struct buf *b, size_t n);        /* buf_reserve() when the room is not there yet */
/* Room for n more bytes, or NULL and overflow set. */
static inline char *buf_reserve(struct buf *b, size_t n)
{
    if (__builtin_expect(n > 0 && n <= b->cap - b->len && !b->overflow, 1))
        return b->p + b->len;
    return buf_grow(b, n);
}
static inline void buf_add(struct buf *b, const void *p, size_t n)
{
    char *to = n > 0 ? buf_reserve(b, n) : NULL;

    if (to) {
        memcpy(to, p, n);
        b->len += n;
    }
}
static inline void buf_add_str(struct buf *b, struct str s) { buf_add(b, s.p, s.len); }
static inline void buf_add_z(struct buf *b, const char *z)  { buf_add(b, z, strlen(z)); }
static inline void buf_add_c(struct buf *b, char c)         { buf_add(b, &c, 1); }
void buf_add_u64(struct buf *b, uint64_t v);
void buf_add_i64(struct buf *b, int64_t v);
void buf_addf(struct buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void buf_drop_front(struct buf *b, size_t n);   /* removes the first n bytes */
static inline struct str buf_str(const struct buf *b) { return (struct str){ b->p, b->len }; }
/* Takes the heap bytes out of `b`; the caller frees them. */
char *buf_take(struct buf *b, size_t *ret_len);

#endif
