/*
 * connector.h -- the one header a connector's author includes
 *
 * A connector knows one provider.  It declares the provider (hosts, OAuth, limits, how answers are to be read) and its
 * tools; a tool is one intent ("book a meeting"), its body is straight-line code that reads like the intent.  From the
 * declarations come the client's JSON Schema, the policy entities, the egress allow-list, the limiter's keys, the
 * journal's fields and the docs.
 *
 * What a body may rely on
 *   - It never sees a token, a socket, the clock or the loop.  It names requests by path; the engine adds the
 *     credential and sends them to the provider's own host only.
 *   - Functions that may wait start with await_.  When the caller has gone away they return E_CANCELLED: pass it on.
 *   - It frees nothing: everything it gets or makes lives until the call ends.  If the call needs more memory than a
 *     call may have, builders return NULL, every function here accepts NULL, and the call ends in E_CALL_TOO_LARGE.
 *   - Strings are UTF-8, end in NUL and contain no NUL (arguments that do are refused before the body runs).
 *   - It passes errors on as they are.  A request that was sent and not answered is E_OUTCOME_UNKNOWN and stays it.
 *
 * The API's version and its changes
 *   1  first version
 *   2  limits: per method and per resource, spacing, units, where answers tell what is left; requests with their costs;
 *      classify says which limit an answer is about; js_copy_str, js_take, js_pick_each, text_int,
 *      answer_retry_said
 */
#ifndef SLUICE_CONNECTOR_H
#define SLUICE_CONNECTOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/err.h"

#define SLUICE_CONNECTOR_API 2

struct call;            /* one run of a tool */
struct json;            /* a JSON value; NULL is accepted everywhere and means "absent" */

/* ---- declaring: fields ------------------------------------------------------------------------------------------- */

enum effect { EFFECT_READS = 1, EFFECT_WRITES, EFFECT_DESTROYS };

enum field_type {
    T_STRING = 1,       /* min..max characters, one line (no control characters) */
    T_TEXT,             /* min..max characters, line breaks and tabs allowed */
    T_INT,              /* min..max */
    T_NUMBER,           /* min..max */
    T_BOOL,
    T_EMAIL,            /* folded to lower case before anybody looks at it: policies see one spelling */
    T_EMAIL_LIST,       /* min..max items, all different */
    T_STRING_LIST,      /* min..max items of 1..255 characters, all different */
    T_TIME,             /* RFC 3339 with an offset; milliseconds since 1970 in code */
    T_CHOICE,           /* one of .choices */
    T_JSON,             /* results only: any JSON */
    T_LIST,             /* results only: an array of objects */
};

enum { OPTIONAL = 1 };

struct field {
    const char *name;
    enum field_type type;
    int64_t min, max;               /* both 0: the type's own bounds (strings: 0..65535) */
    const char *doc;
    unsigned flags;                 /* OPTIONAL */
    const char *const *choices;     /* T_CHOICE: ends in NULL; write NAMES("a", "b") */
    const char *header;        /* mirrored as Mcp-Param-<header> by clients of the 2026-07-28 revision (x-mcp-header) */
};

#define FIELDS(...) ((const struct field[]){ __VA_ARGS__, { 0 } })
#define NAMES(...)  ((const char *const[]){ __VA_ARGS__, NULL })

/* ---- declaring: providers ---------------------------------------------------------------------------------------- */

/* Whom a limit counts for. */
enum limit_scope {
    PER_ACCOUNT = 1,    /* one mailbox, one workspace: (tenant, provider, account) */
    PER_TENANT,         /* everything of a tenant at this provider */
    PER_PROVIDER,       /* everything of this engine at this provider: the app's own limit */
    PER_METHOD,         /* an account's requests of one kind; counts only requests whose row names it */
    PER_RESOURCE,       /* what an account does to one channel, issue, ticket; likewise */
};

/* A limit of the provider, as its documents have it. All of it can be overridden in configuration by name: plans and
 * the age of a project change numbers, and some are only known by hearsay. */
struct limit {
    const char *name;           /* in configuration, metrics and errors: "mailbox_concurrency" */
    enum limit_scope scope;
    int64_t amount, window_ms;  /* amount units per window; 0: none */
    int64_t concurrency;        /* exchanges at once; 0: none */
    int64_t spacing_ms;         /* between one exchange and the next; 0: none */
    const char *unit;           /* NULL: requests, of which each is one. Else "points": a request has its row's cost */
    const char *told;           /* where answers tell what is left: "X-RateLimit", see docs/limits.md; NULL: nowhere */
    const char *source;         /* where the numbers are from: "documented 2026-05" */
};

