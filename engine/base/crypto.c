/*
 * crypto.c -- primitives over OpenSSL 3
 *
 * OpenSSL 3 looks an algorithm up on every use unless it was fetched before, and asks its own provider, by names that
 * it compares as text, for what never changes: a third of what sealing a short text costs.  So AES-GCM is fetched once
 * per process and its functions are called as EVP would (provider-cipher(7)), with lengths that are known here.
 * SHA-256, of which a call needs a handful, is called below EVP too: the same code, without the thousand instructions
 * around it.
 *
 * HMAC and HKDF are written over the digest, not taken from OpenSSL: its HMAC context keeps a copy of the key on the
 * ordinary heap until the next use, and that key may be the root key.  For the same reason a cipher context lives for
 * one use: freeing it wipes its key schedule.
 *
 *   sealed bytes = nonce (12) || ciphertext (n) || tag (16)
 *
 * A primitive that OpenSSL refuses to run is a broken installation: asserted, never reported as a result.
 */
#include "base/crypto.h"

#define OPENSSL_SUPPRESS_DEPRECATED     /* SHA256_Init() and its kind: see the top */

#include <errno.h>
#include <limits.h>
#include <openssl/core_dispatch.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/params.h>
#include <openssl/provider.h>
#include <openssl/sha.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/random.h>

#include "base/check.h"
#include "base/escape.h"

#ifdef __SSE2__
#include <emmintrin.h>
#endif

enum { HMAC_BLOCK = 64 };

void (*crypto_random_hook)(void *p, size_t n) = NULL;

/* ---- digests ---- */

void sha256_parts(const struct str *parts, size_t n_parts, uint8_t out[SHA256_LEN])
{
    UNSET SHA256_CTX md;

    ASSERT(SHA256_Init(&md));
    for (size_t i = 0; i < n_parts; i++) {
        if (parts[i].len > 0)
            ASSERT(SHA256_Update(&md, parts[i].p, parts[i].len));
    }
    ASSERT(SHA256_Final(out, &md));         /* it erases the last of the text */
    bytes_wipe(md.h, sizeof(md.h));         /* of an HMAC they are secret */
}

void sha256(const void *p, size_t n, uint8_t out[SHA256_LEN])
{
    struct str whole = str_n(p, n);

    sha256_parts(&whole, 1, out);
}

/* RFC 2104: H(key ^ opad || H(key ^ ipad || parts)). */
static void hmac_parts(const void *key, size_t key_len, const struct str *parts, size_t n_parts, uint8_t *out)
{
    struct str pieces[4];
    uint8_t pad[HMAC_BLOCK] = { 0 }, inner[SHA256_LEN];

    ASSERT(n_parts < ARRAY_LEN(pieces));
    if (key_len > HMAC_BLOCK)
        sha256(key, key_len, pad);
    else if (key_len > 0)
        memcpy(pad, key, key_len);

    for (size_t i = 0; i < HMAC_BLOCK; i++)
        pad[i] ^= 0x36;
    pieces[0] = str_n(pad, HMAC_BLOCK);
    for (size_t i = 0; i < n_parts; i++)
        pieces[i + 1] = parts[i];
    sha256_parts(pieces, n_parts + 1, inner);

    for (size_t i = 0; i < HMAC_BLOCK; i++)
        pad[i] ^= 0x36 ^ 0x5c;
    pieces[1] = str_n(inner, SHA256_LEN);
    sha256_parts(pieces, 2, out);
    bytes_wipe(pad, sizeof(pad));
    bytes_wipe(inner, sizeof(inner));
}

void hmac_sha256(const void *key, size_t key_len, const void *p, size_t n, uint8_t out[SHA256_LEN])
{
    struct str whole = str_n(p, n);

    hmac_parts(key, key_len, &whole, 1, out);
}

