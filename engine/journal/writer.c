/*
 * writer.c -- the task that commits a lane's records, batch after batch
 *
 * A batch is sealed (what was durable then, hash chain, signatures, checksums) just before it is written, so that it is
 * known where it begins.  It is filled up with zeros to whole blocks, so that it can go to the device directly and no
 * block with an acknowledged record is written again.
 *
 * Several batches may be under way (struct flight).  They end in any order, and are acknowledged in theirs: a record is
 * durable when its batch and all before it are.  While there are few records a batch sets out at the end of each turn
 * that has some, or of the last of those that a loop with more to do runs through (await_last), so that a call waits
 * for one write, its own; when there are many (CROWD_RECORDS) the next batch waits until the one before has landed and
 * takes all that has come meanwhile: each write costs the processor 20 us, as much as a third of a call.  A segment's
 * last batch flies alone, and nothing sets out before the next segment is there.
 *
 * A durable write that fails is never tried again: the kernel may have dropped the pages and call the next one a
 * success.  The lane is over, and so is the process.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/log.h"
#include "base/metric.h"
#include "journal/internal.h"

STATIC_ASSERT(BLOCK_BYTES % WORLD_BLOCK == 0, "batches are what direct writes take");
STATIC_ASSERT(WORLD_ALIGN % BLOCK_BYTES == 0, "records that have room have it filled up to a block");
enum {
    BUSY_RECORDS = 8,           /* so many in the last batch: company may be worth waiting for (group_ms) */
    CROWD_RECORDS = 24,         /* so many: the next one waits until it has landed */
};

void lane_fail(struct journal_lane *lane, const char *what, int error)
{
    char path[JOURNAL_PATH_MAX], why[JOURNAL_PATH_MAX + 100];

    ASSERT(lane->state == JOURNAL_READY && error > 0);
    segment_path(lane->j, lane->number, lane->head.first_seq, path);
    snprintf(why, sizeof(why), "%s: %s: %s", path, what, strerror(error));
    lane->state = JOURNAL_FAILED;
    LOG_ERROR("the journal can no longer be written; nothing more is acknowledged", LOG_I("lane", lane->number),
              LOG_S("why", why));
    waiters_wake(lane->waiters, UINT64_MAX);
    waiters_wake(lane->reserving.first, UINT64_MAX);
    waiters_wake(lane->entering.first, UINT64_MAX);
    if (lane->j->opt.failed)
        lane->j->opt.failed(lane->j->opt.failed_arg, lane->number, why);
}

/* ---- a batch --------------------------------------------------------------------------------------------------- */

/* Up to the ROLL record, the others move up. Once per segment. */
static void take_to_roll(struct journal_lane *lane, struct flight *f)
{
    struct records *from = &lane->pending, *to = &f->batch;
    size_t n = 0, size;
    enum journal_type type;
    bool room;

    do {
        ASSERT(n < from->len);
        frame_peek(from->p + n, &size, &f->last_seq, &type);
        f->records++;
        n += size;
    } while (type != JOURNAL_ROLL);
    to->len = 0;
    room = records_reserve(to, n);
    ASSERT(room);
    memcpy(to->p, from->p, n);
    to->len = n;
    from->len -= n;
    memmove(from->p, from->p + n, from->len);
}

/* All of it: the memory changes hands, that of an earlier batch takes what comes next. */
static void take_all(struct journal_lane *lane, struct flight *f)
{
    struct records before = f->batch;

    f->batch = lane->pending;
    lane->pending = (struct records){ .p = before.p, .cap = before.cap };
    f->records = lane->pending_records;
    f->last_seq = lane->next_seq - 1;
}

