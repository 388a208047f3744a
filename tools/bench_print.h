/* How bench reports: sentences for people, or comma-separated rows. */
#ifndef NF_TOOLS_BENCH_PRINT_H
#define NF_TOOLS_BENCH_PRINT_H

#include "bench_check.h"
#include "bench_time.h"

/* What is known of one problem and algorithm. */
typedef struct bench_case {
    const char *problem; /* canonical string */
    const bench_data *data;
    const nf_plan_info *info;
    bench_verdict verdict;
    size_t library_peak, process_growth; /* bytes beyond inputs and outputs, from plan to execution */
} bench_case;

/* Once, first of all. */
void bench_print_start(bool csv);
/* Once per problem and algorithm, after the check. */
void bench_print_case(bool csv, const bench_case *c);
/* Once per direction. */
void bench_print_timing(bool csv, const bench_case *c, nf_direction direction, const bench_timing *timing);

#endif
