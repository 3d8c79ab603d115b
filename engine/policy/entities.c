/*
 * entities.c -- stores of entities, their closure, and the layers of requests
 *
 * A store is a hash table of uids, at most half full, whose entities, attributes and names are copies in one arena.
 * Freezing closes membership bottom-up with a stack of its own, since hierarchies may be deeper than a thread's stack.
 */
#include "policy/entities_json.h"

#include <stdatomic.h>
#include <stdlib.h>

#include "base/check.h"

enum { ENTITIES_MAGIC = 0x504f4c45 };       /* "POLE" */

enum closing { OPEN, CLOSING, CLOSED };

struct node {
    struct policy_entity entity;            /* first: a node is found by its entity's address */
    struct policy_uid *parents;
    size_t n_parents, next_parent;
    enum closing state;
};

struct policy_entities {
    uint32_t magic;
    _Atomic uint32_t refs;
    bool frozen;
    struct arena arena;
    struct node **slots;
    size_t cap, n;                          /* cap is 0 or a power of two */
};

struct policy_entities *policy_entities_new(void)
{
    struct policy_entities *s = calloc(1, sizeof(*s));

    ASSERT(s != NULL);
    s->magic = ENTITIES_MAGIC;
    atomic_init(&s->refs, 1);
    arena_init(&s->arena, STORE_MAX);
    return s;
}

struct policy_entities *policy_entities_ref(struct policy_entities *s)
{
    MAGIC_CHECK(s, ENTITIES_MAGIC);
    atomic_fetch_add_explicit(&s->refs, 1, memory_order_relaxed);
    return s;
}

struct policy_entities *policy_entities_unref(struct policy_entities *s)
{
    if (!s)
        return NULL;
    MAGIC_CHECK(s, ENTITIES_MAGIC);
    if (atomic_fetch_sub_explicit(&s->refs, 1, memory_order_acq_rel) == 1) {
        s->magic = 0;
        arena_release(&s->arena);
        free(s->slots);
        free(s);
    }
    return NULL;
}

size_t policy_entities_count(const struct policy_entities *s)
{
    return s->n;
}

void policy_entities_each(const struct policy_entities *s, void (*fn)(const struct policy_entity *e, void *arg),
    void *arg)
{
    for (size_t i = 0; i < s->cap; i++)
        if (s->slots[i])
            fn(&s->slots[i]->entity, arg);
}

/* The slot of a uid: of its node, or the empty one where it would stand. cap must not be 0. */
static struct node **slot_of(struct node **slots, size_t cap, const struct policy_uid *uid)
{
    for (size_t i = uid->hash;; i++) {
        struct node **slot = &slots[i & (cap - 1)];

        if (!*slot || policy_uid_eq(&(*slot)->entity.uid, uid))
            return slot;
    }
}

static struct node *find(const struct policy_entities *s, const struct policy_uid *uid)
{
    return s->cap ? *slot_of(s->slots, s->cap, uid) : NULL;
}

const struct policy_entity *policy_entities_find(const struct policy_entities *s, const struct policy_uid *uid)
{
    struct node *n;

    ASSERT(s->frozen);
    n = find(s, uid);
    return n ? &n->entity : NULL;
}

const struct policy_uid *policy_entities_parents(const struct policy_entity *e, size_t *ret_n)
{
    const struct node *n = (const struct node *)e;

    ASSERT(n->state == CLOSED);
    *ret_n = n->n_parents;
    return n->parents;
}

/* --- adding ------------------------------------------------------------------------------------------------------- */

static struct policy_uid copy_uid(struct arena *a, const struct policy_uid *uid)
{
    struct policy_uid out = *uid;

    out.type = arena_str(a, uid->type);
    out.id = arena_str(a, uid->id);
    return out;
}

static struct policy_value copy_value(struct arena *a, struct policy_value v);

static struct policy_value copy_compound(struct arena *a, struct policy_value v)
{
    struct policy_value *elems;
    struct policy_attr *attrs;

