/* mcp_stream_test.c -- what takes more than one message: questions, progress, log, listening, cancelling, silence */
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "mcp_bed.h"

/* ---- questions of the stateless revision ------------------------------------------------------------------------- */

#define CAN "{\"elicitation\":{},\"sampling\":{}}"
#define FIRST "\"inputResponses\":{\"first\":{\"action\":\"accept\",\"content\":{\"name\":\"Bo\"}}}"
#define SECOND \
    "\"inputResponses\":{\"second\":{\"role\":\"assistant\",\"model\":\"m\"," \
    "\"content\":{\"type\":\"text\",\"text\":\"Al\"}}}"

static char params[65536];

/* tools/call of bed.ask with these further members, and a requestState when given. */
static void ask_again(struct bed *b, unsigned worker, const char *members, const char *state, struct reply *r)
{
    snprintf(params, sizeof(params), "\"name\":\"bed.ask\"%s%s%s%s%s", *members ? "," : "", members, state ?
             ",\"requestState\":\"" : "",
             state ? state : "", state ? "\"" : "");
    modern(b, &(struct modern){ .method = "tools/call", .name = "bed.ask", .params = params, .caps = CAN,
                                .worker = worker }, r);
}

static void first_round(struct bed *b, char state[4096])
{
    struct reply r;

    ask_again(b, 0, "", NULL, &r);
    assert_int_equal(r.status, 200);
    assert_str_at(&r, "result resultType", "input_required");
    assert_str_at(&r, "result inputRequests first method", "elicitation/create");
    assert_str_at(&r, "result inputRequests first params requestedSchema type", "object");
    assert_null(at(&r, "result inputRequests second"));
    assert_null(at(&r, "result ttlMs"));
    assert_str_at(&r, "result _meta io.modelcontextprotocol/serverInfo name", "sluice");
    assert_memory_equal(z_at(&r, "result _meta dev.sluice/call"), "call_", 5);
    assert_str_at(&r, "result _meta dev.sluice/outcome", "refused");
    assert_str_at(&r, "result _meta dev.sluice/error", "input_required");
    snprintf(state, 4096, "%s", z_at(&r, "result requestState"));
    assert_true(state[0]);
    assert_null(strstr(state, "secret"));
    reply_release(&r);
}

static void answers_are_carried_through_the_rounds(void **state)
{
    char one[4096], two[4096];
    struct reply r;
    struct bed b;

    bed_start(&b, NULL, NULL, false);
    first_round(&b, one);
    ask_again(&b, 1, FIRST, one, &r);               /* another worker: nothing is kept here */
    assert_str_at(&r, "result resultType", "input_required");
    assert_null(at(&r, "result inputRequests first"));
    assert_str_at(&r, "result inputRequests second method", "sampling/createMessage");
    snprintf(two, sizeof(two), "%s", z_at(&r, "result requestState"));
    assert_string_not_equal(one, two);
    reply_release(&r);
    ask_again(&b, 0, SECOND, two, &r);
    assert_str_at(&r, "result resultType", "complete");
    assert_str_at(&r, "result content 0 text", "Bo and Al, 42");
    reply_release(&r);
    bed_stop(&b);
}

static void a_missing_answer_is_asked_for_again(void **state)
{
    char one[4096];
    struct reply r;
    struct bed b;

    bed_start(&b, NULL, NULL, false);
    first_round(&b, one);
    ask_again(&b, 0, "\"inputResponses\":{\"other\":{\"action\":\"accept\"}}", one, &r);
    assert_str_at(&r, "result inputRequests first method", "elicitation/create");
    reply_release(&r);
    ask_again(&b, 0, "\"inputResponses\":{\"first\":{\"action\":\"decline\"}}", one, &r);
    assert_str_at(&r, "result content 0 text", "the user said no");
    reply_release(&r);
    ask_again(&b, 0, FIRST, NULL, &r);              /* without its state an answer is still an answer */
    assert_str_at(&r, "result inputRequests second method", "sampling/createMessage");
    reply_release(&r);
    bed_stop(&b);
}

