/* Tile shapes by a small cost model, in vector operations per row: products, softmax, packing (shared by a group), a fixed
 * cost per tile and block, and idle threads if there are too few groups. Hulls are averages over an axis. */
#include "backends/cpu/tile_shape.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const double PACK_OPERATIONS = 0.9; /* per packed element and product it serves: measured, AVX-512 and AVX2 */
static const double SOFTMAX_OPERATIONS = 24;      /* per vector */
static const double SOFTMAX_ROW_OPERATIONS = 60;  /* per row of a tile */
static const double BLOCK_OPERATIONS = 100;
static const double SHORT_BLOCK_ROWS = 0.7; /* that a block of fewer rows costs beyond its own */
static const double TILE_OPERATIONS = 1500;
static const double BALANCE_THREADS = 2; /* half a group of idling for each of these; not the threads at hand, on
                                            which results must not depend */
static const double GROUP_BYTES = 1 << 20; /* state of the rows of a group */

enum {
    HULL_SAMPLES = 32, /* runs of rows looked at for an average */
    KNOWN_HULLS = 96,
    MOST_TILES = 640, /* that list_tiles finds: 584 on four axes */
    FEW_TILES = 8,
    LEAST_ROWS = 24
};

/* What runs of so many rows see: the most, and the average; where blocks compute whole column tiles, the most instead. */
typedef struct shape_hull {
    int32_t run, most;
    double mean;
} shape_hull;

typedef struct shape_axis {
    nf_axis_class c; /* the fullest class */
    int32_t count;   /* of its rows */
    int known;
    shape_hull hulls[KNOWN_HULLS];
} shape_axis;

/* Rows of a tile that are computed together, what they see on each axis, and how many blocks of the tile are like it.
 * Rows that differ on the leading axis leave those out that see nothing of a column tile. */
typedef struct shape_block {
    double rows, times;
    double hull[NF_MAX_RANK];
    int32_t lead;
} shape_block;

/* A tile, and what it costs per row at least, whatever the group. */
typedef struct shape_tile {
    int32_t extents[NF_MAX_RANK];
    int64_t rows, fold;
    double least;
} shape_tile;

typedef struct shape_search {
    const nf_request *request;
    const cpu_kernels *kernels;
    nf_side rows;
    bool by_blocks;
    int32_t rank;
    shape_axis axis[NF_MAX_RANK];
    int64_t heads;  /* that may fold into rows */
    int64_t column_limit;
    int64_t least_rows; /* of a tile worth a try: where blocks leave out what they do not see, small ones win nothing */
    double streams; /* batches, heads and classes: groups that exist anyway */
    shape_tile tiles[MOST_TILES];
    int tile_count;
    int blocks;     /* of the tile at hand */
    shape_block block[CPU_TILE_BLOCKS];
    double least;   /* that it costs, whatever the group */
    shape_hull tile_hull[NF_MAX_RANK], group_hull[NF_MAX_RANK];
    nf_work_spec best;
    int64_t best_fold;
    double best_cost;
} shape_search;

int64_t cpu_column_limit(const nf_request *request, const cpu_kernels *kernels)
{
    const int64_t wide = nf_max64(request->problem->head_dim, request->problem->value_dim);
    const int64_t limit = (128 << 10) / kernels->real_size / wide / kernels->panel * kernels->panel;
    return nf_max64(kernels->panel, nf_min64(limit, CPU_MAX_COLUMNS));
}

static shape_hull measure_hull(const shape_search *s, const shape_axis *axis, int32_t run)
{
    const nf_interval rows = nf_class_rows(&axis->c, s->rows);
    const int32_t runs = (axis->count - 1) / run + 1, step = (runs - 1) / HULL_SAMPLES + 1;
    shape_hull hull = {.run = run, .most = 1};
    int32_t seen = 0;
    for (int32_t i = step / 2; i < runs && nf_interval_size(rows); i += step, seen++) {
        const int32_t first = rows.begin + i * run, last = nf_min32(rows.end - first, run) + first - 1;
        const int32_t columns = nf_class_sees(&axis->c, s->rows, last).end - nf_class_sees(&axis->c, s->rows, first).begin;
        hull.most = nf_max32(hull.most, columns);
        hull.mean += nf_max32(columns, 0);
    }
    hull.mean = s->by_blocks ? fmax(hull.mean / nf_max32(seen, 1), 1) : hull.most;
    return hull;
}

