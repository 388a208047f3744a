/* Backward on tensor cores. What both kernels need of each query, its lse and delta, is found first. Then dq has
 * queries as rows, which stay, and walks the keys that they see; dk and dv have keys as rows and walk the queries that
 * see them, of all heads that share the keys. Each computes the weights anew, so that no sum is shared between blocks:
 * results do not depend on their order. */
#ifndef NF_CU_MMA_BACKWARD_H
#define NF_CU_MMA_BACKWARD_H

enum {
    BACKWARD_BLOCKS = 1,
    BACKWARD_ROWS = WARPS * UNIT * BACKWARD_BLOCKS,
    BACKWARD_STEP = DIMS <= 64    ? 64
                    : DIMS == 128 ? 32
                                  : 16, /* columns of a stage */
    GRADIENTS_APART = DIMS > 128,       /* registers hold one of dk and dv: two items for the same rows */
    DELTA_LANES = 8                     /* that sum a query's delta */
};

typedef float SUMS[BACKWARD_BLOCKS][DIMS / 8][4];
typedef float SCORES[BACKWARD_BLOCKS][BACKWARD_STEP / 8][4];
typedef uint WEIGHTS[BACKWARD_BLOCKS][BACKWARD_STEP / UNIT][4];

/* Of a query. */
typedef struct TERMS {
    float lse; /* in base 2 */
    float delta;
} TERMS;

/* Shared memory begins with the lines of both tensors of the rows, then those of the columns, of two stages. */
enum {
    ROW_LINES = BACKWARD_ROWS * LINE_BYTES,
    COLUMN_LINES = BACKWARD_STEP * LINE_BYTES,
    STAGE_LINES = 2 * COLUMN_LINES,
    ALL_LINES = 2 * ROW_LINES + 2 * STAGE_LINES
};

static cu_address stage_address(cu_address lines, int number)
{
    return lines + 2 * ROW_LINES + number % 2 * STAGE_LINES;
}

/* ---- Deltas ------------------------------------------------------------------------------------------------------ */

static bool out_is_float(const long *numbers)
{
    return numbers[GPU_OUT_TYPE] == 0;
}

static float out_element(const void *data, bool floats, long place)
{
    return floats ? ((const float *)data)[place] : IN_LOAD((const IN *)data, place);
}

/* A lane's part of out . dout. */
static float part_of_delta(const long *numbers, const void *out, long out_place, const void *dout, long dout_place)
{
    const bool floats = out_is_float(numbers);
    const long out_step = STRIDE(GPU_OUT, GPU_STRIDE_DIM), dout_step = STRIDE(GPU_DOUT, GPU_STRIDE_DIM);
    float sum = 0;
    for (long i = ITEM_INDEX % DELTA_LANES; i < numbers[GPU_VALUE_DIM]; i += DELTA_LANES)
        sum +=
            out_element(out, floats, out_place + i * out_step) * out_element(dout, floats, dout_place + i * dout_step);
    return sum;
}

KERNEL GROUP_ITEMS(ITEMS) void mma_backward_delta(const long *numbers, char *scratch, const void *out, long out_at,
                                                  const void *dout, long dout_at, const float *lse, long lse_at,
                                                  const float *dlse, long dlse_at)
{
    const long heads = numbers[GPU_HEADS], queries = numbers[GPU_QUERIES];
    const long count = numbers[GPU_BATCH] * queries * heads, each = ITEMS / DELTA_LANES;
    TERMS *terms = (TERMS *)(scratch + numbers[GPU_SCRATCH_DELTA]);
    for (long first = GROUP_INDEX * each; first < count; first += GROUP_COUNT * each) {
        const long index = min(first + ITEM_INDEX / DELTA_LANES, count - 1);
        const long head = index % heads, query = index / heads % queries, batch = index / heads / queries;
        float sum = part_of_delta(
            numbers, out, out_at + base_of(numbers, GPU_OUT, batch, head) + query_place(numbers, GPU_OUT, query), dout,
            dout_at + base_of(numbers, GPU_DOUT, batch, head) + query_place(numbers, GPU_DOUT, query));
        for (int apart = DELTA_LANES / 2; apart; apart /= 2)
            sum += cu_shuffle_xor(sum, apart);
        if (dlse_at >= 0)
            sum -= dlse[dlse_at + base_of(numbers, GPU_DLSE, batch, head) + query_place(numbers, GPU_DLSE, query)];
        const long lse_place = lse_at + base_of(numbers, GPU_LSE, batch, head) + query_place(numbers, GPU_LSE, query);
        if (ITEM_INDEX % DELTA_LANES == 0 && first + ITEM_INDEX / DELTA_LANES < count)
            terms[index] = TERMS{lse[lse_place] * LOG2_E, sum};
    }
}

