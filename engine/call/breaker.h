/*
 * breaker.h -- stops asking a provider that keeps failing, and keeps repeats to a part of what is asked first
 *
 * One circuit per provider and tenant: what one tenant runs into (its own instance of a product, its own network) stops
 * nobody else, and nobody can open another's.  Only what says "the provider is not well" counts as a failure: no
 * connection, no answer, a 5xx.  Refusals, throttles and conflicts are answers of a healthy one.
 *
 *   closed     every exchange goes; of at least `least` in the last 10 s half failed: open
 *   open       none goes for 1 s, then twice as long each time in a row, up to 60 s
 *   half open  one probe at a time goes; BREAKER_PROBES in a row that succeed close it, one that fails opens it again
 *
 * Repeats are paid for in tokens: each first attempt earns a part of one (a tenth, unless configuration says else),
 * up to RETRY_RESERVE, which is also what a circuit begins with.  So n first attempts lead to n / 10 + RETRY_RESERVE
 * repeats at most.
 */
#ifndef CALL_BREAKER_H
#define CALL_BREAKER_H

#include "base/clock.h"
#include "base/str.h"

enum { BREAKER_PROBES = 3, RETRY_RESERVE = 10, BREAKERS_MAX = 65536 };

struct breakers;

enum breaker_health { BREAKER_NOTHING, BREAKER_WELL, BREAKER_ILL };     /* what an attempt said of the provider */

/* least: attempts in the window before a circuit may open; 0: none ever opens. repeats_percent: of first attempts. */
struct breakers *breakers_new(unsigned least, unsigned repeats_percent);
void breakers_free(struct breakers *b);                                 /* NULL is fine */

/* Whose circuit. */
struct breaker_of {
    struct str tenant;
    uint64_t tenant_hash;                       /* hash_bytes() of it */
    unsigned provider;
};

/* An attempt under way. */
struct breaker_pass {
    struct circuit *circuit;                    /* which stays there meanwhile; NULL: unguarded */
    bool probe;                                 /* it finds out whether the provider is well again */
};

/* May an attempt be made now? True: breaker_leave() must follow. False: not before *ret_retry_at. first: it is no
 * repeat. `b` NULL: always. */
bool breaker_enter(struct breakers *b, const struct breaker_of *of, bool first, ns_t now, struct breaker_pass *ret,
                   ns_t *ret_retry_at);
/* An attempt is made, whatever the circuit says; it only counts. breaker_leave() must follow. */
void breaker_pass(struct breakers *b, const struct breaker_of *of, struct breaker_pass *ret);
/* What came of it, once for each pass. True: this opened the circuit. */
bool breaker_leave(struct breakers *b, struct breaker_pass *pass, enum breaker_health health, ns_t now);
/* Takes a token for a repeat. False: there is none. */
bool breaker_retry(struct breakers *b, const struct breaker_of *of);

/* How many circuits are open or half open: for metrics and tests. */
unsigned breakers_open(struct breakers *b);

#endif
