/*
 * program.h -- a compiled policy set: what decisions run on (room-private)
 *
 * Everything here is built once by compile.c and index.c and never changes; many threads read it.
 *
 * Code is for a stack machine.  A condition that is a conjunction is compiled as one piece of code per operand, each
 * ended by OP_CONJUNCT, which leaves the code as soon as its operand is not true: a policy holds if the end is reached.
 * Jumps go forward only, so running time is bounded by the code's length (and by the size of the values it handles).
 */
#ifndef POLICY_PROGRAM_H
#define POLICY_PROGRAM_H

#include "policy/ast.h"
#include "policy/policy.h"

enum op {
    OP_END,             /* the condition holds */
    OP_CONJUNCT,        /* pop; false: does not hold; not a boolean: error */
    OP_CONST,           /* push consts[c] */
    OP_VAR,             /* push the variable c (enum ast_var) */
    OP_ATTR,            /* top: its attribute keys[c] */
    OP_VAR_ATTR,        /* push the attribute keys[c] of the variable a: the commonest pair, in one step */
    OP_HAS,             /* top: whether it has the path keys[c .. c + b) */
    OP_AND, OP_OR,      /* top decides (false, true): jump to c, keeping it; else pop */
    OP_BOOL,            /* top must be a boolean */
    OP_IF,              /* pop; false: jump to c, in front of which stands the OP_JUMP that ends the other branch */
    OP_JUMP,            /* to c */
    OP_NOT, OP_NEG,
    OP_EQ, OP_NE, OP_LT, OP_LE, OP_GT, OP_GE, OP_ADD, OP_SUB, OP_MUL, OP_IN,
    OP_LIKE,            /* top: whether it matches patterns[c] */
    /*
     * top: whether its type is consts[c] (an entity whose id is empty stands for the type). With a = 1, for `is T in
     * e`: if it is, top stays and the next instruction (a jump past the `in`) is left out.
     */
    OP_IS,
    OP_CONTAINS, OP_CONTAINS_ALL, OP_CONTAINS_ANY, OP_IS_EMPTY, OP_GET_TAG, OP_HAS_TAG,
    OP_SET,             /* pop c, push their set */
    OP_RECORD,          /* pop b, push their record; the keys are keys[c ..], in the order of the values */
    OP_EXT,             /* pop c, push what extension function a makes of them */
};

struct insn {
    uint8_t op;
    uint8_t a;
    uint16_t b;
    uint32_t c;
};

struct place {
    uint32_t line, column;
};

struct pattern {
    const struct str *pieces;   /* n of them, n - 1 wildcards between */
    size_t n;
};

/*
 * A constraint of the head. Its hash is here so that most policies are passed over without touching another cache line:
 * of the type for a plain `is`, else of the entity.
 */
struct scope {
    uint8_t kind;                   /* enum scope_kind */
    uint64_t hash;
    const struct policy_uid *uid;   /* EQ, IN, IS_IN */
    const struct policy_uid *type;  /* IS, IS_IN: an entity of the type, with an empty id */
};

struct action_scope {
    uint8_t kind;                   /* SCOPE_ANY, SCOPE_EQ or SCOPE_IN */
    uint32_t n;
    const struct policy_uid *uids;
};

/* What deciding reads. */
struct program_policy {
    struct scope principal, resource;
    struct action_scope action;
    bool forbid;
    bool unconditional;             /* no condition: the scope alone decides */
    bool approval;                  /* a permit with @approval */
    uint32_t code;                  /* its first instruction */
    uint32_t stack;                 /* values its code has on the stack at most */
};

/* What people are told. */
struct program_name {
    struct str id, role;
    const struct ast_policy *ast;
};

/* A node of the scope index; see index.c. */
enum index_dim { DIM_PRINCIPAL, DIM_ACTION, DIM_RESOURCE, DIM_COUNT, DIM_LEAF = DIM_COUNT };

