/*
 * client.h -- the command line's HTTP client: libcurl, many transfers at once, on the calling thread
 *
 * For verbs that talk to a running engine (and, in the tour, to the sandbox's login page).  The engine itself never
 * uses this: its upstream exchanges are fetch/'s.  No proxy of the environment is used, no redirect is followed, every
 * answer has a largest size.  Connections are kept and used again.
 *
 * In a process that runs the engine too, the engine must have been started before client_new(): whoever sets libcurl up
 * first decides how it allocates.
 */
#ifndef CLI_CLIENT_H
#define CLI_CLIENT_H

#include "base/err.h"
#include "base/str.h"

struct client;
struct transfer;

enum { CLIENT_REPLY_MAX = 64 << 20, CLIENT_HEADERS_MAX = 48, CLIENT_TIMEOUT_MS = 150000 };

struct client_reply {
    int status;
    bool event_stream;              /* Content-Type is text/event-stream */
    char location[2048];            /* header fields, "" without */
    char session[256];              /* Mcp-Session-Id */
    char cookie[512];               /* name=value of the last Set-Cookie */
    struct buf body;
    /* when the transfer itself failed */
    bool unsent;                    /* no connection: nothing can have happened */
};

struct client_spec {
    const char *method;             /* "POST" */
    const char *url;
    const char *const *headers;     /* "Name: value" */
    size_t n_headers;
    struct str body;                /* copied */
    int64_t timeout_ms;             /* 0: CLIENT_TIMEOUT_MS; -1: none */
    /* On a connection of its own. libcurl sends a request again when a kept connection dies under it: what has an
     * effect must not meet that. */
    bool once;
    /* Bytes as they come, instead of collecting them in reply.body; false ends the transfer. Status and the fields of
     * the reply are there already. May be NULL. */
    bool (*on_bytes)(struct transfer *t, struct str bytes, void *arg);
    /* Once, at the end: OK with a reply (whatever its status); E_UPSTREAM_DOWN, E_TIMEOUT, E_CALL_TOO_LARGE, E_CLOSED
     * with the reason in info. The transfer is gone afterwards. May begin others. Not called after client_cancel(). */
    void (*on_done)(struct transfer *t, enum err e, const struct errinfo *info, void *arg);
    void *arg;
};

enum err client_new(struct client **ret, struct errinfo *info);
void client_free(struct client *c);                 /* ends open transfers without a word; accepts NULL */

struct transfer *client_begin(struct client *c, const struct client_spec *spec);
struct client_reply *transfer_reply(struct transfer *t);
/* Closes its connection: what a modern MCP server takes for a cancellation. */
void client_cancel(struct transfer *t);
size_t client_open(const struct client *c);         /* transfers */
/* Moves transfers on; waits for one of them, for extra_fd (-1: none) to become readable, or for timeout_ms. Answers
 * whether extra_fd is readable. */
bool client_step(struct client *c, int extra_fd, int timeout_ms);

/* One transfer, waited for; others move on meanwhile. The reply is the caller's to release. */
enum err client_do(struct client *c, const struct client_spec *spec, struct client_reply *ret, struct errinfo *info);
void client_reply_release(struct client_reply *r);

#endif
