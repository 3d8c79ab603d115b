/*
 * seal.c -- sealing: root key -> tenant key -> epoch key -> bytes
 *
 *   root key       32 bytes, outside (root.c)
 *   tenant key     32 random bytes; in the store sealed under HKDF(root, "sluice/tenant-keys/1") with the tenant's name
 *                  as associated data.  Random, not derived: destroying the row destroys what was sealed (shredding)
 *   epoch key      HKDF(tenant key, "sluice/seal/1" || salt); the salt is random per process and tenant, and renewed
 *                  after EPOCH_SEALS uses: AES-GCM with random nonces must not seal more than 2^32 messages per key
 *
 *   sealed = 01 | salt 16 | nonce 12 | ciphertext | tag 16
 *   associated data = 01 | salt | len(tenant) tenant | len(account) account | len(purpose) purpose     (len: 2
 *   bytes, big endian)
 *
 * Keys are struct secrets; a copy on the stack exists during one operation and is wiped.
 */
#include "vault/internal.h"

#include "base/crypto.h"
#include "loop/task.h"
#include "loop/world.h"

#include <stdlib.h>

enum { FORM = 1, SALT_LEN = 16, NAME_LEN_MAX = 512, AAD_MAX = 1 + SALT_LEN + 3 * (2 + NAME_LEN_MAX) };

#define EPOCH_SEALS (1ULL << 30)

STATIC_ASSERT(VAULT_SEAL_OVERHEAD == 1 + SALT_LEN + AEAD_OVERHEAD, "the form above");

static void copy_key(const uint8_t *bytes, size_t n, void *arg)
{
    ASSERT(n == AEAD_KEY_LEN);
    memcpy(arg, bytes, n);
}

static void derive(const struct secret *key, struct str info, uint8_t out[AEAD_KEY_LEN])
{
    uint8_t raw[AEAD_KEY_LEN];

    secret_use(key, copy_key, raw);
    hkdf_sha256(raw, info, out, AEAD_KEY_LEN);
    bytes_wipe(raw, sizeof(raw));
}

static void derive_epoch(const struct secret *master, const uint8_t salt[SALT_LEN], uint8_t out[AEAD_KEY_LEN])
{
    char info[13 + SALT_LEN];

    memcpy(info, "sluice/seal/1", 13);
    memcpy(info + 13, salt, SALT_LEN);
    derive(master, str_n(info, sizeof(info)), out);
}

static struct str make_aad(char out[AAD_MAX], const uint8_t salt[SALT_LEN], const struct tenant_key *k,
    struct str account, struct str purpose)
{
    struct str parts[] = { str_n(k->tenant, k->tenant_len), account, purpose };
    size_t n = 1 + SALT_LEN;

    out[0] = FORM;
    memcpy(out + 1, salt, SALT_LEN);
    for (size_t i = 0; i < ARRAY_LEN(parts); i++) {
        ASSERT(parts[i].len <= NAME_LEN_MAX);
        out[n++] = (char)(parts[i].len >> 8);
        out[n++] = (char)(parts[i].len & 0xff);
        if (parts[i].len)
            memcpy(out + n, parts[i].p, parts[i].len);
        n += parts[i].len;
    }
    return str_n(out, n);
}

/* ---- the table of tenant keys ------------------------------------------------------------------------------------ */

static struct tenant_key *key_among(struct tenant_key *k, struct str tenant, uint64_t hash)
{
    while (k && (k->hash != hash || !str_eq(str_n(k->tenant, k->tenant_len), tenant)))
        k = k->next;
    return k;
}

/* In each call, on every thread, so without a lock: a key's entry is complete before it is in the table, and stays
 * there. */
struct tenant_key *key_find(struct vault *v, struct str tenant, uint64_t hash)
{
    return key_among(atomic_load_explicit(&v->tenants[hash % TENANT_CHAINS], memory_order_acquire), tenant, hash);
}

static struct tenant_key *key_named(struct vault *v, struct str tenant)
{
    return key_find(v, tenant, hash_bytes(tenant.p, tenant.len));
}

