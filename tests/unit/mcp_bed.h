/*
 * mcp_bed.h -- an engine with two workers, each on a port of its own, and clients that speak to them over sockets
 *
 * A port per worker makes "lands on another worker" something a test can say.  The connector behind it is
 * mcp_connector.c.
 */
#ifndef MCP_BED_H
#define MCP_BED_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <pthread.h>
#include <semaphore.h>

#include "call/call.h"
#include "call/once.h"
#include "mcp/mcp.h"
#include "ratelimit/ratelimit.h"

#include <cmocka.h>                     /* last: it has a macro called fail() */

enum { BED_WORKERS = 2 };

struct bed {
    char dir[64];
    struct engine engine;
    struct worker workers[BED_WORKERS];
    struct seat {
        struct bed *bed;
        struct worker *worker;
        struct http_server *http;
        pthread_t thread;
        sem_t ready;
        char address[64];
        struct mail end;
        struct timer poll;
    } seats[BED_WORKERS];
    struct store *store;
    struct secret *root;
    struct identity_local *local;
    struct registry *registry;
    struct mcp *mcp;
    atomic_uint sent;               /* requests that must be on record */
    bool auth;
};

/* `opt` may be NULL; engine, listen and who callers are without auth are filled in. policy NULL: everything is
 * permitted. */
void bed_start(struct bed *b, const struct mcp_options *opt, const char *policy, bool auth);
/* Drains, stops, and asserts that the journal verifies and has each request exactly once. */
void bed_stop(struct bed *b);
/* A token of the local issuer, in a static buffer per call site of 4. */
const char *bed_token(struct bed *b, const char *user, const char *agent, const char *scopes);
/* Moves everybody's wall clock on. */
extern atomic_llong bed_wall_offset;
/* While it is set the disk does not answer; then it does what it was asked to, when a worker next has something to
 * do. */
extern atomic_bool bed_disk_hangs;

/* ---- replies ----------------------------------------------------------------------------------------------------- */

struct reply {
    int status;
    char head[4096], *body;
    size_t len;
    struct arena a;
    struct json *json;              /* of the body, or of its last event; NULL: none */
    unsigned events, pings;
    char session[64];
};

void reply_release(struct reply *r);
/* Down members, separated by blanks: "error data uri", "result tools 0 name". */
struct json *at(const struct reply *r, const char *path);
int64_t int_at(const struct reply *r, const char *path);
#define assert_str_at(r, path, z) assert_string_equal(z_at((r), (path)), (z))
const char *z_at(const struct reply *r, const char *path);          /* "" if it is no string */
bool head_has(const struct reply *r, const char *text);
/* The nth event of a stream, from 0. */
struct json *event(struct reply *r, unsigned n);

/* ---- requests ---------------------------------------------------------------------------------------------------- */

/* `headers` are lines ending in CRLF. Whole exchange on a connection of its own. Body NULL: none. */
void request(struct bed *b, unsigned worker, const char *method, const char *path, const char *headers,
             const char *body, struct reply *r);
/* POST /mcp with Content-Type and Accept of a usual client. */
void post(struct bed *b, unsigned worker, const char *headers, const char *body, struct reply *r);

/* A modern request; name NULL: no Mcp-Name. params: members ("\"cursor\":\"x\""), may be "". caps: an object. meta:
 * further members of _meta, each with a comma before it. */
struct modern {
    const char *method, *name, *params, *caps, *meta, *headers;
    unsigned worker;
};
void modern_text(const struct modern *m, struct buf *headers, struct buf *body);
void modern(struct bed *b, const struct modern *m, struct reply *r);
/* tools/call */
void modern_call(struct bed *b, const char *tool, const char *args, struct reply *r);

/* initialize; the session's id is in r->session. */
void initialize(struct bed *b, const char *version, const char *caps, struct reply *r);
/* One message under a session (may be ""). */
void legacy(struct bed *b, unsigned worker, const char *session, const char *body, struct reply *r);

/* ---- streams ----------------------------------------------------------------------------------------------------- */

struct stream {
    int fd;
    struct buf in;
    unsigned pings;
    struct arena a;
};

void stream_open(struct bed *b, struct stream *s, unsigned worker, const char *method, const char *headers,
                 const char *body);
/* Waits until n comments have come that stream_next() has not passed. */
void stream_pinged(struct stream *s, unsigned n);
/* The next message; NULL: the stream has ended. Its tree lives until stream_close(). */
struct json *stream_next(struct stream *s);
void stream_close(struct stream *s);

const char *json_z(const struct json *j, const char *path);

/* ---- what the connector's tools tell ----------------------------------------------------------------------------- */

extern sem_t tool_waits, tool_cancelled;
extern atomic_int tool_writes;

#endif