static const shape_hull *hull_of(shape_search *s, int32_t a, int32_t run)
{
    shape_axis *axis = &s->axis[a];
    for (int i = 0; i < axis->known; i++)
        if (axis->hulls[i].run == run)
            return &axis->hulls[i];
    shape_hull *hull = &axis->hulls[axis->known < KNOWN_HULLS ? axis->known++ : KNOWN_HULLS - 1];
    *hull = measure_hull(s, axis, run);
    return hull;
}

/* Column box for a group's hull: whole last axes first, an axis that must be cut into even parts. */
static void choose_columns(const shape_search *s, const int32_t *group_hull, int32_t *columns)
{
    int64_t room = s->column_limit;
    for (int32_t a = s->rank - 1; a >= 0; a--) {
        int64_t size = group_hull[a];
        if (size > room) {
            const int64_t parts = (size + room - 1) / room;
            size = (size + parts - 1) / parts;
            if (a == s->rank - 1)
                size = nf_min64((size + s->kernels->lanes - 1) / s->kernels->lanes * s->kernels->lanes, room);
        }
        columns[a] = (int32_t)size;
        room = nf_max64(room / size, 1);
    }
}

/* Register blocks of six rows; one with fewer costs a little more than its share. */
static double row_operations(double rows)
{
    return rows + (fmod(rows, CPU_BLOCK_ROWS) > 0 ? SHORT_BLOCK_ROWS : 0);
}

/* Consecutive rows of a tile, row-major: which extents they span. Rows of several heads span the whole tile. */
static void span_rows(const shape_search *s, const int32_t *tile, int64_t positions, int64_t first, int64_t last,
                      int32_t *extents)
{
    bool whole = first / positions != last / positions;
    first %= positions;
    last %= positions;
    for (int32_t a = 0; a < s->rank; a++) {
        positions /= tile[a];
        const int64_t from = first / positions, to = last / positions;
        extents[a] = whole ? tile[a] : (int32_t)(to - from + 1);
        whole |= from != to;
        first %= positions;
        last %= positions;
    }
}

/* Of a block's rows, how many see a place of the leading axis that some of them see. */
static double seen_share(shape_search *s, const shape_block *block)
{
    return hull_of(s, block->lead, 1)->mean / block->hull[block->lead];
}

static void add_block(shape_search *s, const shape_block *block)
{
    const nf_problem *problem = s->request->problem;
    const double lanes = (double)s->kernels->lanes, values = ceil((double)problem->value_dim / lanes);
    double pairs = s->by_blocks && block->lead < s->rank - 1 ? seen_share(s, block) : 1;
    for (int32_t a = 0; a < s->rank; a++)
        pairs *= block->hull[a];
    const double visit = block->rows * SOFTMAX_ROW_OPERATIONS + BLOCK_OPERATIONS;
    s->least += pairs * (row_operations(block->rows) * ((double)problem->head_dim / lanes + values)
                         + block->rows * SOFTMAX_OPERATIONS / lanes + visit / (double)s->column_limit);
    shape_block *last = s->blocks ? &s->block[s->blocks - 1] : NULL;
    bool like_last = last && last->rows == block->rows;
    for (int32_t a = 0; like_last && a < s->rank; a++)
        like_last = last->hull[a] == block->hull[a];
    if (like_last)
        last->times++;
    else
        s->block[s->blocks++] = *block;
}

