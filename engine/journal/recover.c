/*
 * recover.c -- bringing lanes into order at start: what a crash tore is cut, anything else stops the start
 *
 * A crash can leave only one kind of damage: of the batches that were under way, a lane's last, any part may be
 * missing; from the first gap on nothing was acknowledged.  Every record says how far the lane was durable when its
 * batch was begun (format.h), so a broken place with a record behind it that knew it durable was damaged by somebody
 * or something, and the start is refused with nothing changed.  So it is when the manifest knows of a later record, or
 * says that the lane was closed.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>

#include "base/crypto.h"
#include "base/log.h"
#include "journal/internal.h"

enum err refuse(struct errinfo *info, const char *file, int64_t off, uint64_t seq, const char *why)
{
    return err_set(info, E_TAMPERED,
                   "%s, offset %lld, record %llu: %s. Nothing was changed: see what sluice audit verify "
                   "says, restore the files, or set them aside and start a new journal",
                   file, (long long)off, (unsigned long long)seq, why);
}

const char signatures_missing[] = "more records without a signature than there should be: they may be forged";

static const char *signature_wrong(const struct signatures *s, const struct manifest *m, const struct seg_header *h,
                                   const struct frame *f)
{
    uint8_t chain[HASH_LEN], key[32], signature[64];
    struct buf text = BUF_INIT(512);
    const char *why = NULL;

    if (!checkpoint_get(f->payload, chain, key, signature))
        return "the checkpoint does not have a checkpoint's form";
    checkpoint_text(m->id, f->lane, f->seq - 1, chain, key, &text);
    if (memcmp(chain, s->before, HASH_LEN) != 0)
        why = "the checkpoint signs another chain";
    else if (memcmp(key, h->key, 32) != 0)
        why = "the checkpoint is signed with another key than the segment's";
    else if (!ed25519_verify(key, text.p, text.len, signature))
        why = "the checkpoint's signature does not match";
    buf_release(&text);
    return why;
}

const char *signatures_take(struct signatures *s, const struct manifest *m, const struct seg_header *h,
                            const struct frame *f)
{
    const char *why = NULL;

    if (f->type == JOURNAL_CHECKPOINT || f->type == JOURNAL_CLOSE) {
        why = signature_wrong(s, m, h, f);
        if (!why)
            signatures_named(s, f->seq);
    } else if (f->type >= JOURNAL_INTENT) {
        s->since++;
    }
    memcpy(s->before, f->hash, HASH_LEN);
    return why;
}

void signatures_named(struct signatures *s, uint64_t seq)
{
    s->upto = seq;
    s->since = 0;
}

uint64_t signatures_most(const struct manifest *m)
{
    return 2 * (uint64_t)(m->checkpoint_every ? m->checkpoint_every : JOURNAL_CHECKPOINT_DEFAULT);
}

/* A lane being recovered: the segments before `i` are in order and end at `seq` - 1 with hash `link`. */
struct lane_recovery {
    struct journal *j;
    const struct manifest_lane *known;
    struct lane_head *head;
    struct errinfo *info;
    char dir[JOURNAL_PATH_MAX];
    uint64_t seq, number;
    uint8_t link[HASH_LEN];
    bool rolled;                /* the last record is ROLL */
    bool closed;                /* the last record is CLOSE */
    bool met;                   /* the record that the manifest names was found as it says */
    struct signatures signatures;
};

const char *header_misfit(const struct manifest *m, const struct seg_place *place, const struct seg_header *h)
{
    if (memcmp(h->id, m->id, sizeof(h->id)) != 0)
        return "the segment belongs to another journal";
    if (h->lane != place->lane)
        return "the segment belongs to another lane";
    if (h->first_seq != place->named)
        return "the segment has another's name";
    if (h->first_seq != place->seq)
        return "a segment is missing before this one";
    if (place->number != 0 && h->number != place->number + 1)
        return "the segment is not the next of its lane";
    if (place->link && memcmp(h->link, place->link, HASH_LEN) != 0)
        return "the segment does not follow the one before it: the chain is broken";
    if (!manifest_knows_key(m, h->key))
        return "the segment names a signing key that the manifest does not know";
    return NULL;
}

