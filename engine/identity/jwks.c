/*
 * jwks.c -- JWK sets: which keys an issuer signs with
 *
 *   { "keys": [ { "kty": "RSA", "kid", "use", "alg", "n", "e" },
 *               { "kty": "EC",  "crv": "P-256",   "x", "y", ... },
 *               { "kty": "OKP", "crv": "Ed25519", "x", ... } ] }
 *
 * Keys of another type, for encryption (use, key_ops) or for another algorithm (alg) are passed over; a key that
 * ought to fit and is wrong in itself spoils the set, which is then refused as a whole: better the old set than half
 * of a new one.
 */
#include "base/check.h"
#include "base/crypto.h"
#include "identity/jwt.h"

#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/param_build.h>
#include <stdatomic.h>
#include <stdlib.h>

enum { RSA_BITS_MIN = 2048, RSA_BITS_MAX = 8192, P256_COORDINATE = 32 };

struct jwks_key {
    char *kid;                  /* NULL: has none */
    size_t kid_len;
    EVP_PKEY *key;
};

struct jwks {
    atomic_uint refs;
    unsigned n;
    uint8_t digest[SHA256_LEN];
    struct jwks_key keys[IDENTITY_KEYS_MAX];
};

/* ---- one key ----------------------------------------------------------------------------------------------------- */

static enum err member_bytes(struct arena *a, const struct json *j, const char *name, struct str *ret,
    struct errinfo *info)
{
    struct str text = json_str(json_get(j, name));

    if (str_empty(text) || b64url_decode(a, text, ret) || str_empty(*ret))
        return err_set(info, E_FORMAT, "a key's %s is missing or not base64url", name);
    return OK;
}

static EVP_PKEY *from_params(const char *type, OSSL_PARAM_BLD *bld)
{
    OSSL_PARAM *params = OSSL_PARAM_BLD_to_param(bld);
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_name(NULL, type, NULL);
    EVP_PKEY *key = NULL;

    if (!params || !ctx || EVP_PKEY_fromdata_init(ctx) != 1
        || EVP_PKEY_fromdata(ctx, &key, EVP_PKEY_PUBLIC_KEY, params) != 1)
        key = NULL;
    EVP_PKEY_CTX_free(ctx);
    OSSL_PARAM_free(params);
    return key;
}

static enum err rsa_key(struct arena *a, const struct json *j, EVP_PKEY **ret, struct errinfo *info)
{
    struct str n_bytes, e_bytes;
    BIGNUM *n, *ex;
    OSSL_PARAM_BLD *bld;
    EVP_PKEY *key = NULL;
    bool weak;
    enum err e = member_bytes(a, j, "n", &n_bytes, info);

    if (!e)
        e = member_bytes(a, j, "e", &e_bytes, info);
    if (e)
        return e;
    if (n_bytes.len > RSA_BITS_MAX / 8 || e_bytes.len > 8)
        return err_set(info, E_FORMAT, "an RSA key is larger than %d bits", RSA_BITS_MAX);
    n = BN_bin2bn((const uint8_t *)n_bytes.p, (int)n_bytes.len, NULL);
    ex = BN_bin2bn((const uint8_t *)e_bytes.p, (int)e_bytes.len, NULL);
    weak = !n || !ex || BN_num_bits(n) < RSA_BITS_MIN || !BN_is_odd(n) || !BN_is_odd(ex) || BN_num_bits(ex) < 2;
    bld = OSSL_PARAM_BLD_new();
    if (!weak && bld && OSSL_PARAM_BLD_push_BN(bld, OSSL_PKEY_PARAM_RSA_N, n)
        && OSSL_PARAM_BLD_push_BN(bld, OSSL_PKEY_PARAM_RSA_E, ex))
        key = from_params("RSA", bld);
    OSSL_PARAM_BLD_free(bld);
    BN_free(n);
    BN_free(ex);
    if (!key)
        return err_set(info, E_FORMAT, "an RSA key is weak or impossible (at least %d bits)", RSA_BITS_MIN);
    *ret = key;
    return OK;
}

static enum err ec_key(struct arena *a, const struct json *j, EVP_PKEY **ret, struct errinfo *info)
{
    uint8_t point[1 + 2 * P256_COORDINATE] = { 4 };         /* uncompressed */
    struct str x, y;
    OSSL_PARAM_BLD *bld;
    EVP_PKEY *key = NULL;
    enum err e = member_bytes(a, j, "x", &x, info);