static void an_answer_must_fit_its_question(void **state)
{
    static const char *const bad[] = {
        "\"inputResponses\":{\"first\":{\"action\":\"accept\",\"content\":{\"name\":\"B\"}}}",
        "\"inputResponses\":{\"first\":{\"action\":\"accept\",\"content\":{}}}",
        "\"inputResponses\":{\"first\":{\"action\":\"accept\"}}",
        "\"inputResponses\":{\"first\":{\"action\":\"maybe\"}}",
        "\"inputResponses\":{\"first\":{}}",
        "\"inputResponses\":{\"first\":7}",
        "\"inputResponses\":[]",
    };
    char one[4096];
    struct bed b;

    bed_start(&b, NULL, NULL, false);
    first_round(&b, one);
    for (size_t i = 0; i < 2 * ARRAY_LEN(bad); i++) {
        struct reply r;

        ask_again(&b, 0, bad[i / 2], i % 2 ? one : NULL, &r);   /* nor does it get past without the state */
        assert_int_equal(int_at(&r, "error code"), -32602);
        reply_release(&r);
    }
    bed_stop(&b);
}

static void only_what_is_asked_is_answered(void **state)
{
    char one[4096], two[4096];
    struct reply r;
    struct bed b;

    bed_start(&b, NULL, NULL, false);
    first_round(&b, one);
    ask_again(&b, 0, "\"inputResponses\":{\"first\":{\"action\":\"accept\",\"content\":{\"name\":\"Bo\"}},"
              "\"second\":{\"role\":\"assistant\",\"model\":\"m\",\"content\":{\"text\":\"early\"}}}", one, &r);
    assert_str_at(&r, "result inputRequests second method", "sampling/createMessage");
    snprintf(two, sizeof(two), "%s", z_at(&r, "result requestState"));
    reply_release(&r);
    ask_again(&b, 0, "\"inputResponses\":{\"second\":{\"role\":\"assistant\",\"model\":\"m\",\"content\":{"
              "\"text\":\"Al\"}},\"first\":{\"action\":\"accept\",\"content\":{\"name\":\"another\"}}}", two, &r);
    assert_str_at(&r, "result content 0 text", "Bo and Al, 42");
    reply_release(&r);
    bed_stop(&b);
}

static void refused(struct reply *r)
{
    assert_int_equal(r->status, 200);
    assert_int_equal(int_at(r, "error code"), -32602);
    assert_str_at(r, "error data dev.sluice/error", "state_invalid");
    reply_release(r);
}

static void state_is_bound_to_its_call(void **state)
{
    char one[4096], bent[4200];
    struct reply r;
    struct bed b;

    bed_start(&b, NULL, NULL, false);
    first_round(&b, one);
    for (size_t i = 0; i < strlen(one); i += strlen(one) / 8) {         /* any byte */
        memcpy(bent, one, sizeof(one));
        bent[i] = bent[i] == 'A' ? 'B' : 'A';
        ask_again(&b, 0, FIRST, bent, &r);
        refused(&r);
    }
    snprintf(bent, sizeof(bent), "%s-TAMPERED", one);
    ask_again(&b, 0, FIRST, bent, &r);
    refused(&r);
    snprintf(bent, sizeof(bent), "%.*s", (int)strlen(one) - 8, one);
    ask_again(&b, 0, FIRST, bent, &r);
    refused(&r);
    ask_again(&b, 0, "\"arguments\":{\"x\":1}," FIRST, one, &r);        /* other arguments */
    refused(&r);
    ask_again(&b, 0, "\"arguments\":{}," FIRST, one, &r);               /* the same, said otherwise */
    assert_str_at(&r, "result resultType", "input_required");
    reply_release(&r);
    snprintf(params, sizeof(params), "\"name\":\"asking\"," FIRST ",\"requestState\":\"%s\"", one);
    modern(&b, &(struct modern){ .method = "prompts/get", .name = "asking", .params = params, .caps = CAN }, &r);
    refused(&r);                                                         /* another method */
    atomic_store(&bed_wall_offset, 11 * 60 * 1000);
    ask_again(&b, 0, FIRST, one, &r);                                    /* too late */
    refused(&r);
    bed_stop(&b);
}

