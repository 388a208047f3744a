/* Sizes of a stencil walk: how far an item reaches on each axis, by a small cost model in vector operations. */
#include <math.h>

#include "backends/cpu/stencil.h"

static const double PACK_OPERATIONS = 1.6;    /* per element of a packed line: measured, caches included */
static const double SOFTMAX_OPERATIONS = 20;  /* per vector of scores */
static const double EDGE_OPERATIONS = 1.08;   /* lines that not all rows of a block see share less */
/* A vector of which less than half is in use pays its overheads alone. */
static const double SHORT_OPERATIONS = 1.3, SHORT_BACKWARD_OPERATIONS = 1.8;
static const double FLAT_OPERATIONS = 2.1;    /* in 1-D nothing is shared between rows, */
static const double FLAT_SUM_OPERATIONS = 3;  /* nor between lines that dk and dv are summed in, */
static const double FLAT_SCORE_OPERATIONS = 1.2; /* but forward's scores are between lane blocks, */
static const double FLAT_EIGHT_OPERATIONS = 1.4; /* and its values wait less with eight lanes */
static const double FOREIGN_SLOTS = 0.6;      /* of a window that lanes of other shares meet */
/* Rows with those of other heads between them are read from more pages than they fill, whose addresses are looked up
 * anew for each head: per page, times lanes. And they use few sets of the second-level cache, so that those which are
 * fetched ahead displace each other where a block row of all heads would take more than this: packing waits. */
static const double PAGE_OPERATIONS = 1920, PAGE_BYTES = 4096;
static const double PAGE_SHARED = 0.25;       /* of a page: four rows in one cost nothing */
static const double PAGE_HEADS = 2;           /* of an item share pages well enough, and cost nothing */
static const double DISPLACING_BYTES = 1280 << 10, DISPLACED_OPERATIONS = 2.2;
static const double LANE_OPERATIONS = 40;     /* per row: loading, storing, dividing */
static const double BALANCE_THREADS = 8;      /* items should keep these busy; not the threads at hand, on which neither
                                                 the choice of an algorithm nor results may depend, */
static const double FEWEST_THREADS = 1;       /* but backward's lines may be cut for those: its shape should suit all
                                                 powers of two between these */
static const double STRAND_COST = 0.003;      /* none is folded without need */
static const double IDLE_ITEMS = 1.2;           /* half an item of idling for each of these */
/* Seconds of an operation over those of one of the tile family's, whose constants were measured apart. */
static const double FORWARD_RATE = 0.70, BACKWARD_RATE = 0.80;
static const double NARROW_FORWARD_RATE = 0.75, NARROW_BACKWARD_RATE = 1.55; /* of at most eight lanes, */
static const double NARROW_PLANES_RATE = 0.85;  /* forward, with outer axes */
static const double EIGHT_BACKWARD_RATE = 0.97; /* of eight */
/* What forward takes longer, over tiles, where all windows of a short row begin at one column. It grows from half of
 * the windows on and is less for longer rows. */
static const double CROWDED_OPERATIONS = 0.3, CROWDED_ROWS = 12;
static const int64_t RING_BYTES = 6 << 20;    /* of packed lines, at most */
static const int64_t CACHED_RING_BYTES = 1664 << 10; /* rings beyond this leave the second-level cache: */
static const int64_t CACHED_BACKWARD_BYTES = 960 << 10; /* in backward, where little else is read */
static const double UNCACHED_OPERATIONS = 1.3;
static const int64_t SCORE_BYTES = 96 << 10;

/* What one axis looks like from its queries. */
typedef struct axis_view {
    nf_axis_class longest; /* the class with the most rows */
    int32_t rows;
    double classes, mean;  /* rows of all classes, on average */
    double seen;           /* columns per row, on average */
    double still;          /* share of rows whose window begins where that of the row before does */
} axis_view;

