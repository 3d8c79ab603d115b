/*
 * table.c -- id -> key, spread over stripes, bounded, forgetting what is idle
 *
 * Keys are cache lines in one region of address space, handed out to the stripes in chunks of a page; they never move,
 * so queues and permits may point at them.  A stripe finds them through an index of 4 byte words, open addressing with
 * an 8 bit tag: a cold lookup costs one line of the index, which stays in a large cache, and the key's own line.  Huge
 * pages hold the region when it is large.
 *
 * An index that gets full is not copied at once: a larger one is begun, each insert carries MOVE places over, and what
 * is not found in the new one is looked for in the old one meanwhile.  So no insert is slow.  Looking in the old one
 * carries over, too: a stripe that gets no more keys would have two for ever, and its keys none of the short ways.
 *
 * A key is idle when forgetting it changes no decision: bucket full, window over, nothing in flight, nobody waiting, no
 * pause, nothing learned.  When keys_max is reached a new key takes the place of an idle one: of its own stripe first,
 * then of any stripe whose lock is free (try-lock, so the order of locks does not matter).  The search is bounded, so a
 * table full of busy keys answers "full" in bounded time.  Fails only so, or when memory is out.
 */
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "internal.h"

#define INDEX_MIN  16u      /* words: a line */
#define MOVE       8u       /* places carried over at a time: the new index is whole long before it is full */
#define LOOK_HOME  128u     /* places looked at for an idle key in the key's own stripe ... */
#define LOOK_OTHER 32u      /* ... and in each other one */
#define PAUSES_MAX 32u      /* some hundreds of nanoseconds to 2 us */
#define HUGE_PAGE  ((size_t)2 << 20)
#define HUGE_FROM  ((size_t)1 << 16)    /* keys_max from which on huge pages are asked for */

/* ---- locks: they are held for tens of nanoseconds, so threads that meet spin; a mutex that puts them to sleep was
   measured up to four times slower with two threads on one key. One exchange to take, one store to give back. */

static bool try_lock(_Atomic bool *locked)
{
    return !atomic_load_explicit(locked, memory_order_relaxed)
           && !atomic_exchange_explicit(locked, true, memory_order_acquire);
}

static void pause_for(unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
#if defined(__x86_64__)
        __builtin_ia32_pause();
#else
        atomic_signal_fence(memory_order_seq_cst);
#endif
    }
}

/* The holder is some tens of nanoseconds from done, but each look takes the line away from it, which costs it more than
   that. So they get rarer: who has the line meanwhile does several operations in a row. If it was sent off its core,
   it is let run. */
void __attribute__((noinline)) rl_lock_slowly(_Atomic bool *locked)
{
    unsigned pauses = 1;

    while (!try_lock(locked)) {
        pause_for(pauses);
        if (pauses < PAUSES_MAX)
            pauses *= 2;
        else
            sched_yield();
    }
}

/* ---- the region and the chunks */

