-- guard.lua -- the token and a rate limit, for nginx with Lua
--
-- Debian has no library for JWTs, so the signature is checked by the libcrypto that nginx has loaded: one EVP_DigestVerify
-- of Ed25519. Verified tokens are kept (10,000, by the token itself), so that most requests check an expiry only, as the
-- engine does. The limit is a count per user and second in shared memory, far above what a bench asks for.
local ffi = require("ffi")
local lru = require("resty.lrucache")

ffi.cdef [[
void *EVP_PKEY_new_raw_public_key(int type, void *e, const unsigned char *key, size_t keylen);
void *EVP_MD_CTX_new(void);
void EVP_MD_CTX_free(void *ctx);
int EVP_DigestVerifyInit(void *ctx, void *pctx, const void *type, void *e, void *pkey);
int EVP_DigestVerify(void *ctx, const unsigned char *sig, size_t siglen, const unsigned char *data, size_t len);
]]
local ED25519, PER_SECOND = 1087, 1000000
local M = {}
local key, audience, verified, limits

local function decode(text)
    text = text:gsub("-", "+"):gsub("_", "/")
    return ngx.decode_base64(text .. ("="):rep(-#text % 4))
end

function M.start(raw, wanted)
    raw = decode(raw)
    key = ffi.C.EVP_PKEY_new_raw_public_key(ED25519, nil, raw, #raw)
    assert(key ~= nil, "the key is none of Ed25519")
    audience = wanted
    verified = lru.new(10000)
    limits = ngx.shared.limits
end

local function signed(text, signature)
    local ctx = ffi.C.EVP_MD_CTX_new()
    local good = ffi.C.EVP_DigestVerifyInit(ctx, nil, nil, nil, key) == 1
        and ffi.C.EVP_DigestVerify(ctx, signature, #signature, text, #text) == 1
    ffi.C.EVP_MD_CTX_free(ctx)
    return good
end

-- Debian's nginx has no JSON for Lua either: the payload is searched. It was signed by us, and names no claim twice.
local function claims_of(payload)
    return { exp = tonumber(payload:match('"exp":(%d+)')), sub = payload:match('"sub":"([^"\\]*)"'),
             aud = payload:match('"aud":%[?"([^"\\]*)"'), iss = payload:match('"iss":"([^"\\]*)"') }
end

local function verify(token)
    local head, payload, signature = token:match("^([^.]+)%.([^.]+)%.([^.]+)$")
    if not head or not (decode(head) or ""):find('"alg":"EdDSA"', 1, true) then
        return nil
    end
    signature = decode(signature)
    if not signature or not signed(head .. "." .. payload, signature) then
        return nil
    end
    local claims = claims_of(decode(payload))
    if not claims.exp or not claims.sub or not claims.iss or claims.aud ~= audience then
        return nil
    end
    return { exp = claims.exp, user = claims.sub }
end

function M.check()
    local token = (ngx.var.http_authorization or ""):match("^Bearer (%S+)$")
    if not token then
        return ngx.exit(401)
    end
    local who = verified:get(token)
    if not who then
        who = verify(token)
        if not who then
            return ngx.exit(401)
        end
        verified:set(token, who)
    end
    local now = ngx.time()
    if who.exp <= now then
        return ngx.exit(401)
    end
    if limits:incr(who.user .. "|" .. now, 1, 0, 2) > PER_SECOND then
        return ngx.exit(429)
    end
end

return M
