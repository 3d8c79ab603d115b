/*
 * runtime_recover_test.c -- what a start makes of the records of the process before: keys that are used up, in time
 */
#include <stdio.h>

#include "journal_test.h"
#include "runtime/recover.h"

enum { TTL_MS = 60 * 1000 };

static const char digest[65] = "0000000000000000000000000000000000000000000000000000000000000000";
static char told[64];

static struct once_name name_of(const char *key)
{
    return (struct once_name){ STR("demo"), STR("alice"), STR("claude"), STR("outlook.send_mail"), str_of(key) };
}

/* What a call with that key is told at that time: "new", "replay of ...", or an error. */
static const char *claim(struct once_table *t, const char *key, wall_ms_t now)
{
    struct once_name name = name_of(key);
    struct once_record replay;
    struct once_entry *e;
    struct arena a;
    enum err err;

    arena_init(&a, 1 << 20);
    err = await_once_claim(t, &name, digest, "call_new", now, NS_NEVER, &a, &e, &replay);
    snprintf(told, sizeof(told), "%s%s", err ? err_name(err) : e ? "new" : "replay of ",
             err || e ? "" : replay.call_id);
    arena_release(&a);
    return told;
}

static void restore(struct once_table *t, const char *key, wall_ms_t when, wall_ms_t now)
{
    struct once_name name = name_of(key);

    once_restore(t, &name, str_of(digest), str_of(key), when, now, OUTCOME_DONE, OK, STR_NULL);
}

/* ---- the table --------------------------------------------------------------------------------------------------- */

/* Lanes are read one after the other: the second one's keys are older than the last of the first. */
static void keys_of_every_lane_end_in_time(void **state)
{
    enum { EACH = 2000, LANES = 3 };
    struct once_table *t = once_new(TTL_MS * NS_PER_MS);
    char key[16];

    for (unsigned lane = 0; lane < LANES; lane++) {
        for (unsigned i = 0; i < EACH; i++) {
            snprintf(key, sizeof(key), "k%u", i * LANES + lane);
            restore(t, key, i * LANES + lane, 0);
        }
    }
    assert_int_equal(once_count(t), EACH * LANES);
    for (unsigned i = 0; i < EACH * LANES; i += 7) {
        char replay[32];

        snprintf(key, sizeof(key), "k%u", i);
        snprintf(replay, sizeof(replay), "replay of k%u", i);
        assert_string_equal(claim(t, key, TTL_MS + i - 1), replay);
        assert_string_equal(claim(t, key, TTL_MS + i), "new");
    }
    once_free(t);
}

static void a_full_share_loses_no_key(void **state)
{
    struct once_table *t = once_new(TTL_MS * NS_PER_MS);
    char key[16];

    for (unsigned i = 0; i <= ONCE_TENANT_MAX; i++) {
        snprintf(key, sizeof(key), "k%u", i);
        restore(t, key, 1, 2);
    }
    assert_int_equal(once_count(t), ONCE_TENANT_MAX + 1);
    assert_string_equal(claim(t, key, 3), "replay of k131072");
    assert_string_equal(claim(t, "another", 3), err_name(E_OVERLOADED));
    once_free(t);
}

/* ---- the journal ------------------------------------------------------------------------------------------------- */

static void intent(struct journal_lane *lane, const char *call, const char *effect)
{
    struct buf b = BUF_INIT(1024);
    uint64_t seq;

    buf_addf(&b, "{\"call\":\"%s\",\"tenant\":\"demo\",\"user\":\"alice\",\"agent\":\"claude\","
             "\"tool\":\"outlook.send_mail\",\"effect\":\"%s\",\"key\":\"k-%s\",\"args_digest\":\"%s\"}",
             call, effect, call, digest);
    assert_ok(journal_append(lane, JOURNAL_INTENT, buf_str(&b), NULL, &seq));
    buf_release(&b);
}

static void outcome(struct journal_lane *lane, const char *call, const char *how)
{
    struct buf b = BUF_INIT(1024);
    uint64_t seq;

    buf_addf(&b, "{\"call\":\"%s\",\"outcome\":\"%s\"}", call, how);
    assert_ok(journal_append(lane, JOURNAL_OUTCOME, buf_str(&b), NULL, &seq));
    buf_release(&b);
}

