/*
 * schema_check.c -- values, entities and requests against a schema
 */
#include <stdio.h>

#include "base/check.h"
#include "json/json.h"
#include "policy/types.h"
#include "policy/schema.h"

/* Where in a value we are: kept on the stack, written out only when something is wrong. */
struct path {
    const struct path *outer;
    struct str key;             /* empty p: an element of a set */
};

struct checker {
    const struct policy_schema *s;
    const char *what;
    struct errinfo *info;
};

static void write_path(struct buf *out, const char *what, const struct path *p)
{
    if (!p) {
        buf_add_z(out, what);
        return;
    }
    write_path(out, what, p->outer);
    if (p->key.p)
        buf_addf(out, ".%.*s", STR_ARG(p->key));
    else
        buf_add_z(out, "[]");
}

static const char *kind_name(const struct policy_value *v)
{
    switch ((enum policy_kind)v->kind) {
    case POLICY_BOOL:       return "Bool";
    case POLICY_LONG:       return "Long";
    case POLICY_STRING:     return "String";
    case POLICY_SET:        return "a set";
    case POLICY_RECORD:     return "a record";
    case POLICY_OPAQUE:     return "what Cedar has no value for";
    case POLICY_DECIMAL:
    case POLICY_IP:
    case POLICY_DATETIME:
    case POLICY_DURATION:
        return type_name(type_of_ext_kind((enum policy_kind)v->kind));
    default:
        return "nothing known";
    }
}

static enum err refuse(const struct checker *c, const struct path *p, const char *wrong, struct str what)
{
    struct buf where = BUF_INIT(200);

    write_path(&where, c->what, p);
    err_set(c->info, E_CONFIG, "%.*s: %s%.*s", STR_ARG(buf_str(&where)), wrong, STR_ARG(what));
    buf_release(&where);
    return E_CONFIG;
}

static enum err mismatch(const struct checker *c, const struct path *p, const struct type *t,
    const struct policy_value *v)
{
    struct buf b = BUF_INIT(300);
    enum err e;

    type_write(&b, t);
    buf_add_z(&b, ", found ");
    if (v->kind == POLICY_ENTITY)
        buf_add_str(&b, v->u.uid->type);
    else
        buf_add_z(&b, kind_name(v));
    e = refuse(c, p, "expected ", buf_str(&b));
    buf_release(&b);
    return e;
}

enum err schema_check_uid(const struct policy_schema *s, const struct policy_uid *uid, struct errinfo *info)
{
    const struct schema_entity *e;

    if (policy_type_is_action(uid->type)) {
        if (schema_action(s, uid))
            return OK;
        return err_set(info, E_CONFIG, "the schema has no action %.*s::\"%.*s\"", STR_ARG(uid->type),
            STR_ARG(uid->id));
    }
    e = schema_entity(s, uid->type);
    if (!e || schema_id_valid(e, uid->id))
        return OK;
    return err_set(info, E_CONFIG, "the enumerated type %.*s has no \"%.*s\"", STR_ARG(uid->type), STR_ARG(uid->id));
}

static enum err check(const struct checker *c, const struct type *t, const struct policy_value *v,
    const struct path *p);

static enum err check_record(const struct checker *c, const struct type *t, const struct policy_value *v,
    const struct path *p)
{
    uint32_t i = 0, k = 0;

    /* Both are in the order of their keys. */
    while (i < t->n || k < v->len) {
        int cmp = i == t->n ? 1 : k == v->len ? -1 : policy_key_cmp(t->u.attrs[i].key, v->u.attrs[k].key);
        struct path inner = { p, cmp > 0 ? v->u.attrs[k].key : t->u.attrs[i].key };
        enum err e;

        if (cmp > 0)
            return refuse(c, p, "there is no attribute ", inner.key);
        if (cmp < 0 && t->u.attrs[i].required)
            return refuse(c, p, "it lacks the attribute ", inner.key);
        if (cmp == 0) {
            e = check(c, t->u.attrs[i].type, &v->u.attrs[k++].value, &inner);
            if (e)
                return e;
        }
        i++;
    }
    return OK;
}

