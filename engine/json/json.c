/*
 * json.c -- the tree: reading, building, comparing, copying
 *
 * Children are a singly linked list with first and last in the parent.  A node has one parent at most (F_CHILD),
 * which is why linking a node that has one links a copy instead: otherwise the next sibling of one tree would lead
 * into another. What is built here can fail in one way, the arena's limit; what is compared or copied is bounded by
 * JSON_DEPTH_MAX, so a ring (a node put under itself) ends there too.
 */
#include "json/json_internal.h"

#include <math.h>
#include <stdlib.h>

#include "base/check.h"

STATIC_ASSERT(sizeof(struct json) == 40, "a node is five words: the parser allocates one per value");

/* The member of an object. */
static inline struct json *member(const struct json *obj, struct str key)
{
    struct json *m;

    for (m = json_first(obj); m; m = m->next)
        if (m->key_len == key.len && same_bytes(m->key, key.p, key.len))
            return m;
    return NULL;
}

struct json *json_get_str(const struct json *obj, struct str key)
{
    return json_is(obj, JSON_OBJECT) && key.len <= JSON_KEY_MAX && key.p ? member(obj, key) : NULL;
}

/* `rest` is what follows a path's first name: empty, or a point and more names. */
static NOINLINE struct json *down_further(struct json *at, const char *rest)
{
    while (*rest && json_is(at, JSON_OBJECT)) {
        size_t step = (size_t)(strchrnul(rest + 1, '.') - rest) - 1;

        at = member(at, str_n(rest + 1, step));
        rest += step + 1;
    }
    return *rest ? NULL : at;
}

struct json *json_down(const struct json *obj, const char *path, size_t step)
{
    struct json *at = json_get_str(obj, str_n(path, step));

    return path[step] ? down_further(at, path + step) : at;
}

struct json *json_at(const struct json *arr, size_t i)
{
    struct json *m;

    if (i >= json_len(arr))
        return NULL;
    for (m = json_first(arr); i > 0; i--)
        m = m->next;
    return m;
}

struct str json_num_raw(const struct json *j)
{
    return json_is_number(j) ? (struct str){ j->v.raw, j->len } : STR_NULL;
}

bool json_double(const struct json *j, double *ret)
{
    if (!json_is_number(j))
        return false;
    if (j->type == JSON_NUMBER)
        *ret = j->u.d;
    else
        *ret = j->u.i == 0 && j->v.raw[0] == '-' ? -0.0 : (double)j->u.i;
    return true;
}

/* Those that need a decimal are apart: its digits are a kilobyte of stack, which whoever holds it also clears. */
static NOINLINE bool number_integral(const struct json *j)
{
    struct decimal d;

    decimal_from(&d, json_num_raw(j));
    return decimal_integral(&d);
}

bool json_is_integral(const struct json *j)
{
    return json_is(j, JSON_NUMBER) ? number_integral(j) : json_is(j, JSON_INT);
}

static NOINLINE bool number_int(const struct json *j, int64_t *ret)
{
    struct decimal d;
    int64_t v = 0;

    decimal_from(&d, json_num_raw(j));
    if (!decimal_integral(&d) || d.point > 19)
        return false;
    for (int64_t i = 0; i < d.point; i++) {
        int digit = i < (int64_t)d.n ? d.digits[i] - '0' : 0;

        /* counted downwards, so that INT64_MIN needs no case of its own */
        if (__builtin_mul_overflow(v, (int64_t)10, &v) || __builtin_sub_overflow(v, (int64_t)digit, &v))
            return false;
    }
    if (!d.negative && __builtin_sub_overflow((int64_t)0, v, &v))
        return false;
    *ret = v;
    return true;
}

bool json_int(const struct json *j, int64_t *ret)
{
    if (json_is(j, JSON_INT)) {
        *ret = j->u.i;
        return true;
    }
    return json_is(j, JSON_NUMBER) && number_int(j, ret);
}

static NOINLINE int number_cmp(const struct json *a, const struct json *b)
{
    struct decimal x, y;
    int sign, order;

    decimal_from(&x, json_num_raw(a));
    decimal_from(&y, json_num_raw(b));
    if (x.n == 0 || y.n == 0)
        return x.n ? (x.negative ? -1 : 1) : y.n ? (y.negative ? 1 : -1) : 0;
    if (x.negative != y.negative)
        return x.negative ? -1 : 1;
    sign = x.negative ? -1 : 1;
    if (x.point != y.point)
        return x.point > y.point ? sign : -sign;
    order = memcmp(x.digits, y.digits, x.n < y.n ? x.n : y.n);
    if (order)
        return order > 0 ? sign : -sign;
    return x.n == y.n ? 0 : x.n > y.n ? sign : -sign;
}

