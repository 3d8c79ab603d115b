/*
 * mcp.h -- the Model Context Protocol over HTTP, both eras on one endpoint
 *
 * One path takes messages of 2026-07-28 ("modern": stateless, the client's claims travel in params._meta) and of
 * 2025-03-26, 2025-06-18 and 2025-11-25 ("legacy": initialize, optional sessions).  The era is decided by each
 * message's body, never by its connection.  Every message becomes one await_call() (call/call.h) and so one chain of
 * records; this room gives it its struct call_front: decoding, identifying, answering what is no tool call, and
 * replying.
 *
 * One struct mcp serves all workers.  Handlers run on the task of their request; nothing else here waits.
 */
#ifndef MCP_MCP_H
#define MCP_MCP_H

#include "base/err.h"
#include "base/str.h"
#include "http/http.h"

struct engine;
struct mcp;

/* Strings are copied; NULL-terminated lists may be NULL. 0 in a limit takes the default in brackets. */
struct mcp_options {
    struct engine *engine;              /* its workers are where mail goes; must outlive the mcp */
    const char *path;                   /* ["/mcp"] */
    /* Origin under which clients reach us, without path ("https://mcp.example.com"). NULL: the (checked) Host of each
     * request, https when it came over TLS */
    const char *public_url;
    /* DNS rebinding: which Host is served. The host of `listen`, loopback names and literals (any port) when
     * `listen` is loopback, the host of public_url, and these ("host", any port, or "host:port") */
    const char *listen;                 /* "127.0.0.1:7411" */
    const char *const *hosts;
    /* further Origins that may ask ("https://app.example.com"); a served host always may */
    const char *const *origins;

    /* --no-auth: engine->identity is NULL and every request is this caller's */
    bool no_auth;
    const char *tenant, *user, *agent;

    const char *name, *title, *version; /* serverInfo; ["sluice", "sluice", the build's] */
    const char *instructions;           /* for models; NULL: none */
    const char *const *scopes;          /* what metadata and challenges name */
    bool scopes_required;               /* a token must carry them all, else 403 */

    int64_t keepalive_ms;               /* [15000] a comment on every stream that has been silent for so long */
    int64_t session_idle_ms;            /* [3600000] a session not used for so long is forgotten */
    int64_t ask_ms;                     /* [120000] how long a legacy client may take to answer a question */
    unsigned batch_max;                 /* [100] messages in a body, 2025-03-26 only */
    unsigned sessions_max;              /* [10000] in all, and 64 of one caller: then its oldest goes */
    unsigned streams_max;               /* [4096] listening clients per worker, and 64 of one caller */
    unsigned page;                      /* [200] entries of a list in one answer */
};

/* E_CONFIG with the reason. Before the workers start; engine->workers may still be empty. */
/* Scheme and host only: E_CONFIG otherwise. */
enum err mcp_public_url_check(const char *public_url, struct errinfo *info);
enum err mcp_new(const struct mcp_options *opt, struct mcp **ret, struct errinfo *info);
/* No handler may be inside (drain, then wait for the workers' calls to end). */
void mcp_free(struct mcp *m);

/* Is this path ours: the endpoint or one of its RFC 9728 documents? */
bool mcp_serves(const struct mcp *m, struct str path);
/* The http_handler of these paths; arg is the struct mcp. Runs on a worker's loop (worker_self()). */
void mcp_handle(struct http_request *rq, void *arg);

/* For other rooms on the same address. The guard against DNS rebinding: E_HTTP_FORBIDDEN_ORIGIN with the reason; and
 * the base URL under which this request's client reaches us, to be asked for once the guard has let it through. */
enum err mcp_guard(const struct mcp *m, const struct http_request *rq, struct errinfo *why);
void mcp_base_url(const struct mcp *m, const struct http_request *rq, struct buf *out);
/* Tells listening clients that a list changed: what is "tools", "prompts" or "resources"; tenant empty: everybody's.
 * Any thread; returns at once. */
void mcp_announce(struct mcp *m, struct str tenant, const char *what);
/* Ends all listening streams, each with its result, and takes no new ones. Any thread; returns at once. */
void mcp_drain(struct mcp *m);

#endif
