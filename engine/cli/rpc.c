/* rpc.c -- messages of MCP 2026-07-28 to a running engine, and what its answers mean */
#include <stdio.h>

#include "cli/link.h"
#include "cli/mirror.h"
#include "cli/sse.h"

#define META "io.modelcontextprotocol/"

enum { PAGES_MAX = 1000 };

/* ---- asking ------------------------------------------------------------------------------------------------------ */

struct json *rpc_message(struct link *l, struct arena *a, const char *method, struct json *params)
{
    struct json *m = json_object(a), *meta = json_object(a), *info = json_object(a);

    if (!params)
        params = json_object(a);
    for (struct json *given = json_first(json_get(params, "_meta")); given; given = json_next(given))
        json_set_key(a, meta, json_key(given), given);
    json_set_z(a, meta, META "protocolVersion", "2026-07-28");
    json_set(a, meta, META "clientCapabilities", json_object(a));
    json_set_z(a, info, "name", "sluice-cli");
    json_set_z(a, info, "version", SLUICE_VERSION);
    json_set(a, meta, META "clientInfo", info);
    json_set(a, params, "_meta", meta);
    json_set_z(a, m, "jsonrpc", "2.0");
    json_set_int(a, m, "id", l->next_id++);
    json_set_z(a, m, "method", method);
    json_set(a, m, "params", params);
    return m;
}

void rpc_spec(struct link *l, struct arena *a, const struct json *message, const struct json *schema,
              struct client_spec *ret)
{
    const char **headers = ARENA_ARRAY(a, const char *, CLIENT_HEADERS_MAX);
    struct buf body = BUF_INIT(16 << 20);
    struct mirror mirror;
    size_t n = 0;

    mirror_message(a, message, schema, &mirror);
    json_write(&body, message);
    *ret = (struct client_spec){
        .method = "POST", .url = l->url, .headers = headers, .body = arena_str(a, buf_str(&body))
    };
    buf_release(&body);
    if (!headers)
        return;
    headers[n++] = "Content-Type: application/json";
    headers[n++] = "Accept: application/json, text/event-stream";
    if (l->authorization)
        headers[n++] = l->authorization;
    for (size_t i = 0; i < mirror.n; i++)
        headers[n++] = mirror.headers[i];
    ret->n_headers = n;
    ret->once = str_is(json_str(json_get(message, "method")), "tools/call");
}

/* ---- the answer -------------------------------------------------------------------------------------------------- */

struct find {
    struct arena *a;
    const struct json *id;
    struct json *answer;
};

static bool is_answer(const struct json *j, const struct json *id)
{
    if (!json_get(j, "result") && !json_get(j, "error"))
        return false;
    return !json_get(j, "id") || json_equal(json_get(j, "id"), id);      /* an error may come before the id is known */
}

static bool on_event(struct str data, void *arg)
{
    struct find *f = arg;
    struct json_error where;
    struct json *j = NULL;

    if (json_parse(f->a, arena_str(f->a, data), NULL, &j, &where) == OK && is_answer(j, f->id))
        f->answer = j;
    return true;
}

enum err rpc_read(struct arena *a, const struct client_reply *http, const struct json *message, struct rpc_reply *ret,
                  struct errinfo *info)
{
    struct find f = { .a = a, .id = json_get(message, "id") };
    struct str body = buf_str(&http->body);
    struct sse sse;

    *ret = (struct rpc_reply){ .status = http->status };
    if (http->event_stream) {
        sse_init(&sse);
        sse_feed(&sse, body, on_event, &f);
        sse_release(&sse);
    } else {
        on_event(body, &f);
    }
    if (!f.answer)
        return err_set(info, E_UPSTREAM_GARBLED,
                       "HTTP status %d without an answer in MCP: is this the endpoint of an engine?", http->status);
    ret->result = json_get(f.answer, "result");
    ret->error = json_get(f.answer, "error");
    return OK;
}

enum err rpc_ask(struct link *l, struct arena *a, const struct json *message, const struct json *schema,
                 struct rpc_reply *ret, struct errinfo *info)
{
    struct client_reply http = { 0 };
    struct client_spec spec;
    enum err e;

