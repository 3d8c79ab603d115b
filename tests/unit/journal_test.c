/*
 * journal_test.c -- the journal on real rings, files and threads
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"
#include "base/metric.h"
#include "journal/crc.h"
#include "journal/format.h"
#include "dice.h"
#include "journal_test.h"

static char dir[64];
static const struct journal_scan_options all = { .lane = -1 };

static void shell(const char *command)
{
    assert_int_equal(system(command), 0);
}

static int fresh_directory(void **state)
{
    char command[128];

    if (dir[0]) {
        snprintf(command, sizeof(command), "rm -rf %s", dir);
        shell(command);
    }
    snprintf(dir, sizeof(dir), "/tmp/sluice-journal-XXXXXX");
    assert_non_null(mkdtemp(dir));
    return 0;
}

static struct journal_options options(int64_t segment_bytes)
{
    return (struct journal_options){ .dir = dir, .segment_bytes = segment_bytes };
}

static int python(const char *path)
{
    char command[256];
    int status;

    snprintf(command, sizeof(command), "python3 tests/script/verify_journal.py %s >/dev/null 2>&1", path);
    status = system(command);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static bool count(const struct journal_record *r, void *arg)
{
    unsigned *n = arg;

    n[r->type]++;
    return true;
}

/* ---- many tasks, few commits ----------------------------------------------------------------------------------- */

enum { CALLS = 400, ROUNDS = 20 };

static struct {
    struct journal_lane *lane;
    unsigned running;
    struct wake finished;
} group;

static void one_call(void *arg)
{
    for (unsigned i = 0; i < ROUNDS; i++) {
        struct journal_room room = { 0 };
        uint64_t intent, outcome;

        assert_ok(await_journal_reserve(group.lane, 2, 2000, NS_NEVER, &room));
        assert_ok(append(group.lane, JOURNAL_INTENT, (uintptr_t)arg, 300, &room, &intent));
        assert_ok(await_journal_commit(group.lane, intent, NS_NEVER));
        assert_true(journal_lane_committed(group.lane) >= intent);
        assert_ok(append(group.lane, JOURNAL_OUTCOME, (uintptr_t)arg, 200, &room, &outcome));
        assert_true(outcome > intent);
        assert_ok(await_journal_commit(group.lane, outcome, NS_NEVER));
        journal_unreserve(group.lane, &room);
    }
    if (--group.running == 0)
        wake_fire(&group.finished);
}

static void many_calls(void *arg)
{
    struct journal_options opt = options(*(int64_t *)arg);
    struct journal *j = open_journal(&opt);

    group.lane = open_lane(j, 0);
    group.running = CALLS;
    group.finished = (struct wake){ 0 };
    for (uintptr_t i = 0; i < CALLS; i++)
        assert_non_null(task_spawn("call", one_call, (void *)i));
    assert_ok(await_wake(&group.finished, NS_NEVER));
    assert_ok(await_journal_lane_close(group.lane));
    journal_close(j);
}

/* In the smallest segments there is not room for all calls at once: how many go on together, and so share a commit, is
 * then a matter of how soon the device has the next segment ready. */
static void commits_are_shared(void **state)
{
    int64_t sizes[] = { 16 << 20, 1 << 20, 256 << 10 };

    for (int i = 0; i < 3; i++) {
        unsigned n[JOURNAL_TYPE_END] = { 0 };
        int64_t commits = metric_sum(M_JOURNAL_COMMITS_TOTAL), records = metric_sum(M_JOURNAL_RECORDS_TOTAL);
        struct journal_report r;
        struct told t;

        fresh_directory(NULL);
        in_loop(many_calls, &sizes[i]);
        commits = metric_sum(M_JOURNAL_COMMITS_TOTAL) - commits;
        records = metric_sum(M_JOURNAL_RECORDS_TOTAL) - records;
        assert_true(records >= 2 * CALLS * ROUNDS);
        assert_true(i == 2 || commits * 100 < records);
        assert_ok(journal_scan(dir, &all, count, n, &info));
        assert_int_equal(n[JOURNAL_INTENT], CALLS * ROUNDS);
        assert_int_equal(n[JOURNAL_OUTCOME], CALLS * ROUNDS);
        if (verify(dir, NULL, &t, &r))
            fail_msg("%s", t.all);
        assert_int_equal(r.records, records);
        assert_int_equal(python(dir), 0);
        assert_true(i == 0 || r.segments > 3);
    }
}

