/* The kernels that only the stencil's backward has, included by kernel_body.h after kernel_stencil.h once per element type.
 * What each one computes stands in kernels.h. */

enum { NAME(SCATTER_LINES) = 4 };

/* Up to LANES rows of a line: as they are, and as columns. */
SIMD_INLINE void NAME(copy_strip)(REAL *line, int64_t stride, REAL *straight, int64_t width, const void *const *rows,
                                  int64_t count, int64_t n)
{
    int64_t k = 0;
#if defined(SIMD_TRANSPOSE) && !defined(KERNEL_DOUBLE)
    for (; k + NAME(LANES) <= n; k += NAME(LANES)) {
        VEC square[NAME(LANES)];
        SIMD_UNROLL
        for (int j = 0; j < NAME(LANES); j++) {
            square[j] = (VEC){0};
            if (j >= count)
                continue;
            square[j] = OP(load)((const REAL *)rows[j] + k);
            OP(store)(straight + j * width + k, square[j]);
        }
        OP(transpose)(square);
        SIMD_UNROLL
        for (int j = 0; j < NAME(LANES); j++)
            OP(store)(line + (k + j) * stride, square[j]);
    }
#endif
    for (int64_t j = 0; j < NAME(LANES); j++)
        for (int64_t i = k; i < (j < count ? width : n); i++) {
            const REAL x = j < count && i < n ? ((const REAL *)rows[j])[i] : 0;
            if (j < count)
                straight[j * width + i] = x;
            if (i < n)
                line[i * stride + j] = x;
        }
}

static void NAME(copy_line)(void *line, int64_t stride, void *straight, int64_t width, const void *const *rows,
                            int64_t count, int64_t n)
{
    for (int64_t x = 0; x < count; x += NAME(LANES)) {
        const int64_t left = count - x, next = left < 2 * NAME(LANES) ? left : 2 * NAME(LANES);
        REAL *to = (REAL *)line + x, *copy = (REAL *)straight + x * width;
        for (int64_t j = NAME(LANES); j < next; j++)
            for (int64_t c = 0; c < n; c += 64 / (int)sizeof(REAL))
                __builtin_prefetch((const REAL *)rows[x + j] + c);
        if (left >= NAME(LANES))
            NAME(copy_strip)(to, stride, copy, width, rows + x, NAME(LANES), n);
        else
            NAME(copy_strip)(to, stride, copy, width, rows + x, left, n);
    }
}

static void NAME(stencil_delta)(void *delta, const void *dout, const void *const *out, int64_t count, int64_t dim)
{
    VEC square[NAME(LANES)];
    SIMD_UNROLL
    for (int l = 0; l < NAME(LANES); l++) {
        const REAL *x = (const REAL *)dout + l * dim;
        square[l] = (VEC){0};
        for (int64_t c = 0; l < count && c < dim; c += NAME(LANES))
            square[l] += OP(load)(x + c) * OP(load)((const REAL *)out[l] + c);
    }
#if defined(SIMD_TRANSPOSE) && !defined(KERNEL_DOUBLE)
    OP(transpose)(square);
    for (int width = NAME(LANES) / 2; width > 0; width /= 2)
        for (int l = 0; l < width; l++)
            square[l] += square[l + width];
    OP(store)(delta, square[0]);
#else
    for (int l = 0; l < NAME(LANES); l++)
        ((REAL *)delta)[l] = OP(sum)(square[l]);
#endif
}

static void NAME(stencil_move)(char *to, int64_t step, bool stream, void *rows, int64_t count, int64_t dim, double factor)
{
    enum { MOVE_AHEAD = 8 }; /* rows are fetched to be written: they lie too far apart for the hardware to foresee */
    const VEC f = OP(set1)((REAL)factor);
    for (int64_t r = 0; r < count; r++, to += step) {
        REAL *row = (REAL *)rows + r * dim;
        for (int64_t c = 0; c < dim; c += NAME(LANES)) {
            REAL *at = (REAL *)(void *)to + c;
            const VEC x = OP(load)(row + c) * f;
            OP(store)(row + c, (VEC){0});
            if (stream) {
                OP(stream)(at, x);
                continue;
            }
            if (r + MOVE_AHEAD < count)
                __builtin_prefetch((const char *)at + MOVE_AHEAD * step, 1);
            OP(store)(at, x);
        }
    }
}

