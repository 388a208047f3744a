/* dq on tensor cores. Rows are queries, columns the keys that they see: those of the grid, then extra tokens. */
#ifndef NF_CU_MMA_DQ_H
#define NF_CU_MMA_DQ_H

enum { DQ_Q, DQ_DOUT, DQ_TERMS, DQ_DQ, DQ_TENSORS };

/* In shared memory. Columns are keys of the grid, [0], or extra tokens, [1]. */
template <int ROWS> struct DQ_TABLES {
    SOURCE q, dout, keys[2], values[2];
    IN *dq;
    long dq_step;
    float scale;
    TERMS terms[ROWS];
    bool careful; /* sums of a first walk were not finite */
    ITEM item;
    PLACED<2> hull[2];
    SIGHT<ROWS> sight;
    LINES<ROWS, DQ_TENSORS> rows;
};

/* A walk over the keys of an item. */
template <int BLOCKS, int STEP> struct KEY_WALK {
    typedef STAGES<BLOCKS, STEP> AT;
    DQ_TABLES<AT::ROWS> *tables;
    cu_address lines;
    int grid_spots, spots; /* those of the grid come first */
    float factor;          /* of scores, in base 2 */
};

template <int BLOCKS, int STEP> static void copy_keys(const KEY_WALK<BLOCKS, STEP> *k, int number, const SPOT *spot)
{
    typedef STAGES<BLOCKS, STEP> AT;
    const int more = number >= k->grid_spots;
    const PLACED<2> *hull = &k->tables->hull[more];
    const cu_address to = AT::copied(k->lines, number);
    const uint *coordinates = hull->coordinates + spot->column;
    copy_lines(to, STEP, &k->tables->keys[more], coordinates, spot->limit, hull->offset[0] + spot->column,
               tile_place(hull, 0, spot));
    copy_lines(to + AT::COPIED_LINES, STEP, &k->tables->values[more], coordinates, spot->limit,
               hull->offset[1] + spot->column, tile_place(hull, 1, spot));
    cu_copy_async_commit();
}

/* From a spot to the next, which has the number given. */
template <int BLOCKS, int STEP> static void next_keys(const KEY_WALK<BLOCKS, STEP> *k, int number, SPOT *spot)
{
    if (number == k->grid_spots)
        seek_spot(&k->tables->hull[1], 0, spot);
    else
        next_spot(&k->tables->hull[number > k->grid_spots], STEP, spot);
}

/* Scores and gradients of weights become gradients of scores, in ds. */
template <int BLOCKS, int STEP>
static void gradient_by_row(const KEY_WALK<BLOCKS, STEP> *k, const HULL *hull, const SPOT *spot, VIEW view,
                            const MASK<BLOCKS> *mask, float (*s)[STEP / 8][4], float (*ds)[STEP / 8][4])
{
    const float factor = scaled_back(k->factor, k->tables->careful);
    UNROLLED(int b = 0; b < BLOCKS; b++)
    {
        const TERMS terms[2] = {k->tables->terms[lane_row<BLOCKS>(b, 0)], k->tables->terms[lane_row<BLOCKS>(b, 1)]};
        UNROLLED(int j = 0; j < STEP / 8; j++)
        {
            uint at[2];
            lane_coordinates(hull, spot, j, at);
            UNROLLED(int e = 0; e < 4; e++)
            {
                const float p = cu_exp2(s[b][j][e] * factor - terms[e / 2].lse);
                const bool seen = view == SEES_ALL || is_between(mask->low[b][e / 2], at[e % 2], mask->high[b][e / 2]);
                ds[b][j][e] = seen ? p * (ds[b][j][e] - terms[e / 2].delta) : 0;
            }
        }
    }
}

