/* Backward of the shape for CPU devices. Rows are queries for dq, keys for dk and dv, extra tokens for theirs. */

/* One value per row of a box, or 0. */
static void load_row_terms(GLOBAL const long *numbers, GLOBAL const REAL *x, int tensor, const BOX *rows, long base,
                           REAL *terms)
{
    const int count = volume(rows);
    for (int r = 0; r < ROWS; r++) {
        int position[RANK];
        position_at(rows, r < count ? r : 0, position);
        terms[r] = r < count ? x[base + place_of(numbers, tensor, rows, position)] : 0;
    }
}

static void load_column_terms(GLOBAL const long *numbers, GLOBAL const REAL *x, int tensor, const BOX *tile,
                              const COLUMN_SET *set, long base, REAL *terms)
{
    long place[COLUMNS + BLOCK];
    list_places(numbers, tensor, tile, set, base, place);
    for (int c = 0; c < set->padded; c++)
        terms[c] = x[place[c]];
}

/* Scores become weights, and gradients of weights those of scores: the rows are queries. */
static void gradient_by_row(const COLUMN_SET *set, const SIGHT *sight, bool full, REAL factor, const REAL *lse,
                            const REAL *delta, GLOBAL const REAL *s, GLOBAL REAL *ds)
{
    for (int v = 0; v < VECTORS; v++) {
        const REALV base = LOADV(lse + v * LANES) * LOG2_E, less = LOADV(delta + v * LANES);
        for (int c = 0; c < set->count; c++) {
            const int at = c * ROWS + v * LANES;
            const REALV p = exp2_of(LOADV(s + at) * factor - base), d = p * (LOADV(ds + at) - less);
            STOREV(full ? d : SELECT(sees(sight, set, c, v), d, (REALV)0), ds + at);
        }
    }
}

/* The same where the columns are queries. */
static void gradient_by_column(const COLUMN_SET *set, const SIGHT *sight, bool full, REAL factor, const REAL *lse,
                               const REAL *delta, GLOBAL REAL *s, GLOBAL REAL *ds)
{
    for (int c = 0; c < set->count; c++) {
        const REAL base = lse[c] * LOG2_E, less = delta[c];
        for (int v = 0; v < VECTORS; v++) {
            const int at = c * ROWS + v * LANES;
            const REALV p = exp2_of(LOADV(s + at) * factor - base), d = p * (LOADV(ds + at) - less);
            const INTV mask = full ? (INTV)-1 : sees(sight, set, c, v);
            STOREV(full ? p : SELECT(mask, p, (REALV)0), s + at);
            STOREV(full ? d : SELECT(mask, d, (REALV)0), ds + at);
        }
    }
}

static void fill(REAL *factor, REAL value)
{
    for (int r = 0; r < ROWS; r++)
        factor[r] = value;
}

KERNEL GROUP_ITEMS(1) void backward_delta(GLOBAL const long *numbers, GLOBAL char *scratch, GLOBAL const OUT *out,
                                          long out_at, GLOBAL const OUT *dout, long dout_at, GLOBAL const REAL *dlse,
                                          long dlse_at)
{
    const long count = numbers[GPU_BATCH] * numbers[GPU_QUERIES] * numbers[GPU_HEADS];
    const long begin = count * GROUP_INDEX / GROUP_COUNT, end = count * (GROUP_INDEX + 1) / GROUP_COUNT;
    for (long i = begin; i < end; i++)
        one_delta(numbers, i, out + out_at, dout + dout_at, dlse + dlse_at, dlse_at >= 0,
                  (GLOBAL REAL *)(scratch + numbers[GPU_SCRATCH_DELTA]));
}

