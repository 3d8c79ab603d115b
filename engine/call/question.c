/*
 * question.c -- entities and context of a question, made once for all sides
 *
 * The sides differ in their principal, in context.side and in context.delegation; everything else is shared.
 */
#include "call/question.h"

#include "base/check.h"

const char *effect_name(enum effect e)
{
    switch (e) {
    case EFFECT_READS:      return "reads";
    case EFFECT_WRITES:     return "writes";
    case EFFECT_DESTROYS:   return "destroys";
    }
    UNREACHABLE();
}

struct question_side question_side(const struct question *q, unsigned i)
{
    ASSERT(i < question_sides(q));
    if (i == 0)
        return (struct question_side){ "user", "User", q->user };
    return (struct question_side){ i == 1 ? "agent" : "delegate", "Agent", q->actors[i - 1].name };
}

static struct policy_type type_user = { .name = { "User", 4 } }, type_agent = { .name = { "Agent", 5 } },
                          type_tenant = { .name = { "Tenant", 6 } }, type_group = { .name = { "Group", 5 } };

/* ---- what the operator says -------------------------------------------------------------------------------------- */

enum counting { COUNTS_NOT, COUNTS_IN_PART, COUNTS };

static inline bool is_tenant(const struct policy_uid *uid, const struct policy_uid *tenant)
{
    return uid->type_hash == tenant->type_hash && policy_text_eq(uid->type, tenant->type);
}

/* An entry that is in tenants counts in those. Where this is one of several, not all that it is in is this one's. */
static enum counting counting(const struct policy_entity *e, const struct policy_uid *tenant)
{
    bool here = false, elsewhere = false;

    for (uint32_t i = 0; i < e->n_ancestors; i++) {
        const struct policy_uid *up = e->ancestors[i].uid;

        if (!is_tenant(up, tenant))
            continue;
        if (policy_uid_eq(up, tenant))
            here = true;
        else
            elsewhere = true;
    }
    return !elsewhere ? COUNTS : here ? COUNTS_IN_PART : COUNTS_NOT;
}

/* Adds what the entry is in by its own words, but for other tenants and what is there already. Answers how many are. */
static uint32_t add_above(struct policy_ancestor *v, uint32_t n, const struct policy_entity *e,
                          const struct policy_uid *tenant)
{
    size_t n_parents;
    const struct policy_uid *parents = policy_entities_parents(e, &n_parents);

    for (size_t i = 0; i < n_parents; i++) {
        const struct policy_uid *up = &parents[i];
        uint32_t k = 0;

        if (is_tenant(up, tenant) && !policy_uid_eq(up, tenant))
            continue;
        while (k < n && !policy_uid_eq(v[k].uid, up))
            k++;
        if (k == n)
            v[n++] = (struct policy_ancestor){ up->hash, up };
    }
    return n;
}

/* The entry as this tenant sees it: in what entries say that count here. NULL: memory is out. */
static NOINLINE const struct policy_entity *part_of(const struct asked *x, struct arena *a,
                                                    const struct policy_entity *e)
{
    struct policy_ancestor *v = arena_alloc(a, e->n_ancestors * sizeof(*v));
    struct policy_entity *part = arena_alloc(a, sizeof(*part));
    uint32_t n;

    if (!v || !part)
        return NULL;
    n = add_above(v, 0, e, &x->tenant);
    for (uint32_t i = 0; i < n; i++) {
        const struct policy_entity *up = policy_entities_find(x->layer.base, v[i].uid);

        if (up && counting(up, &x->tenant) != COUNTS_NOT)
            n = add_above(v, n, up, &x->tenant);
    }
    *part = *e;
    part->ancestors = v;                    /* in no order: what is made of it sorts */
    part->n_ancestors = n;
    return part;
}

static NOINLINE const struct policy_entity *known_to(const struct asked *x, struct arena *a,
                                                     const struct policy_uid *uid)
{
    const struct policy_entity *e = policy_entities_find(x->layer.base, uid);
    enum counting c = e ? counting(e, &x->tenant) : COUNTS_NOT;

    if (c == COUNTS_IN_PART)
        return part_of(x, a, e);
    return c == COUNTS ? e : NULL;
}

