/*
 * decode.c -- DECODE and IDENTIFY: from a request's bytes to a call whose sender is known
 *
 * Order of refusals: Host and Origin; then who asks; then everything about the message.  So decoding happens first (it
 * costs nothing to anybody but us, and a malformed message belongs in the journal with its sender), but what it found
 * wrong is kept in turn->fault until the sender is known.  A sender that is not known learns only that.
 *
 *   Host, Origin        403              HTTP method         405
 *   token               401, 403, 503    Accept              406
 *                                        Content-Type        415
 *                                        JSON                400 -32700
 *                                        era.c, then method, Mcp-Name, Mcp-Param-*, params
 *                                        session             404
 *                                        requestState        -32602
 */
#include <stdio.h>

#include "base/log.h"
#include "mcp/internal.h"

/* ---- HTTP -------------------------------------------------------------------------------------------------------- */

/* Does the request name a modern revision? Those know no GET and no DELETE. */
static bool names_modern(const struct http_request *rq)
{
    struct str version;

    return http_header(rq, "mcp-protocol-version", &version) > 0 && revision_modern(version);
}

static enum err http_fits(struct call *c, struct turn *t)
{
    struct wire *w = t->wire;
    struct str method = http_method(w->rq), id;

    if (t->kind != TURN_POST) {
        c->method = t->kind == TURN_GET ? STR("session/stream") : STR("session/end");
        if (names_modern(w->rq) || http_header(w->rq, "mcp-session-id", &id) != 1)
            return call_why(c, E_HTTP_METHOD, "messages are sent by POST; GET and DELETE need the id of a session");
        if (t->kind == TURN_GET && !w->sse_ok)
            return E_HTTP_NOT_ACCEPTABLE;
        if (t->kind == TURN_GET)
            http_cancel_on_disconnect(w->rq, true);
        return OK;
    }
    if (!str_is(method, "POST"))
        return E_HTTP_METHOD;
    if (!w->json_ok && !w->sse_ok)
        return E_HTTP_NOT_ACCEPTABLE;
    return body_is_json(http_request_head(w->rq)) ? OK : E_HTTP_MEDIA_TYPE;
}

static enum err parse(struct call *c, struct turn *t, struct json **ret)
{
    struct json_error where;
    enum err e;

    if (t->refusal)
        return call_why(c, E_RPC_INVALID, "%s", t->refusal);
    if (t->given) {
        *ret = t->given;
        return OK;
    }
    e = json_parse(&c->arena, http_body(t->wire->rq), NULL, ret, &where);
    if (e == E_CALL_TOO_LARGE)
        return call_why(c, E_HTTP_TOO_LARGE, "the message has more in it than one call is allowed");
    if (e)
        return call_why(c, E_JSON_MALFORMED, "line %u, column %u: %s", where.line, where.column, where.message);
    return OK;
}

/* ---- params ------------------------------------------------------------------------------------------------------ */

static enum err take_key(struct call *c, struct turn *t)
{
    const struct json *own = json_get(t->msg.meta, "dev.sluice/idempotencyKey");
    struct str header, key = json_str(own);
    unsigned n = http_header(t->wire->rq, "idempotency-key", &header);

    if (own && (key.len == 0 || key.len > CALL_KEY_MAX))
        return call_why(c, E_RPC_PARAMS, "_meta[\"dev.sluice/idempotencyKey\"] must be a string of 1 to %d bytes",
                        CALL_KEY_MAX);
    if (n == 0) {
        c->key = key;
        return OK;
    }
    if (t->batch)
        return call_why(c, E_RPC_PARAMS, "in a batch each call names its key in _meta[\"dev.sluice/idempotencyKey\"]");
    if (n > 1 || header.len == 0 || header.len > CALL_KEY_MAX)
        return call_why(c, E_RPC_PARAMS, "Idempotency-Key must be one value of 1 to %d bytes", CALL_KEY_MAX);
    if (!str_utf8_valid(header))        /* the journal, which the key comes back from after a restart, has no other */
        return call_why(c, E_RPC_PARAMS, "Idempotency-Key must be UTF-8");
    if (own && !str_eq(key, header))
        return call_why(c, E_RPC_PARAMS, "Idempotency-Key and _meta[\"dev.sluice/idempotencyKey\"] differ");
    c->key = header;
    return OK;
}

static enum err take_meta(struct call *c, struct turn *t)
{
    struct json *token = json_get(t->msg.meta, "progressToken"), *wish = json_get(t->msg.meta, "dev.sluice/timeoutMs");
    struct json *level = json_get(t->msg.meta, META_LOG_LEVEL);
    int64_t n;