KERNEL GROUP_ITEMS(1) void backward_dq(GLOBAL const long *numbers, GLOBAL char *scratch, GLOBAL const IN *q, long q_at,
                                       GLOBAL const IN *k, long k_at, GLOBAL const IN *v, long v_at,
                                       GLOBAL const IN *extra_k, long extra_k_at, GLOBAL const IN *extra_v,
                                       long extra_v_at, GLOBAL const OUT *dout, long dout_at, GLOBAL const REAL *lse,
                                       long lse_at, GLOBAL IN *dq, long dq_at)
{
    const long heads = numbers[GPU_HEADS], kv_heads = numbers[GPU_KV_HEADS], n = numbers[GPU_HEAD_DIM];
    const long value_n = numbers[GPU_VALUE_DIM], in_walk = numbers[GPU_BY_QUERY + GPU_WALK_ITEMS];
    const int extra = (int)numbers[GPU_EXTRA];
    const REAL factor = SCALE * LOG2_E;
    GLOBAL const REAL *deltas = (GLOBAL const REAL *)(scratch + numbers[GPU_SCRATCH_DELTA]);
    GLOBAL REAL *rows = (GLOBAL REAL *)(scratch + numbers[GPU_SCRATCH_GROUPS] +
                                        GROUP_INDEX * numbers[GPU_SCRATCH_GROUP_BYTES]);
    GLOBAL REAL *drows = rows + n * ROWS, *sums = drows + value_n * ROWS, *scores = sums + n * ROWS;
    GLOBAL REAL *dscores = scores + (COLUMNS + BLOCK) * ROWS, *copied_k = dscores + (COLUMNS + BLOCK) * ROWS;
    GLOBAL REAL *copied_v = copied_k + (COLUMNS + BLOCK) * n;
    for (long index = GROUP_INDEX; index < in_walk * heads * numbers[GPU_BATCH]; index += GROUP_COUNT) {
        const long head = index / in_walk % heads, batch = index / in_walk / heads, kv_head = head * kv_heads / heads;
        ITEM item;
        SIGHT sight;
        REAL row_lse[ROWS], row_delta[ROWS], scale[ROWS];
        open_item(numbers, GPU_BY_QUERY, index % in_walk, &item);
        find_sight(numbers, &item, &sight);
        load_rows_in(numbers, q + q_at, GPU_Q, &item.rows, base_of(numbers, GPU_Q, batch, head), n, rows);
        load_rows_out(numbers, dout + dout_at, GPU_DOUT, &item.rows, base_of(numbers, GPU_DOUT, batch, head), value_n,
                      drows);
        load_row_terms(numbers, lse + lse_at, GPU_LSE, &item.rows, base_of(numbers, GPU_LSE, batch, head), row_lse);
        load_row_terms(numbers, deltas, GPU_DELTA, &item.rows, base_of(numbers, GPU_DELTA, batch, head), row_delta);
        clear(sums, n);
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
            multiply(&values, set.padded, drows, value_n, dscores);
            gradient_by_row(&set, &sight, full, factor, row_lse, row_delta, scores, dscores);
            add_columns(&keys, &set, &sight, full, dscores, n, sums);
        }
        fill(scale, SCALE);
        store_rows_in(numbers, dq + dq_at, GPU_DQ, &item.rows, base_of(numbers, GPU_DQ, batch, head), n, sums, scale);
    }
}

/* The scratch of a group whose rows are keys. */
typedef struct KEY_ROWS {
    GLOBAL REAL *keys, *values, *dkeys, *dvalues, *scores, *dscores, *copied_q, *copied_dout;
} KEY_ROWS;

static KEY_ROWS key_rows(GLOBAL const long *numbers, GLOBAL char *scratch)
{
    const long n = numbers[GPU_HEAD_DIM], value_n = numbers[GPU_VALUE_DIM];
    KEY_ROWS s;
    s.keys = (GLOBAL REAL *)(scratch + numbers[GPU_SCRATCH_GROUPS] + GROUP_INDEX * numbers[GPU_SCRATCH_GROUP_BYTES]);
    s.values = s.keys + n * ROWS;
    s.dkeys = s.values + value_n * ROWS;
    s.dvalues = s.dkeys + n * ROWS;
    s.scores = s.dvalues + value_n * ROWS;
    s.dscores = s.scores + (COLUMNS + BLOCK) * ROWS;
    s.copied_q = s.dscores + (COLUMNS + BLOCK) * ROWS;
    s.copied_dout = s.copied_q + (COLUMNS + BLOCK) * n;
    return s;
}

