/* Cutting axis tables into work. Everything here is a product over axes, lists and counts alike. */
#include "core/work.h"

#include <stdbool.h>
#include <string.h>

#include "core/mem.h"
#include "core/status.h"

static int32_t ceil_div32(int32_t a, int32_t b)
{
    return a / b + (a % b != 0);
}

/* Intervals never decrease, so the hull of a run of rows runs from the first row's begin to the last row's end. */
static nf_interval hull_of(const nf_axis_class *c, nf_side side, nf_interval rows)
{
    const int32_t begin = nf_class_sees(c, side, rows.begin).begin;
    const int32_t end = nf_class_sees(c, side, rows.end - 1).end;
    return end > begin ? (nf_interval){begin, end} : (nf_interval){begin, begin};
}

static nf_tile_kind classify_axis(const nf_axis_class *c, nf_side side, nf_interval rows, nf_interval columns)
{
    const nf_interval first = nf_class_sees(c, side, rows.begin), last = nf_class_sees(c, side, rows.end - 1);
    if (columns.end <= first.begin || columns.begin >= last.end)
        return NF_TILE_ABSENT;
    return last.begin <= columns.begin && columns.end <= first.end ? NF_TILE_FULL : NF_TILE_PARTIAL;
}

/* How an interval is cut: every size positions from its begin, or at multiples of size. */
typedef struct cut {
    nf_interval whole;
    int32_t size;
    bool aligned;
} cut;

static int32_t pieces(cut c)
{
    if (nf_interval_size(c.whole) == 0)
        return 0;
    if (c.aligned)
        return (c.whole.end - 1) / c.size - c.whole.begin / c.size + 1;
    return ceil_div32(nf_interval_size(c.whole), c.size);
}

/* The index-th piece. Sizes may be INT32_MAX, so ends are compared without forming begin + size. */
static nf_interval piece(cut c, int32_t index)
{
    const int32_t base = c.aligned ? c.whole.begin / c.size * c.size : c.whole.begin;
    const int32_t begin = base + index * c.size;
    return (nf_interval){nf_max32(begin, c.whole.begin), c.whole.end - begin > c.size ? begin + c.size : c.whole.end};
}

static cut cut_group(const nf_work_spec *spec, int32_t axis, nf_interval rows)
{
    return (cut){rows, spec->group[axis], false};
}

static cut cut_rows(const nf_work_spec *spec, int32_t axis, nf_interval rows)
{
    return (cut){rows, spec->tile[axis], false};
}

static cut cut_columns(const nf_work_spec *spec, int32_t axis, nf_interval hull)
{
    return (cut){hull, spec->columns[axis], spec->aligned != 0};
}

/* Sums over one axis; the sums of a grid are their products. */
typedef struct axis_counts {
    double useful, pairs, full_pairs;
    double tiles, present, full;
} axis_counts;

static void count_segment(const nf_axis_class *c, const nf_work_spec *spec, int32_t axis, const nf_segment *s,
                          axis_counts *sum)
{
    for (int32_t r = s->rows.begin; r < s->rows.end; r++)
        sum->useful += nf_interval_size(nf_class_sees(c, spec->rows, r));
    const cut by_row = cut_rows(spec, axis, s->rows), by_column = cut_columns(spec, axis, s->hull);
    const int32_t row_tiles = pieces(by_row), column_tiles = pieces(by_column);
    sum->tiles += (double)row_tiles * column_tiles;
    for (int32_t i = 0; i < row_tiles; i++) {
        const nf_interval rows = piece(by_row, i);
        for (int32_t j = 0; j < column_tiles; j++) {
            const nf_interval columns = piece(by_column, j);
            const nf_tile_kind kind = classify_axis(c, spec->rows, rows, columns);
            const double pairs = (double)nf_interval_size(rows) * nf_interval_size(columns);
            if (kind == NF_TILE_ABSENT)
                continue;
            sum->present++;
            sum->pairs += pairs;
            if (kind == NF_TILE_FULL) {
                sum->full++;
                sum->full_pairs += pairs;
            }
        }
    }
}

static int64_t count_segments(const nf_axis_table *table, const nf_work_spec *spec, int32_t axis)
{
    int64_t count = 0;
    for (int64_t g = 0; g < table->dilation; g++) {
        const nf_axis_class c = nf_axis_table_class(table, g);
        count += pieces(cut_group(spec, axis, nf_class_rows(&c, spec->rows)));
    }
    return count;
}

static nf_status cut_axis(nf_work *work, const nf_context *context, int32_t axis, axis_counts *sum,
                          int32_t *largest_group, int32_t *largest_hull)
{
    const nf_axis_table *table = &work->grid->axis[axis];
    const nf_work_spec *spec = &work->spec;
    const int64_t count = count_segments(table, spec, axis);
    nf_segment *segment = work->segments[axis] = nf_alloc_array(context, (size_t)count, sizeof(nf_segment));
    if (!segment)
        return NF_ERR_MEMORY;
    work->segment_count[axis] = count;
    for (int64_t g = 0; g < table->dilation; g++) {
        const nf_axis_class c = nf_axis_table_class(table, g);
        const cut groups = cut_group(spec, axis, nf_class_rows(&c, spec->rows));
        for (int32_t i = 0; i < pieces(groups); i++, segment++) {
            segment->class_index = (int32_t)g;
            segment->rows = piece(groups, i);
            segment->hull = hull_of(&c, spec->rows, segment->rows);
            count_segment(&c, spec, axis, segment, sum);
            *largest_group = nf_max32(*largest_group, nf_interval_size(segment->rows));
            *largest_hull = nf_max32(*largest_hull, nf_interval_size(segment->hull));
        }
    }
    return NF_OK;
}

