/*
 * body.c -- what a connector's body may call: connectors/connector.h over the engine's own types
 *
 * Nothing here trusts a body more than its header promises: names it asks for must be declared, paths are encoded piece
 * by piece, values are checked before they become a request.  Everything lives in the call's arena; NULL goes in and
 * out.
 */
#include <math.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>

#include "base/check.h"
#include "base/crypto.h"
#include "base/escape.h"
#include "call/exchange.h"
#include "call/internal.h"

/* ---- arguments --------------------------------------------------------------------------------------------------- */

struct json *arg(struct call *c, const char *name)
{
    struct json *j = json_get(c->args, name);

    return json_is(j, JSON_NULL) ? NULL : j;
}

bool arg_has(struct call *c, const char *name)
{
    return arg(c, name) != NULL;
}

static const char *text_of(struct call *c, const struct json *j)
{
    const char *z = json_is(j, JSON_STRING) ? arena_z(&c->arena, json_str(j)) : NULL;

    return z ? z : "";
}

const char *arg_str(struct call *c, const char *name)
{
    return text_of(c, arg(c, name));
}

int64_t arg_int(struct call *c, const char *name)
{
    int64_t v = 0;

    json_int(arg(c, name), &v);
    return v;
}

double arg_number(struct call *c, const char *name)
{
    double v = 0;

    json_double(arg(c, name), &v);
    return v;
}

bool arg_bool(struct call *c, const char *name)
{
    bool v = false;

    json_bool(arg(c, name), &v);
    return v;
}

int64_t arg_time(struct call *c, const char *name)
{
    wall_ms_t t = 0;

    if (wall_parse(json_str(arg(c, name)), &t))
        return 0;
    return t;
}

size_t arg_count(struct call *c, const char *name)
{
    return json_len(arg(c, name));
}

const char *arg_item(struct call *c, const char *name, size_t i)
{
    return text_of(c, json_at(arg(c, name), i));
}

const char *call_key(struct call *c)
{
    return c->key_text;
}

const char *call_account(struct call *c)
{
    const char *z = arena_z(&c->arena, c->account.label);

    return z ? z : "";
}

int64_t call_time(struct call *c)
{
    return c->began_wall;
}

/* ---- JSON and text ----------------------------------------------------------------------------------------------- */

struct json *js_obj(struct call *c)                         { return json_object(&c->arena); }
struct json *js_arr(struct call *c)                         { return json_array(&c->arena); }
struct json *js_text(struct call *c, const char *s)         { return json_string_z(&c->arena, s ? s : ""); }
size_t js_len(const struct json *v)                         { return json_len(v); }
struct json *js_at(const struct json *arr, size_t i)        { return json_at(arr, i); }
struct json *js_take(struct json *obj, const char *key)     { return json_del(obj, key); }
struct json *js_first(const struct json *arr)               { return json_first(arr); }
struct json *js_next(const struct json *item)               { return json_next(item); }

void js_set(struct call *c, struct json *obj, const char *key, struct json *value)
{
    json_set(&c->arena, obj, key, value);
}

void js_set_str(struct call *c, struct json *obj, const char *key, const char *value)
{
    json_set_z(&c->arena, obj, key, value);
}

void js_set_int(struct call *c, struct json *obj, const char *key, int64_t value)
{
    json_set_int(&c->arena, obj, key, value);
}

void js_set_bool(struct call *c, struct json *obj, const char *key, bool value)
{
    json_set_bool(&c->arena, obj, key, value);
}

void js_push(struct call *c, struct json *arr, struct json *value)
{
    json_push(&c->arena, arr, value);
}

void js_push_str(struct call *c, struct json *arr, const char *value)
{
    json_push(&c->arena, arr, json_string_z(&c->arena, value ? value : ""));
}

struct json *js_parse(struct call *c, const char *z)
{
    struct str copy = arena_str(&c->arena, str_of(z));
    struct json *ret = NULL;
    struct json_error where;

    if (!copy.p || json_parse(&c->arena, copy, NULL, &ret, &where))
        return NULL;
    return ret;
}

const char *js_write(struct call *c, const struct json *v)
{
    struct buf b = BUF_INIT(CALL_ARENA_MAX);
    char *z;

    if (!v)
        return "null";
    json_write(&b, v);
    z = arena_z(&c->arena, buf_str(&b));
    buf_release(&b);
    return z ? z : "";
}

struct json *js_down(const struct json *obj, const char *path, size_t step)
{
    return json_down(obj, path, step);
}

