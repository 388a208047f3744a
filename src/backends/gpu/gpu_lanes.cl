/* The shape for CPU devices: one work-item per group, rows in the lanes of wide vectors, columns one after another. A
 * row's softmax runs down its lane, the elements of a column are broadcast, and nothing but the rows has to be
 * transposed. Where all rows see all columns, the vectors of a row tile meet them side by side. Elsewhere each vector
 * meets those columns alone that its rows may see.
 *
 * LANES of a vector, VECTORS of a row tile, COLUMNS of a column tile at most. */
#define ROWS (LANES * VECTORS)
#define WIDE_LINES 4   /* columns or dimensions at a time by VECTORS: as many sums as registers hold */
#define NARROW_LINES 8 /* by one vector */
#define MOST_COLUMNS (COLUMNS + NARROW_LINES)
#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)
#if IN_TYPE == 1
typedef JOIN(double, LANES) REALV;
#else
typedef JOIN(float, LANES) REALV;
#endif
typedef JOIN(int, LANES) INTV;
#define LOADV(p) JOIN(vload, LANES)(0, p)
#define STOREV(x, p) JOIN(vstore, LANES)(x, 0, p)

/* mask ? a : b; a mask has lanes 0 and -1 */
#if IN_TYPE == 1
#define SELECT(mask, a, b) select(b, a, JOIN(convert_long, LANES)(mask))
#else
#define SELECT(mask, a, b) select(b, a, mask)
#endif

/* 2^x. Below the normal numbers 0. */
static REALV exp2_of(REALV x)
{
#if IN_TYPE == 1
    return exp2(x);
#else
    const REALV whole = rint(x), r = x - whole;
    REALV p = 1.535336188319500e-4f;
    p = p * r + 1.339887440266574e-3f;
    p = p * r + 9.618437357674640e-3f;
    p = p * r + 5.550332471162809e-2f;
    p = p * r + 2.402264791363012e-1f;
    p = p * r + 6.931472028550421e-1f;
    p = p * r + 1.0f;
    const REALV result = JOIN(as_float, LANES)(JOIN(as_int, LANES)(p) + (JOIN(convert_int, LANES)(whole) << 23));
    return select(select(select(result, (REALV)INFINITY, x >= 128.0f), (REALV)0, x < -126.0f), x, isnan(x));
#endif
}

/* Compilers for CPUs vectorise this, and not vload_half. */
static float float_of_f16(ushort bits)
{
    const uint magnitude = bits & 0x7fffu, sign = (uint)(bits & 0x8000u) << 16;
    const float normal = as_float((magnitude << 13) + (magnitude >= 0x7c00u ? 224u << 23 : 112u << 23));
    const float value = magnitude < 0x400u ? (float)(int)magnitude * 0x1p-24f : normal;
    return as_float(as_uint(value) | sign);
}

#if IN_TYPE == 3
#define LANES_IN_LOAD(p, i) float_of_f16((p)[i])
#else
#define LANES_IN_LOAD(p, i) IN_LOAD(p, i)
#endif
#if OUT_TYPE == 3
#define LANES_OUT_LOAD(p, i) float_of_f16((p)[i])
#else
#define LANES_OUT_LOAD(p, i) OUT_LOAD(p, i)
#endif

/* ---- Rows and columns -------------------------------------------------------------------------------------------- */

/* Columns, and their rows in two tensors: element i of column c is base[which][place[which][c] + i]. */
typedef struct COLUMN_SET {
    int count, padded; /* padded by repeating the last, so that they can be taken several at a time */
    int at[RANK][MOST_COLUMNS];
    long place[2][MOST_COLUMNS];
    GLOBAL const REAL *base[2];
} COLUMN_SET;

enum { FIRST, SECOND }; /* of the two tensors that rows or columns have: q and dout, k and v */

/* The vectors of a row tile that meet columns: from `first` on. Scores of a column are `pitch` apart. */
typedef struct STRIP {
    int first, vectors, pitch;
} STRIP;

