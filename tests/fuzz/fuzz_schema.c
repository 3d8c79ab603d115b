/*
 * fuzz_schema.c -- any schema, any value: refused with a reason, or a verdict that does not depend on how it is asked
 *
 * The first byte holds options (1: format, 2: metaschema) and the arena's limit, then the schema on one line, then the
 * value.  Without a second line the schema checks itself.
 */
#include <stdint.h>

#include "base/check.h"
#include "json/schema.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool ends(const char *text, size_t size)
{
    return memchr(text, 0, size) != NULL;
}

static enum err verdict(const struct schema *s, const struct json *value, size_t room, struct schema_fault *fault)
{
    struct arena scratch;
    enum err e;

    arena_init(&scratch, room);
    e = schema_check(s, value, &scratch, fault);
    ASSERT(e == OK || e == E_ARGS_INVALID);
    arena_release(&scratch);
    return e;
}

static void check_value(const struct schema *s, const struct json *value, size_t room, struct arena *a)
{
    struct schema_fault fault;
    struct buf text = BUF_INIT(64 << 20);
    struct json *again = NULL;
    enum err e = verdict(s, value, room, &fault);

    ASSERT(ends(fault.where, sizeof(fault.where)) && ends(fault.what, sizeof(fault.what)));
    ASSERT((e == OK) == (fault.what[0] == 0));
    ASSERT(str_utf8_valid(str_of(fault.where)) && str_utf8_valid(str_of(fault.what)));
    ASSERT(fault.where[0] == 0 || fault.where[0] == '/');
    ASSERT(verdict(s, value, room, NULL) == e);

    json_write_pretty(&text, value);
    ASSERT(json_parse(a, buf_str(&text), NULL, &again, NULL) == OK);
    ASSERT(verdict(s, again, room, NULL) == e);
    buf_release(&text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct schema_options options = { 0 };
    struct errinfo info = { "" };
    struct json *doc = NULL, *value = NULL;
    struct schema *s = NULL;
    struct str first, second;
    struct arena a;
    size_t room;

    if (size == 0)
        return 0;
    options.format_assertion = data[0] & 1;
    options.check_metaschema = data[0] & 2;
    room = data[0] < 64 ? (size_t)data[0] * 64 : 4 << 20;
    first = str_n(data + 1, size - 1);
    arena_init(&a, 64 << 20);
    if (!str_cut(first, '\n', &first, &second))
        second = first;
    if (json_parse(&a, first, NULL, &doc, NULL) == OK && json_parse(&a, second, NULL, &value, NULL) == OK) {
        enum err e = schema_compile_with(doc, &options, &s, &info);

        ASSERT(e == OK || (e == E_CONFIG && info.text[0] && !s));
        if (e == OK)
            check_value(s, value, room, &a);
        schema_free(s);
    }
    arena_release(&a);
    return 0;
}
