/*
 * egress.h -- the way out for rooms that must not know fetch: token endpoints (vault), key sets (identity)
 */
#ifndef RUNTIME_EGRESS_H
#define RUNTIME_EGRESS_H

#include "identity/identity.h"
#include "vault/vault.h"

struct vault_http egress_vault_http(void);
struct identity_fetcher egress_identity_fetcher(void);

#endif
