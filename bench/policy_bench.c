/*
 * policy_bench.c -- time of one decision (one side), for sets of 10 to 10,000 policies
 *
 *   policy_bench [--check]
 *
 * Three kinds of sets, each asked by 512 different callers:
 *
 *   role        permit(principal in Group::"g<i>", action in Action::"c<j>", resource is Mailbox)
 *               when an argument is below a bound
 *   attribute   permit(principal, action == Action::"c<j>.t<k>", resource)
 *               when attributes of both and an argument agree
 *   user        permit(principal == User::"u<i>", action, resource == Mailbox::"m<i>"), one per user
 *
 * A caller is a user in three groups and a tenant; tools lie in a connector and an effect; each call has its own layer
 * and context, built beforehand.  "hot": one caller after the other, mean of batches, the median batch counts.  "cold":
 * one decision after the caches were swept, p50 and p99.  --check: exit 1 unless hot is at most 600 ns at 10 policies
 * and 900 ns at 10,000.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/check.h"
#include "policy/policy.h"

enum { CALLERS = 512, ROUNDS = 200, COLD = 400, SWEEP = 48 << 20 };

struct caller {
    struct policy_uid user, action, mailbox, tenant, groups[3], connector, effect;
    struct policy_layer layer;
    struct policy_request request;
};

static struct arena arena, scratch;
static struct caller callers[CALLERS];
static char sweep[SWEEP];
static volatile unsigned sink;

static int64_t now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void write_policy(struct buf *b, const char *kind, unsigned i)
{
    if (strcmp(kind, "role") == 0)
        buf_addf(b, "permit(principal in Group::\"g%u\", action in Action::\"c%u\", resource is Mailbox) when { "
            "context.args.amount < %u && context.args has note };\n", i / 2, i % 5, 1000 + i);
    else if (strcmp(kind, "attribute") == 0)
        buf_addf(b,
            "permit(principal, action == Action::\"c%u.t%u\", resource) when { principal.dept == resource.dept && "
            "principal.level >= %u && context.args.amount < %u };\n", i % 5, i / 5, i % 7, 1000 + i);
    else
        buf_addf(b, "permit(principal == User::\"u%u\", action, resource == Mailbox::\"m%u\");\n", i, i);
}

static struct policy_set *make_set(const char *kind, unsigned n)
{
    struct buf text = BUF_INIT(64 << 20);
    struct policy_source source;
    struct policy_set *set = NULL;
    struct errinfo info;

    for (unsigned i = 0; i < n; i++)
        write_policy(&text, kind, i);
    source = (struct policy_source){ STR("bench"), buf_str(&text) };
    if (policy_set_parse(&source, 1, 0, &set, &info)) {
        fprintf(stderr, "%s\n", info.text);
        exit(1);
    }
    buf_release(&text);
    return set;
}

static struct policy_uid uid(const char *type, const char *prefix, unsigned i)
{
    return policy_uid(str_of(type), arena_printf(&arena, "%s%u", prefix, i));
}

static struct policy_value record(size_t n, const char *const *keys, const struct policy_value *values)
{
    struct policy_attr *attrs = ARENA_ARRAY(&arena, struct policy_attr, n);

    for (size_t i = 0; i < n; i++)
        attrs[i] = (struct policy_attr){ str_of(keys[i]), values[i] };
    return policy_record_of(attrs, n);
}

/* Callers are spread over the users and groups that n policies speak of. */
static void make_caller(struct caller *c, unsigned i, unsigned n)
{
    static const char *const who[] = { "dept", "level", "mail" }, *const what[] = { "amount", "note", "to" },
        *const ctx[] = { "args", "side", "time", "agent" };
    const struct policy_uid *up_user[] = { &c->groups[0], &c->groups[1], &c->groups[2], &c->tenant };
    const struct policy_uid *up_action[] = { &c->connector, &c->effect }, *up_box[] = { &c->tenant };
    struct policy_value dept = policy_string(STR("sales")), args;
    unsigned k = (unsigned)((uint64_t)i * n / CALLERS), tool = k / 5;

    c->user = uid("User", "u", k);
    c->mailbox = uid("Mailbox", "m", k);
    c->tenant = uid("Tenant", "t", 0);
    c->groups[0] = uid("Group", "g", k / 2);
    c->groups[1] = uid("Group", "g", k / 2 + 1);
    c->groups[2] = uid("Group", "other", k);
    c->connector = uid("Action", "c", k % 5);
    c->effect = uid("Action", "writes", 0);
    c->action = policy_uid(STR("Action"), arena_printf(&arena, "c%u.t%u", k % 5, tool));
    policy_layer_init(&c->layer, NULL);
    policy_layer_add(&c->layer, &arena, c->user, record(3, who, (struct policy_value[]){ dept, policy_long(9),
        policy_string(STR("a@example.org")) }), up_user, 4);
    policy_layer_add(&c->layer, &arena, c->action, (struct policy_value){ 0 }, up_action, 2);
    policy_layer_add(&c->layer, &arena, c->mailbox, record(1, who, &dept), up_box, 1);
    args = record(3, what, (struct policy_value[]){ policy_long(5), policy_string(STR("hello")),
        policy_string(STR("b@example.org")) });
    c->request = (struct policy_request){ .principal = &c->user, .action = &c->action, .resource = &c->mailbox,
        .entities = &c->layer, .scratch = &scratch,
        .context = record(4, ctx, (struct policy_value[]){ args, policy_string(STR("user")), policy_datetime(0),
            policy_string(STR("bot")) }) };
}

