/*
 * decide_bench.c -- what DECIDE costs in a call: naming the request, and asking the policies once per side
 *
 *   decide_bench [--policies N]
 *
 * The whole of call_decide(), on frozen arguments of outlook.send_mail, for a caller with one agent (two sides), with
 * one delegation behind it (three) and with three (five).  Arguments, entities and context are made each time, as in a
 * call; the arena is cleared between two and keeps its memory.  CPU time, the first decile of batches.  With N (10 if
 * left out) policies beside those that decide. The same with candidate policies beside the live ones (shadow mode):
 * the same ones, and such as decide otherwise each time. Then what a list of all tools costs a caller: found anew, and
 * shared with others of the class.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/check.h"
#include "call/internal.h"
#include "call/listing.h"

enum { BATCH = 500, BATCHES = 400, FIRST_LISTS = 21 };

static const char deciding[] =
    "permit(principal is User in Tenant::\"demo\", action in Action::\"outlook\", resource is Mailbox);\n"
    "permit(principal is Agent in Tenant::\"demo\", action in Action::\"writes\", resource in Tenant::\"demo\");\n"
    "forbid(principal, action == Action::\"outlook.send_mail\", resource)\n"
    "unless { [\"a@demo.example\", \"b@demo.example\"].containsAll(context.args.to) };\n";

static int by_value(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

    return x < y ? -1 : x > y;
}

static int64_t now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);         /* others use this machine too */
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static const char otherwise[] = "@id(\"nobody\") forbid(principal, action, resource);\n";

static struct policy_set *policies(unsigned n, const char *more)
{
    struct buf text = BUF_INIT(1 << 26);
    struct policy_source source = { STR("bench"), STR_NULL };
    struct policy_set *set;
    struct errinfo info;

    buf_add_z(&text, deciding);
    buf_add_z(&text, more);
    for (unsigned i = 0; i < n; i++)
        buf_addf(&text, "permit(principal == User::\"u%u\", action in Action::\"reads\", resource == "
                        "Mailbox::\"m%u\");\n", i, i);
    source.text = buf_str(&text);
    ASSERT(policy_set_parse(&source, 1, 0, &set, &info) == OK);
    buf_release(&text);
    return set;
}

static void decide_once(struct call *c, const struct json *args)
{
    c->args = (struct json *)args;
    c->frozen = STR("{}");
    c->sides = NULL;
    ASSERT(call_decide(c) == OK);
}

static double measure(struct call *c, const struct json *args)
{
    static int64_t took[BATCHES];

    for (unsigned b = 0; b < BATCHES; b++) {
        int64_t begun = now_ns();

        for (unsigned i = 0; i < BATCH; i++) {
            arena_clear(&c->arena);
            arena_clear(&c->deciding);
            decide_once(c, args);
        }
        took[b] = now_ns() - begun;
    }
    qsort(took, BATCHES, sizeof(took[0]), by_value);
    return (double)took[BATCHES / 10] / BATCH;
}

/* With a candidate, which is asked after the live policies. */
static double measure_beside(struct call *c, const struct json *args, struct policy_set *candidate)
{
    double ns;

    c->registry->candidate = candidate;
    ns = measure(c, args);
    c->registry->candidate = NULL;
    return ns;
}

static int64_t list_once(struct call *c)
{
    const struct tool *last = &c->registry->tools[c->registry->n_tools - 1];
    int64_t begun = now_ns();

    arena_clear(&c->arena);
    arena_clear(&c->deciding);
    c->visible = NULL;
    c->delegations = NULL;
    ASSERT(call_could_allow(c, last));
    return now_ns() - begun;
}

/* tools/list without its text: a bit for each tool. The median of a class's first, each in a listing of its own. */
static double measure_first(struct call *c)
{
    int64_t took[FIRST_LISTS];

    for (unsigned i = 0; i < FIRST_LISTS; i++) {
        listing_free(c->registry->listing);
        c->registry->listing = listing_new(c->registry->policy, c->registry->n_tools, &c->registry->arena);
        ASSERT(c->registry->listing != NULL);
        took[i] = list_once(c);
    }
    qsort(took, FIRST_LISTS, sizeof(took[0]), by_value);
    return (double)took[FIRST_LISTS / 2];
}

static double measure_shared(struct call *c)
{
    static int64_t took[BATCHES];

    for (unsigned i = 0; i < BATCHES; i++)
        took[i] = list_once(c);
    qsort(took, BATCHES, sizeof(took[0]), by_value);
    return (double)took[BATCHES / 2];
}

int main(int argc, char **argv)
{
    static const char *const enabled[] = { "outlook", NULL };
    static const char text[] = "{\"body\":\"Hello\",\"subject\":\"Hi\","
                               "\"to\":[\"a@demo.example\",\"b@demo.example\"]}";
    unsigned n = argc == 3 && strcmp(argv[1], "--policies") == 0 ? (unsigned)atoi(argv[2]) : 10;
    struct caller_actor actors[] = { { STR("assistant"), STR_NULL }, { STR("planner"), STR_NULL },
                                     { STR("front"), STR_NULL }, { STR("desk"), STR_NULL } };
    struct caller caller = { .tenant = STR("demo"), .user = STR("alice@demo.example"), .agent = STR("assistant"),
                             .actors = actors, .auth = CALLER_AUTH_JWT };
    struct registry_options opt = { .enabled = enabled, .policy = policies(n, "") };
    struct policy_set *other = policies(n, otherwise);
    struct engine engine = { .n_workers = 1 };
    struct worker worker = { .engine = &engine };
    struct call c = { .magic = CALL_MAGIC, .worker = &worker, .caller = &caller, .resource_type = STR("Mailbox"),
                      .resource_id = STR("alice@demo.example") };
    struct errinfo info;
    struct json_error where;
    struct json *args;
    struct arena a;

    ASSERT(registry_build(&opt, &c.registry, &info) == OK);
    c.tool = registry_tool(c.registry, STR("outlook.send_mail"));
    arena_init(&a, 1 << 20);
    arena_init(&c.arena, CALL_ARENA_MAX);
    arena_init(&c.deciding, CALL_ARENA_MAX);
    ASSERT(c.tool && json_parse(&a, str_of(text), NULL, &args, &where) == OK);
    printf("DECIDE, %u policies beside those that decide; with candidates: the same, others\n", n);
    for (caller.n_actors = 1; caller.n_actors <= 4; caller.n_actors *= 2) {
        printf("  %u sides  %7.0f ns", caller.n_actors + 1, measure(&c, args));
        printf("  %7.0f ns", measure_beside(&c, args, opt.policy));
        printf("  %7.0f ns\n", measure_beside(&c, args, other));
    }
    caller.n_actors = 1;
    printf("  the tools of a caller (%zu): found %.0f ns, shared %.0f ns\n", c.registry->n_tools, measure_first(&c),
           measure_shared(&c));
    arena_release(&c.deciding);
    arena_release(&c.arena);
    arena_release(&a);
    registry_unref(c.registry);
    policy_set_unref(other);
    policy_set_unref(opt.policy);
    return 0;
}
