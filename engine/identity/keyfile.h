/*
 * keyfile.h -- 32 secret bytes in a file that only we can read
 *
 * Form: 64 hexadecimal digits and a newline, nothing else.  Blocks: start-up only.
 */
#ifndef IDENTITY_KEYFILE_H
#define IDENTITY_KEYFILE_H

#include "base/err.h"
#include "base/secret.h"

/*
 * Reads it; with `create`, makes one with random bytes when it is missing (mode 0600, written beside and renamed, so
 * that no half-written key is ever seen). E_CONFIG with path, reason and what to do: missing, unreadable, readable
 * by group or others, not a regular file, not of this form.
 */
enum err keyfile_load(const char *path, bool create, struct secret **ret, struct errinfo *info);
/*
 * Reads one that systemd hands to the service. Its files belong to root, and an access list lets the service's user in:
 * stat shows that list's mask as the group's bits (0440), which says nothing of the group. Only what everybody may read
 * is refused; the directory is the service's alone.
 */
enum err keyfile_load_credential(const char *path, struct secret **ret, struct errinfo *info);
/* The same form from memory; wipes nothing. `what` names the place in the error. */
enum err keyfile_parse(const char *text, size_t n, const char *what, struct secret **ret, struct errinfo *info);

#endif
