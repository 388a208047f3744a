/* Instructions that no C++ operator names, one wrapper each, for the device. tests/cuda_host/cuda_host.h has a twin of
 * each for the host, on which the same kernels run in tests. */
#ifndef NF_CU_PTX_H
#define NF_CU_PTX_H

static __device__ __forceinline__ float cu_f32_of_f16(unsigned short bits)
{
    float value;
    asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
    return value;
}

static __device__ __forceinline__ unsigned short cu_f16_of_f32(float value)
{
    unsigned short bits;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
    return bits;
}

/* Two numbers of 16 bits, the first in the lower half. */
static __device__ __forceinline__ unsigned cu_pack_bf16(float first, float second)
{
    unsigned bits;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(bits) : "f"(second), "f"(first));
    return bits;
}

static __device__ __forceinline__ unsigned cu_pack_f16(float first, float second)
{
    unsigned bits;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(bits) : "f"(second), "f"(first));
    return bits;
}

/* 2 to the power of x, to 2 units in the last place; results below the least normal number are 0. */
static __device__ __forceinline__ float cu_exp2(float x)
{
    float power;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(x));
    return power;
}

/* ---- Shared memory by address ------------------------------------------------------------------------------------ */

/* In bytes. Instructions take it like that, and 32 bits are cheaper to compute with than a pointer's 64. */
typedef unsigned cu_address;

static __device__ __forceinline__ cu_address cu_address_of(const void *shared)
{
    return (cu_address)__cvta_generic_to_shared(shared);
}

static __device__ __forceinline__ void cu_load_16(unsigned to[4], cu_address from)
{
    asm volatile("ld.shared.v4.b32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(from));
}

static __device__ __forceinline__ void cu_store_16(cu_address to, const unsigned from[4])
{
    asm volatile("st.shared.v4.b32 [%0], {%1, %2, %3, %4};"
                 :
                 : "r"(to), "r"(from[0]), "r"(from[1]), "r"(from[2]), "r"(from[3])
                 : "memory");
}

/* The same number. What is computed from it is not computed earlier, where it would take registers for long. */
static __device__ __forceinline__ int cu_anew(int x)
{
    asm volatile("" : "+r"(x));
    return x;
}

/* 16 bytes to global memory, whose place is a multiple of that. */
static __device__ __forceinline__ void cu_write_16(void *to, const unsigned from[4])
{
    asm volatile("st.global.v4.b32 [%0], {%1, %2, %3, %4};"
                 :
                 : "l"(to), "r"(from[0]), "r"(from[1]), "r"(from[2]), "r"(from[3])
                 : "memory");
}

/* Copies `bytes`, at most 16, from global memory and fills up to 16 with zeros. Both places are multiples of 16. The
 * copy may land at any time until a wait for its group ends, and others see it after a barrier that follows. */
static __device__ __forceinline__ void cu_copy_async_16(cu_address to, const void *from, int bytes)
{
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" : : "r"(to), "l"(from), "r"(bytes) : "memory");
}

/* The same of exactly 8 bytes, at multiples of 8. */
static __device__ __forceinline__ void cu_copy_async_8(cu_address to, const void *from)
{
    asm volatile("cp.async.ca.shared.global [%0], [%1], 8;" : : "r"(to), "l"(from) : "memory");
}

/* The same of 4 bytes, or zeros. */
static __device__ __forceinline__ void cu_copy_async_4(cu_address to, const void *from, bool there)
{
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" : : "r"(to), "l"(from), "r"(there ? 4 : 0) : "memory");
}

/* Makes a group of this thread's copies since the last one. */
static __device__ __forceinline__ void cu_copy_async_commit()
{
    asm volatile("cp.async.commit_group;" : : : "memory");
}

/* Waits until at most PENDING groups of this thread, the latest, have yet to land. */
template <int PENDING> static __device__ __forceinline__ void cu_copy_async_wait()
{
    asm volatile("cp.async.wait_group %0;" : : "n"(PENDING) : "memory");
}

/* ---- Warps: all 32 lanes come to the same call together ---------------------------------------------------------- */

static __device__ __forceinline__ float cu_shuffle_xor(float value, int lanes)
{
    return __shfl_xor_sync(0xffffffffu, value, lanes);
}

/* The value that a lane has given. */
static __device__ __forceinline__ unsigned cu_shuffle(unsigned value, int lane)
{
    return __shfl_sync(0xffffffffu, value, lane);
}

static __device__ __forceinline__ bool cu_any(bool holds)
{
    return __any_sync(0xffffffffu, holds);
}

static __device__ __forceinline__ bool cu_all(bool holds)
{
    return __all_sync(0xffffffffu, holds);
}

/* The lanes where it holds, a bit each. */
static __device__ __forceinline__ unsigned cu_ballot(bool holds)
{
    return __ballot_sync(0xffffffffu, holds);
}

/* What lanes wrote to memory before is seen by all of the warp after. */
static __device__ __forceinline__ void cu_sync_warp()
{
    __syncwarp();
}

/* Four 8x8 matrices of 16-bit numbers: lane i gives the address of 16 bytes, row i % 8 of matrix i / 8. Of matrix m a
 * lane gets the numbers 2 (i % 4) and 2 (i % 4) + 1 of row i / 4 in to[m]; transposed: of column i / 4. */
static __device__ __forceinline__ void cu_ldmatrix_x4(unsigned to[4], cu_address row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(row));
}

static __device__ __forceinline__ void cu_ldmatrix_x4_trans(unsigned to[4], cu_address row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(row));
}

/* sum += a b, of 16x16 by 16x8 numbers. Lane i, with g = i / 4 and t = i % 4, has
 *     a[0], a[1]       rows g and g + 8, columns 2t and 2t + 1;   a[2], a[3]   the same, 8 columns on
 *     b[0], b[1]       column g, rows 2t and 2t + 1, and 8 rows on
 *     sum[0], sum[1]   row g, columns 2t and 2t + 1;   sum[2], sum[3]   row g + 8 */
static __device__ __forceinline__ void cu_mma_bf16(float sum[4], const unsigned a[4], const unsigned b[2])
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
                 "{%0, %1, %2, %3};"
                 : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

static __device__ __forceinline__ void cu_mma_f16(float sum[4], const unsigned a[4], const unsigned b[2])
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
                 "{%0, %1, %2, %3};"
                 : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

/* ---- Blocks ------------------------------------------------------------------------------------------------------ */

/* A barrier that says whether any thread brought something else than 0. */
static __device__ __forceinline__ int cu_barrier_or(int holds)
{
    return __syncthreads_or(holds);
}

/* Shared memory of as many bytes as the launch says. */
#define DYNAMIC_SHARED(name) extern __shared__ __align__(1024) unsigned char name[]

#endif
