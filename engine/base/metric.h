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

#include "base/check.h"
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

/* The thread's own cells: pages of METRIC_PAGE_SLOTS slots, made when first counted in (metric.c).  A call counts in
 * some twenty of them, so what is used most lies together: the first pages of all metrics side by side, and side by
 * side the cells of counters and gauges that have but one. */
enum { METRIC_PAGE_SLOTS = 16, METRIC_PAGES = METRIC_LABELS_MAX / METRIC_PAGE_SLOTS };
typedef _Atomic int64_t metric_cell_t;
struct metric_cells {
    _Atomic(metric_cell_t *) pages[METRIC_PAGES][METRIC_COUNT];
    metric_cell_t single[METRIC_COUNT];
};
extern _Thread_local struct metric_cells *metric_mine;      /* NULL: the thread has not counted yet */

static const unsigned char metric_kinds[METRIC_COUNT] = {
#define METRIC(name, kind, label, text) METRIC_##kind,
#include "base/metrics.def"
#undef METRIC
};

/* Only the owner writes: no locked instruction. */
static inline void metric_cell_add(metric_cell_t *c, int64_t n)
{
    int64_t v = (int64_t)((uint64_t)atomic_load_explicit(c, memory_order_relaxed) + (uint64_t)n);

    atomic_store_explicit(c, v, memory_order_relaxed);
}

metric_cell_t *metric_page(enum metric m, unsigned slot);           /* that of the slot, made if there is none */

/* Counters and gauges. */
static inline void metric_add_at(enum metric m, unsigned slot, int64_t n)
{
    struct metric_cells *mine = metric_mine;
    metric_cell_t *page;

    ASSERT((unsigned)m < METRIC_COUNT && metric_kinds[m] != METRIC_HISTOGRAM && slot < METRIC_LABELS_MAX);
    page = mine ? atomic_load_explicit(&mine->pages[slot / METRIC_PAGE_SLOTS][m], memory_order_relaxed) : NULL;
    if (__builtin_expect(!page, 0))
        page = metric_page(m, slot);
    metric_cell_add(page + slot % METRIC_PAGE_SLOTS, n);
}
static inline void metric_add(enum metric m, int64_t n) { metric_add_at(m, 0, n); }         /* no label */

/* The cells of a histogram: whole cache lines, the sum in one with the buckets up to 100 us. */
enum {
    METRIC_BUCKETS = 24,
    METRIC_CELL_SUM = 0,                            /* nanoseconds */
    METRIC_CELL_BUCKET,                             /* the first one */
    METRIC_CELL_OVER = METRIC_CELL_BUCKET + METRIC_BUCKETS,     /* observations above the last bucket */
    METRIC_HISTOGRAM_CELLS = 32,
};
STATIC_ASSERT((int)METRIC_CELL_OVER < (int)METRIC_HISTOGRAM_CELLS, "every observation has a cell");
extern const int64_t metric_bounds[METRIC_BUCKETS + 1];     /* nanoseconds; the last one holds everything */
/* By a duration's highest bit: how many bounds every duration with that bit is above. */
extern uint8_t metric_bounds_below[64];

void metric_observe_first(enum metric m, unsigned slot, int64_t ns);        /* in a page that is not there yet */

/* Histograms; buckets 1 us ... 60 s. A processor cannot guess durations: finding the bucket does not branch. */
static inline void metric_observe_at(enum metric m, unsigned slot, int64_t ns)
{
    struct metric_cells *mine = metric_mine;
    metric_cell_t *page, *cells;
    size_t below;

    ASSERT((unsigned)m < METRIC_COUNT && metric_kinds[m] == METRIC_HISTOGRAM && slot < METRIC_LABELS_MAX);
    page = mine ? atomic_load_explicit(&mine->pages[slot / METRIC_PAGE_SLOTS][m], memory_order_relaxed) : NULL;
    if (__builtin_expect(!page, 0)) {
        metric_observe_first(m, slot, ns);          /* the last thing that is called: nothing is kept over it */
        return;
    }
    cells = page + slot % METRIC_PAGE_SLOTS * METRIC_HISTOGRAM_CELLS;
    if (ns < 0)
        ns = 0;
    below = metric_bounds_below[63 - __builtin_clzll((uint64_t)ns | 1)];
    metric_cell_add(&cells[METRIC_CELL_BUCKET + below + (ns > metric_bounds[below])], 1);
    metric_cell_add(&cells[METRIC_CELL_SUM], ns);
}
static inline void metric_observe(enum metric m, int64_t ns) { metric_observe_at(m, 0, ns); }       /* no label */

int64_t metric_sum(enum metric m);        /* over all threads and slots: for tests, readiness */

void metric_render(struct buf *out);

#endif