/* What the rows in the lanes see on each axis, and the hull of what each vector of them sees. */
typedef struct SIGHT {
    INTV begin[RANK][VECTORS], end[RANK][VECTORS];
    int hull_begin[RANK][VECTORS], hull_end[RANK][VECTORS];
} SIGHT;

static void next_position(const BOX *box, int *position)
{
    for (int a = RANK - 1; a >= 0; a--) {
        if (++position[a] < box->begin[a] + box->count[a])
            return;
        position[a] = box->begin[a];
    }
}

static void list_columns(const BOX *tile, COLUMN_SET *set)
{
    int position[RANK];
    for (int a = 0; a < RANK; a++)
        position[a] = tile->begin[a];
    set->count = volume(tile);
    set->padded = set->count + NARROW_LINES;
    for (int c = 0; c < set->padded; c++) {
        for (int a = 0; a < RANK; a++)
            set->at[a][c] = position[a];
        if (c < set->count - 1)
            next_position(tile, position);
    }
}

static void list_places(GLOBAL const long *numbers, int tensor, const BOX *tile, const COLUMN_SET *set, long base,
                        long *place)
{
    for (int a = 0; a < RANK; a++)
        base += tile->origin[a] * STRIDE_AXIS(tensor, a);
    for (int c = 0; c < set->padded; c++) {
        place[c] = base;
        for (int a = 0; a < RANK; a++)
            place[c] += (long)set->at[a][c] * (tile->step[a] * STRIDE_AXIS(tensor, a));
    }
}

/* Finds the rows of columns as REAL: where they lie if possible, else in a copy. */
#define DEFINE_FETCH(NAME, TYPE, LOAD, IS_REAL)                                                                        \
    static void NAME(GLOBAL const long *numbers, GLOBAL const TYPE *x, int tensor, const BOX *tile, long base, long n, \
                     GLOBAL REAL *copy, int which, COLUMN_SET *set)                                                    \
    {                                                                                                                  \
        const long step = STRIDE(tensor, GPU_STRIDE_DIM);                                                              \
        list_places(numbers, tensor, tile, set, base, set->place[which]);                                              \
        if (IS_REAL && step == 1) {                                                                                    \
            set->base[which] = (GLOBAL const REAL *)x;                                                                 \
            return;                                                                                                    \
        }                                                                                                              \
        for (int c = 0; c < set->count; c++) {                                                                         \
            GLOBAL const TYPE *from = x + set->place[which][c];                                                        \
            GLOBAL REAL *to = copy + c * n;                                                                            \
            if (step == 1)                                                                                             \
                for (long i = 0; i < n; i++)                                                                           \
                    to[i] = LOAD(from, i);                                                                             \
            else                                                                                                       \
                for (long i = 0; i < n; i++)                                                                           \
                    to[i] = LOAD(from, i * step);                                                                      \
        }                                                                                                              \
        for (int c = 0; c < set->padded; c++)                                                                          \
            set->place[which][c] = min(c, set->count - 1) * n;                                                         \
        set->base[which] = copy;                                                                                       \
    }
DEFINE_FETCH(fetch_in, IN, LANES_IN_LOAD, IN_TYPE <= 1)
DEFINE_FETCH(fetch_out, OUT, LANES_OUT_LOAD, OUT_TYPE <= 1)

/* Where the rows of a box lie in a tensor; lanes without a row repeat the last. */
static void place_rows(GLOBAL const long *numbers, int tensor, const BOX *rows, long base, long *place)
{
    const int count = volume(rows);
    int position[RANK];
    for (int a = 0; a < RANK; a++)
        position[a] = rows->begin[a];
    for (int r = 0; r < ROWS; r++) {
        place[r] = base + place_of(numbers, tensor, rows, position);
        if (r < count - 1)
            next_position(rows, position);
    }
}

/* The rows of a box, transposed: element i of row r becomes t[i * ROWS + r]. A vector is put together at a time:
 * compilers make scatters of loops over rows, which are slow. */
