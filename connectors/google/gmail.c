/*
 * gmail.c -- mail of a Google account, through the Gmail API v1
 *
 * Tools:     gmail.search, gmail.reply_in_thread
 * Upstream:  GET /gmail/v1/users/me/messages[/{id}], GET .../threads/{id}, POST .../messages/send
 *
 * Gmail has no idempotency key.  A reply carries a Message-ID of ours made from the call's key, which Gmail keeps and can
 * search by (rfc822msgid:), so a lost answer can be settled.
 *
 * What goes into a mail's head comes from other people's mail: line ends are taken out before it is written anywhere.
 *
 * Limits are units per user and minute; the costs are per request and declared per tool.
 */
#include "connectors/connector.h"

static const struct oauth google_oauth = {
    .auth_url = "https://accounts.google.com",
    .authorize_path = "/o/oauth2/v2/auth",
    .token_path = "https://oauth2.googleapis.com/token",
    .revoke_path = "https://oauth2.googleapis.com/revoke",
    .extra_authorize = "access_type=offline&prompt=consent",
};

/* Quota comes as 403 or 429 with a reason; other 403 are refusals. */
static enum answer google_answer(struct answer_info *in)
{
    static const char *const quota[] = { "rateLimitExceeded", "userRateLimitExceeded", "quotaExceeded" };
    const struct json *errors = js_get(in->body, "error.errors");
    enum answer a = answer_by_status(in);

    answer_message(in, in->body, "error.message");
    if (in->status == 403)
        for (size_t i = 0; i < sizeof(quota) / sizeof(quota[0]); i++)
            if (answer_text_is(js_get(js_at(errors, 0), "reason"), quota[i]))
                return ANSWER_LIMITED;
    return a;
}

PROVIDER(gmail,
    .name = "gmail",
    .title = "Gmail",
    .base_url = "https://gmail.googleapis.com",
    .oauth = &google_oauth,
    .resource = "Mailbox",
    .limits = LIMITS({ "user_units", PER_ACCOUNT, 6000, 60000, 0 },
                     { "user_concurrency", PER_ACCOUNT, 0, 0, 10 }),
    .classify = google_answer)

/* A header of a message by name, "" if absent. */
static const char *head(struct call *call, struct json *message, const char *name)
{
    for (struct json *h = js_first(js_get(message, "payload.headers")); h; h = js_next(h))
        if (text_equal_folded(js_str(call, h, "name"), name))
            return js_str(call, h, "value");
    return "";
}

/* ---- search ------------------------------------------------------------------------------------------------------ */

TOOL(gmail_search,
    .provider = &gmail_provider,
    .name = "gmail.search",
    .summary = "Search the user's mail with Gmail's search words",
    .args = FIELDS({ "words", T_STRING, 1, 500, "as in Gmail's search box: from:bob report" },
                   { "count", T_INT, 1, 25, "how many at most; 10 if left out", OPTIONAL }),
    .result = FIELDS({ "messages", T_LIST, 0, 0, "id, thread_id, subject, from, date, preview" }),
    .effect = EFFECT_READS,
    .cost = 20,
    .scopes = NAMES("https://www.googleapis.com/auth/gmail.readonly"))
{
    struct json *found, *list = js_arr(call);
    int64_t count = arg_has(call, "count") ? arg_int(call, "count") : 10;
    enum err e = await_get(call, &found, query(call, "/gmail/v1/users/me/messages", "q", arg_str(call, "words"), "maxResults",
                                               text(call, "%lld", (long long)count), NULL));

    if (e)
        return e;
    for (struct json *it = js_first(js_get(found, "messages")); it; it = js_next(it)) {
        struct json *message, *one = js_obj(call);

        e = await_get(call, &message, query(call, path(call, "/gmail/v1/users/me/messages/{}", js_str(call, it, "id"), NULL), "format", "metadata", NULL));
        if (e)
            return e;
        js_set_str(call, one, "id", js_str(call, message, "id"));
        js_set_str(call, one, "thread_id", js_str(call, message, "threadId"));
        js_set_str(call, one, "subject", head(call, message, "Subject"));
        js_set_str(call, one, "from", head(call, message, "From"));
        js_set_str(call, one, "date", head(call, message, "Date"));
        js_set_str(call, one, "preview", js_str(call, message, "snippet"));
        js_push(call, list, one);
    }
    result_json(call, "messages", list);
    return OK;
}

/* ---- reply ------------------------------------------------------------------------------------------------------- */

