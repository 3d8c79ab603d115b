/*
 * issuers.c -- one configuration of issuers, checked
 *
 * The rule about tenants lives here (P8, and "do not mix issuers with the same sub"): a tenant has one issuer, or
 * several whose prefixes keep their users' and agents' names apart.
 */
#include "identity/internal.h"

#include "loop/world.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>

enum { SET_ARENA_MAX = 4 * 1024 * 1024, ISSUER_NAME_MAX = 512, LISTS_MAX = 1024 };

static enum err bad(const struct identity_issuer *c, struct errinfo *info, const char *why)
{
    return err_set(info, E_CONFIG, "issuer %.*s: %s", STR_ARG(c->issuer), why);
}

enum err identity_alg_parse(struct str s, enum identity_alg *ret)
{
    static const char *const names[] = { "RS256", "ES256", "EdDSA" };

    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        if (str_is(s, names[i])) {
            *ret = (enum identity_alg)i;
            return OK;
        }
    }
    return E_CONFIG;
}

enum err identity_read_file(struct str path, struct buf *out, struct errinfo *info)
{
    char name[4096], *room;
    int64_t size, n = 0;
    int fd;

    if (path.len >= sizeof(name) || memchr(path.p, 0, path.len))
        return err_set(info, E_CONFIG, "the path of a file is too long");
    snprintf(name, sizeof(name), "%.*s", STR_ARG(path));
    fd = world->open(name, O_RDONLY, 0);
    if (fd < 0)
        return err_set(info, E_CONFIG, "%s cannot be read: %s", name, strerror(-fd));
    size = world->size(fd);
    room = size < 0 ? NULL : buf_reserve(out, (size_t)size + 1);
    if (room)
        n = world->pread(fd, room, (size_t)size, 0);
    world->close(fd);
    if (size < 0 || n < 0)
        return err_set(info, E_CONFIG, "%s cannot be read: %s", name, strerror((int)-(size < 0 ? size : n)));
    if (!room)
        return err_set(info, E_CONFIG, "%s is larger than allowed", name);
    out->len += (size_t)n;
    return OK;
}

/* ---- copying ----------------------------------------------------------------------------------------------------- */

static const struct str *copy_list(struct arena *a, const struct str *list, size_t n)
{
    struct str *copy = ARENA_ARRAY(a, struct str, n ? n : 1);

    for (size_t i = 0; copy && i < n; i++)
        copy[i] = arena_str(a, list[i]);
    return copy;
}

static void copy_issuer(struct arena *a, const struct identity_issuer *from, struct identity_issuer *to)
{
    *to = *from;
    to->issuer = arena_str(a, from->issuer);
    to->audiences = copy_list(a, from->audiences, from->n_audiences);
    to->jwks_inline = STR_NULL;                         /* read once; the keys are kept */
    to->jwks_path = arena_str(a, from->jwks_path);
    to->jwks_url = arena_str(a, from->jwks_url);
    to->tenant = arena_str(a, from->tenant);
    to->tenant_claim = arena_str(a, from->tenant_claim);
    to->tenants = copy_list(a, from->tenants, from->n_tenants);
    to->user_claim = arena_str(a, from->user_claim.len ? from->user_claim : STR("sub"));
    to->prefix = arena_str(a, from->prefix);
    to->scope_claim = arena_str(a, from->scope_claim.len ? from->scope_claim : STR("scope"));
    to->groups_claim = arena_str(a, from->groups_claim.len ? from->groups_claim : STR("groups"));
    to->agent_default = arena_str(a, from->agent_default);
    if (to->lifetime_max == 0)
        to->lifetime_max = 24 * 3600 * NS_PER_S;
}

/* ---- checks ------------------------------------------------------------------------------------------------------ */

static bool url_acceptable(struct str url)
{
    static const char *const loopback[] = { "http://127.0.0.1", "http://localhost", "http://[::1]" };

    if (str_starts(url, STR("https://")))
        return url.len > 8;
    for (size_t i = 0; i < ARRAY_LEN(loopback); i++) {
        struct str rest = str_from(url, strlen(loopback[i]));

        if (str_starts(url, str_of(loopback[i])) && !str_empty(rest) && (rest.p[0] == ':' || rest.p[0] == '/'))
            return true;
    }
    return false;
}

static enum err check_issuer(const struct identity_issuer *c, bool can_fetch, struct errinfo *info)
{
    unsigned sources = !str_empty(c->jwks_inline) + !str_empty(c->jwks_path) + !str_empty(c->jwks_url);

