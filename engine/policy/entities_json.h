/*
 * entities_json.h -- what entities.c and entities_json.c share (room-private)
 */
#ifndef POLICY_ENTITIES_JSON_H
#define POLICY_ENTITIES_JSON_H

#include "policy/entities.h"

#define STORE_MAX ((size_t)1 << 30)

/* Fills `info` with "what: Type::"id"" and returns e. */
enum err entities_error(struct errinfo *info, enum err e, const char *what, const struct policy_uid *uid);

#endif
