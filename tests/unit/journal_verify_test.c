/*
 * journal_verify_test.c -- whatever is done to a journal's files, the verifier says so and names the place
 */
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "journal/manifest.h"
#include "journal_frames.h"
#include "journal_test.h"

static const char first[] = "/j/lane-0/0000000000000001.seg";

/* The path of lane 0's nth segment; the last one if there are fewer. */
static void nth(unsigned n, char path[64])
{
    unsigned found = 0;
    size_t len;

    for (unsigned seq = 1; seq < 500 && found <= n; seq++) {
        char name[64];

        snprintf(name, sizeof(name), "/j/lane-0/%016u.seg", seq);
        if (memworld_file(name, &len)) {
            memcpy(path, name, sizeof(name));
            found++;
        }
    }
    assert_true(found > 0);
}

static void sound_journal_verifies(void **state)
{
    struct journal_report r;
    struct told t;

    make_small(150, 300, 20);
    if (verify("/j", NULL, &t, &r))
        fail_msg("%s", t.all);
    assert_int_equal(t.notes, 0);
    assert_int_equal(r.lanes, 2);
    assert_true(r.segments >= 5);
    assert_true(r.records > 150 + 3 + 4);
    assert_true(r.checkpoints >= 7 + 2);
    assert_false(r.live);
}

/* Start of the record (or header) that byte `at` belongs to; of zeros between and behind records: the byte itself. */
static int64_t unit_of(const uint8_t *p, size_t len, size_t at)
{
    size_t off = HEADER_BYTES;

    if (at < HEADER_BYTES)
        return 0;
    while (off + JOURNAL_FRAME_BYTES <= len && p[off] == 0x1e) {
        size_t n = frame_claims(p + off, JOURNAL_PAYLOAD_MAX);

        if (at < off + n)
            return (int64_t)off;
        off = frame_after(p, off + n);
        if (at < off)
            break;
    }
    return (int64_t)at;
}

static void flip_all(const char *path, unsigned stride)
{
    size_t len;
    uint8_t *p = (uint8_t *)memworld_file(path, &len), *before = malloc(len);
    struct told t;

    assert_true(before && len == JOURNAL_SEGMENT_MIN);
    memcpy(before, p, len);
    for (size_t i = 0; i < len; i += stride) {
        int64_t unit = unit_of(before, len, i);

        p[i] ^= (uint8_t)(1u << i % 8);
        assert_err(verify("/j", NULL, &t, NULL), E_TAMPERED);
        assert_string_equal(t.file, path);
        if (unit >= HEADER_BYTES && t.offset != unit)
            fail_msg("byte %zu of %s: place %lld, not %lld: %s", i, path, (long long)t.offset, (long long)unit, t.text);
        if (unit == 0 && t.offset >= HEADER_BYTES)
            fail_msg("byte %zu of the header of %s: place %lld: %s", i, path, (long long)t.offset, t.text);
        assert_true(t.seq > 0);
        p[i] = before[i];
    }
    free(before);
}

/* ---- beside a writer --------------------------------------------------------------------------------------------- */

/* A world whose next reads of one place see it as it was before it was written. */
static struct world stale;
static const struct world *fresh;
static int64_t stale_at;
static unsigned stale_reads, stale_seen;

static int64_t stale_pread(int fd, void *p, size_t n, int64_t off)
{
    int64_t got = fresh->pread(fd, p, n, off);

    if (stale_seen < stale_reads && off <= stale_at && off + got >= stale_at + 16) {
        memset((char *)p + (stale_at - off), 0, 16);
        stale_seen++;
    }
    return got;
}

/* The second look sees a record whole that the first one saw half; what stays wrong is damage, and is named. */
static void a_record_half_written_is_looked_at_again(void **state)
{
    struct journal_report r;
    struct told t;
    const uint8_t *p;
    size_t len;

    make_small(150, 300, 20);
    p = (const uint8_t *)memworld_file(first, &len);
    stale_at = unit_of(p, len, len / 2) + JOURNAL_FRAME_BYTES - 32;
    fresh = world;
    stale = *world;
    stale.pread = stale_pread;
    world = &stale;
    stale_reads = 1;
    stale_seen = 0;
    if (verify("/j", NULL, &t, &r))
        fail_msg("%s", t.all);
    assert_int_equal(stale_seen, 1);
    assert_int_equal(t.notes, 0);
    stale_reads = 1000;
    assert_err(verify("/j", NULL, &t, NULL), E_TAMPERED);
    assert_string_equal(t.file, first);
    assert_int_equal(t.offset, stale_at - JOURNAL_FRAME_BYTES + 32);
    world = fresh;
}

