/* vault_bed.c -- what the vault's tests stand on */
#include "vault_bed.h"

#include <stdatomic.h>
#include <unistd.h>

#include "base/crypto.h"
#include "vault/internal.h"

/* ---- clock ------------------------------------------------------------------------------------------------------- */

ns_t bed_ahead;
static struct world bed_world;

static ns_t bed_now(void)
{
    return world_real.now() + bed_ahead;
}

static wall_ms_t bed_wall(void)
{
    return world_real.wall_ms() + bed_ahead / NS_PER_MS;
}

static void bed_wait(struct ring *r, ns_t until, void (*complete)(struct op *, int, bool, const char *, unsigned))
{
    world_real.ring_wait(r, until == 0 || until == NS_NEVER ? until : until - bed_ahead, complete);
}

void bed_use_world(void)
{
    bed_world = world_real;
    bed_world.now = bed_now;
    bed_world.wall_ms = bed_wall;
    bed_world.ring_wait = bed_wait;
    world_use(&bed_world);
}

/* ---- provider ---------------------------------------------------------------------------------------------------- */

struct fake fake = { .lock = PTHREAD_MUTEX_INITIALIZER };

void fake_reset(bool rotates)
{
    fake = (struct fake){
        .lock = PTHREAD_MUTEX_INITIALIZER, .rotates = rotates, .serial = 1, .expires_in = 3600, .delay = 5 * NS_PER_MS,
    };
    strcpy(fake.code, "code-1");
}

static void add_bytes(const uint8_t *bytes, size_t n, void *arg)
{
    buf_add(arg, bytes, n);
}

static void write_form(const struct vault_post *post)
{
    struct buf b = BUF_INIT(sizeof(fake.last_form) - 1);

    for (unsigned i = 0; i < post->n_fields; i++) {
        buf_add_str(&b, post->fields[i].name);
        buf_add_c(&b, '=');
        if (post->fields[i].secret)
            secret_use(post->fields[i].secret, add_bytes, &b);
        else
            buf_add_str(&b, post->fields[i].value);
        buf_add_c(&b, '&');
    }
    if (post->basic_secret) {
        buf_addf(&b, "basic:%.*s:", STR_ARG(post->basic_user));
        secret_use(post->basic_secret, add_bytes, &b);
    }
    CHECK(!(b.overflow));
    memcpy(fake.last_form, b.p, b.len);
    fake.last_form[b.len] = 0;
    buf_release(&b);
}

static bool form_has(const char *name, const char *value)
{
    char text[256];
    const char *at;

    snprintf(text, sizeof(text), "%s=%s&", name, value);
    at = strstr(fake.last_form, text);
    return at && (at == fake.last_form || at[-1] == '&');
}

static void answer(struct vault_reply *r, int status, const char *body)
{
    r->status = status;
    buf_add_z(&r->body, body);
}

static void issue(struct vault_reply *r)
{
    char refresh[64] = "";

    fake.serial++;
    if (fake.rotates || fake.exchanges)
        snprintf(refresh, sizeof(refresh), "\"refresh_token\":\"rt-%d\",", fake.serial);
    r->status = 200;
    buf_addf(&r->body, "{\"access_token\":\"at-%d\",%s\"token_type\":\"bearer\",\"expires_in\":%d}", fake.serial,
        refresh,
        fake.expires_in);
}

static void do_refresh(struct vault_reply *r)
{
    char current[32];

    fake.refreshes++;
    snprintf(current, sizeof(current), "rt-%d", fake.rotates ? fake.serial : 1);
    if (fake.dead || !form_has("refresh_token", current)) {
        fake.reuses += !fake.dead;
        fake.dead = true;
        answer(r, 400, "{\"error\":\"invalid_grant\"}");
        return;
    }
    issue(r);
}

static void do_exchange(struct vault_reply *r)
{
    fake.exchanges++;
    if (!form_has("code", fake.code)) {
        answer(r, 400, "{\"error\":\"invalid_grant\"}");
        return;
    }
    issue(r);
}

static void serve(const struct vault_post *post, struct vault_reply *r)
{
    fake.requests++;
    if (str_ends(post->url, STR("/revoke"))) {
        fake.revokes++;
        r->status = 200;
    } else if (form_has("grant_type", "refresh_token")) {
        do_refresh(r);
    } else {
        do_exchange(r);
    }
}

static enum err await_fake(void *ctx, const struct vault_post *post, struct vault_reply *r, struct errinfo *info)
{
    void (*await_meanwhile)(void) = fake.await_meanwhile;
    enum fake_mood mood;
    enum err e = OK;

