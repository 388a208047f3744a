/* f32 on tensor cores. A float is the sum of three pieces of bf16, exactly: each rounds what those before it have left,
 * and three times 8 bits are all 24. So a product of floats is one of nine pairs of pieces, of which the three least,
 * together below 2^-23 of it, are left out. mma.sync cuts off what it sums, as no other instruction does, so that each
 * of its sums is of UNIT terms alone, from the least pairs to the greatest, and added to the others as floats are.
 *
 * Lines are there once for each piece. Copies bring floats to a place of their own, where each waits for the very
 * thread that has begun its copy: it splits them once they have landed, and no barrier is between. */
#ifndef NF_CU_MMA_SPLIT_H
#define NF_CU_MMA_SPLIT_H

enum {
    FOUR = 4,                       /* floats, 16 bytes, that are copied at once: half of a chunk */
    SPLIT_LANES = DIMS < 64 ? 4 : 8 /* that have chunks of one line side by side */
};

/* ---- Copies to shared memory ------------------------------------------------------------------------------------- */

/* Where half of a chunk waits to be split. */
static cu_address raw_place(cu_address raw, int count, int line, int chunk, int half)
{
    return raw + ((half * count + line) * LINE_CHUNKS + chunk) * 16;
}

/* `there` of four floats, zeros after them, one at a time. */
static void gather_four(cu_address to, const SOURCE *source, long place, int there)
{
    uint words[FOUR];
    UNROLLED(int i = 0; i < FOUR; i++)
    {
        words[i] = i < there ? as_uint(((const float *)source->data)[place + i * source->step]) : 0;
    }
    cu_store_16(to, words);
}

/* Begins to copy so many lines, to be split. Those whose coordinates lie within the limit begin at base + offset,
 * others are zeros. */
static void copy_lines(cu_address raw, int count, const SOURCE *source, const uint *coordinates, uint limit,
                       const long *offset, long base)
{
    const int dims = source->dims, chunks = filled_chunks(dims), thread = cu_anew(ITEM_INDEX);
    for (int line = thread / SPLIT_LANES; line < count; line += ITEMS / SPLIT_LANES) {
        const bool there = is_between(0, coordinates[line], limit);
        const long place = there ? base + offset[line] : 0;
        for (int i = thread % SPLIT_LANES * 2; i < 2 * chunks; i += 2 * SPLIT_LANES) {
            UNROLLED(int half = 0; half < 2; half++)
            {
                const int first = (i + half) * FOUR, floats = there ? max(min(dims - first, (int)FOUR), 0) : 0;
                const cu_address to = raw_place(raw, count, line, i / 2, half);
                if (!source->wide)
                    gather_four(to, source, place + first * source->step, floats);
                else if (floats)
                    cu_copy_async_16(to, (const float *)source->data + place + first, floats * (int)sizeof(float));
                else
                    cu_copy_async_16(to, source->data, 0);
            }
        }
    }
}

/* ---- Pieces ------------------------------------------------------------------------------------------------------ */

/* bf16 has the exponents of f32 and fewer bits below, so that pieces of what is less than 2^-109 are lost. Queries that
 * are so small may meet keys as large as 1 / them: they are multiplied by this, which makes normal numbers of all their
 * pieces. Where that is too much for them their sums are not finite, and careful walks do without it. */
static float query_scale(bool careful)
{
    return careful ? 1 : 0x1p24f;
}

/* A sum over scaled queries, or a factor of it, as if they were not. */
static float scaled_back(float x, bool careful)
{
    return careful ? x : x * 0x1p-24f;
}

/* What rounds to bf16 as a finite number, where x is one. */
static float rounds_finite(float x)
{
    const float most = as_float(0x7f7f0000u); /* of bf16 */
    return as_uint(x) << 1 < 0xff000000u ? fmaxf(fminf(x, most), -most) : x;
}

/* Pieces of two floats, those of the same order in one word. */
template <bool CAREFUL> static void split_two(float x, float y, uint pieces[PIECES])
{
    pieces[0] = CAREFUL ? PACK(rounds_finite(x), rounds_finite(y)) : PACK(x, y);
    UNROLLED(int p = 1; p < PIECES; p++)
    {
        x -= as_float(pieces[p - 1] << 16);
        y -= as_float(pieces[p - 1] & 0xffff0000u);
        pieces[p] = PACK(x, y);
    }
}

