/*
 * lint.c -- which policies cannot do anything
 *
 * Policy A covers policy B if A holds whenever B does: A's head is no narrower, and each conjunct of A's conditions is
 * one of B's, word for word.  (Where B holds, all its conjuncts are true; so are A's, and none of them failed.)  Only
 * pairs whose principals can be so are compared: what covers B asks for anybody, for B's principal, or for its type.
 */
#include "policy/lint.h"

#include <stdlib.h>

#include "base/check.h"
#include "policy/program.h"
#include "policy/report.h"
#include "policy/scope.h"

enum { LINT_MAX = 1 << 30, SCRATCH_MAX = 64 << 20 };

struct conjunct {
    uint64_t hash;
    struct str text;
};

struct subject {
    struct scope_key by;        /* its head's principal, and its number; first: scope.h */
    const struct ast_policy *p;
    uint64_t *order;            /* hashes of the conjuncts in the order of evaluation */
    struct conjunct *conjuncts; /* ascending by hash */
    size_t n;
};

struct lint {
    const struct policy_set *set;
    struct policy_report *report;
    struct arena arena;
    struct subject *by_key;     /* in the order of scope_key_cmp() */
    size_t n;
};

static void found(struct lint *l, enum policy_finding_kind kind, const struct ast_policy *p, uint32_t line,
    uint32_t column, const char *text, struct str named, const char *rest)
{
    struct policy_finding f = { .kind = kind, .warning = true, .policy = p->id, .file = l->set->files[p->file],
        .line = line, .column = column };

    report_add(l->report, &f, "%s%.*s%s", text, STR_ARG(named), rest);
}

/* --- constants ---------------------------------------------------------------------------------------------------- */

static bool constant(const struct ast *e)
{
    if (e->op == AST_VAR || e->op == AST_ENTITY)
        return false;
    for (const struct ast *k = e->first; k; k = k->next)
        if (!constant(k))
            return false;
    return true;
}

/* Of a constant expression. POLICY_IS_UNKNOWN: memory is out. *ret_fault: why it fails. */
static enum policy_verdict value_of(const struct ast *e, struct policy_value *ret, enum policy_fault *ret_fault)
{
    struct policy_set alone = { .magic = POLICY_SET_MAGIC };
    struct policy_request r = { 0 };
    struct eval eval = { .set = &alone, .request = &r };
    enum policy_verdict v = POLICY_IS_UNKNOWN;
    struct arena scratch;
    struct program_policy p;

    arena_init(&alone.arena, SCRATCH_MAX);
    arena_init(&scratch, SCRATCH_MAX);
    r.scratch = &scratch;
    if (!program_compile_expr(&alone, e, &p))
        v = eval_value(&eval, &p, ret);
    *ret_fault = eval.fault;
    arena_release(&scratch);
    arena_release(&alone.arena);
    return eval.out_of_memory ? POLICY_IS_UNKNOWN : v;
}

/* The first constant that fails, among what is evaluated whenever `e` is. */
static bool fails(struct lint *l, const struct ast_policy *p, const struct ast *e)
{
    bool first_only = e->op == AST_AND || e->op == AST_OR || e->op == AST_IF || e->op == AST_IS;
    struct policy_value v;
    enum policy_fault fault;

    if (constant(e)) {
        if (value_of(e, &v, &fault) != POLICY_IS_ERROR)
            return false;
        found(l, POLICY_ALWAYS_FAILS, p, e->line, e->column, "this always fails (",
            str_of(policy_fault_text(fault)), p->forbid
            ? "): the policy never applies, but a forbid that fails refuses calls" : "): the policy never applies");
        return true;
    }
    for (const struct ast *k = e->first; k; k = k->next) {
        if (fails(l, p, k))
            return true;
        if (first_only)
            break;
    }
    return false;
}

