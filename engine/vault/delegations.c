/*
 * delegations.c -- what users have delegated to agents, on record: at most one per (tenant, user, agent)
 *
 * A record says which actions (tools or groups of them; none named: all) and until when.  It is sealed under the
 * tenant's key together with whose it is, so that nobody can make, change or move one in the store; what does not open
 * counts as not there.  All are in memory, by (tenant, user, agent): DECIDE looks each actor up, which is one hash and
 * a short lock, and nothing at all while no delegation is on record.
 *
 * A user has a few hundred at most, so that nobody fills the table for others and a list of them fits an answer.
 */
#include "vault/internal.h"

#include <stdlib.h>

#include "base/ids.h"
#include "base/log.h"
#include "json/json.h"
#include "loop/task.h"
#include "loop/world.h"

enum { PLAIN_MAX = 64 * 1024, PAGE_ROWS = 256 };

/* One record in memory: everything in one block. The key is tenant NUL user NUL agent. */
struct held {
    struct str key, tenant, user;
    struct vault_delegation d;
};

/* ---- names ------------------------------------------------------------------------------------------------------- */

static bool action_valid(struct str s)
{
    return s.len <= VAULT_DELEGATION_ACTION_MAX && principal_valid(s);
}

static enum err check(const struct vault_delegate *n, struct errinfo *info)
{
    if (!tenant_valid(n->tenant) || !principal_valid(n->user))
        return err_set(info, E_CONFIG, "not acceptable as a tenant or a user");
    if (!principal_valid(n->agent))
        return err_set(info, E_CONFIG, "agent: 1 to %d printable bytes", IDENTITY_NAME_MAX);
    if (n->n_actions > VAULT_DELEGATION_ACTIONS_MAX)
        return err_set(info, E_CONFIG, "actions: at most %d", VAULT_DELEGATION_ACTIONS_MAX);
    for (unsigned i = 0; i < n->n_actions; i++)
        if (!action_valid(n->actions[i]))
            return err_set(info, E_CONFIG, "actions: each is 1 to %d printable bytes", VAULT_DELEGATION_ACTION_MAX);
    return OK;
}

static enum err check_new(const struct vault_delegate *n, struct errinfo *info)
{
    enum err e = check(n, info);

    for (unsigned i = 0; i < n->n_actions && !e; i++)
        for (unsigned k = 0; k < i && !e; k++)
            if (str_eq(n->actions[i], n->actions[k]))
                e = err_set(info, E_CONFIG, "actions: \"%.*s\" is named twice", STR_ARG(n->actions[i]));
    return e;
}

/* ---- in memory --------------------------------------------------------------------------------------------------- */

static struct str put(char **at, struct str s)
{
    struct str copy = { *at, s.len };

    if (s.len)
        memcpy(*at, s.p, s.len);
    (*at)[s.len] = '\0';
    *at += s.len + 1;
    return copy;
}

static struct held *held_new(const struct vault_delegate *n, struct str id, wall_ms_t since)
{
    size_t names = n->tenant.len + n->user.len + n->agent.len + 3, text = names + id.len + 1;
    struct held *h;
    struct str *actions;
    char *at;

    for (unsigned i = 0; i < n->n_actions; i++)
        text += n->actions[i].len + 1;
    h = calloc(1, sizeof(*h) + n->n_actions * sizeof(struct str) + text);
    ASSERT(h != NULL);
    actions = (struct str *)(h + 1);
    at = (char *)(actions + n->n_actions);
    h->key = str_n(at, names - 1);
    h->tenant = put(&at, n->tenant);
    h->user = put(&at, n->user);
    h->d.agent = put(&at, n->agent);
    h->d.id = put(&at, id);
    for (unsigned i = 0; i < n->n_actions; i++)
        actions[i] = put(&at, n->actions[i]);
    h->d.actions = actions;
    h->d.n_actions = n->n_actions;
    h->d.since = since;
    h->d.expires = n->expires;
    return h;
}

