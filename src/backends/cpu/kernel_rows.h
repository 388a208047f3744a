/* Rows in and out of tensors, whatever their type, and packed into panels. Included by kernel_body.h. */

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
    VEC bad[4] = {{0}}; /* four sums wait less for one another */
    REAL bad_tail = 0;
    for (int64_t r = 0; r < count; r++) {
        const REAL *row = rows[r];
        int64_t i = 0;
        for (; i + 4 * NAME(LANES) <= n; i += 4 * NAME(LANES)) {
            SIMD_UNROLL
            for (int v = 0; v < 4; v++)
                bad[v] += OP(load)(row + i + v * NAME(LANES)) * (REAL)0;
        }
        for (; i + NAME(LANES) <= n; i += NAME(LANES))
            bad[0] += OP(load)(row + i) * (REAL)0;
        for (; i < n; i++)
            bad_tail += row[i] * (REAL)0;
    }
    return OP(sum)(bad[0] + bad[1] + bad[2] + bad[3]) + bad_tail == 0;
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
