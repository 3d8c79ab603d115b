/*
 * ratelimit.h -- permits under limits: rates, windows, concurrency and spacing, several keys at once, queueing fairly
 * to a deadline
 *
 * A limit is a KEY (bytes, for example "acme|outlook|bob@example.com|mailbox", or an id made from scope to scope) that
 * follows a RULE (so many units per window, so many per calendar day, so many in flight, so far apart: any of these
 * together).  An acquisition names up to RL_ASKS_MAX keys, each with a cost in that key's own unit, and is granted
 * whole or not at all.  What cannot go now waits in a queue, at the key that blocks it, until it is granted by
 * hand-over, refused, cancelled, or past its deadline.
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
 * skew).  A `now` that goes backwards delays, and grants nothing it should not.  Calendar windows and what is saved
 * need the wall clock: rl_wall() says what it shows; nothing else does.
 *
 * Threads: every function may be called from any thread unless it says otherwise.  No function waits for anything but
 * short locks.  Callbacks are called with no lock held; they should only hand over (post a message): they may call
 * rl_* functions, but those nest on the caller's stack.
 *
 * Memory: a waiter belongs to the caller and is linked into the library's queues while it waits.  A key's state is
 * created when it is first named, and is dropped, when room is needed, once it says nothing any more (bucket full,
 * window over, nothing in flight, nobody waiting, no pause, nothing learned): forgetting it changes no decision.  The
 * library keeps a key's 128 bit keyed hash, not its bytes; names are kept for a bounded number of keys worth showing.
 */
#ifndef RATELIMIT_H
#define RATELIMIT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define RL_ASKS_MAX  8              /* keys in one acquisition */
#define RL_KEY_MAX   512            /* bytes in one key */
#define RL_KEYS_MAX  ((size_t)12 << 20)
#define RL_RULES_MAX 65535
#define RL_FOREVER   INT64_MAX      /* as a deadline: none; as an answer: no time can be named */
#define RL_UNKNOWN   UINT64_MAX     /* in struct rl_heard: not said */

struct rl;
struct rl_key;
struct rl_flow;

enum rl_result {
    RL_GRANTED,         /* the permit is held; return it once */
    RL_QUEUED,          /* waiting; wake() will be called exactly once, unless rl_cancel() takes the waiter out first */
    RL_LATE,            /* refused: by rates, windows, pauses and the costs queued ahead not before retry_at, which is
                           past the deadline */
    RL_NEVER,           /* refused: a cost is larger than its rule's burst, or than a whole window */
    RL_BUSY,            /* refused: too many are waiting (for this key, of this tenant, or in all), or memory is out */
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

/* What a key may do. Every dimension that is set holds by itself; a zero one is absent. */
struct rl_rule {
    enum rl_rate rate;
    uint64_t amount;            /* units per window; 1 .. 2^40 */
    int64_t window_ns;          /* 1 ns .. 400 days */
    uint64_t burst;             /* units; RL_RATE_WINDOW: at most amount */

    /* A window that begins at fixed times of the wall clock: at every multiple of calendar_ns since 1970-01-01 00:00
       UTC, plus calendar_offset_ns (a provider's midnight at UTC-8: 8 h). At most calendar_amount units in each. */
    uint64_t calendar_amount;   /* 0: none; at most 2^39 */
    int64_t calendar_ns;        /* 1 s .. 400 days */
    int64_t calendar_offset_ns; /* within +- calendar_ns */

