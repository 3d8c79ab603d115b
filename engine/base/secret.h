/*
 * secret.h -- bytes that must not be printed, logged, dumped or swapped
 *
 * A secret lives in pages of its own (memfd_secret where the kernel has it, else mlock), excluded from core dumps, and
 * is wiped at release.  There is no format function and no conversion to struct str: the bytes are reached only through
 * secret_use(), which hands them to a callback for its duration.
 */
#ifndef BASE_SECRET_H
#define BASE_SECRET_H

#include "base/err.h"
#include "base/str.h"

struct secret;

enum { SECRET_MAX = 16384 };

/* Copies n (<= SECRET_MAX) bytes and wipes the source. NULL if n is too large or memory is out. Thread safe. */
struct secret *secret_take(void *bytes, size_t n);
/* The same without wiping: for bytes that come from read-only memory (tests, files already mapped). */
struct secret *secret_copy(const void *bytes, size_t n);
/* n bytes that fill writes where they stay. NULL also when fill answers false: then what it wrote is wiped. */
struct secret *secret_fill(size_t n, bool (*fill)(uint8_t *to, size_t n, void *arg), void *arg);
void secret_release(struct secret *s);                  /* accepts NULL */
size_t secret_len(const struct secret *s);
/* Calls fn with the bytes; fn must not keep the pointer. */
void secret_use(const struct secret *s, void (*fn)(const uint8_t *bytes, size_t n, void *arg), void *arg);

/* Call once at start: no core dumps, not ptraceable by the same user. */
void secret_harden_process(void);

#endif
