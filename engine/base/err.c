/*
 * err.c -- the rows of errors.def as data
 *
 * Names are lower-cased once, before main(): journal, metrics and docs use that spelling.
 */
#include "base/err.h"

#include <stdarg.h>
#include <stdio.h>

#include "base/check.h"

enum { NAME_MAX_LEN = 31 };

static const char *const upper[ERR_COUNT] = {
    "OK",
#define ERR(name, class, retry, http, rpc, outcome, text) #name,
#include "base/errors.def"
#undef ERR
};

static struct err_row rows[ERR_COUNT] = {
    { NULL, ERR_US, RETRY_NEVER, 200, 0, OUTCOME_DONE, "ok" },
#define ERR(name, class, retry, http, rpc, outcome, text) \
    { NULL, ERR_##class, RETRY_##retry, http, rpc, OUTCOME_##outcome, text },
#include "base/errors.def"
#undef ERR
};

#define ERR(name, class, retry, http, rpc, outcome, text) \
    STATIC_ASSERT(sizeof(#name) - 1 <= NAME_MAX_LEN, "a name in errors.def is too long");
#include "base/errors.def"
#undef ERR

static char names[ERR_COUNT][NAME_MAX_LEN + 1];

__attribute__((constructor)) static void lower_names(void)
{
    for (size_t i = 0; i < ERR_COUNT; i++) {
        for (size_t k = 0; upper[i][k]; k++) {
            char c = upper[i][k];

            names[i][k] = c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
        }
        rows[i].name = names[i];
    }
}

const struct err_row *err_row(enum err e)
{
    ASSERT((unsigned)e < ERR_COUNT);
    return &rows[e];
}

const char *err_name(enum err e)
{
    return err_row(e)->name;
}

const char *err_text(enum err e)
{
    return err_row(e)->text;
}

const char *outcome_name(enum outcome o)
{
    switch (o) {
    case OUTCOME_NONE:    return "none";
    case OUTCOME_DONE:    return "done";
    case OUTCOME_REFUSED: return "refused";
    case OUTCOME_FAILED:  return "failed";
    case OUTCOME_UNKNOWN: return "unknown";
    }
    UNREACHABLE();
}

const char *err_class_name(enum err_class c)
{
    switch (c) {
    case ERR_CALLER:   return "caller";
    case ERR_POLICY:   return "policy";
    case ERR_CAPACITY: return "capacity";
    case ERR_UPSTREAM: return "upstream";
    case ERR_US:       return "us";
    }
    UNREACHABLE();
}

enum err (err_set)(struct errinfo *info, enum err e, const char *fmt, ...)
{
    va_list ap;

    if (!info)
        return e;
    va_start(ap, fmt);
    vsnprintf(info->text, sizeof(info->text), fmt, ap);
    va_end(ap);
    return e;
}
