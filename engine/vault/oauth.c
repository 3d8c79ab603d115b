/*
 * oauth.c -- OAuth messages: what is sent to a token endpoint, and what its answer means (RFC 6749 4.1.3, 5.1, 5.2, 6)
 *
 * Pure.  The hard part is the verdict: a refresh token may be gone after any request that was received, so "it
 * failed" must be told from "nobody knows".  Definite: an error the provider spelled out, and the statuses that say
 * the request was not processed (429, 500, 503).  Unknown: 502 and 504 (a gateway lost the answer), a success that
 * cannot be read. Errors come as {"error": "..."} with 4xx, or with 200 (GitHub, Slack's "ok": false), or as
 * {"error": {"code": "..."}}.
 */
#include "vault/internal.h"

#include "base/crypto.h"
#include "json/json.h"

#include <stdlib.h>

/* ---- what is sent ------------------------------------------------------------------------------------------------ */

void form_add(struct form *f, struct str name, struct str value)
{
    if (f->n == FORM_MAX)
        f->overflow = true;
    else
        f->fields[f->n++] = (struct vault_field){ .name = name, .value = value };
}

void form_add_secret(struct form *f, struct str name, const struct secret *secret)
{
    if (f->n == FORM_MAX)
        f->overflow = true;
    else
        f->fields[f->n++] = (struct vault_field){ .name = name, .secret = secret };
}

void form_finish(struct form *f, const struct vault_provider *p, struct vault_post *post)
{
    if (p->auth == VAULT_AUTH_BASIC && p->client_secret) {
        post->basic_user = p->client_id;
        post->basic_secret = p->client_secret;
    } else {
        form_add(f, STR("client_id"), p->client_id);
        if (p->auth == VAULT_AUTH_POST && p->client_secret)
            form_add_secret(f, STR("client_secret"), p->client_secret);
    }
    for (size_t i = 0; i < p->n_token_params; i++)
        form_add(f, p->token_params[i].name, p->token_params[i].value);
    post->fields = f->fields;
    post->n_fields = f->n;
}

bool oauth_unsent(enum err e)
{
    return e == E_UPSTREAM_DOWN || e == E_EGRESS_DENIED || e == E_CONNECTOR_FAULT || e == E_DEADLINE || e == E_CANCELLED
        || e == E_DRAINING || e == E_OVERLOADED;
}

/* ---- what comes back --------------------------------------------------------------------------------------------- */

static bool one_of(const char *word, const char *const *list, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (str_ieq(str_of(word), str_of(list[i])))
            return true;
    }
    return false;
}

/* An error the provider spelled out. */
static enum oauth_verdict verdict_of(const char *word, int status)
{
    static const char *const dead[] = {
        "invalid_grant", "bad_refresh_token", "invalid_refresh_token", "expired_token", "token_expired",
            "token_revoked",
        "bad_verification_code", "invalid_code", "code_already_used", "account_inactive", "interaction_required",
        "consent_required", "login_required", "access_denied",
    };
    static const char *const later[] = {
        "temporarily_unavailable", "server_error", "slow_down", "ratelimited", "rate_limited", "rate_limit_exceeded",
        "internal_error", "fatal_error", "service_unavailable",
    };

    if (one_of(word, dead, ARRAY_LEN(dead)))
        return OAUTH_DEAD;
    if (one_of(word, later, ARRAY_LEN(later)) || status == 429 || status == 500 || status == 503)
        return OAUTH_LATER;
    return status >= 500 ? OAUTH_LOST : OAUTH_CLIENT;
}

static void printable(struct str s, char *out, size_t size)
{
    size_t n = 0;

    for (size_t i = 0; i < s.len && n + 1 < size; i++)
        out[n++] = s.p[i] > 0x20 && s.p[i] < 0x7f && s.p[i] != '"' && s.p[i] != '\\' ? s.p[i] : '_';
    out[n] = 0;
}

static struct str error_word(const struct json *j)
{
    const struct json *error = json_get(j, "error");

    if (json_is(error, JSON_OBJECT))
        error = json_get(error, json_get(error, "code") ? "code" : "type");
    if (str_empty(json_str(error)))
        error = json_get(j, "status");          /* HubSpot: "BAD_REFRESH_TOKEN" */
    return json_str(error);
}

static bool token_member(const struct json *j, const char *name, struct str *ret)
{
    *ret = json_str(json_get(j, name));
    if (ret->len > TOKEN_TEXT_MAX)
        return false;
    for (size_t i = 0; i < ret->len; i++) {
        if (ret->p[i] < 0x21 || ret->p[i] > 0x7e)       /* it goes into a header */
            return false;
    }
    return true;
}

static bool read_lifetime(const struct json *j, int64_t *ret)
{
    const struct json *life = json_get(j, "expires_in");
    uint64_t n;

    *ret = -1;
    if (!life || json_is(life, JSON_NULL))
        return true;
    if (json_is(life, JSON_STRING)) {           /* some send "3600" */
        if (!str_to_u64(json_str(life), &n) || n > INT32_MAX)
            return false;
        *ret = (int64_t)n;
        return true;
    }
    return json_int(life, ret) && *ret >= 0 && *ret <= INT32_MAX;
}

static enum oauth_verdict read_tokens(const struct json *j, struct oauth_answer *ret)
{
    static const char *const types[] = { "bearer", "bot", "user" };     /* the last two are Slack's, used as bearer */
    struct str access, refresh, type = json_str(json_get(j, "token_type")), scope = json_str(json_get(j, "scope"));
    char word[16];

