/*
 * compile.c -- trees to code
 *
 * Names of attributes and entities occur in many policies: each is kept once, an entity beside its bytes, so that the
 * policies of a large set share what they share in the cache.
 *
 * Literals of sets and records, and calls like ip("10.0.0.0/8"), whose parts are constant become constants here, so
 * that a decision does not build them again.  A constant call that fails (ip("x")) stays code: it must fail when
 * evaluated.
 *
 * Recursion follows the tree, whose depth the parser bounds (POLICY_DEPTH_MAX).
 */
#include "policy/program.h"

#include "base/check.h"
#include "base/map.h"
#include "policy/ext.h"

enum { LINE = 64, TYPES_LOOKED_AT = 16 };       /* LINE: bytes of a cache line */

/* A table that grows by doubling inside the set's arena. */
struct table {
    void *p;
    size_t n, cap, size;
};

struct compiler {
    struct policy_set *set;
    struct table code, places, consts, keys, patterns, types;
    struct map uids;            /* type, NUL, id -> struct policy_uid */
    struct map known;           /* a key -> 1 + its place in keys */
    struct map bodies;          /* the address of a template -> the first of its links, whose code all of them run */
    struct buf name;            /* a key of uids in the making */
    uint32_t depth, deepest;    /* values on the stack here, and at most in this policy */
    bool full;
};

/* Room for n more entries in a row; NULL and c->full when memory is out. */
static void *grow(struct compiler *c, struct table *t, size_t n)
{
    if (t->n + n > t->cap) {
        size_t cap = t->cap ? t->cap : 64;
        void *p;

        while (cap < t->n + n)
            cap *= 2;
        p = cap > UINT32_MAX ? NULL : arena_array(&c->set->arena, cap, t->size);
        if (!p) {
            c->full = true;
            return NULL;
        }
        if (t->n)
            memcpy(p, t->p, t->n * t->size);
        t->p = p;
        t->cap = cap;
    }
    t->n += n;
    return (char *)t->p + (t->n - n) * t->size;
}

static uint32_t here(const struct compiler *c)
{
    return (uint32_t)c->code.n;
}

static struct insn *code_at(const struct compiler *c, uint32_t at)
{
    ASSERT(at < c->code.n);
    return (struct insn *)c->code.p + at;
}

/* Adds an instruction that leaves `push` more values on the stack than it found. Answers its index. */
static uint32_t emit(struct compiler *c, const struct ast *from, struct insn i, int push)
{
    struct insn *at = c->full ? NULL : grow(c, &c->code, 1);
    struct place *place = at ? grow(c, &c->places, 1) : NULL;

    if (!place)
        return 0;
    *at = i;
    *place = (struct place){ from->line, from->column };
    ASSERT(push >= 0 || c->depth >= (uint32_t)-push);
    c->depth += (uint32_t)push;
    if (c->depth > c->deepest)
        c->deepest = c->depth;
    return here(c) - 1;
}

static uint32_t add_const(struct compiler *c, struct policy_value v)
{
    struct policy_value *at = grow(c, &c->consts, 1);

    if (!at)
        return 0;
    *at = v;
    return (uint32_t)(c->consts.n - 1);
}

static uint32_t add_keys(struct compiler *c, const struct str *keys, size_t n)
{
    uintptr_t known = n == 1 ? (uintptr_t)map_get(&c->known, keys[0]) : 0;
    struct str *at = known ? NULL : grow(c, &c->keys, n);

    if (known)
        return (uint32_t)(known - 1);
    if (!at)
        return 0;
    memcpy(at, keys, n * sizeof(*keys));
    if (n == 1)
        map_put(&c->known, keys[0], (void *)(uintptr_t)c->keys.n);
    return (uint32_t)(c->keys.n - n);
}

/* Memory that begins with a cache line. */
static void *lines(struct compiler *c, size_t n)
{
    char *p = arena_alloc(&c->set->arena, n + LINE - 1);

    return p ? p + (-(uintptr_t)p & (LINE - 1)) : NULL;
}

