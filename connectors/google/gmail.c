/*
 * gmail.c -- mail of a Google account, through the Gmail API v1
 *
 * Tools:     gmail.search, gmail.reply_in_thread
 * Upstream:  GET /gmail/v1/users/me/messages[/{id}], GET .../threads/{id}, POST .../messages/send
 *
 * Gmail has no idempotency key.  A reply carries a Message-ID of ours made from the call's key, which Gmail keeps, so a
 * lost answer can be settled by reading the thread back.  Found means done; not found proves nothing.
 *
 * What goes into a mail's head comes from other people's mail.  Of addresses and Message-IDs only what is visible ASCII
 * and shaped like one is taken over; of a subject, control characters become blanks.  From is left to Gmail, which
 * knows whose mailbox it is.
 *
 * Limits are units per user and per project; what a request costs is in the table below.  A throttle that does not say
 * whose quota it was is taken as the user's: nobody's mailbox stops another tenant's.
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
    static const struct {
        const char *reason, *limit;
    } quota[] = { { "rateLimitExceeded", "user_units" }, { "userRateLimitExceeded", "user_units" },
                  { "quotaExceeded", "user_units" }, { "dailyLimitExceeded", "project_units" } };
    const struct json *reason = js_get(js_at(js_get(in->body, "error.errors"), 0), "reason");
    enum answer a = answer_by_status(in);

    answer_message(in, in->body, "error.message");
    for (size_t i = 0; (in->status == 403 || in->status == 429) && i < sizeof(quota) / sizeof(quota[0]); i++) {
        if (answer_text_is(reason, quota[i].reason)) {
            in->limit = quota[i].limit;
            a = ANSWER_LIMITED;
        }
    }
    if (a == ANSWER_LIMITED && !in->retry_after_ms)
        answer_retry_said(in, "Retry after ");          /* in some messages */
    return a;
}

