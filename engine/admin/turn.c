/*
 * turn.c -- a request to /v1/ or /connect/ goes through the same gate as a tool call: the front of these paths
 *
 * Clients are identified by their token.  A browser that carries a state is identified by it: as the user the state was
 * made for, acting through the agent "browser"; what it may do was decided when the state was made, ten minutes ago at
 * most.
 */
#include "admin/internal.h"
#include "base/check.h"
#include "base/escape.h"
#include "identity/identity.h"

static const struct route routes[] = {
    { "GET", "/v1/accounts", "accounts/list", false, false, await_accounts_list },
    { "POST", "/v1/accounts", "accounts/put", false, false, await_accounts_put },
    { "POST", "/v1/connect", "accounts/connect", false, false, await_accounts_connect },
    { "DELETE", "/v1/accounts/", "accounts/disconnect", true, false, await_accounts_disconnect },
    { "GET", "/v1/delegations", "delegations/list", false, false, await_delegations_list },
    { "POST", "/v1/delegations", "delegations/record", false, false, await_delegations_record },
    { "DELETE", "/v1/delegations/", "delegations/revoke", true, false, await_delegations_revoke },
    { "GET", "/v1/limits", "limits/list", false, false, await_limits_list },
    { "GET", "/v1/limits/all", "limits/all", false, false, await_limits_all },
    { "GET", "/connect/start", "connect/page", false, true, await_connect_page },
    { "POST", "/connect/start", "connect/go", false, true, await_connect_go },
    { "GET", "/connect/callback", "connect/callback", false, true, await_connect_callback },
};

static const struct route *route_of(struct str method, struct str path, struct str *ret_rest)
{
    for (size_t i = 0; i < ARRAY_LEN(routes); i++) {
        const struct route *r = &routes[i];

        if (!str_is(method, r->method) || !str_starts(path, str_of(r->path)))
            continue;
        *ret_rest = str_from(path, strlen(r->path));
        if (r->more ? ret_rest->len > 0 : ret_rest->len == 0)
            return r;
    }
    return NULL;
}

/* ---- the front --------------------------------------------------------------------------------------------------- */

static enum err decode(struct call *c)
{
    struct turn *t = c->front_data;
    struct str body = http_body(t->rq);
    struct json_error where;
    enum err e = mcp_guard(t->mcp, t->rq, call_info(c));

    if (e)
        return e;
    t->route = route_of(http_method(t->rq), http_path(t->rq), &t->rest);
    if (!t->route)
        return E_HTTP_NOT_FOUND;
    c->method = str_of(t->route->name);
    if (t->route->state) {
        t->form = str_is(http_method(t->rq), "POST") ? body : http_query(t->rq);
        return OK;
    }
    if (body.len && (json_parse(&c->arena, body, NULL, &t->body, &where) || !json_is(t->body, JSON_OBJECT)))
        return call_why(c, E_JSON_MALFORMED, "the body must be a JSON object");
    return OK;
}

static enum err await_state_caller(struct call *c, struct turn *t)
{
    enum err e = await_vault_connect_peek(c->worker->engine->vault, form_value(&c->arena, t->form, "state"),
                                          &c->arena, &t->pending, call_info(c));

    return e ? e : caller_named(t->pending.tenant, t->pending.user, STR("browser"), &c->caller, call_info(c));
}

static enum err await_who(struct call *c)
{
    struct identity *identity = c->worker->engine->identity;
    struct turn *t = c->front_data;
    struct str authorization;

    if (t->route->state)
        return await_state_caller(c, t);
    if (!identity)
        return call_why(c, E_TOKEN_MISSING, "accounts are not managed where there is no authentication");
    if (http_header(t->rq, "authorization", &authorization) > 1)
        return E_TOKEN_MALFORMED;
    return await_identify(identity, authorization, &c->caller, call_info(c));
}

static enum err await_act(struct call *c)
{
    struct turn *t = c->front_data;
    enum err e = t->route->await_answer(c, t);

    return !e && !c->effects_done && arena_overflowed(&c->arena) ? E_CALL_TOO_LARGE : e;   /* no part for the whole */
}

static int status_of(const struct turn *t, enum err e)
{
    int status = err_row(e)->http;

    if (t->route && t->route->state && err_row(e)->class != ERR_US)
        return 400;                             /* to a browser it is all the same: not like this */
    if (e == E_POLICY_DENIED || e == E_APPROVAL_NEEDED)
        return 403;
    if (status != 200 && status != 499)
        return status;
    return err_row(e)->class == ERR_CALLER ? 400 : err_row(e)->class == ERR_UPSTREAM ? 502 : 503;
}

static struct str text_of_error(struct call *c, struct turn *t, struct buf *b)
{
    if (t->route && t->route->state) {          /* a person's browser; what went wrong is said in our words only */
        buf_add_z(b, "<!doctype html><title>sluice</title><p>The account could not be connected. "
                     "Start again from where you came.</p>\n");
        return STR("text/html; charset=utf-8");
    }
    buf_addf(b, "{\"error\":\"%s\",\"message\":", err_name(c->err));      /* without the arena: it may be full */
    buf_add_json_str(b, str_of(*call_said(c) ? call_said(c) : err_text(c->err)));
    buf_add_c(b, '}');
    return STR("application/json");
}

/* same-origin, not no-referrer: under that a browser sends a page's form with "Origin: null", which the guard refuses.
 * No form-action: browsers hold redirects against it, and the button's ends at the provider. */
static void await_say(struct call *c)
{
    struct http_header headers[8] = { { STR("Content-Type"), STR("application/json") },
                                      { STR("Cache-Control"), STR("no-store") },
                                      { STR("Content-Security-Policy"),
                                        STR("default-src 'none'; frame-ancestors 'none'") },
                                      { STR("Referrer-Policy"), STR("same-origin") } };
    struct turn *t = c->front_data;
    struct buf b = BUF_INIT(HTTP_REPLY_MAX);
    unsigned n = 4;

    if (c->err) {
        headers[0].value = text_of_error(c, t, &b);
        if (status_of(t, c->err) == 401)
            headers[n++] = (struct http_header){ STR("WWW-Authenticate"), STR("Bearer") };
    } else if (t->page.len || t->location.len) {
        headers[0].value = STR("text/html; charset=utf-8");
        buf_add_str(&b, t->page);
        if (t->cookie.len)
            headers[n++] = (struct http_header){ STR("Set-Cookie"), t->cookie };
        if (t->location.len)
            headers[n++] = (struct http_header){ STR("Location"), t->location };
    } else {
        json_write(&b, t->json);
    }
    await_http_reply(t->rq, c->err ? status_of(t, c->err) : t->status ? t->status : 200, headers, n, buf_str(&b));
    buf_release(&b);
}

static const struct call_front front = {
    .transport = "http",
    .decode = decode,
    .await_identify = await_who,
    .await_answer = await_act,
    .await_reply = await_say,
};

void await_admin_call(struct http_request *rq, struct worker *w, const struct mcp *m)
{
    struct turn t = { .rq = rq, .w = w, .mcp = m };

    await_call(w, &front, &t, http_peer(rq), http_body(rq).len);
}
