/*
 * connect.c -- /connect/: what the user's browser sees between asking and being connected
 *
 * A URL that connects an account can be sent to somebody else, who would then connect *their* account to the sender's
 * user.  So the URL leads to a page of ours first, which says for whom and what is about to be connected; its button
 * sets a cookie that belongs to the state, and the provider's redirect is taken only from a browser that has it.
 * Whoever has not confirmed cannot be used (MCP 2026-07-28, elicitation: phishing; RFC 9700 4.7).
 *
 * Between the steps nothing is kept here: the authorization URL travels sealed in the page's form.
 */
#include "admin/internal.h"
#include "base/check.h"
#include "base/crypto.h"
#include "base/escape.h"
#include "base/log.h"
#include "vault/vault.h"

enum { TIMEOUT_S = 20, SEALED_MAX = 16 * 1024 };

struct str connect_redirect_uri(struct call *c, struct turn *t)
{
    struct buf b = BUF_INIT(2048);
    struct str ret;

    mcp_base_url(t->mcp, t->rq, &b);
    buf_add_z(&b, "/connect/callback");
    ret = arena_str(&c->arena, buf_str(&b));
    buf_release(&b);
    return ret;
}

struct str connect_start_url(struct call *c, struct turn *t, struct str state, struct str authorize_url)
{
    struct buf sealed = BUF_INIT(SEALED_MAX), b = BUF_INIT(2 * SEALED_MAX);
    struct str ret;

    mcp_base_url(t->mcp, t->rq, &b);
    buf_add_z(&b, "/connect/start?state=");
    buf_add_percent(&b, state);
    buf_add_z(&b, "&go=");
    if (!vault_seal(c->worker->engine->vault, c->caller->tenant, c->caller->user, STR("connect"), authorize_url,
                    &sealed))
        buf_add_b64url(&b, buf_str(&sealed));
    ret = arena_str(&c->arena, buf_str(&b));
    buf_release(&sealed);
    buf_release(&b);
    return ret;
}

/* Who has confirmed has this in the browser that did. The name's prefix makes browsers insist on Secure and on this
 * host. */
static struct str cookie_name(const struct turn *t)
{
    return http_is_tls(t->rq) ? STR("__Host-sluice-connect") : STR("sluice-connect");
}

static struct str cookie_value(struct call *c, struct turn *t)
{
    const struct str parts[] = { STR("sluice-connect"), form_value(&c->arena, t->form, "state") };
    struct buf b = BUF_INIT(65);
    uint8_t hash[SHA256_LEN];
    struct str ret;

    sha256_parts(parts, 2, hash);
    buf_add_hex(&b, hash, sizeof(hash));
    ret = arena_str(&c->arena, buf_str(&b));
    buf_release(&b);
    return ret;
}

static bool has_cookie(struct call *c, struct turn *t)
{
    struct str all = STR_NULL, one, name, value, want = cookie_value(c, t);

    http_header(t->rq, "cookie", &all);
    while (all.len) {
        if (!str_cut(all, ';', &one, &all)) {
            one = all;
            all = STR_NULL;
        }
        if (str_cut(str_trim(one), '=', &name, &value) && str_eq(name, cookie_name(t)) && value.len == want.len &&
            bytes_equal_ct(value.p, want.p, want.len))
            return true;
    }
    return false;
}

enum err await_connect_page(struct call *c, struct turn *t)
{
    const struct provider_conf *p = registry_provider(c->registry, t->pending.provider);
    struct buf b = BUF_INIT(64 * 1024);

    if (!p)
        return E_STATE_INVALID;
    buf_add_z(&b, "<!doctype html><title>sluice: connect an account</title><h1>Connect an account</h1><p>The ");
    buf_add_html(&b, str_of(p->decl->title));
    buf_add_z(&b, " account you log in to next will be used for <strong>");
    buf_add_html(&b, t->pending.user);
    buf_add_z(&b, "</strong> of <strong>");
    buf_add_html(&b, t->pending.tenant);
    buf_add_z(&b, "</strong>: agents that act for this user will act on that account.</p>"
              "<p>Go on only if this is you and you asked for it just now. If somebody sent you here, close this "
              "page.</p><form method=\"post\" action=\"/connect/start\">"
              "<input type=\"hidden\" name=\"state\" value=\"");
    buf_add_html(&b, form_value(&c->arena, t->form, "state"));
    buf_add_z(&b, "\"><input type=\"hidden\" name=\"go\" value=\"");
    buf_add_html(&b, form_value(&c->arena, t->form, "go"));
    buf_add_z(&b, "\"><button>This is me: go on</button></form>\n");
    t->page = arena_str(&c->arena, buf_str(&b));
    buf_release(&b);
    return arena_overflowed(&c->arena) ? E_CALL_TOO_LARGE : OK;
}

enum err await_connect_go(struct call *c, struct turn *t)
{
    struct buf url = BUF_INIT(SEALED_MAX);
    struct str sealed;
    enum err e;

    if (b64url_decode(&c->arena, form_value(&c->arena, t->form, "go"), &sealed))
        return E_STATE_INVALID;
    e = await_vault_tenant(c->worker->engine->vault, c->caller->tenant, call_info(c));
    if (!e && vault_unseal(c->worker->engine->vault, c->caller->tenant, c->caller->user, STR("connect"), sealed, &url))
        e = E_STATE_INVALID;
    if (!e) {
        t->status = 303;
        t->location = arena_str(&c->arena, buf_str(&url));
        t->cookie = arena_printf(&c->arena, "%.*s=%.*s; Path=/; Max-Age=600; HttpOnly; SameSite=Lax%s",
                                 STR_ARG(cookie_name(t)), STR_ARG(cookie_value(c, t)),
                                 http_is_tls(t->rq) ? "; Secure" : "");
    }
    buf_release(&url);
    return e;
}

enum err await_connect_callback(struct call *c, struct turn *t)
{
    struct vault_callback cb = { form_value(&c->arena, t->form, "state"),
                                 form_value(&c->arena, t->form, "code"),
                                 form_value(&c->arena, t->form, "iss"),
                                 form_value(&c->arena, t->form, "error") };
    const struct provider_conf *p = registry_provider(c->registry, t->pending.provider);
    struct str id = STR_NULL;
    struct change ch;
    enum err e;

    if (!p)
        return E_STATE_INVALID;
    if (!has_cookie(c, t))
        return call_why(c, E_STATE_INVALID, "this browser has not confirmed that the account may be connected");
    ch = change_of(c, "connect_finish", "provider", t->pending.provider);
    e = await_change_begin(&ch);
    if (!e)
        e = await_vault_connect_finish(c->worker->engine->vault, &p->vault, &cb, loop_now() + TIMEOUT_S * NS_PER_S,
                                       &c->arena, &id, call_info(c));
    change_str(&ch, "account", id);
    change_end(&ch, e);
    if (e)
        LOG_WARN("an account could not be connected", LOG_S("error", err_name(e)), LOG_S("why", call_said(c)));
    else
        t->page = STR(
            "<!doctype html><title>sluice</title><p>The account is connected. You can close this page.</p>\n");
    return e;
}
