/*
 * parse_json_expr.c -- expressions of policies in JSON
 *
 * An expression is an object with one member, named for what it does:
 *
 *   { "Value": literal }   { "Var": "principal" | "action" | "resource" | "context" }
 *   { binary: { "left": Expr, "right": Expr } }   { unary: { "arg": Expr } }       see `operators`
 *   { ".": { "left", "attr" } }   { "has": { "left", "attr": name | [ name, ... ] } }
 *   { "like": { "left", "pattern": [ "Wildcard" | { "Literal": text }, ... ] } }
 *   { "is": { "left", "entity_type", "in"?: Expr } }   { "if-then-else": { "if", "then", "else" } }
 *   { "Set": [ Expr, ... ] }   { "Record": { name: Expr, ... } }
 *   { extension function or method: [ Expr, ... ] }
 *
 * Literals are those of entities' attributes (value_json.c), with their escapes __entity and __extn.
 */
#include "policy/parse_json.h"

#include "base/check.h"
#include "policy/ext.h"

static struct ast *expr(struct est *r, const struct json *j, const struct est_at *at);

enum form { BINARY, UNARY };

static const struct operator
{
    const char *name;
    uint8_t op, form;
}
operators[] = {
    { "==", AST_EQ, BINARY },
    { "!=", AST_NE, BINARY },
    { "in", AST_IN, BINARY },
    { "<", AST_LT, BINARY },
    { "<=", AST_LE, BINARY },
    { ">", AST_GT, BINARY },
    { ">=", AST_GE, BINARY },
    { "&&", AST_AND, BINARY },
    { "||", AST_OR, BINARY },
    { "+", AST_ADD, BINARY },
    { "-", AST_SUB, BINARY },
    { "*", AST_MUL, BINARY },
    { "contains", AST_CONTAINS, BINARY },
    { "containsAll", AST_CONTAINS_ALL, BINARY },
    { "containsAny", AST_CONTAINS_ANY, BINARY },
    { "getTag", AST_GET_TAG, BINARY },
    { "hasTag", AST_HAS_TAG, BINARY },
    { "!", AST_NOT, UNARY },
    { "neg", AST_NEG, UNARY },
    { "isEmpty", AST_IS_EMPTY, UNARY },
};

static struct ast *node(struct est *r, enum ast_op op)
{
    struct ast *n = ast_new(r->arena, op, 0, 0);

    return n ? n : est_too_large(r);
}

/* Makes `kid` an operand of n. NULL if either is, or the tree becomes too deep. */
static struct ast *add(struct est *r, const struct est_at *at, struct ast *n, struct ast *kid)
{
    if (!n || !kid)
        return NULL;
    ast_add(n, kid);
    return n->depth > POLICY_DEPTH_MAX
               ? est_fail(r, at, "this expression is more than %d operations deep", POLICY_DEPTH_MAX)
               : n;
}

struct ast *est_operand(struct est *r, const struct json *j, const struct est_at *at, const char *name)
{
    const struct json *m = est_member(r, j, at, name);
    struct est_at inner = est_below(at, m);

    return m ? expr(r, m, &inner) : NULL;
}

static struct ast *operation(struct est *r, const struct operator* o, const struct json *j, const struct est_at *at)
{
    struct ast *n = node(r, (enum ast_op)o->op);

    if (o->form == UNARY)
        return OBJECT(r, j, at, "arg") ? add(r, at, n, est_operand(r, j, at, "arg")) : NULL;
    if (!OBJECT(r, j, at, "left", "right"))
        return NULL;
    n = add(r, at, n, est_operand(r, j, at, "left"));
    return n ? add(r, at, n, est_operand(r, j, at, "right")) : NULL;
}

static struct ast *variable(struct est *r, const struct json *j, const struct est_at *at)
{
    static const char *const names[] = { "principal", "action", "resource", "context" };

    for (int i = 0; i < 4; i++)
        if (str_is(json_str(j), names[i])) {
            struct ast *n = node(r, AST_VAR);

            if (n)
                n->u.number = i;
            return n;
        }
    return est_fail(r, at, "expected \"principal\", \"action\", \"resource\" or \"context\"");
}

/* Elements of an array, or members of an object with their keys; each is an expression (literal NULL) or a literal. */
static struct ast *elements(struct est *r, struct ast *n, const struct json *j, const struct est_at *at,
                            struct ast *(*one)(struct est *, const struct json *, const struct est_at *))
{
    size_t i = 0;

    for (const struct json *k = json_first(j); n && k; k = json_next(k)) {
        struct est_at inner = { .up = at, .key = json_key(k), .index = i++ };
        struct ast *kid;

        if (n->op == AST_RECORD && n->n == POLICY_RECORD_MAX)
            return est_fail(r, at, "a record literal has at most %d attributes", POLICY_RECORD_MAX);
        kid = one(r, k, &inner);
        if (kid)
            kid->key = json_key(k);
        n = add(r, at, n, kid);
    }
    return n;
}

