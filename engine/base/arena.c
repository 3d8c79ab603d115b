/*
 * arena.c -- chunks of half of what is held, 16-byte steps, a canary behind each chunk
 *
 *   chunk: [ data, `size` bytes | struct arena_chunk: canary, older, size ]
 *
 * What releasing a chunk asks for is its last 32 bytes, one cache line: most that is released has waited long, and has
 * left the caches.  The canary stands before what it vouches for.
 *
 * The limit counts what is handed out, rounded to 16: memory held is at most the limit plus what is lost at chunk ends.
 * Fails in one way: NULL and `overflow` (also when malloc has nothing).
 */
#include "base/arena.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/check.h"

enum { STEP = ARENA_STEP, CANARY_LEN = 16 };
/* What malloc is asked for, so that a chunk fills a size class: the least, the most, and the grain between. */
enum { BLOCK_FIRST = 1536, BLOCK_MAX = 256 * 1024, BLOCK_GRAIN = 512 };

struct arena_chunk {
    uint8_t canary[CANARY_LEN];
    struct arena_chunk *older;
    size_t size;
};

enum { OVERHEAD = sizeof(struct arena_chunk) };

STATIC_ASSERT(OVERHEAD % STEP == 0, "a block is filled up with whole steps");

static const uint8_t canary[CANARY_LEN] = {
    0xa7, 0x5e, 0x11, 0xd0, 0x9b, 0x42, 0xee, 0x6c, 0x3d, 0xf8, 0x07, 0xb1, 0xc5, 0x2a, 0x94, 0x63,
};

static char *chunk_data(struct arena_chunk *c)
{
    return (char *)c - c->size;
}

static void chunk_check(struct arena_chunk *c)
{
    unpoison(c->canary, CANARY_LEN);
    ASSERT(memcmp(c->canary, canary, CANARY_LEN) == 0);
    unpoison(chunk_data(c), c->size);
}

static void chunk_free(struct arena_chunk *c)
{
    chunk_check(c);
    free(chunk_data(c));
}

static void chunk_open(struct arena *a, struct arena_chunk *c)
{
    a->next = chunk_data(c);
    a->end = (char *)c;
    poison(a->next, c->size + CANARY_LEN);
}

void arena_init(struct arena *a, size_t max)
{
    *a = (struct arena){ .max = max };
}

void arena_release(struct arena *a)
{
    struct arena_chunk *c = a->chunks;

    while (c) {
        struct arena_chunk *older = c->older;

        chunk_free(c);
        c = older;
    }
    arena_init(a, a->max);
}

void arena_clear(struct arena *a)
{
    struct arena_chunk *newest = a->chunks;
    struct arena older = { .chunks = newest ? newest->older : NULL };

    arena_release(&older);
    arena_init(a, a->max);
    if (!newest)
        return;
    chunk_check(newest);
    newest->older = NULL;
    a->chunks = newest;
    chunk_open(a, newest);
}

void arena_rewind(struct arena *a, struct arena_mark mark)
{
    while (a->chunks != mark.chunk) {
        struct arena_chunk *newest = a->chunks;

        ASSERT(newest != NULL);
        a->chunks = newest->older;
        chunk_free(newest);
    }
    a->next = mark.next;
    a->end = (char *)a->chunks;
    a->used = mark.used;
    if (a->next)
        poison(a->next, (size_t)(a->end - a->next));
}

