/* shape.c -- joins the values that entities have to types, and writes these as a schema's declarations */
#include "policy/shape.h"

#include <stdio.h>

#include "base/check.h"

/*
 * One type, or several that do not go together (MIXED). A set whose element is NULL was empty wherever it was seen.
 */
struct shape {
    enum policy_kind kind;
    bool mixed;
    struct str entity;
    struct shape *element;
    struct shape_member *members;
    uint32_t seen;              /* records: how many, to know which members are always there */
};

/* --- joining ------------------------------------------------------------------------------------------------------ */

static struct shape *of_value(struct shapes *s, struct policy_value v);

/* The member of that name, added in its place if it is new. NULL: the arena is full. Lists are in the order of names:
 * what is written does not depend on the order of the store. */
static struct shape_member *member(struct shapes *s, struct shape_member **list, struct str name)
{
    struct shape_member **at = list, *m;

    while (*at && str_cmp((*at)->name, name) < 0)
        at = &(*at)->next;
    if (*at && str_eq((*at)->name, name))
        return *at;
    m = ARENA_NEW(s->arena, struct shape_member);
    if (m) {
        *m = (struct shape_member){ .name = name, .next = *at };
        *at = m;
    }
    return m;
}

static struct shape *join(struct shapes *s, struct shape *a, struct shape *b)
{
    if (!a || !b)
        return a ? a : b;
    a->mixed |= b->mixed || a->kind != b->kind || (a->kind == POLICY_ENTITY && !str_eq(a->entity, b->entity));
    if (a->mixed)
        return a;
    if (a->kind == POLICY_SET)
        a->element = join(s, a->element, b->element);
    for (struct shape_member *m = a->kind == POLICY_RECORD ? b->members : NULL; m; m = m->next) {
        struct shape_member *mine = member(s, &a->members, m->name);

        if (mine) {
            mine->shape = join(s, mine->shape, m->shape);
            mine->seen += m->seen;
        }
    }
    a->seen += b->seen;
    return a;
}

static void take_attrs(struct shapes *s, struct shape_member **list, const struct policy_attr *attrs, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        struct shape_member *m = member(s, list, attrs[i].key);

        if (m) {
            m->shape = join(s, m->shape, of_value(s, attrs[i].value));
            m->seen++;
        }
    }
}

static struct shape *of_value(struct shapes *s, struct policy_value v)
{
    struct shape *x = ARENA_NEW(s->arena, struct shape);

    if (!x)
        return NULL;
    x->kind = (enum policy_kind)v.kind;
    x->seen = 1;
    switch (x->kind) {
    case POLICY_ENTITY:
        x->entity = v.u.uid->type;
        x->mixed = policy_type_is_action(x->entity);    /* the schema knows actions by name, not as a type */
        if (!x->mixed)
            shapes_type(s, x->entity);
        break;
    case POLICY_SET:
        for (uint32_t i = 0; i < v.len; i++)
            x->element = join(s, x->element, of_value(s, v.u.elems[i]));
        break;
    case POLICY_RECORD:
        take_attrs(s, &x->members, v.u.attrs, v.len);
        break;
    case POLICY_NONE:
    case POLICY_OPAQUE:
    case POLICY_UNKNOWN:
        x->mixed = true;
        break;
    default:
        break;
    }
    return x;
}

/* --- collecting --------------------------------------------------------------------------------------------------- */

struct shape_type *shapes_type(struct shapes *s, struct str name)
{
    struct shape_type **at = &s->types, *t;

    if (s->last && str_eq(s->last->name, name))
        return s->last;
    while (*at && str_cmp((*at)->name, name) < 0)
        at = &(*at)->next;
    if (*at && str_eq((*at)->name, name))
        return s->last = *at;
    t = ARENA_NEW(s->arena, struct shape_type);
    if (t) {
        *t = (struct shape_type){ .name = name, .next = *at };
        *at = t;
        s->last = t;
    }
    return t;
}

void shapes_in(struct shapes *s, struct str low, struct str high)
{
    struct shape_type *t = shapes_type(s, low);

    shapes_type(s, high);
    if (t)
        member(s, &t->parents, high);
}

static void take_entity(const struct policy_entity *e, void *arg)
{
    struct shapes *s = arg;
    struct shape_type *t = policy_type_is_action(e->uid.type) ? NULL : shapes_type(s, e->uid.type);

    if (!t)
        return;
    t->seen++;
    take_attrs(s, &t->attrs, e->attrs, e->n_attrs);
    for (uint32_t i = 0; i < e->n_tags; i++)
        t->tags = join(s, t->tags, of_value(s, e->tags[i].value));
    for (uint32_t i = 0; i < e->n_ancestors; i++)
        if (!policy_type_is_action(e->ancestors[i].uid->type))
            shapes_in(s, e->uid.type, e->ancestors[i].uid->type);
}

