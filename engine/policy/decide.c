/*
 * decide.c -- a request through the index, the heads and the conditions to a decision
 *
 * Every policy whose head matches is evaluated, also after a forbid was found: the decision names all that decided and
 * all that failed, in an order that depends on the set alone.  That of the walk is the index's and differs from process
 * to process, so what is named is sorted as it is found: the first few are the same everywhere.
 */
#include "policy/program.h"

#include "base/check.h"

enum match { NO, MAYBE, YES };

enum { PENDING_MAX = 32, KEYS_MAX = 16 };

struct walk {
    struct eval eval;
    const struct scope_index *index;
    uint64_t keys[DIM_COUNT];                   /* index_bit() of what the request is, and is in */
    struct policy_uid resource_type;            /* of a resource that is not known */
    struct policy_decision *decision;           /* NULL in policy_could_allow */
    uint32_t n_plain;                           /* permits that hold and need no approval */
    uint32_t n_free;                            /* ... and have no budget either */
    bool could_permit, must_forbid;
    uint32_t n_pending;
    const struct index_entry **pending;         /* reached, and still to be weighed: at most PENDING_MAX */
};

const char *policy_fault_text(enum policy_fault fault)
{
    switch (fault) {
    case POLICY_FAULT_NONE:
        return "none";
    case POLICY_FAULT_TYPE:
        return "an operand has another type than the operation takes";
    case POLICY_FAULT_OVERFLOW:
        return "the result does not fit 64 bits";
    case POLICY_FAULT_NO_ENTITY:
        return "the entity does not exist";
    case POLICY_FAULT_NO_ATTR:
        return "the attribute does not exist";
    case POLICY_FAULT_NO_TAG:
        return "the tag does not exist";
    case POLICY_FAULT_ARITY:
        return "wrong number of arguments";
    case POLICY_FAULT_FORMAT:
        return "the text is not in the form the function takes";
    }
    UNREACHABLE();
}

/* --- heads ------------------------------------------------------------------------------------------------------ */

static bool type_is(const struct policy_uid *uid, const struct policy_uid *type)
{
    return uid->type_hash == type->type_hash && policy_text_eq(uid->type, type->type);
}

/* `type` is the one of IS_IN. */
static enum match match_constraint(enum scope_kind kind, const struct scope *s, const struct policy_uid *const *type,
    const struct policy_uid *uid, const struct policy_entity *entity)
{
    switch (kind) {
    case SCOPE_ANY:
        return YES;
    case SCOPE_EQ:
        return uid->hash == s->hash && policy_uid_eq(uid, s->uid) ? YES : NO;
    case SCOPE_IN:
        return eval_in_hash(uid, entity, s->uid, s->hash) ? YES : NO;
    case SCOPE_IS:
        return uid->type_hash == s->hash && type_is(uid, s->uid) ? YES : NO;
    case SCOPE_IS_IN:
        return eval_in_hash(uid, entity, s->uid, s->hash) && type_is(uid, *type) ? YES : NO;
    }
    UNREACHABLE();
}

/* Most heads leave something open. */
static inline enum match match_scope(enum scope_kind kind, const struct scope *s, const struct policy_uid *const *type,
    const struct policy_uid *uid, const struct policy_entity *entity)
{
    return kind == SCOPE_ANY ? YES : match_constraint(kind, s, type, uid, entity);
}

/* A resource of which at most the type is known. */
static NOINLINE enum match match_unknown(enum scope_kind kind, const struct scope *s,
    const struct policy_uid *const *is_in, const struct policy_uid *type)
{
    if (kind == SCOPE_ANY)
        return YES;
    if (type->type.len == 0)
        return MAYBE;
    switch (kind) {
    case SCOPE_EQ:
        return policy_text_eq(s->uid->type, type->type) ? MAYBE : NO;
    case SCOPE_IS:
        return type_is(type, s->uid) ? YES : NO;
    case SCOPE_IS_IN:
        return type_is(type, *is_in) ? MAYBE : NO;
    default:
        return MAYBE;
    }
}

static enum match match_action(const struct walk *w, const struct program_policy *p, uint32_t via)
{
    const struct policy_uid *action = w->eval.request->action;

    if (p->kind[DIM_ACTION] == SCOPE_ANY)
        return YES;
    for (uint32_t i = 0; i < p->n_actions; i++) {
        bool hit = p->kind[DIM_ACTION] == SCOPE_EQ ? policy_uid_eq(action, &p->actions[i])
            : eval_in(action, w->eval.action, &p->actions[i]);

        if (hit)
            return via == INDEX_NONE || via == i ? YES : NO;
    }
    return NO;
}

