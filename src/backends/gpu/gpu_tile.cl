/* The shape for GPUs: a group computes a tile of ROWS by COLUMNS, each of its ITEMS_X by ITEMS_Y work-items a block of
 * it in registers. Rows and columns come through local memory CHUNK dimensions at a time, weights lie there whole, and
 * of the results a group keeps OUT_DIMS dimensions: where there are more, other groups compute the weights again.
 *
 * Every work-item of a group takes the same way through loops and branches that hold barriers. */
#define ITEMS (ITEMS_X * ITEMS_Y)
#define ROWS_EACH (ROWS / ITEMS_Y)
#define COLUMNS_EACH (COLUMNS / ITEMS_X)
#define DIMS_EACH (OUT_DIMS / ITEMS_X)
#define ROW_PITCH (ROWS + 1) /* off the banks of the neighbors */
#define COLUMN_PITCH (COLUMNS + 1)
#define REDUCE_PITCH (ITEMS_X + 1)
#define MORE_OF(a, b) ((a) > (b) ? (a) : (b))
#define TERMS MORE_OF(ROWS, COLUMNS)
#define AREA MORE_OF(MORE_OF(CHUNK *(ROW_PITCH + COLUMN_PITCH), CHUNK *OUT_DIMS), ROWS *REDUCE_PITCH)
#define MY_X (ITEM_INDEX % ITEMS_X)
#define MY_ROW(i) (ITEM_INDEX / ITEMS_X * ROWS_EACH + (i))
#define MY_COLUMN(j) (MY_X + ITEMS_X * (j))
#define MY_DIM(j) (MY_X + ITEMS_X * (j))
#define EACH_ROW(i) UNROLL for (int i = 0; i < ROWS_EACH; i++)
#define EACH_COLUMN(j) UNROLL for (int j = 0; j < COLUMNS_EACH; j++)
#define EACH_DIM(j) UNROLL for (int j = 0; j < DIMS_EACH; j++)

enum { FIRST, SECOND }; /* of the two tensors that rows or columns have: q and dout, k and v */

/* Local memory of a group. gpu_shape.c counts its bytes. */
typedef struct TILE {
    REAL weights[COLUMNS * ROW_PITCH];
    REAL area[AREA];               /* chunks of rows and columns; columns' values; partial maxima: one after another */
    REAL lse[TERMS], delta[TERMS]; /* of the queries, be they rows or columns */
    long row_place[2][ROWS], column_place[2][COLUMNS];
    int begin[RANK][ROWS], end[RANK][ROWS]; /* what rows see on an axis */
    int at[RANK][COLUMNS];
    int not_finite; /* among the values of a tile's columns */
} TILE;

/* The tile at hand. */
typedef struct MEETING {
    int rows, columns; /* that there are */
    bool full;         /* all rows see all columns */
    bool open;         /* and the tile is filled up: no mask */
} MEETING;

/* ---- Rows and columns -------------------------------------------------------------------------------------------- */

/* Where the rows of a box lie in a tensor. */
static void place_rows(GLOBAL const long *numbers, LOCAL TILE *m, int which, int tensor, const BOX *rows, long base)
{
    const int count = volume(rows);
    for (int r = ITEM_INDEX; r < ROWS; r += ITEMS) {
        int position[RANK];
        position_at(rows, min(r, count - 1), position);
        m->row_place[which][r] = base + place_of(numbers, tensor, rows, position);
    }
}

static void find_sight(GLOBAL const long *numbers, LOCAL TILE *m, const ITEM *item)
{
    const int count = volume(&item->rows);
    for (int r = ITEM_INDEX; r < ROWS; r += ITEMS) {
        int position[RANK];
        position_at(&item->rows, min(r, count - 1), position);
        for (int a = 0; a < RANK; a++) {
            int begin, end;
            row_sees(numbers, item, a, position[a], &begin, &end);
            m->begin[a][r] = begin;
            m->end[a][r] = end;
        }
    }
}

