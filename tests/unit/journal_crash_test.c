/*
 * journal_crash_test.c -- crashes, failing and hanging devices, full disks: nothing acknowledged is lost, nothing
 * invented
 *
 * Runs the journal in memory (memworld.h), where every write is on record and every crash state can be built again.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/log.h"
#include "journal/format.h"
#include "journal_frames.h"
#include "journal_test.h"

/* ---- crash states ---------------------------------------------------------------------------------------------- */

enum { TASKS = 6, EACH = 12, LANES = 2, SEQ_MAX = 400 };

struct ack {
    size_t event;               /* acknowledged when so many events had happened */
    unsigned lane;
    uint64_t seq, n;
};

/* What the tasks know: the records they appended, and which were acknowledged when. */
static struct {
    struct journal_lane *lanes[LANES];
    uint64_t appended[LANES][SEQ_MAX];          /* n + 1 by seq; 0: not the owner's */
    struct ack acks[TASKS * EACH * 2 * 4];
    size_t n_acks;
    unsigned running;
    struct wake finished;
} work;

/* Tasks that come at different times, so that there is something to write while a batch is under way. */
static void await_turns(unsigned n)
{
    while (n-- > 0)
        await_turn();
}

static void appender(void *arg)
{
    unsigned task = (unsigned)(uintptr_t)arg, lane = task % LANES;

    for (unsigned i = 0; i < EACH; i++) {
        uint64_t n = task * 1000 + i, seq;
        struct journal_room room = { 0 };

        await_turns((task + i) % 5);
        assert_ok(await_journal_reserve(work.lanes[lane], 1, 2000, NS_NEVER, &room));
        assert_ok(append(work.lanes[lane], JOURNAL_INTENT, n, (n * 37) % 1500, &room, &seq));
        assert_true(seq < SEQ_MAX);
        work.appended[lane][seq] = n + 1;
        assert_ok(await_journal_commit(work.lanes[lane], seq, NS_NEVER));
        work.acks[work.n_acks++] = (struct ack){ memworld_events(), lane, seq, n };
        journal_unreserve(work.lanes[lane], &room);
    }
    if (--work.running == 0)
        wake_fire(&work.finished);
}

static void workload(void *arg)
{
    struct journal_options opt = small_options;
    struct journal *j;

    opt.checkpoint_every = 7;
    memset(&work, 0, sizeof(work));
    /* two lives: the second begins where the first ended in order */
    for (int life = 0; life < 2; life++) {
        j = open_journal(&opt);
        for (unsigned i = 0; i < LANES; i++)
            work.lanes[i] = open_lane(j, i);
        work.running = TASKS;
        work.finished = (struct wake){ 0 };
        for (unsigned i = 0; i < TASKS; i++)
            assert_non_null(task_spawn("appender", appender, (void *)(uintptr_t)i));
        assert_ok(await_wake(&work.finished, NS_NEVER));
        for (unsigned i = 0; i < LANES; i++)
            assert_ok(await_journal_lane_close(work.lanes[i]));
        journal_close(j);
    }
}

static unsigned found[LANES][SEQ_MAX];

static bool count_record(const struct journal_record *r, void *arg)
{
    char expected[64];

    assert_true(r->lane < LANES);
    if (r->type != JOURNAL_INTENT)
        return true;
    assert_true(r->seq < SEQ_MAX);
    if (!work.appended[r->lane][r->seq])
        fail_msg("record %u:%llu was never appended", r->lane, (unsigned long long)r->seq);
    snprintf(expected, sizeof(expected), "{\"call\":\"call_%llu\",",
             (unsigned long long)work.appended[r->lane][r->seq] - 1);
    assert_true(str_starts(r->payload, str_of(expected)));
    found[r->lane][r->seq]++;
    return true;
}

