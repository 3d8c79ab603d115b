/*
 * validate_expr.c -- the types of expressions: logic, attributes, tags, literals
 *
 * An expression is checked for one kind of request at a time.  Booleans have three types, Bool, True and False: where
 * a condition is False for the kind of request, what it guards is not looked at, so that one policy can speak of
 * several types (`resource is Photo && resource.album ...`).  An error does not end the check: the rest of the policy
 * is checked with the type left open, and an expression with an error in it stays wrong even where its type is known.
 *
 * An attribute that may be lacking is read only where it is known to be there, see validate_known.c.
 */
#include <stdio.h>

#include "base/check.h"
#include "policy/ext.h"
#include "policy/validate.h"

/* Recursion goes through validate_expr(): were these inlined there, every level would take the stack of all of them. */
#define APART __attribute__((noinline))

void validate_report(struct validator *v, const struct ast *e, enum policy_finding_kind kind, const char *fmt, ...)
{
    struct policy_finding f = v->at;
    char text[500];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    f.kind = kind;
    f.line = e->line;
    f.column = e->column;
    report_add(v->report, &f, "%s", text);
}

/* --- what is wanted ----------------------------------------------------------------------------------------------- */

static unsigned kind_of(const struct type *t)
{
    switch ((enum type_kind)t->kind) {
    case TYPE_BOOL:
    case TYPE_TRUE:
    case TYPE_FALSE:    return WANT_BOOL;
    case TYPE_LONG:     return WANT_LONG;
    case TYPE_STRING:   return WANT_STRING;
    case TYPE_ENTITY:   return WANT_ENTITY;
    case TYPE_RECORD:   return WANT_RECORD;
    case TYPE_SET:      return t->u.elem->kind == TYPE_ENTITY ? WANT_SET | WANT_ENTITIES : WANT_SET;
    case TYPE_EXT:      return 0;
    }
    UNREACHABLE();
}

static void report_unwanted(struct validator *v, const struct ast *e, const char *wanted, const struct type *found)
{
    struct buf b = BUF_INIT(300);

    type_write(&b, found);
    validate_report(v, e, POLICY_WRONG_TYPE, "expected %s, found %.*s", wanted, STR_ARG(buf_str(&b)));
    buf_release(&b);
}

static const char *wanted_text(unsigned want)
{
    switch (want) {
    case WANT_BOOL:                     return "Bool";
    case WANT_LONG:                     return "Long";
    case WANT_STRING:                   return "String";
    case WANT_ENTITY:                   return "an entity";
    case WANT_SET:                      return "a set";
    case WANT_ENTITY | WANT_RECORD:     return "an entity or a record";
    case WANT_ENTITY | WANT_ENTITIES:   return "an entity or a set of entities";
    }
    UNREACHABLE();
}

static struct answer require(struct validator *v, const struct ast *e, struct answer a, unsigned want)
{
    if (a.type && kind_of(a.type) & want)
        return a;
    if (a.type)
        report_unwanted(v, e, wanted_text(want), a.type);
    return answer_of(NULL, false);
}

struct answer validate_wanted(struct validator *v, const struct ast *e, unsigned want)
{
    return require(v, e, validate_expr(v, e), want);
}

struct answer validate_wanted_ext(struct validator *v, const struct ast *e, const struct type *ext)
{
    struct answer a = validate_expr(v, e);

    if (a.type == ext)
        return a;
    if (a.type)
        report_unwanted(v, e, type_name(ext), a.type);
    return answer_of(NULL, false);
}

/* --- logic -------------------------------------------------------------------------------------------------------- */

/* An answer with an error in it promises nothing. */
static struct answer settle(struct answer a)
{
    if (!a.ok)
        a.then = (struct knowledge){ 0 };
    return a;
}

struct answer validate_and(struct answer left, struct answer right)
{
    struct answer a = { .type = &type_bool, .ok = left.ok && right.ok };

    if (!left.type || !right.type)
        return answer_of(&type_bool, false);
    if (right.type == &type_false)
        return answer_of(&type_false, a.ok);
    if (right.type == &type_true)
        a.type = left.type;
    else if (left.type == &type_true)
        a.type = right.type;
    known_join(&left.then, &right.then);
    a.then = left.then;
    return settle(a);
}

