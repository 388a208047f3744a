/* Sizes of a stencil walk: how far an item reaches on each axis, by a small cost model in vector operations. */
#include <math.h>

#include "backends/cpu/stencil.h"

static const double PACK_OPERATIONS = 1.6;    /* per element of a packed line: measured, caches included */
static const double SOFTMAX_OPERATIONS = 20;  /* per vector of scores */
static const double EDGE_OPERATIONS = 1.08;   /* lines that not all rows of a block see share less */
static const double FLAT_OPERATIONS = 1.5;    /* in 1-D nothing is shared between rows */
static const double LANE_OPERATIONS = 40;     /* per row: loading, storing, dividing */
static const double BALANCE_THREADS = 8;      /* items should keep these busy; not the threads at hand, on which results
                                                 must not depend */
static const int64_t RING_BYTES = 6 << 20;    /* of packed lines, at most */
static const int64_t CACHED_RING_BYTES = 768 << 10; /* rings beyond this leave the second-level cache: */
static const double UNCACHED_OPERATIONS = 1.3;
static const int64_t SCORE_BYTES = 96 << 10;

/* What one axis looks like from one side. */
typedef struct axis_view {
    nf_axis_class longest; /* the class with the most rows */
    int32_t rows;
    double classes;
    double seen;           /* columns per row, on average */
} axis_view;

static axis_view view_axis(const nf_axis_table *table, nf_side side)
{
    axis_view view = {.classes = (double)table->dilation};
    for (int64_t g = 0; g < table->dilation; g++) {
        const nf_axis_class c = nf_axis_table_class(table, g);
        const int32_t rows = nf_interval_size(nf_class_rows(&c, side));
        if (g == 0 || rows > view.rows) {
            view.rows = rows;
            view.longest = c;
        }
    }
    const nf_interval rows = nf_class_rows(&view.longest, side);
    for (int32_t r = rows.begin; r < rows.end; r++)
        view.seen += nf_interval_size(nf_class_sees(&view.longest, side, r));
    view.seen /= nf_max32(view.rows, 1);
    view.rows = nf_max32(view.rows, 1);
    return view;
}

/* Most columns that `run` neighboring rows of any class see together. */
static int32_t widest_hull(const nf_axis_table *table, nf_side side, int32_t run)
{
    int32_t widest = 0;
    for (int64_t g = 0; g < table->dilation; g++) {
        const nf_axis_class c = nf_axis_table_class(table, g);
        const nf_interval rows = nf_class_rows(&c, side);
        for (int32_t r = rows.begin; r < rows.end; r++) {
            const int32_t end = nf_class_sees(&c, side, nf_min32(r + run, rows.end) - 1).end;
            widest = nf_max32(widest, end - nf_class_sees(&c, side, r).begin);
        }
    }
    return nf_max32(widest, 1);
}

enum { SIZES = 12 };

static const int32_t sizes[SIZES] = {1, 2, 4, 8, 16, 32, 48, 64, 96, 128, 192, 256};

typedef struct shape_search {
    const nf_request *request;
    const cpu_kernels *kernels;
    nf_side side;
    int32_t rank, line_axis;
    axis_view axis[NF_MAX_RANK];
    int32_t extents[NF_MAX_RANK][SIZES]; /* to try */
    int32_t hulls[NF_MAX_RANK][SIZES];   /* widest_hull of each */
    int32_t block_hull;                  /* of a block of rows on the line axis */
    double depth;        /* of packed lines: elements per column */
    double products;     /* dims multiplied per pair */
    int64_t ring_depth;  /* reals per column of a ring */
    int64_t heads;       /* in the ring */
    double groups;       /* query heads per packed line */
    double best_cost;
    int32_t best[NF_MAX_RANK];
} shape_search;

/* Predicted operations per row of an item of these extents (indices into s->extents), or infinity if its ring is too
 * large. */
