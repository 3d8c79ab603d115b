/* options.c -- command lines, and how verbs complain */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"

int complain(const struct verb *v, int code, const char *fmt, ...)
{
    va_list ap;

    fprintf(stderr, "sluice %s: ", v->name);
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fputc('\n', stderr);
    return code;
}

int config_open(const struct verb *v, const char *path, struct config **ret)
{
    struct errinfo info = { "" };
    enum err e = path ? config_load(path, ret, &info) : config_default(ret, &info);

    return e ? complain(v, 1, "%s", info.text) : 0;
}

static const struct option_spec *spec_named(const struct option_spec *specs, struct str name)
{
    for (; specs && specs->name; specs++)
        if (str_is(name, specs->name))
            return specs;
    return NULL;
}

int options_read(const struct verb *v, int argc, char **argv, const struct option_spec *specs, char **words, int max_words, int *ret_words)
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
        if (only_words || strncmp(argv[i], "--", 2) != 0) {
            if (n == max_words)
                return complain(v, 2, "unexpected \"%s\"; see sluice %s --help", argv[i], v->name);
            words[n++] = argv[i];
            continue;
        }
        name = str_of(argv[i] + 2);
        value = STR_NULL;
        str_cut(name, '=', &name, &value);
        spec = spec_named(specs, name);
        if (!spec)
            return complain(v, 2, "unknown option --%.*s; see sluice %s --help", STR_ARG(name), v->name);
        if (spec->flag) {
            if (value.p)
                return complain(v, 2, "--%s takes no value", spec->name);
            *spec->flag = true;
            continue;
        }
        if (!value.p && ++i == argc)
            return complain(v, 2, "--%s needs a value", spec->name);
        if (spec->list) {
            if (*spec->n_list == spec->max_list)
                return complain(v, 2, "--%s is given too often", spec->name);
            spec->list[(*spec->n_list)++] = value.p ? value.p : argv[i];
        } else {
            *spec->value = value.p ? value.p : argv[i];
        }
    }
    *ret_words = n;
    return 0;
}
