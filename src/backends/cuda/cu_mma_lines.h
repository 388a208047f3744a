/* Lines of tiles for tensor cores (cu_mma_tile.h) in shared memory: copies to it, the two products of attention, and
 * what becomes of elements that are not finite. */
#ifndef NF_CU_MMA_LINES_H
#define NF_CU_MMA_LINES_H

/* ---- Copies to shared memory ------------------------------------------------------------------------------------- */

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
    source.wide = source.step == 1 && any % CHUNK_ELEMENTS == 0 && (size_t)data % 16 == 0;
    return source;
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

static uint load_element(const SOURCE *source, long place)
{
    return source->floats ? PACK(((const float *)source->data)[place], 0) : ((const ushort *)source->data)[place];
}

/* `there` of a chunk's elements, zeros after them, one at a time. */
static void gather_chunk(cu_address to, const SOURCE *source, long place, int there)
{
    uint words[CHUNK_ELEMENTS / 2];
    UNROLLED(int i = 0; i < CHUNK_ELEMENTS / 2; i++)
    {
        const uint low = 2 * i < there ? load_element(source, place + 2 * i * source->step) : 0;
        const uint high = 2 * i + 1 < there ? load_element(source, place + (2 * i + 1) * source->step) : 0;
        words[i] = low | high << 16;
    }
    cu_store_16(to, words);
}

/* Chunks of a line that products look at. */
static int filled_chunks(int dims)
{
    return ((dims - 1) / (GRAIN * UNIT) + 1) * (GRAIN * UNIT / CHUNK_ELEMENTS);
}

/* As copy_lines, for lines that cannot be copied 16 bytes at a time. Rare, so that it shall be short. */
static void gather_lines(cu_address lines, int count, const SOURCE *source, const uint *coordinates, uint limit,
                         const long *offset, long base)
{
    const int chunks = filled_chunks(source->dims);
    ROLLED for (int i = ITEM_INDEX; i < count * chunks; i += ITEMS)
    {
        const int line = i / chunks, chunk = i % chunks, first = chunk * CHUNK_ELEMENTS;
        const bool there = is_between(0, coordinates[line], limit);
        gather_chunk(chunk_address(lines, line, chunk), source, there ? base + offset[line] + first * source->step : 0,
                     there ? source->dims - first : 0);
    }
}

/* Begins to copy so many lines. Those whose coordinates lie within the limit begin at base + offset, others are zeros.
 */
