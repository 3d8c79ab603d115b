/*
 * ext.h -- the extension types: decimal, ipaddr, datetime, duration (room-private)
 *
 * Parsers answer false for text that is not in the form; operations answer false when the result does not fit.
 */
#ifndef POLICY_EXT_H
#define POLICY_EXT_H

#include "policy/value.h"

enum ext_fn {
    EXT_DECIMAL, EXT_IP, EXT_DATETIME, EXT_DURATION,    /* the constructors come first */
    EXT_DEC_LT, EXT_DEC_LE, EXT_DEC_GT, EXT_DEC_GE,
    EXT_IS_IPV4, EXT_IS_IPV6, EXT_IS_LOOPBACK, EXT_IS_MULTICAST, EXT_IS_IN_RANGE,
    EXT_OFFSET, EXT_DURATION_SINCE, EXT_TO_DATE, EXT_TO_TIME,
    EXT_TO_MS, EXT_TO_S, EXT_TO_MIN, EXT_TO_H, EXT_TO_DAYS,
    EXT_COUNT,
};

struct ext_row {
    const char *name;
    uint8_t method;             /* called as x.name(...), else name(...) */
    uint8_t n_args;             /* the receiver included */
    uint8_t arg0, arg1;         /* kinds wanted */
};

extern const struct ext_row ext_rows[EXT_COUNT];

/* -1 if there is none. */
int ext_find(struct str name);

enum ext_result { EXT_OK, EXT_TYPE, EXT_ARITY, EXT_FORMAT, EXT_RANGE, EXT_MEMORY };

/* Calls `fn` on n arguments. Only ip() needs the arena. */
enum ext_result ext_call(enum ext_fn fn, const struct policy_value *args, size_t n, struct arena *a,
    struct policy_value *ret);

bool decimal_parse(struct str s, int64_t *ret);
bool ip_parse(struct str s, struct policy_ip *ret);
bool datetime_parse(struct str s, int64_t *ret);
bool duration_parse(struct str s, int64_t *ret);
void decimal_write(struct buf *out, int64_t v);
void ip_write(struct buf *out, const struct policy_ip *ip);

#endif
