/* The consumers of backward on products of warpgroups (cu_wgmma_backward.h), and the kernels. */
#ifndef NF_CU_WGMMA_MEET_H
#define NF_CU_WGMMA_MEET_H

/* What a thread has of its warpgroup's rows: of two of them, of each eight dimensions two. By query the sums of dq, by
 * key those of dk and dv. */
template <int WALK> struct ROWS_SUMS {
    float of[SUMS<WALK>][DIMS / 8][4];
};

/* The terms of a thread's rows, by query. */
typedef struct ROWS_TERMS {
    TERMS of[2];
} ROWS_TERMS;

/* A step's scores, later weights, and gradients of those, later of scores; and both rounded, the latter first. */
template <int WALK> struct WEIGHED {
    float s[STEP / 8][4], d[STEP / 8][4];
    uint rounded[SUMS<WALK>][STEP / UNIT][4];
};

/* An item, and a thread's place in it. */
template <int WALK> struct MEETING {
    SHARED<WALK> *shared;
    const OPENED<WALK> *o;
    cu_address rows[KINDS];
    float factor; /* of scores, in base 2 */
    ROWS_TERMS terms;
};

/* ---- Weights ----------------------------------------------------------------------------------------------------- */

static void weigh(const MEETING<BY_QUERY> *m, uint, float (&s)[STEP / 8][4])
{
    EACH_EIGHT(j, STEP)
    {
        UNROLLED(int e = 0; e < 4; e++) s[j][e] = cu_exp2(fmaf(s[j][e], m->factor, -m->terms.of[e / 2].lse));
    }
}

static void weigh(const MEETING<BY_KEY> *m, uint stage, float (&s)[STEP / 8][4])
{
    EACH_EIGHT(j, STEP)
    {
        const float *lse = &m->shared->lse[stage][8 * j + LANE % 4 * 2];
        const float of[2] = {lse[0], lse[1]};
        UNROLLED(int e = 0; e < 4; e++) s[j][e] = cu_exp2(fmaf(s[j][e], m->factor, -of[e % 2]));
    }
}

/* Gradients of weights become gradients of scores. */
static void find_gradients(const MEETING<BY_QUERY> *m, uint, const float (&s)[STEP / 8][4], float (&d)[STEP / 8][4])
{
    EACH_EIGHT(j, STEP)
    {
        UNROLLED(int e = 0; e < 4; e++) d[j][e] = s[j][e] * (d[j][e] - m->terms.of[e / 2].delta);
    }
}

static void find_gradients(const MEETING<BY_KEY> *m, uint stage, const float (&s)[STEP / 8][4], float (&d)[STEP / 8][4])
{
    EACH_EIGHT(j, STEP)
    {
        const float *delta = &m->shared->delta[stage][8 * j + LANE % 4 * 2];
        const float of[2] = {delta[0], delta[1]};
        UNROLLED(int e = 0; e < 4; e++) d[j][e] = s[j][e] * (d[j][e] - of[e % 2]);
    }
}

/* What a warp sees of a step: low and high as of glance. */
typedef struct SEEN {
    VIEW view;
    uint low, high;
} SEEN;

template <int WALK> static SEEN see_step(const OPENED<WALK> *o, const PLACE *place)
{
    SEEN seen;
    seen.view = glance<1>(&o->sight, &o->section[place->section].hull, &place->spot, STEP, &seen.low, &seen.high);
    return seen;
}

/* Columns that rows do not see have no weights, whatever their terms and lines are. */
template <int WALK> static void mask(const OPENED<WALK> *o, const PLACE *place, const SEEN *seen, WEIGHED<WALK> *w)
{
    MASK<1> mask;
    if (seen->view == SEES_ALL)
        return;
    share_mask(seen->low, seen->high, &mask);
    EACH_EIGHT(j, STEP)
    {
        uint at[2];
        lane_coordinates(&o->section[place->section].hull, &place->spot, j, at);
        UNROLLED(int e = 0; e < 4; e++)
        {
            if (!is_between(mask.low[0][e / 2], at[e % 2], mask.high[0][e / 2]))
                w->s[j][e] = w->d[j][e] = 0;
        }
    }
}

template <int WALK> static void round_both(WEIGHED<WALK> *w)
{
    round_weights(w->d, w->rounded[0]);
    if (WALK == BY_KEY)
        round_weights(w->s, w->rounded[SUMS<WALK> - 1]);
}

/* ---- Steps ------------------------------------------------------------------------------------------------------- */

/* Adds to sums what a step, whose halves of the ring begin at `half`, contributes: begun. */
template <int WALK> static void begin_sums(const WEIGHED<WALK> *w, uint half, ROWS_SUMS<WALK> *rows)
{
    UNROLLED(int i = 0; i < SUMS<WALK>; i++) begin_values(w->rounded[i], ring_lines(half + i), rows->of[i]);
}

