/*
 * schema_compile.c -- one subschema's keywords to operations
 *
 * The table below is in the order in which a value is tried: what is cheap and explains most comes first.  A keyword
 * whose value has the wrong form is refused here, so the machine never meets one.
 */
#include <stdlib.h>

#include "base/check.h"
#include "base/map.h"
#include "json/schema_internal.h"

static enum err op_add(struct build *b, struct op op)
{
    if (b->n_ops == b->cap_ops) {
        uint32_t cap = b->cap_ops ? b->cap_ops * 2 : 64;
        struct op *ops = realloc(b->ops, cap * sizeof(*ops));

        if (!ops)
            return build_too_large(b);
        b->ops = ops;
        b->cap_ops = cap;
    }
    b->ops[b->n_ops++] = op;
    return OK;
}

static struct arena *keep(struct build *b)
{
    return &b->schema->arena;
}

/* The subschema at a place that the index has found. */
static const struct sub *child(struct build *b, const struct json *at)
{
    struct place *p = index_place(b, at);

    ASSERT(p != NULL);
    return build_want(b, p);
}

static const struct sub *child_of(struct build *b, struct place *p, const char *keyword)
{
    const struct json *at = json_get(p->at, keyword);

    return at ? child(b, at) : NULL;
}

static const struct json *keyword_of(const struct place *p, unsigned vocabulary, const char *keyword)
{
    return p->resource->vocabularies & vocabulary ? json_get(p->at, keyword) : NULL;
}

/* --- assertions ------------------------------------------------------------------------------------------------- */

static unsigned type_from(struct str name)
{
    static const struct {
        const char *name;
        unsigned bit;
    } types[] = {
        { "null", T_NULL }, { "boolean", T_BOOL }, { "object", T_OBJECT }, { "array", T_ARRAY },
        { "number", T_NUMBER }, { "string", T_STRING }, { "integer", T_INTEGER },
    };

    for (size_t i = 0; i < ARRAY_LEN(types); i++)
        if (str_is(name, types[i].name))
            return types[i].bit;
    return 0;
}

static enum err kw_type(struct build *b, struct place *p, const char *name, const struct json *v, enum op_code code)
{
    const struct json *one = json_is(v, JSON_ARRAY) ? json_first(v) : v;
    unsigned mask = 0;

    if (!one)
        return build_refuse(b, p, name, "must not be empty");
    for (; one; one = one == v ? NULL : json_next(one)) {
        unsigned bit = type_from(json_str(one));

        if (!bit)
            return build_refuse(b, p, name, "must be one of null, boolean, object, array, number, integer, string");
        mask |= bit;
    }
    if (mask & T_NUMBER)
        mask &= ~(unsigned)T_INTEGER;
    p->sub->types &= (uint8_t)(mask & T_INTEGER ? mask | T_NUMBER : mask);
    return op_add(b, (struct op){ .code = OP_TYPE, .types = T_ALL, .n = mask });
}

/* A value the schema quotes, kept. Deep ones are refused: comparing costs stack. */
static enum err value_keep(struct build *b, struct place *p, const char *name, const struct json *v,
    const struct json **ret)
{
    if (!json_within_depth(v, SCHEMA_DEPTH_MAX))
        return build_refuse(b, p, name, "is nested more than %d deep", SCHEMA_DEPTH_MAX);
    *ret = json_copy(keep(b), v);
    return *ret ? OK : build_too_large(b);
}

static enum err kw_const(struct build *b, struct place *p, const char *name, const struct json *v, enum op_code code)
{
    struct op op = { .code = OP_CONST, .types = T_ALL };
    enum err e = value_keep(b, p, name, v, &op.u.value);

    if (e)
        return e;
    p->sub->types &= (uint8_t)type_bit(v);
    return op_add(b, op);
}

/* The strings come first, so that their numbers in the table are their numbers here. */
static enum err kw_enum(struct build *b, struct place *p, const char *name, const struct json *v, enum op_code code)
{
    struct enum_rule *rule = ARENA_NEW(keep(b), struct enum_rule);
    const struct json **values = ARENA_ARRAY(keep(b), const struct json *, json_len(v) + 1);
    struct str *strings = ARENA_ARRAY(keep(b), struct str, json_len(v) + 1);
    uint32_t n_strings = 0;