/* Starts the engine's journal on what the crash left, and compares with what was acknowledged by then. */
static void recovers(size_t event, enum memworld_tear tear, uint64_t seed)
{
    const struct journal_scan_options all = { .lane = -1 };
    struct journal *j = NULL;
    struct told t;
    enum err e = journal_open(&small_options, &j, &info);

    if (e)
        fail_msg("event %zu, tear %d, seed %llu: %s", event, tear, (unsigned long long)seed, info.text);
    memset(found, 0, sizeof(found));
    assert_ok(journal_scan("/j", &all, count_record, NULL, &info));
    for (size_t i = 0; i < work.n_acks; i++) {
        const struct ack *a = &work.acks[i];

        if (a->event <= event && found[a->lane][a->seq] != 1)
            fail_msg("event %zu, tear %d, seed %llu: record %u:%llu was acknowledged and is there %u times", event,
                     tear, (unsigned long long)seed, a->lane, (unsigned long long)a->seq, found[a->lane][a->seq]);
    }
    journal_close(j);
    if (verify("/j", NULL, &t, NULL))
        fail_msg("event %zu, tear %d, seed %llu: after recovery: %s", event, tear, (unsigned long long)seed, t.all);
}

/* How many batches were begun while others were under way. */
static unsigned begun_early(const char *path)
{
    size_t len, off = HEADER_BYTES, n;
    const uint8_t *p = (const uint8_t *)memworld_file(path, &len);
    unsigned early = 0;
    struct frame f;

    assert_non_null(p);
    for (; (n = frame_claims(p + off, JOURNAL_PAYLOAD_MAX)); off = frame_after(p, off + n)) {
        assert_null(frame_decode(p + off, n, &f));
        early += f.first && f.behind > 0;
    }
    return early;
}

static void no_crash_loses_or_invents_a_record(void **state)
{
    size_t events;
    unsigned states = 0;

    memworld_reset();
    in_loop(workload, NULL);
    events = memworld_events();
    assert_true(work.n_acks == TASKS * EACH * 2);
    assert_true(begun_early("/j/lane-0/0000000000000001.seg") >= 3);
    for (size_t event = 0; event <= events; event++) {
        for (int tear = 0; tear < TEAR_COUNT; tear++) {
            unsigned seeds = tear == TEAR_NONE || tear == TEAR_ALL || tear == TEAR_FRONT || tear == TEAR_DIRECTORY ? 1
                                                                                                                   : 3;

            for (uint64_t seed = 0; seed < seeds; seed++, states++) {
                memworld_crash(event, (enum memworld_tear)tear, seed + event * 8);
                recovers(event, (enum memworld_tear)tear, seed);
            }
        }
    }
    print_message("%u crash states of %zu events\n", states, events);
}

/* Recovery itself is cut short at each of its own steps; the next one still gets there. */
static void a_crash_during_recovery_is_survived(void **state)
{
    unsigned cut = 0;

    memworld_reset();
    in_loop(workload, NULL);
    for (size_t event = 20; event < memworld_events(); event += 13) {
        for (int step = 1; step < 40; step++) {
            struct journal *j = NULL;
            enum err e;

            memworld_crash(event, TEAR_512, event);
            memworld_faults = (struct memworld_faults){ .file_at = step, .file_errno = EIO };
            e = journal_open(&small_options, &j, &info);
            memworld_faults = (struct memworld_faults){ 0 };
            journal_close(j);
            if (e) {
                assert_err(e, E_JOURNAL_UNWRITABLE);
                cut++;
            }
            recovers(event, TEAR_512, event);
        }
    }
    assert_true(cut > 100);
}

/* Recovery writes too, and may be torn like everything else. */
static void a_crash_after_a_crash_is_survived(void **state)
{
    unsigned states = 0;
    size_t first;

    memworld_reset();
    in_loop(workload, NULL);
    for (first = memworld_events() / 5; first < memworld_events(); first += memworld_events() / 5) {
        size_t events;

        memworld_crash(first, TEAR_GARBLE, first);
        memworld_rebase();
        recovers(first, TEAR_GARBLE, first);            /* opens, recovers, closes in order */
        events = memworld_events();
        for (size_t event = 0; event <= events; event++) {
            for (int tear = 0; tear < TEAR_COUNT; tear++, states++) {
                memworld_crash(event, (enum memworld_tear)tear, event);
                recovers(first, (enum memworld_tear)tear, event);
            }
        }
        memworld_reset();
        in_loop(workload, NULL);
    }
    assert_true(states > 200);
}

