/* The shape that keeps scores in memory: a slot for each key of the window of each query, and for each extra token. An
 * entry point per pass over them, an item per element of what it writes; the fused shapes are much faster. No local
 * memory, no barrier, no sum that two items share.
 *
 * Scores are the caller's, or the plan's own in scratch memory, where queries follow each other: [batch, heads, slots,
 * queries]. Slots that do not exist are never read. */

/* The numbers of this item's elements. */
#define EACH_ELEMENT(i, count) for (long i = GROUP_INDEX * ITEMS + ITEM_INDEX; i < (count); i += GROUP_COUNT * ITEMS)

/* Scores or their gradient, the caller's where there is an offset. */
typedef struct SCORES {
    GLOBAL REAL *data;
    int tensor;
} SCORES;

static void find_scores(GLOBAL const long *numbers, GLOBAL char *scratch, int own, GLOBAL REAL *data, long at,
                        int tensor, SCORES *scores)
{
    scores->data = at < 0 ? (GLOBAL REAL *)(scratch + numbers[own]) : data + at;
    scores->tensor = at < 0 ? GPU_OWN : tensor;
}

/* A query or a key: tensor indices. */
typedef struct TOKEN {
    long batch, head;
    int at[RANK];
} TOKEN;

/* The index-th of [batch, heads, axes]; extents: GPU_QUERY_EXTENT or GPU_KEY_EXTENT. */
static void token_at(GLOBAL const long *numbers, int extents, long heads, long index, TOKEN *token)
{
    for (int a = RANK - 1; a >= 0; a--) {
        token->at[a] = (int)(index % numbers[extents + a]);
        index /= numbers[extents + a];
    }
    token->head = index % heads;
    token->batch = index / heads;
}

static long token_place(GLOBAL const long *numbers, int tensor, const TOKEN *token)
{
    long place = base_of(numbers, tensor, token->batch, token->head);
    for (int a = 0; a < RANK; a++)
        place += token->at[a] * STRIDE_AXIS(tensor, a);
    return place;
}

static long kv_head_of(GLOBAL const long *numbers, const TOKEN *query)
{
    return query->head * numbers[GPU_KV_HEADS] / numbers[GPU_HEADS];
}

static GLOBAL const int *sight_of(GLOBAL const long *numbers, int axis, int query)
{
    return INTS + numbers[GPU_SIGHT + axis] + (long)query * GPU_SIGHT_WORDS;
}

static long count_rows(GLOBAL const long *numbers)
{
    return numbers[GPU_BATCH] * numbers[GPU_HEADS] * numbers[GPU_QUERIES];
}

/* ---- Slots of a query -------------------------------------------------------------------------------------------- */

/* Slots that exist, in lines along the last axis; extra tokens, be there none, are the last line. */
typedef struct LINE {
    int at[RANK];    /* the line's first slot, per axis */
    int slot, count; /* and among all */
    bool extra;
    int begin[RANK], end[RANK], origin[RANK];
} LINE;

static void set_line(GLOBAL const long *numbers, LINE *line)
{
    line->slot = 0;
    for (int a = 0; a < RANK; a++)
        line->slot = line->slot * (int)numbers[GPU_WINDOW + a] + line->at[a];
    line->count = line->end[RANK - 1] - line->begin[RANK - 1];
    if (line->extra) {
        line->count = (int)numbers[GPU_EXTRA];
        line->slot = (int)numbers[GPU_SLOTS] - line->count;
    }
}

static void first_line(GLOBAL const long *numbers, const TOKEN *query, LINE *line)
{
    line->extra = false;
    for (int a = 0; a < RANK; a++) {
        GLOBAL const int *sight = sight_of(numbers, a, query->at[a]);
        line->begin[a] = line->at[a] = sight[GPU_SIGHT_BEGIN];
        line->end[a] = sight[GPU_SIGHT_END];
        line->origin[a] = sight[GPU_SIGHT_ORIGIN];
        line->extra = line->extra || line->begin[a] >= line->end[a];
    }
    set_line(numbers, line);
}

