/* limits.c -- `sluice limits`: what a provider allows, as declared and as configured; and who stands in line now */
#include <limits.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "call/registry.h"
#include "cli/link.h"
#include "cli/print.h"
#include "loop/world.h"
#include "runtime/runtime.h"

static const char help[] =
    "Usage: sluice limits show [PROVIDER] [--config FILE]\n"
    "       sluice limits top [--once] --as USER [OPTIONS]\n"
    "       sluice limits top [--once] --all [OPTIONS]\n\n"
    "show prints each limit of a provider: what it counts for, what the connector declares, what the\n"
    "configuration sets, and where the number is from; then what requests cost. Runs without an engine.\n\n"
    "  sluice limits show gmail\n"
    "  sluice limits show slack --config /etc/sluice/sluice.yaml\n\n"
    "top shows the limits and budgets that are used most: the longest queues first, then what was\n"
    "throttled, is under way, was granted; as many as fit the terminal, again each second until Ctrl-C.\n"
    "Those of the caller's tenant (policy: Action::\"limits.list\"), or with --all those of all tenants\n"
    "and what they share: for the operator, who can read the data directory's key.\n\n"
    "  sluice limits top --once --tenant demo --as alice@demo.example\n"
    "  sluice limits top --all --data /var/lib/sluice\n\n"
    "  --all             of all tenants\n"
    "  --once            prints once and ends\n"
    "  --json            what the engine answers, with --once\n"
    LINK_HELP;

/* ---- show -------------------------------------------------------------------------------------------------------- */

static const char *const scopes[] = { [PER_ACCOUNT] = "account", [PER_TENANT] = "tenant", [PER_PROVIDER] = "everybody",
                                      [PER_METHOD] = "account and method", [PER_RESOURCE] = "account and resource" };

static struct str amounts(struct arena *a, const struct limit *l, int64_t amount, int64_t window_ms,
                          int64_t concurrency, int64_t spacing_ms)
{
    struct buf b = BUF_INIT(256);
    struct str ret;

    if (amount)
        buf_addf(&b, "%lld %s in %lld ms", (long long)amount, l->unit ? l->unit : "requests", (long long)window_ms);
    if (concurrency)
        buf_addf(&b, "%s%lld at once", b.len ? ", " : "", (long long)concurrency);
    if (spacing_ms)
        buf_addf(&b, "%s%lld ms apart", b.len ? ", " : "", (long long)spacing_ms);
    ret = b.len ? arena_str(a, buf_str(&b)) : STR("none");
    buf_release(&b);
    return ret;
}

static void show_limits(struct arena *a, const struct provider_conf *p)
{
    struct table t;

    table_init(&t, a, 6);
    table_row(&t, (const struct str[]){ STR("LIMIT"), STR("COUNTS FOR"), STR("DECLARED"), STR("IN FORCE"),
                                        STR("SET BY"), STR("SOURCE") });
    for (unsigned i = 0; i < p->n_limits; i++) {
        const struct limit_conf *l = &p->limits[i];
        const struct limit *d = l->decl;
        struct str declared = amounts(a, d, d->amount, d->window_ms, d->concurrency, d->spacing_ms),
                   now = amounts(a, d, l->amount, l->window_ms, l->concurrency, l->spacing_ms);

        table_row(&t, (const struct str[]){ str_of(l->name), str_of(scopes[l->scope]), declared, now,
                                            str_eq(declared, now) ? STR("connector") : STR("configuration"),
                                            str_of(d->source ? d->source : "") });
    }
    table_print(stdout, &t);
}

