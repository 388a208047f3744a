/* The two ways to read a topology. */
#ifndef NF_CORE_TOPO_READ_H
#define NF_CORE_TOPO_READ_H

#include <stdbool.h>

#include "core/topo.h"

/* Through hwloc; false, and nothing written, if the build has none or it failed. */
bool nf_topology_read_hwloc(nf_topology *topology);

/* From the operating system alone. */
void nf_topology_read_system(nf_topology *topology);

#endif
