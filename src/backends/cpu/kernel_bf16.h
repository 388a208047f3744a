/* Products of bf16 pairs with vdpbf16ps, for bf16 problems; included after kernel_body.h for float, whose other kernels
 * serve here too. Rows stay float outside and are rounded to bf16 once per product, which is exact for q, k, v and dout and
 * rounds p and ds as tensor-core kernels do. Packed matrices hold pairs: depth rows 2i and 2i + 1 of a column are one
 * 32-bit word. */

enum { PAIR_DEPTH = 128, PAIR_ROWS = 48 }; /* of the rows rounded at once: 12 KiB */

SIMD_INLINE v32 pair_load(const uint32_t *p)
{
    v32 x;
    memcpy(&x, p, sizeof x);
    return x;
}

SIMD_INLINE void pair_store(uint32_t *p, v32 x)
{
    memcpy(p, &x, sizeof x);
}

/* 32 floats as 16 pairs; lanes from n on are zero. */
SIMD_INLINE v32 pair_round(const float *row, int64_t n)
{
    const __mmask16 low = (__mmask16)(n >= 16 ? 0xffff : (1u << n) - 1);
    const __mmask16 high = (__mmask16)(n >= 32 ? 0xffff : n > 16 ? (1u << (n - 16)) - 1 : 0);
    const __m512 a = _mm512_maskz_loadu_ps(low, row), b = high ? _mm512_maskz_loadu_ps(high, row + 16) : _mm512_setzero_ps();
    return (v32)(__m512i)_mm512_cvtne2ps_pbh(b, a);
}

/* The same from 32 elements. */
SIMD_INLINE v32 pair_take(const uint16_t *row, int64_t n)
{
    return (v32)_mm512_maskz_loadu_epi16(n >= 32 ? UINT32_MAX : (1u << n) - 1, row);
}

enum { PACK_AHEAD = 16 }; /* rows of elements lie too far apart for the hardware to foresee */

SIMD_INLINE void fetch_row(const void *row, int64_t n)
{
    for (int64_t i = 0; i < n; i += 2 * LANES_f32)
        __builtin_prefetch((const uint16_t *)row + i);
}

/* LANES columns of pairs from as many rows of n; columns from `left` on are zero. */
SIMD_INLINE void transpose_columns(uint32_t *to, int64_t stride, const void *const *rows, int64_t left, int64_t n,
                                   bool elements)
{
    const int64_t pairs = (n + 1) / 2;
    for (int64_t i = PACK_AHEAD; elements && i < PACK_AHEAD + LANES_f32 && i < left; i++)
        fetch_row(rows[i], n);
    for (int64_t k = 0; k < n; k += 2 * LANES_f32) {
        v32 square[LANES_f32];
        for (int64_t i = 0; i < LANES_f32; i++) {
            const void *row = i < left ? rows[i] : NULL;
            square[i] = !row       ? (v32){0}
                        : elements ? pair_take((const uint16_t *)row + k, n - k)
                                   : pair_round((const float *)row + k, n - k);
        }
        v32_transpose(square);
        const int64_t some = pairs - k / 2 < LANES_f32 ? pairs - k / 2 : LANES_f32;
        for (int64_t i = 0; i < some; i++)
            pair_store(to + (k / 2 + i) * stride, square[i]);
    }
}

SIMD_INLINE void transpose_pairs(void *packed, const void *const *rows, int64_t count, int64_t n, bool elements)
{
    uint32_t *to = packed;
    for (int64_t first = 0; first < count; first += PANEL_f32) {
        const int64_t left = count - first, width = left < PANEL_f32 ? round_up_f32(left) : PANEL_f32;
        for (int64_t j = 0; j < width; j += LANES_f32)
            transpose_columns(to + j, width, rows + first + j, left - j, n, elements);
        to += width * ((n + 1) / 2);
    }
}

