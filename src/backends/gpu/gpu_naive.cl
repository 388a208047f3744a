/* The shape that shares no work and keeps no scores: one item per row of a result, one loop nest over what the row sees,
 * no tile, no local memory. The baseline, as a first kernel is written; it stands on gpu_unfused.cl, whose passes for deltas
 * and for sums of parts it uses, too.
 *
 * A row's sums lie in scratch memory, since registers do not fit any number of dimensions: dimension d of row i at
 * d * rows + i, so that neighboring items touch neighboring reals. */

static GLOBAL REAL *naive_sums(GLOBAL const long *numbers, GLOBAL char *scratch, long row, long rows, long n)
{
    GLOBAL REAL *sums = (GLOBAL REAL *)(scratch + numbers[GPU_SCRATCH_GROUPS]) + row;
    for (long d = 0; d < n; d++)
        sums[d * rows] = 0;
    return sums;
}

/* Keys and values of a line. */
typedef struct KEYS {
    GLOBAL const IN *k, *v; /* of its first slot */
    long k_step, v_step;    /* from slot to slot */
    long k_dim, v_dim;      /* from dimension to dimension */
} KEYS;

static void find_keys(GLOBAL const long *numbers, const TOKEN *query, const LINE *line, GLOBAL const IN *k,
                      GLOBAL const IN *v, GLOBAL const IN *extra_k, GLOBAL const IN *extra_v, KEYS *keys)
{
    const int k_tensor = line->extra ? GPU_EXTRA_K : GPU_K, v_tensor = line->extra ? GPU_EXTRA_V : GPU_V;
    const long kv_head = kv_head_of(numbers, query);
    keys->k = (line->extra ? extra_k : k) + base_of(numbers, k_tensor, query->batch, kv_head) +
              line_place(numbers, line, k_tensor);
    keys->v = (line->extra ? extra_v : v) + base_of(numbers, v_tensor, query->batch, kv_head) +
              line_place(numbers, line, v_tensor);
    keys->k_step = line_step(numbers, line, k_tensor);
    keys->v_step = line_step(numbers, line, v_tensor);
    keys->k_dim = STRIDE(k_tensor, GPU_STRIDE_DIM);
    keys->v_dim = STRIDE(v_tensor, GPU_STRIDE_DIM);
}

static REAL naive_score(GLOBAL const long *numbers, GLOBAL const IN *q, GLOBAL const IN *k, long k_dim)
{
    return SCALE * dot_in(q, STRIDE(GPU_Q, GPU_STRIDE_DIM), k, k_dim, numbers[GPU_HEAD_DIM]);
}

KERNEL GROUP_ITEMS(ITEMS) void naive_forward(GLOBAL const long *numbers, GLOBAL char *scratch, GLOBAL const IN *q,
                                             long q_at, GLOBAL const IN *k, long k_at, GLOBAL const IN *v, long v_at,
                                             GLOBAL const IN *extra_k, long extra_k_at, GLOBAL const IN *extra_v,
                                             long extra_v_at, GLOBAL OUT *out, long out_at, GLOBAL REAL *lse,
                                             long lse_at)
{
    const long rows = count_rows(numbers), n = numbers[GPU_VALUE_DIM];
    EACH_ELEMENT(i, rows)
    {
        TOKEN query;
        LINE line;
        KEYS keys;
        token_at(numbers, GPU_QUERY_EXTENT, numbers[GPU_HEADS], i, &query);
        GLOBAL const IN *row = q + q_at + token_place(numbers, GPU_Q, &query);
        GLOBAL REAL *sums = naive_sums(numbers, scratch, i, rows, n);
        REAL top = -INFINITY, total = 0;
        first_line(numbers, &query, &line);
        do {
            find_keys(numbers, &query, &line, k + k_at, v + v_at, extra_k + extra_k_at, extra_v + extra_v_at, &keys);
            for (int s = 0; s < line.count; s++) {
                const REAL score = naive_score(numbers, row, keys.k + s * keys.k_step, keys.k_dim);
                top = score > top ? score : top;
            }
        } while (next_line(numbers, &line));
        const REAL base = top == -INFINITY ? 0 : top; /* as in unfused_softmax */
        first_line(numbers, &query, &line);
        do {
            find_keys(numbers, &query, &line, k + k_at, v + v_at, extra_k + extra_k_at, extra_v + extra_v_at, &keys);
            for (int s = 0; s < line.count; s++) {
                const REAL weight = exp(naive_score(numbers, row, keys.k + s * keys.k_step, keys.k_dim) - base);
                total += weight;
                for (long d = 0; d < n; d++)
                    sums[d * rows] += weight * IN_LOAD(keys.v, s * keys.v_step + d * keys.v_dim);
            }
        } while (next_line(numbers, &line));
        const long place = out_at + token_place(numbers, GPU_OUT, &query);
        const REAL inverse = total == 0 ? 0 : 1 / total;
        for (long d = 0; d < n; d++)
            OUT_STORE(out, place + d * STRIDE(GPU_OUT, GPU_STRIDE_DIM), sums[d * rows] * inverse);
        if (lse_at >= 0)
            lse[lse_at + token_place(numbers, GPU_LSE, &query)] = total == 0 ? -INFINITY : base + log(total);
    }
}

