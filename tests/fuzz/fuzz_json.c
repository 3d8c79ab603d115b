/*
 * fuzz_json.c -- any bytes: refused with a place, or a tree that survives writing, copying and its canonical form
 *
 * The first byte chooses the arena's limit, so that running out of memory is met in the middle of everything.
 */
#include <stdint.h>

#include "base/check.h"
#include "json/json.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct json *reread(struct arena *a, const struct buf *text)
{
    struct json *j = NULL;

    ASSERT(!text->overflow);
    ASSERT(str_utf8_valid(buf_str(text)));
    ASSERT(json_parse(a, buf_str(text), NULL, &j, NULL) == OK);
    return j;
}

/* In one pass what takes two otherwise. */
static void check_twice(const struct json *j, struct str text)
{
    struct buf out = BUF_INIT(64 << 20), inside = BUF_INIT(128 << 20), want = BUF_INIT(128 << 20);

    json_write_twice(&out, &inside, j);
    buf_add_json_part(&want, text);
    ASSERT(!out.overflow && !inside.overflow);
    ASSERT(str_eq(buf_str(&out), text) && str_eq(buf_str(&inside), buf_str(&want)));
    buf_release(&out);
    buf_release(&inside);
    buf_release(&want);
}

/* Whatever the list and its items are, what is picked has these members. */
static void check_picked(const struct json *j, struct arena *a)
{
    struct json_pick picks[] = {
        { .name = STR("s"), .path = "a", .type = JSON_STRING },
        { .name = STR("n"), .path = "a.b", .type = JSON_INT },
        { .name = STR("b"), .path = "b", .type = JSON_BOOL },
    };
    struct json_picks *ready = json_picks_new(picks, ARRAY_LEN(picks));
    struct json *all = json_pick_each(a, j, ready);
    struct buf text = BUF_INIT(64 << 20);

    ASSERT(json_len(all) == json_len(j));
    for (struct json *one = json_first(all), *from = json_first(j); one; one = json_next(one), from = json_next(from)) {
        struct str s = json_str(json_get(from, "a"));

        ASSERT(json_len(one) == ARRAY_LEN(picks) && str_eq(json_str(json_get(one, "s")), s));
        ASSERT(json_is(json_get(one, "n"), JSON_INT) && json_is(json_get(one, "b"), JSON_BOOL));
    }
    json_write(&text, all);
    ASSERT(json_equal(all, reread(a, &text)));
    buf_release(&text);
    json_picks_free(ready);
}

static void check_tree(const struct json *j, struct arena *a)
{
    struct buf text = BUF_INIT(64 << 20), pretty = BUF_INIT(64 << 20), canon = BUF_INIT(64 << 20),
        again = BUF_INIT(64 << 20);
    struct json *copy = json_copy(a, j);

    json_write(&text, j);
    ASSERT(json_equal(j, reread(a, &text)));
    json_write_pretty(&pretty, j);
    ASSERT(json_equal(j, reread(a, &pretty)));
    ASSERT(json_equal(copy, j));
    json_write(&again, copy);
    ASSERT(str_eq(buf_str(&text), buf_str(&again)));
    check_twice(j, buf_str(&text));
    check_twice(copy, buf_str(&text));
    check_picked(j, a);

    json_canonical(&canon, j);
    buf_clear(&again);
    json_canonical(&again, reread(a, &canon));
    ASSERT(str_eq(buf_str(&canon), buf_str(&again)));
    buf_release(&text);
    buf_release(&pretty);
    buf_release(&canon);
    buf_release(&again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct json_error where = { .offset = SIZE_MAX };
    struct json *j = NULL;
    struct arena a, more;
    struct str text;
    enum err e;

    if (size == 0)
        return 0;
    text = str_n(data + 1, size - 1);
    arena_init(&a, data[0] < 128 ? (size_t)data[0] * 32 : 64 << 20);
    e = json_parse(&a, text, NULL, &j, &where);
    if (e == OK) {
        arena_init(&more, 256 << 20);
        check_tree(j, &more);
        arena_release(&more);
    } else {
        ASSERT(e == E_JSON_MALFORMED || e == E_CALL_TOO_LARGE);
        ASSERT(!j && where.offset <= text.len && where.line > 0 && where.column > 0 && where.message);
    }
    arena_release(&a);
    return 0;
}
