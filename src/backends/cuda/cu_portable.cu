/* The kernel text that all devices share, for CUDA. One program per set of options. */
#include "backends/cuda/cu_words.h"
#include "backends/gpu/gpu_tables.h"

/* What the text calls static is the device's; nothing but it follows. */
#define static static __device__

#include "backends/gpu/gpu_common.cl"
#include "backends/gpu/gpu_tile.cl"
#include "backends/gpu/gpu_tile_backward.cl"

#undef static

#define CU_KERNELS(X)                                                                                                  \
    X(forward) X(backward_delta) X(backward_dq) X(backward_dkv) X(backward_extra) X(backward_extra_sum)
