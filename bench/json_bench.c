/*
 * json_bench.c -- CPU per message of engine/json against jansson, on messages as MCP servers see them (300 B to 4 KB)
 *
 *   json_bench [--check]
 *
 * Per message and subject: "read" is parse + look at what a server looks at + forget; "write" is compact text of a
 * tree. Both subjects read the same sums and write texts that are equal as JSON (checked first).  Rounds are
 * interleaved (ours, jansson, ours, ...), times are process CPU, the median of the rounds counts.  --check: exit 1
 * unless jansson needs at least RATIO_MIN times our CPU for reading and for writing, over all messages.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/check.h"
#include "json/json.h"
#include "json_bench.h"

enum { ROUNDS = 9 };
#define ROUND_NS 6e6
#define RATIO_MIN 3.0

struct message {
    const char *name;
    char *text;
    size_t len;
};

/* --- our subject -------------------------------------------------------------------------------------------- */

static struct arena arena, kept_arena;
static struct json *kept;
static struct buf out = BUF_INIT(1 << 20);

static uint64_t walk(const struct json *j)
{
    uint64_t sum = 0;
    int64_t v;
    bool b;

    switch (json_type(j)) {
    case JSON_OBJECT:
    case JSON_ARRAY:
        for (struct json *m = json_first(j); m; m = json_next(m))
            sum += json_key(m).len + walk(m);
        return sum;
    case JSON_STRING:
        return json_str(j).len;
    case JSON_INT:
        return json_int(j, &v) ? (uint64_t)v : 0;
    case JSON_BOOL:
        return json_bool(j, &b) && b;
    default:
        return 0;
    }
}

static uint64_t ours_read(const char *text, size_t len)
{
    struct json *j, *params;
    int64_t id = 0;
    uint64_t sum;

    arena_clear(&arena);
    if (json_parse(&arena, str_n(text, len), NULL, &j, NULL) != OK)
        return 0;
    params = json_get(j, "params");
    json_int(json_get(j, "id"), &id);
    sum = json_str(json_get(j, "jsonrpc")).len + (uint64_t)id + json_str(json_get(j, "method")).len +
        json_str(json_get(params, "name")).len;
    return sum + walk(json_get(params, "arguments")) + walk(json_get(j, "result"));
}

static int ours_keep(const char *text, size_t len)
{
    arena_clear(&kept_arena);
    return json_parse(&kept_arena, str_n(text, len), NULL, &kept, NULL) == OK;
}

static size_t ours_write(const char **ret_text)
{
    buf_clear(&out);
    json_write(&out, kept);
    *ret_text = out.p;
    return out.len;
}

static const struct subject ours_subject = { "sluice", ours_read, ours_keep, ours_write };
static const struct subject *const subjects[2] = { &ours_subject, &jansson_subject };

/* --- the messages ------------------------------------------------------------------------------------------- */

static struct message message(const char *name, struct buf *b)
{
    struct message m = { .name = name };

    ASSERT(!b->overflow);
    m.text = buf_take(b, &m.len);
    return m;
}

static struct message call_small(void)
{
    struct buf b = BUF_INIT(1 << 16);

    buf_add_z(&b, "{\"jsonrpc\":\"2.0\",\"id\":417,\"method\":\"tools/call\","
        "\"params\":{\"name\":\"outlook.book_meeting\","
        "\"arguments\":{\"attendees\":[\"ana@contoso.example\",\"li.wei@contoso.example\"],\"minutes\":30,"
        "\"subject\":\"Quarterly numbers\"},\"_meta\":{\"progressToken\":\"p-417\","
        "\"io.modelcontextprotocol/protocolVersion\":\"2026-07-28\"}}}");
    return message("tools/call, book a meeting", &b);
}

static struct message call_mail(void)
{
    struct buf b = BUF_INIT(1 << 16);

