/* Forward on tensor cores: a block's warps keep their rows of the result in registers while tiles of keys, and of
 * values, pass through shared memory in turns. Nothing of scores or weights leaves the registers.
 *
 * Every thread takes the same way through loops and branches that hold barriers, every lane of a warp through those
 * that hold collectives. */

enum { KEYS, VALUES, KINDS };                /* tensors of columns */
enum { ROW_Q, ROW_OUT, ROW_LSE, ROW_KINDS }; /* tensors of rows */

/* Keys, or values, that a barrier hands over at once. */
enum { STEP = DIMS > 128 ? 32 : 64, STEP_BYTES = STEP * LINE_BYTES };

/* Tables of a block. The launch gives it lines: those of its queries, then a ring of steps, keys and values
 * alternating. Both together fit a multiprocessor of 164 KiB twice; cu_mma_plan.c counts them, too. */
template <int BLOCKS> struct FORWARD {
    enum {
        ROWS = WARPS * UNIT * BLOCKS,
        LINES_BYTES = 64 << 10,
        MOST_STEPS = 4,
        ROOM = (LINES_BYTES - ROWS * LINE_BYTES) / STEP_BYTES,
        RING = ROOM < MOST_STEPS ? ROOM : MOST_STEPS
    };
    HULL<KINDS> hull;
    SIGHT<ROWS> sight;
    LINES<ROWS, ROW_KINDS> lines;
    SOURCE source[KINDS];
};

/* What a call is about. */
typedef struct CALL {
    const long *numbers;
    const ushort *q, *k, *v, *extra_k, *extra_v;
    void *out;
    float *lse; /* or NULL */
} CALL;

/* What a lane's rows have seen: the largest score, of all columns, and of its own columns the sum of exponentials. */
template <int BLOCKS> struct SOFTMAX {
    float largest[BLOCKS][2], sum[BLOCKS][2];
};

#define EACH_BLOCK(b) UNROLLED(int b = 0; b < BLOCKS; b++)
#define EACH_HALF(h) UNROLLED(int h = 0; h < 2; h++)
#define EACH_EIGHT(j, n) UNROLLED(int j = 0; j < (n) / 8; j++)

/* ---- Steps ------------------------------------------------------------------------------------------------------- */

/* The next step to be copied, and where it goes. */
typedef struct FEED {
    SPOT spot;
    int left, kind, slot;
} FEED;

template <int BLOCKS> static void begin_feed(const FORWARD<BLOCKS> *shared, int steps, FEED *feed)
{
    seek_spot(&shared->hull, 0, &feed->spot);
    feed->left = KINDS * steps;
    feed->kind = feed->slot = 0;
}

/* Begins to copy the next step, if there is one. Makes a group in any case, so that waits can count them. */
template <int BLOCKS> static void copy_step(const FORWARD<BLOCKS> *shared, cu_address ring, FEED *feed)
{
    const HULL<KINDS> *hull = &shared->hull;
    const int kind = feed->kind, column = feed->spot.column;
    if (feed->left > 0)
        copy_lines(ring + feed->slot * STEP_BYTES, STEP, &shared->source[kind], hull->coordinates + column,
                   feed->spot.limit, hull->offset[kind] + column, tile_place(hull, kind, &feed->spot));
    cu_copy_async_commit();
    feed->left--;
    feed->kind = KINDS - 1 - kind;
    feed->slot = feed->slot + 1 == FORWARD<BLOCKS>::RING ? 0 : feed->slot + 1;
    if (kind == VALUES && feed->left > 0)
        next_spot(hull, STEP, &feed->spot);
}

/* Waits for a step that was copied, and gives the slot of the one before to the next. */
template <int BLOCKS> static void take_step(const FORWARD<BLOCKS> *shared, cu_address ring, FEED *feed)
{
    cu_copy_async_wait<FORWARD<BLOCKS>::RING - 2>();
    BARRIER();
    copy_step(shared, ring, feed);
}

/* ---- Softmax ----------------------------------------------------------------------------------------------------- */

