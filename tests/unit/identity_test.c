/* identity_test.c -- which tokens become callers, which do not, and with which word each is refused */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/crypto.h"
#include "base/metric.h"
#include "identity/internal.h"
#include "identity_forge.h"

#define NOW 1800000000LL                /* seconds */
#define RS_HEADER "{\"alg\":\"RS256\",\"kid\":\"k1\",\"typ\":\"at+jwt\"}"
#define ES_HEADER "{\"alg\":\"ES256\",\"kid\":\"k1\",\"typ\":\"at+jwt\"}"
#define ED_HEADER "{\"alg\":\"EdDSA\",\"kid\":\"k1\",\"typ\":\"at+jwt\"}"

static EVP_PKEY *rsa, *p256, *ed, *stranger;
static const struct str audiences[] = { { "https://sluice/mcp", 18 }, { "other", 5 } };
static struct identity *rs_id, *es_id, *ed_id;
static char token[FORGE_MAX];

static struct identity_issuer issuer(const char *name, enum identity_alg alg, const char *jwks)
{
    return (struct identity_issuer){
        .issuer = str_of(name), .alg = alg, .audiences = audiences, .n_audiences = 2, .jwks_inline = str_of(jwks),
        .tenant = STR("acme"),
    };
}

static const char *key_set(EVP_PKEY *key)
{
    static char text[FORGE_MAX];

    snprintf(text, sizeof(text), "{\"keys\":[%s]}", forge_jwk(key, "k1", ",\"use\":\"sig\""));
    return text;
}

static struct identity *create(const struct identity_issuer *list, size_t n, size_t cache_max)
{
    struct identity_config config = { .issuers = list, .n_issuers = n, .cache_max = cache_max };
    struct errinfo info = { "" };
    struct identity *id = NULL;

    if (identity_create(&config, &id, &info))
        fail_msg("%s", info.text);
    return id;
}

static struct identity *create_one(EVP_PKEY *key, enum identity_alg alg)
{
    struct identity_issuer is = issuer("https://idp", alg, key_set(key));

    return create(&is, 1, 0);
}

static int make_keys(void **state)
{
    rsa = forge_rsa(2048);
    p256 = forge_p256();
    ed = forge_ed25519();
    stranger = forge_ed25519();
    rs_id = create_one(rsa, IDENTITY_RS256);
    es_id = create_one(p256, IDENTITY_ES256);
    ed_id = create_one(ed, IDENTITY_EDDSA);
    return 0;
}

static int free_keys(void **state)
{
    identity_destroy(rs_id);
    identity_destroy(es_id);
    identity_destroy(ed_id);
    EVP_PKEY_free(rsa);
    EVP_PKEY_free(p256);
    EVP_PKEY_free(ed);
    EVP_PKEY_free(stranger);
    return 0;
}

/* ---- claims as a list, so that each can be damaged in turn ------------------------------------------------------- */

struct claim {
    const char *name, *value;           /* raw JSON */
    bool optional;
};

static const struct claim good[] = {
    { "iss", "\"https://idp\"" },
    { "sub", "\"ann\"" },
    { "aud", "[\"x\",\"https://sluice/mcp\"]" },
    { "exp", "1800000600" },
    { "iat", "1799999990" },
    { "nbf", "1799999990", true },
    { "jti", "\"t1\"" },
    { "client_id", "\"claude\"" },
    { "azp", "\"claude\"", true },
    { "act", "{\"sub\":\"claude-agent\",\"act\":{\"sub\":\"planner\",\"iss\":\"https://p\"}}", true },
    { "scope", "\"mail.read mail.send\"", true },
};
enum { GOOD = sizeof(good) / sizeof(good[0]) };

/* The good claims with number `at` renamed (NULL: left out) and revalued, and `more` at the end. */
static const char *claims_with(size_t at, const char *name, const char *value, const char *more)
{
    static char text[FORGE_MAX / 2];
    size_t n = 0;

    text[n++] = '{';
    for (size_t i = 0; i < GOOD; i++) {
        const char *key = i == at ? name : good[i].name, *v = i == at ? value : good[i].value;

        if (key)
            n += (size_t)sprintf(text + n, "%s\"%s\":%s", n > 1 ? "," : "", key, v);
    }
    sprintf(text + n, "%s}", more);
    return text;
}

static const char *good_claims(void)
{
    return claims_with(GOOD, NULL, NULL, "");
}

static size_t claim_at(const char *name)
{
    for (size_t i = 0; i < GOOD; i++) {
        if (!strcmp(good[i].name, name))
            return i;
    }
    abort();
}

static enum err verify_at(struct identity *id, int64_t now_s, ns_t mono, struct caller **ret)
{
    struct errinfo info = { "" };
    enum err e = identity_verify(id, str_of(token), now_s * 1000, mono, ret, &info);

    if (e && e != E_NOT_FOUND)
        assert_int_not_equal(info.text[0], 0);
    return e;
}

static enum err verify(struct identity *id)
{
    struct caller *c = NULL;
    enum err e = verify_at(id, NOW, 0, &c);

    caller_release(c);
    return e;
}

static enum err verify_claims(const char *claims)
{
    forge_token("EdDSA", ed, ED_HEADER, claims, token);
    return verify(ed_id);
}

static enum err verify_header(const char *header)
{
    forge_token("EdDSA", ed, header, good_claims(), token);
    return verify(ed_id);
}

/* ---- good tokens ------------------------------------------------------------------------------------------------- */

