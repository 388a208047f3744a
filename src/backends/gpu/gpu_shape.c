/* Which shape of program runs a problem, and how its rows and columns are cut into boxes. A row tile is as wide as the
 * program makes it, however few rows fill it: the best box is the one whose tiles cost the least. */
#include "backends/gpu/gpu_shape.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "backends/gpu/gpu_ahead.h"
#include "core/dtype.h"
#include "core/status.h"

enum {
    LANES_COLUMNS = 64,
    WIDE_VECTOR = 64, /* bytes: such a device has 32 registers */
    DEFAULT_VECTOR = 32,
    LEAST_VECTOR = 16,
    HULL_SAMPLES = 64, /* runs of rows looked at for a sum */
    MAX_SIZES = 24,    /* extents that a box may have on an axis */
    MOST_ROWS = 128    /* of a row tile of any shape */
};

/* Guesses that only rank. */
static const double OPERATIONS_PER_SECOND = 1.5e9;     /* of vectors, by one unit */
static const double TILE_OPERATIONS_PER_SECOND = 1e11; /* of scalars, by one unit of a GPU */
static const double SOFTMAX_OPERATIONS = 24;           /* per vector of scores */
static const double COLUMN_OPERATIONS = 12;            /* to find a column and where it lies */
static const double NARROW_OPERATIONS = 6;             /* to see whether a vector sees it */
static const double ITEM_OPERATIONS = 2000;            /* to open and end an item */
static const double ROW_OPERATIONS = 150;              /* per row of it: rows lie far apart in memory */

/* Candidates on one axis: extents of a box, how many boxes there are, and the columns that one sees on average. */
typedef struct axis_sizes {
    const nf_axis_table *table;
    nf_axis_class c; /* the first class: one of the longest */
    nf_side side;
    int count;
    int32_t size[MAX_SIZES];
    double tiles[MAX_SIZES];
    double hull[MOST_ROWS + 1]; /* by extent; 0: not yet measured */
} axis_sizes;

/* What a run of so many rows sees on average, from samples. */
static double hull_of(axis_sizes *sizes, int32_t size)
{
    const nf_interval rows = nf_class_rows(&sizes->c, sizes->side);
    const int32_t count = nf_interval_size(rows), runs = count ? (count - 1) / size + 1 : 0;
    const int32_t step = runs / HULL_SAMPLES + 1;
    double sum = 0, seen = 0;
    if (sizes->hull[size] > 0)
        return sizes->hull[size];
    for (int32_t i = 0; i < runs; i += step, seen++) {
        const int32_t first = rows.begin + i * size, last = nf_min32(rows.end - first, size) + first - 1;
        const nf_interval begin = nf_class_sees(&sizes->c, sizes->side, first);
        const nf_interval end = nf_class_sees(&sizes->c, sizes->side, last);
        sum += nf_max32(end.end - begin.begin, 0);
    }
    sizes->hull[size] = seen > 0 ? fmax(sum / seen, 1) : 1;
    return sizes->hull[size];
}

static void add_size(axis_sizes *sizes, int64_t size, int64_t most)
{
    const int32_t rows = nf_max32(nf_interval_size(nf_class_rows(&sizes->c, sizes->side)), 1);
    size = nf_min64(nf_min64(size, most), rows);
    for (int i = 0; i < sizes->count; i++)
        if (sizes->size[i] == size)
            return;
    if (sizes->count == MAX_SIZES)
        return;
    sizes->size[sizes->count] = (int32_t)size;
    sizes->tiles[sizes->count++] = (double)((rows - 1) / size + 1) * (double)sizes->table->dilation;
}

static void list_sizes(axis_sizes *sizes, const nf_request *request, nf_side side, int32_t axis, int64_t most)
{
    static const int32_t common[] = {1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 16, 20, 24, 32, 48, 64};
    const nf_axis_table *table = &request->grid->axis[axis];
    *sizes = (axis_sizes){.table = table, .c = nf_axis_table_class(table, 0), .side = side};
    add_size(sizes, most, most);
    add_size(sizes, request->problem->axis[axis].stride, most);
    for (size_t i = 0; i < sizeof common / sizeof *common; i++)
        add_size(sizes, common[i], most);
}

typedef struct box_search {
    int32_t rank;
    gpu_walk_cost cost;
    axis_sizes axis[NF_MAX_RANK];
    double best, best_tiles;
    int32_t chosen[NF_MAX_RANK], size[NF_MAX_RANK];
} box_search;

