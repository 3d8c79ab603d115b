/*
 * internal.h -- what the limiter's own files share
 *
 * Locks: the keys are spread over RL_STRIPES stripes by the hash of their outermost scope (rl_id_sub() keeps it), so
 * that a set of keys has one lock as a rule; a stripe's lock covers its table, its timers, and every field of its keys
 * and of their lines.  A set of stripes is a bit mask, locked from the lowest bit up, so several keys never deadlock.
 * A waiter's own fields are covered by holding ALL stripes of its keys (waiter->permit.stripes, fixed once it is
 * queued); its two nodes by the stripe of its home alone.  The rules are written with all stripes held, so any one lock
 * is enough to read them.  The names have a lock of their own, taken last.
 */
#ifndef RATELIMIT_INTERNAL_H
#define RATELIMIT_INTERNAL_H

#include <stdatomic.h>

#include "ratelimit.h"

#define RL_STRIPES 64       /* one bit each in a uint64_t; four workers meet on one about once in 20 acquisitions */
#define RL_NAME_FROM  64u   /* a key is worth showing from so many grants on ... */
#define RL_NAME_EVERY 1024u /* ... and noted again after so many: all threads share the names */

_Noreturn void rl_broken(const char *expr, const char *file, int line);
#define RL_LIKELY(x)   __builtin_expect(!!(x), 1)
#define RL_UNLIKELY(x) __builtin_expect(!!(x), 0)
/* Arrays that are written before they are read, where filling them with zeros would be a tenth of the call. */
#if defined(__has_attribute)
#if __has_attribute(uninitialized)
#define RL_NO_INIT(declaration) __attribute__((uninitialized)) declaration
#endif
#endif
#ifndef RL_NO_INIT
#define RL_NO_INIT(declaration) declaration
#endif
#define RL_ASSERT(x) (RL_LIKELY(x) ? (void)0 : rl_broken(#x, __FILE__, __LINE__))
#define RL_CONTAINER(ptr, type, member) ((type *)((char *)(ptr) - offsetof(type, member)))

#define RL_PERMIT_HELD     0x5045524du
#define RL_PERMIT_RETURNED 0x444f4e45u

/* ---- tree.c: an ordered queue of nodes the caller owns (a treap): all O(log n) expected, nothing allocated */

void rl_tree_add(struct rl_node **root, struct rl_node *n);        /* by n->key; equal keys in order of adding */
void rl_tree_del(struct rl_node **root, struct rl_node *n);
struct rl_node *rl_tree_min(struct rl_node *root);                 /* NULL if empty */
struct rl_node *rl_tree_find(struct rl_node *root, uint64_t key);  /* NULL if not there */

/* ---- a key: one cache line, and all that an idle one costs besides 5 to 11 bytes of index */

struct rl_line;

enum {
    KEY_GEN = 1,        /* which generation of its rule full_at and window were counted with: see rl_rule_set() */
    KEY_LEARNED = 2,    /* line->learned is there: its limit is not its rule's */
    KEY_EPOCH = 4,      /* which index it is in, while the stripe's index grows */
    KEY_RECENT = 8,     /* used since eviction last passed by */
    KEY_KEEP = 16,      /* not to be forgotten just now */
    KEY_PAUSED = 32,    /* not_before is a pause, or was */
};

struct rl_key {
    struct rl_id id;            /* both zero: the place is free */
    int64_t full_at;            /* when the bucket will be full again (GCRA's theoretical arrival time) */
    int64_t not_before;         /* a pause, or the spacing */
    uint64_t window_used : 40;  /* units used in calendar window number `window` */
    uint64_t in_flight : 24;
    uint32_t window;            /* its number since 1970, modulo 2^32 */
    uint32_t granted;
    union {
        struct rl_line *line;       /* NULL unless somebody waits here, holds it back or names it, or it has learned */
        uint64_t next_free;
    };
    uint32_t refused;
    uint16_t rule;
    uint8_t flags;
    uint8_t spare;
} __attribute__((aligned(64)));

