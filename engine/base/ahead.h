/*
 * ahead.h -- telling the processor which memory is looked at soon
 *
 * For what has probably left its caches: one look after another costs a trip to memory each, several that were asked
 * for ahead cost one.  Nothing is read: the address may be of memory that is gone, or of none.
 */
#ifndef BASE_AHEAD_H
#define BASE_AHEAD_H

#include <stddef.h>

enum { CACHE_LINE = 64 };

static inline void ahead(const void *p, size_t n)
{
    for (size_t at = 0; at < n; at += CACHE_LINE)
        __builtin_prefetch((const char *)p + at);
}

#endif
