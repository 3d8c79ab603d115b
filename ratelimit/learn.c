/*
 * learn.c -- what providers say about a key, and what a shared store leases to it
 *
 * A key that has learned something has more than its cache line: its own copy of the limit, tightened, and the units
 * that are left whatever the rate says.
 *
 * Tightening: multiplicative decrease, additive increase, on the share of the declared limit that is used (factor):
 *
 *   throttled             * 3/4, once for all requests granted before the cut (and, when the provider does not say
 *                         when to come back, within a span after it); but after a failed recovery, back to where it
 *                         was before, and from there by 1/32 once; never below 1/64
 *   quiet for 2 spans and RECOVER_GRANTS grants, both doubled by each failed recovery up to 64 times
 *                         + 1/32, halved by each failed recovery down to 1/256
 *   a day without a throttle: all of it
 *
 * So with a limit declared 30% too high (the real one is 0.77 of it) one cut is enough, the throttles after it are
 * those of requests already on their way, and later ones come once in RECOVER_GRANTS grants or less.
 *
 * Left: "n units remain until the reset" is kept when it is less than our own bucket would give, and counted down.  The
 * same field holds a lease: n units of a shared store until it ends.
 *
 * What can fail: memory (RL_BUSY).
 */
#include <stdlib.h>

#include "internal.h"

#define FACTOR_MIN     (RL_ONE / 64)
#define STEP           (RL_ONE / 32)
#define STEP_MIN       (RL_ONE / 256)
#define RECOVER_GRANTS 4096u
#define FAILS_MAX      6u
#define DAY            ((int64_t)86400 * 1000000000)
#define BACKOFF_MIN    ((int64_t)1000000)
#define BACKOFF_MAX    ((int64_t)600 * 1000000000)
#define RESET_MAX      ((int64_t)3600 * 1000000000)     /* a reset is believed for this long, or for two spans */
#define RESET_SLOP     ((int64_t)2 * 1000000000)        /* two answers that name the same reset, by their rounding */
#define PAUSE_MAX      ((int64_t)1 << 60)

static uint64_t *more_bytes(struct rl *rl, const struct rl_key *k)
{
    return &rl->stripes[RL_STRIPE_OF(k->id)].more_bytes;
}

/* The key's limit from its rule and factor. */
static void shape(struct rl *rl, struct rl_key *k)
{
    const struct rl_limit *l = &rl->rules[k->rule];
    struct rl_learned *ln = k->line->learned;

    rl_limit_scale(l, ln->factor, &ln->limit);
    if (l->leased) {
        ln->limit.per_unit = 0;
        ln->limit.calendar = false;
        k->full_at = INT64_MIN;
    }
}

/* The same anew; what was used stays used. */
static void reshape(struct rl *rl, struct rl_key *k, int64_t now)
{
    uint64_t was_per_unit = k->line->learned->limit.per_unit;

    shape(rl, k);
    rl_convert(k, was_per_unit, k->line->learned->limit.per_unit, now);
}

static void set_factor(struct rl *rl, struct rl_key *k, uint32_t factor, int64_t now)
{
    struct rl_learned *ln = k->line->learned;

    ln->factor = factor < FACTOR_MIN ? FACTOR_MIN : factor > ln->ceiling ? ln->ceiling : factor;
    ln->changed_at = now;
    ln->granted = k->granted;
    reshape(rl, k, now);
}

struct rl_learned *rl_learned_get(struct rl *rl, struct rl_key *k)
{
    struct rl_line *line = rl_line_get(rl, k);
    struct rl_learned *ln;

    if (!line)
        return NULL;
    if (line->learned)
        return line->learned;
    ln = aligned_alloc(64, sizeof(*ln));
    if (!ln) {
        rl_line_put(rl, k);
        return NULL;
    }
    *ln = (struct rl_learned){ .factor = RL_ONE, .ceiling = RL_ONE, .changed_at = INT64_MIN, .throttled_at = INT64_MIN,
                               .left = rl->rules[k->rule].leased ? 0 : RL_UNKNOWN, .left_until = INT64_MIN };
    line->learned = ln;
    k->flags |= KEY_LEARNED;
    *more_bytes(rl, k) += sizeof(*ln);
    shape(rl, k);
    return ln;
}

void rl_learned_drop(struct rl *rl, struct rl_key *k)
{
    free(k->line->learned);
    k->line->learned = NULL;
    k->flags &= (uint8_t)~KEY_LEARNED;
    *more_bytes(rl, k) -= sizeof(struct rl_learned);
    rl_line_put(rl, k);
}

