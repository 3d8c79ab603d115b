/*
 * rule.c -- the arithmetic of rates and windows
 *
 * A rate is one counter per key (GCRA): full_at, the time at which the bucket will be full again if nothing more is
 * taken.  Taking cost c moves it by c * T, T being the time one unit takes to refill; that is allowed when it does not
 * pass now + burst * T.  T is kept in 1/256 ns (at 1,000,000 units a second: a part in 256,000).  T and costs are
 * rounded up and the burst down, so what is granted is never above what is declared: over a span t, sum of costs <=
 * burst + t / T.
 *
 * A window rule (at most A in any window W, half open) is the same bucket with T = W / (A - burst + 1): grants in a
 * window sum to < burst + W / T = A + 1, and costs are whole numbers, so <= A.
 *
 * A calendar window is a number (of windows since 1970) and what was used in it.  The number only goes forward: a clock
 * set back by less than a window goes on counting in the window that was open; one set back by more was wrong before,
 * and what was used counts in the window it shows now.  So a window is never opened twice, and no wrong clock blocks a
 * key for longer than two windows.
 */
#include <string.h>

#include "internal.h"

#define FRACTION_BITS 8
#define AMOUNT_MAX    ((uint64_t)1 << 40)
#define CALENDAR_MAX  ((uint64_t)1 << 39)
#define CAP_MAX       ((uint32_t)1 << 23)
#define WINDOW_MAX    ((int64_t)400 * 86400 * 1000000000)
#define CALENDAR_MIN  ((int64_t)1000000000)     /* so that a number of 32 bits lasts until 2106 */
#define WINDOW_SHARE  20                        /* default burst of a window: 1/20, so 95% of it is sustained */
#define PLACES_SPAN   ((int64_t)1000000000)     /* how long a limit of places alone is taken to remember */

int64_t rl_cost_ns_slow(uint64_t per_unit, uint64_t cost)
{
    unsigned __int128 ns = ((unsigned __int128)per_unit * cost + ((1u << FRACTION_BITS) - 1)) >> FRACTION_BITS;

    return ns > (unsigned __int128)RL_NS_MAX ? RL_NS_MAX : (int64_t)ns;
}

static bool rate_make(const struct rl_rule *rule, struct rl_limit *ret)
{
    uint64_t burst = rule->burst, units = rule->amount;
    unsigned __int128 per_unit;

    if (rule->amount < 1 || rule->amount > AMOUNT_MAX || rule->window_ns < 1 || rule->window_ns > WINDOW_MAX
        || burst > AMOUNT_MAX)
        return false;
    if (rule->rate == RL_RATE_WINDOW) {
        if (burst == 0)
            burst = rule->amount / WINDOW_SHARE ? rule->amount / WINDOW_SHARE : 1;
        if (burst > rule->amount)
            return false;
        units = rule->amount - burst + 1;
    } else if (burst == 0) {
        burst = rule->amount;
    }
    per_unit = (((unsigned __int128)rule->window_ns << FRACTION_BITS) + units - 1) / units;
    if (per_unit > UINT64_MAX)
        return false;
    ret->per_unit = (uint64_t)per_unit;
    ret->burst = ret->burst_now = ret->never = burst;
    ret->amount = rule->amount;
    ret->span = rule->window_ns;
    ret->one_ns = rl_cost_ns_slow(ret->per_unit, 1);
    if (rl_cost_ns_slow(ret->per_unit, burst) >= RL_NS_MAX)
        return false;
    ret->burst_ns = (int64_t)((unsigned __int128)ret->per_unit * burst >> FRACTION_BITS);
    return true;
}

bool rl_limit_make(const struct rl_rule *rule, struct rl_limit *ret)
{
    memset(ret, 0, sizeof(*ret));
    ret->set = true;
    ret->leased = rule->leased;
    ret->cap = rule->concurrency;
    ret->spacing = rule->spacing_ns;
    ret->tag = rule->tag;
    ret->never = UINT64_MAX;
    ret->span = PLACES_SPAN;
    if (rule->rate > RL_RATE_WINDOW || (rule->rate != RL_RATE_NONE && !rate_make(rule, ret)))
        return false;
    if (ret->cap >= CAP_MAX || ret->spacing < 0 || ret->spacing > WINDOW_MAX)
        return false;
    if (!rule->calendar_amount)
        return true;
    if (rule->calendar_amount > CALENDAR_MAX || rule->calendar_ns < CALENDAR_MIN || rule->calendar_ns > WINDOW_MAX
        || rule->calendar_offset_ns > rule->calendar_ns || rule->calendar_offset_ns < -rule->calendar_ns)
        return false;
    ret->calendar = true;
    ret->window_amount = rule->calendar_amount;
    ret->window_ns = rule->calendar_ns;
    ret->window_offset = rule->calendar_offset_ns;
    if (ret->never > ret->window_amount)
        ret->never = ret->window_amount;
    if (!ret->per_unit) {
        ret->span = ret->window_ns;
        ret->amount = ret->window_amount;
    }
    return true;
}

static uint64_t part(uint64_t of, uint32_t factor)
{
    uint64_t n = (uint64_t)((unsigned __int128)of * factor / RL_ONE);

    return n ? n : 1;
}

/* The same limit with factor/RL_ONE of its amounts. A cost that the declared limit allows stays possible: when the
   bucket is full, when the window is unused. */
