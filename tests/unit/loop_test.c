/* loop_test.c -- the loop on the real world: tasks, timers, mail and sockets, on kernel rings */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "loop/lag.h"
#include "loop/loop.h"
#include "loop/task.h"
#include "loop/world.h"
#include "loop_bed.h"

/* ---- tasks and timers -------------------------------------------------------------------------------------------- */

static void sleeper(void *arg)
{
    ns_t ms = (ns_t)(uintptr_t)arg, due = loop_now() + ms * NS_PER_MS;

    assert_int_equal(await_sleep(due), OK);
    assert_true(loop_now() >= due);
    note((char)('a' + ms / 10));
    if (ms == 30)
        loop_stop(loop_self());
}

static void start_sleepers(void *arg)
{
    (void)arg;
    for (uintptr_t ms = 30; ms > 0; ms -= 10)
        assert_non_null(task_spawn("sleeper", sleeper, (void *)ms));
}

static void sleeping_tasks_wake_in_order_and_never_early(void **state)
{
    trace_begin();
    run(start_sleepers, NULL);
    assert_string_equal(trace, "bcd");
}

static void count_down(void *arg)
{
    int *n = arg;

    await_turn();
    if (--*n == 0)
        loop_stop(loop_self());
}

static int many;

static void start_many(void *arg)
{
    many = 5000;
    for (int i = 0; i < 5000; i++)
        assert_non_null(task_spawn("many", count_down, &many));
}

static void thousands_of_tasks_live_at_once(void **state)
{
    run(start_many, NULL);
    assert_int_equal(many, 0);
}

static void start_too_many(void *arg)
{
    many = 10;
    for (int i = 0; i < 10; i++)
        assert_non_null(task_spawn("many", count_down, &many));
    assert_null(task_spawn("one too many", count_down, &many));
}

static void the_limit_of_tasks_holds(void **state)
{
    struct loop *l = new_loop(10);

    loop_run(l, start_too_many, NULL);
    loop_destroy(l);
}

/* Every kind of register must survive a switch: floating point, callee-saved integers, locals on the stack. */
static void arithmetic(void *arg)
{
    int *left = arg;
    volatile double x = (double)*left * 1.25;
    unsigned long long h = (unsigned long long)*left;

    for (int i = 0; i < 200; i++) {
        double before = x * 3.0;

        h = h * 6364136223846793005ULL + 1442695040888963407ULL;
        await_turn();
        assert_true(before == x * 3.0);
    }
    assert_true(h != 0);
    if (--*left == 0)
        loop_stop(loop_self());
}

static int arithmetics;

static void start_arithmetic(void *arg)
{
    arithmetics = 50;
    for (int i = 0; i < 50; i++)
        task_spawn("arithmetic", arithmetic, &arithmetics);
}

static void registers_survive_switches(void **state)
{
    run(start_arithmetic, NULL);
    assert_int_equal(arithmetics, 0);
}

/* ---- the loop's stack -------------------------------------------------------------------------------------------- */

struct dive {
    unsigned depth;
    struct task *task;
    uint64_t sum;
    struct wake *wake;
};

/* Four times what a task's stack has. */
static void dive(void *arg)
{
    struct dive *d = arg;
    volatile uint8_t deep[4 * TASK_STACK_DEFAULT];

    assert_ptr_equal(task_self(), d->task);
    for (size_t i = 0; i < sizeof(deep); i += 512)
        deep[i] = (uint8_t)(i / 512);
    for (size_t i = 0; i < sizeof(deep); i += 512)
        d->sum += deep[i];
    if (d->wake)
        wake_fire(d->wake);
    if (d->depth-- > 0)
        task_deep(dive, d);             /* from there it is a plain call */
}

static unsigned divers;

static void diver(void *arg)
{
    uint64_t want = 0;

    for (size_t i = 0; i < 4 * TASK_STACK_DEFAULT; i += 512)
        want += (uint8_t)(i / 512);
    for (unsigned i = 0; i < 20; i++) {
        struct wake wake = { 0 };
        struct dive d = { .depth = i % 3, .task = task_self(), .wake = &wake };

        task_deep(dive, &d);
        assert_int_equal(d.sum, want * (i % 3 + 1));
        assert_int_equal(await_wake(&wake, 0), OK);
        await_turn();
    }
    if (--divers == 0)
        loop_stop(loop_self());
}