/* The one copy of an entity's name; its bytes stand behind it, in the same line if they are few. */
static const struct policy_uid *intern(struct compiler *c, struct policy_uid uid)
{
    struct policy_uid *found;
    struct str name;
    char *bytes;

    buf_clear(&c->name);
    buf_add_str(&c->name, uid.type);
    buf_add_c(&c->name, '\0');
    buf_add_str(&c->name, uid.id);
    name = buf_str(&c->name);
    found = map_get(&c->uids, name);
    if (found)
        return found;
    found = c->name.overflow ? NULL : lines(c, sizeof(*found) + name.len);
    if (!found) {
        c->full = true;
        return NULL;
    }
    bytes = (char *)(found + 1);
    memcpy(bytes, name.p, name.len);
    *found = uid;
    found->type.p = bytes;
    found->id.p = bytes + uid.type.len + 1;
    map_put(&c->uids, str_n(bytes, name.len), found);
    return found;
}

static void emit_const(struct compiler *c, const struct ast *n, struct policy_value v)
{
    if (v.kind == POLICY_LONG && v.u.i == (int32_t)v.u.i)
        emit(c, n, (struct insn){ .op = OP_LONG, .c = (uint32_t)v.u.i }, 1);
    else
        emit(c, n, (struct insn){ .op = OP_CONST, .c = add_const(c, v) }, 1);
}

/* Makes the jump at `from` lead to the next instruction. */
static void land(struct compiler *c, uint32_t from)
{
    if (!c->full)
        code_at(c, from)->c = here(c);
}

static void compile(struct compiler *c, const struct ast *n);

static void compile_kids(struct compiler *c, const struct ast *n)
{
    for (const struct ast *k = n->first; k; k = k->next)
        compile(c, k);
}

/* Every instruction from `start` on pushes a constant, n of them: nothing can jump between them. */
static bool all_const(const struct compiler *c, uint32_t start, uint32_t n)
{
    if (c->full || here(c) - start != n)
        return false;
    for (uint32_t i = 0; i < n; i++)
        if (code_at(c, start + i)->op != OP_CONST && code_at(c, start + i)->op != OP_LONG)
            return false;
    return true;
}

static struct policy_value const_at(const struct compiler *c, uint32_t at)
{
    const struct insn *i = code_at(c, at);

    return i->op == OP_LONG ? policy_long((int32_t)i->c) : ((const struct policy_value *)c->consts.p)[i->c];
}

/* Replaces the n constant instructions from `start` by one that pushes v. */
static void fold(struct compiler *c, const struct ast *node, uint32_t start, uint32_t n, struct policy_value v)
{
    if (v.kind == POLICY_NONE)
        c->full = true;
    c->code.n = c->places.n = start;
    c->depth -= n;
    emit_const(c, node, v);
}

/* --- operators ------------------------------------------------------------------------------------------------ */

static void compile_bools(struct compiler *c, const struct ast *n, enum op op)
{
    uint32_t first = UINT32_MAX, at;

    /* The jumps of one chain are linked through their targets until the end is known. */
    for (const struct ast *k = n->first; k; k = k->next) {
        compile(c, k);
        if (!k->next)
            break;
        at = emit(c, k, (struct insn){ .op = (uint8_t)op, .c = first }, -1);
        first = at;
    }
    emit(c, n->last, (struct insn){ .op = OP_BOOL }, 0);
    while (!c->full && first != UINT32_MAX) {
        uint32_t next = code_at(c, first)->c;

        land(c, first);
        first = next;
    }
}

static void compile_if(struct compiler *c, const struct ast *n)
{
    uint32_t to_else, to_end;

    compile(c, n->first);
    to_else = emit(c, n->first, (struct insn){ .op = OP_IF }, -1);
    compile(c, n->first->next);
    to_end = emit(c, n, (struct insn){ .op = OP_JUMP }, -1);
    land(c, to_else);
    compile(c, n->last);
    land(c, to_end);
}

static void compile_set(struct compiler *c, const struct ast *n)
{
    uint32_t start = here(c);
    struct policy_value *elems;

    compile_kids(c, n);
    if (!all_const(c, start, n->n)) {
        emit(c, n, (struct insn){ .op = OP_SET, .c = n->n }, 1 - (int)n->n);
        return;
    }
    elems = ARENA_ARRAY(&c->set->arena, struct policy_value, n->n);
    if (n->n && !elems) {
        c->full = true;
        return;
    }
    for (uint32_t i = 0; i < n->n; i++)
        elems[i] = const_at(c, start + i);
    fold(c, n, start, n->n, policy_set_of(elems, n->n));
}

