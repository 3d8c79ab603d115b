/*
 * parse_expr.c -- the grammar of expressions
 *
 *   Expr     = 'if' Expr 'then' Expr 'else' Expr | Or
 *   Or       = And { '||' And }
 *   And      = Relation { '&&' Relation }
 *   Relation = Add [ ( '==' | '!=' | '<' | '<=' | '>' | '>=' | 'in' ) Add ]       not chained
 *            | Add 'has' ( Ident { '.' Ident } | STRING )
 *            | Add 'like' STRING
 *            | Add 'is' Name [ 'in' Add ]
 *   Add      = Mult { ( '+' | '-' ) Mult }
 *   Mult     = Unary { '*' Unary }
 *   Unary    = '!' x 1..4 Member | '-' x 1..4 Member | Member
 *   Member   = Primary { '.' Ident [ '(' List ')' ] | '[' STRING ']' }
 *   Primary  = 'true' | 'false' | INT | STRING | Name '::' STRING
 *            | 'principal' | 'action' | 'resource' | 'context'
 *            | Function '(' List ')' | '(' Expr ')' | '[' List ']' | '{' [ Key ':' Expr { ',' ... } ] '}'
 *   Key      = Ident | STRING
 *   List     = [ Expr { ',' Expr } [ ',' ] ]
 *
 * An integer fits 63 bits; only directly behind '-' (and not before '.' or '[') may it be 2^63.  A call of an extension
 * function with the wrong number of arguments is an error when evaluated, as in the reference; for the methods of the
 * language proper it is an error here.
 */
#include "policy/parse.h"

#include "base/check.h"
#include "policy/ext.h"

static struct ast *node(struct parser *p, enum ast_op op, const struct token *where)
{
    struct ast *n = ast_new(p->arena, op, where->line, where->column);

    return n ? n : parse_memory(p);
}

/* Makes `kid` an operand of `n`; answers n, or NULL if either is NULL or the tree becomes too deep. */
static struct ast *add(struct parser *p, struct ast *n, struct ast *kid)
{
    if (!n || !kid)
        return NULL;
    ast_add(n, kid);
    if (n->depth > POLICY_DEPTH_MAX)
        return parse_fail(p, &p->tok, "this expression is more than %d operations deep", POLICY_DEPTH_MAX);
    return n;
}

static struct ast *add_int(struct ast *n, int64_t v)
{
    if (n)
        n->u.number = v;
    return n;
}

static struct ast *add_text(struct ast *n, struct str s)
{
    if (n)
        n->text = s;
    return n;
}

/* Expressions up to `close`, which is passed, as operands of n. */
static struct ast *parse_list(struct parser *p, struct ast *n, enum token_kind close, const char *what)
{
    while (n && !parse_eat(p, close)) {
        n = add(p, n, parse_expr(p));
        if (n && p->tok.kind != close && !parse_expect(p, TOK_COMMA, what))
            return NULL;
    }
    return p->err ? NULL : n;
}

/* --- primaries -------------------------------------------------------------------------------------------------- */

/* True and the magnitude, up to 2^63. */
static bool int_value(struct parser *p, bool negative, int64_t *ret)
{
    uint64_t v, max = (uint64_t)INT64_MAX + negative;

    if (!str_to_u64(p->tok.text, &v) || v > max)
        return parse_fail(p, &p->tok, "this integer does not fit 64 bits (at most 9223372036854775807)");
    *ret = negative ? (int64_t)(0 - v) : (int64_t)v;
    return true;
}

static struct ast *parse_int(struct parser *p, bool negative, const struct token *where)
{
    struct ast *n;
    int64_t v = 0;

    if (!int_value(p, negative, &v))
        return NULL;
    n = add_int(node(p, AST_LONG, where), v);
    parse_advance(p);
    return n;
}

static struct ast *parse_record(struct parser *p, struct ast *n)
{
    while (n && !parse_eat(p, TOK_RBRACE)) {
        struct token where = p->tok;
        struct str key;
        struct ast *value;

        if (p->tok.kind == TOK_STRING ? !parse_string(p, &key) : !parse_ident(p, "an attribute's name or `}`", &key))
            return NULL;
        for (struct ast *o = n->first; o; o = o->next)
            if (str_eq(o->key, key))
                return parse_fail(p, &where, "this record has the attribute `%.*s` already", STR_ARG(key));
        if (n->n == POLICY_RECORD_MAX)
            return parse_fail(p, &where, "a record literal has at most %d attributes", POLICY_RECORD_MAX);
        if (!parse_expect(p, TOK_COLON, "`:`") || !(value = parse_expr(p)))
            return NULL;
        value->key = key;
        n = add(p, n, value);
        if (n && p->tok.kind != TOK_RBRACE && !parse_expect(p, TOK_COMMA, "an operator, `,` or `}`"))
            return NULL;
    }
    return p->err ? NULL : n;
}

