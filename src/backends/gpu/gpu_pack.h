/* The tables of a plan: gpu_tables.h filled in. */
#ifndef NF_GPU_PACK_H
#define NF_GPU_PACK_H

#include "backends/gpu/gpu_plan.h"
#include "backends/gpu/gpu_tables.h"

/* Starts tables with everything that follows from the problem and the layout; walks and scratch are still missing.
 * extra_ints: of int32 that will be appended. */
typedef struct gpu_packer {
    int64_t *header;
    int32_t *ints;
    int64_t used, capacity; /* of ints, the header's included */
} gpu_packer;

nf_status gpu_pack_begin(gpu_packer *packer, const nf_request *request, const nf_tensor layout[NF_ROLES],
                         const nf_work *by_query, const nf_work *by_key);

/* Appends a walk. at: GPU_BY_QUERY or GPU_BY_KEY. */
void gpu_pack_walk(gpu_packer *packer, const nf_work *work, int at);

#endif
