/*
 * validate_ops.c -- the types of comparisons, sets and extension functions
 *
 * Strict mode: what is compared must have a common type, or the comparison is a mistake.  Two exceptions, as in the
 * reference implementation: entities of different types are simply never equal, and of two literals it is known whether
 * they are equal, whatever they are.
 */
#include "base/check.h"
#include "policy/ext.h"
#include "policy/validate.h"

void validate_mixed(struct validator *v, const struct ast *e, const char *what, const struct type *a,
    const struct type *b)
{
    struct buf x = BUF_INIT(300), y = BUF_INIT(300);

    type_write(&x, a);
    type_write(&y, b);
    validate_report(v, e, POLICY_MIXED_TYPES, "%s must have one type, found %.*s and %.*s", what, STR_ARG(buf_str(&x)),
        STR_ARG(buf_str(&y)));
    buf_release(&x);
    buf_release(&y);
}

/* --- equality ----------------------------------------------------------------------------------------------------- */

struct literal {
    enum { NO_LITERAL, LITERAL_BOOL, LITERAL_LONG, LITERAL_STRING, LITERAL_ENTITY } kind;
    bool b;
    int64_t i;
    struct str s;
    const struct policy_uid *uid;
};

/* && and || of literals count as literals: the reference implementation folds them when it reads a policy. */
static struct literal literal_of(const struct validator *v, const struct ast *e)
{
    struct literal l = { NO_LITERAL }, part;
    const struct ast *kid = e->first;

    switch ((enum ast_op)e->op) {
    case AST_BOOL:
        return (struct literal){ .kind = LITERAL_BOOL, .b = e->u.b };
    case AST_LONG:
        return (struct literal){ .kind = LITERAL_LONG, .i = e->u.number };
    case AST_STRING:
        return (struct literal){ .kind = LITERAL_STRING, .s = e->text };
    case AST_AND:
    case AST_OR:
        l = (struct literal){ .kind = LITERAL_BOOL, .b = e->op == AST_AND };
        for (uint32_t i = 0; i < e->n && l.kind; i++, kid = kid->next) {
            part = literal_of(v, kid);
            if (part.kind != LITERAL_BOOL)
                return (struct literal){ NO_LITERAL };
            l.b = e->op == AST_AND ? l.b && part.b : l.b || part.b;
        }
        return l;
    default:
        l.uid = validate_literal_uid(v, e);
        l.kind = l.uid ? LITERAL_ENTITY : NO_LITERAL;
        return l;
    }
}

static bool same_literal(const struct literal *a, const struct literal *b)
{
    if (a->kind != b->kind)
        return false;
    switch (a->kind) {
    case LITERAL_BOOL:      return a->b == b->b;
    case LITERAL_LONG:      return a->i == b->i;
    case LITERAL_STRING:    return str_eq(a->s, b->s);
    case LITERAL_ENTITY:    return policy_uid_eq(a->uid, b->uid);
    default:
        return false;
    }
}

struct answer validate_equal(struct validator *v, const struct ast *e)
{
    struct answer l = validate_expr(v, e->first), r = validate_expr(v, e->last);
    struct literal x, y;
    bool ok = l.ok && r.ok;

    if (l.type && r.type && l.type->kind == TYPE_ENTITY && r.type->kind == TYPE_ENTITY && l.type != r.type)
        return answer_of(&type_false, ok);
    x = literal_of(v, e->first);
    y = literal_of(v, e->last);
    if (x.kind && y.kind)
        return answer_of(same_literal(&x, &y) ? &type_true : &type_false, ok);
    if (l.type && r.type && !type_lub(&v->types, l.type, r.type)) {
        validate_mixed(v, e, "both sides of a comparison", l.type, r.type);
        ok = false;
    }
    return answer_of(&type_bool, ok);
}

/* --- order -------------------------------------------------------------------------------------------------------- */

static bool ordered(const struct type *t)
{
    return t == &type_long || t == &type_datetime || t == &type_duration;
}

static void unordered(struct validator *v, const struct ast *e, const char *wanted, const struct type *t)
{
    struct buf b = BUF_INIT(300);

    type_write(&b, t);
    validate_report(v, e, POLICY_WRONG_TYPE, "expected %s, found %.*s", wanted, STR_ARG(buf_str(&b)));
    buf_release(&b);
}

struct answer validate_compare(struct validator *v, const struct ast *e)
{
    struct answer l = validate_expr(v, e->first), r = validate_expr(v, e->last);