static axis_view view_axis(const nf_axis_table *table)
{
    axis_view view = {.classes = (double)table->dilation};
    for (int64_t g = 0; g < table->dilation; g++) {
        const nf_axis_class c = nf_axis_table_class(table, g);
        const int32_t rows = nf_interval_size(nf_class_rows(&c, NF_ROWS_QUERIES));
        view.mean += rows / view.classes;
        if (g == 0 || rows > view.rows) {
            view.rows = rows;
            view.longest = c;
        }
    }
    const nf_interval rows = nf_class_rows(&view.longest, NF_ROWS_QUERIES);
    int32_t begin = -1;
    for (int32_t r = rows.begin; r < rows.end; r++) {
        const nf_interval seen = nf_class_sees(&view.longest, NF_ROWS_QUERIES, r);
        view.seen += nf_interval_size(seen);
        view.still += seen.begin == begin;
        begin = seen.begin;
    }
    view.rows = nf_max32(view.rows, 1);
    view.seen /= view.rows;
    view.still /= view.rows;
    return view;
}

/* Most columns that `run` neighboring rows of any class see together. */
static int32_t widest_hull(const nf_axis_table *table, int32_t run)
{
    int32_t widest = 0;
    for (int64_t g = 0; g < table->dilation; g++) {
        const nf_axis_class c = nf_axis_table_class(table, g);
        const nf_interval rows = nf_class_rows(&c, NF_ROWS_QUERIES);
        for (int32_t r = rows.begin; r < rows.end; r++) {
            const int32_t end = nf_class_sees(&c, NF_ROWS_QUERIES, nf_min32(r + run, rows.end) - 1).end;
            widest = nf_max32(widest, end - nf_class_sees(&c, NF_ROWS_QUERIES, r).begin);
        }
    }
    return nf_max32(widest, 1);
}

enum {
    SIZES = 12,
    FEW_STRANDS = 4, /* to try each number of; more in these steps, and as many as there are classes */
    MOST_STRANDS = 16
};

static const int32_t sizes[SIZES] = {1, 2, 4, 8, 16, 32, 48, 64, 96, 128, 192, 256};

/* Predicted operations per row, and how many items share them: not whole if the last has fewer strands. */
typedef struct item_cost {
    double operations, items;
} item_cost;

typedef struct shape_search {
    const nf_request *request;
    const cpu_kernels *kernels;
    bool backward;
    int32_t rank, line_axis;
    axis_view axis[NF_MAX_RANK];
    int32_t extents[NF_MAX_RANK][SIZES]; /* to try */
    int32_t hulls[NF_MAX_RANK][SIZES];   /* widest_hull of each */
    int32_t block_hull;                  /* of a block of rows on the line axis */
    int64_t depth;       /* of packed lines: elements per column */
    double groups;       /* query heads per packed line */
    double threads;      /* items should come in whole rounds of these, */
    double fewest;       /* and of as few as these, if only lines are cut otherwise */
    double least;        /* sum over these of balanced costs */
    item_cost best_cost; /* for `threads` */
    int best[NF_MAX_RANK]; /* indices into extents */
    int strands, best_strands;
} shape_search;

/* What an item of these extents (indices into s->extents) meets. */
typedef struct item_view {
    double items;
    double rows, pairs;          /* its own */
    double all_rows;             /* with those that only see its keys */
    double columns, ring_bytes;
    double ahead_columns, ahead_rows; /* of these and those: what a block row fetches for the next */
    double both;                 /* of the pairs: those whose key is its own too */
    double lanes;                /* computed per pair that lanes meet */
} item_view;