/* Ended, settled by an earlier start (on its lane 0), and open: a read and an effect each. */
static void six_calls(void *arg)
{
    struct journal *j = open_journal(&small_options);
    struct journal_lane *lane = open_lane(j, 0), *other = open_lane(j, 1);

    intent(lane, "done", "writes");
    outcome(lane, "done", "done");
    intent(lane, "read", "reads");
    outcome(lane, "read", "done");
    outcome(lane, "early", "unknown\",\"recovered\":true,\"x\":\"");
    outcome(lane, "early-read", "unknown\",\"recovered\":true,\"x\":\"");
    intent(other, "early", "writes");
    intent(other, "early-read", "reads");
    intent(other, "open", "destroys");
    intent(other, "open-read", "reads");
    assert_ok(await_journal_lane_close(lane));
    assert_ok(await_journal_lane_close(other));
    journal_close(j);
}

struct start {
    struct journal_options opt;
    struct once_table *once;
    size_t open;
};

/* As worker 0 does it. */
static void start(void *arg)
{
    struct start *s = arg;
    struct recovery *r;
    struct journal *j = open_journal(&s->opt);
    struct journal_lane *lane = open_lane(j, 0);

    assert_ok(recover_scan("/j", s->once, world->wall_ms(), &r, &info));
    assert_int_equal(recover_open(r), s->open);
    if (await_recover_settle(r, lane, &info))
        fail_msg("%s", info.text);
    recover_free(r);
    assert_ok(journal_lane_ready(lane));
    assert_ok(await_journal_lane_close(lane));
    journal_close(j);
}

static void effects_use_their_keys_up_and_reads_none(void **state)
{
    struct start s = { small_options, once_new(TTL_MS * NS_PER_MS), 2 };
    struct buf text = BUF_INIT(65536);

    memworld_reset();
    in_loop(six_calls, NULL);
    in_loop(start, &s);
    assert_int_equal(once_count(s.once), 3);
    assert_string_equal(claim(s.once, "k-done", world->wall_ms()), "replay of done");
    assert_string_equal(claim(s.once, "k-early", world->wall_ms()), "replay of early");
    assert_string_equal(claim(s.once, "k-open", world->wall_ms()), "replay of open");
    assert_ok(journal_tail("/j", 100, &text, &info));
    buf_add_c(&text, '\0');
    assert_non_null(strstr(text.p, "{\"call\":\"open\",\"outcome\":\"unknown\""));
    assert_non_null(strstr(text.p, "{\"call\":\"open-read\",\"outcome\":\"failed\""));
    buf_release(&text);
    once_free(s.once);
}

enum { MANY = 40000 };

static void many_calls(void *arg)
{
    struct journal *j = open_journal(arg);
    struct journal_lane *lane = open_lane(j, 0);

    for (unsigned i = 0; i < MANY; i++) {
        char call[16];

        snprintf(call, sizeof(call), "many-%u", i);
        assert_ok(await_journal_turn(lane, NS_NEVER));
        intent(lane, call, "writes");
    }
    assert_ok(await_journal_lane_close(lane));
    journal_close(j);
}

/* Their outcomes are more than a lane queues at once. */
static void any_number_of_calls_may_be_left_open(void **state)
{
    struct start s = { small_options, once_new(TTL_MS * NS_PER_MS), MANY };

    memworld_reset();
    s.opt.segment_bytes = 8 << 20;
    in_loop(many_calls, &s.opt);
    in_loop(start, &s);
    assert_int_equal(once_count(s.once), MANY);
    s.open = 0;
    in_loop(start, &s);
    once_free(s.once);
}

static int use_memory(void **state)
{
    world_use(&memworld);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keys_of_every_lane_end_in_time),
        cmocka_unit_test(a_full_share_loses_no_key),
        cmocka_unit_test(effects_use_their_keys_up_and_reads_none),
        cmocka_unit_test(any_number_of_calls_may_be_left_open),
    };

    return cmocka_run_group_tests(tests, use_memory, NULL);
}
