/*
 * eval.c -- the stack machine that runs conditions
 *
 * Errors are exact: what Cedar calls an error ends the policy with POLICY_IS_ERROR, and nothing else does.  Memory
 * is not such an error: a forbid must not be skipped because scratch ran out, so e->out_of_memory fails the whole
 * decision.
 *
 * Unknowns (policy_could_allow) spread: an operation that meets one where its answer could depend on it answers
 * unknown, even where it might have failed, so that the answer covers every possibility.
 */
#include "policy/program.h"

#include "base/check.h"
#include "policy/ext.h"

enum { STACK_LOCAL = 32, SCANNED = 8 };

bool eval_in_hash(const struct policy_uid *self, const struct policy_entity *entity, const struct policy_uid *uid,
    uint64_t hash)
{
    const struct policy_ancestor *a;
    size_t lo = 0, hi;

    if (self->hash == hash && policy_uid_eq(self, uid))
        return true;
    if (!entity || entity->n_ancestors == 0)
        return false;
    a = entity->ancestors;
    hi = entity->n_ancestors;
    if (hi <= SCANNED) {                /* all of them, without a branch that depends on where it is */
        for (size_t i = 0; i < hi; i++)
            lo += a[i].hash < hash;
    } else {
        while (lo < hi) {
            size_t mid = lo + (hi - lo) / 2;

            if (a[mid].hash < hash)
                lo = mid + 1;
            else
                hi = mid;
        }
    }
    /* the first one of this hash or above */
    for (; lo < entity->n_ancestors && a[lo].hash == hash; lo++)
        if (policy_uid_eq(a[lo].uid, uid))
            return true;
    return false;
}

static const struct policy_entity *find_entity(const struct eval *e, const struct policy_uid *uid)
{
    if (uid == e->vars[VAR_PRINCIPAL].u.uid)
        return e->principal;
    if (uid == e->vars[VAR_RESOURCE].u.uid)
        return e->resource;
    if (uid == e->vars[VAR_ACTION].u.uid)
        return e->action;
    return policy_layer_find(e->request->entities, uid);
}

/* --- operations ----------------------------------------------------------------------------------------------- */

/* What an operation came to; DONE leaves its result in *ret. Those that most conditions do without are NOINLINE: so
 * run() stays small, and what it mostly does lies together. */
enum outcome_of { DONE = POLICY_FAULT_NONE, MEMORY = 100, UNKNOWN };

static int attr_of(const struct eval *e, const struct policy_value *v, struct str key, struct policy_value *ret)
{
    const struct policy_value *found;
    const struct policy_entity *ent;

    if (v->kind == POLICY_RECORD) {
        found = policy_record_get(v->u.attrs, v->len, key);
    } else if (v->kind == POLICY_ENTITY) {
        ent = find_entity(e, v->u.uid);
        if (!ent)
            return POLICY_FAULT_NO_ENTITY;
        found = policy_record_get(ent->attrs, ent->n_attrs, key);
    } else {
        return v->kind == POLICY_UNKNOWN ? UNKNOWN : POLICY_FAULT_TYPE;
    }
    if (!found)
        return POLICY_FAULT_NO_ATTR;
    *ret = *found;
    return DONE;
}

enum path_end eval_path(const struct eval *e, const struct index_path *path, struct policy_value *ret,
    uint8_t *ret_step)
{
    *ret = e->vars[path->var];
    for (uint8_t i = 0; i < path->n; i++) {
        int r = attr_of(e, ret, path->keys[i], ret);

        *ret_step = i;
        if (r)
            return r == POLICY_FAULT_NO_ATTR || r == POLICY_FAULT_NO_ENTITY ? PATH_MISSING : PATH_UNKNOWN;
    }
    return ret->flags & POLICY_PARTIAL ? PATH_UNKNOWN : PATH_FOUND;
}

/* `has a.b.c` is `has a && .a has b && .a.b has c`. */
static int has_path(const struct eval *e, const struct policy_value *v, const struct str *keys, size_t n,
    struct policy_value *ret)
{
    struct policy_value at = *v;
    int r;

