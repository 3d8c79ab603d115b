/*
 * reply.c -- REPLY: what a call came to, in the era of whoever asked
 *
 *   modern    every result has resultType and _meta with serverInfo; lists and documents also say how to cache them
 *   legacy    none of these; ping and its like answer exactly {}
 *
 * Errors of errors.def: with an rpc code of 0 they are a result of the tool (isError) that a model may read, else a
 * JSON-RPC error.  Statuses are the table's; a legacy client, and a modern one whose params its method did not like,
 * gets errors of a well-formed request as 200.  Codes -32020 to -32099 never go to a legacy client.
 */
#include <stdio.h>

#include "mcp/internal.h"

enum { TEXT_TYPICAL = 2048, MESSAGE_TYPICAL = 4095 - HTTP_HEAD_ROOM }; /* asked of malloc first */

/* ---- pieces ------------------------------------------------------------------------------------------------------ */

/* A member's key, with the comma before it unless it is its object's first. */
static void add_key_str(struct buf *b, struct str key)
{
    if (b->p[b->len - 1] != '{')
        buf_add_c(b, ',');
    buf_add_json_str(b, key);
    buf_add_c(b, ':');
}

/* The same of a literal that needs no escape, comma and colon in one piece. */
#define add_key(b, key) add_ready_key((b), STR(",\"" key "\":"))
static inline void add_ready_key(struct buf *b, struct str text)
{
    size_t first = b->p[b->len - 1] == '{';

    buf_add(b, text.p + first, text.len - first);
}
#define add_text(b, key, value) (add_key((b), key), buf_add_json_str((b), (value)))

static void add_members(struct buf *b, const struct json *obj)
{
    for (const struct json *it = json_first(obj); it; it = json_next(it)) {
        add_key_str(b, json_key(it));
        json_write(b, it);
    }
}

static struct str said(const struct call *c)
{
    return str_of(*call_said(c) ? call_said(c) : err_text(c->err));
}

/* {"jsonrpc":"2.0","id":<id>, -- an id that is not known is left out, never null. */
static void begin_message(struct buf *b, const struct call *c)
{
    buf_add_z(b, "{\"jsonrpc\":\"2.0\"");
    if (c->rpc_id) {
        buf_add_z(b, ",\"id\":");
        json_write(b, c->rpc_id);
    }
}

/* What every modern result ends with. */
static void end_modern(struct buf *b, const char *type)
{
    add_text(b, "resultType", str_of(type));
}

static void add_server_info(struct buf *b, struct turn *t)
{
    add_key(b, META_SERVER_INFO);
    buf_add_str(b, t->wire->mcp->server_info);
}

static void add_server_meta(struct buf *b, struct turn *t)
{
    add_key(b, "_meta");
    buf_add_c(b, '{');
    add_server_info(b, t);
    buf_add_c(b, '}');
}

/* ---- results ----------------------------------------------------------------------------------------------------- */

static void add_call_meta(struct buf *b, struct call *c, struct turn *t)
{
    add_key(b, "_meta");
    buf_add_c(b, '{');
    add_text(b, "dev.sluice/call", str_of(c->id.z));
    add_text(b, "dev.sluice/outcome", str_of(outcome_name(c->outcome)));
    if (c->err)
        add_text(b, "dev.sluice/error", str_of(err_name(c->err)));
    if (c->err && err_row(c->err)->retry == RETRY_AFTER && c->retry_after_ms > 0) {
        add_key(b, "dev.sluice/retryAfterMs");
        buf_add_i64(b, c->retry_after_ms);
    }
    if (c->replay_of[0])
        add_text(b, "dev.sluice/replayOf", str_of(c->replay_of));
    if (t->msg.era == ERA_MODERN)
        add_server_info(b, t);
    buf_add_c(b, '}');
}

/* The blocks the body made; else the structured result as text, for models behind clients that know no other. What is
 * structured is in `structured` then, too. */
static void add_content(struct buf *b, struct call *c, struct buf *structured)
{
    add_key(b, "content");
    if (c->structured)
        buf_reserve(structured, TEXT_TYPICAL);
    if (json_len(c->content)) {
        json_write(b, c->content);
        if (c->structured)
            json_write(structured, c->structured);
    } else if (c->structured) {
        buf_add_str(b, STR("[{\"type\":\"text\",\"text\":\""));
        json_write_twice(structured, b, c->structured);
        buf_add_str(b, STR("\"}]"));
    } else {
        buf_add_str(b, STR("[]"));
    }
}

