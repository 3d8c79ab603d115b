/*
 * once.h -- idempotency keys: the same call with the same key is executed once
 *
 * A key belongs to (tenant, user, agent, tool).  Claiming it is part of the intent, settling it part of the outcome,
 * and both are rebuilt from those journal records at start, so the table needs no storage of its own (P2, P9).
 *
 *   first claim                         CLAIMED   the caller runs
 *   same key, same arguments, running   waits for the first to settle
 *   same key, same arguments, settled   REPLAY    the recorded outcome is answered again: done, or unknown
 *   same key, other arguments           E_KEY_REUSED
 *
 * What was refused or failed did not happen: its key is free again.  Reads claim no key.
 */
#ifndef CALL_ONCE_H
#define CALL_ONCE_H

#include "base/arena.h"
#include "base/clock.h"
#include "base/err.h"
#include "loop/loop.h"

struct once_table;
struct once_entry;

enum {
    ONCE_ENTRIES_MAX = 1 << 20,
    ONCE_TENANT_MAX = ONCE_ENTRIES_MAX / 8,         /* of one tenant: nobody fills the table for the others */
    ONCE_RESULT_BYTES = 256 << 20,      /* results kept, all together; beyond that a replay says only that it is done */
};

struct once_name {
    struct str tenant, user, agent, tool, key;
};

struct once_record {
    char call_id[40];                   /* of the call that ran */
    enum outcome outcome;               /* DONE or UNKNOWN */
    enum err err;
    struct str result;                  /* sealed; in the arena given */
};

struct once_table *once_new(ns_t ttl);
void once_free(struct once_table *t);

/* Claims, or waits for the one that runs (until deadline: E_DEADLINE; E_CANCELLED), or answers what it settled to. OK
 * with *ret set: claimed; settle it. OK with *ret NULL: *replay is filled. E_CALL_TOO_LARGE: it is, but for its result.
 * E_KEY_REUSED; E_OVERLOADED: the table, or the tenant's share of it, is full. */
enum err await_once_claim(struct once_table *t, const struct once_name *name, const char digest[65],
                          const char *call_id, wall_ms_t now, ns_t deadline, struct arena *a, struct once_entry **ret,
                          struct once_record *replay);
/* DONE and UNKNOWN are remembered; anything else frees the key. Wakes who waits. `e` is gone afterwards. */
void once_settle(struct once_table *t, struct once_entry *e, enum outcome outcome, enum err err,
                 struct str sealed_result);

/* Recovery, before any claim: what the journal says. A key restored twice keeps the later call, by `when` it was
 * intended: lanes are read one after the other. None is left out for the tenant's share, which bounds what is claimed:
 * what was done stays done. */
void once_restore(struct once_table *t, const struct once_name *name, struct str digest, struct str call_id,
                  wall_ms_t when, wall_ms_t now, enum outcome outcome, enum err err, struct str sealed_result);
size_t once_count(struct once_table *t);

#endif
