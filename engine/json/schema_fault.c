/*
 * schema_fault.c -- where a value is wrong and what it should have been, for whoever has to mend it
 *
 *   where    JSON Pointer: one "/name" or "/position" per frame that is not about its asker's value, then the value
 *            without a frame that is being looked at, then what the fault itself adds
 *   what     from the schema; a value that is quoted is the schema's
 *
 * Nothing here runs for a value that fits, or while an opinion is only asked for (anyOf, not, if): r->quiet.
 */
#include <stdio.h>

#include "base/check.h"
#include "json/schema_internal.h"

/* Text that ends in "..." when it was cut; never in the middle of a character. */
struct text {
    char *p;
    size_t len, size;
    bool cut;
};

static void text_add(struct text *t, struct str s)
{
    size_t room = t->size - 4 - t->len, n = s.len < room ? s.len : room;

    if (t->cut)
        return;
    if (n < s.len)
        while (n > 0 && ((unsigned char)s.p[n] & 0xc0) == 0x80)
            n--;
    memcpy(t->p + t->len, s.p, n);
    t->len += n;
    if (n < s.len) {
        t->cut = true;
        memcpy(t->p + t->len, "...", 3);
        t->len += 3;
    }
    t->p[t->len] = 0;
}

static void add_name(struct text *t, struct str name)
{
    text_add(t, STR("/"));
    for (size_t i = 0; i < name.len;) {
        size_t n = i;

        while (n < name.len && name.p[n] != '~' && name.p[n] != '/')
            n++;
        text_add(t, (struct str){ name.p + i, n - i });
        if (n < name.len)
            text_add(t, name.p[n] == '~' ? STR("~0") : STR("~1"));
        i = n + 1;
    }
}

static void add_step(struct text *t, const struct json *child, uint32_t at)
{
    char position[16];

    if (child->key)
        add_name(t, json_key(child));
    else
        text_add(t, str_n(position, (size_t)snprintf(position, sizeof(position), "/%u", at)));
}

static void add_where(struct run *r, struct text *t)
{
    for (uint32_t i = 1; i < r->n_frames; i++)
        if (!(r->frames[i].flags & ASK_SAME))
            add_step(t, r->frames[i].value, r->frames[i].at);
    if (r->leaf)
        add_step(t, r->leaf, r->leaf_at);
}

static bool about_name(const struct run *r)
{
    return r->name_of && (r->leaf == &r->name || (r->n_frames && r->frames[r->n_frames - 1].value == &r->name));
}

void fault_say(struct run *r, const struct json *child, uint32_t at, struct str name, const char *fmt, ...)
{
    struct text where, what;
    va_list ap;
    char said[sizeof(r->fault->what)];

    if (r->quiet || !r->fault || r->fatal)
        return;
    where = (struct text){ .p = r->fault->where, .size = sizeof(r->fault->where) };
    what = (struct text){ .p = r->fault->what, .size = sizeof(r->fault->what) };
    where.p[0] = 0;
    add_where(r, &where);
    if (child)
        add_step(&where, child, at);
    if (name.p)
        add_name(&where, name);
    va_start(ap, fmt);
    vsnprintf(said, sizeof(said), fmt, ap);
    va_end(ap);
    if (about_name(r))
        text_add(&what, STR("has a name that "));
    text_add(&what, str_of(said));
}

/* --- what the assertions say ------------------------------------------------------------------------------------ */

/* A value of the schema, shortened. */
static void quote(char out[96], const struct json *j)
{
    struct buf b = BUF_INIT(4096);
    struct text t = { .p = out, .size = 96 };

    out[0] = 0;
    json_write(&b, j);
    text_add(&t, buf_str(&b));
    buf_release(&b);
}

static void say_type(struct run *r, unsigned mask)
{
    static const char *const names[] = { "null", "true or false", "an object", "an array", "a number", "a string",
        "a whole number" };
    char list[128] = "";
    struct text t = { .p = list, .size = sizeof(list) };

    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        if (!(mask >> i & 1))
            continue;
        mask &= ~(1u << i);
        if (t.len)
            text_add(&t, mask ? STR(", ") : STR(" or "));
        text_add(&t, str_of(names[i]));
    }
    fault_say(r, NULL, 0, STR_NULL, "must be %s", list);
}

static void say_enum(struct run *r, const struct enum_rule *rule)
{
    char list[220] = "";
    struct text t = { .p = list, .size = sizeof(list) };

    for (uint32_t i = 0; i < rule->n && !t.cut; i++) {
        char one[96];

        quote(one, rule->values[i]);
        if (i)
            text_add(&t, STR(", "));
        text_add(&t, str_of(one));
    }
    fault_say(r, NULL, 0, STR_NULL, rule->n > 1 ? "must be one of %s" : "must be %s", rule->n ? list : "absent");
}

static void say_value(struct run *r, const char *what, const struct json *value)
{
    char quoted[96];

    quote(quoted, value);
    fault_say(r, NULL, 0, STR_NULL, "must be %s%s", what, quoted);
}

static void say_count(struct run *r, const char *what, const struct op *op, const char *unit, const char *after)
{
    unsigned long long n = op->u.bound;

    fault_say(r, NULL, 0, STR_NULL, "must %s %llu %s%s%s", what, n, unit, n == 1 ? "" : "s", after);
}

void fault_needed(struct run *r, struct str name, struct str because)
{
    char key[96] = "";
    struct text t = { .p = key, .size = sizeof(key) };

    text_add(&t, because);
    fault_say(r, NULL, 0, name, "is required when %s is given", key);
}

void fault_op(struct run *r, const struct op *op)
{
    struct str pattern;

    if (r->quiet || !r->fault || r->fatal)
        return;
    switch ((enum op_code)op->code) {
    case OP_TYPE:           say_type(r, op->n); return;
    case OP_CONST:          say_value(r, "", op->u.value); return;
    case OP_ENUM:           say_enum(r, op->u.choice); return;
    case OP_MINIMUM:        say_value(r, "at least ", op->u.value); return;
    case OP_MAXIMUM:        say_value(r, "at most ", op->u.value); return;
    case OP_ABOVE:          say_value(r, "greater than ", op->u.value); return;
    case OP_BELOW:          say_value(r, "less than ", op->u.value); return;
    case OP_MULTIPLE_OF:    say_value(r, "a multiple of ", op->u.value); return;
    case OP_MIN_LENGTH:     say_count(r, "be at least", op, "character", " long"); return;
    case OP_MAX_LENGTH:     say_count(r, "be at most", op, "character", " long"); return;
    case OP_MIN_ITEMS:      say_count(r, "have at least", op, "element", ""); return;
    case OP_MAX_ITEMS:      say_count(r, "have at most", op, "element", ""); return;
    case OP_MIN_PROPERTIES: say_count(r, "have at least", op, "member", ""); return;
    case OP_MAX_PROPERTIES: say_count(r, "have at most", op, "member", ""); return;
    case OP_FORMAT:         fault_say(r, NULL, 0, STR_NULL, "must be %s", format_what((enum format)op->n)); return;
    case OP_PATTERN:
        pattern = regex_pattern(op->u.regex);
        fault_say(r, NULL, 0, STR_NULL, "must match the pattern %.*s", STR_ARG(pattern));
        return;
    default:                UNREACHABLE();
    }
}
