/* What a multiprocessor does at most: loops of independent multiply-adds, by which benchmarks judge kernels, and a pass
 * over memory. Sums are written, lest the loops be for nothing. */
#include "backends/cuda/cu_words.h"

enum { SUMS = 16, TILES = 8, TILE_SUMS = 4, TILE_ROWS = 4, TILE_COLUMNS = 2 };

#define THREAD (blockIdx.x * blockDim.x + threadIdx.x)

#define DEFINE_LOOP(NAME, REAL)                                                                                        \
    KERNEL void NAME(REAL *results, long rounds)                                                                       \
    {                                                                                                                  \
        const REAL factor = (REAL)1 / (REAL)(2 + threadIdx.x);                                                         \
        REAL sums[SUMS], result = 0;                                                                                   \
        UNROLL                                                                                                         \
        for (int i = 0; i < SUMS; i++)                                                                                 \
            sums[i] = (REAL)i;                                                                                         \
        for (long r = 0; r < rounds; r++) {                                                                            \
            UNROLL                                                                                                     \
            for (int i = 0; i < SUMS; i++)                                                                             \
                sums[i] = sums[i] * factor + factor;                                                                   \
        }                                                                                                              \
        UNROLL                                                                                                         \
        for (int i = 0; i < SUMS; i++)                                                                                 \
            result += sums[i];                                                                                         \
        results[THREAD] = result;                                                                                      \
    }
DEFINE_LOOP(peak_f32, float)
DEFINE_LOOP(peak_f64, double)

/* One product of tensor cores, 16 x 8 x 16, of a warp: sums += rows columns. On the host nothing is computed: a loop of
 * them has no result that matters. */
#ifdef __CUDACC__
#define DEFINE_PRODUCT(NAME, TYPE)                                                                                     \
    static __device__ __forceinline__ void NAME(float *d, const uint *a, const uint *b)                                \
    {                                                                                                                  \
        asm volatile("mma.sync.aligned.m16n8k16.row.col.f32." TYPE "." TYPE ".f32 "                                    \
                     "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"                                 \
                     : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])                                                  \
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));                              \
    }
#else
#define DEFINE_PRODUCT(NAME, TYPE)                                                                                     \
    static void NAME(float *d, const uint *a, const uint *b)                                                           \
    {                                                                                                                  \
        d[0] += (float)(a[0] + b[0]);                                                                                  \
    }
#endif
DEFINE_PRODUCT(product_bf16, "bf16")
DEFINE_PRODUCT(product_f16, "f16")

#define DEFINE_TILE_LOOP(NAME, PRODUCT)                                                                                \
    KERNEL void NAME(float *results, long rounds)                                                                      \
    {                                                                                                                  \
        float sums[TILES][TILE_SUMS] = {}, result = 0;                                                                 \
        uint rows[TILE_ROWS], columns[TILE_COLUMNS];                                                                   \
        UNROLL                                                                                                         \
        for (int i = 0; i < TILE_ROWS; i++)                                                                            \
            rows[i] = threadIdx.x + i;                                                                                 \
        UNROLL                                                                                                         \
        for (int i = 0; i < TILE_COLUMNS; i++)                                                                         \
            columns[i] = threadIdx.x * i;                                                                              \
        for (long r = 0; r < rounds; r++) {                                                                            \
            UNROLL                                                                                                     \
            for (int i = 0; i < TILES; i++)                                                                            \
                PRODUCT(sums[i], rows, columns);                                                                       \
        }                                                                                                              \
        UNROLL                                                                                                         \
        for (int i = 0; i < TILES * TILE_SUMS; i++)                                                                    \
            result += sums[i / TILE_SUMS][i % TILE_SUMS];                                                              \
        results[THREAD] = result;                                                                                      \
    }
DEFINE_TILE_LOOP(peak_bf16, product_bf16)
DEFINE_TILE_LOOP(peak_f16, product_f16)

struct alignas(16) four {
    float x[4];
};

KERNEL void peak_stream(float *results, long count, const four *data)
{
    float result = 0;
    for (long i = THREAD; i < count; i += GROUP_COUNT * GROUP_SIZE) {
        const four read = data[i];
        result += read.x[0] + read.x[1] + read.x[2] + read.x[3];
    }
    results[THREAD] = result;
}

#define CU_KERNELS(X) X(peak_f32) X(peak_f64) X(peak_bf16) X(peak_f16) X(peak_stream)
