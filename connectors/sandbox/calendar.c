/* calendar.c -- free/busy, meetings, the calendar's view */
#include <stdio.h>
#include <stdlib.h>

#include "connectors/sandbox/internal.h"

enum { SLOTS_MAX = 2000 };

/* {"dateTime": "...", "timeZone": "UTC"}: with or without Z, as Graph takes both. */
static bool moment(struct turn *t, const struct json *j, wall_ms_t *ret)
{
    struct str s = json_str(json_get(j, "dateTime"));

    if (!str_is(json_str(json_get(j, "timeZone")), "UTC"))
        return false;
    if (wall_parse(s, ret) == OK)
        return true;
    return wall_parse(arena_printf(&t->arena, "%.*sZ", STR_ARG(s)), ret) == OK;
}

static bool busy(const struct mailbox *m, wall_ms_t from, wall_ms_t to)
{
    for (const struct event *e = m->events; e; e = e->next)
        if (e->start < to && e->end > from)
            return true;
    return false;
}

static void await_schedule(struct turn *t)
{
    struct json *ask = NULL, *body = json_object(&t->arena), *value = json_array(&t->arena);
    struct json_error where;
    wall_ms_t from, to;
    int64_t minutes = 30;

    if (json_parse(&t->arena, http_body(t->rq), NULL, &ask, &where) || !moment(t, json_get(ask, "startTime"), &from) ||
        !moment(t, json_get(ask, "endTime"), &to) || to <= from) {
        await_graph_error(t, 400, "ErrorInvalidRequest", "schedules, startTime and endTime are needed.");
        return;
    }
    json_int(json_get(ask, "availabilityViewInterval"), &minutes);
    if (minutes < 5 || (to - from) / (minutes * 60000) > SLOTS_MAX) {
        await_graph_error(t, 400, "ErrorInvalidRequest", "availabilityViewInterval is out of range.");
        return;
    }
    for (const struct json *who = json_first(json_get(ask, "schedules")); who; who = json_next(who)) {
        struct mailbox *m = mailbox_of(t->s, json_str(who));
        struct json *one = json_object(&t->arena);
        struct buf view = BUF_INIT(SLOTS_MAX);

        for (wall_ms_t at = from; at < to; at += minutes * 60000)
            buf_add_c(&view, m && busy(m, at, at + minutes * 60000) ? '2' : '0');
        json_set_str(&t->arena, one, "scheduleId", json_str(who));
        json_set_str(&t->arena, one, "availabilityView", buf_str(&view));
        json_push(&t->arena, value, one);
        buf_release(&view);
    }
    json_set(&t->arena, body, "value", value);
    await_json(t, 200, body);
}

static struct json *event_json(struct turn *t, const struct event *e)
{
    struct json *j = json_object(&t->arena);
    char start[25], end[25];

    wall_format(e->start, start);
    wall_format(e->end, end);
    json_set_z(&t->arena, j, "id", e->id);
    json_set_z(&t->arena, j, "subject", e->subject);
    json_set_z(&t->arena, j, "transactionId", e->transaction);
    json_set_z(&t->arena, j, "start", start);
    json_set_z(&t->arena, j, "end", end);
    return j;
}

static void event_add(struct mailbox *m, const struct event *from, struct str subject)
{
    struct event *e = calloc(1, sizeof(*e));

    ASSERT(e != NULL);
    *e = *from;
    e->subject = malloc(subject.len + 1);
    ASSERT(e->subject != NULL);
    snprintf(e->subject, subject.len + 1, "%.*s", STR_ARG(subject));
    e->next = m->events;
    m->events = e;
    m->n_events++;
}

static void await_book(struct turn *t)
{
    struct json *ask = NULL;
    struct json_error where;
    struct event e = { 0 };
    struct str transaction;

    if (json_parse(&t->arena, http_body(t->rq), NULL, &ask, &where) || !moment(t, json_get(ask, "start"), &e.start) ||
        !moment(t, json_get(ask, "end"), &e.end) || e.end <= e.start) {
        await_graph_error(t, 400, "ErrorInvalidRequest", "subject, start and end are needed.");
        return;
    }
    transaction = json_str(json_get(ask, "transactionId"));
    for (const struct event *old = t->mailbox->events; transaction.len && old; old = old->next) {
        if (str_is(transaction, old->transaction)) {
            await_json(t, 201, event_json(t, old));
            return;
        }
    }
    if (t->mailbox->n_events >= EVENTS_MAX || transaction.len >= sizeof(e.transaction)) {
        await_graph_error(t, 400, "ErrorInvalidRequest", "The calendar is full, or transactionId too long.");
        return;
    }
    snprintf(e.id, sizeof(e.id), "%s", id_new("evt").z);
    snprintf(e.transaction, sizeof(e.transaction), "%.*s", STR_ARG(transaction));
    event_add(t->mailbox, &e, json_str(json_get(ask, "subject")));
    for (const struct json *a = json_first(json_get(ask, "attendees")); a; a = json_next(a)) {
        struct mailbox *m = mailbox_of(t->s, json_str(json_get(json_get(a, "emailAddress"), "address")));

        if (m && m != t->mailbox && m->n_events < EVENTS_MAX)
            event_add(m, &e, json_str(json_get(ask, "subject")));
    }
    t->s->stats.events++;
    await_json(t, 201, event_json(t, t->mailbox->events));
}

static void await_view(struct turn *t)
{
    struct json *body = json_object(&t->arena), *value = json_array(&t->arena);
    wall_ms_t from, to;

    if (wall_parse(query_value(t, "startDateTime"), &from) || wall_parse(query_value(t, "endDateTime"), &to)) {
        await_graph_error(t, 400, "ErrorInvalidRequest", "startDateTime and endDateTime are needed.");
        return;
    }
    for (const struct event *e = t->mailbox->events; e; e = e->next)
        if (e->start < to && e->end > from)
            json_push(&t->arena, value, event_json(t, e));
    json_set(&t->arena, body, "value", value);
    await_json(t, 200, body);
}

/* rest: what follows /v1.0/me */
void calendar_handle(struct turn *t, struct str rest)
{
    bool get = str_is(http_method(t->rq), "GET"), post = str_is(http_method(t->rq), "POST");

    if (post && str_is(rest, "/calendar/getSchedule"))
        await_schedule(t);
    else if (post && str_is(rest, "/events"))
        await_book(t);
    else if (get && str_is(rest, "/calendarView"))
        await_view(t);
    else
        await_graph_error(t, 404, "BadRequest", "Not served here.");
}
