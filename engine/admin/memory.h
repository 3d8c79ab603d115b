/*
 * memory.h -- jemalloc: an arena per worker, and its figures for the metrics. Sanitizer builds have their own
 * allocator: then these do nothing.
 */
#ifndef ADMIN_MEMORY_H
#define ADMIN_MEMORY_H

#include "base/str.h"

/* The calling thread allocates from an arena of its own from here on. */
void memory_worker_enter(void);
/* Appends allocator and process figures in the Prometheus text format. */
void memory_render(struct buf *out);
/* Resident bytes of the process, 0 if they cannot be read. */
uint64_t memory_resident(void);

#endif
