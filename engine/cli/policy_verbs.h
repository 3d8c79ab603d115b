/*
 * policy_verbs.h -- what stands behind `sluice policy`: one function per word, argv[0] being that word
 */
#ifndef CLI_POLICY_VERBS_H
#define CLI_POLICY_VERBS_H

int policy_check(int argc, char **argv);
/* Answers the exit codes of the reference implementation's command: 0 allow, 2 deny, 1 neither could be said. */
int policy_authorize(int argc, char **argv);
/* The same options; also --all. */
int policy_explain_verb(int argc, char **argv);
/* 0 no flips, 2 flips, 1 it could not be done. */
int policy_replay(int argc, char **argv);
/* What the candidates of the time would have decided otherwise; the same exit codes. */
int policy_flips(int argc, char **argv);
/* explain with --call. */
int policy_explain_call(int argc, char **argv);
int policy_test(int argc, char **argv);
int policy_schema(int argc, char **argv);

struct buf;
/* Adds the schema that is made for a configuration (NULL: the default one); its policies are not read. An exit code. */
int policy_vocabulary(const char *config, struct buf *out);

#endif
