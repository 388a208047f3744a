/* Forward on products of warpgroups. A block goes through items, one row tile each. Its openers make an item's tables
 * and copy its queries while the one before is met; its loader copies boxes of keys and values, in turns, to a ring;
 * each of two warpgroups keeps 64 rows of the result in registers, and multiplies for the next step while it weighs
 * this one.
 *
 * Who hands over to whom, by barriers that count arrivals:
 *     planned   openers -> loader                the steps of a slot
 *     opened    openers -> consumers             its other tables, and the queries of the item
 *     closed    loader, consumers -> openers     the same slot, done with
 *     full      copies -> consumers              a slot of the ring
 *     emptied   consumers -> loader              done with */

enum { RING = 512 / DIMS, HALF_STEP_BYTES = STEP * LINE_BYTES, QUERY_BYTES = ROWS * LINE_BYTES };
enum { STEP_KEYS, STEP_VALUES, STEP_KINDS };
enum { ROW_Q, ROW_OUT, ROW_LSE, ROW_KINDS };
enum { CHAINS = 4, PLACES = RING / STEP_KINDS + 2, SECTIONS = 2 /* columns of the grid, extra tokens */ };
static_assert(RING % STEP_KINDS == 0, "keys lie in the even slots");

/* What a call is about. */
typedef struct CALL {
    const long *numbers;
    const ushort *q;
    const BOXES *boxes[SECTIONS][STEP_KINDS];
    void *out;
    float *lse; /* or NULL */
} CALL;

/* Where a step lies. */
typedef struct PLACE {
    SPOT spot;
    int section;
} PLACE;

/* An item. */
typedef struct OPENED {
    long index, batch, row_head, column_head;
    ITEM item;
    HULL hull[SECTIONS];
    int origin[SECTIONS][RANK], between[SECTIONS][RANK]; /* tensor index of position 0, and from one to the next */
    int tiles[SECTIONS];
    SIGHT<ROWS> sight;
    LINES<ROWS, ROW_KINDS> lines;
    bool stop;      /* there are no more */
    bool idle;      /* no item */
    bool careful;   /* for the second time, */
    int not_finite; /* as sums of the first were not */
} OPENED;

/* After the lines: those of the queries of both slots, then the ring. */
typedef struct SHARED {
    unsigned long planned[SLOTS], opened[SLOTS], closed[SLOTS], full[RING], emptied[RING];
    OPENED slots[SLOTS];
    PLACE places[PLACES];
    long next; /* item to be opened */
    int idle;  /* slots in a row that were opened without an item */
    SOURCE queries;
    unsigned char not_finite[STEP * LINE_CHUNKS]; /* of values: see clean_lines */
} SHARED;

enum { LINES_BYTES = SLOTS * QUERY_BYTES + RING * HALF_STEP_BYTES, TABLE_BYTES = 24 << 10 /* cu_wgmma_plan.c, too */ };
static_assert(sizeof(SHARED) <= TABLE_BYTES, "tables fit");

static SHARED *shared_tables()
{
    DYNAMIC_SHARED(memory);
    return (SHARED *)(memory + LINES_BYTES);
}

static cu_address query_lines(int slot)
{
    DYNAMIC_SHARED(memory);
    return cu_address_of(memory) + slot * QUERY_BYTES;
}

static cu_address ring_lines(uint half)
{
    DYNAMIC_SHARED(memory);
    return cu_address_of(memory) + SLOTS * QUERY_BYTES + half % RING * HALF_STEP_BYTES;
}

/* ---- Openers ----------------------------------------------------------------------------------------------------- */

static long items_of(const long *numbers, const OPENED *)
{
    return count_items(numbers);
}

static void open_section(const ITEM *item, int section, OPENED *o)
{
    measure_hull(item, &o->hull[section]);
    o->tiles[section] = (int)item->tiles;
    for (int a = 0; a < RANK; a++) {
        o->origin[section][a] = item->hull.origin[a];
        o->between[section][a] = item->hull.step[a];
    }
}

/* By one thread: what is known of an item before its tables are made. */
static void open_sections(const long *numbers, OPENED *o)
{
    count_tiles(&o->item);
    open_section(&o->item, 0, o);
    o->tiles[1] = 0;
    if (numbers[GPU_EXTRA]) {
        ITEM extra;
        extra_columns(numbers, &extra);
        open_section(&extra, 1, o);
    }
}

static void open_steps(const CALL *call, OPENED *o)
{
    open_queries_of(call->numbers, o);
    if (ITEM_INDEX == ITEMS - 1) /* a thread that has one row, not two */
        open_sections(call->numbers, o);
}

