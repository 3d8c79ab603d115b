/*
 * validate_in.c -- the type of `in`
 *
 * Of two actions it is known whether one is in the other: the schema says so.  Of other entities it is known when it
 * cannot be, because entities of the one type are never in entities of the other.
 */
#include "base/check.h"
#include "policy/validate.h"

const struct policy_uid *validate_literal_uid(const struct validator *v, const struct ast *e)
{
    if (e->op == AST_ENTITY)
        return &e->u.uid;
    if (e->op == AST_VAR && e->u.number == VAR_ACTION)
        return &v->kind.action->uid;
    return NULL;
}

/* Whether some action of type `low` is in one of type `high`. */
static bool actions_can_be_in(const struct policy_schema *s, const struct schema_entity *low,
    const struct schema_entity *high)
{
    for (uint32_t i = 0; i < s->n_actions; i++)
        for (uint32_t k = 0; s->actions[i]->type == low && k < s->actions[i]->n_above; k++)
            if (s->actions[s->actions[i]->above[k]]->type == high)
                return true;
    return false;
}

bool validate_can_be_in(const struct policy_schema *s, const struct schema_entity *low,
    const struct schema_entity *high)
{
    if (low == high || schema_above(low->above, low->n_above, high->index))
        return true;
    return low->action && high->action && actions_can_be_in(s, low, high);
}

/* Whether the right side is made of nothing but literals. */
static bool all_literal(const struct validator *v, const struct ast *e)
{
    const struct ast *kid = e->first;

    if (e->op != AST_SET)
        return validate_literal_uid(v, e) != NULL;
    for (uint32_t i = 0; i < e->n; i++, kid = kid->next)
        if (!validate_literal_uid(v, kid))
            return false;
    return true;
}

/* An action in what the right side names: what is no action there does not count. */
static struct answer action_in(struct validator *v, const struct policy_uid *low, const struct ast *right)
{
    const struct schema_action *action = schema_action(v->schema, low), *up;
    const struct ast *kid = right->op == AST_SET ? right->first : right;
    uint32_t n = right->op == AST_SET ? right->n : 1;
    bool is_in = false;

    for (uint32_t i = 0; i < n; i++, kid = kid->next) {
        const struct policy_uid *high = validate_literal_uid(v, kid);

        if (!policy_type_is_action(high->type))
            continue;
        up = schema_action(v->schema, high);
        if (!up || !action)
            return answer_of(&type_bool, false);
        is_in |= up == action || schema_above(action->above, action->n_above, up->index);
    }
    return answer_of(is_in ? &type_true : &type_false, true);
}

struct answer validate_in(struct validator *v, const struct ast *e, struct answer lhs, const struct ast *right)
{
    struct answer rhs = validate_wanted(v, right, WANT_ENTITY | WANT_ENTITIES);
    const struct policy_uid *low = validate_literal_uid(v, e->first);
    const struct type *high;

    if (!lhs.ok || !rhs.ok)
        return answer_of(&type_bool, false);
    if (low && policy_type_is_action(low->type) && all_literal(v, right))
        return action_in(v, low, right);
    high = rhs.type->kind == TYPE_SET ? rhs.type->u.elem : rhs.type;
    if (!validate_can_be_in(v->schema, lhs.type->u.entity, high->u.entity))
        return answer_of(&type_false, true);
    return answer_of(&type_bool, true);
}
