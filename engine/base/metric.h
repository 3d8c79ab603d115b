/*
 * metric.h -- counters, gauges and histograms, by worker, summed when somebody looks
 *
 * The table of all metrics is metrics.def.  Each thread has its own cells (plain adds, no sharing); metric_render sums
 * them into the Prometheus text format 0.0.4.  A metric may have one label with values from a small, bounded set that
 * is interned first (tool names, outcomes): metric_label() answers its slot, or the slot "other" once the set is full.
 */
#ifndef BASE_METRIC_H
#define BASE_METRIC_H

#include <stdatomic.h>

#include "base/str.h"

enum metric_kind { METRIC_COUNTER, METRIC_GAUGE, METRIC_HISTOGRAM };

enum metric {
#define METRIC(name, kind, label, text) M_##name,
#include "base/metrics.def"
#undef METRIC
    METRIC_COUNT
};

enum { METRIC_LABELS_MAX = 256 };

/* The slot of a label value: stable for the life of the process. Takes a lock: do it once, keep the slot. */
unsigned metric_label(enum metric m, struct str value);

/* A slot beside what it counts, asked for when it is first counted. Zero: not asked yet. Several threads may ask at
 * once: they get the same slot. */
typedef _Atomic(unsigned short) metric_slot_t;
static inline bool metric_slot_known(const metric_slot_t *s)
{
    return atomic_load_explicit(s, memory_order_relaxed) != 0;
}
static inline unsigned metric_slot(const metric_slot_t *s)
{
    return atomic_load_explicit(s, memory_order_relaxed) - 1u;
}
void metric_slot_ask(metric_slot_t *s, enum metric m, struct str value);

void metric_add(enum metric m, int64_t n);                          /* no label */
void metric_add_at(enum metric m, unsigned slot, int64_t n);
void metric_observe(enum metric m, int64_t ns);                     /* histogram; buckets 1 us ... 60 s */
void metric_observe_at(enum metric m, unsigned slot, int64_t ns);
int64_t metric_sum(enum metric m);        /* over all threads and slots: for tests, readiness */

void metric_render(struct buf *out);

#endif