/* What goes into the next commit, from pending to the batch: all of it, or up to a ROLL record. */
static void batch_take(struct journal_lane *lane, struct flight *f)
{
    size_t n;

    f->rolls = lane->next == NEXT_PROMISED;
    f->records = 0;
    if (f->rolls)
        take_to_roll(lane, f);
    else
        take_all(lane, f);
    n = f->batch.len;
    f->batch.len = (size_t)block_up((int64_t)n);
    ASSERT(f->batch.len <= f->batch.cap);
    memset(f->batch.p + n, 0, f->batch.len - n);
    ASSERT(f->records > 0 && lane->pending_records >= f->records);
    lane->pending_records -= f->records;
    lane->last_batch = f->records;
    if (!f->rolls) {
        lane->tail_off = block_up(lane->tail_off);
        ASSERT(lane->head.off + (int64_t)f->batch.len == lane->tail_off);
    }
}

static void batch_seal(struct journal_lane *lane, const struct flight *f)
{
    uint8_t *frame = f->batch.p;
    size_t size;

    for (unsigned i = 0; i < f->records; i++, frame += size) {
        enum journal_type type;
        uint64_t seq;

        frame_peek(frame, &size, &seq, &type);
        ASSERT(seq == lane->head.next_seq && (type == JOURNAL_ROLL) == (f->rolls && seq == f->last_seq));
        if (type == JOURNAL_CHECKPOINT || type == JOURNAL_CLOSE)
            journal_sign(lane->j, &lane->head, frame_payload(frame));
        frame_seal(frame, (uint32_t)(seq - 1 - lane->committed), i == 0, lane->head.link);
        memcpy(lane->head.last, lane->head.link, HASH_LEN);
        lane->head.next_seq++;
    }
    ASSERT(block_up(frame - f->batch.p) == (int64_t)f->batch.len && lane->head.next_seq == f->last_seq + 1);
}

/* ---- under way ------------------------------------------------------------------------------------------------- */

static void stalled(struct timer *t)
{
    struct journal_lane *lane = CONTAINER_OF(t, struct journal_lane, stall);

    lane->stalled = true;
    LOG_ERROR("the journal's device does not answer; new calls are refused", LOG_I("lane", lane->number));
}

/* What is waited for since `began` is there. */
static void answered(struct journal_lane *lane, ns_t began)
{
    timer_clear(&lane->stall);
    if (lane->stalled && lane->state == JOURNAL_READY)
        LOG_WARN("the journal's device answers again", LOG_I("lane", lane->number),
                 LOG_I("ms", (loop_now() - began) / NS_PER_MS));
    lane->stalled = false;
}

/* The first of those under way, or what follows it, may take so long. */
static void expect(struct journal_lane *lane, ns_t began)
{
    timer_set(&lane->stall, began + lane->j->opt.commit_timeout, stalled);
}

/* The first of those under way has landed. */
static void settle(struct journal_lane *lane, struct flight *f)
{
    lane->flights.first = f->next;
    if (!f->next)
        lane->flights.last = &lane->flights.first;
    f->next = lane->flights.idle;
    lane->flights.idle = f;
    answered(lane, f->began);
    if (lane->flights.first)
        expect(lane, lane->flights.first->began);
    if (lane->state != JOURNAL_READY)
        return;
    if (f->result < 0 || (size_t)f->result != f->batch.len) {
        lane_fail(lane, "write", f->result < 0 ? -f->result : EIO);
        return;
    }
    ASSERT(f->last_seq > lane->committed);
    lane->committed = f->last_seq;
    metric_add(M_JOURNAL_COMMITS_TOTAL, 1);
    metric_observe(M_JOURNAL_COMMIT_SECONDS, loop_now() - f->began);
    waiters_wake(lane->waiters, lane->committed);
    ahead_look(lane);
    room_offer(lane);
}

static void landed(struct op *op, int result)
{
    struct flight *f = op->owner;
    struct journal_lane *lane = f->lane;

    f->result = result;
    f->landed = true;
    while (lane->flights.first && lane->flights.first->landed)
        settle(lane, lane->flights.first);
    wake_fire(&lane->work);
}

/* May the next batch set out? */
static bool may_begin(const struct journal_lane *lane)
{
    if (lane->state != JOURNAL_READY)
        return false;
    return !lane->flights.first || (lane->direct && lane->flights.idle && lane->next != NEXT_PROMISED &&
                                    lane->last_batch < CROWD_RECORDS);
}

