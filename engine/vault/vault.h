/*
 * vault.h -- accounts and grants: sealing, connecting, refreshing, revoking
 *
 * The one place where providers' tokens exist.  At rest they are sealed (AES-256-GCM under a key of the tenant,
 * which is sealed under the root key); in memory the current access token of a warm account is sealed too, and is
 * opened into a struct secret only while a lease is held.  One struct vault serves all workers.
 *
 * Promises: P4 (one expiry, one refresh; a single-use refresh token is never sent twice), P7, P8 (every lookup names
 * the tenant; the tenant, account and purpose are bound into every sealed byte), P9 (a new refresh token is durable
 * before its access token is used).  Functions named await_ may wait and run on a loop's task; the others neither
 * wait nor block, except where "Blocks" says so.  RFC 6749, 7636 (PKCE), 7009 (revocation), 9207 (iss), 9700.
 */
#ifndef VAULT_VAULT_H
#define VAULT_VAULT_H

#include "base/arena.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/secret.h"
#include "base/str.h"
#include "identity/identity.h"
#include "store/store.h"

struct vault;

/* ---- providers --------------------------------------------------------------------------------------------------- */

enum vault_auth {               /* how the token endpoint learns who we are */
    VAULT_AUTH_BASIC,           /* Authorization: Basic (RFC 6749 2.3.1) */
    VAULT_AUTH_POST,            /* client_id and client_secret in the body */
    VAULT_AUTH_NONE,            /* public client: client_id in the body */
};

enum vault_rotation {           /* what a refresh does to the refresh token it used */
    VAULT_ROTATES_NO,           /* it stays (Google): sending it again is harmless */
    VAULT_ROTATES_KEEP,         /* a new one comes, the old one stays valid (Microsoft) */
    /* single use (Slack, GitHub, Zendesk, Atlassian, Okta): sending it twice may kill the grant */
    VAULT_ROTATES_ONCE,
};

struct vault_param {
    struct str name, value;
};

/* One provider's OAuth client, as configured for a tenant. All of it must stay as it is until the function it was
 * given to has returned; nothing is kept (a refresh that outlives its asker works on a copy). */
struct vault_provider {
    struct str name;                    /* the provider's name in accounts: "github" */
    struct str authorize_url, token_url;
    struct str revoke_url;              /* RFC 7009; empty: the provider has none */
    /* iss that authorization answers must carry (RFC 9207); empty: the provider sends none, and one that comes is
     * refused */
    struct str issuer;
    struct str client_id;
    const struct secret *client_secret; /* NULL with VAULT_AUTH_NONE */
    enum vault_auth auth;
    struct str scopes;                  /* asked for, blank-separated */
    char scope_separator;               /* 0: a blank; ',' for Slack */
    enum vault_rotation rotation;
    ns_t replay_grace;                  /* ROTATES_ONCE: how long the provider accepts a lost refresh again; 0: never */
    ns_t default_ttl;                   /* life of an access token without expires_in; 0: it does not expire */
    /* Errors in answers of status 200 ("error", or "ok": false) are understood from every provider. */
    const struct vault_param *authorize_params, *token_params;      /* extra parameters */
    size_t n_authorize_params, n_token_params;
};

/* ---- the way out ------------------------------------------------------------------------------------------------- */

/* One POST of application/x-www-form-urlencoded to a token or revocation endpoint, answer at most 64 KiB, no
 * redirects, Accept: application/json. */
struct vault_field {
    struct str name, value;             /* plain text: the sender percent-encodes */
    const struct secret *secret;        /* not NULL: instead of value */
};
struct vault_post {
    struct str tenant;                  /* connections are not shared between tenants */
    struct str provider;
    struct str url;
    const struct vault_field *fields;
    unsigned n_fields;
    struct str basic_user;              /* with basic_secret: Authorization: Basic, both form-encoded first */
    const struct secret *basic_secret;
    ns_t deadline;
};
struct vault_reply {
    int status;
    int64_t retry_after_s;              /* Retry-After in seconds, -1: none */
    struct buf body;                    /* max is set; wiped and released by the vault */
};
/*
 * OK: an answer was read completely. Errors tell what the provider may have seen:
 *   E_UPSTREAM_DOWN, E_EGRESS_DENIED, E_CONNECTOR_FAULT, E_DEADLINE, E_CANCELLED, E_DRAINING, E_OVERLOADED: no byte
 *   of the request left
 *   everything else: it may have been received, and the answer is lost
 */
