/*
 * schema.c -- the life of a schema, its closure, and looking things up in it
 */
#include "policy/schema.h"

#include <stdatomic.h>
#include <stdlib.h>

#include "base/check.h"
#include "policy/schema_decl.h"

#define SCHEMA_MAX  ((size_t)256 << 20)

bool policy_looks_like_json(struct str text)
{
    for (size_t i = 0; i < text.len; i++)
        if (text.p[i] != ' ' && text.p[i] != '\t' && text.p[i] != '\r' && text.p[i] != '\n')
            return text.p[i] == '{';
    return false;
}

enum err policy_schema_parse(struct str file, struct str text, enum policy_schema_format format,
    struct policy_schema **ret, struct policy_report *warnings, struct errinfo *info)
{
    struct policy_schema *schema = calloc(1, sizeof(*schema));
    struct arena written;
    struct decl_schema s = { .arena = &written, .file = file.len ? file : STR("schema"), .text = text, .info = info };

    ASSERT(schema != NULL);
    schema->magic = POLICY_SCHEMA_MAGIC;
    atomic_init(&schema->refs, 1);
    arena_init(&schema->arena, SCHEMA_MAX);
    arena_init(&written, SCHEMA_MAX);
    if (!str_utf8_valid(text))
        decl_fail(&s, 0, "the file is not valid UTF-8");
    else if (format == POLICY_SCHEMA_JSON || (format == POLICY_SCHEMA_AUTO && policy_looks_like_json(text)))
        schema_parse_json(&s);
    else
        schema_parse_text(&s);
    if (!s.err)
        schema_resolve(&s, schema, warnings);
    arena_release(&written);
    if (s.err)
        policy_schema_unref(schema);
    else
        *ret = schema;
    return s.err;
}

struct policy_schema *policy_schema_ref(struct policy_schema *s)
{
    MAGIC_CHECK(s, POLICY_SCHEMA_MAGIC);
    atomic_fetch_add_explicit(&s->refs, 1, memory_order_relaxed);
    return s;
}

struct policy_schema *policy_schema_unref(struct policy_schema *s)
{
    if (!s)
        return NULL;
    MAGIC_CHECK(s, POLICY_SCHEMA_MAGIC);
    if (atomic_fetch_sub_explicit(&s->refs, 1, memory_order_acq_rel) == 1) {
        s->magic = 0;
        arena_release(&s->arena);
        free(s);
    }
    return NULL;
}

size_t policy_schema_entity_types(const struct policy_schema *s)
{
    size_t n = 0;

    for (uint32_t i = 0; i < s->n_entities; i++)
        n += !s->entities[i]->action;
    return n;
}

size_t policy_schema_actions(const struct policy_schema *s)
{
    return s->n_actions;
}

/* --- looking up --------------------------------------------------------------------------------------------------- */

const struct schema_entity *schema_entity(const struct policy_schema *s, struct str name)
{
    struct policy_uid uid = policy_uid(name, STR(""));

    for (uint32_t i = (uint32_t)uid.hash;; i++) {
        uint32_t k = s->entity_slots[i & s->entity_mask];

        if (!k)
            return NULL;
        if (policy_uid_eq(&s->entities[k - 1]->name, &uid))
            return s->entities[k - 1];
    }
}

const struct schema_action *schema_action(const struct policy_schema *s, const struct policy_uid *uid)
{
    for (uint32_t i = (uint32_t)uid->hash;; i++) {
        uint32_t k = s->action_slots[i & s->action_mask];

        if (!k)
            return NULL;
        if (policy_uid_eq(&s->actions[k - 1]->uid, uid))
            return s->actions[k - 1];
    }
}

bool schema_above(const uint32_t *above, uint32_t n, uint32_t index)
{
    uint32_t lo = 0, hi = n;

    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;

        if (above[mid] == index)
            return true;
        if (above[mid] < index)
            lo = mid + 1;
        else
            hi = mid;
    }
    return false;
}

bool schema_id_valid(const struct schema_entity *e, struct str id)
{
    for (uint32_t i = 0; i < e->n_choices; i++)
        if (str_eq(e->choices[i], id))
            return true;
    return !e->has_choices;
}

/* --- closing ------------------------------------------------------------------------------------------------------ */

struct closing {
    uint32_t **above, *n_above;     /* before: what each is in directly */
    uint32_t n;
    uint32_t *stamp, *stack;        /* of n + 1 each; stamp: found for node i if it is i + 1 */
    struct buf found;
};

static void sort_indexes(uint32_t *v, size_t n)
{
    for (size_t gap = n / 2; gap > 0; gap /= 2)
        for (size_t i = gap; i < n; i++) {
            uint32_t t = v[i];
            size_t k = i;

            for (; k >= gap && v[k - gap] > t; k -= gap)
                v[k] = v[k - gap];
            v[k] = t;
        }
}

