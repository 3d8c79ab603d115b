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

struct id id_new(const char *prefix)
{
    static const char alphabet[] = "0123456789abcdefghjkmnpqrstvwxyz";
    size_t n = strlen(prefix);
    uint8_t bytes[RANDOM_LEN];
    unsigned __int128 v = 0;
    struct id id = { "" };

    ASSERT(n > 0 && n <= PREFIX_MAX);
    draw(bytes);
    for (size_t i = 0; i < RANDOM_LEN; i++)
        v = v << 8 | bytes[i];
    memcpy(id.z, prefix, n);
    id.z[n] = '_';
    for (size_t i = DIGITS; i > 0; i--, v >>= 5)
        id.z[n + i] = alphabet[(unsigned)v & 31];
    return id;
}
