/* Tiles for tensor cores: the columns of an item as they are walked, and what rows see of them. cu_mma_lines.h copies
 * and multiplies them.
 *
 * A warp has 16 * BLOCKS rows; columns pass through shared memory, all warps take the same. Lines in shared memory have
 * DIMS elements of 16 bits. Columns of a tile are not packed: column c stands for the same coordinates in every tile of
 * an item, and those that a tile at an edge lacks nobody sees. So tables are made once per item, and from tile to tile
 * nothing changes but a few uniform numbers.
 *
 * The file that includes this one has COLUMNS of a tile of the walks; ITEMS and ITEM_INDEX of the threads that make
 * tables and copy lines together, and their BARRIER; WARP, a thread's among those that have rows; GRAIN, the UNITs of
 * dimensions that are there or not as a whole; PART_CHUNKS of a line that lie side by side, PART_BYTES from those to
 * the next. */
#ifndef NF_CU_MMA_TILE_H
#define NF_CU_MMA_TILE_H

enum {
    LANES = 32,
    UNIT = 16,          /* rows of a product of a warp, and what it sums over at once */
    CHUNK_ELEMENTS = 8, /* 16 bytes, what is copied at once */
    CHUNK_LANES = 8,    /* lanes that copy chunks of one line side by side */
    LINE_BYTES = 2 * DIMS,
    LINE_CHUNKS = DIMS / CHUNK_ELEMENTS,
    SPLIT = IN_TYPE == 0, /* elements are split into so many pieces: lines are there once for each (cu_mma_split.h) */
    PIECES = SPLIT ? 3 : 1,
    RAW_LINE_BYTES = SPLIT ? 4 * DIMS : 0, /* of elements that wait to be split */
    ABSENT_COLUMN = 0x7f                   /* a coordinate of columns that no tile has */
};

#define LANE ((int)threadIdx.x % LANES)
#define UNROLLED UNROLL for
#define ROLLED _Pragma("unroll 1")

#if IN_TYPE != 3 /* pieces of f32 are bf16, too */
#define MULTIPLY_ADD cu_mma_bf16
#define MULTIPLY_LINES cu_wgmma_lines_bf16
#define MULTIPLY_ACROSS cu_wgmma_across_bf16
#define PACK cu_pack_bf16
#define EXPONENTS 0x7f807f80u /* of two elements: all ones where an element is not finite */
#define LEAST_EXPONENTS 0x00800080u
#define TWO_ONES 0x3f803f80u
#else
#define MULTIPLY_ADD cu_mma_f16
#define MULTIPLY_LINES cu_wgmma_lines_f16
#define MULTIPLY_ACROSS cu_wgmma_across_f16
#define PACK cu_pack_f16
#define EXPONENTS 0x7c007c00u
#define LEAST_EXPONENTS 0x04000400u
#define TWO_ONES 0x3c003c00u
#endif

/* ---- Bytes, one per axis ----------------------------------------------------------------------------------------- */

#define BYTE_TOPS 0x80808080u

/* Whether low <= at <= high on every axis. All bytes are below 128. */
static bool is_between(uint low, uint at, uint high)
{
    return ((((at | BYTE_TOPS) - low) & ((high | BYTE_TOPS) - at)) & BYTE_TOPS) == BYTE_TOPS;
}

/* ---- Items ------------------------------------------------------------------------------------------------------- */

/* Division of numbers that are not negative and mostly short: of 64 bits it takes five times as long. */
static long quotient(long a, long b)
{
    return (a | b) >> 32 ? a / b : (long)((uint)a / (uint)b);
}

