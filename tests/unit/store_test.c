/* store_test.c -- the store on real files: what is kept, what races lose, and what is said about damaged files */
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>
#include <sqlite3.h>

#include "store/store.h"

static char dir[64];

static void path_of(const char *name, char out[128])
{
    snprintf(out, 128, "%s/%s", dir, name);
}

static int make_dir(void **state)
{
    snprintf(dir, sizeof(dir), "/tmp/sluice-store-XXXXXX");
    return mkdtemp(dir) ? 0 : -1;
}

static int remove_dir(void **state)
{
    char command[128];

    snprintf(command, sizeof(command), "rm -rf %s", dir);
    return system(command);
}

static struct store *open_store(const char *path)
{
    struct errinfo info = { "" };
    struct store *s = NULL;

    if (store_open(path, &s, &info))
        fail_msg("%s", info.text);
    return s;
}

static struct store_account account(const char *id, const char *label)
{
    return (struct store_account){
        .tenant = STR("acme"), .id = str_of(id), .user = STR("ann"), .provider = STR("github"), .label = str_of(label),
        .external_id = STR("ann@x"), .scopes = STR("repo user"), .created = 1000,
    };
}

static void put(struct store *s, const char *id, const char *label, uint64_t generation, const char *sealed,
    bool stored)
{
    struct store_account a = account(id, label);
    struct store_grant g = { generation, str_of(sealed), 5, 500, 0 };
    struct errinfo info = { "" };
    bool done = !stored;

    if (store_account_put(s, &a, &g, &done, &info))
        fail_msg("%s", info.text);
    assert_int_equal(done, stored);
}

/* "generation:sealed:refreshing", or "-" */
static const char *grant_of(struct store *s, const char *tenant, const char *id)
{
    static char text[128];
    struct store_grant g;
    struct arena a;
    enum err e;

    arena_init(&a, 4096);
    e = store_grant_get(s, str_of(tenant), str_of(id), &a, &g, NULL);
    if (e == E_NOT_FOUND)
        snprintf(text, sizeof(text), "-");
    else
        snprintf(text, sizeof(text), "%llu:%.*s:%lld", (unsigned long long)g.generation, STR_ARG(g.sealed),
            (long long)g.refreshing);
    assert_true(e == OK || e == E_NOT_FOUND);
    arena_release(&a);
    return text;
}

/* ---- accounts and grants ----------------------------------------------------------------------------------------- */

static enum err list_one(const struct store_account *a, const struct store_grant *g, void *arg)
{
    char *out = arg;

    sprintf(out + strlen(out), "%.*s/%.*s/%.*s/%.*s/%.*s/%.*s/%.*s status=%d gen=%d exp=%d;", STR_ARG(a->tenant),
        STR_ARG(a->id), STR_ARG(a->user), STR_ARG(a->provider), STR_ARG(a->label), STR_ARG(a->external_id),
        STR_ARG(a->scopes), a->status, (int)g->generation, (int)g->expires);
    return OK;
}

static void keeps_accounts_over_a_restart(void **state)
{
    char path[128], list[512] = "";
    struct store *s;
    struct stat st;

    path_of("a.db", path);
    s = open_store(path);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    put(s, "acct_1", "", 1, "one", true);
    put(s, "acct_2", "work", 1, "two", true);
    store_close(s);

    s = open_store(path);
    assert_int_equal(store_accounts_each(s, list_one, list, NULL), OK);
    assert_string_equal(list,
        "acme/acct_1/ann/github//ann@x/repo user status=0 gen=1 exp=500;"
        "acme/acct_2/ann/github/work/ann@x/repo user status=0 gen=1 exp=500;");
    assert_string_equal(grant_of(s, "acme", "acct_1"), "1:one:0");
    assert_string_equal(grant_of(s, "other", "acct_1"), "-");
    assert_int_equal(store_account_delete(s, STR("other"), STR("acct_1"), 0, NULL), E_NOT_FOUND);
    assert_int_equal(store_account_delete(s, STR("acme"), STR("acct_1"), 2, NULL), E_NOT_FOUND);
    assert_string_equal(grant_of(s, "acme", "acct_1"), "1:one:0");
    assert_int_equal(store_account_delete(s, STR("acme"), STR("acct_1"), 1, NULL), OK);
    assert_string_equal(grant_of(s, "acme", "acct_1"), "-");
    assert_int_equal(store_account_delete(s, STR("acme"), STR("acct_1"), 0, NULL), E_NOT_FOUND);
    assert_int_equal(store_account_delete(s, STR("acme"), STR("acct_2"), 0, NULL), OK);
    assert_string_equal(grant_of(s, "acme", "acct_2"), "-");
    assert_int_equal(store_check(s, NULL), OK);
    store_close(s);
}