static size_t region_bytes(const struct rl *rl)
{
    return (rl->slots_max * sizeof(struct rl_key) + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
}

bool rl_table_init(struct rl *rl)
{
    void *p;

    /* a quarter more than keys, and a chunk or two for each stripe: the hash does not spread them to the last one */
    rl->slots_max = rl->cfg.keys_max + rl->cfg.keys_max / 4 + (size_t)(RL_STRIPES * 2 + 1) * RL_CHUNK;
    p = mmap(NULL, region_bytes(rl), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED)
        return false;
    rl->slots = p;
    atomic_store(&rl->next_chunk, 1);       /* the first is left alone: a place of it stands for "gone" */
    if (rl->cfg.keys_max >= HUGE_FROM)
        (void)madvise(p, region_bytes(rl), MADV_HUGEPAGE);      /* only makes it faster */
    for (unsigned i = 0; i < RL_STRIPES; i++) {
        struct rl_stripe *s = &rl->stripes[i];

        s->index = calloc(INDEX_MIN, sizeof(*s->index));
        s->mask = INDEX_MIN - 1;
        s->fresh = RL_CHUNK;
        if (!s->index)
            return false;
    }
    return true;
}

static struct rl_key *place(struct rl *rl, const struct rl_stripe *s, uint32_t i)
{
    return &rl->slots[(size_t)s->chunks[i / RL_CHUNK] * RL_CHUNK + i % RL_CHUNK];
}

/* Places of the stripe that were ever used. */
static uint32_t places(const struct rl_stripe *s)
{
    return s->n_chunks ? (s->n_chunks - 1) * RL_CHUNK + s->fresh : 0;
}

static void free_line(struct rl *rl, struct rl_key *k)
{
    if (!rl_id_set(k->id) || !k->line)
        return;
    if (k->line->learned)
        rl_learned_drop(rl, k);
    if (k->line)
        k->line->pins = 0;
    rl_line_put(rl, k);
}

void rl_table_release(struct rl *rl)
{
    for (unsigned i = 0; i < RL_STRIPES; i++) {
        struct rl_stripe *s = &rl->stripes[i];

        for (uint32_t at = 0; at < places(s); at++)
            free_line(rl, place(rl, s, at));
        free(s->index);
        free(s->old);
        free(s->chunks);
    }
    if (rl->slots)
        munmap(rl->slots, region_bytes(rl));
}

static bool another_chunk(struct rl *rl, struct rl_stripe *s)
{
    uint32_t chunk;

    if (s->n_chunks == s->room_chunks) {
        uint32_t room = s->room_chunks ? 2 * s->room_chunks : 4;
        uint32_t *more = realloc(s->chunks, room * sizeof(*more));

        if (!more)
            return false;
        s->chunks = more;
        s->room_chunks = room;
    }
    chunk = atomic_load_explicit(&rl->next_chunk, memory_order_relaxed);
    do {
        if ((size_t)(chunk + 1) * RL_CHUNK > rl->slots_max)
            return false;
    } while (!atomic_compare_exchange_weak(&rl->next_chunk, &chunk, chunk + 1));
    s->chunks[s->n_chunks++] = chunk;
    s->fresh = 0;
    return true;
}

static struct rl_key *take_place(struct rl *rl, struct rl_stripe *s)
{
    struct rl_key *k;

    if (s->free) {
        k = &rl->slots[s->free - 1];
        s->free = k->next_free;
        return k;
    }
    if (s->fresh == RL_CHUNK && !another_chunk(rl, s))
        return NULL;
    return &rl->slots[(size_t)s->chunks[s->n_chunks - 1] * RL_CHUNK + s->fresh++];
}

/* ---- the index */

static void index_put(struct rl *rl, struct rl_stripe *s, struct rl_key *k)
{
    uint32_t i = (uint32_t)k->id.a & s->mask;

    while (s->index[i] != 0)
        i = (i + 1) & s->mask;
    s->index[i] = rl_word_tag(k->id) | (uint32_t)(k - rl->slots + 1);
    s->filled++;
    k->flags = (uint8_t)((k->flags & ~KEY_EPOCH) | s->epoch);
}

static void index_del(struct rl *rl, struct rl_stripe *s, const struct rl_key *k)
{
    uint32_t word = rl_word_tag(k->id) | (uint32_t)(k - rl->slots + 1), i = (uint32_t)k->id.a & s->mask;

    for (; s->index[i] != 0; i = (i + 1) & s->mask) {
        if (s->index[i] == word) {
            s->index[i] = RL_GONE;
            return;
        }
    }
}

static void carry_over(struct rl *rl, struct rl_stripe *s)
{
    uint32_t end = places(s);

    for (uint32_t n = 0; n < MOVE && s->moved < end; n++, s->moved++) {
        struct rl_key *k = place(rl, s, s->moved);

        if (rl_id_set(k->id) && (k->flags & KEY_EPOCH) != s->epoch)
            index_put(rl, s, k);
    }
    if (s->moved == end) {
        free(s->old);
        s->old = NULL;
    }
}

struct rl_key *rl_table_find_old(struct rl *rl, struct rl_stripe *s, struct rl_id id)
{
    struct rl_key *k = rl_index_find(rl, s->old, s->old_mask, id);

    carry_over(rl, s);
    return k;
}

/* Room for one more. False: memory is out, and the index is too full to go on without. */
static bool index_room(struct rl *rl, struct rl_stripe *s)
{
    uint32_t size = s->mask + 1, bigger;
    uint32_t *fresh;

    if (s->old)
        carry_over(rl, s);
    if ((uint64_t)s->filled * 4 < (uint64_t)size * 3)
        return true;
    if (s->old)
        return s->filled + 1 < size;
    bigger = s->len > size / 2 ? 2 * size : size;       /* full of what was forgotten: as large, but clean */
    fresh = calloc(bigger, sizeof(*fresh));
    if (!fresh)
        return s->filled + 1 < size;
    s->old = s->index;
    s->old_mask = s->mask;
    __atomic_store_n(&s->index, fresh, __ATOMIC_RELAXED);       /* rl_acquire() looks before it has the lock */
    __atomic_store_n(&s->mask, bigger - 1, __ATOMIC_RELAXED);
    s->filled = 0;
    s->moved = 0;
    s->epoch ^= KEY_EPOCH;
    carry_over(rl, s);
    return true;
}

/* ---- forgetting */

bool rl_key_idle(const struct rl_key *k, int64_t now, int64_t wall, const struct rl_limit *l)
{
    if (k->in_flight || (k->flags & KEY_KEEP) || k->not_before > now || k->full_at > now)
        return false;
    if (l->calendar && k->window_used && (int32_t)(rl_window_at(l->window_ns, l->window_offset, wall) - k->window) <= 0)
        return false;
    return !k->line || (k->line->learned && !k->line->pins && !k->line->waiting && !k->line->todo && !k->line->barrier
                        && rl_learned_says_nothing(k, now));
}

static void forget(struct rl *rl, struct rl_stripe *s, struct rl_key *k)
{
    index_del(rl, s, k);
    free_line(rl, k);
    *k = (struct rl_key){ .next_free = s->free };
    s->free = (uint64_t)(k - rl->slots) + 1;
    s->len--;
    s->counts.evicted++;
    atomic_fetch_sub_explicit(&rl->keys, 1, memory_order_relaxed);
}

/* Forgets one idle key, if the next `look` places have one: the first not used lately, else any. The lock is held. */
static bool evict(struct rl *rl, struct rl_stripe *s, uint32_t look, int64_t now)
{
    uint32_t end = places(s);
    int64_t wall = now + rl_wall_offset(rl);
    struct rl_key *second = NULL;

    for (uint32_t i = 0; i < look && i < end; i++) {
        struct rl_key *k;

        s->hand = s->hand + 1 < end ? s->hand + 1 : 0;
        k = place(rl, s, s->hand);
        if (!rl_id_set(k->id) || !rl_key_idle(k, now, wall, &rl->rules[k->rule]))
            continue;
        if (!(k->flags & KEY_RECENT)) {
            forget(rl, s, k);
            return true;
        }
        k->flags &= (uint8_t)~KEY_RECENT;
        second = k;
    }
    if (second)
        forget(rl, s, second);
    return second != NULL;
}

static bool make_room(struct rl *rl, uint64_t held, unsigned home, int64_t now)
{
    if (evict(rl, &rl->stripes[home], LOOK_HOME, now))
        return true;
    for (unsigned i = 1; i < RL_STRIPES; i++) {
        unsigned other = (home + i) % RL_STRIPES;
        bool mine = held >> other & 1, done;

        if (!mine && !try_lock(&rl->stripes[other].locked))
            continue;
        done = evict(rl, &rl->stripes[other], LOOK_OTHER, now);
        if (!mine)
            rl_unlock_one(&rl->stripes[other].locked);
        if (done)
            return true;
    }
    return false;
}

struct rl_key *rl_table_add(struct rl *rl, uint64_t held, struct rl_id id, uint16_t rule, int64_t now)
{
    unsigned stripe = RL_STRIPE_OF(id);
    struct rl_stripe *s = &rl->stripes[stripe];
    const struct rl_limit *l = &rl->rules[rule];
    struct rl_key *k = NULL;

    RL_ASSERT(held >> stripe & 1);
    while (atomic_fetch_add_explicit(&rl->keys, 1, memory_order_relaxed) >= rl->cfg.keys_max) {
        atomic_fetch_sub_explicit(&rl->keys, 1, memory_order_relaxed);
        if (!make_room(rl, held, stripe, now))
            return NULL;
    }
    if (index_room(rl, s))
        k = take_place(rl, s);
    if (!k && evict(rl, s, LOOK_HOME, now) && index_room(rl, s))
        k = take_place(rl, s);
    if (!k) {
        atomic_fetch_sub_explicit(&rl->keys, 1, memory_order_relaxed);
        return NULL;
    }
    *k = (struct rl_key){ .id = id, .full_at = now, .not_before = INT64_MIN, .rule = rule, .flags = l->gen };
    if (l->calendar)
        k->window = rl_window_at(l->window_ns, l->window_offset, now + rl_wall_offset(rl));
    index_put(rl, s, k);
    s->len++;
    return k;
}

bool rl_table_chunk(struct rl *rl, unsigned stripe, uint32_t chunk,
                    bool (*fn)(struct rl *rl, struct rl_key *k, void *arg), void *arg)
{
    struct rl_stripe *s = &rl->stripes[stripe];
    bool more;

    rl_lock_one(&s->locked);
    more = chunk < s->n_chunks;
    for (uint32_t i = 0; more && i < (chunk + 1 < s->n_chunks ? RL_CHUNK : s->fresh); i++) {
        struct rl_key *k = place(rl, s, chunk * RL_CHUNK + i);

        if (rl_id_set(k->id))
            more = fn(rl, k, arg);
    }
    rl_unlock_one(&s->locked);
    return more;
}

void rl_table_each(struct rl *rl, unsigned stripe, bool (*fn)(struct rl *rl, struct rl_key *k, void *arg), void *arg)
{
    for (uint32_t chunk = 0; rl_table_chunk(rl, stripe, chunk, fn, arg); chunk++)
        continue;
}
