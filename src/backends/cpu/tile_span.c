/* From tiles to memory: offsets of a tile's positions, rows in and out of tensors, and the mask bits of partial tiles. */
#include <math.h>
#include <string.h>

#include "backends/cpu/tile.h"

cpu_view cpu_view_of(const nf_tensor *tensor, int32_t rank, bool has_dim)
{
    if (!tensor)
        return (cpu_view){0};
    cpu_view view = {.data = tensor->data, .dtype = tensor->dtype, .batch = tensor->strides[0],
                     .element = (int64_t)nf_dtype_size(tensor->dtype), .head = tensor->strides[1 + rank],
                     .dim = has_dim ? tensor->strides[2 + rank] : 0};
    for (int32_t a = 0; a < rank; a++)
        view.axis[a] = tensor->strides[1 + a];
    return view;
}

cpu_views cpu_views_of(const nf_tensor *const io[NF_ROLES], int32_t rank)
{
    return (cpu_views){
        .q = cpu_view_of(io[NF_Q], rank, true),
        .k = cpu_view_of(io[NF_K], rank, true),
        .v = cpu_view_of(io[NF_V], rank, true),
        .extra_k = cpu_view_of(io[NF_EXTRA_K], 1, true),
        .extra_v = cpu_view_of(io[NF_EXTRA_V], 1, true),
        .out = cpu_view_of(io[NF_OUT], rank, true),
        .lse = cpu_view_of(io[NF_LSE], rank, false),
        .dout = cpu_view_of(io[NF_DOUT], rank, true),
        .dlse = cpu_view_of(io[NF_DLSE], rank, false),
        .dq = cpu_view_of(io[NF_DQ], rank, true),
        .dk = cpu_view_of(io[NF_DK], rank, true),
        .dv = cpu_view_of(io[NF_DV], rank, true),
        .dextra_k = cpu_view_of(io[NF_DEXTRA_K], 1, true),
        .dextra_v = cpu_view_of(io[NF_DEXTRA_V], 1, true),
    };
}

/* Offsets of all positions of a product of lines: position i of axis a lies at start[a] + i * step[a]. */
static void product_offsets(int32_t rank, const int64_t *start, const int64_t *step, const int64_t *count,
                            int64_t *offsets)
{
    int64_t index[NF_MAX_RANK] = {0}, outer = 0, total = 1;
    for (int32_t a = 0; a < rank; a++) {
        outer += start[a];
        total *= count[a];
    }
    const int64_t last = rank - 1, run = count[last];
    for (int64_t done = 0; done < total; done += run) {
        for (int64_t i = 0; i < run; i++)
            offsets[done + i] = outer + i * step[last];
        for (int64_t a = last - 1; a >= 0; a--) {
            outer += step[a];
            if (++index[a] < count[a])
                break;
            outer -= step[a] * count[a];
            index[a] = 0;
        }
    }
}

static void run_offsets(const cpu_span *span, const cpu_view *view, int64_t *offsets)
{
    for (int64_t i = 0; i < span->count; i++) {
        int64_t rest = span->begin + i, offset = 0;
        for (int32_t a = span->rank - 1; a >= 0; a--) {
            offset += rest % span->extents[a] * view->axis[a];
            rest /= span->extents[a];
        }
        offsets[i] = offset;
    }
}

/* The lines whose product a box of an item is. */
static void box_lines(const cpu_span *span, const cpu_view *view, int64_t *start, int64_t *step, int64_t *count)
{
    for (int32_t i = 0; i < span->rank; i++) {
        const int32_t a = cpu_axis_at(span->lead, i);
        const nf_axis_class *c = &span->item->axis_class[a];
        const nf_interval along = span->box->axis[a];
        const int64_t first = span->columns ? nf_class_column_index(c, span->rows, along.begin)
                                            : nf_class_row_index(c, span->rows, along.begin);
        start[i] = first * view->axis[a];
        step[i] = c->step * view->axis[a];
        count[i] = nf_interval_size(along);
    }
}

