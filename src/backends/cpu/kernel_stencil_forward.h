/* The stencil's softmax and values, included by kernel_body.h once per element type. Forward's scores lie by rows,
 * [row][place][lane], where place counts the slots of the lines that the row sees, so that a row holds nothing else. Its
 * weights take their places, or lie [row][lane][place], "turned". */
#if defined(SIMD_TRANSPOSE) && !defined(KERNEL_DOUBLE)
enum { NAME(CAN_TURN) = 1 };
#else
enum { NAME(CAN_TURN) = 0 };
#endif

/* Weights are applied lane by lane. Turned they touch few cache lines, which is worth turning them where they do not stay in
 * the first-level cache beside the values of a lane; and the neighbors of a single row read them so. */
SIMD_INLINE bool NAME(turned)(const cpu_lanes *lanes, int64_t count, int64_t rows, int64_t dim)
{
    enum { NEAR_BYTES = 40 << 10 }; /* by this count, of which rows see a part */
    const int64_t bytes = count * lanes->slots * (CPU_STENCIL_ROWS * NAME(LANES) + dim) * (int64_t)sizeof(REAL);
    return NAME(CAN_TURN) && (rows == 1 || bytes > NEAR_BYTES);
}

/* Reals of a row of scores, and of turned weights: a lane's take an odd number of vectors, off each other's cache sets. */
SIMD_INLINE int64_t NAME(score_row)(int64_t count, int64_t slots)
{
    return NAME(round_up)(count * slots) * NAME(LANES);
}
SIMD_INLINE int64_t NAME(weight_lane)(int64_t count, int64_t slots)
{
    return (NAME(round_up)(count * slots) / NAME(LANES) | 1) * NAME(LANES);
}

static void NAME(stencil_row_scores)(const cpu_lanes *lanes, const cpu_line *lines, int64_t count, int64_t line_stride,
                                     const void *a, int64_t depth, void *s)
{
    const int64_t slots = lanes->slots, s_stride = NAME(score_row)(count, slots), a_stride = depth * NAME(LANES);
    const NAME(finder) f = NAME(find_columns)(lanes);
    REAL *row[CPU_STENCIL_ROWS];
    for (int64_t r = 0; r < CPU_STENCIL_ROWS; r++)
        row[r] = (REAL *)s + r * s_stride;
    for (int64_t i = 0; i < count; i++) {
        const cpu_line *line = &lines[i];
        NAME(stencil_line)(&f, line->end - line->first, row + line->first, (const REAL *)a + line->first * a_stride,
                           a_stride, (const REAL *)line->transposed[0] + lanes->begin[0], line_stride, slots, depth);
        for (int32_t r = line->first; r < line->end; r++)
            row[r] += slots * NAME(LANES);
    }
}

/* The rows are lane blocks that follow on each other, all side by side, each with all slots: row r meets column c in slot
 * c - r lanes, so that a column is loaded once for all rows whose windows hold it. */
static void NAME(stencil_run_scores)(const cpu_lanes *lanes, int64_t rows, const cpu_line *line, int64_t line_stride,
                                     const void *a, int64_t depth, void *s)
{
    const int64_t slots = lanes->slots, s_stride = NAME(score_row)(1, slots), a_stride = depth * NAME(LANES);
    const int64_t end = (rows - 1) * NAME(LANES) + slots;
    const NAME(finder) f = {.kind = NAME(SIDE_BY_SIDE)};
    int64_t first = 0, after = 0; /* rows that see column c */
    for (int64_t c = 0; c < end;) {
        while (after < rows && after * NAME(LANES) <= c)
            after++;
        while (first * NAME(LANES) + slots <= c)
            first++;
        int64_t stop = first * NAME(LANES) + slots;
        if (after < rows && after * NAME(LANES) < stop)
            stop = after * NAME(LANES);
        REAL *to[CPU_STENCIL_ROWS];
        for (int64_t r = first; r < after; r++)
            to[r - first] = (REAL *)s + r * s_stride + (c - r * NAME(LANES)) * NAME(LANES);
        NAME(stencil_line)(&f, after - first, to, (const REAL *)a + first * a_stride, a_stride,
                           (const REAL *)line->transposed[0] + lanes->begin[0] + c, line_stride, stop - c, depth);
        c = stop;
    }
}

