/* The machine as far as it matters here: cores this process may use, caches, memory nodes. Read through hwloc where the
 * build has it, else from the operating system. */
#ifndef NF_CORE_TOPO_H
#define NF_CORE_TOPO_H

#include <stdbool.h>

#include "core/text.h"
#include "nearfield.h"

enum { NF_CACHE_LEVELS = 3 };

typedef struct nf_cache {
    int64_t bytes;      /* of one cache of this level (L1: data); 0 if unknown or absent */
    int64_t line_bytes; /* 0 if unknown */
    int64_t cores;      /* that share one */
} nf_cache;

typedef struct nf_topology {
    char source[8]; /* "hwloc" or "system" */
    char machine[128];
    int64_t cores; /* with at least one hardware thread this process may run on, >= 1 */
    int64_t pus;   /* hardware threads this process may run on, >= 1 */
    int64_t numa_nodes;
    int64_t memory_bytes;            /* 0 if unknown */
    double quota;                    /* processors' worth of time the control group grants; 0: no limit */
    nf_cache cache[NF_CACHE_LEVELS]; /* L1 first */
    bool gpu;                        /* there are device files of one */
} nf_topology;

/* Where a device sits on the PCI bus. */
typedef struct nf_pci_address {
    unsigned domain, bus, device, function;
} nf_pci_address;

/* The memory node nearest to a device, by its operating system number; -1 if that is unknown, as it is without hwloc.
 * Looks at the machine anew: the buses are no part of a topology. */
int64_t nf_topology_pci_node(const nf_pci_address *address);

/* The same on a machine saved by lstopo. */
int64_t nf_topology_pci_node_xml(const char *path, const nf_pci_address *address);

/* Never fails: what cannot be found out stays 0, or 1 for counts. */
void nf_topology_detect(nf_topology *topology);

/* Reads a machine saved by lstopo. NF_ERR_UNSUPPORTED without hwloc, NF_ERR_ARGUMENT for a file that is none. */
nf_status nf_topology_load_xml(nf_topology *topology, const char *path);

/* The processor time limit that files under root ("" for this machine) grant this process; 0: none. */
double nf_topology_read_quota(const char *root);

/* Whether the files under root are those of a machine with a GPU. */
bool nf_topology_read_gpu(const char *root);

/* One thread per core, but no more than the quota, rounded up. */
int64_t nf_topology_default_threads(const nf_topology *topology);

void nf_topology_describe(const nf_topology *topology, nf_text *text);

#endif
