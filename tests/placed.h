/* A case whose tensors lie in one allocation of a device, some maybe in host memory, beside the truth in host memory.
 */
#ifndef NF_TESTS_PLACED_H
#define NF_TESTS_PLACED_H

#include <stddef.h>

#include "attend.h"

typedef struct placed {
    attend truth;
    nf_tensor tensor[NF_ROLES];
    int64_t first[NF_ROLES]; /* where element [0, 0, ...] of one on the device lies in the allocation, in floats */
    void *memory;            /* the allocation, to be made by the test: a cl_mem, a device pointer */
    size_t bytes;            /* that it takes */
} placed;

/* Lays out the tensors of truth, of f32: each follows the one before, its last dimension running backwards. Those whose
 * bit is set in in_host stay where they are; the data of others is left to be set. */
void placed_lay(placed *p, nf_memory memory, uint32_t in_host);

/* Copies the tensors on the device from the truth to an image of the allocation, or compares the image with it. */
void placed_fill(const placed *p, float *image);
void placed_compare(const placed *p, float *image, double tolerance);

/* The unfused pair: gives a case tensors of scores, before it is placed; makes a plan; runs both products and their
 * gradients, where scores serve as weights as they are. */
void placed_add_scores(attend *a);
nf_plan *placed_pair_plan(nf_context *context, const char *backend, const nf_problem *problem, const nf_io *io);
void placed_run_pair(const nf_plan *plan, const nf_io *io, const nf_exec *exec);

void placed_io(nf_io *io, const placed *p);
/* A plan for tensors where they lie, which must be of this backend. */
nf_plan *placed_plan(const placed *p, nf_context *context, const char *backend);
/* Forward and backward. */
void placed_run(const placed *p, const nf_plan *plan, const nf_exec *exec);

#endif
