/* Twins of cu_wgmma_ptx.h, which describes them. */
#ifndef NF_TESTS_CUDA_WARPGROUP_H
#define NF_TESTS_CUDA_WARPGROUP_H

#include "async.h"
#include "core/dtype.h"

typedef unsigned cu_address;

static inline void cu_mbarrier_init(cu_address barrier, int arrivals)
{
    host_phased_init(barrier, arrivals);
}

static inline void cu_mbarrier_init_done()
{
    host_phased_init_done();
}

static inline void cu_mbarrier_arrive(cu_address barrier)
{
    host_phased_arrive(barrier, 0);
}

static inline void cu_mbarrier_expect(cu_address barrier, int bytes)
{
    host_phased_arrive(barrier, bytes);
}

static inline void cu_mbarrier_wait(cu_address barrier, int parity)
{
    host_phased_wait(barrier, parity);
}

static inline void cu_sync_some(int barrier, int threads)
{
    host_named_arrive(barrier, threads, true);
}

static inline void cu_arrive_some(int barrier, int threads)
{
    host_named_arrive(barrier, threads, false);
}

typedef struct alignas(HOST_MAP_ALIGNMENT) cu_map {
    unsigned long words[16];
} cu_map;
static_assert(sizeof(cu_map) == HOST_MAP_BYTES && sizeof(host_map) <= sizeof(cu_map), "what the driver writes fits");

static inline void cu_fetch_map(const cu_map *)
{
}

static inline void cu_copy_box(cu_address to, const cu_map *map, const int (&at)[5], cu_address barrier)
{
    host_copy_box(to, map, at, barrier);
}

static inline void cu_fence_async()
{
    host_fence();
}

template <int COUNT> static inline void cu_take_registers()
{
    static_assert(COUNT >= 24 && COUNT <= 256 && COUNT % 8 == 0, "so many may be had");
    host_gather_only();
}

template <int COUNT> static inline void cu_give_registers()
{
    cu_take_registers<COUNT>();
}

typedef unsigned long cu_lines;

static inline cu_lines cu_lines_at(cu_address first, int wide, int next)
{
    return (cu_lines)(first >> 4 & 0x3fff) | (cu_lines)(wide >> 4) << 16 | (cu_lines)(next >> 4) << 32 | 1ul << 62;
}

static inline void cu_wgmma_begin()
{
    host_products_begin();
}

static inline void cu_wgmma_commit()
{
    host_products_commit();
}

template <int PENDING> static inline void cu_wgmma_wait()
{
    host_products_wait(PENDING);
}

/* 8 columns are one of N. */
template <int N> static inline int host_columns()
{
    static_assert(N == 8 || N == 16, "sums are of 64 or 128 columns");
    return 8 * N;
}

template <int N> static inline void cu_wgmma_hold(float (&)[N][4])
{
}

template <int N> static inline void cu_wgmma_lines_bf16(float (&sum)[N][4], cu_lines a, cu_lines b, bool add)
{
    const host_factors factors = {a, b, false, add, host_columns<N>(), nf_bf16_to_f32};
    host_multiply(sum[0], nullptr, &factors);
}

template <int N> static inline void cu_wgmma_lines_f16(float (&sum)[N][4], cu_lines a, cu_lines b, bool add)
{
    const host_factors factors = {a, b, false, add, host_columns<N>(), nf_f16_to_f32};
    host_multiply(sum[0], nullptr, &factors);
}

template <int N> static inline void cu_wgmma_across_bf16(float (&sum)[N][4], const unsigned (&a)[4], cu_lines b)
{
    const host_factors factors = {0, b, true, true, host_columns<N>(), nf_bf16_to_f32};
    host_multiply(sum[0], a, &factors);
}

template <int N> static inline void cu_wgmma_across_f16(float (&sum)[N][4], const unsigned (&a)[4], cu_lines b)
{
    const host_factors factors = {0, b, true, true, host_columns<N>(), nf_f16_to_f32};
    host_multiply(sum[0], a, &factors);
}

#endif
