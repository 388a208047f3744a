/* The kernels that only the stencil's backward has, included by kernel_body.h after kernel_stencil.h once per element type.
 * What each one computes stands in kernels.h. */

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

/* Columns are given to the lines of a block in tracks: what row after row gives to, one line after the other, so that all rows
 * have as many sums to add to and multiply-adds do not wait for each other, although few rows see the first lines of a
 * window and the last. to NULL: nothing that the row sees; its sums are dropped. */
enum { NAME(SCATTER_VECTORS) = 4, NAME(MOST_TRACKS) = 8, NAME(TRACK_LINES) = 64 };

typedef struct NAME(track) {
    REAL *to[CPU_STENCIL_ROWS];
    const REAL *from[CPU_STENCIL_ROWS]; /* weights of the row and line */
    int32_t end;                        /* rows taken */
} NAME(track);

/* Tracks of up to TRACK_LINES lines, each in the first that has its rows free; returns how many. */
static int64_t NAME(lay_tracks)(NAME(track) *tracks, const cpu_line *lines, int64_t count, int64_t rows, int which,
                                const REAL *s, int64_t row_stride, int64_t line_stride)
{
    int64_t used = 0;
    for (int64_t i = 0; i < count; i++) {
        int64_t t = lines[i].first == 0 ? used : 0;
        while (t < used && tracks[t].end > lines[i].first)
            t++;
        if (!lines[i].sums[which])
            continue;
        if (t == used) {
            tracks[used++] = (NAME(track)){.end = 0};
            for (int64_t r = 0; r < rows; r++)
                tracks[t].from[r] = s + r * row_stride;
        }
        for (int32_t r = lines[i].first; r < lines[i].end; r++) {
            tracks[t].to[r] = lines[i].sums[which];
            tracks[t].from[r] = s + r * row_stride + i * line_stride;
        }
        tracks[t].end = lines[i].end;
    }
    return used;
}

/* What a column takes from the lanes that see it: lane l's weight lies at offset[l], its row at a + l * dim. */
typedef struct NAME(givers) {
    const int32_t *offset;
    const REAL *a;
    int64_t a_stride, dim, rows, lanes;
} NAME(givers);

/* One row of a block. Of weights and vectors, the fewer stay in registers. */
SIMD_INLINE void NAME(scatter_row)(int tracks, int vectors, VEC sum[NAME(MOST_TRACKS)][NAME(SCATTER_VECTORS)],
                                   const REAL *const *s, const NAME(givers) *g, const REAL *a)
{
    const bool keep_weights = tracks < vectors;
    const int kept = keep_weights ? tracks : vectors, met = keep_weights ? vectors : tracks;
    for (int64_t l = 0; l < g->lanes; l++, a += g->dim) {
        const int64_t offset = g->offset[l];
        VEC x[NAME(SCATTER_VECTORS)], y[NAME(MOST_TRACKS)];
        SIMD_UNROLL
        for (int i = 0; i < kept; i++) {
            if (keep_weights) {
                y[i] = OP(set1)(s[i][offset]);
                SIMD_KEEP(y[i]);
            } else {
                x[i] = OP(load)(a + i * NAME(LANES));
                SIMD_KEEP(x[i]);
            }
        }
        SIMD_UNROLL
        for (int i = 0; i < met; i++) {
            VEC z = keep_weights ? OP(load)(a + i * NAME(LANES)) : OP(set1)(s[i][offset]);
            SIMD_KEEP(z);
            SIMD_UNROLL
            for (int j = 0; j < kept; j++) {
                if (keep_weights)
                    sum[j][i] += y[j] * z;
                else
                    sum[i][j] += z * x[j];
            }
        }
    }
}

/* A track's sums move on from one line to the next; NULL: none. */
SIMD_INLINE void NAME(scatter_turn)(int vectors, VEC *sum, REAL *from, const REAL *to, int64_t at)
{
    if (from == to)
        return;
    SIMD_UNROLL
    for (int c = 0; c < vectors; c++) {
        if (from)
            OP(store)(from + at + c * NAME(LANES), sum[c]);
        sum[c] = to ? OP(load)(to + at + c * NAME(LANES)) : (VEC){0};
    }
}

/* `vectors` vectors at `at` of a column's sums; its weights lie at `slot` from those of column 0. */
SIMD_INLINE void NAME(scatter_column)(int tracks, int vectors, const NAME(track) *track, int64_t at, int64_t slot,
                                      const NAME(givers) *g)
{
    VEC sum[NAME(MOST_TRACKS)][NAME(SCATTER_VECTORS)];
    SIMD_UNROLL
    for (int i = 0; i < tracks; i++) {
        SIMD_UNROLL
        for (int c = 0; c < vectors; c++)
            sum[i][c] = (VEC){0};
    }
    for (int64_t r = 0; r < g->rows; r++) {
        const REAL *s[NAME(MOST_TRACKS)];
        SIMD_UNROLL
        for (int i = 0; i < tracks; i++) {
            NAME(scatter_turn)(vectors, sum[i], r ? track[i].to[r - 1] : NULL, track[i].to[r], at);
            s[i] = track[i].from[r] + slot;
        }
        NAME(scatter_row)(tracks, vectors, sum, s, g, g->a + r * g->a_stride);
    }
    SIMD_UNROLL
    for (int i = 0; i < tracks; i++)
        NAME(scatter_turn)(vectors, sum[i], track[i].to[g->rows - 1], NULL, at);
}