    uint32_t concurrency;       /* permits in flight at once, below 2^23; 0: no cap. Permits granted while the key had
                                   no cap are not counted. Providers that allow nothing: rl_pause() */
    int64_t spacing_ns;         /* between one grant on a key and the next; 0: none; at most 400 days */
    uint64_t tag;               /* names the rule across restarts (rl_save); 0: its id does */
    bool leased;                /* the key's units come from a shared store, by rl_lease(): see rl_store */
};

/* ------------------------------------------------------------------------------------------------ keys */

/* A key by its keyed hash: a plain value, good as long as the limiter's seed. Both zero: none. */
struct rl_id {
    uint64_t a, b;
};

/* The id of a key given as bytes; what a caller with a fixed key computes once. len: 0 .. any. */
struct rl_id rl_id_of(const struct rl *rl, const void *key, size_t len);

/* The id of a part (an account, a method, a channel) within a scope (a tenant, an app): ids compose from scope to
   scope without joining strings, and no choice of parts can make two different paths the same. All that is made from
   one scope is under one lock: a set of keys of one tenant is cheapest when all are made from the tenant's id. */
struct rl_id rl_id_sub(struct rl_id scope, const void *part, size_t len);

/* The id of the n-th of several keys that a scope has (an account's requests, its places in flight): as rl_id_sub(),
   but costs nothing, and such keys are found side by side. n: 1 .. 65535, the caller's to choose. For keys, not for
   scopes: the n-th of an m-th is the scope's (n + m)-th. */
static inline struct rl_id rl_id_nth(struct rl_id scope, uint16_t n)
{
    return (struct rl_id){ scope.a, scope.b + n * 0x9e3779b97f4a7c15u };
}

/* ------------------------------------------------------------------------------------------------ asking */

struct rl_ask {
    const void *key;            /* only read during the call; the same key named twice is asked once, costs added */
    uint16_t key_len;           /* 1 .. RL_KEY_MAX; with an id: the name to show, may be 0 */
    uint16_t rule;              /* the rule this key follows from now on, whatever it followed before */
    uint32_t cost;              /* units of the rule's rate and windows; 0 takes a place in flight only */
    struct rl_id id;            /* set: the key; else it is made of the bytes */
    uint32_t *place;            /* NULL, or memory the caller keeps beside this key's id, zero at first: where the key
                                   was found last, which saves looking for it. Any threads may share it */
    /* NULL, or with an id: writes the name to show, of which it answers the length (0: none), when one is wanted, which
       is seldom; `key` is then whatever it needs for that. Locks are held: it must be short and call no rl_ function */
    size_t (*name)(const struct rl_ask *ask, char to[RL_KEY_MAX]);
};

/* What was granted. Plain memory of the caller; every field is the library's. */
struct rl_permit {
    uint32_t magic;             /* tells a held permit from a returned one: returning twice aborts */
    uint32_t n;
    uint64_t stripes;           /* bit set: the locks that cover the keys below ... */
    uint64_t counted;           /* ... and those of keys that count it in flight */
    int64_t granted_at;
    uint64_t rules_gen;         /* generation of the rules it was granted under */
    struct rl_hold {
        struct rl_key *key;
        uint64_t check;         /* half of the key's id: the key was not forgotten meanwhile */
        uint32_t cost;
        bool counted;           /* in flight at the key */
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
 *
 * Where there is a queue, its tenants are served by weight, each tenant's agents by weight, and an agent's calls in
 * order of arrival. A waiter that names none shares one flow with all such.
 */
struct rl_waiter {
    void (*wake)(struct rl_waiter *w);  /* told once that `result` is final; may run in any thread, before rl_acquire()
                                           has returned RL_QUEUED in its own */
    uint64_t tenant, agent;             /* any numbers that tell them apart (an rl_id's half); 0: none named */
    uint16_t tenant_weight, agent_weight;       /* 0: 1. Of the last one that joined, if they differ */
    enum rl_result result;              /* valid in and after wake() */
    uint32_t blocked;                   /* which of the asks refused or last held it up (index into the asks; with a
                                           key named twice: into the distinct ones) */
    int64_t retry_at;                   /* refused: not before this could the same acquisition be granted, by rates and
                                           pauses (RL_NEVER, RL_NO_RULE: RL_FOREVER) */
    struct rl_permit permit;            /* held when result is RL_GRANTED */
    uint32_t expected_by;               /* RL_QUEUED: `blocked` and `retry_at` as they were then, */
    int64_t expected_at;                /* for telling somebody; nothing changes them while it waits */

