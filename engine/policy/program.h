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
    OP_LONG,            /* push the number c, which has a sign: most numbers need no line of consts */
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

enum index_dim { DIM_PRINCIPAL, DIM_ACTION, DIM_RESOURCE, DIM_COUNT };

/* A constraint of the head. */
struct scope {
    uint64_t hash;                  /* of the type for a plain `is`, else of the entity */
    const struct policy_uid *uid;   /* EQ, IN, IS_IN: the entity; IS: one of the type, with an empty id */
};

/* What deciding reads of a policy: a cache line. */
struct program_policy {
    struct scope principal, resource;
    const struct policy_uid *actions;       /* n_actions of them */
    uint32_t n_actions;
    uint32_t principal_type, resource_type; /* of IS_IN: in set->types; else 0 */
    uint32_t code;                  /* its first instruction */
    uint32_t stack;                 /* values its code has on the stack at most */
    uint8_t kind[DIM_COUNT];        /* enum scope_kind of each constraint; of the action ANY, EQ or IN */
    bool forbid : 1;
    bool unconditional : 1;         /* no condition: the scope alone decides */
    bool approval : 1;              /* a permit with @approval */
    bool budget : 1;                /* a permit with @budget */
};

_Static_assert(sizeof(struct program_policy) == 64, "what a decision reads of a policy is one cache line");

/* What people are told. */
struct program_name {
    struct str id, role;
    const struct ast_policy *ast;
};

/*
 * The scope index; see index.c. A child is the number of a node; or, with INDEX_LEAF, of the first entry of a leaf; or
 * INDEX_NONE.
 */
#define INDEX_NONE UINT32_MAX
#define INDEX_LEAF ((uint32_t)1 << 31)

enum { INDEX_PATH_MAX = 4, INDEX_PATHS_MAX = 8 };

/* An attribute that policies compare with literals in their first conjuncts: a dimension behind those of the head. */
struct index_path {
    uint8_t var;                /* enum ast_var */
    uint8_t n;                  /* steps from there */
    uint8_t guarded;            /* where one of the first so many is missing, the policies are false, and do not fail */
    struct str keys[INDEX_PATH_MAX];
};

struct index_node {
    uint8_t dim;                /* what it splits by: an enum index_dim, or DIM_COUNT + the number of a path */
    uint32_t first, n;          /* kids[first .. first + n) */
    uint32_t any;               /* the child of policies that do not constrain dim */
    uint64_t bloom;             /* index_bit() of the keys of its kids */
};

struct index_entry {
    uint32_t policy;
    uint32_t via;               /* which of the policy's actions led here, so that it is found once; INDEX_NONE: all */
    uint32_t code;              /* the policy's, to be fetched along with it */
    uint8_t bit[DIM_COUNT];     /* what a request's keys must have for its head to match; INDEX_OPEN: nothing */
    bool last;                  /* of its leaf */
};

struct index_kid {
    uint64_t key;
    uint32_t child;
};

struct index_slot {
    uint64_t key;
    uint32_t parent;
    uint32_t child;
};

struct scope_index {
    struct index_node *nodes;
    struct index_entry *entries;
    struct index_kid *kids;
    /*
     * (parent, key) -> child: slots in buckets of eight, at most half full; a power of two of buckets. Most lookups see
     * the tags only, a byte per slot, 0 in empty ones, which are the last ones of a bucket.
     */
    struct index_slot *slots;
    uint64_t *tags;
    uint32_t bucket_mask;
    uint32_t root;
    uint32_t n_nodes, n_entries, n_kids;
    uint32_t n_paths;
    struct index_path paths[INDEX_PATHS_MAX];
};

/* A bit for a key: a set of keys is 64 bits, and may say yes where it is no. The highest is that of "no constraint". */
enum { INDEX_OPEN = 63 };

static inline uint8_t index_bit(uint64_t key)
{
    return (uint8_t)(key & 63);
}

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
    const struct policy_uid **types;        /* entities with an empty id, that stand for their types; [0]: NULL */
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
/*
 * Code for one expression alone, in a set of its own whose arena the caller has begun and releases; eval_value() runs
 * it. E_CALL_TOO_LARGE.
 */
