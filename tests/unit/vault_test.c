/* vault_test.c -- keys, sealing, the table of accounts, and what token endpoints' answers mean */
#include "base/map.h"
#include "vault_bed.h"

#include <sys/stat.h>
#include <unistd.h>

#include "vault/internal.h"

/* ---- root key ---------------------------------------------------------------------------------------------------- */

static void refuse_root(const char *where, const char *words)
{
    struct errinfo info = { "" };
    struct secret *s;

    assert_int_equal(vault_root_load(str_of(where), false, &s, &info), E_CONFIG);
    if (!strstr(info.text, words))
        fail_msg("\"%s\" does not say \"%s\"", info.text, words);
}

static void write_file(const char *path, const char *text, mode_t mode)
{
    FILE *f = fopen(path, "w");

    assert_non_null(f);
    fputs(text, f);
    fclose(f);
    assert_int_equal(chmod(path, mode), 0);
}

static void the_root_key_comes_from_where_it_is_said(void **state)
{
    static const char key[] = "00112233445566778899aabbccddeeff00112233445566778899AABBCCDDEEFF";
    char path[128], where[160];
    struct secret *s, *again;
    struct errinfo info = { "" };
    struct stat st;

    snprintf(path, sizeof(path), "%s/root.key", bed_dir);
    snprintf(where, sizeof(where), "file:%s", path);
    refuse_root(where, path);
    assert_int_equal(vault_root_load(str_of(where), true, &s, &info), OK);
    assert_int_equal(secret_len(s), 32);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_int_equal(vault_root_load(str_of(where), true, &again, &info), OK);         /* not made anew */
    secret_release(s);
    secret_release(again);

    assert_int_equal(chmod(path, 0640), 0);
    refuse_root(where, "can be read by others (mode 640): chmod 600 it");
    write_file(path, "short\n", 0600);
    refuse_root(where, "64 hexadecimal digits");
    write_file(path, key, 0600);
    assert_int_equal(vault_root_load(str_of(where), false, &s, &info), OK);
    secret_release(s);
    snprintf(where, sizeof(where), "file:%s", bed_dir);
    refuse_root(where, "not a regular file");

    setenv("SLUICE_TEST_ROOT", key, 1);
    assert_int_equal(vault_root_load(STR("env:SLUICE_TEST_ROOT"), false, &s, &info), OK);
    secret_release(s);
    assert_int_equal(getenv("SLUICE_TEST_ROOT")[0], 0);                                /* wiped after use */
    refuse_root("env:SLUICE_TEST_ROOT", "SLUICE_TEST_ROOT does not hold a key");
    refuse_root("env:SLUICE_TEST_NONE", "is not set");
    unsetenv("CREDENTIALS_DIRECTORY");
    refuse_root("credential:root", "CREDENTIALS_DIRECTORY is not set");
    setenv("CREDENTIALS_DIRECTORY", bed_dir, 1);
    assert_int_equal(vault_root_load(STR("credential:root.key"), false, &s, &info), OK);
    secret_release(s);
    assert_int_equal(chmod(path, 0440), 0);         /* as systemd's are: the group's bits are its access list's mask */
    assert_int_equal(vault_root_load(STR("credential:root.key"), false, &s, &info), OK);
    secret_release(s);
    assert_int_equal(chmod(path, 0444), 0);
    refuse_root("credential:root.key", "can be read by others (mode 444)");
    refuse_root("credential:../root.key", "no slash");
    refuse_root("kms:x", "file:PATH, env:NAME or credential:NAME");
    refuse_root("", "file:PATH, env:NAME or credential:NAME");
}

static void another_root_key_is_noticed_at_start(void **state)
{
    struct vault_config config = { .http = fake_http() };
    struct errinfo info = { "" };
    struct vault *v;

    bed_open();
    config.store = bed_store;
    config.root = secret_copy("another key, another key, anothe", 32);
    assert_int_equal(vault_open(&config, &v, &info), E_CONFIG);
    assert_non_null(strstr(info.text, "not the one this store was sealed under"));
    secret_release((struct secret *)config.root);
    bed_close();
}

