/*
 * ahead.c -- what is made ready before the writer comes there: the next segment, and zeros in the present one
 *
 * A segment is allocated, so that what was accepted fits; but blocks that were allocated and never written have to be
 * noted as written when they are, by a transaction of the file system within the commit.  So a second task writes zeros
 * some way ahead of the writer, and a commit only changes blocks that have been written before: with writes that go to
 * the device directly that is a third of the CPU.  Where the file system has no direct writes nothing is written ahead.
 *
 * Zeros are never written where a record may be: a batch that would end behind zero_to waits while zeros are under way,
 * and moves zero_to when they are not.  A segment's last batch waits for them wherever they are: behind a ROLL record
 * nothing may be found, whatever a crash does to a write.  A failure is the lane's end, as it is with any write: the
 * kernel reports a lost page only once, whoever asks.
 */
#include <errno.h>

#include "base/log.h"
#include "journal/internal.h"

enum { ZERO_PIECE = 1024 * 1024, ZERO_AHEAD = 1024 * 1024 };

/* ---- the segment ahead ----------------------------------------------------------------------------------------- */

struct allocation {
    struct journal_lane *lane;
    int fd, rc;
};

static void allocation_run(void *arg)
{
    struct allocation *a = arg;

    a->rc = next_allocate(a->lane->j, a->lane->number, &a->fd);
}

static void await_next(struct journal_lane *lane)
{
    struct allocation a = { .lane = lane, .fd = -1 };

    await_blocking(allocation_run, &a);
    if (a.rc < 0) {
        if (lane->space_error != -a.rc)
            LOG_WARN("the journal's next segment could not be allocated; trying again", LOG_I("lane", lane->number),
                     LOG_S("why", strerror(-a.rc)));
        lane->space_error = -a.rc;
    } else {
        lane->next_fd = a.fd;
        lane->next = NEXT_READY;
        lane->space_error = 0;
        if (lane->told_full) {
            LOG_INFO("the journal has room again", LOG_I("lane", lane->number));
            lane_note(lane, JOURNAL_ADMIN, STR("{\"event\":\"journal_has_room\"}"));
            lane->told_full = false;
        }
    }
    room_offer(lane);
}

void next_main(void *arg)
{
    struct journal_lane *lane = arg;

    task_shield(+1);
    while (!lane->closing) {
        ns_t until = NS_NEVER;

        if (lane->next == NEXT_NONE && !lane->space_error) {
            await_next(lane);
            continue;
        }
        if (lane->space_error)
            until = loop_now() + lane->j->opt.space_retry;
        lane->next_wanted = (struct wake){ 0 };
        if (await_wake(&lane->next_wanted, until) == E_TIMEOUT && !lane->closing)
            await_next(lane);
    }
    task_shield(-1);
    wake_fire(&lane->next_gone);
}

/* ---- zeros ahead ----------------------------------------------------------------------------------------------- */

static bool zeros_due(const struct journal_lane *lane)
{
    return lane->direct && lane->zero_to < lane->head.segment_bytes && lane->zero_to - lane->head.off < ZERO_AHEAD;
}

void ahead_begin(struct journal_lane *lane)
{
    ASSERT(!lane->zeroing);
    lane->direct = world->direct(lane->fd) == 0;
    lane->zero_to = page_up(lane->head.off);
    ahead_look(lane);
}

void ahead_look(struct journal_lane *lane)
{
    if (zeros_due(lane))
        wake_fire(&lane->zeros_wanted);
}

void await_ahead_clear(struct journal_lane *lane, int64_t end, bool last)
{
    while (lane->zeroing && (end > lane->zero_to || last)) {
        lane->zeros_idle = (struct wake){ 0 };
        await_wake(&lane->zeros_idle, NS_NEVER);
    }
    if (last)
        lane->zero_to = lane->head.segment_bytes;       /* nor will anybody begin */
    else if (end > lane->zero_to)
        lane->zero_to = page_up(end);
}

static void await_zeros(struct journal_lane *lane)
{
    static _Alignas(WORLD_ALIGN) char zeros[ZERO_PIECE];
    int64_t left = lane->head.segment_bytes - lane->zero_to;
    struct op write = { .kind = OP_WRITE, .fd = lane->fd, .buf = zeros, .off = lane->zero_to };
    int res = 0;

    write.len = left < ZERO_PIECE ? (size_t)left : ZERO_PIECE;
    lane->zeroing = true;
    ALWAYS(await_op(&write, NS_NEVER, &res) == OK);
    lane->zeroing = false;
    if (res >= 0 && (size_t)res == write.len)
        lane->zero_to += res;
    else if (lane->state == JOURNAL_READY)
        lane_fail(lane, "write", res < 0 ? -res : EIO);
    wake_fire(&lane->zeros_idle);
}

void zeros_main(void *arg)
{
    struct journal_lane *lane = arg;

    task_shield(+1);
    while (!lane->closing) {
        if (lane->state == JOURNAL_READY && zeros_due(lane)) {
            await_zeros(lane);
            continue;
        }
        task_doing("waiting until zeros are wanted");
        lane->zeros_wanted = (struct wake){ 0 };
        await_wake(&lane->zeros_wanted, NS_NEVER);
    }
    task_shield(-1);
    wake_fire(&lane->zeros_gone);
}
