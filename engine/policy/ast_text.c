/*
 * ast_text.c -- trees to text: expressions and heads in Cedar's syntax, whether they came from text or from JSON
 *
 * Parentheses stand only where the grammar needs them; white space is ours.
 */
#include "base/check.h"
#include "policy/ast.h"
#include "policy/ext.h"

/* How tightly an expression binds: an operand that binds less than its place asks for is put in parentheses. */
enum binding { BIND_IF, BIND_OR, BIND_AND, BIND_RELATION, BIND_SUM, BIND_PRODUCT, BIND_UNARY, BIND_MEMBER };

static const struct operator { const char *sign; uint8_t binds; } operators[] = {
    [AST_OR] = { " || ", BIND_OR }, [AST_AND] = { " && ", BIND_AND }, [AST_EQ] = { " == ", BIND_RELATION },
    [AST_NE] = { " != ", BIND_RELATION }, [AST_LT] = { " < ", BIND_RELATION }, [AST_LE] = { " <= ", BIND_RELATION },
    [AST_GT] = { " > ", BIND_RELATION }, [AST_GE] = { " >= ", BIND_RELATION }, [AST_IN] = { " in ", BIND_RELATION },
    [AST_ADD] = { " + ", BIND_SUM }, [AST_SUB] = { " - ", BIND_SUM }, [AST_MUL] = { " * ", BIND_PRODUCT },
};

static const char *const methods[] = {
    [AST_CONTAINS] = "contains", [AST_CONTAINS_ALL] = "containsAll", [AST_CONTAINS_ANY] = "containsAny",
    [AST_IS_EMPTY] = "isEmpty", [AST_GET_TAG] = "getTag", [AST_HAS_TAG] = "hasTag",
};

static bool is_operator(const struct ast *e)
{
    return e->op < ARRAY_LEN(operators) && operators[e->op].sign;
}

static enum binding binding_of(const struct ast *e)
{
    switch (e->op) {
    case AST_IF:                                return BIND_IF;
    case AST_HAS: case AST_LIKE: case AST_IS:   return BIND_RELATION;
    case AST_NOT: case AST_NEG:                 return BIND_UNARY;
    case AST_LONG:                              return e->u.number < 0 ? BIND_UNARY : BIND_MEMBER;
    default:                                    return is_operator(e) ? operators[e->op].binds : BIND_MEMBER;
    }
}

static void write_string(struct buf *out, struct str s)
{
    struct policy_value v = policy_string(s);

    policy_value_write(out, &v);
}

static bool is_identifier(struct str s)
{
    return policy_type_valid(s) && !memchr(s.p, ':', s.len);
}

static void write_name(struct buf *out, struct str s)
{
    if (is_identifier(s))
        buf_add_str(out, s);
    else
        write_string(out, s);
}

static void operand(struct buf *out, const struct ast *e, enum binding at_least)
{
    bool open = binding_of(e) < at_least;

    buf_add_z(out, open ? "(" : "");
    ast_write(out, e);
    buf_add_z(out, open ? ")" : "");
}

static void list(struct buf *out, const struct ast *first, bool keys)
{
    for (const struct ast *k = first; k; k = k->next) {
        buf_add_z(out, k == first ? "" : ", ");
        if (keys) {
            write_name(out, k->key);
            buf_add_z(out, ": ");
        }
        ast_write(out, k);
    }
}

/* a && b && c; a == b. Of the relations neither operand may be one; the others take their like on the left. */
static void write_operator(struct buf *out, const struct ast *e)
{
    enum binding mine = operators[e->op].binds;

    for (const struct ast *k = e->first; k; k = k->next) {
        buf_add_z(out, k == e->first ? "" : operators[e->op].sign);
        operand(out, k, mine == BIND_RELATION || k != e->first ? mine + 1 : mine);
    }
}

/* The pieces between wildcards: what is a star in the text stands as \*. */
static void write_pattern(struct buf *out, const struct ast *e)
{
    buf_add_c(out, '"');
    for (size_t i = 0; i < e->u.pieces.n; i++) {
        struct buf piece = BUF_INIT(1 << 20);
        struct str text;

        buf_add_z(out, i ? "*" : "");
        write_string(&piece, e->u.pieces.p[i]);
        text = buf_str(&piece);
        for (size_t k = 1; k + 1 < text.len; k++) {
            buf_add_z(out, text.p[k] == '*' ? "\\" : "");
            buf_add_c(out, text.p[k]);
        }
        buf_release(&piece);
    }
    buf_add_c(out, '"');
}

