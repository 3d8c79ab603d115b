/* link.c -- finding the engine, and a token for it */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/check.h"
#include "base/log.h"
#include "cli/link.h"
#include "loop/world.h"
#include "runtime/runtime.h"

enum { RENEW_MS = 30 * 60 * 1000 };

/* ---- where ------------------------------------------------------------------------------------------------------- */

static const char *endpoint_path(struct arena *a, const char *data)
{
    return arena_printf(a, "%s/endpoint", data).p;
}

void endpoint_write(const char *data, const char *mcp_url)
{
    struct arena a;
    FILE *f;

    arena_init(&a, 16384);
    f = fopen(endpoint_path(&a, data), "we");
    if (!f || fprintf(f, "%s\n", mcp_url) < 0)
        LOG_WARN("other verbs of sluice will not find this engine by itself: give them --url",
                 LOG_S("why", strerror(errno)));
    if (f)
        fclose(f);
    arena_release(&a);
}

void endpoint_remove(const char *data)
{
    struct arena a;

    arena_init(&a, 16384);
    unlink(endpoint_path(&a, data));
    arena_release(&a);
}

static const char *endpoint_read(struct arena *a, const char *data)
{
    FILE *f = fopen(endpoint_path(a, data), "re");
    char line[1024];
    const char *url = NULL;

    if (f && fgets(line, sizeof(line), f)) {
        line[strcspn(line, "\r\n")] = '\0';
        url = line[0] ? arena_z(a, str_of(line)) : NULL;
    }
    if (f)
        fclose(f);
    return url;
}

int link_url(const struct verb *v, const struct link_options *o, struct arena *a, const char **ret_url,
             const char **ret_data)
{
    struct config *config = NULL;
    const char *url = o->url ? o->url : getenv("SLUICE_URL");
    int rc = config_open(v, o->config, o->data, &config);

    if (rc)
        return rc;
    *ret_data = arena_z(a, str_of(config->data));
    if (!url || !*url)
        url = endpoint_read(a, config->data);
    if (!url && config->public_url)
        url = arena_printf(a, "%s/mcp", config->public_url).p;
    if (!url)
        url = arena_printf(a, "%s://%s/mcp", config->tls_cert ? "https" : "http", config->listen).p;
    *ret_url = arena_z(a, str_of(url));
    config_free(config);
    if (!str_starts(str_of(*ret_url), STR("http://")) && !str_starts(str_of(*ret_url), STR("https://")))
        return complain(v, EXIT_USAGE, "\"%s\" is no URL of an engine: write http://HOST:PORT/mcp", *ret_url);
    return 0;
}

/* "http://127.0.0.1:7411/mcp" -> "http://127.0.0.1:7411" */
static const char *base_of(struct arena *a, const char *url)
{
    const char *host = strstr(url, "://") + 3, *path = strchr(host, '/');

    return path ? arena_z(a, str_n(url, (size_t)(path - url))) : url;
}

/* ---- who --------------------------------------------------------------------------------------------------------- */

int mint(const struct verb *v, const char *data, const struct identity_mint *m, struct buf *out)
{
    struct identity_mint full = *m;
    struct identity_local *local = NULL;
    struct errinfo info = { "" };
    enum err e = identity_local_open(data, STR(RUNTIME_LOCAL_ISSUER), false, &local, &info);

    if (e)
        return complain(
            v, EXIT_UNABLE,
            "%s: tokens are signed with the key in the engine's data directory; name it with --data, or bring a "
            "token with --token",
            info.text);
    if (full.tenant.len == 0)
        full.tenant = STR("default");
    if (full.agent.len == 0)
        full.agent = STR("cli");
    if (!full.ttl)
        full.ttl = 3600 * NS_PER_S;
    full.now = world->wall_ms();
    e = identity_mint(local, &full, out, &info);
    identity_local_close(local);
    return e ? complain(v, EXIT_UNABLE, "%s", info.text) : 0;
}

