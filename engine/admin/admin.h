/*
 * admin.h -- health, metrics, and the accounts of whoever asks
 *
 *   GET    /healthz                  200 while the process runs                                     not recorded
 *   GET    /readyz                   200 when calls could be made and recorded, else 503            not recorded
 *   GET    /metrics                  Prometheus text; loopback peers only                           not recorded
 *   GET    /v1/accounts              the caller's accounts                                          bearer token
 *   POST   /v1/connect               {provider, label?} -> {url}: where the user's browser goes     bearer token
 *   POST   /v1/accounts              {provider, label?, token, external_id?}: a token the user brings   bearer token
 *   DELETE /v1/accounts/ID           revokes at the provider, then forgets                          bearer token
 *   GET    /connect/callback         where the provider sends the browser back: state, code         the state
 *
 * What changes an account is in the journal as an ADMIN record.
 */
#ifndef ADMIN_ADMIN_H
#define ADMIN_ADMIN_H

#include "base/str.h"
#include "call/engine.h"
#include "http/http.h"

bool admin_serves(struct str path);
void admin_handle(struct http_request *rq, struct worker *w);

#endif