APART static struct answer and_chain(struct validator *v, const struct ast *e)
{
    const struct ast *kid = e->first;
    struct answer a = validate_wanted(v, kid, WANT_BOOL), right;

    if (validate_is_false(&a))
        return answer_of(&type_false, a.ok);
    for (uint32_t i = 1; i < e->n && !validate_is_false(&a); i++) {
        kid = kid->next;
        validate_know(v, &a.then);
        right = validate_wanted(v, kid, WANT_BOOL);
        validate_forget(v);
        a = validate_and(a, right);
    }
    return a;
}

/* What the left one tells does not hold where the right one is asked: it may have been false. */
static struct answer either(struct answer left, struct answer right)
{
    bool ok = left.ok && right.ok;

    if (!left.type || !right.type)
        return answer_of(&type_bool, false);
    if (right.type == &type_false || right.type == &type_true || left.type == &type_false) {
        struct answer a = right.type == &type_false ? left : right;

        a.ok = ok;
        return settle(a);
    }
    known_meet(&right.then, &left.then);
    return settle((struct answer){ &type_bool, ok, right.then });
}

APART static struct answer or_chain(struct validator *v, const struct ast *e)
{
    const struct ast *kid = e->first;
    struct answer a = validate_wanted(v, kid, WANT_BOOL);

    for (uint32_t i = 1; i < e->n && a.type != &type_true; i++) {
        kid = kid->next;
        a = either(a, validate_wanted(v, kid, WANT_BOOL));
    }
    return a;
}

static struct answer negate(struct answer a)
{
    const struct type *t = a.type == &type_true ? &type_false : a.type == &type_false ? &type_true : &type_bool;

    return answer_of(t, a.ok);
}

APART static struct answer both_branches(struct validator *v, const struct ast *e, struct answer test)
{
    const struct ast *yes = e->first->next, *no = yes->next;
    struct answer then, other;
    const struct type *t;

    validate_know(v, &test.then);
    then = validate_expr(v, yes);
    validate_forget(v);
    other = validate_expr(v, no);
    if (!then.type || !other.type)
        return answer_of(NULL, false);
    t = type_lub(&v->types, then.type, other.type);
    if (!t) {
        validate_mixed(v, e, "the branches of this `if`", then.type, other.type);
        return answer_of(NULL, false);
    }
    known_join(&then.then, &test.then);
    known_meet(&other.then, &then.then);
    return settle((struct answer){ t, test.ok && then.ok && other.ok, other.then });
}

APART static struct answer conditional(struct validator *v, const struct ast *e)
{
    struct answer test = validate_wanted(v, e->first, WANT_BOOL), a;

    if (test.type == &type_false) {
        a = validate_expr(v, e->last);
        a.ok = a.ok && test.ok;
        return settle(a);
    }
    if (test.type != &type_true)
        return both_branches(v, e, test);
    validate_know(v, &test.then);
    a = validate_expr(v, e->first->next);
    validate_forget(v);
    a.ok = a.ok && test.ok;
    known_join(&a.then, &test.then);
    return settle(a);
}

/* --- attributes --------------------------------------------------------------------------------------------------- */

static void report_no_attribute(struct validator *v, const struct ast *e, const struct type *of, struct str attr)
{
    struct buf b = BUF_INIT(300);

    type_write(&b, of);
    validate_report(v, e, POLICY_NO_SUCH_ATTRIBUTE, "there is no attribute `%.*s` in %.*s", STR_ARG(attr),
        STR_ARG(buf_str(&b)));
    buf_release(&b);
}

/* on.attr, where `a` is the answer to `on`; errors are told of `e`. */
static struct answer attribute(struct validator *v, const struct ast *e, const struct ast *on, struct answer a,
    struct str attr)
{
    const struct type_attr *found;
    struct known k;

    a = require(v, on, a, WANT_ENTITY | WANT_RECORD);
    if (!a.type)
        return answer_of(NULL, false);
    found = type_attr(a.type, attr);
    if (!found) {
        report_no_attribute(v, e, a.type, attr);
        return answer_of(NULL, false);
    }
    if (found->required)
        return answer_of(found->type, a.ok);
    k = known_attr(on, attr);
    if (known_has(v, &k))
        return answer_of(found->type, a.ok);
    validate_report(v, e, POLICY_MAY_LACK_ATTRIBUTE, "the attribute `%.*s` is optional: ask with `has` first",
        STR_ARG(attr));
    return answer_of(found->type, false);
}

