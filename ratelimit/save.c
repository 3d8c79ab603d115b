/*
 * save.c -- what a restart must not forget, as bytes
 *
 * All numbers little endian.  Durations instead of times, since a restart begins another monotonic clock:
 *
 *   header   "sluicerl", version u32, record size u32, seed 2 * u64, wall i64, rules u32, 0 u32, checksum u64
 *   rules    rules * { id u32, 0 u32, tag u64, per unit u64, calendar window i64, its offset i64, checksum u64 }
 *   blocks   records u32 (1 .. 64), number of the block u32, records * {
 *                id 2 * u64, until the bucket is full i64 (in the time of the rate it was counted with),
 *                until the pause ends i64, used in the window u64, its number u32,
 *                id of its rule u16, factor u16 (0: all), left u64, until that ends i64 }, checksum u64
 *   end      0 u32, number of blocks u32, records in all u64, checksum u64
 *
 * A checksum covers its section.  The seed is in it because a key is its keyed hash: without it no key would be found
 * again.  Rules are matched by tag, or by id when they have none, and what was used is converted in units to the rule
 * as it is now.  Whatever a file says, no key comes out of it blocked for longer than its rule allows: the bucket is at
 * most empty, and a pause ends when it would have.
 *
 * Loading reads untrusted bytes: every length is checked, a damaged section ends it.
 */
#include <stdlib.h>
#include <string.h>

#include "internal.h"

#define VERSION      1u
#define HEADER_BYTES 48u        /* without the checksum, as all of these */
#define RULE_BYTES   40u
#define RECORD_BYTES 64u
#define BLOCK_MAX    64u
#define SUM_BYTES    8u
#define PAUSE_MAX    ((int64_t)400 * 86400 * 1000000000)

static const char magic[8] = { 's', 'l', 'u', 'i', 'c', 'e', 'r', 'l' };

/* ---- numbers */

static void put(uint8_t **at, uint64_t x, unsigned bytes)
{
    for (unsigned i = 0; i < bytes; i++)
        *(*at)++ = (uint8_t)(x >> (8 * i));
}

static uint64_t get(const uint8_t **at, unsigned bytes)
{
    uint64_t x = 0;

    for (unsigned i = 0; i < bytes; i++)
        x |= (uint64_t)*(*at)++ << (8 * i);
    return x;
}

/* ---- saving */

struct saving {
    bool (*write)(void *arg, const void *p, size_t n);
    void *arg;
    int64_t now;
    const struct rl_limit *rules;   /* as the file has them */
    uint32_t in_block, blocks;
    uint64_t records;
    bool failed;
    uint8_t bytes[8 + BLOCK_MAX * RECORD_BYTES + SUM_BYTES], *at;
};

static void write_section(struct saving *s, uint8_t *from, uint8_t *end)
{
    put(&end, rl_checksum(from, (size_t)(end - from)), SUM_BYTES);
    s->failed = s->failed || !s->write(s->arg, from, (size_t)(end - from));
}

static uint64_t positive(int64_t until, int64_t now)
{
    return until > now ? (uint64_t)(until - now) : 0;
}

static bool save_key(struct rl *rl, struct rl_key *k, void *arg)
{
    struct saving *s = arg;
    const struct rl_limit *l = rl_limit_of(rl, k, s->now);
    const struct rl_learned *ln = k->flags & KEY_LEARNED ? k->line->learned : NULL;
    bool left = ln && !l->leased && ln->left != RL_UNKNOWN && ln->left_until > s->now;
    uint64_t full = positive(k->full_at, s->now), paused = positive(k->not_before, s->now), used = 0;

    if (l->calendar) {
        rl_window_sync(k, l, s->now + rl_wall_offset(rl));
        used = k->window_used;
    }
    if (!full && !paused && !used && !left && (!ln || ln->factor == RL_ONE))
        return true;
    /* counted with the rate the file names, not with a tightened one or one set a moment ago */
    if (full && l->per_unit && s->rules[k->rule].per_unit != l->per_unit)
        full = (uint64_t)((unsigned __int128)full * s->rules[k->rule].per_unit / l->per_unit);
    put(&s->at, k->id.a, 8);
    put(&s->at, k->id.b, 8);
    put(&s->at, full, 8);
    put(&s->at, paused, 8);
    put(&s->at, used, 8);
    put(&s->at, k->window, 4);
    put(&s->at, k->rule, 2);
    put(&s->at, ln && ln->factor < RL_ONE ? ln->factor : 0, 2);
    put(&s->at, left ? ln->left : 0, 8);
    put(&s->at, left ? positive(ln->left_until, s->now) : 0, 8);
    s->in_block++;
    return true;
}

