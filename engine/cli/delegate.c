/* delegate.c -- `sluice delegate`: what a user lets an agent do, on record */
#include <stdio.h>

#include "cli/link.h"
#include "cli/print.h"

enum { ACTIONS_MAX = 64, DAYS_MAX = 3660 };

static const char help[] =
    "Usage: sluice delegate AGENT [--only ACTION]... [--for TIME] --as USER\n"
    "       sluice delegate --list | --revoke ID --as USER\n\n"
    "Records that the user lets an agent act for them, through a running engine; what was recorded\n"
    "for that agent before is replaced. Policies see it as context.delegation; where the\n"
    "configuration says delegation.required, an agent may do nothing without one.\n\n"
    "  sluice delegate assistant --only reads --only outlook.send_mail --for 30d --as alice@example.com\n\n"
    "  --only ACTION     a tool, or a group of tools (outlook, reads, writes, destroys); may be\n"
    "                    repeated; everything if left out\n"
    "  --for TIME        how long it holds: 90m, 12h, 30d; until it is revoked if left out\n"
    "  --list            what the user has delegated\n"
    "  --revoke ID       ends a delegation at once\n"
    "  --json            answers as JSON\n"
    LINK_HELP;

struct options {
    struct link_options link;
    const char *only[ACTIONS_MAX], *time, *revoke;
    size_t n_only;
    bool list, json;
};

static struct str actions_text(struct arena *a, const struct json *list)
{
    struct buf all = BUF_INIT(64 * 1024);
    struct str ret;

    for (const struct json *it = json_first(list); it; it = json_next(it)) {
        buf_add_z(&all, all.len ? " " : "");
        buf_add_str(&all, json_str(it));
    }
    ret = all.len ? arena_str(a, buf_str(&all)) : STR("everything");
    buf_release(&all);
    return ret;
}

static int list(const struct options *o, struct link *l, struct arena *a)
{
    struct json *answer;
    struct table t;
    int rc = link_ask(&verb_delegate, l, a, "GET", "/v1/delegations", NULL, &answer);

    if (rc)
        return rc;
    if (o->json) {
        print_compact(stdout, json_get(answer, "delegations"));
        return 0;
    }
    table_init(&t, a, 5);
    table_row(&t, (const struct str[]){ STR("AGENT"), STR("MAY"), STR("STATUS"), STR("UNTIL"), STR("ID") });
    for (const struct json *one = json_first(json_get(answer, "delegations")); one; one = json_next(one))
        table_row(&t, (const struct str[]){ json_str(json_get(one, "agent")),
                                            actions_text(a, json_get(one, "actions")),
                                            json_str(json_get(one, "status")),
                                            json_get(one, "expires") ? json_str(json_get(one, "expires"))
                                                                     : STR("revoked"),
                                            json_str(json_get(one, "id")) });
    table_print(stdout, &t);
    return 0;
}

static int end(const struct options *o, struct link *l, struct arena *a)
{
    struct json *answer;
    int rc;

    if (!path_word(o->revoke))
        return complain(&verb_delegate, EXIT_USAGE, "\"%s\" is no delegation's id; --list shows them", o->revoke);
    rc = link_ask(&verb_delegate, l, a, "DELETE", arena_printf(a, "/v1/delegations/%s", o->revoke).p, NULL, &answer);
    if (!rc)
        printf("revoked\n");
    return rc;
}

static int record(const struct options *o, struct link *l, struct arena *a, const char *agent, int64_t seconds)
{
    struct json *body = json_object(a), *actions = json_array(a), *answer;
    int rc;

    json_set_z(a, body, "agent", agent);
    for (size_t i = 0; i < o->n_only; i++)
        json_push(a, actions, json_string_z(a, o->only[i]));
    json_set(a, body, "actions", actions);
    if (o->time)
        json_set_int(a, body, "seconds", seconds);
    rc = link_ask(&verb_delegate, l, a, "POST", "/v1/delegations", body, &answer);
    if (!rc && o->json)
        print_compact(stdout, answer);
    else if (!rc)
        printf("recorded: %.*s\n", STR_ARG(json_str(json_get(answer, "id"))));
    return rc;
}

static int run(int argc, char **argv)
{
    struct options o = { 0 };
    const struct option_spec specs[] = {
        { .name = "only", .list = o.only, .n_list = &o.n_only, .max_list = ACTIONS_MAX },
        { .name = "for", .value = &o.time },
        { .name = "list", .flag = &o.list },
        { .name = "revoke", .value = &o.revoke },
        { .name = "json", .flag = &o.json },
        LINK_OPTIONS(o.link),
        { 0 },
    };
    int64_t seconds = 0;
    char *agent = NULL;
    struct arena a;
    struct link l;
    int words, rc = options_read(&verb_delegate, argc, argv, specs, &agent, 1, &words);

    if (rc)
        return rc < 0 ? 0 : rc;
    if ((words != 0) + o.list + (o.revoke != NULL) != 1)
        return complain(&verb_delegate, EXIT_USAGE, "write: sluice delegate AGENT, --list, or --revoke ID");
    if (o.time && !duration_read(o.time, DAYS_MAX * 86400LL, &seconds))
        return complain(&verb_delegate, EXIT_USAGE, "--for takes a time of at most %dd: 90m, 12h, 30d", DAYS_MAX);
    arena_init(&a, 16 << 20);
    rc = link_open(&verb_delegate, &o.link, &l);
    if (!rc)
        rc = o.list ? list(&o, &l, &a) : o.revoke ? end(&o, &l, &a) : record(&o, &l, &a, agent, seconds);
    link_close(&l);
    arena_release(&a);
    return rc;
}

const struct verb verb_delegate = { "delegate", "record what a user lets an agent do", help, run };
