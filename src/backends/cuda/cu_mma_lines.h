/* Lines of tiles for tensor cores (cu_mma_tile.h) in shared memory: where they lie, and what becomes of elements that
 * are not finite. cu_mma_whole.h and, for f32, cu_mma_split.h copy them there and have the two products of attention.
 */
#ifndef NF_CU_MMA_LINES_H
#define NF_CU_MMA_LINES_H

/* ---- Places ------------------------------------------------------------------------------------------------------ */

/* A tensor whose lines are copied. */
typedef struct SOURCE {
    const void *data;
    long step; /* from dimension to dimension */
    int dims;
    bool floats; /* elements are floats, to be rounded */
    bool wide;   /* lines can be copied 16 bytes at a time */
} SOURCE;

static SOURCE open_source(const long *numbers, int tensor, const IN *data, long dims)
{
    SOURCE source = {data, STRIDE(tensor, GPU_STRIDE_DIM), (int)dims, false, false};
    long any = STRIDE(tensor, GPU_STRIDE_BATCH) | STRIDE(tensor, GPU_STRIDE_HEAD);
    for (int a = 0; a < RANK; a++)
        any |= STRIDE_AXIS(tensor, a);
    source.wide = source.step == 1 && any % (16 / (int)sizeof(IN)) == 0 && (size_t)data % 16 == 0;
    return source;
}

/* The gradient of out, whose type may be f32. */
static SOURCE open_dout(const long *numbers, const void *dout, long dout_at)
{
    if (IN_TYPE == 0 || numbers[GPU_OUT_TYPE] != 0)
        return open_source(numbers, GPU_DOUT, (const IN *)dout + dout_at, numbers[GPU_VALUE_DIM]);
    return SOURCE{(const float *)dout + dout_at, STRIDE(GPU_DOUT, GPU_STRIDE_DIM), (int)numbers[GPU_VALUE_DIM], true,
                  false};
}

static uint swizzle(uint line)
{
    return DIMS < 64 ? line >> 1 & 3 : line & 7;
}

/* Chunks lie permuted, so that the same chunks of neighboring lines are in different banks. */
static cu_address chunk_address(cu_address lines, int line, int chunk)
{
    return lines + chunk / PART_CHUNKS * PART_BYTES + line * PART_CHUNKS * 16 +
           (((uint)chunk % PART_CHUNKS ^ swizzle((uint)line)) << 4);
}

/* Chunks of a line that products look at. */
static int filled_chunks(int dims)
{
    return ((dims - 1) / (GRAIN * UNIT) + 1) * (GRAIN * UNIT / CHUNK_ELEMENTS);
}

/* Rows of a box, to be copied once per item: as columns are, every row of its own coordinates. */
template <int ROWS, int N> struct LINES {
    uint coordinates[ROWS];
    long offset[N][ROWS];
};

enum { ROW_LIMIT = 0 }; /* rows that are there have coordinates 0 */

template <int ROWS, int N>
static void place_rows(const long *numbers, const BOX *rows, const int (&tensors)[N], long batch, long head,
                       LINES<ROWS, N> *lines)
{
    const int count = volume(rows);
    ROLLED for (int r = ITEM_INDEX; r < ROWS; r += ITEMS)
    {
        int position[RANK];
        position_at(rows, min(r, count - 1), position);
        lines->coordinates[r] = r < count ? 0 : ABSENT_COLUMN;
        UNROLLED(int i = 0; i < N; i++)
        {
            lines->offset[i][r] =
                base_of(numbers, tensors[i], batch, head) + place_of(numbers, tensors[i], rows, position);
        }
    }
}

/* ---- Fragments --------------------------------------------------------------------------------------------------- */

/* Fragments as mma.m16n8k16 has them. Of sums, a lane has rows LANE / 4 and LANE / 4 + 8 of a block, of each eight
 * columns numbers LANE % 4 * 2 and the next: [0] and [1] of the one row, [2] and [3] of the other. */

/* The line that a lane names for rows, or for columns to be transposed, in bytes, and its chunk of UNIT number 0. */
#define ACROSS_LINE (LANE % 16 * LINE_BYTES)
#define ACROSS_CHUNK ((LANE / 16 ^ swizzle(LANE % 16)) << 4)
/* The same for columns as they are. */
#define ALONG_LINE ((LANE % 8 + LANE / 16 * 8) * LINE_BYTES)
#define ALONG_CHUNK ((LANE / 8 % 2 ^ swizzle(LANE % 8)) << 4)
/* The chunk of UNIT number i. The permutation is of eight chunks, four UNITs: more would only be more registers. */
#define UNIT_CHUNK(chunk, i) (((chunk) ^ (uint)(i) % 4 * 2 * UNIT) + (uint)(i) / 4 * 4 * 2 * UNIT)

/* Whether dimensions end before UNIT number i. */
#define PAST_DIMS(i, dims) ((i) % GRAIN == 0 && (i)*UNIT >= (dims))

