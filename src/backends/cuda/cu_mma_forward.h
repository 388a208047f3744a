/* Forward on tensor cores: a block's warps keep their rows of the result in registers while steps of keys, and of
 * values, pass through shared memory in turns. Nothing of scores or weights leaves the registers.
 *
 * Every thread takes the same way through loops and branches that hold barriers, every lane of a warp through those
 * that hold collectives. */

enum { STEP_KEYS, STEP_VALUES, STEP_KINDS, QUERY_LINES = STEP_KINDS, SOURCES }; /* tensors of columns */
enum { ROW_Q, ROW_OUT, ROW_LSE, ROW_KINDS };                                    /* tensors of rows */
enum {
    STEP = SPLIT        ? 2048 / DIMS
           : DIMS > 128 ? 32
                        : 64, /* keys, or values, that a barrier hands over at once */
    STEP_BYTES = PIECES * STEP * LINE_BYTES,
    RAW_BYTES = STEP * RAW_LINE_BYTES,
    PLACES = 4
};

/* Where a step lies: its spot, and the first column of its tile in both tensors. */
typedef struct PLACE {
    SPOT spot;
    long at[STEP_KINDS];
} PLACE;

/* Tables of a block. The launch gives it lines: those of its queries, then a ring of steps, keys and values
 * alternating. Both together fit a multiprocessor of 164 KiB twice; cu_mma_plan.c counts them, too. f32 has a step of
 * keys and one of values, and after them the same as they are copied, which fits one of 228 KiB twice. */
template <int BLOCKS> struct FORWARD {
    enum {
        ROWS = WARPS * UNIT * BLOCKS,
        ROW_BYTES = PIECES * ROWS * LINE_BYTES,
        LINES_BYTES = 64 << 10,
        MOST_STEPS = 4,
        ROOM = (LINES_BYTES - ROW_BYTES) / STEP_BYTES,
        RING = SPLIT               ? STEP_KINDS
               : ROOM < MOST_STEPS ? ROOM
                                   : MOST_STEPS,
        AHEAD = SPLIT ? RING : RING - 1 /* half steps that are on their way while one is met */
    };
    const long *numbers;
    ITEM item;
    PLACED<STEP_KINDS> hull;
    SIGHT<ROWS> sight;
    LINES<ROWS, ROW_KINDS> lines;
    SOURCE source[SOURCES];
    PLACE places[PLACES]; /* of step t in places[t % PLACES] */
    int steps;
    float factor;                  /* of scores, to have them in base 2 */
    float largest[ROWS];           /* score that a row has seen: registers are scarcer */
    float total[BLOCKS][2][ITEMS]; /* of a lane's columns, the exponentials of its rows */
    long batch, head;              /* of the item */
    long index;
    bool careful, extra;                                   /* its columns are extra tokens */
    unsigned char not_finite[PIECES * STEP * LINE_CHUNKS]; /* of values: see clean_lines */
};

/* What a call is about. */
typedef struct CALL {
    const long *numbers;
    const IN *q, *k, *v, *extra_k, *extra_v;
    void *out;
    float *lse; /* or NULL */
} CALL;

/* Where the lines of a warp's queries begin, and those of a slot of the ring. Found anew at each use: registers are
 * scarce.
 */
template <int BLOCKS> static cu_address warp_lines()
{
    DYNAMIC_SHARED(memory);
    return cu_address_of(memory) + WARP * UNIT * BLOCKS * LINE_BYTES;
}

template <int BLOCKS> static cu_address slot_lines(int slot)
{
    DYNAMIC_SHARED(memory);
    return cu_address_of(memory) + FORWARD<BLOCKS>::ROW_BYTES + slot * STEP_BYTES;
}

/* Where half steps are copied to: in turns, as they are met. */
template <int BLOCKS> static cu_address copied_lines(int slot)
{
    enum { RING = FORWARD<BLOCKS>::RING };
    return SPLIT ? slot_lines<BLOCKS>(RING) + slot * RAW_BYTES : slot_lines<BLOCKS>(slot);
}