    if (!json_is(v, JSON_ARRAY))
        return build_refuse(b, p, name, "must be an array");
    if (!rule || !values || !strings)
        return build_too_large(b);
    for (int pass = 0; pass < 2; pass++) {
        for (const struct json *m = json_first(v); m; m = json_next(m)) {
            enum err e;

            if (json_is(m, JSON_STRING) != (pass == 0))
                continue;
            e = value_keep(b, p, name, m, &values[rule->n]);
            if (e)
                return e;
            if (pass == 0)
                strings[n_strings++] = json_str(values[rule->n]);
            rule->types |= type_bit(m);
            rule->n++;
        }
    }
    rule->values = values;
    if (!names_build(keep(b), strings, n_strings, &rule->strings))
        return build_too_large(b);
    p->sub->types &= (uint8_t)rule->types;
    return op_add(b, (struct op){ .code = OP_ENUM, .types = T_ALL, .u.choice = rule });
}

static enum err kw_number(struct build *b, struct place *p, const char *name, const struct json *v, enum op_code code)
{
    struct op op = { .code = (uint8_t)code, .types = T_NUMBER };
    enum err e;

    if (!json_is_number(v))
        return build_refuse(b, p, name, "must be a number");
    e = value_keep(b, p, name, v, &op.u.value);
    return e ? e : op_add(b, op);
}

static enum err kw_multiple(struct build *b, struct place *p, const char *name, const struct json *v,
    enum op_code code)
{
    struct json *zero = json_int_new(&b->tmp, 0);

    if (!zero)
        return build_too_large(b);
    if (!json_is_number(v) || json_num_cmp(v, zero) <= 0)
        return build_refuse(b, p, name, "must be a number above 0");
    return kw_number(b, p, name, v, code);
}

/* A count: a whole number from 0; what does not fit 63 bits is as good as no limit. */
static enum err count_from(struct build *b, struct place *p, const char *name, const struct json *v, uint64_t *ret)
{
    int64_t n = INT64_MAX;

    if (!json_is_integral(v) || (!json_int(v, &n) && json_num_raw(v).p[0] == '-') || n < 0)
        return build_refuse(b, p, name, "must be a whole number from 0");
    *ret = (uint64_t)n;
    return OK;
}

static enum err kw_count(struct build *b, struct place *p, const char *name, const struct json *v, enum op_code code)
{
    struct op op = { .code = (uint8_t)code };
    enum err e = count_from(b, p, name, v, &op.u.bound);

    if (e)
        return e;
    op.types = code == OP_MIN_LENGTH || code == OP_MAX_LENGTH ? T_STRING :
        code == OP_MIN_ITEMS || code == OP_MAX_ITEMS ? T_ARRAY : T_OBJECT;
    return op_add(b, op);
}

static enum err regex_keep(struct build *b, struct place *p, const char *name, struct str pattern,
    const struct regex **ret)
{
    struct regex *r = map_get(b->by_pattern, pattern);
    struct errinfo why = { "" };

    if (!r) {
        if (regex_compile(pattern, &r, &why) != OK)
            return build_refuse(b, p, name, "is not a pattern: %s", why.text);
        regex_chain(r, b->schema->regexes);
        b->schema->regexes = r;
        map_put(b->by_pattern, regex_pattern(r), r);
    }
    *ret = r;
    return OK;
}

static enum err kw_pattern(struct build *b, struct place *p, const char *name, const struct json *v,
    enum op_code code)
{
    struct op op = { .code = OP_PATTERN, .types = T_STRING };
    enum err e;

    if (!json_is(v, JSON_STRING))
        return build_refuse(b, p, name, "must be a string");
    e = regex_keep(b, p, name, json_str(v), &op.u.regex);
    return e ? e : op_add(b, op);
}

static enum err kw_format(struct build *b, struct place *p, const char *name, const struct json *v, enum op_code code)
{
    enum format f = format_from(json_str(v));

    if (!json_is(v, JSON_STRING))
        return build_refuse(b, p, name, "must be a string");
    if (f == FORMAT_NONE || !(b->options->format_assertion || p->resource->vocabularies & VOCAB_FORMAT_ASSERTION))
        return OK;
    return op_add(b, (struct op){ .code = OP_FORMAT, .types = T_STRING, .n = f });
}

static enum err kw_unique(struct build *b, struct place *p, const char *name, const struct json *v, enum op_code code)
{
    bool yes;

    if (!json_bool(v, &yes))
        return build_refuse(b, p, name, "must be true or false");
    return yes ? op_add(b, (struct op){ .code = OP_UNIQUE_ITEMS, .types = T_ARRAY }) : OK;
}

