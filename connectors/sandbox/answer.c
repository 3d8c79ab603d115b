/* answer.c -- questions in, JSON out */
#include <stdio.h>
#include <stdlib.h>

#include "base/escape.h"
#include "connectors/sandbox/internal.h"

/* For tests: what was executed is not answered. A stream that is begun and not ended cuts the connection. */
static bool await_lost(struct turn *t, int status, const struct http_header *type)
{
    if (!t->s->lose_next || !t->mailbox || status >= 300 || str_is(http_method(t->rq), "GET"))
        return false;
    t->s->lose_next--;
    await_http_stream_begin(t->rq, status, type, 1);
    return true;
}

void await_json(struct turn *t, int status, struct json *body)
{
    const struct http_header type = { STR("Content-Type"), STR("application/json") };
    struct buf b = BUF_INIT(4 << 20);

    if (await_lost(t, status, &type))
        return;
    if (body)
        json_write(&b, body);
    await_http_reply(t->rq, status, &type, 1, buf_str(&b));
    buf_release(&b);
}

static void await_error(struct turn *t, int status, const char *code, const char *message, int64_t after_s)
{
    char after[24];
    struct json *outer = json_object(&t->arena), *error = json_object(&t->arena);
    const struct http_header headers[] = { { STR("Content-Type"), STR("application/json") },
                                           { STR("Retry-After"), { after, (size_t)snprintf(after, sizeof(after), "%lld",
                                                                                       (long long)after_s) } } };
    struct buf b = BUF_INIT(4096);

    json_set_z(&t->arena, error, "code", code);
    json_set_z(&t->arena, error, "message", message);
    json_set(&t->arena, outer, "error", error);
    json_write(&b, outer);
    await_http_reply(t->rq, status, headers, status == 429 ? 2 : 1, buf_str(&b));
    buf_release(&b);
}

void await_graph_error(struct turn *t, int status, const char *code, const char *message)
{
    await_error(t, status, code, message, 1);
}

void await_throttled(struct turn *t, const char *message, ns_t wait)
{
    await_error(t, 429, "ApplicationThrottled", message, (wait + NS_PER_S - 1) / NS_PER_S);
}

struct str query_value(struct turn *t, const char *name)
{
    return form_value(&t->arena, http_query(t->rq), name);
}

struct mailbox *mailbox_of(struct sandbox *s, struct str user)
{
    struct mailbox *m = map_get(&s->mailboxes, user);

    if (m || user.len == 0 || user.len >= sizeof(m->user) || s->mailboxes.len >= MAILBOXES_MAX)
        return m;
    m = calloc(1, sizeof(*m));
    ASSERT(m != NULL);
    memcpy(m->user, user.p, user.len);
    mail_seed(m, loop_wall_ms());
    map_put(&s->mailboxes, str_of(m->user), m);
    return m;
}