static void a_grant_is_replaced_by_its_next_generation_only(void **state)
{
    struct store *s = open_store(":memory:");
    struct store_account other = account("acct_9", "");
    struct store_grant g = { 1, STR("x"), 0, 0, 0 };
    bool done = true;

    put(s, "acct_1", "", 1, "one", true);
    put(s, "acct_1", "", 1, "again", false);
    put(s, "acct_1", "", 3, "three", false);
    assert_string_equal(grant_of(s, "acme", "acct_1"), "1:one:0");
    put(s, "acct_1", "", 2, "two", true);
    assert_string_equal(grant_of(s, "acme", "acct_1"), "2:two:0");
    /* the same owner and label under another id is refused, and nothing of it stays */
    assert_int_equal(store_account_put(s, &other, &g, &done, NULL), E_NOT_FOUND);
    assert_string_equal(grant_of(s, "acme", "acct_9"), "-");

    g.sealed = STR("three");
    assert_int_equal(store_grant_swap(s, STR("acme"), STR("acct_1"), 1, &g, &done, NULL), OK);
    assert_false(done);
    assert_int_equal(store_grant_swap(s, STR("other"), STR("acct_1"), 2, &g, &done, NULL), OK);
    assert_false(done);
    assert_int_equal(store_grant_swap(s, STR("acme"), STR("acct_1"), 2, &g, &done, NULL), OK);
    assert_true(done);
    assert_string_equal(grant_of(s, "acme", "acct_1"), "3:three:0");
    store_close(s);
}

static bool begin(struct store *s, uint64_t generation, wall_ms_t now, bool again)
{
    bool begun = false;

    assert_int_equal(store_refresh_begin(s, STR("acme"), STR("acct_1"), generation, now, again, &begun, NULL), OK);
    return begun;
}

static void a_refresh_is_announced_once(void **state)
{
    struct store *s = open_store(":memory:");
    struct store_grant g = { 0, STR("new"), 0, 0, 0 };
    char list[512] = "";
    bool done;

    put(s, "acct_1", "", 1, "one", true);
    assert_false(begin(s, 2, 100, false));
    assert_true(begin(s, 1, 100, false));
    assert_false(begin(s, 1, 200, false));
    assert_true(begin(s, 1, 300, true));
    assert_string_equal(grant_of(s, "acme", "acct_1"), "1:one:100");       /* the first time counts */
    assert_int_equal(store_refresh_undo(s, STR("acme"), STR("acct_1"), 1, NULL), OK);
    assert_true(begin(s, 1, 400, false));
    assert_int_equal(store_account_dead(s, STR("acme"), STR("acct_1"), 2, NULL), E_NOT_FOUND);
    assert_int_equal(store_account_dead(s, STR("acme"), STR("acct_1"), 1, NULL), OK);
    assert_int_equal(store_accounts_each(s, list_one, list, NULL), OK);
    assert_non_null(strstr(list, "status=1 gen=1"));
    assert_int_equal(store_grant_swap(s, STR("acme"), STR("acct_1"), 1, &g, &done, NULL), OK);
    assert_true(done);
    assert_string_equal(grant_of(s, "acme", "acct_1"), "2:new:0");
    list[0] = 0;
    assert_int_equal(store_accounts_each(s, list_one, list, NULL), OK);
    assert_non_null(strstr(list, "status=0 gen=2"));                        /* a new grant heals the account */
    assert_int_equal(store_account_describe(s, STR("acme"), STR("acct_1"), STR("new name"), NULL), OK);
    assert_int_equal(store_account_describe(s, STR("acme"), STR("acct_7"), STR("new name"), NULL), E_NOT_FOUND);
    store_close(s);
}

struct racer {
    struct store *s;
    unsigned won;
};

static void *race(void *arg)
{
    struct racer *r = arg;

    for (uint64_t generation = 1; generation <= 50; generation++) {
        struct store_grant g = { 0, STR("x"), 0, 0, 0 };
        bool done = false;

        if (store_grant_swap(r->s, STR("acme"), STR("acct_1"), generation, &g, &done, NULL))
            abort();
        r->won += done;
    }
    return NULL;
}

