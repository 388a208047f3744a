/* The kernels for AVX-512 F, BW, DQ and VL. */
#include <float.h>
#include <math.h>

#include "backends/cpu/kernels.h"
#include "backends/cpu/simd.h"
#include "core/dtype.h"

#define KERNEL_ISA "avx512"

#define KERNEL_TABLE cpu_kernels_avx512_f32
#include "backends/cpu/kernel_body.h"
#undef KERNEL_TABLE

#define KERNEL_DOUBLE
#define KERNEL_TABLE cpu_kernels_avx512_f64
#include "backends/cpu/kernel_body.h"
