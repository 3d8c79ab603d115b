/*
 * outlook.c -- mail and calendar of Microsoft 365, through Microsoft Graph v1.0
 *
 * Tools:     outlook.list_mail, outlook.search_mail, outlook.send_mail, outlook.find_free_slot, outlook.book_meeting
 * Upstream:  GET /v1.0/me/messages, POST /v1.0/me/messages, POST /v1.0/me/messages/{id}/send,
 *            POST /v1.0/me/calendar/getSchedule, POST /v1.0/me/events, GET /v1.0/me/calendarView
 *
 * Mail has no idempotency key: sendMail answers 202 without an id.  So a draft is made first, which nobody sees, and
 * then sent; when the answer to the second request is lost the draft is looked at: it is a draft no more once it was
 * sent.  A meeting carries the call's key as transactionId, which Graph uses to absorb repeats and which can be found
 * again.
 *
 * Throttling is 4 requests at once and 10,000 in ten minutes per mailbox; exceeding it answers 429 with Retry-After.
 */
#include "connectors/connector.h"

static const struct oauth entra = {
    .auth_url = "https://login.microsoftonline.com/common",
    .authorize_path = "/oauth2/v2.0/authorize",
    .token_path = "/oauth2/v2.0/token",
};

/* A throttle is a mailbox's; its words say which of the two limits it is about. */
static enum answer graph_answer(struct answer_info *in)
{
    enum answer a = answer_by_status(in);

    answer_message(in, in->body, "error.message");
    if (a == ANSWER_LIMITED)
        in->limit = text_contains(in->message, "Concurrency") ? "mailbox_concurrency" : "mailbox_requests";
    return a;
}

PROVIDER(outlook,
    .name = "outlook",
    .title = "Outlook",
    .base_url = "https://graph.microsoft.com",
    .oauth = &entra,
    .resource = "Mailbox",
    .headers = NAMES("Prefer: IdType=\"ImmutableId\""),
    .limits = LIMITS({ .name = "mailbox_concurrency", .scope = PER_ACCOUNT, .concurrency = 4,
                       .source = "documented: 4 requests at once per app and mailbox" },
                     { .name = "mailbox_requests", .scope = PER_ACCOUNT, .amount = 10000, .window_ms = 600000,
                       .source = "documented: 10,000 requests in 10 minutes per app and mailbox" },
                     { .name = "app_requests", .scope = PER_PROVIDER, .amount = 130000, .window_ms = 10000,
                       .source = "documented: 130,000 requests in 10 s per app, all tenants" }),
    .classify = graph_answer)

/* ---- reading mail ------------------------------------------------------------------------------------------------ */

/* What every list of messages asks for, as it goes into the request; $ and commas may stay in a query. */
#define MESSAGES "/v1.0/me/messages?$select=id,subject,from,receivedDateTime,bodyPreview,isRead"

static struct json *summaries(struct call *call, const struct json *reply)
{
    return js_pick_each(call, js_get(reply, "value"),
                        PICKS({ "id", "id", T_STRING }, { "subject", "subject", T_STRING },
                              { "from", "from.emailAddress.address", T_STRING },
                              { "received_at", "receivedDateTime", T_STRING },
                              { "preview", "bodyPreview", T_STRING }, { "read", "isRead", T_BOOL }));
}

/* Graph refuses a filter beside $orderby that does not begin with what is ordered by. */
#define UNREAD "receivedDateTime ge 1900-01-01T00:00:00Z and isRead eq false"