/* All columns first .. end - 1 of some tracks. The lanes that see a column are neighbors, and move on with it. */
SIMD_INLINE void NAME(scatter_columns)(int tracks, int vectors, const NAME(track) *track, const cpu_lanes *lanes,
                                       const int32_t *offset, const REAL *a, int64_t dim, int64_t at, int64_t rows,
                                       int32_t first, int32_t end)
{
    int32_t low = 0, high = 0;
    for (int32_t x = first; x < end; x++) {
        while (low < lanes->count && lanes->begin[low] + lanes->size[low] <= x)
            low++;
        while (high < lanes->count && lanes->begin[high] <= x)
            high++;
        const NAME(givers) g = {.offset = offset + low, .a = a + low * dim + at, .a_stride = NAME(LANES) * dim, .dim = dim,
                                .rows = rows, .lanes = high - low};
        NAME(scatter_column)(tracks, vectors, track, x * dim + at, (int64_t)x * NAME(LANES), &g);
    }
}

/* Sums take up to 24 registers of 32, 12 of 16. */
SIMD_INLINE int64_t NAME(most_tracks)(int vectors)
{
    const int most = (SIMD_REGISTERS == 32 ? 24 : 12) / vectors;
    return most < NAME(MOST_TRACKS) ? most : NAME(MOST_TRACKS);
}

static void NAME(scatter_tracks)(int64_t count, int vectors, const NAME(track) *track, const cpu_lanes *lanes,
                                 const int32_t *offset, const REAL *a, int64_t dim, int64_t at, int64_t rows,
                                 int32_t first, int32_t end)
{
#define SCATTER_CASE(vectors, tracks)                                                                                \
    case 10 * (vectors) + (tracks):                                                                                  \
        if (tracks <= NAME(most_tracks)(vectors))                                                                    \
            NAME(scatter_columns)(tracks, vectors, track, lanes, offset, a, dim, at, rows, first, end);              \
        break
#define SCATTER_CASES(vectors)                                                                                       \
    SCATTER_CASE(vectors, 1);                                                                                        \
    SCATTER_CASE(vectors, 2);                                                                                        \
    SCATTER_CASE(vectors, 3);                                                                                        \
    SCATTER_CASE(vectors, 4);                                                                                        \
    SCATTER_CASE(vectors, 5);                                                                                        \
    SCATTER_CASE(vectors, 6);                                                                                        \
    SCATTER_CASE(vectors, 7);                                                                                        \
    SCATTER_CASE(vectors, 8)
    switch (10 * vectors + (int)count) {
        SCATTER_CASES(4);
        SCATTER_CASES(2);
        SCATTER_CASES(1);
    default: break;
    }
#undef SCATTER_CASE
#undef SCATTER_CASES
}

static void NAME(stencil_scatter)(const cpu_lanes *lanes, const cpu_line *lines, int64_t count, int64_t rows, int which,
                                  const void *s, const void *a, int64_t dim, int32_t first, int32_t end)
{
    const int64_t line_stride = lanes->slots * NAME(LANES), row_stride = count * line_stride;
    int32_t offset[NAME(LANES)], stop = 0;
    for (int32_t l = 0; l < lanes->count; l++) {
        offset[l] = l - lanes->begin[l] * NAME(LANES);
        stop = lanes->begin[l] + lanes->size[l];
    }
    first = first > lanes->begin[0] ? first : lanes->begin[0];
    end = end < stop ? end : stop;
    for (int64_t i = 0; i < count; i += NAME(TRACK_LINES)) {
        NAME(track) track[NAME(TRACK_LINES)];
        const int64_t some = count - i < NAME(TRACK_LINES) ? count - i : NAME(TRACK_LINES);
        const int64_t tracks = NAME(lay_tracks)(track, lines + i, some, rows, which, (const REAL *)s + i * line_stride,
                                                row_stride, line_stride);
        for (int64_t c = 0, vectors; c < dim; c += vectors * NAME(LANES)) {
            vectors = c + 4 * NAME(LANES) <= dim ? 4 : c + 2 * NAME(LANES) <= dim ? 2 : 1;
            int64_t groups = (tracks + NAME(most_tracks)((int)vectors) - 1) / NAME(most_tracks)((int)vectors);
            for (int64_t t = 0, n; t < tracks; t += n, groups--) {
                n = (tracks - t + groups - 1) / groups;
                NAME(scatter_tracks)(n, (int)vectors, track + t, lanes, offset, a, dim, c, rows, first, end);
            }
        }
    }
}
