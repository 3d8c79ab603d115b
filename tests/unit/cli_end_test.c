/* cli_end_test.c -- the end of `serve`: a process of its own, in a world where the device can be made to hang */
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/check.h"
#include "cli/cli.h"
#include "loop/world.h"

/* last: it has a macro fail() */
#include <cmocka.h>

enum { PATIENCE_MS = 60000 };

static atomic_bool *disk_hangs;             /* shared with the process */
static char dir[] = "/tmp/sluice-end-XXXXXX";

static void submit_unless_it_hangs(struct ring *r, struct op *op)
{
    if (op->kind != OP_WRITE || !atomic_load(disk_hangs))
        world_real.ring_submit(r, op);
}

struct serving {
    pid_t pid;
    int says;
    char text[16384];
    size_t len;
};

static void serve(struct serving *s)
{
    char verb[] = "serve", config[64], data[64], *args[] = { verb, config, data, NULL };
    struct world w = world_real;
    int ends[2];

    snprintf(config, sizeof(config), "--config=%s/sluice.yaml", dir);
    snprintf(data, sizeof(data), "--data=%s/data", dir);
    assert_int_equal(pipe(ends), 0);
    *s = (struct serving){ .pid = fork(), .says = ends[0] };
    assert_true(s->pid >= 0);
    if (s->pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);   /* where the test fails, too */
        dup2(ends[1], STDERR_FILENO);
        close(ends[0]);
        close(ends[1]);
        w.ring_submit = submit_unless_it_hangs;
        world_use(&w);
        _exit(verb_serve.run(3, args));
    }
    close(ends[1]);
}

/* Until it says so, or with NULL until it says nothing any more. */
static void hear(struct serving *s, const char *words)
{
    while (!words || !strstr(s->text, words)) {
        struct pollfd p = { .fd = s->says, .events = POLLIN };
        ssize_t n = poll(&p, 1, PATIENCE_MS) == 1 ? read(s->says, s->text + s->len, sizeof(s->text) - 1 - s->len) : -1;

        if (n == 0 && !words)
            return;
        if (n <= 0)
            fail_msg("not \"%s\", but: %s", words ? words : "its end", s->text);
        s->len += (size_t)n;
    }
}

static int end(struct serving *s)
{
    int status;

    kill(s->pid, SIGTERM);
    hear(s, NULL);
    close(s->says);
    assert_int_equal(waitpid(s->pid, &status, 0), s->pid);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static bool has_endpoint(void)
{
    char path[64];

    snprintf(path, sizeof(path), "%s/data/endpoint", dir);
    return access(path, F_OK) == 0;
}

static void a_hanging_device_is_left_alone(void **state)
{
    struct serving s;

    serve(&s);
    hear(&s, "listening");
    atomic_store(disk_hangs, true);
    assert_int_equal(end(&s), EXIT_UNABLE);
    assert_non_null(strstr(s.text, "leaving the journal as it is"));
    assert_true(has_endpoint());            /* nothing there was touched: that might have hung, too */

    atomic_store(disk_hangs, false);
    serve(&s);
    hear(&s, "listening");
    assert_true(has_endpoint());
    assert_int_equal(end(&s), EXIT_DONE);
    assert_false(has_endpoint());
}

static int setup(void **state)
{
    char path[64];
    FILE *f;

    disk_hangs = mmap(NULL, sizeof(*disk_hangs), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(disk_hangs != MAP_FAILED && mkdtemp(dir));
    snprintf(path, sizeof(path), "%s/sluice.yaml", dir);
    f = fopen(path, "we");
    assert_non_null(f);
    fputs("listen: 127.0.0.1:0\nworkers: 2\n", f);
    fclose(f);
    return 0;
}

static int teardown(void **state)
{
    char command[64];

    munmap(disk_hangs, sizeof(*disk_hangs));
    snprintf(command, sizeof(command), "rm -rf %s", dir);
    return system(command);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_hanging_device_is_left_alone),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
