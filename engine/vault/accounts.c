/*
 * accounts.c -- the table of accounts in memory: by (tenant, id) and by (tenant, user)
 *
 * Filled at start, changed when an account is stored or removed.  A cold account (not used since start) costs its
 * slot, its names and two table entries: about 600 bytes; its token is read from the store when first asked for.
 */
#include "vault/internal.h"

#include "base/crypto.h"
#include "base/ids.h"
#include "loop/task.h"
#include "loop/world.h"

#include <stdlib.h>

struct str key_join(char out[KEY_MAX], struct str a, struct str b, struct str c)
{
    struct str parts[] = { a, b, c };
    size_t n = 0;

    if (str_empty(a) || a.len + b.len + c.len + 2 > KEY_MAX)
        return STR_NULL;
    for (size_t i = 0; i < ARRAY_LEN(parts) && (i < 2 || c.p); i++) {
        if (i)
            out[n++] = 0;
        if (parts[i].len)
            memcpy(out + n, parts[i].p, parts[i].len);
        n += parts[i].len;
    }
    return str_n(out, n);
}

static struct shard *shard_at(struct shard shards[SHARDS], uint64_t hash)
{
    return &shards[hash >> 8 & (SHARDS - 1)];
}

struct shard *shard_of(struct shard shards[SHARDS], struct str key)
{
    return shard_at(shards, hash_bytes(key.p, key.len));
}

pthread_mutex_t *slot_lock(struct vault *v, const struct vault_slot *s)
{
    return &shard_at(v->by_id, s->hash)->lock;
}

static bool name_ok(struct str s, size_t max)
{
    return s.len <= max && (s.len == 0 || principal_valid(s));
}

enum err check_names(struct str tenant, struct str user, struct str provider, struct str label, struct errinfo *info)
{
    if (!tenant_valid(tenant))
        return err_set(info, E_CONFIG, "not acceptable as a tenant");
    if (!principal_valid(user))
        return err_set(info, E_CONFIG, "not acceptable as a user");
    if (!provider.len || !name_ok(provider, PROVIDER_TEXT_MAX))
        return err_set(info, E_CONFIG, "not acceptable as a provider's name (1 to %d printable bytes)",
            PROVIDER_TEXT_MAX);
    if (!name_ok(label, LABEL_TEXT_MAX))
        return err_set(info, E_CONFIG, "not acceptable as an account's label (at most %d printable bytes)",
            LABEL_TEXT_MAX);
    return OK;
}

/* ---- slots ------------------------------------------------------------------------------------------------------- */

static struct str put(char **at, struct str s)
{
    struct str copy = { *at, s.len };

    if (s.len)
        memcpy(*at, s.p, s.len);
    (*at)[s.len] = 0;
    *at += s.len + 1;
    return copy;
}

static struct vault_slot *slot_new(const struct store_account *a)
{
    /* tenant NUL id NUL | tenant NUL user NUL provider NUL | label NUL: the two keys are runs of these bytes */
    size_t text = 2 * a->tenant.len + a->id.len + a->user.len + a->provider.len + a->label.len + 6;
    struct vault_slot *s = calloc(1, sizeof(*s) + text);
    char *at = (char *)(s + 1);

    ASSERT(s);
    s->magic = SLOT_MAGIC;
    atomic_init(&s->refs, 1);
    s->id_key = str_n(at, a->tenant.len + 1 + a->id.len);
    s->tenant = put(&at, a->tenant);
    s->id = put(&at, a->id);
    s->owner_key = str_n(at, a->tenant.len + 1 + a->user.len);
    put(&at, a->tenant);
    s->user = put(&at, a->user);
    s->provider = put(&at, a->provider);
    s->label = put(&at, a->label);
    ASSERT(at == (char *)(s + 1) + text);
    s->hash = hash_bytes(s->id_key.p, s->id_key.len);
    s->created = a->created;
    s->expires = INT64_MAX;
    slot_set_details(s, a->external_id, a->scopes);
    return s;
}

void slot_set_details(struct vault_slot *s, struct str external_id, struct str scopes)
{
    free(s->external_id);
    free(s->scopes);
    s->external_id = external_id.len ? strndup(external_id.p, external_id.len) : NULL;
    s->scopes = scopes.len ? strndup(scopes.p, scopes.len) : NULL;
}