/* Largest of a row's scores times factor, and of old. */
SIMD_INLINE VEC NAME(row_top)(const cpu_lanes *lanes, int64_t places, REAL factor, VEC old, const REAL *s)
{
    VEC top = old, top2 = old;
    int64_t x = 0;
    if (!lanes->partial) {
        for (; x + 2 <= places; x += 2) {
            top = OP(max)(OP(load)(s + x * NAME(LANES)) * factor, top);
            top2 = OP(max)(OP(load)(s + (x + 1) * NAME(LANES)) * factor, top2);
        }
        for (; x < places; x++)
            top = OP(max)(OP(load)(s + x * NAME(LANES)) * factor, top);
        return OP(max)(top, top2);
    }
    for (; x < places; x += lanes->slots)
        for (int64_t j = 0; j < lanes->slots; j++)
            top = OP(max)(NAME(stencil_seen)(lanes, j, OP(load)(s + (x + j) * NAME(LANES)) * factor, (REAL)-INFINITY), top);
    return top;
}

/* x = 2^(factor s - base) of n places from s on; returns total and their sum, added one after the other: places that a lane
 * does not have, as its neighbors do, must not change how its own are rounded. */
SIMD_INLINE VEC NAME(weigh)(int n, const cpu_lanes *lanes, bool partial, int64_t *slot, REAL factor, VEC base, const REAL *s,
                            VEC *x, VEC total)
{
    SIMD_UNROLL
    for (int i = 0; i < n; i++)
        x[i] = OP(load)(s + i * NAME(LANES)) * factor - base;
    OP(exp2s)(n, x);
    SIMD_UNROLL
    for (int i = 0; i < n; i++) {
        if (partial) {
            x[i] = OP(select)(lanes->bits[*slot], x[i], (VEC){0});
            *slot = *slot + 1 == lanes->slots ? 0 : *slot + 1;
        }
        total += x[i];
    }
    return total;
}

/* The weights of LANES places by lanes, lane_stride apart. */
SIMD_INLINE void NAME(turn)(VEC *square, REAL *p, int64_t lane_stride)
{
#if defined(SIMD_TRANSPOSE) && !defined(KERNEL_DOUBLE)
    OP(transpose)(square);
#endif
    SIMD_UNROLL
    for (int i = 0; i < NAME(LANES); i++)
        OP(store)(p + i * lane_stride, square[i]);
}

/* The weights of a row in the places of its scores, or, if p, by lanes there, lane_stride apart; returns their sum. */
SIMD_INLINE VEC NAME(weigh_row)(const cpu_lanes *lanes, bool partial, int64_t places, REAL factor, VEC base, REAL *s,
                                REAL *p, int64_t lane_stride)
{
    enum { GROUP = NAME(LANES) < (int)SIMD_EXPS ? NAME(LANES) : (int)SIMD_EXPS };
    VEC total = {0}, x[NAME(LANES)];
    int64_t slot = 0, at = 0;
    for (; p && at + NAME(LANES) <= places; at += NAME(LANES), s += NAME(LANES) * NAME(LANES)) {
        SIMD_UNROLL
        for (int i = 0; i < NAME(LANES); i += GROUP)
            total = NAME(weigh)(GROUP, lanes, partial, &slot, factor, base, s + i * NAME(LANES), x + i, total);
        NAME(turn)(x, p + at, lane_stride);
    }
    const REAL *rest = s;
    const int64_t turned = at;
    for (; at + GROUP <= places; at += GROUP, s += GROUP * NAME(LANES)) {
        total = NAME(weigh)(GROUP, lanes, partial, &slot, factor, base, s, x, total);
        SIMD_UNROLL
        for (int i = 0; i < GROUP; i++)
            OP(store)(s + i * NAME(LANES), x[i]);
    }
    for (; at < places; at++, s += NAME(LANES)) {
        total = NAME(weigh)(1, lanes, partial, &slot, factor, base, s, x, total);
        OP(store)(s, x[0]);
    }
    if (p && turned < places) {
        SIMD_UNROLL
        for (int i = 0; i < NAME(LANES); i++)
            x[i] = OP(load)(rest + i * NAME(LANES));
        NAME(turn)(x, p + turned, lane_stride);
    }
    return total;
}