/* Scores that rows do not see become -inf. */
template <int BLOCKS>
static void hide(const HULL<KINDS> *hull, const SPOT *spot, const MASK<BLOCKS> *mask, float (*s)[STEP / 8][4])
{
    EACH_EIGHT(j, STEP)
    {
        uint at[2];
        lane_coordinates(hull, spot, j, at);
        EACH_BLOCK(b)
        {
            EACH_HALF(h)
            {
                if (!is_between(mask->low[b][h], at[0], mask->high[b][h]))
                    s[b][j][2 * h] = -INFINITY;
                if (!is_between(mask->low[b][h], at[1], mask->high[b][h]))
                    s[b][j][2 * h + 1] = -INFINITY;
            }
        }
    }
}

/* Over the four lanes that share a row. */
static float row_max(float x)
{
    x = fmaxf(x, cu_shuffle_xor(x, 1));
    return fmaxf(x, cu_shuffle_xor(x, 2));
}

static float row_sum(float x)
{
    x += cu_shuffle_xor(x, 1);
    return x + cu_shuffle_xor(x, 2);
}

/* Turns scores into weights, and shrinks what has been summed to match. A factor of 1 changes no bit, so that it may be
 * left out where all rows of a warp have it. */
template <int BLOCKS>
static void weigh(float factor, float (*s)[STEP / 8][4], float (*sum)[DIMS / 8][4], SOFTMAX<BLOCKS> *state)
{
    float shrink[BLOCKS][2];
    bool shrinks = false;
    EACH_BLOCK(b)
    {
        EACH_HALF(h)
        {
            const float old = state->largest[b][h];
            float top = old;
            EACH_EIGHT(j, STEP) top = fmaxf(top, fmaxf(s[b][j][2 * h], s[b][j][2 * h + 1]));
            top = row_max(top);
            /* A row that has seen nothing, or only NaN, has no max: any finite base serves, and NaN must get through.
             */
            const float base = top == -INFINITY ? 0 : top * factor;
            shrink[b][h] = top == old ? 1 : cu_exp2(old * factor - base);
            shrinks = shrinks || shrink[b][h] != 1;
            state->largest[b][h] = top;
            float part = 0;
            EACH_EIGHT(j, STEP)
            {
                EACH_HALF(e)
                {
                    const float weight = cu_exp2(fmaf(s[b][j][2 * h + e], factor, -base));
                    s[b][j][2 * h + e] = weight;
                    part += weight;
                }
            }
            state->sum[b][h] = state->sum[b][h] * shrink[b][h] + part;
        }
    }
    if (!cu_any(shrinks))
        return;
    EACH_BLOCK(b)
    {
        EACH_EIGHT(j, DIMS)
        {
            EACH_HALF(h)
            {
                sum[b][j][2 * h] *= shrink[b][h];
                sum[b][j][2 * h + 1] *= shrink[b][h];
            }
        }
    }
}

/* ---- Columns of one kind: the grid's, then extra tokens ---------------------------------------------------------- */

template <int BLOCKS>
static void meet_columns(const FORWARD<BLOCKS> *shared, cu_address rows, cu_address ring, int steps, bool all_seen,
                         bool careful, float factor, float (*sum)[DIMS / 8][4], SOFTMAX<BLOCKS> *state)
{
    const HULL<KINDS> *hull = &shared->hull;
    const SIGHT<FORWARD<BLOCKS>::ROWS> *sight = &shared->sight;
    const int dims = shared->source[KEYS].dims, value_dims = shared->source[VALUES].dims;
    FEED feed;
    SPOT spot;
    int slot = 0;
    begin_feed(shared, steps, &feed);
    seek_spot(hull, 0, &spot);
    if (all_seen)
        spot.full = true;
    UNROLLED(int i = 0; i < FORWARD<BLOCKS>::RING - 1; i++) copy_step(shared, ring, &feed);
    for (int step = 0; step < steps; step++) {
        uint weights[BLOCKS][STEP / UNIT][4];
        MASK<BLOCKS> mask;
        take_step(shared, ring, &feed);
        const VIEW view = look(sight, hull, &spot, STEP, &mask);
        if (view != SEES_NOTHING) {
            float s[BLOCKS][STEP / 8][4];
            multiply<BLOCKS, STEP>(rows, ring + slot * STEP_BYTES, dims, s);
            if (view == SEES_PART)
                hide(hull, &spot, &mask, s);
            weigh(factor, s, sum, state);
            round_weights<BLOCKS, STEP>(s, weights);
        }
        slot = slot + 1 == FORWARD<BLOCKS>::RING ? 0 : slot + 1;
        take_step(shared, ring, &feed);
        if (view == SEES_PART && careful) {
            uint seen[BLOCKS][STEP / UNIT][4];
            weigh_sight<BLOCKS, STEP>(hull, &spot, &mask, seen);
            accumulate_carefully<BLOCKS, STEP>(weights, seen, ring + slot * STEP_BYTES, value_dims, sum);
        } else if (view != SEES_NOTHING) {
            accumulate<BLOCKS, STEP>(weights, ring + slot * STEP_BYTES, value_dims, sum);
        }
        slot = slot + 1 == FORWARD<BLOCKS>::RING ? 0 : slot + 1;
        next_spot(hull, STEP, &spot);
        if (all_seen)
            spot.full = true;
    }
}

