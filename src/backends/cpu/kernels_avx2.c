/* The kernels for AVX2, FMA and F16C. */
#include <float.h>
#include <math.h>

#include "backends/cpu/kernels.h"
#include "backends/cpu/simd.h"
#include "core/dtype.h"

#define KERNEL_ISA "avx2"

#define KERNEL_TABLE cpu_kernels_avx2_f32
#include "backends/cpu/kernel_body.h"
#undef KERNEL_TABLE

#define KERNEL_DOUBLE
#define KERNEL_TABLE cpu_kernels_avx2_f64
#include "backends/cpu/kernel_body.h"
