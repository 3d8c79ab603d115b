/*
 * fair.c -- the queue at a key: whose turn is next
 *
 * A queue is shared by weight among tenants, a tenant's share among its agents, and an agent's among its waiters by
 * arrival.  Each level is start-time fair queueing: a share has a virtual start time (its tag); the least goes next;
 * being served moves it by cost / weight; one that comes back after a pause starts no earlier than the one served last,
 * so nobody saves up a claim, and whoever waits is reached after each other share was served its weight's worth: nobody
 * starves, and a tenant with a hundred waiters delays another's one by one turn, not a hundred.
 *
 * A share in which nobody waits any more is kept until virtual time has caught up with its tag (it would otherwise come
 * back without its debt), at most EMPTIES_MAX per queue.
 *
 * A waiter whose turn has come and who is then blocked at another of its keys keeps its turn: it is charged once, and
 * stands before all who still wait for theirs ("turned", by arrival).
 *
 * What can fail: memory.
 */
#include <stdlib.h>
#include <string.h>

#include "internal.h"

#define EMPTIES_MAX 256u
#define TAG_MAX     ((uint64_t)1 << 62)
#define COST_MAX    ((uint64_t)1 << 24)     /* per turn: so that tags last for 2^30 turns of the dearest cost */
#define WEIGHT_BITS 8                       /* fraction: a weight of 200 still moves a cost of 1 by more than 1 */

uint32_t rl_draw(uint64_t x)
{
    x ^= x >> 30;
    x *= 0xbf58476d1ce4e5b9;
    x ^= x >> 27;
    x *= 0x94d049bb133111eb;
    return (uint32_t)(x >> 32);
}

/* ---- lines */

static uint64_t *more_bytes(struct rl *rl, const struct rl_key *k)
{
    return &rl->stripes[RL_STRIPE_OF(k->id)].more_bytes;
}

struct rl_line *rl_line_get(struct rl *rl, struct rl_key *k)
{
    if (!k->line) {
        k->line = calloc(1, sizeof(*k->line));
        if (!k->line)
            return NULL;
        k->line->key = k;
        k->line->due.prio = rl_draw(k->id.b);
        *more_bytes(rl, k) += sizeof(*k->line);
    }
    return k->line;
}

/* ---- shares */

static bool is_agent(const struct rl_flow *f)
{
    return f->up && f->up->up;
}

static struct rl_flow *flow_of(struct rl_node *n)
{
    return n ? RL_CONTAINER(n, struct rl_flow, by_tag) : NULL;
}

static void flow_free(struct rl *rl, struct rl_line *line, struct rl_flow *f)
{
    struct rl_flow *child;

    while ((child = flow_of(rl_tree_min(f->tags))) != NULL)
        flow_free(rl, line, child);
    rl_tree_del(&f->up->tags, &f->by_tag);
    rl_tree_del(&f->up->ids, &f->by_id);
    line->empties--;
    *more_bytes(rl, line->key) -= sizeof(*f);
    free(f);
}

static struct rl_flow *child_find(const struct rl_flow *up, uint64_t id)
{
    struct rl_node *n = rl_tree_find(up->ids, id);

    return n ? RL_CONTAINER(n, struct rl_flow, by_id) : NULL;
}

static struct rl_flow *child_get(struct rl *rl, struct rl_line *line, struct rl_flow *up, uint64_t id, uint16_t weight)
{
    struct rl_flow *f = child_find(up, id);

    if (!f) {
        f = calloc(1, sizeof(*f));
        if (!f)
            return NULL;
        f->up = up;
        f->by_id = (struct rl_node){ .key = id, .prio = rl_draw(id ^ rl->cfg.seed[0]) };
        f->by_tag = (struct rl_node){ .key = up->v, .prio = rl_draw(id ^ rl->cfg.seed[1]) };
        rl_tree_add(&up->ids, &f->by_id);
        rl_tree_add(&up->tags, &f->by_tag);
        line->empties++;
        *more_bytes(rl, line->key) += sizeof(*f);
    }
    f->weight = weight ? weight : 1;
    return f;
}

struct rl_flow *rl_flow_get(struct rl *rl, struct rl_line *line, const struct rl_waiter *w)
{
    struct rl_flow *tenant = child_get(rl, line, &line->all, w->tenant, w->tenant_weight);

    return tenant ? child_get(rl, line, tenant, w->agent, w->agent_weight) : NULL;
}

