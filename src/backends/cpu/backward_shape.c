/* Shapes of backward's walk by key, by a cost model in vector operations. An item's keys lie in the lanes, places on one
 * axis, the lead, far apart, so that a box of queries multiplies only the run of lanes that it sees: the lead is the axis
 * on which most would be lost. Queries are rows, which may be cut anywhere at no loss: on the other axes a box is the whole
 * hull of the item's keys if that is not too much. */
#include "backends/cpu/backward_shape.h"

#include <math.h>

static const double MOVE_OPERATIONS = 16;  /* per vector of a row that is packed, added up or stored */
static const double GRADIENT_OPERATIONS = 28; /* per vector of pairs */
static const double VISIT_OPERATIONS = 800;  /* per box of queries */
static const double ROW_OPERATIONS = 40;     /* per query of a box: addresses, mask */
static const double BALANCE_THREADS = 4;     /* half an item of idling for each of these; not the threads at hand, on
                                                which results must not depend */
static const int64_t KEY_BYTES = 656 << 10;  /* of an item's keys, values and gradients: second-level cache */
static const int64_t QUERY_BYTES = 384 << 10; /* of a box of queries and its scores */
enum {
    MOST_QUERIES = 192,
    MOST_PAIRED = 128, /* queries whose scores a table of pairs rounds at once */
    AXIS_SIZES = 24
};

/* One way to cut an axis: keys of an item, and the queries that see some of them, on average and at most. */
typedef struct axis_cut {
    int32_t keys, most;
    double hull;
} axis_cut;

typedef struct shape_search {
    const cpu_kernels *kernels;
    int32_t rank;
    int64_t head_dim, value_dim;
    int32_t keys[NF_MAX_RANK], queries[NF_MAX_RANK]; /* of the fullest class of an axis */
    double sees[NF_MAX_RANK];                        /* queries of a key, on average */
    axis_cut cuts[NF_MAX_RANK][AXIS_SIZES];
    int cut_count[NF_MAX_RANK];
    double streams; /* batches, heads and classes: items that exist anyway */
    int64_t most_keys;
    nf_work_spec best;
    int32_t best_lead;
    double best_cost; /* per key */
} shape_search;

/* Cuts every class of an axis into runs of keys. */
static axis_cut cut_axis(const nf_axis_table *table, int32_t run)
{
    axis_cut cut = {.keys = run, .most = 1};
    double sum = 0, count = 0;
    for (int64_t g = 0; g < table->dilation; g++) {
        const nf_axis_class c = nf_axis_table_class(table, g);
        const nf_interval keys = nf_class_rows(&c, NF_ROWS_KEYS);
        for (int32_t k = keys.begin; k < keys.end; k += run) {
            const int32_t last = nf_min32(k + run, keys.end) - 1, begin = nf_class_sees(&c, NF_ROWS_KEYS, k).begin;
            const int32_t hull = nf_max32(nf_class_sees(&c, NF_ROWS_KEYS, last).end - begin, 0);
            cut.most = nf_max32(cut.most, hull);
            sum += hull;
            count++;
        }
    }
    cut.hull = count > 0 ? fmax(sum / count, 1) : 1;
    return cut;
}

/* Lists how an axis may be cut, evenly. */
static void list_cuts(shape_search *s, const nf_axis_table *table, int32_t axis)
{
    static const int32_t sizes[AXIS_SIZES] = {1,  2,  3,  4,  5,  6,  7,  8,  10, 12,  14,  16,
                                              20, 24, 28, 32, 40, 48, 64, 80, 96, 128, 192, 256};
    int32_t keys = 1;
    s->queries[axis] = 1;
    for (int64_t g = 0; g < table->dilation; g++) {
        const nf_axis_class c = nf_axis_table_class(table, g);
        keys = nf_max32(keys, c.k_end - c.k_begin);
        s->queries[axis] = nf_max32(s->queries[axis], c.rule->queries);
    }
    s->keys[axis] = keys;
    s->sees[axis] = cut_axis(table, 1).hull;
    int32_t previous = 0;
    for (int i = 0; i < AXIS_SIZES && previous < keys; i++) {
        const int32_t parts = (keys + sizes[i] - 1) / sizes[i], run = (keys + parts - 1) / parts;
        if (run == previous || run > s->most_keys)
            continue;
        previous = run;
        s->cuts[axis][s->cut_count[axis]++] = cut_axis(table, run);
    }
}

