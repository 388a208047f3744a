/* The geometry of a stencil item: lines from the tables of all axes but the last, and the ring. */
#include "backends/cpu/stencil.h"

static const double STREAM_BYTES = 512 << 10; /* stores of more wait for lines that are in no near cache */

void cpu_stencil_take_item(cpu_arena *arena, const cpu_stencil_walk *walk, cpu_stencil_item *item)
{
    item->walk = walk;
    item->lanes = cpu_take(arena, walk->lane_blocks * (int64_t)sizeof *item->lanes);
    item->lane_rows = cpu_take(arena, walk->lane_blocks * (int64_t)sizeof *item->lane_rows);
    item->lane_strands = cpu_take(arena, walk->lane_blocks * (int64_t)sizeof *item->lane_strands);
    item->strands = cpu_take(arena, walk->strands * (int64_t)sizeof *item->strands);
    for (int64_t b = 0; b < walk->lane_blocks; b++) {
        uint32_t *bits = cpu_take(arena, walk->slots * (int64_t)sizeof *bits);
        if (item->lanes)
            item->lanes[b].bits = bits;
    }
    item->lines = cpu_take(arena, walk->planes * walk->ring * (int64_t)sizeof *item->lines);
}

void cpu_stencil_take_ring(cpu_arena *arena, const cpu_stencil_walk *walk, int64_t real, cpu_stencil_ring *ring)
{
    const int64_t lines = walk->planes * walk->ring;
    for (int i = 0; i < 2; i++) {
        ring->transposed[i] = cpu_take(arena, lines * ring->depth[i] * walk->line_stride * real);
        ring->sums[i] = cpu_take(arena, lines * walk->columns * ring->sum_width[i] * real);
    }
    ring->straight = cpu_take(arena, lines * walk->columns * ring->width * real);
}

/* What a row sees of the columns of an item, counted from the first of them on the last axis. */
static nf_interval sees_on(const cpu_stencil_item *item, int32_t axis, int32_t row)
{
    const nf_interval hull = item->item.segment[axis].hull;
    const nf_interval seen = nf_class_sees(&item->item.axis_class[axis], NF_ROWS_QUERIES, row);
    const int32_t begin = nf_min32(nf_max32(seen.begin, hull.begin), hull.end);
    return (nf_interval){begin, nf_max32(nf_min32(seen.end, hull.end), begin)};
}

int32_t cpu_stencil_block_end(nf_interval rows, nf_interval own, int32_t at, int32_t size)
{
    const int32_t stop = at < own.begin ? own.begin - (own.begin - at - 1) / size * size : at < own.end ? own.end : rows.end;
    return nf_min32(at + size, stop);
}

bool cpu_stencil_owns_rows(const cpu_stencil_item *item, const nf_box *outer, int32_t row)
{
    const int32_t line_axis = item->walk->line_axis;
    bool own = line_axis < 0 || nf_interval_holds(item->own_rows[line_axis], row);
    for (int32_t a = 0; a < line_axis; a++)
        own &= nf_interval_holds(item->own_rows[a], outer->axis[a].begin);
    return own;
}

nf_interval cpu_stencil_line_rows(const cpu_stencil_item *item)
{
    const int32_t axis = item->walk->line_axis;
    return axis < 0 ? (nf_interval){0, 1} : item->item.segment[axis].rows;
}

nf_interval cpu_stencil_own_line_rows(const cpu_stencil_item *item)
{
    const int32_t axis = item->walk->line_axis;
    return axis < 0 ? (nf_interval){0, 1} : item->own_rows[axis];
}

nf_interval cpu_stencil_lines(const cpu_stencil_item *item)
{
    const int32_t axis = item->walk->line_axis;
    return axis < 0 ? (nf_interval){0, 1} : item->item.segment[axis].hull;
}

