/*
 * types.c -- interned types, their order, their text
 */
#include "policy/types.h"

#include "base/check.h"
#include "base/map.h"

#define SCALAR(k, salt) { .kind = (k), .depth = 1, .hash = 0x9e3779b97f4a7c15u * (salt) }
#define EXT(e, salt)    { .kind = TYPE_EXT, .ext = (e), .depth = 1, .hash = 0x9e3779b97f4a7c15u * (salt) }

const struct type type_bool = SCALAR(TYPE_BOOL, 3u), type_long = SCALAR(TYPE_LONG, 5u),
    type_string = SCALAR(TYPE_STRING, 7u), type_decimal = EXT(POLICY_DECIMAL, 11u), type_ip = EXT(POLICY_IP, 13u),
    type_datetime = EXT(POLICY_DATETIME, 17u), type_duration = EXT(POLICY_DURATION, 19u),
    type_true = { .kind = TYPE_TRUE, .depth = 1, .narrow = true, .hash = 23 },
    type_false = { .kind = TYPE_FALSE, .depth = 1, .narrow = true, .hash = 29 };

const struct type *type_of_ext_kind(enum policy_kind kind)
{
    switch (kind) {
    case POLICY_DECIMAL:    return &type_decimal;
    case POLICY_IP:         return &type_ip;
    case POLICY_DATETIME:   return &type_datetime;
    case POLICY_DURATION:   return &type_duration;
    default:
        UNREACHABLE();
    }
}

const char *type_name(const struct type *t)
{
    switch ((enum type_kind)t->kind) {
    case TYPE_BOOL:     return "Bool";
    case TYPE_TRUE:     return "True";
    case TYPE_FALSE:    return "False";
    case TYPE_LONG:     return "Long";
    case TYPE_STRING:   return "String";
    case TYPE_EXT:
        switch (t->ext) {
        case POLICY_DECIMAL:    return "decimal";
        case POLICY_IP:         return "ipaddr";
        case POLICY_DATETIME:   return "datetime";
        default:                return "duration";
        }
    default:
        UNREACHABLE();
    }
}

const struct type *type_of_ext(struct str name)
{
    static const struct type *const all[] = { &type_decimal, &type_ip, &type_datetime, &type_duration };

    for (size_t i = 0; i < ARRAY_LEN(all); i++)
        if (str_is(name, type_name(all[i])))
            return all[i];
    return NULL;
}

/* --- interning ---------------------------------------------------------------------------------------------------- */

static uint64_t mix(uint64_t h, uint64_t v)
{
    h = (h ^ v) * 0xd6e8feb86659fd93u;
    return h ^ h >> 32;
}

/* Parts are interned, so comparing two types of one pool goes one level deep. */
static bool alike(const struct type *a, const struct type *b)
{
    if (a->hash != b->hash || a->kind != b->kind || a->n != b->n)
        return false;
    if (a->kind == TYPE_SET)
        return a->u.elem == b->u.elem;
    ASSERT(a->kind == TYPE_RECORD);
    for (uint32_t i = 0; i < a->n; i++) {
        const struct type_attr *x = &a->u.attrs[i], *y = &b->u.attrs[i];

        if (x->type != y->type || x->required != y->required || !str_eq(x->key, y->key))
            return false;
    }
    return true;
}

static const struct type *pool_find(const struct type_pool *p, const struct type *t)
{
    for (size_t i = t->hash; p->cap; i++) {
        const struct type *have = p->slots[i & (p->cap - 1)];

        if (!have || alike(have, t))
            return have;
    }
    return NULL;
}

static bool pool_grow(struct type_pool *p)
{
    size_t cap = p->cap ? 2 * p->cap : 64;
    const struct type **slots;

    if (2 * (p->n + 1) <= p->cap)
        return true;
    slots = ARENA_ARRAY(p->arena, const struct type *, cap);
    if (!slots)
        return false;
    for (size_t i = 0; i < p->cap; i++)
        if (p->slots[i]) {
            size_t k = p->slots[i]->hash;

            while (slots[k & (cap - 1)])
                k++;
            slots[k & (cap - 1)] = p->slots[i];
        }
    p->slots = slots;
    p->cap = cap;
    return true;
}

static const struct type *intern(struct type_pool *p, const struct type *t)
{
    const struct type *have = NULL;
    struct type *copy;
    size_t k = t->hash;

    for (const struct type_pool *q = p; q && !have; q = q->below)
        have = pool_find(q, t);
    if (have)
        return have;
    copy = ARENA_NEW(p->arena, struct type);
    if (!copy || !pool_grow(p))
        return NULL;
    *copy = *t;
    while (p->slots[k & (p->cap - 1)])
        k++;
    p->slots[k & (p->cap - 1)] = copy;
    p->n++;
    return copy;
}

const struct type *type_set(struct type_pool *p, const struct type *elem)
{
    struct type t = { .kind = TYPE_SET, .narrow = elem->narrow, .depth = (uint16_t)(elem->depth + 1),
        .hash = mix(31, elem->hash), .u.elem = elem };

    return intern(p, &t);
}