/* An array of strings, kept. */
static enum err strings_keep(struct build *b, struct place *p, const char *name, const struct json *v,
    const struct str **ret)
{
    struct str *list = ARENA_ARRAY(keep(b), struct str, json_len(v) + 1);
    uint32_t n = 0;

    if (!list)
        return build_too_large(b);
    if (!json_is(v, JSON_ARRAY))
        return build_refuse(b, p, name, "must be an array of strings");
    for (const struct json *m = json_first(v); m; m = json_next(m)) {
        if (!json_is(m, JSON_STRING))
            return build_refuse(b, p, name, "must be an array of strings");
        list[n] = arena_str(keep(b), json_str(m));
        if (!list[n++].p)
            return build_too_large(b);
    }
    *ret = list;
    return OK;
}

static enum err dependent_add(struct build *b, struct place *p, const char *name, const struct json *m,
    struct dependent_required *ret)
{
    *ret = (struct dependent_required){ .key = arena_str(keep(b), json_key(m)), .n = (uint32_t)json_len(m) };
    return ret->key.p ? strings_keep(b, p, name, m, &ret->needs) : build_too_large(b);
}

/* dependentRequired; and of "dependencies", which this dialect replaced but still describes, the part that is that. */
static enum err kw_dependent_required(struct build *b, struct place *p, const char *name, const struct json *v,
    enum op_code code)
{
    struct dependent_required *list = ARENA_ARRAY(keep(b), struct dependent_required, json_len(v) + 1);
    bool old = str_is(json_key(v), "dependencies");
    enum err e = OK;
    uint32_t n = 0;

    if (!json_is(v, JSON_OBJECT))
        return build_refuse(b, p, name, "must be an object of arrays of strings");
    if (!list)
        return build_too_large(b);
    for (const struct json *m = json_first(v); m && !e; m = json_next(m))
        if (!old || json_is(m, JSON_ARRAY))
            e = dependent_add(b, p, name, m, &list[n++]);
    if (e || n == 0)
        return e;
    return op_add(b, (struct op){ .code = OP_DEPENDENT_REQUIRED, .types = T_OBJECT, .n = n, .u.required = list });
}

/* --- members ---------------------------------------------------------------------------------------------------- */

struct members {
    struct str *keys;
    struct member_rule *rules;
    uint32_t n;
    struct map by_key;
};

static enum err member_add(struct build *b, struct members *m, struct str key, const struct sub *sub, bool required,
    uint32_t *n_required)
{
    struct member_rule *rule = map_get(&m->by_key, key);

    if (!rule) {
        rule = &m->rules[m->n];
        m->keys[m->n] = arena_str(keep(b), key);
        if (!m->keys[m->n].p)
            return build_too_large(b);
        map_put(&m->by_key, m->keys[m->n++], rule);
    }
    if (sub)
        rule->sub = sub;
    if (required && !rule->required)
        rule->required = ++*n_required;
    return OK;
}

static enum err members_fill(struct build *b, struct place *p, struct members *m, const struct json *properties,
    const struct json *required, struct object_rule *rule)
{
    size_t room = json_len(properties) + json_len(required) + 1;
    enum err e = OK;

    m->keys = ARENA_ARRAY(keep(b), struct str, room);
    m->rules = ARENA_ARRAY(keep(b), struct member_rule, room);
    if (!m->keys || !m->rules)
        return build_too_large(b);
    for (const struct json *j = json_first(properties); j && !e; j = json_next(j))
        e = member_add(b, m, json_key(j), child(b, j), false, &rule->n_required);
    for (const struct json *j = json_first(required); j && !e; j = json_next(j))
        e = member_add(b, m, json_str(j), NULL, true, &rule->n_required);
    if (e)
        return e;
    rule->members = m->rules;
    return names_build(keep(b), m->keys, m->n, &rule->names) ? OK : build_too_large(b);
}

static enum err patterns_fill(struct build *b, struct place *p, const struct json *v, struct object_rule *rule)
{
    struct pattern_rule *list = ARENA_ARRAY(keep(b), struct pattern_rule, json_len(v) + 1);
    enum err e = OK;

