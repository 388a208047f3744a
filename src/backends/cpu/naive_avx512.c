/* The naive loops for AVX-512. */
#include "backends/cpu/naive.h"

#define NAIVE_TABLE cpu_naive_avx512_f32
#include "backends/cpu/naive_body.h"
#undef NAIVE_TABLE

#define NAIVE_DOUBLE
#define NAIVE_TABLE cpu_naive_avx512_f64
#include "backends/cpu/naive_body.h"