/* Takes note of where the chain stands; false if the manifest says otherwise. */
static bool head_meets(struct lane_recovery *r, uint64_t seq, const uint8_t hash[HASH_LEN])
{
    if (seq != r->known->seq)
        return true;
    r->met = memcmp(hash, r->known->hash, HASH_LEN) == 0;
    if (r->met)
        signatures_named(&r->signatures, seq);
    return r->met;
}

/* Walks one segment to the first place that is no record of the chain. E_TAMPERED if the manifest is contradicted. */
static enum err segment_walk(struct lane_recovery *r, struct walker *w, const struct seg_header *h, enum walk *ret)
{
    const struct manifest *m = &r->j->manifest;
    struct frame f;

    memcpy(r->signatures.before, h->link, HASH_LEN);
    while ((*ret = walker_next(w, &f)) == WALK_RECORD) {
        const char *why = signatures_take(&r->signatures, m, h, &f);

        r->j->recovery.records++;
        if (!head_meets(r, f.seq, f.hash))
            why = "the record is not the one the manifest names";
        if (!why && m->checkpoint_every && r->signatures.since > signatures_most(m))
            why = signatures_missing;
        if (why)
            return refuse(r->info, w->f->path, w->off - (int64_t)f.size, f.seq, why);
    }
    if (w->f->error)
        return err_set(r->info, E_IO, "%s: %s", w->f->path, strerror(w->f->error));
    r->seq = w->seq;
    if (w->any) {
        memcpy(r->link, w->link, HASH_LEN);
        r->rolled = w->rolled;
        r->closed = w->last == JOURNAL_CLOSE;
    }
    return OK;
}

/* What stands at the end of the last segment is neither a record nor zeros. NULL if a crash may have left it so. */
static const char *tail_verdict(struct lane_recovery *r, struct walker *w, char why[160])
{
    int64_t off;
    uint64_t seq;

    if (w->rolled)
        return "bytes behind the segment's last record";
    if (r->known->closed)
        return "the record was damaged or added after the journal had been closed in order";
    if (w->seq <= r->known->seq) {
        snprintf(why, 160, "the record is damaged; it was durable, as the manifest knows record %llu",
                 (unsigned long long)r->known->seq);
        return why;
    }
    if (walker_was_durable(w, &off, &seq)) {
        snprintf(why, 160,
                 "the record is damaged; it was durable, as record %llu of a later batch stands at offset %lld",
                 (unsigned long long)seq, (long long)off);
        return why;
    }
    return NULL;
}

/* What is signed with another key than the segment names begins a segment of its own: this one is full. */
static bool signs(const struct journal *j, const struct seg_header *h)
{
    return memcmp(h->key, j->signer.key, sizeof(h->key)) == 0;
}

static enum err segment_check(struct lane_recovery *r, uint64_t named, bool last)
{
    char path[JOURNAL_PATH_MAX], why_text[160];
    struct seg_file f;
    struct seg_header h;
    struct walker w;
    enum walk end;
    const char *why;
    int64_t at;
    enum err e = OK;
    int rc;

