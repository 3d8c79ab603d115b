/*
 * vocabulary.h -- a Cedar schema of everything that policies can be asked here: `sluice policy schema`
 *
 * Made from a snapshot: entity types as question.h says, with the attributes that the operator's entities have; one
 * action for each tool, prompt and resource, in its provider and effect; the arguments by their JSON Schema.  Every
 * question the engine asks fits it, but for arguments of which JSON Schema says less than Cedar's types can:
 *
 *   string, with or without enum, format or pattern     String
 *   integer                                             Long
 *   boolean                                             Bool
 *   array of one type of items                          Set<T>
 *   object whose properties are all named               a record
 *   what may also be null                               the same, optional: null is absent to policies
 *   anything else (number, several types, any JSON)     left out, and said in a comment: policies that read it are
 *                                                       found wrong, or found never to match (after `has`)
 */
#ifndef CALL_VOCABULARY_H
#define CALL_VOCABULARY_H

#include "call/registry.h"

/* The text, in Cedar's syntax. E_CALL_TOO_LARGE: it takes more than 64 MiB. */
enum err vocabulary_write(const struct registry *r, struct buf *out);

/* Whether actions.def has it. */
bool engine_action_known(struct str group, struct str name);

#endif
