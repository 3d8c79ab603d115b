/*
 * fetch_h2.c -- see fetch_h2.h
 */
#include <malloc.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/crypto.h"
#include "fetch_h2.h"

enum { HEAD = 9, BODY_MAX = 64 << 20, TEXT_MAX = 1 << 20 };

/* ---- memory that is overwritten ---------------------------------------------------------------------------------- */

static void wipe_free(void *p)
{
    if (p)
        bytes_wipe(p, malloc_usable_size(p));
    free(p);
}

static void *h2_malloc(size_t n, void *arg)              { return malloc(n); }
static void h2_free(void *p, void *arg)                  { wipe_free(p); }
static void *h2_calloc(size_t n, size_t each, void *arg) { return calloc(n, each); }

static void *h2_realloc(void *p, size_t n, void *arg)
{
    void *grown = malloc(n);
    size_t had = p ? malloc_usable_size(p) : 0;

    if (grown && p)
        memcpy(grown, p, had < n ? had : n);
    if (grown)
        wipe_free(p);
    return grown;
}

static nghttp2_mem wiping = { NULL, h2_malloc, h2_free, h2_calloc, h2_realloc };

static uint32_t u32_of(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static void u32_put(uint8_t *p, uint32_t v)
{
    for (int i = 0; i < 4; i++)
        p[i] = (uint8_t)(v >> (24 - 8 * i));
}

/* ---- birth and death --------------------------------------------------------------------------------------------- */

bool h2_open(struct h2 *h, struct peer *p, uint32_t streams_max, uint32_t window)
{
    uint8_t settings[12], preface[24];
    size_t n = 0;

    *h = (struct h2){ .p = p, .window = NGHTTP2_INITIAL_WINDOW_SIZE, .opened = NGHTTP2_INITIAL_WINDOW_SIZE,
                      .initial = NGHTTP2_INITIAL_WINDOW_SIZE, .initial_opened = NGHTTP2_INITIAL_WINDOW_SIZE };
    h->payload = malloc(H2_FRAME_MAX);
    CHECK(h->payload && nghttp2_hd_inflate_new2(&h->in, &wiping) == 0 &&
         nghttp2_hd_deflate_new2(&h->out, 4096, &wiping) == 0);
    if (streams_max) {
        memcpy(settings, "\0\3", 2);
        u32_put(settings + 2, streams_max);
        n += 6;
    }
    if (window) {
        memcpy(settings + n, "\0\4", 2);
        u32_put(settings + n + 2, window);
        n += 6;
        h->initial_opened = window;
        h->opened = window;
    }
    return peer_bytes(p, preface, sizeof(preface)) &&
           memcmp(preface, NGHTTP2_CLIENT_MAGIC, NGHTTP2_CLIENT_MAGIC_LEN) == 0 &&
           h2_frame(h, NGHTTP2_SETTINGS, 0, 0, settings, n) &&
           (!window || h2_frame_u32(h, NGHTTP2_WINDOW_UPDATE, 0, window - NGHTTP2_INITIAL_WINDOW_SIZE));
}

void h2_forget(struct h2 *h, struct h2_request *rq)
{
    struct h2_request **at = &h->first;

    while (*at != rq)
        at = &(*at)->next;
    *at = rq->next;
    h->n_open--;
    wipe_free(rq->text.p);
    wipe_free(rq->body.p);
    free(rq);
}

bool h2_open_small(struct h2 *h, struct peer *p)
{
    int size = 64 << 10;

    setsockopt(p->fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size));
    return h2_open(h, p, 0, 1 << 30);
}

void h2_close(struct h2 *h)
{
    while (h->first)
        h2_forget(h, h->first);
    nghttp2_hd_inflate_del(h->in);
    nghttp2_hd_deflate_del(h->out);
    wipe_free(h->payload);
}

struct h2_request *h2_find(struct h2 *h, int32_t id)
{
    struct h2_request *rq = h->first;

    while (rq && rq->id != id)
        rq = rq->next;
    return rq;
}

/* ---- in ---------------------------------------------------------------------------------------------------------- */

static void ended(struct h2 *h, struct h2_request *rq)
{
    if (!(h->flags & NGHTTP2_FLAG_END_STREAM))
        return;
    rq->whole = true;
    atomic_fetch_add(&h->p->up->requests, 1);
}