static bool next_line(GLOBAL const long *numbers, LINE *line)
{
    if (line->extra)
        return false;
    int a = RANK - 2;
    while (a >= 0 && ++line->at[a] == line->end[a]) {
        line->at[a] = line->begin[a];
        a--;
    }
    line->extra = a < 0;
    set_line(numbers, line);
    return true;
}

/* Where the first key of a line lies in the tensor of the grid's keys or of the extra tokens, whichever it is. */
static long line_place(GLOBAL const long *numbers, const LINE *line, int tensor)
{
    long place = 0;
    if (!line->extra)
        for (int a = 0; a < RANK; a++)
            place += (line->origin[a] + numbers[GPU_STEP + a] * line->at[a]) * STRIDE_AXIS(tensor, a);
    return place;
}

static long line_step(GLOBAL const long *numbers, const LINE *line, int tensor)
{
    return line->extra ? STRIDE_AXIS(tensor, 0) : numbers[GPU_STEP + RANK - 1] * STRIDE_AXIS(tensor, RANK - 1);
}

/* ---- A pass that writes slots ------------------------------------------------------------------------------------ */

/* One slot of one query: where it lies, and the key's place if it exists. */
typedef struct SLOT {
    TOKEN query;
    long place, key;
    bool exists, extra;
} SLOT;

/* The index-th, in the order of memory. tensors: of the grid's keys and of the extra tokens. */
static void slot_at(GLOBAL const long *numbers, const SCORES *scores, int tensor, int extra_tensor, long index,
                    SLOT *slot)
{
    const long slots = numbers[GPU_SLOTS], queries = numbers[GPU_QUERIES];
    const bool own = scores->tensor == GPU_OWN;
    const long row = own ? index / queries / slots * queries + index % queries : index / slots;
    int number = (int)(own ? index / queries % slots : index % slots);
    const int grid = (int)(slots - numbers[GPU_EXTRA]);
    token_at(numbers, GPU_QUERY_EXTENT, numbers[GPU_HEADS], row, &slot->query);
    slot->place = token_place(numbers, scores->tensor, &slot->query) + number * STRIDE(scores->tensor, GPU_STRIDE_DIM);
    slot->extra = number >= grid;
    slot->exists = true;
    slot->key =
        base_of(numbers, slot->extra ? extra_tensor : tensor, slot->query.batch, kv_head_of(numbers, &slot->query));
    if (slot->extra) {
        slot->key += (number - grid) * STRIDE_AXIS(extra_tensor, 0);
        return;
    }
    for (int a = RANK - 1; a >= 0; a--) {
        GLOBAL const int *sight = sight_of(numbers, a, slot->query.at[a]);
        const int window = (int)numbers[GPU_WINDOW + a], at = number % window;
        number /= window;
        slot->exists = slot->exists && sight[GPU_SIGHT_BEGIN] <= at && at < sight[GPU_SIGHT_END];
        slot->key += (sight[GPU_SIGHT_ORIGIN] + numbers[GPU_STEP + a] * at) * STRIDE_AXIS(tensor, a);
    }
}

#define DEFINE_DOT(NAME, TYPE, LOAD)                                                                                   \
    static REAL NAME(GLOBAL const TYPE *x, long x_step, GLOBAL const IN *y, long y_step, long n)                       \
    {                                                                                                                  \
        REAL sum = 0;                                                                                                  \
        for (long i = 0; i < n; i++)                                                                                   \
            sum += LOAD(x, i * x_step) * IN_LOAD(y, i * y_step);                                                       \
        return sum;                                                                                                    \
    }
DEFINE_DOT(dot_in, IN, IN_LOAD)
DEFINE_DOT(dot_out, OUT, OUT_LOAD)