/* A chunk that holds at least n (a multiple of STEP, within the limit). */
static bool add_chunk(struct arena *a, size_t n)
{
    size_t left = (a->max - a->used) & ~(size_t)(STEP - 1);
    size_t block = (a->used / 2 + BLOCK_GRAIN - 1) & ~(size_t)(BLOCK_GRAIN - 1), size;
    struct arena_chunk *c;
    char *data;

    /* Half of what is in use: most calls have three small chunks while they wait, large ones few. */
    block = block < BLOCK_FIRST ? BLOCK_FIRST : block > BLOCK_MAX ? BLOCK_MAX : block;
    size = block - OVERHEAD;
    if (size > left)
        size = left;
    if (size < n)
        size = n;
    data = size <= SIZE_MAX - OVERHEAD ? malloc(size + OVERHEAD) : NULL;
    if (!data)
        return false;
    c = (struct arena_chunk *)(void *)(data + size);
    *c = (struct arena_chunk){ .older = a->chunks, .size = size };
    memcpy(c->canary, canary, CANARY_LEN);
    a->chunks = c;
    chunk_open(a, c);
    return true;
}

void arena_expect(struct arena *a, size_t n)
{
    size_t rounded = n & ~(size_t)(STEP - 1);

    if (!a->overflow && (size_t)(a->end - a->next) < rounded && a->used <= a->max && rounded <= a->max - a->used)
        add_chunk(a, rounded);
}

void *arena_alloc_slow(struct arena *a, size_t n)
{
    size_t rounded = n == 0 ? STEP : (n + STEP - 1) & ~(size_t)(STEP - 1);
    char *p;

    if (a->overflow)
        return NULL;
    if (rounded < n || a->used > a->max || rounded > a->max - a->used) {
        a->overflow = true;
        return NULL;
    }
    if ((size_t)(a->end - a->next) < rounded && !add_chunk(a, rounded)) {
        a->overflow = true;
        return NULL;
    }
    p = a->next;
    a->next += rounded;
    a->used += rounded;
    unpoison(p, n);
    return p;
}

void *arena_zalloc(struct arena *a, size_t n)
{
    void *p = arena_alloc(a, n);

    if (p)
        memset(p, 0, n);
    return p;
}

void *arena_array(struct arena *a, size_t n, size_t size)
{
    size_t total;

    if (__builtin_mul_overflow(n, size, &total)) {
        a->overflow = true;
        return NULL;
    }
    return arena_zalloc(a, total);
}

char *arena_z(struct arena *a, struct str s)
{
    char *p = NULL;

    if (s.len == SIZE_MAX)
        a->overflow = true;
    else
        p = arena_alloc(a, s.len + 1);
    if (!p)
        return NULL;
    if (s.len > 0)
        memcpy(p, s.p, s.len);
    p[s.len] = 0;
    return p;
}

struct str arena_str(struct arena *a, struct str s)
{
    char *p = arena_z(a, s);

    return p ? str_n(p, s.len) : STR_NULL;
}

struct str arena_cat(struct arena *a, const struct str *parts, size_t n)
{
    size_t len = 0;
    bool wraps = false;
    char *p, *to;

    for (size_t i = 0; i < n; i++)
        wraps |= __builtin_add_overflow(len, parts[i].len, &len);
    if (wraps || len == SIZE_MAX) {
        a->overflow = true;
        return STR_NULL;
    }
    p = to = arena_alloc(a, len + 1);
    if (!p)
        return STR_NULL;
    for (const struct str *part = parts; part < parts + n; part++) {
        if (part->len > 0)
            memcpy(to, part->p, part->len);
        to += part->len;
    }
    *to = 0;
    return str_n(p, len);
}

struct str arena_printf(struct arena *a, const char *fmt, ...)
{
    va_list ap, again;
    char small[256], *p;
    int n;

    va_start(ap, fmt);
    va_copy(again, ap);
    n = vsnprintf(small, sizeof(small), fmt, ap);
    ASSERT(n >= 0);     /* our own format: it cannot be at fault */
    p = arena_alloc(a, (size_t)n + 1);
    if (p && (size_t)n < sizeof(small))
        memcpy(p, small, (size_t)n + 1);
    else if (p)
        vsnprintf(p, (size_t)n + 1, fmt, again);
    va_end(again);
    va_end(ap);
    return p ? str_n(p, (size_t)n) : STR_NULL;
}