nf_interval cpu_stencil_line_sees(const cpu_stencil_item *item, int32_t row)
{
    const int32_t axis = item->walk->line_axis;
    return axis < 0 ? (nf_interval){0, 1} : sees_on(item, axis, row);
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
static int64_t slot_of(const cpu_stencil_walk *walk, int64_t plane, int32_t line)
{
    return plane * walk->ring + line % walk->ring;
}

/* Field by field: a struct that is put together elsewhere and copied waits for all stores of packing before it. */
static void fill_line(cpu_line *line, const cpu_stencil_walk *walk, const cpu_stencil_ring *ring, const cpu_kernels *k,
                      int64_t slot, nf_interval rows, bool own)
{
    line->first = rows.begin;
    line->end = rows.end;
    line->mates = false;
    line->straight = cpu_at(k, ring->straight, slot * walk->columns * ring->width);
    for (int i = 0; i < 2; i++) {
        line->transposed[i] = cpu_at(k, ring->transposed[i], slot * ring->depth[i] * walk->line_stride);
        line->sums[i] = NULL;
        if (own && ring->sum_width[i])
            line->sums[i] = cpu_at(k, ring->sums[i], slot * walk->columns * ring->sum_width[i]);
    }
}

/* Which rows of a block, that see `seen`, see a line: intervals never decrease, so they are neighbors. */
static nf_interval rows_seeing(const nf_interval *seen, int32_t count, int32_t line)
{
    nf_interval rows = {0, 0};
    for (int32_t r = 0; r < count; r++) {
        if (!nf_interval_holds(seen[r], line))
            continue;
        if (rows.end == 0)
            rows.begin = r;
        rows.end = r + 1;
    }
    return rows;
}

/* Of the lines `within`: those that rows first .. end - 1 of a whole block see, and no others. */
static nf_interval lines_seen_by(const nf_interval *seen, int32_t first, int32_t end, nf_interval within)
{
    nf_interval lines = {nf_max32(within.begin, seen[end - 1].begin), nf_min32(within.end, seen[first].end)};
    if (first > 0)
        lines.begin = nf_max32(lines.begin, seen[first - 1].end);
    if (end < CPU_STENCIL_ROWS)
        lines.end = nf_min32(lines.end, seen[end].begin);
    lines.end = nf_max32(lines.begin, lines.end);
    return lines;
}

/* The mate of a line that the rows up to `split` of a whole block see, or, given one that the others see, the line whose mate
 * it is: each has as many of its kind before it. -1: there is none. */
static int32_t mate_of(const nf_interval *seen, int32_t split, nf_interval within, int32_t line, bool others)
{
    const nf_interval above = lines_seen_by(seen, 0, split, within);
    const nf_interval below = lines_seen_by(seen, split, CPU_STENCIL_ROWS, within);
    const int32_t mate = others ? above.begin + line - below.begin : below.begin + line - above.begin;
    return nf_interval_holds(others ? above : below, mate) ? mate : -1;
}

/* The lines of one plane, each followed by its mate. */
static void list_plane(cpu_stencil_item *item, const cpu_stencil_ring *ring, const cpu_kernels *k, int64_t plane,
                       bool own_plane, int32_t first, int32_t end, bool own)
{
    const cpu_stencil_walk *walk = item->walk;
    const bool whole = end - first == CPU_STENCIL_ROWS;
    nf_interval seen[CPU_STENCIL_ROWS] = {{0, 0}}, within = cpu_stencil_lines(item);
    if (own && !own_plane)
        return;
    for (int32_t r = first; r < end; r++)
        seen[r - first] = cpu_stencil_line_sees(item, r);
    if (own && walk->line_axis >= 0)
        within = item->own_columns[walk->line_axis];
    const int32_t stop = nf_min32(within.end, seen[end - 1 - first].end);
    for (int32_t line = nf_max32(within.begin, seen[0].begin); line < stop; line++) {
        const nf_interval rows = rows_seeing(seen, end - first, line);
        if (rows.end == 0 || (whole && rows.begin > 0 && rows.end == CPU_STENCIL_ROWS
                              && mate_of(seen, rows.begin, within, line, true) >= 0))
            continue;
        const bool pairs = whole && rows.begin == 0 && rows.end < CPU_STENCIL_ROWS;
        const int32_t mate = pairs ? mate_of(seen, rows.end, within, line, false) : -1;
        const int32_t both[2] = {line, mate};
        for (int i = 0; i < (mate < 0 ? 1 : 2); i++) {
            const bool own_line =
                own_plane && (walk->line_axis < 0 || nf_interval_holds(item->own_columns[walk->line_axis], both[i]));
            const nf_interval by = i == 0 ? rows : (nf_interval){rows.end, CPU_STENCIL_ROWS};
            fill_line(&item->lines[item->line_count++], walk, ring, k, slot_of(walk, plane, both[i]), by, own_line);
        }
        item->lines[item->line_count - 1 - (mate >= 0)].mates = mate >= 0;
    }
}

void cpu_stencil_list_lines(cpu_stencil_item *item, const cpu_stencil_ring *ring, const cpu_kernels *k,
                            const nf_box *outer, int32_t first, int32_t end, bool own)
{
    const cpu_stencil_walk *walk = item->walk;
    nf_interval seen[NF_MAX_RANK];
    int32_t at[NF_MAX_RANK];
    item->line_count = 0;
    if (item->columns == 0)
        return;
    for (int32_t a = 0; a < walk->line_axis; a++) {
        seen[a] = sees_on(item, a, outer->axis[a].begin);
        if (nf_interval_size(seen[a]) == 0)
            return;
        at[a] = seen[a].begin;
    }
    for (;;) {
        int64_t plane = 0;
        bool own_plane = true;
        for (int32_t a = 0; a < walk->line_axis; a++) {
            const nf_interval hull = item->item.segment[a].hull;
            plane = plane * nf_interval_size(hull) + at[a] - hull.begin;
            own_plane &= nf_interval_holds(item->own_columns[a], at[a]);
        }
        list_plane(item, ring, k, plane, own_plane, first, end, own);
        int32_t a = walk->line_axis - 1;
        while (a >= 0 && ++at[a] == seen[a].end) {
            at[a] = seen[a].begin;
            a--;
        }
        if (a < 0)
            return;
    }
}

nf_interval cpu_stencil_new_lines(const cpu_stencil_item *item, int32_t end)
{
    return (nf_interval){item->packed_end, nf_max32(item->packed_end, cpu_stencil_line_sees(item, end - 1).end)};
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

void cpu_stencil_advance(cpu_stencil_item *item, int32_t end, cpu_stencil_pack *pack, void *context)
{
    const cpu_stencil_walk *walk = item->walk;
    const int32_t last = walk->work.grid->rank - 1;
    const int64_t planes = cpu_stencil_plane_count(item);
    nf_box line;
    line.axis[last] = item->item.segment[last].hull;
    for (int64_t plane = 0; item->columns && plane < planes; plane++) {
        cpu_stencil_plane(item, plane, &line);
        for (int32_t y = item->packed_end; y < end; y++) {
            if (walk->line_axis >= 0)
                line.axis[walk->line_axis] = (nf_interval){y, y + 1};
            pack(context, &line, slot_of(walk, plane, y));
        }
    }
    item->packed_end = nf_max32(item->packed_end, end);
}

void cpu_stencil_pack_line(const cpu_stencil_item *item, const cpu_stencil_ring *ring, const cpu_kernels *k,
                           const nf_box *line, int64_t slot, const cpu_view *view, const int64_t *at, int transposed,
                           bool straight, int64_t n, void *converted, const void **rows)
{
    const cpu_stencil_walk *walk = item->walk;
    const bool in_place = view->dim == 1 && view->element == k->real_size;
    const char *base = cpu_stencil_base(item, view, line, true);
    for (int64_t x = 0; x < item->columns; x += CPU_MAX_COLUMNS) {
        const int64_t count = nf_min64(item->columns - x, CPU_MAX_COLUMNS);
        const int64_t width = straight ? ring->width : (n + k->lanes - 1) / k->lanes * k->lanes;
        void *to = straight ? cpu_at(k, ring->straight, (slot * walk->columns + x) * width) : converted;
        for (int64_t i = 0; i < count; i++)
            rows[i] = base + at[x + i];
        if (straight && in_place && transposed >= 0) {
            k->copy_line(cpu_at(k, ring->transposed[transposed], slot * ring->depth[transposed] * walk->line_stride + x),
                         walk->line_stride, to, width, rows, count, n);
            continue;
        }
        if (straight || !in_place) {
            k->load_rows(to, width, rows, view->dtype, view->dim, count, n);
            for (int64_t i = 0; i < count; i++)
                rows[i] = cpu_at(k, to, i * width);
        }
        if (transposed >= 0)
            k->pack_line(cpu_at(k, ring->transposed[transposed], slot * ring->depth[transposed] * walk->line_stride + x),
                         walk->line_stride, rows, count, n);
    }
}

bool cpu_stencil_direct(const cpu_stencil_plan *plan, const cpu_view *view, int64_t n)
{
    return view->dim == 1 && view->element == plan->kernels->real_size && n % plan->kernels->lanes == 0;
}

bool cpu_stencil_streams(const cpu_stencil_plan *plan, const cpu_view *view, const nf_tensor *tensor)
{
    const int64_t vector = plan->kernels->lanes * plan->kernels->real_size;
    bool aligned = (uintptr_t)view->data % (uintptr_t)vector == 0 && view->batch * view->element % vector == 0
                   && view->head * view->element % vector == 0;
    double bytes = (double)view->element;
    for (int32_t a = 0; a < plan->request->problem->rank; a++)
        aligned &= view->axis[a] * view->element % vector == 0;
    for (int32_t i = 0; i < tensor->rank; i++)
        bytes *= (double)tensor->extents[i];
    return aligned && bytes > STREAM_BYTES;
}
