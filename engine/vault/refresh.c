/*
 * refresh.c -- loading a grant and refreshing it: one task per grant at a time, whoever waits
 *
 * The order that makes P4 and P9 hold (each line durable before the next begins):
 *
 *   announce    the store marks "the refresh token of generation n is about to be sent"     store_refresh_begin
 *   send        POST to the token endpoint
 *   keep        new tokens sealed and stored as n + 1, the mark cleared, if n is still there   store_grant_swap
 *   publish     calls get the new access token                                              slot_publish
 *
 * A crash after "announce" leaves the mark.  So does a lost answer.  Whoever finds the mark does not know whether
 * the refresh token was used:
 *
 *   the provider rotates not, or keeps old ones valid     send again
 *   single use, within the provider's grace               send again (that is what the grace is for)
 *   single use otherwise                                  never again: the access token is used up to its end, then the
 *                                                         user must reconnect
 *
 * The mark is taken back when the answer, or the way the sending failed, says that nothing was done; but not that of a
 * single-use token of which an earlier sending was lost: nobody has said what became of that one.  Tokens that arrived
 * but cannot be stored are held in memory and stored first thing in the next attempt; they are not used before.
 */
#include "vault/internal.h"

#include "base/crypto.h"
#include "base/log.h"
#include "base/metric.h"
#include "loop/task.h"

#include <stdlib.h>

enum { REPLY_MAX = 64 * 1024, KEEP_TRIES = 3 };

struct refresh {
    struct vault *v;
    struct vault_slot *s;               /* with a reference */
    struct vault_provider *p;           /* a copy */
    bool early;
    bool loaded;

    /* the grant as the store has it */
    struct arena arena;
    struct store_grant stored;
    struct grant grant;

    /* for the store's part, on a helper thread */
    enum { DO_LOAD, DO_BEGIN, DO_UNDO, DO_SWAP, DO_DEAD } what;
    bool again, done;
    wall_ms_t now;
    struct str sealed;
    wall_ms_t obtained, expires;
    uint64_t from;

    wall_ms_t since;                    /* when the refresh token first left */
    bool in_doubt;                      /* it has left, and nobody knows what came of it */
    unsigned label;
    struct errinfo info;
};

/* ---- the store's part -------------------------------------------------------------------------------------------- */

struct store_step {
    struct refresh *r;
    enum err e;
};

static enum err do_load(struct refresh *r)
{
    struct vault_slot *s = r->s;
    enum err e = vault_tenant_load(r->v, s->tenant, &r->info);

    arena_clear(&r->arena);
    return e ? e : store_grant_get(r->v->store, s->tenant, s->id, &r->arena, &r->stored, &r->info);
}

static void step(void *arg)
{
    struct store_step *st = arg;
    struct refresh *r = st->r;
    struct store *store = r->v->store;
    struct vault_slot *s = r->s;
    struct store_grant g = { .sealed = r->sealed, .obtained = r->obtained, .expires = r->expires };

    switch (r->what) {
    case DO_LOAD:
        st->e = do_load(r);
        break;
    case DO_BEGIN:
        st->e = store_refresh_begin(store, s->tenant, s->id, r->stored.generation, r->now, r->again, &r->done,
            &r->info);
        break;
    case DO_UNDO:
        st->e = store_refresh_undo(store, s->tenant, s->id, r->stored.generation, &r->info);
        break;
    case DO_SWAP:
        st->e = store_grant_swap(store, s->tenant, s->id, r->from, &g, &r->done, &r->info);
        break;
    case DO_DEAD:
        st->e = store_account_dead(store, s->tenant, s->id, r->stored.generation, &r->info);
        break;
    }
}

static enum err await_store(struct refresh *r, int what)
{
    struct store_step st = { r, OK };

    r->what = what;
    await_blocking(step, &st);
    return st.e;
}

static void crash_point(const struct refresh *r, const char *where)
{
    if (r->v->crash_point)
        r->v->crash_point(where);
}

/* ---- the ends of an attempt -------------------------------------------------------------------------------------- */

static bool single_use(const struct refresh *r)
{
    return r->p->rotation == VAULT_ROTATES_ONCE;
}