/* ---- devices that fail ----------------------------------------------------------------------------------------- */

static struct {
    unsigned lane, calls;
    char why[200];
} failure;

static void note_failure(void *arg, unsigned lane, const char *why)
{
    failure.lane = lane;
    failure.calls++;
    snprintf(failure.why, sizeof(failure.why), "%s", why);
}

struct fault {
    bool sync;
    int at;
};

static struct wake waiter_done;
static enum err waiter_result;

static void waiter(void *arg)
{
    waiter_result = await_append(arg, 7, 10, NULL);
    wake_fire(&waiter_done);
}

static void fail_device(void *arg)
{
    const struct fault *f = arg;
    struct journal_options opt = small_options;
    struct journal_lane *lane;
    struct journal *j;
    uint64_t seq = 0, acked = 0;
    unsigned syncs, writes;
    enum err e = OK;

    memset(&failure, 0, sizeof(failure));
    opt.failed = note_failure;
    j = open_journal(&opt);
    lane = open_lane(j, 3);
    memworld_faults.ring_errno = EIO;
    *(f->sync ? &memworld_faults.ring_sync_at : &memworld_faults.ring_write_at) = f->at;
    waiter_done = (struct wake){ 0 };
    assert_non_null(task_spawn("waiter", waiter, lane));
    for (unsigned i = 0; i < 200 && !e; i++) {
        e = await_append(lane, i, 200, &seq);
        if (!e)
            acked = seq;
    }
    assert_err(e, E_JOURNAL_UNWRITABLE);
    assert_ok(await_wake(&waiter_done, NS_NEVER));
    /* the first write is that of zeros ahead, the second the waiter's batch */
    assert_int_equal(waiter_result, f->at <= 2 ? E_JOURNAL_UNWRITABLE : OK);
    assert_int_equal(failure.calls, 1);
    assert_int_equal(failure.lane, 3);
    assert_non_null(strstr(failure.why, "write: Input/output error"));
    assert_int_equal(journal_lane_state(lane), JOURNAL_FAILED);
    assert_err(journal_lane_ready(lane), E_JOURNAL_UNWRITABLE);

    /* nothing is tried again, and nothing is accepted; what was under way with it ends */
    assert_ok(await_sleep(loop_now() + NS_PER_MS));
    syncs = memworld_ring_syncs;
    writes = memworld_ring_writes;
    assert_err(append(lane, JOURNAL_OUTCOME, 1, 10, NULL, &seq), E_JOURNAL_UNWRITABLE);
    if (acked > 0)
        assert_ok(await_journal_commit(lane, acked, NS_NEVER));     /* what was durable stays so */
    assert_err(await_journal_lane_close(lane), E_JOURNAL_UNWRITABLE);
    assert_int_equal(memworld_ring_syncs, syncs);
    assert_int_equal(memworld_ring_writes, writes);
    journal_close(j);

    /* the next start goes on behind what was acknowledged */
    j = open_journal(&opt);
    assert_int_equal(journal_recovery(j)->lanes, 1);
    lane = open_lane(j, 3);
    assert_true(journal_lane_committed(lane) >= acked);
    assert_ok(await_append(lane, 1000, 10, NULL));
    assert_ok(await_journal_lane_close(lane));
    journal_close(j);
}

static void a_failed_write_or_fsync_ends_the_lane(void **state)
{
    struct told t;

    for (int sync = 0; sync < 2; sync++) {
        for (int at = 1; at < 80; at += at < 5 ? 1 : 11) {
            struct fault f = { sync, at };

            memworld_reset();
            in_loop(fail_device, &f);
            if (verify("/j", NULL, &t, NULL))
                fail_msg("%s", t.all);
        }
    }
}