template <int WALK> static void hold_sums(ROWS_SUMS<WALK> *rows)
{
    UNROLLED(int i = 0; i < SUMS<WALK>; i++) cu_wgmma_hold(rows->of[i]);
}

template <int WALK> static void give_back(const SHARED<WALK> *shared, uint half)
{
    if (LANE == 0)
        cu_mbarrier_arrive(cu_address_of(&shared->emptied[half % RING]));
}

/* What sums have met. */
template <int WALK> static void give_back_met(const SHARED<WALK> *shared, uint half)
{
    UNROLLED(int i = 0; i < SUMS<WALK>; i++) give_back(shared, half + i);
}

template <int WALK> static void wait_for_step(const SHARED<WALK> *shared, uint half)
{
    UNROLLED(int i = 0; i < KINDS; i++) wait_for_use(shared->full, half + i, RING);
}

/* While scores are weighed, their gradients are multiplied. */
template <int WALK> static void weigh_step(const MEETING<WALK> *m, uint half, WEIGHED<WALK> *w)
{
    const uint stage = half / KINDS % STAGES;
    const PLACE *place = &m->shared->places[stage];
    const SEEN seen = see_step(m->o, place);
    cu_wgmma_wait<1>();
    cu_wgmma_hold(w->s);
    weigh(m, stage, w->s);
    cu_wgmma_wait<0>();
    cu_wgmma_hold(w->d);
    if (SUMS<WALK> < KINDS)
        give_back(m->shared, half + OF_WEIGHTS);
    find_gradients(m, stage, w->s, w->d);
    mask(m->o, place, &seen, w);
    round_both(w);
}

/* Meets the steps of an item, whose halves of the ring begin at `half`. */
template <int WALK> static void meet_steps(const MEETING<WALK> *m, int steps, uint half, ROWS_SUMS<WALK> *rows)
{
    const SHARED<WALK> *shared = m->shared;
    WEIGHED<WALK> w;
    wait_for_step(shared, half);
    take_turn();
    cu_wgmma_begin();
    begin_scores(m->rows[OF_SCORES], ring_lines(half + OF_SCORES), w.s);
    begin_scores(m->rows[OF_WEIGHTS], ring_lines(half + OF_WEIGHTS), w.d);
    give_turn();
    weigh_step(m, half, &w);
    ROLLED for (int step = 1; step < steps; step++)
    {
        half += KINDS;
        wait_for_step(shared, half);
        take_turn();
        cu_wgmma_begin();
        begin_sums(&w, half - KINDS, rows);
        begin_scores(m->rows[OF_SCORES], ring_lines(half + OF_SCORES), w.s);
        cu_wgmma_wait<1>();
        hold_sums(rows);
        give_back_met(shared, half - KINDS);
        cu_wgmma_begin();
        begin_scores(m->rows[OF_WEIGHTS], ring_lines(half + OF_WEIGHTS), w.d);
        give_turn();
        weigh_step(m, half, &w);
    }
    cu_wgmma_begin();
    begin_sums(&w, half, rows);
    cu_wgmma_wait<0>();
    hold_sums(rows);
    give_back_met(shared, half);
}

/* What is not finite of columns reaches the rows that see it, and no others. */
template <int WALK>
static void add_carefully(const MEETING<WALK> *m, const WEIGHED<WALK> *w, uint half, ROWS_SUMS<WALK> *rows)
{
    SHARED<WALK> *shared = m->shared;
    const PLACE *place = &shared->places[half / KINDS % STAGES];
    const SEEN seen = see_step(m->o, place);
    cu_sync_some(CONSUMERS_BARRIER, CONSUMERS); /* nobody multiplies them, or reads the notes of the step before */
    UNROLLED(int i = 0; i < SUMS<WALK>; i++)
    {
        clean_lines<STEP>(ring_lines(half + i), shared->not_finite[i], (int)threadIdx.x, CONSUMERS);
    }
    cu_fence_async();
    cu_sync_some(CONSUMERS_BARRIER, CONSUMERS);
    cu_wgmma_begin();
    begin_sums(w, half, rows);
    cu_wgmma_wait<0>();
    hold_sums(rows);
    UNROLLED(int i = 0; i < SUMS<WALK>; i++)
    {
        spread_nan<1, STEP>(&m->o->section[place->section].hull, &place->spot, seen.view, seen.low, seen.high,
                            shared->not_finite[i], &rows->of[i]);
    }
    give_back_met(shared, half);
}

