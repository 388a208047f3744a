/* Backward on tensor cores: what its kernels share, and the launches before and after them.
 *
 * What the others need of each query, its lse and delta, is found first. Then dq has queries as rows, which stay, and
 * walks the keys that they see (cu_mma_dq.h); dk and dv have keys as rows and walk the queries that see them
 * (cu_mma_dkv.h). Each computes the weights anew, so that no sum is shared between groups: results do not depend on
 * their order. */
#ifndef NF_CU_MMA_BACKWARD_H
#define NF_CU_MMA_BACKWARD_H

enum { DELTA_LANES = 8 }; /* that sum a query's delta */

/* Of a query. */
typedef struct TERMS {
    float lse; /* in base 2 */
    float delta;
} TERMS;

/* ---- Deltas ------------------------------------------------------------------------------------------------------ */

static bool out_is_float(const long *numbers)
{
    return numbers[GPU_OUT_TYPE] == 0;
}

static float out_element(const void *data, bool floats, long place)
{
    return floats ? ((const float *)data)[place] : IN_LOAD((const IN *)data, place);
}

/* A lane's part of out . dout. */
static float part_of_delta(const long *numbers, const void *out, long out_place, const void *dout, long dout_place)
{
    const bool floats = out_is_float(numbers);
    const long out_step = STRIDE(GPU_OUT, GPU_STRIDE_DIM), dout_step = STRIDE(GPU_DOUT, GPU_STRIDE_DIM);
    float sum = 0;
    for (long i = ITEM_INDEX % DELTA_LANES; i < numbers[GPU_VALUE_DIM]; i += DELTA_LANES)
        sum +=
            out_element(out, floats, out_place + i * out_step) * out_element(dout, floats, dout_place + i * dout_step);
    return sum;
}

KERNEL GROUP_ITEMS(ITEMS) void mma_backward_delta(const long *numbers, char *scratch, const void *out, long out_at,
                                                  const void *dout, long dout_at, const float *lse, long lse_at,
                                                  const float *dlse, long dlse_at)
{
    const long heads = numbers[GPU_HEADS], queries = numbers[GPU_QUERIES];
    const long count = numbers[GPU_BATCH] * queries * heads, each = ITEMS / DELTA_LANES;
    TERMS *terms = (TERMS *)(scratch + numbers[GPU_SCRATCH_DELTA]);
    for (long first = GROUP_INDEX * each; first < count; first += GROUP_COUNT * each) {
        const long index = min(first + ITEM_INDEX / DELTA_LANES, count - 1);
        const long head = index % heads, query = index / heads % queries, batch = index / heads / queries;
        float sum = part_of_delta(
            numbers, out, out_at + base_of(numbers, GPU_OUT, batch, head) + query_place(numbers, GPU_OUT, query), dout,
            dout_at + base_of(numbers, GPU_DOUT, batch, head) + query_place(numbers, GPU_DOUT, query));
        for (int apart = DELTA_LANES / 2; apart; apart /= 2)
            sum += cu_shuffle_xor(sum, apart);
        if (dlse_at >= 0)
            sum -= dlse[dlse_at + base_of(numbers, GPU_DLSE, batch, head) + query_place(numbers, GPU_DLSE, query)];
        const long lse_place = lse_at + base_of(numbers, GPU_LSE, batch, head) + query_place(numbers, GPU_LSE, query);
        if (ITEM_INDEX % DELTA_LANES == 0 && first + ITEM_INDEX / DELTA_LANES < count)
            terms[index] = TERMS{lse[lse_place] * LOG2_E, sum};
    }
}

/* ---- What both walks share --------------------------------------------------------------------------------------- */

static SOURCE open_dout(const long *numbers, const void *dout, long dout_at)
{
    if (!out_is_float(numbers))
        return open_source(numbers, GPU_DOUT, (const IN *)dout + dout_at, numbers[GPU_VALUE_DIM]);
    return SOURCE{(const float *)dout + dout_at, STRIDE(GPU_DOUT, GPU_STRIDE_DIM), (int)numbers[GPU_VALUE_DIM], true,
                  false};
}

