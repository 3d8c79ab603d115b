/*
 * listing.h -- which tools a caller may see: found once for all callers that policies cannot tell apart
 *
 * A listing belongs to a snapshot, so a reload of policies or entities begins a new one. All workers share it.
 */
#ifndef CALL_LISTING_H
#define CALL_LISTING_H

#include "base/arena.h"
#include "policy/policy.h"

struct listing;

/* set must outlive it. NULL: the arena, which owns what is built once, is full. */
struct listing *listing_new(const struct policy_set *set, size_t n_tools, struct arena *a);
void listing_free(struct listing *l);   /* accepts NULL */

#endif