static struct tenant_key *key_make(struct vault *v, struct str tenant)
{
    uint64_t hash = hash_bytes(tenant.p, tenant.len);
    _Atomic(struct tenant_key *) *chain = &v->tenants[hash % TENANT_CHAINS];
    struct tenant_key *k;

    pthread_mutex_lock(&v->tenants_lock);
    k = key_among(*chain, tenant, hash);
    if (!k) {
        k = calloc(1, sizeof(*k) + tenant.len);
        ASSERT(k);
        pthread_mutex_init(&k->lock, NULL);
        k->hash = hash;
        k->tenant_len = tenant.len;
        memcpy(k->tenant, tenant.p, tenant.len);
        k->next = *chain;
        atomic_store_explicit(chain, k, memory_order_release);
    }
    pthread_mutex_unlock(&v->tenants_lock);
    return k;
}

static void key_wipe(struct tenant_key *k)
{
    pthread_mutex_lock(&k->lock);
    secret_release(k->master);
    secret_release(k->epoch);
    k->master = k->epoch = NULL;
    k->loaded = false;
    pthread_mutex_unlock(&k->lock);
}

void seal_init(struct vault *v)
{
    pthread_mutex_init(&v->tenants_lock, NULL);
    v->tenants = calloc(TENANT_CHAINS, sizeof(*v->tenants));
    ASSERT(v->tenants);
}

void seal_release(struct vault *v)
{
    for (size_t i = 0; i < TENANT_CHAINS; i++) {
        struct tenant_key *k, *next;

        for (k = v->tenants[i]; k; k = next) {
            next = k->next;
            key_wipe(k);
            pthread_mutex_destroy(&k->lock);
            free(k);
        }
    }
    free(v->tenants);
    pthread_mutex_destroy(&v->tenants_lock);
}

/* ---- loading ----------------------------------------------------------------------------------------------------- */

static enum err stored_key(struct vault *v, struct str tenant, struct arena *a, struct str *ret, struct errinfo *info)
{
    uint8_t root[AEAD_KEY_LEN], key[AEAD_KEY_LEN], sealed[AEAD_KEY_LEN + AEAD_OVERHEAD];
    enum err e = store_key_get(v->store, tenant, a, ret, info);

    if (e != E_NOT_FOUND)
        return e;
    derive(v->root, STR("sluice/tenant-keys/1"), root);
    crypto_random(key, sizeof(key));
    aead_seal(root, tenant, key, sizeof(key), sealed);
    bytes_wipe(root, sizeof(root));
    bytes_wipe(key, sizeof(key));
    /* Whoever stores first wins: what comes back may be another process's key. */
    return store_key_put(v->store, tenant, str_n(sealed, sizeof(sealed)), world->wall_ms(), a, ret, info);
}

static enum err open_key(struct vault *v, struct str tenant, struct str sealed, struct tenant_key *k,
    struct errinfo *info)
{
    uint8_t root[AEAD_KEY_LEN], key[AEAD_KEY_LEN];
    enum err e = E_TAMPERED;

    derive(v->root, STR("sluice/tenant-keys/1"), root);
    if (sealed.len == AEAD_KEY_LEN + AEAD_OVERHEAD)
        e = aead_open(root, tenant, sealed.p, sealed.len, key);
    bytes_wipe(root, sizeof(root));
    if (e)
        return err_set(info, E_CONFIG, "the key of tenant %.*s does not open: it was sealed under another root key",
            STR_ARG(tenant));
    pthread_mutex_lock(&k->lock);
    if (!k->master)
        k->master = secret_take(key, sizeof(key));
    k->loaded = k->master != NULL;
    if (!k->master)
        e = err_set(info, E_OVERLOADED, "no protected memory for the key of tenant %.*s", STR_ARG(tenant));
    pthread_mutex_unlock(&k->lock);
    bytes_wipe(key, sizeof(key));
    return e;
}

enum err vault_tenant_load(struct vault *v, struct str tenant, struct errinfo *info)
{
    struct tenant_key *k = key_named(v, tenant);
    struct arena a;
    struct str sealed;
    enum err e;

