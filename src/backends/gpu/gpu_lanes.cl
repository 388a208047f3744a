/* The shape for CPU devices: one work-item per group, rows in the lanes of wide vectors, columns one after another. A row's
 * softmax runs down its lane, the elements of a column are broadcast, and nothing but the rows has to be transposed.
 *
 * LANES of a vector, VECTORS of a row tile, COLUMNS of a column tile at most, BLOCK columns or dimensions at a time. */
#define ROWS (LANES * VECTORS)
#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)
#if IN_TYPE == 1
typedef JOIN(double, LANES) REALV;
typedef JOIN(long, LANES) BITSV;
#else
typedef JOIN(float, LANES) REALV;
typedef JOIN(int, LANES) BITSV;
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

/* ---- Rows and columns ---------------------------------------------------------------------------------------------- */

/* A tile of columns. */
typedef struct COLUMN_SET {
    int count, padded; /* padded to whole blocks by repeating the last */
    int at[RANK][COLUMNS + BLOCK];
} COLUMN_SET;

/* Rows of columns in memory: element i of column c is base[place[c] + i]. */
typedef struct COLUMN_ROWS {
    GLOBAL const REAL *base;
    long place[COLUMNS + BLOCK];
} COLUMN_ROWS;

/* What the rows in the lanes see on each axis. */
typedef struct SIGHT {
    INTV begin[RANK][VECTORS], end[RANK][VECTORS];
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
    set->padded = (set->count + BLOCK - 1) / BLOCK * BLOCK;
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
#define DEFINE_FETCH(NAME, TYPE, LOAD, IS_REAL)                                                                          \
    static void NAME(GLOBAL const long *numbers, GLOBAL const TYPE *x, int tensor, const BOX *tile,                      \
                     const COLUMN_SET *set, long base, long n, GLOBAL REAL *copy, COLUMN_ROWS *rows)                     \
    {                                                                                                                    \
        const long step = STRIDE(tensor, GPU_STRIDE_DIM);                                                                \
        list_places(numbers, tensor, tile, set, base, rows->place);                                                      \
        if (IS_REAL && step == 1) {                                                                                      \
            rows->base = (GLOBAL const REAL *)x;                                                                         \
            return;                                                                                                      \
        }                                                                                                                \
        for (int c = 0; c < set->padded; c++) {                                                                          \
            GLOBAL const TYPE *from = x + rows->place[c];                                                                \
            for (long i = 0; i < n; i++)                                                                                 \
                copy[c * n + i] = LOAD(from, i * step);                                                                  \
            rows->place[c] = c * n;                                                                                      \
        }                                                                                                                \
        rows->base = copy;                                                                                               \
    }
DEFINE_FETCH(fetch_in, IN, IN_LOAD, IN_TYPE <= 1)
DEFINE_FETCH(fetch_out, OUT, OUT_LOAD, OUT_TYPE <= 1)

/* The rows of a box, transposed: element i of row r becomes t[i * ROWS + r]; 0 where there is no row. */
#define DEFINE_LOAD_ROWS(NAME, TYPE, LOAD)                                                                               \
    static void NAME(GLOBAL const long *numbers, GLOBAL const TYPE *x, int tensor, const BOX *rows, long base, long n,   \
                     GLOBAL REAL *t)                                                                                     \
    {                                                                                                                    \
        const long step = STRIDE(tensor, GPU_STRIDE_DIM);                                                                \
        const int count = volume(rows);                                                                                  \
        for (int r = 0; r < ROWS; r++) {                                                                                 \
            int position[RANK];                                                                                          \
            position_at(rows, r < count ? r : 0, position);                                                              \
            GLOBAL const TYPE *from = x + base + place_of(numbers, tensor, rows, position);                              \
            for (long i = 0; i < n; i++)                                                                                 \
                t[i * ROWS + r] = r < count ? LOAD(from, i * step) : 0;                                                  \
        }                                                                                                                \
    }
DEFINE_LOAD_ROWS(load_rows_in, IN, IN_LOAD)
DEFINE_LOAD_ROWS(load_rows_out, OUT, OUT_LOAD)

/* Writes row r's elements, each t[i * ROWS + r] * factor[r]. */
#define DEFINE_STORE_ROWS(NAME, TYPE, STORE)                                                                             \
    static void NAME(GLOBAL const long *numbers, GLOBAL TYPE *x, int tensor, const BOX *rows, long base, long n,         \
                     GLOBAL const REAL *t, const REAL *factor)                                                           \
    {                                                                                                                    \
        const long step = STRIDE(tensor, GPU_STRIDE_DIM);                                                                \
        const int count = volume(rows);                                                                                  \
        for (int r = 0; r < count; r++) {                                                                                \
            int position[RANK];                                                                                          \
            position_at(rows, r, position);                                                                              \
            GLOBAL TYPE *to = x + base + place_of(numbers, tensor, rows, position);                                      \
            for (long i = 0; i < n; i++)                                                                                 \
                STORE(to, i * step, t[i * ROWS + r] * factor[r]);                                                        \
        }                                                                                                                \
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
    for (int a = 0; a < RANK; a++) {
        int begin[ROWS], end[ROWS];
        for (int r = 0; r < ROWS; r++) {
            int position[RANK];
            begin[r] = end[r] = 0;
            if (r < count) {
                position_at(&item->rows, r, position);
                row_sees(numbers, item, a, position[a], &begin[r], &end[r]);
            }
        }
        for (int v = 0; v < VECTORS; v++) {
            sight->begin[a][v] = LOADV(begin + v * LANES);
            sight->end[a][v] = LOADV(end + v * LANES);
        }
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

/* ---- Products ------------------------------------------------------------------------------------------------------ */

/* Sums are named one by one: compilers leave arrays of vectors in memory. EACH_VECTOR(DO, b): DO(b, v) for every v. */
#if VECTORS == 4
#define EACH_VECTOR(DO, b) DO(b, 0) DO(b, 1) DO(b, 2) DO(b, 3)
#elif VECTORS == 2
#define EACH_VECTOR(DO, b) DO(b, 0) DO(b, 1)
#else
#define EACH_VECTOR(DO, b) DO(b, 0)
#endif
#if BLOCK == 8
#define EACH_LINE(DO) DO(0) DO(1) DO(2) DO(3) DO(4) DO(5) DO(6) DO(7)
#else
#define EACH_LINE(DO) DO(0) DO(1) DO(2) DO(3)
#endif
#define CLEAR_SUM(b, v) REALV sum##b##_##v = 0;
#define CLEAR_SUMS(b) EACH_VECTOR(CLEAR_SUM, b)
#define LOAD_SUM(b, v) REALV sum##b##_##v = LOADV(sums + (b) * ROWS + (v) * LANES);
#define LOAD_SUMS(b) EACH_VECTOR(LOAD_SUM, b)
#define STORE_SUM(b, v) STOREV(sum##b##_##v, sums + (b) * ROWS + (v) * LANES);
#define STORE_SUMS(b) EACH_VECTOR(STORE_SUM, b)
#define LOAD_VECTOR(b, v) const REALV vector##v = LOADV(vectors + (v) * LANES);
#define ADD_TO_SUM(b, v) sum##b##_##v += element##b * vector##v;

/* s[c][r] = sum over i of x[c][i] * t[i][r], for whole blocks of columns. */
static void multiply(const COLUMN_ROWS *x, int columns, GLOBAL const REAL *t, long n, GLOBAL REAL *s)
{
#define START(b) GLOBAL const REAL *line##b = x->base + x->place[c + b];
#define ADD(b)                                                                                                           \
    const REAL element##b = line##b[i];                                                                                  \
    EACH_VECTOR(ADD_TO_SUM, b)
    for (int c = 0; c < columns; c += BLOCK) {
        GLOBAL REAL *sums = s + c * ROWS;
        EACH_LINE(START)
        EACH_LINE(CLEAR_SUMS)
        for (long i = 0; i < n; i++) {
            GLOBAL const REAL *vectors = t + i * ROWS;
            EACH_VECTOR(LOAD_VECTOR, 0)
            EACH_LINE(ADD)
        }
        EACH_LINE(STORE_SUMS)
    }
#undef START
#undef ADD
}

/* t[i][r] += sum over columns of x[c][i] * p[c][r]. */
static void accumulate(const COLUMN_ROWS *x, int columns, GLOBAL const REAL *p, long n, GLOBAL REAL *t)
{
#define ADD(b)                                                                                                           \
    const REAL element##b = line[b];                                                                                     \
    EACH_VECTOR(ADD_TO_SUM, b)
    long i = 0;
    for (; i + BLOCK <= n; i += BLOCK) {
        GLOBAL REAL *sums = t + i * ROWS;
        EACH_LINE(LOAD_SUMS)
        for (int c = 0; c < columns; c++) {
            GLOBAL const REAL *line = x->base + x->place[c] + i, *vectors = p + c * ROWS;
            EACH_VECTOR(LOAD_VECTOR, 0)
            EACH_LINE(ADD)
        }
        EACH_LINE(STORE_SUMS)
    }
#undef ADD
    for (; i < n; i++)
        for (int v = 0; v < VECTORS; v++) {
            REALV sum = LOADV(t + i * ROWS + v * LANES);
            for (int c = 0; c < columns; c++)
                sum += x->base[x->place[c] + i] * LOADV(p + c * ROWS + v * LANES);
            STOREV(sum, t + i * ROWS + v * LANES);
        }
}

/* As accumulate, but rows that do not see a column never meet its elements: one of them is NaN or infinite. */
static void accumulate_seen(const COLUMN_ROWS *x, const COLUMN_SET *set, const SIGHT *sight, GLOBAL const REAL *p, long n,
                            GLOBAL REAL *t)
{
    for (int c = 0; c < set->count; c++)
        for (int v = 0; v < VECTORS; v++) {
            const INTV mask = sees(sight, set, c, v);
            const REALV weight = LOADV(p + c * ROWS + v * LANES);
            for (long i = 0; i < n; i++) {
                GLOBAL REAL *to = t + i * ROWS + v * LANES;
                const REALV old = LOADV(to);
                STOREV(SELECT(mask, old + x->base[x->place[c] + i] * weight, old), to);
            }
        }
}

static bool all_finite(const COLUMN_ROWS *x, int columns, long n)
{
    REAL zero = 0;
    for (int c = 0; c < columns; c++) {
        GLOBAL const REAL *from = x->base + x->place[c];
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

/* Adds weighted columns of a tile; sight is of no account if all rows see all of it. */
static void add_columns(const COLUMN_ROWS *x, const COLUMN_SET *set, const SIGHT *sight, bool full,
                        GLOBAL const REAL *p, long n, GLOBAL REAL *t)
{
    if (full || all_finite(x, set->count, n))
        accumulate(x, set->count, p, n, t);
    else
        accumulate_seen(x, set, sight, p, n, t);
}

/* ---- Forward ------------------------------------------------------------------------------------------------------- */

/* What the rows have seen so far: the largest score, in base 2, and the sum of exponentials. */
typedef struct SOFTMAX {
    REALV max[VECTORS], sum[VECTORS];
} SOFTMAX;

/* Turns scores into weights, and shrinks what has been summed to match. */
static void softmax(const COLUMN_SET *set, const SIGHT *sight, bool full, REAL factor, GLOBAL REAL *s, long n,
                    GLOBAL REAL *out, SOFTMAX *state)
{
    for (int v = 0; v < VECTORS; v++) {
        GLOBAL REAL *column = s + v * LANES;
        REALV top = -INFINITY, total = 0;
        if (full) {
            for (int c = 0; c < set->count; c++) {
                const REALV x = LOADV(column + c * ROWS) * factor;
                top = SELECT(x > top, x, top);
            }
        } else {
            for (int c = 0; c < set->count; c++) {
                const REALV x = SELECT(sees(sight, set, c, v), LOADV(column + c * ROWS) * factor, (REALV)-INFINITY);
                top = SELECT(x > top, x, top);
                STOREV(x, column + c * ROWS);
            }
        }
        const REALV old = state->max[v], new = SELECT(top > old, top, old);
        /* A row that has seen nothing, or only NaN, has no max: any finite base serves, and NaN must get through. */
        const REALV base = SELECT(new == -INFINITY, (REALV)0, new);
        if (any(new != old)) {
            const REALV shrink = exp2_of(old - base);
            state->max[v] = new;
            state->sum[v] *= shrink;
            for (long i = 0; i < n; i++)
                STOREV(LOADV(out + i * ROWS + v * LANES) * shrink, out + i * ROWS + v * LANES);
        }
        const REAL rest = full ? factor : 1;
        for (int c = 0; c < set->count; c++) {
            const REALV p = exp2_of(LOADV(column + c * ROWS) * rest - base);
            total += p;
            STOREV(p, column + c * ROWS);
        }
        state->sum[v] += total;
    }
}

static void store_lse(GLOBAL const long *numbers, GLOBAL REAL *lse, const BOX *rows, long base, const REAL *max,
                      const REAL *sum)
{
    const int count = volume(rows);
    for (int r = 0; r < count; r++) {
        int position[RANK];
        position_at(rows, r, position);
        lse[base + place_of(numbers, GPU_LSE, rows, position)] = sum[r] == 0 ? -INFINITY : max[r] * LN_2 + log(sum[r]);
    }
}

KERNEL GROUP_ITEMS(1) void forward(GLOBAL const long *numbers, GLOBAL char *scratch, GLOBAL const IN *q, long q_at,
                                   GLOBAL const IN *k, long k_at, GLOBAL const IN *v, long v_at,
                                   GLOBAL const IN *extra_k, long extra_k_at, GLOBAL const IN *extra_v, long extra_v_at,
                                   GLOBAL OUT *out, long out_at, GLOBAL REAL *lse, long lse_at)
{
    const long heads = numbers[GPU_HEADS], kv_heads = numbers[GPU_KV_HEADS], n = numbers[GPU_HEAD_DIM];
    const long value_n = numbers[GPU_VALUE_DIM], in_walk = numbers[GPU_BY_QUERY + GPU_WALK_ITEMS];
    const int extra = (int)numbers[GPU_EXTRA];
    const REAL factor = SCALE * LOG2_E;
    GLOBAL REAL *rows = (GLOBAL REAL *)(scratch + numbers[GPU_SCRATCH_GROUPS] +
                                        GROUP_INDEX * numbers[GPU_SCRATCH_GROUP_BYTES]);
    GLOBAL REAL *sums = rows + n * ROWS, *scores = sums + value_n * ROWS;
    GLOBAL REAL *copied_k = scores + (COLUMNS + BLOCK) * ROWS, *copied_v = copied_k + (COLUMNS + BLOCK) * n;
    for (long index = GROUP_INDEX; index < in_walk * heads * numbers[GPU_BATCH]; index += GROUP_COUNT) {
        const long head = index / in_walk % heads, batch = index / in_walk / heads, kv_head = head * kv_heads / heads;
        ITEM item;
        SIGHT sight;
        SOFTMAX state;
        open_item(numbers, GPU_BY_QUERY, index % in_walk, &item);
        find_sight(numbers, &item, &sight);
        load_rows_in(numbers, q + q_at, GPU_Q, &item.rows, base_of(numbers, GPU_Q, batch, head), n, rows);
        clear(sums, value_n);
        for (int i = 0; i < VECTORS; i++) {
            state.max[i] = -INFINITY;
            state.sum[i] = 0;
        }
        for (long t = 0; t < item.tiles + (extra + COLUMNS - 1) / COLUMNS; t++) {
            const bool more = t >= item.tiles;
            BOX tile;
            bool full = true;
            COLUMN_SET set;
            COLUMN_ROWS keys, values;
            if (more)
                extra_box((int)(t - item.tiles) * COLUMNS, min(extra - (int)(t - item.tiles) * COLUMNS, COLUMNS), &tile);
            else
                full = column_tile(&item, t, &tile);
            list_columns(&tile, &set);
            fetch_in(numbers, more ? extra_k + extra_k_at : k + k_at, more ? GPU_EXTRA_K : GPU_K, &tile, &set,
                     base_of(numbers, more ? GPU_EXTRA_K : GPU_K, batch, kv_head), n, copied_k, &keys);
            fetch_in(numbers, more ? extra_v + extra_v_at : v + v_at, more ? GPU_EXTRA_V : GPU_V, &tile, &set,
                     base_of(numbers, more ? GPU_EXTRA_V : GPU_V, batch, kv_head), value_n, copied_v, &values);
            multiply(&keys, set.padded, rows, n, scores);
            softmax(&set, &sight, full, factor, scores, value_n, sums, &state);
            add_columns(&values, &set, &sight, full, scores, value_n, sums);
        }
        REAL max[ROWS], sum[ROWS], inverse[ROWS];
        for (int i = 0; i < VECTORS; i++) {
            STOREV(state.max[i], max + i * LANES);
            STOREV(state.sum[i], sum + i * LANES);
            STOREV(SELECT(state.sum[i] == 0, (REALV)0, 1 / state.sum[i]), inverse + i * LANES);
        }
        store_rows_out(numbers, out + out_at, GPU_OUT, &item.rows, base_of(numbers, GPU_OUT, batch, head), value_n, sums,
                       inverse);
        if (lse_at >= 0)
            store_lse(numbers, lse + lse_at, &item.rows, base_of(numbers, GPU_LSE, batch, head), max, sum);
    }
}