static enum match match_head(const struct walk *w, const struct program_policy *p, uint32_t via)
{
    const struct policy_request *r = w->eval.request;
    const struct policy_uid *const *types = w->eval.set->types;
    enum scope_kind resource = (enum scope_kind)p->kind[DIM_RESOURCE];

    if (match_scope((enum scope_kind)p->kind[DIM_PRINCIPAL], &p->principal, &types[p->principal_type], r->principal,
            w->eval.principal) == NO || match_action(w, p, via) == NO)
        return NO;
    if (r->resource_unknown)
        return match_unknown(resource, &p->resource, &types[p->resource_type], &w->resource_type);
    return match_scope(resource, &p->resource, &types[p->resource_type], r->resource, w->eval.resource);
}

/* --- one policy --------------------------------------------------------------------------------------------------- */

/* The `max` lowest of n numbers so far are kept, ascending, whatever order they come in: here comes one more. */
static inline void keep_lowest(uint32_t *v, uint32_t n, uint32_t max, uint32_t number)
{
    uint32_t j = n < max ? n : max - 1;

    if (n >= max && v[j] < number)
        return;
    for (; j > 0 && v[j - 1] > number; j--)
        v[j] = v[j - 1];
    v[j] = number;
}

/* A permit that holds and needs no approval. */
static void note_plain(struct walk *w, uint32_t number, const struct program_policy *p)
{
    struct policy_decision *d = w->decision;

    w->n_plain++;
    if (!p->budget) {
        w->n_free++;
        return;
    }
    keep_lowest(d->budgets, d->n_budgets++, POLICY_BUDGETS_MAX, number);
}

/* A forbid that failed refuses the call and must be named, however many permits failed before it. */
static bool error_before(const struct policy_set *set, uint32_t a, uint32_t b)
{
    bool forbid = set->policies[a].forbid;

    return forbid != set->policies[b].forbid ? forbid : a < b;
}

static NOINLINE void note_error(struct walk *w, uint32_t number, const struct program_policy *p)
{
    struct policy_decision *d = w->decision;
    const struct place *at = &w->eval.set->places[w->eval.fault_at];
    uint32_t j = d->n_errors++;

    d->n_forbid_errors += p->forbid;
    if (j >= POLICY_NAMED_MAX) {
        j = POLICY_NAMED_MAX - 1;
        if (error_before(w->eval.set, d->errors[j].policy, number))
            return;
    }
    for (; j > 0 && error_before(w->eval.set, number, d->errors[j - 1].policy); j--)
        d->errors[j] = d->errors[j - 1];
    d->errors[j] = (struct policy_error){ number, w->eval.fault, at->line, at->column };
}

static void note_reason(struct walk *w, uint32_t number, const struct program_policy *p)
{
    struct policy_decision *d = w->decision;

    if (p->forbid != (d->effect == POLICY_DENY)) {
        /* The first forbid takes the place of the permits gathered so far; permits after it do not count. */
        if (!p->forbid)
            return;
        d->effect = POLICY_DENY;
        d->n_reasons = 0;
        d->n_budgets = 0;
    }
    keep_lowest(d->reasons, d->n_reasons++, POLICY_NAMED_MAX, number);
    if (!p->forbid && !p->approval)
        note_plain(w, number, p);
}

static void weigh(struct walk *w, const struct index_entry *entry)
{
    const struct program_policy *p = &w->eval.set->policies[entry->policy];
    enum match head = match_head(w, p, entry->via);
    enum policy_verdict v;

    if (head == NO)
        return;
    v = eval_policy(&w->eval, p);
    if (w->eval.request->observe)
        w->eval.request->observe(w->eval.request->observe_arg, entry->policy, (int)v);
    if (!w->decision) {
        if (p->forbid)
            w->must_forbid |= head == YES && v == POLICY_IS_TRUE;
        else
            w->could_permit |= v == POLICY_IS_TRUE || v == POLICY_IS_UNKNOWN;
        return;
    }
    ASSERT(v != POLICY_IS_UNKNOWN);
    if (v == POLICY_IS_ERROR)
        note_error(w, entry->policy, p);
    else if (v == POLICY_IS_TRUE)
        note_reason(w, entry->policy, p);
}

/* --- the walk ----------------------------------------------------------------------------------------------------- */

static void visit_node(struct walk *w, uint32_t at);

/* Whether the head may match: no keys of the request are out of the question. */
static bool may_match(const struct walk *w, const struct index_entry *e)
{
    return w->keys[DIM_PRINCIPAL] >> e->bit[DIM_PRINCIPAL] & w->keys[DIM_ACTION] >> e->bit[DIM_ACTION]
        & w->keys[DIM_RESOURCE] >> e->bit[DIM_RESOURCE] & 1;
}

