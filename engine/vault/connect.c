/*
 * connect.c -- connecting an account: authorization code with PKCE (RFC 6749 4.1, RFC 7636, RFC 9700 2.1)
 *
 * begin   makes state and verifier (32 random bytes each), stores them, answers the URL for the browser
 * finish  takes the stored row (one caller only), checks that the answer belongs to it, exchanges the code, stores
 * the account
 *
 * The row is found by SHA-256 of the state; its sealed part (purpose "connect", bound to the user) holds what the
 * exchange needs:   len verifier | len redirect_uri | len label   (len: 2 bytes, big endian).
 * The state is used up before anything else happens, so that neither a repeated redirect nor a stolen one is
 * exchanged twice.
 */
#include "vault/internal.h"

#include "base/crypto.h"
#include "base/escape.h"
#include "loop/task.h"

enum { RANDOM_LEN = 32, STATE_LEN = 43, REDIRECT_MAX = 2048, CODE_MAX = 4096, URL_MAX = 16 * 1024,
    REPLY_MAX = 64 * 1024 };

/* ---- begin ------------------------------------------------------------------------------------------------------- */

static void add_part(struct buf *out, struct str s)
{
    buf_add_c(out, (char)(s.len >> 8));
    buf_add_c(out, (char)(s.len & 0xff));
    buf_add_str(out, s);
}

static bool next_part(struct str *rest, struct str *ret)
{
    size_t n;

    if (rest->len < 2)
        return false;
    n = (size_t)(uint8_t)rest->p[0] << 8 | (uint8_t)rest->p[1];
    if (rest->len - 2 < n)
        return false;
    *ret = str_n(rest->p + 2, n);
    *rest = str_from(*rest, 2 + n);
    return true;
}

/* 32 random bytes as 43 characters, which is also what RFC 7636 4.1 wants of a verifier. */
static struct str random_text(struct arena *a)
{
    uint8_t raw[RANDOM_LEN];
    struct buf text = BUF_INIT(64);
    struct str s;

    crypto_random(raw, sizeof(raw));
    buf_add_b64url(&text, str_n(raw, sizeof(raw)));
    s = arena_str(a, buf_str(&text));
    buf_release(&text);
    return s;
}

static void add_query(struct buf *url, bool *first, const char *name, struct str value)
{
    buf_add_c(url, *first ? '?' : '&');
    *first = false;
    buf_add_percent(url, str_of(name));
    buf_add_c(url, '=');
    buf_add_percent(url, value);
}

static struct str scope_text(const struct vault_provider *p, struct arena *a)
{
    char *s = arena_z(a, p->scopes);

    for (size_t i = 0; s && p->scope_separator && i < p->scopes.len; i++) {
        if (s[i] == ' ')
            s[i] = p->scope_separator;
    }
    return str_n(s, s ? p->scopes.len : 0);
}

static void build_url(const struct vault_provider *p, struct str redirect_uri, struct str state, struct str verifier,
    struct arena *a, struct buf *url)
{
    uint8_t digest[SHA256_LEN];
    struct buf challenge = BUF_INIT(64);
    bool first = !memchr(p->authorize_url.p, '?', p->authorize_url.len);

    sha256(verifier.p, verifier.len, digest);
    buf_add_b64url(&challenge, str_n(digest, sizeof(digest)));
    buf_add_str(url, p->authorize_url);
    add_query(url, &first, "response_type", STR("code"));
    add_query(url, &first, "client_id", p->client_id);
    add_query(url, &first, "redirect_uri", redirect_uri);
    if (p->scopes.len)
        add_query(url, &first, "scope", scope_text(p, a));
    add_query(url, &first, "state", state);
    add_query(url, &first, "code_challenge", buf_str(&challenge));
    add_query(url, &first, "code_challenge_method", STR("S256"));
    for (size_t i = 0; i < p->n_authorize_params; i++) {
        buf_add_c(url, '&');
        buf_add_percent(url, p->authorize_params[i].name);
        buf_add_c(url, '=');
        buf_add_percent(url, p->authorize_params[i].value);
    }
    buf_release(&challenge);
}

struct pending_job {
    struct vault *v;
    struct str tenant, user;            /* put */
    struct store_pending row;
    struct str state;
    wall_ms_t now;
    bool take;
    struct arena *a;
    struct errinfo *info;
    enum err e;
};

static void put_blocking(void *arg)
{
    struct pending_job *j = arg;
    uint8_t key[SHA256_LEN];

    sha256(j->state.p, j->state.len, key);
    j->e = store_pending_put(j->v->store, str_n(key, sizeof(key)), &j->row, j->now, j->info);
}

