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

/* lse and delta of the queries that are columns. */
typedef struct COLUMN_TERMS {
    REAL lse[MOST_COLUMNS], delta[MOST_COLUMNS];
} COLUMN_TERMS;

static void load_column_terms(GLOBAL const long *numbers, GLOBAL const REAL *x, int tensor, const BOX *tile,
                              const COLUMN_SET *set, long base, REAL *terms)
{
    long place[MOST_COLUMNS];
    list_places(numbers, tensor, tile, set, base, place);
    for (int c = 0; c < set->count; c++)
        terms[c] = x[place[c]];
}

/* Scores become weights, and gradients of weights those of scores: the rows are queries. */
static void gradient_by_row(const COLUMN_SET *set, STRIP strip, const SIGHT *sight, bool full, REAL factor,
                            const REAL *lse, const REAL *delta, GLOBAL const REAL *s, GLOBAL REAL *ds)
{
    for (int i = 0; i < strip.vectors; i++) {
        const int v = strip.first + i;
        const REALV base = LOADV(lse + v * LANES) * LOG2_E, less = LOADV(delta + v * LANES);
        for (int c = 0; c < set->count; c++) {
            const int at = c * strip.pitch + i * LANES;
            const REALV p = exp2_of(LOADV(s + at) * factor - base), d = p * (LOADV(ds + at) - less);
            STOREV(full ? d : SELECT(sees(sight, set, c, v), d, (REALV)0), ds + at);
        }
    }
}