_Static_assert(sizeof(struct rl_key) == 64, "a key is one cache line");
_Static_assert(RL_KEYS_MAX / 4 * 5 + 200 * 64 < ((size_t)1 << 24), "a place has a number of 24 bits");

#define RL_STRIPE_BITS   (~(uint64_t)0 << 58)
#define RL_STRIPE_OF(id) ((unsigned)((id).a >> 58))
#define RL_BIT_OF(id)    ((uint64_t)1 << RL_STRIPE_OF(id))

static inline bool rl_id_eq(struct rl_id x, struct rl_id y)
{
    return x.a == y.a && x.b == y.b;
}

static inline bool rl_id_set(struct rl_id id)
{
    return (id.a | id.b) != 0;
}

/* ---- hash.c */

uint64_t rl_checksum(const void *p, size_t n);

/* ---- rule.c: a rule made ready for arithmetic, and the arithmetic */

#define RL_NS_MAX ((int64_t)1 << 60)        /* 36 years: a few, on a clock below 2^62, cannot overflow */

struct rl_limit {
    uint64_t per_unit;          /* ns that one unit takes to refill, in 1/256 ns, rounded up; 0: no rate */
    int64_t burst_ns;           /* burst units in ns, rounded down */
    int64_t one_ns;             /* what a cost of 1 is in ns, rounded up */
    uint64_t never;             /* a larger cost cannot ever be had */
    int64_t spacing;
    uint32_t cap;               /* 0: none */
    uint8_t gen;                /* KEY_GEN or 0, flipped by each change */
    bool set, leased, calendar;
    uint64_t window_amount;     /* per calendar window */
    int64_t window_ns, window_offset;       /* the calendar window */
    /* off the hot path */
    uint64_t burst, amount;     /* as declared */
    uint64_t burst_now;         /* tightened */
    int64_t span;               /* the window of the rate, or the calendar's: how long a limit remembers */
    uint64_t tag;
    uint64_t was_per_unit;      /* of the generation before */
    int64_t was_window_ns, was_window_offset;
} __attribute__((aligned(64)));

bool rl_limit_make(const struct rl_rule *rule, struct rl_limit *ret);
void rl_limit_scale(const struct rl_limit *l, uint32_t factor, struct rl_limit *ret);
int64_t rl_cost_ns_slow(uint64_t per_unit, uint64_t cost);         /* rounded up, saturating */
uint32_t rl_window_at(int64_t ns, int64_t offset, int64_t wall);
/* When calendar window `number` is over, in wall time; near `wall`. */
int64_t rl_window_end(const struct rl_limit *l, uint32_t number, int64_t wall);
void rl_window_sync(struct rl_key *k, const struct rl_limit *l, int64_t wall);
void rl_convert(struct rl_key *k, uint64_t was_per_unit, uint64_t per_unit, int64_t now);
void rl_convert_window(struct rl_key *k, const struct rl_limit *l, int64_t was_ns, int64_t was_offset, int64_t wall);
void rl_rate_refund(struct rl_key *k, const struct rl_limit *l, uint64_t cost, int64_t granted_at, int64_t now,
                    int64_t wall_offset);
uint64_t rl_available(struct rl_key *k, const struct rl_limit *l, int64_t now, int64_t wall);

static inline int64_t rl_cost_ns(const struct rl_limit *l, uint64_t cost)
{
    return RL_LIKELY(cost == 1) ? l->one_ns : rl_cost_ns_slow(l->per_unit, cost);
}

/* When the rate can give `cost`; `now` or less: now. Also for costs above the burst (the queue's sum, or a burst that
   was tightened): when they would have been, or when the bucket is full. */
