/* cli_test.c -- the parts of the command line that touch nothing: options, arguments, events, lines, mirrored fields */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/check.h"
#include "cli/args.h"
#include "cli/bridge.h"
#include "cli/cli.h"
#include "cli/demo.h"
#include "cli/headless.h"
#include "cli/mirror.h"
#include "cli/print.h"
#include "cli/sse.h"

/* last: it has a macro fail() */
#include <cmocka.h>

static struct arena arena;

static int setup(void **state)
{
    (void)state;
    arena_init(&arena, 16 << 20);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    arena_release(&arena);
    return 0;
}

static struct json *parse(const char *text)
{
    struct json_error where;
    struct json *j = NULL;

    assert_int_equal(json_parse(&arena, str_of(text), NULL, &j, &where), OK);
    return j;
}

static void assert_json(const struct json *j, const char *text)
{
    struct buf b = BUF_INIT(1 << 20);

    json_write(&b, j);
    buf_add_c(&b, '\0');
    assert_string_equal(b.p, text);
    buf_release(&b);
}

static void assert_str(struct str s, const char *z)
{
    assert_string_equal(arena_z(&arena, s), z);
}

/* ---- options -------------------------------------------------------------------------------------------------------
 */

static int no_run(int argc, char **argv)
{
    (void)argc;
    (void)argv;
    return 0;
}

static const struct verb verb_x = { "x", "for tests", "help of x\n", no_run };

struct parsed {
    const char *name, *n, *list[2];
    bool flag;
    size_t n_list;
    char *words[2];
    int n_words, rc;
};

/* line: blank-separated, at most 15 words; must stay. */
static struct parsed read_options(char *line)
{
    static struct parsed p;
    const struct option_spec specs[] = {
        { .name = "name", .value = &p.name },
        { .name = "n", .value = &p.n },
        { .name = "flag", .flag = &p.flag },
        { .name = "list", .list = p.list, .n_list = &p.n_list, .max_list = 2 },
        { 0 },
    };
    char *argv[16] = { (char *)"x" }, *rest = NULL;
    int argc = 1;

    p = (struct parsed){ 0 };
    for (char *w = strtok_r(line, " ", &rest); w; w = strtok_r(NULL, " ", &rest))
        argv[argc++] = w;
    p.rc = options_read(&verb_x, argc, argv, specs, p.words, 2, &p.n_words);
    return p;
}

static void options_are_read(void **state)
{
    char all[] = "--name a one --flag -n 7 --list=x --list y two", last[] = "--name a --name=b",
         words[] = "-- --name -n", dash[] = "- --name=", equals[] = "--name=a=b";
    struct parsed p = read_options(all);

    (void)state;
    assert_int_equal(p.rc, 0);
    assert_string_equal(p.name, "a");
    assert_string_equal(p.n, "7");
    assert_true(p.flag);
    assert_int_equal(p.n_list, 2);
    assert_string_equal(p.list[1], "y");
    assert_int_equal(p.n_words, 2);
    assert_string_equal(p.words[1], "two");
    assert_string_equal(read_options(last).name, "b");
    p = read_options(words);
    assert_int_equal(p.n_words, 2);
    assert_string_equal(p.words[0], "--name");
    p = read_options(dash);
    assert_string_equal(p.words[0], "-");
    assert_string_equal(p.name, "");
    assert_string_equal(read_options(equals).name, "a=b");
}

static void options_are_refused(void **state)
{
    char unknown[] = "--nothing", letter[] = "-x", none[] = "--name", flag[] = "--flag=1", many[] = "a b c",
         lists[] = "--list a --list b --list c", short_long[] = "--n 3", long_short[] = "-name 3",
         helped[] = "--nothing2 --help", help[] = "a --help --nothing";

    (void)state;
    assert_int_equal(read_options(unknown).rc, 2);
    assert_int_equal(read_options(letter).rc, 2);
    assert_int_equal(read_options(none).rc, 2);
    assert_int_equal(read_options(flag).rc, 2);
    assert_int_equal(read_options(many).rc, 2);
    assert_int_equal(read_options(lists).rc, 2);
    assert_int_equal(read_options(short_long).rc, 2);
    assert_int_equal(read_options(long_short).rc, 2);
    assert_int_equal(read_options(helped).rc, 2);
    assert_int_equal(read_options(help).rc, -1);
}

