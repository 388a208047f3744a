/* Timing executions of plans. */
#ifndef NF_TOOLS_BENCH_TIME_H
#define NF_TOOLS_BENCH_TIME_H

#include "bench_case.h"

/* Times one direction of cases: repeats samples each, of many executions, taken from one case after another so that a
 * change of the machine's speed meets them all; the caches are warm. Returns NF_TOOL_OK with timing[direction - 1] of every
 * case filled, or NF_TOOL_BAD with the error printed. */
int bench_time(bench_case *const *cases, int count, nf_direction direction, int repeats);

#endif
