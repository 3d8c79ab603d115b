/*
 * internal.h -- what the files of identity/ share
 *
 * A struct issuer_set is one configuration: immutable but for the keys of each issuer, which are swapped under its
 * lock. It is counted; a token that is being checked holds a reference, so a reload never pulls keys from under it.
 */
#ifndef IDENTITY_INTERNAL_H
#define IDENTITY_INTERNAL_H

#include "base/check.h"
#include "identity/flight.h"
#include "identity/identity.h"
#include "identity/jwt.h"

#include <stdatomic.h>

/* ---- issuers.c --------------------------------------------------------------------------------------------------- */

struct issuer {
    struct identity_issuer c;           /* strings in the set's arena; defaults filled in */
    enum caller_auth auth;
    bool any_tenant;                    /* the local issuer */

    pthread_mutex_t lock;               /* guards what follows */
    struct jwks *keys;                  /* NULL: never had any */
    uint64_t version;                   /* of `keys`: raised by each fetch that succeeded */
    bool doubtful;                      /* the last fetch failed, or was before a reload: others may be there by now */
    ns_t fetched_at;                    /* last success */
    ns_t fetch_after;                   /* not again before */
    struct flight flight;
};

struct issuer_set {
    atomic_uint refs;
    struct arena arena;
    struct identity_fetcher fetcher;
    ns_t cache_ttl, leeway, jwks_max_age;
    unsigned n;
    struct issuer list[IDENTITY_ISSUERS_MAX + 1];       /* the local issuer comes last */
};

/* Checks the configuration and reads key files. E_CONFIG. Blocks. */
enum err issuer_set_create(const struct identity_config *config, struct issuer_set **ret, struct errinfo *info);
struct issuer_set *issuer_set_ref(struct issuer_set *set);
void issuer_set_release(struct issuer_set *set);        /* accepts NULL */
/* A new `set`, not yet seen by others, takes over the keys of each issuer whose URL and algorithm are those in `old`:
 * they serve until they have been fetched again, which the next token begins. */
void issuer_set_inherit(struct issuer_set *set, struct issuer_set *old);
struct issuer *issuer_find(struct issuer_set *set, struct str name);
/* May tokens of `is` speak for `tenant`? */
bool issuer_speaks_for(const struct issuer_set *set, const struct issuer *is, struct str tenant);
/* Reads a whole file of at most `max` bytes. E_CONFIG with path and reason. Blocks. */
enum err identity_read_file(struct str path, struct buf *out, struct errinfo *info);

/* ---- identity.c, local.c ----------------------------------------------------------------------------------------- */

/* The current configuration, with a reference. */
struct issuer_set *identity_issuers(struct identity *id);
struct str identity_local_issuer(const struct identity_local *local);

/* ---- claims.c ---------------------------------------------------------------------------------------------------- */

/* Every check on the claims of a token whose signature has verified; makes the caller. E_TOKEN_CLAIMS, _EXPIRED,
 * _AUDIENCE. */
enum err claims_to_caller(const struct issuer_set *set, const struct issuer *is, const struct jwt *t, struct arena *a,
    wall_ms_t now, const uint8_t digest[32], struct caller **ret, struct errinfo *info);

/* ---- caller.c ---------------------------------------------------------------------------------------------------- */

/* A copy in one block that stands alone, with one reference. */
struct caller *caller_freeze(const struct caller *draft);
/* Asks memory for what caller_ref() and caller_ahead() look at; of one that may be gone, or NULL. */
void caller_expect(const struct caller *c);

/* ---- cache.c ----------------------------------------------------------------------------------------------------- */

struct token_cache;

struct token_cache *cache_create(size_t max);
void cache_destroy(struct token_cache *c);
/* Two looks ahead, without a lock, with await_ahead() behind each: where the digest's entry would be, then what is
 * there. */
void cache_expect(const struct token_cache *c, const uint8_t digest[32]);
void cache_expect_entry(const struct token_cache *c, const uint8_t digest[32]);
/* A new reference, or NULL: not there, past `mono`'s time to live, of another epoch, or expired at `now`. */
struct caller *cache_get(struct token_cache *c, const uint8_t digest[32], uint64_t epoch, wall_ms_t now, ns_t mono);
/* Takes a reference of its own. `until`: loop time; `expires`: wall time after which it is refused. */
void cache_put(struct token_cache *c, const uint8_t digest[32], uint64_t epoch, struct caller *caller,
    wall_ms_t expires,
    ns_t until);
void cache_clear(struct token_cache *c);
size_t cache_count(struct token_cache *c);

#endif