static void a_good_token_names_its_caller(void **state)
{
    struct { const char *alg, *header; EVP_PKEY *key; struct identity *id; } kinds[] = {
        { "RS256", RS_HEADER, rsa, rs_id }, { "ES256", ES_HEADER, p256, es_id }, { "EdDSA", ED_HEADER, ed, ed_id },
    };

    for (size_t i = 0; i < 3; i++) {
        uint8_t digest[32];
        char hex[17];
        struct caller *c;

        forge_token(kinds[i].alg, kinds[i].key, kinds[i].header, good_claims(), token);
        assert_int_equal(verify_at(kinds[i].id, NOW, 0, &c), OK);
        assert_true(str_is(c->tenant, "acme") && str_is(c->user, "ann") && str_is(c->agent, "claude-agent"));
        assert_int_equal(c->n_actors, 2);
        assert_true(str_is(c->actors[1].name, "planner") && str_is(c->actors[1].issuer, "https://p"));
        assert_true(str_is(c->issuer, "https://idp") && str_is(c->client_id, "claude") && str_is(c->token_id, "t1"));
        assert_int_equal(c->n_scopes, 2);
        assert_true(caller_has_scope(c, STR("mail.send")) && !caller_has_scope(c, STR("mail")));
        assert_int_equal(c->expires, 1800000600000LL + 30000);
        assert_int_equal(c->auth, CALLER_AUTH_JWT);
        sha256(token, strlen(token), digest);
        for (int k = 0; k < 8; k++)
            sprintf(hex + 2 * k, "%02x", digest[k]);
        assert_string_equal(c->fingerprint, hex);
        caller_release(c);
    }
}

static void the_client_is_the_agent_when_nobody_acts_for_it(void **state)
{
    struct caller *c;

    forge_token("EdDSA", ed, ED_HEADER, claims_with(claim_at("act"), NULL, NULL, ""), token);
    assert_int_equal(verify_at(ed_id, NOW, 0, &c), OK);
    assert_true(str_is(c->agent, "claude"));
    assert_int_equal(c->n_actors, 1);
    caller_release(c);
}

/* ---- damaged claims and headers (B5) ----------------------------------------------------------------------------- */

static bool may_be(const char *claim, const char *value)
{
    bool text = value[0] == '"' && value[1] != '"';
    bool number = value[0] >= '0' && value[0] <= '9';

    if (!strcmp(claim, "exp") || !strcmp(claim, "iat") || !strcmp(claim, "nbf"))
        return number;
    if (!strcmp(claim, "scope"))
        return value[0] == '"' || !strcmp(value, "[]");
    return text;
}

static void each_claim_damaged_in_turn_is_refused(void **state)
{
    static const char *const values[] = {
        "null", "true", "7", "-1", "1e300", "\"\"", "\"7\"", "[]", "[7]", "[\"\"]", "{}", "{\"sub\":7}",
    };
    unsigned tried = 0;

    assert_int_equal(verify_claims(good_claims()), OK);
    for (size_t i = 0; i < GOOD; i++) {
        char name[32], again[FORGE_MAX / 4];
        enum err e = verify_claims(claims_with(i, NULL, NULL, ""));

        if (good[i].optional)
            assert_int_equal(e, OK);
        else
            assert_int_equal(e, E_TOKEN_CLAIMS);
        snprintf(again, sizeof(again), ",\"%s\":%s", good[i].name, good[i].value);
        assert_int_equal(verify_claims(claims_with(GOOD, NULL, NULL, again)), E_TOKEN_MALFORMED);
        snprintf(again, sizeof(again), ",\"\\u00%02x%s\":%s", good[i].name[0], good[i].name + 1, good[i].value);
        assert_int_equal(verify_claims(claims_with(GOOD, NULL, NULL, again)), E_TOKEN_MALFORMED);
        snprintf(name, sizeof(name), "%c%s", good[i].name[0] - 32, good[i].name + 1);
        assert_int_equal(verify_claims(claims_with(i, name, good[i].value, "")), e);       /* recased is absent */
        for (size_t k = 0; k < sizeof(values) / sizeof(values[0]); k++) {
            if (may_be(good[i].name, values[k]))
                continue;
            e = verify_claims(claims_with(i, good[i].name, values[k], ""));
            if (e != E_TOKEN_CLAIMS && !(e == E_TOKEN_AUDIENCE && !strcmp(good[i].name, "aud")))
                fail_msg("%s: %s is not refused as a claim", good[i].name, values[k]);
            tried++;
        }
    }
    assert_true(tried > 90);
}