struct vault_http {
    enum err (*await_post)(void *ctx, const struct vault_post *post, struct vault_reply *ret, struct errinfo *info);
    void *ctx;
};

/* ---- the vault --------------------------------------------------------------------------------------------------- */

/* The root key: "file:PATH" (64 hex digits, mode 0600; made when missing and `create`), "env:NAME" (64 hex digits),
 * "credential:NAME" (a file in $CREDENTIALS_DIRECTORY, as systemd makes it). E_CONFIG with place and reason. Blocks. */
enum err vault_root_load(struct str where, bool create, struct secret **ret, struct errinfo *info);
enum err vault_root_check(struct str where, struct errinfo *info);     /* is it one of these? Reads nothing. */

struct vault_config {
    struct store *store;                /* must outlive the vault */
    const struct secret *root;          /* copied */
    struct vault_http http;
    size_t accounts_max;                /* and delegations; 0: 1,000,000; then E_OVERLOADED for new ones */
    /* a token with less life left is refreshed before use; 0: 60 s (at most half its life) */
    ns_t refresh_margin;
    ns_t refresh_timeout;               /* one request to a token endpoint; 0: 20 s */
    /* default: refresh in the background at 75 to 85 % of a token's life, when it is used */
    bool no_early_refresh;
    void (*crash_point)(const char *where);     /* tests only: called at the named instants of a refresh; NULL */
};

/* Loads the table of accounts. E_CONFIG when the root key is not the one the store was sealed under. Blocks. */
enum err vault_open(const struct vault_config *config, struct vault **ret, struct errinfo *info);
/* All leases returned, no task inside (asserted). */
void vault_close(struct vault *v);

/* ---- sealing ----------------------------------------------------------------------------------------------------- */

enum { VAULT_SEAL_OVERHEAD = 1 + 16 + 12 + 16 };

/* Makes sure that the tenant's key is in memory (made on first use): once per tenant; a lookup afterwards. May wait. */
enum err await_vault_tenant(struct vault *v, struct str tenant, struct errinfo *info);
/* A tenant's keys, for who will seal more than once, if they are in memory: then nothing is waited for. NULL: they are
 * not. tenant_hash: hash_bytes() of the name, as a caller has it. They last as long as the vault. */
struct tenant_key;
struct tenant_key *vault_keys_loaded(struct vault *v, struct str tenant, uint64_t tenant_hash);
/* The same, but makes sure of it, as above. */
enum err await_vault_keys(struct vault *v, struct str tenant, uint64_t tenant_hash, struct tenant_key **ret,
    struct errinfo *info);
/* The same as await_vault_tenant() for start-up and command line tools. Blocks. */
enum err vault_tenant_load(struct vault *v, struct str tenant, struct errinfo *info);
/* Destroys the tenant's key: all it sealed is unreadable for good. Blocks. */
enum err vault_tenant_shred(struct vault *v, struct str tenant, struct errinfo *info);

/*
 * Appends n + VAULT_SEAL_OVERHEAD bytes to `out`. `purpose` ("payload", "request-state", ...) and `account` (or
 * another name the bytes belong to; may be empty) are bound in: opening needs the same. E_NOT_FOUND: tenant not
 * loaded; E_CALL_TOO_LARGE: out is full. Form: 01 | salt 16 | nonce 12 | ciphertext | tag 16, under HKDF(tenant key,
 * salt); see seal.c.
 */
enum err vault_seal(struct vault *v, struct str tenant, struct str account, struct str purpose, struct str plain,
    struct buf *out);
/* The same with await_vault_keys() at hand. `k` may be NULL: E_NOT_FOUND. */
enum err vault_seal_with(struct tenant_key *k, struct str account, struct str purpose, struct str plain,
    struct buf *out);
/* E_TAMPERED: altered, cut, or sealed for another tenant, account or purpose. */
enum err vault_unseal(struct vault *v, struct str tenant, struct str account, struct str purpose, struct str sealed,
    struct buf *out);

/* ---- accounts ---------------------------------------------------------------------------------------------------- */

