/* Is a result right? Judged before it is timed: against the reference backend where that takes seconds, else by sampled
 * rows, and by the sums that dk and dv must have. */
#ifndef NF_TOOLS_BENCH_CHECK_H
#define NF_TOOLS_BENCH_CHECK_H

#include "bench_data.h"

typedef struct bench_verdict {
    const char *method; /* "reference", "samples" or "none" */
    const char *tensor; /* the one nearest its limit, or beyond it */
    double error, limit; /* root mean square relative to the truth's */
    bool passed;
} bench_verdict;

/* Judges the outputs in data, of a problem with this many visible pairs. Returns NF_TOOL_OK with *verdict filled, or
 * NF_TOOL_BAD with the error printed. */
int bench_check(const bench_data *data, double pairs, bench_verdict *verdict);

#endif