/* ---- sealing ----------------------------------------------------------------------------------------------------- */

static struct buf seal(const char *tenant, const char *account, const char *purpose, struct str plain)
{
    struct buf out = BUF_INIT(1 << 20);

    assert_int_equal(vault_seal(bed_vault, str_of(tenant), str_of(account), str_of(purpose), plain, &out), OK);
    assert_int_equal(out.len, plain.len + VAULT_SEAL_OVERHEAD);
    return out;
}

static enum err unseal(const char *tenant, const char *account, const char *purpose, struct str sealed,
    struct str expected)
{
    struct buf out = BUF_INIT(1 << 20);
    enum err e = vault_unseal(bed_vault, str_of(tenant), str_of(account), str_of(purpose), sealed, &out);

    if (!e)
        assert_true(str_eq(buf_str(&out), expected));
    buf_release(&out);
    return e;
}

static void sealed_bytes_open_for_their_owner_only(void **state)
{
    struct str plain = STR("the arguments of a call");
    struct buf s, empty;

    bed_open();
    assert_int_equal(vault_tenant_load(bed_vault, STR("acme"), NULL), OK);
    assert_int_equal(vault_tenant_load(bed_vault, STR("beta"), NULL), OK);
    s = seal("acme", "acct_1", "payload", plain);
    assert_int_equal(unseal("acme", "acct_1", "payload", buf_str(&s), plain), OK);
    assert_int_equal(unseal("beta", "acct_1", "payload", buf_str(&s), plain), E_TAMPERED);
    assert_int_equal(unseal("acme", "acct_2", "payload", buf_str(&s), plain), E_TAMPERED);
    assert_int_equal(unseal("acme", "acct_1", "request-state", buf_str(&s), plain), E_TAMPERED);
    assert_int_equal(unseal("acme", "acct_1p", "ayload", buf_str(&s), plain), E_TAMPERED);
    assert_int_equal(unseal("nobody", "acct_1", "payload", buf_str(&s), plain), E_NOT_FOUND);
    for (size_t i = 0; i < s.len; i++) {
        s.p[i] ^= 1;
        assert_int_equal(unseal("acme", "acct_1", "payload", buf_str(&s), plain), E_TAMPERED);
        s.p[i] ^= 1;
        assert_int_equal(unseal("acme", "acct_1", "payload", str_n(s.p, i), plain), E_TAMPERED);
    }
    empty = seal("acme", "", "payload", STR(""));
    assert_int_equal(unseal("acme", "", "payload", buf_str(&empty), STR("")), OK);
    buf_release(&empty);

    /* a restart has another epoch key, and opens what is old */
    bed_reopen();
    assert_int_equal(unseal("acme", "acct_1", "payload", buf_str(&s), plain), E_NOT_FOUND);
    assert_int_equal(vault_tenant_load(bed_vault, STR("acme"), NULL), OK);
    assert_int_equal(unseal("acme", "acct_1", "payload", buf_str(&s), plain), OK);

    /* shredding ends it, and a new key does not bring it back */
    assert_non_null(vault_keys_loaded(bed_vault, STR("acme"), hash_bytes("acme", 4)));
    assert_null(vault_keys_loaded(bed_vault, STR("acne"), hash_bytes("acne", 4)));
    assert_int_equal(vault_tenant_shred(bed_vault, STR("acme"), NULL), OK);
    assert_null(vault_keys_loaded(bed_vault, STR("acme"), hash_bytes("acme", 4)));
    assert_int_equal(unseal("acme", "acct_1", "payload", buf_str(&s), plain), E_NOT_FOUND);
    assert_int_equal(vault_tenant_load(bed_vault, STR("acme"), NULL), OK);
    assert_int_equal(unseal("acme", "acct_1", "payload", buf_str(&s), plain), E_TAMPERED);
    assert_int_equal(vault_tenant_load(bed_vault, STR("no good"), NULL), E_CONFIG);
    buf_release(&s);
    bed_close();
}

