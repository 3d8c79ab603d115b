/*
 * manifest.h -- which lanes a journal has, signed; and the key that signs
 *
 * The manifest makes a removed lane, a removed first segment and (after an orderly end) a removed tail visible.  It is
 * replaced whole: written aside, synced, renamed.  Text, each line ended by a newline, exactly in this form and order:
 *
 *   sluice-journal 1
 *   id <journal id, 32 hex digits>
 *   checkpoint <n>                                                 not in journals made before this was said
 *   key <Ed25519 public key, 64 hex digits>                        one or more, the newest last
 *   lane <n> first <seq> open|closed <seq> <hash, 64 hex digits>   ascending; numbers in decimal without leading zeros
 *   signature <128 hex digits>                                     Ed25519 by the newest key over all lines before
 *
 *   checkpoint    behind at most so many of the owner's records (types 6 to 9) stands a signature: CHECKPOINT, CLOSE,
 *                 or the naming of a record here. A verifier grants twice as many before it calls that a forgery
 *   first         number of the first record still kept
 *   open          a process writes it, or ended without order: the lane has got at least to the record named
 *   closed        the lane ends with exactly that record
 *
 * A key is replaced by putting another in the configured place; the older public keys stay, as older segments name
 * them.
 */
#ifndef JOURNAL_MANIFEST_H
#define JOURNAL_MANIFEST_H

#include "base/secret.h"
#include "journal/format.h"

enum { MANIFEST_KEYS_MAX = 64, MANIFEST_BYTES_MAX = 256 * 1024 };

struct signer {
    struct secret *seed;
    uint8_t key[32];
};

/* Reads the key at path, or makes one there. E_CONFIG, E_JOURNAL_UNWRITABLE with the reason in info. */
enum err signer_load(struct signer *s, const char *path, struct errinfo *info);
void signer_release(struct signer *s);
void signer_sign(const struct signer *s, struct str text, uint8_t ret[64]);

struct manifest_lane {
    unsigned lane;
    uint64_t first;
    bool closed;
    uint64_t seq;
    uint8_t hash[HASH_LEN];
};

struct manifest {
    uint8_t id[16];
    unsigned checkpoint_every;          /* 0: not said */
    uint8_t keys[MANIFEST_KEYS_MAX][32];
    unsigned n_keys;
    struct manifest_lane lanes[JOURNAL_LANES_MAX];
    unsigned n_lanes;
};

/* E_NOT_FOUND: there is none. E_TAMPERED: not in the form above, or the signature does not match (*ret_at: roughly
 * where). */
enum err manifest_read(const char *dir, struct manifest *ret, int64_t *ret_at, struct errinfo *info);
/* Durable when it returns OK. */
enum err manifest_write(const char *dir, const struct manifest *m, const struct signer *s, struct errinfo *info);
struct manifest_lane *manifest_lane(struct manifest *m, unsigned lane);     /* NULL if not listed */
/* Adds one, keeping the order; the lane must not be listed yet. */
struct manifest_lane *manifest_lane_add(struct manifest *m, unsigned lane);
bool manifest_knows_key(const struct manifest *m, const uint8_t key[32]);

/* Writes a small file aside and renames it into place, durably. 0 or -errno. */
int file_replace(const char *dir, const char *path, int mode, struct str text);
/* Reads a whole file of at most out->max bytes. 0 or -errno; -EFBIG. */
int file_read(const char *path, struct buf *out);

#endif
