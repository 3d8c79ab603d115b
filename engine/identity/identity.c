/*
 * identity.c -- the way of a token: header value, cache, issuer, signature, claims, caller
 *
 * A remembered token costs one SHA-256 and one short lock.  Otherwise the order of checks decides what a stranger
 * can learn: form, issuer, algorithm, key, signature, and only behind a good signature the claims.
 *
 * Keys from a URL are fetched by a task of their own (no caller's cancellation ends it), one at a time per issuer:
 * when a token names a key that is not known (at most every REFETCH_PAUSE), and in the background when the keys are
 * older than jwks_max_age, or from before a failure or a reload, and a token of that issuer comes, good or bad.  A
 * failed fetch keeps the old keys, and so does a reload, for KEYS_STALE_MAX at most.
 *
 * Epoch: raised after every change of keys or configuration.  It is read before keys are looked at and stored with a
 * cache entry, so an entry made from old keys is never used after the change; it is read again after a wait for keys,
 * while the configuration is still the one that the token is checked against.
 */
#include "identity/internal.h"

#include "base/crypto.h"
#include "base/log.h"
#include "base/metric.h"
#include "loop/task.h"

#include <stdlib.h>

enum { IDENTITY_MAGIC = 0x49644964, CACHE_DEFAULT = 10000 };

#define FETCH_TIMEOUT   (5 * NS_PER_S)
#define REFETCH_PAUSE   (30 * NS_PER_S)         /* between fetches that strangers can cause */
#define FAILURE_PAUSE   (5 * NS_PER_S)
#define KEYS_STALE_MAX  (24 * 3600 * NS_PER_S)

struct identity {
    uint32_t magic;
    _Atomic uint64_t epoch;
    pthread_mutex_t lock;                       /* guards `set`, the pointer; taken before an issuer's */
    struct issuer_set *set;
    struct token_cache *cache;
};

/* ---- making ------------------------------------------------------------------------------------------------------ */

enum err identity_create(const struct identity_config *config, struct identity **ret, struct errinfo *info)
{
    struct issuer_set *set;
    struct identity *id;
    enum err e = issuer_set_create(config, &set, info);

    if (e)
        return e;
    id = calloc(1, sizeof(*id));
    ASSERT(id);
    id->magic = IDENTITY_MAGIC;
    pthread_mutex_init(&id->lock, NULL);
    id->set = set;
    id->cache = cache_create(config->cache_max ? config->cache_max : CACHE_DEFAULT);
    *ret = id;
    return OK;
}

enum err identity_reload(struct identity *id, const struct identity_config *config, struct errinfo *info)
{
    struct issuer_set *set, *old;
    enum err e = issuer_set_create(config, &set, info);

    if (e)
        return e;
    pthread_mutex_lock(&id->lock);
    old = id->set;
    issuer_set_inherit(set, old);
    id->set = set;
    pthread_mutex_unlock(&id->lock);
    identity_forget(id);
    issuer_set_release(old);
    return OK;
}

void identity_destroy(struct identity *id)
{
    MAGIC_CHECK(id, IDENTITY_MAGIC);
    issuer_set_release(id->set);
    cache_destroy(id->cache);
    pthread_mutex_destroy(&id->lock);
    id->magic = 0;
    free(id);
}

struct issuer_set *identity_issuers(struct identity *id)
{
    struct issuer_set *set;

    pthread_mutex_lock(&id->lock);
    set = issuer_set_ref(id->set);
    pthread_mutex_unlock(&id->lock);
    return set;
}

void identity_forget(struct identity *id)
{
    atomic_fetch_add(&id->epoch, 1);
    cache_clear(id->cache);
}

size_t identity_cached(struct identity *id)
{
    return cache_count(id->cache);
}

/* ---- keys -------------------------------------------------------------------------------------------------------- */

struct key_fetch {
    struct identity *id;
    struct issuer_set *set;
    struct issuer *is;
};

