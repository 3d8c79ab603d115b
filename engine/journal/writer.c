/*
 * writer.c -- the task that commits a lane's records, batch after batch
 *
 * One write is in flight per lane; what arrives meanwhile is the next batch.  A batch is sealed (numbers in the
 * batch, hash chain, signatures, checksums) just before it is written, so that it is known where it begins: recovery
 * depends on a batch being started only after the one before it was durable.  It is filled up with zeros to whole
 * blocks, so that it can go to the device directly and no block with an acknowledged record is written again.
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
enum { BUSY_RECORDS = 8 };          /* so many in the last commit: company may be worth waiting for */

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

struct batch {
    unsigned records;
    uint64_t last_seq;
    bool rolls;
};

/* Up to the ROLL record, the others move up. Once per segment. */
static void take_to_roll(struct journal_lane *lane, struct batch *b)
{
    struct records *from = &lane->pending, *to = &lane->batch;
    size_t n = 0, size;
    enum journal_type type;
    bool room;

    do {
        ASSERT(n < from->len);
        frame_peek(from->p + n, &size, &b->last_seq, &type);
        b->records++;
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

/* All of it: the memory changes hands, that of the batch before takes what comes next. */
static void take_all(struct journal_lane *lane, struct batch *b)
{
    struct records before = lane->batch;

    lane->batch = lane->pending;
    lane->pending = (struct records){ .p = before.p, .cap = before.cap };
    b->records = lane->pending_records;
    b->last_seq = lane->next_seq - 1;
}

/* What goes into the next commit, from pending to the batch: all of it, or up to a ROLL record. */
static struct batch batch_take(struct journal_lane *lane)
{
    struct batch b = { .rolls = lane->next == NEXT_PROMISED };
    size_t n;

    if (b.rolls)
        take_to_roll(lane, &b);
    else
        take_all(lane, &b);
    n = lane->batch.len;
    lane->batch.len = (size_t)block_up((int64_t)n);
    ASSERT(lane->batch.len <= lane->batch.cap);
    memset(lane->batch.p + n, 0, lane->batch.len - n);
    ASSERT(b.records > 0 && lane->pending_records >= b.records);
    lane->pending_records -= b.records;
    if (!b.rolls) {
        lane->tail_off = block_up(lane->tail_off);
        ASSERT(lane->head.off + (int64_t)lane->batch.len == lane->tail_off);
    }
    return b;
}

static void sign(struct journal_lane *lane, uint8_t *frame, uint64_t seq)
{
    const struct journal *j = lane->j;
    struct buf text = BUF_INIT(512);
    uint8_t signature[64];

    checkpoint_text(j->manifest.id, lane->number, seq - 1, lane->head.last, j->signer.key, &text);
    ASSERT(!text.overflow);
    signer_sign(&j->signer, buf_str(&text), signature);
    checkpoint_put(frame_payload(frame), lane->head.last, j->signer.key, signature);
    buf_release(&text);
}

static void batch_seal(struct journal_lane *lane, const struct batch *b)
{
    uint8_t *frame = lane->batch.p;
    size_t size;

    for (unsigned behind = 0; behind < b->records; behind++, frame += size) {
        enum journal_type type;
        uint64_t seq;

        frame_peek(frame, &size, &seq, &type);
        ASSERT(seq == lane->head.next_seq && (type == JOURNAL_ROLL) == (b->rolls && seq == b->last_seq));
        if (type == JOURNAL_CHECKPOINT || type == JOURNAL_CLOSE)
            sign(lane, frame, seq);
        frame_seal(frame, behind, lane->head.link);
        memcpy(lane->head.last, lane->head.link, HASH_LEN);
        lane->head.next_seq++;
    }
    ASSERT(block_up(frame - lane->batch.p) == (int64_t)lane->batch.len);
}

/* Without a deadline: the kernel has the buffer until it is done. Those who wait have deadlines of their own. */
static bool await_batch_written(struct journal_lane *lane)
{
    struct op write = {
        .kind = OP_WRITE, .fd = lane->fd, .buf = lane->batch.p, .len = lane->batch.len, .off = lane->head.off
    };
    int res = 0;

    ASSERT(lane->head.off + (int64_t)lane->batch.len <= lane->head.segment_bytes);
    ALWAYS(await_op(&write, NS_NEVER, &res) == OK);
    if (res < 0 || (size_t)res != lane->batch.len) {
        lane_fail(lane, "write", res < 0 ? -res : EIO);
        return false;
    }
    lane->head.off += (int64_t)lane->batch.len;
    return true;
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

static bool await_roll(struct journal_lane *lane)
{
    struct roll r = { .lane = lane, .now = loop_wall_ms() };

    ASSERT(lane->next == NEXT_PROMISED && lane->next_fd >= 0);
    lane->head.segment = false;
    await_blocking(roll_run, &r);
    if (r.rc < 0) {
        lane_fail(lane, "beginning the next segment", -r.rc);
        return false;
    }
    lane->fd = lane->next_fd;
    lane->next_fd = -1;
    lane->next = NEXT_NONE;
    ahead_begin(lane);
    wake_fire(&lane->next_wanted);
    return true;
}

/* ---- the writer ------------------------------------------------------------------------------------------------ */

static void stalled(struct timer *t)
{
    struct journal_lane *lane = CONTAINER_OF(t, struct journal_lane, stall);

    lane->stalled = true;
    LOG_ERROR("the journal's device does not answer; new calls are refused", LOG_I("lane", lane->number));
}

static bool await_commit(struct journal_lane *lane)
{
    struct batch b = batch_take(lane);
    ns_t began = loop_now();
    bool good;

    batch_seal(lane, &b);
    timer_set(&lane->stall, began + lane->j->opt.commit_timeout, stalled);
    await_ahead_clear(lane, lane->head.off + (int64_t)lane->batch.len, b.rolls);
    good = lane->state == JOURNAL_READY && await_batch_written(lane);
    if (good) {
        ASSERT(b.last_seq > lane->committed && lane->head.next_seq == b.last_seq + 1);
        lane->committed = b.last_seq;
        lane->last_batch = b.records;
        metric_add(M_JOURNAL_COMMITS_TOTAL, 1);
        metric_observe(M_JOURNAL_COMMIT_SECONDS, loop_now() - began);
        waiters_wake(lane->waiters, b.last_seq);
        if (b.rolls)
            good = await_roll(lane);
        else
            ahead_look(lane);
    }
    timer_clear(&lane->stall);
    if (good && lane->stalled)
        LOG_WARN("the journal's device answers again", LOG_I("lane", lane->number),
                 LOG_I("ms", (loop_now() - began) / NS_PER_MS));
    lane->stalled = false;
    room_offer(lane);
    return good;
}

/* Lets those who are about to append do so. */
static void await_company(struct journal_lane *lane)
{
    if (lane->j->opt.group_ms > 0 && lane->last_batch >= BUSY_RECORDS && !lane->closing)
        await_sleep(loop_now() + lane->j->opt.group_ms * NS_PER_MS);
    else
        await_last();
}

void writer_main(void *arg)
{
    struct journal_lane *lane = arg;

    task_shield(+1);
    for (;;) {
        while (!lane_due(lane) && !lane->closing) {
            task_doing("waiting for records");
            lane->work = (struct wake){ 0 };
            await_wake(&lane->work, lane->pending.len ? lane->due : NS_NEVER);
        }
        if (lane->pending.len == 0 || lane->state != JOURNAL_READY)
            break;
        task_doing("committing");
        await_company(lane);
        if (!await_commit(lane))
            break;
    }
    task_shield(-1);
    wake_fire(&lane->writer_gone);
}
