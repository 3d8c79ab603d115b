/*
 * journal_live_test.c -- whoever reads a journal beside an engine that writes or starts sees no tampering where there
 * is none
 */
#include <stdlib.h>

#include "journal_test.h"

static const char first[] = "/j/lane-0/0000000000000001.seg";

static struct world late;
static const struct world *fresh;

/* More than a reader's window holds (2 MB) is written while it is read. */
static struct journal_lane *written;
static unsigned scanned;

static bool write_meanwhile(const struct journal_record *r, void *arg)
{
    assert_int_equal(r->seq, ++scanned);
    for (unsigned i = 0; scanned == 3 && i < 50; i++)
        assert_ok(await_append(written, i, 60000, NULL));
    return true;
}

static void scan_beside(void *arg)
{
    const struct journal_scan_options all = { .lane = -1 };
    struct journal_options opt = { .dir = "/j", .segment_bytes = 8 << 20 };
    struct journal *j = open_journal(&opt);

    scanned = 0;
    written = open_lane(j, 0);
    for (unsigned i = 0; i < 5; i++)
        assert_ok(await_append(written, i, 20, NULL));
    if (journal_scan("/j", &all, write_meanwhile, NULL, &info))
        fail_msg("%s", info.text);
    assert_int_equal(scanned, 6 + 50);
    assert_ok(await_journal_lane_close(written));
    journal_close(j);
}

static void a_scan_beside_a_writer_sees_no_damage(void **state)
{
    memworld_reset();
    in_loop(scan_beside, NULL);
}

/* A world in which an engine starts, and writes, when the verifier has the manifest and opens the first segment. */
static struct journal *started;
static bool starts;

static int open_late(const char *path, int flags, int mode)
{
    if (starts && str_ends(str_of(path), STR(".seg"))) {
        starts = false;
        started = open_journal(&small_options);
        written = open_lane(started, 0);
        for (unsigned i = 0; i < 100; i++)
            assert_ok(await_append(written, i, 300, NULL));
    }
    return fresh->open(path, flags, mode);
}

static void verify_beside_a_start(void *arg)
{
    struct journal_report r;
    struct told t;

    starts = true;
    if (verify("/j", NULL, &t, &r))
        fail_msg("%s", t.all);
    assert_false(starts);
    assert_ok(await_journal_lane_close(written));
    journal_close(started);
    assert_ok(verify("/j", NULL, &t, &r));
    assert_int_equal(t.notes, 0);
}

static void an_engine_may_start_meanwhile(void **state)
{
    make_small(5, 20, 20);
    fresh = world;
    late = *world;
    late.open = open_late;
    world = &late;
    in_loop(verify_beside_a_start, NULL);
    world = fresh;
}

/* An engine may begin to use the file allocated ahead between a look into the directory and one into the file. */
static void use_ahead(void *arg)
{
    static const char next[] = "/j/lane-0/next";
    struct journal_report r;
    struct journal_lane *lane;
    struct journal *j;
    struct told t;
    char *used;
    size_t len;

    j = open_journal(&small_options);
    lane = open_lane(j, 0);
    assert_ok(await_append(lane, 1, 20, NULL));
    used = memworld_file(first, &len);
    used = memcpy(malloc(len), used, len);
    memworld_put(next, used, len);
    if (verify("/j", NULL, &t, &r))
        fail_msg("%s", t.all);
    assert_true(r.live);
    assert_ok(await_journal_lane_close(lane));
    journal_close(j);
    memworld_put(next, used, len);
    assert_err(verify("/j", NULL, &t, NULL), E_TAMPERED);
    assert_string_equal(t.file, next);
    assert_non_null(strstr(t.all, "neither empty nor about to be used"));
    free(used);
}

static void what_is_allocated_ahead_may_be_in_use(void **state)
{
    memworld_reset();
    in_loop(use_ahead, NULL);
}

static int use_memory(void **state)
{
    world_use(&memworld);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_scan_beside_a_writer_sees_no_damage),
        cmocka_unit_test(an_engine_may_start_meanwhile),
        cmocka_unit_test(what_is_allocated_ahead_may_be_in_use),
    };

    return cmocka_run_group_tests(tests, use_memory, NULL);
}