/* Maxima are kept in units of log 2, as exponents of 2 are cheaper than of e. */
static const void *NAME(stencil_softmax)(const cpu_lanes *lanes, const cpu_line *lines, int64_t count, int64_t rows,
                                         double scale, bool fresh, void *s, void *p, void *max, void *sum, void *out,
                                         int64_t dim)
{
    const int64_t s_stride = NAME(score_row)(count, lanes->slots), lane_stride = NAME(weight_lane)(count, lanes->slots);
    const bool turned = NAME(turned)(lanes, count, rows, dim);
    const REAL factor = (REAL)(scale * SIMD_LOG2_E);
    for (int64_t r = 0; r < rows; r++) {
        REAL *row = (REAL *)s + r * s_stride;
        REAL *row_max = (REAL *)max + r * NAME(LANES), *row_sum = (REAL *)sum + r * NAME(LANES);
        int64_t places = 0;
        for (int64_t i = 0; i < count; i++)
            places += r >= lines[i].first && r < lines[i].end ? lanes->slots : 0;
        const VEC old = fresh ? OP(set1)((REAL)-INFINITY) : OP(load)(row_max);
        const VEC top = NAME(row_top)(lanes, places, factor, old, row);
        /* Lanes that have seen nothing, or only NaN, have no max: zero serves, and NaN must get through. */
        const VEC base = OP(max)(top, OP(set1)(LOWEST));
        REAL *to = turned ? (REAL *)p + r * NAME(LANES) * lane_stride : NULL;
        const VEC total = lanes->partial ? NAME(weigh_row)(lanes, true, places, factor, base, row, to, lane_stride)
                                         : NAME(weigh_row)(lanes, false, places, factor, base, row, to, lane_stride);
        OP(store)(row_max, top);
        if (fresh) {
            OP(store)(row_sum, total);
            continue;
        }
        const VEC shrink = OP(exp2)(old - base);
        OP(store)(row_sum, OP(load)(row_sum) * shrink + total);
        for (int64_t l = 0; l < lanes->count; l++) {
            if (shrink[l] == 1 || old[l] == (REAL)-INFINITY)
                continue;
            REAL *o = (REAL *)out + (r * NAME(LANES) + l) * dim;
            for (int64_t c = 0; c < dim; c += NAME(LANES))
                OP(store)(o + c, OP(load)(o + c) * shrink[l]);
        }
    }
    return turned ? p : s;
}

static void NAME(stencil_close)(int64_t rows, const void *max, void *sum, void *lse)
{
    for (int64_t i = 0; i < rows * NAME(LANES); i += NAME(LANES)) {
        const VEC total = OP(load)((const REAL *)sum + i), zero = {0};
        const INDEX empty = total == zero;
        const INDEX value = (INDEX)(OP(load)((const REAL *)max + i) * (REAL)0.6931471805599453 + OP(log)(total));
        OP(store)((REAL *)lse + i, (VEC)((empty & (INDEX)OP(set1)((REAL)-INFINITY)) | (~empty & value)));
        OP(store)((REAL *)sum + i, (VEC)(~empty & (INDEX)(1 / total)));
    }
}

/* One line of one lane: rows first .. end - 1 gather size columns of `vectors` vectors; what the lane does not see is never
 * touched. */
SIMD_INLINE void NAME(value_line)(int first, int end, int vectors, VEC sum[CPU_STENCIL_ROWS][NAME(VALUE_VECTORS)],
                                  const REAL **p, int64_t p_slot, const REAL *v, int64_t dim, int64_t size,
                                  int64_t slots)
{
    for (int64_t j = 0; j < size; j++) {
        VEC x[NAME(VALUE_VECTORS)];
        SIMD_UNROLL
        for (int c = 0; c < vectors; c++) {
            x[c] = OP(load)(v + j * dim + c * NAME(LANES));
            SIMD_KEEP(x[c]);
        }
        SIMD_UNROLL
        for (int r = first; r < end; r++) {
            VEC y = OP(set1)(p[r][j * p_slot]);
            SIMD_KEEP(y);
            SIMD_UNROLL
            for (int c = 0; c < vectors; c++)
                sum[r][c] += y * x[c];
        }
    }
    SIMD_UNROLL
    for (int r = first; r < end; r++)
        p[r] += slots * p_slot;
}

