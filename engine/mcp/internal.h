/*
 * internal.h -- what the files of mcp/ share. Not for other rooms.
 *
 * A wire is one HTTP request and what goes back on it; a turn is one JSON-RPC message, that is one call (front_data).
 * A wire has one turn, or as many as a batch has messages.
 */
#ifndef MCP_INTERNAL_H
#define MCP_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>
#include <sys/queue.h>

#include "base/map.h"
#include "call/call.h"
#include "http/http.h"
#include "mcp/mcp.h"

enum {
    MCP_MAGIC = 0x6d637031, SESSION_MAGIC = 0x73657373,
    RPC_ID_MAX = 256,                   /* bytes of a request id as written */
    METHOD_SHOWN_MAX = 64,              /* bytes of an unknown method that are recorded */
    OWNER_SESSIONS_MAX = 64, OWNER_STREAMS_MAX = 64,
    ROUNDS_MAX = 20,                    /* of questions, per call; clients give up after 10 */
    STATE_MAX = 32 * 1024,              /* bytes of what a requestState carries, before sealing */
    STATE_TTL_MS = 10 * 60 * 1000,
    COMPLETIONS_MAX = 100,              /* by specification */
    STRIPES = 16,
};

#define META_VERSION        "io.modelcontextprotocol/protocolVersion"
#define META_CAPABILITIES   "io.modelcontextprotocol/clientCapabilities"
#define META_LOG_LEVEL      "io.modelcontextprotocol/logLevel"
#define META_SERVER_INFO    "io.modelcontextprotocol/serverInfo"
#define META_SUBSCRIPTION   "io.modelcontextprotocol/subscriptionId"

/* ---- era.c: revisions, and which era a message is of ------------------------------------------------------------- */

enum era { ERA_LEGACY, ERA_MODERN };
enum revision { REV_2025_03_26, REV_2025_06_18, REV_2025_11_25, REV_2026_07_28, REV_COUNT };

const char *revision_name(enum revision r);
bool revision_parse(struct str s, enum revision *ret);          /* served ones only */
bool revision_modern(struct str s);                             /* a date from 2026-07-28 on, served or not */

enum message_kind { MESSAGE_NONE, MESSAGE_REQUEST, MESSAGE_NOTIFICATION, MESSAGE_RESPONSE };

struct message {
    enum message_kind kind;
    enum era era;
    struct str method;
    struct json *id;                    /* valid or NULL */
    struct json *params, *meta;         /* objects or NULL */
    struct json *result, *error;        /* of responses */
    struct str claimed;                 /* protocolVersion of the body, modern */
    struct json *capabilities;          /* modern: an object */
    enum revision revision;             /* modern: served; legacy: what the header says, or 2025-03-26 */
    bool named;                         /* legacy: the header said it */
};

/* Steps 2 to 7 of the decision procedure up to Mcp-Method. `ret` holds as much as is known whatever is returned.
 * E_RPC_INVALID, E_RPC_PARAMS, E_HEADER_MISMATCH, E_VERSION_UNSUPPORTED, with the reason in why. */
enum err message_classify(struct json *root, const struct http_head *head, struct message *ret, struct errinfo *why);

/* ---- headers.c: fields that mirror the body ---------------------------------------------------------------------- */

/* =?base64?...?= decoded strictly, anything else as it is. E_HEADER_MISMATCH: malformed. */
enum err mirror_decode(struct arena *a, struct str value, struct str *ret);
/* Mcp-Name (or another field) against the body's value; body empty with .p NULL: absent. */
enum err mirror_fits(struct arena *a, const struct http_head *head, const char *field, struct str body,
                        struct errinfo *why);
/* Mcp-Param-* against the arguments, for every x-mcp-header of the schema. */
enum err mirror_params(struct arena *a, const struct http_head *head, const struct json *schema,
                       const struct json *args, struct errinfo *why);
