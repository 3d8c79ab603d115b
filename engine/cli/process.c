/* process.c -- what verbs that serve set up once */
#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>

#include "cli/cli.h"

/* Thousands of calls are thousands of sockets: take what the hard limit gives. */
void files_raise(void)
{
    struct rlimit r;

    if (getrlimit(RLIMIT_NOFILE, &r) == 0 && r.rlim_cur < r.rlim_max) {
        r.rlim_cur = r.rlim_max;
        setrlimit(RLIMIT_NOFILE, &r);
    }
}

void signals_take(sigset_t *ret)
{
    sigemptyset(ret);
    sigaddset(ret, SIGTERM);
    sigaddset(ret, SIGINT);
    sigaddset(ret, SIGHUP);
    pthread_sigmask(SIG_BLOCK, ret, NULL);
}
