/*
 * link.h -- a running engine, as the command line reaches it: where it is, who asks, MCP messages back and forth
 *
 * Where: --url, else SLUICE_URL, else what the engine wrote into <data>/endpoint when it started, else the configured
 * listen address.  Who: --token, else SLUICE_TOKEN, else a token minted with the local issuer's key in the data
 * directory for --tenant, --as and --agent; with none of these no token is sent (an engine without authentication takes
 * that).
 *
 * Messages are those of MCP 2026-07-28: stateless, what the client claims in params._meta, repeated in header fields.
 */
#ifndef CLI_LINK_H
#define CLI_LINK_H

#include "cli/cli.h"
#include "cli/client.h"
#include "identity/identity.h"
#include "json/json.h"

struct link_options {
    const char *url, *token, *user, *agent, *tenant, *data, *config;
    const char *scopes;                 /* of a token that is made here; no option of its own */
};

/* The rows of a verb's table of options. */
#define LINK_OPTIONS(o)                                                                                               \
    { .name = "url", .value = &(o).url }, { .name = "token", .value = &(o).token },                                   \
    { .name = "as", .value = &(o).user }, { .name = "agent", .value = &(o).agent },                                   \
    { .name = "tenant", .value = &(o).tenant }, { .name = "data", .value = &(o).data },                               \
    { .name = "config", .value = &(o).config }
/* The same, as the end of a verb's help. */
#define LINK_HELP                                                                                                     \
    "\nWho asks, and where:\n"                                                                                        \
    "  --as USER         on whose behalf\n"                                                                           \
    "  --agent AGENT     the software that acts; cli if left out\n"                                                   \
    "  --tenant TENANT   default if left out\n"                                                                       \
    "  --token TOKEN     a bearer token instead of one made here; also SLUICE_TOKEN, which other\n"                   \
    "                    users of this machine cannot see in its list of processes\n"                                 \
    "  --url URL         the engine's MCP endpoint; also SLUICE_URL; else that of the engine which\n"                 \
    "                    runs on the data directory\n"                                                                \
    "  --data DIR        the engine's data directory, whose key signs tokens; ./sluice-data if left\n"                \
    "                    out\n"                                                                                       \
    "  --config FILE     the engine's configuration: data directory and address are taken from it\n"

enum { LINK_ARENA_MAX = 1 << 20 };

struct link {
    struct client *client;
    struct arena arena;
    const char *url;                    /* of the MCP endpoint */
    const char *base;                   /* the same without its path */
    const char *authorization;          /* "Authorization: Bearer ...", or NULL */
    char *own_authorization;            /* what link_authorize() made */
    const char *data;                   /* the engine's data directory */
    wall_ms_t minted;                   /* when the token was made; 0: it was brought */
    int64_t next_id;
};

/* Complains by itself: 0, or an exit code. link_close() in any case. */
int link_open(const struct verb *v, const struct link_options *o, struct link *ret);
void link_close(struct link *l);
/* For verbs that live long: makes a token again that was made here half an hour ago. Complains by itself. */
int link_renew(const struct verb *v, const struct link_options *o, struct link *l);

/* One request to the engine's own paths ("/v1/accounts"): its answer as JSON in `a`. Complains about everything but
 * 200. */
int link_ask(const struct verb *v, struct link *l, struct arena *a, const char *method, const char *path,
             const struct json *body, struct json **ret);
/* Can it stand in a path as it is? */
bool path_word(const char *z);

/* Where the engine is: in `a`. Complains by itself. */
int link_url(const struct verb *v, const struct link_options *o, struct arena *a, const char **ret_url,
             const char **ret_data);
/* The file an engine leaves in its data directory while it runs. */
void endpoint_write(const char *data, const char *mcp_url);
void endpoint_remove(const char *data);

/* Mints with the key in `data`; tenant "" is "default", agent "" is "cli", ttl 0 an hour. Complains by itself. */
int mint(const struct verb *v, const char *data, const struct identity_mint *m, struct buf *out);

/* ---- messages ---------------------------------------------------------------------------------------------------- */

struct rpc_reply {
    int status;                         /* of HTTP */
    struct json *result, *error;        /* one of them, in the arena given */
    bool unsent;                        /* with an error code: nothing can have happened */
};

/* params: an object in `a`, or NULL; becomes part of the message. */
struct json *rpc_message(struct link *l, struct arena *a, const char *method, struct json *params);
/* The request for it, its parts in `a`. schema: the inputSchema of a tool that is called, or NULL. */
void rpc_spec(struct link *l, struct arena *a, const struct json *message, const struct json *schema,
              struct client_spec *ret);
/* What came back: one JSON body, or a stream whose last message is the answer. E_UPSTREAM_GARBLED with the reason. */
enum err rpc_read(struct arena *a, const struct client_reply *http, const struct json *message, struct rpc_reply *ret,
                  struct errinfo *info);
/* All of the above. */
enum err rpc_ask(struct link *l, struct arena *a, const struct json *message, const struct json *schema,
                 struct rpc_reply *ret, struct errinfo *info);

/* How a call ended, as the engine says it, or as well as can be told of another server. ret_why: a line for a person,
 * in `a`. */
enum outcome rpc_outcome(struct arena *a, const struct rpc_reply *r, struct str *ret_why);
/* Member of the result's _meta or of the error's data: "dev.sluice/call". */
struct str rpc_note(const struct rpc_reply *r, const char *key);
int exit_code_of(enum outcome o);

/* All tools the caller may use, as one array in `a`. Complains by itself. */
int link_tools(const struct verb *v, struct link *l, struct arena *a, struct json **ret);
const struct json *tool_named(const struct json *tools, struct str name);

#endif