/* ---- two workers, while somebody reads ------------------------------------------------------------------------- */

struct worker {
    pthread_t thread;
    struct journal *j;
    unsigned lane;
};

static atomic_int workers_busy;

static void work(void *arg)
{
    struct worker *w = arg;
    struct journal_lane *lane = open_lane(w->j, w->lane);

    for (unsigned i = 0; i < 1500; i++)
        assert_ok(await_append(lane, i, 500, NULL));
    assert_ok(await_journal_lane_close(lane));
}

static void *worker_main(void *arg)
{
    in_loop(work, arg);
    workers_busy--;
    return NULL;
}

static bool follow_record(const struct journal_record *r, void *arg)
{
    uint64_t *last = arg;

    assert_int_equal(r->seq, last[r->lane] + 1);
    last[r->lane] = r->seq;
    return true;
}

static void a_running_journal_can_be_read(void **state)
{
    struct journal_options opt = options(128 << 10);
    struct worker workers[2];
    struct journal_follow *f = NULL;
    uint64_t last[2] = { 0, 0 };
    struct journal_report r;
    struct told t;
    struct journal *j = open_journal(&opt);
    unsigned reads = 0, live = 0;

    assert_ok(journal_follow_open(dir, &f, &info));
    workers_busy = 2;
    for (unsigned i = 0; i < 2; i++) {
        workers[i] = (struct worker){ .j = j, .lane = i };
        assert_int_equal(pthread_create(&workers[i].thread, NULL, worker_main, &workers[i]), 0);
    }
    while (workers_busy > 0) {
        if (verify(dir, NULL, &t, &r))
            fail_msg("read %u: %s", reads, t.all);
        reads++;
        live += r.live;
        if (journal_follow_next(f, follow_record, last, &info))
            fail_msg("%s", info.text);
    }
    for (unsigned i = 0; i < 2; i++)
        pthread_join(workers[i].thread, NULL);
    journal_close(j);
    assert_true(reads > 1 && live > 0);
    assert_ok(journal_follow_next(f, follow_record, last, &info));
    assert_true(last[0] > 1500 && last[1] > 1500);
    journal_follow_close(f);
    assert_ok(verify(dir, NULL, &t, NULL));
    assert_int_equal(python(dir), 0);
}

/* ---- kill -9 --------------------------------------------------------------------------------------------------- */

enum { KILLED_ACKS_FD = 100 };

static void killed_call(void *arg)
{
    for (uint64_t i = 0;; i++) {
        uint64_t seq, line[2];

        if (await_append(arg, (uintptr_t)task_self() + i, 100 + i % 700, &seq))
            _exit(3);
        line[0] = seq;
        line[1] = (uintptr_t)task_self() + i;
        if (write(KILLED_ACKS_FD, line, sizeof(line)) != sizeof(line))
            _exit(4);
    }
}

static void killed(void *arg)
{
    struct journal_options opt = options(64 << 10);
    struct journal_lane *lane = open_lane(open_journal(&opt), 0);

    for (int i = 0; i < 20; i++)
        task_spawn("killed call", killed_call, lane);
}

struct acked {
    uint64_t (*v)[2];
    size_t n, found;
};

static bool match(const struct journal_record *r, void *arg)
{
    struct acked *a = arg;

    for (size_t i = 0; i < a->n && r->type == JOURNAL_INTENT; i++) {
        char expected[64];

        if (a->v[i][0] != r->seq)
            continue;
        snprintf(expected, sizeof(expected), "{\"call\":\"call_%llu\",", (unsigned long long)a->v[i][1]);
        assert_true(str_starts(r->payload, str_of(expected)));
        a->found++;
    }
    return true;
}