static void each_header_field_damaged_is_refused(void **state)
{
    static const struct { const char *header; enum err e; } cases[] = {
        { "{\"kid\":\"k1\",\"typ\":\"at+jwt\"}", E_TOKEN_MALFORMED },
        { "{\"alg\":null,\"kid\":\"k1\",\"typ\":\"at+jwt\"}", E_TOKEN_MALFORMED },
        { "{\"alg\":[\"EdDSA\"],\"kid\":\"k1\",\"typ\":\"at+jwt\"}", E_TOKEN_MALFORMED },
        { "{\"alg\":\"EdDSA\",\"alg\":\"EdDSA\",\"kid\":\"k1\",\"typ\":\"at+jwt\"}", E_TOKEN_MALFORMED },
        { "{\"Alg\":\"EdDSA\",\"kid\":\"k1\",\"typ\":\"at+jwt\"}", E_TOKEN_MALFORMED },
        { "{\"alg\":\"eddsa\",\"kid\":\"k1\",\"typ\":\"at+jwt\"}", E_TOKEN_ALGORITHM },
        { "{\"alg\":\"EdDSA\",\"typ\":\"at+jwt\"}", E_TOKEN_UNTRUSTED },
        { "{\"alg\":\"EdDSA\",\"kid\":7,\"typ\":\"at+jwt\"}", E_TOKEN_MALFORMED },
        { "{\"alg\":\"EdDSA\",\"kid\":null,\"typ\":\"at+jwt\"}", E_TOKEN_MALFORMED },
        { "{\"alg\":\"EdDSA\",\"kid\":\"\",\"typ\":\"at+jwt\"}", E_TOKEN_MALFORMED },
        { "{\"alg\":\"EdDSA\",\"kid\":\"k1\",\"kid\":\"k1\",\"typ\":\"at+jwt\"}", E_TOKEN_MALFORMED },
        { "{\"alg\":\"EdDSA\",\"kid\":\"K1\",\"typ\":\"at+jwt\"}", E_TOKEN_UNTRUSTED },
        { "{\"alg\":\"EdDSA\",\"kid\":\"k1\\u0000\",\"typ\":\"at+jwt\"}", E_TOKEN_UNTRUSTED },
        { "{\"alg\":\"EdDSA\",\"kid\":\"../../dev/null\",\"typ\":\"at+jwt\"}", E_TOKEN_UNTRUSTED },
        { "{\"alg\":\"EdDSA\",\"kid\":\"' OR 1=1 --\",\"typ\":\"at+jwt\"}", E_TOKEN_UNTRUSTED },
        { "{\"alg\":\"EdDSA\",\"kid\":\"k1\"}", E_TOKEN_CLAIMS },
        { "{\"alg\":\"EdDSA\",\"kid\":\"k1\",\"typ\":\"JWT\"}", E_TOKEN_CLAIMS },
        { "{\"alg\":\"EdDSA\",\"kid\":\"k1\",\"typ\":\"dpop+jwt\"}", E_TOKEN_CLAIMS },
        { "{\"alg\":\"EdDSA\",\"kid\":\"k1\",\"typ\":\"at+jwt\\u0000\"}", E_TOKEN_CLAIMS },
        { "{\"alg\":\"EdDSA\",\"kid\":\"k1\",\"typ\":7}", E_TOKEN_MALFORMED },
        { "{\"alg\":\"EdDSA\",\"kid\":\"k1\",\"typ\":\"at+jwt\",\"crit\":[\"exp\"]}", E_TOKEN_MALFORMED },
        { "{\"alg\":\"EdDSA\",\"kid\":\"k1\",\"typ\":\"at+jwt\",\"crit\":[]}", E_TOKEN_MALFORMED },
        { "{\"alg\":\"EdDSA\",\"kid\":\"k1\",\"typ\":\"at+jwt\",\"b64\":false}", E_TOKEN_MALFORMED },
        { "{\"alg\":\"EdDSA\",\"kid\":\"k1\",\"typ\":\"at+jwt\",\"zip\":\"DEF\"}", E_TOKEN_MALFORMED },
        { "{\"alg\":\"EdDSA\",\"kid\":\"k1\",\"typ\":\"at+jwt\",\"cty\":\"JWT\"}", E_TOKEN_MALFORMED },
        { "[\"alg\",\"EdDSA\"]", E_TOKEN_MALFORMED },
        { "{\"alg\":\"EdDSA\",\"kid\":\"k1\",\"typ\":\"at+jwt\"} ", OK },
        { "{\"alg\":\"EdDSA\",\"kid\":\"k1\",\"typ\":\"at+jwt\"}}", E_TOKEN_MALFORMED },
        { "{\"alg\":\"EdDSA\",\"kid\":\"k1\",\"typ\":\"application/AT+JWT\"}", OK },
    };
    char header[512], kid[300];

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        enum err e = verify_header(cases[i].header);

        if (e != cases[i].e)
            fail_msg("%s: %s, not %s", cases[i].header, err_name(e), err_name(cases[i].e));
    }
    memset(kid, 'k', 256);
    kid[256] = 0;
    snprintf(header, sizeof(header), "{\"alg\":\"EdDSA\",\"kid\":\"%s\",\"typ\":\"at+jwt\"}", kid);
    assert_int_equal(verify_header(header), E_TOKEN_MALFORMED);
}

/* ---- algorithms and keys that the token would like to choose
 * ------------------------------------------------------ */

static void the_token_does_not_choose_its_algorithm(void **state)
{
    char header[FORGE_MAX / 2];

    forge_token("none", NULL, "{\"alg\":\"none\",\"typ\":\"at+jwt\"}", good_claims(), token);
    assert_int_equal(verify(ed_id), E_TOKEN_ALGORITHM);
    forge_token("none", NULL, "{\"alg\":\"None\",\"kid\":\"k1\",\"typ\":\"at+jwt\"}", good_claims(), token);
    assert_int_equal(verify(rs_id), E_TOKEN_ALGORITHM);
    forge_token("none", NULL, ED_HEADER, good_claims(), token);
    assert_int_equal(verify(ed_id), E_TOKEN_SIGNATURE);
    forge_token("HS256", rsa, "{\"alg\":\"HS256\",\"kid\":\"k1\",\"typ\":\"at+jwt\"}", good_claims(), token);
    assert_int_equal(verify(rs_id), E_TOKEN_ALGORITHM);
    forge_token("HS256", rsa, RS_HEADER, good_claims(), token);
    assert_int_equal(verify(rs_id), E_TOKEN_SIGNATURE);
    forge_token("ES256", p256, ES_HEADER, good_claims(), token);
    assert_int_equal(verify(rs_id), E_TOKEN_ALGORITHM);
    forge_token("ES256", p256, RS_HEADER, good_claims(), token);
    assert_int_equal(verify(rs_id), E_TOKEN_SIGNATURE);
    forge_token("ES256-DER", p256, ES_HEADER, good_claims(), token);
    assert_int_equal(verify(es_id), E_TOKEN_SIGNATURE);
    /* keys and places of keys in the header are not looked at */
    forge_token("EdDSA", stranger, ED_HEADER, good_claims(), token);
    assert_int_equal(verify(ed_id), E_TOKEN_SIGNATURE);
    snprintf(header, sizeof(header), "{\"alg\":\"EdDSA\",\"kid\":\"k1\",\"typ\":\"at+jwt\",\"jwk\":%s,"
        "\"jku\":\"https://evil/jwks\",\"x5u\":\"https://evil/x\",\"x5c\":[\"AAAA\"]}", forge_jwk(stranger, "k1", ""));
    forge_token("EdDSA", stranger, header, good_claims(), token);
    assert_int_equal(verify(ed_id), E_TOKEN_SIGNATURE);
    forge_token("EdDSA", ed, header, good_claims(), token);
    assert_int_equal(verify(ed_id), OK);
}