/* `on has attr`. An entity need not exist, so a required attribute of one is known to be there only when it was asked
 * for. */
static struct answer has_one(struct validator *v, const struct ast *on, struct answer a, struct str attr)
{
    const struct type_attr *found;
    const struct type *t = &type_bool;
    struct known k;

    a = require(v, on, a, WANT_ENTITY | WANT_RECORD);
    if (!a.type)
        return answer_of(&type_bool, false);
    found = type_attr(a.type, attr);
    if (!found)
        return answer_of(&type_false, a.ok);
    k = known_attr(on, attr);
    if ((found->required && a.type->kind == TYPE_RECORD) || known_has(v, &k))
        t = &type_true;
    return settle((struct answer){ t, a.ok, known_one(v, &k) });
}

/* `e has a.b.c` is `e has a && e.a has b && e.a.b has c`, with e looked at once. */
APART static struct answer has_path(struct validator *v, const struct ast *e)
{
    const struct ast *on = e->first;
    struct answer value = validate_expr(v, on), a = has_one(v, on, value, e->u.pieces.p[0]);

    for (size_t i = 1; i < e->u.pieces.n && !validate_is_false(&a); i++) {
        struct ast *part = ast_new(&v->work, AST_ATTR, e->line, e->column);
        struct answer right;

        if (!part)
            return answer_of(NULL, false);
        part->text = e->u.pieces.p[i - 1];
        part->first = part->last = (struct ast *)on;    /* which stands in another list too: see validate_known.c */
        part->n = 1;
        value = settle((struct answer){ value.type, value.ok, { 0 } });
        validate_know(v, &a.then);
        value = attribute(v, e, on, value, part->text);
        right = has_one(v, part, value, e->u.pieces.p[i]);
        validate_forget(v);
        a = validate_and(a, right);
        on = part;
    }
    return a;
}

/* --- tags --------------------------------------------------------------------------------------------------------- */

/* x.getTag(t) and x.hasTag(t). */
APART static struct answer tag(struct validator *v, const struct ast *e)
{
    const struct ast *on = e->first, *name = e->last;
    struct answer a = validate_wanted(v, on, WANT_ENTITY), b = validate_wanted(v, name, WANT_STRING);
    const struct type *tags;
    bool ok = a.ok && b.ok, known;
    struct known k;

    if (!a.type)
        return answer_of(NULL, false);
    tags = a.type->u.entity->tags;
    k = known_tag(on, name);
    known = known_has(v, &k);
    if (e->op == AST_HAS_TAG)
        return settle((struct answer){ !tags ? &type_false : known ? &type_true : &type_bool, ok, known_one(v, &k) });
    if (!known)
        validate_report(v, e, POLICY_MAY_LACK_TAG, "the tag may be missing: ask with hasTag() first");
    else if (!tags)
        validate_report(v, e, POLICY_NO_TAGS, "entities of type %.*s have no tags",
            STR_ARG(a.type->u.entity->name.type));
    return answer_of(known ? tags : NULL, ok);
}

/* --- literals ----------------------------------------------------------------------------------------------------- */

static struct answer variable(const struct validator *v, int64_t which)
{
    const struct request_kind *k = &v->kind;

    switch (which) {
    case VAR_PRINCIPAL:         return answer_of(&k->principal->type, true);
    case VAR_ACTION:            return answer_of(&k->action->type->type, true);
    case VAR_RESOURCE:          return answer_of(&k->resource->type, true);
    case VAR_CONTEXT:           return answer_of(k->action->context, true);
    case VAR_PRINCIPAL_SLOT:    return answer_of(&k->principal_slot->type, true);
    case VAR_RESOURCE_SLOT:     return answer_of(&k->resource_slot->type, true);
    }
    UNREACHABLE();
}

/* Types and actions that the schema does not know are reported once for the whole policy, not here. */
static struct answer entity(const struct validator *v, const struct policy_uid *uid)
{
    const struct schema_entity *e = schema_entity(v->schema, uid->type);

    if (!e || (policy_type_is_action(uid->type) && !schema_action(v->schema, uid)))
        return answer_of(NULL, false);
    return answer_of(&e->type, true);
}

