/*
 * schema_resolve.c -- from what was written to a schema: every name looked up, every type built, membership closed
 *
 * A name without a namespace means what is declared in the namespace it is used in, else what is declared in none; in
 * each of the two a common type goes before an entity type.  The built-in types are common types of the namespace
 * __cedar, and of none unless the schema declares the name there.  What is declared in no namespace must not be hidden
 * by a declaration in one.  Types refer to common types in any order, but not in a ring; entity types may be in each
 * other in rings (groups in groups), actions may not.
 */
#include "base/check.h"
#include "base/map.h"
#include "policy/report.h"
#include "policy/schema_decl.h"

enum { EXPANSIONS_MAX = 1000 };

enum state { OPEN, BUSY, DONE };

struct entity {
    struct str name, ns;
    const struct decl_entity *decl;     /* NULL: the type of actions */
    struct schema_entity *made;
    struct entity *next;
};

struct common {
    struct str name, ns;
    const struct decl_common *decl;
    enum state state;
    const struct type *type;
    struct common *next;
};

struct action {
    struct str ns;
    const struct decl_action *decl;
    struct schema_action *made;
    struct action *next;
};

struct resolver {
    struct decl_schema *s;
    struct policy_schema *out;
    struct map entities, commons, actions;      /* by full name; actions by type, NUL, id */
    struct entity *first_entity, **end_entity;
    struct common *first_common, **end_common;
    struct action *first_action, **end_action;
    unsigned nest;
};

enum { AS_COMMON = 1, AS_ENTITY = 2 };

/* What a name stands for: one of the two. */
struct found {
    const struct type *type;            /* a built-in one */
    struct common *common;
    struct entity *entity;
};

/* --- names -------------------------------------------------------------------------------------------------------- */

static struct str basename_of(struct str name)
{
    size_t i = name.len;

    while (i > 0 && name.p[i - 1] != ':')
        i--;
    return str_from(name, i);
}

static struct str qualify(struct resolver *r, struct str ns, struct str name)
{
    struct str full = ns.len ? arena_printf(&r->out->arena, "%.*s::%.*s", STR_ARG(ns), STR_ARG(name))
        : arena_str(&r->out->arena, name);

    if (!full.p)
        decl_memory(r->s);
    return full;
}

/* Never the name of anything but the action of that type and id. */
static struct str action_key(struct resolver *r, struct str type, struct str id)
{
    char *p = arena_alloc(r->s->arena, type.len + id.len + 1);

    if (!p)
        return decl_memory(r->s), STR_NULL;
    memcpy(p, type.p, type.len);
    p[type.len] = '\0';
    if (id.len)
        memcpy(p + type.len + 1, id.p, id.len);
    return str_n(p, type.len + id.len + 1);
}

static const struct type *builtin(struct str name)
{
    if (str_is(name, "Bool"))
        return &type_bool;
    if (str_is(name, "Long"))
        return &type_long;
    if (str_is(name, "String"))
        return &type_string;
    return type_of_ext(name);
}

static bool find_exact(struct resolver *r, struct str name, unsigned as, struct found *ret)
{
    struct str cedar = STR("__cedar::");

    *ret = (struct found){ 0 };
    if (as & AS_COMMON) {
        ret->common = map_get(&r->commons, name);
        if (!ret->common && str_starts(name, cedar))
            ret->type = builtin(str_from(name, cedar.len));
        else if (!ret->common && !map_get(&r->entities, name))
            ret->type = builtin(name);
    }
    if (!ret->common && !ret->type && as & AS_ENTITY)
        ret->entity = map_get(&r->entities, name);
    return ret->common || ret->type || ret->entity;
}

static const char *const sorts[] = { "", "common type", "entity type", "common or entity type" };

static bool find(struct resolver *r, struct str ns, struct str name, size_t at, unsigned as, struct found *ret)
{
    struct str full;

    if (ns.len && !memchr(name.p, ':', name.len)) {
        full = qualify(r, ns, name);
        if (!full.p)
            return false;
        if (find_exact(r, full, as, ret) || find_exact(r, name, as, ret))
            return true;
        return decl_fail(r->s, at, "neither `%.*s` nor `%.*s` is declared as %s %s", STR_ARG(full), STR_ARG(name),
            as & AS_COMMON ? "a" : "an", sorts[as]);
    }
    return find_exact(r, name, as, ret) || decl_fail(r->s, at, "`%.*s` is not declared as %s %s", STR_ARG(name),
        as & AS_COMMON ? "a" : "an", sorts[as]);
}