struct vault_account {
    struct str id, user, provider, label, external_id, scopes;
    enum account_status status;
    wall_ms_t created;
    wall_ms_t expires;                  /* of the access token; INT64_MAX: never */
    uint64_t generation;
    struct vault_slot *slot;            /* the vault's; NULL: not held */
};

/* The account of a caller's user with a provider: the one with that label, or with an empty label the oldest. Looks at
 * the user's accounts only, no store. E_ACCOUNT_MISSING. On OK it is held, and its strings last until it is released;
 * those that may change (external_id, scopes) are what they were, copied into `a`. An account that is held can be
 * disconnected all the same. */
enum err vault_account_find(struct vault *v, const struct caller *who, struct str provider, struct str label,
    struct arena *a, struct vault_account *ret);
enum err vault_account_get(struct vault *v, struct str tenant, struct str id, struct arena *a,
    struct vault_account *ret);
void vault_account_release(struct vault_account *account);      /* accepts one that is not held; zeroes it */
/* All accounts of the tenant, or of one user (user not empty), oldest first, in an array in `a`, copied, none held.
 * Linear in all accounts: not for calls. */
enum err vault_accounts(struct vault *v, struct str tenant, struct str user, struct arena *a,
    struct vault_account **ret, size_t *ret_n);

/* Stores a token that the user brings (personal access token, bot token): no expiry, no refresh. Replaces an account
 * of the same (user, provider, label). */
struct vault_static {
    struct str tenant, user, provider, label, external_id, scopes;
    const struct secret *token;
};
enum err await_vault_account_put(struct vault *v, const struct vault_static *s, struct arena *a, struct str *ret_id,
    struct errinfo *info);
/* Blocks. */
enum err vault_account_put(struct vault *v, const struct vault_static *s, struct arena *a, struct str *ret_id,
    struct errinfo *info);

/* What the account is called at the provider (mailbox, workspace, login), once somebody has asked it.
 * E_ACCOUNT_MISSING. */
enum err await_vault_account_describe(struct vault *v, struct str tenant, struct str id, struct str external_id,
    struct errinfo *info);

/* Revokes the newest tokens at the provider (when `p` is given and has a revoke_url), then forgets the account. Who
 * connects it again while the provider is being told is disconnected with it: those tokens are revoked, too. The
 * account is gone locally even when the provider could not be told of all: then the result is still OK and *ret_revoked
 * (may be NULL) is false. */
enum err await_vault_disconnect(struct vault *v, struct str tenant, struct str id, const struct vault_provider *p,
    ns_t deadline, bool *ret_revoked, struct errinfo *info);

/* ---- delegations: what users let agents do for them, on record --------------------------------------------------- */

enum {
    VAULT_DELEGATIONS_MAX = 256,        /* of one user */
    VAULT_DELEGATION_ACTIONS_MAX = 64, VAULT_DELEGATION_ACTION_MAX = 128,
};

struct vault_delegation {
    struct str id, agent;
    /* tools or groups of them: "outlook.send_mail", "outlook", "reads"; none: all */
    const struct str *actions;
    unsigned n_actions;
    wall_ms_t since, expires;           /* INT64_MAX: never */
};

/* Is any on record? Then, for a call: what the user lets the agent do, in `a`; E_NOT_FOUND: nothing, or no more. */
bool vault_delegations_any(const struct vault *v);
enum err vault_delegation_find(struct vault *v, struct str tenant, struct str user, struct str agent, wall_ms_t now,
    struct arena *a, const struct vault_delegation **ret);
/* All of a user, ended ones too, by agent; should a store have more than VAULT_DELEGATIONS_MAX of them, so many. Linear
 * in all delegations: not for calls. */
enum err vault_delegations(struct vault *v, struct str tenant, struct str user, struct arena *a,
    struct vault_delegation **ret, size_t *ret_n);

/* One of a user, by its id; E_NOT_FOUND. As linear. */
enum err vault_delegation_get(struct vault *v, struct str tenant, struct str user, struct str id, struct arena *a,
    struct vault_delegation *ret);

/* Records one, in place of what the user had recorded for the agent. E_CONFIG: a name is not acceptable, an action is
 * named twice, or the user has VAULT_DELEGATIONS_MAX to other agents; E_OVERLOADED: the vault has accounts_max. */
