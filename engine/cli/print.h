/*
 * print.h -- results for people: text that cannot play with the terminal, and tables
 *
 * What is printed came from tools, providers and journals.  Control characters, marks that turn the direction of text,
 * invisible characters and bytes that are not UTF-8 are written as escapes; line ends stay where the caller says so.
 */
#ifndef CLI_PRINT_H
#define CLI_PRINT_H

#include <stdio.h>

#include "json/json.h"

void print_line(FILE *to, struct str s);            /* one line: line ends are escaped too; adds none */
void print_text(FILE *to, struct str s);            /* keeps line ends and tabs */
void print_compact(FILE *to, const struct json *j);  /* one line of JSON, its escapes those of JSON */
/* An object as "key  value" lines, a list of objects as a table, anything else as indented JSON. */
void print_json(FILE *to, const struct json *j);

enum { TABLE_COLUMNS = 12, TABLE_ROWS = 10000 };

struct table {
    struct arena *arena;
    struct str (*rows)[TABLE_COLUMNS];
    size_t n_rows, cap;
    unsigned n_columns;
};

void table_init(struct table *t, struct arena *a, unsigned columns);
/* The cells are views and must stay; NULL-terminated lists of columns are the caller's to count. */
void table_row(struct table *t, const struct str *cells);
/* The first row is the heading. Frees the table. */
void table_print(FILE *to, struct table *t);

#endif
