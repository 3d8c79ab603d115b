/*
 * internal.h -- what the files of journal/ share. Not for other rooms.
 */
#ifndef JOURNAL_INTERNAL_H
#define JOURNAL_INTERNAL_H

#include <pthread.h>

#include "base/check.h"
#include "journal/files.h"
#include "journal/manifest.h"
#include "loop/task.h"
#include "loop/world.h"

enum { JOURNAL_MAGIC = 0x6a726e6c, LANE_MAGIC = 0x6c616e65 };

/* Where a lane stands on disk, and goes on. */
struct lane_head {
    unsigned lane;
    bool open;                      /* a struct journal_lane has it */
    bool failed;                    /* it ended without order: the next start recovers it */
    bool torn, crashed;             /* during recovery: the tail is to be cut; the lane was left without order */
    bool segment;                   /* false: the next record needs a new segment */
    uint64_t first_seq, number;     /* of the segment; number 0: there has never been one */
    int64_t segment_bytes;
    int64_t off;
    uint64_t next_seq;
    uint8_t link[HASH_LEN];         /* of the next record: the last one's hash, or that of a fresh segment's header */
    uint8_t last[HASH_LEN];         /* the last record's hash; the genesis before the first */
};

/* Immutable but for what the mutex guards: manifest and heads (start, stop and failure of lanes only). */
struct journal {
    uint32_t magic;
    struct journal_options opt;     /* strings are ours, zeros replaced by defaults */
    char dir[JOURNAL_PATH_MAX];
    int lock_fd;
    struct signer signer;
    struct journal_recovery recovery;
    pthread_mutex_t mutex;
    struct manifest manifest;
    struct lane_head heads[JOURNAL_LANES_MAX];
    unsigned n_heads;
};

/* ---- segment.c: blocking; all answer 0 or -errno --------------------------------------------------------------- */

void lane_path(const struct journal *j, unsigned lane, char path[JOURNAL_PATH_MAX]);
void segment_path(const struct journal *j, unsigned lane, uint64_t first_seq, char path[JOURNAL_PATH_MAX]);
/* Allocates the lane's file `next`, replacing what an earlier process left. -ENOSPC, -EDQUOT, -EFBIG: no room. */
int next_allocate(const struct journal *j, unsigned lane, int *ret_fd);
void next_discard(const struct journal *j, unsigned lane);
/* Makes `next` (open at fd) the lane's segment behind `head`, and moves head there. */
int next_adopt(const struct journal *j, int fd, struct lane_head *head, wall_ms_t now);
/* Moves what stands between from and the last byte that is not zero into a .torn file; zeros stay behind. Durable. */
int segment_cut(struct seg_file *f, const char *lane_dir, uint64_t first_seq, int64_t from, int64_t *ret_cut,
                struct buf *ret_name);
/* Gives a lane whose last segment is full (or that has none) a new one. */
int head_new_segment(const struct journal *j, struct lane_head *head);
/* Appends a record where no loop runs; a CHECKPOINT's payload is unsigned_payload(). Durable. */
int head_append(const struct journal *j, struct lane_head *head, enum journal_type type, struct str payload);

/* ---- recover.c ------------------------------------------------------------------------------------------------- */

/* Brings every lane of the manifest into order, fills j->heads and j->recovery. */
enum err journal_recover(struct journal *j, struct errinfo *info);
/* What a segment's header has to say, from where it was found and what stands before it. */
struct seg_place {
    unsigned lane;
    uint64_t named;             /* by its file name */
    uint64_t seq;               /* the next record of the lane */
    uint64_t number;            /* of the segment before; 0: none, or not known */
    const uint8_t *link;        /* the hash it has to follow; NULL: not known */
};
/* How far a lane's records are signed, as they are read one after the other. */
struct signatures {
    uint8_t before[HASH_LEN];   /* hash of the record before the next: at a segment's begin its header's link */
    uint64_t upto;              /* the last record known to be signed, or to sign */
    uint64_t since;             /* of the owner's, those behind it */
};

/* Takes the next record; NULL, or what is wrong with its signature, if it is to have one. */
const char *signatures_take(struct signatures *s, const struct manifest *m, const struct seg_header *h,
                            const struct frame *f);
/* The manifest names this record, rightly. */
void signatures_named(struct signatures *s, uint64_t seq);
/* Where more of the owner's stand behind a signature CHECKPOINTs were taken out, and what is there may be anybody's. */
uint64_t signatures_most(const struct manifest *m);
extern const char signatures_missing[];

/* NULL, or why the header does not fit there. */
const char *header_misfit(const struct manifest *m, const struct seg_place *place, const struct seg_header *h);
/* E_TAMPERED with one line that names the place and says what to do. */
enum err refuse(struct errinfo *info, const char *file, int64_t off, uint64_t seq, const char *why);

/* ---- journal.c ------------------------------------------------------------------------------------------------- */

struct lane_head *journal_head(struct journal *j, unsigned lane);      /* NULL if unknown. Under the mutex */
/* Fills the payload of the CHECKPOINT or CLOSE that comes next. */
void journal_sign(const struct journal *j, const struct lane_head *head, uint8_t *at);
/* What it has until then: the size is right. */
struct str unsigned_payload(void);
/* Writes the manifest with what the heads say now. Under the mutex; blocks. */
enum err journal_manifest_update(struct journal *j, struct errinfo *info);

/* ---- scan.c ---------------------------------------------------------------------------------------------------- */

