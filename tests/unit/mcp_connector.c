/*
 * mcp_connector.c -- the tools, prompts and resources that the tests of mcp/ call
 */
#include <semaphore.h>
#include <stdatomic.h>
#include <stdio.h>

#include "connectors/connector.h"

extern sem_t tool_waits, tool_cancelled;
extern atomic_int tool_writes;
extern atomic_bool bed_disk_hangs;
sem_t tool_waits, tool_cancelled;
atomic_int tool_writes;

PROVIDER(bed, .name = "bed", .title = "Test bed", .resource = "Thing", .no_account = true)

TOOL(bed_add, .provider = &bed_provider, .name = "bed.add", .summary = "Adds", .effect = EFFECT_READS,
     .args = FIELDS({ "a", T_INT, -100, 100 }, { "b", T_INT, -100, 100 }), .result = FIELDS({ "sum", T_INT, -200,
                                                                                              200 }))
{
    result_int(call, "sum", arg_int(call, "a") + arg_int(call, "b"));
    return OK;
}

/* Ends in any error of the table, by its number. */
TOOL(bed_fail, .provider = &bed_provider, .name = "bed.fail", .summary = "Fails", .effect = EFFECT_READS,
     .args = FIELDS({ "code", T_INT, 1, 1000 }))
{
    return fail(call, (enum err)arg_int(call, "code"), "as asked");
}

TOOL(bed_mirror, .provider = &bed_provider, .name = "bed.mirror", .summary = "Mirrors", .effect = EFFECT_READS,
     .args = FIELDS({ "region", T_STRING, 0, 100, "", OPTIONAL, .header = "Region" },
                    { "count", T_INT, 0, 1000, "", OPTIONAL, .header = "Count" },
                    { "on", T_BOOL, 0, 0, "", OPTIONAL, .header = "On" }))
{
    content_text(call, arg_str(call, "region"));
    return OK;
}

TOOL(bed_list, .provider = &bed_provider, .name = "bed.list", .summary = "Answers an array", .effect = EFFECT_READS,
     .args = FIELDS({ "n", T_INT, 0, 10, "", OPTIONAL }),
         .output_schema = "{\"type\":\"object\",\"properties\":{\"items\":{\"type\":\"array\"}}}")
{
    struct json *items = js_arr(call);

    for (int64_t i = 0; i < arg_int(call, "n"); i++)
        js_push_str(call, items, text(call, "item %lld", (long long)i));
    result_json(call, "items", items);
    content_text(call, "some items");
    return OK;
}

/* What a body does with a provider's answer. */
TOOL(bed_shape, .provider = &bed_provider, .name = "bed.shape", .summary = "Shapes", .effect = EFFECT_READS,
     .result = FIELDS({ "shape", T_JSON, 0, 0 }, { "items", T_JSON, 0, 0 }))
{
    struct json *reply = js_parse(call, "{\"from\":{\"who\":{\"mail\":\"a \\\"b\\\" c\"}},\"n\":1,"
                                        "\"items\":[{\"x\":[1]}],"
                                        "\"list\":[{\"who\":{\"mail\":\"a\"},\"n\":2e1,\"on\":true},7]}");
    struct json *shape = js_obj(call);
    struct json *list = js_take(reply, "list");

    js_copy_str(call, shape, "mail", js_get(reply, "from.who.mail"));
    js_copy_str(call, shape, "no_string", js_get(reply, "n"));
    js_copy_str(call, shape, "absent", js_get(reply, "from.nobody.mail"));
    js_set_str(call, shape, "number", text_int(call, INT64_MIN));
    result_json(call, "items", js_take(reply, "items"));
    js_set_bool(call, shape, "left", js_get(reply, "items") != NULL || js_take(reply, "items") != NULL);
    js_set(call, shape, "rest", reply);
    js_set(call, shape, "picked",
           js_pick_each(call, list,
                        PICKS({ "mail", "who.mail", T_STRING }, { "n", "n", T_INT }, { "on", "on", T_BOOL })));
    result_json(call, "shape", shape);
    return OK;
}

TOOL(bed_write, .provider = &bed_provider, .name = "bed.write", .summary = "Changes something", .effect = EFFECT_WRITES,
     .args = FIELDS({ "what", T_STRING, 1, 50000 }), .result = FIELDS({ "n", T_INT, 0, 1000000 }))
{
    result_int(call, "n", atomic_fetch_add(&tool_writes, 1) + 1);
    return OK;
}

TOOL(bed_secret, .provider = &bed_provider, .name = "bed.secret", .summary = "Not for everybody",
     .effect = EFFECT_DESTROYS)
{
    content_text(call, "secret");
    return OK;
}

/* Succeeds, but from then on the disk does not answer. */
TOOL(bed_unplug, .provider = &bed_provider, .name = "bed.unplug", .summary = "Takes the disk away",
     .effect = EFFECT_READS)
{
    atomic_store(&bed_disk_hangs, true);
    content_text(call, "all went well");
    return OK;
}

