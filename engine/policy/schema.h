/*
 * schema.h -- what entities, actions and contexts there can be, and whether policies and requests keep to it
 *
 * A schema is read from Cedar's own syntax or from its JSON form, is immutable, counted, and may be used by many
 * threads.  With it, entities and contexts are read by their types (a reference to an entity needs no escape), requests
 * can be checked, and policies can be validated: in Cedar's strict mode, for every kind of request that the schema
 * allows.  A policy that validates without an error never fails to evaluate for a request that passes the check, but
 * for integer overflow and entities that do not exist.
 *
 * Reading and validating recurse: they need up to 1 MiB of stack, so not a task's.
 */
#ifndef POLICY_SCHEMA_H
#define POLICY_SCHEMA_H

#include "base/map.h"
#include "policy/entities.h"
#include "policy/policy.h"
#include "policy/value.h"

struct json;
struct policy_schema;

/* --- findings ----------------------------------------------------------------------------------------------------- */

enum policy_finding_kind {
    /* errors */
    POLICY_UNKNOWN_TYPE,        /* an entity type that the schema does not declare */
    POLICY_UNKNOWN_ACTION,
    POLICY_UNKNOWN_ID,          /* an id that an enumerated type does not have */
    /*
     * The head fits no action with its principal and resource types. (Up to Cedar 4.12 an error, from 4.13 a warning
     * only; the public corpus expects the error.)
     */
    POLICY_NO_ACTION_APPLIES,
    POLICY_WRONG_TYPE,          /* an operand of another type than the operation takes */
    POLICY_MIXED_TYPES,         /* types that cannot be compared, or stand in one set, or be what an `if` gives */
    POLICY_NO_SUCH_ATTRIBUTE,
    POLICY_MAY_LACK_ATTRIBUTE,  /* an optional attribute, read without `has` */
    POLICY_NO_TAGS,             /* a tag of a type that has none */
    POLICY_MAY_LACK_TAG,        /* a tag, read without hasTag() */
    POLICY_EMPTY_SET,           /* [], whose type nothing tells */
    POLICY_WRONG_ARITY,
    POLICY_BAD_CONSTANT,        /* text that is no decimal, address, datetime or duration */
    POLICY_NOT_CONSTANT,        /* decimal(x): what it is must be written out */
    /* warnings */
    POLICY_IMPOSSIBLE,          /* no request that the schema allows matches */
    POLICY_SHADOWS,             /* in a schema: a name hides another */
    /* lint.h says what these mean */
    POLICY_SHADOWED,
    POLICY_REDUNDANT,
    POLICY_NEVER_ASKED,
    POLICY_NEVER,
    POLICY_ALWAYS_FAILS,
};

struct policy_finding {
    enum policy_finding_kind kind;
    bool warning;
    struct str policy;          /* its id; empty in a schema */
    struct str file;
    uint32_t line, column;      /* 0: nowhere in the text (a link) */
    struct str text;            /* what is wrong, and what was expected; without the place */
    struct policy_finding *next;
};

struct policy_report {
    struct arena arena;         /* owns the findings */
    struct policy_finding *first, *last;
    struct map by_policy;       /* its id -> the first of its findings */
    size_t n_errors, n_warnings;        /* counts all, also those that did not fit the arena */
};

void policy_report_init(struct policy_report *r);
void policy_report_release(struct policy_report *r);
const char *policy_finding_name(enum policy_finding_kind kind);    /* "unknown-type" */

/* --- schemas ------------------------------------------------------------------------------------------------------ */

/* Whether the first character that is not white space is `{`: no schema and no policy in Cedar's syntax begins so. */
bool policy_looks_like_json(struct str text);

enum policy_schema_format {
    POLICY_SCHEMA_AUTO,         /* as policy_looks_like_json() says */
    POLICY_SCHEMA_TEXT,
    POLICY_SCHEMA_JSON,
};

/*
 * Reads a schema, with one reference; `text` is not needed afterwards. `warnings` may be NULL. E_CONFIG: `info` holds
 * file:line:column and what was expected; E_CALL_TOO_LARGE: more than 256 MiB.
 */
enum err policy_schema_parse(struct str file, struct str text, enum policy_schema_format format,
    struct policy_schema **ret, struct policy_report *warnings, struct errinfo *info);
struct policy_schema *policy_schema_ref(struct policy_schema *s);
struct policy_schema *policy_schema_unref(struct policy_schema *s);    /* accepts NULL, returns NULL */
size_t policy_schema_entity_types(const struct policy_schema *s);      /* how many it declares */
size_t policy_schema_actions(const struct policy_schema *s);

/* --- requests and entities ---------------------------------------------------------------------------------------- */

/*
 * The JSON of a context to a value, read by the type that the schema gives the action's context. Without a schema
 * (NULL) as policy_value_from_json() reads POLICY_JSON_CEDAR. E_FORMAT: not of that type, or the schema has no such
 * action.
 */
enum err policy_context_from_json(struct arena *a, const struct json *j, const struct policy_schema *schema,
    const struct policy_uid *action, struct policy_value *ret, struct errinfo *info);
/* Whether the schema allows the request. E_CONFIG: `info` says why not. */
enum err policy_schema_check_request(const struct policy_schema *s, const struct policy_request *r,
    struct errinfo *info);
/*
 * Adds the entities of a JSON array to a store, read and checked by the schema; then the schema's actions. Once per
 * store. E_FORMAT and as policy_entities_add().
 */
enum err policy_entities_add_json_typed(struct policy_entities *store, const struct policy_schema *schema,
    struct str json, struct errinfo *info);

/* --- policies ----------------------------------------------------------------------------------------------------- */

/*
 * Validates every policy, template and link of the set in strict mode. Findings are added to the report, those of one
 * policy in the order of the text. E_CALL_TOO_LARGE: some policy takes more than 256 MiB to check.
 */
enum err policy_schema_validate(const struct policy_schema *s, const struct policy_set *set, struct policy_report *ret,
    struct errinfo *info);

#endif