void slot_release(struct vault_slot *s)
{
    if (!s || atomic_fetch_sub_explicit(&s->refs, 1, memory_order_acq_rel) != 1)
        return;
    MAGIC_CHECK(s, SLOT_MAGIC);
    ASSERT(!s->current && !s->flight.busy);
    if (s->unsaved) {
        free(s->unsaved->sealed);
        free(s->unsaved->access);
        free(s->unsaved);
    }
    free(s->external_id);
    free(s->scopes);
    free(s->access);
    s->magic = 0;
    free(s);
}

static struct vault_slot *slot_get(struct vault *v, struct str key)
{
    uint64_t hash = hash_bytes(key.p, key.len);
    struct shard *shard = shard_at(v->by_id, hash);
    struct vault_slot *s;

    pthread_mutex_lock(&shard->lock);
    s = map_get_hashed(&shard->map, key, hash);
    if (s)
        atomic_fetch_add_explicit(&s->refs, 1, memory_order_relaxed);
    pthread_mutex_unlock(&shard->lock);
    return s;
}

struct vault_slot *slot_find(struct vault *v, struct str tenant, struct str id)
{
    UNSET char text[KEY_MAX];
    struct str key = key_join(text, tenant, id, STR_NULL);

    return key.len ? slot_get(v, key) : NULL;
}

static void owner_add(struct vault *v, struct vault_slot *s)
{
    struct shard *shard = shard_of(v->by_owner, s->owner_key);
    struct vault_slot *first, **at;

    pthread_mutex_lock(&shard->lock);
    first = map_get(&shard->map, s->owner_key);
    if (!first) {
        map_put(&shard->map, s->owner_key, s);
    } else {
        for (at = &first->next; *at; at = &(*at)->next)
            ;
        *at = s;                        /* new accounts are younger than all there are */
    }
    pthread_mutex_unlock(&shard->lock);
}

struct vault_slot *slot_make(struct vault *v, const struct store_account *a)
{
    struct vault_slot *s = slot_new(a), *there;
    struct shard *shard = shard_of(v->by_id, s->id_key);

    pthread_mutex_lock(&shard->lock);
    there = map_get(&shard->map, s->id_key);
    if (!there)
        map_put(&shard->map, s->id_key, s);
    atomic_fetch_add_explicit(&(there ? there : s)->refs, 1, memory_order_relaxed);
    pthread_mutex_unlock(&shard->lock);
    if (there) {
        slot_release(s);
        return there;
    }
    owner_add(v, s);
    atomic_fetch_add(&v->n_accounts, 1);
    return s;
}

void slot_remove(struct vault *v, struct vault_slot *s)
{
    struct shard *owners = shard_of(v->by_owner, s->owner_key), *ids = shard_of(v->by_id, s->id_key);
    struct vault_slot *first, **at;
    bool was_there;

    pthread_mutex_lock(&owners->lock);
    first = map_get(&owners->map, s->owner_key);
    if (first == s) {
        map_del(&owners->map, s->owner_key);            /* the key's bytes are this slot's */
        if (s->next)
            map_put(&owners->map, s->next->owner_key, s->next);
    } else if (first) {
        for (at = &first->next; *at && *at != s; at = &(*at)->next)
            ;
        if (*at)
            *at = s->next;
    }
    s->next = NULL;
    pthread_mutex_unlock(&owners->lock);

    pthread_mutex_lock(&ids->lock);
    was_there = map_get(&ids->map, s->id_key) == s;
    if (was_there)
        map_del(&ids->map, s->id_key);
    s->gone = true;
    free(s->access);
    s->access = NULL;
    pthread_mutex_unlock(&ids->lock);
    if (was_there) {
        atomic_fetch_sub(&v->n_accounts, 1);
        slot_release(s);                /* the tables' reference */
    }
}

/* The oldest account of the owner with this provider, and this label unless any will do. With a reference, or NULL.
 * *ret_place: where its owner stands in the table. */
