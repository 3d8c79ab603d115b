/*
 * policy_authorize.c -- `sluice policy authorize`: decides one request, as `cedar authorize` does
 *
 * Options, files, what stdout says and exit codes are those of the reference implementation's command line, so that
 * scripts written for it run unchanged: ALLOW (0) or DENY (2), then what failed to evaluate, then with -v the policies
 * that decided.  What cannot be decided, a wrong command line included, is 1 with the reason on stderr, so that 2 means
 * one thing only.  Beyond it, formats are guessed from the text unless they are named.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/policy_verbs.h"
#include "cli/print.h"
#include "json/json.h"
#include "loop/world.h"
#include "policy/explain.h"
#include "policy/schema.h"

enum { FILE_MAX = 256 << 20, ARENA_MAX = 1 << 30, EXIT_DENY = 2 };

struct options {
    const char *principal, *action, *resource, *context, *request, *validation;
    const char *policies, *policy_format, *links, *schema, *schema_format, *entities;
    bool verbose, timing, all;
};

struct asking {
    struct options o;
    struct arena arena;
    struct errinfo info;
    struct policy_schema *schema;
    struct policy_entities *entities;
    struct policy_set *set;
    uint8_t *verdicts;                      /* of every policy */
    struct policy_uid uids[3];
    struct policy_layer layer;
    struct policy_request request;
};

static int unable(const struct asking *k, const char *where)
{
    return complain(&verb_policy, EXIT_UNABLE, "%s%s%s", where ? where : "", where ? ": " : "", k->info.text);
}

/* --- files -------------------------------------------------------------------------------------------------------- */

static int read_file(struct asking *k, const char *path, struct str *ret)
{
    struct buf text = BUF_INIT(FILE_MAX);
    int rc = input_read(&verb_policy, path, &text);

    if (!rc)
        *ret = arena_str(&k->arena, buf_str(&text));
    buf_release(&text);
    return rc || ret->p ? rc : complain(&verb_policy, EXIT_UNABLE, "%s: the files together are too large", path);
}

/* The first character that is no white space; 0: there is none. */
static char first_of(struct str text)
{
    size_t i = 0;

    while (i < text.len && memchr(" \t\r\n", text.p[i], 4))
        i++;
    return i < text.len ? text.p[i] : '\0';
}

/* An empty file leaves *ret as it is. */
static int read_json(struct asking *k, const char *path, struct json **ret)
{
    static const struct json_limits limits = { .depth_max = JSON_DEPTH_MAX, .nul_keys = true };
    struct json_error where;
    struct str text = STR_NULL;
    int rc = read_file(k, path, &text);

    if (!rc && first_of(text) && json_parse(&k->arena, text, &limits, ret, &where))
        rc = complain(&verb_policy, EXIT_UNABLE, "%s:%u:%u: %s", path, where.line, where.column, where.message);
    return rc;
}

/* "cedar" or "json", as the option says or, without it, as the text begins. */
static bool is_json(const char *format, struct str text)
{
    return format ? strcmp(format, "json") == 0 : first_of(text) == '{';
}

