/* Kernels for tiles that are seen in part: blocks of rows that leave out the columns none of their rows sees. Included by
 * kernel_body.h. */

/* A block of at most six rows by 1 .. BLOCK_VECTORS vectors. */
SIMD_INLINE void NAME(reach_rows)(int vectors, REAL *c, int64_t c_stride, const REAL *a, int64_t a_row, const REAL *b,
                                  int64_t b_stride, int64_t rows, int64_t depth, bool accumulate)
{
    if (rows == NAME(BLOCK_ROWS)) {
        NAME(block)(NAME(BLOCK_ROWS), vectors, c, c_stride, a, a_row, 1, b, b_stride, depth, accumulate);
        return;
    }
    for (int64_t r = 0; r < rows; r++)
        NAME(block)(1, vectors, c + r * c_stride, c_stride, a + r * a_row, a_row, 1, b, b_stride, depth, accumulate);
}

static void NAME(reach_block)(int64_t vectors, REAL *c, int64_t c_stride, const REAL *a, int64_t a_row, const REAL *b,
                              int64_t b_stride, int64_t rows, int64_t depth, bool accumulate)
{
    switch (vectors) {
#if SIMD_REGISTERS == 32
    case 4: NAME(reach_rows)(4, c, c_stride, a, a_row, b, b_stride, rows, depth, accumulate); break;
    case 3: NAME(reach_rows)(3, c, c_stride, a, a_row, b, b_stride, rows, depth, accumulate); break;
#endif
    case 2: NAME(reach_rows)(2, c, c_stride, a, a_row, b, b_stride, rows, depth, accumulate); break;
    default: NAME(reach_rows)(1, c, c_stride, a, a_row, b, b_stride, rows, depth, accumulate); break;
    }
}

/* As multiply, block by block of rows: columns within reach_columns, depth within reach_depth, each NULL for all. */
static void NAME(multiply_reach)(REAL *c, int64_t c_stride, const REAL *a, int64_t a_row, const REAL *b, int64_t m,
                                      int64_t n, int64_t depth, const cpu_reach *reach_columns,
                                      const cpu_reach *reach_depth, cpu_ahead *ahead)
{
    const cpu_reach every_column = {0, (int32_t)n}, all_depth = {0, (int32_t)depth};
    const int64_t step = NAME(DEPTH_BLOCK);
    for (int64_t first = 0; first < n; first += NAME(PANEL)) {
        const int64_t left = n - first, width = left < NAME(PANEL) ? NAME(round_up)(left) : NAME(PANEL);
        for (int64_t k = 0; k < depth; k += step) {
            for (int64_t r = 0, i = 0; r < m; r += NAME(BLOCK_ROWS), i++) {
                const cpu_reach across = reach_columns ? reach_columns[i] : every_column;
                const cpu_reach along = reach_depth ? reach_depth[i] : all_depth;
                const int64_t low = across.begin > first ? across.begin / NAME(LANES) * NAME(LANES) : first;
                const int64_t high = across.end < first + width ? across.end : first + width;
                const int64_t top = along.begin > k ? along.begin : k;
                const int64_t bottom = along.end < k + step ? along.end : k + step;
                if (low >= high || top >= bottom)
                    continue;
                if (ahead && k == 0)
                    cpu_fetch_ahead(ahead);
                NAME(reach_block)((high - low + NAME(LANES) - 1) / NAME(LANES), c + r * c_stride + low, c_stride,
                                  a + r * a_row + top, a_row, b + first * depth + top * width + low - first, width,
                                  m - r < NAME(BLOCK_ROWS) ? m - r : NAME(BLOCK_ROWS), bottom - top,
                                  reach_depth || k > 0);
            }
        }
    }
}

static void NAME(product_to_reach)(void *c, int64_t c_stride, const void *a, int64_t a_stride, const void *b, int64_t m,
                                   int64_t n, int64_t depth, const cpu_reach *reach)
{
    NAME(multiply_reach)(c, c_stride, a, a_stride, b, m, n, depth, reach, NULL, NULL);
}

static void NAME(product_from_reach)(void *c, int64_t c_stride, const void *a, int64_t a_stride, const void *b, int64_t m,
                                     int64_t n, int64_t depth, const cpu_reach *reach)
{
    NAME(multiply_reach)(c, c_stride, a, a_stride, b, m, n, depth, NULL, reach, NULL);
}