static void save_rules(struct rl *rl, struct saving *s)
{
    uint8_t bytes[HEADER_BYTES + SUM_BYTES], *at = bytes;
    uint32_t n = 0;

    for (uint32_t id = 0; id < rl->cfg.rules_max; id++)
        n += s->rules[id].set;
    for (unsigned i = 0; i < sizeof(magic); i++)
        put(&at, (uint8_t)magic[i], 1);
    put(&at, VERSION, 4);
    put(&at, RECORD_BYTES, 4);
    put(&at, rl->cfg.seed[0], 8);
    put(&at, rl->cfg.seed[1], 8);
    put(&at, (uint64_t)(s->now + rl_wall_offset(rl)), 8);
    put(&at, n, 4);
    put(&at, 0, 4);
    write_section(s, bytes, at);
    for (uint32_t id = 0; id < rl->cfg.rules_max && !s->failed; id++) {
        const struct rl_limit *l = &s->rules[id];

        if (!l->set)
            continue;
        at = bytes;
        put(&at, id, 4);
        put(&at, 0, 4);
        put(&at, l->tag, 8);
        put(&at, l->per_unit, 8);
        put(&at, (uint64_t)l->window_ns, 8);
        put(&at, (uint64_t)l->window_offset, 8);
        write_section(s, bytes, at);
    }
}

/* A chunk of keys at a time: looked at under the stripe's lock, written without it. */
static void save_stripe(struct rl *rl, struct saving *s, unsigned stripe)
{
    uint32_t chunk = 0;
    uint8_t *head;
    bool more;

    do {
        s->at = s->bytes + 8;
        s->in_block = 0;
        more = rl_table_chunk(rl, stripe, chunk++, save_key, s);
        if (!s->in_block)
            continue;
        head = s->bytes;
        put(&head, s->in_block, 4);
        put(&head, s->blocks++, 4);
        s->records += s->in_block;
        write_section(s, s->bytes, s->at);
    } while (more && !s->failed);
}

bool rl_save(struct rl *rl, bool (*write)(void *arg, const void *p, size_t n), void *arg, int64_t now)
{
    size_t size = rl->cfg.rules_max * sizeof(struct rl_limit);
    struct rl_limit *rules = aligned_alloc(64, size);
    struct saving s = { .write = write, .arg = arg, .now = now, .rules = rules };

    if (!rules)
        return false;
    rl_lock(rl, 1);
    memcpy(rules, rl->rules, size);
    rl_unlock(rl, 1);
    save_rules(rl, &s);
    for (unsigned i = 0; i < RL_STRIPES && !s.failed; i++)
        save_stripe(rl, &s, i);
    s.at = s.bytes;
    put(&s.at, 0, 4);
    put(&s.at, s.blocks, 4);
    put(&s.at, s.records, 8);
    if (!s.failed)
        write_section(&s, s.bytes, s.at);
    free(rules);
    return !s.failed;
}

/* ---- loading */

struct was_rule {
    uint32_t id;
    int32_t now;                /* the id of the rule it is now; -1: gone */
    uint64_t per_unit;
    int64_t window_ns, window_offset;
};

