/*
 * lag.h -- how long what arrives stands in line before its loop gets to it
 *
 * The line is in the kernel: io_uring hands over what has arrived a few at a time, so no turn of the loop is long and
 * nothing of the line is seen.  A probe stands in it like everybody else: a byte sent to ourselves, and the time until
 * it comes back.  One is under way at a time, at most one in LAG_PROBE_MS, and only when somebody asks: an idle loop
 * sleeps.
 *
 * One per loop, used on its thread only.  Without lag_open() (the simulated world has no sockets) the answer is 0.
 */
#ifndef LOOP_LAG_H
#define LOOP_LAG_H

#include "base/err.h"
#include "loop/loop.h"

enum { LAG_PROBE_MS = 5, LAG_STALE_MS = 100 };

struct lag {
    struct op recv;
    int fds[2];                 /* to ourselves: what is sent to [0] comes out of [1] */
    bool open, under_way;
    ns_t sent, back, last;      /* when the probe was sent; when the one before it came back, and how long it took */
};

/* On the loop's thread. E_IO. `l` is zero and must stay until the loop has ended. */
enum err lag_open(struct lag *l, struct errinfo *info);
/* On the loop's thread, before it ends. */
void lag_close(struct lag *l);

/* How long it is now, as far as is known: what the last probe took, unless that is long ago, or for how long one has
 * been under way if that is more. Sends the next one when it is time. */
ns_t lag_look(struct lag *l, ns_t clock);

#endif
