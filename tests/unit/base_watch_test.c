/*
 * base_watch_test.c -- secrets, log and metrics: what must not be seen, and what operators see
 */
#include "base_test.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/resource.h>

#include "base/log.h"
#include "base/metric.h"
#include "base/secret.h"

/* ---- secrets ---- */

static void look(const uint8_t *bytes, size_t n, void *arg)
{
    struct str *want = arg;

    assert_true(str_eq(str_n(bytes, n), *want));
}

static void find_place(const uint8_t *bytes, size_t n, void *arg)
{
    *(const uint8_t **)arg = bytes;
}

static void test_secret_keeps_wipes_and_refuses(void **state)
{
    static char big[SECRET_MAX + 1];
    char bytes[] = "gho_token";
    struct str want = STR("gho_token");
    struct secret *s = secret_take(bytes, 9);

    assert_non_null(s);
    assert_memory_equal(bytes, "\0\0\0\0\0\0\0\0\0", 9);
    assert_int_equal(secret_len(s), 9);
    secret_use(s, look, &want);
    secret_release(s);
    secret_release(NULL);
    memset(big, 'b', sizeof(big));
    assert_null(secret_copy(big, sizeof(big)));
    s = secret_copy(big, SECRET_MAX);
    assert_non_null(s);
    want = str_n(big, SECRET_MAX);
    secret_use(s, look, &want);
    secret_release(s);
    s = secret_copy(NULL, 0);
    assert_int_equal(secret_len(s), 0);
    secret_release(s);
}

static bool write_token(uint8_t *to, size_t n, void *arg)
{
    memcpy(to, "gho_token", n);
    *(const uint8_t **)arg = to;
    return true;
}

static bool write_and_fail(uint8_t *to, size_t n, void *arg)
{
    return !write_token(to, n, arg);
}

static void test_secret_is_filled_where_it_stays(void **state)
{
    struct secret *neighbour = secret_copy("keeps the region", 16), *s;
    const volatile uint8_t *written = NULL, *p;
    struct str want = STR("gho_token");

    s = secret_fill(9, write_token, &written);
    assert_non_null(s);
    secret_use(s, look, &want);
    secret_use(s, find_place, &p);
    assert_ptr_equal(p, written);
    secret_release(s);
    assert_null(secret_fill(9, write_and_fail, &written));
#ifndef SANITIZED
    assert_int_equal(written[0], 0);
#endif
    written = NULL;
    assert_null(secret_fill(SECRET_MAX + 1, write_token, &written));
    assert_null(written);
    secret_release(neighbour);
}

static void test_secret_is_gone_from_memory_after_release(void **state)
{
    struct secret *s = secret_copy("correct horse", 13), *neighbour = secret_copy("keeps the region", 16);
    const volatile uint8_t *p;

    secret_use(s, find_place, &p);
    assert_int_equal(p[0], 'c');
    secret_release(s);
#ifndef SANITIZED       /* there the slot cannot be read any more, which is better still */
    for (size_t i = 0; i < 13; i++)
        assert_int_equal(p[i], 0);
#endif
    secret_release(neighbour);
}

static void test_secret_slots_are_reused_and_disjoint(void **state)
{
    static const size_t lens[] = { 1, 255, 256, 257, 1024, 1025, 4096, 4097, 16384 };
    enum { N = 900 };
    static struct secret *s[N];
    static char bytes[N][SECRET_MAX];

    for (int round = 0; round < 3; round++) {
        for (size_t i = 0; i < N; i++) {
            size_t n = lens[i % ARRAY_LEN(lens)];

            memset(bytes[i], (int)(i * 7 + (size_t)round) & 255, n);
            s[i] = secret_copy(bytes[i], n);
            assert_non_null(s[i]);
        }
        for (size_t i = 0; i < N; i++) {
            struct str want = str_n(bytes[i], lens[i % ARRAY_LEN(lens)]);

            secret_use(s[i], look, &want);
        }
        for (size_t i = 0; i < N; i++)
            secret_release(s[(i * 7) % N]);     /* 7 and 900 share no factor: each once, out of order */
    }
}

