/*
 * schema_apply.c -- the operations that ask other subschemas: about members, elements, names, or the same value
 *
 * Each is written as the loop it is.  run_ask() answers WAIT when the machine has to run first; the operation returns
 * it at once and, entered again, is at the same question: all it needs to know is in its frame (child, i, stage,
 * count, seen), and asking again gives the answer.  So what stands between entry and the question may happen twice.
 */
#include "base/check.h"
#include "json/schema_internal.h"

/* --- members ---------------------------------------------------------------------------------------------------- */

static void evaluated(struct run *r, const struct frame *f)
{
    if (f->flags & F_TRACK)
        bit_set(run_words(r, f), f->i);
}

/* The member's own rule, then each pattern that its name matches, then what is left over: stages 0, 1.., last. */
static enum answer member(struct run *r, struct frame *f, const struct object_rule *o)
{
    struct str key = json_key(f->child);
    enum answer a;

    if (f->stage == 0) {
        uint32_t n = names_find(&o->names, key, f->i);
        const struct member_rule *rule = n == NAMES_ABSENT ? NULL : &o->members[n];

        if (rule && rule->required && rule->required <= REQUIRED_BITS)
            f->seen |= (uint64_t)1 << (rule->required - 1);
        if (rule && rule->sub) {
            a = run_ask(r, f, rule->sub, f->child, f->i, 0);
            if (a != YES)
                return a;
            f->count = 1;
        }
        f->stage = 1;
    }
    for (; f->stage <= o->n_patterns; f->stage++) {
        const struct pattern_rule *rule = &o->patterns[f->stage - 1];

        if (!r->replied) {
            a = regex_match(rule->regex, key, &r->steps, SCHEMA_STEPS_MAX);
            if (a == WAIT)
                run_give_up(r, "is too complex to be checked");
            if (a != YES && a != NO)
                return WAIT;
            if (a == NO)
                continue;
        }
        a = run_ask(r, f, rule->sub, f->child, f->i, 0);
        if (a != YES)
            return a;
        f->count = 1;
    }
    if (!f->count && o->additional) {
        a = run_ask(r, f, o->additional, f->child, f->i, 0);
        if (a != YES)
            return a;
        f->count = 1;
    }
    return YES;
}

static enum answer missing(struct run *r, const struct frame *f, const struct object_rule *o)
{
    for (uint32_t i = 0; i < o->names.n; i++) {
        uint32_t bit = o->members[i].required;

        if (bit == 0 || (bit <= REQUIRED_BITS && f->seen >> (bit - 1) & 1))
            continue;
        if (bit > REQUIRED_BITS) {
            if (!run_charge(r, 1 + json_len(f->value) / 4))
                return WAIT;
            if (json_get_str(f->value, o->names.keys[i]))
                continue;
        }
        fault_say(r, NULL, 0, o->names.keys[i], "is required");
        return NO;
    }
    return YES;
}

static enum answer do_object(struct run *r, struct frame *f, const struct op *op)
{
    const struct object_rule *o = op->u.object;
    uint32_t bits = o->n_required < REQUIRED_BITS ? o->n_required : REQUIRED_BITS;

    for (; f->child; f->child = f->child->next, f->i++) {
        enum answer a;

        if (!run_charge(r, 1))
            return WAIT;
        a = member(r, f, o);
        if (a != YES)
            return a;
        if (f->count)
            evaluated(r, f);
        f->stage = f->count = 0;
    }
    if (o->n_required == 0)
        return YES;
    if (o->n_required <= REQUIRED_BITS && f->seen == UINT64_MAX >> (REQUIRED_BITS - bits))
        return YES;
    return missing(r, f, o);
}

/* A name is looked at as a string in the place of its member. No two are looked at at once: strings have no members. */
static enum answer do_names(struct run *r, struct frame *f, const struct op *op)
{
    for (; f->child; f->child = f->child->next, f->i++) {
        struct str key = json_key(f->child);
        enum answer a;

        r->name_of = f->child;
        r->name = (struct json){ .type = JSON_STRING, .len = (uint32_t)key.len, .key = key.p,
            .key_len = (uint16_t)key.len, .u.s = key.p };
        a = run_ask(r, f, op->u.sub, &r->name, f->i, 0);
        if (a != YES)
            return a;
    }
    r->name_of = NULL;
    return YES;
}