static void of_many_writers_one_wins_each_generation(void **state)
{
    struct racer racers[4] = { 0 };
    pthread_t threads[4];
    unsigned won = 0;
    struct store *s = open_store(":memory:");

    put(s, "acct_1", "", 1, "one", true);
    for (int i = 0; i < 4; i++) {
        racers[i].s = s;
        assert_int_equal(pthread_create(&threads[i], NULL, race, &racers[i]), 0);
    }
    for (int i = 0; i < 4; i++) {
        pthread_join(threads[i], NULL);
        won += racers[i].won;
    }
    assert_int_equal(won, 50);
    assert_string_equal(grant_of(s, "acme", "acct_1"), "51:x:0");
    store_close(s);
}

/* ---- pending, keys, meta ----------------------------------------------------------------------------------------- */

static enum err pending_get(struct store *s, const char *key, wall_ms_t now, bool take, char out[64])
{
    struct store_pending p;
    struct arena a;
    enum err e;

    arena_init(&a, 4096);
    e = store_pending_get(s, str_of(key), now, take, &a, &p, NULL);
    if (!e)
        snprintf(out, 64, "%.*s/%.*s/%.*s/%.*s", STR_ARG(p.tenant), STR_ARG(p.user), STR_ARG(p.provider),
            STR_ARG(p.sealed));
    arena_release(&a);
    return e;
}

static void a_state_works_once_and_not_for_ever(void **state)
{
    struct store_pending p = { STR("acme"), STR("ann"), STR("github"), STR("sealed"), 1000 };
    struct store *s = open_store(":memory:");
    char out[64], key[24];

    assert_int_equal(store_pending_put(s, STR("k1"), &p, 0, NULL), OK);
    assert_int_equal(store_pending_put(s, STR("k2"), &p, 0, NULL), OK);
    assert_int_equal(pending_get(s, "k1", 999, false, out), OK);
    assert_int_equal(pending_get(s, "k1", 999, true, out), OK);
    assert_string_equal(out, "acme/ann/github/sealed");
    assert_int_equal(pending_get(s, "k1", 999, true, out), E_NOT_FOUND);
    assert_int_equal(pending_get(s, "k2", 1000, true, out), E_NOT_FOUND);

    for (int i = 0; i < 40; i++) {
        snprintf(key, sizeof(key), "n%d", i);
        p.expires = 2000 + i;
        assert_int_equal(store_pending_put(s, str_of(key), &p, 1500, NULL), OK);
    }
    for (int i = 0; i < 40; i++) {
        snprintf(key, sizeof(key), "n%d", i);
        assert_int_equal(pending_get(s, key, 1600, false, out),
            i < 40 - STORE_PENDING_PER_USER_MAX ? E_NOT_FOUND : OK);
    }
    store_close(s);
}

static void the_first_key_of_a_tenant_stays(void **state)
{
    struct store *s = open_store(":memory:");
    struct arena a;
    struct str v;

    arena_init(&a, 4096);
    assert_int_equal(store_key_get(s, STR("acme"), &a, &v, NULL), E_NOT_FOUND);
    assert_int_equal(store_key_put(s, STR("acme"), STR("k\0one"), 1, &a, &v, NULL), OK);
    assert_true(str_eq(v, STR("k\0one")));
    assert_int_equal(store_key_put(s, STR("acme"), STR("two"), 1, &a, &v, NULL), OK);
    assert_true(str_eq(v, STR("k\0one")));
    assert_int_equal(store_key_delete(s, STR("acme"), NULL), OK);
    assert_int_equal(store_key_delete(s, STR("acme"), NULL), E_NOT_FOUND);
    assert_int_equal(store_key_get(s, STR("acme"), &a, &v, NULL), E_NOT_FOUND);
    assert_int_equal(store_meta_get(s, STR("m"), &a, &v, NULL), E_NOT_FOUND);
    assert_int_equal(store_meta_put(s, STR("m"), STR("1"), NULL), OK);
    assert_int_equal(store_meta_put(s, STR("m"), STR("2"), NULL), OK);
    assert_int_equal(store_meta_get(s, STR("m"), &a, &v, NULL), OK);
    assert_true(str_is(v, "2"));
    arena_release(&a);
    store_close(s);
}

/* ---- files that are not right ------------------------------------------------------------------------------------ */

static void refuse(const char *path, enum err expected, const char *words)
{
    struct errinfo info = { "" };
    struct store *s = NULL;

    assert_int_equal(store_open(path, &s, &info), expected);
    if (!strstr(info.text, words) || !strstr(info.text, path))
        fail_msg("\"%s\" does not say \"%s\" and the path", info.text, words);
}

static void write_file(const char *path, const char *text)
{
    FILE *f = fopen(path, "w");

    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
}

static void exec_on(const char *path, const char *sql)
{
    sqlite3 *db;

    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(db);
}

