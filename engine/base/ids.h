/*
 * ids.h -- unguessable names
 *
 * 128 random bits as 26 characters of Crockford base32 (lower case), behind a prefix that says what is named:
 * "call_0f3q...".  Ids are names, not capabilities: whoever presents one is still checked.
 */
#ifndef BASE_IDS_H
#define BASE_IDS_H

#include "base/str.h"

enum { ID_MAX = 40 };

struct id {
    char z[ID_MAX];
};

/* prefix: at most 8 characters, "call", "sess". Randomness is drawn in batches per thread: cheap. */
struct id id_new(const char *prefix);

#endif
