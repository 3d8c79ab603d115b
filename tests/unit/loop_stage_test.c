/* loop_stage_test.c -- the order of tasks within a turn: stages, looking ahead, who goes last */
#include "loop/loop.h"
#include "loop/task.h"
#include "loop/world.h"
#include "loop_bed.h"

/* ---- a world whose time stands still ----------------------------------------------------------------------------- */

static struct world held_world;
static ns_t held_clock, held_step;
static bool held_more;

static ns_t held_now(void)
{
    return held_clock;
}

/* Time passes only here. */
static bool held_ready(const struct ring *r)
{
    note('.');
    held_clock += held_step;
    return held_more;
}

static int held_on(void **state)
{
    held_world = world_real;
    held_world.now = held_now;
    held_world.ring_ready = held_ready;
    world_use(&held_world);
    return 0;
}

static int held_off(void **state)
{
    world_use(&world_real);
    return 0;
}

/* ---- who goes last ----------------------------------------------------------------------------------------------- */

static void goes_last(void *arg)
{
    await_last();
    note((char)(uintptr_t)arg);
    await_turn();                       /* one that went last is not last for ever */
    note((char)(uintptr_t)arg);
}

static void goes_first(void *arg)
{
    note((char)(uintptr_t)arg);
    await_turn();
    note((char)(uintptr_t)arg);
    if ((uintptr_t)arg == 'd')
        loop_stop(loop_self());
}

static void start_in_line(void *arg)
{
    (void)arg;
    assert_non_null(task_spawn("last", goes_last, (void *)'A'));
    assert_non_null(task_spawn("first", goes_first, (void *)'b'));
    assert_non_null(task_spawn("last", goes_last, (void *)'C'));
    assert_non_null(task_spawn("first", goes_first, (void *)'d'));
}

static void who_goes_last_goes_within_the_turn(void **state)
{
    held_step = 0;                      /* so the loop has not been awake for any time: nobody is held */
    trace_begin();
    run(start_in_line, NULL);
    assert_string_equal(trace, "bdACbdAC");
}

static void cancelled_last(void *arg)
{
    struct wake never = { 0 };

    await_last();
    note(await_wake(&never, NS_NEVER) == E_CANCELLED ? 'x' : '?');
    loop_stop(loop_self());
}

static void start_cancelled_last(void *arg)
{
    struct task *t = task_spawn("last", cancelled_last, NULL);

    assert_non_null(t);
    task_cancel(t);
}

static void who_goes_last_hears_of_a_cancellation(void **state)
{
    trace_begin();
    run(start_cancelled_last, NULL);
    assert_string_equal(trace, "x");
}

/* ---- stages ------------------------------------------------------------------------------------------------------ */

static void goes_in_stages(void *arg)
{
    char name = (char)(uintptr_t)arg;

    note(name);
    assert_true(await_stage(3));
    note(name);
    await_stage(5);
    note(name);
    if (name == 'c') {
        assert_false(await_stage(6));   /* nobody else is left before it */
        note('!');
        loop_stop(loop_self());
    }
}

static void start_in_stages(void *arg)
{
    (void)arg;
    for (char name = 'a'; name <= 'c'; name++)
        assert_non_null(task_spawn("stages", goes_in_stages, (void *)(uintptr_t)name));
}

static void tasks_of_a_turn_go_through_stages_together(void **state)
{
    trace_begin();
    run(start_in_stages, NULL);
    assert_string_equal(trace, "abcabcabc!");
}

static void looks_ahead(void *arg)
{
    char name = (char)(uintptr_t)arg;

    await_ahead();                      /* where it begins, at no stage yet */
    note(name);
    await_stage(3);
    note(name);
    await_ahead();
    note(name);
    await_stage(4);
    note(name);
    if (name == 'c') {
        await_ahead();                  /* nobody beside it: at once */
        note('!');
        loop_stop(loop_self());
    }
}

static void start_ahead(void *arg)
{
    (void)arg;
    for (char name = 'a'; name <= 'c'; name++)
        assert_non_null(task_spawn("ahead", looks_ahead, (void *)(uintptr_t)name));
}

static void those_beside_come_as_far_while_memory_is_waited_for(void **state)
{
    trace_begin();
    run(start_ahead, NULL);
    assert_string_equal(trace, "abcabcabcabc!");
}

static void goes_back(void *arg)
{
    await_stage(9);
    note('r');
    await_stage(2);                     /* lower than where it comes from: as soon as the others have gone on */
    note('r');
}

static void goes_on(void *arg)
{
    await_stage(9);
    note('s');
    await_stage(10);
    note('s');
    await_last();
    note('s');
    loop_stop(loop_self());
}

static void start_back(void *arg)
{
    (void)arg;
    assert_non_null(task_spawn("back", goes_back, NULL));
    assert_non_null(task_spawn("on", goes_on, NULL));
}

static void a_stage_gone_back_to_is_not_forgotten(void **state)
{
    trace_begin();
    run(start_back, NULL);
    assert_string_equal(trace, "rsrss");
}

