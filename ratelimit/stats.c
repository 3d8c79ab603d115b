/*
 * stats.c -- looking at the limiter: totals, one key, all keys; and the names of keys worth showing
 *
 * A key is its hash; its bytes are kept only when it is worth showing: it blocked somebody, was paused or throttled, or
 * was granted often.  They are in a table of sets of WAYS names; a new one takes the place of the one not noted for
 * longest.  Cannot fail: without memory a key has no name.  Totals are summed stripe by stripe, so they are exact only
 * when nothing moves meanwhile.
 */
#include <stdlib.h>
#include <string.h>

#include "internal.h"

#define WAYS 4u

/* ---- names */

static struct rl_name *name_set(struct rl *rl, struct rl_id id)
{
    return &rl->names[(uint32_t)(id.b >> 8) & rl->names_mask & ~(WAYS - 1)];
}

/* The name to show in memory of its own; NULL: none. */
static char *name_made(const struct rl_ask *ask, uint16_t *ret_len)
{
    char *bytes = malloc(ask->name ? RL_KEY_MAX : ask->key_len), *exact;

    if (!bytes)
        return NULL;
    if (!ask->name) {
        *ret_len = ask->key_len;
        return memcpy(bytes, ask->key, ask->key_len);
    }
    *ret_len = (uint16_t)ask->name(ask, bytes);
    RL_ASSERT(*ret_len <= RL_KEY_MAX);
    exact = *ret_len ? realloc(bytes, *ret_len) : NULL;
    if (!exact)
        free(bytes);
    return exact;
}

void rl_name_note(struct rl *rl, struct rl_id id, const struct rl_ask *ask)
{
    struct rl_name *set = name_set(rl, id), *at = set;
    char *bytes;
    uint16_t len;

    if (!ask->name && (!ask->key || ask->key_len == 0 || ask->key_len > RL_KEY_MAX))
        return;
    rl_lock_one(&rl->names_locked);
    rl->names_clock++;
    for (uint32_t i = 0; i < WAYS && !rl_id_eq(at->id, id); i++)
        if (rl_id_eq(set[i].id, id) || rl->names_clock - set[i].used > rl->names_clock - at->used)
            at = &set[i];
    if (!rl_id_eq(at->id, id) && (bytes = name_made(ask, &len)) != NULL) {
        free(at->bytes);
        rl->names_bytes += len;
        rl->names_bytes -= at->len;
        *at = (struct rl_name){ .id = id, .len = len, .bytes = bytes };
    }
    if (rl_id_eq(at->id, id))
        at->used = rl->names_clock;
    rl_unlock_one(&rl->names_locked);
}

/* The names' lock is held. */
static const struct rl_name *name_find(struct rl *rl, struct rl_id id)
{
    const struct rl_name *set = name_set(rl, id);

    for (uint32_t i = 0; i < WAYS; i++)
        if (rl_id_eq(set[i].id, id))
            return &set[i];
    return NULL;
}

/* ---- totals */

static void add_counts(struct rl_stats *ret, const struct rl_counts *c)
{
    ret->granted += c->granted;
    ret->queued += c->queued;
    ret->late += c->late;
    ret->never += c->never;
    ret->busy += c->busy;
    ret->table_full += c->table_full;
    ret->timed_out += c->timed_out;
    ret->cancelled += c->cancelled;
    ret->evicted += c->evicted;
    ret->throttled += c->throttled;
}

void rl_stats(struct rl *rl, struct rl_stats *ret)
{
    *ret = (struct rl_stats){ .keys = atomic_load(&rl->keys), .waiting = atomic_load(&rl->waiting) };
    ret->bytes = (uint64_t)atomic_load(&rl->next_chunk) * RL_CHUNK * sizeof(struct rl_key);
    rl_lock_one(&rl->names_locked);
    ret->bytes += rl->names_bytes + (rl->names_mask + 1) * sizeof(*rl->names);
    rl_unlock_one(&rl->names_locked);
    for (unsigned i = 0; i < RL_STRIPES; i++) {
        struct rl_stripe *s = &rl->stripes[i];

        rl_lock_one(&s->locked);
        ret->bytes += s->more_bytes + (s->room_chunks + (size_t)s->mask + 1) * sizeof(*s->index);
        if (s->old)
            ret->bytes += ((size_t)s->old_mask + 1) * sizeof(*s->old);
        add_counts(ret, &s->counts);
        rl_unlock_one(&s->locked);
    }
}