/* As meet_steps, step by step. */
template <int WALK>
static void meet_steps_carefully(const MEETING<WALK> *m, int steps, uint half, ROWS_SUMS<WALK> *rows)
{
    ROLLED for (int step = 0; step < steps; step++, half += KINDS)
    {
        WEIGHED<WALK> w;
        wait_for_step(m->shared, half);
        cu_wgmma_begin();
        begin_scores(m->rows[OF_SCORES], ring_lines(half + OF_SCORES), w.s);
        begin_scores(m->rows[OF_WEIGHTS], ring_lines(half + OF_WEIGHTS), w.d);
        weigh_step(m, half, &w);
        add_carefully(m, &w, half, rows);
    }
}

/* ---- Items ------------------------------------------------------------------------------------------------------- */

/* One of the sums, times a factor, to the gradient `tensor` of `dims` dimensions, or to partial sums. */
template <int WALK>
static void store_gradient(const CALL<WALK> *call, const OPENED<WALK> *o, int sum, int tensor, int dims,
                           const float (&of)[DIMS / 8][4], float factor)
{
    const long *numbers = call->numbers;
    EACH_HALF(h)
    {
        const int row = lane_row<1>(0, h);
        const bool there = o->lines.coordinates[row] == ROW_LIMIT;
        const long pitch = numbers[GPU_HEAD_DIM] + numbers[GPU_VALUE_DIM];
        if (o->partial)
            store_row(o->partial + row * pitch + (sum ? numbers[GPU_HEAD_DIM] : 0), 1, dims, there, factor, of, h);
        else if (call->gradients[sum])
            store_row(call->gradients[sum] + o->lines.offset[ROW_DV + 1 - SUMS<WALK> + sum][row],
                      STRIDE(tensor, GPU_STRIDE_DIM), dims, there, factor, of, h);
    }
}

static void store_gradients(const CALL<BY_QUERY> *call, const OPENED<BY_QUERY> *o, const ROWS_SUMS<BY_QUERY> *rows)
{
    const long *numbers = call->numbers;
    store_gradient(call, o, 0, GPU_DQ, (int)numbers[GPU_HEAD_DIM], rows->of[0], SCALE);
}

static void store_gradients(const CALL<BY_KEY> *call, const OPENED<BY_KEY> *o, const ROWS_SUMS<BY_KEY> *rows)
{
    const long *numbers = call->numbers;
    store_gradient(call, o, 0, GPU_DK, (int)numbers[GPU_HEAD_DIM], rows->of[0], SCALE);
    store_gradient(call, o, 1, GPU_DV, (int)numbers[GPU_VALUE_DIM], rows->of[1], 1);
}

static void find_row_terms(const OPENED<BY_QUERY> *o, ROWS_TERMS *terms)
{
    EACH_HALF(h) terms->of[h] = o->terms[lane_row<1>(0, h)];
}

static void find_row_terms(const OPENED<BY_KEY> *, ROWS_TERMS *)
{
}

/* Returns the steps that it has met. */
template <int WALK>
static int meet_item(const CALL<WALK> *call, SHARED<WALK> *shared, OPENED<WALK> *o, int slot, uint half)
{
    const long *numbers = call->numbers;
    MEETING<WALK> m = {
        shared, o, {row_lines(slot, OF_SCORES, GROUP), row_lines(slot, OF_WEIGHTS, GROUP)}, SCALE * LOG2_E};
    ROWS_SUMS<WALK> rows = {};
    bool finite = true;
    int steps = 0;
    for (int i = 0; i < SECTIONS<WALK>; i++)
        steps += o->section[i].steps;
    find_row_terms(o, &m.terms);
    if (o->careful)
        meet_steps_carefully(&m, steps, half, &rows);
    else if (steps)
        meet_steps(&m, steps, half, &rows);
    UNROLLED(int i = 0; i < SUMS<WALK>; i++) finite = sums_are_finite(rows.of[i]) && finite;
    if (!finite)
        LOCAL_OR(&o->not_finite, 1);
    store_gradients(call, o, &rows);
    return steps;
}

template <int WALK> static void meet_items(const CALL<WALK> *call, SHARED<WALK> *shared)
{
    uint half = 0;
    if (GROUP == 1)
        give_turn();
    for (uint number = 0;; number++) {
        const int slot = number % SLOTS;
        OPENED<WALK> *o = &shared->slots[slot];
        wait_for_use(shared->opened, number, SLOTS);
        if (o->stop)
            return;
        if (!o->idle)
            half += meet_item(call, shared, o, slot, half) * KINDS;
        cu_mbarrier_arrive(cu_address_of(&shared->closed[slot]));
    }
}

/* ---- Blocks ------------------------------------------------------------------------------------------------------ */

