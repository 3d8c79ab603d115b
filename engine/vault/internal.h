/*
 * internal.h -- what the files of vault/ share: slots (accounts in memory), tenant keys, grants, OAuth messages
 *
 * Locks, each held for a few lines and never over a wait (accounts_lock only on helper threads, over the store's work):
 *   tenants_lock   adding to the table of tenant keys, which is read without; then the key's own lock
 *   owner shard    which accounts (tenant, user) has
 *   id shard       the table of accounts by (tenant, id), and everything in a slot that can change
 * An owner shard's lock may be held when an id shard's is taken, not the other way round.
 */
#ifndef VAULT_INTERNAL_H
#define VAULT_INTERNAL_H

#include "base/check.h"
#include "base/map.h"
#include "identity/flight.h"
#include "identity/identity.h"
#include "vault/vault.h"

#include <stdatomic.h>

enum {
    VAULT_MAGIC = 0x5661756c, SLOT_MAGIC = 0x536c6f74,
    SHARDS = 64,
    TENANT_CHAINS = 1 << 16,
    TOKEN_TEXT_MAX = 8192,              /* bytes of one access or refresh token */
    GRANT_MAX = 2 * TOKEN_TEXT_MAX + 64,
    SEALED_MAX = GRANT_MAX + VAULT_SEAL_OVERHEAD,
    ID_TEXT_MAX = 64, PROVIDER_TEXT_MAX = 64, LABEL_TEXT_MAX = 128, EXTERNAL_TEXT_MAX = 255, SCOPES_TEXT_MAX = 4096,
};

#define USABLE_MIN_MS   5000            /* a token with less life left is not handed out at all */
#define REJECT_PAUSE    (30 * NS_PER_S) /* a token refused so soon after its refresh is not refreshed again */
#define STATIC_PAUSE    (60 * NS_PER_S) /* how long a refused token is held back that nothing can refresh */
#define BACKOFF_MAX     (300 * NS_PER_S)
#define CLIENT_PAUSE    (60 * NS_PER_S)
#define CONNECT_MS      (600 * 1000)    /* how long a state works */

/* ---- tenant keys: seal.c ----------------------------------------------------------------------------------------- */

/* Entries are never removed while the vault is open; a shredded one holds no key. */
struct tenant_key {
    struct tenant_key *next;            /* in its chain; with hash and tenant: never changes once it can be found */
    uint64_t hash;
    size_t tenant_len;
    pthread_mutex_t lock;
    atomic_bool loaded;                 /* is there a master? To ask without the lock: in each call */
    struct secret *master;              /* NULL: not loaded, or shredded */
    struct secret *epoch;               /* derived from master and salt; what new bytes are sealed under */
    uint8_t salt[16];
    uint64_t sealed;                    /* under this epoch */
    char tenant[];
};

void seal_init(struct vault *v);
void seal_release(struct vault *v);     /* wipes all keys */

/* The tenant's entry, which lasts; NULL: never loaded. `hash`: of its name. */
struct tenant_key *key_find(struct vault *v, struct str tenant, uint64_t hash);

struct sealed {
    struct str account, purpose;
    struct str bytes;
};
/* vault_unseal() straight into a secret's pages: what is opened is nowhere else. `k` may be NULL. E_OVERLOADED: none
 * to be had. */
enum err unseal_secret(struct tenant_key *k, const struct sealed *s, struct secret **ret);

/* ---- accounts in memory ------------------------------------------------------------------------------------------ */

/* An opened access token, shared by all leases of one generation. Guarded by the slot's shard. */
struct vault_token {
    struct secret *secret;
    uint64_t generation;
    unsigned leases;
};

/* A grant that was received from the provider and could not be stored yet. */
struct unsaved {
    char *sealed;
    size_t len;
    uint64_t from;                      /* the generation it replaces */
    wall_ms_t obtained, expires;
    bool refreshable;
    char *access;                       /* sealed for memory, as in the slot */
    size_t access_len;
};