/* As open_item does, but in shared memory, an axis per thread, and `tiles` left out. A barrier must follow. */
static void open_shared_item(const long *numbers, int walk, long index, ITEM *item)
{
    if (ITEM_INDEX >= RANK)
        return;
    const int axis = ITEM_INDEX;
    long count = numbers[walk + GPU_WALK_COUNT + RANK - 1], rest = quotient(index, count);
    ROLLED for (int a = RANK - 2; a >= axis; a--)
    {
        index = rest;
        count = numbers[walk + GPU_WALK_COUNT + a];
        rest = quotient(index, count);
    }
    const int at = (int)(numbers[walk + GPU_WALK_SEGMENTS + axis] + (index - rest * count) * GPU_SEGMENT_WORDS);
    const int *segment = INTS + at;
    item->segment[axis] = at;
    item->rows.begin[axis] = segment[GPU_SEGMENT_BEGIN];
    item->rows.count[axis] = segment[GPU_SEGMENT_COUNT];
    item->rows.origin[axis] = segment[GPU_SEGMENT_ROW_ORIGIN];
    item->hull.begin[axis] = segment[GPU_SEGMENT_HULL_BEGIN];
    item->hull.count[axis] = segment[GPU_SEGMENT_HULL_END] - segment[GPU_SEGMENT_HULL_BEGIN];
    item->hull.origin[axis] = segment[GPU_SEGMENT_COLUMN_ORIGIN];
    item->rows.step[axis] = item->hull.step[axis] = (int)numbers[GPU_STEP + axis];
    item->full_begin[axis] = segment[GPU_SEGMENT_FULL_BEGIN];
    item->full_end[axis] = segment[GPU_SEGMENT_FULL_END];
    item->tile[axis] = (int)numbers[walk + GPU_WALK_COLUMNS + axis];
}

/* ---- The columns of an item -------------------------------------------------------------------------------------- */

/* In shared memory: the columns that rows of an item see. */
typedef struct HULL {
    int begin[RANK], end[RANK], tile[RANK], full_begin[RANK], full_end[RANK];
    int volume, tiles;         /* columns of a tile, tiles of the hull */
    uint coordinates[COLUMNS]; /* of each column in its tile, packed */
} HULL;

/* The same as N tensors hold them. */
template <int N> struct PLACED : HULL {
    long base[N], per_head[N], stride[N][RANK]; /* of position 0; from head to head; from position to position */
    long offset[N][COLUMNS];                    /* of each column from the tile's first */
};

/* Columns at hand, in registers, alike in all threads: some of a tile's, from `column` on. */
typedef struct SPOT {
    int first[RANK]; /* position of the tile */
    int column, head;
    uint limit; /* the last coordinates that the tile has, packed */
    bool full;  /* all rows see all of them */
} SPOT;

static uint pack_coordinates(const int *coordinate)
{
    uint packed = 0;
    for (int a = 0; a < RANK; a++)
        packed |= (uint)coordinate[a] << 8 * a;
    return packed;
}

/* By one thread. */
static void measure_hull(const ITEM *item, HULL *hull)
{
    hull->volume = 1;
    hull->tiles = (int)item->tiles;
    for (int a = 0; a < RANK; a++) {
        hull->begin[a] = item->hull.begin[a];
        hull->end[a] = item->hull.begin[a] + item->hull.count[a];
        hull->tile[a] = item->tile[a];
        hull->full_begin[a] = item->full_begin[a];
        hull->full_end[a] = item->full_end[a];
        hull->volume *= item->tile[a];
    }
}

/* Of column c. Returns whether a tile has it. */
static bool find_coordinates(const int tile[RANK], int c, int coordinate[RANK])
{
    for (int a = RANK - 1; a >= 0; a--) {
        coordinate[a] = c % tile[a];
        c /= tile[a];
    }
    return c == 0;
}

static void put_coordinates(HULL *hull, int c, bool there, const int coordinate[RANK])
{
    hull->coordinates[c] = there ? pack_coordinates(coordinate) : ABSENT_COLUMN * 0x01010101u;
}

