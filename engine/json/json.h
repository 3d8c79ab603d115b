/*
 * json.h -- JSON text <-> tree, and the canonical form (RFC 8259, RFC 8785)
 *
 * A tree lives in an arena and is freed with it.  Strings, keys and numbers that were parsed point into the input text
 * wherever they contain no escape, so THE TEXT MUST OUTLIVE THE TREE; json_copy() makes a tree that stands alone.
 *
 * The parser is strict: duplicate keys (compared after unescaping), invalid UTF-8, lone surrogates (raw or as \u
 * escapes), U+0000 in keys (unless the limits allow it), a byte order mark, bytes after the value, numbers beyond the
 * range of a double and anything past a limit are refused.  No number is ever rounded: its text is kept, written back
 * as it came, and compared exactly.
 *
 * Accessors accept NULL and nodes of another type and answer "nothing"; builders accept NULL and do nothing, so that a
 * message is built in straight lines and the owner asks arena_overflowed() once.  Not thread safe; a tree that nobody
 * changes may be read by many threads.  Nothing here waits.
 */
#ifndef JSON_JSON_H
#define JSON_JSON_H

#include "base/arena.h"
#include "base/err.h"
#include "base/str.h"

enum json_type {
    JSON_NULL,
    JSON_BOOL,
    JSON_INT,                   /* written without fraction or exponent, and fits int64_t */
    JSON_NUMBER,                /* every other number (1.0, 1e3, 2^63 and up) */
    JSON_STRING,
    JSON_ARRAY,
    JSON_OBJECT,
    JSON_RAW,                   /* made by json_raw() only: a fragment written verbatim */
    JSON_NONE,                  /* json_type(NULL) */
};

/*
 * A node. Read it through the functions below; the fields are public only so that those can be inlined.
 *
 *   type      u           v        len
 *   INT       i           raw      bytes of raw
 *   NUMBER    d           raw      bytes of raw
 *   STRING    s           -        bytes of s
 *   RAW       s           -        bytes of s
 *   ARRAY     first       last     children
 *   OBJECT    first       last     members
 */
struct json {
    uint8_t type;
    uint8_t flags;
    uint16_t key_len;
    uint32_t len;
    const char *key;            /* NULL unless a member of an object */
    struct json *next;          /* next sibling */
    union {
        int64_t i;
        double d;
        bool b;
        const char *s;
        struct json *first;
    } u;
    union {
        const char *raw;
        struct json *last;
        uint64_t marks;         /* the parser's, while a container is open */
    } v;
};

#define JSON_DEPTH_DEFAULT  64
#define JSON_DEPTH_MAX      256         /* parse clamps to it; writers and copies refuse deeper trees */
#define JSON_NODES_DEFAULT  1000000
#define JSON_KEY_MAX        65535       /* bytes of one key, unescaped */
#define JSON_NUMBER_MAX     1024        /* characters of one number */

/* 0 in a field means its default. */
struct json_limits {
    uint32_t depth_max;         /* nesting of arrays and objects: [[1]] is 2 deep */
    uint32_t nodes_max;         /* values of every type, containers included */
    bool nul_keys;              /* U+0000 may be in a key: for formats whose names are any text */
};

struct json_error {
    size_t offset;              /* bytes from the start of the text */
    uint32_t line, column;      /* from 1; the column counts bytes */
    const char *message;        /* static text, never a part of the input */
};

/*
 * Parses one value that must fill `text` (white space around it is allowed). The tree is in `a` and refers to `text`.
 * E_JSON_MALFORMED: not acceptable JSON; E_CALL_TOO_LARGE: the arena, nodes_max or 4 GiB exceeded.
 * `limits` NULL: defaults. `where` (may be NULL) is filled on failure; *ret is set only on OK.
 */
enum err json_parse(struct arena *a, struct str text, const struct json_limits *limits, struct json **ret,
    struct json_error *where);

/* --- reading ------------------------------------------------------------------------------------------------ */

static inline enum json_type json_type(const struct json *j)
{
    return j ? (enum json_type)j->type : JSON_NONE;
}

static inline bool json_is(const struct json *j, enum json_type type)
{
    return j && j->type == type;
}

/* JSON_INT or JSON_NUMBER. */
static inline bool json_is_number(const struct json *j)
{
    return j && (j->type == JSON_INT || j->type == JSON_NUMBER);
}