int json_num_cmp(const struct json *a, const struct json *b)
{
    ASSERT(json_is_number(a) && json_is_number(b));
    if (a->type == JSON_INT && b->type == JSON_INT)
        return (a->u.i > b->u.i) - (a->u.i < b->u.i);
    return number_cmp(a, b);
}

/* --- building ----------------------------------------------------------------------------------------------- */

/* A node of its own with `extra` bytes behind it. */
static inline struct json *node_new(struct arena *a, enum json_type type, size_t extra)
{
    struct json *j = arena_alloc(a, sizeof(*j) + extra);

    if (!j)
        return NULL;
    memset(j, 0, sizeof(*j));
    j->type = (uint8_t)type;
    return j;
}

/* The arena says "too large" for everything that does not fit, whatever the limit was that it did not fit. */
static void *refuse(struct arena *a)
{
    a->overflow = true;
    return NULL;
}

struct json *json_object(struct arena *a)
{
    return node_new(a, JSON_OBJECT, 0);
}

struct json *json_array(struct arena *a)
{
    return node_new(a, JSON_ARRAY, 0);
}

static struct json *bytes_new(struct arena *a, enum json_type type, struct str s)
{
    struct json *j;

    if (s.len > UINT32_MAX)
        return refuse(a);
    j = node_new(a, type, 0);
    if (j) {
        j->u.s = s.p ? s.p : "";
        j->len = (uint32_t)s.len;
    }
    return j;
}

struct json *json_string_ref(struct arena *a, struct str s)
{
    return bytes_new(a, JSON_STRING, s);
}

struct json *json_string_of(struct arena *a, const struct json *j)
{
    struct json *same = json_is(j, JSON_STRING) ? node_new(a, JSON_STRING, 0) : NULL;

    if (same) {
        same->u.s = j->u.s;
        same->len = j->len;
        same->flags = j->flags & F_PLAIN;
    }
    return same;
}

struct json *json_string(struct arena *a, struct str s)
{
    struct json *j;

    if (s.len > UINT32_MAX)
        return refuse(a);
    j = node_new(a, JSON_STRING, s.len);
    if (j) {
        j->u.s = (char *)(j + 1);
        j->len = (uint32_t)s.len;
        if (s.len)
            memcpy(j + 1, s.p, s.len);
    }
    return j;
}

struct json *json_string_z(struct arena *a, const char *z)
{
    return z ? json_string(a, str_of(z)) : json_null_new(a);
}

struct json *json_raw(struct arena *a, struct str fragment)
{
    return bytes_new(a, JSON_RAW, fragment);
}

struct json *json_null_new(struct arena *a)
{
    return node_new(a, JSON_NULL, 0);
}

struct json *json_bool_new(struct arena *a, bool v)
{
    struct json *j = node_new(a, JSON_BOOL, 0);

    if (j)
        j->u.b = v;
    return j;
}

struct json *json_int_new(struct arena *a, int64_t v)
{
    uint64_t rest = v < 0 ? 0 - (uint64_t)v : (uint64_t)v;
    char text[20], *p = text + sizeof(text);
    struct json *j;

    do {
        *--p = (char)('0' + rest % 10);
        rest /= 10;
    } while (rest);
    if (v < 0)
        *--p = '-';
    j = node_new(a, JSON_INT, sizeof(text));
    if (j) {
        j->u.i = v;
        j->len = (uint32_t)(text + sizeof(text) - p);
        j->v.raw = memcpy(j + 1, p, j->len);
    }
    return j;
}

struct json *json_double_new(struct arena *a, double v)
{
    struct json *j;

    if (!isfinite(v))
        return refuse(a);
    j = node_new(a, JSON_NUMBER, JSON_DOUBLE_TEXT);
    if (j) {
        j->u.d = v;
        j->len = (uint32_t)json_double_text(v, (char *)(j + 1));
        j->v.raw = (char *)(j + 1);
    }
    return j;
}

