/*
 * journal_test.h -- what the tests of the journal share
 */
#ifndef TESTS_JOURNAL_TEST_H
#define TESTS_JOURNAL_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "journal/journal.h"
#include "loop/task.h"
#include "memworld.h"

#define assert_ok(e) assert_string_equal(err_name(e), err_name(OK))
#define assert_err(e, expected) assert_string_equal(err_name(e), err_name(expected))

extern struct errinfo info;

/* Runs fn(arg) as the first task of a loop of its own, until all tasks have ended. */
void in_loop(void (*fn)(void *arg), void *arg);

/* Opens, or fails the test with the reason. */
struct journal *open_journal(const struct journal_options *opt);
struct journal_lane *open_lane(struct journal *j, unsigned lane);

/* Appends {"n":<n>,"pad":"xxx..."} of the owner's kind and waits for it. */
enum err append(struct journal_lane *lane, enum journal_type type, uint64_t n, size_t pad, struct journal_room *room,
                uint64_t *ret_seq);
enum err await_append(struct journal_lane *lane, uint64_t n, size_t pad, uint64_t *ret_seq);

/* A journal in memory at /j with 16 KiB segments, written and closed in order: `records` records in lane 0, some in
 * lane 1. */
void make_small(unsigned records, size_t pad, unsigned checkpoint_every);
extern const struct journal_options small_options;

/* journal_verify, with what it told kept. */
struct told {
    unsigned problems, notes;
    char file[256], text[256];      /* of the first problem */
    int64_t offset;
    uint64_t seq;
    char all[8192];
};
enum err verify(const char *dir, const char *checkpoints, struct told *ret, struct journal_report *report);

#endif
