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
    /* Rows of a packed panel that all row blocks pass over at once. The panel comes from the second-level cache while it is
     * multiplied; sums fetched and stored more often would cost more. */
    NAME(DEPTH_BLOCK) = 65536 / (NAME(PANEL) * (int)sizeof(REAL)),
    NAME(STRIP_VECTORS) = 32768 / SIMD_BYTES, /* vectors of a strip that stay near in backward's products: 32 KiB */
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

#include "backends/cpu/kernel_rows.h"

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

/* A block of at most six rows by 1 .. BLOCK_VECTORS vectors. */
SIMD_INLINE void NAME(few_rows)(int vectors, REAL *c, int64_t c_stride, const REAL *a, int64_t a_row, const REAL *b,
                                int64_t b_stride, int64_t rows, int64_t depth, bool accumulate)
{
    switch (rows) {
    case 6: NAME(block)(6, vectors, c, c_stride, a, a_row, 1, b, b_stride, depth, accumulate); break;
    case 5: NAME(block)(5, vectors, c, c_stride, a, a_row, 1, b, b_stride, depth, accumulate); break;
    case 4: NAME(block)(4, vectors, c, c_stride, a, a_row, 1, b, b_stride, depth, accumulate); break;
    case 3: NAME(block)(3, vectors, c, c_stride, a, a_row, 1, b, b_stride, depth, accumulate); break;
    case 2: NAME(block)(2, vectors, c, c_stride, a, a_row, 1, b, b_stride, depth, accumulate); break;
    default: NAME(block)(1, vectors, c, c_stride, a, a_row, 1, b, b_stride, depth, accumulate); break;
    }
}

static void NAME(rows_block)(int64_t vectors, REAL *c, int64_t c_stride, const REAL *a, int64_t a_row, const REAL *b,
                             int64_t b_stride, int64_t rows, int64_t depth, bool accumulate)
{
    switch (vectors) {
#if SIMD_REGISTERS == 32
    case 4: NAME(few_rows)(4, c, c_stride, a, a_row, b, b_stride, rows, depth, accumulate); break;
    case 3: NAME(few_rows)(3, c, c_stride, a, a_row, b, b_stride, rows, depth, accumulate); break;
#endif
    case 2: NAME(few_rows)(2, c, c_stride, a, a_row, b, b_stride, rows, depth, accumulate); break;
    default: NAME(few_rows)(1, c, c_stride, a, a_row, b, b_stride, rows, depth, accumulate); break;
    }
}

/* All rows of one panel: blocks of six, then what is left. */
SIMD_INLINE void NAME(panel)(int vectors, REAL *c, int64_t c_stride, const REAL *a, int64_t a_row, const REAL *b,
                             int64_t m, int64_t depth, bool accumulate, cpu_ahead *ahead)
{
    const int64_t width = vectors * NAME(LANES);
    int64_t r = 0;
    for (; r + NAME(BLOCK_ROWS) <= m; r += NAME(BLOCK_ROWS)) {
        if (ahead)
            cpu_fetch_ahead(ahead);
        NAME(block)(NAME(BLOCK_ROWS), vectors, c + r * c_stride, c_stride, a + r * a_row, a_row, 1, b, width, depth,
                    accumulate);
    }
    if (r < m)
        NAME(rows_block)(vectors, c + r * c_stride, c_stride, a + r * a_row, a_row, b, width, m - r, depth, accumulate);
}