/* Children of an array, members of an object; 0 for everything else (a string too: see json_str). */
static inline size_t json_len(const struct json *j)
{
    return j && (j->type == JSON_ARRAY || j->type == JSON_OBJECT) ? j->len : 0;
}

/* for (j = json_first(parent); j; j = json_next(j)): elements or members in the order of the text. */
static inline struct json *json_first(const struct json *j)
{
    return json_len(j) ? j->u.first : NULL;
}

static inline struct json *json_next(const struct json *j)
{
    return j ? j->next : NULL;
}

/* The key of a member; { NULL, 0 } for anything else. */
static inline struct str json_key(const struct json *j)
{
    return j ? (struct str){ j->key, j->key_len } : STR_NULL;
}

/* The bytes of a string, not NUL-terminated, U+0000 possible; { NULL, 0 } if it is not a string. */
static inline struct str json_str(const struct json *j)
{
    return json_is(j, JSON_STRING) ? (struct str){ j->u.s, j->len } : STR_NULL;
}

/* True and *ret set for true and false only. */
static inline bool json_bool(const struct json *j, bool *ret)
{
    if (!json_is(j, JSON_BOOL))
        return false;
    *ret = j->u.b;
    return true;
}

/* A member by name, NULL if there is none. Linear in the number of members. */
struct json *json_get_str(const struct json *obj, struct str key);
static inline struct json *json_get(const struct json *obj, const char *key) { return json_get_str(obj, str_of(key)); }
/* What "a.b.c" leads to, member by member; `step` is the length of its first name. */
struct json *json_down(const struct json *obj, const char *path, size_t step);
/* An element or member by position, NULL past the end. Linear: walk with json_first/json_next instead of counting. */
struct json *json_at(const struct json *arr, size_t i);

/* True for a number that is mathematically an integer (3, 3.0, 3e2, -0) and fits int64_t; exact, never rounded. */
bool json_int(const struct json *j, int64_t *ret);
/* True for every number; the nearest double. */
bool json_double(const struct json *j, double *ret);
/* The number as it was written ("1.50", "-0"); { NULL, 0 } if it is not a number. */
struct str json_num_raw(const struct json *j);
/* True for a number that is mathematically an integer, of any size (JSON Schema's "integer"). */
bool json_is_integral(const struct json *j);
/* Exact comparison of two numbers, any size and form: <0, 0, >0. Both must be numbers (asserted). */
int json_num_cmp(const struct json *a, const struct json *b);

/*
 * Deep equality: numbers by mathematical value (1 = 1.0 = 10e-1, 0 = -0), objects whatever their order, strings by code
 * points. Trees deeper than JSON_DEPTH_MAX are equal to nothing; a JSON_RAW equals only the same bytes. NULL equals
 * NULL.
 */
bool json_equal(const struct json *a, const struct json *b);

/* --- building ----------------------------------------------------------------------------------------------- */
/* Each answers NULL when the arena is full (or was given NULL where it needs a node). */

struct json *json_object(struct arena *a);
struct json *json_array(struct arena *a);
struct json *json_string(struct arena *a, struct str s);        /* copies the bytes */
struct json *json_string_ref(struct arena *a, struct str s);    /* the bytes must outlive the tree */
/* The same string: `j`'s bytes, which must outlive the tree too. NULL if it is no string. */
struct json *json_string_of(struct arena *a, const struct json *j);
struct json *json_string_z(struct arena *a, const char *z);     /* copies; NULL gives a JSON null */
struct json *json_int_new(struct arena *a, int64_t v);
/* The number that the shortest digits of `v` spell (ECMAScript's); NULL and arena overflow if v is not finite. */
struct json *json_double_new(struct arena *a, double v);
struct json *json_bool_new(struct arena *a, bool v);
struct json *json_null_new(struct arena *a);
/* A fragment of JSON that is already serialised; the caller answers for its form. The bytes must outlive the tree. */
struct json *json_raw(struct arena *a, struct str fragment);

/*
 * Makes `node` the member `key` of `obj`, replacing a member of that name in its place. The key is not copied: a
 * literal, or bytes that outlive the tree. A node that already has a parent is copied first (deeply), so a part of
 * one tree may be put into another. NULL obj or node, or an obj of another type: nothing happens. A key past
 * JSON_KEY_MAX overflows the arena. Cost: linear in the members.
 */
