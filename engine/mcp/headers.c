/*
 * headers.c -- fields that repeat a part of the body (2026-07-28), and Accept
 *
 * Mcp-Name repeats params.name or params.uri, Mcp-Param-<X> the argument whose schema carries "x-mcp-header": "<X>". A
 * value is taken as it is (visible ASCII, blanks and tabs; else the request is refused), unless it has the form
 * =?base64?<standard base64 of UTF-8>?=, which is decoded strictly.
 * What the body has and the field lacks, or the other way round, is a mismatch: whoever decided something by the header
 * decided it for another request.
 *
 *   string    the same bytes                    boolean   true, false
 *   integer   the same number (42.0 is 42)      null      counts as absent
 */
#include <stdio.h>

#include "base/crypto.h"
#include "mcp/internal.h"

enum { SCHEMA_DEPTH = 16 };

enum err mirror_decode(struct arena *a, struct str value, struct str *ret)
{
    static const struct str open = { "=?base64?", 9 }, close = { "?=", 2 };

    for (size_t i = 0; i < value.len; i++)
        if ((unsigned char)value.p[i] > 0x7e)       /* control characters have not come through the parser */
            return E_HEADER_MISMATCH;
    *ret = value;
    if (value.len < open.len + close.len || !str_starts(value, open) || !str_ends(value, close))
        return OK;
    if (b64_decode(a, str_n(value.p + open.len, value.len - open.len - close.len), ret) || !str_utf8_valid(*ret))
        return E_HEADER_MISMATCH;
    return OK;
}

enum err mirror_fits(struct arena *a, const struct http_head *head, const char *field, struct str body,
                        struct errinfo *why)
{
    unsigned n;
    const struct http_header *h = http_head_find(head, field, &n);
    struct str value;

    if (n == 0)
        return body.p ? err_set(why, E_HEADER_MISMATCH, "%s is missing", field) : OK;
    if (n > 1 || mirror_decode(a, h->value, &value))
        return err_set(why, E_HEADER_MISMATCH, "%s is malformed", field);
    if (!body.p || !str_eq(value, body))
        return err_set(why, E_HEADER_MISMATCH, "%s does not say what the body says", field);
    return OK;
}

/* The same value, written once in JSON and once in a header? */
static bool says(struct arena *a, struct str header, const struct json *body)
{
    struct json_error where;
    struct json *number;
    bool b;

    switch (json_type(body)) {
    case JSON_STRING:
        return str_eq(header, json_str(body));
    case JSON_BOOL:
        return json_bool(body, &b) && str_is(header, b ? "true" : "false");
    case JSON_INT:
    case JSON_NUMBER:
        header = arena_str(a, header);
        return header.p && !json_parse(a, header, NULL, &number, &where) && json_is_number(number) &&
            json_num_cmp(number, body) == 0;
    default:
        return true;                    /* no such argument fits its schema: that is what it will be told */
    }
}

static enum err param_mirrors(struct arena *a, const struct http_head *head, struct str name, const struct json *body,
                              struct errinfo *why)
{
    char field[128];
    struct str value;
    unsigned n;
    const struct http_header *h;

    if (!http_is_token(name) || name.len > 100)
        return OK;                      /* such a mark is void: clients drop the tool */
    snprintf(field, sizeof(field), "mcp-param-%.*s", STR_ARG(name));
    h = http_head_find(head, field, &n);
    if (json_is(body, JSON_NULL))
        body = NULL;
    if (!body)
        return n ? err_set(why, E_HEADER_MISMATCH, "%s is there, its argument is not", field) : OK;
    if (n != 1)
        return err_set(why, E_HEADER_MISMATCH, n ? "%s is there twice" : "%s is missing", field);
    if (mirror_decode(a, h->value, &value))
        return err_set(why, E_HEADER_MISMATCH, "%s is malformed", field);
    if (!says(a, value, body))
        return err_set(why, E_HEADER_MISMATCH, "%s does not say what its argument says", field);
    return OK;
}

static enum err params_below(struct arena *a, const struct http_head *head, const struct json *schema,
                             const struct json *args, int depth, struct errinfo *why)
{
    if (depth == SCHEMA_DEPTH)
        return OK;
    for (const struct json *p = json_first(json_get(schema, "properties")); p; p = json_next(p)) {
        const struct json *mark = json_get(p, "x-mcp-header"), *value = json_get_str(args, json_key(p));
        enum err e = OK;

        if (json_is(mark, JSON_STRING))
            e = param_mirrors(a, head, json_str(mark), value, why);
        if (!e && json_get(p, "properties"))
            e = params_below(a, head, p, value, depth + 1, why);
        if (e)
            return e;
    }
    return OK;
}

enum err mirror_params(struct arena *a, const struct http_head *head, const struct json *schema,
                       const struct json *args, struct errinfo *why)
{
    return params_below(a, head, schema, args, 0, why);
}

/* ---- Content-Type and Accept ------------------------------------------------------------------------------------- */

bool body_is_json(const struct http_head *head)
{
    struct str type, before, rest;

    if (!http_head_one(head, "content-type", &type))
        return false;
    if (str_is(type, MEDIA_JSON))
        return true;
    if (str_cut(type, ';', &before, &rest))
        type = before;
    return str_ieq(str_trim(type), STR(MEDIA_JSON));
}

/* "q=0", "q=0.0": not at all. */
static bool refuses(struct str params)
{
    if (!str_starts(params, STR("q=0")))
        return false;
    for (size_t i = 3; i < params.len; i++)
        if (params.p[i] != '.' && params.p[i] != '0')
            return false;
    return true;
}

/* "text/event-stream;q=0.5" against "text/event-stream", ranges included; q=0 refuses. */
static bool range_accepts(struct str range, struct str media)
{
    struct str params = STR_NULL, t, s, type, subtype;

    if (str_ieq(range, media))          /* as nearly all are */
        return true;
    if (!str_cut(range, ';', &range, &params))
        params = STR_NULL;
    range = str_trim(range);
    params = str_trim(params);
    if (refuses(params))
        return false;
    if (!str_cut(range, '/', &t, &s) || !str_cut(media, '/', &type, &subtype))
        return false;
    if (str_is(t, "*"))
        return str_is(s, "*");
    return str_ieq(t, type) && (str_is(s, "*") || str_ieq(s, subtype));
}

/* `first`: of the fields called Accept. */
static bool allows(const struct http_head *head, const struct http_header *first, struct str media)
{
    for (const struct http_header *f = first; f < head->headers + head->n_headers; f++) {
        struct str rest = f->value, one;

        if (!str_ieq(f->name, STR("accept")))
            continue;
        for (bool more = true; more; ) {
            more = str_cut(rest, ',', &one, &rest);
            if (range_accepts(str_trim(more ? one : rest), media))
                return true;
        }
    }
    return false;
}

struct accepted accepted_by(const struct http_head *head)
{
    unsigned n;
    const struct http_header *f = http_head_find(head, "accept", &n);

    /* none said: all are fine; and what the protocol asks of clients */
    if (n == 0 || (n == 1 && str_is(f->value, MEDIA_JSON ", " MEDIA_SSE)))
        return (struct accepted){ .json = true, .sse = true };
    return (struct accepted){ .json = allows(head, f, STR(MEDIA_JSON)), .sse = allows(head, f, STR(MEDIA_SSE)) };
}