struct vault_slot {
    uint32_t magic;
    atomic_uint refs;                   /* tables (one for both), users, leases */
    struct vault_slot *next;            /* accounts of the same owner, oldest first; owner shard */

    /* What calls look at, three cache lines with the above: of many accounts, most have left the caches. */

    /* never change; one block behind the struct */
    struct str id, provider, label, user;
    uint64_t hash;                      /* of id_key: its shard, its moment of early refresh */
    wall_ms_t created;
    /* id shard */
    bool gone;                          /* disconnected */
    bool refreshable;                   /* has a refresh token (known once loaded) */
    /* the answer to a refresh of this generation was lost: the store has the mark */
    bool lost;
    uint8_t status;                     /* enum account_status */
    uint8_t failures;
    uint64_t generation;
    uint64_t rejected;                  /* upstream refused this generation; 0: none */
    wall_ms_t obtained, expires;
    char *access;                       /* sealed access token of `generation`; NULL: cold */
    size_t access_len;
    struct vault_token *current;        /* opened; NULL while nobody holds a lease */
    struct tenant_key *keys;            /* its tenant's; NULL until a token is opened */
    struct flight flight;
    char *scopes;

    /* What they do not. */

    /* never change; behind the struct as well */
    struct str tenant;
    struct str id_key, owner_key;       /* "tenant\0id", "tenant\0user" */
    /* id shard */
    char *external_id;
    uint64_t mark_void;                 /* the store's mark on this generation is known not to count; 0: none */
    ns_t published_at;                  /* loop time; 0: before this process */
    ns_t retry_after;                   /* no attempt before; with `failure` */
    enum err failure;
    struct unsaved *unsaved;
};

STATIC_ASSERT(offsetof(struct vault_slot, tenant) == 192, "three lines");

struct shard {
    pthread_mutex_t lock;
    struct map map;
} __attribute__((aligned(64)));

struct vault {
    uint32_t magic;
    struct store *store;
    struct secret *root;
    struct vault_http http;
    size_t accounts_max;
    ns_t refresh_margin, refresh_timeout;
    bool early_refresh;
    void (*crash_point)(const char *where);
    pthread_mutex_t accounts_lock;      /* storing and removing accounts; held while the store works */
    wall_ms_t newest;                   /* creation time of the youngest account; accounts_lock */
    atomic_size_t n_accounts;
    pthread_mutex_t tenants_lock;       /* adding to the table */
    _Atomic(struct tenant_key *) *tenants;      /* TENANT_CHAINS; pages without a tenant stay untouched */
    struct shard by_id[SHARDS], by_owner[SHARDS];
    atomic_size_t n_delegations;
    struct shard delegations[SHARDS];   /* by tenant, user and agent: delegations.c */
    unsigned label_ok, label_transient, label_lost, label_dead, label_client, label_conflict, label_unsaved;
};

/* accounts.c. Parts joined by NUL, which occurs in none of them; empty when too long: names nothing. c.p NULL: two
 * parts. */
enum { KEY_MAX = IDENTITY_TENANT_MAX + 2 * IDENTITY_NAME_MAX + 4 };
struct str key_join(char out[KEY_MAX], struct str a, struct str b, struct str c);
struct shard *shard_of(struct shard shards[SHARDS], struct str key);

/* delegations.c */
enum err delegations_load(struct vault *v, struct errinfo *info);      /* Blocks. */
void delegations_forget(struct vault *v, struct str tenant);
void delegations_release(struct vault *v);

/* accounts.c. slot_find: with a reference, or NULL. */
struct vault_slot *slot_find(struct vault *v, struct str tenant, struct str id);
void slot_release(struct vault_slot *s);
pthread_mutex_t *slot_lock(struct vault *v, const struct vault_slot *s);
/* Makes the slot of a new account and puts it into the tables; or answers the one that is there. With a reference. */
struct vault_slot *slot_make(struct vault *v, const struct store_account *a);
/* Out of the tables; leases stay valid. */
void slot_remove(struct vault *v, struct vault_slot *s);
void slot_set_details(struct vault_slot *s, struct str external_id, struct str scopes);     /* lock held */
enum err check_names(struct str tenant, struct str user, struct str provider, struct str label, struct errinfo *info);

