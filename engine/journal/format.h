/*
 * format.h -- the journal's bytes
 *
 * tests/script/verify_journal.py checks all of this from this page alone.  Integers are little-endian and unsigned
 * unless said otherwise; offsets and lengths are in bytes; "hex" is lower case.
 *
 *   DIR/lock                       held (flock) by the process that writes; text "pid N"
 *   DIR/signing.key                "ed25519 <seed, hex> <public key, hex>" and a newline (or where configured)
 *   DIR/manifest                   which lanes there are, signed; see manifest.h
 *   DIR/lane-<n>/<first>.seg       a segment; <first>: sequence number of its first record, 16 decimal digits
 *   DIR/lane-<n>/next              the segment allocated ahead: zeros, or the header of a segment not yet in use
 *   DIR/lane-<n>/<first>.<offset>.torn[-k]    what recovery cut out of a segment, as it was
 *
 * Segment: a header of 4096 bytes, batches of records, zeros to the end.  A batch is what one durable write carried:
 * it begins at a multiple of 512, its records stand one after the other, and zeros follow to the next multiple of 512.
 * So no block of a device that holds an acknowledged record is ever written again.  Several batches may be under way at
 * once, and reach the device in any order.  Every segment but a lane's last
 * ends in a ROLL record, for which the others leave 512 bytes at least, counted from where a batch may begin.
 *
 *   0     8   "SLUJRNL1"
 *   8     4   version, 2 (in version 1, which is not read any more, batches followed each other without zeros)
 *   12    2   lane
 *   14    2   zero
 *   16    16  journal id, random; the same in every segment of the directory
 *   32    8   sequence number of the first record (1 in a lane's first segment)
 *   40    8   signed: wall time of creation, milliseconds since 1970
 *   48    8   length of the file, a multiple of 4096
 *   56    8   number of the segment in its lane, from 1
 *   64    32  Ed25519 public key of who signs in this segment
 *   96    32  link: hash of the record before, the last of the previous segment; in a lane's first segment
 *             SHA-256("SLUJRNL1" || journal id || lane)
 *   128   32  hash = SHA-256(bytes 0..127 || bytes 160..4095)
 *   160       zeros
 *
 * Record, at a multiple of 8:
 *
 *   0     4   1e 53 4c 1f. Control characters: no payload contains them, so that no payload can look like a record
 *   4     4   CRC-32 (zlib's) of bytes 8 to the end of the padding
 *   8     4   length of the payload
 *   12    1   type (enum journal_type)
 *   13    1   zero
 *   14    2   lane
 *   16    8   sequence number: one more than that of the record before
 *   24    8   signed: wall time, milliseconds since 1970
 *   32    4   behind: how many of the records before this one were not durable yet when its batch was begun: those
 *             of the batches under way then, and those before it in its own. So whoever finds this record knows that
 *             all records up to (sequence number - behind - 1) were durable once. It is one more than that of the
 *             record before, or less where a batch begins; 0 in a segment's first
 *   36    1   early: 1 where a batch begins that was begun while others were under way. So a batch begins where this is
 *             1 or behind is 0, and nowhere else
 *   37    3   zero
 *   40    32  hash = SHA-256(link || bytes 8..39 || bytes 72 to the end of the padding); the link of a segment's first
 *             record is the hash of the segment's header, of any other the hash of the record before
 *   72        payload: a JSON object (UTF-8, no control characters), then zeros to a multiple of 8
 *
 * CHECKPOINT and CLOSE have the payload {"chain":"<hex>","key":"<hex>","signature":"<hex>"}: Ed25519 by `key` (that
 * of the segment's header) over the text "sluice-checkpoint 1 <journal id, hex> <lane> <seq> <chain> <key>", where
 * seq and chain are number and hash of the record before (for a segment's first record: the link in the segment's
 * header).  The manifest says how many of the owner's records may stand in front of one.  Recovery writes a CHECKPOINT
 * behind its RECOVERED, so that what a crash left without one does not stay so.
 */
#ifndef JOURNAL_FORMAT_H
#define JOURNAL_FORMAT_H

#include "journal/journal.h"

enum {
    HEADER_BYTES = 4096,
    HASH_LEN = 32,
    FRAME_ALIGN = 8,
    BLOCK_BYTES = 512,              /* where batches begin */
    SIGNED_PAYLOAD = 10 + 64 + 9 + 64 + 15 + 128 + 2,
    FRAME_ROLL_BYTES = JOURNAL_FRAME_BYTES + 8,
};