#define DEFINE_LOAD_ROWS(NAME, TYPE, LOAD)                                                                             \
    static void NAME(GLOBAL const long *numbers, GLOBAL const TYPE *x, int tensor, const BOX *rows, long base, long n, \
                     GLOBAL REAL *t)                                                                                   \
    {                                                                                                                  \
        const long step = STRIDE(tensor, GPU_STRIDE_DIM);                                                              \
        long place[ROWS];                                                                                              \
        place_rows(numbers, tensor, rows, base, place);                                                                \
        for (int v = 0; v < ROWS; v += LANES)                                                                          \
            for (long i = 0; i < n; i++) {                                                                             \
                REAL lane[LANES];                                                                                      \
                UNROLL for (int r = 0; r < LANES; r++) lane[r] = LOAD(x + place[v + r], i * step);                     \
                STOREV(LOADV(lane), t + i * ROWS + v);                                                                 \
            }                                                                                                          \
    }
DEFINE_LOAD_ROWS(load_rows_in, IN, LANES_IN_LOAD)
DEFINE_LOAD_ROWS(load_rows_out, OUT, LANES_OUT_LOAD)

/* Writes row r's elements, each t[i * ROWS + r] * factor[r]. */
#define DEFINE_STORE_ROWS(NAME, TYPE, STORE)                                                                           \
    static void NAME(GLOBAL const long *numbers, GLOBAL TYPE *x, int tensor, const BOX *rows, long base, long n,       \
                     GLOBAL const REAL *t, const REAL *factor)                                                         \
    {                                                                                                                  \
        const long step = STRIDE(tensor, GPU_STRIDE_DIM);                                                              \
        const int count = volume(rows);                                                                                \
        long place[ROWS];                                                                                              \
        place_rows(numbers, tensor, rows, base, place);                                                                \
        for (int v = 0; v < count; v += LANES)                                                                         \
            for (long i = 0; i < n; i++) {                                                                             \
                REAL lane[LANES];                                                                                      \
                STOREV(LOADV(t + i * ROWS + v) * LOADV(factor + v), lane);                                             \
                if (v + LANES <= count) {                                                                              \
                    UNROLL for (int r = 0; r < LANES; r++) STORE(x, place[v + r] + i * step, lane[r]);                 \
                } else {                                                                                               \
                    for (int r = 0; v + r < count; r++)                                                                \
                        STORE(x, place[v + r] + i * step, lane[r]);                                                    \
                }                                                                                                      \
            }                                                                                                          \
    }
DEFINE_STORE_ROWS(store_rows_in, IN, IN_STORE)
DEFINE_STORE_ROWS(store_rows_out, OUT, OUT_STORE)

static void clear(GLOBAL REAL *t, long n)
{
    for (long i = 0; i < n * ROWS; i += LANES)
        STOREV((REALV)0, t + i);
}

/* Lanes without a row see nothing. */
static void find_sight(GLOBAL const long *numbers, const ITEM *item, SIGHT *sight)
{
    const int count = volume(&item->rows);
    int begin[RANK][ROWS], end[RANK][ROWS], position[RANK];
    for (int a = 0; a < RANK; a++)
        for (int v = 0; v < VECTORS; v++) {
            sight->hull_begin[a][v] = INT_MAX;
            sight->hull_end[a][v] = 0;
        }
    for (int a = 0; a < RANK; a++)
        position[a] = item->rows.begin[a];
    for (int r = 0; r < ROWS; r++) {
        for (int a = 0; a < RANK; a++) {
            begin[a][r] = end[a][r] = 0;
            if (r >= count)
                continue;
            row_sees(numbers, item, a, position[a], &begin[a][r], &end[a][r]);
            sight->hull_begin[a][r / LANES] = min(sight->hull_begin[a][r / LANES], begin[a][r]);
            sight->hull_end[a][r / LANES] = max(sight->hull_end[a][r / LANES], end[a][r]);
        }
        next_position(&item->rows, position);
    }
    for (int a = 0; a < RANK; a++)
        for (int v = 0; v < VECTORS; v++) {
            sight->begin[a][v] = LOADV(begin[a] + v * LANES);
            sight->end[a][v] = LOADV(end[a] + v * LANES);
        }
}

