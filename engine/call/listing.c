/*
 * listing.c -- tools/list: may this caller use this tool with some arguments?
 *
 * The answer is one bit per tool.  A class of callers is, within a tenant, what the heads of policies make of each side
 * (classes.h); where a condition looks at who asks, or where delegations are required, a caller is in a class of its
 * own, and its bits are found anew each time.
 */
#include "call/listing.h"

#include <pthread.h>
#include <stdlib.h>

#include "base/check.h"
#include "base/map.h"
#include "base/metric.h"
#include "call/internal.h"
#include "policy/classes.h"

enum { CLASSES_MAX = 4096, CLASS_KEY_MAX = 2048 };

struct listing {
    const struct policy_classes *classes;
    size_t words;               /* of the bits of all tools */
    pthread_mutex_t lock;
    struct map known;           /* class -> its bits; each one allocation with its key behind it */
};

/* ---- what is known of classes ------------------------------------------------------------------------------------ */

/* Of the context, lists know neither arguments nor time; the sides are told apart by their places in the key. */
static const char *const impersonal[] = { "args", "time", "side", NULL };

struct listing *listing_new(const struct policy_set *set, size_t n_tools, struct arena *a)
{
    struct listing *l = ARENA_NEW(a, struct listing);

    if (!l)
        return NULL;
    l->classes = policy_classes_new(set, impersonal, a);
    l->words = n_tools / 64 + 1;
    pthread_mutex_init(&l->lock, NULL);
    return l->classes ? l : NULL;
}

static void forget(struct listing *l)
{
    struct map_slot *slot;
    size_t i = 0;

    while ((slot = map_next(&l->known, &i)))
        free(slot->value);
    map_release(&l->known);
    l->known = MAP_INIT;
}

void listing_free(struct listing *l)
{
    if (!l)
        return;
    forget(l);
    pthread_mutex_destroy(&l->lock);
}

static bool recall(struct listing *l, struct str class, uint64_t *bits)
{
    const uint64_t *known;

    pthread_mutex_lock(&l->lock);
    known = map_get(&l->known, class);
    if (known)
        memcpy(bits, known, l->words * sizeof(*bits));
    pthread_mutex_unlock(&l->lock);
    return known != NULL;
}

static void remember(struct listing *l, struct str class, const uint64_t *bits)
{
    uint64_t *copy = malloc(l->words * sizeof(*bits) + class.len);
    struct str key;

    ASSERT(copy != NULL);
    memcpy(copy, bits, l->words * sizeof(*bits));
    memcpy(copy + l->words, class.p, class.len);
    key = str_n((const char *)(copy + l->words), class.len);
    pthread_mutex_lock(&l->lock);
    if (l->known.len == CLASSES_MAX)
        forget(l);
    if (map_get(&l->known, key))
        free(copy);                     /* another worker was faster */
    else
        map_put(&l->known, key, copy);
    pthread_mutex_unlock(&l->lock);
}

/* ---- one caller -------------------------------------------------------------------------------------------------- */

static void count(const char *how, metric_slot_t *slot)
{
    if (!metric_slot_known(slot))
        metric_slot_ask(slot, M_LISTS_TOTAL, str_of(how));
    metric_add_at(M_LISTS_TOTAL, metric_slot(slot), 1);
}

/* Arguments, time and the resource's name unknown. False: memory is out, which shows no tool. */
static bool ask_without_arguments(struct call *c, const struct tool *t, struct question *q, struct asked *x)
{
    if (call_question(c, &t->action, q))
        return false;
    q->resource_type = str_of(t->resource_type);
    return !question_ask(q, c->registry->entities, &c->arena, x);
}

static bool could_allow(struct call *c, const struct tool *t)
{
    struct asked *x = arena_alloc(&c->arena, sizeof(*x));
    struct question q;

    if (!x || !ask_without_arguments(c, t, &q, x))
        return false;
    for (unsigned i = 0; i < x->n; i++)
        if (!policy_could_allow(c->registry->policy, &x->requests[i]))
            return false;
    for (unsigned i = 0; c->registry->delegation_required && i < q.n_actors; i++)
        if (!question_delegated(&q, i))
            return false;
    return true;
}

/* The class of the caller: its tenant (P8), and for each side, which heads it matches. False: none but its own. */
static bool class_of(struct call *c, struct buf *key)
{
    struct asked *x = arena_alloc(&c->arena, sizeof(*x));
    struct question q;

    if (c->registry->delegation_required || !x || !ask_without_arguments(c, &c->registry->tools[0], &q, x))
        return false;
    buf_add(key, &q.tenant.len, sizeof(q.tenant.len));
    buf_add_str(key, q.tenant);
    for (unsigned i = 0; i < x->n; i++)
        if (!policy_class_of(c->registry->listing->classes, &x->layer, &x->principals[i], key))
            return false;
    return true;
}

static void find_bits(struct call *c, uint64_t *bits)
{
    for (size_t i = 0; i < c->registry->n_tools; i++) {
        struct arena_mark before = arena_mark(&c->arena);

        if (could_allow(c, &c->registry->tools[i]))
            bits[i / 64] |= 1ull << (i % 64);
        arena_rewind(&c->arena, before);
    }
}

/* NULL: memory is out. */
static const uint64_t *visible(struct call *c)
{
    static metric_slot_t shared, found, own;
    struct listing *l = c->registry->listing;
    uint64_t *bits = arena_alloc(&c->arena, l->words * sizeof(*bits));
    struct buf class = BUF_INIT(CLASS_KEY_MAX);
    struct arena_mark before;
    struct question q;

    /* asked once before the mark: what it finds out of the vault stays with the call */
    if (!bits || call_question(c, &c->registry->tools[0].action, &q))
        return NULL;
    before = arena_mark(&c->arena);
    memset(bits, 0, l->words * sizeof(*bits));
    if (!class_of(c, &class)) {
        find_bits(c, bits);
        count("own", &own);
    } else if (recall(l, buf_str(&class), bits)) {
        count("shared", &shared);
    } else {
        find_bits(c, bits);
        if (!arena_overflowed(&c->arena))
            remember(l, buf_str(&class), bits);
        count("found", &found);
    }
    buf_release(&class);
    arena_rewind(&c->arena, before);
    return bits;
}

bool call_could_allow(struct call *c, const struct tool *t)
{
    size_t i = (size_t)(t - c->registry->tools);

    ASSERT(i < c->registry->n_tools);
    if (!c->visible)
        c->visible = visible(c);
    return c->visible && (c->visible[i / 64] >> (i % 64) & 1);
}