/* Adds to a warp's sums what the keys of a spot contribute. */
template <int BLOCKS, int STEP>
static void meet_keys(const KEY_WALK<BLOCKS, STEP> *k, int number, const SPOT *spot, VIEW view,
                      const MASK<BLOCKS> *mask, float (*sum)[DIMS / 8][4])
{
    typedef STAGES<BLOCKS, STEP> AT;
    const HULL *hull = &k->tables->hull[number >= k->grid_spots];
    const cu_address columns = AT::columns(k->lines, number), rows = AT::rows(k->lines);
    float s[BLOCKS][STEP / 8][4], ds[BLOCKS][STEP / 8][4];
    multiply<BLOCKS, STEP>(rows, columns, k->tables->q.dims, s);
    multiply<BLOCKS, STEP>(rows + AT::ROW_LINES, columns + AT::COLUMN_LINES, k->tables->dout.dims, ds);
    gradient_by_row(k, hull, spot, view, mask, s, ds);
    add_product<BLOCKS, STEP>(ds, hull, spot, mask, k->tables->careful && view == SEES_PART, columns, k->tables->q.dims,
                              sum);
}

/* Sums what all keys contribute. While a spot is met, the next is copied. One barrier does: when it opens, all threads'
 * copies of the spot have landed, and the spot before, whose place the next one takes, is done with. */
template <int BLOCKS, int STEP> static void walk_keys(const KEY_WALK<BLOCKS, STEP> *k, float (*sum)[DIMS / 8][4])
{
    typedef STAGES<BLOCKS, STEP> AT;
    const DQ_TABLES<AT::ROWS> *tables = k->tables;
    MASK<BLOCKS> mask;
    SPOT spot, next;
    clear<BLOCKS, DIMS>(sum);
    if (k->spots == 0)
        return;
    AT::fetch(k->lines, &tables->q, &tables->dout, &tables->rows, DQ_Q, DQ_DOUT, query_scale(tables->careful),
              tables->careful);
    seek_spot(&tables->hull[k->grid_spots == 0], 0, &spot);
    copy_keys(k, 0, &spot);
    for (int number = 0; number < k->spots; number++) {
        const int more = number >= k->grid_spots;
        AT::land(k->lines, number, &tables->keys[more], &tables->values[more], 1, tables->careful);
        BARRIER();
        /* Before the next spot is found, of which there is more to keep: registers are scarce. */
        const VIEW view = look(&tables->sight, &tables->hull[number >= k->grid_spots], &spot, STEP, &mask);
        next = spot;
        if (number + 1 < k->spots) {
            next_keys(k, number + 1, &next);
            copy_keys(k, number + 1, &next);
        }
        if (view != SEES_NOTHING)
            meet_keys(k, number, &spot, view, &mask, sum);
        spot = next;
    }
}

template <int BLOCKS, int STEP>
static void open_keys(const long *numbers, long index, const TERMS *terms, KEY_WALK<BLOCKS, STEP> *k)
{
    typedef STAGES<BLOCKS, STEP> AT;
    const long in_walk = numbers[GPU_BY_QUERY + GPU_WALK_ITEMS], heads = numbers[GPU_HEADS];
    const long stream = quotient(index, in_walk), batch = quotient(stream, heads), head = stream - batch * heads;
    const long kv_head = quotient(head * numbers[GPU_KV_HEADS], heads);
    DQ_TABLES<AT::ROWS> *tables = k->tables;
    open_shared_item(numbers, GPU_BY_QUERY, index - stream * in_walk, &tables->item);
    BARRIER();
    place_rows(numbers, &tables->item.rows, {GPU_Q, GPU_DOUT, GPU_DELTA, GPU_DQ}, batch, head, &tables->rows);
    for (int r = ITEM_INDEX; r < AT::ROWS; r += ITEMS) /* whose offsets this thread has found */
        tables->terms[r] = terms[tables->rows.offset[DQ_TERMS][r]];
    find_sight(numbers, &tables->item, &tables->sight);
    if (ITEM_INDEX == 0)
        count_tiles(&tables->item);
    open_hull(numbers, &tables->item, {GPU_K, GPU_V}, batch, kv_head, &tables->hull[0]);
    k->grid_spots = k->spots = tables->hull[0].tiles * spots_of_tile(&tables->hull[0], STEP);
    if (!numbers[GPU_EXTRA])
        return;
    if (ITEM_INDEX == 0) {
        extra_columns(numbers, &tables->item);
    }
    open_hull(numbers, &tables->item, {GPU_EXTRA_K, GPU_EXTRA_V}, batch, kv_head, &tables->hull[1]);
    k->spots += tables->hull[1].tiles * spots_of_tile(&tables->hull[1], STEP);
}