    if (token && !json_is(token, JSON_STRING) && !json_int(token, &n))
        return call_why(c, E_RPC_PARAMS, "_meta.progressToken must be a string or an integer");
    t->progress_token = token;
    if (wish && (!json_int(wish, &c->timeout_ms) || c->timeout_ms < 1))
        return call_why(c, E_RPC_PARAMS, "_meta[\"dev.sluice/timeoutMs\"] must be a positive integer");
    if (t->msg.era == ERA_LEGACY) {
        t->log_level = log_rank(STR("info"));       /* until the session says otherwise */
    } else if (level) {
        t->log_level = log_rank(json_str(level));
        if (t->log_level < 0)
            return call_why(c, E_RPC_PARAMS, "_meta[\"" META_LOG_LEVEL "\"] is no level");
    }
    return OK;
}

static enum err take_rounds(struct call *c, struct turn *t)
{
    struct json *state = json_get(t->msg.params, "requestState");
    struct json *responses = json_get(t->msg.params, "inputResponses");

    if (t->msg.era != ERA_MODERN)
        return OK;
    if (state && !json_is(state, JSON_STRING))
        return call_why(c, E_RPC_PARAMS, "requestState must be a string");
    if (responses && !json_is(responses, JSON_OBJECT))
        return call_why(c, E_RPC_PARAMS, "inputResponses must be an object");
    for (const struct json *it = json_first(responses); it; it = json_next(it))
        if (!json_is(it, JSON_OBJECT))
            return call_why(c, E_RPC_PARAMS, "each of inputResponses must be an object");
    t->request_state = json_str(state);
    t->responses = responses;
    return OK;
}

static enum err take_tool_call(struct call *c, struct turn *t)
{
    struct json *args = json_get(t->msg.params, "arguments");
    enum err e = OK;

    if (args && !json_is(args, JSON_OBJECT))
        return call_why(c, E_RPC_PARAMS, "arguments must be an object");
    c->args = args;
    e = take_key(c, t);
    if (!e)
        c->kind = CALL_TOOL;
    return e;
}

/* What the method repeats in headers; only a modern client does. */
static enum err check_mirrors(struct call *c, struct turn *t)
{
    const struct http_head *head = http_request_head(t->wire->rq);
    enum err e;

    if (t->msg.era != ERA_MODERN || !t->method->mirror)
        return OK;
    e = mirror_fits(&c->arena, head, "mcp-name", t->param_name, call_info(c));
    if (e || t->method->await_answer)
        return e;
    c->named = registry_tool(c->registry, t->param_name);
    if (!c->named || !c->named->mirrors)
        return OK;
    return mirror_params(&c->arena, head, c->named->input_tree, json_get(t->msg.params, "arguments"), call_info(c));
}

static enum err request_fits(struct call *c, struct turn *t)
{
    enum err e;

    t->method = method_find(t->msg.method, t->msg.era, c->registry);
    if (t->method && t->method->mirror) {
        t->param_name = json_str(json_get(t->msg.params, t->method->mirror));
        c->tool_name = t->method->await_answer ? STR_NULL : t->param_name;
    }
    if (!t->method)
        return call_why(c, E_RPC_METHOD_UNKNOWN, "method not found: %.*s", STR_ARG(c->method));
    e = check_mirrors(c, t);
    if (e)
        return e;
    if (t->method->mirror && (!t->param_name.len || memchr(t->param_name.p, 0, t->param_name.len)))
        return call_why(c, E_RPC_PARAMS, "params.%s must be a string", t->method->mirror);
    if (t->batch && str_is(t->msg.method, "initialize"))
        return call_why(c, E_RPC_INVALID, "initialize must not be in a batch");
    e = take_meta(c, t);
    if (!e && (t->method->flags & ASKS))
        e = take_rounds(c, t);
    if (!e && !t->method->await_answer)
        e = take_tool_call(c, t);
    return e;
}

static enum err decode_all(struct call *c, struct turn *t)
{
    struct json *root = NULL;
    enum err e = http_fits(c, t);

    if (e || t->kind != TURN_POST)
        return e;
    e = parse(c, t, &root);
    if (e)
        return e;
    e = message_classify(root, http_request_head(t->wire->rq), &t->msg, call_info(c));
    c->rpc_id = t->msg.id;
    c->method = t->msg.method.len > METHOD_SHOWN_MAX ? str_n(t->msg.method.p, METHOD_SHOWN_MAX) : t->msg.method;
    if (t->msg.kind == MESSAGE_RESPONSE)
        c->method = STR("response");
    if (e == E_VERSION_UNSUPPORTED && t->msg.era == ERA_MODERN) {
        c->error_data = json_object(&c->arena);
        json_set(&c->arena, c->error_data, "supported", json_raw(&c->arena, STR("[\"2026-07-28\"]")));
        json_set_str(&c->arena, c->error_data, "requested", t->msg.claimed);
    }
    if (e)
        return e;
    if (t->batch && t->msg.era == ERA_MODERN)
        return call_why(c, E_RPC_INVALID, "messages of this revision come one by one");
    if (t->msg.era == ERA_MODERN && t->msg.kind == MESSAGE_REQUEST)
        /* earlier revisions: a lost connection is no cancellation */
        http_cancel_on_disconnect(t->wire->rq, true);
    return t->msg.kind == MESSAGE_REQUEST ? request_fits(c, t) : OK;
}

