/* The stencil kernels, included by kernel_body.h once per element type: queries (or keys, for dk and dv) in the lanes. What
 * each one computes stands in kernels.h. */

/* How a block finds the columns of its lanes: side by side; side by side on a ramp of lanes, beyond which, on one side or
 * both, all lanes start at one column (the borders of a window that does not leave the axis), which is a broadcast; permuted,
 * from the one vector that holds all of a slot, where that can be done; from the two vectors that hold all slots; from two
 * vectors for each slot. */
enum {
    NAME(SIDE_BY_SIDE),
    NAME(ONE_EDGE),
    NAME(TWO_EDGES),
    NAME(FROM_ONE),
    NAME(FROM_PAIR),
    NAME(FROM_PAIRS)
};

enum { NAME(MOST_SLOTS) = 9 }; /* of a register block */

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
#if defined(SIMD_PERMUTE)
    if ((f.kind == NAME(FROM_PAIRS) || (first | f.last)) && high < NAME(LANES))
        f.kind = NAME(FROM_ONE);
#else
    if (f.kind == NAME(SIDE_BY_SIDE) && (first | f.last))
        f.kind = first && f.last ? NAME(TWO_EDGES) : NAME(ONE_EDGE);
#endif
#if defined(SIMD_PICK)
    const int32_t most = lanes->slots < NAME(MOST_SLOTS) ? lanes->slots : NAME(MOST_SLOTS);
    if (f.kind == NAME(FROM_PAIRS) && high + most <= 2 * NAME(LANES))
        f.kind = NAME(FROM_PAIR);
#endif
    f.edge[0] = first ? 0 : high;
    return f;
}

SIMD_INLINE VEC NAME(find)(int kind, const NAME(finder) *f, const REAL *line)
{
    if (kind == NAME(SIDE_BY_SIDE))
        return OP(load)(line);
    if (kind == NAME(FROM_PAIRS))
        return OP(near)(line, f->index);
#if defined(SIMD_PERMUTE)
    if (kind == NAME(FROM_ONE))
        return OP(permute)(OP(load)(line), f->index);
#endif
    VEC x = OP(select)(f->on_ramp, OP(load)(line + f->ramp), OP(set1)(line[f->edge[0]]));
    if (kind == NAME(TWO_EDGES))
        x = OP(select)(f->last, OP(set1)(line[f->edge[1]]), x);
    return x;
}

/* Slots of a register block. Of 16 registers 8 to 12 are sums, which cover the latency of multiply-adds, others hold the
 * operands that are shared, of rows or of slots, whichever are fewer, and one takes what each of those meets in turn; without
 * fused multiply-adds products take one more. */
SIMD_INLINE int NAME(most_slots)(int rows)
{
    if (SIMD_REGISTERS == 32)
        return rows > 2 ? 6 : NAME(MOST_SLOTS);
    if (!SIMD_FUSED)
        return rows == 4 ? 2 : 3;
    return rows == 4 ? 3 : rows == 3 ? 4 : rows == 2 ? 5 : NAME(MOST_SLOTS);
}

#if defined(SIMD_PICK)
/* A load that crosses a cache line counts twice. Where few rows share it, loads are what limits: then the two vectors that
 * hold all slots of a block are loaded, and slots slide out of them; only every other one where they are permuted, too. */
SIMD_INLINE bool NAME(slides)(int rows, int kind)
{
    return (kind == NAME(SIDE_BY_SIDE) && rows <= 2) || (kind == NAME(FROM_ONE) && rows == 1);
}

/* Slot j of a block that begins at `line`; low and high: the vectors there. */
SIMD_INLINE VEC NAME(slot)(int rows, int kind, const NAME(finder) *f, const REAL *line, VEC low, VEC high, int j)
{
    if (kind == NAME(FROM_PAIR))
        return OP(pick)(low, high, f->index + j);
    if (NAME(slides)(rows, kind) && kind == NAME(SIDE_BY_SIDE))
        return OP(slide)(low, high, j);
    if (NAME(slides)(rows, kind) && j % 2)
        return OP(permute)(OP(slide)(low, high, j), f->index);
    return NAME(find)(kind, f, line + j);
}
#endif

