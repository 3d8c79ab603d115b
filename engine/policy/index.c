/*
 * index.c -- which policies a request can reach: a tree over the heads of policies
 *
 * A node splits its policies by one of the three dimensions (principal, action, resource), by key: the hash of the
 * entity that ==, `in` and `is T in e` name, or of the type of a plain `is`.  Policies that leave the dimension open
 * go to the child `any`.  A request walks, in each node, to `any` and to the children of its own keys: its uid, its
 * type, and all of its ancestors.  A node is a leaf when few policies are left or no split helps; decide.c compares
 * the heads there, so the tree only has to be complete, never exact: equal hashes or an == below an ancestor cost a
 * comparison, not a mistake.
 *
 * What is reached for certain: every policy whose head matches has, in each dimension, no constraint (-> any) or a key
 * among the request's.  A policy with a list of actions stands under each of them; `via` says which, so that it is
 * evaluated for the first of its actions that matches only.
 *
 * Does not index: policies without a head, and policies that are told apart only by their conditions.
 */
#include "policy/program.h"

#include <stdlib.h>

#include "base/check.h"

enum { LEAF_MAX = 8 };          /* comparing this many heads costs about as much as one more level */

struct item {
    uint64_t key;
    struct index_entry entry;
    bool open;                  /* no constraint in the dimension at hand */
};

struct builder {
    struct policy_set *set;
    struct scope_index *x;
    size_t cap_nodes, cap_entries, cap_kids;
    bool full;
};

/* Makes room in an array of the arena; the old one stays behind (it is garbage until the set is freed). */
static void *more(struct builder *b, void *old, size_t n, size_t *cap, size_t size)
{
    size_t want = *cap ? *cap * 2 : 64;
    void *p;

    if (n < *cap)
        return old;
    p = want > UINT32_MAX ? NULL : arena_array(&b->set->arena, want, size);
    if (!p) {
        b->full = true;
        return old;
    }
    if (n)
        memcpy(p, old, n * size);
    *cap = want;
    return p;
}

static uint32_t new_node(struct builder *b)
{
    struct scope_index *x = b->x;

    x->nodes = more(b, x->nodes, x->n_nodes, &b->cap_nodes, sizeof(*x->nodes));
    if (b->full)
        return 0;
    x->nodes[x->n_nodes] = (struct index_node){ .dim = DIM_LEAF, .any = INDEX_NONE };
    return x->n_nodes++;
}

static void add_entry(struct builder *b, struct index_entry e)
{
    struct scope_index *x = b->x;

    x->entries = more(b, x->entries, x->n_entries, &b->cap_entries, sizeof(*x->entries));
    if (!b->full)
        x->entries[x->n_entries++] = e;
}

static uint32_t add_kid(struct builder *b, struct index_kid k)
{
    struct scope_index *x = b->x;

    x->kids = more(b, x->kids, x->n_kids, &b->cap_kids, sizeof(*x->kids));
    if (b->full)
        return 0;
    x->kids[x->n_kids] = k;
    return x->n_kids++;
}

/* How many keys a policy has in a dimension (0: open), and the k-th. */
static uint32_t key_count(const struct program_policy *p, enum index_dim dim, uint32_t via)
{
    if (dim != DIM_ACTION)
        return (dim == DIM_PRINCIPAL ? p->principal.kind : p->resource.kind) != SCOPE_ANY;
    if (p->action.kind == SCOPE_ANY)
        return 0;
    return via == INDEX_NONE ? p->action.n : 1;
}

static uint64_t key_of(const struct program_policy *p, enum index_dim dim, uint32_t k)
{
    const struct scope *s = dim == DIM_PRINCIPAL ? &p->principal : &p->resource;

    if (dim == DIM_ACTION)
        return p->action.uids[k].hash;
    return s->hash;
}

static int by_key(const void *a, const void *b)
{
    const struct item *x = a, *y = b;

    if (x->open != y->open)
        return x->open ? -1 : 1;
    if (x->key != y->key)
        return x->key < y->key ? -1 : 1;
    if (x->entry.policy != y->entry.policy)
        return x->entry.policy < y->entry.policy ? -1 : 1;
    return x->entry.via < y->entry.via ? -1 : x->entry.via > y->entry.via;
}

/* The entries spread over the keys of a dimension, sorted, the open ones first. The caller frees. */
static struct item *spread(struct builder *b, const struct index_entry *entries, size_t n, enum index_dim dim,
    size_t *ret_n)
{
    const struct program_policy *all = b->set->policies;
    size_t total = 0, out = 0;
    struct item *items;

    for (size_t i = 0; i < n; i++) {
        const struct program_policy *p = &all[entries[i].policy];
        uint32_t keys = key_count(p, dim, entries[i].via);

        total += keys || (dim == DIM_ACTION && p->action.kind != SCOPE_ANY) ? keys : 1;
    }
    items = total > UINT32_MAX ? NULL : malloc((total ? total : 1) * sizeof(*items));
    if (!items) {
        b->full = true;
        return NULL;
    }
    for (size_t i = 0; i < n; i++) {
        const struct program_policy *p = &all[entries[i].policy];
        uint32_t keys = key_count(p, dim, entries[i].via);

        if (keys == 0 && (dim != DIM_ACTION || p->action.kind == SCOPE_ANY))
            items[out++] = (struct item){ 0, entries[i], true };
        /* `action in []` has none: it matches nothing and is dropped here */
        for (uint32_t k = 0; k < keys; k++) {
            struct index_entry e = entries[i];

            if (dim == DIM_ACTION && e.via == INDEX_NONE)
                e.via = k;
            items[out++] = (struct item){ key_of(p, dim, dim == DIM_ACTION ? e.via : 0), e, false };
        }
    }
    ASSERT(out == total);
    qsort(items, out, sizeof(*items), by_key);
    *ret_n = out;
    return items;
}