static void NAME(stencil_gradient)(const cpu_lanes *lanes, const cpu_line *lines, int64_t count, int64_t rows,
                                   double scale, void *s, void *ds, const void *lse, const void *delta)
{
    const int64_t slots = lanes->slots;
    const REAL factor2 = (REAL)(scale * SIMD_LOG2_E);
    for (int64_t r = 0; r < rows; r++) {
        const VEC lse2 = OP(load)((const REAL *)lse + r * NAME(LANES)) * (REAL)SIMD_LOG2_E;
        const VEC d = OP(load)((const REAL *)delta + r * NAME(LANES));
        for (int64_t i = 0; i < count; i++) {
            if (r < lines[i].first || r >= lines[i].end)
                continue;
            for (int64_t j = 0; j < slots; j++) {
                const int64_t at = ((r * count + i) * slots + j) * NAME(LANES);
                REAL *sp = (REAL *)s + at, *dp = (REAL *)ds + at;
                const VEC p = NAME(stencil_seen)(lanes, j, OP(exp2)(OP(load)(sp) * factor2 - lse2), 0);
                OP(store)(sp, p);
                OP(store)(dp, NAME(stencil_seen)(lanes, j, p * (OP(load)(dp) - d), 0));
            }
        }
    }
}

/* One row of a block and a column: each lane that sees the column gives its vector, times its weight, to the sums of the
 * lines in `seen`. */
SIMD_INLINE void NAME(scatter_row)(int seen, int vectors, VEC sum[NAME(SCATTER_LINES)][NAME(BLOCK_VECTORS)],
                                   const REAL *s, int64_t line_stride, const int32_t *offset, const REAL *a, int64_t dim,
                                   int64_t lanes)
{
    for (int64_t l = 0; l < lanes; l++) {
        VEC x[NAME(BLOCK_VECTORS)];
        SIMD_UNROLL
        for (int c = 0; c < vectors; c++) {
            x[c] = OP(load)(a + l * dim + c * NAME(LANES));
            SIMD_KEEP(x[c]);
        }
        SIMD_UNROLL
        for (int i = 0; i < NAME(SCATTER_LINES); i++) {
            if (!(seen >> i & 1))
                continue;
            VEC y = OP(set1)(s[offset[l] + i * line_stride]);
            SIMD_KEEP(y);
            SIMD_UNROLL
            for (int c = 0; c < vectors; c++)
                sum[i][c] += y * x[c];
        }
    }
}

/* Lines that the same column is taken of at once, and for each row of the block which of them it sees. */
typedef struct NAME(scatter_group) {
    int64_t lines;
    REAL *to[NAME(SCATTER_LINES)];
    int seen[CPU_STENCIL_ROWS];
} NAME(scatter_group);

static void NAME(scatter_open)(NAME(scatter_group) *group, const cpu_line *lines, int64_t count, int which)
{
    *group = (NAME(scatter_group)){.lines = count < NAME(SCATTER_LINES) ? count : NAME(SCATTER_LINES)};
    for (int64_t i = 0; i < group->lines; i++) {
        group->to[i] = lines[i].sums[which];
        for (int32_t r = lines[i].first; group->to[i] && r < lines[i].end; r++)
            group->seen[r] |= 1 << i;
    }
}

/* A column of a group: s lies at its slot 0 of lane 0 of row 0, a at lane 0 of row 0, both at negative or positive offsets
 * from what is there to read. */