/* Later: 1, 2, 4 ... 300 s, a quarter of it random, or as long as the provider asks. */
static void back_off(struct refresh *r, enum err e, int64_t least_s)
{
    struct vault_slot *s = r->s;
    ns_t wait = NS_PER_S << (s->failures < 9 ? s->failures : 9);
    uint32_t dice;

    crypto_random(&dice, sizeof(dice));
    if (wait > BACKOFF_MAX)
        wait = BACKOFF_MAX;
    wait += wait / 4 * (int64_t)(dice % 1000) / 1000;
    if (e == E_UPSTREAM_AUTH && wait < CLIENT_PAUSE)
        wait = CLIENT_PAUSE;
    if (least_s > 0 && wait < least_s * NS_PER_S)
        wait = (least_s < 3600 ? least_s : 3600) * NS_PER_S;
    pthread_mutex_lock(slot_lock(r->v, s));
    if (s->failures < 255)
        s->failures++;
    s->failure = e;
    s->retry_after = loop_now() + wait;
    pthread_mutex_unlock(slot_lock(r->v, s));
}

/* Nothing was done with the refresh token by this sending, or it does not matter. The mark of one that works once stays
 * if a lost sending may have used it. */
static void await_undo(struct refresh *r)
{
    struct errinfo kept = r->info;

    if (r->in_doubt && single_use(r)) {
        pthread_mutex_lock(slot_lock(r->v, r->s));
        r->s->lost = true;
        pthread_mutex_unlock(slot_lock(r->v, r->s));
    } else if (await_store(r, DO_UNDO)) {
        /* This process knows; only if it ends now is the mark believed. */
        pthread_mutex_lock(slot_lock(r->v, r->s));
        r->s->mark_void = r->stored.generation;
        pthread_mutex_unlock(slot_lock(r->v, r->s));
    }
    r->info = kept;
}

static enum err await_dead(struct refresh *r, const char *why)
{
    struct vault_slot *s = r->s;

    LOG_WARN("an account must be connected again", LOG_SV("tenant", s->tenant), LOG_SV("account", s->id),
        LOG_SV("provider", s->provider), LOG_S("why", why));
    pthread_mutex_lock(slot_lock(r->v, s));
    if (s->generation == r->stored.generation)          /* the user may have connected again meanwhile */
        s->status = ACCOUNT_RECONNECT_NEEDED;
    pthread_mutex_unlock(slot_lock(r->v, s));
    if (await_store(r, DO_DEAD))
        LOG_WARN("its state could not be stored", LOG_SV("account", s->id), LOG_S("why", r->info.text));
    r->label = r->v->label_dead;
    return err_set(&r->info, E_RECONNECT_NEEDED, "%s", why);
}

static enum err later(struct refresh *r, enum err e, unsigned label, int64_t least_s)
{
    r->label = label;
    back_off(r, e, least_s);
    LOG_WARN("a token could not be refreshed", LOG_SV("tenant", r->s->tenant), LOG_SV("account", r->s->id),
        LOG_SV("provider", r->s->provider), LOG_S("error", err_name(e)), LOG_S("why", r->info.text));
    return e;
}

/* ---- keeping what came ------------------------------------------------------------------------------------------- */

/* Puts tokens that could not be stored aside. Takes the bytes. */
static void put_aside(struct refresh *r, struct buf *sealed, struct buf *access, bool refreshable)
{
    struct unsaved *u = calloc(1, sizeof(*u));

    ASSERT(u);
    *u = (struct unsaved){ .from = r->from, .obtained = r->obtained, .expires = r->expires,
        .refreshable = refreshable };
    u->sealed = buf_take(sealed, &u->len);
    u->access = buf_take(access, &u->access_len);
    pthread_mutex_lock(slot_lock(r->v, r->s));
    ASSERT(!r->s->unsaved);
    r->s->unsaved = u;
    pthread_mutex_unlock(slot_lock(r->v, r->s));
}

static enum err await_swap(struct refresh *r)
{
    enum err e = E_STORE_UNAVAILABLE;

    for (int i = 0; i < KEEP_TRIES && e; i++) {
        if (i)
            (void)await_sleep(loop_now() + 100 * NS_PER_MS);
        e = await_store(r, DO_SWAP);
    }
    return e;
}