/* The columns of a set that a vector's rows may see, by their places in it. Returns how many there are. */
static int find_seen(const COLUMN_SET *set, const SIGHT *sight, int v, int *seen)
{
    int count = 0, inside[COLUMNS];
    for (int c = 0; c < set->count; c++)
        inside[c] = 1;
    for (int a = 0; a < RANK; a++) {
        const int begin = sight->hull_begin[a][v], end = sight->hull_end[a][v];
        for (int c = 0; c < set->count; c++)
            inside[c] &= (begin <= set->at[a][c]) & (set->at[a][c] < end);
    }
    for (int c = 0; c < set->count; c++) {
        seen[count] = c;
        count += inside[c];
    }
    return count;
}

/* Some columns of a set. */
static void narrow(const COLUMN_SET *set, const int *seen, int count, COLUMN_SET *narrowed)
{
    narrowed->count = count;
    narrowed->padded = count + NARROW_LINES;
    for (int a = 0; a < RANK; a++)
        for (int c = 0; c < count; c++)
            narrowed->at[a][c] = set->at[a][seen[c]];
    for (int which = FIRST; which <= SECOND; which++) {
        narrowed->base[which] = set->base[which];
        for (int c = 0; c < narrowed->padded; c++)
            narrowed->place[which][c] = set->place[which][seen[min(c, count - 1)]];
    }
}

/* Which rows of a vector see a column. */
static INTV sees(const SIGHT *sight, const COLUMN_SET *set, int column, int v)
{
    INTV mask = -1;
    for (int a = 0; a < RANK; a++)
        mask &= (sight->begin[a][v] <= set->at[a][column]) & (sight->end[a][v] > set->at[a][column]);
    return mask;
}

/* ---- Products ---------------------------------------------------------------------------------------------------- */

/* Sums are named one by one: compilers leave arrays of vectors in memory. EACH_VECTOR(DO, b): DO(b, v) for every v. */
#if VECTORS == 4
#define EACH_VECTOR(DO, b) DO(b, 0) DO(b, 1) DO(b, 2) DO(b, 3)
#elif VECTORS == 2
#define EACH_VECTOR(DO, b) DO(b, 0) DO(b, 1)
#else
#define EACH_VECTOR(DO, b) DO(b, 0)
#endif
#define FOR_WIDE(DO) DO(0) DO(1) DO(2) DO(3)
#define FOR_NARROW(DO) DO(0) DO(1) DO(2) DO(3) DO(4) DO(5) DO(6) DO(7)

#define CLEAR_SUM(b, v) REALV sum##b##_##v = 0;
#define LOAD_SUM(b, v) REALV sum##b##_##v = LOADV(sums + (b)*sums_pitch + (v)*LANES);
#define STORE_SUM(b, v) STOREV(sum##b##_##v, sums + (b)*sums_pitch + (v)*LANES);
#define LOAD_VECTOR(b, v) const REALV vector##v = LOADV(vectors + (v)*LANES);
#define ADD_TO_SUM(b, v) sum##b##_##v += element##b * vector##v;
#define WIDE_CLEAR(b) EACH_VECTOR(CLEAR_SUM, b)
#define WIDE_LOAD(b) EACH_VECTOR(LOAD_SUM, b)
#define WIDE_STORE(b) EACH_VECTOR(STORE_SUM, b)
#define WIDE_ADD(b) EACH_VECTOR(ADD_TO_SUM, b)
#define NARROW_CLEAR(b) CLEAR_SUM(b, 0)
#define NARROW_LOAD(b) LOAD_SUM(b, 0)
#define NARROW_STORE(b) STORE_SUM(b, 0)
#define NARROW_ADD(b) ADD_TO_SUM(b, 0)
#define START_LINE(b) GLOBAL const REAL *line##b = base + place[c + b];
#define TAKE_FROM_LINE(b) const REAL element##b = line##b[i];
#define TAKE_FROM_COLUMN(b) const REAL element##b = line[b];