static void zero_signatures_do_not_verify(void **state)
{
    char *dot;

    forge_token("ES256", p256, ES_HEADER, good_claims(), token);
    dot = strrchr(token, '.') + 1;
    memset(dot, 'A', strlen(dot));
    assert_int_equal(verify(es_id), E_TOKEN_SIGNATURE);
    forge_token("EdDSA", ed, ED_HEADER, good_claims(), token);
    dot = strrchr(token, '.') + 1;
    memset(dot, 'A', strlen(dot));
    assert_int_equal(verify(ed_id), E_TOKEN_SIGNATURE);
}

/* ---- form -------------------------------------------------------------------------------------------------------- */

static void the_form_is_strict(void **state)
{
    static const char *const texts[] = {
        "", ".", "..", "a.b", "a.b.c.d", "e30.e30.", "e30.e30.AA", "bm90IGpzb24.e30.AA", "e30=.e30.AA", "e30.e30 .AA",
        "e31.e30.AA", "\xff.e30.AA", "W10.e30.AA",
    };
    char *dot;

    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        strcpy(token, texts[i]);
        if (verify(ed_id) != E_TOKEN_MALFORMED)
            fail_msg("%s is not malformed", texts[i]);
    }
    /* every single byte of a good token matters */
    forge_token("EdDSA", ed, ED_HEADER, good_claims(), token);
    for (size_t i = 0, n = strlen(token); i < n; i++) {
        char kept = token[i];

        token[i] = kept == 'A' ? 'B' : 'A';
        assert_int_not_equal(verify(ed_id), OK);
        token[i] = kept;
    }
    dot = strchr(token, '.');
    memmove(dot + 1, dot, strlen(dot) + 1);
    assert_int_equal(verify(ed_id), E_TOKEN_MALFORMED);
    memset(token, 'A', IDENTITY_TOKEN_MAX + 1);
    token[IDENTITY_TOKEN_MAX + 1] = 0;
    assert_int_equal(verify(ed_id), E_TOKEN_MALFORMED);
}

static void the_header_value_is_split(void **state)
{
    static const struct { const char *value; enum err e; const char *token; } cases[] = {
        { "", E_TOKEN_MISSING }, { "  ", E_TOKEN_MISSING }, { "Basic abc", E_TOKEN_MISSING },
        { "DPoP abc", E_TOKEN_MISSING }, { "Bearer", E_TOKEN_MALFORMED }, { "Bearer ", E_TOKEN_MALFORMED },
        { "Bearer abc", OK, "abc" }, { "bearer  abc ", OK, "abc" }, { "Bearerabc", E_TOKEN_MISSING },
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct str t = STR_NULL;

        assert_int_equal(identity_bearer(str_of(cases[i].value), &t, NULL), cases[i].e);
        if (!cases[i].e)
            assert_true(str_is(t, cases[i].token));
    }
}

/* ---- claims against the world
 * ------------------------------------------------------------------------------------- */

static enum err verify_claim(const char *name, const char *value)
{
    return verify_claims(claims_with(claim_at(name), name, value, ""));
}

static void times_are_checked_with_a_little_leeway(void **state)
{
    assert_int_equal(verify_claim("exp", "1799999999"), OK);                    /* a second ago */
    assert_int_equal(verify_claim("exp", "1799999999.5"), OK);
    assert_int_equal(verify_claims(claims_with(claim_at("iat"), "iat", "1799999000", "")), OK);
    forge_token("EdDSA", ed, ED_HEADER, claims_with(claim_at("iat"), "iat", "1799999000", ""), token);
    for (int64_t late = 28; late < 32; late++) {
        struct caller *c = NULL;

        assert_int_equal(verify_at(ed_id, 1800000600 + late, 0, &c), late < 30 ? OK : E_TOKEN_EXPIRED);
        caller_release(c);
    }
    assert_int_equal(verify_claim("nbf", "1800000029"), OK);
    assert_int_equal(verify_claim("nbf", "1800000031"), E_TOKEN_EXPIRED);
    assert_int_equal(verify_claim("iat", "1800000029"), OK);
    assert_int_equal(verify_claim("iat", "1800000031"), E_TOKEN_EXPIRED);
    assert_int_equal(verify_claim("exp", "1800086391"), E_TOKEN_CLAIMS);       /* lives longer than a day */
    assert_int_equal(verify_claim("exp", "1799999990"), E_TOKEN_CLAIMS);       /* no life at all */
    assert_int_equal(verify_claim("exp", "99999999999999999999"), E_TOKEN_CLAIMS);
    assert_int_equal(verify_claim("exp", "9223372036854775807"), E_TOKEN_CLAIMS);
}

