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

/* A literal that needs no escape, and `mark` behind it; there is room. */
ALWAYS_INLINE void put_both(char **text, char **inside, struct str s, char mark)
{
    char *a = *text, *b = *inside;

    *a++ = '"';
    *b++ = '\\';
    *b++ = '"';
    if (s.len <= FEW) {
        put_few_at(a, b, s.p, s.len);
    } else {
        memcpy(a, s.p, s.len);
        memcpy(b, s.p, s.len);
    }
    a += s.len;
    b += s.len;
    *a++ = '"';
    *b++ = '\\';
    *b++ = '"';
    *a++ = mark;
    *b++ = mark;
    *text = a;
    *inside = b;
}

static NOINLINE void both_string(struct twin *t, struct str s, bool plain, char mark)
{
    char *text = t->text.p, *inside = t->inside.p;
    size_t from = text_len(t);

    if (plain && both_take(t, s.len + MARKS)) {
        put_both(&text, &inside, s, mark);
        t->text.p = text;
        t->inside.p = inside;
        return;
    }
    write_string_slow(&t->text, s, plain, false);
    inside_as_text(t, from);
    both_c(t, mark);
}

/* Words and numbers, which are the same in both. */
static void both_word(struct twin *t, struct str s)
{
    if (s.len <= FEW && both_take(t, s.len)) {
        put_few_at(t->text.p, t->inside.p, s.p, s.len);
        t->text.p += s.len;
        t->inside.p += s.len;
    } else {
        write_bytes(&t->text, s.p, s.len);
        write_bytes(&t->inside, s.p, s.len);
        t->left = 0;
    }
}

/* Neither container nor string. A fragment may be anything. */
static NOINLINE void both_other(struct twin *t, const struct json *j)
{
    size_t from = text_len(t);

    if (json_is_number(j)) {
        both_word(t, json_num_raw(j));
    } else if (json_is(j, JSON_BOOL)) {
        both_word(t, j->u.b ? STR("true") : STR("false"));
    } else if (json_is(j, JSON_RAW)) {
        write_bytes(&t->text, j->u.s, j->len);
        inside_as_text(t, from);
    } else {
        both_word(t, STR("null"));
    }
}

/* A child that is no container, with its key if it is a member, and a comma. */
ALWAYS_INLINE void both_scalar(struct twin *t, const struct json *j, bool member)
{
    struct str key = json_key(j), s = json_str(j);
    bool key_plain = member && (j->flags & F_KEY_PLAIN || is_plain(key));
    bool string = json_is(j, JSON_STRING), plain = string && (j->flags & F_PLAIN || is_plain(s));
    char *text = t->text.p, *inside = t->inside.p;

    if (key_plain && plain && both_take(t, key.len + s.len + 2 * MARKS)) {      /* one look at the room for both */
        put_both(&text, &inside, key, ':');
        put_both(&text, &inside, s, ',');
        t->text.p = text;
        t->inside.p = inside;
        return;
    }
    if (member)
        both_string(t, key, key_plain, ':');
    if (string) {
        both_string(t, s, plain, ',');
    } else {
        both_other(t, j);
        both_c(t, ',');
    }
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
