/* What every way of judging a result shares: errors, limits, and the reference backend. */
#ifndef NF_TOOLS_BENCH_JUDGE_H
#define NF_TOOLS_BENCH_JUDGE_H

#include "bench_check.h"

/* Sums of squares of a difference and of the truth. */
typedef struct bench_squares {
    double difference, truth, count;
} bench_squares;

void bench_add_element(bench_squares *s, double got, double want);
double bench_relative_error(const bench_squares *s);

/* Norm-wise limit of a tensor. */
double bench_limit(nf_dtype dtype, nf_role role);

/* Records an error; the verdict keeps the one nearest its limit. NaN never passes. */
void bench_judge(bench_verdict *verdict, const char *tensor, double error, double limit);

/* Runs the reference backend on a problem and its tensors; backward NULL: forward only. */
int bench_run_reference(nf_context *context, const nf_problem *problem, const nf_io *forward, const nf_io *backward);

#endif
