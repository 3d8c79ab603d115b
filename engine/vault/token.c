/*
 * token.c -- grants as bytes, and tokens for calls
 *
 *   grant, before sealing (purpose "grant")     01 | len access | access | len refresh | refresh      (len: 2 bytes,
 *   big endian) access token in memory                      sealed alone (purpose "access")
 *
 * A lease opens the access token once; all leases of one generation share it; with the last one it is wiped.  A
 * lease keeps its token when the grant moves on: whoever holds the old one finishes with it, or is told 401 and
 * comes back.
 */
#include "vault/internal.h"

#include "base/ahead.h"
#include "base/crypto.h"
#include "loop/task.h"

#include <stdlib.h>

enum { GRANT_FORM = 1 };

/* ---- grants ------------------------------------------------------------------------------------------------------ */

void grant_release(struct grant *g)
{
    secret_release(g->access);
    secret_release(g->refresh);
    g->access = g->refresh = NULL;
}

static void add_token(const uint8_t *bytes, size_t n, void *arg)
{
    struct buf *out = arg;

    buf_add_c(out, (char)(n >> 8));
    buf_add_c(out, (char)(n & 0xff));
    buf_add(out, bytes, n);
}

static enum err seal_wiping(struct vault *v, struct str tenant, struct str account, struct str purpose,
    struct buf *plain,
    struct buf *out)
{
    enum err e = plain->overflow ? E_CALL_TOO_LARGE : vault_seal(v, tenant, account, purpose, buf_str(plain), out);

    if (plain->p)
        bytes_wipe(plain->p, plain->len);
    buf_release(plain);
    return e;
}

enum err grant_seal(struct vault *v, struct str tenant, struct str account, const struct grant *g, struct buf *out)
{
    struct buf plain = BUF_INIT(GRANT_MAX);

    buf_reserve(&plain, GRANT_MAX);             /* grown once: no copy of a token is left in a freed block */
    buf_add_c(&plain, GRANT_FORM);
    secret_use(g->access, add_token, &plain);
    if (g->refresh)
        secret_use(g->refresh, add_token, &plain);
    else
        buf_add(&plain, "\0\0", 2);
    return seal_wiping(v, tenant, account, STR("grant"), &plain, out);
}

static void add_bytes(const uint8_t *bytes, size_t n, void *arg)
{
    buf_add(arg, bytes, n);
}

enum err access_seal(struct vault *v, struct str tenant, struct str account, const struct secret *access,
    struct buf *out)
{
    struct buf plain = BUF_INIT(TOKEN_TEXT_MAX);

    buf_reserve(&plain, secret_len(access));
    secret_use(access, add_bytes, &plain);
    return seal_wiping(v, tenant, account, STR("access"), &plain, out);
}

/* Splits one length-prefixed token off; an empty one gives NULL. */
static bool next_token(char **p, char *end, struct secret **ret)
{
    size_t n;

    if (end - *p < 2)
        return false;
    n = (size_t)(uint8_t)(*p)[0] << 8 | (uint8_t)(*p)[1];
    *p += 2;
    if (n > (size_t)(end - *p) || n > TOKEN_TEXT_MAX)
        return false;
    *ret = n ? secret_take(*p, n) : NULL;
    *p += n;
    return !n || *ret;
}

enum err grant_open(struct vault *v, struct str tenant, struct str account, struct str sealed, struct grant *ret)
{
    struct buf plain = BUF_INIT(GRANT_MAX + 1);
    struct grant g = { 0 };
    enum err e = vault_unseal(v, tenant, account, STR("grant"), sealed, &plain);

    if (!e) {
        char *p = plain.p + 1, *end = plain.p + plain.len;

        if (plain.len < 1 || plain.p[0] != GRANT_FORM || !next_token(&p, end, &g.access) || !g.access
            || !next_token(&p, end, &g.refresh) || p != end) {
            grant_release(&g);
            e = E_TAMPERED;
        }
    }
    if (plain.p)
        bytes_wipe(plain.p, plain.len);
    buf_release(&plain);
    if (!e)
        *ret = g;
    return e;
}

/* ---- what a slot's state means ----------------------------------------------------------------------------------- */