static void place_columns(GLOBAL const long *numbers, LOCAL TILE *m, int first, long first_base, int second,
                          long second_base, const BOX *columns)
{
    const int count = volume(columns);
    for (int c = ITEM_INDEX; c < COLUMNS; c += ITEMS) {
        int position[RANK];
        position_at(columns, min(c, count - 1), position);
        m->column_place[FIRST][c] = first_base + place_of(numbers, first, columns, position);
        m->column_place[SECOND][c] = second_base + place_of(numbers, second, columns, position);
        for (int a = 0; a < RANK; a++)
            m->at[a][c] = position[a];
    }
    if (ITEM_INDEX == 0)
        m->not_finite = 0;
}

/* lse, in base 2, and delta of the queries of a box. */
static void load_terms(GLOBAL const long *numbers, LOCAL TILE *m, GLOBAL const REAL *lse, GLOBAL const REAL *deltas,
                       const BOX *queries, long batch, long head)
{
    const int count = volume(queries);
    const long lse_base = base_of(numbers, GPU_LSE, batch, head), delta_base = base_of(numbers, GPU_DELTA, batch, head);
    for (int i = ITEM_INDEX; i < TERMS; i += ITEMS) {
        int position[RANK];
        position_at(queries, min(i, count - 1), position);
        m->lse[i] = lse[lse_base + place_of(numbers, GPU_LSE, queries, position)] * LOG2_E;
        m->delta[i] = deltas[delta_base + place_of(numbers, GPU_DELTA, queries, position)];
    }
}

static bool sees(LOCAL const TILE *m, const MEETING *meeting, int row, int column)
{
    bool seen = column < meeting->columns;
    if (!meeting->full)
        for (int a = 0; a < RANK; a++)
            seen = seen && m->begin[a][row] <= m->at[a][column] && m->at[a][column] < m->end[a][row];
    return seen;
}

/* ---- Products ---------------------------------------------------------------------------------------------------- */

/* Brings CHUNK dimensions of rows or columns to local memory, transposed; 0 where there is nothing. */
#define DEFINE_BRING(NAME, TYPE, LOAD)                                                                                 \
    static void NAME(LOCAL REAL *to, int pitch, int lines, int count, GLOBAL const TYPE *x, LOCAL const long *place,   \
                     long step, long first, long n)                                                                    \
    {                                                                                                                  \
        for (int t = ITEM_INDEX; t < CHUNK * lines; t += ITEMS) {                                                      \
            const int i = t % CHUNK, line = t / CHUNK;                                                                 \
            to[i * pitch + line] = line < count && first + i < n ? LOAD(x, place[line] + (first + i) * step) : 0;      \
        }                                                                                                              \
    }
DEFINE_BRING(bring_in, IN, IN_LOAD)
DEFINE_BRING(bring_out, OUT, OUT_LOAD)

/* s = rows times columns, over n dimensions of the tensors numbered `which` of both. */
#define DEFINE_MULTIPLY(NAME, ROW_TYPE, BRING_ROWS, COLUMN_TYPE, BRING_COLUMNS)                                        \
    static void NAME(LOCAL TILE *m, const MEETING *meeting, int which, GLOBAL const ROW_TYPE *x, long row_step,        \
                     GLOBAL const COLUMN_TYPE *y, long column_step, long n, REAL(*s)[COLUMNS_EACH])                    \
    {                                                                                                                  \
        LOCAL REAL *rows = m->area, *columns = rows + CHUNK * ROW_PITCH;                                               \
        EACH_ROW(i)                                                                                                    \
        {                                                                                                              \
            EACH_COLUMN(j) s[i][j] = 0;                                                                                \
        }                                                                                                              \
        for (long first = 0; first < n; first += CHUNK) {                                                              \
            BRING_ROWS(rows, ROW_PITCH, ROWS, meeting->rows, x, m->row_place[which], row_step, first, n);              \
            BRING_COLUMNS(columns, COLUMN_PITCH, COLUMNS, meeting->columns, y, m->column_place[which], column_step,    \
                          first, n);                                                                                   \
            BARRIER();                                                                                                 \
            for (int k = 0; k < CHUNK; k++) {                                                                          \
                REAL column[COLUMNS_EACH];                                                                             \
                EACH_COLUMN(j) column[j] = columns[k * COLUMN_PITCH + MY_COLUMN(j)];                                   \
                EACH_ROW(i)                                                                                            \
                {                                                                                                      \
                    const REAL row = rows[k * ROW_PITCH + MY_ROW(i)];                                                  \
                    EACH_COLUMN(j) s[i][j] += row * column[j];                                                         \
                }                                                                                                      \
            }                                                                                                          \
            BARRIER();                                                                                                 \
        }                                                                                                              \
    }
