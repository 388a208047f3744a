/* A small vector vocabulary: one kernel source, compiled once per instruction set. Vectors are compiler vector types, so
 * + - * compile everywhere; what they cannot say portably is a function here. The including file has been compiled for
 * its instruction set; SIMD_BYTES follows from that. */
#ifndef NF_CPU_SIMD_H
#define NF_CPU_SIMD_H

#include <stdint.h>
#include <string.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#if defined(__AVX512F__)
enum { SIMD_BYTES = 64 };
#elif defined(__AVX2__)
enum { SIMD_BYTES = 32 };
#else
enum { SIMD_BYTES = 16 };
#endif

#if defined(__AVX512F__) || defined(__aarch64__)
#define SIMD_REGISTERS 32
#else
#define SIMD_REGISTERS 16
#endif

#if defined(__FMA__) || defined(__aarch64__)
enum { SIMD_FUSED = 1 }; /* one instruction multiplies and adds */
#else
enum { SIMD_FUSED = 0 };
#endif

typedef float v32 __attribute__((vector_size(SIMD_BYTES)));
typedef double v64 __attribute__((vector_size(SIMD_BYTES)));
typedef int32_t v32i __attribute__((vector_size(SIMD_BYTES)));
typedef int64_t v64i __attribute__((vector_size(SIMD_BYTES)));
typedef uint32_t v32u __attribute__((vector_size(SIMD_BYTES)));
typedef uint64_t v64u __attribute__((vector_size(SIMD_BYTES)));

#define SIMD_INLINE static inline __attribute__((always_inline, unused))

#if defined(__clang__)
#define SIMD_UNROLL _Pragma("clang loop unroll(full)")
#else
#define SIMD_UNROLL _Pragma("GCC unroll 64")
#endif

/* Keeps a shared operand in a register: without it gcc folds the load into every multiply-add and becomes load-bound. */
#if defined(__AVX512F__)
#define SIMD_KEEP(x) __asm__("" : "+v"(x))
#elif defined(__x86_64__)
#define SIMD_KEEP(x) __asm__("" : "+x"(x))
#elif defined(__aarch64__)
#define SIMD_KEEP(x) __asm__("" : "+w"(x))
#else
#define SIMD_KEEP(x) ((void)0)
#endif

/* Leaves an operand in memory, to be loaded each time around: without it the compiler, short of a register, spills a sum. */
#define SIMD_RELOAD(x) __asm__("" : "+m"(x))

SIMD_INLINE v32 v32_load(const float *p) { v32 x; memcpy(&x, p, sizeof x); return x; }
SIMD_INLINE v64 v64_load(const double *p) { v64 x; memcpy(&x, p, sizeof x); return x; }
SIMD_INLINE void v32_store(float *p, v32 x) { memcpy(p, &x, sizeof x); }
SIMD_INLINE void v64_store(double *p, v64 x) { memcpy(p, &x, sizeof x); }
SIMD_INLINE v32 v32_set1(float x) { return x - (v32){0}; }
SIMD_INLINE v64 v64_set1(double x) { return x - (v64){0}; }

/* Stores past the caches; p is aligned to a vector. */
#if defined(__AVX512F__)
SIMD_INLINE void v32_stream(float *p, v32 x) { _mm512_stream_ps(p, (__m512)x); }
SIMD_INLINE void v64_stream(double *p, v64 x) { _mm512_stream_pd(p, (__m512d)x); }
#elif defined(__AVX2__)
SIMD_INLINE void v32_stream(float *p, v32 x) { _mm256_stream_ps(p, (__m256)x); }
SIMD_INLINE void v64_stream(double *p, v64 x) { _mm256_stream_pd(p, (__m256d)x); }
#else
SIMD_INLINE void v32_stream(float *p, v32 x) { v32_store(p, x); }
SIMD_INLINE void v64_stream(double *p, v64 x) { v64_store(p, x); }
#endif

/* bf16 is the upper half of a float; rounding to it is to nearest even, and NaN stays NaN. */
typedef uint16_t v32h __attribute__((vector_size(SIMD_BYTES / 2)));
SIMD_INLINE v32 v32_from_bf16(const uint16_t *p)
{
    v32h x;
    memcpy(&x, p, sizeof x);
    return (v32)(__builtin_convertvector(x, v32u) << 16);
}
SIMD_INLINE void v32_to_bf16(uint16_t *p, v32 x)
{
    const v32u bits = (v32u)x, nan = (v32u)(x != x);
    const v32u rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16, quiet = bits >> 16 | 0x40;
    const v32h half = __builtin_convertvector((nan & quiet) | (~nan & rounded), v32h);
    memcpy(p, &half, sizeof half);
}

