/*
 * budget.c -- @budget("calls/min=10, writes/hour=5"): how often a permit permits
 *
 *   budget = item *( "," item )
 *   item   = what "/" window "=" amount
 *   what   = "calls" | "writes" | "destroys"
 *   window = "min" | "hour" | "day"
 *   amount = 1*DIGIT                       1 to POLICY_BUDGET_MAX
 *
 * Blanks may stand around an item and nowhere else in it; no item names the same thing and window twice.  Only a permit
 * has one.  A mistake in it is one of the file, told with its place: a budget that was not understood would be none.
 */
#include <stdio.h>

#include "base/check.h"
#include "policy/ast.h"

enum { ITEMS_MAX = 9 };

static const struct {
    const char *name;
    int64_t seconds;
} windows[] = { { "min", 60 }, { "hour", 3600 }, { "day", 86400 } };

static const char *const whats[] = { [POLICY_COUNTS_CALLS] = "calls", [POLICY_COUNTS_WRITES] = "writes",
                                     [POLICY_COUNTS_DESTROYS] = "destroys" };

const char *policy_budget_what(const struct policy_budget *b)
{
    return whats[b->what];
}

const char *policy_budget_window(const struct policy_budget *b)
{
    for (size_t i = 0; i < ARRAY_LEN(windows); i++)
        if (windows[i].seconds == b->window_s)
            return windows[i].name;
    return "?";
}

/* What is wrong with an item, or NULL. */
static const char *read_item(struct str item, struct policy_budget *ret)
{
    struct str what, window, amount;
    uint64_t n;

    *ret = (struct policy_budget){ .what = POLICY_COUNTS_CALLS };
    if (!str_cut(item, '/', &what, &window) || !str_cut(window, '=', &window, &amount))
        return "expected WHAT/WINDOW=AMOUNT";
    while (ret->what < ARRAY_LEN(whats) && !str_is(what, whats[ret->what]))
        ret->what++;
    if (ret->what == ARRAY_LEN(whats))
        return "what is counted is one of calls, writes, destroys";
    for (size_t i = 0; i < ARRAY_LEN(windows); i++)
        if (str_is(window, windows[i].name))
            ret->window_s = windows[i].seconds;
    if (!ret->window_s)
        return "the window is one of min, hour, day";
    if (!str_to_u64(amount, &n) || n < 1 || n > POLICY_BUDGET_MAX)
        return "the amount is a whole number from 1 to 1000000000";
    ret->amount = (int64_t)n;
    return NULL;
}

static const char *read_items(struct str text, struct policy_budget *items, uint32_t *ret_n)
{
    bool more = true;

    for (*ret_n = 0; more; (*ret_n)++) {
        struct policy_budget *b = &items[*ret_n];
        struct str item;
        const char *wrong;

        if (*ret_n == ITEMS_MAX)
            return "the same is counted in the same window twice";
        more = str_cut(text, ',', &item, &text);
        wrong = read_item(str_trim(more ? item : text), b);
        if (wrong)
            return wrong;
        for (uint32_t i = 0; i < *ret_n; i++)
            if (items[i].what == b->what && items[i].window_s == b->window_s)
                return "the same is counted in the same window twice";
    }
    return NULL;
}

/* Where the annotation is: in JSON there are no lines. */
static enum err wrong_budget(struct str file, const struct ast_policy *p, const struct ast_annotation *n,
    const char *wrong, struct errinfo *info)
{
    static const char example[] = "for example @budget(\"calls/min=10, writes/hour=5\")";

    if (n->line)
        return err_set(info, E_CONFIG, "%.*s:%u:%u: @budget: %s; %s", STR_ARG(file), n->line, n->column, wrong,
            example);
    return err_set(info, E_CONFIG, "%.*s: policy `%.*s`: @budget: %s; %s", STR_ARG(file), STR_ARG(p->id), wrong,
        example);
}

enum err budget_read(struct arena *a, struct str file, struct ast_policy *p, struct errinfo *info)
{
    struct policy_budget items[ITEMS_MAX], *kept;
    const struct ast_annotation *n = p->annotations;
    const char *wrong;

    while (n && !str_is(n->key, "budget"))
        n = n->next;
    if (!n)
        return OK;
    wrong = p->forbid ? "only a permit has a budget" : read_items(n->value, items, &p->n_budgets);
    if (wrong)
        return wrong_budget(file, p, n, wrong, info);
    kept = ARENA_ARRAY(a, struct policy_budget, p->n_budgets);
    if (!kept)
        return err_set(info, E_CALL_TOO_LARGE, "the policies need more memory than allowed");
    memcpy(kept, items, p->n_budgets * sizeof(*kept));
    p->budgets = kept;
    return OK;
}
