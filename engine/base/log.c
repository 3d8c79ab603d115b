/*
 * log.c -- one line, one write(2)
 *
 *   logfmt  ts=<RFC 3339> level=<level> msg="<text>" <key>="<text>" <key>=<integer> <key>=true
 *   JSON    {"ts":"<RFC 3339>","level":"<level>","msg":"<text>","<key>":"<text>","<key>":<integer>,"<key>":true}
 *
 * In both, text is escaped as in JSON: \" \\ \n \r \t, and \uXXXX for other control characters (C0, DEL, C1), line
 * and paragraph separators, invisible characters and the marks that turn the direction of text; bytes that are not
 * UTF-8 become \ufffd.  A line is built in place; once a piece does not fit nothing more is added, an open quote is
 * closed and the line says cut=true.
 * What stderr does not take is lost: logging never waits and never fails.
 */
#include "base/log.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "base/check.h"
#include "base/escape.h"
#include "base/clock.h"

/* Room kept for the end of a cut line; the longest is JSON's: quote, ,"cut":true} and newline. */
enum { LINE_TAIL = 16 };

struct line {
    char bytes[LOG_LINE_MAX];
    size_t len;
    bool json, quoted, cut;
};

int64_t (*log_wall_ms)(void) = NULL;

static _Atomic int least_level = LOG_LEVEL_INFO;
static _Atomic int line_format = LOG_FORMAT_LOGFMT;

void log_setup(enum log_level least, enum log_format format)
{
    atomic_store(&least_level, (int)least);
    atomic_store(&line_format, (int)format);
}

/* Adds all of the piece or, from the first that does not fit on, nothing. */
static void add(struct line *l, const char *p, size_t n)
{
    if (l->cut || n > LOG_LINE_MAX - LINE_TAIL - l->len) {
        l->cut = true;
        return;
    }
    memcpy(l->bytes + l->len, p, n);
    l->len += n;
}

static void add_end(struct line *l, const char *z)
{
    size_t n = strlen(z);

    ASSERT(n <= LOG_LINE_MAX - l->len);
    memcpy(l->bytes + l->len, z, n);
    l->len += n;
}

/* Decodes one code point from the front of s; invalid bytes count as one U+FFFD each. Returns its length. */
static size_t code_point(struct str s, uint32_t *ret)
{
    size_t len = utf8_first(s, ret);

    if (len == 0)
        *ret = 0xfffd;
    return len ? len : 1;
}

/* May this character stand in a terminal or a log viewer as it is? */
static bool is_plain(uint32_t c)
{
    if (c < 0x20 || (c >= 0x7f && c <= 0x9f) || c == '"' || c == '\\')
        return false;
    if (c == 0x061c || (c >= 0x200b && c <= 0x200f) || (c >= 0x2028 && c <= 0x202e) || (c >= 0x2066 && c <= 0x2069))
        return false;
    return c != 0xfeff && c != 0xfffd;
}

static void add_escaped(struct line *l, uint32_t c)
{
    char text[8];
    int n;

    switch (c) {
    case '"':  add(l, "\\\"", 2); return;
    case '\\': add(l, "\\\\", 2); return;
    case '\n': add(l, "\\n", 2); return;
    case '\r': add(l, "\\r", 2); return;
    case '\t': add(l, "\\t", 2); return;
    default:
        ASSERT(c <= 0xffff);    /* is_plain() refuses nothing above */
        n = snprintf(text, sizeof(text), "\\u%04x", (unsigned)c);
        add(l, text, (size_t)n);
    }
}

static void add_quoted(struct line *l, struct str s)
{
    add(l, "\"", 1);
    l->quoted = !l->cut;
    while (s.len > 0 && !l->cut) {
        uint32_t c;
        size_t n = code_point(s, &c);

        if (is_plain(c))
            add(l, s.p, n);
        else
            add_escaped(l, c);
        s = str_from(s, n);
    }
    if (l->cut)
        return;                 /* line_end() closes the quote */
    add(l, "\"", 1);
    l->quoted = l->cut;
}

/* The key and what stands around it, as one piece: a key is never cut in two. */
static void add_key(struct line *l, const char *key)
{
    char text[128];
    int n = snprintf(text, sizeof(text), l->json ? "%s\"%s\":" : "%s%s=", l->len <= 1 ? "" : l->json ? "," : " ", key);

    ASSERT(n > 0 && (size_t)n < sizeof(text));
    add(l, text, (size_t)n);
}

static void add_field(struct line *l, const struct log_field *f)
{
    char digits[24];
    size_t before = l->len;

    add_key(l, f->key);
    switch (f->kind) {
    case LOG_STR:
        add_quoted(l, f->s);
        break;
    case LOG_INT:
        add(l, digits, (size_t)snprintf(digits, sizeof(digits), "%lld", (long long)f->i));
        break;
    case LOG_BOOL:
        add(l, f->i ? "true" : "false", f->i ? 4 : 5);
        break;
    case LOG_END:
        UNREACHABLE();
    }
    if (l->cut && !l->quoted)
        l->len = before;        /* a key without a value would be noise, and not JSON */
}

static void line_begin(struct line *l, enum log_level level)
{
    static const char *const names[] = { "debug", "info", "warn", "error" };
    char stamp[25];
    wall_ms_t now;

    if (log_wall_ms) {
        now = log_wall_ms();
    } else {
        struct timespec ts;

        clock_gettime(CLOCK_REALTIME, &ts);
        now = (wall_ms_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
    }
    wall_format(now, stamp);
    ASSERT((unsigned)level < ARRAY_LEN(names));
    l->json = atomic_load_explicit(&line_format, memory_order_relaxed) == LOG_FORMAT_JSON;
    if (l->json) {
        add(l, "{", 1);
        add_field(l, &LOG_S("ts", stamp));
        add_field(l, &LOG_S("level", names[level]));
    } else {
        add_key(l, "ts");
        add(l, stamp, strlen(stamp));
        add_key(l, "level");
        add(l, names[level], strlen(names[level]));
    }
}

static void line_end(struct line *l)
{
    if (l->quoted)
        add_end(l, "\"");
    if (l->cut)
        add_end(l, l->json ? ",\"cut\":true" : " cut=true");
    add_end(l, l->json ? "}\n" : "\n");
}

void log_write(enum log_level level, const char *msg, const struct log_field *fields)
{
    int saved = errno;
    struct line l;

    if ((int)level < atomic_load_explicit(&least_level, memory_order_relaxed))
        return;
    l.len = 0;
    l.quoted = l.cut = false;
    line_begin(&l, level);
    add_field(&l, &LOG_S("msg", msg));
    for (; fields->key && !l.cut; fields++)
        add_field(&l, fields);
    line_end(&l);
    while (write(STDERR_FILENO, l.bytes, l.len) < 0 && errno == EINTR)
        ;
    errno = saved;
}
