/*
 * decide.c -- DECIDE: the same frozen request, once per side
 *
 * Sides are the user (on whose behalf), the agent (who acts) and every earlier actor of the delegation chain; all must
 * permit (P3), and all are asked, also after one has refused: the record names what decided on every side.  Where the
 * configuration requires it, the user must besides have recorded a delegation to each of the actors that covers the
 * tool.  question.h says what policies can speak of.
 */
#include "base/check.h"
#include "base/metric.h"
#include "call/internal.h"
#include "call/vocabulary.h"

/* What deciding and admitting take for a user, an agent and some arguments; with the arena's own, 6 KB. */
enum { DECIDING_USUAL = 6 * 1024 - 32 };

/* ---- the question ------------------------------------------------------------------------------------------------ */

static enum err recorded_delegations(struct call *c)
{
    struct vault *vault = c->worker->engine->vault;
    const struct caller *w = c->caller;

    if (!vault || !vault_delegations_any(vault))
        return OK;
    c->delegations = ARENA_ARRAY(&c->deciding, const struct vault_delegation *, w->n_actors);
    if (!c->delegations)
        return E_CALL_TOO_LARGE;
    for (unsigned i = 0; i < w->n_actors; i++) {
        enum err e = vault_delegation_find(vault, w->tenant, w->user, w->actors[i].name, c->began_wall, &c->deciding,
                                           &c->delegations[i]);

        if (e && e != E_NOT_FOUND)
            return e;
    }
    return OK;
}

enum err call_question(struct call *c, const struct policy_entity *action, struct question *q)
{
    const struct caller *w = c->caller;

    *q = (struct question){ .tenant = w->tenant, .user = w->user, .auth = str_of(caller_auth_name(w->auth)),
                            .actors = w->actors, .n_actors = w->n_actors,
                            .tenant_hash = w->tenant_hash, .user_hash = w->user_hash, .agent_hash = w->agent_hash,
                            .groups = w->groups, .n_groups = w->n_groups,
                            .scopes = w->scopes, .n_scopes = w->n_scopes,
                            .action = action, .args = policy_unknown(), .time = -1 };
    if (!c->delegations) {
        enum err e = recorded_delegations(c);

        if (e)
            return e;
    }
    q->delegations = c->delegations;
    return OK;
}

static enum err ask_about(struct call *c, struct question *q, const struct json *args, struct str type, struct str id)
{
    UNSET struct errinfo info;
    enum err e = policy_value_from_json(&c->deciding, args, POLICY_JSON_PLAIN, &q->args, &info);

    q->resource_type = type;
    q->resource_id = id.p ? id : STR("");
    q->time = c->began_wall;
    c->asked = arena_alloc(&c->deciding, sizeof(*c->asked));
    if (e == E_FORMAT)
        return call_why(c, E_ARGS_INVALID, "policies cannot read these arguments: %s", info.text);
    if (e || !c->asked)
        return e ? e : E_CALL_TOO_LARGE;
    return question_ask(q, c->registry->entities, &c->deciding, c->asked);
}

/* ---- the answer -------------------------------------------------------------------------------------------------- */

/* Who was refused, and by which policy: the model may read it, so it names policies of this tenant only. */
static enum err denied(struct call *c, struct question_side side, const struct policy_decision *d)
{
    struct policy_info p;

    if (d->effect != POLICY_DENY)
        return call_why(
            c, E_POLICY_DENIED,
            "not permitted: policy \"%.*s\" could not be evaluated on these arguments, and it is one that forbids",
            STR_ARG(policy_set_id(c->registry->policy, d->errors[0].policy)));     /* forbids are first */
    if (d->n_reasons == 0)
        return call_why(c, E_POLICY_DENIED, "not permitted: no policy lets the %s %.*s do this (default deny)",
                        side.name, STR_ARG(side.who));
    p = policy_set_info(c->registry->policy, d->reasons[0]);
    return call_why(c, E_POLICY_DENIED, "not permitted: policy \"%.*s\" forbids the %s %.*s to do this", STR_ARG(p.id),
                    side.name, STR_ARG(side.who));
}