static struct ast *parse_function(struct parser *p, struct str name, const struct token *where)
{
    int fn = ext_find(name);

    if (fn < 0)
        return parse_fail(p, where, "`%.*s` is no function; there are decimal, ip, datetime and duration",
            STR_ARG(name));
    if (ext_rows[fn].method)
        return parse_fail(p, where, "`%.*s` is a method: write `value.%.*s(...)`", STR_ARG(name), STR_ARG(name));
    parse_advance(p);
    return parse_list(p, add_int(node(p, AST_EXT, where), fn), TOK_RPAREN, "an operator, `,` or `)`");
}

/* A word that begins a primary: a variable, a boolean, an entity or a function. */
static struct ast *parse_word(struct parser *p)
{
    static const char *const vars[] = { "principal", "action", "resource", "context" };
    struct token where = p->tok;
    struct str name, id;
    struct ast *n;

    if (parse_at_word(p, "true") || parse_at_word(p, "false")) {
        n = node(p, AST_BOOL, &where);
        if (n)
            n->u.b = where.text.len == 4;
        parse_advance(p);
        return n;
    }
    if (parse_at_word(p, "if"))
        return parse_fail(p, &where, "`if` stands in parentheses when it is an operand");
    for (int i = 0; i < 4 && p->ahead.kind != TOK_PATH; i++)
        if (parse_at_word(p, vars[i])) {
            n = add_int(node(p, AST_VAR, &where), i);
            parse_advance(p);
            if (p->tok.kind == TOK_LPAREN)
                return parse_fail(p, &where, "`%s` is a variable and cannot be called", vars[i]);
            return n;
        }
    if (!parse_name(p, "an expression", &name))
        return NULL;
    if (p->tok.kind == TOK_LPAREN)
        return parse_function(p, name, &where);
    if (p->tok.kind != TOK_PATH)
        return parse_fail(p, &where, "`%.*s` is no variable; there are principal, action, resource and context "
            "(an entity is written %.*s::\"id\")", STR_ARG(name), STR_ARG(name));
    parse_advance(p);
    n = node(p, AST_ENTITY, &where);
    if (!n || !parse_string(p, &id))
        return NULL;
    n->u.uid = policy_uid(name, id);
    return n;
}

static struct ast *parse_primary(struct parser *p)
{
    struct token where = p->tok;
    struct ast *n;
    struct str s;

    switch (p->tok.kind) {
    case TOK_INT:
        return parse_int(p, false, &where);
    case TOK_STRING:
        return parse_string(p, &s) ? add_text(node(p, AST_STRING, &where), s) : NULL;
    case TOK_IDENT:
        return parse_word(p);
    case TOK_LPAREN:
        parse_advance(p);
        n = parse_expr(p);
        return n && parse_expect(p, TOK_RPAREN, "an operator or `)`") ? n : NULL;
    case TOK_LBRACKET:
        parse_advance(p);
        return parse_list(p, node(p, AST_SET, &where), TOK_RBRACKET, "an operator, `,` or `]`");
    case TOK_LBRACE:
        parse_advance(p);
        return parse_record(p, node(p, AST_RECORD, &where));
    case TOK_SLOT:
        return parse_fail(p, &where, "`%.*s`: a template's slot cannot stand in a condition", STR_ARG(where.text));
    default:
        return parse_wanted(p, "an expression");
    }
}

/* --- members ---------------------------------------------------------------------------------------------------- */

static const struct method { const char *name; uint8_t op, n_args; } methods[] = {
    { "contains", AST_CONTAINS, 1 }, { "containsAll", AST_CONTAINS_ALL, 1 }, { "containsAny", AST_CONTAINS_ANY, 1 },
    { "isEmpty", AST_IS_EMPTY, 0 }, { "getTag", AST_GET_TAG, 1 }, { "hasTag", AST_HAS_TAG, 1 },
};

/* Behind the name of a method, at its parenthesis. */
static struct ast *parse_method(struct parser *p, struct ast *of, struct str name, const struct token *where)
{
    const struct method *m = NULL;
    struct ast *n;
    int fn;