static void authorize_with(struct link *l, struct str token)
{
    free(l->own_authorization);
    ASSERT(asprintf(&l->own_authorization, "Authorization: Bearer %.*s", STR_ARG(token)) > 0);
    l->authorization = l->own_authorization;
}

static int authorize_mint(const struct verb *v, const struct link_options *o, struct link *l)
{
    struct identity_mint m = {
        .tenant = str_of(o->tenant), .user = str_of(o->user), .agent = str_of(o->agent), .audience = str_of(l->url),
        .scopes = str_of(o->scopes)
    };
    struct buf minted = BUF_INIT(IDENTITY_TOKEN_MAX);
    int rc = mint(v, l->data, &m, &minted);

    if (!rc)
        authorize_with(l, buf_str(&minted));
    l->minted = world->wall_ms();
    buf_release(&minted);
    return rc;
}

int link_renew(const struct verb *v, const struct link_options *o, struct link *l)
{
    return l->minted && world->wall_ms() - l->minted > RENEW_MS ? authorize_mint(v, o, l) : 0;
}

static int authorize(const struct verb *v, const struct link_options *o, struct link *l)
{
    const char *token = o->token ? o->token : getenv("SLUICE_TOKEN");

    if (token && *token && !o->user) {
        authorize_with(l, str_of(token));
        return 0;
    }
    if (o->token && !*o->token)
        return complain(v, EXIT_USAGE, "--token is empty");
    if (o->token)
        return complain(v, EXIT_USAGE, "--token already says who asks: leave out --as");
    if (!o->user)
        return o->agent || o->tenant ? complain(v, EXIT_USAGE, "on whose behalf? say --as USER") : 0;
    return authorize_mint(v, o, l);
}

int link_open(const struct verb *v, const struct link_options *o, struct link *ret)
{
    struct errinfo info = { "" };
    int rc;

    *ret = (struct link){ .next_id = 1 };
    arena_init(&ret->arena, LINK_ARENA_MAX);
    rc = link_url(v, o, &ret->arena, &ret->url, &ret->data);
    if (!rc) {
        ret->base = base_of(&ret->arena, ret->url);
        rc = authorize(v, o, ret);
    }
    if (!rc && client_new(&ret->client, &info))
        rc = complain(v, EXIT_UNABLE, "%s", info.text);
    return rc;
}

void link_close(struct link *l)
{
    client_free(l->client);
    free(l->own_authorization);
    arena_release(&l->arena);
}

/* ---- the engine's own paths -------------------------------------------------------------------------------------- */

int link_ask(const struct verb *v, struct link *l, struct arena *a, const char *method, const char *path,
             const struct json *body, struct json **ret)
{
    const char *headers[] = { "Content-Type: application/json", l->authorization };
    struct client_spec spec = { .method = method, .url = arena_printf(a, "%s%s", l->base, path).p, .headers = headers,
                                .n_headers = l->authorization ? 2 : 1 };
    struct client_reply reply = { 0 };
    struct errinfo info = { "" };
    struct buf b = BUF_INIT(1 << 20);
    struct json_error where;
    int rc = 0;

    if (body) {
        json_write(&b, body);
        spec.body = buf_str(&b);
    }
    *ret = NULL;
    if (client_do(l->client, &spec, &reply, &info))
        rc = complain(v, EXIT_UNABLE, "the engine could not be asked: %s", info.text);
    else if (json_parse(a, arena_str(a, buf_str(&reply.body)), NULL, ret, &where))
        rc = complain(v, EXIT_UNABLE, "HTTP status %d without JSON: is %s an engine?", reply.status, l->base);
    else if (reply.status != 200)
        rc = complain(v, EXIT_REFUSED, "%.*s", STR_ARG(json_str(json_get(*ret, "message"))));
    buf_release(&b);
    client_reply_release(&reply);
    return rc;
}

bool path_word(const char *z)
{
    for (const char *p = z; *p; p++)
        if (*p <= ' ' || strchr("/?#%\x7f", *p))
            return false;
    return *z != '\0';
}