    if (!list)
        return build_too_large(b);
    rule->patterns = list;
    for (const struct json *m = json_first(v); m && !e; m = json_next(m)) {
        struct pattern_rule *one = &list[rule->n_patterns++];

        one->sub = child(b, m);
        e = regex_keep(b, p, "patternProperties", json_key(m), &one->regex);
    }
    return e;
}

static enum err kw_object(struct build *b, struct place *p, const char *name, const struct json *v, enum op_code code)
{
    const struct json *properties = keyword_of(p, VOCAB_APPLICATOR, "properties");
    const struct json *patterns = keyword_of(p, VOCAB_APPLICATOR, "patternProperties");
    const struct json *additional = keyword_of(p, VOCAB_APPLICATOR, "additionalProperties");
    const struct json *required = keyword_of(p, VOCAB_VALIDATION, "required");
    struct object_rule *rule;
    struct members members = { .by_key = MAP_INIT };
    const struct str *checked;
    enum err e = OK;

    if (!properties && !patterns && !additional && !required)
        return OK;
    rule = ARENA_NEW(keep(b), struct object_rule);
    if (!rule)
        return build_too_large(b);
    if (required)
        e = strings_keep(b, p, "required", required, &checked);
    if (!e)
        e = members_fill(b, p, &members, properties, required, rule);
    map_release(&members.by_key);
    if (!e && patterns)
        e = patterns_fill(b, p, patterns, rule);
    if (e)
        return e;
    rule->additional = additional ? child(b, additional) : NULL;
    rule->evaluates = properties || patterns || additional;
    return op_add(b, (struct op){ .code = OP_OBJECT, .types = T_OBJECT, .u.object = rule });
}

/* --- elements --------------------------------------------------------------------------------------------------- */

/* The subschemas in an array of schemas. */
static enum err subs_keep(struct build *b, struct place *p, const char *name, const struct json *v,
    const struct sub *const **ret)
{
    const struct sub **list = ARENA_ARRAY(keep(b), const struct sub *, json_len(v) + 1);
    uint32_t n = 0;

    if (!list)
        return build_too_large(b);
    if (v && json_len(v) == 0)
        return build_refuse(b, p, name, "must not be empty");
    for (const struct json *m = json_first(v); m; m = json_next(m))
        list[n++] = child(b, m);
    *ret = list;
    return OK;
}

static enum err kw_items(struct build *b, struct place *p, const char *name, const struct json *v, enum op_code code)
{
    const struct json *prefix = json_get(p->at, "prefixItems");
    struct items_rule *rule;
    enum err e;

    if (!prefix && !json_get(p->at, "items"))
        return OK;
    rule = ARENA_NEW(keep(b), struct items_rule);
    if (!rule)
        return build_too_large(b);
    rule->rest = child_of(b, p, "items");
    rule->n_prefix = (uint32_t)json_len(prefix);
    e = subs_keep(b, p, "prefixItems", prefix, &rule->prefix);
    return e ? e : op_add(b, (struct op){ .code = OP_ITEMS, .types = T_ARRAY, .u.items = rule });
}

static enum err kw_contains(struct build *b, struct place *p, const char *name, const struct json *v,
    enum op_code code)
{
    const struct json *min = keyword_of(p, VOCAB_VALIDATION, "minContains");
    const struct json *max = keyword_of(p, VOCAB_VALIDATION, "maxContains");
    struct contains_rule *rule = ARENA_NEW(keep(b), struct contains_rule);
    enum err e = OK;

    if (!rule)
        return build_too_large(b);
    *rule = (struct contains_rule){ .sub = child(b, v), .min = 1, .max = UINT64_MAX };
    if (min)
        e = count_from(b, p, "minContains", min, &rule->min);
    if (!e && max)
        e = count_from(b, p, "maxContains", max, &rule->max);
    return e ? e : op_add(b, (struct op){ .code = OP_CONTAINS, .types = T_ARRAY, .u.contains = rule });
}

/* --- the same value, other schemas ------------------------------------------------------------------------------ */

/* propertyNames, not, unevaluated...: one subschema, asked in the way of the operation. */
static enum err kw_sub(struct build *b, struct place *p, const char *name, const struct json *v, enum op_code code)
{
    unsigned types = code == OP_NAMES || code == OP_UNEVALUATED_PROPERTIES ? T_OBJECT :
        code == OP_UNEVALUATED_ITEMS ? T_ARRAY : T_ALL;

