/* The stencil kernels, included by kernel_body.h once per element type: queries (or keys, for dk and dv) in the lanes. What
 * each one computes stands in kernels.h. */

/* How a block finds the columns of its lanes: side by side; side by side on a ramp of lanes, beyond which, on one side or
 * both, all lanes start at one column (the borders of a window that does not leave the axis), which is a broadcast, a load,
 * where a permute would cost a multiply-add; from the two vectors that hold all slots; from two vectors for each slot. */
enum { NAME(SIDE_BY_SIDE), NAME(ONE_EDGE), NAME(TWO_EDGES), NAME(FROM_PAIR), NAME(FROM_PAIRS) };

typedef struct NAME(finder) {
    int kind;
    int64_t ramp, edge[2];  /* columns from begin[0] */
    uint32_t on_ramp, last; /* lanes on the ramp, lanes at edge[1] */
    INDEX index;
} NAME(finder);

static NAME(finder) NAME(find_columns)(const cpu_lanes *lanes)
{
    NAME(finder) f = {.kind = NAME(SIDE_BY_SIDE)};
    const int32_t high = lanes->begin[NAME(LANES) - 1] - lanes->begin[0];
    uint32_t first = 0;
    int32_t start = 0;
    while (start < NAME(LANES) - 1 && lanes->begin[start] == lanes->begin[0])
        start++;
    f.ramp = lanes->begin[start] - lanes->begin[0] - start;
    f.edge[1] = high;
    for (int32_t i = 0; i < NAME(LANES); i++) {
        const int32_t at = lanes->begin[i] - lanes->begin[0];
        const int64_t ramp = f.ramp + i;
        f.index[i] = at;
        if (at == ramp)
            f.on_ramp |= 1u << i;
        else if (at == 0 && ramp < 0)
            first |= 1u << i;
        else if (at == high && ramp > high)
            f.last |= 1u << i;
        else
            f.kind = NAME(FROM_PAIRS);
    }
#if defined(SIMD_PICK)
    if (f.kind == NAME(FROM_PAIRS) && high + lanes->slots <= 2 * NAME(LANES))
        f.kind = NAME(FROM_PAIR);
#endif
    if (f.kind != NAME(SIDE_BY_SIDE) || !(first | f.last))
        return f;
    f.kind = first && f.last ? NAME(TWO_EDGES) : NAME(ONE_EDGE);
    f.edge[0] = first ? 0 : high;
    return f;
}

SIMD_INLINE VEC NAME(find)(int kind, const NAME(finder) *f, const REAL *line)
{
    if (kind == NAME(SIDE_BY_SIDE))
        return OP(load)(line);
    if (kind == NAME(FROM_PAIRS))
        return OP(near)(line, f->index);
    VEC x = OP(select)(f->on_ramp, OP(load)(line + f->ramp), OP(set1)(line[f->edge[0]]));
    if (kind == NAME(TWO_EDGES))
        x = OP(select)(f->last, OP(set1)(line[f->edge[1]]), x);
    return x;
}

/* Scores of `rows` rows for `slots` window slots. */
SIMD_INLINE void NAME(stencil_block)(int rows, int slots, int kind, const NAME(finder) *f, REAL *const *to, int64_t at,
                                     const REAL *q, int64_t q_stride, const REAL *k, int64_t k_stride, int64_t depth)
{
    const NAME(finder) finder = *f;
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
        if (kind == NAME(FROM_PAIR)) {
            low = OP(load)(line);
            high = OP(load)(line + NAME(LANES));
        }
#endif
        SIMD_UNROLL
        for (int j = 0; j < slots; j++) {
            VEC x;
#if defined(SIMD_PICK)
            if (kind == NAME(FROM_PAIR))
                x = OP(pick)(low, high, finder.index + (int)at + j);
            else
#endif
                x = NAME(find)(kind, &finder, line + at + j);
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
            OP(store)(to[r] + (at + j) * NAME(LANES), sum[r][j]);
    }
}

