/*
 * store.c -- the SQLite file: opening, schema, running statements
 *
 * One connection behind a mutex.  Write-ahead log with synchronous=FULL, so a committed transaction survives power
 * loss. The file is recognised by application_id "slci" and its schema numbered by user_version: entry n of
 * `migrations` leads from version n to n + 1, all pending ones in one transaction.  Never edit an entry that was
 * released; append.
 *
 * Can fail: file damaged or foreign (E_CONFIG at open, E_STORE_UNAVAILABLE later), locked by another process for longer
 * than BUSY_MS, disk full, read-only, unreadable.  Each failure leaves the last committed state.
 */
#include "store/internal.h"

#include "loop/world.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum {
    APPLICATION_ID = 0x736c6369,        /* "slci" */
    BUSY_MS = 3000,
    QUICK_CHECK_PAGES_MAX = 16384,      /* 64 MiB of 4 KiB pages: half a second; larger files are checked by use only */
};

static const char *const migrations[] = {
    "CREATE TABLE accounts ("
    "  tenant TEXT NOT NULL, id TEXT NOT NULL, user TEXT NOT NULL, provider TEXT NOT NULL, label TEXT NOT NULL,"
    "  external_id TEXT NOT NULL, scopes TEXT NOT NULL, status INTEGER NOT NULL, created INTEGER NOT NULL,"
    "  PRIMARY KEY (tenant, id), UNIQUE (tenant, user, provider, label)) WITHOUT ROWID;"
    "CREATE TABLE grants ("
    "  tenant TEXT NOT NULL, account TEXT NOT NULL, generation INTEGER NOT NULL, sealed BLOB NOT NULL,"
    "  obtained INTEGER NOT NULL, expires INTEGER NOT NULL, refreshing INTEGER NOT NULL DEFAULT 0,"
    "  PRIMARY KEY (tenant, account),"
    "  FOREIGN KEY (tenant, account) REFERENCES accounts (tenant, id) ON DELETE CASCADE);"
    "CREATE TABLE pending ("
    "  key BLOB NOT NULL PRIMARY KEY, tenant TEXT NOT NULL, user TEXT NOT NULL, provider TEXT NOT NULL,"
    "  sealed BLOB NOT NULL, expires INTEGER NOT NULL);"
    "CREATE INDEX pending_user ON pending (tenant, user, expires);"
    "CREATE INDEX pending_expires ON pending (expires);"
    "CREATE TABLE keys ("
    "  tenant TEXT NOT NULL PRIMARY KEY, sealed BLOB NOT NULL, created INTEGER NOT NULL) WITHOUT ROWID;"
    "CREATE TABLE meta (key TEXT NOT NULL PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;",

    "CREATE TABLE delegations ("
    "  tenant TEXT NOT NULL, id TEXT NOT NULL, user TEXT NOT NULL, agent TEXT NOT NULL, created INTEGER NOT NULL,"
    "  sealed BLOB NOT NULL, PRIMARY KEY (tenant, id), UNIQUE (tenant, user, agent)) WITHOUT ROWID;",
};

/* ---- errors ------------------------------------------------------------------------------------------------------ */

enum err sql_error(struct store *s, int rc, struct errinfo *info)
{
    const char *what = s->db ? sqlite3_errmsg(s->db) : sqlite3_errstr(rc);

    switch (rc & 0xff) {
    case SQLITE_NOTADB:
        return err_set(info, E_CONFIG, "store %s is not a database of sluice; give another path", s->path);
    case SQLITE_CORRUPT:
        return err_set(info, E_STORE_UNAVAILABLE, "store %s is damaged (%s); restore it from a backup", s->path, what);
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
        return err_set(info, E_STORE_UNAVAILABLE, "store %s is locked by another process", s->path);
    case SQLITE_FULL:
        return err_set(info, E_STORE_UNAVAILABLE, "store %s cannot grow: the disk is full", s->path);
    case SQLITE_READONLY:
    case SQLITE_PERM:
        return err_set(info, E_STORE_UNAVAILABLE, "store %s cannot be written (%s); check its owner and mode", s->path,
            what);
    case SQLITE_CANTOPEN:
        return err_set(info, E_STORE_UNAVAILABLE, "store %s cannot be opened (%s)", s->path, what);
    case SQLITE_IOERR:
        return err_set(info, E_STORE_UNAVAILABLE, "store %s cannot be read or written (%s)", s->path, what);
    default:
        return err_set(info, E_STORE_UNAVAILABLE, "store %s: %s (code %d)", s->path, what, rc);
    }
}