/* Scores of `rows` rows for `slots` window slots. */
SIMD_INLINE void NAME(stencil_block)(int rows, int slots, int kind, const NAME(finder) *f, REAL *const *to, int64_t at,
                                     const REAL *q, int64_t q_stride, const REAL *k, int64_t k_stride, int64_t depth)
{
    NAME(finder) finder = *f;
    const bool keep_slots = SIMD_REGISTERS == 16 && SIMD_FUSED && rows >= slots;
    VEC sum[CPU_STENCIL_ROWS][NAME(MOST_SLOTS)], x[NAME(MOST_SLOTS)], y[CPU_STENCIL_ROWS];
    SIMD_UNROLL
    for (int r = 0; r < rows; r++) {
        SIMD_UNROLL
        for (int j = 0; j < slots; j++)
            sum[r][j] = (VEC){0};
    }
    for (int64_t d = 0; d < depth; d++) {
        const REAL *line = k + d * k_stride;
        if (SIMD_REGISTERS == 16 && (kind == NAME(FROM_ONE) || kind == NAME(FROM_PAIRS)))
            SIMD_RELOAD(finder.index);
#if defined(SIMD_PICK)
        VEC low = {0}, high = {0};
        if (kind == NAME(FROM_PAIR) || NAME(slides)(rows, kind)) {
            low = OP(load)(line + at);
            high = OP(load)(line + at + NAME(LANES));
        }
#endif
        SIMD_UNROLL
        for (int r = 0; !keep_slots && r < rows; r++) {
            y[r] = OP(load)(q + r * q_stride + d * NAME(LANES));
            SIMD_KEEP(y[r]);
        }
        SIMD_UNROLL
        for (int j = 0; j < slots; j++) {
#if defined(SIMD_PICK)
            x[j] = NAME(slot)(rows, kind, &finder, line + at, low, high, j);
#else
            x[j] = NAME(find)(kind, &finder, line + at + j);
#endif
            if (rows > 1)
                SIMD_KEEP(x[j]);
            SIMD_UNROLL
            for (int r = 0; !keep_slots && r < rows; r++)
                sum[r][j] += y[r] * x[j];
        }
        SIMD_UNROLL
        for (int r = 0; keep_slots && r < rows; r++) {
            y[r] = OP(load)(q + r * q_stride + d * NAME(LANES));
            SIMD_KEEP(y[r]);
            SIMD_UNROLL
            for (int j = 0; j < slots; j++)
                sum[r][j] += y[r] * x[j];
        }
    }
    SIMD_UNROLL
    for (int r = 0; r < rows; r++) {
        SIMD_UNROLL
        for (int j = 0; j < slots; j++)
            OP(store)(to[r] + (at + j) * NAME(LANES), sum[r][j]);
    }
}

/* All slots, in register blocks of about the same size. */
SIMD_INLINE void NAME(stencil_rows)(int rows, int kind, const NAME(finder) *f, REAL *const *to, const REAL *q,
                                    int64_t q_stride, const REAL *k, int64_t k_stride, int64_t slots, int64_t depth)
{
    const int64_t most = NAME(most_slots)(rows);
    int64_t at = 0;
    for (int64_t passes = (slots + most - 1) / most; passes > 0; passes--) {
        const int64_t n = (slots - at + passes - 1) / passes;
        switch (n) {
#define STENCIL_BLOCK(n)                                                                                             \
    case n:                                                                                                          \
        if (n <= most)                                                                                               \
            NAME(stencil_block)(rows, n, kind, f, to, at, q, q_stride, k, k_stride, depth);                          \
        break
            STENCIL_BLOCK(9);
            STENCIL_BLOCK(8);
            STENCIL_BLOCK(7);
            STENCIL_BLOCK(6);
            STENCIL_BLOCK(5);
            STENCIL_BLOCK(4);
            STENCIL_BLOCK(3);
            STENCIL_BLOCK(2);
            STENCIL_BLOCK(1);
        default: break;
#undef STENCIL_BLOCK
        }
        at += n;
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
        case NAME(FROM_ONE):                                                                                         \
            NAME(stencil_rows)(n, NAME(FROM_ONE), f, to, q, q_stride, k, k_stride, slots, depth);                    \
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

/* Vectors of values that four rows sum at a time. */
enum { NAME(VALUE_VECTORS) = SIMD_REGISTERS == 32 ? 4 : SIMD_FUSED ? 3 : 2 };

/* Two lines that are mates: rows up to `split` gather columns of one, the others of its mate. */
SIMD_INLINE void NAME(value_mates)(int split, int vectors, VEC sum[CPU_STENCIL_ROWS][NAME(VALUE_VECTORS)],
                                   const REAL **p, int64_t p_slot, const REAL *v, const REAL *mate, int64_t dim,
                                   int64_t size, int64_t slots)
{
    for (int64_t j = 0; j < size; j++) {
        VEC x[NAME(VALUE_VECTORS)];
        SIMD_UNROLL
        for (int r = 0; r < CPU_STENCIL_ROWS; r++) {
            const REAL *from = (r < split ? v : mate) + j * dim;
            if (r == 0 || r == split) {
                SIMD_UNROLL
                for (int c = 0; c < vectors; c++) {
                    x[c] = OP(load)(from + c * NAME(LANES));
                    SIMD_KEEP(x[c]);
                }
            }
            VEC y = OP(set1)(p[r][j * p_slot]);
            SIMD_KEEP(y);
            SIMD_UNROLL
            for (int c = 0; c < vectors; c++)
                sum[r][c] += y * x[c];
        }
    }
    SIMD_UNROLL
    for (int r = 0; r < CPU_STENCIL_ROWS; r++)
        p[r] += slots * p_slot;
}

SIMD_INLINE void NAME(value_split)(int32_t split, int vectors, VEC sum[CPU_STENCIL_ROWS][NAME(VALUE_VECTORS)],
                                   const REAL **p, int64_t p_slot, const REAL *v, const REAL *mate, int64_t dim,
                                   int64_t size, int64_t slots)
{
    switch (split) {
    case 1: NAME(value_mates)(1, vectors, sum, p, p_slot, v, mate, dim, size, slots); break;
    case 2: NAME(value_mates)(2, vectors, sum, p, p_slot, v, mate, dim, size, slots); break;
    default: NAME(value_mates)(3, vectors, sum, p, p_slot, v, mate, dim, size, slots); break;
    }
}