nf_status nf_work_create(nf_work *work, const nf_context *context, const nf_grid *grid, const nf_work_spec *spec)
{
    *work = (nf_work){.grid = grid, .spec = *spec, .items = 1, .counts = {.group_rows = 1, .hull_columns = 1}};
    axis_counts product = {1, 1, 1, 1, 1, 1};
    for (int32_t a = 0; a < grid->rank; a++) {
        const int32_t tile = spec->tile[a];
        work->spec.group[a] = (int32_t)nf_min64((int64_t)ceil_div32(spec->group[a], tile) * tile, INT32_MAX);
        axis_counts sum = {0};
        int32_t largest_group = 0, largest_hull = 0;
        const nf_status status = cut_axis(work, context, a, &sum, &largest_group, &largest_hull);
        if (status != NF_OK) {
            nf_work_destroy(work, context);
            return status;
        }
        work->items *= work->segment_count[a];
        work->counts.group_rows *= largest_group;
        work->counts.hull_columns *= largest_hull;
        product.useful *= sum.useful;
        product.pairs *= sum.pairs;
        product.full_pairs *= sum.full_pairs;
        product.tiles *= sum.tiles;
        product.present *= sum.present;
        product.full *= sum.full;
    }
    work->counts.useful_pairs = product.useful;
    work->counts.computed_pairs = product.pairs;
    work->counts.masked_pairs = product.pairs - product.full_pairs;
    work->counts.tiles_full = product.full;
    work->counts.tiles_partial = product.present - product.full;
    work->counts.tiles_absent = product.tiles - product.present;
    return NF_OK;
}

void nf_work_destroy(nf_work *work, const nf_context *context)
{
    for (int32_t a = 0; a < NF_MAX_RANK; a++)
        nf_release(context, work->segments[a]);
    memset(work, 0, sizeof *work);
}

void nf_work_get_item(const nf_work *work, int64_t index, nf_work_item *item)
{
    for (int32_t a = work->grid->rank - 1; a >= 0; a--) {
        item->segment[a] = work->segments[a][index % work->segment_count[a]];
        item->axis_class[a] = nf_axis_table_class(&work->grid->axis[a], item->segment[a].class_index);
        index /= work->segment_count[a];
    }
}

static int64_t count_boxes(const cut *cuts, int32_t rank)
{
    int64_t count = 1;
    for (int32_t a = 0; a < rank; a++)
        count *= pieces(cuts[a]);
    return count;
}

/* The index-th box, row-major, of a product of cut intervals. */
static void get_box(const cut *cuts, int32_t rank, int64_t index, nf_box *box)
{
    for (int32_t a = rank - 1; a >= 0; a--) {
        const int32_t count = pieces(cuts[a]);
        box->axis[a] = piece(cuts[a], (int32_t)(index % count));
        index /= count;
    }
}

/* The cuts of an item: its rows into tiles, or its hull into column tiles. */
static void cut_item(const nf_work *work, const nf_work_item *item, bool columns, cut *cuts)
{
    for (int32_t a = 0; a < work->grid->rank; a++)
        cuts[a] = columns ? cut_columns(&work->spec, a, item->segment[a].hull)
                          : cut_rows(&work->spec, a, item->segment[a].rows);
}

int64_t nf_work_tile_count(const nf_work *work, const nf_work_item *item)
{
    cut cuts[NF_MAX_RANK];
    cut_item(work, item, false, cuts);
    return count_boxes(cuts, work->grid->rank);
}

void nf_work_tile(const nf_work *work, const nf_work_item *item, int64_t index, nf_box *tile)
{
    cut cuts[NF_MAX_RANK];
    cut_item(work, item, false, cuts);
    get_box(cuts, work->grid->rank, index, tile);
}

int64_t nf_work_column_tile_count(const nf_work *work, const nf_work_item *item)
{
    cut cuts[NF_MAX_RANK];
    cut_item(work, item, true, cuts);
    return count_boxes(cuts, work->grid->rank);
}

void nf_work_column_tile(const nf_work *work, const nf_work_item *item, int64_t index, nf_box *tile)
{
    cut cuts[NF_MAX_RANK];
    cut_item(work, item, true, cuts);
    get_box(cuts, work->grid->rank, index, tile);
}

nf_tile_kind nf_work_classify(const nf_work *work, const nf_work_item *item, const nf_box *rows, const nf_box *columns)
{
    nf_tile_kind kind = NF_TILE_FULL;
    for (int32_t a = 0; a < work->grid->rank; a++) {
        const nf_tile_kind axis =
            classify_axis(&item->axis_class[a], work->spec.rows, rows->axis[a], columns->axis[a]);
        if (axis == NF_TILE_ABSENT)
            return NF_TILE_ABSENT;
        if (axis == NF_TILE_PARTIAL)
            kind = NF_TILE_PARTIAL;
    }
    return kind;
}
