/* dice.c -- splitmix64 (dice.h) */
#include "dice.h"

#include "base/check.h"

uint64_t dice_next(struct dice *d)
{
    uint64_t z = d->state += 0x9e3779b97f4a7c15u;

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

struct dice dice_for(uint64_t seed, const char *name)
{
    struct dice d = { seed * 0xff51afd7ed558ccdu + 1 };

    for (; *name; name++)
        d.state = dice_next(&d) ^ (unsigned char)*name;
    return d;
}

uint64_t dice_below(struct dice *d, uint64_t n)
{
    ASSERT(n > 0);
    return dice_next(d) % n;
}

int64_t dice_between(struct dice *d, int64_t low, int64_t high)
{
    ASSERT(low <= high);
    return low + (int64_t)dice_below(d, (uint64_t)(high - low) + 1);
}

int64_t dice_scale(struct dice *d, int64_t low, int64_t high)
{
    int doublings = 0;
    int64_t v;

    ASSERT(low > 0 && low <= high);
    while (doublings < 62 && low << (doublings + 1) <= high)
        doublings++;
    v = low << dice_below(d, (uint64_t)doublings + 1);
    v += (int64_t)dice_below(d, (uint64_t)v);
    return v < high ? v : high;
}

bool dice_permille(struct dice *d, unsigned n)
{
    return n > 0 && dice_below(d, 1000) < n;
}

unsigned dice_mood(struct dice *d)
{
    static const unsigned moods[] = { 0, 0, 0, 0, 5, 30, 100, 250 };

    return moods[dice_below(d, sizeof(moods) / sizeof(moods[0]))];
}
