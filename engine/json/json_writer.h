/*
 * json_writer.h -- what is written with: a buffer's ends at hand, few bytes copied without a call, and whether they are
 * plain
 */
#ifndef JSON_WRITER_H
#define JSON_WRITER_H

#include "json/json_internal.h"

/* The buffer's ends at hand: `p` runs ahead of b->len, which is set when more room is asked for, and when done. */
struct writer {
    struct buf *b;
    char *p, *end;
};

static inline void writer_start(struct writer *w, struct buf *b)
{
    w->b = b;
    w->p = b->p ? b->p + b->len : NULL;
    w->end = b->p && !b->overflow ? b->p + b->cap : w->p;
}

static inline void writer_stop(struct writer *w)
{
    if (w->p)
        w->b->len = (size_t)(w->p - w->b->p);
}

/* Room for n more bytes, which there was none for; false, and no room for anything: the buffer is full. */
bool writer_grow(struct writer *w, size_t n);

static inline bool room(struct writer *w, size_t n)
{
    return __builtin_expect((size_t)(w->end - w->p) >= n, 1) || writer_grow(w, n);
}

/* Most keys and values are a few bytes: those are copied without a call, by two halves that may overlap. */
enum { FEW = 32 };

/* Up to FEW bytes to `to`, and to `also` unless that is NULL. */
ALWAYS_INLINE void put_few_at(char *to, char *also, const char *from, size_t n)
{
    char head[16], tail[16];
    uint64_t head8, tail8;
    uint32_t head4, tail4;

    if (n >= 16) {
        memcpy(head, from, 16);
        memcpy(tail, from + n - 16, 16);
        memcpy(to, head, 16);
        memcpy(to + n - 16, tail, 16);
        if (also) {
            memcpy(also, head, 16);
            memcpy(also + n - 16, tail, 16);
        }
    } else if (n >= 8) {
        memcpy(&head8, from, 8);
        memcpy(&tail8, from + n - 8, 8);
        memcpy(to, &head8, 8);
        memcpy(to + n - 8, &tail8, 8);
        if (also) {
            memcpy(also, &head8, 8);
            memcpy(also + n - 8, &tail8, 8);
        }
    } else if (n >= 4) {
        memcpy(&head4, from, 4);
        memcpy(&tail4, from + n - 4, 4);
        memcpy(to, &head4, 4);
        memcpy(to + n - 4, &tail4, 4);
        if (also) {
            memcpy(also, &head4, 4);
            memcpy(also + n - 4, &tail4, 4);
        }
    } else if (n > 0) {
        char first = from[0], middle = from[n / 2], last = from[n - 1];

        to[0] = first;
        to[n / 2] = middle;
        to[n - 1] = last;
        if (also) {
            also[0] = first;
            also[n / 2] = middle;
            also[n - 1] = last;
        }
    }
}

static inline char *put_few(char *to, const char *from, size_t n)
{
    put_few_at(to, NULL, from, n);
    return to + n;
}

static inline void write_bytes(struct writer *w, const char *p, size_t n)
{
    if (n == 0 || !room(w, n))
        return;
    if (n <= FEW)
        put_few(w->p, p, n);
    else
        memcpy(w->p, p, n);
    w->p += n;
}

static inline void write_c(struct writer *w, char c)
{
    if (room(w, 1))
        *w->p++ = c;
}

static inline bool sixteen_plain(const char *p)
{
#ifdef JSON_SSE2
    return !special_at(p);
#else
    uint64_t head, tail;

    memcpy(&head, p, 8);
    memcpy(&tail, p + 8, 8);
    return !(word_special(head) | word_special(tail));
#endif
}

/* Are these up to FEW bytes all plain? So short are most strings, and the end of most others. */
static inline bool few_plain(const char *p, size_t n)
{
    uint64_t head = 0x2020202020202020u, tail = head;
    uint32_t head4, tail4;

    if (n >= 16)
        return sixteen_plain(p) && sixteen_plain(p + n - 16);
    if (n >= 8) {
        memcpy(&head, p, 8);
        memcpy(&tail, p + n - 8, 8);
    } else if (n >= 4) {
        memcpy(&head4, p, 4);
        memcpy(&tail4, p + n - 4, 4);
        head = (uint64_t)head4 << 32 | tail4;
    } else if (n > 0) {
        return !byte_special((unsigned char)p[0]) && !byte_special((unsigned char)p[n / 2]) &&
               !byte_special((unsigned char)p[n - 1]);
    }
#ifdef JSON_SSE2
    return !special_among(_mm_set_epi64x((int64_t)head, (int64_t)tail));
#else
    return !(word_special(head) | word_special(tail));
#endif
}

static inline bool is_plain(struct str s)
{
    return s.len <= FEW ? few_plain(s.p, s.len) : scan_special(s.p, s.p + s.len) == s.p + s.len;
}

/* The inside of a literal. */
void write_part(struct writer *w, struct str s);
/* A literal, and a colon behind it if it is a key. `plain`: that it needs no escape, is known. */
void write_string_slow(struct writer *w, struct str s, bool plain, bool is_key);

static inline bool is_container(const struct json *j)
{
    return json_is(j, JSON_OBJECT) || json_is(j, JSON_ARRAY);
}

/* Past the limit nothing more is taken: the text so far is no message. */
static inline void too_deep(struct writer *w)
{
    w->b->overflow = true;
    w->end = w->p;
}

#endif
