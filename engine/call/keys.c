/* keys.c -- ids of tenants, remembered by tenant; names of keys (keys.h) */
#include "base/check.h"
#include "call/engine.h"

struct key_scopes *key_scopes(struct worker *w, const struct caller *caller)
{
    struct key_scopes *s = &w->keys.of[caller->tenant_hash % KEY_TENANTS];
    struct rl_id tenant;

    if (str_eq(str_n(s->tenant, s->tenant_len), caller->tenant))
        return s;
    ASSERT(caller->tenant.len > 0 && caller->tenant.len <= sizeof(s->tenant));
    *s = (struct key_scopes){ .tenant_len = caller->tenant.len };
    memcpy(s->tenant, caller->tenant.p, caller->tenant.len);
    tenant = rl_id_of(w->engine->limiter, caller->tenant.p, caller->tenant.len);
    s->limits = key_below(tenant, STR("limits"));
    s->budgets = key_below(tenant, STR("budgets"));
    return s;
}

static bool made(struct rl_id id)
{
    return (id.a | id.b) != 0;
}

struct rl_id key_kind(struct key_scopes *s, unsigned kind, const char *name)
{
    ASSERT(kind < KEY_KINDS);
    if (!made(s->kinds[kind]))
        s->kinds[kind] = key_below(s->budgets, str_of(name));
    return s->kinds[kind];
}

struct rl_id key_only(struct key_scopes *s, unsigned kind, const char *name)
{
    ASSERT(kind < KEY_KINDS);
    if (!made(s->kinds[kind]))
        s->kinds[kind] = key_below(key_below(s->budgets, str_of(name)), STR(""));
    return s->kinds[kind];
}

struct rl_id key_agent(struct key_scopes *s, unsigned kind, const char *name, const struct caller *caller)
{
    struct str agent = caller->agent;
    struct rl_id *id;

    ASSERT(kind >= KEY_AGENT_FIRST && kind < KEY_AGENT_FIRST + KEY_AGENTS);
    if (agent.len > sizeof(s->agent))
        return key_below(key_kind(s, kind, name), agent);
    if (!str_eq(str_n(s->agent, s->agent_len), agent)) {
        s->agent_len = agent.len;
        memcpy(s->agent, agent.p, agent.len);
        memset(s->agents, 0, sizeof(s->agents));
    }
    id = &s->agents[kind - KEY_AGENT_FIRST];
    if (!made(*id))
        *id = key_below(key_kind(s, kind, name), agent);
    return *id;
}

struct rl_id key_provider(struct key_scopes *s, unsigned index, const char *name)
{
    if (index >= KEY_PROVIDERS)
        return key_below(s->limits, str_of(name));
    if (!made(s->providers[index]))
        s->providers[index] = key_below(s->limits, str_of(name));
    return s->providers[index];
}

size_t key_name(char to[RL_KEY_MAX], const struct str *parts, size_t n)
{
    size_t len = 0;

    for (size_t i = 0; i < n; i++) {
        if (parts[i].len + (i > 0) > RL_KEY_MAX - len)
            return 0;
        if (i > 0)
            to[len++] = '|';
        if (parts[i].len)
            memcpy(to + len, parts[i].p, parts[i].len);
        len += parts[i].len;
    }
    return len;
}