static void every_byte_of_a_segment_counts(void **state)
{
    struct told t;
    char path[64];

    make_small(40, 250, 1000);
    nth(1, path);
    flip_all(first, 1);
    flip_all(path, 1);                  /* the last one, with CLOSE and zeros behind */
    assert_ok(verify("/j", NULL, &t, NULL));
}

static void every_byte_of_the_manifest_counts(void **state)
{
    struct told t;
    size_t len;
    char *p;

    make_small(3, 10, 1000);
    p = memworld_file("/j/manifest", &len);
    for (size_t i = 0; i < len; i++) {
        p[i] ^= 1;
        assert_err(verify("/j", NULL, &t, NULL), E_TAMPERED);
        assert_string_equal(t.file, "/j/manifest");
        p[i] ^= 1;
    }
    assert_ok(verify("/j", NULL, &t, NULL));
}

/* ---- whole segments, lanes, files ------------------------------------------------------------------------------ */

static struct memworld_copy *whole;

/* The verifier sees it, the engine does not start, and the files come back. */
static void damaged(const char *what, const char *expected)
{
    struct journal *j = NULL;
    struct told t;

    if (verify("/j", NULL, &t, NULL) != E_TAMPERED)
        fail_msg("%s: not seen", what);
    if (!strstr(t.all, expected))
        fail_msg("%s: expected \"%s\" in:\n%s", what, expected, t.all);
    assert_err(journal_open(&small_options, &j, &info), E_TAMPERED);
    assert_non_null(strstr(info.text, "/j/"));
    memworld_restore(whole);
}

static void segments_and_lanes_cannot_go(void **state)
{
    char a[64], b[64], *p;
    size_t len;

    make_small(150, 300, 20);
    whole = memworld_copy();

    assert_true(memworld_remove(first));
    damaged("first segment removed", "a segment is missing before this one");
    nth(1, a);
    assert_true(memworld_remove(a));
    damaged("middle segment removed", "a segment is missing before this one");
    nth(99, a);
    assert_true(memworld_remove(a));
    damaged("last segment removed", "says that another follows");

    nth(1, a);
    nth(2, b);
    memworld_rename(a, "/j/lane-0/x");
    memworld_rename(b, a);
    memworld_rename("/j/lane-0/x", b);
    damaged("two segments swapped", "the segment has another's name");

    nth(1, a);
    memworld_rename(a, "/j/lane-0/0000000000099999.seg");
    damaged("segment renamed", "the segment has another's name");

    p = memworld_file(a, &len);
    memworld_put("/j/lane-0/0000000000099999.seg", p, len);
    damaged("segment twice", "the segment has another's name");

    p = memworld_file("/j/lane-1/0000000000000001.seg", &len);
    memworld_put(first, p, len);
    damaged("another lane's segment", "belongs to another lane");

    memworld_remove("/j/lane-1/0000000000000001.seg");
    damaged("lane emptied", "its segments are gone");
    memworld_remove("/j/lane-1/0000000000000001.seg");
    memworld_remove("/j/lane-1");
    damaged("lane removed", "its segments are gone");
    memworld_copy_free(whole);
}

static void lengths_count(void **state)
{
    char path[64], *p;
    size_t len;

    make_small(40, 250, 20);
    whole = memworld_copy();
    for (unsigned n = 0; n < 2; n++) {
        nth(n, path);
        p = malloc(20480);
        memset(p, 0, 20480);
        memcpy(p, memworld_file(path, &len), JOURNAL_SEGMENT_MIN);
        memworld_put(path, p, len - 1);
        damaged("a byte shorter", "length is not the one its header names");
        memworld_put(path, p, 8192);
        damaged("half", "length is not the one its header names");
        memworld_put(path, p, 100);
        damaged("less than a header", "shorter than a segment's header");
        memworld_put(path, p, 0);
        damaged("nothing", "shorter than a segment's header");
        memworld_put(path, p, 20480);
        damaged("longer", "length is not the one its header names");
        free(p);
    }
    memworld_copy_free(whole);
}

static void the_manifest_cannot_go(void **state)
{
    struct journal *j = NULL;
    struct told t;

    make_small(5, 10, 20);
    memworld_remove("/j/manifest");
    assert_err(verify("/j", NULL, &t, NULL), E_NOT_FOUND);
    assert_err(journal_open(&small_options, &j, &info), E_TAMPERED);
    assert_non_null(strstr(info.text, "/j/manifest"));
}

