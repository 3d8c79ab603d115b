/*
 * accounts.c -- connecting a user's accounts, over HTTP
 *
 * Whoever asks is identified exactly like an MCP client and can touch only accounts of that tenant and user.  The
 * provider's redirect is the exception: it carries a state that was made for one user, works once and for ten minutes.
 * No answer ever holds a token.
 */
#include "admin/internal.h"
#include "base/check.h"
#include "base/crypto.h"
#include "base/log.h"
#include "call/call.h"
#include "identity/identity.h"
#include "journal/journal.h"
#include "vault/vault.h"

enum { REQUEST_ARENA_MAX = 1 << 20, CONNECT_TIMEOUT_S = 20 };

struct request {
    struct http_request *rq;
    struct worker *w;
    struct arena arena;
    struct caller *caller;
    struct errinfo info;
};

static void await_refuse(struct request *r, enum err e)
{
    struct json *body = json_object(&r->arena);
    int status = err_row(e)->http;

    json_set_z(&r->arena, body, "error", err_name(e));
    json_set_z(&r->arena, body, "message", r->info.text[0] ? r->info.text : err_text(e));
    if (status == 200 || status == 499)
        status = err_row(e)->class == ERR_CALLER ? 400 : err_row(e)->class == ERR_UPSTREAM ? 502 : 503;
    await_answer_json(r->rq, status, &r->arena, body);
}

static void record(struct request *r, const char *event, struct str tenant, struct str user, struct str provider, struct str account, enum err e)
{
    struct json *j = json_object(&r->arena);
    struct buf b = BUF_INIT(8192);
    uint64_t seq;

    json_set_z(&r->arena, j, "event", event);
    json_set_str(&r->arena, j, "tenant", tenant);
    json_set_str(&r->arena, j, "user", user);
    if (r->caller)
        json_set_str(&r->arena, j, "agent", r->caller->agent);
    json_set_str(&r->arena, j, "provider", provider);
    json_set_str(&r->arena, j, "account", account);
    json_set_z(&r->arena, j, "outcome", e ? "refused" : "done");
    if (e)
        json_set_z(&r->arena, j, "error", err_name(e));
    json_set_z(&r->arena, j, "peer", http_peer(r->rq));
    json_write(&b, j);
    if (journal_append(r->w->lane, JOURNAL_ADMIN, buf_str(&b), NULL, &seq) || await_journal_commit(r->w->lane, seq, NS_NEVER))
        LOG_ERROR("a change of an account could not be recorded", LOG_S("event", event));
    buf_release(&b);
}

static enum err await_who(struct request *r)
{
    struct identity *identity = r->w->engine->identity;
    struct str authorization;

    if (!identity)
        return err_set(&r->info, E_TOKEN_MISSING, "accounts are not managed where there is no authentication");
    if (http_header(r->rq, "authorization", &authorization) > 1)
        return E_TOKEN_MALFORMED;
    return await_identify(identity, authorization, &r->caller, &r->info);
}

static enum err body_of(struct request *r, struct json **ret)
{
    struct json_error where;

    if (json_parse(&r->arena, http_body(r->rq), NULL, ret, &where) || !json_is(*ret, JSON_OBJECT))
        return err_set(&r->info, E_JSON_MALFORMED, "the body must be a JSON object");
    return OK;
}

static enum err provider_of(struct request *r, const struct json *body, const struct provider_conf **ret)
{
    struct str name = json_str(json_get(body, "provider"));

    *ret = registry_provider(r->w->registry, name);
    if (!*ret || (*ret)->decl->no_account)
        return err_set(&r->info, E_RPC_PARAMS, "provider: \"%.*s\" is no provider of this engine", STR_ARG(name.len > 64 ? str_n(name.p, 64) : name));
    return OK;
}

/* Where the provider sends the browser back to: the address the request itself came to, which TLS or loopback vouches for. */
static struct str redirect_uri(struct request *r)
{
    struct str host = STR_NULL;

    http_header(r->rq, "host", &host);
    return arena_printf(&r->arena, "%s://%.*s/connect/callback", http_is_tls(r->rq) ? "https" : "http", STR_ARG(host));
}

/* ---- routes -------------------------------------------------------------------------------------------------------- */

static enum err await_list(struct request *r)
{
    struct json *list = json_array(&r->arena), *body = json_object(&r->arena);
    struct vault_account *accounts;
    size_t n;
    enum err e = vault_accounts(r->w->engine->vault, r->caller->tenant, r->caller->user, &r->arena, &accounts, &n);

