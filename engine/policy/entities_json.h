/*
 * entities_json.h -- what entities.c and entities_json.c share (room-private)
 */
#ifndef POLICY_ENTITIES_JSON_H
#define POLICY_ENTITIES_JSON_H

#include "policy/entities.h"

#define STORE_MAX ((size_t)1 << 30)

/* Fills `info` with "what: Type::"id"" and returns e. */
enum err entities_error(struct errinfo *info, enum err e, const char *what, const struct policy_uid *uid);

struct json;

/* {"type", "id"} or ["type", "id"], bare or behind "__entity". E_FORMAT. The uid refers to the tree's text. */
enum err entities_read_uid(const struct json *j, struct policy_uid *ret, struct errinfo *info);

#endif