/* Appends until the device has failed. */
static void appender_to_the_end(void *arg)
{
    unsigned task = (unsigned)(uintptr_t)arg, lane = task % LANES;
    enum err e = OK;

    for (unsigned i = 0; i < EACH && !e; i++) {
        uint64_t n = task * 1000 + i, seq;

        await_turns((task + i) % 5);
        e = append(work.lanes[lane], JOURNAL_INTENT, n, (n * 37) % 500, NULL, &seq);
        if (e)
            break;
        work.appended[lane][seq] = n + 1;
        e = await_journal_commit(work.lanes[lane], seq, NS_NEVER);
        if (!e)
            work.acks[work.n_acks++] = (struct ack){ memworld_events(), lane, seq, n };
    }
    if (--work.running == 0)
        wake_fire(&work.finished);
}

static void fail_under_way(void *arg)
{
    const struct fault *f = arg;
    struct journal_options opt = small_options;
    struct journal *j;

    memset(&work, 0, sizeof(work));
    memset(&failure, 0, sizeof(failure));
    opt.failed = note_failure;
    j = open_journal(&opt);
    for (unsigned i = 0; i < LANES; i++)
        work.lanes[i] = open_lane(j, i);
    memworld_faults.ring_errno = EIO;
    *(f->sync ? &memworld_faults.ring_sync_at : &memworld_faults.ring_write_at) = f->at;
    work.running = TASKS;
    for (unsigned i = 0; i < TASKS; i++)
        assert_non_null(task_spawn("appender", appender_to_the_end, (void *)(uintptr_t)i));
    assert_ok(await_wake(&work.finished, NS_NEVER));
    for (unsigned i = 0; i < LANES; i++)
        await_journal_lane_close(work.lanes[i]);
    journal_close(j);
}

/* One of several batches under way fails: those behind it may have reached the device, and are not acknowledged. */
static void a_batch_counts_when_those_before_it_do(void **state)
{
    unsigned failed = 0;

    for (int sync = 0; sync < 2; sync++) {
        for (int at = 1; at < 60; at++) {
            struct fault f = { sync, at };

            memworld_reset();
            in_loop(fail_under_way, &f);
            assert_true(failure.calls <= 1);
            failed += failure.calls;
            for (int tear = 0; tear < TEAR_COUNT; tear++) {
                memworld_crash(memworld_events(), (enum memworld_tear)tear, (uint64_t)at);
                recovers(memworld_events(), (enum memworld_tear)tear, (uint64_t)at);
            }
        }
    }
    assert_true(failed > 60);
}

static void run_through(void *arg)
{
    struct journal_options opt = small_options;
    struct journal_lane *lane = NULL;
    struct journal *j = NULL;
    uint64_t *acked = arg, seq;
    enum err e;

    opt.failed = note_failure;
    e = journal_open(&opt, &j, &info);
    if (!e)
        e = journal_lane_open(j, 0, &lane, &info);
    for (unsigned i = 0; i < 60 && !e; i++) {
        e = await_append(lane, i, 900, &seq);
        if (!e)
            *acked = seq;
    }
    if (lane)
        await_journal_lane_close(lane);
    journal_close(j);
}

static bool see_last(const struct journal_record *r, void *arg)
{
    *(uint64_t *)arg = r->seq;
    return true;
}

/* Every call that changes a file fails in turn: making directories, keys, segments, renames, syncs. */
static void any_file_operation_may_fail(void **state)
{
    const struct journal_scan_options all = { .lane = -1 };
    unsigned total;
    uint64_t acked = 0;

    memworld_reset();
    in_loop(run_through, &acked);
    total = memworld_file_calls;
    assert_true(acked >= 61 && total > 50);
    for (unsigned at = 1; at <= total; at++) {
        static const int errors[] = { EIO, ENOSPC, EROFS };
        uint64_t last = 0, none = 0;

        memworld_reset();
        acked = 0;
        memworld_faults = (struct memworld_faults){ .file_at = (int)at, .file_errno = errors[at % 3] };
        in_loop(run_through, &acked);
        memworld_faults = (struct memworld_faults){ 0 };
        in_loop(run_through, &none);                    /* a second life, without faults, works */
        assert_true(none > 0);
        assert_ok(journal_scan("/j", &all, see_last, &last, &info));
        assert_true(last >= acked);
    }
}

/* ---- devices that hang ----------------------------------------------------------------------------------------- */

