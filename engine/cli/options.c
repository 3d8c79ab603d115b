/* options.c -- command lines, and how verbs complain */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "cli/cli.h"
#include "cli/print.h"

/* What went wrong may have been said by somebody else. */
int complain(const struct verb *v, int code, const char *fmt, ...)
{
    char *text = NULL;
    va_list ap;

    va_start(ap, fmt);
    ASSERT(vasprintf(&text, fmt, ap) >= 0);
    va_end(ap);
    fprintf(stderr, "sluice %s: ", v->name);
    print_line(stderr, str_of(text));
    fputc('\n', stderr);
    free(text);
    return code;
}

int config_open(const struct verb *v, const char *path, const char *data, struct config **ret)
{
    struct errinfo info = { "" };
    enum err e = path ? config_load(path, ret, &info) : config_default(ret, &info);

    if (e)
        return complain(v, EXIT_UNABLE, "%s", info.text);
    if (data)
        (*ret)->data = data;
    return 0;
}

int option_number(const struct verb *v, const char *name, const char *value, uint64_t least, uint64_t most,
                  int64_t *ret)
{
    uint64_t n;

    if (!value)
        return 0;
    if (!str_to_u64(str_of(value), &n) || n < least || n > most)
        return complain(v, EXIT_USAGE, "%s takes a whole number from %llu to %llu, not \"%s\"", name,
                        (unsigned long long)least, (unsigned long long)most, value);
    *ret = (int64_t)n;
    return 0;
}

bool duration_read(const char *text, int64_t most_s, int64_t *ret_s)
{
    static const int64_t units[] = { 1, 60, 3600, 86400 };
    struct str s = str_of(text);
    const char *const letters = "smhd", *letter = s.len ? strchr(letters, s.p[s.len - 1]) : NULL;
    int64_t unit = 1;
    uint64_t n;

    if (letter) {
        unit = units[letter - letters];
        s.len--;
    }
    if (!str_to_u64(s, &n) || n == 0 || n > (uint64_t)(most_s / unit))
        return false;
    *ret_s = (int64_t)n * unit;
    return true;
}

int input_read(const struct verb *v, const char *path, struct buf *out)
{
    bool is_stdin = strcmp(path, "-") == 0;
    FILE *f = is_stdin ? stdin : fopen(path, "re");
    char bytes[4096];
    int why = errno;
    size_t n;

    if (!f)
        return complain(v, EXIT_UNABLE, "cannot read %s: %s", path, strerror(why));
    while ((n = fread(bytes, 1, sizeof(bytes), f)) > 0)
        buf_add(out, bytes, n);
    why = ferror(f) ? errno : 0;
    if (!is_stdin)
        fclose(f);
    if (why)
        return complain(v, EXIT_UNABLE, "cannot read %s: %s", path, strerror(why));
    return out->overflow ? complain(v, EXIT_UNABLE, "%s is larger than %zu bytes", path, out->max) : 0;
}

/* "--name", "--name=value", "-n": the name without dashes. False: a word ("-" alone is one, too). */
static bool option_split(const char *arg, struct str *ret_name, struct str *ret_value)
{
    bool is_long = arg[0] == '-' && arg[1] == '-';

    if (arg[0] != '-' || !arg[1])
        return false;
    *ret_name = str_of(arg + (is_long ? 2 : 1));
    *ret_value = STR_NULL;
    if (is_long)
        str_cut(*ret_name, '=', ret_name, ret_value);
    return true;
}

static const struct option_spec *spec_named(const struct option_spec *specs, struct str name, bool is_long)
{
    for (; specs && specs->name; specs++)
        if (str_is(name, specs->name) && is_long == (specs->name[1] != '\0'))
            return specs;
    return NULL;
}

int options_read(const struct verb *v, int argc, char **argv, const struct option_spec *specs, char **words,
                 int max_words, int *ret_words)
{
    bool only_words = false;
    int n = 0;

    for (int i = 1; i < argc; i++) {
        const struct option_spec *spec;
        struct str name, value;

        if (!only_words && (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0)) {
            fputs(v->help, stdout);
            return -1;
        }
        if (!only_words && strcmp(argv[i], "--") == 0) {
            only_words = true;
            continue;
        }
        if (only_words || !option_split(argv[i], &name, &value)) {
            if (n == max_words)
                return complain(v, EXIT_USAGE, "unexpected \"%s\"; see sluice %s --help", argv[i], v->name);
            words[n++] = argv[i];
            continue;
        }
        spec = spec_named(specs, name, argv[i][1] == '-');
        if (!spec)
            return complain(v, EXIT_USAGE, "unknown option %s%.*s; see sluice %s --help",
                            argv[i][1] == '-' ? "--" : "-", STR_ARG(name), v->name);
        if (spec->flag) {
            if (value.p)
                return complain(v, EXIT_USAGE, "--%s takes no value", spec->name);
            *spec->flag = true;
            continue;
        }
        if (!value.p && ++i == argc)
            return complain(v, EXIT_USAGE, "%s needs a value", argv[i - 1]);
        if (spec->list) {
            if (*spec->n_list == spec->max_list)
                return complain(v, EXIT_USAGE, "--%s is given too often", spec->name);
            spec->list[(*spec->n_list)++] = value.p ? value.p : argv[i];
        } else {
            *spec->value = value.p ? value.p : argv[i];
        }
    }
    *ret_words = n;
    return 0;
}
