/*
 * classes.h -- which principals policies cannot tell apart while nothing is known of the arguments
 *
 * What policy_could_allow() answers depends on a principal in two ways: which policies' heads it matches, and what
 * their conditions look at beside what is unknown.  Principals that match the same heads, none of whose policies looks
 * at who asks, get the same answer for every action; so it need be found once for all of them.
 */
#ifndef POLICY_CLASSES_H
#define POLICY_CLASSES_H

#include "policy/policy.h"

struct policy_classes;

/*
 * Built once for a set, and shared by threads; lives in `a` and refers to the set. impersonal: attributes of the
 * context that do not depend on who asks (or only as the caller of policy_class_of() distinguishes them by itself),
 * NULL-terminated. NULL: the arena is full.
 */
const struct policy_classes *policy_classes_new(const struct policy_set *set, const char *const *impersonal,
    struct arena *a);

/*
 * Adds to `key` which heads the principal matches: equal bytes, equal class. False: some policy that it matches looks
 * at who asks, or the key is full: it is in a class of its own.
 */
bool policy_class_of(const struct policy_classes *classes, const struct policy_layer *entities,
    const struct policy_uid *principal, struct buf *key);

#endif
