/*
 * validate.c -- policies against a schema: names, heads, and every kind of request
 *
 * A policy is checked once for the names in it and for its head, and then, as one condition (the head's constraints,
 * then the when and unless clauses), for every kind of request that the schema allows: each action with each type of
 * principal and of resource that it applies to; a template also with every type that its slots can be filled with.
 * What is False for all of them can never apply: a warning.
 */
#include "policy/validate.h"

#include <stdlib.h>

#include "policy/program.h"

#define WORK_MAX    ((size_t)256 << 20)

/* What a policy's head says of one variable, as types. */
struct head {
    const struct ast_scope *scope;
    const struct policy_uid *uid;       /* of EQ, IN, IS_IN; NULL: a slot, which may be any */
};

/* --- names -------------------------------------------------------------------------------------------------------- */

static void report_at(struct validator *v, uint32_t line, uint32_t column, enum policy_finding_kind kind,
    const char *what, struct str name, const char *rest)
{
    struct ast at = { .line = line, .column = column };

    validate_report(v, &at, kind, "%s`%.*s`%s", what, STR_ARG(name), rest);
}

static void check_type_name(struct validator *v, struct str name, uint32_t line, uint32_t column)
{
    const struct schema_entity *e = schema_entity(v->schema, name);

    if (!policy_type_is_action(name) && (!e || e->action))
        report_at(v, line, column, POLICY_UNKNOWN_TYPE, "the schema declares no entity type ", name, "");
}

static void check_uid(struct validator *v, const struct policy_uid *uid, uint32_t line, uint32_t column)
{
    struct buf b = BUF_INIT(400);
    const struct schema_entity *e;

    policy_uid_write(&b, uid);
    if (policy_type_is_action(uid->type)) {
        if (!schema_action(v->schema, uid))
            report_at(v, line, column, POLICY_UNKNOWN_ACTION, "the schema declares no action ", buf_str(&b), "");
    } else {
        check_type_name(v, uid->type, line, column);
        e = schema_entity(v->schema, uid->type);
        if (e && !schema_id_valid(e, uid->id))
            report_at(v, line, column, POLICY_UNKNOWN_ID, "the type is enumerated, and has no ", buf_str(&b), "");
    }
    buf_release(&b);
}

static void check_names(struct validator *v, const struct ast *e)
{
    const struct ast *kid = e->first;

    if (e->op == AST_ENTITY)
        check_uid(v, &e->u.uid, e->line, e->column);
    if (e->op == AST_IS)
        check_type_name(v, e->text, e->line, e->column);
    for (uint32_t i = 0; i < e->n; i++, kid = kid->next)
        check_names(v, kid);
}

static void check_head_names(struct validator *v, const struct ast_scope *s)
{
    if (s->kind == SCOPE_IS || s->kind == SCOPE_IS_IN)
        check_type_name(v, s->type, s->line, s->column);
    for (size_t i = 0; i < s->n; i++)
        check_uid(v, &s->uids[i], s->line, s->column);
}

/* --- the head and the actions ------------------------------------------------------------------------------------- */

static struct head head_of(const struct ast_scope *s)
{
    return (struct head){ s, s->n ? s->uids : NULL };
}

/* Whether an entity of the type could be what the head wants. */
static bool head_fits(const struct validator *v, const struct head *h, const struct schema_entity *e)
{
    const struct schema_entity *high;

    switch ((enum scope_kind)h->scope->kind) {
    case SCOPE_ANY:
        return true;
    case SCOPE_EQ:
        return !h->uid || str_eq(h->uid->type, e->name.type);
    case SCOPE_IS:
    case SCOPE_IS_IN:
        if (!str_eq(h->scope->type, e->name.type))
            return false;
        break;
    case SCOPE_IN:
        break;
    }
    if (!h->uid || str_eq(h->uid->type, e->name.type))
        return true;
    high = schema_entity(v->schema, h->uid->type);
    return high && schema_above(e->above, e->n_above, high->index);
}

static bool any_fits(const struct validator *v, const struct head *h, const struct schema_entity *const *types,
    uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        if (head_fits(v, h, types[i]))
            return true;
    return false;
}

/* Whether the head allows the action. One unknown name in a list makes the whole list unknown. */
static bool action_fits(const struct validator *v, const struct ast_scope *s, const struct schema_action *a)
{
    bool fits = s->kind == SCOPE_ANY;

    for (size_t i = 0; i < s->n; i++) {
        const struct schema_action *named = schema_action(v->schema, &s->uids[i]);

        if (!named)
            return false;
        fits |= named == a || (s->kind == SCOPE_IN && schema_above(a->above, a->n_above, named->index));
    }
    return fits;
}

/* Some action must apply to some types that the head allows. */
static void check_applies(struct validator *v, const struct head *principal, const struct ast_scope *action,
    const struct head *resource, const struct ast *at)
{
    for (uint32_t i = 0; i < v->schema->n_actions; i++) {
        const struct schema_action *a = v->schema->actions[i];

        if (action_fits(v, action, a) && any_fits(v, principal, a->principals, a->n_principals)
            && any_fits(v, resource, a->resources, a->n_resources))
            return;
    }
    validate_report(v, at, POLICY_NO_ACTION_APPLIES, "no action that the head allows applies to its principal and "
        "resource");
}