static void held_show(struct vault *v, struct held *h)
{
    struct shard *shard = shard_of(v->delegations, h->key);
    struct held *old;

    pthread_mutex_lock(&shard->lock);
    old = map_del(&shard->map, h->key);         /* its key's bytes are its own */
    map_put(&shard->map, h->key, h);
    pthread_mutex_unlock(&shard->lock);
    if (!old)
        atomic_fetch_add(&v->n_delegations, 1);
    free(old);
}

static struct str id_held(struct vault *v, struct str key, struct arena *a)
{
    struct shard *shard = shard_of(v->delegations, key);
    struct str id = STR_NULL;
    const struct held *h;

    pthread_mutex_lock(&shard->lock);
    h = map_get(&shard->map, key);
    if (h)
        id = arena_str(a, h->d.id);
    pthread_mutex_unlock(&shard->lock);
    return id;
}

static enum err copy_out(struct arena *a, const struct vault_delegation *from, struct vault_delegation *to)
{
    struct str *actions = ARENA_ARRAY(a, struct str, from->n_actions);

    *to = *from;
    to->id = arena_str(a, from->id);
    to->agent = arena_str(a, from->agent);
    for (unsigned i = 0; actions && i < from->n_actions; i++)
        actions[i] = arena_str(a, from->actions[i]);
    to->actions = actions;
    return arena_overflowed(a) ? E_CALL_TOO_LARGE : OK;
}

bool vault_delegations_any(const struct vault *v)
{
    return atomic_load_explicit(&v->n_delegations, memory_order_relaxed) > 0;
}

enum err vault_delegation_find(struct vault *v, struct str tenant, struct str user, struct str agent, wall_ms_t now,
    struct arena *a, const struct vault_delegation **ret)
{
    UNSET char text[KEY_MAX];
    struct str key = key_join(text, tenant, user, agent);
    struct vault_delegation *copy = NULL;
    enum err e = E_NOT_FOUND;
    struct shard *shard;
    struct held *h;

    *ret = NULL;
    if (!key.len)
        return E_NOT_FOUND;
    shard = shard_of(v->delegations, key);
    pthread_mutex_lock(&shard->lock);
    h = map_get(&shard->map, key);
    if (h && now < h->d.expires) {
        copy = ARENA_NEW(a, struct vault_delegation);
        e = copy ? copy_out(a, &h->d, copy) : E_CALL_TOO_LARGE;
    }
    pthread_mutex_unlock(&shard->lock);
    if (!e)
        *ret = copy;
    return e;
}

static int by_agent(const void *x, const void *y)
{
    return str_cmp(((const struct vault_delegation *)x)->agent, ((const struct vault_delegation *)y)->agent);
}

/* Those of a user, in no order, each under its shard's lock, until fn says false. */
static void of_user(struct vault *v, struct str tenant, struct str user,
    bool (*fn)(const struct vault_delegation *d, void *arg), void *arg)
{
    bool more = true;

    for (size_t i = 0; i < SHARDS && more; i++) {
        struct map_slot *m;
        size_t at = 0;

        pthread_mutex_lock(&v->delegations[i].lock);
        while (more && (m = map_next(&v->delegations[i].map, &at))) {
            const struct held *h = m->value;

            if (str_eq(h->tenant, tenant) && str_eq(h->user, user))
                more = fn(&h->d, arg);
        }
        pthread_mutex_unlock(&v->delegations[i].lock);
    }
}

struct listing {
    struct arena *a;
    struct vault_delegation *list;
    size_t n;
};

static bool list_one(const struct vault_delegation *d, void *arg)
{
    struct listing *l = arg;

    return !copy_out(l->a, d, &l->list[l->n++]) && l->n < VAULT_DELEGATIONS_MAX;
}

enum err vault_delegations(struct vault *v, struct str tenant, struct str user, struct arena *a,
    struct vault_delegation **ret, size_t *ret_n)
{
    struct listing l = { a, ARENA_ARRAY(a, struct vault_delegation, VAULT_DELEGATIONS_MAX), 0 };

