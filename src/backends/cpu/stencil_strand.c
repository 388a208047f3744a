/* The strands of a stencil item: their rows in lanes, and where rows and columns lie in a tensor. */
#include "backends/cpu/stencil.h"

/* What a row of a strand sees, in columns of the item's lines. Rows that are not the item's own see its own keys only. */
static nf_interval strand_sees(const cpu_stencil_item *item, const cpu_stencil_strand *strand, int32_t row)
{
    const int32_t last = item->walk->work.grid->rank - 1;
    const bool foreign = item->strand_count == 1 && !nf_interval_holds(item->own_rows[last], row);
    const nf_interval within = foreign ? item->own_columns[last] : strand->segment.hull;
    const nf_interval seen = nf_class_sees(&strand->axis_class, NF_ROWS_QUERIES, row);
    const int32_t begin = nf_min32(nf_max32(seen.begin, within.begin), within.end);
    const int32_t end = nf_max32(nf_min32(seen.end, within.end), begin), shift = strand->first - strand->segment.hull.begin;
    return (nf_interval){begin + shift, end + shift};
}

/* Starts a lane block at a row of a strand. */
static cpu_lanes *start_lanes(cpu_stencil_item *item, int32_t strand, int32_t row)
{
    cpu_lanes *lanes = &item->lanes[item->lane_blocks];
    item->lane_rows[item->lane_blocks] = row;
    item->lane_strands[item->lane_blocks++] = strand;
    lanes->count = lanes->slots = 0;
    return lanes;
}

static void add_lane(cpu_lanes *lanes, nf_interval seen)
{
    lanes->begin[lanes->count] = seen.begin;
    lanes->size[lanes->count++] = nf_interval_size(seen);
    lanes->slots = nf_max32(lanes->slots, nf_interval_size(seen));
}

/* Describes a lane block all of whose lanes are known. */
static void finish_lanes(cpu_lanes *lanes, int64_t width)
{
    const int32_t count = lanes->count;
    lanes->near = false;
    lanes->partial = count < width;
    for (int32_t l = 0; l < count; l++) {
        lanes->near |= lanes->begin[l] != lanes->begin[0] + l;
        lanes->partial |= lanes->size[l] != lanes->slots;
    }
    for (int32_t l = count; l < width; l++) {
        lanes->begin[l] = lanes->near ? lanes->begin[count - 1] : lanes->begin[0] + l;
        lanes->size[l] = 0;
    }
    for (int32_t j = 0; lanes->partial && j < lanes->slots; j++) {
        lanes->bits[j] = 0;
        for (int32_t l = 0; l < count; l++)
            lanes->bits[j] |= (uint32_t)(lanes->size[l] > j) << l;
    }
}

/* Whether the rest of a block takes a whole strand. Backward sums block by block: it must not cut a strand's rows elsewhere
 * because of what lies beside it, or results of one head would depend on the others. */
static bool takes_strand(const cpu_stencil_item *item, const cpu_lanes *lanes, const cpu_stencil_strand *strand, int64_t width)
{
    const nf_interval rows = strand->segment.rows;
    return lanes->count + nf_interval_size(rows) <= width
           && strand_sees(item, strand, rows.end - 1).begin - lanes->begin[0] < 2 * width;
}

/* Lays out the rows of all strands, in order. A block ends early where the next row's columns are out of its reach, where own
 * rows meet others, and in backward where a strand would not go whole into the rest of it. */
static void lay_lanes(cpu_stencil_item *item, int64_t width)
{
    const int32_t last = item->walk->work.grid->rank - 1;
    const nf_interval own = item->own_rows[last];
    const bool backward = item->walk->shares[last] != NULL;
    cpu_lanes *lanes = NULL;
    item->lane_blocks = 0;
    for (int32_t i = 0; i < item->strand_count; i++) {
        const nf_interval rows = item->strands[i].segment.rows;
        if (backward && lanes && nf_interval_size(rows) && !takes_strand(item, lanes, &item->strands[i], width))
            lanes = NULL;
        for (int32_t x = rows.begin; x < rows.end; x++) {
            const nf_interval seen = strand_sees(item, &item->strands[i], x);
            const bool turn = item->strand_count == 1 && (x == own.begin || x == own.end);
            if (!lanes || turn || lanes->count == width || seen.begin - lanes->begin[0] >= 2 * width)
                lanes = start_lanes(item, i, x);
            add_lane(lanes, seen);
        }
    }
    for (int64_t b = 0; b < item->lane_blocks; b++)
        finish_lanes(&item->lanes[b], width);
}

/* The strands from number `first` on: segments of the last axis, for all heads and batches; where items have several,
 * those of all heads before the next segment, as heads mostly lie side by side in memory. */
static void take_strands(cpu_stencil_item *item, const nf_problem *problem, int64_t first)
{
    const nf_work *work = &item->walk->work;
    const int32_t last = work->grid->rank - 1;
    const int64_t segments = work->segment_count[last], heads = problem->kv_heads;
    const int64_t all = problem->batch * heads * segments;
    const bool folded = item->walk->strands > 1;
    item->strand_count = nf_min64(item->walk->strands, all - first);
    item->columns = 0;
    for (int64_t i = 0; i < item->strand_count; i++) {
        const int64_t n = first + i;
        const nf_segment segment = work->segments[last][(folded ? n / heads : n) % segments];
        item->strands[i] = (cpu_stencil_strand){
            .batch = n / (heads * segments),
            .kv_head = (folded ? n : n / segments) % heads,
            .axis_class = nf_axis_table_class(&work->grid->axis[last], segment.class_index),
            .segment = segment,
            .first = (int32_t)item->columns,
        };
        item->columns += nf_interval_size(segment.hull);
    }
    item->batch = item->strands[0].batch;
    item->kv_head = item->strands[0].kv_head;
}

