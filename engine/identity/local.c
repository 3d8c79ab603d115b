/*
 * local.c -- the engine's own issuer: Ed25519 keys and minted tokens
 *
 *   header   {"alg":"EdDSA","kid":"<first 8 bytes of SHA-256 of the public key, hex>","typ":"at+jwt"}
 *   claims   iss, sub (user), aud, tenant, client_id (agent), act {sub: agent, act: {sub: prior ...}}, iat, exp,
 *   jti, scope
 *
 * The tokens go through the same checks as anybody's.
 */
#include "identity/internal.h"

#include "base/crypto.h"
#include "base/ids.h"
#include "identity/keyfile.h"

#include <stdio.h>
#include <stdlib.h>

enum { DIR_MAX = 3900, CLAIMS_MAX = 16 * 1024, KID_LEN = 16 };

struct identity_local {
    struct secret *seed;
    uint8_t public_[ED25519_LEN];
    char kid[KID_LEN + 1];
    char *issuer;
};

static void derive_public(const uint8_t *seed, size_t n, void *arg)
{
    struct identity_local *l = arg;

    ASSERT(n == ED25519_LEN);
    ed25519_public(seed, l->public_);
}

enum err identity_local_open(const char *dir, struct str issuer, bool create, struct identity_local **ret,
    struct errinfo *info)
{
    struct identity_local *l;
    struct secret *seed;
    uint8_t digest[SHA256_LEN];
    char path[4096];
    enum err e;

    if (strlen(dir) > DIR_MAX || str_empty(issuer) || memchr(issuer.p, 0, issuer.len))
        return err_set(info, E_CONFIG, "the local issuer needs a directory and a name");
    snprintf(path, sizeof(path), "%s/issuer.key", dir);
    e = keyfile_load(path, create, &seed, info);
    if (e)
        return e;
    l = calloc(1, sizeof(*l));
    ASSERT(l);
    l->seed = seed;
    l->issuer = strndup(issuer.p, issuer.len);
    ASSERT(l->issuer);
    secret_use(seed, derive_public, l);
    sha256(l->public_, sizeof(l->public_), digest);
    for (int i = 0; i < KID_LEN / 2; i++)
        snprintf(l->kid + 2 * i, 3, "%02x", digest[i]);
    *ret = l;
    return OK;
}

void identity_local_close(struct identity_local *l)
{
    if (!l)
        return;
    secret_release(l->seed);
    free(l->issuer);
    free(l);
}

struct str identity_local_issuer(const struct identity_local *l)
{
    return str_of(l->issuer);
}

void identity_local_jwks(const struct identity_local *l, struct buf *out)
{
    buf_add_z(out, "{\"keys\":[{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"alg\":\"EdDSA\",\"use\":\"sig\",\"kid\":\"");
    buf_add_z(out, l->kid);
    buf_add_z(out, "\",\"x\":\"");
    buf_add_b64url(out, str_n(l->public_, sizeof(l->public_)));
    buf_add_z(out, "\"}]}");
}

/* ---- minting ----------------------------------------------------------------------------------------------------- */

static enum err check_mint(const struct identity_mint *m, struct errinfo *info)
{
    struct caller *c;
    enum err e = caller_named(m->tenant, m->user, m->agent, &c, info);

    if (e)
        return e;
    caller_release(c);
    if (!principal_valid(m->audience))
        return err_set(info, E_CONFIG, "a token needs an audience");
    if (m->ttl < NS_PER_S || m->ttl > 24 * 3600 * NS_PER_S || m->now <= 0)
        return err_set(info, E_CONFIG, "a token's life must be between 1 s and 24 h");
    if (m->n_chain >= CALLER_ACTORS_MAX)
        return err_set(info, E_CONFIG, "at most %d prior delegations", CALLER_ACTORS_MAX - 1);
    for (size_t i = 0; i < m->n_chain; i++) {
        if (!principal_valid(m->chain[i]))
            return err_set(info, E_CONFIG, "a prior delegation's name is not acceptable");
    }
    for (size_t i = 0; i < m->n_groups; i++) {
        if (!principal_valid(m->groups[i]))
            return err_set(info, E_CONFIG, "a group's name is not acceptable");
    }
    if (m->scopes.len && !principal_valid(m->scopes))
        return err_set(info, E_CONFIG, "the scopes are not acceptable");
    return OK;
}

static struct json *make_claims(struct arena *a, const struct identity_local *l, const struct identity_mint *m)
{
    struct json *c = json_object(a), *groups = json_array(a), *act = NULL;
    struct id jti = id_new("tok");

    for (size_t i = m->n_chain + 1; i-- > 0;) {         /* the oldest is innermost */
        struct json *outer = json_object(a);

        json_set_str(a, outer, "sub", i ? m->chain[i - 1] : m->agent);
        json_set(a, outer, "act", act);
        act = outer;
    }
    json_set_z(a, c, "iss", l->issuer);
    json_set_str(a, c, "sub", m->user);
    json_set_str(a, c, "aud", m->audience);
    json_set_str(a, c, "tenant", m->tenant);
    json_set_str(a, c, "client_id", m->agent);
    json_set(a, c, "act", act);
    json_set_int(a, c, "iat", m->now / 1000);
    json_set_int(a, c, "exp", m->now / 1000 + m->ttl / NS_PER_S);
    json_set_z(a, c, "jti", jti.z);
    if (m->scopes.len)
        json_set_str(a, c, "scope", m->scopes);
    for (size_t i = 0; i < m->n_groups; i++)
        json_push(a, groups, json_string_ref(a, m->groups[i]));
    if (m->n_groups)
        json_set(a, c, "groups", groups);
    return c;
}

struct signing {
    const uint8_t *public_;
    struct str text;
    uint8_t sig[ED25519_SIG_LEN];
};

static void sign(const uint8_t *seed, size_t n, void *arg)
{
    struct signing *s = arg;

    ASSERT(n == ED25519_LEN);
    ed25519_sign(seed, s->public_, s->text.p, s->text.len, s->sig);
}

enum err identity_mint(const struct identity_local *l, const struct identity_mint *m, struct buf *out,
    struct errinfo *info)
{
    struct buf claims = BUF_INIT(CLAIMS_MAX), header = BUF_INIT(256), token = BUF_INIT(IDENTITY_TOKEN_MAX);
    struct signing s;
    struct arena a;
    enum err e = check_mint(m, info);

    if (e)
        return e;
    arena_init(&a, 64 * 1024);
    json_write(&claims, make_claims(&a, l, m));
    buf_addf(&header, "{\"alg\":\"EdDSA\",\"kid\":\"%s\",\"typ\":\"at+jwt\"}", l->kid);
    buf_add_b64url(&token, buf_str(&header));
    buf_add_c(&token, '.');
    buf_add_b64url(&token, buf_str(&claims));
    if (!token.overflow) {
        s.public_ = l->public_;
        s.text = buf_str(&token);
        secret_use(l->seed, sign, &s);
        buf_add_c(&token, '.');
        buf_add_b64url(&token, str_n(s.sig, sizeof(s.sig)));
    }
    if (arena_overflowed(&a) || claims.overflow || token.overflow)
        e = err_set(info, E_CONFIG, "the token would be longer than %d bytes", IDENTITY_TOKEN_MAX);
    else
        buf_add_str(out, buf_str(&token));
    arena_release(&a);
    buf_release(&claims);
    buf_release(&header);
    buf_release(&token);
    return e;
}