static void numbers_are_bounded(void **state)
{
    int64_t n = 5;

    (void)state;
    assert_int_equal(option_number(&verb_x, "--n", NULL, 1, 10, &n), 0);
    assert_int_equal(n, 5);
    assert_int_equal(option_number(&verb_x, "--n", "10", 1, 10, &n), 0);
    assert_int_equal(n, 10);
    assert_int_equal(option_number(&verb_x, "--n", "11", 1, 10, &n), 2);
    assert_int_equal(option_number(&verb_x, "--n", "0", 1, 10, &n), 2);
    assert_int_equal(option_number(&verb_x, "--n", "-1", 0, 10, &n), 2);
    assert_int_equal(option_number(&verb_x, "--n", "1x", 0, 10, &n), 2);
    assert_int_equal(n, 10);
}

static void every_verb_teaches(void **state)
{
    (void)state;
    for (const struct verb *const *v = cli_verbs; *v; v++) {
        assert_non_null((*v)->run);
        assert_true(strncmp((*v)->help, "Usage: sluice ", 14) == 0);
        assert_non_null(strstr((*v)->help, (*v)->name));
        assert_true(strlen((*v)->summary) < 70);
        assert_int_equal((*v)->help[strlen((*v)->help) - 1], '\n');
        for (const struct verb *const *w = cli_verbs; w < v; w++)
            assert_string_not_equal((*v)->name, (*w)->name);
    }
}

/* ---- arguments -----------------------------------------------------------------------------------------------------
 */

#define SCHEMA                                                                                                         \
    "{\"type\":\"object\",\"properties\":{\"n\":{\"type\":\"integer\"},\"x\":{\"type\":\"number\"},\"b\":{\"type\":"   \
    "\"boolean\"},"                                                                                                    \
    "\"s\":{\"type\":\"string\"},\"o\":{\"type\":\"object\"},\"maybe\":{\"type\":[\"null\",\"string\"]},"              \
    "\"l\":{\"type\":\"array\",\"items\":{\"type\":\"string\"}},\"li\":{\"type\":\"array\",\"items\":{\"type\":"       \
    "\"integer\"}},"                                                                                                   \
    "\"any\":{}}}"

static enum err add_all(struct json *args, const struct json *schema, const char *const *pairs)
{
    struct errinfo info = { "" };

    for (; *pairs; pairs++) {
        enum err e = args_add(&arena, args, schema, *pairs, &info);

        assert_true(e == OK || (e == E_ARGS_INVALID && info.text[0]));
        if (e)
            return e;
    }
    return OK;
}

static void arguments_take_their_types(void **state)
{
    const char *const pairs[] = { "n=7", "x=1.50", "b=false", "s=12",  "o={\"a\":1}", "maybe=null",
                                  "l=1", "l=two",  "li=3",    "any=4", NULL };
    const char *const odd[] = { "s=a=b", "l=", NULL };
    struct json *args = json_object(&arena), *args2 = json_object(&arena), *schema = parse(SCHEMA);

    (void)state;
    assert_int_equal(add_all(args, schema, pairs), OK);
    assert_json(args, "{\"n\":7,\"x\":1.50,\"b\":false,\"s\":\"12\",\"o\":{\"a\":1},\"maybe\":\"null\",\"l\":[\"1\","
                      "\"two\"],\"li\":[3],\"any\":4}");
    assert_int_equal(add_all(args2, schema, odd), OK);
    assert_json(args2, "{\"s\":\"a=b\",\"l\":[\"\"]}");
}

