/*
 * parse_json.c -- policies in Cedar's JSON format, to the trees that text becomes
 *
 *   Set     = { "staticPolicies"?: { id: Policy, ... } | [ Policy, ... ] | text,
 *               "templates"?: { id: Policy, ... }, "templateLinks"?: [ Link, ... ] }
 *   Link    = { "templateId": id, "newId": id, "values": { "?principal"?: Entity, "?resource"?: Entity } }
 *   Policy  = text | { "effect": "permit" | "forbid", "principal": Scope, "action": Scope, "resource": Scope,
 *               "conditions": [ { "kind": "when" | "unless", "body": Expr }, ... ],
 *               "annotations"?: { name: text | null } }
 *   Scope   = { "op": "All" | "all" } | { "op": "==" | "in", Which }
 *           | { "op": "is", "entity_type": type, "in"?: { Which } | null }
 *   Which   = "entity": Entity | "slot": "?principal" | "?resource" | "entities": [ Entity, ... ]   (action in)
 *   Entity  = Uid | { "__entity": Uid };  Uid = { "type": type, "id": id } | [ type, id ]
 *   Expr      is in parse_json_expr.c
 *
 * The whole may also be one Policy.  Members that are not listed are refused, as are duplicates (by the JSON parser).
 * A template is what has a slot, and stands among "templates" only; a text there holds one policy.
 */
#include "policy/parse_json.h"

#include <stdarg.h>
#include <stdio.h>

#include "base/check.h"
#include "policy/lex.h"

/* --- errors ----------------------------------------------------------------------------------------------------- */

static void write_place(struct buf *b, const struct est_at *at)
{
    if (!at)
        return;
    write_place(b, at->up);
    if (at->key.p)
        buf_addf(b, "%s%.*s", b->len ? "." : "", at->key.len > 80 ? 80 : (int)at->key.len, at->key.p);
    else
        buf_addf(b, "[%zu]", at->index);
}

/* The first report wins. Answers NULL. */
void *est_fail(struct est *r, const struct est_at *at, const char *fmt, ...)
{
    struct buf place = BUF_INIT(1 << 16);
    char text[300];
    va_list ap;

    if (!r->err) {
        va_start(ap, fmt);
        vsnprintf(text, sizeof(text), fmt, ap);
        va_end(ap);
        write_place(&place, at);
        if (place.len > 300) /* what is said last, the inner end, says most */
            r->err =
                err_set(r->info, E_CONFIG, "%.*s: ...%.*s: %s", STR_ARG(r->file), 300, place.p + place.len - 300, text);
        else
            r->err = err_set(r->info, E_CONFIG, "%.*s: %.*s%s%s", STR_ARG(r->file), STR_ARG(buf_str(&place)),
                             place.len ? ": " : "", text);
    }
    buf_release(&place);
    return NULL;
}

void *est_too_large(struct est *r)
{
    if (!r->err)
        r->err =
            err_set(r->info, E_CALL_TOO_LARGE, "%.*s: the policies need more memory than allowed", STR_ARG(r->file));
    return NULL;
}

/* --- members ---------------------------------------------------------------------------------------------------- */

bool est_object_of(struct est *r, const struct json *j, const struct est_at *at, const char *const *names)
{
    if (!json_is(j, JSON_OBJECT))
        return est_fail(r, at, "expected an object");
    for (const struct json *k = json_first(j); k; k = json_next(k)) {
        const char *const *n = names;

        while (*n && !str_is(json_key(k), *n))
            n++;
        if (!*n)
            return est_fail(r, at, "`%.*s` is not known here",
                        STR_ARG(str_n(json_key(k).p, json_key(k).len > 60 ? 60 : json_key(k).len)));
    }
    return true;
}

const struct json *est_member(struct est *r, const struct json *j, const struct est_at *at, const char *name)
{
    const struct json *m = json_get(j, name);

    return m ? m : est_fail(r, at, "expected a member \"%s\"", name);
}

bool est_member_str(struct est *r, const struct json *j, const struct est_at *at, const char *name, struct str *ret)
{
    const struct json *m = est_member(r, j, at, name);

    if (m && !json_is(m, JSON_STRING))
        return est_fail(r, at, "expected \"%s\" to be a string", name);
    *ret = json_str(m);
    return m != NULL;
}

bool est_member_type(struct est *r, const struct json *j, const struct est_at *at, const char *name, struct str *ret)
{
    if (!est_member_str(r, j, at, name, ret))
        return false;
    if (!policy_type_valid(*ret))
        return est_fail(r, at, "`%.*s` is not the name of an entity type", ret->len > 60 ? 60 : (int)ret->len, ret->p);
    return true;
}

