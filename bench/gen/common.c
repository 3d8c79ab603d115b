/* common.c -- see common.h */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <time.h>

#include "bench/gen/common.h"

int64_t now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * NS_PER_S + t.tv_nsec;
}

double cpu_seconds(void)
{
    struct timespec t;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

long raise_limits(void)
{
    struct rlimit files;

    prctl(PR_SET_TIMERSLACK, 1);
    if (getrlimit(RLIMIT_NOFILE, &files) < 0)
        die_errno("limits");
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    return (long)files.rlim_cur;
}

void die(const char *fmt, ...)
{
    va_list ap;

    fprintf(stderr, "%s: ", program_invocation_short_name);
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fputc('\n', stderr);
    exit(2);
}

void die_errno(const char *fmt, ...)
{
    int e = errno;
    va_list ap;

    fprintf(stderr, "%s: ", program_invocation_short_name);
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fprintf(stderr, ": %s\n", strerror(e));
    exit(1);
}

void *need(void *p)
{
    if (!p)
        die_errno("memory");
    return p;
}

/* ---- options ----------------------------------------------------------------------------------------------------- */

static void help(const char *about, const struct option_row *rows)
{
    fputs(about, stdout);
    for (; rows->name; rows++) {
        const char *line = rows->help;
        int n = printf("  --%s %s", rows->name, rows->value);

        for (; *line; n = 0) {
            int len = (int)strcspn(line, "\n");

            printf("%*s%.*s\n", n < 26 ? 28 - n : 2, "", len, line);
            line += len + (line[len] == '\n');
        }
    }
    exit(0);
}

static void set(const struct option_row *row, const char *value)
{
    char *end = NULL;

    switch (row->kind) {
    case OPTION_FLAG:
        *(bool *)row->to = true;
        return;
    case OPTION_TEXT:
        *(const char **)row->to = value;
        return;
    case OPTION_COUNT:
        *(int64_t *)row->to = strtoll(value, &end, 10);
        break;
    case OPTION_REAL:
        *(double *)row->to = strtod(value, &end);
        break;
    }
    if (end == value || *end || *value == '-')
        die("--%s takes a number that is not negative, not \"%s\"", row->name, value);
}

void options_read(int argc, char **argv, const char *about, const struct option_row *rows)
{
    for (int i = 1; i < argc; i++) {
        const struct option_row *row = rows;

        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0)
            help(about, rows);
        while (row->name && (strncmp(argv[i], "--", 2) != 0 || strcmp(argv[i] + 2, row->name) != 0))
            row++;
        if (!row->name)
            die("\"%s\" is not understood; --help says what is", argv[i]);
        if (row->kind != OPTION_FLAG && i + 1 == argc)
            die("--%s needs a value: %s", row->name, row->value);
        set(row, row->kind == OPTION_FLAG ? "" : argv[++i]);
    }
}
