/* audit.c -- `sluice audit`: reading and verifying the journal, with or without a running engine */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "base/crypto.h"
#include "cli/cli.h"
#include "journal/journal.h"

static const char help[] =
    "Usage: sluice audit verify [--expect-key HEX] [--checkpoints FILE]\n"
    "       sluice audit tail [-n N] [--follow]\n"
    "       sluice audit show CALL | LANE:SEQ\n"
    "       sluice audit checkpoint\n\n"
    "Reads the journal of a data directory. A running engine is not disturbed.\n\n"
    "  verify        reads every byte: frames, checksums, chains, signatures. Names each place that\n"
    "                is not as it was written; exit code 1 then\n"
    "  tail          the newest records, one per line; --follow goes on with what comes\n"
    "  show          all records of a call, by the id that replies carry, or the one record named\n"
    "                LANE:SEQ\n"
    "  checkpoint    one signed line per lane. Keep them on another machine: with --checkpoints,\n"
    "                verify then shows a tail that was cut off by somebody who holds the signing key\n\n"
    "  --expect-key HEX    the public key you noted elsewhere; without it the one beside the journal\n"
    "                      is believed\n"
    "  --checkpoints FILE  lines that checkpoint printed\n"
    "  -n N                how many records tail prints; 20 if left out\n"
    "  --data DIR          the engine's data directory; ./sluice-data if left out\n"
    "  --config FILE       the engine's configuration: the data directory is taken from it\n";

struct options {
    const char *config, *data, *key, *checkpoints, *n;
    bool follow;
};

static int unable(enum err e, const struct errinfo *info)
{
    return complain(&verb_audit, EXIT_UNABLE, "%s", info->text[0] ? info->text : err_text(e));
}

/* ---- verify ------------------------------------------------------------------------------------------------------ */

static void print_note(const struct journal_note *n, void *arg)
{
    (void)arg;
    printf("%s  %s", n->problem ? "WRONG" : "note ", n->file ? n->file : "-");
    if (n->offset >= 0)
        printf(" at byte %lld", (long long)n->offset);
    if (n->seq)
        printf(", record %llu", (unsigned long long)n->seq);
    printf(": %s\n", n->text);
}

static int verify(const struct options *o, const char *dir)
{
    struct buf checkpoints = BUF_INIT(16 << 20), hex = BUF_INIT(128);
    struct journal_verify_options opt = { 0 };
    struct journal_report r = { 0 };
    struct errinfo info = { "" };
    uint8_t key[32];
    enum err e;
    int rc = 0;

    if (o->key && hex_decode(str_of(o->key), key, sizeof(key)))
        return complain(&verb_audit, EXIT_USAGE, "--expect-key takes 64 hex digits");
    if (o->key)
        opt.expect_key = key;
    if (o->checkpoints)
        rc = input_read(&verb_audit, o->checkpoints, &checkpoints);
    if (rc)
        return rc;
    opt.checkpoints = buf_str(&checkpoints);
    e = journal_verify(dir, &opt, print_note, NULL, &r, &info);
    buf_release(&checkpoints);
    if (e && e != E_TAMPERED)
        return unable(e, &info);
    buf_add_hex(&hex, r.key, sizeof(r.key));
    printf("%s: %llu records in %u segments of %u lanes, %llu bytes, %u signed checkpoints%s\n",
           e ? "NOT VERIFIED" : "verified", (unsigned long long)r.records, r.segments, r.lanes,
           (unsigned long long)r.bytes, r.checkpoints, r.live ? "; an engine is writing" : "");
    if (r.lanes > 0)                    /* else the manifest, which names it, could not be read */
        printf("key %.*s%s\n", STR_ARG(buf_str(&hex)),
               o->key || e ? "" : " (note it elsewhere, and give it as --expect-key)");
    if (e)
        printf("%u problem%s\n", r.problems, r.problems == 1 ? "" : "s");
    buf_release(&hex);
    return e ? EXIT_UNABLE : 0;
}

