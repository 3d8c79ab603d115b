/*
 * tally.h -- what became of the requests of a run, and its report
 *
 * The report is one JSON object:
 *
 *   mode, seconds        as asked for; closed with --count: as long as it took
 *   offered              requests that were due while counting
 *   sent                 of these, those that went out; late: those that did not, because too many were in flight
 *   ok, refused, failed  of those sent, by what was answered (judge.h); reasons: how many for each reason
 *   answered             answers, whatever was said, that came while counting, also to requests sent before: what the
 *                        peer's CPU in that time was spent on
 *   rate_ok              ok answers that came while counting, per second
 *   latency_us           of ok: count, min, mean, p50, p90, p99, p999, max, buckets [[upper_us, count], ...];
 *                        from when a request was due, not from when it went out
 *   refused_us           the same of refused
 *   phases               of an open loop with --phases: {refused, refused_us} of what was due in each
 *   groups               {name: {ok, refused, failed, answered, p50, p99}}, in microseconds of ok, within 1.6 %
 *   timeline             a row per second of arrival: {t, offered, ok, refused, failed, p50, p99}
 *   cpu_s                of the generator while counting;  bytes_in, bytes_out while counting
 */
#ifndef BENCH_TALLY_H
#define BENCH_TALLY_H

#include "bench/gen/histogram.h"
#include "bench/gen/judge.h"
#include "bench/gen/requests.h"
#include "bench/gen/schedule.h"

enum { VERDICTS = 3, REASONS_SHOWN = 64 };

struct group_tally {
    uint64_t count[VERDICTS], answered;
    struct histogram ok;
};

struct second {
    uint64_t offered, count[VERDICTS];
    uint64_t p50, p99;
};

struct phase_tally {
    int64_t ends;                       /* it begins where the one before it ends */
    struct histogram refused;
};

struct tally {
    const struct requests *requests;
    int64_t began, ends;                /* what is due, or arrives, from the one up to the other is counted */
    uint64_t offered, sent, late, answered, ok_answered, count[VERDICTS];
    uint64_t bytes_in, bytes_out;
    double cpu;
    struct histogram ok, refused, now;  /* now: the second at hand */
    size_t at, room;                    /* of the second at hand */
    struct second *second;
    struct group_tally *group;
    struct phase_tally phase[PHASES_MAX];
    unsigned phases;
    struct reason {
        char name[REASON_MAX];
        uint64_t count;
    } reason[REASONS_SHOWN];
    unsigned reasons;
};

void tally_init(struct tally *t, const struct requests *requests, int64_t began, int64_t ends);
/* What is due before `ends`, and in no phase that was added before, is counted by itself, too; PHASES_MAX at most. */
void tally_add_phase(struct tally *t, int64_t ends);
void tally_release(struct tally *t);
static inline bool tally_counts(const struct tally *t, int64_t when) { return when >= t->began && when < t->ends; }
void tally_offered(struct tally *t, int64_t due);
/* `reason` of VERDICT_OK is not looked at; `heard`: there was an answer at all. */
void tally_ended(struct tally *t, uint32_t group, int64_t due, int64_t now, enum verdict v, const char *reason,
    bool heard);
/* One line of the second before `now`, for people. */
void tally_progress(struct tally *t, int64_t now, uint64_t in_flight);
void tally_write(struct tally *t, const char *mode, struct buf *out);

#endif
