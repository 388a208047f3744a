/* How bench reports: sentences for people, or comma-separated rows. */
#include "bench_print.h"

#include <stdio.h>
#include <string.h>

#include "elements.h"
#include "peak.h"

static const double giga = 1e9, mebi = 1024 * 1024;

void bench_print_start(bool csv)
{
    if (csv)
        printf("problem,direction,backend,algo,kernel,threads,checked_by,checked_tensor,error,error_limit,median_s,"
               "minimum_s,maximum_s,samples,busy_samples,discarded,gflops,computed_per_useful,peak_gflops,"
               "peak_fraction,bandwidth_gbs,bandwidth_fraction,plan_bytes,workspace_bytes,library_peak_bytes,"
               "process_growth_bytes,plan_s,floor_s,stream_s,clock,peak_basis,computed_gflops\n");
}

static double waste(const nf_plan_info *info)
{
    return info->useful_pairs > 0 ? info->computed_pairs / info->useful_pairs : 0;
}

void bench_print_algorithms(FILE *stream, const nf_plan_info *info)
{
    fprintf(stream, "%s/%s%s%s", info->backend, info->algo, *info->kernel ? "/" : "", info->kernel);
    if (*info->backward_algo && strcmp(info->algo, info->backward_algo) != 0)
        fprintf(stream, ", backward %s", info->backward_algo);
}

void bench_print_case(bool csv, const bench_case *c)
{
    if (csv)
        return;
    const nf_plan_info *info = &c->info;
    printf("%s\n  ", c->problem);
    bench_print_algorithms(stdout, info);
    printf(", %lld thread%s; ", (long long)info->threads, info->threads == 1 ? "" : "s");
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

/* What one execution moves and how fast the machine could do it. */
typedef struct limits {
    double flops, bytes;
    double peak, bandwidth; /* per second */
    double stream_seconds;  /* of reading the inputs and writing the outputs */
    const char *set;
} limits;

static limits limits_of(const bench_case *c, nf_direction direction)
{
    const nf_plan_info *info = &c->info;
    const int threads = (int)info->threads;
    limits l = {.flops = direction == NF_FWD ? info->forward_flops : info->backward_flops};
    const nf_io forward = bench_forward_io(c->data);
    const nf_io *io = direction == NF_FWD ? &forward : &c->data->io;
    double moved[2] = {0};
    for (int role = 0; role < NF_ROLES; role++) {
        const nf_tensor *tensor = *nf_tool_io_slot((nf_io *)io, (nf_role)role);
        const bool written = bench_is_output((nf_role)role) && (direction == NF_FWD || role >= NF_DQ);
        if (tensor)
            moved[written] += (double)nf_tool_tensor_bytes(tensor);
    }
    l.bytes = direction == NF_FWD ? info->tensor_bytes : moved[0] + moved[1];
    if (c->by_device) {
        l.peak = c->peak.flops;
        l.set = c->peak.basis;
        l.bandwidth = c->peak.bandwidth;
        l.stream_seconds = (moved[0] + moved[1]) / l.bandwidth;
        return l;
    }
    l.bandwidth = nf_tool_peak_bandwidth(threads);
    l.stream_seconds = nf_tool_stream_seconds((size_t)moved[0], (size_t)moved[1], threads);
    l.peak = nf_tool_peak_flops(info->kernel, c->data->problem.dtype, threads, &l.set);
    return l;
}

void bench_print_timing(bool csv, const bench_case *c, nf_direction direction)
{
    const nf_plan_info *info = &c->info;
    const bench_timing *timing = &c->timing[direction - 1];
    const limits l = limits_of(c, direction);
    const double seconds = timing->seconds.median;
    const double rate = l.flops / seconds, compute_seconds = l.flops / l.peak;
    const double floor_seconds = compute_seconds > l.stream_seconds ? compute_seconds : l.stream_seconds;
    const char *name = direction == NF_FWD ? "fwd" : "bwd";
    if (csv) {
        printf("%s,%s,%s,%s,%s,%lld,%s,%s,%.3e,%.1e,%.6e,%.6e,%.6e,%d,%d,%d,%.3f,%.4f,%.2f,%.4f,%.2f,%.4f,%zu,%zu,%zu,"
               "%zu,%.3e,%.3e,%.3e,%s,%s,%.3f\n",
               c->problem, name, info->backend, direction == NF_FWD ? info->algo : info->backward_algo, info->kernel,
               (long long)info->threads, c->verdict.method, c->verdict.tensor, c->verdict.error, c->verdict.limit,
               seconds, timing->seconds.minimum, timing->seconds.maximum, timing->kept, timing->busy, timing->discarded,
               rate / giga, waste(info), l.peak / giga, rate / l.peak, l.bandwidth / giga,
               l.bytes / seconds / l.bandwidth, info->plan_bytes, info->workspace_bytes, c->library_peak,
               c->process_growth, c->plan_seconds, floor_seconds, l.stream_seconds, c->by_device ? "device" : "host",
               l.set, rate / giga * waste(info));
    } else {
        printf("  %s %10.4f ms (%.4f .. %.4f) %8.2f GFLOP/s", name, 1e3 * seconds, 1e3 * timing->seconds.minimum,
               1e3 * timing->seconds.maximum, rate / giga);
        if (c->by_device)
            printf(" by the device's clock, %.2f computed", rate / giga * waste(info));
        printf(", %5.1f %% of the %s peak %.1f, %5.1f %% of %.1f GB/s; floor %.4f ms; %d samples", 100 * rate / l.peak,
               l.set, l.peak / giga, 100 * l.bytes / seconds / l.bandwidth, l.bandwidth / giga, 1e3 * floor_seconds,
               timing->kept);
        if (timing->discarded)
            printf(", %d discarded", timing->discarded);
        if (timing->busy)
            printf(", %d of them while other processes ran", timing->busy);
        putchar('\n');
    }
    fflush(stdout);
}