/* Proves that a killed process loses nothing acknowledged; what power loss adds is journal_crash_test's. */
static void kill_nine_loses_nothing(void **state)
{
    for (int round = 0; round < 15; round++) {
        struct journal_options opt = options(64 << 10);
        struct acked a = { calloc(100000, 16), 0, 0 };
        size_t until = (size_t)(20 + round * 37);
        struct journal *j;
        struct told t;
        int fds[2];
        pid_t pid;

        assert_int_equal(pipe(fds), 0);
        pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) {
            dup2(fds[1], KILLED_ACKS_FD);
            execl("/proc/self/exe", "journal_test", "killed", dir, (char *)NULL);
            _exit(6);
        }
        close(fds[1]);
        while (read(fds[0], a.v[a.n], 16) == 16 && a.n < 99999) {
            if (++a.n == until)
                kill(pid, SIGKILL);
        }
        close(fds[0]);
        assert_int_equal(waitpid(pid, NULL, 0), pid);
        assert_true(a.n >= until);

        j = open_journal(&opt);
        assert_int_equal(journal_recovery(j)->lanes_unclean, 1);
        assert_ok(journal_scan(dir, &all, match, &a, &info));
        assert_int_equal(a.found, a.n);
        journal_close(j);
        if (verify(dir, NULL, &t, NULL))
            fail_msg("%s", t.all);
        assert_int_equal(python(dir), 0);
        free(a.v);
    }
}

/* ---- refusals -------------------------------------------------------------------------------------------------- */

static void a_second_engine_is_turned_away(void **state)
{
    struct journal_options opt = options(0);
    struct journal *j = open_journal(&opt), *second = NULL;
    char pid[32];

    assert_err(journal_open(&opt, &second, &info), E_JOURNAL_UNWRITABLE);
    snprintf(pid, sizeof(pid), "process %ld", (long)getpid());
    assert_non_null(strstr(info.text, dir));
    assert_non_null(strstr(info.text, pid));
    journal_close(j);
    j = open_journal(&opt);
    journal_close(j);
}

static void bad_options_and_keys_are_named(void **state)
{
    struct journal_options opt = options(12345);
    struct journal *j = NULL;
    char path[128], long_dir[2000] = "";
    struct stat st;
    int fd;

    assert_err(journal_open(&opt, &j, &info), E_CONFIG);
    memset(long_dir, 'x', sizeof(long_dir) - 1);
    opt = (struct journal_options){ .dir = long_dir };
    assert_err(journal_open(&opt, &j, &info), E_CONFIG);
    opt.dir = "";
    assert_err(journal_open(&opt, &j, &info), E_CONFIG);
    opt.dir = "/proc/no/such";
    assert_err(journal_open(&opt, &j, &info), E_JOURNAL_UNWRITABLE);
    assert_non_null(strstr(info.text, "/proc/no/such"));
    opt = (struct journal_options){ .dir = dir, .checkpoint_every = JOURNAL_CHECKPOINT_MAX + 1 };
    assert_err(journal_open(&opt, &j, &info), E_CONFIG);

    opt = options(0);
    journal_close(open_journal(&opt));
    snprintf(path, sizeof(path), "%s/signing.key", dir);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    fd = open(path, O_RDWR);
    assert_int_equal(pwrite(fd, "f", 1, 20) + pwrite(fd, "e", 1, 21) + pwrite(fd, "d", 1, 22), 3);
    close(fd);
    assert_err(journal_open(&opt, &j, &info), E_CONFIG);
    assert_non_null(strstr(info.text, path));
    assert_int_equal(truncate(path, 10), 0);
    assert_err(journal_open(&opt, &j, &info), E_CONFIG);

    /* another key: the journal goes on, and both keys are known */
    assert_int_equal(unlink(path), 0);
    journal_close(open_journal(&opt));
    assert_int_equal(python(dir), 0);
}