/* Made by the first call that picks: another worker may be the first at the same time. */
static const struct json_picks *picks_of(struct call *c, struct picks *p)
{
    void *ready = atomic_load(&p->ready), *none = NULL;
    struct json_pick *all;
    size_t n = 0;

    if (ready)
        return ready;
    while (p->list[n].name)
        n++;
    all = ARENA_ARRAY(&c->arena, struct json_pick, n);
    for (size_t i = 0; i < n && all; i++)
        all[i] = (struct json_pick){ .name = str_of(p->list[i].name), .path = p->list[i].path,
                                     .type = p->list[i].type == T_BOOL ? JSON_BOOL :
                                             p->list[i].type == T_INT ? JSON_INT : JSON_STRING };
    ready = all ? json_picks_new(all, n) : NULL;
    if (ready && !atomic_compare_exchange_strong(&p->ready, &none, ready)) {
        json_picks_free(ready);
        ready = none;
    }
    return ready;
}

struct json *js_pick_each(struct call *c, const struct json *list, struct picks *picks)
{
    return json_pick_each(&c->arena, list, picks_of(c, picks));
}

/* Strings of a parsed answer are views into it and need not end in NUL: the copy goes where the call's memory is. */
const char *js_str(struct call *c, const struct json *obj, const char *path)
{
    return text_of(c, js_get(obj, path));
}

/* What a call gets stays as long as the call: the string's bytes may stay where they are. */
void js_copy_str(struct call *c, struct json *obj, const char *key, const struct json *value)
{
    struct json *s = json_string_of(&c->arena, value);

    json_set(&c->arena, obj, key, s ? s : json_string_ref(&c->arena, STR("")));
}

int64_t js_int(const struct json *obj, const char *path, int64_t otherwise)
{
    int64_t v;

    return json_int(js_get(obj, path), &v) ? v : otherwise;
}

bool js_bool(const struct json *obj, const char *path)
{
    bool v = false;

    json_bool(js_get(obj, path), &v);
    return v;
}

void *call_memory(struct call *c, size_t n)
{
    return arena_zalloc(&c->arena, n);
}

const char *text(struct call *c, const char *fmt, ...)
{
    UNSET char small[1024];
    va_list ap;
    char *z;
    int n;

    va_start(ap, fmt);
    n = vsnprintf(small, sizeof(small), fmt, ap);
    va_end(ap);
    if (n < 0)
        return "";
    if ((size_t)n < sizeof(small)) {
        z = arena_z(&c->arena, str_n(small, (size_t)n));
        return z ? z : "";
    }
    z = arena_alloc(&c->arena, (size_t)n + 1);
    if (!z)
        return "";
    va_start(ap, fmt);
    vsnprintf(z, (size_t)n + 1, fmt, ap);
    va_end(ap);
    return z;
}

const char *text_int(struct call *c, int64_t v)
{
    struct json *number = json_int_new(&c->arena, v);
    const char *z = number ? arena_z(&c->arena, json_num_raw(number)) : NULL;

    return z ? z : "";
}

const char *text_time(struct call *c, int64_t ms)
{
    char z[25];

    wall_format(ms - ms % 1000, z);
    memcpy(z + 19, "Z", 2);
    return text(c, "%s", z);
}

int64_t time_of_text(const char *rfc3339)
{
    wall_ms_t t;

    return wall_parse(str_of(rfc3339), &t) ? -1 : t;
}

const char *text_base64url(struct call *c, const char *s)
{
    struct buf b = BUF_INIT(CALL_ARENA_MAX);
    char *z;

    buf_add_b64url(&b, str_of(s));
    z = arena_z(&c->arena, buf_str(&b));
    buf_release(&b);
    return z ? z : "";
}

const char *text_base64_lines(struct call *c, const char *s)
{
    struct buf b = BUF_INIT(CALL_ARENA_MAX), lines = BUF_INIT(CALL_ARENA_MAX);
    char *z;

    buf_add_b64(&b, str_of(s));
    for (size_t at = 0; at < b.len; at += 76) {
        buf_add(&lines, b.p + at, b.len - at < 76 ? b.len - at : 76);
        buf_add_z(&lines, "\r\n");
    }
    z = arena_z(&c->arena, buf_str(&lines));
    buf_release(&b);
    buf_release(&lines);
    return z ? z : "";
}

const char *text_of_base64url(struct call *c, const char *s)
{
    struct str in = str_of(s), out;

    while (in.len && in.p[in.len - 1] == '=')
        in.len--;
    if (b64url_decode(&c->arena, in, &out))
        return "";
    return arena_z(&c->arena, out);
}

bool text_contains(const char *s, const char *words)
{
    return s && words && strstr(s, words);
}

bool text_starts(const char *s, const char *words)
{
    return s && words && str_starts(str_of(s), str_of(words));
}

bool text_equal_folded(const char *a, const char *b)
{
    return str_ieq(str_of(a), str_of(b));
}