struct rl_flow *rl_flow_find(const struct rl_line *line, const struct rl_waiter *w)
{
    struct rl_flow *tenant = child_find(&line->all, w->tenant);

    return tenant ? child_find(tenant, w->agent) : NULL;
}

void rl_line_put(struct rl *rl, struct rl_key *k)
{
    struct rl_line *line = k->line;
    struct rl_flow *f;

    if (!line || line->waiting || line->barrier || line->todo || line->pins)
        return;
    while ((f = flow_of(rl_tree_min(line->all.tags))) != NULL)
        flow_free(rl, line, f);
    line->all.v = 0;
    if (line->learned || line->due_set)
        return;
    *more_bytes(rl, k) -= sizeof(*line);
    free(line);
    k->line = NULL;
}

/* ---- the order */

static struct rl_waiter *eldest(struct rl_node *root)
{
    struct rl_node *n = rl_tree_min(root);

    return n ? RL_CONTAINER(n, struct rl_waiter, line) : NULL;
}

struct rl_waiter *rl_line_head(struct rl *rl, struct rl_line *line)
{
    struct rl_waiter *barrier = line->barrier, *turned = eldest(line->turned);
    struct rl_flow *f = &line->all;

    /* nobody younger passes a barrier, so it must not stand behind one here; but older ones of its agent go first */
    if (barrier && barrier->home == line->key && (!turned || barrier->line.key <= turned->line.key))
        return barrier->flow ? eldest(barrier->flow->waiters) : barrier;
    if (turned)
        return turned;
    if (!f->waiting)
        return NULL;
    while (!is_agent(f)) {
        struct rl_flow *next = flow_of(rl_tree_min(f->tags));

        while (!next->waiting) {        /* virtual time has caught up with it */
            flow_free(rl, line, next);
            next = flow_of(rl_tree_min(f->tags));
        }
        f = next;
    }
    return eldest(f->waiters);
}

/* A tenant may take at most as many places as it leaves free: it never fills a queue alone, and n greedy ones leave the
   next 1/(n + 1) of it. */
bool rl_line_room(const struct rl *rl, const struct rl_line *line, uint64_t tenant)
{
    const struct rl_flow *f;

    if (!line)
        return true;
    if (line->waiting >= rl->cfg.waiters_per_key_max)
        return false;
    f = tenant ? child_find(&line->all, tenant) : NULL;
    return !f || f->waiting < rl->cfg.waiters_per_key_max - line->waiting;
}

/* flow: its share, or NULL for one whose turn came before. */
void rl_line_add(struct rl_line *line, struct rl_waiter *w, struct rl_flow *flow, uint32_t cost)
{
    w->flow = flow;
    line->waiting++;
    if (!flow) {
        rl_tree_add(&line->turned, &w->line);
        line->turned_cost += cost;
        return;
    }
    rl_tree_add(&flow->waiters, &w->line);
    for (; flow; flow = flow->up) {
        if (!flow->waiting && flow->up) {
            line->empties--;
            if (flow->by_tag.key < flow->up->v) {
                rl_tree_del(&flow->up->tags, &flow->by_tag);
                flow->by_tag.key = flow->up->v;
                rl_tree_add(&flow->up->tags, &flow->by_tag);
            }
        }
        flow->waiting++;
        flow->cost += cost;
    }
}

void rl_line_del(struct rl *rl, struct rl_line *line, struct rl_waiter *w, uint32_t cost)
{
    struct rl_flow *flow = w->flow;

    line->waiting--;
    w->flow = NULL;
    if (!flow) {
        rl_tree_del(&line->turned, &w->line);
        line->turned_cost -= cost;
        return;
    }
    rl_tree_del(&flow->waiters, &w->line);
    while (flow) {
        struct rl_flow *up = flow->up;

        flow->waiting--;
        flow->cost -= cost;
        if (!flow->waiting && up && ++line->empties > EMPTIES_MAX)
            flow_free(rl, line, flow);
        flow = up;
    }
}

void rl_line_charge(struct rl_waiter *w, uint32_t cost)
{
    uint64_t units = cost ? cost < COST_MAX ? cost : COST_MAX : 1;

    for (struct rl_flow *f = w->flow; f && f->up; f = f->up) {
        uint64_t tag = f->by_tag.key;

        f->up->v = tag;
        rl_tree_del(&f->up->tags, &f->by_tag);
        f->by_tag.key = tag < TAG_MAX ? tag + (units << WEIGHT_BITS) / f->weight : tag;
        rl_tree_add(&f->up->tags, &f->by_tag);
    }
}