/* Whether Cedar has a type for it. */
static bool writable(const struct shape *x)
{
    if (!x || x->mixed)
        return false;
    for (const struct shape_member *m = x->members; m; m = m->next)
        if (!writable(m->shape))
            return false;
    return x->kind != POLICY_SET || writable(x->element);
}

void shapes_add_store(struct shapes *s, const struct policy_entities *store)
{
    bool untyped = false;

    policy_entities_each(store, take_entity, s);
    for (const struct shape_type *t = s->types; t; t = t->next)
        for (const struct shape_member *m = t->attrs; m; m = m->next)
            untyped |= !writable(m->shape);
    if (untyped)
        shapes_type(s, STR(SHAPE_UNTYPED));
}

/* --- writing ------------------------------------------------------------------------------------------------------ */

static void write_quoted(struct buf *out, struct str text)
{
    struct policy_value v = policy_string(text);

    policy_value_write(out, &v);
}

void shape_write_name(struct buf *out, struct str name)
{
    if (policy_type_valid(name) && !memchr(name.p, ':', name.len))
        buf_add_str(out, name);
    else
        write_quoted(out, name);
}

static void write_members(struct buf *out, const struct shape_member *list, uint32_t of, bool open, const char *lead);

static void write_shape(struct buf *out, const struct shape *x)
{
    switch (x->kind) {
    case POLICY_BOOL:       buf_add_z(out, "Bool"); break;
    case POLICY_LONG:       buf_add_z(out, "Long"); break;
    case POLICY_STRING:     buf_add_z(out, "String"); break;
    case POLICY_ENTITY:     buf_add_str(out, x->entity); break;
    case POLICY_DECIMAL:    buf_add_z(out, "decimal"); break;
    case POLICY_DATETIME:   buf_add_z(out, "datetime"); break;
    case POLICY_DURATION:   buf_add_z(out, "duration"); break;
    case POLICY_IP:         buf_add_z(out, "ipaddr"); break;
    case POLICY_SET:
        buf_add_z(out, "Set<");
        write_shape(out, x->element);
        buf_add_c(out, '>');
        break;
    case POLICY_RECORD:
        buf_add_z(out, "{ ");
        write_members(out, x->members, x->seen, false, NULL);
        buf_add_z(out, " }");
        break;
    default:
        UNREACHABLE();
    }
}

/* lead: what begins each member's line; NULL: all on one line. */
static void write_members(struct buf *out, const struct shape_member *list, uint32_t of, bool open, const char *lead)
{
    const char *between = "";

    for (const struct shape_member *m = list; m; m = m->next) {
        bool known = writable(m->shape);

        buf_add_z(out, lead ? lead : between);
        shape_write_name(out, m->name);
        buf_add_z(out, open || m->seen < of || !known ? "?: " : ": ");
        if (known)
            write_shape(out, m->shape);
        else
            buf_add_z(out, SHAPE_UNTYPED);
        buf_add_z(out, lead ? "," : "");
        between = ", ";
    }
}

static struct str base_name(struct str type, struct str *ret_namespace)
{
    size_t i = type.len;

    while (i > 1 && !(type.p[i - 1] == ':' && type.p[i - 2] == ':'))
        i--;
    *ret_namespace = i > 1 ? str_n(type.p, i - 2) : STR("");
    return i > 1 ? str_from(type, i) : type;
}

static void write_type(const struct shape_type *t, struct buf *out, const char *indent)
{
    const char *between = " in [";
    struct str ignored;

    buf_addf(out, "%sentity %.*s", indent, STR_ARG(base_name(t->name, &ignored)));
    for (const struct shape_member *p = t->parents; p; p = p->next, between = ", ")
        buf_addf(out, "%s%.*s", between, STR_ARG(p->name));
    buf_add_z(out, t->parents ? "]" : "");
    if (t->attrs) {
        char lead[16];

        snprintf(lead, sizeof(lead), "\n%s    ", indent);
        buf_add_z(out, " {");
        write_members(out, t->attrs, t->seen, t->open, lead);
        buf_addf(out, "\n%s}", indent);
    }
    if (writable(t->tags)) {
        buf_add_z(out, " tags ");
        write_shape(out, t->tags);
    }
    buf_add_z(out, ";\n");
}

void shapes_write(const struct shapes *s, struct buf *out)
{
    struct str ns, other;

    for (const struct shape_type *t = s->types; t; t = t->next) {
        bool first = true;

        base_name(t->name, &ns);
        if (!ns.len) {
            write_type(t, out, "");
            continue;
        }
        for (const struct shape_type *before = s->types; before != t && first; before = before->next) {
            base_name(before->name, &other);
            first = !str_eq(ns, other);
        }
        if (!first)
            continue;
        buf_addf(out, "namespace %.*s {\n", STR_ARG(ns));
        for (const struct shape_type *in = t; in; in = in->next) {
            base_name(in->name, &other);
            if (str_eq(ns, other))
                write_type(in, out, "    ");
        }
        buf_add_z(out, "}\n");
    }
}
