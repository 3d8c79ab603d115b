/*
 * json_bench.h -- one subject of the JSON bench: what it does to a message. The two subjects are two files because both
 * libraries define functions named json_something.
 */
#ifndef BENCH_JSON_BENCH_H
#define BENCH_JSON_BENCH_H

#include <stddef.h>
#include <stdint.h>

struct subject {
    const char *name;
    /* Parses, reads what a server reads of a message, and forgets it; the sum depends on everything that was read. */
    uint64_t (*read)(const char *text, size_t len);
    /* Parses and keeps one tree for write(); returns 0 on failure. */
    int (*keep)(const char *text, size_t len);
    /* Writes the kept tree compactly into memory of its own; returns the length. */
    size_t (*write)(const char **ret_text);
};

extern const struct subject jansson_subject;

#endif