/* Scores from column c on, minus infinity where the row does not see them; a mask is zero beyond its columns. */
SIMD_INLINE VEC NAME(seen_scores)(const REAL *row, const uint32_t *seen, int64_t c)
{
    return OP(select)(seen[c / 32] >> (c % 32), OP(load)(row + c), OP(set1)((REAL)-INFINITY));
}

/* Softmax of the rows of one block, scale not negative; as in softmax_plain, the search for the largest score of the next
 * row goes alongside. */
SIMD_INLINE void NAME(softmax_block)(REAL *s, int64_t s_stride, int64_t rows, int64_t first, int64_t end, double scale,
                                     const uint32_t *const *seen, REAL *max, REAL *sum, REAL *out, int64_t out_stride,
                                     int64_t out_n)
{
    const REAL factor = (REAL)scale, factor2 = (REAL)(scale * SIMD_LOG2_E);
    const VEC minus_infinity = OP(set1)((REAL)-INFINITY), zero = {0};
    VEC top = minus_infinity;
    for (int64_t c = first; c < end; c += NAME(LANES))
        top = OP(max)(NAME(seen_scores)(s, seen[0], c), top);
    for (int64_t r = 0; r < rows; r++) {
        REAL *row = s + r * s_stride;
        const int64_t next = r + 1 < rows ? r + 1 : r;
        const REAL largest = OP(largest)(top) * factor;
        const REAL base = NAME(raise_max)(largest, max + r, sum + r, out + r * out_stride, out_n) * (REAL)SIMD_LOG2_E;
        VEC total = zero;
        top = minus_infinity;
        for (int64_t c = first; c < end; c += NAME(LANES)) {
            const VEC p = OP(exp2)(OP(load)(row + c) * factor2 - base);
            top = OP(max)(NAME(seen_scores)(s + next * s_stride, seen[next], c), top);
            const VEC visible = OP(select)(seen[r][c / 32] >> (c % 32), p, zero);
            OP(store)(row + c, visible);
            total += visible;
        }
        sum[r] += OP(sum)(total);
    }
}

/* Softmax within the reach of each block, rounded outwards to whole vectors. */
static void NAME(softmax_reach)(void *s, int64_t s_stride, int64_t m, const cpu_reach *reach, double scale,
                                const uint32_t *mask, int64_t mask_rows, void *max, void *sum, void *out,
                                int64_t out_stride, int64_t out_n)
{
    for (int64_t r = 0; r < m; r += NAME(BLOCK_ROWS)) {
        const cpu_reach block = reach[r / NAME(BLOCK_ROWS)];
        const int64_t first = block.begin / NAME(LANES) * NAME(LANES);
        const int64_t rows = m - r < NAME(BLOCK_ROWS) ? m - r : NAME(BLOCK_ROWS);
        const uint32_t *seen[NAME(BLOCK_ROWS)];
        for (int64_t i = 0; i < rows; i++)
            seen[i] = mask + CPU_MASK_WORDS * ((r + i) % mask_rows);
        REAL *scores = (REAL *)s + r * s_stride, *out_rows = (REAL *)out + r * out_stride;
        if (block.begin < block.end && scale >= 0)
            NAME(softmax_block)(scores, s_stride, rows, first, block.end, scale, seen, (REAL *)max + r, (REAL *)sum + r,
                                out_rows, out_stride, out_n);
        for (int64_t i = 0; i < rows && block.begin < block.end && scale < 0; i++)
            NAME(softmax_row)(scores + i * s_stride, first, block.end, scale, seen[i], (REAL *)max + r + i,
                              (REAL *)sum + r + i, out_rows + i * out_stride, out_n);
    }
}

static void NAME(attend_part)(const cpu_meeting *t)
{
    NAME(multiply_reach)(t->scores, t->score_stride, t->q, t->q_stride, t->k, t->rows, t->columns, t->head_dim, t->reach,
                         NULL, t->ahead);
    NAME(softmax_reach)(t->scores, t->score_stride, t->rows, t->reach, t->scale, t->mask, t->mask_rows, t->max, t->sum,
                        t->out, t->out_stride, t->out_stride);
    if (!t->finite)
        NAME(product_masked)(t->out, t->out_stride, t->scores, t->score_stride, t->v, t->rows, t->value_dim, t->columns,
                             t->mask, t->mask_rows);
    else
        NAME(multiply_reach)(t->out, t->out_stride, t->scores, t->score_stride, t->v, t->rows, t->value_dim, t->columns,
                             NULL, t->reach, t->ahead);
}