static struct vault_slot *slot_by_owner(struct vault *v, struct str owner, uint64_t hash, struct str provider,
    struct str label, bool any_label, const void **ret_place)
{
    struct shard *shard = shard_at(v->by_owner, hash);
    struct vault_slot *s;

    pthread_mutex_lock(&shard->lock);
    *ret_place = map_place(&shard->map, hash);
    for (s = map_get_hashed(&shard->map, owner, hash); s; s = s->next) {
        if (str_eq(s->provider, provider) && (any_label || str_eq(s->label, label)))
            break;
    }
    if (s)
        atomic_fetch_add_explicit(&s->refs, 1, memory_order_relaxed);
    pthread_mutex_unlock(&shard->lock);
    return s;
}

/* ---- the public look --------------------------------------------------------------------------------------------- */

/* Lock held. The strings that never change are the slot's own. */
static void describe(const struct vault_slot *s, struct arena *a, struct vault_account *ret)
{
    *ret = (struct vault_account){
        .id = s->id, .user = s->user, .provider = s->provider, .label = s->label,
        .external_id = arena_str(a, str_of(s->external_id)), .scopes = arena_str(a, str_of(s->scopes)),
        .status = s->gone ? ACCOUNT_DISCONNECTED : (enum account_status)s->status,
        .created = s->created, .expires = s->expires, .generation = s->generation,
    };
}

/* The reference becomes *ret's. `who` may be NULL. */
static enum err describe_found(struct vault *v, struct vault_slot *s, const struct caller *who, struct arena *a,
    struct vault_account *ret)
{
    enum err e;

    if (!s)
        return E_ACCOUNT_MISSING;
    pthread_mutex_lock(slot_lock(v, s));
    describe(s, a, ret);
    if (who)
        caller_left(who, TRAIL_ACCESS, s->access);
    pthread_mutex_unlock(slot_lock(v, s));
    ret->slot = s;
    e = arena_overflowed(a) ? E_CALL_TOO_LARGE : ret->status == ACCOUNT_DISCONNECTED ? E_ACCOUNT_MISSING : OK;
    if (e)
        vault_account_release(ret);
    return e;
}

void vault_account_release(struct vault_account *account)
{
    slot_release(account->slot);
    *account = (struct vault_account){ 0 };
}

enum err vault_account_find(struct vault *v, const struct caller *who, struct str provider, struct str label,
    struct arena *a, struct vault_account *ret)
{
    const void *place;
    struct vault_slot *s = slot_by_owner(v, who->owner, who->owner_hash, provider, label, str_empty(label), &place);

    caller_left(who, TRAIL_OWNER, place);
    caller_left(who, TRAIL_ACCOUNT, s);
    return describe_found(v, s, who, a, ret);
}

enum err vault_account_get(struct vault *v, struct str tenant, struct str id, struct arena *a,
    struct vault_account *ret)
{
    return describe_found(v, slot_find(v, tenant, id), NULL, a, ret);
}

static int by_age(const void *x, const void *y)
{
    const struct vault_account *a = x, *b = y;

    if (a->created != b->created)
        return a->created < b->created ? -1 : 1;
    return str_cmp(a->id, b->id);
}

/* For who does not hold it. */
static void own_strings(struct arena *a, struct vault_account *account)
{
    account->id = arena_str(a, account->id);
    account->user = arena_str(a, account->user);
    account->provider = arena_str(a, account->provider);
    account->label = arena_str(a, account->label);
}

static bool listed(const struct vault_slot *s, struct str tenant, struct str user)
{
    return str_eq(s->tenant, tenant) && (str_empty(user) || str_eq(s->user, user));
}

enum err vault_accounts(struct vault *v, struct str tenant, struct str user, struct arena *a,
    struct vault_account **ret,
    size_t *ret_n)
{
    struct vault_account *list = NULL;
    size_t n = 0, room = 0;

    for (size_t i = 0; i < SHARDS; i++) {
        struct map_slot *m;
        size_t at = 0;

        pthread_mutex_lock(&v->by_id[i].lock);
        while ((m = map_next(&v->by_id[i].map, &at))) {
            if (!listed(m->value, tenant, user))
                continue;
            if (n == room) {
                struct vault_account *more = ARENA_ARRAY(a, struct vault_account, room ? 2 * room : 16);

                if (!more)
                    break;
                if (n)
                    memcpy(more, list, n * sizeof(*list));
                list = more;
                room = room ? 2 * room : 16;
            }
            describe(m->value, a, &list[n]);
            own_strings(a, &list[n++]);
        }
        pthread_mutex_unlock(&v->by_id[i].lock);
    }
    if (arena_overflowed(a))
        return E_CALL_TOO_LARGE;
    if (n)
        qsort(list, n, sizeof(*list), by_age);
    *ret = list;
    *ret_n = n;
    return OK;
}

