#include "loop_bed.h"

static ns_t idle_poll;

int look_on(void **state)
{
    idle_poll = 30 * NS_PER_S;
    return 0;
}

struct loop *new_loop(unsigned tasks_max)
{
    struct loop_options opt = { .tasks_max = tasks_max, .idle_poll = idle_poll };
    struct errinfo info = { "" };
    struct loop *l = NULL;
    enum err e = loop_create(&opt, &l, &info);

    if (e)
        print_error("%s\n", info.text);
    assert_int_equal(e, OK);
    return l;
}

void run(void (*start)(void *), void *arg)
{
    struct loop *l = new_loop(0);

    loop_run(l, start, arg);
    loop_destroy(l);
}

char trace[64];
static unsigned trace_len;

void trace_begin(void)
{
    trace_len = 0;
    trace[0] = '\0';
}

void note(char c)
{
    assert_true(trace_len < sizeof(trace) - 1);
    trace[trace_len++] = c;
    trace[trace_len] = '\0';
}
