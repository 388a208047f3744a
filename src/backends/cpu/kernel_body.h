/* The kernels, once per element type: kernels_*.c includes this file for float and again for double (KERNEL_DOUBLE), after
 * simd.h, with KERNEL_ISA and KERNEL_TABLE naming the result. What each kernel computes stands in kernels.h. */
#if defined(KERNEL_DOUBLE)
#define NAME(x) x##_f64
#define REAL double
#define VEC v64
#define OP(x) v64_##x
#define INDEX v64i
#define LOWEST (-DBL_MAX)
#else
#define NAME(x) x##_f32
#define REAL float
#define VEC v32
#define OP(x) v32_##x
#define INDEX v32i
#define LOWEST (-FLT_MAX)
#endif

enum {
    NAME(LANES) = SIMD_BYTES / (int)sizeof(REAL),
    /* 6 rows by 4 vectors leave room for operands in 32 registers, 6 by 2 in 16. */
    NAME(BLOCK_ROWS) = CPU_BLOCK_ROWS,
    NAME(BLOCK_VECTORS) = SIMD_REGISTERS == 32 ? 4 : 2,
    NAME(PANEL) = NAME(BLOCK_VECTORS) * NAME(LANES),
    /* Rows of a packed panel that stay in the first-level cache while all row blocks pass over them: 16 KiB. */
    NAME(DEPTH_BLOCK) = 16384 / (NAME(PANEL) * (int)sizeof(REAL)),
    NAME(PACK_AHEAD) = 16 /* rows fetched ahead of the one being packed */
};

SIMD_INLINE int64_t NAME(round_up)(int64_t n)
{
    return (n + NAME(LANES) - 1) / NAME(LANES) * NAME(LANES);
}

/* Bits of the lanes from column c on: the mask, if any, cut at n. */
SIMD_INLINE uint32_t NAME(lane_bits)(const uint32_t *mask, int64_t c, int64_t n)
{
    const uint32_t all = (1u << NAME(LANES)) - 1;
    const uint32_t seen = mask ? mask[c / 32] >> (c % 32) & all : all;
    return c + NAME(LANES) <= n ? seen : seen & ((1u << (n - c)) - 1);
}

/* Dense runs are spelled out apart from strided ones so that compilers vectorise them. */
#define CONVERT_RUN(convert)                                                                                         \
    do {                                                                                                             \
        if (stride == 1)                                                                                             \
            for (; i < n; i++)                                                                                       \
                to[i] = convert(from[i]);                                                                            \
        else                                                                                                         \
            for (; i < n; i++)                                                                                       \
                to[i] = convert(from[i * stride]);                                                                   \
    } while (0)

static void NAME(load_row)(void *real, const void *source, nf_dtype dtype, int64_t stride, int64_t n)
{
    REAL *restrict to = real;
    int64_t i = 0;
    if (dtype == NF_F64) {
        const double *from = source;
        CONVERT_RUN((REAL));
    } else if (dtype == NF_F32) {
        const float *from = source;
        CONVERT_RUN((REAL));
    } else if (dtype == NF_BF16) {
        const uint16_t *from = source;
#if !defined(KERNEL_DOUBLE)
        for (; stride == 1 && i + NAME(LANES) <= n; i += NAME(LANES))
            v32_store(to + i, v32_from_bf16(from + i));
#endif
        CONVERT_RUN((REAL)nf_bf16_to_f32);
    } else {
        const uint16_t *from = source;
#if defined(__F16C__) && !defined(KERNEL_DOUBLE)
        for (; stride == 1 && i + 8 <= n; i += 8)
            _mm256_storeu_ps(to + i, _mm256_cvtph_ps(_mm_loadu_si128((const void *)(from + i))));
#endif
        CONVERT_RUN((REAL)nf_f16_to_f32);
    }
}

#undef CONVERT_RUN

SIMD_INLINE bool NAME(is_dense)(nf_dtype dtype, int64_t stride)
{
    return stride == 1 && dtype == (sizeof(REAL) == sizeof(double) ? NF_F64 : NF_F32);
}

