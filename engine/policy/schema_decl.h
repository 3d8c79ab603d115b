/*
 * schema_decl.h -- a schema as it was written: what both parsers make and schema_resolve.c reads (room-private)
 *
 * Names are as written, not yet looked up.  A place is a byte of the text (`at`); line and column are counted only when
 * an error needs them.  In JSON, where trees keep no places, it is that of the nearest member around.
 */
#ifndef POLICY_SCHEMA_DECL_H
#define POLICY_SCHEMA_DECL_H

#include "base/arena.h"
#include "base/err.h"
#include "policy/schema.h"
#include "policy/types.h"

enum decl_kind {
    DECL_PRIMITIVE,             /* type: Bool, Long or String */
    DECL_EXT,                   /* name: an extension's */
    DECL_SET,                   /* elem */
    DECL_RECORD,                /* attrs */
    DECL_ENTITY,                /* name: of an entity type */
    DECL_COMMON,                /* name: of a common type */
    DECL_NAME,                  /* name: of either; a common type goes first */
};

struct decl_attr;

struct decl_type {
    enum decl_kind kind;
    size_t at;
    struct str name;
    const struct type *type;
    struct decl_type *elem;
    struct decl_attr *attrs;
    size_t n;
};

struct decl_attr {
    struct str key;
    size_t at;
    bool required;
    struct decl_type *type;
    struct decl_attr *next;
};

/* A reference: to an entity type, or (with an id) to an action, whose type may be left out. */
struct decl_ref {
    struct str name, id;
    size_t at;
    struct decl_ref *next;
};

struct decl_entity {
    struct str name;
    size_t at;
    bool has_choices;
    struct str *choices;
    size_t n_choices;
    struct decl_ref *parents;
    struct decl_type *shape, *tags;     /* NULL: none */
    struct decl_entity *next;
};

struct decl_common {
    struct str name;
    size_t at;
    struct decl_type *type;
    struct decl_common *next;
};

struct decl_action {
    struct str id;
    size_t at;
    struct decl_ref *parents, *principals, *resources;
    struct decl_type *context;          /* NULL: empty */
    struct decl_action *next;
};

struct decl_namespace {
    struct str name;                    /* empty: none */
    size_t at;
    struct decl_entity *entities, **entities_end;   /* the ends are the text parser's */
    struct decl_common *commons, **commons_end;
    struct decl_action *actions, **actions_end;
    struct decl_namespace *next;
};

struct decl_schema {
    struct arena *arena;
    struct str file, text;
    struct decl_namespace *first;
    struct errinfo *info;
    enum err err;                       /* the first error; the rest is not looked at */
};

/* Parse the text of `s`, which is valid UTF-8, into s->first. Errors are in s->err and s->info. */
void schema_parse_text(struct decl_schema *s);
void schema_parse_json(struct decl_schema *s);
/* Looks everything up. What is made lives in the arena of `ret`, which is not that of `s`. */
enum err schema_resolve(struct decl_schema *s, struct policy_schema *ret, struct policy_report *warnings);

/* E_CONFIG with file:line:column of the place; the first report wins. Answers NULL. */
void *decl_fail(struct decl_schema *s, size_t at, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
void *decl_memory(struct decl_schema *s);
void decl_place(struct str text, size_t at, uint32_t *ret_line, uint32_t *ret_column);

/* A name is reserved if one of its parts is __cedar. */
bool decl_name_reserved(struct str name);
/* An identifier; a reserved word is one. */
bool decl_word_valid(struct str word);
/* Identifiers joined by "::", none of them a reserved word but perhaps __cedar. */
bool decl_name_valid(struct str name);
/* These cannot name a common type: they would read like a built-in one. */
bool decl_common_reserved(struct str name);

#endif
