/*
 * slack.c -- messages in Slack, through its Web API
 *
 * Tools:     slack.post_message, slack.reply_in_thread, slack.message_user
 * Upstream:  conversations.list, users.lookupByEmail, conversations.open, chat.postMessage, conversations.history,
 *            conversations.replies
 *
 * HTTP 200 is not success: the body's "ok" is.  There is no idempotency key; a post carries the call's key as metadata,
 * so that a lost answer can be settled by reading the channel back (that is what the history scopes are for).  Found
 * means done; not found proves nothing.
 *
 * Policies compare names letter by letter, so one channel has one name here: no "#", and letter by letter as in Slack.
 * The same holds for a person's address.
 *
 * Limits are per method and workspace, in tiers, and about one post a second and channel.  A throttle names neither:
 * it is taken as the narrowest's, the channel's where something was posted.
 */
#include "connectors/connector.h"

static const struct oauth slack_oauth = {
    .auth_url = "https://slack.com",
    .authorize_path = "/oauth/v2/authorize",
    .token_path = "/api/oauth.v2.access",
    .rotates = true,
    .scope_separator = ",",
};

static enum answer slack_answer(struct answer_info *in)
{
    static const struct {
        const char *error;
        enum answer means;
    } known[] = {
        { "ratelimited", ANSWER_LIMITED }, { "rate_limited", ANSWER_LIMITED },
        { "invalid_auth", ANSWER_AUTH }, { "not_authed", ANSWER_AUTH },
        { "token_expired", ANSWER_AUTH }, { "token_revoked", ANSWER_AUTH },
        { "internal_error", ANSWER_UNKNOWN }, { "fatal_error", ANSWER_UNKNOWN }, { "request_timeout", ANSWER_UNKNOWN },
        { "service_unavailable", ANSWER_UNKNOWN },
        { "already_reacted", ANSWER_CONFLICT }, { "name_taken", ANSWER_CONFLICT },
    };
    enum answer a = answer_by_status(in);

    if (a != ANSWER_DONE || js_bool(in->body, "ok"))
        return a;
    if (!js_get(in->body, "ok"))
        return ANSWER_UNKNOWN;              /* not Slack's words: something in between answered */
    answer_message(in, in->body, "error");
    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
        if (text_equal_folded(in->message, known[i].error))
            return known[i].means;
    return ANSWER_REFUSED;
}

PROVIDER(slack,
    .name = "slack",
    .title = "Slack",
    .base_url = "https://slack.com",
    .oauth = &slack_oauth,
    .resource = "Channel",
    .limits = LIMITS({ .name = "tier_2", .scope = PER_METHOD, .amount = 20, .window_ms = 60000,
                       .source = "documented: at least 20 a minute per method, workspace and app" },
                     { .name = "tier_3", .scope = PER_METHOD, .amount = 50, .window_ms = 60000,
                       .source = "documented: at least 50 a minute; 1 for apps sold outside the Marketplace" },
                     { .name = "posts", .scope = PER_METHOD, .amount = 200, .window_ms = 60000,
                       .source = "hearsay: several hundred a minute and workspace" },
                     { .name = "channel_posts", .scope = PER_RESOURCE, .spacing_ms = 1000,
                       .source = "documented: about one message a second and channel" }),
    .requests = REQUESTS({ .request = "POST /api/chat.postMessage", .limits = NAMES("posts", "channel_posts"),
                           .resource = "channel" },
                         { .request = "POST /api/conversations.list", .limits = NAMES("tier_2") },
                         { .request = "POST /api/*", .limits = NAMES("tier_3") }),
    .classify = slack_answer)

/* Slack wants less than 1,000 on a page, and leaves archived channels out after it has cut the page. Pages are three
 * seconds apart, by tier_2; a channel takes some 3 KB of the call's memory as text and tree. */
enum { PAGE = 999, PAGES_MAX = 8, CHANNELS_MAX = 4000 };

/* ---- finding ----------------------------------------------------------------------------------------------------- */

