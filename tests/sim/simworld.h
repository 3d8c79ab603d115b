/*
 * simworld.h -- the world of a simulated run: files of memworld, and a ring, a clock and randomness driven by the seed
 *
 * Each loop has a thread, and one of them runs at a time: where a loop waits, the seed says who goes on, so threads add
 * no chance of their own.  Time passes only when every loop waits.  Operations on the ring take time and complete in
 * any order; writes and syncs fail, hang and run out of space when the weather says so.  A crash is an instant between
 * two changes of the files: simworld_die() fixes it, and simworld_crash() later puts back what it may have left.
 *
 * SQLite lives in the same files (simvfs.c), so the store's crash states are the journal's.
 */
#ifndef TESTS_SIM_SIMWORLD_H
#define TESTS_SIM_SIMWORLD_H

#include "dice.h"
#include "loop/world.h"

extern const struct world simworld;

/* What can go wrong with files, in permille of operations; all zero: a calm world. */
struct simworld_weather {
    unsigned slow;       /* an operation of the ring takes up to a second */
    unsigned hang;       /* ... or nothing completes for up to 5 s */
    unsigned ring_error; /* a write or sync of the ring fails: the journal's lane is over */
    unsigned file_error; /* a blocking call fails */
};
extern struct simworld_weather simworld_weather;

/* A new run: no files, time at its beginning. */
void simworld_begin(uint64_t seed);
ns_t simworld_now(void);
wall_ms_t simworld_true_ms(void); /* the provider's clock */
/* The machine's clock is set: so many ms off the provider's. */
void simworld_step_wall(wall_ms_t to);
bool simworld_stepped(void); /* was it ever in this run? */
/* Runs fn(arg), which runs loop number `loop` (in the order of their creation), on the calling thread when it is its
 * turn. Loop 0 begins. */
void simworld_run(unsigned loop, void (*fn)(void *arg), void *arg);
/* Bytes that files may have together from now on beyond what they have; 0: no limit. */
void simworld_space(int64_t bytes);

/* Called after each change of the files. */
extern void (*simworld_changed)(void);
/* The process dies now: this is the instant that simworld_crash() goes back to. */
void simworld_die(void);
bool simworld_dead(void);
/* Since when no device has answered; NS_NEVER if they do. */
ns_t simworld_hangs_since(void);
/* The files as that death may have left them; the dead are gone, and what is there is durable. */
void simworld_crash(struct dice *d);
/* The same after an orderly end: all is there. */
void simworld_end(void);
/* The event after which the bytes of a file were durable, and the event that the world is at. */
size_t simworld_durable_at(const char *path, int64_t off, size_t len);
size_t simworld_event(void);

/* simvfs.c: makes SQLite use these files, whatever path it is given. Once per process. */
void simvfs_install(void);
void simvfs_begin(void); /* a new run: its randomness begins again */

#endif