void cpu_span_offsets(const cpu_span *span, const cpu_view *view, int64_t *offsets)
{
    if (!span->item) {
        run_offsets(span, view, offsets);
        return;
    }
    int64_t start[NF_MAX_RANK] = {0}, step[NF_MAX_RANK] = {0}, count[NF_MAX_RANK] = {1};
    box_lines(span, view, start, step, count);
    product_offsets(span->rank, start, step, count, offsets);
}

static char *element_at(const cpu_view *view, int64_t batch, int64_t head, int64_t offset)
{
    return view->data + (batch * view->batch + head * view->head + offset) * view->element;
}

/* Addresses of a span's rows. */
static void row_pointers(const cpu_span *span, const cpu_view *view, int64_t batch, int64_t head, void **rows)
{
    int64_t offsets[CPU_MAX_COLUMNS];
    char *base = element_at(view, batch, head, 0);
    cpu_span_offsets(span, view, offsets);
    for (int64_t i = 0; i < span->count; i++)
        rows[i] = base + offsets[i] * view->element;
}

void cpu_point_at_rows(const cpu_span *span, const cpu_view *view, int64_t batch, int64_t head, const void **rows)
{
    void *sources[CPU_MAX_COLUMNS];
    row_pointers(span, view, batch, head, sources);
    for (int64_t i = 0; i < span->count; i++)
        rows[i] = sources[i];
}

int64_t cpu_span_runs(const cpu_span *span, const cpu_view *view, int64_t batch, int64_t head, int64_t n,
                      cpu_ahead_run *runs)
{
    if (view->dim != 1)
        return 0;
    int64_t start[NF_MAX_RANK] = {0}, step[NF_MAX_RANK] = {0}, count[NF_MAX_RANK] = {1}, offsets[CPU_MAX_COLUMNS];
    box_lines(span, view, start, step, count);
    const int32_t last = span->rank - 1;
    const int64_t rows = count[last], lines = span->count / rows;
    const char *base = element_at(view, batch, head, 0);
    count[last] = 1;
    product_offsets(span->rank, start, step, count, offsets);
    for (int64_t i = 0; i < lines; i++)
        runs[i] = (cpu_ahead_run){.base = base + offsets[i] * view->element, .step = step[last] * view->element,
                                  .rows = rows, .bytes = n * view->element};
    return lines;
}

void cpu_fetch_rows(const cpu_kernels *k, const cpu_span *span, const cpu_view *view, int64_t batch, int64_t head,
                    int64_t n, int64_t converted_stride, void *converted, const void **rows)
{
    const bool in_place = view->dim == 1 && view->element == k->real_size;
    void *sources[CPU_MAX_COLUMNS];
    row_pointers(span, view, batch, head, sources);
    if (!in_place)
        k->load_rows(converted, converted_stride, (const void *const *)sources, view->dtype, view->dim, span->count, n);
    for (int64_t i = 0; i < span->count; i++)
        rows[i] = in_place ? sources[i] : cpu_at(k, converted, i * converted_stride);
}

void cpu_load_rows(const cpu_kernels *k, const cpu_span *span, const cpu_view *view, int64_t batch, int64_t head,
                   int64_t n, int64_t stride, void *rows)
{
    void *sources[CPU_MAX_COLUMNS];
    row_pointers(span, view, batch, head, sources);
    k->load_rows(rows, stride, (const void *const *)sources, view->dtype, view->dim, span->count, n);
}

void cpu_store_rows_by(const cpu_kernels *k, const cpu_span *span, const cpu_view *view, int64_t batch, int64_t head,
                       int64_t n, int64_t stride, const void *rows, const double *factors)
{
    void *targets[CPU_MAX_COLUMNS];
    row_pointers(span, view, batch, head, targets);
    k->store_rows(targets, view->dtype, view->dim, span->count, n, rows, stride, factors);
}

