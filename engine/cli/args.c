/* args.c -- "key=value" to JSON */
#include "cli/args.h"

/* The first type that is not null: ["string", "null"] is a string that may be left out. */
static struct str type_of(const struct json *property)
{
    const struct json *type = json_get(property, "type");

    if (!json_is(type, JSON_ARRAY))
        return json_str(type);
    for (const struct json *t = json_first(type); t; t = json_next(t))
        if (!str_is(json_str(t), "null"))
            return json_str(t);
    return STR_NULL;
}

struct str schema_type_text(struct arena *a, const struct json *property)
{
    struct str type = type_of(property), item = type_of(json_get(property, "items"));

    if (str_is(type, "array") && item.len)
        return arena_printf(a, "list of %.*s", STR_ARG(item));
    return type.len ? type : STR("any");
}

static enum err wrong(struct errinfo *info, struct str key, const char *expected, struct str value)
{
    if (value.len > 60)
        value.len = 60;
    return err_set(info, E_ARGS_INVALID, "argument %.*s takes %s, not \"%.*s\"", STR_ARG(key), expected,
                   STR_ARG(value));
}

/* "list" is refused where a list cannot be an item: JSON says what it is by itself. */
static enum err read_value(struct arena *a, struct str type, struct str key, struct str value, struct json **ret,
                           struct errinfo *info)
{
    struct json_error where;
    struct json *j = NULL;
    bool is_json = json_parse(a, value, NULL, &j, &where) == OK;
    int64_t n;

    if (str_is(type, "string")) {
        *ret = json_string_ref(a, value);
        return OK;
    }
    if (str_is(type, "integer") && !(is_json && json_int(j, &n)))
        return wrong(info, key, "a whole number", value);
    if (str_is(type, "number") && !(is_json && json_is_number(j)))
        return wrong(info, key, "a number", value);
    if (str_is(type, "boolean") && !(is_json && json_is(j, JSON_BOOL)))
        return wrong(info, key, "true or false", value);
    if (str_is(type, "object") && !(is_json && json_is(j, JSON_OBJECT)))
        return wrong(info, key, "an object in JSON", value);
    if (type.len == 0 && !(is_json && (json_is(j, JSON_INT) || json_is(j, JSON_BOOL))))
        j = json_string_ref(a, value);
    *ret = j;
    return OK;
}

static enum err unknown(struct arena *a, const struct json *properties, struct str key, struct errinfo *info)
{
    struct str known = STR("");

    for (const struct json *p = json_first(properties); p; p = json_next(p))
        known = arena_printf(a, "%.*s%s%.*s", STR_ARG(known), known.len ? ", " : "", STR_ARG(json_key(p)));
    return err_set(info, E_ARGS_INVALID, "the tool has no argument \"%.*s\"; it takes: %.*s", STR_ARG(key),
                   STR_ARG(known));
}

enum err args_add(struct arena *a, struct json *args, const struct json *schema, const char *pair, struct errinfo *info)
{
    const struct json *properties = json_get(schema, "properties"), *property;
    struct json *value = NULL, *before;
    struct str key, text, type;
    bool list;
    enum err e;

    if (!str_cut(str_of(pair), '=', &key, &text) || key.len == 0)
        return err_set(info, E_ARGS_INVALID, "write arguments as key=value, not \"%s\"", pair);
    property = json_get_str(properties, key);
    if (properties && !property)
        return unknown(a, properties, key, info);
    type = type_of(property);
    before = json_get_str(args, key);
    list = str_is(type, "array") || (!property && before);
    if (before && !list)
        return err_set(info, E_ARGS_INVALID, "argument %.*s is given twice, and is no list", STR_ARG(key));
    e = read_value(a, list ? type_of(json_get(property, "items")) : type, key, text, &value, info);
    if (e)
        return e;
    if (!list) {
        json_set_key(a, args, key, value);
        return OK;
    }
    if (!json_is(before, JSON_ARRAY)) {         /* the first item; or, without a schema, the second one */
        struct json *items = json_array(a);

        if (before)
            json_push(a, items, before);
        json_set_key(a, args, key, items);
        before = json_get_str(args, key);
    }
    json_push(a, before, value);
    return OK;
}