#define MEDIA_JSON "application/json"
#define MEDIA_SSE  "text/event-stream"
/* Which of the types that answers have is allowed by one of the fields called Accept? */
struct accepted { bool json, sse; };
struct accepted accepted_by(const struct http_head *head);
/* Is the one Content-Type application/json, whatever parameters follow? */
bool body_is_json(const struct http_head *head);

/* ---- mcp.c ------------------------------------------------------------------------------------------------------- */

struct session_table;
struct listeners;
struct asks;

struct mcp {
    uint32_t magic;
    struct mcp_options opt;             /* defaults filled in, strings ours */
    struct arena arena;
    struct caller *nobody;              /* no_auth */
    bool loopback;
    struct str listen_host, public_host;
    struct str *hosts, *origins, *scopes;
    size_t n_hosts, n_origins, n_scopes;
    struct str scope_line;              /* scopes, blank-separated */
    struct str server_info, server_info_03;     /* JSON; without title for 2025-03-26 */
    struct http_lines json_lines;       /* what every answer of application/json has in its head */
    struct session_table *sessions;
    struct listeners *listeners;
    struct asks *asks;
    atomic_bool draining;
};

/* ---- guard.c: who may ask at all, and documents that are no calls ------------------------------------------------ */

/* Host and Origin. E_HTTP_FORBIDDEN_ORIGIN. */
enum err guard_origin(const struct mcp *m, const struct http_head *head, struct errinfo *why);
/* "https://host": where the client reached us; only after guard_origin(). */
void guard_base_url(const struct mcp *m, const struct http_request *rq, struct buf *out);
void guard_metadata_url(const struct mcp *m, const struct http_request *rq, struct buf *out);
/* RFC 9728 documents and CORS preflight. */
void await_guard_metadata(struct mcp *m, struct http_request *rq);
void await_guard_preflight(struct mcp *m, struct http_request *rq);

/* ---- wire.c: what goes back -------------------------------------------------------------------------------------- */

struct wire {
    struct mcp *mcp;
    struct http_request *rq;
    struct worker *worker;
    bool json_ok, sse_ok;               /* what the client accepts */
    bool of_page;                       /* there is one Origin: a browser asks */
    bool begun;                         /* the stream has */
    const struct http_header *opening;  /* more fields of its head */
    unsigned n_opening;
    bool broken;                        /* nobody reads any more */
    bool ended;
    struct task_mutex lock;             /* one writer at a time */
    struct timer slow;                  /* no byte has gone back for keepalive_ms */
    bool pinging;
    struct task_ref pinger;
    struct wake quiet;                  /* fired when the pinger has ended */
    ns_t last;                          /* when something was written */
};

void wire_init(struct wire *w, struct mcp *m, struct http_request *rq);
/* From now on a late answer begins a stream of its own accord, if the client takes one. */
void wire_keep_alive(struct wire *w);
/* Stops that; must come before the wire goes. */
void await_wire_quiet(struct wire *w);
/* One message on the stream, which begins with the first. E_CLOSED; E_CANCELLED. */
enum err await_wire_message(struct wire *w, struct str message);
enum err await_wire_ping(struct wire *w);
/* The same without ever waiting: false where somebody else is writing or the client is slow to read. At most HTTP_SOON
 * bytes. */
bool wire_message_now(struct wire *w, struct str message);
/* The last word: a body of application/json, or the last message of the stream. `body`: begun by http_body_begin(), and
 * may be taken; NULL or empty: none. A stream that has begun before has its headers already: these are lost. */
void await_wire_reply(struct wire *w, int status, const struct http_header *headers, unsigned n, struct buf *body);
void await_wire_end(struct wire *w);

/* ---- methods.c --------------------------------------------------------------------------------------------------- */

enum { IN_LEGACY = 1, IN_MODERN = 2, CACHEABLE = 4, ASKS = 8, BARE = 16 };

struct turn;

struct method {
    struct str name;
    unsigned flags;
    const char *mirror;                 /* the param that Mcp-Name repeats, or NULL */
    enum err (*await_answer)(struct call *c, struct turn *t);   /* NULL: tools/call */
    bool (*offered)(const struct registry *r);                  /* NULL: always */
};

