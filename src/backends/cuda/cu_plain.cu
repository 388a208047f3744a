/* The kernel text that goes through slots one by one, for CUDA. One program per pair of element types. */
#include "backends/cuda/cu_words.h"
#include "backends/gpu/gpu_tables.h"

/* What the text calls static is the device's; nothing but it follows. */
#define static static __device__

#include "backends/gpu/gpu_common.cl"
#include "backends/gpu/gpu_unfused.cl"
#include "backends/gpu/gpu_naive.cl"

#undef static

#define CU_KERNELS(X)                                                                                                  \
    X(unfused_qk) X(unfused_dout_v) X(unfused_softmax) X(unfused_av) X(unfused_delta) X(unfused_gradient)              \
    X(unfused_dq) X(unfused_dk) X(unfused_dv) X(unfused_extra_dk) X(unfused_extra_dv) X(unfused_extra_sum)             \
    X(naive_forward) X(naive_dq) X(naive_dkv) X(naive_extra)
