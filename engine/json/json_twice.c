/*
 * json_twice.c -- tree to text, and the same text inside of a literal, in one pass
 *
 * What needs no escape is the same in both but for the backslashes before its quotes: it is looked at once.  Everything
 * else is written as text, which then goes into the literal as any text does.
 *
 * Fails as json_write() does: overflow of either buffer.
 */
#include "base/check.h"
#include "json/json_writer.h"

struct twin {
    struct writer text, inside;
    size_t left;                        /* so much room at least is in both */
};

enum { MARKS = 5 };                     /* what a literal inside of another takes beside its bytes, with its mark */

/* Takes n bytes of the room in both; false: one of them has not so much. */
static inline bool both_take(struct twin *t, size_t n)
{
    if (__builtin_expect(t->left < n, 0)) {
        size_t text = (size_t)(t->text.end - t->text.p), inside = (size_t)(t->inside.end - t->inside.p);

        t->left = text < inside ? text : inside;
        if (t->left < n)
            return false;
    }
    t->left -= n;
    return true;
}

static NOINLINE void both_c_slow(struct twin *t, char c)
{
    write_c(&t->text, c);
    write_c(&t->inside, c);
    t->left = 0;
}

static inline void both_c(struct twin *t, char c)
{
    if (!both_take(t, 1)) {
        both_c_slow(t, c);
        return;
    }
    *t->text.p++ = c;
    *t->inside.p++ = c;
}

static inline size_t text_len(const struct twin *t)
{
    return t->text.p ? (size_t)(t->text.p - t->text.b->p) : 0;
}

/* What the text got from `from` on goes inside of the literal as any other text does. */
static void inside_as_text(struct twin *t, size_t from)
{
    struct str got = { t->text.b->p + from, text_len(t) - from };

    if (got.len && room(&t->inside, got.len))
        write_part(&t->inside, got);
    t->left = 0;
}

/* There is room for all of these, up to both_take(). */
ALWAYS_INLINE void put_bytes(char **text, char **inside, struct str s)
{
    if (s.len <= FEW) {
        put_few_at(*text, *inside, s.p, s.len);
    } else {
        memcpy(*text, s.p, s.len);
        memcpy(*inside, s.p, s.len);
    }
    *text += s.len;
    *inside += s.len;
}

static inline void put_mark(char **text, char **inside, char mark)
{
    *(*text)++ = mark;
    *(*inside)++ = mark;
}

static inline void put_quote(char **text, char **inside)
{
    *(*text)++ = '"';
    *(*inside)++ = '\\';
    *(*inside)++ = '"';
}

/* A literal that needs no escape, and `mark` behind it. */
ALWAYS_INLINE void put_literal(char **text, char **inside, struct str s, char mark)
{
    put_quote(text, inside);
    put_bytes(text, inside, s);
    put_quote(text, inside);
    put_mark(text, inside, mark);
}

static NOINLINE void both_string(struct twin *t, struct str s, bool plain, char mark)
{
    char *text = t->text.p, *inside = t->inside.p;
    size_t from = text_len(t);

    if (plain && both_take(t, s.len + MARKS)) {
        put_literal(&text, &inside, s, mark);
        t->text.p = text;
        t->inside.p = inside;
        return;
    }
    write_string_slow(&t->text, s, plain, false);
    inside_as_text(t, from);
    both_c(t, mark);
}

/* What is the same in both: words and numbers; STR_NULL: it is something else. */
static inline struct str word_of(const struct json *j)
{
    switch (json_type(j)) {
    case JSON_BOOL:
        return j->u.b ? STR("true") : STR("false");
    case JSON_INT:
    case JSON_NUMBER:
        return str_n(j->v.raw, j->len);
    case JSON_NULL:
    case JSON_NONE:
        return STR("null");
    default:
        return STR_NULL;
    }
}

/* A child that is neither container nor string, with its key if it is a member, and a comma. A fragment may be
 * anything. */
static NOINLINE void both_other(struct twin *t, const struct json *j, bool key_plain, bool member)
{
    struct str key = json_key(j), word = word_of(j);
    char *text = t->text.p, *inside = t->inside.p;
    size_t from;

    if (key_plain == member && word.p && both_take(t, key.len + word.len + MARKS + 1)) {
        if (member)
            put_literal(&text, &inside, key, ':');
        put_bytes(&text, &inside, word);
        put_mark(&text, &inside, ',');
        t->text.p = text;
        t->inside.p = inside;
        return;
    }
    if (member)
        both_string(t, key, key_plain, ':');
    from = text_len(t);
    if (word.p) {
        write_bytes(&t->text, word.p, word.len);
        write_bytes(&t->inside, word.p, word.len);
        t->left = 0;
    } else {
        write_bytes(&t->text, j->u.s, j->len);
        inside_as_text(t, from);
    }
    both_c(t, ',');
}

/* A child that is no container, with its key if it is a member, and a comma. */
ALWAYS_INLINE void both_scalar(struct twin *t, const struct json *j, bool member)
{
    struct str key = json_key(j), s = json_str(j);
    bool key_plain = member && (j->flags & F_KEY_PLAIN || is_plain(key));
    bool string = json_is(j, JSON_STRING), plain = string && (j->flags & F_PLAIN || is_plain(s));
    char *text = t->text.p, *inside = t->inside.p;

    if (key_plain && plain && both_take(t, key.len + s.len + 2 * MARKS)) {      /* one look at the room for both */
        put_literal(&text, &inside, key, ':');
        put_literal(&text, &inside, s, ',');
        t->text.p = text;
        t->inside.p = inside;
        return;
    }
    if (!string) {
        both_other(t, j, key_plain, member);
        return;
    }
    if (member)
        both_string(t, key, key_plain, ':');
    both_string(t, s, plain, ',');
}

/* The comma behind the last child gives its place to what closes the container; it is there unless a buffer is full. */
static inline void both_close(struct twin *t, char c, bool comma)
{
    if (comma && !t->text.b->overflow && !t->inside.b->overflow) {
        t->text.p--;
        t->inside.p--;
    }
    both_c(t, c);
}

static void write_both(struct twin *t, const struct json *j, unsigned depth)
{
    bool object = json_is(j, JSON_OBJECT);
    const struct json *m;

    if (depth == JSON_DEPTH_MAX) {
        too_deep(&t->text);
        too_deep(&t->inside);
        t->left = 0;
        return;
    }
    both_c(t, object ? '{' : '[');
    for (m = json_first(j); m; m = m->next) {
        if (!is_container(m)) {
            both_scalar(t, m, object);
            continue;
        }
        if (object)
            both_string(t, json_key(m), m->flags & F_KEY_PLAIN || is_plain(json_key(m)), ':');
        write_both(t, m, depth + 1);
        both_c(t, ',');
    }
    both_close(t, object ? '}' : ']', j->len > 0);
}

void json_write_twice(struct buf *out, struct buf *literal, const struct json *j)
{
    struct twin t = { .left = 0 };
    size_t from = out->len;

    if (!is_container(j)) {
        json_write(out, j);
        buf_add_json_part(literal, str_from(buf_str(out), from));
        return;
    }
    writer_start(&t.text, out);
    writer_start(&t.inside, literal);
    write_both(&t, j, 0);
    writer_stop(&t.text);
    writer_stop(&t.inside);
}