/* NULL: unknown in that era, or of a capability that is not offered. */
const struct method *method_find(struct str name, enum era era, const struct registry *r);
void write_capabilities(struct buf *b, const struct registry *r, enum era era);

/* ---- turn -------------------------------------------------------------------------------------------------------- */

/* A request that a legacy client may cancel. Linked in its session; the fields are set before that. */
struct inflight {
    LIST_ENTRY(inflight) link;
    struct worker *worker;
    struct task *task;
    struct str id;                      /* as written */
    bool linked, cancelled;             /* cancelled: worker's thread only */
};

enum { CAN_FORM = 1, CAN_URL = 2, CAN_SAMPLE = 4, CAN_ROOTS = 8 };

/* What a listening client wants to hear. */
enum { HEARS_TOOLS = 1, HEARS_PROMPTS = 2, HEARS_RESOURCES = 4, HEARS_ALL = 7 };

enum turn_kind { TURN_POST, TURN_GET, TURN_DELETE };

struct turn {
    struct wire *wire;
    struct batch *batch;                /* NULL: the message is the whole body */
    struct json *given;                 /* of a batch: the message */
    struct caller *known;               /* of a batch: who sent it; borrowed */
    const char *refusal;                /* of a batch that is refused as a whole */

    enum turn_kind kind;
    struct message msg;
    const struct method *method;
    struct str param_name;              /* params.name or params.uri */
    enum err fault;                     /* of decoding: told once the sender is known */

    struct session *session;            /* a reference, or NULL */
    bool minted;                        /* by this turn: its id goes back in a header */
    unsigned can;
    unsigned hears;
    bool streams;                       /* holds the session's one stream */
    bool conflict;                      /* it has one already: 409 */
    struct inflight inflight;

    struct json *progress_token;
    bool progressed;
    double progress;
    ns_t said;                          /* when the last progress went out */
    unsigned said_burst;
    int log_level;                      /* least that is sent; LOG_NONE: none */

    struct str request_state;
    struct json *responses;             /* inputResponses */
    struct str sealed;                  /* the requestState that goes back */
    unsigned round;

    struct buf words;                   /* of a tool call, while it waits to be on record: the message */
};

extern const struct call_front mcp_front;
static inline struct turn *turn_of(const struct call *c) { return c->front_data; }

/* One turn from beginning to end. */
void await_turn_call(struct turn *t, size_t bytes);

/* decode.c */
enum err mcp_decode(struct call *c);
enum err await_mcp_identify(struct call *c);
enum err await_sender(const struct wire *w, struct caller **ret, struct errinfo *why);
/* answer.c, lists.c, offers.c */
enum err await_mcp_answer(struct call *c);
enum err answer_discover(struct call *c, struct turn *t);
enum err answer_initialize(struct call *c, struct turn *t);
enum err answer_empty(struct call *c, struct turn *t);
enum err answer_set_level(struct call *c, struct turn *t);
enum err answer_listen(struct call *c, struct turn *t);
enum err answer_tools(struct call *c, struct turn *t);
enum err answer_prompts(struct call *c, struct turn *t);
enum err answer_resources(struct call *c, struct turn *t);
enum err answer_templates(struct call *c, struct turn *t);
enum err answer_prompt(struct call *c, struct turn *t);
enum err answer_resource(struct call *c, struct turn *t);
enum err answer_subscribe(struct call *c, struct turn *t);
enum err answer_complete(struct call *c, struct turn *t);
/* reply.c */
void mcp_word(struct call *c);
void await_mcp_reply(struct call *c);
/* talk.c: while the body runs */
enum { LOG_NONE = 99 };
int log_rank(struct str level);                                 /* -1: no level */
enum err await_mcp_progress(struct call *c, double done, double total, struct str message);
enum err await_mcp_log(struct call *c, const char *level, struct str message);
bool mcp_say_waiting(struct call *c, struct str what);
enum err await_mcp_inputs(struct call *c);
bool mcp_client_can(struct call *c, const char *capability);
void mcp_front_announce(struct call *c, const char *what);
unsigned capabilities_of(const struct json *caps);