static enum err await_key_set(struct key_fetch *f, struct jwks **ret, struct errinfo *info)
{
    struct buf text = BUF_INIT(IDENTITY_JWKS_MAX);
    enum err e = f->set->fetcher.await_get(f->set->fetcher.ctx, f->is->c.jwks_url, loop_now() + FETCH_TIMEOUT, &text,
        info);

    if (!e)
        e = jwks_parse(buf_str(&text), f->is->c.alg, ret, info);
    buf_release(&text);
    return e;
}

static void fetch_task(void *arg)
{
    struct key_fetch *f = arg;
    struct issuer *is = f->is;
    struct errinfo info = { "" };
    struct jwks *keys = NULL, *old = NULL;
    bool changed = false;
    enum err e = await_key_set(f, &keys, &info);

    if (e) {
        LOG_WARN("keys of an issuer could not be fetched", LOG_SV("issuer", is->c.issuer), LOG_S("why", info.text));
        e = err_set(&info, E_UPSTREAM_DOWN, "the issuer's keys could not be fetched");
    }
    pthread_mutex_lock(&is->lock);
    if (!e) {
        changed = !is->keys || memcmp(jwks_digest(is->keys), jwks_digest(keys), SHA256_LEN) != 0;
        old = is->keys;
        is->keys = keys;
        is->fetched_at = loop_now();
        is->version++;
    }
    is->doubtful = e != OK;
    is->fetch_after = loop_now() + (e ? FAILURE_PAUSE : REFETCH_PAUSE);
    /* Before anybody verifies with the new keys, what the old ones let in is forgotten. */
    if (changed)
        identity_forget(f->id);
    flight_land(&is->flight, e, &info);
    pthread_mutex_unlock(&is->lock);
    jwks_release(old);
    issuer_set_release(f->set);
    free(f);
}

/* Lock of `is` held, nothing under way. */
static enum err start_fetch(struct identity *id, struct issuer_set *set, struct issuer *is)
{
    struct key_fetch *f = malloc(sizeof(*f));

    ASSERT(f && !is->flight.busy);
    flight_lead(&is->flight);
    *f = (struct key_fetch){ id, issuer_set_ref(set), is };
    if (task_spawn("fetch-keys", fetch_task, f))
        return OK;
    flight_land(&is->flight, E_OVERLOADED, NULL);
    issuer_set_release(set);
    free(f);
    return E_OVERLOADED;
}

/* `seen`: the version that lacked the key. OK: there are others now, look again. */
static enum err await_keys(struct identity *id, struct issuer_set *set, struct issuer *is, uint64_t seen,
    struct errinfo *info)
{
    enum err e = OK;

    pthread_mutex_lock(&is->lock);
    if (is->version != seen) {          /* landed between the look and here */
        pthread_mutex_unlock(&is->lock);
        return OK;
    }
    if (!is->flight.busy && loop_now() < is->fetch_after) {
        e = is->doubtful ? err_set(info, E_UPSTREAM_DOWN, "the issuer's keys could not be fetched")
                         : err_set(info, E_TOKEN_UNTRUSTED, "the token's key is not one of its issuer's");
    } else if (!is->flight.busy) {
        e = start_fetch(id, set, is);
    }
    if (e) {
        pthread_mutex_unlock(&is->lock);
        return e;
    }
    return await_flight(&is->flight, &is->lock, NS_NEVER, info);
}

/* The key of a token, with a reference on the set it is in. */
static struct jwks *keys_of(struct issuer *is, ns_t mono, uint64_t *ret_version)
{
    struct jwks *keys;

    pthread_mutex_lock(&is->lock);
    keys = is->keys;
    *ret_version = is->version;
    if (!str_empty(is->c.jwks_url) && mono - is->fetched_at > KEYS_STALE_MAX)
        keys = NULL;
    if (keys)
        jwks_ref(keys);
    pthread_mutex_unlock(&is->lock);
    return keys;
}