/* scores = scale q k^T */
KERNEL GROUP_ITEMS(ITEMS) void unfused_qk(GLOBAL const long *numbers, GLOBAL char *scratch, GLOBAL const IN *q,
                                          long q_at, GLOBAL const IN *k, long k_at, GLOBAL const IN *extra_k,
                                          long extra_k_at, GLOBAL REAL *scores, long scores_at)
{
    SCORES w;
    find_scores(numbers, scratch, GPU_SCRATCH_SCORES, scores, scores_at, GPU_SCORES, &w);
    EACH_ELEMENT(i, count_rows(numbers) * numbers[GPU_SLOTS])
    {
        SLOT slot;
        slot_at(numbers, &w, GPU_K, GPU_EXTRA_K, i, &slot);
        REAL value = -INFINITY;
        if (slot.exists)
            value = SCALE * dot_in(q + q_at + token_place(numbers, GPU_Q, &slot.query), STRIDE(GPU_Q, GPU_STRIDE_DIM),
                                   (slot.extra ? extra_k + extra_k_at : k + k_at) + slot.key,
                                   STRIDE(slot.extra ? GPU_EXTRA_K : GPU_K, GPU_STRIDE_DIM), numbers[GPU_HEAD_DIM]);
        w.data[slot.place] = value;
    }
}

/* dscores = dout v^T */
KERNEL GROUP_ITEMS(ITEMS) void unfused_dout_v(GLOBAL const long *numbers, GLOBAL char *scratch, GLOBAL const OUT *dout,
                                              long dout_at, GLOBAL const IN *v, long v_at, GLOBAL const IN *extra_v,
                                              long extra_v_at, GLOBAL REAL *dscores, long dscores_at)
{
    SCORES w;
    find_scores(numbers, scratch, GPU_SCRATCH_DSCORES, dscores, dscores_at, GPU_DSCORES, &w);
    EACH_ELEMENT(i, count_rows(numbers) * numbers[GPU_SLOTS])
    {
        SLOT slot;
        slot_at(numbers, &w, GPU_V, GPU_EXTRA_V, i, &slot);
        REAL value = 0;
        if (slot.exists)
            value = dot_out(dout + dout_at + token_place(numbers, GPU_DOUT, &slot.query),
                            STRIDE(GPU_DOUT, GPU_STRIDE_DIM), (slot.extra ? extra_v + extra_v_at : v + v_at) + slot.key,
                            STRIDE(slot.extra ? GPU_EXTRA_V : GPU_V, GPU_STRIDE_DIM), numbers[GPU_VALUE_DIM]);
        w.data[slot.place] = value;
    }
}

/* ---- Passes over the rows of the plan's own scores --------------------------------------------------------------- */

/* Scores become weights. */
KERNEL GROUP_ITEMS(ITEMS) void unfused_softmax(GLOBAL const long *numbers, GLOBAL char *scratch, GLOBAL REAL *lse,
                                               long lse_at)
{
    const long step = STRIDE(GPU_OWN, GPU_STRIDE_DIM);
    EACH_ELEMENT(i, count_rows(numbers))
    {
        TOKEN query;
        LINE line;
        token_at(numbers, GPU_QUERY_EXTENT, numbers[GPU_HEADS], i, &query);
        GLOBAL REAL *row =
            (GLOBAL REAL *)(scratch + numbers[GPU_SCRATCH_SCORES]) + token_place(numbers, GPU_OWN, &query);
        REAL top = -INFINITY, sum = 0;
        first_line(numbers, &query, &line);
        do
            for (int s = 0; s < line.count; s++) {
                const REAL score = row[(line.slot + s) * step];
                top = score > top ? score : top;
            }
        while (next_line(numbers, &line));
        /* A row that has seen nothing, or only NaN, has no max: any finite base serves, and NaN must get through. */
        const REAL base = top == -INFINITY ? 0 : top;
        first_line(numbers, &query, &line);
        do
            for (int s = 0; s < line.count; s++) {
                const REAL weight = exp(row[(line.slot + s) * step] - base);
                row[(line.slot + s) * step] = weight;
                sum += weight;
            }
        while (next_line(numbers, &line));
        const REAL inverse = sum == 0 ? 0 : 1 / sum;
        first_line(numbers, &query, &line);
        do
            for (int s = 0; s < line.count; s++)
                row[(line.slot + s) * step] *= inverse;
        while (next_line(numbers, &line));
        if (lse_at >= 0)
            lse[lse_at + token_place(numbers, GPU_LSE, &query)] = sum == 0 ? -INFINITY : base + log(sum);
    }
}