/* RFC 5869 with the salt left out, which stands for 32 zero bytes. */
void hkdf_sha256(const uint8_t key[32], struct str info, uint8_t *out, size_t out_len)
{
    static const uint8_t no_salt[SHA256_LEN] = { 0 };
    uint8_t prk[SHA256_LEN], block[SHA256_LEN], counter = 0;

    ASSERT(out_len <= 255 * SHA256_LEN);
    hmac_sha256(no_salt, sizeof(no_salt), key, 32, prk);
    while (out_len > 0) {
        struct str parts[3] = { str_n(block, counter == 0 ? 0 : SHA256_LEN), info, str_n(&counter, 1) };
        size_t n = out_len < SHA256_LEN ? out_len : SHA256_LEN;

        counter++;
        hmac_parts(prk, sizeof(prk), parts, 3, block);
        memcpy(out, block, n);
        out += n;
        out_len -= n;
    }
    bytes_wipe(prk, sizeof(prk));
    bytes_wipe(block, sizeof(block));
}

/* ---- sealing ---- */

static struct {
    void *provider;
    OSSL_FUNC_cipher_newctx_fn *newctx;
    OSSL_FUNC_cipher_freectx_fn *freectx;
    OSSL_FUNC_cipher_encrypt_init_fn *encrypt_init;
    OSSL_FUNC_cipher_decrypt_init_fn *decrypt_init;
    OSSL_FUNC_cipher_update_fn *update;
    OSSL_FUNC_cipher_final_fn *final;
    OSSL_FUNC_cipher_get_ctx_params_fn *get_ctx_params;
} gcm;

static pthread_once_t gcm_once = PTHREAD_ONCE_INIT;

static void gcm_take(const OSSL_DISPATCH *d)
{
    for (; d->function_id; d++) {
        switch (d->function_id) {
        case OSSL_FUNC_CIPHER_NEWCTX:         gcm.newctx = OSSL_FUNC_cipher_newctx(d); break;
        case OSSL_FUNC_CIPHER_FREECTX:        gcm.freectx = OSSL_FUNC_cipher_freectx(d); break;
        case OSSL_FUNC_CIPHER_ENCRYPT_INIT:   gcm.encrypt_init = OSSL_FUNC_cipher_encrypt_init(d); break;
        case OSSL_FUNC_CIPHER_DECRYPT_INIT:   gcm.decrypt_init = OSSL_FUNC_cipher_decrypt_init(d); break;
        case OSSL_FUNC_CIPHER_UPDATE:         gcm.update = OSSL_FUNC_cipher_update(d); break;
        case OSSL_FUNC_CIPHER_FINAL:          gcm.final = OSSL_FUNC_cipher_final(d); break;
        case OSSL_FUNC_CIPHER_GET_CTX_PARAMS: gcm.get_ctx_params = OSSL_FUNC_cipher_get_ctx_params(d); break;
        default:                              break;
        }
    }
}

/* An algorithm's names stand with colons between them. */
static bool is_named(struct str names, struct str name)
{
    struct str first = names, rest;

    while (str_cut(names, ':', &first, &rest)) {
        if (str_ieq(first, name))
            return true;
        names = rest;
    }
    return str_ieq(names, name);
}

/* From the provider that a fetch chooses. The cipher that was fetched is kept, as the provider must be. */
static void gcm_fetch(void)
{
    static EVP_CIPHER *kept;
    const OSSL_PROVIDER *provider;
    const OSSL_ALGORITHM *all;
    int no_cache;

    kept = EVP_CIPHER_fetch(NULL, "AES-256-GCM", NULL);
    ASSERT(kept);
    provider = EVP_CIPHER_get0_provider(kept);
    gcm.provider = OSSL_PROVIDER_get0_provider_ctx(provider);
    all = OSSL_PROVIDER_query_operation(provider, OSSL_OP_CIPHER, &no_cache);
    for (const OSSL_ALGORITHM *a = all; a && a->algorithm_names && !gcm.newctx; a++) {
        if (is_named(str_of(a->algorithm_names), STR("AES-256-GCM")))
            gcm_take(a->implementation);
    }
    OSSL_PROVIDER_unquery_operation(provider, OSSL_OP_CIPHER, all);
    ASSERT(gcm.newctx && gcm.freectx && gcm.encrypt_init && gcm.decrypt_init && gcm.update && gcm.final &&
           gcm.get_ctx_params);
}

static void *gcm_new(void)
{
    void *c;

    pthread_once(&gcm_once, gcm_fetch);
    c = gcm.newctx(gcm.provider);
    ASSERT(c);
    return c;
}

