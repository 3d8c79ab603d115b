/*
 * connector.c -- the provider that simulated runs call: every shape of tool, with nothing else in it
 *
 * Tools:     sim.look (reads), sim.post (one effect), sim.pair (two effects), sim.safe (looks whether it happened),
 *            sim.wipe (destroys)
 * Upstream:  GET /items, POST /items, DELETE /items/{op}, GET /keys/{key}      (upstream.c)
 *
 * An operation is a number: what was asked for once, however often it is asked.  The upstream's log of effects is kept
 * by that number.
 */
#include "connectors/connector.h"

static const struct oauth oauth = {
    .auth_url = "https://login.sim.example",
    .authorize_path = "/authorize",
    .token_path = "/token",
    .revoke_path = "/revoke",
    .rotates = true,
};

PROVIDER(sim, .name = "sim", .title = "Simulated", .base_url = "https://api.sim.example/v1", .oauth = &oauth,
         .resource = "Mailbox",
         .limits = LIMITS({ .name = "mailbox_concurrency", .scope = PER_ACCOUNT, .concurrency = 4 },
                          { .name = "mailbox_requests", .scope = PER_ACCOUNT, .amount = 40, .window_ms = 10000 },
                          { .name = "app_requests", .scope = PER_TENANT, .amount = 300, .window_ms = 10000 }),
         .fixture = true)

#define ARGS   FIELDS({ "op", T_INT, 0, 1000000, "operation" }, { "subject", T_STRING, 0, 100, "words" })
#define RESULT FIELDS({ "id", T_STRING, 1, 100, "what was made" }, { "owner", T_STRING, 1, 100, "whose it is" })

static struct json *item(struct call *call, int step)
{
    struct json *body = js_obj(call);

    js_set_int(call, body, "op", arg_int(call, "op"));
    js_set_int(call, body, "step", step);
    js_set_str(call, body, "key", call_key(call));
    js_set_str(call, body, "subject", arg_str(call, "subject"));
    return body;
}

static enum err answer_with(struct call *call, struct json *reply)
{
    result_str(call, "id", js_str(call, reply, "id"));
    result_str(call, "owner", js_str(call, reply, "owner"));
    return OK;
}

TOOL(sim_look, .provider = &sim_provider, .name = "sim.look", .summary = "Look at an item", .args = ARGS,
     .result = RESULT, .effect = EFFECT_READS)
{
    struct json *reply;
    enum err e =
        await_get(call, &reply, query(call, "/items", "op", text(call, "%lld", (long long)arg_int(call, "op")), NULL));

    return e ? e : answer_with(call, reply);
}

TOOL(sim_post, .provider = &sim_provider, .name = "sim.post", .summary = "Make an item", .args = ARGS, .result = RESULT,
     .effect = EFFECT_WRITES)
{
    struct json *reply;
    enum err e = await_post(call, &reply, "/items", item(call, 1));

    return e ? e : answer_with(call, reply);
}

TOOL(sim_pair, .provider = &sim_provider, .name = "sim.pair", .summary = "Make two items that belong together",
     .args = ARGS, .result = RESULT, .effect = EFFECT_WRITES)
{
    struct json *reply;
    enum err e = await_post(call, &reply, "/items", item(call, 1));

    if (e)
        return e;
    e = await_pause(call, 50);
    if (e)
        return e;
    e = await_post(call, &reply, "/items", item(call, 2));
    return e ? e : answer_with(call, reply);
}

static enum settled was_made(struct call *call)
{
    struct json *reply;

    if (await_get(call, &reply, path(call, "/keys/{}", call_key(call), NULL)))
        return SETTLED_UNKNOWN;
    if (!js_bool(reply, "made"))
        return SETTLED_UNKNOWN; /* not there yet does not prove that the request is not still on its way */
    answer_with(call, reply);
    return SETTLED_DONE;
}

TOOL(sim_safe, .provider = &sim_provider, .name = "sim.safe",
     .summary = "Look, make an item, and look whether it was made when nobody answered", .args = ARGS, .result = RESULT,
     .effect = EFFECT_WRITES, .reconcile = was_made)
{
    struct json *reply;
    enum err e = await_get(call, &reply, "/items");

    if (e)
        return e;
    e = await_post(call, &reply, "/items", item(call, 1));
    return e ? e : answer_with(call, reply);
}

TOOL(sim_wipe, .provider = &sim_provider, .name = "sim.wipe", .summary = "Take an item away", .args = ARGS,
     .result = RESULT, .effect = EFFECT_DESTROYS)
{
    struct json *reply;
    enum err e =
        await_delete(call, &reply, path(call, "/items/{}", text(call, "%lld", (long long)arg_int(call, "op")), NULL));

    return e ? e : answer_with(call, reply);
}