/* Rows are short: a loop of vectors beats a call of memcpy. */
SIMD_INLINE void NAME(copy_row)(REAL *to, const REAL *from, int64_t n)
{
    int64_t i = 0;
    for (; i + NAME(LANES) <= n; i += NAME(LANES))
        OP(store)(to + i, OP(load)(from + i));
    for (; i < n; i++)
        to[i] = from[i];
}

static void NAME(load_rows)(void *rows, int64_t row_stride, const void *const *sources, nf_dtype dtype, int64_t stride,
                            int64_t count, int64_t n)
{
    enum { LOAD_AHEAD = 16 }; /* rows lie too far apart for the hardware to foresee */
    const int64_t whole = NAME(round_up)(n), element = (int64_t)nf_dtype_size(dtype);
    for (int64_t r = 0; r < count; r++) {
        REAL *to = (REAL *)rows + r * row_stride;
        if (stride == 1 && r + LOAD_AHEAD < count)
            for (int64_t byte = 0; byte < n * element; byte += 64)
                __builtin_prefetch((const char *)sources[r + LOAD_AHEAD] + byte);
        if (NAME(is_dense)(dtype, stride))
            NAME(copy_row)(to, sources[r], n);
        else
            NAME(load_row)(to, sources[r], dtype, stride, n);
        for (int64_t i = n; i < whole; i++)
            to[i] = 0;
    }
}

SIMD_INLINE void NAME(scale_row)(REAL *to, const REAL *from, int64_t n, REAL f)
{
    int64_t i = 0;
    for (; i + NAME(LANES) <= n; i += NAME(LANES))
        OP(store)(to + i, OP(load)(from + i) * f);
    for (; i < n; i++)
        to[i] = from[i] * f;
}

static void NAME(store_row)(void *target, nf_dtype dtype, int64_t stride, int64_t n, const REAL *from, REAL f)
{
    if (dtype == NF_F64) {
        double *to = target;
        for (int64_t i = 0; i < n; i++)
            to[i * stride] = (double)(from[i] * f);
    } else if (dtype == NF_F32) {
        float *to = target;
        for (int64_t i = 0; i < n; i++)
            to[i * stride] = (float)(from[i] * f);
    } else if (dtype == NF_BF16) {
        uint16_t *to = target;
        int64_t i = 0;
#if !defined(KERNEL_DOUBLE)
        for (; stride == 1 && i + NAME(LANES) <= n; i += NAME(LANES))
            v32_to_bf16(to + i, v32_load(from + i) * f);
#endif
        for (; i < n; i++)
            to[i * stride] = nf_f32_to_bf16((float)(from[i] * f));
    } else {
        uint16_t *to = target;
        int64_t i = 0;
#if defined(__F16C__) && !defined(KERNEL_DOUBLE)
        for (; stride == 1 && i + 8 <= n; i += 8)
            _mm_storeu_si128((void *)(to + i), _mm256_cvtps_ph(_mm256_loadu_ps(from + i) * f, _MM_FROUND_TO_NEAREST_INT));
#endif
        for (; i < n; i++)
            to[i * stride] = nf_f32_to_f16((float)(from[i] * f));
    }
}

static void NAME(store_rows)(void *const *targets, nf_dtype dtype, int64_t stride, int64_t count, int64_t n,
                             const void *rows, int64_t row_stride, const double *factors)
{
    for (int64_t r = 0; r < count; r++) {
        const REAL *from = (const REAL *)rows + r * row_stride;
        if (NAME(is_dense)(dtype, stride))
            NAME(scale_row)(targets[r], from, n, (REAL)factors[r]);
        else
            NAME(store_row)(targets[r], dtype, stride, n, from, (REAL)factors[r]);
    }
}

static void NAME(add_rows)(void *const *targets, int64_t stride, int64_t count, int64_t n, const void *rows,
                           int64_t row_stride, double factor)
{
    const REAL f = (REAL)factor;
    for (int64_t r = 0; r < count; r++) {
        const REAL *from = (const REAL *)rows + r * row_stride;
        REAL *to = targets[r];
        int64_t i = 0;
        for (; stride == 1 && i + NAME(LANES) <= n; i += NAME(LANES))
            OP(store)(to + i, OP(load)(to + i) + OP(load)(from + i) * f);
        for (; i < n; i++)
            to[i * stride] += from[i] * f;
    }
}