/* journal_scan for one lane, from the segment that begins with record `from` on. */
enum err segments_scan(const char *dir, unsigned lane, uint64_t from, journal_record_fn *fn, void *arg,
                       struct errinfo *info);

/* ---- lane.c, writer.c, ahead.c ----------------------------------------------------------------------------------- */

enum next_state { NEXT_NONE, NEXT_READY, NEXT_PROMISED };

struct commit_waiter {
    uint64_t seq;
    struct wake wake;
    struct commit_waiter *next, **prev;
};

/* First come, first served. */
struct room_line {
    struct commit_waiter *first, **last;
};

/* Records in memory that a device may take them from: it begins at a multiple of WORLD_ALIGN and is as long as some, so
 * that there is room for the zeros that fill a batch up. */
struct records {
    uint8_t *p;
    size_t len, cap;
};

enum { FLIGHTS_MAX = 4 };       /* batches under way */

/* A batch on its way to the device. Its memory stays with it. */
struct flight {
    struct journal_lane *lane;
    struct flight *next;
    struct records batch;               /* filled up to what devices take */
    unsigned records;
    uint64_t last_seq;
    bool rolls;                         /* its last record is ROLL */
    bool landed;
    int result;                         /* once landed: what the write returned */
    ns_t began;
    struct op write;
};

struct journal_lane {
    uint32_t magic;
    struct journal *j;
    unsigned number;
    enum journal_state state;           /* READY, FAILED or CLOSED: the rest is derived */
    bool stalled, closing, hung;        /* hung: given up while the device did not answer; never freed */

    /* sealed: where the next batch begins, in the file and in the chain; all before it is durable or under way */
    struct lane_head head;
    int fd;
    uint64_t committed;                 /* durable, with all before it */
    struct {
        struct flight *first, **last;   /* under way, in the order of their records */
        struct flight *idle;            /* the one that landed last first: its memory is in the caches */
        struct flight all[FLIGHTS_MAX];
    } flights;

    /* queued: where the next record will go, behind everything pending. It becomes the next batch where it lies, and is
     * never more than fits into the segment at hand and the next */
    struct records pending;
    struct buf draft;               /* memory for the next payload; none: somebody has it */
    unsigned pending_records;
    uint64_t wanted;                    /* somebody waits for the commit of this record */
    ns_t due;                           /* of what is pending: then it is committed though nobody waits */
    int64_t tail_off, tail_bytes;       /* offset in, and length of, the segment the tail will be in */
    uint64_t next_seq;
    unsigned unsigned_records;          /* since the last checkpoint */
    size_t share, saved;                /* of the next one's room: each of theirs; of them all, in `reserved` */
    size_t reserved;                    /* bytes promised to rooms */

    /* the segment ahead */
    enum next_state next;
    int next_fd;
    int space_error;                    /* errno of the last attempt; 0 while none failed */
    bool told_full;                     /* this shortage is on record */
    struct wake next_wanted;
    struct room_line entering, reserving;               /* see room_offer() */

    /* zeros ahead, in the segment at hand: see ahead.c */
    bool direct;                        /* writes go past the page cache */
    bool zeroing;                       /* zeros are being written, from zero_to on */
    int64_t zero_to;                    /* up to here the blocks are written, with records or zeros */
    struct wake zeros_wanted, zeros_idle;

    struct wake work;
    unsigned last_batch;                /* records in the batch that set out last */
    struct timer stall;                 /* for the first of those under way, or for the next segment */
    struct commit_waiter *waiters;
    struct wake writer_gone, next_gone, zeros_gone;
    struct journal_lane *abandoned_before;
};

/* Wakes all waiters in the list; they look for themselves. */
void waiters_wake(struct commit_waiter *list, uint64_t up_to);
void waiter_link(struct commit_waiter **list, struct commit_waiter *w);
void waiter_unlink(struct commit_waiter *w);
/* There may be room again: the first who waits for it looks. */
void room_offer(struct journal_lane *lane);

/* Queues a record of the journal's own, digging into the floor if it must; false if even that is full. */
bool lane_note(struct journal_lane *lane, enum journal_type type, struct str payload);
/* Room for n bytes in all; what is there stays. False when memory is out. */
bool records_grow(struct records *r, size_t n);
static inline bool records_reserve(struct records *r, size_t n) { return n <= r->cap || records_grow(r, n); }
/* Is it time to commit what is pending? */
bool lane_due(const struct journal_lane *lane);
/* Room left for records that have no reservation, and for those of the journal itself. */
int64_t lane_room(const struct journal_lane *lane);

/* Zeros are written page by page, to blocks that no batch shares. */
static inline int64_t page_up(int64_t off)
{
    return (off + WORLD_ALIGN - 1) & ~(int64_t)(WORLD_ALIGN - 1);
}

/* Ends the lane: what could not be done, and errno. */
void lane_fail(struct journal_lane *lane, const char *what, int error);

/* The lane's segment is open at lane->fd, nothing is being written: takes up zeros_main's work in it. */
void ahead_begin(struct journal_lane *lane);
/* Before a batch is written that ends at `end`: until nobody else is writing there, nor anywhere if it is the last. */
void await_ahead_clear(struct journal_lane *lane, int64_t end, bool last);
/* After it: there may be zeros to write. */
void ahead_look(struct journal_lane *lane);

/* The lane's tasks. */
void writer_main(void *lane);
void next_main(void *lane);
void zeros_main(void *lane);

#endif