/* ---- What both walks share --------------------------------------------------------------------------------------- */

static SOURCE open_dout(const long *numbers, const void *dout, long dout_at)
{
    if (!out_is_float(numbers))
        return open_source(numbers, GPU_DOUT, (const IN *)dout + dout_at, numbers[GPU_VALUE_DIM]);
    return SOURCE{(const float *)dout + dout_at, STRIDE(GPU_DOUT, GPU_STRIDE_DIM), (int)numbers[GPU_VALUE_DIM], true,
                  false};
}

/* The first row of a warp among those of a block. */
#define WARP_LINES (WARP * UNIT * BACKWARD_BLOCKS * LINE_BYTES)

/* Row of a lane's sums [2 * half] and [2 * half + 1] of a block. */
static int lane_row(int block, int half)
{
    return WARP * UNIT * BACKWARD_BLOCKS + block * UNIT + half * UNIT / 2 + LANE / 4;
}

static void clear(SUMS sum)
{
    UNROLLED(int b = 0; b < BACKWARD_BLOCKS; b++)
    {
        UNROLLED(int j = 0; j < DIMS / 8; j++)
        {
            sum[b][j][0] = sum[b][j][1] = sum[b][j][2] = sum[b][j][3] = 0;
        }
    }
}

/* sum += weights times the dimensions of columns. */
template <int N>
static void add_product(SCORES weights, const HULL<N> *hull, const SPOT *spot, const MASK<BACKWARD_BLOCKS> *mask,
                        bool careful, cu_address columns, int dims, SUMS sum)
{
    WEIGHTS rounded;
    round_weights<BACKWARD_BLOCKS, BACKWARD_STEP>(weights, rounded);
    if (careful) {
        WEIGHTS seen;
        weigh_sight<BACKWARD_BLOCKS, BACKWARD_STEP>(hull, spot, mask, seen);
        accumulate_carefully<BACKWARD_BLOCKS, BACKWARD_STEP>(rounded, seen, columns, dims, sum);
    } else {
        accumulate<BACKWARD_BLOCKS, BACKWARD_STEP>(rounded, columns, dims, sum);
    }
}

/* Writes the dimensions of rows, times a factor. */
template <int N>
static void store_sums(IN *x, long step, const LINES<BACKWARD_ROWS, N> *rows, int which, int dims, SUMS sum,
                       float factor)
{
    UNROLLED(int b = 0; b < BACKWARD_BLOCKS; b++)
    {
        UNROLLED(int h = 0; h < 2; h++)
        {
            const int row = lane_row(b, h);
            const bool there = rows->coordinates[row] == ROW_LIMIT;
            IN *to = x + rows->offset[which][row];
            const bool pairs = step == 1 && (size_t)to % (2 * sizeof *to) == 0;
            UNROLLED(int j = 0; j < DIMS / 8; j++)
            {
                const int first = 8 * j + LANE % 4 * 2;
                const uint pair = PACK(sum[b][j][2 * h] * factor, sum[b][j][2 * h + 1] * factor);
                if (there && pairs && first + 1 < dims)
                    *(uint *)(to + first) = pair;
                else if (there && first < dims) {
                    to[first * step] = (IN)pair;
                    if (first + 1 < dims)
                        to[(first + 1) * step] = (IN)(pair >> 16);
                }
            }
        }
    }
}

/* ---- dq ---------------------------------------------------------------------------------------------------------- */

enum { DQ_Q, DQ_DOUT, DQ_TERMS, DQ_DQ, DQ_TENSORS };

