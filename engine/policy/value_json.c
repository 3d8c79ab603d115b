/*
 * value_json.c -- JSON to values
 *
 * Cedar's own format, as the reference reads it: an object whose only key is "__entity", holding an object with the
 * strings "type" and "id", is an entity; one whose only key is "__extn", holding a string "fn" and "arg" or an array
 * "args", is the result of that extension function.  Anything else that looks like one is a record.  "__expr" is
 * refused.
 *
 * The plain form (arguments of a call) has no escapes at all: what a caller sends is data.
 */
#include "base/check.h"
#include "json/json.h"
#include "policy/ext.h"
#include "policy/value.h"

enum { NEST_MAX = 128 };

struct reader {
    struct arena *arena;
    enum policy_json mode;
    struct errinfo *info;
    unsigned nest;
};

static enum err read_value(struct reader *r, const struct json *j, struct policy_value *ret);

static enum err too_large(struct reader *r)
{
    return err_set(r->info, E_CALL_TOO_LARGE, "the value is too large or nested more than %d deep", NEST_MAX);
}

static enum err read_entity(struct reader *r, const struct json *at, struct policy_value *ret)
{
    struct policy_uid *uid = ARENA_NEW(r->arena, struct policy_uid);
    struct str type = json_str(json_get(at, "type"));

    if (!uid)
        return too_large(r);
    if (!policy_type_valid(type))
        return err_set(r->info, E_FORMAT, "`%.*s` is not the name of an entity type", STR_ARG(type));
    *uid = policy_uid(type, json_str(json_get(at, "id")));
    *ret = policy_entity_value(uid);
    return OK;
}

static enum err read_ext(struct reader *r, const struct json *at, struct policy_value *ret)
{
    const struct json *args = json_get(at, "args"), *arg = json_get(at, "arg");
    struct str name = json_str(json_get(at, "fn"));
    struct policy_value values[2];
    int fn = ext_find(name);
    size_t n = 0;
    enum err e;

    if (fn < 0)
        return err_set(r->info, E_FORMAT, "`%.*s` is no extension function", STR_ARG(name));
    if (!arg)
        arg = json_first(args);
    for (; arg; arg = args ? json_next(arg) : NULL) {
        if (n == ARRAY_LEN(values))
            return err_set(r->info, E_FORMAT, "`%.*s` has too many arguments", STR_ARG(name));
        e = read_value(r, arg, &values[n++]);
        if (e)
            return e;
    }
    switch (ext_call((enum ext_fn)fn, values, n, r->arena, ret)) {
    case EXT_OK:
        return OK;
    case EXT_MEMORY:
        return too_large(r);
    default:
        return err_set(r->info, E_FORMAT, "these are no arguments for `%.*s`", STR_ARG(name));
    }
}

/* Whether an object is an escape; then *ret_e is what became of it. */
static bool read_escape(struct reader *r, const struct json *j, struct policy_value *ret, enum err *ret_e)
{
    const struct json *only = json_first(j);
    struct str key = json_key(only);

    if (json_len(j) != 1)
        return false;
    if (str_is(key, "__entity") && json_is(json_get(only, "type"), JSON_STRING)
        && json_is(json_get(only, "id"), JSON_STRING)) {
        *ret_e = read_entity(r, only, ret);
        return true;
    }
    if (str_is(key, "__extn") && json_is(json_get(only, "fn"), JSON_STRING)
        && (json_get(only, "arg") || json_is(json_get(only, "args"), JSON_ARRAY))) {
        *ret_e = read_ext(r, only, ret);
        return true;
    }
    if (str_is(key, "__expr") && json_is(only, JSON_STRING)) {
        *ret_e = err_set(r->info, E_FORMAT, "the escape `__expr` is no longer a part of Cedar");
        return true;
    }
    return false;
}

static enum err read_record(struct reader *r, const struct json *j, struct policy_value *ret)
{
    struct policy_attr *attrs = ARENA_ARRAY(r->arena, struct policy_attr, json_len(j));
    size_t n = 0;
    enum err e;

    if (!attrs && json_len(j))
        return too_large(r);
    for (const struct json *k = json_first(j); k; k = json_next(k)) {
        if (r->mode == POLICY_JSON_PLAIN && json_type(k) == JSON_NULL)
            continue;
        attrs[n].key = json_key(k);
        e = read_value(r, k, &attrs[n++].value);
        if (e)
            return e;
    }
    *ret = policy_record_of(attrs, n);
    /* The parser refuses duplicate keys; a tree built by hand may hold some. */
    return ret->kind == POLICY_NONE ? err_set(r->info, E_FORMAT, "an object has two members of one name") : OK;
}

static enum err read_set(struct reader *r, const struct json *j, struct policy_value *ret)
{
    struct policy_value *elems = ARENA_ARRAY(r->arena, struct policy_value, json_len(j));
    size_t n = 0;
    enum err e;

    if (!elems && json_len(j))
        return too_large(r);
    for (const struct json *k = json_first(j); k; k = json_next(k)) {
        e = read_value(r, k, &elems[n++]);
        if (e)
            return e;
    }
    *ret = policy_set_of(elems, n);
    return OK;
}

static struct policy_value opaque(struct str text)
{
    struct policy_value v = policy_string(text);

    v.kind = POLICY_OPAQUE;
    return v;
}

static enum err read_number(struct reader *r, const struct json *j, struct policy_value *ret)
{
    struct str raw = json_num_raw(j), places = raw;
    int64_t i;

    if (json_is(j, JSON_INT) || (r->mode == POLICY_JSON_PLAIN && json_int(j, &i))) {
        if (!json_int(j, &i))
            return err_set(r->info, E_FORMAT, "an integer does not fit 64 bits");
        *ret = policy_long(i);
        return OK;
    }
    if (r->mode == POLICY_JSON_CEDAR)
        return err_set(r->info, E_FORMAT, "%.*s is not a Cedar value: only integers of 64 bits are", STR_ARG(raw));
    while (places.len > 2 && places.p[places.len - 1] == '0' && places.p[places.len - 2] != '.')
        places.len--;
    *ret = (struct policy_value){ .kind = POLICY_DECIMAL };
    if (!decimal_parse(places, &ret->u.i))
        *ret = opaque(raw);
    return OK;
}

static enum err read_value(struct reader *r, const struct json *j, struct policy_value *ret)
{
    enum err e = OK;
    bool b = false;

    switch (json_type(j)) {
    case JSON_BOOL:
        json_bool(j, &b);
        *ret = policy_bool(b);
        return OK;
    case JSON_INT:
    case JSON_NUMBER:
        return read_number(r, j, ret);
    case JSON_STRING:
        *ret = policy_string(json_str(j));
        return OK;
    case JSON_ARRAY:
    case JSON_OBJECT:
        if (r->nest == NEST_MAX)
            return too_large(r);
        r->nest++;
        if (json_is(j, JSON_ARRAY))
            e = read_set(r, j, ret);
        else if (r->mode != POLICY_JSON_CEDAR || !read_escape(r, j, ret, &e))
            e = read_record(r, j, ret);
        r->nest--;
        return e;
    default:
        if (r->mode == POLICY_JSON_CEDAR)
            return err_set(r->info, E_FORMAT, "null is not a Cedar value");
        *ret = opaque(STR("null"));
        return OK;
    }
}

enum err policy_value_from_json(struct arena *a, const struct json *j, enum policy_json mode, struct policy_value *ret,
    struct errinfo *info)
{
    struct reader r = { .arena = a, .mode = mode, .info = info };

    return read_value(&r, j, ret);
}