static void limits_run(void *arg)
{
    struct journal_options opt = options(1 << 20);
    struct journal *j = open_journal(&opt);
    struct journal_lane *lane = open_lane(j, 0), *twice = NULL;
    struct journal_room room = { 0 };
    uint64_t seq;

    assert_err(journal_lane_open(j, 0, &twice, &info), E_CONFIG);
    assert_err(journal_append(lane, JOURNAL_INTENT, STR("{\"a\":\"\n\"}"), NULL, &seq), E_FORMAT);
    assert_err(journal_append(lane, JOURNAL_INTENT, STR("{\"a\":\"a long one, beyond eight\x01\"}"), NULL, &seq),
               E_FORMAT);
    for (size_t len = 3; len < 180; len++) {            /* a control at each place */
        char payload[180];

        for (size_t at = 1; at < len - 1; at++) {
            memset(payload, 0x20 + (int)(at % 2) * 0xdf, len);
            payload[0] = '{';
            payload[len - 1] = '}';
            payload[at] = (char)(at * 7 % 0x20);
            assert_err(journal_append(lane, JOURNAL_INTENT, str_n(payload, len), NULL, &seq), E_FORMAT);
            payload[at] = (char)(at % 2 ? 0x20 : 0xff);
            if (len % 16 == at % 16)
                assert_ok(journal_append(lane, JOURNAL_INTENT, str_n(payload, len), NULL, &seq));
        }
    }
    assert_ok(await_journal_commit(lane, seq, NS_NEVER));
    assert_err(journal_append(lane, JOURNAL_INTENT, STR("[]"), NULL, &seq), E_FORMAT);
    assert_err(journal_append(lane, JOURNAL_INTENT, STR(""), NULL, &seq), E_FORMAT);
    assert_err(append(lane, JOURNAL_INTENT, 1, 262144, NULL, &seq), E_CALL_TOO_LARGE);
    assert_ok(append(lane, JOURNAL_INTENT, 1, 262000, NULL, &seq));
    assert_ok(await_journal_commit(lane, seq, NS_NEVER));
    assert_err(journal_reserve(lane, 2, 1 << 20, &room), E_CALL_TOO_LARGE);
    assert_int_equal(room.bytes, 0);
    assert_ok(journal_reserve(lane, 2, 1000, &room));
    journal_unreserve(lane, &room);
    journal_unreserve(lane, &room);
    assert_ok(await_journal_lane_close(lane));
    journal_close(j);
}

static void limits_hold(void **state)
{
    struct told t;

    in_loop(limits_run, NULL);
    assert_ok(verify(dir, NULL, &t, NULL));
}

/* ---- who waits for room stands in line --------------------------------------------------------------------------- */

enum { IN_LINE = 5, CHUNK = 16384 };

static struct {
    struct journal_lane *lane;
    unsigned served, order[IN_LINE];
    struct journal_room room[IN_LINE];
    bool begun;
    unsigned before_it;                 /* served when the one began that had not begun */
} line;

static void one_in_line(void *arg)
{
    unsigned i = (unsigned)(uintptr_t)arg;
    enum err e = await_journal_reserve(line.lane, 1, i == IN_LINE - 1 ? 10 : 10000, NS_NEVER, &line.room[i]);

    assert_err(e, i == 1 ? E_CANCELLED : OK);
    if (!e)
        line.order[line.served++] = i;
}

static void one_not_begun(void *arg)
{
    assert_ok(await_journal_turn(line.lane, NS_NEVER));
    line.begun = true;
    line.before_it = line.served;
}

/* Lets everybody run who can. */
static void await_others(void)
{
    for (unsigned i = 0; i < 4 * IN_LINE; i++)
        await_turn();
}

static void line_run(void *arg)
{
    static const unsigned expected[] = { 0, 2, 3, 4 };
    struct journal_options opt = options(256 << 10);
    struct journal *j = open_journal(&opt);
    struct journal_room held[64] = { { 0 } };
    struct task *second = NULL;
    unsigned n = 0;

    line.lane = open_lane(j, 0);
    line.served = 0;
    line.begun = false;
    assert_ok(await_journal_turn(line.lane, NS_NEVER));     /* there is room: no wait */
    while (await_journal_reserve(line.lane, 1, CHUNK, loop_now() + 20 * NS_PER_MS, &held[n]) == OK)
        assert_true(++n < 64);
    for (uintptr_t i = 0; i < IN_LINE; i++) {
        struct task *t = task_spawn("in line", one_in_line, (void *)i);

        assert_non_null(t);
        second = i == 1 ? t : second;
        await_others();
        if (i == 0)
            assert_non_null(task_spawn("not begun", one_not_begun, NULL));
    }
    /* the last would fit into what is left over: it does not pass the others */
    assert_int_equal(line.served, 0);
    task_cancel(second);
    await_others();
    journal_unreserve(line.lane, &held[--n]);
    await_others();
    assert_in_range(line.served, 1, 2);         /* one and a half chunks may have been left over */
    assert_false(line.begun);
    while (n > 0)
        journal_unreserve(line.lane, &held[--n]);
    await_others();
    assert_int_equal(line.served, IN_LINE - 1);
    assert_memory_equal(line.order, expected, sizeof(expected));
    assert_true(line.begun && line.before_it == IN_LINE - 1);   /* although it came second */
    for (unsigned i = 0; i < IN_LINE; i++)
        journal_unreserve(line.lane, &line.room[i]);
    assert_ok(await_journal_lane_close(line.lane));
    journal_close(j);
}