TOOL(outlook_list_mail,
    .provider = &outlook_provider,
    .name = "outlook.list_mail",
    .summary = "List the newest messages of the user's mailbox",
    .args = FIELDS({ "count", T_INT, 1, 50, "how many; 10 if left out", OPTIONAL },
                   { "unread_only", T_BOOL, 0, 0, "only messages not read yet", OPTIONAL }),
    .result = FIELDS({ "messages", T_LIST, 0, 0, "id, subject, from, received_at, preview, read" }),
    .effect = EFFECT_READS,
    .scopes = NAMES("Mail.Read"))
{
    struct json *reply;
    int64_t count = arg_has(call, "count") ? arg_int(call, "count") : 10;
    enum err e = await_get(call, &reply,
                           query(call, MESSAGES "&$orderby=receivedDateTime%20desc", "$top", text_int(call, count),
                                 "$filter", arg_bool(call, "unread_only") ? UNREAD : "", NULL));

    if (e)
        return e;
    result_json(call, "messages", summaries(call, reply));
    return OK;
}

TOOL(outlook_search_mail,
    .provider = &outlook_provider,
    .name = "outlook.search_mail",
    .summary = "Search the user's mailbox for words in subject, sender or body",
    .args = FIELDS({ "words", T_STRING, 1, 200, "what to look for" },
                   { "count", T_INT, 1, 50, "how many at most; 10 if left out", OPTIONAL }),
    .result = FIELDS({ "messages", T_LIST, 0, 0, "id, subject, from, received_at, preview, read" }),
    .effect = EFFECT_READS,
    .scopes = NAMES("Mail.Read"))
{
    struct json *reply;
    int64_t count = arg_has(call, "count") ? arg_int(call, "count") : 10;
    const char *words = arg_str(call, "words");
    enum err e;

    /* the phrase is quoted in Graph's query language: a quote inside would end it */
    for (const char *p = words; *p; p++)
        if (*p == '"' || *p == '\\')
            return fail(call, E_ARGS_INVALID, "words must not contain quotes or backslashes");
    e = await_get(call, &reply, query(call, MESSAGES, "$search", text(call, "\"%s\"", words), "$top",
                                      text_int(call, count), NULL));
    if (e)
        return e;
    result_json(call, "messages", summaries(call, reply));
    return OK;
}

/* ---- sending mail ------------------------------------------------------------------------------------------------ */

static struct json *recipient(struct call *call, const char *address)
{
    struct json *outer = js_obj(call), *inner = js_obj(call);

    js_set_str(call, inner, "address", address);
    js_set(call, outer, "emailAddress", inner);
    return outer;
}

static struct json *recipients(struct call *call, const char *list)
{
    struct json *all = js_arr(call);

    for (size_t i = 0; i < arg_count(call, list); i++)
        js_push(call, all, recipient(call, arg_item(call, list, i)));
    return all;
}

static struct json *draft_of(struct call *call)
{
    struct json *mail = js_obj(call), *body = js_obj(call);

    js_set_str(call, mail, "subject", arg_str(call, "subject"));
    js_set_str(call, body, "contentType", "text");
    js_set_str(call, body, "content", arg_str(call, "body"));
    js_set(call, mail, "body", body);
    js_set(call, mail, "toRecipients", recipients(call, "to"));
    js_set(call, mail, "ccRecipients", recipients(call, "cc"));
    return mail;
}

/* Before the draft's id came back nothing was sent. After that only a message that is a draft no more settles it: one
 * that still is may be on its way. */
static enum settled was_sent(struct call *call)
{
    const char *id = kept_str(call, "draft");
    struct json *message;

    if (!*id)
        return SETTLED_NOT_DONE;
    if (await_get(call, &message,
                  query(call, path(call, "/v1.0/me/messages/{}", id, NULL), "$select", "isDraft", NULL)))
        return SETTLED_UNKNOWN;
    if (!js_get(message, "isDraft") || js_bool(message, "isDraft"))
        return SETTLED_UNKNOWN;
    result_str(call, "message_id", id);
    return SETTLED_DONE;
}