    for (size_t i = 0; i < n; i++) {
        r = attr_of(e, &at, keys[i], &at);
        if (r == POLICY_FAULT_NO_ATTR || r == POLICY_FAULT_NO_ENTITY) {
            *ret = policy_bool(false);
            return DONE;
        }
        if (r)
            return r;
    }
    *ret = policy_bool(true);
    return DONE;
}

static NOINLINE int tag_of(const struct eval *e, const struct policy_value *v, const struct policy_value *key,
    bool ask, struct policy_value *ret)
{
    const struct policy_value *found;
    const struct policy_entity *ent;

    if (v->kind == POLICY_UNKNOWN || key->kind == POLICY_UNKNOWN)
        return UNKNOWN;
    if (v->kind != POLICY_ENTITY || key->kind != POLICY_STRING)
        return POLICY_FAULT_TYPE;
    ent = find_entity(e, v->u.uid);
    if (!ent && !ask)
        return POLICY_FAULT_NO_ENTITY;
    found = ent ? policy_record_get(ent->tags, ent->n_tags, policy_value_str(*key)) : NULL;
    if (!found && !ask)
        return POLICY_FAULT_NO_TAG;
    *ret = ask ? policy_bool(found != NULL) : *found;
    return DONE;
}

static NOINLINE int in_op(const struct eval *e, const struct policy_value *l, const struct policy_value *r,
    struct policy_value *ret)
{
    const struct policy_entity *ent;
    bool yes = false;

    if ((l->flags | r->flags) & POLICY_PARTIAL)
        return UNKNOWN;
    if (l->kind != POLICY_ENTITY)
        return POLICY_FAULT_TYPE;
    ent = find_entity(e, l->u.uid);
    if (r->kind == POLICY_ENTITY) {
        yes = eval_in(l->u.uid, ent, r->u.uid);
    } else if (r->kind == POLICY_SET) {
        /* Elements are sorted by kind first: if both ends are entities, all are. */
        if (r->len && (r->u.elems[0].kind != POLICY_ENTITY || r->u.elems[r->len - 1].kind != POLICY_ENTITY))
            return POLICY_FAULT_TYPE;
        for (uint32_t i = 0; i < r->len && !yes; i++)
            yes = eval_in(l->u.uid, ent, r->u.elems[i].u.uid);
    } else {
        return POLICY_FAULT_TYPE;
    }
    *ret = policy_bool(yes);
    return DONE;
}

static NOINLINE int compare(enum op op, const struct policy_value *l, const struct policy_value *r,
    struct policy_value *ret)
{
    bool ordered = l->kind == POLICY_LONG || l->kind == POLICY_DATETIME || l->kind == POLICY_DURATION;

    if (l->kind == POLICY_UNKNOWN || r->kind == POLICY_UNKNOWN)
        return UNKNOWN;
    if (!ordered || l->kind != r->kind)
        return POLICY_FAULT_TYPE;
    *ret = policy_bool(op == OP_LT ? l->u.i < r->u.i : op == OP_LE ? l->u.i <= r->u.i
        : op == OP_GT ? l->u.i > r->u.i : l->u.i >= r->u.i);
    return DONE;
}

static NOINLINE int arithmetic(enum op op, const struct policy_value *l, const struct policy_value *r,
    struct policy_value *ret)
{
    int64_t v;
    bool over;

    if (l->kind == POLICY_UNKNOWN || r->kind == POLICY_UNKNOWN)
        return UNKNOWN;
    if (l->kind != POLICY_LONG || r->kind != POLICY_LONG)
        return POLICY_FAULT_TYPE;
    over = op == OP_ADD ? __builtin_add_overflow(l->u.i, r->u.i, &v)
        : op == OP_SUB ? __builtin_sub_overflow(l->u.i, r->u.i, &v) : __builtin_mul_overflow(l->u.i, r->u.i, &v);
    if (over)
        return POLICY_FAULT_OVERFLOW;
    *ret = policy_long(v);
    return DONE;
}