/* ---- Columns that are not finite --------------------------------------------------------------------------------- */

/* A zero weight makes NaN of a value that is not finite. So whoever finds a sum that is not repeats the item carefully:
 * by accumulate_carefully, in which rows that do not see a column never meet its values, or by clean_lines. */

/* 1 where rows see columns, 0 elsewhere, as weights. */
template <int BLOCKS, int STEP>
static void weigh_sight(const HULL *hull, const SPOT *spot, const MASK<BLOCKS> *mask, uint (*seen)[STEP / UNIT][4])
{
    UNROLLED(int j = 0; j < STEP / 8; j++)
    {
        uint at[2];
        lane_coordinates(hull, spot, j, at);
        UNROLLED(int b = 0; b < BLOCKS; b++)
        {
            UNROLLED(int h = 0; h < 2; h++)
            {
                const bool first = is_between(mask->low[b][h], at[0], mask->high[b][h]);
                const bool second = is_between(mask->low[b][h], at[1], mask->high[b][h]);
                seen[b][j / 2][j % 2 * 2 + h] = TWO_ONES & ((first ? 0xffffu : 0) | (second ? 0xffff0000u : 0));
            }
        }
    }
}

/* Splits two pairs of elements: what is finite of them, and 1 in place of the rest. */
static void split_pair(const uint pair[2], uint finite[2], uint rest[2])
{
    UNROLLED(int i = 0; i < 2; i++)
    {
        const uint flags = ((pair[i] & EXPONENTS) + LEAST_EXPONENTS) & 0x80008000u;
        const uint whole = (flags >> 15) * 0xffffu;
        finite[i] = pair[i] & ~whole;
        rest[i] = TWO_ONES & whole;
    }
}

/* What comes instead of the above where columns are in shared memory alone: zeros take the place of what is not finite,
 * and rows that see such an element get NaN. */

/* Clears the elements of lines that are not finite, and notes them: a byte per chunk, a bit per element. A thread's
 * part of so many threads. */
template <int COUNT> static void clean_lines(cu_address lines, unsigned char *notes, int thread, int threads)
{
    ROLLED for (int i = thread; i < COUNT * LINE_CHUNKS; i += threads)
    {
        const cu_address chunk = chunk_address(lines, i / LINE_CHUNKS, i % LINE_CHUNKS);
        uint words[4], noted = 0;
        cu_load_16(words, chunk);
        UNROLLED(int w = 0; w < 4; w++)
        {
            const uint flags = ((words[w] & EXPONENTS) + LEAST_EXPONENTS) & 0x80008000u;
            words[w] &= ~((flags >> 15) * 0xffffu);
            noted |= ((flags >> 15 & 1) | (flags >> 30 & 2)) << 2 * w;
        }
        cu_store_16(chunk, words);
        notes[i] = (unsigned char)noted;
    }
}

/* NaN where rows see what was noted of columns. low and high as of glance. */
template <int BLOCKS, int COUNT>
static void spread_nan(const HULL *hull, const SPOT *spot, VIEW view, uint low, uint high, const unsigned char *notes,
                       float (*sum)[DIMS / 8][4])
{
    ROLLED for (int c = 0; c < COUNT; c++)
    {
        const uint at = hull->coordinates[spot->column + c];
        const uint rows = cu_ballot(view == SEES_ALL || is_between(low, at, high)) >> LANE / 4;
        UNROLLED(int j = 0; j < DIMS / 8; j++)
        {
            const int noted = notes[c * LINE_CHUNKS + j] >> LANE % 4 * 2 & 3;
            UNROLLED(int b = 0; b < BLOCKS; b++)
            {
                UNROLLED(int e = 0; e < 4; e++)
                {
                    if (noted >> e % 2 & rows >> (b * UNIT + e / 2 * UNIT / 2) & 1)
                        sum[b][j][e] = NAN;
                }
            }
        }
    }
}

/* Whether any of a lane's sums is not finite. */
template <int BLOCKS> static bool is_not_finite(float (*sum)[DIMS / 8][4])
{
    float zero = 0;
    UNROLLED(int b = 0; b < BLOCKS; b++)
    {
        UNROLLED(int j = 0; j < DIMS / 8; j++)
        {
            UNROLLED(int e = 0; e < 4; e++)
            {
                zero += sum[b][j][e] * 0;
            }
        }
    }
    return zero != 0;
}

template <int BLOCKS, int N> static void clear(float (*sum)[N / 8][4])
{
    UNROLLED(int b = 0; b < BLOCKS; b++)
    {
        UNROLLED(int j = 0; j < N / 8; j++)
        {
            sum[b][j][0] = sum[b][j][1] = sum[b][j][2] = sum[b][j][3] = 0;
        }
    }
}

#if IN_TYPE == 0
#include "backends/cuda/cu_mma_split.h"
#else
#include "backends/cuda/cu_mma_whole.h"
#endif

#endif
