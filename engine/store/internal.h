/*
 * internal.h -- what the files of store/ share: one connection, its statements, and how a statement is run
 *
 * Every public function is: sql_enter, some statements, sql_leave.  Between the two the calling thread owns the
 * connection.
 */
#ifndef STORE_INTERNAL_H
#define STORE_INTERNAL_H

#include "base/check.h"
#include "store/store.h"

#include <pthread.h>
#include <sqlite3.h>

enum { STORE_MAGIC = 0x53746f72, STORE_STATEMENTS_MAX = 48 };

struct store {
    uint32_t magic;
    sqlite3 *db;
    pthread_mutex_t lock;
    struct {
        const char *sql;            /* the literal's address is the key */
        sqlite3_stmt *st;
    } cache[STORE_STATEMENTS_MAX];
    unsigned n_cache;
    char *path;
    bool bulk;                      /* within one transaction of many functions' making: store_bulk_begin() */
};

/* One statement being run. Zeroed by sql_begin; sql_end may be called more than once. */
struct sql {
    struct store *s;
    struct errinfo *info;
    sqlite3_stmt *st;
};

/* Takes the connection. Asserts that no loop's thread is kept waiting. */
void sql_enter(struct store *s);
void sql_leave(struct store *s);

/*
 * Prepares (once per literal) and binds. `kinds`, one letter per parameter: t struct str as text, b struct str as blob,
 * i int64_t. On error the statement needs no sql_end.
 */
enum err sql_begin(struct store *s, struct sql *q, struct errinfo *info, const char *sql, const char *kinds, ...);
/* OK with *ret_row telling whether a row is there to be read. */
enum err sql_step(struct sql *q, bool *ret_row);
void sql_end(struct sql *q);
/* Begin, step to the end, end. *ret_changed (may be NULL): rows changed. */
enum err sql_run(struct store *s, struct errinfo *info, int *ret_changed, const char *sql, const char *kinds, ...);
/* Columns of the current row; the bytes live until the next step. */
struct str sql_text(struct sql *q, int column);
struct str sql_blob(struct sql *q, int column);
int64_t sql_int(struct sql *q, int column);

/* BEGIN IMMEDIATE; and COMMIT when e is OK, else ROLLBACK. Answers e, or the commit's own error. In bulk: a
 * savepoint. */
enum err sql_transaction(struct store *s, struct errinfo *info);
enum err sql_finish(struct store *s, enum err e, struct errinfo *info);

/* Turns a result code of the connection into an error, with a line that says what to do. */
enum err sql_error(struct store *s, int rc, struct errinfo *info);

#endif
