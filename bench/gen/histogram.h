/*
 * histogram.h -- durations counted into buckets that are as fine as they are long (log-linear, as HdrHistogram's)
 *
 * A value of n significant bits goes into the bucket of its first bits + 1 of them: with HISTOGRAM_FINE no value is
 * reported more than 1/1024 of itself too long, which is three decimal digits.  A bucket reports the longest value that
 * it holds, never a shorter one.  Memory is taken as values need it, one doubling at a time.
 */
#ifndef BENCH_HISTOGRAM_H
#define BENCH_HISTOGRAM_H

#include <stdint.h>

enum {
    HISTOGRAM_FINE = 10,                /* 3 digits; 4 KB for each doubling between the shortest and the longest */
    HISTOGRAM_COARSE = 6,               /* within 1.6 %; 256 bytes for each: for what there are thousands of */
    HISTOGRAM_OCTAVES = 64,
};

struct histogram {
    unsigned bits;
    uint64_t count, min, max;           /* min and max exact */
    double sum;
    uint32_t *octave[HISTOGRAM_OCTAVES];    /* [0]: values below 2^bits, one by one; [k]: from 2^(bits+k-1) */
};

void histogram_init(struct histogram *h, unsigned bits);
void histogram_release(struct histogram *h);
void histogram_clear(struct histogram *h);          /* keeps the memory */
void histogram_add(struct histogram *h, uint64_t value);
double histogram_mean(const struct histogram *h);

/* The value that at least `part` (0..1) of all values do not exceed; 0 of none. */
uint64_t histogram_at(const struct histogram *h, double part);

/* Calls `each` for every bucket that holds something, shortest first, with the longest value that it may hold. */
void histogram_walk(const struct histogram *h, void (*each)(uint64_t upper, uint32_t count, void *arg), void *arg);

#endif