/* --- the head as a condition -------------------------------------------------------------------------------------- */

static struct ast *leaf(struct validator *v, const struct ast_scope *s, enum ast_op op, int64_t number)
{
    struct ast *n = ast_new(&v->tree, op, s->line, s->column);

    if (n)
        n->u.number = number;
    return n;
}

static struct ast *entity_leaf(struct validator *v, const struct ast_scope *s, size_t i)
{
    struct ast *n = leaf(v, s, AST_ENTITY, 0);

    if (n)
        n->u.uid = s->uids[i];
    return n;
}

static struct ast *pair(struct validator *v, const struct ast_scope *s, enum ast_op op, struct ast *a, struct ast *b)
{
    struct ast *n = ast_new(&v->tree, op, s->line, s->column);

    if (!n || !a || !b)
        return NULL;
    n->text = s->type;
    ast_add(n, a);
    ast_add(n, b);
    return n;
}

/* NULL: the head does not constrain it, or memory is out. */
static struct ast *head_expr(struct validator *v, const struct ast_scope *s, enum ast_var var, int64_t slot)
{
    struct ast *who = leaf(v, s, AST_VAR, var), *what, *n;

    switch ((enum scope_kind)s->kind) {
    case SCOPE_ANY:
        return NULL;
    case SCOPE_IS:
        n = ast_new(&v->tree, AST_IS, s->line, s->column);
        if (n && who) {
            n->text = s->type;
            ast_add(n, who);
        }
        return n;
    default:
        break;
    }
    what = s->n ? entity_leaf(v, s, 0) : leaf(v, s, AST_VAR, slot);
    return pair(v, s, s->kind == SCOPE_EQ ? AST_EQ : s->kind == SCOPE_IN ? AST_IN : AST_IS, who, what);
}

static struct ast *action_expr(struct validator *v, const struct ast_scope *s)
{
    struct ast *who = leaf(v, s, AST_VAR, VAR_ACTION), *set;

    if (s->kind == SCOPE_ANY)
        return NULL;
    if (s->kind == SCOPE_EQ)
        return pair(v, s, AST_EQ, who, entity_leaf(v, s, 0));
    set = ast_new(&v->tree, AST_SET, s->line, s->column);
    for (size_t i = 0; set && i < s->n; i++) {
        struct ast *kid = entity_leaf(v, s, i);

        if (!kid)
            return NULL;
        ast_add(set, kid);
    }
    return pair(v, s, AST_IN, who, set);
}

/* --- kinds of requests -------------------------------------------------------------------------------------------- */

struct checking {
    struct validator *v;
    const struct ast_policy *policy;
    struct ast *head[3];                /* in order; NULL: no constraint */
    bool possible;                      /* for some kind of request it is not False */
    enum err err;
};

static struct answer condition(struct validator *v, const struct ast_condition *k)
{
    struct answer a = validate_wanted(v, k->expr, WANT_BOOL);

    if (k->unless)
        a = answer_of(a.type == &type_true ? &type_false : a.type == &type_false ? &type_true : &type_bool, a.ok);
    return a;
}

/*
 * The conditions are nested to the right, as the reference does: first && (second && ...).  What is wrong in one of
 * them leaves those before it open, so the whole is not False for what the last one says.
 */
static struct answer conditions(struct validator *v, const struct ast_condition *first)
{
    struct knowledge so_far = { 0 };
    struct answer *all, a = answer_of(&type_true, true);
    size_t n = 0, most = 0;

    for (const struct ast_condition *k = first; k; k = k->next)
        most++;
    all = ARENA_ARRAY(&v->work, struct answer, most + 1);
    for (const struct ast_condition *k = first; all && k && !validate_is_false(&a); k = k->next) {
        validate_know(v, &so_far);
        a = condition(v, k);
        validate_forget(v);
        known_join(&so_far, &a.then);
        all[n++] = a;
    }
    while (n > 1) {
        a = validate_and(all[n - 2], a);
        n--;
    }
    return a;
}

static void check_kind(struct checking *c, const struct request_kind *kind)
{
    struct validator *v = c->v;
    struct answer a = answer_of(&type_true, true);

    if (c->err)
        return;
    arena_clear(&v->work);
    v->types = (struct type_pool){ .arena = &v->work, .below = &v->schema->types };
    v->kind = *kind;
    v->n_known = 0;
    for (size_t i = 0; i < ARRAY_LEN(c->head) && !validate_is_false(&a); i++)
        if (c->head[i])
            a = validate_and(a, validate_wanted(v, c->head[i], WANT_BOOL));
    if (!validate_is_false(&a))
        a = validate_and(a, conditions(v, c->policy->conditions));
    c->possible |= !validate_is_false(&a);
    if (arena_overflowed(&v->work))
        c->err = E_CALL_TOO_LARGE;
}

