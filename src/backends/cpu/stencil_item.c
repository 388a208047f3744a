/* The geometry of a stencil item: lanes from the tables of the last axis, lines from those of the others, and the ring. */
#include <string.h>

#include "backends/cpu/stencil.h"

void cpu_stencil_take_item(cpu_arena *arena, const cpu_stencil_walk *walk, cpu_stencil_item *item)
{
    item->walk = walk;
    item->lanes = cpu_take(arena, walk->lane_blocks * (int64_t)sizeof *item->lanes);
    for (int64_t b = 0; b < walk->lane_blocks; b++) {
        uint32_t *bits = cpu_take(arena, walk->slots * (int64_t)sizeof *bits);
        if (item->lanes)
            item->lanes[b].bits = bits;
    }
    item->lines = cpu_take(arena, walk->planes * walk->ring * (int64_t)sizeof *item->lines);
}

void cpu_stencil_take_ring(cpu_arena *arena, const cpu_stencil_walk *walk, int64_t real, cpu_stencil_ring *ring)
{
    const int64_t lines = walk->heads * walk->planes * walk->ring;
    for (int i = 0; i < 2; i++) {
        ring->transposed[i] = cpu_take(arena, lines * ring->depth[i] * walk->line_stride * real);
        ring->straight[i] = cpu_take(arena, lines * walk->columns * ring->width[i] * real);
    }
    ring->lse = cpu_take(arena, lines * walk->line_stride * real);
    ring->delta = cpu_take(arena, lines * walk->line_stride * real);
}

static void lay_lanes(const cpu_stencil_item *item, cpu_lanes *lanes, int32_t first, int32_t count, int64_t width)
{
    const int32_t last_axis = item->walk->work.grid->rank - 1;
    const nf_axis_class *c = &item->item.axis_class[last_axis];
    const nf_interval hull = item->item.segment[last_axis].hull;
    const nf_side side = item->walk->work.spec.rows;
    lanes->count = count;
    lanes->slots = 0;
    lanes->near = false;
    for (int32_t l = 0; l < count; l++) {
        const nf_interval seen = nf_class_sees(c, side, first + l);
        lanes->begin[l] = nf_min32(nf_max32(seen.begin, hull.begin), hull.end) - hull.begin;
        lanes->size[l] = nf_interval_size(seen);
        lanes->slots = nf_max32(lanes->slots, lanes->size[l]);
        lanes->near |= lanes->begin[l] != lanes->begin[0] + l;
    }
    lanes->partial = count < width;
    for (int32_t l = 0; l < count; l++)
        lanes->partial |= lanes->size[l] != lanes->slots;
    for (int32_t l = count; l < width; l++) {
        lanes->begin[l] = lanes->near ? lanes->begin[count - 1] : lanes->begin[0] + l;
        lanes->size[l] = 0;
    }
    for (int32_t j = 0; j < lanes->slots; j++) {
        lanes->bits[j] = 0;
        for (int32_t l = 0; l < count; l++)
            lanes->bits[j] |= (uint32_t)(lanes->size[l] > j) << l;
    }
}

void cpu_stencil_open(cpu_stencil_item *item, const cpu_stencil_walk *walk, const nf_problem *problem, int64_t lanes,
                      int64_t index)
{
    const int64_t stream = index / walk->work.items;
    nf_work_get_item(&walk->work, index % walk->work.items, &item->item);
    item->batch = stream / problem->kv_heads;
    item->kv_head = stream % problem->kv_heads;
    item->packed_end = INT32_MIN;
    const nf_interval rows = item->item.segment[walk->work.grid->rank - 1].rows;
    item->lane_blocks = 0;
    for (int32_t x = rows.begin; x < rows.end; x += (int32_t)lanes)
        lay_lanes(item, &item->lanes[item->lane_blocks++], x, nf_min32((int32_t)lanes, rows.end - x), lanes);
}

nf_interval cpu_stencil_line_rows(const cpu_stencil_item *item)
{
    const int32_t axis = item->walk->line_axis;
    return axis < 0 ? (nf_interval){0, 1} : item->item.segment[axis].rows;
}

nf_interval cpu_stencil_line_sees(const cpu_stencil_item *item, int32_t row)
{
    const int32_t axis = item->walk->line_axis;
    return axis < 0 ? (nf_interval){0, 1}
                    : nf_class_sees(&item->item.axis_class[axis], item->walk->work.spec.rows, row);
}

int64_t cpu_stencil_outer_count(const cpu_stencil_item *item)
{
    int64_t count = 1;
    for (int32_t a = 0; a < item->walk->line_axis; a++)
        count *= nf_interval_size(item->item.segment[a].rows);
    return count;
}

