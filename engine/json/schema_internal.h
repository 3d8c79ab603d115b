/*
 * schema_internal.h -- the program a schema is compiled into, and what its compiler and its machine share
 *
 * A document becomes one `struct sub` per subschema: a row of operations in the order in which they are tried.  Cheap
 * assertions come first, then what goes into members and elements, then what applies other subschemas to the same
 * value, and last the two "unevaluated" keywords, which depend on all of those.
 *
 *   schema_uri.c        references (RFC 3986)              schema_run.c       the machine: its stack and its loop
 *   schema_index.c      documents, ids, anchors            schema_apply.c     operations that ask other subschemas
 *   schema_compile.c    keywords to operations             schema_assert.c    operations that look at one value
 *   schema_members.c    tables of member names             schema_fault.c     what a person is told
 *   schema_regex.c      ECMA-262 patterns on PCRE2         schema_format.c    format
 *   schema_number.c     multipleOf                         schema_meta.c      the metaschemas, as text
 */
#ifndef JSON_SCHEMA_INTERNAL_H
#define JSON_SCHEMA_INTERNAL_H

#include "json/schema.h"

enum {                          /* types as bits */
    T_NULL = 1, T_BOOL = 2, T_OBJECT = 4, T_ARRAY = 8, T_NUMBER = 16, T_STRING = 32,
    T_INTEGER = 64,             /* only in the mask of "type", and never with T_NUMBER there */
    T_ALL = 63,
};

/* The bit of a value; 0 for what is not a JSON value (a raw fragment, NULL): no schema but `true` accepts that. */
static inline unsigned type_bit(const struct json *j)
{
    static const uint8_t bit[] = {
        [JSON_NULL] = T_NULL, [JSON_BOOL] = T_BOOL, [JSON_INT] = T_NUMBER, [JSON_NUMBER] = T_NUMBER,
        [JSON_STRING] = T_STRING, [JSON_ARRAY] = T_ARRAY, [JSON_OBJECT] = T_OBJECT, [JSON_RAW] = 0, [JSON_NONE] = 0,
    };

    return bit[json_type(j)];
}

/* --- the program ------------------------------------------------------------------------------------------------ */

enum op_code {
    /* assertions: look at the value, ask nobody */
    OP_TYPE, OP_CONST, OP_ENUM, OP_MINIMUM, OP_MAXIMUM, OP_ABOVE, OP_BELOW, OP_MULTIPLE_OF, OP_MIN_LENGTH,
    OP_MAX_LENGTH, OP_PATTERN, OP_FORMAT, OP_MIN_ITEMS, OP_MAX_ITEMS, OP_MIN_PROPERTIES, OP_MAX_PROPERTIES,
    OP_DEPENDENT_REQUIRED, OP_UNIQUE_ITEMS,
    OP_LAST_ASSERTION = OP_UNIQUE_ITEMS,
    /* applicators */
    OP_OBJECT, OP_NAMES, OP_ITEMS, OP_CONTAINS, OP_SUB, OP_DYNAMIC, OP_ANY_OF, OP_ONE_OF, OP_NOT, OP_IF,
    OP_DEPENDENT_SUB, OP_UNEVALUATED_ITEMS, OP_UNEVALUATED_PROPERTIES,
};

struct sub;

/* A set of names, each with a number, for finding many names quickly. */
struct names {
    uint32_t n, mask;           /* mask 0: few, compared one by one */
    const struct str *keys;
    const uint32_t *slots;      /* number + 1; 0 is free */
};

enum { NAMES_ABSENT = UINT32_MAX };
/* The number of `key`, or NAMES_ABSENT; `hint` is tried first (any number will do). */
uint32_t names_find(const struct names *names, struct str key, uint32_t hint);
/* A table over keys[0..n), which must outlive it; of equal keys the first counts. False: the arena is full. */
bool names_build(struct arena *a, const struct str *keys, uint32_t n, struct names *ret);

struct regex;

