/*
 * overload.h -- a worker that has more to do than it can puts calls off, before they wait long
 *
 * What a request waits for here is its worker's loop; how long it stands in line for it is measured (loop/lag.h).  Time
 * in which that is more than `delay`, or in which somebody is put off, adds to the pressure; other time takes a quarter
 * of itself away.  At PATIENCE the worker is overloaded, until no pressure is left.  So a burst that is worked through
 * in less is just that.
 *
 * While it is overloaded, some of those that are reached when the line is longer than `delay` are put off: more of them
 * the longer it is, all where it is twice as long.  What is dear has half of that delay: calls that write or destroy
 * (two records on disk, more than one exchange).  A tenant that asks for less than half of an equal share of its worker
 * has twice the delay, so that one tenant's flood is refused to that tenant first.
 *
 * Pure: no clock, no memory, one thread.
 */
#ifndef CALL_OVERLOAD_H
#define CALL_OVERLOAD_H

#include <stdbool.h>
#include <stdint.h>

#include "base/clock.h"

#define OVERLOAD_PATIENCE  NS_PER_S
#define OVERLOAD_RETRY_MIN (NS_PER_S / 2)
#define OVERLOAD_RETRY_MAX (10 * NS_PER_S)

enum { OVERLOAD_EASE = 4, OVERLOAD_SHARES = 64 };

struct overload {
    ns_t delay;                     /* 0: nobody is ever put off */
    ns_t looked;                    /* when a request was reached last */
    bool put_off;                   /* it was */
    unsigned owed, spread;          /* thousandths: of a refusal; of the time to come back */
    ns_t pressure;                  /* 0 to OVERLOAD_PATIENCE */
    bool overloaded;
    int64_t second;                 /* of these counts: requests by tenant (its hash), and of all */
    uint32_t asked[OVERLOAD_SHARES], all, tenants, off;
    ns_t retry;                     /* OVERLOAD_RETRY_MIN to _MAX: longer while more than 30 % are put off */
    uint32_t before[OVERLOAD_SHARES], all_before, tenants_before;
};

/* A request of this tenant has been reached, and stood in line for about `lag`. False: it is to be put off. */
bool overload_admits(struct overload *o, uint64_t tenant, bool dear, ns_t lag, ns_t now);

/* After how long whoever was put off may come back: half to one and a half of `retry`, so that they do not come back
 * together. */
ns_t overload_retry(struct overload *o);

#endif