void cpu_stencil_outer(const cpu_stencil_item *item, int64_t index, nf_box *box)
{
    for (int32_t a = item->walk->line_axis - 1; a >= 0; a--) {
        const nf_interval rows = item->item.segment[a].rows;
        const int32_t at = rows.begin + (int32_t)(index % nf_interval_size(rows));
        box->axis[a] = (nf_interval){at, at + 1};
        index /= nf_interval_size(rows);
    }
}

/* Slot of a line in a ring of `ring` lines per plane. */
static int64_t slot_of(const cpu_stencil_walk *walk, int64_t head, int64_t plane, int32_t line)
{
    return (head * walk->planes + plane) * walk->ring + line % walk->ring;
}

static cpu_line line_at(const cpu_stencil_walk *walk, const cpu_stencil_ring *ring, const cpu_kernels *k, int64_t slot,
                        int32_t first, int32_t end)
{
    cpu_line line = {.first = first, .end = end};
    for (int i = 0; i < 2; i++) {
        line.transposed[i] = cpu_at(k, ring->transposed[i], slot * ring->depth[i] * walk->line_stride);
        line.straight[i] = cpu_at(k, ring->straight[i], slot * walk->columns * ring->width[i]);
    }
    line.lse = cpu_at(k, ring->lse, slot * walk->line_stride);
    line.delta = cpu_at(k, ring->delta, slot * walk->line_stride);
    return line;
}

/* Which rows of a block see a line: intervals never decrease, so they are neighbors. */
static nf_interval rows_seeing(const cpu_stencil_item *item, int32_t first, int32_t end, int32_t line)
{
    nf_interval rows = {0, 0};
    for (int32_t r = first; r < end; r++) {
        const nf_interval seen = cpu_stencil_line_sees(item, r);
        if (seen.begin <= line && line < seen.end) {
            if (rows.end == 0)
                rows.begin = r - first;
            rows.end = r - first + 1;
        }
    }
    return rows;
}

void cpu_stencil_list_lines(cpu_stencil_item *item, const cpu_stencil_ring *ring, const cpu_kernels *k,
                            const nf_box *outer, int32_t first, int32_t end, int64_t head)
{
    const cpu_stencil_walk *walk = item->walk;
    nf_interval seen[NF_MAX_RANK];
    int32_t at[NF_MAX_RANK];
    item->line_count = 0;
    if (item->item.segment[walk->work.grid->rank - 1].hull.end == item->item.segment[walk->work.grid->rank - 1].hull.begin)
        return;
    for (int32_t a = 0; a < walk->line_axis; a++) {
        seen[a] = nf_class_sees(&item->item.axis_class[a], walk->work.spec.rows, outer->axis[a].begin);
        if (nf_interval_size(seen[a]) == 0)
            return;
        at[a] = seen[a].begin;
    }
    const int32_t begin = cpu_stencil_line_sees(item, first).begin, stop = cpu_stencil_line_sees(item, end - 1).end;
    for (;;) {
        int64_t plane = 0;
        for (int32_t a = 0; a < walk->line_axis; a++) {
            const nf_interval hull = item->item.segment[a].hull;
            plane = plane * nf_interval_size(hull) + at[a] - hull.begin;
        }
        for (int32_t line = begin; line < stop; line++) {
            const nf_interval rows = rows_seeing(item, first, end, line);
            if (rows.end)
                item->lines[item->line_count++] =
                    line_at(walk, ring, k, slot_of(walk, head, plane, line), rows.begin, rows.end);
        }
        int32_t a = walk->line_axis - 1;
        while (a >= 0 && ++at[a] == seen[a].end) {
            at[a] = seen[a].begin;
            a--;
        }
        if (a < 0)
            return;
    }
}

nf_interval cpu_stencil_new_lines(const cpu_stencil_item *item, int32_t first, int32_t end)
{
    const int32_t begin = nf_max32(cpu_stencil_line_sees(item, first).begin, item->packed_end);
    const nf_interval hull = item->item.segment[item->walk->work.grid->rank - 1].hull;
    const int32_t stop = nf_interval_size(hull) == 0 ? begin : cpu_stencil_line_sees(item, end - 1).end;
    return (nf_interval){begin, nf_max32(begin, stop)};
}

int64_t cpu_stencil_plane_count(const cpu_stencil_item *item)
{
    int64_t planes = 1;
    for (int32_t a = 0; a < item->walk->line_axis; a++)
        planes *= nf_interval_size(item->item.segment[a].hull);
    return planes;
}

void cpu_stencil_plane(const cpu_stencil_item *item, int64_t plane, nf_box *line)
{
    for (int32_t a = item->walk->line_axis - 1; a >= 0; a--) {
        const nf_interval hull = item->item.segment[a].hull;
        const int32_t at = hull.begin + (int32_t)(plane % nf_interval_size(hull));
        line->axis[a] = (nf_interval){at, at + 1};
        plane /= nf_interval_size(hull);
    }
}