/* The new grant is in the store (done), or another one is. */
static void publish(struct refresh *r, bool refreshable, char *access, size_t access_len)
{
    pthread_mutex_lock(slot_lock(r->v, r->s));
    slot_publish(r->s, r->from + 1, r->obtained, r->expires, refreshable, access, access_len, loop_now());
    pthread_mutex_unlock(slot_lock(r->v, r->s));
}

static enum err await_load(struct refresh *r);

static enum err await_keep(struct refresh *r, const struct grant *g)
{
    struct buf sealed = BUF_INIT(SEALED_MAX), access = BUF_INIT(SEALED_MAX);
    struct vault_slot *s = r->s;
    enum err e = grant_seal(r->v, s->tenant, s->id, g, &sealed);
    size_t len;
    char *bytes;

    if (!e)
        e = access_seal(r->v, s->tenant, s->id, g->access, &access);
    if (e) {                            /* the tenant's key was destroyed under our hands,
        or no memory: the mark stays */
        err_set(&r->info, E_STORE_UNAVAILABLE, "new tokens could not be sealed (%s)", err_name(e));
        later(r, E_STORE_UNAVAILABLE, r->v->label_lost, 0);
    } else {
        r->sealed = buf_str(&sealed);
        r->obtained = g->obtained;
        r->expires = g->expires;
        r->from = r->stored.generation;
        e = await_swap(r);
        if (e) {
            put_aside(r, &sealed, &access, g->refresh != NULL);
            later(r, E_STORE_UNAVAILABLE, r->v->label_unsaved, 0);
        } else if (r->done) {
            crash_point(r, "stored");
            bytes = buf_take(&access, &len);
            publish(r, g->refresh != NULL, bytes, len);
            r->label = r->v->label_ok;
        } else {
            r->label = r->v->label_conflict;
            e = await_load(r);          /* connected again, or another process: what the store has is the truth */
        }
    }
    buf_release(&sealed);
    buf_release(&access);
    return e;
}

/* First thing: what an earlier attempt could not store. */
static enum err await_store_unsaved(struct refresh *r)
{
    struct vault_slot *s = r->s;
    struct unsaved *u;
    enum err e;

    pthread_mutex_lock(slot_lock(r->v, s));
    u = s->unsaved;
    s->unsaved = NULL;
    pthread_mutex_unlock(slot_lock(r->v, s));
    if (!u)
        return OK;
    r->sealed = str_n(u->sealed, u->len);
    r->obtained = u->obtained;
    r->expires = u->expires;
    r->from = u->from;
    e = await_swap(r);
    if (e) {
        pthread_mutex_lock(slot_lock(r->v, s));
        s->unsaved = u;
        pthread_mutex_unlock(slot_lock(r->v, s));
        return later(r, E_STORE_UNAVAILABLE, r->v->label_unsaved, 0);
    }
    if (r->done) {
        publish(r, u->refreshable, u->access, u->access_len);
        u->access = NULL;
    }
    free(u->access);
    free(u->sealed);
    free(u);
    return OK;
}

/* ---- loading ----------------------------------------------------------------------------------------------------- */

/* Reads the grant; a cold slot, or one that the store is ahead of, gets its access token. */
static enum err await_load(struct refresh *r)
{
    struct buf access = BUF_INIT(SEALED_MAX);
    struct vault_slot *s = r->s;
    size_t len;
    char *bytes;
    enum err e = await_store(r, DO_LOAD);

    if (e == E_NOT_FOUND)
        return err_set(&r->info, E_ACCOUNT_MISSING, "the account has been disconnected");
    if (e)
        return later(r, E_STORE_UNAVAILABLE, r->v->label_transient, 0);
    grant_release(&r->grant);
    e = grant_open(r->v, s->tenant, s->id, r->stored.sealed, &r->grant);
    if (!e)
        e = access_seal(r->v, s->tenant, s->id, r->grant.access, &access);
    if (e) {
        buf_release(&access);
        err_set(&r->info, E_STORE_UNAVAILABLE, "the account's stored grant does not open (%s)", err_name(e));
        return later(r, E_STORE_UNAVAILABLE, r->v->label_transient, 0);
    }
    bytes = buf_take(&access, &len);
    pthread_mutex_lock(slot_lock(r->v, s));
    slot_publish(s, r->stored.generation, r->stored.obtained, r->stored.expires, r->grant.refresh != NULL, bytes, len,
        loop_now());
    s->lost = r->stored.refreshing != 0 && s->mark_void != r->stored.generation;
    pthread_mutex_unlock(slot_lock(r->v, s));
    return OK;
}

