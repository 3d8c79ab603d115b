/*
 * journal.h -- what happened, on disk before it is said: lanes of chained records, committed in groups
 *
 * A journal is one directory, owned by one process (a lock file).  Each worker writes a lane of its own, on its own
 * loop, without locks: segment files of one size, preallocated, append-only, each record framed, checksummed and
 * chained by SHA-256 to the one before; signed checkpoints in between.  The bytes are written down at the top of
 * format.h.
 *
 *   journal_open          locks, checks every lane, cuts what a crash left torn          blocks: at start
 *   journal_scan          streams the records back (idempotency results, open intents)   blocks: at start, in the CLI
 *   journal_lane_open     per worker, on its loop                                        blocks: at start
 *   await_journal_turn    in line before anything is made, while too much is queued
 *   await_journal_reserve room for a call's records, before anything is promised
 *   journal_append        frames a record and gives it its number; never waits
 *   await_journal_commit  returns when that record is on disk
 *   await_journal_lane_close, journal_close
 *
 * What can fail.  A failed write or fsync ends the lane: nothing is retried, every waiter and all later appends get
 * E_JOURNAL_UNWRITABLE, and `failed` tells the owner, who stops acknowledging and exits non-zero.  No space: the next
 * segment is allocated ahead of need, so this is met before a record is accepted; new calls are refused while what is
 * reserved still fits, and the lane goes on by itself once space returns.  A hanging device: waiters get
 * E_JOURNAL_UNWRITABLE after commit_timeout, appends are refused until the write has ended.
 *
 * Payloads are compact JSON objects of the owner's: the journal looks only at the top-level member "call", and only in
 * journal_show.  Whatever is sensitive in them has been sealed before.  (design.md 9, P1 P2 P6 P9)
 */
#ifndef JOURNAL_JOURNAL_H
#define JOURNAL_JOURNAL_H

#include "base/clock.h"
#include "base/err.h"
#include "base/str.h"

struct journal;             /* the process's: directory, lock, key, manifest. Thread safe */
struct journal_lane;        /* one worker's; for its loop's thread only */

enum journal_type {
    /* the journal's own */
    JOURNAL_OPEN = 1,       /* a process began to write this lane */
    JOURNAL_CLOSE,          /* it ended in order; signed like a checkpoint */
    JOURNAL_RECOVERED,      /* the process before did not: says what was cut */
    JOURNAL_CHECKPOINT,     /* signature over the chain up to here */
    JOURNAL_ROLL,           /* last record of a segment: another segment must follow */
    /* the owner's */
    JOURNAL_INTENT,         /* a call is about to act */
    JOURNAL_OUTCOME,        /* how it ended */
    JOURNAL_REQUEST,        /* a request that never became a call: malformed, not authenticated, a list call */
    JOURNAL_ADMIN,          /* an act of an operator, or of the engine on itself */
    JOURNAL_TYPE_END
};

enum {
    JOURNAL_FRAME_BYTES = 72,                   /* before each payload */
    JOURNAL_PAYLOAD_MAX = 1024 * 1024,          /* and never more than a quarter of a segment */
    JOURNAL_LANES_MAX = 1024,
    JOURNAL_SEGMENT_MIN = 16 * 1024,            /* tests */
    JOURNAL_SEGMENT_DEFAULT = 64 * 1024 * 1024,
    JOURNAL_CHECKPOINT_DEFAULT = 1024,
    JOURNAL_CHECKPOINT_MAX = 1 << 20,
    JOURNAL_TAIL_MAX = 10000,
};

const char *journal_type_name(enum journal_type t);         /* "intent" */

/* ---- the process ----------------------------------------------------------------------------------------------- */

struct journal_options {
    const char *dir;                /* created if missing (its parent must exist) */
    const char *key_path;           /* Ed25519 signing key, mode 0600; NULL: DIR/signing.key; made if missing */
    const char *build;              /* named in OPEN records; NULL: this program's version */
    int64_t segment_bytes;          /* 0: JOURNAL_SEGMENT_DEFAULT; a multiple of 4096, at least JOURNAL_SEGMENT_MIN */
    unsigned checkpoint_every;      /* the owner's records; 0: JOURNAL_CHECKPOINT_DEFAULT. A journal keeps its first */
    ns_t commit_timeout;            /* 0: 2 s */
    ns_t space_retry;               /* how often a full disk is tried again; 0: 1 s */
    unsigned group_ms; /* under load (8 records in the last commit) wait this long for company; 0: do not */
    /* A lane can write no more. Called once per lane, on the lane's thread; `why` says file and errno. May be NULL. */
    void (*failed)(void *arg, unsigned lane, const char *why);
    void *failed_arg;
};

