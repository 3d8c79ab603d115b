/*
 * parse_json.h -- reading policies in JSON (room-private)
 *
 * The first failure is kept, with the place in the JSON; everything answers NULL or false from then on.
 */
#ifndef POLICY_PARSE_JSON_H
#define POLICY_PARSE_JSON_H

#include "json/json.h"
#include "policy/ast.h"

/* A place in the JSON: members and elements from the outside in. */
struct est_at {
    const struct est_at *up;
    struct str key;
    size_t index;               /* of an element: key.p is NULL */
};

struct est {
    struct arena *arena;
    struct str file;
    struct errinfo *info;
    enum err err;
    unsigned nest;
};

void *est_fail(struct est *r, const struct est_at *at, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
void *est_too_large(struct est *r);

static inline struct est_at est_below(const struct est_at *up, const struct json *member)
{
    return (struct est_at){ .up = up, .key = json_key(member) };
}

/* An object with no other members than these (up to NULL). */
bool est_object_of(struct est *r, const struct json *j, const struct est_at *at, const char *const *names);
#define OBJECT(r, j, at, ...) est_object_of(r, j, at, (const char *const[]){ __VA_ARGS__, NULL })

const struct json *est_member(struct est *r, const struct json *j, const struct est_at *at, const char *name);
/* A member that is a string; *ret refers to the tree. */
bool est_member_str(struct est *r, const struct json *j, const struct est_at *at, const char *name, struct str *ret);
/* One that names an entity type. */
bool est_member_type(struct est *r, const struct json *j, const struct est_at *at, const char *name, struct str *ret);

/* The expression that is a member of j (parse_json_expr.c). */
struct ast *est_operand(struct est *r, const struct json *j, const struct est_at *at, const char *name);

#endif
