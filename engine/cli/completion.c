/*
 * completion.c -- `sluice completion`: scripts for bash and zsh, made from the table of verbs
 *
 * The options of a verb are taken from its help, where each stands at the start of a line behind two blanks: what the
 * help teaches is what the shell completes.
 */
#include <stdio.h>

#include "cli/cli.h"

static const char help[] =
    "Usage: sluice completion bash | zsh\n\n"
    "Prints a script that completes verbs and options.\n\n"
    "  bash: sluice completion bash > /etc/bash_completion.d/sluice, or source <(sluice completion bash)\n"
    "  zsh:  sluice completion zsh > \"${fpath[1]}/_sluice\"\n";

/* The next option the text explains, and the line behind it as its meaning; false at the end. */
static bool next_option(struct str *rest, struct str *ret_name, struct str *ret_what)
{
    struct str line;

    while (rest->len) {
        if (!str_cut(*rest, '\n', &line, rest)) {
            line = *rest;
            *rest = STR_NULL;
        }
        if (!str_starts(line, STR("  --")))
            continue;
        line = str_from(line, 2);
        *ret_name = line;
        *ret_what = STR("");
        for (size_t i = 0; i < line.len; i++) {
            if ((line.p[i] == ' ' || line.p[i] == ',') && ret_name->len == line.len)
                ret_name->len = i;
            if (line.p[i] == ' ' && i + 1 < line.len && line.p[i + 1] == ' ') {
                *ret_what = str_trim(str_from(line, i));
                break;
            }
        }
        return true;
    }
    return false;
}

static const char *subverbs(const struct verb *v)
{
    if (v == &verb_audit)
        return "verify tail show checkpoint";
    if (v == &verb_policy)
        return "check test authorize explain schema replay flips";
    if (v == &verb_limits)
        return "show top";
    return v == &verb_completion ? "bash zsh" : "";
}

static void print_bash(void)
{
    printf("# bash completion for sluice\n_sluice() {\n    local cur=\"${COMP_WORDS[COMP_CWORD]}\" words=\n"
           "    if [ \"$COMP_CWORD\" -eq 1 ]; then\n        words=\"");
    for (const struct verb *const *v = cli_verbs; *v; v++)
        printf("%s%s", v == cli_verbs ? "" : " ", (*v)->name);
    printf("\"\n    else\n        case \"${COMP_WORDS[1]}\" in\n");
    for (const struct verb *const *v = cli_verbs; *v; v++) {
        struct str rest = str_of((*v)->help), name, what;

        printf("        %s) words=\"%s --help", (*v)->name, subverbs(*v));
        while (next_option(&rest, &name, &what))
            printf(" %.*s", STR_ARG(name));
        printf("\" ;;\n");
    }
    printf("        esac\n    fi\n    COMPREPLY=($(compgen -W \"$words\" -- \"$cur\"))\n"
           "    [ ${#COMPREPLY[@]} -gt 0 ] || COMPREPLY=($(compgen -f -- \"$cur\"))\n}\ncomplete -o filenames -F "
           "_sluice sluice\n");
}

/* Inside '...:...[...]' of zsh's _describe and _arguments. */
static void print_quoted(struct str s)
{
    for (size_t i = 0; i < s.len; i++) {
        if (s.p[i] == '\'')
            fputs("'\\''", stdout);
        else if (strchr(":[]\\", s.p[i]))
            printf("\\%c", s.p[i]);
        else
            putchar(s.p[i]);
    }
}

static void print_zsh(void)
{
    printf("#compdef sluice\n_sluice() {\n    local -a verbs\n    verbs=(\n");
    for (const struct verb *const *v = cli_verbs; *v; v++) {
        printf("        '%s:", (*v)->name);
        print_quoted(str_of((*v)->summary));
        printf("'\n");
    }
    printf("    )\n    if (( CURRENT == 2 )); then\n        _describe verb verbs\n        return\n    fi\n    case "
           "${words[2]} in\n");
    for (const struct verb *const *v = cli_verbs; *v; v++) {
        struct str rest = str_of((*v)->help), name, what;

        printf("    %s) _arguments '--help[teaches the verb]'", (*v)->name);
        while (next_option(&rest, &name, &what)) {
            printf(" '%.*s[", STR_ARG(name));
            print_quoted(what);
            printf("]'");
        }
        printf(" '*: :{ _values word %s; _files }' ;;\n", subverbs(*v)[0] ? subverbs(*v) : "''");
    }
    printf("    esac\n}\n_sluice \"$@\"\n");
}

static int run(int argc, char **argv)
{
    char *shell = NULL;
    int words, rc = options_read(&verb_completion, argc, argv, NULL, &shell, 1, &words);

    if (rc)
        return rc < 0 ? 0 : rc;
    if (words && strcmp(shell, "bash") == 0)
        print_bash();
    else if (words && strcmp(shell, "zsh") == 0)
        print_zsh();
    else
        return complain(&verb_completion, EXIT_USAGE, "write: sluice completion bash, or zsh");
    return 0;
}

const struct verb verb_completion = { "completion", "print a script for bash or zsh", help, run };