/* [{"template_id", "link_id", "args": {"?principal": "User::\"alice\""}}] to the links of a policy set in JSON. */
static int convert_links(struct asking *k, const struct json *list, struct buf *out)
{
    const char *sep = "";

    if (!json_is(list, JSON_ARRAY))
        return complain(&verb_policy, EXIT_UNABLE, "%s: expected an array of links", k->o.links);
    buf_add_z(out, "{\"templateLinks\":[");
    for (const struct json *j = json_first(list); j; j = json_next(j), sep = ",") {
        const struct json *args = json_get(j, "args");
        const char *inner = "";

        if (!json_is(json_get(j, "template_id"), JSON_STRING) || !json_is(json_get(j, "link_id"), JSON_STRING)
            || !json_is(args, JSON_OBJECT))
            return complain(&verb_policy, EXIT_UNABLE,
                            "%s: expected links like {\"template_id\": \"t\", \"link_id\": \"l\", \"args\": "
                            "{\"?principal\": \"User::\\\"alice\\\"\"}}", k->o.links);
        buf_addf(out, "%s{\"templateId\":", sep);
        buf_add_json_str(out, json_str(json_get(j, "template_id")));
        buf_add_z(out, ",\"newId\":");
        buf_add_json_str(out, json_str(json_get(j, "link_id")));
        buf_add_z(out, ",\"values\":{");
        for (const struct json *a = json_first(args); a; a = json_next(a), inner = ",") {
            struct policy_uid uid;

            if (policy_uid_parse(&k->arena, str_of(k->o.links), json_str(a), &uid, &k->info))
                return unable(k, NULL);
            buf_add_z(out, inner);
            buf_add_json_str(out, json_key(a));
            buf_add_z(out, ":{\"type\":");
            buf_add_json_str(out, uid.type);
            buf_add_z(out, ",\"id\":");
            buf_add_json_str(out, uid.id);
            buf_add_c(out, '}');
        }
        buf_add_z(out, "}}");
    }
    buf_add_z(out, "]}");
    return 0;
}

static int read_links(struct asking *k, struct buf *ret)
{
    struct json *list = json_array(&k->arena);
    int rc = read_json(k, k->o.links, &list);

    return rc ? rc : convert_links(k, list, ret);
}

/* The policies have no name while they are read, lest it become a part of their ids. */
static const char *policies_place(const char *text, const char *path, struct arena *a)
{
    static const char unnamed[] = "policies:";
    bool is = strncmp(text, unnamed, sizeof(unnamed) - 1) == 0;
    const char *named = is ? arena_printf(a, "%s%s", path, text + sizeof(unnamed) - 2).p : NULL;

    return named ? named : text;
}

static int read_policies(struct asking *k)
{
    struct buf links = BUF_INIT(FILE_MAX);
    struct policy_source sources[2] = { { .text = STR_NULL }, { .name = str_of(k->o.links), .json = true } };
    const char *path = k->o.policies ? k->o.policies : "-";
    int rc = read_file(k, path, &sources[0].text);

    sources[0].json = is_json(k->o.policy_format, sources[0].text);
    if (!rc && k->o.links)
        rc = read_links(k, &links);
    sources[1].text = buf_str(&links);
    if (!rc && policy_set_parse(sources, links.len ? 2 : 1, 0, &k->set, &k->info))
        rc = complain(&verb_policy, EXIT_UNABLE, "%s", policies_place(k->info.text, path, &k->arena));
    buf_release(&links);
    if (rc)
        return rc;
    k->verdicts = arena_zalloc(&k->arena, policy_set_count(k->set) + 1);
    return k->verdicts ? 0 : complain(&verb_policy, EXIT_UNABLE, "the files together are too large");
}

static int read_schema(struct asking *k)
{
    struct str text = STR_NULL;
    int rc = k->o.schema ? read_file(k, k->o.schema, &text) : 0;

    if (rc || !k->o.schema)
        return rc;
    if (policy_schema_parse(str_of(k->o.schema), text,
                            is_json(k->o.schema_format, text) ? POLICY_SCHEMA_JSON : POLICY_SCHEMA_TEXT, &k->schema,
                            NULL, &k->info))
        return unable(k, NULL);
    return 0;
}

static int read_entities(struct asking *k)
{
    struct str text = STR_NULL;
    int rc = read_file(k, k->o.entities, &text);
    enum err e;

    if (rc)
        return rc;
    k->entities = policy_entities_new();
    e = k->schema ? policy_entities_add_json_typed(k->entities, k->schema, text, &k->info)
        : policy_entities_add_json(k->entities, text, &k->info);
    if (!e)
        e = policy_entities_freeze(k->entities, &k->info);
    policy_layer_init(&k->layer, k->entities);
    return e ? unable(k, k->o.entities) : 0;
}

/* --- the request -------------------------------------------------------------------------------------------------- */

