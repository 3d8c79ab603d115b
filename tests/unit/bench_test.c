/*
 * bench_test.c -- what the figures of benches rest on: histograms, schedules, answers in any pieces, verdicts
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "bench/gen/answer.h"
#include "bench/gen/histogram.h"
#include "bench/gen/judge.h"
#include "bench/gen/requests.h"
#include "bench/gen/schedule.h"

/* ---- histograms -------------------------------------------------------------------------------------------------- */

static int by_value(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return x < y ? -1 : x > y;
}

/* What is reported is what sorting gives, or longer by less than a part of it. */
static void check_against_sorting(unsigned bits, uint64_t *values, size_t n)
{
    static const double parts[] = { 0, 0.001, 0.5, 0.9, 0.99, 0.999, 1 };
    struct histogram h;

    histogram_init(&h, bits);
    for (size_t i = 0; i < n; i++)
        histogram_add(&h, values[i]);
    qsort(values, n, sizeof(*values), by_value);
    assert_int_equal(h.count, n);
    assert_int_equal(h.min, values[0]);
    assert_int_equal(h.max, values[n - 1]);
    for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
        size_t rank = (size_t)ceil(parts[i] * (double)n);
        uint64_t exact = values[rank ? rank - 1 : 0], got = histogram_at(&h, parts[i]);

        assert_true(got >= exact);
        assert_true(got - exact <= exact >> bits);
    }
    histogram_release(&h);
}

static void test_histogram_is_within_its_digits(void **state)
{
    enum { N = 20000 };
    uint64_t *values = malloc(N * sizeof(*values));
    struct chance chance = { 7 };

    for (unsigned bits = HISTOGRAM_COARSE; bits <= HISTOGRAM_FINE; bits += HISTOGRAM_FINE - HISTOGRAM_COARSE) {
        for (size_t i = 0; i < N; i++)          /* each length of number is as frequent as any other */
            values[i] = chance_next(&chance) >> chance_below(&chance, 64);
        check_against_sorting(bits, values, N);
        for (size_t i = 0; i < N; i++)
            values[i] = i;
        check_against_sorting(bits, values, N);
    }
    values[0] = 0;
    check_against_sorting(HISTOGRAM_FINE, values, 1);
    values[0] = UINT64_MAX;
    check_against_sorting(HISTOGRAM_FINE, values, 1);
    free(values);
}

struct walked {
    uint64_t last, count;
};

static void step(uint64_t upper, uint32_t count, void *arg)
{
    struct walked *w = arg;

    assert_true(w->count == 0 || upper > w->last);
    assert_true(count > 0);
    w->last = upper;
    w->count += count;
}

static void test_histogram_is_walked_in_order_and_forgets(void **state)
{
    struct walked walked = { 0 };
    struct histogram h;

    histogram_init(&h, HISTOGRAM_FINE);
    assert_int_equal(histogram_at(&h, 0.5), 0);
    for (uint64_t v = 1; v < (uint64_t)1 << 40; v = v * 3 / 2 + 1)
        histogram_add(&h, v);
    histogram_walk(&h, step, &walked);
    assert_int_equal(walked.count, h.count);
    assert_true(walked.last >= h.max);
    histogram_clear(&h);
    histogram_add(&h, 5);
    assert_int_equal(histogram_at(&h, 1), 5);
    assert_true(histogram_mean(&h) == 5);
    histogram_release(&h);
}

/* ---- schedules --------------------------------------------------------------------------------------------------- */

/* Arrivals in [from, to) seconds; none may come before the one before it. */
static unsigned arrivals(struct schedule s, double from, double to)
{
    unsigned n = 0;
    int64_t last = 0;

    for (int64_t at; (at = schedule_next(&s)) >= 0; last = at) {
        assert_true(at >= last);
        n += (double)at / 1e9 >= from && (double)at / 1e9 < to;
    }
    return n;
}

