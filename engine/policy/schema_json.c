/*
 * schema_json.c -- schemas in JSON
 *
 *   { "<namespace>" or "": {
 *       "entityTypes": { "<name>": { "memberOfTypes": [name], "shape": type, "tags": type } | { "enum": [id] } },
 *       "actions": { "<id>": { "memberOf": [{ "id", "type" }],
 *           "appliesTo": { "principalTypes": [name], "resourceTypes": [name], "context": type } } },
 *       "commonTypes": { "<name>": type } } }
 *   type: { "type": "String" | "Long" | "Boolean" | "<common type>" } | { "type": "Set", "element": type }
 *       | { "type": "Record", "attributes": { "<name>": type with "required" } }
 *       | { "type": "Entity" | "EntityOrCommon" | "Extension", "name" }
 *
 * Members that are not listed are refused; "annotations" may stand with namespaces, declarations and attributes.  A
 * null stands for nothing only in an action's "appliesTo", "memberOf" and "attributes" (where anything else is
 * refused: actions have no attributes), and for the type of an action.
 */
#include "base/check.h"
#include "json/json.h"
#include "policy/schema_decl.h"

struct reader {
    struct decl_schema *s;
    size_t at;                  /* of the member that is being read */
    unsigned nest;
};

/* What may stand in a type's object besides the type: nothing, "annotations", "required" too. */
enum beside { BARE, OF_COMMON, OF_ATTRIBUTE };

static struct decl_type *read_type(struct reader *r, const struct json *j, enum beside beside);

/* --- places ------------------------------------------------------------------------------------------------------- */

/* Keys and strings without escapes point into the text. */
static void note_place(struct reader *r, const char *p)
{
    const struct str *text = &r->s->text;

    if (p && (uintptr_t)p > (uintptr_t)text->p && (uintptr_t)p < (uintptr_t)text->p + text->len)
        r->at = (size_t)(p - text->p) - 1;          /* at its quote */
}

static void *fail(struct reader *r, const char *what, struct str key)
{
    return decl_fail(r->s, r->at, "%s: \"%.*s\"", what, STR_ARG(key));
}

static bool wanted(struct reader *r, const struct json *j, enum json_type type, const char *what)
{
    note_place(r, json_key(j).p);
    if (json_is(j, type))
        return true;
    return decl_fail(r->s, r->at, "expected %s", what);
}

/* Whether every member is one of the n names. */
static bool only(struct reader *r, const struct json *j, const char *const *names, size_t n)
{
    for (const struct json *k = json_first(j); k; k = json_next(k)) {
        bool known = false;

        for (size_t i = 0; i < n; i++)
            known |= str_is(json_key(k), names[i]);
        if (!known) {
            note_place(r, json_key(k).p);
            return fail(r, "nothing of this name is expected here", json_key(k));
        }
    }
    return true;
}

#define ONLY(r, j, ...) \
    only((r), (j), (const char *const[]){ __VA_ARGS__ }, ARRAY_LEN(((const char *const[]){ __VA_ARGS__ })))

static void *new_decl(struct reader *r, size_t size)
{
    void *p = arena_zalloc(r->s->arena, size);

    return p ? p : decl_memory(r->s);
}

/* --- small parts -------------------------------------------------------------------------------------------------- */

static bool ident_valid(struct str s)
{
    return decl_name_valid(s) && !memchr(s.p, ':', s.len);
}

/* A string that is a name, perhaps with its namespace. */
static bool read_name(struct reader *r, const struct json *j, const char *what, struct str *ret)
{
    note_place(r, json_str(j).p);
    if (!json_is(j, JSON_STRING) || !decl_name_valid(json_str(j)))
        return decl_fail(r->s, r->at, "expected %s", what);
    *ret = json_str(j);
    return true;
}

static bool read_annotations(struct reader *r, const struct json *j)
{
    const struct json *all = json_get(j, "annotations");

    if (!all)
        return true;
    if (!wanted(r, all, JSON_OBJECT, "an object of annotations"))
        return false;
    for (const struct json *k = json_first(all); k; k = json_next(k)) {
        note_place(r, json_key(k).p);
        if (!decl_word_valid(json_key(k)))
            return fail(r, "this is no name for an annotation", json_key(k));
        if (!json_is(k, JSON_STRING) && !json_is(k, JSON_NULL))
            return decl_fail(r->s, r->at, "expected the annotation's text");
    }
    return true;
}

