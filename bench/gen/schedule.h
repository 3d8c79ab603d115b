/*
 * schedule.h -- when requests are due in an open loop
 *
 * Phases of a rate and a duration follow each other; within them arrivals are those of a Poisson process, or evenly
 * spaced.  The schedule depends on its seed and nothing else: how fast anything is answered does not move it.
 */
#ifndef BENCH_SCHEDULE_H
#define BENCH_SCHEDULE_H

#include "bench/gen/common.h"

enum { PHASES_MAX = 64 };

struct phase {
    double rate;                        /* per second; 0: a pause */
    double seconds;
};

struct schedule {
    struct phase phase[PHASES_MAX];
    unsigned phases, at;
    bool even;
    double past;                        /* of the current phase, in seconds */
    double before;                      /* all earlier phases */
    struct chance chance;
};

/* Appends one phase; false if there are too many. */
bool schedule_add(struct schedule *s, double rate, double seconds);
/* "R1:S1,R2:S2,..."; false if that is not what it says. */
bool schedule_parse(struct schedule *s, const char *text);
double schedule_seconds(const struct schedule *s);
double schedule_rate_at(const struct schedule *s, double second);
/* Nanoseconds after the beginning at which the next request is due; -1 when the last phase is over. */
int64_t schedule_next(struct schedule *s);

#endif
