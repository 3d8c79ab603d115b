/*
 * stats.c -- looking at the limiter: totals, one key, all keys
 *
 * Cannot fail. Totals are summed stripe by stripe, so they are exact only when nothing moves meanwhile.
 */
#include "internal.h"

#define VISIT_BUCKETS 64        /* visited under one hold of a lock */

void rl_stats(struct rl *rl, struct rl_stats *ret)
{
    *ret = (struct rl_stats){ .keys = atomic_load(&rl->keys), .waiting = atomic_load(&rl->waiting) };
    for (unsigned i = 0; i < RL_STRIPES; i++) {
        struct rl_stripe *s = &rl->stripes[i];

        rl_lock(rl, (uint64_t)1 << i);
        ret->bytes += s->key_bytes + s->room * sizeof(*s->buckets);
        ret->granted += s->counts.granted;
        ret->queued += s->counts.queued;
        ret->late += s->counts.late;
        ret->never += s->counts.never;
        ret->busy += s->counts.busy;
        ret->table_full += s->counts.table_full;
        ret->timed_out += s->counts.timed_out;
        ret->cancelled += s->counts.cancelled;
        ret->evicted += s->counts.evicted;
        rl_unlock(rl, (uint64_t)1 << i);
    }
}

static void describe(struct rl *rl, struct rl_key *k, int64_t now, struct rl_key_stats *ret)
{
    const struct rl_limit *l = &rl->rules[k->rule];

    rl_rate_sync(k, l, now);
    *ret = (struct rl_key_stats){
        .key = k->bytes,
        .key_len = k->len,
        .rule = k->rule,
        .waiting = k->line ? k->line->waiting : 0,
        .in_flight = k->in_flight,
        .concurrency = l->cap,
        .granted = k->granted,
        .refused = k->refused,
        .available = rl_rate_available(k, l, now),
        .paused_until = k->paused_until > now ? k->paused_until : 0,
    };
}

bool rl_key_stats(struct rl *rl, const void *key, size_t key_len, int64_t now, struct rl_key_stats *ret)
{
    uint64_t hash = rl_hash(rl, key, key_len), stripe = (uint64_t)1 << RL_STRIPE_OF(hash);
    struct rl_key *k;

    rl_lock(rl, stripe);
    k = rl_table_find(&rl->stripes[RL_STRIPE_OF(hash)], hash, key, key_len);
    if (k)
        describe(rl, k, now, ret);
    rl_unlock(rl, stripe);
    if (k)
        ret->key = key;
    return k != NULL;
}

void rl_visit(struct rl *rl, bool all, int64_t now, bool (*fn)(void *arg, const struct rl_key_stats *s), void *arg)
{
    bool more = true;

    for (unsigned i = 0; i < RL_STRIPES && more; i++) {
        struct rl_stripe *s = &rl->stripes[i];
        uint32_t b = 0, n;

        do {
            uint32_t until = b + VISIT_BUCKETS;

            rl_lock(rl, (uint64_t)1 << i);
            n = s->n;
            for (; b < until && b < n && more; b++) {
                for (struct rl_key *k = s->buckets[b]; k && more; k = k->next) {
                    struct rl_key_stats stats;

                    if (!all && !k->line && !k->in_flight && k->paused_until <= now)
                        continue;
                    describe(rl, k, now, &stats);
                    more = fn(arg, &stats);
                }
            }
            rl_unlock(rl, (uint64_t)1 << i);
        } while (b < n && more);
    }
}
