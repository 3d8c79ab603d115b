/*
 * base_crypto_test.c -- cryptography, text forms of bytes, ids: published vectors, strictness, every flipped bit
 */
#include "base_test.h"

#include <malloc.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <pthread.h>

#include "base/crypto.h"
#include "base/ids.h"
#include "base/map.h"

static void unhex(const char *z, uint8_t *out)
{
    assert_int_equal(hex_decode(str_of(z), out, strlen(z) / 2), OK);
}

static void assert_hex(const void *p, size_t n, const char *z)
{
    struct buf b = BUF_INIT(4096);

    buf_add_hex(&b, p, n);
    assert_str(buf_str(&b), z);
    buf_release(&b);
}

/* ---- cryptography ---- */

static void test_sha256_vectors(void **state)
{
    char *million = malloc(1000000);
    struct str parts[] = { STR("a"), STR_NULL, STR("bc") };
    uint8_t h[SHA256_LEN];

    sha256("", 0, h);
    assert_hex(h, 32, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    sha256(NULL, 0, h);
    assert_hex(h, 32, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    sha256_parts(parts, 3, h);
    assert_hex(h, 32, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    memset(million, 'a', 1000000);
    sha256(million, 1000000, h);
    assert_hex(h, 32, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
    free(million);
}

static void test_hmac_vectors_rfc4231(void **state)
{
    static const char long_key_text[] = "Test Using Larger Than Block-Size Key - Hash Key First";
    uint8_t key[131], h[32];

    memset(key, 0x0b, 20);
    hmac_sha256(key, 20, "Hi There", 8, h);
    assert_hex(h, 32, "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7");
    hmac_sha256("Jefe", 4, "what do ya want for nothing?", 28, h);
    assert_hex(h, 32, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
    memset(key, 0xaa, sizeof(key));
    hmac_sha256(key, 131, long_key_text, sizeof(long_key_text) - 1, h);
    assert_hex(h, 32, "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54");
}

/* RFC 5869 written out a second time, for keys of any length: its test case 3 has one of 22 bytes. */
static void hkdf_again(const uint8_t *key, size_t key_len, struct str info, uint8_t *out, size_t out_len)
{
    uint8_t prk[32], zero[32] = { 0 }, block[32 + 64 + 1], t[32];
    size_t done = 0, t_len = 0;

    hmac_sha256(zero, 32, key, key_len, prk);
    for (uint8_t i = 1; done < out_len; i++) {
        memcpy(block, t, t_len);
        memcpy(block + t_len, info.p, info.len);
        block[t_len + info.len] = i;
        hmac_sha256(prk, 32, block, t_len + info.len + 1, t);
        t_len = 32;
        for (size_t k = 0; k < 32 && done < out_len; k++)
            out[done++] = t[k];
    }
}

static void test_hkdf_rfc5869(void **state)
{
    uint8_t key[32], out[255 * 32], again[255 * 32];

    memset(key, 0x0b, sizeof(key));
    hkdf_again(key, 22, STR(""), again, 42);
    assert_hex(again, 42, "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8");
    for (size_t i = 0; i < 32; i++)
        key[i] = (uint8_t)i;
    hkdf_sha256(key, STR("tenant/1"), out, 80);
    assert_hex(out, 80, "f251eb2b707b15b3b3af450792c6a9565b8e612991e9f14453c1c2bf4686da59"
                        "b8e70c9758f3752547acb987a54f4d9bba44068ec26b51442748af99feb71ae7"
                        "c784c3b661cf4d8856301f92e770e7ed");
    hkdf_sha256(key, STR("x"), out, sizeof(out));
    hkdf_again(key, 32, STR("x"), again, sizeof(again));
    assert_memory_equal(out, again, sizeof(out));
}

static void test_aead_known_bytes_open(void **state)
{
    uint8_t key[32], sealed[12 + 60 + 16], out[60];
    struct str aad;
    uint8_t aad_bytes[20];

    memset(key, 0, sizeof(key));
    unhex("000000000000000000000000cea7403d4d606b6e074ec5d3baf39d18d0d1c8a799996bf0265b98b5d48ab919", sealed);
    assert_int_equal(aead_open(key, STR_NULL, sealed, 44, out), OK);
    assert_hex(out, 16, "00000000000000000000000000000000");

    unhex("feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308", key);
    unhex("feedfacedeadbeeffeedfacedeadbeefabaddad2", aad_bytes);
    unhex("cafebabefacedbaddecaf888522dc1f099567d07f47f37a32a84427d643a8cdc"
          "bfe5c0c97598a2bd2555d1aa8cb08e48590dbb3da7b08b1056828838c5f61e63"
          "93ba7a0abcc9f66276fc6ece0f4e1768cddf8853bb2d551b", sealed);
    aad = str_n(aad_bytes, 20);
    assert_int_equal(aead_open(key, aad, sealed, sizeof(sealed), out), OK);
    assert_hex(out, 60, "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72"
                        "1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39");
    assert_int_equal(aead_open(key, STR_NULL, sealed, sizeof(sealed), out), E_TAMPERED);
}

static void test_aead_any_changed_bit_is_noticed(void **state)
{
    static const char text[] = "refresh-token-of-somebody";
    uint8_t key[32] = { 7 }, sealed[sizeof(text) + AEAD_OVERHEAD], again[sizeof(sealed)], out[sizeof(text)];
    struct str aad = STR("tenant|account|grant");

    aead_seal(key, aad, text, sizeof(text), sealed);
    aead_seal(key, aad, text, sizeof(text), again);
    assert_memory_not_equal(sealed, again, AEAD_NONCE_LEN);
    assert_int_equal(aead_open(key, aad, sealed, sizeof(sealed), out), OK);
    assert_memory_equal(out, text, sizeof(text));
    for (size_t bit = 0; bit < sizeof(sealed) * 8; bit++) {
        sealed[bit / 8] ^= (uint8_t)(1 << bit % 8);
        memset(out, 'x', sizeof(out));
        assert_int_equal(aead_open(key, aad, sealed, sizeof(sealed), out), E_TAMPERED);
        for (size_t i = 0; i < sizeof(out); i++)
            assert_int_equal(out[i], 0);        /* nothing unvouched for is left behind */
        sealed[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    for (size_t n = 0; n < sizeof(sealed); n++)
        assert_int_equal(aead_open(key, aad, sealed, n, out), E_TAMPERED);
    assert_int_equal(aead_open(key, STR("tenant|account|grand"), sealed, sizeof(sealed), out), E_TAMPERED);
    key[31] ^= 1;
    assert_int_equal(aead_open(key, aad, sealed, sizeof(sealed), out), E_TAMPERED);
    aead_seal(key, STR_NULL, NULL, 0, sealed);
    assert_int_equal(aead_open(key, STR_NULL, sealed, AEAD_OVERHEAD, out), OK);
}

static void fixed_bytes(void *p, size_t n)
{
    memset(p, 0x5a, n);
}

/* The same by way of EVP: nonce, text and tag as aead_seal() puts them. */
static void seal_by_evp(const uint8_t key[32], struct str aad, struct str plain, uint8_t *out)
{
    EVP_CIPHER_CTX *c = EVP_CIPHER_CTX_new();
    int len;

    fixed_bytes(out, AEAD_NONCE_LEN);
    assert_true(EVP_EncryptInit_ex2(c, EVP_aes_256_gcm(), key, out, NULL));
    assert_true(EVP_EncryptUpdate(c, NULL, &len, (const uint8_t *)aad.p, (int)aad.len));
    assert_true(EVP_EncryptUpdate(c, out + AEAD_NONCE_LEN, &len, (const uint8_t *)plain.p, (int)plain.len));
    assert_true(EVP_EncryptFinal_ex(c, out + AEAD_NONCE_LEN + plain.len, &len));
    assert_true(EVP_CIPHER_CTX_ctrl(c, EVP_CTRL_AEAD_GET_TAG, AEAD_TAG_LEN, out + AEAD_NONCE_LEN + plain.len));
    EVP_CIPHER_CTX_free(c);
}

static void test_aead_is_what_evp_makes_of_it(void **state)
{
    enum { TEXT_MAX = 600 };
    uint8_t key[32], text[TEXT_MAX], ours[TEXT_MAX + AEAD_OVERHEAD], theirs[sizeof(ours)], out[TEXT_MAX];

    for (size_t i = 0; i < sizeof(text); i++)
        text[i] = (uint8_t)(i * 31 + 7);
    crypto_random_hook = fixed_bytes;
    for (size_t n = 0; n <= TEXT_MAX; n++) {
        struct str aad = str_n(text, n * 7 % 97), plain = str_n(text, n);

        memset(key, (int)n, sizeof(key));
        aead_seal(key, aad, text, n, ours);
        seal_by_evp(key, aad, plain, theirs);
        assert_memory_equal(ours, theirs, n + AEAD_OVERHEAD);
        assert_int_equal(aead_open(key, aad, theirs, n + AEAD_OVERHEAD, out), OK);
        assert_memory_equal(out, text, n);
    }
    crypto_random_hook = NULL;
}

/* OpenSSL's heap, looked at: blocks in use, and blocks with `heap_key` in them when they were freed. */
static const uint8_t *heap_key;
static long heap_blocks, heap_freed_with_key;

static void *heap_malloc(size_t n, const char *file, int line)
{
    heap_blocks++;
    return malloc(n);
}

static void heap_free(void *p, const char *file, int line)
{
    if (!p)
        return;
    heap_blocks--;
    if (heap_key && memmem(p, malloc_usable_size(p), heap_key, 16))
        heap_freed_with_key++;
    free(p);
}

static void *heap_realloc(void *p, size_t n, const char *file, int line)
{
    if (!p)
        return heap_malloc(n, file, line);
    return realloc(p, n);
}

/* A key schedule begins with the key. */
static void test_aead_leaves_no_key_on_the_heap(void **state)
{
    uint8_t key[32], sealed[100 + AEAD_OVERHEAD], out[100] = { 0 };
    long before;

    for (size_t i = 0; i < sizeof(key); i++)
        key[i] = (uint8_t)(0xc1 ^ i * 13);
    aead_seal(key, STR("x"), "warm", 4, sealed);
    heap_key = key;
    OPENSSL_free(OPENSSL_memdup(key, sizeof(key)));
    assert_int_equal(heap_freed_with_key, 1);       /* it would be seen */
    before = heap_blocks;
    for (int i = 0; i < 3; i++) {
        aead_seal(key, STR("aad"), out, sizeof(out), sealed);
        assert_int_equal(aead_open(key, STR("aad"), sealed, sizeof(sealed), out), OK);
        sealed[50] ^= 1;
        assert_int_equal(aead_open(key, STR("aad"), sealed, sizeof(sealed), out), E_TAMPERED);
    }
    assert_int_equal(heap_blocks, before);          /* nothing is kept, */
    assert_int_equal(heap_freed_with_key, 1);       /* and nothing was given back as it was */
    heap_key = NULL;
}

static void test_ed25519_rfc8032(void **state)
{
    uint8_t secret[32], public_[32], sig[64], msg = 0x72;

    unhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60", secret);
    ed25519_public(secret, public_);
    assert_hex(public_, 32, "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a");
    ed25519_sign(secret, public_, NULL, 0, sig);
    assert_hex(sig, 64, "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155"
                        "5fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b");
    assert_true(ed25519_verify(public_, NULL, 0, sig));
    assert_false(ed25519_verify(public_, &msg, 1, sig));
    unhex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb", secret);
    unhex("3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c", public_);
    ed25519_sign(secret, public_, &msg, 1, sig);
    assert_hex(sig, 64, "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
                        "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00");
    assert_true(ed25519_verify(public_, &msg, 1, sig));
    sig[40] ^= 4;
    assert_false(ed25519_verify(public_, &msg, 1, sig));
    ed25519_keypair(secret, public_);
    ed25519_sign(secret, public_, "abc", 3, sig);
    assert_true(ed25519_verify(public_, "abc", 3, sig));
    memset(public_, 0xff, 32);          /* not a point */
    assert_false(ed25519_verify(public_, "abc", 3, sig));
}

static void count_up(void *p, size_t n)
{
    static uint8_t next;

    for (size_t i = 0; i < n; i++)
        ((uint8_t *)p)[i] = next++;
}

static void test_randomness_can_be_replaced(void **state)
{
    uint8_t a[300] = { 0 }, zero[300] = { 0 };
    struct id first, second;

    crypto_random(a, sizeof(a));
    assert_memory_not_equal(a, zero, sizeof(a));
    id_new("call");                     /* a batch is at hand, and must not be used below */
    crypto_random_hook = count_up;
    first = id_new("call");
    second = id_new("call");
    crypto_random_hook = NULL;
    assert_string_equal(first.z, "call_00041061050r3gg28a1c60t3gf");
    assert_string_not_equal(first.z, second.z);
}

static void test_base64_vectors_rfc4648(void **state)
{
    static const char *const pairs[][2] = {
        { "", "" }, { "f", "Zg==" }, { "fo", "Zm8=" }, { "foo", "Zm9v" }, { "foob", "Zm9vYg==" },
        { "fooba", "Zm9vYmE=" }, { "foobar", "Zm9vYmFy" }, { "\xfb\xff\xfe", "+//+" },
    };
    struct buf b = BUF_INIT(100);
    struct arena a;
    struct str out;

    arena_init(&a, 100000);
    for (size_t i = 0; i < ARRAY_LEN(pairs); i++) {
        buf_clear(&b);
        buf_add_b64(&b, str_of(pairs[i][0]));
        assert_str(buf_str(&b), pairs[i][1]);
        assert_int_equal(b64_decode(&a, buf_str(&b), &out), OK);
        assert_str(out, pairs[i][0]);
        buf_clear(&b);
        buf_add_b64url(&b, str_of(pairs[i][0]));
        assert_int_equal(b64url_decode(&a, buf_str(&b), &out), OK);
        assert_str(out, pairs[i][0]);
    }
    assert_str(buf_str(&b), "-__-");
    buf_release(&b);
    arena_release(&a);
}

static void test_base64_is_strict(void **state)
{
    static const char *const bad[] = {
        "Z", "Zg", "Zg=", "Zh==", "Zm9=", "Zm8", "Zm 8", "Zm8=\n", "=", "==", "===", "====", "Z===",
        "Zg==Zg==", "Zm9v====",
        "Zm9-", "Zm9_", "Zg=a", "Zm\xc3\xa9", "Zm9v=",
    };
    static const char *const bad_url[] = { "Z", "Zh", "Zm9", "Zg==", "Zm8=", "+//+", "Zm 8", "Zm8\n", "Zm9vZ" };
    struct arena a, tiny;
    struct str out = STR("kept");

    arena_init(&a, 100000);
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        if (b64_decode(&a, str_of(bad[i]), &out) != E_FORMAT)
            fail_msg("\"%s\" is taken", bad[i]);
    }
    for (size_t i = 0; i < ARRAY_LEN(bad_url); i++) {
        if (b64url_decode(&a, str_of(bad_url[i]), &out) != E_FORMAT)
            fail_msg("\"%s\" is taken", bad_url[i]);
    }
    assert_int_equal(b64_decode(&a, str_n("Zm\0v", 4), &out), E_FORMAT);
    arena_init(&tiny, 16);
    assert_int_equal(b64_decode(&tiny, STR("MDEyMzQ1Njc4OWFiY2RlZmdo"), &out), E_CALL_TOO_LARGE);
    assert_str(out, "kept");
    arena_release(&tiny);
    arena_release(&a);
}

/* Digit by digit, as RFC 4648 says it. */
static void b64_slow(struct buf *b, struct str s, const char *last, bool padded)
{
    char digits[65] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

    memcpy(digits + 62, last, 2);
    for (size_t bit = 0; bit < s.len * 8; bit += 6) {
        unsigned v = 0;

        for (size_t i = bit; i < bit + 6; i++)
            v = v << 1 | (i < s.len * 8 ? (unsigned char)s.p[i / 8] >> (7 - i % 8) & 1 : 0);
        buf_add_c(b, digits[v]);
    }
    while (padded && b->len % 4 != 0)
        buf_add_c(b, '=');
}

static void test_base64_is_what_it_is_digit_by_digit(void **state)
{
    struct buf ours = BUF_INIT(1000), theirs = BUF_INIT(1000);
    uint8_t bytes[300];

    for (unsigned round = 0; round < 900; round++) {
        struct str s = str_n(bytes, round % 300);

        crypto_random(bytes, sizeof(bytes));
        buf_clear(&ours);
        buf_clear(&theirs);
        buf_add_b64(&ours, s);
        b64_slow(&theirs, s, "+/", true);
        assert_true(str_eq(buf_str(&ours), buf_str(&theirs)));
        buf_clear(&ours);
        buf_add_str(&ours, s);
        buf_b64_rest(&ours, 0);
        assert_true(str_eq(buf_str(&ours), buf_str(&theirs)));
        buf_clear(&ours);
        buf_add_z(&ours, "before");
        buf_add_str(&ours, s);
        buf_b64_rest(&ours, 6);
        assert_true(str_starts(buf_str(&ours), STR("before")));
        assert_true(str_eq(str_from(buf_str(&ours), 6), buf_str(&theirs)));
        buf_clear(&ours);
        buf_clear(&theirs);
        buf_add_b64url(&ours, s);
        b64_slow(&theirs, s, "-_", false);
        assert_true(str_eq(buf_str(&ours), buf_str(&theirs)));
    }
    buf_release(&ours);
    ours = BUF_INIT(11);
    buf_add_z(&ours, "eight by");
    buf_b64_rest(&ours, 0);
    assert_true(ours.overflow);
    buf_release(&ours);
    buf_release(&theirs);
}

static void test_base64_any_bytes_return(void **state)
{
    struct buf b = BUF_INIT(1000);
    struct arena a;
    uint8_t bytes[200];

    arena_init(&a, 1 << 20);
    for (size_t n = 0; n < sizeof(bytes); n++) {
        struct str out;

        crypto_random(bytes, n);
        buf_clear(&b);
        buf_add_b64(&b, str_n(bytes, n));
        assert_int_equal(b64_decode(&a, buf_str(&b), &out), OK);
        assert_true(str_eq(out, str_n(bytes, n)));
        buf_clear(&b);
        buf_add_b64url(&b, str_n(bytes, n));
        assert_int_equal(b64url_decode(&a, buf_str(&b), &out), OK);
        assert_true(str_eq(out, str_n(bytes, n)));
    }
    buf_release(&b);
    arena_release(&a);
}

static void test_hex_and_comparison(void **state)
{
    uint8_t out[2];

    assert_int_equal(hex_decode(STR("aBcD"), out, 2), OK);
    assert_true(out[0] == 0xab && out[1] == 0xcd);
    assert_int_equal(hex_decode(STR("abc"), out, 2), E_FORMAT);
    assert_int_equal(hex_decode(STR("abcde"), out, 2), E_FORMAT);
    assert_int_equal(hex_decode(STR("abcdef"), out, 2), E_FORMAT);
    assert_int_equal(hex_decode(STR("abcg"), out, 2), E_FORMAT);
    assert_true(bytes_equal_ct("abc", "abd", 2) && !bytes_equal_ct("abc", "abd", 3) && bytes_equal_ct(NULL, NULL, 0));
}

static void *sha_in_thread(void *arg)
{
    uint8_t h[32];

    for (int i = 0; i < 100; i++)
        sha256("abc", 3, h);
    assert_hex(h, 32, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    return NULL;
}

static void test_crypto_in_threads(void **state)
{
    pthread_t t[8];

    for (size_t i = 0; i < ARRAY_LEN(t); i++)
        assert_int_equal(pthread_create(&t[i], NULL, sha_in_thread, NULL), 0);
    for (size_t i = 0; i < ARRAY_LEN(t); i++)
        pthread_join(t[i], NULL);
}

/* ---- ids ---- */

static void test_ids_have_their_form_and_differ(void **state)
{
    enum { N = 1000 };
    struct map seen = MAP_INIT;
    static struct id ids[N];

    for (size_t i = 0; i < N; i++) {
        ids[i] = id_new("approval");
        assert_int_equal(strlen(ids[i].z), 8 + 1 + 26);
        assert_memory_equal(ids[i].z, "approval_", 9);
        assert_int_equal(strspn(ids[i].z + 9, "0123456789abcdefghjkmnpqrstvwxyz"), 26);
        assert_null(map_put(&seen, str_of(ids[i].z), &ids[i]));
    }
    map_release(&seen);
}

static uint8_t id_bytes[16];

static void known_bytes(void *p, size_t n)
{
    memcpy(p, id_bytes, n);
}

/* Five bits at a time from the low end of 128. */
static void test_ids_are_base32_of_their_bytes(void **state)
{
    static const char digits[] = "0123456789abcdefghjkmnpqrstvwxyz";

    crypto_random_hook = known_bytes;
    for (unsigned round = 0; round < 2000; round++) {
        unsigned __int128 v = 0;
        char text[40] = "x_00000000000000000000000000";

        for (size_t i = 0; i < 16; i++) {
            id_bytes[i] = (uint8_t)(round < 128 ? (round / 8 == i ? 1u << round % 8 : 0) : (round * 2654435761u) >> i);
            v = v << 8 | id_bytes[i];
        }
        for (size_t i = 26; i > 0; i--, v >>= 5)
            text[1 + i] = digits[(unsigned)v & 31];
        assert_string_equal(id_new("x").z, text);
    }
    crypto_random_hook = NULL;
}

static void test_ids_differ_after_fork(void **state)
{
    struct id ours, theirs;
    int ends[2];
    pid_t child;

    id_new("x");                        /* leaves a batch that both would use */
    assert_int_equal(pipe(ends), 0);
    child = fork();
    if (child == 0) {
        theirs = id_new("x");
        _exit(write(ends[1], &theirs, sizeof(theirs)) == (ssize_t)sizeof(theirs) ? 0 : 1);
    }
    ours = id_new("x");
    assert_int_equal(read(ends[0], &theirs, sizeof(theirs)), sizeof(theirs));
    waitpid(child, NULL, 0);
    close(ends[0]);
    close(ends[1]);
    assert_string_not_equal(ours.z, theirs.z);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sha256_vectors),
        cmocka_unit_test(test_hmac_vectors_rfc4231),
        cmocka_unit_test(test_hkdf_rfc5869),
        cmocka_unit_test(test_aead_known_bytes_open),
        cmocka_unit_test(test_aead_any_changed_bit_is_noticed),
        cmocka_unit_test(test_aead_is_what_evp_makes_of_it),
        cmocka_unit_test(test_aead_leaves_no_key_on_the_heap),
        cmocka_unit_test(test_ed25519_rfc8032),
        cmocka_unit_test(test_randomness_can_be_replaced),
        cmocka_unit_test(test_base64_vectors_rfc4648),
        cmocka_unit_test(test_base64_is_strict),
        cmocka_unit_test(test_base64_is_what_it_is_digit_by_digit),
        cmocka_unit_test(test_base64_any_bytes_return),
        cmocka_unit_test(test_hex_and_comparison),
        cmocka_unit_test(test_crypto_in_threads),
        cmocka_unit_test(test_ids_have_their_form_and_differ),
        cmocka_unit_test(test_ids_are_base32_of_their_bytes),
        cmocka_unit_test(test_ids_differ_after_fork),
    };

    if (!CRYPTO_set_mem_functions(heap_malloc, heap_realloc, heap_free))       /* before OpenSSL's first block */
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