    segment_path(r->j, r->known->lane, named, path);
    rc = seg_file_open(&f, path, O_RDONLY);
    if (rc < 0)
        return err_set(r->info, E_JOURNAL_UNWRITABLE, "%s: %s", path, strerror(-rc));
    why = seg_header_read(&f, &h, &at);
    if (!why) {
        struct seg_place place = { .lane = r->known->lane, .named = named, .seq = r->seq, .number = r->number,
                                   .link = r->number != 0 || r->seq == 1 ? r->link : NULL };

        at = 0;
        why = header_misfit(&r->j->manifest, &place, &h);
    }
    if (why) {
        e = refuse(r->info, path, at, r->seq, why);
        goto out;
    }
    walker_begin(&w, &f, &h);
    e = segment_walk(r, &w, &h, &end);
    if (e)
        goto out;
    if (!last && (!w.rolled || end != WALK_END)) {
        e = refuse(r->info, path, w.off, w.seq,
                   end == WALK_BAD ? w.reason : "records are missing at the end of the segment");
        goto out;
    }
    at = seg_nonzero_first(&f, w.off);
    if (at >= 0) {
        why = !last ? "bytes behind the segment's last record" : tail_verdict(r, &w, why_text);
        if (why) {
            e = refuse(r->info, path, at, w.seq, why);
            goto out;
        }
    }
    r->number = h.number;
    *r->head = (struct lane_head){ .lane = h.lane,
                                   .torn = at >= 0,
                                   .segment = !w.rolled,
                                   .first_seq = h.first_seq,
                                   .number = h.number,
                                   .segment_bytes = signs(r->j, &h) ? h.segment_bytes : block_up(w.off) + BLOCK_BYTES,
                                   .off = w.off,
                                   .next_seq = w.seq };
    memcpy(r->head->link, w.link, HASH_LEN);
    memcpy(r->head->last, r->link, HASH_LEN);
out:
    seg_file_close(&f);
    return e;
}

static enum err lane_check(struct journal *j, const struct manifest_lane *known, struct lane_head *head,
                           struct errinfo *info)
{
    struct lane_recovery r = { .j = j, .known = known, .head = head, .info = info, .seq = known->first };
    struct seg_list list;
    enum err e = OK;
    int rc;

    lane_path(j, known->lane, r.dir);
    format_genesis(j->manifest.id, known->lane, r.link);
    r.met = known->seq < known->first;
    rc = seg_list_read(&list, r.dir);
    seg_list_segments(&list);
    if (rc < 0 && rc != -ENOENT)
        e = err_set(info, E_JOURNAL_UNWRITABLE, "%s: %s", r.dir, strerror(-rc));
    else if (list.n == 0)
        e = refuse(info, r.dir, 0, known->first, "the manifest lists this lane, but its segments are gone");
    for (size_t i = 0; i < list.n && !e; i++)
        e = segment_check(&r, list.v[i].first, i + 1 == list.n);
    if (!e && (r.seq <= known->seq || !r.met))
        e = refuse(info, r.dir, 0, r.seq, "the lane ends here, but the manifest knows of later records");
    if (!e && known->closed && r.seq != known->seq + 1)
        e = refuse(info, r.dir, 0, r.seq, "records were added after the journal had been closed in order");
    seg_list_release(&list);
    head->crashed = head->torn || (!known->closed && !r.closed && r.seq > 1);
    return e;
}

/* ---- mending: only once all lanes have been found to be in order ----------------------------------------------- */

static enum err tail_cut(struct journal *j, const struct lane_head *head, int64_t *ret_cut, struct buf *ret_torn,
                         struct errinfo *info)
{
    char path[JOURNAL_PATH_MAX], dir[JOURNAL_PATH_MAX];
    struct seg_file f;
    int rc;

    segment_path(j, head->lane, head->first_seq, path);
    lane_path(j, head->lane, dir);
    rc = seg_file_open(&f, path, O_RDWR);
    if (rc == 0) {
        rc = segment_cut(&f, dir, head->first_seq, head->off, ret_cut, ret_torn);
        seg_file_close(&f);
    }
    if (rc < 0)
        return err_set(info, E_JOURNAL_UNWRITABLE, "%s: the tail torn by a crash could not be cut: %s", path,
                       strerror(-rc));
    LOG_WARN("cut the tail of the journal that a crash had torn", LOG_S("file", path), LOG_I("offset", head->off),
             LOG_I("bytes", *ret_cut), LOG_SV("kept_in", buf_str(ret_torn)));
    return OK;
}