    buf_add_z(&b, "{\"jsonrpc\":\"2.0\",\"id\":\"c1f0-22\",\"method\":\"tools/call\","
        "\"params\":{\"name\":\"outlook.send_mail\","
        "\"arguments\":{\"to\":[\"j\xc3\xbcrgen@example.org\"],\"cc\":[],\"importance\":\"normal\",\"save\":true,"
        "\"subject\":\"Angebot f\xc3\xbcr M\xc3\xa4rz \xe2\x80\x93 \xe5\x86\x85\xe9\x83\xa8\",\"body\":\"");
    for (int i = 0; i < 9; i++)
        buf_add_z(&b, "Hello J\xc3\xbcrgen,\\n\\nplease find below the numbers for the \\\"north\\\" region. They are "
            "preliminary; the final ones follow on Friday.\\n");
    buf_add_z(&b, "\"},\"_meta\":{\"progressToken\":7}}}");
    return message("tools/call, a mail with text", &b);
}

static struct message result_events(void)
{
    struct buf b = BUF_INIT(1 << 16);

    buf_add_z(&b, "{\"jsonrpc\":\"2.0\",\"id\":9,\"result\":{\"isError\":false,\"content\":[],"
        "\"structuredContent\":{\"events\":[");
    for (int i = 0; i < 8; i++)
        buf_addf(&b, "%s{\"event_id\":\"AAMkAGI2TG%04dAAA=\",\"starts_at\":\"2026-03-%02dT09:30:00.000Z\","
            "\"minutes\":%d,\"score\":0.%d5,\"online\":%s,\"room\":%s,\"attendees\":%d}",
            i ? "," : "", i * 77, i + 3, 15 * (i + 1), i + 1, i % 2 ? "true" : "false",
            i % 3 ? "null" : "\"Building 4\"", i + 2);
    buf_add_z(&b, "],\"next_cursor\":\"eyJvZmZzZXQiOjh9\",\"total\":112}}}");
    return message("result, structured events", &b);
}

static struct message result_text(void)
{
    struct buf b = BUF_INIT(1 << 16);

    buf_add_z(&b, "{\"jsonrpc\":\"2.0\",\"id\":10,\"result\":{\"content\":[{\"type\":\"text\",\"text\":\"[");
    for (int i = 0; i < 14; i++)
        buf_addf(&b, "%s{\\\"id\\\":\\\"AAMk%05d\\\",\\\"from\\\":\\\"person%d@example.org\\\","
            "\\\"subject\\\":\\\"Re: the plan for week %d\\\",\\\"received\\\":\\\"2026-02-%02dT11:0%d:00Z\\\","
            "\\\"unread\\\":true}", i ? "," : "", i * 7919, i, i + 2, i + 1, i % 10);
    buf_add_z(&b, "]\"}],\"isError\":false}}");
    return message("result, JSON inside text", &b);
}

static struct message result_tools(void)
{
    struct buf b = BUF_INIT(1 << 16);

    buf_add_z(&b, "{\"jsonrpc\":\"2.0\",\"id\":2,\"result\":{\"tools\":[");
    for (int i = 0; i < 6; i++)
        buf_addf(&b, "%s{\"name\":\"github.tool_%d\",\"title\":\"Tool %d\","
            "\"description\":\"Creates an issue with labels that are found by name, and assigns it.\","
            "\"inputSchema\":{\"type\":\"object\",\"properties\":{"
            "\"repository\":{\"type\":\"string\",\"minLength\":3,\"maxLength\":140,\"description\":\"owner/name\"},"
            "\"title\":{\"type\":\"string\",\"minLength\":1,\"maxLength\":255},"
            "\"labels\":{\"type\":\"array\",\"items\":{\"type\":\"string\"},\"maxItems\":20}},"
            "\"required\":[\"repository\",\"title\"],\"additionalProperties\":false},"
            "\"annotations\":{\"readOnlyHint\":false,"
            "\"destructiveHint\":false,\"idempotentHint\":true}}", i ? "," : "", i, i);
    buf_add_z(&b, "]}}");
    return message("result, tools/list", &b);
}

/* As some clients send it: indented. */
static struct message call_pretty(void)
{
    struct message compact = result_events();
    struct buf b = BUF_INIT(1 << 16);
    struct json *j;
    enum err e = json_parse(&arena, str_n(compact.text, compact.len), NULL, &j, NULL);

