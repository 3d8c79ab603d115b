/* scope.c -- constraints of heads, as trees */
#include "policy/scope.h"

#include "base/check.h"
#include "policy/program.h"

/* --- matching ----------------------------------------------------------------------------------------------------- */

static bool has_type(const struct ast_scope *s)
{
    return s->kind == SCOPE_IS || s->kind == SCOPE_IS_IN;
}

bool scope_matches(const struct ast_scope *s, const struct policy_uid *uid, const struct policy_entity *entity)
{
    bool in = s->kind == SCOPE_ANY || s->kind == SCOPE_IS;

    if (has_type(s) && !str_eq(s->type, uid->type))
        return false;
    for (size_t i = 0; i < s->n && !in; i++)
        in = s->kind == SCOPE_EQ ? policy_uid_eq(uid, &s->uids[i]) : eval_in(uid, entity, &s->uids[i]);
    return in;
}

/* --- covering ----------------------------------------------------------------------------------------------------- */

static bool among(const struct policy_uid *uid, const struct ast_scope *s)
{
    for (size_t i = 0; i < s->n; i++)
        if (policy_uid_eq(uid, &s->uids[i]))
            return true;
    return false;
}

bool scope_covers(const struct ast_scope *wide, const struct ast_scope *narrow)
{
    if (has_type(wide)) {
        struct str type = has_type(narrow) ? narrow->type : narrow->kind == SCOPE_EQ && narrow->n ? narrow->uids->type
            : STR("");

        if (!str_eq(type, wide->type))
            return false;
    }
    switch ((enum scope_kind)wide->kind) {
    case SCOPE_ANY:
    case SCOPE_IS:
        return true;
    case SCOPE_EQ:
        return narrow->kind == SCOPE_EQ && among(narrow->uids, wide);
    case SCOPE_IN:
    case SCOPE_IS_IN:
        if (narrow->kind == SCOPE_ANY || narrow->kind == SCOPE_IS)
            return false;
        for (size_t i = 0; i < narrow->n; i++)
            if (!among(&narrow->uids[i], wide))
                return false;
        return true;
    }
    UNREACHABLE();
}

/* --- finding ------------------------------------------------------------------------------------------------------ */

uint64_t scope_key_of(const struct ast_scope *s)
{
    if (s->kind == SCOPE_IS)
        return policy_uid(s->type, STR("")).type_hash;
    return s->n ? s->uids->hash : 0;
}

int scope_key_cmp(const void *a, const void *b)
{
    const struct scope_key *x = a, *y = b;

    if (x->key != y->key)
        return x->key < y->key ? -1 : 1;
    return (x->number > y->number) - (x->number < y->number);
}

size_t scope_key_first(const void *things, size_t n, size_t size, uint64_t key)
{
    size_t low = 0, high = n;

    while (low < high) {
        size_t mid = low + (high - low) / 2;
        const struct scope_key *k = (const void *)((const char *)things + mid * size);

        if (k->key < key)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}
