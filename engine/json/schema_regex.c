/*
 * schema_regex.c -- patterns: ECMA-262 with the u flag, translated to PCRE2 and matched within a budget
 *
 * Nothing of a pattern reaches PCRE2 as it is: each construct of ECMA-262 is read and written as what means the same
 * there, everything else is refused (PCRE2's own verbs, recursion, options).  Where the two differ:
 *
 *   .            all but \n \r U+2028 U+2029         \s \S      Unicode white space and U+FEFF
 *   $            the very end                         \d \w \b   ASCII
 *   [] [^]       nothing, anything                    [          stands for itself inside a class
 *   \uXXXX \u{}  code points, pairs joined            \p{Letter} long names of general categories
 *   \1 \k<n>     empty while the group is unset       {          stands for itself where it is no repetition
 *
 * Lenient: a backslash before any ASCII punctuation, and "-" anywhere in a class.  Missing: lookbehind of variable
 * length, lone surrogates (no valid text has one).
 *
 * Cost.  The matcher backtracks, so time must be bounded.  PCRE2 counts backtracks and stops at a limit; a match begins
 * with a small one, which suffices for nearly all, and each time it is not enough the caller's budget is charged and
 * the match begun again with eight times as much.  A pattern that is not anchored is tried at every position of the
 * text: on long texts that is done in windows, each charged for what it may have to read.
 */
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <pthread.h>
#include <stdlib.h>

#include "base/check.h"
#include "json/json_internal.h"
#include "json/schema_internal.h"

enum {
    PATTERN_MAX = 8192,                 /* bytes */
    GROUPS_NESTED_MAX = 20,             /* compiling recurses: 20 KB of stack for the first, then 600 bytes each */
    LIMIT_FIRST = 100,                  /* backtracks */
    LIMIT_GROWTH = 8,
    /* a backtrack costs about 8 ns and may read on through the text; a step stands for some 80 ns */
    BACKTRACK_BYTES = 16,
    BACKTRACK_BYTES_PER_STEP = 160,
    WINDOW_TEXT = 1024,                 /* texts up to here are tried in one go */
    BYTES_PER_STEP = 256,
    STEPS_PER_WINDOW = 4096,
    JIT_STACK_MAX = 512 * 1024,
    HEAP_MAX_KIB = 4096,
};

struct regex {
    struct regex *next;
    pcre2_code *code;
    struct str pattern;                 /* behind this struct */
    bool anchored;
};

/* --- translating ------------------------------------------------------------------------------------------------ */

struct reader {
    const unsigned char *p, *end;
    struct buf out;
    const char *why;                    /* set: refused */
    unsigned groups;                    /* that capture, in the whole pattern */
    unsigned open;                      /* groups without their ")" yet */
};

#define SPACES "\\x{9}-\\x{d}\\x{20}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}" \
    "\\x{3000}\\x{feff}"
#define NOT_SPACES "\\x{0}-\\x{8}\\x{e}-\\x{1f}\\x{21}-\\x{9f}\\x{a1}-\\x{167f}\\x{1681}-\\x{1fff}\\x{200b}-\\x{2027}" \
    "\\x{202a}-\\x{202e}\\x{2030}-\\x{205e}\\x{2060}-\\x{2fff}\\x{3001}-\\x{fefe}\\x{ff00}-\\x{10ffff}"

static bool refuse(struct reader *r, const char *why)
{
    if (!r->why)
        r->why = why;
    return false;
}

static bool next_is(const struct reader *r, const char *text)
{
    size_t n = strlen(text);

    return (size_t)(r->end - r->p) >= n && memcmp(r->p, text, n) == 0;
}

static bool take(struct reader *r, const char *text)
{
    if (!next_is(r, text))
        return false;
    r->p += strlen(text);
    return true;
}

static void emit(struct reader *r, const char *text)
{
    buf_add_z(&r->out, text);
}

