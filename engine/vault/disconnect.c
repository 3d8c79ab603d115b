/*
 * disconnect.c -- ending an account: tokens are revoked at the provider (RFC 7009), then forgotten here
 *
 * Leads the account's flight meanwhile, so that no refresh makes new tokens behind the revocation's back.  Connecting
 * again does not wait for it, and nor does another process: only the generation whose tokens were revoked is deleted.
 * The provider may be unreachable; what is ours to forget is forgotten regardless, and the caller is told.
 */
#include "vault/internal.h"

#include "base/crypto.h"
#include "base/log.h"
#include "loop/task.h"

enum { REPLY_MAX = 64 * 1024, GRANT_ARENA = 64 * 1024, ROUNDS = 3 };

struct end_job {
    struct vault *v;
    struct vault_slot *s;
    struct grant grant;
    uint64_t generation;                /* what is revoked, and alone may be deleted; 0: whatever is there */
    struct errinfo *info;
    enum err e;
};

/* The newest tokens: the store's, or those that replace them and could not be stored yet, which whoever leads the
 * flight has to itself. */
static void load_blocking(void *arg)
{
    struct end_job *j = arg;
    const struct unsaved *u = j->s->unsaved;
    struct store_grant g;
    struct arena a;

    arena_init(&a, GRANT_ARENA);
    j->e = vault_tenant_load(j->v, j->s->tenant, j->info);
    if (!j->e)
        j->e = store_grant_get(j->v->store, j->s->tenant, j->s->id, &a, &g, j->info);
    if (!j->e && u && u->from == g.generation)
        g.sealed = str_n(u->sealed, u->len);
    if (!j->e)
        j->e = grant_open(j->v, j->s->tenant, j->s->id, g.sealed, &j->grant);
    j->generation = j->e ? 0 : g.generation;
    arena_release(&a);
}

static void delete_blocking(void *arg)
{
    struct end_job *j = arg;

    pthread_mutex_lock(&j->v->accounts_lock);
    j->e = store_account_delete(j->v->store, j->s->tenant, j->s->id, j->generation, j->info);
    if (!j->e || (j->e == E_NOT_FOUND && !j->generation))
        slot_remove(j->v, j->s);
    pthread_mutex_unlock(&j->v->accounts_lock);
}

static bool await_revoke_one(struct vault *v, const struct vault_slot *s, const struct vault_provider *p,
    const struct secret *token, const char *hint, ns_t deadline)
{
    struct vault_post post = { .tenant = s->tenant, .provider = p->name, .url = p->revoke_url, .deadline = deadline };
    struct vault_reply reply = { .retry_after_s = -1, .body = BUF_INIT(REPLY_MAX) };
    struct errinfo info = { "" };
    struct form form = { .n = 0 };
    enum err e;

    form_add_secret(&form, STR("token"), token);
    form_add(&form, STR("token_type_hint"), str_of(hint));
    form_finish(&form, p, &post);
    e = form.overflow ? E_CONNECTOR_FAULT : v->http.await_post(v->http.ctx, &post, &reply, &info);
    buf_release(&reply.body);
    if (!e && reply.status >= 200 && reply.status < 300)
        return true;
    LOG_WARN("a token could not be revoked at the provider", LOG_SV("tenant", s->tenant), LOG_SV("account", s->id),
        LOG_SV("provider", s->provider), LOG_I("status", e ? 0 : reply.status), LOG_S("why", info.text));
    return false;
}

/* Revoking the refresh token ends the access tokens made from it at most providers (RFC 7009 2.1); both are told all
 * the same. */
static bool await_revoke(struct end_job *j, const struct vault_provider *p, ns_t deadline)
{
    bool done;

    await_blocking(load_blocking, j);
    if (j->e)
        return false;
    done = !j->grant.refresh || await_revoke_one(j->v, j->s, p, j->grant.refresh, "refresh_token", deadline);
    done = await_revoke_one(j->v, j->s, p, j->grant.access, "access_token", deadline) && done;
    grant_release(&j->grant);
    return done;
}

/* Revoking may take as long as the provider likes. Tokens that were stored meanwhile are revoked too, before they are
 * deleted; but whoever never stops storing some does not keep the account. */
static bool await_end(struct end_job *j, const struct vault_provider *p, ns_t deadline)
{
    bool tell = p && !str_empty(p->revoke_url), revoked = true;

    for (int i = 0; i <= ROUNDS; i++) {
        j->generation = 0;
        if (!tell || i == ROUNDS || !await_revoke(j, p, deadline))
            revoked = false;
        await_blocking(delete_blocking, j);
        if (!j->generation || j->e != E_NOT_FOUND)
            break;
    }
    return revoked;
}

/* Until nobody refreshes: then nobody can begin to. */
static enum err await_lead(struct vault *v, struct vault_slot *s, ns_t deadline, struct errinfo *info)
{
    pthread_mutex_t *lock = slot_lock(v, s);

    for (;;) {
        enum err e;

        pthread_mutex_lock(lock);
        if (flight_lead(&s->flight)) {
            pthread_mutex_unlock(lock);
            return OK;
        }
        /* releases the lock; the refresh's own result is no matter */
        e = await_flight(&s->flight, lock, deadline, info);
        if (e == E_CANCELLED || e == E_DEADLINE)
            return e;
    }
}

enum err await_vault_disconnect(struct vault *v, struct str tenant, struct str id, const struct vault_provider *p,
    ns_t deadline, bool *ret_revoked, struct errinfo *info)
{
    struct end_job j = { .v = v, .s = slot_find(v, tenant, id), .info = info };
    struct errinfo gone = { "the account has been disconnected" };
    bool revoked = false;
    enum err e;

    if (!j.s)
        return err_set(info, E_ACCOUNT_MISSING, "no such account");
    if (p && !str_eq(j.s->provider, p->name))
        e = err_set(info, E_CONFIG, "the account is of another provider");
    else
        e = await_lead(v, j.s, deadline, info);
    if (!e) {
        task_shield(+1);                /* half a disconnection helps nobody */
        revoked = await_end(&j, p, deadline);
        task_shield(-1);
        e = j.e == E_NOT_FOUND ? OK : j.e;
        pthread_mutex_lock(slot_lock(v, j.s));
        flight_land(&j.s->flight, E_ACCOUNT_MISSING, &gone);
        pthread_mutex_unlock(slot_lock(v, j.s));
    }
    slot_release(j.s);
    if (!e && ret_revoked)
        *ret_revoked = revoked;
    return e;
}
