/*
 * caller.c -- the immutable, counted answer to "who is asking"
 *
 * One block of memory: counter, struct caller, actors, scopes, groups, then the bytes of all strings, of which the last
 * is what every record of its calls says of it.
 */
#include "identity/internal.h"

#include "base/ahead.h"
#include "base/map.h"
#include "json/json.h"

#include <stdlib.h>

enum {
    MEMBERS_KEPT = 1024,        /* callers with many groups have not each of them twice */
    TEXT_AHEAD = 1024,          /* bytes behind the struct that are asked for ahead: of most callers all */
};

struct caller_box {
    _Atomic(const void *) trail[TRAIL_COUNT];
    atomic_uint refs;
    uint32_t size;                      /* of the block */
    struct caller c;
};

/* Bytes that calls look at there. */
static const uint16_t trail_len[TRAIL_COUNT] = {
    [TRAIL_OWNER] = 32, [TRAIL_ACCOUNT] = 448, [TRAIL_ACCESS] = 128, [TRAIL_KEYS] = 128,
    [TRAIL_BUDGETS] = 64, 64, 64, [TRAIL_LIMITS] = 64, 64, 64, [TRAIL_WAY] = 32, 64, 64, 256,
};

const char *caller_auth_name(enum caller_auth a)
{
    switch (a) {
    case CALLER_AUTH_JWT:   return "jwt";
    case CALLER_AUTH_LOCAL: return "local";
    case CALLER_AUTH_NONE:  return "none";
    }
    UNREACHABLE();
}

bool tenant_valid(struct str t)
{
    if (t.len == 0 || t.len > IDENTITY_TENANT_MAX || t.p[0] == '.' || t.p[0] == '-')
        return false;
    for (size_t i = 0; i < t.len; i++) {
        char c = t.p[i];

        if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || strchr("._-", c)) || c == 0)
            return false;
    }
    return true;
}

bool principal_valid(struct str name)
{
    if (name.len == 0 || name.len > IDENTITY_NAME_MAX || !str_utf8_valid(name))
        return false;
    for (size_t i = 0; i < name.len; i++) {
        unsigned char c = (unsigned char)name.p[i];

        /* C1 controls are C2 80 to C2 9F in UTF-8. */
        if (c < 0x20 || c == 0x7f || (c == 0xc2 && i + 1 < name.len && (unsigned char)name.p[i + 1] < 0xa0))
            return false;
    }
    return true;
}

static void add_member(struct buf *out, struct str key, struct str v)
{
    if (v.len == 0)
        return;
    buf_add_str(out, key);
    buf_add_json_str(out, v);
}

static void add_list(struct buf *out, struct str key, const struct str *v, unsigned n)
{
    if (n == 0)
        return;
    buf_add_str(out, key);
    buf_add_json_strs(out, v, n);
}

void caller_members(const struct caller *c, struct buf *out)
{
    struct str before[CALLER_ACTORS_MAX];

    add_member(out, STR(",\"tenant\":"), c->tenant);
    add_member(out, STR(",\"user\":"), c->user);
    add_member(out, STR(",\"agent\":"), c->actors[0].name);
    ASSERT(c->n_actors >= 1 && c->n_actors <= CALLER_ACTORS_MAX);
    for (unsigned i = 1; i < c->n_actors; i++)
        before[i - 1] = c->actors[i].name;
    add_list(out, STR(",\"delegates\":"), before, c->n_actors - 1);
    add_list(out, STR(",\"groups\":"), c->groups, c->n_groups);
    add_list(out, STR(",\"scopes\":"), c->scopes, c->n_scopes);
    add_member(out, STR(",\"auth\":"), str_of(caller_auth_name(c->auth)));
    add_member(out, STR(",\"issuer\":"), c->issuer);
    add_member(out, STR(",\"client\":"), c->client_id);
    add_member(out, STR(",\"token\":"), str_of(c->fingerprint));
}

static struct str put(char **at, struct str s)
{
    struct str copy = { *at, s.len };

    if (s.len)
        memcpy(*at, s.p, s.len);
    *at += s.len;
    return copy;
}

static size_t text_size(const struct caller *d)
{
    size_t n = d->tenant.len + 1 + d->user.len + d->issuer.len + d->client_id.len + d->token_id.len;

    for (unsigned i = 0; i < d->n_actors; i++)
        n += d->actors[i].name.len + d->actors[i].issuer.len;
    for (unsigned i = 0; i < d->n_scopes; i++)
        n += d->scopes[i].len;
    for (unsigned i = 0; i < d->n_groups; i++)
        n += d->groups[i].len;
    return n;
}

struct caller *caller_freeze(const struct caller *d)
{
    size_t actors_at = sizeof(struct caller_box);
    size_t scopes_at = actors_at + d->n_actors * sizeof(struct caller_actor);
    size_t groups_at = scopes_at + d->n_scopes * sizeof(struct str);
    size_t text_at = groups_at + d->n_groups * sizeof(struct str);
    struct buf members = BUF_INIT(MEMBERS_KEPT);
    struct caller_actor *actors;
    struct str *scopes, *groups;
    struct caller_box *box;
    size_t size;
    char *at;