DEFINE_MULTIPLY(multiply_in_in, IN, bring_in, IN, bring_in)
DEFINE_MULTIPLY(multiply_out_in, OUT, bring_out, IN, bring_in)
DEFINE_MULTIPLY(multiply_in_out, IN, bring_in, OUT, bring_out)

/* Adds weighted values of CHUNK columns. In the careful way rows that do not see a column never meet its values. */
static void add_chunk(LOCAL const TILE *m, const MEETING *meeting, int first_column, bool careful,
                      REAL (*sum)[DIMS_EACH])
{
    for (int c = 0; c < CHUNK; c++) {
        REAL value[DIMS_EACH];
        EACH_DIM(j) value[j] = m->area[c * OUT_DIMS + MY_DIM(j)];
        EACH_ROW(i)
        {
            const REAL weight = m->weights[(first_column + c) * ROW_PITCH + MY_ROW(i)];
            if (!careful || sees(m, meeting, MY_ROW(i), first_column + c)) {
                EACH_DIM(j) sum[i][j] += weight * value[j];
            }
        }
    }
}

/* sum += weights times columns, dimensions first .. first + OUT_DIMS - 1 of n, of the columns' tensor numbered `which`.
 */
#define DEFINE_ACCUMULATE(NAME, TYPE, LOAD)                                                                            \
    static void NAME(LOCAL TILE *m, const MEETING *meeting, int which, GLOBAL const TYPE *x, long step, long first,    \
                     long n, REAL(*sum)[DIMS_EACH])                                                                    \
    {                                                                                                                  \
        for (int c = 0; c < COLUMNS; c += CHUNK) {                                                                     \
            bool not_finite = false;                                                                                   \
            for (int t = ITEM_INDEX; t < CHUNK * OUT_DIMS; t += ITEMS) {                                               \
                const int i = t % OUT_DIMS, column = c + t / OUT_DIMS;                                                 \
                const bool there = column < meeting->columns && first + i < n;                                         \
                const REAL value = there ? LOAD(x, m->column_place[which][column] + (first + i) * step) : 0;           \
                not_finite = not_finite || value - value != 0;                                                         \
                m->area[t] = value;                                                                                    \
            }                                                                                                          \
            if (!meeting->full && not_finite)                                                                          \
                LOCAL_OR(&m->not_finite, 1);                                                                           \
            BARRIER();                                                                                                 \
            if (m->not_finite)                                                                                         \
                add_chunk(m, meeting, c, true, sum);                                                                   \
            else                                                                                                       \
                add_chunk(m, meeting, c, false, sum);                                                                  \
            BARRIER();                                                                                                 \
        }                                                                                                              \
    }
DEFINE_ACCUMULATE(accumulate_in, IN, IN_LOAD)
DEFINE_ACCUMULATE(accumulate_out, OUT, OUT_LOAD)

static void clear(REAL (*sum)[DIMS_EACH])
{
    EACH_ROW(i)
    {
        EACH_DIM(j) sum[i][j] = 0;
    }
}

static void put_weights(LOCAL TILE *m, REAL (*s)[COLUMNS_EACH])
{
    EACH_ROW(i)
    {
        EACH_COLUMN(j) m->weights[MY_COLUMN(j) * ROW_PITCH + MY_ROW(i)] = s[i][j];
    }
}

/* Writes the dimensions that this group has of the rows of a box, times a factor. */
#define DEFINE_STORE(NAME, TYPE, STORE)                                                                                \
    static void NAME(GLOBAL const long *numbers, GLOBAL TYPE *x, int tensor, const BOX *rows, long base, long first,   \
                     long n, REAL(*sum)[DIMS_EACH], const REAL *factor)                                                \
    {                                                                                                                  \
        const long step = STRIDE(tensor, GPU_STRIDE_DIM);                                                              \
        const int count = volume(rows);                                                                                \
        EACH_ROW(i)                                                                                                    \
        {                                                                                                              \
            if (MY_ROW(i) < count) {                                                                                   \
                int position[RANK];                                                                                    \
                position_at(rows, MY_ROW(i), position);                                                                \
                const long place = base + place_of(numbers, tensor, rows, position);                                   \
                EACH_DIM(j)                                                                                            \
                {                                                                                                      \
                    if (first + MY_DIM(j) < n)                                                                         \
                        STORE(x, place + (first + MY_DIM(j)) * step, sum[i][j] * factor[i]);                           \
                }                                                                                                      \
            }                                                                                                          \
        }                                                                                                              \
    }