/* ---- paths ------------------------------------------------------------------------------------------------------- */

const char *path(struct call *c, const char *pattern, ...)
{
    struct buf b = BUF_INIT(FETCH_PATH_MAX);
    bool climbs = false;
    va_list ap;
    char *z;

    va_start(ap, pattern);
    for (const char *p = pattern; *p; p++) {
        if (p[0] == '{' && p[1] == '}') {
            const char *piece = va_arg(ap, const char *);

            ASSERT(piece != NULL);
            /* "." and ".." would climb, however written (RFC 3986 5.2.4), and an empty piece names the parent */
            if (!*piece || strcmp(piece, ".") == 0 || strcmp(piece, "..") == 0)
                climbs = true;
            buf_add_percent(&b, str_of(piece));
            p++;
        } else {
            buf_add_c(&b, *p);
        }
    }
    va_end(ap);
    z = b.overflow || climbs ? NULL : arena_z(&c->arena, buf_str(&b));
    buf_release(&b);
    return z;
}

const char *query(struct call *c, const char *at, ...)
{
    struct buf b = BUF_INIT(FETCH_PATH_MAX);
    const char *name, *value;
    va_list ap;
    char *z, sep;

    if (!at)
        return NULL;
    sep = strchr(at, '?') ? '&' : '?';
    buf_add_z(&b, at);
    va_start(ap, at);
    while ((name = va_arg(ap, const char *))) {
        value = va_arg(ap, const char *);
        if (!value || !*value)
            continue;
        buf_add_c(&b, sep);
        buf_add_percent(&b, str_of(name));
        buf_add_c(&b, '=');
        buf_add_percent(&b, str_of(value));
        sep = '&';
    }
    va_end(ap);
    z = b.overflow ? NULL : arena_z(&c->arena, buf_str(&b));
    buf_release(&b);
    return z;
}

/* ---- exchanges --------------------------------------------------------------------------------------------------- */

static enum err await_plain(struct call *c, struct json **ret, const char *method, const char *at, struct json *body,
                            bool form, bool effect)
{
    struct exchange x = { .method = method, .path = at, .body = body, .form = form, .effect = effect };
    struct json *answer;
    enum err e;

    if (!at)
        return call_why(c, E_ARGS_INVALID,
                        "a name that goes into the request's path is empty, \".\", \"..\", or too long");
    e = await_call_exchange(c, &x, &answer);
    if (ret)
        *ret = answer;
    return e;
}

enum err await_get(struct call *c, struct json **ret, const char *at)
{
    return await_plain(c, ret, "GET", at, NULL, false, false);
}

enum err await_query(struct call *c, struct json **ret, const char *at, struct json *body)
{
    return await_plain(c, ret, "POST", at, body, false, false);
}

enum err await_query_form(struct call *c, struct json **ret, const char *at, struct json *fields)
{
    return await_plain(c, ret, "POST", at, fields, true, false);
}

enum err await_post(struct call *c, struct json **ret, const char *at, struct json *body)
{
    return await_plain(c, ret, "POST", at, body, false, true);
}

enum err await_patch(struct call *c, struct json **ret, const char *at, struct json *body)
{
    return await_plain(c, ret, "PATCH", at, body, false, true);
}

enum err await_put(struct call *c, struct json **ret, const char *at, struct json *body)
{
    return await_plain(c, ret, "PUT", at, body, false, true);
}

enum err await_delete(struct call *c, struct json **ret, const char *at)
{
    return await_plain(c, ret, "DELETE", at, NULL, false, true);
}

int last_status(struct call *c)
{
    return c->last_status;
}

/* ---- result ------------------------------------------------------------------------------------------------------ */

static struct json *result(struct call *c)
{
    if (!c->structured)
        c->structured = json_object(&c->arena);
    return c->structured;
}

void result_str(struct call *c, const char *name, const char *value)
{
    json_set_z(&c->arena, result(c), name, value ? value : "");
}

void result_int(struct call *c, const char *name, int64_t value) { json_set_int(&c->arena, result(c), name, value); }
void result_bool(struct call *c, const char *name, bool value) { json_set_bool(&c->arena, result(c), name, value); }

void result_time(struct call *c, const char *name, int64_t ms)
{
    json_set_z(&c->arena, result(c), name, text_time(c, ms));
}

void result_json(struct call *c, const char *name, struct json *value) { js_set(c, result(c), name, value); }

void keep_str(struct call *c, const char *name, const char *value)
{
    if (!c->kept)
        c->kept = json_object(&c->arena);
    json_set_z(&c->arena, c->kept, name, value);
}

const char *kept_str(struct call *c, const char *name)
{
    return text_of(c, json_get(c->kept, name));
}