static void refresh_when_old(struct identity *id, struct issuer_set *set, struct issuer *is)
{
    if (str_empty(is->c.jwks_url))
        return;
    pthread_mutex_lock(&is->lock);
    if (!is->flight.busy && (is->doubtful || loop_now() - is->fetched_at > set->jwks_max_age)
        && loop_now() >= is->fetch_after)
        (void)start_fetch(id, set, is);         /* no room for a task now: the next token tries again */
    pthread_mutex_unlock(&is->lock);
}

/* ---- verifying --------------------------------------------------------------------------------------------------- */

struct check {
    struct identity *id;
    struct issuer_set *set;
    struct str token;
    uint8_t digest[SHA256_LEN];
    uint64_t epoch;
    struct issuer *is;              /* found on the way, or NULL; set when E_NOT_FOUND is answered */
    uint64_t version;               /* of its keys, when they were looked at */
};

static enum err check_parsed(struct check *k, const struct jwt *t, struct arena *a, wall_ms_t now, ns_t mono,
    struct caller **ret, struct errinfo *info)
{
    static const char *const names[] = { "RS256", "ES256", "EdDSA" };
    struct str iss = json_str(json_get(t->claims, "iss"));
    struct jwks *keys;
    EVP_PKEY *key;
    enum err e;

    if (str_empty(iss))
        return err_set(info, E_TOKEN_CLAIMS, "the token's claim iss is missing or not acceptable");
    k->is = issuer_find(k->set, iss);
    if (!k->is)
        return err_set(info, E_TOKEN_UNTRUSTED, "the token's issuer is not one this server trusts");
    if (!str_is(t->alg, names[k->is->c.alg]))
        return err_set(info, E_TOKEN_ALGORITHM, "the token's alg is not %s, its issuer's", names[k->is->c.alg]);
    keys = keys_of(k->is, mono, &k->version);
    key = keys ? jwks_find(keys, t->has_kid, t->kid) : NULL;
    if (!key && !str_empty(k->is->c.jwks_url) && (t->has_kid || !keys))
        e = E_NOT_FOUND;
    else if (!key)
        e = err_set(info, E_TOKEN_UNTRUSTED, "the token's key is not one of its issuer's");
    else
        e = jwt_verify(t, k->is->c.alg, key, info);
    if (key)
        metric_add(M_TOKENS_VERIFIED_TOTAL, 1);
    jwks_release(keys);
    return e ? e : claims_to_caller(k->set, k->is, t, a, now, k->digest, ret, info);
}

static enum err parse_and_check(struct check *k, wall_ms_t now, ns_t mono, struct caller **ret, struct errinfo *info)
{
    struct arena a;
    struct jwt t;
    enum err e;

    arena_init(&a, JWT_ARENA_MAX);
    e = jwt_parse(&a, k->token, &t, info);
    if (!e)
        e = check_parsed(k, &t, &a, now, mono, ret, info);
    if (!e && arena_overflowed(&a)) {
        caller_release(*ret);
        e = err_set(info, E_TOKEN_MALFORMED, "the token is too large when unpacked");
    }
    arena_release(&a);
    if (!e)
        cache_put(k->id->cache, k->digest, k->epoch, *ret, (*ret)->expires, mono + k->set->cache_ttl);
    return e;
}

struct checking {
    struct check *k;
    wall_ms_t now;
    ns_t mono;
    struct caller **ret;
    struct errinfo *info;
    enum err err;
};

static void check_deep(void *arg)
{
    struct checking *c = arg;

    c->err = parse_and_check(c->k, c->now, c->mono, c->ret, c->info);
}

/* On the loop's stack: signatures take 5 KB of it. */
static enum err check_token(struct check *k, wall_ms_t now, ns_t mono, struct caller **ret, struct errinfo *info)
{
    struct checking c = { k, now, mono, ret, info, OK };

    task_deep(check_deep, &c);
    return c.err;
}

static void check_begin(struct check *k, struct identity *id, struct str token)
{
    *k = (struct check){ .id = id, .token = token, .epoch = atomic_load(&id->epoch) };
    sha256(token.p, token.len, k->digest);
}