struct seg_header {
    unsigned lane;
    uint8_t id[16];
    uint64_t first_seq;
    wall_ms_t created;
    int64_t segment_bytes;
    uint64_t number;
    uint8_t key[32];
    uint8_t link[HASH_LEN];
    uint8_t hash[HASH_LEN];
};

struct frame {
    enum journal_type type;
    unsigned lane;
    uint64_t seq;
    wall_ms_t time;
    uint32_t behind;
    bool first;                     /* of its batch */
    struct str payload;
    uint8_t hash[HASH_LEN];
    size_t size;                    /* header, payload, padding */
};

/* The link of a lane's first segment. */
void format_genesis(const uint8_t id[16], unsigned lane, uint8_t ret[HASH_LEN]);

/* Fills h->hash. */
void header_encode(struct seg_header *h, uint8_t out[HEADER_BYTES]);
/* NULL, or what is wrong; *ret_at is then the place within the header. */
const char *header_decode(const uint8_t in[HEADER_BYTES], struct seg_header *ret, int64_t *ret_at);

static inline size_t frame_bytes(size_t payload)
{
    return (JOURNAL_FRAME_BYTES + payload + FRAME_ALIGN - 1) & ~(size_t)(FRAME_ALIGN - 1);
}
/* Where the next batch begins, if the one before ends at `off`. */
static inline int64_t block_up(int64_t off)
{
    return (off + BLOCK_BYTES - 1) & ~(int64_t)(BLOCK_BYTES - 1);
}
/* The largest payload a record may have where segments have this length. */
size_t frame_payload_max(int64_t segment_bytes);

/* Writes everything but behind, early, hash and CRC. `at` has room for frame_bytes(payload.len). */
void frame_put(uint8_t *at, enum journal_type type, unsigned lane, uint64_t seq, wall_ms_t time, struct str payload);
/* The size, sequence number and type of a frame that frame_put wrote. */
void frame_peek(const uint8_t *at, size_t *ret_size, uint64_t *ret_seq, enum journal_type *ret_type);
/* The payload of a frame that frame_put wrote, to be replaced before frame_seal. */
uint8_t *frame_payload(uint8_t *at);
/* Completes it: `link` is the link on entry, this record's hash on return. first: of its batch. */
void frame_seal(uint8_t *at, uint32_t behind, bool first, uint8_t link[HASH_LEN]);

/* The size a frame claims to have, from its first JOURNAL_FRAME_BYTES bytes; 0 if it does not begin like one. */
size_t frame_claims(const uint8_t *at, size_t payload_max);
/* All n bytes of a frame, n == frame_claims(): NULL or what is wrong. ret->payload points into `at`. */
const char *frame_decode(const uint8_t *at, size_t n, struct frame *ret);
/* Does the frame at `at` (decoded into f) follow `link`? */
bool frame_follows(const uint8_t *at, const struct frame *f, const uint8_t link[HASH_LEN]);

/* The text a checkpoint signs. */
void checkpoint_text(const uint8_t id[16], unsigned lane, uint64_t seq, const uint8_t chain[HASH_LEN],
                     const uint8_t key[32], struct buf *out);
/* Fills the SIGNED_PAYLOAD bytes at `at`. */
void checkpoint_put(uint8_t *at, const uint8_t chain[HASH_LEN], const uint8_t key[32], const uint8_t signature[64]);
/* Takes a payload apart; false if it does not have the form. */
bool checkpoint_get(struct str payload, uint8_t chain[HASH_LEN], uint8_t key[32], uint8_t signature[64]);

bool bytes_zero(const uint8_t *p, size_t n);

static inline void put_u16(uint8_t *p, uint16_t v)      { p[0] = (uint8_t)v; p[1] = (uint8_t)(v >> 8); }
static inline void put_u32(uint8_t *p, uint32_t v)
{
    put_u16(p, (uint16_t)v);
    put_u16(p + 2, (uint16_t)(v >> 16));
}
static inline void put_u64(uint8_t *p, uint64_t v)
{
    put_u32(p, (uint32_t)v);
    put_u32(p + 4, (uint32_t)(v >> 32));
}
static inline uint16_t get_u16(const uint8_t *p)        { return (uint16_t)(p[0] | p[1] << 8); }
static inline uint32_t get_u32(const uint8_t *p)        { return get_u16(p) | (uint32_t)get_u16(p + 2) << 16; }
static inline uint64_t get_u64(const uint8_t *p)        { return get_u32(p) | (uint64_t)get_u32(p + 4) << 32; }

#endif