/* ---- statements -------------------------------------------------------------------------------------------------- */

void sql_enter(struct store *s)
{
    MAGIC_CHECK(s, STORE_MAGIC);
    ASSERT(!loop_here() || !world->threads);
    pthread_mutex_lock(&s->lock);
}

void sql_leave(struct store *s)
{
    ASSERT(s->bulk || sqlite3_get_autocommit(s->db));
    pthread_mutex_unlock(&s->lock);
}

static enum err statement(struct store *s, const char *sql, sqlite3_stmt **ret, struct errinfo *info)
{
    int rc;

    for (unsigned i = 0; i < s->n_cache; i++) {
        if (s->cache[i].sql == sql) {
            *ret = s->cache[i].st;
            return OK;
        }
    }
    ASSERT(s->n_cache < STORE_STATEMENTS_MAX);
    rc = sqlite3_prepare_v3(s->db, sql, -1, SQLITE_PREPARE_PERSISTENT, ret, NULL);
    if (rc != SQLITE_OK)
        return sql_error(s, rc, info);
    s->cache[s->n_cache].sql = sql;
    s->cache[s->n_cache++].st = *ret;
    return OK;
}

static enum err bind_all(struct store *s, struct sql *q, const char *kinds, va_list ap)
{
    for (int i = 0; kinds[i]; i++) {
        int rc;

        if (kinds[i] == 'i') {
            rc = sqlite3_bind_int64(q->st, i + 1, va_arg(ap, int64_t));
        } else {
            struct str v = va_arg(ap, struct str);
            const char *p = v.p ? v.p : "";

            ASSERT(kinds[i] == 't' || kinds[i] == 'b');
            rc = kinds[i] == 't' ? sqlite3_bind_text64(q->st, i + 1, p, v.len, SQLITE_STATIC, SQLITE_UTF8)
                                 : sqlite3_bind_blob64(q->st, i + 1, p, v.len, SQLITE_STATIC);
        }
        if (rc != SQLITE_OK) {
            sql_end(q);
            return sql_error(s, rc, q->info);
        }
    }
    return OK;
}

static enum err begin(struct store *s, struct sql *q, struct errinfo *info, const char *sql, const char *kinds,
    va_list ap)
{
    enum err e;

    *q = (struct sql){ .s = s, .info = info };
    e = statement(s, sql, &q->st, info);
    return e ? e : bind_all(s, q, kinds, ap);
}

enum err sql_begin(struct store *s, struct sql *q, struct errinfo *info, const char *sql, const char *kinds, ...)
{
    va_list ap;
    enum err e;

    va_start(ap, kinds);
    e = begin(s, q, info, sql, kinds, ap);
    va_end(ap);
    return e;
}

enum err sql_step(struct sql *q, bool *ret_row)
{
    int rc = sqlite3_step(q->st);

    if (rc != SQLITE_ROW && rc != SQLITE_DONE) {
        enum err e = sql_error(q->s, rc, q->info);

        sql_end(q);
        return e;
    }
    *ret_row = rc == SQLITE_ROW;
    return OK;
}

void sql_end(struct sql *q)
{
    if (!q->st)
        return;
    sqlite3_reset(q->st);               /* repeats the error of the last step, which was reported then */
    sqlite3_clear_bindings(q->st);
    q->st = NULL;
}

enum err sql_run(struct store *s, struct errinfo *info, int *ret_changed, const char *sql, const char *kinds, ...)
{
    struct sql q;
    bool row = true;
    va_list ap;
    enum err e;

    va_start(ap, kinds);
    e = begin(s, &q, info, sql, kinds, ap);
    va_end(ap);
    while (!e && row)
        e = sql_step(&q, &row);
    if (!e && ret_changed)
        *ret_changed = sqlite3_changes(s->db);
    sql_end(&q);
    return e;
}

