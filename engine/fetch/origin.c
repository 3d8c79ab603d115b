/*
 * origin.c -- where a request may go: strict reading of origins, and the list of networks nobody is sent to
 *
 * Pure code.  A host is refused unless every parser on the way (ours, libcurl's, the resolver's, a proxy's) reads it as
 * the same thing: an IPv4 address is four plain decimal numbers or it is nothing; a name whose last label could be
 * taken for a number ("0x7f.1", "127.1", "2130706433") is refused; an IPv6 literal stands in brackets and has no zone.
 *
 * Networks (facts/reliability 2.4, RFC 6890): IPv4 is public unless listed, IPv6 is public only inside 2000::/3 and
 * unless listed, so that a range invented tomorrow is refused until somebody lists it.
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "base/check.h"
#include "fetch/internal.h"

/* ---- networks ---------------------------------------------------------------------------------------------------- */

struct net4 {
    uint32_t net;
    unsigned bits;
    enum fetch_net kind;
};

#define IP4(a, b, c, d) ((uint32_t)(a) << 24 | (uint32_t)(b) << 16 | (uint32_t)(c) << 8 | (uint32_t)(d))

/* The first row that matches decides. */
static const struct net4 nets4[] = {
    { IP4(100, 100, 100, 200), 32, FETCH_NET_NEVER },       /* a cloud's metadata service inside 100.64/10 */
    { IP4(0, 0, 0, 0), 8, FETCH_NET_NEVER },                /* "this network": connects to loopback on Linux */
    { IP4(10, 0, 0, 0), 8, FETCH_NET_PRIVATE },
    { IP4(100, 64, 0, 0), 10, FETCH_NET_PRIVATE },          /* shared address space, RFC 6598 */
    { IP4(127, 0, 0, 0), 8, FETCH_NET_LOOPBACK },
    { IP4(169, 254, 0, 0), 16, FETCH_NET_NEVER },           /* link-local: cloud metadata lives here */
    { IP4(172, 16, 0, 0), 12, FETCH_NET_PRIVATE },
    { IP4(192, 0, 0, 0), 24, FETCH_NET_NEVER },             /* protocol assignments, a cloud's metadata too */
    { IP4(192, 0, 2, 0), 24, FETCH_NET_NEVER },             /* documentation */
    { IP4(192, 88, 99, 0), 24, FETCH_NET_NEVER },           /* 6to4 relays */
    { IP4(192, 168, 0, 0), 16, FETCH_NET_PRIVATE },
    { IP4(198, 18, 0, 0), 15, FETCH_NET_NEVER },            /* benchmarking */
    { IP4(198, 51, 100, 0), 24, FETCH_NET_NEVER },          /* documentation */
    { IP4(203, 0, 113, 0), 24, FETCH_NET_NEVER },           /* documentation */
    { IP4(224, 0, 0, 0), 4, FETCH_NET_NEVER },              /* multicast */
    { IP4(240, 0, 0, 0), 4, FETCH_NET_NEVER },              /* reserved, broadcast */
};

struct net6 {
    uint8_t net[16];
    unsigned bits;
    enum fetch_net kind;
};

static const struct net6 nets6[] = {
    { { [15] = 1 }, 128, FETCH_NET_LOOPBACK },              /* ::1 */
    { { 0xfd, 0x00, 0x0e, 0xc2 }, 32, FETCH_NET_NEVER },    /* a cloud's metadata service */
    { { 0xfc }, 7, FETCH_NET_PRIVATE },                     /* unique local */
    { { 0x20, 0x01, 0x00 }, 23, FETCH_NET_NEVER },          /* 2001::/23: Teredo, ORCHID, benchmarking */
    { { 0x20, 0x01, 0x0d, 0xb8 }, 32, FETCH_NET_NEVER },    /* documentation */
    { { 0x20, 0x02 }, 16, FETCH_NET_NEVER },                /* 6to4: carries an IPv4 address */
    { { 0x3f, 0xff, 0x00 }, 20, FETCH_NET_NEVER },          /* documentation */
    { { 0x20 }, 3, FETCH_NET_PUBLIC },                      /* 2000::/3 */
    /* the rest: ::, ::ffff:0/96, 64:ff9b::/96, 64:ff9b:1::/48, fe80::/10, fec0::/10, ff00::/8, the unassigned */
    { { 0 }, 0, FETCH_NET_NEVER },
};

