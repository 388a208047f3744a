/* Timing: a monotonic clock, order statistics, and whether other processes used the processors meanwhile. */
#include "stats.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static double seconds(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

double nf_tool_now(void)
{
    return seconds(CLOCK_MONOTONIC);
}

double nf_tool_thread_seconds(void)
{
    return seconds(CLOCK_THREAD_CPUTIME_ID);
}

static int compare(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

nf_tool_summary nf_tool_summarize(double *samples, size_t count)
{
    qsort(samples, count, sizeof(*samples), compare);
    return (nf_tool_summary){.median = 0.5 * (samples[(count - 1) / 2] + samples[count / 2]),
                             .minimum = samples[0],
                             .maximum = samples[count - 1]};
}

/* The first line of /proc/stat: user nice system idle iowait irq softirq steal, in ticks of all processors together. */
static double busy_seconds(void)
{
    FILE *file = fopen("/proc/stat", "r");
    if (!file)
        return -1;
    unsigned long long user, nice, system, idle, wait, irq, soft, steal;
    const int read = fscanf(file, "cpu %llu %llu %llu %llu %llu %llu %llu %llu", &user, &nice, &system, &idle, &wait,
                            &irq, &soft, &steal);
    fclose(file);
    if (read != 8)
        return -1;
    return (double)(user + nice + system + irq + soft + steal) / (double)sysconf(_SC_CLK_TCK);
}

nf_tool_load nf_tool_load_now(void)
{
    return (nf_tool_load){.wall = nf_tool_now(), .everyone = busy_seconds(), .ours = seconds(CLOCK_PROCESS_CPUTIME_ID)};
}

bool nf_tool_was_quiet(const nf_tool_load *before, const nf_tool_load *after)
{
    if (before->everyone < 0 || after->everyone < 0)
        return true;
    const double processors = (double)sysconf(_SC_NPROCESSORS_ONLN), tick = 1 / (double)sysconf(_SC_CLK_TCK);
    const double others = (after->everyone - before->everyone) - (after->ours - before->ours);
    return others <= processors * (0.05 * (after->wall - before->wall) + tick);
}