TOOL(outlook_send_mail,
    .provider = &outlook_provider,
    .name = "outlook.send_mail",
    .summary = "Send a plain-text message from the user's mailbox",
    .args = FIELDS({ "to", T_EMAIL_LIST, 1, 50, "who gets it" },
                   { "cc", T_EMAIL_LIST, 0, 50, "who gets a copy", OPTIONAL },
                   { "subject", T_STRING, 1, 255, "one line" },
                   { "body", T_TEXT, 1, 60000, "the text" }),
    .result = FIELDS({ "message_id", T_STRING, 1, 512, "of the sent message" }),
    .effect = EFFECT_WRITES,
    .scopes = NAMES("Mail.ReadWrite", "Mail.Send"),
    .reconcile = was_sent)
{
    struct json *draft;
    const char *id;
    enum err e = await_post(call, &draft, "/v1.0/me/messages", draft_of(call));

    if (e)
        return e;
    id = js_str(call, draft, "id");
    keep_str(call, "draft", id);
    e = await_post(call, NULL, path(call, "/v1.0/me/messages/{}/send", id, NULL), NULL);
    if (e)
        return e;
    result_str(call, "message_id", id);
    return OK;
}

/* ---- calendar ---------------------------------------------------------------------------------------------------- */

enum { SLOT_MS = 30 * 60 * 1000, SEARCH_DAYS = 7, DAY_MS = 24 * 60 * 60 * 1000 };

static struct json *moment(struct call *call, int64_t ms)
{
    struct json *m = js_obj(call);

    js_set_str(call, m, "dateTime", text_time(call, ms));
    js_set_str(call, m, "timeZone", "UTC");
    return m;
}

/* Is every attendee free in slots from..from+n? A view is a string with one digit per slot; '0' is free. */
static bool all_free(struct call *call, struct json *schedules, size_t from, size_t n)
{
    for (struct json *s = js_first(schedules); s; s = js_next(s)) {
        const char *view = js_str(call, s, "availabilityView");

        for (size_t i = 0; i < from + n; i++)
            if (!view[i] || (i >= from && view[i] != '0'))
                return false;
    }
    return true;
}

/* Status 200 says nothing of a single calendar: one that cannot be looked up has an error in place of its view. */
static enum err all_seen(struct call *call, struct json *schedules, size_t asked)
{
    if (js_len(schedules) < asked)
        return fail(call, E_UPSTREAM_GARBLED, "the answer has %zu of %zu calendars", js_len(schedules), asked);
    for (struct json *s = js_first(schedules); s; s = js_next(s))
        if (js_len(js_get(s, "error")) || !*js_str(call, s, "availabilityView"))
            return fail(call, E_NO_RESULT, "the calendar of %s cannot be seen", js_str(call, s, "scheduleId"));
    return OK;
}

static int64_t search_from(struct call *call)
{
    int64_t at = arg_has(call, "after") ? arg_time(call, "after") : call_time(call);

    return (at + SLOT_MS - 1) / SLOT_MS * SLOT_MS;
}

static enum err find_slot(struct call *call, int64_t *ret_start)
{
    struct json *ask = js_obj(call), *reply, *schedules;
    int64_t start = search_from(call), minutes = arg_int(call, "minutes");
    size_t n = (size_t)((minutes * 60000 + SLOT_MS - 1) / SLOT_MS), slots = (size_t)SEARCH_DAYS * DAY_MS / SLOT_MS;
    struct json *who = js_arr(call);
    enum err e;

    js_push_str(call, who, call_account(call));
    for (size_t i = 0; i < arg_count(call, "attendees"); i++)
        if (!text_equal_folded(arg_item(call, "attendees", i), call_account(call)))
            js_push_str(call, who, arg_item(call, "attendees", i));
    js_set(call, ask, "schedules", who);
    js_set(call, ask, "startTime", moment(call, start));
    js_set(call, ask, "endTime", moment(call, start + (int64_t)slots * SLOT_MS));
    js_set_int(call, ask, "availabilityViewInterval", SLOT_MS / 60000);
    e = await_query(call, &reply, "/v1.0/me/calendar/getSchedule", ask);
    if (e)
        return e;
    schedules = js_get(reply, "value");
    e = all_seen(call, schedules, js_len(who));
    if (e)
        return e;
    for (size_t i = 0; i + n <= slots; i++) {
        if (all_free(call, schedules, i, n)) {
            *ret_start = start + (int64_t)i * SLOT_MS;
            return OK;
        }
    }
    return fail(call, E_NO_RESULT, "no time in the %d days from %s is free for everybody", SEARCH_DAYS,
                text_time(call, start));
}