/* ---- Steps ------------------------------------------------------------------------------------------------------- */

/* Of a step whose spot is there: the rest. */
template <int BLOCKS> static void put_place(FORWARD<BLOCKS> *shared, PLACE *place)
{
    ROLLED for (int kind = 0; kind < STEP_KINDS; kind++) place->at[kind] =
        tile_place(&shared->hull, kind, &place->spot);
}

/* The place of the step after another one's. In shared memory throughout: registers hold the sums. */
template <int BLOCKS> static void put_next_place(FORWARD<BLOCKS> *shared, int step)
{
    PLACE *place = &shared->places[(step + 1) % PLACES];
    place->spot = shared->places[step % PLACES].spot;
    next_spot(&shared->hull, STEP, &place->spot);
    put_place(shared, place);
}

template <int BLOCKS> static void find_first_places(FORWARD<BLOCKS> *shared)
{
    seek_spot(&shared->hull, 0, &shared->places[0].spot);
    put_place(shared, &shared->places[0]);
    put_next_place(shared, 0);
}

/* Begins to copy keys or values of a step, if there is such a step. Makes a group in any case: waits count them. */
template <int BLOCKS> static void copy_step(const FORWARD<BLOCKS> *shared, cu_address to, int step, int kind)
{
    const PLACE *place = &shared->places[step % PLACES];
    const int column = place->spot.column;
    if (step < shared->steps)
        copy_lines(to, STEP, &shared->source[kind], shared->hull.coordinates + column, place->spot.limit,
                   shared->hull.offset[kind] + column, place->at[kind]);
    cu_copy_async_commit();
}

/* Waits for the slot at hand, and gives the one before, which all have done with, to keys or values of a step. Of f32
 * it is the slot at hand whose copies have been split. */
template <int BLOCKS> static void take_slot(const FORWARD<BLOCKS> *shared, int slot, int step, int kind)
{
    enum { RING = FORWARD<BLOCKS>::RING, AHEAD = FORWARD<BLOCKS>::AHEAD };
    cu_copy_async_wait<AHEAD - 1>();
    split_lines<STEP>(copied_lines<BLOCKS>(slot), slot_lines<BLOCKS>(slot), &shared->source[kind], 1, shared->careful);
    BARRIER();
    const int half = STEP_KINDS * step + kind + AHEAD, free = SPLIT ? slot : slot ? slot - 1 : RING - 1;
    copy_step(shared, copied_lines<BLOCKS>(free), half / STEP_KINDS, half % STEP_KINDS);
}

/* ---- Softmax ----------------------------------------------------------------------------------------------------- */

/* 2 to the power of a score less its row's largest, times the factor. The largest scores of f32 are large: base would
 * be far from what is left of them. */
static float weight_of(float score, float top, float factor, float base)
{
    return cu_exp2(SPLIT ? (score - (top == -INFINITY ? 0 : top)) * factor : fmaf(score, factor, -base));
}

/* Turns scores of a block of rows into weights, and shrinks what has been summed to match. A factor of 1 changes no
 * bit, so that it may be left out where all rows have it. */
static void weigh(float factor, float (*s)[4], float (*sum)[4], float *largest, float (*total)[ITEMS])
{
    float shrink[2];
    EACH_HALF(h)
    {
        const float old = largest[h * UNIT / 2];
        float top = old, part = 0;
        EACH_EIGHT(j, STEP) top = fmaxf(top, fmaxf(s[j][2 * h], s[j][2 * h + 1]));
        top = row_max(top);
        /* A row that has seen nothing, or only NaN, has no max: any finite base serves, and NaN must get through. */
        const float base = top == -INFINITY ? 0 : top * factor;
        shrink[h] = top == old ? 1 : SPLIT ? weight_of(old, top, factor, base) : cu_exp2(old * factor - base);
        if (LANE % 4 == 0)
            largest[h * UNIT / 2] = top;
        EACH_EIGHT(j, STEP)
        {
            EACH_HALF(e)
            {
                s[j][2 * h + e] = weight_of(s[j][2 * h + e], top, factor, base);
                part += s[j][2 * h + e];
            }
        }
        total[h][ITEM_INDEX] = total[h][ITEM_INDEX] * shrink[h] + part;
    }
    if (!cu_any(shrink[0] != 1 || shrink[1] != 1))
        return;
    EACH_EIGHT(j, DIMS)
    {
        EACH_HALF(h)
        {
            sum[j][2 * h] *= shrink[h];
            sum[j][2 * h + 1] *= shrink[h];
        }
    }
}