    if (l.list)
        of_user(v, tenant, user, list_one, &l);
    if (arena_overflowed(a))
        return E_CALL_TOO_LARGE;
    if (l.n)
        qsort(l.list, l.n, sizeof(*l.list), by_agent);
    *ret = l.list;
    *ret_n = l.n;
    return OK;
}

struct looking {
    struct str id;
    struct arena *a;
    struct vault_delegation *ret;
    enum err e;
};

static bool look_at(const struct vault_delegation *d, void *arg)
{
    struct looking *l = arg;

    if (!str_eq(d->id, l->id))
        return true;
    l->e = copy_out(l->a, d, l->ret);
    return false;
}

enum err vault_delegation_get(struct vault *v, struct str tenant, struct str user, struct str id, struct arena *a,
    struct vault_delegation *ret)
{
    struct looking l = { id, a, ret, E_NOT_FOUND };

    of_user(v, tenant, user, look_at, &l);
    return l.e;
}

/* Takes out those that `which` names: of a tenant, or one of them by id. */
static size_t forget(struct vault *v, struct str tenant, struct str user, struct str id)
{
    size_t gone = 0;

    for (size_t i = 0; i < SHARDS; i++) {
        struct map_slot *m;
        size_t at = 0;

        pthread_mutex_lock(&v->delegations[i].lock);
        while ((m = map_next(&v->delegations[i].map, &at))) {
            struct held *h = m->value;

            if (!str_eq(h->tenant, tenant) || (id.len && (!str_eq(h->d.id, id) || !str_eq(h->user, user))))
                continue;
            map_del(&v->delegations[i].map, h->key);
            free(h);
            gone++;
        }
        pthread_mutex_unlock(&v->delegations[i].lock);
    }
    atomic_fetch_sub(&v->n_delegations, gone);
    return gone;
}

void delegations_forget(struct vault *v, struct str tenant)
{
    forget(v, tenant, STR_NULL, STR_NULL);
}

void delegations_release(struct vault *v)
{
    for (size_t i = 0; i < SHARDS; i++) {
        struct map_slot *m;
        size_t at = 0;

        while ((m = map_next(&v->delegations[i].map, &at)))
            free(m->value);
        map_release(&v->delegations[i].map);
        pthread_mutex_destroy(&v->delegations[i].lock);
    }
}

/* ---- sealed ------------------------------------------------------------------------------------------------------ */

static enum err seal(struct vault *v, const struct held *h, struct buf *out)
{
    struct json *j, *actions;
    struct buf plain = BUF_INIT(PLAIN_MAX);
    struct arena a;
    enum err e;

    arena_init(&a, PLAIN_MAX);
    j = json_object(&a);
    actions = json_array(&a);
    json_set_str(&a, j, "user", h->user);
    json_set_str(&a, j, "agent", h->d.agent);
    for (unsigned i = 0; i < h->d.n_actions; i++)
        json_push(&a, actions, json_string_ref(&a, h->d.actions[i]));
    json_set(&a, j, "actions", actions);
    json_set_int(&a, j, "since", h->d.since);
    if (h->d.expires != INT64_MAX)
        json_set_int(&a, j, "expires", h->d.expires);
    json_write(&plain, j);
    e = plain.overflow || arena_overflowed(&a)
        ? E_CALL_TOO_LARGE : vault_seal(v, h->tenant, h->d.id, STR("delegation"), buf_str(&plain), out);
    buf_release(&plain);
    arena_release(&a);
    return e;
}

/* E_TAMPERED: these bytes are not what was sealed for this row. */
static enum err open_row(struct vault *v, const struct store_delegation *row, struct held **ret)
{
    struct vault_delegate n = { .tenant = row->tenant, .user = row->user, .agent = row->agent, .expires = INT64_MAX };
    struct str actions[VAULT_DELEGATION_ACTIONS_MAX];
    struct buf plain = BUF_INIT(PLAIN_MAX);
    struct errinfo info;
    struct json_error where;
    struct json *j = NULL;
    int64_t since = 0;
    struct arena a;
    enum err e = vault_tenant_load(v, row->tenant, &info);