/* ---- Items ------------------------------------------------------------------------------------------------------- */

/* Extra tokens as the columns of an item. */
static void extra_columns(const long *numbers, ITEM *item)
{
    item->tiles = (numbers[GPU_EXTRA] + COLUMNS - 1) / COLUMNS;
    extra_box(0, (int)numbers[GPU_EXTRA], &item->hull);
    for (int a = 0; a < RANK; a++) {
        item->tile[a] = a == 0 ? COLUMNS : 1;
        item->full_begin[a] = 0;
        item->full_end[a] = item->hull.count[a];
    }
}

/* All that the rows of an item see, in `sum`, not yet divided by the sums of exponentials. */
template <int BLOCKS>
static void attend(const CALL *call, FORWARD<BLOCKS> *shared, cu_address rows, cu_address ring, ITEM *item, long batch,
                   long head, bool careful, float (*sum)[DIMS / 8][4], SOFTMAX<BLOCKS> *state)
{
    const long *numbers = call->numbers;
    const long kv_head = head * numbers[GPU_KV_HEADS] / numbers[GPU_HEADS];
    EACH_BLOCK(b)
    {
        EACH_HALF(h)
        {
            state->largest[b][h] = -INFINITY;
            state->sum[b][h] = 0;
        }
        EACH_EIGHT(j, DIMS) sum[b][j][0] = sum[b][j][1] = sum[b][j][2] = sum[b][j][3] = 0;
    }
    for (int extra = 0; extra < (numbers[GPU_EXTRA] ? 2 : 1); extra++) {
        const int tensors[KINDS] = {extra ? GPU_EXTRA_K : GPU_K, extra ? GPU_EXTRA_V : GPU_V};
        if (extra)
            extra_columns(numbers, item);
        BARRIER(); /* nobody reads the tables of what was before */
        if (ITEM_INDEX == KEYS)
            shared->source[KEYS] =
                open_source(numbers, tensors[KEYS], extra ? call->extra_k : call->k, numbers[GPU_HEAD_DIM]);
        if (ITEM_INDEX == VALUES)
            shared->source[VALUES] =
                open_source(numbers, tensors[VALUES], extra ? call->extra_v : call->v, numbers[GPU_VALUE_DIM]);
        open_hull(numbers, item, tensors, batch, kv_head, &shared->hull);
        meet_columns(shared, rows, ring, shared->hull.tiles * spots_of_tile(&shared->hull, STEP), extra != 0, careful,
                     SCALE * LOG2_E, sum, state);
    }
}

/* The places of an item's rows, and the lines of its queries. Copies are not yet a group. */
template <int BLOCKS>
static void open_rows(const CALL *call, FORWARD<BLOCKS> *shared, cu_address lines, const ITEM *item, long batch,
                      long head)
{
    const long *numbers = call->numbers;
    const int tensors[ROW_KINDS] = {GPU_Q, GPU_OUT, GPU_LSE};
    const SOURCE q = open_source(numbers, GPU_Q, call->q, numbers[GPU_HEAD_DIM]);
    BARRIER(); /* nobody reads those of the item before */
    find_sight(numbers, item, &shared->sight);
    place_rows(numbers, &item->rows, tensors, batch, head, &shared->lines);
    BARRIER();
    copy_lines(lines, FORWARD<BLOCKS>::ROWS, &q, shared->lines.coordinates, ROW_LIMIT, shared->lines.offset[ROW_Q], 0);
}

