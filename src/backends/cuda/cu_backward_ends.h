/* The launches of backward before and after those that multiply, whichever way they do: what the others need of each
 * query is found first, and parts of the gradients of extra tokens are summed last. */
#ifndef NF_CU_BACKWARD_ENDS_H
#define NF_CU_BACKWARD_ENDS_H

enum {
    END_THREADS = 128, /* of a block */
    DELTA_LANES = 8    /* that sum a query's delta */
};

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

KERNEL GROUP_ITEMS(END_THREADS) void mma_backward_delta(const long *numbers, char *scratch, const void *out,
                                                        long out_at, const void *dout, long dout_at, const float *lse,
                                                        long lse_at, const float *dlse, long dlse_at)
{
    const long heads = numbers[GPU_HEADS], queries = numbers[GPU_QUERIES];
    const long count = numbers[GPU_BATCH] * queries * heads, each = END_THREADS / DELTA_LANES;
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

/* ---- Gradients of extra tokens ----------------------------------------------------------------------------------- */

KERNEL GROUP_ITEMS(END_THREADS) void mma_backward_extra_sum(const long *numbers, char *scratch, IN *dextra_k,
                                                            long dextra_k_at, IN *dextra_v, long dextra_v_at)
{
    const long count = extra_elements(numbers);
    for (long i = GROUP_INDEX * END_THREADS + ITEM_INDEX; i < count; i += GROUP_COUNT * END_THREADS)
        sum_extra(numbers, scratch, i, dextra_k, dextra_k_at, dextra_v, dextra_v_at);
}

#define END_KERNELS(X) X(mma_backward_delta) X(mma_backward_extra_sum)

#endif
