/*
 * validate_known.c -- which attributes and tags are known to be there
 *
 * What is known is about expressions, and two expressions are the same if they read alike: `principal.team has lead`
 * tells about every other principal.team of the policy.  Lists are short; a hash of the expression keeps comparing
 * them cheap.
 */
#include "base/check.h"
#include "base/map.h"
#include "policy/validate.h"

static uint64_t mix(uint64_t h, uint64_t v)
{
    h = (h ^ v) * 0xd6e8feb86659fd93u;
    return h ^ h >> 32;
}

static uint64_t hash_str(struct str s)
{
    return hash_bytes(s.p, s.len);
}

static uint64_t hash_pieces(uint64_t h, const struct ast *e)
{
    for (size_t i = 0; i < e->u.pieces.n; i++)
        h = mix(h, hash_str(e->u.pieces.p[i]));
    return h;
}

static uint64_t hash_expr(const struct ast *e)
{
    uint64_t h = mix(e->op, e->n), sum = 0;
    const struct ast *kid = e->first;

    switch ((enum ast_op)e->op) {
    case AST_BOOL:
        h = mix(h, e->u.b);
        break;
    case AST_LONG:
    case AST_VAR:
    case AST_EXT:
        h = mix(h, (uint64_t)e->u.number);
        break;
    case AST_ENTITY:
        h = mix(h, e->u.uid.hash);
        break;
    case AST_HAS:
    case AST_LIKE:
        h = hash_pieces(h, e);
        break;
    case AST_STRING:
    case AST_ATTR:
    case AST_IS:
        h = mix(h, hash_str(e->text));
        break;
    default:
        break;
    }
    for (uint32_t i = 0; i < e->n; i++, kid = kid->next) {
        if (e->op == AST_RECORD)            /* attributes have no order */
            sum += mix(hash_str(kid->key), hash_expr(kid));
        else
            h = mix(h, hash_expr(kid));
    }
    return mix(h, sum);
}

static bool same_pieces(const struct ast *a, const struct ast *b)
{
    if (a->u.pieces.n != b->u.pieces.n)
        return false;
    for (size_t i = 0; i < a->u.pieces.n; i++)
        if (!str_eq(a->u.pieces.p[i], b->u.pieces.p[i]))
            return false;
    return true;
}

static bool same_leaf(const struct ast *a, const struct ast *b)
{
    switch ((enum ast_op)a->op) {
    case AST_BOOL:
        return a->u.b == b->u.b;
    case AST_LONG:
    case AST_VAR:
    case AST_EXT:
        return a->u.number == b->u.number;
    case AST_ENTITY:
        return policy_uid_eq(&a->u.uid, &b->u.uid);
    case AST_HAS:
    case AST_LIKE:
        return same_pieces(a, b);
    default:
        return str_eq(a->text, b->text);
    }
}

static bool same(const struct ast *a, const struct ast *b);

static bool same_record(const struct ast *a, const struct ast *b)
{
    const struct ast *x = a->first, *y;

    for (uint32_t i = 0; i < a->n; i++, x = x->next) {
        uint32_t k = 0;

        for (y = b->first; k < b->n && !str_eq(x->key, y->key); k++)
            y = y->next;
        if (k == b->n || !same(x, y))
            return false;
    }
    return true;
}

/* Operands are counted: an expression made for a path has one that stands in another list as well. */
static bool same(const struct ast *a, const struct ast *b)
{
    const struct ast *x = a->first, *y = b->first;

    if (a == b)
        return true;
    if (a->op != b->op || a->n != b->n || !same_leaf(a, b))
        return false;
    if (a->op == AST_RECORD)
        return same_record(a, b);
    for (uint32_t i = 0; i < a->n; i++, x = x->next, y = y->next)
        if (!same(x, y))
            return false;
    return true;
}

struct known known_attr(const struct ast *on, struct str attr)
{
    return (struct known){ .hash = mix(hash_expr(on), hash_str(attr)), .on = on, .attr = attr };
}

struct known known_tag(const struct ast *on, const struct ast *tag)
{
    return (struct known){ .hash = mix(hash_expr(on), ~hash_expr(tag)), .on = on, .tag = tag };
}

static bool same_known(const struct known *a, const struct known *b)
{
    if (a->hash != b->hash || !a->tag != !b->tag || !same(a->on, b->on))
        return false;
    return a->tag ? same(a->tag, b->tag) : str_eq(a->attr, b->attr);
}

static bool in_list(const struct knowledge *list, const struct known *k)
{
    for (const struct known *have = list->first; have; have = have->next)
        if (same_known(have, k))
            return true;
    return false;
}

bool known_has(const struct validator *v, const struct known *k)
{
    for (uint32_t i = v->n_known; i-- > 0;)
        if (in_list(v->known[i], k))
            return true;
    return false;
}

struct knowledge known_one(struct validator *v, const struct known *k)
{
    struct known *copy = ARENA_NEW(&v->work, struct known);

    if (!copy)
        return (struct knowledge){ 0 };
    *copy = *k;
    copy->next = NULL;
    return (struct knowledge){ copy, &copy->next };
}

void known_join(struct knowledge *a, struct knowledge *b)
{
    if (!b->first)
        return;
    if (a->first) {
        *a->end = b->first;
        a->end = b->end;
    } else {
        *a = *b;
    }
    *b = (struct knowledge){ 0 };
}

void known_meet(struct knowledge *a, const struct knowledge *b)
{
    struct knowledge kept = { 0 };

    for (struct known *k = a->first, *next; k; k = next) {
        struct knowledge one = { k, &k->next };

        next = k->next;
        k->next = NULL;
        if (in_list(b, k))
            known_join(&kept, &one);
    }
    *a = kept;
}