/* In shared memory, after the lines. Columns are keys of the grid, [0], then extra tokens, [1]. */
typedef struct DQ_TABLES {
    SOURCE q, dout, keys[2], values[2];
    HULL<2> hull[2];
    SIGHT<BACKWARD_ROWS> sight;
    LINES<BACKWARD_ROWS, DQ_TENSORS> rows;
} DQ_TABLES;

/* A walk over the keys of an item. */
typedef struct KEYS {
    const DQ_TABLES *tables;
    cu_address lines;
    int dims, value_dims;
    int grid_spots, spots; /* those of the grid come first */
    float factor;          /* of scores, in base 2 */
    TERMS terms[BACKWARD_BLOCKS][2];
} KEYS;

static void copy_keys(const KEYS *k, int number, const SPOT *spot)
{
    const int more = number >= k->grid_spots;
    const HULL<2> *hull = &k->tables->hull[more];
    const cu_address to = stage_address(k->lines, number);
    const uint *coordinates = hull->coordinates + spot->column;
    copy_lines(to, BACKWARD_STEP, &k->tables->keys[more], coordinates, spot->limit, hull->offset[0] + spot->column,
               tile_place(hull, 0, spot));
    copy_lines(to + COLUMN_LINES, BACKWARD_STEP, &k->tables->values[more], coordinates, spot->limit,
               hull->offset[1] + spot->column, tile_place(hull, 1, spot));
    cu_copy_async_commit();
}

/* From one spot to the one of the number given. */
static void next_keys(const KEYS *k, int number, SPOT *spot)
{
    if (number == k->grid_spots)
        seek_spot(&k->tables->hull[1], 0, spot);
    else
        next_spot(&k->tables->hull[number > k->grid_spots], BACKWARD_STEP, spot);
}

/* Scores and gradients of weights become gradients of scores, in ds. */
static void gradient_by_row(const KEYS *k, const HULL<2> *hull, const SPOT *spot, VIEW view,
                            const MASK<BACKWARD_BLOCKS> *mask, SCORES s, SCORES ds)
{
    UNROLLED(int j = 0; j < BACKWARD_STEP / 8; j++)
    {
        uint at[2];
        lane_coordinates(hull, spot, j, at);
        UNROLLED(int b = 0; b < BACKWARD_BLOCKS; b++)
        {
            UNROLLED(int e = 0; e < 4; e++)
            {
                const TERMS terms = k->terms[b][e / 2];
                const float p = cu_exp2(s[b][j][e] * k->factor - terms.lse), d = p * (ds[b][j][e] - terms.delta);
                const bool seen = view == SEES_ALL || is_between(mask->low[b][e / 2], at[e % 2], mask->high[b][e / 2]);
                ds[b][j][e] = seen ? d : 0;
            }
        }
    }
}

/* Adds to a warp's sums what the keys of a spot contribute. */
static void meet_keys(const KEYS *k, int number, const SPOT *spot, VIEW view, const MASK<BACKWARD_BLOCKS> *mask,
                      bool careful, SUMS sum)
{
    const HULL<2> *hull = &k->tables->hull[number >= k->grid_spots];
    const cu_address columns = stage_address(k->lines, number), rows = k->lines + WARP_LINES;
    SCORES s, ds;
    multiply<BACKWARD_BLOCKS, BACKWARD_STEP>(rows, columns, k->dims, s);
    multiply<BACKWARD_BLOCKS, BACKWARD_STEP>(rows + ROW_LINES, columns + COLUMN_LINES, k->value_dims, ds);
    gradient_by_row(k, hull, spot, view, mask, s, ds);
    add_product(ds, hull, spot, mask, careful && view == SEES_PART, columns, k->dims, sum);
}

/* Sums what all keys contribute. While a spot is met, the next is copied. One barrier does: when it opens, all threads'
 * copies of the spot have landed, and the spot before, whose place the next one takes, is done with. */