/* ---- Columns of one kind: the grid's, then extra tokens ---------------------------------------------------------- */

template <int BLOCKS> static void meet_columns(FORWARD<BLOCKS> *shared, float (*sum)[DIMS / 8][4])
{
    enum { RING = FORWARD<BLOCKS>::RING, AHEAD = FORWARD<BLOCKS>::AHEAD };
    const HULL *hull = &shared->hull;
    const SIGHT<FORWARD<BLOCKS>::ROWS> *sight = &shared->sight;
    int slot = 0;
    ROLLED for (int half = 0; half < AHEAD; half++)
        copy_step(shared, copied_lines<BLOCKS>(half), half / STEP_KINDS, half % STEP_KINDS);
    ROLLED for (int step = 0; step < shared->steps; step++)
    {
        const SPOT *spot = &shared->places[step % PLACES].spot;
        WEIGHTS<STEP> weights[BLOCKS];
        uint low, high;
        take_slot(shared, slot, step, STEP_KEYS);
        if (ITEM_INDEX == step % WARPS * LANES)
            put_next_place(shared, step + 1); /* two steps ahead */
        const VIEW view = glance<BLOCKS>(sight, hull, spot, STEP, &low, &high);
        if (view != SEES_NOTHING) {
            float s[BLOCKS][STEP / 8][4];
            multiply<BLOCKS, STEP>(warp_lines<BLOCKS>(), slot_lines<BLOCKS>(slot), shared->source[STEP_KEYS].dims, s);
            if (view == SEES_PART)
                hide<BLOCKS, STEP>(hull, spot, low, high, s);
            EACH_BLOCK(b)
            weigh(shared->factor, s[b], sum[b], &shared->largest[lane_row<BLOCKS>(b, 0)], shared->total[b]);
            round_weights<BLOCKS, STEP>(s, weights);
        }
        slot = slot + 1 == RING ? 0 : slot + 1;
        take_slot(shared, slot, step, STEP_VALUES);
        if (shared->careful) {
            clean_lines<PIECES * STEP>(slot_lines<BLOCKS>(slot), shared->not_finite, ITEM_INDEX, ITEMS);
            BARRIER();
        }
        if (view != SEES_NOTHING) {
            accumulate<BLOCKS, STEP>(weights, slot_lines<BLOCKS>(slot), shared->source[STEP_VALUES].dims, sum);
            if (shared->careful) {
                uint first, last;
                const VIEW seen = glance<BLOCKS>(sight, hull, spot, STEP, &first, &last);
                spread_nan<BLOCKS, STEP>(hull, spot, seen, first, last, shared->not_finite, sum);
            }
        }
        slot = slot + 1 == RING ? 0 : slot + 1;
    }
}

/* ---- Items ------------------------------------------------------------------------------------------------------- */