/* How scores or weights lie: [row][line][slot][lane], [row][place][lane], [row][lane][place]. */
enum { NAME(BY_LINES), NAME(BY_PLACES), NAME(BY_LANES) };

SIMD_INLINE void NAME(value_lines)(int vectors, int order, VEC sum[CPU_STENCIL_ROWS][NAME(VALUE_VECTORS)],
                                   const cpu_lanes *lanes, int64_t lane, const cpu_line *lines, int64_t count,
                                   const REAL *weights, int64_t dim, int64_t column, cpu_ahead *ahead)
{
    const int64_t slots = lanes->slots, size = lanes->size[lane], start = lanes->begin[lane] * dim + column;
    const bool turned = order == NAME(BY_LANES);
    const int64_t p_slot = turned ? 1 : NAME(LANES), lane_stride = turned ? NAME(weight_lane)(count, slots) : 1;
    const int64_t row_stride = turned                     ? lane_stride * NAME(LANES)
                               : order == NAME(BY_PLACES) ? NAME(score_row)(count, slots)
                                                          : count * slots * NAME(LANES);
    const REAL *p[CPU_STENCIL_ROWS];
    SIMD_UNROLL
    for (int r = 0; r < CPU_STENCIL_ROWS; r++)
        p[r] = weights + r * row_stride + lane * lane_stride;
    for (int64_t i = 0, due = 0; i < count; i++) {
        const REAL *v = (const REAL *)lines[i].straight + start;
        if (ahead && i >= due) {
            cpu_fetch_ahead(ahead);
            due += CPU_FETCH_LINES;
        }
        const bool mates = lines[i].mates && i + 1 < count;
        SIMD_UNROLL
        for (int r = 0; order == NAME(BY_LINES) && r < CPU_STENCIL_ROWS; r++)
            p[r] = weights + r * row_stride + (i + (mates && r >= lines[i].end)) * slots * NAME(LANES) + lane;
        if (mates) {
            NAME(value_split)(lines[i].end, vectors, sum, p, p_slot, v, (const REAL *)lines[i + 1].straight + start, dim,
                              size, slots);
            i++;
            continue;
        }
#define VALUE_CASE(a, b)                                                                                             \
    case 8 * (a) + (b): NAME(value_line)(a, b, vectors, sum, p, p_slot, v, dim, size, slots); break
        switch (8 * lines[i].first + lines[i].end) {
            VALUE_CASE(0, 4);
            VALUE_CASE(0, 3);
            VALUE_CASE(0, 2);
            VALUE_CASE(0, 1);
            VALUE_CASE(1, 4);
            VALUE_CASE(1, 3);
            VALUE_CASE(1, 2);
            VALUE_CASE(2, 4);
            VALUE_CASE(2, 3);
            VALUE_CASE(3, 4);
        default: break;
        }
#undef VALUE_CASE
    }
}

SIMD_INLINE void NAME(store_sums)(int vectors, const VEC *sum, REAL *to, bool stream, REAL factor)
{
    SIMD_UNROLL
    for (int c = 0; c < vectors; c++)
        if (stream)
            OP(stream)(to + c * NAME(LANES), sum[c] * OP(set1)(factor));
        else
            OP(store)(to + c * NAME(LANES), sum[c] * OP(set1)(factor));
}

SIMD_INLINE void NAME(value_lane)(int vectors, int order, const cpu_lanes *lanes, int64_t lane,
                                  const cpu_line *lines, int64_t count, int64_t rows, int64_t column, const REAL *p,
                                  bool fresh, REAL *out, int64_t dim, const cpu_targets *targets, const REAL *factors,
                                  cpu_ahead *ahead)
{
    const int64_t o_stride = NAME(LANES) * dim;
    VEC sum[CPU_STENCIL_ROWS][NAME(VALUE_VECTORS)];
    SIMD_UNROLL
    for (int r = 0; r < CPU_STENCIL_ROWS; r++) {
        SIMD_UNROLL
        for (int c = 0; c < vectors; c++)
            sum[r][c] = fresh || r >= rows ? (VEC){0} : OP(load)(out + r * o_stride + column + c * NAME(LANES));
    }
    NAME(value_lines)(vectors, order, sum, lanes, lane, lines, count, p, dim, column, ahead);
    SIMD_UNROLL
    for (int r = 0; r < CPU_STENCIL_ROWS; r++) {
        if (r >= rows)
            break;
        REAL *to = targets ? (REAL *)(void *)(targets->rows[r] + targets->lane[lane]) : out + r * o_stride;
        NAME(store_sums)(vectors, sum[r], to + column, targets && targets->stream,
                         targets ? factors[r * NAME(LANES) + lane] : 1);
    }
}

