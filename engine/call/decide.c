/*
 * decide.c -- DECIDE: the same frozen request, once per side
 *
 * Sides are the user (on whose behalf), the agent (who acts) and every earlier actor of the delegation chain; all must
 * permit (P3).  What policies can speak of:
 *
 *   principal   User::"<user>" or Agent::"<agent>", both in Tenant::"<tenant>"
 *   action      Action::"<tool>" in Action::"<provider>" and in Action::"reads", "writes" or "destroys"
 *   resource    <Type>::"<id>" in Tenant::"<tenant>", as the tool names it: Mailbox::"alice@example.com"
 *   context     args (the snapshot), user, agent, tenant, side ("user", "agent", "delegate"), auth, scopes, time
 */
#include "base/check.h"
#include "base/metric.h"
#include "call/internal.h"

struct decide_names {
    struct policy_uid tenant, action, provider, effect, resource;
    struct policy_layer layer;
};

static const char *effect_name(enum effect e)
{
    switch (e) {
    case EFFECT_READS:      return "reads";
    case EFFECT_WRITES:     return "writes";
    case EFFECT_DESTROYS:   return "destroys";
    }
    UNREACHABLE();
}

/* Entities that are the same for all sides. The layer refers to `n`, which must stay. effect 0: in no group of
 * effects. */
static enum err name_request(struct call *c, struct decide_names *n, struct str action, struct str provider,
                             enum effect effect, struct str resource_type, struct str resource_id)
{
    const struct policy_uid *above_action[] = { &n->provider, &n->effect }, *above[] = { &n->tenant };
    size_t n_above = effect ? 2 : 1;
    const struct policy_value none = { 0 };
    enum err e;

    n->tenant = policy_uid(STR("Tenant"), c->caller->tenant);
    n->action = policy_uid(STR("Action"), action);
    n->provider = policy_uid(STR("Action"), provider);
    if (effect)
        n->effect = policy_uid(STR("Action"), str_of(effect_name(effect)));
    n->resource = policy_uid(resource_type, resource_id);
    policy_layer_init(&n->layer, NULL);
    e = policy_layer_add(&n->layer, &c->arena, n->tenant, none, NULL, 0);
    if (!e)
        e = policy_layer_add(&n->layer, &c->arena, n->action, none, above_action, n_above);
    if (!e && !policy_layer_find(&n->layer, &n->resource))      /* it may be the tenant itself */
        e = policy_layer_add(&n->layer, &c->arena, n->resource, none, above, 1);
    return e;
}

static struct policy_value scopes_value(struct call *c)
{
    struct policy_value *v = ARENA_ARRAY(&c->arena, struct policy_value, c->caller->n_scopes);

    if (!v && c->caller->n_scopes)
        return (struct policy_value){ 0 };
    for (unsigned i = 0; i < c->caller->n_scopes; i++)
        v[i] = policy_string(c->caller->scopes[i]);
    return policy_set_of(v, c->caller->n_scopes);
}

/* args NULL: not known (lists). */
static enum err context_value(struct call *c, const struct json *args, const char *side, struct policy_value *ret)
{
    struct policy_attr *at = ARENA_ARRAY(&c->arena, struct policy_attr, 8);
    struct policy_value value = policy_unknown();
    struct errinfo info;
    enum err e = OK;

    if (!at)
        return E_CALL_TOO_LARGE;
    if (args)
        e = policy_value_from_json(&c->arena, args, POLICY_JSON_PLAIN, &value, &info);
    if (e)
        return e == E_FORMAT ? call_why(c, E_ARGS_INVALID, "policies cannot read these arguments: %s", info.text) : e;
    at[0] = (struct policy_attr){ STR("args"), value };
    at[1] = (struct policy_attr){ STR("user"), policy_string(c->caller->user) };
    at[2] = (struct policy_attr){ STR("agent"), policy_string(c->caller->agent) };
    at[3] = (struct policy_attr){ STR("tenant"), policy_string(c->caller->tenant) };
    at[4] = (struct policy_attr){ STR("side"), policy_string(str_of(side)) };
    at[5] = (struct policy_attr){ STR("auth"), policy_string(str_of(caller_auth_name(c->caller->auth))) };
    at[6] = (struct policy_attr){ STR("scopes"), scopes_value(c) };
    at[7] = (struct policy_attr){ STR("time"), policy_datetime(c->began_wall) };
    *ret = policy_record_of(at, 8);
    return arena_overflowed(&c->arena) ? E_CALL_TOO_LARGE : OK;
}

struct side {
    const char *name, *type;
    struct str who;
};

static struct side side_of(const struct call *c, unsigned i)
{
    if (i == 0)
        return (struct side){ "user", "User", c->caller->user };
    if (i == 1)
        return (struct side){ "agent", "Agent", c->caller->agent };
    return (struct side){ "delegate", "Agent", c->caller->actors[i - 1].name };
}

static unsigned sides_of(const struct call *c)
{
    return 1 + c->caller->n_actors;         /* actors[0] is the agent */
}

struct ask {
    struct policy_uid principal;
    struct policy_request request;
};

static enum err ask_side(struct call *c, struct decide_names *n, const struct json *args, unsigned i, struct ask *ask)
{
    const struct policy_uid *above[] = { &n->tenant };
    struct side side = side_of(c, i);
    enum err e;