    (void)await_sleep(loop_now() + fake.delay);         /* on the vault's own task: not cancelled */
    if (await_meanwhile && str_ends(post->url, STR("/revoke"))) {
        fake.await_meanwhile = NULL;
        await_meanwhile();
    }
    pthread_mutex_lock(&fake.lock);
    mood = fake.mood;
    if (fake.mood_left && --fake.mood_left == 0)
        fake.mood = fake.then;
    write_form(post);
    switch (mood) {
    case FAKE_GOOD:
        serve(post, r);
        break;
    case FAKE_UNSENT:
        e = err_set(info, E_UPSTREAM_DOWN, "nobody there");
        break;
    case FAKE_LOST_BEFORE:
        e = err_set(info, E_OUTCOME_UNKNOWN, "lost");
        break;
    case FAKE_LOST_AFTER:
        serve(post, r);
        buf_clear(&r->body);
        e = err_set(info, E_OUTCOME_UNKNOWN, "lost");
        break;
    case FAKE_ANSWER:
        fake.requests++;
        answer(r, fake.status, fake.body);
        break;
    }
    pthread_mutex_unlock(&fake.lock);
    return e;
}

struct vault_http fake_http(void)
{
    return (struct vault_http){ await_fake, NULL };
}

struct vault_provider fake_provider(enum vault_rotation rotation)
{
    return (struct vault_provider){
        .name = STR("fake"), .authorize_url = STR("https://fake/authorize"), .token_url = STR("https://fake/token"),
        .client_id = STR("us"), .auth = VAULT_AUTH_NONE, .scopes = STR("read write"), .rotation = rotation,
    };
}

/* ---- vault ------------------------------------------------------------------------------------------------------- */

struct store *bed_store;
struct vault *bed_vault;
char bed_dir[64];
void (*bed_crash_point)(const char *where);
bool bed_early;
size_t bed_accounts_max;

int bed_make_dir(void **state)
{
    bed_use_world();
    snprintf(bed_dir, sizeof(bed_dir), "/tmp/sluice-vault-XXXXXX");
    return mkdtemp(bed_dir) ? 0 : -1;
}

int bed_remove_dir(void **state)
{
    char command[128];

    snprintf(command, sizeof(command), "rm -rf %s", bed_dir);
    return system(command);
}

void bed_reopen(void)
{
    struct errinfo info = { "" };
    struct secret *root = secret_copy("0123456789abcdef0123456789abcdef", 32);
    struct vault_config config = {
        .root = root, .http = fake_http(), .no_early_refresh = !bed_early, .crash_point = bed_crash_point,
        .accounts_max = bed_accounts_max,
    };
    char path[128];

    if (bed_vault)
        bed_close();
    snprintf(path, sizeof(path), "%s/store.db", bed_dir);
    if (store_open(path, &bed_store, &info))
        fail_msg("%s", info.text);
    config.store = bed_store;
    if (vault_open(&config, &bed_vault, &info))
        fail_msg("%s", info.text);
    secret_release(root);
}

void bed_open(void)
{
    char command[160];

    if (bed_vault)
        bed_close();
    snprintf(command, sizeof(command), "rm -f %s/store.db*", bed_dir);
    assert_int_equal(system(command), 0);
    bed_reopen();
}

void bed_close(void)
{
    vault_close(bed_vault);
    store_close(bed_store);
    bed_vault = NULL;
    bed_store = NULL;
}

struct str bed_account(int64_t life_s, bool refreshable)
{
    static char text[64];
    struct grant g = {
        .access = secret_copy("at-1", 4), .refresh = refreshable ? secret_copy("rt-1", 4) : NULL,
            .obtained = bed_wall(),
        .expires = bed_wall() + life_s * 1000,
    };
    struct new_account n = {
        .tenant = STR("acme"), .user = STR("ann"), .provider = STR("fake"), .label = STR(""), .grant = &g,
    };
    struct errinfo info = { "" };
    struct arena a;
    struct str id;

    arena_init(&a, 4096);
    if (account_store(bed_vault, &n, bed_wall(), &a, &id, &info))
        fail_msg("%s", info.text);
    snprintf(text, sizeof(text), "%.*s", STR_ARG(id));
    arena_release(&a);
    grant_release(&g);
    return str_of(text);
}

/* ---- tasks ------------------------------------------------------------------------------------------------------- */

struct bed_loop {
    struct loop *loop;
    pthread_t thread;
    unsigned n_tasks, first, left;
    void (*fn)(void *arg, unsigned i);
    void *arg;
    struct bed_task *tasks;
};