static void hang_device(void *arg)
{
    struct journal_options opt = small_options;
    struct journal_lane *lane;
    struct journal_room room = { 0 }, none = { 0 };
    struct journal *j;
    uint64_t seq, outcome;
    ns_t began;

    memset(&failure, 0, sizeof(failure));
    opt.failed = note_failure;
    j = open_journal(&opt);
    lane = open_lane(j, 0);
    assert_ok(await_append(lane, 1, 10, NULL));

    memworld_faults.ring_hangs_until = loop_now() + 10 * NS_PER_S;
    began = loop_now();
    assert_ok(journal_reserve(lane, 2, 500, &room));
    assert_ok(append(lane, JOURNAL_INTENT, 2, 10, &room, &seq));
    assert_err(await_journal_commit(lane, seq, loop_now() + NS_PER_S), E_TIMEOUT);
    assert_true(loop_now() - began < 2 * NS_PER_S);
    assert_err(await_journal_commit(lane, seq, NS_NEVER), E_JOURNAL_UNWRITABLE);
    assert_true(loop_now() - began <= 3 * NS_PER_S + 10 * NS_PER_MS);
    assert_int_equal(journal_lane_state(lane), JOURNAL_STALLED);
    assert_err(append(lane, JOURNAL_REQUEST, 3, 10, NULL, &outcome), E_JOURNAL_UNWRITABLE);
    assert_err(await_journal_reserve(lane, 1, 10, NS_NEVER, &none), E_JOURNAL_UNWRITABLE);
    assert_ok(append(lane, JOURNAL_OUTCOME, 2, 10, &room, &outcome));      /* what was promised is still taken */

    while (journal_lane_committed(lane) < outcome)
        assert_ok(await_sleep(loop_now() + NS_PER_S));
    assert_true(loop_now() - began >= 10 * NS_PER_S);
    assert_int_equal(journal_lane_state(lane), JOURNAL_READY);
    journal_unreserve(lane, &room);
    assert_ok(await_append(lane, 4, 10, NULL));
    assert_int_equal(failure.calls, 0);

    /* and closing does not wait for ever */
    memworld_faults.ring_hangs_until = loop_now() + 60 * NS_PER_S;
    began = loop_now();
    assert_err(await_journal_lane_close(lane), E_TIMEOUT);
    assert_true(loop_now() - began < 5 * NS_PER_S);
    await_sleep(loop_now() + 70 * NS_PER_S);            /* the tasks end once the device does answer */
    *(struct journal_lane **)arg = lane;
    journal_close(j);
}

static struct journal_lane *abandoned;      /* still reachable: not a leak */

static void a_hanging_device_is_not_waited_for(void **state)
{
    struct told t;

    memworld_reset();
    in_loop(hang_device, &abandoned);
    assert_non_null(abandoned);
    journal_close(open_journal(&small_options));
    assert_ok(verify("/j", NULL, &t, NULL));
}

/* ---- full disks ------------------------------------------------------------------------------------------------ */

enum { ROOMS = 5 };          /* their outcomes together fit into what the smallest segment may promise */

