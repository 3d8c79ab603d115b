/*
 * validate.h -- what validate.c (policies, heads, kinds of requests) and validate_*.c (expressions) share
 * (room-private)
 */
#ifndef POLICY_VALIDATE_H
#define POLICY_VALIDATE_H

#include "base/check.h"
#include "policy/ast.h"
#include "policy/report.h"
#include "policy/types.h"

/* A kind of request: an action with types it applies to; for templates also the types that fill the slots. */
struct request_kind {
    const struct schema_action *action;
    const struct schema_entity *principal, *resource;
    const struct schema_entity *principal_slot, *resource_slot;
};

/* Slots stand in heads only; in an expression made from a head they are variables with these numbers. */
enum { VAR_PRINCIPAL_SLOT = VAR_CONTEXT + 1, VAR_RESOURCE_SLOT };

/*
 * Something is known to be there: an attribute, or (tag) a tag whose name is an expression, of what the expression `on`
 * gives.  `has` and hasTag() tell it, && and `if` carry it to where it is used.
 */
struct known {
    uint64_t hash;
    const struct ast *on, *tag;
    struct str attr;
    struct known *next;
};

/* A list; what is in one is in no other. */
struct knowledge {
    struct known *first, **end;     /* end is NULL while it is empty */
};

struct answer {
    const struct type *type;        /* NULL: not known, because of an error */
    bool ok;                        /* no error was found in it */
    struct knowledge then;          /* what is known where it is true; empty unless ok */
};

struct validator {
    const struct policy_schema *schema;
    struct policy_report *report;
    struct policy_finding at;       /* policy and file of what is checked */
    struct arena tree;              /* of one policy: expressions made from its head */
    struct arena work;              /* of one kind of request */
    struct type_pool types;         /* in work, on top of the schema's */
    struct request_kind kind;
    const struct knowledge *known[POLICY_DEPTH_MAX + 16];
    uint32_t n_known;
};

/* What an operand may be: several at once. Extension types are expected by themselves. */
enum {
    WANT_BOOL = 1, WANT_LONG = 2, WANT_STRING = 4, WANT_ENTITY = 8, WANT_RECORD = 16, WANT_SET = 32,
    WANT_ENTITIES = 64,         /* a set of entities */
};

/* validate_expr.c: what an expression is and gives, for requests of v->kind; errors are reported. */
struct answer validate_expr(struct validator *v, const struct ast *e);
/* The same where only some types will do: with another one the type is not known. */
struct answer validate_wanted(struct validator *v, const struct ast *e, unsigned want);
struct answer validate_wanted_ext(struct validator *v, const struct ast *e, const struct type *ext);
/*
 * left && right, the right one validated with what the left one tells. `right` is not even looked at if left is False:
 * ask validate_is_false() first.
 */
struct answer validate_and(struct answer left, struct answer right);
static inline bool validate_is_false(const struct answer *a) { return a->type == &type_false; }
static inline void validate_know(struct validator *v, const struct knowledge *k)
{
    ASSERT(v->n_known < ARRAY_LEN(v->known));
    v->known[v->n_known++] = k;
}
static inline void validate_forget(struct validator *v)
{
    v->n_known--;
}
static inline struct answer answer_of(const struct type *t, bool ok)
{
    return (struct answer){ .type = t, .ok = ok && t };
}

/* validate_ops.c: operators that need no knowledge. */
void validate_mixed(struct validator *v, const struct ast *e, const char *what, const struct type *a,
    const struct type *b);
struct answer validate_equal(struct validator *v, const struct ast *e);
struct answer validate_compare(struct validator *v, const struct ast *e);
struct answer validate_contains(struct validator *v, const struct ast *e);
struct answer validate_ext(struct validator *v, const struct ast *e);
/* validate_in.c: `e` is the `in` or `is T in`, lhs its first operand's answer. */
struct answer validate_in(struct validator *v, const struct ast *e, struct answer lhs, const struct ast *right);
/* Whether an entity of one type can be in one of the other, by the schema. */
bool validate_can_be_in(const struct policy_schema *s, const struct schema_entity *low,
    const struct schema_entity *high);
/* The entity that an expression names: a literal, or `action`; NULL if it is neither. */
const struct policy_uid *validate_literal_uid(const struct validator *v, const struct ast *e);

/* validate_known.c */
void known_join(struct knowledge *a, struct knowledge *b);      /* a: what is in either */
void known_meet(struct knowledge *a, const struct knowledge *b);        /* a: what is in both */
bool known_has(const struct validator *v, const struct known *k);
struct known known_attr(const struct ast *on, struct str attr);
struct known known_tag(const struct ast *on, const struct ast *tag);
/* A copy in v->work as the only element; empty when that is full. */
struct knowledge known_one(struct validator *v, const struct known *k);

void validate_report(struct validator *v, const struct ast *e, enum policy_finding_kind kind, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

#endif