struct bed_task {
    struct bed_loop *loop;
    unsigned i;
};

static void task_body(void *arg)
{
    struct bed_task *t = arg;

    t->loop->fn(t->loop->arg, t->i);
    if (--t->loop->left == 0)
        loop_stop(loop_self());
}

static void start(void *arg)
{
    struct bed_loop *l = arg;

    for (unsigned i = 0; i < l->n_tasks; i++) {
        l->tasks[i] = (struct bed_task){ l, l->first + i };
        CHECK(task_spawn("test", task_body, &l->tasks[i]));
    }
}

static void *loop_body(void *arg)
{
    struct bed_loop *l = arg;

    loop_run(l->loop, start, l);
    return NULL;
}

void bed_run(unsigned n_loops, unsigned n_tasks, void (*fn)(void *arg, unsigned i), void *arg)
{
    struct bed_loop loops[8];

    assert_true(n_loops <= 8);
    for (unsigned i = 0; i < n_loops; i++) {
        struct loop_options opt = { .id = i };
        struct errinfo info = { "" };

        loops[i] = (struct bed_loop){ .n_tasks = n_tasks, .first = i * n_tasks, .left = n_tasks, .fn = fn, .arg = arg };
        loops[i].tasks = calloc(n_tasks, sizeof(struct bed_task));
        if (loop_create(&opt, &loops[i].loop, &info))
            fail_msg("%s", info.text);
    }
    for (unsigned i = 0; i < n_loops; i++)
        assert_int_equal(pthread_create(&loops[i].thread, NULL, loop_body, &loops[i]), 0);
    for (unsigned i = 0; i < n_loops; i++)
        pthread_join(loops[i].thread, NULL);
    for (unsigned i = 0; i < n_loops; i++) {            /* after all: mail may still cross until the last has stopped */
        loop_destroy(loops[i].loop);
        free(loops[i].tasks);
    }
}

struct comparing {
    const char *text;
    char *out;
    bool equal;
};

static void compare(const uint8_t *bytes, size_t n, void *arg)
{
    struct comparing *c = arg;

    if (c->out)
        snprintf(c->out, 64, "%.*s", (int)n, bytes);
    else
        c->equal = n == strlen(c->text) && !memcmp(bytes, c->text, n);
}

bool secret_is(const struct secret *s, const char *text)
{
    struct comparing c = { .text = text };

    secret_use(s, compare, &c);
    return c.equal;
}

enum err bed_find(const char *tenant, const char *user, const char *provider, const char *label, struct arena *a,
    struct vault_account *ret)
{
    struct caller *who;
    enum err e;

    if (caller_named(str_of(tenant), str_of(user), STR("test"), &who, NULL))
        return E_ACCOUNT_MISSING;
    e = vault_account_find(bed_vault, who, str_of(provider), str_of(label), a, ret);
    caller_release(who);
    return e;
}

enum err bed_lease(struct str account, const struct vault_provider *p, ns_t deadline, struct vault_lease *ret,
    struct errinfo *info)
{
    struct vault_account held;
    struct arena a;
    enum err e;

    arena_init(&a, 8192);
    e = vault_account_get(bed_vault, STR("acme"), account, &a, &held);
    if (e) {
        err_set(info, e, "no such account");
    } else {
        e = await_vault_token(bed_vault, &held, p, deadline, ret, info);
        vault_account_release(&held);
    }
    arena_release(&a);
    return e;
}

enum err bed_token(struct str account, const struct vault_provider *p, char text[64])
{
    struct vault_lease lease = { 0 };
    struct comparing c = { .out = text };
    struct errinfo info = { "" };
    /* Far beyond what a blocked store takes to give up (three tries of three seconds): no test means this deadline. */
    enum err e = bed_lease(account, p, loop_now() + 120 * NS_PER_S, &lease, &info);

    text[0] = 0;
    if (e)
        CHECK(info.text[0] != 0);
    else
        secret_use(lease.token, compare, &c);
    vault_lease_release(bed_vault, &lease);
    return e;
}

struct token_run {
    struct str account;
    const struct vault_provider *p;
    char *text;
    enum err e;
};

static void token_task(void *arg, unsigned i)
{
    struct token_run *t = arg;

    t->e = bed_token(t->account, t->p, t->text);
}

enum err bed_token_run(struct str account, const struct vault_provider *p, char text[64])
{
    struct token_run t = { account, p, text, OK };

    bed_run(1, 1, token_task, &t);
    return t.e;
}