    printable(type, word, sizeof(word));
    if (!token_member(j, "access_token", &access) || !token_member(j, "refresh_token", &refresh) || str_empty(access)
        || !read_lifetime(j, &ret->expires_in_s) || (type.len && !one_of(word, types, ARRAY_LEN(types))))
        return OAUTH_LOST;
    if (scope.len < sizeof(ret->scopes)) {
        for (size_t i = 0; i < scope.len; i++)
            ret->scopes[i] = scope.p[i] == ',' || scope.p[i] < 0x21 || scope.p[i] > 0x7e ? ' ' : scope.p[i];
        ret->scopes[scope.len] = 0;
    }
    ret->access = secret_copy(access.p, access.len);
    ret->refresh = refresh.len ? secret_copy(refresh.p, refresh.len) : NULL;
    return ret->access && (ret->refresh || !refresh.len) ? OAUTH_TOKENS : OAUTH_LOST;
}

/* An unescaped copy of a token may lie in the arena; the body itself is wiped by the caller. */
static void wipe_member(const struct json *j, const char *name)
{
    struct str s = json_str(json_get(j, name));

    if (s.len)
        bytes_wipe((void *)(uintptr_t)s.p, s.len);
}

static enum oauth_verdict read_body(const struct json *j, int status, struct oauth_answer *ret)
{
    struct str word = error_word(j);
    bool said_ok = true;

    json_bool(json_get(j, "ok"), &said_ok);
    if (status >= 200 && status < 300 && said_ok && json_get(j, "access_token"))
        return read_tokens(j, ret);
    if (str_empty(word))
        return status == 429 || status == 500 || status == 503 ? OAUTH_LATER
            : status == 401 ? OAUTH_CLIENT : status >= 400 && status < 500 ? OAUTH_LATER : OAUTH_LOST;
    printable(word, ret->error, sizeof(ret->error));
    return verdict_of(ret->error, status);
}

enum oauth_verdict oauth_read(struct vault_reply *reply, struct oauth_answer *ret)
{
    static const struct json_limits limits = { .depth_max = 16, .nodes_max = 4000 };
    enum oauth_verdict verdict;
    struct json *j = NULL;
    struct arena a;

    *ret = (struct oauth_answer){ .expires_in_s = -1 };
    arena_init(&a, 512 * 1024);
    if (json_parse(&a, buf_str(&reply->body), &limits, &j, NULL) || !json_is(j, JSON_OBJECT))
        j = NULL;
    verdict = read_body(j, reply->status, ret);
    wipe_member(j, "access_token");
    wipe_member(j, "refresh_token");
    wipe_member(j, "id_token");
    arena_release(&a);
    if (reply->body.p)
        bytes_wipe(reply->body.p, reply->body.len);
    buf_release(&reply->body);
    if (verdict != OAUTH_TOKENS)
        oauth_answer_release(ret);
    return verdict;
}

void oauth_answer_release(struct oauth_answer *a)
{
    secret_release(a->access);
    secret_release(a->refresh);
    a->access = a->refresh = NULL;
}

wall_ms_t oauth_expiry(const struct vault_provider *p, int64_t expires_in_s, wall_ms_t now)
{
    if (expires_in_s > 0)
        return now + expires_in_s * 1000;
    return p->default_ttl > 0 ? now + p->default_ttl / NS_PER_MS : INT64_MAX;
}

/* ---- a provider's configuration, copied -------------------------------------------------------------------------- */

struct provider_box {
    struct vault_provider p;
    struct arena arena;
    struct secret *client_secret;
};

static void copy_secret(const uint8_t *bytes, size_t n, void *arg)
{
    *(struct secret **)arg = secret_copy(bytes, n);
}

static const struct vault_param *copy_params(struct arena *a, const struct vault_param *from, size_t n)
{
    struct vault_param *to = ARENA_ARRAY(a, struct vault_param, n ? n : 1);

    for (size_t i = 0; to && i < n; i++)
        to[i] = (struct vault_param){ arena_str(a, from[i].name), arena_str(a, from[i].value) };
    return to;
}

struct vault_provider *provider_copy(const struct vault_provider *p)
{
    struct provider_box *box = calloc(1, sizeof(*box));
    struct arena *a = &box->arena;

    ASSERT(box);
    arena_init(a, 256 * 1024);
    box->p = *p;
    box->p.name = arena_str(a, p->name);
    box->p.token_url = arena_str(a, p->token_url);
    box->p.client_id = arena_str(a, p->client_id);
    box->p.token_params = copy_params(a, p->token_params, p->n_token_params);
    /* Refreshing needs nothing else: what is not copied must not be looked at. */
    box->p.authorize_url = box->p.revoke_url = box->p.issuer = box->p.scopes = STR_NULL;
    box->p.authorize_params = NULL;
    box->p.n_authorize_params = 0;
    if (p->client_secret)
        secret_use(p->client_secret, copy_secret, &box->client_secret);
    box->p.client_secret = box->client_secret;
    if (arena_overflowed(a) || (p->client_secret && !box->client_secret)) {
        provider_free(&box->p);
        return NULL;
    }
    return &box->p;
}

void provider_free(struct vault_provider *p)
{
    struct provider_box *box = CONTAINER_OF(p, struct provider_box, p);

    secret_release(box->client_secret);
    arena_release(&box->arena);
    free(box);
}