static enum err check_begin(const struct vault_provider *p, struct str redirect_uri, struct errinfo *info)
{
    if (str_empty(p->authorize_url) || str_empty(p->token_url) || str_empty(p->client_id))
        return err_set(info, E_CONFIG, "provider %.*s lacks authorize_url, token_url or client_id", STR_ARG(p->name));
    if (str_empty(redirect_uri) || redirect_uri.len > REDIRECT_MAX)
        return err_set(info, E_CONFIG, "the redirect URI is missing or too long");
    return OK;
}

enum err await_vault_connect_begin(struct vault *v, const struct vault_provider *p, struct str tenant, struct str user,
    struct str label, struct str redirect_uri, struct arena *a, struct str *ret_url, struct str *ret_state,
    struct errinfo *info)
{
    struct buf plain = BUF_INIT(4096), sealed = BUF_INIT(8192), url = BUF_INIT(URL_MAX);
    struct str state, verifier;
    struct pending_job j;
    enum err e = check_names(tenant, user, p->name, label, info);

    if (!e)
        e = check_begin(p, redirect_uri, info);
    if (!e)
        e = await_vault_tenant(v, tenant, info);
    if (e)
        return e;
    state = random_text(a);
    verifier = random_text(a);
    add_part(&plain, verifier);
    add_part(&plain, redirect_uri);
    add_part(&plain, label);
    e = arena_overflowed(a) || plain.overflow ? E_CALL_TOO_LARGE
        : vault_seal(v, tenant, user, STR("connect"), buf_str(&plain), &sealed);
    if (!e) {
        j = (struct pending_job){ .v = v, .state = state, .now = loop_wall_ms(), .info = info };
        j.row = (struct store_pending){ tenant, user, p->name, buf_str(&sealed), j.now + CONNECT_MS };
        await_blocking(put_blocking, &j);
        e = j.e;
    }
    if (!e) {
        build_url(p, redirect_uri, state, verifier, a, &url);
        *ret_url = arena_str(a, buf_str(&url));
        *ret_state = state;
        e = url.overflow || arena_overflowed(a) ? E_CALL_TOO_LARGE : OK;
    }
    bytes_wipe((void *)(uintptr_t)verifier.p, verifier.len);
    if (plain.p)
        bytes_wipe(plain.p, plain.len);
    buf_release(&plain);
    buf_release(&sealed);
    buf_release(&url);
    return e;
}

/* ---- finish ------------------------------------------------------------------------------------------------------ */

static void get_blocking(void *arg)
{
    struct pending_job *j = arg;
    uint8_t key[SHA256_LEN];

    sha256(j->state.p, j->state.len, key);
    j->e = store_pending_get(j->v->store, str_n(key, sizeof(key)), j->now, j->take, j->a, &j->row, j->info);
    if (!j->e)
        j->e = vault_tenant_load(j->v, j->row.tenant, j->info);
}

static enum err await_pending(struct vault *v, struct str state, bool take, struct arena *a, struct store_pending *ret,
    struct errinfo *info)
{
    struct pending_job j = { .v = v, .state = state, .now = loop_wall_ms(), .take = take, .a = a, .info = info };

    if (state.len != STATE_LEN)
        return err_set(info, E_STATE_INVALID, "the state is not one of ours");
    await_blocking(get_blocking, &j);
    if (j.e == E_NOT_FOUND)
        return err_set(info, E_STATE_INVALID, "the state is unknown, used or expired: start again");
    *ret = j.row;
    return j.e;
}

enum err await_vault_connect_peek(struct vault *v, struct str state, struct arena *a, struct vault_pending *ret,
    struct errinfo *info)
{
    struct store_pending row;
    enum err e = await_pending(v, state, false, a, &row, info);

    if (!e)
        *ret = (struct vault_pending){ row.tenant, row.user, row.provider };
    return e;
}

static void printable(struct str s, char out[80])
{
    size_t n = 0;

    for (size_t i = 0; i < s.len && n < 79; i++)
        out[n++] = s.p[i] > 0x20 && s.p[i] < 0x7f ? s.p[i] : '_';
    out[n] = 0;
}

static enum err check_callback(const struct vault_provider *p, const struct store_pending *row,
    const struct vault_callback *cb, struct errinfo *info)
{
    char word[80];

    if (!str_eq(row->provider, p->name))
        return err_set(info, E_STATE_INVALID, "the state was made for another provider");
    /* Mix-up (RFC 9207): an answer must come from the server the user was sent to. */
    if (!str_empty(p->issuer) ? !str_eq(cb->iss, p->issuer) : !str_empty(cb->iss))
        return err_set(info, E_STATE_INVALID, "the answer's iss is not the one configured for provider %.*s",
            STR_ARG(p->name));
    if (!str_empty(cb->error)) {
        printable(cb->error, word);
        return err_set(info, E_UPSTREAM_REFUSED, "the provider did not authorize: %s", word);
    }
    if (str_empty(cb->code) || cb->code.len > CODE_MAX)
        return err_set(info, E_STATE_INVALID, "the answer has no code");
    return OK;
}