static inline int64_t rl_rate_due(const struct rl_key *k, const struct rl_limit *l, uint64_t cost, int64_t now)
{
    int64_t from, short_by;

    if (!l->per_unit)
        return now;
    from = k->full_at > now ? k->full_at : now;
    short_by = rl_cost_ns(l, cost) - l->burst_ns;
    if (short_by > 0 && cost <= l->burst)
        short_by = 0;       /* the whole burst, which roundings put a nanosecond out of reach */
    return from + short_by;
}

/* The same for the calendar window. */
int64_t rl_window_due(struct rl_key *k, const struct rl_limit *l, uint64_t cost, int64_t now, int64_t wall_offset);

/* When time alone lets `cost` through: rate, window, spacing and pause. */
static inline int64_t rl_time_due(struct rl_key *k, const struct rl_limit *l, uint64_t cost, int64_t now,
                                  int64_t wall_offset)
{
    int64_t due = rl_rate_due(k, l, cost, now);

    if (due < k->not_before)
        due = k->not_before;
    if (RL_UNLIKELY(l->calendar)) {
        int64_t at = rl_window_due(k, l, cost, now, wall_offset);

        if (due < at)
            due = at;
    }
    return due;
}

/* ---- fair.c: the queue at a key, there only while needed */

/* A share of a queue: the whole (in the line), a tenant's, or an agent's of a tenant. */
struct rl_flow {
    struct rl_node by_tag, by_id;       /* among its siblings: by virtual start time; by number */
    struct rl_flow *up;                 /* NULL: the whole */
    struct rl_node *tags, *ids;         /* its own shares */
    struct rl_node *waiters;            /* an agent's, by arrival */
    uint64_t v;                         /* virtual time among its own shares */
    uint64_t cost;                      /* sum over those waiting */
    uint32_t waiting;
    uint16_t weight;
};

struct rl_line {
    struct rl_flow all;         /* who waits for a turn */
    struct rl_node *turned;     /* who had its turn and was then blocked elsewhere: by arrival, before all others */
    struct rl_node due;         /* in the stripe's dues: when time lets the next one go */
    bool due_set;
    bool todo;                  /* on such a list: whoever has it will look later than now */
    uint32_t waiting;
    uint32_t pins;              /* waiters naming the key, plus services under way: it must not go away */
    uint32_t empties;           /* shares kept though nobody waits in them, because they are ahead of their time */
    uint64_t turned_cost;
    struct rl_key *key;
    struct rl_waiter *barrier;  /* nobody younger passes while this one, passed too often, collects its keys */
    struct rl_key *todo_next;   /* list of keys to serve, private to the thread that put it there */
    struct rl_learned *learned;
};

struct rl_stripe;

struct rl_line *rl_line_get(struct rl *rl, struct rl_key *k);     /* NULL: memory is out */
void rl_line_put(struct rl *rl, struct rl_key *k);                /* frees it if it says nothing */
struct rl_waiter *rl_line_head(struct rl *rl, struct rl_line *line);
bool rl_line_room(const struct rl *rl, const struct rl_line *line, uint64_t tenant);
struct rl_flow *rl_flow_get(struct rl *rl, struct rl_line *line, const struct rl_waiter *w);    /* NULL: memory */
struct rl_flow *rl_flow_find(const struct rl_line *line, const struct rl_waiter *w);            /* NULL: none */
void rl_line_add(struct rl_line *line, struct rl_waiter *w, struct rl_flow *flow, uint32_t cost);
void rl_line_del(struct rl *rl, struct rl_line *line, struct rl_waiter *w, uint32_t cost);
void rl_line_charge(struct rl_waiter *w, uint32_t cost);           /* before rl_line_del() */
uint32_t rl_draw(uint64_t x);

/* ---- learn.c: what providers say, and what a shared store leases */

#define RL_ONE 65536u           /* factor: all of what is declared */