static void state_is_bound_to_its_caller(void **state)
{
    struct modern m = { .method = "tools/call", .name = "bed.ask", .caps = CAN };
    const char *same[] = { "alice", "shell" }, *other[][2] = { { "bob", "shell" }, { "alice", "robot" } };
    struct reply r;
    struct bed b;

    bed_start(&b, NULL, NULL, true);
    m.headers = bed_token(&b, same[0], same[1], "");
    m.params = "\"name\":\"bed.ask\"";
    modern(&b, &m, &r);
    snprintf(params, sizeof(params), "\"name\":\"bed.ask\"," FIRST ",\"requestState\":\"%s\"",
             z_at(&r, "result requestState"));
    reply_release(&r);
    m.params = params;
    for (size_t i = 0; i < ARRAY_LEN(other); i++) {
        m.headers = bed_token(&b, other[i][0], other[i][1], "");
        modern(&b, &m, &r);
        refused(&r);
    }
    m.headers = bed_token(&b, same[0], same[1], "");
    modern(&b, &m, &r);
    assert_str_at(&r, "result inputRequests second method", "sampling/createMessage");
    reply_release(&r);
    bed_stop(&b);
}

static void only_what_the_client_can_do_is_asked(void **state)
{
    struct reply r;
    struct bed b;

    bed_start(&b, NULL, NULL, false);
    modern(&b, &(struct modern){ .method = "tools/call", .name = "bed.ask", .params = "\"name\":\"bed.ask\"",
                                 .caps = "{\"sampling\":{}}" }, &r);
    assert_int_equal(r.status, 400);
    assert_int_equal(int_at(&r, "error code"), -32021);
    assert_non_null(at(&r, "error data requiredCapabilities elicitation"));
    assert_null(at(&r, "error data requiredCapabilities sampling"));
    reply_release(&r);
    modern(&b, &(struct modern){ .method = "tools/call", .name = "bed.ask", .params = "\"name\":\"bed.ask\"",
           .caps = "{\"elicitation\":{\"url\":{}}}" }, &r);             /* URLs are no forms */
    assert_int_equal(int_at(&r, "error code"), -32021);
    reply_release(&r);
    modern(&b, &(struct modern){ .method = "tools/call", .name = "bed.heavy", .params = "\"name\":\"bed.heavy\"",
                                 .caps = CAN }, &r);
    assert_str_at(&r, "result _meta dev.sluice/error", "call_too_large");
    reply_release(&r);
    modern(&b, &(struct modern){ .method = "prompts/get", .name = "asking", .params = "\"name\":\"asking\"",
                                 .caps = CAN }, &r);
    assert_str_at(&r, "result resultType", "input_required");
    assert_true(z_at(&r, "result requestState")[0]);
    reply_release(&r);
    bed_stop(&b);
}

/* ---- progress, log, silence -------------------------------------------------------------------------------------- */