static double cost_of(const shape_search *s, const int *choice)
{
    const int32_t last = s->rank - 1, line_axis = s->line_axis;
    const double lanes = (double)s->kernels->lanes;
    double planes = 1, outer = 1, items = (double)(s->request->problem->batch * s->request->problem->kv_heads);
    double lines_seen = 1;
    for (int32_t a = 0; a < s->rank; a++) {
        const int32_t extent = s->extents[a][choice[a]];
        items *= s->axis[a].classes * ceil((double)s->axis[a].rows / extent);
        if (a < line_axis) {
            planes *= s->hulls[a][choice[a]];
            outer *= extent;
        }
        if (a < last)
            lines_seen *= s->axis[a].seen;
    }
    const bool flat = line_axis < 0;
    const double columns = s->hulls[last][choice[last]], across = s->extents[last][choice[last]];
    const double lines = flat ? 1 : s->extents[line_axis][choice[line_axis]];
    const double line_hull = flat ? 1 : s->hulls[line_axis][choice[line_axis]];
    const double ring_bytes = (double)s->heads * planes * s->block_hull * (columns + 2 * lanes)
                              * (double)(s->ring_depth * s->kernels->real_size);
    if (ring_bytes > (double)RING_BYTES)
        return INFINITY;
    const double vectors = ceil(across / lanes), rows = outer * lines * across;
    const double score = s->products * (flat ? FLAT_OPERATIONS : EDGE_OPERATIONS) + SOFTMAX_OPERATIONS;
    const double compute = outer * lines * vectors * (lines_seen * s->axis[last].seen * score + lanes * LANE_OPERATIONS);
    const double pack = planes * line_hull * columns * s->depth * PACK_OPERATIONS * (lanes > 4 ? 1 : 2) / s->groups;
    const double memory = ring_bytes > (double)CACHED_RING_BYTES ? UNCACHED_OPERATIONS : 1;
    return ceil(items / BALANCE_THREADS) * BALANCE_THREADS / items * (compute * memory + pack) / rows;
}

static void try_axis(shape_search *s, int *choice, int32_t axis)
{
    if (axis == s->rank) {
        const double cost = cost_of(s, choice);
        if (cost < s->best_cost) {
            s->best_cost = cost;
            for (int32_t a = 0; a < s->rank; a++)
                s->best[a] = s->extents[a][choice[a]];
        }
        return;
    }
    for (int i = 0; i < SIZES && s->extents[axis][i]; i++) {
        choice[axis] = i;
        try_axis(s, choice, axis + 1);
    }
}

/* Extents to try: even cuts in whole blocks, and few places of the outer axes, each of which takes a ring of its own. */
static void list_extents(shape_search *s, int32_t axis)
{
    const bool lanes = axis == s->rank - 1, line = axis == s->line_axis;
    const int32_t unit = lanes ? (int32_t)s->kernels->lanes : line ? CPU_STENCIL_ROWS : 1;
    const int32_t rows = s->axis[axis].rows;
    int count = 0;
    for (int i = 0; i < SIZES; i++) {
        const int32_t parts = (rows + sizes[i] - 1) / sizes[i], even = (rows + parts - 1) / parts;
        const int32_t size = nf_min32((even + unit - 1) / unit * unit, rows);
        if ((count && size == s->extents[axis][count - 1]) || (!lanes && !line && size > 8))
            continue;
        s->extents[axis][count] = size;
        s->hulls[axis][count++] = widest_hull(&s->request->grid->axis[axis], s->side, size);
    }
}