struct rl_learned {
    struct rl_limit limit;      /* the rule's, tightened; of a leased key: without the rate, which the store holds */
    uint32_t factor;            /* of RL_ONE */
    uint32_t ceiling;           /* of RL_ONE: what the provider says of its limit */
    uint32_t before;            /* factor before the last recovery; 0: the last change was a cut */
    uint32_t fails, throttled;
    uint32_t granted;           /* key's count at the last change */
    int64_t changed_at, throttled_at, backoff;
    uint64_t left;              /* units until left_until, whatever the rate says; RL_UNKNOWN: nothing said */
    int64_t left_until;
    uint64_t leased;            /* what the last lease brought */
    uint32_t places;
    bool near;                  /* recovered since the last cut: the real limit is about here */
    bool wanting;
};

const struct rl_limit *rl_limit_slow(struct rl *rl, struct rl_key *k, int64_t now);
bool rl_learned_says_nothing(const struct rl_key *k, int64_t now);
void rl_learned_drop(struct rl *rl, struct rl_key *k);
struct rl_learned *rl_learned_get(struct rl *rl, struct rl_key *k);
void rl_learned_rule(struct rl *rl, struct rl_key *k);
bool rl_left_blocks(struct rl *rl, struct rl_key *k, uint64_t cost, int64_t now, int64_t *ret_due);
void rl_learned_restore(struct rl *rl, struct rl_key *k, uint32_t factor, uint64_t left, int64_t left_until,
                        int64_t now);

/* ---- table.c: id -> key, and forgetting idle ones */

struct rl_counts {
    uint64_t granted;           /* first: in the line of the lock */
    uint64_t queued, late, never, busy, table_full, timed_out, cancelled, evicted, throttled;
};

/* What a grant touches is in the first line, which is another thread's to fetch when the lock is. Two lines together,
   because processors fetch pairs of them. */
struct rl_stripe {
    _Atomic bool locked;
    uint8_t epoch;
    uint32_t mask;
    uint32_t *index;            /* open addressing: RL_SLOT_BITS of place + 1, and a tag. Written under the lock, but
                                   looked at without it to fetch what it points at: index_at() */
    uint32_t filled, len;       /* words of the index in use; keys */
    uint32_t *old, old_mask;    /* while it grows: the index before ... */
    uint32_t moved;             /* ... and how many places of the chunks have gone over */
    uint64_t free;              /* place + 1 of a free one; 0: none */
    struct rl_counts counts;
    uint32_t *chunks, n_chunks, room_chunks;
    uint32_t fresh;             /* places never used in the last chunk begin here */
    uint32_t hand;              /* where eviction goes on */
    struct rl_node *timers;     /* this stripe's queued waiters by deadline */
    struct rl_node *dues;       /* its lines by the time their next could go */
    uint64_t more_bytes;        /* lines, flows, learned */
} __attribute__((aligned(128)));

_Static_assert(offsetof(struct rl_stripe, counts) + sizeof(uint64_t) <= 64, "the count of grants is in the first line");

struct rl_name {
    struct rl_id id;
    uint32_t used;
    uint16_t len;
    char *bytes;
};

struct rl {
    struct rl_config cfg;
    struct rl_limit *rules;
    struct rl_key *slots;               /* all keys, in chunks that belong to a stripe each */
    size_t slots_max;
    _Atomic uint32_t next_chunk;
    uint64_t rules_gen;
    _Atomic bool rules_locked;
    _Atomic int64_t wall_offset;        /* wall clock less `now` */
    _Atomic uint64_t order;             /* of arrival, given when queued */
    _Atomic int64_t armed;              /* the next tick the caller knows of */
    _Atomic size_t keys, waiting;
    _Atomic int64_t due[RL_STRIPES];    /* earliest timer of each stripe, readable without its lock */
    _Atomic bool names_locked;
    struct rl_name *names;
    uint32_t names_mask, names_clock;
    uint64_t names_bytes;
    struct rl_stripe stripes[RL_STRIPES];
};

void rl_lock_slowly(_Atomic bool *locked);