static struct decl_ref *new_ref(struct reader *r)
{
    return new_decl(r, sizeof(struct decl_ref));
}

/* An array of names; *ret is set to its end. */
static bool read_names(struct reader *r, const struct json *j, struct decl_ref **ret)
{
    if (!wanted(r, j, JSON_ARRAY, "an array of names of entity types"))
        return false;
    for (const struct json *k = json_first(j); k; k = json_next(k), ret = &(*ret)->next) {
        *ret = new_ref(r);
        if (!*ret || !read_name(r, k, "the name of an entity type", &(*ret)->name))
            return false;
        (*ret)->at = r->at;
    }
    return true;
}

/* --- types -------------------------------------------------------------------------------------------------------- */

static struct decl_attr *read_attr(struct reader *r, const struct json *j)
{
    struct decl_attr *a = new_decl(r, sizeof(*a));
    const struct json *required = json_get(j, "required");

    if (!a || !wanted(r, j, JSON_OBJECT, "the type of an attribute, an object"))
        return NULL;
    a->at = r->at;
    a->key = json_key(j);
    a->required = true;
    if (required && !json_bool(required, &a->required))
        return wanted(r, required, JSON_BOOL, "true or false"), NULL;
    if (!read_annotations(r, j))
        return NULL;
    r->at = a->at;
    a->type = read_type(r, j, OF_ATTRIBUTE);
    return a->type ? a : NULL;
}

static bool read_attrs(struct reader *r, const struct json *j, struct decl_type *t)
{
    const struct json *more = json_get(j, "additionalAttributes");
    struct decl_attr **end = &t->attrs;
    bool open = false;

    if (more && !json_bool(more, &open))
        return wanted(r, more, JSON_BOOL, "true or false");
    if (open) {
        note_place(r, json_key(more).p);
        return decl_fail(r->s, r->at, "records with additional attributes are not supported");
    }
    j = json_get(j, "attributes");
    if (!j)
        return decl_fail(r->s, r->at, "a Record needs its \"attributes\"");
    if (!wanted(r, j, JSON_OBJECT, "an object of attributes"))
        return false;
    for (const struct json *k = json_first(j); k; k = json_next(k), end = &(*end)->next, t->n++) {
        *end = read_attr(r, k);
        if (!*end)
            return false;
    }
    return true;
}

static bool read_named(struct reader *r, const struct json *j, struct decl_type *t, enum decl_kind kind)
{
    t->kind = kind;
    j = json_get(j, "name");
    if (!j)
        return decl_fail(r->s, r->at, "this type needs a \"name\"");
    return read_name(r, j, kind == DECL_EXT ? "the name of an extension type" : "the name of a type", &t->name);
}

static bool read_kind(struct reader *r, const struct json *j, struct decl_type *t)
{
    static const struct { const char *name; const struct type *type; } plain[] = {
        { "String", &type_string }, { "Long", &type_long }, { "Boolean", &type_bool },
    };
    struct str kind = json_str(json_get(j, "type"));

    for (size_t i = 0; i < ARRAY_LEN(plain); i++)
        if (str_is(kind, plain[i].name)) {
            t->type = plain[i].type;
            return ONLY(r, j, "type", "required", "annotations");
        }
    if (str_is(kind, "Set")) {
        t->kind = DECL_SET;
        if (!ONLY(r, j, "type", "element", "required", "annotations"))
            return false;
        if (!json_get(j, "element"))
            return decl_fail(r->s, r->at, "a Set needs the type of its \"element\"");
        return (t->elem = read_type(r, json_get(j, "element"), BARE));
    }
    if (str_is(kind, "Record")) {
        t->kind = DECL_RECORD;
        return ONLY(r, j, "type", "attributes", "additionalAttributes", "required", "annotations")
            && read_attrs(r, j, t);
    }
    if (str_is(kind, "Entity") || str_is(kind, "EntityOrCommon") || str_is(kind, "Extension"))
        return ONLY(r, j, "type", "name", "required", "annotations") && read_named(r, j, t,
            str_is(kind, "Entity") ? DECL_ENTITY : str_is(kind, "Extension") ? DECL_EXT : DECL_NAME);
    t->kind = DECL_COMMON;
    return ONLY(r, j, "type", "required", "annotations")
        && read_name(r, json_get(j, "type"), "a type: String, Long, Boolean, Set, Record, Entity, Extension or the "
            "name of a common type", &t->name);
}