/* s[c][r] = sum over i of x[c][i] * t[i][r], by whole blocks of columns. */
#define DEFINE_MULTIPLY(NAME, LINES, FOR_LINES, CLEAR, STORE, ADD, LOAD_VECTORS)                                       \
    static void NAME(GLOBAL const REAL *base, const long *place, int columns, GLOBAL const REAL *t, long n,            \
                     GLOBAL REAL *s, int sums_pitch)                                                                   \
    {                                                                                                                  \
        for (int c = 0; c < columns; c += LINES) {                                                                     \
            GLOBAL REAL *sums = s + c * sums_pitch;                                                                    \
            FOR_LINES(START_LINE)                                                                                      \
            FOR_LINES(CLEAR)                                                                                           \
            for (long i = 0; i < n; i++) {                                                                             \
                GLOBAL const REAL *vectors = t + i * ROWS;                                                             \
                LOAD_VECTORS                                                                                           \
                FOR_LINES(TAKE_FROM_LINE)                                                                              \
                FOR_LINES(ADD)                                                                                         \
            }                                                                                                          \
            FOR_LINES(STORE)                                                                                           \
        }                                                                                                              \
    }
DEFINE_MULTIPLY(multiply_wide, WIDE_LINES, FOR_WIDE, WIDE_CLEAR, WIDE_STORE, WIDE_ADD, EACH_VECTOR(LOAD_VECTOR, 0))
DEFINE_MULTIPLY(multiply_narrow, NARROW_LINES, FOR_NARROW, NARROW_CLEAR, NARROW_STORE, NARROW_ADD, LOAD_VECTOR(0, 0))

/* t[i][r] += sum over columns of x[c][i] * p[c][r], from i = begin on by whole blocks. Returns where those end. */
#define DEFINE_ACCUMULATE(NAME, LINES, FOR_LINES, LOAD, STORE, ADD, LOAD_VECTORS)                                      \
    static long NAME(GLOBAL const REAL *base, const long *place, int columns, GLOBAL const REAL *p, int pitch,         \
                     long begin, long n, GLOBAL REAL *t)                                                               \
    {                                                                                                                  \
        const int sums_pitch = ROWS;                                                                                   \
        long i = begin;                                                                                                \
        for (; i + LINES <= n; i += LINES) {                                                                           \
            GLOBAL REAL *sums = t + i * ROWS;                                                                          \
            FOR_LINES(LOAD)                                                                                            \
            for (int c = 0; c < columns; c++) {                                                                        \
                GLOBAL const REAL *line = base + place[c] + i, *vectors = p + c * pitch;                               \
                LOAD_VECTORS                                                                                           \
                FOR_LINES(TAKE_FROM_COLUMN)                                                                            \
                FOR_LINES(ADD)                                                                                         \
            }                                                                                                          \
            FOR_LINES(STORE)                                                                                           \
        }                                                                                                              \
        return i;                                                                                                      \
    }
#define FOR_ONE(DO) DO(0)
DEFINE_ACCUMULATE(accumulate_wide, WIDE_LINES, FOR_WIDE, WIDE_LOAD, WIDE_STORE, WIDE_ADD, EACH_VECTOR(LOAD_VECTOR, 0))
DEFINE_ACCUMULATE(accumulate_wide_rest, 1, FOR_ONE, WIDE_LOAD, WIDE_STORE, WIDE_ADD, EACH_VECTOR(LOAD_VECTOR, 0))
DEFINE_ACCUMULATE(accumulate_narrow, NARROW_LINES, FOR_NARROW, NARROW_LOAD, NARROW_STORE, NARROW_ADD, LOAD_VECTOR(0, 0))
DEFINE_ACCUMULATE(accumulate_narrow_rest, 1, FOR_ONE, NARROW_LOAD, NARROW_STORE, NARROW_ADD, LOAD_VECTOR(0, 0))

