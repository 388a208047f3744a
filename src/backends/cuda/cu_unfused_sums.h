/* Sums weighted by scores on tensor cores: weights of the rows of an item and of its columns are read from the slots of
 * queries, and multiplied by the columns. Rows are queries, which sum over the keys that they see, or keys, or extra
 * tokens, which sum over the queries that see them, of all heads that share them. */
#ifndef NF_CU_UNFUSED_SUMS_H
#define NF_CU_UNFUSED_SUMS_H

typedef AREA<false> SUMS_AREA;

/* Begins to copy the weights of a warp to shared memory, zeros where a row does not see a column. */
static void gather_tile(const TABLES *t, int number, const SPOT *spot, float *tile)
{
    _Pragma("unroll 4") for (int i = LANE; i < UNIT * STEP; i += LANES)
    {
        int row, column;
        pair_at(t->order, i, &row, &column);
        const float *from = score_at(t, number, spot, row, column);
        cu_copy_async_4(cu_address_of(tile + row * PITCH + column), from ? from : t->scores, from != NULL);
    }
}

/* Begins to copy the columns of a step and their weights. */
static VIEW begin_step(TABLES *t, bool extra, int number, const SPOT *spot, uint *low, uint *high)
{
    const VIEW view = glance<1>(&t->sight, &t->hull, spot, STEP, low, high);
    SUMS_AREA::copy(t, extra, number, spot);
    if (view != SEES_NOTHING) {
        note_sight(t, *low, *high);
        gather_tile(t, number, spot, SUMS_AREA::scores(number % STEPS_AT_HAND));
    }
    cu_copy_async_commit();
    return view;
}

/* Adds the columns of a step, times their weights, to a warp's sums. */
static void add_step(const TABLES *t, bool extra, int number, const SPOT *spot, VIEW view, uint low, uint high,
                     SUMS sum)
{
    TILE tile;
    WEIGHTS<STEP> weights[1];
    take_tile(SUMS_AREA::scores(number % STEPS_AT_HAND), tile);
    round_weights<1, STEP>(tile, weights);
    accumulate<1, STEP>(weights, SUMS_AREA::columns(number), t->columns_source[extra].dims, sum);
    if (t->careful)
        spread_nan<1, STEP>(&t->hull, spot, view, low, high, t->not_finite, sum);
}

/* As for scores, but that the places of a step's weights have to be there before it is begun. */
template <int WALK> static void walk_columns(const long *numbers, TABLES *t, bool extra, SUMS sum)
{
    const float scale = t->scaled ? query_scale(t->careful) : 1;
    VIEW view = SEES_NOTHING, last_view = SEES_NOTHING;
    uint low = 0, high = 0, last_low = 0, last_high = 0;
    SPOT spot, last = {};
    seek_spot(&t->hull, t->first_tile, &spot);
    ROLLED for (int number = 0; number <= t->steps; number++)
    {
        if (number < t->steps)
            place_column_scores<WALK>(numbers, t, extra, number, &spot);
        if (number)
            SUMS_AREA::land(t, extra, number - 1, scale);
        BARRIER();
        if (number < t->steps)
            view = begin_step(t, extra, number, &spot, &low, &high);
        if (t->careful && number) {
            clean_lines<PIECES * STEP>(SUMS_AREA::columns(number - 1), t->not_finite, ITEM_INDEX, ITEMS);
            BARRIER();
        }
        if (last_view != SEES_NOTHING)
            add_step(t, extra, number - 1, &last, last_view, last_low, last_high, sum);
        last = spot;
        last_view = view;
        last_low = low;
        last_high = high;
        next_spot(&t->hull, STEP, &spot);
    }
}

/* ---- Rows are queries -------------------------------------------------------------------------------------------- */

/* Of an item whose results go to `rows`. */
static void sum_keys(const long *numbers, TABLES *t, int rows, int columns, int extra_columns, SUMS sum)
{
    bool again;
    do {
        clear<1, DIMS>(sum);
        open_rows<GPU_BY_QUERY>(numbers, t, rows, GROUP_INDEX);
        ROLLED for (int extra = 0; extra <= (numbers[GPU_EXTRA] > 0); extra++)
        {
            open_keys(numbers, t, extra ? extra_columns : columns, extra);
            walk_columns<GPU_BY_QUERY>(numbers, t, extra, sum);
        }
        again = cu_barrier_or(is_not_finite<1>(sum) && !t->careful);
        if (again)
            be_careful(&t->careful);
    } while (again);
}