static bool long_ago(int64_t at, int64_t now)
{
    return at == INT64_MIN || now - at >= DAY;
}

bool rl_learned_says_nothing(const struct rl_key *k, int64_t now)
{
    const struct rl_learned *ln = k->line->learned;

    return !ln->wanting && ln->left_until <= now
           && ((ln->factor == RL_ONE && ln->backoff == 0) || long_ago(ln->throttled_at, now));
}

static void recover(struct rl *rl, struct rl_key *k, int64_t now)
{
    struct rl_learned *ln = k->line->learned;
    int64_t quiet = ln->limit.span * 2;
    uint32_t step = STEP >> ln->fails;

    if (long_ago(ln->throttled_at, now)) {
        ln->ceiling = RL_ONE;
        ln->before = ln->fails = ln->throttled = 0;
        ln->near = false;
        ln->backoff = 0;
        if (ln->factor != RL_ONE)
            set_factor(rl, k, RL_ONE, now);
        return;
    }
    if (ln->factor >= ln->ceiling || now - ln->throttled_at < quiet
        || (now - ln->changed_at) >> ln->fails < quiet || k->granted - ln->granted < RECOVER_GRANTS << ln->fails)
        return;
    ln->before = ln->factor;
    ln->near = true;
    set_factor(rl, k, ln->factor + (step > STEP_MIN ? step : STEP_MIN), now);
}

/* The key's limit when it is not simply its rule's: the rule changed meanwhile, or the key has learned. */
const struct rl_limit *rl_limit_slow(struct rl *rl, struct rl_key *k, int64_t now)
{
    const struct rl_limit *l = &rl->rules[k->rule];
    struct rl_learned *ln = k->flags & KEY_LEARNED ? k->line->learned : NULL;

    if ((k->flags & KEY_GEN) != l->gen) {
        k->flags ^= KEY_GEN;
        rl_convert_window(k, l, l->was_window_ns, l->was_window_offset, now + rl_wall_offset(rl));
        if (ln)
            reshape(rl, k, now);
        else
            rl_convert(k, l->was_per_unit, l->per_unit, now);
    }
    if (!ln)
        return l;
    if (l->leased)
        return &ln->limit;
    recover(rl, k, now);
    if (ln->left_until <= now)
        ln->left = RL_UNKNOWN;
    if (!rl_learned_says_nothing(k, now))
        return &ln->limit;
    rl_learned_drop(rl, k);
    return l;
}

/* Whether what is left stands against `cost`; *ret_due is moved to when that ends, if time alone ends it. */
bool rl_left_blocks(struct rl *rl, struct rl_key *k, uint64_t cost, int64_t now, int64_t *ret_due)
{
    const struct rl_learned *ln = k->line->learned;
    const struct rl_limit *l = &rl->rules[k->rule];

    if (!l->leased) {
        if (ln->left == RL_UNKNOWN || ln->left >= cost)
            return false;
        if (*ret_due < ln->left_until)
            *ret_due = ln->left_until;
        return true;
    }
    if (ln->left_until > now && ln->left >= cost && (!l->cap || k->in_flight < ln->places))
        return false;
    if (!ln->wanting && ln->leased == 0 && *ret_due < ln->left_until)
        *ret_due = ln->left_until;      /* the store said none until then */
    return true;
}

/* The key follows another rule: what was learned of the former limit is no news of this one. */
void rl_learned_rule(struct rl *rl, struct rl_key *k)
{
    struct rl_learned *ln = k->line->learned;

    ln->factor = ln->ceiling = RL_ONE;
    ln->before = ln->fails = 0;
    ln->near = false;
    ln->left = rl->rules[k->rule].leased ? 0 : RL_UNKNOWN;
    ln->left_until = INT64_MIN;
    ln->leased = 0;
    ln->places = 0;
    shape(rl, k);
}

/* ---- what providers say */

struct told {
    struct rl_work work;
    struct rl_key *k;
    struct rl_learned *ln;      /* only if asked for */
    const struct rl_limit *l;
    uint64_t stripe;
    enum rl_result why;
};

