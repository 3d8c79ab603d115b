/* overload.c -- pressure, and who is put off under it; see overload.h */
#include <string.h>

#include "call/overload.h"

#define LOOK_MAX (100 * NS_PER_MS)

static void press(struct overload *o, ns_t lag, ns_t now)
{
    ns_t passed = now - o->looked;

    if (lag > o->delay || o->put_off)
        o->pressure += passed < LOOK_MAX ? passed : LOOK_MAX;   /* between two looks far apart nothing was seen */
    else
        o->pressure -= passed / OVERLOAD_EASE;
    if (o->pressure > OVERLOAD_PATIENCE)
        o->pressure = OVERLOAD_PATIENCE;
    if (o->pressure < 0)
        o->pressure = 0;
    if (o->pressure == OVERLOAD_PATIENCE)
        o->overloaded = true;
    else if (o->pressure == 0)
        o->overloaded = false;
    o->looked = now;
    o->put_off = false;
}

/* Whoever was put off comes back after a while that is as long as it must be for few to be put off again, but some:
 * else there would be time left. */
static void adapt(struct overload *o)
{
    if (o->off * 100 > o->all * 60)
        o->retry *= 3;
    else if (o->off * 100 > o->all * 30)
        o->retry = o->retry * 3 / 2;
    else if (o->off * 100 < o->all * 10)
        o->retry = o->retry * 2 / 3;
    if (o->retry < OVERLOAD_RETRY_MIN)
        o->retry = OVERLOAD_RETRY_MIN;
    if (o->retry > OVERLOAD_RETRY_MAX)
        o->retry = OVERLOAD_RETRY_MAX;
}

/* Did this tenant ask for less than half of an equal share? In the second before this one. */
static bool modest(struct overload *o, uint64_t tenant, ns_t now)
{
    uint32_t *mine = &o->asked[tenant % OVERLOAD_SHARES];
    int64_t second = now / NS_PER_S;

    if (o->second != second) {
        adapt(o);
        memcpy(o->before, o->asked, sizeof(o->before));
        o->all_before = o->second + 1 == second ? o->all : 0;
        o->tenants_before = o->second + 1 == second ? o->tenants : 0;
        memset(o->asked, 0, sizeof(o->asked));
        o->all = o->tenants = o->off = 0;
        o->second = second;
    }
    o->tenants += *mine == 0;
    o->all++;
    ++*mine;
    return o->tenants_before > 1 &&
           (uint64_t)o->before[tenant % OVERLOAD_SHARES] * o->tenants_before * 2 < o->all_before;
}

/* Evenly: half of those that are reached when the line is half too long, all where it is twice as long. */
static bool falls(struct overload *o, ns_t lag, ns_t room)
{
    o->owed += lag >= 2 * room ? 1000 : (unsigned)((lag - room) * 1000 / room);
    if (o->owed < 1000)
        return false;
    o->owed -= 1000;
    return true;
}

bool overload_admits(struct overload *o, uint64_t tenant, bool dear, ns_t lag, ns_t now)
{
    ns_t room = dear ? o->delay / 2 : o->delay;

    if (o->delay == 0)
        return true;
    press(o, lag, now);
    if (modest(o, tenant, now))
        room *= 2;
    o->put_off = o->overloaded && lag > room && falls(o, lag, room);
    o->off += o->put_off;
    return !o->put_off;
}

ns_t overload_retry(struct overload *o)
{
    o->spread = (o->spread + 618) % 1000;       /* the golden ratio's part: near ones differ much, all are alike */
    return o->retry / 2 + o->retry / 1000 * o->spread;
}
