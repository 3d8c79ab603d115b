/*
 * check.c -- how the process ends when it was wrong about itself
 *
 * Only write(2) and memory on the stack are used on the way down: the heap may be what broke.
 */
#include "base/check.h"

#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/metric.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || defined(SLUICE_DEBUG)
#define DOUBT_ABORTS 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || __has_feature(memory_sanitizer)
#define DOUBT_ABORTS 1
#endif
#endif

/* A broken condition on a hot path must not fill the disk: after this many lines doubts are only counted. */
enum { DOUBT_LINES_MAX = 100 };

void (*check_context)(void (*say)(const char *)) = NULL;

static void say(const char *z)
{
    size_t n = strlen(z);

    while (n > 0) {
        ssize_t w = write(STDERR_FILENO, z, n);

        if (w <= 0)
            return;
        z += w;
        n -= (size_t)w;
    }
}

static void say_place(const char *what, const char *expr, const char *file, int line)
{
    char digits[12], *d = digits + sizeof(digits) - 1;
    unsigned v = (unsigned)line;

    *d = 0;
    do {
        *--d = (char)('0' + v % 10);
        v /= 10;
    } while (v > 0);
    say(what);
    say(expr);
    say(" at ");
    say(file);
    say(":");
    say(d);
    say("\n");
}

void check_failed(const char *expr, const char *file, int line)
{
    static __thread bool failing;

    say_place("PANIC: does not hold: ", expr, file, line);
    /* The context printer may itself fail an ASSERT; it gets one try. */
    if (!failing && check_context) {
        failing = true;
        check_context(say);
    }
    abort();
}

bool check_doubt(const char *expr, const char *file, int line)
{
#ifdef DOUBT_ABORTS
    check_failed(expr, file, line);
#else
    static atomic_uint lines;

    metric_add(M_DOUBTS_TOTAL, 1);
    if (atomic_fetch_add_explicit(&lines, 1, memory_order_relaxed) < DOUBT_LINES_MAX)
        say_place("DOUBT: does not hold: ", expr, file, line);
    return false;
#endif
}
