/* Kernels for tensor cores, of compute capability 8.0 and later. One program per type of the inputs and per DIMS, the
 * dimensions that lines have in shared memory: head_dim and value_dim are padded to it by zeros. f32 is multiplied as
 * sums of bf16. */
#include "backends/cuda/cu_words.h"
#include "backends/gpu/gpu_tables.h"

#define RANK 4
#define OUT_TYPE IN_TYPE

/* What the text calls static is the device's; nothing but it follows. */
#define static static __device__

#include "backends/gpu/gpu_common.cl"

enum { WARPS = 4, ITEMS = WARPS * 32, COLUMNS = 64, GRAIN = DIMS < 64 ? 2 : 4, PART_CHUNKS = DIMS / 8, PART_BYTES = 0 };
#define WARP (ITEM_INDEX / LANES)
#define MOST_DIMS_OF_BLOCKS (IN_TYPE == 0 ? 64 : 128) /* with which a warp has two blocks of rows */

#include "backends/cuda/cu_mma_tile.h"

#include "backends/cuda/cu_mma_lines.h"

#include "backends/cuda/cu_softmax.h"

#include "backends/cuda/cu_mma_forward.h"

#include "backends/cuda/cu_backward_ends.h"

#include "backends/cuda/cu_mma_sums.h"

#include "backends/cuda/cu_mma_backward.h"

#include "backends/cuda/cu_mma_dq.h"

#include "backends/cuda/cu_mma_dkv.h"

#undef static

#define CU_KERNELS(X) FORWARD_KERNELS(X) END_KERNELS(X) DQ_KERNELS(X) DKV_KERNELS(X)