/* ---- refreshing -------------------------------------------------------------------------------------------------- */

static enum oauth_verdict await_exchange(struct refresh *r, struct oauth_answer *answer, int64_t *ret_retry_after)
{
    struct vault_post post = {
        .tenant = r->s->tenant, .provider = r->p->name, .url = r->p->token_url,
        .deadline = loop_now() + r->v->refresh_timeout,
    };
    struct vault_reply reply = { .retry_after_s = -1, .body = BUF_INIT(REPLY_MAX) };
    struct form form = { .n = 0 };
    enum err e;

    *answer = (struct oauth_answer){ .expires_in_s = -1 };
    form_add(&form, STR("grant_type"), STR("refresh_token"));
    form_add_secret(&form, STR("refresh_token"), r->grant.refresh);
    form_finish(&form, r->p, &post);
    e = form.overflow ? err_set(&r->info, E_CONNECTOR_FAULT, "too many token parameters")
        : r->v->http.await_post(r->v->http.ctx, &post, &reply, &r->info);
    *ret_retry_after = reply.retry_after_s;
    if (!e)
        return oauth_read(&reply, answer);
    if (reply.body.p)
        bytes_wipe(reply.body.p, reply.body.len);
    buf_release(&reply.body);
    return oauth_unsent(e) ? OAUTH_LATER : OAUTH_LOST;
}

/* May a refresh token that was announced at `since` be sent again? */
static bool may_send_again(const struct refresh *r, wall_ms_t since, wall_ms_t now)
{
    if (!single_use(r))
        return true;
    return r->p->replay_grace > 0 && now - since >= 0 && now - since < r->p->replay_grace / NS_PER_MS;
}

static enum err await_tokens(struct refresh *r, struct oauth_answer *answer)
{
    wall_ms_t now = loop_wall_ms();
    struct grant g = {
        .access = answer->access, .refresh = answer->refresh, .obtained = now,
        .expires = oauth_expiry(r->p, answer->expires_in_s, now),
    };

    if (!g.refresh)
        g.refresh = r->grant.refresh;   /* none came: the old one stays in force (RFC 6749 6) */
    return await_keep(r, &g);
}

static enum err await_lost(struct refresh *r)
{
    r->in_doubt = true;
    await_undo(r);
    err_set(&r->info, E_UPSTREAM_DOWN, "the answer to the refresh was lost");
    return later(r, E_UPSTREAM_DOWN, r->v->label_lost, 0);
}

/* Announced. Sends, and once more when the answer is lost within the provider's grace. */
static enum err await_send(struct refresh *r)
{
    struct oauth_answer answer;
    int64_t retry_after = -1;
    enum oauth_verdict verdict = await_exchange(r, &answer, &retry_after);
    enum err e = E_INTERNAL;

    if (verdict == OAUTH_LOST && single_use(r) && may_send_again(r, r->since, loop_wall_ms())) {
        r->in_doubt = true;
        verdict = await_exchange(r, &answer, &retry_after);
    }
    crash_point(r, "answered");
    switch (verdict) {
    case OAUTH_TOKENS:
        e = await_tokens(r, &answer);
        break;
    case OAUTH_DEAD:
        e = await_dead(r, "the provider says the account's grant is no longer valid");
        break;
    case OAUTH_CLIENT:
        await_undo(r);
        err_set(&r->info, E_UPSTREAM_AUTH, "the provider does not accept this engine's OAuth client: %s", answer.error);
        e = later(r, E_UPSTREAM_AUTH, r->v->label_client, retry_after);
        break;
    case OAUTH_LATER:
        await_undo(r);
        err_set(&r->info, E_UPSTREAM_DOWN, "the provider's token endpoint does not refresh now: %s", answer.error);
        e = later(r, E_UPSTREAM_DOWN, r->v->label_transient, retry_after);
        break;
    case OAUTH_LOST:
        e = await_lost(r);
        break;
    }
    oauth_answer_release(&answer);
    return e;
}