static void pack_lines_bf16(void *lines, int64_t stride, const void *const *rows, int64_t count, int64_t n)
{
    for (int64_t j = 0; j < count; j += LANES_f32)
        transpose_columns((uint32_t *)lines + j, stride, rows + j, count - j, n, false);
}

static void pack_transposed_bf16(void *packed, const void *const *rows, int64_t count, int64_t n)
{
    transpose_pairs(packed, rows, count, n, false);
}

static void pack_transposed_elements_bf16(void *packed, const void *const *rows, int64_t count, int64_t n)
{
    transpose_pairs(packed, rows, count, n, true);
}

/* Two rows of at most 16 floats, an element of each in a pair; odd NULL is a row of zeros. */
SIMD_INLINE v32 pair_zip(const float *even, const float *odd, int64_t n)
{
    const __m512i zip = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21, 5,
                                         20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    const __mmask16 some = (__mmask16)(n >= LANES_f32 ? 0xffff : (1u << n) - 1);
    const __m512 high = odd ? _mm512_maskz_loadu_ps(some, odd) : _mm512_setzero_ps();
    const __m512bh both = _mm512_cvtne2ps_pbh(high, _mm512_maskz_loadu_ps(some, even));
    return (v32)_mm512_permutexvar_epi16(zip, (__m512i)both);
}

/* Two rows of at most 16 elements likewise. */
SIMD_INLINE v32 pair_zip_elements(const uint16_t *even, const uint16_t *odd, int64_t n)
{
    const __mmask16 some = (__mmask16)(n >= LANES_f32 ? 0xffff : (1u << n) - 1);
    const __m512i low = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(some, even));
    const __m512i high = odd ? _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(some, odd)) : _mm512_setzero_si512();
    return (v32)_mm512_or_si512(low, _mm512_slli_epi32(high, 16));
}

static void pack_straight_elements_bf16(void *packed, const void *const *rows, int64_t count, int64_t n)
{
    uint32_t *to = packed;
    for (int64_t first = 0; first < n; first += PANEL_f32) {
        const int64_t left = n - first, width = left < PANEL_f32 ? round_up_f32(left) : PANEL_f32;
        for (int64_t k = 0; k < count; k += 2, to += width) {
            for (int64_t i = k + PACK_AHEAD; first == 0 && i < k + PACK_AHEAD + 2 && i < count; i++)
                fetch_row(rows[i], n);
            for (int64_t j = 0; j < width; j += LANES_f32) {
                const uint16_t *even = (const uint16_t *)rows[k] + first + j;
                const uint16_t *odd = k + 1 < count ? (const uint16_t *)rows[k + 1] + first + j : NULL;
                pair_store(to + j, pair_zip_elements(even, odd, left - j));
            }
        }
    }
}

static void pack_straight_bf16(void *packed, const void *const *rows, int64_t count, int64_t n)
{
    uint32_t *to = packed;
    for (int64_t first = 0; first < n; first += PANEL_f32) {
        const int64_t left = n - first, width = left < PANEL_f32 ? round_up_f32(left) : PANEL_f32;
        for (int64_t k = 0; k < count; k += 2, to += width)
            for (int64_t j = 0; j < width; j += LANES_f32) {
                const float *even = (const float *)rows[k] + first + j;
                const float *odd = k + 1 < count ? (const float *)rows[k + 1] + first + j : NULL;
                pair_store(to + j, pair_zip(even, odd, left - j));
            }
    }
}

