/* tools.c -- `sluice tools`: what a caller may use */
#include <stdio.h>

#include "cli/args.h"
#include "cli/link.h"
#include "cli/print.h"

static const char help[] =
    "Usage: sluice tools [TOOL] --as USER --agent AGENT [OPTIONS]\n\n"
    "Lists the tools of a running engine which this caller could be allowed to use: policies hide the\n"
    "others. With TOOL, shows its arguments.\n\n"
    "  sluice tools --tenant demo --as alice@demo.example --agent demo-agent\n"
    "  sluice tools outlook.send_mail --tenant demo --as alice@demo.example --agent demo-agent\n\n"
    "  --json            the tools as MCP describes them, a JSON array\n"
    LINK_HELP;

static struct str effect_of(const struct json *tool)
{
    bool reads = false, destroys = true;

    json_bool(json_get(json_get(tool, "annotations"), "readOnlyHint"), &reads);
    json_bool(json_get(json_get(tool, "annotations"), "destructiveHint"), &destroys);
    return reads ? STR("reads") : destroys ? STR("destroys") : STR("writes");
}

static struct str arguments_of(struct arena *a, const struct json *tool)
{
    const struct json *schema = json_get(tool, "inputSchema"), *required = json_get(schema, "required");
    struct buf b = BUF_INIT(4096);
    struct str ret;

    for (const struct json *p = json_first(json_get(schema, "properties")); p; p = json_next(p)) {
        bool needed = false;

        for (const struct json *r = json_first(required); r; r = json_next(r))
            needed = needed || str_eq(json_str(r), json_key(p));
        buf_addf(&b, needed ? "%s%.*s" : "%s[%.*s]", b.len ? " " : "", STR_ARG(json_key(p)));
    }
    ret = arena_str(a, buf_str(&b));
    buf_release(&b);
    return ret;
}

static void print_tools(struct arena *a, const struct json *tools)
{
    struct table t;

    table_init(&t, a, 4);
    table_row(&t, (const struct str[]){ STR("TOOL"), STR("EFFECT"), STR("ARGUMENTS"), STR("WHAT IT DOES") });
    for (const struct json *tool = json_first(tools); tool; tool = json_next(tool))
        table_row(&t, (const struct str[]){ json_str(json_get(tool, "name")), effect_of(tool), arguments_of(a, tool),
                                            json_str(json_get(tool, "description")) });
    table_print(stdout, &t);
}

static void print_tool(struct arena *a, const struct json *tool)
{
    const struct json *schema = json_get(tool, "inputSchema"), *required = json_get(schema, "required");
    struct table t;

    print_text(stdout, json_str(json_get(tool, "description")));
    fputs("\n\n", stdout);
    table_init(&t, a, 4);
    table_row(&t, (const struct str[]){ STR("ARGUMENT"), STR("TYPE"), STR("NEEDED"), STR("MEANING") });
    for (const struct json *p = json_first(json_get(schema, "properties")); p; p = json_next(p)) {
        struct str needed = STR("no");

        for (const struct json *r = json_first(required); r; r = json_next(r))
            if (str_eq(json_str(r), json_key(p)))
                needed = STR("yes");
        table_row(&t, (const struct str[]){ json_key(p), schema_type_text(a, p), needed,
                                            json_str(json_get(p, "description")) });
    }
    table_print(stdout, &t);
}

static int show(struct link *l, const char *name, bool as_json, struct arena *a)
{
    struct json *tools = NULL;
    const struct json *one = NULL;
    struct buf b = BUF_INIT(CLIENT_REPLY_MAX);
    int rc = link_tools(&verb_tools, l, a, &tools);

    if (!rc && name) {
        one = tool_named(tools, str_of(name));
        if (!one)
            rc = complain(&verb_tools, EXIT_UNABLE, "this caller has no tool \"%s\"", name);
    }
    if (!rc && as_json) {
        json_write_pretty(&b, one ? one : tools);
        printf("%.*s\n", STR_ARG(buf_str(&b)));
    } else if (!rc && one) {
        print_tool(a, one);
    } else if (!rc && json_len(tools) == 0) {
        fprintf(stderr, "no tools: no policy lets this caller use any\n");
    } else if (!rc) {
        print_tools(a, tools);
    }
    buf_release(&b);
    return rc;
}

static int run(int argc, char **argv)
{
    struct link_options o = { 0 };
    bool as_json = false;
    const struct option_spec specs[] = { { .name = "json", .flag = &as_json }, LINK_OPTIONS(o), { 0 } };
    char *name = NULL;
    struct arena a;
    struct link l;
    int words, rc = options_read(&verb_tools, argc, argv, specs, &name, 1, &words);

    if (rc)
        return rc < 0 ? 0 : rc;
    arena_init(&a, 64 << 20);
    rc = link_open(&verb_tools, &o, &l);
    if (!rc)
        rc = show(&l, words ? name : NULL, as_json, &a);
    link_close(&l);
    arena_release(&a);
    return rc;
}

const struct verb verb_tools = { "tools", "list the tools a caller may use", help, run };