static bool net6_holds(const struct net6 *n, const uint8_t a[16])
{
    unsigned whole = n->bits / 8, rest = n->bits % 8;

    if (memcmp(n->net, a, whole) != 0)
        return false;
    return rest == 0 || ((n->net[whole] ^ a[whole]) & (0xff00U >> rest)) == 0;
}

static enum fetch_net net_of4(uint32_t a)
{
    for (size_t i = 0; i < ARRAY_LEN(nets4); i++)
        if (((a ^ nets4[i].net) & (uint32_t)(0xffffffff00000000ULL >> nets4[i].bits)) == 0)
            return nets4[i].kind;
    return FETCH_NET_PUBLIC;
}

static enum fetch_net net_of6(const uint8_t a[16])
{
    for (size_t i = 0; i < ARRAY_LEN(nets6); i++)
        if (net6_holds(&nets6[i], a))
            return nets6[i].kind;
    UNREACHABLE();
}

enum fetch_net fetch_net_of(const struct sockaddr *sa)
{
    if (sa->sa_family == AF_INET)
        return net_of4(ntohl(((const struct sockaddr_in *)(const void *)sa)->sin_addr.s_addr));
    if (sa->sa_family == AF_INET6)
        return net_of6(((const struct sockaddr_in6 *)(const void *)sa)->sin6_addr.s6_addr);
    return FETCH_NET_NEVER;
}

bool fetch_guard_allows(const struct fetch_guard *g, enum fetch_net net)
{
    switch (net) {
    case FETCH_NET_PUBLIC:
        return true;
    case FETCH_NET_LOOPBACK:
        return g->allow_loopback;
    case FETCH_NET_PRIVATE:
        return g->allow_private;
    case FETCH_NET_NEVER:
        return false;
    }
    UNREACHABLE();
}

/* ---- hosts ------------------------------------------------------------------------------------------------------- */

/* Is `host` (as in struct fetch_origin) an address? Then *ret says in which network. */
static bool host_net(const char *host, enum fetch_net *ret)
{
    struct in_addr a4;
    struct in6_addr a6;
    char inner[INET6_ADDRSTRLEN + 1];
    size_t n = strlen(host);

    if (host[0] == '[' && n - 2 < sizeof(inner)) {
        memcpy(inner, host + 1, n - 2);
        inner[n - 2] = '\0';
        if (inet_pton(AF_INET6, inner, &a6) != 1)
            return false;
        *ret = net_of6(a6.s6_addr);
        return true;
    }
    if (inet_pton(AF_INET, host, &a4) != 1)
        return false;
    *ret = net_of4(ntohl(a4.s_addr));
    return true;
}

enum err fetch_origin_allowed(const struct fetch_origin *o, const struct fetch_guard *g, struct errinfo *info)
{
    enum fetch_net net;

    if (!o->tls && !g->allow_plain_http)
        return err_set(info, E_EGRESS_DENIED, "http://%s: plain http is not allowed to this provider", o->host);
    if (host_net(o->host, &net) && !fetch_guard_allows(g, net))
        return err_set(info, E_EGRESS_DENIED, "%s is an address that may not be connected to", o->host);
    return OK;
}

static bool label_valid(struct str l)
{
    if (l.len == 0 || l.len > 63 || l.p[0] == '-' || l.p[l.len - 1] == '-')
        return false;
    for (size_t i = 0; i < l.len; i++)
        if (!((l.p[i] >= 'a' && l.p[i] <= 'z') || (l.p[i] >= '0' && l.p[i] <= '9') || l.p[i] == '-'))
            return false;
    return true;
}

/* Could some resolver take this last label for a number? Decimal, octal ("0177") or hexadecimal ("0x7f", "0x"). */
static bool label_numeric(struct str l)
{
    bool hex = str_starts(l, STR("0x"));

    for (size_t i = hex ? 2 : 0; i < l.len; i++)
        if (!((l.p[i] >= '0' && l.p[i] <= '9') || (hex && l.p[i] >= 'a' && l.p[i] <= 'f')))
            return false;
    return true;
}