void cpu_store_rows(const cpu_kernels *k, const cpu_span *span, const cpu_view *view, int64_t batch, int64_t head,
                    int64_t n, int64_t stride, const void *rows, double factor)
{
    double factors[CPU_MAX_COLUMNS];
    for (int64_t i = 0; i < span->count; i++)
        factors[i] = factor;
    cpu_store_rows_by(k, span, view, batch, head, n, stride, rows, factors);
}

void cpu_add_rows(const cpu_kernels *k, const cpu_span *span, const cpu_view *view, int64_t batch, int64_t head,
                  int64_t n, int64_t stride, const void *rows, double factor)
{
    void *targets[CPU_MAX_COLUMNS];
    row_pointers(span, view, batch, head, targets);
    k->add_rows(targets, view->dim, span->count, n, rows, stride, factor);
}

void cpu_store_softmax(const cpu_kernels *k, const cpu_span *span, const cpu_view *out, const cpu_view *lse,
                       int64_t batch, int64_t head, int64_t n, int64_t stride, const void *rows, const void *max,
                       const void *sum)
{
    double factors[CPU_MAX_COLUMNS], logs[CPU_MAX_COLUMNS];
    int64_t offsets[CPU_MAX_COLUMNS];
    for (int64_t i = 0; i < span->count; i++) {
        const double total = cpu_get_real(k, sum, i);
        const bool empty = total == 0;
        factors[i] = empty ? 0 : 1 / total;
        if (lse->data)
            logs[i] = empty ? -INFINITY
                            : cpu_get_real(k, max, i)
                                  + (k->real_size == (int64_t)sizeof(float) ? (double)logf((float)total) : log(total));
    }
    cpu_store_rows_by(k, span, out, batch, head, n, stride, rows, factors);
    if (!lse->data)
        return;
    cpu_span_offsets(span, lse, offsets);
    for (int64_t i = 0; i < span->count; i++)
        cpu_write_scalar(lse, batch, head, offsets[i], logs[i]);
}

double cpu_read_scalar(const cpu_view *view, int64_t batch, int64_t head, int64_t offset)
{
    const void *p = element_at(view, batch, head, offset);
    return view->dtype == NF_F64 ? *(const double *)p : (double)*(const float *)p;
}

void cpu_write_scalar(const cpu_view *view, int64_t batch, int64_t head, int64_t offset, double value)
{
    void *p = element_at(view, batch, head, offset);
    if (view->dtype == NF_F64)
        *(double *)p = value;
    else
        *(float *)p = (float)value;
}

static void set_bits(uint32_t *words, int64_t begin, int64_t end)
{
    for (int64_t word = begin / 32; word * 32 < end; word++) {
        const int64_t low = begin > word * 32 ? begin - word * 32 : 0;
        const int64_t high = end < word * 32 + 32 ? end - word * 32 : 32;
        words[word] |= (uint32_t)(((UINT64_C(1) << high) - 1) & ~((UINT64_C(1) << low) - 1));
    }
}

/* The columns of a box that a row sees on one axis, counted from the box's first; maybe none. */
static nf_interval seen_in_box(const nf_axis_class *c, nf_side rows, int32_t row, nf_interval box)
{
    const nf_interval all = nf_class_sees(c, rows, row);
    return (nf_interval){nf_max32(all.begin, box.begin) - box.begin, nf_min32(all.end, box.end) - box.begin};
}

/* The columns of a tile whose coordinate on an axis lies in an interval: outer runs, one for each place on the axes before. */
static void mask_along(uint32_t *words, nf_interval seen, int64_t outer, int64_t extent, int64_t inner)
{
    memset(words, 0, CPU_MASK_WORDS * sizeof *words);
    for (int64_t o = 0; o < outer && seen.begin < seen.end; o++)
        set_bits(words, (o * extent + seen.begin) * inner, (o * extent + seen.end) * inner);
}