    rpc_spec(l, a, message, schema, &spec);
    e = client_do(l->client, &spec, &http, info);
    *ret = (struct rpc_reply){ .unsent = http.unsent };
    if (!e)
        e = rpc_read(a, &http, message, ret, info);
    client_reply_release(&http);
    return e;
}

/* ---- what it means ----------------------------------------------------------------------------------------------- */

struct str rpc_note(const struct rpc_reply *r, const char *key)
{
    return json_str(json_get(r->result ? json_get(r->result, "_meta") : json_get(r->error, "data"), key));
}

static enum outcome outcome_named(struct str name)
{
    for (enum outcome o = OUTCOME_DONE; o <= OUTCOME_UNKNOWN; o++)
        if (str_is(name, outcome_name(o)))
            return o;
    return OUTCOME_NONE;
}

static enum outcome outcome_of_error(struct str name)
{
    for (int e = OK + 1; e < ERR_COUNT; e++)
        if (str_is(name, err_name((enum err)e)))
            return err_row((enum err)e)->outcome;
    return OUTCOME_NONE;
}

static struct str text_of(const struct json *result)
{
    for (const struct json *c = json_first(json_get(result, "content")); c; c = json_next(c))
        if (json_is(json_get(c, "text"), JSON_STRING))
            return json_str(json_get(c, "text"));
    return STR_NULL;
}

enum outcome rpc_outcome(struct arena *a, const struct rpc_reply *r, struct str *ret_why)
{
    enum outcome o;
    bool failed = false;

    *ret_why = STR_NULL;
    if (r->result) {
        json_bool(json_get(r->result, "isError"), &failed);
        if (failed)
            *ret_why = text_of(r->result);
        if (str_is(json_str(json_get(r->result, "resultType")), "input_required")) {
            *ret_why = STR("the tool asks for more input, which needs a client that can answer");
            return OUTCOME_REFUSED;
        }
        o = outcome_named(rpc_note(r, "dev.sluice/outcome"));
        return o != OUTCOME_NONE ? o : failed ? OUTCOME_FAILED : OUTCOME_DONE;
    }
    *ret_why = arena_printf(a, "%.*s (HTTP %d)", STR_ARG(json_str(json_get(r->error, "message"))), r->status);
    o = outcome_of_error(rpc_note(r, "dev.sluice/error"));
    return o != OUTCOME_NONE ? o : r->status >= 500 ? OUTCOME_UNKNOWN : OUTCOME_REFUSED;
}

int exit_code_of(enum outcome o)
{
    switch (o) {
    case OUTCOME_DONE:
        return EXIT_DONE;
    case OUTCOME_REFUSED:
        return EXIT_REFUSED;
    case OUTCOME_FAILED:
        return EXIT_FAILED;
    default:
        return EXIT_UNKNOWN;
    }
}

/* ---- tools ------------------------------------------------------------------------------------------------------- */

int link_tools(const struct verb *v, struct link *l, struct arena *a, struct json **ret)
{
    struct json *all = json_array(a), *params = NULL;
    struct errinfo info = { "" };

    for (int page = 0; page < PAGES_MAX; page++) {
        struct json *message = rpc_message(l, a, "tools/list", params);
        struct rpc_reply r;
        struct str why, cursor;

        if (rpc_ask(l, a, message, NULL, &r, &info))
            return complain(v, EXIT_UNABLE, "the engine could not be asked: %s%s", info.text,
                            r.unsent ? "; is it running?" : "");
        if (!r.result) {
            rpc_outcome(a, &r, &why);
            return complain(v, EXIT_REFUSED, "%.*s%s", STR_ARG(why),
                            r.status == 401 && !l->authorization ? ": say who asks with --as USER, or bring a token"
                                                                 : "");
        }
        for (struct json *t = json_first(json_get(r.result, "tools")); t; t = json_next(t))
            json_push(a, all, t);
        cursor = json_str(json_get(r.result, "nextCursor"));
        if (cursor.len == 0)
            break;
        params = json_object(a);
        json_set_str(a, params, "cursor", cursor);
    }
    *ret = all;
    return 0;
}

const struct json *tool_named(const struct json *tools, struct str name)
{
    for (const struct json *t = json_first(tools); t; t = json_next(t))
        if (str_eq(json_str(json_get(t, "name")), name))
            return t;
    return NULL;
}
