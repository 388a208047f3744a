/* CUDA as far as our kernels use it, for a C++ compiler and the host: the very text that nvcc compiles runs here. The
 * threads of a block are fibers, which take turns at barriers only, in an order of the test's choice (block.h). */
#ifndef NF_TESTS_CUDA_HOST_H
#define NF_TESTS_CUDA_HOST_H

#include <stddef.h>
#include <string.h>

#include "block.h"
#include "core/dtype.h"

#define __global__
#define __device__
#define __launch_bounds__(...)
#define threadIdx host_thread
#define blockIdx host_block
#define gridDim host_grid
#define __syncthreads() host_barrier(__LINE__)

#define LOCAL_VARIABLE(type, name) type &name = *static_cast<type *>(host_shared(sizeof(type)))

template <class T> static inline T min(T a, T b)
{
    return b < a ? b : a;
}

template <class T> static inline T max(T a, T b)
{
    return a < b ? b : a;
}

static inline int atomicOr(int *p, int bits)
{
    const int before = *p;
    *p = before | bits;
    return before;
}

template <class To, class From> static inline To host_bits_as(From from)
{
    To to;
    static_assert(sizeof to == sizeof from, "bits are all there");
    memcpy(&to, &from, sizeof to);
    return to;
}

#define __int_as_float(bits) host_bits_as<float>(bits)
#define __float_as_uint(value) host_bits_as<unsigned>(value)
#define __longlong_as_double(bits) host_bits_as<double>(bits)

/* ---- Twins of cu_ptx.h ------------------------------------------------------------------------------------------- */

static inline float cu_f32_of_f16(unsigned short bits)
{
    return nf_f16_to_f32(bits);
}

static inline unsigned short cu_f16_of_f32(float value)
{
    return nf_f32_to_f16(value);
}

#endif
