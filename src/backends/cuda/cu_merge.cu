/* The kernel text that merges partial results, for CUDA. One program per type. */
#include "backends/cuda/cu_words.h"
#include "backends/gpu/gpu_tables.h"

/* What the text calls static is the device's; nothing but it follows. */
#define static static __device__

#include "backends/gpu/gpu_common.cl"
#include "backends/gpu/gpu_merge.cl"

#undef static

#define CU_KERNELS(X) X(merge_max) X(merge_add) X(merge_end) X(merge_backward)
