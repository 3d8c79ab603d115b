/*
 * dice.h -- all chance of a simulated run, out of one seed
 *
 * Each part of the world throws dice of its own, made from the seed and a name, so that a change in one part does not
 * change what happens in another more than it must.
 */
#ifndef TESTS_SIM_DICE_H
#define TESTS_SIM_DICE_H

#include <stdbool.h>
#include <stdint.h>

struct dice {
    uint64_t state;
};

struct dice dice_for(uint64_t seed, const char *name);
uint64_t dice_next(struct dice *d);
uint64_t dice_below(struct dice *d, uint64_t n);                 /* 0 .. n - 1; n > 0 */
int64_t dice_between(struct dice *d, int64_t low, int64_t high); /* both included */
/* As many small as large ones: each doubling between low and high is equally likely. low > 0. */
int64_t dice_scale(struct dice *d, int64_t low, int64_t high);
bool dice_permille(struct dice *d, unsigned n);
/* A probability for one kind of event, itself by chance: mostly never, else rare, sometimes or often (in permille). */
unsigned dice_mood(struct dice *d);

#endif
