/*
 * exchange.h -- one upstream request of a call: credential, permit, send, classify, maybe again
 */
#ifndef CALL_EXCHANGE_H
#define CALL_EXCHANGE_H

#include "call/call.h"

struct exchange {
    const char *method, *path;
    struct json *body;              /* sent as JSON, or with form: its members as a form */
    bool form;
    bool effect;                    /* it changes something: never sent again on a guess */
};

/* *ret: the answer's JSON, NULL if it has none. Errors of errors.def, with words for the model in the call's `why`. */
enum err await_call_exchange(struct call *c, const struct exchange *x, struct json **ret);

#endif
