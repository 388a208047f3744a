/* Planning a case and measuring what it costs in memory. */
#include "bench_case.h"

#include <malloc.h>
#include <stdio.h>
#include <string.h>

static const char *const self = "bench";

nf_status bench_execute(const nf_plan *plan, const bench_data *data, nf_direction direction, nf_timing *timing)
{
    nf_exec exec;
    nf_exec_init(&exec);
    exec.timing = timing;
    if (direction == NF_BWD)
        return nf_backward(plan, &data->io, &exec);
    const nf_io io = bench_forward_io(data);
    return nf_forward(plan, &io, &exec);
}

/* A line of /proc/self/status, in bytes; 0 where there is none. */
static size_t read_status(const char *key)
{
    FILE *file = fopen("/proc/self/status", "r");
    if (!file)
        return 0;
    char line[128];
    unsigned long long kibibytes = 0;
    const size_t length = strlen(key);
    while (fgets(line, sizeof(line), file))
        if (strncmp(line, key, length) == 0)
            sscanf(line + length, " %llu", &kibibytes);
    fclose(file);
    return (size_t)kibibytes * 1024;
}

/* Pages that malloc keeps for later would hide what a plan allocates, so they go first. */
static void reset_peak(void)
{
#if defined(__GLIBC__)
    malloc_trim(0);
#endif
    FILE *file = fopen("/proc/self/clear_refs", "w");
    if (!file)
        return;
    fputs("5", file);
    fclose(file);
}

/* Backward starts from forward's out and lse. A problem of backward alone has no plan that computes them, so they come
 * from another plan, of a context whose memory is not the case's. */
static nf_status start_from_forward(const bench_data *data)
{
    nf_problem problem = data->problem;
    if (problem.direction != NF_BWD)
        return NF_OK;
    problem.direction = NF_FWD;
    nf_context *context = NULL;
    nf_plan *plan = NULL;
    nf_status status = nf_context_create(&context, NULL);
    if (status == NF_OK)
        status = nf_plan_create(&plan, context, &problem, NULL);
    if (status == NF_OK)
        status = bench_execute(plan, data, NF_FWD, NULL);
    nf_plan_destroy(plan);
    nf_context_destroy(context);
    return status;
}

/* Library memory and the process's growth, from before the plan to after one execution of each direction. */
static nf_status plan_and_warm(bench_case *c, const nf_plan_options *options)
{
    reset_peak();
    const size_t before = read_status("VmRSS:");
    nf_status status = nf_plan_create(&c->plan, c->context, &c->data->problem, options);
    if (status == NF_OK && c->data->problem.direction != NF_BWD)
        status = bench_execute(c->plan, c->data, NF_FWD, NULL);
    if (status == NF_OK && c->data->io.dout)
        status = bench_execute(c->plan, c->data, NF_BWD, NULL);
    size_t current;
    const size_t peak = read_status("VmHWM:");
    nf_context_memory(c->context, &current, &c->library_peak);
    c->process_growth = peak > before ? peak - before : 0;
    return status;
}

static nf_status plan_again(bench_case *c, const nf_plan_options *options)
{
    nf_plan *plan = NULL;
    const double start = nf_tool_now();
    const nf_status status = nf_plan_create(&plan, c->context, &c->data->problem, options);
    c->plan_seconds = nf_tool_now() - start;
    nf_plan_destroy(plan);
    return status;
}

/* A backend whose device can be measured has a clock of its own. */
static nf_status find_clock(bench_case *c)
{
    c->peak = (nf_peak){.size = sizeof(c->peak)};
    const nf_status status = nf_backend_peak(c->context, c->info.backend, c->data->problem.dtype, &c->peak);
    c->by_device = status == NF_OK;
    return status == NF_ERR_UNSUPPORTED ? NF_OK : status;
}

int bench_case_create(bench_case *c, const char *preference, int64_t threads, const char *backend, const char *algo,
                      bool *done)
{
    *done = false;
    c->context = nf_tool_context(self, preference, threads);
    if (!c->context)
        return NF_TOOL_BAD;
    nf_plan_options options;
    nf_plan_options_init(&options);
    options.backend = backend;
    options.algo = algo;
    c->info = (nf_plan_info){.size = sizeof(c->info)};
    c->verdict = (bench_verdict){.method = "none", .tensor = "", .passed = true};
    nf_status made = start_from_forward(c->data);
    if (made == NF_OK)
        made = plan_and_warm(c, &options);
    if (made == NF_OK)
        made = plan_again(c, &options);
    *done = made == NF_OK && nf_plan_get_info(c->plan, &c->info) == NF_OK;
    if (*done && find_clock(c) != NF_OK) {
        *done = false;
        return nf_tool_fail_status(self, "%s: the device's limits", c->problem);
    }
    if (*done || (backend && made == NF_ERR_UNSUPPORTED))
        return NF_TOOL_OK;
    return nf_tool_fail_status(self, "%s", c->problem);
}

void bench_case_destroy(bench_case *c)
{
    nf_plan_destroy(c->plan);
    nf_context_destroy(c->context);
    c->plan = NULL;
    c->context = NULL;
}