/* inet_pton takes neither leading zeros nor fewer than four parts: what it refuses here is no address for anybody. */
static bool host_valid(const char *host)
{
    struct str rest = str_of(host), label = rest;
    enum fetch_net net;

    if (host[0] == '[')
        return rest.len > 4 && rest.p[rest.len - 1] == ']' && host_net(host, &net);
    if (host_net(host, &net))
        return true;
    if (rest.len == 0 || rest.len > FETCH_HOST_MAX)
        return false;
    while (str_cut(rest, '.', &label, &rest))
        if (!label_valid(label))
            return false;
    return label_valid(rest) && !label_numeric(rest);
}

/* Host and port of `authority` into *o, whose scheme is set. */
static bool authority_parse(struct str authority, struct fetch_origin *o)
{
    struct str host = authority, port = STR_NULL;
    uint64_t number = o->tls ? 443 : 80;
    size_t bracket = 0;

    if (authority.len > 0 && authority.p[0] == '[') {
        while (bracket < authority.len && authority.p[bracket] != ']')
            bracket++;
        if (bracket == authority.len)
            return false;
        host.len = bracket + 1;
        port = str_from(authority, host.len);
    } else if (str_cut(authority, ':', &host, &port)) {
        port = str_n(host.p + host.len, port.len + 1);
    } else {
        host = authority;
        port = STR_NULL;
    }
    if (port.len > 0 && (port.len < 2 || port.len > 6 || port.p[0] != ':' || port.p[1] == '0' ||
                         !str_to_u64(str_from(port, 1), &number)))
        return false;
    if (number == 0 || number > 65535 || host.len > FETCH_HOST_MAX)
        return false;
    for (size_t i = 0; i < host.len; i++)
        o->host[i] = (char)(host.p[i] >= 'A' && host.p[i] <= 'Z' ? host.p[i] + 32 : host.p[i]);
    o->port = (uint16_t)number;
    return strlen(o->host) == host.len && host_valid(o->host);
}

enum err fetch_url_parse(struct str url, struct fetch_origin *ret, struct str *ret_path, struct errinfo *info)
{
    struct fetch_origin o = { .tls = str_starts(url, STR("https://")) };
    struct str rest, path;
    size_t n = 0;

    if (!o.tls && !str_starts(url, STR("http://")))
        return err_set(info, E_EGRESS_DENIED, "a URL must start with https:// or http://");
    rest = str_from(url, o.tls ? 8 : 7);
    while (n < rest.len && rest.p[n] != '/' && rest.p[n] != '?' && rest.p[n] != '#')
        n++;
    path = str_from(rest, n);
    if (!authority_parse(str_n(rest.p, n), &o))
        return err_set(info, E_EGRESS_DENIED, "the host of a URL is not a plain name or address with an optional port");
    if (path.len == 0)
        path = STR("/");
    if (!fetch_path_valid(path))
        return err_set(info, E_EGRESS_DENIED, "the path of a URL holds a character it may not hold, or is too long");
    *ret = o;
    *ret_path = path;
    return OK;
}

enum err fetch_origin_parse(struct str text, struct fetch_origin *ret, struct errinfo *info)
{
    struct fetch_origin o;
    struct str path;
    enum err e = fetch_url_parse(text, &o, &path, info);

    if (e)
        return e;
    if (!str_is(path, "/"))
        return err_set(info, E_EGRESS_DENIED, "an origin is a scheme, a host and a port: no path");
    *ret = o;
    return OK;
}

bool fetch_origin_eq(const struct fetch_origin *a, const struct fetch_origin *b)
{
    return a->tls == b->tls && a->port == b->port && strcmp(a->host, b->host) == 0;
}

/* An origin need not come from fetch_origin_parse(): whoever fills one by hand is checked all the same. */
bool fetch_origin_valid(const struct fetch_origin *o)
{
    return memchr(o->host, '\0', sizeof(o->host)) && o->port != 0 && host_valid(o->host);
}
