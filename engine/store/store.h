/*
 * store.h -- durable tables: accounts, sealed grants, delegations, half-finished connections, tenant keys
 *
 * The only header that knows tables exist; SQLite is behind it (store.c) and another database may be one day.  Every
 * row belongs to a tenant and every function takes the tenant.  Shared state that two writers could race on (a
 * grant) carries a generation and is changed by compare-and-swap.  What is secret arrives here already sealed: the
 * store never sees a token.
 *
 * EVERY FUNCTION BLOCKS: call from start-up, a helper thread (await_blocking), or a command line tool, never from a
 * loop's thread (asserted).  Any number of threads may call; they are served one at a time.  A function that
 * returned OK is durable.  Errors: E_STORE_UNAVAILABLE with the reason in info; E_NOT_FOUND where said.  design.md 9.
 */
#ifndef STORE_STORE_H
#define STORE_STORE_H

#include "base/arena.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/str.h"

struct store;

/* `path` is created when missing (mode 0600); ":memory:" for tests and the simulated world. Older schemas are
 * migrated in one transaction, newer ones refused. E_CONFIG: not a database, damaged, newer, unreadable;
 * E_STORE_UNAVAILABLE: locked, disk full. */
enum err store_open(const char *path, struct store **ret, struct errinfo *info);
void store_close(struct store *s);                              /* accepts NULL */
/* Is the database answering and writable? For readiness. */
enum err store_check(struct store *s, struct errinfo *info);

/* For filling a store that nothing is served from: what returns OK between the two is durable once store_bulk_end()
 * has returned OK, and gone otherwise. Some 20,000 rows at a time; one thread. */
enum err store_bulk_begin(struct store *s, struct errinfo *info);
enum err store_bulk_end(struct store *s, struct errinfo *info);

/* ---- accounts ---------------------------------------------------------------------------------------------------- */

enum account_status {
    ACCOUNT_CONNECTED,
    ACCOUNT_RECONNECT_NEEDED,   /* its grant is dead: the user must connect again */
    ACCOUNT_DISCONNECTED,       /* never stored: a row that is gone */
};

struct store_account {
    struct str tenant, id;      /* the key */
    struct str user, provider;
    /* which of the user's accounts of this provider; "" for the only one. Unique with the two above */
    struct str label;
    struct str external_id;     /* mailbox, workspace, login, as the provider names it; may be empty */
    struct str scopes;          /* granted, blank-separated */
    enum account_status status;
    wall_ms_t created;
};

struct store_grant {
    uint64_t generation;        /* 1, 2, ... */
    struct str sealed;          /* opaque here */
    wall_ms_t obtained, expires;        /* of the access token; expires INT64_MAX: never */
    wall_ms_t refreshing;       /* when a refresh of this generation was announced (store_refresh_begin); 0: none */
};

/* Adds or replaces account and grant in one transaction. An account with the same (tenant, user, provider, label) is
 * replaced and must have the same id (E_NOT_FOUND otherwise: look it up first). grant->generation must be the stored
 * one + 1, or 1 for a new account: else nothing changes and *ret_stored is false. */
enum err store_account_put(struct store *s, const struct store_account *a, const struct store_grant *grant,
    bool *ret_stored, struct errinfo *info);
/* RECONNECT_NEEDED, if `generation` is still the current one: E_NOT_FOUND otherwise. */
enum err store_account_dead(struct store *s, struct str tenant, struct str id, uint64_t generation,
    struct errinfo *info);
enum err store_account_describe(struct store *s, struct str tenant, struct str id, struct str external_id,
    struct errinfo *info);              /* E_NOT_FOUND */
/* Account and grant, if `generation` is still the current one; 0: whichever is. E_NOT_FOUND otherwise. */
enum err store_account_delete(struct store *s, struct str tenant, struct str id, uint64_t generation,
    struct errinfo *info);
/* Calls fn for each account with its grant (without the sealed bytes), ordered by creation; fn copies what it keeps
 * and must not call the store. Stops at the first error fn returns, and returns it. */
