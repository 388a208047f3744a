/* Instructions of compute capability 9.0a, one wrapper each: barriers that count bytes, copies of boxes, products of
 * warpgroups (four warps, the first of which has a number that four divides). tests/cuda_host/warpgroup.h has their
 * twins. */
#ifndef NF_CU_WGMMA_PTX_H
#define NF_CU_WGMMA_PTX_H

/* ---- Barriers in shared memory, 8 bytes each --------------------------------------------------------------------- */

/* One thread does this, before anyone uses it. A phase ends when so many threads have arrived, and all bytes that are
 * expected in it have come. */
static __device__ __forceinline__ void cu_mbarrier_init(cu_address barrier, int arrivals)
{
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" : : "r"(barrier), "r"(arrivals) : "memory");
}

/* After all of them, by the same thread; a barrier of the block must follow. */
static __device__ __forceinline__ void cu_mbarrier_init_done()
{
    asm volatile("fence.mbarrier_init.release.cluster;" : : : "memory");
}

static __device__ __forceinline__ void cu_mbarrier_arrive(cu_address barrier)
{
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" : : "r"(barrier) : "memory");
}

/* Arrives, and expects bytes in this phase. */
static __device__ __forceinline__ void cu_mbarrier_expect(cu_address barrier, int bytes)
{
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" : : "r"(barrier), "r"(bytes) : "memory");
}

/* Until the phase of this parity has ended: 0 for the first, 1 for the second, 0 for the third. Of a barrier in its
 * first phase, parity 1 has. */
static __device__ __forceinline__ void cu_mbarrier_wait(cu_address barrier, int parity)
{
    asm volatile("{\n\t.reg .pred ended;\n\t"
                 "again:\n\t"
                 "mbarrier.try_wait.parity.shared::cta.b64 ended, [%0], %1;\n\t"
                 "@!ended bra again;\n\t}"
                 :
                 : "r"(barrier), "r"(parity)
                 : "memory");
}

/* ---- Barriers of some of a block's warps, by number: 0 is __syncthreads's ---------------------------------------- */

static __device__ __forceinline__ void cu_sync_some(int barrier, int threads)
{
    asm volatile("barrier.sync %0, %1;" : : "r"(barrier), "r"(threads) : "memory");
}

/* Comes to it, as one of so many threads, and goes on. */
static __device__ __forceinline__ void cu_arrive_some(int barrier, int threads)
{
    asm volatile("barrier.arrive %0, %1;" : : "r"(barrier), "r"(threads) : "memory");
}

/* ---- Copies of boxes --------------------------------------------------------------------------------------------- */

/* What the driver makes of a tensor (CUtensorMap). */
typedef struct __align__(64) cu_map
{
    unsigned long words[16];
}
cu_map;

/* The first copy that uses a map would wait for it. */
static __device__ __forceinline__ void cu_fetch_map(const cu_map *map)
{
    asm volatile("prefetch.tensormap [%0];" : : "l"(map) : "memory");
}

/* Begins to copy the box at these coordinates, the fastest first, to shared memory; its bytes come to the barrier. What
 * lies outside of the tensor is zeros. */
static __device__ __forceinline__ void cu_copy_box(cu_address to, const cu_map *map, const int (&at)[5],
                                                   cu_address barrier)
{
    asm volatile("cp.async.bulk.tensor.5d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3, "
                 "%4, %5, %6}], [%7];"
                 :
                 : "r"(to), "l"(map), "r"(at[0]), "r"(at[1]), "r"(at[2]), "r"(at[3]), "r"(at[4]), "r"(barrier)
                 : "memory");
}

/* Writes of this thread to shared memory come before what products and copies of boxes do after a barrier that follows.
 */
static __device__ __forceinline__ void cu_fence_async()
{
    asm volatile("fence.proxy.async.shared::cta;" : : : "memory");
}

/* ---- Registers: all warps of a warpgroup ------------------------------------------------------------------------- */

template <int COUNT> static __device__ __forceinline__ void cu_take_registers()
{
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" : : "n"(COUNT));
}

template <int COUNT> static __device__ __forceinline__ void cu_give_registers()
{
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" : : "n"(COUNT));
}

/* ---- Products: all threads of a warpgroup come to the same call together ----------------------------------------- */

/* Lines of 128 bytes, permuted as copies of boxes permute them: chunk c of 16 bytes of line i lies at c ^ i % 8. They
 * begin at a multiple of 1024. */
typedef unsigned long cu_lines;