    for (size_t i = 0; i < ARRAY_LEN(methods); i++)
        if (str_is(name, methods[i].name))
            m = &methods[i];
    fn = m ? -1 : ext_find(name);
    if (!m && (fn < 0 || !ext_rows[fn].method))
        return parse_fail(p, where, fn < 0 ? "there is no method `%.*s`" : "`%.*s` is a function, not a method",
            STR_ARG(name));
    parse_advance(p);
    n = m ? node(p, m->op, where) : add_int(node(p, AST_EXT, where), fn);
    n = parse_list(p, add(p, n, of), TOK_RPAREN, "an operator, `,` or `)`");
    if (n && m && n->n != m->n_args + 1u)
        return parse_fail(p, where, "`%s` takes %s, found %u", m->name, m->n_args ? "one argument" : "no argument",
            n->n - 1);
    return n;
}

static struct ast *parse_access(struct parser *p, struct ast *of)
{
    struct token where = p->tok;
    struct str name;

    if (parse_eat(p, TOK_LBRACKET)) {
        if (p->tok.kind != TOK_STRING)
            return parse_wanted(p, "an attribute's name in quotes");
        if (!parse_string(p, &name) || !parse_expect(p, TOK_RBRACKET, "`]`"))
            return NULL;
        return add(p, add_text(node(p, AST_ATTR, &where), name), of);
    }
    parse_advance(p);
    where = p->tok;
    if (!parse_ident(p, "the name of an attribute or a method", &name))
        return NULL;
    if (p->tok.kind == TOK_LPAREN)
        return parse_method(p, of, name, &where);
    return add(p, add_text(node(p, AST_ATTR, &where), name), of);
}

static struct ast *parse_member(struct parser *p)
{
    struct ast *n = parse_primary(p);

    while (n && (p->tok.kind == TOK_DOT || p->tok.kind == TOK_LBRACKET))
        n = parse_access(p, n);
    if (n && p->tok.kind == TOK_LPAREN)
        return parse_fail(p, &p->tok, "this value cannot be called; calls are written name(...) or value.method(...)");
    return n;
}

static struct ast *parse_unary(struct parser *p)
{
    enum token_kind op = p->tok.kind;
    struct token at[4];
    unsigned n_ops = 0;
    struct ast *n;

    if (op != TOK_BANG && op != TOK_MINUS)
        return parse_member(p);
    while (p->tok.kind == op) {
        if (n_ops == 4)
            return parse_fail(p, &p->tok, "at most four `%s` may stand in a row", op == TOK_BANG ? "!" : "-");
        at[n_ops++] = p->tok;
        parse_advance(p);
    }
    if (op == TOK_MINUS && p->tok.kind == TOK_INT && p->ahead.kind != TOK_DOT && p->ahead.kind != TOK_LBRACKET)
        n = parse_int(p, true, &at[--n_ops]);
    else
        n = parse_member(p);
    while (n && n_ops > 0)
        n = add(p, node(p, op == TOK_BANG ? AST_NOT : AST_NEG, &at[--n_ops]), n);
    return n;
}

/* --- binary operators --------------------------------------------------------------------------------------------- */

static struct ast *parse_mult(struct parser *p)
{
    struct ast *n = parse_unary(p);

    while (n && p->tok.kind == TOK_STAR) {
        struct ast *mul = node(p, AST_MUL, &p->tok);

        parse_advance(p);
        n = add(p, add(p, mul, n), parse_unary(p));
    }
    return n;
}

static struct ast *parse_sum(struct parser *p)
{
    struct ast *n = parse_mult(p);

    while (n && (p->tok.kind == TOK_PLUS || p->tok.kind == TOK_MINUS)) {
        struct ast *sum = node(p, p->tok.kind == TOK_PLUS ? AST_ADD : AST_SUB, &p->tok);

        parse_advance(p);
        n = add(p, add(p, sum, n), parse_mult(p));
    }
    if (n && (p->tok.kind == TOK_SLASH || p->tok.kind == TOK_PERCENT))
        return parse_fail(p, &p->tok, "Cedar has no %s", p->tok.kind == TOK_SLASH ? "division" : "remainder");
    if (n && p->tok.kind == TOK_ASSIGN)
        return parse_fail(p, &p->tok, "`=` is no operator; did you mean `==`?");
    return n;
}