static void walk_keys(const KEYS *k, bool careful, SUMS sum)
{
    const DQ_TABLES *tables = k->tables;
    MASK<BACKWARD_BLOCKS> mask;
    SPOT spot, next;
    clear(sum);
    if (k->spots == 0)
        return;
    copy_lines(k->lines, BACKWARD_ROWS, &tables->q, tables->rows.coordinates, ROW_LIMIT, tables->rows.offset[DQ_Q], 0);
    copy_lines(k->lines + ROW_LINES, BACKWARD_ROWS, &tables->dout, tables->rows.coordinates, ROW_LIMIT,
               tables->rows.offset[DQ_DOUT], 0);
    seek_spot(&tables->hull[k->grid_spots == 0], 0, &spot);
    copy_keys(k, 0, &spot);
    for (int number = 0; number < k->spots; number++) {
        cu_copy_async_wait<0>();
        BARRIER();
        /* What is kept of this spot while the next is found is little: registers are scarce. */
        const VIEW view = look(&tables->sight, &tables->hull[number >= k->grid_spots], &spot, BACKWARD_STEP, &mask);
        next = spot;
        if (number + 1 < k->spots) {
            next_keys(k, number + 1, &next);
            copy_keys(k, number + 1, &next);
        }
        if (view != SEES_NOTHING)
            meet_keys(k, number, &spot, view, &mask, careful, sum);
        spot = next;
    }
}

/* Extra tokens as the columns of an item, which all its rows see. */
static void see_extra(const long *numbers, ITEM *item)
{
    extra_box(0, (int)numbers[GPU_EXTRA], &item->hull);
    for (int a = 0; a < RANK; a++) {
        item->tile[a] = a == 0 ? COLUMNS : 1;
        item->full_begin[a] = 0;
        item->full_end[a] = item->hull.count[a];
    }
    count_tiles(item);
}

static void open_keys(const long *numbers, long index, DQ_TABLES *tables, const TERMS *terms, KEYS *k)
{
    const long in_walk = numbers[GPU_BY_QUERY + GPU_WALK_ITEMS], heads = numbers[GPU_HEADS];
    const long head = index / in_walk % heads, batch = index / in_walk / heads;
    const long kv_head = head * numbers[GPU_KV_HEADS] / heads;
    ITEM item;
    open_item(numbers, GPU_BY_QUERY, index % in_walk, &item);
    place_rows(numbers, &item.rows, {GPU_Q, GPU_DOUT, GPU_DELTA, GPU_DQ}, batch, head, &tables->rows);
    find_sight(numbers, &item, &tables->sight);
    open_hull(numbers, &item, {GPU_K, GPU_V}, batch, kv_head, &tables->hull[0]);
    k->grid_spots = k->spots = tables->hull[0].tiles * spots_of_tile(&tables->hull[0], BACKWARD_STEP);
    if (numbers[GPU_EXTRA]) {
        see_extra(numbers, &item);
        open_hull(numbers, &item, {GPU_EXTRA_K, GPU_EXTRA_V}, batch, kv_head, &tables->hull[1]);
        k->spots += tables->hull[1].tiles * spots_of_tile(&tables->hull[1], BACKWARD_STEP);
    }
    UNROLLED(int b = 0; b < BACKWARD_BLOCKS; b++)
    {
        k->terms[b][0] = terms[tables->rows.offset[DQ_TERMS][lane_row(b, 0)]];
        k->terms[b][1] = terms[tables->rows.offset[DQ_TERMS][lane_row(b, 1)]];
    }
}