/* bits' lane ? a : b */
#if defined(__AVX512F__)
SIMD_INLINE v32 v32_select(uint32_t bits, v32 a, v32 b)
{
    return (v32)_mm512_mask_blend_ps((__mmask16)bits, (__m512)b, (__m512)a);
}
SIMD_INLINE v64 v64_select(uint32_t bits, v64 a, v64 b)
{
    return (v64)_mm512_mask_blend_pd((__mmask8)bits, (__m512d)b, (__m512d)a);
}
#else
SIMD_INLINE v32i v32_lanes(uint32_t bits)
{
    static const int32_t lane[8] = {1, 2, 4, 8, 16, 32, 64, 128};
    v32i x;
    memcpy(&x, lane, sizeof x);
    return (x & (int32_t)bits) == x;
}
SIMD_INLINE v64i v64_lanes(uint32_t bits)
{
    static const int64_t lane[4] = {1, 2, 4, 8};
    v64i x;
    memcpy(&x, lane, sizeof x);
    return (x & (int64_t)bits) == x;
}
#if defined(__AVX2__)
SIMD_INLINE v32 v32_select(uint32_t bits, v32 a, v32 b)
{
    return (v32)_mm256_blendv_ps((__m256)b, (__m256)a, (__m256)v32_lanes(bits));
}
SIMD_INLINE v64 v64_select(uint32_t bits, v64 a, v64 b)
{
    return (v64)_mm256_blendv_pd((__m256d)b, (__m256d)a, (__m256d)v64_lanes(bits));
}
#else
SIMD_INLINE v32 v32_select(uint32_t bits, v32 a, v32 b)
{
    const v32i m = v32_lanes(bits);
    return (v32)((m & (v32i)a) | (~m & (v32i)b));
}
SIMD_INLINE v64 v64_select(uint32_t bits, v64 a, v64 b)
{
    const v64i m = v64_lanes(bits);
    return (v64)((m & (v64i)a) | (~m & (v64i)b));
}
#endif
#endif

/* a > b ? a : b, so b where a is NaN. */
#if defined(__AVX512F__)
SIMD_INLINE v32 v32_max(v32 a, v32 b) { return (v32)_mm512_max_ps((__m512)a, (__m512)b); }
SIMD_INLINE v64 v64_max(v64 a, v64 b) { return (v64)_mm512_max_pd((__m512d)a, (__m512d)b); }
#elif defined(__AVX2__)
SIMD_INLINE v32 v32_max(v32 a, v32 b) { return (v32)_mm256_max_ps((__m256)a, (__m256)b); }
SIMD_INLINE v64 v64_max(v64 a, v64 b) { return (v64)_mm256_max_pd((__m256d)a, (__m256d)b); }
#elif defined(__SSE2__)
SIMD_INLINE v32 v32_max(v32 a, v32 b) { return (v32)_mm_max_ps((__m128)a, (__m128)b); }
SIMD_INLINE v64 v64_max(v64 a, v64 b) { return (v64)_mm_max_pd((__m128d)a, (__m128d)b); }
#else
SIMD_INLINE v32 v32_max(v32 a, v32 b)
{
    const v32i m = a > b;
    return (v32)((m & (v32i)a) | (~m & (v32i)b));
}
SIMD_INLINE v64 v64_max(v64 a, v64 b)
{
    const v64i m = a > b;
    return (v64)((m & (v64i)a) | (~m & (v64i)b));
}
#endif

#define SIMD_LOG2_E 1.4426950408889634

/* 2^t for t <= 127 (f64: 1023), f32 to 3 units of 2^-24: what softmax takes, whose t = score log2(e) - base is one
 * multiply-add, with a rounding error that grows with -t and vanishes in 2^t. NaN stays NaN. Below the normal range the
 * result may be the smallest normal number, not zero; above t's range, as in lanes that a mask hides, it may be anything. */