static void count(enum err e, const struct policy_decision *d)
{
    static metric_slot_t slots[DECIDED_NEEDS_APPROVAL + 1];
    enum decided i = e ? DECIDED_DENY : side_decided(d);

    if (!metric_slot_known(&slots[i]))
        metric_slot_ask(&slots[i], M_POLICY_DECISIONS_TOTAL, str_of(decided_name(i)));
    metric_add_at(M_POLICY_DECISIONS_TOTAL, metric_slot(&slots[i]), 1);
}

static enum err decide_sides(struct call *c, const struct question *q)
{
    enum err refused = OK, e;
    size_t n;

    c->n_sides = 0;
    c->sides = arena_alloc(&c->deciding, c->asked->n * sizeof(*c->sides));     /* deciding fills what it says of them */
    if (!c->sides)
        return E_CALL_TOO_LARGE;
    e = policy_decide_sides(c->registry->policy, c->asked->requests, c->asked->n, c->sides, &n);
    for (; c->n_sides < n; c->n_sides++)
        count(OK, &c->sides[c->n_sides]);
    if (e) {
        count(e, NULL);
        return e;
    }
    for (unsigned i = 0; i < n && !refused; i++)
        if (side_refuses(&c->sides[i]))
            refused = denied(c, question_side(q, i), &c->sides[i]);
    return refused;
}

/* Where it is required: the user has delegated this to every actor of the chain. */
static enum err decide_links(struct call *c, const struct question *q)
{
    if (!c->registry->delegation_required)
        return OK;
    for (unsigned i = 0; i < q->n_actors; i++)
        if (!question_delegated(q, i))
            return call_why(c, E_POLICY_DENIED,
                            "not permitted: %.*s has recorded no delegation of %.*s to the agent %.*s "
                            "(sluice delegate records one)",
                            STR_ARG(q->user), STR_ARG(q->action->uid.id), STR_ARG(q->actors[i].name));
    return OK;
}

enum err call_decide(struct call *c)
{
    struct question q;
    enum err e;

    ASSERT(c->frozen.p != NULL && c->caller != NULL);
    arena_expect(&c->deciding, DECIDING_USUAL);
    e = call_question(c, &c->tool->action, &q);
    q.resource_type_hash = c->tool->resource_type_hash;
    if (!e)
        e = ask_about(c, &q, c->args, c->resource_type, c->resource_id);
    if (!e)
        e = decide_sides(c, &q);
    if (!e)
        e = decide_links(c, &q);
    if (c->registry->candidate && c->asked && c->n_sides == c->asked->n)
        call_shadow(c, &q);
    return e;
}

static enum err decide_action(struct call *c, struct str group, struct str name, enum effect effect, struct str type,
                              struct str id, bool linked)
{
    struct str action = arena_printf(&c->deciding, "%.*s.%.*s", STR_ARG(group), STR_ARG(name));
    struct policy_entity *entity = ARENA_NEW(&c->deciding, struct policy_entity);
    struct question q;
    enum err e;

    if (!entity || !action.p)
        return E_CALL_TOO_LARGE;
    e = question_action(c->registry->entities, &c->deciding, action, group, effect, entity);
    if (!e)
        e = call_question(c, entity, &q);
    if (!e)
        e = ask_about(c, &q, json_object(&c->deciding), type, id);
    if (!e)
        e = decide_sides(c, &q);
    if (!e && linked)
        e = decide_links(c, &q);
    for (unsigned i = 0; !e && i < c->n_sides; i++)
        if (c->sides[i].effect == POLICY_NEEDS_APPROVAL)
            e = call_why(c, E_APPROVAL_NEEDED, "policy asks for the approval of a person before this may happen");
    return e;
}

enum err call_decide_action(struct call *c, struct str group, struct str name, enum effect effect, struct str type,
                            struct str id)
{
    ASSERT(engine_action_known(group, name));
    return decide_action(c, group, name, effect, type, id, false);
}

enum err call_decide_named(struct call *c, const struct provider_conf *p, struct str name)
{
    return decide_action(c, str_of(p->decl->name), name, EFFECT_READS, STR("Tenant"), c->caller->tenant, true);
}
