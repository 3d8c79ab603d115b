/*
 * ast.h -- policies as trees: what the parsers make and the compiler reads (room-private)
 *
 * A tree lives in one arena together with its unquoted strings; names and identifiers point into the policy text, which
 * the policy set keeps.  Every node knows where it stands.  What a policy means is here only once: JSON policies,
 * links of templates and the validator work on these trees too.
 */
#ifndef POLICY_AST_H
#define POLICY_AST_H

#include "base/arena.h"
#include "base/err.h"
#include "policy/policy.h"

enum ast_op {
    AST_BOOL, AST_LONG, AST_STRING, AST_ENTITY, AST_VAR,
    AST_AND, AST_OR,                    /* two or more operands */
    AST_NOT, AST_NEG, AST_IF,
    AST_EQ, AST_NE, AST_LT, AST_LE, AST_GT, AST_GE, AST_ADD, AST_SUB, AST_MUL, AST_IN,
    AST_HAS,                            /* pieces: the path, at least one name */
    AST_LIKE,                           /* pieces: what stands between the wildcards */
    AST_IS,                             /* text: the type; a second operand: `is T in e` */
    AST_ATTR,                           /* text: the attribute */
    AST_CONTAINS, AST_CONTAINS_ALL, AST_CONTAINS_ANY, AST_IS_EMPTY, AST_GET_TAG, AST_HAS_TAG,
    AST_SET, AST_RECORD,                /* the operands of a record carry their keys */
    AST_EXT,                            /* number: an enum ext_fn */
};

enum ast_var { VAR_PRINCIPAL, VAR_ACTION, VAR_RESOURCE, VAR_CONTEXT };

struct ast {
    uint8_t op;                 /* enum ast_op */
    uint16_t depth;             /* of the tree below, this node included */
    uint32_t n;                 /* operands */
    uint32_t line, column;
    struct ast *first, *last, *next;
    struct str key;             /* of a record's attribute */
    struct str text;
    union {
        bool b;
        int64_t number;         /* AST_LONG; an enum ast_var; an enum ext_fn */
        struct policy_uid uid;
        struct {
            struct str *p;
            size_t n;
        } pieces;
    } u;
};

enum scope_kind { SCOPE_ANY, SCOPE_EQ, SCOPE_IN, SCOPE_IS, SCOPE_IS_IN };

/* One of the three constraints of a policy's head. */
struct ast_scope {
    uint8_t kind;               /* enum scope_kind; for the action ANY, EQ or IN */
    struct str type;            /* IS, IS_IN */
    /* EQ, IN, IS_IN: one, or none where a template has a slot; action IN: n, perhaps none */
    struct policy_uid *uids;
    size_t n;
    uint32_t line, column;      /* of the type or the first entity; where there is none, of the variable */
};

/* Whether a template leaves the entity open. */
static inline bool ast_scope_slot(const struct ast_scope *s)
{
    return s->n == 0 && (s->kind == SCOPE_EQ || s->kind == SCOPE_IN || s->kind == SCOPE_IS_IN);
}

struct ast_annotation {
    struct str key, value;      /* without a value: "" */
    uint32_t line, column;      /* of the value, else of the key; 0 in JSON */
    struct ast_annotation *next;
};

struct ast_condition {
    bool unless;
    struct ast *expr;
    struct ast_condition *next;
};

struct ast_policy {
    bool forbid;
    uint32_t file, line, column;
    struct str id;
    struct ast_annotation *annotations;
    const struct policy_budget *budgets;        /* of @budget: budget.c */
    uint32_t n_budgets;
    struct ast_scope principal, action, resource;
    struct ast_condition *conditions;
    /* A link of a template: its head with the slots filled; annotations and conditions are the template's. */
    const struct ast_policy *of;
    struct ast_policy *next;
};

static inline bool ast_is_template(const struct ast_policy *p)
{
    return ast_scope_slot(&p->principal) || ast_scope_slot(&p->resource);
}

/* Deeper expressions are refused: parser and compiler recurse, and must fit a thread's stack with sanitizers on. */
enum { POLICY_NEST_MAX = 200, POLICY_DEPTH_MAX = 1000 };

enum {
    POLICY_RECORD_MAX = 1000,   /* attributes of one record literal: duplicates are found by comparing all pairs */
    POLICY_HAS_PATH_MAX = 64,
};

/* What a template is linked to. */
struct ast_link {
    struct str template, id;
    struct policy_uid *principal, *resource;    /* NULL: no value given for that slot */
    struct str where;           /* for messages: "links.json: templateLinks[3]" */
    struct ast_link *next;
};

struct ast_file {
    struct ast_policy *first;   /* policies and templates in the order of the text */
    struct ast_link *links;
    size_t n;
};

/*
 * Parses one file of policies. `tokens` (may be NULL) receives the text of every token and a line feed after each: the
 * normal form that the version digest covers. Policies get no ids here.
 * E_CONFIG: `info` holds file:line:column and what was expected; E_CALL_TOO_LARGE: the arena is full.
 */
enum err ast_parse(struct arena *a, struct str file, struct str text, struct buf *tokens, struct ast_file *ret,
    struct errinfo *info);

/*
 * The same from JSON: a policy set {"staticPolicies", "templates", "templateLinks"} or one policy {"effect", ...}; see
 * parse_json.c for the forms. Policies have their ids from there, except those of an array or a text, which get none.
 * `info` holds file: path in the JSON and what was expected.
 */
enum err ast_parse_json(struct arena *a, struct str file, struct str text, struct buf *tokens, struct ast_file *ret,
    struct errinfo *info);

struct ast *ast_new(struct arena *a, enum ast_op op, uint32_t line, uint32_t column);
void ast_add(struct ast *parent, struct ast *kid);
/* The value of an annotation; NULL if the policy has none of that key. */
const struct str *ast_annotation(const struct ast_policy *p, const char *key);

/* ast_text.c: the expression in Cedar's syntax, on one line; and a constraint of a head, as "principal in T::\"x\"". */
void ast_write(struct buf *out, const struct ast *e);
void ast_scope_write(struct buf *out, const char *variable, const struct ast_scope *s);

/* Reads the policy's @budget, if it has one (budget.c). file: for messages. E_CONFIG, E_CALL_TOO_LARGE. */
enum err budget_read(struct arena *a, struct str file, struct ast_policy *p, struct errinfo *info);

#endif
