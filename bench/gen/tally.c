/* tally.c -- see tally.h */
#include <stdio.h>
#include <stdlib.h>

#include "bench/gen/tally.h"
#include "json/json.h"

void tally_init(struct tally *t, const struct requests *requests, int64_t began, int64_t ends)
{
    *t = (struct tally){ .requests = requests, .began = began, .ends = ends };
    histogram_init(&t->ok, HISTOGRAM_FINE);
    histogram_init(&t->refused, HISTOGRAM_FINE);
    histogram_init(&t->now, HISTOGRAM_FINE);
    t->group = need(calloc(requests->groups, sizeof(*t->group)));
    for (uint32_t i = 0; i < requests->groups; i++)
        histogram_init(&t->group[i].ok, HISTOGRAM_COARSE);
}

void tally_add_phase(struct tally *t, int64_t ends)
{
    struct phase_tally *p = &t->phase[t->phases++];

    p->ends = ends;
    histogram_init(&p->refused, HISTOGRAM_FINE);
}

void tally_release(struct tally *t)
{
    for (unsigned i = 0; i < t->phases; i++)
        histogram_release(&t->phase[i].refused);
    histogram_release(&t->ok);
    histogram_release(&t->refused);
    histogram_release(&t->now);
    for (uint32_t i = 0; i < t->requests->groups; i++)
        histogram_release(&t->group[i].ok);
    free(t->group);
    free(t->second);
}

/* ---- counting ---------------------------------------------------------------------------------------------------- */

static struct second *second_of(struct tally *t, int64_t when)
{
    size_t i = when > t->began ? (size_t)((when - t->began) / NS_PER_S) : 0;

    if (i >= t->room) {
        size_t room = (i + 1) * 2;

        t->second = need(realloc(t->second, room * sizeof(*t->second)));
        memset(t->second + t->room, 0, (room - t->room) * sizeof(*t->second));
        t->room = room;
    }
    return &t->second[i];
}

static void measure_second(struct tally *t)
{
    if (t->at < t->room) {
        t->second[t->at].p50 = histogram_at(&t->now, 0.5);
        t->second[t->at].p99 = histogram_at(&t->now, 0.99);
    }
}

static void count_reason(struct tally *t, const char *name)
{
    unsigned i = 0;

    while (i < t->reasons && strcmp(t->reason[i].name, name) != 0)
        i++;
    if (i == REASONS_SHOWN) {
        i--;
        snprintf(t->reason[i].name, REASON_MAX, "other");
    } else if (i == t->reasons) {
        snprintf(t->reason[t->reasons++].name, REASON_MAX, "%s", name);
    }
    t->reason[i].count++;
}

void tally_offered(struct tally *t, int64_t due)
{
    if (tally_counts(t, due)) {
        t->offered++;
        second_of(t, due)->offered++;
    }
}

static void count_refused(struct tally *t, int64_t due, uint64_t took)
{
    unsigned i = 0;

    histogram_add(&t->refused, took);
    while (i < t->phases && due >= t->phase[i].ends)
        i++;
    if (i < t->phases)
        histogram_add(&t->phase[i].refused, took);
}

void tally_ended(struct tally *t, uint32_t group, int64_t due, int64_t now, enum verdict v, const char *reason,
    bool heard)
{
    uint64_t took = now > due ? (uint64_t)(now - due) : 0;
    struct second *s;

    if (heard && tally_counts(t, now)) {
        t->answered++;
        t->group[group].answered++;
        t->ok_answered += v == VERDICT_OK;
    }
    if (!tally_counts(t, due))
        return;
    s = second_of(t, now);
    if ((size_t)(s - t->second) != t->at) {
        measure_second(t);
        histogram_clear(&t->now);
        t->at = (size_t)(s - t->second);
    }
    t->count[v]++;
    s->count[v]++;
    t->group[group].count[v]++;
    if (v != VERDICT_OK)
        count_reason(t, reason);
    if (v == VERDICT_REFUSED)
        count_refused(t, due, took);
    if (v == VERDICT_OK) {
        histogram_add(&t->ok, took);
        histogram_add(&t->now, took);
        histogram_add(&t->group[group].ok, took);
    }
}

void tally_progress(struct tally *t, int64_t now, uint64_t in_flight)
{
    const struct second *s = second_of(t, now - NS_PER_S);

    if ((size_t)(s - t->second) == t->at)
        measure_second(t);
    fprintf(stderr, "%5.0f s  offered %7lu  ok %7lu  refused %6lu  failed %6lu  p50 %8.1f us  p99 %9.1f us  "
                    "in flight %lu\n", (double)(now - t->began) / 1e9, s->offered, s->count[VERDICT_OK],
            s->count[VERDICT_REFUSED], s->count[VERDICT_FAILED], (double)s->p50 / 1e3, (double)s->p99 / 1e3, in_flight);
}