void slot_publish(struct vault_slot *s, uint64_t generation, wall_ms_t obtained, wall_ms_t expires, bool refreshable,
    char *access, size_t access_len, ns_t now)
{
    if (s->gone || generation < s->generation || (generation == s->generation && s->access)) {
        free(access);                   /* somebody was faster with something newer */
        return;
    }
    /* generation == s->generation: a cold slot becomes warm; what it knew about this generation stays true. */
    if (generation > s->generation) {
        s->lost = false;
        s->rejected = s->mark_void = 0;
        s->published_at = now;
        s->status = ACCOUNT_CONNECTED;
    }
    free(s->access);
    s->access = access;
    s->access_len = access_len;
    s->generation = generation;
    s->obtained = obtained;
    s->expires = expires;
    s->refreshable = refreshable;
    s->failure = OK;
    s->failures = 0;
    s->retry_after = 0;
}

/* `want`, but not more than a `part`-th of a short life. */
static wall_ms_t least_ms(const struct vault_slot *s, wall_ms_t want, int part)
{
    wall_ms_t share = (s->expires - s->obtained) / part;

    return share > 0 && share < want ? share : want;
}

bool slot_usable(const struct vault_slot *s, wall_ms_t now)
{
    return s->access && s->rejected != s->generation
        && (s->expires == INT64_MAX || s->expires - now > least_ms(s, USABLE_MIN_MS, 4));
}

bool slot_needs_refresh(const struct vault *v, const struct vault_slot *s, wall_ms_t now)
{
    if (s->rejected == s->generation)
        return true;
    if (s->expires == INT64_MAX)
        return false;
    if (s->access && !s->refreshable)   /* nothing to refresh it with: used to its end */
        return !slot_usable(s, now);
    return s->expires - now <= least_ms(s, v->refresh_margin / NS_PER_MS, 2);
}

/* Worth refreshing before anybody has to wait? At 75 to 85 % of the life, a different point for each account. */
static bool wants_early_refresh(const struct vault *v, const struct vault_slot *s, wall_ms_t now)
{
    wall_ms_t life = s->expires - s->obtained;
    int64_t permille = 750 + (int64_t)(s->hash % 100);

    if (!v->early_refresh || !s->refreshable || s->lost || s->expires == INT64_MAX || s->flight.busy)
        return false;
    return life > 0 && now - s->obtained >= life / 1000 * permille && loop_now() >= s->retry_after;
}

/* ---- leases ------------------------------------------------------------------------------------------------------ */

/* Lock held. */
static enum err lease_take(struct vault *v, struct vault_slot *s, struct vault_lease *ret)
{
    struct vault_token *t = s->current;

    if (!t || t->generation != s->generation) {
        const struct sealed sealed = { s->id, STR("access"), str_n(s->access, s->access_len) };
        struct secret *secret;
        enum err e;

        if (!s->keys)
            s->keys = key_find(v, s->tenant, hash_bytes(s->tenant.p, s->tenant.len));
        e = unseal_secret(s->keys, &sealed, &secret);
        if (e)
            return e == E_TAMPERED || e == E_NOT_FOUND ? E_RECONNECT_NEEDED : e;
        t = malloc(sizeof(*t));
        ASSERT(t);
        *t = (struct vault_token){ .secret = secret, .generation = s->generation };
        s->current = t;                 /* an older one lives on in its leases */
    }
    t->leases++;
    atomic_fetch_add_explicit(&s->refs, 1, memory_order_relaxed);
    *ret = (struct vault_lease){ t->secret, t->generation, s, t };
    return OK;
}

void vault_lease_release(struct vault *v, struct vault_lease *lease)
{
    struct vault_slot *s = lease->slot;
    struct vault_token *t = lease->shared;
    pthread_mutex_t *lock;

    if (!s)
        return;
    MAGIC_CHECK(s, SLOT_MAGIC);
    lock = slot_lock(v, s);
    pthread_mutex_lock(lock);
    ASSERT(t->leases > 0);
    if (--t->leases == 0) {
        if (s->current == t)
            s->current = NULL;
    } else {
        t = NULL;
    }
    pthread_mutex_unlock(lock);
    if (t) {
        secret_release(t->secret);
        free(t);
    }
    slot_release(s);
    *lease = (struct vault_lease){ 0 };
}

void vault_lease_ahead(const struct vault_lease *lease)
{
    ahead(lease->slot, offsetof(struct vault_slot, tenant));
    ahead(lease->shared, sizeof(*lease->shared));
}