/* --- types -------------------------------------------------------------------------------------------------------- */

static const struct type *resolve_type(struct resolver *r, struct str ns, const struct decl_type *t);

static const struct type *resolve_common(struct resolver *r, struct common *c, size_t at)
{
    if (c->state == BUSY)
        return decl_fail(r->s, at, "the type `%.*s` is defined by itself", STR_ARG(c->name));
    if (c->state == OPEN) {
        c->state = BUSY;
        c->type = resolve_type(r, c->ns, c->decl->type);
        c->state = DONE;
    }
    return c->type;
}

static const struct type *resolve_name(struct resolver *r, struct str ns, const struct decl_type *t, unsigned as)
{
    struct found f;

    if (!find(r, ns, t->name, t->at, as, &f))
        return NULL;
    if (f.common)
        return resolve_common(r, f.common, t->at);
    return f.type ? f.type : &f.entity->made->type;
}

/* By key, then by place: of two attributes with one key the later one stands later. */
static bool attr_after(const struct decl_attr *a, const struct decl_attr *b)
{
    int c = policy_key_cmp(a->key, b->key);

    return c ? c > 0 : a->at > b->at;
}

/* Sorts; of attributes with one key the last is kept. Answers how many are left. */
static size_t distinct(const struct decl_attr **v, size_t n)
{
    size_t kept = 0;

    for (size_t gap = n / 2; gap > 0; gap /= 2)
        for (size_t i = gap; i < n; i++) {
            const struct decl_attr *t = v[i];
            size_t k = i;

            for (; k >= gap && attr_after(v[k - gap], t); k -= gap)
                v[k] = v[k - gap];
            v[k] = t;
        }
    for (size_t i = 0; i < n; i++)
        if (i + 1 == n || !str_eq(v[i]->key, v[i + 1]->key))
            v[kept++] = v[i];
    return kept;
}

static const struct type *resolve_record(struct resolver *r, struct str ns, const struct decl_type *t)
{
    const struct decl_attr **v = ARENA_ARRAY(r->s->arena, const struct decl_attr *, t->n + 1);
    struct type_attr *attrs = ARENA_ARRAY(&r->out->arena, struct type_attr, t->n + 1);
    const struct type *record;
    size_t n = 0;

    if (!v || !attrs)
        return decl_memory(r->s);
    for (const struct decl_attr *a = t->attrs; a; a = a->next)
        v[n++] = a;
    ASSERT(n == t->n);
    n = distinct(v, n);
    for (size_t i = 0; i < n; i++) {
        attrs[i].key = arena_str(&r->out->arena, v[i]->key);
        attrs[i].required = v[i]->required;
        attrs[i].type = resolve_type(r, ns, v[i]->type);
        if (!attrs[i].type)
            return NULL;
    }
    record = type_record(&r->out->types, attrs, n);
    return record ? record : decl_memory(r->s);
}

static const struct type *resolve_kind(struct resolver *r, struct str ns, const struct decl_type *t)
{
    const struct type *inner;

    switch (t->kind) {
    case DECL_PRIMITIVE:
        return t->type;
    case DECL_EXT:
        inner = type_of_ext(t->name);
        return inner ? inner : decl_fail(r->s, t->at, "`%.*s` is no extension type; there are decimal, ipaddr, "
            "datetime and duration", STR_ARG(t->name));
    case DECL_SET:
        inner = resolve_type(r, ns, t->elem);
        if (!inner)
            return NULL;
        inner = type_set(&r->out->types, inner);
        return inner ? inner : decl_memory(r->s);
    case DECL_RECORD:
        return resolve_record(r, ns, t);
    case DECL_ENTITY:
        return resolve_name(r, ns, t, AS_ENTITY);
    case DECL_COMMON:
        return resolve_name(r, ns, t, AS_COMMON);
    case DECL_NAME:
        return resolve_name(r, ns, t, AS_COMMON | AS_ENTITY);
    }
    UNREACHABLE();
}

/* NULL: an error is set. */
static const struct type *resolve_type(struct resolver *r, struct str ns, const struct decl_type *t)
{
    const struct type *type;

    if (r->nest == EXPANSIONS_MAX)
        return decl_fail(r->s, t->at, "types refer to types more than %d deep", EXPANSIONS_MAX);
    r->nest++;
    type = resolve_kind(r, ns, t);
    r->nest--;
    if (type && type->depth > TYPE_DEPTH_MAX)
        return decl_fail(r->s, t->at, "this type is nested more than %d deep", TYPE_DEPTH_MAX);
    return type;
}