/* ---- the report -------------------------------------------------------------------------------------------------- */

static void add_bucket(uint64_t upper, uint32_t count, void *arg)
{
    struct buf *out = arg;

    buf_addf(out, "%s[%.3f,%u]", out->p[out->len - 1] == '[' ? "" : ",", (double)upper / 1e3, count);
}

static void add_histogram(struct buf *out, const char *name, const struct histogram *h)
{
    static const struct {
        const char *name;
        double part;
    } parts[] = { { "p50", 0.5 }, { "p90", 0.9 }, { "p99", 0.99 }, { "p999", 0.999 } };

    buf_addf(out, ",\"%s\":{\"count\":%lu,\"min\":%.3f,\"mean\":%.3f", name, h->count,
             h->count ? (double)h->min / 1e3 : 0, histogram_mean(h) / 1e3);
    for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++)
        buf_addf(out, ",\"%s\":%.3f", parts[i].name, (double)histogram_at(h, parts[i].part) / 1e3);
    buf_addf(out, ",\"max\":%.3f,\"buckets\":[", (double)h->max / 1e3);
    histogram_walk(h, add_bucket, out);
    buf_add_z(out, "]}");
}

static void add_counts(struct buf *out, const uint64_t count[VERDICTS])
{
    for (unsigned v = 0; v < VERDICTS; v++)
        buf_addf(out, "%s\"%s\":%lu", v ? "," : "", verdict_name((enum verdict)v), count[v]);
}

static void add_phases(struct buf *out, const struct tally *t)
{
    buf_add_z(out, ",\"phases\":[");
    for (unsigned i = 0; i < t->phases; i++) {
        buf_addf(out, "%s{\"refused\":%lu", i ? "," : "", t->phase[i].refused.count);
        add_histogram(out, "refused_us", &t->phase[i].refused);
        buf_add_c(out, '}');
    }
    buf_add_c(out, ']');
}

static void add_groups(struct buf *out, const struct tally *t)
{
    const char *comma = "";

    buf_add_z(out, ",\"groups\":{");
    for (uint32_t i = 1; i < t->requests->groups; i++) {
        const struct group_tally *g = &t->group[i];

        buf_add_z(out, comma);
        buf_add_json_str(out, t->requests->group[i]);
        buf_add_z(out, ":{");
        add_counts(out, g->count);
        buf_addf(out, ",\"answered\":%lu,\"p50\":%.3f,\"p99\":%.3f}", g->answered,
                 (double)histogram_at(&g->ok, 0.5) / 1e3, (double)histogram_at(&g->ok, 0.99) / 1e3);
        comma = ",";
    }
    buf_add_c(out, '}');
}

static void add_timeline(struct buf *out, struct tally *t)
{
    size_t n = t->room;

    measure_second(t);
    while (n > 0 && t->second[n - 1].offered == 0 && t->second[n - 1].count[0] == 0 && t->second[n - 1].count[1] == 0 &&
           t->second[n - 1].count[2] == 0)
        n--;
    buf_add_z(out, ",\"timeline\":[");
    for (size_t i = 0; i < n; i++) {
        const struct second *s = &t->second[i];

        buf_addf(out, "%s{\"t\":%zu,\"offered\":%lu,", i ? "," : "", i, s->offered);
        add_counts(out, s->count);
        buf_addf(out, ",\"p50\":%.3f,\"p99\":%.3f}", (double)s->p50 / 1e3, (double)s->p99 / 1e3);
    }
    buf_add_c(out, ']');
}

void tally_write(struct tally *t, const char *mode, struct buf *out)
{
    double seconds = (double)(t->ends - t->began) / 1e9;

    buf_addf(out, "{\"mode\":\"%s\",\"seconds\":%.6f,\"offered\":%lu,\"sent\":%lu,", mode, seconds, t->offered,
             t->sent);
    add_counts(out, t->count);
    buf_addf(out, ",\"late\":%lu,\"answered\":%lu,\"reasons\":{", t->late, t->answered);
    for (unsigned i = 0; i < t->reasons; i++)
        buf_addf(out, "%s\"%s\":%lu", i ? "," : "", t->reason[i].name, t->reason[i].count);
    buf_addf(out, "},\"rate_ok\":%.3f", seconds > 0 ? (double)t->ok_answered / seconds : 0);
    add_histogram(out, "latency_us", &t->ok);
    add_histogram(out, "refused_us", &t->refused);
    add_phases(out, t);
    add_groups(out, t);
    add_timeline(out, t);
    buf_addf(out, ",\"cpu_s\":%.6f,\"bytes_in\":%lu,\"bytes_out\":%lu}\n", t->cpu, t->bytes_in, t->bytes_out);
}