static void add_field(struct h2_request *rq, const nghttp2_nv *nv)
{
    struct h2_field *f = &rq->fields[rq->n_fields++];

    CHECK(rq->n_fields <= H2_FIELDS_MAX && buf_reserve(&rq->text, nv->namelen + nv->valuelen));
    f->name = str_n(rq->text.p + rq->text.len, nv->namelen);
    buf_add(&rq->text, nv->name, nv->namelen);
    f->value = str_n(rq->text.p + rq->text.len, nv->valuelen);
    buf_add(&rq->text, nv->value, nv->valuelen);
    f->never = (nv->flags & NGHTTP2_NV_FLAG_NO_INDEX) != 0;
    if (str_is(f->name, ":method"))
        rq->method = f->value;
    if (str_is(f->name, ":path"))
        rq->path = f->value;
}

static void on_request(struct h2 *h)
{
    struct h2_request *rq = calloc(1, sizeof(*rq)), **at = &h->first;
    const uint8_t *p = h->payload, *end = p + h->len;
    int flags = 0;

    CHECK(rq && (h->flags & NGHTTP2_FLAG_END_HEADERS) && !(h->flags & (NGHTTP2_FLAG_PADDED | NGHTTP2_FLAG_PRIORITY)));
    *rq = (struct h2_request){ .id = h->id, .window = h->initial, .opened = h->initial_opened,
                               .text = BUF_INIT(TEXT_MAX), .body = BUF_INIT(BODY_MAX) };
    CHECK(buf_reserve(&rq->text, 8 * H2_FRAME_MAX));     /* the fields' views must stay where they are */
    while (!(flags & NGHTTP2_HD_INFLATE_FINAL)) {
        nghttp2_nv nv;
        ssize_t n = nghttp2_hd_inflate_hd2(h->in, &nv, &flags, p, (size_t)(end - p), 1);

        CHECK(n >= 0);
        p += n;
        if (flags & NGHTTP2_HD_INFLATE_EMIT)
            add_field(rq, &nv);
    }
    nghttp2_hd_inflate_end_headers(h->in);
    while (*at)
        at = &(*at)->next;
    *at = rq;
    h->n_open++;
    h->most_open = h->n_open > h->most_open ? h->n_open : h->most_open;
    ended(h, rq);
}

static void on_body(struct h2 *h)
{
    struct h2_request *rq = h2_find(h, h->id);

    h->opened -= (int64_t)h->len;
    CHECK(h->opened >= 0);
    if (h->len > 0 && h2_frame_u32(h, NGHTTP2_WINDOW_UPDATE, 0, (uint32_t)h->len))
        h->opened += (int64_t)h->len;
    if (!rq || rq->whole)
        return;
    rq->opened -= (int64_t)h->len;
    CHECK(rq->opened >= 0);
    buf_add(&rq->body, h->payload, h->len);
    if (h->len > 0 && !(h->flags & NGHTTP2_FLAG_END_STREAM) &&
        h2_frame_u32(h, NGHTTP2_WINDOW_UPDATE, h->id, (uint32_t)h->len))
        rq->opened += (int64_t)h->len;
    ended(h, rq);
}

static void on_settings(struct h2 *h)
{
    if (h->flags & NGHTTP2_FLAG_ACK) {
        h->n_acks++;
        return;
    }
    for (size_t i = 0; i + 6 <= h->len; i += 6) {
        uint32_t value = u32_of(h->payload + i + 2);

        if (h->payload[i + 1] != NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE)
            continue;
        for (struct h2_request *rq = h->first; rq; rq = rq->next)
            rq->window += (int64_t)value - h->initial;
        h->initial = value;
    }
    h2_frame(h, NGHTTP2_SETTINGS, NGHTTP2_FLAG_ACK, 0, "", 0);
}

static void on_window(struct h2 *h)
{
    struct h2_request *rq = h2_find(h, h->id);

    h->n_updates++;
    if (h->id == 0)
        h->window += u32_of(h->payload);
    else if (rq)
        rq->window += u32_of(h->payload);
}

static void on_reset(struct h2 *h)
{
    struct h2_request *rq = h2_find(h, h->id);

    h->n_resets++;
    h->reset_code = u32_of(h->payload);
    if (rq) {
        rq->reset = true;
        rq->reset_code = h->reset_code;
    }
}