    if (str_empty(c->issuer) || c->issuer.len > ISSUER_NAME_MAX || !str_utf8_valid(c->issuer))
        return err_set(info, E_CONFIG, "an issuer needs a name (its iss), at most %d bytes", ISSUER_NAME_MAX);
    if (c->alg != IDENTITY_RS256 && c->alg != IDENTITY_ES256 && c->alg != IDENTITY_EDDSA)
        return bad(c, info, "its algorithm must be RS256, ES256 or EdDSA");
    if (c->n_audiences == 0 || c->n_audiences > LISTS_MAX)
        return bad(c, info, "it needs at least one audience");
    for (size_t i = 0; i < c->n_audiences; i++) {
        if (str_empty(c->audiences[i]))
            return bad(c, info, "an audience is empty");
    }
    if (sources != 1)
        return bad(c, info, "give exactly one of jwks, jwks_file and jwks_url");
    if (!str_empty(c->jwks_url) && !url_acceptable(c->jwks_url))
        return bad(c, info, "its jwks_url must be https (http on loopback only)");
    if (!str_empty(c->jwks_url) && !can_fetch)
        return bad(c, info, "its jwks_url cannot be fetched here");
    if (str_empty(c->tenant) == str_empty(c->tenant_claim))
        return bad(c, info, "give exactly one of tenant and tenant_claim");
    if (!str_empty(c->tenant) && (!tenant_valid(c->tenant) || c->n_tenants))
        return bad(c, info,
            "its tenant is not acceptable (letters, digits, . _ -, at most 64; no list of tenants with it)");
    for (size_t i = 0; i < c->n_tenants; i++) {
        if (c->n_tenants > LISTS_MAX || !tenant_valid(c->tenants[i]))
            return bad(c, info, "one of its tenants is not acceptable (letters, digits, . _ -, at most 64)");
    }
    if ((c->prefix.len && (!principal_valid(c->prefix) || c->prefix.len > 64)) || c->lifetime_max < 0
        || (c->agent_default.len && !principal_valid(c->agent_default)))
        return bad(c, info, "its prefix, agent_default or lifetime_max is not acceptable");
    return OK;
}

static bool names_tenant(const struct identity_issuer *c, struct str tenant)
{
    if (!str_empty(c->tenant))
        return str_eq(c->tenant, tenant);
    for (size_t i = 0; i < c->n_tenants; i++) {
        if (str_eq(c->tenants[i], tenant))
            return true;
    }
    return false;
}

static bool takes_the_rest(const struct identity_issuer *c)
{
    return str_empty(c->tenant) && c->n_tenants == 0;
}

static bool share_a_tenant(const struct identity_issuer *a, const struct identity_issuer *b)
{
    if (!str_empty(a->tenant))
        return names_tenant(b, a->tenant);
    for (size_t i = 0; i < a->n_tenants; i++) {
        if (names_tenant(b, a->tenants[i]))
            return true;
    }
    return takes_the_rest(a) && takes_the_rest(b);
}

static enum err check_pair(const struct identity_issuer *a, const struct identity_issuer *b, struct errinfo *info)
{
    if (str_eq(a->issuer, b->issuer))
        return bad(a, info, "it is configured twice");
    if (!share_a_tenant(a, b))
        return OK;
    if (takes_the_rest(a))
        return bad(b, info, "two issuers have a tenant_claim without a list of tenants: list them");
    if (str_empty(a->prefix) || str_empty(b->prefix) || str_starts(a->prefix, b->prefix) || str_starts(b->prefix,
        a->prefix))
        return bad(b, info, "it shares a tenant with another issuer: give both a prefix, neither beginning the other");
    return OK;
}

bool issuer_speaks_for(const struct issuer_set *set, const struct issuer *is, struct str tenant)
{
    if (is->any_tenant || names_tenant(&is->c, tenant))
        return true;
    if (!takes_the_rest(&is->c))
        return false;
    for (unsigned i = 0; i < set->n; i++) {
        if (names_tenant(&set->list[i].c, tenant))
            return false;
    }
    return true;
}

/* ---- making a set ------------------------------------------------------------------------------------------------ */

static enum err load_keys(struct issuer *is, struct str text, struct errinfo *info)
{
    struct errinfo why = { "" };

    if (jwks_parse(text, is->c.alg, &is->keys, &why))
        return err_set(info, E_CONFIG, "issuer %.*s: %.250s", STR_ARG(is->c.issuer), why.text);
    return OK;
}

static enum err add_issuer(struct issuer_set *set, const struct identity_issuer *from, struct errinfo *info)
{
    struct issuer *is = &set->list[set->n];
    struct buf text = BUF_INIT(IDENTITY_JWKS_MAX + 2);
    enum err e = check_issuer(from, set->fetcher.await_get != NULL, info);