    if (!e)
        e = member_bytes(a, j, "y", &y, info);
    if (e)
        return e;
    if (x.len != P256_COORDINATE || y.len != P256_COORDINATE)
        return err_set(info, E_FORMAT, "an EC key's coordinates are not %d bytes", P256_COORDINATE);
    memcpy(point + 1, x.p, P256_COORDINATE);
    memcpy(point + 1 + P256_COORDINATE, y.p, P256_COORDINATE);
    bld = OSSL_PARAM_BLD_new();
    if (bld && OSSL_PARAM_BLD_push_utf8_string(bld, OSSL_PKEY_PARAM_GROUP_NAME, "prime256v1", 0)
        && OSSL_PARAM_BLD_push_octet_string(bld, OSSL_PKEY_PARAM_PUB_KEY, point, sizeof(point)))
        key = from_params("EC", bld);           /* refuses a point that is not on the curve */
    OSSL_PARAM_BLD_free(bld);
    if (!key)
        return err_set(info, E_FORMAT, "an EC key is not a point of P-256");
    *ret = key;
    return OK;
}

static enum err okp_key(struct arena *a, const struct json *j, EVP_PKEY **ret, struct errinfo *info)
{
    struct str x;
    enum err e = member_bytes(a, j, "x", &x, info);

    if (e)
        return e;
    if (x.len != ED25519_LEN)
        return err_set(info, E_FORMAT, "an Ed25519 key is not %d bytes", ED25519_LEN);
    *ret = EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, NULL, (const uint8_t *)x.p, x.len);
    return *ret ? OK : err_set(info, E_FORMAT, "an Ed25519 key is impossible");
}

/* Is this key meant for signatures of `alg`? Anything but a clear yes passes it over. */
static bool fits(const struct json *j, enum identity_alg alg)
{
    static const struct { const char *kty, *crv, *name; } kinds[] = {
        [IDENTITY_RS256] = { "RSA", NULL, "RS256" },
        [IDENTITY_ES256] = { "EC", "P-256", "ES256" },
        [IDENTITY_EDDSA] = { "OKP", "Ed25519", "EdDSA" },
    };
    const struct json *use = json_get(j, "use"), *ops = json_get(j, "key_ops"), *name = json_get(j, "alg");
    bool verify = false;

    if (!str_is(json_str(json_get(j, "kty")), kinds[alg].kty))
        return false;
    if (kinds[alg].crv && !str_is(json_str(json_get(j, "crv")), kinds[alg].crv))
        return false;
    if ((use && !str_is(json_str(use), "sig")) || (name && !str_is(json_str(name), kinds[alg].name)))
        return false;
    for (const struct json *op = json_first(ops); op; op = json_next(op))
        verify = verify || str_is(json_str(op), "verify");
    return !ops || verify;
}

/* ---- the set ----------------------------------------------------------------------------------------------------- */

static struct jwks_key *find_kid(const struct jwks *k, struct str kid)
{
    for (unsigned i = 0; i < k->n; i++) {
        if (k->keys[i].kid && str_eq(str_n(k->keys[i].kid, k->keys[i].kid_len), kid))
            return (struct jwks_key *)&k->keys[i];
    }
    return NULL;
}

static enum err add_key(struct arena *a, struct jwks *k, const struct json *j, enum identity_alg alg,
    struct errinfo *info)
{
    static const char *const private_members[] = { "d", "p", "q", "k", "oth" };
    const struct json *kid = json_get(j, "kid");
    struct str name = json_str(kid);
    struct jwks_key *slot = &k->keys[k->n];
    enum err e;