/* Scores of a strip's rows: t are n dimensions of all rows. */
static void multiply(const COLUMN_SET *set, int which, STRIP strip, GLOBAL const REAL *t, long n, GLOBAL REAL *s)
{
    if (strip.vectors > 1)
        multiply_wide(set->base[which], set->place[which], set->count, t, n, s, strip.pitch);
    else
        multiply_narrow(set->base[which], set->place[which], set->count, t + strip.first * LANES, n, s, strip.pitch);
}

static void accumulate(const COLUMN_SET *set, int which, STRIP strip, GLOBAL const REAL *p, long n, GLOBAL REAL *t)
{
    GLOBAL const REAL *base = set->base[which];
    const long *place = set->place[which];
    GLOBAL REAL *to = t + strip.first * LANES;
    if (strip.vectors > 1) {
        const long done = accumulate_wide(base, place, set->count, p, strip.pitch, 0, n, to);
        accumulate_wide_rest(base, place, set->count, p, strip.pitch, done, n, to);
    } else {
        const long done = accumulate_narrow(base, place, set->count, p, strip.pitch, 0, n, to);
        accumulate_narrow_rest(base, place, set->count, p, strip.pitch, done, n, to);
    }
}

/* As accumulate, but rows that do not see a column never meet its elements: one of them is NaN or infinite. */
static void accumulate_seen(const COLUMN_SET *set, int which, STRIP strip, const SIGHT *sight, GLOBAL const REAL *p,
                            long n, GLOBAL REAL *t)
{
    for (int c = 0; c < set->count; c++)
        for (int v = 0; v < strip.vectors; v++) {
            const INTV mask = sees(sight, set, c, strip.first + v);
            const REALV weight = LOADV(p + c * strip.pitch + v * LANES);
            for (long i = 0; i < n; i++) {
                GLOBAL REAL *to = t + i * ROWS + (strip.first + v) * LANES;
                const REALV old = LOADV(to);
                STOREV(SELECT(mask, old + set->base[which][set->place[which][c] + i] * weight, old), to);
            }
        }
}

static bool all_finite(const COLUMN_SET *set, int which, long n)
{
    REAL zero = 0;
    for (int c = 0; c < set->count; c++) {
        GLOBAL const REAL *from = set->base[which] + set->place[which][c];
        REALV zeros = 0;
        long i = 0;
        for (; i + LANES <= n; i += LANES)
            zeros += LOADV(from + i) * (REAL)0;
        for (; i < n; i++)
            zero += from[i] * 0;
        if (any(zeros != 0))
            return false;
    }
    return zero == 0;
}

/* Adds weighted columns; careful: some rows do not see all of them, and not all elements are finite. */
static void add_columns(const COLUMN_SET *set, int which, STRIP strip, const SIGHT *sight, bool careful,
                        GLOBAL const REAL *p, long n, GLOBAL REAL *t)
{
    if (careful)
        accumulate_seen(set, which, strip, sight, p, n, t);
    else
        accumulate(set, which, strip, p, n, t);
}

/* ---- Forward ----------------------------------------------------------------------------------------------------- */

/* What the rows have seen so far: the largest score, in base 2, and the sum of exponentials. */
typedef struct SOFTMAX {
    REALV max[VECTORS], sum[VECTORS];
} SOFTMAX;