static struct decl_type *read_type(struct reader *r, const struct json *j, enum beside beside)
{
    struct decl_type *t = new_decl(r, sizeof(*t));
    bool ok;

    if (!t || !wanted(r, j, JSON_OBJECT, "a type, an object"))
        return NULL;
    t->at = r->at;
    if ((json_get(j, "annotations") && beside == BARE) || (json_get(j, "required") && beside != OF_ATTRIBUTE))
        return fail(r, "nothing of this name is expected here",
            json_get(j, "required") && beside != OF_ATTRIBUTE ? STR("required") : STR("annotations"));
    if (r->nest == TYPE_DEPTH_MAX)
        return decl_fail(r->s, r->at, "types are nested more than %d deep", TYPE_DEPTH_MAX);
    if (!json_get(j, "type"))
        return decl_fail(r->s, r->at, "a type needs a \"type\"");
    r->nest++;
    ok = read_kind(r, j, t);
    r->nest--;
    return ok ? t : NULL;
}

/* --- declarations ------------------------------------------------------------------------------------------------- */

static bool read_choices(struct reader *r, const struct json *j, struct decl_entity *e)
{
    e->has_choices = true;
    if (!wanted(r, j, JSON_ARRAY, "an array of ids"))
        return false;
    if (json_len(j) == 0)
        return decl_fail(r->s, r->at, "an enumerated type needs at least one id");
    e->choices = ARENA_ARRAY(r->s->arena, struct str, json_len(j));
    if (!e->choices)
        return decl_memory(r->s);
    for (const struct json *k = json_first(j); k; k = json_next(k)) {
        note_place(r, json_str(k).p);
        if (!json_is(k, JSON_STRING))
            return decl_fail(r->s, r->at, "expected an id, a string");
        e->choices[e->n_choices++] = json_str(k);
    }
    return true;
}

static bool read_entity(struct reader *r, const struct json *j, struct decl_entity *e)
{
    const struct json *k;

    if (!wanted(r, j, JSON_OBJECT, "an entity type, an object"))
        return false;
    e->at = r->at;
    e->name = json_key(j);
    if (!ident_valid(e->name))
        return fail(r, "this is no name for an entity type", e->name);
    if (!read_annotations(r, j))
        return false;
    r->at = e->at;
    k = json_get(j, "enum");
    if (k)
        return ONLY(r, j, "enum", "annotations") && read_choices(r, k, e);
    if (!ONLY(r, j, "memberOfTypes", "shape", "tags", "annotations"))
        return false;
    k = json_get(j, "memberOfTypes");
    if (k && !read_names(r, k, &e->parents))
        return false;
    k = json_get(j, "shape");
    if (k && !(e->shape = read_type(r, k, BARE)))
        return false;
    k = json_get(j, "tags");
    return !k || (e->tags = read_type(r, k, BARE));
}

static bool read_parents(struct reader *r, const struct json *j, struct decl_action *a)
{
    struct decl_ref **end = &a->parents;

    if (!wanted(r, j, JSON_ARRAY, "an array of actions"))
        return false;
    for (const struct json *k = json_first(j); k; k = json_next(k), end = &(*end)->next) {
        const struct json *type = json_get(k, "type");

        *end = new_ref(r);
        if (!*end || !ONLY(r, k, "id", "type"))
            return false;
        if (!json_is(json_get(k, "id"), JSON_STRING))
            return decl_fail(r->s, r->at, "expected an action as {\"id\": \"...\"}");
        note_place(r, json_key(json_get(k, "id")).p);
        (*end)->at = r->at;
        (*end)->id = json_str(json_get(k, "id"));
        if (type && !json_is(type, JSON_NULL) && !read_name(r, type, "the type of an action", &(*end)->name))
            return false;
    }
    return true;
}

static bool read_applies(struct reader *r, const struct json *j, struct decl_action *a)
{
    size_t at;
    const struct json *context = json_get(j, "context");

    if (!wanted(r, j, JSON_OBJECT, "what the action applies to, an object"))
        return false;
    at = r->at;
    if (!ONLY(r, j, "principalTypes", "resourceTypes", "context"))
        return false;
    if (!json_get(j, "principalTypes") || !json_get(j, "resourceTypes"))
        return decl_fail(r->s, at, "\"appliesTo\" needs both \"principalTypes\" and \"resourceTypes\"");
    return read_names(r, json_get(j, "principalTypes"), &a->principals)
        && read_names(r, json_get(j, "resourceTypes"), &a->resources)
        && (!context || (a->context = read_type(r, context, BARE)));
}