static void arguments_are_refused(void **state)
{
    static const char *const wrong[] = {
        "n=x",  "n=1.5", "n=",   "n=\"1\"", "x=abc",   "b=yes", "b=1",
        "o=[]", "o=",    "li=a", "nope=1",  "novalue", "=1",    "n=99999999999999999999"
    };
    struct json *schema = parse(SCHEMA);
    const char *const twice[] = { "n=1", "n=2", NULL };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(wrong); i++)
        assert_int_equal(add_all(json_object(&arena), schema, (const char *const[]){ wrong[i], NULL }), E_ARGS_INVALID);
    assert_int_equal(add_all(json_object(&arena), schema, twice), E_ARGS_INVALID);
}

static void arguments_without_schema_are_guessed(void **state)
{
    const char *const pairs[] = { "n=7", "b=true", "s=hello", "f=1.5", "q=\"x\"", "l=1", "l=b", "l=c", NULL };
    struct json *args = json_object(&arena);

    (void)state;
    assert_int_equal(add_all(args, NULL, pairs), OK);
    assert_json(args, "{\"n\":7,\"b\":true,\"s\":\"hello\",\"f\":\"1.5\",\"q\":\"\\\"x\\\"\",\"l\":[1,\"b\",\"c\"]}");
    assert_str(schema_type_text(&arena, json_get(json_get(parse(SCHEMA), "properties"), "li")), "list of integer");
    assert_str(schema_type_text(&arena, json_get(json_get(parse(SCHEMA), "properties"), "any")), "any");
}

/* ---- events --------------------------------------------------------------------------------------------------------
 */

struct heard {
    char text[512];
    int stop_after;
};

static bool hear(struct str data, void *arg)
{
    struct heard *h = arg;
    size_t n = strlen(h->text);

    snprintf(h->text + n, sizeof(h->text) - n, "<%.*s>", STR_ARG(data));
    return --h->stop_after != 0;
}

/* The same bytes, whole and one by one, must say the same. */
static void assert_events(const char *bytes, const char *expected)
{
    for (size_t piece = 1; piece < 100; piece += 33) {
        struct heard h = { "", -1 };
        struct sse s;

        sse_init(&s);
        for (size_t at = 0; at < strlen(bytes); at += piece)
            assert_true(
                sse_feed(&s, str_n(bytes + at, strlen(bytes) - at < piece ? strlen(bytes) - at : piece), hear, &h));
        sse_release(&s);
        assert_string_equal(h.text, expected);
    }
}

static void events_are_read(void **state)
{
    (void)state;
    assert_events("data: one\n\n", "<one>");
    assert_events("event: message\r\nid: 7\r\ndata: {\"a\":1}\r\n\r\ndata:two\r\n\r\n", "<{\"a\":1}><two>");
    assert_events("data: a\rdata: b\r\rdata: c\r\r", "<a\nb><c>");
    assert_events(":\n\n: keep-alive\n\nretry: 5\n\ndata\n\n", "<>");
    assert_events("id: 1\ndata:\n\ndata:  x\n\ndata: cut", "<>< x>");
    assert_events("\xef\xbb\xbf" "data: a\n\ndatax: b\n\n data: c\n\n", "<a>");
}

static void events_stop_when_told(void **state)
{
    struct heard h = { "", 1 };
    struct sse s;

    (void)state;
    sse_init(&s);
    assert_false(sse_feed(&s, STR("data: a\n\ndata: b\n\n"), hear, &h));
    sse_release(&s);
    assert_string_equal(h.text, "<a>");
}

/* ---- lines of stdio ------------------------------------------------------------------------------------------------
 */