static void test_schedule_keeps_its_rates(void **state)
{
    struct schedule even = { .even = true }, poisson = { .chance = { 3 } };

    assert_true(schedule_parse(&even, "100:2,0:1,400:2.5"));
    assert_true(schedule_parse(&poisson, "1000:10,0:5,4000:10"));
    assert_true(schedule_seconds(&even) == 5.5);
    assert_true(schedule_rate_at(&even, 1.9) == 100);
    assert_true(schedule_rate_at(&even, 2.9) == 0);
    assert_true(schedule_rate_at(&even, 5.4) == 400);
    assert_in_range(arrivals(even, 0, 2), 199, 200);
    assert_int_equal(arrivals(even, 2, 3), 0);
    assert_in_range(arrivals(even, 3, 5.5), 999, 1001);
    /* a Poisson process is within four of its deviations, and differs with its seed */
    assert_in_range(arrivals(poisson, 0, 10), 9600, 10400);
    assert_int_equal(arrivals(poisson, 10, 15), 0);
    assert_in_range(arrivals(poisson, 15, 25), 39200, 40800);
    assert_int_equal(arrivals(poisson, 0, 10), arrivals(poisson, 0, 10));
}

static void test_gaps_of_poisson_arrivals_are_exponential(void **state)
{
    struct schedule s = { .chance = { 11 } };
    double sum = 0, squares = 0, last = 0;
    unsigned n = 0;

    assert_true(schedule_add(&s, 2000, 20));
    for (int64_t at; (at = schedule_next(&s)) >= 0; n++) {
        double gap = (double)at / 1e9 - last;

        sum += gap;
        squares += gap * gap;
        last = (double)at / 1e9;
    }
    /* mean and deviation of an exponential distribution are the same */
    assert_true(fabs(sum / n * 2000 - 1) < 0.03);
    assert_true(fabs(sqrt(squares / n - sum / n * sum / n) * 2000 - 1) < 0.03);
}

static void test_schedules_that_are_none(void **state)
{
    static const char *const wrong[] = { "", "100", "100:", ":1", "100:1,", "100:1;2:3", "-1:2", "1:-2", "1:0", "x:1",
                                         "nan:1", "inf:1", "1:inf" };

    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        struct schedule s = { 0 };

        assert_false(schedule_parse(&s, wrong[i]));
    }
}

/* ---- answers ----------------------------------------------------------------------------------------------------- */

static const struct {
    const char *bytes;
    int status;
    bool closes;
    const char *message;
} good[] = {
    { "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", 200, false, "hello" },
    { "HTTP/1.1 200\r\ncontent-length:0\r\n\r\n", 200, false, "" },
    { "HTTP/1.1 204 No Content\r\nX: y\r\n\r\n", 204, false, "" },
    { "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi", 200, true, "hi" },
    { "HTTP/1.1 503 Busy\r\nConnection: Close\r\nContent-Length: 2\r\n\r\n{}", 503, true, "{}" },
    { "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\n"
      "Content-Length: 1\r\n\r\n1", 200, false, "1" },
    { "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nA;ext=1\r\n, everyone\r\n0\r\n"
      "Trailer: t\r\n\r\n", 200, false, "hello, everyone" },
    { "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Type: text/event-stream\r\n\r\n"
      "10\r\ndata: {\"a\":1}\n\nd\r\n9\r\nata: {2}\n\r\n1\r\n\n\r\n0\r\n\r\n", 200, false, "{2}" },
};

static const char *const garbled[] = {
    "HTTP/2 200 OK\r\n\r\n", "HTTP/1.1 20 OK\r\n\r\n", "HTTP/1.1 xyz OK\r\n\r\n", "ICY 200 OK\r\n\r\n",
    "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
    "HTTP/1.1 200 OK\r\nno field\r\n\r\n", "HTTP/1.1 101 Switching\r\n\r\n",
    "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n111111111\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n",
};

