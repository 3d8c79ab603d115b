/*
 * entities_json.c -- entities in Cedar's JSON format, with and without a schema
 *
 * Without a schema attributes are read as they are written, and types are taken as they come.  With one, attributes and
 * tags are read by their types, entities must be of a declared type and have what it demands and nothing else, and be
 * in what it allows.  Actions come from the schema: those that are written too must be exactly those of the schema.
 */
#include "policy/entities_json.h"

#include <string.h>

#include "base/check.h"
#include "json/json.h"
#include "policy/schema.h"
#include "policy/types.h"

struct given {
    const struct schema_action *action;
    const struct policy_uid *parents;
    size_t n_parents;
    struct given *next;
};

struct reader {
    struct policy_entities *store;
    const struct policy_schema *schema;         /* may be NULL */
    struct arena *arena;
    struct given *given;                        /* the actions that the text holds */
    struct errinfo *info;
};

static enum err too_large(struct reader *r)
{
    return err_set(r->info, E_CALL_TOO_LARGE, "the entities need more memory than allowed");
}

/* r->info holds what went wrong: said again with the entity's name. */
static enum err of_entity(struct reader *r, enum err e, const struct policy_uid *uid)
{
    struct errinfo why;

    if (!r->info)
        return e;
    why = *r->info;
    return entities_error(r->info, e, why.text, uid);
}

enum err entities_read_uid(const struct json *j, struct policy_uid *ret, struct errinfo *info)
{
    struct policy_uid uid;

    if (!policy_uid_from_json(json_get(j, "__entity"), &uid) && !policy_uid_from_json(j, &uid))
        return err_set(info, E_FORMAT, "expected an entity as {\"type\": \"...\", \"id\": \"...\"}");
    if (!policy_type_valid(uid.type))
        return err_set(info, E_FORMAT, "`%.*s` is not the name of an entity type", STR_ARG(uid.type));
    *ret = uid;
    return OK;
}

/* Attributes or tags: a record, never an escape. `each` is the type of every member, if known. */
static enum err read_record(struct reader *r, const struct json *j, const char *what, const struct type *each,
    struct policy_value *ret)
{
    struct policy_attr *attrs;
    size_t n = 0;
    enum err e;

    if (!json_is(j, JSON_OBJECT))
        return err_set(r->info, E_FORMAT, "an entity's \"%s\" must be an object", what);
    attrs = ARENA_ARRAY(r->arena, struct policy_attr, json_len(j));
    if (!attrs && json_len(j))
        return too_large(r);
    for (const struct json *k = json_first(j); k; k = json_next(k), n++) {
        attrs[n].key = json_key(k);
        e = each ? schema_value_from_json(r->arena, k, each, &attrs[n].value, r->info)
            : policy_value_from_json(r->arena, k, POLICY_JSON_CEDAR, &attrs[n].value, r->info);
        if (e)
            return e;
        if (each && schema_check_value(r->schema, each, &attrs[n].value, what, r->info))
            return E_FORMAT;
    }
    *ret = policy_record_of(attrs, n);
    ASSERT(ret->kind == POLICY_RECORD);     /* the parser refuses duplicate keys */
    return OK;
}

static enum err read_attrs(struct reader *r, const struct json *j, const struct schema_entity *type,
    struct policy_value *ret)
{
    enum err e;

    if (!type)
        return read_record(r, j, "attrs", NULL, ret);
    if (!json_is(j, JSON_OBJECT))
        return err_set(r->info, E_FORMAT, "an entity's \"attrs\" must be an object");
    e = schema_value_from_json(r->arena, j, type->shape, ret, r->info);
    if (!e && schema_check_value(r->schema, type->shape, ret, "attrs", r->info))
        return E_FORMAT;
    return e;
}

static enum err read_tags(struct reader *r, const struct json *j, const struct schema_entity *type,
    struct policy_value *ret)
{
    if (!j)
        return OK;
    if (type && !type->tags && json_len(j))
        return err_set(r->info, E_FORMAT, "entities of this type have no tags");
    return read_record(r, j, "tags", type ? type->tags : NULL, ret);
}

/* `type` is not NULL: a parent of `up` must be allowed there. */
static enum err check_parent(struct reader *r, const struct schema_entity *type, const struct policy_uid *up)
{
    const struct schema_entity *u = schema_entity(r->schema, up->type);

    if (!u || !schema_above(type->above, type->n_above, u->index))
        return err_set(r->info, E_FORMAT, "entities of this type cannot be in one of type %.*s", STR_ARG(up->type));
    return schema_check_uid(r->schema, up, r->info) ? E_FORMAT : OK;
}

static enum err read_parents(struct reader *r, const struct json *j, const struct schema_entity *type,
    struct policy_uid **ret, size_t *ret_n)
{
    struct policy_uid *up;
    size_t n = 0;
    enum err e;

    if (!json_is(j, JSON_ARRAY))
        return err_set(r->info, E_FORMAT, "an entity's \"parents\" must be an array");
    up = ARENA_ARRAY(r->arena, struct policy_uid, json_len(j));
    if (!up && json_len(j))
        return too_large(r);
    for (const struct json *k = json_first(j); k; k = json_next(k), n++) {
        e = entities_read_uid(k, &up[n], r->info);
        if (!e && type)
            e = check_parent(r, type, &up[n]);
        if (e)
            return e;
    }
    *ret = up;
    *ret_n = n;
    return OK;
}

/* --- actions of a schema ------------------------------------------------------------------------------------------ */