static void lines_are_cut(void **state)
{
    struct buf in = BUF_INIT(1000);
    struct str line;
    size_t at = 0;

    (void)state;
    assert_false(bridge_line(&in, &at, &line));
    buf_add_z(&in, "{\"a\":1}\r\n\n{\"b\"");
    assert_true(bridge_line(&in, &at, &line));
    assert_str(line, "{\"a\":1}");
    assert_true(bridge_line(&in, &at, &line));
    assert_int_equal(line.len, 0);
    assert_false(bridge_line(&in, &at, &line));
    buf_drop_front(&in, at);
    at = 0;
    buf_add_z(&in, ":2}\n");
    assert_true(bridge_line(&in, &at, &line));
    assert_str(line, "{\"b\":2}");
    buf_release(&in);
}

#define MODERN_META "\"_meta\":{\"io.modelcontextprotocol/protocolVersion\":\"2026-07-28\"}"

static void messages_are_told_apart(void **state)
{
    (void)state;
    assert_int_equal(bridge_kind(parse("{\"id\":1,\"method\":\"ping\"}")), BRIDGE_REQUEST);
    assert_int_equal(bridge_kind(parse("{\"method\":\"notifications/x\"}")), BRIDGE_NOTIFICATION);
    assert_int_equal(bridge_kind(parse("{\"id\":1,\"result\":{}}")), BRIDGE_RESPONSE);
    assert_int_equal(bridge_kind(parse("{\"id\":1,\"error\":{}}")), BRIDGE_RESPONSE);
    assert_int_equal(bridge_kind(parse("{\"id\":1}")), BRIDGE_OTHER);
    assert_int_equal(bridge_kind(parse("[]")), BRIDGE_OTHER);
    assert_int_equal(bridge_kind(NULL), BRIDGE_OTHER);
    assert_true(bridge_modern(parse("{\"method\":\"tools/list\",\"params\":{" MODERN_META "}}")));
    assert_false(bridge_modern(parse("{\"method\":\"tools/list\",\"params\":{\"_meta\":{}}}")));
    assert_true(bridge_waits(parse("{\"id\":1,\"method\":\"initialize\"}")));
    assert_true(bridge_waits(parse("{\"method\":\"notifications/initialized\"}")));
    assert_false(bridge_waits(parse("{\"method\":\"notifications/cancelled\"}")));
    assert_false(bridge_waits(parse("{\"id\":1,\"method\":\"tools/call\"}")));
    assert_false(bridge_waits(parse("{\"id\":1,\"method\":\"initialize\",\"params\":{" MODERN_META "}}")));
}

static void lines_have_no_line_ends_inside(void **state)
{
    struct buf out = BUF_INIT(1000);

    (void)state;
    bridge_write(&out, parse("{ \"a\" :\n \"x\\ny\" }"));
    bridge_error(&out, parse("\"id\\n1\""), -32000, "two\nlines");
    bridge_error(&out, NULL, -32700, "no id");
    buf_add_c(&out, '\0');
    assert_string_equal(
        out.p, "{\"a\":\"x\\ny\"}\n"
               "{\"jsonrpc\":\"2.0\",\"id\":\"id\\n1\",\"error\":{\"code\":-32000,\"message\":\"two\\nlines\"}}\n"
               "{\"jsonrpc\":\"2.0\",\"error\":{\"code\":-32700,\"message\":\"no id\"}}\n");
    buf_release(&out);
}

/* ---- mirrored fields -----------------------------------------------------------------------------------------------
 */

static void values_are_encoded_where_needed(void **state)
{
    (void)state;
    assert_str(mirror_value(&arena, STR("plain value")), "plain value");
    assert_str(mirror_value(&arena, STR(" x")), "=?base64?IHg=?=");
    assert_str(mirror_value(&arena, STR("x ")), "=?base64?eCA=?=");
    assert_str(mirror_value(&arena, STR("")), "=?base64?" "?=");
    assert_str(mirror_value(&arena, STR("gr\xc3\xbc\xc3\x9f")), "=?base64?Z3LDvMOf?=");
    assert_str(mirror_value(&arena, STR("a\r\nEvil: 1")), "=?base64?YQ0KRXZpbDogMQ==?=");
    assert_str(mirror_value(&arena, STR("=?base64?eA==?=")), "=?base64?PT9iYXNlNjQ/ZUE9PT89?=");
}

