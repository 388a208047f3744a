/* Timing executions of plans. */
#include "bench_time.h"

#include <stdlib.h>
#include <string.h>

static const char *const self = "bench";
static const double sample_seconds = 0.1;
enum { MOST_TRIES = 3, MOST_CALLS = 1000000 };

/* Seconds of one case: quiet samples are collected from the front of the array, busy ones from its back. */
typedef struct sampler {
    const bench_case *c;
    double *samples;
    int64_t calls; /* per sample */
    int wanted, most, quiet, busy;
} sampler;

/* Seconds per execution of calls in a row; negative after a failure. A device repeats one call's kernels, so that
 * copies are left out. */
static double time_calls(const bench_case *c, nf_direction direction, int64_t calls)
{
    nf_timing timing = {.runs = calls};
    const double start = nf_tool_now();
    for (int64_t i = 0; i < (c->by_device ? 1 : calls); i++)
        if (bench_execute(c->plan, c->data, direction, c->by_device ? &timing : NULL) != NF_OK)
            return -1;
    return c->by_device ? timing.seconds : (nf_tool_now() - start) / (double)calls;
}

static int start(sampler *s, const bench_case *c, nf_direction direction, int repeats)
{
    *s = (sampler){.c = c, .wanted = repeats, .most = repeats * MOST_TRIES};
    s->samples = malloc((size_t)s->most * sizeof(*s->samples));
    if (!s->samples)
        return nf_tool_error(self, "out of memory for %d samples", repeats);
    const double once = time_calls(c, direction, 1);
    s->calls = once > 0 ? (int64_t)(sample_seconds / once) : MOST_CALLS;
    s->calls = s->calls < 1 ? 1 : s->calls > MOST_CALLS ? MOST_CALLS : s->calls;
    return NF_TOOL_OK;
}

static bool is_complete(const sampler *s)
{
    return s->quiet == s->wanted || s->quiet + s->busy == s->most;
}

static int take(sampler *s, nf_direction direction)
{
    const nf_tool_load before = nf_tool_load_now();
    const double seconds = time_calls(s->c, direction, s->calls);
    const nf_tool_load after = nf_tool_load_now();
    if (seconds < 0)
        return nf_tool_fail_status(self, "%s: execution failed", s->c->problem);
    if (nf_tool_was_quiet(&before, &after))
        s->samples[s->quiet++] = seconds;
    else
        s->samples[s->most - ++s->busy] = seconds;
    return NF_TOOL_OK;
}

static bench_timing finish(sampler *s)
{
    const int missing = s->wanted - s->quiet;
    bench_timing timing = {.busy = missing < s->busy ? missing : s->busy};
    memmove(s->samples + s->quiet, s->samples + s->most - timing.busy, (size_t)timing.busy * sizeof(*s->samples));
    timing.kept = s->quiet + timing.busy;
    timing.discarded = s->busy - timing.busy;
    timing.seconds = nf_tool_summarize(s->samples, (size_t)timing.kept);
    return timing;
}

static int take_all(sampler *samplers, int count, nf_direction direction)
{
    for (bool complete = false; !complete;) {
        complete = true;
        for (int i = 0; i < count; i++) {
            if (is_complete(&samplers[i]))
                continue;
            if (take(&samplers[i], direction))
                return NF_TOOL_BAD;
            complete = false;
        }
    }
    return NF_TOOL_OK;
}

int bench_time(bench_case *const *cases, int count, nf_direction direction, int repeats)
{
    sampler *samplers = calloc((size_t)count, sizeof(*samplers));
    if (!samplers)
        return nf_tool_error(self, "out of memory for %d cases", count);
    int status = NF_TOOL_OK;
    for (int i = 0; i < count && status == NF_TOOL_OK; i++)
        status = start(&samplers[i], cases[i], direction, repeats);
    if (status == NF_TOOL_OK)
        status = take_all(samplers, count, direction);
    for (int i = 0; i < count; i++) {
        if (status == NF_TOOL_OK)
            cases[i]->timing[direction - 1] = finish(&samplers[i]);
        free(samplers[i].samples);
    }
    free(samplers);
    return status;
}
