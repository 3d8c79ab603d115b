/*
 * base_test.h -- what the tests of engine/base/ share
 *
 * What must end the process is tried in a child.  Log lines are read back through a pipe that stands in for stderr.
 */
#ifndef BASE_TEST_H
#define BASE_TEST_H

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/check.h"
#include "base/str.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED 1
#endif
#endif

#define assert_str(s, z) do { struct str got_ = (s); assert_int_equal(got_.len, strlen(z)); \
                              if (got_.len > 0) assert_memory_equal(got_.p, (z), got_.len); } while (0)

__attribute__((unused)) static int stderr_kept = -1, pipe_end = -1;

static inline void capture_begin(void)
{
    int ends[2];

    fflush(stderr);
    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    stderr_kept = dup(STDERR_FILENO);
    assert_true(dup2(ends[1], STDERR_FILENO) >= 0);
    close(ends[1]);
    pipe_end = ends[0];
}

/* What went to stderr since capture_begin(), in a static place; at most a pipe full. */
static inline struct str capture_end(void)
{
    static char text[65536 + 1];
    size_t len = 0;
    ssize_t n;

    assert_true(dup2(stderr_kept, STDERR_FILENO) >= 0);
    close(stderr_kept);
    while ((n = read(pipe_end, text + len, sizeof(text) - 1 - len)) > 0)
        len += (size_t)n;
    close(pipe_end);
    text[len] = 0;
    return str_n(text, len);
}

/* Runs fn in a child; true if it ended as a failed check does. What it said is discarded. */
static inline bool dies(void (*fn)(void))
{
    pid_t child = fork();
    int status;

    assert_true(child >= 0);
    if (child == 0) {
        int null = open("/dev/null", O_WRONLY);

        prctl(PR_SET_DUMPABLE, 0);
        signal(SIGABRT, SIG_DFL);       /* cmocka catches these, and would go on with the next test */
        signal(SIGSEGV, SIG_DFL);
        signal(SIGBUS, SIG_DFL);
        dup2(null, STDERR_FILENO);
        fn();
        _exit(0);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    return WIFSIGNALED(status) || WEXITSTATUS(status) != 0;
}

#endif