/* x * 0 is 0 for finite x, else NaN, and NaN stays in the sum. */
static bool NAME(all_finite)(const void *const *rows, int64_t count, int64_t n)
{
    VEC bad = {0};
    REAL bad_tail = 0;
    for (int64_t r = 0; r < count; r++) {
        const REAL *row = rows[r];
        int64_t i = 0;
        for (; i + NAME(LANES) <= n; i += NAME(LANES))
            bad += OP(load)(row + i) * (REAL)0;
        for (; i < n; i++)
            bad_tail += row[i] * (REAL)0;
    }
    return OP(sum)(bad) + bad_tail == 0;
}

/* LANES columns of a panel from as many rows; columns past count are zero. The `next` rows after them are fetched ahead. */
static void NAME(transpose_strip)(REAL *to, int64_t width, const void *const *rows, int64_t count, int64_t next, int64_t n)
{
    int64_t k = 0;
    for (int64_t j = 0; j < next; j++)
        for (int64_t c = 0; c < n; c += 64 / (int)sizeof(REAL))
            __builtin_prefetch((const REAL *)rows[NAME(LANES) + j] + c);
#if defined(SIMD_TRANSPOSE) && !defined(KERNEL_DOUBLE)
    for (; k + NAME(LANES) <= n; k += NAME(LANES)) {
        VEC square[NAME(LANES)];
        SIMD_UNROLL
        for (int j = 0; j < NAME(LANES); j++)
            square[j] = j < count ? OP(load)((const REAL *)rows[j] + k) : (VEC){0};
        OP(transpose)(square);
        SIMD_UNROLL
        for (int j = 0; j < NAME(LANES); j++)
            OP(store)(to + (k + j) * width, square[j]);
    }
#endif
    for (; k < n; k++)
        for (int64_t j = 0; j < NAME(LANES); j++)
            to[k * width + j] = j < count ? ((const REAL *)rows[j])[k] : 0;
}

static void NAME(pack_transposed)(void *packed, const void *const *rows, int64_t count, int64_t n)
{
    REAL *to = packed;
    for (int64_t first = 0; first < count; first += NAME(PANEL)) {
        const int64_t left = count - first, width = left < NAME(PANEL) ? NAME(round_up)(left) : NAME(PANEL);
        for (int64_t j = 0; j < width; j += NAME(LANES)) {
            const int64_t strip = left - j < NAME(LANES) ? left - j : NAME(LANES);
            const int64_t next = left - j - strip < NAME(LANES) ? left - j - strip : NAME(LANES);
            NAME(transpose_strip)(to + j, width, rows + first + j, strip, next, n);
        }
        to += width * n;
    }
}

static void NAME(pack_line)(void *line, int64_t stride, const void *const *rows, int64_t count, int64_t n)
{
    for (int64_t j = 0; j < count; j += NAME(LANES)) {
        const int64_t strip = count - j < NAME(LANES) ? count - j : NAME(LANES);
        NAME(transpose_strip)((REAL *)line + j, stride, rows + j, strip, 0, n);
    }
}

static void NAME(pack_straight)(void *packed, const void *const *rows, int64_t count, int64_t n)
{
    REAL *to = packed;
    for (int64_t first = 0; first < n; first += NAME(PANEL)) {
        const int64_t left = n - first, width = left < NAME(PANEL) ? NAME(round_up)(left) : NAME(PANEL);
        for (int64_t k = 0; k < count; k++, to += width) {
            const REAL *row = (const REAL *)rows[k] + first;
            const REAL *later = (const REAL *)rows[k + NAME(PACK_AHEAD) < count ? k + NAME(PACK_AHEAD) : k] + first;
            int64_t j = 0;
            for (; j + NAME(LANES) <= left && j < width; j += NAME(LANES)) {
                __builtin_prefetch(later + j);
                OP(store)(to + j, OP(load)(row + j));
            }
            for (; j < width; j++)
                to[j] = j < left ? row[j] : 0;
        }
    }
}