    /* the library's */
    uint32_t magic, moves;
    uint32_t home_i;                    /* index of its home in permit.hold */
    uint8_t turns, paid;                /* bit i: its turn at hold[i] has come; was charged to its share there */
    int64_t queued_at;
    int64_t deadline;
    struct rl_key *home;                /* whose queue it is in */
    struct rl_flow *flow;               /* its agent's part of that queue; NULL: among those whose turn has come */
    struct rl_node line, timer;         /* in home's queue, by order of arrival; in its stripe's deadlines */
    struct rl_waiter *next;
};

/* ------------------------------------------------------------------------------------------------ the limiter */

struct rl_config {
    size_t keys_max;                /* 0: 1048576; at most RL_KEYS_MAX */
    size_t waiters_max;             /* over all keys; 0: 1048576 */
    size_t waiters_per_key_max;     /* arrivals beyond are refused; 0: 65536. One tenant may take at most as many of
                                       them as it leaves free, so that it never fills a queue alone */
    uint32_t rules_max;             /* ids are below this; 0: 1024 */
    uint32_t names_max;             /* keys whose bytes are kept for showing; 0: 4096 */
    uint64_t seed[2];               /* keys the hash: random, so that who names keys cannot make them collide. Nodes
                                       that share a store share it. rl_load() replaces it by the saved one */
    /* Called when the next rl_tick() is needed earlier than the last told (by rl_tick() or by this), from whatever
       thread caused it. NULL: the caller looks at rl_next() or ticks at a fixed pace. */
    void (*alarm)(void *arg, int64_t at);
    void *alarm_arg;
    const struct rl_store *store;   /* for rules with `leased` */
};

/* NULL when memory is out, or keys_max or rules_max is above its bound. */
struct rl *rl_new(const struct rl_config *config);

/* Nothing may wait or be in flight (asserted for waiting). NULL is fine. */
void rl_free(struct rl *rl);

/* The wall clock shows wall_ns (since 1970-01-01 UTC) at `now`. Call it at the start and whenever the clock may have
   been set, e.g. once a second: cheap when nothing changed. Without it calendar windows begin at multiples of `now`. A
   window once begun is never opened again by a clock set back: what was used in it stays used until it is over. */
void rl_wall(struct rl *rl, int64_t wall_ns, int64_t now);

/*
 * Sets or replaces rule `id` for all keys that follow it. Their state is kept in units: what was used stays used, what
 * is in flight stays counted; waiters are looked at again at once. Returns false, changing nothing, when the rule or
 * the id is outside the bounds above. A rule equal to the present one costs nothing. O(keys), no lock held long.
 */
bool rl_rule_set(struct rl *rl, uint16_t id, const struct rl_rule *rule, int64_t now);

/* Is the rule inside the bounds? They are those above, and a bucket (of a window rule too) fills within 36 years. */
bool rl_rule_sound(const struct rl_rule *rule);

/*
 * Asks for all keys at once. RL_GRANTED, RL_QUEUED, or a refusal with w->retry_at and w->blocked set.
 * deadline (ns, same clock): RL_FOREVER waits without end; at or before `now` means "now or not at all" (RL_LATE).
 * Fresh arrivals never pass a waiter that is queued at one of their keys. n: 1 .. RL_ASKS_MAX (asserted).
 */
enum rl_result rl_acquire(struct rl *rl, struct rl_waiter *w, const struct rl_ask *asks, size_t n, int64_t deadline,
                          int64_t now);

/*
 * Asks for all keys at once where they are usually to be had: true: granted, *ret is held. False: nothing has changed,
 * nor was anything refused: ask by rl_acquire(), which says what comes of it. n: 1 .. RL_ASKS_MAX (asserted).
 */
bool rl_try(struct rl *rl, struct rl_permit *ret, const struct rl_ask *asks, size_t n, int64_t now);

/*
 * Takes a waiter that was RL_QUEUED out of its queue. true: it left ungranted, wake() will not be called, its memory is
 * free. false: it was already decided; wake() has been or is being called: wait for it, then look at result, and if
 * that is RL_GRANTED return the permit.
 */
bool rl_cancel(struct rl *rl, struct rl_waiter *w, int64_t now);

/* Asks memory for what returning a permit looks at: where there are many keys, it has left the processor's caches. */
static inline void rl_permit_ahead(const struct rl_permit *p)
{
    for (uint32_t i = 0; i < p->n; i++)
        __builtin_prefetch(p->hold[i].key, 1);
}

/* Returns a permit: its places in flight go to whoever waits. Aborts if it is not held. */
void rl_release(struct rl *rl, struct rl_permit *p, int64_t now);

/* Returns a permit nothing was sent under: as rl_release(), and gives back what the elapsed time has not refilled
   anyway, so the rate still holds for what was used. */
void rl_return(struct rl *rl, struct rl_permit *p, int64_t now);

/*
 * Grants what has become possible by the passing of time and times out what is past its deadline. Returns when to call
 * again (RL_FOREVER: when alarm() says; `now` or less: at once, there is more than one call does, see RL_BATCH).
 * Calling early or late is harmless: early does nothing, late delays.
 */
int64_t rl_tick(struct rl *rl, int64_t now);

/* When the next rl_tick() has something to do; RL_FOREVER if nothing waits for time. */
int64_t rl_next(struct rl *rl);

#define RL_BATCH 1024           /* waiters that one call decides at most; the rest is left to rl_tick() */

/* ------------------------------------------------------------------------------------------------ what they say */

/* In all of these only ask->key, key_len, id, name and rule count. They answer RL_GRANTED when done, else
   RL_TABLE_FULL, RL_NO_RULE, or RL_BUSY when memory is out. The key is created if it is unknown, and follows the
   rule. */

/*
 * The provider asked for silence (Retry-After): nothing is granted on this key before `until`. Never shortens a pause.
 * Waiters stay queued.
 */
enum rl_result rl_pause(struct rl *rl, const struct rl_ask *ask, int64_t until, int64_t now);

/* Ends a pause early. A pause hides when the last grant was: a key with spacing keeps a whole one from now on, or as
   much as was left of the pause if that is less. */
void rl_resume(struct rl *rl, const struct rl_ask *ask, int64_t now);

/*
 * A request granted at granted_at (permit.granted_at) was throttled on this key: the real limit is lower than the
 * declared one, or somebody else uses it. Pauses the key until `until` (0: not said; then for a sixteenth of its window
 * and twice as long each time in a row), and tightens it: what it may do is cut by a quarter, once for all requests
 * granted before that cut took effect (and without `until` not again within a window), down to 1/64 of the declared. It
 * recovers by 1/32 each time that the key has been quiet for 2 windows and 4,096 grants; a recovery that led to a
 * throttle is taken back, and doubles the wait for the next and halves its step, up to 64 times and down to 1/256.
 * After a day without a throttle all of it is allowed again.
 */
enum rl_result rl_throttled(struct rl *rl, const struct rl_ask *ask, int64_t granted_at, int64_t until, int64_t now);

struct rl_heard {
    uint64_t limit;             /* units per window; RL_UNKNOWN: not said */
    uint64_t remaining;         /* units left until reset_at; RL_UNKNOWN: not said */
    int64_t reset_at;           /* ns, this clock; 0: not said, then one window from now */
};

/* An answer told what is left of the quota. Less than we believe: somebody else eats from it, and until reset_at no
   more than that is granted. A lower limit than declared is taken over. Costs nothing when there is nothing to learn;
   answers out of order are harmless. */
enum rl_result rl_observe(struct rl *rl, const struct rl_ask *ask, const struct rl_heard *heard, int64_t now);

/* ------------------------------------------------------------------------------------------------ shared quotas */

/*
 * Several nodes, one quota: a shared store holds the keys of rules with `leased`, and each node spends what it has
 * leased from there: a number of units and of places in flight, until a time. A node asks for more when a grant needs
 * it; what comes is added by rl_lease(). The local limiter goes on as with any other key: queues, fairness, pauses and
 * spacing are its own. A limiter can itself be the store: what a node wants is asked of it by rl_acquire(), with the
 * node as the tenant, so that nodes share as tenants do; granted, it is handed on by rl_lease().
 */
struct rl_want {
    struct rl_id id;
    uint16_t rule;
    uint64_t rule_tag;
    uint64_t units;             /* wanted at least, for who waits and for a while to come */
    uint32_t places;            /* in flight; 0: enough are leased, or the rule has no cap */
};

struct rl_store {
    void *arg;
    /* More is needed. Called with no lock held, once until rl_lease() answers (with 0 units: none now). */
    void (*want)(void *arg, struct rl *rl, const struct rl_want *want, int64_t now);
};

/* The store's answer: this much more until `until`; places: how many in flight in all from now on (RL_KEEP: as
   before). Nothing to give: units 0, and `until` is when to ask again. Units left over at `until` are void: they are
   the store's again. */
#define RL_KEEP UINT32_MAX
void rl_lease(struct rl *rl, struct rl_id id, uint64_t units, uint32_t places, int64_t until, int64_t now);

/* ------------------------------------------------------------------------------------------------ restarts */

/*
 * Writes all that a restart must not forget: per key what is used of its rate and calendar window, pauses, what was
 * learned. Keys that say nothing are not written; a place in flight is not (its request ended with the process).
 * O(keys), a lock is held for 64 keys at a time. Format: save.c. False: write() failed.
 *
 * Slack: what was granted after the last save is forgotten by a crash, never more than one window of any key. Saving
 * each s seconds bounds it by what s seconds allow.
 */
bool rl_save(struct rl *rl, bool (*write)(void *arg, const void *p, size_t n), void *arg, int64_t now);

enum rl_load {
    RL_LOADED,          /* all of it */
    RL_LOAD_TORN,       /* up to a place where it is cut off or damaged */
    RL_LOAD_FOREIGN,    /* not ours, or of another version: nothing was taken */
};

/* Takes what was saved into a limiter whose rules are set, whose wall clock is told (rl_wall) and that knows no keys
   yet (asserted). Ids made before are void. The time between save and load counts as passed, by the wall clock; if that
   went backwards, as none. ret_keys: how many were taken. */
enum rl_load rl_load(struct rl *rl, const void *p, size_t n, int64_t now, size_t *ret_keys);

/* ------------------------------------------------------------------------------------------------ looking */

struct rl_stats {
    uint64_t keys, waiting, bytes;      /* now; bytes: all memory of keys, index, names, queues and learned state */
    uint64_t granted, queued, late, never, busy, table_full, timed_out, cancelled, evicted, throttled;
                                        /* since rl_new() */
};

struct rl_key_stats {
    struct rl_id id;
    const void *key;            /* the name; NULL when none is kept */
    size_t key_len;
    uint16_t rule;
    uint32_t waiting;           /* queued at this key (waiters queued elsewhere that also need it are not counted) */
    uint32_t in_flight, concurrency;    /* in_flight: counted only under a cap */
    uint32_t granted;           /* modulo 2^32 */
    uint32_t refused;           /* RL_LATE, RL_NEVER, RL_BUSY and RL_TIMED_OUT that this key caused */
    uint64_t available;         /* units that could be had now; UINT64_MAX without a rate or window */
    int64_t paused_until;       /* 0 when not paused (or spaced) */
    uint32_t throttled;         /* rl_throttled() since something was learned */
    double tightened;           /* share of the declared limit that is used now: 1 when nothing was learned */
    int64_t oldest_ns;          /* how long the one longest in this queue has waited in all; 0: none waits */
};

void rl_stats(struct rl *rl, struct rl_stats *ret);

/* false: the key is not known (never named, or forgotten because idle). ret->key is `ask->key`, or NULL where
   that is not the key's bytes (ask->name). */
bool rl_key_stats(struct rl *rl, const struct rl_ask *ask, int64_t now, struct rl_key_stats *ret);

/* Calls fn for each key that has something waiting or in flight, is paused or has learned (all: for every key), until
   fn returns false. A lock is held: fn must be short and call no rl_ function; the key's bytes are valid during the
   call only. For an admin view. */
void rl_visit(struct rl *rl, bool all, int64_t now, bool (*fn)(void *arg, const struct rl_key_stats *s), void *arg);

#endif