static struct ast *call(struct est *r, struct str name, const struct json *args, const struct est_at *at,
                        struct ast *(*one)(struct est *, const struct json *, const struct est_at *))
{
    int fn = ext_find(name);
    struct ast *n;

    if (fn < 0)
        return est_fail(r, at, "`%.*s` is neither an operator nor an extension function",
                    name.len > 60 ? 60 : (int)name.len, name.p);
    if (!json_is(args, JSON_ARRAY))
        return est_fail(r, at, "expected the arguments of `%s` in an array", ext_rows[fn].name);
    n = node(r, AST_EXT);
    if (n)
        n->u.number = fn;
    return elements(r, n, args, at, one);
}

static struct ast *literal(struct est *r, const struct json *j, const struct est_at *at);

static bool has_strings(const struct json *j, const char *a, const char *b)
{
    return json_is(json_get(j, a), JSON_STRING) && (!b || json_is(json_get(j, b), JSON_STRING));
}

/* Inside "Value": __entity, __extn, or a record; what only looks like an escape is a record, as in value_json.c. */
static struct ast *literal_object(struct est *r, const struct json *j, const struct est_at *at)
{
    const struct json *only = json_len(j) == 1 ? json_first(j) : NULL, *arg;
    struct est_at inner = est_below(at, only);
    struct str name;
    struct ast *n;

    if (only && str_is(json_key(only), "__expr") && json_is(only, JSON_STRING))
        return est_fail(r, at, "the escape `__expr` is no longer a part of Cedar");
    if (only && str_is(json_key(only), "__entity") && has_strings(only, "type", "id")) {
        n = node(r, AST_ENTITY);
        if (!n || !est_member_type(r, only, &inner, "type", &name))
            return NULL;
        n->u.uid = policy_uid(name, json_str(json_get(only, "id")));
        return n;
    }
    arg = only ? json_get(only, "arg") : NULL;
    if (!only || !str_is(json_key(only), "__extn") || !has_strings(only, "fn", NULL) ||
        (!arg && !json_is(json_get(only, "args"), JSON_ARRAY)))
        return elements(r, node(r, AST_RECORD), j, at, literal);
    name = json_str(json_get(only, "fn"));
    if (!arg)
        return call(r, name, json_get(only, "args"), &inner, literal);
    if (ext_find(name) < 0)
        return est_fail(r, &inner, "`%.*s` is no extension function", name.len > 60 ? 60 : (int)name.len, name.p);
    n = node(r, AST_EXT);
    if (n)
        n->u.number = ext_find(name);
    return n ? add(r, at, n, literal(r, arg, &inner)) : NULL;
}

static struct ast *literal(struct est *r, const struct json *j, const struct est_at *at)
{
    struct ast *n = NULL;
    int64_t v = 0;
    bool b = false;

    switch (json_type(j)) {
    case JSON_BOOL:
        n = node(r, AST_BOOL);
        if (n && json_bool(j, &b))
            n->u.b = b;
        return n;
    case JSON_INT:
        if (!json_int(j, &v))
            return est_fail(r, at, "an integer does not fit 64 bits");
        n = node(r, AST_LONG);
        if (n)
            n->u.number = v;
        return n;
    case JSON_STRING:
        n = node(r, AST_STRING);
        if (n)
            n->text = json_str(j);
        return n;
    case JSON_ARRAY:
        return elements(r, node(r, AST_SET), j, at, literal);
    case JSON_OBJECT:
        return literal_object(r, j, at);
    default:
        return est_fail(r, at, "expected a boolean, an integer, a string, an array or an object");
    }
}

/* "attr" of `has`: a name, or a path of them. */
static struct ast *has(struct est *r, const struct json *j, const struct est_at *at)
{
    const struct json *attr = json_get(j, "attr");
    size_t count = json_is(attr, JSON_ARRAY) ? json_len(attr) : 1, i = 0;
    struct ast *n = node(r, AST_HAS);

    if (!n || !OBJECT(r, j, at, "left", "attr"))
        return NULL;
    if (!attr || count == 0 || (!json_is(attr, JSON_ARRAY) && !json_is(attr, JSON_STRING)))
        return est_fail(r, at, "expected \"attr\" to be a string or an array of strings");
    if (count > POLICY_HAS_PATH_MAX)
        return est_fail(r, at, "a path has at most %d names", POLICY_HAS_PATH_MAX);
    n->u.pieces.p = ARENA_ARRAY(r->arena, struct str, count);
    n->u.pieces.n = count;
    if (!n->u.pieces.p)
        return est_too_large(r);
    n->u.pieces.p[0] = json_str(attr);
    for (const struct json *k = json_first(attr); k; k = json_next(k)) {
        if (!json_is(k, JSON_STRING))
            return est_fail(r, at, "expected \"attr\" to be a string or an array of strings");
        n->u.pieces.p[i++] = json_str(k);
    }
    return add(r, at, n, est_operand(r, j, at, "left"));
}

