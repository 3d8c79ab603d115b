/*
 * common.h -- what the bench's programs share: time, chance, options, and ending when something is missing
 */
#ifndef BENCH_COMMON_H
#define BENCH_COMMON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define NS_PER_S 1000000000LL

/* Monotonic, in nanoseconds. */
int64_t now_ns(void);
/* CPU of this process so far, user and system, in seconds. */
double cpu_seconds(void);
/* As many files as the process may have; answers how many. Timers as precise as the kernel's: no slack. */
long raise_limits(void);

/* Says what is wrong, beginning with the program's name, and ends with 2 (the caller can mend it) or 1 (errno). */
void die(const char *fmt, ...) __attribute__((noreturn, format(printf, 1, 2)));
void die_errno(const char *fmt, ...) __attribute__((noreturn, format(printf, 1, 2)));
/* The memory, or the end. */
void *need(void *p);

/* ---- chance: splitmix64, the same from the same seed ------------------------------------------------------------- */

struct chance {
    uint64_t state;
};

static inline uint64_t chance_next(struct chance *c)
{
    uint64_t z = (c->state += 0x9e3779b97f4a7c15ull);

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

/* In (0, 1]. */
static inline double chance_unit(struct chance *c)
{
    return (double)((chance_next(c) >> 11) + 1) * 0x1p-53;
}

static inline uint64_t chance_below(struct chance *c, uint64_t n)
{
    return n ? chance_next(c) % n : 0;
}

/* ---- options ----------------------------------------------------------------------------------------------------- */

enum option_kind { OPTION_FLAG, OPTION_TEXT, OPTION_COUNT, OPTION_REAL };

struct option_row {
    const char *name;                   /* without "--" */
    const char *value;                  /* what it is called in the help, "" for a flag */
    enum option_kind kind;
    void *to;                           /* bool, const char *, int64_t or double */
    const char *help;                   /* lines after the first are indented by the table */
};

/* Reads argv by the table, which ends with a row without a name. --help prints `about` and the table, and ends. */
void options_read(int argc, char **argv, const char *about, const struct option_row *rows);

#endif