    arena_init(&a, 4 * PLAIN_MAX);
    if (!e)
        e = vault_unseal(v, row->tenant, row->id, STR("delegation"), row->sealed, &plain);
    if (!e && (json_parse(&a, buf_str(&plain), NULL, &j, &where) || !str_eq(json_str(json_get(j, "user")), row->user) ||
               !str_eq(json_str(json_get(j, "agent")), row->agent) || !json_int(json_get(j, "since"), &since)))
        e = E_TAMPERED;
    n.actions = actions;
    for (const struct json *it = json_first(json_get(j, "actions")); it && !e; it = json_next(it)) {
        if (n.n_actions == VAULT_DELEGATION_ACTIONS_MAX)
            e = E_TAMPERED;
        else
            actions[n.n_actions++] = json_str(it);
    }
    if (!e && json_get(j, "expires") && !json_int(json_get(j, "expires"), &n.expires))
        e = E_TAMPERED;
    if (!e)
        e = check(&n, &info);
    if (!e)
        *ret = held_new(&n, row->id, since);
    buf_release(&plain);
    arena_release(&a);
    return e;
}

/* ---- start ------------------------------------------------------------------------------------------------------- */

/* Rows are opened once they have been read: opening one may ask the store for a key. */
struct page {
    struct arena arena;
    struct store_delegation rows[PAGE_ROWS];
    unsigned n;
};

static enum err gather(const struct store_delegation *d, void *arg)
{
    struct page *p = arg;
    bool sane = d->sealed.len <= PLAIN_MAX + VAULT_SEAL_OVERHEAD;       /* else it does not open: not even looked at */

    p->rows[p->n++] = (struct store_delegation){
        arena_str(&p->arena, d->tenant), arena_str(&p->arena, d->id), arena_str(&p->arena, d->user),
        arena_str(&p->arena, d->agent), d->created, arena_str(&p->arena, sane ? d->sealed : STR("")),
    };
    return OK;
}

static void show_page(struct vault *v, const struct page *p)
{
    for (unsigned i = 0; i < p->n; i++) {
        const struct store_delegation *d = &p->rows[i];
        struct held *h = NULL;

        if (open_row(v, d, &h))
            LOG_ERROR("a delegation on record does not open and does not count", LOG_SV("tenant", d->tenant),
                LOG_SV("delegation", d->id), LOG_SV("agent", d->agent));
        else
            held_show(v, h);
    }
}

/* By pages: however many there are, they stop no start. */
enum err delegations_load(struct vault *v, struct errinfo *info)
{
    struct page *p = calloc(1, sizeof(*p));
    struct str tenant = STR(""), id = STR("");
    struct arena last;                  /* the keys that pages end with */
    enum err e;

    ASSERT(p != NULL);
    arena_init(&last, SIZE_MAX);
    do {
        arena_init(&p->arena, SIZE_MAX);
        p->n = 0;
        e = store_delegations_page(v->store, tenant, id, PAGE_ROWS, gather, p, info);
        ASSERT(!arena_overflowed(&p->arena));
        show_page(v, p);
        tenant = p->n ? arena_str(&last, p->rows[p->n - 1].tenant) : tenant;
        id = p->n ? arena_str(&last, p->rows[p->n - 1].id) : id;
        arena_release(&p->arena);
    } while (!e && p->n == PAGE_ROWS);
    arena_release(&last);
    free(p);
    return e;
}

/* ---- changing ---------------------------------------------------------------------------------------------------- */

static bool count_one(const struct vault_delegation *d, void *arg)
{
    size_t *n = arg;

    return ++*n < VAULT_DELEGATIONS_MAX;
}

