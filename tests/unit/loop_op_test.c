/* loop_op_test.c -- operations that a task waits for, on kernel rings: polls, files */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "loop/task.h"
#include "loop/world.h"
#include "loop_bed.h"

static void poll_task(void *arg)
{
    int *fds = arg, res = 0;
    struct op op = { .kind = OP_POLL, .fd = fds[0], .events = 1 /* POLLIN */ };

    assert_int_equal(await_op(&op, loop_now() + 10 * NS_PER_MS, &res), E_TIMEOUT);
    assert_false(op_active(&op));
    assert_int_equal(write(fds[1], "x", 1), 1);
    assert_int_equal(await_op(&op, loop_now() + NS_PER_S, &res), OK);
    assert_true(res & 1);
    loop_stop(loop_self());
}

static void start_poll(void *arg)
{
    task_spawn("poll", poll_task, arg);
}

static void an_operation_past_its_deadline_is_cancelled(void **state)
{
    int fds[2];

    assert_int_equal(pipe(fds), 0);
    run(start_poll, fds);
    close(fds[0]);
    close(fds[1]);
}

static void file_task(void *arg)
{
    char back[12] = "";
    char text[] = "hello world";
    int fd = world->open(arg, O_RDWR | O_CREAT, 0600), res;
    struct op op = { .kind = OP_WRITE, .fd = fd, .buf = text, .len = 11, .off = 5 };

    assert_true(fd >= 0);
    assert_int_equal(world->allocate(fd, 0, 4096), 0);
    assert_int_equal(await_op(&op, NS_NEVER, &res), OK);
    assert_int_equal(res, 11);
    op = (struct op){ .kind = OP_READ, .fd = fd, .buf = back, .len = 11, .off = 5 };
    assert_int_equal(await_op(&op, NS_NEVER, &res), OK);
    assert_string_equal(back, text);
    assert_int_equal(world->size(fd), 4096);
    world->close(fd);
    loop_stop(loop_self());
}

static void start_file(void *arg)
{
    task_spawn("file", file_task, arg);
}

/* Blocks as the journal writes them, whether the file system takes them directly or not; others read what is there. */
static void direct_task(void *arg)
{
    static _Alignas(WORLD_ALIGN) char block[2 * WORLD_BLOCK];
    char back[sizeof(block) + 1] = "";
    int fd = world->open(arg, O_RDWR, 0), reader = world->open(arg, O_RDONLY, 0), res;
    struct op op = { .kind = OP_WRITE, .fd = fd, .buf = block, .len = sizeof(block), .off = WORLD_BLOCK };
    bool direct;

    assert_true(fd >= 0 && reader >= 0);
    assert_int_equal(world->allocate(fd, 0, 4 * WORLD_ALIGN), 0);
    assert_int_equal(world->pread(reader, back, sizeof(block), WORLD_BLOCK), sizeof(block));    /* into the cache */
    direct = world->direct(fd) == 0;
    assert_int_equal((fcntl(fd, F_GETFL) & O_DIRECT) != 0, direct);
    memset(block, 'x', sizeof(block));
    assert_int_equal(await_op(&op, NS_NEVER, &res), OK);
    assert_int_equal(res, sizeof(block));
    assert_int_equal(world->pread(reader, back, sizeof(block), WORLD_BLOCK), sizeof(block));
    assert_memory_equal(back, block, sizeof(block));
    assert_int_equal(world->pread(reader, back, 1, 3 * WORLD_BLOCK), 1);
    assert_int_equal(back[0], 0);
    print_message("direct writes: %s\n", direct ? "yes" : "not on this file system");
    world->close(fd);
    world->close(reader);
    loop_stop(loop_self());
}

static void start_direct(void *arg)
{
    task_spawn("direct", direct_task, arg);
}

static void blocks_are_written_directly_and_read_by_others(void **state)
{
    char path[] = "sluice-loop-XXXXXX";             /* where the build is: /tmp may be memory */
    int fd = mkstemp(path);

    close(fd);
    run(start_direct, path);
    unlink(path);
}

static void files_are_written_through_the_ring(void **state)
{
    char path[] = "/tmp/sluice-loop-XXXXXX";
    int fd = mkstemp(path);

    close(fd);
    run(start_file, path);
    unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_operation_past_its_deadline_is_cancelled),
        cmocka_unit_test(files_are_written_through_the_ring),
        cmocka_unit_test(blocks_are_written_directly_and_read_by_others),
    };

    return RUN_TWICE(tests);
}