static inline void rl_lock_one(_Atomic bool *locked)
{
    if (RL_UNLIKELY(atomic_exchange_explicit(locked, true, memory_order_acquire)))
        rl_lock_slowly(locked);
}

static inline void rl_unlock_one(_Atomic bool *locked)
{
    atomic_store_explicit(locked, false, memory_order_release);
}

static inline void rl_lock(struct rl *rl, uint64_t stripes)
{
    for (; stripes; stripes &= stripes - 1)
        rl_lock_one(&rl->stripes[__builtin_ctzll(stripes)].locked);
}

static inline void rl_unlock(struct rl *rl, uint64_t stripes)
{
    for (; stripes; stripes &= stripes - 1)
        rl_unlock_one(&rl->stripes[__builtin_ctzll(stripes)].locked);
}

static inline int64_t rl_wall_offset(struct rl *rl)
{
    return atomic_load_explicit(&rl->wall_offset, memory_order_relaxed);
}

#define RL_CHUNK      64u           /* keys in a chunk: a page */
#define RL_SLOT_BITS  24
#define RL_SLOT_MASK  (((uint32_t)1 << RL_SLOT_BITS) - 1)
#define RL_GONE       1u            /* a word whose key was forgotten: that of a place which is never used */

bool rl_table_init(struct rl *rl);
void rl_table_release(struct rl *rl);
/* The stripe's lock is held, and of others exactly `held`. NULL: the table is full of keys in use, or memory is out. */
struct rl_key *rl_table_add(struct rl *rl, uint64_t held, struct rl_id id, uint16_t rule, int64_t now);
/* Calls fn for the keys of one chunk of a stripe under its lock, until it says false. False: it did, or there is no
   such chunk. */
bool rl_table_chunk(struct rl *rl, unsigned stripe, uint32_t chunk,
                    bool (*fn)(struct rl *rl, struct rl_key *k, void *arg), void *arg);
/* The same for all chunks, with no lock held in between. */
void rl_table_each(struct rl *rl, unsigned stripe, bool (*fn)(struct rl *rl, struct rl_key *k, void *arg), void *arg);
bool rl_key_idle(const struct rl_key *k, int64_t now, int64_t wall, const struct rl_limit *l);

static inline uint32_t rl_word_tag(struct rl_id id)
{
    return (uint32_t)(id.b >> (64 - (32 - RL_SLOT_BITS))) << RL_SLOT_BITS;
}

static inline struct rl_key *rl_index_find(struct rl *rl, const uint32_t *index, uint32_t mask, struct rl_id id)
{
    uint32_t tag = rl_word_tag(id), i = (uint32_t)id.a & mask, word;

    for (; (word = index[i]) != 0; i = (i + 1) & mask) {
        if ((word & ~RL_SLOT_MASK) == tag) {
            struct rl_key *k = &rl->slots[(word & RL_SLOT_MASK) - 1];

            if (RL_LIKELY(rl_id_eq(k->id, id)))
                return k;
        }
    }
    return NULL;
}

/* The same in the index from before, while a larger one is filled. */
struct rl_key *rl_table_find_old(struct rl *rl, struct rl_stripe *s, struct rl_id id);

/* The stripe's lock is held. NULL: not there. */
static inline struct rl_key *rl_table_find(struct rl *rl, struct rl_id id)
{
    struct rl_stripe *s = &rl->stripes[RL_STRIPE_OF(id)];
    struct rl_key *k = rl_index_find(rl, s->index, s->mask, id);

    return RL_UNLIKELY(!k) && s->old ? rl_table_find_old(rl, s, id) : k;
}

/* The limit a key is under now. */
static inline const struct rl_limit *rl_limit_of(struct rl *rl, struct rl_key *k, int64_t now)
{
    const struct rl_limit *l = &rl->rules[k->rule];

    if (RL_LIKELY((k->flags & (KEY_GEN | KEY_LEARNED)) == l->gen))
        return l;
    return rl_limit_slow(rl, k, now);
}