#define LIMITS(...) ((const struct limit[]){ __VA_ARGS__, { 0 } })

/* Requests that cost something else than one unit, or that a limit PER_METHOD or PER_RESOURCE counts. The first row
 * that fits a request is its row. */
struct request_row {
    const char *request;        /* "POST /api/chat.postMessage"; {} stands for one segment, * at the end for any rest */
    int64_t cost;               /* 0: what the tool says, else 1 */
    const char *const *limits;  /* the limits PER_METHOD and PER_RESOURCE that count it */
    const char *resource;       /* PER_RESOURCE: the member of the body that names it; "{}": the path's first {} */
};

#define REQUESTS(...) ((const struct request_row[]){ __VA_ARGS__, { 0 } })

struct oauth {
    const char *authorize_path, *token_path, *revoke_path;  /* below auth_url */
    const char *auth_url;           /* default; configuration may replace it */
    bool basic_auth;                /* client credentials in an Authorization header, else in the body */
    bool rotates;                   /* a refresh invalidates the refresh token it used */
    const char *scope_separator;    /* NULL: space */
    const char *extra_authorize;    /* appended to the authorize query, e.g. "access_type=offline&prompt=consent" */
};

/* What an answer of the provider means for the exchange that got it. */
enum answer {
    ANSWER_DONE = 1,        /* it happened; the body is the result */
    ANSWER_REFUSED,         /* it did not happen and will not */
    ANSWER_CONFLICT,        /* it did not happen: the state is another than assumed, or the thing exists already */
    ANSWER_LIMITED,         /* it did not happen: come back after retry_after_ms (0: unknown) */
    ANSWER_AUTH,            /* it did not happen: the access token was not accepted */
    ANSWER_NOT_EXECUTED,    /* it did not happen, and the same request may be sent again */
    ANSWER_UNKNOWN,         /* it may have happened */
};

struct answer_info {
    int status;
    const struct json *body;                                /* NULL if the body is no JSON */
    const char *(*header)(const struct answer_info *, const char *name);    /* NULL if absent */
    /* out */
    int64_t retry_after_ms;
    char message[200];                                      /* for the model: the provider's own words, no secrets */
    const char *limit;                  /* ANSWER_LIMITED: the declared limit it is about. NULL: the narrowest that the
                                           request fell under (resource, method, account, tenant, provider) */
    /* the engine's */
    void *engine;
};

/* The usual reading of HTTP: 2xx done, 401 auth, 409/412 conflict, 429 limited (Retry-After), 503 with Retry-After not
 * executed, 303, 408 and every other 5xx but 501 and 505 unknown, the rest refused. A provider's own classify usually
 * ends in calling it. */
enum answer answer_by_status(struct answer_info *in);

/* For classify: copies a string of the body into the message; and compares one. */
void answer_message(struct answer_info *in, const struct json *body, const char *path);
/* For classify: sets retry_after_ms from a moment in any encoding a provider uses (seconds, a date of HTTP, RFC 3339,
 * seconds or milliseconds since 1970); false, and nothing set, if it is none. NULL is none. */
bool answer_retry_at(struct answer_info *in, const char *moment);
/* Likewise from the message, where a moment without blanks follows these words; other words may stand behind it. */
bool answer_retry_said(struct answer_info *in, const char *words);
bool answer_text_is(const struct json *string, const char *text);

struct provider {
    int api;                        /* SLUICE_CONNECTOR_API */
    const char *name, *title;
    const char *base_url;           /* default "https://host"; configuration may replace it */
    const char *const *hosts;       /* further hosts requests may name */
    const struct oauth *oauth;      /* NULL: only static tokens */
    const struct limit *limits;
    const struct request_row *requests;         /* NULL: every request costs what its tool says */
    const char *const *headers;     /* "Name: value" on every request, e.g. an API version */
    const char *resource;           /* type of what tools act on, when they name nothing finer: "Mailbox" */
    enum answer (*classify)(struct answer_info *in);        /* NULL: answer_by_status */
    bool fixture;                   /* for tests only: not available unless configuration names it */
    bool no_account;                /* tools of this provider need no connected account and make no exchanges */
};