/* ---- rewriting with care --------------------------------------------------------------------------------------- */

/* Leaves one record of a segment out, or alters it, and leaves out those of some types (bits), with numbers, checksums
 * and chain made right again. */
static void rewrite(const char *path, uint64_t which, bool drop, unsigned without)
{
    size_t len, off = HEADER_BYTES, to;
    uint8_t *p = (uint8_t *)memworld_file(path, &len), link[HASH_LEN], *was = malloc(len);
    uint32_t behind = 0;
    uint64_t seq = 0;
    struct frame f;
    size_t n;

    memcpy(was, p, len);
    memset(p + HEADER_BYTES, 0, len - HEADER_BYTES);
    memcpy(link, p + 128, HASH_LEN);
    for (to = off; (n = frame_claims(was + off, JOURNAL_PAYLOAD_MAX)); off = frame_after(was, off + n)) {
        assert_null(frame_decode(was + off, n, &f));
        if (f.first)
            behind = 0;
        if ((f.seq == which && drop) || without & 1u << f.type)
            continue;
        if (behind == 0)
            to = (size_t)block_up((int64_t)to);
        if (f.seq == which)
            was[off + JOURNAL_FRAME_BYTES + 2] ^= 1;
        seq = seq ? seq + 1 : f.seq;
        frame_put(p + to, f.type, f.lane, seq, f.time, f.payload);
        frame_seal(p + to, behind, behind == 0, link);
        behind++;
        to += n;
    }
    free(was);
}

static void a_forged_chain_is_seen(void **state)
{
    struct told t;
    char path[64];

    make_small(34, 250, 5);
    whole = memworld_copy();

    rewrite(first, 8, true, 0);         /* one record less, all links right: the next segment's header knows better */
    damaged("record removed, chain rewritten", "a segment is missing before this one");
    rewrite(first, 8, false, 0);
    damaged("record altered, chain rewritten", "does not follow the one before it");
    nth(1, path);
    rewrite(path, 37, false, 0);        /* the last segment: checkpoints and the manifest know better */
    assert_err(verify("/j", NULL, &t, NULL), E_TAMPERED);
    assert_non_null(strstr(t.all, "signs another chain"));
    damaged("record altered behind, chain rewritten", "the record is not the one the manifest names");
    rewrite(path, 37, true, 0);
    damaged("record removed behind, chain rewritten", "its tail was cut off");
    memworld_copy_free(whole);
}

/* All bytes are there, in their order: one record was only pushed away from the one it was written with. */
static void a_record_away_from_its_batch_is_seen(void **state)
{
    size_t len, off = HEADER_BYTES, to = HEADER_BYTES, n;
    uint8_t *p, *was;
    bool pushed = false;
    struct frame f;

    make_small(6, 10, 1000);
    whole = memworld_copy();
    p = (uint8_t *)memworld_file(first, &len);
    was = malloc(len);
    memcpy(was, p, len);
    memset(p + HEADER_BYTES, 0, len - HEADER_BYTES);
    for (; (n = frame_claims(was + off, JOURNAL_PAYLOAD_MAX)); off = frame_after(was, off + n), to += n) {
        assert_null(frame_decode(was + off, n, &f));
        if (f.first || !pushed)
            to = (size_t)block_up((int64_t)to);
        pushed |= !f.first;
        memcpy(p + to, was + off, n);
    }
    assert_true(pushed);
    free(was);
    damaged("a record away from its batch", "does not stand where its batch does");
    memworld_copy_free(whole);
}

/* Right in everything, and so many that ROLL would no longer fit: no engine writes that. */
static void records_to_the_very_end_are_seen(void **state)
{
    size_t len, off = HEADER_BYTES, n;
    uint8_t *p, link[HASH_LEN];
    struct frame f = { 0 };

    make_small(3, 10, 1000);
    whole = memworld_copy();
    p = (uint8_t *)memworld_file(first, &len);
    while ((n = frame_claims(p + off, JOURNAL_PAYLOAD_MAX))) {
        assert_null(frame_decode(p + off, n, &f));
        memcpy(link, f.hash, HASH_LEN);
        off = frame_after(p, off + n);
    }
    for (uint64_t seq = f.seq + 1; off < len; off += BLOCK_BYTES, seq++) {
        frame_put(p + off, JOURNAL_ADMIN, 0, seq, f.time, STR("{}"));
        frame_seal(p + off, 0, true, link);
    }
    damaged("records to the very end", "where only a segment's last record may");
    memworld_copy_free(whole);
}