/* One group per item. */
KERNEL GROUP_ITEMS(ITEMS) void mma_backward_dq(const long *numbers, char *scratch, const IN *q, long q_at, const IN *k,
                                               long k_at, const IN *v, long v_at, const IN *extra_k, long extra_k_at,
                                               const IN *extra_v, long extra_v_at, const void *dout, long dout_at,
                                               IN *dq, long dq_at)
{
    DYNAMIC_SHARED(shared);
    const long n = numbers[GPU_HEAD_DIM], value_n = numbers[GPU_VALUE_DIM];
    DQ_TABLES *tables = (DQ_TABLES *)(shared + ALL_LINES);
    KEYS keys = {tables, cu_address_of(shared), (int)n, (int)value_n, 0, 0, SCALE * LOG2_E};
    if (ITEM_INDEX == 0) {
        tables->q = open_source(numbers, GPU_Q, q + q_at, n);
        tables->dout = open_dout(numbers, dout, dout_at);
        tables->keys[0] = open_source(numbers, GPU_K, k + k_at, n);
        tables->values[0] = open_source(numbers, GPU_V, v + v_at, value_n);
        tables->keys[1] = open_source(numbers, GPU_EXTRA_K, extra_k + extra_k_at, n);
        tables->values[1] = open_source(numbers, GPU_EXTRA_V, extra_v + extra_v_at, value_n);
    }
    SUMS sum;
    bool careful = false, again;
    open_keys(numbers, GROUP_INDEX, tables, (const TERMS *)(scratch + numbers[GPU_SCRATCH_DELTA]), &keys);
    do {
        walk_keys(&keys, careful, sum);
        again = cu_barrier_or(is_not_finite<BACKWARD_BLOCKS>(sum)) && !careful;
        careful = true;
    } while (again);
    store_sums(dq + dq_at, STRIDE(GPU_DQ, GPU_STRIDE_DIM), &tables->rows, DQ_DQ, keys.dims, sum, SCALE);
}

/* ---- dk and dv --------------------------------------------------------------------------------------------------- */

enum { DKV_KEY, DKV_VALUE, DKV_DKEY, DKV_DVALUE, DKV_TENSORS };
enum { DKV_Q, DKV_DOUT, DKV_TERMS, DKV_COLUMN_TENSORS };

/* Where the results of an item go. */
typedef struct KEY_GRADIENTS {
    IN *dkeys, *dvalues; /* NULL: not asked for */
    long dkey_step, dvalue_step;
    float *partial; /* not NULL: partial sums of extra tokens instead, of the item's first row on */
    long pitch;     /* of a row of those: its gradient of the key, then that of the value */
    float scale;    /* of gradients of keys */
} KEY_GRADIENTS;

/* In shared memory, after the lines. Rows are keys of the grid, [0], or extra tokens, [1]. */
typedef struct DKV_TABLES {
    TERMS terms[2][BACKWARD_STEP]; /* of the columns of each stage */
    SOURCE keys[2], values[2], q, dout;
    KEY_GRADIENTS to;
    const TERMS *all_terms;
    int more;        /* which rows they are */
    long first_tile; /* of the hull, of all heads' */
    HULL<DKV_COLUMN_TENSORS> hull;
    SIGHT<BACKWARD_ROWS> sight;
    LINES<BACKWARD_ROWS, DKV_TENSORS> rows;
} DKV_TABLES;

/* A walk over the queries of an item, of all heads that share its rows. */
typedef struct QUERIES {
    DKV_TABLES *tables;
    cu_address lines;
    int spots;
    float factor; /* of scores, in base 2 */
} QUERIES;

static void copy_queries(const QUERIES *q, int number, const SPOT *spot)
{
    const HULL<DKV_COLUMN_TENSORS> *hull = &q->tables->hull;
    const cu_address to = stage_address(q->lines, number);
    const uint *coordinates = hull->coordinates + spot->column;
    copy_lines(to, BACKWARD_STEP, &q->tables->q, coordinates, spot->limit, hull->offset[DKV_Q] + spot->column,
               tile_place(hull, DKV_Q, spot));
    copy_lines(to + COLUMN_LINES, BACKWARD_STEP, &q->tables->dout, coordinates, spot->limit,
               hull->offset[DKV_DOUT] + spot->column, tile_place(hull, DKV_DOUT, spot));
    if (ITEM_INDEX < BACKWARD_STEP && is_between(0, coordinates[ITEM_INDEX], spot->limit))
        cu_copy_async_8(cu_address_of(&q->tables->terms[number % 2][ITEM_INDEX]),
                        q->tables->all_terms + tile_place(hull, DKV_TERMS, spot) +
                            hull->offset[DKV_TERMS][spot->column + ITEM_INDEX]);
    cu_copy_async_commit();
}

