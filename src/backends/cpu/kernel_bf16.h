/* Products of bf16 pairs with vdpbf16ps, for bf16 problems; included after kernel_body.h for float, whose other kernels
 * serve here too. Rows stay float outside and are rounded to bf16 once per product, which is exact for q, k, v and dout and
 * rounds p and ds as tensor-core kernels do. Packed matrices hold pairs: depth rows 2i and 2i + 1 of a column are one
 * 32-bit word. */

enum { PAIR_DEPTH = 128, PAIR_ROWS = 48 }; /* of the rows rounded at once: 12 KiB */

#include "backends/cpu/kernel_bf16_pairs.h"

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
                            const uint32_t *b, int64_t m, int64_t pairs, bool accumulate, cpu_ahead *ahead)
{
    const int64_t width = vectors * LANES_f32;
    int64_t r = 0;
    for (; r + 6 <= m; r += 6) {
        if (ahead)
            cpu_fetch_ahead(ahead);
        block_bf16(6, vectors, c + r * c_stride, c_stride, a + r * a_row, a_row, a_pair, b, width, pairs, accumulate);
    }
    for (; r + 2 <= m; r += 2)
        block_bf16(2, vectors, c + r * c_stride, c_stride, a + r * a_row, a_row, a_pair, b, width, pairs, accumulate);
    for (; r < m; r++)
        block_bf16(1, vectors, c + r * c_stride, c_stride, a + r * a_row, a_row, a_pair, b, width, pairs, accumulate);
}

/* One block of rounded rows against all panels of b, depth pairs first .. first + step - 1 of pairs. */
SIMD_INLINE void multiply_bf16(float *c, int64_t c_stride, const uint32_t *a, int64_t a_row, int64_t a_pair,
                               const uint32_t *b, int64_t m, int64_t n, int64_t pairs, int64_t first, int64_t step,
                               bool accumulate, cpu_ahead *ahead)
{
    for (int64_t column = 0; column < n; column += PANEL_f32) {
        const int64_t left = n - column, width = left < PANEL_f32 ? round_up_f32(left) : PANEL_f32;
        const uint32_t *panel = b + column * pairs + first * width;
        float *to = c + column;
        switch (width / LANES_f32) {
        case 4: panel_bf16(4, to, c_stride, a, a_row, a_pair, panel, m, step, accumulate, ahead); break;
        case 3: panel_bf16(3, to, c_stride, a, a_row, a_pair, panel, m, step, accumulate, ahead); break;
        case 2: panel_bf16(2, to, c_stride, a, a_row, a_pair, panel, m, step, accumulate, ahead); break;
        default: panel_bf16(1, to, c_stride, a, a_row, a_pair, panel, m, step, accumulate, ahead); break;
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
                               int64_t n, int64_t pairs, int64_t first, int64_t step, bool accumulate,
                               cpu_ahead *ahead)
{
    multiply_bf16(c, c_stride, a, a_row, 1, b, m, n, pairs, first, step, accumulate, ahead);
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
                               k / 2, (step + 1) / 2, accumulate || k > 0, NULL);
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
                                     const cpu_reach *reach_depth, cpu_ahead *ahead)
{
    uint32_t rounded[BLOCK_ROWS_f32 * PAIR_DEPTH / 2];
    const cpu_reach every_column = {.end = (int32_t)n}, all_depth = {.end = (int32_t)depth};
    const int64_t pairs = (depth + 1) / 2;
    for (int64_t start = 0, i = 0; start < m; start += BLOCK_ROWS_f32, i++) {
        const cpu_reach across = reach_columns ? reach_columns[i] : every_column;
        const cpu_reach along = reach_depth ? reach_depth[i] : all_depth;
        const int64_t r = start + across.first + along.first, rows = across.rows + along.rows;
        for (int64_t k = along.begin / 2 * 2; k < along.end; k += PAIR_DEPTH) {
            const int64_t step = along.end - k < PAIR_DEPTH ? along.end - k : PAIR_DEPTH;
            round_rows(rounded, a + r * a_row + k, a_row, rows, step, 0);
            for (int64_t first = across.begin / PANEL_f32 * PANEL_f32; first < across.end; first += PANEL_f32) {
                const int64_t left = n - first, width = left < PANEL_f32 ? round_up_f32(left) : PANEL_f32;
                const int64_t low = across.begin > first ? across.begin / LANES_f32 * LANES_f32 : first;
                const int64_t high = across.end < first + width ? across.end : first + width;
                if (ahead)
                    cpu_fetch_ahead(ahead);
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
    multiply_reach_bf16(c, c_stride, a, a_stride, b, m, n, depth, reach, NULL, NULL);
}

static void product_from_reach_bf16(void *c, int64_t c_stride, const void *a, int64_t a_stride, const void *b, int64_t m,
                                    int64_t n, int64_t depth, const cpu_reach *reach)
{
    multiply_reach_bf16(c, c_stride, a, a_stride, b, m, n, depth, NULL, reach, NULL);
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
            round_rows(rounded, (const float *)a + r0 * a_stride + k, a_stride, rows, step, 0);
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
                          (step + 1) / 2, accumulate || k > 0, NULL);
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

#include "backends/cpu/kernel_bf16_attend.h"

const cpu_kernels cpu_kernels_avx512bf16_bf16 = {
    .isa = KERNEL_ISA,
    .real_size = sizeof(float),
    .lanes = LANES_f32,
    .panel = PANEL_f32,
    .value_panel = VALUE_VECTORS_f32 * LANES_f32,
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
    .stencil_run_scores = stencil_run_scores_f32,
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