/* ---- tail, show, checkpoint -------------------------------------------------------------------------------------- */

static void print_buf(struct buf *b)
{
    if (b->len)
        fwrite(b->p, 1, b->len, stdout);
    fflush(stdout);
    buf_release(b);
}

static bool print_record(const struct journal_record *r, void *arg)
{
    struct buf line = BUF_INIT(16 * (size_t)JOURNAL_PAYLOAD_MAX);

    (void)arg;
    journal_record_line(r, &line);
    print_buf(&line);
    return !ferror(stdout);
}

static int follow(struct journal_follow *f)
{
    struct errinfo info = { "" };
    const struct timespec pause = { 0, 200000000 };
    enum err e;

    do {
        e = journal_follow_next(f, print_record, NULL, &info);
        nanosleep(&pause, NULL);
    } while (!e && !ferror(stdout));
    return e ? unable(e, &info) : 0;
}

static int tail(const struct options *o, const char *dir)
{
    struct buf out = BUF_INIT((size_t)1 << 30);
    struct journal_follow *f = NULL;
    struct errinfo info = { "" };
    int64_t n = 20;
    enum err e = OK;
    int rc = option_number(&verb_audit, "-n", o->n, 0, JOURNAL_TAIL_MAX, &n);

    if (rc)
        return rc;
    if (o->follow)              /* before the tail is read: nothing falls in between */
        e = journal_follow_open(dir, &f, &info);
    if (!e && n)
        e = journal_tail(dir, (unsigned)n, &out, &info);
    if (e)
        rc = unable(e, &info);
    else
        print_buf(&out);
    if (!rc && f)
        rc = follow(f);
    journal_follow_close(f);
    return rc;
}

static int print_what(const char *dir, const char *id)
{
    struct buf out = BUF_INIT((size_t)1 << 30);
    struct errinfo info = { "" };
    enum err e = id ? journal_show(dir, str_of(id), &out, &info) : journal_checkpoint_print(dir, &out, &info);

    if (e == E_NOT_FOUND && id)
        return complain(&verb_audit, EXIT_UNABLE, "no record of \"%s\" in %s", id, dir);
    if (e)
        return unable(e, &info);
    if (out.len == 0)
        fprintf(stderr,
                "no signed checkpoint yet: there is one every %d records, at each orderly end, and after each crash\n",
                JOURNAL_CHECKPOINT_DEFAULT);
    print_buf(&out);
    return 0;
}

static int dispatch(const struct options *o, const char *dir, char **words, int n)
{
    struct str what = str_of(n ? words[0] : "");

    if (str_is(what, "verify") && n == 1)
        return verify(o, dir);
    if (str_is(what, "tail") && n == 1)
        return tail(o, dir);
    if (str_is(what, "show") && n == 2)
        return print_what(dir, words[1]);
    if (str_is(what, "checkpoint") && n == 1)
        return print_what(dir, NULL);
    return complain(&verb_audit, EXIT_USAGE,
                    "write: sluice audit verify, tail, show ID or checkpoint; see sluice audit --help");
}

static int run(int argc, char **argv)
{
    struct options o = { 0 };
    const struct option_spec specs[] = {
        { .name = "config", .value = &o.config },
        { .name = "data", .value = &o.data },
        { .name = "expect-key", .value = &o.key },
        { .name = "checkpoints", .value = &o.checkpoints },
        { .name = "n", .value = &o.n },
        { .name = "follow", .flag = &o.follow },
        { 0 },
    };
    struct config *config = NULL;
    char *words[2];
    int n, rc = options_read(&verb_audit, argc, argv, specs, words, 2, &n);

    if (rc)
        return rc < 0 ? 0 : rc;
    rc = config_open(&verb_audit, o.config, o.data, &config);
    if (!rc)
        rc = dispatch(&o, arena_printf(&config->arena, "%s/journal", config->data).p, words, n);
    config_free(config);
    return rc;
}

const struct verb verb_audit = { "audit", "verify and read the journal", help, run };