static void open_rows(const CALL *call, SHARED *shared, int slot)
{
    OPENED *o = &shared->slots[slot];
    find_rows(call->numbers, &o->item, {GPU_Q, GPU_OUT, GPU_LSE}, o->batch, o->row_head, &o->lines, &o->sight);
    BARRIER();
    copy_lines(query_lines(slot), ROWS, &shared->queries, o->lines.coordinates, ROW_LIMIT, o->lines.offset[ROW_Q], 0);
    cu_copy_async_commit();
    cu_copy_async_wait<0>();
    cu_fence_async();
}

/* ---- The loader -------------------------------------------------------------------------------------------------- */

/* The steps of an item's columns of one kind. Boxes are begun as soon as a slot is free; what comes next is found while
 * they are on their way. Returns the half after the last. */
static uint load_section(const BOXES *const (&boxes)[STEP_KINDS], SHARED *shared, const OPENED *o, int section,
                         uint half)
{
    const HULL *hull = &o->hull[section];
    const BOXES_AT keys = find_boxes(boxes[STEP_KEYS], o->origin[section], o->batch, o->column_head);
    const BOXES_AT values = find_boxes(boxes[STEP_VALUES], o->origin[section], o->batch, o->column_head);
    const int bytes = hull->volume * PARTS * PART_LINE_BYTES;
    SPOT spot;
    seek_spot(hull, 0, &spot);
    ROLLED for (int tile = 0; tile < o->tiles[section]; tile++, half += STEP_KINDS)
    {
        int offset[RANK];
        for (int a = 0; a < RANK; a++)
            offset[a] = spot.first[a] * o->between[section][a];
        wait_for_free(shared->emptied, half, RING);
        shared->places[half / STEP_KINDS % PLACES] = PLACE{spot, section};
        copy_boxes(&boxes[STEP_KEYS]->map, &keys, offset, bytes, ring_lines(half),
                   cu_address_of(&shared->full[half % RING]));
        wait_for_free(shared->emptied, half + 1, RING);
        copy_boxes(&boxes[STEP_VALUES]->map, &values, offset, bytes, ring_lines(half + 1),
                   cu_address_of(&shared->full[(half + 1) % RING]));
        next_spot(hull, STEP, &spot);
    }
    return half;
}

static void load_steps(const CALL *call, SHARED *shared)
{
    uint half = 0;
    fetch_maps(call->boxes[0]);
    for (uint number = 0;; number++) {
        const OPENED *o = &shared->slots[number % SLOTS];
        wait_for_use(shared->planned, number, SLOTS);
        if (o->stop)
            return;
        UNROLLED(int section = 0; section < SECTIONS; section++)
        {
            if (!o->idle && o->tiles[section])
                half = load_section(call->boxes[section], shared, o, section, half);
        }
        cu_mbarrier_arrive(cu_address_of(&shared->closed[number % SLOTS]));
    }
}

/* ---- Consumers --------------------------------------------------------------------------------------------------- */

/* What a thread has of its warpgroup's rows: of two of them, of each eight dimensions two. */
typedef struct ROWS_SUMS {
    float sum[DIMS / 8][4];
    float largest[2], total[2]; /* score seen; this thread's part of the sum of exponentials */
} ROWS_SUMS;

static void give_back(const SHARED *shared, uint half)
{
    if (LANE == 0)
        cu_mbarrier_arrive(cu_address_of(&shared->emptied[half % RING]));
}

/* Turns scores into weights. What was summed before has to shrink. */
static void weigh(float factor, float (&s)[STEP / 8][4], ROWS_SUMS *rows, float (&shrink)[2])
{
    EACH_HALF(h)
    {
        const float old = rows->largest[h];
        float tops[CHAINS], parts[CHAINS] = {}; /* several, so that none waits for the one before */
        UNROLLED(int i = 0; i < CHAINS; i++)
        {
            tops[i] = old;
        }
        EACH_EIGHT(j, STEP)
        {
            EACH_HALF(e) tops[(2 * j + e) % CHAINS] = fmaxf(tops[(2 * j + e) % CHAINS], s[j][2 * h + e]);
        }
        const float top = row_max(fmaxf(fmaxf(tops[0], tops[1]), fmaxf(tops[2], tops[3])));
        /* A row that has seen nothing, or only NaN, has no max: any finite base serves, and NaN must get through. */
        const float base = top == -INFINITY ? 0 : top * factor;
        shrink[h] = top == old ? 1 : cu_exp2(old * factor - base);
        rows->largest[h] = top;
        EACH_EIGHT(j, STEP)
        {
            EACH_HALF(e)
            {
                s[j][2 * h + e] = cu_exp2(fmaf(s[j][2 * h + e], factor, -base));
                parts[(2 * j + e) % CHAINS] += s[j][2 * h + e];
            }
        }
        const float part = (parts[0] + parts[1]) + (parts[2] + parts[3]);
        rows->total[h] = rows->total[h] * shrink[h] + part;
    }
}

