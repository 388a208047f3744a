/* Measures the machine's limits. The multiply-add loops keep a dozen independent accumulators in registers, more than
 * latency times issue width of any core so far; an empty asm after each step keeps the compiler from seeing through. */
#include "peak.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "stats.h"

#ifdef _OPENMP
#include <omp.h>
#endif

#if defined(__x86_64__)
#include <immintrin.h>
#define REGISTER "+v"
#elif defined(__aarch64__)
#include <arm_neon.h>
#define REGISTER "+w"
#else
#define REGISTER "+m"
#endif

enum { ACCUMULATORS = 12, TRIALS = 12, MAX_SETS = 4 };
static const double trial_seconds = 8e-3;

#define EACH(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11)
#define DECLARE(I) VECTOR a##I = {0};
#define STEP(I)                                                                                                        \
    a##I = MULTIPLY_ADD(a##I);                                                                                         \
    __asm__ volatile("" : REGISTER(a##I));

/* rounds * ACCUMULATORS multiply-adds of two factors. VECTOR and MULTIPLY_ADD are defined around each use. */
#define DEFINE_LOOP(NAME, TARGET, FACTOR, VALUE)                                                                       \
    TARGET __attribute__((noinline)) static void NAME(int64_t rounds)                                                  \
    {                                                                                                                  \
        FACTOR m = VALUE;                                                                                              \
        __asm__ volatile("" : REGISTER(m));                                                                            \
        EACH(DECLARE)                                                                                                  \
        for (int64_t r = 0; r < rounds; r++) {                                                                         \
            EACH(STEP)                                                                                                 \
        }                                                                                                              \
    }

#if defined(__aarch64__)
#define VECTOR float32x4_t
#define MULTIPLY_ADD(A) vfmaq_f32(A, m, m)
DEFINE_LOOP(lowest_f32, , float32x4_t, vdupq_n_f32(1e-3f))
#undef VECTOR
#undef MULTIPLY_ADD
#define VECTOR float64x2_t
#define MULTIPLY_ADD(A) vfmaq_f64(A, m, m)
DEFINE_LOOP(lowest_f64, , float64x2_t, vdupq_n_f64(1e-3))
#undef VECTOR
#undef MULTIPLY_ADD
#else
/* A product of constants would leave the loop, so the accumulator is multiplied. */
typedef float portable_f32 __attribute__((vector_size(16)));
typedef double portable_f64 __attribute__((vector_size(16)));
#define VECTOR portable_f32
#define MULTIPLY_ADD(A) (A) * m + m
DEFINE_LOOP(lowest_f32, , portable_f32, ((portable_f32){0.5f, 0.5f, 0.5f, 0.5f}))
#undef VECTOR
#define VECTOR portable_f64
DEFINE_LOOP(lowest_f64, , portable_f64, ((portable_f64){0.5, 0.5}))
#undef VECTOR
#undef MULTIPLY_ADD
#endif

#if defined(__x86_64__)
#define VECTOR __m256
#define MULTIPLY_ADD(A) _mm256_fmadd_ps(m, m, A)
DEFINE_LOOP(avx2_f32, __attribute__((target("avx2,fma"))), __m256, _mm256_set1_ps(1e-3f))
#undef VECTOR
#undef MULTIPLY_ADD
#define VECTOR __m256d
#define MULTIPLY_ADD(A) _mm256_fmadd_pd(m, m, A)
DEFINE_LOOP(avx2_f64, __attribute__((target("avx2,fma"))), __m256d, _mm256_set1_pd(1e-3))
#undef VECTOR
#undef MULTIPLY_ADD
#define VECTOR __m512
#define MULTIPLY_ADD(A) _mm512_fmadd_ps(m, m, A)
DEFINE_LOOP(avx512_f32, __attribute__((target("avx512f"))), __m512, _mm512_set1_ps(1e-3f))
#undef VECTOR
#undef MULTIPLY_ADD
#define VECTOR __m512d
#define MULTIPLY_ADD(A) _mm512_fmadd_pd(m, m, A)
DEFINE_LOOP(avx512_f64, __attribute__((target("avx512f"))), __m512d, _mm512_set1_pd(1e-3))
#undef VECTOR
#undef MULTIPLY_ADD
#define VECTOR __m512
#define MULTIPLY_ADD(A) _mm512_dpbf16_ps(A, (__m512bh)m, (__m512bh)m)
DEFINE_LOOP(avx512_bf16, __attribute__((target("avx512f,avx512bf16"))), __m512i, _mm512_set1_epi32(0x3a833a83))
#undef VECTOR
#undef MULTIPLY_ADD
#endif

/* What one step of a loop is worth. */
typedef struct peak_loop {
    void (*run)(int64_t rounds);
    int flops;
} peak_loop;

typedef struct peak_set {
    const char *name;
    bool usable;
    peak_loop f32, f64, bf16;
} peak_set;

/* Lowest first, named as the cpu backend names its kernels. */
static int list_sets(peak_set sets[MAX_SETS])
{
#if defined(__x86_64__)
    sets[0] = (peak_set){"baseline", true, {lowest_f32, 8}, {lowest_f64, 4}, {0}};
    sets[1] = (peak_set){"avx2", __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"),
                         {avx2_f32, 16}, {avx2_f64, 8}, {0}};
    sets[2] = (peak_set){"avx512", __builtin_cpu_supports("avx512f"), {avx512_f32, 32}, {avx512_f64, 16}, {0}};
    sets[3] = (peak_set){"avx512bf16", sets[2].usable && __builtin_cpu_supports("avx512bf16"),
                         {avx512_f32, 32}, {avx512_f64, 16}, {avx512_bf16, 64}};
    return 4;
#elif defined(__aarch64__)
    sets[0] = (peak_set){"neon", true, {lowest_f32, 8}, {lowest_f64, 4}, {0}};
    return 1;
#else
    sets[0] = (peak_set){"baseline", true, {lowest_f32, 8}, {lowest_f64, 4}, {0}};
    return 1;
#endif
}

/* Steps per second of one thread, of the time it was given a processor: a busy neighbour does not lower the peak. */
static double rate_of_thread(const peak_loop *loop, int64_t rounds)
{
    const double start = nf_tool_thread_seconds();
    loop->run(rounds);
    return (double)rounds * ACCUMULATORS / (nf_tool_thread_seconds() - start);
}

/* The main thread's own affinity would not do: OMP_PROC_BIND ties it to one processor. */
static int processors_for(int threads)
{
#ifdef _OPENMP
    const int processors = omp_get_num_procs();
    return threads < processors ? threads : processors;
#else
    (void)threads;
    return 1;
#endif
}

/* Threads run together, because a processor's clock may depend on how many of its cores work. */
static double measure_flops(const peak_loop *loop, int threads)
{
    const int processors = processors_for(threads);
    (void)processors; /* without OpenMP nothing asks */
    const int64_t calibration = 1 << 18;
    const int64_t rounds = (int64_t)(trial_seconds * rate_of_thread(loop, calibration) / ACCUMULATORS) + 1;
    double best = 0;
    for (int i = 0; i < TRIALS; i++) {
        double sum = 0;
#pragma omp parallel num_threads(processors) reduction(+ : sum)
        sum += rate_of_thread(loop, rounds);
        best = sum > best ? sum : best;
    }
    return best * loop->flops;
}

double nf_tool_peak_flops(const char *kernel, nf_dtype dtype, int threads, const char **set)
{
    enum { MAX_MEASURED = 32 };
    static struct {
        int set, kind, threads;
        double flops;
    } measured[MAX_MEASURED];
    static int measurements;
    peak_set sets[MAX_SETS];
    const int count = list_sets(sets);
    int chosen = 0;
    for (int i = 0; i < count; i++)
        chosen = sets[i].usable ? i : chosen;
    for (int i = 0; i < count; i++)
        chosen = sets[i].usable && strcmp(sets[i].name, kernel) == 0 ? i : chosen;
    const peak_set *s = &sets[chosen];
    const int kind = dtype == NF_F64 ? 1 : dtype == NF_BF16 && s->bf16.run ? 2 : 0;
    if (set)
        *set = s->name;
    for (int i = 0; i < measurements; i++)
        if (measured[i].set == chosen && measured[i].kind == kind && measured[i].threads == threads)
            return measured[i].flops;
    const double flops = measure_flops(kind == 1 ? &s->f64 : kind == 2 ? &s->bf16 : &s->f32, threads);
    if (measurements < MAX_MEASURED) {
        measured[measurements].set = chosen;
        measured[measurements].kind = kind;
        measured[measurements].threads = threads;
        measured[measurements++].flops = flops;
    }
    return flops;
}
