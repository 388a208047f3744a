/* Forward of the stencil: for each block of query rows pack the lines of keys and values it adds to the ring, then for each
 * head and each vector of queries scores, softmax and values of all lines seen, a chunk of lines at a time. */
#include <math.h>
#include <string.h>

#include "backends/cpu/stencil.h"

enum { MOST_CHUNK = 16 }; /* items a thread takes at once */

typedef struct forward_call {
    const cpu_stencil_plan *plan;
    cpu_views io;
    bool direct; /* values go from registers to out */
    bool stream;
} forward_call;

/* Workspace of one thread. */
typedef struct forward_scratch {
    const forward_call *call;
    cpu_stencil_item item[2]; /* at hand, and next */
    cpu_stencil_ring ring; /* k transposed, v straight */
    int64_t *key_at, *value_at;        /* of the item at hand: offsets of its columns, */
    int64_t *query_at, *out_at, *lse_at; /* and of the rows of its lane blocks, `lanes` each */
    void *q, *scores, *weights, *max, *sum, *lse, *out;
    int64_t run_begin, run_end; /* lane blocks whose scores are made at once */
    void *converted;
    const void **rows;
    int current;
    bool has_next;
    cpu_ahead_run ahead[CPU_AHEAD_RUNS];
} forward_scratch;

static void carve(const cpu_stencil_plan *p, cpu_arena *arena, forward_scratch *s)
{
    const cpu_stencil_walk *w = &p->forward;
    const cpu_kernels *k = p->kernels;
    const int64_t real = k->real_size, block = w->block_rows * k->lanes;
    s->ring = (cpu_stencil_ring){.depth = {p->request->problem->head_dim}, .width = p->value_dim};
    cpu_stencil_take_item(arena, w, &s->item[0]);
    cpu_stencil_take_item(arena, w, &s->item[1]);
    cpu_stencil_take_ring(arena, w, real, &s->ring);
    int64_t **columns[] = {&s->key_at, &s->value_at}, **rows[] = {&s->query_at, &s->out_at, &s->lse_at};
    for (int i = 0; i < 2; i++)
        *columns[i] = cpu_take(arena, w->columns * (int64_t)sizeof **columns[i]);
    for (int i = 0; i < 3; i++)
        *rows[i] = cpu_take(arena, w->lane_blocks * k->lanes * (int64_t)sizeof **rows[i]);
    const int64_t places = (w->chunk * w->slots + k->lanes - 1) / k->lanes * k->lanes + k->lanes;
    s->q = cpu_take(arena, CPU_STENCIL_ROWS * k->lanes * p->head_dim * real);
    s->scores = cpu_take(arena, CPU_STENCIL_ROWS * k->lanes * places * real);
    s->weights = cpu_take(arena, block * places * real);
    s->max = cpu_take(arena, block * real);
    s->sum = cpu_take(arena, block * real);
    s->lse = cpu_take(arena, block * real);
    s->out = cpu_take(arena, block * p->value_dim * real);
    s->converted = cpu_take(arena, CPU_MAX_COLUMNS * nf_max64(p->head_dim, p->value_dim) * real);
    s->rows = cpu_take(arena, CPU_MAX_COLUMNS * (int64_t)sizeof *s->rows);
}

size_t cpu_stencil_forward_bytes(const cpu_stencil_plan *plan)
{
    cpu_arena arena = {0};
    forward_scratch scratch;
    carve(plan, &arena, &scratch);
    return arena.used;
}

/* Rows of a tensor, as reals unless they are, at s->rows. */
static void find_rows(forward_scratch *s, const cpu_view *view, const char *base, const int64_t *at, int64_t count, int64_t n)
{
    const cpu_kernels *k = s->call->plan->kernels;
    const int64_t stride = (n + k->lanes - 1) / k->lanes * k->lanes;
    for (int64_t i = 0; i < count; i++)
        s->rows[i] = base + at[i];
    if (view->dim == 1 && view->element == k->real_size)
        return;
    k->load_rows(s->converted, stride, s->rows, view->dtype, view->dim, count, n);
    for (int64_t i = 0; i < count; i++)
        s->rows[i] = cpu_at(k, s->converted, i * stride);
}

