/* dice.h -- seeded chance for tests: the same seed, the same test */
#ifndef TEST_DICE_H
#define TEST_DICE_H

#include <stdint.h>

#include "base/check.h"

/* Set before the first throw; not 0. */
static uint64_t seed;

/* 0 to n - 1 (xorshift). */
static unsigned below(unsigned n)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (unsigned)((seed >> 20) % n);
}

/* One of an array; one of the texts. */
#define PICK_FROM(list) (list)[below(ARRAY_LEN(list))]
#define PICK(...) ((const char *const[]){ __VA_ARGS__ })[below(ARRAY_LEN(((const char *const[]){ __VA_ARGS__ })))]

#endif