/* Turns scores into weights, and shrinks what has been summed to match. */
static void softmax(const COLUMN_SET *set, STRIP strip, const SIGHT *sight, bool full, REAL factor, GLOBAL REAL *s,
                    long n, GLOBAL REAL *out, SOFTMAX *state)
{
    for (int i = 0; i < strip.vectors; i++) {
        const int v = strip.first + i;
        GLOBAL REAL *column = s + i * LANES;
        REALV top = -INFINITY, total = 0;
        if (full) {
            for (int c = 0; c < set->count; c++) {
                const REALV x = LOADV(column + c * strip.pitch) * factor;
                top = SELECT(x > top, x, top);
            }
        } else {
            for (int c = 0; c < set->count; c++) {
                const REALV score = LOADV(column + c * strip.pitch) * factor;
                const REALV x = SELECT(sees(sight, set, c, v), score, (REALV)-INFINITY);
                top = SELECT(x > top, x, top);
                STOREV(x, column + c * strip.pitch);
            }
        }
        const REALV old = state->max[v], new = SELECT(top > old, top, old);
        /* A row that has seen nothing, or only NaN, has no max: any finite base serves, and NaN must get through. */
        const REALV base = SELECT(new == -INFINITY, (REALV)0, new);
        if (any(new != old)) {
            const REALV shrink = exp2_of(old - base);
            state->max[v] = new;
            state->sum[v] *= shrink;
            for (long d = 0; d < n; d++)
                STOREV(LOADV(out + d * ROWS + v * LANES) * shrink, out + d * ROWS + v * LANES);
        }
        const REAL rest = full ? factor : 1;
        for (int c = 0; c < set->count; c++) {
            const REALV p = exp2_of(LOADV(column + c * strip.pitch) * rest - base);
            total += p;
            STOREV(p, column + c * strip.pitch);
        }
        state->sum[v] += total;
    }
}

/* The scratch of a group whose rows are queries, and what they are up to. */
typedef struct QUERY_ROWS {
    GLOBAL REAL *rows, *drows, *sums, *scores, *dscores, *copies[2];
    long n, value_n;
    REAL factor; /* of scores, in base 2 */
} QUERY_ROWS;

static QUERY_ROWS query_rows(GLOBAL const long *numbers, GLOBAL char *scratch, bool backward)
{
    QUERY_ROWS s;
    s.n = numbers[GPU_HEAD_DIM];
    s.value_n = numbers[GPU_VALUE_DIM];
    s.factor = SCALE * LOG2_E;
    s.rows = (GLOBAL REAL *)(scratch + numbers[GPU_SCRATCH_GROUPS] + GROUP_INDEX * numbers[GPU_SCRATCH_GROUP_BYTES]);
    s.drows = s.rows + s.n * ROWS;
    s.sums = s.drows + (backward ? s.value_n * ROWS : 0);
    s.scores = s.sums + (backward ? s.n : s.value_n) * ROWS;
    s.dscores = s.scores + MOST_COLUMNS * ROWS;
    s.copies[FIRST] = s.dscores + (backward ? MOST_COLUMNS * ROWS : 0);
    s.copies[SECOND] = s.copies[FIRST] + COLUMNS * s.n;
    return s;
}

/* Opens the index-th column tile of an item whose rows are queries; extra tokens follow the grid's. Returns whether all
 * rows see all of it. */
static bool open_keys(GLOBAL const long *numbers, const QUERY_ROWS *s, const ITEM *item, long index, GLOBAL const IN *k,
                      GLOBAL const IN *v, GLOBAL const IN *extra_k, GLOBAL const IN *extra_v, long batch, long kv_head,
                      COLUMN_SET *set)
{
    const bool more = index >= item->tiles;
    const int key_tensor = more ? GPU_EXTRA_K : GPU_K, value_tensor = more ? GPU_EXTRA_V : GPU_V;
    BOX tile;
    bool full = true;
    if (more) {
        const int first = (int)(index - item->tiles) * COLUMNS;
        extra_box(first, min((int)numbers[GPU_EXTRA] - first, COLUMNS), &tile);
    } else {
        full = column_tile(item, index, &tile);
    }
    list_columns(&tile, set);
    fetch_in(numbers, more ? extra_k : k, key_tensor, &tile, base_of(numbers, key_tensor, batch, kv_head), s->n,
             s->copies[FIRST], FIRST, set);
    fetch_in(numbers, more ? extra_v : v, value_tensor, &tile, base_of(numbers, value_tensor, batch, kv_head),
             s->value_n, s->copies[SECOND], SECOND, set);
    return full;
}