static bool entity(struct est *r, const struct json *j, const struct est_at *at, struct policy_uid *ret)
{
    const struct json *inner = json_len(j) == 1 ? json_get(j, "__entity") : NULL;
    struct str type, id;

    if (inner)
        j = inner;
    if (json_is(j, JSON_ARRAY) && policy_uid_from_json(j, ret))
        return policy_type_valid(ret->type) || est_fail(r, at, "the first is not the name of an entity type");
    if (!OBJECT(r, j, at, "type", "id") || !est_member_type(r, j, at, "type", &type)
        || !est_member_str(r, j, at, "id", &id))
        return false;
    *ret = policy_uid(type, id);
    return true;
}

/* --- policies --------------------------------------------------------------------------------------------------- */

/* The entity or the slot of `var` that a constraint names; j holds "entity" or "slot". */
static bool which(struct est *r, const struct json *j, const struct est_at *at, const char *var, struct ast_scope *s)
{
    const struct json *e = json_get(j, "entity"), *slot = json_get(j, "slot");
    struct est_at inner = est_below(at, e);

    if ((e != NULL) == (slot != NULL))
        return est_fail(r, at, "expected either \"entity\" or \"slot\"");
    if (slot) {
        if (json_str(slot).len < 2 || json_str(slot).p[0] != '?' || !str_is(str_from(json_str(slot), 1), var))
            return est_fail(r, at, "expected the slot to be \"?%s\"", var);
        return true;                    /* no entity: that is the slot */
    }
    s->uids = ARENA_NEW(r->arena, struct policy_uid);
    s->n = 1;
    if (!s->uids)
        return est_too_large(r);
    return entity(r, e, &inner, s->uids);
}

static bool scope(struct est *r, const struct json *policy, const struct est_at *up, const char *var,
                  struct ast_scope *s)
{
    const struct json *j = est_member(r, policy, up, var), *in;
    struct est_at at = est_below(up, j), inner;
    struct str op;

    if (!j || !OBJECT(r, j, &at, "op", "entity", "slot", "entity_type", "in") || !est_member_str(r, j, &at, "op", &op))
        return false;
    if (str_is(op, "All") || str_is(op, "all"))
        return true;
    if (str_is(op, "==") || str_is(op, "in")) {
        s->kind = str_is(op, "==") ? SCOPE_EQ : SCOPE_IN;
        return which(r, j, &at, var, s);
    }
    if (!str_is(op, "is"))
        return est_fail(r, &at, "expected \"op\" to be \"All\", \"==\", \"in\" or \"is\"");
    in = json_is(json_get(j, "in"), JSON_NULL) ? NULL : json_get(j, "in");
    inner = est_below(&at, in);
    s->kind = in ? SCOPE_IS_IN : SCOPE_IS;
    if (!est_member_type(r, j, &at, "entity_type", &s->type))
        return false;
    return !in || (OBJECT(r, in, &inner, "entity", "slot") && which(r, in, &inner, var, s));
}

static bool action_uid(struct est *r, const struct json *j, const struct est_at *at, struct policy_uid *ret)
{
    if (!entity(r, j, at, ret))
        return false;
    return str_is(ret->type, "Action") || str_ends(ret->type, STR("::Action")) ||
           est_fail(r, at, "expected an entity of type Action, found one of type %.*s", STR_ARG(ret->type));
}

static bool actions(struct est *r, const struct json *policy, const struct est_at *up, struct ast_scope *s)
{
    const struct json *j = est_member(r, policy, up, "action"), *list, *one;
    struct est_at at = est_below(up, j), inner;
    struct str op;

    if (!j || !OBJECT(r, j, &at, "op", "entity", "entities") || !est_member_str(r, j, &at, "op", &op))
        return false;
    if (str_is(op, "All") || str_is(op, "all"))
        return true;
    if (!str_is(op, "==") && !str_is(op, "in"))
        return est_fail(r, &at, "expected \"op\" to be \"All\", \"==\" or \"in\"");
    list = json_get(j, "entities");
    one = json_get(j, "entity");
    s->kind = str_is(op, "==") ? SCOPE_EQ : SCOPE_IN;
    if ((one != NULL) == (list != NULL) || (list && (s->kind == SCOPE_EQ || !json_is(list, JSON_ARRAY))))
        return est_fail(r, &at, "expected either \"entity\" or, with \"in\", an array \"entities\"");
    s->uids = ARENA_ARRAY(r->arena, struct policy_uid, list ? json_len(list) : 1);
    if (!s->uids && !(list && json_len(list) == 0))
        return est_too_large(r);
    inner = est_below(&at, one);
    if (one)
        return action_uid(r, one, &inner, &s->uids[s->n++]);
    inner = est_below(&at, list);
    for (const struct json *k = json_first(list); k; k = json_next(k)) {
        struct est_at element = { .up = &inner, .index = s->n };

        if (!action_uid(r, k, &element, &s->uids[s->n++]))
            return false;
    }
    return true;
}