/* Shared memory begins with the lines of both tensors of the rows, then those of the columns, STEP of them, of two
 * stages. */
template <int BLOCKS, int STEP> struct STAGES {
    enum {
        ROWS = WARPS * UNIT * BLOCKS,
        ROW_LINES = ROWS * LINE_BYTES,
        COLUMN_LINES = STEP * LINE_BYTES,
        STAGE_LINES = 2 * COLUMN_LINES,
        ALL_LINES = 2 * ROW_LINES + 2 * STAGE_LINES
    };

    /* Where a warp's rows begin. */
    static cu_address rows(cu_address lines)
    {
        return lines + WARP * UNIT * BLOCKS * LINE_BYTES;
    }

    static cu_address columns(cu_address lines, int number)
    {
        return lines + 2 * ROW_LINES + number % 2 * STAGE_LINES;
    }
};

template <int BLOCKS> static void clear(float (*sum)[DIMS / 8][4])
{
    UNROLLED(int b = 0; b < BLOCKS; b++)
    {
        UNROLLED(int j = 0; j < DIMS / 8; j++)
        {
            sum[b][j][0] = sum[b][j][1] = sum[b][j][2] = sum[b][j][3] = 0;
        }
    }
}

/* sum += weights times the dimensions of columns. */
template <int BLOCKS, int STEP>
static void add_product(float (*weights)[STEP / 8][4], const HULL *hull, const SPOT *spot, const MASK<BLOCKS> *mask,
                        bool careful, cu_address columns, int dims, float (*sum)[DIMS / 8][4])
{
    uint rounded[BLOCKS][STEP / UNIT][4], seen[BLOCKS][STEP / UNIT][4];
    round_weights<BLOCKS, STEP>(weights, rounded);
    if (careful) {
        weigh_sight<BLOCKS, STEP>(hull, spot, mask, seen);
        accumulate_carefully<BLOCKS, STEP>(rounded, seen, columns, dims, sum);
    } else {
        accumulate<BLOCKS, STEP>(rounded, columns, dims, sum);
    }
}

/* Writes the dimensions of rows, times a factor. */
template <int BLOCKS, int ROWS, int N>
static void store_sums(IN *x, long step, const LINES<ROWS, N> *rows, int which, int dims, float (*sum)[DIMS / 8][4],
                       float factor)
{
    UNROLLED(int b = 0; b < BLOCKS; b++)
    {
        UNROLLED(int h = 0; h < 2; h++)
        {
            const int row = lane_row<BLOCKS>(b, h);
            const bool there = rows->coordinates[row] == ROW_LIMIT;
            IN *to = x + rows->offset[which][row];
            const bool pairs = step == 1 && (size_t)to % (2 * sizeof *to) == 0;
            UNROLLED(int j = 0; j < DIMS / 8; j++)
            {
                const int first = 8 * j + LANE % 4 * 2;
                const uint pair = PACK(sum[b][j][2 * h] * factor, sum[b][j][2 * h + 1] * factor);
                if (there && pairs && first + 1 < dims)
                    *(uint *)(to + first) = pair;
                else if (there && first < dims) {
                    to[first * step] = (IN)pair;
                    if (first + 1 < dims)
                        to[(first + 1) * step] = (IN)(pair >> 16);
                }
            }
        }
    }
}

/* ---- Gradients of extra tokens ----------------------------------------------------------------------------------- */

KERNEL GROUP_ITEMS(ITEMS) void mma_backward_extra_sum(const long *numbers, char *scratch, IN *dextra_k,
                                                      long dextra_k_at, IN *dextra_v, long dextra_v_at)
{
    const long count = extra_elements(numbers);
    for (long i = GROUP_INDEX * ITEMS + ITEM_INDEX; i < count; i += GROUP_COUNT * ITEMS)
        sum_extra(numbers, scratch, i, dextra_k, dextra_k_at, dextra_v, dextra_v_at);
}

#define BACKWARD_KERNELS(X) X(mma_backward_delta) X(mma_backward_extra_sum)

#endif