static item_view view_item(const shape_search *s, const int *choice)
{
    const int32_t last = s->rank - 1;
    const double lanes = (double)s->kernels->lanes;
    item_view v = {.items = (double)(s->request->problem->batch * s->request->problem->kv_heads), .rows = 1, .pairs = 1,
                   .all_rows = 1, .columns = 1, .both = 1, .ring_bytes = 1, .ahead_columns = 1, .ahead_rows = 1};
    for (int32_t a = 0; a < s->rank; a++) {
        const double extent = s->extents[a][choice[a]], hull = s->hulls[a][choice[a]];
        const double parts = ceil((double)s->axis[a].rows / extent), inner = (parts - 1) / parts;
        v.items *= s->axis[a].classes * parts;
        v.rows *= extent;
        v.pairs *= extent * s->axis[a].seen;
        v.all_rows *= extent + (s->backward ? inner * (hull - extent) : 0);
        v.columns *= hull;
        v.ahead_columns *= a == s->line_axis ? fmin(hull, CPU_STENCIL_ROWS) : hull;
        v.ahead_rows *= a == s->line_axis ? fmin(extent, CPU_STENCIL_ROWS) : extent;
        v.ring_bytes *= a == s->line_axis ? (double)s->block_hull : a == last ? s->strands * hull + 2 * lanes : hull;
        v.both *= 1 - inner * fmin(s->axis[a].seen / (4 * extent), 1 - extent / (extent + s->axis[a].seen));
    }
    const double strands = s->strands, longest = s->extents[last][choice[last]];
    v.items /= strands;
    v.rows *= strands;
    v.pairs *= strands;
    v.all_rows *= strands;
    v.columns *= strands;
    v.ahead_columns *= strands;
    v.ahead_rows *= strands;
    v.ring_bytes *= (double)(s->depth * s->kernels->real_size);
    const double parts = ceil((double)s->axis[last].rows / longest), halo = s->hulls[last][choice[last]] - longest;
    const double ends = s->backward && longest < s->axis[last].rows ? 2 * ceil(halo / 2 / lanes) * FOREIGN_SLOTS : 0;
    if (strands == 1) { /* the last part may be short */
        const double rest = (double)s->axis[last].rows - (parts - 1) * longest;
        const double vectors = (parts - 1) * ceil(longest / lanes) + ceil(rest / lanes);
        v.lanes = (vectors + parts * ends) * lanes / (double)s->axis[last].rows;
    } else if (s->backward) { /* each begins a vector, or lies in one as a whole */
        const double in_vector = fmax(floor(lanes / longest), 1);
        v.lanes = ceil(strands / in_vector) * ceil(longest / lanes) * lanes / (strands * longest);
    } else { /* several strands are long and short ones */
        const double across = strands * s->axis[last].mean / parts;
        v.lanes = ceil(across / lanes) * lanes / across;
    }
    return v;
}

/* Of a tensor, as an item of some neighboring heads meets it: pages that a row takes in vain, and how much room in the
 * cache it takes from others, in its own sizes. */
typedef struct spread {
    double pages, sets;
} spread;

static spread spread_of(const shape_search *s, nf_role role, double heads)
{
    const nf_tensor *t = &s->request->layout[role];
    const double element = (double)nf_dtype_size(t->dtype), row = (double)t->extents[s->rank + 2] * element;
    const double step = fabs((double)t->strides[s->rank]) * element;
    const bool beside = fabs((double)t->strides[s->rank + 1]) * element < step;
    const double together = beside ? fmin(heads, (double)t->extents[s->rank + 1]) : 1;
    const double alone = fmax(1 / together - 1 / PAGE_HEADS, 0);
    return (spread){.pages = fmax(fmin(step / PAGE_BYTES, 1) - PAGE_SHARED, 0) * alone,
                    .sets = fmax(fmin(step, PAGE_BYTES) / (row * together), 1)};
}

/* What it costs an item of forward that rows lie apart. */
static double apart_cost(const shape_search *s, const item_view *v, double pack)
{
    const nf_problem *problem = s->request->problem;
    const spread q = spread_of(s, NF_Q, s->strands * s->groups), out = spread_of(s, NF_OUT, s->strands * s->groups);
    const spread key = spread_of(s, NF_K, s->strands), value = spread_of(s, NF_V, s->strands);
    const double pages = v->columns * (key.pages + value.pages) / s->groups + v->rows * (q.pages + out.pages);
    const double column_sets = (double)problem->head_dim * key.sets + (double)problem->value_dim * value.sets;
    const double row_sets = (double)problem->head_dim * q.sets * s->groups;
    const double sets = v->ahead_columns * column_sets + v->ahead_rows * row_sets;
    const double bytes = sets * (double)nf_dtype_size(problem->dtype);
    const double displaced = bytes > DISPLACING_BYTES ? (DISPLACED_OPERATIONS - 1) * pack : 0;
    return pages * PAGE_OPERATIONS / (double)s->kernels->lanes + displaced;
}

