/* The stencil kernels, included by kernel_body.h once per element type: queries (or keys, for dk and dv) in the lanes. What
 * each one computes stands in kernels.h. */

/* How a block finds the columns of its lanes: side by side, each from the two vectors that hold all slots of the block, or
 * each slot from two vectors of its own. */
enum { NAME(SIDE_BY_SIDE), NAME(FROM_PAIR), NAME(FROM_PAIRS) };

#if defined(SIMD_PICK)
enum { NAME(HAS_PICK) = 1 };
#else
enum { NAME(HAS_PICK) = 0 };
#endif

/* Scores of `rows` rows for `slots` window slots. */
SIMD_INLINE void NAME(stencil_block)(int rows, int slots, int find, REAL *s, int64_t s_stride, const REAL *q,
                                     int64_t q_stride, const REAL *k, int64_t k_stride, INDEX index, int64_t depth)
{
    VEC sum[CPU_STENCIL_ROWS][6];
    SIMD_UNROLL
    for (int r = 0; r < rows; r++) {
        SIMD_UNROLL
        for (int j = 0; j < slots; j++)
            sum[r][j] = (VEC){0};
    }
    for (int64_t d = 0; d < depth; d++) {
        VEC y[CPU_STENCIL_ROWS];
        SIMD_UNROLL
        for (int r = 0; r < rows; r++) {
            y[r] = OP(load)(q + r * q_stride + d * NAME(LANES));
            SIMD_KEEP(y[r]);
        }
        const REAL *line = k + d * k_stride;
#if defined(SIMD_PICK)
        VEC low = {0}, high = {0};
        if (find == NAME(FROM_PAIR)) {
            low = OP(load)(line);
            high = OP(load)(line + NAME(LANES));
        }
#endif
        SIMD_UNROLL
        for (int j = 0; j < slots; j++) {
            VEC x;
            if (find == NAME(SIDE_BY_SIDE))
                x = OP(load)(line + j);
#if defined(SIMD_PICK)
            else if (find == NAME(FROM_PAIR))
                x = OP(pick)(low, high, index + j);
#endif
            else
                x = OP(near)(line + j, index);
            SIMD_KEEP(x);
            SIMD_UNROLL
            for (int r = 0; r < rows; r++)
                sum[r][j] += y[r] * x;
        }
    }
    SIMD_UNROLL
    for (int r = 0; r < rows; r++) {
        SIMD_UNROLL
        for (int j = 0; j < slots; j++)
            OP(store)(s + r * s_stride + j * NAME(LANES), sum[r][j]);
    }
}

/* All slots, in register blocks: up to 6 of them with 32 registers (24 sums for four rows), up to 2 or 3 with 16. */
SIMD_INLINE void NAME(stencil_rows)(int rows, int find, REAL *s, int64_t s_stride, const REAL *q, int64_t q_stride,
                                    const REAL *k, int64_t k_stride, INDEX index, int64_t slots, int64_t depth)
{
    const int64_t most = SIMD_REGISTERS == 32 ? 6 : rows == 4 ? 2 : 3;
    int64_t left = slots;
    while (left > 0) {
        REAL *to = s + (slots - left) * NAME(LANES);
        const REAL *from = k + slots - left;
        if (most >= 6 && (left == 6 || left >= 9)) {
            NAME(stencil_block)(rows, 6, find, to, s_stride, q, q_stride, from, k_stride, index, depth);
            left -= 6;
        } else if (most >= 6 && (left == 4 || left >= 7)) {
            NAME(stencil_block)(rows, 4, find, to, s_stride, q, q_stride, from, k_stride, index, depth);
            left -= 4;
        } else if (most >= 3 && left >= 3) {
            NAME(stencil_block)(rows, 3, find, to, s_stride, q, q_stride, from, k_stride, index, depth);
            left -= 3;
        } else if (left >= 2) {
            NAME(stencil_block)(rows, 2, find, to, s_stride, q, q_stride, from, k_stride, index, depth);
            left -= 2;
        } else {
            NAME(stencil_block)(rows, 1, find, to, s_stride, q, q_stride, from, k_stride, index, depth);
            left -= 1;
        }
    }
}

