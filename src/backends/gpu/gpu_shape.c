/* Which shape of program runs a problem, and how its rows and columns are cut into boxes. A row tile is as wide as the
 * program makes it, however few rows fill it; so the best box is the one whose tiles meet the fewest columns. */
#include "backends/gpu/gpu_shape.h"

#include <inttypes.h>
#include <math.h>

#include "core/dtype.h"
#include "core/status.h"

enum {
    LANES_COLUMNS = 64,
    LANES_BLOCK = 4,
    WIDE_VECTOR = 64, /* bytes: such a device has 32 registers */
    DEFAULT_VECTOR = 32,
    LEAST_VECTOR = 16,
    HULL_SAMPLES = 64, /* runs of rows looked at for a sum */
    MAX_SIZES = 24     /* extents that a box may have on an axis */
};

static const double OPERATIONS_PER_SECOND =
    1.5e9; /* vectors multiplied and added, of one unit: a guess that only ranks */
static const double TILE_OPERATIONS_PER_SECOND = 1e11; /* the same for scalars and a unit of a GPU */
static const double SOFTMAX_OPERATIONS = 24;           /* per vector of scores */
static const double ITEM_OPERATIONS = 20000;           /* to open and end an item */

/* Candidates on one axis: extents, and the columns that all tiles of that extent meet. */
typedef struct axis_sizes {
    int count;
    int32_t size[MAX_SIZES];
    double columns[MAX_SIZES], tiles[MAX_SIZES];
} axis_sizes;

/* Sums over all classes what runs of so many rows see, from samples of the longest class. */
static void measure(const nf_axis_table *table, nf_side side, int32_t size, double *columns, double *tiles)
{
    const nf_axis_class c = nf_axis_table_class(table, 0);
    const nf_interval rows = nf_class_rows(&c, side);
    const int32_t count = nf_interval_size(rows), runs = count ? (count - 1) / size + 1 : 0;
    const int32_t step = runs / HULL_SAMPLES + 1;
    double sum = 0, seen = 0;
    for (int32_t i = 0; i < runs; i += step, seen++) {
        const int32_t first = rows.begin + i * size, last = nf_min32(rows.end - first, size) + first - 1;
        sum += nf_max32(nf_class_sees(&c, side, last).end - nf_class_sees(&c, side, first).begin, 0);
    }
    *tiles = runs * (double)table->dilation;
    *columns = seen > 0 ? sum / seen * *tiles : 0;
}

static void add_size(axis_sizes *sizes, const nf_axis_table *table, nf_side side, int64_t size, int64_t most)
{
    const nf_axis_class c = nf_axis_table_class(table, 0);
    size = nf_min64(nf_min64(size, most), nf_interval_size(nf_class_rows(&c, side)));
    for (int i = 0; i < sizes->count; i++)
        if (sizes->size[i] == size)
            return;
    if (size < 1 || sizes->count == MAX_SIZES)
        return;
    sizes->size[sizes->count] = (int32_t)size;
    measure(table, side, (int32_t)size, &sizes->columns[sizes->count], &sizes->tiles[sizes->count]);
    sizes->count++;
}

static void list_sizes(axis_sizes *sizes, const nf_request *request, nf_side side, int32_t axis, int64_t most)
{
    static const int32_t common[] = {1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 16, 20, 24, 32, 48, 64, 96, 128};
    const nf_axis_table *table = &request->grid->axis[axis];
    *sizes = (axis_sizes){0};
    add_size(sizes, table, side, most, most);
    add_size(sizes, table, side, request->problem->axis[axis].stride, most);
    for (size_t i = 0; i < sizeof common / sizeof *common; i++)
        add_size(sizes, table, side, common[i], most);
    if (sizes->count == 0) /* a range may leave the longest class no row */
        *sizes = (axis_sizes){.count = 1, .size = {1}, .columns = {1}, .tiles = {1}};
}

typedef struct box_search {
    int32_t rank;
    int64_t most; /* rows of a box */
    axis_sizes axis[NF_MAX_RANK];
    double column_cost, item_cost;
    double best, best_tiles;
    int32_t chosen[NF_MAX_RANK], size[NF_MAX_RANK];
} box_search;

static void search_boxes(box_search *s, int32_t axis, int64_t volume, double columns, double tiles)
{
    if (axis == s->rank) {
        const double cost = columns * s->column_cost + tiles * s->item_cost;
        if (cost < s->best) {
            s->best = cost;
            s->best_tiles = tiles;
            for (int32_t a = 0; a < s->rank; a++)
                s->chosen[a] = s->size[a];
        }
        return;
    }
    const axis_sizes *sizes = &s->axis[axis];
    for (int i = 0; i < sizes->count; i++) {
        if (volume * sizes->size[i] > s->most)
            continue;
        s->size[axis] = sizes->size[i];
        search_boxes(s, axis + 1, volume * sizes->size[i], columns * sizes->columns[i], tiles * sizes->tiles[i]);
    }
}