/* The cost of an item of these extents: infinite if its ring is too large, or backward would cut strands. */
static item_cost cost_of(const shape_search *s, const int *choice)
{
    const nf_problem *problem = s->request->problem;
    const int32_t last = s->rank - 1;
    if (s->backward && s->strands > 1 && s->extents[last][choice[last]] < s->axis[last].rows)
        return (item_cost){INFINITY, 1};
    const item_view v = view_item(s, choice);
    const double lanes = (double)s->kernels->lanes, dims = (double)(problem->head_dim + problem->value_dim);
    const double head_dim = (double)problem->head_dim;
    const double flat = s->kernels->lanes != 8 || s->backward ? FLAT_OPERATIONS : FLAT_EIGHT_OPERATIONS;
    const double edge = s->line_axis < 0 ? flat : EDGE_OPERATIONS;
    if (v.ring_bytes > (double)RING_BYTES)
        return (item_cost){INFINITY, 1};
    /* In lanes: scores and softmax, in backward once more for pairs that are not both the item's own. With dims in the lanes:
     * what is summed up. */
    const double met = s->backward ? 2 - v.both : 1;
    const double score_edge = s->line_axis < 0 && !s->backward ? FLAT_SCORE_OPERATIONS : edge;
    const double in_lanes = met * v.lanes * ((s->backward ? dims : head_dim) * score_edge + SOFTMAX_OPERATIONS);
    const double sum_edge = s->line_axis < 0 && s->backward ? FLAT_SUM_OPERATIONS : edge;
    const double summed = (s->backward ? dims + head_dim : dims - head_dim) * sum_edge;
    const double compute = v.pairs * (in_lanes + summed) / lanes + v.all_rows * LANE_OPERATIONS * (s->backward ? 2 : 1);
    const double pack = v.columns * (double)s->depth * PACK_OPERATIONS * (lanes > 4 ? 1 : 2) / s->groups;
    const int64_t cached = s->backward ? CACHED_BACKWARD_BYTES : CACHED_RING_BYTES;
    const double memory = v.ring_bytes > (double)cached ? UNCACHED_OPERATIONS : 1;
    const double use = v.lanes <= 2 ? 1 : s->backward ? SHORT_BACKWARD_OPERATIONS : SHORT_OPERATIONS;
    const double folding = 1 + STRAND_COST * (s->strands - 1);
    const double apart = s->backward ? 0 : apart_cost(s, &v, pack);
    return (item_cost){.operations = (compute * memory * use + pack + apart) / v.rows * folding, .items = v.items};
}

/* What counts among shapes of one walk. */
static double balanced(item_cost cost, double threads)
{
    return ceil(ceil(cost.items) / threads) * threads / cost.items * cost.operations;
}

/* The costs of all cuts of the line axis, given how the others are cut; returns how many. */
static int list_cuts(const shape_search *s, int *choice, item_cost *costs)
{
    int count = 0;
    if (s->line_axis < 0) {
        costs[0] = cost_of(s, choice);
        return 1;
    }
    for (; count < SIZES && s->extents[s->line_axis][count]; count++) {
        choice[s->line_axis] = count;
        costs[count] = cost_of(s, choice);
    }
    return count;
}

static int best_cut(const item_cost *costs, int count, double threads)
{
    int best = 0;
    for (int i = 1; i < count; i++)
        if (balanced(costs[i], threads) < balanced(costs[best], threads))
            best = i;
    return best;
}