/* Locks and finds the key; end with told_end() whatever it says. */
static bool told_begin(struct told *t, struct rl *rl, const struct rl_ask *ask, bool learn, int64_t now)
{
    struct rl_id id = rl_ask_id(rl, ask);

    rl_work_init(&t->work, rl, now);
    t->stripe = RL_BIT_OF(id);
    t->why = RL_GRANTED;
    rl_lock(rl, t->stripe);
    t->k = rl_follow(&t->work, t->stripe, id, ask->rule, &t->why);
    if (!t->k)
        return false;
    t->l = rl_limit_of(rl, t->k, now);
    rl_name_note(rl, id, ask);
    if (!learn)
        return true;
    t->ln = rl_learned_get(rl, t->k);
    if (!t->ln)
        t->why = RL_BUSY;
    return t->ln != NULL;
}

static enum rl_result told_end(struct told *t)
{
    rl_unlock(t->work.rl, t->stripe);
    rl_work_run(&t->work);
    return t->why;
}

static void pause_key(struct rl_key *k, int64_t until, int64_t now)
{
    if (until > now + PAUSE_MAX)
        until = now + PAUSE_MAX;
    if (until <= k->not_before)
        return;
    k->not_before = until;
    k->flags |= KEY_PAUSED;
}

enum rl_result rl_pause(struct rl *rl, const struct rl_ask *ask, int64_t until, int64_t now)
{
    struct told t;

    if (told_begin(&t, rl, ask, false, now))
        pause_key(t.k, until, now);
    return told_end(&t);
}

void rl_resume(struct rl *rl, const struct rl_ask *ask, int64_t now)
{
    struct rl_id id = rl_ask_id(rl, ask);
    struct rl_work work;
    struct rl_key *k;

    rl_work_init(&work, rl, now);
    rl_lock(rl, RL_BIT_OF(id));
    k = rl_table_find(rl, id);
    if (k && k->flags & KEY_PAUSED) {
        int64_t spaced = now + rl_limit_of(rl, k, now)->spacing;

        if (k->not_before > spaced)
            k->not_before = spaced;
        k->flags &= (uint8_t)~KEY_PAUSED;
        rl_todo(&work, k);
    }
    rl_unlock(rl, RL_BIT_OF(id));
    rl_work_run(&work);
}

static void cut(struct rl *rl, struct rl_key *k, struct rl_learned *ln, int64_t now)
{
    uint32_t factor = ln->factor / 4 * 3, step = ln->factor > 2 * STEP ? ln->factor - STEP : factor;

    if (ln->before)
        factor = ln->before;
    else if (ln->near && step > factor)
        factor = step;
    if (ln->near && ln->fails < FAILS_MAX)
        ln->fails++;
    ln->near = ln->before != 0;
    ln->before = 0;
    set_factor(rl, k, factor, now);
    if (ln->limit.per_unit && k->full_at < now + ln->limit.burst_ns)
        k->full_at = now + ln->limit.burst_ns;          /* nothing is left there: what comes next is the rate */
}

static int64_t back_off(struct rl_learned *ln, int64_t granted_at, int64_t now)
{
    int64_t most = ln->limit.span < BACKOFF_MAX ? ln->limit.span : BACKOFF_MAX;

    if (ln->backoff == 0 || now - ln->throttled_at > ln->limit.span + 2 * ln->backoff)
        ln->backoff = ln->limit.span / 16;
    else if (granted_at > ln->throttled_at)
        ln->backoff *= 2;
    if (ln->backoff > most)
        ln->backoff = most;
    if (ln->backoff < BACKOFF_MIN)
        ln->backoff = BACKOFF_MIN;
    return now + ln->backoff;
}

/* Whether a throttle tells anything that the last change did not take into account. Without a hint when to come back,
   what was used before a cut may stand against us for a whole span after it. */
static bool says_more(const struct rl_learned *ln, int64_t granted_at, bool hint)
{
    if (ln->changed_at == INT64_MIN)
        return true;
    return granted_at > ln->changed_at && (hint || ln->before || granted_at - ln->changed_at > ln->limit.span);
}

enum rl_result rl_throttled(struct rl *rl, const struct rl_ask *ask, int64_t granted_at, int64_t until, int64_t now)
{
    struct told t;

    bool hint = until > now;

    if (told_begin(&t, rl, ask, true, now)) {
        rl->stripes[RL_STRIPE_OF(t.k->id)].counts.throttled++;
        t.ln->throttled++;
        if (!hint)
            until = back_off(t.ln, granted_at, now);
        else if (t.ln->backoff == 0)
            t.ln->backoff = BACKOFF_MIN;
        if (says_more(t.ln, granted_at, hint))
            cut(rl, t.k, t.ln, now);
        t.ln->throttled_at = now;
        pause_key(t.k, until, now);
    }
    return told_end(&t);
}