    if (e)
        return e;
    for (unsigned i = 0; i < set->n && !e; i++)
        e = check_pair(&set->list[i].c, from, info);
    if (e)
        return e;
    copy_issuer(&set->arena, from, &is->c);
    pthread_mutex_init(&is->lock, NULL);
    is->auth = CALLER_AUTH_JWT;
    is->fetch_after = INT64_MIN;
    set->n++;
    if (!str_empty(from->jwks_inline))
        return load_keys(is, from->jwks_inline, info);
    if (!str_empty(from->jwks_path)) {
        e = identity_read_file(from->jwks_path, &text, info);
        if (!e)
            e = load_keys(is, buf_str(&text), info);
        buf_release(&text);
    }
    return e;
}

static enum err add_local(struct issuer_set *set, const struct identity_config *config, struct errinfo *info)
{
    struct buf jwks = BUF_INIT(4096);
    struct identity_issuer c = {
        .issuer = identity_local_issuer(config->local), .alg = IDENTITY_EDDSA, .audiences = config->local_audiences,
        .n_audiences = config->n_local_audiences, .tenant_claim = STR("tenant"),
    };
    enum err e;

    if (issuer_find(set, c.issuer))
        return bad(&c, info, "this is the name of the local issuer");
    identity_local_jwks(config->local, &jwks);
    c.jwks_inline = buf_str(&jwks);
    e = check_issuer(&c, false, info);
    if (!e) {
        struct issuer *is = &set->list[set->n++];

        copy_issuer(&set->arena, &c, &is->c);
        pthread_mutex_init(&is->lock, NULL);
        is->auth = CALLER_AUTH_LOCAL;
        is->any_tenant = true;
        e = load_keys(is, c.jwks_inline, info);
    }
    buf_release(&jwks);
    return e;
}

enum err issuer_set_create(const struct identity_config *config, struct issuer_set **ret, struct errinfo *info)
{
    struct issuer_set *set = calloc(1, sizeof(*set));
    enum err e = OK;

    ASSERT(set);
    atomic_init(&set->refs, 1);
    arena_init(&set->arena, SET_ARENA_MAX);
    set->fetcher = config->fetcher;
    set->cache_ttl = config->cache_ttl ? config->cache_ttl : 60 * NS_PER_S;
    set->leeway = config->leeway ? config->leeway : 30 * NS_PER_S;
    set->jwks_max_age = config->jwks_max_age ? config->jwks_max_age : 600 * NS_PER_S;
    if (config->n_issuers > IDENTITY_ISSUERS_MAX)
        e = err_set(info, E_CONFIG, "more than %d issuers", IDENTITY_ISSUERS_MAX);
    for (size_t i = 0; i < config->n_issuers && !e; i++)
        e = add_issuer(set, &config->issuers[i], info);
    if (!e && config->local)
        e = add_local(set, config, info);
    if (!e && arena_overflowed(&set->arena))
        e = err_set(info, E_CONFIG, "the configuration of issuers is too large");
    if (e) {
        issuer_set_release(set);
        return e;
    }
    *ret = set;
    return OK;
}

struct issuer_set *issuer_set_ref(struct issuer_set *set)
{
    atomic_fetch_add_explicit(&set->refs, 1, memory_order_relaxed);
    return set;
}

void issuer_set_release(struct issuer_set *set)
{
    if (!set || atomic_fetch_sub_explicit(&set->refs, 1, memory_order_acq_rel) != 1)
        return;
    for (unsigned i = 0; i < set->n; i++) {
        ASSERT(!set->list[i].flight.busy);
        jwks_release(set->list[i].keys);
        pthread_mutex_destroy(&set->list[i].lock);
    }
    arena_release(&set->arena);
    free(set);
}

void issuer_set_inherit(struct issuer_set *set, struct issuer_set *old)
{
    for (unsigned i = 0; i < set->n; i++) {
        struct issuer *is = &set->list[i], *was = issuer_find(old, is->c.issuer);

        if (str_empty(is->c.jwks_url) || !was || !str_eq(was->c.jwks_url, is->c.jwks_url) || was->c.alg != is->c.alg)
            continue;
        pthread_mutex_lock(&was->lock);
        if (was->keys) {
            is->keys = jwks_ref(was->keys);
            is->fetched_at = was->fetched_at;
            is->doubtful = true;
        }
        pthread_mutex_unlock(&was->lock);
    }
}

struct issuer *issuer_find(struct issuer_set *set, struct str name)
{
    for (unsigned i = 0; i < set->n; i++) {
        if (str_eq(set->list[i].c.issuer, name))
            return &set->list[i];
    }
    return NULL;
}