DEFINE_STORE(store_in, IN, IN_STORE)
DEFINE_STORE(store_out, OUT, OUT_STORE)

/* ---- Forward ----------------------------------------------------------------------------------------------------- */

/* What this work-item's rows have seen: the largest score in base 2, of all columns, and of its own columns the sum of
 * exponentials. */
typedef struct SOFTMAX {
    REAL largest[ROWS_EACH], sum[ROWS_EACH];
} SOFTMAX;

/* Turns scores into weights, and shrinks what has been summed to match. */
static void softmax(LOCAL TILE *m, const MEETING *meeting, REAL factor, REAL (*s)[COLUMNS_EACH], REAL (*sum)[DIMS_EACH],
                    SOFTMAX *state)
{
    EACH_ROW(i)
    {
        REAL top = -INFINITY;
        EACH_COLUMN(j)
        {
            s[i][j] *= factor;
            if (!meeting->open && !sees(m, meeting, MY_ROW(i), MY_COLUMN(j)))
                s[i][j] = -INFINITY;
            top = s[i][j] > top ? s[i][j] : top;
        }
        m->area[MY_ROW(i) * REDUCE_PITCH + MY_X] = top;
    }
    BARRIER();
    EACH_ROW(i)
    {
        const REAL old = state->largest[i];
        REAL top = old;
        for (int x = 0; x < ITEMS_X; x++) {
            const REAL other = m->area[MY_ROW(i) * REDUCE_PITCH + x];
            top = other > top ? other : top;
        }
        /* A row that has seen nothing, or only NaN, has no max: any finite base serves, and NaN must get through. */
        const REAL base = top == -INFINITY ? 0 : top;
        const REAL shrink = top == old ? 1 : exp2(old - base);
        state->largest[i] = top;
        state->sum[i] *= shrink;
        EACH_DIM(j) sum[i][j] *= shrink;
        EACH_COLUMN(j)
        {
            s[i][j] = exp2(s[i][j] - base);
            state->sum[i] += s[i][j];
        }
    }
    put_weights(m, s);
    BARRIER();
}

/* Sums over the work-items that share a row. */
static void total(LOCAL TILE *m, SOFTMAX *state)
{
    EACH_ROW(i) m->area[MY_ROW(i) * REDUCE_PITCH + MY_X] = state->sum[i];
    BARRIER();
    EACH_ROW(i)
    {
        REAL sum = 0;
        for (int x = 0; x < ITEMS_X; x++)
            sum += m->area[MY_ROW(i) * REDUCE_PITCH + x];
        state->sum[i] = sum;
    }
    BARRIER();
}

static void store_lse(GLOBAL const long *numbers, GLOBAL REAL *lse, const BOX *rows, long base, const SOFTMAX *state)
{
    const int count = volume(rows);
    EACH_ROW(i)
    {
        if (MY_ROW(i) < count && MY_X == 0) {
            int position[RANK];
            position_at(rows, MY_ROW(i), position);
            lse[base + place_of(numbers, GPU_LSE, rows, position)] =
                state->sum[i] == 0 ? -INFINITY : state->largest[i] * LN_2 + log(state->sum[i]);
        }
    }
}

/* Opens the index-th column tile of an item with queries as rows; extra tokens follow the grid's. Returns whether it is
 * one of theirs. */