static void NAME(stencil_scores)(const cpu_lanes *lanes, const cpu_line *lines, int64_t count, int which,
                                 int64_t line_stride, const void *a, int64_t depth, void *s)
{
    const int64_t slots = lanes->slots, s_stride = count * slots * NAME(LANES), a_stride = depth * NAME(LANES);
    INDEX index;
    for (int i = 0; i < NAME(LANES); i++)
        index[i] = lanes->begin[i] - lanes->begin[0];
    int find = NAME(SIDE_BY_SIDE);
    if (lanes->near)
        find = NAME(HAS_PICK) && index[NAME(LANES) - 1] + 5 < 2 * NAME(LANES) ? NAME(FROM_PAIR) : NAME(FROM_PAIRS);
    for (int64_t i = 0; i < count; i++) {
        const cpu_line *line = &lines[i];
        const REAL *k = (const REAL *)line->transposed[which] + lanes->begin[0];
        const REAL *q = (const REAL *)a + line->first * a_stride;
        REAL *to = (REAL *)s + line->first * s_stride + i * slots * NAME(LANES);
#define STENCIL_CASE(n)                                                                                              \
    case n:                                                                                                          \
        if (find == NAME(SIDE_BY_SIDE))                                                                              \
            NAME(stencil_rows)(n, NAME(SIDE_BY_SIDE), to, s_stride, q, a_stride, k, line_stride, index, slots, depth); \
        else if (find == NAME(FROM_PAIR))                                                                            \
            NAME(stencil_rows)(n, NAME(FROM_PAIR), to, s_stride, q, a_stride, k, line_stride, index, slots, depth);  \
        else                                                                                                         \
            NAME(stencil_rows)(n, NAME(FROM_PAIRS), to, s_stride, q, a_stride, k, line_stride, index, slots, depth); \
        break
        switch (line->end - line->first) {
            STENCIL_CASE(1);
            STENCIL_CASE(2);
            STENCIL_CASE(3);
            STENCIL_CASE(4);
        default: break;
        }
#undef STENCIL_CASE
    }
}

/* scale s where the slot exists, else minus infinity. */
SIMD_INLINE VEC NAME(stencil_seen)(const cpu_lanes *lanes, int64_t slot, VEC x, REAL hidden)
{
    return lanes->partial ? OP(select)(lanes->bits[slot], x, OP(set1)(hidden)) : x;
}

static void NAME(stencil_softmax)(const cpu_lanes *lanes, const cpu_line *lines, int64_t count, int64_t rows,
                                  double scale, bool fresh, void *s, void *max, void *sum, void *out, int64_t dim)
{
    const int64_t slots = lanes->slots;
    const REAL factor = (REAL)scale;
    for (int64_t r = 0; r < rows; r++) {
        REAL *row = (REAL *)s + r * count * slots * NAME(LANES);
        REAL *row_max = (REAL *)max + r * NAME(LANES), *row_sum = (REAL *)sum + r * NAME(LANES);
        const VEC old = fresh ? OP(set1)((REAL)-INFINITY) : OP(load)(row_max);
        VEC top = old;
        for (int64_t i = 0; i < count; i++) {
            if (r < lines[i].first || r >= lines[i].end)
                continue;
            for (int64_t j = 0; j < slots; j++) {
                const REAL *at = row + (i * slots + j) * NAME(LANES);
                top = OP(max)(NAME(stencil_seen)(lanes, j, OP(load)(at) * factor, (REAL)-INFINITY), top);
            }
        }
        /* Lanes that have seen nothing, or only NaN, have no max: zero serves, and NaN must get through. */
        const VEC base = OP(max)(top, OP(set1)(LOWEST));
        VEC total = {0};
        for (int64_t i = 0; i < count; i++) {
            if (r < lines[i].first || r >= lines[i].end)
                continue;
            for (int64_t j = 0; j < slots; j++) {
                REAL *at = row + (i * slots + j) * NAME(LANES);
                const VEC p = NAME(stencil_seen)(lanes, j, OP(exp)(OP(load)(at) * factor - base), 0);
                OP(store)(at, p);
                total += p;
            }
        }
        OP(store)(row_max, top);
        if (fresh) {
            OP(store)(row_sum, total);
            continue;
        }
        const VEC shrink = OP(exp)(old - base);
        OP(store)(row_sum, OP(load)(row_sum) * shrink + total);
        for (int64_t l = 0; l < lanes->count; l++) {
            if (shrink[l] == 1 || old[l] == (REAL)-INFINITY)
                continue;
            REAL *o = (REAL *)out + (r * NAME(LANES) + l) * dim;
            for (int64_t c = 0; c < dim; c += NAME(LANES))
                OP(store)(o + c, OP(load)(o + c) * shrink[l]);
        }
    }
}

/* One line of one lane: rows first .. end - 1 gather size columns of `vectors` vectors; what a lane does not see is never
 * touched. */
SIMD_INLINE void NAME(apply_line)(int first, int end, int vectors, VEC sum[CPU_STENCIL_ROWS][NAME(BLOCK_VECTORS)],
                                  const REAL *p, int64_t p_stride, const REAL *v, int64_t dim, int64_t size)
{
    for (int64_t j = 0; j < size; j++) {
        VEC x[NAME(BLOCK_VECTORS)];
        SIMD_UNROLL
        for (int c = 0; c < vectors; c++) {
            x[c] = OP(load)(v + j * dim + c * NAME(LANES));
            SIMD_KEEP(x[c]);
        }
        SIMD_UNROLL
        for (int r = first; r < end; r++) {
            VEC y = OP(set1)(p[r * p_stride + j * NAME(LANES)]);
            SIMD_KEEP(y);
            SIMD_UNROLL
            for (int c = 0; c < vectors; c++)
                sum[r][c] += y * x[c];
        }
    }
}