static enum err await_channel(struct call *call, const char **ret_id)
{
    const char *name = arg_str(call, "channel"), *cursor = "";
    size_t seen = 0;

    if (*name == '#')
        return fail(call, E_ARGS_INVALID, "the channel's name is written without #");
    for (int i = 0; i < PAGES_MAX && seen < CHANNELS_MAX; i++) {
        struct json *fields = js_obj(call), *reply;
        enum err e;

        js_set_str(call, fields, "limit", text_int(call, PAGE));
        js_set_str(call, fields, "exclude_archived", "true");
        js_set_str(call, fields, "types", "public_channel,private_channel");
        if (*cursor)
            js_set_str(call, fields, "cursor", cursor);
        e = await_query_form(call, &reply, "/api/conversations.list", fields);
        if (e)
            return e;
        for (struct json *channel = js_first(js_get(reply, "channels")); channel; channel = js_next(channel)) {
            if (answer_text_is(js_get(channel, "name"), name)) {
                *ret_id = js_str(call, channel, "id");
                return OK;
            }
        }
        cursor = js_str(call, reply, "response_metadata.next_cursor");
        if (!*cursor)
            return fail(call, E_NO_RESULT, "no channel called \"%s\" that the app can see", name);
        seen += js_len(js_get(reply, "channels"));
    }
    return fail(call, E_NO_RESULT,
                "no channel called \"%s\" among the first %zu that the app can see; there are more, which are too many "
                "to look through", name, seen);
}

/* The direct message channel with whoever has this address. */
static enum err await_person(struct call *call, const char **ret_channel)
{
    struct json *fields = js_obj(call), *open = js_obj(call), *reply;
    const char *user, *email = arg_str(call, "email");
    enum err e;

    js_set_str(call, fields, "email", email);
    e = await_query_form(call, &reply, "/api/users.lookupByEmail", fields);
    if (e == E_UPSTREAM_REFUSED && answer_text_is(js_get(reply, "error"), "users_not_found"))
        return fail(call, E_NO_RESULT, "nobody in the workspace has the address %s", email);
    if (e)
        return e;
    if (!text_equal_folded(js_str(call, reply, "user.profile.email"), email))
        return fail(call, E_NO_RESULT, "the workspace does not confirm that %s is the address of whom it found", email);
    user = js_str(call, reply, "user.id");
    js_set_str(call, open, "users", user);
    /* opening a conversation that exists answers it: nothing anybody would notice */
    e = await_query_form(call, &reply, "/api/conversations.open", open);
    if (e)
        return e;
    *ret_channel = js_str(call, reply, "channel.id");
    return OK;
}

/* ---- posting ----------------------------------------------------------------------------------------------------- */

static enum err await_message(struct call *call, const char *channel, const char *thread)
{
    struct json *message = js_obj(call), *metadata = js_obj(call), *payload = js_obj(call), *reply;
    enum err e;

    keep_str(call, "channel", channel);
    js_set_str(call, message, "channel", channel);
    js_set_str(call, message, "text", arg_str(call, "text"));
    if (thread)
        js_set_str(call, message, "thread_ts", thread);
    js_set_str(call, payload, "key", call_key(call));
    js_set_str(call, metadata, "event_type", "sluice_call");
    js_set(call, metadata, "event_payload", payload);
    js_set(call, message, "metadata", metadata);
    e = await_post(call, &reply, "/api/chat.postMessage", message);
    if (e)
        return e;
    result_str(call, "channel", js_str(call, reply, "channel"));
    result_str(call, "ts", js_str(call, reply, "ts"));
    return OK;
}

enum { LOOK_BACK_S = 60 };      /* how far the clocks of Slack and of the engine may be apart */

static enum settled await_look(struct call *call, const char *method, const char *thread)
{
    const char *channel = kept_str(call, "channel");
    struct json *fields = js_obj(call), *reply;