enum err store_accounts_each(struct store *s,
    enum err (*fn)(const struct store_account *a, const struct store_grant *g, void *arg), void *arg,
    struct errinfo *info);

/* ---- grants ------------------------------------------------------------------------------------------------------ */

/* E_NOT_FOUND. */
enum err store_grant_get(struct store *s, struct str tenant, struct str account, struct arena *a,
    struct store_grant *ret, struct errinfo *info);
/* Announces that the refresh token of `generation` is about to be sent: durable before the bytes leave, so that a
 * crash is noticed afterwards. false: another generation is current, or a refresh is announced already and `again`
 * is false. */
enum err store_refresh_begin(struct store *s, struct str tenant, struct str account, uint64_t generation,
    wall_ms_t now, bool again, bool *ret_begun, struct errinfo *info);
/* Takes the announcement back: the refresh token was certainly not used. */
enum err store_refresh_undo(struct store *s, struct str tenant, struct str account, uint64_t generation,
    struct errinfo *info);
/* Compare-and-swap: generation `from` becomes from + 1 with these bytes, the announcement is cleared, the account is
 * CONNECTED. false: another generation is current. grant->generation is ignored. */
enum err store_grant_swap(struct store *s, struct str tenant, struct str account, uint64_t from,
    const struct store_grant *grant, bool *ret_swapped, struct errinfo *info);

/* ---- delegations ------------------------------------------------------------------------------------------------- */

/* What a user has delegated to an agent. One per (tenant, user, agent): putting replaces, under a new id. */
struct store_delegation {
    struct str tenant, id;      /* the key */
    struct str user, agent;
    wall_ms_t created;
    struct str sealed;          /* opaque here */
};
enum err store_delegation_put(struct store *s, const struct store_delegation *d, struct errinfo *info);
enum err store_delegation_delete(struct store *s, struct str tenant, struct str id, struct errinfo *info);
                                        /* E_NOT_FOUND */
/* At most `max` of them, ordered by the key, from the first behind this one ("" and "": from the first). fn: as with
 * store_accounts_each. */
enum err store_delegations_page(struct store *s, struct str tenant, struct str id, unsigned max,
    enum err (*fn)(const struct store_delegation *d, void *arg), void *arg, struct errinfo *info);

/* ---- connections being made (OAuth state) ----------------------------------------------------------------------- */

enum { STORE_PENDING_PER_USER_MAX = 16 };

/* `key` is a digest of the state parameter: the state itself is not kept. Expired rows are swept here. At most
 * STORE_PENDING_PER_USER_MAX per user: the oldest goes. */
struct store_pending {
    struct str tenant, user, provider;
    struct str sealed;
    wall_ms_t expires;
};
enum err store_pending_put(struct store *s, struct str key, const struct store_pending *p, wall_ms_t now,
    struct errinfo *info);
/* Reads it, if not expired. E_NOT_FOUND. `take`: and removes it in the same transaction, so that one caller only
 * gets it. */
enum err store_pending_get(struct store *s, struct str key, wall_ms_t now, bool take, struct arena *a,
    struct store_pending *ret, struct errinfo *info);

/* ---- tenant keys, meta ------------------------------------------------------------------------------------------- */

/* Stores `sealed` as the tenant's key unless it has one; answers the one that is stored afterwards. */
enum err store_key_put(struct store *s, struct str tenant, struct str sealed, wall_ms_t now, struct arena *a,
    struct str *ret_sealed, struct errinfo *info);
enum err store_key_get(struct store *s, struct str tenant, struct arena *a, struct str *ret_sealed,
    struct errinfo *info);
/* Everything sealed under it can never be opened again. E_NOT_FOUND. */
enum err store_key_delete(struct store *s, struct str tenant, struct errinfo *info);

enum err store_meta_get(struct store *s, struct str key, struct arena *a, struct str *ret, struct errinfo *info);
enum err store_meta_put(struct store *s, struct str key, struct str value, struct errinfo *info);

#endif