/* Says that it has begun, then waits; says so when it was cancelled. */
TOOL(bed_wait, .provider = &bed_provider, .name = "bed.wait", .summary = "Waits", .effect = EFFECT_READS,
     .args = FIELDS({ "ms", T_INT, 0, 60000 }))
{
    enum err e;

    sem_post(&tool_waits);
    e = await_pause(call, arg_int(call, "ms"));
    if (e)
        sem_post(&tool_cancelled);
    else
        content_text(call, "waited");
    return e;
}

TOOL(bed_progress, .provider = &bed_provider, .name = "bed.progress", .summary = "Tells how far it is",
     .effect = EFFECT_READS)
{
    enum err e = OK;

    for (int i = 1; !e && i <= 200; i++)
        e = await_progress(call, i, 200, "step");
    if (!e)
        e = await_progress(call, 150, 200, "backwards");
    content_text(call, "done");
    return e;
}

TOOL(bed_log, .provider = &bed_provider, .name = "bed.log", .summary = "Logs", .effect = EFFECT_READS)
{
    enum err e = await_log(call, "debug", "fine");

    if (!e)
        e = await_log(call, "warning", "coarse");
    content_text(call, "logged");
    return e;
}

#define FORM \
    "{\"type\":\"object\",\"properties\":{\"name\":{\"type\":\"string\",\"minLength\":2}},\"required\":[\"name\"]}"

TOOL(bed_ask, .provider = &bed_provider, .name = "bed.ask", .summary = "Asks two rounds", .effect = EFFECT_READS,
     .args = FIELDS({ "x", T_INT, 0, 10, "", OPTIONAL }))
{
    struct json *state = js_obj(call);
    enum err e;

    js_set_int(call, state, "secret", 42);
    state_set(call, state);
    ask_form(call, "first", "Who?", FORM);
    e = await_answers(call);
    if (e)
        return e;
    if (js_str(call, answer(call, "first"), "action")[0] != 'a')
        return fail(call, E_NO_RESULT, "the user said no");
    ask_model(call, "second", js_parse(call, "{\"messages\":[],\"maxTokens\":10}"));
    e = await_answers(call);
    if (e)
        return e;
    content_text(call, text(call, "%s and %s, %lld", js_str(call, answer(call, "first"), "content.name"),
                            js_str(call, answer(call, "second"), "content.text"),
                                (long long)js_int(state_get(call), "secret", 0)));
    return OK;
}

/* Keeps more than a client can carry. */
TOOL(bed_heavy, .provider = &bed_provider, .name = "bed.heavy", .summary = "Asks with too much state",
     .effect = EFFECT_READS)
{
    struct json *state = js_arr(call);

    for (int i = 0; i < 10000; i++)
        js_push_str(call, state, "much too much");
    state_set(call, state);
    ask_form(call, "first", "Who?", FORM);
    return await_answers(call);
}

TOOL(bed_announce, .provider = &bed_provider, .name = "bed.announce", .summary = "Announces", .effect = EFFECT_READS)
{
    announce_tools_changed(call);
    announce_prompts_changed(call);
    content_text(call, "announced");
    return OK;
}

/* ---- prompts and resources --------------------------------------------------------------------------------------- */

static enum err complete(struct call *call, const char *arg_name, const char *prefix)
{
    for (int i = 0; i < 150; i++)
        completion_add(call, text(call, "%s%d", prefix, i));
    return OK;
}

PROMPT(bed_greet, .provider = &bed_provider, .name = "greet", .title = "Greet", .summary = "Greets",
       .args = FIELDS({ "who", T_STRING, 1, 20, "whom" }, { "how", T_STRING, 0, 20, "", OPTIONAL }),
           .complete = complete)
{
    content_text(call, text(call, "Greet %s", prompt_arg(call, "who")));
    return OK;
}

PROMPT(bed_hidden, .provider = &bed_provider, .name = "hidden", .summary = "Not for everybody")
{
    content_text(call, "hidden");
    return OK;
}

PROMPT(bed_asking, .provider = &bed_provider, .name = "asking", .summary = "Asks first")
{
    enum err e;

    ask_form(call, "first", "Who?", FORM);
    e = await_answers(call);
    content_text(call, js_str(call, answer(call, "first"), "content.name"));
    return e;
}

RESOURCE(bed_note, .provider = &bed_provider, .uri = "bed://note", .name = "note", .summary = "A note",
         .mime = "text/plain")
{
    content_resource_text(call, uri, "text/plain", "a note");
    return OK;
}

RESOURCE(bed_empty, .provider = &bed_provider, .uri = "bed://empty", .name = "empty", .summary = "Nothing",
         .mime = "text/plain")
{
    return OK;
}

RESOURCE(bed_page, .provider = &bed_provider, .uri = "bed://page/{id}/text", .name = "page", .summary = "A page",
         .mime = "text/plain",
         .is_template = true)
{
    content_resource_text(call, uri, "text/plain", uri);
    return OK;
}
