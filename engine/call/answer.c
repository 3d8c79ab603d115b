/*
 * answer.c -- how answers of providers are read: what connectors' classify functions share
 */
#include "base/check.h"
#include "call/internal.h"
#include "call/quota.h"

static const char *field(void *arg, const char *name)
{
    struct answer_info *in = arg;

    return in->header(in, name);
}

static bool retry_at(struct answer_info *in, struct str moment)
{
    int64_t ms = quota_wait_ms(moment, quota_clock(field, in, loop_wall_ms()));

    if (ms < 0)
        return false;
    in->retry_after_ms = ms;
    return true;
}

bool answer_retry_at(struct answer_info *in, const char *moment)
{
    return moment && retry_at(in, str_of(moment));
}

bool answer_retry_said(struct answer_info *in, const char *words)
{
    const char *at = strstr(in->message, words);

    if (!at)
        return false;
    at += strlen(words);
    return retry_at(in, str_n(at, strcspn(at, " ")));
}

enum answer answer_by_status(struct answer_info *in)
{
    const char *after = in->header(in, "retry-after");

    answer_retry_at(in, after);
    if (in->status >= 200 && in->status < 300)
        return ANSWER_DONE;
    switch (in->status) {
    case 401:
        return ANSWER_AUTH;
    case 409:
    case 412:
        return ANSWER_CONFLICT;
    case 429:
        return ANSWER_LIMITED;
    case 503:
        return after ? ANSWER_NOT_EXECUTED : ANSWER_UNKNOWN;
    case 408:
    case 303:                           /* "see there for what came of it" */
        return ANSWER_UNKNOWN;
    case 501:
    case 505:
        return ANSWER_REFUSED;
    default:
        /* what a server or something in front of it says of itself proves nothing about the request: 507, 520, 524,
         * 529 */
        return in->status >= 500 ? ANSWER_UNKNOWN : ANSWER_REFUSED;
    }
}

/* The provider's words, cut to what fits, without what could break a line. */
void answer_message(struct answer_info *in, const struct json *body, const char *path)
{
    struct str s = json_str(js_get(body, path));
    size_t n = 0;

    for (size_t i = 0; i < s.len && n + 1 < sizeof(in->message); i++)
        in->message[n++] = (unsigned char)s.p[i] < 0x20 ? ' ' : s.p[i];
    while (n > 0 && !str_utf8_valid(str_n(in->message, n)))
        n--;                            /* the cut may have gone through a character */
    in->message[n] = '\0';
}

bool answer_text_is(const struct json *string, const char *text)
{
    return str_is(json_str(string), text);
}