static void copy_lines(cu_address lines, int count, const SOURCE *source, const uint *coordinates, uint limit,
                       const long *offset, long base)
{
    const int dims = source->dims, chunks = filled_chunks(dims);
    if (!source->wide) {
        gather_lines(lines, count, source, coordinates, limit, offset, base);
        return;
    }
    for (int line = ITEM_INDEX / CHUNK_LANES; line < count; line += ITEMS / CHUNK_LANES) {
        const bool there = is_between(0, coordinates[line], limit);
        const long place = there ? base + offset[line] : 0;
        for (int chunk = ITEM_INDEX % CHUNK_LANES; chunk < chunks; chunk += CHUNK_LANES) {
            const int first = chunk * CHUNK_ELEMENTS;
            const int elements = there ? max(min(dims - first, (int)CHUNK_ELEMENTS), 0) : 0;
            const cu_address to = chunk_address(lines, line, chunk);
            if (elements)
                cu_copy_async_16(to, (const ushort *)source->data + place + first, 2 * elements);
            else
                cu_copy_async_16(to, source->data, 0);
        }
    }
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
    for (int r = ITEM_INDEX; r < ROWS; r += ITEMS) {
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

/* ---- Products ---------------------------------------------------------------------------------------------------- */

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

/* sum = rows of a warp times N columns, over the dimensions. */
template <int BLOCKS, int N> static void multiply(cu_address rows, cu_address columns, int dims, float (*sum)[N / 8][4])
{
    const cu_address row = rows + ACROSS_LINE, column = columns + ALONG_LINE;
    const uint row_chunk = ACROSS_CHUNK, column_chunk = ALONG_CHUNK;
    UNROLLED(int b = 0; b < BLOCKS; b++)
    {
        UNROLLED(int j = 0; j < N / 8; j++)
        {
            sum[b][j][0] = sum[b][j][1] = sum[b][j][2] = sum[b][j][3] = 0;
        }
    }
    UNROLLED(int i = 0; i < DIMS / UNIT; i++)
    {
        if (PAST_DIMS(i, dims))
            break;
        uint a[BLOCKS][4];
        UNROLLED(int b = 0; b < BLOCKS; b++)
        {
            cu_ldmatrix_x4(a[b], row + b * UNIT * LINE_BYTES + UNIT_CHUNK(row_chunk, i));
        }
        UNROLLED(int j = 0; j < N / 8; j += 2)
        {
            uint pair[4];
            cu_ldmatrix_x4(pair, column + j * 8 * LINE_BYTES + UNIT_CHUNK(column_chunk, i));
            UNROLLED(int b = 0; b < BLOCKS; b++)
            {
                MULTIPLY_ADD(sum[b][j], a[b], pair);
                MULTIPLY_ADD(sum[b][j + 1], a[b], pair + 2);
            }
        }
    }
}

/* Sums of N columns, rounded, as rows of the second product. */
template <int BLOCKS, int N> static void round_weights(float (*sum)[N / 8][4], uint (*weights)[N / UNIT][4])
{
    UNROLLED(int b = 0; b < BLOCKS; b++)
    {
        UNROLLED(int j = 0; j < N / 8; j++)
        {
            weights[b][j / 2][j % 2 * 2] = PACK(sum[b][j][0], sum[b][j][1]);
            weights[b][j / 2][j % 2 * 2 + 1] = PACK(sum[b][j][2], sum[b][j][3]);
        }
    }
}

/* sum += weights of N columns times their dimensions. */
template <int BLOCKS, int N>
static void accumulate(const uint (*weights)[N / UNIT][4], cu_address columns, int dims, float (*sum)[DIMS / 8][4])
{
    const cu_address column = columns + ACROSS_LINE;
    const uint chunk = ACROSS_CHUNK;
    UNROLLED(int i = 0; i < DIMS / UNIT; i++)
    {
        if (PAST_DIMS(i, dims))
            break;
        UNROLLED(int k = 0; k < N / UNIT; k++)
        {
            uint pair[4];
            cu_ldmatrix_x4_trans(pair, column + k * UNIT * LINE_BYTES + UNIT_CHUNK(chunk, i));
            UNROLLED(int b = 0; b < BLOCKS; b++)
            {
                MULTIPLY_ADD(sum[b][2 * i], weights[b][k], pair);
                MULTIPLY_ADD(sum[b][2 * i + 1], weights[b][k], pair + 2);
            }
        }
    }
}

/* ---- Columns that are not finite --------------------------------------------------------------------------------- */

/* A zero weight makes NaN of a value that is not finite. So whoever finds a sum that is not repeats the item with this
 * product, in which rows that do not see a column never meet its values. */

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

/* sum += weights times dimensions; NaN where a row sees a value that is not finite. */
template <int BLOCKS, int N>
static void accumulate_carefully(const uint (*weights)[N / UNIT][4], const uint (*seen)[N / UNIT][4],
                                 cu_address columns, int dims, float (*sum)[DIMS / 8][4])
{
    const cu_address column = columns + ACROSS_LINE;
    const uint chunk = ACROSS_CHUNK;
    UNROLLED(int i = 0; i < DIMS / UNIT; i++)
    {
        if (PAST_DIMS(i, dims))
            break;
        UNROLLED(int half = 0; half < 2; half++)
        {
            float met[BLOCKS][4] = {};
            UNROLLED(int k = 0; k < N / UNIT; k++)
            {
                uint pair[4], finite[2], rest[2];
                cu_ldmatrix_x4_trans(pair, column + k * UNIT * LINE_BYTES + UNIT_CHUNK(chunk, i));
                split_pair(pair + 2 * half, finite, rest);
                UNROLLED(int b = 0; b < BLOCKS; b++)
                {
                    MULTIPLY_ADD(sum[b][2 * i + half], weights[b][k], finite);
                    MULTIPLY_ADD(met[b], seen[b][k], rest);
                }
            }
            UNROLLED(int b = 0; b < BLOCKS; b++)
            {
                UNROLLED(int e = 0; e < 4; e++)
                {
                    if (met[b][e] > 0)
                        sum[b][2 * i + half][e] = NAN;
                }
            }
        }
    }
}

/* What comes instead of the above where columns are in shared memory alone: zeros take the place of what is not finite,
 * and rows that see such an element get NaN. */

/* Clears the elements of lines that are not finite, and notes them: a byte per chunk, a bit per element. A thread's
 * part of so many threads. */
template <int COUNT>
static void clean_lines(cu_address lines, unsigned char (&notes)[COUNT * LINE_CHUNKS], int thread, int threads)
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
static void spread_nan(const HULL *hull, const SPOT *spot, VIEW view, uint low, uint high,
                       const unsigned char (&notes)[COUNT * LINE_CHUNKS], float (*sum)[DIMS / 8][4])
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

#endif