static void room_is_given_in_turn(void **state)
{
    fresh_directory(NULL);
    in_loop(line_run, NULL);
}

static void cancelled(void *arg)
{
    uint64_t *result = arg, seq;

    assert_ok(append(group.lane, JOURNAL_INTENT, 77, 10, NULL, &seq));
    result[0] = await_journal_commit(group.lane, seq, NS_NEVER);
    result[1] = seq;
}

static void cancel_run(void *arg)
{
    struct journal_options opt = options(1 << 20);
    struct journal *j = open_journal(&opt);
    uint64_t result[2] = { 999, 0 };
    struct task *t;

    group.lane = open_lane(j, 0);
    t = task_spawn("cancelled", cancelled, result);
    await_turn();
    task_cancel(t);
    while (result[0] == 999)
        await_turn();
    assert_err((enum err)result[0], E_CANCELLED);
    assert_ok(await_journal_commit(group.lane, result[1], NS_NEVER));      /* it is on its way all the same */
    assert_ok(await_journal_lane_close(group.lane));
    journal_close(j);
}

static void a_cancelled_wait_leaves_the_record(void **state)
{
    in_loop(cancel_run, NULL);
}

static void linger_run(void *arg)
{
    struct journal_options opt = options(JOURNAL_SEGMENT_MIN);
    struct journal *j = open_journal(&opt);
    struct journal_lane *lane = open_lane(j, 0);
    int64_t before;
    uint64_t first, second;

    assert_ok(await_append(lane, 1, 10, &first));           /* OPEN is out with it */
    before = metric_sum(M_JOURNAL_COMMITS_TOTAL);
    assert_ok(append(lane, JOURNAL_INTENT, 2, 10, NULL, &first));
    await_others();
    assert_true(journal_lane_committed(lane) < first);
    assert_ok(await_append(lane, 3, 10, &second));
    assert_int_equal(metric_sum(M_JOURNAL_COMMITS_TOTAL), before + 1);                /* one went with the other */
    assert_true(journal_lane_committed(lane) >= second);

    for (unsigned i = 0; i < 30; i++) {                     /* by itself, before long; some begin a segment */
        assert_ok(await_journal_turn(lane, NS_NEVER));
        assert_ok(append(lane, JOURNAL_INTENT, 4, 1000, NULL, &first));
        while (journal_lane_committed(lane) < first)        /* the test's own limit ends this */
            await_sleep(loop_now() + NS_PER_MS);
    }
    assert_true(metric_sum(M_JOURNAL_COMMITS_TOTAL) >= before + 31);
    assert_ok(await_journal_lane_close(lane));
    journal_close(j);
}

static void what_nobody_waits_for_goes_with_others_or_soon(void **state)
{
    in_loop(linger_run, NULL);
}

/* ---- a file size limit stands in for a full disk --------------------------------------------------------------- */

static void limit_file_size(rlim_t bytes)
{
    struct rlimit lim;

    assert_int_equal(getrlimit(RLIMIT_FSIZE, &lim), 0);
    lim.rlim_cur = bytes;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &lim), 0);
}

static void outgrow(void *arg)
{
    struct journal_options opt = options(256 << 10);
    struct journal_lane *lane;
    struct journal *j;
    enum err e = OK;

    j = open_journal(&opt);
    assert_ok(await_journal_lane_close(open_lane(j, 0)));
    journal_close(j);
    opt = options(1 << 20);                     /* the segment at hand is below the limit, the next would not be */
    opt.space_retry = 5 * NS_PER_MS;
    j = open_journal(&opt);
    limit_file_size(512 << 10);
    lane = open_lane(j, 0);
    for (unsigned i = 0; !e; i++) {
        e = await_append(lane, i, 3000, NULL);
        assert_true(i < 1000);
    }
    assert_err(e, E_JOURNAL_UNWRITABLE);
    assert_int_equal(journal_lane_state(lane), JOURNAL_FULL);
    limit_file_size(RLIM_INFINITY);
    while (journal_lane_state(lane) == JOURNAL_FULL)
        assert_ok(await_sleep(loop_now() + NS_PER_MS));
    for (unsigned i = 0; i < 300; i++)
        assert_ok(await_append(lane, i, 5000, NULL));
    assert_ok(await_journal_lane_close(lane));
    journal_close(j);
}

