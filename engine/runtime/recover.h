/*
 * recover.h -- what the journal says about calls of the process before: keys that are used up, intents left open
 */
#ifndef RUNTIME_RECOVER_H
#define RUNTIME_RECOVER_H

#include "base/err.h"
#include "call/once.h"
#include "journal/journal.h"

struct recovery;

/* Reads the whole journal (blocks). Keys are restored into `once`. */
enum err recover_scan(const char *dir, struct once_table *once, wall_ms_t now, struct recovery **ret,
                      struct errinfo *info);
size_t recover_open(const struct recovery *r);
/* Writes an OUTCOME for each intent left open to `lane`: unknown for effects, failed for reads. Waits while as much is
 * queued as may be. E_JOURNAL_UNWRITABLE. */
enum err await_recover_settle(struct recovery *r, struct journal_lane *lane, struct errinfo *info);
void recover_free(struct recovery *r);

#endif
