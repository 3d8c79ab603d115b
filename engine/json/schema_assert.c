/*
 * schema_assert.c -- the operations that look at one value and ask nobody
 *
 * Work that grows with the value is charged before it is done.  Comparing goes down the value on the C stack, so what
 * is compared is first seen to be at most SCHEMA_DEPTH_MAX deep: the schema's side at compile time, both sides of
 * uniqueItems here.
 */
#include <stdlib.h>

#include "base/check.h"
#include "base/map.h"
#include "json/json_internal.h"
#include "json/schema_internal.h"

/* Up to here elements are compared pair by pair: this many, and so many values in them. */
enum { UNIQUE_SMALL = 16, UNIQUE_SMALL_VALUES = 512 };

bool json_within_depth(const struct json *j, unsigned depth)
{
    if (!json_is(j, JSON_ARRAY) && !json_is(j, JSON_OBJECT))
        return true;
    if (depth == 0)
        return false;
    for (const struct json *m = json_first(j); m; m = m->next)
        if (!json_within_depth(m, depth - 1))
            return false;
    return true;
}

/* --- type, const, enum ------------------------------------------------------------------------------------------ */

static bool type_fits(const struct op *op, const struct json *value)
{
    if (op->n & type_bit(value))
        return true;
    return (op->n & T_INTEGER) && json_is_integral(value);
}

/* Comparing stops at the first difference, so it costs at most what the schema quotes; strings cost their length. */
static bool same(struct run *r, const struct json *quoted, const struct json *value)
{
    if (quoted->type == JSON_STRING || value->type == JSON_STRING)
        return quoted->type == value->type && str_eq(json_str(quoted), json_str(value));
    if (json_is_number(quoted) != json_is_number(value))
        return false;
    return run_charge(r, 1) && json_equal(quoted, value);
}

static bool among(struct run *r, const struct enum_rule *rule, const struct json *value)
{
    if (!(rule->types & type_bit(value)))
        return false;
    if (json_is(value, JSON_STRING))
        return names_find(&rule->strings, json_str(value), NAMES_ABSENT) != NAMES_ABSENT;
    for (uint32_t i = rule->strings.n; i < rule->n; i++)
        if (same(r, rule->values[i], value))
            return true;
    return false;
}

/* --- strings ---------------------------------------------------------------------------------------------------- */

/* Code points: bytes that do not continue one. */
static uint64_t length(struct str s)
{
    uint64_t n = 0;
    size_t i = 0;

    for (; s.len - i >= 8; i += 8) {
        uint64_t x;

        memcpy(&x, s.p + i, 8);
        x = ~x >> 7 | x >> 6;                           /* bit 0 of a byte: clear only in 10xxxxxx */
        n += (uint64_t)__builtin_popcountll(x & 0x0101010101010101u);
    }
    for (; i < s.len; i++)
        n += ((unsigned char)s.p[i] & 0xc0) != 0x80;
    return n;
}

static bool length_fits(const struct op *op, struct str s)
{
    if (op->code == OP_MAX_LENGTH)
        return s.len <= op->u.bound || length(s) <= op->u.bound;
    return s.len >= op->u.bound && (s.len / 4 >= op->u.bound || length(s) >= op->u.bound);
}

static bool pattern_fits(struct run *r, const struct op *op, struct str s)
{
    enum answer a = regex_match(op->u.regex, s, &r->steps, SCHEMA_STEPS_MAX);

    if (a == WAIT)
        run_give_up(r, "is too complex to be checked");
    return a == YES;
}

/* --- arrays and objects ----------------------------------------------------------------------------------------- */

struct hashed {
    uint64_t hash;
    const struct json *j;
    uint32_t i;
};

static uint64_t hash_pair(uint64_t a, uint64_t b)
{
    uint64_t both[2] = { a, b };

    return hash_bytes(both, sizeof(both));
}

/* Not inlined: a kilobyte of digits has no place in each frame of hash_value. */
__attribute__((noinline)) static uint64_t hash_number(const struct json *j)
{
    struct decimal d;
    int64_t i;

    if (json_int(j, &i))
        return hash_pair(T_INTEGER, (uint64_t)i);
    decimal_from(&d, json_num_raw(j));
    return hash_pair(hash_bytes(d.digits, d.n), (uint64_t)d.point * 2 + d.negative);
}

/* Equal values have equal hashes, whatever their form. The tree is at most SCHEMA_DEPTH_MAX deep. */
static uint64_t hash_value(const struct json *j)
{
    uint64_t sum = json_len(j);

    switch (json_type(j)) {
    case JSON_INT:
    case JSON_NUMBER:
        return hash_number(j);
    case JSON_STRING:
        return hash_pair(T_STRING, hash_bytes(j->u.s, j->len));
    case JSON_BOOL:
        return hash_pair(T_BOOL, j->u.b);
    case JSON_ARRAY:
        for (const struct json *m = json_first(j); m; m = m->next)
            sum = hash_pair(sum, hash_value(m));
        return hash_pair(T_ARRAY, sum);
    case JSON_OBJECT:                                   /* a sum: the order of members does not matter */
        for (const struct json *m = json_first(j); m; m = m->next)
            sum += hash_pair(hash_bytes(m->key, m->key_len), hash_value(m));
        return hash_pair(T_OBJECT, sum);
    default:
        return hash_pair(T_NULL, json_type(j));
    }
}

static int by_hash(const void *a, const void *b)
{
    const struct hashed *x = a, *y = b;

    return x->hash != y->hash ? (x->hash < y->hash ? -1 : 1) : (x->i > y->i) - (x->i < y->i);
}