static void show_requests(struct arena *a, const struct provider_conf *p)
{
    struct table t;

    if (!p->n_requests)
        return;
    putchar('\n');
    table_init(&t, a, 4);
    table_row(&t, (const struct str[]){ STR("REQUEST"), STR("COSTS"), STR("SET BY"), STR("ALSO COUNTED BY") });
    for (unsigned i = 0; i < p->n_requests; i++) {
        const struct request_conf *r = &p->requests[i];
        struct buf b = BUF_INIT(512);

        for (unsigned k = 0; k < p->n_limits; k++)
            if (r->limits & 1u << k)
                buf_addf(&b, "%s%s", b.len ? ", " : "", p->limits[k].name);
        table_row(&t, (const struct str[]){ str_of(r->decl->request),
                                            arena_printf(a, "%lld", (long long)(r->cost ? r->cost : 1)),
                                            r->cost == r->decl->cost ? STR("connector") : STR("configuration"),
                                            arena_str(a, buf_str(&b)) });
        buf_release(&b);
    }
    table_print(stdout, &t);
}

static int show(const struct link_options *o, const char *name)
{
    struct config *config = NULL;
    struct registry *r = NULL;
    struct errinfo info = { "" };
    struct arena a;
    int rc = config_open(&verb_limits, o->config, NULL, &config);

    if (rc)
        return rc;
    config->validation = POLICY_VALIDATION_OFF;
    arena_init(&a, 4 << 20);
    if (snapshot_build(config, &r, &info))
        rc = complain(&verb_limits, EXIT_UNABLE, "%s", info.text);
    else if (name && !registry_provider(r, str_of(name)))
        rc = complain(&verb_limits, EXIT_UNABLE, "there is no provider \"%s\" in this configuration", name);
    for (size_t i = 0; !rc && i < r->n_providers; i++) {
        const struct provider_conf *p = &r->providers[i];

        if (name ? strcmp(p->decl->name, name) != 0 : p->n_limits == 0)
            continue;
        printf("%s%s\n", i && !name ? "\n" : "", p->decl->title);
        if (p->n_limits == 0)
            printf("no limits are declared\n");
        else
            show_limits(&a, p);
        show_requests(&a, p);
    }
    registry_unref(r);
    arena_release(&a);
    config_free(config);
    return rc;
}

/* ---- top --------------------------------------------------------------------------------------------------------- */

static int64_t number(const struct json *one, const char *name)
{
    int64_t n = 0;

    json_int(json_get(one, name), &n);
    return n;
}

static struct str number_text(struct arena *a, const struct json *one, const char *name)
{
    return json_get(one, name) ? arena_printf(a, "%lld", (long long)number(one, name)) : STR("-");
}

struct frame {
    struct arena a;
    struct json *answer;
    wall_ms_t at;
};

static const struct json *same_key(const struct frame *f, const struct json *one)
{
    const struct json *it = f->answer ? json_first(json_get(f->answer, "limits")) : NULL;

    while (it && (!str_eq(json_str(json_get(it, "key")), json_str(json_get(one, "key"))) ||
                  !str_eq(json_str(json_get(it, "tenant")), json_str(json_get(one, "tenant")))))
        it = json_next(it);
    return it;
}

/* Units apart, counts of grants wrap at 2^32. */
static struct str per_second(struct frame *f, const struct frame *before, const struct json *one)
{
    const struct json *old = same_key(before, one);
    uint32_t more = old ? (uint32_t)number(one, "granted") - (uint32_t)number(old, "granted") : 0;

    return old && f->at > before->at ? arena_printf(&f->a, "%.1f", more * 1e3 / (double)(f->at - before->at))
                                     : STR("-");
}