static bool conditions(struct est *r, const struct json *policy, const struct est_at *up, struct ast_policy *to)
{
    const struct json *list = est_member(r, policy, up, "conditions");
    struct ast_condition **end = &to->conditions;
    struct est_at at = est_below(up, list);
    size_t i = 0;

    if (list && !json_is(list, JSON_ARRAY))
        return est_fail(r, &at, "expected an array");
    for (const struct json *k = json_first(list); k; k = json_next(k)) {
        struct ast_condition *c = ARENA_NEW(r->arena, struct ast_condition);
        struct est_at inner = { .up = &at, .index = i++ };
        struct str kind;

        if (!c)
            return est_too_large(r);
        if (!OBJECT(r, k, &inner, "kind", "body") || !est_member_str(r, k, &inner, "kind", &kind))
            return false;
        if (!str_is(kind, "when") && !str_is(kind, "unless"))
            return est_fail(r, &inner, "expected \"kind\" to be \"when\" or \"unless\"");
        c->unless = str_is(kind, "unless");
        c->expr = est_operand(r, k, &inner, "body");
        if (!c->expr)
            return false;
        *end = c;
        end = &c->next;
    }
    return list != NULL;
}

static bool annotations(struct est *r, const struct json *policy, const struct est_at *up, struct ast_policy *to)
{
    const struct json *j = json_get(policy, "annotations");
    struct ast_annotation **end = &to->annotations;
    struct est_at at = est_below(up, j);

    if (j && !json_is(j, JSON_OBJECT))
        return est_fail(r, &at, "expected an object");
    for (const struct json *k = json_first(j); k; k = json_next(k)) {
        struct ast_annotation *n = ARENA_NEW(r->arena, struct ast_annotation);
        struct str key = json_key(k);

        if (!n)
            return est_too_large(r);
        for (size_t i = 0; i < key.len; i++)
            if (!lex_ident_char((unsigned char)key.p[i], i == 0))
                key.len = 0;
        if (key.len == 0)
            return est_fail(r, &at, "the name of an annotation is an identifier");
        if (!json_is(k, JSON_STRING) && !json_is(k, JSON_NULL))
            return est_fail(r, &at, "expected the annotations' values to be strings");
        *n = (struct ast_annotation){ .key = key, .value = json_is(k, JSON_STRING) ? json_str(k) : STR("") };
        *end = n;
        end = &n->next;
    }
    return true;
}

static struct ast_policy *from_object(struct est *r, const struct json *j, const struct est_at *at)
{
    struct ast_policy *p = ARENA_NEW(r->arena, struct ast_policy);
    struct str effect;

    if (!p)
        return est_too_large(r);
    if (!OBJECT(r, j, at, "effect", "principal", "action", "resource", "conditions", "annotations") ||
        !est_member_str(r, j, at, "effect", &effect))
        return NULL;
    if (!str_is(effect, "permit") && !str_is(effect, "forbid"))
        return est_fail(r, at, "expected \"effect\" to be \"permit\" or \"forbid\"");
    p->forbid = str_is(effect, "forbid");
    return annotations(r, j, at, p) && scope(r, j, at, "principal", &p->principal) && actions(r, j, at, &p->action) &&
                   scope(r, j, at, "resource", &p->resource) && conditions(r, j, at, p)
               ? p
               : NULL;
}

/* Policies in Cedar's syntax inside the JSON: their places are those inside the text. */
static struct ast_policy *from_text(struct est *r, struct str text, const struct est_at *at, size_t *ret_n)
{
    struct errinfo info = { "" };
    struct ast_file file = { 0 };
    enum err e = ast_parse(r->arena, STR("policy"), text, NULL, &file, &info);

    *ret_n = file.n;
    if (e == E_CALL_TOO_LARGE)
        return est_too_large(r);
    return e ? est_fail(r, at, "%s", info.text) : file.first;
}

static struct ast_policy *policy(struct est *r, const struct json *j, const struct est_at *at, bool template)
{
    struct ast_policy *p;
    size_t n = 1;

    p = json_is(j, JSON_STRING) ? from_text(r, json_str(j), at, &n) : from_object(r, j, at);
    if (r->err)
        return NULL;
    if (n != 1)
        return est_fail(r, at, "expected the text of one policy, found %zu", n);
    if (ast_is_template(p) != template)
        return est_fail(r, at,
                    template ? "expected a template, found a policy without a slot"
                             : "expected a policy without slots; templates stand in \"templates\"");
    return p;
}

/* --- sets ------------------------------------------------------------------------------------------------------- */

struct collector {
    struct ast_file *file;
    struct ast_policy **end;
    struct ast_link **links_end;
};

