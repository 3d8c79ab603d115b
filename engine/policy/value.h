/*
 * value.h -- Cedar values: what conditions compute with, and what a request's context is made of
 *
 * A value is 16 bytes; what does not fit (text, sets, records, addresses) is pointed to and lives in the arena it was
 * built in.  Values are immutable once built and in canonical form (sets sorted and without duplicates, records sorted
 * by key), so that equality is structural and membership is a search.  Text is UTF-8 and is not copied.
 *
 * Building fails in one way only: the arena is full.  The result is then POLICY_NONE, which is not a legal value, and
 * the arena's sticky overflow tells (decisions refuse both).
 */
#ifndef POLICY_VALUE_H
#define POLICY_VALUE_H

#include "base/arena.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/str.h"

struct json;

enum policy_kind {
    POLICY_NONE,                /* not a value: building ran out of memory */
    POLICY_BOOL,
    POLICY_LONG,                /* 64 bits, signed; overflow is an error, never a wrap */
    POLICY_STRING,
    POLICY_ENTITY,
    POLICY_SET,
    POLICY_RECORD,
    POLICY_DECIMAL,             /* u.i counts ten-thousandths */
    POLICY_DATETIME,            /* u.i: milliseconds since 1970-01-01T00:00:00Z */
    POLICY_DURATION,            /* u.i: milliseconds */
    POLICY_IP,                  /* an address with a prefix length, kept as written (not masked) */
    /* JSON that Cedar has no value for (null, 1.00001): equal to nothing but the same text */
    POLICY_OPAQUE,
    POLICY_UNKNOWN,             /* for policy_could_allow() only: stands for any value */
};

/* A name of an entity: Type::"id". The hashes are of this process; make uids with policy_uid() only. */
struct policy_uid {
    struct str type, id;        /* "Namespace::Type" without spaces */
    uint64_t hash;              /* of both */
    uint64_t type_hash;
};

struct policy_ip {
    uint8_t bytes[16];          /* an IPv4 address fills the first four, the rest are 0 */
    uint8_t prefix;
    bool v6;
};

enum { POLICY_PARTIAL = 1 };    /* flag: POLICY_UNKNOWN is this value or somewhere inside it */

struct policy_attr;

struct policy_value {
    uint8_t kind;
    uint8_t flags;
    uint32_t len;               /* STRING, OPAQUE: bytes; SET: elements; RECORD: attributes */
    union {
        bool b;
        int64_t i;
        const char *s;
        const struct policy_uid *uid;
        const struct policy_value *elems;   /* ascending by policy_value_cmp, each once */
        const struct policy_attr *attrs;    /* ascending by key: shorter first, then by bytes */
        const struct policy_ip *ip;
    } u;
};

struct policy_attr {
    struct str key;
    struct policy_value value;
};

/* Type and id are not copied. The type is a Cedar name ("User", "App::User"); see policy_type_valid(). */
struct policy_uid policy_uid(struct str type, struct str id);

/* A type that names are often made of; its hash is made with the first. For static ones. */
struct policy_type {
    struct str name;
    _Atomic uint64_t hash;      /* 0: not made yet */
};

/* policy_uid(type, id) with hash_bytes() of each where it is known, or 0. */
struct policy_uid policy_uid_known(struct str type, uint64_t type_hash, struct str id, uint64_t id_hash);
/* policy_uid(type->name, id); id_hash: hash_bytes() of the id where it is known, or 0. */
struct policy_uid policy_uid_typed(struct policy_type *type, struct str id, uint64_t id_hash);

/* str_eq() for names, which are short and mostly equal by now: without a call, and without reading what is one text. */
static inline bool policy_text_eq(struct str a, struct str b)
{
    uint64_t x[2], y[2];

    if (a.len != b.len)
        return false;
    if (a.p == b.p || a.len == 0)
        return true;
    if (a.len > sizeof(x))
        return memcmp(a.p, b.p, a.len) == 0;
    if (a.len < sizeof(uint32_t))
        return a.p[0] == b.p[0] && a.p[a.len / 2] == b.p[a.len / 2] && a.p[a.len - 1] == b.p[a.len - 1];
    if (a.len < sizeof(uint64_t)) {
        uint32_t s[2], t[2];                /* both ends, which meet or overlap */

        memcpy(&s[0], a.p, sizeof(s[0]));
        memcpy(&s[1], a.p + a.len - sizeof(s[1]), sizeof(s[1]));
        memcpy(&t[0], b.p, sizeof(t[0]));
        memcpy(&t[1], b.p + a.len - sizeof(t[1]), sizeof(t[1]));
        return s[0] == t[0] && s[1] == t[1];
    }
    memcpy(&x[0], a.p, sizeof(x[0]));
    memcpy(&x[1], a.p + a.len - sizeof(x[1]), sizeof(x[1]));
    memcpy(&y[0], b.p, sizeof(y[0]));
    memcpy(&y[1], b.p + a.len - sizeof(y[1]), sizeof(y[1]));
    return x[0] == y[0] && x[1] == y[1];
}