static enum err lane_mend(struct journal *j, struct lane_head *head, struct errinfo *info)
{
    struct buf payload = BUF_INIT(1024), torn = BUF_INIT(256);
    int64_t cut = 0;
    enum err e = OK;

    if (head->torn)
        e = tail_cut(j, head, &cut, &torn, info);
    buf_addf(&payload, "{\"torn_bytes\":%lld", (long long)cut);
    if (head->torn)
        buf_addf(&payload, ",\"torn_file\":\"%.*s\"", STR_ARG(buf_str(&torn)));
    buf_add_c(&payload, '}');
    if (!e) {
        int rc = head_append(j, head, JOURNAL_RECOVERED, buf_str(&payload));

        if (rc == 0)            /* nothing a crash left stays without a signature */
            rc = head_append(j, head, JOURNAL_CHECKPOINT, unsigned_payload());
        if (rc < 0)
            e = err_set(info, E_JOURNAL_UNWRITABLE, "%s/lane-%u: the recovery could not be recorded: %s", j->dir,
                        head->lane, strerror(-rc));
    }
    buf_release(&payload);
    buf_release(&torn);
    j->recovery.torn_bytes += (uint64_t)cut;
    j->recovery.lanes_unclean++;
    head->torn = head->crashed = false;
    return e;
}

/* ---- lanes the manifest does not list -------------------------------------------------------------------------- */

struct unlisted {
    struct journal *j;
    struct errinfo *info;
    enum err e;
};

/*
 * A lane's first segment is made before the manifest lists it, and nothing is recorded in it before.  So one that
 * holds nothing is what a crash between the two left, and one that holds records was taken out of the manifest.
 */
static enum err unlisted_segment(struct journal *j, const char *path, struct errinfo *info)
{
    struct seg_file f;
    struct seg_header h;
    const char *why;
    int64_t at;
    int rc = seg_file_open(&f, path, O_RDONLY);

    if (rc < 0)
        return err_set(info, E_JOURNAL_UNWRITABLE, "%s: %s", path, strerror(-rc));
    why = seg_header_read(&f, &h, &at);
    if (!why && seg_nonzero_first(&f, HEADER_BYTES) >= 0) {
        at = HEADER_BYTES;
        why = "there are records, but the manifest does not list this lane";
    }
    seg_file_close(&f);
    if (why)
        return refuse(info, path, at, 1, why);
    rc = world->unlink(path);
    return rc < 0 ? err_set(info, E_JOURNAL_UNWRITABLE, "%s: %s", path, strerror(-rc)) : OK;
}

static void unlisted_lane(unsigned lane, void *arg)
{
    struct unlisted *u = arg;
    char path[JOURNAL_PATH_MAX];
    struct seg_list list;

    if (u->e || manifest_lane(&u->j->manifest, lane))
        return;
    lane_path(u->j, lane, path);
    seg_list_read(&list, path);
    seg_list_segments(&list);
    for (size_t i = 0; i < list.n && !u->e; i++) {
        segment_path(u->j, lane, list.v[i].first, path);
        u->e = unlisted_segment(u->j, path, u->info);
    }
    seg_list_release(&list);
}

enum err journal_recover(struct journal *j, struct errinfo *info)
{
    struct unlisted u = { .j = j, .info = info };
    int rc = lanes_list(j->dir, unlisted_lane, NULL, &u);

    if (rc < 0)
        return err_set(info, E_JOURNAL_UNWRITABLE, "%s: %s", j->dir, strerror(-rc));
    if (u.e)
        return u.e;
    for (unsigned i = 0; i < j->manifest.n_lanes; i++) {
        enum err e = lane_check(j, &j->manifest.lanes[i], &j->heads[i], info);

        if (e)
            return e;
    }
    j->n_heads = j->recovery.lanes = j->manifest.n_lanes;
    for (unsigned i = 0; i < j->n_heads; i++) {
        enum err e = j->heads[i].crashed ? lane_mend(j, &j->heads[i], info) : OK;

        if (e)
            return e;
    }
    return OK;
}
