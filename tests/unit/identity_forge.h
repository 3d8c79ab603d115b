/* identity_forge.h -- keys, key sets and tokens for the tests of identity/, good and bad, made through OpenSSL alone */
#ifndef IDENTITY_FORGE_H
#define IDENTITY_FORGE_H

#include <openssl/evp.h>

#include "base/str.h"

enum { FORGE_MAX = 32 * 1024 };

EVP_PKEY *forge_rsa(unsigned bits);
EVP_PKEY *forge_p256(void);
EVP_PKEY *forge_ed25519(void);

/* One member of a "keys" array; `extra` ("" or ",\"use\":\"sig\"") is put in as it is. Static buffer per call site
 * of 8. */
const char *forge_jwk(EVP_PKEY *key, const char *kid, const char *extra);

/* header "." claims "." signature, in `out` (FORGE_MAX bytes). `alg`: RS256, ES256, EdDSA, HS256 (key: the public
 * key's PEM as the secret), ES256-DER, none. */
void forge_token(const char *alg, EVP_PKEY *key, const char *header, const char *claims, char *out);

#endif
