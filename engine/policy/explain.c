/*
 * explain.c -- runs conditions expression by expression and writes down what each came to
 *
 * An expression is compiled alone and run by the evaluator itself, so the values are those of the decision.  Which
 * operands were evaluated follows from the values: `&&`, `||` and `if` stop early, and a fault ends the condition.
 */
#include "policy/explain.h"

#include "base/check.h"
#include "policy/ext.h"
#include "policy/program.h"
#include "policy/scope.h"

enum { VALUE_MAX = 200, SHOWN_MAX = 200, EXPR_MEMORY_MAX = 64 << 20, INDENT = 4 };

struct explaining {
    const struct policy_set *set;
    const struct policy_request *request;
    struct eval eval;
    struct buf *out;
    unsigned flags;
    unsigned shown;
    bool faulted;               /* in this condition: nothing after it was evaluated */
    bool full;
};

/* --- values ------------------------------------------------------------------------------------------------------- */

struct result {
    enum { VALUE, FAULT, UNTOUCHED } kind;
    struct policy_value value;
    enum policy_fault fault;
};

static struct result result_of(struct explaining *x, const struct ast *e)
{
    struct policy_set alone = { .magic = POLICY_SET_MAGIC };
    struct program_policy p;
    struct result r = { .kind = FAULT };

    arena_init(&alone.arena, EXPR_MEMORY_MAX);
    if (program_compile_expr(&alone, e, &p)) {
        x->full = true;
    } else {
        x->eval.set = &alone;
        if (eval_value(&x->eval, &p, &r.value) == POLICY_IS_TRUE)
            r.kind = VALUE;
        else
            r.fault = x->eval.fault;
        x->full |= x->eval.out_of_memory;
        x->eval.out_of_memory = false;
    }
    /* What was folded into a constant lives in the arena: written down before it goes. */
    if (r.kind == VALUE && r.value.kind != POLICY_BOOL) {
        struct buf text = BUF_INIT(16 << 20);

        policy_value_write(&text, &r.value);
        r.value = policy_string(arena_str(x->request->scratch, buf_str(&text)));
        buf_release(&text);
    }
    arena_release(&alone.arena);
    return r;
}

static bool is_bool(const struct result *r, bool b)
{
    return r->kind == VALUE && r->value.kind == POLICY_BOOL && r->value.u.b == b;
}

static void write_cut(struct buf *out, struct str s)
{
    size_t n = s.len;

    if (n > VALUE_MAX) {
        n = VALUE_MAX;
        while (n && ((unsigned char)s.p[n] & 0xc0) == 0x80)     /* between characters */
            n--;
    }
    buf_add(out, s.p, n);
    buf_add_z(out, n < s.len ? "..." : "");
}

static void write_result(struct buf *out, const struct result *r)
{
    switch (r->kind) {
    case UNTOUCHED:
        buf_add_z(out, "(not evaluated)");
        break;
    case FAULT:
        buf_addf(out, "fails: %s", policy_fault_text(r->fault));
        break;
    case VALUE:
        if (r->value.kind == POLICY_BOOL)
            buf_add_z(out, r->value.u.b ? "true" : "false");
        else
            write_cut(out, policy_value_str(r->value));
        break;
    }
}

static void line(struct explaining *x, unsigned depth, const char *before, const struct ast *e,
    const struct result *r)
{
    struct buf text = BUF_INIT(16 << 20);

    if (++x->shown > SHOWN_MAX) {
        if (x->shown == SHOWN_MAX + 1)
            buf_addf(x->out, "%*s...\n", (int)(depth * INDENT), "");
        return;
    }
    ast_write(&text, e);
    buf_addf(x->out, "%*s%s", (int)(depth * INDENT), "", before);
    write_cut(x->out, buf_str(&text));
    buf_add_z(x->out, "  ->  ");
    write_result(x->out, r);
    buf_add_c(x->out, '\n');
    buf_release(&text);
}

/* --- expressions -------------------------------------------------------------------------------------------------- */

/* What says everything by itself: literals and variables; of a path of attributes, its last value. */
static bool plain(const struct ast *e)
{
    while (e->op == AST_ATTR)
        e = e->first;
    return e->op <= AST_VAR;
}

/* ip("10.0.0.1"): a literal in all but its form. */
static bool constructed(const struct ast *e)
{
    return e->op == AST_EXT && e->u.number <= EXT_DURATION && e->n == 1 && e->first->op == AST_STRING;
}

static void below(struct explaining *x, const struct ast *e, unsigned depth);