    if (code == OP_UNEVALUATED_ITEMS || code == OP_UNEVALUATED_PROPERTIES)
        p->sub->unevaluated = true;
    return op_add(b, (struct op){ .code = (uint8_t)code, .types = (uint8_t)types, .u.sub = child(b, v) });
}

static enum err kw_all_of(struct build *b, struct place *p, const char *name, const struct json *v, enum op_code code)
{
    enum err e = json_len(v) ? OK : build_refuse(b, p, name, "must not be empty");

    for (const struct json *m = json_first(v); m && !e; m = json_next(m))
        e = op_add(b, (struct op){ .code = OP_SUB, .types = T_ALL, .u.sub = child(b, m) });
    return e;
}

static enum err kw_choice(struct build *b, struct place *p, const char *name, const struct json *v, enum op_code code)
{
    struct op op = { .code = (uint8_t)code, .types = T_ALL, .n = (uint32_t)json_len(v) };
    enum err e = subs_keep(b, p, name, v, &op.u.subs);

    return e ? e : op_add(b, op);
}

static enum err kw_if(struct build *b, struct place *p, const char *name, const struct json *v, enum op_code code)
{
    struct if_rule *rule = ARENA_NEW(keep(b), struct if_rule);

    if (!rule)
        return build_too_large(b);
    *rule = (struct if_rule){ child(b, v), child_of(b, p, "then"), child_of(b, p, "else") };
    return op_add(b, (struct op){ .code = OP_IF, .types = T_ALL, .u.condition = rule });
}

static enum err kw_dependent_schemas(struct build *b, struct place *p, const char *name, const struct json *v,
    enum op_code code)
{
    enum err e = OK;

    for (const struct json *m = json_first(v); m && !e; m = json_next(m)) {
        struct dependent_sub *rule;

        if (json_is(m, JSON_ARRAY))             /* only in "dependencies": see kw_dependent_required */
            continue;
        rule = ARENA_NEW(keep(b), struct dependent_sub);
        if (!rule)
            return build_too_large(b);
        *rule = (struct dependent_sub){ arena_str(keep(b), json_key(m)), child(b, m) };
        if (!rule->key.p)
            return build_too_large(b);
        e = op_add(b, (struct op){ .code = OP_DEPENDENT_SUB, .types = T_OBJECT, .u.dependent = rule });
    }
    return e;
}

static enum err dynamic_add(struct build *b, const struct sub *fallback, struct str name)
{
    struct dynamic_rule *rule = ARENA_NEW(keep(b), struct dynamic_rule);
    struct dynamic_use *use = ARENA_NEW(&b->tmp, struct dynamic_use);

    if (!rule || !use)
        return build_too_large(b);
    rule->fallback = fallback;
    *use = (struct dynamic_use){ .next = b->dynamic_uses, .name = name, .rule = rule };
    b->dynamic_uses = use;
    return op_add(b, (struct op){ .code = OP_DYNAMIC, .types = T_ALL, .u.dynamic = rule });
}

/* $ref, and $dynamicRef: which is one unless it first leads to a dynamic anchor by that anchor's name. */
static enum err kw_ref(struct build *b, struct place *p, const char *name, const struct json *v, enum op_code code)
{
    struct place *target;
    struct anchor *anchor;
    struct str fragment;
    enum err e;

    if (!json_is(v, JSON_STRING))
        return build_refuse(b, p, name, "must be a string");
    e = index_resolve(b, p, name, json_str(v), &target, &fragment);
    if (e)
        return e;
    if (code == OP_DYNAMIC && fragment.len) {
        anchor = index_anchor(b, target->resource, fragment);
        if (anchor && anchor->dynamic)
            return dynamic_add(b, build_want(b, target), fragment);
    }
    return op_add(b, (struct op){ .code = OP_SUB, .types = T_ALL, .u.sub = build_want(b, target) });
}

/* --- the table -------------------------------------------------------------------------------------------------- */