/* Two neighbors of a row of out. */
static void store_pair(const CALL *call, long place, long step, bool both, float first, float second)
{
    if (call->numbers[GPU_OUT_TYPE] == 0) {
        float *out = (float *)call->out + place;
        out[0] = first;
        if (both)
            out[step] = second;
    } else {
        ushort *out = (ushort *)call->out + place;
        const uint pair = PACK(first, second);
        out[0] = (ushort)pair;
        if (both)
            out[step] = (ushort)(pair >> 16);
    }
}

template <int BLOCKS>
static void store_rows(const CALL *call, const FORWARD<BLOCKS> *shared, float (*sum)[DIMS / 8][4],
                       const SOFTMAX<BLOCKS> *state)
{
    const long *numbers = call->numbers;
    const long step = STRIDE(GPU_OUT, GPU_STRIDE_DIM);
    const int dims = (int)numbers[GPU_VALUE_DIM];
    EACH_BLOCK(b)
    {
        EACH_HALF(h)
        {
            const int row = WARP * UNIT * BLOCKS + b * UNIT + h * UNIT / 2 + LANE / 4;
            const bool there = shared->lines.coordinates[row] == 0;
            const float total = state->sum[b][h], inverse = total == 0 ? 0 : 1 / total;
            EACH_EIGHT(j, DIMS)
            {
                const int dim = 8 * j + LANE % 4 * 2;
                if (there && dim < dims)
                    store_pair(call, shared->lines.offset[ROW_OUT][row] + dim * step, step, dim + 1 < dims,
                               sum[b][j][2 * h] * inverse, sum[b][j][2 * h + 1] * inverse);
            }
            if (there && call->lse && LANE % 4 == 0)
                call->lse[shared->lines.offset[ROW_LSE][row]] =
                    total == 0 ? -INFINITY : state->largest[b][h] * (SCALE * LOG2_E) * LN_2 + logf(total);
        }
    }
}

/* Items of one row tile each. */
template <int BLOCKS> static void run_forward(const CALL *call)
{
    DYNAMIC_SHARED(memory);
    LOCAL_VARIABLE(FORWARD<BLOCKS>, tables);
    FORWARD<BLOCKS> *shared = &tables;
    const cu_address lines = cu_address_of(memory);
    const cu_address rows = lines + WARP * UNIT * BLOCKS * LINE_BYTES;
    const cu_address ring = lines + FORWARD<BLOCKS>::ROWS * LINE_BYTES;
    const long *numbers = call->numbers;
    const long heads = numbers[GPU_HEADS], in_walk = numbers[GPU_BY_QUERY + GPU_WALK_ITEMS];
    for (long index = GROUP_INDEX; index < in_walk * heads * numbers[GPU_BATCH]; index += GROUP_COUNT) {
        const long head = index / in_walk % heads, batch = index / in_walk / heads;
        float sum[BLOCKS][DIMS / 8][4];
        SOFTMAX<BLOCKS> state;
        for (int careful = 0; careful < 2; careful++) {
            ITEM item;
            open_item(numbers, GPU_BY_QUERY, index % in_walk, &item);
            open_rows(call, shared, lines, &item, batch, head);
            attend(call, shared, rows, ring, &item, batch, head, careful != 0, sum, &state);
            EACH_BLOCK(b)
            {
                EACH_HALF(h) state.sum[b][h] = row_sum(state.sum[b][h]);
            }
            if (!cu_barrier_or(!careful && is_not_finite<BLOCKS>(sum)))
                break;
        }
        store_rows(call, shared, sum, &state);
    }
}

#define DEFINE_FORWARD(NAME, BLOCKS)                                                                                   \
    KERNEL __launch_bounds__(ITEMS, 2) void NAME(const long *numbers, char *scratch, const ushort *q, long q_at,       \
                                                 const ushort *k, long k_at, const ushort *v, long v_at,               \
                                                 const ushort *extra_k, long extra_k_at, const ushort *extra_v,        \
                                                 long extra_v_at, void *out, long out_at, float *lse, long lse_at)     \
    {                                                                                                                  \
        const CALL call = {numbers, q, k, v, extra_k, extra_v, out, lse_at >= 0 ? lse : NULL};                         \
        run_forward<BLOCKS>(&call);                                                                                    \
    }

DEFINE_FORWARD(mma_forward_64, 1)
#if DIMS <= 128
DEFINE_FORWARD(mma_forward_128, 2)
#define FORWARD_KERNELS(X) X(mma_forward_64) X(mma_forward_128)
#else
#define FORWARD_KERNELS(X) X(mma_forward_64)
#endif