/* out = scores v. One group per item. */
KERNEL __launch_bounds__(ITEMS, 2) void unfused_mma_av(const long *numbers, char *scratch, float *scores,
                                                       long scores_at, const IN *v, long v_at, const IN *extra_v,
                                                       long extra_v_at, void *out, long out_at)
{
    LOCAL_VARIABLE(TABLES, tables);
    const int dims = (int)numbers[GPU_VALUE_DIM];
    const long step = STRIDE(GPU_OUT, GPU_STRIDE_DIM);
    SUMS sum;
    if (ITEM_INDEX == 0) {
        open_scores<GPU_BY_QUERY>(numbers, scratch, GPU_SCRATCH_SCORES, scores, scores_at, GPU_SCORES, &tables);
        tables.columns_source[0] = open_lines(numbers, GPU_V, v, v_at, GPU_VALUE_DIM);
        tables.columns_source[1] = open_lines(numbers, GPU_EXTRA_V, extra_v, extra_v_at, GPU_VALUE_DIM);
    }
    sum_keys(numbers, &tables, GPU_OUT, GPU_V, GPU_EXTRA_V, sum);
    if (numbers[GPU_OUT_TYPE] == 0)
        store_sums<1>((float *)out + out_at, step, &tables.rows, 0, dims, sum, 1);
    else
        store_sums<1>((IN *)out + out_at, step, &tables.rows, 0, dims, sum, 1);
}

/* dq = scale dscores k */
KERNEL __launch_bounds__(ITEMS, 2) void unfused_mma_dq(const long *numbers, char *scratch, float *dscores,
                                                       long dscores_at, const IN *k, long k_at, const IN *extra_k,
                                                       long extra_k_at, IN *dq, long dq_at)
{
    LOCAL_VARIABLE(TABLES, tables);
    SUMS sum;
    if (ITEM_INDEX == 0) {
        open_scores<GPU_BY_QUERY>(numbers, scratch, GPU_SCRATCH_DSCORES, dscores, dscores_at, GPU_DSCORES, &tables);
        tables.columns_source[0] = open_lines(numbers, GPU_K, k, k_at, GPU_HEAD_DIM);
        tables.columns_source[1] = open_lines(numbers, GPU_EXTRA_K, extra_k, extra_k_at, GPU_HEAD_DIM);
    }
    sum_keys(numbers, &tables, GPU_DQ, GPU_K, GPU_EXTRA_K, sum);
    store_sums<1>(dq + dq_at, STRIDE(GPU_DQ, GPU_STRIDE_DIM), &tables.rows, 0, (int)numbers[GPU_HEAD_DIM], sum, SCALE);
}

/* ---- Rows are keys, or extra tokens ------------------------------------------------------------------------------ */

/* The queries of all heads that share the rows, or so many tiles of them, in a tensor. */
static void open_queries(const long *numbers, TABLES *t, int tensor, bool extra)
{
    place_row_scores<GPU_BY_KEY>(numbers, t, extra);
    open_hull(numbers, &t->item, {tensor}, t->batch, t->column_head, &t->hull);
}

/* Of one item of keys, whose gradients go to `rows`. */
static void sum_queries(const long *numbers, TABLES *t, int rows, int columns, SUMS sum)
{
    bool again;
    do {
        clear<1, DIMS>(sum);
        open_rows<GPU_BY_KEY>(numbers, t, rows, GROUP_INDEX);
        if (ITEM_INDEX == 0)
            count_tiles(&t->item);
        open_queries(numbers, t, columns, false);
        if (ITEM_INDEX == 0)
            t->steps = t->hull.tiles * (int)quotient(numbers[GPU_HEADS], numbers[GPU_KV_HEADS]) *
                       spots_of_tile(&t->hull, STEP);
        BARRIER();
        walk_columns<GPU_BY_KEY>(numbers, t, false, sum);
        again = cu_barrier_or(is_not_finite<1>(sum) && !t->careful);
        if (again)
            be_careful(&t->careful);
    } while (again);
}

/* Rows are a run of extra tokens, which all queries see: one part of those. */
static void open_extra_rows(const long *numbers, char *scratch, TABLES *t, int columns)
{
    const long extra = numbers[GPU_EXTRA], runs = (extra + ROWS - 1) / ROWS;
    const long kv_heads = numbers[GPU_KV_HEADS], streams = kv_heads * numbers[GPU_BATCH];
    const long stream = GROUP_INDEX / runs % streams, split = GROUP_INDEX / runs / streams;
    const long splits = numbers[GPU_SPLITS], group = numbers[GPU_HEADS] / kv_heads;
    const int begin = (int)(GROUP_INDEX % runs) * ROWS;
    if (ITEM_INDEX == 0) {
        extra_box(begin, min((int)extra - begin, (int)ROWS), &t->item.rows);
        see_all_queries(numbers, COLUMNS, &t->item);
        t->batch = stream / kv_heads;
        t->head = stream % kv_heads;
        t->column_head = t->head * group;
        t->first_tile = t->item.tiles * group * split / splits;
        t->partial = partial_of(numbers, scratch, split, stream, begin);
    }
    BARRIER();
    for (int r = ITEM_INDEX; r < ROWS; r += ITEMS)
        t->rows.coordinates[r] = r < t->item.rows.count[0] ? (uint)ROW_LIMIT : (uint)ABSENT_COLUMN;
    open_queries(numbers, t, columns, true);
    if (ITEM_INDEX == 0)
        t->steps = (int)(t->hull.tiles * group * (split + 1) / splits - t->first_tile) * spots_of_tile(&t->hull, STEP);
    BARRIER();
}