static void fill_up(void *arg)
{
    struct journal_options opt = small_options;
    struct journal_lane *lane;
    struct journal *j;
    struct journal_room rooms[ROOMS] = { 0 };
    uint64_t seq, last = 0;
    unsigned in_flight = 0, done = 0;
    enum err e = OK;

    memworld_faults.capacity = *(const int64_t *)arg;
    j = open_journal(&opt);
    lane = open_lane(j, 0);
    /* calls come and go, ROOMS in flight at most, until there is no room for another */
    for (unsigned i = 0; !e; i++) {
        struct journal_room *room = &rooms[i % ROOMS];

        if (room->bytes > 0) {
            assert_ok(append(lane, JOURNAL_OUTCOME, i, 450, room, &last));
            journal_unreserve(lane, room);
            in_flight--;
            done++;
        }
        e = await_journal_reserve(lane, 2, 190 + 490, NS_NEVER, room);
        if (!e) {
            assert_ok(append(lane, JOURNAL_INTENT, i, 150, room, &seq));
            assert_ok(await_journal_commit(lane, seq, NS_NEVER));
            in_flight++;
        }
        assert_true(i < 100000);
    }
    assert_err(e, E_JOURNAL_UNWRITABLE);
    assert_int_equal(journal_lane_state(lane), JOURNAL_FULL);
    assert_err(journal_lane_ready(lane), E_JOURNAL_UNWRITABLE);
    for (unsigned i = 0; !(e = append(lane, JOURNAL_REQUEST, 0, 0, NULL, &seq)); i++)
        assert_true(i < 9);                             /* smaller things may still have fitted */
    assert_err(e, E_JOURNAL_UNWRITABLE);
    assert_true(in_flight > 3);

    /* every call in flight still gets its outcome */
    for (unsigned i = 0; i < ROOMS; i++) {
        if (rooms[i].bytes > 0)
            assert_ok(append(lane, JOURNAL_OUTCOME, i, 450, &rooms[i], &last));
        journal_unreserve(lane, &rooms[i]);
    }
    assert_ok(await_journal_commit(lane, last, NS_NEVER));

    /* it can even end and begin again in what was kept for that */
    assert_ok(await_journal_lane_close(lane));
    journal_close(j);
    j = open_journal(&opt);
    assert_int_equal(journal_recovery(j)->lanes_unclean, 0);
    lane = open_lane(j, 0);
    assert_int_equal(journal_lane_state(lane), JOURNAL_FULL);
    for (unsigned i = 0; !(e = append(lane, JOURNAL_REQUEST, 0, 0, NULL, &seq)); i++)
        assert_true(i < 9);
    assert_err(e, E_JOURNAL_UNWRITABLE);

    /* space returns: no restart */
    memworld_faults.capacity = 0;
    await_sleep(loop_now() + 2 * NS_PER_S);
    assert_int_equal(journal_lane_state(lane), JOURNAL_READY);
    for (unsigned i = 0; i < 50; i++)
        assert_ok(await_append(lane, i, 900, NULL));
    assert_ok(await_journal_lane_close(lane));
    journal_close(j);
}

static bool count_admin(const struct journal_record *r, void *arg)
{
    unsigned *n = arg;

    if (r->type == JOURNAL_ADMIN && memmem(r->payload.p, r->payload.len, STR("journal_full").p, 12))
        n[0]++;
    else if (r->type == JOURNAL_ADMIN && memmem(r->payload.p, r->payload.len, STR("journal_has_room").p, 16))
        n[1]++;
    else if (r->type == JOURNAL_CLOSE)
        n[2]++;
    return true;
}

static void a_full_disk_refuses_new_calls_only(void **state)
{
    const struct journal_scan_options all = { .lane = -1 };
    struct told t;

    for (int64_t capacity = 3 * 16384; capacity <= 6 * 16384; capacity += 1500) {
        unsigned n[3] = { 0 };

        memworld_reset();
        in_loop(fill_up, &capacity);
        if (verify("/j", NULL, &t, NULL))
            fail_msg("%s", t.all);
        assert_ok(journal_scan("/j", &all, count_admin, n, &info));
        assert_int_equal(n[0], 2);                      /* once in each life */
        assert_int_equal(n[1], 1);
        assert_int_equal(n[2], 2);
    }
}

/* All room is promised, to records that take it all: their checkpoints find some. */
static void sign_full(void *arg)
{
    struct journal_options opt = { .dir = "/j", .segment_bytes = 64 << 10, .checkpoint_every = 4 };
    struct journal_room rooms[64] = { 0 };
    struct journal_lane *lane;
    struct journal *j;
    unsigned n = 0;
    uint64_t seq;

    memworld_faults.capacity = 96 << 10;
    j = open_journal(&opt);
    lane = open_lane(j, 0);
    while (journal_reserve(lane, 1, 450, &rooms[n]) == OK)
        assert_true(++n < 64);
    assert_true(n > 20);
    for (unsigned i = 0; i < n; i++) {
        assert_ok(append(lane, JOURNAL_OUTCOME, i, 422, &rooms[i], &seq));     /* two blocks and a little */
        assert_ok(await_journal_commit(lane, seq, NS_NEVER));
    }
    for (unsigned i = 0; i < n; i++)
        journal_unreserve(lane, &rooms[i]);
    assert_ok(await_journal_lane_close(lane));
    journal_close(j);
}

