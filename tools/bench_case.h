/* One problem, planned for one algorithm and number of threads, and all that is measured of it. */
#ifndef NF_TOOLS_BENCH_CASE_H
#define NF_TOOLS_BENCH_CASE_H

#include "bench_check.h"
#include "stats.h"

typedef struct bench_timing {
    nf_tool_summary seconds; /* of one execution, over the samples kept */
    int kept, discarded;     /* samples; discarded while other processes used the machine */
    int busy;                /* samples kept all the same, because too few were quiet */
} bench_timing;

typedef struct bench_case {
    const char *problem;    /* canonical string, the caller's */
    const bench_data *data; /* the caller's; cases may share it */
    nf_context *context;
    nf_plan *plan;
    nf_plan_info info;
    bench_verdict verdict;
    size_t library_peak, process_growth; /* bytes beyond inputs and outputs, from plan to execution */
    double plan_seconds;                 /* of planning the same problem a second time */
    bench_timing timing[2];              /* by direction - 1 */
    bool by_device;                      /* the device's clock takes the times, and */
    nf_peak peak;                        /* its limits judge them */
} bench_case;

/* Plans problem and data, which are set, executes each direction once and measures memory. *done tells whether the
 * library can run it so; if it cannot, that is no error where backend and algo name one. Destroy the case in any event.
 */
int bench_case_create(bench_case *c, const char *preference, int64_t threads, const char *backend, const char *algo,
                      bool *done);
void bench_case_destroy(bench_case *c);

/* One execution; for NF_BWD, out and lse must hold forward's. timing: of its kernels, or NULL. */
nf_status bench_execute(const nf_plan *plan, const bench_data *data, nf_direction direction, nf_timing *timing);

#endif