/* `node` as something that may be linked: itself, or a copy if it has a parent. */
static struct json *orphan(struct arena *a, struct json *node)
{
    return node && (node->flags & F_CHILD) ? json_copy(a, node) : node;
}

static void link_last(struct json *parent, struct json *node)
{
    ASSERT(!(node->flags & F_CHILD));
    node->flags |= F_CHILD;
    node->next = NULL;
    if (parent->len)
        parent->v.last->next = node;
    else
        parent->u.first = node;
    parent->v.last = node;
    parent->len++;
}

static void name(struct json *node, struct str key)
{
    node->key = key.p ? key.p : "";
    node->key_len = (uint16_t)key.len;
    node->flags &= (uint8_t)~F_KEY_PLAIN;
}

/* Puts `node`, which has no parent, where `old` stands. */
static void replace(struct json *obj, struct json *old, struct json *node)
{
    struct json **at = &obj->u.first;
    struct json *before = NULL;

    while (*at != old) {
        before = *at;
        at = &before->next;
    }
    ASSERT(!before || before->next == old);
    *at = node;
    node->next = old->next;
    node->flags |= F_CHILD;
    if (obj->v.last == old)
        obj->v.last = node;
    old->next = NULL;
    old->flags &= (uint8_t)~F_CHILD;
}

/* The rarer ways: there is a member of that name already, or the node has a parent. */
static void set_slow(struct arena *a, struct json *obj, struct json *old, struct str key, struct json *node)
{
    if (old == node)
        return;
    node = orphan(a, node);
    if (!node || arena_overflowed(a))
        return;
    name(node, old ? json_key(old) : key);
    if (old)
        replace(obj, old, node);
    else
        link_last(obj, node);
}

static inline void set(struct arena *a, struct json *obj, struct str key, bool copy_key, struct json *node)
{
    struct json *old;

    if (!json_is(obj, JSON_OBJECT) || !node)
        return;
    if (key.len > JSON_KEY_MAX) {
        refuse(a);
        return;
    }
    old = member(obj, key);
    if (!old && copy_key)
        key = arena_str(a, key);
    if (old || (node->flags & F_CHILD) || arena_overflowed(a)) {
        set_slow(a, obj, old, key, node);
        return;
    }
    name(node, key);
    link_last(obj, node);
}

void json_set_ref(struct arena *a, struct json *obj, struct str key, struct json *node)
{
    set(a, obj, key, false, node);
}

void json_set_key(struct arena *a, struct json *obj, struct str key, struct json *node)
{
    set(a, obj, key, true, node);
}

void json_add(struct arena *a, struct json *obj, struct str key, struct json *node)
{
    if (!json_is(obj, JSON_OBJECT) || !node)
        return;
    if (key.len > JSON_KEY_MAX) {
        refuse(a);
        return;
    }
    node = orphan(a, node);
    key = arena_str(a, key);
    if (!node || arena_overflowed(a))
        return;
    name(node, key);
    link_last(obj, node);
}

void json_push(struct arena *a, struct json *arr, struct json *node)
{
    if (!json_is(arr, JSON_ARRAY))
        return;
    node = orphan(a, node);
    if (!node)
        return;
    node->key = NULL;           /* it may have been a member before json_del() */
    node->key_len = 0;
    link_last(arr, node);
}

struct json *json_del(struct json *obj, const char *key)
{
    struct json *m = json_get(obj, key), *before = NULL;

    if (!m)
        return NULL;
    if (obj->u.first == m) {
        obj->u.first = m->next;
    } else {
        for (before = obj->u.first; before->next != m;)
            before = before->next;
        before->next = m->next;
    }
    if (obj->v.last == m)
        obj->v.last = before;
    obj->len--;
    m->next = NULL;
    m->flags &= (uint8_t)~F_CHILD;
    return m;
}

/* --- picking ------------------------------------------------------------------------------------------------ */

struct picked {
    struct json absent;         /* the member where nothing is found */
    struct str first;           /* name of the path */
    const struct str *steps;    /* that follow it */
    size_t n_steps;
};

struct json_picks {
    size_t n;
    struct picked each[];       /* and behind the last the further steps of all */
};

/* member() of an object whose members are `first` and what follows, but from `at` on first: they mostly come in the
 * order in which they are picked. */