static void try_shape(shape_search *s, int *choice)
{
    item_cost costs[SIZES];
    const int count = list_cuts(s, choice, costs);
    const int best = best_cut(costs, count, s->threads);
    double sum = balanced(costs[best], s->threads);
    for (double threads = s->fewest; threads < s->threads; threads *= 2)
        sum += balanced(costs[best_cut(costs, count, threads)], threads);
    if (sum >= s->least)
        return;
    s->least = sum;
    s->best_cost = costs[best];
    s->best_strands = s->strands;
    for (int32_t a = 0; a < s->rank; a++)
        s->best[a] = a == s->line_axis ? best : choice[a];
}

static void try_axis(shape_search *s, int *choice, int32_t axis)
{
    if (axis == s->rank) {
        try_shape(s, choice);
        return;
    }
    if (axis == s->line_axis) {
        try_axis(s, choice, axis + 1);
        return;
    }
    for (int i = 0; i < SIZES && s->extents[axis][i]; i++) {
        choice[axis] = i;
        try_axis(s, choice, axis + 1);
    }
}

/* Cuts the line axis of the best shape anew. */
static void cut_lines(shape_search *s, double threads)
{
    item_cost costs[SIZES];
    if (s->line_axis < 0)
        return;
    s->strands = s->best_strands;
    const int count = list_cuts(s, s->best, costs);
    s->best[s->line_axis] = best_cut(costs, count, threads);
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
        s->hulls[axis][count++] = widest_hull(&s->request->grid->axis[axis], size);
    }
}

static void list_choices(shape_search *s)
{
    const nf_problem *problem = s->request->problem;
    s->rank = problem->rank;
    s->line_axis = problem->rank - 2;
    s->groups = (double)nf_problem_group(problem);
    s->depth = s->backward ? 3 * problem->head_dim + 2 * problem->value_dim : problem->head_dim + problem->value_dim;
    s->best_cost = (item_cost){INFINITY, 1};
    s->least = INFINITY;
    s->fewest = s->backward && s->line_axis >= 0 ? FEWEST_THREADS : s->threads;
    for (int32_t a = 0; a < s->rank; a++) {
        s->axis[a] = view_axis(&s->request->grid->axis[a]);
        list_extents(s, a);
    }
    s->block_hull = s->line_axis < 0 ? 1 : widest_hull(&s->request->grid->axis[s->line_axis], CPU_STENCIL_ROWS);
}

/* The first extents are the least, and with one strand their ring is. */
bool cpu_stencil_fits(const nf_request *request, const cpu_kernels *kernels, bool backward)
{
    static const int least[NF_MAX_RANK] = {0};
    shape_search search = {.request = request, .kernels = kernels, .backward = backward, .strands = 1};
    list_choices(&search);
    return view_item(&search, least).ring_bytes <= (double)RING_BYTES;
}

static void run_search(shape_search *s)
{
    list_choices(s);
    const int classes = (int)s->axis[s->rank - 1].classes;
    for (s->strands = 1; s->strands <= MOST_STRANDS; s->strands++)
        if (s->strands <= FEW_STRANDS || s->strands % FEW_STRANDS == 0 || s->strands == classes) {
            int choice[NF_MAX_RANK];
            try_axis(s, choice, 0);
        }
}

/* All rows of all batches and heads. */
static double rows_of(const shape_search *s)
{
    double rows = (double)(s->request->problem->batch * s->request->problem->heads);
    for (int32_t a = 0; a < s->rank; a++)
        rows *= s->axis[a].classes * s->axis[a].rows;
    return rows;
}

static double forward_rate(const shape_search *s)
{
    const axis_view *axis = &s->axis[s->rank - 1];
    const double crowded = fmax(2 * axis->still - 1, 0) * fmin(CROWDED_ROWS / axis->rows, 1);
    const double longer = 1 + CROWDED_OPERATIONS * crowded;
    if (s->kernels->lanes > 8)
        return longer * FORWARD_RATE;
    return longer * (s->rank > 2 ? NARROW_PLANES_RATE : NARROW_FORWARD_RATE);
}