bool h2_read(struct h2 *h)
{
    uint8_t head[HEAD];

    h->gone = h->gone || !peer_bytes(h->p, head, HEAD);
    if (h->gone)
        return false;
    h->len = u32_of(head) >> 8;
    h->type = head[3];
    h->flags = head[4];
    h->id = (int32_t)(u32_of(head + 5) & 0x7fffffff);
    CHECK(h->len <= H2_FRAME_MAX);
    h->gone = !peer_bytes(h->p, h->payload, h->len);
    if (h->gone)
        return false;
    if (h->type == NGHTTP2_HEADERS)
        on_request(h);
    else if (h->type == NGHTTP2_DATA)
        on_body(h);
    else if (h->type == NGHTTP2_SETTINGS)
        on_settings(h);
    else if (h->type == NGHTTP2_WINDOW_UPDATE)
        on_window(h);
    else if (h->type == NGHTTP2_RST_STREAM)
        on_reset(h);
    else if (h->type == NGHTTP2_PING && !(h->flags & NGHTTP2_FLAG_ACK))
        h2_frame(h, NGHTTP2_PING, NGHTTP2_FLAG_ACK, 0, h->payload, 8);
    h->n_pongs += h->type == NGHTTP2_PING && (h->flags & NGHTTP2_FLAG_ACK);
    if (h->type == NGHTTP2_GOAWAY) {
        h->goaway = true;
        h->goaway_code = u32_of(h->payload + 4);
    }
    explicit_bzero(h->payload, h->len);
    return true;
}

static bool has_more(const struct h2 *h)
{
    return h->p->have > 0 || (h->p->ssl && SSL_pending(h->p->ssl) > 0);
}

/* Frames first, if any have come. */
static bool gate_opens(struct h2 *h)
{
    struct pollfd fds[2] = { { h->p->fd, POLLIN, 0 }, { h->gate, POLLIN, 0 } };

    if (!h->gate || has_more(h))
        return false;
    CHECK(poll(fds, 2, -1) > 0);
    if (fds[0].revents)
        return false;
    h->gate = 0;
    return true;
}

struct h2_request *h2_next(struct h2 *h)
{
    do {
        for (struct h2_request *rq = h->first; rq; rq = rq->next) {
            if (rq->whole && !rq->taken) {
                rq->taken = true;
                return rq;
            }
        }
    } while (!gate_opens(h) && h2_read(h));
    return NULL;
}

void h2_until_closed(struct h2 *h)
{
    while (h2_read(h))
        ;
}

/* ---- out --------------------------------------------------------------------------------------------------------- */

bool h2_frame(struct h2 *h, unsigned type, unsigned flags, int32_t id, const void *payload, size_t n)
{
    uint8_t *frame = malloc(HEAD + n);
    bool sent = true;

    CHECK(frame);
    u32_put(frame, (uint32_t)n << 8 | type);
    frame[4] = (uint8_t)flags;
    u32_put(frame + 5, (uint32_t)id);
    memcpy(frame + HEAD, payload, n);
    for (size_t i = 0; h->bytewise && sent && i < HEAD + n; i++)
        sent = peer_send(h->p, frame + i, 1);
    if (!h->bytewise)
        sent = peer_send(h->p, frame, HEAD + n);
    free(frame);
    return sent;
}

bool h2_frame_u32(struct h2 *h, unsigned type, int32_t id, uint32_t value)
{
    uint8_t payload[4];

    u32_put(payload, value);
    return h2_frame(h, type, 0, id, payload, sizeof(payload));
}

bool h2_goaway(struct h2 *h, int32_t last, uint32_t code)
{
    uint8_t payload[8];

    u32_put(payload, (uint32_t)last);
    u32_put(payload + 4, code);
    return h2_frame(h, NGHTTP2_GOAWAY, 0, 0, payload, sizeof(payload));
}

bool h2_setting(struct h2 *h, uint16_t name, uint32_t value)
{
    uint8_t payload[6] = { (uint8_t)(name >> 8), (uint8_t)name };

    u32_put(payload + 2, value);
    return h2_frame(h, NGHTTP2_SETTINGS, 0, 0, payload, sizeof(payload));
}