static void add_tool_result(struct buf *b, struct call *c, struct turn *t)
{
    struct buf structured = BUF_INIT(CALL_ARENA_MAX);       /* written once, said twice */

    add_content(b, c, &structured);
    if (c->structured && t->msg.revision >= REV_2025_06_18 &&
        (t->msg.era == ERA_MODERN || json_is(c->structured, JSON_OBJECT))) {
        add_key(b, "structuredContent");
        buf_add_str(b, buf_str(&structured));
    }
    b->overflow = b->overflow || structured.overflow;
    buf_release(&structured);
    add_call_meta(b, c, t);
    if (t->msg.era == ERA_MODERN)
        end_modern(b, "complete");
}

static void add_tool_error(struct buf *b, struct call *c, struct turn *t)
{
    add_key(b, "content");
    buf_add_z(b, "[{\"type\":\"text\",\"text\":");
    buf_add_json_str(b, said(c));
    buf_add_z(b, "}],\"isError\":true");
    add_call_meta(b, c, t);
    if (t->msg.era == ERA_MODERN)
        end_modern(b, "complete");
}

static void add_answer(struct buf *b, struct call *c, struct turn *t)
{
    add_members(b, c->answer);
    if (t->msg.era == ERA_LEGACY)
        return;
    if (t->method->flags & CACHEABLE) { /* what a caller sees depends on who it is, and may change at any time */
        add_key(b, "ttlMs");
        buf_add_c(b, '0');
        add_text(b, "cacheScope", STR("private"));
    }
    add_server_meta(b, t);
    end_modern(b, "complete");
}

static void add_questions(struct buf *b, struct call *c, struct turn *t)
{
    add_key(b, "inputRequests");
    json_write(b, c->questions);
    add_text(b, "requestState", t->sealed);
    if (c->kind == CALL_TOOL)
        add_call_meta(b, c, t);
    else
        add_server_meta(b, t);
    end_modern(b, "input_required");
}

/* ---- errors ------------------------------------------------------------------------------------------------------ */

static bool is_tool_error(const struct call *c, const struct turn *t)
{
    if (c->kind != CALL_TOOL)
        return false;
    return err_row(c->err)->rpc == 0 || (t->msg.era == ERA_LEGACY && c->err == E_CAPABILITY_MISSING);
}

static int code_of(const struct call *c, const struct turn *t)
{
    const struct err_row *row = err_row(c->err);

    /* not of a tool: a prompt that is not permitted, a resource whose provider is down */
    if (row->rpc == 0)
        return row->class == ERR_CALLER || row->class == ERR_POLICY ? -32602 : -32603;
    if (t->msg.era == ERA_MODERN)
        return row->rpc;
    if (c->err == E_RESOURCE_UNKNOWN)
        return -32002;
    return row->rpc <= -32020 && row->rpc >= -32099 ? -32600 : row->rpc;
}

static int status_of(const struct call *c, const struct turn *t)
{
    int status = err_row(c->err)->http;

    if (t->conflict)
        return 409;
    if (t->msg.kind != MESSAGE_REQUEST)
        return status == 200 ? 400 : status;
    if (t->msg.era == ERA_MODERN)
        return c->err == E_RPC_PARAMS && c->answering ? 200 : status;
    switch (c->err) {
    case E_RPC_METHOD_UNKNOWN:
    case E_RPC_PARAMS:
    case E_CAPABILITY_MISSING:
    case E_INTERNAL:
        return 200;
    default:
        return status;
    }
}

static void add_error(struct buf *b, struct call *c, struct turn *t)
{
    buf_addf(b, ",\"error\":{\"code\":%d,\"message\":", code_of(c, t));
    buf_add_json_str(b, said(c));
    buf_add_z(b, ",\"data\":{");
    if (!arena_overflowed(&c->arena))
        add_members(b, c->error_data);
    add_text(b, "dev.sluice/call", str_of(c->id.z));
    add_text(b, "dev.sluice/error", str_of(err_name(c->err)));
    buf_add_z(b, "}}");
}

/* ---- the message ------------------------------------------------------------------------------------------------- */

static void write_message(struct buf *b, struct call *c, struct turn *t)
{
    begin_message(b, c);
    if (c->err && !(c->err == E_INPUT_REQUIRED && t->sealed.p) && !is_tool_error(c, t)) {
        add_error(b, c, t);
        buf_add_c(b, '}');
        return;
    }
    buf_add_z(b, ",\"result\":{");
    if (c->err == E_INPUT_REQUIRED && t->sealed.p)
        add_questions(b, c, t);
    else if (c->err)
        add_tool_error(b, c, t);
    else if (c->kind == CALL_TOOL)
        add_tool_result(b, c, t);
    else
        add_answer(b, c, t);
    buf_add_z(b, "}}");
}