/* The shape of an entity type, or a context. */
static const struct type *resolve_shape(struct resolver *r, struct str ns, const struct decl_type *t)
{
    const struct type *type;

    if (!t) {
        type = type_record(&r->out->types, NULL, 0);
        return type ? type : decl_memory(r->s);
    }
    type = resolve_type(r, ns, t);
    if (type && type->kind != TYPE_RECORD)
        return decl_fail(r->s, t->at, "expected a record, found another type");
    return type;
}

/* --- collecting declarations -------------------------------------------------------------------------------------- */

static struct entity *new_entity(struct resolver *r, struct str name, struct str ns, const struct decl_entity *decl)
{
    struct entity *e = ARENA_NEW(r->s->arena, struct entity);
    struct schema_entity *made = ARENA_NEW(&r->out->arena, struct schema_entity);

    if (!e || !made)
        return decl_memory(r->s);
    made->name = policy_uid(name, STR(""));
    made->type = (struct type){ .kind = TYPE_ENTITY, .depth = 1, .hash = made->name.hash, .u.entity = made };
    made->action = decl == NULL;
    *e = (struct entity){ .name = name, .ns = ns, .decl = decl, .made = made };
    map_put(&r->entities, name, e);
    *r->end_entity = e;
    r->end_entity = &e->next;
    return e;
}

static bool collect_entity(struct resolver *r, struct str ns, const struct decl_entity *d)
{
    struct str name = qualify(r, ns, d->name);

    if (decl_name_reserved(d->name))
        return decl_fail(r->s, d->at, "the name `%.*s` is reserved", STR_ARG(d->name));
    if (str_is(d->name, "Action"))
        return decl_fail(r->s, d->at, "an entity type must not be named Action: that is the type of actions");
    if (map_get(&r->entities, name))
        return decl_fail(r->s, d->at, "the entity type `%.*s` is declared twice", STR_ARG(name));
    return name.p && new_entity(r, name, ns, d);
}

static bool collect_common(struct resolver *r, struct str ns, const struct decl_common *d)
{
    struct common *c = ARENA_NEW(r->s->arena, struct common);
    struct str name = qualify(r, ns, d->name);

    if (!c || !name.p)
        return decl_memory(r->s);
    if (decl_name_reserved(d->name) || decl_common_reserved(d->name))
        return decl_fail(r->s, d->at, "the name `%.*s` is reserved", STR_ARG(d->name));
    if (map_get(&r->commons, name))
        return decl_fail(r->s, d->at, "the type `%.*s` is declared twice", STR_ARG(name));
    *c = (struct common){ .name = name, .ns = ns, .decl = d };
    map_put(&r->commons, name, c);
    *r->end_common = c;
    r->end_common = &c->next;
    return true;
}

static bool collect_action(struct resolver *r, struct str ns, const struct decl_action *d)
{
    struct action *a = ARENA_NEW(r->s->arena, struct action);
    struct schema_action *made = ARENA_NEW(&r->out->arena, struct schema_action);
    struct str type = qualify(r, ns, STR("Action")), id = arena_str(&r->out->arena, d->id), key;

    if (!a || !made || !type.p || !id.p)
        return decl_memory(r->s);
    key = action_key(r, type, id);
    if (!key.p)
        return false;
    if (map_get(&r->actions, key))
        return decl_fail(r->s, d->at, "the action `%.*s` is declared twice", STR_ARG(id));
    *a = (struct action){ .ns = ns, .decl = d, .made = made };
    made->uid = policy_uid(type, id);
    map_put(&r->actions, key, a);
    *r->end_action = a;
    r->end_action = &a->next;
    return true;
}

static bool collect(struct resolver *r)
{
    struct map seen = MAP_INIT;

    for (const struct decl_namespace *ns = r->s->first; ns && !r->s->err; ns = ns->next) {
        if (decl_name_reserved(ns->name))
            decl_fail(r->s, ns->at, "the name `%.*s` is reserved", STR_ARG(ns->name));
        if (ns->name.len && map_put(&seen, ns->name, &seen))
            decl_fail(r->s, ns->at, "the namespace `%.*s` is declared twice", STR_ARG(ns->name));
        for (const struct decl_entity *e = ns->entities; e && !r->s->err; e = e->next)
            collect_entity(r, ns->name, e);
        for (const struct decl_common *c = ns->commons; c && !r->s->err; c = c->next)
            collect_common(r, ns->name, c);
        for (const struct decl_action *a = ns->actions; a && !r->s->err; a = a->next)
            collect_action(r, ns->name, a);
    }
    map_release(&seen);
    return !r->s->err;
}

