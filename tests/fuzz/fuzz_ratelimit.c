/*
 * fuzz_ratelimit.c -- a saved state from a damaged disk
 *
 * The input is loaded as it is when its first byte is odd; else the rest of it is records, to which header, rules and
 * checksums are made here, so that what is behind the checksums is reached.  What must hold: no crash; every key that
 * came out of it can be asked for, and none is blocked for over 400 days; what is then saved is loaded again whole.
 */
#include <stdlib.h>
#include <string.h>

#include "ratelimit/internal.h"

#define S    ((int64_t)1000000000)
#define WALL (1700000000 * S)
#define LONG (400 * 86400 * S)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static struct {
    uint8_t bytes[1 << 16];
    size_t n;
} file;

static bool write_file(void *arg, const void *p, size_t n)
{
    (void)arg;
    if (n > sizeof(file.bytes) - file.n)
        return false;
    memcpy(file.bytes + file.n, p, n);
    file.n += n;
    return true;
}

static struct rl *limiter(void)
{
    struct rl_config config = { .keys_max = 4096, .rules_max = 8, .names_max = 4, .seed = { 1, 2 } };
    struct rl_rule rules[] = {
        { .rate = RL_RATE_BUCKET, .amount = 100, .window_ns = 100 * S, .tag = 1 },
        { .rate = RL_RATE_WINDOW, .amount = 3, .window_ns = 86400 * S, .concurrency = 2, .spacing_ns = S, .tag = 2 },
        { .calendar_amount = 10, .calendar_ns = 3600 * S, .calendar_offset_ns = -S, .tag = 3 },
    };
    struct rl *rl = rl_new(&config);

    if (!rl)
        abort();
    for (uint16_t i = 0; i < 3; i++)
        if (!rl_rule_set(rl, i, &rules[i], 0))
            abort();
    rl_wall(rl, WALL, 0);
    return rl;
}

static bool ask_for(void *arg, const struct rl_key_stats *s)
{
    struct rl_id *ids = arg;

    ids[s->id.a % 64] = s->id;
    ids[64 + s->id.a % 64].a = s->rule;
    return true;
}

static void ask_all(struct rl *rl)
{
    static struct rl_id ids[128];

    memset(ids, 0, sizeof(ids));
    rl_visit(rl, true, 0, ask_for, ids);
    for (int i = 0; i < 64; i++) {
        struct rl_ask ask = { .id = ids[i], .rule = (uint16_t)ids[64 + i].a, .cost = 1 };
        struct rl_waiter w = { 0 };

        if (!rl_id_set(ids[i]))
            continue;
        if (rl_acquire(rl, &w, &ask, 1, 0, 1) == RL_GRANTED)
            rl_release(rl, &w.permit, 1);
        else if (w.result != RL_LATE || w.retry_at > LONG + LONG)
            abort();
    }
}

/* Header of a state with the rules above, then the input cut into blocks. */
static void frame(const uint8_t *data, size_t n)
{
    struct rl *rl = limiter();
    uint32_t number = 0;

    file.n = 0;
    if (!rl_save(rl, write_file, NULL, 0))
        abort();
    rl_free(rl);
    file.n -= 24;                   /* without the end */
    while (n >= 64 && file.n + 8 + 64 * 64 + 8 + 24 < sizeof(file.bytes)) {
        uint32_t records = n / 64 > 64 ? 64 : (uint32_t)(n / 64);
        uint8_t *from = file.bytes + file.n;
        uint64_t sum;

        memcpy(from, &records, 4);
        memcpy(from + 4, &number, 4);
        memcpy(from + 8, data, records * 64);
        sum = rl_checksum(from, 8 + records * 64);
        memcpy(from + 8 + records * 64, &sum, 8);
        file.n += 16 + records * 64;
        data += records * 64;
        n -= records * 64;
        number++;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct rl *rl = limiter();
    size_t keys = 0, again = 0;

    if (n == 0 || data[0] & 1) {
        (void)rl_load(rl, data, n, 0, &keys);
    } else {
        frame(data + 1, n - 1);
        if (rl_load(rl, file.bytes, file.n, 0, &keys) != RL_LOAD_TORN)
            abort();                /* it has no end */
    }
    file.n = 0;
    if (rl_save(rl, write_file, NULL, 0)) {
        struct rl *other = limiter();

        if (rl_load(other, file.bytes, file.n, 0, &again) != RL_LOADED || again > keys)
            abort();
        ask_all(other);
        rl_free(other);
    }
    ask_all(rl);
    rl_free(rl);
    return 0;
}
