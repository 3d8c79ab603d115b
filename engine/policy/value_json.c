/*
 * value_json.c -- JSON to values
 *
 * Cedar's own format, as the reference reads it: an object whose only key is "__entity", holding an object with the
 * strings "type" and "id", is an entity; one whose only key is "__extn", holding a string "fn" and "arg" or an array
 * "args", is the result of that extension function.  Anything else that looks like one is a record.  "__expr" is
 * refused.
 *
 * Where a schema gives the type (Cedar's format only), an entity may be written as {"type", "id"} or as the pair
 * ["type", "id"], either also behind "__entity", and an extension's value as {"fn", "arg"} or as the constructor's
 * argument alone; a record must have the type's attributes.
 *
 * The plain form (arguments of a call) has no escapes at all: what a caller sends is data.
 */
#include "base/check.h"
#include "json/json.h"
#include "policy/ext.h"
#include "policy/types.h"
#include "policy/value.h"

enum { NEST_MAX = 128 };

struct reader {
    struct arena *arena;
    enum policy_json mode;
    struct errinfo *info;
    unsigned nest;
};

/* t is NULL where no type is known. */
static enum err read_value(struct reader *r, const struct json *j, const struct type *t, struct policy_value *ret);

static enum err too_large(struct reader *r)
{
    return err_set(r->info, E_CALL_TOO_LARGE, "the value is too large or nested more than %d deep", NEST_MAX);
}

bool policy_uid_from_json(const struct json *j, struct policy_uid *ret)
{
    const struct json *type = json_get(j, "type"), *id = json_get(j, "id");

    if (json_is(j, JSON_ARRAY) && json_len(j) == 2) {
        type = json_first(j);
        id = json_next(type);
    }
    if (!json_is(type, JSON_STRING) || !json_is(id, JSON_STRING))
        return false;
    *ret = policy_uid(json_str(type), json_str(id));
    return true;
}

static enum err read_entity(struct reader *r, const struct policy_uid *named, struct policy_value *ret)
{
    struct policy_uid *uid = ARENA_NEW(r->arena, struct policy_uid);

    if (!uid)
        return too_large(r);
    if (!policy_type_valid(named->type))
        return err_set(r->info, E_FORMAT, "`%.*s` is not the name of an entity type", STR_ARG(named->type));
    *uid = *named;
    *ret = policy_entity_value(uid);
    return OK;
}

/* The type that an extension function wants as its argument `i`, if it is an extension's. */
static const struct type *argument_type(int fn, size_t i)
{
    uint8_t kind = i == 0 ? ext_rows[fn].arg0 : ext_rows[fn].arg1;

    switch (kind) {
    case POLICY_DECIMAL:
    case POLICY_IP:
    case POLICY_DATETIME:
    case POLICY_DURATION:
        return type_of_ext_kind((enum policy_kind)kind);
    default:
        return NULL;
    }
}

static enum err call(struct reader *r, int fn, const struct policy_value *args, size_t n, struct policy_value *ret)
{
    switch (ext_call((enum ext_fn)fn, args, n, r->arena, ret)) {
    case EXT_OK:
        return OK;
    case EXT_MEMORY:
        return too_large(r);
    default:
        return err_set(r->info, E_FORMAT, "these are no arguments for `%s`", ext_rows[fn].name);
    }
}

/* {"fn", "arg"} or {"fn", "args"}; typed: the arguments are read by the types that the function wants. */
static enum err read_ext(struct reader *r, const struct json *at, bool typed, struct policy_value *ret)
{
    const struct json *args = json_get(at, "args"), *arg = json_get(at, "arg");
    struct str name = json_str(json_get(at, "fn"));
    struct policy_value values[2];
    int fn = ext_find(name);
    size_t n = 0;
    enum err e;

    if (fn < 0)
        return err_set(r->info, E_FORMAT, "`%.*s` is no extension function", STR_ARG(name));
    if (arg)
        args = NULL;
    else
        arg = json_first(args);
    for (; arg; arg = args ? json_next(arg) : NULL) {
        if (n == ARRAY_LEN(values))
            return err_set(r->info, E_FORMAT, "`%.*s` has too many arguments", STR_ARG(name));
        e = read_value(r, arg, typed ? argument_type(fn, n) : NULL, &values[n]);
        if (e)
            return e;
        n++;
    }
    return call(r, fn, values, n, ret);
}

static bool is_call(const struct json *j)
{
    return json_is(json_get(j, "fn"), JSON_STRING) && (json_get(j, "arg") || json_is(json_get(j, "args"), JSON_ARRAY));
}

static enum err no_expr(struct reader *r)
{
    return err_set(r->info, E_FORMAT, "the escape `__expr` is no longer a part of Cedar");
}

/* Whether an object is an escape; then *ret_e is what became of it. */
static bool read_escape(struct reader *r, const struct json *j, struct policy_value *ret, enum err *ret_e)
{
    const struct json *only = json_first(j);
    struct str key = json_key(only);
    struct policy_uid uid;

    if (json_len(j) != 1)
        return false;
    if (str_is(key, "__entity") && json_is(only, JSON_OBJECT) && policy_uid_from_json(only, &uid)) {
        *ret_e = read_entity(r, &uid, ret);
        return true;
    }
    if (str_is(key, "__extn") && is_call(only)) {
        *ret_e = read_ext(r, only, false, ret);
        return true;
    }
    if (str_is(key, "__expr") && json_is(only, JSON_STRING)) {
        *ret_e = no_expr(r);
        return true;
    }
    return false;
}