static void full_buffers_are_said(void **state)
{
    struct buf out = BUF_INIT(VAULT_SEAL_OVERHEAD + 3);

    bed_open();
    assert_int_equal(vault_tenant_load(bed_vault, STR("acme"), NULL), OK);
    assert_int_equal(vault_seal(bed_vault, STR("acme"), STR(""), STR("p"), STR("four"), &out), E_CALL_TOO_LARGE);
    buf_clear(&out);
    assert_int_equal(vault_seal(bed_vault, STR("acme"), STR(""), STR("p"), STR("one"), &out), OK);
    buf_release(&out);
    bed_close();
}

/* ---- accounts ---------------------------------------------------------------------------------------------------- */

static void put_at(const char *provider, struct arena *a, const char *tenant, const char *user, const char *label,
    const char *token, struct str *id)
{
    struct vault_static s = {
        .tenant = str_of(tenant), .user = str_of(user), .provider = str_of(provider), .label = str_of(label),
        .external_id = STR("login"), .scopes = STR("repo"), .token = secret_copy(token, strlen(token)),
    };
    struct errinfo info = { "" };

    if (vault_account_put(bed_vault, &s, a, id, &info))
        fail_msg("%s", info.text);
    secret_release((struct secret *)s.token);
}

static void put(struct arena *a, const char *tenant, const char *user, const char *label, const char *token,
    struct str *id)
{
    put_at("github", a, tenant, user, label, token, id);
}

static enum err find(struct arena *a, const char *tenant, const char *user, const char *label, struct str *id)
{
    struct vault_account acc;
    enum err e = bed_find(tenant, user, "github", label, a, &acc);

    if (!e) {
        *id = arena_str(a, acc.id);
        vault_account_release(&acc);
    }
    return e;
}

static void accounts_are_found_by_their_owner(void **state)
{
    struct str other, first, work, beta, id;
    struct vault_account *list, one;
    struct arena a;
    size_t n;

    arena_init(&a, 64 * 1024);
    bed_open();
    put_at("slack", &a, "acme", "ann", "", "t0", &other);       /* older, and of another provider */
    put(&a, "acme", "ann", "", "t1", &first);
    put(&a, "acme", "ann", "work", "t2", &work);
    put(&a, "beta", "ann", "", "t3", &beta);
    for (int round = 0; round < 2; round++) {
        assert_int_equal(find(&a, "acme", "ann", "", &id), OK);
        assert_true(str_eq(id, first));
        assert_int_equal(find(&a, "acme", "ann", "work", &id), OK);
        assert_true(str_eq(id, work));
        assert_int_equal(find(&a, "beta", "ann", "", &id), OK);
        assert_true(str_eq(id, beta));
        assert_int_equal(bed_find("acme", "ann", "slack", "", &a, &one), OK);
        assert_true(str_eq(one.id, other));
        vault_account_release(&one);
        assert_int_equal(bed_find("acme", "ann", "slack", "work", &a, &one), E_ACCOUNT_MISSING);
        assert_int_equal(find(&a, "acme", "ann", "home", &id), E_ACCOUNT_MISSING);
        assert_int_equal(find(&a, "acme", "bob", "", &id), E_ACCOUNT_MISSING);
        assert_int_equal(find(&a, "", "", "", &id), E_ACCOUNT_MISSING);
        assert_int_equal(vault_account_get(bed_vault, STR("beta"), first, &a, &one), E_ACCOUNT_MISSING);
        assert_int_equal(vault_account_get(bed_vault, STR("acme"), first, &a, &one), OK);
        assert_true(str_is(one.external_id, "login") && str_is(one.scopes, "repo") && one.expires == INT64_MAX);
        vault_account_release(&one);
        assert_true(one.slot == NULL && one.id.len == 0);
        assert_int_equal(vault_accounts(bed_vault, STR("acme"), STR(""), &a, &list, &n), OK);
        assert_int_equal(n, 3);
        assert_int_equal(vault_accounts(bed_vault, STR("acme"), STR("bob"), &a, &list, &n), OK);
        assert_int_equal(n, 0);
        bed_reopen();                   /* the same after a restart */
    }
    put(&a, "acme", "ann", "work", "t4", &id);
    assert_true(str_eq(id, work));      /* replaced, under the same id */
    assert_int_equal(vault_account_get(bed_vault, STR("acme"), work, &a, &one), OK);
    assert_int_equal(one.generation, 2);
    vault_account_release(&one);
    arena_release(&a);
    bed_close();
}