/* Scores and gradients of weights become weights and gradients of scores. */
static void gradient_by_column(const QUERIES *q, int number, const SPOT *spot, VIEW view,
                               const MASK<BACKWARD_BLOCKS> *mask, SCORES s, SCORES ds)
{
    UNROLLED(int j = 0; j < BACKWARD_STEP / 8; j++)
    {
        uint at[2];
        const TERMS *terms = &q->tables->terms[number % 2][8 * j + LANE % 4 * 2];
        lane_coordinates(&q->tables->hull, spot, j, at);
        UNROLLED(int b = 0; b < BACKWARD_BLOCKS; b++)
        {
            UNROLLED(int e = 0; e < 4; e++)
            {
                const float p = cu_exp2(s[b][j][e] * q->factor - terms[e % 2].lse);
                const float d = p * (ds[b][j][e] - terms[e % 2].delta);
                const bool seen = view == SEES_ALL || is_between(mask->low[b][e / 2], at[e % 2], mask->high[b][e / 2]);
                s[b][j][e] = seen ? p : 0;
                ds[b][j][e] = seen ? d : 0;
            }
        }
    }
}

/* Adds to a warp's sums, of one gradient or both, what the queries of a spot contribute. */
template <bool DKEYS, bool DVALUES>
static void meet_queries(const QUERIES *q, int number, const SPOT *spot, VIEW view, const MASK<BACKWARD_BLOCKS> *mask,
                         bool careful, SUMS dkeys, SUMS dvalues)
{
    const HULL<DKV_COLUMN_TENSORS> *hull = &q->tables->hull;
    const cu_address columns = stage_address(q->lines, number), rows = q->lines + WARP_LINES;
    SCORES s, ds = {};
    multiply<BACKWARD_BLOCKS, BACKWARD_STEP>(rows, columns, q->tables->q.dims, s);
    if (DKEYS)
        multiply<BACKWARD_BLOCKS, BACKWARD_STEP>(rows + ROW_LINES, columns + COLUMN_LINES, q->tables->dout.dims, ds);
    gradient_by_column(q, number, spot, view, mask, s, ds);
    if (DVALUES)
        add_product(s, hull, spot, mask, careful && view == SEES_PART, columns + COLUMN_LINES, q->tables->dout.dims,
                    dvalues);
    if (DKEYS)
        add_product(ds, hull, spot, mask, careful && view == SEES_PART, columns, q->tables->q.dims, dkeys);
}

/* Sums what all queries contribute, in the manner of walk_keys. */
template <bool DKEYS, bool DVALUES> static void walk_queries(const QUERIES *q, bool careful, SUMS dkeys, SUMS dvalues)
{
    const DKV_TABLES *tables = q->tables;
    MASK<BACKWARD_BLOCKS> mask;
    SPOT spot, next;
    if (DKEYS)
        clear(dkeys);
    if (DVALUES)
        clear(dvalues);
    if (q->spots == 0)
        return;
    copy_lines(q->lines, BACKWARD_ROWS, &tables->keys[tables->more], tables->rows.coordinates, ROW_LIMIT,
               tables->rows.offset[DKV_KEY], 0);
    copy_lines(q->lines + ROW_LINES, BACKWARD_ROWS, &tables->values[tables->more], tables->rows.coordinates, ROW_LIMIT,
               tables->rows.offset[DKV_VALUE], 0);
    seek_spot(&tables->hull, tables->first_tile, &spot);
    copy_queries(q, 0, &spot);
    for (int number = 0; number < q->spots; number++) {
        cu_copy_async_wait<0>();
        BARRIER();
        const VIEW view = look(&tables->sight, &tables->hull, &spot, BACKWARD_STEP, &mask);
        next = spot;
        if (number + 1 < q->spots) {
            next_spot(&tables->hull, BACKWARD_STEP, &next);
            copy_queries(q, number + 1, &next);
        }
        if (view != SEES_NOTHING)
            meet_queries<DKEYS, DVALUES>(q, number, &spot, view, &mask, careful, dkeys, dvalues);
        spot = next;
    }
}