static enum err read_typed_entity(struct reader *r, const struct json *j, const struct type *t,
    struct policy_value *ret)
{
    struct policy_uid uid;

    if (json_is(json_get(j, "__expr"), JSON_STRING))
        return no_expr(r);
    if (policy_uid_from_json(json_get(j, "__entity"), &uid) || policy_uid_from_json(j, &uid))
        return read_entity(r, &uid, ret);
    return err_set(r->info, E_FORMAT, "expected an entity of type %.*s as {\"type\": \"...\", \"id\": \"...\"}",
        STR_ARG(t->u.entity->name.type));
}

static enum err read_typed_ext(struct reader *r, const struct json *j, const struct type *t, struct policy_value *ret)
{
    int fn = t->ext == POLICY_DECIMAL ? EXT_DECIMAL : t->ext == POLICY_IP ? EXT_IP
        : t->ext == POLICY_DATETIME ? EXT_DATETIME : EXT_DURATION;
    struct policy_value arg;
    enum err e;

    if (json_is(json_get(j, "__expr"), JSON_STRING))
        return no_expr(r);
    if (is_call(json_get(j, "__extn")))
        return read_ext(r, json_get(j, "__extn"), true, ret);
    if (is_call(j))
        return read_ext(r, j, true, ret);
    e = read_value(r, j, NULL, &arg);
    return e ? e : call(r, fn, &arg, 1, ret);
}

static enum err read_record(struct reader *r, const struct json *j, const struct type *t, struct policy_value *ret)
{
    struct policy_attr *attrs = ARENA_ARRAY(r->arena, struct policy_attr, json_len(j));
    const struct type_attr *known;
    size_t n = 0;
    enum err e;

    if (!attrs && json_len(j))
        return too_large(r);
    for (const struct json *k = json_first(j); k; k = json_next(k)) {
        if (r->mode == POLICY_JSON_PLAIN && json_type(k) == JSON_NULL)
            continue;
        attrs[n].key = json_key(k);
        known = t ? type_attr(t, attrs[n].key) : NULL;
        if (t && !known)
            return err_set(r->info, E_FORMAT, "there is no attribute `%.*s`", STR_ARG(attrs[n].key));
        e = read_value(r, k, known ? known->type : NULL, &attrs[n++].value);
        if (e)
            return e;
    }
    for (uint32_t i = 0; t && i < t->n; i++)
        if (t->u.attrs[i].required && !json_get_str(j, t->u.attrs[i].key))
            return err_set(r->info, E_FORMAT, "the attribute `%.*s` is missing", STR_ARG(t->u.attrs[i].key));
    *ret = policy_record_of(attrs, n);
    /* The parser refuses duplicate keys; a tree built by hand may hold some. */
    return ret->kind == POLICY_NONE ? err_set(r->info, E_FORMAT, "an object has two members of one name") : OK;
}

static enum err read_set(struct reader *r, const struct json *j, const struct type *t, struct policy_value *ret)
{
    struct policy_value *elems = ARENA_ARRAY(r->arena, struct policy_value, json_len(j));
    size_t n = 0;
    enum err e;

    if (!elems && json_len(j))
        return too_large(r);
    for (const struct json *k = json_first(j); k; k = json_next(k)) {
        e = read_value(r, k, t ? t->u.elem : NULL, &elems[n++]);
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

static enum err read_nested(struct reader *r, const struct json *j, const struct type *t, struct policy_value *ret)
{
    enum type_kind kind = t ? (enum type_kind)t->kind : TYPE_BOOL;
    enum err e = OK;

    if (kind == TYPE_ENTITY)
        return read_typed_entity(r, j, t, ret);
    if (kind == TYPE_EXT)
        return read_typed_ext(r, j, t, ret);
    if (kind == TYPE_SET && !json_is(j, JSON_ARRAY))
        return err_set(r->info, E_FORMAT, "expected a set, an array");
    if (kind == TYPE_RECORD && !json_is(j, JSON_OBJECT))
        return err_set(r->info, E_FORMAT, "expected a record, an object");
    if (json_is(j, JSON_ARRAY))
        return read_set(r, j, kind == TYPE_SET ? t : NULL, ret);
    if (kind == TYPE_RECORD)
        return read_record(r, j, t, ret);
    if (r->mode != POLICY_JSON_CEDAR || !read_escape(r, j, ret, &e))
        e = read_record(r, j, NULL, ret);
    return e;
}

static enum err read_value(struct reader *r, const struct json *j, const struct type *t, struct policy_value *ret)
{
    bool b = false;
    enum err e;

    if (json_is(j, JSON_ARRAY) || json_is(j, JSON_OBJECT) || (t && t->kind >= TYPE_EXT)) {
        if (r->nest == NEST_MAX)
            return too_large(r);
        r->nest++;
        e = read_nested(r, j, t, ret);
        r->nest--;
        return e;
    }
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

    return read_value(&r, j, NULL, ret);
}

enum err schema_value_from_json(struct arena *a, const struct json *j, const struct type *t, struct policy_value *ret,
    struct errinfo *info)
{
    struct reader r = { .arena = a, .mode = POLICY_JSON_CEDAR, .info = info };

    return read_value(&r, j, t, ret);
}
