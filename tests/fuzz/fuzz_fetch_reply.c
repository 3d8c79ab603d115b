/*
 * The reader of answers on arbitrary bytes.  The first two bytes choose: was it a HEAD, how large are the pieces.  At
 * the end the peer closes.  What must hold:
 *   - the result does not depend on how the bytes are cut, nor on whether they are received in place;
 *   - a body is never longer than allowed; fields lie in the arena and have a name;
 *   - bytes behind the answer are not taken.
 */
#include <stdlib.h>

#include "base/check.h"
#include "fetch/internal.h"

enum { MAX = 4096 };

struct result {
    enum err e;
    size_t used;
    struct fetch_reply reply;
    struct arena arena;
};

static void run(struct result *r, struct str in, size_t step, bool was_head, bool direct)
{
    struct reader reader;

    arena_init(&r->arena, 1 << 20);
    reader_init(&reader, &r->arena, MAX, was_head);
    r->e = OK;
    r->used = 0;
    while (!r->e && r->used < in.len && !reader_done(&reader)) {
        size_t n = in.len - r->used < step ? in.len - r->used : step, room = 0, used = 0;
        char *place = direct ? reader_room(&reader, &room) : NULL;

        if (place) {
            n = n < room ? n : room;
            memcpy(place, in.p + r->used, n);
            r->e = reader_filled(&reader, n);
            used = n;
        } else {
            char *copy = malloc(n);         /* of the exact size: reading on is noticed */

            memcpy(copy, in.p + r->used, n);
            r->e = reader_feed(&reader, str_n(copy, n), &used);
            free(copy);
            ASSERT(r->e || used == n || reader_done(&reader));
        }
        r->used += r->e ? 0 : used;
    }
    if (!r->e && !reader_done(&reader))
        r->e = reader_eof(&reader);
    if (!r->e)
        r->e = reader_finish(&reader, &r->reply);
    ASSERT(r->e != E_UPSTREAM_GARBLED || reader.why[0]);
    reader_release(&reader);
}

static void check(const struct result *r)
{
    if (r->e)
        return;
    ASSERT(r->reply.status >= 200 && r->reply.status <= 999 && r->reply.body.len <= MAX);
    for (unsigned i = 0; i < r->reply.n_fields; i++)
        ASSERT(r->reply.fields[i].name.len > 0 &&
               memchr(r->reply.fields[i].value.p, '\n', r->reply.fields[i].value.len) == NULL);
}

static void same(const struct result *a, const struct result *b)
{
    ASSERT(a->e == b->e);
    if (a->e)
        return;
    ASSERT(a->used == b->used && a->reply.status == b->reply.status && a->reply.n_fields == b->reply.n_fields);
    ASSERT(str_eq(a->reply.body, b->reply.body));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct result whole, pieces, placed;
    struct str in;
    size_t step;
    bool was_head;

    if (size < 2)
        return 0;
    was_head = data[0] & 1;
    step = (size_t)data[1] % 64 + 1;
    in = str_n(data + 2, size - 2);
    run(&whole, in, in.len + 1, was_head, false);
    run(&pieces, in, step, was_head, false);
    run(&placed, in, step, was_head, true);
    check(&whole);
    same(&whole, &pieces);
    same(&whole, &placed);
    arena_release(&whole.arena);
    arena_release(&pieces.arena);
    arena_release(&placed.arena);
    return 0;
}