KERNEL GROUP_ITEMS(ITEMS) void unfused_delta(GLOBAL const long *numbers, GLOBAL char *scratch, GLOBAL const OUT *out,
                                             long out_at, GLOBAL const OUT *dout, long dout_at, GLOBAL const REAL *dlse,
                                             long dlse_at)
{
    EACH_ELEMENT(i, count_rows(numbers))
    {
        one_delta(numbers, i, out + out_at, dout + dout_at, dlse + dlse_at, dlse_at >= 0,
                  (GLOBAL REAL *)(scratch + numbers[GPU_SCRATCH_DELTA]));
    }
}

/* Scores become weights, and the gradients of weights those of scores. */
KERNEL GROUP_ITEMS(ITEMS) void unfused_gradient(GLOBAL const long *numbers, GLOBAL char *scratch,
                                                GLOBAL const REAL *lse, long lse_at)
{
    const long step = STRIDE(GPU_OWN, GPU_STRIDE_DIM);
    GLOBAL const REAL *deltas = (GLOBAL const REAL *)(scratch + numbers[GPU_SCRATCH_DELTA]);
    EACH_ELEMENT(i, count_rows(numbers))
    {
        TOKEN query;
        LINE line;
        token_at(numbers, GPU_QUERY_EXTENT, numbers[GPU_HEADS], i, &query);
        const long place = token_place(numbers, GPU_OWN, &query);
        GLOBAL REAL *row = (GLOBAL REAL *)(scratch + numbers[GPU_SCRATCH_SCORES]) + place;
        GLOBAL REAL *drow = (GLOBAL REAL *)(scratch + numbers[GPU_SCRATCH_DSCORES]) + place;
        const REAL base = lse[lse_at + token_place(numbers, GPU_LSE, &query)];
        const REAL delta = deltas[token_place(numbers, GPU_DELTA, &query)];
        first_line(numbers, &query, &line);
        do
            for (int s = 0; s < line.count; s++) {
                const long at = (line.slot + s) * step;
                const REAL weight = exp(row[at] - base);
                row[at] = weight;
                drow[at] = weight * (drow[at] - delta);
            }
        while (next_line(numbers, &line));
    }
}

/* ---- Passes that sum over the keys of a query -------------------------------------------------------------------- */

/* One dimension of the weighted sum of what a query sees. */
static REAL sum_keys(GLOBAL const long *numbers, const SCORES *scores, const TOKEN *query, int tensor,
                     GLOBAL const IN *keys, int extra_tensor, GLOBAL const IN *extra, long dim)
{
    const long w_step = STRIDE(scores->tensor, GPU_STRIDE_DIM), kv_head = kv_head_of(numbers, query);
    GLOBAL const REAL *row = scores->data + token_place(numbers, scores->tensor, query);
    LINE line;
    REAL sum = 0;
    first_line(numbers, query, &line);
    do {
        const int from = line.extra ? extra_tensor : tensor;
        GLOBAL const IN *x = line.extra ? extra : keys;
        const long place = base_of(numbers, from, query->batch, kv_head) + line_place(numbers, &line, from) +
                           dim * STRIDE(from, GPU_STRIDE_DIM);
        const long step = line_step(numbers, &line, from);
        for (int s = 0; s < line.count; s++)
            sum += row[(line.slot + s) * w_step] * IN_LOAD(x, place + s * step);
    } while (next_line(numbers, &line));
    return sum;
}

/* out = scores v */
KERNEL GROUP_ITEMS(ITEMS) void unfused_av(GLOBAL const long *numbers, GLOBAL char *scratch, GLOBAL REAL *scores,
                                          long scores_at, GLOBAL const IN *v, long v_at, GLOBAL const IN *extra_v,
                                          long extra_v_at, GLOBAL OUT *out, long out_at)
{
    SCORES w;
    find_scores(numbers, scratch, GPU_SCRATCH_SCORES, scores, scores_at, GPU_SCORES, &w);
    const long n = numbers[GPU_VALUE_DIM];
    EACH_ELEMENT(i, count_rows(numbers) * n)
    {
        TOKEN query;
        token_at(numbers, GPU_QUERY_EXTENT, numbers[GPU_HEADS], i / n, &query);
        const REAL sum = sum_keys(numbers, &w, &query, GPU_V, v + v_at, GPU_EXTRA_V, extra_v + extra_v_at, i % n);
        const long place = out_at + token_place(numbers, GPU_OUT, &query) + i % n * STRIDE(GPU_OUT, GPU_STRIDE_DIM);
        OUT_STORE(out, place, sum);
    }
}

