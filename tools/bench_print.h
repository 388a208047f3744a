/* How bench reports: sentences for people, or comma-separated rows. */
#ifndef NF_TOOLS_BENCH_PRINT_H
#define NF_TOOLS_BENCH_PRINT_H

#include <stdio.h>

#include "bench_case.h"

/* Once, first of all. */
void bench_print_start(bool csv);
/* Once per case, after the check. */
void bench_print_case(bool csv, const bench_case *c);
/* Once per case and direction, after the timing. */
void bench_print_timing(bool csv, const bench_case *c, nf_direction direction);

/* "cpu/stencil/avx2, backward tile". */
void bench_print_algorithms(FILE *stream, const nf_plan_info *info);

#endif