/* Decodes the place of an item, a number over the segments of all axes, and its share there. */
static void take_place(cpu_stencil_item *item, int64_t index)
{
    const cpu_stencil_walk *walk = item->walk;
    nf_work_get_item(&walk->work, index, &item->item);
    for (int32_t a = walk->work.grid->rank - 1; a >= 0; a--) {
        const int64_t segment = index % walk->work.segment_count[a];
        index /= walk->work.segment_count[a];
        item->own_rows[a] = walk->shares[a] ? walk->shares[a][segment].rows : item->item.segment[a].rows;
        item->own_columns[a] = walk->shares[a] ? walk->shares[a][segment].columns : item->item.segment[a].hull;
    }
}

void cpu_stencil_open(cpu_stencil_item *item, const cpu_stencil_walk *walk, const nf_problem *problem, int64_t lanes,
                      int64_t index)
{
    const nf_work *work = &walk->work;
    const int64_t segments = work->segment_count[work->grid->rank - 1], places = work->items / segments;
    int64_t strand = index / places * walk->strands, place = index % places;
    if (walk->strands == 1) { /* neighbors on the last axis follow each other */
        strand = index / work->items * segments + index % segments;
        place = index % work->items / segments;
    }
    take_place(item, place * segments + strand % segments);
    take_strands(item, problem, strand);
    item->packed_end = walk->line_axis < 0 ? 0 : item->item.segment[walk->line_axis].hull.begin;
    lay_lanes(item, lanes);
}

static int64_t last_offset(const cpu_stencil_strand *strand, const cpu_view *view, int32_t last, int32_t at, bool columns)
{
    return view->axis[last] * (columns ? nf_class_column_index(&strand->axis_class, NF_ROWS_QUERIES, at)
                                       : nf_class_row_index(&strand->axis_class, NF_ROWS_QUERIES, at));
}

char *cpu_stencil_base(const cpu_stencil_item *item, const cpu_view *view, const nf_box *box, bool columns)
{
    int64_t offset = 0;
    for (int32_t a = 0; a < item->walk->work.grid->rank - 1; a++) {
        const nf_axis_class *c = &item->item.axis_class[a];
        const int32_t at = box->axis[a].begin;
        offset += view->axis[a] * (columns ? nf_class_column_index(c, NF_ROWS_QUERIES, at)
                                           : nf_class_row_index(c, NF_ROWS_QUERIES, at));
    }
    return view->data + offset * view->element;
}

/* Offsets of one head at `count` positions of a strand from `at` on. */
static void list_offsets(const cpu_stencil_item *item, const cpu_stencil_strand *strand, const cpu_view *view, int64_t head,
                         int32_t at, int32_t count, bool columns, int64_t *offsets)
{
    const int32_t last = item->walk->work.grid->rank - 1;
    const int64_t first = strand->batch * view->batch + head * view->head + last_offset(strand, view, last, at, columns);
    const int64_t step = strand->axis_class.step * view->axis[last];
    for (int32_t i = 0; i < count; i++)
        offsets[i] = (first + i * step) * view->element;
}

void cpu_stencil_column_offsets(const cpu_stencil_item *item, const cpu_view *view, int64_t *offsets)
{
    for (int64_t i = 0; i < item->strand_count; i++) {
        const cpu_stencil_strand *s = &item->strands[i];
        const int32_t count = nf_interval_size(s->segment.hull);
        list_offsets(item, s, view, s->kv_head, s->segment.hull.begin, count, true, offsets);
        offsets += count;
    }
}

void cpu_stencil_lane_offsets(const cpu_stencil_item *item, const cpu_view *view, int64_t group, int64_t b,
                              int64_t *offsets)
{
    const cpu_stencil_strand *s = &item->strands[item->lane_strands[b]];
    int32_t row = item->lane_rows[b], left = item->lanes[b].count;
    while (left > 0) {
        const int32_t count = nf_min32(left, s->segment.rows.end - row);
        list_offsets(item, s, view, s->kv_head * group, row, count, false, offsets);
        offsets += count;
        left -= count;
        if (left > 0)
            row = (++s)->segment.rows.begin;
    }
}

cpu_run cpu_stencil_run(const cpu_stencil_item *item, const cpu_stencil_strand *strand, const cpu_view *view,
                        const nf_box *box, int64_t head, bool columns)
{
    const int32_t last = item->walk->work.grid->rank - 1;
    const int64_t offset = strand->batch * view->batch + head * view->head
                           + last_offset(strand, view, last, box->axis[last].begin, columns);
    return (cpu_run){.base = cpu_stencil_base(item, view, box, columns) + offset * view->element,
                     .step = strand->axis_class.step * view->axis[last] * view->element,
                     .count = nf_interval_size(box->axis[last])};
}
