/*
 * http_server_test.h -- a server on a loop thread of its own, and a blocking client, for the tests of the HTTP server
 */
#ifndef HTTP_SERVER_TEST_H
#define HTTP_SERVER_TEST_H

#include <stdarg.h>
#include <setjmp.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <cmocka.h>
#include <openssl/ssl.h>
#include <pthread.h>
#include <semaphore.h>

#include "http/http.h"

struct fixture {
    struct http_server_options opt;
    struct loop *loop;
    struct http_server *srv;
    pthread_t thread;
    sem_t ready, event;
    char name[64];
    atomic_uint handled, bad, cancelled;
    atomic_int last_fault;
    pthread_mutex_t lock;
    struct buf bad_bytes;           /* what on_bad_request was shown last; under lock */
    struct wake release;            /* lets /slow go on */
    atomic_bool stopped;
};

/* The handler of all tests; its paths are listed above it. opt.handler, arg and listen are filled in. */
void server_start(struct fixture *f, const struct http_server_options *opt);
void server_stop(struct fixture *f);
/* Runs fn(f) on the server's loop and waits until it has run. */
void on_loop(struct fixture *f, void (*fn)(struct fixture *f));
/* Waits for a post of `event` or fails. */
void await_event(sem_t *s);
/* Was this (or a beginning of it) what on_bad_request was shown last? */
bool last_bad_was(struct fixture *f, struct str prefix, bool whole);

struct client {
    int fd;
    SSL_CTX *ctx;
    SSL *ssl;
    struct buf in;
};

struct answer {
    int status;
    struct http_head head;          /* views are stale */
    bool closes;                    /* the server will close */
    char type[64];                  /* Content-Type */
    struct http_body framing;
    struct buf body;
    bool complete;                  /* false: the connection ended before the message */
};

void client_open(struct client *c, struct fixture *f);
void client_close(struct client *c);
/* Was `rc` of a system or SSL call on the connection an interruption, so that it should be made again? */
bool client_interrupted(struct client *c, int rc);
void client_send(struct client *c, struct str s);
/* Reads one answer. False if the connection ended before its head. */
bool client_answer(struct client *c, bool was_head, struct answer *a);
/* Reads to the end of the connection: true if it ended with no further byte. */
bool client_at_end(struct client *c);
void answer_release(struct answer *a);

/* One exchange on a fresh or kept connection: the status, and the body compared when not NULL. */
int ask(struct client *c, const char *request, const char *expected_body);

#endif