/* Pair k of row r of a lies at r * a_row + k * a_pair. */
SIMD_INLINE void block_bf16(int rows, int vectors, float *c, int64_t c_stride, const uint32_t *a, int64_t a_row,
                            int64_t a_pair, const uint32_t *b, int64_t b_stride, int64_t pairs, bool accumulate)
{
    __m512 sum[BLOCK_ROWS_f32][BLOCK_VECTORS_f32];
    SIMD_UNROLL
    for (int r = 0; r < rows; r++) {
        SIMD_UNROLL
        for (int v = 0; v < vectors; v++)
            sum[r][v] = accumulate ? _mm512_loadu_ps(c + r * c_stride + v * LANES_f32) : _mm512_setzero_ps();
    }
    for (int64_t k = 0; k < pairs; k++) {
        v32 x[BLOCK_VECTORS_f32];
        SIMD_UNROLL
        for (int v = 0; v < vectors; v++) {
            x[v] = pair_load(b + k * b_stride + v * LANES_f32);
            SIMD_KEEP(x[v]);
        }
        SIMD_UNROLL
        for (int r = 0; r < rows; r++) {
            v32 y = (v32)_mm512_set1_epi32((int)a[r * a_row + k * a_pair]);
            SIMD_KEEP(y);
            SIMD_UNROLL
            for (int v = 0; v < vectors; v++)
                sum[r][v] = _mm512_dpbf16_ps(sum[r][v], (__m512bh)y, (__m512bh)x[v]);
        }
    }
    SIMD_UNROLL
    for (int r = 0; r < rows; r++) {
        SIMD_UNROLL
        for (int v = 0; v < vectors; v++)
            _mm512_storeu_ps(c + r * c_stride + v * LANES_f32, sum[r][v]);
    }
}

SIMD_INLINE void panel_bf16(int vectors, float *c, int64_t c_stride, const uint32_t *a, int64_t a_row, int64_t a_pair,
                            const uint32_t *b, int64_t m, int64_t pairs, bool accumulate)
{
    const int64_t width = vectors * LANES_f32;
    int64_t r = 0;
    for (; r + 6 <= m; r += 6)
        block_bf16(6, vectors, c + r * c_stride, c_stride, a + r * a_row, a_row, a_pair, b, width, pairs, accumulate);
    for (; r + 2 <= m; r += 2)
        block_bf16(2, vectors, c + r * c_stride, c_stride, a + r * a_row, a_row, a_pair, b, width, pairs, accumulate);
    for (; r < m; r++)
        block_bf16(1, vectors, c + r * c_stride, c_stride, a + r * a_row, a_row, a_pair, b, width, pairs, accumulate);
}

/* One block of rounded rows against all panels of b, depth pairs first .. first + step - 1 of pairs. */
SIMD_INLINE void multiply_bf16(float *c, int64_t c_stride, const uint32_t *a, int64_t a_row, int64_t a_pair,
                               const uint32_t *b, int64_t m, int64_t n, int64_t pairs, int64_t first, int64_t step,
                               bool accumulate)
{
    for (int64_t column = 0; column < n; column += PANEL_f32) {
        const int64_t left = n - column, width = left < PANEL_f32 ? round_up_f32(left) : PANEL_f32;
        const uint32_t *panel = b + column * pairs + first * width;
        float *to = c + column;
        switch (width / LANES_f32) {
        case 4: panel_bf16(4, to, c_stride, a, a_row, a_pair, panel, m, step, accumulate); break;
        case 3: panel_bf16(3, to, c_stride, a, a_row, a_pair, panel, m, step, accumulate); break;
        case 2: panel_bf16(2, to, c_stride, a, a_row, a_pair, panel, m, step, accumulate); break;
        default: panel_bf16(1, to, c_stride, a, a_row, a_pair, panel, m, step, accumulate); break;
        }
    }
}

/* Depth rounded at once: even shares of whole pairs. */
SIMD_INLINE int64_t pair_step(int64_t depth)
{
    const int64_t parts = (depth + PAIR_DEPTH - 1) / PAIR_DEPTH;
    return parts > 0 ? (depth + 2 * parts - 1) / (2 * parts) * 2 : PAIR_DEPTH;
}

/* Rounds rows of step floats to rows of pairs PAIR_DEPTH / 2 apart; sign flips their signs. */
SIMD_INLINE void round_rows(uint32_t *rounded, const float *a, int64_t a_stride, int64_t rows, int64_t step, uint32_t sign)
{
    for (int64_t r = 0; r < rows; r++)
        for (int64_t i = 0; i < step; i += 2 * LANES_f32)
            pair_store(rounded + (r * PAIR_DEPTH + i) / 2, (v32)((v32u)pair_round(a + r * a_stride + i, step - i) ^ sign));
}