static void release_twice(void)
{
    struct secret *s = secret_copy("x", 1), *other = secret_copy("y", 1);

    secret_release(s);
    secret_release(s);
    secret_release(other);
}

/* Into the guard page: 64 KB past the first slot of a region at the latest. */
static void run_off_the_end(void)
{
    volatile const uint8_t *p;
    struct secret *s = secret_copy("x", 1);
    uint8_t sum = 0;

    secret_use(s, find_place, &p);
    for (size_t i = 0; i <= 65536; i += 256)
        sum = (uint8_t)(sum + p[i]);
    _exit(sum & 0);
}

static void test_secret_misuse_ends_the_process(void **state)
{
    assert_true(dies(release_twice));
    assert_true(dies(run_off_the_end));
}

/* In a child without privilege and without memory it may lock: everything works, and the log says so once. */
static void test_secret_works_without_locked_memory(void **state)
{
    static char bytes[SECRET_MAX];
    struct rlimit none = { 0, 0 };
    struct str said;
    const char *first;
    pid_t child;
    int status;

    memset(bytes, 'k', sizeof(bytes));
    capture_begin();
    child = fork();
    if (child == 0) {
        struct str want = str_n(bytes, sizeof(bytes));

        log_setup(LOG_LEVEL_INFO, LOG_FORMAT_LOGFMT);
        if (setrlimit(RLIMIT_MEMLOCK, &none) != 0 || (getuid() == 0 && setuid(65534) != 0))
            _exit(77);
        for (int i = 0; i < 100; i++) {
            struct secret *s = secret_copy(bytes, sizeof(bytes));

            if (!s)
                _exit(1);
            secret_use(s, look, &want);
        }
        _exit(0);
    }
    waitpid(child, &status, 0);
    said = capture_end();
    assert_true(WIFEXITED(status));
    if (WEXITSTATUS(status) == 77) {
        printf("skipped: this environment does not let go of its privileges\n");
        return;
    }
    assert_int_equal(WEXITSTATUS(status), 0);
    first = strstr(said.p, "level=warn");
#ifndef SANITIZED       /* sanitizer runtimes make mlock() do nothing */
    assert_non_null(first);
#endif
    if (first)
        assert_null(strstr(first + 1, "level=warn"));
}

static struct secret *inherited;

static void use_inherited(void)
{
    const uint8_t *p;
    volatile uint8_t byte;

    secret_use(inherited, find_place, &p);
    byte = *(const volatile uint8_t *)p;
    (void)byte;
}

static void use_own(void)
{
    struct str want = STR("own");
    struct secret *s = secret_copy("own", 3);

    secret_use(s, look, &want);
    secret_release(s);
}

static void test_child_process_gets_no_secrets(void **state)
{
    struct str want = STR("parent");

    inherited = secret_copy("parent", 6);
    assert_true(dies(use_inherited));
    assert_false(dies(use_own));
    secret_use(inherited, look, &want);
    secret_release(inherited);
}

static void look_alike(const uint8_t *bytes, size_t n, void *arg)
{
    for (size_t i = 0; i < n; i++)
        assert_int_equal(bytes[i], (uint8_t)n);
    ++*(int *)arg;
}

/* Secrets of 1 to 300 bytes that say how long they are; each is released by whoever finds it. */
static void *secrets_in_thread(void *arg)
{
    _Atomic(struct secret *) *passed = arg;
    int looked = 0;

    for (int i = 0; i < 2000; i++) {
        char bytes[300];
        size_t n = (size_t)(i % 300) + 1;
        struct secret *s;

        memset(bytes, (int)n, n);
        s = secret_copy(bytes, n);
        secret_use(s, look_alike, &looked);
        s = atomic_exchange(&passed[i % 7], s);
        if (s)
            secret_use(s, look_alike, &looked);
        secret_release(s);
    }
    assert_in_range(looked, 2000, 4000);
    return NULL;
}

