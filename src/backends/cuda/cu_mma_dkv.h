/* dk and dv on tensor cores. Rows are keys, or extra tokens; columns the queries that see them, of all heads that share
 * the keys. */
#ifndef NF_CU_MMA_DKV_H
#define NF_CU_MMA_DKV_H

enum {
    DKV_BLOCKS = 1,
    DKV_STEP = BACKWARD_STEP,
    GRADIENTS_APART = DIMS > 128 /* registers hold one of dk and dv: two groups for the same rows */
};

typedef STAGES<DKV_BLOCKS, DKV_STEP> DKV_AT;
enum { DKV_ROWS = DKV_AT::ROWS };

typedef float SUMS[DKV_BLOCKS][DIMS / 8][4];
typedef float SCORES[DKV_BLOCKS][DKV_STEP / 8][4];

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

/* In shared memory. Rows are keys of the grid, [0], or extra tokens, [1]. */
typedef struct DKV_TABLES {
    SOURCE keys[2], values[2], q, dout;
    KEY_GRADIENTS to;
    const TERMS *all_terms;
    bool careful; /* sums of a first walk were not finite */
    ITEM item;
    int more;        /* which rows they are */
    long first_tile; /* of the hull, of all heads' */
    PLACED<DKV_COLUMN_TENSORS> hull;
    SIGHT<DKV_ROWS> sight;
    LINES<DKV_ROWS, DKV_TENSORS> rows;
} DKV_TABLES;

/* A walk over the queries of an item, of all heads that share its rows. */
typedef struct QUERY_WALK {
    DKV_TABLES *tables;
    cu_address lines;
    const TERMS *terms; /* after the lines: of the columns of each stage */
    int spots;
    float factor; /* of scores, in base 2 */
} QUERY_WALK;

static void copy_queries(const QUERY_WALK *q, int number, const SPOT *spot)
{
    const PLACED<DKV_COLUMN_TENSORS> *hull = &q->tables->hull;
    const cu_address to = DKV_AT::copied(q->lines, number);
    const uint *coordinates = hull->coordinates + spot->column;
    copy_lines(to, DKV_STEP, &q->tables->q, coordinates, spot->limit, hull->offset[DKV_Q] + spot->column,
               tile_place(hull, DKV_Q, spot));
    copy_lines(to + DKV_AT::COPIED_LINES, DKV_STEP, &q->tables->dout, coordinates, spot->limit,
               hull->offset[DKV_DOUT] + spot->column, tile_place(hull, DKV_DOUT, spot));
    if (ITEM_INDEX < DKV_STEP && is_between(0, coordinates[ITEM_INDEX], spot->limit))
        cu_copy_async_8(cu_address_of(q->terms + number % 2 * DKV_STEP + ITEM_INDEX),
                        q->tables->all_terms + tile_place(hull, DKV_TERMS, spot) +
                            hull->offset[DKV_TERMS][spot->column + ITEM_INDEX]);
    cu_copy_async_commit();
}

