/*
 * recover.h -- what the journal says about calls of the process before: keys that are used up, intents left open
 */
#ifndef RUNTIME_RECOVER_H
#define RUNTIME_RECOVER_H

#include "base/err.h"
#include "call/once.h"

struct recovery;

/* Reads the whole journal (blocks). Keys are restored into `once`. */
enum err recover_scan(const char *dir, struct once_table *once, wall_ms_t now, struct recovery **ret,
                      struct errinfo *info);
size_t recover_open(const struct recovery *r);
/* Writes an OUTCOME for each intent left open, through `append` (a lane that is open): unknown for effects, failed for
 * reads. */
enum err recover_settle(struct recovery *r, enum err (*append)(void *arg, struct str payload), void *arg);
void recover_free(struct recovery *r);

#endif