/* All are fetched before the first is looked at: with thousands of policies each is a cache miss. */
static void weigh_pending(struct walk *w)
{
    for (uint32_t i = 0; i < w->n_pending; i++) {
        __builtin_prefetch(&w->eval.set->policies[w->pending[i]->policy]);
        __builtin_prefetch(&w->eval.set->code[w->pending[i]->code]);
    }
    for (uint32_t i = 0; i < w->n_pending; i++)
        weigh(w, w->pending[i]);
    w->n_pending = 0;
}

/* Which one may match differs from request to request: here and in visit_keys() nothing branches on it. */
static NOINLINE void visit_leaf(struct walk *w, uint32_t at)
{
    for (const struct index_entry *e = &w->index->entries[at & ~INDEX_LEAF];; e++) {
        w->pending[w->n_pending] = e;
        w->n_pending += may_match(w, e);
        if (w->n_pending == PENDING_MAX)
            weigh_pending(w);
        if (e->last)
            break;
    }
}

static inline void visit(struct walk *w, uint32_t child)
{
    if (!(child & INDEX_LEAF))
        visit_node(w, child);
    else if (child != INDEX_NONE)
        visit_leaf(w, child);
}

static void visit_keys(struct walk *w, uint32_t at, const struct policy_uid *uid, const struct policy_entity *entity)
{
    UNSET uint64_t keys[KEYS_MAX];
    UNSET uint32_t children[KEYS_MAX];
    uint32_t total = 2 + (entity ? entity->n_ancestors : 0);

    for (uint32_t i = 0; i < total;) {
        uint32_t n = 0, found = 0;

        for (uint32_t end = i + KEYS_MAX; i < total && i < end; i++) {
            keys[n] = i == 0 ? uid->hash : i == 1 ? uid->type_hash : entity->ancestors[i - 2].hash;
            n += index_may_have(w->index, at, keys[n]);
        }
        for (uint32_t k = 0; k < n; k++) {
            uint32_t child = index_child(w->index, at, keys[k]);

            if (child == INDEX_NONE)
                continue;
            __builtin_prefetch(child & INDEX_LEAF ? (const void *)&w->index->entries[child & ~INDEX_LEAF]
                : &w->index->nodes[child]);
            children[found++] = child;
        }
        for (uint32_t k = 0; k < found; k++)
            visit(w, children[k]);
    }
}

static void visit_all(struct walk *w, const struct index_node *node)
{
    for (uint32_t i = 0; i < node->n; i++)
        visit(w, w->index->kids[node->first + i].child);
}

/* By the value of an attribute. Where it is missing the policies fail, or are false if they ask for it first. */
static void visit_value(struct walk *w, uint32_t at)
{
    const struct index_node *node = &w->index->nodes[at];
    const struct index_path *path = &w->index->paths[node->dim - DIM_COUNT];
    struct policy_value v;
    uint64_t key;
    uint8_t step;

    switch (eval_path(&w->eval, path, &v, &step)) {
    case PATH_FOUND:
        if (index_value_key(&v, &key) && node->bloom >> index_bit(key) & 1)
            visit(w, index_child(w->index, at, key));
        break;
    case PATH_MISSING:
        if (step >= path->guarded)
            visit_all(w, node);
        break;
    case PATH_UNKNOWN:
        visit_all(w, node);
    }
}

/* Recursion: at most a node per dimension. */
static void visit_node(struct walk *w, uint32_t at)
{
    const struct policy_request *r = w->eval.request;
    const struct index_node *node = &w->index->nodes[at];

    visit(w, node->any);
    if (node->dim >= DIM_COUNT)
        visit_value(w, at);
    else if (node->dim == DIM_RESOURCE && r->resource_unknown)
        visit_all(w, node);
    else if (!(node->bloom & w->keys[node->dim]))
        return;
    else if (node->dim == DIM_PRINCIPAL)
        visit_keys(w, at, r->principal, w->eval.principal);
    else if (node->dim == DIM_ACTION)
        visit_keys(w, at, r->action, w->eval.action);
    else
        visit_keys(w, at, r->resource, w->eval.resource);
}

static uint64_t keys_of(const struct policy_uid *uid, const struct policy_entity *entity)
{
    uint64_t keys = 1ull << INDEX_OPEN | 1ull << index_bit(uid->hash) | 1ull << index_bit(uid->type_hash);

    for (uint32_t i = 0; entity && i < entity->n_ancestors; i++)
        keys |= 1ull << index_bit(entity->ancestors[i].hash);
    return keys;
}