static bool read_action(struct reader *r, const struct json *j, struct decl_action *a)
{
    const struct json *k;

    if (!wanted(r, j, JSON_OBJECT, "an action, an object"))
        return false;
    a->at = r->at;
    a->id = json_key(j);
    if (!ONLY(r, j, "attributes", "appliesTo", "memberOf", "annotations") || !read_annotations(r, j))
        return false;
    k = json_get(j, "attributes");
    if (k && !json_is(k, JSON_NULL)) {
        note_place(r, json_key(k).p);
        return decl_fail(r->s, r->at, "actions have no attributes");
    }
    k = json_get(j, "appliesTo");
    if (k && !json_is(k, JSON_NULL) && !read_applies(r, k, a))
        return false;
    k = json_get(j, "memberOf");
    return !k || json_is(k, JSON_NULL) || read_parents(r, k, a);
}

static bool read_common(struct reader *r, const struct json *j, struct decl_common *c)
{
    note_place(r, json_key(j).p);
    c->at = r->at;
    c->name = json_key(j);
    if (!ident_valid(c->name))
        return fail(r, "this is no name for a type", c->name);
    if (!read_annotations(r, j))
        return false;
    r->at = c->at;
    return (c->type = read_type(r, j, OF_COMMON));
}

static bool read_namespace(struct reader *r, const struct json *j, struct decl_namespace *ns)
{
    const struct json *entities = json_get(j, "entityTypes"), *actions = json_get(j, "actions"),
        *commons = json_get(j, "commonTypes");
    struct decl_entity **e = &ns->entities;
    struct decl_action **a = &ns->actions;
    struct decl_common **c = &ns->commons;

    if (!wanted(r, j, JSON_OBJECT, "a namespace, an object"))
        return false;
    ns->at = r->at;
    ns->name = json_key(j);
    if (ns->name.len && !decl_name_valid(ns->name))
        return fail(r, "this is no name for a namespace", ns->name);
    if (!ONLY(r, j, "entityTypes", "actions", "commonTypes", "annotations") || !read_annotations(r, j))
        return false;
    r->at = ns->at;
    if (!ns->name.len && json_len(json_get(j, "annotations")))
        return decl_fail(r->s, r->at, "the namespace without a name cannot have annotations");
    if (!entities || !actions)
        return decl_fail(r->s, r->at, "a namespace needs both \"entityTypes\" and \"actions\"");
    if (!wanted(r, entities, JSON_OBJECT, "an object of entity types")
        || !wanted(r, actions, JSON_OBJECT, "an object of actions")
        || (commons && !wanted(r, commons, JSON_OBJECT, "an object of types")))
        return false;
    for (const struct json *k = json_first(commons); k; k = json_next(k), c = &(*c)->next)
        if (!(*c = new_decl(r, sizeof(**c))) || !read_common(r, k, *c))
            return false;
    for (const struct json *k = json_first(entities); k; k = json_next(k), e = &(*e)->next)
        if (!(*e = new_decl(r, sizeof(**e))) || !read_entity(r, k, *e))
            return false;
    for (const struct json *k = json_first(actions); k; k = json_next(k), a = &(*a)->next)
        if (!(*a = new_decl(r, sizeof(**a))) || !read_action(r, k, *a))
            return false;
    return true;
}

void schema_parse_json(struct decl_schema *s)
{
    const struct json_limits limits = { .depth_max = JSON_DEPTH_MAX, .nodes_max = 1u << 24, .nul_keys = true };
    struct decl_namespace **end = &s->first;
    struct reader r = { .s = s };
    struct json_error where;
    struct json *j;
    enum err e = json_parse(s->arena, s->text, &limits, &j, &where);

    if (e == E_CALL_TOO_LARGE) {
        decl_memory(s);
        return;
    }
    if (e) {
        decl_fail(s, where.offset, "%s", where.message);
        return;
    }
    if (!wanted(&r, j, JSON_OBJECT, "an object of namespaces"))
        return;
    for (const struct json *k = json_first(j); k; k = json_next(k), end = &(*end)->next)
        if (!(*end = new_decl(&r, sizeof(**end))) || !read_namespace(&r, k, *end))
            return;
}
