/*
 * shadow.c -- the candidate policies: asked what the live ones were asked, counted and recorded, never obeyed
 *
 * Nothing of a candidate reaches a call: it has memory of its own, its failures are counted, and what it would have
 * decided is said in the record and in a metric only.  Tool calls are asked about; lists and the engine's own actions
 * are not.
 */
#include <stdio.h>

#include "base/metric.h"
#include "call/internal.h"

enum { SHADOW_MEMORY_MAX = 1 << 20 };

static void count(const char *what, metric_slot_t *slot)
{
    if (!metric_slot_known(slot))
        metric_slot_ask(slot, M_POLICY_CANDIDATE_TOTAL, str_of(what));
    metric_add_at(M_POLICY_CANDIDATE_TOTAL, metric_slot(slot), 1);
}

static void note_flip(struct call *c, enum decided was, enum decided now, const struct policy_decision *sides, size_t n)
{
    static metric_slot_t slots[3][3];
    struct shadow_flip *f = &c->flip;
    char label[64];

    *f = (struct shadow_flip){ .flipped = true, .now = (uint8_t)now };
    for (size_t i = 0; i < n; i++)
        for (uint32_t k = 0; k < sides[i].n_reasons && k < POLICY_NAMED_MAX && f->n < SHADOW_NAMED_MAX; k++)
            f->policies[f->n++] = sides[i].reasons[k];
    snprintf(label, sizeof(label), "%s_to_%s", decided_name(was), decided_name(now));
    count(label, &slots[was][now]);
}

void call_shadow(struct call *c, const struct question *q)
{
    static metric_slot_t same, failed;
    const struct policy_set *candidate = c->registry->candidate;
    struct policy_request *requests;
    struct policy_decision *sides;
    struct arena memory;
    enum decided was, now;
    size_t n = c->asked->n, decided = 0;

    arena_init(&memory, SHADOW_MEMORY_MAX);
    requests = ARENA_ARRAY(&memory, struct policy_request, n);
    sides = ARENA_ARRAY(&memory, struct policy_decision, n);
    for (size_t i = 0; requests && i < n; i++) {
        requests[i] = c->asked->requests[i];
        requests[i].scratch = &memory;
    }
    if (!requests || !sides || policy_decide_sides(candidate, requests, n, sides, &decided)) {
        count("failed", &failed);
    } else {
        was = question_decided(q, c->sides, c->registry->delegation_required);
        now = question_decided(q, sides, c->registry->delegation_required);
        if (was == now)
            count("same", &same);
        else
            note_flip(c, was, now, sides, n);
    }
    arena_release(&memory);
}