static void start_search(shape_search *s)
{
    const nf_problem *problem = s->request->problem;
    const double d = (double)problem->head_dim, v = (double)problem->value_dim;
    const bool keys = s->side == NF_ROWS_KEYS;
    s->rank = problem->rank;
    s->line_axis = problem->rank - 2;
    s->heads = keys ? nf_problem_group(problem) : 1;
    s->groups = keys ? 1 : (double)nf_problem_group(problem);
    s->depth = keys ? 2 * (d + v) : problem->direction & NF_BWD ? 2 * d + v : d + v;
    s->products = keys ? 2 * (d + v) : d + v;
    s->ring_depth = (int64_t)s->depth;
    s->best_cost = INFINITY;
    for (int32_t a = 0; a < s->rank; a++) {
        s->axis[a] = view_axis(&s->request->grid->axis[a], s->side);
        list_extents(s, a);
    }
    s->block_hull = s->line_axis < 0 ? 1 : widest_hull(&s->request->grid->axis[s->line_axis], s->side, CPU_STENCIL_ROWS);
    int choice[NF_MAX_RANK];
    try_axis(s, choice, 0);
}

/* All rows of all batches and heads. */
static double rows_of(const shape_search *s)
{
    double rows = (double)(s->request->problem->batch * s->request->problem->heads);
    for (int32_t a = 0; a < s->rank; a++)
        rows *= s->axis[a].classes * s->axis[a].rows;
    return rows;
}

double cpu_stencil_operations(const nf_request *request, const cpu_kernels *kernels, nf_side side)
{
    shape_search search = {.request = request, .kernels = kernels, .side = side};
    start_search(&search);
    return search.best_cost * rows_of(&search);
}

/* Bounds over all items, from the cut list. */
static void measure(cpu_stencil_walk *walk, const shape_search *s)
{
    const int32_t last = s->rank - 1;
    const int64_t lanes = s->kernels->lanes;
    int32_t widest[NF_MAX_RANK] = {1, 1, 1, 1}, longest = 1;
    for (int32_t a = 0; a < s->rank; a++)
        for (int64_t i = 0; i < walk->work.segment_count[a]; i++) {
            widest[a] = nf_max32(widest[a], nf_interval_size(walk->work.segments[a][i].hull));
            if (a == last)
                longest = nf_max32(longest, nf_interval_size(walk->work.segments[a][i].rows));
        }
    walk->planes = 1;
    for (int32_t a = 0; a < walk->line_axis; a++)
        walk->planes *= widest[a];
    walk->ring = s->block_hull;
    walk->columns = widest[last];
    walk->line_stride = (walk->columns + 3 * lanes - 1) / lanes * lanes;
    if (walk->line_stride / lanes % 2 == 0)
        walk->line_stride += lanes;
    walk->slots = widest_hull(&s->request->grid->axis[last], s->side, 1);
    walk->lane_blocks = (longest + lanes - 1) / lanes;
    walk->chunk = nf_max64(SCORE_BYTES / (walk->block_rows * walk->slots * lanes * s->kernels->real_size), 1);
    walk->chunk = nf_min64(walk->chunk, walk->planes * walk->ring);
}

nf_status cpu_stencil_shape(cpu_stencil_walk *walk, const nf_request *request, const cpu_kernels *kernels, nf_side side)
{
    const nf_problem *problem = request->problem;
    shape_search search = {.request = request, .kernels = kernels, .side = side};
    start_search(&search);
    nf_work_spec spec = {.rows = side};
    for (int32_t a = 0; a < search.rank; a++) {
        spec.tile[a] = 1;
        spec.group[a] = search.best[a];
        spec.columns[a] = INT32_MAX;
    }
    spec.tile[search.rank - 1] = (int32_t)kernels->lanes;
    if (search.line_axis >= 0)
        spec.tile[search.line_axis] = CPU_STENCIL_ROWS;
    *walk = (cpu_stencil_walk){.line_axis = search.line_axis, .heads = search.heads,
                               .block_rows = search.line_axis < 0 ? 1 : CPU_STENCIL_ROWS,
                               .operations = search.best_cost * rows_of(&search)};
    const nf_status status = nf_work_create(&walk->work, request->context, request->grid, &spec);
    if (status != NF_OK)
        return status;
    measure(walk, &search);
    walk->items = walk->work.items * problem->batch * problem->kv_heads;
    return NF_OK;
}