/* A message that is too large to be sent is replaced by the news of that; what happened is in its _meta all the
 * same. */
static void write_fitting(struct buf *b, struct call *c, struct turn *t)
{
    http_body_begin(b, MESSAGE_TYPICAL);
    write_message(b, c, t);
    if (!b->overflow)
        return;
    http_body_begin(b, 0);
    c->content = c->structured = c->answer = NULL;
    c->err = E_CALL_TOO_LARGE;
    call_why(c, c->err, c->outcome == OUTCOME_DONE ? "it is done, but its result is too large to be sent" :
             "the answer is too large to be sent");
    write_message(b, c, t);
}

/* Whether this is said at all is decided when it can be. */
void mcp_word(struct call *c)
{
    struct turn *t = turn_of(c);

    buf_release(&t->words);
    t->words = BUF_INIT(HTTP_BODY_MAX);
    write_fitting(&t->words, c, t);
}

/* ---- headers ----------------------------------------------------------------------------------------------------- */

struct extras {
    struct http_header list[4];
    unsigned n;
    struct buf challenge;
    char retry[24];
};

static void extra(struct extras *x, struct str name, struct str value)
{
    x->list[x->n++] = (struct http_header){ name, value };
}

static void extras_make(struct extras *x, struct call *c, struct turn *t, int status)
{
    struct wire *w = t->wire;
    struct buf url = BUF_INIT(4096);

    *x = (struct extras){ .challenge = BUF_INIT(16 * 1024) };
    if (status == 401 || c->err == E_SCOPE_INSUFFICIENT) {
        guard_metadata_url(w->mcp, w->rq, &url);
        identity_challenge(&x->challenge, c->err, buf_str(&url), w->mcp->scope_line);
        extra(x, STR("WWW-Authenticate"), buf_str(&x->challenge));
        buf_release(&url);
    }
    if (status == 405)
        extra(x, STR("Allow"), t->kind == TURN_POST ? STR("POST, GET, DELETE, OPTIONS") : STR("POST"));
    if (status == 503) {
        long long seconds = c->retry_after_ms > 1000 ? (c->retry_after_ms + 999) / 1000 : 1;

        snprintf(x->retry, sizeof(x->retry), "%lld", seconds);
        extra(x, STR("Retry-After"), str_of(x->retry));
    }
    if (t->minted && !c->err)
        extra(x, STR("Mcp-Session-Id"), str_of(t->session->id.z));
}

/* ---- reply ------------------------------------------------------------------------------------------------------- */

static void await_message(struct call *c, struct turn *t)
{
    int status = c->err && !is_tool_error(c, t) ? status_of(c, t) : 200;
    UNSET struct extras x;

    if (!t->words.len)
        mcp_word(c);
    if (t->batch) {
        if (t->msg.kind == MESSAGE_REQUEST || (c->err && t->msg.kind == MESSAGE_NONE))
            batch_add(t->batch, http_body_text(&t->words));
    } else {
        extras_make(&x, c, t, status);
        if (c->err == E_OVERLOADED && c->worker->overload.overloaded)     /* else saying no costs little */
            http_rest(t->wire->rq, loop_now() + c->retry_after_ms * NS_PER_MS);
        await_wire_reply(t->wire, status, x.list, x.n, &t->words);
        buf_release(&x.challenge);
    }
}

/* There is nothing to say but that it arrived. */
static void await_nothing(struct turn *t, int status)
{
    if (!t->batch)
        await_wire_reply(t->wire, status, NULL, 0, NULL);
}

static void await_kind(struct call *c, struct turn *t)
{
    bool heard = !c->err && (t->kind == TURN_GET || (t->method && t->method->await_answer == answer_listen));

    if (t->inflight.cancelled) {        /* by its client, which wants no answer any more */
        task_shield(+1);
        await_nothing(t, 202);
        task_shield(-1);
    } else if (heard) {
        await_listen(c, t);
    } else if (c->err || t->msg.kind == MESSAGE_REQUEST) {
        await_message(c, t);
    } else {
        await_nothing(t, t->kind == TURN_DELETE ? 204 : 202);
    }
}

void await_mcp_reply(struct call *c)
{
    struct turn *t = turn_of(c);

    if (t->session)
        session_inflight_del(t->wire->mcp->sessions, t->session, &t->inflight);
    if (!t->batch)
        await_wire_quiet(t->wire);
    await_kind(c, t);
    buf_release(&t->words);
    if (t->streams)
        session_stream_give(t->wire->mcp->sessions, t->session);
    if (t->minted && c->err)
        session_end(t->wire->mcp->sessions, t->session);
    session_release(t->session);
    t->session = NULL;
}