struct str sql_blob(struct sql *q, int column)
{
    const void *p = sqlite3_column_blob(q->st, column);

    return str_n(p ? p : "", (size_t)sqlite3_column_bytes(q->st, column));
}

struct str sql_text(struct sql *q, int column)
{
    const unsigned char *p = sqlite3_column_text(q->st, column);

    return str_n(p ? (const char *)p : "", (size_t)sqlite3_column_bytes(q->st, column));
}

int64_t sql_int(struct sql *q, int column)
{
    return sqlite3_column_int64(q->st, column);
}

enum err sql_transaction(struct store *s, struct errinfo *info)
{
    if (s->bulk)
        return sql_run(s, info, NULL, "SAVEPOINT one", "");
    return sql_run(s, info, NULL, "BEGIN IMMEDIATE", "");
}

enum err sql_finish(struct store *s, enum err e, struct errinfo *info)
{
    if (s->bulk) {
        if (e)
            sqlite3_exec(s->db, "ROLLBACK TO one", NULL, NULL, NULL);
        return sql_run(s, e ? NULL : info, NULL, "RELEASE one", "") ? E_STORE_UNAVAILABLE : e;
    }
    if (!e)
        e = sql_run(s, info, NULL, "COMMIT", "");
    /* A failed COMMIT leaves the transaction open, a failed statement may have ended it. */
    if (!sqlite3_get_autocommit(s->db))
        sqlite3_exec(s->db, "ROLLBACK", NULL, NULL, NULL);
    return e;
}

/* ---- opening ----------------------------------------------------------------------------------------------------- */

static enum err exec(struct store *s, const char *sql, struct errinfo *info)
{
    int rc = sqlite3_exec(s->db, sql, NULL, NULL, NULL);

    return rc == SQLITE_OK ? OK : sql_error(s, rc, info);
}

static enum err number(struct store *s, const char *sql, int64_t *ret, struct errinfo *info)
{
    struct sql q;
    bool row = false;
    enum err e = sql_begin(s, &q, info, sql, "");

    if (!e)
        e = sql_step(&q, &row);
    if (!e)
        *ret = row ? sql_int(&q, 0) : 0;
    sql_end(&q);
    return e;
}

/* The mode of the file (and of -wal and -shm, which copy it) must be ours, not the umask's. */
static enum err make_file(struct store *s, struct errinfo *info)
{
    int fd;

    if (!strcmp(s->path, ":memory:"))
        return OK;
    fd = open(s->path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return err_set(info, E_CONFIG, "store %s cannot be opened: %s", s->path, strerror(errno));
    close(fd);
    return OK;
}

static enum err check_owner(struct store *s, int64_t *ret_version, struct errinfo *info)
{
    int64_t app, tables, version;
    enum err e = number(s, "PRAGMA application_id", &app, info);

    if (!e)
        e = number(s, "PRAGMA user_version", &version, info);
    if (!e)
        e = number(s, "SELECT count(*) FROM sqlite_master", &tables, info);
    if (e)
        return e;
    if (app != APPLICATION_ID && (app || version || tables))
        return err_set(info, E_CONFIG, "store %s is a database of another program; give another path", s->path);
    if (version < 0 || version > (int64_t)ARRAY_LEN(migrations))
        return err_set(info, E_CONFIG, "store %s has schema %lld, this sluice knows up to %d: use a newer sluice",
            s->path,
            (long long)version, (int)ARRAY_LEN(migrations));
    *ret_version = version;
    return OK;
}

static enum err migrate(struct store *s, int64_t version, struct errinfo *info)
{
    char pragma[96];
    enum err e;

    if (version == (int64_t)ARRAY_LEN(migrations))
        return OK;
    e = exec(s, "BEGIN IMMEDIATE", info);
    for (size_t i = (size_t)version; !e && i < ARRAY_LEN(migrations); i++)
        e = exec(s, migrations[i], info);
    snprintf(pragma, sizeof(pragma), "PRAGMA application_id = %d; PRAGMA user_version = %d;", APPLICATION_ID,
        (int)ARRAY_LEN(migrations));
    if (!e)
        e = exec(s, pragma, info);
    return sql_finish(s, e, info);
}

static enum err quick_check(struct store *s, struct errinfo *info)
{
    struct sql q;
    int64_t pages;
    bool row = false;
    enum err e = number(s, "PRAGMA page_count", &pages, info);