/* The blocks of a tile: what a register block sees, or all rows if blocks compute whole column tiles anyway. */
static void list_blocks(shape_search *s, const int32_t *tile, int64_t positions, int64_t rows)
{
    const int64_t step = s->by_blocks ? CPU_BLOCK_ROWS : rows;
    s->blocks = 0;
    s->least = 0;
    for (int32_t a = 0; a < s->rank; a++)
        s->tile_hull[a] = *hull_of(s, a, tile[a]);
    for (int64_t r = 0; r < rows; r += step) {
        shape_block block = {.rows = (double)nf_min64(step, rows - r), .times = 1};
        int32_t extents[NF_MAX_RANK];
        span_rows(s, tile, positions, r, nf_min64(r + step, rows) - 1, extents);
        for (int32_t a = s->rank - 1; a >= 0; a--) {
            block.hull[a] = hull_of(s, a, extents[a])->mean;
            block.lead = extents[a] > 1 ? a : block.lead;
        }
        add_block(s, &block);
    }
}

/* Of the pieces that a hull of `whole` columns is cut into, how many a part of it meets. */
static double pieces_met(double part, double whole, double columns)
{
    const double all = ceil(whole / columns);
    return part >= whole ? all : fmin(all, 1 + (part - 1) / columns);
}

/* One block against all it sees. whole: hull of the group. */
static double block_cost(shape_search *s, const shape_block *block, const double *whole, const int32_t *columns)
{
    const nf_problem *problem = s->request->problem;
    const double lanes = (double)s->kernels->lanes, values = ceil((double)problem->value_dim / lanes);
    double visits = 1, reach = 1, box = 1, rows = block->rows, row_cost = row_operations(rows);
    for (int32_t a = 0; a < s->rank; a++) {
        const double met = pieces_met(block->hull[a], whole[a], columns[a]), each = block->hull[a] / met;
        visits *= met;
        reach = (reach - 1) * columns[a] + each;
        box *= columns[a];
    }
    if (!s->by_blocks)
        reach = box;
    if (s->by_blocks && columns[block->lead] == 1) { /* short while its rows come in one by one, and while they leave */
        const double share = seen_share(s, block);
        rows *= share;
        row_cost = row_cost * share + SHORT_BLOCK_ROWS * fmin(2 * (1 - share), 1);
    }
    const double vectors = fmin(reach / lanes + (lanes - 1) / lanes, ceil(box / lanes));
    return visits
           * (row_cost * (vectors * (double)problem->head_dim + fmin(reach, box) * values)
              + rows * (vectors * SOFTMAX_OPERATIONS + SOFTMAX_ROW_OPERATIONS) + BLOCK_OPERATIONS);
}

/* Of packing so many columns. */
static double pack_cost(const shape_search *s, double columns)
{
    const double dims = (double)(s->request->problem->head_dim + s->request->problem->value_dim);
    return columns * dims * PACK_OPERATIONS * (s->kernels->lanes > 4 ? 1 : 2);
}

static void try_group(shape_search *s, const nf_work_spec *spec, double tiles, int64_t fold)
{
    const double folds = ceil((double)s->heads / (double)fold);
    double positions = 1, visits = 1, packed = 1, groups = s->streams, whole[NF_MAX_RANK];
    int32_t most[NF_MAX_RANK];
    for (int32_t a = 0; a < s->rank; a++) {
        most[a] = s->group_hull[a].most;
        whole[a] = s->group_hull[a].mean;
        positions *= spec->tile[a];
        packed *= whole[a];
        groups *= (double)((s->axis[a].count - 1) / spec->group[a] + 1);
    }
    const double idle = 1 + BALANCE_THREADS / (2 * groups), rows = tiles * positions * (double)s->heads;
    const double pack = pack_cost(s, packed);
    if (idle * (tiles * folds * s->least + pack) >= s->best_cost * rows)
        return;
    nf_work_spec candidate = *spec;
    choose_columns(s, most, candidate.columns);
    for (int32_t a = 0; a < s->rank; a++)
        visits *= pieces_met(s->tile_hull[a].mean, whole[a], candidate.columns[a]);
    double tile_cost = visits * TILE_OPERATIONS;
    for (int i = 0; i < s->blocks; i++)
        tile_cost += s->block[i].times * block_cost(s, &s->block[i], whole, candidate.columns);
    const double cost = idle * (tiles * folds * tile_cost + pack) / rows;
    if (cost < s->best_cost) {
        s->best_cost = cost;
        s->best = candidate;
        s->best_fold = fold;
    }
}

