/*
 * accounts.c -- /v1/: connecting a user's accounts, listing and forgetting them
 *
 * Whoever asks is identified like an MCP client and touches only accounts of that tenant and user, if policy lets the
 * user, the agent and every delegation do so: Action::"accounts.list", "accounts.connect", "accounts.put" and
 * "accounts.disconnect", on the account as tools will name it (Mailbox::"<label>").  They are in Action::"accounts" and
 * in no group of effects: an agent that may read and write may not, by that alone, replace the account it acts on.  No
 * answer ever holds a token.
 */
#include "admin/internal.h"
#include "base/check.h"
#include "vault/vault.h"

enum { TIMEOUT_S = 20 };

static struct str label_of(struct call *c, const struct turn *t)
{
    struct str label = json_str(json_get(t->body, "label"));

    return label.len ? label : c->caller->user;
}

/* The account's provider, and whether policy lets this caller do `name` with the account called `label` there. */
static enum err provider_of(struct call *c, struct str provider, struct str label, const char *name,
                            const struct provider_conf **ret)
{
    *ret = registry_provider(c->registry, provider);
    if (!*ret || (*ret)->decl->no_account)
        return call_why(c, E_RPC_PARAMS, "provider: \"%.*s\" is no provider of this engine",
                        STR_ARG(provider.len > 64 ? str_n(provider.p, 64) : provider));
    return call_decide_action(c, STR("accounts"), str_of(name), 0,
                              str_of((*ret)->decl->resource ? (*ret)->decl->resource : "Account"), label);
}

enum err await_accounts_list(struct call *c, struct turn *t)
{
    struct json *list = json_array(&c->arena);
    struct vault_account *accounts;
    size_t n;
    enum err e = call_decide_action(c, STR("accounts"), STR("list"), 0, STR("Tenant"), c->caller->tenant);

    if (!e)
        e = vault_accounts(c->worker->engine->vault, c->caller->tenant, c->caller->user, &c->arena, &accounts, &n);
    if (e)
        return e;
    for (size_t i = 0; i < n; i++) {
        struct json *one = json_object(&c->arena);
        char created[25];

        wall_format(accounts[i].created, created);
        json_set_str(&c->arena, one, "id", accounts[i].id);
        json_set_str(&c->arena, one, "provider", accounts[i].provider);
        json_set_str(&c->arena, one, "label", accounts[i].label);
        json_set_str(&c->arena, one, "scopes", accounts[i].scopes);
        json_set_z(&c->arena, one, "status",
                   accounts[i].status == ACCOUNT_CONNECTED ? "connected" : "reconnect_needed");
        json_set_z(&c->arena, one, "created", created);
        json_push(&c->arena, list, one);
    }
    t->json = json_object(&c->arena);
    json_set(&c->arena, t->json, "accounts", list);
    return OK;
}

enum err await_accounts_connect(struct call *c, struct turn *t)
{
    const struct provider_conf *p;
    struct str url, state, label = label_of(c, t);
    struct change ch;
    enum err e = provider_of(c, json_str(json_get(t->body, "provider")), label, "connect", &p);

    if (!e && (p->vault.authorize_url.len == 0 || p->vault.client_id.len == 0))
        e = call_why(c, E_RPC_PARAMS,
                     "provider %s has no OAuth client configured: set providers.%s.client_id, or bring a token",
                     p->decl->name, p->decl->name);
    if (e)
        return e;
    ch = change_of(c, "connect_begin", "provider", str_of(p->decl->name));
    e = await_change_begin(&ch);
    if (!e)
        e = await_vault_connect_begin(c->worker->engine->vault, &p->vault, c->caller->tenant, c->caller->user, label,
                                      connect_redirect_uri(c, t), &c->arena, &url, &state, call_info(c));
    change_end(&ch, e);
    if (e)
        return e;
    t->json = json_object(&c->arena);
    json_set_str(&c->arena, t->json, "url", connect_start_url(c, t, state, url));
    return OK;
}

enum err await_accounts_put(struct call *c, struct turn *t)
{
    struct str token = json_str(json_get(t->body, "token")), id = STR_NULL;
    struct vault_static s = { .tenant = c->caller->tenant, .user = c->caller->user, .label = label_of(c, t),
                              .external_id = json_str(json_get(t->body, "external_id")) };
    const struct provider_conf *p;
    struct secret *secret;
    struct change ch;
    enum err e = provider_of(c, json_str(json_get(t->body, "provider")), s.label, "put", &p);

    if (!e && token.len == 0)
        e = call_why(c, E_RPC_PARAMS, "token: missing");
    if (e)
        return e;
    s.provider = str_of(p->decl->name);
    secret = secret_copy(token.p, token.len);
    if (!secret)
        return call_why(c, E_RPC_PARAMS, "token: longer than a token may be");
    s.token = secret;
    ch = change_of(c, "account_put", "provider", s.provider);
    e = await_change_begin(&ch);
    if (!e)
        e = await_vault_account_put(c->worker->engine->vault, &s, &c->arena, &id, call_info(c));
    secret_release(secret);
    change_str(&ch, "account", id);
    change_end(&ch, e);
    if (e)
        return e;
    t->json = json_object(&c->arena);
    json_set_str(&c->arena, t->json, "id", id);
    return OK;
}

static enum err await_disconnect(struct call *c, struct turn *t, const struct vault_account *account)
{
    const struct provider_conf *p;
    bool revoked = false;
    struct change ch;
    enum err e = E_ACCOUNT_MISSING;             /* somebody else's and none at all look the same */

    if (str_eq(account->user, c->caller->user))
        e = provider_of(c, account->provider, account->label, "disconnect", &p);
    if (e)
        return e;
    ch = change_of(c, "disconnect", "provider", account->provider);
    change_str(&ch, "account", t->rest);
    e = await_change_begin(&ch);
    if (!e)
        e = await_vault_disconnect(c->worker->engine->vault, c->caller->tenant, t->rest, &p->vault,
                                   loop_now() + TIMEOUT_S * NS_PER_S, &revoked, call_info(c));
    change_end(&ch, e);
    if (e)
        return e;
    t->json = json_object(&c->arena);
    json_set_bool(&c->arena, t->json, "revoked_at_provider", revoked);
    return OK;
}

enum err await_accounts_disconnect(struct call *c, struct turn *t)
{
    struct vault_account account;
    enum err e = vault_account_get(c->worker->engine->vault, c->caller->tenant, t->rest, &c->arena, &account);

    if (e)
        return e;
    e = await_disconnect(c, t, &account);
    vault_account_release(&account);
    return e;
}