static int by_value(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

    return x < y ? -1 : x > y;
}

static unsigned decide(const struct policy_set *set, const struct caller *c)
{
    struct policy_decision d;

    if (policy_decide(set, &c->request, &d))
        abort();
    return d.effect == POLICY_ALLOW;
}

static double hot(const struct policy_set *set, unsigned *ret_allowed)
{
    static int64_t t[ROUNDS];

    for (int r = 0; r < ROUNDS; r++) {
        int64_t start = now_ns();

        *ret_allowed = 0;
        for (int i = 0; i < CALLERS; i++)
            *ret_allowed += decide(set, &callers[i]);
        t[r] = now_ns() - start;
    }
    qsort(t, ROUNDS, sizeof(t[0]), by_value);
    return (double)t[ROUNDS / 2] / CALLERS;
}

static void cold(const struct policy_set *set, int64_t *p50, int64_t *p99)
{
    static int64_t t[COLD];
    int64_t start;

    for (int r = 0; r < COLD; r++) {
        for (size_t i = 0; i < SWEEP; i += 64)
            sweep[i]++;
        start = now_ns();
        sink += decide(set, &callers[r * 7 % CALLERS]);
        t[r] = now_ns() - start;
    }
    qsort(t, COLD, sizeof(t[0]), by_value);
    *p50 = t[COLD / 2];
    *p99 = t[COLD * 99 / 100];
}

int main(int argc, char **argv)
{
    static const char *const kinds[] = { "role", "attribute", "user" };
    static const unsigned sizes[] = { 10, 100, 1000, 10000 };
    bool check = argc > 1 && strcmp(argv[1], "--check") == 0, ok = true;

    arena_init(&arena, 64 << 20);
    arena_init(&scratch, 1 << 20);
    printf("%-10s %8s %10s %10s %10s %10s %9s\n", "set", "policies", "load ms", "hot ns", "cold p50", "cold p99",
        "allowed");
    for (size_t k = 0; k < ARRAY_LEN(kinds); k++) {
        double mean = 0;

        for (size_t s = 0; s < ARRAY_LEN(sizes); s++) {
            int64_t start = now_ns(), loaded, p50, p99;
            struct policy_set *set = make_set(kinds[k], sizes[s]);
            unsigned allowed;

            loaded = now_ns() - start;
            arena_clear(&arena);
            for (unsigned i = 0; i < CALLERS; i++)
                make_caller(&callers[i], i, sizes[s]);
            mean = hot(set, &allowed);
            ok &= mean <= (sizes[s] == 10 ? 600 : 900);
            cold(set, &p50, &p99);
            printf("%-10s %8u %10.2f %10.0f %10lld %10lld %8u%%\n", kinds[k], sizes[s], (double)loaded / 1e6, mean,
                (long long)p50,
                (long long)p99, allowed * 100 / CALLERS);
            policy_set_unref(set);
        }
    }
    arena_release(&arena);
    arena_release(&scratch);
    return check && !ok;
}