/* multiply_bf16 for pairs that lie in rows, once for all who call it. */
static void multiply_rows_bf16(float *c, int64_t c_stride, const uint32_t *a, int64_t a_row, const uint32_t *b, int64_t m,
                               int64_t n, int64_t pairs, int64_t first, int64_t step, bool accumulate)
{
    multiply_bf16(c, c_stride, a, a_row, 1, b, m, n, pairs, first, step, accumulate);
}

static void product_bf16(void *c, int64_t c_stride, const void *a, int64_t a_stride, const void *b, int64_t m, int64_t n,
                         int64_t depth, bool accumulate)
{
    uint32_t rounded[PAIR_ROWS * PAIR_DEPTH / 2];
    for (int64_t r0 = 0; r0 < m; r0 += PAIR_ROWS) {
        const int64_t rows = m - r0 < PAIR_ROWS ? m - r0 : PAIR_ROWS;
        for (int64_t k = 0; k < depth; k += PAIR_DEPTH) {
            const int64_t step = depth - k < PAIR_DEPTH ? depth - k : PAIR_DEPTH;
            round_rows(rounded, (const float *)a + r0 * a_stride + k, a_stride, rows, step, 0);
            multiply_rows_bf16((float *)c + r0 * c_stride, c_stride, rounded, PAIR_DEPTH / 2, b, rows, n, (depth + 1) / 2,
                               k / 2, (step + 1) / 2, accumulate || k > 0);
        }
    }
}

/* A block of at most six rounded rows by 1 .. 4 vectors, a row of pairs PAIR_DEPTH / 2 apart. */
SIMD_INLINE void reach_rows_bf16(int vectors, float *c, int64_t c_stride, const uint32_t *a, const uint32_t *b,
                                 int64_t b_stride, int64_t rows, int64_t pairs, bool accumulate)
{
    switch (rows) {
    case 6: block_bf16(6, vectors, c, c_stride, a, PAIR_DEPTH / 2, 1, b, b_stride, pairs, accumulate); break;
    case 5: block_bf16(5, vectors, c, c_stride, a, PAIR_DEPTH / 2, 1, b, b_stride, pairs, accumulate); break;
    case 4: block_bf16(4, vectors, c, c_stride, a, PAIR_DEPTH / 2, 1, b, b_stride, pairs, accumulate); break;
    case 3: block_bf16(3, vectors, c, c_stride, a, PAIR_DEPTH / 2, 1, b, b_stride, pairs, accumulate); break;
    case 2: block_bf16(2, vectors, c, c_stride, a, PAIR_DEPTH / 2, 1, b, b_stride, pairs, accumulate); break;
    default: block_bf16(1, vectors, c, c_stride, a, PAIR_DEPTH / 2, 1, b, b_stride, pairs, accumulate); break;
    }
}

static void reach_block_bf16(int64_t vectors, float *c, int64_t c_stride, const uint32_t *a, const uint32_t *b,
                             int64_t b_stride, int64_t rows, int64_t pairs, bool accumulate)
{
    switch (vectors) {
    case 4: reach_rows_bf16(4, c, c_stride, a, b, b_stride, rows, pairs, accumulate); break;
    case 3: reach_rows_bf16(3, c, c_stride, a, b, b_stride, rows, pairs, accumulate); break;
    case 2: reach_rows_bf16(2, c, c_stride, a, b, b_stride, rows, pairs, accumulate); break;
    default: reach_rows_bf16(1, c, c_stride, a, b, b_stride, rows, pairs, accumulate); break;
    }
}

