/*
 * identity.h -- tokens -> caller: who is asking, on whose behalf, through which chain of delegations
 *
 * A bearer token (a signed JWT, RFC 7519, RFC 9068) is checked against the configured issuers and becomes a struct
 * caller.  Verified tokens are remembered by the SHA-256 of their text, for a minute at most; expiry is checked again
 * at every use.  One struct identity serves all workers (striped locks inside).  Anything about a token that is not
 * exactly as expected is a refusal: E_TOKEN_* of errors.def.  Rules: design.md 5 (IDENTIFY), P3, P8; RFC 8725, RFC
 * 9068, RFC 8693, RFC 6750, RFC 9728.
 */
#ifndef IDENTITY_IDENTITY_H
#define IDENTITY_IDENTITY_H

#include "base/clock.h"
#include "base/err.h"
#include "base/secret.h"
#include "base/str.h"

enum {
    IDENTITY_TOKEN_MAX = 8192,          /* bytes of a compact JWT */
    IDENTITY_NAME_MAX = 255,            /* bytes of user, agent, client id */
    IDENTITY_TENANT_MAX = 64,           /* bytes of a tenant: [A-Za-z0-9._-], not starting with '.' or '-' */
    IDENTITY_ISSUERS_MAX = 32,
    IDENTITY_KEYS_MAX = 64,             /* keys of one issuer */
    IDENTITY_JWKS_MAX = 256 * 1024,     /* bytes of a key set */
    CALLER_ACTORS_MAX = 8,
    CALLER_SCOPES_MAX = 64,
    CALLER_GROUPS_MAX = 256,
};

/* ---- the caller -------------------------------------------------------------------------------------------------- */

enum caller_auth {
    CALLER_AUTH_JWT,            /* a token of a configured issuer */
    CALLER_AUTH_LOCAL,          /* a token of the engine's own issuer */
    CALLER_AUTH_NONE,           /* --no-auth, stdio: named by the operator, not proved */
};
const char *caller_auth_name(enum caller_auth a);       /* "jwt", "local", "none": journal, policy context */

struct caller_actor {
    struct str name;            /* act.sub */
    struct str issuer;          /* act.iss; empty when the token does not say */
};

/* Immutable and shared: all strings live as long as a reference is held. */
struct caller {
    struct str tenant;
    struct str user;            /* on whose behalf */
    struct str agent;           /* the software that acts; always actors[0].name */
    const struct caller_actor *actors;  /* [0] the current actor; then the prior delegations, newest first */
    unsigned n_actors;          /* 1 to CALLER_ACTORS_MAX */
    struct str issuer;          /* iss; "none" without a token */
    struct str client_id;       /* client_id or azp; may be empty */
    struct str token_id;        /* jti; may be empty */
    const struct str *scopes;
    unsigned n_scopes;          /* 0 to CALLER_SCOPES_MAX */
    const struct str *groups;   /* the user's, as the token says them */
    unsigned n_groups;          /* 0 to CALLER_GROUPS_MAX */
    wall_ms_t issued;           /* iat; 0 without a token */
    wall_ms_t expires;          /* when it is no longer taken, exp and the leeway; INT64_MAX without a token */
    uint64_t tenant_hash, user_hash, agent_hash;        /* hash_bytes() of the names */
    struct str owner;                   /* tenant NUL user: who has what is recorded of users */
    uint64_t owner_hash;
    enum caller_auth auth;
    char fingerprint[17];       /* hex of the first 8 bytes of the token's SHA-256; "" without a token */
    struct str members;         /* caller_members(), at hand; empty when they are long */
};

/* Who that is, as the members of a JSON object stand behind others: tenant, user, agent, delegates (the agents before),
 * groups, scopes, auth, issuer, client, token (the fingerprint); what is empty is left out. */
void caller_members(const struct caller *c, struct buf *out);

struct caller *caller_ref(struct caller *c);            /* any thread; returns c */
void caller_release(struct caller *c);                  /* accepts NULL */

/*
 * Where calls of this caller look and those of others do not.  With many callers it has left the processor's caches by
 * the next call, and each look would wait for memory in turn: the caller knows where its last call looked, and asks for
 * all of it at once.  Nothing is read through these addresses, so what has gone from there does no harm.
 */
