/* Forward of bf16 pairs, included by kernel_bf16.h: softmax that leaves weights rounded to pairs, and a tile of rows meeting a
 * column tile. */

/* 2^t within 1e-4 of it, a twentieth of what rounding to bf16 may change; 1 for t = 0. */
SIMD_INLINE v32 exp2_bf16(v32 t)
{
    const v32 f = (v32)_mm512_reduce_ps((__m512)t, 0x09); /* t - floor(t) */
    v32 p = v32_set1(7.8024523e-2f);
    p = p * f + 2.2606716e-1f;
    p = p * f + 6.9583354e-1f;
    p = p * f + 1.0f;
    return (v32)_mm512_scalef_ps((__m512)p, (__m512)t);
}

SIMD_INLINE float row_top(const float *scores, int64_t n)
{
    v32 top = v32_set1(-INFINITY);
    int64_t c = 0;
    for (; c + LANES_f32 <= n; c += LANES_f32)
        top = v32_max(v32_load(scores + c), top);
    if (c < n)
        top = v32_max(v32_select((1u << (n - c)) - 1, v32_load(scores + c), top), top);
    return v32_largest(top);
}

/* 2^(factor s - base) of 32 scores, 0 where seen has no bit, rounded to pairs and before that added to total. */
SIMD_INLINE void weigh_pairs(uint32_t *weights, const float *scores, float factor, float base, uint32_t seen, v32 *total)
{
    v32 low = exp2_bf16(v32_load(scores) * factor - base), high = exp2_bf16(v32_load(scores + LANES_f32) * factor - base);
    if (seen != UINT32_MAX) {
        low = v32_select(seen, low, (v32){0});
        high = v32_select(seen >> LANES_f32, high, (v32){0});
    }
    total[0] += low;
    total[1] += high;
    pair_store(weights, (v32)(__m512i)_mm512_cvtne2ps_pbh((__m512)high, (__m512)low));
}

/* Returns the sum before rounding. */
SIMD_INLINE float weigh_row(uint32_t *weights, const float *scores, int64_t n, float factor, float base)
{
    v32 total[2] = {{0}};
    int64_t c = 0;
    for (; c + 2 * LANES_f32 <= n; c += 2 * LANES_f32)
        weigh_pairs(weights + c / 2, scores + c, factor, base, UINT32_MAX, total);
    if (c < n)
        weigh_pairs(weights + c / 2, scores + c, factor, base, (1u << (n - c)) - 1, total);
    return v32_sum(total[0] + total[1]);
}

enum { MEETING_ROWS = BLOCK_ROWS_f32, WEIGHT_STRIDE = CPU_MAX_COLUMNS / 2 + LANES_f32 };

/* Softmax of at most six rows of scores, which are to be scaled by |scale|. */
SIMD_INLINE void weigh_rows(const cpu_meeting *t, uint32_t *weights, int64_t first, int64_t rows)
{
    const float factor = (float)fabs(t->scale), factor2 = (float)(fabs(t->scale) * SIMD_LOG2_E);
    const float *scores = t->scores;
    float *max = (float *)t->max + first, *sum = (float *)t->sum + first, top[MEETING_ROWS];
    for (int64_t r = 0; r < rows; r++)
        top[r] = row_top(scores + r * t->score_stride, t->columns) * factor;
    for (int64_t r = 0; r < rows; r++) {
        float *out = (float *)t->out + (first + r) * t->out_stride;
        const float base = raise_max_f32(top[r], max + r, sum + r, out, t->out_stride) * (float)SIMD_LOG2_E;
        sum[r] += weigh_row(weights + r * WEIGHT_STRIDE, scores + r * t->score_stride, t->columns, factor2, base);
    }
}

/* Six rows at a time: their scores and weights stay in the first-level cache, k and v stream by. A negative scale goes to
 * the signs of q, so that the largest score is the largest after scaling. */
static void attend_bf16(const cpu_meeting *t)
{
    uint32_t rounded[MEETING_ROWS * PAIR_DEPTH / 2], weights[MEETING_ROWS * WEIGHT_STRIDE];
    const int64_t pairs = (t->columns + 1) / 2, depth = t->head_dim;
    const uint32_t sign = t->scale < 0 ? 0x80008000 : 0;
    for (int64_t first = 0; first < t->rows; first += MEETING_ROWS) {
        const int64_t rows = t->rows - first < MEETING_ROWS ? t->rows - first : MEETING_ROWS;
        for (int64_t k = 0; k < depth; k += PAIR_DEPTH) {
            const int64_t step = depth - k < PAIR_DEPTH ? depth - k : PAIR_DEPTH;
            round_rows(rounded, (const float *)t->q + first * t->q_stride + k, t->q_stride, rows, step, sign);
            multiply_rows_bf16(t->scores, t->score_stride, rounded, PAIR_DEPTH / 2, t->k, rows, t->columns,
                               (depth + 1) / 2, k / 2, (step + 1) / 2, k > 0, k > 0 ? NULL : t->ahead);
        }
        weigh_rows(t, weights, first, rows);
        multiply_rows_bf16((float *)t->out + first * t->out_stride, t->out_stride, weights, WEIGHT_STRIDE, t->v, rows,
                           t->value_dim, pairs, 0, pairs, true, t->ahead);
    }
}

static void attend_part_bf16(const cpu_meeting *t)
{
    multiply_reach_bf16(t->scores, t->score_stride, t->q, t->q_stride, t->k, t->rows, t->columns, t->head_dim, t->reach,
                        NULL, t->ahead);
    softmax_reach_f32(t);
    if (!t->finite)
        product_masked_bf16(t->out, t->out_stride, t->scores, t->score_stride, t->v, t->rows, t->value_dim, t->columns,
                            t->mask, t->mask_rows);
    else
        multiply_reach_bf16(t->out, t->out_stride, t->scores, t->score_stride, t->v, t->rows, t->value_dim, t->columns,
                            NULL, t->reach, t->ahead);
}