struct member_rule {
    const struct sub *sub;      /* NULL: the name is only required */
    uint32_t required;          /* its bit + 1; 0: not required */
};

struct pattern_rule {
    const struct regex *regex;
    const struct sub *sub;
};

/* properties, patternProperties, additionalProperties and required in one walk over the members. */
struct object_rule {
    struct names names;
    const struct member_rule *members;          /* by number of the name */
    const struct pattern_rule *patterns;
    const struct sub *additional;               /* NULL: no such keyword */
    uint32_t n_patterns, n_required;
    bool evaluates;                             /* some keyword here marks members as evaluated */
};

enum { REQUIRED_BITS = 64 };                    /* names past these are looked for one by one */

struct items_rule {
    const struct sub *const *prefix;
    const struct sub *rest;                     /* NULL: no "items" */
    uint32_t n_prefix;
};

struct contains_rule {
    const struct sub *sub;
    uint64_t min, max;
};

struct if_rule {
    const struct sub *test, *yes, *no;          /* yes and no may be NULL */
};

struct enum_rule {
    const struct json *const *values;
    uint32_t n;
    uint32_t types;                             /* of the values, as bits */
    struct names strings;                       /* the values that are strings */
};

struct dependent_required {
    struct str key;
    const struct str *needs;
    uint32_t n;
};

struct dependent_sub {
    struct str key;
    const struct sub *sub;
};

struct dynamic_rule {
    const struct sub *fallback;                 /* where the reference leads when read as a plain one */
    const struct sub *const *by_resource;       /* the anchor of this name in each resource, or NULL */
    uint32_t n;
};

struct op {
    uint8_t code;
    uint8_t types;                              /* values of other types pass */
    uint32_t n;                                 /* of u.subs, u.required; the mask of OP_TYPE; enum format */
    union {
        uint64_t bound;
        const struct json *value;
        const struct enum_rule *choice;
        const struct regex *regex;
        const struct object_rule *object;
        const struct items_rule *items;
        const struct contains_rule *contains;
        const struct if_rule *condition;
        const struct dependent_required *required;
        const struct dependent_sub *dependent;
        const struct dynamic_rule *dynamic;
        const struct sub *sub;
        const struct sub *const *subs;
    } u;
};

enum sub_kind {
    SUB_ANY,                    /* true, {}, and objects that assert nothing */
    SUB_NONE,                   /* false */
    SUB_LEAF,                   /* assertions only: needs no frame */
    SUB_FULL,
};

struct sub {
    uint8_t kind;
    uint8_t types;              /* types that its own "type" (const, enum) lets through */
    uint8_t height;             /* compiler: references in a row on the same value from here; 0: not known */
    bool unevaluated;           /* has an unevaluated keyword: must remember what was evaluated */
    uint32_t resource;
    uint32_t n_ops;
    const struct op *ops;
};

struct schema {
    uint32_t magic;
    const struct sub *root;
    struct regex *regexes;
    struct arena arena;
};

/* --- numbers, patterns, formats --------------------------------------------------------------------------------- */

/* Is x a whole multiple of m, exactly? Both numbers, m above zero. */
bool number_multiple(const struct json *x, const struct json *m);

/*
 * Compiles an ECMA-262 pattern (with the u flag, lenient about needless escapes of punctuation). E_CONFIG with the
 * reason. Not covered: lookbehind without a fixed length, matching of lone surrogates.
 */
enum err regex_compile(struct str pattern, struct regex **ret, struct errinfo *info);
/* Is it a pattern by its syntax? Compiles nothing: for text that a caller sends, on a task's stack. */
bool regex_syntax(struct str pattern);
void regex_free(struct regex *r);               /* and all that are chained to it */
void regex_chain(struct regex *r, struct regex *next);
struct str regex_pattern(const struct regex *r);

enum answer { NO, YES, WAIT };                  /* WAIT: the machine must do something first, or has given up */

/* WAIT: the match costs more than what is left of *steps. */
enum answer regex_match(const struct regex *r, struct str text, uint64_t *steps, uint64_t steps_max);

