/*
 * tour.h -- the story `sluice tour` tells: a running engine and a sandbox are given
 */
#ifndef CLI_TOUR_H
#define CLI_TOUR_H

#include "cli/link.h"

#define TOUR_TENANT "demo"
#define TOUR_USER   "alice@demo.example"
#define TOUR_AGENT  "demo-agent"
#define TOUR_OTHER_AGENT "reading-agent"

struct tour {
    struct link *link;              /* authorized as user and agent of the demo */
    const char *other_authorization;/* the same user through TOUR_OTHER_AGENT */
    const char *sandbox;            /* "http://127.0.0.1:7412" */
    const char *journal;            /* directory */
    const char *audit_options;      /* what `sluice audit` needs beside, with a blank in front */
    bool (*interrupted)(void);
};

/* Tells it on stdout. True: every step went as it should. */
bool tour_story(const struct tour *t);

#endif