/* Splits what this thread's copies have brought, times a scale. */
template <int COUNT, bool CAREFUL> static void split_chunks(cu_address raw, cu_address lines, int dims, float scale)
{
    const int chunks = filled_chunks(dims), thread = cu_anew(ITEM_INDEX);
    ROLLED for (int line = thread / SPLIT_LANES; line < COUNT; line += ITEMS / SPLIT_LANES)
    {
        ROLLED for (int chunk = thread % SPLIT_LANES; chunk < chunks; chunk += SPLIT_LANES)
        {
            uint words[2 * FOUR], pieces[PIECES][FOUR];
            cu_load_16(words, raw_place(raw, COUNT, line, chunk, 0));
            cu_load_16(words + FOUR, raw_place(raw, COUNT, line, chunk, 1));
            UNROLLED(int i = 0; i < FOUR; i++)
            {
                uint two[PIECES];
                split_two<CAREFUL>(as_float(words[2 * i]) * scale, as_float(words[2 * i + 1]) * scale, two);
                UNROLLED(int p = 0; p < PIECES; p++)
                {
                    pieces[p][i] = two[p];
                }
            }
            UNROLLED(int p = 0; p < PIECES; p++)
            {
                cu_store_16(chunk_address(lines + p * COUNT * LINE_BYTES, line, chunk), pieces[p]);
            }
        }
    }
}

template <int COUNT>
static void split_lines(cu_address raw, cu_address lines, const SOURCE *source, float scale, bool careful)
{
    if (careful)
        split_chunks<COUNT, true>(raw, lines, source->dims, scale);
    else
        split_chunks<COUNT, false>(raw, lines, source->dims, scale);
}

/* Lines of rows, at once. A barrier must follow before others see them, or the room is used anew. */
template <int ROWS, int N>
static void fetch_rows(cu_address lines, cu_address room, const SOURCE *source, const LINES<ROWS, N> *rows, int which,
                       float scale, bool careful)
{
    copy_lines(room, ROWS, source, rows->coordinates, ROW_LIMIT, rows->offset[which], 0);
    cu_copy_async_commit();
    cu_copy_async_wait<0>();
    split_lines<ROWS>(room, lines, source, scale, careful);
}

/* ---- Products ---------------------------------------------------------------------------------------------------- */

/* sum += UNIT columns of rows times those of two tiles of columns, number `first` and the next. */
template <int BLOCKS, int TILES>
static void add_products(const uint (*rows)[BLOCKS][4], const uint (*columns)[4], int first, float (*sum)[TILES][4])
{
    float product[BLOCKS][2][4] = {};
    UNROLLED(int order = PIECES - 1; order >= 0; order--)
    {
        UNROLLED(int p = 0; p <= order; p++)
        {
            UNROLLED(int b = 0; b < BLOCKS; b++)
            {
                MULTIPLY_ADD(product[b][0], rows[p][b], columns[order - p]);
                MULTIPLY_ADD(product[b][1], rows[p][b], columns[order - p] + 2);
            }
        }
    }
    UNROLLED(int b = 0; b < BLOCKS; b++)
    {
        UNROLLED(int e = 0; e < 4; e++)
        {
            sum[b][first][e] += product[b][0][e];
            sum[b][first + 1][e] += product[b][1][e];
        }
    }
}

/* sum = rows of a warp times N columns, over the dimensions. */
template <int BLOCKS, int N> static void multiply(cu_address rows, cu_address columns, int dims, float (*sum)[N / 8][4])
{
    enum { ROW_PIECE = WARPS * UNIT * BLOCKS * LINE_BYTES, COLUMN_PIECE = N * LINE_BYTES };
    const cu_address row = rows + ACROSS_LINE, column = columns + ALONG_LINE;
    const uint row_chunk = ACROSS_CHUNK, column_chunk = ALONG_CHUNK;
    clear<BLOCKS, N>(sum);
    UNROLLED(int i = 0; i < DIMS / UNIT; i++)
    {
        if (PAST_DIMS(i, dims))
            break;
        uint a[PIECES][BLOCKS][4];
        UNROLLED(int p = 0; p < PIECES; p++)
        {
            UNROLLED(int b = 0; b < BLOCKS; b++)
            {
                cu_ldmatrix_x4(a[p][b], row + p * ROW_PIECE + b * UNIT * LINE_BYTES + UNIT_CHUNK(row_chunk, i));
            }
        }
        UNROLLED(int j = 0; j < N / 8; j += 2)
        {
            uint pairs[PIECES][4];
            UNROLLED(int p = 0; p < PIECES; p++)
            {
                cu_ldmatrix_x4(pairs[p], column + p * COLUMN_PIECE + j * 8 * LINE_BYTES + UNIT_CHUNK(column_chunk, i));
            }
            add_products<BLOCKS, N / 8>(a, pairs, j, sum);
        }
    }
}