/* Associated data and text, in this order, up to the tag. */
static void gcm_run(void *c, struct str aad, const void *p, size_t n, uint8_t *out)
{
    size_t len;

    if (aad.len > 0)
        ASSERT(gcm.update(c, NULL, &len, aad.len, (const uint8_t *)aad.p, aad.len));
    if (n > 0)
        ASSERT(gcm.update(c, out, &len, n, p, n) && len == n);
}

void aead_seal(const uint8_t key[AEAD_KEY_LEN], struct str aad, const void *p, size_t n, uint8_t *out)
{
    uint8_t *nonce = out, *text = out + AEAD_NONCE_LEN, *tag = text + n, none[1];
    OSSL_PARAM get_tag[] = {
        OSSL_PARAM_octet_string(OSSL_CIPHER_PARAM_AEAD_TAG, tag, AEAD_TAG_LEN), OSSL_PARAM_END,
    };
    void *c = gcm_new();
    size_t len;

    ASSERT(n <= INT_MAX && aad.len <= INT_MAX);
    crypto_random(nonce, AEAD_NONCE_LEN);
    ASSERT(gcm.encrypt_init(c, key, AEAD_KEY_LEN, nonce, AEAD_NONCE_LEN, NULL));
    gcm_run(c, aad, p, n, text);
    ASSERT(gcm.final(c, none, &len, 0) && len == 0);
    ASSERT(gcm.get_ctx_params(c, get_tag));
    gcm.freectx(c);
}

enum err aead_open(const uint8_t key[AEAD_KEY_LEN], struct str aad, const void *p, size_t n, uint8_t *out)
{
    const uint8_t *nonce = p, *text;
    uint8_t tag[AEAD_TAG_LEN], none[1];
    OSSL_PARAM set_tag[] = {
        OSSL_PARAM_octet_string(OSSL_CIPHER_PARAM_AEAD_TAG, tag, AEAD_TAG_LEN), OSSL_PARAM_END,
    };
    size_t text_len, len;
    bool opened;
    void *c;

    ASSERT(aad.len <= INT_MAX);
    if (n < AEAD_OVERHEAD || n > INT_MAX)
        return E_TAMPERED;
    text = nonce + AEAD_NONCE_LEN;
    text_len = n - AEAD_OVERHEAD;
    memcpy(tag, text + text_len, AEAD_TAG_LEN);

    c = gcm_new();
    ASSERT(gcm.decrypt_init(c, key, AEAD_KEY_LEN, nonce, AEAD_NONCE_LEN, set_tag));
    gcm_run(c, aad, text, text_len, out);
    opened = gcm.final(c, none, &len, 0) > 0;
    gcm.freectx(c);
    if (!opened && text_len > 0)
        bytes_wipe(out, text_len);      /* plain text that nobody vouches for */
    return opened ? OK : E_TAMPERED;
}

/* ---- signatures ---- */

void ed25519_public(const uint8_t secret[32], uint8_t public_[32])
{
    EVP_PKEY *key = EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, NULL, secret, ED25519_LEN);
    size_t len = ED25519_LEN;

    ASSERT(key);
    ASSERT(EVP_PKEY_get_raw_public_key(key, public_, &len) && len == ED25519_LEN);
    EVP_PKEY_free(key);
}

void ed25519_keypair(uint8_t secret[32], uint8_t public_[32])
{
    crypto_random(secret, ED25519_LEN);
    ed25519_public(secret, public_);
}

/* With both halves at hand OpenSSL does not compute the public one, which takes as long as a signature. */
static EVP_PKEY *ed25519_pair(const uint8_t secret[32], const uint8_t public_[32])
{
    EVP_PKEY_CTX *c = EVP_PKEY_CTX_new_from_name(NULL, "ED25519", NULL);
    OSSL_PARAM halves[] = {
        OSSL_PARAM_construct_octet_string(OSSL_PKEY_PARAM_PRIV_KEY, (void *)(uintptr_t)secret, ED25519_LEN),
        OSSL_PARAM_construct_octet_string(OSSL_PKEY_PARAM_PUB_KEY, (void *)(uintptr_t)public_, ED25519_LEN),
        OSSL_PARAM_construct_end(),
    };
    EVP_PKEY *key = NULL;

    ASSERT(c && EVP_PKEY_fromdata_init(c) > 0 && EVP_PKEY_fromdata(c, &key, EVP_PKEY_KEYPAIR, halves) > 0);
    EVP_PKEY_CTX_free(c);
    return key;
}