/* Without a deadline: the kernel has the memory until it is done. Those who wait have deadlines of their own. */
static struct flight *await_begin(struct journal_lane *lane)
{
    struct flight *f = lane->flights.idle;

    lane->flights.idle = f->next;
    f->next = NULL;
    f->began = loop_now();
    f->landed = false;
    if (!lane->flights.first)
        expect(lane, f->began);
    *lane->flights.last = f;
    lane->flights.last = &f->next;
    batch_take(lane, f);
    batch_seal(lane, f);
    f->write = (struct op){ .kind = OP_WRITE, .fd = lane->fd, .buf = f->batch.p, .len = f->batch.len,
                            .off = lane->head.off, .done = landed, .owner = f };
    lane->head.off += (int64_t)f->batch.len;
    ASSERT(lane->head.off <= lane->head.segment_bytes);
    await_ahead_clear(lane, lane->head.off, f->rolls);
    if (lane->state == JOURNAL_READY)
        op_submit(&f->write);
    else
        landed(&f->write, -ECANCELED);
    return f;
}

/* ---- the next segment ------------------------------------------------------------------------------------------ */

struct roll {
    struct journal_lane *lane;
    wall_ms_t now;
    int rc;
};

static void roll_run(void *arg)
{
    struct roll *r = arg;

    r->rc = next_adopt(r->lane->j, r->lane->next_fd, &r->lane->head, r->now);
    if (r->rc == 0)
        world->close(r->lane->fd);      /* all of it is on disk */
}

static void await_roll(struct journal_lane *lane)
{
    struct roll r = { .lane = lane, .now = loop_wall_ms() };

    ASSERT(lane->next == NEXT_PROMISED && lane->next_fd >= 0);
    lane->head.segment = false;
    await_blocking(roll_run, &r);
    if (r.rc < 0) {
        lane_fail(lane, "beginning the next segment", -r.rc);
        return;
    }
    lane->fd = lane->next_fd;
    lane->next_fd = -1;
    lane->next = NEXT_NONE;
    ahead_begin(lane);
    wake_fire(&lane->next_wanted);
}

/* ---- the writer ------------------------------------------------------------------------------------------------ */

/* Until something has landed, or come. */
static void await_work(struct journal_lane *lane, ns_t until)
{
    lane->work = (struct wake){ 0 };
    await_wake(&lane->work, until);
}

/* A segment's last batch is on its way. */
static void await_last_batch(struct journal_lane *lane)
{
    ns_t began;

    while (lane->flights.first)
        await_work(lane, NS_NEVER);
    if (lane->state != JOURNAL_READY)
        return;
    began = loop_now();
    expect(lane, began);
    await_roll(lane);
    answered(lane, began);
    room_offer(lane);
}

/* Lets those who are about to append do so. */
static void await_company(struct journal_lane *lane)
{
    if (lane->j->opt.group_ms > 0 && lane->last_batch >= BUSY_RECORDS && !lane->closing)
        await_sleep(loop_now() + lane->j->opt.group_ms * NS_PER_MS);
    else
        await_last();
}

static bool over(const struct journal_lane *lane)
{
    return !lane->flights.first && (lane->state != JOURNAL_READY || (lane->closing && lane->pending.len == 0));
}

void writer_main(void *arg)
{
    struct journal_lane *lane = arg;

    task_shield(+1);
    while (!over(lane)) {
        bool may = may_begin(lane);

        if (!may || !lane_due(lane)) {
            task_doing("waiting for records");
            await_work(lane, may && lane->pending.len > 0 ? lane->due : NS_NEVER);
            continue;
        }
        task_doing("committing");
        await_company(lane);
        if (may_begin(lane) && await_begin(lane)->rolls)
            await_last_batch(lane);
    }
    task_shield(-1);
    wake_fire(&lane->writer_gone);
}