    if (!l.type || !r.type)
        return answer_of(&type_bool, false);
    if (l.type == r.type && ordered(l.type))
        return answer_of(&type_bool, l.ok && r.ok);
    if (ordered(l.type) && l.type != &type_long && r.type != &type_long)
        unordered(v, e->last, type_name(l.type), r.type);
    else if (ordered(r.type) && r.type != &type_long && l.type != &type_long)
        unordered(v, e->first, type_name(r.type), l.type);
    else if (l.type == &type_long)
        unordered(v, e->last, "Long", r.type);
    else if (r.type == &type_long)
        unordered(v, e->first, "Long", l.type);
    else {
        unordered(v, e->first, "Long, datetime or duration", l.type);
        unordered(v, e->last, "Long, datetime or duration", r.type);
    }
    return answer_of(&type_bool, false);
}

/* --- sets --------------------------------------------------------------------------------------------------------- */

struct answer validate_contains(struct validator *v, const struct ast *e)
{
    struct answer l = validate_wanted(v, e->first, WANT_SET);
    struct answer r = e->op == AST_CONTAINS ? validate_expr(v, e->last) : validate_wanted(v, e->last, WANT_SET);
    const struct type *t = l.type && e->op == AST_CONTAINS ? l.type->u.elem : l.type;
    bool ok = l.ok && r.ok;

    if (t && r.type && !type_lub(&v->types, t, r.type)) {
        validate_mixed(v, e, e->op == AST_CONTAINS ? "a set's elements and what is looked for" : "both sets", t,
            r.type);
        ok = false;
    }
    return answer_of(&type_bool, ok);
}

/* --- extension functions ------------------------------------------------------------------------------------------ */

static const struct type *result_of(int fn)
{
    switch ((enum ext_fn)fn) {
    case EXT_DECIMAL:           return &type_decimal;
    case EXT_IP:                return &type_ip;
    case EXT_DATETIME:
    case EXT_OFFSET:
    case EXT_TO_DATE:           return &type_datetime;
    case EXT_DURATION:
    case EXT_DURATION_SINCE:
    case EXT_TO_TIME:           return &type_duration;
    case EXT_TO_MS:
    case EXT_TO_S:
    case EXT_TO_MIN:
    case EXT_TO_H:
    case EXT_TO_DAYS:           return &type_long;
    default:
        return &type_bool;
    }
}

static bool constant_valid(struct validator *v, int fn, struct str text)
{
    struct policy_value arg = policy_string(text), ignored;

    return ext_call((enum ext_fn)fn, &arg, 1, &v->work, &ignored) == EXT_OK;
}

/* A constructor's argument must be written out, and be right. */
static bool constructor_fits(struct validator *v, const struct ast *e, int fn)
{
    const struct ast *kid = e->first;
    bool fits = true;

    if (e->n == 1 && kid->op == AST_STRING && !constant_valid(v, fn, kid->text)) {
        validate_report(v, e, POLICY_BAD_CONSTANT, "\"%.*s\" is no %s", STR_ARG(kid->text), type_name(result_of(fn)));
        fits = false;
    }
    for (uint32_t i = 0; i < e->n; i++, kid = kid->next)
        if (kid->op != AST_STRING && kid->op != AST_BOOL && kid->op != AST_LONG && kid->op != AST_ENTITY) {
            validate_report(v, e, POLICY_NOT_CONSTANT, "the argument of %s() must be written out in quotes",
                ext_rows[fn].name);
            return false;
        }
    return fits;
}

static struct answer argument(struct validator *v, const struct ast *e, uint8_t kind)
{
    return kind == POLICY_STRING ? validate_wanted(v, e, WANT_STRING)
        : validate_wanted_ext(v, e, type_of_ext_kind((enum policy_kind)kind));
}

struct answer validate_ext(struct validator *v, const struct ast *e)
{
    int fn = (int)e->u.number;
    const struct ext_row *row = &ext_rows[fn];
    const struct ast *kid = e->first;
    bool ok = e->n == row->n_args, method = row->method && kid;     /* as it is written: ast_text.c */

    if (!ok)
        validate_report(v, e, POLICY_WRONG_ARITY, "`%s` takes %u argument%s, found %u", row->name,
            row->n_args - method, row->n_args - method == 1 ? "" : "s", e->n - method);
    if (fn <= EXT_DURATION && !constructor_fits(v, e, fn))
        ok = false;
    if (!ok) {
        for (uint32_t i = 0; i < e->n; i++, kid = kid->next)
            validate_expr(v, kid);
        return answer_of(result_of(fn), false);
    }
    for (uint32_t i = 0; i < e->n; i++, kid = kid->next)
        ok &= argument(v, kid, i == 0 ? row->arg0 : row->arg1).ok;
    return answer_of(result_of(fn), ok);
}