static void says_what_is_wrong_with_a_file(void **state)
{
    char path[128], text[4097];

    memset(text, 'x', 4096);
    text[4096] = 0;
    path_of("text", path);
    write_file(path, text);
    refuse(path, E_CONFIG, "is not a database of sluice");

    path_of("foreign.db", path);
    exec_on(path, "CREATE TABLE t (x)");
    refuse(path, E_CONFIG, "another program");

    path_of("newer.db", path);
    store_close(open_store(path));
    exec_on(path, "PRAGMA user_version = 999");
    refuse(path, E_CONFIG, "use a newer sluice");

    path_of("missing/x.db", path);
    refuse(path, E_CONFIG, "cannot be opened");
    refuse(dir, E_CONFIG, "cannot be opened");
}

static void damage_is_noticed_at_start(void **state)
{
    char path[128], junk[4096];
    struct store *s;
    int fd;

    path_of("damaged.db", path);
    s = open_store(path);
    for (int i = 0; i < 200; i++) {
        char id[24];

        snprintf(id, sizeof(id), "acct_%d", i);
        put(s, id, id, 1, "some sealed bytes that fill the pages of the table", true);
    }
    store_close(s);
    memset(junk, 0x5a, sizeof(junk));
    fd = open(path, O_WRONLY);
    assert_true(fd >= 0);
    for (off_t page = 2; page < 8; page++)
        assert_int_equal(pwrite(fd, junk, sizeof(junk), page * 4096), (ssize_t)sizeof(junk));
    close(fd);
    refuse(path, E_CONFIG, "damaged");
}

static void another_process_may_hold_the_lock(void **state)
{
    struct errinfo info = { "" };
    char path[128];
    struct store *s;
    sqlite3 *db;

    path_of("locked.db", path);
    s = open_store(path);
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, "BEGIN IMMEDIATE", NULL, NULL, NULL), SQLITE_OK);
    assert_int_equal(store_meta_put(s, STR("m"), STR("1"), &info), E_STORE_UNAVAILABLE);
    assert_non_null(strstr(info.text, "locked by another process"));
    assert_int_equal(sqlite3_exec(db, "ROLLBACK", NULL, NULL, NULL), SQLITE_OK);
    assert_int_equal(store_meta_put(s, STR("m"), STR("1"), &info), OK);
    sqlite3_close(db);
    store_close(s);
}

static struct store_account numbered(unsigned i, char id[16])
{
    snprintf(id, 16, "acct_%u", i);
    return (struct store_account){ .tenant = STR("t"), .id = str_of(id), .user = str_of(id), .provider = STR("p"),
                                   .status = ACCOUNT_CONNECTED, .created = i };
}

static enum err count_account(const struct store_account *a, const struct store_grant *g, void *arg)
{
    ++*(unsigned *)arg;
    return OK;
}

static void a_store_is_filled_in_bulk_or_not_at_all(void **state)
{
    struct store_grant g = { .generation = 1, .sealed = STR("sealed"), .expires = INT64_MAX };
    struct errinfo info = { "" };
    char path[128], id[16];
    unsigned n = 0;
    bool stored;

    path_of("bulk.db", path);
    for (int ended = 0; ended < 2; ended++) {
        struct store *s = open_store(path);

        assert_int_equal(store_bulk_begin(s, &info), OK);
        for (unsigned i = 0; i < 1000; i++) {
            struct store_account a = numbered(i, id);

            assert_int_equal(store_account_put(s, &a, &g, &stored, &info), OK);
            assert_true(stored);
            a.id = STR("another");          /* refused: the rest of the bulk stands */
            assert_int_equal(store_account_put(s, &a, &g, &stored, &info), E_NOT_FOUND);
        }
        if (ended)
            assert_int_equal(store_bulk_end(s, &info), OK);
        store_close(s);
        s = open_store(path);
        assert_int_equal(store_accounts_each(s, count_account, &n, &info), OK);
        assert_int_equal(n, ended ? 1000 : 0);
        store_close(s);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keeps_accounts_over_a_restart),
        cmocka_unit_test(a_grant_is_replaced_by_its_next_generation_only),
        cmocka_unit_test(a_refresh_is_announced_once),
        cmocka_unit_test(of_many_writers_one_wins_each_generation),
        cmocka_unit_test(a_state_works_once_and_not_for_ever),
        cmocka_unit_test(the_first_key_of_a_tenant_stays),
        cmocka_unit_test(says_what_is_wrong_with_a_file),
        cmocka_unit_test(damage_is_noticed_at_start),
        cmocka_unit_test(another_process_may_hold_the_lock),
        cmocka_unit_test(a_store_is_filled_in_bulk_or_not_at_all),
    };

    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
