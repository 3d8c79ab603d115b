/* internal.h -- what admin.c and accounts.c share */
#ifndef ADMIN_INTERNAL_H
#define ADMIN_INTERNAL_H

#include "admin/admin.h"
#include "base/arena.h"
#include "json/json.h"

void await_answer_text(struct http_request *rq, int status, const char *text);
void await_answer_json(struct http_request *rq, int status, struct arena *a, struct json *body);
/* accounts.c: everything below /v1/ and /connect/ */
void accounts_handle(struct http_request *rq, struct worker *w);

#endif
