/* Scores, and their gradients, on tensor cores: products of the rows of an item and the keys that they see, written to
 * the slots of its queries. */
#ifndef NF_CU_UNFUSED_SCORES_H
#define NF_CU_UNFUSED_SCORES_H

typedef AREA<true> SCORES_AREA;

/* What a kernel is about, but for its tables. */
typedef struct PRODUCT {
    int rows, columns, extra_columns; /* tensors */
    float factor;
    float none; /* of slots that do not exist */
} PRODUCT;

/* Writes a tile that waits in shared memory. */
static void scatter_tile(const TABLES *t, int number, const SPOT *spot, const float *tile)
{
    _Pragma("unroll 4") for (int i = LANE; i < UNIT * STEP; i += LANES)
    {
        int row, column;
        pair_at(t->order, i, &row, &column);
        float *to = score_at(t, number, spot, row, column);
        if (to)
            *to = tile[row * PITCH + column];
    }
}

/* The scores of a step. Returns whether a sum is not finite. */
static bool meet_keys(TABLES *t, int number, const SPOT *spot, float factor)
{
    TILE tile;
    uint low, high;
    float zero = 0;
    const VIEW view = glance<1>(&t->sight, &t->hull, spot, STEP, &low, &high);
    if (view == SEES_NOTHING)
        return false;
    note_sight(t, low, high);
    multiply<1, STEP>(SCORES_AREA::at(WARP * UNIT * LINE_BYTES), SCORES_AREA::columns(number), t->rows_source.dims,
                      tile);
    EACH_EIGHT(j, STEP) zero += tile[0][j][0] * 0 + tile[0][j][1] * 0 + tile[0][j][2] * 0 + tile[0][j][3] * 0;
    put_tile(SCORES_AREA::scores(0), tile, factor);
    scatter_tile(t, number, spot, SCORES_AREA::scores(0));
    return zero != 0;
}

/* While a step is met, the next is copied: when the barrier opens, all threads' copies of the one have landed, and the
 * step before, whose place the next one takes, is done with. Returns whether a sum is not finite. */
static bool walk_keys(const long *numbers, TABLES *t, bool extra, float factor)
{
    bool not_finite = false;
    SPOT spot, last = {};
    seek_spot(&t->hull, 0, &spot);
    ROLLED for (int number = 0; number <= t->steps; number++)
    {
        if (number) {
            place_column_scores<GPU_BY_QUERY>(numbers, t, extra, number - 1, &last);
            SCORES_AREA::land(t, extra, number - 1, 1);
        }
        BARRIER();
        if (number < t->steps)
            SCORES_AREA::copy(t, extra, number, &spot);
        cu_copy_async_commit();
        if (number)
            not_finite |= meet_keys(t, number - 1, &last, factor);
        last = spot;
        next_spot(&t->hull, STEP, &spot);
    }
    return not_finite;
}

/* Whether the index-th slot of the grid exists, of a row. */
static bool slot_exists(const long *numbers, const TABLES *t, const int *position, int row, long index)
{
    bool exists = true;
    for (int a = RANK - 1; a >= 0; a--) {
        const long query = t->item.rows.origin[a] + (long)t->item.rows.step[a] * position[a];
        const long window = numbers[GPU_WINDOW + a], rest = quotient(index, window);
        const int key =
            INTS[numbers[GPU_SIGHT + a] + query * GPU_SIGHT_WORDS + GPU_SIGHT_FIRST] + (int)(index - rest * window);
        exists = exists && t->sight.begin[a][row] <= key && key < t->sight.end[a][row];
        index = rest;
    }
    return exists;
}

/* Slots of an item's rows that do not exist are the caller's, too. */
static void fill_absent(const long *numbers, const TABLES *t, float none)
{
    const long slots = numbers[GPU_SLOTS] - numbers[GPU_EXTRA], step = STRIDE(t->scores_tensor, GPU_STRIDE_DIM);
    const int count = volume(&t->item.rows);
    for (int row = 0; row < count; row++) {
        int position[RANK];
        bool whole = true;
        for (int a = 0; a < RANK; a++)
            whole = whole && t->sight.end[a][row] - t->sight.begin[a][row] == numbers[GPU_WINDOW + a];
        if (whole)
            continue;
        position_at(&t->item.rows, row, position);
        float *to = t->scores + base_of(numbers, t->scores_tensor, t->batch, t->head) +
                    place_of(numbers, t->scores_tensor, &t->item.rows, position);
        for (long i = ITEM_INDEX; i < slots; i += ITEMS)
            if (!slot_exists(numbers, t, position, row, i))
                to[i * step] = none;
    }
}

