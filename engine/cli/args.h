/*
 * args.h -- arguments of a tool from the command line: "key=value", typed by the tool's input schema
 *
 * The schema's type decides how a value is read: integer and number, boolean (true, false), string (as it is), array
 * (one --arg per item, each read as the item's type), object (JSON).  Without a schema (the tool is not in the caller's
 * list) what looks like a whole number or a boolean is one, everything else is a string, and what is repeated is a
 * list.
 */
#ifndef CLI_ARGS_H
#define CLI_ARGS_H

#include "base/err.h"
#include "json/json.h"

/* Puts "key=value" into `args`, an object in `a`. schema: the tool's inputSchema or NULL. E_ARGS_INVALID with what was
 * wrong and what is expected. The text must outlive the tree. */
enum err args_add(struct arena *a, struct json *args, const struct json *schema, const char *pair,
                  struct errinfo *info);
/* "integer", "string", "array of string": how a property is described in lists; never NULL. */
struct str schema_type_text(struct arena *a, const struct json *property);

#endif
