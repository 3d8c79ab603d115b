/*
 * ratelimit.h -- permits under limits: rates and concurrency, several keys at once, queueing to a deadline
 *
 * A limit is a KEY (bytes, for example "acme|outlook|bob@example.com|mailbox") that follows a RULE (so many units per
 * window, and/or so many in flight).  An acquisition names up to RL_ASKS_MAX keys, each with a cost in that key's own
 * unit, and is granted whole or not at all.  What cannot go now waits in a queue, at the key that blocks it, until it
 * is granted by hand-over, refused, cancelled, or past its deadline.
 *
 *     struct rl_ask asks[] = { { "acme", 4, RULE_TENANT, 1 }, { box, box_len, RULE_MAILBOX, 1 } };
 *
 *     switch (rl_acquire(rl, &w, asks, 2, deadline, now)) {
 *     case RL_GRANTED: break;                          // w.permit is ours
 *     case RL_QUEUED:  wait until w.wake was called, then look at w.result; break;
 *     default:         refused: w.retry_at says when asking again could help
 *     }
 *     ... act ...
 *     rl_release(rl, &w.permit, now);
 *
 * Time is always an argument: nanoseconds of one monotonic clock; the library never reads one.  Threads may differ in
 * their idea of `now` by some skew (a loop's cached stamp): rates then hold over any span t as burst + rate * (t +
 * skew).
 *
 * Threads: every function may be called from any thread unless it says otherwise.  No function waits for anything but
 * short locks.  Callbacks are called with no lock held; they should only hand over (post a message): they may call
 * rl_* functions, but those nest on the caller's stack.
 *
 * Memory: a waiter belongs to the caller and is linked into the library's queues while it waits.  A key's state is
 * created when it is first named, and is dropped, when room is needed, once it says nothing any more (bucket full,
 * nothing in flight, nobody waiting, no pause): forgetting it changes no decision.
 */
#ifndef RATELIMIT_H
#define RATELIMIT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define RL_ASKS_MAX  8              /* keys in one acquisition */
#define RL_KEY_MAX   512            /* bytes in one key */
#define RL_RULES_MAX 65535
#define RL_FOREVER   INT64_MAX      /* as a deadline: none; as an answer: no time can be named */

struct rl;
struct rl_key;

enum rl_result {
    RL_GRANTED,         /* the permit is held; return it once */
    RL_QUEUED,          /* waiting; wake() will be called exactly once, unless rl_cancel() takes the waiter out first */
    RL_LATE,            /* refused: by rates, pauses and the costs queued ahead not before retry_at, which is past
                           the deadline */
    RL_NEVER,           /* refused: a cost is larger than its rule's burst */
    RL_BUSY,            /* refused: too many are waiting (for this key, or in all), or memory is out */
    RL_TABLE_FULL,      /* refused: keys_max keys are in use and none found idle */
    RL_NO_RULE,         /* refused: a rule id that was never set */
    RL_TIMED_OUT,       /* was queued; its deadline passed */
    RL_CANCELLED,       /* was queued; rl_cancel() took it out */
};

/* "granted", "queued", ...: for logs and metrics. */
const char *rl_result_name(enum rl_result r);

/* ------------------------------------------------------------------------------------------------ rules */

enum rl_rate {
    RL_RATE_NONE,       /* no rate; amount, window and burst are ignored */
    RL_RATE_BUCKET,     /* the provider runs a token bucket: `burst` at once, refilled by `amount` per window.
                           Over any span t: at most burst + amount * t / window. burst 0 means amount. */
    RL_RATE_WINDOW,     /* the provider counts in windows, fixed or sliding, wherever they begin: at most `amount` in
                           any window (half open). `burst` of them may come at once, the rest is spread evenly, so the
                           sustained rate is amount - burst + 1 per window. burst 0 means amount / 20, at least 1. */
};