static void bad_names_and_tokens_are_refused(void **state)
{
    struct vault_static s = { STR("acme"), STR("ann"), STR("github"), STR(""), STR(""), STR(""), NULL };
    struct vault_static x;
    struct arena a;
    struct str id;
    struct secret *good = secret_copy("token", 5), *bad = secret_copy("to\nken", 6);

    arena_init(&a, 4096);
    bed_open();
    s.token = good;
    x = s, x.tenant = STR("a b");
    assert_int_equal(vault_account_put(bed_vault, &x, &a, &id, NULL), E_CONFIG);
    x = s, x.user = STR("");
    assert_int_equal(vault_account_put(bed_vault, &x, &a, &id, NULL), E_CONFIG);
    x = s, x.provider = STR("");
    assert_int_equal(vault_account_put(bed_vault, &x, &a, &id, NULL), E_CONFIG);
    x = s, x.label = STR("a\nb");
    assert_int_equal(vault_account_put(bed_vault, &x, &a, &id, NULL), E_CONFIG);
    x = s, x.token = bad;
    assert_int_equal(vault_account_put(bed_vault, &x, &a, &id, NULL), E_CONFIG);
    secret_release(good);
    secret_release(bad);
    arena_release(&a);
    bed_close();
}

/* No token may be read in the store's files. */
static void the_files_hold_no_token(void **state)
{
    char command[256];
    struct arena a;
    struct str id;

    arena_init(&a, 4096);
    bed_open();
    put(&a, "acme", "ann", "", "ghp_THISISATOKEN", &id);
    snprintf(command, sizeof(command), "grep -rq github %s && ! grep -rq THISISATOKEN %s", bed_dir, bed_dir);
    assert_int_equal(system(command), 0);
    bed_close();
    assert_int_equal(system(command), 0);
    arena_release(&a);
}

/* ---- delegations ------------------------------------------------------------------------------------------------- */

static enum err delegate(struct arena *a, const char *user, const char *agent, struct str *id, struct errinfo *info)
{
    struct vault_delegate n = { .tenant = STR("acme"), .user = str_of(user), .agent = str_of(agent),
                                .expires = INT64_MAX };
    struct str replaced;

    return vault_delegation_put(bed_vault, &n, a, id, &replaced, info);
}

static void delegate_all(struct arena *a, const char *user)
{
    struct errinfo info = { "" };
    char agent[32];
    struct str id;

    for (unsigned i = 0; i < VAULT_DELEGATIONS_MAX; i++) {
        snprintf(agent, sizeof(agent), "agent-%03u", i);
        if (delegate(a, user, agent, &id, &info))
            fail_msg("%s", info.text);
    }
}

static size_t delegated(const char *user)
{
    struct vault_delegation *list;
    struct arena a;
    size_t n;

    arena_init(&a, 1 << 20);
    assert_int_equal(vault_delegations(bed_vault, STR("acme"), str_of(user), &a, &list, &n), OK);
    for (size_t i = 1; i < n; i++)
        assert_true(str_cmp(list[i - 1].agent, list[i].agent) < 0);
    arena_release(&a);
    return n;
}

