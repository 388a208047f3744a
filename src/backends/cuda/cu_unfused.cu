/* Attention with scores in memory for tensor cores, of compute capability 8.0 and later: products only, what else there
 * is of it runs in the program of cu_plain.cu. One program per type of the inputs and per DIMS, as of cu_mma.cu. */
#include "backends/cuda/cu_words.h"
#include "backends/gpu/gpu_tables.h"

#define RANK 4
#define OUT_TYPE IN_TYPE

/* What the text calls static is the device's; nothing but it follows. */
#define static static __device__

#include "backends/gpu/gpu_common.cl"

enum { WARPS = 4, ITEMS = WARPS * 32, COLUMNS = 64, GRAIN = 4, PART_CHUNKS = DIMS / 8, PART_BYTES = 0 };
#define WARP (ITEM_INDEX / LANES)

#include "backends/cuda/cu_mma_tile.h"

#include "backends/cuda/cu_mma_lines.h"

#include "backends/cuda/cu_softmax.h"

#include "backends/cuda/cu_mma_sums.h"

#include "backends/cuda/cu_unfused.h"

#include "backends/cuda/cu_unfused_scores.h"

#include "backends/cuda/cu_unfused_sums.h"

#undef static

#define CU_KERNELS(X) SCORES_KERNELS(X) SUMS_KERNELS(X)
