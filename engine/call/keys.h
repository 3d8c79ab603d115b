/*
 * keys.h -- keys of the limiter: the ids that they are made from, and what they are shown as
 *
 * All keys of a tenant are made from its id, so that they are under one lock (ratelimit.h), and below that from a few
 * others that are the same for all its calls.  A worker keeps those of the tenants it has seen last: a miss costs the
 * hashing that every call would else do.
 */
#ifndef CALL_KEYS_H
#define CALL_KEYS_H

#include "identity/identity.h"
#include "ratelimit/ratelimit.h"

struct worker;

enum {
    KEY_KINDS = 9,                      /* of a call's own budgets: three of tenant, agent and user each */
    KEY_PROVIDERS = 8,                  /* the first so many, of each tenant */
    KEY_AGENTS = 3,                     /* of the kinds, an agent's: those from here on: */
    KEY_AGENT_FIRST = 3,
    KEY_AGENT_MAX = 64,                 /* bytes of an agent's name that is kept */
    KEY_TENANTS = 64,                   /* that a worker keeps the ids of: 32 KB */
};

struct key_scopes {
    struct rl_id limits;                /* of providers; the tenant's own keys are below it, and not everybody's */
    struct rl_id budgets;
    struct rl_id kinds[KEY_KINDS];      /* below budgets: key_kind() */
    struct rl_id providers[KEY_PROVIDERS];      /* below limits: key_provider() */
    size_t tenant_len, agent_len;
    char tenant[IDENTITY_TENANT_MAX];
    struct rl_id agents[KEY_AGENTS];    /* key_agent(), of the agent seen last: a tenant has few */
    char agent[KEY_AGENT_MAX];
};

struct key_cache {
    struct key_scopes of[KEY_TENANTS];
};

/* The ids of the caller's tenant, of this engine's limiter. Good until the task waits. */
struct key_scopes *key_scopes(struct worker *w, const struct caller *caller);
/* What is below the tenant's budgets by that name, which is always the same for `kind`. */
struct rl_id key_kind(struct key_scopes *s, unsigned kind, const char *name);
/* The same where there is but one of the kind, the tenant's own: its key. A kind is asked for in one way only. */
struct rl_id key_only(struct key_scopes *s, unsigned kind, const char *name);
/* What is below a kind of an agent's by the name of the caller's. */
struct rl_id key_agent(struct key_scopes *s, unsigned kind, const char *name, const struct caller *caller);
/* What is below the tenant's limits by a provider's name, which is always the same for `index`. */
struct rl_id key_provider(struct key_scopes *s, unsigned index, const char *name);

static inline struct rl_id key_below(struct rl_id scope, struct str part)
{
    return rl_id_sub(scope, part.p, part.len);
}

/* What a key is shown as: its parts with "|" between them. Too long a name is not: 0. */
size_t key_name(char to[RL_KEY_MAX], const struct str *parts, size_t n);

#endif
