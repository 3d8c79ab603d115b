/*
 * upstream.h -- the simulated provider: what the engine's fetch reaches in a simulated run
 *
 * It lives outside the engine: it goes on when the engine dies, and it keeps the log of what really happened.  A
 * request that has arrived is executed at its own time, whether anybody still waits for the answer or not.  It is
 * strict: more than four requests of a mailbox at once, more than its rate, a refresh token that was used before, a
 * token that has expired, a request on another tenant's connection are violations, told through sim_violation().
 */
#ifndef TESTS_SIM_UPSTREAM_H
#define TESTS_SIM_UPSTREAM_H

#include "base/clock.h"
#include "base/str.h"
#include "dice.h"
#include "fetch/fetch.h"

/* In permille of requests; all zero: it answers everything, soon. */
struct upstream_weather {
    unsigned slow, refuse, lose_before, lose_after, late, limited, busy, broken, garbage, garbled, conflict, refused,
        redirect;
    unsigned revoke; /* a token stops working before its time */
    unsigned token_refuse, token_lose_before, token_lose_after, token_busy, token_dead, token_garbage;
};
extern struct upstream_weather upstream_weather;

enum upstream_kind { UPSTREAM_SIM, UPSTREAM_GRAPH };

struct deed {
    int64_t op;
    int step;
    char call[40]; /* of the engine's call on whose stack the request left */
    char key[40];  /* what call_key() was; "" for tools that do not say it */
    char tenant[24], user[24];
    ns_t sent, at; /* when the request left the engine, when it was executed */
    size_t event;  /* the world's when the request left */
    unsigned life;
};

extern struct deed *upstream_effects;
extern size_t upstream_n_effects;
extern unsigned upstream_refreshes;
/* Called when something is executed, or (token) a refresh token is used up. */
extern void (*upstream_happened)(bool token);

extern const struct fetch_impl upstream_fetch;

void upstream_begin(uint64_t seed);
/* A new life of the engine: what it counted is forgotten, so the windows of the rate begin again. */
void upstream_new_life(unsigned life);
/* Executes what has arrived and not been executed. */
void upstream_settle(void);
/* The same, and checks what the engine sent in this life against the rate. */
void upstream_end_life(void);
/* The code that a user's browser brings back from the consent page. */
void upstream_code(struct str provider, struct str tenant, struct str user, char out[80]);
/* The engine has forgotten the account. Limits are per account: what is still under way belongs to the old one. */
void upstream_disconnected(struct str provider, const char *tenant, const char *user);
void upstream_end(void);

/* Every token and code starts with one of these. */
#define UPSTREAM_ACCESS  "simat."
#define UPSTREAM_REFRESH "simrt."
#define UPSTREAM_SECRET  "simcs.hush"

#endif
