/*
 * limits.h -- a provider's limits: from declaration and configuration to the limiter's rules, and back from answers
 *
 * A key of the limiter is "tenant|provider|account|limit", with what narrows it behind: "|POST /api/chat.postMessage",
 * "|C024BE91L".  Tenants' names have no "|", so what begins with "tenant|" is that tenant's; what is everybody's begins
 * with "|".
 */
#ifndef CALL_LIMITS_H
#define CALL_LIMITS_H

#include "call/call.h"
#include "call/exchange.h"
#include "ratelimit/ratelimit.h"

/* What one exchange asks of its provider's limits: all at once or not at all. */
struct limits_asked {
    const struct call *call;
    struct rl_ask *asks;
    struct limit_asked {
        const struct limits_asked *among;
        const struct limit_conf *limit;
        struct str narrower;            /* method or resource, for limits of those */
    } *of;
    unsigned n;
    bool told;                          /* the provider's answers say something of one of them */
};

/* registry_build(): the provider's limits and requests. E_CONFIG with provider, limit and request named. */
enum err limits_make(struct provider_conf *p, const struct provider_setup *s, struct errinfo *info);

/* What names a rule of the limiter across restarts: a hash (FNV-1a) of the parts, one behind the other; never 0. */
uint64_t limits_tag(const struct str *parts, size_t n);

/* Asks live in the call's arena; what the limiter shows a key as is made from them and `ret`, which stays where it is.
 * E_CALL_TOO_LARGE. */
enum err limits_ask(struct call *c, const struct provider_conf *p, const struct exchange *x, struct limits_asked *ret);

/* The row that a request falls under, or NULL. path: as the connector wrote it, a query is ignored. *ret_first: what
 * the pattern's first {} stands for. */
const struct request_conf *limits_row(const struct provider_conf *p, struct str method, struct str path,
                                      struct str *ret_first);

/* Which of the limits asked for a throttle is about: the one named, else the narrowest. NULL: none was asked. */
const struct rl_ask *limits_concerned(const struct limits_asked *a, const char *name, const struct limit_conf **ret);

/* An answer came to an exchange granted at `granted`: what it tells of quotas goes to the limiter, and a throttle
 * pauses the key that it is about for info->retry_after_ms, which is filled from a quota's reset or with a default if
 * the provider named no time. */
void limits_heard(struct call *c, const struct limits_asked *a, enum answer ans, struct answer_info *info,
                  ns_t granted);

#endif
