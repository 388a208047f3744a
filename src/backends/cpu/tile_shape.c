/* Tile shapes by a small cost model, in vector operations per row: products, softmax, packing (shared by a group), a fixed
 * cost per tile, and idle threads if there are too few groups. Hulls are read off the tables in the middle of the grid. */
#include "backends/cpu/tile_shape.h"

#include <math.h>

static const double PACK_OPERATIONS = 0.6; /* per packed element and product it serves: measured, AVX-512 and AVX2 */
static const double SOFTMAX_OPERATIONS = 24;
static const double TILE_OPERATIONS = 1500;
static const double BALANCE_THREADS = 4; /* half a group of idling for each of these; not the threads at hand, on
                                            which results must not depend */
static const double GROUP_BYTES = 1 << 20; /* state of the rows of a group */

typedef struct shape_search {
    const nf_request *request;
    const cpu_kernels *kernels;
    nf_side rows;
    int32_t rank;
    int32_t count[NF_MAX_RANK]; /* rows of the first class of each axis */
    nf_axis_class axis_class[NF_MAX_RANK];
    int64_t heads;  /* that may fold into rows */
    int64_t column_limit;
    double streams; /* batches, heads and classes: groups that exist anyway */
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

/* Columns that a run of rows in the middle of an axis sees. */
static int32_t hull(const shape_search *s, int32_t axis, int32_t run)
{
    const nf_axis_class *c = &s->axis_class[axis];
    const nf_interval rows = nf_class_rows(c, s->rows);
    const int32_t first = rows.begin + s->count[axis] / 2 / run * run;
    const int32_t last = nf_min32(first + run, rows.end) - 1;
    return nf_max32(nf_class_sees(c, s->rows, last).end - nf_class_sees(c, s->rows, first).begin, 1);
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

/* Register blocks of six rows are worth six; what is left costs more than its share. */
static double row_operations(double rows)
{
    const double blocks = floor(rows / 6), rest = rows - 6 * blocks;
    return 6 * blocks + 3 * floor(rest / 2) + 2 * fmod(rest, 2);
}

static void try_group(shape_search *s, const nf_work_spec *spec, double tiles, int64_t fold)
{
    const nf_problem *problem = s->request->problem;
    const double lanes = (double)s->kernels->lanes, dims = (double)(problem->head_dim + problem->value_dim);
    double positions = 1, visits = 1, packed = 1, box = 1, groups = s->streams;
    int32_t group_hull[NF_MAX_RANK];
    nf_work_spec candidate = *spec;
    for (int32_t a = 0; a < s->rank; a++)
        group_hull[a] = hull(s, a, nf_min32(spec->group[a], s->count[a]));
    choose_columns(s, group_hull, candidate.columns);
    for (int32_t a = 0; a < s->rank; a++) {
        const double columns = candidate.columns[a], whole = ceil(group_hull[a] / columns);
        const double met = group_hull[a] <= columns ? 1 : 1 + (hull(s, a, spec->tile[a]) - 1) / columns;
        positions *= spec->tile[a];
        visits *= fmin(met, whole);
        packed *= group_hull[a];
        box *= fmin(columns, group_hull[a]);
        groups *= ceil((double)s->count[a] / spec->group[a]);
    }
    const double rows = positions * (double)fold, folds = ceil((double)s->heads / (double)fold);
    const double vectors = ceil(box / lanes) * visits;
    const double tile_cost = vectors * (row_operations(rows) * dims + rows * SOFTMAX_OPERATIONS)
                             + visits * TILE_OPERATIONS;
    const double pack_cost = packed * dims * PACK_OPERATIONS * (lanes > 4 ? 1 : 2);
    const double idle = 1 + BALANCE_THREADS / (2 * groups);
    const double cost = idle * (tiles * folds * tile_cost + pack_cost) / (tiles * positions * (double)s->heads);
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
        spec->group[axis] = nf_min32(g * spec->tile[axis], s->count[axis]);
        try_groups(s, spec, axis + 1, tiles * g, most_tiles, fold);
        if (g * spec->tile[axis] >= s->count[axis])
            break;
    }
}

/* Tries all tiles of at most CPU_TILE_ROWS rows, cut evenly. */
static void try_tiles(shape_search *s, nf_work_spec *spec, int32_t axis, int64_t rows)
{
    static const int32_t sizes[] = {1, 2, 3, 4, 6, 8, 12, 16, 24, 48};
    if (axis == s->rank) {
        const nf_problem *problem = s->request->problem;
        const int64_t fold = nf_min64(s->heads, CPU_TILE_ROWS / rows), folds = (s->heads + fold - 1) / fold;
        const double row_bytes = 2.0 * (double)((problem->head_dim + problem->value_dim) * s->kernels->real_size);
        const double fit = floor(GROUP_BYTES / row_bytes / (double)(rows * fold * folds));
        try_groups(s, spec, 0, 1, fmax(1, fmin(fit, CPU_GROUP_TILES)), fold);
        return;
    }
    int32_t previous = 0;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        const int32_t parts = (s->count[axis] + sizes[i] - 1) / sizes[i];
        const int32_t size = (s->count[axis] + parts - 1) / parts;
        if (size == previous || rows * size > CPU_TILE_ROWS)
            continue;
        previous = spec->tile[axis] = size;
        try_tiles(s, spec, axis + 1, rows * size);
    }
}

void cpu_choose_shape(const nf_request *request, const cpu_kernels *kernels, nf_side rows, nf_work_spec *spec,
                      int64_t *fold, double *operations)
{
    const nf_problem *problem = request->problem;
    shape_search search = {
        .request = request,
        .kernels = kernels,
        .rows = rows,
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
                search.axis_class[a] = c;
            }
        }
        search.count[a] = nf_max32((int32_t)fullest, 1);
    }
    nf_work_spec scratch = {.rows = rows};
    try_tiles(&search, &scratch, 0, 1);
    *spec = search.best;
    *fold = search.best_fold;
    *operations = search.best_cost * (double)(problem->batch * problem->heads);
    for (int32_t a = 0; a < problem->rank; a++)
        *operations *= (double)request->grid->axis[a].dilation * search.count[a];
}

nf_status cpu_create_walk(cpu_walk *walk, const nf_request *request, const cpu_kernels *kernels, nf_side rows,
                          bool aligned)
{
    const nf_problem *problem = request->problem;
    nf_work_spec spec;
    double operations;
    cpu_choose_shape(request, kernels, rows, &spec, &walk->fold, &operations);
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