/* The most columns that a run of so many rows sees, in any class. */
static int32_t widest_hull(const nf_axis_table *table, nf_side side, int32_t size)
{
    int32_t widest = 1;
    for (int64_t g = 0; g < table->dilation; g = g ? g + table->long_classes : table->long_classes) {
        const nf_axis_class c = nf_axis_table_class(table, g ? g : 0);
        const nf_interval rows = nf_class_rows(&c, side);
        for (int32_t first = rows.begin; first < rows.end; first += nf_min32(size, rows.end - first)) {
            const int32_t last = nf_min32(rows.end - first, size) + first - 1;
            widest = nf_max32(widest, nf_class_sees(&c, side, last).end - nf_class_sees(&c, side, first).begin);
        }
    }
    return widest;
}

/* Column box for a hull: whole last axes first, an axis that must be cut into even parts. */
static void choose_columns(const nf_request *request, int64_t most, nf_work_spec *spec)
{
    int64_t room = most;
    for (int32_t a = request->problem->rank - 1; a >= 0; a--) {
        int64_t size = widest_hull(&request->grid->axis[a], spec->rows, spec->tile[a]);
        if (size > room) {
            const int64_t parts = (size + room - 1) / room;
            size = (size + parts - 1) / parts;
        }
        spec->columns[a] = (int32_t)size;
        room = nf_max64(room / size, 1);
    }
}

/* Predicted cost of the best boxes of one walk, for one batch and head, and how many items it has. */
static double cut_walk(const nf_request *request, nf_side side, int64_t rows, int64_t columns, double column_cost,
                       nf_work_spec *spec, double *items)
{
    box_search search = {.rank = request->problem->rank,
                         .most = rows,
                         .column_cost = column_cost,
                         .item_cost = ITEM_OPERATIONS,
                         .best = INFINITY};
    for (int32_t a = 0; a < search.rank; a++)
        list_sizes(&search.axis[a], request, side, a, rows);
    search_boxes(&search, 0, 1, 1, 1);
    *spec = (nf_work_spec){.rows = side};
    for (int32_t a = 0; a < NF_MAX_RANK; a++)
        spec->tile[a] = spec->group[a] = spec->columns[a] = a < search.rank ? search.chosen[a] : 1;
    choose_columns(request, columns, spec);
    *items = search.best_tiles;
    return search.best;
}

/* Vectors side by side in a row tile: how many columns at a time keep the multipliers busy, and how busy. */
static const struct {
    int64_t vectors, block;
    double efficiency;
} lane_shapes[] = {{4, 4, 1}, {2, 4, 0.8}, {1, 8, 0.6}};

static void choose_lanes(gpu_shape *shape, const gpu_device *device, const nf_request *request)
{
    const nf_problem *p = request->problem;
    const int64_t known = device->vector_bytes ? device->vector_bytes : DEFAULT_VECTOR,
                  vector = nf_max64(known, LEAST_VECTOR);
    const double dims = (double)p->head_dim + (double)p->value_dim, heads = (double)p->batch * (double)p->heads;
    const int first = vector < WIDE_VECTOR ? 1 : 0, last = (int)(sizeof lane_shapes / sizeof *lane_shapes);
    shape->lanes = vector / shape->real_size;
    shape->columns = LANES_COLUMNS;
    shape->group_items = 1;
    shape->seconds = INFINITY;
    for (int i = first; i < last; i++) {
        gpu_shape tried = *shape;
        const double vectors = (double)lane_shapes[i].vectors;
        const double product = vectors * dims / lane_shapes[i].efficiency, softmax = vectors * SOFTMAX_OPERATIONS;
        double cost = 0, items;
        tried.rows = lane_shapes[i].vectors * shape->lanes;
        tried.block = lane_shapes[i].block;
        const double by_query =
            cut_walk(request, NF_ROWS_QUERIES, tried.rows, tried.columns, product + softmax, &tried.by_query, &items);
        const double busy = fmin((double)nf_max64(device->units, 1), items * heads);
        cost += p->direction & NF_FWD ? by_query : 0;
        if (p->direction & NF_BWD)
            cost += 1.5 * by_query + 2 * cut_walk(request, NF_ROWS_KEYS, tried.rows, tried.columns, product + softmax,
                                                  &tried.by_key, &items);
        tried.seconds = cost * heads / OPERATIONS_PER_SECOND / busy;
        if (tried.seconds < shape->seconds)
            *shape = tried;
    }
}

/* Tiles of a group, largest first, and how much slower than the first they multiply. */
static const struct {
    int64_t lines, items_x; /* rows and columns; work-items on a side */
    double slowness;
} tile_shapes[] = {{64, 16, 1}, {32, 8, 1.4}, {16, 4, 2.5}};

