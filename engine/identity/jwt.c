/*
 * jwt.c -- the form of a token, and its signature
 *
 *   b64url(header) '.' b64url(claims) '.' b64url(signature)
 *
 * Signatures: RS256 is RSASSA-PKCS1-v1_5 with SHA-256; ES256 is r || s, 32 bytes each, over P-256, which OpenSSL
 * wants as DER; EdDSA is Ed25519, 64 bytes.  Nothing in a header can choose a key source or an algorithm: jwk, jku,
 * x5u and x5c are not looked at, and a header that asks for processing we do not do is refused.
 */
#include "identity/jwt.h"

#include "base/check.h"
#include "base/crypto.h"

#include <openssl/ecdsa.h>

static const struct json_limits limits = { .depth_max = 32, .nodes_max = 2000 };

static enum err decode_object(struct arena *a, struct str part, const char *what, struct json **ret,
    struct errinfo *info)
{
    struct str text;
    struct json *j;

    if (b64url_decode(a, part, &text))
        return err_set(info, E_TOKEN_MALFORMED, "the token's %s is not base64url", what);
    if (json_parse(a, text, &limits, &j, NULL))
        return err_set(info, E_TOKEN_MALFORMED, "the token's %s is not strict JSON", what);
    if (!json_is(j, JSON_OBJECT))
        return err_set(info, E_TOKEN_MALFORMED, "the token's %s is not an object", what);
    *ret = j;
    return OK;
}

static enum jwt_typ typ_of(struct str typ)
{
    static const struct str prefix = { "application/", 12 };

    if (typ.len > prefix.len && str_ieq(str_n(typ.p, prefix.len), prefix))
        typ = str_from(typ, prefix.len);
    if (str_ieq(typ, STR("at+jwt")))
        return JWT_TYP_ACCESS;
    return str_ieq(typ, STR("JWT")) ? JWT_TYP_PLAIN : JWT_TYP_OTHER;
}

static enum err read_header(const struct json *h, struct jwt *t, struct errinfo *info)
{
    static const char *const unsupported[] = { "crit", "b64", "zip", "cty", "enc" };
    const struct json *kid = json_get(h, "kid"), *typ = json_get(h, "typ");

    for (size_t i = 0; i < ARRAY_LEN(unsupported); i++) {
        if (json_get(h, unsupported[i]))
            return err_set(info, E_TOKEN_MALFORMED, "the token's header has %s, which is not supported",
                unsupported[i]);
    }
    t->alg = json_str(json_get(h, "alg"));
    if (str_empty(t->alg))
        return err_set(info, E_TOKEN_MALFORMED, "the token's header has no alg");
    t->has_kid = kid != NULL;
    t->kid = json_str(kid);
    if (kid && (!json_is(kid, JSON_STRING) || t->kid.len == 0 || t->kid.len > JWT_KID_MAX))
        return err_set(info, E_TOKEN_MALFORMED, "the token's kid is not acceptable");
    if (typ && !json_is(typ, JSON_STRING))
        return err_set(info, E_TOKEN_MALFORMED, "the token's typ is not a string");
    t->typ = typ ? typ_of(json_str(typ)) : JWT_TYP_PLAIN;
    return OK;
}

enum err jwt_parse(struct arena *a, struct str token, struct jwt *ret, struct errinfo *info)
{
    struct jwt t = { 0 };
    struct str head, rest, body, sig;
    struct json *header;
    enum err e;

    if (token.len > IDENTITY_TOKEN_MAX)
        return err_set(info, E_TOKEN_MALFORMED, "the token is longer than %d bytes", IDENTITY_TOKEN_MAX);
    if (!str_cut(token, '.', &head, &rest) || !str_cut(rest, '.', &body, &sig) || memchr(sig.p, '.', sig.len))
        return err_set(info, E_TOKEN_MALFORMED, "the token does not have three parts");
    if (str_empty(head) || str_empty(body))
        return err_set(info, E_TOKEN_MALFORMED, "the token has an empty part");
    e = decode_object(a, head, "header", &header, info);
    if (e)
        return e;
    e = read_header(header, &t, info);
    if (e)
        return e;
    e = decode_object(a, body, "claims", &t.claims, info);
    if (e)
        return e;
    if (b64url_decode(a, sig, &t.signature))
        return err_set(info, E_TOKEN_MALFORMED, "the token's signature is not base64url");
    t.signed_text = str_n(token.p, head.len + 1 + body.len);
    *ret = t;
    return OK;
}

/* ---- signatures -------------------------------------------------------------------------------------------------- */

enum { ES256_LEN = 64, ES256_DER_MAX = 80, RSA_BYTES_MAX = 1024 };

/* r || s -> SEQUENCE { INTEGER r, INTEGER s }. Length of the DER, 0 on failure. */
static size_t es256_der(struct str raw, uint8_t out[ES256_DER_MAX])
{
    const uint8_t *p = (const uint8_t *)raw.p;
    ECDSA_SIG *sig = ECDSA_SIG_new();
    BIGNUM *r = BN_bin2bn(p, 32, NULL), *s = BN_bin2bn(p + 32, 32, NULL);
    int n = 0;

    if (!sig || !r || !s || ECDSA_SIG_set0(sig, r, s) != 1) {
        BN_free(r);
        BN_free(s);
    } else {
        n = i2d_ECDSA_SIG(sig, NULL);
        n = n > 0 && n <= ES256_DER_MAX ? i2d_ECDSA_SIG(sig, &out) : 0;
    }
    ECDSA_SIG_free(sig);
    return n > 0 ? (size_t)n : 0;
}

static bool verify_bytes(EVP_PKEY *key, const EVP_MD *md, struct str text, const uint8_t *sig, size_t sig_len)
{
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    bool good = ctx && EVP_DigestVerifyInit(ctx, NULL, md, NULL, key) == 1
        && EVP_DigestVerify(ctx, sig, sig_len, (const uint8_t *)text.p, text.len) == 1;

    EVP_MD_CTX_free(ctx);
    return good;
}

enum err jwt_verify(const struct jwt *t, enum identity_alg alg, EVP_PKEY *key, struct errinfo *info)
{
    static const char *const names[] = { "RS256", "ES256", "EdDSA" };
    const uint8_t *sig = (const uint8_t *)t->signature.p;
    size_t len = t->signature.len;
    uint8_t der[ES256_DER_MAX];
    bool good = false;

    if (!str_is(t->alg, names[alg]))
        return err_set(info, E_TOKEN_ALGORITHM, "the token's alg is not %s, the issuer's", names[alg]);
    switch (alg) {
    case IDENTITY_RS256:
        good = len == (size_t)EVP_PKEY_get_size(key) && verify_bytes(key, EVP_sha256(), t->signed_text, sig, len);
        break;
    case IDENTITY_ES256:
        if (len == ES256_LEN) {
            len = es256_der(t->signature, der);
            good = len && verify_bytes(key, EVP_sha256(), t->signed_text, der, len);
        }
        break;
    case IDENTITY_EDDSA:
        good = len == ED25519_SIG_LEN && verify_bytes(key, NULL, t->signed_text, sig, len);
        break;
    }
    return good ? OK : err_set(info, E_TOKEN_SIGNATURE, "the token's signature does not verify");
}