static enum answer do_unevaluated(struct run *r, struct frame *f, const struct op *op)
{
    for (; f->child; f->child = f->child->next, f->i++) {
        if (r->replied || !bit_get(run_words(r, f), f->i)) {
            enum answer a = run_ask(r, f, op->u.sub, f->child, f->i, 0);

            if (a != YES)
                return a;
            evaluated(r, f);
        } else if (!run_charge(r, 1)) {
            return WAIT;
        }
    }
    return YES;
}

/* --- elements --------------------------------------------------------------------------------------------------- */

static enum answer do_items(struct run *r, struct frame *f, const struct op *op)
{
    const struct items_rule *rule = op->u.items;

    for (; f->child; f->child = f->child->next, f->i++) {
        const struct sub *sub = f->i < rule->n_prefix ? rule->prefix[f->i] : rule->rest;
        enum answer a;

        if (!sub)
            return YES;
        a = run_ask(r, f, sub, f->child, f->i, 0);
        if (a != YES)
            return a;
        evaluated(r, f);
    }
    return YES;
}

static enum answer do_contains(struct run *r, struct frame *f, const struct op *op)
{
    const struct contains_rule *rule = op->u.contains;

    for (; f->child; f->child = f->child->next, f->i++) {
        enum answer a;

        if (!(f->flags & F_TRACK) && f->count >= rule->min && rule->max == UINT64_MAX)
            return YES;
        a = run_ask(r, f, rule->sub, f->child, f->i, ASK_QUIET);
        if (a == WAIT)
            return a;
        if (a == NO)
            continue;
        f->count++;
        evaluated(r, f);
    }
    if (f->count < rule->min) {
        if (rule->min == 1)
            fault_say(r, NULL, 0, STR_NULL, "holds no element of the form that one of them must have");
        else
            fault_say(r, NULL, 0, STR_NULL, "holds %u elements of a form of which it must hold at least %llu",
                f->count, (unsigned long long)rule->min);
        return NO;
    }
    if (f->count > rule->max) {
        fault_say(r, NULL, 0, STR_NULL, "holds %u elements of a form of which it may hold at most %llu", f->count,
            (unsigned long long)rule->max);
        return NO;
    }
    return YES;
}

/* --- the same value --------------------------------------------------------------------------------------------- */

/* The one form whose type fits, if there is exactly one: then its fault says more than "none of them". */
static const struct sub *only_candidate(const struct frame *f, const struct op *op)
{
    const struct sub *found = NULL;

    for (uint32_t i = 0; i < op->n; i++) {
        if (!(op->u.subs[i]->types & f->types))
            continue;
        if (found)
            return NULL;
        found = op->u.subs[i];
    }
    return found;
}

/* No form fits: asks the one that nearly did again, aloud. */
static enum answer none_fits(struct run *r, struct frame *f, const struct op *op)
{
    const struct sub *only = f->flags & ASK_QUIET ? NULL : only_candidate(f, op);

    f->stage = 1;
    if (only)
        return run_ask(r, f, only, f->value, f->at, ASK_SAME | ASK_APART) == WAIT ? WAIT : NO;
    fault_say(r, NULL, 0, STR_NULL, "fits none of the %u forms that are allowed here", op->n);
    return NO;
}

static enum answer do_any_of(struct run *r, struct frame *f, const struct op *op)
{
    if (f->stage)
        return none_fits(r, f, op);
    for (; f->i < op->n; f->i++) {
        enum answer a = run_ask(r, f, op->u.subs[f->i], f->value, f->at, ASK_SAME | ASK_QUIET);

        if (a == WAIT)
            return a;
        f->count += a == YES;
        if (f->count && !(f->flags & F_TRACK))          /* all that fit say what they evaluated */
            return YES;
    }
    return f->count ? YES : none_fits(r, f, op);
}