/* Everything above node i, itself too if it is in a ring, to c->found. */
static void find_above(struct closing *c, uint32_t i)
{
    uint32_t depth = 0;

    buf_clear(&c->found);
    c->stack[depth++] = i;
    while (depth > 0) {
        uint32_t at = c->stack[--depth];

        for (uint32_t k = 0; k < c->n_above[at]; k++) {
            uint32_t up = c->above[at][k];

            if (c->stamp[up] == i + 1)
                continue;
            c->stamp[up] = i + 1;
            buf_add(&c->found, &up, sizeof(up));
            c->stack[depth++] = up;
        }
    }
}

/* Fills closed[] and n_closed[]; false: no memory. */
static bool close_all(struct closing *c, struct arena *a, uint32_t **closed, uint32_t *n_closed)
{
    for (uint32_t i = 0; i < c->n; i++) {
        find_above(c, i);
        n_closed[i] = (uint32_t)(c->found.len / sizeof(uint32_t));
        closed[i] = ARENA_ARRAY(a, uint32_t, n_closed[i] + 1);
        if (!closed[i] || c->found.overflow)
            return false;
        if (n_closed[i])
            memcpy(closed[i], c->found.p, c->found.len);
        sort_indexes(closed[i], n_closed[i]);
    }
    return true;
}

/* Replaces the n lists by their closures; scratch is an arena, the result lives in `a`. */
static bool close_lists(struct arena *a, struct arena *scratch, uint32_t **above, uint32_t *n_above, uint32_t n)
{
    struct closing c = { .above = above, .n_above = n_above, .n = n, .found = BUF_INIT(SCHEMA_MAX) };
    uint32_t **closed = ARENA_ARRAY(scratch, uint32_t *, n + 1), *n_closed = ARENA_ARRAY(scratch, uint32_t, n + 1);
    bool ok;

    c.stamp = ARENA_ARRAY(scratch, uint32_t, n + 1);
    c.stack = ARENA_ARRAY(scratch, uint32_t, n + 1);
    ok = closed && n_closed && c.stamp && c.stack && close_all(&c, a, closed, n_closed);
    for (uint32_t i = 0; ok && i < n; i++) {
        above[i] = closed[i];
        n_above[i] = n_closed[i];
    }
    buf_release(&c.found);
    return ok;
}

static uint32_t *new_slots(struct arena *a, uint32_t n, uint32_t *ret_mask)
{
    uint32_t cap = 4;

    while (cap < 2 * n && cap < 1u << 30)
        cap *= 2;
    *ret_mask = cap - 1;
    return ARENA_ARRAY(a, uint32_t, cap);
}

static void put_slot(uint32_t *slots, uint32_t mask, uint64_t hash, uint32_t index)
{
    uint32_t i = (uint32_t)hash;

    while (slots[i & mask])
        i++;
    slots[i & mask] = index + 1;
}

static bool fill_slots(struct policy_schema *s)
{
    s->entity_slots = new_slots(&s->arena, s->n_entities, &s->entity_mask);
    s->action_slots = new_slots(&s->arena, s->n_actions, &s->action_mask);
    if (!s->entity_slots || !s->action_slots)
        return false;
    for (uint32_t i = 0; i < s->n_entities; i++)
        put_slot(s->entity_slots, s->entity_mask, s->entities[i]->name.hash, i);
    for (uint32_t i = 0; i < s->n_actions; i++)
        put_slot(s->action_slots, s->action_mask, s->actions[i]->uid.hash, i);
    return true;
}

bool schema_close(struct policy_schema *s, uint32_t *ret_ring)
{
    uint32_t most = s->n_entities > s->n_actions ? s->n_entities : s->n_actions, **above, *n_above;
    struct arena scratch;
    bool ok;

    *ret_ring = UINT32_MAX;
    arena_init(&scratch, SCHEMA_MAX);
    above = ARENA_ARRAY(&scratch, uint32_t *, most + 1);
    n_above = ARENA_ARRAY(&scratch, uint32_t, most + 1);
    ok = above && n_above && fill_slots(s);
    for (uint32_t i = 0; ok && i < s->n_entities; i++) {
        above[i] = s->entities[i]->above;
        n_above[i] = s->entities[i]->n_above;
    }
    ok = ok && close_lists(&s->arena, &scratch, above, n_above, s->n_entities);
    for (uint32_t i = 0; ok && i < s->n_entities; i++) {
        s->entities[i]->above = above[i];
        s->entities[i]->n_above = n_above[i];
    }
    for (uint32_t i = 0; ok && i < s->n_actions; i++) {
        above[i] = s->actions[i]->above;
        n_above[i] = s->actions[i]->n_above;
    }
    ok = ok && close_lists(&s->arena, &scratch, above, n_above, s->n_actions);
    for (uint32_t i = 0; ok && i < s->n_actions; i++) {
        s->actions[i]->above = above[i];
        s->actions[i]->n_above = n_above[i];
        if (schema_above(above[i], n_above[i], i)) {
            *ret_ring = i;
            ok = false;
        }
    }
    arena_release(&scratch);
    return ok;
}