static void print_top(struct frame *f, const struct frame *before, bool all, unsigned rows)
{
    const struct json *one = json_first(json_get(f->answer, "limits"));
    struct arena *a = &f->a;
    struct table t;

    if (all)
        printf("%lld keys, %lld waiting, %lld throttled since the engine started\n",
               (long long)number(f->answer, "keys"), (long long)number(f->answer, "waiting"),
               (long long)number(f->answer, "throttled"));
    table_init(&t, a, all ? 11 : 10);
    table_row(&t, (const struct str[]){ STR("LIMIT"), STR("WAITING"), STR("OLDEST MS"), STR("AT ONCE"), STR("LEFT"),
                                        STR("GRANTED/S"), STR("REFUSED"), STR("PAUSED MS"), STR("THROTTLED"),
                                        STR("SHARE"), STR("TENANT") });
    for (; one && rows > 0; one = json_next(one), rows--) {
        struct str at_once = number(one, "at_once")
                                 ? arena_printf(a, "%lld/%lld", (long long)number(one, "in_flight"),
                                                (long long)number(one, "at_once")) : STR("-");
        struct str tenant = json_str(json_get(one, "tenant"));

        table_row(&t, (const struct str[]){ json_str(json_get(one, "key")), number_text(a, one, "waiting"),
                                            number_text(a, one, "oldest_ms"), at_once,
                                            number_text(a, one, "available"), per_second(f, before, one),
                                            number_text(a, one, "refused"), number_text(a, one, "paused_ms"),
                                            number_text(a, one, "throttled"),
                                            arena_printf(a, "%lld%%", (long long)number(one, "share_percent")),
                                            tenant.len ? tenant : STR("(all)") });
    }
    table_print(stdout, &t);
}

/* What fits below the lines above it; all where nobody looks. */
static unsigned rows_of_terminal(void)
{
    struct winsize w;

    return ioctl(STDOUT_FILENO, TIOCGWINSZ, &w) == 0 && w.ws_row > 4 ? w.ws_row - 4u : UINT_MAX;
}

static void write_json(const struct json *list)
{
    struct buf b = BUF_INIT(1 << 20);

    json_write_pretty(&b, list);
    printf("%.*s\n", STR_ARG(buf_str(&b)));
    buf_release(&b);
}

static int top(const struct link_options *o, bool all, bool once, bool as_json)
{
    const struct timespec second = { 1, 0 };
    struct frame frames[2] = { 0 };
    struct link l;
    int rc = link_open(&verb_limits, o, &l);

    for (unsigned i = 0; !rc; i++) {
        struct frame *f = &frames[i % 2], *before = &frames[(i + 1) % 2];

        arena_release(&f->a);
        *f = (struct frame){ .at = world->wall_ms() };
        arena_init(&f->a, 8 << 20);
        rc = link_renew(&verb_limits, o, &l);
        if (!rc)
            rc = link_ask(&verb_limits, &l, &f->a, "GET", all ? "/v1/limits/all" : "/v1/limits", NULL, &f->answer);
        if (!rc && !once)
            fputs("\033[H\033[J", stdout);
        if (!rc && once && as_json)
            write_json(json_get(f->answer, "limits"));
        else if (!rc)
            print_top(f, before, all, once ? UINT_MAX : rows_of_terminal());
        fflush(stdout);
        if (rc || once)
            break;
        nanosleep(&second, NULL);
    }
    arena_release(&frames[0].a);
    arena_release(&frames[1].a);
    link_close(&l);
    return rc;
}

static int run(int argc, char **argv)
{
    struct link_options o = { 0 };
    bool all = false, once = false, as_json = false;
    const struct option_spec specs[] = { { .name = "all", .flag = &all }, { .name = "once", .flag = &once },
                                         { .name = "json", .flag = &as_json }, LINK_OPTIONS(o), { 0 } };
    char *words[2] = { NULL, NULL };
    int n, rc = options_read(&verb_limits, argc, argv, specs, words, 2, &n);

    if (rc)
        return rc < 0 ? 0 : rc;
    if (n >= 1 && str_is(str_of(words[0]), "show"))
        return show(&o, n == 2 ? words[1] : NULL);
    if (n == 1 && str_is(str_of(words[0]), "top")) {
        if (all)
            o.scopes = OPERATOR_SCOPE;
        if (all && !o.user && !o.token)
            o.user = "operator";
        return top(&o, all, once || !isatty(STDOUT_FILENO), as_json);
    }
    return complain(&verb_limits, EXIT_USAGE, "write: sluice limits show [PROVIDER] or sluice limits top");
}

const struct verb verb_limits = { "limits", "what providers allow, and who stands in line", help, run };
