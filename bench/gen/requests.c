/* requests.c -- see requests.h */
#include <stdio.h>
#include <stdlib.h>

#include "bench/gen/requests.h"
#include "json/json.h"

struct piece {
    struct piece *next;
    enum { PIECE_TEXT, PIECE_NUMBER, PIECE_CHANCE } kind;
    struct str text;
    uint64_t below;
};

static const char *reading;
static size_t line_number;

static void wrong(const char *what)
{
    die("%s, line %zu: %s", reading, line_number, what);
}

/* ---- {{...}} ----------------------------------------------------------------------------------------------------- */

static struct piece *add_piece(struct arena *a, struct piece ***tail, struct piece p)
{
    struct piece *made = need(ARENA_NEW(a, struct piece));

    *made = p;
    **tail = made;
    *tail = &made->next;
    return made;
}

static struct piece *cut(struct arena *a, struct str text)
{
    struct piece *first = NULL, **tail = &first;

    while (text.len) {
        const char *open = memmem(text.p, text.len, "{{", 2);
        size_t before = open ? (size_t)(open - text.p) : text.len;
        struct str rest = str_from(text, before), name;
        struct piece p = { .kind = PIECE_TEXT, .text = str_n(text.p, before) };

        if (before)
            add_piece(a, &tail, p);
        if (!open)
            break;
        if (!str_cut(str_from(rest, 2), '}', &name, &text) || text.len == 0 || text.p[0] != '}') {
            /* JSON is full of braces: what is not closed by two is text */
            add_piece(a, &tail, (struct piece){ .kind = PIECE_TEXT, .text = str_n(rest.p, 2) });
            text = str_from(rest, 2);
            continue;
        }
        text = str_from(text, 1);
        p.kind = PIECE_NUMBER;
        if (str_starts(name, STR("r:"))) {
            p.kind = PIECE_CHANCE;
            if (!str_to_u64(str_from(name, 2), &p.below) || p.below == 0)
                wrong("{{r:K}} needs a K above 0");
        } else if (!str_is(name, "n")) {
            p = (struct piece){ .kind = PIECE_TEXT, .text = str_n(rest.p, name.len + 4) };
        }
        add_piece(a, &tail, p);
    }
    return first;
}

static bool is_fixed(const struct piece *p)
{
    for (; p; p = p->next)
        if (p->kind != PIECE_TEXT)
            return false;
    return true;
}

static void write_pieces(const struct piece *p, uint64_t n, struct chance *chance, struct buf *out)
{
    for (; p; p = p->next) {
        if (p->kind == PIECE_TEXT)
            buf_add_str(out, p->text);
        else
            buf_add_u64(out, p->kind == PIECE_NUMBER ? n : chance_below(chance, p->below));
    }
}

void request_write(const struct request *q, uint64_t n, struct chance *chance, struct buf *out)
{
    char length[64];
    size_t at, body_at, len;

    write_pieces(q->head, n, chance, out);
    if (q->fixed)
        return;
    /* how long the body is shows when it is written: room for saying so is kept before it, and closed up */
    at = out->len;
    buf_add(out, length, sizeof(length));
    body_at = out->len;
    write_pieces(q->body, n, chance, out);
    len = (size_t)snprintf(length, sizeof(length), "Content-Length: %zu\r\n\r\n", out->len - body_at);
    memcpy(out->p + at, length, len);
    memmove(out->p + at + len, out->p + body_at, out->len - body_at);
    out->len -= sizeof(length) - len;
}

/* ---- groups ------------------------------------------------------------------------------------------------------ */

static uint32_t *slot_of(struct requests *r, struct str name)
{
    uint64_t h = 14695981039346656037ull;

    for (size_t i = 0; i < name.len; i++)
        h = (h ^ (uint8_t)name.p[i]) * 1099511628211ull;
    for (uint32_t at = (uint32_t)(h ^ h >> 32) & (r->slots - 1);; at = (at + 1) & (r->slots - 1))
        if (r->group_slot[at] == 0 || str_eq(r->group[r->group_slot[at] - 1], name))
            return &r->group_slot[at];
}

static void grow_groups(struct requests *r)
{
    r->slots = r->slots ? r->slots * 2 : 64;
    free(r->group_slot);
    r->group_slot = need(calloc(r->slots, sizeof(*r->group_slot)));
    r->group = need(realloc(r->group, r->slots * sizeof(*r->group)));
    for (uint32_t i = 0; i < r->groups; i++)
        *slot_of(r, r->group[i]) = i + 1;
}

