/* The naive loops for the least this build may assume. */
#include "backends/cpu/naive.h"

#define NAIVE_TABLE cpu_naive_baseline_f32
#include "backends/cpu/naive_body.h"
#undef NAIVE_TABLE

#define NAIVE_DOUBLE
#define NAIVE_TABLE cpu_naive_baseline_f64
#include "backends/cpu/naive_body.h"