bool vault_token_rejected(struct vault *v, const struct vault_lease *lease)
{
    struct vault_slot *s = lease->slot;
    pthread_mutex_t *lock = slot_lock(v, s);
    bool again = true;

    pthread_mutex_lock(lock);
    if (s->gone) {
        again = false;
    } else if (s->generation == lease->generation && s->rejected != s->generation) {
        if (!s->refreshable) {
            /* Nothing newer will come. Held back, then tried again: one odd 401 must not end an account. */
            s->rejected = s->generation;
            s->failure = E_RECONNECT_NEEDED;
            s->retry_after = loop_now() + STATIC_PAUSE;
            again = false;
        } else if (s->published_at && loop_now() - s->published_at < REJECT_PAUSE) {
            again = false;
        } else {
            s->rejected = s->generation;
        }
    } else if (s->generation == lease->generation) {
        again = s->refreshable;
    }
    pthread_mutex_unlock(lock);
    return again;
}

/* ---- asking ------------------------------------------------------------------------------------------------------ */

static bool passing(enum err e)
{
    return e == E_UPSTREAM_DOWN || e == E_UPSTREAM_AUTH || e == E_STORE_UNAVAILABLE || e == E_OVERLOADED;
}

static const char *failure_text(enum err e)
{
    switch (e) {
    case E_RECONNECT_NEEDED:  return "the provider does not accept the account's token: the user must connect again";
    case E_UPSTREAM_AUTH:     return "the provider does not accept this engine's OAuth client";
    case E_STORE_UNAVAILABLE: return "the account's new token could not be stored";
    default:                  return "the provider's token endpoint does not answer; tried again in a while";
    }
}

/* Lock held, and released. E_TIMEOUT: the state has changed, look once more. */
static enum err await_better(struct vault *v, struct vault_slot *s, const struct vault_provider *p, ns_t deadline,
    struct vault_lease *ret, struct errinfo *info)
{
    pthread_mutex_t *lock = slot_lock(v, s);
    wall_ms_t now;
    enum err e = OK;

    if (!s->flight.busy) {
        if (s->failure && loop_now() < s->retry_after)
            e = err_set(info, s->failure, "%s", failure_text(s->failure));
        else
            e = refresh_start(v, s, p, false);
    }
    if (!e) {
        e = await_flight(&s->flight, lock, deadline, info);
        pthread_mutex_lock(lock);
    }
    /* A refresh that failed for the moment does not take a live token away. */
    now = loop_wall_ms();
    if ((!e || passing(e)) && !s->gone && s->status == ACCOUNT_CONNECTED && slot_usable(s, now)
        && (passing(e) || !slot_needs_refresh(v, s, now)))
        e = lease_take(v, s, ret);
    else if (!e)
        e = E_TIMEOUT;                  /* landed well, and yet not good: look again */
    pthread_mutex_unlock(lock);
    return e;
}

static enum err await_slot_token(struct vault *v, struct vault_slot *s, const struct vault_provider *p, ns_t deadline,
    struct vault_lease *ret, struct errinfo *info)
{
    pthread_mutex_t *lock = slot_lock(v, s);
    enum err e = E_TIMEOUT;

    for (int i = 0; i < 3 && e == E_TIMEOUT; i++) {
        wall_ms_t now = loop_wall_ms();

        pthread_mutex_lock(lock);
        if (s->gone) {
            e = err_set(info, E_ACCOUNT_MISSING, "the account has been disconnected");
        } else if (s->status != ACCOUNT_CONNECTED) {
            e = err_set(info, E_RECONNECT_NEEDED, "%s", failure_text(E_RECONNECT_NEEDED));
        } else if (!slot_usable(s, now) || slot_needs_refresh(v, s, now)) {
            e = await_better(v, s, p, deadline, ret, info);             /* releases the lock */
            continue;
        } else {
            e = lease_take(v, s, ret);
            if (!e && wants_early_refresh(v, s, now))
                (void)refresh_start(v, s, p, true);                     /* no room for a task: next time */
        }
        pthread_mutex_unlock(lock);
    }
    return e == E_TIMEOUT ? err_set(info, E_UPSTREAM_AUTH, "the provider's new tokens are refused again at once") : e;
}

enum err await_vault_token(struct vault *v, const struct vault_account *account, const struct vault_provider *p,
    ns_t deadline, struct vault_lease *ret, struct errinfo *info)
{
    struct vault_slot *s = account->slot;

    MAGIC_CHECK(v, VAULT_MAGIC);
    MAGIC_CHECK(s, SLOT_MAGIC);
    return str_eq(s->provider, p->name) ? await_slot_token(v, s, p, deadline, ret, info)
        : err_set(info, E_ACCOUNT_MISSING, "the account is of another provider");
}
