/* journal_test_common.c -- what the tests of the journal share (journal_test.h) */
#include <stdio.h>

#include "journal_test.h"

struct errinfo info;

const struct journal_options small_options = { .dir = "/j", .segment_bytes = JOURNAL_SEGMENT_MIN };

struct start {
    void (*fn)(void *);
    void *arg;
    struct loop *loop;
};

static void first_task(void *arg)
{
    struct start *s = arg;

    s->fn(s->arg);
    loop_stop(s->loop);
}

static void first_turn(void *arg)
{
    assert_non_null(task_spawn("test", first_task, arg));
}

void in_loop(void (*fn)(void *arg), void *arg)
{
    struct loop_options opt = { .stack_size = 256 * 1024 };
    struct start s = { .fn = fn, .arg = arg };

    if (loop_create(&opt, &s.loop, &info))
        fail_msg("%s", info.text);
    loop_run(s.loop, first_turn, &s);
    loop_destroy(s.loop);
}

struct journal *open_journal(const struct journal_options *opt)
{
    struct journal *j = NULL;

    if (journal_open(opt, &j, &info))
        fail_msg("%s", info.text);
    return j;
}

struct journal_lane *open_lane(struct journal *j, unsigned lane)
{
    struct journal_lane *l = NULL;

    if (journal_lane_open(j, lane, &l, &info))
        fail_msg("%s", info.text);
    return l;
}

enum err append(struct journal_lane *lane, enum journal_type type, uint64_t n, size_t pad, struct journal_room *room,
                uint64_t *ret_seq)
{
    struct buf b = BUF_INIT(2 * 1024 * 1024);
    uint64_t seq = 0;
    enum err e;

    buf_addf(&b, "{\"call\":\"call_%llu\",\"pad\":\"%*s\"}", (unsigned long long)n, (int)pad, "");
    e = journal_append(lane, type, buf_str(&b), room, &seq);
    buf_release(&b);
    if (!e && ret_seq)
        *ret_seq = seq;
    return e;
}

enum err await_append(struct journal_lane *lane, uint64_t n, size_t pad, uint64_t *ret_seq)
{
    uint64_t seq;
    struct journal_room room = { 0 };
    enum err e = await_journal_reserve(lane, 1, pad + 60, NS_NEVER, &room);

    if (!e)
        e = append(lane, JOURNAL_INTENT, n, pad, &room, &seq);
    if (!e)
        e = await_journal_commit(lane, seq, NS_NEVER);
    journal_unreserve(lane, &room);
    if (!e && ret_seq)
        *ret_seq = seq;
    return e;
}

struct small {
    unsigned records, checkpoint_every;
    size_t pad;
};

static void small_run(void *arg)
{
    const struct small *s = arg;
    struct journal_options opt = small_options;
    struct journal_lane *lane, *other;
    struct journal *j;

    opt.checkpoint_every = s->checkpoint_every;
    j = open_journal(&opt);
    lane = open_lane(j, 0);
    other = open_lane(j, 1);
    for (unsigned i = 0; i < s->records; i++)
        assert_ok(await_append(lane, i, s->pad, NULL));
    for (unsigned i = 0; i < 3; i++)
        assert_ok(await_append(other, 1000 + i, 10, NULL));
    assert_ok(await_journal_lane_close(lane));
    assert_ok(await_journal_lane_close(other));
    journal_close(j);
}

void make_small(unsigned records, size_t pad, unsigned checkpoint_every)
{
    struct small s = { records, checkpoint_every, pad };

    memworld_reset();
    in_loop(small_run, &s);
}

static void take_note(const struct journal_note *n, void *arg)
{
    struct told *t = arg;
    size_t used = strlen(t->all);

    if (n->problem && t->problems++ == 0) {
        snprintf(t->file, sizeof(t->file), "%s", n->file);
        snprintf(t->text, sizeof(t->text), "%s", n->text);
        t->offset = n->offset;
        t->seq = n->seq;
    }
    t->notes++;
    snprintf(t->all + used, sizeof(t->all) - used, "%s%s, offset %lld, record %llu: %s\n", n->problem ? "" : "(note) ",
             n->file, (long long)n->offset, (unsigned long long)n->seq, n->text);
}

enum err verify(const char *dir, const char *checkpoints, struct told *ret, struct journal_report *report)
{
    struct journal_verify_options opt = { .checkpoints = str_of(checkpoints) };
    struct journal_report r;
    enum err e;

    memset(ret, 0, sizeof(*ret));
    e = journal_verify(dir, &opt, take_note, ret, &r, &info);
    assert_int_equal(e == E_TAMPERED, ret->problems > 0);
    assert_int_equal(r.problems, ret->problems);
    if (report)
        *report = r;
    return e;
}