/* Writes partial sums of extra tokens. */
template <int N>
static void store_partial(float *partial, long pitch, const LINES<BACKWARD_ROWS, N> *rows, int dims, SUMS sum,
                          float factor)
{
    UNROLLED(int b = 0; b < BACKWARD_BLOCKS; b++)
    {
        UNROLLED(int j = 0; j < DIMS / 8; j++)
        {
            UNROLLED(int e = 0; e < 4; e++)
            {
                const int row = lane_row(b, e / 2), dim = 8 * j + LANE % 4 * 2 + e % 2;
                if (rows->coordinates[row] == ROW_LIMIT && dim < dims)
                    partial[row * pitch + dim] = sum[b][j][e] * factor;
            }
        }
    }
}

template <bool DKEYS, bool DVALUES> static void find_key_gradients(const QUERIES *q)
{
    const LINES<BACKWARD_ROWS, DKV_TENSORS> *rows = &q->tables->rows;
    const KEY_GRADIENTS *to = &q->tables->to;
    SUMS dkeys, dvalues;
    bool careful = false, again;
    do {
        walk_queries<DKEYS, DVALUES>(q, careful, dkeys, dvalues);
        const bool not_finite =
            (DKEYS && is_not_finite<BACKWARD_BLOCKS>(dkeys)) || (DVALUES && is_not_finite<BACKWARD_BLOCKS>(dvalues));
        again = cu_barrier_or(not_finite) && !careful;
        careful = true;
    } while (again);
    const int dims = q->tables->q.dims, value_dims = q->tables->dout.dims;
    if (DKEYS && to->partial)
        store_partial(to->partial, to->pitch, rows, dims, dkeys, to->scale);
    else if (DKEYS && to->dkeys)
        store_sums(to->dkeys, to->dkey_step, rows, DKV_DKEY, dims, dkeys, to->scale);
    if (DVALUES && to->partial)
        store_partial(to->partial + dims, to->pitch, rows, value_dims, dvalues, 1);
    else if (DVALUES && to->dvalues)
        store_sums(to->dvalues, to->dvalue_step, rows, DKV_DVALUE, value_dims, dvalues, 1);
}

/* Keys of the grid as rows. */
static void open_grid_keys(const long *numbers, long index, QUERIES *q)
{
    const long in_walk = numbers[GPU_BY_KEY + GPU_WALK_ITEMS], kv_heads = numbers[GPU_KV_HEADS];
    const long kv_head = index / in_walk % kv_heads, batch = index / in_walk / kv_heads;
    const int group = (int)(numbers[GPU_HEADS] / kv_heads);
    DKV_TABLES *tables = q->tables;
    ITEM item;
    open_item(numbers, GPU_BY_KEY, index % in_walk, &item);
    place_rows(numbers, &item.rows, {GPU_K, GPU_V, GPU_DK, GPU_DV}, batch, kv_head, &tables->rows);
    find_sight(numbers, &item, &tables->sight);
    if (ITEM_INDEX == 0) {
        tables->more = 0;
        tables->first_tile = 0;
    }
    open_hull(numbers, &item, {GPU_Q, GPU_DOUT, GPU_DELTA}, batch, kv_head * group, &tables->hull);
    q->spots = tables->hull.tiles * group * spots_of_tile(&tables->hull, BACKWARD_STEP);
}

/* Extra tokens as rows, which all queries see: one part of those. */
static void open_extra_keys(const long *numbers, long index, char *scratch, QUERIES *q)
{
    const long extra = numbers[GPU_EXTRA], runs = (extra + BACKWARD_ROWS - 1) / BACKWARD_ROWS;
    const long kv_heads = numbers[GPU_KV_HEADS], streams = kv_heads * numbers[GPU_BATCH];
    const long stream = index / runs % streams, split = index / runs / streams, splits = numbers[GPU_SPLITS];
    const long kv_head = stream % kv_heads, batch = stream / kv_heads, group = numbers[GPU_HEADS] / kv_heads;
    const int begin = (int)(index % runs) * BACKWARD_ROWS;
    DKV_TABLES *tables = q->tables;
    ITEM item;
    extra_box(begin, min((int)extra - begin, (int)BACKWARD_ROWS), &item.rows);
    see_all_queries(numbers, COLUMNS, &item);
    place_rows(numbers, &item.rows, {GPU_EXTRA_K, GPU_EXTRA_V, GPU_DEXTRA_K, GPU_DEXTRA_V}, batch, kv_head,
               &tables->rows);
    const long tiles = item.tiles * group, first = tiles * split / splits, end = tiles * (split + 1) / splits;
    if (ITEM_INDEX == 0) {
        tables->to.partial = partial_of(numbers, scratch, split, stream, begin);
        tables->more = 1;
        tables->first_tile = first;
    }
    open_hull(numbers, &item, {GPU_Q, GPU_DOUT, GPU_DELTA}, batch, kv_head * group, &tables->hull);
    q->spots = (int)(end - first) * spots_of_tile(&tables->hull, BACKWARD_STEP);
}

