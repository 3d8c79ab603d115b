/*
 * value.c -- the canonical form of values, their order, and their text
 *
 * Sets are sorted with a heap sort of our own: qsort(3) may allocate, and decisions must not.
 */
#include "policy/value.h"

#include <stdatomic.h>

#include "base/check.h"
#include "base/map.h"
#include "policy/ext.h"
#include "policy/lex.h"

enum { SORT_LINEAR_MAX = 8, SCAN_MAX = 16 };    /* up to here a scan beats a heap; a binary search */

static struct policy_uid uid_of(struct str type, uint64_t t, struct str id, uint64_t h)
{
    /* An odd multiplier keeps both halves' bits; equality never rests on the hash alone. */
    h = (h ^ (t * 0x9e3779b97f4a7c15u)) * 0xd6e8feb86659fd93u;
    return (struct policy_uid){ type, id, h ^ (h >> 32), t };
}

struct policy_uid policy_uid(struct str type, struct str id)
{
    return uid_of(type, hash_bytes(type.p, type.len), id, hash_bytes(id.p, id.len));
}

struct policy_uid policy_uid_known(struct str type, uint64_t type_hash, struct str id, uint64_t id_hash)
{
    return uid_of(type, type_hash ? type_hash : hash_bytes(type.p, type.len), id,
        id_hash ? id_hash : hash_bytes(id.p, id.len));
}

struct policy_uid policy_uid_typed(struct policy_type *type, struct str id, uint64_t id_hash)
{
    uint64_t t = atomic_load_explicit(&type->hash, memory_order_relaxed);

    if (!t) {
        t = hash_bytes(type->name.p, type->name.len);
        atomic_store_explicit(&type->hash, t, memory_order_relaxed);
    }
    return policy_uid_known(type->name, t, id, id_hash);
}

bool policy_type_valid(struct str type)
{
    size_t i = 0;

    for (;;) {
        size_t start = i;

        while (i < type.len && lex_ident_char((unsigned char)type.p[i], i == start))
            i++;
        if (i == start || lex_reserved(str_n(type.p + start, i - start)))
            return false;
        if (i == type.len)
            return true;
        if (type.len - i < 2 || type.p[i] != ':' || type.p[i + 1] != ':')
            return false;
        i += 2;
    }
}

bool policy_type_is_action(struct str type)
{
    return str_is(type, "Action") || str_ends(type, STR("::Action"));
}

/* Shorter first: most comparisons end at the length. */
int policy_key_cmp(struct str a, struct str b)
{
    if (a.len != b.len)
        return a.len < b.len ? -1 : 1;
    return a.len ? memcmp(a.p, b.p, a.len) : 0;
}

static int uid_cmp(const struct policy_uid *a, const struct policy_uid *b)
{
    int c;

    if (a == b)
        return 0;
    if (a->hash != b->hash)
        return a->hash < b->hash ? -1 : 1;
    c = policy_key_cmp(a->id, b->id);
    return c ? c : policy_key_cmp(a->type, b->type);
}

static int ip_cmp(const struct policy_ip *a, const struct policy_ip *b)
{
    if (a->v6 != b->v6)
        return a->v6 ? 1 : -1;
    if (a->prefix != b->prefix)
        return a->prefix < b->prefix ? -1 : 1;
    return memcmp(a->bytes, b->bytes, sizeof(a->bytes));
}

static int set_cmp(const struct policy_value *a, const struct policy_value *b)
{
    if (a->len != b->len)
        return a->len < b->len ? -1 : 1;
    for (uint32_t i = 0; i < a->len; i++) {
        int c = policy_value_cmp(&a->u.elems[i], &b->u.elems[i]);

        if (c)
            return c;
    }
    return 0;
}

static int record_cmp(const struct policy_value *a, const struct policy_value *b)
{
    if (a->len != b->len)
        return a->len < b->len ? -1 : 1;
    for (uint32_t i = 0; i < a->len; i++) {
        int c = policy_key_cmp(a->u.attrs[i].key, b->u.attrs[i].key);

        if (!c)
            c = policy_value_cmp(&a->u.attrs[i].value, &b->u.attrs[i].value);
        if (c)
            return c;
    }
    return 0;
}