static void fields_mirror_the_message(void **state)
{
    const struct json *schema = parse(
        "{\"properties\":{\"a\":{\"x-mcp-header\":\"Region\"},\"n\":{\"x-mcp-header\":\"N\"},\"b\":{\"x-mcp-header\":"
        "\"B\"},"
        "\"gone\":{\"x-mcp-header\":\"Gone\"},\"nil\":{\"x-mcp-header\":\"Nil\"},\"bad\":{\"x-mcp-header\":\"a b\"},"
        "\"in\":{\"properties\":{\"deep\":{\"x-mcp-header\":\"Deep\"}}}}}");
    const struct json *call =
        parse("{\"method\":\"tools/"
              "call\",\"params\":{\"name\":\"t.x\",\"arguments\":{\"a\":\"eu\",\"n\":42,\"b\":true,\"nil\":null,"
              "\"bad\":\"x\",\"in\":{\"deep\":\"d\"}}," MODERN_META "}}");
    struct mirror m;

    (void)state;
    mirror_message(&arena, call, schema, &m);
    assert_int_equal(m.n, 7);
    assert_string_equal(m.headers[0], "MCP-Protocol-Version: 2026-07-28");
    assert_string_equal(m.headers[1], "Mcp-Method: tools/call");
    assert_string_equal(m.headers[2], "Mcp-Name: t.x");
    assert_string_equal(m.headers[3], "Mcp-Param-Region: eu");
    assert_string_equal(m.headers[4], "Mcp-Param-N: 42");
    assert_string_equal(m.headers[5], "Mcp-Param-B: true");
    assert_string_equal(m.headers[6], "Mcp-Param-Deep: d");
    mirror_message(
        &arena, parse("{\"method\":\"resources/read\",\"params\":{\"uri\":\"a://b\",\"name\":\"no\"," MODERN_META "}}"),
        NULL, &m);
    assert_string_equal(m.headers[2], "Mcp-Name: a://b");
    mirror_message(&arena, parse("{\"method\":\"tools/list\",\"params\":{\"name\":\"no\"," MODERN_META "}}"), NULL, &m);
    assert_int_equal(m.n, 2);
    mirror_message(&arena, parse("{\"method\":\"tools/call\",\"params\":{\"name\":\"x\"}}"), schema, &m);
    assert_int_equal(m.n, 0);
}

/* ---- the login page ------------------------------------------------------------------------------------------------
 */

static void forms_are_filled_in(void **state)
{
    struct str action, body;

    (void)state;
    assert_int_equal(
        headless_form(&arena,
                      STR("<p>x<form method=\"post\" action=\"/in?a=1&#38;b\"><input type=\"hidden\" name=\"state\" "
                          "value=\"a&#34;b&amp;c d\">"
                          "<input type=\"submit\" value=\"no name\"><input name=\"user\" value=\"somebody\"></form>"),
                      STR("alice@x.example"), &action, &body),
        OK);
    assert_str(action, "/in?a=1&b");
    assert_str(body, "state=a%22b%26c%20d&user=alice%40x.example");
    assert_int_equal(headless_form(&arena, STR("<p>no form"), STR("x"), &action, &body), E_FORMAT);
    assert_int_equal(headless_form(&arena, STR("<form action=\"/\">"), STR("x"), &action, &body), E_FORMAT);
    assert_int_equal(headless_form(&arena, STR("<form"), STR("x"), &action, &body), E_FORMAT);
    assert_int_equal(headless_form(&arena, STR(""), STR("x"), &action, &body), E_FORMAT);
}

/* ---- printing ------------------------------------------------------------------------------------------------------
 */

static void printed(char *out, size_t cap, void (*print)(FILE *, struct str), struct str s)
{
    FILE *f = fmemopen(out, cap, "w");

    assert_non_null(f);
    print(f, s);
    fclose(f);
}

