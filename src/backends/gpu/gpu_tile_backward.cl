/* Backward of the shape for GPUs. Rows are queries for dq, keys for dk and dv, extra tokens for theirs. */

/* Scores and gradients of weights become weights and gradients of scores. */
static void gradient(LOCAL const TILE *m, const MEETING *meeting, bool by_row, REAL factor, REAL (*s)[COLUMNS_EACH],
                     REAL (*ds)[COLUMNS_EACH])
{
    EACH_ROW(i)
    {
        EACH_COLUMN(j)
        {
            const int query = by_row ? MY_ROW(i) : MY_COLUMN(j);
            const bool seen = meeting->open || sees(m, meeting, MY_ROW(i), MY_COLUMN(j));
            const REAL p = exp2(s[i][j] * factor - m->lse[query]), d = p * (ds[i][j] - m->delta[query]);
            s[i][j] = seen ? p : 0;
            ds[i][j] = seen ? d : 0;
        }
    }
}

KERNEL GROUP_ITEMS(ITEMS) void backward_delta(GLOBAL const long *numbers, GLOBAL char *scratch, GLOBAL const OUT *out,
                                              long out_at, GLOBAL const OUT *dout, long dout_at,
                                              GLOBAL const REAL *dlse, long dlse_at)
{
    const long count = numbers[GPU_BATCH] * numbers[GPU_QUERIES] * numbers[GPU_HEADS];
    for (long i = GROUP_INDEX * ITEMS + ITEM_INDEX; i < count; i += GROUP_COUNT * ITEMS)
        one_delta(numbers, i, out + out_at, dout + dout_at, dlse + dlse_at, dlse_at >= 0,
                  (GLOBAL REAL *)(scratch + numbers[GPU_SCRATCH_DELTA]));
}

KERNEL GROUP_ITEMS(ITEMS) void backward_dq(GLOBAL const long *numbers, GLOBAL char *scratch, GLOBAL const IN *q,
                                           long q_at, GLOBAL const IN *k, long k_at, GLOBAL const IN *v, long v_at,
                                           GLOBAL const IN *extra_k, long extra_k_at, GLOBAL const IN *extra_v,
                                           long extra_v_at, GLOBAL const OUT *dout, long dout_at,
                                           GLOBAL const REAL *lse, long lse_at, GLOBAL IN *dq, long dq_at)
{
    LOCAL_VARIABLE(TILE, m);
    const long heads = numbers[GPU_HEADS], kv_heads = numbers[GPU_KV_HEADS], n = numbers[GPU_HEAD_DIM];
    const long value_n = numbers[GPU_VALUE_DIM], parts = (n + OUT_DIMS - 1) / OUT_DIMS;
    const long in_walk = numbers[GPU_BY_QUERY + GPU_WALK_ITEMS];
    const long q_step = STRIDE(GPU_Q, GPU_STRIDE_DIM), dout_step = STRIDE(GPU_DOUT, GPU_STRIDE_DIM);
    const long extra_tiles = (numbers[GPU_EXTRA] + COLUMNS - 1) / COLUMNS;
    const REAL scale = SCALE;
    GLOBAL const REAL *deltas = (GLOBAL const REAL *)(scratch + numbers[GPU_SCRATCH_DELTA]);
    for (long index = GROUP_INDEX; index < parts * in_walk * heads * numbers[GPU_BATCH]; index += GROUP_COUNT) {
        const long first = index % parts * OUT_DIMS, stream = index / parts / in_walk;
        const long head = stream % heads, batch = stream / heads, kv_head = head * kv_heads / heads;
        REAL s[ROWS_EACH][COLUMNS_EACH], ds[ROWS_EACH][COLUMNS_EACH], sum[ROWS_EACH][DIMS_EACH], factor[ROWS_EACH];
        ITEM item;
        MEETING meeting;
        open_item(numbers, GPU_BY_QUERY, index / parts % in_walk, &item);
        meeting.rows = volume(&item.rows);
        find_sight(numbers, &m, &item);
        place_rows(numbers, &m, FIRST, GPU_Q, &item.rows, q_at + base_of(numbers, GPU_Q, batch, head));
        place_rows(numbers, &m, SECOND, GPU_DOUT, &item.rows, dout_at + base_of(numbers, GPU_DOUT, batch, head));
        load_terms(numbers, &m, lse + lse_at, deltas, &item.rows, batch, head);
        clear(sum);
        for (long t = 0; t < item.tiles + extra_tiles; t++) {
            const bool more = open_keys(numbers, &m, &item, t, batch, kv_head, &meeting);
            GLOBAL const IN *keys = more ? extra_k + extra_k_at : k + k_at;
            const long key_step = STRIDE(more ? GPU_EXTRA_K : GPU_K, GPU_STRIDE_DIM);
            multiply_in_in(&m, &meeting, FIRST, q, q_step, keys, key_step, n, s);
            multiply_out_in(&m, &meeting, SECOND, dout, dout_step, more ? extra_v + extra_v_at : v + v_at,
                            STRIDE(more ? GPU_EXTRA_V : GPU_V, GPU_STRIDE_DIM), value_n, ds);
            gradient(&m, &meeting, true, scale * LOG2_E, s, ds);
            put_weights(&m, ds);
            accumulate_in(&m, &meeting, FIRST, keys, key_step, first, n, sum);
        }
        EACH_ROW(i) factor[i] = scale;
        store_in(numbers, dq + dq_at, GPU_DQ, &item.rows, base_of(numbers, GPU_DQ, batch, head), first, n, sum, factor);
    }
}

