/* How bench reports: sentences for people, or comma-separated rows. */
#include "bench_print.h"

#include <stdio.h>
#include <string.h>

#include "peak.h"

static const double giga = 1e9, mebi = 1024 * 1024;

void bench_print_start(bool csv)
{
    if (csv)
        printf("problem,direction,backend,algo,kernel,threads,checked_by,checked_tensor,error,error_limit,median_s,"
               "minimum_s,maximum_s,samples,busy_samples,discarded,gflops,computed_per_useful,peak_gflops,"
               "peak_fraction,bandwidth_gbs,bandwidth_fraction,plan_bytes,workspace_bytes,library_peak_bytes,"
               "process_growth_bytes\n");
}

static double waste(const nf_plan_info *info)
{
    return info->useful_pairs > 0 ? info->computed_pairs / info->useful_pairs : 0;
}

void bench_print_case(bool csv, const bench_case *c)
{
    if (csv)
        return;
    const nf_plan_info *info = c->info;
    printf("%s\n  %s/%s%s%s, %lld thread%s; ", c->problem, info->backend, info->algo, *info->kernel ? "/" : "",
           info->kernel, (long long)info->threads, info->threads == 1 ? "" : "s");
    if (strcmp(c->verdict.method, "none") == 0)
        printf("not verified\n");
    else
        printf("%s by %s: %s off by %.1e, limit %.0e\n", c->verdict.passed ? "verified" : "WRONG", c->verdict.method,
               c->verdict.tensor, c->verdict.error, c->verdict.limit);
    printf("  computed/useful pairs %.2f; memory: plan %.2f MiB, workspace %.2f MiB, library peak %.2f MiB, "
           "process grew %.2f MiB\n",
           waste(info), (double)info->plan_bytes / mebi, (double)info->workspace_bytes / mebi,
           (double)c->library_peak / mebi, (double)c->process_growth / mebi);
    fflush(stdout);
}

void bench_print_timing(bool csv, const bench_case *c, nf_direction direction, const bench_timing *timing)
{
    const nf_plan_info *info = c->info;
    const bool forward = direction == NF_FWD;
    const double seconds = timing->seconds.median;
    const double flops = (forward ? info->forward_flops : info->backward_flops) / seconds;
    const double bytes = (forward ? info->tensor_bytes : bench_backward_bytes(c->data)) / seconds;
    const char *set;
    const double peak = nf_tool_peak_flops(info->kernel, c->data->problem.dtype, (int)info->threads, &set);
    const double bandwidth = nf_tool_peak_bandwidth((int)info->threads);
    const char *name = forward ? "fwd" : "bwd";
    if (csv) {
        printf("%s,%s,%s,%s,%s,%lld,%s,%s,%.3e,%.1e,%.6e,%.6e,%.6e,%d,%d,%d,%.3f,%.4f,%.2f,%.4f,%.2f,%.4f,%zu,%zu,%zu,"
               "%zu\n",
               c->problem, name, info->backend, info->algo, info->kernel, (long long)info->threads, c->verdict.method,
               c->verdict.tensor, c->verdict.error, c->verdict.limit, seconds, timing->seconds.minimum,
               timing->seconds.maximum, timing->kept, timing->busy, timing->discarded, flops / giga, waste(info),
               peak / giga, flops / peak, bandwidth / giga, bytes / bandwidth, info->plan_bytes,
               info->workspace_bytes, c->library_peak, c->process_growth);
    } else {
        printf("  %s %10.4f ms (%.4f .. %.4f) %8.2f GFLOP/s, %5.1f %% of the %s peak %.1f, %5.1f %% of %.1f GB/s; "
               "%d samples",
               name, 1e3 * seconds, 1e3 * timing->seconds.minimum, 1e3 * timing->seconds.maximum, flops / giga,
               100 * flops / peak, set, peak / giga, 100 * bytes / bandwidth, bandwidth / giga, timing->kept);
        if (timing->busy)
            printf(" (%d while other processes ran)", timing->busy);
        if (timing->discarded)
            printf(", %d discarded", timing->discarded);
        putchar('\n');
    }
    fflush(stdout);
}
