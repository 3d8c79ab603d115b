/*
 * map.h -- hash map from bytes to pointers
 *
 * Open addressing, SipHash-1-3 with a key drawn at start (keys come from peers).  The map does not copy keys: the bytes
 * must live as long as the entry, usually inside the value.  Not thread safe.
 */
#ifndef BASE_MAP_H
#define BASE_MAP_H

#include "base/str.h"

struct map_slot {
    uint64_t hash;              /* 0: empty, 1: deleted */
    struct str key;
    void *value;
};

struct map {
    struct map_slot *slots;
    size_t cap, len, used;      /* used counts deleted slots too */
};

#define MAP_INIT ((struct map){ 0 })

void map_release(struct map *m);                            /* frees the table, not the values */
void *map_get(const struct map *m, struct str key);         /* NULL if absent */
void *map_get_hashed(const struct map *m, struct str key, uint64_t hash);      /* the same with hash_bytes() at hand */
/* Where an entry with that hash is looked for first: for ahead() (base/ahead.h). NULL while the map is empty. */
const void *map_place(const struct map *m, uint64_t hash);
/* Adds or replaces; returns the value that was there, or NULL. Aborts when memory is out. */
void *map_put(struct map *m, struct str key, void *value);
void *map_del(struct map *m, struct str key);               /* returns the removed value, or NULL */
/* Walk: `size_t i = 0; while ((slot = map_next(m, &i)))`. The map must not change except map_del of the current
 * slot. */
struct map_slot *map_next(const struct map *m, size_t *i);

/* SipHash-1-3, process key; never 0 or 1. A map places entries by its high half: spread over maps by the low one. */
uint64_t hash_bytes(const void *p, size_t n);
void hash_seed(uint64_t k0, uint64_t k1);                   /* once, at start, before any map is filled */

#endif