    if (k && k->loaded)
        return OK;
    if (!tenant_valid(tenant))
        return err_set(info, E_CONFIG, "not acceptable as a tenant: %.*s", STR_ARG(tenant));
    arena_init(&a, 4096);
    e = stored_key(v, tenant, &a, &sealed, info);
    if (!e)
        e = open_key(v, tenant, sealed, key_make(v, tenant), info);
    arena_release(&a);
    return e;
}

struct tenant_key *vault_keys_loaded(struct vault *v, struct str tenant, uint64_t tenant_hash)
{
    struct tenant_key *k = key_find(v, tenant, tenant_hash);

    MAGIC_CHECK(v, VAULT_MAGIC);
    return k && k->loaded ? k : NULL;
}

struct load_job {
    struct vault *v;
    struct str tenant;
    struct errinfo *info;
    enum err e;
};

static void load_blocking(void *arg)
{
    struct load_job *j = arg;

    j->e = vault_tenant_load(j->v, j->tenant, j->info);
}

enum err await_vault_keys(struct vault *v, struct str tenant, uint64_t hash, struct tenant_key **ret,
    struct errinfo *info)
{
    struct tenant_key *k = vault_keys_loaded(v, tenant, hash);
    struct load_job j = { v, tenant, info, OK };

    if (!k) {
        await_blocking(load_blocking, &j);
        k = key_find(v, tenant, hash);
    }
    *ret = k;
    return j.e;
}

enum err await_vault_tenant(struct vault *v, struct str tenant, struct errinfo *info)
{
    struct tenant_key *k;

    return await_vault_keys(v, tenant, hash_bytes(tenant.p, tenant.len), &k, info);
}

enum err vault_tenant_shred(struct vault *v, struct str tenant, struct errinfo *info)
{
    struct tenant_key *k;
    enum err e = store_key_delete(v->store, tenant, info);

    k = key_named(v, tenant);
    if (k && (!e || e == E_NOT_FOUND))
        key_wipe(k);
    if (!e || e == E_NOT_FOUND)
        delegations_forget(v, tenant);
    return e;
}

/* ---- sealing ----------------------------------------------------------------------------------------------------- */

/* The current epoch's key and salt. False: not loaded, or no protected memory. */
static bool epoch_key(struct tenant_key *k, uint8_t key[AEAD_KEY_LEN], uint8_t salt[SALT_LEN])
{
    bool have;

    pthread_mutex_lock(&k->lock);
    if (k->master && (!k->epoch || k->sealed >= EPOCH_SEALS)) {
        secret_release(k->epoch);
        crypto_random(k->salt, SALT_LEN);
        derive_epoch(k->master, k->salt, key);
        k->epoch = secret_take(key, AEAD_KEY_LEN);
        k->sealed = 0;
    }
    have = k->epoch != NULL;
    if (have) {
        secret_use(k->epoch, copy_key, key);
        memcpy(salt, k->salt, SALT_LEN);
        k->sealed++;
    }
    pthread_mutex_unlock(&k->lock);
    return have;
}

/* The key that `salt` names. */
static bool salted_key(struct tenant_key *k, const uint8_t salt[SALT_LEN], uint8_t key[AEAD_KEY_LEN])
{
    bool have;

    pthread_mutex_lock(&k->lock);
    have = k->master != NULL;
    if (k->epoch && !memcmp(k->salt, salt, SALT_LEN))
        secret_use(k->epoch, copy_key, key);
    else if (have)
        derive_epoch(k->master, salt, key);
    pthread_mutex_unlock(&k->lock);
    return have;
}

/* OpenSSL goes 2 to 3 KB deep: sealing and opening run on the loop's stack (task_deep). */
struct sealing {
    struct tenant_key *keys;
    struct str account, purpose, plain;
    struct buf *out;
    enum err err;
};