enum caller_trail {
    TRAIL_OWNER,                /* in the table of who has accounts */
    TRAIL_ACCOUNT, TRAIL_ACCESS,
    TRAIL_KEYS,                 /* the tenant's, for sealing */
    TRAIL_BUDGETS,              /* in the limiter */
    TRAIL_LIMITS = TRAIL_BUDGETS + 3,
    TRAIL_WAY = TRAIL_LIMITS + 3,       /* to the provider: fetch.h's `looked` */
    TRAIL_COUNT = TRAIL_WAY + 4,
};
void caller_left(const struct caller *c, enum caller_trail at, const void *where);     /* any thread */
void caller_ahead(const struct caller *c);
/* What the operator's token says, which only who has the engine's key can make: see admin/limits.c. */
#define OPERATOR_SCOPE "sluice.operator"
bool caller_has_scope(const struct caller *c, struct str scope);
/* A caller that no token proves (--no-auth on loopback, stdio). E_CONFIG when a name is not acceptable. */
enum err caller_named(struct str tenant, struct str user, struct str agent, struct caller **ret, struct errinfo *info);
/* Are these names acceptable? [A-Za-z0-9._-]{1,64}; printable UTF-8 without controls, 1 to 255 bytes. */
bool tenant_valid(struct str tenant);
bool principal_valid(struct str name);

/* ---- configuration ----------------------------------------------------------------------------------------------- */

enum identity_alg { IDENTITY_RS256, IDENTITY_ES256, IDENTITY_EDDSA };   /* EdDSA: Ed25519 only */
/* "RS256", "ES256", "EdDSA"; E_CONFIG otherwise. */
enum err identity_alg_parse(struct str s, enum identity_alg *ret);

struct identity_issuer {
    struct str issuer;                  /* compared with iss byte for byte */
    enum identity_alg alg;              /* exactly one: the token does not choose */
    const struct str *audiences;        /* aud must contain one of them */
    size_t n_audiences;
    /* exactly one of the three */
    struct str jwks_inline;             /* the JSON text of a JWK set (RFC 7517) */
    struct str jwks_path;               /* a file */
    struct str jwks_url;                /* https (http on loopback only) */
    /* exactly one of the two; see identity_create about who may speak for which tenant */
    struct str tenant;                  /* every token of this issuer belongs to it */
    struct str tenant_claim;            /* or: the claim that names it */
    /* with tenant_claim: the tenants it may name; none: any that no other issuer speaks for */
    const struct str *tenants;
    size_t n_tenants;
    struct str user_claim;              /* empty: "sub". sub is required in any case */
    /* put before the names of users, agents and groups: keeps two issuers of one tenant apart */
    struct str prefix;
    struct str scope_claim;             /* empty: "scope" (a string); an array of strings is accepted too */
    struct str groups_claim;            /* empty: "groups" (an array of strings); may be missing in a token */
    /* agent of tokens with neither act nor client_id/azp; empty: they are refused */
    struct str agent_default;
    bool typ_jwt_allowed;               /* typ "JWT" or none accepted beside "at+jwt" */
    ns_t lifetime_max;                  /* longest exp - iat accepted; 0: 24 h */
};

/* How a key set is fetched: one GET that follows no redirect, through the egress guard. Fills `body` (whose max is
 * set) with a 200 answer; anything else is an error with its reason in info. May wait. NULL: jwks_url is not
 * available (E_CONFIG). */
struct identity_fetcher {
    enum err (*await_get)(void *ctx, struct str url, ns_t deadline, struct buf *body, struct errinfo *info);
    void *ctx;
};

struct identity_local;

struct identity_config {
    const struct identity_issuer *issuers;      /* copied */
    size_t n_issuers;
    struct identity_local *local;               /* the engine's own issuer, or NULL; must outlive the identity */
    const struct str *local_audiences;          /* audiences accepted in its tokens */
    size_t n_local_audiences;
    struct identity_fetcher fetcher;
    size_t cache_max;                           /* 0: 10000 tokens */
    ns_t cache_ttl;                             /* 0: 60 s */
    ns_t leeway;                                /* 0: 30 s, for exp, nbf, iat */
    ns_t jwks_max_age;                          /* 0: 10 min; then a URL's keys are fetched again, in the background */
};