static bool never_true(struct lint *l, const struct ast_policy *p, const struct ast *e, bool unless)
{
    struct policy_value v;
    enum policy_fault fault;

    if (e->op == AST_AND && !unless) {
        for (const struct ast *k = e->first; k; k = k->next)
            if (never_true(l, p, k, false))
                return true;
        return false;
    }
    if (!constant(e))
        return fails(l, p, e);
    if (value_of(e, &v, &fault) != POLICY_IS_TRUE)
        return fails(l, p, e);
    if (v.kind != POLICY_BOOL) {
        found(l, POLICY_ALWAYS_FAILS, p, e->line, e->column, "this is no boolean: the policy always fails, ",
            STR("and never applies"), "");
        return true;
    }
    if (v.u.b != unless)
        return false;
    found(l, POLICY_NEVER, p, e->line, e->column, "this is always ", v.u.b ? STR("true") : STR("false"),
        ": the policy never applies");
    return true;
}

static void check_alone(struct lint *l, const struct ast_policy *p)
{
    if (p->action.kind == SCOPE_IN && p->action.n == 0)
        found(l, POLICY_NEVER, p, p->action.line, p->action.column, "no action is in []: ",
            STR("the policy never applies"), "");
    for (const struct ast_condition *c = p->conditions; c; c = c->next)
        if (never_true(l, p, c->expr, c->unless))
            return;
}

/* --- covering ----------------------------------------------------------------------------------------------------- */

static bool covers(const struct subject *a, const struct subject *b)
{
    size_t k = 0;

    if (a->n > b->n || !scope_covers(&a->p->action, &b->p->action) || !scope_covers(&a->p->resource, &b->p->resource)
        || !scope_covers(&a->p->principal, &b->p->principal))
        return false;
    for (size_t i = 0; i < a->n; i++) {
        while (k < b->n && (b->conjuncts[k].hash != a->conjuncts[i].hash
                            || !str_eq(b->conjuncts[k].text, a->conjuncts[i].text)))
            k++;
        if (k == b->n)
            return false;
    }
    return true;
}

/* Whether what a asks is what b asks first, in the same order: then where b fails and a does not, a holds. */
static bool begins_with(const struct subject *b, const struct subject *a)
{
    for (size_t i = 0; i < a->n; i++)
        if (i >= b->n || a->order[i] != b->order[i])
            return false;
    return true;
}

static bool budgets_eq(const struct ast_policy *a, const struct ast_policy *b)
{
    for (uint32_t i = 0; i < a->n_budgets && a->n_budgets == b->n_budgets; i++)
        if (a->budgets[i].what != b->budgets[i].what || a->budgets[i].window_s != b->budgets[i].window_s
            || a->budgets[i].amount != b->budgets[i].amount)
            return false;
    return a->n_budgets == b->n_budgets;
}

static bool roles_eq(const struct str *a, const struct str *b)
{
    return a && b ? str_eq(*a, *b) : a == b;
}

/* a covers b: what does that make of b? */
static bool judge(struct lint *l, const struct subject *a, const struct subject *b)
{
    const struct str *role_a = ast_annotation(a->p, "approval"), *role_b = ast_annotation(b->p, "approval");
    bool plain = !role_a && a->p->n_budgets == 0, bound = role_b || b->p->n_budgets > 0;
    const struct ast_policy *p = b->p;

    if (a->p->forbid && !p->forbid) {
        found(l, POLICY_SHADOWED, p, p->line, p->column,
            "never permits: the forbid \"", a->p->id, "\" holds whenever this does");
        return true;
    }
    if (a->p->forbid != p->forbid)
        return false;
    if (p->forbid && !begins_with(b, a))
        return false;                   /* b may fail where a does not hold, and a forbid that fails refuses calls */
    if (p->forbid || (!bound && plain) || (roles_eq(role_a, role_b) && budgets_eq(a->p, p))) {
        if (a->by.number > b->by.number && covers(b, a))
            return false;               /* the same twice: said of the later one */
        found(l, POLICY_REDUNDANT, p, p->line, p->column,
            "changes nothing: \"", a->p->id, "\" does the same whenever this holds");
        return true;
    }
    if (plain && bound) {
        found(l, POLICY_NEVER_ASKED, p, p->line, p->column,
            role_b ? "its approval is never asked for: \"" : "its budget never counts: \"", a->p->id,
            "\" permits the same without one");
        return true;
    }
    return false;
}

