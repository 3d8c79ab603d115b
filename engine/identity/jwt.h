/*
 * jwt.h -- compact JWS (RFC 7515) and JWK sets (RFC 7517), as far as access tokens need them
 *
 * Pure: no clock, no waiting, no configuration.  The algorithm is an argument everywhere; the token's own word is only
 * compared with it (RFC 8725 3.1).
 */
#ifndef IDENTITY_JWT_H
#define IDENTITY_JWT_H

#include "base/arena.h"
#include "identity/identity.h"
#include "json/json.h"

#include <openssl/evp.h>

enum { JWT_ARENA_MAX = 512 * 1024, JWT_KID_MAX = 255 };

enum jwt_typ { JWT_TYP_ACCESS, JWT_TYP_PLAIN, JWT_TYP_OTHER };      /* "at+jwt"; "JWT" or none; anything else */

/* A token taken apart. Everything points into the token's text or the arena. */
struct jwt {
    struct str signed_text;         /* header '.' payload, as they came */
    struct str signature;
    struct json *claims;            /* an object; NOT TRUSTED until jwt_verify() said OK */
    struct str alg, kid;
    bool has_kid;
    enum jwt_typ typ;
};

/* Form only. E_TOKEN_MALFORMED: too long, not three parts of strict base64url, not strict JSON objects, a header
 * that uses an extension (crit, b64, zip, cty, enc), alg missing, a header field of the wrong type. */
enum err jwt_parse(struct arena *a, struct str token, struct jwt *ret, struct errinfo *info);

/* E_TOKEN_ALGORITHM: alg is not `alg`. E_TOKEN_SIGNATURE: does not verify. */
enum err jwt_verify(const struct jwt *t, enum identity_alg alg, EVP_PKEY *key, struct errinfo *info);

/* Keys of one issuer, immutable, counted. */
struct jwks;

/* Takes the keys that fit `alg` and are for signatures. E_FORMAT with the reason: not strict JSON, no such key, more
 * than IDENTITY_KEYS_MAX, one kid twice, a private key inside, a weak (RSA below 2048 bits) or impossible key. */
enum err jwks_parse(struct str text, enum identity_alg alg, struct jwks **ret, struct errinfo *info);
/* One Ed25519 key. */
struct jwks *jwks_single(struct str kid, const uint8_t public_[32]);
struct jwks *jwks_ref(struct jwks *k);
void jwks_release(struct jwks *k);              /* accepts NULL */
/* The key for a token's kid; a token without one gets the only key of the set, if that has no kid either. NULL:
 * none. */
EVP_PKEY *jwks_find(const struct jwks *k, bool has_kid, struct str kid);
/* SHA-256 of the text the set was made from: to notice that nothing changed. */
const uint8_t *jwks_digest(const struct jwks *k);

#endif