/* What the operator says of an entity in this tenant. NULL: nothing; or memory is out, which question_ask() sees. */
static inline const struct policy_entity *known(const struct asked *x, struct arena *a, const struct policy_uid *uid)
{
    return x->layer.base ? known_to(x, a, uid) : NULL;
}

/* ---- entities ---------------------------------------------------------------------------------------------------- */

/* The tenant, the first of the layer. Mostly nobody says more of it: then what is in it is in nothing else. */
static enum err add_tenant(struct asked *x, struct arena *a)
{
    static const struct policy_entity nothing_known;
    const struct policy_entity *k = known(x, a, &x->tenant);

    if (k)
        return policy_layer_merge(&x->layer, a, &x->tenant, k, NULL, 0);
    x->above = (struct policy_ancestor){ x->tenant.hash, &x->tenant };
    x->in_tenant = (struct policy_entity){ .ancestors = &x->above, .n_ancestors = 1 };
    x->plain = &x->in_tenant;
    return policy_layer_like(&x->layer, a, &x->tenant, &nothing_known);
}

/* An entity in the tenant and, where the operator knows it, in what he says. */
static enum err add(struct asked *x, struct arena *a, const struct policy_uid *uid)
{
    const struct policy_above above = { &x->tenant, x->layer.items[0] };
    const struct policy_entity *k;
    enum err e;

    if (policy_layer_own(&x->layer, uid))
        return OK;                      /* an agent that acts twice; a resource that is the tenant, or the agent */
    k = known(x, a, uid);
    if (!k && x->plain)
        return policy_layer_like(&x->layer, a, uid, x->plain);
    e = policy_layer_merge(&x->layer, a, uid, k, &above, 1);
    if (!e && !k)
        x->plain = x->layer.items[x->layer.n - 1];
    return e;
}

/* A user of groups. */
static NOINLINE enum err add_member(const struct question *q, struct arena *a, struct asked *x)
{
    struct policy_above *above = arena_alloc(a, (1 + q->n_groups) * sizeof(*above));
    struct policy_uid *groups = arena_alloc(a, q->n_groups * sizeof(*groups)), *user = &x->principals[0];

    if (!above || !groups)
        return E_CALL_TOO_LARGE;
    above[0] = (struct policy_above){ &x->tenant, x->layer.items[0] };
    for (unsigned i = 0; i < q->n_groups; i++) {
        groups[i] = policy_uid_typed(&type_group, q->groups[i], 0);
        above[1 + i] = (struct policy_above){ &groups[i], known(x, a, &groups[i]) };
    }
    return policy_layer_merge(&x->layer, a, user, known(x, a, user), above, 1 + q->n_groups);
}

static enum err add_entities(const struct question *q, struct arena *a, struct asked *x)
{
    enum err e = add_tenant(x, a);

    if (!e)
        e = policy_layer_take(&x->layer, q->action);
    if (!e)
        e = q->n_groups ? add_member(q, a, x) : add(x, a, &x->principals[0]);
    for (unsigned i = 1; i < x->n && !e; i++)
        e = add(x, a, &x->principals[i]);
    if (!e && q->resource_id.p)
        e = add(x, a, &x->resource);
    return e;
}

enum err question_action(const struct policy_entities *base, struct arena *a, struct str name, struct str group,
                         enum effect effect, struct policy_entity *ret)
{
    struct policy_uid *uids = ARENA_ARRAY(a, struct policy_uid, 3);
    const struct policy_entity *known[3] = { 0 };
    struct policy_layer *l = ARENA_NEW(a, struct policy_layer);
    unsigned n = effect ? 3 : 2;
    enum err e;

