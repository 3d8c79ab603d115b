/*
 * call.h -- one request from its first byte to its reply
 *
 * Every request that reaches the engine becomes a struct call and goes through the steps of steps.def in call_run():
 * tool calls through all of them, everything else (lists, discovery, prompts) through ANSWER.  Bad ones too: they leave
 * at the step that refused them, through OUTCOME, so that each is in the journal exactly once.
 *
 * What stands between the wire and the call (decoding, identifying, replying in the client's era of the protocol)
 * belongs to the room above and is reached through struct call_front: mcp/ has one for HTTP and stdio clients, tests
 * have theirs.
 */
#ifndef CALL_CALL_H
#define CALL_CALL_H

#include "base/arena.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/ids.h"
#include "call/engine.h"
#include "call/question.h"
#include "call/registry.h"
#include "connectors/connector.h"
#include "identity/identity.h"
#include "journal/journal.h"
#include "json/json.h"
#include "loop/task.h"
#include "policy/policy.h"
#include "vault/vault.h"

enum step {
    STEP_NONE,
#define STEP(name, after, truth) STEP_##name,
#include "call/steps.def"
#undef STEP
    STEP_COUNT
};

const char *step_name(enum step s);             /* "DECODE" */
const char *step_truth(enum step s);            /* what holds on entry */

struct call;

/* Why decoding, identifying and answering are not here: they are the protocol's. All may set call_why(). */
struct call_front {
    const char *transport;                      /* "http", "stdio", "test": journal */
    /* Fills kind, method, rpc_id and, for a tool call, tool_name, args, key, timeout_ms. E_HTTP_*, E_JSON_*,
     * E_RPC_*. */
    enum err (*decode)(struct call *c);
    /* Fills caller (a reference that call_run releases). */
    enum err (*await_identify)(struct call *c);
    /* Everything that is no tool call: fills answer, or returns an error. */
    enum err (*await_answer)(struct call *c);
    /* Optional, of a tool call whose outcome is being recorded: what will be said is put in words, so that the call
     * need not keep what it is made of. Again when that is another after all. */
    void (*word)(struct call *c);
    /* Says it. Must not fail the call any more: the outcome is on record. */
    void (*await_reply)(struct call *c);

    /* while the body runs; all optional */
    enum err (*await_progress)(struct call *c, double done, double total, struct str message);
    enum err (*await_log)(struct call *c, const char *level, struct str message);
    /* The call stands in line: what for, for a client that asked for progress. Never waits: what cannot be said now is
     * left out. False: it did not ask, or cannot hear it. An empty text only asks that. */
    bool (*say_waiting)(struct call *c, struct str what);
    /* questions are in c->questions. OK: c->answers has them; E_INPUT_REQUIRED: the client comes back with them. */
    enum err (*await_inputs)(struct call *c);
    bool (*client_can)(struct call *c, const char *capability);
    void (*announce)(struct call *c, const char *what);     /* "tools", "prompts", "resources" */
};

enum call_kind { CALL_OTHER, CALL_TOOL };

enum { CALL_ARENA_MAX = 16 << 20, CALL_TIMEOUT_MS = 30000, CALL_KEY_MAX = 255, CALL_SIDES_MAX = 2 + CALLER_ACTORS_MAX };

enum { SHADOW_NAMED_MAX = 8 };

/* A decision of the candidate policies that is another than the live ones': shadow.c */
struct shadow_flip {
    bool flipped;
    uint8_t now;                        /* enum decided */
    uint8_t n;
    uint32_t policies[SHADOW_NAMED_MAX];        /* the first that decided, by their numbers in registry->candidate */
};

struct call {
    uint32_t magic;
    struct id id;                       /* "call_..." */
    struct worker *worker;
    struct registry_hold *held;
    struct registry *registry;          /* held's: the snapshot this call lives in */
    struct arena arena;
    struct task *task;
    struct call *next, **prev;          /* among the worker's calls */
    bool cut;                           /* the engine ends it: what it came to is still said */
    bool put_off;                       /* for overload: before anything was decided */
    const struct call_front *front;
    void *front_data;

    enum step step;
    bool measured;                      /* how long its steps take */
    ns_t began, since, deadline;        /* since: when its step began, if measured */
    wall_ms_t began_wall;

    /* DECODE */
    enum call_kind kind;
    struct str method;                  /* "tools/call"; empty when nothing could be decoded */
    struct json *rpc_id;
    struct str tool_name;
    const struct tool *named;           /* the tool called so, where the front had to look */
    struct json *args;                  /* NULL: none given */
    struct str key;                     /* the client's idempotency key, or empty */
    int64_t timeout_ms;                 /* the client's wish, 0: none */
    size_t bytes_in;
    const char *peer;                   /* as long as the call */