/* c (+)= a b for one block of registers: rows x vectors accumulators. Element (r, k) of a lies at r * a_row + k * a_depth.
 * The counts, and one of the strides, are constants where this is inlined. */
SIMD_INLINE void NAME(block)(int rows, int vectors, REAL *c, int64_t c_stride, const REAL *a, int64_t a_row,
                             int64_t a_depth, const REAL *b, int64_t b_stride, int64_t depth, bool accumulate)
{
    VEC sum[NAME(BLOCK_ROWS)][NAME(BLOCK_VECTORS)];
    SIMD_UNROLL
    for (int r = 0; r < rows; r++) {
        SIMD_UNROLL
        for (int v = 0; v < vectors; v++)
            sum[r][v] = accumulate ? OP(load)(c + r * c_stride + v * NAME(LANES)) : (VEC){0};
    }
    for (int64_t k = 0; k < depth; k++) {
        VEC x[NAME(BLOCK_VECTORS)];
        SIMD_UNROLL
        for (int v = 0; v < vectors; v++) {
            x[v] = OP(load)(b + k * b_stride + v * NAME(LANES));
            SIMD_KEEP(x[v]);
        }
        SIMD_UNROLL
        for (int r = 0; r < rows; r++) {
            VEC y = OP(set1)(a[r * a_row + k * a_depth]);
            SIMD_KEEP(y);
            SIMD_UNROLL
            for (int v = 0; v < vectors; v++)
                sum[r][v] += y * x[v];
        }
    }
    SIMD_UNROLL
    for (int r = 0; r < rows; r++) {
        SIMD_UNROLL
        for (int v = 0; v < vectors; v++)
            OP(store)(c + r * c_stride + v * NAME(LANES), sum[r][v]);
    }
}

/* All rows of one panel: blocks of six, then what is left. */
SIMD_INLINE void NAME(panel)(int vectors, REAL *c, int64_t c_stride, const REAL *a, int64_t a_row, int64_t a_depth,
                             const REAL *b, int64_t m, int64_t depth, bool accumulate)
{
    const int64_t width = vectors * NAME(LANES);
    int64_t r = 0;
    for (; r + 6 <= m; r += 6)
        NAME(block)(6, vectors, c + r * c_stride, c_stride, a + r * a_row, a_row, a_depth, b, width, depth, accumulate);
    for (; r + 2 <= m; r += 2)
        NAME(block)(2, vectors, c + r * c_stride, c_stride, a + r * a_row, a_row, a_depth, b, width, depth, accumulate);
    for (; r < m; r++)
        NAME(block)(1, vectors, c + r * c_stride, c_stride, a + r * a_row, a_row, a_depth, b, width, depth, accumulate);
}

/* Panel by panel, so deep that a strip of the panel stays in the first-level cache while all rows pass over it. */
SIMD_INLINE void NAME(multiply)(REAL *c, int64_t c_stride, const REAL *a, int64_t a_row, int64_t a_depth, const REAL *b,
                                int64_t m, int64_t n, int64_t depth, bool accumulate)
{
    for (int64_t first = 0; first < n; first += NAME(PANEL)) {
        const int64_t left = n - first, width = left < NAME(PANEL) ? NAME(round_up)(left) : NAME(PANEL);
        for (int64_t k = 0; k < depth; k += NAME(DEPTH_BLOCK)) {
            const int64_t step = depth - k < NAME(DEPTH_BLOCK) ? depth - k : NAME(DEPTH_BLOCK);
            const REAL *from = a + k * a_depth, *strip = b + first * depth + k * width;
            const bool add = accumulate || k > 0;
            switch (width / NAME(LANES)) {
#if SIMD_REGISTERS == 32
            case 4: NAME(panel)(4, c + first, c_stride, from, a_row, a_depth, strip, m, step, add); break;
            case 3: NAME(panel)(3, c + first, c_stride, from, a_row, a_depth, strip, m, step, add); break;
#endif
            case 2: NAME(panel)(2, c + first, c_stride, from, a_row, a_depth, strip, m, step, add); break;
            default: NAME(panel)(1, c + first, c_stride, from, a_row, a_depth, strip, m, step, add); break;
            }
        }
    }
}