template <int N> static void open_columns(const ITEM *item, PLACED<N> *hull)
{
    for (int c = ITEM_INDEX; c < COLUMNS; c += ITEMS) {
        int coordinate[RANK];
        put_coordinates(hull, c, find_coordinates(item->tile, c, coordinate), coordinate);
        for (int i = 0; i < N; i++) {
            hull->offset[i][c] = 0;
            for (int a = 0; a < RANK; a++)
                hull->offset[i][c] += coordinate[a] * hull->stride[i][a];
        }
    }
}

/* The columns of tensors, of one head and those that follow it. Ends with tables that all threads may read. */
template <int N>
static void open_hull(const long *numbers, const ITEM *item, const int (&tensors)[N], long batch, long head,
                      PLACED<N> *hull)
{
    if (ITEM_INDEX == 0) {
        measure_hull(item, hull);
        UNROLLED(int i = 0; i < N; i++)
        {
            hull->base[i] = base_of(numbers, tensors[i], batch, head);
            hull->per_head[i] = STRIDE(tensors[i], GPU_STRIDE_HEAD);
            for (int a = 0; a < RANK; a++) {
                hull->base[i] += item->hull.origin[a] * STRIDE_AXIS(tensors[i], a);
                hull->stride[i][a] = item->hull.step[a] * STRIDE_AXIS(tensors[i], a);
            }
        }
    }
    BARRIER();
    open_columns(item, hull);
    BARRIER();
}

static void settle(const HULL *hull, SPOT *spot)
{
    spot->limit = 0;
    spot->full = true;
    for (int a = 0; a < RANK; a++) {
        const int count = min(hull->tile[a], hull->end[a] - spot->first[a]);
        spot->limit |= (uint)(count - 1) << 8 * a;
        spot->full = spot->full && hull->full_begin[a] <= spot->first[a] && spot->first[a] + count <= hull->full_end[a];
    }
}

/* Where a tile begins; the tiles of a head follow those of the one before. */
static void seek_spot(const HULL *hull, long tile, SPOT *spot)
{
    for (int a = RANK - 1; a >= 0; a--) {
        const int count = max((hull->end[a] - hull->begin[a] + hull->tile[a] - 1) / hull->tile[a], 1);
        spot->first[a] = hull->begin[a] + (int)(tile % count) * hull->tile[a];
        tile /= count;
    }
    spot->column = 0;
    spot->head = (int)tile;
    settle(hull, spot);
}

/* The next columns, `step` of them: of the tile, of the next tile, of the next head. */
static void next_spot(const HULL *hull, int step, SPOT *spot)
{
    bool carry = true;
    spot->column += step;
    if (spot->column < hull->volume)
        return;
    spot->column = 0;
    for (int a = RANK - 1; a >= 0; a--) {
        if (carry)
            spot->first[a] += hull->tile[a];
        carry = carry && spot->first[a] >= hull->end[a];
        if (carry)
            spot->first[a] = hull->begin[a];
    }
    spot->head += carry;
    settle(hull, spot);
}

/* Spots of a tile. */
static int spots_of_tile(const HULL *hull, int step)
{
    return (hull->volume + step - 1) / step;
}

/* Where the first column of a spot's tile lies in the i-th tensor. */
template <int N> static long tile_place(const PLACED<N> *hull, int i, const SPOT *spot)
{
    long place = hull->base[i] + spot->head * hull->per_head[i];
    for (int a = 0; a < RANK; a++)
        place += spot->first[a] * hull->stride[i][a];
    return place;
}

/* ---- What rows see ----------------------------------------------------------------------------------------------- */

/* In shared memory: the columns that rows see, begin .. end - 1 per axis. */
template <int ROWS> struct SIGHT {
    int begin[RANK][ROWS], end[RANK][ROWS];
};

template <int ROWS> static void find_sight(const long *numbers, const ITEM *item, SIGHT<ROWS> *sight)
{
    const int count = volume(&item->rows);
    for (int r = ITEM_INDEX; r < ROWS; r += ITEMS) {
        int position[RANK];
        position_at(&item->rows, min(r, count - 1), position);
        for (int a = 0; a < RANK; a++)
            row_sees(numbers, item, a, position[a], &sight->begin[a][r], &sight->end[a][r]);
    }
}

