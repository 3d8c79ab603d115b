/* sse.c -- lines, then fields, then events */
#include "cli/sse.h"

void sse_init(struct sse *s)
{
    *s = (struct sse){ .line = BUF_INIT(SSE_EVENT_MAX), .data = BUF_INIT(SSE_EVENT_MAX) };
}

void sse_release(struct sse *s)
{
    buf_release(&s->line);
    buf_release(&s->data);
}

static bool end_event(struct sse *s, sse_fn *fn, void *arg)
{
    bool more = true;

    if (s->has_data)
        more = fn(buf_str(&s->data), arg);
    buf_clear(&s->data);
    s->has_data = false;
    return more;
}

static bool end_line(struct sse *s, sse_fn *fn, void *arg)
{
    struct str line = buf_str(&s->line), name = line, value = STR_NULL;

    if (!s->begun && str_starts(line, STR("\xef\xbb\xbf")))
        line = str_from(line, 3);
    s->begun = true;
    if (line.len == 0) {
        buf_clear(&s->line);
        return end_event(s, fn, arg);
    }
    if (!str_cut(line, ':', &name, &value))
        name = line;
    if (value.len && value.p[0] == ' ')
        value = str_from(value, 1);
    if (str_is(name, "data")) {
        if (s->has_data)
            buf_add_c(&s->data, '\n');
        buf_add_str(&s->data, value);
        s->has_data = true;
    }
    buf_clear(&s->line);
    return !s->data.overflow;
}

bool sse_feed(struct sse *s, struct str bytes, sse_fn *fn, void *arg)
{
    size_t from = 0;

    for (size_t i = 0; i < bytes.len; i++) {
        char c = bytes.p[i];

        if (s->after_cr && c == '\n') {         /* the second half of CRLF */
            s->after_cr = false;
            from = i + 1;
            continue;
        }
        s->after_cr = c == '\r';
        if (c != '\n' && c != '\r')
            continue;
        buf_add(&s->line, bytes.p + from, i - from);
        from = i + 1;
        if (s->line.overflow || !end_line(s, fn, arg))
            return false;
    }
    buf_add(&s->line, bytes.p + from, bytes.len - from);
    return !s->line.overflow;
}
