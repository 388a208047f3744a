/* CUDA as far as our kernels use it, for a C++ compiler and the host: the very text that nvcc compiles runs here. The
 * threads of a block are fibers, which take turns at barriers only, in an order of the test's choice (block.h). */
#ifndef NF_TESTS_CUDA_HOST_H
#define NF_TESTS_CUDA_HOST_H

#include <math.h>
#include <stddef.h>
#include <string.h>

#include "block.h"
#include "core/dtype.h"
#include "warp.h"

#define __global__
#define __device__
#define __grid_constant__
#define __launch_bounds__(...)
#define threadIdx host_thread
#define blockIdx host_block
#define gridDim host_grid
#define blockDim host_block_size
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
    return __atomic_fetch_or(p, bits, __ATOMIC_RELAXED);
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

static inline unsigned cu_pack_bf16(float first, float second)
{
    return nf_f32_to_bf16(first) | (unsigned)nf_f32_to_bf16(second) << 16;
}

static inline unsigned cu_pack_f16(float first, float second)
{
    return nf_f32_to_f16(first) | (unsigned)nf_f32_to_f16(second) << 16;
}

static inline float cu_exp2(float x)
{
    const float power = exp2f(x);
    return fabsf(power) < 0x1p-126f ? 0 : power;
}

typedef unsigned cu_address;

static inline cu_address cu_address_of(const void *shared)
{
    return host_address_of(shared);
}

static inline void cu_load_16(unsigned to[4], cu_address from)
{
    memcpy(to, host_chunk_at(from), HOST_CHUNK);
}

static inline void cu_store_16(cu_address to, const unsigned from[4])
{
    host_note_write(to);
    memcpy(host_chunk_at(to), from, HOST_CHUNK);
}

static inline int cu_anew(int x)
{
    return x;
}

static inline void cu_write_16(void *to, const unsigned from[4])
{
    if ((uintptr_t)to % HOST_CHUNK)
        host_fault("16 bytes are written to where they are not aligned");
    memcpy(to, from, HOST_CHUNK);
}

static inline void cu_copy_async_16(cu_address to, const void *from, int bytes)
{
    host_copy(to, from, bytes, HOST_CHUNK);
}

static inline void cu_copy_async_8(cu_address to, const void *from)
{
    host_copy(to, from, 8, 8);
}

static inline void cu_copy_async_4(cu_address to, const void *from, bool there)
{
    host_copy(to, from, there ? 4 : 0, 4);
}

static inline void cu_copy_async_commit()
{
    host_copy_commit();
}

template <int PENDING> static inline void cu_copy_async_wait()
{
    host_copy_wait(PENDING);
}

static inline float cu_shuffle_xor(float value, int lanes)
{
    return host_bits_as<float>(host_shuffle(host_bits_as<unsigned>(value), (int)(host_thread.x % HOST_LANES) ^ lanes));
}

static inline unsigned cu_shuffle(unsigned value, int lane)
{
    return host_shuffle(value, lane);
}

static inline bool cu_any(bool holds)
{
    return host_ballot(holds) != 0;
}

static inline bool cu_all(bool holds)
{
    return host_ballot(holds) == 0xffffffffu;
}

static inline unsigned cu_ballot(bool holds)
{
    return host_ballot(holds);
}

static inline void cu_sync_warp()
{
    host_sync_warp();
}

static inline void cu_ldmatrix_x4(unsigned to[4], cu_address row)
{
    host_load_matrices(to, row, false);
}

static inline void cu_ldmatrix_x4_trans(unsigned to[4], cu_address row)
{
    host_load_matrices(to, row, true);
}

static inline void cu_mma_bf16(float sum[4], const unsigned a[4], const unsigned b[2])
{
    host_mma(sum, a, b, nf_bf16_to_f32);
}

static inline void cu_mma_f16(float sum[4], const unsigned a[4], const unsigned b[2])
{
    host_mma(sum, a, b, nf_f16_to_f32);
}

#define cu_barrier_or(holds) host_barrier_or(__LINE__, holds)

#define DYNAMIC_SHARED(name) unsigned char *name = host_dynamic_shared()

#endif
