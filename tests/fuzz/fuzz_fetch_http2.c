/*
 * A connection that speaks HTTP/2 on arbitrary bytes, which a peer says after three requests have been sent to it; then
 * it closes.  What must hold:
 *   - every request is told its end, and that end is one of those that await_fetch() may come to;
 *   - an answer's body is never longer than allowed; a field has a name, and no line ends in its value.
 *
 * The first byte says how large the pieces are and, by its lowest bit, whether the bytes are taken as they are or as
 * frames of which each length is right, as it would hardly ever be else: length (at most 255; cut to what there is),
 * type, flags, stream (one byte each), payload.
 */
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/check.h"
#include "fetch/session.h"
#include "loop/internal.h"

enum { MAX = 4096, STREAMS = 3 };

static struct loop loop = { .now = NS_PER_S };         /* of a loop the connection asks only what time it is */
static struct fetch f;
static struct group group = { .f = &f, .origin = { .tls = true, .port = 443, .host = "api.example" } };

static void begin(struct stream *x, struct conn *c, struct arena *a, struct fetch_request *req, unsigned i)
{
    static const char *const methods[STREAMS] = { "GET", "POST", "HEAD" };

    *req = (struct fetch_request){ .tenant = STR("t"), .origin = &group.origin, .method = str_of(methods[i]),
                                   .path = STR("/"), .body = i == 1 ? STR("{}") : STR(""), .deadline = NS_NEVER,
                                   .reply_max = MAX };
    ASSERT(stream_init(x, c, req, a));
    c->users++;
    stream_submit(x);
    ASSERT(x->linked);
}

static void end(struct stream *x)
{
    struct fetch_reply reply;
    enum err e = x->result;

    ASSERT(x->wake.fired && !x->linked);
    if (!e)
        e = reader_finish(&x->r, &reply);
    ASSERT(e == OK || e == E_CLOSED || e == E_OUTCOME_UNKNOWN || e == E_UPSTREAM_GARBLED || e == E_UPSTREAM_TOO_LARGE ||
           e == E_UPSTREAM_DOWN);
    ASSERT(e != OK || (x->sent != FETCH_NOT_SENT && reply.status >= 200 && reply.status <= 999));
    ASSERT(e != OK || reply.body.len <= MAX);
    for (unsigned i = 0; e == OK && i < reply.n_fields; i++)
        ASSERT(reply.fields[i].name.len > 0 && !memchr(reply.fields[i].value.p, '\n', reply.fields[i].value.len));
    wire_wipe(&x->fields);
    wire_wipe(&x->body);
    reader_release(&x->r);
}

/* What the engine has said is read, so that it never waits for room. */
static void drain(int fd)
{
    char bytes[4096];

    while (recv(fd, bytes, sizeof(bytes), MSG_DONTWAIT) > 0)
        ;
}

/* The bytes that the peer says. */
static struct buf said_by_peer(const uint8_t *data, size_t size)
{
    struct buf b = BUF_INIT(1 << 24);

    if (size > 0 && data[0] & 1) {
        buf_add(&b, data + 1, size - 1);
        return b;
    }
    for (size_t at = 1; at + 4 < size; ) {
        size_t n = data[at] < size - at - 4 ? data[at] : size - at - 4;
        uint8_t head[9] = { 0, 0, (uint8_t)n, data[at + 1], data[at + 2], 0, 0, 0, data[at + 3] };

        buf_add(&b, head, sizeof(head));
        buf_add(&b, data + at + 4, n);
        at += 4 + n;
    }
    return b;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct conn c = { .magic = CONN_MAGIC, .f = &f, .group = &group };
    struct stream x[STREAMS];
    struct fetch_request req[STREAMS];
    struct arena a[STREAMS];
    size_t step = size > 0 ? (size_t)data[0] * 16 + 1 : 1;
    struct buf in = said_by_peer(data, size);
    int fds[2];

    if (!f.h2_callbacks) {
        loop_current = &loop;
        ASSERT(session_setup(&f) && signal(SIGPIPE, SIG_IGN) != SIG_ERR);
    }
    ASSERT(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds) == 0);
    c.channel.fd = fds[0];
    ASSERT(session_open(&c));
    for (unsigned i = 0; i < STREAMS; i++) {
        arena_init(&a[i], 1 << 20);
        begin(&x[i], &c, &a[i], &req[i], i);
    }
    for (size_t at = 0; at < in.len && session_events(&c, POLLIN); at += step) {
        drain(fds[1]);
        ASSERT(send(fds[1], in.p + at, in.len - at < step ? in.len - at : step, MSG_NOSIGNAL) > 0);
    }
    buf_release(&in);
    shutdown(fds[1], SHUT_WR);
    while (session_events(&c, POLLIN))
        drain(fds[1]);
    for (unsigned i = 0; i < STREAMS; i++) {
        end(&x[i]);
        arena_release(&a[i]);
    }
    session_close(&c);
    close(fds[0]);
    close(fds[1]);
    return 0;
}