static void write_has(struct buf *out, const struct ast *e)
{
    operand(out, e->first, BIND_SUM);
    buf_add_z(out, " has ");
    for (size_t i = 0; i < e->u.pieces.n; i++) {
        buf_add_z(out, i ? "." : "");
        write_name(out, e->u.pieces.p[i]);
    }
}

static void write_call(struct buf *out, const struct ast *e)
{
    const struct ext_row *row = e->op == AST_EXT ? &ext_rows[e->u.number] : NULL;
    bool method = (!row || row->method) && e->first;        /* JSON can leave out what a method is called on */

    if (method) {
        operand(out, e->first, BIND_MEMBER);
        buf_add_c(out, '.');
    }
    buf_addf(out, "%s(", row ? row->name : methods[e->op]);
    list(out, method ? e->first->next : e->first, false);
    buf_add_c(out, ')');
}

static void write_if(struct buf *out, const struct ast *e)
{
    buf_add_z(out, "if ");
    ast_write(out, e->first);
    buf_add_z(out, " then ");
    ast_write(out, e->first->next);
    buf_add_z(out, " else ");
    ast_write(out, e->last);
}

static void write_attr(struct buf *out, const struct ast *e)
{
    operand(out, e->first, BIND_MEMBER);
    if (is_identifier(e->text)) {
        buf_add_c(out, '.');
        buf_add_str(out, e->text);
    } else {
        buf_add_c(out, '[');
        write_string(out, e->text);
        buf_add_c(out, ']');
    }
}

/* A dispatch table: long because there are many operators. */
void ast_write(struct buf *out, const struct ast *e)
{
    static const char *const vars[] = { "principal", "action", "resource", "context" };

    switch ((enum ast_op)e->op) {
    case AST_BOOL:      buf_add_z(out, e->u.b ? "true" : "false"); break;
    case AST_LONG:      buf_add_i64(out, e->u.number); break;
    case AST_STRING:    write_string(out, e->text); break;
    case AST_ENTITY:    policy_uid_write(out, &e->u.uid); break;
    case AST_VAR:       buf_add_z(out, vars[e->u.number]); break;
    case AST_IF:        write_if(out, e); break;
    case AST_HAS:       write_has(out, e); break;
    case AST_ATTR:      write_attr(out, e); break;
    case AST_NOT:
    case AST_NEG:
        buf_add_c(out, e->op == AST_NOT ? '!' : '-');
        operand(out, e->first, BIND_UNARY);
        break;
    case AST_LIKE:
        operand(out, e->first, BIND_SUM);
        buf_add_z(out, " like ");
        write_pattern(out, e);
        break;
    case AST_IS:
        operand(out, e->first, BIND_SUM);
        buf_addf(out, " is %.*s", STR_ARG(e->text));
        if (e->n == 2) {
            buf_add_z(out, " in ");
            operand(out, e->last, BIND_SUM);
        }
        break;
    case AST_SET:
        buf_add_c(out, '[');
        list(out, e->first, false);
        buf_add_c(out, ']');
        break;
    case AST_RECORD:
        buf_add_c(out, '{');
        list(out, e->first, true);
        buf_add_c(out, '}');
        break;
    case AST_CONTAINS: case AST_CONTAINS_ALL: case AST_CONTAINS_ANY: case AST_IS_EMPTY: case AST_GET_TAG:
    case AST_HAS_TAG: case AST_EXT:
        write_call(out, e);
        break;
    default:
        write_operator(out, e);
    }
}

void ast_scope_write(struct buf *out, const char *variable, const struct ast_scope *s)
{
    bool slot = ast_scope_slot(s) && strcmp(variable, "action") != 0;
    bool many = s->kind == SCOPE_IN && s->n != 1 && !slot;

    buf_add_z(out, variable);
    if (s->kind == SCOPE_IS || s->kind == SCOPE_IS_IN)
        buf_addf(out, " is %.*s", STR_ARG(s->type));
    if (s->kind == SCOPE_EQ || s->kind == SCOPE_IN || s->kind == SCOPE_IS_IN)
        buf_add_z(out, s->kind == SCOPE_EQ ? " == " : " in ");
    if (slot)
        buf_addf(out, "?%s", variable);
    buf_add_z(out, many ? "[" : "");
    for (size_t i = 0; i < s->n; i++) {
        buf_add_z(out, i ? ", " : "");
        policy_uid_write(out, &s->uids[i]);
    }
    buf_add_z(out, many ? "]" : "");
}
