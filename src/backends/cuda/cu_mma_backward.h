/* Backward on tensor cores: what its kernels share.
 *
 * What they need of each query, its lse and delta, is found first (cu_backward_ends.h). Then dq has queries as rows,
 * which stay, and walks the keys that they see (cu_mma_dq.h); dk and dv have keys as rows and walk the queries that see
 * them (cu_mma_dkv.h). Each computes the weights anew, so that no sum is shared between groups: results do not depend
 * on their order. */
#ifndef NF_CU_MMA_BACKWARD_H
#define NF_CU_MMA_BACKWARD_H

/* Columns that a barrier hands over at once. */
enum { BACKWARD_STEP = SPLIT ? (DIMS < 64 ? 32 : 16) : DIMS <= 64 ? 64 : DIMS == 128 ? 32 : 16 };

/* ---- What both walks share --------------------------------------------------------------------------------------- */

/* Shared memory begins with the lines of both tensors of the rows, then those of the columns, STEP of them, of two
 * stages, of which f32 with many dimensions has room for one. What f32 copies comes last. */
template <int BLOCKS, int STEP> struct STAGES {
    enum {
        ROWS = WARPS * UNIT * BLOCKS,
        ROW_LINES = PIECES * ROWS * LINE_BYTES,
        COLUMN_LINES = PIECES * STEP * LINE_BYTES,
        STAGE_LINES = 2 * COLUMN_LINES,
        STAGE_COUNT = SPLIT && DIMS > MOST_DIMS_OF_BLOCKS ? 1 : 2,
        RAW_LINES = STEP * RAW_LINE_BYTES,
        ALL_LINES = 2 * ROW_LINES + STAGE_COUNT * STAGE_LINES + 2 * RAW_LINES
    };

    /* Where a warp's rows begin. */
    static cu_address rows(cu_address lines)
    {
        return lines + WARP * UNIT * BLOCKS * LINE_BYTES;
    }

    static cu_address columns(cu_address lines, int number)
    {
        return lines + 2 * ROW_LINES + number % STAGE_COUNT * STAGE_LINES;
    }

    /* Where columns of both tensors are copied to. */
    static cu_address copied(cu_address lines, int number)
    {
        return SPLIT ? lines + 2 * ROW_LINES + STAGE_COUNT * STAGE_LINES : columns(lines, number);
    }

    enum { COPIED_LINES = SPLIT ? (int)RAW_LINES : (int)COLUMN_LINES }; /* of one tensor */

    /* Waits for the columns of both tensors that this thread has begun to copy. A barrier must follow. */
    static void land(cu_address lines, int number, const SOURCE *first, const SOURCE *second, float scale, bool careful)
    {
        cu_copy_async_wait<0>();
        if (STAGE_COUNT == 1)
            BARRIER(); /* all have done with the stage */
        split_lines<STEP>(copied(lines, number), columns(lines, number), first, scale, careful);
        split_lines<STEP>(copied(lines, number) + COPIED_LINES, columns(lines, number) + COLUMN_LINES, second, 1,
                          careful);
    }

    /* Begins to copy the lines of both tensors of the rows. */
    template <int N>
    static void fetch(cu_address lines, const SOURCE *first, const SOURCE *second, const LINES<ROWS, N> *rows,
                      int first_lines, int second_lines, float scale, bool careful)
    {
        fetch_rows(lines, columns(lines, 0), first, rows, first_lines, scale, careful);
        fetch_rows(lines + ROW_LINES, columns(lines, 0), second, rows, second_lines, 1, careful);
        if (SPLIT)
            BARRIER(); /* columns are copied to the same place */
    }
};

/* sum += weights times the dimensions of columns. */
template <int BLOCKS, int STEP>
static void add_product(float (*weights)[STEP / 8][4], const HULL *hull, const SPOT *spot, const MASK<BLOCKS> *mask,
                        bool careful, cu_address columns, int dims, float (*sum)[DIMS / 8][4])
{
    WEIGHTS<STEP> rounded[BLOCKS];
    uint seen[BLOCKS][STEP / UNIT][4];
    round_weights<BLOCKS, STEP>(weights, rounded);
    if (careful) {
        weigh_sight<BLOCKS, STEP>(hull, spot, mask, seen);
        accumulate_carefully<BLOCKS, STEP>(rounded, seen, columns, dims, sum);
    } else {
        accumulate<BLOCKS, STEP>(rounded, columns, dims, sum);
    }
}

#endif
