/* Kernels for tiles that are seen in part: blocks of rows that leave out the columns none of their rows sees. Included by
 * kernel_body.h. */

/* As multiply, block by block of rows: columns within reach_columns or depth within reach_depth, the other NULL. */
static void NAME(multiply_reach)(REAL *c, int64_t c_stride, const REAL *a, int64_t a_row, const REAL *b, int64_t m,
                                      int64_t n, int64_t depth, const cpu_reach *reach_columns,
                                      const cpu_reach *reach_depth, cpu_ahead *ahead)
{
    const cpu_reach every_column = {.end = (int32_t)n}, all_depth = {.end = (int32_t)depth};
    const int64_t step = NAME(DEPTH_BLOCK);
    for (int64_t first = 0; first < n; first += NAME(PANEL)) {
        const int64_t left = n - first, width = left < NAME(PANEL) ? NAME(round_up)(left) : NAME(PANEL);
        for (int64_t k = 0; k < depth; k += step) {
            for (int64_t r = 0, i = 0; r < m; r += NAME(BLOCK_ROWS), i++) {
                const cpu_reach across = reach_columns ? reach_columns[i] : every_column;
                const cpu_reach along = reach_depth ? reach_depth[i] : all_depth;
                const int64_t row = r + across.first + along.first;
                const int64_t low = across.begin > first ? across.begin / NAME(LANES) * NAME(LANES) : first;
                const int64_t high = across.end < first + width ? across.end : first + width;
                const int64_t top = along.begin > k ? along.begin : k;
                const int64_t bottom = along.end < k + step ? along.end : k + step;
                if (low >= high || top >= bottom)
                    continue;
                if (ahead && k == 0)
                    cpu_fetch_ahead(ahead);
                NAME(rows_block)((high - low + NAME(LANES) - 1) / NAME(LANES), c + row * c_stride + low, c_stride,
                                 a + row * a_row + top, a_row, b + first * depth + top * width + low - first, width,
                                 across.rows + along.rows, bottom - top, reach_depth || k > 0);
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

/* Scores within the reach of each block, from its first column on: lines may be read from anywhere. */
static void NAME(multiply_lines)(const cpu_meeting *t)
{
    for (int64_t start = 0; start < t->rows; start += NAME(BLOCK_ROWS)) {
        const cpu_reach block = t->reach[start / NAME(BLOCK_ROWS)];
        const REAL *q = (const REAL *)t->q + (start + block.first) * t->q_stride;
        REAL *scores = (REAL *)t->scores + (start + block.first) * t->score_stride;
        for (int64_t c = block.begin; c < block.end; c += NAME(PANEL)) {
            const int64_t left = block.end - c, width = left < NAME(PANEL) ? left : NAME(PANEL);
            cpu_fetch_ahead(t->ahead);
            NAME(rows_block)((width + NAME(LANES) - 1) / NAME(LANES), scores + c, t->score_stride, q, t->q_stride,
                             (const REAL *)t->k + c, t->k_stride, block.rows, t->head_dim, false);
        }
    }
}

/* What a row sees: a run of columns, or what its mask says, which is zero beyond its columns. */
typedef struct NAME(row_view) {
    int64_t begin, end;
    const uint32_t *mask;
} NAME(row_view);

/* Bits of the lanes from column c on. */
SIMD_INLINE uint32_t NAME(view_bits)(bool run, const NAME(row_view) *seen, int64_t c)
{
    if (!run) {
        const uint64_t above = c / 32 + 1 < CPU_MASK_WORDS ? seen->mask[c / 32 + 1] : 0;
        return (uint32_t)((seen->mask[c / 32] | above << 32) >> (c % 32));
    }
    const int64_t low = seen->begin > c ? seen->begin - c : 0, high = seen->end > c ? seen->end - c : 0;
    const uint32_t below = low < NAME(LANES) ? (1u << low) - 1 : UINT32_MAX;
    return (high < NAME(LANES) ? (1u << high) - 1 : UINT32_MAX) & ~below;
}

/* Scores from column c on, minus infinity where the row does not see them. */
SIMD_INLINE VEC NAME(seen_scores)(bool run, const REAL *row, const NAME(row_view) *seen, int64_t c)
{
    return OP(select)(NAME(view_bits)(run, seen, c), OP(load)(row + c), OP(set1)((REAL)-INFINITY));
}

/* Softmax of the rows of one block, scale not negative; as in softmax_plain, the search for the largest score of the next
 * row goes alongside. All rows see columns open .. close - 1, whole vectors. */
SIMD_INLINE void NAME(softmax_block)(bool run, REAL *s, int64_t s_stride, int64_t rows, int64_t first, int64_t open,
                                     int64_t close, int64_t end, double scale, const NAME(row_view) *seen, REAL *max,
                                     REAL *sum, REAL *out, int64_t out_stride, int64_t out_n)
{
    const REAL factor = (REAL)scale, factor2 = (REAL)(scale * SIMD_LOG2_E);
    const VEC minus_infinity = OP(set1)((REAL)-INFINITY), zero = {0};
    VEC top = minus_infinity;
    for (int64_t c = first; c < end; c += NAME(LANES))
        top = OP(max)(NAME(seen_scores)(run, s, &seen[0], c), top);
    for (int64_t r = 0; r < rows; r++) {
        REAL *row = s + r * s_stride;
        const int64_t next = r + 1 < rows ? r + 1 : r;
        const REAL *next_row = s + next * s_stride, largest = OP(largest)(top) * factor;
        const REAL base = NAME(raise_max)(largest, max + r, sum + r, out + r * out_stride, out_n) * (REAL)SIMD_LOG2_E;
        VEC total = zero;
        top = minus_infinity;
        int64_t c = first;
        while (c < end) {
            for (; run && c >= open && c < close; c += NAME(LANES)) {
                const VEC p = OP(exp2)(OP(load)(row + c) * factor2 - base);
                top = OP(max)(OP(load)(next_row + c), top);
                OP(store)(row + c, p);
                total += p;
            }
            for (const int64_t stop = run && c < open ? open : end; c < stop; c += NAME(LANES)) {
                const VEC p = OP(exp2)(OP(load)(row + c) * factor2 - base);
                top = OP(max)(NAME(seen_scores)(run, next_row, &seen[next], c), top);
                const VEC visible = OP(select)(NAME(view_bits)(run, &seen[r], c), p, zero);
                OP(store)(row + c, visible);
                total += visible;
            }
        }
        sum[r] += OP(sum)(total);
    }
}

/* Where the scores of a block begin: packed columns start at whole vectors. */
SIMD_INLINE int64_t NAME(first_score)(const cpu_meeting *t, cpu_reach block)
{
    return t->k_stride ? block.begin : block.begin / NAME(LANES) * NAME(LANES);
}

/* Softmax of the rows of one block within its reach, rounded outwards to whole vectors. */
SIMD_INLINE void NAME(softmax_reach_block)(const cpu_meeting *t, cpu_reach block, int64_t r)
{
    const int64_t first = NAME(first_score)(t, block), stride = t->score_stride;
    REAL *scores = (REAL *)t->scores + r * stride, *out = (REAL *)t->out + r * t->out_stride;
    REAL *max = (REAL *)t->max + r, *sum = (REAL *)t->sum + r;
    NAME(row_view) seen[NAME(BLOCK_ROWS)];
    int64_t open = first, close = block.end;
    for (int64_t i = 0; i < block.rows; i++) {
        const int64_t row = (r + i) % t->mask_rows;
        if (!t->runs) {
            seen[i] = (NAME(row_view)){.mask = t->mask + CPU_MASK_WORDS * row};
            continue;
        }
        seen[i] = (NAME(row_view)){.begin = t->runs[row].begin, .end = t->runs[row].end};
        open = seen[i].begin > open ? first + NAME(round_up)(seen[i].begin - first) : open;
        close = seen[i].end < close ? seen[i].end : close;
    }
    close = first + (close - first) / NAME(LANES) * NAME(LANES);
    if (t->runs)
        NAME(softmax_block)(true, scores, stride, block.rows, first, open, close, block.end, t->scale, seen, max, sum,
                            out, t->out_stride, t->out_stride);
    else
        NAME(softmax_block)(false, scores, stride, block.rows, first, open, close, block.end, t->scale, seen, max, sum,
                            out, t->out_stride, t->out_stride);
}

static void NAME(softmax_reach)(const cpu_meeting *t)
{
    for (int64_t start = 0; start < t->rows; start += NAME(BLOCK_ROWS)) {
        const cpu_reach block = t->reach[start / NAME(BLOCK_ROWS)];
        const int64_t first = NAME(first_score)(t, block), begin = start + block.first;
        if (block.rows > 0 && t->scale >= 0)
            NAME(softmax_reach_block)(t, block, begin);
        for (int64_t r = begin; r < begin + block.rows && t->scale < 0; r++)
            NAME(softmax_row)((REAL *)t->scores + r * t->score_stride, first, block.end, t->scale,
                              t->mask + CPU_MASK_WORDS * (r % t->mask_rows), (REAL *)t->max + r, (REAL *)t->sum + r,
                              (REAL *)t->out + r * t->out_stride, t->out_stride);
    }
}

static void NAME(attend_part)(const cpu_meeting *t)
{
    if (t->k_stride)
        NAME(multiply_lines)(t);
    else
        NAME(multiply_reach)(t->scores, t->score_stride, t->q, t->q_stride, t->k, t->rows, t->columns, t->head_dim,
                             t->reach, NULL, t->ahead);
    NAME(softmax_reach)(t);
    if (!t->finite)
        NAME(product_masked)(t->out, t->out_stride, t->scores, t->score_stride, t->v, t->rows, t->value_dim, t->columns,
                             t->mask, t->mask_rows);
    else
        NAME(multiply_reach)(t->out, t->out_stride, t->scores, t->score_stride, t->v, t->rows, t->value_dim, t->columns,
                             NULL, t->reach, t->ahead);
}