#define PROVIDER(id, ...)                                                                                              \
    static const struct provider id##_provider = { .api = SLUICE_CONNECTOR_API, __VA_ARGS__ };                         \
    SLUICE_REGISTER(sluice_providers, const struct provider, id##_provider)

/* ---- declaring: tools -------------------------------------------------------------------------------------------- */

/* How a repeat of the effect is made harmless. */
enum once_kind {
    ONCE_ENGINE = 0,    /* the engine's own record is all there is */
    ONCE_CLIENT_ID,     /* the request carries call_key() where the provider refuses or absorbs a second one */
    ONCE_NATURAL,       /* doing it twice is the same as once */
};

struct once {
    enum once_kind kind;
    const char *where;          /* ONCE_CLIENT_ID: the field, for the docs */
};

#define ONCE_CLIENT_ID(where)   { ONCE_CLIENT_ID, where }
#define ONCE_NATURAL()          { ONCE_NATURAL, NULL }

enum settled { SETTLED_UNKNOWN, SETTLED_DONE, SETTLED_NOT_DONE };

struct tool_decl {
    const struct provider *provider;
    const char *name;               /* "outlook.book_meeting": provider and intent; [a-z0-9_.], at most 64 */
    const char *title;              /* for people; NULL: made from the name */
    const char *summary;            /* one sentence for the model */
    const struct field *args, *result;
    enum effect effect;
    struct once once;
    const char *const *scopes;      /* what the account's grant must carry */
    const char *resource;           /* the argument that names what is acted on, or the provider's resource type */
    int64_t cost;                   /* units of the provider's windows per exchange; 0: 1 */
    int64_t timeout_ms_max;         /* 0: 30,000 */
    const char *input_schema;       /* instead of args, when a schema must be given word for word */
    const char *output_schema;      /* likewise; NULL with result NULL: none */
    enum err (*run)(struct call *call);
    /* Called when the outcome is unknown: looks whether the effect happened. Only reads. May be NULL. */
    enum settled (*reconcile)(struct call *call);
};

#define TOOL(id, ...)                                                                                                  \
    static enum err id##_run(struct call *call);                                                                       \
    static const struct tool_decl id##_tool = { __VA_ARGS__, .run = id##_run };                                        \
    SLUICE_REGISTER(sluice_tools, const struct tool_decl, id##_tool)                                                   \
    static enum err id##_run(struct call *call)

/* Prompts, resources and completion, for connectors that have them. */
struct prompt_decl {
    const struct provider *provider;
    const char *name, *title, *summary;
    const struct field *args;                                       /* T_STRING only */
    enum err (*run)(struct call *call);                             /* content_...() calls make user messages */
    enum err (*complete)(struct call *call, const char *arg, const char *prefix);   /* completion_add(); may be NULL */
};

struct resource_decl {
    const struct provider *provider;
    const char *uri;                /* or, with is_template, a template with one {variable} per path segment */
    const char *name, *title, *summary, *mime;
    bool is_template;
    enum err (*read)(struct call *call, const char *uri);           /* content_resource_...() */
};

#define PROMPT(id, ...)                                                                                                \
    static enum err id##_run(struct call *call);                                                                       \
    static const struct prompt_decl id##_prompt = { __VA_ARGS__, .run = id##_run };                                    \
    SLUICE_REGISTER(sluice_prompts, const struct prompt_decl, id##_prompt)                                             \
    static enum err id##_run(struct call *call)

#define RESOURCE(id, ...)                                                                                              \
    static enum err id##_read(struct call *call, const char *uri);                                                     \
    static const struct resource_decl id##_resource = { __VA_ARGS__, .read = id##_read };                              \
    SLUICE_REGISTER(sluice_resources, const struct resource_decl, id##_resource)                                       \
    static enum err id##_read(struct call *call, const char *uri)

/* Declarations are found through linker sections of pointers. */
#define SLUICE_REGISTER(section_name, type, object)                                                                    \
    static type *const object##_entry __attribute__((used, retain, aligned(8), section(#section_name))) = &object;

/* ---- in a body: arguments ---------------------------------------------------------------------------------------- */

/* All arguments fit the declaration when the body runs. Absent optional ones: "", 0, false, NULL. */
bool arg_has(struct call *call, const char *name);
const char *arg_str(struct call *call, const char *name);
int64_t arg_int(struct call *call, const char *name);
double arg_number(struct call *call, const char *name);
bool arg_bool(struct call *call, const char *name);
int64_t arg_time(struct call *call, const char *name);              /* milliseconds since 1970 */
size_t arg_count(struct call *call, const char *name);              /* items of a list */
const char *arg_item(struct call *call, const char *name, size_t i);
struct json *arg(struct call *call, const char *name);              /* as it is */

/* The same for a repeat of the call with the same idempotency key, different for any other call: letters and digits, 26
 * characters. Put it where the provider recognises repeats. */
const char *call_key(struct call *call);
const char *call_account(struct call *call);                        /* the account's name: "alice@example.com" */
int64_t call_time(struct call *call);        /* when the call began, ms since 1970; the same in a repeat */

/* ---- in a body: JSON and text ------------------------------------------------------------------------------------ */

/* A member of what js_pick_each() makes, and where its value is in the item. */
struct pick {
    const char *name, *path;            /* the path as for js_get() */
    enum field_type type;               /* T_STRING: "" if absent or no string; T_INT: 0; T_BOOL: false */
};

struct picks {
    const struct pick *list;
    _Atomic(void *) ready;              /* the engine's: what is the same in all calls */
};

/* In a body, of constants. */
#define PICKS(...)                                                                                                     \
    ({                                                                                                                 \
        static const struct pick picks_list_[] = { __VA_ARGS__, { 0 } };                                               \
        static struct picks picks_ = { picks_list_, NULL };                                                            \
        &picks_;                                                                                                       \
    })

struct json *js_obj(struct call *call);
struct json *js_arr(struct call *call);
struct json *js_text(struct call *call, const char *s);
/* A value that is a part of something already, an argument or an answer, is copied. */
void js_set(struct call *call, struct json *obj, const char *key, struct json *value);
void js_set_str(struct call *call, struct json *obj, const char *key, const char *value);
/* A string of an answer or an argument as it is; "" if it is absent or no string. */
void js_copy_str(struct call *call, struct json *obj, const char *key, const struct json *value);
/* An array with an object for each item of an answer's list: the members named, picked from there. Names differ. */
struct json *js_pick_each(struct call *call, const struct json *list, struct picks *picks);
void js_set_int(struct call *call, struct json *obj, const char *key, int64_t value);
void js_set_bool(struct call *call, struct json *obj, const char *key, bool value);
void js_push(struct call *call, struct json *arr, struct json *value);
void js_push_str(struct call *call, struct json *arr, const char *value);
/* A JSON text as a value, for constants; a text that is no JSON is a fault of the connector. */
struct json *js_parse(struct call *call, const char *text);
const char *js_write(struct call *call, const struct json *v);      /* compact; "null" for NULL */

struct json *js_down(const struct json *obj, const char *path, size_t step);    /* js_get() from its first step on */
/* "a.b.c" goes down members. Inlined: a literal is looked through where it is compiled. */
static inline struct json *js_get(const struct json *obj, const char *path)
{
    return js_down(obj, path, strcspn(path, "."));
}
/* Takes a member out of an answer (NULL if there is none): it goes into a result or a request without being copied. */
struct json *js_take(struct json *obj, const char *key);
struct json *js_at(const struct json *arr, size_t i);
size_t js_len(const struct json *v);                                /* items or members; 0 for anything else */
const char *js_str(struct call *call, const struct json *obj, const char *path);     /* "" if absent or no string */
int64_t js_int(const struct json *obj, const char *path, int64_t otherwise);
bool js_bool(const struct json *obj, const char *path);             /* false if absent */
/* For arrays: `for (struct json *it = js_first(list); it; it = js_next(it))`. */
struct json *js_first(const struct json *arr);
struct json *js_next(const struct json *item);

/* Zeroed bytes that live until the call ends; NULL when the call has no memory left. */
void *call_memory(struct call *call, size_t n);
/* Text that lives until the call ends. */
const char *text(struct call *call, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
const char *text_int(struct call *call, int64_t v);                 /* "42" */
const char *text_time(struct call *call, int64_t ms);               /* RFC 3339, UTC, whole seconds */
int64_t time_of_text(const char *rfc3339);                          /* -1 if it is none */
const char *text_base64url(struct call *call, const char *s);       /* with padding left off */
const char *text_base64_lines(struct call *call, const char *s);      /* MIME: lines of 76 characters, CRLF */
const char *text_of_base64url(struct call *call, const char *s);    /* "" if it is none */
bool text_equal_folded(const char *a, const char *b);               /* ASCII case folded */
bool text_contains(const char *text, const char *words);            /* letter by letter */
bool text_starts(const char *text, const char *words);

/* ---- in a body: exchanges ---------------------------------------------------------------------------------------- */

/* A path from a pattern: each {} is replaced by the next argument, percent-encoded so that it stays one segment
 * (RFC 3986). The list ends in NULL: path(call, "/repos/{}/{}/issues", owner, repo, NULL). NULL, which the exchange
 * then refuses, if a piece is empty, "." or "..", or the whole is too long. */
const char *path(struct call *call, const char *pattern, ...) __attribute__((sentinel));
/* Appends ?name=value&... with everything percent-encoded; the list ends in NULL. NULL or "" values are left out. */
const char *query(struct call *call, const char *path, ...) __attribute__((sentinel));

/* Requests that only read: sent again when that is sensible. */
enum err await_get(struct call *call, struct json **ret, const char *path);
enum err await_query(struct call *call, struct json **ret, const char *path, struct json *body);   /* POST that reads */
enum err await_query_form(struct call *call, struct json **ret, const char *path, struct json *fields);

/* Requests that change something. Only in tools whose effect is not EFFECT_READS. Sent again only when the provider is
 * known not to have executed them. *ret may be NULL afterwards when the answer has no body. */
enum err await_post(struct call *call, struct json **ret, const char *path, struct json *body);
enum err await_patch(struct call *call, struct json **ret, const char *path, struct json *body);
enum err await_put(struct call *call, struct json **ret, const char *path, struct json *body);
enum err await_delete(struct call *call, struct json **ret, const char *path);

/* Status of the last answer, 0 if there was none. */
int last_status(struct call *call);

/* ---- in a body: the result --------------------------------------------------------------------------------------- */

void result_str(struct call *call, const char *name, const char *value);
void result_int(struct call *call, const char *name, int64_t value);
void result_bool(struct call *call, const char *name, bool value);
void result_time(struct call *call, const char *name, int64_t ms);
void result_json(struct call *call, const char *name, struct json *value);

/* Text a body keeps for its own reconcile: which draft, which slot. "" if nothing was kept under the name. */
void keep_str(struct call *call, const char *name, const char *value);
const char *kept_str(struct call *call, const char *name);

/* Ends the call with an error of errors.def and words for the model:
 * `return fail(call, E_NO_RESULT, "no such channel");` */
enum err fail(struct call *call, enum err e, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* Content instead of, or beside, the structured result. */
void content_text(struct call *call, const char *text);
void content_image(struct call *call, const char *mime, const char *base64);
void content_audio(struct call *call, const char *mime, const char *base64);
void content_resource_text(struct call *call, const char *uri, const char *mime, const char *text);
void content_resource_blob(struct call *call, const char *uri, const char *mime, const char *base64);
void completion_add(struct call *call, const char *value);
const char *prompt_arg(struct call *call, const char *name);        /* "" if absent */

/* ---- in a body: talking while it runs ---------------------------------------------------------------------------- */

/* Told to the client if it asked for progress; done must grow. May wait for the client to take it. */
enum err await_progress(struct call *call, double done, double total, const char *message);
/* level: "debug", "info", "warning", "error". Told only to clients that asked for log messages. */
enum err await_log(struct call *call, const char *level, const char *message);
enum err await_pause(struct call *call, int64_t ms);

/* Asking the client's user, model or host, before anything has been changed: name all questions, then await_answers().
 * Where the client's revision of the protocol is stateless the body runs again from its beginning once answers came, so
 * answers are looked up by key and what must be kept between rounds goes into state_set(). Each run names its
 * questions, also those that are answered by now: answers that do not fit are refused then. */
void ask_form(struct call *call, const char *key, const char *message, const char *schema);
void ask_model(struct call *call, const char *key, struct json *sampling_params);
void ask_roots(struct call *call, const char *key);
enum err await_answers(struct call *call);   /* OK: all are there; E_INPUT_REQUIRED, E_CAPABILITY_MISSING: pass it on */
struct json *answer(struct call *call, const char *key);            /* the bare result; NULL if not answered (yet) */
bool client_can(struct call *call, const char *capability);         /* "elicitation", "sampling", "roots" */
void state_set(struct call *call, struct json *value);              /* travels sealed through the client */
struct json *state_get(struct call *call);

/* Tells listening clients that a list changed. */
void announce_tools_changed(struct call *call);
void announce_prompts_changed(struct call *call);

#endif
