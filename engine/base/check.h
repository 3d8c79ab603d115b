/*
 * check.h -- words for what should not happen
 *
 *   ASSERT(x)        proved by our own code; on in release builds. Never about what a peer, file or connector supplies.
 *   ALWAYS(x)        believed true, and still handled: `if (!ALWAYS(x)) return E_INTERNAL;`
 *   NEVER(x)         believed false, and still handled
 *   UNREACHABLE()    a switch that covers everything
 *
 * ALWAYS and NEVER abort under sanitizers and in debug builds, and count in release builds.
 */
#ifndef BASE_CHECK_H
#define BASE_CHECK_H

#include <stdbool.h>
#include <stddef.h>

/* Prints expression, place and the panic context (below) to stderr with write(2), then aborts. Cold, as errors and log
 * lines are: what leads there is compiled apart from what runs all the time, which then is closer together. */
_Noreturn __attribute__((cold)) void check_failed(const char *expr, const char *file, int line);
__attribute__((cold)) bool check_doubt(const char *expr, const char *file, int line);

/* A function that prints what the current thread was doing; installed by loop/. May be NULL. */
extern void (*check_context)(void (*say)(const char *));

#define ASSERT(x)     ((x) ? (void)0 : check_failed(#x, __FILE__, __LINE__))
#define ALWAYS(x)     (__builtin_expect(!!(x), 1) ? true : check_doubt(#x, __FILE__, __LINE__))
#define NEVER(x)      (__builtin_expect(!!(x), 0) ? !check_doubt("not " #x, __FILE__, __LINE__) : false)
#define UNREACHABLE() check_failed("unreachable", __FILE__, __LINE__)
#define STATIC_ASSERT(x, why) _Static_assert(x, why)

#define ARRAY_LEN(a)  (sizeof(a) / sizeof((a)[0]))
/* Has a frame of its own, so that its caller does not hold it while it waits: a task's stack counts by the page. */
#define NOINLINE      __attribute__((noinline))
/* For large arrays that are written before they are read: the compiler is told to fill every other local with zeros. */
#define UNSET         __attribute__((uninitialized))
#define CONTAINER_OF(ptr, type, member) ((type *)((char *)(ptr) - offsetof(type, member)))

/* Objects carry a magic word: set at birth, checked at the door, cleared at death. */
#define MAGIC_CHECK(obj, word) ASSERT((obj) != NULL && (obj)->magic == (word))

#endif
