/* format.c -- segment headers, frames and checkpoints to bytes and back; the format is written down in format.h */
#include "base/check.h"
#include "base/crypto.h"
#include "journal/crc.h"
#include "journal/format.h"

enum { FORMAT_VERSION = 2, CRC_FROM = 8, HASHED_FROM = 8, HASHED_TO = 40, HASH_AT = 40 };

static const uint8_t frame_magic[4] = { 0x1e, 0x53, 0x4c, 0x1f };
#define HEADER_MAGIC "SLUJRNL1"

STATIC_ASSERT(JOURNAL_FRAME_BYTES % FRAME_ALIGN == 0, "payloads begin aligned");
STATIC_ASSERT(BLOCK_BYTES % FRAME_ALIGN == 0, "records begin aligned");
STATIC_ASSERT(HEADER_BYTES % BLOCK_BYTES == 0, "the first batch begins where batches begin");
STATIC_ASSERT(FRAME_ROLL_BYTES == JOURNAL_FRAME_BYTES + 8, "a ROLL record carries {} and padding");
STATIC_ASSERT(FRAME_ROLL_BYTES <= BLOCK_BYTES, "the block that each segment keeps takes its ROLL record");

const char *journal_type_name(enum journal_type t)
{
    static const char *const names[JOURNAL_TYPE_END] = {
        [JOURNAL_OPEN] = "open", [JOURNAL_CLOSE] = "close", [JOURNAL_RECOVERED] = "recovered",
        [JOURNAL_CHECKPOINT] = "checkpoint", [JOURNAL_ROLL] = "roll", [JOURNAL_INTENT] = "intent",
        [JOURNAL_OUTCOME] = "outcome", [JOURNAL_REQUEST] = "request", [JOURNAL_ADMIN] = "admin",
    };

    ASSERT(t >= JOURNAL_OPEN && t < JOURNAL_TYPE_END);
    return names[t];
}

bool bytes_zero(const uint8_t *p, size_t n)
{
    /* p[0] is zero and every byte equals the one before it */
    return n == 0 || (p[0] == 0 && memcmp(p, p + 1, n - 1) == 0);
}

void format_genesis(const uint8_t id[16], unsigned lane, uint8_t ret[HASH_LEN])
{
    uint8_t number[2];
    struct str parts[3] = { STR(HEADER_MAGIC), str_n(id, 16), str_n(number, 2) };

    put_u16(number, (uint16_t)lane);
    sha256_parts(parts, 3, ret);
}

/* ---- segment headers ------------------------------------------------------------------------------------------- */

static void header_hash(const uint8_t *bytes, uint8_t ret[HASH_LEN])
{
    struct str parts[2] = { str_n(bytes, 128), str_n(bytes + 160, HEADER_BYTES - 160) };

    sha256_parts(parts, 2, ret);
}

void header_encode(struct seg_header *h, uint8_t out[HEADER_BYTES])
{
    memset(out, 0, HEADER_BYTES);
    memcpy(out, HEADER_MAGIC, 8);
    put_u32(out + 8, FORMAT_VERSION);
    put_u16(out + 12, (uint16_t)h->lane);
    memcpy(out + 16, h->id, 16);
    put_u64(out + 32, h->first_seq);
    put_u64(out + 40, (uint64_t)h->created);
    put_u64(out + 48, (uint64_t)h->segment_bytes);
    put_u64(out + 56, h->number);
    memcpy(out + 64, h->key, 32);
    memcpy(out + 96, h->link, HASH_LEN);
    header_hash(out, h->hash);
    memcpy(out + 128, h->hash, HASH_LEN);
}

