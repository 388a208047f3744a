/* Judging a problem that is too large for the reference backend by parts of it. */
#ifndef NF_TOOLS_BENCH_SAMPLE_H
#define NF_TOOLS_BENCH_SAMPLE_H

#include "bench_check.h"

/* Compares rows of out, lse and dq of a few queries, and of dk and dv of a few keys where that takes seconds, with the
 * reference; and the sums that dk and dv have with those of dq and out. Returns NF_TOOL_OK, or NF_TOOL_BAD with the
 * error printed. */
int bench_check_samples(nf_context *context, const bench_data *data, bench_verdict *verdict);

#endif