/* One line, safe in a mail's head: line ends and other controls become blanks. */
static const char *one_line(struct call *call, const char *s)
{
    char *copy = call_memory(call, 2000);
    size_t n = 0;

    for (; copy && *s && n < 1999; s++)
        copy[n++] = (unsigned char)*s < 0x20 || *s == 0x7f ? ' ' : *s;
    return copy ? copy : "";
}

static bool ascii(const char *s)
{
    for (; *s; s++)
        if ((unsigned char)*s >= 0x80)
            return false;
    return true;
}

/* RFC 2047 where it is not ASCII. */
static const char *subject_line(struct call *call, const char *subject)
{
    bool re = (subject[0] == 'R' || subject[0] == 'r') && (subject[1] == 'e' || subject[1] == 'E') && subject[2] == ':';
    const char *full = re ? one_line(call, subject) : text(call, "Re: %s", one_line(call, subject));
    const char *lines;
    char *joined;
    size_t n = 0;

    if (ascii(full))
        return full;
    lines = text_base64_lines(call, full);
    joined = call_memory(call, 4096);
    for (; joined && *lines && n < 4095; lines++)
        if (*lines != '\r' && *lines != '\n')
            joined[n++] = *lines;
    return text(call, "=?UTF-8?B?%s?=", joined ? joined : "");
}

static const char *message_id(struct call *call)
{
    return text(call, "<%s@sluice.invalid>", call_key(call));
}

static const char *reply_mail(struct call *call, struct json *last)
{
    const char *to = head(call, last, "Reply-To"), *id = one_line(call, head(call, last, "Message-ID"));
    const char *references = one_line(call, head(call, last, "References"));

    if (!*to)
        to = head(call, last, "From");
    return text(call, "From: %s\r\nTo: %s\r\nSubject: %s\r\nMessage-ID: %s\r\nIn-Reply-To: %s\r\nReferences: %s %s\r\nMIME-Version: 1.0\r\n"
                "Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: base64\r\n\r\n%s",
                call_account(call), one_line(call, to), subject_line(call, head(call, last, "Subject")), message_id(call), id, references, id,
                text_base64_lines(call, arg_str(call, "text")));
}

static enum settled was_sent(struct call *call)
{
    struct json *found, *first;

    if (await_get(call, &found, query(call, "/gmail/v1/users/me/messages", "q", text(call, "rfc822msgid:%s", message_id(call)),
                                      "includeSpamTrash", "true", NULL)))
        return SETTLED_UNKNOWN;
    first = js_at(js_get(found, "messages"), 0);
    if (!first)
        return SETTLED_UNKNOWN;             /* the search lags: not found proves nothing */
    result_str(call, "id", js_str(call, first, "id"));
    result_str(call, "thread_id", js_str(call, first, "threadId"));
    return SETTLED_DONE;
}

TOOL(gmail_reply_in_thread,
    .provider = &gmail_provider,
    .name = "gmail.reply_in_thread",
    .summary = "Reply to the newest message of a thread",
    .args = FIELDS({ "thread_id", T_STRING, 1, 64, "from gmail.search" }, { "text", T_TEXT, 1, 60000, "plain text" }),
    .result = FIELDS({ "id", T_STRING, 1, 64, "of the reply" }, { "thread_id", T_STRING, 1, 64, "of its thread" }),
    .effect = EFFECT_WRITES,
    .once = ONCE_CLIENT_ID("Message-ID"),
    .cost = 100,
    .scopes = NAMES("https://www.googleapis.com/auth/gmail.readonly", "https://www.googleapis.com/auth/gmail.send"),
    .reconcile = was_sent)
{
    struct json *thread, *mail = js_obj(call), *reply, *messages;
    enum err e = await_get(call, &thread, query(call, path(call, "/gmail/v1/users/me/threads/{}", arg_str(call, "thread_id"), NULL),
                                                "format", "metadata", NULL));

    if (e)
        return e;
    messages = js_get(thread, "messages");
    if (js_len(messages) == 0)
        return fail(call, E_NO_RESULT, "the thread has no messages");
    js_set_str(call, mail, "threadId", arg_str(call, "thread_id"));
    js_set_str(call, mail, "raw", text_base64url(call, reply_mail(call, js_at(messages, js_len(messages) - 1))));
    e = await_post(call, &reply, "/gmail/v1/users/me/messages/send", mail);
    if (e)
        return e;
    result_str(call, "id", js_str(call, reply, "id"));
    result_str(call, "thread_id", js_str(call, reply, "threadId"));
    return OK;
}
