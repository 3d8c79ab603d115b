/* mail.c -- messages: list, search, draft, send */
#include <stdio.h>
#include <stdlib.h>

#include "connectors/sandbox/internal.h"

static char *copy(struct str s)
{
    char *z = malloc(s.len + 1);

    ASSERT(z != NULL);
    if (s.len)
        memcpy(z, s.p, s.len);
    z[s.len] = '\0';
    return z;
}

static struct message *message_add(struct mailbox *m, const char *from, struct str subject, struct str body,
                                   struct str to, wall_ms_t at)
{
    struct message *x = calloc(1, sizeof(*x));

    ASSERT(x != NULL);
    snprintf(x->id, sizeof(x->id), "%s", id_new("msg").z);
    snprintf(x->from, sizeof(x->from), "%s", from);
    x->subject = copy(subject);
    x->body = copy(body);
    x->to = copy(to);
    x->received = at;
    x->next = m->messages;
    m->messages = x;
    m->n_messages++;
    return x;
}

void mail_seed(struct mailbox *m, wall_ms_t now)
{
    message_add(m, "welcome@sandbox.example", STR("Welcome to the sandbox"), STR("Nothing here leaves this machine."),
                STR("[]"), now - 7200000)
        ->read = true;
    message_add(m, "bob@demo.example", STR("Quarterly report"), STR("The report is ready for review."), STR("[]"),
                now - 3600000);
    message_add(m, "carol@demo.example", STR("Lunch on Friday?"), STR("Are you free at noon?"), STR("[]"),
                now - 1800000);
}

void mailbox_free(struct mailbox *m)
{
    struct message *x;
    struct event *e;

    meter_free(&m->requests);
    while ((x = m->messages)) {
        m->messages = x->next;
        free(x->subject);
        free(x->body);
        free(x->to);
        free(x);
    }
    while ((e = m->events)) {
        m->events = e->next;
        free(e->subject);
        free(e);
    }
    free(m);
}

static struct json *address(struct arena *a, const char *who)
{
    struct json *outer = json_object(a), *inner = json_object(a);

    json_set_z(a, inner, "address", who);
    json_set(a, outer, "emailAddress", inner);
    return outer;
}

static struct json *message_json(struct turn *t, const struct message *x)
{
    struct arena *a = &t->arena;
    struct json *j = json_object(a), *body = json_object(a);
    char at[25];

    wall_format(x->received, at);
    json_set_z(a, j, "id", x->id);
    json_set_z(a, j, "subject", x->subject);
    json_set(a, j, "from", address(a, x->from));
    json_set_z(a, j, "receivedDateTime", at);
    json_set_str(a, j, "bodyPreview", str_n(x->body, strlen(x->body) > 255 ? 255 : strlen(x->body)));
    json_set_bool(a, j, "isRead", x->read);
    json_set_bool(a, j, "isDraft", x->draft);
    json_set_z(a, body, "contentType", "text");
    json_set_z(a, body, "content", x->body);
    json_set(a, j, "body", body);
    json_set(a, j, "toRecipients", json_raw(a, str_of(x->to)));
    return j;
}

static bool contains_folded(const char *text, struct str word)
{
    struct str s = str_of(text);

    for (size_t i = 0; word.len && i + word.len <= s.len; i++)
        if (str_ieq(str_n(s.p + i, word.len), word))
            return true;
    return word.len == 0;
}

static bool message_matches(const struct message *x, struct str search, bool unread)
{
    if (x->draft || (unread && x->read))
        return false;
    return contains_folded(x->subject, search) || contains_folded(x->body, search) || contains_folded(x->from, search);
}

/* What a list is ordered by has to come first in a filter beside it. */
static bool filter_fits(struct str filter, struct str order)
{
    struct str by, way;

    if (!str_cut(order, ' ', &by, &way))
        by = order;
    return filter.len == 0 || str_starts(filter, by);
}

static void await_list(struct turn *t)
{
    struct json *body = json_object(&t->arena), *value = json_array(&t->arena);
    struct str top = query_value(t, "$top"), search = query_value(t, "$search");
    struct str filter = query_value(t, "$filter");
    bool unread = str_ends(filter, STR("isRead eq false"));
    uint64_t n = 10;

    if (top.len && (!str_to_u64(top, &n) || n == 0 || n > 1000)) {
        await_graph_error(t, 400, "ErrorInvalidRequest", "$top must be 1 to 1000");
        return;
    }
    if (!filter_fits(filter, query_value(t, "$orderby"))) {
        await_graph_error(t, 400, "InefficientFilter",
                          "The restriction or sort order is too complex for this operation.");
        return;
    }
    if (search.len >= 2 && search.p[0] == '"' && search.p[search.len - 1] == '"')
        search = str_n(search.p + 1, search.len - 2);
    for (const struct message *x = t->mailbox->messages; x && json_len(value) < n; x = x->next)
        if (message_matches(x, search, unread))
            json_push(&t->arena, value, message_json(t, x));
    json_set(&t->arena, body, "value", value);
    await_json(t, 200, body);
}

static void await_draft(struct turn *t)
{
    struct str to;
    struct json *j = NULL;
    struct json_error where;
    struct message *x;
    struct buf list = BUF_INIT(64 * 1024);

    if (json_parse(&t->arena, http_body(t->rq), NULL, &j, &where) || !json_is(j, JSON_OBJECT) ||
        !json_is(json_get(j, "toRecipients"), JSON_ARRAY)) {
        await_graph_error(t, 400, "ErrorInvalidRequest", "The body is not a message.");
        return;
    }
    if (t->mailbox->n_messages >= MESSAGES_MAX) {
        await_graph_error(t, 507, "ErrorQuotaExceeded", "The mailbox is full.");
        return;
    }
    json_write(&list, json_get(j, "toRecipients"));
    to = buf_str(&list);
    x = message_add(t->mailbox, t->mailbox->user, json_str(json_get(j, "subject")),
                    json_str(json_get(json_get(j, "body"), "content")), to, loop_wall_ms());
    x->draft = true;
    buf_release(&list);
    await_json(t, 201, message_json(t, x));
}

static struct message *message_named(struct mailbox *m, struct str id)
{
    for (struct message *x = m->messages; x; x = x->next)
        if (str_is(id, x->id))
            return x;
    return NULL;
}

static void await_send(struct turn *t, struct message *x)
{
    if (!x->draft) {
        await_graph_error(t, 409, "ErrorInvalidOperation", "The message was sent before.");
        return;
    }
    x->draft = false;
    x->read = true;
    t->s->stats.sent++;
    await_json(t, 202, NULL);
}

/* rest: what follows /v1.0/me/messages */
void mail_handle(struct turn *t, struct str rest)
{
    bool get = str_is(http_method(t->rq), "GET"), post = str_is(http_method(t->rq), "POST");
    struct str id = str_from(rest, 1), action = STR_NULL, head;
    struct message *x;

    if (rest.len == 0 && get) {
        await_list(t);
        return;
    }
    if (rest.len == 0 && post) {
        await_draft(t);
        return;
    }
    if (str_cut(id, '/', &head, &action))
        id = head;
    x = message_named(t->mailbox, id);
    if (!x)
        await_graph_error(t, 404, "ErrorItemNotFound", "The specified object was not found in the store.");
    else if (get && action.len == 0)
        await_json(t, 200, message_json(t, x));
    else if (post && str_is(action, "send"))
        await_send(t, x);
    else
        await_graph_error(t, 405, "ErrorInvalidRequest", "Not served here.");
}