/* ---- storing an account ------------------------------------------------------------------------------------------ */

/* The generation to replace: 0 for an account that is not in the store. */
static enum err stored_generation(struct vault *v, struct str tenant, struct str id, uint64_t *ret,
    struct errinfo *info)
{
    struct store_grant g;
    struct arena a;
    enum err e;

    arena_init(&a, 64 * 1024);
    e = store_grant_get(v->store, tenant, id, &a, &g, info);
    arena_release(&a);
    *ret = e ? 0 : g.generation;
    return e == E_NOT_FOUND ? OK : e;
}

static enum err store_it(struct vault *v, const struct new_account *n, struct str id, wall_ms_t now, struct str sealed,
    uint64_t *ret_generation, struct errinfo *info)
{
    struct store_account a = {
        .tenant = n->tenant, .id = id, .user = n->user, .provider = n->provider, .label = n->label,
        .external_id = n->external_id, .scopes = n->scopes, .status = ACCOUNT_CONNECTED, .created = now,
    };
    struct store_grant g = { .sealed = sealed, .obtained = n->grant->obtained, .expires = n->grant->expires };
    bool stored = false;
    enum err e = OK;

    /* A refresh may move the generation between the look and the put; it cannot do so for ever. */
    for (int i = 0; i < 4 && !e && !stored; i++) {
        e = stored_generation(v, n->tenant, id, &g.generation, info);
        g.generation++;
        if (!e)
            e = store_account_put(v->store, &a, &g, &stored, info);
    }
    if (!e && !stored)
        e = err_set(info, E_STORE_UNAVAILABLE, "the account is being changed by somebody else");
    *ret_generation = g.generation;
    return e;
}

/* The store has it: now calls may use it. */
static void show_account(struct vault *v, const struct new_account *n, struct str id, wall_ms_t now,
    uint64_t generation,
    struct buf *access)
{
    struct store_account a = {
        .tenant = n->tenant, .id = id, .user = n->user, .provider = n->provider, .label = n->label, .created = now,
    };
    struct vault_slot *s = slot_make(v, &a);
    size_t len;
    char *bytes = buf_take(access, &len);

    pthread_mutex_lock(slot_lock(v, s));
    slot_set_details(s, n->external_id, n->scopes);
    slot_publish(s, generation, n->grant->obtained, n->grant->expires, n->grant->refresh != NULL, bytes, len, 0);
    pthread_mutex_unlock(slot_lock(v, s));
    slot_release(s);
}

/* The account that a new one takes the place of. With a reference, or NULL. */
static struct vault_slot *slot_replaced(struct vault *v, const struct new_account *n)
{
    UNSET char text[KEY_MAX];
    struct str owner = key_join(text, n->tenant, n->user, STR_NULL);
    const void *place;

    return slot_by_owner(v, owner, hash_bytes(owner.p, owner.len), n->provider, n->label, false, &place);
}

enum err account_store(struct vault *v, const struct new_account *n, wall_ms_t now, struct arena *a, struct str *ret_id,
    struct errinfo *info)
{
    struct buf sealed = BUF_INIT(SEALED_MAX), access = BUF_INIT(SEALED_MAX);
    struct id fresh = id_new("acct");
    struct vault_slot *s;
    struct str id = STR_NULL;
    uint64_t generation;
    enum err e = vault_tenant_load(v, n->tenant, info);