const char *header_decode(const uint8_t in[HEADER_BYTES], struct seg_header *ret, int64_t *ret_at)
{
    uint8_t hash[HASH_LEN];

    *ret_at = 0;
    if (memcmp(in, HEADER_MAGIC, 8) != 0)
        return "this is not a segment: it does not begin with SLUJRNL1";
    *ret_at = 8;
    if (get_u32(in + 8) != FORMAT_VERSION)
        return "a version of the format that this program does not know";
    *ret_at = 128;
    header_hash(in, hash);
    if (memcmp(hash, in + 128, HASH_LEN) != 0)
        return "the header does not match its hash";
    *ret_at = 160;
    if (!bytes_zero(in + 160, HEADER_BYTES - 160) || get_u16(in + 14) != 0)
        return "the header has bytes where zeros belong";
    ret->lane = get_u16(in + 12);
    memcpy(ret->id, in + 16, 16);
    ret->first_seq = get_u64(in + 32);
    ret->created = (wall_ms_t)get_u64(in + 40);
    ret->segment_bytes = (int64_t)get_u64(in + 48);
    ret->number = get_u64(in + 56);
    memcpy(ret->key, in + 64, 32);
    memcpy(ret->link, in + 96, HASH_LEN);
    memcpy(ret->hash, hash, HASH_LEN);
    *ret_at = 32;
    if (ret->first_seq == 0 || ret->first_seq > INT64_MAX || ret->number == 0 || ret->lane >= JOURNAL_LANES_MAX ||
        ret->segment_bytes < JOURNAL_SEGMENT_MIN || ret->segment_bytes % HEADER_BYTES != 0)
        return "the header has numbers that no journal has";
    return NULL;
}

/* ---- frames ---------------------------------------------------------------------------------------------------- */

size_t frame_payload_max(int64_t segment_bytes)
{
    return segment_bytes / 4 < JOURNAL_PAYLOAD_MAX ? (size_t)(segment_bytes / 4) : JOURNAL_PAYLOAD_MAX;
}

void frame_put(uint8_t *at, enum journal_type type, unsigned lane, uint64_t seq, wall_ms_t time, struct str payload)
{
    size_t size = frame_bytes(payload.len);

    ASSERT(payload.len <= JOURNAL_PAYLOAD_MAX && seq > 0);
    memcpy(at, frame_magic, 4);
    put_u32(at + 4, 0);
    put_u32(at + 8, (uint32_t)payload.len);
    at[12] = (uint8_t)type;
    at[13] = 0;
    put_u16(at + 14, (uint16_t)lane);
    put_u64(at + 16, seq);
    put_u64(at + 24, (uint64_t)time);
    memset(at + 32, 0, 8 + HASH_LEN);
    memset(at + size - FRAME_ALIGN, 0, FRAME_ALIGN);        /* the padding, before the payload's last bytes */
    memcpy(at + JOURNAL_FRAME_BYTES, payload.p, payload.len);
}

void frame_peek(const uint8_t *at, size_t *ret_size, uint64_t *ret_seq, enum journal_type *ret_type)
{
    ASSERT(memcmp(at, frame_magic, 4) == 0);
    *ret_size = frame_bytes(get_u32(at + 8));
    *ret_seq = get_u64(at + 16);
    *ret_type = (enum journal_type)at[12];
}

uint8_t *frame_payload(uint8_t *at)
{
    return at + JOURNAL_FRAME_BYTES;
}

static void frame_hash(const uint8_t *at, size_t size, const uint8_t link[HASH_LEN], uint8_t ret[HASH_LEN])
{
    UNSET uint8_t first[HASH_LEN + HASHED_TO - HASHED_FROM];
    struct str parts[2] = { str_n(first, sizeof(first)), str_n(at + JOURNAL_FRAME_BYTES, size - JOURNAL_FRAME_BYTES) };

    memcpy(first, link, HASH_LEN);
    memcpy(first + HASH_LEN, at + HASHED_FROM, HASHED_TO - HASHED_FROM);
    sha256_parts(parts, 2, ret);
}

static uint32_t frame_crc(const uint8_t *at, size_t size)
{
    return journal_crc(at + CRC_FROM, size - CRC_FROM);
}

void frame_seal(uint8_t *at, uint32_t behind, bool first, uint8_t link[HASH_LEN])
{
    size_t size = frame_bytes(get_u32(at + 8));

    put_u32(at + 32, behind);
    put_u32(at + 36, first && behind > 0);
    frame_hash(at, size, link, at + HASH_AT);
    memcpy(link, at + HASH_AT, HASH_LEN);
    put_u32(at + 4, frame_crc(at, size));
}