/* An expression and what is below it. before: what begins its line, which it then has in any case; may be NULL. */
static struct result show(struct explaining *x, const struct ast *e, unsigned depth, bool touched, const char *before)
{
    struct result r = { .kind = UNTOUCHED };

    if (touched && !x->faulted)
        r = result_of(x, e);
    if (before || r.kind == FAULT || !(e->op <= AST_VAR || constructed(e)))
        line(x, depth, before ? before : "", e, &r);
    if (r.kind == FAULT || (r.kind == VALUE && !plain(e) && !constructed(e)))
        below(x, e, depth + 1);
    if (r.kind == FAULT)
        x->faulted = true;
    return r;
}

static void branches(struct explaining *x, const struct ast *e, unsigned depth)
{
    struct result r = show(x, e->first, depth, true, NULL);

    show(x, e->first->next, depth, is_bool(&r, true), NULL);
    show(x, e->last, depth, is_bool(&r, false), NULL);
}

/* `x is T in y`: y is looked at only if x is of the type. */
static bool of_type(struct explaining *x, const struct ast *e)
{
    struct ast alone = *e;
    struct result r;

    alone.n = 1;
    alone.last = alone.first;
    r = result_of(x, &alone);
    return is_bool(&r, true);
}

/* The operands, in the order of evaluation. */
static void below(struct explaining *x, const struct ast *e, unsigned depth)
{
    bool touched = true;

    if (e->op == AST_IF) {
        branches(x, e, depth);
        return;
    }
    for (const struct ast *k = e->first; k; k = k->next) {
        struct result r = show(x, k, depth, touched, NULL);

        if (e->op == AST_AND || e->op == AST_OR)
            touched = touched && is_bool(&r, e->op == AST_AND);
        else if (e->op == AST_IS && e->n == 2 && k == e->first)
            touched = touched && r.kind == VALUE && of_type(x, e);
    }
}

/* What all of them together come to. */
static enum policy_verdict conditions(struct explaining *x, const struct ast_policy *p)
{
    bool holds = true;

    for (const struct ast_condition *c = p->conditions; c; c = c->next) {
        struct result r = show(x, c->expr, 1, holds, c->unless ? "unless " : "when ");

        if (r.kind == VALUE && r.value.kind != POLICY_BOOL)
            x->faulted = true;          /* no boolean */
        holds = holds && is_bool(&r, !c->unless);
    }
    return x->faulted ? POLICY_IS_ERROR : holds ? POLICY_IS_TRUE : POLICY_IS_FALSE;
}

/* --- heads -------------------------------------------------------------------------------------------------------- */

static bool head(struct explaining *x, const struct ast_policy *p, bool only_faults)
{
    const struct {
        const char *name;
        const struct ast_scope *scope;
        const struct policy_uid *uid;
        const struct policy_entity *entity;
    } parts[] = {
        { "principal", &p->principal, x->request->principal, x->eval.principal },
        { "action", &p->action, x->request->action, x->eval.action },
        { "resource", &p->resource, x->request->resource, x->eval.resource },
    };
    bool all = true;

    for (size_t i = 0; i < ARRAY_LEN(parts); i++) {
        bool matches = scope_matches(parts[i].scope, parts[i].uid, parts[i].entity);

        all &= matches;
        if (parts[i].scope->kind == SCOPE_ANY || (only_faults && matches))
            continue;
        buf_addf(x->out, "%*s", INDENT, "");
        ast_scope_write(x->out, parts[i].name, parts[i].scope);
        buf_add_z(x->out, matches ? "  ->  yes, it is " : "  ->  no, it is ");
        policy_uid_write(x->out, parts[i].uid);
        buf_add_c(x->out, '\n');
    }
    return all;
}

static bool head_matches(struct explaining *x, const struct ast_policy *p)
{
    struct buf *out = x->out, nowhere = BUF_INIT(1 << 20);
    bool matches;

    x->out = &nowhere;
    matches = head(x, p, true);
    buf_release(&nowhere);
    x->out = out;
    return matches;
}

/* --- policies ----------------------------------------------------------------------------------------------------- */

/* Quoted as in Cedar, so that no name can look like a line of its own. */
static void write_id(struct explaining *x, const char *before, struct str id)
{
    struct policy_value v = policy_string(id);

    buf_add_z(x->out, before);
    policy_value_write(x->out, &v);
}

