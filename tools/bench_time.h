/* Timing executions of a plan, and what they cost in memory. */
#ifndef NF_TOOLS_BENCH_TIME_H
#define NF_TOOLS_BENCH_TIME_H

#include "bench_data.h"
#include "stats.h"

typedef struct bench_timing {
    nf_tool_summary seconds; /* of one execution, over the samples kept */
    int kept, discarded;     /* samples; discarded while other processes used the machine */
    int busy;                /* samples kept all the same, because too few were quiet */
} bench_timing;

/* Times one direction, at least repeats samples of many executions each; the caches are warm. Returns NF_TOOL_OK, or
 * NF_TOOL_BAD with the error printed. */
int bench_time(const nf_plan *plan, const bench_data *data, nf_direction direction, int repeats, bench_timing *timing);

/* One execution; for NF_BWD, out and lse must hold forward's. */
nf_status bench_execute(const nf_plan *plan, const bench_data *data, nf_direction direction);

/* Bytes of this process that are in memory now, and the most since bench_reset_peak. 0 where /proc does not say. */
size_t bench_resident_bytes(void);
size_t bench_peak_bytes(void);
void bench_reset_peak(void);

#endif