/* Block by block of rows, as multiply_reach for float. Depth is rounded outwards to pairs: there a holds zeros. */
SIMD_INLINE void multiply_reach_bf16(float *c, int64_t c_stride, const float *a, int64_t a_row, const uint32_t *b,
                                     int64_t m, int64_t n, int64_t depth, const cpu_reach *reach_columns,
                                     const cpu_reach *reach_depth)
{
    uint32_t rounded[BLOCK_ROWS_f32 * PAIR_DEPTH / 2];
    const cpu_reach every_column = {0, (int32_t)n}, all_depth = {0, (int32_t)depth};
    const int64_t pairs = (depth + 1) / 2;
    for (int64_t r = 0, i = 0; r < m; r += BLOCK_ROWS_f32, i++) {
        const int64_t rows = m - r < BLOCK_ROWS_f32 ? m - r : BLOCK_ROWS_f32;
        const cpu_reach across = reach_columns ? reach_columns[i] : every_column;
        const cpu_reach along = reach_depth ? reach_depth[i] : all_depth;
        for (int64_t k = along.begin / 2 * 2; k < along.end; k += PAIR_DEPTH) {
            const int64_t step = along.end - k < PAIR_DEPTH ? along.end - k : PAIR_DEPTH;
            for (int64_t j = 0; j < rows; j++)
                for (int64_t d = 0; d < step; d += 2 * LANES_f32)
                    pair_store(rounded + (j * PAIR_DEPTH + d) / 2, pair_round(a + (r + j) * a_row + k + d, step - d));
            for (int64_t first = across.begin / PANEL_f32 * PANEL_f32; first < across.end; first += PANEL_f32) {
                const int64_t left = n - first, width = left < PANEL_f32 ? round_up_f32(left) : PANEL_f32;
                const int64_t low = across.begin > first ? across.begin / LANES_f32 * LANES_f32 : first;
                const int64_t high = across.end < first + width ? across.end : first + width;
                reach_block_bf16((high - low + LANES_f32 - 1) / LANES_f32, c + r * c_stride + low, c_stride, rounded,
                                 b + first * pairs + k / 2 * width + low - first, width, rows, (step + 1) / 2,
                                 reach_depth || k > 0);
            }
        }
    }
}

static void product_to_reach_bf16(void *c, int64_t c_stride, const void *a, int64_t a_stride, const void *b, int64_t m,
                                  int64_t n, int64_t depth, const cpu_reach *reach)
{
    multiply_reach_bf16(c, c_stride, a, a_stride, b, m, n, depth, reach, NULL);
}

static void product_from_reach_bf16(void *c, int64_t c_stride, const void *a, int64_t a_stride, const void *b, int64_t m,
                                    int64_t n, int64_t depth, const cpu_reach *reach)
{
    multiply_reach_bf16(c, c_stride, a, a_stride, b, m, n, depth, NULL, reach);
}

/* As product_bf16, with the vectors of each panel and the pairs of depth that are wanted. */
static void product_part_bf16(void *c, int64_t c_stride, const void *a, int64_t a_stride, const cpu_part *b, int64_t m,
                              int64_t n, int64_t depth)
{
    const int64_t end = b->first_column + n;
    const cpu_part words = {.data = b->data, .stride = b->stride, .depth = (b->depth + 1) / 2, .columns = b->columns,
                            .first_row = b->first_row / 2};
    uint32_t rounded[PAIR_ROWS * PAIR_DEPTH / 2];
    const int64_t most = pair_step(depth);
    for (int64_t r0 = 0; r0 < m; r0 += PAIR_ROWS) {
        const int64_t rows = m - r0 < PAIR_ROWS ? m - r0 : PAIR_ROWS;
        for (int64_t k = 0; k < depth; k += most) {
            const int64_t step = depth - k < most ? depth - k : most, pairs = (step + 1) / 2;
            for (int64_t r = 0; r < rows; r++)
                for (int64_t i = 0; i < step; i += 2 * LANES_f32)
                    pair_store(rounded + (r * PAIR_DEPTH + i) / 2,
                               pair_round((const float *)a + (r0 + r) * a_stride + k + i, step - i));
            for (int64_t column = b->first_column, columns; column < end; column += columns) {
                const strip_place_f32 place = strip_at_f32(&words, column, end);
                columns = place.columns;
                const uint32_t *strip = (const uint32_t *)(const void *)place.data + k / 2 * place.stride;
                float *to = (float *)c + r0 * c_stride + column - b->first_column;
                for (int64_t r = 0; r < rows; r += BLOCK_ROWS_f32)
                    reach_block_bf16((columns + LANES_f32 - 1) / LANES_f32, to + r * c_stride, c_stride,
                                     rounded + r * PAIR_DEPTH / 2, strip, place.stride,
                                     rows - r < BLOCK_ROWS_f32 ? rows - r : BLOCK_ROWS_f32, pairs, k > 0);
            }
        }
    }
}

