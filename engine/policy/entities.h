/*
 * entities.h -- who and what policies speak of: entities, their attributes, and what they are in
 *
 * A store (struct policy_entities) is made once, from Cedar's JSON format or entity by entity, then frozen:
 * membership is closed transitively and looked up in one step.  A layer is a handful of entities of one request (the
 * user from the token, the agent, the resource a call names) put over a store; making one parses nothing.
 */
#ifndef POLICY_ENTITIES_H
#define POLICY_ENTITIES_H

#include "policy/value.h"

struct policy_ancestor {
    uint64_t hash;              /* of uid, here to be scanned */
    const struct policy_uid *uid;
};

struct policy_entity {
    struct policy_uid uid;
    const struct policy_attr *attrs, *tags;     /* as in a record: sorted by key */
    uint32_t n_attrs, n_tags, n_ancestors;
    const struct policy_ancestor *ancestors;    /* everything above, transitively, without itself; ascending by hash */
};

/* --- stores ----------------------------------------------------------------------------------------------------- */

struct policy_entities;

/* An empty store that can be added to. */
struct policy_entities *policy_entities_new(void);
/*
 * Adds one entity; everything is copied. attrs and tags are records (or POLICY_NONE for none). E_CONFIG: it is there
 * already; E_CALL_TOO_LARGE: more than 1 GiB in the store.
 */
enum err policy_entities_add(struct policy_entities *store, const struct policy_uid *uid, struct policy_value attrs,
    struct policy_value tags, const struct policy_uid *parents, size_t n_parents, struct errinfo *info);
/*
 * Adds the entities of a JSON array in Cedar's format: [{"uid", "attrs", "parents", "tags"}]. E_FORMAT, and as above.
 */
enum err policy_entities_add_json(struct policy_entities *store, struct str json, struct errinfo *info);
/*
 * Closes membership; from here on the store is immutable and can be shared. Parents need not exist as entities.
 * E_CONFIG: an entity would be above itself; E_CALL_TOO_LARGE.
 */
enum err policy_entities_freeze(struct policy_entities *store, struct errinfo *info);
struct policy_entities *policy_entities_ref(struct policy_entities *store);
struct policy_entities *policy_entities_unref(struct policy_entities *store);     /* accepts NULL, returns NULL */
size_t policy_entities_count(const struct policy_entities *store);
/* Calls fn for every entity, in no order that means anything. */
void policy_entities_each(const struct policy_entities *store, void (*fn)(const struct policy_entity *e, void *arg),
    void *arg);
/* NULL if there is none. The store must be frozen. */
const struct policy_entity *policy_entities_find(const struct policy_entities *store, const struct policy_uid *uid);
/* What an entity of a store was said to be in, *ret_n of them: its ancestors are these and theirs. */
const struct policy_uid *policy_entities_parents(const struct policy_entity *e, size_t *ret_n);

/* --- layers ----------------------------------------------------------------------------------------------------- */

enum { POLICY_LAYER_MAX = 16 };

struct policy_layer {
    const struct policy_entities *base;         /* frozen, outlives the layer; may be NULL */
    uint32_t n;
    uint64_t hashes[POLICY_LAYER_MAX];          /* of the items' uids, here to be scanned */
    const struct policy_entity *items[POLICY_LAYER_MAX];        /* in the order of adding */
};

/* Only n and base need setting: items and their hashes are not cleared. */
static inline void policy_layer_init(struct policy_layer *l, const struct policy_entities *base)
{
    l->base = base;
    l->n = 0;
}

/*
 * Puts an entity into the layer, where it hides one of the same uid in the base. Its ancestors are the n parents and
 * everything above those in the layer so far and in the base: add what stands higher first. attrs is a record, or
 * POLICY_NONE for none. Nothing is copied: attributes and the parents' uids (`parents` itself not) must outlive the
 * layer; the entity and the list of its ancestors are in `a`. A duplicate, more than POLICY_LAYER_MAX or a full arena:
 * E_CALL_TOO_LARGE.
 */
enum err policy_layer_add(struct policy_layer *l, struct arena *a, struct policy_uid uid, struct policy_value attrs,
    const struct policy_uid *const *parents, size_t n_parents);

/* A parent, and what is known of it: what that is in counts as well. NULL: nothing. */
struct policy_above {
    const struct policy_uid *uid;
    const struct policy_entity *known;
};

/*
 * The same for an entity that the base, or whoever, knows already: `known` (may be NULL) gives its attributes and tags,
 * and what it is in is added to the parents. It must outlive the layer. Nothing is looked up: the caller says what
 * counts.
 */
enum err policy_layer_merge(struct policy_layer *l, struct arena *a, const struct policy_uid *uid,
    const struct policy_entity *known, const struct policy_above *above, size_t n_above);

/*
 * The same for one that is whole: its ancestors are all that is above it, whatever the layer says. It must outlive the
 * layer; that there is none of its uid yet is promised.
 */
static inline enum err policy_layer_take(struct policy_layer *l, const struct policy_entity *entity)
{
    if (l->n == POLICY_LAYER_MAX)
        return E_CALL_TOO_LARGE;
    l->hashes[l->n] = entity->uid.hash;
    l->items[l->n++] = entity;
    return OK;
}

/* The same for one of which nothing is known but that it is in all that `twin` is in. */
static inline enum err policy_layer_like(struct policy_layer *l, struct arena *a, const struct policy_uid *uid,
    const struct policy_entity *twin)
{
    struct policy_entity *out = arena_alloc(a, sizeof(*out));

    if (!out)
        return E_CALL_TOO_LARGE;
    *out = (struct policy_entity){ .uid = *uid, .ancestors = twin->ancestors, .n_ancestors = twin->n_ancestors };
    return policy_layer_take(l, out);
}

/* NULL if there is none in the layer itself. */
static inline const struct policy_entity *policy_layer_own(const struct policy_layer *l, const struct policy_uid *uid)
{
    for (uint32_t i = 0; i < l->n; i++)
        if (l->hashes[i] == uid->hash && policy_uid_eq(&l->items[i]->uid, uid))
            return l->items[i];
    return NULL;
}

/* NULL if there is none; `l` may be NULL. */
static inline const struct policy_entity *policy_layer_find(const struct policy_layer *l, const struct policy_uid *uid)
{
    const struct policy_entity *own = l ? policy_layer_own(l, uid) : NULL;

    return own || !l || !l->base ? own : policy_entities_find(l->base, uid);
}

#endif