/* Of N columns, as rows of the second product are split from them. */
template <int N> using WEIGHTS = float[N / 8][4];

template <int BLOCKS, int N> static void round_weights(float (*sum)[N / 8][4], WEIGHTS<N> *weights)
{
    UNROLLED(int b = 0; b < BLOCKS; b++)
    {
        UNROLLED(int j = 0; j < N / 8; j++)
        {
            UNROLLED(int e = 0; e < 4; e++)
            {
                weights[b][j][e] = sum[b][j][e];
            }
        }
    }
}

/* Of UNIT number k of the columns. */
template <int BLOCKS, int N> static void split_weights(const WEIGHTS<N> *weights, int k, uint (*pieces)[BLOCKS][4])
{
    UNROLLED(int b = 0; b < BLOCKS; b++)
    {
        UNROLLED(int i = 0; i < 4; i++)
        {
            uint two[PIECES];
            const float *pair = weights[b][2 * k + i / 2] + i % 2 * 2;
            split_two<false>(pair[0], pair[1], two);
            UNROLLED(int p = 0; p < PIECES; p++)
            {
                pieces[p][b][i] = two[p];
            }
        }
    }
}

/* The pieces of a UNIT of columns and of dimensions, transposed. */
template <int N> static void load_across(uint (*pairs)[4], cu_address columns, int k, int i)
{
    UNROLLED(int p = 0; p < PIECES; p++)
    {
        cu_ldmatrix_x4_trans(pairs[p],
                             columns + ACROSS_LINE + (p * N + k * UNIT) * LINE_BYTES + UNIT_CHUNK(ACROSS_CHUNK, i));
    }
}

/* sum += weights of N columns times their dimensions. */
template <int BLOCKS, int N>
static void accumulate(const WEIGHTS<N> *weights, cu_address columns, int dims, float (*sum)[DIMS / 8][4])
{
    UNROLLED(int k = 0; k < N / UNIT; k++)
    {
        uint a[PIECES][BLOCKS][4];
        split_weights<BLOCKS, N>(weights, k, a);
        UNROLLED(int i = 0; i < DIMS / UNIT; i++)
        {
            if (PAST_DIMS(i, dims))
                break;
            uint pairs[PIECES][4];
            load_across<N>(pairs, columns, k, i);
            add_products<BLOCKS, DIMS / 8>(a, pairs, 2 * i, sum);
        }
    }
}

/* sum += weights times dimensions; NaN where a row sees a value that is not finite. */
template <int BLOCKS, int N>
static void accumulate_carefully(const WEIGHTS<N> *weights, const uint (*seen)[N / UNIT][4], cu_address columns,
                                 int dims, float (*sum)[DIMS / 8][4])
{
    UNROLLED(int k = 0; k < N / UNIT; k++)
    {
        uint a[PIECES][BLOCKS][4];
        split_weights<BLOCKS, N>(weights, k, a);
        UNROLLED(int i = 0; i < DIMS / UNIT; i++)
        {
            uint pairs[PIECES][4], rest[PIECES][4];
            if (PAST_DIMS(i, dims))
                break;
            load_across<N>(pairs, columns, k, i);
            UNROLLED(int p = 0; p < PIECES; p++)
            {
                split_pair(pairs[p], pairs[p], rest[p]);
                split_pair(pairs[p] + 2, pairs[p] + 2, rest[p] + 2);
            }
            add_products<BLOCKS, DIMS / 8>(a, pairs, 2 * i, sum);
            UNROLLED(int b = 0; b < BLOCKS; b++)
            {
                UNROLLED(int half = 0; half < 2; half++)
                {
                    float met[4] = {};
                    MULTIPLY_ADD(met, seen[b][k], rest[0] + 2 * half);
                    UNROLLED(int e = 0; e < 4; e++)
                    {
                        if (met[e] > 0)
                            sum[b][2 * i + half][e] = NAN;
                    }
                }
            }
        }
    }
}

#endif