/* ---- keys */

static int64_t oldest_wait(const struct rl_line *line, int64_t now)
{
    const struct rl_waiter *w = NULL;
    struct rl_node *n;

    if (!line || !line->waiting)
        return 0;
    n = rl_tree_min(line->turned);
    if (n)
        w = RL_CONTAINER(n, struct rl_waiter, line);
    for (const struct rl_flow *f = &line->all; !w; f = RL_CONTAINER(n, struct rl_flow, by_tag)) {
        if ((n = rl_tree_min(f->waiters)) != NULL)
            w = RL_CONTAINER(n, struct rl_waiter, line);
        else if ((n = rl_tree_min(f->tags)) == NULL)
            return 0;
    }
    return now > w->queued_at ? now - w->queued_at : 1;
}

static void describe(struct rl *rl, struct rl_key *k, int64_t now, struct rl_key_stats *ret)
{
    const struct rl_limit *l = rl_limit_of(rl, k, now);
    const struct rl_learned *ln = k->flags & KEY_LEARNED ? k->line->learned : NULL;

    *ret = (struct rl_key_stats){
        .id = k->id,
        .rule = k->rule,
        .waiting = k->line ? k->line->waiting : 0,
        .in_flight = (uint32_t)k->in_flight,
        .concurrency = l->cap,
        .granted = k->granted,
        .refused = k->refused,
        .available = rl_available(k, l, now, now + rl_wall_offset(rl)),
        .paused_until = k->flags & KEY_PAUSED && k->not_before > now ? k->not_before : 0,
        .throttled = ln ? ln->throttled : 0,
        .tightened = ln ? (double)ln->factor / RL_ONE : 1,
        .oldest_ns = oldest_wait(k->line, now),
    };
    if (ln && ln->left < ret->available && (l->leased || ln->left_until > now))
        ret->available = ln->left_until > now ? ln->left : 0;
}

bool rl_key_stats(struct rl *rl, const struct rl_ask *ask, int64_t now, struct rl_key_stats *ret)
{
    struct rl_id id = rl_ask_id(rl, ask);
    struct rl_key *k;

    rl_lock(rl, RL_BIT_OF(id));
    k = rl_table_find(rl, id);
    if (k)
        describe(rl, k, now, ret);
    rl_unlock(rl, RL_BIT_OF(id));
    if (k) {
        ret->key = ask->name ? NULL : ask->key;
        ret->key_len = ask->name ? 0 : ask->key_len;
    }
    return k != NULL;
}

struct visit {
    bool (*fn)(void *arg, const struct rl_key_stats *s);
    void *arg;
    int64_t now;
    bool all, more;
};

static bool visit_one(struct rl *rl, struct rl_key *k, void *arg)
{
    struct visit *v = arg;
    const struct rl_name *name;
    struct rl_key_stats stats;

    if (!v->all && !k->line && !k->in_flight && !(k->flags & KEY_PAUSED && k->not_before > v->now))
        return true;
    describe(rl, k, v->now, &stats);
    rl_lock_one(&rl->names_locked);
    name = name_find(rl, stats.id);
    if (name) {
        stats.key = name->bytes;
        stats.key_len = name->len;
    }
    v->more = v->fn(v->arg, &stats);
    rl_unlock_one(&rl->names_locked);
    return v->more;
}

void rl_visit(struct rl *rl, bool all, int64_t now, bool (*fn)(void *arg, const struct rl_key_stats *s), void *arg)
{
    struct visit v = { fn, arg, now, all, true };

    for (unsigned i = 0; i < RL_STRIPES && v.more; i++)
        rl_table_each(rl, i, visit_one, &v);
}