/* One group per item, as for dq, and per gradient if they are found apart. Those of extra tokens, which see the most,
 * come first. */
KERNEL GROUP_ITEMS(ITEMS) void mma_backward_dkv(const long *numbers, char *scratch, const IN *q, long q_at, const IN *k,
                                                long k_at, const IN *v, long v_at, const IN *extra_k, long extra_k_at,
                                                const IN *extra_v, long extra_v_at, const void *dout, long dout_at,
                                                IN *dk, long dk_at, IN *dv, long dv_at)
{
    DYNAMIC_SHARED(shared);
    const long n = numbers[GPU_HEAD_DIM], value_n = numbers[GPU_VALUE_DIM], parts = GRADIENTS_APART ? 2 : 1;
    const long streams = numbers[GPU_KV_HEADS] * numbers[GPU_BATCH];
    const long runs = (numbers[GPU_EXTRA] + BACKWARD_ROWS - 1) / BACKWARD_ROWS;
    const long extra_items = runs * streams * numbers[GPU_SPLITS], item = GROUP_INDEX / parts;
    DKV_TABLES *tables = (DKV_TABLES *)(shared + ALL_LINES);
    QUERIES queries = {tables, cu_address_of(shared), 0, SCALE * LOG2_E};
    if (ITEM_INDEX == 0) {
        tables->keys[0] = open_source(numbers, GPU_K, k + k_at, n);
        tables->values[0] = open_source(numbers, GPU_V, v + v_at, value_n);
        tables->keys[1] = open_source(numbers, GPU_EXTRA_K, extra_k + extra_k_at, n);
        tables->values[1] = open_source(numbers, GPU_EXTRA_V, extra_v + extra_v_at, value_n);
        tables->q = open_source(numbers, GPU_Q, q + q_at, n);
        tables->dout = open_dout(numbers, dout, dout_at);
        tables->all_terms = (const TERMS *)(scratch + numbers[GPU_SCRATCH_DELTA]);
        tables->to = KEY_GRADIENTS{dk_at >= 0 ? dk + dk_at : NULL,
                                   dv_at >= 0 ? dv + dv_at : NULL,
                                   STRIDE(GPU_DK, GPU_STRIDE_DIM),
                                   STRIDE(GPU_DV, GPU_STRIDE_DIM),
                                   NULL,
                                   n + value_n,
                                   SCALE};
    }
    if (item < extra_items)
        open_extra_keys(numbers, item, scratch, &queries);
    else
        open_grid_keys(numbers, item - extra_items, &queries);
    if (!GRADIENTS_APART)
        find_key_gradients<true, true>(&queries);
    else if (GROUP_INDEX % parts == 0)
        find_key_gradients<true, !GRADIENTS_APART>(&queries);
    else
        find_key_gradients<!GRADIENTS_APART, true>(&queries);
}

KERNEL GROUP_ITEMS(ITEMS) void mma_backward_extra_sum(const long *numbers, char *scratch, IN *dextra_k,
                                                      long dextra_k_at, IN *dextra_v, long dextra_v_at)
{
    const long count = extra_elements(numbers);
    for (long i = GROUP_INDEX * ITEMS + ITEM_INDEX; i < count; i += GROUP_COUNT * ITEMS)
        sum_extra(numbers, scratch, i, dextra_k, dextra_k_at, dextra_v, dextra_v_at);
}

#define BACKWARD_KERNELS(X) X(mma_backward_delta) X(mma_backward_dq) X(mma_backward_dkv) X(mma_backward_extra_sum)

#endif
