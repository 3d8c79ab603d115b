/*
 * runtime.h -- the whole engine: assembled, started, reloaded, drained
 *
 * Order of start: store, vault, identity, limiter, journal (recovery), registry, MCP, rings, listeners; each failure
 * ends the start with one line that says what to do.  Order of the end: no new connections, calls in flight finish or
 * are recorded as unknown, lanes are closed, then everything else.
 */
#ifndef RUNTIME_RUNTIME_H
#define RUNTIME_RUNTIME_H

#include "base/err.h"
#include "runtime/config.h"

struct registry;
struct runtime;

#define RUNTIME_LOCAL_ISSUER "sluice:local"     /* iss of tokens that the engine's own key signs */

/* Starts everything and returns once all workers listen. Takes `config` over, on errors too. */
enum err runtime_start(struct config *config, struct runtime **ret, struct errinfo *info);
/* "127.0.0.1:7411", with the port that was bound. */
const char *runtime_address(const struct runtime *rt);
const char *runtime_mcp_url(const struct runtime *rt);
/* Policies, connectors, issuers and certificates again from files; on any error everything stays as it was and
 * `config` stays the caller's; on OK it is the runtime's. */
enum err runtime_reload(struct runtime *rt, struct config *config, struct errinfo *info);
/* Has a journal lane failed? Then the process must end and recover. */
bool runtime_failed(const struct runtime *rt);
/* Stops accepting, waits up to the configured time for calls in flight, cancels what is left, closes the lanes of the
 * journal. False: some of it waits for a device that does not answer, and uses what rt has: nothing can be released,
 * and the process is to leave by _exit(). */
bool runtime_drain(struct runtime *rt);
/* After that: closes the rest and frees rt. Returns false when a journal could not be closed in order. */
bool runtime_stop(struct runtime *rt);

/* policies.c: the snapshot of tools, policies and entities that calls live in, as configured. It keeps a reference to
 * the configuration. Blocks. */
struct registry;
enum err snapshot_build(struct config *c, struct registry **ret, struct errinfo *info);
/* All *.json files of the paths (files or directories; *.cedar.json are policies and left out) in one frozen store, and
 * the digest of their text. No path: NULL and "". E_CONFIG names file, and line and column where it is no JSON. */
enum err entities_load(const char *const *paths, struct policy_entities **ret, char version[65], struct errinfo *info);
/* policies.c: all *.cedar files of the paths (files or directories), parsed. No path: a set that denies everything. */
enum err policies_load(const char *const *paths, struct policy_set **ret, struct errinfo *info);

#endif
