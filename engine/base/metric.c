/*
 * metric.c -- cells per thread, summed by the reader
 *
 * Each thread owns a block; a block holds pages of cells, one page for METRIC_PAGE_SLOTS slots of a metric, made when
 * first written.  Only the owner writes: an add is a load and a store of a relaxed atomic, no locked instruction.
 * Readers walk all blocks under the lock.  A block whose thread has ended stays in the list, so nothing counted is
 * lost, and the next new thread goes on counting in it: memory is bounded by the most threads alive at once.
 *
 * Slot 0 is the only slot of a metric without label, and "other" of a metric with one.  A compound label, declared
 * "a_b", is given as "x:y" and rendered as a="x",b="y" (cut at the last ':').
 */
#include "base/metric.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "base/check.h"
#include "base/map.h"

enum {
    VALUE_MAX = 200,                                /* bytes of a label value; longer ones are "other" */
    CACHE_LINE = 64,
};

STATIC_ASSERT(METRIC_HISTOGRAM_CELLS * sizeof(metric_cell_t) % CACHE_LINE == 0, "a slot begins where a line does");

const int64_t metric_bounds[METRIC_BUCKETS + 1] = {
    1000,      2500,      5000,       10000,      25000,      50000,       100000,      250000,      500000,
    1000000,   2500000,   5000000,    10000000,   25000000,   50000000,    100000000,   250000000,   500000000,
    1000000000, 2500000000, 5000000000, 10000000000, 30000000000, 60000000000, INT64_MAX,
};

/* The same in seconds. */
static const char *const bounds_text[METRIC_BUCKETS] = {
    "0.000001", "0.0000025", "0.000005", "0.00001", "0.000025", "0.00005", "0.0001", "0.00025", "0.0005",
    "0.001",    "0.0025",    "0.005",    "0.01",    "0.025",    "0.05",    "0.1",    "0.25",    "0.5",
    "1",        "2.5",       "5",        "10",      "30",       "60",
};

uint8_t metric_bounds_below[64];

/* Before main(): no thread observes earlier. */
__attribute__((constructor)) static void order_bounds(void)
{
    size_t n = 0;

    for (unsigned bit = 0; bit < 64; bit++) {
        while (n < METRIC_BUCKETS && (uint64_t)metric_bounds[n] < 1ULL << bit)
            n++;
        metric_bounds_below[bit] = (uint8_t)n;
    }
    for (size_t i = 1; i <= METRIC_BUCKETS; i++)    /* so no two have the same highest bit: observing asks about one */
        ASSERT(metric_bounds[i] / 2 >= metric_bounds[i - 1]);
}

static const struct {
    const char *name;                               /* upper case, as in metrics.def */
    const char *label, *text;
} table[METRIC_COUNT] = {
#define METRIC(name, kind, label, text) { #name, label, text },
#include "base/metrics.def"
#undef METRIC
};

struct block {
    struct metric_cells cells;
    struct block *next;                             /* all blocks, newest first; never removed */
    bool owned;                                     /* by a living thread */
};

struct labels {
    struct map slots;                               /* value -> slot, as a pointer into `values` */
    char *values[METRIC_LABELS_MAX];                /* by slot; [0] unused */
    unsigned len;                                   /* of values; counts slot 0 once in use */
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;    /* over `blocks`, `owned` and `labels` */
static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_key_t block_key;
static struct block *blocks;
static struct labels labels[METRIC_COUNT];
_Thread_local struct metric_cells *metric_mine;

static void block_leave(void *arg)
{
    struct block *b = arg;

    metric_mine = NULL;
    pthread_mutex_lock(&lock);
    b->owned = false;
    pthread_mutex_unlock(&lock);
}

static void make_key(void)
{
    ASSERT(pthread_key_create(&block_key, block_leave) == 0);
}

/* The lock also hands the cells of the thread that left over to the one that comes. */
static struct metric_cells *block_join(void)
{
    struct block *b;