/* Kept out of line: its array must not weigh on every level of the descent. */
__attribute__((noinline)) static struct ast *parse_has(struct parser *p, struct ast *n)
{
    struct str parts[POLICY_HAS_PATH_MAX];
    size_t count = 0;

    if (!n)
        return NULL;
    if (p->tok.kind == TOK_STRING) {
        if (!parse_string(p, &parts[count++]))
            return NULL;
    } else {
        do {
            if (count == ARRAY_LEN(parts))
                return parse_fail(p, &p->tok, "a path has at most %d names", POLICY_HAS_PATH_MAX);
            if (!parse_ident(p, count ? "an attribute's name" : "an attribute's name or a string", &parts[count]))
                return NULL;
            count++;
        } while (parse_eat(p, TOK_DOT));
    }
    n->u.pieces.p = ARENA_ARRAY(p->arena, struct str, count);
    if (!n->u.pieces.p)
        return parse_memory(p);
    memcpy(n->u.pieces.p, parts, count * sizeof(parts[0]));
    n->u.pieces.n = count;
    return n;
}

static struct ast *parse_like(struct parser *p, struct ast *n)
{
    struct str bad = STR_NULL;
    enum err e;

    if (!n)
        return NULL;
    if (p->tok.kind != TOK_STRING)
        return parse_wanted(p, "a pattern in quotes");
    e = lex_pattern(p->arena, p->tok.text, &n->u.pieces.p, &n->u.pieces.n, &bad);
    if (e == E_CONFIG)
        return parse_fail(p, &p->tok, "`%.*s` is not an escape that patterns know", STR_ARG(bad));
    if (e)
        return parse_memory(p);
    parse_advance(p);
    return n;
}

static struct ast *parse_is(struct parser *p, struct ast *n)
{
    if (!n || !parse_name(p, "the name of an entity type", &n->text))
        return NULL;
    if (parse_at_word(p, "in")) {
        parse_advance(p);
        n = add(p, n, parse_sum(p));
    }
    return n;
}

/* The operator of a relation at the current token, or -1. */
static int relation(const struct parser *p)
{
    switch (p->tok.kind) {
    case TOK_EQ: return AST_EQ;
    case TOK_NE: return AST_NE;
    case TOK_LT: return AST_LT;
    case TOK_LE: return AST_LE;
    case TOK_GT: return AST_GT;
    case TOK_GE: return AST_GE;
    default:
        return parse_at_word(p, "in") ? AST_IN : parse_at_word(p, "has") ? AST_HAS
            : parse_at_word(p, "like") ? AST_LIKE : parse_at_word(p, "is") ? AST_IS : -1;
    }
}

static struct ast *parse_relation(struct parser *p)
{
    struct ast *n = parse_sum(p), *rel;
    int op = relation(p);

    if (!n || op < 0)
        return n;
    rel = add(p, node(p, (enum ast_op)op, &p->tok), n);
    parse_advance(p);
    if (op == AST_HAS)
        rel = parse_has(p, rel);
    else if (op == AST_LIKE)
        rel = parse_like(p, rel);
    else if (op == AST_IS)
        rel = parse_is(p, rel);
    else
        rel = add(p, rel, parse_sum(p));
    if (rel && relation(p) >= 0)
        return parse_fail(p, &p->tok, "relations cannot be chained; parenthesise one of them");
    return rel;
}

static struct ast *parse_and(struct parser *p)
{
    struct ast *n = parse_relation(p);

    if (!n || p->tok.kind != TOK_AND)
        return n;
    n = add(p, node(p, AST_AND, &p->tok), n);
    while (n && parse_eat(p, TOK_AND))
        n = add(p, n, parse_relation(p));
    return n;
}

static struct ast *parse_or(struct parser *p)
{
    struct ast *n = parse_and(p);

    if (!n || p->tok.kind != TOK_OR)
        return n;
    n = add(p, node(p, AST_OR, &p->tok), n);
    while (n && parse_eat(p, TOK_OR))
        n = add(p, n, parse_and(p));
    return n;
}

static struct ast *parse_if(struct parser *p)
{
    struct ast *n = node(p, AST_IF, &p->tok);

    parse_advance(p);
    n = add(p, n, parse_expr(p));
    if (!n)
        return NULL;
    if (!parse_at_word(p, "then"))
        return parse_wanted(p, "an operator or `then`");
    parse_advance(p);
    n = add(p, n, parse_expr(p));
    if (!n)
        return NULL;
    if (!parse_at_word(p, "else"))
        return parse_wanted(p, "an operator or `else`");
    parse_advance(p);
    return add(p, n, parse_expr(p));
}

struct ast *parse_expr(struct parser *p)
{
    struct ast *n;

    if (p->err)
        return NULL;
    if (p->nest == POLICY_NEST_MAX)
        return parse_fail(p, &p->tok, "expressions are nested more than %d deep", POLICY_NEST_MAX);
    p->nest++;
    n = parse_at_word(p, "if") ? parse_if(p) : parse_or(p);
    p->nest--;
    return p->err ? NULL : n;
}