size_t frame_claims(const uint8_t *at, size_t payload_max)
{
    uint32_t n = get_u32(at + 8);

    return memcmp(at, frame_magic, 4) == 0 && n <= payload_max ? frame_bytes(n) : 0;
}

const char *frame_decode(const uint8_t *at, size_t n, struct frame *ret)
{
    uint32_t len = get_u32(at + 8), early = get_u32(at + 36);

    ASSERT(n == frame_bytes(len));
    if (get_u32(at + 4) != frame_crc(at, n))
        return "the record does not match its checksum";
    if (at[12] < JOURNAL_OPEN || at[12] >= JOURNAL_TYPE_END)
        return "the record has a type that does not exist";
    if (at[13] != 0 || early > 1 ||
        !bytes_zero(at + JOURNAL_FRAME_BYTES + len, n - JOURNAL_FRAME_BYTES - len))
        return "the record has bytes where zeros belong";
    ret->type = (enum journal_type)at[12];
    ret->lane = get_u16(at + 14);
    ret->seq = get_u64(at + 16);
    ret->time = (wall_ms_t)get_u64(at + 24);
    ret->behind = get_u32(at + 32);
    ret->first = early || ret->behind == 0;
    ret->payload = str_n(at + JOURNAL_FRAME_BYTES, len);
    memcpy(ret->hash, at + HASH_AT, HASH_LEN);
    ret->size = n;
    if (ret->seq == 0 || ret->behind >= ret->seq || (early && ret->behind == 0))
        return "the record has numbers that no record has";
    return NULL;
}

bool frame_follows(const uint8_t *at, const struct frame *f, const uint8_t link[HASH_LEN])
{
    uint8_t hash[HASH_LEN];

    frame_hash(at, f->size, link, hash);
    return memcmp(hash, f->hash, HASH_LEN) == 0;
}

/* ---- checkpoints ----------------------------------------------------------------------------------------------- */

void checkpoint_text(const uint8_t id[16], unsigned lane, uint64_t seq, const uint8_t chain[HASH_LEN],
                     const uint8_t key[32], struct buf *out)
{
    buf_add_z(out, "sluice-checkpoint 1 ");
    buf_add_hex(out, id, 16);
    buf_addf(out, " %u %llu ", lane, (unsigned long long)seq);
    buf_add_hex(out, chain, HASH_LEN);
    buf_add_c(out, ' ');
    buf_add_hex(out, key, 32);
}

void checkpoint_put(uint8_t *at, const uint8_t chain[HASH_LEN], const uint8_t key[32], const uint8_t signature[64])
{
    struct buf b = BUF_INIT(SIGNED_PAYLOAD);

    buf_add_z(&b, "{\"chain\":\"");
    buf_add_hex(&b, chain, HASH_LEN);
    buf_add_z(&b, "\",\"key\":\"");
    buf_add_hex(&b, key, 32);
    buf_add_z(&b, "\",\"signature\":\"");
    buf_add_hex(&b, signature, 64);
    buf_add_z(&b, "\"}");
    ASSERT(!b.overflow && b.len == SIGNED_PAYLOAD);
    memcpy(at, b.p, b.len);
    buf_release(&b);
}

bool checkpoint_get(struct str payload, uint8_t chain[HASH_LEN], uint8_t key[32], uint8_t signature[64])
{
    uint8_t form[SIGNED_PAYLOAD];

    if (payload.len != SIGNED_PAYLOAD || hex_decode(str_n(payload.p + 10, 64), chain, 32) ||
        hex_decode(str_n(payload.p + 83, 64), key, 32) || hex_decode(str_n(payload.p + 162, 128), signature, 64))
        return false;
    checkpoint_put(form, chain, key, signature);        /* written again it must be the same, upper case and all */
    return memcmp(form, payload.p, SIGNED_PAYLOAD) == 0;
}
