/* schedule.c -- see schedule.h */
#include <math.h>
#include <stdlib.h>

#include "bench/gen/schedule.h"

bool schedule_add(struct schedule *s, double rate, double seconds)
{
    if (s->phases == PHASES_MAX || !(rate >= 0) || !(seconds > 0) || !isfinite(rate) || !isfinite(seconds))
        return false;
    s->phase[s->phases++] = (struct phase){ rate, seconds };
    return true;
}

bool schedule_parse(struct schedule *s, const char *text)
{
    for (;;) {
        char *end;
        double rate = strtod(text, &end), seconds;

        if (end == text || *end != ':')
            return false;
        text = end + 1;
        seconds = strtod(text, &end);
        if (end == text || !schedule_add(s, rate, seconds))
            return false;
        if (*end == '\0')
            return true;
        if (*end != ',')
            return false;
        text = end + 1;
    }
}

double schedule_seconds(const struct schedule *s)
{
    double sum = 0;

    for (unsigned i = 0; i < s->phases; i++)
        sum += s->phase[i].seconds;
    return sum;
}

double schedule_rate_at(const struct schedule *s, double second)
{
    for (unsigned i = 0; i < s->phases; i++) {
        if (second < s->phase[i].seconds)
            return s->phase[i].rate;
        second -= s->phase[i].seconds;
    }
    return 0;
}

/*
 * A process whose rate changes is one of rate 1 in a time that runs at that rate: the distance to the next arrival is
 * drawn once (1 where they are even) and used up phase by phase.  So nothing is lost or doubled at an edge.
 */
int64_t schedule_next(struct schedule *s)
{
    double left = s->even ? 1 : -log(chance_unit(&s->chance));

    for (; s->at < s->phases; s->at++, s->past = 0) {
        const struct phase *p = &s->phase[s->at];
        double room = (p->seconds - s->past) * p->rate;

        if (left < room) {
            s->past += left / p->rate;
            return (int64_t)((s->before + s->past) * 1e9);
        }
        left -= room;
        s->before += p->seconds;
    }
    return -1;
}
