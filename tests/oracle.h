/* What the tests of masks compare with: visibility pair by pair from doc/semantics.md, and random problems. */
#ifndef NF_TESTS_ORACLE_H
#define NF_TESTS_ORACLE_H

#include <stdbool.h>

#include "nearfield.h"

/* Whether a query token sees a key token on one axis, key range included, query range not. */
bool oracle_sees(const nf_axis *axis, int64_t query, int64_t key);

/* Token ranges of an axis that tensors hold. */
int64_t oracle_query_begin(const nf_axis *axis);
int64_t oracle_query_count(const nf_axis *axis);
int64_t oracle_key_begin(const nf_axis *axis);
int64_t oracle_key_count(const nf_axis *axis);

/* splitmix64: the same numbers on every machine. */
uint64_t oracle_random(uint64_t *seed);
int64_t oracle_between(uint64_t *seed, int64_t low, int64_t high); /* both ends included */
double oracle_uniform(uint64_t *seed);                             /* in [-1, 1) */

/* A valid axis of at most longest tokens: any window, stride, dilation and causality, often with ranges. */
nf_axis oracle_axis(uint64_t *seed, int64_t longest);
/* Rank 1 only: keys differ from queries. */
nf_axis oracle_cross_axis(uint64_t *seed, int64_t longest);

#endif