/* The tables of the columns that an item sees in two tensors. */
template <int BLOCKS> static void open_tensors(const CALL *call, FORWARD<BLOCKS> *shared, bool extra)
{
    const long *numbers = shared->numbers;
    const long kv_head = quotient(shared->head * numbers[GPU_KV_HEADS], numbers[GPU_HEADS]);
    const int tensors[STEP_KINDS] = {extra ? GPU_EXTRA_K : GPU_K, extra ? GPU_EXTRA_V : GPU_V};
    BARRIER(); /* nobody reads the tables of what was before */
    if (ITEM_INDEX == 0) {
        shared->extra = extra;
        if (extra)
            extra_columns(numbers, &shared->item);
        else
            count_tiles(&shared->item);
        shared->source[STEP_KEYS] =
            open_source(numbers, tensors[STEP_KEYS], extra ? call->extra_k : call->k, numbers[GPU_HEAD_DIM]);
        shared->source[STEP_VALUES] =
            open_source(numbers, tensors[STEP_VALUES], extra ? call->extra_v : call->v, numbers[GPU_VALUE_DIM]);
    }
    open_hull(numbers, &shared->item, tensors, shared->batch, kv_head, &shared->hull);
    if (ITEM_INDEX == 0) {
        find_first_places(shared);
        shared->steps = shared->hull.tiles * spots_of_tile(&shared->hull, STEP);
        shared->factor = scaled_back(SCALE * LOG2_E, shared->careful);
    }
    BARRIER();
}

/* All that the rows of an item see, in `sum`, not yet divided by the sums of exponentials. */
template <int BLOCKS> static void attend(const CALL *call, FORWARD<BLOCKS> *shared, float (*sum)[DIMS / 8][4])
{
    EACH_BLOCK(b)
    {
        EACH_HALF(h) shared->total[b][h][ITEM_INDEX] = 0;
        EACH_EIGHT(j, DIMS) sum[b][j][0] = sum[b][j][1] = sum[b][j][2] = sum[b][j][3] = 0;
    }
    bool extra = false;
    do {
        open_tensors(call, shared, extra);
        meet_columns(shared, sum);
        extra = !shared->extra && shared->numbers[GPU_EXTRA];
    } while (extra);
}

/* The places of an item's rows, and the lines of its queries. Copies are not yet a group. */
template <int BLOCKS> static void open_rows(const CALL *call, FORWARD<BLOCKS> *shared, bool careful)
{
    DYNAMIC_SHARED(memory);
    const long *numbers = shared->numbers;
    const int tensors[ROW_KINDS] = {GPU_Q, GPU_OUT, GPU_LSE};
    const long in_walk = numbers[GPU_BY_QUERY + GPU_WALK_ITEMS], index = shared->index,
               stream = quotient(index, in_walk);
    const long batch = quotient(stream, numbers[GPU_HEADS]), head = stream - batch * numbers[GPU_HEADS];
    open_shared_item(numbers, GPU_BY_QUERY, index - stream * in_walk, &shared->item);
    if (ITEM_INDEX == 0) {
        shared->source[QUERY_LINES] = open_source(numbers, GPU_Q, call->q, numbers[GPU_HEAD_DIM]);
        shared->batch = batch;
        shared->head = head;
        shared->careful = careful;
    }
    BARRIER();
    for (int r = ITEM_INDEX; r < FORWARD<BLOCKS>::ROWS; r += ITEMS)
        shared->largest[r] = -INFINITY;
    find_sight(numbers, &shared->item, &shared->sight);
    place_rows(numbers, &shared->item.rows, tensors, batch, head, &shared->lines);
    BARRIER();
    fetch_rows(cu_address_of(memory), slot_lines<BLOCKS>(0), &shared->source[QUERY_LINES], &shared->lines, ROW_Q,
               query_scale(careful), careful);
}

/* Where the results of a warp wait to be stored: floats, in place of the lines. Fours of neighboring rows lie permuted,
 * lest they be in the same banks. */
template <int BLOCKS> static float *warp_results()
{
    DYNAMIC_SHARED(memory);
    return (float *)memory + WARP * UNIT * BLOCKS * DIMS;
}

static int result_place(int row, int four)
{
    return row * DIMS + (four ^ (row & 7)) * 4;
}

