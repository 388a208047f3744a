/* The kernels for AVX-512 with BF16. */
#include <float.h>
#include <math.h>

#include "backends/cpu/kernels.h"
#include "backends/cpu/simd.h"
#include "core/dtype.h"

#define KERNEL_ISA "avx512bf16"

#define KERNEL_TABLE cpu_kernels_avx512bf16_f32
#include "backends/cpu/kernel_body.h"
#undef KERNEL_TABLE
#include "backends/cpu/kernel_bf16.h"

#define KERNEL_DOUBLE
#define KERNEL_TABLE cpu_kernels_avx512bf16_f64
#include "backends/cpu/kernel_body.h"