static void NAME(product)(void *c, int64_t c_stride, const void *a, int64_t a_stride, const void *b, int64_t m,
                          int64_t n, int64_t depth, bool accumulate)
{
    NAME(multiply)(c, c_stride, a, a_stride, 1, b, m, n, depth, accumulate);
}

#include "backends/cpu/kernel_part.h"

static void NAME(product_masked)(void *c, int64_t c_stride, const void *a, int64_t a_stride, const void *b, int64_t m,
                                 int64_t n, int64_t depth, const uint32_t *mask, int64_t mask_rows)
{
    for (int64_t r = 0; r < m; r++) {
        const uint32_t *seen = mask + CPU_MASK_WORDS * (r % mask_rows);
        const REAL *weight = (const REAL *)a + r * a_stride;
        for (int64_t first = 0; first < n; first += NAME(PANEL)) {
            const int64_t left = n - first, width = left < NAME(PANEL) ? NAME(round_up)(left) : NAME(PANEL);
            const REAL *panel = (const REAL *)b + first * depth;
            REAL *to = (REAL *)c + r * c_stride + first;
            for (int64_t k = 0; k < depth; k++)
                if (seen[k / 32] >> (k % 32) & 1)
                    for (int64_t j = 0; j < width; j += NAME(LANES))
                        OP(store)(to + j, OP(load)(to + j) + weight[k] * OP(load)(panel + k * width + j));
        }
    }
}

static void NAME(product_transposed_masked)(void *c, int64_t c_stride, const void *a, int64_t a_stride, const void *b,
                                            int64_t m, int64_t n, int64_t depth, const uint32_t *mask,
                                            int64_t mask_rows)
{
    for (int64_t first = 0; first < n; first += NAME(PANEL)) {
        const int64_t left = n - first, width = left < NAME(PANEL) ? NAME(round_up)(left) : NAME(PANEL);
        for (int64_t k = 0; k < depth; k++) {
            const uint32_t *seen = mask + CPU_MASK_WORDS * (k % mask_rows);
            const REAL *weight = (const REAL *)a + k * a_stride, *row = (const REAL *)b + first * depth + k * width;
            for (int64_t r = 0; r < m; r++) {
                if (!(seen[r / 32] >> (r % 32) & 1))
                    continue;
                REAL *to = (REAL *)c + r * c_stride + first;
                for (int64_t j = 0; j < width; j += NAME(LANES))
                    OP(store)(to + j, OP(load)(to + j) + weight[r] * OP(load)(row + j));
            }
        }
    }
}

/* Raises a row's running max to the largest of its new scores, shrinks its sum and out to match, and gives the base of its
 * exponentials. */
SIMD_INLINE REAL NAME(raise_max)(REAL largest, REAL *max, REAL *sum, REAL *out, int64_t out_n)
{
    const REAL old = *max, new = largest > old ? largest : old;
    /* A row that has seen nothing, or only NaN, has no max: any finite base serves, and NaN must get through. */
    const REAL base = new == (REAL)-INFINITY ? 0 : new;
    if (new != old) {
        const VEC shrink = OP(exp2)(OP(set1)((old - base) * (REAL)SIMD_LOG2_E));
        *max = new;
        *sum *= shrink[0];
        for (int64_t c = 0; c < out_n; c += NAME(LANES))
            OP(store)(out + c, OP(load)(out + c) * shrink);
    }
    return base;
}

