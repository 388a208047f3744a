/* What both shapes share: element types, items and boxes, places in tensors.
 *
 * IN_TYPE and OUT_TYPE are values of nf_dtype: of q, k, v and their gradients, and of out and its gradient. */
#if IN_TYPE == 1
typedef double REAL;
#define REAL_AS(bits) as_double(bits)
#define LOG2_E 1.44269504088896340736
#define LN_2 0.69314718055994530942
#else
typedef float REAL;
#define REAL_AS(bits) as_float((int)(bits))
#define LOG2_E 1.44269504088896340736f
#define LN_2 0.69314718055994530942f
#endif

/* ---- Elements ---------------------------------------------------------------------------------------------------- */

static float float_of_bf16(ushort bits)
{
    return as_float((uint)bits << 16);
}

static ushort bf16_of_float(float value)
{
    const uint bits = as_uint(value);
    if ((bits & 0x7fffffffu) > 0x7f800000u)
        return (ushort)(bits >> 16 | 0x40u); /* quiet, lest the payload vanish and leave infinity */
    return (ushort)((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

#if IN_TYPE == 0
typedef float IN;
#define IN_LOAD(p, i) ((p)[i])
#define IN_STORE(p, i, x) ((p)[i] = (x))
#elif IN_TYPE == 1
typedef double IN;
#define IN_LOAD(p, i) ((p)[i])
#define IN_STORE(p, i, x) ((p)[i] = (x))
#elif IN_TYPE == 2
typedef ushort IN;
#define IN_LOAD(p, i) float_of_bf16((p)[i])
#define IN_STORE(p, i, x) ((p)[i] = bf16_of_float(x))
#else
typedef ushort IN;
#define IN_LOAD(p, i) HALF_LOAD(p, i)
#define IN_STORE(p, i, x) HALF_STORE(p, i, x)
#endif

#if OUT_TYPE == IN_TYPE
typedef IN OUT;
#define OUT_LOAD(p, i) IN_LOAD(p, i)
#define OUT_STORE(p, i, x) IN_STORE(p, i, x)
#else
typedef float OUT;
#define OUT_LOAD(p, i) ((p)[i])
#define OUT_STORE(p, i, x) ((p)[i] = (x))
#endif

/* ---- Items ------------------------------------------------------------------------------------------------------- */

#define INTS ((GLOBAL const int *)numbers)
#define SCALE REAL_AS(numbers[GPU_SCALE])
#define STRIDE(tensor, which) numbers[GPU_TENSOR + (tensor)*GPU_STRIDES + (which)]
#define STRIDE_AXIS(tensor, axis) STRIDE(tensor, GPU_STRIDE_AXIS + (axis))

/* Rows or columns of a class per axis: positions begin .. begin + count - 1; position p is token origin + step * p. */
typedef struct BOX {
    int begin[RANK], count[RANK], origin[RANK], step[RANK];
} BOX;

/* The rows of an item and what they see. */
typedef struct ITEM {
    int segment[RANK]; /* where the segment lies among the ints */
    BOX rows;
    BOX hull;       /* the columns that one of the rows sees; a count may be 0 */
    int tile[RANK]; /* extents of a column tile */
    long tiles;     /* column tiles */
    int full_begin[RANK], full_end[RANK];
} ITEM;

static int volume(const BOX *box)
{
    int product = 1;
    for (int a = 0; a < RANK; a++)
        product *= box->count[a];
    return product;
}

/* A run of extra tokens: they lie on axis 0 of their tensors. */
static void extra_box(int begin, int count, BOX *box)
{
    for (int a = 0; a < RANK; a++) {
        box->begin[a] = a == 0 ? begin : 0;
        box->count[a] = a == 0 ? count : 1;
        box->origin[a] = 0;
        box->step[a] = 1;
    }
}

static void count_tiles(ITEM *item)
{
    item->tiles = 1;
    for (int a = 0; a < RANK; a++)
        item->tiles *= (item->hull.count[a] + item->tile[a] - 1) / item->tile[a];
}

/* Columns for extra tokens as rows: all queries that tensors hold, all seen, in tiles of at most so many. */
static void see_all_queries(GLOBAL const long *numbers, int most, ITEM *item)
{
    for (int a = RANK - 1; a >= 0; a--) {
        const int extent = (int)numbers[GPU_QUERY_EXTENT + a];
        item->hull.begin[a] = item->hull.origin[a] = item->full_begin[a] = 0;
        item->hull.step[a] = 1;
        item->hull.count[a] = item->full_end[a] = extent;
        item->tile[a] = min(extent, most);
        most /= item->tile[a];
    }
    count_tiles(item);
}

/* Opens an item of a walk (GPU_BY_QUERY or GPU_BY_KEY). */
static void open_item(GLOBAL const long *numbers, int walk, long index, ITEM *item)
{
    for (int a = RANK - 1; a >= 0; a--) {
        const long count = numbers[walk + GPU_WALK_COUNT + a];
        const int at = (int)(numbers[walk + GPU_WALK_SEGMENTS + a] + index % count * GPU_SEGMENT_WORDS);
        GLOBAL const int *segment = INTS + at;
        index /= count;
        item->segment[a] = at;
        item->rows.begin[a] = segment[GPU_SEGMENT_BEGIN];
        item->rows.count[a] = segment[GPU_SEGMENT_COUNT];
        item->rows.origin[a] = segment[GPU_SEGMENT_ROW_ORIGIN];
        item->hull.begin[a] = segment[GPU_SEGMENT_HULL_BEGIN];
        item->hull.count[a] = segment[GPU_SEGMENT_HULL_END] - segment[GPU_SEGMENT_HULL_BEGIN];
        item->hull.origin[a] = segment[GPU_SEGMENT_COLUMN_ORIGIN];
        item->rows.step[a] = item->hull.step[a] = (int)numbers[GPU_STEP + a];
        item->full_begin[a] = segment[GPU_SEGMENT_FULL_BEGIN];
        item->full_end[a] = segment[GPU_SEGMENT_FULL_END];
        item->tile[a] = (int)numbers[walk + GPU_WALK_COLUMNS + a];
    }
    count_tiles(item);
}

/* The index-th column tile of an item. Returns whether all rows see all of it. */
static bool column_tile(const ITEM *item, long index, BOX *tile)
{
    bool full = true;
    for (int a = RANK - 1; a >= 0; a--) {
        const int count = (item->hull.count[a] + item->tile[a] - 1) / item->tile[a];
        const int first = (int)(index % count) * item->tile[a];
        index /= count;
        tile->begin[a] = item->hull.begin[a] + first;
        tile->count[a] = min(item->tile[a], item->hull.count[a] - first);
        tile->origin[a] = item->hull.origin[a];
        tile->step[a] = item->hull.step[a];
        full = full && item->full_begin[a] <= tile->begin[a] && tile->begin[a] + tile->count[a] <= item->full_end[a];
    }
    return full;
}

/* The columns that a row sees on an axis: begin .. end - 1. */
static void row_sees(GLOBAL const long *numbers, const ITEM *item, int axis, int row, int *begin, int *end)
{
    GLOBAL const int *segment = INTS + item->segment[axis];
    *begin = max(INTS[segment[GPU_SEGMENT_FIRST] + row], segment[GPU_SEGMENT_COLUMN_MIN]);
    *end = min(INTS[segment[GPU_SEGMENT_END] + row], segment[GPU_SEGMENT_COLUMN_MAX]);
}

/* ---- Places ------------------------------------------------------------------------------------------------------ */

static long base_of(GLOBAL const long *numbers, int tensor, long batch, long head)
{
    return batch * STRIDE(tensor, GPU_STRIDE_BATCH) + head * STRIDE(tensor, GPU_STRIDE_HEAD);
}

/* The place of a position of a box in a tensor. */
static long place_of(GLOBAL const long *numbers, int tensor, const BOX *box, const int *position)
{
    long place = 0;
    for (int a = 0; a < RANK; a++)
        place += (long)(box->origin[a] + box->step[a] * position[a]) * STRIDE_AXIS(tensor, a);
    return place;
}

/* The index-th position of a box, row-major. */
static void position_at(const BOX *box, int index, int *position)
{
    for (int a = RANK - 1; a >= 0; a--) {
        position[a] = box->begin[a] + index % box->count[a];
        index /= box->count[a];
    }
}

/* The place of the index-th query, row-major, in a tensor. */
static long query_place(GLOBAL const long *numbers, int tensor, long index)
{
    long place = 0;
    for (int a = RANK - 1; a >= 0; a--) {
        const long extent = numbers[GPU_QUERY_EXTENT + a];
        place += index % extent * STRIDE_AXIS(tensor, a);
        index /= extent;
    }
    return place;
}

/* dout . out - dlse of each query: what every pass of backward subtracts. */
static void one_delta(GLOBAL const long *numbers, long index, GLOBAL const OUT *out, GLOBAL const OUT *dout,
                      GLOBAL const REAL *dlse, bool has_dlse, GLOBAL REAL *delta)
{
    const long heads = numbers[GPU_HEADS], queries = numbers[GPU_QUERIES], n = numbers[GPU_VALUE_DIM];
    const long head = index % heads, query = index / heads % queries, batch = index / heads / queries;
    GLOBAL const OUT *o = out + base_of(numbers, GPU_OUT, batch, head) + query_place(numbers, GPU_OUT, query);
    GLOBAL const OUT *d = dout + base_of(numbers, GPU_DOUT, batch, head) + query_place(numbers, GPU_DOUT, query);
    const long o_step = STRIDE(GPU_OUT, GPU_STRIDE_DIM), d_step = STRIDE(GPU_DOUT, GPU_STRIDE_DIM);
    REAL sum = 0;
    for (long i = 0; i < n; i++)
        sum += OUT_LOAD(o, i * o_step) * OUT_LOAD(d, i * d_step);
    if (has_dlse)
        sum -= dlse[base_of(numbers, GPU_DLSE, batch, head) + query_place(numbers, GPU_DLSE, query)];
    delta[index] = sum;
}

/* ---- Gradients of extra tokens ----------------------------------------------------------------------------------- */

/* Partial sums of a part of the queries, of one batch and key/value head, from an extra token on: the dimensions of
 * dextra_k and of dextra_v. */
static GLOBAL REAL *partial_of(GLOBAL const long *numbers, GLOBAL char *scratch, long split, long stream, long first)
{
    const long streams = numbers[GPU_BATCH] * numbers[GPU_KV_HEADS];
    const long pitch = numbers[GPU_HEAD_DIM] + numbers[GPU_VALUE_DIM];
    return (GLOBAL REAL *)(scratch + numbers[GPU_SCRATCH_PARTIAL]) +
           ((split * streams + stream) * numbers[GPU_EXTRA] + first) * pitch;
}

/* Elements of both gradients. */
static long extra_elements(GLOBAL const long *numbers)
{
    return numbers[GPU_BATCH] * numbers[GPU_KV_HEADS] * numbers[GPU_EXTRA] *
           (numbers[GPU_HEAD_DIM] + numbers[GPU_VALUE_DIM]);
}

/* Sums one element over the parts, in their order. */
static void sum_extra(GLOBAL const long *numbers, GLOBAL char *scratch, long index, GLOBAL IN *dextra_k,
                      long dextra_k_at, GLOBAL IN *dextra_v, long dextra_v_at)
{
    const long n = numbers[GPU_HEAD_DIM], pitch = n + numbers[GPU_VALUE_DIM], i = index % pitch;
    const long token = index / pitch % numbers[GPU_EXTRA], stream = index / pitch / numbers[GPU_EXTRA];
    const long kv_head = stream % numbers[GPU_KV_HEADS], batch = stream / numbers[GPU_KV_HEADS];
    const int tensor = i < n ? GPU_DEXTRA_K : GPU_DEXTRA_V;
    const long place = base_of(numbers, tensor, batch, kv_head) + token * STRIDE_AXIS(tensor, 0) +
                       (i < n ? i : i - n) * STRIDE(tensor, GPU_STRIDE_DIM);
    REAL sum = 0;
    for (long split = 0; split < numbers[GPU_SPLITS]; split++)
        sum += partial_of(numbers, scratch, split, stream, token)[i];
    if (i < n && dextra_k_at >= 0)
        IN_STORE(dextra_k, dextra_k_at + place, sum);
    if (i >= n && dextra_v_at >= 0)
        IN_STORE(dextra_v, dextra_v_at + place, sum);
}