/* Panel by panel, so deep that a strip of the panel stays in the first-level cache while all rows pass over it. */
static void NAME(multiply)(REAL *c, int64_t c_stride, const REAL *a, int64_t a_row, const REAL *b, int64_t m, int64_t n,
                           int64_t depth, bool accumulate, cpu_ahead *ahead)
{
    for (int64_t first = 0; first < n; first += NAME(PANEL)) {
        const int64_t left = n - first, width = left < NAME(PANEL) ? NAME(round_up)(left) : NAME(PANEL);
        for (int64_t k = 0; k < depth; k += NAME(DEPTH_BLOCK)) {
            const int64_t step = depth - k < NAME(DEPTH_BLOCK) ? depth - k : NAME(DEPTH_BLOCK);
            const REAL *from = a + k, *strip = b + first * depth + k * width;
            const bool add = accumulate || k > 0;
            cpu_ahead *now = k == 0 ? ahead : NULL;
            switch (width / NAME(LANES)) {
#if SIMD_REGISTERS == 32
            case 4: NAME(panel)(4, c + first, c_stride, from, a_row, strip, m, step, add, now); break;
            case 3: NAME(panel)(3, c + first, c_stride, from, a_row, strip, m, step, add, now); break;
#endif
            case 2: NAME(panel)(2, c + first, c_stride, from, a_row, strip, m, step, add, now); break;
            default: NAME(panel)(1, c + first, c_stride, from, a_row, strip, m, step, add, now); break;
            }
        }
    }
}

static void NAME(product)(void *c, int64_t c_stride, const void *a, int64_t a_stride, const void *b, int64_t m,
                          int64_t n, int64_t depth, bool accumulate)
{
    NAME(multiply)(c, c_stride, a, a_stride, b, m, n, depth, accumulate, NULL);
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

#include "backends/cpu/kernel_softmax.h"

static void NAME(attend)(const cpu_meeting *t)
{
    const cpu_part keys = {.data = t->k, .stride = t->k_stride};
    if (t->k_stride)
        NAME(product_ahead)(t->scores, t->score_stride, t->q, t->q_stride, &keys, t->rows, t->columns, t->head_dim,
                            t->ahead);
    else
        NAME(multiply)(t->scores, t->score_stride, t->q, t->q_stride, t->k, t->rows, t->columns, t->head_dim, false,
                       t->ahead);
    NAME(softmax)(t->scores, t->score_stride, t->rows, t->columns, t->scale, NULL, 1, t->max, t->sum, t->out,
                  t->out_stride, t->out_stride);
    NAME(multiply)(t->out, t->out_stride, t->scores, t->score_stride, t->v, t->rows, t->value_dim, t->columns, true,
                   t->ahead);
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
    .value_panel = NAME(VALUE_VECTORS) * NAME(LANES),
    .load_rows = NAME(load_rows),
    .store_rows = NAME(store_rows),
    .add_rows = NAME(add_rows),
    .all_finite = NAME(all_finite),
    .pack_transposed = NAME(pack_transposed),
    .pack_straight = NAME(pack_straight),
    .pack_lines = NAME(pack_line),
    .product = NAME(product),
    .product_part = NAME(product_part),
    .product_transposed = NAME(product_transposed),
    .product_transposed_rows = NAME(product_transposed_rows),
    .product_masked = NAME(product_masked),
    .product_transposed_masked = NAME(product_transposed_masked),
    .product_to_reach = NAME(product_to_reach),
    .product_from_reach = NAME(product_from_reach),
    .softmax = NAME(softmax),
    .attend = NAME(attend),
    .attend_part = NAME(attend_part),
    .gradient = NAME(gradient),
    .pack_line = NAME(pack_line),
    .copy_line = NAME(copy_line),
    .stencil_scores = NAME(stencil_scores),
    .stencil_row_scores = NAME(stencil_row_scores),
    .stencil_run_scores = NAME(stencil_run_scores),
    .stencil_softmax = NAME(stencil_softmax),
    .stencil_delta = NAME(stencil_delta),
    .stencil_gradient = NAME(stencil_gradient),
    .stencil_close = NAME(stencil_close),
    .stencil_values = NAME(stencil_values),
    .stencil_row_values = NAME(stencil_row_values),
    .stencil_scatter = NAME(stencil_scatter),
    .stencil_move = NAME(stencil_move),
    .dot = NAME(dot),
};

#undef NAME
#undef REAL
#undef VEC
#undef OP
#undef INDEX
#undef LOWEST