/* A row sees a product of intervals: the columns that it sees on every axis. */
void cpu_build_mask(const nf_work *work, const nf_work_item *item, const nf_box *rows, const nf_box *columns,
                    uint32_t *mask)
{
    const int32_t rank = work->grid->rank;
    uint32_t along[CPU_TILE_ROWS + NF_MAX_RANK][CPU_MASK_WORDS];
    int32_t first[NF_MAX_RANK], row[NF_MAX_RANK] = {0}, count[NF_MAX_RANK], used = 0;
    int64_t outer = 1, inner = nf_box_volume(columns, rank);
    for (int32_t a = 0; a < rank; a++) {
        const int64_t extent = nf_interval_size(columns->axis[a]);
        first[a] = used;
        count[a] = nf_interval_size(rows->axis[a]);
        inner /= extent;
        for (int32_t r = 0; r < count[a]; r++)
            mask_along(along[used++],
                       seen_in_box(&item->axis_class[a], work->spec.rows, rows->axis[a].begin + r, columns->axis[a]), outer,
                       extent, inner);
        outer *= extent;
    }
    for (int64_t left = nf_box_volume(rows, rank); left; left--, mask += CPU_MASK_WORDS) {
        memcpy(mask, along[first[0] + row[0]], CPU_MASK_WORDS * sizeof *mask);
        for (int32_t a = 1; a < rank; a++)
            for (int32_t w = 0; w < CPU_MASK_WORDS; w++)
                mask[w] &= along[first[a] + row[a]][w];
        for (int32_t a = rank - 1; a >= 0 && ++row[a] == count[a]; a--)
            row[a] = 0;
    }
}

/* Extends the reach of a row over one more axis; solid: the row sees all of it, which holds on only if it does so along
 * the axis or has one place so far. */
static cpu_reach extend_reach(cpu_reach before, nf_interval seen, int32_t extent, bool *solid)
{
    if (before.begin == before.end || seen.begin >= seen.end)
        return (cpu_reach){0};
    *solid &= before.end - before.begin == 1 || nf_interval_size(seen) == extent;
    return (cpu_reach){.begin = before.begin * extent + seen.begin, .end = (before.end - 1) * extent + seen.end};
}

bool cpu_find_runs(const nf_work *work, const nf_work_item *item, const nf_box *rows, const nf_box *columns,
                   cpu_reach *runs)
{
    int64_t count = 1;
    bool solid = true;
    runs[0] = (cpu_reach){.end = 1};
    for (int32_t a = 0; a < work->grid->rank; a++) {
        const int32_t along = nf_interval_size(rows->axis[a]);
        nf_interval seen[CPU_TILE_ROWS];
        for (int32_t r = 0; r < along; r++)
            seen[r] = seen_in_box(&item->axis_class[a], work->spec.rows, rows->axis[a].begin + r, columns->axis[a]);
        for (int64_t i = count - 1; i >= 0; i--) {
            const cpu_reach before = runs[i];
            for (int32_t r = 0; r < along; r++)
                runs[i * along + r] = extend_reach(before, seen[r], nf_interval_size(columns->axis[a]), &solid);
        }
        count *= along;
    }
    return solid;
}

void cpu_find_reach(const cpu_reach *runs, int64_t positions, int64_t heads, cpu_reach *reach)
{
    for (int64_t r = 0; r < positions * heads; r++) {
        const cpu_reach own = runs[r % positions];
        const int32_t place = (int32_t)(r % CPU_BLOCK_ROWS);
        cpu_reach *block = &reach[r / CPU_BLOCK_ROWS];
        if (place == 0)
            *block = (cpu_reach){0};
        if (own.begin == own.end)
            continue;
        const bool none = block->rows == 0;
        block->begin = none ? own.begin : nf_min32(block->begin, own.begin);
        block->end = none ? own.end : nf_max32(block->end, own.end);
        block->first = none ? place : block->first;
        block->rows = place + 1 - block->first;
    }
}