enum err mcp_decode(struct call *c)
{
    struct turn *t = turn_of(c);
    enum err e = guard_origin(t->wire->mcp, http_request_head(t->wire->rq), call_info(c));

    if (e)
        return e;
    t->fault = decode_all(c, t);
    return OK;
}

/* ---- who asks ---------------------------------------------------------------------------------------------------- */

static bool has_token_param(struct str query)
{
    for (struct str rest = query, one; rest.len; ) {
        if (!str_cut(rest, '&', &one, &rest)) {
            one = rest;
            rest = STR_NULL;
        }
        if (str_starts(one, STR("access_token=")))
            return true;
    }
    return false;
}

enum err await_sender(const struct wire *w, struct caller **ret, struct errinfo *why)
{
    const struct mcp *m = w->mcp;
    struct str authorization;
    enum err e;

    if (m->opt.no_auth) {
        *ret = caller_ref(m->nobody);
        return OK;
    }
    if (has_token_param(http_query(w->rq)))
        return err_set(why, E_TOKEN_MALFORMED,
                       "tokens are taken from the Authorization header only, never from the URL");
    if (http_header(w->rq, "authorization", &authorization) > 1)
        return err_set(why, E_TOKEN_MALFORMED, "more than one Authorization header");
    e = await_identify(m->opt.engine->identity, authorization, ret, why);
    if (e == E_UPSTREAM_DOWN)
        return err_set(why, E_STORE_UNAVAILABLE, "the keys of the token's issuer cannot be fetched now");
    if (e)
        return e;
    for (size_t i = 0; m->opt.scopes_required && i < m->n_scopes; i++) {
        if (caller_has_scope(*ret, m->scopes[i]))
            continue;
        caller_release(*ret);
        return err_set(why, E_SCOPE_INSUFFICIENT, "the token lacks the scope %.*s", STR_ARG(m->scopes[i]));
    }
    return OK;
}

/* ---- sessions ---------------------------------------------------------------------------------------------------- */

/* The session's revision is what initialize settled; the header may repeat it, and without a session is all there
 * is. */
static enum err join_session(struct call *c, struct turn *t)
{
    struct mcp *m = t->wire->mcp;
    struct str id;
    unsigned n;
    enum err e;
    int level;

    if (t->msg.era == ERA_MODERN || str_is(t->msg.method, "initialize"))
        return OK;
    n = http_header(t->wire->rq, "mcp-session-id", &id);
    if (n == 0)
        return OK;
    if (n > 1)
        return call_why(c, E_SESSION_UNKNOWN, "more than one session id");
    e = session_find(m->sessions, c->caller, id, &t->session);
    if (e)
        return e;
    t->msg.revision = t->session->revision;
    t->can = t->session->can;
    level = atomic_load(&t->session->log_level);
    if (level >= 0)
        t->log_level = level;
    return OK;
}

static struct str written(struct call *c, const struct json *id)
{
    struct buf b = BUF_INIT(8 * RPC_ID_MAX);
    struct str ret;

    json_write(&b, id);
    ret = arena_str(&c->arena, buf_str(&b));
    buf_release(&b);
    return ret;
}

enum err await_mcp_identify(struct call *c)
{
    struct turn *t = turn_of(c);
    UNSET struct errinfo why;
    struct caller *who = NULL;
    enum err e = OK;

    why.text[0] = '\0';
    if (t->known)
        who = caller_ref(t->known);
    else
        e = await_sender(t->wire, &who, &why);
    if (e) {
        c->error_data = NULL;
        return call_why(c, e, "%s", why.text);
    }
    c->caller = who;
    if (t->fault)
        return t->fault;
    e = join_session(c, t);
    if (e)
        return e;
    if (t->msg.era == ERA_MODERN)
        t->can = capabilities_of(t->msg.capabilities);
    if (t->session && t->msg.kind == MESSAGE_REQUEST) {
        t->inflight = (struct inflight){ .worker = c->worker, .task = c->task, .id = written(c, t->msg.id) };
        session_inflight_add(t->wire->mcp->sessions, t->session, &t->inflight);
    }
    /* the head of what answers initialize names the session, so it cannot go before the session is there */
    if (t->msg.kind == MESSAGE_REQUEST && t->method->await_answer != answer_initialize)
        wire_keep_alive(t->wire);
    return t->responses || t->request_state.p ? await_mrtr_open(c, t) : OK;
}