/* Copies the columns of a line into slot of the ring: keys transposed, values straight. */
static void pack_line(void *context, const nf_box *line, int64_t slot)
{
    forward_scratch *s = context;
    const forward_call *c = s->call;
    const cpu_kernels *k = c->plan->kernels;
    const nf_problem *problem = c->plan->request->problem;
    const cpu_stencil_item *item = &s->item[s->current];
    const cpu_stencil_walk *walk = item->walk;
    const char *keys = cpu_stencil_base(item, &c->io.k, line, true), *values = cpu_stencil_base(item, &c->io.v, line, true);
    const int64_t key_row = slot * s->ring.depth[0] * walk->line_stride, value_row = slot * walk->columns;
    for (int64_t x = 0; x < item->columns; x += CPU_MAX_COLUMNS) {
        const int64_t count = nf_min64(item->columns - x, CPU_MAX_COLUMNS);
        find_rows(s, &c->io.k, keys, s->key_at + x, count, problem->head_dim);
        k->pack_line(cpu_at(k, s->ring.transposed[0], key_row + x), walk->line_stride, s->rows, count, problem->head_dim);
        for (int64_t i = 0; i < count; i++)
            s->rows[i] = values + s->value_at[x + i];
        k->load_rows(cpu_at(k, s->ring.straight, (value_row + x) * s->ring.width), s->ring.width, s->rows, c->io.v.dtype,
                     c->io.v.dim, count, problem->value_dim);
    }
}

/* A row of the block's queries, of outputs. */
static char *row_base(const forward_scratch *s, const cpu_view *view, const nf_box *outer, int32_t row, int64_t h)
{
    const cpu_stencil_item *item = &s->item[s->current];
    nf_box box = *outer;
    if (item->walk->line_axis >= 0)
        box.axis[item->walk->line_axis] = (nf_interval){row, row + 1};
    return cpu_stencil_base(item, view, &box, false) + h * view->head * view->element;
}

/* Lane block b of one row, as number `index` at s->q. */
static void load_queries(forward_scratch *s, const nf_box *outer, int32_t row, int64_t b, int64_t h, int64_t index)
{
    const forward_call *c = s->call;
    const cpu_kernels *k = c->plan->kernels;
    const int64_t depth = c->plan->request->problem->head_dim, count = s->item[s->current].lanes[b].count;
    find_rows(s, &c->io.q, row_base(s, &c->io.q, outer, row, h), s->query_at + b * k->lanes, count, depth);
    k->pack_line(cpu_at(k, s->q, index * depth * k->lanes), k->lanes, s->rows, count, depth);
}

/* Values that did not go from registers to out. */
static void store_values(forward_scratch *s, const cpu_targets *to, int64_t rows, int64_t count)
{
    const cpu_stencil_plan *p = s->call->plan;
    const cpu_kernels *k = p->kernels;
    const cpu_view *out = &s->call->io.out;
    for (int64_t r = 0; r < rows; r++) {
        void *targets[CPU_MAX_LANES];
        double factors[CPU_MAX_LANES];
        for (int64_t l = 0; l < count; l++) {
            targets[l] = to->rows[r] + to->lane[l];
            factors[l] = cpu_get_real(k, s->sum, r * k->lanes + l);
        }
        k->store_rows(targets, out->dtype, out->dim, count, p->request->problem->value_dim,
                      cpu_at(k, s->out, r * k->lanes * p->value_dim), p->value_dim, factors);
    }
}

/* Sizes are known where the reals are copied: a call for each would take longer than all else here. */
static void scatter_reals(char *base, const int64_t *at, const char *from, int64_t count, int64_t size)
{
    for (int64_t i = 0; i < count; i++)
        if (size == (int64_t)sizeof(float))
            memcpy(base + at[i], from + i * size, sizeof(float));
        else
            memcpy(base + at[i], from + i * size, sizeof(double));
}

static void store_lse(forward_scratch *s, const nf_box *outer, int32_t first, int32_t end, int64_t b, int64_t h)
{
    const cpu_kernels *k = s->call->plan->kernels;
    const cpu_view *view = &s->call->io.lse;
    const int64_t *at = s->lse_at + b * k->lanes;
    for (int32_t r = 0; view->data && r < end - first; r++)
        scatter_reals(row_base(s, view, outer, first + r, h), at, cpu_at(k, s->lse, r * k->lanes),
                      s->item[s->current].lanes[b].count, k->real_size);
}