static void goes_last_twice(void *arg)
{
    await_last();
    note((char)(uintptr_t)arg);
    await_last();                       /* nothing else wakes this loop: it must not sleep over who stands there */
    note((char)(uintptr_t)arg);
    if ((uintptr_t)arg == 'b')
        loop_stop(loop_self());
}

static void start_last_twice(void *arg)
{
    (void)arg;
    assert_non_null(task_spawn("twice", goes_last_twice, (void *)'a'));
    assert_non_null(task_spawn("twice", goes_last_twice, (void *)'b'));
}

static void who_goes_last_twice_is_not_slept_over(void **state)
{
    trace_begin();
    run(start_last_twice, NULL);
    assert_string_equal(trace, "abab");
}

enum { CROWD = 100 };

static unsigned begun, begun_at_stage, staged, last;

static void goes_in_a_crowd(void *arg)
{
    begun++;
    await_stage(1);
    if (staged++ == 0)
        begun_at_stage = begun;
    await_last();
    assert_int_equal(staged, CROWD);    /* nobody is last before all were at the stage */
    if (++last == CROWD)
        loop_stop(loop_self());
}

static void start_a_crowd(void *arg)
{
    (void)arg;
    for (unsigned i = 0; i < CROWD; i++)
        assert_non_null(task_spawn("crowd", goes_in_a_crowd, NULL));
}

static void a_crowd_goes_in_cohorts_and_is_last_together(void **state)
{
    begun = begun_at_stage = staged = last = 0;
    run(start_a_crowd, NULL);
    assert_int_equal(last, CROWD);
    assert_in_range(begun_at_stage, 2, CROWD - 1);
}

/* ---- who goes last is held --------------------------------------------------------------------------------------- */

/* arg: for how many microseconds the loop has been awake when it comes there */
static void comes_last(void *arg)
{
    held_clock += (ns_t)(uintptr_t)arg * NS_PER_US;
    await_turn();
    await_last();
    note('a');
    loop_stop(loop_self());
}

static void start_comes_last(void *arg)
{
    trace_begin();
    held_step = 100 * NS_PER_US;
    assert_non_null(task_spawn("last", comes_last, arg));
}

static void who_goes_last_waits_for_company_as_long_as_the_loop_was_awake(void **state)
{
    held_more = true;
    run(start_comes_last, (void *)250);
    assert_string_equal(trace, "...a");         /* it comes, its turn ends, after 200 us; over at 300 */
}

static void who_goes_last_is_held_no_longer_than_half_a_millisecond(void **state)
{
    held_more = true;
    run(start_comes_last, (void *)20000);
    assert_string_equal(trace, ".....a");       /* it comes, its turn ends, 200, 300, 400 */
}

static void who_goes_last_is_not_held_when_there_is_nothing_else_to_do(void **state)
{
    held_more = false;
    run(start_comes_last, (void *)20000);
    assert_string_equal(trace, ".a");
}

static void sleeps_and_comes_last(void *arg)
{
    assert_int_equal(await_sleep(loop_now() + NS_PER_MS), OK);
    held_more = true;
    await_last();
    note('a');
    loop_stop(loop_self());
}

static void start_sleeps(void *arg)
{
    trace_begin();
    held_clock += 20 * NS_PER_MS;
    held_step = 5 * NS_PER_MS;
    assert_non_null(task_spawn("last", sleeps_and_comes_last, arg));
}

static void who_goes_last_is_not_held_by_a_loop_that_has_just_slept(void **state)
{
    held_more = false;
    run(start_sleeps, NULL);
    assert_string_equal(trace, ".a");           /* only whether it may sleep was asked */
}

static void company(void *arg)
{
    held_clock += 400 * NS_PER_US;
    await_turn();
    note('b');
    await_turn();
    note('b');
    await_last();
    note('b');
}

static void start_company(void *arg)
{
    start_comes_last((void *)400);
    assert_non_null(task_spawn("company", company, NULL));
}

static void company_that_comes_a_turn_later_goes_along(void **state)
{
    held_more = false;                          /* what is runnable is reason enough */
    run(start_company, NULL);
    assert_string_equal(trace, "bb.ab");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(who_goes_last_hears_of_a_cancellation),
        cmocka_unit_test(tasks_of_a_turn_go_through_stages_together),
        cmocka_unit_test(those_beside_come_as_far_while_memory_is_waited_for),
        cmocka_unit_test(a_stage_gone_back_to_is_not_forgotten),
        cmocka_unit_test(who_goes_last_twice_is_not_slept_over),
        cmocka_unit_test(a_crowd_goes_in_cohorts_and_is_last_together),
    };

    const struct CMUnitTest held[] = {
        cmocka_unit_test(who_goes_last_goes_within_the_turn),
        cmocka_unit_test(who_goes_last_waits_for_company_as_long_as_the_loop_was_awake),
        cmocka_unit_test(who_goes_last_is_held_no_longer_than_half_a_millisecond),
        cmocka_unit_test(who_goes_last_is_not_held_when_there_is_nothing_else_to_do),
        cmocka_unit_test(who_goes_last_is_not_held_by_a_loop_that_has_just_slept),
        cmocka_unit_test(company_that_comes_a_turn_later_goes_along),
    };

    return cmocka_run_group_tests(held, held_on, held_off) + RUN_TWICE(tests);
}