static void the_audience_is_this_server(void **state)
{
    assert_int_equal(verify_claim("aud", "\"https://sluice/mcp\""), OK);
    assert_int_equal(verify_claim("aud", "\"other\""), OK);
    assert_int_equal(verify_claim("aud", "\"https://sluice/mcp/\""), E_TOKEN_AUDIENCE);
    assert_int_equal(verify_claim("aud", "\"HTTPS://sluice/mcp\""), E_TOKEN_AUDIENCE);
    assert_int_equal(verify_claim("aud", "[\"a\",\"b\"]"), E_TOKEN_AUDIENCE);
    assert_int_equal(verify_claim("aud", "[]"), E_TOKEN_AUDIENCE);
    assert_int_equal(verify_claim("iss", "\"https://idp/\""), E_TOKEN_UNTRUSTED);
    assert_int_equal(verify_claim("iss", "\"https://IDP\""), E_TOKEN_UNTRUSTED);
}

static void the_chain_of_actors_is_bounded(void **state)
{
    char act[512] = "{\"sub\":\"a\"}", outer[600];
    struct caller *c;

    for (int depth = 1; depth <= CALLER_ACTORS_MAX + 1; depth++) {
        enum err e;

        forge_token("EdDSA", ed, ED_HEADER, claims_with(claim_at("act"), "act", act, ""), token);
        e = verify_at(ed_id, NOW, 0, &c);
        assert_int_equal(e, depth <= CALLER_ACTORS_MAX ? OK : E_TOKEN_CLAIMS);
        if (!e) {
            assert_int_equal(c->n_actors, depth);
            caller_release(c);
        }
        snprintf(outer, sizeof(outer), "{\"sub\":\"a%d\",\"act\":%s}", depth, act);
        strcpy(act, outer);
    }
    assert_int_equal(verify_claim("act", "{\"sub\":\"a\\nb\"}"), E_TOKEN_CLAIMS);
    assert_int_equal(verify_claim("azp", "\"somebody else\""), E_TOKEN_CLAIMS);
    assert_int_equal(verify_claims(claims_with(GOOD, NULL, NULL, ",\"cnf\":{\"jkt\":\"x\"}")), E_TOKEN_CLAIMS);
}

static void scopes_may_be_an_array_and_are_bounded(void **state)
{
    char scope[1024] = "\"";
    struct caller *c;

    forge_token("EdDSA", ed, ED_HEADER, claims_with(claim_at("scope"), "scope", "[\"a\",\"b\"]", ""), token);
    assert_int_equal(verify_at(ed_id, NOW, 0, &c), OK);
    assert_true(c->n_scopes == 2 && caller_has_scope(c, STR("b")));
    caller_release(c);
    for (int i = 0; i <= CALLER_SCOPES_MAX; i++)
        strcat(scope, "x ");
    strcat(scope, "\"");
    assert_int_equal(verify_claim("scope", scope), E_TOKEN_CLAIMS);
    assert_int_equal(verify_claim("scope", "\"a\\\"b\""), E_TOKEN_CLAIMS);
}

/* ---- the cache --------------------------------------------------------------------------------------------------- */

static int64_t verified(void)
{
    return metric_sum(M_TOKENS_VERIFIED_TOTAL);
}

static void a_verified_token_is_remembered_for_a_while(void **state)
{
    struct identity *id = create_one(ed, IDENTITY_EDDSA);
    struct identity_issuer is = issuer("https://idp", IDENTITY_EDDSA, key_set(ed));
    struct identity_config config = { .issuers = &is, .n_issuers = 1 };
    struct caller *a, *b;
    int64_t before;

    forge_token("EdDSA", ed, ED_HEADER, good_claims(), token);
    assert_int_equal(verify_at(id, NOW, 0, &a), OK);
    assert_int_equal(identity_cached(id), 1);
    before = verified();
    assert_int_equal(verify_at(id, NOW + 59, 59 * NS_PER_S, &b), OK);
    assert_ptr_equal(a, b);
    assert_int_equal(verified(), before);
    caller_release(b);
    /* past its time to live it is verified again */
    assert_int_equal(verify_at(id, NOW + 60, 60 * NS_PER_S, &b), OK);
    assert_ptr_not_equal(a, b);
    assert_int_equal(verified(), before + 1);
    caller_release(b);
    /* within its time to live, and expired: the expiry wins */
    assert_int_equal(verify_at(id, 1800000630, 61 * NS_PER_S, &b), E_TOKEN_EXPIRED);
    assert_int_equal(identity_cached(id), 0);
    /* a reload forgets */
    assert_int_equal(verify_at(id, NOW, 0, &b), OK);
    caller_release(b);
    assert_int_equal(identity_reload(id, &config, NULL), OK);
    assert_int_equal(identity_cached(id), 0);
    is.jwks_inline = str_of(key_set(stranger));
    assert_int_equal(verify_at(id, NOW, 0, &b), OK);
    caller_release(b);
    assert_int_equal(identity_reload(id, &config, NULL), OK);
    assert_int_equal(verify_at(id, NOW, 0, &b), E_TOKEN_SIGNATURE);
    /* a caller outlives all of it */
    assert_true(str_is(a->user, "ann"));
    caller_release(a);
    identity_destroy(id);
}

static void refusals_are_not_remembered_and_the_cache_is_bounded(void **state)
{
    struct identity_issuer is = issuer("https://idp", IDENTITY_EDDSA, key_set(ed));
    struct identity *id = create(&is, 1, 64);

    for (int i = 0; i < 300; i++) {
        struct caller *c;
        char jti[32];

        snprintf(jti, sizeof(jti), "\"t%d\"", i);
        forge_token("EdDSA", ed, ED_HEADER, claims_with(claim_at("jti"), "jti", jti, ""), token);
        assert_int_equal(verify_at(id, NOW, 0, &c), OK);
        caller_release(c);
        assert_true(identity_cached(id) <= 64);
    }
    assert_true(identity_cached(id) > 32);
    identity_forget(id);
    assert_int_equal(identity_cached(id), 0);
    forge_token("EdDSA", stranger, ED_HEADER, good_claims(), token);
    assert_int_equal(verify(id), E_TOKEN_SIGNATURE);
    assert_int_equal(identity_cached(id), 0);
    identity_destroy(id);
}