static void a_full_disk_ends_by_itself(void **state)
{
    struct told t;

    signal(SIGXFSZ, SIG_IGN);
    in_loop(outgrow, NULL);
    if (verify(dir, NULL, &t, NULL))
        fail_msg("%s", t.all);
    assert_int_equal(python(dir), 0);
}

/* ---- the second verifier --------------------------------------------------------------------------------------- */

static void few_records(void *arg)
{
    struct journal_options opt = options(JOURNAL_SEGMENT_MIN);
    struct journal *j;
    struct journal_lane *lane;

    opt.checkpoint_every = 10;
    j = open_journal(&opt);
    lane = open_lane(j, 2);
    for (unsigned i = 0; i < 40; i++)
        assert_ok(await_append(lane, i, 200, NULL));
    assert_ok(await_journal_lane_close(lane));
    journal_close(j);
}

static void both_verifiers_agree(void **state)
{
    char path[128];
    struct told t;
    int fd;

    in_loop(few_records, NULL);
    assert_int_equal(python(dir), 0);
    assert_ok(verify(dir, NULL, &t, NULL));
    snprintf(path, sizeof(path), "%s/lane-2/0000000000000001.seg", dir);
    fd = open(path, O_RDWR);
    for (int i = 0; i < 40; i++) {
        int64_t at = i < 8 ? i * 24 : (i * 7919) % JOURNAL_SEGMENT_MIN;
        uint8_t was, is;

        assert_int_equal(pread(fd, &was, 1, at), 1);
        is = was ^ 0x10;
        assert_int_equal(pwrite(fd, &is, 1, at), 1);
        assert_err(verify(dir, NULL, &t, NULL), E_TAMPERED);
        assert_int_equal(python(dir), 1);
        assert_int_equal(pwrite(fd, &was, 1, at), 1);
    }
    close(fd);
    assert_int_equal(python(dir), 0);
}

/* ---- text ------------------------------------------------------------------------------------------------------ */

static void told_run(void *arg)
{
    struct journal_options opt = options(JOURNAL_SEGMENT_MIN);
    struct journal *j = open_journal(&opt);
    struct journal_lane *lane = open_lane(j, 0), *other = open_lane(j, 7);
    uint64_t seq;

    for (unsigned i = 0; i < 100; i++)
        assert_ok(await_append(lane, i, 200, NULL));
    assert_ok(journal_append(other, JOURNAL_OUTCOME,
                             STR("{\"a\":{\"call\":\"call_77\"},\"call\":\"call_x\",\"n\":[1,{},[]]}"), NULL, &seq));
    assert_ok(journal_append(other, JOURNAL_OUTCOME,
                             STR("{\"call\":\"call_55\",\"evil\":\"\xe2\x80\xae\x7f\xc2\x9b\xff\\n\xe2\x82\xac\"}"),
                             NULL, &seq));
    assert_ok(await_journal_lane_close(lane));
    assert_ok(await_journal_lane_close(other));
    journal_close(j);
}

static void records_read_as_text(void **state)
{
    struct buf b = BUF_INIT(1 << 20);
    unsigned lines = 0;

    in_loop(told_run, NULL);
    assert_ok(journal_tail(dir, 20, &b, &info));
    for (size_t i = 0; i < b.len; i++)
        lines += b.p[i] == '\n';
    assert_int_equal(lines, 20);
    buf_add_c(&b, '\0');
    assert_non_null(
        strstr(b.p, "7:3 outcome {\"call\":\"call_55\",\"evil\":\"\\u202e\\u007f\\u009b\\xff\\n\xe2\x82\xac\"}\n"));
    assert_non_null(strstr(b.p, " close {"));
    assert_null(memchr(b.p, 0x7f, b.len));

    buf_clear(&b);
    assert_ok(journal_show(dir, STR("call_77"), &b, &info));        /* the top-level member alone counts */
    buf_add_c(&b, '\0');
    assert_non_null(strstr(b.p, " 0:"));
    assert_null(strstr(b.p, " 7:"));

    buf_clear(&b);
    assert_ok(journal_show(dir, STR("call_x"), &b, &info));
    buf_add_c(&b, '\0');
    assert_non_null(strstr(b.p, "\n    {\n      \"a\": {\n        \"call\": \"call_77\"\n      },\n      \"call\": "
                                "\"call_x\",\n      \"n\": [\n        1,\n        {},\n        []\n      ]\n    }\n"));

    buf_clear(&b);
    assert_ok(journal_show(dir, STR("7:1"), &b, &info));
    buf_add_c(&b, '\0');
    assert_non_null(strstr(b.p, "7:1 open"));
    assert_err(journal_show(dir, STR("call_nobody"), &b, &info), E_NOT_FOUND);
    assert_err(journal_show(dir, STR("7:99"), &b, &info), E_NOT_FOUND);
    assert_err(journal_tail("/nowhere", 3, &b, &info), E_NOT_FOUND);
    buf_release(&b);
}

