/* The naive loops for AVX2 with FMA. */
#include "backends/cpu/naive.h"

#define NAIVE_TABLE cpu_naive_avx2_f32
#include "backends/cpu/naive_body.h"
#undef NAIVE_TABLE

#define NAIVE_DOUBLE
#define NAIVE_TABLE cpu_naive_avx2_f64
#include "backends/cpu/naive_body.h"
