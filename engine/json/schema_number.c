/*
 * schema_number.c -- is one decimal number a whole multiple of another? (multipleOf, exactly)
 *
 * Both are digits times a power of ten: x = X * 10^a, m = M * 10^b, X and M whole and not ending in 0.  x / m is whole
 * if and only if M divides X * 10^(a-b).  For a < b it cannot: X would have to end in 0.  Otherwise the remainder is
 * carried through the digits of X and then through the zeros, in 64 bits while M is short, else in limbs.
 *
 * The zeros can be many (1e308 by 1e-308), but M has at most 1024 digits: its powers of 2 and 5 are used up after 3402
 * zeros, and what is left of M is coprime to 10, so further zeros change nothing about whether the remainder is 0.
 */
#include "base/check.h"
#include "json/json_internal.h"
#include "json/schema_internal.h"

enum {
    SHORT_DIGITS = 18,                          /* r * 10 + 9 fits 64 bits for every r < 10^18 */
    LIMB = 1000000000,
    LIMB_DIGITS = 9,
    LIMBS_MAX = JSON_NUMBER_MAX / LIMB_DIGITS + 3,
    ZEROS_MAX = 3402,
};

STATIC_ASSERT(ZEROS_MAX >= JSON_NUMBER_MAX * 3322 / 1000, "2^n <= 10^digits needs n <= digits * log2(10)");

static bool divides_short(const struct decimal *x, const struct decimal *m, uint32_t zeros)
{
    uint64_t by = 0, r = 0;

    for (uint32_t i = 0; i < m->n; i++)
        by = by * 10 + (uint64_t)(m->digits[i] - '0');
    for (uint32_t i = 0; i < x->n; i++)
        r = (r * 10 + (uint64_t)(x->digits[i] - '0')) % by;
    for (uint32_t i = 0; i < zeros && r; i++)
        r = r * 10 % by;
    return r == 0;
}

/* Little-endian limbs of 9 digits, one more than the digits need. */
static uint32_t limbs_from(const struct decimal *d, uint32_t *limbs)
{
    uint32_t n = 0;

    for (uint32_t end = d->n; end > 0;) {
        uint32_t start = end > LIMB_DIGITS ? end - LIMB_DIGITS : 0, v = 0;

        for (uint32_t i = start; i < end; i++)
            v = v * 10 + (uint32_t)(d->digits[i] - '0');
        limbs[n++] = v;
        end = start;
    }
    limbs[n++] = 0;
    ASSERT(n <= LIMBS_MAX);
    return n;
}

static bool limbs_less(const uint32_t *a, const uint32_t *b, uint32_t n)
{
    while (n-- > 0)
        if (a[n] != b[n])
            return a[n] < b[n];
    return false;
}

/* r = (r * 10 + digit) mod by, for r < by. */
static void limbs_step(uint32_t *r, const uint32_t *by, uint32_t n, uint32_t digit)
{
    uint64_t carry = digit;

    for (uint32_t i = 0; i < n; i++) {
        carry += (uint64_t)r[i] * 10;
        r[i] = (uint32_t)(carry % LIMB);
        carry /= LIMB;
    }
    ASSERT(carry == 0);
    while (!limbs_less(r, by, n)) {             /* nine times at most */
        int64_t borrow = 0;

        for (uint32_t i = 0; i < n; i++) {
            borrow += (int64_t)r[i] - by[i];
            r[i] = (uint32_t)(borrow < 0 ? borrow + LIMB : borrow);
            borrow = borrow < 0 ? -1 : 0;
        }
    }
}

static bool divides_long(const struct decimal *x, const struct decimal *m, uint32_t zeros)
{
    uint32_t by[LIMBS_MAX], r[LIMBS_MAX] = { 0 };
    uint32_t n = limbs_from(m, by), any = 0;

    for (uint32_t i = 0; i < x->n; i++)
        limbs_step(r, by, n, (uint32_t)(x->digits[i] - '0'));
    for (uint32_t i = 0; i < zeros; i++)
        limbs_step(r, by, n, 0);
    for (uint32_t i = 0; i < n; i++)
        any |= r[i];
    return any == 0;
}

bool number_multiple(const struct json *x, const struct json *m)
{
    struct decimal dx, dm;
    int64_t zeros;

    ASSERT(json_is_number(x) && json_is_number(m));
    if (x->type == JSON_INT && m->type == JSON_INT && m->u.i > 0)
        return x->u.i % m->u.i == 0;
    decimal_from(&dx, json_num_raw(x));
    decimal_from(&dm, json_num_raw(m));
    ASSERT(dm.n > 0 && !dm.negative);
    if (dx.n == 0)
        return true;
    zeros = (dx.point - (int64_t)dx.n) - (dm.point - (int64_t)dm.n);
    if (zeros < 0)
        return false;
    if (zeros > ZEROS_MAX)
        zeros = ZEROS_MAX;
    return dm.n <= SHORT_DIGITS ? divides_short(&dx, &dm, (uint32_t)zeros) : divides_long(&dx, &dm, (uint32_t)zeros);
}