PROVIDER(gmail,
    .name = "gmail",
    .title = "Gmail",
    .base_url = "https://gmail.googleapis.com",
    .oauth = &google_oauth,
    .resource = "Mailbox",
    .limits = LIMITS({ .name = "user_units", .scope = PER_ACCOUNT, .amount = 6000, .window_ms = 60000, .unit = "units",
                       .source = "documented 2026-05; projects made before: 15,000" },
                     { .name = "project_units", .scope = PER_PROVIDER, .amount = 1200000, .window_ms = 60000,
                       .unit = "units", .source = "documented 2026-05: per project, all users" },
                     { .name = "user_concurrency", .scope = PER_ACCOUNT, .concurrency = 10,
                       .source = "hearsay: there is a cap, its number is not published" }),
    .requests = REQUESTS({ .request = "GET /gmail/v1/users/me/messages", .cost = 5 },
                         { .request = "GET /gmail/v1/users/me/messages/{}", .cost = 20 },
                         { .request = "GET /gmail/v1/users/me/threads/{}", .cost = 40 },
                         { .request = "POST /gmail/v1/users/me/messages/send", .cost = 100 }),
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

static enum err await_message(struct call *call, struct json **ret, const char *id)
{
    const char *at = path(call, "/gmail/v1/users/me/messages/{}", id, NULL);

    return await_get(call, ret, query(call, at, "format", "metadata", "metadataHeaders", "Subject",
                                      "metadataHeaders", "From", "metadataHeaders", "Date", NULL));
}

TOOL(gmail_search,
    .provider = &gmail_provider,
    .name = "gmail.search",
    .summary = "Search the user's mail with Gmail's search words",
    .args = FIELDS({ "words", T_STRING, 1, 500, "as in Gmail's search box: from:bob report" },
                   { "count", T_INT, 1, 25, "how many at most; 10 if left out", OPTIONAL }),
    .result = FIELDS({ "messages", T_LIST, 0, 0, "id, thread_id, subject, from, date, preview" }),
    .effect = EFFECT_READS,
    .scopes = NAMES("https://www.googleapis.com/auth/gmail.readonly"))
{
    struct json *found, *list = js_arr(call);
    const char *count = text_int(call, arg_has(call, "count") ? arg_int(call, "count") : 10);
    enum err e = await_get(call, &found, query(call, "/gmail/v1/users/me/messages", "q", arg_str(call, "words"),
                                               "maxResults", count, NULL));

    if (e)
        return e;
    for (struct json *it = js_first(js_get(found, "messages")); it; it = js_next(it)) {
        struct json *message, *one = js_obj(call);

        e = await_message(call, &message, js_str(call, it, "id"));
        if (e == E_UPSTREAM_REFUSED && last_status(call) == 404)
            continue;                       /* deleted since it was found */
        if (e)
            return e;
        js_copy_str(call, one, "id", js_get(message, "id"));
        js_copy_str(call, one, "thread_id", js_get(message, "threadId"));
        js_set_str(call, one, "subject", head(call, message, "Subject"));
        js_set_str(call, one, "from", head(call, message, "From"));
        js_set_str(call, one, "date", head(call, message, "Date"));
        js_copy_str(call, one, "preview", js_get(message, "snippet"));
        js_push(call, list, one);
    }
    result_json(call, "messages", list);
    return OK;
}

/* ---- a mail's head ----------------------------------------------------------------------------------------------- */

enum { SUBJECT_MAX = 900, ID_MAX = 250, IDS_MAX = 20, ADDRESSES_MAX = 20, WORD_BYTES = 45 };

static bool visible(char c)
{
    return c > 0x20 && c < 0x7f;
}

/* At most SUBJECT_MAX bytes, cut between characters; controls become blanks. */
static const char *one_line(struct call *call, const char *s)
{
    char *copy = call_memory(call, SUBJECT_MAX + 1);
    size_t n = 0;

    for (; copy && s[n] && n < SUBJECT_MAX; n++)
        copy[n] = (unsigned char)s[n] < 0x20 || s[n] == 0x7f ? ' ' : s[n];
    while (copy && n > 0 && s[n] && (s[n] & 0xc0) == 0x80)
        copy[n--] = '\0';
    if (copy)
        copy[n] = '\0';
    return copy ? copy : "";
}

/* RFC 2047: words of at most 75 characters, each of whole characters, one to a line. */
static const char *encoded_words(struct call *call, const char *s)
{
    const char *words = "";

    while (*s) {
        size_t n = 0;

        while (s[n] && n < WORD_BYTES)
            n++;
        while (n > 1 && (s[n] & 0xc0) == 0x80)
            n--;
        words = text(call, "%s%s=?UTF-8?B?%.*s?=", words, *words ? "\r\n " : "", (int)((n + 2) / 3 * 4),
                     text_base64_lines(call, text(call, "%.*s", (int)n, s)));
        s += n;
    }
    return words;
}

static const char *subject_line(struct call *call, const char *subject)
{
    bool re = (subject[0] == 'R' || subject[0] == 'r') && (subject[1] == 'E' || subject[1] == 'e') && subject[2] == ':';
    const char *full = text(call, "%s%s", re ? "" : "Re: ", one_line(call, subject));

    for (const char *p = full; *p; p++)
        if (*p != ' ' && !visible(*p))
            return encoded_words(call, full);
    return full;
}

/* The next <...> of a header that lists Message-IDs; NULL when there is none. */
static const char *next_id(struct call *call, const char **at)
{
    for (const char *p = *at; *p; p++) {
        const char *end = p + 1;

        if (*p != '<')
            continue;
        while (visible(*end) && *end != '<' && *end != '>')
            end++;
        if (*end != '>' || end - p >= ID_MAX)
            continue;
        *at = end + 1;
        return text(call, "%.*s", (int)(end + 1 - p), p);
    }
    return NULL;
}

/* "References: <a>\r\n <b>\r\n": the newest IDS_MAX. "" if there are none. */
static const char *references(struct call *call, struct json *last)
{
    const char *at = text(call, "%s %s", head(call, last, "References"), head(call, last, "Message-ID"));
    const char *ids[IDS_MAX], *id, *lines = "";
    size_t n = 0;

    while ((id = next_id(call, &at)))
        ids[n++ % IDS_MAX] = id;
    for (size_t i = n > IDS_MAX ? n - IDS_MAX : 0; i < n; i++)
        lines = text(call, "%s%s %s\r\n", lines, *lines ? "" : "References:", ids[i % IDS_MAX]);
    return lines;
}

/* local@domain of what stands between commas or brackets; NULL if it is none. */
static const char *mailbox(struct call *call, const char *p, size_t n)
{
    size_t ats = 0;

    while (n && *p == ' ')
        p++, n--;
    while (n && p[n - 1] == ' ')
        n--;
    for (size_t i = 0; i < n; i++) {
        if (!visible(p[i]) || p[i] == '<' || p[i] == '>' || p[i] == '[' || p[i] == ']' || p[i] == '\\')
            return NULL;
        if (p[i] == '@')
            ats++;
    }
    return ats == 1 && n >= 3 && n <= 254 && p[0] != '@' && p[n - 1] != '@' ? text(call, "%.*s", (int)n, p) : NULL;
}

/* What is quoted or in parentheses is for people, and may contain anything: it becomes blanks. */
static char *without_words(struct call *call, const char *list)
{
    size_t n = 0, depth = 0;
    bool quoted = false;
    char *plain;

    while (list[n])
        n++;
    plain = call_memory(call, n + 1);
    for (size_t i = 0; plain && i < n; i++) {
        bool hidden = quoted || depth;

        if (list[i] == '\\' && hidden && list[i + 1]) {
            plain[i++] = ' ';
            plain[i] = ' ';
            continue;
        }
        if (list[i] == '"' && !depth)
            quoted = !quoted;
        else if (list[i] == '(' && !quoted)
            depth++;
        else if (list[i] == ')' && depth)
            depth--;
        plain[i] = hidden || quoted || depth ? ' ' : list[i];
    }
    return plain;
}

struct addresses {
    const char *at[ADDRESSES_MAX];
    size_t n;
};

static void add_address(struct addresses *to, const char *one)
{
    for (size_t i = 0; i < to->n; i++)
        if (text_equal_folded(to->at[i], one))
            return;
    to->at[to->n++] = one;
}

/* The addresses of a header like To or From, each once: what stands in <>, or alone. */
static struct addresses addresses(struct call *call, const char *list)
{
    const char *p = without_words(call, list);
    struct addresses found = { .n = 0 };

    while (p && *p && found.n < ADDRESSES_MAX) {
        const char *start = p, *one;

        for (; *p && *p != ',' && *p != ';' && *p != ':' && *p != '>'; p++)
            if (*p == '<')
                start = p + 1;
        one = mailbox(call, start, (size_t)(p - start));
        if (one)
            add_address(&found, one);
        if (*p == '>')                      /* nothing more belongs to this one */
            while (*p && *p != ',' && *p != ';')
                p++;
        if (*p)
            p++;
    }
    return found;
}

/* ---- reply ------------------------------------------------------------------------------------------------------- */

static const char *message_id(struct call *call)
{
    return text(call, "<%s@sluice.invalid>", call_key(call));
}

static bool has_label(struct json *message, const char *label)
{
    for (struct json *l = js_first(js_get(message, "labelIds")); l; l = js_next(l))
        if (answer_text_is(l, label))
            return true;
    return false;
}

/* The newest message that is no draft; NULL if there is none. */
static struct json *newest(struct json *thread)
{
    struct json *last = NULL;

    for (struct json *m = js_first(js_get(thread, "messages")); m; m = js_next(m))
        if (!has_label(m, "DRAFT"))
            last = m;
    return last;
}

/* Whom a reply goes to: who wrote, or whom the user wrote to when the newest message is the user's own. */
static struct addresses answers_to(struct call *call, struct json *last)
{
    const char *to = head(call, last, has_label(last, "SENT") ? "To" : "Reply-To");

    return addresses(call, *to ? to : head(call, last, "From"));
}

static const char *reply_mail(struct call *call, struct json *last, const struct addresses *to)
{
    const char *answered = head(call, last, "Message-ID"), *id = next_id(call, &answered), *line = "";

    for (size_t i = 0; i < to->n; i++)
        line = text(call, "%s%s%s", line, i ? ",\r\n " : "", to->at[i]);
    return text(call, "To: %s\r\nSubject: %s\r\nMessage-ID: %s\r\n%s%s%s%sMIME-Version: 1.0\r\n"
                "Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: base64\r\n\r\n%s",
                line, subject_line(call, head(call, last, "Subject")), message_id(call),
                id ? "In-Reply-To: " : "", id ? id : "", id ? "\r\n" : "", references(call, last),
                text_base64_lines(call, arg_str(call, "text")));
}

static void reply_result(struct call *call, struct json *message, const struct addresses *to)
{
    struct json *list = js_arr(call);

    for (size_t i = 0; i < to->n; i++)
        js_push_str(call, list, to->at[i]);
    result_str(call, "id", js_str(call, message, "id"));
    result_str(call, "thread_id", js_str(call, message, "threadId"));
    result_json(call, "to", list);
}

static enum err await_thread(struct call *call, struct json **ret)
{
    const char *at = path(call, "/gmail/v1/users/me/threads/{}", arg_str(call, "thread_id"), NULL);

    return await_get(call, ret, query(call, at, "format", "metadata", NULL));
}

static enum settled await_was_sent(struct call *call)
{
    const char *ours = message_id(call);
    struct json *thread;

    if (await_thread(call, &thread))
        return SETTLED_UNKNOWN;
    for (struct json *m = js_first(js_get(thread, "messages")); m; m = js_next(m)) {
        struct addresses to = addresses(call, head(call, m, "To"));

        if (!text_equal_folded(head(call, m, "Message-ID"), ours))
            continue;
        reply_result(call, m, &to);
        return SETTLED_DONE;
    }
    return SETTLED_UNKNOWN;
}

TOOL(gmail_reply_in_thread,
    .provider = &gmail_provider,
    .name = "gmail.reply_in_thread",
    .summary = "Reply to the newest message of a thread",
    .args = FIELDS({ "thread_id", T_STRING, 1, 64, "from gmail.search" }, { "text", T_TEXT, 1, 60000, "plain text" }),
    .result = FIELDS({ "id", T_STRING, 1, 64, "of the reply" }, { "thread_id", T_STRING, 1, 64, "of its thread" },
                     { "to", T_STRING_LIST, 0, 0, "whom it was sent to" }),
    .effect = EFFECT_WRITES,
    .scopes = NAMES("https://www.googleapis.com/auth/gmail.readonly", "https://www.googleapis.com/auth/gmail.send"),
    .reconcile = await_was_sent)
{
    struct json *thread, *last, *mail = js_obj(call), *reply;
    struct addresses to;
    enum err e = await_thread(call, &thread);

    if (e)
        return e;
    last = newest(thread);
    if (!last)
        return fail(call, E_NO_RESULT, "the thread has no messages");
    to = answers_to(call, last);
    if (to.n == 0)
        return fail(call, E_NO_RESULT, "the newest message names nobody to reply to");
    js_set_str(call, mail, "threadId", arg_str(call, "thread_id"));
    js_set_str(call, mail, "raw", text_base64url(call, reply_mail(call, last, &to)));
    e = await_post(call, &reply, "/gmail/v1/users/me/messages/send", mail);
    if (e)
        return e;
    reply_result(call, reply, &to);
    return OK;
}