/* One row of softmax, columns first .. end - 1; first is a multiple of LANES. */
SIMD_INLINE void NAME(softmax_row)(REAL *row, int64_t first, int64_t end, double scale, const uint32_t *seen, REAL *max,
                                   REAL *sum, REAL *out, int64_t out_n)
{
    const VEC minus_infinity = OP(set1)((REAL)-INFINITY), zero = {0};
    const REAL factor = (REAL)scale, factor2 = (REAL)(scale * SIMD_LOG2_E);
    VEC top = minus_infinity, total = zero;
    for (int64_t c = first; c < end; c += NAME(LANES)) {
        const VEC x = OP(load)(row + c) * factor;
        top = OP(max)(OP(select)(NAME(lane_bits)(seen, c, end), x, minus_infinity), top);
    }
    const REAL base = NAME(raise_max)(OP(largest)(top), max, sum, out, out_n) * (REAL)SIMD_LOG2_E;
    for (int64_t c = first; c < end; c += NAME(LANES)) {
        const VEC p = OP(exp2)(OP(load)(row + c) * factor2 - base);
        const VEC visible = OP(select)(NAME(lane_bits)(seen, c, end), p, zero);
        OP(store)(row + c, visible);
        total += visible;
    }
    *sum += OP(sum)(total);
}

/* Rows of whole vectors without a mask, scale not negative: the exponentials of a row are taken alongside the search for the
 * largest score of the next, so that neither waits for the other's chain of operations. */
static void NAME(softmax_plain)(REAL *s, int64_t s_stride, int64_t m, int64_t n, double scale, REAL *max, REAL *sum,
                                REAL *out, int64_t out_stride, int64_t out_n)
{
    const REAL factor = (REAL)scale, factor2 = (REAL)(scale * SIMD_LOG2_E);
    const VEC minus_infinity = OP(set1)((REAL)-INFINITY);
    VEC top = minus_infinity;
    for (int64_t c = 0; c < n; c += NAME(LANES))
        top = OP(max)(OP(load)(s + c), top);
    for (int64_t r = 0; r < m; r++) {
        REAL *row = s + r * s_stride;
        const REAL *next = r + 1 < m ? row + s_stride : row;
        const REAL largest = OP(largest)(top) * factor;
        const REAL base = NAME(raise_max)(largest, max + r, sum + r, out + r * out_stride, out_n) * (REAL)SIMD_LOG2_E;
        VEC total = {0};
        top = minus_infinity;
        for (int64_t c = 0; c < n; c += NAME(LANES)) {
            const VEC p = OP(exp2)(OP(load)(row + c) * factor2 - base);
            top = OP(max)(OP(load)(next + c), top);
            OP(store)(row + c, p);
            total += p;
        }
        sum[r] += OP(sum)(total);
    }
}

static void NAME(softmax)(void *s, int64_t s_stride, int64_t m, int64_t n, double scale, const uint32_t *mask,
                          int64_t mask_rows, void *max, void *sum, void *out, int64_t out_stride, int64_t out_n)
{
    if (!mask && n % NAME(LANES) == 0 && scale >= 0) {
        NAME(softmax_plain)(s, s_stride, m, n, scale, max, sum, out, out_stride, out_n);
        return;
    }
    for (int64_t r = 0; r < m; r++)
        NAME(softmax_row)((REAL *)s + r * s_stride, 0, n, scale, mask ? mask + CPU_MASK_WORDS * (r % mask_rows) : NULL,
                          (REAL *)max + r, (REAL *)sum + r, (REAL *)out + r * out_stride, out_n);
}

static void NAME(attend)(const cpu_meeting *t)
{
    NAME(product)(t->scores, t->score_stride, t->q, t->q_stride, t->k, t->rows, t->columns, t->head_dim, false);
    NAME(softmax)(t->scores, t->score_stride, t->rows, t->columns, t->scale, NULL, 1, t->max, t->sum, t->out,
                  t->out_stride, t->out_stride);
    NAME(product)(t->out, t->out_stride, t->scores, t->score_stride, t->v, t->rows, t->value_dim, t->columns, true);
}

/* One vector of gradient; scale and lse in base 2. Bits NULL: all lanes are visible. */
SIMD_INLINE void NAME(gradient_step)(REAL *s, REAL *dp, VEC scale, VEC lse, VEC delta, const uint32_t *bits)
{
    const VEC zero = {0};
    VEC p = OP(exp2)(OP(load)(s) * scale - lse), ds = p * (OP(load)(dp) - delta);
    if (bits) {
        p = OP(select)(*bits, p, zero);
        ds = OP(select)(*bits, ds, zero);
    }
    OP(store)(s, p);
    OP(store)(dp, ds);
}