/* dq = scale dscores k */
KERNEL GROUP_ITEMS(ITEMS) void unfused_dq(GLOBAL const long *numbers, GLOBAL char *scratch, GLOBAL REAL *dscores,
                                          long dscores_at, GLOBAL const IN *k, long k_at, GLOBAL const IN *extra_k,
                                          long extra_k_at, GLOBAL IN *dq, long dq_at)
{
    SCORES w;
    find_scores(numbers, scratch, GPU_SCRATCH_DSCORES, dscores, dscores_at, GPU_DSCORES, &w);
    const long n = numbers[GPU_HEAD_DIM];
    EACH_ELEMENT(i, count_rows(numbers) * n)
    {
        TOKEN query;
        token_at(numbers, GPU_QUERY_EXTENT, numbers[GPU_HEADS], i / n, &query);
        const REAL sum = sum_keys(numbers, &w, &query, GPU_K, k + k_at, GPU_EXTRA_K, extra_k + extra_k_at, i % n);
        const long place = dq_at + token_place(numbers, GPU_DQ, &query) + i % n * STRIDE(GPU_DQ, GPU_STRIDE_DIM);
        IN_STORE(dq, place, sum * SCALE);
    }
}

/* ---- Passes that sum over the queries of a key ------------------------------------------------------------------- */

/* Queries that see a key, in lines along the last axis. */
typedef struct SEERS {
    int position[RANK]; /* of the key in its class */
    int first[RANK], count[RANK], at[RANK];
} SEERS;

/* Returns whether there are any. */
static bool find_seers(GLOBAL const long *numbers, const TOKEN *key, SEERS *seers)
{
    bool any = true;
    for (int a = 0; a < RANK; a++) {
        GLOBAL const int *inverse = INTS + numbers[GPU_INVERSE + a] + (long)key->at[a] * GPU_INVERSE_WORDS;
        seers->position[a] = inverse[GPU_INVERSE_POSITION];
        seers->first[a] = inverse[GPU_INVERSE_QUERY];
        seers->count[a] = inverse[GPU_INVERSE_COUNT];
        seers->at[a] = 0;
        any = any && seers->count[a] > 0;
    }
    return any;
}

/* Past the last line it is at the first again. */
static bool next_seers(SEERS *seers)
{
    int a = RANK - 2;
    while (a >= 0 && ++seers->at[a] == seers->count[a])
        seers->at[a--] = 0;
    return a >= 0;
}

/* The slot of the key, on an axis, that a query has. */
static int slot_on(GLOBAL const long *numbers, const SEERS *seers, int axis, int query)
{
    return seers->position[axis] - sight_of(numbers, axis, query)[GPU_SIGHT_FIRST];
}

/* One dimension of the weighted sum of the queries that see a key, of one head. */
#define DEFINE_SUM_QUERIES(NAME, TYPE, LOAD)                                                                           \
    static REAL NAME(GLOBAL const long *numbers, const SCORES *scores, SEERS *seers, long batch, long head,            \
                     int tensor, GLOBAL const TYPE *x, long dim)                                                       \
    {                                                                                                                  \
        const long w_step = STRIDE(scores->tensor, GPU_STRIDE_DIM), last_window = numbers[GPU_WINDOW + RANK - 1];      \
        const int last_step = (int)numbers[GPU_STEP + RANK - 1];                                                       \
        REAL sum = 0;                                                                                                  \
        do {                                                                                                           \
            long slot = 0, w_place = base_of(numbers, scores->tensor, batch, head);                                    \
            long place = base_of(numbers, tensor, batch, head) + dim * STRIDE(tensor, GPU_STRIDE_DIM);                 \
            for (int a = 0; a < RANK - 1; a++) {                                                                       \
                const int query = seers->first[a] + (int)numbers[GPU_STEP + a] * seers->at[a];                         \
                slot = slot * numbers[GPU_WINDOW + a] + slot_on(numbers, seers, a, query);                             \
                w_place += query * STRIDE_AXIS(scores->tensor, a);                                                     \
                place += query * STRIDE_AXIS(tensor, a);                                                               \
            }                                                                                                          \
            for (int t = 0; t < seers->count[RANK - 1]; t++) {                                                         \
                const int query = seers->first[RANK - 1] + last_step * t;                                              \
                const long at = slot * last_window + slot_on(numbers, seers, RANK - 1, query);                         \
                sum += scores->data[w_place + query * STRIDE_AXIS(scores->tensor, RANK - 1) + at * w_step] *           \
                       LOAD(x, place + query * STRIDE_AXIS(tensor, RANK - 1));                                         \
            }                                                                                                          \
        } while (next_seers(seers));                                                                                   \
        return sum;                                                                                                    \
    }
