/*
 * requests.h -- the requests of a run, read from a file and written out as bytes
 *
 * A line of the file is a JSON object:
 *
 *   {"method":"POST", "path":"/mcp", "headers":{"Name":"value", ...}, "body":"...", "weight":1, "group":"tenant-1"}
 *
 * method defaults to POST, path to the target's, weight to 1 (0: only in turn), group to none.  Host and Content-Length
 * are added.  In values of headers and in the body, {{n}} becomes a number that occurs once in the run and {{r:K}} one
 * by chance below K.
 */
#ifndef BENCH_REQUESTS_H
#define BENCH_REQUESTS_H

#include "base/arena.h"
#include "base/str.h"
#include "bench/gen/common.h"

struct piece;

struct request {
    struct piece *head, *body;
    bool fixed;                         /* no {{...}}: head and body are one piece in `head` */
    uint32_t group;                     /* of requests.group; 0: none */
    double until;                       /* weights of all up to this one */
};

struct requests {
    struct arena arena;
    struct request *all;
    size_t n, room;
    struct str *group;                  /* [0] is "" */
    uint32_t groups;
    uint32_t *group_slot;               /* open addressing by name: index + 1, 0 empty */
    uint32_t slots;
};

/* Reads the file; ends the program, naming the line, if it is not as above. host: for the Host header. */
void requests_load(struct requests *r, const char *file, const char *host, const char *path);
void requests_release(struct requests *r);
/* One by weight. */
const struct request *requests_choose(const struct requests *r, struct chance *chance);
/* Appends the bytes of a request to `out`. */
void request_write(const struct request *q, uint64_t n, struct chance *chance, struct buf *out);

#endif