    if (!uids || !l)
        return E_CALL_TOO_LARGE;
    uids[0] = policy_uid(STR("Action"), name);
    uids[1] = policy_uid(STR("Action"), group);
    if (effect)
        uids[2] = policy_uid(STR("Action"), str_of(effect_name(effect)));
    for (unsigned i = 0; base && i < n; i++)
        known[i] = policy_entities_find(base, &uids[i]);
    policy_layer_init(l, base);
    e = policy_layer_merge(l, a, &uids[0], known[0],
                           (struct policy_above[]){ { &uids[1], known[1] }, { &uids[2], known[2] } }, n - 1);
    if (!e)
        *ret = *l->items[0];
    return e;
}

/* ---- delegations ------------------------------------------------------------------------------------------------- */

bool delegation_covers(const struct vault_delegation *d, const struct policy_entity *action)
{
    if (!d || d->n_actions == 0)
        return d != NULL;
    for (unsigned i = 0; i < d->n_actions; i++) {
        if (str_eq(d->actions[i], action->uid.id))
            return true;
        for (uint32_t k = 0; k < action->n_ancestors; k++)
            if (str_eq(d->actions[i], action->ancestors[k].uid->id) && str_is(action->ancestors[k].uid->type, "Action"))
                return true;
    }
    return false;
}

static struct policy_value strings(struct arena *a, const struct str *s, unsigned n)
{
    struct policy_value *v = n ? ARENA_ARRAY(a, struct policy_value, n) : NULL;

    if (!v && n)
        return (struct policy_value){ 0 };
    for (unsigned i = 0; i < n; i++)
        v[i] = policy_string(s[i]);
    return policy_set_of(v, n);
}

static NOINLINE struct policy_value delegation_value(const struct question *q, struct arena *a,
                                                     const struct vault_delegation *d)
{
    struct policy_attr *at = ARENA_ARRAY(a, struct policy_attr, 4);
    size_t n = 0;

    if (!at)
        return (struct policy_value){ 0 };
    at[n++] = (struct policy_attr){ STR("since"), policy_datetime(d->since) };
    at[n++] = (struct policy_attr){ STR("covers"), policy_bool(delegation_covers(d, q->action)) };
    at[n++] = (struct policy_attr){ STR("actions"), strings(a, d->actions, d->n_actions) };
    if (d->expires != INT64_MAX)
        at[n++] = (struct policy_attr){ STR("expires"), policy_datetime(d->expires) };
    return policy_record_of(at, n);
}

/* ---- context ----------------------------------------------------------------------------------------------------- */

/* In the order of records: shorter names first, then by bytes. DELEGATION is last, because it may be missing. */
enum { ARGS, AUTH, SIDE, TIME, USER, ACTOR, AGENT, SCOPES, TENANT, DELEGATOR, DELEGATION, CONTEXT_MAX };

/* All but the side and the delegation. */
static void shared_context(const struct question *q, struct arena *a, const struct asked *x,
                           struct policy_attr at[CONTEXT_MAX])
{
    struct str agent = q->actors[0].name;

    at[ARGS] = (struct policy_attr){ STR("args"), q->args };
    at[AUTH] = (struct policy_attr){ STR("auth"), policy_string(q->auth) };
    at[SIDE] = (struct policy_attr){ STR("side"), policy_string(STR("")) };
    at[TIME] = (struct policy_attr){ STR("time"), q->time < 0 ? policy_unknown() : policy_datetime(q->time) };
    at[USER] = (struct policy_attr){ STR("user"), policy_string(q->user) };
    at[ACTOR] = (struct policy_attr){ STR("actor"), policy_entity_value(&x->principals[1]) };
    at[AGENT] = (struct policy_attr){ STR("agent"), policy_string(agent) };
    at[SCOPES] = (struct policy_attr){ STR("scopes"), strings(a, q->scopes, q->n_scopes) };
    at[TENANT] = (struct policy_attr){ STR("tenant"), policy_string(q->tenant) };
    at[DELEGATOR] = (struct policy_attr){ STR("delegator"), policy_entity_value(&x->principals[0]) };
}

/* What all sides ask alike. */
static struct policy_request shared_request(const struct question *q, struct arena *a, const struct asked *x)
{
    return (struct policy_request){ .action = &q->action->uid,
                                    .resource = &x->resource,
                                    .entities = &x->layer,
                                    .scratch = a,
                                    .resource_unknown = !q->resource_id.p,
                                    .resource_type = q->resource_type };
}

