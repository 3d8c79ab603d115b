/*
 * classes.c -- the distinct principals that heads ask for, by what a request has: uid, type, ancestors
 */
#include "policy/classes.h"

#include <stdlib.h>

#include "base/check.h"
#include "base/map.h"
#include "policy/program.h"
#include "policy/scope.h"

/* On the stack of a task; who matches more is in a class of its own. */
enum { MATCHES_MAX = 128 };

/* One principal that heads ask for, of one policy or of many. */
struct asked_for {
    struct scope_key by;        /* first: scope.h */
    bool personal;              /* a policy with this head looks at who asks */
    const struct ast_scope *scope;
};

struct policy_classes {
    const char *const *impersonal;
    struct asked_for *all;      /* in the order of scope_key_cmp() */
    size_t n;
};

/* --- what conditions look at -------------------------------------------------------------------------------------- */

static bool impersonal(const struct policy_classes *c, struct str attr)
{
    for (const char *const *name = c->impersonal; *name; name++)
        if (str_is(attr, *name))
            return true;
    return false;
}

static bool is_context(const struct ast *e)
{
    return e->op == AST_VAR && e->u.number == VAR_CONTEXT;
}

/*
 * Whether the expression could come out otherwise for another principal. The resource is unknown, the action is the
 * same for all; a literal entity may be the principal, or what it is in.
 */
static bool personal(const struct policy_classes *c, const struct ast *e)
{
    if (e->op == AST_VAR)
        return e->u.number == VAR_PRINCIPAL || e->u.number == VAR_CONTEXT;
    if (e->op == AST_ENTITY)
        return !policy_type_is_action(e->u.uid.type);
    if ((e->op == AST_ATTR && is_context(e->first) && impersonal(c, e->text))
        || (e->op == AST_HAS && is_context(e->first) && impersonal(c, e->u.pieces.p[0])))
        return false;
    for (const struct ast *k = e->first; k; k = k->next)
        if (personal(c, k))
            return true;
    return false;
}

static bool policy_personal(const struct policy_classes *c, const struct ast_policy *p)
{
    for (const struct ast_condition *k = p->conditions; k; k = k->next)
        if (personal(c, k->expr))
            return true;
    return false;
}

/* --- building ----------------------------------------------------------------------------------------------------- */

/* The entry of a head's principal, made if it is the first of its kind. NULL: the arena is full. */
static struct asked_for *entry_of(struct policy_classes *c, struct map *known, struct arena *a,
    const struct ast_scope *s)
{
    struct buf text = BUF_INIT(1 << 20);
    struct asked_for *found;
    struct str name;

    ast_scope_write(&text, "principal", s);
    found = map_get(known, buf_str(&text));
    name = found ? STR_NULL : arena_str(a, buf_str(&text));
    buf_release(&text);
    if (!found && name.p) {
        found = &c->all[c->n];
        *found = (struct asked_for){ .by = { scope_key_of(s), (uint32_t)c->n }, .scope = s };
        c->n++;
        map_put(known, name, found);
    }
    return found;
}

const struct policy_classes *policy_classes_new(const struct policy_set *set, const char *const *impersonal_names,
    struct arena *a)
{
    struct policy_classes *c = ARENA_NEW(a, struct policy_classes);
    struct map known = MAP_INIT;
    bool full;

    if (!c)
        return NULL;
    c->impersonal = impersonal_names;
    c->all = ARENA_ARRAY(a, struct asked_for, set->n_policies + 1);
    full = !c->all;
    for (uint32_t i = 0; i < set->n_policies && !full; i++) {
        struct asked_for *f = entry_of(c, &known, a, &set->names[i].ast->principal);

        if (f)
            f->personal |= policy_personal(c, set->names[i].ast);
        full = !f;
    }
    map_release(&known);
    if (full)
        return NULL;
    qsort(c->all, c->n, sizeof(*c->all), scope_key_cmp);
    return c;
}

/* --- asking ------------------------------------------------------------------------------------------------------- */

struct matching {
    const struct policy_classes *classes;
    const struct policy_uid *principal;
    const struct policy_entity *entity;
    uint32_t ids[MATCHES_MAX];
    size_t n;
};

/* Those with one key. False: one of them is personal, or there are too many. */
static bool add_matches(struct matching *m, uint64_t key)
{
    const struct policy_classes *c = m->classes;

    for (size_t i = scope_key_first(c->all, c->n, sizeof(*c->all), key); i < c->n && c->all[i].by.key == key; i++) {
        size_t at = m->n;

        if (!scope_matches(c->all[i].scope, m->principal, m->entity))
            continue;
        if (c->all[i].personal || m->n == MATCHES_MAX)
            return false;
        for (; at > 0 && m->ids[at - 1] > c->all[i].by.number; at--)
            m->ids[at] = m->ids[at - 1];
        m->ids[at] = c->all[i].by.number;
        m->n++;
    }
    return true;
}

bool policy_class_of(const struct policy_classes *classes, const struct policy_layer *entities,
    const struct policy_uid *principal, struct buf *key)
{
    struct matching m = { .classes = classes, .principal = principal,
                          .entity = policy_layer_find(entities, principal) };
    bool shared = add_matches(&m, 0) && add_matches(&m, principal->hash) && add_matches(&m, principal->type_hash);
    for (uint32_t i = 0; shared && m.entity && i < m.entity->n_ancestors; i++)
        shared = add_matches(&m, m.entity->ancestors[i].hash);
    if (!shared)
        return false;
    buf_add(key, &m.n, sizeof(m.n));
    buf_add(key, m.ids, m.n * sizeof(m.ids[0]));
    return !key->overflow;
}
