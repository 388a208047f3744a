/* Products of a warpgroup's 64 rows and a step's columns, and what becomes of sums. Lines of rows lie like those of a
 * step.
 */
#ifndef NF_CU_WGMMA_PRODUCTS_H
#define NF_CU_WGMMA_PRODUCTS_H

enum { STEP = COLUMNS };

/* By all threads of a block. Lines that boxes are too short to fill would be whatever memory held, and zero weights
 * make NaN of some of that. */
static void clear_lines(cu_address first, int bytes)
{
    const uint zeros[4] = {};
    for (int i = (int)threadIdx.x; i < bytes / 16; i += THREADS)
        cu_store_16(first + i * 16, zeros);
    cu_fence_async();
}

/* ---- Products ---------------------------------------------------------------------------------------------------- */

/* Later lines of the same, so many bytes on. */
static cu_lines lines_on(cu_lines lines, int bytes)
{
    return lines + (bytes >> 4);
}

/* All lanes have the same address. The compiler knows that of what a shuffle returns: it then finds the addresses of
 * products in registers of the warp, of which there are plenty, and products begin closely one after the other. */
static cu_lines find_lines(cu_address first, int wide)
{
    return cu_lines_at(cu_shuffle(first, 0), wide, EIGHT_LINES);
}

static void begin_scores(cu_address queries, cu_address keys, float (&s)[STEP / 8][4])
{
    const cu_lines a = find_lines(queries, 0), b = find_lines(keys, 0);
    UNROLLED(int i = 0; i < DIMS / UNIT; i++)
    {
        const int at = i * UNIT / PART_DIMS * PART_BYTES + i * UNIT % PART_DIMS * 2;
        MULTIPLY_LINES(s, lines_on(a, at), lines_on(b, at), i > 0);
    }
    cu_wgmma_commit();
}

static void begin_values(const uint (&weights)[STEP / UNIT][4], cu_address values, float (&sum)[DIMS / 8][4])
{
    const cu_lines b = find_lines(values, PART_BYTES);
    UNROLLED(int i = 0; i < STEP / UNIT; i++) MULTIPLY_ACROSS(sum, weights[i], lines_on(b, i * UNIT * PART_LINE_BYTES));
    cu_wgmma_commit();
}

static void round_weights(const float (&s)[STEP / 8][4], uint (&weights)[STEP / UNIT][4])
{
    EACH_EIGHT(j, STEP)
    {
        weights[j / 2][j % 2 * 2] = PACK(s[j][0], s[j][1]);
        weights[j / 2][j % 2 * 2 + 1] = PACK(s[j][2], s[j][3]);
    }
}

/* Warpgroups take turns: while one multiplies the other weighs. */
static void take_turn()
{
    cu_sync_some(TURNS_BARRIER + GROUP, CONSUMERS);
}

static void give_turn()
{
    cu_arrive_some(TURNS_BARRIER + 1 - GROUP, CONSUMERS);
}

/* ---- Results ----------------------------------------------------------------------------------------------------- */

/* Four lanes have a word each of four chunks; now each has one chunk. */
static void exchange_words(uint (&words)[4])
{
    UNROLLED(int apart = 1; apart < 4; apart *= 2)
    {
        UNROLLED(int i = 0; i < 4; i++)
        {
            if (i & apart)
                continue;
            const bool upper = LANE & apart;
            const uint got = cu_shuffle(upper ? words[i] : words[i | apart], LANE ^ apart);
            words[i] = upper ? got : words[i];
            words[i | apart] = upper ? words[i | apart] : got;
        }
    }
}

/* A row's dimensions, rounded: a lane has two of each eight. */
static void store_row(ushort *to, long step, int dims, bool there, float inverse, const float (&sum)[DIMS / 8][4],
                      int half)
{
    UNROLLED(int four = 0; four < DIMS / 32; four++)
    {
        uint words[4];
        UNROLLED(int i = 0; i < 4; i++)
        {
            const float *pair = &sum[4 * four + i][2 * half];
            words[i] = PACK(pair[0] * inverse, pair[1] * inverse);
        }
        exchange_words(words);
        const int dim = 32 * four + LANE % 4 * 8;
        if (there)
            store_words(to + dim * step, step, min(dims - dim, 8), words);
    }
}

static void store_row(float *to, long step, int dims, bool there, float inverse, const float (&sum)[DIMS / 8][4],
                      int half)
{
    EACH_EIGHT(j, DIMS)
    {
        EACH_HALF(e)
        {
            const int dim = 8 * j + LANE % 4 * 2 + e;
            if (there && dim < dims)
                to[dim * step] = sum[j][2 * half + e] * inverse;
        }
    }
}

static bool sums_are_finite(const float (&sum)[DIMS / 8][4])
{
    float zero = 0;
    EACH_EIGHT(j, DIMS) zero += sum[j][0] * 0 + sum[j][1] * 0 + sum[j][2] * 0 + sum[j][3] * 0;
    return zero == 0;
}

#endif
