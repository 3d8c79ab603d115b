/*
 * crypto.h -- the few primitives the engine uses, over OpenSSL, fetched once
 *
 * SHA-256 (FIPS 180-4), HMAC-SHA-256 (RFC 2104), HKDF-SHA-256 (RFC 5869), AES-256-GCM (SP 800-38D), Ed25519 (RFC 8032),
 * base64 and base64url (RFC 4648), hex.  Randomness comes from the world seam (loop/world.h) through crypto_random's
 * hook.
 */
#ifndef BASE_CRYPTO_H
#define BASE_CRYPTO_H

#include "base/arena.h"
#include "base/err.h"
#include "base/str.h"

enum { SHA256_LEN = 32, AEAD_KEY_LEN = 32, AEAD_NONCE_LEN = 12, AEAD_TAG_LEN = 16, AEAD_OVERHEAD = 28, ED25519_LEN = 32,
       ED25519_SIG_LEN = 64 };

void sha256(const void *p, size_t n, uint8_t out[SHA256_LEN]);
/* Over several pieces, in order. */
void sha256_parts(const struct str *parts, size_t n_parts, uint8_t out[SHA256_LEN]);
void hmac_sha256(const void *key, size_t key_len, const void *p, size_t n, uint8_t out[SHA256_LEN]);
void hkdf_sha256(const uint8_t key[32], struct str info, uint8_t *out, size_t out_len); /* no salt; out_len <= 255*32 */

/* nonce || ciphertext || tag: out must hold n + AEAD_OVERHEAD. The nonce is random. */
void aead_seal(const uint8_t key[AEAD_KEY_LEN], struct str aad, const void *p, size_t n, uint8_t *out);
/* out must hold n - AEAD_OVERHEAD. E_TAMPERED if it does not open (or is too short). */
enum err aead_open(const uint8_t key[AEAD_KEY_LEN], struct str aad, const void *p, size_t n, uint8_t *out);

void ed25519_keypair(uint8_t secret[32], uint8_t public_[32]);
void ed25519_public(const uint8_t secret[32], uint8_t public_[32]);
/* public_ must have come from ed25519_public(): two signatures made with different ones would give the secret away. */
void ed25519_sign(const uint8_t secret[32], const uint8_t public_[32], const void *p, size_t n, uint8_t sig[64]);
bool ed25519_verify(const uint8_t public_[32], const void *p, size_t n, const uint8_t sig[64]);

bool bytes_equal_ct(const void *a, const void *b, size_t n);        /* constant time */
/* Not optimised away, since the compiler is told that the bytes are looked at. Inlined: most are a key's 32. */
static inline void bytes_wipe(void *p, size_t n)
{
    if (n > 0)
        memset(p, 0, n);
    __asm__ volatile("" : : "r"(p) : "memory");
}

/* Fills with random bytes. The source is getrandom(2) unless the simulated world has replaced it. */
void crypto_random(void *p, size_t n);
extern void (*crypto_random_hook)(void *p, size_t n);               /* set once at start by the simulator, else NULL */

/* Forgets what OpenSSL has noted of this thread's errors, so that the next one's are its own.  It is asked first: to
 * empty an empty list takes it two thousand instructions. */
void crypto_errors_clear(void);

void buf_add_hex(struct buf *b, const void *p, size_t n);
void buf_add_b64(struct buf *b, struct str s);                      /* standard alphabet, padded */
void buf_add_b64url(struct buf *b, struct str s);                   /* URL alphabet, no padding */
/* What b holds from `from` on, in place, in the first of these. Overflow: what stands there is of no use. */
void buf_b64_rest(struct buf *b, size_t from);
/* Strict decoders: no white space, no non-zero spare bits, padding exactly as the form demands. E_FORMAT otherwise. */
enum err b64_decode(struct arena *a, struct str s, struct str *ret);
enum err b64url_decode(struct arena *a, struct str s, struct str *ret);
enum err hex_decode(struct str s, uint8_t *out, size_t out_len);    /* exactly 2*out_len lower or upper case digits */

#endif
