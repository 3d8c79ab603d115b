/*
 * provider.c -- the two APIs of the simulated provider: items (connector.c), and as much of Microsoft Graph as the
 * connector for Outlook asks for
 *
 * A draft's id tells the operation it was made for ("m1017x3"), a meeting's transactionId the call's key; both are
 * found again in the log of effects, so nothing else is kept.
 */
#include "provider.h"

#include <stdio.h>
#include <stdlib.h>

#include "sim.h"

static bool done_for_key(struct str key)
{
    for (size_t i = 0; i < upstream_n_effects; i++)
        if (key.len && str_is(key, upstream_effects[i].key))
            return true;
    return false;
}

/* ---- items ------------------------------------------------------------------------------------------------------- */

void items_deed(const struct request *r, struct deed *e)
{
    int64_t step = 0;
    uint64_t n;

    if (str_is(r->method, "POST") && str_is(r->path, "/v1/items")) {
        json_int(json_get(r->json, "op"), &e->op);
        json_int(json_get(r->json, "step"), &step);
        e->step = (int)step;
        snprintf(e->key, sizeof(e->key), "%.*s", STR_ARG(json_str(json_get(r->json, "key"))));
    } else if (str_is(r->method, "DELETE") && str_starts(r->path, STR("/v1/items/")) &&
               str_to_u64(str_from(r->path, 10), &n)) {
        e->op = (int64_t)n;
        e->step = 1;
    }
}

const char *items_text(const struct request *r, const struct deed *e, struct arena *a)
{
    bool made = str_starts(r->path, STR("/v1/keys/")) && done_for_key(str_from(r->path, 9));

    return arena_printf(a, "{\"id\":\"item-%lld\",\"owner\":\"%s/%s\",\"made\":%s}", (long long)e->op, e->tenant,
                        e->user, made ? "true" : "false")
        .p;
}

/* ---- Graph ------------------------------------------------------------------------------------------------------- */

/* The operation in a subject: "op 1017 ...". */
static int64_t op_in(struct str subject)
{
    return str_starts(subject, STR("op ")) ? strtoll(subject.p + 3, NULL, 10) : -1;
}

static bool is_send(const struct request *r)
{
    return str_starts(r->path, STR("/v1.0/me/messages/m")) && str_ends(r->path, STR("/send"));
}

/* Sending a draft and making a meeting are effects; a draft is none: nobody sees it. */
void graph_deed(const struct request *r, struct deed *e)
{
    if (!str_is(r->method, "POST"))
        return;
    if (is_send(r)) {
        e->op = strtoll(r->path.p + strlen("/v1.0/me/messages/m"), NULL, 10);
        e->step = 1;
    } else if (str_is(r->path, "/v1.0/me/events")) {
        e->op = op_in(json_str(json_get(r->json, "subject")));
        e->step = 1;
        snprintf(e->key, sizeof(e->key), "%.*s", STR_ARG(json_str(json_get(r->json, "transactionId"))));
    }
}

static bool op_done(int64_t op)
{
    for (size_t i = 0; i < upstream_n_effects; i++)
        if (upstream_effects[i].op == op)
            return true;
    return false;
}

static const char *meetings_text(struct arena *a, const struct deed *e)
{
    struct buf b = BUF_INIT(1 << 20);
    const char *z;
    bool first = true;

    buf_add_z(&b, "{\"value\":[");
    for (size_t i = 0; i < upstream_n_effects; i++) {
        const struct deed *d = &upstream_effects[i];

        if (!d->key[0] || strcmp(d->tenant, e->tenant) != 0 || strcmp(d->user, e->user) != 0)
            continue;
        buf_addf(&b, "%s{\"id\":\"e%lld\",\"transactionId\":\"%s\"}", first ? "" : ",", (long long)d->op, d->key);
        first = false;
    }
    buf_add_z(&b, "]}");
    z = arena_z(a, buf_str(&b));
    buf_release(&b);
    return z;
}

static const char *free_text(struct arena *a)
{
    char view[337];

    memset(view, '0', sizeof(view) - 1);
    view[sizeof(view) - 1] = '\0';
    return arena_printf(a, "{\"value\":[{\"availabilityView\":\"%s\"}]}", view).p;
}

const char *graph_text(const struct request *r, const struct deed *e, struct arena *a)
{
    bool post = str_is(r->method, "POST");

    if (is_send(r))
        return "";
    if (str_starts(r->path, STR("/v1.0/me/calendarView")))
        return meetings_text(a, e);
    if (str_is(r->path, "/v1.0/me/calendar/getSchedule"))
        return free_text(a);
    if (post && str_is(r->path, "/v1.0/me/messages"))
        return arena_printf(a, "{\"id\":\"m%lldx%.8s\"}", (long long)op_in(json_str(json_get(r->json, "subject"))),
                            e->call + 5)
            .p;
    if (post)
        return arena_printf(a, "{\"id\":\"e%lld\"}", (long long)e->op).p;
    if (str_starts(r->path, STR("/v1.0/me/messages/m")))
        return op_done(strtoll(r->path.p + strlen("/v1.0/me/messages/m"), NULL, 10)) ? "{\"isDraft\":false}"
                                                                                     : "{\"isDraft\":true}";
    return arena_printf(a, "{\"value\":[{\"id\":\"m1\",\"subject\":\"of %s/%s\",\"isRead\":true}]}", e->tenant, e->user)
        .p;
}