    if (e || pages > QUICK_CHECK_PAGES_MAX)
        return e;
    e = sql_begin(s, &q, info, "PRAGMA quick_check(1)", "");
    if (!e)
        e = sql_step(&q, &row);
    if (!e && !(row && str_is(sql_text(&q, 0), "ok")))
        e = err_set(info, E_CONFIG, "store %s is damaged; restore it from a backup", s->path);
    sql_end(&q);
    return e;
}

static enum err set_up(struct store *s, struct errinfo *info)
{
    int64_t version = 0;
    enum err e = make_file(s, info);
    int rc;

    if (e)
        return e;
    rc = sqlite3_open_v2(s->path, &s->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX, NULL);
    if (rc != SQLITE_OK)
        return sql_error(s, rc, info);
    sqlite3_busy_timeout(s->db, BUSY_MS);
    sqlite3_db_config(s->db, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
    sqlite3_db_config(s->db, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, NULL);
    /* Ours or not is asked before anything is written: the journal mode lives in the file. */
    e = check_owner(s, &version, info);
    if (!e)
        e = exec(s, "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA foreign_keys=ON;"
            "PRAGMA cell_size_check=ON; PRAGMA secure_delete=ON", info);
    if (!e)
        e = quick_check(s, info);
    if (!e)
        e = migrate(s, version, info);
    /* At start there is nothing to go on with: damage is for the operator to mend. */
    return e == E_STORE_UNAVAILABLE && (sqlite3_errcode(s->db) & 0xff) == SQLITE_CORRUPT ? E_CONFIG : e;
}

enum err store_open(const char *path, struct store **ret, struct errinfo *info)
{
    struct store *s = calloc(1, sizeof(*s));
    enum err e;

    ASSERT(s);
    s->magic = STORE_MAGIC;
    pthread_mutex_init(&s->lock, NULL);
    s->path = strdup(path);
    ASSERT(s->path);
    e = set_up(s, info);
    if (e) {
        store_close(s);
        return e;
    }
    *ret = s;
    return OK;
}

enum err store_bulk_begin(struct store *s, struct errinfo *info)
{
    enum err e;

    sql_enter(s);
    ASSERT(!s->bulk);
    /* rows come in no order: what does not fit into the cache is written more than once */
    e = exec(s, "PRAGMA cache_size=-262144", info);
    if (!e)
        e = sql_transaction(s, info);
    s->bulk = !e;
    sql_leave(s);
    return e;
}

enum err store_bulk_end(struct store *s, struct errinfo *info)
{
    enum err e;

    sql_enter(s);
    ASSERT(s->bulk);
    s->bulk = false;
    e = sql_finish(s, OK, info);
    sql_leave(s);
    return e;
}

void store_close(struct store *s)
{
    if (!s)
        return;
    MAGIC_CHECK(s, STORE_MAGIC);
    for (unsigned i = 0; i < s->n_cache; i++)
        sqlite3_finalize(s->cache[i].st);
    sqlite3_close(s->db);
    pthread_mutex_destroy(&s->lock);
    free(s->path);
    s->magic = 0;
    free(s);
}

enum err store_check(struct store *s, struct errinfo *info)
{
    enum err e;

    sql_enter(s);
    e = sql_transaction(s, info);
    if (!e)
        e = sql_run(s, info, NULL, "INSERT INTO meta (key, value) VALUES ('check', ?) "
            "ON CONFLICT (key) DO UPDATE SET value = excluded.value", "b", STR("1"));
    /* The lock and a page were had: enough. Nothing is kept, so no disk is worn out by readiness probes. */
    if (!sqlite3_get_autocommit(s->db))
        sqlite3_exec(s->db, "ROLLBACK", NULL, NULL, NULL);
    sql_leave(s);
    return e;
}
