/* Kernels for tensor cores, of compute capability 8.0 and later. One program per type of the inputs and per DIMS, the
 * dimensions that lines have in shared memory: head_dim and value_dim are padded to it by zeros. */
#include "backends/cuda/cu_words.h"
#include "backends/gpu/gpu_tables.h"

#define RANK 4
#define OUT_TYPE IN_TYPE

/* What the text calls static is the device's; nothing but it follows. */
#define static static __device__

#include "backends/gpu/gpu_common.cl"

#include "backends/cuda/cu_mma_tile.h"
#include "backends/cuda/cu_mma_lines.h"

#include "backends/cuda/cu_mma_forward.h"

#include "backends/cuda/cu_mma_backward.h"
#include "backends/cuda/cu_mma_dq.h"
#include "backends/cuda/cu_mma_dkv.h"

#undef static

#define CU_KERNELS(X) FORWARD_KERNELS(X) BACKWARD_KERNELS(X) DQ_KERNELS(X) DKV_KERNELS(X)