static void emit_char(struct reader *r, uint32_t c)
{
    if ((c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z'))
        buf_add_c(&r->out, (char)c);
    else
        buf_addf(&r->out, "\\x{%x}", c);
}

static uint32_t take_char(struct reader *r)
{
    size_t n = *r->p < 0x80 ? 1 : utf8_multibyte(r->p, r->end);
    uint32_t c = n == 1 ? *r->p : *r->p & (0x7fu >> n);

    ASSERT(n > 0);                      /* the whole pattern was seen to be UTF-8 */
    for (size_t i = 1; i < n; i++)
        c = c << 6 | (r->p[i] & 0x3fu);
    r->p += n;
    return c;
}

/* `n` hex digits, or up to '}' if n is 0. */
static bool take_hex(struct reader *r, int n, uint32_t *ret)
{
    uint32_t v = 0;
    int got = 0;

    for (; r->p < r->end && (n == 0 ? *r->p != '}' : got < n); r->p++, got++) {
        unsigned c = *r->p, low = c | 0x20;

        if (c >= '0' && c <= '9')
            v = v * 16 + (c - '0');
        else if (low >= 'a' && low <= 'f')
            v = v * 16 + (low - 'a' + 10);
        else
            return refuse(r, "malformed \\x or \\u escape");
        if (v > 0x10ffff)
            return refuse(r, "no such code point");
    }
    if (got == 0 || (n && got < n) || (n == 0 && !take(r, "}")))
        return refuse(r, "malformed \\x or \\u escape");
    *ret = v;
    return true;
}

/* Behind "\u". */
static bool take_unicode(struct reader *r, uint32_t *ret)
{
    uint32_t low;

    if (take(r, "{")) {
        if (!take_hex(r, 0, ret))
            return false;
    } else if (!take_hex(r, 4, ret)) {
        return false;
    } else if (*ret >= 0xd800 && *ret <= 0xdbff && take(r, "\\u")) {
        if (!take_hex(r, 4, &low) || low < 0xdc00 || low > 0xdfff)
            return refuse(r, "a lone surrogate");
        *ret = 0x10000 + ((*ret - 0xd800) << 10) + (low - 0xdc00);
    }
    return *ret >= 0xd800 && *ret <= 0xdfff ? refuse(r, "a lone surrogate") : true;
}

/* The long names and aliases of general categories that PCRE2 does not know; NULL: not one of them. */
static const char *category(struct str name)
{
    static const char *const names[][2] = {
        { "Letter", "L" }, { "Cased_Letter", "L&" }, { "LC", "L&" }, { "Uppercase_Letter", "Lu" },
        { "Lowercase_Letter", "Ll" }, { "Titlecase_Letter", "Lt" }, { "Modifier_Letter", "Lm" },
        { "Other_Letter", "Lo" }, { "Mark", "M" }, { "Combining_Mark", "M" }, { "Nonspacing_Mark", "Mn" },
        { "Spacing_Mark", "Mc" }, { "Enclosing_Mark", "Me" }, { "Number", "N" }, { "Decimal_Number", "Nd" },
        { "digit", "Nd" }, { "Letter_Number", "Nl" }, { "Other_Number", "No" }, { "Punctuation", "P" },
        { "punct", "P" }, { "Connector_Punctuation", "Pc" }, { "Dash_Punctuation", "Pd" },
        { "Open_Punctuation", "Ps" }, { "Close_Punctuation", "Pe" }, { "Initial_Punctuation", "Pi" },
        { "Final_Punctuation", "Pf" }, { "Other_Punctuation", "Po" }, { "Symbol", "S" }, { "Math_Symbol", "Sm" },
        { "Currency_Symbol", "Sc" }, { "Modifier_Symbol", "Sk" }, { "Other_Symbol", "So" }, { "Separator", "Z" },
        { "Space_Separator", "Zs" }, { "Line_Separator", "Zl" }, { "Paragraph_Separator", "Zp" }, { "Other", "C" },
        { "Control", "Cc" }, { "cntrl", "Cc" }, { "Format", "Cf" }, { "Surrogate", "Cs" }, { "Private_Use", "Co" },
        { "Unassigned", "Cn" },
    };

    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        if (str_is(name, names[i][0]))
            return names[i][1];
    return NULL;
}

/* Behind "\p" or "\P". */
static bool property(struct reader *r, bool negative)
{
    struct str name = { (const char *)r->p + 1, 0 };
    const char *prefix = "", *known;

    if (!take(r, "{"))
        return refuse(r, "malformed \\p escape");
    while (r->p < r->end && *r->p != '}') {
        unsigned c = *r->p++;

        if (!((c | 0x20) >= 'a' && (c | 0x20) <= 'z') && !(c >= '0' && c <= '9') && c != '_' && c != '=')
            return refuse(r, "malformed \\p escape");
    }
    name.len = (size_t)((const char *)r->p - name.p);
    if (!take(r, "}") || name.len == 0)
        return refuse(r, "malformed \\p escape");
    if (str_starts(name, STR("General_Category=")) || str_starts(name, STR("gc=")))
        str_cut(name, '=', &(struct str){ 0 }, &name);
    else if (str_starts(name, STR("Script=")) || str_starts(name, STR("sc=")))
        prefix = "sc:", str_cut(name, '=', &(struct str){ 0 }, &name);
    else if (str_starts(name, STR("Script_Extensions=")) || str_starts(name, STR("scx=")))
        prefix = "scx:", str_cut(name, '=', &(struct str){ 0 }, &name);
    if (str_is(name, "Assigned")) {
        negative = !negative;
        name = STR("Cn");
    }
    known = *prefix ? NULL : category(name);
    emit(r, negative ? "\\P{" : "\\p{");
    emit(r, prefix);
    buf_add_str(&r->out, known ? str_of(known) : name);
    emit(r, "}");
    return true;
}

/*
 * Behind a backslash: an escape for one character, the same inside and outside a class. True and *ret; false and
 * nothing taken if it is another kind, or refused.
 */
static bool char_escape(struct reader *r, uint32_t *ret)
{
    static const char letters[] = "tnvfr", means[] = "\t\n\v\f\r";
    unsigned c = *r->p;
    const char *letter = c ? strchr(letters, (int)c) : NULL;

    if (letter) {
        *ret = (unsigned char)means[letter - letters];
        r->p++;
        return true;
    }
    if (c == 'x' || c == 'u') {
        r->p++;
        return c == 'x' ? take_hex(r, 2, ret) : take_unicode(r, ret);
    }
    if (c == 'c') {
        unsigned control = r->end - r->p > 1 ? r->p[1] | 0x20u : 0;

        if (control < 'a' || control > 'z')
            return refuse(r, "malformed \\c escape");
        r->p += 2;
        *ret = control & 0x1f;
        return true;
    }
    if (c == '0') {
        if (r->end - r->p > 1 && r->p[1] >= '0' && r->p[1] <= '9')
            return refuse(r, "octal escapes are not part of the syntax");
        r->p++;
        *ret = 0;
        return true;
    }
    if (c > 0x20 && c < 0x7f && !(c >= '0' && c <= '9') && !((c | 0x20) >= 'a' && (c | 0x20) <= 'z') && c != '_') {
        r->p++;
        *ret = c;
        return true;
    }
    return false;
}

/* Behind a backslash: a class of characters. False and nothing taken if it is not one. */
static bool class_escape(struct reader *r, bool inside)
{
    unsigned c = *r->p;

    switch (c) {
    case 'd': emit(r, inside ? "0-9" : "[0-9]"); break;
    case 'D': emit(r, inside ? "\\x{0}-\\x{2f}\\x{3a}-\\x{10ffff}" : "[^0-9]"); break;
    case 'w': emit(r, inside ? "0-9A-Z_a-z" : "[0-9A-Z_a-z]"); break;
    case 'W':
        emit(r, inside ? "\\x{0}-\\x{2f}\\x{3a}-\\x{40}\\x{5b}-\\x{5e}\\x{60}\\x{7b}-\\x{10ffff}" : "[^0-9A-Z_a-z]");
        break;
    case 's': emit(r, inside ? SPACES : "[" SPACES "]"); break;
    case 'S': emit(r, inside ? NOT_SPACES : "[" NOT_SPACES "]"); break;
    case 'p':
    case 'P':
        r->p++;
        return property(r, c == 'P');
    default:
        return false;
    }
    r->p++;
    return true;
}

static bool escape_unknown(struct reader *r)
{
    return refuse(r, "an escape that is not part of the syntax");
}

/* One end of a range: true and *ret; *single false if it was a class of its own, and has been written. */
static bool class_atom(struct reader *r, bool *single, uint32_t *ret)
{
    *single = true;
    if (!take(r, "\\")) {
        *ret = take_char(r);
        return true;
    }
    if (r->p == r->end)
        return refuse(r, "ends in a backslash");
    if (take(r, "b")) {
        *ret = '\b';
        return true;
    }
    if (char_escape(r, ret))
        return true;
    *single = false;
    return !r->why && (class_escape(r, true) || escape_unknown(r));
}

static bool class_range(struct reader *r, uint32_t from)
{
    uint32_t to;
    bool single;

    r->p++;                                     /* the hyphen */
    emit_char(r, from);
    if (next_is(r, "\\") && r->end - r->p > 1 && strchr("dDwWsSpP", r->p[1])) {
        emit_char(r, '-');                      /* [a-\d]: three things, as older syntax had it */
        return true;
    }
    if (!class_atom(r, &single, &to))
        return false;
    if (to < from)
        return refuse(r, "a range that ends before it begins");
    emit(r, "-");
    emit_char(r, to);
    return true;
}

/* Behind "[". */
static bool char_class(struct reader *r)
{
    bool negative = take(r, "^");

    if (take(r, "]")) {
        emit(r, negative ? "[\\x{0}-\\x{10ffff}]" : "(?!)");
        return true;
    }
    emit(r, negative ? "[^" : "[");
    while (r->p < r->end && *r->p != ']') {
        bool single;
        uint32_t c;

        if (!class_atom(r, &single, &c))
            return false;
        if (!single)
            continue;
        if (next_is(r, "-") && r->end - r->p > 1 && r->p[1] != ']') {
            if (!class_range(r, c))
                return false;
        } else {
            emit_char(r, c);
        }
    }
    emit(r, "]");
    return take(r, "]") || refuse(r, "a class without end");
}

static bool group_name(struct reader *r)
{
    const unsigned char *start = r->p;

    while (r->p < r->end && *r->p != '>') {
        unsigned c = *r->p++;

        if (!((c | 0x20) >= 'a' && (c | 0x20) <= 'z') && c != '_' && !(c >= '0' && c <= '9' && r->p - 1 > start))
            return refuse(r, "a group name that is not plain");
    }
    if (r->p == start || r->p - start > 32)
        return refuse(r, "a group name that is empty or too long");
    buf_add(&r->out, start, (size_t)(r->p - start));
    return take(r, ">") || refuse(r, "a group name without end");
}

/* Behind "(". */
static bool group(struct reader *r)
{
    static const char *const heads[] = { "?:", "?=", "?!", "?<=", "?<!" };

    emit(r, "(");
    if (++r->open > GROUPS_NESTED_MAX)
        return refuse(r, "too many groups inside each other");
    for (size_t i = 0; i < ARRAY_LEN(heads); i++) {
        if (take(r, heads[i])) {
            emit(r, heads[i]);
            return true;
        }
    }
    if (take(r, "?<")) {
        emit(r, "?<");
        if (!group_name(r))
            return false;
        emit(r, ">");
        return true;
    }
    return next_is(r, "?") || next_is(r, "*") ? refuse(r, "a kind of group that is not part of the syntax") : true;
}

/* Behind a backslash, outside a class. */
static bool escape(struct reader *r, bool *repeatable)
{
    uint32_t c;

    if (r->p == r->end)
        return refuse(r, "ends in a backslash");
    if (*r->p == 'b' || *r->p == 'B') {
        emit(r, *r->p++ == 'b' ? "\\b" : "\\B");
        *repeatable = false;
        return true;
    }
    if (*r->p >= '1' && *r->p <= '9') {
        unsigned n = 0;

        while (r->p < r->end && *r->p >= '0' && *r->p <= '9' && n < 1000)
            n = n * 10 + (*r->p++ - '0');
        if (n > r->groups)
            return refuse(r, "a reference to a group that is not there");
        buf_addf(&r->out, "\\g{%u}", n);
        return true;
    }
    if (take(r, "k<")) {
        emit(r, "\\k{");
        if (!group_name(r))
            return false;
        emit(r, "}");
        return true;
    }
    if (char_escape(r, &c)) {
        emit_char(r, c);
        return true;
    }
    return !r->why && (class_escape(r, false) || escape_unknown(r));
}

/* The length of {n}, {n,} or {n,m} here, 0 if the brace is none of them. */
static size_t repetition(const struct reader *r)
{
    const unsigned char *p = r->p + 1, *start = p;

    while (p < r->end && *p >= '0' && *p <= '9')
        p++;
    if (p == start)
        return 0;
    if (p < r->end && *p == ',')
        for (p++; p < r->end && *p >= '0' && *p <= '9';)
            p++;
    return p < r->end && *p == '}' ? (size_t)(p + 1 - r->p) : 0;
}

static bool repetition_ordered(const struct reader *r, size_t len)
{
    struct str min, max, inner = { (const char *)r->p + 1, len - 2 };
    uint64_t a, b;

    return !str_cut(inner, ',', &min, &max) || !max.len || (str_to_u64(min, &a) && str_to_u64(max, &b) && a <= b);
}

/* *, +, ? or {..}, and the "?" that makes it lazy. */
static bool quantifier(struct reader *r, size_t len, bool *repeatable)
{
    if (!*repeatable)
        return refuse(r, "a repetition of nothing");
    if (*r->p == '{' && !repetition_ordered(r, len))
        return refuse(r, "a repetition that ends before it begins");
    buf_add(&r->out, r->p, len);
    r->p += len;
    if (take(r, "?"))
        emit(r, "?");
    *repeatable = false;
    return true;
}

static bool term(struct reader *r, bool *repeatable)
{
    unsigned c = *r->p;
    size_t len = c == '{' ? repetition(r) : c == '*' || c == '+' || c == '?';

    if (len)
        return quantifier(r, len, repeatable);
    *repeatable = !strchr("^$|(", (int)(c ? c : 'x'));
    switch (c) {
    case '\\': r->p++; return escape(r, repeatable);
    case '[':  r->p++; return char_class(r);
    case '(':  r->p++; return group(r);
    case '.':  r->p++; emit(r, "[^\\x{a}\\x{d}\\x{2028}\\x{2029}]"); return true;
    case ')':
        if (r->open-- == 0)
            return refuse(r, "a \")\" without its \"(\"");
        /* fallthrough */
    case '^':
    case '$':
    case '|':
        buf_add_c(&r->out, (char)c);
        r->p++;
        return true;
    default:
        emit_char(r, take_char(r));
        return true;
    }
}

/* Groups that capture: what a \1 may refer to, even before the group. */
static unsigned groups_count(struct str s)
{
    bool inside = false;
    unsigned n = 0;

    for (size_t i = 0; i < s.len; i++) {
        struct str rest = str_from(s, i + 1);

        if (s.p[i] == '\\')
            i++;
        else if (s.p[i] == '[' || s.p[i] == ']')
            inside = s.p[i] == '[';
        else if (s.p[i] == '(' && !inside)
            n += !str_starts(rest, STR("?")) || (str_starts(rest, STR("?<")) && !str_starts(rest, STR("?<=")) &&
                !str_starts(rest, STR("?<!")));
    }
    return n;
}

static enum err translate(struct str pattern, struct buf *out, struct errinfo *info)
{
    struct reader r = { .out = BUF_INIT(PATTERN_MAX * 64), .groups = groups_count(pattern) };
    bool repeatable = false;

    if (pattern.len > PATTERN_MAX)
        return err_set(info, E_CONFIG, "longer than %d bytes", PATTERN_MAX);
    if (!str_utf8_valid(pattern))
        return err_set(info, E_CONFIG, "not valid UTF-8");
    r.p = (const unsigned char *)pattern.p;
    r.end = r.p + pattern.len;
    while (r.p < r.end && term(&r, &repeatable))
        ;
    if (r.open)
        refuse(&r, "a group without end");
    if (r.out.overflow)
        refuse(&r, "too long");
    *out = r.out;
    return r.why ? err_set(info, E_CONFIG, "%s, before byte %zu", r.why,
        (size_t)((const char *)r.p - (pattern.len ? pattern.p : (const char *)r.p))) : OK;
}

/* --- compiling -------------------------------------------------------------------------------------------------- */

static pcre2_code *code_new(struct str text, struct errinfo *info)
{
    const uint32_t options = PCRE2_UTF | PCRE2_DOLLAR_ENDONLY | PCRE2_MATCH_UNSET_BACKREF | PCRE2_NEVER_BACKSLASH_C |
        PCRE2_USE_OFFSET_LIMIT;
    pcre2_compile_context *context = pcre2_compile_context_create(NULL);
    pcre2_code *code = NULL;
    PCRE2_SIZE at = 0;
    int error = 0;

    if (context) {
        pcre2_set_parens_nest_limit(context, GROUPS_NESTED_MAX);
        pcre2_set_newline(context, PCRE2_NEWLINE_LF);
        code = pcre2_compile((PCRE2_SPTR)(text.p ? text.p : ""), text.len, options, &error, &at, context);
    }
    pcre2_compile_context_free(context);
    if (!code) {
        char why[120] = "no memory";

        if (error)
            pcre2_get_error_message(error, (PCRE2_UCHAR *)why, sizeof(why));
        err_set(info, E_CONFIG, "%s", why);
    }
    return code;
}

enum err regex_compile(struct str pattern, struct regex **ret, struct errinfo *info)
{
    struct buf text = BUF_INIT(0);
    struct regex *r = NULL;
    pcre2_code *code = NULL;
    uint32_t all = 0;
    enum err e = translate(pattern, &text, info);

    if (!e)
        code = code_new(buf_str(&text), info);
    buf_release(&text);
    if (e || !code)
        return E_CONFIG;
    r = calloc(1, sizeof(*r) + pattern.len + 1);
    if (!r) {
        pcre2_code_free(code);
        return err_set(info, E_CONFIG, "no memory");
    }
    pcre2_jit_compile(code, PCRE2_JIT_COMPLETE);        /* where it cannot, matching interprets */
    pcre2_pattern_info(code, PCRE2_INFO_ALLOPTIONS, &all);
    if (pattern.len)
        memcpy(r + 1, pattern.p, pattern.len);
    r->code = code;
    r->pattern = (struct str){ (const char *)(r + 1), pattern.len };
    r->anchored = all & PCRE2_ANCHORED;
    *ret = r;
    return OK;
}

bool regex_syntax(struct str pattern)
{
    struct buf text = BUF_INIT(0);
    enum err e = translate(pattern, &text, NULL);

    buf_release(&text);
    return e == OK;
}

void regex_chain(struct regex *r, struct regex *next)
{
    ASSERT(r->next == NULL);
    r->next = next;
}

struct str regex_pattern(const struct regex *r)
{
    return r->pattern;
}

void regex_free(struct regex *r)
{
    while (r) {
        struct regex *next = r->next;

        pcre2_code_free(r->code);
        free(r);
        r = next;
    }
}

/* --- matching --------------------------------------------------------------------------------------------------- */

/* What a match needs besides the program. One per thread: a check never waits, so matches of a thread never overlap. */
struct workshop {
    pcre2_match_data *data;
    pcre2_match_context *context;
    pcre2_jit_stack *stack;             /* its own: compiled code would put 32 KB on the task's stack */
};

static pthread_key_t workshop_key;
static pthread_once_t workshop_once = PTHREAD_ONCE_INIT;
static _Thread_local struct workshop *workshop_here;

static void workshop_free(void *p)
{
    struct workshop *w = p;

    pcre2_match_data_free(w->data);
    pcre2_match_context_free(w->context);
    pcre2_jit_stack_free(w->stack);
    free(w);
    workshop_here = NULL;
}

static void workshop_key_make(void)
{
    ASSERT(pthread_key_create(&workshop_key, workshop_free) == 0);
}

/* NULL when memory is out. */
static struct workshop *workshop(void)
{
    struct workshop *w = workshop_here;

    if (w)
        return w;
    pthread_once(&workshop_once, workshop_key_make);
    w = calloc(1, sizeof(*w));
    if (!w)
        return NULL;
    w->data = pcre2_match_data_create(1, NULL);
    w->context = pcre2_match_context_create(NULL);
    w->stack = pcre2_jit_stack_create(32 * 1024, JIT_STACK_MAX, NULL);
    if (!w->data || !w->context || !w->stack || pthread_setspecific(workshop_key, w) != 0) {
        workshop_free(w);
        return NULL;
    }
    pcre2_jit_stack_assign(w->context, NULL, w->stack);
    pcre2_set_heap_limit(w->context, HEAP_MAX_KIB);
    workshop_here = w;
    return w;
}

static bool charge(uint64_t *steps, uint64_t max, uint64_t n)
{
    *steps += n;
    return *steps <= max;
}

/* Looks for a match that begins in [from, to]. */
static enum answer match_window(const struct regex *r, struct workshop *w, struct str text, size_t from, size_t to,
    uint64_t *steps, uint64_t steps_max)
{
    uint32_t limit = LIMIT_FIRST;

    pcre2_set_offset_limit(w->context, to);
    for (;;) {
        int rc;

        pcre2_set_match_limit(w->context, limit);
        rc = pcre2_match(r->code, (PCRE2_SPTR)(text.p ? text.p : ""), text.len, from, from ? PCRE2_NO_UTF_CHECK : 0,
            w->data, w->context);
        if (rc >= 0)
            return YES;
        if (rc == PCRE2_ERROR_NOMATCH)
            return NO;
        if (rc != PCRE2_ERROR_MATCHLIMIT)       /* out of its stack or heap, or not UTF-8: no answer */
            return WAIT;
        if (!charge(steps, steps_max, limit * (BACKTRACK_BYTES + text.len) / BACKTRACK_BYTES_PER_STEP))
            return WAIT;
        limit *= LIMIT_GROWTH;
    }
}

enum answer regex_match(const struct regex *r, struct str text, uint64_t *steps, uint64_t steps_max)
{
    struct workshop *w = workshop();
    size_t width, from = 0;

    if (!w || !charge(steps, steps_max, 1 + text.len / BYTES_PER_STEP))
        return WAIT;
    if (r->anchored || text.len <= WINDOW_TEXT)
        return match_window(r, w, text, 0, PCRE2_UNSET, steps, steps_max);
    width = (size_t)STEPS_PER_WINDOW * BYTES_PER_STEP / text.len + 1;
    while (from <= text.len) {
        size_t to = text.len - from > width ? from + width : text.len;
        enum answer a = match_window(r, w, text, from, to, steps, steps_max);

        if (a != NO)
            return a;
        if (!charge(steps, steps_max, (to - from + 1) * (text.len - from) / BYTES_PER_STEP))
            return WAIT;
        from = to + 1;
        while (from < text.len && ((unsigned char)text.p[from] & 0xc0) == 0x80)
            from++;
    }
    return NO;
}