static void start_divers(void *arg)
{
    struct dive d = { .task = NULL };

    task_deep(dive, &d);                /* no task: a plain call */
    assert_int_not_equal(d.sum, 0);
    for (divers = 0; divers < 5; divers++)
        assert_non_null(task_spawn("diver", diver, NULL));
}

static void what_needs_a_deep_stack_has_the_loops(void **state)
{
    run(start_divers, NULL);
    assert_int_equal(divers, 0);
}

/* ---- cancelling -------------------------------------------------------------------------------------------------- */

struct cancel_case {
    struct task *victim;
    struct wake never;
    enum err first, second, shielded;
    bool cleaned;
};

static void victim(void *arg)
{
    struct cancel_case *c = arg;

    c->first = await_wake(&c->never, NS_NEVER);
    c->second = await_sleep(loop_now() + NS_PER_S);
    task_shield(+1);
    c->shielded = await_sleep(loop_now() + 5 * NS_PER_MS);
    task_shield(-1);
    c->cleaned = true;
    loop_stop(loop_self());
}

static void canceller(void *arg)
{
    struct cancel_case *c = arg;

    assert_int_equal(await_sleep(loop_now() + 2 * NS_PER_MS), OK);
    task_cancel(c->victim);
}

static void start_cancel(void *arg)
{
    struct cancel_case *c = arg;

    c->victim = task_spawn("victim", victim, c);
    task_spawn("canceller", canceller, c);
}

static void a_cancelled_task_returns_and_cleans_up(void **state)
{
    struct cancel_case c = { 0 };

    run(start_cancel, &c);
    assert_int_equal(c.first, E_CANCELLED);
    assert_int_equal(c.second, E_CANCELLED);
    assert_int_equal(c.shielded, OK);
    assert_true(c.cleaned);
}

static void short_task(void *arg)
{
    (void)arg;
}

static struct task_ref old_ref;

static void look_back(void *arg)
{
    await_turn();
    await_turn();
    assert_null(task_deref(old_ref));
    assert_non_null(task_spawn("again", short_task, NULL));      /* reuses the stack */
    assert_null(task_deref(old_ref));
    loop_stop(loop_self());
}

static void start_refs(void *arg)
{
    old_ref = task_ref(task_spawn("short", short_task, NULL));
    assert_non_null(task_deref(old_ref));
    task_spawn("look", look_back, NULL);
}

static void a_reference_to_an_ended_task_finds_nothing(void **state)
{
    run(start_refs, NULL);
}

/* ---- sockets ----------------------------------------------------------------------------------------------------- */

struct echo {
    int listener;
    struct op accept, recv;
    struct op send, close;
    int conn;
    size_t got, want;
    char pending[4096];
};

static void echo_closed(struct op *op, int res)
{
    struct echo *s = op->owner;

    (void)res;
    op_cancel(&s->accept);
    loop_stop(loop_self());
}

static void echo_recv(struct op *op, int res)
{
    struct echo *s = op->owner;

    if (res > 0) {
        for (int i = 0; i < res; i++)
            assert_int_equal((unsigned char)op->data[i], (s->got + (size_t)i) % 251);
        s->got += (size_t)res;
        return;
    }
    assert_false(op->more);
    assert_int_equal(res, 0);
    s->close = (struct op){ .kind = OP_CLOSE, .fd = s->conn, .done = echo_closed, .owner = s };
    op_submit(&s->close);
}

static void echo_accept(struct op *op, int res)
{
    struct echo *s = op->owner;

    if (res < 0) {
        assert_int_equal(res, -ECANCELED);
        close(s->listener);
        return;
    }
    assert_true(op->more);
    s->conn = res;
    s->recv = (struct op){ .kind = OP_RECV, .fd = res, .done = echo_recv, .owner = s };
    op_submit(&s->recv);
}

static void start_echo(void *arg)
{
    struct echo *s = arg;

    s->accept = (struct op){ .kind = OP_ACCEPT, .fd = s->listener, .done = echo_accept, .owner = s };
    op_submit(&s->accept);
}