static void collect(struct collector *c, struct ast_policy *p)
{
    *c->end = p;
    for (; *c->end; c->end = &(*c->end)->next)
        c->file->n++;
}

static bool policies(struct est *r, struct collector *c, const struct json *j, const struct est_at *up, bool template)
{
    struct est_at at = est_below(up, j);
    size_t i = 0;

    if (json_is(j, JSON_STRING) && !template) {
        struct ast_policy *first = from_text(r, json_str(j), &at, &i);

        for (struct ast_policy *p = first; p; p = p->next)
            if (ast_is_template(p))
                return est_fail(r, &at, "expected policies without slots; templates stand in \"templates\"");
        collect(c, first);
        return !r->err;
    }
    if (j && !json_is(j, JSON_OBJECT) && !(json_is(j, JSON_ARRAY) && !template))
        return est_fail(r, &at, template ? "expected an object" : "expected an object, an array or a text");
    for (const struct json *k = json_first(j); k; k = json_next(k)) {
        struct est_at inner = { .up = &at, .key = json_key(k), .index = i++ };
        struct ast_policy *p = policy(r, k, &inner, template);

        if (!p)
            return false;
        p->id = json_key(k);
        collect(c, p);
    }
    return true;
}

static bool value_of(struct est *r, const struct json *values, const struct est_at *at, const char *slot,
                     struct policy_uid **ret)
{
    const struct json *j = json_get(values, slot);
    struct est_at inner = est_below(at, j);

    if (!j)
        return true;
    *ret = ARENA_NEW(r->arena, struct policy_uid);
    if (!*ret)
        return est_too_large(r);
    return entity(r, j, &inner, *ret);
}

static bool link(struct est *r, struct collector *c, const struct json *j, const struct est_at *at)
{
    struct ast_link *l = ARENA_NEW(r->arena, struct ast_link);
    const struct json *values;
    struct est_at inner;

    if (!l)
        return est_too_large(r);
    if (!OBJECT(r, j, at, "templateId", "newId", "values") || !est_member_str(r, j, at, "templateId", &l->template) ||
        !est_member_str(r, j, at, "newId", &l->id))
        return false;
    values = est_member(r, j, at, "values");
    inner = est_below(at, values);
    if (!values || !OBJECT(r, values, &inner, "?principal", "?resource") ||
        !value_of(r, values, &inner, "?principal", &l->principal) ||
        !value_of(r, values, &inner, "?resource", &l->resource))
        return false;
    l->where = arena_printf(r->arena, "%.*s: templateLinks[%zu]", STR_ARG(r->file), at->index);
    if (!l->where.p)
        return est_too_large(r);
    *c->links_end = l;
    c->links_end = &l->next;
    return true;
}

static bool links(struct est *r, struct collector *c, const struct json *j, const struct est_at *up)
{
    struct est_at at = est_below(up, j);
    size_t i = 0;

    if (j && !json_is(j, JSON_ARRAY))
        return est_fail(r, &at, "expected an array");
    for (const struct json *k = json_first(j); k; k = json_next(k)) {
        struct est_at inner = { .up = &at, .index = i++ };

        if (!link(r, c, k, &inner))
            return false;
    }
    return true;
}

static bool whole(struct est *r, struct collector *c, const struct json *j)
{
    if (json_get(j, "effect")) {
        struct ast_policy *p = from_object(r, j, NULL);

        collect(c, p);
        return p != NULL;
    }
    return OBJECT(r, j, NULL, "staticPolicies", "templates", "templateLinks") &&
           policies(r, c, json_get(j, "staticPolicies"), NULL, false) &&
           policies(r, c, json_get(j, "templates"), NULL, true) && links(r, c, json_get(j, "templateLinks"), NULL);
}

enum err ast_parse_json(struct arena *a, struct str file, struct str text, struct buf *tokens, struct ast_file *ret,
                        struct errinfo *info)
{
    static const struct json_limits limits = { .depth_max = JSON_DEPTH_MAX, .nodes_max = 1 << 26, .nul_keys = true };
    struct est r = { .arena = a, .file = file, .info = info };
    struct collector c = { .file = ret, .end = &ret->first, .links_end = &ret->links };
    struct json_error where = { 0 };
    struct json *j = NULL;
    enum err e = json_parse(a, text, &limits, &j, &where);

    *ret = (struct ast_file){ 0 };
    if (e == E_JSON_MALFORMED)
        return err_set(info, E_CONFIG, "%.*s:%u:%u: %s", STR_ARG(file), where.line, where.column, where.message);
    if (e || !whole(&r, &c, j))
        return e ? err_set(info, e, "%.*s: the policies need more memory than allowed", STR_ARG(file)) : r.err;
    if (tokens)
        json_write(tokens, j);
    return OK;
}