static void a_full_disk_is_signed_in_time(void **state)
{
    struct journal_report r;
    struct told t;

    memworld_reset();
    in_loop(sign_full, NULL);
    memworld_faults.capacity = 0;
    if (verify("/j", NULL, &t, &r))
        fail_msg("%s", t.all);
    assert_true(r.checkpoints > 5);
}

static void start_full(void *arg)
{
    struct journal_lane *lane;
    struct journal *j = NULL;
    enum err e;

    for (int64_t capacity = 1; capacity < 40000; capacity += 1000) {
        memworld_faults.capacity = capacity;
        e = journal_open(&small_options, &j, &info);
        if (!e)
            e = journal_lane_open(j, 0, &lane, &info);
        if (e) {
            assert_err(e, E_JOURNAL_UNWRITABLE);
            assert_non_null(strstr(info.text, "No space left on device"));
        } else {
            assert_ok(await_journal_lane_close(lane));
        }
        if (j)
            journal_close(j);
        j = NULL;
    }
    assert_ok(e);
}

static void a_start_on_a_full_disk_says_so(void **state)
{
    memworld_reset();
    in_loop(start_full, NULL);
}

static void a_read_only_directory_is_named(void **state)
{
    struct journal *j = NULL;

    memworld_reset();
    memworld_faults = (struct memworld_faults){ .file_at = 1, .file_errno = EROFS };
    assert_err(journal_open(&small_options, &j, &info), E_JOURNAL_UNWRITABLE);
    assert_non_null(strstr(info.text, "/j"));
    assert_non_null(strstr(info.text, "Read-only file system"));
}

/* ---- damage that is no crash ----------------------------------------------------------------------------------- */

static void damage_of_acknowledged_records_stops_the_start(void **state)
{
    static const char path[] = "/j/lane-0/0000000000000001.seg";
    struct memworld_copy *whole;
    struct journal *j = NULL;
    size_t len;
    char *p;

    memworld_reset();
    in_loop(workload, NULL);
    memworld_crash(memworld_events() / 4, TEAR_NONE, 0);        /* a crash, with whole batches on disk */
    whole = memworld_copy();
    p = memworld_file(path, &len);
    for (size_t at = HEADER_BYTES; at < HEADER_BYTES + 4000; at += 7) {
        p[at] ^= 0x40;
        assert_err(journal_open(&small_options, &j, &info), E_TAMPERED);
        assert_non_null(strstr(info.text, path));
        assert_non_null(strstr(info.text, "offset"));
        assert_non_null(strstr(info.text, "record"));
        p[at] ^= 0x40;
    }
    memworld_restore(whole);
    recovers(memworld_events() / 4, TEAR_NONE, 0);
    memworld_copy_free(whole);
}

static int use_memory(void **state)
{
    world_use(&memworld);
    log_setup(LOG_LEVEL_ERROR + 1, LOG_FORMAT_LOGFMT);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_crash_loses_or_invents_a_record),
        cmocka_unit_test(a_crash_during_recovery_is_survived),
        cmocka_unit_test(a_crash_after_a_crash_is_survived),
        cmocka_unit_test(damage_of_acknowledged_records_stops_the_start),
        cmocka_unit_test(a_failed_write_or_fsync_ends_the_lane),
        cmocka_unit_test(a_batch_counts_when_those_before_it_do),
        cmocka_unit_test(any_file_operation_may_fail),
        cmocka_unit_test(a_hanging_device_is_not_waited_for),
        cmocka_unit_test(a_full_disk_refuses_new_calls_only),
        cmocka_unit_test(a_full_disk_is_signed_in_time),
        cmocka_unit_test(a_start_on_a_full_disk_says_so),
        cmocka_unit_test(a_read_only_directory_is_named),
    };

    return cmocka_run_group_tests(tests, use_memory, NULL);
}