void ed25519_sign(const uint8_t secret[32], const uint8_t public_[32], const void *p, size_t n, uint8_t sig[64])
{
    EVP_PKEY *key = ed25519_pair(secret, public_);
    EVP_MD_CTX *md = EVP_MD_CTX_new();
    size_t len = ED25519_SIG_LEN;

    ASSERT(md);
    ASSERT(EVP_DigestSignInit_ex(md, NULL, NULL, NULL, NULL, key, NULL) > 0);
    ASSERT(EVP_DigestSign(md, sig, &len, n > 0 ? p : (const void *)"", n) > 0 && len == ED25519_SIG_LEN);
    EVP_MD_CTX_free(md);
    EVP_PKEY_free(key);
}

bool ed25519_verify(const uint8_t public_[32], const void *p, size_t n, const uint8_t sig[64])
{
    EVP_PKEY *key = EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, NULL, public_, ED25519_LEN);
    EVP_MD_CTX *md = EVP_MD_CTX_new();
    bool good;

    ASSERT(md);
    good = key && EVP_DigestVerifyInit_ex(md, NULL, NULL, NULL, NULL, key, NULL) > 0 &&
           EVP_DigestVerify(md, sig, ED25519_SIG_LEN, n > 0 ? p : (const void *)"", n) > 0;
    EVP_MD_CTX_free(md);
    EVP_PKEY_free(key);
    return good;
}

/* ---- bytes ---- */

bool bytes_equal_ct(const void *a, const void *b, size_t n)
{
    return n == 0 || CRYPTO_memcmp(a, b, n) == 0;
}

void crypto_random(void *p, size_t n)
{
    uint8_t *to = p;

    if (crypto_random_hook) {
        crypto_random_hook(p, n);
        return;
    }
    while (n > 0) {
        ssize_t got = getrandom(to, n, 0);

        ASSERT(got > 0 || errno == EINTR);
        if (got > 0) {
            to += got;
            n -= (size_t)got;
        }
    }
}

/* ---- bytes as text ---- */

#ifdef __SSE2__
static inline __m128i hex_digits(__m128i nibbles)
{
    __m128i letter = _mm_cmpgt_epi8(nibbles, _mm_set1_epi8(9));
    __m128i up = _mm_and_si128(letter, _mm_set1_epi8('a' - '0' - 10));

    return _mm_add_epi8(_mm_add_epi8(nibbles, _mm_set1_epi8('0')), up);
}

/* Digests are 32 bytes: two steps. */
static inline void hex16(const uint8_t *from, char *to)
{
    __m128i v = _mm_loadu_si128((const __m128i *)(const void *)from), four = _mm_set1_epi8(15);
    __m128i high = hex_digits(_mm_and_si128(_mm_srli_epi16(v, 4), four)), low = hex_digits(_mm_and_si128(v, four));

    _mm_storeu_si128((__m128i *)(void *)to, _mm_unpacklo_epi8(high, low));
    _mm_storeu_si128((__m128i *)(void *)(to + 16), _mm_unpackhi_epi8(high, low));
}
#endif

void crypto_errors_clear(void)
{
    if (ERR_peek_error())
        ERR_clear_error();
}

void buf_add_hex(struct buf *b, const void *p, size_t n)
{
    static const char digits[] = "0123456789abcdef";
    const uint8_t *from = p;
    char *to = n <= SIZE_MAX / 2 ? buf_reserve(b, n * 2) : NULL;

    if (!to)
        return;
    b->len += n * 2;
#ifdef __SSE2__
    for (; n >= 16; n -= 16, from += 16, to += 32)
        hex16(from, to);
#endif
    for (size_t i = 0; i < n; i++) {
        *to++ = digits[from[i] >> 4];
        *to++ = digits[from[i] & 15];
    }
}

enum err hex_decode(struct str s, uint8_t *out, size_t out_len)
{
    if (s.len % 2 != 0 || s.len / 2 != out_len)
        return E_FORMAT;
    for (size_t i = 0; i < out_len; i++) {
        int high = hex_digit(s.p[2 * i]), low = hex_digit(s.p[2 * i + 1]);

        if (high < 0 || low < 0)
            return E_FORMAT;
        out[i] = (uint8_t)(high << 4 | low);
    }
    return OK;
}

