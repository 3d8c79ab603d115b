/*
 * ids.c -- random names, drawn from a batch of random bytes per thread
 *
 * A batch must not be shared by two processes: after fork() the child throws its copy away.  When the simulator
 * supplies the randomness nothing is batched, so that a run depends on its seed alone.
 */
#include "base/ids.h"

#include <pthread.h>

#include "base/check.h"
#include "base/crypto.h"

enum { RANDOM_LEN = 16, DIGITS = 26, PREFIX_MAX = 8, BATCH = 64 * RANDOM_LEN };

STATIC_ASSERT(PREFIX_MAX + 1 + DIGITS < ID_MAX, "an id and its NUL must fit");

static __thread struct {
    uint8_t bytes[BATCH];
    size_t left;
} batch;

static pthread_once_t once = PTHREAD_ONCE_INIT;

static void forget_batch(void)
{
    bytes_wipe(&batch, sizeof(batch));
}

static void watch_fork(void)
{
    ASSERT(pthread_atfork(NULL, NULL, forget_batch) == 0);
}

static void draw(uint8_t out[RANDOM_LEN])
{
    if (crypto_random_hook) {
        crypto_random(out, RANDOM_LEN);
        return;
    }
    if (batch.left == 0) {
        pthread_once(&once, watch_fork);
        crypto_random(batch.bytes, BATCH);
        batch.left = BATCH;
    }
    batch.left -= RANDOM_LEN;
    memcpy(out, batch.bytes + batch.left, RANDOM_LEN);
    bytes_wipe(batch.bytes + batch.left, RANDOM_LEN);
}

/* The last n characters before `end` are n times the lowest five bits. */
static void put_digits(char *end, size_t n, uint64_t v)
{
    static const char alphabet[] = "0123456789abcdefghjkmnpqrstvwxyz";

    for (; n > 0; n--, v >>= 5)
        *--end = alphabet[v & 31];
}

struct id id_new(const char *prefix)
{
    size_t n = strlen(prefix);
    uint8_t bytes[RANDOM_LEN];
    uint64_t high, low;
    struct id id = { "" };
    char *end;

    ASSERT(n > 0 && n <= PREFIX_MAX);
    end = id.z + n + 1 + DIGITS;
    draw(bytes);
    memcpy(&high, bytes, 8);
    memcpy(&low, bytes + 8, 8);
    high = __builtin_bswap64(high);
    low = __builtin_bswap64(low);
    memcpy(id.z, prefix, n);
    id.z[n] = '_';
    put_digits(end, 12, low);                           /* twelve digits are 60 bits: 4 + 56, then the 8 above */
    put_digits(end - 12, 12, high << 4 | low >> 60);
    put_digits(end - 24, 2, high >> 56);
    return id;
}
