/*
 * err.h -- result codes (the table is errors.def) and a place for the story behind one
 *
 * A function that can fail returns enum err, OK being 0; outputs go through ret_ pointers, set only on OK.
 * Where a person must be told more, a struct errinfo carries one line: what happened, where, what to do.
 */
#ifndef BASE_ERR_H
#define BASE_ERR_H

#include <stddef.h>

enum err {
    OK = 0,
#define ERR(name, class, retry, http, rpc, outcome, text) E_##name,
#include "base/errors.def"
#undef ERR
    ERR_COUNT
};

enum err_class { ERR_CALLER, ERR_POLICY, ERR_CAPACITY, ERR_UPSTREAM, ERR_US };
enum err_retry { RETRY_NEVER, RETRY_AFTER, RETRY_WITH_KEY, RETRY_INTERNAL };
enum outcome { OUTCOME_NONE, OUTCOME_DONE, OUTCOME_REFUSED, OUTCOME_FAILED, OUTCOME_UNKNOWN };

struct err_row {
    const char *name;           /* lower case: journal, metrics, docs */
    enum err_class class;
    enum err_retry retry;
    int http;
    int rpc;                    /* 0: reported as a tool result with isError */
    enum outcome outcome;
    const char *text;
};

/* The row of `e`; `e` must be a value of the enum (asserted). */
const struct err_row *err_row(enum err e);
const char *err_name(enum err e);
const char *err_text(enum err e);
const char *outcome_name(enum outcome o);
const char *err_class_name(enum err_class c);

/* One line for a person. Never put a secret or another tenant's data here. */
struct errinfo {
    char text[400];
};

/* Formats into `info` (which may be NULL) and returns `e`: `return err_set(info, E_CONFIG, "...")`. */
enum err err_set(struct errinfo *info, enum err e, const char *fmt, ...) __attribute__((cold, format(printf, 3, 4)));
#ifdef __clang_analyzer__       /* which sees one file at a time, and must know that what is returned is an error */
#define err_set(info, e, ...)   ((void)(err_set)(info, e, __VA_ARGS__), (e))
#endif

#endif