static inline struct json *member_from(struct json *first, struct json *at, struct str key)
{
    struct json *m;

    for (m = at; m; m = m->next)
        if (m->key_len == key.len && same_bytes(m->key, key.p, key.len))
            return m;
    for (m = first; m != at; m = m->next)
        if (m->key_len == key.len && same_bytes(m->key, key.p, key.len))
            return m;
    return NULL;
}

static NOINLINE void pick_int(struct arena *a, struct json *m, const struct json *j)
{
    const struct json *number;
    int64_t v;

    if (!json_int(j, &v))
        return;
    number = json_int_new(a, v);
    if (!number)
        return;
    m->u.i = v;
    m->v.raw = number->v.raw;
    m->len = number->len;
}

/* The value that is meant, in a node that is to be a member. `first`: of what it is picked from; `*at`: the one behind
 * the last one picked. */
static inline void pick(struct arena *a, struct json *m, struct json *first, struct json **at, const struct picked *p)
{
    struct json *j = member_from(first, *at, p->first);

    *m = p->absent;
    if (!j)
        return;
    *at = j->next;
    for (size_t i = 0; i < p->n_steps; i++)
        j = json_is(j, JSON_OBJECT) ? member(j, p->steps[i]) : NULL;
    if (m->type == JSON_INT) {
        pick_int(a, m, j);
    } else if (json_is(j, (enum json_type)m->type)) {
        m->flags = (uint8_t)((m->flags & ~F_PLAIN) | (j->flags & F_PLAIN));
        m->len = j->len;
        m->u = j->u;
    }
}

/* An object and its members behind it, in one piece. */
static struct json *pick_one(struct arena *a, const struct json *from, const struct json_picks *picks)
{
    size_t n = picks->n;
    struct json *one = arena_alloc(a, (n + 1) * sizeof(*one)), *m = one;
    struct json *first = json_is(from, JSON_OBJECT) ? json_first(from) : NULL, *at = first;

    if (!one)
        return NULL;
    *one = (struct json){ .type = JSON_OBJECT, .len = (uint32_t)n, .u.first = n ? one + 1 : NULL, .v.last = one + n };
    for (size_t i = 0; i < n; i++) {
        m++;
        pick(a, m, first, &at, &picks->each[i]);
        m->next = m + 1;
    }
    m->next = NULL;
    return one;
}

/* Behind the first. */
static size_t path_steps(const char *path)
{
    size_t n = 0;

    for (; *path; path++)
        n += *path == '.';
    return n;
}

/* A member of which nothing is found: its name, and what it is then. */
static struct json absent_of(const struct json_pick *p)
{
    struct json m = { .type = (uint8_t)p->type, .flags = F_CHILD, .key = p->name.p, .key_len = (uint16_t)p->name.len };

    if (scan_special(p->name.p, p->name.p + p->name.len) == p->name.p + p->name.len)
        m.flags |= F_KEY_PLAIN;
    if (p->type == JSON_STRING) {
        m.flags |= F_PLAIN;
        m.u.s = "";
    } else if (p->type == JSON_INT) {
        m.v.raw = "0";
        m.len = 1;
    }
    return m;
}

struct json_picks *json_picks_new(const struct json_pick *v, size_t n)
{
    struct json_picks *picks;
    struct str *step, rest;
    size_t steps = 0;

    for (size_t i = 0; i < n; i++) {
        for (size_t k = 0; k < i; k++)
            if (str_eq(v[k].name, v[i].name))
                return NULL;
        if (v[i].name.len > JSON_KEY_MAX)
            return NULL;
        steps += path_steps(v[i].path);
    }
    picks = malloc(sizeof(*picks) + n * sizeof(*picks->each) + steps * sizeof(*step));
    ASSERT(picks != NULL);
    picks->n = n;
    step = (struct str *)(picks->each + n);
    for (size_t i = 0; i < n; i++) {
        struct picked *p = &picks->each[i];
        bool more;

        *p = (struct picked){ .absent = absent_of(&v[i]), .first = str_of(v[i].path), .steps = step };
        for (more = str_cut(p->first, '.', &p->first, &rest); more; p->n_steps++, step++) {
            more = str_cut(rest, '.', step, &rest);
            if (!more)
                *step = rest;
        }
    }
    return picks;
}

void json_picks_free(struct json_picks *picks)
{
    free(picks);
}

struct json *json_pick_each(struct arena *a, const struct json *list, const struct json_picks *picks)
{
    struct json *all = picks ? json_array(a) : NULL;