static uint32_t group_of(struct requests *r, struct str name)
{
    uint32_t *slot;

    if (r->groups * 2 >= r->slots)
        grow_groups(r);
    slot = slot_of(r, name);
    if (*slot == 0) {
        r->group[r->groups] = arena_str(&r->arena, name);
        *slot = ++r->groups;
    }
    return *slot - 1;
}

/* ---- the file ---------------------------------------------------------------------------------------------------- */

static struct str text_or(const struct json *j, const char *key, const char *otherwise)
{
    struct json *v = json_get(j, key);

    if (v && !json_is(v, JSON_STRING))
        wrong("method, path, body and group are strings");
    return v ? json_str(v) : str_of(otherwise);
}

static void add_head(struct buf *b, const struct json *j, const char *host, const char *path)
{
    struct str method = text_or(j, "method", "POST"), where = text_or(j, "path", path);

    buf_add_str(b, method);
    buf_add_c(b, ' ');
    buf_add_str(b, where);
    buf_add_z(b, " HTTP/1.1\r\nHost: ");
    buf_add_z(b, host);
    buf_add_z(b, "\r\n");
    for (const struct json *h = json_first(json_get(j, "headers")); h; h = json_next(h)) {
        if (!json_is(h, JSON_STRING))
            wrong("headers are strings");
        buf_add_str(b, json_key(h));
        buf_add_z(b, ": ");
        buf_add_str(b, json_str(h));
        buf_add_z(b, "\r\n");
    }
}

static void add_request(struct requests *r, const struct json *j, const char *host, const char *path)
{
    struct buf head = BUF_INIT(16 << 20);
    struct str body = text_or(j, "body", ""), kept;
    struct request q = { .group = group_of(r, text_or(j, "group", "")) };
    double weight = 1;

    if (json_get(j, "weight") && (!json_double(json_get(j, "weight"), &weight) || weight < 0))
        wrong("weight is a number that is not negative");
    add_head(&head, j, host, path);
    kept = arena_str(&r->arena, body);
    q.body = cut(&r->arena, kept);
    q.fixed = is_fixed(q.body);
    if (q.fixed) {
        buf_addf(&head, "Content-Length: %zu\r\n\r\n", body.len);
        buf_add_str(&head, body);
    }
    q.head = cut(&r->arena, arena_str(&r->arena, buf_str(&head)));
    if (head.overflow || arena_overflowed(&r->arena))
        wrong("the requests do not fit into memory");
    buf_release(&head);
    q.until = (r->n ? r->all[r->n - 1].until : 0) + weight;
    if (r->n == r->room) {
        r->room = r->room ? r->room * 2 : 1024;
        r->all = need(realloc(r->all, r->room * sizeof(*r->all)));
    }
    r->all[r->n++] = q;
}

void requests_load(struct requests *r, const char *file, const char *host, const char *path)
{
    FILE *f = fopen(file, "re");
    struct json_error where;
    struct arena scratch;
    struct json *j;
    char *line = NULL;
    size_t room = 0;
    ssize_t n;

    if (!f)
        die_errno("%s", file);
    *r = (struct requests){ 0 };
    arena_init(&r->arena, (size_t)16 << 30);
    arena_init(&scratch, 64 << 20);
    group_of(r, STR(""));
    reading = file;
    for (line_number = 1; (n = getline(&line, &room, f)) >= 0; line_number++) {
        if (str_trim(str_n(line, (size_t)n)).len <= 1)
            continue;
        if (json_parse(&scratch, str_n(line, (size_t)n), NULL, &j, &where) != OK || !json_is(j, JSON_OBJECT))
            wrong("not a JSON object");
        add_request(r, j, host, path);
        arena_clear(&scratch);
    }
    arena_release(&scratch);
    free(line);
    fclose(f);
    if (r->n == 0)
        die("%s: no requests in it", file);
    if (r->all[r->n - 1].until <= 0)
        die("%s: no request has a weight", file);
}

void requests_release(struct requests *r)
{
    arena_release(&r->arena);
    free(r->all);
    free(r->group);
    free(r->group_slot);
}

const struct request *requests_choose(const struct requests *r, struct chance *chance)
{
    double at = chance_unit(chance) * r->all[r->n - 1].until;
    size_t low = 0, high = r->n - 1;

    while (low < high) {
        size_t middle = (low + high) / 2;

        if (r->all[middle].until >= at)
            high = middle;
        else
            low = middle + 1;
    }
    return &r->all[low];
}