    /* IDENTIFY */
    struct caller *caller;
    struct tenant_key *keys;            /* its tenant's, for sealing; NULL before they are there */

    /* RESOLVE */
    const struct tool *tool;
    struct vault_account account;       /* held, of tools that need one; id empty otherwise */

    /* CHECK: the snapshot */
    struct str frozen;                  /* canonical arguments */
    char digest[65];                    /* SHA-256 of frozen, hex */
    struct str resource_type, resource_id;

    /* DECIDE to INTENT: then it is on record, and its memory goes while the call waits */
    struct arena deciding;
    const struct vault_delegation **delegations;    /* what the user has recorded, by actor; NULL: nothing */
    struct asked *asked;                /* what policies were asked */
    struct policy_decision *sides;      /* user, agent, then the delegations */
    unsigned n_sides;
    const uint64_t *visible;            /* of tools/list: a bit for each tool; NULL: not asked yet */
    struct shadow_flip flip;            /* what the candidate policies would have decided otherwise */

    /* ADMIT, INTENT */
    bool admitted;                      /* counted among the worker's that are under way */
    struct admission *admission;
    struct journal_room room;
    struct once_entry *once;            /* claimed key */
    bool intended;                      /* an intent is on record, or about to be: how it ended goes behind it */
    bool permitted;                     /* by every side, and that is on record: without it no byte leaves (P1) */
    char key_text[ID_MAX];              /* what call_key() answers */
    char replay_of[ID_MAX];             /* the call whose recorded outcome is answered again */
    enum outcome replayed;              /* what that came to; OUTCOME_NONE: there is none */
    struct str sealed_result;           /* kept with the key, in base64 */

    /* RUN */
    struct arena_mark run_from;         /* what lies behind in the arena: the body's, and its result */
    struct json *questions;             /* { key: request } the body asks for */
    struct json *answers;               /* { key: result } the client has given */
    struct json *state_in, *state_out;  /* carried between rounds */
    struct json *structured;            /* result_...() */
    struct json *content;               /* content_...(): array of content blocks */
    struct json *completions;
    struct json *prompt_args;
    struct json *kept;                  /* what the body keeps for its reconcile */
    unsigned exchanges, effects_sent, effects_done;
    int last_status;
    bool in_reconcile;

    /* ANSWER */
    bool answering;                     /* it came so far */
    struct json *answer;                /* the result of everything that is no tool call */

    /* OUTCOME */
    enum err err;
    struct errinfo *why;                /* for the client: call_info(), call_said() */
    int64_t retry_after_ms;
    enum outcome outcome;
    struct json *error_data;            /* JSON-RPC error data, or NULL */
};

/* The life of a call, on a task of its own: from DECODE to REPLY. Afterwards everything of the call is released. The
 * front's data and `peer` are the caller's. */
void await_call(struct worker *w, const struct call_front *front, void *front_data, const char *peer, size_t bytes_in);

/* At the end of the drain time: every call in flight on this worker is cancelled. What came of it is recorded and
 * said. */
void calls_cut(struct worker *w);

/* What the client is told of an error: what happened, where, what to do. Has no memory while a call waits that has not
 * failed. */
struct errinfo *call_info(struct call *c);
const char *call_said(const struct call *c);    /* "": nothing */
void call_unsay(struct call *c);
/* Sets it, and returns e. */
enum err call_why(struct call *c, enum err e, const char *fmt, ...) __attribute__((cold, format(printf, 3, 4)));
#ifdef __clang_analyzer__       /* as in base/err.h */
#define call_why(c, e, ...)     ((void)(call_why)(c, e, __VA_ARGS__), (e))
#endif
/* A request that never became a call (malformed HTTP): one REQUEST record, not waited for. */
void call_record_bad_request(struct worker *w, enum err e, const char *why, const char *peer, size_t bytes);
/* Records what was only counted (at the end of a worker, before its lane is closed). */
void call_record_refusals(struct worker *w);
/* May this caller use this tool with some arguments? For lists (policy.h: a sound over-approximation). */
bool call_could_allow(struct call *c, const struct tool *t);
/* Policy for what is no tool call: Action::"<group>.<name>" in Action::"<group>" and, unless it is 0, in
 * its effect, on type::"id". */
enum err call_decide_action(struct call *c, struct str group, struct str name, enum effect effect, struct str type,
                            struct str id);
/* Policy for what is no tool call but has a name: prompts, resources. Action::"<provider>.<name>". */
enum err call_decide_named(struct call *c, const struct provider_conf *p, struct str name);
#endif