    for (const struct json *from = json_first(list); all && from; from = from->next)
        json_push(a, all, pick_one(a, from, picks));
    return all;
}

/* --- copying and comparing ---------------------------------------------------------------------------------- */

static struct json *copy_one(struct arena *a, const struct json *j)
{
    bool number = json_is_number(j), bytes = j->type == JSON_STRING || j->type == JSON_RAW;
    struct json *copy = node_new(a, (enum json_type)j->type, number || bytes ? j->len : 0);

    if (!copy)
        return NULL;
    copy->flags = j->flags & (F_PLAIN | F_KEY_PLAIN);
    if (number || bytes) {
        copy->u = j->u;
        copy->len = j->len;
        if (number)
            copy->v.raw = memcpy(copy + 1, j->v.raw, j->len);
        else
            copy->u.s = memcpy(copy + 1, j->u.s, j->len);
    } else if (j->type == JSON_BOOL) {
        copy->u.b = j->u.b;
    }
    return copy;
}

static struct json *copy_at(struct arena *a, const struct json *j, unsigned depth)
{
    struct json *copy, *child;
    const struct json *m;

    if (depth > JSON_DEPTH_MAX)
        return refuse(a);
    copy = copy_one(a, j);
    if (!copy)
        return NULL;
    for (m = json_first(j); m; m = m->next) {
        child = copy_at(a, m, depth + 1);
        if (!child)
            return NULL;
        if (j->type == JSON_OBJECT) {
            uint8_t plain = m->flags & F_KEY_PLAIN;

            name(child, arena_str(a, json_key(m)));
            if (arena_overflowed(a))
                return NULL;
            child->flags |= plain;
        }
        link_last(copy, child);
    }
    return copy;
}

struct json *json_copy(struct arena *a, const struct json *j)
{
    return j ? copy_at(a, j, 0) : NULL;
}

static bool equal_at(const struct json *a, const struct json *b, unsigned depth);

static const struct json **members_by_key(const struct json *obj)
{
    const struct json **v = malloc(obj->len * sizeof(*v)), *m;
    size_t n = 0;

    ASSERT(v != NULL);
    for (m = json_first(obj); m; m = m->next)
        v[n++] = m;
    ASSERT(n == obj->len);
    members_sort(v, n);
    return v;
}

/* Objects of the same size whose members come in different orders. */
static bool members_equal(const struct json *a, const struct json *b, unsigned depth)
{
    const struct json *m, **va, **vb;
    bool same = true;

    if (a->len <= OBJECT_SMALL) {
        for (m = json_first(a); m && same; m = m->next)
            same = equal_at(m, json_get_str(b, json_key(m)), depth + 1);
        return same;
    }
    va = members_by_key(a);
    vb = members_by_key(b);
    for (size_t i = 0; i < a->len && same; i++)
        same = str_eq(json_key(va[i]), json_key(vb[i])) && equal_at(va[i], vb[i], depth + 1);
    free(va);
    free(vb);
    return same;
}

static bool children_equal(const struct json *a, const struct json *b, unsigned depth)
{
    const struct json *x = json_first(a), *y = json_first(b);

    if (a->len != b->len || depth >= JSON_DEPTH_MAX)
        return false;
    for (; x && y; x = x->next, y = y->next) {
        if (a->type == JSON_OBJECT && !str_eq(json_key(x), json_key(y)))
            return members_equal(a, b, depth);
        if (!equal_at(x, y, depth + 1))
            return false;
    }
    return true;
}

static bool equal_at(const struct json *a, const struct json *b, unsigned depth)
{
    if (!a || !b)
        return a == b;
    if (json_is_number(a) && json_is_number(b))
        return json_num_cmp(a, b) == 0;
    if (a->type != b->type)
        return false;
    switch ((enum json_type)a->type) {
    case JSON_NULL:
        return true;
    case JSON_BOOL:
        return a->u.b == b->u.b;
    case JSON_STRING:
    case JSON_RAW:
        return a->len == b->len && memcmp(a->u.s, b->u.s, a->len) == 0;
    case JSON_ARRAY:
    case JSON_OBJECT:
        return children_equal(a, b, depth);
    case JSON_INT:
    case JSON_NUMBER:
    case JSON_NONE:
        break;
    }
    UNREACHABLE();
}

bool json_equal(const struct json *a, const struct json *b)
{
    return equal_at(a, b, 0);
}
