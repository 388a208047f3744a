/* Products with a part of a packed matrix, or with lines, and with a transposed. Included by kernel_body.h. */

/* All rows of one strip of b: blocks of six, then one block of what is left. */
SIMD_INLINE void NAME(strip)(int vectors, REAL *c, int64_t c_stride, const REAL *a, int64_t a_row, int64_t a_depth,
                             const REAL *b, int64_t b_stride, int64_t m, int64_t depth, bool add, cpu_ahead *ahead)
{
    int64_t r = 0;
    for (; r + 6 <= m; r += 6) {
        if (ahead)
            cpu_fetch_ahead(ahead);
        NAME(block)(6, vectors, c + r * c_stride, c_stride, a + r * a_row, a_row, a_depth, b, b_stride, depth, add);
    }
    c += r * c_stride;
    a += r * a_row;
    switch (m - r) {
    case 5: NAME(block)(5, vectors, c, c_stride, a, a_row, a_depth, b, b_stride, depth, add); break;
    case 4: NAME(block)(4, vectors, c, c_stride, a, a_row, a_depth, b, b_stride, depth, add); break;
    case 3: NAME(block)(3, vectors, c, c_stride, a, a_row, a_depth, b, b_stride, depth, add); break;
    case 2: NAME(block)(2, vectors, c, c_stride, a, a_row, a_depth, b, b_stride, depth, add); break;
    case 1: NAME(block)(1, vectors, c, c_stride, a, a_row, a_depth, b, b_stride, depth, add); break;
    default: break;
    }
}

/* The columns of a part of b that one strip covers, and where they lie. */
typedef struct NAME(strip_place) {
    const REAL *data;
    int64_t stride, columns;
} NAME(strip_place);

SIMD_INLINE NAME(strip_place) NAME(strip_at)(const cpu_part *b, int64_t column, int64_t end)
{
    if (b->stride) {
        const int64_t columns = end - column < NAME(PANEL) ? end - column : NAME(PANEL);
        return (NAME(strip_place)){(const REAL *)b->data + b->first_row * b->stride + column, b->stride, columns};
    }
    const int64_t panel = column / NAME(PANEL) * NAME(PANEL), left = b->columns - panel;
    const int64_t width = left < NAME(PANEL) ? NAME(round_up)(left) : NAME(PANEL);
    const int64_t next = end < panel + width ? end : panel + width;
    const REAL *data = (const REAL *)b->data + panel * b->depth + b->first_row * width + column - panel;
    return (NAME(strip_place)){data, width, next - column};
}

/* Rows of depth taken at once: even shares, since short ones load and store sums for little. */
SIMD_INLINE int64_t NAME(depth_step)(int64_t depth, int64_t vectors)
{
    const int64_t most = NAME(STRIP_VECTORS) / vectors, parts = (depth + most - 1) / most;
    return parts > 0 ? (depth + parts - 1) / parts : 1;
}

/* Strip by strip of b: at most a panel's vectors, so deep that they stay in the first-level cache. */
SIMD_INLINE void NAME(multiply_part)(REAL *c, int64_t c_stride, const REAL *a, int64_t a_row, int64_t a_depth,
                                     const cpu_part *b, int64_t m, int64_t n, int64_t depth, bool accumulate,
                                     cpu_ahead *ahead)
{
    const int64_t end = b->first_column + n;
    for (int64_t column = b->first_column, columns; column < end; column += columns) {
        const NAME(strip_place) place = NAME(strip_at)(b, column, end);
        columns = place.columns;
        const int64_t vectors = (columns + NAME(LANES) - 1) / NAME(LANES), most = NAME(depth_step)(depth, vectors);
        REAL *to = c + column - b->first_column;
        for (int64_t k = 0; k < depth; k += most) {
            const int64_t step = depth - k < most ? depth - k : most;
            const REAL *rows = a + k * a_depth, *strip = place.data + k * place.stride;
            const bool add = accumulate || k > 0;
            cpu_ahead *now = k == 0 ? ahead : NULL;
            switch (vectors) {
#if SIMD_REGISTERS == 32
            case 4: NAME(strip)(4, to, c_stride, rows, a_row, a_depth, strip, place.stride, m, step, add, now); break;
            case 3: NAME(strip)(3, to, c_stride, rows, a_row, a_depth, strip, place.stride, m, step, add, now); break;
#endif
            case 2: NAME(strip)(2, to, c_stride, rows, a_row, a_depth, strip, place.stride, m, step, add, now); break;
            default: NAME(strip)(1, to, c_stride, rows, a_row, a_depth, strip, place.stride, m, step, add, now); break;
            }
        }
    }
}

static void NAME(product_ahead)(void *c, int64_t c_stride, const void *a, int64_t a_stride, const cpu_part *b,
                                int64_t m, int64_t n, int64_t depth, cpu_ahead *ahead)
{
    NAME(multiply_part)(c, c_stride, a, a_stride, 1, b, m, n, depth, false, ahead);
}

static void NAME(product_part)(void *c, int64_t c_stride, const void *a, int64_t a_stride, const cpu_part *b, int64_t m,
                               int64_t n, int64_t depth)
{
    NAME(product_ahead)(c, c_stride, a, a_stride, b, m, n, depth, NULL);
}

static void NAME(product_transposed)(void *c, int64_t c_stride, const void *a, int64_t a_stride, const void *b, int64_t m,
                                     int64_t n, int64_t depth, bool accumulate)
{
    const cpu_part all = {.data = b, .depth = depth, .columns = n};
    NAME(multiply_part)(c, c_stride, a, 1, a_stride, &all, m, n, depth, accumulate, NULL);
}

static void NAME(product_transposed_rows)(void *c, int64_t c_stride, const void *a, int64_t a_stride, const void *b,
                                          int64_t b_stride, int64_t m, int64_t n, int64_t depth, bool accumulate)
{
    const cpu_part all = {.data = b, .stride = b_stride};
    NAME(multiply_part)(c, c_stride, a, 1, a_stride, &all, m, n, depth, accumulate, NULL);
}
