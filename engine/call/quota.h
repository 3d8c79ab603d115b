/*
 * quota.h -- what providers say of their limits in header fields, as numbers
 *
 * A pure reader: no clock, no memory.  "When" comes in five encodings, and nothing but its form says in which:
 *
 *   Retry-After: 30                             seconds from now                  most
 *   X-RateLimit-Reset: 1789000000               seconds since 1970                GitHub, Okta
 *   X-RateLimit-Requests-Reset: 1789000000000   milliseconds since 1970           Linear
 *   X-RateLimit-Reset: 2026-11-20T15:00:00Z     RFC 3339, seconds may be missing  Jira
 *   Retry-After: Fri, 20 Nov 2026 15:00:00 GMT  one of the three dates of HTTP    whoever follows RFC 9110
 *
 * What is left of a quota comes in three shapes, named by a limit's declaration (connector.h, `told`):
 *
 *   "X-RateLimit"                       X-RateLimit-Limit (or -Max, or X-RateLimit alone), -Remaining, -Reset
 *   "Beta-RateLimit;global-app-quota"   one item of a list: "global-app-quota";r=11000;t=600, or with total,
 *                                       remaining and resets
 *   "Sforce-Limit-Info=api-usage"       used/total: api-usage=18/15000
 */
#ifndef CALL_QUOTA_H
#define CALL_QUOTA_H

#include "base/clock.h"
#include "base/str.h"

/* No provider is believed that wants silence for longer: clocks and servers are sometimes wrong by years. */
#define QUOTA_WAIT_MS_MAX (24LL * 3600 * 1000)

/* A moment in any of the five encodings as milliseconds from `now` (of the provider's clock): 0 when it is past, at
 * most QUOTA_WAIT_MS_MAX; -1 when it is none of them. */
int64_t quota_wait_ms(struct str value, wall_ms_t now);

/* A date of HTTP: IMF-fixdate, RFC 850 or asctime(). E_FORMAT. */
enum err quota_http_date(struct str s, wall_ms_t *ret);

struct quota_seen {                     /* -1: not said */
    int64_t limit, remaining;           /* units */
    int64_t reset_ms;                   /* from now */
};

/* Answers a field's value or NULL. */
typedef const char *quota_field(void *arg, const char *name);

/* Reads what `told` names. False: the answer says neither limit nor remaining. */
bool quota_read(const char *told, quota_field *field, void *arg, wall_ms_t now, struct quota_seen *ret);

/* The provider's own clock at the answer: its Date, else `ours`. */
wall_ms_t quota_clock(quota_field *field, void *arg, wall_ms_t ours);

#endif