static enum err note_action(struct reader *r, const struct policy_uid *uid, const struct policy_value *attrs,
    const struct policy_value *tags, const struct policy_uid *parents, size_t n)
{
    struct given *g = ARENA_NEW(r->arena, struct given);

    if (!g)
        return too_large(r);
    g->action = schema_action(r->schema, uid);
    if (!g->action)
        return err_set(r->info, E_FORMAT, "the schema has no such action");
    if (attrs->len || tags->len)
        return err_set(r->info, E_FORMAT, "actions have neither attributes nor tags");
    g->parents = parents;
    g->n_parents = n;
    g->next = r->given;
    r->given = g;
    return OK;
}

/* Marks the parents of `g` that are not marked with `mark` yet; false: one is above it in no schema. */
static bool mark_parents(struct reader *r, const struct schema_action *of, const struct given *g, uint32_t *marks,
    uint32_t mark, uint32_t *stack, uint32_t *n)
{
    for (size_t i = 0; i < g->n_parents; i++) {
        const struct schema_action *up = schema_action(r->schema, &g->parents[i]);

        if (!up || !schema_above(of->above, of->n_above, up->index))
            return false;
        if (marks[up->index] != mark) {
            marks[up->index] = mark;
            stack[(*n)++] = up->index;
        }
    }
    return true;
}

/* What the text puts an action in, directly and through other actions of the text, must be what the schema does. */
static enum err check_actions(struct reader *r)
{
    uint32_t n_actions = r->schema->n_actions, mark = 0;
    uint32_t *marks = ARENA_ARRAY(r->arena, uint32_t, n_actions + 1);
    uint32_t *stack = ARENA_ARRAY(r->arena, uint32_t, n_actions + 1);
    struct given **by = ARENA_ARRAY(r->arena, struct given *, n_actions + 1);

    if (!marks || !stack || !by)
        return too_large(r);
    for (struct given *g = r->given; g; g = g->next)
        by[g->action->index] = g;
    for (struct given *g = r->given; g; g = g->next) {
        uint32_t n = 0, done = 0;
        bool ok = mark_parents(r, g->action, g, marks, ++mark, stack, &n);

        for (; ok && done < n; done++)
            if (by[stack[done]])
                ok = mark_parents(r, g->action, by[stack[done]], marks, mark, stack, &n);
        if (!ok || n != g->action->n_above)
            return entities_error(r->info, E_FORMAT, "this action is in other actions than the schema says",
                &g->action->uid);
    }
    return OK;
}

static enum err add_actions(struct reader *r)
{
    for (uint32_t i = 0; i < r->schema->n_actions; i++) {
        const struct schema_action *a = r->schema->actions[i];
        struct policy_uid *up = ARENA_ARRAY(r->arena, struct policy_uid, a->n_above);
        enum err e;

        if (!up && a->n_above)
            return too_large(r);
        for (uint32_t k = 0; k < a->n_above; k++)
            up[k] = r->schema->actions[a->above[k]]->uid;
        e = policy_entities_add(r->store, &a->uid, (struct policy_value){ 0 }, (struct policy_value){ 0 }, up,
            a->n_above, r->info);
        if (e)
            return e;
    }
    return OK;
}

/* ------------------------------------------------------------------------------------------------------------------ */

static enum err add_entity(struct reader *r, const struct json *j)
{
    struct policy_value attrs = { 0 }, tags = { 0 };
    const struct schema_entity *type = NULL;
    struct policy_uid uid, *up = NULL;
    bool action;
    size_t n = 0;
    enum err e;

    e = entities_read_uid(json_get(j, "uid"), &uid, r->info);
    if (e)
        return e;
    action = r->schema && policy_type_is_action(uid.type);
    if (r->schema && !action) {
        type = schema_entity(r->schema, uid.type);
        if (!type)
            return entities_error(r->info, E_FORMAT, "the schema declares no entity type for this", &uid);
        if (schema_check_uid(r->schema, &uid, r->info))
            return E_FORMAT;
    }
    e = read_attrs(r, json_get(j, "attrs"), type, &attrs);
    if (!e)
        e = read_tags(r, json_get(j, "tags"), type, &tags);
    if (!e)
        e = read_parents(r, json_get(j, "parents"), type, &up, &n);
    if (!e && action)
        e = note_action(r, &uid, &attrs, &tags, up, n);
    if (e)
        return of_entity(r, e, &uid);
    return action ? OK : policy_entities_add(r->store, &uid, attrs, tags, up, n, r->info);
}

enum err policy_entities_add_json_typed(struct policy_entities *store, const struct policy_schema *schema,
    struct str text, struct errinfo *info)
{
    const struct json_limits limits = { .nodes_max = 1u << 24, .nul_keys = true };
    struct arena a;
    struct reader r = { .store = store, .schema = schema, .arena = &a, .info = info };
    struct json_error where;
    struct json *all;
    enum err e;

    arena_init(&a, STORE_MAX);
    e = json_parse(&a, text, &limits, &all, &where);
    if (e) {
        err_set(info, e, "%u:%u: %s", where.line, where.column, where.message);
        e = e == E_CALL_TOO_LARGE ? e : E_FORMAT;
    } else if (!json_is(all, JSON_ARRAY)) {
        e = err_set(info, E_FORMAT, "entities are an array of objects");
    }
    for (const struct json *j = e ? NULL : json_first(all); j && !e; j = json_next(j))
        e = add_entity(&r, j);
    if (!e && schema)
        e = check_actions(&r);
    if (!e && schema)
        e = add_actions(&r);
    arena_release(&a);
    return e;
}

enum err policy_entities_add_json(struct policy_entities *store, struct str json, struct errinfo *info)
{
    return policy_entities_add_json_typed(store, NULL, json, info);
}