struct identity;

/*
 * Reads key files and checks everything: E_CONFIG with the issuer and the reason. Blocks (files): start-up or a
 * helper thread.
 *
 * Tenants (P8): each tenant is spoken for by one issuer. Two issuers may share a tenant only if both have a prefix
 * and neither prefix begins the other; an issuer with tenant_claim and no list gets what no other issuer is
 * configured for, and there may be one such issuer. The local issuer may name any tenant: its key is the operator's.
 */
enum err identity_create(const struct identity_config *config, struct identity **ret, struct errinfo *info);
/* The same checks, then issuers, keys and audiences are swapped and all remembered tokens forgotten. Keys of a URL
 * that stays serve until they have been fetched again. On error nothing changes. cache_max stays as created. Blocks. */
enum err identity_reload(struct identity *id, const struct identity_config *config, struct errinfo *info);
/* No call may be inside. */
void identity_destroy(struct identity *id);

/* ---- identifying ------------------------------------------------------------------------------------------------- */

/*
 * `authorization` is the header's value ("Bearer eyJ..."), empty when the header is missing. On OK *ret is a
 * reference for the caller of this function to release. Errors: E_TOKEN_* (info: one line safe to log and to show to
 * the caller). May wait, only while a key set is being fetched; then also E_UPSTREAM_DOWN (keys could not be
 * fetched: answer 503, not 401), E_CANCELLED.
 */
enum err await_identify(struct identity *id, struct str authorization, struct caller **ret, struct errinfo *info);
/* Never waits and fetches nothing; `now` is wall time, `mono` the loop's stamp. E_NOT_FOUND: the key is not known, a
 * fetch could help. */
enum err identity_verify(struct identity *id, struct str token, wall_ms_t now, ns_t mono, struct caller **ret,
    struct errinfo *info);
/* Splits "Bearer x": E_TOKEN_MISSING (none, or another scheme), E_TOKEN_MALFORMED. */
enum err identity_bearer(struct str authorization, struct str *ret_token, struct errinfo *info);
/* Forgets all remembered tokens (after a revocation; P8 tests). */
void identity_forget(struct identity *id);
/* How many tokens are remembered. */
size_t identity_cached(struct identity *id);

/* ---- telling clients --------------------------------------------------------------------------------------------- */

/*
 * Appends the value of WWW-Authenticate for `e` (E_TOKEN_* or E_SCOPE_INSUFFICIENT), RFC 6750 section 3, RFC 9728
 * section 5.1: metadata_url is the absolute URL of the document below; scope: everything the operation needs,
 * blank-separated, may be empty.
 */
void identity_challenge(struct buf *out, enum err e, struct str metadata_url, struct str scope);
/* Appends the protected resource metadata (RFC 9728) of `resource` (the canonical URL of the MCP endpoint). */
void identity_metadata(struct identity *id, struct str resource, const struct str *scopes, size_t n_scopes,
    struct buf *out);

/* ---- the local issuer -------------------------------------------------------------------------------------------- */

/* Ed25519. The key is `dir`/issuer.key, mode 0600, 64 hex digits; created when missing (and `create`). Blocks.
 * E_CONFIG with path and reason: unreadable, readable by others, not a key. `issuer` becomes iss. */
enum err identity_local_open(const char *dir, struct str issuer, bool create, struct identity_local **ret,
    struct errinfo *info);
void identity_local_close(struct identity_local *local);        /* accepts NULL */

struct identity_mint {
    struct str tenant, user, agent, audience;
    struct str scopes;                  /* blank-separated, may be empty */
    const struct str *groups;           /* of the user */
    size_t n_groups;
    const struct str *chain;            /* prior delegations behind the agent, newest first */
    size_t n_chain;                     /* < CALLER_ACTORS_MAX */
    wall_ms_t now;
    ns_t ttl;                           /* > 0, at most 24 h */
};
/* Appends a token that identity accepts. E_CONFIG when a name is not acceptable. */
enum err identity_mint(const struct identity_local *local, const struct identity_mint *m, struct buf *out,
    struct errinfo *info);
/* Appends its public JWK set. */
void identity_local_jwks(const struct identity_local *local, struct buf *out);

#endif