static const char b64_digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
static const char b64url_digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/* Nothing is written beyond what has been read, if p is as far behind `to` as the text is longer than its n bytes. */
static void b64_put(const uint8_t *p, size_t n, char *to, const char *digits, bool padded)
{
    size_t tail = n % 3;

    for (size_t i = 0; i + 3 <= n; i += 3) {
        unsigned v = (unsigned)p[i] << 16 | (unsigned)p[i + 1] << 8 | p[i + 2];

        *to++ = digits[v >> 18];
        *to++ = digits[v >> 12 & 63];
        *to++ = digits[v >> 6 & 63];
        *to++ = digits[v & 63];
    }
    if (tail > 0) {
        unsigned v = (unsigned)p[n - tail] << 16 | (tail == 2 ? (unsigned)p[n - 1] << 8 : 0);

        *to++ = digits[v >> 18];
        *to++ = digits[v >> 12 & 63];
        if (tail == 2)
            *to++ = digits[v >> 6 & 63];
        for (; padded && tail < 3; tail++)
            *to++ = '=';
    }
}

static size_t b64_len(size_t n, bool padded)
{
    size_t tail = n % 3;

    if (n > SIZE_MAX / 2)
        return SIZE_MAX;        /* cannot fit: let the buf say so */
    return n / 3 * 4 + (tail == 0 ? 0 : padded ? 4 : tail + 1);
}

static void add_b64(struct buf *b, struct str s, const char *digits, bool padded)
{
    size_t len = b64_len(s.len, padded);
    char *to = buf_reserve(b, len);

    if (!to)
        return;
    b64_put((const uint8_t *)s.p, s.len, to, digits, padded);
    b->len += len;
}

void buf_b64_rest(struct buf *b, size_t from)
{
    size_t n = b->len - from, len = b64_len(n, true);

    ASSERT(from <= b->len);
    if (n == 0 || !buf_reserve(b, len - n))
        return;
    memmove(b->p + from + len - n, b->p + from, n);
    b64_put((const uint8_t *)b->p + from + len - n, n, b->p + from, b64_digits, true);
    b->len = from + len;
}

void buf_add_b64(struct buf *b, struct str s)
{
    add_b64(b, s, b64_digits, true);
}

void buf_add_b64url(struct buf *b, struct str s)
{
    add_b64(b, s, b64url_digits, false);
}

static int b64_value(char c, const char *digits)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    if (c == digits[62])
        return 62;
    return c == digits[63] ? 63 : -1;
}

/* s has no padding left. Spare bits of the last digit must be zero: one text for one value. */
static enum err decode_b64(struct arena *a, struct str s, const char *digits, struct str *ret)
{
    size_t tail = s.len % 4, len = s.len / 4 * 3 + (tail > 0 ? tail - 1 : 0);
    uint32_t bits = 0;
    int n_bits = 0;
    char *out, *to;

    if (tail == 1)
        return E_FORMAT;
    out = to = arena_alloc(a, len);
    if (!out)
        return E_CALL_TOO_LARGE;
    for (size_t i = 0; i < s.len; i++) {
        int v = b64_value(s.p[i], digits);

        if (v < 0)
            return E_FORMAT;
        bits = bits << 6 | (uint32_t)v;
        n_bits += 6;
        if (n_bits >= 8) {
            n_bits -= 8;
            *to++ = (char)(bits >> n_bits);
        }
    }
    if (bits & ((1u << n_bits) - 1))
        return E_FORMAT;
    ASSERT((size_t)(to - out) == len);
    *ret = str_n(out, len);
    return OK;
}

enum err b64_decode(struct arena *a, struct str s, struct str *ret)
{
    if (s.len % 4 != 0)
        return E_FORMAT;
    /* At most two, and only at the end: a third, or one elsewhere, is not a digit. */
    for (int i = 0; i < 2 && s.len > 0 && s.p[s.len - 1] == '='; i++)
        s.len--;
    return decode_b64(a, s, b64_digits, ret);
}

enum err b64url_decode(struct arena *a, struct str s, struct str *ret)
{
    return decode_b64(a, s, b64url_digits, ret);
}
