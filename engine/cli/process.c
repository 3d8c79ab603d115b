/* process.c -- what verbs that serve have in common: files, signals, the end */
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/log.h"
#include "cli/cli.h"
#include "cli/link.h"
#include "runtime/runtime.h"

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

bool engine_end(struct runtime *rt, const char *data)
{
    if (!runtime_drain(rt)) {
        fflush(stdout);
        LOG_ERROR("leaving the journal as it is; the next start recovers it", LOG_S("data", data));
        _exit(EXIT_UNABLE);
    }
    endpoint_remove(data);
    return runtime_stop(rt);
}