/* Sums what the queries of some of an item's column tiles contribute to the rows: dimensions from `first` on of both
 * gradients. Tiles of all heads that share the rows are numbered one head after another. */
static void add_queries(GLOBAL const long *numbers, LOCAL TILE *m, GLOBAL const REAL *deltas, GLOBAL const IN *keys,
                        long key_step, GLOBAL const IN *values, long value_step, GLOBAL const IN *q, long q_at,
                        GLOBAL const OUT *dout, long dout_at, GLOBAL const REAL *lse, const ITEM *item, long batch,
                        long kv_head, long begin, long end, long first, REAL (*dkeys)[DIMS_EACH],
                        REAL (*dvalues)[DIMS_EACH])
{
    const long n = numbers[GPU_HEAD_DIM], value_n = numbers[GPU_VALUE_DIM];
    const long group = numbers[GPU_HEADS] / numbers[GPU_KV_HEADS];
    const long q_step = STRIDE(GPU_Q, GPU_STRIDE_DIM), dout_step = STRIDE(GPU_DOUT, GPU_STRIDE_DIM);
    REAL s[ROWS_EACH][COLUMNS_EACH], ds[ROWS_EACH][COLUMNS_EACH];
    MEETING meeting;
    meeting.rows = volume(&item->rows);
    for (long t = begin; t < end; t++) {
        const long head = kv_head * group + t / item->tiles;
        BOX columns;
        meeting.full = column_tile(item, t % item->tiles, &columns);
        meeting.columns = volume(&columns);
        meeting.open = meeting.full && meeting.columns == COLUMNS;
        place_columns(numbers, m, GPU_Q, q_at + base_of(numbers, GPU_Q, batch, head), GPU_DOUT,
                      dout_at + base_of(numbers, GPU_DOUT, batch, head), &columns);
        load_terms(numbers, m, lse, deltas, &columns, batch, head);
        BARRIER();
        multiply_in_in(m, &meeting, FIRST, keys, key_step, q, q_step, n, s);
        multiply_in_out(m, &meeting, SECOND, values, value_step, dout, dout_step, value_n, ds);
        gradient(m, &meeting, false, SCALE * LOG2_E, s, ds);
        if (first < value_n) {
            put_weights(m, s);
            accumulate_out(m, &meeting, SECOND, dout, dout_step, first, value_n, dvalues);
        }
        if (first < n) {
            put_weights(m, ds);
            accumulate_in(m, &meeting, FIRST, q, q_step, first, n, dkeys);
        }
    }
}

/* How many parts the wider of both gradients has. */
static long gradient_parts(GLOBAL const long *numbers)
{
    return (max(numbers[GPU_HEAD_DIM], numbers[GPU_VALUE_DIM]) + OUT_DIMS - 1) / OUT_DIMS;
}

KERNEL GROUP_ITEMS(ITEMS) void backward_dkv(GLOBAL const long *numbers, GLOBAL char *scratch, GLOBAL const IN *q,
                                            long q_at, GLOBAL const IN *k, long k_at, GLOBAL const IN *v, long v_at,
                                            GLOBAL const OUT *dout, long dout_at, GLOBAL const REAL *lse, long lse_at,
                                            GLOBAL IN *dk, long dk_at, GLOBAL IN *dv, long dv_at)
{
    LOCAL_VARIABLE(TILE, m);
    const long kv_heads = numbers[GPU_KV_HEADS], parts = gradient_parts(numbers);
    const long in_walk = numbers[GPU_BY_KEY + GPU_WALK_ITEMS];
    GLOBAL const REAL *deltas = (GLOBAL const REAL *)(scratch + numbers[GPU_SCRATCH_DELTA]);
    for (long index = GROUP_INDEX; index < parts * in_walk * kv_heads * numbers[GPU_BATCH]; index += GROUP_COUNT) {
        const long first = index % parts * OUT_DIMS, stream = index / parts / in_walk;
        const long kv_head = stream % kv_heads, batch = stream / kv_heads;
        REAL dkeys[ROWS_EACH][DIMS_EACH], dvalues[ROWS_EACH][DIMS_EACH], factor[ROWS_EACH];
        ITEM item;
        open_item(numbers, GPU_BY_KEY, index / parts % in_walk, &item);
        find_sight(numbers, &m, &item);
        place_rows(numbers, &m, FIRST, GPU_K, &item.rows, k_at + base_of(numbers, GPU_K, batch, kv_head));
        place_rows(numbers, &m, SECOND, GPU_V, &item.rows, v_at + base_of(numbers, GPU_V, batch, kv_head));
        clear(dkeys);
        clear(dvalues);
        add_queries(numbers, &m, deltas, k, STRIDE(GPU_K, GPU_STRIDE_DIM), v, STRIDE(GPU_V, GPU_STRIDE_DIM), q, q_at,
                    dout, dout_at, lse + lse_at, &item, batch, kv_head, 0, item.tiles * (numbers[GPU_HEADS] / kv_heads),
                    first, dkeys, dvalues);
        EACH_ROW(i) factor[i] = SCALE;
        if (dk_at >= 0)
            store_in(numbers, dk + dk_at, GPU_DK, &item.rows, base_of(numbers, GPU_DK, batch, kv_head), first,
                     numbers[GPU_HEAD_DIM], dkeys, factor);
        EACH_ROW(i) factor[i] = 1;
        if (dv_at >= 0)
            store_in(numbers, dv + dv_at, GPU_DV, &item.rows, base_of(numbers, GPU_DV, batch, kv_head), first,
                     numbers[GPU_VALUE_DIM], dvalues, factor);
    }
}