/* next: bytes from 8 lines to the next 8; wide: from 64 columns to the next 64, where lines are what is summed over. */
static __device__ __forceinline__ cu_lines cu_lines_at(cu_address first, int wide, int next)
{
    return (cu_lines)(first >> 4 & 0x3fff) | (cu_lines)(wide >> 4) << 16 | (cu_lines)(next >> 4) << 32 | 1ul << 62;
}

/* Registers that products read or write may be used by others before this, not after, until a wait. */
static __device__ __forceinline__ void cu_wgmma_begin()
{
    asm volatile("wgmma.fence.sync.aligned;" : : : "memory");
}

/* Makes a group of the products since the last one. */
static __device__ __forceinline__ void cu_wgmma_commit()
{
    asm volatile("wgmma.commit_group.sync.aligned;" : : : "memory");
}

/* Waits until at most PENDING groups, the latest, have yet to end. */
template <int PENDING> static __device__ __forceinline__ void cu_wgmma_wait()
{
    asm volatile("wgmma.wait_group.sync.aligned %0;" : : "n"(PENDING) : "memory");
}

/* Sums that a wait has made good: what uses them stays after it. */
template <int N> static __device__ __forceinline__ void cu_wgmma_hold(float (&sum)[N][4])
{
#pragma unroll
    for (int j = 0; j < N; j++)
        asm volatile("" : "+f"(sum[j][0]), "+f"(sum[j][1]), "+f"(sum[j][2]), "+f"(sum[j][3])::"memory");
}

/* Of sums and of a in registers warp i of the four has the 16 rows from 16 i on, as cu_mma_bf16 does. PTX's operands
 * for the sums of N columns, and their places. */
#define SUM_4(s) "+f"((s)[0]), "+f"((s)[1]), "+f"((s)[2]), "+f"((s)[3])
#define SUM_16(s) SUM_4((s)[0]), SUM_4((s)[1]), SUM_4((s)[2]), SUM_4((s)[3])
#define SUMS_64(s) SUM_16(s), SUM_16((s) + 4)
#define SUMS_128(s) SUMS_64(s), SUM_16((s) + 8), SUM_16((s) + 12)
#define PLACES_64                                                                                                      \
    "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, %23, "   \
    "%24, %25, %26, %27, %28, %29, %30, %31"
#define PLACES_128                                                                                                     \
    PLACES_64 ", %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, %48, %49, %50, %51, " \
              "%52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"

/* sum = a b, or sum += a b, of 64x16 by 16xN numbers, begun: both in shared memory, a's rows and b's columns are lines,
 * of which 16 numbers are summed over. */
#define DEFINE_LINES(TYPE, N, A, B, ADD)                                                                               \
    static __device__ __forceinline__ void cu_wgmma_lines_##TYPE(float(&sum)[(N) / 8][4], cu_lines a, cu_lines b,      \
                                                                 bool add)                                             \
    {                                                                                                                  \
        asm volatile("{\n\t.reg .pred add;\n\tsetp.ne.b32 add, " ADD ", 0;\n\t"                                        \
                     "wgmma.mma_async.sync.aligned.m64n" #N "k16.f32." #TYPE "." #TYPE " {" PLACES_##N                 \
                     "}, " A ", " B ", add, 1, 1, 0, 0;\n\t}"                                                          \
                     : SUMS_##N(sum)                                                                                   \
                     : "l"(a), "l"(b), "r"((int)add));                                                                 \
    }
DEFINE_LINES(bf16, 64, "%32", "%33", "%34")
DEFINE_LINES(bf16, 128, "%64", "%65", "%66")
DEFINE_LINES(f16, 64, "%32", "%33", "%34")
DEFINE_LINES(f16, 128, "%64", "%65", "%66")

/* sum += a b, begun: a in registers; b's 16 lines are what is summed over, each of N columns. */
#define DEFINE_ACROSS(TYPE, N, A, B)                                                                                   \
    static __device__ __forceinline__ void cu_wgmma_across_##TYPE(float(&sum)[(N) / 8][4], const unsigned(&a)[4],      \
                                                                  cu_lines b)                                          \
    {                                                                                                                  \
        asm volatile("wgmma.mma_async.sync.aligned.m64n" #N "k16.f32." #TYPE "." #TYPE " {" PLACES_##N                 \
                     "}, {" A "}, " B ", 1, 1, 1, 1;"                                                                  \
                     : SUMS_##N(sum)                                                                                   \
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));                                            \
    }
DEFINE_ACROSS(bf16, 64, "%32, %33, %34, %35", "%36")
DEFINE_ACROSS(bf16, 128, "%64, %65, %66, %67", "%68")
DEFINE_ACROSS(f16, 64, "%32, %33, %34, %35", "%36")
DEFINE_ACROSS(f16, 128, "%64, %65, %66, %67", "%68")

#endif