/* Keys came meanwhile: what is said from now on is of a new epoch, unless a reload came too. `k->set` is then of the
 * past, and so is what it says: it may answer the call that began with it, but nobody later. */
static void check_anew(struct check *k)
{
    pthread_mutex_lock(&k->id->lock);
    if (k->id->set == k->set)
        k->epoch = atomic_load(&k->id->epoch);
    pthread_mutex_unlock(&k->id->lock);
}

/* True: *ret is the answer. */
static bool remembered(const struct check *k, struct identity *id, wall_ms_t now, ns_t mono, struct caller **ret)
{
    *ret = cache_get(id->cache, k->digest, k->epoch, now, mono);
    if (*ret)
        metric_add(M_TOKEN_CACHE_HITS_TOTAL, 1);
    return *ret != NULL;
}

enum err identity_verify(struct identity *id, struct str token, wall_ms_t now, ns_t mono, struct caller **ret,
    struct errinfo *info)
{
    struct caller *c = NULL;
    struct check k;
    enum err e = OK;

    MAGIC_CHECK(id, IDENTITY_MAGIC);
    if (token.len > IDENTITY_TOKEN_MAX)
        return err_set(info, E_TOKEN_MALFORMED, "the token is longer than %d bytes", IDENTITY_TOKEN_MAX);
    check_begin(&k, id, token);
    if (!remembered(&k, id, now, mono, &c)) {
        k.set = identity_issuers(id);
        e = check_token(&k, now, mono, &c, info);
        issuer_set_release(k.set);
    }
    if (!e)
        *ret = c;
    return e;
}

enum err identity_bearer(struct str authorization, struct str *ret_token, struct errinfo *info)
{
    struct str value = str_trim(authorization), scheme, token;

    if (str_empty(value))
        return err_set(info, E_TOKEN_MISSING, "no Authorization header");
    if (!str_cut(value, ' ', &scheme, &token))
        scheme = value, token = STR_NULL;
    if (!str_ieq(scheme, STR("Bearer")))
        return err_set(info, E_TOKEN_MISSING, "the Authorization header is not of the Bearer scheme");
    token = str_trim(token);
    if (str_empty(token))
        return err_set(info, E_TOKEN_MALFORMED, "the Authorization header has no token");
    if (token.len > IDENTITY_TOKEN_MAX)
        return err_set(info, E_TOKEN_MALFORMED, "the token is longer than %d bytes", IDENTITY_TOKEN_MAX);
    *ret_token = token;
    return OK;
}

enum err await_identify(struct identity *id, struct str authorization, struct caller **ret, struct errinfo *info)
{
    struct caller *c = NULL;
    struct str token;
    struct check k;
    enum err e;

    MAGIC_CHECK(id, IDENTITY_MAGIC);
    e = identity_bearer(authorization, &token, info);
    if (e)
        return e;
    check_begin(&k, id, token);
    cache_expect(id->cache, k.digest);
    await_ahead();
    cache_expect_entry(id->cache, k.digest);
    await_ahead();
    if (remembered(&k, id, loop_wall_ms(), loop_now(), &c)) {
        *ret = c;
        return OK;
    }
    k.set = identity_issuers(id);
    e = check_token(&k, loop_wall_ms(), loop_now(), &c, info);
    if (e == E_NOT_FOUND) {
        e = await_keys(id, k.set, k.is, k.version, info);
        check_anew(&k);
        if (!e)
            e = check_token(&k, loop_wall_ms(), loop_now(), &c, info);
        if (e == E_NOT_FOUND)
            e = err_set(info, E_TOKEN_UNTRUSTED, "the token's key is not one of its issuer's");
    }
    if (k.is)                   /* whatever was said: old keys may be why a good token is refused */
        refresh_when_old(id, k.set, k.is);
    issuer_set_release(k.set);
    if (!e)
        *ret = c;
    return e;
}