/* --- hiding ------------------------------------------------------------------------------------------------------- */

static void check_hiding(struct resolver *r, struct str name, size_t at)
{
    struct str base = basename_of(name);

    if (base.len < name.len && (map_get(&r->entities, base) || map_get(&r->commons, base)))
        decl_fail(r->s, at, "`%.*s` would hide `%.*s`, which is declared without a namespace", STR_ARG(name),
            STR_ARG(base));
}

static void check_action_hiding(struct resolver *r, const struct action *a)
{
    struct str key;

    if (!a->ns.len)
        return;
    key = action_key(r, STR("Action"), a->made->uid.id);
    if (key.p && map_get(&r->actions, key))
        decl_fail(r->s, a->decl->at, "the action `%.*s` would hide the one declared without a namespace",
            STR_ARG(a->made->uid.id));
}

static void warn(struct resolver *r, struct policy_report *report, size_t at, struct str name, const char *what)
{
    struct policy_finding f = { .kind = POLICY_SHADOWS, .warning = true, .file = r->s->file };

    decl_place(r->s->text, at, &f.line, &f.column);
    report_add(report, &f, "`%.*s` hides %s of that name", STR_ARG(name), what);
}

static void check_names(struct resolver *r, struct policy_report *report)
{
    for (const struct entity *e = r->first_entity; e; e = e->next) {
        check_hiding(r, e->name, e->decl->at);
        if (report && builtin(e->decl->name))
            warn(r, report, e->decl->at, e->decl->name, "the built-in type");
    }
    for (const struct common *c = r->first_common; c; c = c->next) {
        check_hiding(r, c->name, c->decl->at);
        if (report && builtin(c->decl->name))
            warn(r, report, c->decl->at, c->decl->name, "the built-in type");
        if (report && map_get(&r->entities, c->name))
            warn(r, report, c->decl->at, c->decl->name, "the entity type");
    }
    for (const struct action *a = r->first_action; a; a = a->next)
        check_action_hiding(r, a);
}

/* --- building ----------------------------------------------------------------------------------------------------- */

/* The entity types of a list, each once. */
static uint32_t resolve_refs(struct resolver *r, struct str ns, const struct decl_ref *refs,
    const struct schema_entity ***ret)
{
    const struct schema_entity **v;
    uint32_t n = 0;
    struct found f;

    for (const struct decl_ref *k = refs; k; k = k->next)
        n++;
    *ret = v = ARENA_ARRAY(&r->out->arena, const struct schema_entity *, n + 1);
    if (!v)
        return decl_memory(r->s), 0;
    n = 0;
    for (const struct decl_ref *k = refs; k; k = k->next) {
        bool known = false;

        if (!find(r, ns, k->name, k->at, AS_ENTITY, &f))
            return 0;
        if (f.entity->made->action)
            return decl_fail(r->s, k->at, "`%.*s` is the type of actions; expected another entity type",
                STR_ARG(k->name)), 0;
        for (uint32_t i = 0; i < n && !known; i++)
            known = v[i] == f.entity->made;
        if (!known)
            v[n++] = f.entity->made;
    }
    return n;
}

static void build_entity(struct resolver *r, struct entity *e)
{
    const struct schema_entity **parents;
    struct schema_entity *m = e->made;
    struct arena *a = &r->out->arena;

    m->shape = resolve_shape(r, e->ns, e->decl->shape);
    if (e->decl->tags)
        m->tags = resolve_type(r, e->ns, e->decl->tags);
    m->has_choices = e->decl->has_choices;
    m->n_choices = (uint32_t)e->decl->n_choices;
    if (m->n_choices) {
        struct str *ids = ARENA_ARRAY(a, struct str, m->n_choices);

        for (uint32_t i = 0; ids && i < m->n_choices; i++)
            ids[i] = arena_str(a, e->decl->choices[i]);
        m->choices = ids;
    }
    m->n_above = resolve_refs(r, e->ns, e->decl->parents, &parents);
    m->above = ARENA_ARRAY(a, uint32_t, m->n_above + 1);
    for (uint32_t i = 0; m->above && i < m->n_above; i++)
        m->above[i] = parents[i]->index;
}