/* Pieces of a pattern stand between its wildcards: literals in a row are one piece, two wildcards have "" between. */
static bool pattern(struct est *r, const struct json *j, const struct est_at *at, struct ast *n)
{
    struct str *pieces = ARENA_ARRAY(r->arena, struct str, json_len(j) + 1);
    struct buf piece = BUF_INIT(1 << 24);
    size_t count = 0;
    bool bad = false;

    if (!pieces)
        return est_too_large(r);
    for (const struct json *k = json_first(j); k && !bad; k = json_next(k)) {
        const struct json *text = json_len(k) == 1 ? json_get(k, "Literal") : NULL;

        if (str_is(json_str(k), "Wildcard")) {
            pieces[count++] = arena_str(r->arena, buf_str(&piece));
            buf_clear(&piece);
        } else if (json_is(text, JSON_STRING)) {
            buf_add_str(&piece, json_str(text));
        } else {
            bad = true;
        }
    }
    pieces[count++] = arena_str(r->arena, buf_str(&piece));
    if (piece.overflow || arena_overflowed(r->arena))
        est_too_large(r);
    buf_release(&piece);
    if (bad)
        return est_fail(r, at, "expected a pattern's parts to be \"Wildcard\" or {\"Literal\": text}");
    n->u.pieces.p = pieces;
    n->u.pieces.n = count;
    return !r->err;
}

static struct ast *like(struct est *r, const struct json *j, const struct est_at *at)
{
    const struct json *parts = json_get(j, "pattern");
    struct ast *n = node(r, AST_LIKE);

    if (!n || !OBJECT(r, j, at, "left", "pattern"))
        return NULL;
    if (!json_is(parts, JSON_ARRAY))
        return est_fail(r, at, "expected \"pattern\" to be an array");
    return pattern(r, parts, at, n) ? add(r, at, n, est_operand(r, j, at, "left")) : NULL;
}

static struct ast *is(struct est *r, const struct json *j, const struct est_at *at)
{
    struct ast *n = node(r, AST_IS);

    if (!n || !OBJECT(r, j, at, "left", "entity_type", "in") || !est_member_type(r, j, at, "entity_type", &n->text))
        return NULL;
    n = add(r, at, n, est_operand(r, j, at, "left"));
    return n && json_get(j, "in") ? add(r, at, n, est_operand(r, j, at, "in")) : n;
}

static struct ast *access(struct est *r, const struct json *j, const struct est_at *at)
{
    struct ast *n = node(r, AST_ATTR);

    if (!n || !OBJECT(r, j, at, "left", "attr") || !est_member_str(r, j, at, "attr", &n->text))
        return NULL;
    return add(r, at, n, est_operand(r, j, at, "left"));
}

static struct ast *branch(struct est *r, const struct json *j, const struct est_at *at)
{
    struct ast *n = OBJECT(r, j, at, "if", "then", "else") ? node(r, AST_IF) : NULL;

    n = n ? add(r, at, n, est_operand(r, j, at, "if")) : NULL;
    n = n ? add(r, at, n, est_operand(r, j, at, "then")) : NULL;
    return n ? add(r, at, n, est_operand(r, j, at, "else")) : NULL;
}

/* An expression is an object with one member, whose name is the operator. */
static struct ast *one_expr(struct est *r, const struct json *j, const struct est_at *at)
{
    struct str name = json_key(j);

    for (size_t i = 0; i < ARRAY_LEN(operators); i++)
        if (str_is(name, operators[i].name))
            return operation(r, &operators[i], j, at);
    if (str_is(name, "Value"))
        return literal(r, j, at);
    if (str_is(name, "Var"))
        return variable(r, j, at);
    if (str_is(name, "Slot"))
        return est_fail(r, at, "a template's slot cannot stand in a condition");
    if (str_is(name, "."))
        return access(r, j, at);
    if (str_is(name, "has"))
        return has(r, j, at);
    if (str_is(name, "like"))
        return like(r, j, at);
    if (str_is(name, "is"))
        return is(r, j, at);
    if (str_is(name, "if-then-else"))
        return branch(r, j, at);
    if (str_is(name, "Set"))
        return json_is(j, JSON_ARRAY) ? elements(r, node(r, AST_SET), j, at, expr)
                                      : est_fail(r, at, "expected an array");
    if (str_is(name, "Record"))
        return json_is(j, JSON_OBJECT) ? elements(r, node(r, AST_RECORD), j, at, expr)
                                       : est_fail(r, at, "expected an object");
    return call(r, name, j, at, expr);
}

static struct ast *expr(struct est *r, const struct json *j, const struct est_at *at)
{
    const struct json *only = json_first(j);
    struct est_at inner = est_below(at, only);
    struct ast *n;

    if (!json_is(j, JSON_OBJECT) || json_len(j) != 1)
        return est_fail(r, at, "expected an expression: an object with one member, named for what it does");
    if (r->nest == POLICY_NEST_MAX)
        return est_fail(r, at, "expressions are nested more than %d deep", POLICY_NEST_MAX);
    r->nest++;
    n = one_expr(r, only, &inner);
    r->nest--;
    return r->err ? NULL : n;
}