static void compile_record(struct compiler *c, const struct ast *n)
{
    uint32_t start = here(c), i = 0;
    struct policy_attr *attrs = ARENA_ARRAY(&c->set->arena, struct policy_attr, n->n);
    struct str *keys;

    if (n->n && !attrs) {
        c->full = true;
        return;
    }
    compile_kids(c, n);
    if (all_const(c, start, n->n)) {
        for (const struct ast *k = n->first; k; k = k->next, i++)
            attrs[i] = (struct policy_attr){ k->key, const_at(c, start + i) };
        fold(c, n, start, n->n, policy_record_of(attrs, n->n));
        return;
    }
    ASSERT(n->n <= UINT16_MAX);             /* the parsers bound it (POLICY_RECORD_MAX), as the path of a `has` */
    emit(c, n, (struct insn){ .op = OP_RECORD, .b = (uint16_t)n->n, .c = (uint32_t)c->keys.n }, 1 - (int)n->n);
    keys = grow(c, &c->keys, n->n);
    for (const struct ast *k = n->first; keys && k; k = k->next)
        keys[i++] = k->key;
}

static void compile_ext(struct compiler *c, const struct ast *n)
{
    uint32_t start = here(c);
    enum ext_fn fn = (enum ext_fn)n->u.number;
    struct policy_value arg, v;

    compile_kids(c, n);
    if (fn <= EXT_DURATION && n->n == 1 && all_const(c, start, 1)) {
        arg = const_at(c, start);
        if (ext_call(fn, &arg, 1, &c->set->arena, &v) == EXT_OK) {
            fold(c, n, start, 1, v);
            return;
        }
    }
    emit(c, n, (struct insn){ .op = OP_EXT, .a = (uint8_t)fn, .c = n->n }, 1 - (int)n->n);
}

static void compile_attr(struct compiler *c, const struct ast *n)
{
    uint32_t key = add_keys(c, &n->text, 1);

    if (n->first->op == AST_VAR) {
        emit(c, n, (struct insn){ .op = OP_VAR_ATTR, .a = (uint8_t)n->first->u.number, .c = key }, 1);
    } else {
        compile(c, n->first);
        emit(c, n, (struct insn){ .op = OP_ATTR, .c = key }, 0);
    }
}

static void compile_is(struct compiler *c, const struct ast *n)
{
    const struct policy_uid *type = intern(c, policy_uid(n->text, STR("")));
    uint32_t skip;

    compile(c, n->first);
    emit(c, n, (struct insn){ .op = OP_IS, .a = n->n == 2, .c = add_const(c, policy_entity_value(type)) }, 0);
    if (n->n == 1)
        return;
    skip = emit(c, n, (struct insn){ .op = OP_JUMP }, 0);
    compile(c, n->last);
    emit(c, n, (struct insn){ .op = OP_IN }, -1);
    land(c, skip);
}

static void compile_like(struct compiler *c, const struct ast *n)
{
    struct pattern *p;

    compile(c, n->first);
    p = grow(c, &c->patterns, 1);
    if (p)
        *p = (struct pattern){ n->u.pieces.p, n->u.pieces.n };
    emit(c, n, (struct insn){ .op = OP_LIKE, .c = (uint32_t)c->patterns.n - 1 }, 0);
}

static void compile_plain(struct compiler *c, const struct ast *n, enum op op)
{
    compile_kids(c, n);
    emit(c, n, (struct insn){ .op = (uint8_t)op }, 1 - (int)n->n);
}

static void compile_leaf(struct compiler *c, const struct ast *n)
{
    switch (n->op) {
    case AST_BOOL:
        emit_const(c, n, policy_bool(n->u.b));
        break;
    case AST_LONG:
        emit_const(c, n, policy_long(n->u.number));
        break;
    case AST_STRING:
        emit_const(c, n, policy_string(n->text));
        break;
    case AST_ENTITY:
        emit_const(c, n, policy_entity_value(intern(c, n->u.uid)));
        break;
    default:
        ASSERT(n->op == AST_VAR);
        emit(c, n, (struct insn){ .op = OP_VAR, .c = (uint32_t)n->u.number }, 1);
    }
}