struct loading {
    struct rl *rl;
    const uint8_t *at, *end;
    int64_t now, elapsed;
    uint32_t n_rules, blocks;
    struct was_rule *rules;     /* by id, rising */
    size_t keys;
    uint64_t records;
};

/* Whether `bytes` more are there with the right checksum behind them. */
static bool whole(const struct loading *in, size_t bytes)
{
    const uint8_t *sum = in->at + bytes;

    return (size_t)(in->end - in->at) >= bytes + SUM_BYTES && rl_checksum(in->at, bytes) == get(&sum, SUM_BYTES);
}

static int32_t rule_by_tag(const struct rl *rl, uint32_t id, uint64_t tag)
{
    if (id < rl->cfg.rules_max && rl->rules[id].set && rl->rules[id].tag == tag)
        return (int32_t)id;
    for (uint32_t i = 0; tag && i < rl->cfg.rules_max; i++)
        if (rl->rules[i].set && rl->rules[i].tag == tag)
            return (int32_t)i;
    return -1;
}

static bool load_rules(struct loading *in)
{
    for (uint32_t i = 0; i < in->n_rules; i++) {
        struct was_rule *r = &in->rules[i];
        uint64_t tag;

        if (!whole(in, RULE_BYTES))
            return false;
        r->id = (uint32_t)get(&in->at, 4);
        in->at += 4;
        tag = get(&in->at, 8);
        r->per_unit = get(&in->at, 8);
        r->window_ns = (int64_t)get(&in->at, 8);
        r->window_offset = (int64_t)get(&in->at, 8);
        r->now = rule_by_tag(in->rl, r->id, tag);
        in->at += SUM_BYTES;
        if (r->window_ns < 0 || r->window_ns > PAUSE_MAX || r->window_offset > PAUSE_MAX
            || r->window_offset < -PAUSE_MAX || (i > 0 && in->rules[i - 1].id >= r->id))
            return false;
    }
    return true;
}

static const struct was_rule *was_rule(const struct loading *in, uint32_t id)
{
    uint32_t low = 0, high = in->n_rules;

    while (low < high) {
        uint32_t mid = low + (high - low) / 2;

        if (in->rules[mid].id < id)
            low = mid + 1;
        else
            high = mid;
    }
    return low < in->n_rules && in->rules[low].id == id ? &in->rules[low] : NULL;
}

/* What is left of a duration after the time that passed, at most `most`. */
static int64_t left_of(const struct loading *in, uint64_t ns, int64_t most)
{
    int64_t left = ns > (uint64_t)RL_NS_MAX ? RL_NS_MAX : (int64_t)ns;

    left = left > in->elapsed ? left - in->elapsed : 0;
    return left < most ? left : most;
}

struct record {
    struct rl_id id;
    uint64_t full, paused, used, left, left_for;
    uint32_t window, rule, factor;
};

static void restore(const struct loading *in, struct rl_key *k, const struct record *r, const struct was_rule *was)
{
    const struct rl_limit *l = &in->rl->rules[k->rule];
    int64_t full = left_of(in, r->full, RL_NS_MAX), paused = left_of(in, r->paused, PAUSE_MAX), now = in->now;

    k->full_at = now + full;
    rl_convert(k, was->per_unit, l->per_unit, now);
    if (k->full_at > now + l->burst_ns)
        k->full_at = now + l->burst_ns;
    if (paused) {
        k->not_before = now + paused;
        k->flags |= KEY_PAUSED;
    }
    if (l->calendar && was->window_ns) {
        k->window = r->window;
        k->window_used = r->used < (uint64_t)1 << 39 ? r->used : (uint64_t)1 << 39;
        rl_convert_window(k, l, was->window_ns, was->window_offset, now + rl_wall_offset(in->rl));
        rl_window_sync(k, l, now + rl_wall_offset(in->rl));
    }
    if (r->factor || r->left_for)
        rl_learned_restore(in->rl, k, r->factor, r->left, now + left_of(in, r->left_for, l->span * 2), now);
}