static void seal_deep(void *arg)
{
    struct sealing *s = arg;
    struct tenant_key *k = s->keys;
    uint8_t key[AEAD_KEY_LEN], salt[SALT_LEN];
    UNSET char aad[AAD_MAX];
    char *p;

    s->err = !k || !epoch_key(k, key, salt) ? E_NOT_FOUND : OK;
    if (s->err)
        return;
    p = buf_reserve(s->out, s->plain.len + VAULT_SEAL_OVERHEAD);
    if (p) {
        p[0] = FORM;
        memcpy(p + 1, salt, SALT_LEN);
        aead_seal(key, make_aad(aad, salt, k, s->account, s->purpose), s->plain.p, s->plain.len,
            (uint8_t *)p + 1 + SALT_LEN);
        s->out->len += s->plain.len + VAULT_SEAL_OVERHEAD;
    }
    bytes_wipe(key, sizeof(key));
    s->err = p ? OK : E_CALL_TOO_LARGE;
}

enum err vault_seal_with(struct tenant_key *k, struct str account, struct str purpose, struct str plain,
    struct buf *out)
{
    struct sealing s = { k, account, purpose, plain, out, OK };

    if (account.len > NAME_LEN_MAX || purpose.len > NAME_LEN_MAX)
        return E_CALL_TOO_LARGE;
    task_deep(seal_deep, &s);
    return s.err;
}

enum err vault_seal(struct vault *v, struct str tenant, struct str account, struct str purpose, struct str plain,
    struct buf *out)
{
    return vault_seal_with(key_named(v, tenant), account, purpose, plain, out);
}

struct unsealing {
    struct tenant_key *keys;
    const struct sealed *sealed;
    uint8_t *to;
    enum err err;
};

/* Opens what has the form into sealed.len - VAULT_SEAL_OVERHEAD bytes. */
static void open_deep(void *arg)
{
    struct unsealing *u = arg;
    const struct sealed *s = u->sealed;
    struct tenant_key *k = u->keys;
    const uint8_t *at = (const uint8_t *)s->bytes.p + 1;
    uint8_t key[AEAD_KEY_LEN];
    UNSET char aad[AAD_MAX];

    u->err = !k || !salted_key(k, at, key) ? E_NOT_FOUND : OK;
    if (u->err)
        return;
    u->err = aead_open(key, make_aad(aad, at, k, s->account, s->purpose), at + SALT_LEN,
        s->bytes.len - 1 - SALT_LEN, u->to);
    bytes_wipe(key, sizeof(key));
}

static bool formed(const struct sealed *s)
{
    return s->bytes.len >= VAULT_SEAL_OVERHEAD && s->bytes.p[0] == FORM && s->account.len <= NAME_LEN_MAX
        && s->purpose.len <= NAME_LEN_MAX;
}

enum err vault_unseal(struct vault *v, struct str tenant, struct str account, struct str purpose, struct str sealed,
    struct buf *out)
{
    struct sealed s = { account, purpose, sealed };
    struct unsealing u = { .keys = key_named(v, tenant), .sealed = &s };

    if (!formed(&s))
        return E_TAMPERED;
    /* + 1: an empty text needs memory to point to */
    u.to = (uint8_t *)buf_reserve(out, sealed.len - VAULT_SEAL_OVERHEAD + 1);
    if (!u.to)
        return E_CALL_TOO_LARGE;
    task_deep(open_deep, &u);
    if (!u.err)
        out->len += sealed.len - VAULT_SEAL_OVERHEAD;
    return u.err;
}

static bool unseal_into(uint8_t *to, size_t n, void *arg)
{
    struct unsealing *u = arg;

    ASSERT(n == u->sealed->bytes.len - VAULT_SEAL_OVERHEAD);
    u->to = to;
    task_deep(open_deep, u);
    return !u->err;
}

enum err unseal_secret(struct tenant_key *k, const struct sealed *s, struct secret **ret)
{
    struct unsealing u = { k, s, NULL, E_OVERLOADED };
    struct secret *opened;

    if (!formed(s))
        return E_TAMPERED;
    opened = secret_fill(s->bytes.len - VAULT_SEAL_OVERHEAD, unseal_into, &u);
    if (opened)
        *ret = opened;
    return u.err;
}