static void title(struct explaining *x, size_t number)
{
    struct policy_info p = policy_set_info(x->set, number);

    write_id(x, p.forbid ? "\nforbid " : "\npermit ", p.id);
    if (p.template.len)
        write_id(x, ", a link of ", p.template);
    if (p.file.len && p.line)
        buf_addf(x->out, "  %.*s:%u:%u", STR_ARG(p.file), p.line, p.column);
    buf_add_c(x->out, '\n');
}

/* What deciding makes of it, which must be what its expressions came to one by one. */
static void verdict(struct explaining *x, size_t number, enum policy_verdict expected)
{
    const struct program_policy *p = &x->set->policies[number];
    enum policy_verdict v;

    x->eval.set = x->set;
    v = eval_policy(&x->eval, p);
    x->full |= x->eval.out_of_memory;
    ASSERT(x->full || v == expected);
    buf_addf(x->out, "%*s=> ", INDENT, "");
    if (v == POLICY_IS_TRUE)
        buf_add_z(x->out, p->forbid ? "forbids\n" : p->approval ? "permits, with an approval\n" : "permits\n");
    else if (v == POLICY_IS_FALSE)
        buf_add_z(x->out, "does not apply\n");
    else
        buf_addf(x->out, "fails, %s: %s, at %u:%u\n",
            p->forbid && x->flags & POLICY_EXPLAIN_FAILED_FORBIDS ? "which refuses, as it forbids" : "and is skipped",
            policy_fault_text(x->eval.fault), x->set->places[x->eval.fault_at].line,
            x->set->places[x->eval.fault_at].column);
}

static void decided(struct explaining *x, const struct policy_decision *d)
{
    static const char *const names[] = { [POLICY_DENY] = "DENY", [POLICY_ALLOW] = "ALLOW",
        [POLICY_NEEDS_APPROVAL] = "ALLOW, once a person has approved" };

    if (x->flags & POLICY_EXPLAIN_FAILED_FORBIDS && d->effect != POLICY_DENY && d->n_forbid_errors) {
        buf_addf(x->out, "DENY\n%u %s to evaluate, which refuses what else would be permitted\n",
            d->n_forbid_errors, d->n_forbid_errors == 1 ? "forbid failed" : "forbids failed");
        return;
    }
    buf_addf(x->out, "%s\n", names[d->effect]);
    if (d->n_reasons == 0)
        buf_add_z(x->out, "no policy permits it (default deny)\n");
    for (uint32_t i = 0; i < d->n_reasons && i < POLICY_NAMED_MAX; i++)
        write_id(x, i ? ", " : "decided by ", policy_set_info(x->set, d->reasons[i]).id);
    if (d->n_reasons > POLICY_NAMED_MAX)
        buf_addf(x->out, " and %u more", d->n_reasons - POLICY_NAMED_MAX);
    buf_add_z(x->out, d->n_reasons ? "\n" : "");
}

static void begin(struct explaining *x)
{
    const struct policy_request *r = x->request;

    x->eval = (struct eval){ .request = r, .principal = policy_layer_find(r->entities, r->principal),
        .action = policy_layer_find(r->entities, r->action), .resource = policy_layer_find(r->entities, r->resource) };
    x->eval.vars[VAR_PRINCIPAL] = policy_entity_value(r->principal);
    x->eval.vars[VAR_ACTION] = policy_entity_value(r->action);
    x->eval.vars[VAR_RESOURCE] = policy_entity_value(r->resource);
    x->eval.vars[VAR_CONTEXT] = r->context;
}

enum err policy_explain(const struct policy_set *set, const struct policy_request *request, unsigned flags,
    struct buf *out)
{
    struct explaining x = { .set = set, .request = request, .flags = flags, .out = out };
    struct policy_decision d;
    size_t others = 0;
    enum err e = policy_decide(set, request, &d);

    if (e)
        return e;
    begin(&x);
    decided(&x, &d);
    for (size_t i = 0; i < set->n_policies && !x.full; i++) {
        const struct ast_policy *p = set->names[i].ast;
        bool matches = head_matches(&x, p);

        others += !matches;
        if (!matches && !(flags & POLICY_EXPLAIN_ALL))
            continue;
        title(&x, i);
        head(&x, p, !matches);
        if (!matches)
            continue;
        x.shown = 0;
        x.faulted = false;
        verdict(&x, i, conditions(&x, p));
    }
    if (others && !(flags & POLICY_EXPLAIN_ALL))
        buf_addf(out, "\n%zu more %s this request: another principal, action or resource\n", others,
            others == 1 ? "policy is not about" : "policies are not about");
    return x.full || out->overflow ? E_CALL_TOO_LARGE : OK;
}
