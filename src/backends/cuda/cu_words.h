/* The words of the kernel text, for CUDA: see gpu_words.cl. Compiled by nvcc, and by a C++ compiler for the host, where
 * tests/cuda_host/cuda_host.h stands in for CUDA. */
#ifndef NF_CU_WORDS_H
#define NF_CU_WORDS_H

#include <math.h>

#ifdef __CUDACC__
#include "backends/cuda/cu_ptx.h"
#define LOCAL_VARIABLE(type, name) __shared__ type name
#else
#include "cuda_host.h"
#endif

typedef unsigned short ushort;
typedef unsigned int uint;
static_assert(sizeof(long) == 8, "the text's long has 64 bits");

#define KERNEL extern "C" __global__
#define GLOBAL
#define LOCAL
#define GROUP_INDEX ((long)blockIdx.x)
#define GROUP_COUNT ((long)gridDim.x)
#define GROUP_SIZE ((long)blockDim.x)
/* One block per multiprocessor may use all registers: two would spill. */
#define GROUP_ITEMS(n) __launch_bounds__(n, 1)
#define ITEM_INDEX ((int)threadIdx.x)
#define BARRIER() __syncthreads()
#define LOCAL_OR(p, bits) atomicOr(p, bits)
#define UNROLL _Pragma("unroll")

#define HALF_LOAD(p, i) cu_f32_of_f16((p)[i])
#define HALF_STORE(p, i, x) ((p)[i] = cu_f16_of_f32(x))

#define as_float(bits) __int_as_float((int)(bits))
#define as_uint(value) __float_as_uint(value)
#define as_double(bits) __longlong_as_double(bits)

#endif
