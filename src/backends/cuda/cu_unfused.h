/* Attention whose scores lie in memory, on tensor cores: what its kernels share. Rows of an item meet its columns tile
 * by tile, as in cu_mma_forward.h and cu_mma_backward.h; the scores of a tile are written to slots or read from them,
 * as gpu_unfused.cl lays them out.
 *
 * On each axis the slot of a key is its position less that of the query's first key. So the place of a score is the sum
 * of what its query and what its key adds, of which one is a row and the other a column: both are found ahead. */
#ifndef NF_CU_UNFUSED_H
#define NF_CU_UNFUSED_H

enum {
    ROWS = WARPS * UNIT,
    STEP = SPLIT        ? 16
           : DIMS > 128 ? 32
                        : 64, /* columns that are met at once */
    STEPS_AT_HAND = 2,        /* one is met while the next is copied */
    ROW_BYTES = PIECES * ROWS * LINE_BYTES,
    STEP_BYTES = PIECES * STEP * LINE_BYTES,
    RAW_BYTES = STEP * RAW_LINE_BYTES,
    PITCH = STEP + 8, /* of a row of scores: what lanes have of a fragment lies in different banks */
    SCORES_BYTES = ROWS * PITCH * (int)sizeof(float)
};

typedef float SUMS[1][DIMS / 8][4]; /* of a warp's rows */
typedef float TILE[1][STEP / 8][4]; /* scores of a warp's rows and the columns of a step */

/* How lanes go through a tile of scores in memory: as its places follow each other. Neighboring queries have a slot for
 * different keys, so that equal slots of theirs lie on a diagonal. */
typedef enum ORDER { DIAGONALS, ALONG_ROWS, ALONG_COLUMNS } ORDER;

/* In shared memory. */
typedef struct TABLES {
    SOURCE rows_source, columns_source[2]; /* of columns of the grid, [0], and of extra tokens, [1] */
    float *scores;
    int scores_tensor;
    ORDER order;
    bool careful;     /* sums of a first walk were not finite */
    bool scaled;      /* queries are multiplied, as rows or as columns: see query_scale */
    long batch, head; /* of the rows; */
    long column_head; /* the first of the columns' */
    long first_tile;  /* of the hull, of all heads' */
    int steps;
    float *partial; /* sums of the rows, where those are extra tokens */
    ITEM item;
    PLACED<1> hull;
    SIGHT<ROWS> sight;
    LINES<ROWS, 1> rows; /* lines to be copied, or results */
    long row_place[ROWS], column_place[STEPS_AT_HAND][STEP];
    uint low[ROWS], high[ROWS];                            /* what rows see of the columns at hand, as of glance */
    unsigned char not_finite[PIECES * STEP * LINE_CHUNKS]; /* of columns: see clean_lines */
} TABLES;

/* ---- Shared memory that the launch gives ------------------------------------------------------------------------- */

/* Lines of rows, if there are any; steps of columns; what f32 copies; scores. */
template <bool HAS_ROWS> struct AREA {
    enum {
        COLUMNS_AT = HAS_ROWS ? (int)ROW_BYTES : 0,
        RAW_AT = (int)COLUMNS_AT + STEPS_AT_HAND * (int)STEP_BYTES,
        SCORES_AT = (int)RAW_AT + (int)RAW_BYTES
    };

    static cu_address at(int byte)
    {
        DYNAMIC_SHARED(memory);
        return cu_address_of(memory) + byte;
    }

    static cu_address columns(int number)
    {
        return at(COLUMNS_AT + number % STEPS_AT_HAND * (int)STEP_BYTES);
    }

    static cu_address copied(int number)
    {
        return SPLIT ? at(RAW_AT) : columns(number);
    }

    /* Those of a warp. */
    static float *scores(int number)
    {
        DYNAMIC_SHARED(memory);
        return (float *)(memory + SCORES_AT + number * (int)SCORES_BYTES) + WARP * UNIT * PITCH;
    }

    /* Begins to copy the columns of a step. Not yet a group. */
    static void copy(const TABLES *t, bool extra, int number, const SPOT *spot)
    {
        copy_lines(copied(number), STEP, &t->columns_source[extra], t->hull.coordinates + spot->column, spot->limit,
                   t->hull.offset[0] + spot->column, tile_place(&t->hull, 0, spot));
    }

    /* Waits for what this thread has begun to copy. A barrier must follow. */
    static void land(const TABLES *t, bool extra, int number, float scale)
    {
        cu_copy_async_wait<0>();
        split_lines<STEP>(copied(number), columns(number), &t->columns_source[extra], scale, t->careful);
    }
};