static void *pour(void *arg)
{
    struct echo *s = arg;
    struct sockaddr_storage to;
    socklen_t len = sizeof(to);
    int fd;
    char *bytes = malloc(s->want);
    size_t put = 0;

    assert_int_equal(getsockname(s->listener, (struct sockaddr *)&to, &len), 0);
    fd = socket(to.ss_family, SOCK_STREAM, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&to, len), 0);
    for (size_t i = 0; i < s->want; i++)
        bytes[i] = (char)(i % 251);
    while (put < s->want) {
        ssize_t n = write(fd, bytes + put, s->want - put);

        assert_true(n > 0);
        put += (size_t)n;
    }
    close(fd);
    free(bytes);
    return NULL;
}

/* 20 MB is more than all provided buffers together: the group runs dry and must come back. */
static void a_multishot_receive_survives_running_out_of_buffers(void **state)
{
    struct echo s = { .want = 20 << 20 };
    struct errinfo info;
    pthread_t thread;

    assert_int_equal(net_listen("127.0.0.1:0", true, &s.listener, &info), OK);
    assert_int_equal(pthread_create(&thread, NULL, pour, &s), 0);
    run(start_echo, &s);
    pthread_join(thread, NULL);
    assert_int_equal(s.got, s.want);
}

static void a_taken_port_is_named(void **state)
{
    struct errinfo info;
    char name[64];
    int a, b;

    assert_int_equal(net_listen("127.0.0.1:0", false, &a, &info), OK);
    net_name(a, false, name);
    assert_int_equal(net_listen(name, false, &b, &info), E_IO);
    assert_non_null(strstr(info.text, name));
    assert_non_null(strstr(info.text, "another process has this port"));
    assert_int_equal(net_listen("nonsense", false, &b, &info), E_CONFIG);
    assert_true(net_is_loopback("127.0.0.1:7411") && net_is_loopback("localhost:1") && net_is_loopback("[::1]:1"));
    assert_false(net_is_loopback("0.0.0.0:7411") || net_is_loopback("10.0.0.1:1") || net_is_loopback("x"));
    close(a);
}

/* ---- mail and helpers -------------------------------------------------------------------------------------------- */

enum { LETTERS = 20000 };

struct letter {
    struct mail mail;
    int from, number;
};

static int last_number[2], letters_got;

static void letter_read(struct mail *m)
{
    struct letter *l = CONTAINER_OF(m, struct letter, mail);

    assert_int_equal(l->number, last_number[l->from] + 1);       /* in order per sender */
    last_number[l->from] = l->number;
    free(l);
    if (++letters_got == 2 * LETTERS)
        loop_stop(loop_self());
}

struct sender {
    struct loop *to;
    int id;
};

static void *send_letters(void *arg)
{
    struct sender *s = arg;

    for (int i = 1; i <= LETTERS; i++) {
        struct letter *l = malloc(sizeof(*l));

        *l = (struct letter){ .mail.fn = letter_read, .from = s->id, .number = i };
        loop_post(s->to, &l->mail);
    }
    return NULL;
}

static void mail_arrives_once_and_in_order(void **state)
{
    struct loop *l = new_loop(0);
    struct sender s[2] = { { l, 0 }, { l, 1 } };
    pthread_t threads[2];

    letters_got = last_number[0] = last_number[1] = 0;
    for (int i = 0; i < 2; i++)
        pthread_create(&threads[i], NULL, send_letters, &s[i]);
    loop_run(l, NULL, NULL);
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    loop_destroy(l);
    assert_int_equal(letters_got, 2 * LETTERS);
}

static void blocking_fn(void *arg)
{
    pthread_t *who = arg;

    *who = pthread_self();
}

static void blocking_task(void *arg)
{
    pthread_t who = pthread_self();

    await_blocking(blocking_fn, &who);
    assert_false(pthread_equal(who, pthread_self()));
    loop_stop(loop_self());
}

static void start_blocking(void *arg)
{
    task_spawn("blocking", blocking_task, NULL);
}

static void what_blocks_runs_on_another_thread(void **state)
{
    run(start_blocking, NULL);
}

enum { PARTY = 4 };                             /* as many as there are helper threads */

static struct {
    pthread_mutex_t lock;
    pthread_cond_t all;
    int there, met, left;
} party = { PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0, 0, 0 };

/* Blocks until all are there: one that stands behind another never comes. */
static void meet(void *arg)
{
    struct timespec until;

    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += 10;
    pthread_mutex_lock(&party.lock);
    if (++party.there == PARTY)
        pthread_cond_broadcast(&party.all);
    while (party.there < PARTY && pthread_cond_timedwait(&party.all, &party.lock, &until) == 0)
        ;
    party.met += party.there == PARTY;
    pthread_mutex_unlock(&party.lock);
}