static bool set_has(const struct policy_value *set, const struct policy_value *v)
{
    size_t lo = 0, hi = set->len;

    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        int c = policy_value_cmp(&set->u.elems[mid], v);

        if (c == 0)
            return true;
        if (c < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    return false;
}

static NOINLINE int contains(enum op op, const struct policy_value *l, const struct policy_value *r,
    struct policy_value *ret)
{
    uint32_t hits = 0;

    if ((l->flags | r->flags) & POLICY_PARTIAL)
        return UNKNOWN;
    if (l->kind != POLICY_SET || (op != OP_CONTAINS && r->kind != POLICY_SET))
        return POLICY_FAULT_TYPE;
    if (op == OP_CONTAINS) {
        *ret = policy_bool(set_has(l, r));
        return DONE;
    }
    for (uint32_t i = 0; i < r->len; i++) {
        hits += set_has(l, &r->u.elems[i]);
        if (op == OP_CONTAINS_ANY ? hits > 0 : hits <= i)
            break;
    }
    *ret = policy_bool(op == OP_CONTAINS_ANY ? hits > 0 : hits == r->len);
    return DONE;
}

/* The pieces stand in order: the first at the start, the last at the end, each other one as early as it can. */
static bool like(const struct pattern *p, struct str s)
{
    struct str first = p->pieces[0], last = p->pieces[p->n - 1];
    size_t at = first.len, end;

    if (p->n == 1)
        return str_eq(s, first);
    if (s.len < first.len + last.len || !str_starts(s, first) || !str_ends(s, last))
        return false;
    end = s.len - last.len;
    for (size_t i = 1; i + 1 < p->n; i++) {
        struct str piece = p->pieces[i];
        const char *hit;

        if (piece.len == 0)
            continue;
        if (piece.len > end - at)
            return false;
        hit = memmem(s.p + at, end - at, piece.p, piece.len);
        if (!hit)
            return false;
        at = (size_t)(hit - s.p) + piece.len;
    }
    return true;
}

/* An unknown that an operation answered may stand for its failure, so what is built of it is unknown as a whole. */
static bool any_unknown(const struct policy_value *v, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        if (v[i].kind == POLICY_UNKNOWN)
            return true;
    return false;
}

static NOINLINE int ext_op(struct eval *e, const struct insn *i, const struct policy_value *args,
    struct policy_value *ret)
{
    if (any_unknown(args, i->c))
        return UNKNOWN;
    switch (ext_call((enum ext_fn)i->a, args, i->c, e->request->scratch, ret)) {
    case EXT_OK:
        return DONE;
    case EXT_TYPE:
        return POLICY_FAULT_TYPE;
    case EXT_ARITY:
        return POLICY_FAULT_ARITY;
    case EXT_FORMAT:
        return POLICY_FAULT_FORMAT;
    case EXT_RANGE:
        return POLICY_FAULT_OVERFLOW;
    case EXT_MEMORY:
        return MEMORY;
    }
    UNREACHABLE();
}

static NOINLINE int make_set(struct eval *e, const struct policy_value *elems, uint32_t n, struct policy_value *ret)
{
    struct policy_value *kept;

    if (any_unknown(elems, n))
        return UNKNOWN;
    kept = n ? arena_alloc(e->request->scratch, n * sizeof(*kept)) : NULL;
    if (n && !kept)
        return MEMORY;
    if (n)
        memcpy(kept, elems, n * sizeof(*kept));
    *ret = policy_set_of(kept, n);
    return ret->kind == POLICY_NONE ? MEMORY : DONE;
}

static NOINLINE int make_record(struct eval *e, const struct str *keys, const struct policy_value *values, uint32_t n,
    struct policy_value *ret)
{
    struct policy_attr *kept;

    if (any_unknown(values, n))
        return UNKNOWN;
    kept = n ? arena_alloc(e->request->scratch, n * sizeof(*kept)) : NULL;
    if (n && !kept)
        return MEMORY;
    for (uint32_t i = 0; i < n; i++)
        kept[i] = (struct policy_attr){ keys[i], values[i] };
    *ret = policy_record_of(kept, n);
    return ret->kind == POLICY_NONE ? MEMORY : DONE;
}

/* --- the machine ---------------------------------------------------------------------------------------------- */

/* One operand, replaced by the result. */
static int unary(const struct eval *e, const struct insn *i, struct policy_value *v)
{
    const struct policy_set *set = e->set;

    if (v->kind == POLICY_UNKNOWN)
        return UNKNOWN;
    switch ((enum op)i->op) {
    case OP_NOT:
        if (v->kind != POLICY_BOOL)
            return POLICY_FAULT_TYPE;
        v->u.b = !v->u.b;
        return DONE;
    case OP_NEG:
        if (v->kind != POLICY_LONG)
            return POLICY_FAULT_TYPE;
        return __builtin_sub_overflow((int64_t)0, v->u.i, &v->u.i) ? POLICY_FAULT_OVERFLOW : DONE;
    case OP_LIKE:
        if (v->kind != POLICY_STRING)
            return POLICY_FAULT_TYPE;
        *v = policy_bool(like(&set->patterns[i->c], policy_value_str(*v)));
        return DONE;
    case OP_IS_EMPTY:
        if (v->kind != POLICY_SET)
            return POLICY_FAULT_TYPE;
        *v = policy_bool(v->len == 0);
        return DONE;
    case OP_HAS:
        return has_path(e, v, &set->keys[i->c], i->b, v);
    default:
        ASSERT(i->op == OP_ATTR);
        return attr_of(e, v, set->keys[i->c], v);
    }
}

/* Two operands; the first is replaced by the result. */
static int binary(const struct eval *e, enum op op, struct policy_value *l, const struct policy_value *r)
{
    switch (op) {
    case OP_EQ:
    case OP_NE:
        if ((l->flags | r->flags) & POLICY_PARTIAL)
            return UNKNOWN;
        *l = policy_bool(policy_value_eq(l, r) == (op == OP_EQ));
        return DONE;
    case OP_LT:
    case OP_LE:
    case OP_GT:
    case OP_GE:
        return compare(op, l, r, l);
    case OP_ADD:
    case OP_SUB:
    case OP_MUL:
        return arithmetic(op, l, r, l);
    case OP_IN:
        return in_op(e, l, r, l);
    case OP_GET_TAG:
    case OP_HAS_TAG:
        return tag_of(e, l, r, op == OP_HAS_TAG, l);
    default:
        return contains(op, l, r, l);
    }
}

/* The resource when only its type may be known (then u.uid names it, with an empty id). */
static int is_op(const struct eval *e, const struct insn *i, const struct policy_value *v, bool *ret)
{
    const struct policy_uid *type = e->set->consts[i->c].u.uid;

    if (v->kind != POLICY_ENTITY && !(v->kind == POLICY_UNKNOWN && v->u.uid))
        return v->kind == POLICY_UNKNOWN ? UNKNOWN : POLICY_FAULT_TYPE;
    *ret = v->u.uid->type_hash == type->type_hash && str_eq(v->u.uid->type, type->type);
    return DONE;
}

/*
 * Runs from `pc` to the end. The stack has room for what the compiler counted, above its lowest place, which is not
 * used. A loop over a dispatch table: long because there are many instructions.
 */
static enum policy_verdict run(struct eval *e, uint32_t pc, struct policy_value *stack)
{
    const struct policy_set *set = e->set;
    struct policy_value *top = stack;               /* the topmost value */
    const struct insn *i;
    bool maybe = false, yes;
    int r;

    for (;; pc++) {
        i = &set->code[pc];
        r = DONE;
        switch ((enum op)i->op) {
        case OP_END:
            return maybe ? POLICY_IS_UNKNOWN : POLICY_IS_TRUE;
        case OP_CONJUNCT:
            if (top->kind == POLICY_UNKNOWN) {
                maybe = true;
            } else if (top->kind != POLICY_BOOL) {
                r = POLICY_FAULT_TYPE;
            } else if (!top->u.b) {
                return POLICY_IS_FALSE;
            }
            top--;
            break;
        case OP_CONST:
            *++top = set->consts[i->c];
            break;
        case OP_LONG:
            *++top = policy_long((int32_t)i->c);
            break;
        case OP_VAR:
            *++top = e->vars[i->c];
            break;
        case OP_VAR_ATTR:
            top++;
            r = attr_of(e, &e->vars[i->a], set->keys[i->c], top);
            break;
        case OP_AND:
        case OP_OR:
            if (top->kind == POLICY_UNKNOWN)
                pc = i->c - 1;
            else if (top->kind != POLICY_BOOL)
                r = POLICY_FAULT_TYPE;
            else if (top->u.b == (i->op == OP_OR))
                pc = i->c - 1;
            else
                top--;
            break;
        case OP_BOOL:
            r = top->kind == POLICY_BOOL ? DONE : top->kind == POLICY_UNKNOWN ? UNKNOWN : POLICY_FAULT_TYPE;
            break;
        case OP_IF:
            if (top->kind == POLICY_UNKNOWN) {
                pc = set->code[i->c - 1].c - 1;     /* past both branches */
            } else if (top->kind != POLICY_BOOL) {
                r = POLICY_FAULT_TYPE;
            } else {
                if (!top->u.b)
                    pc = i->c - 1;
                top--;
            }
            break;
        case OP_JUMP:
            pc = i->c - 1;
            break;
        case OP_NOT: case OP_NEG: case OP_LIKE: case OP_IS_EMPTY: case OP_HAS: case OP_ATTR:
            r = unary(e, i, top);
            break;
        case OP_EQ: case OP_NE: case OP_LT: case OP_LE: case OP_GT: case OP_GE: case OP_ADD: case OP_SUB: case OP_MUL:
        case OP_IN: case OP_CONTAINS: case OP_CONTAINS_ALL: case OP_CONTAINS_ANY: case OP_GET_TAG: case OP_HAS_TAG:
            top--;
            r = binary(e, (enum op)i->op, top, top + 1);
            break;
        case OP_IS:
            r = is_op(e, i, top, &yes);
            if (r == DONE && i->a && yes)
                pc++;                               /* keeps the entity for the `in` */
            else if (r == DONE)
                *top = policy_bool(yes);
            break;
        case OP_SET:
            top -= i->c;
            r = make_set(e, top + 1, i->c, top + 1);
            top++;
            break;
        case OP_RECORD:
            top -= i->b;
            r = make_record(e, &set->keys[i->c], top + 1, i->b, top + 1);
            top++;
            break;
        case OP_EXT:
            top -= i->c;
            r = ext_op(e, i, top + 1, top + 1);
            top++;
            break;
        }
        if (__builtin_expect(r != DONE, 0)) {
            if (r == UNKNOWN) {
                *top = policy_unknown();
                continue;
            }
            e->out_of_memory |= r == MEMORY;
            e->fault = r == MEMORY ? POLICY_FAULT_NONE : (enum policy_fault)r;
            e->fault_at = pc;
            return POLICY_IS_ERROR;
        }
    }
}

enum policy_verdict eval_value(struct eval *e, const struct program_policy *p, struct policy_value *ret)
{
    struct policy_value *stack = arena_alloc(e->request->scratch, (p->stack + 1) * sizeof(*stack));
    enum policy_verdict v;

    if (!stack) {
        e->out_of_memory = true;
        return POLICY_IS_ERROR;
    }
    v = run(e, p->code, stack);
    if (v == POLICY_IS_TRUE)
        *ret = stack[1];
    return v;
}

enum policy_verdict eval_policy(struct eval *e, const struct program_policy *p)
{
    /* what is on the stack was pushed: clearing all of it first would cost as much as a short condition */
    UNSET struct policy_value local[STACK_LOCAL + 1];
    struct policy_value *stack = local;

#ifdef __clang_analyzer__       /* which does not see that */
    memset(local, 0, sizeof(local));
#endif
    if (p->unconditional)
        return POLICY_IS_TRUE;
    if (p->stack > STACK_LOCAL) {
        stack = arena_alloc(e->request->scratch, (p->stack + 1) * sizeof(*stack));
        if (!stack) {
            e->out_of_memory = true;
            return POLICY_IS_ERROR;
        }
    }
    return run(e, p->code, stack);
}