#define MEETING_ARGS                                                                                                   \
    { "attendees", T_EMAIL_LIST, 1, 20, "who must be free, beside the user" },                                         \
    { "minutes", T_INT, 15, 480, "length" },                                                                           \
    { "after", T_TIME, 0, 0, "not before; now if left out", OPTIONAL }

TOOL(outlook_find_free_slot,
    .provider = &outlook_provider,
    .name = "outlook.find_free_slot",
    .summary = "Find the first time within a week when everyone is free",
    .args = FIELDS(MEETING_ARGS),
    .result = FIELDS({ "starts_at", T_TIME, 0, 0, "first free time" }, { "ends_at", T_TIME, 0, 0, "its end" }),
    .effect = EFFECT_READS,
    .scopes = NAMES("Calendars.Read"))
{
    int64_t start = 0;
    enum err e = find_slot(call, &start);

    if (e)
        return e;
    result_time(call, "starts_at", start);
    result_time(call, "ends_at", start + arg_int(call, "minutes") * 60000);
    return OK;
}

static struct json *meeting(struct call *call, int64_t start)
{
    struct json *event = js_obj(call);

    js_set_str(call, event, "subject", arg_str(call, "subject"));
    js_set(call, event, "start", moment(call, start));
    js_set(call, event, "end", moment(call, start + arg_int(call, "minutes") * 60000));
    js_set(call, event, "attendees", recipients(call, "attendees"));
    js_set_str(call, event, "transactionId", call_key(call));
    return event;
}

static void booked(struct call *call, struct json *event, int64_t start)
{
    result_str(call, "event_id", js_str(call, event, "id"));
    result_time(call, "starts_at", start);
    result_time(call, "ends_at", start + arg_int(call, "minutes") * 60000);
}

static enum settled was_booked(struct call *call)
{
    int64_t start = time_of_text(kept_str(call, "start"));
    struct json *view;

    if (start < 0)
        return SETTLED_NOT_DONE;
    if (await_get(call, &view,
                  query(call, "/v1.0/me/calendarView", "startDateTime", text_time(call, start),
                        "endDateTime", text_time(call, start + arg_int(call, "minutes") * 60000),
                        "$select", "id,transactionId", NULL)))
        return SETTLED_UNKNOWN;
    for (struct json *event = js_first(js_get(view, "value")); event; event = js_next(event)) {
        if (text_equal_folded(js_str(call, event, "transactionId"), call_key(call))) {
            booked(call, event, start);
            return SETTLED_DONE;
        }
    }
    /* not there yet does not prove that the request is not still on its way */
    return SETTLED_UNKNOWN;
}

TOOL(outlook_book_meeting,
    .provider = &outlook_provider,
    .name = "outlook.book_meeting",
    .summary = "Find the first time everyone is free and book a meeting there",
    .args = FIELDS(MEETING_ARGS, { "subject", T_STRING, 1, 255, "what it is about" }),
    .result = FIELDS({ "event_id", T_STRING, 1, 512, "of the meeting" },
                     { "starts_at", T_TIME, 0, 0, "when it begins" },
                     { "ends_at", T_TIME, 0, 0, "when it ends" }),
    .effect = EFFECT_WRITES,
    .once = ONCE_CLIENT_ID("transactionId"),
    .scopes = NAMES("Calendars.ReadWrite"),
    .reconcile = was_booked)
{
    struct json *event;
    int64_t start = 0;
    enum err e = find_slot(call, &start);

    if (e)
        return e;
    keep_str(call, "start", text_time(call, start));
    e = await_post(call, &event, "/v1.0/me/events", meeting(call, start));
    if (e)
        return e;
    booked(call, event, start);
    return OK;
}
