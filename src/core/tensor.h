/* Checked views of memory: one tensor, a pair of them, all of a call. */
#ifndef NF_CORE_TENSOR_H
#define NF_CORE_TENSOR_H

#include <stdbool.h>

#include "nearfield.h"

/* Refuses a struct that describes no memory: size, rank, types, extents below 1, or offsets that overflow. data may be
 * NULL. name goes into the sentence. */
nf_status nf_tensor_check(const nf_tensor *tensor, const char *name);

/* Also refuses NULL data, and data not aligned to its element size. */
nf_status nf_tensor_check_data(const nf_tensor *tensor, const char *name);

/* Whether two elements of a checked tensor share a byte, by extents and strides alone. Exact, except that a layout so
 * tangled that the search is given up counts as overlapping. */
bool nf_tensor_overlaps_itself(const nf_tensor *tensor);

/* Whether two checked tensors share a byte; exact in the same sense, so that interleaved slices of one buffer (packed
 * qkv) do not count. Different memories never overlap. */
bool nf_tensors_overlap(const nf_tensor *a, const nf_tensor *b);

/* Bytes of the elements of a checked tensor, each counted once. */
double nf_tensor_bytes(const nf_tensor *tensor);

/* "host", "cuda" or "opencl"; NULL for a value that is no nf_memory. */
const char *nf_memory_name(nf_memory memory);

#endif