static enum answer do_one_of(struct run *r, struct frame *f, const struct op *op)
{
    if (f->stage)
        return none_fits(r, f, op);
    for (; f->i < op->n; f->i++) {
        enum answer a = run_ask(r, f, op->u.subs[f->i], f->value, f->at, ASK_SAME | ASK_QUIET);

        if (a == WAIT)
            return a;
        f->count += a == YES;
        if (f->count > 1) {
            fault_say(r, NULL, 0, STR_NULL, "fits more than one of the %u forms of which it must fit exactly one",
                op->n);
            return NO;
        }
    }
    return f->count ? YES : none_fits(r, f, op);
}

static enum answer do_not(struct run *r, struct frame *f, const struct op *op)
{
    enum answer a = run_ask(r, f, op->u.sub, f->value, f->at, ASK_SAME | ASK_QUIET | ASK_APART);

    if (a == YES)
        fault_say(r, NULL, 0, STR_NULL, "has a form that is not allowed here");
    return a == WAIT ? WAIT : a == YES ? NO : YES;
}

static enum answer do_if(struct run *r, struct frame *f, const struct op *op)
{
    const struct if_rule *rule = op->u.condition;
    const struct sub *then;

    if (f->stage == 0) {
        enum answer a;

        if (!rule->yes && !rule->no && !(f->flags & F_TRACK))
            return YES;
        a = run_ask(r, f, rule->test, f->value, f->at, ASK_SAME | ASK_QUIET);
        if (a == WAIT)
            return a;
        f->stage = a == YES ? 1 : 2;
    }
    then = f->stage == 1 ? rule->yes : rule->no;
    return then ? run_ask(r, f, then, f->value, f->at, ASK_SAME) : YES;
}

static enum answer do_dependent(struct run *r, struct frame *f, const struct op *op)
{
    const struct dependent_sub *rule = op->u.dependent;

    if (!r->replied) {
        if (!run_charge(r, 1 + json_len(f->value) / 4))
            return WAIT;
        if (!json_get_str(f->value, rule->key))
            return YES;
    }
    return run_ask(r, f, rule->sub, f->value, f->at, ASK_SAME);
}

/* The outermost resource in which the check is now, and which has the anchor. */
static enum answer do_dynamic(struct run *r, struct frame *f, const struct op *op)
{
    const struct dynamic_rule *rule = op->u.dynamic;
    const struct sub *target = rule->fallback;

    if (!r->replied) {
        if (!run_charge(r, 1 + r->n_frames / 4))
            return WAIT;
        for (uint32_t i = 0; i < r->n_frames; i++) {
            uint32_t resource = r->frames[i].sub->resource;

            ASSERT(resource < rule->n);
            if (rule->by_resource[resource]) {
                target = rule->by_resource[resource];
                break;
            }
        }
    }
    return run_ask(r, f, target, f->value, f->at, ASK_SAME);
}

enum answer apply_op(struct run *r, struct frame *f, const struct op *op)
{
    switch ((enum op_code)op->code) {
    case OP_OBJECT:                 return do_object(r, f, op);
    case OP_NAMES:                  return do_names(r, f, op);
    case OP_ITEMS:                  return do_items(r, f, op);
    case OP_CONTAINS:               return do_contains(r, f, op);
    case OP_SUB:                    return run_ask(r, f, op->u.sub, f->value, f->at, ASK_SAME);
    case OP_DYNAMIC:                return do_dynamic(r, f, op);
    case OP_ANY_OF:                 return do_any_of(r, f, op);
    case OP_ONE_OF:                 return do_one_of(r, f, op);
    case OP_NOT:                    return do_not(r, f, op);
    case OP_IF:                     return do_if(r, f, op);
    case OP_DEPENDENT_SUB:          return do_dependent(r, f, op);
    case OP_UNEVALUATED_ITEMS:
    case OP_UNEVALUATED_PROPERTIES: return do_unevaluated(r, f, op);
    default:                        UNREACHABLE();
    }
}