static bool scalar_fits(const struct type *t, const struct policy_value *v)
{
    switch ((enum type_kind)t->kind) {
    case TYPE_BOOL:     return v->kind == POLICY_BOOL;
    case TYPE_TRUE:     return v->kind == POLICY_BOOL && v->u.b;
    case TYPE_FALSE:    return v->kind == POLICY_BOOL && !v->u.b;
    case TYPE_LONG:     return v->kind == POLICY_LONG;
    case TYPE_STRING:   return v->kind == POLICY_STRING;
    case TYPE_EXT:      return v->kind == t->ext;
    case TYPE_ENTITY:   return v->kind == POLICY_ENTITY && str_eq(v->u.uid->type, t->u.entity->name.type);
    default:
        return false;
    }
}

static enum err check_entity(const struct checker *c, const struct policy_uid *uid, const struct path *p)
{
    struct errinfo why;

    return schema_check_uid(c->s, uid, &why) ? refuse(c, p, why.text, STR_NULL) : OK;
}

static enum err check(const struct checker *c, const struct type *t, const struct policy_value *v,
    const struct path *p)
{
    struct path inner = { p, STR_NULL };
    enum err e = OK;

    if (t->kind == TYPE_RECORD && v->kind == POLICY_RECORD)
        return check_record(c, t, v, p);
    if (t->kind == TYPE_SET && v->kind == POLICY_SET) {
        for (uint32_t i = 0; i < v->len && !e; i++)
            e = check(c, t->u.elem, &v->u.elems[i], &inner);
        return e;
    }
    if (!scalar_fits(t, v))
        return mismatch(c, p, t, v);
    return v->kind == POLICY_ENTITY ? check_entity(c, v->u.uid, p) : OK;
}

enum err schema_check_value(const struct policy_schema *s, const struct type *t, const struct policy_value *v,
    const char *what, struct errinfo *info)
{
    struct checker c = { .s = s, .what = what, .info = info };

    return check(&c, t, v, NULL);
}

/* --- requests ----------------------------------------------------------------------------------------------------- */

static enum err no_action(const struct policy_uid *action, enum err e, struct errinfo *info)
{
    return err_set(info, e, "the schema has no action %.*s::\"%.*s\"", STR_ARG(action->type), STR_ARG(action->id));
}

enum err policy_context_from_json(struct arena *a, const struct json *j, const struct policy_schema *schema,
    const struct policy_uid *action, struct policy_value *ret, struct errinfo *info)
{
    const struct schema_action *known = schema ? schema_action(schema, action) : NULL;

    if (!json_is(j, JSON_OBJECT))
        return err_set(info, E_FORMAT, "a context is an object");
    if (!schema)
        return policy_value_from_json(a, j, POLICY_JSON_CEDAR, ret, info);
    if (!known)
        return no_action(action, E_FORMAT, info);
    return schema_value_from_json(a, j, known->context, ret, info);
}

/* `who` takes part in the request as `role`: "principal", "resource". */
static enum err check_part(const struct policy_schema *s, const char *role, const struct policy_uid *who,
    const struct policy_uid *action, const struct schema_entity *const *types, uint32_t n, struct errinfo *info)
{
    const struct schema_entity *e = schema_entity(s, who->type);

    if (!e || e->action)
        return err_set(info, E_CONFIG, "the schema has no entity type %.*s, which is the %s's", STR_ARG(who->type),
            role);
    if (!schema_id_valid(e, who->id))
        return schema_check_uid(s, who, info);
    for (uint32_t i = 0; i < n; i++)
        if (types[i] == e)
            return OK;
    return err_set(info, E_CONFIG, "%.*s::\"%.*s\" does not apply to a %s of type %.*s", STR_ARG(action->type),
        STR_ARG(action->id), role, STR_ARG(who->type));
}

enum err policy_schema_check_request(const struct policy_schema *s, const struct policy_request *r,
    struct errinfo *info)
{
    const struct schema_action *a = schema_action(s, r->action);
    enum err e;

    if (!a)
        return no_action(r->action, E_CONFIG, info);
    e = check_part(s, "principal", r->principal, r->action, a->principals, a->n_principals, info);
    if (!e)
        e = check_part(s, "resource", r->resource, r->action, a->resources, a->n_resources, info);
    return e ? e : schema_check_value(s, a->context, &r->context, "context", info);
}
