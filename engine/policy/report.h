/*
 * report.h -- adding findings to a report (room-private)
 */
#ifndef POLICY_REPORT_H
#define POLICY_REPORT_H

#include "policy/schema.h"

/* Adds a copy of `f` with the text formatted; one that is there already, text and place, is not added again. */
void report_add(struct policy_report *r, const struct policy_finding *f, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

#endif
