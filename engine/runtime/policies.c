/* policies.c -- files to the snapshot that calls live in: policies to one set, entities to one store, by name */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "base/check.h"
#include "base/crypto.h"
#include "base/log.h"
#include "call/vocabulary.h"
#include "loop/world.h"
#include "policy/schema.h"
#include "runtime/runtime.h"

enum { FILES_MAX = 4096, FILE_BYTES_MAX = 16 << 20, FINDINGS_LOGGED_MAX = 20 };

struct collect {
    struct arena arena;
    struct policy_source files[FILES_MAX];
    size_t n;
    const char *what;                   /* "policies" */
    const char *dir, *suffix, *but;     /* which files of a directory are taken */
    enum err err;
    struct errinfo *info;
};

static void read_file(struct collect *c, const char *path)
{
    int fd = world->open(path, 0, 0);
    int64_t size = fd < 0 ? fd : world->size(fd);
    char *text;

    if (size < 0) {
        c->err = err_set(c->info, E_CONFIG, "cannot read %s from %s: %s", c->what, path, strerror((int)-size));
    } else if (size > FILE_BYTES_MAX || c->n == FILES_MAX) {
        c->err = err_set(c->info, E_CONFIG, "%s: %s", path,
                         c->n == FILES_MAX ? "too many files" : "larger than 16 MiB");
    } else {
        text = arena_alloc(&c->arena, (size_t)size + 1);
        if (!text || world->pread(fd, text, (size_t)size, 0) != size)
            c->err = err_set(c->info, E_CONFIG, "cannot read %s from %s", c->what, path);
        else
            c->files[c->n++] = (struct policy_source){ arena_str(&c->arena, str_of(path)), str_n(text, (size_t)size) };
    }
    if (fd >= 0)
        world->close(fd);
}

static void read_entry(const char *name, void *arg)
{
    struct collect *c = arg;

    if (!c->err && str_ends(str_of(name), str_of(c->suffix)) && !(c->but && str_ends(str_of(name), str_of(c->but))))
        read_file(c, arena_printf(&c->arena, "%s/%s", c->dir, name).p);
}

static void collect(struct collect *c, const char *const *paths, struct errinfo *info)
{
    arena_init(&c->arena, 256 << 20);
    c->info = info;
    for (; !c->err && paths && *paths; paths++) {
        struct stat st;

        if (stat(*paths, &st) != 0) {
            c->err = err_set(info, E_CONFIG, "cannot read %s from %s: %s", c->what, *paths, strerror(errno));
        } else if (S_ISDIR(st.st_mode)) {
            c->dir = *paths;
            if (world->list(*paths, read_entry, c) < 0)
                c->err = err_set(info, E_CONFIG, "cannot list the %s in %s", c->what, *paths);
        } else {
            read_file(c, *paths);
        }
    }
}

enum err policies_load(const char *const *paths, struct policy_set **ret, struct errinfo *info)
{
    struct collect *c = calloc(1, sizeof(*c));
    enum err e;

    ASSERT(c != NULL);
    c->what = "policies";
    c->suffix = ".cedar";
    collect(c, paths, info);
    e = c->err ? c->err : policy_set_parse(c->files, c->n, 0, ret, info);
    arena_release(&c->arena);
    free(c);
    return e;
}

static void digest_of(const struct collect *c, char version[65])
{
    struct str *parts = calloc(2 * c->n + 1, sizeof(*parts));
    struct buf hex = BUF_INIT(65);
    uint8_t hash[SHA256_LEN];

    ASSERT(parts != NULL);
    for (size_t i = 0; i < c->n; i++) {
        parts[2 * i] = c->files[i].text;
        parts[2 * i + 1] = STR("\n");
    }
    sha256_parts(parts, 2 * c->n, hash);
    buf_add_hex(&hex, hash, sizeof(hash));
    memcpy(version, hex.p, 64);
    version[64] = '\0';
    buf_release(&hex);
    free(parts);
}

enum err entities_load(const char *const *paths, struct policy_entities **ret, char version[65], struct errinfo *info)
{
    struct collect *c = calloc(1, sizeof(*c));
    struct policy_entities *store = NULL;
    struct errinfo why = { "" };
    enum err e;

    ASSERT(c != NULL);
    c->what = "entities";
    c->suffix = ".json";
    c->but = ".cedar.json";
    *ret = NULL;
    version[0] = '\0';
    collect(c, paths, info);
    e = c->err;
    if (!e && c->n)
        store = policy_entities_new();
    for (size_t i = 0; i < c->n && !e; i++) {
        e = policy_entities_add_json(store, c->files[i].text, &why);
        if (e)
            e = err_set(info, E_CONFIG, "%.*s: %s", STR_ARG(c->files[i].name), why.text);
    }
    if (!e && store) {
        e = policy_entities_freeze(store, &why);
        if (e)
            e = err_set(info, E_CONFIG, "entities: %s", why.text);
    }
    if (!e && store)
        digest_of(c, version);
    arena_release(&c->arena);
    free(c);
    if (e)
        policy_entities_unref(store);
    else
        *ret = store;
    return e;
}