void json_set_ref(struct arena *a, struct json *obj, struct str key, struct json *node);
/* The same with a key that is copied into the arena. */
void json_set_key(struct arena *a, struct json *obj, struct str key, struct json *node);
/* Like json_set_key without the look for an earlier member: the caller knows there is none. Constant time. */
void json_add(struct arena *a, struct json *obj, struct str key, struct json *node);

/* json_set_ref() with a key that ends in NUL: inlined, for the length of a literal is known where it is compiled. */
static inline void json_set(struct arena *a, struct json *obj, const char *key, struct json *node)
{
    json_set_ref(a, obj, str_of(key), node);
}

static inline void json_set_str(struct arena *a, struct json *obj, const char *key, struct str v)   /* copies v */
{
    json_set(a, obj, key, json_string(a, v));
}

/* Copies v; NULL: nothing happens. */
static inline void json_set_z(struct arena *a, struct json *obj, const char *key, const char *v)
{
    if (v)
        json_set_str(a, obj, key, str_of(v));
}

static inline void json_set_int(struct arena *a, struct json *obj, const char *key, int64_t v)
{
    json_set(a, obj, key, json_int_new(a, v));
}

static inline void json_set_bool(struct arena *a, struct json *obj, const char *key, bool v)
{
    json_set(a, obj, key, json_bool_new(a, v));
}

/* Appends to an array; as json_set for NULL and for a node that has a parent. Constant time. */
void json_push(struct arena *a, struct json *arr, struct json *node);
/* Takes the member out and answers it (it has no parent then), or NULL. */
struct json *json_del(struct json *obj, const char *key);

/* A member of the objects that json_pick_each() makes. */
struct json_pick {
    struct str name;            /* its key there */
    const char *path;           /* "a.b.c": where its value is in what it is picked from */
    enum json_type type;        /* STRING ("" if it is none there), INT (0) or BOOL (false) */
};
/* n of them, with what is the same for all they are picked from; any thread may use them. Names and paths are not
 * copied: they must outlive it, and all that is made by it. NULL: two have one name, or one is past JSON_KEY_MAX. */
struct json_picks *json_picks_new(const struct json_pick *v, size_t n);
void json_picks_free(struct json_picks *picks);
/* For each element of `list` an object with these members, in this order; NULL if `picks` is, or the arena is full. The
 * bytes of strings are not copied: they must outlive the tree. */
struct json *json_pick_each(struct arena *a, const struct json *list, const struct json_picks *picks);

/* A deep copy that refers to nothing outside `a`. NULL for NULL; deeper than JSON_DEPTH_MAX overflows the arena. */
struct json *json_copy(struct arena *a, const struct json *j);

/* --- writing ------------------------------------------------------------------------------------------------ */
/* Each appends to `out` and reports through out->overflow, which a tree deeper than JSON_DEPTH_MAX sets too. NULL is
 * written as null. Output is always valid UTF-8: a byte in a built string that is not becomes U+FFFD. */

/* Compact, members in tree order, numbers as they were written. */
void json_write(struct buf *out, const struct json *j);
/* An array of n literals. */
void buf_add_json_strs(struct buf *out, const struct str *v, size_t n);
/* json_write() to `out`, and in the same pass that text to `literal` as buf_add_json_part() puts it there. When one of
 * them overflows neither is of use. */
void json_write_twice(struct buf *out, struct buf *literal, const struct json *j);
/* Two spaces per level, "key": value, no newline at the end. */
void json_write_pretty(struct buf *out, const struct json *j);
/*
 * The canonical form, RFC 8785: no white space, members sorted by the UTF-16 code units of their keys, strings with the
 * shortest escapes, numbers as ECMAScript prints the nearest double. One departure, so that two different integers
 * never have one form: an integer whose ECMAScript text would spell another integer (possible past 2^53 only) is
 * written as its exact decimal digits. Text produced here parses and canonicalises to itself.
 */
void json_canonical(struct buf *out, const struct json *j);
/* A string literal with its quotes. */
void buf_add_json_str(struct buf *out, struct str s);
/* A part of one, without them: for literals put together of several texts. */
void buf_add_json_part(struct buf *out, struct str s);

/* How ECMAScript prints a finite double (RFC 8785 3.2.2.3): returns the length, at most 25, not NUL-terminated. */
#define JSON_DOUBLE_TEXT 32
size_t json_double_text(double v, char out[JSON_DOUBLE_TEXT]);

#endif
