/*
 * internal.h -- what the limiter's own files share
 *
 * Locks: the keys are spread over RL_STRIPES stripes by hash; a stripe's lock covers its table, its timers, and every
 * field of its keys and of their lines.  A set of stripes is a bit mask, locked from the lowest bit up, so several keys
 * never deadlock.  A waiter's own fields are covered by holding ALL stripes of its keys (waiter->permit.stripes, fixed
 * once it is queued); its two nodes by the stripe of its home alone.  The rules are written with all stripes held, so
 * any one lock is enough to read them.
 */
#ifndef RATELIMIT_INTERNAL_H
#define RATELIMIT_INTERNAL_H

#include <stdatomic.h>

#include "ratelimit.h"

#define RL_STRIPES 64       /* one bit each in a uint64_t; four workers meet on one about once in 20 acquisitions */

_Noreturn void rl_broken(const char *expr, const char *file, int line);
#define RL_ASSERT(x) (__builtin_expect(!!(x), 1) ? (void)0 : rl_broken(#x, __FILE__, __LINE__))
#define RL_CONTAINER(ptr, type, member) ((type *)((char *)(ptr) - offsetof(type, member)))

#define RL_PERMIT_HELD     0x5045524du
#define RL_PERMIT_RETURNED 0x444f4e45u

/* ---- tree.c: an ordered queue of nodes the caller owns (a treap): all O(log n) expected, nothing allocated */

void rl_tree_add(struct rl_node **root, struct rl_node *n);        /* by n->key; equal keys in order of adding */
void rl_tree_del(struct rl_node **root, struct rl_node *n);
struct rl_node *rl_tree_min(struct rl_node *root);                 /* NULL if empty */

/* ---- rule.c: a rule made ready for arithmetic, and the arithmetic */

struct rl_line;

struct rl_limit {
    uint64_t per_unit;          /* ns that one unit takes to refill, in 1/256 ns, rounded up; 0: no rate */
    int64_t burst_ns;           /* burst units in ns, rounded down */
    uint64_t burst;
    uint32_t cap;               /* 0: none */
    bool set;
};

/* What an idle key costs: this, its bytes, and 8 to 16 bytes of index. */
struct rl_key {
    struct rl_key *next;        /* in its bucket */
    struct rl_line *line;       /* NULL unless somebody waits here or holds it back */
    int64_t full_at;            /* when the bucket will be full again (GCRA's theoretical arrival time) */
    uint64_t per_unit;          /* the rate full_at was counted with: a changed rule is converted on the next use */
    int64_t paused_until;       /* INT64_MIN: not */
    uint64_t granted;
    uint32_t hash;              /* low half */
    uint32_t in_flight;
    uint32_t pins;              /* waiters naming it, plus services under way: it must not go away */
    uint32_t refused;
    uint16_t rule;
    uint16_t len;
    uint8_t stripe;
    bool recent;                /* used since eviction last passed by */
    uint8_t bytes[];
};

/* The queue at a key, there only while needed. */
struct rl_line {
    struct rl_node *root;       /* waiters by order: the ordering is the whole of the fairness rule */
    struct rl_waiter *barrier;  /* nobody younger passes while this one, passed too often, collects its keys */
    struct rl_key *todo_next;   /* list of keys to serve, private to the thread that put it there */
    uint64_t cost;              /* sum over those queued here */
    uint32_t waiting;
    bool todo;                  /* on such a list: whoever has it will look later than now */
};

bool rl_limit_make(const struct rl_rule *rule, struct rl_limit *ret);
int64_t rl_cost_ns(uint64_t per_unit, uint64_t cost);              /* rounded up, saturating */
void rl_rate_sync(struct rl_key *k, const struct rl_limit *l, int64_t now);
int64_t rl_rate_due(const struct rl_key *k, const struct rl_limit *l, uint64_t cost, int64_t now);
void rl_rate_take(struct rl_key *k, uint64_t cost, int64_t now);
void rl_rate_refund(struct rl_key *k, uint64_t cost, int64_t granted_at, int64_t now);
uint64_t rl_rate_available(const struct rl_key *k, const struct rl_limit *l, int64_t now);

