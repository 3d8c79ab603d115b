/*
 * index.c -- which policies a request can reach: a tree over the heads of policies, and what they begin with
 *
 * A node splits its policies by one of the three dimensions (principal, action, resource), by key: the hash of the
 * entity that ==, `in` and `is T in e` name, or of the type of a plain `is`.  Policies that leave the dimension open
 * go to the child `any`.  A request walks, in each node, to `any` and to the children of its own keys: its uid, its
 * type, and all of its ancestors.  A node is a leaf when few policies are left or no split helps; decide.c compares
 * the heads there, so the tree only has to be complete, never exact: equal hashes or an == below an ancestor cost a
 * comparison, not a mistake.
 *
 * With thousands of policies what a decision costs is cache misses, and branches that go another way for each caller.
 * So most probes end at a byte of a small table of tags; an entry of a leaf says by a bit per dimension whether its
 * head can match at all; and decide.c gathers what is left, fetches it side by side, and branches on none of that.
 *
 * What is reached for certain: every policy whose head matches has, in each dimension, no constraint (-> any) or a key
 * among the request's.  A policy with a list of actions stands under each of them; `via` says which, so that it is
 * evaluated for the first of its actions that matches only.
 *
 * What a policy's first conjuncts ask counts as if its head said it (narrow.c), and the attributes that they compare
 * with literals are dimensions of their own, eight at most: a request walks to the child of the value it has there; to
 * all children where that is not known, or where the policies have to be run to see them fail.
 *
 * Does not index: policies without a head whose conditions begin with anything else (an `unless`, an order, a set, an
 * `||`), paths of more than four steps, and the ninth attribute: these are run for every request.
 */
#include "policy/program.h"

#include <stdlib.h>

#include "base/check.h"
#include "base/map.h"

enum {
    LEAF_MAX = 8,               /* comparing this many heads costs about as much as one more level */
    PATHS_SEEN_MAX = 64,        /* of so many different paths the most used ones become dimensions */
    NO_PATH = 255,
};

struct item {
    uint64_t key;
    struct index_entry entry;
    bool open;                  /* no constraint in the dimension at hand */
};

/* What a policy's condition adds to its head; see narrow.c. */
struct narrowed {
    uint64_t head[DIM_COUNT], value;
    uint8_t heads;              /* a bit per dimension: head[] stands for what the head says */
    uint8_t path;               /* which of the index's it compares with `value`; or NO_PATH */
};