enum format {
    FORMAT_NONE, FORMAT_DATE_TIME, FORMAT_DATE, FORMAT_TIME, FORMAT_DURATION, FORMAT_EMAIL, FORMAT_HOSTNAME,
    FORMAT_IPV4, FORMAT_IPV6, FORMAT_URI, FORMAT_URI_REFERENCE, FORMAT_UUID, FORMAT_JSON_POINTER,
    FORMAT_RELATIVE_JSON_POINTER, FORMAT_REGEX, FORMAT_COUNT,
};

enum format format_from(struct str name);       /* FORMAT_NONE: not one we check */
bool format_valid(enum format f, struct str text);
const char *format_what(enum format f);         /* "an IPv4 address" */

/* --- references ------------------------------------------------------------------------------------------------- */

/* Resolves `ref` against the absolute `base` (either may be empty): RFC 3986 5.2. The fragment is left out. */
struct str uri_resolve(struct arena *a, struct str base, struct str ref);
/* Undoes %XX; false if it is malformed, holds U+0000, or is not UTF-8. */
bool uri_unescape(struct arena *a, struct str s, struct str *ret);

/* --- the built-in documents ------------------------------------------------------------------------------------- */

#define SCHEMA_DIALECT "https://json-schema.org/draft/2020-12/schema"

/* The text of a built-in document, or empty. */
struct str schema_meta_text(struct str uri);

/* --- the compiler ----------------------------------------------------------------------------------------------- */

enum {                          /* vocabularies as bits */
    VOCAB_CORE = 1, VOCAB_APPLICATOR = 2, VOCAB_UNEVALUATED = 4, VOCAB_VALIDATION = 8, VOCAB_META_DATA = 16,
    VOCAB_FORMAT_ANNOTATION = 32, VOCAB_CONTENT = 64, VOCAB_FORMAT_ASSERTION = 128,
    VOCAB_STANDARD = 127,
};

/* A schema with its own base URI: a document, or a subschema with $id. */
struct resource {
    struct str uri;
    uint32_t number;
    unsigned vocabularies;
    struct place *root;
};

/* A subschema while it is compiled: where it is in which document. */
struct place {
    const struct json *at;      /* first: the address of this field is its key in build.by_node */
    struct sub *sub;
    struct resource *resource;
    struct place *parent;       /* NULL: the root of a document */
    struct str step;            /* from the parent: "/properties/a" */
    struct str document;        /* its URI; empty for the document given */
    uint32_t depth;
    bool own;                   /* of the document given: compiled even if nothing refers to it */
    bool queued;
};

struct anchor {
    struct place *place;
    bool dynamic;
};

/* A dynamic reference; its table is filled when all documents are known. */
struct dynamic_use {
    struct dynamic_use *next;
    struct str name;
    struct dynamic_rule *rule;
};

struct build {
    struct schema *schema;
    const struct schema_options *options;
    struct errinfo *info;
    struct arena tmp;
    struct map *by_node, *by_uri, *by_anchor, *by_pattern;
    struct place **queue;
    uint32_t n_queue, n_done, n_places;
    struct resource **resources;
    uint32_t n_resources;
    struct dynamic_use *dynamic_uses;
    struct op *ops;             /* of the subschema in work */
    uint32_t n_ops, cap_ops;
};