/* Partial sums of the gradients of a run, those of one tensor. */
static void sum_parts(const long *numbers, char *scratch, TABLES *t, int columns, int dims, int first, float factor)
{
    SUMS sum;
    bool again;
    do {
        clear<1, DIMS>(sum);
        open_extra_rows(numbers, scratch, t, columns);
        walk_columns<GPU_BY_KEY>(numbers, t, true, sum);
        again = cu_barrier_or(is_not_finite<1>(sum) && !t->careful);
        if (again)
            be_careful(&t->careful);
    } while (again);
    store_partial<1>(t->partial + first, numbers[GPU_HEAD_DIM] + numbers[GPU_VALUE_DIM], &t->rows, dims, sum,
                     t->scaled ? scaled_back(factor, t->careful) : factor);
}

/* What dk and the gradient of extra keys read; dv and that of extra values. Columns are queries in either case. By one
 * thread. */
static void open_for_keys(const long *numbers, char *scratch, float *dscores, long dscores_at, const IN *q, long q_at,
                          TABLES *t)
{
    open_scores<GPU_BY_KEY>(numbers, scratch, GPU_SCRATCH_DSCORES, dscores, dscores_at, GPU_DSCORES, t);
    t->scaled = true;
    t->columns_source[0] = t->columns_source[1] = open_lines(numbers, GPU_Q, q, q_at, GPU_HEAD_DIM);
}

static void open_for_values(const long *numbers, char *scratch, float *scores, long scores_at, const void *dout,
                            long dout_at, TABLES *t)
{
    open_scores<GPU_BY_KEY>(numbers, scratch, GPU_SCRATCH_SCORES, scores, scores_at, GPU_SCORES, t);
    t->columns_source[0] = t->columns_source[1] = open_dout(numbers, dout, dout_at);
}

/* dk = scale dscores^T q. One group per item. */
KERNEL __launch_bounds__(ITEMS, 2) void unfused_mma_dk(const long *numbers, char *scratch, float *dscores,
                                                       long dscores_at, const IN *q, long q_at, IN *dk, long dk_at)
{
    LOCAL_VARIABLE(TABLES, tables);
    SUMS sum;
    if (ITEM_INDEX == 0)
        open_for_keys(numbers, scratch, dscores, dscores_at, q, q_at, &tables);
    sum_queries(numbers, &tables, GPU_DK, GPU_Q, sum);
    store_sums<1>(dk + dk_at, STRIDE(GPU_DK, GPU_STRIDE_DIM), &tables.rows, 0, (int)numbers[GPU_HEAD_DIM], sum,
                  scaled_back(SCALE, tables.careful));
}

/* dv = scores^T dout */
KERNEL __launch_bounds__(ITEMS, 2) void unfused_mma_dv(const long *numbers, char *scratch, float *scores,
                                                       long scores_at, const void *dout, long dout_at, IN *dv,
                                                       long dv_at)
{
    LOCAL_VARIABLE(TABLES, tables);
    SUMS sum;
    if (ITEM_INDEX == 0)
        open_for_values(numbers, scratch, scores, scores_at, dout, dout_at, &tables);
    sum_queries(numbers, &tables, GPU_DV, GPU_DOUT, sum);
    store_sums<1>(dv + dv_at, STRIDE(GPU_DV, GPU_STRIDE_DIM), &tables.rows, 0, (int)numbers[GPU_VALUE_DIM], sum, 1);
}

/* One group per run of extra tokens and part of the queries. */
KERNEL __launch_bounds__(ITEMS, 2) void unfused_mma_extra_dk(const long *numbers, char *scratch, float *dscores,
                                                             long dscores_at, const IN *q, long q_at)
{
    LOCAL_VARIABLE(TABLES, tables);
    if (ITEM_INDEX == 0)
        open_for_keys(numbers, scratch, dscores, dscores_at, q, q_at, &tables);
    sum_parts(numbers, scratch, &tables, GPU_Q, (int)numbers[GPU_HEAD_DIM], 0, SCALE);
}

KERNEL __launch_bounds__(ITEMS, 2) void unfused_mma_extra_dv(const long *numbers, char *scratch, float *scores,
                                                             long scores_at, const void *dout, long dout_at)
{
    LOCAL_VARIABLE(TABLES, tables);
    if (ITEM_INDEX == 0)
        open_for_values(numbers, scratch, scores, scores_at, dout, dout_at, &tables);
    sum_parts(numbers, scratch, &tables, GPU_DOUT, (int)numbers[GPU_VALUE_DIM], (int)numbers[GPU_HEAD_DIM], 1);
}

#define SUMS_KERNELS(X)                                                                                                \
    X(unfused_mma_av)                                                                                                  \
    X(unfused_mma_dq) X(unfused_mma_dk) X(unfused_mma_dv) X(unfused_mma_extra_dk) X(unfused_mma_extra_dv)

#endif