static int read_uid(struct asking *k, const char *name, struct str text, struct policy_uid *ret)
{
    if (!text.p)
        return complain(&verb_policy, EXIT_UNABLE, "a request needs all of principal, action and resource: no %s is "
                        "given", name);
    return policy_uid_parse(&k->arena, str_of(name), text, ret, &k->info) ? unable(k, NULL) : 0;
}

static int read_request(struct asking *k)
{
    static const char *const names[] = { "principal", "action", "resource" };
    struct str texts[] = { str_of(k->o.principal), str_of(k->o.action), str_of(k->o.resource) };
    struct json *whole = NULL, *context = json_object(&k->arena);
    int rc = 0;

    if (k->o.request) {
        rc = read_json(k, k->o.request, &whole);
        for (int i = 0; !rc && i < 3; i++)
            texts[i] = json_str(json_get(whole, names[i]));
    } else if (k->o.context) {
        rc = read_json(k, k->o.context, &context);
    }
    for (int i = 0; !rc && i < 3; i++)
        rc = read_uid(k, names[i], texts[i], &k->uids[i]);
    if (rc)
        return rc;
    k->request = (struct policy_request){ .principal = &k->uids[0], .action = &k->uids[1], .resource = &k->uids[2],
                                          .entities = &k->layer, .scratch = &k->arena };
    if (policy_context_from_json(&k->arena, whole ? json_get(whole, "context") : context, k->schema, &k->uids[1],
                                 &k->request.context, &k->info))
        return unable(k, k->o.request ? k->o.request : k->o.context ? k->o.context : "context");
    if (k->schema && (!k->o.validation || strcmp(k->o.validation, "true") == 0)
        && policy_schema_check_request(k->schema, &k->request, &k->info))
        return unable(k, "request");
    return 0;
}

/* --- the answer --------------------------------------------------------------------------------------------------- */

static void observe(void *arg, uint32_t policy, int verdict)
{
    struct asking *k = arg;

    k->verdicts[policy] = (uint8_t)verdict;
}

static void print_errors(const struct asking *k, const struct policy_decision *d)
{
    printf("\n");
    for (uint32_t i = 0; i < d->n_errors && i < POLICY_NAMED_MAX; i++) {
        printf("error while evaluating policy `");
        print_line(stdout, policy_set_info(k->set, d->errors[i].policy).id);
        printf("`: %s (at %u:%u)\n", policy_fault_text(d->errors[i].fault), d->errors[i].line, d->errors[i].column);
    }
    if (d->n_errors > POLICY_NAMED_MAX)
        printf("and %u more\n", d->n_errors - POLICY_NAMED_MAX);
}

static void print_reasons(const struct asking *k, const struct policy_decision *d)
{
    printf("\n%s\n", d->n_reasons ? "note: this decision was due to the following policies:"
           : "note: no policies applied to this request");
    for (size_t i = 0; d->n_reasons && i < policy_set_count(k->set); i++) {
        struct policy_info p = policy_set_info(k->set, i);

        if (k->verdicts[i] != POLICY_IS_TRUE || p.forbid != (d->effect == POLICY_DENY))
            continue;
        printf("  ");
        print_line(stdout, p.id);
        printf("\n");
    }
    if (d->n_reasons)
        printf("\n");
}

static int decide(struct asking *k)
{
    struct policy_decision d;
    ns_t start = world->now();
    enum err e;

    k->request.observe = observe;
    k->request.observe_arg = k;
    e = policy_decide(k->set, &k->request, &d);
    if (e)
        return complain(&verb_policy, EXIT_UNABLE, "the decision needs more memory than allowed");
    if (k->o.timing)
        printf("Authorization Time (micro seconds) : %lld\n", (long long)((world->now() - start) / 1000));
    printf("%s\n", d.effect == POLICY_DENY ? "DENY" : "ALLOW");
    if (d.n_errors)
        print_errors(k, &d);
    if (k->o.verbose)
        print_reasons(k, &d);
    return d.effect == POLICY_DENY ? EXIT_DENY : EXIT_DONE;
}