KERNEL GROUP_ITEMS(ITEMS) void naive_dq(GLOBAL const long *numbers, GLOBAL char *scratch, GLOBAL const IN *q, long q_at,
                                        GLOBAL const IN *k, long k_at, GLOBAL const IN *v, long v_at,
                                        GLOBAL const IN *extra_k, long extra_k_at, GLOBAL const IN *extra_v,
                                        long extra_v_at, GLOBAL const OUT *dout, long dout_at, GLOBAL const REAL *lse,
                                        long lse_at, GLOBAL IN *dq, long dq_at)
{
    const long rows = count_rows(numbers), n = numbers[GPU_HEAD_DIM];
    GLOBAL const REAL *deltas = (GLOBAL const REAL *)(scratch + numbers[GPU_SCRATCH_DELTA]);
    EACH_ELEMENT(i, rows)
    {
        TOKEN query;
        LINE line;
        KEYS keys;
        token_at(numbers, GPU_QUERY_EXTENT, numbers[GPU_HEADS], i, &query);
        GLOBAL const IN *row = q + q_at + token_place(numbers, GPU_Q, &query);
        GLOBAL const OUT *gradient = dout + dout_at + token_place(numbers, GPU_DOUT, &query);
        GLOBAL REAL *sums = naive_sums(numbers, scratch, i, rows, n);
        const REAL base = lse[lse_at + token_place(numbers, GPU_LSE, &query)];
        const REAL delta = deltas[token_place(numbers, GPU_DELTA, &query)];
        first_line(numbers, &query, &line);
        do {
            find_keys(numbers, &query, &line, k + k_at, v + v_at, extra_k + extra_k_at, extra_v + extra_v_at, &keys);
            for (int s = 0; s < line.count; s++) {
                const REAL weight = exp(naive_score(numbers, row, keys.k + s * keys.k_step, keys.k_dim) - base);
                const REAL dscore = weight * (dot_out(gradient, STRIDE(GPU_DOUT, GPU_STRIDE_DIM),
                                                      keys.v + s * keys.v_step, keys.v_dim, numbers[GPU_VALUE_DIM]) -
                                              delta);
                for (long d = 0; d < n; d++)
                    sums[d * rows] += dscore * IN_LOAD(keys.k, s * keys.k_step + d * keys.k_dim);
            }
        } while (next_line(numbers, &line));
        const long place = dq_at + token_place(numbers, GPU_DQ, &query);
        for (long d = 0; d < n; d++)
            IN_STORE(dq, place + d * STRIDE(GPU_DQ, GPU_STRIDE_DIM), sums[d * rows] * SCALE);
    }
}

/* ---- What a key or an extra token sums --------------------------------------------------------------------------- */

/* A row of keys and values, and where its gradients are summed. */
typedef struct PAIRED {
    GLOBAL const IN *k, *v;
    long k_dim, v_dim;
    GLOBAL REAL *dk, *dv;
    long step; /* of the sums */
} PAIRED;

static void add_query(GLOBAL const long *numbers, const PAIRED *row, const TOKEN *query, GLOBAL const IN *q,
                      GLOBAL const OUT *dout, GLOBAL const REAL *lse, GLOBAL const REAL *deltas)
{
    const long q_dim = STRIDE(GPU_Q, GPU_STRIDE_DIM), dout_dim = STRIDE(GPU_DOUT, GPU_STRIDE_DIM);
    q += token_place(numbers, GPU_Q, query);
    dout += token_place(numbers, GPU_DOUT, query);
    const REAL weight =
        exp(naive_score(numbers, q, row->k, row->k_dim) - lse[token_place(numbers, GPU_LSE, query)]);
    const REAL dscore = weight * (dot_out(dout, dout_dim, row->v, row->v_dim, numbers[GPU_VALUE_DIM]) -
                                  deltas[token_place(numbers, GPU_DELTA, query)]);
    for (long d = 0; d < numbers[GPU_HEAD_DIM]; d++)
        row->dk[d * row->step] += dscore * IN_LOAD(q, d * q_dim);
    for (long d = 0; d < numbers[GPU_VALUE_DIM]; d++)
        row->dv[d * row->step] += weight * OUT_LOAD(dout, d * dout_dim);
}

/* All queries that see a key, of one head. */
static void add_seers(GLOBAL const long *numbers, const PAIRED *row, SEERS *seers, TOKEN *query, GLOBAL const IN *q,
                      GLOBAL const OUT *dout, GLOBAL const REAL *lse, GLOBAL const REAL *deltas)
{
    do {
        for (int a = 0; a < RANK - 1; a++)
            query->at[a] = seers->first[a] + (int)numbers[GPU_STEP + a] * seers->at[a];
        for (int t = 0; t < seers->count[RANK - 1]; t++) {
            query->at[RANK - 1] = seers->first[RANK - 1] + (int)numbers[GPU_STEP + RANK - 1] * t;
            add_query(numbers, row, query, q, dout, lse, deltas);
        }
    } while (next_seers(seers));
}