/* Sums what the queries of an item's columns contribute to the rows, over all heads that share them. */
static void add_queries(GLOBAL const long *numbers, const KEY_ROWS *s, GLOBAL const REAL *deltas, GLOBAL const IN *q,
                        GLOBAL const OUT *dout, GLOBAL const REAL *lse, const ITEM *item, const SIGHT *sight,
                        long batch, long kv_head)
{
    const long n = numbers[GPU_HEAD_DIM], value_n = numbers[GPU_VALUE_DIM];
    const long group = numbers[GPU_HEADS] / numbers[GPU_KV_HEADS];
    const REAL factor = SCALE * LOG2_E;
    for (long t = 0; t < item->tiles * group; t++) {
        const long head = kv_head * group + t / item->tiles;
        BOX tile;
        COLUMN_SET set;
        COLUMN_ROWS queries, gradients;
        REAL column_lse[COLUMNS + BLOCK], column_delta[COLUMNS + BLOCK];
        const bool full = column_tile(item, t % item->tiles, &tile);
        list_columns(&tile, &set);
        fetch_in(numbers, q, GPU_Q, &tile, &set, base_of(numbers, GPU_Q, batch, head), n, s->copied_q, &queries);
        fetch_out(numbers, dout, GPU_DOUT, &tile, &set, base_of(numbers, GPU_DOUT, batch, head), value_n, s->copied_dout,
                  &gradients);
        load_column_terms(numbers, lse, GPU_LSE, &tile, &set, base_of(numbers, GPU_LSE, batch, head), column_lse);
        load_column_terms(numbers, deltas, GPU_DELTA, &tile, &set, base_of(numbers, GPU_DELTA, batch, head),
                          column_delta);
        multiply(&queries, set.padded, s->keys, n, s->scores);
        multiply(&gradients, set.padded, s->values, value_n, s->dscores);
        gradient_by_column(&set, sight, full, factor, column_lse, column_delta, s->scores, s->dscores);
        add_columns(&gradients, &set, sight, full, s->scores, value_n, s->dvalues);
        add_columns(&queries, &set, sight, full, s->dscores, n, s->dkeys);
    }
}

KERNEL GROUP_ITEMS(1) void backward_dkv(GLOBAL const long *numbers, GLOBAL char *scratch, GLOBAL const IN *q, long q_at,
                                        GLOBAL const IN *k, long k_at, GLOBAL const IN *v, long v_at,
                                        GLOBAL const OUT *dout, long dout_at, GLOBAL const REAL *lse, long lse_at,
                                        GLOBAL IN *dk, long dk_at, GLOBAL IN *dv, long dv_at)
{
    const long kv_heads = numbers[GPU_KV_HEADS], n = numbers[GPU_HEAD_DIM], value_n = numbers[GPU_VALUE_DIM];
    const long in_walk = numbers[GPU_BY_KEY + GPU_WALK_ITEMS];
    GLOBAL const REAL *deltas = (GLOBAL const REAL *)(scratch + numbers[GPU_SCRATCH_DELTA]);
    const KEY_ROWS s = key_rows(numbers, scratch);
    for (long index = GROUP_INDEX; index < in_walk * kv_heads * numbers[GPU_BATCH]; index += GROUP_COUNT) {
        const long kv_head = index / in_walk % kv_heads, batch = index / in_walk / kv_heads;
        ITEM item;
        SIGHT sight;
        REAL factor[ROWS];
        open_item(numbers, GPU_BY_KEY, index % in_walk, &item);
        find_sight(numbers, &item, &sight);
        load_rows_in(numbers, k + k_at, GPU_K, &item.rows, base_of(numbers, GPU_K, batch, kv_head), n, s.keys);
        load_rows_in(numbers, v + v_at, GPU_V, &item.rows, base_of(numbers, GPU_V, batch, kv_head), value_n, s.values);
        clear(s.dkeys, n);
        clear(s.dvalues, value_n);
        add_queries(numbers, &s, deltas, q + q_at, dout + dout_at, lse + lse_at, &item, &sight, batch, kv_head);
        fill(factor, SCALE);
        if (dk_at >= 0)
            store_rows_in(numbers, dk + dk_at, GPU_DK, &item.rows, base_of(numbers, GPU_DK, batch, kv_head), n, s.dkeys,
                          factor);
        fill(factor, 1);
        if (dv_at >= 0)
            store_rows_in(numbers, dv + dv_at, GPU_DV, &item.rows, base_of(numbers, GPU_DV, batch, kv_head), value_n,
                          s.dvalues, factor);
    }
}