/* ---- table.c: bytes -> key, and forgetting idle ones */

struct rl_counts {
    uint64_t granted, queued, late, never, busy, table_full, timed_out, cancelled, evicted;
};

struct rl_stripe {
    _Atomic bool locked;
    struct rl_key **buckets;    /* linear hashing: split one bucket at a time, so no insert is slow */
    uint32_t n, half, room;     /* buckets in use; largest power of two <= n; allocated */
    uint32_t len, hand;         /* keys; where eviction goes on */
    struct rl_node *timers;     /* this stripe's queued waiters by the time they need a look */
    uint64_t key_bytes;
    struct rl_counts counts;
} __attribute__((aligned(64)));

struct rl {
    struct rl_config cfg;
    struct rl_limit *rules;
    uint64_t rules_gen;
    _Atomic uint64_t order;             /* of arrival, given when queued */
    _Atomic int64_t armed;              /* the next tick the caller knows of */
    _Atomic size_t keys, waiting;
    _Atomic int64_t due[RL_STRIPES];    /* earliest timer of each stripe, readable without its lock */
    struct rl_stripe stripes[RL_STRIPES];
};

void rl_lock(struct rl *rl, uint64_t stripes);
void rl_unlock(struct rl *rl, uint64_t stripes);

uint64_t rl_hash(const struct rl *rl, const void *p, size_t n);
#define RL_STRIPE_OF(hash) ((unsigned)((hash) >> 58))

bool rl_table_init(struct rl_stripe *s);
void rl_table_release(struct rl_stripe *s);
struct rl_key **rl_bucket(struct rl_stripe *s, uint32_t hash);
/* The stripe's lock is held. NULL: not there. */
struct rl_key *rl_table_find(struct rl_stripe *s, uint64_t hash, const void *p, size_t n);
/* The stripe's lock is held, and of others exactly `held`. NULL: the table is full of keys in use, or memory is out. */
struct rl_key *rl_table_add(struct rl *rl, uint64_t held, uint64_t hash, const void *p, size_t n, int64_t now);
bool rl_key_idle(const struct rl_key *k, int64_t now);

/* ---- queue.c: waiting and serving; all of these need the locks of the waiter's keys unless they say otherwise */

/* One operation's unfinished business, done with no lock held. */
struct rl_work {
    struct rl *rl;
    int64_t now;
    int64_t soonest;            /* earliest timer set on the way */
    struct rl_key *todo;        /* pinned */
    struct rl_waiter *woken, **woken_end;
    bool ticking;               /* rl_tick() tells its caller itself when to come back */
};

/* Whether a set of keys can be had now, and if not, where to wait. */
struct rl_look {
    int block;                  /* index into hold[]; -1: all clear */
    int64_t due;                /* when time alone ends that block; RL_FOREVER: it is not a matter of time */
    int64_t earliest;           /* not before this, by rates and pauses and the costs queued ahead */
    bool behind;                /* somebody older waits there, or holds it back */
    bool never;                 /* hold[block] costs more than its burst */
};

void rl_work_init(struct rl_work *work, struct rl *rl, int64_t now);
void rl_work_run(struct rl_work *work);                    /* no lock held: serves, wakes, alarms */
void rl_todo(struct rl_work *work, struct rl_key *k);      /* k's lock: serve it when the locks are dropped */
void rl_examine(struct rl *rl, struct rl_waiter *w, uint64_t order, int64_t now, struct rl_look *ret);
void rl_take(struct rl *rl, struct rl_waiter *w, int64_t now);
enum rl_result rl_enqueue(struct rl_work *work, struct rl_waiter *w, const struct rl_look *look);
void rl_leave(struct rl_work *work, struct rl_waiter *w, enum rl_result result);
void rl_time_out(struct rl_work *work, struct rl_waiter *w);
bool rl_is_waiting(const struct rl_waiter *w);
/* Home's lock is enough for these two. */
struct rl_waiter *rl_first_due(struct rl_stripe *s, int64_t now);
void rl_due(struct rl_work *work, struct rl_waiter *w);    /* its timer fired before its deadline */

#endif