struct builder {
    struct policy_set *set;
    struct scope_index *x;
    struct narrowed *narrowed;  /* of each policy */
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
    x->nodes[x->n_nodes] = (struct index_node){ .any = INDEX_NONE };
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

/* Whether it stands under each of the actions of its head, and via says which. */
static bool by_actions(const struct builder *b, uint32_t policy, unsigned dim)
{
    return dim == DIM_ACTION && !(b->narrowed[policy].heads >> dim & 1);
}

static bool is_open(const struct builder *b, uint32_t policy, unsigned dim)
{
    if (dim >= DIM_COUNT)
        return b->narrowed[policy].path != dim - DIM_COUNT;
    return b->set->policies[policy].kind[dim] == SCOPE_ANY && !(b->narrowed[policy].heads >> dim & 1);
}

/* How many keys an entry has in a dimension (0: it is open, or no action will do), and the k-th. */
static uint32_t key_count(const struct builder *b, const struct index_entry *e, unsigned dim)
{
    if (is_open(b, e->policy, dim))
        return 0;
    return by_actions(b, e->policy, dim) && e->via == INDEX_NONE ? b->set->policies[e->policy].n_actions : 1;
}

static uint64_t key_of(const struct builder *b, const struct index_entry *e, unsigned dim, uint32_t k)
{
    const struct program_policy *p = &b->set->policies[e->policy];
    const struct narrowed *n = &b->narrowed[e->policy];

    if (dim >= DIM_COUNT)
        return n->value;
    if (n->heads >> dim & 1)
        return n->head[dim];
    if (dim == DIM_ACTION)
        return p->actions[e->via == INDEX_NONE ? k : e->via].hash;
    return dim == DIM_PRINCIPAL ? p->principal.hash : p->resource.hash;
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
static struct item *spread(struct builder *b, const struct index_entry *entries, size_t n, unsigned dim,
    size_t *ret_n)
{
    size_t total = 0, out = 0;
    struct item *items;

    for (size_t i = 0; i < n; i++)
        total += is_open(b, entries[i].policy, dim) ? 1 : key_count(b, &entries[i], dim);
    items = total > UINT32_MAX ? NULL : malloc((total ? total : 1) * sizeof(*items));
    if (!items) {
        b->full = true;
        return NULL;
    }
    for (size_t i = 0; i < n; i++) {
        uint32_t keys = key_count(b, &entries[i], dim);

        if (is_open(b, entries[i].policy, dim))
            items[out++] = (struct item){ 0, entries[i], true };
        /* `action in []` has none: it matches nothing and is dropped here */
        for (uint32_t k = 0; k < keys; k++) {
            struct index_entry e = entries[i];

            if (by_actions(b, e.policy, dim) && e.via == INDEX_NONE)
                e.via = k;
            items[out++] = (struct item){ key_of(b, &entries[i], dim, k), e, false };
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

/* Which key an entry asks for in a dimension; of several actions that it was not told apart by, none. */
static uint8_t bit_of(const struct builder *b, const struct index_entry *e, unsigned dim)
{
    return key_count(b, e, dim) == 1 ? index_bit(key_of(b, e, dim, 0)) : INDEX_OPEN;
}

static uint32_t make_leaf(struct builder *b, const struct index_entry *entries, size_t n)
{
    uint32_t first = b->x->n_entries;

    if (n == 0)
        return INDEX_NONE;
    for (size_t i = 0; i < n; i++) {
        struct index_entry e = entries[i];

        e.code = b->set->policies[e.policy].code;
        for (unsigned d = 0; d < DIM_COUNT; d++)
            e.bit[d] = bit_of(b, &e, d);
        e.last = i + 1 == n;
        add_entry(b, e);
    }
    b->full |= first >= INDEX_LEAF;
    return first | INDEX_LEAF;
}

/* The children of one node must stand in a row, so they are reserved before any of them is built. */
static uint32_t make_split(struct builder *b, const struct item *items, size_t n, unsigned dim, unsigned dims)
{
    struct index_entry *part = malloc((n ? n : 1) * sizeof(*part));
    uint32_t node = new_node(b), first = b->x->n_kids, kid = 0, n_kids = 0, child;

    if (!part || b->full) {
        free(part);
        b->full = true;
        return INDEX_NONE;
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
            b->x->kids[first + kid++].child = child;
            b->x->nodes[node].bloom |= 1ull << index_bit(items[i].key);
        }
    }
    free(part);
    if (b->full)
        return INDEX_NONE;
    ASSERT(kid == n_kids);
    b->x->nodes[node].dim = (uint8_t)dim;
    b->x->nodes[node].first = first;
    b->x->nodes[node].n = n_kids;
    return node;
}

/* Answers the child to be visited. Recursion: each level takes one dimension out of `dims`. */
static uint32_t build(struct builder *b, const struct index_entry *entries, size_t n, unsigned dims)
{
    uint32_t child = INDEX_NONE;
    struct item *best = NULL;
    size_t best_n = 0;
    double best_cost = (double)n * 0.75;        /* a split that spares less than a quarter is not worth its probes */
    unsigned best_dim = 0;

    for (unsigned d = 0; d < DIM_COUNT + b->x->n_paths && n > LEAF_MAX && !b->full; d++) {
        size_t items_n;
        struct item *items;
        double c;

        if (!(dims >> d & 1))
            continue;
        items = spread(b, entries, n, d, &items_n);
        if (!items)
            break;
        c = cost(items, items_n);
        if (c < best_cost) {
            free(best);
            best = items;
            best_n = items_n;
            best_cost = c;
            best_dim = d;
        } else {
            free(items);
        }
    }
    if (best && !b->full)
        child = make_split(b, best, best_n, best_dim, dims);
    else if (!b->full)
        child = make_leaf(b, entries, n);
    free(best);
    return child;
}

static void build_slots(struct builder *b)
{
    struct scope_index *x = b->x;
    uint32_t buckets = 1;

    while (buckets < (x->n_kids + 1ull) / 4)
        buckets *= 2;
    x->slots = arena_array(&b->set->arena, buckets * 8ull, sizeof(*x->slots));
    x->tags = arena_array(&b->set->arena, buckets, sizeof(*x->tags));
    if (!x->slots || !x->tags) {
        b->full = true;
        return;
    }
    x->bucket_mask = buckets - 1;
    for (uint32_t n = 0; n < x->n_nodes; n++) {
        for (uint32_t k = 0; k < x->nodes[n].n; k++) {
            const struct index_kid *kid = &x->kids[x->nodes[n].first + k];
            uint64_t hash = index_hash(n, kid->key);
            uint32_t i = (uint32_t)(hash >> 32) & x->bucket_mask, lane = 0;

            while (index_full(x->tags[i]))
                i = (i + 1) & x->bucket_mask;
            while (x->tags[i] >> 8 * lane)
                lane++;
            x->tags[i] |= (uint64_t)index_tag(hash) << 8 * lane;
            x->slots[i * 8 + lane] = (struct index_slot){ kid->key, n, kid->child };
        }
    }
}

/* --- conditions --------------------------------------------------------------------------------------------------- */

/* The paths seen, and how many policies use each. */
struct paths {
    struct index_path path[PATHS_SEEN_MAX];
    uint32_t used[PATHS_SEEN_MAX];
    unsigned n;
};

static bool same_path(const struct index_path *a, const struct index_path *b)
{
    if (a->var != b->var || a->n != b->n || a->guarded != b->guarded)
        return false;
    for (unsigned i = 0; i < a->n; i++)
        if (!str_eq(a->keys[i], b->keys[i]))
            return false;
    return true;
}

static uint8_t see_path(struct paths *seen, const struct index_path *path)
{
    unsigned i = 0;

    while (i < seen->n && !same_path(&seen->path[i], path))
        i++;
    if (path->n == 0 || i == PATHS_SEEN_MAX)
        return NO_PATH;
    if (i == seen->n)
        seen->path[seen->n++] = *path;
    seen->used[i]++;
    return (uint8_t)i;
}

/* Makes dimensions of the paths that are used most; to[] gets the number of each of the seen ones. */
static void choose_paths(struct scope_index *x, struct paths *seen, uint8_t to[PATHS_SEEN_MAX])
{
    memset(to, NO_PATH, PATHS_SEEN_MAX);
    for (; x->n_paths < INDEX_PATHS_MAX; x->n_paths++) {
        unsigned best = 0;

        for (unsigned i = 1; i < seen->n; i++)
            if (seen->used[i] > seen->used[best])
                best = i;
        if (seen->used[best] <= LEAF_MAX)
            return;
        seen->used[best] = 0;
        to[best] = (uint8_t)x->n_paths;
        x->paths[x->n_paths] = seen->path[best];
    }
}

/* What the conditions add. The caller frees; NULL: memory is out. */
static struct narrowed *narrow_all(struct policy_set *set)
{
    struct narrowed *all = malloc((set->n_policies + 1u) * sizeof(*all));
    struct paths seen = { .n = 0 };
    uint8_t to[PATHS_SEEN_MAX];
    struct narrow found;

    for (uint32_t i = 0; all && i < set->n_policies; i++) {
        narrow_find(set->names[i].ast, &found);
        all[i] = (struct narrowed){ .value = found.value, .heads = found.heads, .path = see_path(&seen, &found.path) };
        memcpy(all[i].head, found.head, sizeof(found.head));
    }
    choose_paths(&set->index, &seen, to);
    for (uint32_t i = 0; all && i < set->n_policies; i++)
        if (all[i].path != NO_PATH)
            all[i].path = to[all[i].path];
    return all;
}

bool index_value_key(const struct policy_value *v, uint64_t *ret)
{
    switch ((enum policy_kind)v->kind) {
    case POLICY_BOOL:
        *ret = v->u.b ? 0x9e3779b97f4a7c15u : 0xd6e8feb86659fd93u;
        return true;
    case POLICY_LONG:
        *ret = (uint64_t)v->u.i * 0x9e3779b97f4a7c15u;
        *ret ^= *ret >> 32;
        return true;
    case POLICY_STRING:
        *ret = hash_bytes(v->u.s, v->len);
        return true;
    case POLICY_ENTITY:
        *ret = v->u.uid->hash;
        return true;
    default:
        return false;
    }
}

enum err index_build(struct policy_set *set)
{
    struct builder b = { .set = set, .x = &set->index, .narrowed = narrow_all(set) };
    struct index_entry *all = malloc((set->n_policies + 1u) * sizeof(*all));

    b.full = !all || !b.narrowed;
    for (uint32_t i = 0; !b.full && i < set->n_policies; i++)
        all[i] = (struct index_entry){ .policy = i, .via = INDEX_NONE };
    if (!b.full)
        set->index.root = build(&b, all, set->n_policies, (1u << (DIM_COUNT + b.x->n_paths)) - 1);
    free(all);
    free(b.narrowed);
    if (!b.full)
        build_slots(&b);
    return b.full ? E_CALL_TOO_LARGE : OK;
}