/* Whether four lanes see columns of every line that follow on each other: neither end ever decreases. */
SIMD_INLINE bool NAME(are_neighbors)(const cpu_lanes *lanes, int64_t lane)
{
    bool follow = lanes->size[lane] > 0;
    for (int64_t l = lane + 1; l < lane + CPU_STENCIL_ROWS; l++)
        follow &= lanes->size[l] > 0 && lanes->begin[l] >= lanes->begin[l - 1]
                  && lanes->begin[l] + lanes->size[l] >= lanes->begin[l - 1] + lanes->size[l - 1];
    return follow;
}

/* One line of four neighbors in the place of rows: stretches of columns that the same ones see. p: their weights. */
SIMD_INLINE void NAME(neighbor_line)(int vectors, VEC sum[CPU_STENCIL_ROWS][NAME(VALUE_VECTORS)], const int32_t *begin,
                                     const int32_t *size, const REAL *const *p, const REAL *v, int64_t dim)
{
    int first = 0, end = 0;
    int32_t at = begin[0];
    while (first < CPU_STENCIL_ROWS) {
        while (end < CPU_STENCIL_ROWS && begin[end] <= at)
            end++;
        int32_t stop = begin[first] + size[first];
        if (end < CPU_STENCIL_ROWS && begin[end] < stop)
            stop = begin[end];
        const REAL *weights[CPU_STENCIL_ROWS];
        for (int l = 0; l < CPU_STENCIL_ROWS; l++)
            weights[l] = p[l] + (at - begin[l]);
#define NEIGHBOR_CASE(a, b)                                                                                          \
    case 8 * (a) + (b): NAME(value_line)(a, b, vectors, sum, weights, 1, v + at * dim, dim, stop - at, 0); break
        switch (8 * first + end) {
            NEIGHBOR_CASE(0, 4);
            NEIGHBOR_CASE(0, 3);
            NEIGHBOR_CASE(0, 2);
            NEIGHBOR_CASE(0, 1);
            NEIGHBOR_CASE(1, 4);
            NEIGHBOR_CASE(1, 3);
            NEIGHBOR_CASE(1, 2);
            NEIGHBOR_CASE(2, 4);
            NEIGHBOR_CASE(2, 3);
            NEIGHBOR_CASE(3, 4);
        default: break;
        }
#undef NEIGHBOR_CASE
        at = stop;
        while (first < end && begin[first] + size[first] <= at)
            first++;
        if (first == end && end < CPU_STENCIL_ROWS)
            at = begin[end];
    }
}

/* Four neighbors of the only row of a block share the values they load. */
SIMD_INLINE void NAME(value_neighbors)(int vectors, const cpu_lanes *lanes, int64_t lane, const cpu_line *lines,
                                       int64_t count, int64_t column, const REAL *weights, bool fresh, REAL *out,
                                       int64_t dim, const cpu_targets *targets, const REAL *factors, cpu_ahead *ahead)
{
    const int64_t lane_stride = NAME(weight_lane)(count, lanes->slots);
    VEC sum[CPU_STENCIL_ROWS][NAME(VALUE_VECTORS)];
    const REAL *p[CPU_STENCIL_ROWS];
    SIMD_UNROLL
    for (int l = 0; l < CPU_STENCIL_ROWS; l++) {
        p[l] = weights + (lane + l) * lane_stride;
        SIMD_UNROLL
        for (int c = 0; c < vectors; c++)
            sum[l][c] = fresh ? (VEC){0} : OP(load)(out + l * dim + column + c * NAME(LANES));
    }
    for (int64_t i = 0; i < count; i++) {
        NAME(neighbor_line)(vectors, sum, lanes->begin + lane, lanes->size + lane, p,
                            (const REAL *)lines[i].straight + column, dim);
        for (int l = 0; l < CPU_STENCIL_ROWS; l++) {
            p[l] += lanes->slots;
            if (ahead && i % CPU_FETCH_LINES == 0)
                cpu_fetch_ahead(ahead);
        }
    }
    SIMD_UNROLL
    for (int l = 0; l < CPU_STENCIL_ROWS; l++) {
        REAL *to = targets ? (REAL *)(void *)(targets->rows[0] + targets->lane[lane + l]) : out + l * dim;
        NAME(store_sums)(vectors, sum[l], to + column, targets && targets->stream, targets ? factors[lane + l] : 1);
    }
}

