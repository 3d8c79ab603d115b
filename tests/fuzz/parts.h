/*
 * parts.h -- several texts in one input: parts, separated by lines of "----"
 */
#ifndef FUZZ_PARTS_H
#define FUZZ_PARTS_H

#include "base/str.h"

/* Takes the first part off; empty when there is none left. */
static inline struct str next_part(struct str *rest)
{
    static const char line[] = "\n----\n";
    const char *at = rest->len ? memmem(rest->p, rest->len, line, sizeof(line) - 1) : NULL;
    struct str part = *rest;

    if (at) {
        part.len = (size_t)(at - rest->p);
        *rest = str_from(*rest, part.len + sizeof(line) - 1);
    } else {
        *rest = str_n(rest->p + rest->len, 0);
    }
    return part;
}

#endif