/* All slots, in register blocks: up to 6 of them with 32 registers (24 sums for four rows), up to 2 or 3 with 16. */
SIMD_INLINE void NAME(stencil_rows)(int rows, int kind, const NAME(finder) *f, REAL *const *to, const REAL *q,
                                    int64_t q_stride, const REAL *k, int64_t k_stride, int64_t slots, int64_t depth)
{
    const int64_t most = SIMD_REGISTERS == 32 ? 6 : rows == 4 ? 2 : 3;
    int64_t at = 0;
    while (at < slots) {
        const int64_t left = slots - at;
#define STENCIL_BLOCK(n)                                                                                             \
    do {                                                                                                             \
        NAME(stencil_block)(rows, n, kind, f, to, at, q, q_stride, k, k_stride, depth);                              \
        at += n;                                                                                                     \
    } while (0)
        if (most >= 6 && (left == 6 || left >= 9))
            STENCIL_BLOCK(6);
        else if (most >= 6 && (left == 4 || left >= 7))
            STENCIL_BLOCK(4);
        else if (most >= 3 && left >= 3)
            STENCIL_BLOCK(3);
        else if (left >= 2)
            STENCIL_BLOCK(2);
        else
            STENCIL_BLOCK(1);
#undef STENCIL_BLOCK
    }
}

/* One line; to: of each row that sees it. */
static void NAME(stencil_line)(const NAME(finder) *f, int64_t rows, REAL *const *to, const REAL *q, int64_t q_stride,
                               const REAL *k, int64_t k_stride, int64_t slots, int64_t depth)
{
#define STENCIL_CASE(n)                                                                                              \
    case n:                                                                                                          \
        switch (f->kind) {                                                                                           \
        case NAME(SIDE_BY_SIDE):                                                                                     \
            NAME(stencil_rows)(n, NAME(SIDE_BY_SIDE), f, to, q, q_stride, k, k_stride, slots, depth);                \
            break;                                                                                                   \
        case NAME(ONE_EDGE):                                                                                         \
            NAME(stencil_rows)(n, NAME(ONE_EDGE), f, to, q, q_stride, k, k_stride, slots, depth);                    \
            break;                                                                                                   \
        case NAME(TWO_EDGES):                                                                                        \
            NAME(stencil_rows)(n, NAME(TWO_EDGES), f, to, q, q_stride, k, k_stride, slots, depth);                   \
            break;                                                                                                   \
        case NAME(FROM_PAIR):                                                                                        \
            NAME(stencil_rows)(n, NAME(FROM_PAIR), f, to, q, q_stride, k, k_stride, slots, depth);                   \
            break;                                                                                                   \
        default: NAME(stencil_rows)(n, NAME(FROM_PAIRS), f, to, q, q_stride, k, k_stride, slots, depth); break;      \
        }                                                                                                            \
        break
    switch (rows) {
        STENCIL_CASE(1);
        STENCIL_CASE(2);
        STENCIL_CASE(3);
        STENCIL_CASE(4);
    default: break;
    }
#undef STENCIL_CASE
}

static void NAME(stencil_scores)(const cpu_lanes *lanes, const cpu_line *lines, int64_t count, int which,
                                 int64_t line_stride, const void *a, int64_t depth, void *s)
{
    const int64_t slots = lanes->slots, s_stride = count * slots * NAME(LANES), a_stride = depth * NAME(LANES);
    const NAME(finder) f = NAME(find_columns)(lanes);
    for (int64_t i = 0; i < count; i++) {
        const cpu_line *line = &lines[i];
        REAL *to[CPU_STENCIL_ROWS];
        for (int32_t r = line->first; r < line->end; r++)
            to[r - line->first] = (REAL *)s + r * s_stride + i * slots * NAME(LANES);
        NAME(stencil_line)(&f, line->end - line->first, to, (const REAL *)a + line->first * a_stride, a_stride,
                           (const REAL *)line->transposed[which] + lanes->begin[0], line_stride, slots, depth);
    }
}

/* scale s where the slot exists, else minus infinity. */
SIMD_INLINE VEC NAME(stencil_seen)(const cpu_lanes *lanes, int64_t slot, VEC x, REAL hidden)
{
    return lanes->partial ? OP(select)(lanes->bits[slot], x, OP(set1)(hidden)) : x;
}
