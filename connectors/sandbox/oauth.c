/*
 * oauth.c -- the authorization server: RFC 6749 code flow with PKCE S256 (RFC 7636), rotation with reuse detection
 *
 * Whoever types a user's name is that user: it is a sandbox.  Everything else is strict.
 */
#include <stdio.h>
#include <stdlib.h>

#include "base/crypto.h"
#include "base/escape.h"
#include "connectors/sandbox/internal.h"

enum { CODE_TTL_S = 60, REFRESH_TTL_S = 90 * 24 * 3600 };

bool oauth_serves(struct str path)
{
    return str_starts(path, STR("/oauth2/v2.0/"));
}

static void await_oauth_error(struct turn *t, const char *error, const char *description)
{
    struct json *body = json_object(&t->arena);

    json_set_z(&t->arena, body, "error", error);
    json_set_z(&t->arena, body, "error_description", description);
    await_json(t, str_is(str_of(error), "invalid_client") ? 401 : 400, body);
}

static void put(char *to, size_t max, struct str s)
{
    snprintf(to, max, "%.*s", STR_ARG(s));
}

/* ---- authorize --------------------------------------------------------------------------------------------------- */

/* What is wrong with an authorization request; NULL: nothing. */
static const char *authorize_fault(struct turn *t, struct str form)
{
    struct str redirect = form_value(&t->arena, form, "redirect_uri");

    if (!str_is(form_value(&t->arena, form, "client_id"), SANDBOX_CLIENT_ID))
        return "unknown client_id";
    if (!str_starts(redirect, STR("http://127.0.0.1")) && !str_starts(redirect, STR("http://localhost")) &&
        !str_starts(redirect, STR("https://")))
        return "redirect_uri must be https, or http on loopback";
    if (redirect.len >= 512)
        return "redirect_uri is too long";
    if (!str_is(form_value(&t->arena, form, "response_type"), "code"))
        return "response_type must be code";
    if (!str_is(form_value(&t->arena, form, "code_challenge_method"), "S256") ||
        form_value(&t->arena, form, "code_challenge").len != 43)
        return "PKCE with S256 is required";
    if (form_value(&t->arena, form, "state").len == 0)
        return "state is required";
    return NULL;
}

static void await_login_page(struct turn *t)
{
    static const char *const kept[] = { "client_id", "redirect_uri",   "response_type",        "scope",
                                        "state",     "code_challenge", "code_challenge_method" };
    const struct http_header headers[] = { { STR("Content-Type"), STR("text/html; charset=utf-8") },
                                           { STR("Content-Security-Policy"),
                                             STR("default-src 'none'; frame-ancestors 'none'") } };
    const char *fault = authorize_fault(t, http_query(t->rq));
    struct buf b = BUF_INIT(64 * 1024);

    if (fault) {
        await_oauth_error(t, "invalid_request", fault);
        return;
    }
    buf_add_z(
        &b,
        "<!doctype html><title>Sandbox login</title><h1>Sandbox</h1>"
        "<form method=\"post\" action=\"/oauth2/v2.0/login\">");
    for (size_t i = 0; i < ARRAY_LEN(kept); i++) {
        buf_addf(&b, "<input type=\"hidden\" name=\"%s\" value=\"", kept[i]);
        buf_add_html(&b, query_value(t, kept[i]));
        buf_add_z(&b, "\">");
    }
    buf_add_z(&b,
              "<label>User <input name=\"user\" value=\"alice@demo.example\"></label> <button>Allow</button></form>");
    await_http_reply(t->rq, 200, headers, 2, buf_str(&b));
    buf_release(&b);
}

