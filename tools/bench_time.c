/* Timing executions of a plan, and what they cost in memory. */
#include "bench_time.h"

#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const self = "bench";
static const double sample_seconds = 0.1;
enum { MOST_TRIES = 3, MOST_CALLS = 1000000 };

nf_status bench_execute(const nf_plan *plan, const bench_data *data, nf_direction direction)
{
    if (direction == NF_BWD)
        return nf_backward(plan, &data->io, NULL);
    const nf_io io = bench_forward_io(data);
    return nf_forward(plan, &io, NULL);
}

/* Seconds per execution of calls in a row; negative after a failure. */
static double time_calls(const nf_plan *plan, const bench_data *data, nf_direction direction, int64_t calls)
{
    const double start = nf_tool_now();
    for (int64_t i = 0; i < calls; i++)
        if (bench_execute(plan, data, direction) != NF_OK)
            return -1;
    return (nf_tool_now() - start) / (double)calls;
}

/* Quiet samples are collected from the front of the array, busy ones from its back. */
static int collect(const nf_plan *plan, const bench_data *data, nf_direction direction, int repeats, double *samples,
                   bench_timing *timing)
{
    const double once = time_calls(plan, data, direction, 1);
    int64_t calls = once > 0 ? (int64_t)(sample_seconds / once) : MOST_CALLS;
    calls = calls < 1 ? 1 : calls > MOST_CALLS ? MOST_CALLS : calls;
    const int most = repeats * MOST_TRIES;
    int quiet = 0, busy = 0;
    while (quiet < repeats && quiet + busy < most) {
        const nf_tool_load before = nf_tool_load_now();
        const double seconds = time_calls(plan, data, direction, calls);
        const nf_tool_load after = nf_tool_load_now();
        if (seconds < 0)
            return nf_tool_fail_status(self, "execution failed");
        if (nf_tool_was_quiet(&before, &after))
            samples[quiet++] = seconds;
        else
            samples[most - ++busy] = seconds;
    }
    timing->busy = quiet < repeats ? (busy < repeats - quiet ? busy : repeats - quiet) : 0;
    memmove(samples + quiet, samples + most - timing->busy, (size_t)timing->busy * sizeof(*samples));
    timing->kept = quiet + timing->busy;
    timing->discarded = busy - timing->busy;
    timing->seconds = nf_tool_summarize(samples, (size_t)timing->kept);
    return NF_TOOL_OK;
}

int bench_time(const nf_plan *plan, const bench_data *data, nf_direction direction, int repeats, bench_timing *timing)
{
    *timing = (bench_timing){0};
    double *samples = malloc((size_t)repeats * MOST_TRIES * sizeof(*samples));
    if (!samples)
        return nf_tool_error(self, "out of memory for %d samples", repeats);
    const int status = collect(plan, data, direction, repeats, samples, timing);
    free(samples);
    return status;
}

/* A line of /proc/self/status, in bytes. */
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

size_t bench_resident_bytes(void)
{
    return read_status("VmRSS:");
}

size_t bench_peak_bytes(void)
{
    return read_status("VmHWM:");
}

/* Pages that malloc keeps for later would hide what a plan allocates, so they go first. */
void bench_reset_peak(void)
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
