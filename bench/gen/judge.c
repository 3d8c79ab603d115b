/*
 * judge.c -- see judge.h
 *
 * Answers are read exactly only where the words that make an error occur in them at all: a search costs a tenth of a
 * parse, and the load must not take the processor from what it measures.
 */
#include <stdio.h>

#include "bench/gen/judge.h"
#include "json/json.h"

static const char *const refusals[] = { "rate_limited", "overloaded", "deadline", "draining", "upstream_limited",
                                        "upstream_unwell", "budget" };

static bool has(struct str in, const char *words)
{
    return in.len && memmem(in.p, in.len, words, strlen(words));
}

static bool is_refusal(struct str text)
{
    for (size_t i = 0; i < sizeof(refusals) / sizeof(refusals[0]); i++)
        if (has(text, refusals[i]))
            return true;
    return false;
}

/* The engine names its errors in _meta of a result and in data of an error. */
static struct str error_name(const struct json *in)
{
    struct json *meta = json_get(in, "_meta");

    return json_str(json_get(meta ? meta : json_get(in, "data"), "dev.sluice/error"));
}

static void set_reason(char reason[REASON_MAX], struct str name)
{
    snprintf(reason, REASON_MAX, "%.*s", STR_ARG(name));
    for (char *p = reason; *p; p++)             /* it becomes a key of JSON */
        if (*p < ' ' || *p > '~' || *p == '"' || *p == '\\')
            *p = '?';
}

/* One JSON-RPC message, or any other JSON. */
static enum verdict judge_message(int status, const struct json *j, struct str text, char reason[REASON_MAX])
{
    struct json *error = json_get(j, "error"), *result = json_get(j, "result");
    struct str name = error_name(error ? error : result);
    bool is_error = false;
    int64_t code;

    json_bool(json_get(result, "isError"), &is_error);
    if (!error && !is_error && status / 100 == 2)
        return VERDICT_OK;
    if (name.len)
        set_reason(reason, name);
    else if (json_int(json_get(error, "code"), &code))
        snprintf(reason, REASON_MAX, "rpc_%lld", (long long)code);
    else if (is_error)
        set_reason(reason, STR("tool_error"));
    else
        snprintf(reason, REASON_MAX, "http_%d", status);
    return status == 429 || status == 503 || is_refusal(name.len ? name : text) ? VERDICT_REFUSED : VERDICT_FAILED;
}

/* A batch is as good as the worst in it. */
static enum verdict judge_json(int status, const struct json *j, struct str text, char reason[REASON_MAX])
{
    enum verdict worst = VERDICT_OK;

    if (json_type(j) != JSON_ARRAY)
        return judge_message(status, j, text, reason);
    for (const struct json *it = json_first(j); it; it = json_next(it)) {
        char why[REASON_MAX] = "";
        enum verdict v = judge_message(status, it, text, why);

        if (v > worst) {
            worst = v;
            memcpy(reason, why, REASON_MAX);
        }
    }
    return worst;
}

enum verdict judge(int status, struct str message, char reason[REASON_MAX])
{
    struct arena arena;
    struct json *j = NULL;
    enum verdict v;

    if (status / 100 == 2 && !has(message, "\"isError\":true") && !has(message, "\"isError\": true") &&
        !has(message, "\"error\":"))
        return VERDICT_OK;
    arena_init(&arena, 64 << 20);
    if (json_parse(&arena, message, NULL, &j, NULL) == OK) {
        v = judge_json(status, j, message, reason);
    } else {
        snprintf(reason, REASON_MAX, status / 100 == 2 ? "not_json" : "http_%d", status);
        v = status == 429 || status == 503 ? VERDICT_REFUSED : VERDICT_FAILED;
    }
    arena_release(&arena);
    return v;
}

const char *verdict_name(enum verdict v)
{
    return v == VERDICT_OK ? "ok" : v == VERDICT_REFUSED ? "refused" : "failed";
}
