/*
 * fuzz_quota.c -- header fields of providers: moments and quotas
 *
 * The first line is what a limit's declaration says, the second is the value of every field that is asked for.
 * What must hold: a wait is -1 or within its bound, and so are counts; nothing outside the bytes is looked at.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "call/quota.h"

#define NOW 1795186800000LL

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static const char *field(void *arg, const char *name)
{
    ASSERT(name != NULL);
    return arg;
}

static bool wait_sound(int64_t ms)
{
    return ms >= -1 && ms <= QUOTA_WAIT_MS_MAX;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    char *text = malloc(n + 1), *value;
    struct quota_seen q;

    ASSERT(text != NULL);
    memcpy(text, data, n);
    text[n] = '\0';
    value = strchr(text, '\n');
    if (value) {
        size_t len = strlen(value + 1);
        char *exact = malloc(len ? len : 1);        /* as a view: no byte behind it may be read */

        *value++ = '\0';
        ASSERT(exact != NULL);
        memcpy(exact, value, len);
        ASSERT(wait_sound(quota_wait_ms(str_n(exact, len), NOW)));
        quota_read(text, field, value, quota_clock(field, value, NOW), &q);
        ASSERT(q.limit >= -1 && q.limit <= 1LL << 40 && q.remaining >= -1 && q.remaining <= 1LL << 40);
        ASSERT(wait_sound(q.reset_ms));
        free(exact);
    }
    free(text);
    return 0;
}