DEFINE_SUM_QUERIES(sum_queries_in, IN, IN_LOAD)
DEFINE_SUM_QUERIES(sum_queries_out, OUT, OUT_LOAD)

static long count_keys(GLOBAL const long *numbers)
{
    return numbers[GPU_BATCH] * numbers[GPU_KV_HEADS] * numbers[GPU_KEYS];
}

/* dk = scale dscores^T q */
KERNEL GROUP_ITEMS(ITEMS) void unfused_dk(GLOBAL const long *numbers, GLOBAL char *scratch, GLOBAL REAL *dscores,
                                          long dscores_at, GLOBAL const IN *q, long q_at, GLOBAL IN *dk, long dk_at)
{
    SCORES w;
    find_scores(numbers, scratch, GPU_SCRATCH_DSCORES, dscores, dscores_at, GPU_DSCORES, &w);
    const long n = numbers[GPU_HEAD_DIM], group = numbers[GPU_HEADS] / numbers[GPU_KV_HEADS];
    EACH_ELEMENT(i, count_keys(numbers) * n)
    {
        TOKEN key;
        SEERS seers;
        REAL sum = 0;
        token_at(numbers, GPU_KEY_EXTENT, numbers[GPU_KV_HEADS], i / n, &key);
        if (find_seers(numbers, &key, &seers))
            for (long h = key.head * group; h < (key.head + 1) * group; h++)
                sum += sum_queries_in(numbers, &w, &seers, key.batch, h, GPU_Q, q + q_at, i % n);
        const long place = dk_at + token_place(numbers, GPU_DK, &key) + i % n * STRIDE(GPU_DK, GPU_STRIDE_DIM);
        IN_STORE(dk, place, sum * SCALE);
    }
}

/* dv = scores^T dout */
KERNEL GROUP_ITEMS(ITEMS) void unfused_dv(GLOBAL const long *numbers, GLOBAL char *scratch, GLOBAL REAL *scores,
                                          long scores_at, GLOBAL const OUT *dout, long dout_at, GLOBAL IN *dv,
                                          long dv_at)
{
    SCORES w;
    find_scores(numbers, scratch, GPU_SCRATCH_SCORES, scores, scores_at, GPU_SCORES, &w);
    const long n = numbers[GPU_VALUE_DIM], group = numbers[GPU_HEADS] / numbers[GPU_KV_HEADS];
    EACH_ELEMENT(i, count_keys(numbers) * n)
    {
        TOKEN key;
        SEERS seers;
        REAL sum = 0;
        token_at(numbers, GPU_KEY_EXTENT, numbers[GPU_KV_HEADS], i / n, &key);
        if (find_seers(numbers, &key, &seers))
            for (long h = key.head * group; h < (key.head + 1) * group; h++)
                sum += sum_queries_out(numbers, &w, &seers, key.batch, h, GPU_DOUT, dout + dout_at, i % n);
        const long place = dv_at + token_place(numbers, GPU_DV, &key) + i % n * STRIDE(GPU_DV, GPU_STRIDE_DIM);
        IN_STORE(dv, place, sum);
    }
}

/* ---- Gradients of extra tokens ----------------------------------------------------------------------------------- */