/* What is to be done about the grant, now that it is loaded. */
static enum err await_refresh(struct refresh *r)
{
    struct vault_slot *s = r->s;
    wall_ms_t now = loop_wall_ms();
    bool needs, usable, void_mark;
    enum err e;

    pthread_mutex_lock(slot_lock(r->v, s));
    if (!r->grant.refresh && s->rejected == s->generation)
        s->rejected = 0;                /* it was held back long enough; its expiry ends it, if it has one */
    needs = slot_needs_refresh(r->v, s, now) || r->early;
    usable = slot_usable(s, now);
    void_mark = s->mark_void == r->stored.generation;
    pthread_mutex_unlock(slot_lock(r->v, s));
    if (!needs)
        return OK;
    if (!r->grant.refresh)
        return usable ? OK : await_dead(r, "the access token has expired and there is no refresh token");
    if (r->stored.refreshing && !void_mark && !may_send_again(r, r->stored.refreshing, now)) {
        if (!usable)
            return await_dead(r,
                "an earlier refresh was interrupted, and the provider's refresh tokens work only once");
        err_set(&r->info, E_UPSTREAM_DOWN,
            "an earlier refresh was interrupted; the current token is used up to its end");
        return later(r, E_UPSTREAM_DOWN, r->v->label_lost, 0);
    }
    r->now = now;
    r->again = r->stored.refreshing != 0;
    e = await_store(r, DO_BEGIN);
    if (e)
        return later(r, E_STORE_UNAVAILABLE, r->v->label_transient, 0);
    if (!r->done) {                     /* another process is at it, or has connected again */
        err_set(&r->info, E_UPSTREAM_DOWN, "the account is being refreshed by another process");
        return later(r, E_UPSTREAM_DOWN, r->v->label_conflict, 0);
    }
    pthread_mutex_lock(slot_lock(r->v, s));
    s->mark_void = 0;                   /* from here on the mark means what it says */
    pthread_mutex_unlock(slot_lock(r->v, s));
    r->in_doubt = r->stored.refreshing && !void_mark;
    r->since = r->in_doubt ? r->stored.refreshing : now;
    crash_point(r, "announced");
    return await_send(r);
}

/* ---- the task ---------------------------------------------------------------------------------------------------- */

static void refresh_free(struct refresh *r)
{
    slot_release(r->s);
    provider_free(r->p);
    grant_release(&r->grant);
    arena_release(&r->arena);
    free(r);
}

static void refresh_task(void *arg)
{
    struct refresh *r = arg;
    pthread_mutex_t *lock = slot_lock(r->v, r->s);
    enum err e;

    task_shield(+1);                    /* nobody cancels this task; should somebody try, the order above comes first */
    e = await_store_unsaved(r);
    if (!e)
        e = await_load(r);
    if (!e)
        e = await_refresh(r);
    if (r->label != UINT32_MAX)
        metric_add_at(M_REFRESHES_TOTAL, r->label, 1);
    task_shield(-1);
    pthread_mutex_lock(lock);
    flight_land(&r->s->flight, e, &r->info);
    pthread_mutex_unlock(lock);
    refresh_free(r);
}

enum err refresh_start(struct vault *v, struct vault_slot *s, const struct vault_provider *p, bool early)
{
    struct refresh *r;
    struct vault_provider *copy;

    ASSERT(!s->flight.busy);
    copy = provider_copy(p);
    if (!copy)
        return E_OVERLOADED;
    r = calloc(1, sizeof(*r));
    ASSERT(r);
    r->v = v;
    r->s = s;
    r->p = copy;
    r->early = early;
    r->label = UINT32_MAX;
    arena_init(&r->arena, 64 * 1024);
    atomic_fetch_add_explicit(&s->refs, 1, memory_order_relaxed);
    flight_lead(&s->flight);
    if (task_spawn("refresh", refresh_task, r))
        return OK;
    flight_land(&s->flight, E_OVERLOADED, NULL);
    refresh_free(r);                    /* the slot has other references: its lock is held */
    return E_OVERLOADED;
}
