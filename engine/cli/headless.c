/* headless.c -- six requests in a row, as many rows at once as the caller begins */
#include <stdlib.h>

#include "base/check.h"
#include "base/escape.h"
#include "cli/headless.h"
#include "json/json.h"

struct login {
    struct headless_spec spec;
    struct arena arena;
    const char *page_url;
    const char *cookie;             /* what our page's button set: the callback wants it back */
    int step;
};

static void advance(struct login *l, const struct client_reply *reply, struct errinfo *info);

static void finish(struct login *l, enum err e, const struct errinfo *info)
{
    l->spec.on_done(e, info, l->spec.arg);
    arena_release(&l->arena);
    free(l);
}

static void on_reply(struct transfer *t, enum err e, const struct errinfo *info, void *arg)
{
    struct errinfo why = *info;

    if (e)
        finish(arg, e, &why);
    else
        advance(arg, transfer_reply(t), &why);
}

static void send_next(struct login *l, const char *method, const char *url, const char *const *headers, size_t n,
                      struct str body)
{
    struct client_spec s = { .method = method,
                             .url = url,
                             .headers = headers,
                             .n_headers = n,
                             .body = body,
                             .on_done = on_reply,
                             .arg = l,
                             .timeout_ms = 60000 };

    l->step++;
    client_begin(l->spec.client, &s);
}

/* ---- the page ---------------------------------------------------------------------------------------------------- */

static struct str find(struct str s, const char *what)
{
    char *at = s.len ? memmem(s.p, s.len, what, strlen(what)) : NULL;

    return at ? str_from(s, (size_t)(at - s.p) + strlen(what)) : STR_NULL;
}

static struct str attribute(struct str tag, const char *opening)
{
    struct str rest = find(tag, opening), value = STR_NULL;

    return rest.p && str_cut(rest, '"', &value, &rest) ? value : STR_NULL;
}

/* &amp; and &#NN; are all that escaping needs to leave behind. */
static struct str unescape(struct arena *a, struct str s)
{
    char *z = arena_alloc(a, s.len + 1);
    size_t n = 0;

    for (size_t i = 0; z && i < s.len; i++) {
        struct str rest = str_from(s, i), digits, tail;
        uint64_t c;

        if (str_starts(rest, STR("&amp;"))) {
            z[n++] = '&';
            i += 4;
        } else if (str_starts(rest, STR("&#")) && str_cut(str_from(rest, 2), ';', &digits, &tail) &&
                   str_to_u64(digits, &c) && c < 128) {
            z[n++] = (char)c;
            i += digits.len + 2;
        } else {
            z[n++] = s.p[i];
        }
    }
    return str_n(z, z ? n : 0);
}

enum err headless_form(struct arena *a, struct str page, struct str user, struct str *ret_action, struct str *ret_body)
{
    struct str rest = find(page, "<form"), tag;
    struct buf b = BUF_INIT(64 * 1024);

    if (!rest.p || !str_cut(rest, '>', &tag, &rest))
        return E_FORMAT;
    *ret_action = unescape(a, attribute(tag, "action=\""));
    while ((rest = find(rest, "<input")).p && str_cut(rest, '>', &tag, &rest)) {
        struct str name = attribute(tag, "name=\""), value = unescape(a, attribute(tag, "value=\""));

        if (name.len == 0)
            continue;
        if (b.len)
            buf_add_c(&b, '&');
        buf_add_percent(&b, name);
        buf_add_c(&b, '=');
        buf_add_percent(&b, str_is(name, "user") ? user : value);
    }
    *ret_body = arena_str(a, buf_str(&b));
    buf_release(&b);
    return ret_action->len && ret_body->len ? OK : E_FORMAT;
}

/* ---- the steps --------------------------------------------------------------------------------------------------- */

static const char *absolute(struct login *l, struct str page_url, struct str action)
{
    struct str scheme, rest, host, path;

    if (str_starts(action, STR("http")) || !str_cut(page_url, '/', &scheme, &rest))
        return arena_z(&l->arena, action);
    rest = str_from(rest, 1);                   /* behind "//" */
    if (!str_cut(rest, '/', &host, &path))
        host = rest;
    return arena_printf(&l->arena, "%.*s//%.*s%.*s", STR_ARG(scheme), STR_ARG(host), STR_ARG(action)).p;
}