    ask->principal = policy_uid(str_of(side.type), side.who);
    ask->request = (struct policy_request){ .principal = &ask->principal,
                                            .action = &n->action,
                                            .resource = &n->resource,
                                            .entities = &n->layer,
                                            .scratch = &c->arena };
    e = context_value(c, args, side.name, &ask->request.context);
    if (!e && !policy_layer_find(&n->layer, &ask->principal))
        e = policy_layer_add(&n->layer, &c->arena, ask->principal, (struct policy_value){ 0 }, above, 1);
    return e;
}

static struct str failed_forbid(struct call *c, const struct policy_decision *d)
{
    for (uint32_t i = 0; i < d->n_errors && i < POLICY_NAMED_MAX; i++) {
        struct policy_info p = policy_set_info(c->registry->policy, d->errors[i].policy);

        if (p.forbid)
            return p.id;
    }
    return STR("(unnamed)");
}

/* Who was refused, and by which policy: the model may read it, so it names policies of this tenant only. */
static enum err denied(struct call *c, unsigned i, const struct policy_decision *d)
{
    struct side side = side_of(c, i);
    struct policy_info p;

    if (d->effect != POLICY_DENY)
        return call_why(
            c, E_POLICY_DENIED,
            "not permitted: policy \"%.*s\" could not be evaluated on these arguments, and it is one that forbids",
            STR_ARG(failed_forbid(c, d)));
    if (d->n_reasons == 0)
        return call_why(c, E_POLICY_DENIED, "not permitted: no policy lets the %s %.*s do this (default deny)",
                        side.name, STR_ARG(side.who));
    p = policy_set_info(c->registry->policy, d->reasons[0]);
    return call_why(c, E_POLICY_DENIED, "not permitted: policy \"%.*s\" forbids the %s %.*s to do this", STR_ARG(p.id),
                    side.name, STR_ARG(side.who));
}

static void count_decision(unsigned effect)
{
    static const char *const names[] = { "deny", "allow", "needs_approval" };
    static metric_slot_t slots[ARRAY_LEN(names)];

    if (!metric_slot_known(&slots[effect]))
        metric_slot_ask(&slots[effect], M_POLICY_DECISIONS_TOTAL, str_of(names[effect]));
    metric_add_at(M_POLICY_DECISIONS_TOTAL, metric_slot(&slots[effect]), 1);
}

static enum err decide_all(struct call *c, struct decide_names *n, const struct json *args)
{

    c->n_sides = 0;
    c->sides = ARENA_ARRAY(&c->arena, struct policy_decision, sides_of(c));
    if (!c->sides)
        return E_CALL_TOO_LARGE;
    for (unsigned i = 0; i < sides_of(c); i++) {
        struct ask *ask = ARENA_NEW(&c->arena, struct ask);
        enum err e = ask ? ask_side(c, n, args, i, ask) : E_CALL_TOO_LARGE;

        if (!e)
            e = policy_decide(c->registry->policy, &ask->request, &c->sides[i]);
        if (e)
            return e;
        c->n_sides++;
        count_decision(c->sides[i].effect);
        /* Cedar skips a forbid that fails to evaluate; who names the arguments can make one fail, so here that
         * refuses */
        if (c->sides[i].effect == POLICY_DENY || c->sides[i].n_forbid_errors > 0)
            return denied(c, i, &c->sides[i]);
    }
    return OK;
}

enum err call_decide(struct call *c)
{
    struct decide_names *n = ARENA_NEW(&c->arena, struct decide_names);
    const struct tool *t = c->tool;
    enum err e;

    ASSERT(c->frozen.p != NULL && c->caller != NULL);
    if (!n)
        return E_CALL_TOO_LARGE;
    e = name_request(c, n, t->name, str_of(t->provider->decl->name), t->decl->effect, c->resource_type, c->resource_id);
    return e ? e : decide_all(c, n, c->args);
}

enum err call_decide_action(struct call *c, struct str group, struct str name, enum effect effect, struct str type,
                            struct str id)
{
    struct decide_names *n = ARENA_NEW(&c->arena, struct decide_names);
    struct str action = arena_printf(&c->arena, "%.*s.%.*s", STR_ARG(group), STR_ARG(name));
    enum err e;

    if (!n || !action.p)
        return E_CALL_TOO_LARGE;
    e = name_request(c, n, action, group, effect, type, id);
    if (!e)
        e = decide_all(c, n, json_object(&c->arena));
    for (unsigned i = 0; !e && i < c->n_sides; i++)
        if (c->sides[i].effect == POLICY_NEEDS_APPROVAL)
            e = call_why(c, E_APPROVAL_NEEDED, "policy asks for the approval of a person before this may happen");
    return e;
}

enum err call_decide_named(struct call *c, const struct provider_conf *p, struct str name)
{
    return call_decide_action(c, str_of(p->decl->name), name, EFFECT_READS, STR("Tenant"), c->caller->tenant);
}

bool call_could_allow(struct call *c, const struct tool *t)
{
    struct decide_names *n = ARENA_NEW(&c->arena, struct decide_names);

    if (!n || name_request(c, n, t->name, str_of(t->provider->decl->name), t->decl->effect, str_of(t->resource_type),
                           STR("")))
        return false;
    for (unsigned i = 0; i < sides_of(c); i++) {
        struct ask *ask = ARENA_NEW(&c->arena, struct ask);

        if (!ask || ask_side(c, n, NULL, i, ask))
            return false;
        ask->request.resource_unknown = true;
        ask->request.resource_type = str_of(t->resource_type);
        if (!policy_could_allow(c->registry->policy, &ask->request))
            return false;
    }
    return true;
}
