/*
 * guard.c -- who may ask at all (DNS rebinding), and the documents that are no calls
 *
 * A page in the user's browser can make any name resolve to our address, so what protects a server on loopback is the
 * name it was asked by: Host must be a served one, and Origin, which only browsers send, too.  A refusal is 403 before
 * anything else is looked at.
 *
 * RFC 9728 documents are public: they name the issuers, and clients read them before they have a token.  They and CORS
 * preflights are answered here and are not calls.
 */
#include "mcp/internal.h"

static bool loopback_name(struct str host)
{
    return str_ieq(host, STR("localhost")) || str_is(host, "127.0.0.1") || str_is(host, "[::1]");
}

/* "host:port" or "[v6]:port" -> host; the port goes to *port, with its colon, or stays empty. */
static struct str host_of(struct str authority, struct str *port)
{
    size_t at = authority.len;

    while (at > 0 && authority.p[at - 1] >= '0' && authority.p[at - 1] <= '9')
        at--;
    *port = STR_NULL;
    if (at == 0 || authority.p[at - 1] != ':')
        return authority;
    *port = str_from(authority, at - 1);
    return str_n(authority.p, at - 1);
}

static bool authority_served(const struct mcp *m, struct str authority)
{
    struct str port, host = host_of(authority, &port);

    if (host.len == 0)
        return false;
    if (m->loopback && loopback_name(host))
        return true;
    if ((m->listen_host.len && str_ieq(host, m->listen_host)) || (m->public_host.len && str_ieq(host, m->public_host)))
        return true;
    for (size_t i = 0; i < m->n_hosts; i++)
        if (str_ieq(host, m->hosts[i]) || str_ieq(authority, m->hosts[i]))
            return true;
    return false;
}

static bool origin_served(const struct mcp *m, struct str origin)
{
    for (size_t i = 0; i < m->n_origins; i++)
        if (str_ieq(origin, m->origins[i]))
            return true;
    if (str_starts(origin, STR("http://")))
        return authority_served(m, str_from(origin, 7));
    return str_starts(origin, STR("https://")) && authority_served(m, str_from(origin, 8));
}

enum err guard_origin(const struct mcp *m, const struct http_head *head, struct errinfo *why)
{
    const struct http_header *origin;
    unsigned n;

    if (!authority_served(m, head->host))
        return err_set(why, E_HTTP_FORBIDDEN_ORIGIN,
                       "this Host is not served here; the operator can add it to the served hosts");
    origin = http_head_find(head, "origin", &n);
    if (n > 1 || (n == 1 && !origin_served(m, origin->value)))
        return err_set(why, E_HTTP_FORBIDDEN_ORIGIN,
                       "this Origin is not served here; the operator can add it to the served origins");
    return OK;
}

enum err mcp_guard(const struct mcp *m, const struct http_request *rq, struct errinfo *why)
{
    return guard_origin(m, http_request_head(rq), why);
}

void mcp_base_url(const struct mcp *m, const struct http_request *rq, struct buf *out)
{
    guard_base_url(m, rq, out);
}

/* ---- where we are ------------------------------------------------------------------------------------------------ */

void guard_base_url(const struct mcp *m, const struct http_request *rq, struct buf *out)
{
    if (m->opt.public_url) {
        buf_add_z(out, m->opt.public_url);
        return;
    }
    buf_add_z(out, http_is_tls(rq) ? "https://" : "http://");
    buf_add_str(out, http_request_head(rq)->host);
}

void guard_metadata_url(const struct mcp *m, const struct http_request *rq, struct buf *out)
{
    guard_base_url(m, rq, out);
    buf_add_z(out, "/.well-known/oauth-protected-resource");
    buf_add_z(out, m->opt.path);
}

static void await_plain(struct http_request *rq, int status, const struct http_header *headers, unsigned n)
{
    if (!http_replied(rq))
        await_http_reply(rq, status, headers, n, STR_NULL);
}

static void await_refused(struct mcp *m, struct http_request *rq, const char *why)
{
    const struct http_head *head = http_request_head(rq);

    call_record_bad_request(worker_self(), E_HTTP_FORBIDDEN_ORIGIN, why, http_peer(rq), head->target.len);
    await_plain(rq, 403, NULL, 0);
}

void await_guard_metadata(struct mcp *m, struct http_request *rq)
{
    static const struct http_header headers[] = {
        { STR("Content-Type"), STR(MEDIA_JSON) },
        { STR("Access-Control-Allow-Origin"), STR("*") },
        { STR("Cache-Control"), STR("no-cache") },
    };
    static const struct http_header allow[] = { { STR("Allow"), STR("GET, OPTIONS") } };
    static const struct http_header cors[] = {
        { STR("Access-Control-Allow-Origin"), STR("*") },
        { STR("Access-Control-Allow-Methods"), STR("GET") },
        { STR("Access-Control-Allow-Headers"), STR("MCP-Protocol-Version") },
    };
    struct buf resource = BUF_INIT(4096), body = BUF_INIT(64 * 1024);

    if (!authority_served(m, http_request_head(rq)->host)) {
        await_refused(m, rq, "this Host is not served here");
        return;
    }
    if (str_is(http_method(rq), "OPTIONS")) {
        await_plain(rq, 204, cors, ARRAY_LEN(cors));
        return;
    }
    if (!str_is(http_method(rq), "GET")) {
        await_plain(rq, 405, allow, 1);
        return;
    }
    if (m->opt.no_auth) {
        await_plain(rq, 404, NULL, 0);  /* there is nobody to get a token from */
        return;
    }
    guard_base_url(m, rq, &resource);
    buf_add_z(&resource, m->opt.path);
    identity_metadata(m->opt.engine->identity, buf_str(&resource), m->scopes, m->n_scopes, &body);
    await_http_reply(rq, 200, headers, ARRAY_LEN(headers), buf_str(&body));
    buf_release(&resource);
    buf_release(&body);
}

void await_guard_preflight(struct mcp *m, struct http_request *rq)
{
    struct str origin, wanted;
    struct errinfo why;

    if (guard_origin(m, http_request_head(rq), &why)) {
        await_refused(m, rq, why.text);
        return;
    }
    if (http_header(rq, "access-control-request-headers", &wanted) != 1)
        wanted = STR("Authorization, Content-Type");
    if (http_header(rq, "origin", &origin) == 1) {
        const struct http_header cors[] = {
            { STR("Access-Control-Allow-Origin"), origin },
            { STR("Access-Control-Allow-Methods"), STR("POST, GET, DELETE") },
            { STR("Access-Control-Allow-Headers"), wanted },    /* Mcp-Param-* are any tool's to name */
            { STR("Vary"), STR("Origin") },
        };

        await_plain(rq, 204, cors, ARRAY_LEN(cors));
        return;
    }
    await_plain(rq, 204, (const struct http_header[]){ { STR("Allow"), STR("POST, GET, DELETE, OPTIONS") } }, 1);
}