enum { TILE_CHUNK = 16 };

/* Bytes of struct TILE in gpu_tile.cl. */
static int64_t tile_bytes(const gpu_shape *shape, int32_t rank)
{
    const int64_t rows = shape->rows, columns = shape->columns;
    int64_t area = nf_max64(shape->chunk * (rows + columns + 2), shape->chunk * shape->out_dims);
    area = nf_max64(area, rows * (shape->items_x + 1));
    const int64_t reals = columns * (rows + 1) + area + 2 * nf_max64(rows, columns);
    const int64_t longs = 2 * (rows + columns), ints = rank * (2 * rows + columns) + 1;
    return reals * shape->real_size + longs * (int64_t)sizeof(int64_t) + ints * (int64_t)sizeof(int32_t) +
           (int64_t)sizeof(int64_t);
}

/* Seconds of both directions, with as many groups at work as there are. */
static double tile_seconds(gpu_shape *shape, const gpu_device *device, const nf_request *request, double slowness)
{
    const nf_problem *p = request->problem;
    const double units = (double)nf_max64(device->units, 1), streams = (double)p->batch * (double)p->heads;
    const double product = (double)shape->rows * ((double)p->head_dim + (double)p->value_dim) * slowness;
    double groups, cost = 0;
    const double by_query =
        cut_walk(request, NF_ROWS_QUERIES, shape->rows, shape->columns, product, &shape->by_query, &groups);
    const double busy = fmin(units, groups * streams);
    cost += p->direction & NF_FWD ? by_query : 0;
    if (p->direction & NF_BWD)
        cost += 1.5 * by_query +
                2 * cut_walk(request, NF_ROWS_KEYS, shape->rows, shape->columns, product, &shape->by_key, &groups);
    return cost * streams / busy / TILE_OPERATIONS_PER_SECOND;
}

static nf_status choose_tile(gpu_shape *shape, const gpu_device *device, const nf_request *request)
{
    const nf_problem *p = request->problem;
    gpu_shape tried = *shape;
    shape->seconds = INFINITY;
    for (size_t i = 0; i < sizeof tile_shapes / sizeof *tile_shapes; i++) {
        tried.rows = tried.columns = tile_shapes[i].lines;
        tried.items_x = tile_shapes[i].items_x;
        tried.group_items = tried.items_x * tried.items_x;
        tried.chunk = TILE_CHUNK;
        tried.out_dims = tried.items_x;
        while (tried.out_dims < nf_max64(p->head_dim, p->value_dim) && tried.out_dims < tried.rows + tried.columns)
            tried.out_dims *= 2;
        tried.local_bytes = tile_bytes(&tried, p->rank);
        if (tried.group_items > device->group_items || tried.local_bytes > device->local_bytes)
            continue;
        tried.seconds = tile_seconds(&tried, device, request, tile_shapes[i].slowness);
        if (tried.seconds < shape->seconds)
            *shape = tried;
    }
    if (isfinite(shape->seconds))
        return NF_OK;
    if (tried.group_items > device->group_items)
        return nf_fail(NF_ERR_UNSUPPORTED,
                       "the smallest tile takes groups of %" PRId64 " work-items, the device has %" PRId64,
                       tried.group_items, device->group_items);
    return nf_fail(NF_ERR_UNSUPPORTED,
                   "the smallest tile takes %" PRId64 " bytes of local memory, the device has %" PRId64,
                   tried.local_bytes, device->local_bytes);
}

nf_status gpu_choose_shape(gpu_shape *shape, const gpu_device *device, const nf_request *request)
{
    const nf_problem *p = request->problem;
    *shape = (gpu_shape){.by_lanes = device->cpu, .real_size = p->dtype == NF_F64 ? sizeof(double) : sizeof(float)};
    if (!shape->by_lanes)
        return choose_tile(shape, device, request);
    choose_lanes(shape, device, request);
    return NF_OK;
}

void gpu_shape_options(const gpu_shape *shape, const nf_problem *problem, nf_text *text)
{
    nf_text_printf(text, "-DRANK=%d -DIN_TYPE=%d -DOUT_TYPE=%d -DCOLUMNS=%d", (int)problem->rank, (int)problem->dtype,
                   (int)problem->out_dtype, (int)shape->columns);
    if (shape->by_lanes)
        nf_text_printf(text, " -DLANES=%d -DVECTORS=%d -DBLOCK=%d", (int)shape->lanes,
                       (int)(shape->rows / shape->lanes), (int)shape->block);
    else
        nf_text_printf(text, " -DROWS=%d -DITEMS_X=%d -DITEMS_Y=%d -DCHUNK=%d -DOUT_DIMS=%d", (int)shape->rows,
                       (int)shape->items_x, (int)(shape->group_items / shape->items_x), (int)shape->chunk,
                       (int)shape->out_dims);
}
