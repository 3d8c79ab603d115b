/*
 * delegations.c -- /v1/delegations: what the user lets agents do, recorded, listed and revoked
 *
 * Only the caller's own user's; policy decides each side on Agent::"<name>": Action::"delegations.record",
 * "delegations.list" (on the tenant) and "delegations.revoke", in Action::"delegations" and in no group of effects.  An
 * agent that may record delegations can give itself some: let people's tools do that, not agents.
 */
#include <stdio.h>

#include "admin/internal.h"
#include "base/check.h"
#include "vault/vault.h"

enum { DAYS_MAX = 3660 };

static enum err decide(struct call *c, const char *name, struct str type, struct str id)
{
    return call_decide_action(c, STR("delegations"), str_of(name), 0, type, id);
}

static struct json *times(struct call *c, struct json *one, const char *key, wall_ms_t t)
{
    char text[25];

    wall_format(t, text);
    json_set_z(&c->arena, one, key, text);
    return one;
}

enum err await_delegations_list(struct call *c, struct turn *t)
{
    struct json *list = json_array(&c->arena);
    struct vault_delegation *all;
    size_t n;
    enum err e = decide(c, "list", STR("Tenant"), c->caller->tenant);

    if (!e)
        e = vault_delegations(c->worker->engine->vault, c->caller->tenant, c->caller->user, &c->arena, &all, &n);
    if (e)
        return e;
    for (size_t i = 0; i < n; i++) {
        struct json *one = json_object(&c->arena), *actions = json_array(&c->arena);

        json_set_str(&c->arena, one, "id", all[i].id);
        json_set_str(&c->arena, one, "agent", all[i].agent);
        for (unsigned k = 0; k < all[i].n_actions; k++)
            json_push(&c->arena, actions, json_string_ref(&c->arena, all[i].actions[k]));
        json_set(&c->arena, one, "actions", actions);
        times(c, one, "since", all[i].since);
        if (all[i].expires != INT64_MAX)
            times(c, one, "expires", all[i].expires);
        json_set_z(&c->arena, one, "status", all[i].expires > c->began_wall ? "in force" : "ended");
        json_push(&c->arena, list, one);
    }
    t->json = json_object(&c->arena);
    json_set(&c->arena, t->json, "delegations", list);
    return OK;
}

/* Is there a tool or a group of tools of this name? A delegation of something misspelt would surprise later. */
static bool action_known(const struct registry *r, struct str name)
{
    for (size_t i = 0; i < r->n_tools; i++) {
        const struct policy_entity *a = &r->tools[i].action;

        if (str_eq(a->uid.id, name))
            return true;
        for (uint32_t k = 0; k < a->n_ancestors; k++)
            if (str_eq(a->ancestors[k].uid->id, name) && str_is(a->ancestors[k].uid->type, "Action"))
                return true;
    }
    return false;
}

static enum err read_actions(struct call *c, const struct json *list, struct vault_delegate *n)
{
    struct str *actions = ARENA_ARRAY(&c->arena, struct str, json_len(list));

    if (list && !json_is(list, JSON_ARRAY))
        return call_why(c, E_RPC_PARAMS, "actions: must be an array of names");
    if (json_len(list) > VAULT_DELEGATION_ACTIONS_MAX)      /* they are recorded before the vault looks at them */
        return call_why(c, E_RPC_PARAMS, "actions: at most %d", VAULT_DELEGATION_ACTIONS_MAX);
    if (!actions && json_len(list))
        return E_CALL_TOO_LARGE;
    for (const struct json *it = json_first(list); it; it = json_next(it)) {
        if (!action_known(c->registry, json_str(it)))
            return call_why(c, E_RPC_PARAMS, "actions: \"%.*s\" is neither a tool nor a group of tools",
                            STR_ARG(str_n(json_str(it).p, json_str(it).len > 64 ? 64 : json_str(it).len)));
        actions[n->n_actions++] = json_str(it);
    }
    n->actions = actions;
    return OK;
}

enum err await_delegations_record(struct call *c, struct turn *t)
{
    struct vault_delegate n = { .tenant = c->caller->tenant, .user = c->caller->user, .expires = INT64_MAX,
                                .agent = json_str(json_get(t->body, "agent")) };
    const struct json *seconds = json_get(t->body, "seconds");
    struct str id = STR_NULL, replaced = STR_NULL;
    struct change ch;
    int64_t s = 0;
    enum err e;

    if (!principal_valid(n.agent))
        return call_why(c, E_RPC_PARAMS, "agent: missing, or no acceptable name");
    e = decide(c, "record", STR("Agent"), n.agent);
    if (!e)
        e = read_actions(c, json_get(t->body, "actions"), &n);
    if (!e && seconds && (!json_int(seconds, &s) || s < 1 || s > DAYS_MAX * 86400LL))
        e = call_why(c, E_RPC_PARAMS, "seconds: a whole number, at most that of %d days", DAYS_MAX);
    if (e)
        return e;
    if (seconds)
        n.expires = c->began_wall + s * 1000;
    ch = change_of(c, "delegation_record", "delegate", n.agent);
    change_delegated(&ch, n.actions, n.n_actions, n.expires);
    e = await_change_begin(&ch);
    if (!e)
        e = await_vault_delegation_put(c->worker->engine->vault, &n, &c->arena, &id, &replaced, call_info(c));
    if (e == E_CONFIG)
        e = E_RPC_PARAMS;
    change_str(&ch, "delegation", id);
    if (replaced.len)
        change_str(&ch, "replaces", replaced);
    change_end(&ch, e);
    if (e)
        return e;
    t->json = json_object(&c->arena);
    json_set_str(&c->arena, t->json, "id", id);
    return OK;
}

enum err await_delegations_revoke(struct call *c, struct turn *t)
{
    struct vault *v = c->worker->engine->vault;
    struct vault_delegation d;
    struct change ch;
    enum err e = vault_delegation_get(v, c->caller->tenant, c->caller->user, t->rest, &c->arena, &d);

    if (e == E_NOT_FOUND)
        return call_why(c, E_HTTP_NOT_FOUND, "the user has recorded no such delegation");
    if (!e)
        e = decide(c, "revoke", STR("Agent"), d.agent);
    if (e)
        return e;
    ch = change_of(c, "delegation_revoke", "delegate", d.agent);
    change_delegated(&ch, d.actions, d.n_actions, d.expires);
    change_str(&ch, "delegation", t->rest);
    e = await_change_begin(&ch);
    if (!e)
        e = await_vault_delegation_delete(v, c->caller->tenant, c->caller->user, t->rest, call_info(c));
    change_end(&ch, e);
    if (e)
        return e == E_NOT_FOUND ? E_HTTP_NOT_FOUND : e;
    t->json = json_object(&c->arena);
    json_set_bool(&c->arena, t->json, "revoked", true);
    return OK;
}
