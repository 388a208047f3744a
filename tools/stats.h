/* Timing: a monotonic clock, order statistics, and whether other processes used the processors meanwhile. */
#ifndef NF_TOOLS_STATS_H
#define NF_TOOLS_STATS_H

#include <stdbool.h>
#include <stddef.h>

typedef struct nf_tool_summary {
    double median, minimum, maximum;
} nf_tool_summary;

/* Seconds since some fixed moment. */
double nf_tool_now(void);
/* Seconds of processor time that the calling thread has had. */
double nf_tool_thread_seconds(void);

/* Sorts the samples; count >= 1. */
nf_tool_summary nf_tool_summarize(double *samples, size_t count);

/* Processor seconds spent so far: by everyone, as /proc/stat counts them (negative where there is none), and by us. */
typedef struct nf_tool_load {
    double wall, everyone, ours;
} nf_tool_load;

nf_tool_load nf_tool_load_now(void);

/* False if other processes took more than a twentieth of the machine between two moments, beyond what the granularity
 * of /proc/stat explains. */
bool nf_tool_was_quiet(const nf_tool_load *before, const nf_tool_load *after);

#endif
