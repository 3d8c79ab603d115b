/*
 * limits.h -- what a restart must not forget of the limiter, in DATA/limits
 *
 * A thread of its own tells the limiter the wall clock each second and writes the file each LIMITS_SAVE_S; ending
 * writes it once more.  So a crash forgets what those seconds used, never more than one window of any key; an orderly
 * end forgets nothing.  A file that is torn is taken as far as it is whole; one of another version is not used.
 */
#ifndef RUNTIME_LIMITS_H
#define RUNTIME_LIMITS_H

#include "base/err.h"

struct rl;
struct limits_keeper;

enum { LIMITS_SAVE_S = 10 };

/* Loads DATA/limits into a limiter whose rules are set and that knows no keys, and starts the thread. Ids of keys made
 * before are void. */
enum err limits_keep(struct rl *rl, const char *data, struct limits_keeper **ret, struct errinfo *info);
/* Ends the thread and saves. NULL is fine. */
void limits_kept(struct limits_keeper *k);

#endif