template <int BLOCKS>
static void put_results(const CALL *call, const FORWARD<BLOCKS> *shared, float (*sum)[DIMS / 8][4])
{
    const int thread = cu_anew(ITEM_INDEX), lane = thread % LANES, warp_row = thread / LANES * UNIT * BLOCKS;
    float *results = warp_results<BLOCKS>();
    EACH_BLOCK(b)
    {
        EACH_HALF(h)
        {
            const int own = b * UNIT + h * UNIT / 2 + lane / 4, row = warp_row + own;
            const float total = row_sum(shared->total[b][h][ITEM_INDEX]), inverse = total == 0 ? 0 : 1 / total;
            EACH_EIGHT(j, DIMS)
            {
                float *to = results + result_place(own, 2 * j + lane % 4 / 2) + lane % 2 * 2;
                to[0] = sum[b][j][2 * h] * inverse;
                to[1] = sum[b][j][2 * h + 1] * inverse;
            }
            if (call->lse && shared->lines.coordinates[row] == ROW_LIMIT && lane % 4 == 0)
                call->lse[shared->lines.offset[ROW_LSE][row]] =
                    total == 0 ? -INFINITY : shared->largest[row] * shared->factor * LN_2 + logf(total);
        }
    }
    cu_sync_warp();
}

template <int BLOCKS> static void store_results(const CALL *call, const FORWARD<BLOCKS> *shared)
{
    const long *numbers = shared->numbers;
    const long step = STRIDE(GPU_OUT, GPU_STRIDE_DIM);
    const int dims = (int)numbers[GPU_VALUE_DIM], first_row = WARP * UNIT * BLOCKS;
    const float *results = warp_results<BLOCKS>();
    ROLLED for (int i = LANE; i < UNIT * BLOCKS * LINE_CHUNKS; i += LANES)
    {
        const int row = i / LINE_CHUNKS, dim = i % LINE_CHUNKS * 8, there = min(dims - dim, 8);
        const long place = shared->lines.offset[ROW_OUT][first_row + row] + dim * step;
        float x[8];
        if (shared->lines.coordinates[first_row + row] != ROW_LIMIT || there <= 0)
            continue;
        UNROLLED(int e = 0; e < 8; e++)
        {
            x[e] = results[result_place(row, dim / 4 + e / 4) + e % 4];
        }
        if (numbers[GPU_OUT_TYPE] == 0)
            store_eight((float *)call->out + place, step, there, x);
        else
            store_eight((ushort *)call->out + place, step, there, x);
    }
}

/* Items of one row tile each. */
template <int BLOCKS> static void run_forward(const CALL *call)
{
    LOCAL_VARIABLE(FORWARD<BLOCKS>, shared);
    if (ITEM_INDEX == 0) {
        shared.index = GROUP_INDEX;
        shared.numbers = call->numbers;
    }
    for (;;) {
        float sum[BLOCKS][DIMS / 8][4];
        bool again = false;
        BARRIER();
        if (shared.index >= count_items(shared.numbers))
            break;
        do {
            open_rows(call, &shared, again);
            attend(call, &shared, sum);
            cu_copy_async_wait<0>(); /* for queries that see nothing: nobody has waited for their lines */
            again = cu_barrier_or(!shared.careful && is_not_finite<BLOCKS>(sum));
        } while (again);
        put_results(call, &shared, sum);
        store_results(call, &shared);
        if (ITEM_INDEX == 0)
            shared.index += GROUP_COUNT;
    }
}

#define DEFINE_FORWARD(NAME, BLOCKS)                                                                                   \
    KERNEL __launch_bounds__(ITEMS, 2) void NAME(const long *numbers, char *scratch, const IN *q, long q_at,           \
                                                 const IN *k, long k_at, const IN *v, long v_at, const IN *extra_k,    \
                                                 long extra_k_at, const IN *extra_v, long extra_v_at, void *out,       \
                                                 long out_at, float *lse, long lse_at)                                 \
    {                                                                                                                  \
        const CALL call = {numbers, q, k, v, extra_k, extra_v, out, lse_at >= 0 ? lse : NULL};                         \
        run_forward<BLOCKS>(&call);                                                                                    \
    }

DEFINE_FORWARD(mma_forward_64, 1)
#if DIMS <= MOST_DIMS_OF_BLOCKS
DEFINE_FORWARD(mma_forward_128, 2)
#define FORWARD_KERNELS(X) X(mma_forward_64) X(mma_forward_128)
#else
#define FORWARD_KERNELS(X) X(mma_forward_64)
#endif
