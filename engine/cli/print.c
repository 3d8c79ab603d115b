/* print.c -- escapes, then columns */
#include <stdlib.h>

#include "base/check.h"
#include "base/escape.h"
#include "cli/client.h"
#include "cli/print.h"

enum { CELL_MAX = 60 };

/* Writes at most `most` characters (or nothing: to is NULL); answers how many columns they take. */
static size_t print_escaped(FILE *to, struct str s, bool lines, size_t most)
{
    size_t columns = 0;

    while (s.len && columns < most) {
        char escape[16];
        uint32_t c = 0;
        size_t len = utf8_first(s, &c);
        bool plain = len && (!char_hides(c) || (lines && (c == '\n' || c == '\t')));

        if (plain)
            columns++;
        else if (len == 0)
            columns += (size_t)snprintf(escape, sizeof(escape), "\\x%02x", (unsigned char)s.p[0]);
        else
            columns += (size_t)snprintf(escape, sizeof(escape), c > 0xffff ? "\\u{%x}" : "\\u%04x", (unsigned)c);
        if (to && plain)
            fwrite(s.p, 1, len, to);
        else if (to)
            fputs(escape, to);
        s = str_from(s, len ? len : 1);
    }
    return columns;
}

void print_line(FILE *to, struct str s)
{
    print_escaped(to, s, false, SIZE_MAX);
}

void print_text(FILE *to, struct str s)
{
    print_escaped(to, s, true, SIZE_MAX);
}

/* ---- tables ------------------------------------------------------------------------------------------------------ */

void table_init(struct table *t, struct arena *a, unsigned columns)
{
    ASSERT(columns >= 1 && columns <= TABLE_COLUMNS);
    *t = (struct table){ .arena = a, .n_columns = columns };
}

void table_row(struct table *t, const struct str *cells)
{
    if (t->n_rows == TABLE_ROWS)
        return;
    if (t->n_rows == t->cap) {
        t->cap = t->cap ? t->cap * 2 : 32;
        t->rows = realloc(t->rows, t->cap * sizeof(*t->rows));
        ASSERT(t->rows != NULL);
    }
    memcpy(t->rows[t->n_rows++], cells, t->n_columns * sizeof(*cells));
}

void table_print(FILE *to, struct table *t)
{
    size_t widths[TABLE_COLUMNS] = { 0 };

    for (size_t r = 0; r < t->n_rows; r++) {
        for (unsigned c = 0; c + 1 < t->n_columns; c++) {
            size_t n = print_escaped(NULL, t->rows[r][c], false, CELL_MAX);

            widths[c] = n > widths[c] ? n : widths[c];
        }
    }
    for (size_t r = 0; r < t->n_rows; r++) {
        for (unsigned c = 0; c + 1 < t->n_columns; c++) {
            size_t n = print_escaped(to, t->rows[r][c], false, CELL_MAX);

            fprintf(to, "%*s", (int)(widths[c] - n + 2), "");
        }
        print_escaped(to, t->rows[r][t->n_columns - 1], false, SIZE_MAX);
        fputc('\n', to);
    }
    free(t->rows);
    t->rows = NULL;
}

/* ---- JSON -------------------------------------------------------------------------------------------------------- */

static struct str cell_of(struct arena *a, const struct json *j)
{
    struct buf b = BUF_INIT(1 << 20);
    struct str ret = json_str(j);

    if (json_is(j, JSON_STRING) || !j)
        return ret;
    json_write(&b, j);
    ret = arena_str(a, buf_str(&b));
    buf_release(&b);
    return ret;
}

/* All the same keys, few of them, in objects: columns. */
static bool is_table(const struct json *list)
{
    const struct json *first = json_first(list);

    if (!json_is(list, JSON_ARRAY) || !json_len(first) || !json_is(first, JSON_OBJECT) ||
        json_len(first) > TABLE_COLUMNS)
        return false;
    for (const struct json *row = first; row; row = json_next(row)) {
        if (!json_is(row, JSON_OBJECT) || json_len(row) != json_len(first))
            return false;
        for (const struct json *m = json_first(first); m; m = json_next(m))
            if (!json_get_str(row, json_key(m)))
                return false;
    }
    return true;
}

static void print_list(FILE *to, const struct json *list)
{
    struct str cells[TABLE_COLUMNS];
    struct arena a;
    struct table t;
    unsigned n = 0;

    arena_init(&a, 64 << 20);
    table_init(&t, &a, (unsigned)json_len(json_first(list)));
    for (const struct json *m = json_first(json_first(list)); m; m = json_next(m))
        cells[n++] = json_key(m);
    table_row(&t, cells);
    for (const struct json *row = json_first(list); row; row = json_next(row)) {
        n = 0;
        for (const struct json *m = json_first(json_first(list)); m; m = json_next(m))
            cells[n++] = cell_of(&a, json_get_str(row, json_key(m)));
        table_row(&t, cells);
    }
    table_print(to, &t);
    arena_release(&a);
}

static void print_any(FILE *to, const struct json *j)
{
    struct buf b = BUF_INIT(64 << 20);

    json_write_pretty(&b, j);
    print_text(to, buf_str(&b));
    fputc('\n', to);
    buf_release(&b);
}

void print_json(FILE *to, const struct json *j)
{
    if (is_table(j)) {
        print_list(to, j);
        return;
    }
    if (!json_is(j, JSON_OBJECT)) {
        print_any(to, j);
        return;
    }
    for (const struct json *m = json_first(j); m; m = json_next(m)) {
        bool nested = json_len(m) > 0;

        print_line(to, json_key(m));
        fputs(nested ? ":\n" : ": ", to);
        if (is_table(m))
            print_list(to, m);
        else if (json_is(m, JSON_STRING))
            print_text(to, json_str(m));
        else
            print_any(to, m);
        if (json_is(m, JSON_STRING))
            fputc('\n', to);
    }
}

/* What hides stands within strings: JSON has no such character elsewhere. */
void print_compact(FILE *to, const struct json *j)
{
    struct buf b = BUF_INIT(2 * CLIENT_REPLY_MAX);
    struct str s;

    json_write(&b, j);
    for (s = buf_str(&b); s.len; ) {
        uint32_t c = 0;
        size_t len = utf8_first(s, &c);

        if (!char_hides(c))
            fwrite(s.p, 1, len, to);
        else if (c <= 0xffff)
            fprintf(to, "\\u%04x", (unsigned)c);
        else
            fprintf(to, "\\u%04x\\u%04x", 0xd7c0 + (unsigned)(c >> 10), 0xdc00 + (unsigned)(c & 0x3ff));
        s = str_from(s, len);
    }
    fputc('\n', to);
    buf_release(&b);
}
