/*
 * batch.c -- several messages in one body, which the revision 2025-03-26 has and no other
 *
 * Whether a batch is served depends on the sender's session, so the sender is looked up here once; every message then
 * is a turn of its own on a task of its own (so that one can be cancelled alone), all at once, and the responses go
 * back together as one array in the order they came about.  Anything wrong with the batch as a whole is one refused
 * call.
 */
#include "mcp/internal.h"

struct element {
    struct turn turn;
    size_t bytes;
    struct task_ref task;
};

void batch_add(struct batch *b, struct str response)
{
    if (b->out.len)
        buf_add_c(&b->out, ',');
    buf_add_str(&b->out, response);
}

static void element_main(void *arg)
{
    struct element *e = arg;
    struct batch *b = e->turn.batch;

    await_turn_call(&e->turn, e->bytes);
    if (--b->left == 0)
        wake_fire(&b->done);
}

/* Does the sender's revision have batches? With a session it knows, without one the header says it. */
static bool revision_has(struct wire *w, const struct caller *who)
{
    enum revision r = REV_2025_03_26;
    struct session *s;
    struct str id, version;
    bool ret;

    if (http_header(w->rq, "mcp-session-id", &id) == 0)
        return http_header(w->rq, "mcp-protocol-version", &version) == 0 ||
               (revision_parse(version, &r) && r == REV_2025_03_26);
    if (session_find(w->mcp->sessions, who, id, &s))
        return true;                    /* each message will be told that there is no such session */
    ret = s->revision == REV_2025_03_26;
    session_release(s);
    return ret;
}

static void await_elements(struct batch *b, struct element *e, size_t n)
{
    task_shield(+1);                    /* they end by themselves, soon, once they are cancelled */
    for (size_t i = 0; i < n; i++) {
        struct task *t = task_spawn("mcp batch", element_main, &e[i]);

        if (!t) {                       /* as many tasks as there may be: then here, one after the other */
            element_main(&e[i]);
            continue;
        }
        e[i].task = task_ref(t);
    }
    task_shield(-1);
    if (await_wake(&b->done, NS_NEVER) == OK)
        return;
    for (size_t i = 0; i < n; i++) {
        struct task *t = task_deref(e[i].task);

        if (t)
            task_cancel(t);
    }
    task_shield(+1);
    await_wake(&b->done, NS_NEVER);
    task_shield(-1);
}

static void await_served(struct wire *w, struct caller *who, struct json *list, struct arena *a)
{
    struct batch b = { .wire = w, .out = BUF_INIT(HTTP_REPLY_MAX), .left = (unsigned)json_len(list) };
    struct element *e = ARENA_ARRAY(a, struct element, json_len(list));
    struct buf all = BUF_INIT(HTTP_BODY_MAX);
    size_t n = 0;

    ASSERT(e != NULL && b.left > 0);
    for (struct json *it = json_first(list); it; it = json_next(it), n++)
        e[n] = (struct element){ .turn = { .wire = w, .batch = &b, .given = it, .known = who, .log_level = LOG_NONE },
                                 .bytes = http_body(w->rq).len / json_len(list) };
    await_elements(&b, e, n);
    await_wire_quiet(w);
    if (b.out.len) {
        http_body_begin(&all, b.out.len + 2);
        buf_add_c(&all, '[');
        buf_add_str(&all, buf_str(&b.out));
        buf_add_c(&all, ']');
    }
    if (all.overflow || b.out.overflow)
        await_wire_reply(w, 500, NULL, 0, NULL);
    else
        await_wire_reply(w, b.out.len ? 200 : 202, NULL, 0, &all);
    buf_release(&all);
    buf_release(&b.out);
}

/* One call that is refused for the whole body; it finds the reason itself where `why` is NULL. */
static void await_refused(struct wire *w, const char *why)
{
    struct turn t = { .wire = w, .refusal = why, .log_level = LOG_NONE };

    await_turn_call(&t, http_body(w->rq).len);
}

void await_batch(struct wire *w)
{
    struct caller *who = NULL;
    struct json *list = NULL;
    struct json_error where;
    struct errinfo why;
    struct arena a;

    arena_init(&a, CALL_ARENA_MAX);
    if (guard_origin(w->mcp, http_request_head(w->rq), &why) || (!w->json_ok && !w->sse_ok) ||
        !body_is_json(http_request_head(w->rq)) || await_sender(w, &who, &why) ||
        json_parse(&a, http_body(w->rq), NULL, &list, &where))
        await_refused(w, NULL);
    else if (json_len(list) == 0)
        await_refused(w, "an empty batch");
    else if (json_len(list) > w->mcp->opt.batch_max)
        await_refused(w, "too many messages in one batch");
    else if (!revision_has(w, who))
        await_refused(w, "this revision of the protocol has no batches");
    else
        await_served(w, who, list, &a);
    caller_release(who);
    arena_release(&a);
}