void cpu_stencil_advance(cpu_stencil_item *item, int32_t first, int32_t end, cpu_stencil_pack *pack, void *context)
{
    const cpu_stencil_walk *walk = item->walk;
    const int32_t last = walk->work.grid->rank - 1;
    const int64_t planes = cpu_stencil_plane_count(item);
    const nf_interval fresh = cpu_stencil_new_lines(item, first, end);
    nf_box line;
    line.axis[last] = item->item.segment[last].hull;
    for (int64_t head = 0; head < walk->heads; head++)
        for (int64_t plane = 0; plane < planes; plane++) {
            cpu_stencil_plane(item, plane, &line);
            for (int32_t y = fresh.begin; y < fresh.end; y++) {
                if (walk->line_axis >= 0)
                    line.axis[walk->line_axis] = (nf_interval){y, y + 1};
                pack(context, &line, head, slot_of(walk, head, plane, y));
            }
        }
    item->packed_end = fresh.end;
}

/* The positions of a box with one place on every axis but the last. */
static cpu_run run_of(const cpu_stencil_item *item, const cpu_view *view, const nf_box *box, int64_t head, bool columns)
{
    const nf_side side = item->walk->work.spec.rows;
    const int32_t last = item->walk->work.grid->rank - 1;
    int64_t offset = item->batch * view->batch + head * view->head;
    for (int32_t a = 0; a <= last; a++) {
        const nf_axis_class *c = &item->item.axis_class[a];
        const int32_t at = box->axis[a].begin;
        offset += view->axis[a] * (columns ? nf_class_column_index(c, side, at) : nf_class_row_index(c, side, at));
    }
    return (cpu_run){.base = view->data + offset * view->element,
                     .step = item->item.axis_class[last].step * view->axis[last] * view->element,
                     .count = nf_interval_size(box->axis[last])};
}

cpu_run cpu_stencil_columns(const cpu_stencil_item *item, const cpu_view *view, const nf_box *line, int64_t head)
{
    return run_of(item, view, line, head, true);
}

cpu_run cpu_stencil_rows(const cpu_stencil_item *item, const cpu_view *view, const nf_box *outer, int32_t row, int64_t b,
                         int64_t lanes, int64_t head)
{
    nf_box box;
    (void)cpu_stencil_span(item, outer, row, b, lanes, &box);
    return run_of(item, view, &box, head, false);
}

void cpu_stencil_pack_line(const cpu_stencil_item *item, const cpu_stencil_ring *ring, const cpu_kernels *k,
                           const nf_box *line, int64_t slot, const cpu_view *view, int64_t head, int transposed,
                           int straight, int64_t n, void *converted, const void **rows)
{
    const cpu_stencil_walk *walk = item->walk;
    const bool in_place = view->dim == 1 && view->element == k->real_size;
    const int64_t width = (n + k->lanes - 1) / k->lanes * k->lanes;
    const cpu_run run = cpu_stencil_columns(item, view, line, head);
    for (int64_t x = 0; x < run.count; x += CPU_MAX_COLUMNS) {
        const int64_t count = nf_min64(run.count - x, CPU_MAX_COLUMNS);
        for (int64_t i = 0; i < count; i++)
            rows[i] = run.base + (x + i) * run.step;
        if (straight >= 0)
            k->load_rows(cpu_at(k, ring->straight[straight], (slot * walk->columns + x) * ring->width[straight]),
                         ring->width[straight], rows, view->dtype, view->dim, count, n);
        if (transposed < 0)
            continue;
        if (!in_place) {
            k->load_rows(converted, width, rows, view->dtype, view->dim, count, n);
            for (int64_t i = 0; i < count; i++)
                rows[i] = cpu_at(k, converted, i * width);
        }
        k->pack_line(cpu_at(k, ring->transposed[transposed], slot * ring->depth[transposed] * walk->line_stride + x),
                     walk->line_stride, rows, count, n);
    }
}

cpu_span cpu_stencil_span(const cpu_stencil_item *item, const nf_box *outer, int32_t row, int64_t b, int64_t lanes,
                          nf_box *box)
{
    const cpu_stencil_walk *walk = item->walk;
    const int32_t last = walk->work.grid->rank - 1;
    *box = *outer;
    if (walk->line_axis >= 0)
        box->axis[walk->line_axis] = (nf_interval){row, row + 1};
    const int32_t x = item->item.segment[last].rows.begin + (int32_t)(b * lanes);
    box->axis[last] = (nf_interval){x, x + item->lanes[b].count};
    return (cpu_span){.count = item->lanes[b].count, .item = &item->item, .box = box, .rows = walk->work.spec.rows,
                      .rank = last + 1};
}