static void await_login(struct turn *t)
{
    struct str form = http_body(t->rq), user = form_value(&t->arena, form, "user"),
               redirect = form_value(&t->arena, form, "redirect_uri");
    const char *fault = authorize_fault(t, form);
    struct mailbox *m = fault ? NULL : mailbox_of(t->s, user);
    struct http_header location = { STR("Location"), STR_NULL };
    struct buf at = BUF_INIT(4096);
    struct code *c;

    if (!m) {
        await_oauth_error(t, "invalid_request", fault ? fault : "user is missing");
        return;
    }
    c = calloc(1, sizeof(*c));
    ASSERT(c != NULL);
    snprintf(c->id, sizeof(c->id), "%s", id_new("code").z);
    put(c->redirect, sizeof(c->redirect), redirect);
    put(c->challenge, sizeof(c->challenge), form_value(&t->arena, form, "code_challenge"));
    put(c->scopes, sizeof(c->scopes), form_value(&t->arena, form, "scope"));
    c->mailbox = m;
    c->expires = loop_now() + CODE_TTL_S * NS_PER_S;
    map_put(&t->s->codes, str_of(c->id), c);
    buf_addf(&at, "%s%scode=%s&state=%.*s", c->redirect, strchr(c->redirect, '?') ? "&" : "?", c->id,
             STR_ARG(form_value(&t->arena, form, "state")));
    location.value = buf_str(&at);
    await_http_reply(t->rq, 302, &location, 1, STR_NULL);
    buf_release(&at);
}

/* ---- token ------------------------------------------------------------------------------------------------------- */

static struct token *token_new(struct sandbox *s, struct family *f, bool refresh)
{
    struct token *k = calloc(1, sizeof(*k));
    int64_t ttl = refresh ? REFRESH_TTL_S : s->opt.token_ttl_s;

    ASSERT(k != NULL);
    snprintf(k->id, sizeof(k->id), "%s", id_new(refresh ? "sbxr" : "sbxa").z);
    k->family = f;
    k->refresh = refresh;
    k->expires = loop_now() + ttl * NS_PER_S;
    map_put(&s->tokens, str_of(k->id), k);
    return k;
}

static void await_tokens(struct turn *t, struct family *f)
{
    struct json *body = json_object(&t->arena);

    json_set_z(&t->arena, body, "token_type", "Bearer");
    json_set_z(&t->arena, body, "access_token", token_new(t->s, f, false)->id);
    json_set_z(&t->arena, body, "refresh_token", token_new(t->s, f, true)->id);
    json_set_int(&t->arena, body, "expires_in", t->s->opt.token_ttl_s);
    json_set_z(&t->arena, body, "scope", f->scopes);
    await_json(t, 200, body);
}

static struct family *family_new(struct sandbox *s, const struct code *c)
{
    struct family *f = calloc(1, sizeof(*f));

    if (s->n_families == s->cap_families) {
        s->cap_families = s->cap_families ? s->cap_families * 2 : 64;
        s->families = realloc(s->families, s->cap_families * sizeof(*s->families));
    }
    ASSERT(f != NULL && s->families != NULL);
    f->mailbox = c->mailbox;
    memcpy(f->scopes, c->scopes, sizeof(f->scopes));
    s->families[s->n_families++] = f;
    return f;
}

static bool challenge_matches(struct turn *t, const struct code *c, struct str verifier)
{
    struct buf b64 = BUF_INIT(64);
    uint8_t hash[SHA256_LEN];
    bool same;

    if (verifier.len < 43 || verifier.len > 128)
        return false;
    sha256(verifier.p, verifier.len, hash);
    buf_add_b64url(&b64, str_n(hash, sizeof(hash)));
    same = str_is(buf_str(&b64), c->challenge);
    buf_release(&b64);
    return same;
}

static void await_code_grant(struct turn *t, struct str form)
{
    struct code *c = map_get(&t->s->codes, form_value(&t->arena, form, "code"));

    if (!c || c->used || c->expires < loop_now())
        await_oauth_error(t, "invalid_grant", "the code is unknown, used or expired");
    else if (!str_is(form_value(&t->arena, form, "redirect_uri"), c->redirect))
        await_oauth_error(t, "invalid_grant", "redirect_uri is not the one of the authorization");
    else if (!challenge_matches(t, c, form_value(&t->arena, form, "code_verifier")))
        await_oauth_error(t, "invalid_grant", "code_verifier does not match");
    else {
        c->used = true;
        await_tokens(t, family_new(t->s, c));
    }
}