static void guest(void *arg)
{
    await_blocking(meet, NULL);
    if (--party.left == 0)
        loop_stop(loop_self());
}

static void host(void *arg)
{
    pthread_t who;

    await_blocking(blocking_fn, &who);
    await_sleep(loop_now() + 20 * NS_PER_MS);   /* its helper is idle by now, most likely: that is the hard case */
    for (int i = 0; i < PARTY; i++)
        assert_non_null(task_spawn("guest", guest, NULL));
}

static void start_party(void *arg)
{
    task_spawn("host", host, NULL);
}

static void no_job_stands_behind_one_that_blocks(void **state)
{
    party.there = party.met = 0;
    party.left = PARTY;
    run(start_party, NULL);
    assert_int_equal(party.met, PARTY);
}

static struct task_mutex mutex;
static int inside, passed;

static void locker(void *arg)
{
    assert_int_equal(await_lock(&mutex, NS_NEVER), OK);
    assert_int_equal(inside++, 0);
    await_turn();
    inside--;
    task_unlock(&mutex);
    if (++passed == 20)
        loop_stop(loop_self());
}

static void start_lockers(void *arg)
{
    for (int i = 0; i < 20; i++)
        task_spawn("locker", locker, NULL);
}

static void a_task_mutex_admits_one(void **state)
{
    inside = passed = 0;
    run(start_lockers, NULL);
    assert_int_equal(passed, 20);
}

/* ---- the end ----------------------------------------------------------------------------------------------------- */

static struct world watched;                    /* the real one; how its loop waits is looked at */
static unsigned waits, waits_for_mail;
static bool mail_waits;

static void watched_wait(struct ring *r, ns_t until,
                         void (*complete)(struct op *, int, bool, const char *, unsigned))
{
    waits++;
    waits_for_mail += mail_waits && until != 0;
    world_real.ring_wait(r, until, complete);
}

static void watch(void (*start)(void *), void *arg)
{
    watched = world_real;
    watched.ring_wait = watched_wait;
    waits = waits_for_mail = 0;
    world_use(&watched);
    run(start, arg);
    world_use(&world_real);
}

struct ending {
    sem_t go;
    struct op op;
    struct mail mail;
    int fds[2];
    unsigned round;
};

static void wait_for_go(void *arg)
{
    struct ending *e = arg;

    while (sem_wait(&e->go) != 0)
        ;
}

static void blocked_task(void *arg)
{
    struct ending *e = arg;

    await_blocking(wait_for_go, e);
}

/* Its timer is due while the loop is stopping and nothing but a helper's job is under way. */
static void let_go(void *arg)
{
    struct ending *e = arg;
    ns_t due = loop_now() + 100 * NS_PER_MS;

    loop_stop(loop_self());
    assert_int_equal(await_sleep(due), OK);
    assert_true(loop_now() >= due);
    sem_post(&e->go);
}

static void start_ending(void *arg)
{
    task_spawn("blocked", blocked_task, arg);
    task_spawn("let go", let_go, arg);
}

/* It may look again every 10 ms. */
static void a_loop_that_ends_sleeps_while_a_helper_works(void **state)
{
    struct ending e = { .round = 0 };

    sem_init(&e.go, 0, 0);
    watch(start_ending, &e);
    assert_true(waits < 100);
    sem_destroy(&e.go);
}

static void ending_read(struct op *op, int res)
{
    (void)op;
    (void)res;
}

static void ending_mail(struct mail *m)
{
    struct ending *e = CONTAINER_OF(m, struct ending, mail);

    mail_waits = false;
    if (++e->round < 50) {
        loop_post(loop_self(), m);
        mail_waits = true;
    } else {
        op_cancel(&e->op);
    }
}

static void start_mail_at_the_end(void *arg)
{
    struct ending *e = arg;

    e->op = (struct op){ .kind = OP_RECV, .fd = e->fds[0], .done = ending_read };
    e->mail.fn = ending_mail;
    op_submit(&e->op);
    loop_stop(loop_self());
    loop_post(loop_self(), &e->mail);
    mail_waits = true;
}