/* Boxes along one axis, on average, when cut at multiples of size. */
static double boxes_along(const shape_search *s, int32_t axis, double hull, int32_t size)
{
    return hull >= s->queries[axis] || size >= s->queries[axis] ? ceil(hull / size) : (hull + size - 1) / size;
}

/* Register blocks of six rows; one with fewer costs a little more than its share. */
static double row_operations(double rows)
{
    return rows + (fmod(rows, 6) > 0 ? 0.7 : 0);
}

/* Cost of one box of m queries that sees `seen` lanes. */
static double box_cost(const shape_search *s, double m, double seen)
{
    const double lanes = (double)s->kernels->lanes, k_dim = (double)s->head_dim, v_dim = (double)s->value_dim;
    const double wide = ceil(seen / lanes) * lanes;
    const double scores = row_operations(m) * wide / lanes * (k_dim + v_dim);
    const double columns = ceil(k_dim / lanes) + ceil(v_dim / lanes);
    const double gradients = row_operations(seen) * columns * (m + 3) + row_operations(m) * ceil(k_dim / lanes) * seen;
    const double moved = 2 * columns * m * MOVE_OPERATIONS + m * ROW_OPERATIONS;
    return scores + gradients + moved + m * wide / lanes * GRADIENT_OPERATIONS + VISIT_OPERATIONS;
}

/* Lanes that a box sees whose queries stay within `thick` places of the lead. */
static double seen_lanes(const shape_search *s, const axis_cut *lead_cut, int32_t lead, double thick, double apart)
{
    const double keys = lead_cut->keys;
    return apart * (keys > 1 ? fmin(keys, keys * s->sees[lead] / lead_cut->hull + thick - 1) : 1);
}

/* m queries and `boxes` boxes for each place of the lead; `apart` lanes lie between its keys. */
static void try_spec(shape_search *s, const nf_work_spec *spec, int32_t lead, const axis_cut *const *cut, double boxes,
                     double m, double apart)
{
    const double lanes = (double)s->kernels->lanes;
    double keys = 1, items = s->streams;
    for (int32_t a = 0; a < s->rank; a++) {
        keys *= spec->group[a];
        items *= ceil((double)s->keys[a] / spec->group[a]);
    }
    const double along = boxes_along(s, lead, cut[lead]->hull, spec->columns[lead]), thick = cut[lead]->hull / along;
    const double item = along * boxes * box_cost(s, m * thick, seen_lanes(s, cut[lead], lead, thick, apart));
    const double columns = ceil((double)s->head_dim / lanes) * 3 + ceil((double)s->value_dim / lanes) * 2;
    const double idle = 1 + BALANCE_THREADS / (2 * items);
    const double cost = idle * (item + 2 * keys * columns * MOVE_OPERATIONS) / keys;
    if (cost < s->best_cost) {
        s->best_cost = cost;
        s->best = *spec;
        s->best_lead = lead;
    }
}

/* The axis on which an item's queries see the smallest part of its keys. */
static int32_t choose_lead(const shape_search *s, const axis_cut *const *cut)
{
    int32_t lead = 0;
    for (int32_t a = 1; a < s->rank; a++)
        if (cut[a]->hull * s->sees[lead] > cut[lead]->hull * s->sees[a])
            lead = a;
    return lead;
}