SIMD_INLINE void NAME(scatter_column)(int vectors, const NAME(scatter_group) *group, int64_t column, const REAL *s,
                                      int64_t row_stride, int64_t line_stride, const int32_t *offset, const REAL *a,
                                      int64_t a_stride, int64_t dim, int64_t rows, int64_t lanes)
{
    VEC sum[NAME(SCATTER_LINES)][NAME(BLOCK_VECTORS)];
    SIMD_UNROLL
    for (int i = 0; i < NAME(SCATTER_LINES); i++) {
        SIMD_UNROLL
        for (int c = 0; c < vectors; c++)
            sum[i][c] = group->to[i] ? OP(load)(group->to[i] + column + c * NAME(LANES)) : (VEC){0};
    }
    for (int64_t r = 0; r < rows; r++) {
#define SCATTER_CASE(seen)                                                                                           \
    case seen:                                                                                                       \
        NAME(scatter_row)(seen, vectors, sum, s + r * row_stride, line_stride, offset, a + r * a_stride, dim, lanes); \
        break
        switch (group->seen[r]) {
            SCATTER_CASE(1);
            SCATTER_CASE(2);
            SCATTER_CASE(3);
            SCATTER_CASE(4);
            SCATTER_CASE(5);
            SCATTER_CASE(6);
            SCATTER_CASE(7);
            SCATTER_CASE(8);
            SCATTER_CASE(9);
            SCATTER_CASE(10);
            SCATTER_CASE(11);
            SCATTER_CASE(12);
            SCATTER_CASE(13);
            SCATTER_CASE(14);
            SCATTER_CASE(15);
        default: break;
        }
#undef SCATTER_CASE
    }
    SIMD_UNROLL
    for (int i = 0; i < NAME(SCATTER_LINES); i++) {
        SIMD_UNROLL
        for (int c = 0; c < vectors; c++)
            if (group->to[i])
                OP(store)(group->to[i] + column + c * NAME(LANES), sum[i][c]);
    }
}

/* All columns first .. end - 1 of a group. The lanes that see a column are neighbors, and move on with it. */
SIMD_INLINE void NAME(scatter_columns)(int vectors, const NAME(scatter_group) *group, const cpu_lanes *lanes,
                                       const int32_t *offset, const REAL *s, int64_t row_stride, const REAL *a,
                                       int64_t dim, int64_t at, int64_t rows, int32_t first, int32_t end)
{
    int32_t low = 0, high = 0;
    for (int32_t x = first; x < end; x++) {
        while (low < lanes->count && lanes->begin[low] + lanes->size[low] <= x)
            low++;
        while (high < lanes->count && lanes->begin[high] <= x)
            high++;
        NAME(scatter_column)(vectors, group, x * dim + at, s + x * NAME(LANES), row_stride, lanes->slots * NAME(LANES),
                             offset + low, a + low * dim + at, NAME(LANES) * dim, dim, rows, high - low);
    }
}

static void NAME(stencil_scatter)(const cpu_lanes *lanes, const cpu_line *lines, int64_t count, int64_t rows, int which,
                                  const void *s, const void *a, int64_t dim, int32_t first, int32_t end)
{
    const int64_t row_stride = count * lanes->slots * NAME(LANES);
    int32_t offset[NAME(LANES)], stop = 0;
    for (int32_t l = 0; l < lanes->count; l++) {
        offset[l] = l - lanes->begin[l] * NAME(LANES);
        stop = lanes->begin[l] + lanes->size[l];
    }
    first = first > lanes->begin[0] ? first : lanes->begin[0];
    end = end < stop ? end : stop;
    for (int64_t i = 0; i < count; i += NAME(SCATTER_LINES)) {
        const REAL *from = (const REAL *)s + i * lanes->slots * NAME(LANES);
        NAME(scatter_group) group;
        NAME(scatter_open)(&group, lines + i, count - i, which);
        int64_t c = 0;
        for (; c + NAME(PANEL) <= dim; c += NAME(PANEL))
            NAME(scatter_columns)(NAME(BLOCK_VECTORS), &group, lanes, offset, from, row_stride, a, dim, c, rows, first, end);
#if SIMD_REGISTERS == 32
        for (; c + 2 * NAME(LANES) <= dim; c += 2 * NAME(LANES))
            NAME(scatter_columns)(2, &group, lanes, offset, from, row_stride, a, dim, c, rows, first, end);
#endif
        for (; c < dim; c += NAME(LANES))
            NAME(scatter_columns)(1, &group, lanes, offset, from, row_stride, a, dim, c, rows, first, end);
    }
}