/* ---- Places of scores -------------------------------------------------------------------------------------------- */

/* What a query adds to the places of its scores, of the grid's keys or of extra tokens, within its head. */
static long query_part(const long *numbers, int tensor, const BOX *box, const int *position, bool extra)
{
    long slot = 0;
    for (int a = 0; a < RANK && !extra; a++) {
        const long query = box->origin[a] + (long)box->step[a] * position[a];
        const long first = INTS[numbers[GPU_SIGHT + a] + query * GPU_SIGHT_WORDS + GPU_SIGHT_FIRST];
        slot = slot * numbers[GPU_WINDOW + a] + first;
    }
    return place_of(numbers, tensor, box, position) - slot * STRIDE(tensor, GPU_STRIDE_DIM);
}

static long key_part(const long *numbers, int tensor, const int *position, bool extra)
{
    long slot = extra ? numbers[GPU_SLOTS] - numbers[GPU_EXTRA] + position[0] : 0;
    for (int a = 0; a < RANK && !extra; a++)
        slot = slot * numbers[GPU_WINDOW + a] + position[a];
    return slot * STRIDE(tensor, GPU_STRIDE_DIM);
}

template <int WALK> static void place_row_scores(const long *numbers, TABLES *t, bool extra)
{
    const BOX *rows = &t->item.rows;
    const int count = volume(rows), tensor = t->scores_tensor;
    for (int r = ITEM_INDEX; r < ROWS; r += ITEMS) {
        int position[RANK];
        position_at(rows, min(r, count - 1), position);
        t->row_place[r] = WALK == GPU_BY_QUERY ? base_of(numbers, tensor, t->batch, t->head) +
                                                     query_part(numbers, tensor, rows, position, extra)
                                               : key_part(numbers, tensor, position, extra);
    }
}

/* Of the columns of a step that are there. A barrier must follow. */
template <int WALK>
static void place_column_scores(const long *numbers, TABLES *t, bool extra, int number, const SPOT *spot)
{
    const int tensor = t->scores_tensor;
    if (ITEM_INDEX >= STEP || !is_between(0, t->hull.coordinates[spot->column + ITEM_INDEX], spot->limit))
        return;
    int position[RANK];
    for (int a = 0; a < RANK; a++)
        position[a] = spot->first[a] + (int)(t->hull.coordinates[spot->column + ITEM_INDEX] >> 8 * a & 0xff);
    t->column_place[number % STEPS_AT_HAND][ITEM_INDEX] =
        WALK == GPU_BY_QUERY ? key_part(numbers, tensor, position, extra)
                             : base_of(numbers, tensor, t->batch, t->column_head + spot->head) +
                                   query_part(numbers, tensor, &t->item.hull, position, extra);
}

/* ---- Scores of a warp -------------------------------------------------------------------------------------------- */

static long size_of(long stride)
{
    return stride < 0 ? -stride : stride;
}

template <int WALK> static ORDER order_of(const long *numbers, int tensor)
{
    const bool by_slot = size_of(STRIDE(tensor, GPU_STRIDE_DIM)) < size_of(STRIDE_AXIS(tensor, RANK - 1));
    return !by_slot ? DIAGONALS : WALK == GPU_BY_QUERY ? ALONG_ROWS : ALONG_COLUMNS;
}

/* The i-th pair of a warp's rows and the columns of a step. */
static void pair_at(ORDER order, int i, int *row, int *column)
{
    *row = order == ALONG_ROWS ? i / STEP : i % UNIT;
    *column = (order == ALONG_ROWS ? i : i / UNIT + (order == DIAGONALS ? *row : 0)) % STEP;
}