static void product_transposed_bf16(void *c, int64_t c_stride, const void *a, int64_t a_stride, const void *b, int64_t m,
                                    int64_t n, int64_t depth, bool accumulate)
{
    uint32_t rounded[PAIR_ROWS * PAIR_DEPTH / 2];
    const int64_t most = pair_step(depth);
    for (int64_t r0 = 0; r0 < m; r0 += PAIR_ROWS) {
        const int64_t rows = m - r0 < PAIR_ROWS ? m - r0 : PAIR_ROWS;
        for (int64_t k = 0; k < depth; k += most) {
            const int64_t step = depth - k < most ? depth - k : most;
            for (int64_t i = 0; i < step; i += 2)
                for (int64_t r = 0; r < rows; r += LANES_f32) {
                    const float *even = (const float *)a + (k + i) * a_stride + r0 + r;
                    pair_store(rounded + i / 2 * PAIR_ROWS + r,
                               pair_zip(even, i + 1 < step ? even + a_stride : NULL, rows - r));
                }
            multiply_bf16((float *)c + r0 * c_stride, c_stride, rounded, 1, PAIR_ROWS, b, rows, n, (depth + 1) / 2, k / 2,
                          (step + 1) / 2, accumulate || k > 0);
        }
    }
}

static void product_masked_bf16(void *c, int64_t c_stride, const void *a, int64_t a_stride, const void *b, int64_t m,
                                int64_t n, int64_t depth, const uint32_t *mask, int64_t mask_rows)
{
    const int64_t pairs = (depth + 1) / 2;
    for (int64_t r = 0; r < m; r++) {
        const uint32_t *seen = mask + CPU_MASK_WORDS * (r % mask_rows);
        const float *weight = (const float *)a + r * a_stride;
        for (int64_t first = 0; first < n; first += PANEL_f32) {
            const int64_t left = n - first, width = left < PANEL_f32 ? round_up_f32(left) : PANEL_f32;
            const uint32_t *panel = (const uint32_t *)b + first * pairs;
            float *to = (float *)c + r * c_stride + first;
            for (int64_t k = 0; k < depth; k++)
                if (seen[k / 32] >> (k % 32) & 1)
                    for (int64_t j = 0; j < width; j++)
                        to[j] += weight[k] * nf_bf16_to_f32((uint16_t)(panel[k / 2 * width + j] >> (k % 2 * 16)));
        }
    }
}

static void product_transposed_masked_bf16(void *c, int64_t c_stride, const void *a, int64_t a_stride, const void *b,
                                           int64_t m, int64_t n, int64_t depth, const uint32_t *mask, int64_t mask_rows)
{
    const int64_t pairs = (depth + 1) / 2;
    for (int64_t first = 0; first < n; first += PANEL_f32) {
        const int64_t left = n - first, width = left < PANEL_f32 ? round_up_f32(left) : PANEL_f32;
        for (int64_t k = 0; k < depth; k++) {
            const uint32_t *seen = mask + CPU_MASK_WORDS * (k % mask_rows);
            const uint32_t *row = (const uint32_t *)b + first * pairs + k / 2 * width;
            const float *weight = (const float *)a + k * a_stride;
            for (int64_t r = 0; r < m; r++) {
                if (!(seen[r / 32] >> (r % 32) & 1))
                    continue;
                for (int64_t j = 0; j < width; j++)
                    ((float *)c)[r * c_stride + first + j] +=
                        weight[r] * nf_bf16_to_f32((uint16_t)(row[j] >> (k % 2 * 16)));
            }
        }
    }
}