/* The same question, and what each policy and each expression came to. */
static int explain(struct asking *k)
{
    struct buf out = BUF_INIT(FILE_MAX);
    enum err e = policy_explain(k->set, &k->request, k->o.all ? POLICY_EXPLAIN_ALL : 0, &out);

    if (!e)
        print_text(stdout, buf_str(&out));
    buf_release(&out);
    return e ? complain(&verb_policy, EXIT_UNABLE, "the explanation needs more memory than allowed") : EXIT_DONE;
}

/* --- the command line --------------------------------------------------------------------------------------------- */

static bool one_of(const char *option, const char *value, const char *a, const char *b)
{
    if (!value || strcmp(value, a) == 0 || strcmp(value, b) == 0)
        return true;
    complain(&verb_policy, EXIT_UNABLE, "--%s is %s or %s, not \"%s\"", option, a, b, value);
    return false;
}

/* 0; -1 after --help; 1 with a message. */
static int read_options(int argc, char **argv, struct options *o)
{
    const struct option_spec specs[] = {
        { .name = "principal", .value = &o->principal }, { .name = "l", .value = &o->principal },
        { .name = "action", .value = &o->action }, { .name = "a", .value = &o->action },
        { .name = "resource", .value = &o->resource }, { .name = "r", .value = &o->resource },
        { .name = "context", .value = &o->context }, { .name = "c", .value = &o->context },
        { .name = "request-json", .value = &o->request }, { .name = "request-validation", .value = &o->validation },
        { .name = "policies", .value = &o->policies }, { .name = "p", .value = &o->policies },
        { .name = "policy-format", .value = &o->policy_format },
        { .name = "template-linked", .value = &o->links }, { .name = "k", .value = &o->links },
        { .name = "schema", .value = &o->schema }, { .name = "s", .value = &o->schema },
        { .name = "schema-format", .value = &o->schema_format }, { .name = "entities", .value = &o->entities },
        { .name = "verbose", .flag = &o->verbose }, { .name = "v", .flag = &o->verbose },
        { .name = "timing", .flag = &o->timing }, { .name = "t", .flag = &o->timing },
        { .name = "all", .flag = &o->all }, { NULL }
    };
    int n, rc = options_read(&verb_policy, argc, argv, specs, NULL, 0, &n);

    if (rc)
        return rc < 0 ? rc : EXIT_UNABLE;
    if (!o->entities)
        return complain(&verb_policy, EXIT_UNABLE, "write: sluice policy %s --policies FILE --entities FILE "
                        "--principal P --action A --resource R", argv[0]);
    if (o->request && (o->principal || o->action || o->resource || o->context))
        return complain(&verb_policy, EXIT_UNABLE, "--request-json holds the whole request: --principal, --action, "
                        "--resource and --context do not go with it");
    if (!one_of("policy-format", o->policy_format, "cedar", "json")
        || !one_of("schema-format", o->schema_format, "cedar", "json")
        || !one_of("request-validation", o->validation, "true", "false"))
        return EXIT_UNABLE;
    return 0;
}

static int ask(int argc, char **argv, int (*what)(struct asking *k))
{
    struct asking k = { .info = { "" } };
    int rc = read_options(argc, argv, &k.o);

    if (rc)
        return rc < 0 ? EXIT_DONE : rc;
    arena_init(&k.arena, ARENA_MAX);
    rc = read_policies(&k);
    if (!rc)
        rc = read_schema(&k);
    if (!rc)
        rc = read_entities(&k);
    if (!rc)
        rc = read_request(&k);
    if (!rc)
        rc = what(&k);
    policy_set_unref(k.set);
    policy_schema_unref(k.schema);
    policy_entities_unref(k.entities);
    arena_release(&k.arena);
    return rc;
}

int policy_authorize(int argc, char **argv)
{
    return ask(argc, argv, decide);
}

int policy_explain_verb(int argc, char **argv)
{
    for (int i = 1; i < argc; i++)
        if (strcmp(argv[i], "--call") == 0 || strncmp(argv[i], "--call=", 7) == 0)
            return policy_explain_call(argc, argv);
    return ask(argc, argv, explain);
}