/* f32 is split once more where a sum is not finite: a finite number may round to infinity. */
static void find_products(const long *numbers, TABLES *t, const PRODUCT *product)
{
    bool again;
    do {
        const float factor = t->scaled ? scaled_back(product->factor, t->careful) : product->factor;
        bool not_finite = false;
        open_rows<GPU_BY_QUERY>(numbers, t, product->rows, GROUP_INDEX);
        if (t->scores_tensor != GPU_OWN && !t->careful)
            fill_absent(numbers, t, product->none);
        fetch_rows(SCORES_AREA::at(0), SCORES_AREA::columns(0), &t->rows_source, &t->rows, 0,
                   t->scaled ? query_scale(t->careful) : 1, t->careful);
        ROLLED for (int extra = 0; extra <= (numbers[GPU_EXTRA] > 0); extra++)
        {
            open_keys(numbers, t, extra ? product->extra_columns : product->columns, extra);
            not_finite |= walk_keys(numbers, t, extra, factor);
        }
        cu_copy_async_wait<0>(); /* rows that see nothing are copied, too */
        again = SPLIT && cu_barrier_or(not_finite && !t->careful);
        if (again)
            be_careful(&t->careful);
    } while (again);
}

/* scores = scale q k^T. One group per item. */
KERNEL __launch_bounds__(ITEMS, 2) void unfused_mma_qk(const long *numbers, char *scratch, const IN *q, long q_at,
                                                       const IN *k, long k_at, const IN *extra_k, long extra_k_at,
                                                       float *scores, long scores_at)
{
    LOCAL_VARIABLE(TABLES, tables);
    const PRODUCT product = {GPU_Q, GPU_K, GPU_EXTRA_K, SCALE, -INFINITY};
    if (ITEM_INDEX == 0) {
        open_scores<GPU_BY_QUERY>(numbers, scratch, GPU_SCRATCH_SCORES, scores, scores_at, GPU_SCORES, &tables);
        tables.scaled = true;
        tables.rows_source = open_lines(numbers, GPU_Q, q, q_at, GPU_HEAD_DIM);
        tables.columns_source[0] = open_lines(numbers, GPU_K, k, k_at, GPU_HEAD_DIM);
        tables.columns_source[1] = open_lines(numbers, GPU_EXTRA_K, extra_k, extra_k_at, GPU_HEAD_DIM);
    }
    BARRIER();
    find_products(numbers, &tables, &product);
}

/* dscores = dout v^T */
KERNEL __launch_bounds__(ITEMS, 2) void unfused_mma_dout_v(const long *numbers, char *scratch, const void *dout,
                                                           long dout_at, const IN *v, long v_at, const IN *extra_v,
                                                           long extra_v_at, float *dscores, long dscores_at)
{
    LOCAL_VARIABLE(TABLES, tables);
    const PRODUCT product = {GPU_DOUT, GPU_V, GPU_EXTRA_V, 1, 0};
    if (ITEM_INDEX == 0) {
        open_scores<GPU_BY_QUERY>(numbers, scratch, GPU_SCRATCH_DSCORES, dscores, dscores_at, GPU_DSCORES, &tables);
        tables.rows_source = open_dout(numbers, dout, dout_at);
        tables.columns_source[0] = open_lines(numbers, GPU_V, v, v_at, GPU_VALUE_DIM);
        tables.columns_source[1] = open_lines(numbers, GPU_EXTRA_V, extra_v, extra_v_at, GPU_VALUE_DIM);
    }
    BARRIER();
    find_products(numbers, &tables, &product);
}

#define SCORES_KERNELS(X) X(unfused_mma_qk) X(unfused_mma_dout_v)

#endif