static void hear_limit(struct rl *rl, struct rl_key *k, uint64_t limit, int64_t now)
{
    struct rl_learned *ln = k->line->learned;
    unsigned __int128 share = (unsigned __int128)limit * RL_ONE / rl->rules[k->rule].amount;

    ln->ceiling = share < FACTOR_MIN ? FACTOR_MIN : (uint32_t)share;
    ln->throttled_at = now;         /* a day from the last time it was said */
    if (ln->factor > ln->ceiling) {
        ln->before = 0;
        set_factor(rl, k, ln->ceiling, now);
    }
}

static void hear_left(struct rl_key *k, uint64_t remaining, int64_t reset, int64_t now)
{
    struct rl_learned *ln = k->line->learned;
    int64_t slop = ln->limit.span / 8 > RESET_SLOP ? RESET_SLOP : ln->limit.span / 8;
    uint64_t on_their_way = k->in_flight ? k->in_flight - 1 : 0;

    if (ln->left != RL_UNKNOWN && ln->left_until > now && reset < ln->left_until - slop)
        return;                     /* an answer about the window before */
    if (ln->left != RL_UNKNOWN && ln->left_until > now && reset <= ln->left_until + slop) {
        if (remaining < ln->left)
            ln->left = remaining;
        return;
    }
    ln->left = remaining > on_their_way ? remaining - on_their_way : 0;
    ln->left_until = reset;
}

enum rl_result rl_observe(struct rl *rl, const struct rl_ask *ask, const struct rl_heard *heard, int64_t now)
{
    int64_t wall_offset = rl_wall_offset(rl), believe, reset;
    bool lower, less;
    struct told t;

    if (!told_begin(&t, rl, ask, false, now) || t.l->leased || !t.l->amount)
        return told_end(&t);
    believe = t.l->span > RESET_MAX / 2 ? 2 * t.l->span : RESET_MAX;
    reset = heard->reset_at ? heard->reset_at : now + t.l->span;
    if (reset > now + believe)
        reset = now + believe;
    lower = heard->limit != RL_UNKNOWN && heard->limit < rl->rules[t.k->rule].amount;
    less = heard->remaining != RL_UNKNOWN && reset > now
           && (heard->remaining < rl_available(t.k, t.l, now, now + wall_offset)
               || (t.k->flags & KEY_LEARNED && t.k->line->learned->left != RL_UNKNOWN));
    if (lower || less) {
        if (!rl_learned_get(rl, t.k)) {
            t.why = RL_BUSY;
            return told_end(&t);
        }
        if (lower)
            hear_limit(rl, t.k, heard->limit, now);
        if (less)
            hear_left(t.k, heard->remaining, reset, now);
        rl_todo(&t.work, t.k);      /* what its queue waits for may have changed */
    }
    return told_end(&t);
}

void rl_learned_restore(struct rl *rl, struct rl_key *k, uint32_t factor, uint64_t left, int64_t left_until,
                        int64_t now)
{
    struct rl_learned *ln = rl_learned_get(rl, k);

    if (!ln || rl->rules[k->rule].leased)
        return;
    if (left_until > now) {
        ln->left = left;
        ln->left_until = left_until;
    }
    if (factor && factor < RL_ONE) {
        ln->throttled_at = now;
        set_factor(rl, k, factor, now);
    }
}

/* ---- a shared store */

void rl_lease(struct rl *rl, struct rl_id id, uint64_t units, uint32_t places, int64_t until, int64_t now)
{
    struct rl_work work;
    struct rl_key *k;

    rl_work_init(&work, rl, now);
    rl_lock(rl, RL_BIT_OF(id));
    k = rl_table_find(rl, id);
    if (k && k->flags & KEY_LEARNED && rl->rules[k->rule].leased) {
        struct rl_learned *ln = k->line->learned;
        uint64_t kept = ln->left_until > now && ln->leased ? ln->left : 0;

        if (units || kept == 0) {
            ln->left = units > UINT64_MAX / 2 - kept ? UINT64_MAX / 2 : kept + units;
            ln->left_until = until;
            ln->leased = ln->left;
        }
        if (places != RL_KEEP)
            ln->places = places;
        ln->wanting = false;
        rl_todo(&work, k);
    }
    rl_unlock(rl, RL_BIT_OF(id));
    rl_work_run(&work);
}