enum err fail(struct call *c, enum err e, const char *fmt, ...)
{
    va_list ap;

    ASSERT(e != OK);
    va_start(ap, fmt);
    vsnprintf(call_info(c)->text, sizeof(c->why->text), fmt, ap);
    va_end(ap);
    return e;
}

static struct json *block(struct call *c, const char *type)
{
    struct json *b = json_object(&c->arena);

    if (!c->content)
        c->content = json_array(&c->arena);
    json_set_z(&c->arena, b, "type", type);
    json_push(&c->arena, c->content, b);
    return b;
}

void content_text(struct call *c, const char *s)
{
    json_set_z(&c->arena, block(c, "text"), "text", s);
}

static void content_media(struct call *c, const char *type, const char *mime, const char *base64)
{
    struct json *b = block(c, type);

    json_set_z(&c->arena, b, "data", base64);
    json_set_z(&c->arena, b, "mimeType", mime);
}

void content_image(struct call *c, const char *mime, const char *base64)    { content_media(c, "image", mime, base64); }
void content_audio(struct call *c, const char *mime, const char *base64)    { content_media(c, "audio", mime, base64); }

static void content_resource(struct call *c, const char *uri, const char *mime, const char *member, const char *value)
{
    struct json *inner = json_object(&c->arena);

    json_set_z(&c->arena, inner, "uri", uri);
    json_set_z(&c->arena, inner, "mimeType", mime);
    json_set_z(&c->arena, inner, member, value);
    json_set(&c->arena, block(c, "resource"), "resource", inner);
}

void content_resource_text(struct call *c, const char *uri, const char *mime, const char *s)
{
    content_resource(c, uri, mime, "text", s);
}

void content_resource_blob(struct call *c, const char *uri, const char *mime, const char *base64)
{
    content_resource(c, uri, mime, "blob", base64);
}

void completion_add(struct call *c, const char *value)
{
    if (!c->completions)
        c->completions = json_array(&c->arena);
    json_push(&c->arena, c->completions, json_string_z(&c->arena, value));
}

const char *prompt_arg(struct call *c, const char *name)
{
    return text_of(c, json_get(c->prompt_args, name));
}

/* ---- while it runs ----------------------------------------------------------------------------------------------- */

enum err await_progress(struct call *c, double done, double total, const char *message)
{
    ASSERT(isfinite(done) && isfinite(total));
    return c->front->await_progress ? c->front->await_progress(c, done, total, str_of(message)) : OK;
}

enum err await_log(struct call *c, const char *level, const char *message)
{
    return c->front->await_log ? c->front->await_log(c, level, str_of(message)) : OK;
}

enum err await_pause(struct call *c, int64_t ms)
{
    return await_sleep(loop_now() + ms * NS_PER_MS);
}

static void ask(struct call *c, const char *key, const char *method, struct json *params)
{
    struct json *q = json_object(&c->arena);

    if (!c->questions)
        c->questions = json_object(&c->arena);
    json_set_z(&c->arena, q, "method", method);
    if (params)
        json_set(&c->arena, q, "params", params);
    json_set(&c->arena, c->questions, key, q);
}

void ask_form(struct call *c, const char *key, const char *message, const char *schema)
{
    struct json *params = json_object(&c->arena);

    json_set_z(&c->arena, params, "mode", "form");
    json_set_z(&c->arena, params, "message", message);
    json_set(&c->arena, params, "requestedSchema", js_parse(c, schema));
    ask(c, key, "elicitation/create", params);
}

void ask_model(struct call *c, const char *key, struct json *sampling_params)
{
    ask(c, key, "sampling/createMessage", sampling_params);
}

void ask_roots(struct call *c, const char *key)
{
    ask(c, key, "roots/list", NULL);
}

enum err await_answers(struct call *c)
{
    enum err e;

    if (json_len(c->questions) == 0)
        return OK;
    if (c->effects_sent > 0)
        return call_why(c, E_CONNECTOR_FAULT, "questions must be asked before anything is changed");
    e = c->front->await_inputs ? c->front->await_inputs(c) : E_CAPABILITY_MISSING;
    if (!e)
        c->questions = NULL;
    return e;
}

struct json *answer(struct call *c, const char *key)
{
    return json_get(c->answers, key);
}

bool client_can(struct call *c, const char *capability)
{
    return c->front->client_can && c->front->client_can(c, capability);
}

void state_set(struct call *c, struct json *value)
{
    c->state_out = value;
}

struct json *state_get(struct call *c)
{
    return c->state_in;
}

void announce_tools_changed(struct call *c)
{
    if (c->front->announce)
        c->front->announce(c, "tools");
}

void announce_prompts_changed(struct call *c)
{
    if (c->front->announce)
        c->front->announce(c, "prompts");
}