int policy_value_cmp(const struct policy_value *a, const struct policy_value *b)
{
    if (a->kind != b->kind)
        return a->kind < b->kind ? -1 : 1;
    switch ((enum policy_kind)a->kind) {
    case POLICY_BOOL:
        return (int)a->u.b - (int)b->u.b;
    case POLICY_LONG:
    case POLICY_DECIMAL:
    case POLICY_DATETIME:
    case POLICY_DURATION:
        return a->u.i < b->u.i ? -1 : a->u.i > b->u.i;
    case POLICY_STRING:
    case POLICY_OPAQUE:
        return policy_key_cmp(policy_value_str(*a), policy_value_str(*b));
    case POLICY_ENTITY:
        return uid_cmp(a->u.uid, b->u.uid);
    case POLICY_SET:
        return set_cmp(a, b);
    case POLICY_RECORD:
        return record_cmp(a, b);
    case POLICY_IP:
        return ip_cmp(a->u.ip, b->u.ip);
    case POLICY_NONE:
    case POLICY_UNKNOWN:
        return 0;
    }
    UNREACHABLE();
}

/* --- sets and records ----------------------------------------------------------------------------------------- */

static void sift_down(struct policy_value *v, size_t root, size_t n)
{
    for (;;) {
        size_t kid = 2 * root + 1;
        struct policy_value t;

        if (kid >= n)
            return;
        if (kid + 1 < n && policy_value_cmp(&v[kid], &v[kid + 1]) < 0)
            kid++;
        if (policy_value_cmp(&v[root], &v[kid]) >= 0)
            return;
        t = v[root];
        v[root] = v[kid];
        v[kid] = t;
        root = kid;
    }
}

static void sort_values(struct policy_value *v, size_t n)
{
    if (n <= SORT_LINEAR_MAX) {
        for (size_t i = 1; i < n; i++) {
            struct policy_value t = v[i];
            size_t j = i;

            for (; j > 0 && policy_value_cmp(&v[j - 1], &t) > 0; j--)
                v[j] = v[j - 1];
            v[j] = t;
        }
        return;
    }
    for (size_t i = n / 2; i-- > 0;)
        sift_down(v, i, n);
    for (size_t i = n; i-- > 1;) {
        struct policy_value t = v[0];

        v[0] = v[i];
        v[i] = t;
        sift_down(v, 0, i);
    }
}

struct policy_value policy_set_of(struct policy_value *elems, size_t n)
{
    struct policy_value set = { .kind = POLICY_SET, .u.elems = elems };
    size_t kept = 0;

    if (n > UINT32_MAX)
        return (struct policy_value){ 0 };
    for (size_t i = 0; i < n; i++) {
        if (elems[i].kind == POLICY_NONE)
            return (struct policy_value){ 0 };
        set.flags |= elems[i].flags & POLICY_PARTIAL;
    }
    sort_values(elems, n);
    for (size_t i = 0; i < n; i++)
        if (kept == 0 || policy_value_cmp(&elems[kept - 1], &elems[i]) != 0)
            elems[kept++] = elems[i];
    set.len = (uint32_t)kept;
    return set;
}

static void sort_attrs(struct policy_attr *v, size_t n)
{
    /* Shell sort: records come nearly sorted or small, and it needs no memory. */
    for (size_t gap = n / 2; gap > 0; gap /= 2)
        for (size_t i = gap; i < n; i++) {
            struct policy_attr t = v[i];
            size_t j = i;

            for (; j >= gap && policy_key_cmp(v[j - gap].key, t.key) > 0; j -= gap)
                v[j] = v[j - gap];
            v[j] = t;
        }
}

struct policy_value policy_record_of(struct policy_attr *attrs, size_t n)
{
    struct policy_value record = { .kind = POLICY_RECORD, .len = (uint32_t)n, .u.attrs = attrs };

    if (n > UINT32_MAX)
        return (struct policy_value){ 0 };
    sort_attrs(attrs, n);
    for (size_t i = 0; i < n; i++) {
        if (attrs[i].value.kind == POLICY_NONE || (i > 0 && str_eq(attrs[i - 1].key, attrs[i].key)))
            return (struct policy_value){ 0 };
        record.flags |= attrs[i].value.flags & POLICY_PARTIAL;
    }
    return record;
}