/* Tries all groups of a tile: per axis 1, 2, 3, 4, 6, 8, 12, 16 tiles. */
static void try_groups(shape_search *s, nf_work_spec *spec, int32_t axis, double tiles, double most_tiles, int64_t fold)
{
    if (axis == s->rank) {
        try_group(s, spec, tiles, fold);
        return;
    }
    for (int32_t g = 1; tiles * g <= most_tiles; g = g < 3 ? g + 1 : g % 3 ? g / 2 * 3 : g / 3 * 4) {
        spec->group[axis] = nf_min32(g * spec->tile[axis], s->axis[axis].count);
        s->group_hull[axis] = *hull_of(s, axis, spec->group[axis]);
        try_groups(s, spec, axis + 1, tiles * g, most_tiles, fold);
        if (g * spec->tile[axis] >= s->axis[axis].count)
            break;
    }
}

/* Most tiles of a group, of so many rows each. */
static double tiles_of_group(const shape_search *s, double rows)
{
    const nf_problem *problem = s->request->problem;
    const double row_bytes = 2.0 * (double)((problem->head_dim + problem->value_dim) * s->kernels->real_size);
    return fmax(1, fmin(floor(GROUP_BYTES / row_bytes / rows), CPU_GROUP_TILES));
}

static void list_tile(shape_search *s, const int32_t *extents, int64_t rows)
{
    const int64_t fold = nf_min64(s->heads, CPU_TILE_ROWS / rows), folds = (s->heads + fold - 1) / fold;
    if (rows * fold < s->least_rows || s->tile_count == MOST_TILES)
        return;
    shape_tile *tile = &s->tiles[s->tile_count++];
    *tile = (shape_tile){.rows = rows, .fold = fold};
    memcpy(tile->extents, extents, sizeof tile->extents);
    list_blocks(s, extents, rows, rows * fold);
    double seen = 1, box = 1;
    for (int32_t a = 0; a < s->rank; a++) {
        seen *= hull_of(s, a, 1)->mean;
        box *= s->tile_hull[a].mean;
    }
    s->least += box / (double)s->column_limit * TILE_OPERATIONS;
    const double group = tiles_of_group(s, (double)(rows * fold * folds)) * (double)(rows * s->heads);
    tile->least = (double)folds * s->least / (double)(rows * s->heads) + pack_cost(s, seen) / group;
}

/* Lists all tiles of at most CPU_TILE_ROWS rows; axes of few tiles are cut evenly. */
static void list_tiles(shape_search *s, int32_t *extents, int32_t axis, int64_t rows)
{
    static const int32_t sizes[] = {1, 2, 3, 4, 6, 8, 12, 16, 24, 48, 64};
    if (axis == s->rank) {
        list_tile(s, extents, rows);
        return;
    }
    const int32_t count = s->axis[axis].count;
    int32_t previous = 0;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        const int32_t parts = (count + sizes[i] - 1) / sizes[i];
        const int32_t size = parts > FEW_TILES ? sizes[i] : (count + parts - 1) / parts;
        if (size == previous || rows * size > CPU_TILE_ROWS)
            continue;
        previous = extents[axis] = size;
        list_tiles(s, extents, axis + 1, rows * size);
    }
}

static int compare_tiles(const void *a, const void *b)
{
    const shape_tile *x = a, *y = b;
    if (x->least != y->least)
        return x->least < y->least ? -1 : 1;
    return memcmp(x->extents, y->extents, sizeof x->extents);
}