/* ---- batch.c ----------------------------------------------------------------------------------------------------- */

struct batch {
    struct wire *wire;
    struct buf out;                     /* responses, separated by commas */
    unsigned left;
    struct wake done;
};

void batch_add(struct batch *b, struct str response);
/* A body that begins with '['. */
void await_batch(struct wire *w);

/* ---- session.c --------------------------------------------------------------------------------------------------- */

LIST_HEAD(inflights, inflight);
struct owner;

struct session {
    uint32_t magic;
    atomic_uint refs;
    struct id id;
    enum revision revision;
    unsigned can;
    atomic_int log_level;
    /* under its stripe's lock */
    struct owner *owner;
    unsigned stripe;                    /* which one; never changes */
    bool dead, streaming;
    ns_t used;
    struct inflights inflights;
    TAILQ_ENTRY(session) link;          /* of its owner, least recently used first */
};

struct session_table *session_table_new(unsigned max, ns_t idle);
void session_table_free(struct session_table *t);
/* All answer a reference. E_OVERLOADED: the table is full. */
enum err session_mint(struct session_table *t, const struct caller *who, enum revision r, unsigned can,
                      struct session **ret);
/* E_SESSION_UNKNOWN: never was, is no more, or is another caller's. */
enum err session_find(struct session_table *t, const struct caller *who, struct str id, struct session **ret);
void session_release(struct session *s);                        /* accepts NULL */
void session_end(struct session_table *t, struct session *s);
bool session_ended(struct session_table *t, struct session *s);
bool session_stream_take(struct session_table *t, struct session *s);   /* false: it has one */
void session_stream_give(struct session_table *t, struct session *s);
void session_inflight_add(struct session_table *t, struct session *s, struct inflight *f);
void session_inflight_del(struct session_table *t, struct session *s, struct inflight *f);
/* notifications/cancelled: finds the request, on whichever worker it runs, and cancels its task there. */
void session_cancel(struct session_table *t, struct session *s, struct str id);
size_t session_count(struct session_table *t);
bool caller_same(const struct caller *a, const struct caller *b);

/* ---- ask.c: questions to legacy clients -------------------------------------------------------------------------- */

struct asks *asks_new(void);
void asks_free(struct asks *a);
/* Sends c->questions on the stream and waits for all answers, which go to c->answers. */
enum err await_ask(struct call *c, struct turn *t);
/* The client's answer to one of them: to the worker that waits. */
void ask_answered(struct call *c, struct turn *t);

/* ---- mrtr.c: questions to modern clients ------------------------------------------------------------------------- */

/* Opens requestState and takes inputResponses in: c->answers, c->state_in. E_STATE_INVALID, E_RPC_PARAMS. */
enum err await_mrtr_open(struct call *c, struct turn *t);
/* Takes out of c->questions those that have an answer, in c->answers then. E_RPC_PARAMS: one that does not fit. */
enum err mrtr_answered(struct call *c, struct turn *t);
/* The requestState that goes back with c->questions, into t->sealed. E_CALL_TOO_LARGE. */
enum err await_mrtr_seal(struct call *c, struct turn *t);
/* Are all kinds of questions declared? E_CAPABILITY_MISSING with c->error_data. */
enum err mrtr_capable(struct call *c, unsigned can);
/* Is this an answer to that question? E_RPC_PARAMS. */
enum err answer_fits(struct call *c, struct str key, const struct json *question, const struct json *answer);

/* ---- listen.c ---------------------------------------------------------------------------------------------------- */

struct listeners *listeners_new(struct mcp *m);
void listeners_free(struct listeners *l);
/* Room for another? E_OVERLOADED, E_DRAINING. */
enum err listen_room(struct mcp *m, const struct call *c);
/* The stream, until its end; the reply of subscriptions/listen and of GET. */
void await_listen(struct call *c, struct turn *t);
/* Every stream looks whether it has to end. */
void listeners_kick(struct mcp *m);

#endif
