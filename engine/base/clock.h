/*
 * clock.h -- units of time, and times as text. No function here reads a clock: that is the loop's alone.
 */
#ifndef BASE_CLOCK_H
#define BASE_CLOCK_H

#include "base/err.h"
#include "base/str.h"

typedef int64_t ns_t;               /* monotonic nanoseconds, or a duration */
#define NS_PER_US   1000LL
#define NS_PER_MS   1000000LL
#define NS_PER_S    1000000000LL
#define NS_NEVER    INT64_MAX

/* Wall time is whole milliseconds since 1970-01-01T00:00:00Z. */
typedef int64_t wall_ms_t;

/* RFC 3339 with Z and milliseconds: "2026-11-20T05:00:52.123Z", always 24 characters plus NUL (years 0000 to 9999). */
void wall_format(wall_ms_t t, char out[25]);
/* RFC 3339 date-time with Z or an offset, fraction optional; E_FORMAT on anything else (days and leap years are
 * checked). */
enum err wall_parse(struct str s, wall_ms_t *ret);

#endif