/* Scores and gradients of weights become weights and gradients of scores. */
static void gradient_by_column(const QUERY_WALK *q, int number, const SPOT *spot, VIEW view,
                               const MASK<DKV_BLOCKS> *mask, SCORES s, SCORES ds)
{
    const float factor = scaled_back(q->factor, q->tables->careful);
    const int lane = cu_anew(LANE);
    UNROLLED(int j = 0; j < DKV_STEP / 8; j++)
    {
        uint at[2];
        const TERMS *terms = q->terms + number % 2 * DKV_STEP + 8 * j + lane % 4 * 2;
        lane_coordinates(&q->tables->hull, spot, j, at);
        UNROLLED(int b = 0; b < DKV_BLOCKS; b++)
        {
            UNROLLED(int e = 0; e < 4; e++)
            {
                const float p = cu_exp2(s[b][j][e] * factor - terms[e % 2].lse);
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
static void meet_queries(const QUERY_WALK *q, int number, const SPOT *spot, VIEW view, const MASK<DKV_BLOCKS> *mask,
                         SUMS dkeys, SUMS dvalues)
{
    const HULL *hull = &q->tables->hull;
    const cu_address columns = DKV_AT::columns(q->lines, number), rows = DKV_AT::rows(q->lines);
    const bool careful = q->tables->careful && view == SEES_PART;
    SCORES s, ds = {};
    multiply<DKV_BLOCKS, DKV_STEP>(rows, columns, q->tables->q.dims, s);
    if (DKEYS)
        multiply<DKV_BLOCKS, DKV_STEP>(rows + DKV_AT::ROW_LINES, columns + DKV_AT::COLUMN_LINES, q->tables->dout.dims,
                                       ds);
    gradient_by_column(q, number, spot, view, mask, s, ds);
    if (DVALUES)
        add_product<DKV_BLOCKS, DKV_STEP>(s, hull, spot, mask, careful, columns + DKV_AT::COLUMN_LINES,
                                          q->tables->dout.dims, dvalues);
    if (DKEYS)
        add_product<DKV_BLOCKS, DKV_STEP>(ds, hull, spot, mask, careful, columns, q->tables->q.dims, dkeys);
}

/* Sums what all queries contribute, in the manner of walk_keys. */
template <bool DKEYS, bool DVALUES> static void walk_queries(const QUERY_WALK *q, SUMS dkeys, SUMS dvalues)
{
    const DKV_TABLES *tables = q->tables;
    MASK<DKV_BLOCKS> mask;
    SPOT spot, next;
    if (DKEYS)
        clear<DKV_BLOCKS, DIMS>(dkeys);
    if (DVALUES)
        clear<DKV_BLOCKS, DIMS>(dvalues);
    if (q->spots == 0)
        return;
    DKV_AT::fetch(q->lines, &tables->keys[tables->more], &tables->values[tables->more], &tables->rows, DKV_KEY,
                  DKV_VALUE, 1, tables->careful);
    seek_spot(&tables->hull, tables->first_tile, &spot);
    copy_queries(q, 0, &spot);
    for (int number = 0; number < q->spots; number++) {
        DKV_AT::land(q->lines, number, &tables->q, &tables->dout, query_scale(tables->careful), tables->careful);
        BARRIER();
        const VIEW view = look(&tables->sight, &tables->hull, &spot, DKV_STEP, &mask);
        next = spot;
        if (number + 1 < q->spots) {
            next_spot(&tables->hull, DKV_STEP, &next);
            copy_queries(q, number + 1, &next);
        }
        if (view != SEES_NOTHING)
            meet_queries<DKEYS, DVALUES>(q, number, &spot, view, &mask, dkeys, dvalues);
        spot = next;
    }
}

template <bool DKEYS, bool DVALUES> static void find_key_gradients(const QUERY_WALK *q)
{
    const LINES<DKV_ROWS, DKV_TENSORS> *rows = &q->tables->rows;
    const KEY_GRADIENTS *to = &q->tables->to;
    SUMS dkeys, dvalues;
    for (;;) {
        walk_queries<DKEYS, DVALUES>(q, dkeys, dvalues);
        const bool not_finite =
            (DKEYS && is_not_finite<DKV_BLOCKS>(dkeys)) || (DVALUES && is_not_finite<DKV_BLOCKS>(dvalues));
        if (!cu_barrier_or(not_finite && !q->tables->careful))
            break;
        be_careful(&q->tables->careful);
    }
    const int dims = q->tables->q.dims, value_dims = q->tables->dout.dims;
    const float scale = scaled_back(to->scale, q->tables->careful);
    if (DKEYS && to->partial)
        store_partial<DKV_BLOCKS>(to->partial, to->pitch, rows, dims, dkeys, scale);
    else if (DKEYS && to->dkeys)
        store_sums<DKV_BLOCKS>(to->dkeys, to->dkey_step, rows, DKV_DKEY, dims, dkeys, scale);
    if (DVALUES && to->partial)
        store_partial<DKV_BLOCKS>(to->partial + dims, to->pitch, rows, value_dims, dvalues, 1);
    else if (DVALUES && to->dvalues)
        store_sums<DKV_BLOCKS>(to->dvalues, to->dvalue_step, rows, DKV_DVALUE, value_dims, dvalues, 1);
}

/* Keys of the grid as rows. */
static void open_grid_keys(const long *numbers, long index, QUERY_WALK *q)
{
    const long in_walk = numbers[GPU_BY_KEY + GPU_WALK_ITEMS], kv_heads = numbers[GPU_KV_HEADS];
    const long stream = quotient(index, in_walk), batch = quotient(stream, kv_heads);
    const long kv_head = stream - batch * kv_heads, group = quotient(numbers[GPU_HEADS], kv_heads);
    DKV_TABLES *tables = q->tables;
    open_shared_item(numbers, GPU_BY_KEY, index - stream * in_walk, &tables->item);
    BARRIER();
    place_rows(numbers, &tables->item.rows, {GPU_K, GPU_V, GPU_DK, GPU_DV}, batch, kv_head, &tables->rows);
    find_sight(numbers, &tables->item, &tables->sight);
    if (ITEM_INDEX == 0) {
        count_tiles(&tables->item);
        tables->more = 0;
        tables->first_tile = 0;
    }
    open_hull(numbers, &tables->item, {GPU_Q, GPU_DOUT, GPU_DELTA}, batch, kv_head * group, &tables->hull);
    q->spots = tables->hull.tiles * (int)group * spots_of_tile(&tables->hull, DKV_STEP);
}

/* Extra tokens as rows, which all queries see: one part of those. */
static void open_extra_keys(const long *numbers, long index, char *scratch, QUERY_WALK *q)
{
    const long extra = numbers[GPU_EXTRA], runs = (extra + DKV_ROWS - 1) / DKV_ROWS;
    const long kv_heads = numbers[GPU_KV_HEADS], streams = kv_heads * numbers[GPU_BATCH];
    const long stream = index / runs % streams, split = index / runs / streams, splits = numbers[GPU_SPLITS];
    const long kv_head = stream % kv_heads, batch = stream / kv_heads, group = numbers[GPU_HEADS] / kv_heads;
    const int begin = (int)(index % runs) * DKV_ROWS;
    DKV_TABLES *tables = q->tables;
    if (ITEM_INDEX == 0) {
        extra_box(begin, min((int)extra - begin, (int)DKV_ROWS), &tables->item.rows);
        see_all_queries(numbers, COLUMNS, &tables->item);
        tables->to.partial = partial_of(numbers, scratch, split, stream, begin);
        tables->more = 1;
        tables->first_tile = tables->item.tiles * group * split / splits;
    }
    BARRIER();
    place_rows(numbers, &tables->item.rows, {GPU_EXTRA_K, GPU_EXTRA_V, GPU_DEXTRA_K, GPU_DEXTRA_V}, batch, kv_head,
               &tables->rows);
    open_hull(numbers, &tables->item, {GPU_Q, GPU_DOUT, GPU_DELTA}, batch, kv_head * group, &tables->hull);
    const long end = tables->hull.tiles * group * (split + 1) / splits;
    q->spots = (int)(end - tables->first_tile) * spots_of_tile(&tables->hull, DKV_STEP);
}

/* One group per item, as for dq, and per gradient if they are found apart. Those of extra tokens, which see the most,
 * come first. */
KERNEL GROUP_ITEMS(ITEMS) void mma_backward_dkv(const long *numbers, char *scratch, const IN *q, long q_at, const IN *k,
                                                long k_at, const IN *v, long v_at, const IN *extra_k, long extra_k_at,
                                                const IN *extra_v, long extra_v_at, const void *dout, long dout_at,
                                                IN *dk, long dk_at, IN *dv, long dv_at)
{
    DYNAMIC_SHARED(lines);
    const long n = numbers[GPU_HEAD_DIM], value_n = numbers[GPU_VALUE_DIM], parts = GRADIENTS_APART ? 2 : 1;
    const long streams = numbers[GPU_KV_HEADS] * numbers[GPU_BATCH];
    const long runs = (numbers[GPU_EXTRA] + DKV_ROWS - 1) / DKV_ROWS;
    const long extra_items = runs * streams * numbers[GPU_SPLITS], item = GROUP_INDEX / parts;
    LOCAL_VARIABLE(DKV_TABLES, shared_tables);
    DKV_TABLES *tables = &shared_tables;
    QUERY_WALK queries = {tables, cu_address_of(lines), (const TERMS *)(lines + DKV_AT::ALL_LINES), 0, SCALE * LOG2_E};
    if (ITEM_INDEX == 0) {
        tables->keys[0] = open_source(numbers, GPU_K, k + k_at, n);
        tables->values[0] = open_source(numbers, GPU_V, v + v_at, value_n);
        tables->keys[1] = open_source(numbers, GPU_EXTRA_K, extra_k + extra_k_at, n);
        tables->values[1] = open_source(numbers, GPU_EXTRA_V, extra_v + extra_v_at, value_n);
        tables->q = open_source(numbers, GPU_Q, q + q_at, n);
        tables->dout = open_dout(numbers, dout, dout_at);
        tables->careful = false;
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

#define DKV_KERNELS(X) X(mma_backward_dkv)

#endif