/* ---- tenants and issuers
 * ------------------------------------------------------------------------------------------ */

static void refuse_config(const struct identity_issuer *list, size_t n, const char *words)
{
    struct identity_config config = { .issuers = list, .n_issuers = n };
    struct errinfo info = { "" };
    struct identity *id;

    assert_int_equal(identity_create(&config, &id, &info), E_CONFIG);
    if (!strstr(info.text, words))
        fail_msg("\"%s\" does not say \"%s\"", info.text, words);
}

static void a_wrong_configuration_is_named(void **state)
{
    char set[FORGE_MAX];
    EVP_PKEY *weak = forge_rsa(1024);
    struct identity_issuer is = issuer("https://idp", IDENTITY_EDDSA, key_set(ed)), x;

    x = is, x.issuer = STR_NULL, refuse_config(&x, 1, "needs a name");
    x = is, x.n_audiences = 0, refuse_config(&x, 1, "at least one audience");
    x = is, x.jwks_path = STR("/x"), refuse_config(&x, 1, "exactly one of jwks");
    x = is, x.jwks_inline = STR_NULL, refuse_config(&x, 1, "exactly one of jwks");
    x = is, x.tenant_claim = STR("t"), refuse_config(&x, 1, "exactly one of tenant");
    x = is, x.tenant = STR("a b"), refuse_config(&x, 1, "tenant is not acceptable");
    x = is, x.jwks_inline = STR_NULL, x.jwks_url = STR("http://idp/jwks"), refuse_config(&x, 1, "must be https");
    x = is, x.jwks_inline = STR_NULL, x.jwks_url = STR("http://127.0.0.1.evil/jwks"), refuse_config(&x, 1,
        "must be https");
    x = is, x.jwks_inline = STR_NULL, x.jwks_url = STR("https://idp/jwks"), refuse_config(&x, 1, "cannot be fetched");
    x = is, x.jwks_inline = STR_NULL, x.jwks_path = STR("/nowhere/jwks"), refuse_config(&x, 1, "cannot be read");
    x = is, x.jwks_inline = STR("{\"keys\":[]}"), refuse_config(&x, 1, "no key for the issuer's algorithm");
    x = is, x.jwks_inline = STR("{\"keys\":"), refuse_config(&x, 1, "not strict JSON");
    x = is, x.alg = IDENTITY_RS256, refuse_config(&x, 1, "no key for the issuer's algorithm");
    snprintf(set, sizeof(set), "{\"keys\":[%s,%s]}", forge_jwk(ed, "k", ""), forge_jwk(stranger, "k", ""));
    x = is, x.jwks_inline = str_of(set), refuse_config(&x, 1, "two keys have the same kid");
    snprintf(set, sizeof(set), "{\"keys\":[%s]}", forge_jwk(ed, "k", ",\"d\":\"AAAA\""));
    x = is, x.jwks_inline = str_of(set), refuse_config(&x, 1, "private member");
    snprintf(set, sizeof(set), "{\"keys\":[%s]}", forge_jwk(ed, "k", ",\"use\":\"enc\""));
    x = is, x.jwks_inline = str_of(set), refuse_config(&x, 1, "no key for");
    snprintf(set, sizeof(set), "{\"keys\":[%s]}", forge_jwk(weak, "k", ""));
    x = is, x.alg = IDENTITY_RS256, x.jwks_inline = str_of(set), refuse_config(&x, 1, "weak");
    x = is, x.alg = IDENTITY_ES256;
    x.jwks_inline = STR("{\"keys\":[{\"kty\":\"EC\",\"crv\":\"P-256\","
        "\"x\":\"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\","
        "\"y\":\"AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\"}]}");
    refuse_config(&x, 1, "not a point of P-256");
    EVP_PKEY_free(weak);
}