APART static struct answer set(struct validator *v, const struct ast *e)
{
    const struct type *t = NULL, *wider;
    const struct ast *kid = e->first;
    bool ok = true, known = true, mixed = false;

    if (e->n == 0) {
        validate_report(v, e, POLICY_EMPTY_SET, "an empty set has no type here; compare with isEmpty()");
        return answer_of(NULL, false);
    }
    for (uint32_t i = 0; i < e->n; i++, kid = kid->next) {
        struct answer a = validate_expr(v, kid);

        ok = ok && a.ok;
        known = known && a.type;
        if (!known || mixed)
            continue;
        wider = t ? type_lub(&v->types, t, a.type) : a.type;
        mixed = !wider;
        if (mixed)
            validate_mixed(v, kid, "the elements of this set", t, a.type);
        t = wider;
    }
    if (!known || mixed)
        return answer_of(NULL, false);
    return answer_of(type_set(&v->types, t), ok);
}

APART static struct answer record(struct validator *v, const struct ast *e)
{
    struct type_attr *attrs = ARENA_ARRAY(&v->work, struct type_attr, e->n);
    const struct ast *kid = e->first;
    bool ok = true, known = attrs || !e->n;

    for (uint32_t i = 0; i < e->n; i++, kid = kid->next) {
        struct answer a = validate_expr(v, kid);

        ok = ok && a.ok;
        known = known && a.type;
        if (known)
            attrs[i] = (struct type_attr){ kid->key, a.type, true };
    }
    return answer_of(known ? type_record(&v->types, attrs, e->n) : NULL, ok);
}

/* ------------------------------------------------------------------------------------------------------------------ */

APART static struct answer arithmetic(struct validator *v, const struct ast *e)
{
    bool ok = validate_wanted(v, e->first, WANT_LONG).ok;

    if (e->n > 1)
        ok &= validate_wanted(v, e->last, WANT_LONG).ok;
    return answer_of(&type_long, ok);
}

APART static struct answer one_operand(struct validator *v, const struct ast *e, unsigned want)
{
    return answer_of(&type_bool, validate_wanted(v, e->first, want).ok);
}

/* `e is T`, and `e is T in x`, which is `e is T && e in x` with e looked at once. */
APART static struct answer is(struct validator *v, const struct ast *e)
{
    struct answer value = validate_wanted(v, e->first, WANT_ENTITY), a;

    if (value.type)
        a = answer_of(str_eq(value.type->u.entity->name.type, e->text) ? &type_true : &type_false, value.ok);
    else
        a = answer_of(&type_bool, false);
    if (e->n == 1 || validate_is_false(&a))
        return a;
    return validate_and(a, validate_in(v, e, value, e->last));
}

struct answer validate_expr(struct validator *v, const struct ast *e)
{
    switch ((enum ast_op)e->op) {
    case AST_BOOL:          return answer_of(e->u.b ? &type_true : &type_false, true);
    case AST_LONG:          return answer_of(&type_long, true);
    case AST_STRING:        return answer_of(&type_string, true);
    case AST_ENTITY:        return entity(v, &e->u.uid);
    case AST_VAR:           return variable(v, e->u.number);
    case AST_AND:           return and_chain(v, e);
    case AST_OR:            return or_chain(v, e);
    case AST_NOT:           return negate(validate_wanted(v, e->first, WANT_BOOL));
    case AST_IF:            return conditional(v, e);
    case AST_EQ:            return validate_equal(v, e);
    case AST_NE:            return negate(validate_equal(v, e));
    case AST_LT:
    case AST_LE:
    case AST_GT:
    case AST_GE:            return validate_compare(v, e);
    case AST_NEG:
    case AST_ADD:
    case AST_SUB:
    case AST_MUL:           return arithmetic(v, e);
    case AST_IN:            return validate_in(v, e, validate_wanted(v, e->first, WANT_ENTITY), e->last);
    case AST_HAS:           return has_path(v, e);
    case AST_LIKE:          return one_operand(v, e, WANT_STRING);
    case AST_IS:            return is(v, e);
    case AST_ATTR:          return attribute(v, e, e->first, validate_expr(v, e->first), e->text);
    case AST_CONTAINS:
    case AST_CONTAINS_ALL:
    case AST_CONTAINS_ANY:  return validate_contains(v, e);
    case AST_IS_EMPTY:      return one_operand(v, e, WANT_SET);
    case AST_GET_TAG:
    case AST_HAS_TAG:       return tag(v, e);
    case AST_SET:           return set(v, e);
    case AST_RECORD:        return record(v, e);
    case AST_EXT:           return validate_ext(v, e);
    }
    UNREACHABLE();
}