static bool twice(struct run *r, uint32_t first, const struct json *second, uint32_t at)
{
    fault_say(r, second, at, STR_NULL, "is equal to element %u; all must differ", first);
    return false;
}

static bool unique_small(struct run *r, const struct json *array)
{
    const struct json *a, *b;
    uint32_t i = 0, k;

    for (b = json_first(array); b; b = b->next, i++)
        for (a = json_first(array), k = 0; a != b; a = a->next, k++)
            if (json_equal(a, b))
                return twice(r, k, b, i);
    return true;
}

/* Counts the values of a tree, charging for them. */
static bool charge_tree(struct run *r, const struct json *j)
{
    uint64_t n = 1 + json_len(j);

    if (json_is(j, JSON_STRING))
        n += j->len / 64;
    if (!run_charge(r, n))
        return false;
    for (const struct json *m = json_first(j); m; m = m->next)
        if (!charge_tree(r, m))
            return false;
    return true;
}

static bool unique(struct run *r, const struct json *array)
{
    uint64_t before = r->steps;
    struct hashed *list;
    uint32_t n = 0;

    if (json_len(array) < 2)
        return true;
    if (!json_within_depth(array, SCHEMA_DEPTH_MAX)) {
        run_give_up(r, "is nested too deeply");
        return false;
    }
    if (!charge_tree(r, array))
        return false;
    if (json_len(array) <= UNIQUE_SMALL && r->steps - before <= UNIQUE_SMALL_VALUES)
        return unique_small(r, array);
    list = ARENA_ARRAY(r->arena, struct hashed, json_len(array));
    if (!list) {
        run_give_up(r, "is too large to be checked");
        return false;
    }
    for (const struct json *m = json_first(array); m; m = m->next, n++)
        list[n] = (struct hashed){ hash_value(m), m, n };
    qsort(list, n, sizeof(*list), by_hash);
    for (uint32_t i = 1; i < n; i++)
        /* the hash is keyed: two that differ share one by an accident that needs no handling but this comparison */
        for (uint32_t k = i; k > 0 && list[k - 1].hash == list[i].hash; k--)
            if (json_equal(list[k - 1].j, list[i].j))
                return twice(r, list[k - 1].i, list[i].j, list[i].i);
    return true;
}

static bool dependents(struct run *r, const struct op *op, const struct json *value)
{
    for (uint32_t i = 0; i < op->n; i++) {
        const struct dependent_required *rule = &op->u.required[i];

        if (!run_charge(r, 1 + json_len(value) / 4))
            return false;
        if (!json_get_str(value, rule->key))
            continue;
        for (uint32_t k = 0; k < rule->n; k++) {
            if (!run_charge(r, 1 + json_len(value) / 4))
                return false;
            if (json_get_str(value, rule->needs[k]))
                continue;
            fault_needed(r, rule->needs[k], rule->key);
            return false;
        }
    }
    return true;
}

/* Rounding keeps the order, so two numbers whose nearest doubles differ are ordered like those. */
static inline int order(const struct json *value, const struct json *bound)
{
    double a, b;

    if (value->type == JSON_INT && bound->type == JSON_INT)
        return (value->u.i > bound->u.i) - (value->u.i < bound->u.i);
    a = value->type == JSON_INT ? (double)value->u.i : value->u.d;
    b = bound->type == JSON_INT ? (double)bound->u.i : bound->u.d;
    if (a != b)
        return a < b ? -1 : 1;
    return json_num_cmp(value, bound);
}

/* Digits one by one, through all the limbs of a long divisor. */
static uint64_t multiple_cost(const struct json *value, const struct json *by)
{
    return 1 + value->len / 8 + (by->len > 18 ? (uint64_t)value->len * by->len / 8 : 0);
}

static bool holds(struct run *r, const struct op *op, const struct json *value)
{
    switch ((enum op_code)op->code) {
    case OP_TYPE:           return type_fits(op, value);
    case OP_CONST:          return same(r, op->u.value, value);
    case OP_ENUM:           return among(r, op->u.choice, value);
    case OP_MINIMUM:        return order(value, op->u.value) >= 0;
    case OP_MAXIMUM:        return order(value, op->u.value) <= 0;
    case OP_ABOVE:          return order(value, op->u.value) > 0;
    case OP_BELOW:          return order(value, op->u.value) < 0;
    case OP_MULTIPLE_OF:    return run_charge(r, multiple_cost(value, op->u.value)) &&
                                number_multiple(value, op->u.value);
    case OP_MIN_LENGTH:
    case OP_MAX_LENGTH:     return run_charge(r, value->len / 256) && length_fits(op, json_str(value));
    case OP_PATTERN:        return pattern_fits(r, op, json_str(value));
    case OP_FORMAT:         return run_charge(r, value->len / 16) && format_valid((enum format)op->n, json_str(value));
    case OP_MIN_ITEMS:
    case OP_MIN_PROPERTIES: return json_len(value) >= op->u.bound;
    case OP_MAX_ITEMS:
    case OP_MAX_PROPERTIES: return json_len(value) <= op->u.bound;
    default:                UNREACHABLE();
    }
}

bool assert_op(struct run *r, const struct op *op, const struct json *value)
{
    if (op->code == OP_UNIQUE_ITEMS)                    /* these two say themselves where it is wrong */
        return unique(r, value);
    if (op->code == OP_DEPENDENT_REQUIRED)
        return dependents(r, op, value);
    if (holds(r, op, value))
        return true;
    fault_op(r, op);
    return false;
}