/* A dispatch table: long because there are many operators. */
static void compile(struct compiler *c, const struct ast *n)
{
    static const uint8_t plain[] = {
        [AST_NOT] = OP_NOT, [AST_NEG] = OP_NEG, [AST_EQ] = OP_EQ, [AST_NE] = OP_NE, [AST_LT] = OP_LT, [AST_LE] = OP_LE,
        [AST_GT] = OP_GT, [AST_GE] = OP_GE, [AST_ADD] = OP_ADD, [AST_SUB] = OP_SUB, [AST_MUL] = OP_MUL,
        [AST_IN] = OP_IN,
        [AST_CONTAINS] = OP_CONTAINS, [AST_CONTAINS_ALL] = OP_CONTAINS_ALL, [AST_CONTAINS_ANY] = OP_CONTAINS_ANY,
        [AST_IS_EMPTY] = OP_IS_EMPTY, [AST_GET_TAG] = OP_GET_TAG, [AST_HAS_TAG] = OP_HAS_TAG,
    };
    uint32_t before = c->depth;

    if (c->full)
        return;
    switch ((enum ast_op)n->op) {
    case AST_BOOL: case AST_LONG: case AST_STRING: case AST_ENTITY: case AST_VAR:
        compile_leaf(c, n);
        break;
    case AST_AND:
        compile_bools(c, n, OP_AND);
        break;
    case AST_OR:
        compile_bools(c, n, OP_OR);
        break;
    case AST_IF:
        compile_if(c, n);
        break;
    case AST_HAS:
        ASSERT(n->u.pieces.n <= UINT16_MAX);
        compile(c, n->first);
        emit(c, n, (struct insn){ .op = OP_HAS, .b = (uint16_t)n->u.pieces.n,
            .c = add_keys(c, n->u.pieces.p, n->u.pieces.n) }, 0);
        break;
    case AST_LIKE:
        compile_like(c, n);
        break;
    case AST_IS:
        compile_is(c, n);
        break;
    case AST_ATTR:
        compile_attr(c, n);
        break;
    case AST_SET:
        compile_set(c, n);
        break;
    case AST_RECORD:
        compile_record(c, n);
        break;
    case AST_EXT:
        compile_ext(c, n);
        break;
    default:
        ASSERT(n->op < ARRAY_LEN(plain) && plain[n->op]);
        compile_plain(c, n, (enum op)plain[n->op]);
    }
    ASSERT(c->full || c->depth == before + 1);
}

/* --- policies ------------------------------------------------------------------------------------------------- */

/* Answers how many conjuncts were made: `true` makes none. */
static uint32_t compile_conjuncts(struct compiler *c, const struct ast *n)
{
    uint32_t made = 0;

    if (n->op == AST_BOOL && n->u.b)
        return 0;
    if (n->op == AST_AND) {
        for (const struct ast *k = n->first; k; k = k->next)
            made += compile_conjuncts(c, k);
        return made;
    }
    compile(c, n);
    emit(c, n, (struct insn){ .op = OP_CONJUNCT }, -1);
    return 1;
}

/* The place of a type in set->types. Looked for among the last few only: one that is there twice does no harm. */
static uint32_t add_type(struct compiler *c, const struct policy_uid *type)
{
    const struct policy_uid **at = c->types.p;

    for (size_t i = c->types.n; i > 0 && i + TYPES_LOOKED_AT > c->types.n; i--)
        if (at[i - 1] == type)
            return (uint32_t)i - 1;
    at = grow(c, &c->types, 1);
    if (at)
        *at = type;
    return (uint32_t)c->types.n - 1;
}

static struct scope compile_scope(struct compiler *c, const struct ast_scope *s, uint32_t *ret_type)
{
    struct scope out = { 0 };

    if (s->kind == SCOPE_IS || s->kind == SCOPE_IS_IN) {
        out.uid = intern(c, policy_uid(s->type, STR("")));
        out.hash = out.uid ? out.uid->type_hash : 0;
    }
    if (s->kind == SCOPE_IS_IN)
        *ret_type = add_type(c, out.uid);
    if (s->n) {
        out.uid = intern(c, s->uids[0]);
        out.hash = s->uids[0].hash;
    }
    return out;
}