/* 2^t within 1e-4 of it, a twentieth of what rounding to bf16 may change; 1 for t = 0. */
SIMD_INLINE v32 exp2_bf16(v32 t)
{
    const v32 f = (v32)_mm512_reduce_ps((__m512)t, 0x09); /* t - floor(t) */
    v32 p = v32_set1(7.8024523e-2f);
    p = p * f + 2.2606716e-1f;
    p = p * f + 6.9583354e-1f;
    p = p * f + 1.0f;
    return (v32)_mm512_scalef_ps((__m512)p, (__m512)t);
}

SIMD_INLINE float row_top(const float *scores, int64_t n)
{
    v32 top = v32_set1(-INFINITY);
    int64_t c = 0;
    for (; c + LANES_f32 <= n; c += LANES_f32)
        top = v32_max(v32_load(scores + c), top);
    if (c < n)
        top = v32_max(v32_select((1u << (n - c)) - 1, v32_load(scores + c), top), top);
    return v32_largest(top);
}

/* 2^(factor s - base) of 32 scores, 0 where seen has no bit, rounded to pairs and before that added to total. */
SIMD_INLINE void weigh_pairs(uint32_t *weights, const float *scores, float factor, float base, uint32_t seen, v32 *total)
{
    v32 low = exp2_bf16(v32_load(scores) * factor - base), high = exp2_bf16(v32_load(scores + LANES_f32) * factor - base);
    if (seen != UINT32_MAX) {
        low = v32_select(seen, low, (v32){0});
        high = v32_select(seen >> LANES_f32, high, (v32){0});
    }
    total[0] += low;
    total[1] += high;
    pair_store(weights, (v32)(__m512i)_mm512_cvtne2ps_pbh((__m512)high, (__m512)low));
}

/* Returns the sum before rounding. */
SIMD_INLINE float weigh_row(uint32_t *weights, const float *scores, int64_t n, float factor, float base)
{
    v32 total[2] = {{0}};
    int64_t c = 0;
    for (; c + 2 * LANES_f32 <= n; c += 2 * LANES_f32)
        weigh_pairs(weights + c / 2, scores + c, factor, base, UINT32_MAX, total);
    if (c < n)
        weigh_pairs(weights + c / 2, scores + c, factor, base, (1u << (n - c)) - 1, total);
    return v32_sum(total[0] + total[1]);
}

enum { MEETING_ROWS = BLOCK_ROWS_f32, WEIGHT_STRIDE = CPU_MAX_COLUMNS / 2 + LANES_f32 };

/* Softmax of at most six rows of scores, which are to be scaled by |scale|. */
SIMD_INLINE void weigh_rows(const cpu_meeting *t, uint32_t *weights, int64_t first, int64_t rows)
{
    const float factor = (float)fabs(t->scale), factor2 = (float)(fabs(t->scale) * SIMD_LOG2_E);
    const float *scores = t->scores;
    float *max = (float *)t->max + first, *sum = (float *)t->sum + first, top[MEETING_ROWS];
    for (int64_t r = 0; r < rows; r++)
        top[r] = row_top(scores + r * t->score_stride, t->columns) * factor;
    for (int64_t r = 0; r < rows; r++) {
        float *out = (float *)t->out + (first + r) * t->out_stride;
        const float base = raise_max_f32(top[r], max + r, sum + r, out, t->out_stride) * (float)SIMD_LOG2_E;
        sum[r] += weigh_row(weights + r * WEIGHT_STRIDE, scores + r * t->score_stride, t->columns, factor2, base);
    }
}

/* Six rows at a time: their scores and weights stay in the first-level cache, k and v stream by. A negative scale goes to
 * the signs of q, so that the largest score is the largest after scaling. */