/* One dimension of an extra token's gradient, over one part of the queries of all heads that share it: the index-th. */
#define DEFINE_SUM_PART(NAME, TYPE, LOAD)                                                                              \
    static void NAME(GLOBAL const long *numbers, GLOBAL char *scratch, const SCORES *scores, int tensor,               \
                     GLOBAL const TYPE *x, long index, long n, long first, REAL factor)                                \
    {                                                                                                                  \
        const long extra = numbers[GPU_EXTRA], kv_heads = numbers[GPU_KV_HEADS], splits = numbers[GPU_SPLITS];         \
        const long queries = numbers[GPU_QUERIES], group = numbers[GPU_HEADS] / kv_heads, total = group * queries;     \
        const long dim = index % n, token = index / n % extra, streams = kv_heads * numbers[GPU_BATCH];                \
        const long stream = index / n / extra % streams, split = index / n / extra / streams;                          \
        const long slot = (numbers[GPU_SLOTS] - extra + token) * STRIDE(scores->tensor, GPU_STRIDE_DIM);               \
        const long batch = stream / kv_heads, head = stream % kv_heads * group;                                        \
        REAL sum = 0;                                                                                                  \
        for (long i = total * split / splits; i < total * (split + 1) / splits; i++) {                                 \
            const long w_place = base_of(numbers, scores->tensor, batch, head + i / queries) +                         \
                                 query_place(numbers, scores->tensor, i % queries);                                    \
            const long place = base_of(numbers, tensor, batch, head + i / queries) +                                   \
                               query_place(numbers, tensor, i % queries) + dim * STRIDE(tensor, GPU_STRIDE_DIM);       \
            sum += scores->data[w_place + slot] * LOAD(x, place);                                                      \
        }                                                                                                              \
        partial_of(numbers, scratch, split, stream, token)[first + dim] = sum * factor;                                \
    }
DEFINE_SUM_PART(sum_part_in, IN, IN_LOAD)
DEFINE_SUM_PART(sum_part_out, OUT, OUT_LOAD)

static long count_parts(GLOBAL const long *numbers)
{
    return numbers[GPU_SPLITS] * numbers[GPU_BATCH] * numbers[GPU_KV_HEADS] * numbers[GPU_EXTRA];
}

KERNEL GROUP_ITEMS(ITEMS) void unfused_extra_dk(GLOBAL const long *numbers, GLOBAL char *scratch, GLOBAL REAL *dscores,
                                                long dscores_at, GLOBAL const IN *q, long q_at)
{
    SCORES w;
    find_scores(numbers, scratch, GPU_SCRATCH_DSCORES, dscores, dscores_at, GPU_DSCORES, &w);
    const long n = numbers[GPU_HEAD_DIM];
    EACH_ELEMENT(i, count_parts(numbers) * n)
    {
        sum_part_in(numbers, scratch, &w, GPU_Q, q + q_at, i, n, 0, SCALE);
    }
}

KERNEL GROUP_ITEMS(ITEMS) void unfused_extra_dv(GLOBAL const long *numbers, GLOBAL char *scratch, GLOBAL REAL *scores,
                                                long scores_at, GLOBAL const OUT *dout, long dout_at)
{
    SCORES w;
    find_scores(numbers, scratch, GPU_SCRATCH_SCORES, scores, scores_at, GPU_SCORES, &w);
    const long n = numbers[GPU_VALUE_DIM], first = numbers[GPU_HEAD_DIM];
    EACH_ELEMENT(i, count_parts(numbers) * n)
    {
        sum_part_out(numbers, scratch, &w, GPU_DOUT, dout + dout_at, i, n, first, 1);
    }
}

KERNEL GROUP_ITEMS(ITEMS) void unfused_extra_sum(GLOBAL const long *numbers, GLOBAL char *scratch, GLOBAL IN *dextra_k,
                                                 long dextra_k_at, GLOBAL IN *dextra_v, long dextra_v_at)
{
    EACH_ELEMENT(i, extra_elements(numbers))
    {
        sum_extra(numbers, scratch, i, dextra_k, dextra_k_at, dextra_v, dextra_v_at);
    }
}