/* Of the keys as long as this one most differ in the first byte. */
static const struct policy_value *scan(const struct policy_attr *attrs, size_t n, struct str key)
{
    for (size_t i = 0; i < n; i++)
        if (attrs[i].key.len == key.len && attrs[i].key.p[0] == key.p[0] && policy_text_eq(attrs[i].key, key))
            return &attrs[i].value;
    return NULL;
}

const struct policy_value *policy_record_get(const struct policy_attr *attrs, size_t n, struct str key)
{
    size_t lo = 0, hi = n;

    if (n <= SCAN_MAX && key.len)
        return scan(attrs, n, key);
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        int c = policy_key_cmp(attrs[mid].key, key);

        if (c == 0)
            return &attrs[mid].value;
        if (c < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    return NULL;
}

/* --- text ------------------------------------------------------------------------------------------------------- */

static void write_quoted(struct buf *out, struct str s)
{
    buf_add_c(out, '"');
    for (size_t i = 0; i < s.len; i++) {
        unsigned char c = (unsigned char)s.p[i];

        if (c == '"' || c == '\\')
            buf_addf(out, "\\%c", c);
        else if (c == '\n')
            buf_add_z(out, "\\n");
        else if (c < 0x20 || c == 0x7f)
            buf_addf(out, "\\u{%x}", c);
        else
            buf_add_c(out, (char)c);
    }
    buf_add_c(out, '"');
}

void policy_uid_write(struct buf *out, const struct policy_uid *uid)
{
    buf_add_str(out, uid->type);
    buf_add_z(out, "::");
    write_quoted(out, uid->id);
}

static void write_record(struct buf *out, const struct policy_value *v)
{
    buf_add_c(out, '{');
    for (uint32_t i = 0; i < v->len; i++) {
        if (i)
            buf_add_z(out, ", ");
        write_quoted(out, v->u.attrs[i].key);
        buf_add_z(out, ": ");
        policy_value_write(out, &v->u.attrs[i].value);
    }
    buf_add_c(out, '}');
}

static void write_set(struct buf *out, const struct policy_value *v)
{
    buf_add_c(out, '[');
    for (uint32_t i = 0; i < v->len; i++) {
        if (i)
            buf_add_z(out, ", ");
        policy_value_write(out, &v->u.elems[i]);
    }
    buf_add_c(out, ']');
}

static void write_datetime(struct buf *out, int64_t t)
{
    char text[25];
    const int64_t year_0 = -62167219200000, year_10000 = 253402300800000;

    if (t >= year_0 && t < year_10000) {
        wall_format(t, text);
        buf_addf(out, "datetime(\"%s\")", text);
    } else {
        buf_addf(out, "datetime(\"1970-01-01\").offset(duration(\"%lldms\"))", (long long)t);
    }
}

void policy_value_write(struct buf *out, const struct policy_value *v)
{
    switch ((enum policy_kind)v->kind) {
    case POLICY_BOOL:
        buf_add_z(out, v->u.b ? "true" : "false");
        break;
    case POLICY_LONG:
        buf_add_i64(out, v->u.i);
        break;
    case POLICY_STRING:
        write_quoted(out, policy_value_str(*v));
        break;
    case POLICY_ENTITY:
        policy_uid_write(out, v->u.uid);
        break;
    case POLICY_SET:
        write_set(out, v);
        break;
    case POLICY_RECORD:
        write_record(out, v);
        break;
    case POLICY_DECIMAL:
        buf_add_z(out, "decimal(\"");
        decimal_write(out, v->u.i);
        buf_add_z(out, "\")");
        break;
    case POLICY_DATETIME:
        write_datetime(out, v->u.i);
        break;
    case POLICY_DURATION:
        buf_addf(out, "duration(\"%lldms\")", (long long)v->u.i);
        break;
    case POLICY_IP:
        buf_add_z(out, "ip(\"");
        ip_write(out, v->u.ip);
        buf_add_z(out, "\")");
        break;
    case POLICY_OPAQUE:
        buf_addf(out, "<not a Cedar value: %.*s>", STR_ARG(policy_value_str(*v)));
        break;
    case POLICY_NONE:
        buf_add_z(out, "<none>");
        break;
    case POLICY_UNKNOWN:
        buf_add_z(out, "<unknown>");
        break;
    }
}