static void nothing_plays_with_the_terminal(void **state)
{
    char out[200];

    (void)state;
    printed(out, sizeof(out), print_line, STR("a\x1b[2Jb\nc\td\x7f"));
    assert_string_equal(out, "a\\u001b[2Jb\\u000ac\\u0009d\\u007f");
    printed(out, sizeof(out), print_text, STR("a\nb\tc\x1b"));
    assert_string_equal(out, "a\nb\tc\\u001b");
    printed(out, sizeof(out), print_line, STR("\xe2\x80\xae" "right \xc3\xa9 \xff \xf3\xa0\x81\x81"));
    assert_string_equal(out, "\\u202eright \xc3\xa9 \\xff \\u{e0041}");
}

static void print_one_line(FILE *to, struct str s)
{
    print_compact(to, parse(arena_z(&arena, s)));
}

/* What is read by programs stays what it is. */
static void compact_json_is_json(void **state)
{
    char out[200];

    (void)state;
    printed(out, sizeof(out), print_one_line, STR("{\"a\":\"\\u001b\xe2\x80\xae\xc3\xa9\xf3\xa0\x81\x81\x7f\"}"));
    assert_string_equal(out, "{\"a\":\"\\u001b\\u202e\xc3\xa9\\udb40\\udc41\\u007f\"}\n");
}

static void print_parsed(FILE *to, struct str s)
{
    print_json(to, parse(arena_z(&arena, s)));
}

static void results_are_laid_out(void **state)
{
    char out[500];

    (void)state;
    printed(out, sizeof(out), print_parsed,
            STR("{\"id\":\"x\\u001b\",\"n\":3,\"rows\":[{\"a\":\"one\",\"b\":1},{\"b\":22,\"a\":\"z\"}],\"none\":[]}"));
    assert_string_equal(out, "id: x\\u001b\nn: 3\nrows:\na    b\none  1\nz    22\nnone: []\n");
    printed(out, sizeof(out), print_parsed, STR("{\"rows\":[{\"id\":1,\"cc\":2},{\"id\":1,\"bcc\":2}]}"));
    assert_non_null(strstr(out, "bcc"));
    printed(out, sizeof(out), print_parsed, STR("[1,2]"));
    assert_string_equal(out, "[\n  1,\n  2\n]\n");
}

/* ---- what lives in the program -------------------------------------------------------------------------------------
 */

static void demo_policies_are_the_files(void **state)
{
    size_t n = 0;

    (void)state;
    for (const struct embedded *f = demo_policies; f->name; f++, n++) {
        char path[200], bytes[16384];
        FILE *file;

        snprintf(path, sizeof(path), "docs/demo/%s", f->name);
        file = fopen(path, "re");
        assert_non_null(file);
        assert_int_equal(fread(bytes, 1, sizeof(bytes), file), f->n);
        assert_memory_equal(bytes, f->bytes, f->n);
        fclose(file);
    }
    assert_true(n >= 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(options_are_read),
        cmocka_unit_test(options_are_refused),
        cmocka_unit_test(numbers_are_bounded),
        cmocka_unit_test(every_verb_teaches),
        cmocka_unit_test(arguments_take_their_types),
        cmocka_unit_test(arguments_are_refused),
        cmocka_unit_test(arguments_without_schema_are_guessed),
        cmocka_unit_test(events_are_read),
        cmocka_unit_test(events_stop_when_told),
        cmocka_unit_test(lines_are_cut),
        cmocka_unit_test(messages_are_told_apart),
        cmocka_unit_test(lines_have_no_line_ends_inside),
        cmocka_unit_test(values_are_encoded_where_needed),
        cmocka_unit_test(fields_mirror_the_message),
        cmocka_unit_test(forms_are_filled_in),
        cmocka_unit_test(nothing_plays_with_the_terminal),
        cmocka_unit_test(compact_json_is_json),
        cmocka_unit_test(results_are_laid_out),
        cmocka_unit_test(demo_policies_are_the_files),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
