/* The kernels for the least this build may assume: SSE2 on x86-64, NEON on 64-bit Arm. */
#include <float.h>
#include <math.h>

#include "backends/cpu/kernels.h"
#include "backends/cpu/simd.h"
#include "core/dtype.h"

#define KERNEL_ISA "baseline"

#define KERNEL_TABLE cpu_kernels_baseline_f32
#include "backends/cpu/kernel_body.h"
#undef KERNEL_TABLE

#define KERNEL_DOUBLE
#define KERNEL_TABLE cpu_kernels_baseline_f64
#include "backends/cpu/kernel_body.h"
