/* Sums over columns on tensor cores, a row of dimensions for each row of a warp: how weights add to them, and where
 * they go. */
#ifndef NF_CU_MMA_SUMS_H
#define NF_CU_MMA_SUMS_H

/* Another walk of an item is a careful one. */
static void be_careful(bool *careful)
{
    if (ITEM_INDEX == 0)
        *careful = true;
    if (SPLIT)
        BARRIER(); /* it says how rows are split */
}

/* Dimensions `first` and the next of a row that is there, as far as there are any: as one word, if pairs are aligned.
 */
static void store_pair(ushort *to, long step, bool there, bool pairs, int first, int dims, float low, float high)
{
    const uint pair = PACK(low, high);
    if (there && pairs && first + 1 < dims)
        *(uint *)(to + first) = pair;
    else if (there && first < dims) {
        to[first * step] = (ushort)pair;
        if (first + 1 < dims)
            to[(first + 1) * step] = (ushort)(pair >> 16);
    }
}

static void store_pair(float *to, long step, bool there, bool pairs, int first, int dims, float low, float high)
{
    (void)pairs;
    if (there && first < dims)
        to[first * step] = low;
    if (there && first + 1 < dims)
        to[(first + 1) * step] = high;
}

/* Writes the dimensions of rows, times a factor. */
template <int BLOCKS, typename ELEMENT, int ROWS, int N>
static void store_sums(ELEMENT *x, long step, const LINES<ROWS, N> *rows, int which, int dims,
                       float (*sum)[DIMS / 8][4], float factor)
{
    UNROLLED(int b = 0; b < BLOCKS; b++)
    {
        UNROLLED(int h = 0; h < 2; h++)
        {
            const int row = lane_row<BLOCKS>(b, h);
            const bool there = rows->coordinates[row] == ROW_LIMIT;
            ELEMENT *to = x + rows->offset[which][row];
            const bool pairs = step == 1 && (size_t)to % (2 * sizeof *to) == 0;
            UNROLLED(int j = 0; j < DIMS / 8; j++)
            {
                const int first = 8 * j + LANE % 4 * 2;
                store_pair(to, step, there, pairs, first, dims, sum[b][j][2 * h] * factor,
                           sum[b][j][2 * h + 1] * factor);
            }
        }
    }
}

/* The same of partial sums of extra tokens, which follow each other. */
template <int BLOCKS, int ROWS, int N>
static void store_partial(float *partial, long pitch, const LINES<ROWS, N> *rows, int dims, float (*sum)[DIMS / 8][4],
                          float factor)
{
    UNROLLED(int b = 0; b < BLOCKS; b++)
    {
        UNROLLED(int j = 0; j < DIMS / 8; j++)
        {
            UNROLLED(int e = 0; e < 4; e++)
            {
                const int row = lane_row<BLOCKS>(b, e / 2), dim = 8 * j + LANE % 4 * 2 + e % 2;
                if (rows->coordinates[row] == ROW_LIMIT && dim < dims)
                    partial[row * pitch + dim] = sum[b][j][e] * factor;
            }
        }
    }
}

#endif