template <int BLOCKS, int STEP> static void find_query_gradients(const KEY_WALK<BLOCKS, STEP> *k)
{
    float sum[BLOCKS][DIMS / 8][4];
    for (;;) {
        walk_keys(k, sum);
        if (!cu_barrier_or(is_not_finite<BLOCKS>(sum) && !k->tables->careful))
            break;
        be_careful(&k->tables->careful);
    }
    store_sums<BLOCKS>(k->tables->dq, k->tables->dq_step, &k->tables->rows, DQ_DQ, k->tables->q.dims, sum,
                       k->tables->scale);
}

/* One group per item. */
#define DEFINE_DQ(NAME, BLOCKS, STEP)                                                                                  \
    KERNEL GROUP_ITEMS(ITEMS) void NAME(const long *numbers, char *scratch, const IN *q, long q_at, const IN *k,       \
                                        long k_at, const IN *v, long v_at, const IN *extra_k, long extra_k_at,         \
                                        const IN *extra_v, long extra_v_at, const void *dout, long dout_at, IN *dq,    \
                                        long dq_at)                                                                    \
    {                                                                                                                  \
        typedef STAGES<BLOCKS, STEP> AT;                                                                               \
        DYNAMIC_SHARED(lines);                                                                                         \
        const long n = numbers[GPU_HEAD_DIM], value_n = numbers[GPU_VALUE_DIM];                                        \
        LOCAL_VARIABLE(DQ_TABLES<AT::ROWS>, shared_tables);                                                            \
        DQ_TABLES<AT::ROWS> *tables = &shared_tables;                                                                  \
        KEY_WALK<BLOCKS, STEP> keys = {tables, cu_address_of(lines), 0, 0, SCALE * LOG2_E};                            \
        if (ITEM_INDEX == 0) {                                                                                         \
            tables->q = open_source(numbers, GPU_Q, q + q_at, n);                                                      \
            tables->dout = open_dout(numbers, dout, dout_at);                                                          \
            tables->keys[0] = open_source(numbers, GPU_K, k + k_at, n);                                                \
            tables->values[0] = open_source(numbers, GPU_V, v + v_at, value_n);                                        \
            tables->keys[1] = open_source(numbers, GPU_EXTRA_K, extra_k + extra_k_at, n);                              \
            tables->values[1] = open_source(numbers, GPU_EXTRA_V, extra_v + extra_v_at, value_n);                      \
            tables->dq = dq + dq_at;                                                                                   \
            tables->dq_step = STRIDE(GPU_DQ, GPU_STRIDE_DIM);                                                          \
            tables->scale = SCALE;                                                                                     \
            tables->careful = false;                                                                                   \
        }                                                                                                              \
        open_keys(numbers, GROUP_INDEX, (const TERMS *)(scratch + numbers[GPU_SCRATCH_DELTA]), &keys);                 \
        find_query_gradients(&keys);                                                                                   \
    }

DEFINE_DQ(mma_backward_dq_64, 1, BACKWARD_STEP)
#if IN_TYPE != 0 && DIMS <= MOST_DIMS_OF_BLOCKS /* pieces of two blocks of rows are too many for registers */
DEFINE_DQ(mma_backward_dq_128, 2, BACKWARD_STEP / 2)
#define DQ_KERNELS(X) X(mma_backward_dq_64) X(mma_backward_dq_128)
#else
#define DQ_KERNELS(X) X(mma_backward_dq_64)
#endif

#endif