/* Gradients of extra tokens, of one part of the queries at a time: partial sums. */
KERNEL GROUP_ITEMS(ITEMS) void backward_extra(GLOBAL const long *numbers, GLOBAL char *scratch, GLOBAL const IN *q,
                                              long q_at, GLOBAL const IN *extra_k, long extra_k_at,
                                              GLOBAL const IN *extra_v, long extra_v_at, GLOBAL const OUT *dout,
                                              long dout_at, GLOBAL const REAL *lse, long lse_at)
{
    LOCAL_VARIABLE(TILE, m);
    const long kv_heads = numbers[GPU_KV_HEADS], streams = kv_heads * numbers[GPU_BATCH];
    const long parts = gradient_parts(numbers), splits = numbers[GPU_SPLITS];
    const long n = numbers[GPU_HEAD_DIM], value_n = numbers[GPU_VALUE_DIM];
    const int extra = (int)numbers[GPU_EXTRA], runs = (extra + ROWS - 1) / ROWS;
    const REAL scale = SCALE;
    GLOBAL const REAL *deltas = (GLOBAL const REAL *)(scratch + numbers[GPU_SCRATCH_DELTA]);
    for (long index = GROUP_INDEX; index < parts * runs * streams * splits; index += GROUP_COUNT) {
        const long first = index % parts * OUT_DIMS, stream = index / parts / runs % streams;
        const long split = index / parts / runs / streams, kv_head = stream % kv_heads, batch = stream / kv_heads;
        const int begin = (int)(index / parts % runs) * ROWS;
        REAL dkeys[ROWS_EACH][DIMS_EACH], dvalues[ROWS_EACH][DIMS_EACH];
        ITEM item;
        extra_box(begin, min(extra - begin, ROWS), &item.rows);
        see_all_queries(numbers, COLUMNS, &item);
        place_rows(numbers, &m, FIRST, GPU_EXTRA_K, &item.rows,
                   extra_k_at + base_of(numbers, GPU_EXTRA_K, batch, kv_head));
        place_rows(numbers, &m, SECOND, GPU_EXTRA_V, &item.rows,
                   extra_v_at + base_of(numbers, GPU_EXTRA_V, batch, kv_head));
        clear(dkeys);
        clear(dvalues);
        const long tiles = item.tiles * (numbers[GPU_HEADS] / kv_heads);
        add_queries(numbers, &m, deltas, extra_k, STRIDE(GPU_EXTRA_K, GPU_STRIDE_DIM), extra_v,
                    STRIDE(GPU_EXTRA_V, GPU_STRIDE_DIM), q, q_at, dout, dout_at, lse + lse_at, &item, batch, kv_head,
                    tiles * split / splits, tiles * (split + 1) / splits, first, dkeys, dvalues);
        EACH_ROW(i)
        {
            if (MY_ROW(i) < volume(&item.rows)) {
                GLOBAL REAL *partial = partial_of(numbers, scratch, split, stream, begin + MY_ROW(i));
                EACH_DIM(j)
                {
                    if (first + MY_DIM(j) < n)
                        partial[first + MY_DIM(j)] = dkeys[i][j] * scale;
                    if (first + MY_DIM(j) < value_n)
                        partial[n + first + MY_DIM(j)] = dvalues[i][j];
                }
            }
        }
    }
}

KERNEL GROUP_ITEMS(ITEMS) void backward_extra_sum(GLOBAL const long *numbers, GLOBAL char *scratch, GLOBAL IN *dextra_k,
                                                  long dextra_k_at, GLOBAL IN *dextra_v, long dextra_v_at)
{
    const long count = extra_elements(numbers);
    for (long i = GROUP_INDEX * ITEMS + ITEM_INDEX; i < count; i += GROUP_COUNT * ITEMS)
        sum_extra(numbers, scratch, i, dextra_k, dextra_k_at, dextra_v, dextra_v_at);
}