static void try_tile(shape_search *s, const shape_tile *tile)
{
    const int64_t folds = (s->heads + tile->fold - 1) / tile->fold;
    nf_work_spec spec = {.rows = s->rows};
    memcpy(spec.tile, tile->extents, sizeof spec.tile);
    list_blocks(s, spec.tile, tile->rows, tile->rows * tile->fold);
    try_groups(s, &spec, 0, 1, tiles_of_group(s, (double)(tile->rows * tile->fold * folds)), tile->fold);
}

/* Tries tiles from the most promising on, until no other can be better. */
static void try_tiles(shape_search *s)
{
    int32_t extents[NF_MAX_RANK] = {0};
    s->tile_count = 0;
    list_tiles(s, extents, 0, 1);
    qsort(s->tiles, (size_t)s->tile_count, sizeof *s->tiles, compare_tiles);
    for (int i = 0; i < s->tile_count && s->tiles[i].least < s->best_cost; i++)
        try_tile(s, &s->tiles[i]);
}

void cpu_choose_shape(const nf_request *request, const cpu_kernels *kernels, nf_side rows, bool by_blocks, nf_work_spec *spec,
                      int64_t *fold, double *operations)
{
    const nf_problem *problem = request->problem;
    shape_search search = {
        .request = request,
        .kernels = kernels,
        .rows = rows,
        .by_blocks = by_blocks,
        .rank = problem->rank,
        .heads = rows == NF_ROWS_QUERIES ? nf_problem_group(problem) : 1,
        .column_limit = cpu_column_limit(request, kernels),
        .streams = (double)(problem->batch * problem->kv_heads),
        .best_cost = INFINITY,
    };
    for (int32_t a = 0; a < problem->rank; a++) {
        const nf_axis_table *table = &request->grid->axis[a];
        int64_t fullest = 0;
        search.streams *= (double)table->dilation;
        for (int64_t g = 0; g < table->dilation; g++) {
            const nf_axis_class c = nf_axis_table_class(table, g);
            const int32_t count = nf_interval_size(nf_class_rows(&c, rows));
            if (g == 0 || count > fullest) {
                fullest = count;
                search.axis[a].c = c;
            }
        }
        search.axis[a].count = nf_max32((int32_t)fullest, 1);
    }
    search.least_rows = by_blocks ? LEAST_ROWS : 1;
    try_tiles(&search);
    if (search.best_fold == 0) { /* no tile is that large */
        search.least_rows = 1;
        try_tiles(&search);
    }
    *spec = search.best;
    *fold = search.best_fold;
    *operations = search.best_cost * (double)(problem->batch * problem->heads);
    for (int32_t a = 0; a < problem->rank; a++)
        *operations *= (double)request->grid->axis[a].dilation * search.axis[a].count;
}

nf_status cpu_create_walk(cpu_walk *walk, const nf_request *request, const cpu_kernels *kernels, nf_side rows,
                          bool by_blocks, bool aligned)
{
    const nf_problem *problem = request->problem;
    nf_work_spec spec;
    double operations;
    cpu_choose_shape(request, kernels, rows, by_blocks, &spec, &walk->fold, &operations);
    spec.aligned = aligned;
    const nf_status status = nf_work_create(&walk->work, request->context, request->grid, &spec);
    if (status != NF_OK)
        return status;
    const int64_t group = rows == NF_ROWS_QUERIES ? nf_problem_group(problem) : 1;
    int64_t positions = 1, boxes = 1;
    walk->columns = 1;
    for (int32_t a = 0; a < problem->rank; a++) {
        positions *= walk->work.spec.tile[a];
        boxes *= walk->work.spec.group[a] / walk->work.spec.tile[a];
        walk->columns *= walk->work.spec.columns[a];
    }
    /* Extra tokens and their gradients take columns of any number: give them full tiles too. */
    if (problem->extra)
        walk->columns = cpu_column_limit(request, kernels);
    walk->folds = (group + walk->fold - 1) / walk->fold;
    walk->tile_rows = positions * walk->fold;
    walk->tiles = boxes * walk->folds;
    walk->items = walk->work.items * problem->batch * problem->kv_heads;
    return NF_OK;
}