    /* One account is stored or removed at a time, so that store and table agree about who has which label. */
    pthread_mutex_lock(&v->accounts_lock);
    s = slot_replaced(v, n);
    if (now <= v->newest)               /* "the oldest" must mean the same after a restart: no two of one age */
        now = v->newest + 1;
    if (!e && !s && atomic_load(&v->n_accounts) >= v->accounts_max)
        e = err_set(info, E_OVERLOADED, "the vault holds as many accounts as it may");
    if (!e) {
        id = arena_str(a, s ? s->id : str_of(fresh.z));
        e = id.p ? grant_seal(v, n->tenant, id, n->grant, &sealed) : E_CALL_TOO_LARGE;
    }
    if (!e)
        e = access_seal(v, n->tenant, id, n->grant->access, &access);
    if (!e)
        e = store_it(v, n, id, now, buf_str(&sealed), &generation, info);
    if (!e) {
        show_account(v, n, id, now, generation, &access);
        v->newest = now;
        *ret_id = id;
    }
    pthread_mutex_unlock(&v->accounts_lock);
    slot_release(s);
    buf_release(&sealed);
    buf_release(&access);
    return e;
}

static void copy_token(const uint8_t *bytes, size_t n, void *arg)
{
    bool ok = n > 0 && n <= TOKEN_TEXT_MAX;

    for (size_t i = 0; i < n && ok; i++)
        ok = bytes[i] >= 0x21 && bytes[i] <= 0x7e;      /* it goes into a header */
    *(struct secret **)arg = ok ? secret_copy(bytes, n) : NULL;
}

enum err vault_account_put(struct vault *v, const struct vault_static *s, struct arena *a, struct str *ret_id,
    struct errinfo *info)
{
    wall_ms_t now = world->wall_ms();
    struct grant g = { .obtained = now, .expires = INT64_MAX };
    struct new_account n = { s->tenant, s->user, s->provider, s->label, s->external_id, s->scopes, &g };
    enum err e = check_names(s->tenant, s->user, s->provider, s->label, info);

    if (!e && (!name_ok(s->external_id, EXTERNAL_TEXT_MAX) || s->scopes.len > SCOPES_TEXT_MAX))
        e = err_set(info, E_CONFIG, "the account's external id or scopes are not acceptable");
    if (e)
        return e;
    secret_use(s->token, copy_token, &g.access);
    if (!g.access)
        return err_set(info, E_CONFIG, "a token is 1 to %d visible ASCII characters", TOKEN_TEXT_MAX);
    e = account_store(v, &n, now, a, ret_id, info);
    grant_release(&g);
    return e;
}

struct account_job {
    struct vault *v;
    const struct vault_static *s;
    struct str tenant, id, external_id;
    struct arena *a;
    struct str *ret_id;
    struct errinfo *info;
    enum err e;
};

static void put_blocking(void *arg)
{
    struct account_job *j = arg;

    j->e = vault_account_put(j->v, j->s, j->a, j->ret_id, j->info);
}

enum err await_vault_account_put(struct vault *v, const struct vault_static *s, struct arena *a, struct str *ret_id,
    struct errinfo *info)
{
    struct account_job j = { .v = v, .s = s, .a = a, .ret_id = ret_id, .info = info };

    await_blocking(put_blocking, &j);
    return j.e;
}

static void describe_blocking(void *arg)
{
    struct account_job *j = arg;

    j->e = store_account_describe(j->v->store, j->tenant, j->id, j->external_id, j->info);
}

enum err await_vault_account_describe(struct vault *v, struct str tenant, struct str id, struct str external_id,
    struct errinfo *info)
{
    struct account_job j = { .v = v, .tenant = tenant, .id = id, .external_id = external_id, .info = info };
    struct vault_slot *s;

    if (!name_ok(external_id, EXTERNAL_TEXT_MAX))
        return err_set(info, E_CONFIG, "the account's external id is not acceptable");
    s = slot_find(v, tenant, id);
    if (!s)
        return E_ACCOUNT_MISSING;
    await_blocking(describe_blocking, &j);
    if (!j.e) {
        char *copy = external_id.len ? strndup(external_id.p, external_id.len) : NULL;

        pthread_mutex_lock(slot_lock(v, s));
        free(s->external_id);
        s->external_id = copy;
        pthread_mutex_unlock(slot_lock(v, s));
    }
    slot_release(s);
    return j.e == E_NOT_FOUND ? E_ACCOUNT_MISSING : j.e;
}
