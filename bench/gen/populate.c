/*
 * populate.c -- bench-populate: a data directory as an engine has it that served many users for long
 *
 * Writes what the engine would have written, through the engine's own rooms: the keys, an account per user with its
 * grant sealed (in the store), and tokens of the local issuer.  The engine must not run meanwhile.  A million accounts
 * are made in about half a minute.
 *
 * Of --tokens, each line is "TENANT USER TOKEN"; the users are spread evenly over all, so that a load which takes few
 * of them still meets accounts from everywhere.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "bench/gen/common.h"
#include "base/ids.h"
#include "identity/identity.h"
#include "loop/world.h"
#include "runtime/runtime.h"
#include "vault/internal.h"

enum { BULK = 20000 };

static struct {
    const char *data, *provider, *scopes, *agent, *audience, *tokens;
    int64_t tenants, users, tokens_max, ttl, life;
    bool expired;
} opt = { .provider = "bench", .agent = "bench", .tenants = 1, .users = 1, .tokens_max = 10000, .ttl = 86400 };

static void check(enum err e, const struct errinfo *info)
{
    if (e)
        die("%s: %s", err_name(e), info->text[0] ? info->text : err_text(e));
}

static struct str name_of(struct arena *a, const char *what, int64_t i)
{
    return arena_printf(a, "%s-%06ld", what, (long)i);
}

static struct secret *secret_token(struct arena *a, const char *what, int64_t i)
{
    struct str text = arena_printf(a, "%s-%06ld-%s", what, (long)i, id_new("token").z);

    return need(secret_copy(text.p, text.len));
}

/* One account; its token is good for ever, for `life` seconds, or not any more. */
static void put_account(struct vault *v, int64_t i, struct arena *a)
{
    wall_ms_t now = world->wall_ms();
    struct grant g = { .access = secret_token(a, "at", i), .obtained = now, .expires = INT64_MAX };
    struct new_account n = { .tenant = name_of(a, "tenant", i % opt.tenants), .user = name_of(a, "user", i),
                             .provider = str_of(opt.provider), .scopes = str_of(opt.scopes), .grant = &g };
    struct errinfo info = { "" };
    struct str id;

    if (opt.expired || opt.life) {
        g.refresh = secret_token(a, "rt", i);
        g.obtained = opt.expired ? now - 7200000 : now;
        g.expires = opt.expired ? now - 3600000 : now + opt.life * 1000;
    }
    n.label = n.user;
    check(account_store(v, &n, now, a, &id, &info), &info);
    grant_release(&g);
}

static void put_accounts(struct store *store, struct vault *v)
{
    struct errinfo info = { "" };
    struct arena a;

    arena_init(&a, 1 << 20);
    for (int64_t i = 0; i < opt.users; i++) {
        if (i % BULK == 0) {
            /* keys of new tenants are made on the way, and belong to the bulk */
            check(i ? store_bulk_end(store, &info) : OK, &info);
            check(store_bulk_begin(store, &info), &info);
        }
        put_account(v, i, &a);
        arena_clear(&a);
    }
    check(store_bulk_end(store, &info), &info);
    arena_release(&a);
}

static void write_tokens(FILE *f)
{
    int64_t n = opt.users < opt.tokens_max ? opt.users : opt.tokens_max;
    struct identity_local *local;
    struct errinfo info = { "" };
    struct arena a;

    check(identity_local_open(opt.data, STR(RUNTIME_LOCAL_ISSUER), true, &local, &info), &info);
    arena_init(&a, 1 << 20);
    for (int64_t k = 0; k < n; k++) {
        int64_t i = k * opt.users / n;
        struct identity_mint m = { .tenant = name_of(&a, "tenant", i % opt.tenants), .user = name_of(&a, "user", i),
                                   .agent = str_of(opt.agent), .audience = str_of(opt.audience),
                                   .now = world->wall_ms(), .ttl = opt.ttl * NS_PER_S };
        struct buf token = BUF_INIT(IDENTITY_TOKEN_MAX);

        check(identity_mint(local, &m, &token, &info), &info);
        fprintf(f, "%.*s %.*s %.*s\n", STR_ARG(m.tenant), STR_ARG(m.user), STR_ARG(buf_str(&token)));
        buf_release(&token);
        arena_clear(&a);
    }
    arena_release(&a);
    identity_local_close(local);
}

static const struct option_row rows[] = {
    { "data", "DIR", OPTION_TEXT, &opt.data, "the data directory; made if it is not there" },
    { "tenants", "N", OPTION_COUNT, &opt.tenants, "1" },
    { "users", "N", OPTION_COUNT, &opt.users, "1; of all tenants together, each with an account" },
    { "provider", "NAME", OPTION_TEXT, &opt.provider, "bench; what the accounts are of" },
    { "scopes", "TEXT", OPTION_TEXT, &opt.scopes, "granted, blank-separated; none if left out" },
    { "life", "S", OPTION_COUNT, &opt.life,
      "grants can be refreshed, and are good for so long (default: for ever)" },
    { "expired", "", OPTION_FLAG, &opt.expired, "the grants can be refreshed, and must be" },
    { "tokens", "FILE", OPTION_TEXT, &opt.tokens, "writes TENANT USER TOKEN for users from all over" },
    { "tokens-max", "N", OPTION_COUNT, &opt.tokens_max, "10000; how many at most" },
    { "agent", "NAME", OPTION_TEXT, &opt.agent, "bench; who acts, in the tokens" },
    { "audience", "URL", OPTION_TEXT, &opt.audience, "the MCP endpoint, in the tokens" },
    { "ttl", "S", OPTION_COUNT, &opt.ttl, "86400; how long the tokens are good for" },
    { 0 },
};

static const char about[] =
    "bench-populate: fills a data directory with users and their accounts\n\n"
    "User i is user-00000i of tenant i modulo --tenants; names have six digits. The engine\n"
    "must not run meanwhile.\n\n";

int main(int argc, char **argv)
{
    struct vault_config config = { .accounts_max = 0 };
    struct secret *root;
    struct errinfo info = { "" };
    struct vault *v;
    struct store *store;
    char at[4096];
    FILE *f = NULL;

    options_read(argc, argv, about, rows);
    if (!opt.data)
        die("--data DIR is needed");
    if (opt.tenants < 1 || opt.users < 1 || opt.users > 1000000)
        die("--tenants is 1 or more, --users 1 to 1000000");
    if (opt.tokens && !opt.audience)
        die("--tokens needs --audience URL");
    if (mkdir(opt.data, 0700) < 0 && errno != EEXIST)
        die_errno("%s", opt.data);
    if (opt.tokens && !(f = fopen(opt.tokens, "we")))
        die_errno("%s", opt.tokens);
    snprintf(at, sizeof(at), "file:%s/root.key", opt.data);
    check(vault_root_load(str_of(at), true, &root, &info), &info);
    snprintf(at, sizeof(at), "%s/sluice.db", opt.data);
    check(store_open(at, &store, &info), &info);
    config.store = store;
    config.root = root;
    check(vault_open(&config, &v, &info), &info);
    put_accounts(store, v);
    vault_close(v);
    store_close(store);
    secret_release(root);
    if (f) {
        write_tokens(f);
        if (fclose(f) != 0)
            die_errno("%s", opt.tokens);
    }
    return 0;
}
