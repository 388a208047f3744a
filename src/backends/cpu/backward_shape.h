/* The walk by key of backward: keys in the lanes, boxes of queries pass by. */
#ifndef NF_CPU_BACKWARD_SHAPE_H
#define NF_CPU_BACKWARD_SHAPE_H

#include "backends/cpu/tile.h"

/* The keys of an item (spec group and tile), the boxes of queries (columns), and the predicted vector operations with
 * five products. Depends on the problem and the kernel table only. Returns the lead. */
int32_t cpu_choose_key_shape(const nf_request *request, const cpu_kernels *kernels, nf_work_spec *spec, double *operations);

/* Chooses shapes and cuts the walk; release it with nf_work_destroy. */
nf_status cpu_create_key_walk(cpu_walk *walk, const nf_request *request, const cpu_kernels *kernels);

#endif
