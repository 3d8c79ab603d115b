/* loop_bed.h -- loops of the real world for tests: those that sleep when there is nothing to do, and those that look */
#ifndef TESTS_UNIT_LOOP_BED_H
#define TESTS_UNIT_LOOP_BED_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "loop/loop.h"

/* Fails the test where there is none. tasks_max: 0: the default. */
struct loop *new_loop(unsigned tasks_max);
/* A loop from its beginning to its end. */
void run(void (*start)(void *), void *arg);

/* What happened in which order, a letter each. */
extern char trace[64];
void trace_begin(void);
void note(char c);

/* Once with loops that sleep, once with such as look for so long that what they do not see would hold up the test. */
#define RUN_TWICE(tests) (cmocka_run_group_tests_name("loops that sleep", tests, NULL, NULL) \
                          + cmocka_run_group_tests_name("loops that look", tests, look_on, NULL))
int look_on(void **state);

#endif