    if (v.kind == POLICY_SET) {
        elems = ARENA_ARRAY(a, struct policy_value, v.len);
        for (uint32_t i = 0; elems && i < v.len; i++)
            elems[i] = copy_value(a, v.u.elems[i]);
        v.u.elems = elems;
    } else {
        attrs = ARENA_ARRAY(a, struct policy_attr, v.len);
        for (uint32_t i = 0; attrs && i < v.len; i++)
            attrs[i] = (struct policy_attr){ arena_str(a, v.u.attrs[i].key), copy_value(a, v.u.attrs[i].value) };
        v.u.attrs = attrs;
    }
    return v;
}

/* A copy that refers to nothing outside the arena; canonical like the original. The arena's overflow tells failure. */
static struct policy_value copy_value(struct arena *a, struct policy_value v)
{
    struct policy_uid *uid;
    struct policy_ip *ip;

    switch ((enum policy_kind)v.kind) {
    case POLICY_STRING:
    case POLICY_OPAQUE:
        v.u.s = arena_str(a, policy_value_str(v)).p;
        break;
    case POLICY_ENTITY:
        uid = ARENA_NEW(a, struct policy_uid);
        if (uid)
            *uid = copy_uid(a, v.u.uid);
        v.u.uid = uid;
        break;
    case POLICY_IP:
        ip = ARENA_NEW(a, struct policy_ip);
        if (ip)
            *ip = *v.u.ip;
        v.u.ip = ip;
        break;
    case POLICY_SET:
    case POLICY_RECORD:
        return copy_compound(a, v);
    default:
        break;
    }
    return v;
}

static enum err too_large(struct errinfo *info)
{
    return err_set(info, E_CALL_TOO_LARGE, "the entities need more memory than allowed");
}

enum err entities_error(struct errinfo *info, enum err e, const char *what, const struct policy_uid *uid)
{
    struct buf b = BUF_INIT(300);

    policy_uid_write(&b, uid);
    err_set(info, e, "%s: %.*s", what, STR_ARG(buf_str(&b)));
    buf_release(&b);
    return e;
}

static bool same_record(const struct policy_attr *attrs, uint32_t n, const struct policy_value *v)
{
    struct policy_value a = { .kind = POLICY_RECORD, .len = n, .u.attrs = attrs };

    return v->kind == POLICY_RECORD ? policy_value_eq(&a, v) : n == 0;
}

static bool same_parents(const struct node *n, const struct policy_uid *parents, size_t n_parents)
{
    if (n->n_parents != n_parents)
        return false;
    for (size_t i = 0; i < n_parents; i++) {
        bool found = false;

        for (size_t k = 0; k < n_parents && !found; k++)
            found = policy_uid_eq(&n->parents[k], &parents[i]);
        if (!found)
            return false;
    }
    return true;
}

static void make_room(struct policy_entities *s)
{
    size_t cap = s->cap ? 2 * s->cap : 64;
    struct node **slots;

    if (2 * (s->n + 1) <= s->cap)
        return;
    slots = calloc(cap, sizeof(struct node *));
    ASSERT(slots != NULL);
    for (size_t i = 0; i < s->cap; i++)
        if (s->slots[i])
            *slot_of(slots, cap, &s->slots[i]->entity.uid) = s->slots[i];
    free(s->slots);
    s->slots = slots;
    s->cap = cap;
}

enum err policy_entities_add(struct policy_entities *s, const struct policy_uid *uid, struct policy_value attrs,
    struct policy_value tags, const struct policy_uid *parents, size_t n_parents, struct errinfo *info)
{
    struct node *n = find(s, uid);

