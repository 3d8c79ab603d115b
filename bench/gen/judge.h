/*
 * judge.h -- what an answer amounts to
 *
 *   ok        2xx, and neither a JSON-RPC error nor a tool result with isError
 *   refused   the peer said in its own words that it will not do it now: 429, 503, or an error that says so by name
 *             (rate_limited, overloaded, deadline, draining, upstream_limited, upstream_unwell, budget)
 *   failed    everything else
 *
 * The reason is the most exact name there is: the error's own, else its code, else the status.
 */
#ifndef BENCH_JUDGE_H
#define BENCH_JUDGE_H

#include "base/str.h"

enum verdict { VERDICT_OK, VERDICT_REFUSED, VERDICT_FAILED };

enum { REASON_MAX = 48 };

/* `message`: the JSON of the answer. `reason` is set unless the verdict is OK. */
enum verdict judge(int status, struct str message, char reason[REASON_MAX]);

const char *verdict_name(enum verdict v);       /* "ok", "refused", "failed" */

#endif
