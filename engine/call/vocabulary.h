/*
 * vocabulary.h -- a Cedar schema of everything that policies can be asked here: `sluice policy schema`
 *
 * Made from a snapshot: entity types as question.h says, with the attributes that the operator's entities have; one
 * action for each tool, prompt and resource, in its provider and effect; the arguments by their JSON Schema.  Every
 * question the engine asks fits it, but for integers beyond 64 bits and arguments that have no type in Cedar:
 *
 *   string, with or without enum, format or pattern     String
 *   integer                                             Long
 *   boolean                                             Bool
 *   array of one type of items                          Set<T>
 *   object whose properties are all named               a record
 *   what may also be null                               the same, optional: null is absent to policies
 *   anything else (number, several types, any JSON)     optional and SHAPE_UNTYPED (shape.h)
 */
#ifndef CALL_VOCABULARY_H
#define CALL_VOCABULARY_H

#include "call/registry.h"

/* The text, in Cedar's syntax. E_CONFIG, E_CALL_TOO_LARGE: there is none, and `info` says why. */
enum err vocabulary_write(const struct registry *r, struct buf *out, struct errinfo *info);

/* Whether actions.def has it. */
bool engine_action_known(struct str group, struct str name);

#endif