/* How many policies a request that asks like the policies do would still reach behind this split. */
static double cost(const struct item *items, size_t n)
{
    double open = 0, squares = 0, keyed = 0;

    for (size_t i = 0, j; i < n; i = j) {
        for (j = i; j < n && items[j].open == items[i].open && items[j].key == items[i].key; j++)
            ;
        if (items[i].open) {
            open = (double)(j - i);
        } else {
            keyed += (double)(j - i);
            squares += (double)(j - i) * (double)(j - i);
        }
    }
    return open + (keyed > 0 ? squares / keyed : 0);
}

static uint32_t build(struct builder *b, const struct index_entry *entries, size_t n, unsigned dims);

static void make_leaf(struct builder *b, uint32_t node, const struct index_entry *entries, size_t n)
{
    uint32_t first = b->x->n_entries;

    for (size_t i = 0; i < n; i++)
        add_entry(b, entries[i]);
    if (!b->full) {
        b->x->nodes[node].first = first;
        b->x->nodes[node].n = (uint32_t)n;
    }
}

/* The children of one node must stand in a row, so they are reserved before any of them is built. */
static void make_split(struct builder *b, uint32_t node, const struct item *items, size_t n, enum index_dim dim,
    unsigned dims)
{
    struct index_entry *part = malloc((n ? n : 1) * sizeof(*part));
    uint32_t first = b->x->n_kids, kid = 0, n_kids = 0, child;

    if (!part) {
        b->full = true;
        return;
    }
    for (size_t i = 0; i < n; i++)
        if (!items[i].open && (i == 0 || items[i - 1].open || items[i - 1].key != items[i].key)) {
            add_kid(b, (struct index_kid){ items[i].key, 0 });
            n_kids++;
        }
    for (size_t i = 0, j; i < n && !b->full; i = j) {
        for (j = i; j < n && items[j].open == items[i].open && items[j].key == items[i].key; j++)
            part[j - i] = items[j].entry;
        child = build(b, part, j - i, dims & ~(1u << dim));
        if (b->full)
            break;
        if (items[i].open) {
            b->x->nodes[node].any = child;
        } else {
            b->x->kids[first + kid++].node = child;
            b->x->nodes[node].bloom |= 1ull << (items[i].key & 63);
        }
    }
    free(part);
    if (b->full)
        return;
    ASSERT(kid == n_kids);
    b->x->nodes[node].dim = (uint8_t)dim;
    b->x->nodes[node].first = first;
    b->x->nodes[node].n = n_kids;
}

/* Recursion is at most three deep: each level takes one dimension out of `dims`. */
static uint32_t build(struct builder *b, const struct index_entry *entries, size_t n, unsigned dims)
{
    uint32_t node = new_node(b);
    struct item *best = NULL;
    size_t best_n = 0;
    double best_cost = (double)n * 0.75;        /* a split that spares less than a quarter is not worth its probes */
    enum index_dim best_dim = DIM_LEAF;

    for (unsigned d = 0; d < DIM_COUNT && n > LEAF_MAX && !b->full; d++) {
        size_t items_n;
        struct item *items;
        double c;

        if (!(dims >> d & 1))
            continue;
        items = spread(b, entries, n, (enum index_dim)d, &items_n);
        if (!items)
            break;
        c = cost(items, items_n);
        if (c < best_cost) {
            free(best);
            best = items;
            best_n = items_n;
            best_cost = c;
            best_dim = (enum index_dim)d;
        } else {
            free(items);
        }
    }
    if (b->full)
        ;
    else if (best)
        make_split(b, node, best, best_n, best_dim, dims);
    else
        make_leaf(b, node, entries, n);
    free(best);
    return node;
}

static void build_slots(struct builder *b)
{
    struct scope_index *x = b->x;
    uint32_t cap = 2;

    while (cap < 2ull * (x->n_kids + 1))
        cap *= 2;
    x->slots = arena_alloc(&b->set->arena, cap * sizeof(*x->slots));
    if (!x->slots) {
        b->full = true;
        return;
    }
    x->slot_mask = cap - 1;
    for (uint32_t i = 0; i < cap; i++)
        x->slots[i] = (struct index_slot){ .parent = INDEX_NONE };
    for (uint32_t n = 0; n < x->n_nodes; n++) {
        const struct index_node *node = &x->nodes[n];

        for (uint32_t k = 0; node->dim != DIM_LEAF && k < node->n; k++) {
            const struct index_kid *kid = &x->kids[node->first + k];
            uint32_t i = index_hash(n, kid->key) & x->slot_mask;

            while (x->slots[i].parent != INDEX_NONE)
                i = (i + 1) & x->slot_mask;
            x->slots[i] = (struct index_slot){ kid->key, n, kid->node };
        }
    }
}

enum err index_build(struct policy_set *set)
{
    struct builder b = { .set = set, .x = &set->index };
    struct index_entry *all = malloc((set->n_policies + 1u) * sizeof(*all));

    if (!all)
        return E_CALL_TOO_LARGE;
    for (uint32_t i = 0; i < set->n_policies; i++)
        all[i] = (struct index_entry){ i, INDEX_NONE };
    build(&b, all, set->n_policies, 1u << DIM_PRINCIPAL | 1u << DIM_ACTION | 1u << DIM_RESOURCE);
    free(all);
    if (!b.full)
        build_slots(&b);
    return b.full ? E_CALL_TOO_LARGE : OK;
}