static void ask_for_url(struct login *l)
{
    const char *headers[] = { "Content-Type: application/json", l->spec.authorization };
    struct json *body = json_object(&l->arena);
    struct buf b = BUF_INIT(4096);

    json_set_z(&l->arena, body, "provider", l->spec.provider);
    json_set_z(&l->arena, body, "label", l->spec.user);
    json_write(&b, body);
    send_next(l, "POST", arena_printf(&l->arena, "%s/v1/connect", l->spec.base).p, headers, 2, buf_str(&b));
    buf_release(&b);
}

static struct str page_url_of(struct login *l, struct str body)
{
    struct json_error where;
    struct json *j = NULL;

    return json_parse(&l->arena, body, NULL, &j, &where) ? STR_NULL : json_str(json_get(j, "url"));
}

static enum err refused(struct errinfo *info, const char *who, const struct client_reply *reply)
{
    struct str said = buf_str(&reply->body);

    return err_set(info, E_UPSTREAM_REFUSED, "%s answered HTTP %d: %.*s", who, reply->status,
                   (int)(said.len > 200 ? 200 : said.len), said.p ? said.p : "");
}

static void open_page(struct login *l, struct str url)
{
    l->page_url = arena_z(&l->arena, url);
    send_next(l, "GET", l->page_url, NULL, 0, STR_NULL);
}

static void advance(struct login *l, const struct client_reply *reply, struct errinfo *info)
{
    const char *form_type = "Content-Type: application/x-www-form-urlencoded";
    struct str body = arena_str(&l->arena, buf_str(&reply->body)), action, form;
    enum err e = OK;

    switch (l->step) {
    case 1:
        body = reply->status == 200 ? page_url_of(l, body) : STR_NULL;
        if (body.len == 0) {
            e = refused(info, "the engine", reply);
            break;
        }
        open_page(l, body);
        return;
    case 2:
    case 4:
        if (reply->status != 200 || headless_form(&l->arena, body, str_of(l->spec.user), &action, &form)) {
            e = refused(info, l->step == 2 ? "the page that confirms" : "the login page", reply);
            break;
        }
        send_next(l, "POST", absolute(l, str_of(l->page_url), action), &form_type, 1, form);
        return;
    case 3:
        if (reply->status != 303 || !reply->location[0] || !reply->cookie[0]) {
            e = refused(info, "the page that confirms", reply);
            break;
        }
        l->cookie = arena_printf(&l->arena, "Cookie: %s", reply->cookie).p;
        open_page(l, str_of(reply->location));
        return;
    case 5:
        if (reply->status != 302 || !reply->location[0]) {
            e = refused(info, "the login", reply);
            break;
        }
        send_next(l, "GET", arena_z(&l->arena, str_of(reply->location)), &l->cookie, 1, STR_NULL);
        return;
    case 6:
        if (reply->status != 200)
            e = refused(info, "the engine's callback", reply);
        break;
    default:
        UNREACHABLE();
    }
    finish(l, e, info);
}

void headless_begin(const struct headless_spec *spec)
{
    struct login *l = calloc(1, sizeof(*l));

    ASSERT(l != NULL);
    arena_init(&l->arena, 4 << 20);
    l->spec = *spec;
    l->spec.base = arena_z(&l->arena, str_of(spec->base));
    l->spec.authorization = arena_z(&l->arena, str_of(spec->authorization ? spec->authorization : "Authorization:"));
    l->spec.provider = arena_z(&l->arena, str_of(spec->provider));
    l->spec.user = arena_z(&l->arena, str_of(spec->user));
    ask_for_url(l);
}

struct wait {
    bool done;
    enum err err;
    struct errinfo *info;
};

static void on_login(enum err e, const struct errinfo *info, void *arg)
{
    struct wait *w = arg;

    w->done = true;
    w->err = e;
    *w->info = *info;
}

enum err headless_login(const struct headless_spec *spec, struct errinfo *info)
{
    struct wait w = { .info = info };
    struct headless_spec mine = *spec;

    mine.on_done = on_login;
    mine.arg = &w;
    headless_begin(&mine);
    while (!w.done)
        client_step(mine.client, -1, 1000);
    return w.err;
}
