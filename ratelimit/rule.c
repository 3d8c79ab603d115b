/*
 * rule.c -- the arithmetic of rates
 *
 * One counter per key (GCRA): full_at, the time at which the bucket will be full again if nothing more is taken.
 * Taking cost c moves it by c * T, T being the time one unit takes to refill; that is allowed when it does not pass
 * now + burst * T.  T is kept in 1/256 ns (at 1,000,000 units a second: a part in 256,000).  T and costs are rounded up
 * and the burst down, so what is granted is never above what is declared: over a span t, sum of costs <= burst + t / T.
 *
 * A window rule (at most A in any window W, half open) is the same bucket with T = W / (A - burst + 1): grants in a
 * window sum to < burst + W / T = A + 1, and costs are whole numbers, so <= A.
 */
#include <string.h>

#include "internal.h"

#define FRACTION_BITS 8
#define NS_MAX        ((int64_t)1 << 60)        /* 36 years: a few, on a clock below 2^62, cannot overflow */
#define AMOUNT_MAX    ((uint64_t)1 << 40)
#define WINDOW_MAX    ((int64_t)400 * 86400 * 1000000000)
#define WINDOW_SHARE  20                        /* default burst of a window: 1/20, so 95% of it is sustained */

int64_t rl_cost_ns(uint64_t per_unit, uint64_t cost)
{
    unsigned __int128 ns = ((unsigned __int128)per_unit * cost + ((1u << FRACTION_BITS) - 1)) >> FRACTION_BITS;

    return ns > (unsigned __int128)NS_MAX ? NS_MAX : (int64_t)ns;
}

bool rl_limit_make(const struct rl_rule *rule, struct rl_limit *ret)
{
    uint64_t burst = rule->burst, units = rule->amount;
    unsigned __int128 per_unit;

    memset(ret, 0, sizeof(*ret));
    ret->set = true;
    ret->cap = rule->concurrency;
    if (rule->rate == RL_RATE_NONE)
        return true;
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
    ret->burst = burst;
    if (rl_cost_ns(ret->per_unit, burst) >= NS_MAX)
        return false;
    ret->burst_ns = (int64_t)((unsigned __int128)ret->per_unit * burst >> FRACTION_BITS);
    return true;
}

/* The key follows this limit from now on: what was used stays used, counted in units. */
void rl_rate_sync(struct rl_key *k, const struct rl_limit *l, int64_t now)
{
    if (__builtin_expect(k->per_unit == l->per_unit, 1))
        return;
    if (k->full_at > now && k->per_unit && l->per_unit) {
        unsigned __int128 left = (unsigned __int128)(k->full_at - now) * l->per_unit / k->per_unit;

        k->full_at = now + (left > (unsigned __int128)NS_MAX ? NS_MAX : (int64_t)left + 1);
    } else {
        k->full_at = now;
    }
    k->per_unit = l->per_unit;
}

/* When `cost` can be had; `now` or less: now. Also for costs above the burst (the queue's sum): when they would have
   been. */
int64_t rl_rate_due(const struct rl_key *k, const struct rl_limit *l, uint64_t cost, int64_t now)
{
    int64_t from, short_by;

    if (!l->per_unit)
        return now;
    from = k->full_at > now ? k->full_at : now;
    short_by = rl_cost_ns(l->per_unit, cost) - l->burst_ns;
    if (short_by > 0 && cost <= l->burst)
        short_by = 0;       /* the whole burst, which roundings put a nanosecond out of reach */
    return from + short_by;
}

void rl_rate_take(struct rl_key *k, uint64_t cost, int64_t now)
{
    if (k->per_unit)
        k->full_at = (k->full_at > now ? k->full_at : now) + rl_cost_ns(k->per_unit, cost);
}

/*
 * Gives back a cost that was not used. The bucket without that grant differs from the real one by the cost, less what
 * it would have lost by being full meanwhile, and that is at most the time elapsed: giving back the cost less the
 * elapsed time never gives back too much.
 */
void rl_rate_refund(struct rl_key *k, uint64_t cost, int64_t granted_at, int64_t now)
{
    int64_t back = rl_cost_ns(k->per_unit, cost) - (now > granted_at ? now - granted_at : 0);

    if (k->per_unit && back > 0)
        k->full_at -= back;
}

uint64_t rl_rate_available(const struct rl_key *k, const struct rl_limit *l, int64_t now)
{
    int64_t left;

    if (!l->per_unit)
        return UINT64_MAX;
    if (k->full_at <= now)
        return l->burst;
    left = l->burst_ns - (k->full_at - now);
    return left <= 0 ? 0 : (uint64_t)(((unsigned __int128)left << FRACTION_BITS) / l->per_unit);
}
