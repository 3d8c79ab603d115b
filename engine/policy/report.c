/*
 * report.c -- findings about schemas and policies, in order
 */
#include "policy/report.h"

#include <stdio.h>

#include "base/check.h"

enum { REPORT_MAX = 16 << 20 };

void policy_report_init(struct policy_report *r)
{
    *r = (struct policy_report){ 0 };
    arena_init(&r->arena, REPORT_MAX);
}

void policy_report_release(struct policy_report *r)
{
    arena_release(&r->arena);
    map_release(&r->by_policy);
    *r = (struct policy_report){ 0 };
}

const char *policy_finding_name(enum policy_finding_kind kind)
{
    static const char *const names[] = { "unknown-type", "unknown-action", "unknown-id", "no-action-applies",
        "wrong-type", "mixed-types", "no-such-attribute", "may-lack-attribute", "no-tags", "may-lack-tag", "empty-set",
        "wrong-arity", "bad-constant", "not-constant", "impossible", "shadows", "shadowed",
        "redundant", "never-asked", "never-applies", "always-fails" };

    ASSERT((size_t)kind < ARRAY_LEN(names));
    return names[kind];
}

static bool before(const struct policy_finding *a, const struct policy_finding *b)
{
    return a->line != b->line ? a->line < b->line : a->column < b->column;
}

static bool same(const struct policy_finding *a, const struct policy_finding *b)
{
    return a->kind == b->kind && a->line == b->line && a->column == b->column && str_eq(a->text, b->text);
}

/* Behind `at`, or first of all (NULL). */
static void link_in(struct policy_report *r, struct policy_finding *at, struct policy_finding *f)
{
    struct policy_finding **from = at ? &at->next : &r->first;

    f->next = *from;
    *from = f;
    if (r->last == at)
        r->last = f;
}

/* What comes first of a policy stays where it is, because by_policy knows it: the two change places. */
static void link_before(struct policy_report *r, struct policy_finding *first, struct policy_finding *f)
{
    struct policy_finding t = *first;

    link_in(r, first, f);
    t.next = f->next;
    f->next = first->next;
    *first = *f;
    *f = t;
}

void report_add(struct policy_report *r, const struct policy_finding *f, const char *fmt, ...)
{
    struct policy_finding *first = map_get(&r->by_policy, f->policy), *at = NULL, *copy, found = *f;
    char text[600];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    found.text = str_of(text);
    /* One policy's findings stand together, in the order of the text. */
    for (struct policy_finding *i = first; i && str_eq(i->policy, f->policy) && !before(f, i); i = i->next) {
        if (same(i, &found))
            return;
        at = i;
    }
    *(f->warning ? &r->n_warnings : &r->n_errors) += 1;
    copy = ARENA_NEW(&r->arena, struct policy_finding);
    if (!copy)
        return;
    *copy = found;
    copy->text = arena_str(&r->arena, found.text);
    copy->policy = arena_str(&r->arena, f->policy);
    copy->file = arena_str(&r->arena, f->file);
    if (arena_overflowed(&r->arena))
        return;
    if (first && !at) {
        link_before(r, first, copy);
    } else {
        link_in(r, first ? at : r->last, copy);
        if (!first)
            map_put(&r->by_policy, copy->policy, copy);
    }
}