/* What the rows of a warp see, for all its lanes; low and high as of glance. Rows that are not there see nothing. */
static void note_sight(TABLES *t, uint low, uint high)
{
    const int row = WARP * UNIT + LANE % UNIT;
    if (LANE < UNIT) {
        t->low[row] = t->rows.coordinates[row] == ROW_LIMIT ? low : ABSENT_COLUMN * 0x01010101u;
        t->high[row] = high;
    }
    cu_sync_warp();
}

/* A score that lies in memory, or NULL if there is none of that row of a warp and that column. */
static float *score_at(const TABLES *t, int number, const SPOT *spot, int row, int column)
{
    const int own = WARP * UNIT + row;
    return is_between(t->low[own], t->hull.coordinates[spot->column + column], t->high[own])
               ? t->scores + t->row_place[own] + t->column_place[number % STEPS_AT_HAND][column]
               : NULL;
}

/* Between fragments and shared memory. */
static void put_tile(float *scores, TILE tile, float factor)
{
    EACH_EIGHT(j, STEP)
    {
        EACH_HALF(h)
        {
            float *to = scores + (LANE / 4 + h * UNIT / 2) * PITCH + 8 * j + LANE % 4 * 2;
            to[0] = tile[0][j][2 * h] * factor;
            to[1] = tile[0][j][2 * h + 1] * factor;
        }
    }
    cu_sync_warp();
}

static void take_tile(const float *scores, TILE tile)
{
    EACH_EIGHT(j, STEP)
    {
        EACH_HALF(h)
        {
            const float *from = scores + (LANE / 4 + h * UNIT / 2) * PITCH + 8 * j + LANE % 4 * 2;
            tile[0][j][2 * h] = from[0];
            tile[0][j][2 * h + 1] = from[1];
        }
    }
}

/* ---- Items ------------------------------------------------------------------------------------------------------- */

static SOURCE open_lines(const long *numbers, int tensor, const IN *data, long at, int dims)
{
    return open_source(numbers, tensor, data + at, numbers[dims]);
}

/* Scores, or their gradients: the caller's where there is an offset. By one thread. */
template <int WALK>
static void open_scores(const long *numbers, char *scratch, int own, float *scores, long at, int tensor, TABLES *t)
{
    t->scores = at < 0 ? (float *)(scratch + numbers[own]) : scores + at;
    t->scores_tensor = at < 0 ? GPU_OWN : tensor;
    t->order = order_of<WALK>(numbers, t->scores_tensor);
    t->careful = t->scaled = false;
}

/* The rows of an item of the grid, of which `tensor` has a line each. */
template <int WALK> static void open_rows(const long *numbers, TABLES *t, int tensor, long index)
{
    const long in_walk = numbers[WALK + GPU_WALK_ITEMS];
    const long heads = numbers[WALK == GPU_BY_QUERY ? GPU_HEADS : GPU_KV_HEADS];
    const long stream = quotient(index, in_walk), batch = quotient(stream, heads);
    open_shared_item(numbers, WALK, index - stream * in_walk, &t->item);
    if (ITEM_INDEX == 0) {
        t->batch = batch;
        t->head = stream - batch * heads;
        t->column_head = WALK == GPU_BY_QUERY ? quotient(t->head * numbers[GPU_KV_HEADS], heads)
                                              : t->head * quotient(numbers[GPU_HEADS], heads);
        t->first_tile = 0;
    }
    BARRIER();
    find_sight(numbers, &t->item, &t->sight);
    place_rows(numbers, &t->item.rows, {tensor}, t->batch, t->head, &t->rows);
    BARRIER();
}

/* The keys that they see, of the grid or extra tokens, in a tensor. */
static void open_keys(const long *numbers, TABLES *t, int tensor, bool extra)
{
    BARRIER(); /* nobody reads the tables of what was before */
    if (ITEM_INDEX == 0) {
        if (extra)
            extra_columns(numbers, &t->item);
        else
            count_tiles(&t->item);
    }
    place_row_scores<GPU_BY_QUERY>(numbers, t, extra);
    open_hull(numbers, &t->item, {tensor}, t->batch, t->column_head, &t->hull);
    if (ITEM_INDEX == 0)
        t->steps = t->hull.tiles * spots_of_tile(&t->hull, STEP);
    BARRIER();
}

#endif
