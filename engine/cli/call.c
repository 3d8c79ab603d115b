/* call.c -- `sluice call`: one call of a tool through a running engine */
#include <stdio.h>

#include "cli/args.h"
#include "cli/link.h"
#include "cli/print.h"

enum { ARGS_MAX = 256, CALL_ARENA = 128 << 20 };

static const char help[] =
    "Usage: sluice call TOOL [--arg KEY=VALUE]... --as USER --agent AGENT [OPTIONS]\n\n"
    "Makes one call through a running engine, as an MCP client would, and says how it ended.\n\n"
    "  sluice call outlook.list_mail --arg count=3 --tenant demo --as alice@demo.example --agent demo-agent\n"
    "  sluice call outlook.send_mail --arg to=bob@demo.example --arg to=carol@demo.example --arg subject=Hello \\\n"
    "      --arg body='Lunch?' --key lunch-1 --tenant demo --as alice@demo.example --agent demo-agent\n\n"
    "  --arg KEY=VALUE   an argument, read as the type the tool declares; a list takes one --arg per\n"
    "                    item\n"
    "  --args JSON       arguments as a JSON object; --arg adds to it\n"
    "  --key KEY         idempotency key: the same call with the same key is executed once, however\n"
    "                    often it is sent\n"
    "  --json            print the whole answer as JSON\n"
    LINK_HELP
    "\n"
    "Exit codes: 0 done; 3 refused, nothing happened; 4 failed, the provider says it did not happen;\n"
    "5 unknown, it may have happened: repeat it only with the same --key. 1: the engine could not be\n"
    "asked. 2: the command line is wrong.\n";

struct options {
    struct link_options link;
    const char *args, *key, *list[ARGS_MAX];
    size_t n_list;
    bool json;
};

static int read_args(const struct options *o, const struct json *schema, struct arena *a, struct json **ret)
{
    struct errinfo info = { "" };
    struct json_error where;

    *ret = NULL;
    if (o->args && (json_parse(a, str_of(o->args), NULL, ret, &where) || !json_is(*ret, JSON_OBJECT)))
        return complain(&verb_call, EXIT_USAGE, "--args takes a JSON object");
    if (!*ret)
        *ret = json_object(a);
    for (size_t i = 0; i < o->n_list; i++)
        if (args_add(a, *ret, schema, o->list[i], &info))
            return complain(&verb_call, EXIT_USAGE, "%s", info.text);
    return 0;
}

static struct json *params_of(struct arena *a, const char *tool, struct json *args, const char *key)
{
    struct json *params = json_object(a), *meta = json_object(a);

    json_set_z(a, params, "name", tool);
    json_set(a, params, "arguments", args);
    if (key)
        json_set_z(a, meta, "dev.sluice/idempotencyKey", key);
    json_set(a, params, "_meta", meta);
    return params;
}

static void print_result(const struct json *result)
{
    const struct json *structured = json_get(result, "structuredContent");

    if (structured) {
        print_json(stdout, structured);
        return;
    }
    for (const struct json *c = json_first(json_get(result, "content")); c; c = json_next(c)) {
        if (json_is(json_get(c, "text"), JSON_STRING)) {
            print_text(stdout, json_str(json_get(c, "text")));
            fputc('\n', stdout);
        } else {
            print_json(stdout, c);
        }
    }
}

static int tell(const struct options *o, struct arena *a, const struct rpc_reply *r)
{
    struct str why, id = rpc_note(r, "dev.sluice/call"), of = rpc_note(r, "dev.sluice/replayOf");
    enum outcome outcome = rpc_outcome(a, r, &why);

    if (o->json) {
        print_compact(stdout, r->result ? r->result : r->error);
    } else if (outcome == OUTCOME_DONE && !why.len) {
        print_result(r->result);
    }
    fprintf(stderr, "%s", outcome_name(outcome));
    if (why.len) {      /* of what is done: it was done before, and its result is lost */
        fputs(": ", stderr);
        print_line(stderr, why);
    }
    if (id.len) {
        fputs("  (", stderr);
        print_line(stderr, id);
        fputs(of.len ? ", the recorded outcome of " : "", stderr);
        print_line(stderr, of);
        fputc(')', stderr);
    }
    fputc('\n', stderr);
    return exit_code_of(outcome);
}

static int make_call(const struct options *o, struct link *l, const char *tool, struct arena *a)
{
    const struct json *decl, *schema;
    struct json *tools = NULL, *args, *message;
    struct errinfo info = { "" };
    struct rpc_reply r;
    int rc = link_tools(&verb_call, l, a, &tools);

    if (rc)
        return rc;
    /* not in the list: the call is made all the same, to be told why not, and to be on record */
    decl = tool_named(tools, str_of(tool));
    schema = json_get(decl, "inputSchema");
    rc = read_args(o, schema, a, &args);
    if (rc)
        return rc;
    message = rpc_message(l, a, "tools/call", params_of(a, tool, args, o->key));
    if (arena_overflowed(a))
        return complain(&verb_call, EXIT_UNABLE, "the arguments are too large");
    if (rpc_ask(l, a, message, schema, &r, &info) == OK)
        return tell(o, a, &r);
    if (r.unsent)
        return complain(&verb_call, EXIT_UNABLE, "%s; is the engine running?", info.text);
    return complain(&verb_call, EXIT_UNKNOWN, "unknown: the call was sent, but no answer came: %s", info.text);
}

static int run(int argc, char **argv)
{
    struct options o = { 0 };
    const struct option_spec specs[] = {
        { .name = "arg", .list = o.list, .n_list = &o.n_list, .max_list = ARGS_MAX },
        { .name = "args", .value = &o.args },
        { .name = "key", .value = &o.key },
        { .name = "json", .flag = &o.json },
        LINK_OPTIONS(o.link),
        { 0 },
    };
    char *tool = NULL;
    struct arena a;
    struct link l;
    int words, rc = options_read(&verb_call, argc, argv, specs, &tool, 1, &words);

    if (rc)
        return rc < 0 ? 0 : rc;
    if (!words)
        return complain(&verb_call, EXIT_USAGE, "which tool? `sluice tools` lists what a caller may use");
    if (o.key && !str_utf8_valid(str_of(o.key)))        /* JSON has no other: two such keys would be one */
        return complain(&verb_call, EXIT_USAGE, "--key takes UTF-8");
    arena_init(&a, CALL_ARENA);
    rc = link_open(&verb_call, &o.link, &l);
    if (!rc)
        rc = make_call(&o, &l, tool, &a);
    link_close(&l);
    arena_release(&a);
    return rc;
}

const struct verb verb_call = { "call", "make a call through a running engine", help, run };