/* Where the lane blocks end that begin at b and that follow on each other, inside. */
static int64_t end_of_run(const cpu_stencil_item *item, int64_t b, int64_t width)
{
    const cpu_lanes *lanes = &item->lanes[b];
    const int64_t most = nf_min64(b + CPU_STENCIL_ROWS, item->lane_blocks);
    int64_t end = b + 1;
    if (lanes->partial || lanes->near || lanes->slots < width)
        return end;
    while (end < most && !item->lanes[end].partial && !item->lanes[end].near && item->lanes[end].slots == lanes->slots
           && item->lanes[end].begin[0] == lanes->begin[0] + (end - b) * width)
        end++;
    return end;
}

/* The scores of lane block b if they are made already, else NULL. In 1-D no line is shared by rows, but neighboring lane
 * blocks share most of their columns: those of a run are scored at once. */
static void *find_scores(forward_scratch *s, const nf_box *outer, int64_t b, int64_t h)
{
    const cpu_stencil_item *item = &s->item[s->current];
    const cpu_kernels *k = s->call->plan->kernels;
    const int64_t row = (item->lanes[b].slots + k->lanes - 1) / k->lanes * k->lanes * k->lanes;
    if (item->walk->line_axis >= 0)
        return NULL;
    if (b == 0 || b == s->run_end) {
        s->run_begin = b;
        s->run_end = end_of_run(item, b, k->lanes);
        if (s->run_end == b + 1)
            return NULL;
        for (int64_t i = b; i < s->run_end; i++)
            load_queries(s, outer, 0, i, h, i - b);
        k->stencil_run_scores(&item->lanes[b], s->run_end - b, item->lines, item->walk->line_stride, s->q,
                              s->call->plan->request->problem->head_dim, s->scores);
    }
    return cpu_at(k, s->scores, (b - s->run_begin) * row);
}

/* One vector of queries in each of rows first .. end - 1, head h of each group. */
static void forward_block(forward_scratch *s, const nf_box *outer, int32_t first, int32_t end, int64_t b, int64_t h,
                          cpu_ahead *ahead)
{
    const forward_call *c = s->call;
    const cpu_stencil_plan *p = c->plan;
    const cpu_kernels *k = p->kernels;
    const cpu_stencil_item *item = &s->item[s->current];
    const int64_t depth = p->request->problem->head_dim, rows = end - first, chunk = item->walk->chunk;
    const cpu_lanes *lanes = &item->lanes[b];
    const int64_t line_count = lanes->slots ? item->line_count : 0;
    cpu_targets targets = {.stream = c->stream};
    for (int32_t r = 0; r < rows; r++)
        targets.rows[r] = row_base(s, &c->io.out, outer, first + r, h);
    for (int64_t l = 0; l < lanes->count; l++)
        targets.lane[l] = s->out_at[b * k->lanes + l];
    void *scores = find_scores(s, outer, b, h);
    for (int32_t r = 0; !scores && r < rows; r++)
        load_queries(s, outer, first + r, b, h, r);
    int64_t i = 0;
    do {
        const cpu_line *lines = &item->lines[i];
        const int64_t count = nf_min64(chunk, line_count - i);
        const bool fresh = i == 0, final = i + count == line_count;
        if (!scores)
            k->stencil_row_scores(lanes, lines, count, item->walk->line_stride, s->q, depth, s->scores);
        const void *weights = k->stencil_softmax(lanes, lines, count, rows, p->scale, fresh, scores ? scores : s->scores,
                                                 s->weights, s->max, s->sum, s->out, p->value_dim);
        if (final)
            k->stencil_close(rows, s->max, s->sum, s->lse);
        k->stencil_row_values(lanes, lines, count, rows, weights, fresh, s->out, p->value_dim,
                              final && c->direct ? &targets : NULL, s->sum, ahead);
        i += count;
    } while (i < line_count);
    if (!c->direct)
        store_values(s, &targets, rows, lanes->count);
    store_lse(s, outer, first, end, b, h);
}

