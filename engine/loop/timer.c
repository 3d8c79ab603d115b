/*
 * timer.c -- a hashed wheel of 1 ms ticks
 *
 * A timer lies in slot (tick of `at`) mod 4096.  Firing walks the slots passed since last time and fires what is due;
 * timers of later rounds stay.  A far timer costs one comparison every 4 s, setting and clearing cost O(1).
 */
#include "loop/internal.h"

#define TICK NS_PER_MS

STATIC_ASSERT(WHEEL_SLOTS == 64 * 64, "two levels of words name every slot");

static int64_t tick_of(ns_t at)
{
    if (at <= 0)
        return 0;
    if (at > NS_NEVER - TICK)
        return NS_NEVER / TICK;
    return (at + TICK - 1) / TICK;          /* up: never early */
}

void wheel_init(struct wheel *w, ns_t now)
{
    memset(w, 0, sizeof(*w));
    w->tick = now / TICK;
}

static void slot_busy(struct wheel *w, unsigned slot)
{
    w->busy[slot / 64] |= 1ULL << (slot % 64);
    w->busy_words |= 1ULL << (slot / 64);
}

static void slot_idle(struct wheel *w, unsigned slot)
{
    w->busy[slot / 64] &= ~(1ULL << (slot % 64));
    if (w->busy[slot / 64] == 0)
        w->busy_words &= ~(1ULL << (slot / 64));
}

static void slot_link(struct wheel *w, struct timer *t, unsigned slot)
{
    t->next = w->slot[slot];
    if (t->next)
        t->next->prev = &t->next;
    t->prev = &w->slot[slot];
    w->slot[slot] = t;
    slot_busy(w, slot);
}

static void slot_unlink(struct wheel *w, struct timer *t)
{
    *t->prev = t->next;
    if (t->next)
        t->next->prev = t->prev;
    else if (t->prev >= &w->slot[0] && t->prev < &w->slot[WHEEL_SLOTS])
        slot_idle(w, (unsigned)(t->prev - &w->slot[0]));
    t->next = NULL;
    t->prev = NULL;
}

void timer_clear(struct timer *t)
{
    if (t->prev)
        slot_unlink(&loop_self()->wheel, t);
}

void timer_set(struct timer *t, ns_t at, void (*fire)(struct timer *))
{
    struct wheel *w = &loop_self()->wheel;
    int64_t tick = tick_of(at);

    if (t->prev)
        slot_unlink(w, t);
    if (tick <= w->tick)
        tick = w->tick + 1;                 /* due already: next turn, never from inside this call */
    t->at = at;
    t->fire = fire;
    slot_link(w, t, (unsigned)(tick % WHEEL_SLOTS));
}

/* Takes the due timers of one slot off the wheel first, then fires them: fire() may set and clear any timer, so what is
 * waiting to be fired hangs on a list head of its own that timer_clear() can unlink from. */
static void slot_fire(struct wheel *w, unsigned slot, ns_t now)
{
    struct timer *t, *next, *due = NULL;

    for (t = w->slot[slot]; t; t = next) {
        next = t->next;
        if (t->at > now)
            continue;
        timer_clear(t);
        t->next = due;
        if (due)
            due->prev = &t->next;
        t->prev = &due;
        due = t;
    }
    while ((t = due)) {
        due = t->next;
        if (due)
            due->prev = &due;
        t->next = NULL;
        t->prev = NULL;
        t->fire(t);
    }
}

void wheel_fire(struct wheel *w, ns_t now)
{
    int64_t target = now / TICK, from = w->tick + 1;

    if (target <= w->tick)
        return;
    if (target - w->tick > WHEEL_SLOTS)
        from = target - WHEEL_SLOTS + 1;    /* every slot once is enough */
    w->tick = target;
    for (int64_t tick = from; tick <= target; tick++) {
        unsigned slot = (unsigned)(tick % WHEEL_SLOTS);

        if (w->busy[slot / 64] & (1ULL << (slot % 64)))
            slot_fire(w, slot, now);
    }
}

/* The first busy slot from `from` on, round the wheel; there is one. */
static unsigned slot_next(const struct wheel *w, unsigned from)
{
    unsigned word = from / 64;
    uint64_t bits = w->busy[word] & (~0ULL << (from % 64)), behind;

    if (bits)
        return word * 64 + (unsigned)__builtin_ctzll(bits);
    behind = w->busy_words & ~(~0ULL >> (63 - word));
    word = (unsigned)__builtin_ctzll(behind ? behind : w->busy_words);
    return word * 64 + (unsigned)__builtin_ctzll(w->busy[word]);
}

ns_t wheel_next(const struct wheel *w)
{
    unsigned from = (unsigned)((w->tick + 1) % WHEEL_SLOTS);

    if (!w->busy_words)
        return NS_NEVER;
    return (w->tick + 1 + (slot_next(w, from) - from) % WHEEL_SLOTS) * TICK;
}