    ASSERT(e == OK);
    json_write_pretty(&b, j);
    free(compact.text);
    return message("the same, indented", &b);
}

/* --- measuring ---------------------------------------------------------------------------------------------- */

static double cpu_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static volatile uint64_t sink;

static double run(const struct subject *s, const struct message *m, bool write, size_t times)
{
    const char *text;
    double start = cpu_ns();

    for (size_t i = 0; i < times; i++)
        sink += write ? s->write(&text) : s->read(m->text, m->len);
    return (cpu_ns() - start) / (double)times;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

/* ret[0] ours, ret[1] jansson: nanoseconds per message. */
static void measure(const struct message *m, bool write, double ret[2])
{
    double ns[2][ROUNDS];
    size_t times[2];

    for (int s = 0; s < 2; s++) {
        double once = run(subjects[s], m, write, 200);

        times[s] = (size_t)(ROUND_NS / (once > 1 ? once : 1)) + 1;
    }
    for (int r = 0; r < ROUNDS; r++)
        for (int s = 0; s < 2; s++)
            ns[s][r] = run(subjects[s], m, write, times[s]);
    for (int s = 0; s < 2; s++) {
        qsort(ns[s], ROUNDS, sizeof(ns[s][0]), by_value);
        ret[s] = ns[s][ROUNDS / 2];
    }
}

static bool same_work(const struct message *m)
{
    struct json *a, *b, *given;
    const char *text[2];
    size_t len[2];

    if (ours_subject.read(m->text, m->len) != jansson_subject.read(m->text, m->len))
        return false;
    for (int s = 0; s < 2; s++) {
        if (!subjects[s]->keep(m->text, m->len))
            return false;
        len[s] = subjects[s]->write(&text[s]);
    }
    arena_clear(&arena);
    return json_parse(&arena, str_n(text[0], len[0]), NULL, &a, NULL) == OK &&
        json_parse(&arena, str_n(text[1], len[1]), NULL, &b, NULL) == OK &&
        json_parse(&arena, str_n(m->text, m->len), NULL, &given, NULL) == OK &&
        json_equal(a, given) && json_equal(b, given);
}

int main(int argc, char **argv)
{
    bool check = argc > 1 && strcmp(argv[1], "--check") == 0;
    double sum[2][2] = { { 0 } }, ns[2];
    bool enough = true;

    arena_init(&arena, 16 << 20);
    arena_init(&kept_arena, 16 << 20);
    struct message messages[] = { call_small(), call_mail(), result_events(), call_pretty(), result_text(),
        result_tools() };

    printf("%-30s %6s %6s %10s %10s %7s\n", "message", "bytes", "", "sluice ns", "jansson ns", "ratio");
    for (size_t i = 0; i < ARRAY_LEN(messages); i++) {
        if (!same_work(&messages[i])) {
            fprintf(stderr, "json_bench: the two do not agree on \"%s\"\n", messages[i].name);
            return 2;
        }
        for (int write = 0; write < 2; write++) {
            measure(&messages[i], write, ns);
            printf("%-30s %6zu %6s %10.0f %10.0f %7.1f\n", messages[i].name, messages[i].len,
                write ? "write" : "read", ns[0], ns[1], ns[1] / ns[0]);
            sum[write][0] += ns[0];
            sum[write][1] += ns[1];
        }
    }
    for (int write = 0; write < 2; write++) {
        double ratio = sum[write][1] / sum[write][0];

        printf("%-30s %6s %6s %10.0f %10.0f %7.1f\n", "all", "", write ? "write" : "read", sum[write][0],
            sum[write][1], ratio);
        enough = enough && ratio >= RATIO_MIN;
    }
    for (size_t i = 0; i < ARRAY_LEN(messages); i++)
        free(messages[i].text);
    arena_release(&arena);
    arena_release(&kept_arena);
    buf_release(&out);
    if (check && !enough)
        printf("less than %.1f times: our own parser is not justified\n", RATIO_MIN);
    return check && !enough;
}