/* Lanes left idle by the rows cost backward as much as others; where they are most, SHORT_BACKWARD_OPERATIONS tells. */
static double backward_rate(const shape_search *s)
{
    const double lanes = (double)s->kernels->lanes, rows = (double)s->axis[s->rank - 1].rows;
    const double in_vector = fmin(s->best_strands, fmax(floor(lanes / rows), 1));
    const double computed = ceil(rows / lanes) * lanes / (rows * in_vector), idle = computed < 2 ? computed : 1;
    if (lanes > 8)
        return idle * BACKWARD_RATE;
    return idle * (s->kernels->lanes == 8 ? EIGHT_BACKWARD_RATE : NARROW_BACKWARD_RATE);
}

/* Of the whole walk, in operations of the tile family and with a penalty for few items as it has. */
static double operations_of(const shape_search *s)
{
    const double rate = s->backward ? backward_rate(s) : forward_rate(s);
    return s->best_cost.operations * rows_of(s) * rate * (1 + IDLE_ITEMS / s->best_cost.items);
}

double cpu_stencil_operations(const nf_request *request, const cpu_kernels *kernels, bool backward)
{
    shape_search search = {.request = request, .kernels = kernels, .backward = backward, .threads = BALANCE_THREADS};
    run_search(&search);
    return operations_of(&search);
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
    walk->strands = s->best_strands;
    walk->columns = walk->strands * widest[last];
    walk->line_stride = (walk->columns + 3 * lanes - 1) / lanes * lanes;
    if (walk->line_stride / lanes % 2 == 0)
        walk->line_stride += lanes;
    walk->slots = widest_hull(&s->request->grid->axis[last], 1);
    /* A block may end early at the end of each strand; in backward where own rows begin and end. */
    walk->lane_blocks = (walk->strands * longest + lanes - 1) / lanes + walk->strands - 1 + (s->backward ? 2 : 0);
    walk->chunk = nf_max64(SCORE_BYTES / (walk->block_rows * walk->slots * lanes * s->kernels->real_size), 1);
    walk->chunk = nf_min64(walk->chunk, walk->planes * walk->ring);
}

nf_status cpu_stencil_shape(cpu_stencil_walk *walk, const nf_request *request, const cpu_kernels *kernels, bool backward)
{
    const nf_problem *problem = request->problem;
    /* How queries are cut changes nothing in forward: each is the sum of the same products in the same order. Nor does it
     * change anything how backward's lines are cut, in whole blocks of rows: each sum takes its products block by block. */
    shape_search search = {.request = request, .kernels = kernels, .backward = backward,
                           .threads = backward ? BALANCE_THREADS : (double)request->threads};
    run_search(&search);
    if (backward)
        cut_lines(&search, (double)request->threads);
    nf_work_spec spec = {.rows = NF_ROWS_QUERIES};
    for (int32_t a = 0; a < search.rank; a++) {
        spec.tile[a] = 1;
        spec.group[a] = search.extents[a][search.best[a]];
        spec.columns[a] = INT32_MAX;
    }
    spec.tile[search.rank - 1] = (int32_t)kernels->lanes;
    if (search.line_axis >= 0)
        spec.tile[search.line_axis] = CPU_STENCIL_ROWS;
    *walk = (cpu_stencil_walk){.line_axis = search.line_axis,
                               .block_rows = search.line_axis < 0 ? 1 : CPU_STENCIL_ROWS,
                               .operations = operations_of(&search)};
    const nf_status status = backward ? cpu_stencil_share_out(walk, request->context, request->grid, &spec)
                                      : nf_work_create(&walk->work, request->context, request->grid, &spec);
    if (status != NF_OK)
        return status;
    measure(walk, &search);
    const int64_t segments = walk->work.segment_count[search.rank - 1];
    const int64_t strands = problem->batch * problem->kv_heads * segments;
    walk->items = (strands + walk->strands - 1) / walk->strands * (walk->work.items / segments);
    return NF_OK;
}