static void await_refresh_grant(struct turn *t, struct str form)
{
    struct token *k = map_get(&t->s->tokens, form_value(&t->arena, form, "refresh_token"));

    if (!k || !k->refresh || k->expires < loop_now() || k->family->dead) {
        await_oauth_error(t, "invalid_grant", "the refresh token is unknown, expired or revoked");
        return;
    }
    if (k->used) {
        k->family->dead = true;
        t->s->stats.reuse++;
        await_oauth_error(t, "invalid_grant",
                          "the refresh token was used before; all tokens of this grant are revoked");
        return;
    }
    k->used = true;
    t->s->stats.refreshes++;
    await_tokens(t, k->family);
}

static void await_token(struct turn *t)
{
    struct str form = http_body(t->rq), type = STR_NULL, grant = form_value(&t->arena, form, "grant_type");

    http_header(t->rq, "content-type", &type);
    if (!str_starts(type, STR("application/x-www-form-urlencoded")))
        await_oauth_error(t, "invalid_request", "the body must be a form");
    else if (!str_is(form_value(&t->arena, form, "client_id"), SANDBOX_CLIENT_ID) ||
             !str_is(form_value(&t->arena, form, "client_secret"), SANDBOX_CLIENT_SECRET))
        await_oauth_error(t, "invalid_client", "client_id or client_secret is wrong");
    else if (str_is(grant, "authorization_code"))
        await_code_grant(t, form);
    else if (str_is(grant, "refresh_token"))
        await_refresh_grant(t, form);
    else
        await_oauth_error(t, "unsupported_grant_type", "authorization_code and refresh_token only");
}

static void await_revoke(struct turn *t)
{
    struct token *k = map_get(&t->s->tokens, form_value(&t->arena, http_body(t->rq), "token"));

    if (k)
        k->family->dead = true;
    await_json(t, 200, NULL);
}

void oauth_handle(struct turn *t)
{
    struct str path = http_path(t->rq), method = http_method(t->rq);
    bool post = str_is(method, "POST");

    if (str_is(path, "/oauth2/v2.0/authorize") && str_is(method, "GET"))
        await_login_page(t);
    else if (str_is(path, "/oauth2/v2.0/login") && post)
        await_login(t);
    else if (str_is(path, "/oauth2/v2.0/token") && post)
        await_token(t);
    else if (str_is(path, "/oauth2/v2.0/revoke") && post)
        await_revoke(t);
    else
        await_oauth_error(t, "invalid_request", "no such endpoint");
}

/* ---- using a token ----------------------------------------------------------------------------------------------- */

static bool scope_has(const char *scopes, const char *want)
{
    struct str rest = str_of(scopes), one;

    while (rest.len) {
        if (!str_cut(rest, ' ', &one, &rest)) {
            one = rest;
            rest = STR_NULL;
        }
        /* ReadWrite includes Read, as at the real one */
        if (str_ieq(one, str_of(want)) || (str_starts(one, str_of(want)) && str_ends(str_of(want), STR(".Read"))))
            return true;
    }
    return false;
}

bool await_authorized(struct turn *t, const char *scope)
{
    struct str header = STR_NULL, token;
    struct token *k;

    http_header(t->rq, "authorization", &header);
    if (!str_starts(header, STR("Bearer "))) {
        await_graph_error(t, 401, "InvalidAuthenticationToken", "Access token is empty.");
        return false;
    }
    token = str_from(header, 7);
    k = map_get(&t->s->tokens, token);
    if (!k || k->refresh || k->family->dead || k->expires < loop_now()) {
        await_graph_error(t, 401, "InvalidAuthenticationToken",
                          "Lifetime validation failed, the token is expired or unknown.");
        return false;
    }
    if (!scope_has(k->family->scopes, scope)) {
        await_graph_error(t, 403, "ErrorAccessDenied", "Access is denied. Check credentials and try again.");
        return false;
    }
    t->family = k->family;
    t->mailbox = k->family->mailbox;
    return true;
}