struct vault_delegate {
    struct str tenant, user, agent;
    const struct str *actions;
    unsigned n_actions;
    wall_ms_t expires;
};
/* In `a`: its id, and that of the one it took the place of, or NULL. */
enum err await_vault_delegation_put(struct vault *v, const struct vault_delegate *n, struct arena *a,
    struct str *ret_id, struct str *ret_replaced, struct errinfo *info);
/* In force at once. E_NOT_FOUND: not one of this user. */
enum err await_vault_delegation_delete(struct vault *v, struct str tenant, struct str user, struct str id,
    struct errinfo *info);
/* The same two for helper threads and command line tools. Block. */
enum err vault_delegation_put(struct vault *v, const struct vault_delegate *n, struct arena *a, struct str *ret_id,
    struct str *ret_replaced, struct errinfo *info);
enum err vault_delegation_delete(struct vault *v, struct str tenant, struct str user, struct str id,
    struct errinfo *info);

/* ---- connecting (authorization code with PKCE S256) ------------------------------------------------------------ */

/* Where to send the user's browser: a URL with a state that works once, for ten minutes. redirect_uri must be the
 * exact registered one. Strings are in `a`. */
enum err await_vault_connect_begin(struct vault *v, const struct vault_provider *p, struct str tenant,
    struct str user, struct str label, struct str redirect_uri, struct arena *a, struct str *ret_url,
    struct str *ret_state, struct errinfo *info);
/* Who and what a state was made for, without using it up: to find the provider's configuration. E_STATE_INVALID. */
struct vault_pending {
    struct str tenant, user, provider;
};
enum err await_vault_connect_peek(struct vault *v, struct str state, struct arena *a, struct vault_pending *ret,
    struct errinfo *info);
/* What the provider's redirect brought. `iss` and `error` are empty when absent. Uses the state up first, whatever
 * follows. E_STATE_INVALID: unknown, used, expired, another provider's, or iss does not match; E_UPSTREAM_REFUSED:
 * the user or the provider said no; E_UPSTREAM_DOWN, E_UPSTREAM_GARBLED, E_OUTCOME_UNKNOWN. On OK the account's id
 * is in `a`. */
struct vault_callback {
    struct str state, code, iss, error;
};
enum err await_vault_connect_finish(struct vault *v, const struct vault_provider *p, const struct vault_callback *cb,
    ns_t deadline, struct arena *a, struct str *ret_id, struct errinfo *info);

/* ---- tokens for calls -------------------------------------------------------------------------------------------- */

struct vault_slot;
struct vault_token;

/* A token in use. Return it as soon as the request has been sent; plain data, may be moved. */
struct vault_lease {
    const struct secret *token;         /* lives as long as the lease */
    uint64_t generation;
    struct vault_slot *slot;            /* the vault's */
    struct vault_token *shared;         /* the vault's */
};

/*
 * A token of an account that is held, good for at least the refresh margin. Refreshes first when needed: one refresh
 * per grant however many wait, on a task of its own that no waiter's deadline or cancellation ends. Errors:
 *   E_ACCOUNT_MISSING    it has been disconnected, or is of another provider
 *   E_RECONNECT_NEEDED   the grant is dead: the provider said so, or a single-use refresh token may have been
 *                        used already and must not be sent again
 *   E_UPSTREAM_DOWN      the token endpoint does not answer or limits us: later (attempts back off, 1 s to 5 min)
 *   E_UPSTREAM_AUTH      the provider does not accept our client's credentials: the operator's to mend
 *   E_DEADLINE, E_CANCELLED, E_STORE_UNAVAILABLE, E_OVERLOADED
 */
enum err await_vault_token(struct vault *v, const struct vault_account *account, const struct vault_provider *p,
    ns_t deadline, struct vault_lease *ret, struct errinfo *info);
void vault_lease_release(struct vault *v, struct vault_lease *lease);  /* accepts a zeroed one; zeroes it */
void vault_lease_ahead(const struct vault_lease *lease);       /* base/ahead.h: it is about to be released */
/*
 * Upstream answered 401 to this token. If its generation is still the current one the next await_vault_token
 * refreshes (once). True: it is worth asking for a token again; false: it is not (nothing can refresh it: then it is
 * held back for a minute and lent again; or the generation is so young that another refresh would not help). The lease
 * stays held.
 */
bool vault_token_rejected(struct vault *v, const struct vault_lease *lease);

#endif