static void forward_block_row(forward_scratch *s, int32_t first, int32_t end)
{
    const cpu_stencil_plan *p = s->call->plan;
    const nf_problem *problem = p->request->problem;
    cpu_stencil_item *item = &s->item[s->current];
    const int64_t group = nf_problem_group(problem), outer_count = cpu_stencil_outer_count(item);
    const int64_t blocks = outer_count * group * item->lane_blocks;
    const cpu_views *io = &s->call->io;
    const cpu_stencil_wants wants = {.line = {&io->k, &io->v}, .line_dim = {problem->head_dim, problem->value_dim},
                                     .row = {&io->q}, .row_dim = {problem->head_dim}, .rows = 1, .group = group};
    int64_t index = 0;
    cpu_stencil_advance(item, cpu_stencil_new_lines(item, end).end, pack_line, s);
    for (int64_t o = 0; o < outer_count; o++) {
        nf_box outer;
        cpu_stencil_outer(item, o, &outer);
        cpu_stencil_list_lines(item, &s->ring, p->kernels, &outer, first, end, false);
        for (int64_t h = 0; h < group; h++)
            for (int64_t b = 0; b < item->lane_blocks; b++) {
                const int64_t steps = cpu_stencil_ahead_steps(item, p->kernels, b, p->value_dim);
                cpu_ahead ahead = cpu_stencil_list_ahead(item, s->has_next ? &s->item[!s->current] : NULL, &wants, end,
                                                         index++, blocks, steps, s->ahead);
                forward_block(s, &outer, first, end, b, h, &ahead);
            }
    }
}

static void find_offsets(forward_scratch *s)
{
    const cpu_stencil_plan *p = s->call->plan;
    const cpu_views *io = &s->call->io;
    const cpu_stencil_item *item = &s->item[s->current];
    const int64_t group = nf_problem_group(p->request->problem);
    cpu_stencil_column_offsets(item, &io->k, s->key_at);
    cpu_stencil_column_offsets(item, &io->v, s->value_at);
    for (int64_t b = 0; b < item->lane_blocks; b++) {
        const int64_t at = b * p->kernels->lanes;
        cpu_stencil_lane_offsets(item, &io->q, group, b, s->query_at + at);
        cpu_stencil_lane_offsets(item, &io->out, group, b, s->out_at + at);
        if (io->lse.data)
            cpu_stencil_lane_offsets(item, &io->lse, group, b, s->lse_at + at);
    }
}

static void forward_item(forward_scratch *s)
{
    const int32_t block = (int32_t)s->call->plan->forward.block_rows;
    const nf_interval rows = cpu_stencil_line_rows(&s->item[s->current]);
    find_offsets(s);
    for (int32_t y = rows.begin; y < rows.end; y += block)
        forward_block_row(s, y, nf_min32(y + block, rows.end));
}

static void forward_items(forward_scratch *s, cpu_stencil_queue *queue, cpu_stencil_turn turn)
{
    const cpu_stencil_plan *p = s->call->plan;
    while (cpu_stencil_take(queue, &turn)) {
        s->current = !s->current;
        if (!turn.known)
            cpu_stencil_open(&s->item[s->current], &p->forward, p->request->problem, p->kernels->lanes, turn.item);
        s->has_next = turn.next >= 0;
        if (s->has_next)
            cpu_stencil_open(&s->item[!s->current], &p->forward, p->request->problem, p->kernels->lanes, turn.next);
        forward_item(s);
    }
}

static forward_call call_of(const cpu_stencil_plan *plan, const nf_tensor *const io[NF_ROLES])
{
    forward_call call = {.plan = plan, .io = cpu_views_of(io, plan->request->problem->rank)};
    call.direct = cpu_stencil_direct(plan, &call.io.out, plan->request->problem->value_dim);
    call.stream = call.direct && cpu_stencil_streams(plan, &call.io.out, io[NF_OUT]);
    return call;
}

static forward_scratch scratch_of(const forward_call *call, char *workspace, int64_t thread)
{
    forward_scratch scratch = {.call = call};
    cpu_arena arena = {.base = workspace + (size_t)thread * call->plan->thread_bytes};
    carve(call->plan, &arena, &scratch);
    return scratch;
}

nf_status cpu_stencil_forward(const void *prepared, const nf_tensor *const io[NF_ROLES], void *workspace)
{
    const cpu_stencil_plan *plan = prepared;
    const forward_call call = call_of(plan, io);
    cpu_stencil_queue queue = cpu_stencil_queue_of(plan->forward.items, plan->threads, MOST_CHUNK);
    if (plan->threads == 1) { /* a parallel region costs system calls even then */
        forward_scratch scratch = scratch_of(&call, workspace, 0);
        forward_items(&scratch, &queue, cpu_stencil_turn_of(&queue, 0, 1));
        return NF_OK;
    }
#pragma omp parallel num_threads((int)plan->threads)
    {
        forward_scratch scratch = scratch_of(&call, workspace, cpu_thread_index());
        forward_items(&scratch, &queue, cpu_stencil_turn_of(&queue, cpu_thread_index(), cpu_thread_count()));
    }
    return NF_OK;
}
