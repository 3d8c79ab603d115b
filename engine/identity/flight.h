/*
 * flight.h -- one does it, the others wait: single flight across tasks and workers
 *
 * A struct flight belongs to an object with a mutex, which guards it.  The first that needs the work leads (does it,
 * or has a task do it) and lands; whoever comes meanwhile waits and gets the same result.  A waiter may give up at
 * any time.
 *
 *   lock; if (flight_lead(&f)) { unlock; result = work(); lock; flight_land(&f, result, &info); unlock; }
 *         else result = await_flight(&f, &lock, deadline, info);            (which unlocks)
 */
#ifndef IDENTITY_FLIGHT_H
#define IDENTITY_FLIGHT_H

#include "base/err.h"
#include "loop/task.h"

#include <pthread.h>

struct flight_wait;

/* Zero-initialised: nothing under way. */
struct flight {
    bool busy;
    unsigned waiting;
    struct flight_wait *first;
};

/* True: nobody was doing it, now the caller is, and must land. Lock held. */
static inline bool flight_lead(struct flight *f)
{
    if (f->busy)
        return false;
    f->busy = true;
    return true;
}

/* Called with the lock held and a flight under way; returns with it released. The leader's result, or E_DEADLINE at
 * `deadline`, or E_CANCELLED. `info` (may be NULL) gets the leader's line. */
enum err await_flight(struct flight *f, pthread_mutex_t *lock, ns_t deadline, struct errinfo *info);

/* Hands `result` to everybody who waits, on their own loops. Lock held. */
void flight_land(struct flight *f, enum err result, const struct errinfo *info);

#endif
