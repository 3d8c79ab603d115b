/*
 * fetch_bed.h -- a scripted provider, a loop and a fetch around one test body, which runs as a task
 *
 * CHECK ends the process: cmocka's own assertions would jump from one stack to another.
 */
#ifndef TESTS_UNIT_FETCH_BED_H
#define TESTS_UNIT_FETCH_BED_H

#include <stdio.h>
#include <stdlib.h>

#include "base/check.h"
#include "base/metric.h"
#include "fetch/fetch.h"
#include "fetch_upstream.h"
#include "loop/loop.h"
#include "loop/task.h"

#define CHECK(x) do { if (!(x)) { fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #x); abort(); } } while (0)
#define CHECK_ERR(e, expected) do { enum err e_ = (e); if (e_ != (expected)) { \
    fprintf(stderr, "%s:%d: %s, not %s\n", __FILE__, __LINE__, err_name(e_), err_name(expected)); abort(); } } while (0)
/* Lets the loop turn until x is true. */
#define AWAIT(x) do { ns_t from_ = loop_now(); while (!(x)) { CHECK(loop_now() < from_ + 30 * NS_PER_S); \
    CHECK_ERR(await_sleep(loop_now() + NS_PER_MS), OK); } } while (0)

struct bed {
    struct upstream *up;
    struct loop *loop;
    struct fetch *f;
    struct fetch_options opt;
    struct fetch_origin origin;         /* of the provider: 127.0.0.1, or localhost with TLS */
    void (*body)(struct bed *b);
    void *arg;
    /* of the last bed_fetch() */
    struct arena arena;
    struct fetch_reply reply;
    enum fetch_sent sent;
    struct errinfo info;
};

/* `opt` may be NULL; its guard and CA are filled in. */
void bed_run(enum speaks speaks, void (*serve)(struct peer *p), void *arg, const struct fetch_options *opt,
             void (*body)(struct bed *b));
/* body(b) with another fetch in place of the bed's. */
void bed_with(struct bed *b, const struct fetch_options *opt, void (*body)(struct bed *b));
struct fetch_request bed_request(struct bed *b, const char *method, const char *path);
enum err await_bed(struct bed *b, const struct fetch_request *req);
enum err await_get(struct bed *b, const char *path);
enum err await_post(struct bed *b, const char *path, const char *body);

/* A request in a task of its own. */
struct caller {
    struct bed *b;
    struct fetch_request req;
    struct task_ref task;
    struct wake done;
    struct arena arena;
    struct fetch_reply reply;
    enum fetch_sent sent;
    enum err e;
    unsigned order;                     /* how many callers had ended before */
};
void caller_start(struct caller *c, struct bed *b, const struct fetch_request *req);
void await_callers(struct caller *c, unsigned n);       /* all of them */
void await_caller(struct caller *c);    /* and frees what it holds; c->reply.body is gone then */
void callers_start(struct caller *c, unsigned n, struct bed *b, const struct fetch_request *req);
void await_callers_fine(struct caller *c, unsigned n);  /* all have an answer, and are gone */
void await_callers_gone(struct caller *c, unsigned n);  /* await_caller() for each */

/* How often `needle` stands in memory that can be read and written, that function's own aside. */
unsigned find_in_memory(const char *needle, size_t n);

#endif