    if (!*channel)
        return SETTLED_NOT_DONE;            /* the post itself was never tried */
    js_set_str(call, fields, "channel", channel);
    js_set_str(call, fields, "include_all_metadata", "true");
    js_set_str(call, fields, "oldest", text_int(call, call_time(call) / 1000 - LOOK_BACK_S));
    js_set_str(call, fields, "limit", "15");
    if (thread)
        js_set_str(call, fields, "ts", thread);
    if (await_query_form(call, &reply, method, fields))
        return SETTLED_UNKNOWN;
    for (struct json *m = js_first(js_get(reply, "messages")); m; m = js_next(m)) {
        if (text_equal_folded(js_str(call, m, "metadata.event_payload.key"), call_key(call))) {
            result_str(call, "channel", channel);
            result_str(call, "ts", js_str(call, m, "ts"));
            return SETTLED_DONE;
        }
    }
    return SETTLED_UNKNOWN;
}

static enum settled await_was_posted(struct call *call)
{
    return await_look(call, "/api/conversations.history", NULL);
}

static enum settled await_was_replied(struct call *call)
{
    return await_look(call, "/api/conversations.replies", arg_str(call, "thread"));
}

#define CHANNEL { "channel", T_STRING, 1, 80, "name as in Slack, without #" }
#define CHANNEL_SCOPES NAMES("channels:read", "groups:read", "chat:write", "channels:history", "groups:history")
#define POSTED FIELDS({ "channel", T_STRING, 1, 64, "its id" }, \
                      { "ts", T_STRING, 1, 64, "the message's timestamp: its name in the channel" })

TOOL(slack_post_message,
    .provider = &slack_provider,
    .name = "slack.post_message",
    .summary = "Post a message to a channel given by its name",
    .args = FIELDS(CHANNEL, { "text", T_TEXT, 1, 12000, "mrkdwn" }),
    .result = POSTED,
    .effect = EFFECT_WRITES,
    .scopes = CHANNEL_SCOPES,
    .resource = "channel",
    .reconcile = await_was_posted)
{
    const char *channel = NULL;
    enum err e = await_channel(call, &channel);

    return e ? e : await_message(call, channel, NULL);
}

static bool is_timestamp(const char *s)
{
    int dots = 0, digits = 0;

    for (; *s; s++) {
        if (*s == '.')
            dots++;
        else if (*s >= '0' && *s <= '9')
            digits++;
        else
            return false;
    }
    return dots == 1 && digits > 1;
}

TOOL(slack_reply_in_thread,
    .provider = &slack_provider,
    .name = "slack.reply_in_thread",
    .summary = "Reply in the thread of a message",
    .args = FIELDS(CHANNEL, { "thread", T_STRING, 1, 64, "timestamp of the thread's first message: 1732090000.000100" },
                   { "text", T_TEXT, 1, 12000, "mrkdwn" }),
    .result = POSTED,
    .effect = EFFECT_WRITES,
    .scopes = CHANNEL_SCOPES,
    .resource = "channel",
    .reconcile = await_was_replied)
{
    const char *channel = NULL;
    enum err e = OK;

    if (!is_timestamp(arg_str(call, "thread")))
        return fail(call, E_ARGS_INVALID, "thread is no timestamp of a message");
    e = await_channel(call, &channel);
    return e ? e : await_message(call, channel, arg_str(call, "thread"));
}

TOOL(slack_message_user,
    .provider = &slack_provider,
    .name = "slack.message_user",
    .summary = "Send a direct message to the person with an e-mail address",
    .args = FIELDS({ "email", T_EMAIL, 0, 0, "of the person" }, { "text", T_TEXT, 1, 12000, "mrkdwn" }),
    .result = POSTED,
    .effect = EFFECT_WRITES,
    .scopes = NAMES("users:read", "users:read.email", "im:write", "chat:write", "im:history"),
    .resource = "email",
    .reconcile = await_was_posted)
{
    const char *channel = NULL;
    enum err e = await_person(call, &channel);

    return e ? e : await_message(call, channel, NULL);
}