    MAGIC_CHECK(s, ENTITIES_MAGIC);
    ASSERT(!s->frozen);
    ASSERT(attrs.kind == POLICY_RECORD || attrs.kind == POLICY_NONE);
    ASSERT(tags.kind == POLICY_RECORD || tags.kind == POLICY_NONE);
    if (n && same_record(n->entity.attrs, n->entity.n_attrs, &attrs)
        && same_record(n->entity.tags, n->entity.n_tags, &tags) && same_parents(n, parents, n_parents))
        return OK;
    if (n)
        return entities_error(info, E_CONFIG, "this entity is given twice, differently", uid);
    for (size_t i = 0; i < n_parents; i++)
        if (policy_type_is_action(uid->type) && !policy_type_is_action(parents[i].type))
            return entities_error(info, E_CONFIG, "an action is in actions only; this one has another parent", uid);
    n = ARENA_NEW(&s->arena, struct node);
    if (!n)
        return too_large(info);
    n->entity.uid = copy_uid(&s->arena, uid);
    if (attrs.kind == POLICY_RECORD) {
        n->entity.attrs = copy_value(&s->arena, attrs).u.attrs;
        n->entity.n_attrs = attrs.len;
    }
    if (tags.kind == POLICY_RECORD) {
        n->entity.tags = copy_value(&s->arena, tags).u.attrs;
        n->entity.n_tags = tags.len;
    }
    n->parents = ARENA_ARRAY(&s->arena, struct policy_uid, n_parents);
    for (size_t i = 0; n->parents && i < n_parents; i++)
        n->parents[i] = copy_uid(&s->arena, &parents[i]);
    n->n_parents = n_parents;
    if (arena_overflowed(&s->arena))
        return too_large(info);
    make_room(s);
    *slot_of(s->slots, s->cap, &n->entity.uid) = n;
    s->n++;
    return OK;
}

/* --- closing ------------------------------------------------------------------------------------------------------ */

/* By hash, then by uid, so that duplicates become neighbours. */
static int ancestor_cmp(const struct policy_ancestor *a, const struct policy_ancestor *b)
{
    int c;

    if (a->hash != b->hash)
        return a->hash < b->hash ? -1 : 1;
    if (a->uid == b->uid)
        return 0;
    c = str_cmp(a->uid->id, b->uid->id);
    return c ? c : str_cmp(a->uid->type, b->uid->type);
}

/* Sorts and takes out duplicates; answers how many are left. */
static size_t tidy(struct policy_ancestor *v, size_t n)
{
    size_t kept = 0;

    if (n <= 1)
        return n;
    for (size_t gap = n / 2; gap > 0; gap /= 2)
        for (size_t i = gap; i < n; i++) {
            struct policy_ancestor t = v[i];
            size_t j = i;

            for (; j >= gap && ancestor_cmp(&v[j - gap], &t) > 0; j -= gap)
                v[j] = v[j - gap];
            v[j] = t;
        }
    for (size_t i = 0; i < n; i++)
        if (kept == 0 || ancestor_cmp(&v[kept - 1], &v[i]) != 0)
            v[kept++] = v[i];
    return kept;
}

/* All parents of n are closed: its ancestors are they and theirs. */
static bool close_node(struct policy_entities *s, struct node *n)
{
    size_t total = 0, at = 0;
    struct policy_ancestor *v;

    for (size_t i = 0; i < n->n_parents; i++) {
        struct node *up = find(s, &n->parents[i]);

        total += 1 + (up ? up->entity.n_ancestors : 0);
    }
    v = total > UINT32_MAX ? NULL : ARENA_ARRAY(&s->arena, struct policy_ancestor, total);
    if (!v && n->n_parents)
        return false;
    for (size_t i = 0; i < n->n_parents; i++) {
        struct node *up = find(s, &n->parents[i]);

        v[at++] = (struct policy_ancestor){ n->parents[i].hash, &n->parents[i] };
        if (up && up->entity.n_ancestors) {
            memcpy(v + at, up->entity.ancestors, up->entity.n_ancestors * sizeof(*v));
            at += up->entity.n_ancestors;
        }
    }
    ASSERT(at == total);
    n->entity.ancestors = v;
    n->entity.n_ancestors = (uint32_t)tidy(v, total);
    n->state = CLOSED;
    return true;
}

/* Closes n and all above it. `stack` has room for every node. */
static enum err close_from(struct policy_entities *s, struct node *n, struct node **stack, struct errinfo *info)
{
    size_t depth = 0;