static void scans_choose(void **state)
{
    struct journal_scan_options opt = { .types = 1u << JOURNAL_OUTCOME, .lane = -1 };
    unsigned n[JOURNAL_TYPE_END] = { 0 };

    in_loop(told_run, NULL);
    assert_ok(journal_scan(dir, &opt, count, n, &info));
    assert_int_equal(n[JOURNAL_OUTCOME], 2);
    assert_int_equal(n[JOURNAL_INTENT], 0);
    opt = (struct journal_scan_options){ .lane = 0 };
    assert_ok(journal_scan(dir, &opt, count, n, &info));
    assert_int_equal(n[JOURNAL_INTENT], 100);
    opt = (struct journal_scan_options){ .lane = -1, .since = INT64_MAX };
    memset(n, 0, sizeof(n));
    assert_ok(journal_scan(dir, &opt, count, n, &info));
    assert_int_equal(n[JOURNAL_INTENT] + n[JOURNAL_OUTCOME], 0);
}

/* The definition, bit by bit. */
static uint32_t slow_crc(const uint8_t *p, size_t n)
{
    uint32_t crc = ~0u;

    while (n-- > 0) {
        crc ^= *p++;
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? 0xedb88320 : 0);
    }
    return ~crc;
}

static void the_checksum_is_crc32(void **state)
{
    enum { LENGTH = 700, SHIFT = 16 };
    uint8_t *bytes;

    seed = 1;
    assert_int_equal(journal_crc((const uint8_t *)"123456789", 9), 0xcbf43926);
    for (size_t n = 0; n < LENGTH; n++) {
        bytes = malloc(SHIFT + n);                  /* ends where the memory ends */
        assert_non_null(bytes);
        for (size_t i = 0; i < SHIFT + n; i++)
            bytes[i] = (uint8_t)below(256);
        for (size_t from = 0; from <= SHIFT; from++)
            assert_int_equal(journal_crc(bytes + from, n), slow_crc(bytes + from, n));
        free(bytes);
    }
}

static int setup(void **state)
{
    log_setup(LOG_LEVEL_ERROR + 1, LOG_FORMAT_LOGFMT);
    return 0;
}

static int cleanup(void **state)
{
    fresh_directory(NULL);
    return rmdir(dir);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(kill_nine_loses_nothing, fresh_directory),
        cmocka_unit_test_setup(commits_are_shared, fresh_directory),
        cmocka_unit_test_setup(a_running_journal_can_be_read, fresh_directory),
        cmocka_unit_test_setup(a_second_engine_is_turned_away, fresh_directory),
        cmocka_unit_test_setup(bad_options_and_keys_are_named, fresh_directory),
        cmocka_unit_test_setup(limits_hold, fresh_directory),
        cmocka_unit_test_setup(room_is_given_in_turn, fresh_directory),
        cmocka_unit_test_setup(a_cancelled_wait_leaves_the_record, fresh_directory),
        cmocka_unit_test_setup(what_nobody_waits_for_goes_with_others_or_soon, fresh_directory),
        cmocka_unit_test_setup(a_full_disk_ends_by_itself, fresh_directory),
        cmocka_unit_test_setup(both_verifiers_agree, fresh_directory),
        cmocka_unit_test_setup(records_read_as_text, fresh_directory),
        cmocka_unit_test_setup(scans_choose, fresh_directory),
        cmocka_unit_test(the_checksum_is_crc32),
    };

    if (argc == 3 && strcmp(argv[1], "killed") == 0) {
        snprintf(dir, sizeof(dir), "%s", argv[2]);
        setup(NULL);
        in_loop(killed, NULL);
        return 5;
    }
    return cmocka_run_group_tests(tests, setup, cleanup);
}
