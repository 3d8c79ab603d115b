/* lag.c -- a probe that stands in line with what arrives; see lag.h */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/check.h"
#include "loop/lag.h"

static void probe_back(struct op *op, int res)
{
    struct lag *l = CONTAINER_OF(op, struct lag, recv);

    if (res > 0 && l->under_way) {
        l->back = loop_clock();
        l->last = l->back - l->sent;
        l->under_way = false;
    }
    if (op->more)
        return;
    l->open = false;
    close(l->fds[0]);
    close(l->fds[1]);
}

enum err lag_open(struct lag *l, struct errinfo *info)
{
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, l->fds))
        return err_set(info, E_IO, "cannot make a pair of sockets: %s", strerror(errno));
    l->open = true;
    l->recv = (struct op){ .kind = OP_RECV, .fd = l->fds[1], .done = probe_back };
    op_submit(&l->recv);
    return OK;
}

void lag_close(struct lag *l)
{
    if (l->open)
        op_cancel(&l->recv);
}

ns_t lag_look(struct lag *l, ns_t clock)
{
    if (!l->open)
        return 0;
    if (!l->under_way && clock - l->back > LAG_STALE_MS * NS_PER_MS)
        l->last = 0;
    if (!l->under_way && clock - l->sent >= LAG_PROBE_MS * NS_PER_MS) {
        l->under_way = send(l->fds[0], "", 1, MSG_DONTWAIT | MSG_NOSIGNAL) == 1;
        l->sent = clock;
    }
    return l->under_way && clock - l->sent > l->last ? clock - l->sent : l->last;
}
