/* Backward on tensor cores: what its kernels share.
 *
 * What they need of each query, its lse and delta, is found first (cu_backward_ends.h). Then dq has queries as rows,
 * which stay, and walks the keys that they see (cu_mma_dq.h); dk and dv have keys as rows and walk the queries that see
 * them (cu_mma_dkv.h). Each computes the weights anew, so that no sum is shared between groups: results do not depend
 * on their order. */
#ifndef NF_CU_MMA_BACKWARD_H
#define NF_CU_MMA_BACKWARD_H

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

#endif