struct rl_rule {
    enum rl_rate rate;
    uint64_t amount;            /* units per window; 1 .. 2^40 */
    int64_t window_ns;          /* 1 ns .. 400 days */
    uint64_t burst;             /* units; RL_RATE_WINDOW: at most amount */
    uint32_t concurrency;       /* permits in flight at once; 0: no cap. Providers that allow nothing: rl_pause() */
};

/* ------------------------------------------------------------------------------------------------ asking */

struct rl_ask {
    const void *key;            /* only read during the call; the same key named twice is asked once, costs added */
    uint16_t key_len;           /* 1 .. RL_KEY_MAX */
    uint16_t rule;              /* the rule this key follows from now on, whatever it followed before */
    uint32_t cost;              /* units of the rule's rate; 0 takes a place in flight only */
};

/* What was granted. Plain memory of the caller; every field is the library's. */
struct rl_permit {
    uint32_t magic;             /* tells a held permit from a returned one: returning twice aborts */
    uint32_t n;
    uint64_t stripes;           /* bit set: the locks that cover the keys below */
    int64_t granted_at;
    uint64_t rules_gen;         /* generation of the rules it was granted under */
    struct rl_hold {
        struct rl_key *key;
        uint32_t cost;
    } hold[RL_ASKS_MAX];
};

/* A node of the library's ordered queues. */
struct rl_node {
    struct rl_node *up, *left, *right;
    uint64_t key;
    uint32_t prio;
};

/*
 * One acquisition. Embed it in what waits, set wake, and call rl_acquire(). It must stay where it is from RL_QUEUED
 * until wake() was entered or rl_cancel() returned true; wake() itself may free it (nothing touches it afterwards).
 */
struct rl_waiter {
    void (*wake)(struct rl_waiter *w);  /* told once that `result` is final; may run in any thread, before rl_acquire()
                                           has returned RL_QUEUED in its own */
    enum rl_result result;              /* valid in and after wake() */
    uint32_t blocked;                   /* which of the asks refused or last held it up (index into the asks; with a
                                           key named twice: into the distinct ones) */
    int64_t retry_at;                   /* refused: not before this could the same acquisition be granted, by rates and
                                           pauses (RL_NEVER, RL_NO_RULE: RL_FOREVER) */
    struct rl_permit permit;            /* held when result is RL_GRANTED */

    /* the library's */
    uint32_t magic, moves;
    int64_t deadline;
    struct rl_key *home;                /* whose queue it is in */
    struct rl_node line, timer;         /* in home's queue by order of arrival; in its stripe's timers */
    struct rl_waiter *next;
};

/* ------------------------------------------------------------------------------------------------ the limiter */

struct rl_config {
    size_t keys_max;                /* 0: 1048576 */
    size_t waiters_max;             /* over all keys; 0: 1048576 */
    size_t waiters_per_key_max;     /* arrivals beyond are refused; 0: 65536 */
    uint32_t rules_max;             /* ids are below this; 0: 1024 */
    uint64_t seed[2];               /* keys the hash: random, so that who names keys cannot make them collide */
    /* Called when the next rl_tick() is needed earlier than the last told (by rl_tick() or by this), from whatever
       thread caused it. NULL: the caller looks at rl_next() or ticks at a fixed pace. */
    void (*alarm)(void *arg, int64_t at);
    void *alarm_arg;
};

/* NULL when memory is out or rules_max is above RL_RULES_MAX. */
struct rl *rl_new(const struct rl_config *config);

/* Nothing may wait or be in flight (asserted for waiting). NULL is fine. */
void rl_free(struct rl *rl);

/*
 * Sets or replaces rule `id` for all keys that follow it. Their state is kept in units: what was used stays used, what
 * is in flight stays counted; waiters are looked at again at once. Returns false, changing nothing, when the rule or
 * the id is outside the bounds above. A rule equal to the present one costs nothing. O(keys), no lock held long.
 */