static void a_user_has_room_for_so_many_delegations(void **state)
{
    struct errinfo info = { "" };
    struct arena a;
    struct str id, first;

    arena_init(&a, 1 << 20);
    bed_accounts_max = VAULT_DELEGATIONS_MAX + 1;
    bed_open();
    assert_int_equal(store_bulk_begin(bed_store, &info), OK);
    delegate_all(&a, "ann");
    assert_int_equal(delegate(&a, "ann", "agent-000", &first, &info), OK);      /* in place of one */
    assert_int_equal(delegate(&a, "ann", "another", &id, &info), E_CONFIG);
    assert_non_null(strstr(info.text, "256 delegations"));
    assert_int_equal(delegate(&a, "bob", "another", &id, &info), OK);           /* is not kept out by that */
    assert_int_equal(delegate(&a, "bob", "agent-000", &id, &info), E_OVERLOADED);
    assert_int_equal(delegate(&a, "bob", "another", &id, &info), OK);           /* nor a replacement */
    assert_int_equal(vault_delegation_delete(bed_vault, STR("acme"), STR("ann"), first, &info), OK);
    assert_int_equal(delegate(&a, "ann", "another", &id, &info), OK);
    assert_int_equal(delegated("ann"), VAULT_DELEGATIONS_MAX);
    assert_int_equal(store_bulk_end(bed_store, &info), OK);
    bed_accounts_max = 0;
    arena_release(&a);
    bed_close();
}

static void an_action_is_named_once(void **state)
{
    struct vault_delegate n = { .tenant = STR("acme"), .user = STR("ann"), .agent = STR("desk"), .n_actions = 3,
                                .actions = (const struct str[]){ STR("reads"), STR("add"), STR("reads") } };
    struct errinfo info = { "" };
    struct arena a;
    struct str id, replaced;

    arena_init(&a, 4096);
    bed_open();
    assert_int_equal(vault_delegation_put(bed_vault, &n, &a, &id, &replaced, &info), E_CONFIG);
    assert_string_equal(info.text, "actions: \"reads\" is named twice");
    n.n_actions = 2;
    assert_int_equal(vault_delegation_put(bed_vault, &n, &a, &id, &replaced, &info), OK);
    arena_release(&a);
    bed_close();
}

/* Neither their number nor the size of one; that one does not count. */
static void delegations_stop_no_start(void **state)
{
    static const char *const users[] = { "ann", "bob", "eve" };
    size_t large = 257u << 20;
    struct store_delegation row = { STR("acme"), STR("dlg_large"), STR("zoe"), STR("desk"), 1,
                                    { calloc(1, large), large } };
    struct errinfo info = { "" };
    struct arena a;

    assert_non_null(row.sealed.p);
    arena_init(&a, 1 << 20);
    bed_open();
    assert_int_equal(store_bulk_begin(bed_store, &info), OK);
    for (size_t i = 0; i < ARRAY_LEN(users); i++)
        delegate_all(&a, users[i]);
    assert_int_equal(store_delegation_put(bed_store, &row, &info), OK);
    assert_int_equal(store_bulk_end(bed_store, &info), OK);
    free((void *)row.sealed.p);
    bed_reopen();
    for (size_t i = 0; i < ARRAY_LEN(users); i++)
        assert_int_equal(delegated(users[i]), VAULT_DELEGATIONS_MAX);
    assert_int_equal(delegated("zoe"), 0);
    arena_release(&a);
    bed_close();
}

/* ---- answers of token endpoints
 * ----------------------------------------------------------------------------------- */

