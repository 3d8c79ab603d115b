/*
 * shape.h -- what types entities have, told from the entities themselves: data to a schema's declarations
 *
 * A schema that is made for somebody (call/vocabulary.c) has to know the attributes that the operator's entities carry.
 * Shapes are collected type by type, joined over all entities of a type, and written in Cedar's syntax.  Everything
 * lives in the caller's arena, whose overflow tells failure.
 */
#ifndef POLICY_SHAPE_H
#define POLICY_SHAPE_H

#include "policy/entities.h"

/*
 * The type of what Cedar has no type for: an entity type without entities. Policies can ask whether such an attribute
 * is there; what they do with it beyond that is a finding.
 */
#define SHAPE_UNTYPED   "Untyped"

struct shape;

struct shape_member {
    struct str name;
    struct shape *shape;
    uint32_t seen;              /* in how many */
    struct shape_member *next;
};

struct shape_type {
    struct str name;            /* of the entity type */
    bool open;                  /* entities of it need not be in any file: no attribute is sure to be there */
    uint32_t seen;
    struct shape_member *attrs, *parents;       /* parents: names only, the types that it can be in */
    struct shape *tags;
    struct shape_type *next;
};

struct shapes {
    struct arena *arena;
    struct shape_type *types, *last;            /* last: where the latest was found */
};

/* The type, added if it is new. NULL: the arena is full. */
struct shape_type *shapes_type(struct shapes *s, struct str name);
/* Entities of type `low` can be in those of type `high`. */
void shapes_in(struct shapes *s, struct str low, struct str high);
/* Everything a frozen store says; actions are left out. */
void shapes_add_store(struct shapes *s, const struct policy_entities *store);
/*
 * The declarations, by namespaces. An attribute that has several types, or none that Cedar can name (a set that is
 * always empty), is optional and SHAPE_UNTYPED.
 */
void shapes_write(const struct shapes *s, struct buf *out);

/* "name" as an attribute or an action is written in a schema: quoted, unless it is an identifier. */
void shape_write_name(struct buf *out, struct str name);

#endif