    pthread_once(&once, make_key);
    pthread_mutex_lock(&lock);
    for (b = blocks; b && b->owned; b = b->next)
        ;
    if (!b) {
        b = calloc(1, sizeof(*b));
        ASSERT(b);
        b->next = blocks;
        blocks = b;
    }
    b->owned = true;
    pthread_mutex_unlock(&lock);
    ASSERT(pthread_setspecific(block_key, b) == 0);
    metric_mine = &b->cells;
    return &b->cells;
}

static size_t cells_per_slot(enum metric m)
{
    return metric_kinds[m] == METRIC_HISTOGRAM ? METRIC_HISTOGRAM_CELLS : 1;
}

static metric_cell_t *page_new(struct metric_cells *mine, enum metric m, unsigned slot)
{
    size_t n = METRIC_PAGE_SLOTS * cells_per_slot(m) * sizeof(metric_cell_t);
    metric_cell_t *page;

    if (!table[m].label && metric_kinds[m] != METRIC_HISTOGRAM) {
        ASSERT(slot == 0);
        return &mine->single[m];
    }
    page = aligned_alloc(CACHE_LINE, n);
    ASSERT(page);
    memset(page, 0, n);
    return page;
}

NOINLINE metric_cell_t *metric_page(enum metric m, unsigned slot)
{
    struct metric_cells *mine = metric_mine ? metric_mine : block_join();
    _Atomic(metric_cell_t *) *place = &mine->pages[slot / METRIC_PAGE_SLOTS][m];
    metric_cell_t *page = atomic_load_explicit(place, memory_order_relaxed);

    if (!page) {
        page = page_new(mine, m, slot);
        atomic_store_explicit(place, page, memory_order_release);
    }
    return page;
}

NOINLINE void metric_observe_first(enum metric m, unsigned slot, int64_t ns)
{
    metric_page(m, slot);
    metric_observe_at(m, slot, ns);
}

/* Values that would break the text format, or give two slots one name, share the slot "other". */
static bool value_fits(enum metric m, struct str value)
{
    bool compound = strchr(table[m].label, '_') != NULL;

    if (value.len > VALUE_MAX || !str_utf8_valid(value) || (value.len > 0 && memchr(value.p, 0, value.len)))
        return false;
    if (compound)
        return value.len > 0 && memrchr(value.p, ':', value.len) && !str_is(value, "other:other");
    return !str_is(value, "other");
}

unsigned metric_label(enum metric m, struct str value)
{
    struct labels *l;
    char **found;
    unsigned slot = 0;

    ASSERT((unsigned)m < METRIC_COUNT && table[m].label);
    if (!value_fits(m, value))
        return 0;
    l = &labels[m];
    pthread_mutex_lock(&lock);
    found = map_get(&l->slots, value);
    if (found) {
        slot = (unsigned)(found - l->values);
    } else if (l->len + 1 < METRIC_LABELS_MAX) {
        char *copy = malloc(value.len + 1);

        ASSERT(copy);
        if (value.len > 0)
            memcpy(copy, value.p, value.len);
        copy[value.len] = 0;
        slot = ++l->len;
        l->values[slot] = copy;
        map_put(&l->slots, str_n(copy, value.len), &l->values[slot]);
    }
    pthread_mutex_unlock(&lock);
    return slot;
}

void metric_slot_ask(metric_slot_t *s, enum metric m, struct str value)
{
    atomic_store_explicit(s, (unsigned short)(metric_label(m, value) + 1), memory_order_relaxed);
}

/* Sums a slot's cells over all blocks. The lock is held. */
static void sum_slot(enum metric m, unsigned slot, int64_t *sums)
{
    size_t n = cells_per_slot(m);

    memset(sums, 0, n * sizeof(*sums));
    for (struct block *b = blocks; b; b = b->next) {
        metric_cell_t *page = atomic_load_explicit(&b->cells.pages[slot / METRIC_PAGE_SLOTS][m], memory_order_acquire);

        for (size_t i = 0; page && i < n; i++) {
            metric_cell_t *c = page + slot % METRIC_PAGE_SLOTS * n + i;

            sums[i] = (int64_t)((uint64_t)sums[i] + (uint64_t)atomic_load_explicit(c, memory_order_relaxed));
        }
    }
}

/* A counter's value, or how many observations a histogram holds. */
static int64_t slot_count(enum metric m, const int64_t *sums)
{
    int64_t count = 0;

    if (metric_kinds[m] != METRIC_HISTOGRAM)
        return sums[0];
    for (size_t i = METRIC_CELL_BUCKET; i <= METRIC_CELL_OVER; i++)
        count += sums[i];
    return count;
}

int64_t metric_sum(enum metric m)
{
    int64_t sums[METRIC_HISTOGRAM_CELLS], total = 0;

    ASSERT((unsigned)m < METRIC_COUNT);
    pthread_mutex_lock(&lock);
    for (unsigned slot = 0; slot <= labels[m].len; slot++) {
        sum_slot(m, slot, sums);
        total += slot_count(m, sums);
    }
    pthread_mutex_unlock(&lock);
    return total;
}

/* ---- rendering ---- */

static void add_name(struct buf *out, enum metric m)
{
    buf_add_z(out, "sluice_");
    for (const char *c = table[m].name; *c; c++)
        buf_add_c(out, *c >= 'A' && *c <= 'Z' ? (char)(*c - 'A' + 'a') : *c);
}

static void add_pair(struct buf *out, struct str name, struct str value)
{
    buf_add_str(out, name);
    buf_add_z(out, "=\"");
    for (size_t i = 0; i < value.len; i++) {
        if (value.p[i] == '\n')
            buf_add_z(out, "\\n");
        else if (value.p[i] == '"' || value.p[i] == '\\')
            buf_addf(out, "\\%c", value.p[i]);
        else
            buf_add_c(out, value.p[i]);
    }
    buf_add_c(out, '"');
}

/* name="value", or two of them for a compound label, where "other" stands for both. */
static void add_label(struct buf *out, enum metric m, unsigned slot)
{
    struct str value = slot == 0 ? STR("other") : str_of(labels[m].values[slot]);
    struct str first, second, head = value, tail = value;
    const char *colon;

    if (!str_cut(str_of(table[m].label), '_', &first, &second)) {
        add_pair(out, str_of(table[m].label), value);
        return;
    }
    colon = value.len > 0 ? memrchr(value.p, ':', value.len) : NULL;
    if (colon) {
        head = str_n(value.p, (size_t)(colon - value.p));
        tail = str_from(value, head.len + 1);
    }
    add_pair(out, first, head);
    buf_add_c(out, ',');
    add_pair(out, second, tail);
}

/* One sample's name and labels; le may be NULL. */
static void add_series(struct buf *out, enum metric m, unsigned slot, const char *suffix, const char *le)
{
    add_name(out, m);
    buf_add_z(out, suffix);
    if (table[m].label || le) {
        buf_add_c(out, '{');
        if (table[m].label)
            add_label(out, m, slot);
        if (table[m].label && le)
            buf_add_c(out, ',');
        if (le)
            add_pair(out, STR("le"), str_of(le));
        buf_add_c(out, '}');
    }
    buf_add_c(out, ' ');
}

static void add_histogram(struct buf *out, enum metric m, unsigned slot, const int64_t *sums)
{
    int64_t below = 0, count = slot_count(m, sums);

    for (size_t i = 0; i < METRIC_BUCKETS; i++) {
        below += sums[METRIC_CELL_BUCKET + i];
        add_series(out, m, slot, "_bucket", bounds_text[i]);
        buf_addf(out, "%lld\n", (long long)below);
    }
    add_series(out, m, slot, "_bucket", "+Inf");
    buf_addf(out, "%lld\n", (long long)count);
    add_series(out, m, slot, "_sum", NULL);
    buf_addf(out, "%lld.%09lld\n", (long long)(sums[METRIC_CELL_SUM] / 1000000000),
             (long long)(sums[METRIC_CELL_SUM] % 1000000000));
    add_series(out, m, slot, "_count", NULL);
    buf_addf(out, "%lld\n", (long long)count);
}

static void add_metric(struct buf *out, enum metric m)
{
    static const char *const kinds[] = { "counter", "gauge", "histogram" };
    int64_t sums[METRIC_HISTOGRAM_CELLS];

    buf_add_z(out, "# HELP ");
    add_name(out, m);
    buf_addf(out, " %s\n# TYPE ", table[m].text);
    add_name(out, m);
    buf_addf(out, " %s\n", kinds[metric_kinds[m]]);
    for (unsigned slot = 0; slot <= labels[m].len; slot++) {
        sum_slot(m, slot, sums);
        if (slot == 0 && table[m].label && slot_count(m, sums) == 0)
            continue;               /* "other" shows only once it is used */
        if (metric_kinds[m] == METRIC_HISTOGRAM) {
            add_histogram(out, m, slot, sums);
        } else {
            add_series(out, m, slot, "", NULL);
            buf_addf(out, "%lld\n", (long long)sums[0]);
        }
    }
}

void metric_render(struct buf *out)
{
    pthread_mutex_lock(&lock);
    for (unsigned m = 0; m < METRIC_COUNT; m++)
        add_metric(out, (enum metric)m);
    pthread_mutex_unlock(&lock);
}
