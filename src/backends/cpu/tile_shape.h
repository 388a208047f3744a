/* Choosing tile shapes, and the walks made of them. */
#ifndef NF_CPU_TILE_SHAPE_H
#define NF_CPU_TILE_SHAPE_H

#include "backends/cpu/tile.h"

/* The shapes for one side as rows, the heads to fold into a tile, and the predicted vector operations. by_blocks: of a
 * partial tile only what each block of rows reaches is computed. Depends on the problem and the kernel table only. */
void cpu_choose_shape(const nf_request *request, const cpu_kernels *kernels, nf_side rows, bool by_blocks, nf_work_spec *spec,
                      int64_t *fold, double *operations);

/* Chooses shapes and cuts a walk, its column tiles aligned or not; release it with nf_work_destroy. */
nf_status cpu_create_walk(cpu_walk *walk, const nf_request *request, const cpu_kernels *kernels, nf_side rows,
                          bool by_blocks, bool aligned);

/* Most columns of a tile: packed keys and values should stay in the second-level cache. */
int64_t cpu_column_limit(const nf_request *request, const cpu_kernels *kernels);

#endif
