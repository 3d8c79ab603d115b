/*
 * types.h -- the types of a schema and of expressions, and what a schema is made of (room-private)
 *
 * Types are interned: within a schema, and within one run of the validator on top of it, types that are alike are one
 * object, so that comparing two costs a pointer comparison.  That matters: common types may share parts so often that
 * writing one out would take for ever.  What only expressions have, the types True and False, is marked (`narrow`), and
 * only there subtyping is more than equality; such types are no larger than the expression.
 */
#ifndef POLICY_TYPES_H
#define POLICY_TYPES_H

#include "base/arena.h"
#include "policy/value.h"

enum type_kind {
    TYPE_BOOL, TYPE_TRUE, TYPE_FALSE, TYPE_LONG, TYPE_STRING,
    TYPE_EXT,                   /* ext: POLICY_DECIMAL, POLICY_IP, POLICY_DATETIME or POLICY_DURATION */
    TYPE_ENTITY, TYPE_SET, TYPE_RECORD,
};

struct schema_entity;

struct type_attr {
    struct str key;
    const struct type *type;
    bool required;
};

struct type {
    uint8_t kind;               /* enum type_kind */
    uint8_t ext;
    bool narrow;                /* True or False is inside */
    uint16_t depth;
    uint32_t n;                 /* RECORD: attributes */
    uint64_t hash;
    union {
        const struct type *elem;
        const struct type_attr *attrs;          /* ascending by policy_key_cmp() */
        const struct schema_entity *entity;
    } u;
};

/* Schemas with deeper types are refused: values and types are walked by recursion. Expressions add their own depth. */
enum { TYPE_DEPTH_MAX = 200 };

extern const struct type type_bool, type_true, type_false, type_long, type_string, type_decimal, type_ip, type_datetime,
    type_duration;

/* The type of an extension's values; NULL if `name` is none. */
const struct type *type_of_ext(struct str name);
/* The same by kind, which must be one of the four. */
const struct type *type_of_ext_kind(enum policy_kind kind);
/* The kind as a name: Long, decimal. For what is neither set, record nor entity. */
const char *type_name(const struct type *t);

/* Where types live; `below` (may be NULL) is asked first and not changed. */
struct type_pool {
    struct arena *arena;
    const struct type_pool *below;
    const struct type **slots;
    size_t cap, n;
};

/* NULL: the arena is full. */
const struct type *type_set(struct type_pool *p, const struct type *elem);
/* Sorts attrs, which become part of the type. Keys are distinct. */
const struct type *type_record(struct type_pool *p, struct type_attr *attrs, size_t n);

/* Strict subtyping: only True and False are below anything, Bool; all else must be the same. */
bool type_subtype(const struct type *a, const struct type *b);
/* The least type above both; NULL if there is none (or no memory: ask the arena). */
const struct type *type_lub(struct type_pool *p, const struct type *a, const struct type *b);
/* An attribute of a record or of an entity; NULL if it has none of that name. */
const struct type_attr *type_attr(const struct type *t, struct str key);
/* In the syntax of schemas, cut off where it gets long. */
void type_write(struct buf *out, const struct type *t);

/* --- schemas ------------------------------------------------------------------------------------------------------ */

struct schema_entity {
    struct policy_uid name;     /* with an empty id */
    struct type type;           /* a reference to one */
    bool action;                /* the type of some actions: known as a type, but not declared as an entity type */
    bool has_choices;           /* an enum: only these ids exist */
    const struct str *choices;
    uint32_t n_choices;
    uint32_t index;
    const struct type *shape;   /* a record */
    const struct type *tags;    /* NULL: none */
    uint32_t *above;            /* indexes of the types its entities may be in, transitively; ascending */
    uint32_t n_above;
};

struct schema_action {
    struct policy_uid uid;
    const struct schema_entity *type;
    uint32_t index;
    const struct type *context; /* a record */
    const struct schema_entity **principals, **resources;
    uint32_t n_principals, n_resources;
    uint32_t *above;            /* indexes of actions, transitively; ascending */
    uint32_t n_above;
};

struct policy_schema {
    uint32_t magic;
    _Atomic uint32_t refs;
    struct arena arena;         /* owns all below */
    struct type_pool types;
    struct schema_entity **entities;    /* the action types stand last */
    struct schema_action **actions;
    uint32_t n_entities, n_actions;
    uint32_t *entity_slots, *action_slots;      /* index + 1; 0 is empty; powers of two, at most half full */
    uint32_t entity_mask, action_mask;
};

enum { POLICY_SCHEMA_MAGIC = 0x504f4c43 };      /* "POLC" */

/*
 * Makes `above` transitive everywhere and fills the slots. False: the action *ret_ring is in itself, or (UINT32_MAX)
 * the arena is full.
 */
bool schema_close(struct policy_schema *s, uint32_t *ret_ring);
/* NULL if there is none. Types of actions are found too: see `action`. */
const struct schema_entity *schema_entity(const struct policy_schema *s, struct str name);
const struct schema_action *schema_action(const struct policy_schema *s, const struct policy_uid *uid);
/* Whether `index` is in a list of indexes (`above`). */
bool schema_above(const uint32_t *above, uint32_t n, uint32_t index);
/* Whether an id may stand for an entity of the type: any may, unless the type has choices. */
bool schema_id_valid(const struct schema_entity *e, struct str id);

/*
 * Whether `v` is of type `t`, and all entities in it are possible ones. E_CONFIG: `info` says what is wrong where;
 * `what` begins the sentence ("context").
 */
enum err schema_check_value(const struct policy_schema *s, const struct type *t, const struct policy_value *v,
    const char *what, struct errinfo *info);
/* Whether an entity's name is a possible one, wherever it is written: ids of enumerated types, actions. */
enum err schema_check_uid(const struct policy_schema *s, const struct policy_uid *uid, struct errinfo *info);
/*
 * JSON in Cedar's format to a value, read as one of type `t`: a reference to an entity and an extension's value need no
 * escape there, records must have the attributes of the type.  Whether what needs no such reading is of the type is not
 * checked: that is schema_check_value().  E_FORMAT, E_CALL_TOO_LARGE as policy_value_from_json().
 */
enum err schema_value_from_json(struct arena *a, const struct json *j, const struct type *t, struct policy_value *ret,
    struct errinfo *info);

#endif