    if (e)
        return e;
    for (size_t i = 0; i < n; i++) {
        struct json *one = json_object(&r->arena);
        char created[25];

        wall_format(accounts[i].created, created);
        json_set_str(&r->arena, one, "id", accounts[i].id);
        json_set_str(&r->arena, one, "provider", accounts[i].provider);
        json_set_str(&r->arena, one, "label", accounts[i].label);
        json_set_str(&r->arena, one, "scopes", accounts[i].scopes);
        json_set_z(&r->arena, one, "status", accounts[i].status == ACCOUNT_CONNECTED ? "connected" : "reconnect_needed");
        json_set_z(&r->arena, one, "created", created);
        json_push(&r->arena, list, one);
    }
    json_set(&r->arena, body, "accounts", list);
    record(r, "accounts_list", r->caller->tenant, r->caller->user, STR_NULL, STR_NULL, OK);
    await_answer_json(r->rq, 200, &r->arena, body);
    return OK;
}

static enum err await_connect(struct request *r)
{
    const struct provider_conf *p;
    struct json *body, *answer = json_object(&r->arena);
    struct str url, state;
    enum err e = body_of(r, &body);

    if (!e)
        e = provider_of(r, body, &p);
    if (!e && (p->vault.authorize_url.len == 0 || p->vault.client_id.len == 0))
        e = err_set(&r->info, E_RPC_PARAMS, "provider %s has no OAuth client configured: set providers.%s.client_id, or bring a token", p->decl->name, p->decl->name);
    if (!e)
        e = await_vault_tenant(r->w->engine->vault, r->caller->tenant, &r->info);
    if (!e)
        e = await_vault_connect_begin(r->w->engine->vault, &p->vault, r->caller->tenant, r->caller->user, json_str(json_get(body, "label")),
                                      redirect_uri(r), &r->arena, &url, &state, &r->info);
    if (e)
        return e;
    record(r, "connect_begin", r->caller->tenant, r->caller->user, str_of(p->decl->name), STR_NULL, OK);
    json_set_str(&r->arena, answer, "url", url);
    await_answer_json(r->rq, 200, &r->arena, answer);
    return OK;
}

static enum err await_bring(struct request *r)
{
    const struct provider_conf *p;
    struct json *body, *answer = json_object(&r->arena);
    struct vault_static st = { .tenant = r->caller->tenant, .user = r->caller->user };
    struct secret *token = NULL;
    struct str id;
    enum err e = body_of(r, &body);

    if (!e)
        e = provider_of(r, body, &p);
    if (!e && json_str(json_get(body, "token")).len == 0)
        e = err_set(&r->info, E_RPC_PARAMS, "token: missing");
    if (e)
        return e;
    token = secret_copy(json_str(json_get(body, "token")).p, json_str(json_get(body, "token")).len);
    st.provider = str_of(p->decl->name);
    st.label = json_str(json_get(body, "label"));
    if (st.label.len == 0)
        st.label = r->caller->user;
    st.external_id = json_str(json_get(body, "external_id"));
    st.token = token;
    e = token ? await_vault_tenant(r->w->engine->vault, r->caller->tenant, &r->info) : E_CALL_TOO_LARGE;
    if (!e)
        e = await_vault_account_put(r->w->engine->vault, &st, &r->arena, &id, &r->info);
    secret_release(token);
    record(r, "account_put", r->caller->tenant, r->caller->user, st.provider, e ? STR_NULL : id, e);
    if (e)
        return e;
    json_set_str(&r->arena, answer, "id", id);
    await_answer_json(r->rq, 200, &r->arena, answer);
    return OK;
}

static enum err await_forget(struct request *r, struct str id)
{
    struct json *answer = json_object(&r->arena);
    const struct provider_conf *p;
    struct vault_account account;
    bool revoked = false;
    enum err e = vault_account_get(r->w->engine->vault, r->caller->tenant, id, &r->arena, &account);

    if (!e && !str_eq(account.user, r->caller->user))
        e = E_ACCOUNT_MISSING;                  /* somebody else's and none at all look the same */
    if (e)
        return e;
    p = registry_provider(r->w->registry, account.provider);
    e = await_vault_disconnect(r->w->engine->vault, r->caller->tenant, id, p ? &p->vault : NULL, loop_now() + CONNECT_TIMEOUT_S * NS_PER_S,
                               &revoked, &r->info);
    record(r, "disconnect", r->caller->tenant, r->caller->user, account.provider, id, e);
    if (e)
        return e;
    json_set_bool(&r->arena, answer, "revoked_at_provider", revoked);
    await_answer_json(r->rq, 200, &r->arena, answer);
    return OK;
}