/* Chooses boxes of queries for an item. */
static void try_columns(shape_search *s, nf_work_spec *spec, const axis_cut *const *cut)
{
    const int64_t real = s->kernels->real_size;
    const int32_t lead = choose_lead(s, cut);
    double apart = 1, boxes = 1, m = 1;
    for (int32_t a = 0; a < s->rank; a++)
        apart *= a == lead ? 1 : spec->group[a];
    const int64_t seen = (int64_t)seen_lanes(s, cut[lead], lead, 1, apart);
    const int64_t row_bytes = (2 * seen + 2 * s->head_dim + s->value_dim) * real;
    const int64_t most_queries = s->kernels->pairs ? MOST_PAIRED : MOST_QUERIES;
    int64_t room = nf_max64(nf_min64(QUERY_BYTES / row_bytes, most_queries), 6);
    for (int32_t a = s->rank - 1; a >= 0; a--) {
        if (a == lead)
            continue;
        const int32_t parts = (int32_t)((cut[a]->most + room - 1) / room);
        spec->columns[a] = parts == 1 ? s->queries[a] : (cut[a]->most + parts - 1) / parts;
        const double along = boxes_along(s, a, cut[a]->hull, spec->columns[a]);
        boxes *= along;
        m *= cut[a]->hull / along;
        room = nf_max64(room / nf_min32(cut[a]->most, spec->columns[a]), 1);
    }
    const int32_t room_blocks = (int32_t)room / CPU_BLOCK_ROWS * CPU_BLOCK_ROWS; /* whole blocks, if one axis is cut */
    const int32_t most = nf_min32(s->rank == 1 && room_blocks > 0 ? room_blocks : (int32_t)room, cut[lead]->most);
    for (int32_t size = 1; size <= most; size = size < 4 ? size + 1 : size * 5 / 4) {
        spec->columns[lead] = size;
        try_spec(s, spec, lead, cut, boxes, m, apart);
    }
    spec->columns[lead] = most;
    try_spec(s, spec, lead, cut, boxes, m, apart);
}

static void try_keys(shape_search *s, nf_work_spec *spec, int32_t axis, int64_t keys, const axis_cut **cut)
{
    if (axis == s->rank) {
        try_columns(s, spec, cut);
        return;
    }
    for (int i = 0; i < s->cut_count[axis]; i++) {
        cut[axis] = &s->cuts[axis][i];
        if (keys * cut[axis]->keys > s->most_keys)
            break;
        spec->group[axis] = spec->tile[axis] = cut[axis]->keys;
        try_keys(s, spec, axis + 1, keys * cut[axis]->keys, cut);
    }
}

int32_t cpu_choose_key_shape(const nf_request *request, const cpu_kernels *kernels, nf_work_spec *spec, double *operations)
{
    const nf_problem *problem = request->problem;
    shape_search search = {
        .kernels = kernels,
        .rank = problem->rank,
        .head_dim = problem->head_dim,
        .value_dim = problem->value_dim,
        .streams = (double)(problem->batch * problem->kv_heads),
        .best_cost = INFINITY,
    };
    const int64_t key_bytes = (3 * problem->head_dim + 2 * problem->value_dim) * kernels->real_size;
    search.most_keys = nf_max64(nf_min64(KEY_BYTES / key_bytes, CPU_MAX_COLUMNS), kernels->lanes);
    const axis_cut *cut[NF_MAX_RANK];
    for (int32_t a = 0; a < problem->rank; a++) {
        list_cuts(&search, &request->grid->axis[a], a);
        search.streams *= (double)request->grid->axis[a].dilation;
    }
    nf_work_spec scratch = {.rows = NF_ROWS_KEYS, .aligned = true};
    try_keys(&search, &scratch, 0, 1, cut);
    *spec = search.best;
    *operations = search.best_cost * (double)(problem->batch * problem->heads);
    for (int32_t a = 0; a < problem->rank; a++)
        *operations *= (double)request->grid->axis[a].dilation * search.keys[a];
    return search.best_lead;
}

nf_status cpu_create_key_walk(cpu_walk *walk, const nf_request *request, const cpu_kernels *kernels)
{
    const nf_problem *problem = request->problem;
    nf_work_spec spec;
    double operations;
    walk->lead = cpu_choose_key_shape(request, kernels, &spec, &operations);
    const nf_status status = nf_work_create(&walk->work, request->context, request->grid, &spec);
    if (status != NF_OK)
        return status;
    walk->tile_rows = walk->columns = 1;
    for (int32_t a = 0; a < problem->rank; a++) {
        walk->tile_rows *= spec.group[a];
        walk->columns *= nf_min32(spec.columns[a], cut_axis(&request->grid->axis[a], spec.group[a]).most);
    }
    walk->fold = walk->folds = walk->tiles = 1;
    walk->items = walk->work.items * problem->batch * problem->kv_heads;
    return NF_OK;
}