/* `vectors` vectors of values from column on: of four neighbors, or of one lane in all rows. */
SIMD_INLINE void NAME(value_columns)(int vectors, int order, bool neighbors, const cpu_lanes *lanes, int64_t lane,
                                     const cpu_line *lines, int64_t count, int64_t rows, int64_t column, const REAL *p,
                                     bool fresh, REAL *out, int64_t dim, const cpu_targets *targets, const REAL *factors,
                                  cpu_ahead *ahead)
{
    if (order == NAME(BY_LANES) && neighbors)
        NAME(value_neighbors)(vectors, lanes, lane, lines, count, column, p, fresh, out, dim, targets, factors, ahead);
    else
        NAME(value_lane)(vectors, order, lanes, lane, lines, count, rows, column, p, fresh, out, dim, targets, factors,
                         ahead);
}

SIMD_INLINE void NAME(values)(int order, const cpu_lanes *lanes, const cpu_line *lines, int64_t count, int64_t rows,
                              const void *p, bool fresh, void *out, int64_t dim, const cpu_targets *targets,
                              const void *factors, cpu_ahead *ahead)
{
    int64_t lane = 0;
    while (lane < lanes->count) {
        const bool neighbors = order == NAME(BY_LANES) && rows == 1 && lane + CPU_STENCIL_ROWS <= lanes->count
                               && NAME(are_neighbors)(lanes, lane);
        const int64_t step = neighbors ? CPU_STENCIL_ROWS : 1;
        REAL *o = (REAL *)out + lane * dim;
        int64_t left = dim / NAME(LANES), c = 0;
        for (int64_t passes = (left + NAME(VALUE_VECTORS) - 1) / NAME(VALUE_VECTORS); passes > 0; passes--) {
            const int64_t vectors = (left + passes - 1) / passes;
            switch (vectors) {
#define VALUE_COLUMNS(n)                                                                                             \
    case n:                                                                                                          \
        if (n <= NAME(VALUE_VECTORS))                                                                                \
            NAME(value_columns)(n, order, neighbors, lanes, lane, lines, count, rows, c, p, fresh, o, dim, targets, \
                                factors, ahead);                                                                     \
        break
                VALUE_COLUMNS(4);
                VALUE_COLUMNS(3);
                VALUE_COLUMNS(2);
                VALUE_COLUMNS(1);
            default: break;
#undef VALUE_COLUMNS
            }
            left -= vectors;
            c += vectors * NAME(LANES);
        }
        lane += step;
    }
}

static void NAME(stencil_values)(const cpu_lanes *lanes, const cpu_line *lines, int64_t count, int64_t rows, const void *s,
                                 bool fresh, void *out, int64_t dim, const cpu_targets *targets, const void *factors,
                                 cpu_ahead *ahead)
{
    NAME(values)(NAME(BY_LINES), lanes, lines, count, rows, s, fresh, out, dim, targets, factors, ahead);
}

static void NAME(stencil_row_values)(const cpu_lanes *lanes, const cpu_line *lines, int64_t count, int64_t rows,
                                     const void *p, bool fresh, void *out, int64_t dim, const cpu_targets *targets,
                                     const void *factors, cpu_ahead *ahead)
{
    if (NAME(turned)(lanes, count, rows, dim))
        NAME(values)(NAME(BY_LANES), lanes, lines, count, rows, p, fresh, out, dim, targets, factors, ahead);
    else
        NAME(values)(NAME(BY_PLACES), lanes, lines, count, rows, p, fresh, out, dim, targets, factors, ahead);
}