static void NAME(gradient)(void *s, void *dp, int64_t stride, int64_t m, int64_t n, double scale, const uint32_t *mask,
                           int64_t mask_rows, const void *lse, const void *delta, bool by_column)
{
    const VEC scale2 = OP(set1)((REAL)(scale * SIMD_LOG2_E));
    const REAL log2_e = (REAL)SIMD_LOG2_E;
    const int64_t open = mask ? 0 : n / NAME(LANES) * NAME(LANES); /* columns that need no bits */
    for (int64_t r = 0; r < m; r++) {
        REAL *row = (REAL *)s + r * stride, *drow = (REAL *)dp + r * stride;
        const uint32_t *seen = mask ? mask + CPU_MASK_WORDS * (r % mask_rows) : NULL;
        const REAL *l = (const REAL *)lse + (by_column ? 0 : r), *d = (const REAL *)delta + (by_column ? 0 : r);
        const VEC row_lse = OP(set1)(*l * log2_e), row_delta = OP(set1)(*d);
        if (!by_column) {
            for (int64_t c = 0; c < open; c += NAME(LANES))
                NAME(gradient_step)(row + c, drow + c, scale2, row_lse, row_delta, NULL);
        } else {
            for (int64_t c = 0; c < open; c += NAME(LANES))
                NAME(gradient_step)(row + c, drow + c, scale2, OP(load)(l + c) * log2_e, OP(load)(d + c), NULL);
        }
        for (int64_t c = open; c < n; c += NAME(LANES)) {
            const uint32_t bits = NAME(lane_bits)(seen, c, n);
            NAME(gradient_step)(row + c, drow + c, scale2, by_column ? OP(load)(l + c) * log2_e : row_lse,
                                by_column ? OP(load)(d + c) : row_delta, &bits);
        }
    }
}

static double NAME(dot)(const void *a, const void *b, int64_t n)
{
    const REAL *x = a, *y = b;
    VEC sum = {0};
    double rest = 0;
    int64_t i = 0;
    for (; i + NAME(LANES) <= n; i += NAME(LANES))
        sum += OP(load)(x + i) * OP(load)(y + i);
    for (; i < n; i++)
        rest += (double)x[i] * (double)y[i];
    return (double)OP(sum)(sum) + rest;
}

#include "backends/cpu/kernel_reach.h"
#include "backends/cpu/kernel_stencil.h"
#include "backends/cpu/kernel_stencil_backward.h"
#include "backends/cpu/kernel_stencil_forward.h"

const cpu_kernels KERNEL_TABLE = {
    .isa = KERNEL_ISA,
    .real_size = sizeof(REAL),
    .lanes = NAME(LANES),
    .panel = NAME(PANEL),
    .load_rows = NAME(load_rows),
    .store_rows = NAME(store_rows),
    .add_rows = NAME(add_rows),
    .all_finite = NAME(all_finite),
    .pack_transposed = NAME(pack_transposed),
    .pack_straight = NAME(pack_straight),
    .product = NAME(product),
    .product_part = NAME(product_part),
    .product_transposed = NAME(product_transposed),
    .product_masked = NAME(product_masked),
    .product_transposed_masked = NAME(product_transposed_masked),
    .product_to_reach = NAME(product_to_reach),
    .product_from_reach = NAME(product_from_reach),
    .softmax = NAME(softmax),
    .softmax_reach = NAME(softmax_reach),
    .attend = NAME(attend),
    .gradient = NAME(gradient),
    .pack_line = NAME(pack_line),
    .stencil_scores = NAME(stencil_scores),
    .stencil_row_scores = NAME(stencil_row_scores),
    .stencil_softmax = NAME(stencil_softmax),
    .stencil_gradient = NAME(stencil_gradient),
    .stencil_close = NAME(stencil_close),
    .stencil_values = NAME(stencil_values),
    .stencil_row_values = NAME(stencil_row_values),
    .stencil_scatter = NAME(stencil_scatter),
    .dot = NAME(dot),
};

#undef NAME
#undef REAL
#undef VEC
#undef OP
#undef INDEX
#undef LOWEST
