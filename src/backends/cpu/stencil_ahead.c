/* What a stencil walk fetches while it computes: the lines and rows of the next block row, or of the next item. */
#include "backends/cpu/stencil.h"

static void add_run(cpu_ahead *ahead, cpu_ahead_run *runs, const cpu_view *view, cpu_run run, int64_t n)
{
    if (view->dim == 1 && ahead->runs < CPU_AHEAD_RUNS && run.count > 0)
        runs[ahead->runs++] = (cpu_ahead_run){.base = run.base, .step = run.step, .rows = run.count,
                                              .bytes = n * view->element};
}

/* Share `index` of `blocks` of the lines that the rows up to `end` add to the ring, strand by strand. */
static void add_lines(cpu_ahead *ahead, cpu_ahead_run *runs, const cpu_stencil_item *item, const cpu_stencil_wants *wants,
                      int32_t end, int64_t index, int64_t blocks)
{
    const int32_t last = item->walk->work.grid->rank - 1, line_axis = item->walk->line_axis;
    const nf_interval fresh = cpu_stencil_new_lines(item, end);
    const int64_t lines = nf_interval_size(fresh), columns = item->columns;
    const int64_t total = cpu_stencil_plane_count(item) * lines * columns, stop = total * (index + 1) / blocks;
    const cpu_stencil_strand *strand = item->strands;
    nf_box box;
    for (int64_t at = total * index / blocks; at < stop; at += nf_interval_size(box.axis[last])) {
        const int64_t line = at / columns, x = at % columns;
        strand = x == 0 ? item->strands : strand;
        while (x - strand->first >= nf_interval_size(strand->segment.hull))
            strand++;
        const nf_interval hull = strand->segment.hull;
        const int32_t begin = hull.begin + (int32_t)(x - strand->first);
        cpu_stencil_plane(item, line / lines, &box);
        if (line_axis >= 0)
            box.axis[line_axis].begin = fresh.begin + (int32_t)(line % lines);
        box.axis[last] = (nf_interval){begin, begin + (int32_t)nf_min64(hull.end - begin, stop - at)};
        for (int i = 0; i < 2; i++)
            add_run(ahead, runs, wants->line[i], cpu_stencil_run(item, strand, wants->line[i], &box, strand->kv_head, true),
                    wants->line_dim[i]);
    }
}

/* The rows of lane block b of row `row`, strand by strand. */
static void add_rows(cpu_ahead *ahead, cpu_ahead_run *runs, const cpu_stencil_item *item, const cpu_stencil_wants *wants,
                     const nf_box *outer, int32_t row, int64_t b, int64_t h)
{
    const int32_t last = item->walk->work.grid->rank - 1, line_axis = item->walk->line_axis;
    const cpu_stencil_strand *strand = &item->strands[item->lane_strands[b]];
    int32_t x = item->lane_rows[b], left = item->lanes[b].count;
    nf_box box = *outer;
    if (line_axis >= 0)
        box.axis[line_axis] = (nf_interval){row, row + 1};
    while (left > 0) {
        const int32_t count = nf_min32(left, strand->segment.rows.end - x);
        box.axis[last] = (nf_interval){x, x + count};
        for (int i = 0; i < wants->rows; i++)
            add_run(ahead, runs, wants->row[i],
                    cpu_stencil_run(item, strand, wants->row[i], &box, strand->kv_head * wants->group + h, false),
                    wants->row_dim[i]);
        left -= count;
        if (left > 0)
            x = (++strand)->segment.rows.begin;
    }
}

int64_t cpu_stencil_ahead_steps(const cpu_stencil_item *item, const cpu_kernels *k, int64_t b, int64_t dim)
{
    const int64_t panels = (dim + k->value_panel - 1) / k->value_panel;
    return item->lanes[b].count * panels * ((item->line_count + CPU_FETCH_LINES - 1) / CPU_FETCH_LINES);
}

cpu_ahead cpu_stencil_list_ahead(const cpu_stencil_item *item, const cpu_stencil_item *next, const cpu_stencil_wants *wants,
                                 int32_t end, int64_t index, int64_t blocks, int64_t steps, cpu_ahead_run *runs)
{
    cpu_ahead ahead = {.run = runs};
    int32_t first = end;
    if (first >= cpu_stencil_line_rows(item).end) {
        if (!next)
            return ahead;
        item = next;
        first = cpu_stencil_line_rows(item).begin;
    }
    const nf_interval rows = cpu_stencil_line_rows(item), own = cpu_stencil_own_line_rows(item);
    if (first >= rows.end || item->lane_blocks == 0)
        return ahead;
    const int32_t stop = cpu_stencil_block_end(rows, own, first, (int32_t)item->walk->block_rows);
    const int64_t b = index % item->lane_blocks, h = index / item->lane_blocks % wants->group;
    const int64_t o = index / item->lane_blocks / wants->group;
    add_lines(&ahead, runs, item, wants, stop, index, blocks);
    if (o < cpu_stencil_outer_count(item)) {
        nf_box outer;
        cpu_stencil_outer(item, o, &outer);
        for (int32_t r = first; r < stop; r++)
            add_rows(&ahead, runs, item, wants, &outer, r, b, h);
    }
    steps = nf_max64(steps, 1);
    ahead.rate = (cpu_ahead_lines(&ahead) + steps - 1) / steps;
    return ahead;
}