static struct action *find_action(struct resolver *r, struct str ns, const struct decl_ref *ref)
{
    struct str type = ref->name.len ? ref->name : STR("Action"), key;
    struct action *a = NULL;

    if (ns.len && !memchr(type.p, ':', type.len)) {
        key = action_key(r, qualify(r, ns, type), ref->id);
        a = key.p ? map_get(&r->actions, key) : NULL;
    }
    if (!a && !r->s->err) {
        key = action_key(r, type, ref->id);
        a = key.p ? map_get(&r->actions, key) : NULL;
    }
    return a ? a : decl_fail(r->s, ref->at, "the action %.*s::\"%.*s\" is not declared", STR_ARG(type),
        STR_ARG(ref->id));
}

static void build_action(struct resolver *r, struct action *a)
{
    struct schema_action *m = a->made;
    uint32_t n = 0;

    m->type = ((struct entity *)map_get(&r->entities, m->uid.type))->made;
    m->context = resolve_shape(r, a->ns, a->decl->context);
    m->n_principals = resolve_refs(r, a->ns, a->decl->principals, &m->principals);
    m->n_resources = resolve_refs(r, a->ns, a->decl->resources, &m->resources);
    for (const struct decl_ref *k = a->decl->parents; k; k = k->next)
        n++;
    m->above = ARENA_ARRAY(&r->out->arena, uint32_t, n + 1);
    if (!m->above) {
        decl_memory(r->s);
        return;
    }
    for (const struct decl_ref *k = a->decl->parents; k; k = k->next) {
        struct action *up = find_action(r, a->ns, k);

        if (!up)
            return;
        m->above[m->n_above++] = up->made->index;
    }
}

/* The types of the actions become known, so that attributes can refer to actions. */
static void add_action_types(struct resolver *r)
{
    for (const struct action *a = r->first_action; a && !r->s->err; a = a->next)
        if (!map_get(&r->entities, a->made->uid.type)) {
            struct entity *e = new_entity(r, a->made->uid.type, a->ns, NULL);

            if (e)
                e->made->shape = resolve_shape(r, a->ns, NULL);
        }
}

static void number_all(struct resolver *r)
{
    struct policy_schema *out = r->out;
    struct arena *a = &out->arena;
    uint32_t n = 0;

    for (const struct entity *e = r->first_entity; e; e = e->next)
        out->n_entities++;
    for (const struct action *x = r->first_action; x; x = x->next)
        out->n_actions++;
    out->entities = ARENA_ARRAY(a, struct schema_entity *, out->n_entities + 1);
    out->actions = ARENA_ARRAY(a, struct schema_action *, out->n_actions + 1);
    if (!out->entities || !out->actions) {
        decl_memory(r->s);
        return;
    }
    for (const struct entity *e = r->first_entity; e; e = e->next) {
        e->made->index = n;
        out->entities[n++] = e->made;
    }
    n = 0;
    for (const struct action *x = r->first_action; x; x = x->next) {
        x->made->index = n;
        out->actions[n++] = x->made;
    }
}

static void build(struct resolver *r, struct policy_report *report)
{
    check_names(r, report);
    if (!r->s->err)
        add_action_types(r);
    if (!r->s->err)
        number_all(r);
    for (struct common *c = r->first_common; c && !r->s->err; c = c->next)
        resolve_common(r, c, c->decl->at);
    for (struct entity *e = r->first_entity; e && !r->s->err; e = e->next)
        if (e->decl)
            build_entity(r, e);
    for (struct action *a = r->first_action; a && !r->s->err; a = a->next)
        build_action(r, a);
    if (!r->s->err && arena_overflowed(&r->out->arena))
        decl_memory(r->s);
}

enum err schema_resolve(struct decl_schema *s, struct policy_schema *ret, struct policy_report *warnings)
{
    struct resolver r = { .s = s, .out = ret };
    uint32_t ring;

    r.end_entity = &r.first_entity;
    r.end_common = &r.first_common;
    r.end_action = &r.first_action;
    ret->types.arena = &ret->arena;
    if (collect(&r))
        build(&r, warnings);
    if (!s->err && !schema_close(ret, &ring)) {
        const struct action *a = r.first_action;

        for (; a && a->made->index != ring; a = a->next)
            ;
        if (a)
            decl_fail(s, a->decl->at, "the action `%.*s` would be in itself", STR_ARG(a->made->uid.id));
        else
            decl_memory(s);
    }
    map_release(&r.entities);
    map_release(&r.commons);
    map_release(&r.actions);
    return s->err;
}