    if (!json_is(j, JSON_OBJECT))
        return err_set(info, E_FORMAT, "a key is not an object");
    for (size_t i = 0; i < ARRAY_LEN(private_members); i++) {
        if (json_get(j, private_members[i]))
            return err_set(info, E_FORMAT, "a key has the private member %s: publish public keys only",
                private_members[i]);
    }
    if (!fits(j, alg))
        return OK;
    if (k->n == IDENTITY_KEYS_MAX)
        return err_set(info, E_FORMAT, "more than %d keys", IDENTITY_KEYS_MAX);
    if (kid && (!json_is(kid, JSON_STRING) || name.len == 0 || name.len > JWT_KID_MAX))
        return err_set(info, E_FORMAT, "a kid is not a string of 1 to %d bytes", JWT_KID_MAX);
    if (kid && find_kid(k, name))
        return err_set(info, E_FORMAT, "two keys have the same kid");
    e = alg == IDENTITY_RS256 ? rsa_key(a, j, &slot->key, info)
        : alg == IDENTITY_ES256 ? ec_key(a, j, &slot->key, info) : okp_key(a, j, &slot->key, info);
    if (e)
        return e;
    if (kid) {
        slot->kid = malloc(name.len);
        ASSERT(slot->kid);
        memcpy(slot->kid, name.p, name.len);
        slot->kid_len = name.len;
    }
    k->n++;
    return OK;
}

static enum err parse_into(struct arena *a, struct jwks *k, struct str text, enum identity_alg alg,
    struct errinfo *info)
{
    static const struct json_limits limits = { .depth_max = 16, .nodes_max = 20000 };
    struct json_error where;
    struct json *j, *keys;
    enum err e;

    if (text.len > IDENTITY_JWKS_MAX)
        return err_set(info, E_FORMAT, "the key set is larger than %d bytes", IDENTITY_JWKS_MAX);
    if (json_parse(a, text, &limits, &j, &where))
        return err_set(info, E_FORMAT, "the key set is not strict JSON: line %u: %s", where.line, where.message);
    keys = json_get(j, "keys");
    if (!json_is(j, JSON_OBJECT) || !json_is(keys, JSON_ARRAY))
        return err_set(info, E_FORMAT, "the key set has no array \"keys\"");
    for (struct json *key = json_first(keys); key; key = json_next(key)) {
        e = add_key(a, k, key, alg, info);
        if (e)
            return e;
    }
    if (k->n == 0)
        return err_set(info, E_FORMAT, "the key set has no key for the issuer's algorithm");
    sha256(text.p, text.len, k->digest);
    return OK;
}

static struct jwks *jwks_new(void)
{
    struct jwks *k = calloc(1, sizeof(*k));

    ASSERT(k);
    atomic_init(&k->refs, 1);
    return k;
}

enum err jwks_parse(struct str text, enum identity_alg alg, struct jwks **ret, struct errinfo *info)
{
    struct jwks *k = jwks_new();
    struct arena a;
    enum err e;

    arena_init(&a, 4 * 1024 * 1024);
    e = parse_into(&a, k, text, alg, info);
    arena_release(&a);
    if (e) {
        jwks_release(k);
        return e;
    }
    *ret = k;
    return OK;
}

struct jwks *jwks_single(struct str kid, const uint8_t public_[32])
{
    struct jwks *k = jwks_new();

    k->keys[0].kid = malloc(kid.len);
    k->keys[0].key = EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, NULL, public_, ED25519_LEN);
    ASSERT(kid.len && k->keys[0].kid && k->keys[0].key);
    memcpy(k->keys[0].kid, kid.p, kid.len);
    k->keys[0].kid_len = kid.len;
    k->n = 1;
    sha256(public_, ED25519_LEN, k->digest);
    return k;
}

struct jwks *jwks_ref(struct jwks *k)
{
    atomic_fetch_add_explicit(&k->refs, 1, memory_order_relaxed);
    return k;
}

void jwks_release(struct jwks *k)
{
    if (!k || atomic_fetch_sub_explicit(&k->refs, 1, memory_order_acq_rel) != 1)
        return;
    for (unsigned i = 0; i < IDENTITY_KEYS_MAX; i++) {
        EVP_PKEY_free(k->keys[i].key);
        free(k->keys[i].kid);
    }
    free(k);
}

EVP_PKEY *jwks_find(const struct jwks *k, bool has_kid, struct str kid)
{
    struct jwks_key *found;

    if (!has_kid)
        return k->n == 1 && !k->keys[0].kid ? k->keys[0].key : NULL;
    found = find_kid(k, kid);
    return found ? found->key : NULL;
}

const uint8_t *jwks_digest(const struct jwks *k)
{
    return k->digest;
}