KERNEL GROUP_ITEMS(ITEMS) void naive_dkv(GLOBAL const long *numbers, GLOBAL char *scratch, GLOBAL const IN *q,
                                         long q_at, GLOBAL const IN *k, long k_at, GLOBAL const IN *v, long v_at,
                                         GLOBAL const OUT *dout, long dout_at, GLOBAL const REAL *lse, long lse_at,
                                         GLOBAL IN *dk, long dk_at, GLOBAL IN *dv, long dv_at)
{
    const long rows = count_keys(numbers), n = numbers[GPU_HEAD_DIM], m = numbers[GPU_VALUE_DIM];
    const long group = numbers[GPU_HEADS] / numbers[GPU_KV_HEADS];
    GLOBAL const REAL *deltas = (GLOBAL const REAL *)(scratch + numbers[GPU_SCRATCH_DELTA]);
    EACH_ELEMENT(i, rows)
    {
        TOKEN key, query;
        SEERS seers;
        PAIRED row;
        token_at(numbers, GPU_KEY_EXTENT, numbers[GPU_KV_HEADS], i, &key);
        row.k = k + k_at + token_place(numbers, GPU_K, &key);
        row.v = v + v_at + token_place(numbers, GPU_V, &key);
        row.k_dim = STRIDE(GPU_K, GPU_STRIDE_DIM);
        row.v_dim = STRIDE(GPU_V, GPU_STRIDE_DIM);
        row.dk = naive_sums(numbers, scratch, i, rows, n + m);
        row.dv = row.dk + n * rows;
        row.step = rows;
        query.batch = key.batch;
        if (find_seers(numbers, &key, &seers))
            for (query.head = key.head * group; query.head < (key.head + 1) * group; query.head++)
                add_seers(numbers, &row, &seers, &query, q + q_at, dout + dout_at, lse + lse_at, deltas);
        const long dk_place = dk_at + token_place(numbers, GPU_DK, &key);
        const long dv_place = dv_at + token_place(numbers, GPU_DV, &key);
        for (long d = 0; d < n && dk_at >= 0; d++)
            IN_STORE(dk, dk_place + d * STRIDE(GPU_DK, GPU_STRIDE_DIM), row.dk[d * rows] * SCALE);
        for (long d = 0; d < m && dv_at >= 0; d++)
            IN_STORE(dv, dv_place + d * STRIDE(GPU_DV, GPU_STRIDE_DIM), row.dv[d * rows]);
    }
}

/* An extra token, and one part of the queries of all heads that share it. */
KERNEL GROUP_ITEMS(ITEMS) void naive_extra(GLOBAL const long *numbers, GLOBAL char *scratch, GLOBAL const IN *q,
                                           long q_at, GLOBAL const IN *extra_k, long extra_k_at,
                                           GLOBAL const IN *extra_v, long extra_v_at, GLOBAL const OUT *dout,
                                           long dout_at, GLOBAL const REAL *lse, long lse_at)
{
    const long extra = numbers[GPU_EXTRA], kv_heads = numbers[GPU_KV_HEADS], splits = numbers[GPU_SPLITS];
    const long queries = numbers[GPU_QUERIES], heads = numbers[GPU_HEADS], n = numbers[GPU_HEAD_DIM];
    const long group = heads / kv_heads, total = group * queries, streams = kv_heads * numbers[GPU_BATCH];
    GLOBAL const REAL *deltas = (GLOBAL const REAL *)(scratch + numbers[GPU_SCRATCH_DELTA]);
    EACH_ELEMENT(i, splits * streams * extra)
    {
        const long token = i % extra, stream = i / extra % streams, split = i / extra / streams;
        const long batch = stream / kv_heads, kv_head = stream % kv_heads, first = (batch * heads + kv_head * group);
        PAIRED row;
        row.k = extra_k + extra_k_at + base_of(numbers, GPU_EXTRA_K, batch, kv_head) +
                token * STRIDE_AXIS(GPU_EXTRA_K, 0);
        row.v = extra_v + extra_v_at + base_of(numbers, GPU_EXTRA_V, batch, kv_head) +
                token * STRIDE_AXIS(GPU_EXTRA_V, 0);
        row.k_dim = STRIDE(GPU_EXTRA_K, GPU_STRIDE_DIM);
        row.v_dim = STRIDE(GPU_EXTRA_V, GPU_STRIDE_DIM);
        row.dk = partial_of(numbers, scratch, split, stream, token);
        row.dv = row.dk + n;
        row.step = 1;
        for (long d = 0; d < n + numbers[GPU_VALUE_DIM]; d++)
            row.dk[d] = 0;
        for (long t = total * split / splits; t < total * (split + 1) / splits; t++) {
            TOKEN query;
            token_at(numbers, GPU_QUERY_EXTENT, heads, first * queries + t, &query);
            add_query(numbers, &row, &query, q + q_at, dout + dout_at, lse + lse_at, deltas);
        }
        for (long d = 0; d < n; d++)
            row.dk[d] *= SCALE;
    }
}