static const struct {
    const char *name;           /* NULL: looks for its keywords itself */
    unsigned vocabulary;
    enum op_code code;
    enum err (*compile)(struct build *b, struct place *p, const char *name, const struct json *v, enum op_code code);
} keywords[] = {
    { "type", VOCAB_VALIDATION, OP_TYPE, kw_type },
    { "const", VOCAB_VALIDATION, OP_CONST, kw_const },
    { "enum", VOCAB_VALIDATION, OP_ENUM, kw_enum },
    { "minimum", VOCAB_VALIDATION, OP_MINIMUM, kw_number },
    { "maximum", VOCAB_VALIDATION, OP_MAXIMUM, kw_number },
    { "exclusiveMinimum", VOCAB_VALIDATION, OP_ABOVE, kw_number },
    { "exclusiveMaximum", VOCAB_VALIDATION, OP_BELOW, kw_number },
    { "multipleOf", VOCAB_VALIDATION, OP_MULTIPLE_OF, kw_multiple },
    { "minLength", VOCAB_VALIDATION, OP_MIN_LENGTH, kw_count },
    { "maxLength", VOCAB_VALIDATION, OP_MAX_LENGTH, kw_count },
    { "pattern", VOCAB_VALIDATION, OP_PATTERN, kw_pattern },
    { "format", VOCAB_FORMAT_ANNOTATION | VOCAB_FORMAT_ASSERTION, OP_FORMAT, kw_format },
    { "minItems", VOCAB_VALIDATION, OP_MIN_ITEMS, kw_count },
    { "maxItems", VOCAB_VALIDATION, OP_MAX_ITEMS, kw_count },
    { "minProperties", VOCAB_VALIDATION, OP_MIN_PROPERTIES, kw_count },
    { "maxProperties", VOCAB_VALIDATION, OP_MAX_PROPERTIES, kw_count },
    { "dependentRequired", VOCAB_VALIDATION, OP_DEPENDENT_REQUIRED, kw_dependent_required },
    { "dependencies", VOCAB_VALIDATION, OP_DEPENDENT_REQUIRED, kw_dependent_required },
    { "uniqueItems", VOCAB_VALIDATION, OP_UNIQUE_ITEMS, kw_unique },
    { NULL, VOCAB_APPLICATOR | VOCAB_VALIDATION, OP_OBJECT, kw_object },
    { "propertyNames", VOCAB_APPLICATOR, OP_NAMES, kw_sub },
    { NULL, VOCAB_APPLICATOR, OP_ITEMS, kw_items },
    { "contains", VOCAB_APPLICATOR, OP_CONTAINS, kw_contains },
    { "$ref", VOCAB_CORE, OP_SUB, kw_ref },
    { "$dynamicRef", VOCAB_CORE, OP_DYNAMIC, kw_ref },
    { "allOf", VOCAB_APPLICATOR, OP_SUB, kw_all_of },
    { "anyOf", VOCAB_APPLICATOR, OP_ANY_OF, kw_choice },
    { "oneOf", VOCAB_APPLICATOR, OP_ONE_OF, kw_choice },
    { "not", VOCAB_APPLICATOR, OP_NOT, kw_sub },
    { "if", VOCAB_APPLICATOR, OP_IF, kw_if },
    { "dependentSchemas", VOCAB_APPLICATOR, OP_DEPENDENT_SUB, kw_dependent_schemas },
    { "dependencies", VOCAB_APPLICATOR, OP_DEPENDENT_SUB, kw_dependent_schemas },
    { "unevaluatedItems", VOCAB_UNEVALUATED, OP_UNEVALUATED_ITEMS, kw_sub },
    { "unevaluatedProperties", VOCAB_UNEVALUATED, OP_UNEVALUATED_PROPERTIES, kw_sub },
};

enum err compile_place(struct build *b, struct place *p)
{
    struct sub *sub = p->sub;
    struct op *ops;

    if (!json_is(p->at, JSON_OBJECT))
        return OK;
    b->n_ops = 0;
    sub->resource = p->resource->number;
    for (size_t i = 0; i < ARRAY_LEN(keywords); i++) {
        const struct json *v = keywords[i].name ? json_get(p->at, keywords[i].name) : NULL;
        enum err e;

        if ((keywords[i].name && !v) || !(p->resource->vocabularies & keywords[i].vocabulary))
            continue;
        e = keywords[i].compile(b, p, keywords[i].name, v, keywords[i].code);
        if (e)
            return e;
    }
    if (b->n_ops == 0)
        return OK;
    ops = ARENA_ARRAY(keep(b), struct op, b->n_ops);
    if (!ops)
        return build_too_large(b);
    memcpy(ops, b->ops, b->n_ops * sizeof(*ops));
    sub->ops = ops;
    sub->n_ops = b->n_ops;
    sub->kind = SUB_LEAF;
    for (uint32_t i = 0; i < sub->n_ops; i++)
        if (ops[i].code > OP_LAST_ASSERTION)
            sub->kind = SUB_FULL;
    return OK;
}