static bool open_keys(GLOBAL const long *numbers, LOCAL TILE *m, const ITEM *item, long index, long batch, long kv_head,
                      MEETING *meeting)
{
    const bool more = index >= item->tiles;
    BOX columns;
    meeting->full = true;
    if (more) {
        const int first = (int)(index - item->tiles) * COLUMNS;
        extra_box(first, min((int)numbers[GPU_EXTRA] - first, COLUMNS), &columns);
    } else {
        meeting->full = column_tile(item, index, &columns);
    }
    meeting->columns = volume(&columns);
    meeting->open = meeting->full && meeting->columns == COLUMNS;
    if (more)
        place_columns(numbers, m, GPU_EXTRA_K, base_of(numbers, GPU_EXTRA_K, batch, kv_head), GPU_EXTRA_V,
                      base_of(numbers, GPU_EXTRA_V, batch, kv_head), &columns);
    else
        place_columns(numbers, m, GPU_K, base_of(numbers, GPU_K, batch, kv_head), GPU_V,
                      base_of(numbers, GPU_V, batch, kv_head), &columns);
    BARRIER();
    return more;
}

KERNEL GROUP_ITEMS(ITEMS) void forward(GLOBAL const long *numbers, GLOBAL char *scratch, GLOBAL const IN *q, long q_at,
                                       GLOBAL const IN *k, long k_at, GLOBAL const IN *v, long v_at,
                                       GLOBAL const IN *extra_k, long extra_k_at, GLOBAL const IN *extra_v,
                                       long extra_v_at, GLOBAL OUT *out, long out_at, GLOBAL REAL *lse, long lse_at)
{
    LOCAL_VARIABLE(TILE, m);
    const long heads = numbers[GPU_HEADS], kv_heads = numbers[GPU_KV_HEADS], n = numbers[GPU_HEAD_DIM];
    const long value_n = numbers[GPU_VALUE_DIM], parts = (value_n + OUT_DIMS - 1) / OUT_DIMS;
    const long in_walk = numbers[GPU_BY_QUERY + GPU_WALK_ITEMS], q_step = STRIDE(GPU_Q, GPU_STRIDE_DIM);
    const long extra_tiles = (numbers[GPU_EXTRA] + COLUMNS - 1) / COLUMNS;
    const REAL factor = SCALE * LOG2_E;
    for (long index = GROUP_INDEX; index < parts * in_walk * heads * numbers[GPU_BATCH]; index += GROUP_COUNT) {
        const long first = index % parts * OUT_DIMS, stream = index / parts / in_walk;
        const long head = stream % heads, batch = stream / heads, kv_head = head * kv_heads / heads;
        REAL s[ROWS_EACH][COLUMNS_EACH], sum[ROWS_EACH][DIMS_EACH], inverse[ROWS_EACH];
        ITEM item;
        MEETING meeting;
        SOFTMAX state;
        open_item(numbers, GPU_BY_QUERY, index / parts % in_walk, &item);
        meeting.rows = volume(&item.rows);
        find_sight(numbers, &m, &item);
        place_rows(numbers, &m, FIRST, GPU_Q, &item.rows, q_at + base_of(numbers, GPU_Q, batch, head));
        clear(sum);
        EACH_ROW(i)
        {
            state.largest[i] = -INFINITY;
            state.sum[i] = 0;
        }
        for (long t = 0; t < item.tiles + extra_tiles; t++) {
            const bool more = open_keys(numbers, &m, &item, t, batch, kv_head, &meeting);
            multiply_in_in(&m, &meeting, FIRST, q, q_step, more ? extra_k + extra_k_at : k + k_at,
                           STRIDE(more ? GPU_EXTRA_K : GPU_K, GPU_STRIDE_DIM), n, s);
            softmax(&m, &meeting, factor, s, sum, &state);
            accumulate_in(&m, &meeting, SECOND, more ? extra_v + extra_v_at : v + v_at,
                          STRIDE(more ? GPU_EXTRA_V : GPU_V, GPU_STRIDE_DIM), first, value_n, sum);
        }
        total(&m, &state);
        EACH_ROW(i) inverse[i] = state.sum[i] == 0 ? 0 : 1 / state.sum[i];
        store_out(numbers, out + out_at, GPU_OUT, &item.rows, base_of(numbers, GPU_OUT, batch, head), first, value_n,
                  sum, inverse);
        if (lse_at >= 0 && first == 0)
            store_lse(numbers, lse + lse_at, &item.rows, base_of(numbers, GPU_LSE, batch, head), &state);
    }
}