static void sort(struct type_attr *v, size_t n)
{
    for (size_t gap = n / 2; gap > 0; gap /= 2)
        for (size_t i = gap; i < n; i++) {
            struct type_attr t = v[i];
            size_t j = i;

            for (; j >= gap && policy_key_cmp(v[j - gap].key, t.key) > 0; j -= gap)
                v[j] = v[j - gap];
            v[j] = t;
        }
}

const struct type *type_record(struct type_pool *p, struct type_attr *attrs, size_t n)
{
    struct type t = { .kind = TYPE_RECORD, .n = (uint32_t)n, .depth = 1, .hash = mix(37, n), .u.attrs = attrs };

    if (n > UINT32_MAX)
        return NULL;
    sort(attrs, n);
    for (size_t i = 0; i < n; i++) {
        const struct type *a = attrs[i].type;

        t.narrow |= a->narrow;
        t.hash = mix(mix(t.hash, hash_bytes(attrs[i].key.p, attrs[i].key.len)), a->hash + attrs[i].required);
        if (t.depth <= a->depth)
            t.depth = (uint16_t)(a->depth + 1);
    }
    return intern(p, &t);
}

/* --- order -------------------------------------------------------------------------------------------------------- */

bool type_subtype(const struct type *a, const struct type *b)
{
    if (a == b)
        return true;
    if (!a->narrow)
        return false;
    if (a->kind == TYPE_TRUE || a->kind == TYPE_FALSE)
        return b->kind == TYPE_BOOL;
    if (a->kind != b->kind)
        return false;
    if (a->kind == TYPE_SET)
        return type_subtype(a->u.elem, b->u.elem);
    ASSERT(a->kind == TYPE_RECORD);
    if (a->n != b->n)
        return false;
    for (uint32_t i = 0; i < a->n; i++) {
        const struct type_attr *x = &a->u.attrs[i], *y = &b->u.attrs[i];

        if (x->required != y->required || !str_eq(x->key, y->key) || !type_subtype(x->type, y->type))
            return false;
    }
    return true;
}

static const struct type *record_lub(struct type_pool *p, const struct type *a, const struct type *b)
{
    struct type_attr *attrs;

    if (a->n != b->n)
        return NULL;
    for (uint32_t i = 0; i < a->n; i++)
        if (a->u.attrs[i].required != b->u.attrs[i].required || !str_eq(a->u.attrs[i].key, b->u.attrs[i].key))
            return NULL;
    attrs = ARENA_ARRAY(p->arena, struct type_attr, a->n);
    if (!attrs && a->n)
        return NULL;
    for (uint32_t i = 0; i < a->n; i++) {
        attrs[i] = a->u.attrs[i];
        attrs[i].type = type_lub(p, a->u.attrs[i].type, b->u.attrs[i].type);
        if (!attrs[i].type)
            return NULL;
    }
    return type_record(p, attrs, a->n);
}

const struct type *type_lub(struct type_pool *p, const struct type *a, const struct type *b)
{
    const struct type *elem;

    if (type_subtype(a, b))
        return b;
    if (type_subtype(b, a))
        return a;
    if (!a->narrow || !b->narrow)
        return NULL;
    if (a->kind <= TYPE_FALSE && b->kind <= TYPE_FALSE)
        return &type_bool;
    if (a->kind != b->kind)
        return NULL;
    if (a->kind == TYPE_RECORD)
        return record_lub(p, a, b);
    elem = type_lub(p, a->u.elem, b->u.elem);
    return elem ? type_set(p, elem) : NULL;
}

const struct type_attr *type_attr(const struct type *t, struct str key)
{
    size_t lo = 0, hi;

    if (t->kind == TYPE_ENTITY)
        t = t->u.entity->shape;
    if (!t || t->kind != TYPE_RECORD)
        return NULL;
    for (hi = t->n; lo < hi;) {
        size_t mid = lo + (hi - lo) / 2;
        int c = policy_key_cmp(t->u.attrs[mid].key, key);

        if (c == 0)
            return &t->u.attrs[mid];
        if (c < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    return NULL;
}

/* --- text --------------------------------------------------------------------------------------------------------- */

enum { TEXT_MAX = 120 };        /* a message is one line */

static void write_inner(struct buf *out, const struct type *t, size_t end)
{
    if (out->len >= end) {
        buf_add_z(out, "...");
        return;
    }
    switch ((enum type_kind)t->kind) {
    case TYPE_ENTITY:
        buf_add_str(out, t->u.entity->name.type);
        return;
    case TYPE_SET:
        buf_add_z(out, "Set<");
        write_inner(out, t->u.elem, end);
        buf_add_c(out, '>');
        return;
    case TYPE_RECORD:
        buf_add_c(out, '{');
        for (uint32_t i = 0; i < t->n; i++) {
            if (out->len >= end) {
                buf_add_z(out, "...");
                break;
            }
            buf_addf(out, "%s%.*s%s: ", i ? ", " : "", STR_ARG(t->u.attrs[i].key), t->u.attrs[i].required ? "" : "?");
            write_inner(out, t->u.attrs[i].type, end);
        }
        buf_add_c(out, '}');
        return;
    default:
        buf_add_z(out, type_name(t));
    }
}

void type_write(struct buf *out, const struct type *t)
{
    write_inner(out, t, out->len + TEXT_MAX);
}