/* ---- the snapshot ------------------------------------------------------------------------------------------------ */

/* Candidates decide nothing, so what is wrong with them stops nothing: without them is as before. */
static struct policy_set *candidate_load(const struct config *c)
{
    struct policy_set *set = NULL;
    struct errinfo why = { "" };

    if (c->candidate[0] && policies_load(c->candidate, &set, &why))
        LOG_WARN("the candidate policies were not taken", LOG_S("why", why.text));
    return set;
}

/* That no action applies mostly follows from a wrong name: then that one helps more. */
static const struct policy_finding *first_error(const struct policy_report *r)
{
    const struct policy_finding *first = NULL;

    for (const struct policy_finding *f = r->first; f; f = f->next) {
        if (f->warning)
            continue;
        if (f->kind != POLICY_NO_ACTION_APPLIES)
            return f;
        first = first ? first : f;
    }
    return first;
}

/* What is wrong with the policies: each line of it is logged, up to a number; strict: the first is the error. */
static enum err tell_findings(const struct policy_report *r, bool strict, struct errinfo *info)
{
    const struct policy_finding *first = first_error(r);
    size_t n = 0;

    if (first && strict)
        return err_set(info, E_CONFIG, "%.*s:%u:%u: policy \"%.*s\": %.*s (errors: %zu; sluice policy check shows all)",
                       STR_ARG(first->file), first->line, first->column, STR_ARG(first->policy), STR_ARG(first->text),
                       r->n_errors);
    for (const struct policy_finding *f = r->first; f; f = f->next) {
        char place[300];

        if (f->warning)
            continue;
        snprintf(place, sizeof(place), "%.*s:%u:%u", STR_ARG(f->file), f->line, f->column);
        if (n++ == FINDINGS_LOGGED_MAX)
            break;
        LOG_WARN("a policy does not validate", LOG_S("place", place), LOG_SV("policy", f->policy),
                 LOG_SV("why", f->text));
    }
    if (r->n_errors > FINDINGS_LOGGED_MAX)
        LOG_WARN("there is more that does not validate: sluice policy check shows all",
                 LOG_I("errors", (int64_t)r->n_errors));
    return OK;
}

/* The live policies against the schema of what they can be asked. */
static enum err validate(const struct config *c, const struct registry *r, struct errinfo *info)
{
    bool strict = c->validation == POLICY_VALIDATION_STRICT;
    struct policy_schema *schema = NULL;
    struct policy_report report;
    struct buf text = BUF_INIT(64 << 20);
    struct errinfo why = { "" };
    enum err e;

    if (c->validation == POLICY_VALIDATION_OFF || policy_set_count(r->policy) == 0)
        return OK;
    policy_report_init(&report);
    e = vocabulary_write(r, &text, &why);
    if (!e)
        e = policy_schema_parse(STR("(schema)"), buf_str(&text), POLICY_SCHEMA_TEXT, &schema, NULL, &why);
    if (!e)
        e = policy_schema_validate(schema, r->policy, &report, &why);
    if (!e) {
        e = tell_findings(&report, strict, info);
    } else if (strict) {
        e = err_set(info, E_CONFIG, "the policies cannot be validated: %s", why.text);
    } else {
        LOG_WARN("the policies cannot be validated", LOG_S("why", why.text));   /* they are as good as before */
        e = OK;
    }
    policy_report_release(&report);
    policy_schema_unref(schema);
    buf_release(&text);
    return e;
}

static void lender_release(void *config)
{
    config_free(config);
}

enum err snapshot_build(struct config *c, struct registry **ret, struct errinfo *info)
{
    char version[65];
    struct registry_options opt = { .setups = c->providers,
                                    .n_setups = c->n_providers,
                                    .lender_release = lender_release,
                                    .enabled = c->connectors[0] ? c->connectors : NULL,
                                    .entities_version = version,
                                    .delegation_required = c->delegation_required,
                                    .budgets = { c->budgets[BUDGET_TENANT], c->budgets[BUDGET_AGENT],
                                                 c->budgets[BUDGET_USER] },
                                    .tool_budgets = c->tool_budgets,
                                    .n_tool_budgets = c->n_tool_budgets };
    struct registry *made = NULL;
    enum err e = policies_load(c->policies, &opt.policy, info);

    if (!e)
        e = entities_load(c->entities, &opt.entities, version, info);
    if (!e)
        opt.candidate = candidate_load(c);
    if (!e) {
        opt.lender = config_ref(c);
        e = registry_build(&opt, &made, info);
    }
    if (!e)
        e = validate(c, made, info);
    if (e)
        registry_unref(made);
    else
        *ret = made;
    policy_set_unref(opt.policy);
    policy_set_unref(opt.candidate);
    policy_entities_unref(opt.entities);
    return e;
}
