/* histogram.c -- see histogram.h */
#include <stdlib.h>
#include <string.h>

#include "bench/gen/common.h"
#include "bench/gen/histogram.h"

void histogram_init(struct histogram *h, unsigned bits)
{
    *h = (struct histogram){ .bits = bits, .min = UINT64_MAX };
}

void histogram_release(struct histogram *h)
{
    for (unsigned k = 0; k < HISTOGRAM_OCTAVES; k++)
        free(h->octave[k]);
    histogram_init(h, h->bits);
}

void histogram_clear(struct histogram *h)
{
    for (unsigned k = 0; k < HISTOGRAM_OCTAVES; k++)
        if (h->octave[k])
            memset(h->octave[k], 0, sizeof(uint32_t) << h->bits);
    h->count = h->max = 0;
    h->min = UINT64_MAX;
    h->sum = 0;
}

static unsigned octave_of(const struct histogram *h, uint64_t value)
{
    return value >> h->bits ? 64 - (unsigned)__builtin_clzll(value) - h->bits : 0;
}

static uint64_t upper_of(const struct histogram *h, unsigned octave, uint32_t at)
{
    return octave == 0 ? at : ((((uint64_t)1 << h->bits) + at + 1) << (octave - 1)) - 1;
}

void histogram_add(struct histogram *h, uint64_t value)
{
    unsigned k = octave_of(h, value);
    uint64_t at = k == 0 ? value : (value >> (k - 1)) - ((uint64_t)1 << h->bits);

    if (!h->octave[k])
        h->octave[k] = need(calloc((size_t)1 << h->bits, sizeof(uint32_t)));
    if (h->octave[k][at] < UINT32_MAX)
        h->octave[k][at]++;
    h->count++;
    h->sum += (double)value;
    if (value < h->min)
        h->min = value;
    if (value > h->max)
        h->max = value;
}

double histogram_mean(const struct histogram *h)
{
    return h->count ? h->sum / (double)h->count : 0;
}

void histogram_walk(const struct histogram *h, void (*each)(uint64_t upper, uint32_t count, void *arg), void *arg)
{
    for (unsigned k = 0; k < HISTOGRAM_OCTAVES; k++)
        for (uint32_t i = 0; h->octave[k] && i < 1u << h->bits; i++)
            if (h->octave[k][i])
                each(upper_of(h, k, i), h->octave[k][i], arg);
}

uint64_t histogram_at(const struct histogram *h, double part)
{
    double exact = part * (double)h->count;
    uint64_t wanted = (uint64_t)exact, seen = 0;

    if (h->count == 0)
        return 0;
    if ((double)wanted < exact)
        wanted++;
    if (wanted == 0)
        return h->min;
    for (unsigned k = 0; k < HISTOGRAM_OCTAVES; k++)
        for (uint32_t i = 0; h->octave[k] && i < 1u << h->bits; i++) {
            seen += h->octave[k][i];
            if (seen >= wanted) {
                uint64_t upper = upper_of(h, k, i);

                return upper < h->max ? upper : h->max;
            }
        }
    return h->max;
}
