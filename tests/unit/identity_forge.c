/* identity_forge.c -- keys, key sets and tokens for the tests of identity/ */
#include "identity_forge.h"

#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/ecdsa.h>
#include <openssl/hmac.h>
#include <openssl/pem.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/crypto.h"

#define MUST(x) do { if (!(x)) { fprintf(stderr, "forge: %s\n", #x); abort(); } } while (0)

EVP_PKEY *forge_rsa(unsigned bits)
{
    EVP_PKEY *key = EVP_RSA_gen(bits);

    MUST(key);
    return key;
}

EVP_PKEY *forge_p256(void)
{
    EVP_PKEY *key = EVP_EC_gen("P-256");

    MUST(key);
    return key;
}

EVP_PKEY *forge_ed25519(void)
{
    EVP_PKEY *key = EVP_PKEY_Q_keygen(NULL, NULL, "ED25519");

    MUST(key);
    return key;
}

static void add_bn(struct buf *b, EVP_PKEY *key, const char *param, int pad)
{
    uint8_t bytes[1024];
    BIGNUM *n = NULL;
    int len;

    MUST(EVP_PKEY_get_bn_param(key, param, &n));
    len = pad ? BN_bn2binpad(n, bytes, pad) : BN_bn2bin(n, bytes);
    MUST(len > 0);
    buf_add_b64url(b, str_n(bytes, (size_t)len));
    BN_free(n);
}

const char *forge_jwk(EVP_PKEY *key, const char *kid, const char *extra)
{
    static char out[8][FORGE_MAX / 8];
    static unsigned turn;
    char *text = out[turn++ % 8];
    struct buf b = BUF_INIT(FORGE_MAX / 8);
    uint8_t raw[32];
    size_t len = sizeof(raw);

    buf_add_z(&b, "{");
    if (kid)
        buf_addf(&b, "\"kid\":\"%s\",", kid);
    switch (EVP_PKEY_get_base_id(key)) {
    case EVP_PKEY_RSA:
        buf_add_z(&b, "\"kty\":\"RSA\",\"n\":\"");
        add_bn(&b, key, OSSL_PKEY_PARAM_RSA_N, 0);
        buf_add_z(&b, "\",\"e\":\"");
        add_bn(&b, key, OSSL_PKEY_PARAM_RSA_E, 0);
        break;
    case EVP_PKEY_EC:
        buf_add_z(&b, "\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"");
        add_bn(&b, key, OSSL_PKEY_PARAM_EC_PUB_X, 32);
        buf_add_z(&b, "\",\"y\":\"");
        add_bn(&b, key, OSSL_PKEY_PARAM_EC_PUB_Y, 32);
        break;
    default:
        MUST(EVP_PKEY_get_raw_public_key(key, raw, &len));
        buf_add_z(&b, "\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"x\":\"");
        buf_add_b64url(&b, str_n(raw, len));
    }
    buf_addf(&b, "\"%s}", extra);
    MUST(!b.overflow);
    memcpy(text, b.p, b.len);
    text[b.len] = 0;
    buf_release(&b);
    return text;
}

/* DER SEQUENCE { r, s } -> r || s */
static size_t raw_of_der(uint8_t *sig, size_t len)
{
    const uint8_t *p = sig;
    ECDSA_SIG *s = d2i_ECDSA_SIG(NULL, &p, (long)len);

    MUST(s && BN_bn2binpad(ECDSA_SIG_get0_r(s), sig, 32) == 32 && BN_bn2binpad(ECDSA_SIG_get0_s(s), sig + 32,
        32) == 32);
    ECDSA_SIG_free(s);
    return 64;
}

static size_t sign(const char *alg, EVP_PKEY *key, struct str text, uint8_t sig[1024])
{
    const EVP_MD *md = strcmp(alg, "EdDSA") ? EVP_sha256() : NULL;
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    size_t len = 1024;

    MUST(ctx && EVP_DigestSignInit(ctx, NULL, md, NULL, key) == 1);
    MUST(EVP_DigestSign(ctx, sig, &len, (const uint8_t *)text.p, text.len) == 1);
    EVP_MD_CTX_free(ctx);
    return strcmp(alg, "ES256") ? len : raw_of_der(sig, len);
}

static size_t sign_hs256(EVP_PKEY *key, struct str text, uint8_t sig[1024])
{
    BIO *bio = BIO_new(BIO_s_mem());
    char *pem;
    long n;

    MUST(bio && PEM_write_bio_PUBKEY(bio, key));
    n = BIO_get_mem_data(bio, &pem);
    hmac_sha256(pem, (size_t)n, text.p, text.len, sig);
    BIO_free(bio);
    return 32;
}

void forge_token(const char *alg, EVP_PKEY *key, const char *header, const char *claims, char *out)
{
    struct buf b = BUF_INIT(FORGE_MAX - 1);
    uint8_t sig[1024];
    size_t len = 0;

    buf_add_b64url(&b, str_of(header));
    buf_add_c(&b, '.');
    buf_add_b64url(&b, str_of(claims));
    if (!strcmp(alg, "HS256"))
        len = sign_hs256(key, buf_str(&b), sig);
    else if (strcmp(alg, "none"))
        len = sign(alg, key, buf_str(&b), sig);
    buf_add_c(&b, '.');
    buf_add_b64url(&b, str_n(sig, len));
    MUST(!b.overflow);
    memcpy(out, b.p, b.len);
    out[b.len] = 0;
    buf_release(&b);
}