KERNEL GROUP_ITEMS(1) void backward_extra(GLOBAL const long *numbers, GLOBAL char *scratch, GLOBAL const IN *q, long q_at,
                                          GLOBAL const IN *extra_k, long extra_k_at, GLOBAL const IN *extra_v,
                                          long extra_v_at, GLOBAL const OUT *dout, long dout_at, GLOBAL const REAL *lse,
                                          long lse_at, GLOBAL IN *dextra_k, long dextra_k_at, GLOBAL IN *dextra_v,
                                          long dextra_v_at)
{
    const long kv_heads = numbers[GPU_KV_HEADS], n = numbers[GPU_HEAD_DIM], value_n = numbers[GPU_VALUE_DIM];
    const int extra = (int)numbers[GPU_EXTRA], runs = (extra + ROWS - 1) / ROWS;
    GLOBAL const REAL *deltas = (GLOBAL const REAL *)(scratch + numbers[GPU_SCRATCH_DELTA]);
    const KEY_ROWS s = key_rows(numbers, scratch);
    for (long index = GROUP_INDEX; index < runs * kv_heads * numbers[GPU_BATCH]; index += GROUP_COUNT) {
        const long kv_head = index / runs % kv_heads, batch = index / runs / kv_heads;
        const int first = (int)(index % runs) * ROWS;
        ITEM item;
        SIGHT sight;
        REAL factor[ROWS];
        extra_box(first, min(extra - first, ROWS), &item.rows);
        see_all_queries(numbers, COLUMNS, &item);
        load_rows_in(numbers, extra_k + extra_k_at, GPU_EXTRA_K, &item.rows, base_of(numbers, GPU_EXTRA_K, batch, kv_head),
                     n, s.keys);
        load_rows_in(numbers, extra_v + extra_v_at, GPU_EXTRA_V, &item.rows, base_of(numbers, GPU_EXTRA_V, batch, kv_head),
                     value_n, s.values);
        clear(s.dkeys, n);
        clear(s.dvalues, value_n);
        add_queries(numbers, &s, deltas, q + q_at, dout + dout_at, lse + lse_at, &item, &sight, batch, kv_head);
        fill(factor, SCALE);
        if (dextra_k_at >= 0)
            store_rows_in(numbers, dextra_k + dextra_k_at, GPU_DEXTRA_K, &item.rows,
                          base_of(numbers, GPU_DEXTRA_K, batch, kv_head), n, s.dkeys, factor);
        fill(factor, 1);
        if (dextra_v_at >= 0)
            store_rows_in(numbers, dextra_v + dextra_v_at, GPU_DEXTRA_V, &item.rows,
                          base_of(numbers, GPU_DEXTRA_V, batch, kv_head), value_n, s.dvalues, factor);
    }
}