bool h2_head(struct h2 *h, int32_t id, unsigned flags, struct str fields)
{
    enum { N = 1100 };
    nghttp2_nv *nva = calloc(N, sizeof(*nva));
    struct buf block = BUF_INIT(TEXT_MAX);
    struct str line;
    size_t n = 0, off = 0;
    bool sent = true;
    ssize_t len;

    while (fields.len > 0) {
        const char *value;

        CHECK(n < N);
        if (!str_cut(fields, '|', &line, &fields)) {
            line = fields;
            fields = STR("");
        }
        CHECK((value = memmem(line.p, line.len, ": ", 2)));
        nva[n++] = (nghttp2_nv){ (uint8_t *)(uintptr_t)line.p, (uint8_t *)(uintptr_t)value + 2,
                                 (size_t)(value - line.p), line.len - (size_t)(value - line.p) - 2, 0 };
    }
    CHECK(buf_reserve(&block, nghttp2_hd_deflate_bound(h->out, nva, n) + 1));
    len = nghttp2_hd_deflate_hd(h->out, (uint8_t *)block.p, block.cap, nva, n);
    CHECK(len >= 0);
    do {
        size_t piece = (size_t)len - off < H2_FRAME_MAX ? (size_t)len - off : H2_FRAME_MAX;
        unsigned last = off + piece == (size_t)len ? NGHTTP2_FLAG_END_HEADERS : 0;

        sent = h2_frame(h, off == 0 ? NGHTTP2_HEADERS : NGHTTP2_CONTINUATION, (off == 0 ? flags : 0) | last, id,
                        block.p + off, piece);
        off += piece;
    } while (sent && off < (size_t)len);
    buf_release(&block);
    free(nva);
    return sent;
}

bool h2_data(struct h2 *h, struct h2_request *rq, struct str body, bool ends)
{
    bool over = false;

    while (!over && !rq->reset) {
        int64_t room = h->window < rq->window ? h->window : rq->window;
        size_t n = body.len < H2_FRAME_MAX ? body.len : H2_FRAME_MAX;

        if (body.len > 0 && room <= 0) {
            if (!h2_read(h))
                return false;
            continue;
        }
        n = body.len > 0 && room < (int64_t)n ? (size_t)room : n;
        over = n == body.len;
        if (!h2_frame(h, NGHTTP2_DATA, over && ends ? NGHTTP2_FLAG_END_STREAM : 0, rq->id, body.p, n))
            return false;
        h->window -= (int64_t)n;
        rq->window -= (int64_t)n;
        body = str_from(body, n);
    }
    return over;
}

bool h2_answer(struct h2 *h, struct h2_request *rq, struct str body)
{
    char head[64];
    int n = snprintf(head, sizeof(head), ":status: 200|content-length: %zu", body.len);
    bool sent = h2_head(h, rq->id, 0, str_n(head, (size_t)n)) && h2_data(h, rq, body, true);

    h2_forget(h, rq);
    return sent;
}

/* ---- a script ---------------------------------------------------------------------------------------------------- */

void h2_script_open(struct h2_script *s)
{
    uint64_t one = 1;

    CHECK(write(s->gate, &one, sizeof(one)) == sizeof(one));
}

static void count_most(struct h2_script *s, unsigned n)
{
    unsigned most = atomic_load(&s->most);

    while (n > most && !atomic_compare_exchange_weak(&s->most, &most, n))
        ;
}

/* Whatever is said before SETTINGS can have been heard comes first. */
static void be_late(struct peer *p)
{
    struct pollfd fd = { p->fd, POLLIN, 0 };
    size_t least = NGHTTP2_CLIENT_MAGIC_LEN + 3 * HEAD + 12 + 4;        /* and SETTINGS, WINDOW_UPDATE, HEADERS */

    while (peer_has(p, least) && poll(&fd, 1, 20) > 0)
        least = p->have + 1;
}

void h2_serve(struct peer *p)
{
    struct h2_script *s = p->up->arg;
    struct h2_request *rq, *next;
    char number[16];
    struct h2 h;
    bool open;

    if (atomic_load(&s->late))
        be_late(p);
    open = h2_open(&h, p, s->streams_max, 0);
    snprintf(number, sizeof(number), "%u", p->index);
    h.gate = s->gate;
    while (open) {
        rq = h2_next(&h);
        while (has_more(&h) && h2_read(&h))
            ;                           /* those that came together are counted together */
        count_most(s, h.most_open);
        if (!rq && h.gone)
            break;
        if (rq && (!h.gate || !str_is(rq->path, "/hold")))
            h2_answer(&h, rq, str_of(number));
        for (rq = h.first; !h.gate && rq; rq = next) {
            next = rq->next;
            if (rq->taken)
                h2_answer(&h, rq, str_of(number));
        }
    }
    h2_close(&h);
    atomic_fetch_add(&s->resets, h.n_resets);
    atomic_fetch_add(&s->goaways, h.goaway);
    atomic_fetch_add(&s->ended, 1);
}

void h2_run(uint32_t streams_max, const struct fetch_options *opt, void (*body)(struct bed *b))
{
    struct h2_script s = { .gate = eventfd(0, EFD_CLOEXEC), .streams_max = streams_max };

    bed_run(PEER_HTTP2, h2_serve, &s, opt, body);
    close(s.gate);
}