static void answers_are_understood(void **state)
{
    static const struct { int status; const char *body; enum oauth_verdict verdict; } cases[] = {
        { 200, "{\"access_token\":\"a\",\"token_type\":\"Bearer\",\"expires_in\":3600}", OAUTH_TOKENS },
        { 200, "{\"access_token\":\"a\",\"expires_in\":\"3600\",\"refresh_token\":\"r\"}", OAUTH_TOKENS },
        { 200, "{\"ok\":true,\"access_token\":\"xoxb-1\",\"token_type\":\"bot\"}", OAUTH_TOKENS },
        { 200, "{\"access_token\":\"\"}", OAUTH_LOST },
        { 200, "{\"access_token\":\"a b\"}", OAUTH_LOST },
        { 200, "{\"access_token\":7}", OAUTH_LOST },
        { 200, "{\"access_token\":\"a\",\"access_token\":\"b\"}", OAUTH_LOST },
        { 200, "{\"access_token\":\"a\",\"expires_in\":-5}", OAUTH_LOST },
        { 200, "{\"access_token\":\"a\",\"token_type\":\"mac\"}", OAUTH_LOST },
        { 200, "<html>", OAUTH_LOST },
        { 200, "", OAUTH_LOST },
        { 200, "{}", OAUTH_LOST },
        { 302, "", OAUTH_LOST },
        { 200, "{\"error\":\"bad_refresh_token\"}", OAUTH_DEAD },
        { 200, "{\"ok\":false,\"error\":\"invalid_refresh_token\"}", OAUTH_DEAD },
        { 200, "{\"ok\":false,\"error\":\"ratelimited\"}", OAUTH_LATER },
        { 200, "{\"ok\":false,\"error\":\"bad_client_secret\"}", OAUTH_CLIENT },
        { 400, "{\"error\":\"invalid_grant\"}", OAUTH_DEAD },
        { 403, "{\"error\":\"invalid_grant\"}", OAUTH_DEAD },
        { 401, "{\"error\":\"invalid_grant\"}", OAUTH_DEAD },
        { 400, "{\"status\":\"BAD_REFRESH_TOKEN\"}", OAUTH_DEAD },
        { 401, "{\"error\":\"invalid_client\"}", OAUTH_CLIENT },
        { 401, "", OAUTH_CLIENT },
        { 400, "{\"error\":\"invalid_request\"}", OAUTH_CLIENT },
        { 400, "<html>", OAUTH_LATER },
        { 429, "", OAUTH_LATER },
        { 429, "{\"error\":\"too_many\"}", OAUTH_LATER },
        { 500, "oops", OAUTH_LATER },
        { 503, "", OAUTH_LATER },
        { 502, "<html>", OAUTH_LOST },
        { 504, "", OAUTH_LOST },
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct vault_reply reply = { .status = cases[i].status, .body = BUF_INIT(4096) };
        struct oauth_answer answer;
        enum oauth_verdict verdict;

        buf_add_z(&reply.body, cases[i].body);
        verdict = oauth_read(&reply, &answer);
        if (verdict != cases[i].verdict)
            fail_msg("%d %s: %d, not %d", cases[i].status, cases[i].body, verdict, cases[i].verdict);
        assert_int_equal(answer.access != NULL, verdict == OAUTH_TOKENS);
        assert_null(reply.body.p);
        oauth_answer_release(&answer);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_root_key_comes_from_where_it_is_said),
        cmocka_unit_test(another_root_key_is_noticed_at_start),
        cmocka_unit_test(sealed_bytes_open_for_their_owner_only),
        cmocka_unit_test(full_buffers_are_said),
        cmocka_unit_test(accounts_are_found_by_their_owner),
        cmocka_unit_test(bad_names_and_tokens_are_refused),
        cmocka_unit_test(the_files_hold_no_token),
        cmocka_unit_test(a_user_has_room_for_so_many_delegations),
        cmocka_unit_test(an_action_is_named_once),
        cmocka_unit_test(delegations_stop_no_start),
        cmocka_unit_test(answers_are_understood),
    };

    return cmocka_run_group_tests(tests, bed_make_dir, bed_remove_dir);
}