static enum err answer_error(enum oauth_verdict verdict, const struct oauth_answer *answer, struct errinfo *info)
{
    switch (verdict) {
    case OAUTH_TOKENS:
        return OK;
    case OAUTH_DEAD:
        return err_set(info, E_UPSTREAM_REFUSED, "the provider did not accept the code: %s", answer->error);
    case OAUTH_CLIENT:
        return err_set(info, E_UPSTREAM_AUTH, "the provider does not accept this engine's OAuth client: %s",
            answer->error);
    case OAUTH_LATER:
        return err_set(info, E_UPSTREAM_DOWN, "the provider's token endpoint does not answer now: %s", answer->error);
    case OAUTH_LOST:
        return err_set(info, E_UPSTREAM_GARBLED,
            "the provider's token endpoint answered something that is not understood");
    }
    UNREACHABLE();
}

static enum err await_code(struct vault *v, const struct vault_provider *p, const struct store_pending *row,
    struct str code,
    struct str verifier, struct str redirect_uri, ns_t deadline, struct oauth_answer *answer, struct errinfo *info)
{
    struct vault_post post = { .tenant = row->tenant, .provider = p->name, .url = p->token_url, .deadline = deadline };
    struct vault_reply reply = { .retry_after_s = -1, .body = BUF_INIT(REPLY_MAX) };
    struct form form = { .n = 0 };
    enum err e;

    form_add(&form, STR("grant_type"), STR("authorization_code"));
    form_add(&form, STR("code"), code);
    form_add(&form, STR("redirect_uri"), redirect_uri);
    form_add(&form, STR("code_verifier"), verifier);
    form_finish(&form, p, &post);
    if (form.overflow)
        return err_set(info, E_CONFIG, "provider %.*s has too many token parameters", STR_ARG(p->name));
    e = v->http.await_post(v->http.ctx, &post, &reply, info);
    if (!e)
        return answer_error(oauth_read(&reply, answer), answer, info);
    if (reply.body.p)
        bytes_wipe(reply.body.p, reply.body.len);
    buf_release(&reply.body);
    return e;
}

struct store_job {
    struct vault *v;
    struct new_account n;
    wall_ms_t now;
    struct arena *a;
    struct str *ret_id;
    struct errinfo *info;
    enum err e;
};

static void store_blocking(void *arg)
{
    struct store_job *j = arg;

    j->e = account_store(j->v, &j->n, j->now, j->a, j->ret_id, j->info);
}

/* The code has been exchanged: from here on tokens exist, and are stored whatever becomes of the caller. */
static enum err await_store_account(struct vault *v, const struct vault_provider *p, const struct store_pending *row,
    struct str label, const struct oauth_answer *answer, struct arena *a, struct str *ret_id, struct errinfo *info)
{
    wall_ms_t now = loop_wall_ms();
    struct grant g = {
        .access = answer->access, .refresh = answer->refresh, .obtained = now,
        .expires = oauth_expiry(p, answer->expires_in_s, now),
    };
    struct store_job j = { .v = v, .now = now, .a = a, .ret_id = ret_id, .info = info };

    /* No scope in the answer: granted as asked (RFC 6749 5.1). */
    j.n = (struct new_account){ row->tenant, row->user, row->provider, label, STR_NULL,
        answer->scopes[0] ? str_of(answer->scopes) : p->scopes, &g };
    await_blocking(store_blocking, &j);
    return j.e;
}

enum err await_vault_connect_finish(struct vault *v, const struct vault_provider *p, const struct vault_callback *cb,
    ns_t deadline, struct arena *a, struct str *ret_id, struct errinfo *info)
{
    struct buf plain = BUF_INIT(8192);
    struct oauth_answer answer = { .expires_in_s = -1 };
    struct str rest, verifier = STR_NULL, redirect_uri = STR_NULL, label = STR_NULL;
    struct store_pending row;
    enum err e = await_pending(v, cb->state, true, a, &row, info);

    if (!e)
        e = check_callback(p, &row, cb, info);
    if (!e && vault_unseal(v, row.tenant, row.user, STR("connect"), row.sealed, &plain))
        e = err_set(info, E_STATE_INVALID, "the state's stored half does not open");
    rest = buf_str(&plain);
    if (!e && !(next_part(&rest, &verifier) && next_part(&rest, &redirect_uri) && next_part(&rest, &label)))
        e = err_set(info, E_STATE_INVALID, "the state's stored half does not open");
    task_shield(+1);                    /* a browser that goes away must not leave tokens that nobody keeps */
    if (!e)
        e = await_code(v, p, &row, cb->code, verifier, redirect_uri, deadline, &answer, info);
    if (!e)
        e = await_store_account(v, p, &row, label, &answer, a, ret_id, info);
    task_shield(-1);
    oauth_answer_release(&answer);
    if (plain.p)
        bytes_wipe(plain.p, plain.len);
    buf_release(&plain);
    return e;
}
