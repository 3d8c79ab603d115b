/* net.c -- listening sockets and the names of addresses; the real world only */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "loop/world.h"

union address {
    struct sockaddr sa;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
};

/* "127.0.0.1:80", "[::1]:80", "localhost:80". False if it is nothing of the kind. */
static bool address_parse(const char *text, union address *ret, socklen_t *ret_len)
{
    struct str s = str_of(text), host, port;
    char name[64];
    uint64_t number;
    size_t colon = s.len;

    while (colon > 0 && s.p[colon - 1] != ':')
        colon--;
    if (colon == 0)
        return false;
    host = str_n(s.p, colon - 1);
    port = str_from(s, colon);
    if (!str_to_u64(port, &number) || number > 65535 || host.len >= sizeof(name))
        return false;
    memset(ret, 0, sizeof(*ret));
    if (str_is(host, "localhost"))
        host = STR("127.0.0.1");
    if (host.len >= 2 && host.p[0] == '[' && host.p[host.len - 1] == ']') {
        memcpy(name, host.p + 1, host.len - 2);
        name[host.len - 2] = '\0';
        ret->v6.sin6_family = AF_INET6;
        ret->v6.sin6_port = htons((uint16_t)number);
        *ret_len = sizeof(ret->v6);
        return inet_pton(AF_INET6, name, &ret->v6.sin6_addr) == 1;
    }
    memcpy(name, host.p, host.len);
    name[host.len] = '\0';
    ret->v4.sin_family = AF_INET;
    ret->v4.sin_port = htons((uint16_t)number);
    *ret_len = sizeof(ret->v4);
    return inet_pton(AF_INET, name, &ret->v4.sin_addr) == 1;
}

bool net_is_address(const char *text)
{
    union address a;
    socklen_t len;

    return address_parse(text, &a, &len);
}

bool net_is_loopback(const char *text)
{
    union address a;
    socklen_t len;

    if (!address_parse(text, &a, &len))
        return false;
    if (a.sa.sa_family == AF_INET)
        return (ntohl(a.v4.sin_addr.s_addr) >> 24) == 127;
    return IN6_IS_ADDR_LOOPBACK(&a.v6.sin6_addr);
}

enum err net_listen(const char *text, bool reuse_port, int *ret_fd, struct errinfo *info)
{
    union address a;
    socklen_t len;
    int fd, one = 1;

    if (!address_parse(text, &a, &len))
        return err_set(info, E_CONFIG, "\"%s\" is no address to listen on: " NET_ADDRESS_FORMS, text);
    fd = socket(a.sa.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return err_set(info, E_IO, "cannot make a socket: %s", strerror(errno));
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    if (reuse_port)
        setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &one, sizeof(one));
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));       /* inherited by what is accepted */
    if (bind(fd, &a.sa, len) != 0 || listen(fd, 4096) != 0) {
        int why = errno;

        close(fd);
        return err_set(info, E_IO, "cannot listen on %s: %s%s", text, strerror(why),
                       why == EADDRINUSE ? "; another process has this port: stop it or choose another with --listen"
                                         : "");
    }
    *ret_fd = fd;
    return OK;
}

void net_name(int fd, bool peer, char out[64])
{
    union address a;
    socklen_t len = sizeof(a);
    char host[INET6_ADDRSTRLEN];

    memset(&a, 0, sizeof(a));
    snprintf(out, 64, "unknown");
    if ((peer ? getpeername(fd, &a.sa, &len) : getsockname(fd, &a.sa, &len)) != 0)
        return;
    if (a.sa.sa_family == AF_INET && inet_ntop(AF_INET, &a.v4.sin_addr, host, sizeof(host)))
        snprintf(out, 64, "%s:%u", host, ntohs(a.v4.sin_port));
    else if (a.sa.sa_family == AF_INET6 && inet_ntop(AF_INET6, &a.v6.sin6_addr, host, sizeof(host)))
        snprintf(out, 64, "[%s]:%u", host, ntohs(a.v6.sin6_port));
}