/* Takes one key of a set that can be had, but for what it has left. */
static inline void rl_take_key(struct rl_permit *p, struct rl_hold *h, const struct rl_limit *l, int64_t now)
{
    struct rl_key *k = h->key;

    if (l->per_unit)
        k->full_at = (k->full_at > now ? k->full_at : now) + rl_cost_ns(l, h->cost);
    if (RL_UNLIKELY(l->spacing) && k->not_before < now + l->spacing) {
        k->not_before = now + l->spacing;
        k->flags &= (uint8_t)~KEY_PAUSED;
    }
    if (RL_UNLIKELY(l->calendar))
        k->window_used += h->cost;
    h->counted = l->cap != 0;
    if (h->counted) {
        p->counted |= RL_BIT_OF(k->id);
        k->in_flight++;
    }
    k->granted++;
    k->flags |= KEY_RECENT;
}

static inline void rl_granted(struct rl *rl, struct rl_permit *p, int64_t now)
{
    p->magic = RL_PERMIT_HELD;
    p->granted_at = now;
    p->rules_gen = rl->rules_gen;
    rl->stripes[__builtin_ctzll(p->stripes)].counts.granted++;
}

/* ---- stats.c */

void rl_name_note(struct rl *rl, struct rl_id id, const struct rl_ask *ask);

/* ---- queue.c: waiting and serving; all of these need the locks of the waiter's keys unless they say otherwise */

/* One operation's unfinished business, done with no lock held. */
struct rl_work {
    struct rl *rl;
    int64_t now;
    int64_t soonest;            /* earliest timer set on the way */
    struct rl_key *todo;        /* pinned */
    struct rl_waiter *woken, **woken_end;
    int left;                   /* of RL_BATCH: how many waiters may still be decided */
    bool ticking;               /* rl_tick() tells its caller itself when to come back */
    uint32_t n_wants;
    struct rl_want wants[RL_ASKS_MAX];
};

/* Whether a set of keys can be had now, and if not, where to wait. */
struct rl_look {
    int block;                  /* index into hold[]; -1: all clear */
    int64_t due;                /* when time alone ends that block; RL_FOREVER: it is not a matter of time */
    int64_t earliest;           /* not before this, by rates and pauses and the costs queued ahead */
    bool behind;                /* somebody else goes first there, or holds it back */
    bool never;                 /* hold[block] costs more than can ever be had */
};

void rl_work_init(struct rl_work *work, struct rl *rl, int64_t now);
void rl_work_run(struct rl_work *work);                    /* no lock held: serves, wakes, alarms */
void rl_todo(struct rl_work *work, struct rl_key *k);      /* k's lock: serve it when the locks are dropped */
void rl_want_more(struct rl_work *work, struct rl_key *k, uint64_t units);      /* k's lock */
void rl_examine(struct rl_work *work, struct rl_waiter *w, bool fresh, struct rl_look *ret);
void rl_take(struct rl_work *work, struct rl_waiter *w);
enum rl_result rl_enqueue(struct rl_work *work, struct rl_waiter *w, const struct rl_look *look);
void rl_leave(struct rl_work *work, struct rl_waiter *w, enum rl_result result);
void rl_time_out(struct rl_work *work, struct rl_waiter *w);
bool rl_is_waiting(const struct rl_waiter *w);
bool rl_is_queued_at(const struct rl_line *line);
/* The stripe's lock is enough for these. */
struct rl_waiter *rl_first_late(struct rl_stripe *s, int64_t now);
bool rl_dues_fire(struct rl_work *work, struct rl_stripe *s);

/* ---- ratelimit.c */

/* Finds or makes the key; it follows the rule. The stripes in `held` are locked. NULL: *ret_why. */
struct rl_key *rl_follow(struct rl_work *work, uint64_t held, struct rl_id id, uint16_t rule, enum rl_result *ret_why);
struct rl_id rl_ask_id(const struct rl *rl, const struct rl_ask *ask);

#endif