static void progress_grows_and_is_bounded(void **state)
{
    struct modern m = { .method = "tools/call", .name = "bed.progress", .params = "\"name\":\"bed.progress\"" };
    int64_t before = 0;
    struct reply r;
    struct bed b;

    bed_start(&b, NULL, NULL, false);
    modern(&b, &m, &r);
    assert_true(head_has(&r, "application/json"));  /* nobody asked */
    reply_release(&r);
    m.meta = ",\"progressToken\":\"p\"";
    modern(&b, &m, &r);
    assert_true(head_has(&r, "text/event-stream"));
    assert_true(head_has(&r, "X-Accel-Buffering: no"));
    assert_in_range(r.events, 3, 60);               /* 200 were told */
    for (unsigned i = 0; i + 1 < r.events; i++) {
        struct json *e = event(&r, i);
        int64_t now = 0;

        assert_string_equal(json_z(e, "method"), "notifications/progress");
        assert_string_equal(json_z(e, "params progressToken"), "p");
        assert_true(json_int(json_get(json_get(e, "params"), "progress"), &now) && now > before);
        before = now;
    }
    assert_int_equal(before, 200);                  /* the last one always comes, and nothing after it */
    assert_str_at(&r, "result content 0 text", "done");
    reply_release(&r);
    bed_stop(&b);
}

static void a_log_goes_to_who_asked_for_it(void **state)
{
    struct modern m = { .method = "tools/call", .name = "bed.log", .params = "\"name\":\"bed.log\"" };
    struct reply r;
    struct bed b;

    bed_start(&b, NULL, NULL, false);
    modern(&b, &m, &r);
    assert_int_equal(r.events, 0);
    reply_release(&r);
    m.meta = ",\"io.modelcontextprotocol/logLevel\":\"info\"";
    modern(&b, &m, &r);
    assert_int_equal(r.events, 2);
    assert_string_equal(json_z(event(&r, 0), "params data"), "coarse");
    assert_string_equal(json_z(event(&r, 0), "params level"), "warning");
    reply_release(&r);
    m.meta = ",\"io.modelcontextprotocol/logLevel\":\"debug\"";
    modern(&b, &m, &r);
    assert_int_equal(r.events, 3);
    reply_release(&r);
    m.meta = ",\"io.modelcontextprotocol/logLevel\":\"loud\"";
    modern(&b, &m, &r);
    assert_int_equal(int_at(&r, "error code"), -32602);
    reply_release(&r);
    request(&b, 0, "POST", "/mcp", "Content-Type: application/json\r\nAccept: application/json\r\n",
            "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/call\",\"params\":{\"name\":\"bed.log\"}}", &r);
    assert_int_equal(r.events, 0);                  /* a client that takes no stream gets none */
    assert_str_at(&r, "result content 0 text", "logged");
    reply_release(&r);
    request(&b, 0, "POST", "/mcp", "Content-Type: application/json\r\nAccept: text/event-stream\r\n",
            "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/call\",\"params\":{\"name\":\"bed.add\",\"arguments\":{"
            "\"a\":1,\"b\":1}}}", &r);
    assert_int_equal(r.events, 1);
    assert_int_equal(int_at(&r, "result content 0 text"), INT64_MIN);
    assert_str_at(&r, "result content 0 text", "{\"sum\":2}");
    reply_release(&r);
    bed_stop(&b);
}