/* A factor of 1 changes no bit, so that it may be left out where all rows have it. */
static void shrink_sums(const float (&shrink)[2], float (&sum)[DIMS / 8][4])
{
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

/* What a warp sees of a step: low and high as of glance. */
typedef struct SEEN {
    const HULL *hull;
    const PLACE *place;
    VIEW view;
    uint low, high;
} SEEN;

static SEEN see_step(const SHARED *shared, const OPENED *o, uint half)
{
    SEEN seen;
    seen.place = &shared->places[half / STEP_KINDS % PLACES];
    seen.hull = &o->hull[seen.place->section];
    seen.view = glance<1>(&o->sight, seen.hull, &seen.place->spot, STEP, &seen.low, &seen.high);
    return seen;
}

/* Hides what rows do not see of a step's scores. */
static void mask(const SEEN *seen, float (&s)[STEP / 8][4])
{
    if (seen->view != SEES_ALL)
        hide<1, STEP>(seen->hull, &seen->place->spot, seen->low, seen->high, &s);
}

/* Meets the steps of an item, whose halves of the ring begin at `half`. */
static void meet_steps(const SHARED *shared, const OPENED *o, cu_address queries, float factor, int steps, uint half,
                       ROWS_SUMS *rows)
{
    float s[STEP / 8][4], shrink[2];
    uint weights[STEP / UNIT][4];
    wait_for_use(shared->full, half, RING);
    take_turn();
    cu_wgmma_begin();
    begin_scores(queries, ring_lines(half), s);
    give_turn();
    SEEN seen = see_step(shared, o, half); /* while products are on their way */
    cu_wgmma_wait<0>();
    cu_wgmma_hold(s);
    give_back(shared, half);
    mask(&seen, s);
    weigh(factor, s, rows, shrink);
    round_weights(s, weights);
    ROLLED for (int step = 1; step < steps; step++)
    {
        half += STEP_KINDS;
        wait_for_use(shared->full, half - 1, RING);
        wait_for_use(shared->full, half, RING);
        take_turn();
        cu_wgmma_begin();
        begin_scores(queries, ring_lines(half), s);
        begin_values(weights, ring_lines(half - 1), rows->sum);
        give_turn();
        seen = see_step(shared, o, half);
        cu_wgmma_wait<1>();
        cu_wgmma_hold(s);
        give_back(shared, half);
        mask(&seen, s);
        weigh(factor, s, rows, shrink);
        cu_wgmma_wait<0>();
        cu_wgmma_hold(rows->sum);
        give_back(shared, half - 1);
        shrink_sums(shrink, rows->sum);
        round_weights(s, weights);
    }
    wait_for_use(shared->full, half + 1, RING);
    cu_wgmma_begin();
    begin_values(weights, ring_lines(half + 1), rows->sum);
    cu_wgmma_wait<0>();
    cu_wgmma_hold(rows->sum);
    give_back(shared, half + 1);
}

/* The same, step by step: what is not finite of values reaches the rows that see it, and no others. */
static void meet_steps_carefully(SHARED *shared, const OPENED *o, cu_address queries, float factor, int steps,
                                 uint half, ROWS_SUMS *rows)
{
    ROLLED for (int step = 0; step < steps; step++, half += STEP_KINDS)
    {
        float s[STEP / 8][4], shrink[2];
        uint weights[STEP / UNIT][4];
        wait_for_use(shared->full, half, RING);
        const SEEN seen = see_step(shared, o, half);
        cu_wgmma_begin();
        begin_scores(queries, ring_lines(half), s);
        cu_wgmma_wait<0>();
        cu_wgmma_hold(s);
        give_back(shared, half);
        mask(&seen, s);
        weigh(factor, s, rows, shrink);
        shrink_sums(shrink, rows->sum);
        round_weights(s, weights);
        wait_for_use(shared->full, half + 1, RING);
        cu_sync_some(CONSUMERS_BARRIER, CONSUMERS); /* nobody reads the notes of the step before */
        clean_lines<STEP>(ring_lines(half + 1), shared->not_finite, (int)threadIdx.x, CONSUMERS);
        cu_fence_async();
        cu_sync_some(CONSUMERS_BARRIER, CONSUMERS);
        cu_wgmma_begin();
        begin_values(weights, ring_lines(half + 1), rows->sum);
        cu_wgmma_wait<0>();
        cu_wgmma_hold(rows->sum);
        spread_nan<1, STEP>(seen.hull, &seen.place->spot, seen.view, seen.low, seen.high, shared->not_finite,
                            &rows->sum);
        give_back(shared, half + 1);
    }
}

/* ---- Results ----------------------------------------------------------------------------------------------------- */

static void store_results(const CALL *call, const OPENED *o, float factor, const ROWS_SUMS *rows)
{
    const long *numbers = call->numbers;
    const long step = STRIDE(GPU_OUT, GPU_STRIDE_DIM);
    const int dims = (int)numbers[GPU_VALUE_DIM];
    EACH_HALF(h)
    {
        const int row = lane_row<1>(0, h);
        const bool there = o->lines.coordinates[row] == ROW_LIMIT;
        const float total = row_sum(rows->total[h]), inverse = total == 0 ? 0 : 1 / total;
        const long place = o->lines.offset[ROW_OUT][row];
        if (numbers[GPU_OUT_TYPE] == 0)
            store_row((float *)call->out + place, step, dims, there, inverse, rows->sum, h);
        else
            store_row((ushort *)call->out + place, step, dims, there, inverse, rows->sum, h);
        if (call->lse && there && LANE % 4 == 0)
            call->lse[o->lines.offset[ROW_LSE][row]] =
                total == 0 ? -INFINITY : rows->largest[h] * factor * LN_2 + logf(total);
    }
}

static void meet_items(const CALL *call, SHARED *shared)
{
    const long *numbers = call->numbers;
    const float factor = SCALE * LOG2_E;
    uint half = 0;
    if (GROUP == 1)
        give_turn();
    for (uint number = 0;; number++) {
        const int slot = number % SLOTS;
        OPENED *o = &shared->slots[slot];
        wait_for_use(shared->opened, number, SLOTS);
        if (o->stop)
            return;
        if (!o->idle) {
            const cu_address queries = query_lines(slot) + GROUP * GROUP_ROWS * PART_LINE_BYTES;
            const int steps = o->tiles[0] + o->tiles[1];
            ROWS_SUMS rows = {{}, {-INFINITY, -INFINITY}, {}};
            if (o->careful)
                meet_steps_carefully(shared, o, queries, factor, steps, half, &rows);
            else if (steps)
                meet_steps(shared, o, queries, factor, steps, half, &rows);
            half += steps * STEP_KINDS;
            if (!sums_are_finite(rows.sum))
                LOCAL_OR(&o->not_finite, 1);
            store_results(call, o, factor, &rows);
        }
        cu_mbarrier_arrive(cu_address_of(&shared->closed[slot]));
    }
}

/* ---- Blocks ------------------------------------------------------------------------------------------------------ */

static void init_barriers(SHARED *shared)
{
    for (int i = 0; i < SLOTS; i++) {
        cu_mbarrier_init(cu_address_of(&shared->planned[i]), ITEMS);
        cu_mbarrier_init(cu_address_of(&shared->opened[i]), ITEMS);
        cu_mbarrier_init(cu_address_of(&shared->closed[i]), CONSUMERS + 1);
    }
    for (int i = 0; i < RING; i++) {
        cu_mbarrier_init(cu_address_of(&shared->full[i]), 1);
        cu_mbarrier_init(cu_address_of(&shared->emptied[i]), CONSUMER_WARPS);
    }
    cu_mbarrier_init_done();
}

KERNEL __launch_bounds__(THREADS, 1) void wgmma_forward(const long *numbers, char *scratch, const ushort *q, long q_at,
                                                        const __grid_constant__ BOXES k,
                                                        const __grid_constant__ BOXES v,
                                                        const __grid_constant__ BOXES extra_k,
                                                        const __grid_constant__ BOXES extra_v, void *out, long out_at,
                                                        float *lse, long lse_at)
{
    const CALL call = {numbers, q, {{&k, &v}, {&extra_k, &extra_v}}, out, lse_at >= 0 ? lse : NULL};
    SHARED *shared = shared_tables();
    if (threadIdx.x == 0) {
        init_barriers(shared);
        shared->queries = open_source(numbers, GPU_Q, q, numbers[GPU_HEAD_DIM]);
        shared->next = GROUP_INDEX;
        shared->idle = 0;
    }
    for (int i = 0; i < SLOTS; i++)
        put_columns_of(numbers, &shared->slots[i].hull[0], &shared->slots[i].hull[1]);
    clear_lines(ring_lines(0), RING * HALF_STEP_BYTES);
    __syncthreads();
    if (threadIdx.x < CONSUMERS) {
        cu_take_registers<CONSUMER_REGISTERS>();
        meet_items(&call, shared);
    } else {
        cu_give_registers<PRODUCER_REGISTERS>();
        if (threadIdx.x >= FIRST_OPENER)
            open_items(&call, shared);
        else if (threadIdx.x == LOADER)
            load_steps(&call, shared);
    }
}

#define WGMMA_FORWARD_KERNELS(X) X(wgmma_forward)