/* The sums of one lane: columns `column` and on, `vectors` vectors of them, in all rows. */
SIMD_INLINE void NAME(apply_lines)(int vectors, VEC sum[CPU_STENCIL_ROWS][NAME(BLOCK_VECTORS)], const cpu_lanes *lanes,
                                   int64_t lane, const cpu_line *lines, int64_t count, int64_t column,
                                   const REAL *s, int64_t dim, cpu_ahead *ahead)
{
    const int64_t slots = lanes->slots, p_stride = count * slots * NAME(LANES);
    const int64_t size = lanes->size[lane], start = lanes->begin[lane] * dim + column;
    for (int64_t i = 0; i < count; i++) {
        const REAL *v = (const REAL *)lines[i].straight + start, *p = s + i * slots * NAME(LANES) + lane;
        if (ahead)
            cpu_fetch_ahead(ahead);
#define APPLY_CASE(a, b)                                                                                             \
    case 8 * (a) + (b):                                                                                              \
        NAME(apply_line)(a, b, vectors, sum, p, p_stride, v, dim, size);                                             \
        break
        switch (8 * lines[i].first + lines[i].end) {
            APPLY_CASE(0, 4);
            APPLY_CASE(0, 3);
            APPLY_CASE(0, 2);
            APPLY_CASE(0, 1);
            APPLY_CASE(1, 4);
            APPLY_CASE(1, 3);
            APPLY_CASE(1, 2);
            APPLY_CASE(2, 4);
            APPLY_CASE(2, 3);
            APPLY_CASE(3, 4);
        default: break;
        }
#undef APPLY_CASE
    }
}

static void NAME(stencil_close)(int64_t rows, const void *max, void *sum, void *lse)
{
    for (int64_t i = 0; i < rows * NAME(LANES); i += NAME(LANES)) {
        const VEC total = OP(load)((const REAL *)sum + i), zero = {0};
        const INDEX empty = total == zero;
        const INDEX value = (INDEX)(OP(load)((const REAL *)max + i) + OP(log)(total));
        OP(store)((REAL *)lse + i, (VEC)((empty & (INDEX)OP(set1)((REAL)-INFINITY)) | (~empty & value)));
        OP(store)((REAL *)sum + i, (VEC)(~empty & (INDEX)(1 / total)));
    }
}

SIMD_INLINE void NAME(value_lane)(int vectors, const cpu_lanes *lanes, int64_t lane, const cpu_line *lines, int64_t count,
                                  int64_t rows, int64_t column, const REAL *s, bool fresh, REAL *out, int64_t dim,
                                  const cpu_targets *targets, const REAL *factors, cpu_ahead *ahead)
{
    const int64_t o_stride = NAME(LANES) * dim;
    VEC sum[CPU_STENCIL_ROWS][NAME(BLOCK_VECTORS)];
    SIMD_UNROLL
    for (int r = 0; r < CPU_STENCIL_ROWS; r++) {
        SIMD_UNROLL
        for (int c = 0; c < vectors; c++)
            sum[r][c] = fresh || r >= rows ? (VEC){0} : OP(load)(out + r * o_stride + column + c * NAME(LANES));
    }
    NAME(apply_lines)(vectors, sum, lanes, lane, lines, count, column, s, dim, ahead);
    SIMD_UNROLL
    for (int r = 0; r < CPU_STENCIL_ROWS; r++) {
        if (r >= rows)
            break;
        REAL *to = targets ? (REAL *)(void *)(targets->rows[r] + targets->lane[lane]) + column : out + r * o_stride + column;
        const VEC factor = OP(set1)(targets ? factors[r * NAME(LANES) + lane] : 1);
        SIMD_UNROLL
        for (int c = 0; c < vectors; c++)
            if (targets && targets->stream)
                OP(stream)(to + c * NAME(LANES), sum[r][c] * factor);
            else
                OP(store)(to + c * NAME(LANES), sum[r][c] * factor);
    }
}

static void NAME(stencil_values)(const cpu_lanes *lanes, const cpu_line *lines, int64_t count, int64_t rows, const void *s,
                                 bool fresh, void *out, int64_t dim, const cpu_targets *targets, const void *factors,
                                 cpu_ahead *ahead)
{
    for (int64_t lane = 0; lane < lanes->count; lane++) {
        REAL *o = (REAL *)out + lane * dim;
        int64_t c = 0;
        for (; c + NAME(PANEL) <= dim; c += NAME(PANEL))
            NAME(value_lane)(NAME(BLOCK_VECTORS), lanes, lane, lines, count, rows, c, s, fresh, o, dim, targets, factors,
                             ahead);
#if SIMD_REGISTERS == 32
        for (; c + 2 * NAME(LANES) <= dim; c += 2 * NAME(LANES))
            NAME(value_lane)(2, lanes, lane, lines, count, rows, c, s, fresh, o, dim, targets, factors, ahead);
#endif
        for (; c < dim; c += NAME(LANES))
            NAME(value_lane)(1, lanes, lane, lines, count, rows, c, s, fresh, o, dim, targets, factors, ahead);
    }
}