enum { SIMD_EXPS = 4 }; /* at once, one operation after the other of all: alone an exponential is one long chain */
SIMD_INLINE void v32_exp2s(int count, v32 *t)
{
    v32 f[SIMD_EXPS], p[SIMD_EXPS];
#if defined(__AVX512F__)
    const float c[] = {1.8671298e-3f, 9.0170310e-3f, 5.5799913e-2f, 2.4016444e-1f, 6.9315130e-1f, 1.0f};
    SIMD_UNROLL
    for (int i = 0; i < count; i++)
        f[i] = (v32)_mm512_reduce_ps((__m512)t[i], 0x09); /* t - floor(t) */
#else
    const float c[] = {1.32647273e-3f, 9.67151299e-3f, 5.55073358e-2f, 2.40222424e-1f, 6.93147004e-1f, 1.0f};
    v32u n[SIMD_EXPS];
    SIMD_UNROLL
    for (int i = 0; i < count; i++) {
        const v32 x = v32_max(v32_set1(-126.0f), t[i]);
#if defined(__AVX2__)
        n[i] = (v32u)_mm256_cvtps_epi32((__m256)x);
        f[i] = x - (v32)_mm256_round_ps((__m256)x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
#else
        const float round = 12582912.0f; /* 1.5 2^23 */
        n[i] = (v32u)(x + round);
        f[i] = x - ((v32)n[i] - round);
#endif
    }
#endif
    SIMD_UNROLL
    for (int i = 0; i < count; i++)
        p[i] = v32_set1(c[0]);
    SIMD_UNROLL
    for (int k = 1; k < 6; k++) {
        SIMD_UNROLL
        for (int i = 0; i < count; i++)
            p[i] = p[i] * f[i] + c[k];
    }
    SIMD_UNROLL
    for (int i = 0; i < count; i++)
#if defined(__AVX512F__)
        t[i] = (v32)_mm512_scalef_ps((__m512)p[i], (__m512)t[i]);
#else
        t[i] = (v32)((v32u)p[i] + (n[i] << 23));
#endif
}
SIMD_INLINE v32 v32_exp2(v32 t)
{
    v32_exp2s(1, &t);
    return t;
}
SIMD_INLINE v64 v64_exp2(v64 t)
{
    const double round = 6755399441055744.0; /* 1.5 2^52: the sum leaves the nearest integer in the low bits */
    t = v64_max(v64_set1(-1022.0), t);
    const v64 n = t + round;
    const v64 r = (t - (n - round)) * 0.69314718055994531;
    v64 p = v64_set1(1.0 / 6227020800.0);
    p = p * r + 1.0 / 479001600.0;
    p = p * r + 1.0 / 39916800.0;
    p = p * r + 1.0 / 3628800.0;
    p = p * r + 1.0 / 362880.0;
    p = p * r + 1.0 / 40320.0;
    p = p * r + 1.0 / 5040.0;
    p = p * r + 1.0 / 720.0;
    p = p * r + 1.0 / 120.0;
    p = p * r + 1.0 / 24.0;
    p = p * r + 1.0 / 6.0;
    p = p * r + 0.5;
    p = p * (r * r) + r + 1.0;
    return (v64)((v64u)p + ((v64u)n << 52));
}

SIMD_INLINE void v64_exp2s(int count, v64 *t)
{
    SIMD_UNROLL
    for (int i = 0; i < count; i++)
        t[i] = v64_exp2(t[i]);
}

/* log(x) of normal x > 0 to 2 ulp; infinity and NaN stay. x = m 2^n with m in sqrt(1/2) .. sqrt(2), log m by a polynomial. */
SIMD_INLINE v32 v32_log(v32 x)
{
    const v32i bits = (v32i)x - 0x3f3504f3;
    const v32 n = __builtin_convertvector(bits >> 23, v32);
    const v32 m = (v32)((bits & 0x7fffff) + 0x3f3504f3) - 1.0f;
    v32 p = v32_set1(7.0376836292e-2f);
    p = p * m - 1.1514610310e-1f;
    p = p * m + 1.1676998740e-1f;
    p = p * m - 1.2420140846e-1f;
    p = p * m + 1.4249322787e-1f;
    p = p * m - 1.6668057665e-1f;
    p = p * m + 2.0000714765e-1f;
    p = p * m - 2.4999993993e-1f;
    p = p * m + 3.3333331174e-1f;
    const v32 square = m * m;
    const v32 y = (m + (p * m * square - 0.5f * square - n * 2.12194440e-4f)) + n * 0.693359375f;
    const v32i finite = x < v32_set1(__builtin_inff());
    return (v32)((finite & (v32i)y) | (~finite & (v32i)x));
}
SIMD_INLINE v64 v64_log(v64 x)
{
    for (size_t i = 0; i < sizeof x / sizeof(double); i++)
        x[i] = __builtin_log(x[i]);
    return x;
}

#if defined(__AVX512F__)
SIMD_INLINE float v32_sum(v32 x) { return _mm512_reduce_add_ps((__m512)x); }
SIMD_INLINE float v32_largest(v32 x) { return _mm512_reduce_max_ps((__m512)x); }
#elif defined(__AVX2__)
SIMD_INLINE float v32_sum(v32 x)
{
    __m128 s = _mm_add_ps(_mm256_castps256_ps128((__m256)x), _mm256_extractf128_ps((__m256)x, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}
SIMD_INLINE float v32_largest(v32 x)
{
    __m128 m = _mm_max_ps(_mm256_castps256_ps128((__m256)x), _mm256_extractf128_ps((__m256)x, 1));
    m = _mm_max_ps(m, _mm_movehl_ps(m, m));
    return _mm_cvtss_f32(_mm_max_ss(m, _mm_movehdup_ps(m)));
}
#else
SIMD_INLINE float v32_sum(v32 x)
{
    float s = 0;
    for (size_t i = 0; i < sizeof x / sizeof s; i++)
        s += x[i];
    return s;
}
SIMD_INLINE float v32_largest(v32 x)
{
    float m = x[0];
    for (size_t i = 1; i < sizeof x / sizeof m; i++)
        m = x[i] > m ? x[i] : m;
    return m;
}
#endif
SIMD_INLINE double v64_sum(v64 x)
{
    double s = 0;
    for (size_t i = 0; i < sizeof x / sizeof s; i++)
        s += x[i];
    return s;
}
SIMD_INLINE double v64_largest(v64 x)
{
    double m = x[0];
    for (size_t i = 1; i < sizeof x / sizeof m; i++)
        m = x[i] > m ? x[i] : m;
    return m;
}

/* p[index] per lane, 0 <= index < 2 lanes; reads all of p[0 .. 2 lanes - 1]. SIMD_PICK: v32_pick does it from registers. */
#if defined(__AVX512F__)
#define SIMD_PICK 1
SIMD_INLINE v32 v32_pick(v32 a, v32 b, v32i index)
{
    return (v32)_mm512_permutex2var_ps((__m512)a, (__m512i)index, (__m512)b);
}
SIMD_INLINE v64 v64_pick(v64 a, v64 b, v64i index)
{
    return (v64)_mm512_permutex2var_pd((__m512d)a, (__m512i)index, (__m512d)b);
}
/* The elements from n on of a and b in a row, n <= 8. */
#define SIMD_SLIDES(n, slide)                                                                                        \
    switch (n) {                                                                                                     \
    case 1: return slide(1);                                                                                         \
    case 2: return slide(2);                                                                                         \
    case 3: return slide(3);                                                                                         \
    case 4: return slide(4);                                                                                         \
    case 5: return slide(5);                                                                                         \
    case 6: return slide(6);                                                                                         \
    case 7: return slide(7);                                                                                         \
    default: break;                                                                                                  \
    }
SIMD_INLINE v32 v32_slide(v32 a, v32 b, int n)
{
#define SIMD_SLIDE(n) (v32)_mm512_alignr_epi32((__m512i)b, (__m512i)a, n)
    SIMD_SLIDES(n, SIMD_SLIDE)
    return n ? SIMD_SLIDE(8) : a;
#undef SIMD_SLIDE
}
SIMD_INLINE v64 v64_slide(v64 a, v64 b, int n)
{
#define SIMD_SLIDE(n) (v64)_mm512_alignr_epi64((__m512i)b, (__m512i)a, n)
    SIMD_SLIDES(n, SIMD_SLIDE)
    return n ? b : a;
#undef SIMD_SLIDE
}
SIMD_INLINE v32 v32_near(const float *p, v32i index) { return v32_pick(v32_load(p), v32_load(p + 16), index); }
SIMD_INLINE v64 v64_near(const double *p, v64i index) { return v64_pick(v64_load(p), v64_load(p + 8), index); }
/* x[index] per lane, on other pipes than multiply-adds if those are busy. */
#define SIMD_PERMUTE 1
SIMD_INLINE v32 v32_permute(v32 x, v32i index) { return (v32)_mm512_permutexvar_ps((__m512i)index, (__m512)x); }
SIMD_INLINE v64 v64_permute(v64 x, v64i index) { return (v64)_mm512_permutexvar_pd((__m512i)index, (__m512d)x); }
#else
#if defined(__AVX2__)
/* x[index] per lane, on other pipes than multiply-adds. */
#define SIMD_PERMUTE 1
SIMD_INLINE v32 v32_permute(v32 x, v32i index)
{
    return (v32)_mm256_permutevar8x32_ps((__m256)x, (__m256i)index);
}
SIMD_INLINE v64 v64_permute(v64 x, v64i index)
{
    const v64i first = index << 1;
    return (v64)_mm256_permutevar8x32_ps((__m256)x, (__m256i)(first | (first + 1) << 32));
}
SIMD_INLINE v32 v32_near(const float *p, v32i index)
{
    const __m256 low = _mm256_permutevar8x32_ps(_mm256_loadu_ps(p), (__m256i)index);
    const __m256 high = _mm256_permutevar8x32_ps(_mm256_loadu_ps(p + 8), (__m256i)index);
    return (v32)_mm256_blendv_ps(low, high, (__m256)(index << 28));
}
#else
SIMD_INLINE v32 v32_near(const float *p, v32i index)
{
    v32 x;
    for (size_t i = 0; i < sizeof x / sizeof *p; i++)
        x[i] = p[index[i]];
    return x;
}
#endif
SIMD_INLINE v64 v64_near(const double *p, v64i index)
{
    v64 x;
    for (size_t i = 0; i < sizeof x / sizeof *p; i++)
        x[i] = p[index[i]];
    return x;
}
#endif

/* Transposes a square of lanes x lanes held in rows. SIMD_TRANSPOSE is defined where v32_transpose exists. */
#if defined(__AVX512F__)
#define SIMD_TRANSPOSE 1
SIMD_INLINE void v32_transpose(v32 *row)
{
    __m512 a[16], b[16];
    SIMD_UNROLL
    for (int i = 0; i < 8; i++) {
        a[2 * i] = _mm512_unpacklo_ps((__m512)row[2 * i], (__m512)row[2 * i + 1]);
        a[2 * i + 1] = _mm512_unpackhi_ps((__m512)row[2 * i], (__m512)row[2 * i + 1]);
    }
    SIMD_UNROLL
    for (int i = 0; i < 4; i++) {
        SIMD_UNROLL
        for (int j = 0; j < 2; j++) {
            const __m512d x = _mm512_castps_pd(a[4 * i + j]), y = _mm512_castps_pd(a[4 * i + 2 + j]);
            b[4 * i + 2 * j] = _mm512_castpd_ps(_mm512_unpacklo_pd(x, y));
            b[4 * i + 2 * j + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(x, y));
        }
    }
    SIMD_UNROLL
    for (int j = 0; j < 4; j++) {
        const __m512 t0 = _mm512_shuffle_f32x4(b[j], b[4 + j], 0x88), t1 = _mm512_shuffle_f32x4(b[j], b[4 + j], 0xdd);
        const __m512 t2 = _mm512_shuffle_f32x4(b[8 + j], b[12 + j], 0x88);
        const __m512 t3 = _mm512_shuffle_f32x4(b[8 + j], b[12 + j], 0xdd);
        row[j] = (v32)_mm512_shuffle_f32x4(t0, t2, 0x88);
        row[4 + j] = (v32)_mm512_shuffle_f32x4(t1, t3, 0x88);
        row[8 + j] = (v32)_mm512_shuffle_f32x4(t0, t2, 0xdd);
        row[12 + j] = (v32)_mm512_shuffle_f32x4(t1, t3, 0xdd);
    }
}
#elif defined(__AVX2__)
#define SIMD_TRANSPOSE 1
SIMD_INLINE void v32_transpose(v32 *row)
{
    __m256 a[8], b[8];
    SIMD_UNROLL
    for (int i = 0; i < 4; i++) {
        a[2 * i] = _mm256_unpacklo_ps((__m256)row[2 * i], (__m256)row[2 * i + 1]);
        a[2 * i + 1] = _mm256_unpackhi_ps((__m256)row[2 * i], (__m256)row[2 * i + 1]);
    }
    SIMD_UNROLL
    for (int i = 0; i < 2; i++) {
        SIMD_UNROLL
        for (int j = 0; j < 2; j++) {
            b[4 * i + 2 * j] = _mm256_shuffle_ps(a[4 * i + j], a[4 * i + 2 + j], 0x44);
            b[4 * i + 2 * j + 1] = _mm256_shuffle_ps(a[4 * i + j], a[4 * i + 2 + j], 0xee);
        }
    }
    SIMD_UNROLL
    for (int j = 0; j < 4; j++) {
        row[j] = (v32)_mm256_permute2f128_ps(b[j], b[4 + j], 0x20);
        row[4 + j] = (v32)_mm256_permute2f128_ps(b[j], b[4 + j], 0x31);
    }
}
#endif

#endif
