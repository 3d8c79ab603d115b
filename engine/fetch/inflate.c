/*
 * inflate.c -- packed bodies, unpacked with two bounds: bytes in all, and bytes out per byte in
 *
 * Nobody is asked to pack (Accept-Encoding: identity); this is for servers that do it all the same.  Exactly one gzip
 * or zlib stream, nothing behind it: a second member would be read by one program and dropped by the next.
 */
#include <zlib.h>

#include "base/check.h"
#include "fetch/internal.h"

enum { STEP = 16 * 1024 };

static enum err unpack(z_stream *z, size_t in_len, size_t max, struct buf *out, const char **why)
{
    int rc;

    do {
        size_t room = out->max - out->len < STEP ? out->max - out->len : STEP;
        char *at = room > 0 ? buf_reserve(out, room) : NULL;

        if (!at) {
            *why = "the answer unpacks to more than allowed";
            return E_UPSTREAM_TOO_LARGE;
        }
        z->next_out = (unsigned char *)at;
        z->avail_out = (unsigned)room;
        rc = inflate(z, Z_NO_FLUSH);
        out->len += room - z->avail_out;
        if (rc != Z_OK && rc != Z_STREAM_END) {         /* Z_BUF_ERROR: the input ended early */
            *why = "the answer's body does not unpack";
            return E_UPSTREAM_GARBLED;
        }
        if (out->len > max || (out->len > FETCH_RATIO_FREE && out->len / FETCH_RATIO_MAX > in_len)) {
            *why = "the answer unpacks to more than allowed";
            return E_UPSTREAM_TOO_LARGE;
        }
    } while (rc != Z_STREAM_END);
    if (z->avail_in > 0) {
        *why = "the answer's packed body has bytes behind its end";
        return E_UPSTREAM_GARBLED;
    }
    return OK;
}

enum err inflate_bounded(struct str in, bool gzip, size_t max, struct buf *out, const char **why)
{
    z_stream z = { .next_in = (unsigned char *)(uintptr_t)in.p };
    enum err e;

    if (in.len > UINT32_MAX) {
        *why = "the answer's packed body is too long";
        return E_UPSTREAM_TOO_LARGE;
    }
    z.avail_in = (unsigned)in.len;
    if (inflateInit2(&z, gzip ? 15 + 16 : 15) != Z_OK) {
        *why = "no memory to unpack the answer";
        return E_UPSTREAM_TOO_LARGE;
    }
    e = unpack(&z, in.len, max, out, why);
    inflateEnd(&z);
    return e;
}
