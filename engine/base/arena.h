/*
 * arena.h -- memory that lives as long as one call (or one parse)
 *
 * A bump allocator with a hard limit.  When the limit is passed every further allocation returns NULL and `overflow`
 * stays set; code that builds trees may go on with NULL (json's builders accept it) and the owner asks
 * arena_overflowed() once, at the end.  Nothing is freed one by one.  A red zone behind each chunk is checked at
 * release.
 */
#ifndef BASE_ARENA_H
#define BASE_ARENA_H

#include "base/poison.h"
#include "base/str.h"

enum { ARENA_STEP = 16 };           /* what every allocation is rounded up to and aligned to */

struct arena_chunk;

struct arena {
    struct arena_chunk *chunks;     /* newest first */
    char *next, *end;               /* the rest of the newest chunk: never more than the limit leaves */
    size_t used, max;               /* bytes asked for; the limit */
    bool overflow;
};

void arena_init(struct arena *a, size_t max);
/* Frees everything; the arena may be used again with the same limit. */
void arena_release(struct arena *a);
/* Forgets everything but keeps the newest chunk for reuse. */
void arena_clear(struct arena *a);
/* Gives back what was allocated since a mark: the scratch of one step. Nothing of it may be used any more. */
struct arena_mark {
    struct arena_chunk *chunk;
    char *next;
    size_t used;
};
static inline struct arena_mark arena_mark(const struct arena *a)
{
    return (struct arena_mark){ a->chunks, a->next, a->used };
}
void arena_rewind(struct arena *a, struct arena_mark mark);
static inline bool arena_overflowed(const struct arena *a) { return a->overflow; }

/* Room for n bytes in one piece, within the limit: what is asked for next does not need a chunk for each KB. A wish; it
 * fails nothing. */
void arena_expect(struct arena *a, size_t n);

void *arena_alloc_slow(struct arena *a, size_t n);  /* arena_alloc() when the newest chunk has no room for it */
/* Aligned to 16 bytes; contents undefined. NULL past the limit. */
static inline void *arena_alloc(struct arena *a, size_t n)
{
    size_t rounded = (n + ARENA_STEP - 1) & ~(size_t)(ARENA_STEP - 1);
    char *p = a->next;

    /* what is left is whole steps, so that n fits where it fits rounded; n - 1: nothing at all is the slow one's */
    if (__builtin_expect(n - 1 >= (size_t)(a->end - p) || a->overflow, 0))
        return arena_alloc_slow(a, n);
    a->next = p + rounded;
    a->used += rounded;
    unpoison(p, n);
    return p;
}
void *arena_zalloc(struct arena *a, size_t n);
#define ARENA_NEW(a, type)      ((type *)arena_zalloc((a), sizeof(type)))
#define ARENA_ARRAY(a, type, n) ((type *)arena_array((a), (n), sizeof(type)))
void *arena_array(struct arena *a, size_t n, size_t size);      /* zeroed; overflow of n * size is an overflow */

/* Copies; the copy is followed by a NUL that is not counted. Past the limit: { NULL, 0 }. */
struct str arena_str(struct arena *a, struct str s);
char *arena_z(struct arena *a, struct str s);
/* The parts, one behind the other. */
struct str arena_cat(struct arena *a, const struct str *parts, size_t n);
#define ARENA_CAT(a, ...) arena_cat((a), STR_LIST(__VA_ARGS__), sizeof(STR_LIST(__VA_ARGS__)) / sizeof(struct str))
#define STR_LIST(...) ((const struct str[]){ __VA_ARGS__ })
struct str arena_printf(struct arena *a, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