/* What journal_open found. */
struct journal_recovery {
    unsigned lanes;
    unsigned lanes_unclean;         /* not closed by the process before */
    uint64_t records;
    uint64_t torn_bytes;            /* moved to .torn files */
};

/*
 * Locks the directory and recovers every lane in it. Blocks for the time it takes to read the journal.
 * E_JOURNAL_UNWRITABLE: locked by another process (named), not writable, full.  E_TAMPERED: a chain is broken where no
 * crash breaks one: info names file, offset and sequence number, nothing was changed.  E_CONFIG: the options or the
 * key.
 */
enum err journal_open(const struct journal_options *opt, struct journal **ret, struct errinfo *info);
const struct journal_recovery *journal_recovery(const struct journal *j);
const uint8_t *journal_public_key(const struct journal *j);     /* 32 bytes */
/* All lanes must be closed (asserted), or have failed. Accepts NULL. */
void journal_close(struct journal *j);

/* ---- a lane ---------------------------------------------------------------------------------------------------- */

enum journal_state {
    JOURNAL_READY,
    JOURNAL_FULL,           /* no space for new calls; reserved records still fit; ends by itself */
    JOURNAL_STALLED,        /* a commit takes longer than commit_timeout; ends when the device answers */
    JOURNAL_FAILED,         /* a write or fsync failed, for good */
    JOURNAL_CLOSED,
};

/* On the loop's thread; blocks (start-up). Appends OPEN. A lane is open at most once at a time (E_CONFIG otherwise). */
enum err journal_lane_open(struct journal *j, unsigned lane, struct journal_lane **ret, struct errinfo *info);
/* Appends CLOSE, waits until all is on disk, frees the lane. No other task may use it any more (asserted).
 * Works under a shield of its own: a cancelled task closes just the same. E_JOURNAL_UNWRITABLE: the lane failed.
 * E_TIMEOUT: its device does not answer; tasks of the lane stay on the loop until it does, and the process is to go.
 * What was not committed is lost, as after a crash. */
enum err await_journal_lane_close(struct journal_lane *lane);
enum journal_state journal_lane_state(const struct journal_lane *lane);
/* E_JOURNAL_UNWRITABLE unless a new call could be recorded now: for readiness, and for refusing early. */
enum err journal_lane_ready(const struct journal_lane *lane);
unsigned journal_lane_number(const struct journal_lane *lane);
/* Records up to this number are on disk. */
uint64_t journal_lane_committed(const struct journal_lane *lane);

/* Room promised to one call: a record no larger than what is left of it always fits. Zero-initialise. */
struct journal_room {
    size_t bytes;
};

/* Room for `records` records with payloads of `payload_bytes` together. Adds to what `room` holds.
 * E_JOURNAL_UNWRITABLE: full, stalled or failed. E_CALL_TOO_LARGE: more than a segment could ever hold. */
enum err journal_reserve(struct journal_lane *lane, unsigned records, size_t payload_bytes, struct journal_room *room);
/* The same, but waits (to `deadline`, at most commit_timeout) while the next segment is still being allocated. */
enum err await_journal_reserve(struct journal_lane *lane, unsigned records, size_t payload_bytes, ns_t deadline,
                               struct journal_room *room);
/* For who is about to make what a record is of: waits, as await_journal_reserve() would, while there is no room at all
 * or much is queued, so that what is made waits nowhere. Promises nothing, and refuses nobody without a wait. */
enum err await_journal_turn(struct journal_lane *lane, ns_t deadline);
/* Gives back what is left; the room is zero afterwards, and may be zero before. */
void journal_unreserve(struct journal_lane *lane, struct journal_room *room);

/*
 * Frames and queues a record; it is written with the next group commit. Never waits; copies payload (a compact JSON
 * object, free of control characters: E_FORMAT otherwise). Takes its space from `room` as far as that goes, from free
 * space otherwise; room may be NULL. type: one of the owner's (asserted).
 * E_JOURNAL_UNWRITABLE: full, stalled, failed.  With a room that is large enough, only a failed lane refuses.
 * E_CALL_TOO_LARGE: payload over JOURNAL_PAYLOAD_MAX or a quarter of a segment.
 */
enum err journal_append(struct journal_lane *lane, enum journal_type type, struct str payload,
                        struct journal_room *room, uint64_t *ret_seq);
/* An empty buffer for a payload, with the memory of the one before. Whoever takes it keeps it, or gives it back. */
struct buf journal_draft(struct journal_lane *lane);
void journal_draft_done(struct journal_lane *lane, struct buf *b);