static void compile_conditions(struct compiler *c, const struct ast_policy *from, struct program_policy *to)
{
    static const struct ast nowhere;
    uint32_t made = 0;

    c->depth = c->deepest = 0;
    to->code = here(c);
    for (const struct ast_condition *k = from->conditions; k; k = k->next) {
        if (!k->unless) {
            made += compile_conjuncts(c, k->expr);
            continue;
        }
        compile(c, k->expr);
        emit(c, k->expr, (struct insn){ .op = OP_NOT }, 0);
        emit(c, k->expr, (struct insn){ .op = OP_CONJUNCT }, -1);
        made++;
    }
    emit(c, &nowhere, (struct insn){ .op = OP_END }, 0);
    to->unconditional = made == 0;
    to->stack = c->deepest;
}

/* The conditions of a template know no slot, so all its links run the same code. */
static void compile_link(struct compiler *c, const struct ast_policy *from, struct program_policy *to)
{
    struct str key = str_n(&from->of, sizeof(from->of));
    const struct program_policy *first = map_get(&c->bodies, key);

    if (first) {
        to->code = first->code;
        to->unconditional = first->unconditional;
        to->stack = first->stack;
        return;
    }
    compile_conditions(c, from, to);
    map_put(&c->bodies, key, to);
}

static void compile_policy(struct compiler *c, const struct ast_policy *from, struct program_policy *to,
    struct program_name *name)
{
    const struct str *role = ast_annotation(from, "approval");

    to->forbid = from->forbid;
    to->approval = role && !from->forbid;
    to->budget = from->n_budgets > 0;
    *name = (struct program_name){ from->id, to->approval ? *role : STR_NULL, from };
    to->kind[DIM_PRINCIPAL] = from->principal.kind;
    to->kind[DIM_ACTION] = from->action.kind;
    to->kind[DIM_RESOURCE] = from->resource.kind;
    to->principal = compile_scope(c, &from->principal, &to->principal_type);
    to->resource = compile_scope(c, &from->resource, &to->resource_type);
    to->actions = from->action.n == 1 ? intern(c, from->action.uids[0]) : from->action.uids;
    to->n_actions = (uint32_t)from->action.n;
    if (from->of)
        compile_link(c, from, to);
    else
        compile_conditions(c, from, to);
}

static struct compiler compiler_for(struct policy_set *set)
{
    return (struct compiler){
        .set = set, .code.size = sizeof(struct insn), .places.size = sizeof(struct place),
        .consts.size = sizeof(struct policy_value), .keys.size = sizeof(struct str),
        .patterns.size = sizeof(struct pattern), .types.size = sizeof(const struct policy_uid *),
        .name = BUF_INIT(1 << 24),
    };
}

/* What was made becomes the set's, unless memory is out. */
static enum err finish(struct compiler *c, struct errinfo *info)
{
    struct policy_set *set = c->set;

    map_release(&c->uids);
    map_release(&c->known);
    map_release(&c->bodies);
    buf_release(&c->name);
    if (c->full)
        return err_set(info, E_CALL_TOO_LARGE, "the policies need more memory than allowed");
    set->code = c->code.p;
    set->places = c->places.p;
    set->n_code = (uint32_t)c->code.n;
    set->consts = c->consts.p;
    set->keys = c->keys.p;
    set->patterns = c->patterns.p;
    set->types = c->types.p;
    return OK;
}

enum err program_compile_expr(struct policy_set *set, const struct ast *expr, struct program_policy *ret)
{
    struct compiler c = compiler_for(set);

    *ret = (struct program_policy){ 0 };
    compile(&c, expr);
    emit(&c, expr, (struct insn){ .op = OP_END }, 0);
    ret->stack = c.deepest;
    return finish(&c, NULL);
}

enum err program_compile(struct policy_set *set, const struct ast_policy *first, size_t n, struct errinfo *info)
{
    struct compiler c = compiler_for(set);
    size_t i = 0;

    grow(&c, &c.types, 1);      /* the first is nobody's: of policies that have none */
    set->policies = n < INDEX_LEAF ? lines(&c, (n + 1) * sizeof(struct program_policy)) : NULL;
    set->names = ARENA_ARRAY(&set->arena, struct program_name, n ? n : 1);
    if (!set->policies || !set->names)
        c.full = true;
    else
        memset(set->policies, 0, (n + 1) * sizeof(struct program_policy));
    for (const struct ast_policy *p = first; p && !c.full; p = p->next, i++)
        compile_policy(&c, p, &set->policies[i], &set->names[i]);
    ASSERT(c.full || i == n);
    set->n_policies = (uint32_t)n;
    return finish(&c, info);
}
