/* Backward for the tensor cores of compute capability 9.0, as cu_wgmma.cu has forward. A program of its own: registers
 * hold fewer columns of a step, as there are two products to weigh, and walks are cut for that. */
#include "backends/cuda/cu_wgmma_words.h"

/* What the text calls static is the device's; nothing but it follows. */
#define static static __device__

#include "backends/gpu/gpu_common.cl"

#include "backends/cuda/cu_backward_ends.h"

enum { COLUMNS = 64 };

#include "backends/cuda/cu_wgmma_roles.h"

#include "backends/cuda/cu_mma_tile.h"

#include "backends/cuda/cu_mma_lines.h"

#include "backends/cuda/cu_softmax.h"

#include "backends/cuda/cu_wgmma_boxes.h"

#include "backends/cuda/cu_wgmma_products.h"

#include "backends/cuda/cu_wgmma_rows.h"

#include "backends/cuda/cu_wgmma_backward.h"

#include "backends/cuda/cu_wgmma_open.h"

#include "backends/cuda/cu_wgmma_meet.h"

#undef static

#define CU_KERNELS(X) END_KERNELS(X) WGMMA_BACKWARD_KERNELS(X)