/* The same where the columns are queries. */
static void gradient_by_column(const COLUMN_SET *set, STRIP strip, const SIGHT *sight, bool full, REAL factor,
                               const COLUMN_TERMS *terms, GLOBAL REAL *s, GLOBAL REAL *ds)
{
    for (int c = 0; c < set->count; c++) {
        const REAL base = terms->lse[c] * LOG2_E, less = terms->delta[c];
        for (int i = 0; i < strip.vectors; i++) {
            const int at = c * strip.pitch + i * LANES;
            const REALV p = exp2_of(LOADV(s + at) * factor - base), d = p * (LOADV(ds + at) - less);
            const INTV mask = full ? (INTV)-1 : sees(sight, set, c, strip.first + i);
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

/* Lets a strip of queries meet keys. */
static void differentiate(const QUERY_ROWS *s, const COLUMN_SET *set, STRIP strip, const SIGHT *sight, bool full,
                          bool careful, const REAL *lse, const REAL *delta)
{
    multiply(set, FIRST, strip, s->rows, s->n, s->scores);
    multiply(set, SECOND, strip, s->drows, s->value_n, s->dscores);
    gradient_by_row(set, strip, sight, full, s->factor, lse, delta, s->scores, s->dscores);
    add_columns(set, FIRST, strip, sight, careful, s->dscores, s->n, s->sums);
}

KERNEL GROUP_ITEMS(1) void backward_dq(GLOBAL const long *numbers, GLOBAL char *scratch, GLOBAL const IN *q, long q_at,
                                       GLOBAL const IN *k, long k_at, GLOBAL const IN *v, long v_at,
                                       GLOBAL const IN *extra_k, long extra_k_at, GLOBAL const IN *extra_v,
                                       long extra_v_at, GLOBAL const OUT *dout, long dout_at, GLOBAL const REAL *lse,
                                       long lse_at, GLOBAL IN *dq, long dq_at)
{
    const long heads = numbers[GPU_HEADS], kv_heads = numbers[GPU_KV_HEADS];
    const long in_walk = numbers[GPU_BY_QUERY + GPU_WALK_ITEMS];
    const long extra_tiles = (numbers[GPU_EXTRA] + COLUMNS - 1) / COLUMNS;
    const QUERY_ROWS s = query_rows(numbers, scratch, true);
    GLOBAL const REAL *deltas = (GLOBAL const REAL *)(scratch + numbers[GPU_SCRATCH_DELTA]);
    for (long index = GROUP_INDEX; index < in_walk * heads * numbers[GPU_BATCH]; index += GROUP_COUNT) {
        const long head = index / in_walk % heads, batch = index / in_walk / heads, kv_head = head * kv_heads / heads;
        ITEM item;
        SIGHT sight;
        REAL row_lse[ROWS], row_delta[ROWS], scale[ROWS];
        open_item(numbers, GPU_BY_QUERY, index % in_walk, &item);
        find_sight(numbers, &item, &sight);
        load_rows_in(numbers, q + q_at, GPU_Q, &item.rows, base_of(numbers, GPU_Q, batch, head), s.n, s.rows);
        load_rows_out(numbers, dout + dout_at, GPU_DOUT, &item.rows, base_of(numbers, GPU_DOUT, batch, head), s.value_n,
                      s.drows);
        load_row_terms(numbers, lse + lse_at, GPU_LSE, &item.rows, base_of(numbers, GPU_LSE, batch, head), row_lse);
        load_row_terms(numbers, deltas, GPU_DELTA, &item.rows, base_of(numbers, GPU_DELTA, batch, head), row_delta);
        clear(s.sums, s.n);
        for (long t = 0; t < item.tiles + extra_tiles; t++) {
            COLUMN_SET set, narrowed;
            int seen[COLUMNS];
            const bool full = open_keys(numbers, &s, &item, t, k + k_at, v + v_at, extra_k + extra_k_at,
                                        extra_v + extra_v_at, batch, kv_head, &set);
            if (full) {
                differentiate(&s, &set, (STRIP){0, VECTORS, ROWS}, &sight, true, false, row_lse, row_delta);
                continue;
            }
            const bool careful = !all_finite(&set, FIRST, s.n);
            for (int i = 0; i < VECTORS; i++) {
                const int count = find_seen(&set, &sight, i, seen);
                if (count == 0)
                    continue;
                narrow(&set, seen, count, &narrowed);
                differentiate(&s, &narrowed, (STRIP){i, 1, LANES}, &sight, false, careful, row_lse, row_delta);
            }
        }
        fill(scale, SCALE);
        store_rows_in(numbers, dq + dq_at, GPU_DQ, &item.rows, base_of(numbers, GPU_DQ, batch, head), s.n, s.sums,
                      scale);
    }
}

/* The scratch of a group whose rows are keys. */
typedef struct KEY_ROWS {
    GLOBAL REAL *keys, *values, *dkeys, *dvalues, *scores, *dscores, *copies[2];
    long n, value_n;
    REAL factor; /* of scores, in base 2 */
} KEY_ROWS;

static KEY_ROWS key_rows(GLOBAL const long *numbers, GLOBAL char *scratch)
{
    KEY_ROWS s;
    s.n = numbers[GPU_HEAD_DIM];
    s.value_n = numbers[GPU_VALUE_DIM];
    s.factor = SCALE * LOG2_E;
    s.keys = (GLOBAL REAL *)(scratch + numbers[GPU_SCRATCH_GROUPS] + GROUP_INDEX * numbers[GPU_SCRATCH_GROUP_BYTES]);
    s.values = s.keys + s.n * ROWS;
    s.dkeys = s.values + s.value_n * ROWS;
    s.dvalues = s.dkeys + s.n * ROWS;
    s.scores = s.dvalues + s.value_n * ROWS;
    s.dscores = s.scores + MOST_COLUMNS * ROWS;
    s.copies[FIRST] = s.dscores + MOST_COLUMNS * ROWS;
    s.copies[SECOND] = s.copies[FIRST] + COLUMNS * s.n;
    return s;
}

/* Lets a strip of keys meet queries. */
static void contribute(const KEY_ROWS *s, const COLUMN_SET *set, STRIP strip, const SIGHT *sight, bool full,
                       bool careful, const COLUMN_TERMS *terms)
{
    multiply(set, FIRST, strip, s->keys, s->n, s->scores);
    multiply(set, SECOND, strip, s->values, s->value_n, s->dscores);
    gradient_by_column(set, strip, sight, full, s->factor, terms, s->scores, s->dscores);
    add_columns(set, SECOND, strip, sight, careful, s->scores, s->value_n, s->dvalues);
    add_columns(set, FIRST, strip, sight, careful, s->dscores, s->n, s->dkeys);
}

/* Sums what the queries of some of an item's column tiles contribute to the rows; tiles of all heads that share the
 * rows are numbered one head after another. */
static void add_queries(GLOBAL const long *numbers, const KEY_ROWS *s, GLOBAL const REAL *deltas, GLOBAL const IN *q,
                        GLOBAL const OUT *dout, GLOBAL const REAL *lse, const ITEM *item, const SIGHT *sight,
                        long batch, long kv_head, long begin, long end)
{
    const long group = numbers[GPU_HEADS] / numbers[GPU_KV_HEADS];
    for (long t = begin; t < end; t++) {
        const long head = kv_head * group + t / item->tiles;
        BOX tile;
        COLUMN_SET set, narrowed;
        COLUMN_TERMS terms, narrowed_terms;
        int seen[COLUMNS];
        const bool full = column_tile(item, t % item->tiles, &tile);
        list_columns(&tile, &set);
        fetch_in(numbers, q, GPU_Q, &tile, base_of(numbers, GPU_Q, batch, head), s->n, s->copies[FIRST], FIRST, &set);
        fetch_out(numbers, dout, GPU_DOUT, &tile, base_of(numbers, GPU_DOUT, batch, head), s->value_n,
                  s->copies[SECOND], SECOND, &set);
        load_column_terms(numbers, lse, GPU_LSE, &tile, &set, base_of(numbers, GPU_LSE, batch, head), terms.lse);
        load_column_terms(numbers, deltas, GPU_DELTA, &tile, &set, base_of(numbers, GPU_DELTA, batch, head),
                          terms.delta);
        if (full) {
            contribute(s, &set, (STRIP){0, VECTORS, ROWS}, sight, true, false, &terms);
            continue;
        }
        const bool careful = !all_finite(&set, FIRST, s->n) || !all_finite(&set, SECOND, s->value_n);
        for (int i = 0; i < VECTORS; i++) {
            const int count = find_seen(&set, sight, i, seen);
            if (count == 0)
                continue;
            narrow(&set, seen, count, &narrowed);
            for (int c = 0; c < count; c++) {
                narrowed_terms.lse[c] = terms.lse[seen[c]];
                narrowed_terms.delta[c] = terms.delta[seen[c]];
            }
            contribute(s, &narrowed, (STRIP){i, 1, LANES}, sight, false, careful, &narrowed_terms);
        }
    }
}

/* Writes row r's n dimensions, times a factor, into partial sums: `pitch` apart from row to row. */
static void store_partial(GLOBAL REAL *to, long pitch, int count, GLOBAL const REAL *t, long n, REAL factor)
{
    for (int r = 0; r < count; r++)
        for (long i = 0; i < n; i++)
            to[r * pitch + i] = t[i * ROWS + r] * factor;
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
        add_queries(numbers, &s, deltas, q + q_at, dout + dout_at, lse + lse_at, &item, &sight, batch, kv_head, 0,
                    item.tiles * (numbers[GPU_HEADS] / kv_heads));
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

/* Gradients of extra tokens, of one part of the queries at a time: partial sums. */
KERNEL GROUP_ITEMS(1) void backward_extra(GLOBAL const long *numbers, GLOBAL char *scratch, GLOBAL const IN *q,
                                          long q_at, GLOBAL const IN *extra_k, long extra_k_at,
                                          GLOBAL const IN *extra_v, long extra_v_at, GLOBAL const OUT *dout,
                                          long dout_at, GLOBAL const REAL *lse, long lse_at)
{
    const long kv_heads = numbers[GPU_KV_HEADS], streams = kv_heads * numbers[GPU_BATCH], splits = numbers[GPU_SPLITS];
    const int extra = (int)numbers[GPU_EXTRA], runs = (extra + ROWS - 1) / ROWS;
    GLOBAL const REAL *deltas = (GLOBAL const REAL *)(scratch + numbers[GPU_SCRATCH_DELTA]);
    const KEY_ROWS s = key_rows(numbers, scratch);
    for (long index = GROUP_INDEX; index < runs * streams * splits; index += GROUP_COUNT) {
        const long split = index / runs / streams, stream = index / runs % streams;
        const long kv_head = stream % kv_heads, batch = stream / kv_heads, pitch = s.n + s.value_n;
        const int first = (int)(index % runs) * ROWS;
        ITEM item;
        SIGHT sight;
        extra_box(first, min(extra - first, ROWS), &item.rows);
        see_all_queries(numbers, COLUMNS, &item);
        load_rows_in(numbers, extra_k + extra_k_at, GPU_EXTRA_K, &item.rows,
                     base_of(numbers, GPU_EXTRA_K, batch, kv_head), s.n, s.keys);
        load_rows_in(numbers, extra_v + extra_v_at, GPU_EXTRA_V, &item.rows,
                     base_of(numbers, GPU_EXTRA_V, batch, kv_head), s.value_n, s.values);
        clear(s.dkeys, s.n);
        clear(s.dvalues, s.value_n);
        const long tiles = item.tiles * (numbers[GPU_HEADS] / kv_heads);
        add_queries(numbers, &s, deltas, q + q_at, dout + dout_at, lse + lse_at, &item, &sight, batch, kv_head,
                    tiles * split / splits, tiles * (split + 1) / splits);
        GLOBAL REAL *partial = partial_of(numbers, scratch, split, stream, first);
        store_partial(partial, pitch, volume(&item.rows), s.dkeys, s.n, SCALE);
        store_partial(partial + s.n, pitch, volume(&item.rows), s.dvalues, s.value_n, 1);
    }
}

KERNEL GROUP_ITEMS(1) void backward_extra_sum(GLOBAL const long *numbers, GLOBAL char *scratch, GLOBAL IN *dextra_k,
                                              long dextra_k_at, GLOBAL IN *dextra_v, long dextra_v_at)
{
    const long count = extra_elements(numbers);
    const long begin = count * GROUP_INDEX / GROUP_COUNT, end = count * (GROUP_INDEX + 1) / GROUP_COUNT;
    for (long i = begin; i < end; i++)
        sum_extra(numbers, scratch, i, dextra_k, dextra_k_at, dextra_v, dextra_v_at);
}