/* E_CONFIG: "<document>#<pointer>/<keyword>: <reason>"; keyword may be NULL. */
enum err build_refuse(struct build *b, const struct place *p, const char *keyword, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
enum err build_too_large(struct build *b);

/* Finds all subschemas of a document, their ids and anchors. `own`: it is the one given, not one referred to. */
enum err index_document(struct build *b, const struct json *root, struct str uri, bool own, struct place **ret);
/* The place of a subschema that index_document found. */
struct place *index_place(struct build *b, const struct json *at);
/* Where `ref` leads from p. *ret_name: the plain-name fragment it ended with, or empty. Indexes what it needs. */
enum err index_resolve(struct build *b, struct place *p, const char *keyword, struct str ref, struct place **ret,
    struct str *ret_name);
/* The anchor of this name in a resource, or NULL. */
struct anchor *index_anchor(struct build *b, const struct resource *r, struct str name);
/* Has the place compiled sooner or later; answers its subschema. */
const struct sub *build_want(struct build *b, struct place *p);

/* Compiles one place's keywords. */
enum err compile_place(struct build *b, struct place *p);

/* --- the machine ------------------------------------------------------------------------------------------------ */

enum {                          /* how a subschema is asked, and flags of its frame */
    ASK_SAME = 1,               /* about the same value as the asker's */
    ASK_QUIET = 2,              /* a "no" is not a fault */
    ASK_APART = 4,              /* what it evaluated does not count for the asker */
    F_TRACK = 8,                /* remembers which members or elements were evaluated */
};

struct frame {
    const struct sub *sub;
    const struct json *value;
    const struct json *child;   /* the member or element the operation is at */
    uint64_t seen;              /* required names met */
    uint32_t op;
    uint32_t i;                 /* number of `child`, or of the branch */
    uint32_t stage;
    uint32_t count;
    uint32_t at;                /* position of `value` in the array that holds it */
    uint32_t bits;              /* of F_TRACK: where its words begin */
    uint16_t depth;             /* of the value */
    uint16_t same;              /* frames in a row about this value */
    uint8_t flags;
    uint8_t types;              /* type_bit(value) */
};

enum { FRAMES_INLINE = 12, WORDS_INLINE = 16 };

struct run {
    struct frame *frames;
    uint32_t n_frames, cap_frames;
    uint32_t n_words, cap_words;
    uint64_t *words;
    uint64_t steps;
    struct arena *arena;
    struct schema_fault *fault;
    const struct json *leaf;    /* a value without a frame that is being looked at: the last part of the place */
    uint32_t leaf_at;
    bool quiet;
    bool fatal;
    bool replied;
    enum answer reply;
    const struct json *name_of; /* the member whose name is being looked at */
    struct json name;
    struct frame first_frames[FRAMES_INLINE];
    uint64_t first_words[WORDS_INLINE];
};

/* Does the value fit? */
bool run_schema(const struct schema *s, const struct json *value, struct arena *arena, struct schema_fault *fault);
/* Counts work; false and r->fatal when there was too much of it. */
bool run_charge(struct run *r, uint64_t steps);
/* Gives up: the reason is told whatever was quiet. */
void run_give_up(struct run *r, const char *why);
/* What `sub` says about `value`; at: its position if it is an element. After WAIT the operation returns WAIT. */
enum answer run_ask(struct run *r, const struct frame *f, const struct sub *sub, const struct json *value, uint32_t at,
    unsigned mode);
/* Runs an applicator: YES, NO or WAIT. */
enum answer apply_op(struct run *r, struct frame *f, const struct op *op);
/* Runs an assertion about a value whose type fits. */
bool assert_op(struct run *r, const struct op *op, const struct json *value);

static inline uint64_t *run_words(struct run *r, const struct frame *f) { return r->words + f->bits; }
static inline bool bit_get(const uint64_t *w, uint32_t i) { return w[i >> 6] >> (i & 63) & 1; }
static inline void bit_set(uint64_t *w, uint32_t i) { w[i >> 6] |= (uint64_t)1 << (i & 63); }

/* What is wrong with the value that is being looked at (r->leaf, else the top frame's), unless r->quiet. */
void fault_op(struct run *r, const struct op *op);
/* The same in words; `child`, `at`: a member or element below that place, `name`: a member that is not there. */
void fault_say(struct run *r, const struct json *child, uint32_t at, struct str name, const char *fmt, ...)
    __attribute__((format(printf, 5, 6)));

/* The member `name` is not there, though `because` is. */
void fault_needed(struct run *r, struct str name, struct str because);

/* Is it at most `depth` containers deep? Goes no deeper than that itself. */
bool json_within_depth(const struct json *j, unsigned depth);

#endif
