/* What kernels share, whichever way they multiply: scores hidden and weighed, extra tokens as columns, results stored.
 * Sums lie as mma.m16n8k16 has them: rows LANE / 4 and LANE / 4 + 8 of 16, of each eight columns two. */
#ifndef NF_CU_SOFTMAX_H
#define NF_CU_SOFTMAX_H

#define EACH_BLOCK(b) UNROLLED(int b = 0; b < BLOCKS; b++)
#define EACH_HALF(h) UNROLLED(int h = 0; h < 2; h++)
#define EACH_EIGHT(j, n) UNROLLED(int j = 0; j < (n) / 8; j++)

/* ---- Scores ------------------------------------------------------------------------------------------------------ */

/* Scores that rows do not see become -inf. */
template <int BLOCKS, int STEP>
static void hide(const HULL *hull, const SPOT *spot, uint low, uint high, float (*s)[STEP / 8][4])
{
    MASK<BLOCKS> mask;
    share_mask(low, high, &mask);
    EACH_EIGHT(j, STEP)
    {
        uint at[2];
        lane_coordinates(hull, spot, j, at);
        EACH_BLOCK(b)
        {
            EACH_HALF(h)
            {
                if (!is_between(mask.low[b][h], at[0], mask.high[b][h]))
                    s[b][j][2 * h] = -INFINITY;
                if (!is_between(mask.low[b][h], at[1], mask.high[b][h]))
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

static long count_items(const long *numbers)
{
    return numbers[GPU_BY_QUERY + GPU_WALK_ITEMS] * numbers[GPU_HEADS] * numbers[GPU_BATCH];
}

/* ---- Results ----------------------------------------------------------------------------------------------------- */

/* Eight neighbors of a row of out, or as many as there are. */
static void store_eight(float *to, long step, int there, const float *x)
{
    if (there == 8 && step == 1 && (size_t)to % 16 == 0) {
        const uint words[8] = {as_uint(x[0]), as_uint(x[1]), as_uint(x[2]), as_uint(x[3]),
                               as_uint(x[4]), as_uint(x[5]), as_uint(x[6]), as_uint(x[7])};
        cu_write_16(to, words);
        cu_write_16(to + 4, words + 4);
        return;
    }
    UNROLLED(int e = 0; e < 8; e++)
    {
        if (e < there)
            to[e * step] = x[e];
    }
}

static void store_words(ushort *to, long step, int there, const uint (&words)[4])
{
    if (there == 8 && step == 1 && (size_t)to % 16 == 0) {
        cu_write_16(to, words);
        return;
    }
    UNROLLED(int e = 0; e < 8; e++)
    {
        if (e < there)
            to[e * step] = (ushort)(words[e / 2] >> 16 * (e % 2));
    }
}

static void store_eight(ushort *to, long step, int there, const float *x)
{
    const uint words[4] = {PACK(x[0], x[1]), PACK(x[2], x[3]), PACK(x[4], x[5]), PACK(x[6], x[7])};
    store_words(to, step, there, words);
}

#endif