/* ---- the provider's redirect --------------------------------------------------------------------------------------- */

static int hex_digit(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

static struct str form_decode(struct arena *a, struct str s)
{
    char *z = arena_alloc(a, s.len + 1);
    size_t n = 0;

    for (size_t i = 0; z && i < s.len; i++) {
        if (s.p[i] == '%' && i + 2 < s.len && hex_digit(s.p[i + 1]) >= 0 && hex_digit(s.p[i + 2]) >= 0) {
            z[n++] = (char)(hex_digit(s.p[i + 1]) * 16 + hex_digit(s.p[i + 2]));
            i += 2;
        } else {
            z[n++] = s.p[i] == '+' ? ' ' : s.p[i];
        }
    }
    return str_n(z, z ? n : 0);
}

static struct str query_value(struct request *r, const char *name)
{
    struct str rest = http_query(r->rq), pair, key, value;

    while (rest.len) {
        if (!str_cut(rest, '&', &pair, &rest)) {
            pair = rest;
            rest = STR_NULL;
        }
        if (str_cut(pair, '=', &key, &value) && str_is(key, name))
            return form_decode(&r->arena, value);
    }
    return STR_NULL;
}

static void await_page(struct request *r, int status, const char *line)
{
    const struct http_header headers[] = {
        { STR("Content-Type"), STR("text/html; charset=utf-8") },
        { STR("Cache-Control"), STR("no-store") },
        { STR("Content-Security-Policy"), STR("default-src 'none'; frame-ancestors 'none'") },
        { STR("Referrer-Policy"), STR("no-referrer") },
    };
    struct str page = arena_printf(&r->arena, "<!doctype html><title>sluice</title><p>%s</p>\n", line);

    await_http_reply(r->rq, status, headers, ARRAY_LEN(headers), page);
}

static void await_callback(struct request *r)
{
    struct vault_callback cb = { query_value(r, "state"), query_value(r, "code"), query_value(r, "iss"), query_value(r, "error") };
    const struct provider_conf *p = NULL;
    struct vault_pending pending = { 0 };
    struct str id = STR_NULL;
    enum err e = await_vault_connect_peek(r->w->engine->vault, cb.state, &r->arena, &pending, &r->info);

    if (!e) {
        p = registry_provider(r->w->registry, pending.provider);
        e = p ? await_vault_connect_finish(r->w->engine->vault, &p->vault, &cb, loop_now() + CONNECT_TIMEOUT_S * NS_PER_S, &r->arena, &id, &r->info)
              : E_STATE_INVALID;
    }
    record(r, "connect_finish", pending.tenant, pending.user, pending.provider, id, e);
    if (e)
        LOG_WARN("an account could not be connected", LOG_S("error", err_name(e)), LOG_S("why", r->info.text));
    /* what went wrong is said in our words only: the query is anybody's */
    await_page(r, e ? 400 : 200, e ? "The account could not be connected. Start again from where you came." :
               "The account is connected. You can close this page.");
}

static enum err await_route(struct request *r)
{
    struct str path = http_path(r->rq), method = http_method(r->rq);
    enum err e = await_who(r);

    if (e)
        return e;
    if (str_is(path, "/v1/accounts") && str_is(method, "GET"))
        return await_list(r);
    if (str_is(path, "/v1/accounts") && str_is(method, "POST"))
        return await_bring(r);
    if (str_is(path, "/v1/connect") && str_is(method, "POST"))
        return await_connect(r);
    if (str_starts(path, STR("/v1/accounts/")) && str_is(method, "DELETE"))
        return await_forget(r, str_from(path, strlen("/v1/accounts/")));
    return E_HTTP_NOT_FOUND;
}

void accounts_handle(struct http_request *rq, struct worker *w)
{
    struct request r = { .rq = rq, .w = w };
    enum err e;

    arena_init(&r.arena, REQUEST_ARENA_MAX);
    if (str_is(http_path(rq), "/connect/callback")) {
        if (str_is(http_method(rq), "GET"))
            await_callback(&r);
        else
            await_answer_text(rq, 405, "GET only\n");
    } else {
        e = await_route(&r);
        if (e) {
            call_record_bad_request(w, e, r.info.text[0] ? r.info.text : err_text(e), http_peer(rq), http_body(rq).len);
            await_refuse(&r, e);
        }
    }
    caller_release(r.caller);
    arena_release(&r.arena);
}
