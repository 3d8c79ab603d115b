/*
 * fuzz_jwt.c -- tokens and key sets from strangers
 *
 * First byte: 't' the rest is a whole token; 'c' the rest is the claims of a token that is signed well, so that the
 * checks behind the signature are reached; 'h' the rest is the header of such a token; 'k' the rest is a key set.
 * What must hold: no crash; whatever becomes a caller has acceptable names, an agent, and a life that has not ended.
 */
#include <stdint.h>
#include <stdlib.h>

#include "base/check.h"
#include "base/crypto.h"
#include "identity/identity.h"
#include "identity/jwt.h"

#define NOW 1800000000000LL
#define HEADER "{\"alg\":\"EdDSA\",\"kid\":\"k1\",\"typ\":\"at+jwt\"}"
#define CLAIMS "{\"iss\":\"https://idp\",\"sub\":\"ann\",\"aud\":\"us\",\"exp\":1800000600,\"iat\":1799999990," \
    "\"jti\":\"t\",\"client_id\":\"c\",\"org\":\"acme\"}"

static struct identity *id;
static uint8_t seed[32], public_[32];

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    static const struct str audience = { "us", 2 };
    struct buf jwks = BUF_INIT(4096);
    struct identity_issuer is = {
        .issuer = STR("https://idp"), .alg = IDENTITY_EDDSA, .audiences = &audience, .n_audiences = 1,
        .tenant_claim = STR("org"), .prefix = STR("p-"), .typ_jwt_allowed = true,
    };
    struct identity_config config = { .issuers = &is, .n_issuers = 1, .cache_max = 64 };
    struct errinfo info;

    ed25519_keypair(seed, public_);
    buf_add_z(&jwks, "{\"keys\":[{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"kid\":\"k1\",\"x\":\"");
    buf_add_b64url(&jwks, str_n(public_, 32));
    buf_add_z(&jwks, "\"}]}");
    is.jwks_inline = buf_str(&jwks);
    ASSERT(identity_create(&config, &id, &info) == OK);
    buf_release(&jwks);
    return 0;
}

static void verify(struct str token)
{
    struct caller *c;
    struct errinfo info;

    if (identity_verify(id, token, NOW, 0, &c, &info))
        return;
    ASSERT(tenant_valid(c->tenant) && principal_valid(c->user) && principal_valid(c->agent));
    ASSERT(c->n_actors >= 1 && c->n_actors <= CALLER_ACTORS_MAX && c->n_scopes <= CALLER_SCOPES_MAX);
    ASSERT(str_eq(c->agent, c->actors[0].name) && c->expires + 30000 > NOW && c->auth == CALLER_AUTH_JWT);
    caller_release(c);
}

static void verify_signed(struct str header, struct str claims)
{
    struct buf b = BUF_INIT(64 * 1024);
    uint8_t sig[64];

    buf_add_b64url(&b, header);
    buf_add_c(&b, '.');
    buf_add_b64url(&b, claims);
    if (!b.overflow) {
        ed25519_sign(seed, public_, b.p, b.len, sig);
        buf_add_c(&b, '.');
        buf_add_b64url(&b, str_n(sig, sizeof(sig)));
        verify(buf_str(&b));
    }
    buf_release(&b);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct str rest = str_n(data + 1, n ? n - 1 : 0);
    struct jwks *keys;
    struct errinfo info;

    if (n == 0)
        return 0;
    switch (data[0]) {
    case 't':
        verify(rest);
        break;
    case 'c':
        verify_signed(STR(HEADER), rest);
        break;
    case 'h':
        verify_signed(rest, STR(CLAIMS));
        break;
    case 'k':
        for (enum identity_alg alg = IDENTITY_RS256; alg <= IDENTITY_EDDSA; alg++) {
            if (jwks_parse(rest, alg, &keys, &info) == OK)
                jwks_release(keys);
        }
        break;
    default:
        break;
    }
    return 0;
}