static int64_t clock_ms(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

static void wait_open(struct bed *b, struct stream *s, const char *ms)
{
    struct buf headers = BUF_INIT(8192), body = BUF_INIT(8192);
    char call[96];
    struct modern m = { .method = "tools/call", .name = "bed.wait", .params = call };

    snprintf(call, sizeof(call), "\"name\":\"bed.wait\",\"arguments\":{\"ms\":%s}", ms);
    modern_text(&m, &headers, &body);
    stream_open(b, s, 0, "POST", headers.p, body.p);
    sem_wait(&tool_waits);
    buf_release(&headers);
    buf_release(&body);
}

/* How often is judged by the time that really passed: on a busy machine a wait of 300 ms takes longer. */
static void silence_is_filled_with_comments(void **state)
{
    struct mcp_options opt = { .keepalive_ms = 20 };
    int64_t start, passed;
    struct json *result;
    struct stream s;
    struct bed b;

    bed_start(&b, &opt, NULL, false);
    start = clock_ms();
    wait_open(&b, &s, "300");
    result = stream_next(&s);
    passed = clock_ms() - start;
    assert_true(passed >= 300);
    assert_true(s.pings <= passed / 20 + 1);        /* cut to whole milliseconds */
    assert_string_equal(json_z(result, "result content 0 text"), "waited");
    assert_null(stream_next(&s));
    stream_close(&s);
    wait_open(&b, &s, "60000");
    stream_pinged(&s, 3);                           /* they go on as long as it does */
    stream_close(&s);
    sem_wait(&tool_cancelled);
    bed_stop(&b);
}

/* ---- cancelling -------------------------------------------------------------------------------------------------- */

static void a_lost_connection_cancels(void **state)
{
    struct stream s;
    struct bed b;

    bed_start(&b, NULL, NULL, false);
    wait_open(&b, &s, "60000");
    stream_close(&s);
    sem_wait(&tool_cancelled);
    bed_stop(&b);
}

/* ---- listening --------------------------------------------------------------------------------------------------- */

static void listen_to(struct bed *b, struct stream *s, unsigned worker, const char *filter, const char *extra)
{
    struct buf headers = BUF_INIT(8192), body = BUF_INIT(8192);
    struct modern m = { .method = "subscriptions/listen", .params = filter, .headers = extra };

    modern_text(&m, &headers, &body);
    stream_open(b, s, worker, "POST", headers.p, body.p);
    buf_release(&headers);
    buf_release(&body);
}

static int64_t subscription(const struct json *message)
{
    int64_t id = 0;

    json_int(json_get(json_get(json_get(message, "params"), "_meta"), "io.modelcontextprotocol/subscriptionId"), &id);
    return id;
}

static void listeners_hear_what_they_asked_for(void **state)
{
    struct mcp_options opt = { .keepalive_ms = 50 };
    struct stream tools, prompts;
    struct json *m;
    struct reply r;
    struct bed b;

    bed_start(&b, &opt, NULL, false);
    listen_to(&b, &tools, 1, "\"notifications\":{\"toolsListChanged\":true}", "");
    m = stream_next(&tools);
    assert_string_equal(json_z(m, "method"), "notifications/subscriptions/acknowledged");
    assert_int_equal(subscription(m), 7);
    assert_int_equal(json_len(json_get(json_get(m, "params"), "notifications")), 1);
    listen_to(&b, &prompts, 0,
              "\"notifications\":{\"promptsListChanged\":true,\"toolsListChanged\":false,"
              "\"resourceSubscriptions\":[\"x\"]}", "");
    m = stream_next(&prompts);
    assert_int_equal(json_len(json_get(json_get(m, "params"), "notifications")), 1);
    modern_call(&b, "bed.announce", "{}", &r);
    reply_release(&r);
    m = stream_next(&tools);
    assert_string_equal(json_z(m, "method"), "notifications/tools/list_changed");
    assert_int_equal(subscription(m), 7);
    m = stream_next(&prompts);
    assert_string_equal(json_z(m, "method"), "notifications/prompts/list_changed");
    stream_close(&prompts);                         /* a listener may go at any time */
    mcp_drain(b.mcp);
    m = stream_next(&tools);                        /* the stream ends with its result */
    assert_string_equal(json_z(m, "result resultType"), "complete");
    assert_non_null(json_get(json_get(json_get(m, "result"), "_meta"), "io.modelcontextprotocol/subscriptionId"));
    assert_null(stream_next(&tools));
    stream_close(&tools);
    modern(&b, &(struct modern){ .method = "subscriptions/listen", .params = "\"notifications\":{}" }, &r);
    assert_int_equal(r.status, 503);
    reply_release(&r);
    bed_stop(&b);
}

static void listening_ends_with_the_token(void **state)
{
    struct mcp_options opt = { .keepalive_ms = 20 };
    struct stream s;
    struct json *m;
    struct bed b;

    bed_start(&b, &opt, NULL, true);
    listen_to(&b, &s, 0, "\"notifications\":{\"toolsListChanged\":true}", bed_token(&b, "alice", "shell", ""));
    assert_string_equal(json_z(stream_next(&s), "method"), "notifications/subscriptions/acknowledged");
    atomic_store(&bed_wall_offset, 2 * 3600 * 1000);
    m = stream_next(&s);
    assert_string_equal(json_z(m, "result resultType"), "complete");
    assert_null(stream_next(&s));
    stream_close(&s);
    bed_stop(&b);
}

/* The wall clock steps back while the stream waits: it ends when the token's time has passed, and holds nobody up. */
static void a_wall_clock_set_back_stops_nobody(void **state)
{
    struct mcp_options opt = { .keepalive_ms = 20 };
    struct stream s;
    struct reply r;
    struct bed b;
    const char *token;

    bed_start(&b, &opt, NULL, true);
    token = bed_token(&b, "alice", "shell", "");
    atomic_store(&bed_wall_offset, (3600 + 28) * 1000);     /* an hour, and 2 s before the end of the leeway */
    listen_to(&b, &s, 0, "\"notifications\":{\"toolsListChanged\":true}", token);
    assert_string_equal(json_z(stream_next(&s), "method"), "notifications/subscriptions/acknowledged");
    atomic_store(&bed_wall_offset, 3600 * 1000);
    assert_string_equal(json_z(stream_next(&s), "result resultType"), "complete");
    assert_null(stream_next(&s));
    stream_close(&s);
    modern(&b, &(struct modern){ .method = "tools/list", .headers = token }, &r);
    assert_int_equal(r.status, 200);
    reply_release(&r);
    bed_stop(&b);
}

static void listeners_are_bounded(void **state)
{
    struct mcp_options opt = { .streams_max = 2 };
    struct stream s[2];
    struct reply r;
    struct bed b;

    bed_start(&b, &opt, NULL, false);
    for (int i = 0; i < 2; i++) {
        listen_to(&b, &s[i], 0, "\"notifications\":{}", "");
        assert_non_null(stream_next(&s[i]));
    }
    modern(&b, &(struct modern){ .method = "subscriptions/listen", .params = "\"notifications\":{}" }, &r);
    assert_int_equal(r.status, 503);
    assert_true(head_has(&r, "Retry-After: "));
    reply_release(&r);
    request(&b, 0, "POST", "/mcp",
            "Content-Type: application/json\r\nAccept: application/json\r\nMCP-Protocol-Version: 2026-07-28\r\n"
            "Mcp-Method: subscriptions/listen\r\n",
                "{\"jsonrpc\":\"2.0\",\"id\":7,\"method\":\"subscriptions/listen\",\"params\":{\"notifications\":{},"
            "\"_meta\":{\"io.modelcontextprotocol/protocolVersion\":\"2026-07-28\","
            "\"io.modelcontextprotocol/clientCapabilities\":{}}}}", &r);
    assert_int_equal(r.status, 406);
    reply_release(&r);
    for (int i = 0; i < 2; i++)
        stream_close(&s[i]);
    bed_stop(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(answers_are_carried_through_the_rounds),
        cmocka_unit_test(a_missing_answer_is_asked_for_again),
        cmocka_unit_test(an_answer_must_fit_its_question),
        cmocka_unit_test(only_what_is_asked_is_answered),
        cmocka_unit_test(state_is_bound_to_its_call),
        cmocka_unit_test(state_is_bound_to_its_caller),
        cmocka_unit_test(only_what_the_client_can_do_is_asked),
        cmocka_unit_test(progress_grows_and_is_bounded),
        cmocka_unit_test(a_log_goes_to_who_asked_for_it),
        cmocka_unit_test(silence_is_filled_with_comments),
        cmocka_unit_test(a_lost_connection_cancels),
        cmocka_unit_test(listeners_hear_what_they_asked_for),
        cmocka_unit_test(listening_ends_with_the_token),
        cmocka_unit_test(a_wall_clock_set_back_stops_nobody),
        cmocka_unit_test(listeners_are_bounded),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