/* Types that a slot can be filled with for a request with `who`: all that it can be in. */
static bool slot_fits(const struct ast_scope *s, const struct schema_entity *who, const struct schema_entity *filled)
{
    return who == filled || (s->kind != SCOPE_EQ && schema_above(who->above, who->n_above, filled->index));
}

/* For every type of the resource's slot, or once without one. */
static void check_resource_slot(struct checking *c, struct request_kind *kind)
{
    const struct ast_scope *s = &c->policy->resource;

    if (!ast_scope_slot(s)) {
        check_kind(c, kind);
        return;
    }
    for (uint32_t i = 0; i < c->v->schema->n_entities; i++) {
        kind->resource_slot = c->v->schema->entities[i];
        if (slot_fits(s, kind->resource, kind->resource_slot))
            check_kind(c, kind);
    }
    kind->resource_slot = NULL;
}

static void check_slots(struct checking *c, struct request_kind *kind)
{
    const struct ast_scope *s = &c->policy->principal;

    if (!ast_scope_slot(s)) {
        check_resource_slot(c, kind);
        return;
    }
    for (uint32_t i = 0; i < c->v->schema->n_entities; i++) {
        kind->principal_slot = c->v->schema->entities[i];
        if (slot_fits(s, kind->principal, kind->principal_slot))
            check_resource_slot(c, kind);
    }
}

static void check_kinds(struct checking *c)
{
    const struct policy_schema *schema = c->v->schema;

    for (uint32_t i = 0; i < schema->n_actions; i++) {
        const struct schema_action *a = schema->actions[i];

        for (uint32_t p = 0; p < a->n_principals; p++)
            for (uint32_t r = 0; r < a->n_resources; r++) {
                struct request_kind kind = { .action = a, .principal = a->principals[p],
                    .resource = a->resources[r] };

                check_slots(c, &kind);
            }
    }
}

/* --- policies ----------------------------------------------------------------------------------------------------- */

static enum err check_policy(struct validator *v, const struct policy_set *set, const struct ast_policy *p)
{
    struct ast at = { .line = p->line, .column = p->column };
    struct head principal = head_of(&p->principal), resource = head_of(&p->resource);
    struct checking c = { .v = v, .policy = p };

    arena_clear(&v->tree);
    v->at = (struct policy_finding){ .policy = p->id, .file = set->files[p->file] };
    check_head_names(v, &p->principal);
    check_head_names(v, &p->action);
    check_head_names(v, &p->resource);
    for (const struct ast_condition *k = p->conditions; k; k = k->next)
        check_names(v, k->expr);
    check_applies(v, &principal, &p->action, &resource, &at);
    c.head[0] = head_expr(v, &p->principal, VAR_PRINCIPAL, VAR_PRINCIPAL_SLOT);
    c.head[1] = action_expr(v, &p->action);
    c.head[2] = head_expr(v, &p->resource, VAR_RESOURCE, VAR_RESOURCE_SLOT);
    if (arena_overflowed(&v->tree))
        return E_CALL_TOO_LARGE;
    check_kinds(&c);
    if (!c.err && !c.possible) {
        v->at.warning = true;
        validate_report(v, &at, POLICY_IMPOSSIBLE, "no request that the schema allows can match this policy");
    }
    return c.err;
}

static void check_filled(struct validator *v, const struct ast_scope *template, const struct ast_scope *filled)
{
    if (ast_scope_slot(template))
        check_type_name(v, filled->uids->type, 0, 0);
}

/* What a template does not say about a link of it: its conditions are checked once, with the template. */
static void check_link(struct validator *v, const struct policy_set *set, const struct ast_policy *p)
{
    struct head principal = head_of(&p->principal), resource = head_of(&p->resource);
    static const struct ast nowhere;

    v->at = (struct policy_finding){ .policy = p->id, .file = set->files[p->file] };
    check_filled(v, &p->of->principal, &p->principal);
    check_filled(v, &p->of->resource, &p->resource);
    check_applies(v, &principal, &p->action, &resource, &nowhere);
}

enum err policy_schema_validate(const struct policy_schema *s, const struct policy_set *set, struct policy_report *ret,
    struct errinfo *info)
{
    struct validator *v = calloc(1, sizeof(*v));
    enum err e = OK;

    ASSERT(v != NULL);
    v->schema = s;
    v->report = ret;
    arena_init(&v->tree, WORK_MAX);
    arena_init(&v->work, WORK_MAX);
    for (const struct ast_policy *p = set->templates; p && !e; p = p->next)
        e = check_policy(v, set, p);
    for (size_t i = 0; i < set->n_policies && !e; i++) {
        if (set->names[i].ast->of)
            check_link(v, set, set->names[i].ast);
        else
            e = check_policy(v, set, set->names[i].ast);
    }
    if (e)
        err_set(info, e, "policy %.*s takes too much memory to validate", STR_ARG(v->at.policy));
    arena_release(&v->tree);
    arena_release(&v->work);
    free(v);
    return e;
}
