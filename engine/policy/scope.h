/*
 * scope.h -- constraints of heads, as trees: what they match, what they cover, and by which key they are found
 * (room-private)
 *
 * Deciding has its own compiled form (decide.c); this is for what looks at policies one by one: lint, explanations,
 * classes of callers.
 */
#ifndef POLICY_SCOPE_H
#define POLICY_SCOPE_H

#include "policy/ast.h"

/* Does an entity meet the constraint? `entity` is what is known of it, or NULL. No slot may be open. */
bool scope_matches(const struct ast_scope *s, const struct policy_uid *uid, const struct policy_entity *entity);
/* Does everything that meets `narrow` meet `wide`? By the words alone: false may only mean that entities decide. */
bool scope_covers(const struct ast_scope *wide, const struct ast_scope *narrow);

/*
 * What an entity must have among its keys (its uid's hash, its type's, its ancestors') to meet the constraint; 0: any
 * will do. Things that are found so begin with a scope_key, and stand in the order of scope_key_cmp().
 */
struct scope_key {
    uint64_t key;
    uint32_t number;            /* whose it is; among equal keys the order */
};
uint64_t scope_key_of(const struct ast_scope *s);
int scope_key_cmp(const void *a, const void *b);
/* The first of n things of `size` bytes whose key is at least `key`; n: none. */
size_t scope_key_first(const void *things, size_t n, size_t size, uint64_t key);

#endif
