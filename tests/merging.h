/* A merge of partial results in one allocation of a device, beside the same in host memory. */
#ifndef NF_TESTS_MERGING_H
#define NF_TESTS_MERGING_H

#include <stddef.h>

#include "nearfield.h"

enum { MERGING_PARTS = 3, MERGING_KINDS = 4, MERGING_TENSORS = MERGING_KINDS * (MERGING_PARTS + 1) };

/* out, lse, dout and dlse of each part, then merged. On the device all run backwards. */
typedef struct merging {
    nf_tensor host[MERGING_TENSORS], placed[MERGING_TENSORS];
    int64_t first[MERGING_TENSORS]; /* where element [0, 0, ...] lies in the allocation, in elements */
    size_t bytes;                   /* of the allocation */
} merging;

/* Inputs and layouts; the data of what is placed is left to be set. Row 1 has one part that saw nothing, row 2 none
 * that saw anything. */
void merging_create(merging *m, nf_dtype dtype, nf_memory memory);
void merging_destroy(merging *m);

/* Copies to an image of the allocation, or compares the image. */
void merging_fill(const merging *m, void *image);
void merging_compare(const merging *m, void *image, double tolerance);

/* Both functions in host memory; and on the device, forward before backward by its event. Returns the event of the end,
 * to be released, as is *forward_done. */
void merging_run_host(merging *m);
void *merging_run(merging *m, nf_context *context, nf_exec *exec, void **forward_done);

#endif