/* Who asks, with which context: what the sides of a call differ in. */
static void start_side(struct walk *w, const struct policy_request *r)
{
    w->eval.request = r;
    w->eval.principal = policy_layer_find(r->entities, r->principal);
    w->keys[DIM_PRINCIPAL] = keys_of(r->principal, w->eval.principal);
    w->eval.vars[VAR_PRINCIPAL] = policy_entity_value(r->principal);
    w->eval.vars[VAR_CONTEXT] = r->context;
}

/* What is asked for. */
static void start(struct walk *w, const struct policy_set *set, const struct policy_request *r)
{
    w->index = &set->index;
    w->eval.set = set;
    w->eval.action = policy_layer_find(r->entities, r->action);
    w->eval.resource = r->resource_unknown ? NULL : policy_layer_find(r->entities, r->resource);
    w->keys[DIM_ACTION] = keys_of(r->action, w->eval.action);
    w->keys[DIM_RESOURCE] = r->resource_unknown ? UINT64_MAX : keys_of(r->resource, w->eval.resource);
    w->eval.vars[VAR_ACTION] = policy_entity_value(r->action);
    w->eval.vars[VAR_RESOURCE] = r->resource_unknown ? policy_unknown() : policy_entity_value(r->resource);
    if (r->resource_unknown && r->resource_type.len) {
        w->resource_type = policy_uid(r->resource_type, STR(""));
        w->eval.vars[VAR_RESOURCE].u.uid = &w->resource_type;
    }
}

/* Whose approval is enough, in the order of the permits. */
static NOINLINE void find_roles(const struct policy_set *set, struct policy_decision *d)
{
    for (uint32_t i = 0; i < d->n_reasons && i < POLICY_NAMED_MAX && d->n_roles < POLICY_ROLES_MAX; i++) {
        struct str role = set->names[d->reasons[i]].role;
        uint32_t k = 0;

        while (k < d->n_roles && !str_eq(d->roles[k], role))
            k++;
        if (k == d->n_roles)
            d->roles[d->n_roles++] = role;
    }
}

static enum err decide_side(struct walk *w, const struct policy_request *request, struct policy_decision *ret)
{
    ASSERT(!request->resource_unknown && !(request->context.flags & POLICY_PARTIAL));
    if (request->context.kind != POLICY_RECORD)
        return E_CALL_TOO_LARGE;
    start_side(w, request);
    w->decision = ret;
    w->n_plain = w->n_free = 0;
    ret->effect = POLICY_ALLOW;             /* until a forbid holds; "no permit" is seen at the end */
    ret->n_reasons = ret->n_errors = ret->n_forbid_errors = ret->n_roles = ret->n_budgets = 0;
    visit(w, w->index->root);
    weigh_pending(w);
    if (w->eval.out_of_memory)
        return E_CALL_TOO_LARGE;
    if (ret->n_reasons == 0)
        ret->effect = POLICY_DENY;
    else if (ret->effect == POLICY_ALLOW && w->n_plain == 0)
        ret->effect = POLICY_NEEDS_APPROVAL;
    if (ret->effect == POLICY_NEEDS_APPROVAL)
        find_roles(w->eval.set, ret);
    if (w->n_free || ret->effect != POLICY_ALLOW)
        ret->n_budgets = 0;
    return OK;
}

enum err policy_decide_sides(const struct policy_set *set, const struct policy_request *requests, size_t n,
    struct policy_decision *ret, size_t *ret_n)
{
    UNSET const struct index_entry *pending[PENDING_MAX];
    struct walk w = { .pending = pending };
    enum err e = OK;

    MAGIC_CHECK(set, POLICY_SET_MAGIC);
    *ret_n = 0;
    if (n)
        start(&w, set, &requests[0]);
    for (size_t i = 0; i < n && !e; i++) {
        ASSERT(requests[i].action == requests[0].action && requests[i].resource == requests[0].resource
            && requests[i].entities == requests[0].entities);
        e = decide_side(&w, &requests[i], &ret[i]);
        *ret_n += !e;
    }
    return e;
}

enum err policy_decide(const struct policy_set *set, const struct policy_request *request, struct policy_decision *ret)
{
    size_t n;

    return policy_decide_sides(set, request, 1, ret, &n);
}

bool policy_could_allow(const struct policy_set *set, const struct policy_request *request)
{
    UNSET const struct index_entry *pending[PENDING_MAX];
    struct walk w = { .pending = pending };

    MAGIC_CHECK(set, POLICY_SET_MAGIC);
    start(&w, set, request);
    start_side(&w, request);
    visit(&w, w.index->root);
    weigh_pending(&w);
    return w.eval.out_of_memory || request->context.kind == POLICY_NONE || (w.could_permit && !w.must_forbid);
}