/* Is there room for one more? */
static enum err room_for(struct vault *v, const struct held *h, struct errinfo *info)
{
    size_t n = 0;

    of_user(v, h->tenant, h->user, count_one, &n);
    if (n >= VAULT_DELEGATIONS_MAX)
        return err_set(info, E_CONFIG, "the user has %d delegations on record, those that ended included, and may have "
            "no more: revoke one first", VAULT_DELEGATIONS_MAX);
    if (atomic_load(&v->n_delegations) >= v->accounts_max)
        return err_set(info, E_OVERLOADED, "the vault holds as many delegations as it may");
    return OK;
}

enum err vault_delegation_put(struct vault *v, const struct vault_delegate *n, struct arena *a, struct str *ret_id,
    struct str *ret_replaced, struct errinfo *info)
{
    struct id id = id_new("dlg");
    struct buf sealed = BUF_INIT(2 * PLAIN_MAX);
    struct held *h;
    enum err e = check_new(n, info);

    if (!e)
        e = vault_tenant_load(v, n->tenant, info);
    if (e)
        return e;
    h = held_new(n, str_of(id.z), world->wall_ms());
    pthread_mutex_lock(&v->accounts_lock);      /* store and table change together */
    *ret_replaced = id_held(v, h->key, a);
    e = ret_replaced->p ? OK : room_for(v, h, info);
    if (!e)
        e = seal(v, h, &sealed);
    if (!e) {
        struct store_delegation row = { h->tenant, h->d.id, h->user, h->d.agent, h->d.since, buf_str(&sealed) };

        e = store_delegation_put(v->store, &row, info);
    }
    *ret_id = arena_str(a, str_of(id.z));
    if (e)
        free(h);
    else
        held_show(v, h);
    pthread_mutex_unlock(&v->accounts_lock);
    buf_release(&sealed);
    return e;
}

enum err vault_delegation_delete(struct vault *v, struct str tenant, struct str user, struct str id,
    struct errinfo *info)
{
    struct vault_delegation one;
    struct arena a;
    enum err e;

    arena_init(&a, PLAIN_MAX);
    pthread_mutex_lock(&v->accounts_lock);
    e = vault_delegation_get(v, tenant, user, id, &a, &one);
    if (!e)
        e = store_delegation_delete(v->store, tenant, id, info);
    if (!e)
        forget(v, tenant, user, id);
    pthread_mutex_unlock(&v->accounts_lock);
    arena_release(&a);
    return e == E_NOT_FOUND ? err_set(info, E_NOT_FOUND, "the user has recorded no such delegation") : e;
}

/* ---- from tasks -------------------------------------------------------------------------------------------------- */

struct delegation_job {
    struct vault *v;
    const struct vault_delegate *n;
    struct str tenant, user, id, *ret_id, *ret_replaced;
    struct arena *a;
    struct errinfo *info;
    enum err e;
};

static void put_blocking(void *arg)
{
    struct delegation_job *j = arg;

    j->e = vault_delegation_put(j->v, j->n, j->a, j->ret_id, j->ret_replaced, j->info);
}

static void delete_blocking(void *arg)
{
    struct delegation_job *j = arg;

    j->e = vault_delegation_delete(j->v, j->tenant, j->user, j->id, j->info);
}

enum err await_vault_delegation_put(struct vault *v, const struct vault_delegate *n, struct arena *a,
    struct str *ret_id, struct str *ret_replaced, struct errinfo *info)
{
    struct delegation_job j = { .v = v, .n = n, .a = a, .ret_id = ret_id, .ret_replaced = ret_replaced, .info = info };

    await_blocking(put_blocking, &j);
    return j.e;
}

enum err await_vault_delegation_delete(struct vault *v, struct str tenant, struct str user, struct str id,
    struct errinfo *info)
{
    struct delegation_job j = { .v = v, .tenant = tenant, .user = user, .id = id, .info = info };

    await_blocking(delete_blocking, &j);
    return j.e;
}