static void run_threads(size_t n, _Atomic(struct secret *) *passed)
{
    pthread_t t[8];

    assert_true(n <= ARRAY_LEN(t));
    for (size_t i = 0; i < n; i++)
        assert_int_equal(pthread_create(&t[i], NULL, secrets_in_thread, passed), 0);
    for (size_t i = 0; i < n; i++)
        pthread_join(t[i], NULL);
}

/* More threads one after another than there are pools: later ones share what earlier ones have left. */
static void test_secrets_pass_between_threads(void **state)
{
    static _Atomic(struct secret *) passed[7];

    for (int i = 0; i < 6; i++)
        run_threads(8, passed);
    for (size_t i = 0; i < ARRAY_LEN(passed); i++)
        secret_release(atomic_exchange(&passed[i], NULL));
}

static void test_hardened_process_dumps_no_core(void **state)
{
    pid_t child = fork();
    int status;

    if (child == 0) {
        struct rlimit core;

        secret_harden_process();
        getrlimit(RLIMIT_CORE, &core);
        _exit(prctl(PR_GET_DUMPABLE) == 0 && core.rlim_cur == 0 && core.rlim_max == 0 ? 0 : 1);
    }
    waitpid(child, &status, 0);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

/* ---- log ---- */

static int64_t fixed_wall(void)
{
    return 1795150852123;
}

/* What a hostile peer sends, and how both formats must show it. */
#define SAID  "a\nts=1 level=info\r\t\"\\\x01\x7f \xc2\x85 \xe2\x80\xae \xe2\x81\xa6 \xe2\x80\xa8 \xff\xc3 " \
              "\xc3\xa9 \xf0\x9f\x98\x80"
#define SHOWN "a\\nts=1 level=info\\r\\t\\\"\\\\\\u0001\\u007f \\u0085 \\u202e \\u2066 \\u2028 \\ufffd\\ufffd " \
              "\xc3\xa9 \xf0\x9f\x98\x80"
#define STAMP "2026-11-20T05:00:52.123Z"

static void test_log_escapes_what_peers_say(void **state)
{
    log_setup(LOG_LEVEL_INFO, LOG_FORMAT_LOGFMT);
    capture_begin();
    LOG_DEBUG("not shown");
    LOG_INFO("up", LOG_S("addr", "127.0.0.1:7411"), LOG_I("workers", 2), LOG_B("tls", false), LOG_S("none", NULL));
    LOG_WARN("peer", LOG_SV("said", STR(SAID)));
    log_setup(LOG_LEVEL_DEBUG, LOG_FORMAT_JSON);
    LOG_DEBUG("peer", LOG_SV("said", STR(SAID)), LOG_I("n", INT64_MIN), LOG_B("ok", true));
    LOG_ERROR("bare");
    assert_str(capture_end(),
               "ts=" STAMP " level=info msg=\"up\" addr=\"127.0.0.1:7411\" workers=2 tls=false none=\"\"\n"
               "ts=" STAMP " level=warn msg=\"peer\" said=\"" SHOWN "\"\n"
               "{\"ts\":\"" STAMP "\",\"level\":\"debug\",\"msg\":\"peer\",\"said\":\"" SHOWN "\","
               "\"n\":-9223372036854775808,\"ok\":true}\n"
               "{\"ts\":\"" STAMP "\",\"level\":\"error\",\"msg\":\"bare\"}\n");
}

/* Is this one whole line: quotes closed, fields as written or cut=true at the end? */
static void check_line(struct str line, bool json, bool cut)
{
    size_t quotes = 0;

    assert_true(line.len > 0 && line.len <= LOG_LINE_MAX);
    assert_ptr_equal(memchr(line.p, '\n', line.len), line.p + line.len - 1);
    for (size_t i = 0; i < line.len; i++) {
        if (line.p[i] == '\\')
            i++;
        else
            quotes += line.p[i] == '"';
    }
    assert_int_equal(quotes % 2, 0);
    assert_true(str_utf8_valid(line));
    if (json)
        assert_true(str_ends(line, cut ? STR(",\"cut\":true}\n") : STR("\",\"last\":12345}\n")));
    else
        assert_true(str_ends(line, cut ? STR("\" cut=true\n") : STR("\" last=12345\n")));
}

static struct str log_value(struct str value)
{
    capture_begin();
    LOG_INFO("m", LOG_SV("v", value), LOG_I("last", 12345));
    return capture_end();
}

static void test_log_lines_are_cut_cleanly_at_any_length(void **state)
{
    static char text[5000];

    for (size_t i = 0; i + 5 <= sizeof(text); i += 5)
        memcpy(text + i, "x\n\xe2\x82\xac", 5);         /* plain, escaped (two bytes), and three bytes long */
    for (int json = 0; json < 2; json++) {
        size_t bare, seen[2] = { 0 };

        log_setup(LOG_LEVEL_INFO, json ? LOG_FORMAT_JSON : LOG_FORMAT_LOGFMT);
        bare = log_value(STR("")).len;
        for (size_t n = 3000; n < 3600; n++) {
            size_t shown = n / 5 * 6 + (n % 5 == 2 ? 3 : n % 5);
            bool cut = bare + shown > LOG_LINE_MAX - 16 + (json ? 2 : 1);     /* room kept, and what ends every line */
            struct str line;

            if (!str_utf8_valid(str_n(text, n)))
                continue;
            line = log_value(str_n(text, n));
            check_line(line, json, cut);
            if (!cut)
                assert_int_equal(line.len, bare + shown);
            seen[cut]++;
        }
        assert_true(seen[0] > 10 && seen[1] > 10);
        assert_true(log_value(str_n(text, 5000)).len > LOG_LINE_MAX - 16);
    }
}

static void *log_in_thread(void *arg)
{
    for (int i = 0; i < 100; i++)
        LOG_INFO("from a thread", LOG_S("text", "words that should not be torn"));
    return NULL;
}

static void test_log_lines_of_threads_do_not_mix(void **state)
{
    static const char want[] = "ts=" STAMP " level=info msg=\"from a thread\" text=\"words that should not be torn\"";
    struct str said, line;
    pthread_t t[4];
    int lines = 0;

    log_setup(LOG_LEVEL_INFO, LOG_FORMAT_LOGFMT);
    capture_begin();
    for (size_t i = 0; i < ARRAY_LEN(t); i++)
        assert_int_equal(pthread_create(&t[i], NULL, log_in_thread, NULL), 0);
    for (size_t i = 0; i < ARRAY_LEN(t); i++)
        pthread_join(t[i], NULL);
    said = capture_end();
    for (; str_cut(said, '\n', &line, &said); lines++)
        assert_str(line, want);
    assert_int_equal(lines, 400);
}

/* ---- metrics ---- */

static void has_line(const struct buf *b, const char *line)
{
    struct str rest = buf_str(b), head;

    while (str_cut(rest, '\n', &head, &rest)) {
        if (str_is(head, line))
            return;
    }
    fail_msg("no line: %s", line);
}

static void test_metrics_render(void **state)
{
    struct buf b = BUF_INIT(1 << 20);
    unsigned slot = metric_label(M_CALLS_TOTAL, STR("calendar.hold_slot:done"));
    metric_slot_t kept = 0;

    assert_int_equal(slot, metric_label(M_CALLS_TOTAL, STR("calendar.hold_slot:done")));
    assert_false(metric_slot_known(&kept));
    metric_slot_ask(&kept, M_CALLS_TOTAL, STR("calendar.hold_slot:done"));
    assert_true(metric_slot_known(&kept));
    assert_int_equal(metric_slot(&kept), slot);
    metric_add_at(M_CALLS_TOTAL, metric_slot(&kept), 3);
    metric_add_at(M_CALLS_TOTAL, metric_label(M_CALLS_TOTAL, STR("a:b:done")), 1);
    metric_add_at(M_CALLS_TOTAL, metric_label(M_CALLS_TOTAL, STR("no colon")), 2);
    metric_add(M_HTTP_CONNECTIONS, 5);
    metric_add(M_HTTP_CONNECTIONS, -2);
    metric_add_at(M_REFRESHES_TOTAL, metric_label(M_REFRESHES_TOTAL, STR("we\"i\\rd\nvalue")), 1);
    metric_observe(M_QUEUE_SECONDS, 1000);
    metric_observe(M_QUEUE_SECONDS, 1001);
    metric_observe(M_QUEUE_SECONDS, -5);
    metric_observe(M_QUEUE_SECONDS, 61000000000);
    metric_observe_at(M_STEP_SECONDS, metric_label(M_STEP_SECONDS, STR("DECIDE")), 700000);
    metric_render(&b);

    assert_false(b.overflow);
    assert_true(str_utf8_valid(buf_str(&b)));
    has_line(&b, "# TYPE sluice_calls_total counter");
    has_line(&b, "# HELP sluice_calls_total calls that ended, by tool and outcome (tool:outcome)");
    has_line(&b, "sluice_calls_total{tool=\"calendar.hold_slot\",outcome=\"done\"} 3");
    has_line(&b, "sluice_calls_total{tool=\"a:b\",outcome=\"done\"} 1");
    has_line(&b, "sluice_calls_total{tool=\"other\",outcome=\"other\"} 2");
    has_line(&b, "# TYPE sluice_http_connections gauge");
    has_line(&b, "sluice_http_connections 3");
    has_line(&b, "sluice_tasks 0");
    has_line(&b, "sluice_refreshes_total{result=\"we\\\"i\\\\rd\\nvalue\"} 1");
    has_line(&b, "# TYPE sluice_queue_seconds histogram");
    has_line(&b, "sluice_queue_seconds_bucket{le=\"0.000001\"} 2");
    has_line(&b, "sluice_queue_seconds_bucket{le=\"0.0000025\"} 3");
    has_line(&b, "sluice_queue_seconds_bucket{le=\"60\"} 3");
    has_line(&b, "sluice_queue_seconds_bucket{le=\"+Inf\"} 4");
    has_line(&b, "sluice_queue_seconds_sum 61.000002001");
    has_line(&b, "sluice_queue_seconds_count 4");
    has_line(&b, "sluice_step_seconds_bucket{step=\"DECIDE\",le=\"0.0005\"} 0");
    has_line(&b, "sluice_step_seconds_bucket{step=\"DECIDE\",le=\"0.001\"} 1");
    assert_int_equal(metric_sum(M_QUEUE_SECONDS), 4);
    assert_int_equal(metric_sum(M_CALLS_TOTAL), 6);
    buf_release(&b);
}

/* The bounds are read from the text: what lies on one and just above it is looked for in the counts. */
static void test_every_bound_of_a_histogram_divides(void **state)
{
    static const char head[] = "sluice_step_seconds_bucket{step=\"EVERY\",le=\"";
    unsigned slot = metric_label(M_STEP_SECONDS, STR("EVERY"));
    struct buf b = BUF_INIT(1 << 20);

    metric_observe_at(M_STEP_SECONDS, slot, 0);
    for (int round = 0; round < 2; round++) {
        unsigned n = 0;

        buf_clear(&b);
        metric_render(&b);
        buf_add_c(&b, '\0');
        for (const char *at = b.p; (at = strstr(at, head)) != NULL; n++) {
            int64_t bound;
            char *end;

            at += strlen(head);
            if (strncmp(at, "+Inf", 4) == 0)
                break;
            bound = (int64_t)(strtod(at, &end) * 1e9 + 0.5);
            if (round > 0) {
                assert_int_equal(atoi(strchr(end, ' ')), 2 * n + 2);
                continue;
            }
            metric_observe_at(M_STEP_SECONDS, slot, bound);
            metric_observe_at(M_STEP_SECONDS, slot, bound + 1);
        }
        assert_int_equal(n, 24);
    }
    buf_release(&b);
}

static void test_metric_labels_are_bounded(void **state)
{
    char value[300];
    int others = 0;

    for (int i = 0; i < 1000; i++) {
        snprintf(value, sizeof(value), "error_%d", i);
        others += metric_label(M_CALL_ERRORS_TOTAL, str_of(value)) == 0;
    }
    assert_int_equal(others, 1000 - (METRIC_LABELS_MAX - 1));
    assert_int_equal(metric_label(M_CALL_ERRORS_TOTAL, STR("error_0")), 1);
    memset(value, 'x', sizeof(value));
    assert_int_equal(metric_label(M_HTTP_REQUESTS_TOTAL, str_n(value, sizeof(value))), 0);
    assert_int_equal(metric_label(M_HTTP_REQUESTS_TOTAL, STR("\xff")), 0);
    assert_int_equal(metric_label(M_HTTP_REQUESTS_TOTAL, str_n("a\0b", 3)), 0);
    assert_int_equal(metric_label(M_HTTP_REQUESTS_TOTAL, STR("other")), 0);
    assert_int_equal(metric_label(M_EXCHANGES_TOTAL, STR("other:other")), 0);
}

static void *count_in_thread(void *arg)
{
    unsigned slot = metric_label(M_POLICY_DECISIONS_TOTAL, STR("allow"));

    for (int i = 0; i < 10000; i++) {
        metric_add(M_JOURNAL_RECORDS_TOTAL, 1);
        metric_add_at(M_POLICY_DECISIONS_TOTAL, slot, 2);
        metric_observe(M_JOURNAL_COMMIT_SECONDS, i);
    }
    return NULL;
}

static void test_metrics_of_ended_threads_still_count(void **state)
{
    struct buf b = BUF_INIT(1 << 20);
    pthread_t t[4];

    for (int round = 1; round <= 3; round++) {
        for (size_t i = 0; i < ARRAY_LEN(t); i++)
            assert_int_equal(pthread_create(&t[i], NULL, count_in_thread, NULL), 0);
        buf_clear(&b);
        metric_render(&b);              /* while they count */
        assert_false(b.overflow);
        for (size_t i = 0; i < ARRAY_LEN(t); i++)
            pthread_join(t[i], NULL);
        assert_int_equal(metric_sum(M_JOURNAL_RECORDS_TOTAL), round * 40000);
        assert_int_equal(metric_sum(M_POLICY_DECISIONS_TOTAL), round * 80000);
        assert_int_equal(metric_sum(M_JOURNAL_COMMIT_SECONDS), round * 40000);
    }
    buf_release(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        /* first, as the warning it looks for is said once in the life of a process */
        cmocka_unit_test(test_secret_works_without_locked_memory),
        cmocka_unit_test(test_secret_keeps_wipes_and_refuses),
        cmocka_unit_test(test_secret_is_filled_where_it_stays),
        cmocka_unit_test(test_secret_is_gone_from_memory_after_release),
        cmocka_unit_test(test_secret_slots_are_reused_and_disjoint),
        cmocka_unit_test(test_secret_misuse_ends_the_process),
        cmocka_unit_test(test_child_process_gets_no_secrets),
        cmocka_unit_test(test_secrets_pass_between_threads),
        cmocka_unit_test(test_hardened_process_dumps_no_core),
        cmocka_unit_test(test_log_escapes_what_peers_say),
        cmocka_unit_test(test_log_lines_are_cut_cleanly_at_any_length),
        cmocka_unit_test(test_log_lines_of_threads_do_not_mix),
        cmocka_unit_test(test_metrics_render),
        cmocka_unit_test(test_every_bound_of_a_histogram_divides),
        cmocka_unit_test(test_metric_labels_are_bounded),
        cmocka_unit_test(test_metrics_of_ended_threads_still_count),
    };

    log_wall_ms = fixed_wall;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