static void a_loop_that_ends_takes_its_mail_at_once(void **state)
{
    struct ending e = { .round = 0 };

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, e.fds), 0);
    watch(start_mail_at_the_end, &e);
    assert_int_equal(e.round, 50);
    assert_int_equal(waits_for_mail, 0);
    close(e.fds[0]);
    close(e.fds[1]);
}

/* ---- standing in line -------------------------------------------------------------------------------------------- */

static struct lag lag;

static void busy_for(ns_t t)
{
    ns_t until = loop_clock() + t;

    while (loop_clock() < until)
        ;
}

/* A probe that is under way when the loop is busy is as late as what arrives then. */
static void stand_in_line(void *arg)
{
    struct errinfo info;

    assert_int_equal(lag_look(&lag, loop_clock()), 0);      /* not open: nothing is known */
    assert_int_equal(lag_open(&lag, &info), OK);
    lag_look(&lag, loop_clock());
    busy_for(30 * NS_PER_MS);
    assert_true(lag_look(&lag, loop_clock()) >= 30 * NS_PER_MS);        /* not back yet, and that is how long */
    while (lag.under_way)
        assert_int_equal(await_sleep(loop_now() + NS_PER_MS), OK);
    assert_true(lag_look(&lag, loop_clock()) >= 30 * NS_PER_MS);
    while (lag.under_way || lag.last >= 30 * NS_PER_MS) {   /* the next one finds nobody before it */
        assert_int_equal(await_sleep(loop_now() + NS_PER_MS), OK);
        lag_look(&lag, loop_clock());
    }
    lag_close(&lag);
    loop_stop(loop_self());
}

static void start_line(void *arg)
{
    assert_non_null(task_spawn("line", stand_in_line, NULL));
}

static void what_stands_in_line_is_measured(void **state)
{
    run(start_line, NULL);
    assert_false(lag.open);
    assert_int_equal(lag_look(&lag, 0), 0);
}

/* ---- guards ------------------------------------------------------------------------------------------------------ */

/* Writes downwards page by page, as far as told; never so far as the stack of a neighbour ends. */
static void write_down(void *arg)
{
    volatile char *here = __builtin_frame_address(0);

    for (size_t at = 0; at < (size_t)(uintptr_t)arg; at += 1024)
        here[-(ptrdiff_t)at - 512] = 1;
    loop_stop(loop_self());
}

static void start_writing(void *arg)
{
    assert_non_null(task_spawn("writes down", write_down, arg));
}

/* How a child ends whose task writes so far down. */
static int child_writes(size_t bytes)
{
    pid_t child = fork();
    int status;

    assert_true(child >= 0);
    if (child == 0) {
        signal(SIGSEGV, SIG_DFL);       /* cmocka would go on with the next test */
        prctl(PR_SET_DUMPABLE, 0);
        run(start_writing, (void *)(uintptr_t)bytes);
        _exit(0);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    return status;
}

static void a_stack_that_overflows_faults(void **state)
{
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    skip();                             /* stacks are eight times as large, and a sanitizer has its own handler */
#endif
    assert_int_equal(child_writes(TASK_STACK_DEFAULT - 8192), 0);
    assert_true(WIFSIGNALED(child_writes(TASK_STACK_DEFAULT + 2048)));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sleeping_tasks_wake_in_order_and_never_early),
        cmocka_unit_test(thousands_of_tasks_live_at_once),
        cmocka_unit_test(the_limit_of_tasks_holds),
        cmocka_unit_test(registers_survive_switches),
        cmocka_unit_test(what_needs_a_deep_stack_has_the_loops),
        cmocka_unit_test(a_cancelled_task_returns_and_cleans_up),
        cmocka_unit_test(a_reference_to_an_ended_task_finds_nothing),
        cmocka_unit_test(a_multishot_receive_survives_running_out_of_buffers),
        cmocka_unit_test(a_taken_port_is_named),
        cmocka_unit_test(mail_arrives_once_and_in_order),
        cmocka_unit_test(what_blocks_runs_on_another_thread),
        cmocka_unit_test(no_job_stands_behind_one_that_blocks),
        cmocka_unit_test(a_loop_that_ends_sleeps_while_a_helper_works),
        cmocka_unit_test(a_loop_that_ends_takes_its_mail_at_once),
        cmocka_unit_test(a_task_mutex_admits_one),
        cmocka_unit_test(what_stands_in_line_is_measured),
        cmocka_unit_test(a_stack_that_overflows_faults),
    };

    return RUN_TWICE(tests);
}