static void a_tenant_has_one_issuer_or_prefixes(void **state)
{
    static const struct str tenants[] = { { "acme", 4 }, { "beta", 4 } };
    struct identity_issuer two[2], rest;
    struct identity *id;
    struct caller *c;

    two[0] = issuer("https://one", IDENTITY_EDDSA, key_set(ed));
    two[1] = issuer("https://two", IDENTITY_EDDSA, two[0].jwks_inline.p);
    refuse_config(two, 2, "shares a tenant");
    two[0].prefix = STR("a-"), two[1].prefix = STR("a-b-");
    refuse_config(two, 2, "shares a tenant");
    two[1].prefix = STR("b-");
    id = create(two, 2, 0);
    forge_token("EdDSA", ed, ED_HEADER, claims_with(0, "iss", "\"https://two\"", ""), token);
    assert_int_equal(verify_at(id, NOW, 0, &c), OK);
    assert_true(str_is(c->user, "b-ann") && str_is(c->agent, "b-claude-agent") && str_is(c->client_id, "claude"));
    caller_release(c);
    identity_destroy(id);

    two[1].issuer = two[0].issuer;
    refuse_config(two, 2, "configured twice");

    /* one with a list, one that takes the rest */
    rest = issuer("https://rest", IDENTITY_EDDSA, two[0].jwks_inline.p);
    rest.tenant = STR_NULL, rest.tenant_claim = STR("org");
    two[0] = rest, two[1] = rest, two[1].issuer = STR("https://rest2");
    refuse_config(two, 2, "without a list");
    two[1].tenants = tenants, two[1].n_tenants = 2;
    id = create(two, 2, 0);
    forge_token("EdDSA", ed, ED_HEADER, claims_with(0, "iss", "\"https://rest2\"", ",\"org\":\"beta\""), token);
    assert_int_equal(verify_at(id, NOW, 0, &c), OK);
    assert_true(str_is(c->tenant, "beta"));
    caller_release(c);
    forge_token("EdDSA", ed, ED_HEADER, claims_with(0, "iss", "\"https://rest2\"", ",\"org\":\"gamma\""), token);
    assert_int_equal(verify(id), E_TOKEN_CLAIMS);
    forge_token("EdDSA", ed, ED_HEADER, claims_with(0, "iss", "\"https://rest\"", ",\"org\":\"beta\""), token);
    assert_int_equal(verify(id), E_TOKEN_CLAIMS);
    forge_token("EdDSA", ed, ED_HEADER, claims_with(0, "iss", "\"https://rest\"", ",\"org\":\"gamma\""), token);
    assert_int_equal(verify(id), OK);
    forge_token("EdDSA", ed, ED_HEADER, claims_with(0, "iss", "\"https://rest\"", ""), token);
    assert_int_equal(verify(id), E_TOKEN_CLAIMS);
    forge_token("EdDSA", ed, ED_HEADER, claims_with(0, "iss", "\"https://rest\"", ",\"org\":\"../x\""), token);
    assert_int_equal(verify(id), E_TOKEN_CLAIMS);
    identity_destroy(id);
}

static void plain_jwt_issuers_may_lack_what_rfc9068_wants(void **state)
{
    static const char claims[] = "{\"iss\":\"https://idp\",\"sub\":\"123\",\"email\":\"ann@x\",\"aud\":\"other\","
        "\"exp\":1800000600,\"iat\":1800000000%s}";
    struct identity_issuer is = issuer("https://idp", IDENTITY_EDDSA, key_set(ed));
    struct identity *id;
    struct caller *c;
    char text[512];

    is.typ_jwt_allowed = true;
    is.user_claim = STR("email");
    is.scope_claim = STR("scp");
    id = create(&is, 1, 0);
    snprintf(text, sizeof(text), claims, "");
    forge_token("EdDSA", ed, "{\"alg\":\"EdDSA\",\"kid\":\"k1\"}", text, token);
    assert_int_equal(verify(id), E_TOKEN_CLAIMS);               /* no agent */
    snprintf(text, sizeof(text), claims, ",\"azp\":\"app\",\"scp\":[\"a\"]");
    forge_token("EdDSA", ed, "{\"alg\":\"EdDSA\",\"kid\":\"k1\",\"typ\":\"JWT\"}", text, token);
    assert_int_equal(verify_at(id, NOW, 0, &c), OK);
    assert_true(str_is(c->user, "ann@x") && str_is(c->agent, "app") && caller_has_scope(c, STR("a")));
    caller_release(c);
    identity_destroy(id);

    is.agent_default = STR("legacy");
    id = create(&is, 1, 0);
    snprintf(text, sizeof(text), claims, "");
    forge_token("EdDSA", ed, "{\"alg\":\"EdDSA\",\"kid\":\"k1\"}", text, token);
    assert_int_equal(verify_at(id, NOW, 0, &c), OK);
    assert_true(str_is(c->agent, "legacy"));
    caller_release(c);
    identity_destroy(id);
}

/* ---- the local issuer
 * --------------------------------------------------------------------------------------------- */

static void the_local_issuer_mints_what_identity_accepts(void **state)
{
    static const struct str chain[] = { { "planner", 7 }, { "root", 4 } };
    char dir[64] = "/tmp/sluice-issuer-XXXXXX", path[128], command[128];
    struct identity_mint m = {
        .tenant = STR("acme"), .user = STR("ann"), .agent = STR("claude"), .audience = STR("other"),
            .scopes = STR("a b"),
        .chain = chain, .n_chain = 2, .now = NOW * 1000, .ttl = 3600 * NS_PER_S,
    };
    struct identity_config config = { .local_audiences = audiences, .n_local_audiences = 2 };
    struct identity_local *local = NULL, *again = NULL;
    struct errinfo info = { "" };
    struct buf out = BUF_INIT(FORGE_MAX), jwks = BUF_INIT(FORGE_MAX), jwks2 = BUF_INIT(FORGE_MAX);
    struct identity *id;
    struct caller *c;
    struct stat st;
    FILE *f;

    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof(path), "%s/issuer.key", dir);
    assert_int_equal(identity_local_open(dir, STR("sluice:local"), false, &local, &info), E_CONFIG);
    assert_non_null(strstr(info.text, path));
    assert_int_equal(identity_local_open(dir, STR("sluice:local"), true, &local, &info), OK);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    config.local = local;
    assert_int_equal(identity_create(&config, &id, &info), OK);

    assert_int_equal(identity_mint(local, &m, &out, &info), OK);
    memcpy(token, out.p, out.len);
    token[out.len] = 0;
    assert_int_equal(verify_at(id, NOW, 0, &c), OK);
    assert_true(str_is(c->tenant, "acme") && str_is(c->user, "ann") && str_is(c->agent, "claude"));
    assert_true(c->n_actors == 3 && str_is(c->actors[1].name, "planner") && str_is(c->actors[2].name, "root"));
    assert_true(c->n_scopes == 2 && c->auth == CALLER_AUTH_LOCAL && str_is(c->issuer, "sluice:local"));
    caller_release(c);
    assert_int_equal(verify_at(id, NOW + 3631, 0, &c), E_TOKEN_EXPIRED);
    m.tenant = STR("a|b");
    assert_int_equal(identity_mint(local, &m, &out, &info), E_CONFIG);
    m.tenant = STR("acme"), m.ttl = 0;
    assert_int_equal(identity_mint(local, &m, &out, &info), E_CONFIG);

    /* the key stays the same over a restart */
    identity_local_jwks(local, &jwks);
    assert_int_equal(identity_local_open(dir, STR("sluice:local"), true, &again, &info), OK);
    identity_local_jwks(again, &jwks2);
    assert_true(str_eq(buf_str(&jwks), buf_str(&jwks2)));
    identity_local_close(again);

    assert_int_equal(chmod(path, 0644), 0);
    assert_int_equal(identity_local_open(dir, STR("sluice:local"), true, &again, &info), E_CONFIG);
    assert_non_null(strstr(info.text, "can be read by others"));
    assert_int_equal(chmod(path, 0600), 0);
    f = fopen(path, "w");
    assert_non_null(f);
    fputs("not a key\n", f);
    fclose(f);
    assert_int_equal(identity_local_open(dir, STR("sluice:local"), true, &again, &info), E_CONFIG);
    assert_non_null(strstr(info.text, "64 hexadecimal digits"));

    identity_destroy(id);
    identity_local_close(local);
    buf_release(&out);
    buf_release(&jwks);
    buf_release(&jwks2);
    snprintf(command, sizeof(command), "rm -rf %s", dir);
    assert_int_equal(system(command), 0);
}