static inline bool policy_uid_eq(const struct policy_uid *a, const struct policy_uid *b)
{
    return a == b || (a->hash == b->hash && policy_text_eq(a->id, b->id) && policy_text_eq(a->type, b->type));
}
/*
 * Reads an entity as Cedar writes it, `App::User::"alice"`, into the arena. E_CONFIG: `info` says what was expected and
 * where, `what` (a word for messages, as "principal") being the file's name; E_CALL_TOO_LARGE: the arena is full.
 */
enum err policy_uid_parse(struct arena *a, struct str what, struct str text, struct policy_uid *ret,
    struct errinfo *info);
/* A Cedar name: identifiers joined by "::", none of them reserved, no spaces. */
bool policy_type_valid(struct str type);
/* Whether entities of the type are actions: Action, or any::Action. */
bool policy_type_is_action(struct str type);

static inline struct policy_value policy_bool(bool b)
{
    return (struct policy_value){ .kind = POLICY_BOOL, .u.b = b };
}
static inline struct policy_value policy_long(int64_t i)
{
    return (struct policy_value){ .kind = POLICY_LONG, .u.i = i };
}
static inline struct policy_value policy_datetime(wall_ms_t t)
{
    return (struct policy_value){ .kind = POLICY_DATETIME, .u.i = t };
}
/* The bytes must be UTF-8 and outlive the value; past 4 GiB: POLICY_NONE. */
static inline struct policy_value policy_string(struct str s)
{
    if (s.len > UINT32_MAX)
        return (struct policy_value){ 0 };
    return (struct policy_value){ .kind = POLICY_STRING, .len = (uint32_t)s.len, .u.s = s.p };
}
/* The uid must outlive the value. */
static inline struct policy_value policy_entity_value(const struct policy_uid *uid)
{
    return (struct policy_value){ .kind = POLICY_ENTITY, .u.uid = uid };
}
static inline struct policy_value policy_unknown(void)
{
    return (struct policy_value){ .kind = POLICY_UNKNOWN, .flags = POLICY_PARTIAL };
}
static inline struct str policy_value_str(struct policy_value v)
{
    return (struct str){ v.u.s, v.len };
}

/*
 * Makes a set of the n values in `elems`, which is reordered in place and becomes part of the set: it must live as
 * long. Never fails, except that a POLICY_NONE among the elements makes the set POLICY_NONE.
 */
struct policy_value policy_set_of(struct policy_value *elems, size_t n);
/* The same for a record; a key that occurs twice makes it POLICY_NONE (the caller promises distinct keys). */
struct policy_value policy_record_of(struct policy_attr *attrs, size_t n);
/* The order of attributes: by length, then by bytes. */
int policy_key_cmp(struct str a, struct str b);
/* NULL if there is none. */
const struct policy_value *policy_record_get(const struct policy_attr *attrs, size_t n, struct str key);

/* A total order over all values, the same within one process; 0 means equal as Cedar's == has it. */
int policy_value_cmp(const struct policy_value *a, const struct policy_value *b);
static inline bool policy_value_eq(const struct policy_value *a, const struct policy_value *b)
{
    if (a->kind == POLICY_STRING && b->kind == POLICY_STRING)
        return policy_text_eq(policy_value_str(*a), policy_value_str(*b));
    return a->kind == b->kind && policy_value_cmp(a, b) == 0;
}

enum policy_json {
    /*
     * Data of a caller (a call's arguments): an object is a record, whatever its keys, so nobody can smuggle in an
     * entity. null makes an attribute absent (an element of an array: OPAQUE). A number with a fraction is a decimal
     * if it has at most four places ("1.50" is decimal 1.5), otherwise OPAQUE: every operation on it but == and !=
     * is an error.
     */
    POLICY_JSON_PLAIN,
    /*
     * Cedar's own format: {"__entity": {"type", "id"}} and {"__extn": {"fn", "arg"}} are escapes; null and fractions
     * refused.
     */
    POLICY_JSON_CEDAR,
};

/*
 * JSON to a value. The result refers to the tree's text, which must outlive it. E_FORMAT: not a value (`info` says
 * what); E_CALL_TOO_LARGE: the arena is full or the nesting passes 128.
 */
enum err policy_value_from_json(struct arena *a, const struct json *j, enum policy_json mode, struct policy_value *ret,
    struct errinfo *info);

/*
 * Who an entity's reference names: {"type", "id"}, or the pair ["type", "id"], which the reference implementation reads
 * as the same. False: neither. Whether the type is a name is not checked. The strings stay the tree's.
 */
bool policy_uid_from_json(const struct json *j, struct policy_uid *ret);

/* Writes the value in Cedar's syntax, for people: `User::"alice"`, `{"a": [1, 2]}`, `ip("10.0.0.0/8")`. */
void policy_value_write(struct buf *out, const struct policy_value *v);
void policy_uid_write(struct buf *out, const struct policy_uid *uid);

#endif