void rl_limit_scale(const struct rl_limit *l, uint32_t factor, struct rl_limit *ret)
{
    unsigned __int128 per_unit;

    *ret = *l;
    if (factor >= RL_ONE)
        return;
    if (l->per_unit) {
        per_unit = ((unsigned __int128)l->per_unit * RL_ONE + factor - 1) / factor;
        ret->per_unit = per_unit > UINT64_MAX ? UINT64_MAX : (uint64_t)per_unit;
        ret->one_ns = rl_cost_ns_slow(ret->per_unit, 1);
        /* part(burst) units of the longer T: not above the declared burst in time, but for a burst of one */
        ret->burst_now = part(l->burst, factor);
        per_unit = (unsigned __int128)ret->per_unit * ret->burst_now >> FRACTION_BITS;
        ret->burst_ns = per_unit > (unsigned __int128)RL_NS_MAX ? RL_NS_MAX : (int64_t)per_unit;
    }
    if (l->cap)
        ret->cap = (uint32_t)part(l->cap, factor);
    if (l->calendar)
        ret->window_amount = part(l->window_amount, factor);
}

/* ---- calendar windows */

static int64_t window_number(int64_t ns, int64_t offset, int64_t wall)
{
    int64_t from = wall - offset;

    return from >= 0 ? from / ns : -((-from + ns - 1) / ns);
}

uint32_t rl_window_at(int64_t ns, int64_t offset, int64_t wall)
{
    return (uint32_t)window_number(ns, offset, wall);
}

int64_t rl_window_end(const struct rl_limit *l, uint32_t number, int64_t wall)
{
    int64_t here = window_number(l->window_ns, l->window_offset, wall);

    here += (int32_t)(number - (uint32_t)here) + 1;
    return here > RL_NS_MAX / l->window_ns * 4 ? INT64_MAX / 2 : here * l->window_ns + l->window_offset;
}

void rl_window_sync(struct rl_key *k, const struct rl_limit *l, int64_t wall)
{
    uint32_t number = rl_window_at(l->window_ns, l->window_offset, wall);

    if (RL_LIKELY(number == k->window) || (number + 1 == k->window && k->window_used))
        return;
    if ((int32_t)(number - k->window) > 0)
        k->window_used = 0;
    k->window = number;
}

/* A cost above the tightened amount, but possible by what is declared, goes alone into an unused window; above that it
   is the queue's sum, which takes whole windows more, as far as time can be named. */
int64_t rl_window_due(struct rl_key *k, const struct rl_limit *l, uint64_t cost, int64_t now, int64_t wall_offset)
{
    int64_t wall = now + wall_offset;
    uint64_t crossed = 1;

    rl_window_sync(k, l, wall);
    if (k->window_used + cost <= l->window_amount || (k->window_used == 0 && cost <= l->never))
        return now;
    if (cost > l->never)
        crossed = (k->window_used + cost - 1) / l->window_amount;
    if (crossed > (uint64_t)(RL_NS_MAX / l->window_ns))
        return now + RL_NS_MAX;
    return rl_window_end(l, k->window, wall) - wall_offset + (int64_t)(crossed - 1) * l->window_ns;
}

/* ---- other rules for the same use */

/* What was used stays used, counted in units. */
void rl_convert(struct rl_key *k, uint64_t was_per_unit, uint64_t per_unit, int64_t now)
{
    if (was_per_unit == per_unit)
        return;
    if (k->full_at > now && was_per_unit && per_unit) {
        unsigned __int128 left = (unsigned __int128)(k->full_at - now) * per_unit / was_per_unit;

        k->full_at = now + (left > (unsigned __int128)RL_NS_MAX ? RL_NS_MAX : (int64_t)left + 1);
    } else {
        k->full_at = now;
    }
}

void rl_convert_window(struct rl_key *k, const struct rl_limit *l, int64_t was_ns, int64_t was_offset, int64_t wall)
{
    if (!l->calendar || (was_ns == l->window_ns && was_offset == l->window_offset))
        return;
    if (!was_ns || (int32_t)(rl_window_at(was_ns, was_offset, wall) - k->window) > 0)
        k->window_used = 0;
    k->window = rl_window_at(l->window_ns, l->window_offset, wall);
}

/*
 * Gives back a cost that was not used. The bucket without that grant differs from the real one by the cost, less what
 * it would have lost by being full meanwhile, and that is at most the time elapsed: giving back the cost less the
 * elapsed time never gives back too much.
 */
void rl_rate_refund(struct rl_key *k, const struct rl_limit *l, uint64_t cost, int64_t granted_at, int64_t now,
                    int64_t wall_offset)
{
    int64_t back = rl_cost_ns_slow(l->per_unit, cost) - (now > granted_at ? now - granted_at : 0);

    if (l->per_unit && back > 0)
        k->full_at -= back;
    if (l->calendar && k->window_used >= cost
        && rl_window_at(l->window_ns, l->window_offset, granted_at + wall_offset) == k->window)
        k->window_used -= cost;
}

uint64_t rl_available(struct rl_key *k, const struct rl_limit *l, int64_t now, int64_t wall)
{
    uint64_t units = UINT64_MAX;
    int64_t left;

    if (l->per_unit && k->full_at <= now) {
        units = l->burst_now;
    } else if (l->per_unit) {
        left = l->burst_ns - (k->full_at - now);
        units = left <= 0 ? 0 : (uint64_t)(((unsigned __int128)(uint64_t)left << FRACTION_BITS) / l->per_unit);
    }
    if (l->calendar) {
        uint64_t room;

        rl_window_sync(k, l, wall);
        room = l->window_amount > k->window_used ? l->window_amount - k->window_used : 0;
        if (room < units)
            units = room;
    }
    return units;
}
