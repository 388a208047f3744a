/* Lines of types of 16 bits (cu_mma_lines.h): elements are multiplied as they are, and go to where products read them.
 */
#ifndef NF_CU_MMA_WHOLE_H
#define NF_CU_MMA_WHOLE_H

/* ---- Copies to shared memory ------------------------------------------------------------------------------------- */

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
        ROLLED for (int chunk = ITEM_INDEX % CHUNK_LANES; chunk < chunks; chunk += CHUNK_LANES)
        {
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

/* f32 has to be scaled and split (cu_mma_split.h). */
static float query_scale(bool careful)
{
    (void)careful;
    return 1;
}

static float scaled_back(float x, bool careful)
{
    (void)careful;
    return x;
}

template <int COUNT>
static void split_lines(cu_address raw, cu_address lines, const SOURCE *source, float scale, bool careful)
{
    (void)raw, (void)lines, (void)source, (void)scale, (void)careful;
}

/* Begins to copy lines of rows. */
template <int ROWS, int N>
static void fetch_rows(cu_address lines, cu_address room, const SOURCE *source, const LINES<ROWS, N> *rows, int which,
                       float scale, bool careful)
{
    (void)room, (void)scale, (void)careful;
    copy_lines(lines, ROWS, source, rows->coordinates, ROW_LIMIT, rows->offset[which], 0);
}

/* ---- Products ---------------------------------------------------------------------------------------------------- */

/* sum = rows of a warp times N columns, over the dimensions. */
template <int BLOCKS, int N> static void multiply(cu_address rows, cu_address columns, int dims, float (*sum)[N / 8][4])
{
    const cu_address row = rows + ACROSS_LINE, column = columns + ALONG_LINE;
    const uint row_chunk = ACROSS_CHUNK, column_chunk = ALONG_CHUNK;
    clear<BLOCKS, N>(sum);
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

/* Of N columns, as rows of the second product have them. */
template <int N> using WEIGHTS = uint[N / UNIT][4];

/* Sums of N columns, rounded. */
template <int BLOCKS, int N> static void round_weights(float (*sum)[N / 8][4], WEIGHTS<N> *weights)
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
static void accumulate(const WEIGHTS<N> *weights, cu_address columns, int dims, float (*sum)[DIMS / 8][4])
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

/* sum += weights times dimensions; NaN where a row sees a value that is not finite. */
template <int BLOCKS, int N>
static void accumulate_carefully(const WEIGHTS<N> *weights, const uint (*seen)[N / UNIT][4], cu_address columns,
                                 int dims, float (*sum)[DIMS / 8][4])
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

#endif
