/*
 * policy_verbs.h -- what stands behind `sluice policy`: one function per word, argv[0] being that word
 */
#ifndef CLI_POLICY_VERBS_H
#define CLI_POLICY_VERBS_H

int policy_test(int argc, char **argv);

#endif