/* Two pieces, each in a place of its own size, so that a read past either is seen. */
static size_t feed_split(struct answer *a, const char *bytes, size_t n, size_t split)
{
    size_t taken = 0;

    for (int half = 0; half < 2; half++) {
        size_t from = half ? split : 0, len = half ? n - split : split, got;
        char *copy = malloc(len ? len : 1);

        memcpy(copy, bytes + from, len);
        got = answer_feed(a, copy, len);
        free(copy);
        taken += got;
        if (got < len)
            break;
    }
    return taken;
}

static void test_answers_in_two_pieces_at_every_byte(void **state)
{
    struct answer a;

    answer_init(&a);
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        size_t n = strlen(good[i].bytes);
        char *twice = malloc(2 * n + 1);

        sprintf(twice, "%s%s", good[i].bytes, good[i].bytes);
        for (size_t split = 0; split <= n; split++) {
            answer_next(&a);
            /* what follows an answer belongs to the next */
            assert_int_equal(feed_split(&a, twice, 2 * n, split), n);
            assert_int_equal(a.state, ANSWER_DONE);
            assert_int_equal(a.status, good[i].status);
            assert_int_equal(a.closes, good[i].closes);
            assert_true(str_is(answer_message(&a), good[i].message));
        }
        free(twice);
    }
    answer_release(&a);
}

static void test_answers_byte_by_byte(void **state)
{
    struct answer a;

    answer_init(&a);
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        answer_next(&a);
        for (const char *p = good[i].bytes; *p; p++) {
            assert_int_not_equal(a.state, ANSWER_DONE);
            assert_int_equal(answer_feed(&a, p, 1), 1);
        }
        assert_int_equal(a.state, ANSWER_DONE);
        assert_true(str_is(answer_message(&a), good[i].message));
    }
    answer_release(&a);
}

static void test_answers_that_are_none(void **state)
{
    struct answer a;

    answer_init(&a);
    for (size_t i = 0; i < sizeof(garbled) / sizeof(garbled[0]); i++)
        for (size_t split = 0; split <= strlen(garbled[i]); split++) {
            answer_next(&a);
            feed_split(&a, garbled[i], strlen(garbled[i]), split);
            assert_int_equal(a.state, ANSWER_GARBLED);
            answer_closed(&a);
            assert_int_equal(a.state, ANSWER_GARBLED);
        }
    answer_release(&a);
}

static void test_an_answer_that_ends_with_its_connection(void **state)
{
    static const char bytes[] = "HTTP/1.1 200 OK\r\n\r\nall there is";
    struct answer a;

    answer_init(&a);
    answer_feed(&a, bytes, sizeof(bytes) - 1);
    assert_int_equal(a.state, ANSWER_TO_END);
    answer_closed(&a);
    assert_int_equal(a.state, ANSWER_DONE);
    assert_true(str_is(answer_message(&a), "all there is"));
    answer_next(&a);
    answer_feed(&a, good[0].bytes, strlen(good[0].bytes) - 1);
    answer_closed(&a);                  /* cut short */
    assert_int_equal(a.state, ANSWER_GARBLED);
    answer_release(&a);
}

/* ---- verdicts ---------------------------------------------------------------------------------------------------- */