/* Zeros from record `seq` on. */
static void cut_at(const char *path, uint64_t seq)
{
    size_t len, off = HEADER_BYTES, n;
    uint8_t *p = (uint8_t *)memworld_file(path, &len);
    struct frame f;

    while ((n = frame_claims(p + off, JOURNAL_PAYLOAD_MAX))) {
        assert_null(frame_decode(p + off, n, &f));
        if (f.seq == seq) {
            memset(p + off, 0, len - off);
            return;
        }
        off = frame_after(p, off + n);
    }
    fail_msg("no record %llu", (unsigned long long)seq);
}

static void a_clean_cut_is_seen_after_an_orderly_end(void **state)
{
    make_small(20, 50, 1000);
    whole = memworld_copy();
    cut_at(first, 10);
    damaged("tail cut off", "its tail was cut off");
    cut_at(first, 22);                  /* CLOSE alone */
    damaged("CLOSE cut off", "its tail was cut off");
    memworld_copy_free(whole);
}

struct crash {
    struct buf early, checkpoints;
    struct journal_options opt;
    unsigned records;
};

/* Leaves a journal open, as a crash does, with a printed checkpoint of the time, and one of before. */
static void leave_open(void *arg)
{
    struct crash *c = arg;
    struct journal *j = open_journal(&c->opt);
    struct journal_lane *lane = open_lane(j, 0);

    for (unsigned i = 0; i < c->records; i++) {
        assert_ok(await_append(lane, i, 20, NULL));
        if (i == 8)
            assert_ok(journal_checkpoint_print("/j", &c->early, &info));
    }
    assert_ok(journal_checkpoint_print("/j", &c->checkpoints, &info));
    whole = memworld_copy();
    assert_ok(await_journal_lane_close(lane));
    journal_close(j);
    memworld_restore(whole);
    memworld_copy_free(whole);
}

static void checkpoints_kept_elsewhere_show_a_cut(void **state)
{
    struct crash c = { BUF_INIT(65536), BUF_INIT(65536), small_options, 23 };
    struct buf years = BUF_INIT(16 << 20);
    struct told t;
    struct journal_report r;
    char *line;

    memworld_reset();
    c.opt.checkpoint_every = 5;
    in_loop(leave_open, &c);
    buf_add_c(&c.checkpoints, '\0');
    line = c.checkpoints.p;
    assert_ok(verify("/j", line, &t, &r));
    assert_false(r.live);
    assert_non_null(strstr(t.all, "did not end in order"));
    cut_at(first, 12);
    assert_ok(verify("/j", NULL, &t, NULL));            /* the limit: files alone do not show it */
    assert_err(verify("/j", line, &t, NULL), E_TAMPERED);
    assert_non_null(strstr(t.all, "a checkpoint kept elsewhere names is gone"));
    for (unsigned i = 0; i < 5000; i++)                 /* the newest is the last of many */
        buf_add_str(&years, buf_str(&c.early));
    buf_add_c(&years, '\0');
    assert_ok(verify("/j", years.p, &t, NULL));
    years.len--;
    buf_add_z(&years, line);
    buf_add_c(&years, '\0');
    assert_err(verify("/j", years.p, &t, NULL), E_TAMPERED);
    assert_int_equal(t.problems, 1);
    assert_non_null(strstr(t.all, "a checkpoint kept elsewhere names is gone"));
    buf_release(&years);
    buf_release(&c.early);
    line[strlen(line) - 2] = line[strlen(line) - 2] == '0' ? '1' : '0';
    assert_err(verify("/j", line, &t, NULL), E_TAMPERED);
    assert_non_null(strstr(t.all, "signature does not match"));
    assert_err(verify("/j", "sluice-checkpoint 1 00 0 1", &t, NULL), E_TAMPERED);
    buf_release(&c.checkpoints);
}

/* ---- records without a signature ------------------------------------------------------------------------------- */