/* ---- what clients are told
 * ---------------------------------------------------------------------------------------- */

static void challenges_say_what_to_do(void **state)
{
    struct buf b = BUF_INIT(4096);
    struct str scopes[] = { { "mail.read", 9 }, { "mail.send", 9 } };

    identity_challenge(&b, E_TOKEN_MISSING, STR("https://h/.well-known/oauth-protected-resource/mcp"), STR("a b"));
    assert_true(str_is(buf_str(&b),
        "Bearer scope=\"a b\", resource_metadata=\"https://h/.well-known/oauth-protected-resource/mcp\""));
    buf_clear(&b);
    identity_challenge(&b, E_TOKEN_EXPIRED, STR("https://h/m"), STR_NULL);
    assert_true(str_is(buf_str(&b),
        "Bearer error=\"invalid_token\", error_description=\"the token has expired or is not valid "
        "yet\", resource_metadata=\"https://h/m\""));
    buf_clear(&b);
    identity_challenge(&b, E_SCOPE_INSUFFICIENT, STR_NULL, STR("x\"\r\nSet-Cookie: a"));
    assert_true(str_is(buf_str(&b),
        "Bearer error=\"insufficient_scope\", error_description=\"the token lacks a scope this "
        "needs\", scope=\"xSet-Cookie: a\""));
    buf_clear(&b);
    identity_metadata(ed_id, STR("https://h/mcp"), scopes, 2, &b);
    assert_true(str_is(buf_str(&b), "{\"resource\":\"https://h/mcp\",\"authorization_servers\":[\"https://idp\"],"
        "\"bearer_methods_supported\":[\"header\"],\"scopes_supported\":[\"mail.read\",\"mail.send\"]}"));
    buf_release(&b);
}

static void a_named_caller_needs_good_names(void **state)
{
    struct caller *c;

    assert_int_equal(caller_named(STR("dev"), STR("ann"), STR("cli"), &c, NULL), OK);
    assert_true(c->auth == CALLER_AUTH_NONE && str_is(c->agent, "cli") && c->expires == INT64_MAX);
    caller_release(c);
    assert_int_equal(caller_named(STR("de v"), STR("ann"), STR("cli"), &c, NULL), E_CONFIG);
    assert_int_equal(caller_named(STR("dev"), STR(""), STR("cli"), &c, NULL), E_CONFIG);
    assert_int_equal(caller_named(STR("dev"), STR("ann"), STR("a\tb"), &c, NULL), E_CONFIG);
    assert_int_equal(caller_named(STR("dev"), STR("ann"), STR("a\xc2\x85"), &c, NULL), E_CONFIG);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_good_token_names_its_caller),
        cmocka_unit_test(the_client_is_the_agent_when_nobody_acts_for_it),
        cmocka_unit_test(each_claim_damaged_in_turn_is_refused),
        cmocka_unit_test(each_header_field_damaged_is_refused),
        cmocka_unit_test(the_token_does_not_choose_its_algorithm),
        cmocka_unit_test(zero_signatures_do_not_verify),
        cmocka_unit_test(the_form_is_strict),
        cmocka_unit_test(the_header_value_is_split),
        cmocka_unit_test(times_are_checked_with_a_little_leeway),
        cmocka_unit_test(the_audience_is_this_server),
        cmocka_unit_test(the_chain_of_actors_is_bounded),
        cmocka_unit_test(scopes_may_be_an_array_and_are_bounded),
        cmocka_unit_test(a_verified_token_is_remembered_for_a_while),
        cmocka_unit_test(refusals_are_not_remembered_and_the_cache_is_bounded),
        cmocka_unit_test(a_wrong_configuration_is_named),
        cmocka_unit_test(a_tenant_has_one_issuer_or_prefixes),
        cmocka_unit_test(plain_jwt_issuers_may_lack_what_rfc9068_wants),
        cmocka_unit_test(the_local_issuer_mints_what_identity_accepts),
        cmocka_unit_test(challenges_say_what_to_do),
        cmocka_unit_test(a_named_caller_needs_good_names),
    };

    return cmocka_run_group_tests(tests, make_keys, free_keys);
}
