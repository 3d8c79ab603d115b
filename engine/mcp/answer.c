/*
 * answer.c -- ANSWER: what is neither a tool call nor a list
 *
 * Notifications and responses are answered here too: they have no answer, but they are requests of somebody and so are
 * on record.
 */
#include "mcp/internal.h"

/* An answer made of JSON text. */
static enum err answer_raw(struct call *c, const char *key, struct buf *text)
{
    struct str kept = arena_str(&c->arena, buf_str(text));
    bool whole = !text->overflow && kept.p;

    buf_release(text);
    if (!whole)
        return E_CALL_TOO_LARGE;
    json_set(&c->arena, c->answer, key, json_raw(&c->arena, kept));
    return OK;
}

enum err answer_discover(struct call *c, struct turn *t)
{
    struct buf b = BUF_INIT(4096);

    c->answer = json_object(&c->arena);
    json_set(&c->arena, c->answer, "supportedVersions", json_raw(&c->arena, STR("[\"2026-07-28\"]")));
    write_capabilities(&b, c->registry, ERA_MODERN);
    json_set_z(&c->arena, c->answer, "instructions", t->wire->mcp->opt.instructions);
    return answer_raw(c, "capabilities", &b);
}

/* The version asked for if it is served, else the latest that has initialize. */
enum err answer_initialize(struct call *c, struct turn *t)
{
    struct mcp *m = t->wire->mcp;
    struct json *version = json_get(t->msg.params, "protocolVersion"), *caps = json_get(t->msg.params, "capabilities");
    enum revision r = REV_2025_11_25;
    struct buf b = BUF_INIT(4096);
    enum err e;

    if (!json_is(version, JSON_STRING))
        return call_why(c, E_RPC_PARAMS, "params.protocolVersion must be a string");
    if (caps && !json_is(caps, JSON_OBJECT))
        return call_why(c, E_RPC_PARAMS, "params.capabilities must be an object");
    if (!revision_parse(json_str(version), &r) || r == REV_2026_07_28)
        r = REV_2025_11_25;
    e = session_mint(m->sessions, c->caller, r, capabilities_of(caps), &t->session);
    if (e)
        return call_why(c, e, "the engine is at its limit of sessions");
    t->minted = true;
    t->msg.revision = r;
    c->answer = json_object(&c->arena);
    json_set_z(&c->arena, c->answer, "protocolVersion", revision_name(r));
    json_set(&c->arena, c->answer, "serverInfo",
             json_raw(&c->arena, r == REV_2025_03_26 ? m->server_info_03 : m->server_info));
    json_set_z(&c->arena, c->answer, "instructions", m->opt.instructions);
    write_capabilities(&b, c->registry, ERA_LEGACY);
    return answer_raw(c, "capabilities", &b);
}

enum err answer_empty(struct call *c, struct turn *t)
{
    c->answer = json_object(&c->arena);
    return OK;
}

enum err answer_set_level(struct call *c, struct turn *t)
{
    int level = log_rank(json_str(json_get(t->msg.params, "level")));

    if (level < 0)
        return call_why(c, E_RPC_PARAMS, "params.level is no level");
    if (t->session)
        atomic_store(&t->session->log_level, level);
    return answer_empty(c, t);
}

static enum err wants(struct call *c, const struct json *filter, const char *name, unsigned bit, unsigned *hears)
{
    const struct json *j = json_get(filter, name);
    bool on = false;

    if (j && !json_bool(j, &on))
        return call_why(c, E_RPC_PARAMS, "params.notifications.%s must be true or false", name);
    if (on)
        *hears |= bit;
    return OK;
}

/* Only takes the order; the stream is the reply, so that what is on record comes before what is said. */
enum err answer_listen(struct call *c, struct turn *t)
{
    const struct json *filter = json_get(t->msg.params, "notifications");
    enum err e;

    if (!json_is(filter, JSON_OBJECT))
        return call_why(c, E_RPC_PARAMS, "params.notifications must be an object");
    if (!t->wire->sse_ok)
        return call_why(c, E_HTTP_NOT_ACCEPTABLE, "subscriptions/listen answers with text/event-stream only");
    e = wants(c, filter, "toolsListChanged", HEARS_TOOLS, &t->hears);
    if (!e)
        e = wants(c, filter, "promptsListChanged", HEARS_PROMPTS, &t->hears);
    if (!e)
        e = wants(c, filter, "resourcesListChanged", HEARS_RESOURCES, &t->hears);
    if (!c->registry->n_prompts)
        t->hears &= ~(unsigned)HEARS_PROMPTS;
    if (!c->registry->n_resources)
        t->hears &= ~(unsigned)HEARS_RESOURCES;
    return e ? e : listen_room(t->wire->mcp, c);
}

/* ---- what has no answer ------------------------------------------------------------------------------------------ */

static void cancelled(struct call *c, struct turn *t)
{
    struct json *id = json_get(t->msg.params, "requestId");
    struct buf b = BUF_INIT(8 * RPC_ID_MAX);

    if (!t->session || !id)
        return;                         /* which request it means only a session tells */
    json_write(&b, id);
    if (!b.overflow)
        session_cancel(t->wire->mcp->sessions, t->session, buf_str(&b));
    buf_release(&b);
}

static enum err no_message(struct call *c, struct turn *t)
{
    struct mcp *m = t->wire->mcp;

    if (t->kind == TURN_DELETE) {
        session_end(m->sessions, t->session);
        listeners_kick(m);
        return OK;
    }
    t->hears = HEARS_ALL;
    t->streams = session_stream_take(m->sessions, t->session);
    t->conflict = !t->streams;
    return t->conflict ? call_why(c, E_RPC_INVALID, "this session has a stream already") : listen_room(m, c);
}

enum err await_mcp_answer(struct call *c)
{
    struct turn *t = turn_of(c);

    if (t->kind != TURN_POST)
        return no_message(c, t);
    if (t->msg.kind == MESSAGE_RESPONSE)
        ask_answered(c, t);
    else if (t->msg.kind == MESSAGE_REQUEST)
        return t->method->await_answer(c, t);
    else if (t->msg.era == ERA_LEGACY && str_is(t->msg.method, "notifications/cancelled"))
        cancelled(c, t);
    return OK;
}