/* The columns that rows which meet them together see: so many consecutive rows of a box, row-major. */
static double columns_together(box_search *s)
{
    int64_t rest = s->cost.together;
    double columns = 1;
    for (int32_t a = s->rank - 1; a >= 0; a--) {
        const int32_t extent = (int32_t)nf_min64(s->size[a], rest);
        columns *= hull_of(&s->axis[a], extent);
        rest = (rest - 1) / s->size[a] + 1;
    }
    return columns;
}

static double columns_of_box(box_search *s)
{
    double columns = 1;
    for (int32_t a = 0; a < s->rank; a++)
        columns *= hull_of(&s->axis[a], s->size[a]);
    return columns;
}

static void search_boxes(box_search *s, int32_t axis, int64_t volume, double tiles)
{
    if (axis == s->rank) {
        const double meetings = (double)(s->cost.rows / s->cost.together);
        const double cost =
            tiles * (meetings * columns_together(s) * s->cost.pair + columns_of_box(s) * s->cost.column + s->cost.item);
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
        if (volume * sizes->size[i] > s->cost.rows)
            continue;
        s->size[axis] = sizes->size[i];
        search_boxes(s, axis + 1, volume * sizes->size[i], tiles * sizes->tiles[i]);
    }
}

/* The most columns that a run of so many rows sees, in any class. */
static int32_t widest_hull(const nf_axis_table *table, nf_side side, int32_t size)
{
    int32_t widest = 1;
    for (int64_t g = 0; g < table->dilation; g = g ? g + table->long_classes : table->long_classes) {
        const nf_axis_class c = nf_axis_table_class(table, g);
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

/* Column boxes of which a hull takes the fewest; of those the largest, since only whole tiles go without a mask. */
typedef struct column_search {
    int32_t hull[NF_MAX_RANK], size[NF_MAX_RANK];
    int64_t fewest, largest;
    int32_t chosen[NF_MAX_RANK];
} column_search;

/* Axis by axis, the last first: of equals the box that is longest there. */
static void search_columns(column_search *s, int32_t axis, int64_t most, int64_t volume, int64_t tiles)
{
    if (axis < 0) {
        if (tiles < s->fewest || (tiles == s->fewest && volume > s->largest)) {
            s->fewest = tiles;
            s->largest = volume;
            memcpy(s->chosen, s->size, sizeof s->chosen);
        }
        return;
    }
    for (int64_t size = nf_min64(s->hull[axis], most / volume); size >= 1; size--) {
        const int64_t parts = (s->hull[axis] - 1) / size + 1;
        if (tiles * parts > s->fewest)
            return;
        s->size[axis] = (int32_t)size;
        search_columns(s, axis - 1, most, volume * size, tiles * parts);
    }
}

static void choose_fewest_columns(const nf_request *request, int64_t most, nf_work_spec *spec)
{
    const int32_t rank = request->problem->rank;
    column_search search = {.fewest = INT64_MAX};
    for (int32_t a = 0; a < rank; a++)
        search.hull[a] = widest_hull(&request->grid->axis[a], spec->rows, spec->tile[a]);
    search_columns(&search, rank - 1, most, 1, 1);
    for (int32_t a = 0; a < rank; a++)
        spec->columns[a] = search.chosen[a];
}

/* Predicted cost of the best boxes of one walk, for one batch and head, and how many items it has. */
static double cut_walk(const nf_request *request, nf_side side, const gpu_walk_cost *cost, int64_t columns,
                       nf_work_spec *spec, double *items)
{
    box_search search = {.rank = request->problem->rank, .cost = *cost, .best = INFINITY};
    for (int32_t a = 0; a < search.rank; a++)
        list_sizes(&search.axis[a], request, side, a, cost->rows);
    search_boxes(&search, 0, 1, 1);
    *spec = (nf_work_spec){.rows = side};
    for (int32_t a = 0; a < NF_MAX_RANK; a++)
        spec->tile[a] = spec->group[a] = spec->columns[a] = a < search.rank ? search.chosen[a] : 1;
    if (cost->whole_tiles)
        choose_fewest_columns(request, columns, spec);
    else
        choose_columns(request, columns, spec);
    *items = search.best_tiles;
    return search.best;
}

double gpu_shape_cut(gpu_shape *shape, const nf_request *request, const gpu_walk_cost *query_cost,
                     const gpu_walk_cost *key_cost, double *groups)
{
    static const double dq_products = 1.5, dkv_products = 2; /* times those of forward */
    const nf_problem *p = request->problem;
    const double streams = (double)p->batch * (double)p->heads;
    double items, key_items;
    const double by_query = cut_walk(request, NF_ROWS_QUERIES, query_cost, shape->columns, &shape->by_query, &items);
    double sum = p->direction & NF_FWD ? by_query : 0;
    if (p->direction & NF_BWD)
        sum += dq_products * by_query +
               dkv_products * cut_walk(request, NF_ROWS_KEYS, key_cost, shape->columns, &shape->by_key, &key_items);
    *groups = items * streams;
    return sum * streams;
}

/* Vectors side by side in a row tile, and how busy they keep the multipliers. */
static const struct {
    int64_t vectors;
    double efficiency;
} lane_shapes[] = {{4, 1}, {2, 0.95}, {1, 0.9}};

static void choose_lanes(gpu_shape *shape, const gpu_device *device, const nf_request *request)
{
    const nf_problem *p = request->problem;
    const int64_t known = device->vector_bytes ? device->vector_bytes : DEFAULT_VECTOR;
    const int64_t vector = nf_max64(known, LEAST_VECTOR);
    const double dims = (double)p->head_dim + (double)p->value_dim;
    shape->lanes = vector / shape->real_size;
    shape->columns = LANES_COLUMNS;
    shape->group_items = 1;
    shape->seconds = INFINITY;
    for (size_t i = vector < WIDE_VECTOR; i < sizeof lane_shapes / sizeof *lane_shapes; i++) {
        gpu_shape tried = *shape;
        double groups;
        tried.rows = lane_shapes[i].vectors * shape->lanes;
        const gpu_walk_cost cost = {.rows = tried.rows,
                                    .together = shape->lanes,
                                    .pair = dims / lane_shapes[i].efficiency + SOFTMAX_OPERATIONS,
                                    .column = COLUMN_OPERATIONS + NARROW_OPERATIONS * (double)lane_shapes[i].vectors,
                                    .item = ITEM_OPERATIONS + ROW_OPERATIONS * (double)tried.rows};
        const double operations = gpu_shape_cut(&tried, request, &cost, &cost, &groups);
        tried.seconds = operations / OPERATIONS_PER_SECOND / (double)nf_max64(device->units, 1);
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

/* What a tile keeps of the results: all dimensions, but not more than its rows and columns are worth. */
static int64_t out_dims_of(const gpu_shape *shape, const nf_problem *p)
{
    int64_t dims = shape->items_x;
    while (dims < nf_max64(p->head_dim, p->value_dim) && dims < shape->rows + shape->columns)
        dims *= 2;
    return dims;
}

/* Of a program that was compiled ahead; 0: there is none of this shape. */
static int64_t out_dims_ahead(const gpu_shape *shape)
{
    static const struct {
        int64_t real_size, lines, items_x, out_dims;
    } programs[] = {
#define GPU_AHEAD_ENTRY(real_size, lines, items_x, out_dims) {real_size, lines, items_x, out_dims},
        GPU_AHEAD_TILES(GPU_AHEAD_ENTRY)
#undef GPU_AHEAD_ENTRY
    };
    for (size_t i = 0; i < sizeof programs / sizeof *programs; i++)
        if (programs[i].real_size == shape->real_size && programs[i].lines == shape->rows)
            return programs[i].items_x == shape->items_x ? programs[i].out_dims : 0;
    return 0;
}

/* Bytes of struct TILE in gpu_tile.cl. */
static int64_t tile_bytes(const gpu_shape *shape)
{
    const int64_t rows = shape->rows, columns = shape->columns;
    int64_t area = nf_max64(shape->chunk * (rows + columns + 2), shape->chunk * shape->out_dims);
    area = nf_max64(area, rows * (shape->items_x + 1));
    const int64_t reals = columns * (rows + 1) + area + 2 * nf_max64(rows, columns);
    const int64_t longs = 2 * (rows + columns), ints = shape->rank * (2 * rows + columns) + 1;
    return reals * shape->real_size + longs * (int64_t)sizeof(int64_t) + ints * (int64_t)sizeof(int32_t) +
           (int64_t)sizeof(int64_t);
}

/* Seconds of the directions, with as many groups at work as there are. */
static double tile_seconds(gpu_shape *shape, const gpu_device *device, const nf_request *request, double slowness)
{
    const nf_problem *p = request->problem;
    const double dims = (double)p->head_dim + (double)p->value_dim;
    const gpu_walk_cost cost = {.rows = shape->rows,
                                .together = shape->rows,
                                .pair = (double)shape->rows * dims * slowness,
                                .item = ITEM_OPERATIONS};
    double groups;
    const double operations = gpu_shape_cut(shape, request, &cost, &cost, &groups);
    return operations / fmin((double)nf_max64(device->units, 1), groups) / TILE_OPERATIONS_PER_SECOND;
}

static nf_status choose_tile(gpu_shape *shape, const gpu_device *device, const nf_request *request)
{
    const nf_problem *p = request->problem;
    gpu_shape tried = *shape, smallest = tried;
    shape->seconds = INFINITY;
    for (size_t i = 0; i < sizeof tile_shapes / sizeof *tile_shapes; i++) {
        tried.rows = tried.columns = tile_shapes[i].lines;
        tried.items_x = tile_shapes[i].items_x;
        tried.group_items = tried.items_x * tried.items_x;
        tried.chunk = TILE_CHUNK;
        tried.out_dims = device->ahead ? out_dims_ahead(&tried) : out_dims_of(&tried, p);
        if (!tried.out_dims)
            continue;
        tried.local_bytes = tile_bytes(&tried);
        smallest = tried;
        if (tried.group_items > device->group_items || tried.local_bytes > device->local_bytes)
            continue;
        tried.seconds = tile_seconds(&tried, device, request, tile_shapes[i].slowness);
        if (tried.seconds < shape->seconds)
            *shape = tried;
    }
    if (isfinite(shape->seconds))
        return NF_OK;
    if (smallest.group_items > device->group_items)
        return nf_fail(NF_ERR_UNSUPPORTED,
                       "the smallest tile takes groups of %" PRId64 " work-items, the device has %" PRId64,
                       smallest.group_items, device->group_items);
    return nf_fail(NF_ERR_UNSUPPORTED,
                   "the smallest tile takes %" PRId64 " bytes of local memory, the device has %" PRId64,
                   smallest.local_bytes, device->local_bytes);
}

static void write_options(const gpu_shape *shape, const nf_problem *problem, nf_text *text)
{
    nf_text_printf(text, "-DRANK=%d -DIN_TYPE=%d -DOUT_TYPE=%d -DCOLUMNS=%d", (int)shape->rank, (int)problem->dtype,
                   (int)problem->out_dtype, (int)shape->columns);
    if (shape->by_lanes)
        nf_text_printf(text, " -DLANES=%d -DVECTORS=%d", (int)shape->lanes, (int)(shape->rows / shape->lanes));
    else
        nf_text_printf(text, " -DROWS=%d -DITEMS_X=%d -DITEMS_Y=%d -DCHUNK=%d -DOUT_DIMS=%d", (int)shape->rows,
                       (int)shape->items_x, (int)(shape->group_items / shape->items_x), (int)shape->chunk,
                       (int)shape->out_dims);
}

nf_status gpu_choose_shape(gpu_shape *shape, const gpu_device *device, const nf_request *request)
{
    const nf_problem *p = request->problem;
    *shape = (gpu_shape){.by_lanes = device->cpu,
                         .rank = device->ahead ? (p->rank + 1) / 2 * 2 : p->rank,
                         .real_size = p->dtype == NF_F64 ? sizeof(double) : sizeof(float),
                         .write_options = write_options};
    shape->query_size = shape->real_size;
    if (!shape->by_lanes)
        return choose_tile(shape, device, request);
    choose_lanes(shape, device, request);
    return NF_OK;
}

void gpu_shape_cost(gpu_chooser *choose, const gpu_device *device, const nf_request *request,
                    double seconds[NF_DIRECTIONS])
{
    for (nf_direction direction = NF_FWD; direction <= NF_BWD; direction++) {
        gpu_shape shape;
        nf_problem problem;
        const nf_request narrow = nf_request_narrow(request, direction, &problem);
        if (request->problem->direction & direction)
            seconds[direction - 1] = choose(&shape, device, &narrow) == NF_OK ? shape.seconds : 0;
    }
}