struct index_node {
    uint8_t dim;                /* what it splits by; DIM_LEAF: entries[first .. first + n) */
    uint32_t first, n;          /* a split: kids[first .. first + n) */
    uint32_t any;               /* the child of policies that do not constrain dim, or INDEX_NONE */
    uint64_t bloom;             /* of the low six bits of the keys of its kids */
};

#define INDEX_NONE UINT32_MAX

struct index_entry {
    uint32_t policy;
    uint32_t via;               /* which of the policy's actions led here, so that it is found once; INDEX_NONE: all */
};

struct index_kid {
    uint64_t key;
    uint32_t node;
};

struct index_slot {
    uint64_t key;
    uint32_t parent;            /* INDEX_NONE: an empty slot */
    uint32_t node;
};

struct scope_index {
    struct index_node *nodes;   /* the root is the first */
    struct index_entry *entries;
    struct index_kid *kids;
    struct index_slot *slots;   /* (parent, key) -> node; a power of two of them, at most half full */
    uint32_t n_nodes, n_entries, n_kids;
    uint32_t slot_mask;
};

struct policy_set {
    uint32_t magic;
    _Atomic uint32_t refs;
    struct arena arena;         /* owns all below */
    struct program_policy *policies;
    struct program_name *names;     /* of the policies */
    uint32_t n_policies;
    struct insn *code;
    struct place *places;       /* one per instruction */
    uint32_t n_code;
    struct policy_value *consts;
    struct str *keys;
    struct pattern *patterns;
    struct scope_index index;
    const struct ast_policy *templates;
    uint32_t n_templates;
    struct str *files;
    char version[65];
};

enum { POLICY_SET_MAGIC = 0x504f4c53 };     /* "POLS" */

/* Fills code and policies from the trees (n of them, in order, ids set). E_CALL_TOO_LARGE with `info`. */
enum err program_compile(struct policy_set *set, const struct ast_policy *first, size_t n, struct errinfo *info);
/* Builds set->index from set->policies. */
enum err index_build(struct policy_set *set);

static inline uint32_t index_hash(uint32_t parent, uint64_t key)
{
    uint64_t h = (key ^ parent) * 0x9e3779b97f4a7c15u;

    return (uint32_t)(h >> 32);
}

/* INDEX_NONE if `parent` has no child for the key. */
static inline uint32_t index_child(const struct scope_index *x, uint32_t parent, uint64_t key)
{
    if (!(x->nodes[parent].bloom >> (key & 63) & 1))
        return INDEX_NONE;
    for (uint32_t i = index_hash(parent, key);; i++) {
        const struct index_slot *s = &x->slots[i & x->slot_mask];

        if (s->parent == INDEX_NONE)
            return INDEX_NONE;
        if (s->parent == parent && s->key == key)
            return s->node;
    }
}

/* What evaluation works on: a request with its entities looked up. */
struct eval {
    const struct policy_set *set;
    const struct policy_request *request;
    const struct policy_entity *principal, *action, *resource;  /* NULL: not in the store */
    struct policy_value vars[4];                                /* by enum ast_var */
    /* filled when a policy ends in POLICY_IS_ERROR */
    enum policy_fault fault;
    uint32_t fault_at;                                          /* index of the instruction */
    bool out_of_memory;                                         /* the decision as a whole must fail */
};

/* Runs the condition of a policy whose scope matches. POLICY_IS_UNKNOWN only if the request holds unknowns. */
enum policy_verdict eval_policy(struct eval *e, const struct program_policy *p);
/* Whether `entity` is, or is below, `uid`. `self` names it even when it is not in the store (entity NULL). */
bool eval_in(const struct policy_uid *self, const struct policy_entity *entity, const struct policy_uid *uid);
/* The same for callers that have uid->hash at hand. */
bool eval_in_hash(const struct policy_uid *self, const struct policy_entity *entity, const struct policy_uid *uid,
    uint64_t hash);

#endif