static void attend_bf16(const cpu_meeting *t)
{
    uint32_t rounded[MEETING_ROWS * PAIR_DEPTH / 2], weights[MEETING_ROWS * WEIGHT_STRIDE];
    const int64_t pairs = (t->columns + 1) / 2, depth = t->head_dim;
    const uint32_t sign = t->scale < 0 ? 0x80008000 : 0;
    for (int64_t first = 0; first < t->rows; first += MEETING_ROWS) {
        const int64_t rows = t->rows - first < MEETING_ROWS ? t->rows - first : MEETING_ROWS;
        for (int64_t k = 0; k < depth; k += PAIR_DEPTH) {
            const int64_t step = depth - k < PAIR_DEPTH ? depth - k : PAIR_DEPTH;
            round_rows(rounded, (const float *)t->q + first * t->q_stride + k, t->q_stride, rows, step, sign);
            multiply_rows_bf16(t->scores, t->score_stride, rounded, PAIR_DEPTH / 2, t->k, rows, t->columns,
                               (depth + 1) / 2, k / 2, (step + 1) / 2, k > 0);
        }
        weigh_rows(t, weights, first, rows);
        multiply_rows_bf16((float *)t->out + first * t->out_stride, t->out_stride, weights, WEIGHT_STRIDE, t->v, rows,
                           t->value_dim, pairs, 0, pairs, true);
    }
}

static void attend_part_bf16(const cpu_meeting *t)
{
    product_to_reach_bf16(t->scores, t->score_stride, t->q, t->q_stride, t->k, t->rows, t->columns, t->head_dim, t->reach);
    softmax_reach_f32(t->scores, t->score_stride, t->rows, t->reach, t->scale, t->mask, t->mask_rows, t->max, t->sum,
                      t->out, t->out_stride, t->out_stride);
    if (!t->finite)
        product_masked_bf16(t->out, t->out_stride, t->scores, t->score_stride, t->v, t->rows, t->value_dim, t->columns,
                            t->mask, t->mask_rows);
    else
        product_from_reach_bf16(t->out, t->out_stride, t->scores, t->score_stride, t->v, t->rows, t->value_dim, t->columns,
                                t->reach);
}

const cpu_kernels cpu_kernels_avx512bf16_bf16 = {
    .isa = KERNEL_ISA,
    .real_size = sizeof(float),
    .lanes = LANES_f32,
    .panel = PANEL_f32,
    .pairs = true,
    .load_rows = load_rows_f32,
    .store_rows = store_rows_f32,
    .add_rows = add_rows_f32,
    .all_finite = all_finite_f32,
    .pack_transposed = pack_transposed_bf16,
    .pack_straight = pack_straight_bf16,
    .pack_lines = pack_lines_bf16,
    .pack_transposed_elements = pack_transposed_elements_bf16,
    .pack_straight_elements = pack_straight_elements_bf16,
    .product = product_bf16,
    .product_part = product_part_bf16,
    .product_transposed = product_transposed_bf16,
    .product_masked = product_masked_bf16,
    .product_transposed_masked = product_transposed_masked_bf16,
    .product_to_reach = product_to_reach_bf16,
    .product_from_reach = product_from_reach_bf16,
    .softmax = softmax_f32,
    .attend = attend_bf16,
    .attend_part = attend_part_bf16,
    .gradient = gradient_f32,
    .pack_line = pack_line_f32,
    .copy_line = copy_line_f32,
    .stencil_scores = stencil_scores_f32,
    .stencil_row_scores = stencil_row_scores_f32,
    .stencil_softmax = stencil_softmax_f32,
    .stencil_delta = stencil_delta_f32,
    .stencil_gradient = stencil_gradient_f32,
    .stencil_close = stencil_close_f32,
    .stencil_values = stencil_values_f32,
    .stencil_row_values = stencil_row_values_f32,
    .stencil_scatter = stencil_scatter_f32,
    .stencil_move = stencil_move_f32,
    .dot = dot_f32,
};