static void test_verdicts(void **state)
{
    static const struct {
        int status;
        const char *message;
        enum verdict verdict;
        const char *reason;
    } rows[] = {
        { 200, "{\"result\":{\"content\":[]}}", VERDICT_OK, "" },
        { 204, "", VERDICT_OK, "" },
        { 200, "any text", VERDICT_OK, "" },
        { 200, "{\"result\":{\"isError\":false}}", VERDICT_OK, "" },
        { 200, "{\"result\":{\"structuredContent\":{\"error\":\"of yesterday\"},\"isError\":false}}", VERDICT_OK, "" },
        { 200, "{\"result\":{\"content\":[{\"text\":\"{\\\"isError\\\":true}\"}]}}", VERDICT_OK, "" },
        { 200, "{\"result\":{\"isError\":true,\"_meta\":{\"dev.sluice/error\":\"rate_limited\"}}}", VERDICT_REFUSED,
          "rate_limited" },
        { 200, "{\"result\":{\"isError\":true,\"_meta\":{\"dev.sluice/error\":\"policy_denied\"}}}", VERDICT_FAILED,
          "policy_denied" },
        { 200, "{\"result\":{\"isError\": true,\"content\":[{\"text\":\"the budget is spent\"}]}}", VERDICT_REFUSED,
          "tool_error" },
        { 200, "{\"error\":{\"code\":-32602,\"message\":\"unknown tool\"}}", VERDICT_FAILED, "rpc_-32602" },
        { 503, "{\"error\":{\"code\":-32000,\"data\":{\"dev.sluice/error\":\"overloaded\"}}}", VERDICT_REFUSED,
          "overloaded" },
        { 429, "<html>", VERDICT_REFUSED, "http_429" },
        { 503, "", VERDICT_REFUSED, "http_503" },
        { 502, "{}", VERDICT_FAILED, "http_502" },
        { 200, "\"error\": not JSON", VERDICT_FAILED, "not_json" },
        { 200, "[{\"result\":{}},{\"error\":{\"code\":-1}}]", VERDICT_FAILED, "rpc_-1" },
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        char reason[REASON_MAX] = "";

        assert_int_equal(judge(rows[i].status, str_of(rows[i].message), reason), rows[i].verdict);
        assert_string_equal(reason, rows[i].reason);
    }
}

/* ---- requests ---------------------------------------------------------------------------------------------------- */

static void test_requests_are_written_out(void **state)
{
    static const char lines[] =
        "{\"path\":\"/a\",\"headers\":{\"X\":\"{{n}}\"},\"body\":\"[{{n}},{{r:1}},{{a}}]\",\"group\":\"g\"}\n\n"
        "{\"method\":\"PUT\",\"body\":\"{\\\"a\\\":{\\\"b\\\":{}}}\",\"weight\":3}\n";
    char path[] = "/tmp/bench_test_XXXXXX";
    struct buf out = BUF_INIT(4096);
    struct chance chance = { 5 };
    struct requests r;
    unsigned second = 0;
    int fd = mkstemp(path);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, lines, sizeof(lines) - 1), sizeof(lines) - 1);
    close(fd);
    requests_load(&r, path, "h:1", "/mcp");
    unlink(path);
    assert_int_equal(r.n, 2);
    assert_int_equal(r.groups, 2);
    assert_true(str_is(r.group[r.all[0].group], "g"));
    request_write(&r.all[0], 1234, &chance, &out);
    assert_true(str_is(buf_str(&out), "POST /a HTTP/1.1\r\nHost: h:1\r\nX: 1234\r\nContent-Length: 14\r\n\r\n"
                                      "[1234,0,{{a}}]"));
    buf_clear(&out);
    request_write(&r.all[1], 1, &chance, &out);
    assert_true(str_is(buf_str(&out), "PUT /mcp HTTP/1.1\r\nHost: h:1\r\nContent-Length: 14\r\n\r\n"
                                      "{\"a\":{\"b\":{}}}"));
    for (unsigned i = 0; i < 4000; i++)
        second += requests_choose(&r, &chance) == &r.all[1];
    assert_in_range(second, 2850, 3150);        /* three of four, within five deviations */
    requests_release(&r);
    buf_release(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_histogram_is_within_its_digits),
        cmocka_unit_test(test_histogram_is_walked_in_order_and_forgets),
        cmocka_unit_test(test_schedule_keeps_its_rates),
        cmocka_unit_test(test_gaps_of_poisson_arrivals_are_exponential),
        cmocka_unit_test(test_schedules_that_are_none),
        cmocka_unit_test(test_answers_in_two_pieces_at_every_byte),
        cmocka_unit_test(test_answers_byte_by_byte),
        cmocka_unit_test(test_answers_that_are_none),
        cmocka_unit_test(test_an_answer_that_ends_with_its_connection),
        cmocka_unit_test(test_verdicts),
        cmocka_unit_test(test_requests_are_written_out),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
