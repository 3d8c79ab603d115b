/*
 * provider.h -- what the simulated provider's two APIs are to upstream.c: what a request would do, and what is answered
 */
#ifndef TESTS_SIM_PROVIDER_H
#define TESTS_SIM_PROVIDER_H

#include "base/arena.h"
#include "json/json.h"
#include "upstream.h"

struct request {
    struct arena arena;
    struct str method, path, auth, body;
    struct json *json;
};

/* Fills op, step and key of a request that changes something; others are left alone. */
void items_deed(const struct request *r, struct deed *e);
void graph_deed(const struct request *r, struct deed *e);
/* The text of a good answer, once the request has been executed. */
const char *items_text(const struct request *r, const struct deed *e, struct arena *a);
const char *graph_text(const struct request *r, const struct deed *e, struct arena *a);

#endif
