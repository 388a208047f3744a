/* Kernels for the tensor cores of compute capability 9.0: products of warpgroups, and copies of boxes. One program per
 * type of the inputs and per DIMS, the dimensions that lines have in shared memory: head_dim and value_dim are padded
 * to it by zeros. */
#include "backends/cuda/cu_wgmma_words.h"

/* What the text calls static is the device's; nothing but it follows. */
#define static static __device__

#include "backends/gpu/gpu_common.cl"

enum { COLUMNS = 128 };

#include "backends/cuda/cu_wgmma_roles.h"

enum { CONSUMER_REGISTERS = 208, PRODUCER_REGISTERS = 88 };
static_assert(REGISTERS_SUFFICE<CONSUMER_REGISTERS, PRODUCER_REGISTERS>, "a block has as many");

#include "backends/cuda/cu_mma_tile.h"

#include "backends/cuda/cu_mma_lines.h"

#include "backends/cuda/cu_softmax.h"

#include "backends/cuda/cu_wgmma_boxes.h"

#include "backends/cuda/cu_wgmma_products.h"

#include "backends/cuda/cu_wgmma_rows.h"

#include "backends/cuda/cu_wgmma_forward.h"

#include "backends/cuda/cu_wgmma_peak.h"

#undef static

#define CU_KERNELS(X) WGMMA_FORWARD_KERNELS(X) WGMMA_PEAK_KERNELS(X)