static void load_record(struct loading *in)
{
    struct record r;
    const struct was_rule *was;
    struct rl_work work;
    enum rl_result why;
    struct rl_key *k;

    r.id.a = get(&in->at, 8);
    r.id.b = get(&in->at, 8);
    r.full = get(&in->at, 8);
    r.paused = get(&in->at, 8);
    r.used = get(&in->at, 8);
    r.window = (uint32_t)get(&in->at, 4);
    r.rule = (uint32_t)get(&in->at, 2);
    r.factor = (uint32_t)get(&in->at, 2);
    r.left = get(&in->at, 8);
    r.left_for = get(&in->at, 8);
    in->records++;
    was = was_rule(in, r.rule);
    if (!was || was->now < 0 || !rl_id_set(r.id))
        return;
    rl_work_init(&work, in->rl, in->now);
    rl_lock(in->rl, RL_BIT_OF(r.id));
    k = rl_follow(&work, RL_BIT_OF(r.id), r.id, (uint16_t)was->now, &why);
    if (k) {
        restore(in, k, &r, was);
        in->keys++;
    }
    rl_unlock(in->rl, RL_BIT_OF(r.id));
}

static enum rl_load load_blocks(struct loading *in)
{
    for (;;) {
        const uint8_t *head = in->at;
        uint32_t n, number;

        if (in->end - in->at < 8)
            return RL_LOAD_TORN;
        n = (uint32_t)get(&head, 4);
        number = (uint32_t)get(&head, 4);
        if (n > BLOCK_MAX || number != in->blocks || !whole(in, n ? 8 + (size_t)n * RECORD_BYTES : 16))
            return RL_LOAD_TORN;
        in->at = head;
        if (n == 0)
            return get(&in->at, 8) == in->records ? RL_LOADED : RL_LOAD_TORN;
        for (uint32_t i = 0; i < n; i++)
            load_record(in);
        in->at += SUM_BYTES;
        in->blocks++;
    }
}

enum rl_load rl_load(struct rl *rl, const void *p, size_t n, int64_t now, size_t *ret_keys)
{
    struct loading in = { .rl = rl, .at = p, .end = (const uint8_t *)p + n, .now = now };
    enum rl_load result = RL_LOAD_TORN;
    uint64_t seed[2];
    int64_t saved_at, wall = now + rl_wall_offset(rl);

    RL_ASSERT(atomic_load(&rl->keys) == 0);
    *ret_keys = 0;
    if (n < HEADER_BYTES + SUM_BYTES || memcmp(p, magic, sizeof(magic)) != 0)
        return RL_LOAD_FOREIGN;
    if (!whole(&in, HEADER_BYTES))
        return RL_LOAD_TORN;
    in.at += sizeof(magic);
    if (get(&in.at, 4) != VERSION || get(&in.at, 4) != RECORD_BYTES)
        return RL_LOAD_FOREIGN;
    seed[0] = get(&in.at, 8);
    seed[1] = get(&in.at, 8);
    saved_at = (int64_t)get(&in.at, 8);
    in.n_rules = (uint32_t)get(&in.at, 4);
    in.at += 4 + SUM_BYTES;
    in.elapsed = wall > 0 && saved_at > 0 && wall > saved_at ? wall - saved_at : 0;
    if (in.n_rules > RL_RULES_MAX + 1u || in.n_rules > (size_t)(in.end - in.at) / (RULE_BYTES + SUM_BYTES))
        return RL_LOAD_TORN;
    in.rules = calloc(in.n_rules + 1, sizeof(*in.rules));
    if (!in.rules)
        return RL_LOAD_TORN;
    memcpy(rl->cfg.seed, seed, sizeof(seed));
    if (load_rules(&in))
        result = load_blocks(&in);
    free(in.rules);
    *ret_keys = in.keys;
    return result;
}
