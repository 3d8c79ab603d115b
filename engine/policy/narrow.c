/*
 * narrow.c -- what the first conjuncts of a policy's condition ask of a request, as keys for the index
 *
 *   permit(principal, action, resource) when { principal in Group::"g" && context.args.to == "x" && ... }
 *
 * is false, and cannot fail, for whoever is not in the group: so the index may leave it out there, as if the head said
 * it.  That holds only as long as no conjunct before could have failed, because a failure is reported.  So conjuncts
 * are read from the front while they are of kinds that never fail:
 *
 *   VAR == E, VAR in E, VAR is T, VAR is T in E        of principal, action and resource: a key, as if of the head
 *   VAR == [E, ...], VAR in [E, ...], VAR == VAR, VAR in VAR, VAR has x
 *
 * and up to the first PATH == LITERAL, which gives the key of a value.  That one fails where the path leads nowhere:
 * then all policies of that path are run, but for the steps that `has` came before for (`guarded`): then none is.
 *
 * PATH has x, and VAR has x.y, fail where a step is neither record nor entity.  So does a longer path, which is why
 * they are taken where nothing follows that counts but a comparison of such a path.
 */
#include "policy/program.h"

/* How narrow a constraint of a head is: what the head itself says is replaced only by something narrower. */
static uint8_t rank_of(enum scope_kind kind)
{
    return kind == SCOPE_ANY ? 0 : kind == SCOPE_IS ? 1 : kind == SCOPE_EQ ? 3 : 2;
}

struct reading {
    struct narrow *to;
    /* steps that `has` came for, of a path that begins with the variable of the same number */
    struct index_path guard[VAR_CONTEXT + 1];
    const struct index_path *only;      /* not NULL: nothing counts now but what leads on from here */
};

static void note(struct reading *r, int64_t var, enum scope_kind kind, uint64_t key)
{
    static const uint8_t dims[] = { [VAR_PRINCIPAL] = DIM_PRINCIPAL, [VAR_ACTION] = DIM_ACTION,
        [VAR_RESOURCE] = DIM_RESOURCE };
    uint8_t dim = dims[var];

    if (rank_of(kind) <= r->to->rank[dim])
        return;
    r->to->rank[dim] = rank_of(kind);
    r->to->head[dim] = key;
    r->to->heads |= (uint8_t)(1u << dim);
}

static bool names_entity(const struct ast *n)
{
    return n->op == AST_VAR && n->u.number != VAR_CONTEXT;
}

static bool all_entities(const struct ast *set)
{
    if (set->op != AST_SET)
        return false;
    for (const struct ast *k = set->first; k; k = k->next)
        if (k->op != AST_ENTITY)
            return false;
    return true;
}

/* A conjunct about who, what or on what. False: it is something else. */
static bool read_head(struct reading *r, const struct ast *n)
{
    const struct ast *a = n->first, *b = n->last;

    if (n->op == AST_EQ && a->op == AST_ENTITY) {
        a = n->last;
        b = n->first;
    }
    if ((n->op != AST_EQ && n->op != AST_IN && n->op != AST_IS) || !names_entity(a))
        return false;
    if (n->op == AST_IS && n->n == 1)
        note(r, a->u.number, SCOPE_IS, policy_uid(n->text, STR("")).type_hash);
    else if (b->op == AST_ENTITY)
        note(r, a->u.number, n->op == AST_EQ ? SCOPE_EQ : SCOPE_IN, b->u.uid.hash);
    else
        return all_entities(b) || names_entity(b);
    return true;
}

/* VAR.a.b.c; false: the tree is something else, or longer than is worth it. */
static bool read_path(const struct ast *n, struct index_path *ret)
{
    const struct ast *at = n;

    *ret = (struct index_path){ 0 };
    for (; at->op == AST_ATTR; at = at->first)
        if (++ret->n > INDEX_PATH_MAX)
            return false;
    if (at->op != AST_VAR)
        return false;
    ret->var = (uint8_t)at->u.number;
    for (uint8_t i = ret->n; i-- > 0; n = n->first)
        ret->keys[i] = n->text;
    return true;
}

/* How many steps two paths of one variable have in common. */
static uint8_t common(const struct index_path *a, const struct index_path *b)
{
    uint8_t i = 0;

    while (i < a->n && i < b->n && str_eq(a->keys[i], b->keys[i]))
        i++;
    return i;
}

/* `has` on a variable, or on what a `has` before promised. */
static bool read_has(struct reading *r, const struct ast *n)
{
    struct index_path path, *guard;

    if (n->op != AST_HAS || !read_path(n->first, &path) || path.n + n->u.pieces.n > INDEX_PATH_MAX)
        return false;
    guard = &r->guard[path.var];
    if (r->only ? r->only != guard || path.n != guard->n : path.n != 0 && path.n != guard->n)
        return false;
    if (path.n && common(&path, guard) != path.n)
        return false;
    if (path.n || n->u.pieces.n > 1)
        r->only = guard;
    for (size_t i = 0; i < n->u.pieces.n; i++)
        path.keys[path.n++] = n->u.pieces.p[i];
    *guard = path;                          /* what was promised of another path of the variable is forgotten */
    return true;
}

/* PATH == LITERAL. Nothing after it counts. */
static void read_value(struct reading *r, const struct ast *n)
{
    const struct ast *path = n->first, *literal = n->last;
    const struct index_path *guard;
    struct index_path p;
    struct policy_value v;

    if (n->op != AST_EQ)
        return;
    if (path->op != AST_ATTR) {
        path = n->last;
        literal = n->first;
    }
    if (literal->op == AST_BOOL)
        v = policy_bool(literal->u.b);
    else if (literal->op == AST_LONG)
        v = policy_long(literal->u.number);
    else if (literal->op == AST_STRING)
        v = policy_string(literal->text);
    else if (literal->op == AST_ENTITY)
        v = policy_entity_value(&literal->u.uid);
    else
        return;
    if (!read_path(path, &p) || p.n == 0)
        return;
    guard = &r->guard[p.var];
    p.guarded = common(&p, guard);
    if (r->only && (r->only != guard || p.guarded != guard->n))
        return;
    if (index_value_key(&v, &r->to->value))
        r->to->path = p;
}

/* False: nothing after it counts. */
static bool read_conjunct(struct reading *r, const struct ast *n)
{
    if (n->op == AST_BOOL && n->u.b)
        return true;
    if (n->op == AST_AND) {
        for (const struct ast *k = n->first; k; k = k->next)
            if (!read_conjunct(r, k))
                return false;
        return true;
    }
    if ((!r->only && read_head(r, n)) || read_has(r, n))
        return true;
    read_value(r, n);
    return false;
}

void narrow_find(const struct ast_policy *p, struct narrow *ret)
{
    struct reading r = { .to = ret };

    *ret = (struct narrow){ .rank = { rank_of((enum scope_kind)p->principal.kind),
        rank_of((enum scope_kind)p->action.kind), rank_of((enum scope_kind)p->resource.kind) } };
    for (const struct ast_condition *k = p->conditions; k; k = k->next)
        if (k->unless || !read_conjunct(&r, k->expr))
            return;
}