static void check_against(struct lint *l, const struct subject *b)
{
    const struct ast_scope *s = &b->p->principal;
    uint64_t keys[] = { 0, b->by.key, 0 };

    if (s->kind == SCOPE_EQ && s->n)
        keys[2] = s->uids->type_hash;
    else if (s->kind == SCOPE_IS_IN)
        keys[2] = policy_uid(s->type, STR("")).type_hash;
    for (size_t k = 0; k < ARRAY_LEN(keys); k++)
        for (size_t i = scope_key_first(l->by_key, l->n, sizeof(*l->by_key), keys[k]);
             (k == 0 || keys[k]) && i < l->n && l->by_key[i].by.key == keys[k]; i++)
            if (&l->by_key[i] != b && covers(&l->by_key[i], b) && judge(l, &l->by_key[i], b))
                return;
}

/* --- preparing ---------------------------------------------------------------------------------------------------- */

static size_t count_conjuncts(const struct ast *e)
{
    size_t n = 0;

    if (e->op != AST_AND)
        return 1;
    for (const struct ast *k = e->first; k; k = k->next)
        n += count_conjuncts(k);
    return n;
}

static void add_conjuncts(struct lint *l, struct subject *s, const struct ast *e, bool unless)
{
    struct buf text = BUF_INIT(SCRATCH_MAX);

    if (e->op == AST_AND && !unless) {
        for (const struct ast *k = e->first; k; k = k->next)
            add_conjuncts(l, s, k, false);
        return;
    }
    buf_add_z(&text, unless ? "!(" : "");
    ast_write(&text, e);
    buf_add_z(&text, unless ? ")" : "");
    s->conjuncts[s->n].text = arena_str(&l->arena, buf_str(&text));
    s->conjuncts[s->n].hash = policy_uid(STR("C"), s->conjuncts[s->n].text).hash;
    s->order[s->n] = s->conjuncts[s->n].hash;
    s->n++;
    buf_release(&text);
}

static int by_hash(const void *x, const void *y)
{
    const struct conjunct *a = x, *b = y;

    return a->hash != b->hash ? (a->hash < b->hash ? -1 : 1) : str_cmp(a->text, b->text);
}

static bool prepare(struct lint *l, struct subject *s, uint32_t number)
{
    size_t n = 0;

    *s = (struct subject){ .p = l->set->names[number].ast, .by.number = number };
    s->by.key = scope_key_of(&s->p->principal);
    for (const struct ast_condition *c = s->p->conditions; c; c = c->next)
        n += c->unless ? 1 : count_conjuncts(c->expr);
    s->conjuncts = ARENA_ARRAY(&l->arena, struct conjunct, n + 1);
    s->order = ARENA_ARRAY(&l->arena, uint64_t, n + 1);
    if (!s->conjuncts || !s->order)
        return false;
    for (const struct ast_condition *c = s->p->conditions; c; c = c->next)
        add_conjuncts(l, s, c->expr, c->unless);
    if (s->n > 1)
        qsort(s->conjuncts, s->n, sizeof(*s->conjuncts), by_hash);
    return true;
}

enum err policy_lint(const struct policy_set *set, struct policy_report *ret)
{
    struct lint l = { .set = set, .report = ret, .n = set->n_policies };
    enum err e = OK;

    arena_init(&l.arena, LINT_MAX);
    l.by_key = ARENA_ARRAY(&l.arena, struct subject, l.n + 1);
    for (const struct ast_policy *p = set->templates; p; p = p->next)
        check_alone(&l, p);
    for (uint32_t i = 0; i < l.n && l.by_key; i++) {
        if (!set->names[i].ast->of)
            check_alone(&l, set->names[i].ast);
        if (!prepare(&l, &l.by_key[i], i))
            break;
    }
    if (arena_overflowed(&l.arena)) {
        e = E_CALL_TOO_LARGE;
    } else {
        qsort(l.by_key, l.n, sizeof(*l.by_key), scope_key_cmp);
        for (size_t i = 0; i < l.n; i++)
            check_against(&l, &l.by_key[i]);
    }
    arena_release(&l.arena);
    return e;
}