/* The row of an item that a lane has of a block: of the upper half or the lower. */
template <int BLOCKS> static int lane_row(int block, int half)
{
    return WARP * UNIT * BLOCKS + block * UNIT + half * UNIT / 2 + LANE / 4;
}

/* What the rows of a lane see of the columns at hand, first and last coordinates, packed: of each block those of rows
 * LANE / 4 and LANE / 4 + 8. */
template <int BLOCKS> struct MASK {
    uint low[BLOCKS][2], high[BLOCKS][2];
};

/* The rows of a warp and the columns at hand. */
typedef enum VIEW { SEES_NOTHING, SEES_PART, SEES_ALL } VIEW;

/* What one row sees of a tile. */
template <int ROWS>
static void row_mask(const SIGHT<ROWS> *sight, const HULL *hull, const SPOT *spot, int row, uint *low, uint *high)
{
    *low = *high = 0;
    for (int a = 0; a < RANK; a++) {
        const int most = spot->limit >> 8 * a & 0xff;
        const int begin = max(sight->begin[a][row] - spot->first[a], 0);
        const int last = min(sight->end[a][row] - spot->first[a] - 1, most);
        *low |= (uint)(begin <= last ? begin : ABSENT_COLUMN) << 8 * a;
        *high |= (uint)(begin <= last ? last : 0) << 8 * a;
    }
}

/* Whether the columns at hand are all there. */
static bool is_filled(const HULL *hull, const SPOT *spot, int step)
{
    bool filled = spot->column + step <= hull->volume;
    for (int a = 0; a < RANK; a++)
        filled = filled && (int)(spot->limit >> 8 * a & 0xff) == hull->tile[a] - 1;
    return filled;
}

/* What a warp sees of `step` columns: low and high, where only a part, are of row LANE of the warp. */
template <int BLOCKS, int ROWS>
static VIEW glance(const SIGHT<ROWS> *sight, const HULL *hull, const SPOT *spot, int step, uint *low, uint *high)
{
    const bool filled = is_filled(hull, spot, step);
    *low = 0;
    *high = spot->limit;
    if (spot->full && filled)
        return SEES_ALL;
    if (!spot->full)
        row_mask(sight, hull, spot, WARP * UNIT * BLOCKS + LANE % (UNIT * BLOCKS), low, high);
    if (!cu_any(is_between(*low, *low, *high)))
        return SEES_NOTHING;
    return cu_all(*low == 0 && *high == spot->limit) && filled ? SEES_ALL : SEES_PART;
}

template <int BLOCKS> static void share_mask(uint low, uint high, MASK<BLOCKS> *mask)
{
    UNROLLED(int b = 0; b < BLOCKS; b++)
    {
        UNROLLED(int h = 0; h < 2; h++)
        {
            mask->low[b][h] = cu_shuffle(low, b * UNIT + h * UNIT / 2 + LANE / 4);
            mask->high[b][h] = cu_shuffle(high, b * UNIT + h * UNIT / 2 + LANE / 4);
        }
    }
}

/* What a warp sees of `step` columns, and the mask if that is a part of them. */
template <int BLOCKS, int ROWS>
static VIEW look(const SIGHT<ROWS> *sight, const HULL *hull, const SPOT *spot, int step, MASK<BLOCKS> *mask)
{
    uint low, high;
    const VIEW view = glance<BLOCKS>(sight, hull, spot, step, &low, &high);
    if (view == SEES_PART)
        share_mask(low, high, mask);
    return view;
}

/* The coordinates of the columns that a lane has of eight: two of them. */
static void lane_coordinates(const HULL *hull, const SPOT *spot, int eight, uint at[2])
{
    const uint *first = &hull->coordinates[spot->column + 8 * eight + LANE % 4 * 2];
    at[0] = first[0];
    at[1] = first[1];
}

#endif