/* ---- grants: token.c --------------------------------------------------------------------------------------------- */

/* What a grant consists of. */
struct grant {
    struct secret *access, *refresh;    /* refresh may be NULL */
    wall_ms_t obtained, expires;
};
void grant_release(struct grant *g);
/* Seals for the store. Tenant loaded. */
enum err grant_seal(struct vault *v, struct str tenant, struct str account, const struct grant *g, struct buf *out);
enum err grant_open(struct vault *v, struct str tenant, struct str account, struct str sealed, struct grant *ret);
/* Seals the access token for memory. */
enum err access_seal(struct vault *v, struct str tenant, struct str account, const struct secret *access,
    struct buf *out);
/* Makes a stored grant the one that calls use. Lock held. Takes the heap bytes of `access`. Wakes nobody. */
void slot_publish(struct vault_slot *s, uint64_t generation, wall_ms_t obtained, wall_ms_t expires, bool refreshable,
    char *access, size_t access_len, ns_t now);
/* Enough life left to be handed out, and not refused upstream? Lock held. */
bool slot_usable(const struct vault_slot *s, wall_ms_t now);
/* Must be refreshed before use? Lock held. */
bool slot_needs_refresh(const struct vault *v, const struct vault_slot *s, wall_ms_t now);

/* Stores a new grant for (tenant, user, provider, label), replacing an older one. *ret_id in `a`. */
struct new_account {
    struct str tenant, user, provider, label, external_id, scopes;
    const struct grant *grant;
};
enum err account_store(struct vault *v, const struct new_account *n, wall_ms_t now, struct arena *a, struct str *ret_id,
    struct errinfo *info);              /* Blocks. */

/* ---- refreshing: refresh.c --------------------------------------------------------------------------------------- */

/* Leads the flight and starts the task that loads, and refreshes when needed. Lock held. */
enum err refresh_start(struct vault *v, struct vault_slot *s, const struct vault_provider *p, bool early);

/* ---- OAuth messages: oauth.c (pure) ------------------------------------------------------------------------------ */

enum { FORM_MAX = 40 };

struct form {
    struct vault_field fields[FORM_MAX];
    unsigned n;
    bool overflow;
};
void form_add(struct form *f, struct str name, struct str value);
void form_add_secret(struct form *f, struct str name, const struct secret *secret);
/* The client's part: basic in `post`, or fields; then the provider's extra parameters. */
void form_finish(struct form *f, const struct vault_provider *p, struct vault_post *post);

enum oauth_verdict {
    OAUTH_TOKENS,       /* success */
    OAUTH_DEAD,         /* the code or refresh token is not (or no longer) valid: a definite answer */
    OAUTH_CLIENT,       /* our client is not accepted, or the request is wrong: the operator's */
    OAUTH_LATER,        /* limited or broken for now, and nothing was done */
    OAUTH_LOST,         /* something may have been done, and we do not have what came of it */
};

struct oauth_answer {
    struct secret *access, *refresh;    /* with OAUTH_TOKENS; refresh may be NULL */
    int64_t expires_in_s;               /* -1: not said */
    char scopes[SCOPES_TEXT_MAX];       /* "" : not said */
    char error[64];                     /* the provider's word, made printable */
};
/* Reads an answer; wipes the body. */
enum oauth_verdict oauth_read(struct vault_reply *reply, struct oauth_answer *ret);
void oauth_answer_release(struct oauth_answer *a);
/* When does a token obtained at `now` expire? */
wall_ms_t oauth_expiry(const struct vault_provider *p, int64_t expires_in_s, wall_ms_t now);
/* Did an error of await_post leave the request unsent? */
bool oauth_unsent(enum err e);
/* A copy that stands alone; free with provider_free. */
struct vault_provider *provider_copy(const struct vault_provider *p);
void provider_free(struct vault_provider *p);

#endif