enum err program_compile_expr(struct policy_set *set, const struct ast *expr, struct program_policy *ret);
/* Builds set->index from set->policies. */
enum err index_build(struct policy_set *set);

/* What a policy's first conjuncts ask, where its head asks less; see narrow.c. */
struct narrow {
    uint64_t head[DIM_COUNT];   /* keys ... */
    uint8_t heads;              /* ... of these dimensions, a bit each */
    uint8_t rank[DIM_COUNT];
    struct index_path path;     /* n = 0: none */
    uint64_t value;
};

void narrow_find(const struct ast_policy *p, struct narrow *ret);
/* The key of a value as a literal is given: a boolean, a number, a text or an entity. False: it is another kind. */
bool index_value_key(const struct policy_value *v, uint64_t *ret);

static inline uint64_t index_hash(uint32_t parent, uint64_t key)
{
    return (key ^ parent) * 0x9e3779b97f4a7c15u;
}

static inline uint8_t index_tag(uint64_t hash)
{
    return (uint8_t)(hash >> 24 | 1);
}

/* The high bit of each byte of `tags` that is `tag`. */
static inline uint64_t index_lanes(uint64_t tags, uint8_t tag)
{
    uint64_t low = 0x7f7f7f7f7f7f7f7fu, x = tags ^ 0x0101010101010101u * tag;

    return ~(((x & low) + low) | x | low);
}

/* Whether a bucket is full: what belongs there may be in the next one. */
static inline bool index_full(uint64_t tags)
{
    return tags >> 56 != 0;
}

/* False if `parent` has no child for the key. */
static inline bool index_may_have(const struct scope_index *x, uint32_t parent, uint64_t key)
{
    uint64_t hash = index_hash(parent, key), tags = x->tags[(uint32_t)(hash >> 32) & x->bucket_mask];

    return (index_lanes(tags, index_tag(hash)) | (index_full(tags) ? 1u : 0u)) != 0;
}

/* INDEX_NONE if `parent` has no child for the key. */
static inline uint32_t index_child(const struct scope_index *x, uint32_t parent, uint64_t key)
{
    uint64_t hash = index_hash(parent, key);

    for (uint32_t i = (uint32_t)(hash >> 32);; i++) {
        uint32_t bucket = i & x->bucket_mask;

        for (uint64_t lanes = index_lanes(x->tags[bucket], index_tag(hash)); lanes; lanes &= lanes - 1) {
            const struct index_slot *s = &x->slots[bucket * 8 + (uint32_t)__builtin_ctzll(lanes) / 8];

            if (s->key == key && s->parent == parent)
                return s->child;
        }
        if (!index_full(x->tags[bucket]))
            return INDEX_NONE;
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

/* Runs an expression's code; *ret is its value if the answer is POLICY_IS_TRUE, the only other one POLICY_IS_ERROR. */
enum policy_verdict eval_value(struct eval *e, const struct program_policy *p, struct policy_value *ret);

/* Follows a path to its end, or to the step that is missing (*ret_step, from 0). */
enum path_end {
    PATH_FOUND,
    PATH_MISSING,               /* there is no such attribute, or entity */
    PATH_UNKNOWN,               /* part of it is not known, or a step is neither record nor entity */
};
enum path_end eval_path(const struct eval *e, const struct index_path *path, struct policy_value *ret,
    uint8_t *ret_step);
/*
 * Whether `entity` is, or is below, `uid`, whose hash is at hand. `self` names it even when it is not in the store
 * (entity NULL).
 */
bool eval_in_hash(const struct policy_uid *self, const struct policy_entity *entity, const struct policy_uid *uid,
    uint64_t hash);
static inline bool eval_in(const struct policy_uid *self, const struct policy_entity *entity,
    const struct policy_uid *uid)
{
    return eval_in_hash(self, entity, uid, uid->hash);
}

#endif
