/* What follows from a topology, however it was read: topo_hwloc.c, topo_system.c. */
#include "core/topo.h"

#include <inttypes.h>
#include <math.h>

#include "core/topo_read.h"

void nf_topology_detect(nf_topology *topology)
{
    if (!nf_topology_read_hwloc(topology))
        nf_topology_read_system(topology);
    topology->quota = nf_topology_read_quota("");
    topology->gpu = nf_topology_read_gpu("");
}

int64_t nf_topology_default_threads(const nf_topology *topology)
{
    if (topology->quota > 0 && topology->quota < (double)topology->cores)
        return (int64_t)ceil(topology->quota);
    return topology->cores;
}

static void describe_bytes(nf_text *text, int64_t bytes)
{
    if (bytes >= INT64_C(1) << 30)
        nf_text_printf(text, "%.1f GiB", (double)bytes / (1 << 30));
    else if (bytes >= 1 << 20)
        nf_text_printf(text, "%.4g MiB", (double)bytes / (1 << 20));
    else
        nf_text_printf(text, "%.4g KiB", (double)bytes / (1 << 10));
}

void nf_topology_describe(const nf_topology *topology, nf_text *text)
{
    nf_text_printf(text, "machine: %s (read through %s)\n", topology->machine, topology->source);
    nf_text_printf(text, "cores: %" PRId64 ", hardware threads %" PRId64 ", memory nodes %" PRId64, topology->cores,
                   topology->pus, topology->numa_nodes);
    if (topology->quota > 0)
        nf_text_printf(text, ", processor time for %.4g", topology->quota);
    if (topology->memory_bytes) {
        nf_text_printf(text, ", ");
        describe_bytes(text, topology->memory_bytes);
    }
    nf_text_printf(text, "\ncaches:");
    const char *separator = " ";
    for (int i = 0; i < NF_CACHE_LEVELS; i++) {
        const nf_cache *cache = &topology->cache[i];
        if (!cache->bytes)
            continue;
        nf_text_printf(text, "%sL%d ", separator, i + 1);
        describe_bytes(text, cache->bytes);
        nf_text_printf(text, " for %" PRId64 " core%s", cache->cores, cache->cores == 1 ? "" : "s");
        separator = ", ";
    }
    nf_text_printf(text, "%s\n", separator[0] == ',' ? "" : " unknown");
}
