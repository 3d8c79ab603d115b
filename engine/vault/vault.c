/*
 * vault.c -- opening: the root key is checked, the table of accounts is filled
 *
 * The store's meta row "root-check" holds a constant sealed under the root key: another root key is noticed at
 * start, not when the first grant does not open.
 */
#include "vault/internal.h"

#include "base/crypto.h"
#include "base/metric.h"

#include <stdlib.h>

static void copy_root(const uint8_t *bytes, size_t n, void *arg)
{
    if (n == AEAD_KEY_LEN)
        *(struct secret **)arg = secret_copy(bytes, n);
}

struct root_check {
    bool seal;
    uint8_t sealed[AEAD_KEY_LEN + AEAD_OVERHEAD];
    enum err e;
};

static void root_check(const uint8_t *root, size_t n, void *arg)
{
    static const uint8_t constant[AEAD_KEY_LEN] = "sluice root key check";
    struct root_check *c = arg;
    uint8_t key[AEAD_KEY_LEN], plain[AEAD_KEY_LEN];

    ASSERT(n == AEAD_KEY_LEN);
    hkdf_sha256(root, STR("sluice/root-check/1"), key, sizeof(key));
    if (c->seal)
        aead_seal(key, STR_NULL, constant, sizeof(constant), c->sealed);
    else
        c->e = aead_open(key, STR_NULL, c->sealed, sizeof(c->sealed), plain);
    bytes_wipe(key, sizeof(key));
}

static enum err check_root(struct vault *v, struct errinfo *info)
{
    struct root_check c = { .e = E_TAMPERED };
    struct arena a;
    struct str stored;
    enum err e;

    arena_init(&a, 4096);
    e = store_meta_get(v->store, STR("root-check"), &a, &stored, info);
    if (e == E_NOT_FOUND) {
        c.seal = true;
        secret_use(v->root, root_check, &c);
        e = store_meta_put(v->store, STR("root-check"), str_n(c.sealed, sizeof(c.sealed)), info);
    } else if (!e) {
        if (stored.len == sizeof(c.sealed)) {
            memcpy(c.sealed, stored.p, stored.len);
            secret_use(v->root, root_check, &c);
        }
        if (c.e)
            e = err_set(info, E_CONFIG, "the root key is not the one this store was sealed under");
    }
    arena_release(&a);
    return e;
}

static enum err load_account(const struct store_account *a, const struct store_grant *g, void *arg)
{
    struct vault *v = arg;
    struct vault_slot *s = slot_make(v, a);

    s->status = (uint8_t)a->status;
    s->generation = g->generation;
    s->obtained = g->obtained;
    s->expires = g->expires;
    s->lost = g->refreshing != 0;
    if (a->created > v->newest)
        v->newest = a->created;
    slot_release(s);
    return OK;
}

static void make_shards(struct shard shards[SHARDS])
{
    for (size_t i = 0; i < SHARDS; i++)
        pthread_mutex_init(&shards[i].lock, NULL);
}

static void make_labels(struct vault *v)
{
    v->label_ok = metric_label(M_REFRESHES_TOTAL, STR("ok"));
    v->label_transient = metric_label(M_REFRESHES_TOTAL, STR("later"));
    v->label_lost = metric_label(M_REFRESHES_TOTAL, STR("lost"));
    v->label_dead = metric_label(M_REFRESHES_TOTAL, STR("reconnect"));
    v->label_client = metric_label(M_REFRESHES_TOTAL, STR("client"));
    v->label_conflict = metric_label(M_REFRESHES_TOTAL, STR("conflict"));
    v->label_unsaved = metric_label(M_REFRESHES_TOTAL, STR("unsaved"));
}

enum err vault_open(const struct vault_config *config, struct vault **ret, struct errinfo *info)
{
    struct vault *v = aligned_alloc(64, (sizeof(*v) + 63) / 64 * 64);
    enum err e = OK;

    ASSERT(v && config->store && config->root);
    memset(v, 0, sizeof(*v));
    v->magic = VAULT_MAGIC;
    v->store = config->store;
    v->http = config->http;
    v->accounts_max = config->accounts_max ? config->accounts_max : 1000000;
    v->refresh_margin = config->refresh_margin ? config->refresh_margin : 60 * NS_PER_S;
    v->refresh_timeout = config->refresh_timeout ? config->refresh_timeout : 20 * NS_PER_S;
    v->early_refresh = !config->no_early_refresh;
    v->crash_point = config->crash_point;
    seal_init(v);
    pthread_mutex_init(&v->accounts_lock, NULL);
    make_shards(v->by_id);
    make_shards(v->by_owner);
    make_shards(v->delegations);
    make_labels(v);
    secret_use(config->root, copy_root, &v->root);
    if (!v->root)
        e = err_set(info, E_CONFIG, "the root key is not 32 bytes, or there is no protected memory for it");
    if (!e)
        e = check_root(v, info);
    if (!e)
        e = store_accounts_each(v->store, load_account, v, info);
    if (!e)
        e = delegations_load(v, info);
    if (e) {
        vault_close(v);
        return e;
    }
    *ret = v;
    return OK;
}

static void close_shard(struct vault *v, struct shard *shard)
{
    struct map_slot *m;
    size_t i = 0;

    while ((m = map_next(&shard->map, &i))) {
        struct vault_slot *s = m->value;

        ASSERT(!s->flight.busy && !s->current && atomic_load(&s->refs) == 1);
        slot_release(s);
    }
    map_release(&shard->map);
    pthread_mutex_destroy(&shard->lock);
}

void vault_close(struct vault *v)
{
    MAGIC_CHECK(v, VAULT_MAGIC);
    for (size_t i = 0; i < SHARDS; i++) {
        map_release(&v->by_owner[i].map);
        pthread_mutex_destroy(&v->by_owner[i].lock);
        close_shard(v, &v->by_id[i]);
    }
    delegations_release(v);
    seal_release(v);
    pthread_mutex_destroy(&v->accounts_lock);
    secret_release(v->root);
    v->magic = 0;
    free(v);
}
