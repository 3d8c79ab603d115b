/*
 * memworld.h -- a world in memory for tests: files whose every write is on record, a ring, a clock that only waits move
 *
 * The engine's own code runs in it unchanged (loop/world.h).  Writes that were not synced can be lost, torn or garbled
 * afterwards: memworld_crash() builds the files as a crash at a given event might have left them.
 */
#ifndef TESTS_MEMWORLD_H
#define TESTS_MEMWORLD_H

#include "loop/world.h"

extern const struct world memworld;

/* Asserts that a write could go to a device as it is, where direct() was asked for. */
void memworld_write_check(const struct op *op);

/* What a write that is durable by itself does when it ends: these bytes can no longer be lost, others still can. */
void memworld_sync_range(int fd, int64_t off, size_t len);

/* Forgets all files, events and faults. No file may be in use. */
void memworld_reset(void);

/* ---- faults ---------------------------------------------------------------------------------------------------- */

struct memworld_faults {
    int ring_write_at, ring_sync_at;    /* the nth such operation from now (1: the next) fails, once */
    int ring_errno;
    bool ring_hangs;                    /* nothing completes until this is cleared */
    ns_t ring_hangs_until;              /* ... or until then, if not 0 */
    int file_at, file_errno; /* the nth call of any of the blocking functions that change something fails, once */
    int64_t capacity;                   /* bytes that may be allocated in all; 0: no limit */
};
extern struct memworld_faults memworld_faults;
extern unsigned memworld_ring_syncs, memworld_ring_writes, memworld_file_calls;

/* ---- events and crashes ---------------------------------------------------------------------------------------- */

size_t memworld_events(void);           /* so many writes, syncs, renames ... have happened */
/* The first number of events after which all these bytes of the file were written and synced; SIZE_MAX: never yet. */
size_t memworld_durable_at(const char *path, int64_t off, size_t len);
int64_t memworld_bytes(void);           /* that all files have together: what `capacity` counts */

enum memworld_tear {
    TEAR_NONE,              /* all that was written is there */
    TEAR_ALL,               /* nothing unsynced is there */
    TEAR_PREFIX,            /* unsynced writes up to some byte */
    TEAR_512, TEAR_4096,    /* any of the blocks of unsynced writes */
    TEAR_FRONT,             /* unsynced writes without their first block */
    TEAR_GARBLE,            /* some blocks of unsynced writes hold something else */
    TEAR_DIRECTORY,         /* creations, renames and removals since the last sync_dir did not happen */
    TEAR_COUNT
};
/* What is there now is durable and where the events begin: the events before are forgotten. For a crash after a
 * crash. */
void memworld_rebase(void);

/* Replaces the files by what a crash after `event` events might leave. The events stay, so that it can be asked again;
 * what happens from then on is not recorded. */
void memworld_crash(size_t event, enum memworld_tear tear, uint64_t seed);

/* ---- files ----------------------------------------------------------------------------------------------------- */

/* Direct access, for tests that damage things. NULL: no such file. */
char *memworld_file(const char *path, size_t *ret_len);
void memworld_put(const char *path, const void *p, size_t n);
bool memworld_remove(const char *path);
bool memworld_rename(const char *from, const char *to);
/* Copies of all files, to come back to. */
struct memworld_copy *memworld_copy(void);
void memworld_restore(const struct memworld_copy *c);
void memworld_copy_free(struct memworld_copy *c);

#endif
