/* The tables of a plan: gpu_tables.h filled in. */
#ifndef NF_GPU_PACK_H
#define NF_GPU_PACK_H

#include "backends/gpu/gpu_plan.h"
#include "backends/gpu/gpu_tables.h"

/* Tables being filled. */
typedef struct gpu_packer {
    int64_t *header;
    int32_t *ints;          /* the same memory */
    int64_t used, capacity; /* of ints, the header's included */
    int32_t rank;           /* of the program */
} gpu_packer;

/* Starts tables with all that follows from the problem and the layout, and room for so many ints. What says how scratch
 * memory is laid out stays 0. header is the caller's to release. rank is the program's: the axes that it has beyond the
 * problem's hold one token. */
nf_status gpu_pack_begin(gpu_packer *packer, const nf_request *request, const nf_tensor layout[NF_ROLES], int32_t rank,
                         int64_t room);

/* The room that a walk takes. */
int64_t gpu_pack_walk_ints(const nf_work *work, int32_t rank);

/* Appends a walk. at: GPU_BY_QUERY or GPU_BY_KEY. */
void gpu_pack_walk(gpu_packer *packer, const nf_work *work, int at);

#endif