    stack[depth++] = n;
    n->state = CLOSING;
    while (depth > 0) {
        struct node *up = NULL;

        n = stack[depth - 1];
        while (n->next_parent < n->n_parents) {
            up = find(s, &n->parents[n->next_parent++]);
            if (up && up->state == CLOSING)
                return entities_error(info, E_CONFIG, "this entity would be above itself", &up->entity.uid);
            if (up && up->state == OPEN)
                break;
            up = NULL;
        }
        if (up) {
            up->state = CLOSING;
            stack[depth++] = up;
            continue;
        }
        if (!close_node(s, n))
            return too_large(info);
        depth--;
    }
    return OK;
}

enum err policy_entities_freeze(struct policy_entities *s, struct errinfo *info)
{
    struct node **stack;
    enum err e = OK;

    MAGIC_CHECK(s, ENTITIES_MAGIC);
    ASSERT(!s->frozen);
    stack = calloc(s->n + 1, sizeof(struct node *));
    ASSERT(stack != NULL);
    for (size_t i = 0; i < s->cap && !e; i++)
        if (s->slots[i] && s->slots[i]->state == OPEN)
            e = close_from(s, s->slots[i], stack, info);
    free(stack);
    s->frozen = e == OK;
    return e;
}

/* --- layers ------------------------------------------------------------------------------------------------------- */

/* The entity's place in the layer, with its uid and ancestors set; NULL: there is one already, or memory is out. */
static struct policy_entity *layer_put(struct policy_layer *l, struct arena *a, const struct policy_uid *uid,
    const struct policy_entity *known, const struct policy_above *above, size_t n_above)
{
    size_t total = known ? known->n_ancestors : 0, at = 0;
    struct policy_ancestor *v;
    struct policy_entity *out;

    if (l->n == POLICY_LAYER_MAX || policy_layer_own(l, uid))
        return NULL;
    for (size_t i = 0; i < n_above; i++)
        total += 1 + (above[i].known ? above[i].known->n_ancestors : 0);
    out = arena_alloc(a, sizeof(*out));
    v = total == 0 || total > UINT32_MAX ? NULL : arena_alloc(a, total * sizeof(*v));
    if (!out || (!v && total))
        return NULL;
    for (size_t i = 0; i < n_above; i++) {
        const struct policy_entity *up = above[i].known;

        v[at++] = (struct policy_ancestor){ above[i].uid->hash, above[i].uid };
        if (up && up->n_ancestors) {
            memcpy(v + at, up->ancestors, up->n_ancestors * sizeof(*v));
            at += up->n_ancestors;
        }
    }
    if (known && known->n_ancestors)
        memcpy(v + at, known->ancestors, known->n_ancestors * sizeof(*v));
    *out = (struct policy_entity){ .uid = *uid, .ancestors = v, .n_ancestors = (uint32_t)tidy(v, total) };
    l->hashes[l->n] = uid->hash;
    l->items[l->n++] = out;
    return out;
}

enum err policy_layer_add(struct policy_layer *l, struct arena *a, struct policy_uid uid, struct policy_value attrs,
    const struct policy_uid *const *parents, size_t n_parents)
{
    struct policy_above *above = ARENA_ARRAY(a, struct policy_above, n_parents);
    struct policy_entity *out;

    ASSERT(attrs.kind == POLICY_RECORD || attrs.kind == POLICY_NONE);
    if (!above && n_parents)
        return E_CALL_TOO_LARGE;
    for (size_t i = 0; i < n_parents; i++)
        above[i] = (struct policy_above){ parents[i], policy_layer_find(l, parents[i]) };
    out = layer_put(l, a, &uid, NULL, above, n_parents);
    if (out && attrs.kind == POLICY_RECORD) {
        out->attrs = attrs.u.attrs;
        out->n_attrs = attrs.len;
    }
    return out ? OK : E_CALL_TOO_LARGE;
}

enum err policy_layer_merge(struct policy_layer *l, struct arena *a, const struct policy_uid *uid,
    const struct policy_entity *known, const struct policy_above *above, size_t n_above)
{
    struct policy_entity *out = layer_put(l, a, uid, known, above, n_above);

    if (out && known) {
        out->attrs = known->attrs;
        out->n_attrs = known->n_attrs;
        out->tags = known->tags;
        out->n_tags = known->n_tags;
    }
    return out ? OK : E_CALL_TOO_LARGE;
}