    caller_members(d, &members);
    if (members.overflow)
        buf_clear(&members);
    size = text_at + text_size(d) + members.len;
    box = calloc(1, size);
    ASSERT(box && d->n_actors >= 1 && d->n_actors <= CALLER_ACTORS_MAX && d->n_scopes <= CALLER_SCOPES_MAX &&
        d->n_groups <= CALLER_GROUPS_MAX);
    actors = (struct caller_actor *)((char *)box + actors_at);
    scopes = (struct str *)((char *)box + scopes_at);
    groups = (struct str *)((char *)box + groups_at);
    at = (char *)box + text_at;
    atomic_init(&box->refs, 1);
    box->size = (uint32_t)size;
    box->c = *d;
    box->c.tenant = put(&at, d->tenant);
    *at++ = 0;
    box->c.user = put(&at, d->user);
    box->c.owner = str_n(box->c.tenant.p, (size_t)(at - box->c.tenant.p));
    box->c.issuer = put(&at, d->issuer);
    box->c.client_id = put(&at, d->client_id);
    box->c.token_id = put(&at, d->token_id);
    for (unsigned i = 0; i < d->n_actors; i++)
        actors[i] = (struct caller_actor){ put(&at, d->actors[i].name), put(&at, d->actors[i].issuer) };
    for (unsigned i = 0; i < d->n_scopes; i++)
        scopes[i] = put(&at, d->scopes[i]);
    for (unsigned i = 0; i < d->n_groups; i++)
        groups[i] = put(&at, d->groups[i]);
    box->c.actors = actors;
    box->c.agent = actors[0].name;
    box->c.tenant_hash = hash_bytes(box->c.tenant.p, box->c.tenant.len);
    box->c.user_hash = hash_bytes(box->c.user.p, box->c.user.len);
    box->c.agent_hash = hash_bytes(box->c.agent.p, box->c.agent.len);
    box->c.owner_hash = hash_bytes(box->c.owner.p, box->c.owner.len);
    box->c.scopes = scopes;
    box->c.groups = groups;
    box->c.members = put(&at, buf_str(&members));
    buf_release(&members);
    ASSERT(at == (char *)box + size);
    return &box->c;
}

static struct caller_box *box_of(const struct caller *c)
{
    return (struct caller_box *)(void *)((char *)(uintptr_t)c - offsetof(struct caller_box, c));
}

void caller_left(const struct caller *c, enum caller_trail at, const void *where)
{
    _Atomic(const void *) *left = &box_of(c)->trail[at];

    if (atomic_load_explicit(left, memory_order_relaxed) != where)
        atomic_store_explicit(left, where, memory_order_relaxed);
}

void caller_expect(const struct caller *c)
{
    if (c)
        ahead(box_of(c), sizeof(struct caller_box));
}

void caller_ahead(const struct caller *c)
{
    const struct caller_box *box = box_of(c);
    size_t text = box->size - sizeof(*box);

    for (int i = 0; i < TRAIL_COUNT; i++)
        ahead(atomic_load_explicit(&box->trail[i], memory_order_relaxed), trail_len[i]);
    ahead(box + 1, text < TEXT_AHEAD ? text : TEXT_AHEAD);
}

struct caller *caller_ref(struct caller *c)
{
    atomic_fetch_add_explicit(&box_of(c)->refs, 1, memory_order_relaxed);
    return c;
}

void caller_release(struct caller *c)
{
    struct caller_box *box;

    if (!c)
        return;
    box = box_of(c);
    if (atomic_fetch_sub_explicit(&box->refs, 1, memory_order_acq_rel) == 1)
        free(box);
}

bool caller_has_scope(const struct caller *c, struct str scope)
{
    for (unsigned i = 0; i < c->n_scopes; i++) {
        if (str_eq(c->scopes[i], scope))
            return true;
    }
    return false;
}

enum err caller_named(struct str tenant, struct str user, struct str agent, struct caller **ret, struct errinfo *info)
{
    struct caller_actor actor = { .name = agent };
    struct caller draft = {
        .tenant = tenant, .user = user, .actors = &actor, .n_actors = 1, .issuer = STR("none"), .expires = INT64_MAX,
        .auth = CALLER_AUTH_NONE,
    };

    if (!tenant_valid(tenant))
        return err_set(info, E_CONFIG, "not acceptable as a tenant (letters, digits, . _ -, at most 64): %.*s",
            STR_ARG(tenant));
    if (!principal_valid(user))
        return err_set(info, E_CONFIG, "not acceptable as a user (1 to 255 printable bytes): %.*s", STR_ARG(user));
    if (!principal_valid(agent))
        return err_set(info, E_CONFIG, "not acceptable as an agent (1 to 255 printable bytes): %.*s", STR_ARG(agent));
    *ret = caller_freeze(&draft);
    return OK;
}