/*
 * Waits until record `seq` is on disk. E_TIMEOUT at the caller's deadline; E_JOURNAL_UNWRITABLE when the lane failed,
 * or after commit_timeout; E_CANCELLED. In all three the record may still become durable: it is in the file's order.
 */
enum err await_journal_commit(struct journal_lane *lane, uint64_t seq, ns_t deadline);

/* ---- reading: no lock needed, a running engine is not disturbed ------------------------------------------------ */

struct journal_record {
    unsigned lane;
    uint64_t seq;
    wall_ms_t time;
    enum journal_type type;
    struct str payload;             /* valid during the callback */
    const uint8_t *hash;            /* 32 bytes */
    const char *file;               /* path of the segment */
    int64_t offset;
};

/* Return false to stop. */
typedef bool journal_record_fn(const struct journal_record *r, void *arg);

struct journal_scan_options {
    wall_ms_t since;                /* only records at or after; 0: all. Older segments are not read */
    unsigned types;                 /* bit (1 << type); 0: all */
    int lane;                       /* -1: all */
};

/* Every record, lane by lane, in order within a lane, frames and chain checked on the way. Stops in front of a torn
 * tail. E_TAMPERED with the place in info when a chain is broken elsewhere; E_NOT_FOUND: no journal there; E_IO. */
enum err journal_scan(const char *dir, const struct journal_scan_options *opt, journal_record_fn *fn, void *arg,
                      struct errinfo *info);

/* ---- verifying (sluice audit verify) --------------------------------------------------------------------------- */

struct journal_note {
    bool problem;                   /* false: worth knowing */
    const char *file;
    int64_t offset;                 /* -1: the file as a whole */
    uint64_t seq;                   /* the record that should be there; 0: none in particular */
    const char *text;
};

struct journal_report {
    unsigned lanes, segments, checkpoints, problems;
    uint64_t records, bytes;        /* bytes: of records, frames included */
    bool live;                      /* an engine holds the lock */
    uint8_t key[32];                /* the newest public key: compare with what you noted elsewhere */
};

struct journal_verify_options {
    const uint8_t *expect_key;      /* 32 bytes, or NULL: believe the manifest */
    /* Lines as journal_checkpoint_print wrote them, kept elsewhere: each must be found. May be empty. */
    struct str checkpoints;
};

/*
 * Reads every byte: manifest, signatures, headers, frames, chain, padding, the zeros behind. OK: nothing wrong;
 * E_TAMPERED: problems, each told through `note` (may be NULL), up to 1000; E_NOT_FOUND, E_IO: could not look (info).
 * What only the files can show is shown.  What is not: records behind a lane's last signature can be cut off, and where
 * the lane was not closed in order altered and forged (a note names the first such record); and whoever holds the
 * signing key can rewrite everything.  Print checkpoints and keep them on another machine.
 */
enum err journal_verify(const char *dir, const struct journal_verify_options *opt,
                        void (*note)(const struct journal_note *n, void *arg), void *arg,
                        struct journal_report *ret, struct errinfo *info);

/* One line per lane: "sluice-checkpoint 1 <journal id> <lane> <seq> <chain hash> <public key> <signature>", of the
 * newest signed checkpoint in the files. */
enum err journal_checkpoint_print(const char *dir, struct buf *out, struct errinfo *info);

/* ---- text (sluice audit tail, show) ---------------------------------------------------------------------------- */

/* One record as a line: time, lane:seq, type, payload. Control characters, bidi marks and bad UTF-8 are escaped. */
void journal_record_line(const struct journal_record *r, struct buf *out);
/* The newest n (at most JOURNAL_TAIL_MAX) records of all lanes, by time, as lines. */
enum err journal_tail(const char *dir, unsigned n, struct buf *out, struct errinfo *info);
/* All records of a call (payload member "call" equals id), or the one named "lane:seq", with payloads spread over
 * lines. E_NOT_FOUND if there is none. */
enum err journal_show(const char *dir, struct str id, struct buf *out, struct errinfo *info);

/* Follows a journal that is being written: each call hands over what has come since the one before (the first: since
 * now). Does not wait; the caller sleeps in between. */
struct journal_follow;
enum err journal_follow_open(const char *dir, struct journal_follow **ret, struct errinfo *info);
enum err journal_follow_next(struct journal_follow *f, journal_record_fn *fn, void *arg, struct errinfo *info);
void journal_follow_close(struct journal_follow *f);        /* accepts NULL */

#endif