/* Lets a strip of rows meet columns. */
static void attend(const QUERY_ROWS *s, const COLUMN_SET *set, STRIP strip, const SIGHT *sight, bool full, bool careful,
                   SOFTMAX *state)
{
    multiply(set, FIRST, strip, s->rows, s->n, s->scores);
    softmax(set, strip, sight, full, s->factor, s->scores, s->value_n, s->sums, state);
    add_columns(set, SECOND, strip, sight, careful, s->scores, s->value_n, s->sums);
}

static void store_lse(GLOBAL const long *numbers, GLOBAL REAL *lse, const BOX *rows, long base, const REAL *largest,
                      const REAL *sum)
{
    const int count = volume(rows);
    for (int r = 0; r < count; r++) {
        int position[RANK];
        position_at(rows, r, position);
        lse[base + place_of(numbers, GPU_LSE, rows, position)] =
            sum[r] == 0 ? -INFINITY : largest[r] * LN_2 + log(sum[r]);
    }
}

KERNEL GROUP_ITEMS(1) void forward(GLOBAL const long *numbers, GLOBAL char *scratch, GLOBAL const IN *q, long q_at,
                                   GLOBAL const IN *k, long k_at, GLOBAL const IN *v, long v_at,
                                   GLOBAL const IN *extra_k, long extra_k_at, GLOBAL const IN *extra_v, long extra_v_at,
                                   GLOBAL OUT *out, long out_at, GLOBAL REAL *lse, long lse_at)
{
    const long heads = numbers[GPU_HEADS], kv_heads = numbers[GPU_KV_HEADS];
    const long in_walk = numbers[GPU_BY_QUERY + GPU_WALK_ITEMS];
    const long extra_tiles = (numbers[GPU_EXTRA] + COLUMNS - 1) / COLUMNS;
    const QUERY_ROWS s = query_rows(numbers, scratch, false);
    for (long index = GROUP_INDEX; index < in_walk * heads * numbers[GPU_BATCH]; index += GROUP_COUNT) {
        const long head = index / in_walk % heads, batch = index / in_walk / heads, kv_head = head * kv_heads / heads;
        ITEM item;
        SIGHT sight;
        SOFTMAX state;
        open_item(numbers, GPU_BY_QUERY, index % in_walk, &item);
        find_sight(numbers, &item, &sight);
        load_rows_in(numbers, q + q_at, GPU_Q, &item.rows, base_of(numbers, GPU_Q, batch, head), s.n, s.rows);
        clear(s.sums, s.value_n);
        for (int i = 0; i < VECTORS; i++) {
            state.max[i] = -INFINITY;
            state.sum[i] = 0;
        }
        for (long t = 0; t < item.tiles + extra_tiles; t++) {
            COLUMN_SET set, narrowed;
            int seen[COLUMNS];
            const bool full = open_keys(numbers, &s, &item, t, k + k_at, v + v_at, extra_k + extra_k_at,
                                        extra_v + extra_v_at, batch, kv_head, &set);
            if (full) {
                attend(&s, &set, (STRIP){0, VECTORS, ROWS}, &sight, true, false, &state);
                continue;
            }
            const bool careful = !all_finite(&set, SECOND, s.value_n);
            for (int i = 0; i < VECTORS; i++) {
                const int count = find_seen(&set, &sight, i, seen);
                if (count == 0)
                    continue;
                narrow(&set, seen, count, &narrowed);
                attend(&s, &narrowed, (STRIP){i, 1, LANES}, &sight, false, careful, &state);
            }
        }
        REAL largest[ROWS], sum[ROWS], inverse[ROWS];
        for (int i = 0; i < VECTORS; i++) {
            STOREV(state.max[i], largest + i * LANES);
            STOREV(state.sum[i], sum + i * LANES);
            STOREV(SELECT(state.sum[i] == 0, (REALV)0, 1 / state.sum[i]), inverse + i * LANES);
        }
        store_rows_out(numbers, out + out_at, GPU_OUT, &item.rows, base_of(numbers, GPU_OUT, batch, head), s.value_n,
                       s.sums, inverse);
        if (lse_at >= 0)
            store_lse(numbers, lse + lse_at, &item.rows, base_of(numbers, GPU_LSE, batch, head), largest, sum);
    }
}