template <int WALK> static void init_barriers(SHARED<WALK> *shared)
{
    for (int i = 0; i < SLOTS; i++) {
        cu_mbarrier_init(cu_address_of(&shared->planned[i]), ITEMS);
        cu_mbarrier_init(cu_address_of(&shared->opened[i]), ITEMS);
        cu_mbarrier_init(cu_address_of(&shared->closed[i]), CONSUMERS + LANES);
    }
    for (int i = 0; i < RING; i++) {
        cu_mbarrier_init(cu_address_of(&shared->full[i]), i % KINDS == OF_SCORES ? 1 + LANES : 1);
        cu_mbarrier_init(cu_address_of(&shared->emptied[i]), CONSUMER_WARPS);
    }
    cu_mbarrier_init_done();
}

static void put_columns(const long *numbers, SHARED<BY_QUERY> *shared)
{
    for (OPENED<BY_QUERY> &o : shared->slots)
        put_columns_of(numbers, &o.section[0].hull, &o.section[1].hull);
}

static void put_columns(const long *, SHARED<BY_KEY> *)
{
}

template <int WALK> static void run_block(const CALL<WALK> &asked)
{
    static_assert(REGISTERS_SUFFICE<CONSUMER_REGISTERS<WALK>, PRODUCER_REGISTERS<WALK>>, "a block has as many");
    SHARED<WALK> *shared = shared_tables<WALK>();
    if (threadIdx.x == 0) {
        init_barriers(shared);
        shared->call = asked;
        shared->next = GROUP_INDEX;
        shared->idle = 0;
    }
    put_columns(asked.numbers, shared);
    clear_lines(ring_lines(0), RING * HALF_STEP_BYTES);
    __syncthreads();
    const CALL<WALK> *call = &shared->call;
    if (threadIdx.x < CONSUMERS) {
        cu_take_registers<CONSUMER_REGISTERS<WALK>>();
        meet_items(call, shared);
    } else {
        cu_give_registers<PRODUCER_REGISTERS<WALK>>();
        if (threadIdx.x >= FIRST_OPENER)
            open_items(call, shared);
        else
            load_steps(call, shared);
    }
}

KERNEL __launch_bounds__(THREADS,
                         1) void wgmma_backward_dq(const long *numbers, char *scratch, const ushort *q, long q_at,
                                                   const ushort *dout, long dout_at, const __grid_constant__ BOXES k,
                                                   const __grid_constant__ BOXES v,
                                                   const __grid_constant__ BOXES extra_k,
                                                   const __grid_constant__ BOXES extra_v, ushort *dq, long dq_at)
{
    const SOURCE queries = open_source(numbers, GPU_Q, q + q_at, numbers[GPU_HEAD_DIM]);
    const SOURCE gradients = open_source(numbers, GPU_DOUT, dout + dout_at, numbers[GPU_VALUE_DIM]);
    run_block(CALL<BY_QUERY>{numbers,
                             scratch,
                             (const TERMS *)(scratch + numbers[GPU_SCRATCH_DELTA]),
                             {{queries, gradients}, {queries, gradients}},
                             {{&k, &v}, {&extra_k, &extra_v}},
                             {dq + dq_at}});
}

KERNEL __launch_bounds__(THREADS, 1) void wgmma_backward_dkv(
    const long *numbers, char *scratch, const ushort *k, long k_at, const ushort *v, long v_at, const ushort *extra_k,
    long extra_k_at, const ushort *extra_v, long extra_v_at, const __grid_constant__ BOXES q,
    const __grid_constant__ BOXES dout, const __grid_constant__ BOXES all_q, const __grid_constant__ BOXES all_dout,
    ushort *dk, long dk_at, ushort *dv, long dv_at)
{
    const long dims = numbers[GPU_HEAD_DIM], value_dims = numbers[GPU_VALUE_DIM];
    run_block(
        CALL<BY_KEY>{numbers,
                     scratch,
                     (const TERMS *)(scratch + numbers[GPU_SCRATCH_DELTA]),
                     {{open_source(numbers, GPU_K, k + k_at, dims), open_source(numbers, GPU_V, v + v_at, value_dims)},
                      {open_source(numbers, GPU_EXTRA_K, extra_k + extra_k_at, dims),
                       open_source(numbers, GPU_EXTRA_V, extra_v + extra_v_at, value_dims)}},
                     {{&q, &dout}, {&all_q, &all_dout}},
                     {dk_at >= 0 ? dk + dk_at : NULL, dv_at >= 0 ? dv + dv_at : NULL}});
}

#define WGMMA_BACKWARD_KERNELS(X) X(wgmma_backward_dq) X(wgmma_backward_dkv)

#endif