bool rl_rule_set(struct rl *rl, uint16_t id, const struct rl_rule *rule, int64_t now);

/*
 * Asks for all keys at once. RL_GRANTED, RL_QUEUED, or a refusal with w->retry_at and w->blocked set.
 * deadline (ns, same clock): RL_FOREVER waits without end; at or before `now` means "now or not at all" (RL_LATE).
 * Fresh arrivals never pass a waiter that is queued at one of their keys. n: 1 .. RL_ASKS_MAX (asserted).
 */
enum rl_result rl_acquire(struct rl *rl, struct rl_waiter *w, const struct rl_ask *asks, size_t n, int64_t deadline,
                          int64_t now);

/*
 * Takes a waiter that was RL_QUEUED out of its queue. true: it left ungranted, wake() will not be called, its memory is
 * free. false: it was already decided; wake() has been or is being called: wait for it, then look at result, and if
 * that is RL_GRANTED return the permit.
 */
bool rl_cancel(struct rl *rl, struct rl_waiter *w, int64_t now);

/* Returns a permit: its places in flight go to whoever waits. Aborts if it is not held. */
void rl_release(struct rl *rl, struct rl_permit *p, int64_t now);

/* Returns a permit nothing was sent under: as rl_release(), and gives back what the elapsed time has not refilled
   anyway, so the rate still holds for what was used. */
void rl_return(struct rl *rl, struct rl_permit *p, int64_t now);

/*
 * The provider asked for silence (Retry-After): nothing is granted on this key before `until`. Never shortens a pause.
 * Waiters stay queued. The key is created with `rule` if unknown, and follows it. RL_GRANTED when set, else
 * RL_TABLE_FULL or RL_NO_RULE.
 */
enum rl_result rl_pause(struct rl *rl, const void *key, size_t key_len, uint16_t rule, int64_t until, int64_t now);

/* Ends a pause early. */
void rl_resume(struct rl *rl, const void *key, size_t key_len, int64_t now);

/*
 * Grants what has become possible by the passing of time and times out what is past its deadline. Returns when to call
 * again (RL_FOREVER: when alarm() says). Calling early or late is harmless: early does nothing, late delays.
 */
int64_t rl_tick(struct rl *rl, int64_t now);

/* When the next rl_tick() has something to do; RL_FOREVER if nothing waits for time. */
int64_t rl_next(struct rl *rl);

/* ------------------------------------------------------------------------------------------------ looking */

struct rl_stats {
    uint64_t keys, waiting, bytes;              /* now; bytes: keys and their index, without the allocator's rounding */
    uint64_t granted, queued, late, never, busy, table_full, timed_out, cancelled, evicted;    /* since rl_new() */
};

struct rl_key_stats {
    const void *key;
    size_t key_len;
    uint16_t rule;
    uint32_t waiting;           /* queued at this key (waiters queued elsewhere that also need it are not counted) */
    uint32_t in_flight, concurrency;
    uint64_t granted;
    uint32_t refused;           /* RL_LATE, RL_NEVER, RL_BUSY and RL_TIMED_OUT that this key caused */
    uint64_t available;         /* units that could be had now; UINT64_MAX without a rate */
    int64_t paused_until;       /* 0 when not paused */
};

void rl_stats(struct rl *rl, struct rl_stats *ret);

/* false: the key is not known (never named, or forgotten because idle). ret->key is `key`. */
bool rl_key_stats(struct rl *rl, const void *key, size_t key_len, int64_t now, struct rl_key_stats *ret);

/* Calls fn for each key that has something waiting or in flight, or is paused (all: for every key), until fn returns
   false. A lock is held: fn must be short and call no rl_ function; the key's bytes are valid during the call only. A
   key may be seen twice when others are created meanwhile. For an admin view. */
void rl_visit(struct rl *rl, bool all, int64_t now, bool (*fn)(void *arg, const struct rl_key_stats *s), void *arg);

#endif