/* What the verifier that shares nothing with the engine says of the one segment there is. */
static int python(void)
{
    char dir[] = "/tmp/sluice-journal-XXXXXX", command[512];
    const char *files[] = { "/j/manifest", first };
    int status;

    assert_non_null(mkdtemp(dir));
    snprintf(command, sizeof(command), "mkdir %s/lane-0", dir);
    assert_int_equal(system(command), 0);
    for (unsigned i = 0; i < 2; i++) {
        char path[128];
        size_t len;
        const char *p = memworld_file(files[i], &len);
        FILE *f;

        snprintf(path, sizeof(path), "%s%s", dir, files[i] + 2);
        f = fopen(path, "w");
        assert_non_null(f);
        assert_int_equal(fwrite(p, 1, len, f), len);
        fclose(f);
    }
    snprintf(command, sizeof(command),
             "python3 tests/script/verify_journal.py %s >/dev/null 2>&1; s=$?; rm -r %s; exit $s", dir, dir);
    status = system(command);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

/* Without the key: a call and all checkpoints taken out of a lane that was left open, and the chain made right. */
static void no_many_records_go_without_a_signature(void **state)
{
    struct crash c = { BUF_INIT(65536), BUF_INIT(65536), small_options, 23 };
    struct told t;

    memworld_reset();
    c.opt.checkpoint_every = 5;
    in_loop(leave_open, &c);
    assert_int_equal(python(), 0);
    assert_ok(verify("/j", NULL, &t, NULL));
    assert_non_null(strstr(t.all, "record 26: the engine did not end in order; from this record on nothing is signed"));
    whole = memworld_copy();
    rewrite(first, 8, true, 1u << JOURNAL_CHECKPOINT);
    assert_int_equal(python(), 1);
    damaged("a call and all checkpoints removed", "more records without a signature");
    rewrite(first, 8, true, 1u << JOURNAL_CHECKPOINT);
    cut_at(first, 12);                  /* the limit: OPEN and ten more. That nothing is signed is told */
    assert_int_equal(python(), 0);
    assert_ok(verify("/j", NULL, &t, NULL));
    assert_non_null(strstr(t.all, "record 1: the engine did not end in order; from this record on nothing is signed"));
    memworld_copy_free(whole);
    buf_release(&c.early);
    buf_release(&c.checkpoints);
}

static void what_a_crash_left_is_signed_at_the_next_start(void **state)
{
    struct crash c = { BUF_INIT(65536), BUF_INIT(65536), small_options, 13 };
    struct journal *j;
    struct told t;

    memworld_reset();
    in_loop(leave_open, &c);
    j = open_journal(&small_options);
    whole = memworld_copy();
    journal_close(j);
    memworld_restore(whole);            /* that start ended in a crash, too */
    assert_ok(verify("/j", NULL, &t, NULL));
    assert_non_null(strstr(t.all, "record 17: the engine did not end in order; from this record on nothing is signed"));
    rewrite(first, 8, false, 0);
    damaged("record altered in front of RECOVERED, chain rewritten", "signs another chain");
    memworld_copy_free(whole);
    buf_release(&c.checkpoints);
    buf_release(&c.early);
}

/* A journal whose manifest does not say how often it is signed: an engine may have written it so. */
static void an_older_journal_is_only_noted(void **state)
{
    struct crash c = { BUF_INIT(65536), BUF_INIT(65536), { .dir = "/j", .segment_bytes = 2 << 20 }, 2100 };
    struct manifest *m = malloc(sizeof(*m));
    struct journal *j = NULL;
    struct signer s;
    struct told t;
    int64_t at;

    assert_non_null(m);
    memworld_reset();
    in_loop(leave_open, &c);
    rewrite(first, 8, true, 1u << JOURNAL_CHECKPOINT);
    assert_err(verify("/j", NULL, &t, NULL), E_TAMPERED);
    assert_int_equal(t.seq, 1 + 2048 + 1);
    assert_ok(manifest_read("/j", m, &at, &info));
    assert_int_equal(m->checkpoint_every, 1024);
    assert_ok(signer_load(&s, "/j/signing.key", &info));
    m->checkpoint_every = 0;
    assert_ok(manifest_write("/j", m, &s, &info));
    assert_ok(verify("/j", NULL, &t, NULL));
    assert_non_null(strstr(t.all, "record 2050: more records without a signature"));
    assert_int_equal(python(), 0);
    assert_ok(journal_open(&c.opt, &j, &info));
    journal_close(j);
    signer_release(&s);
    free(m);
    buf_release(&c.checkpoints);
    buf_release(&c.early);
}

static void write_and_close(void *arg)
{
    struct journal *j = open_journal(arg);
    struct journal_lane *lane = open_lane(j, 0);

    for (unsigned i = 0; i < 12; i++)
        assert_ok(await_append(lane, i, 3000, NULL));
    assert_ok(await_journal_lane_close(lane));
    journal_close(j);
}

/* Behind an orderly end, and behind a crash: what the new key signs is not in a segment of the old one. */
static void another_key_begins_a_segment(void **state)
{
    struct journal_options opt = { .dir = "/j", .segment_bytes = 1 << 20, .checkpoint_every = 5 };
    struct crash c = { BUF_INIT(65536), BUF_INIT(65536), opt, 13 };
    struct told t;

    for (int crash = 0; crash < 2; crash++) {
        memworld_reset();
        in_loop(crash ? leave_open : write_and_close, crash ? (void *)&c : &opt);
        assert_true(memworld_remove("/j/signing.key"));
        in_loop(write_and_close, &opt);
        assert_ok(verify("/j", NULL, &t, NULL));
        assert_int_equal(t.problems, 0);
        in_loop(write_and_close, &opt);         /* and no start is refused for it */
        assert_ok(verify("/j", NULL, &t, NULL));
    }
    buf_release(&c.checkpoints);
    buf_release(&c.early);
}

static void an_expected_key_is_compared(void **state)
{
    struct journal_verify_options opt = { 0 };
    struct journal_report r;
    uint8_t key[32];

    make_small(3, 10, 20);
    assert_ok(journal_verify("/j", NULL, NULL, NULL, &r, &info));
    memcpy(key, r.key, 32);
    opt.expect_key = key;
    assert_ok(journal_verify("/j", &opt, NULL, NULL, &r, &info));
    key[3] ^= 1;
    assert_err(journal_verify("/j", &opt, NULL, NULL, &r, &info), E_TAMPERED);
    assert_int_equal(r.problems, 1);
}

/* ---- random damage --------------------------------------------------------------------------------------------- */

static void blocks_swapped_stale_or_rotten_are_seen(void **state)
{
    uint64_t seed = 1234567;
    size_t len;
    struct told t;
    char path[64];

    make_small(150, 300, 20);
    whole = memworld_copy();
    for (int i = 0; i < 3000; i++) {
        uint8_t *p, block[512];
        size_t a, b;
        bool changed;

        seed = seed * 6364136223846793005u + 1442695040888963407u;
        nth(seed >> 33 & 3, path);
        p = (uint8_t *)memworld_file(path, &len);
        a = (seed >> 40) % 32 * 512;
        b = (seed >> 50) % 32 * 512;
        memcpy(block, p + a, 512);
        if (i % 3 == 0) {                               /* two blocks swapped */
            changed = memcmp(block, p + b, 512) != 0;
            memcpy(p + a, p + b, 512);
            memcpy(p + b, block, 512);
        } else if (i % 3 == 1) {                        /* a block as it was before it was written */
            memset(p + a, 0, 512);
            changed = memcmp(block, p + a, 512) != 0;
        } else {
            p[a + (b & 511)] ^= (uint8_t)(1u << (seed >> 60 & 7));
            changed = true;
        }
        assert_int_equal(verify("/j", NULL, &t, NULL), changed ? E_TAMPERED : OK);
        if (changed)
            assert_string_equal(t.file, path);
        memworld_restore(whole);
    }
    memworld_copy_free(whole);
}

static int use_memory(void **state)
{
    world_use(&memworld);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sound_journal_verifies),
        cmocka_unit_test(a_record_half_written_is_looked_at_again),
        cmocka_unit_test(every_byte_of_a_segment_counts),
        cmocka_unit_test(every_byte_of_the_manifest_counts),
        cmocka_unit_test(segments_and_lanes_cannot_go),
        cmocka_unit_test(lengths_count),
        cmocka_unit_test(the_manifest_cannot_go),
        cmocka_unit_test(a_forged_chain_is_seen),
        cmocka_unit_test(a_record_away_from_its_batch_is_seen),
        cmocka_unit_test(records_to_the_very_end_are_seen),
        cmocka_unit_test(a_clean_cut_is_seen_after_an_orderly_end),
        cmocka_unit_test(checkpoints_kept_elsewhere_show_a_cut),
        cmocka_unit_test(no_many_records_go_without_a_signature),
        cmocka_unit_test(what_a_crash_left_is_signed_at_the_next_start),
        cmocka_unit_test(an_older_journal_is_only_noted),
        cmocka_unit_test(another_key_begins_a_segment),
        cmocka_unit_test(an_expected_key_is_compared),
        cmocka_unit_test(blocks_swapped_stale_or_rotten_are_seen),
    };

    return cmocka_run_group_tests(tests, use_memory, NULL);
}