/* The first one, the user's, makes what the others copy. */
static enum err ask_side(const struct question *q, struct arena *a, struct asked *x, unsigned i)
{
    struct policy_attr *at = arena_alloc(a, CONTEXT_MAX * sizeof(*at));
    const struct vault_delegation *d = q->delegations ? q->delegations[i ? i - 1 : 0] : NULL;
    struct policy_request *r = &x->requests[i];

    if (!at)
        return E_CALL_TOO_LARGE;
    if (i == 0) {
        shared_context(q, a, x, at);
        *r = shared_request(q, a, x);
    } else {
        memcpy(at, x->requests[0].context.u.attrs, DELEGATION * sizeof(*at));
        *r = x->requests[0];
    }
    r->principal = &x->principals[i];
    r->context = (struct policy_value){ .kind = POLICY_RECORD, .len = DELEGATION, .u.attrs = at };
    at[SIDE].value = policy_string(str_of(question_side(q, i).name));
    if (d)
        at[r->context.len++] = (struct policy_attr){ STR("delegation"), delegation_value(q, a, d) };
    if (q->time < 0 || q->args.flags & POLICY_PARTIAL)
        r->context.flags = POLICY_PARTIAL;
    return OK;
}

enum err question_ask(const struct question *q, const struct policy_entities *base, struct arena *a,
                      struct asked *x)
{
    enum err e;

    ASSERT(q->n_actors >= 1 && q->n_actors <= CALLER_ACTORS_MAX);
    x->n = question_sides(q);
    x->tenant = policy_uid_typed(&type_tenant, q->tenant, q->tenant_hash);
    x->resource = policy_uid_known(q->resource_type, q->resource_type_hash, q->resource_id,
                                   str_eq(q->resource_id, q->user) ? q->user_hash : 0);    /* as mailboxes often are */
    x->principals[0] = policy_uid_typed(&type_user, q->user, q->user_hash);
    for (unsigned i = 1; i < x->n; i++)
        x->principals[i] = policy_uid_typed(&type_agent, q->actors[i - 1].name, i == 1 ? q->agent_hash : 0);
    policy_layer_init(&x->layer, base);
    x->plain = NULL;
    e = add_entities(q, a, x);
    for (unsigned i = 0; i < x->n && !e; i++)
        e = ask_side(q, a, x, i);
    return !e && arena_overflowed(a) ? E_CALL_TOO_LARGE : e;
}

/* ---- the answer -------------------------------------------------------------------------------------------------- */

_Static_assert((int)DECIDED_DENY == POLICY_DENY && (int)DECIDED_ALLOW == POLICY_ALLOW
               && (int)DECIDED_NEEDS_APPROVAL == POLICY_NEEDS_APPROVAL, "a side's effect has the same names");

const char *decided_name(enum decided d)
{
    static const char *const decided_names[] = { "deny", "allow", "needs_approval" };

    return decided_names[d];
}

/* Cedar skips a forbid that fails to evaluate; who names the arguments can make one fail, so here that refuses. */
bool side_refuses(const struct policy_decision *d)
{
    return d->effect == POLICY_DENY || d->n_forbid_errors > 0;
}

enum decided side_decided(const struct policy_decision *d)
{
    return side_refuses(d) ? DECIDED_DENY : (enum decided)d->effect;
}

bool question_delegated(const struct question *q, unsigned actor)
{
    return delegation_covers(q->delegations ? q->delegations[actor] : NULL, q->action);
}

enum decided question_decided(const struct question *q, const struct policy_decision *sides, bool delegated)
{
    enum decided d = DECIDED_ALLOW;

    for (unsigned i = 0; i < question_sides(q); i++) {
        enum decided side = side_decided(&sides[i]);

        if (side == DECIDED_DENY)
            return side;
        if (side == DECIDED_NEEDS_APPROVAL)
            d = side;
    }
    for (unsigned i = 0; delegated && i < q->n_actors; i++)
        if (!question_delegated(q, i))
            return DECIDED_DENY;
    return d;
}
