/* Forward: for every group of query tiles, walk the column tiles of keys, packed once per group, or once per head where
 * all its groups meet the same ones; softmax is carried along the walk, so no score outlives its tile. */
#include <math.h>
#include <string.h>

#include "backends/cpu/tile.h"

typedef struct forward_call {
    const cpu_tile_plan *plan;
    cpu_views io;
    cpu_share share;
} forward_call;

/* Workspace of one thread. */
typedef struct forward_scratch {
    const forward_call *call;
    cpu_item item, coming;             /* the next one is opened when the last column tile of an item is met */
    int64_t stream, coming_index;      /* -1: none */
    cpu_row_tile *tiles[2];
    cpu_ahead ahead;
    cpu_ahead_run *runs;
    void *q, *out, *max, *sum;         /* of all rows of an item */
    void *k_slots, *v_slots;           /* packed column tiles: those kept of a head, and one more */
    bool *kept;                        /* which of them are packed */
    int64_t kept_stream;               /* and of which batch and head; -1: none */
    void *k_packed, *v_packed;         /* the column tile at hand */
    bool lines;                        /* its keys are packed as lines: some row tile sees a part of it */
    void *converted;
    void *scores;
    uint32_t *mask;
    const void **rows;
} forward_scratch;

static int64_t score_stride(const cpu_walk *walk)
{
    return walk->columns + CPU_SCORE_PAD;
}

/* Lines of keys: whole vectors more than a tile has columns, an odd number of cache lines apart. */
static int64_t line_stride(const cpu_tile_plan *p)
{
    enum { LINE = 64 };
    const int64_t line = LINE / p->kernels->real_size;
    return (((p->by_query.columns + p->kernels->lanes) / line + 1) | 1) * line;
}

/* Reals of a packed column tile. */
static int64_t k_slot(const cpu_tile_plan *p)
{
    return nf_max64(p->by_query.columns + p->kernels->panel, line_stride(p)) * p->head_dim;
}

static int64_t v_slot(const cpu_tile_plan *p)
{
    return p->by_query.columns * p->value_dim;
}

static void carve_forward(const cpu_tile_plan *p, cpu_arena *arena, forward_scratch *s)
{
    const cpu_walk *w = &p->by_query;
    const int64_t real = p->kernels->real_size;
    const int64_t rows = w->tiles * w->tile_rows, wide = nf_max64(p->head_dim, p->value_dim);
    for (int i = 0; i < 2; i++)
        s->tiles[i] = cpu_take(arena, w->tiles * (int64_t)sizeof *s->tiles[i]);
    s->runs = cpu_take(arena, 2 * (rows + w->columns) * (int64_t)sizeof *s->runs);
    s->q = cpu_take(arena, rows * p->head_dim * real);
    s->out = cpu_take(arena, rows * p->value_dim * real);
    s->max = cpu_take(arena, rows * real);
    s->sum = cpu_take(arena, rows * real);
    s->k_slots = cpu_take(arena, (p->kept_tiles + 1) * k_slot(p) * real);
    s->v_slots = cpu_take(arena, (p->kept_tiles + 1) * v_slot(p) * real);
    s->kept = cpu_take(arena, p->kept_tiles * (int64_t)sizeof *s->kept);
    s->converted = cpu_take(arena, w->columns * wide * real);
    s->scores = cpu_take(arena, (w->tile_rows * score_stride(w) + CPU_SCORE_PAD) * real);
    s->mask = cpu_take(arena, w->tile_rows * CPU_MASK_WORDS * (int64_t)sizeof *s->mask);
    s->rows = cpu_take(arena, w->columns * (int64_t)sizeof *s->rows);
}

size_t cpu_forward_bytes(const cpu_tile_plan *plan)
{
    cpu_arena arena = {0};
    forward_scratch scratch;
    carve_forward(plan, &arena, &scratch);
    return arena.used;
}

static void load_queries(const forward_scratch *s, const cpu_row_tile *tile, int64_t first_head)
{
    const forward_call *c = s->call;
    const cpu_tile_plan *p = c->plan;
    const cpu_kernels *k = p->kernels;
    const cpu_span span = cpu_row_span(&s->item, tile);
    const int64_t rows = tile->positions * tile->heads;
    for (int64_t h = 0; h < tile->heads; h++)
        cpu_load_rows(k, &span, &c->io.q, s->item.batch, first_head + tile->head + h, p->request->problem->head_dim, p->head_dim,
                      cpu_at(k, s->q, (tile->first + h * tile->positions) * p->head_dim));
    memset(cpu_at(k, s->out, tile->first * p->value_dim), 0, (size_t)(rows * p->value_dim * k->real_size));
    for (int64_t r = 0; r < rows; r++) {
        cpu_set_real(k, s->max, tile->first + r, -INFINITY);
        cpu_set_real(k, s->sum, tile->first + r, 0);
    }
}

static void store_results(const forward_scratch *s, const cpu_row_tile *tile, int64_t first_head)
{
    const forward_call *c = s->call;
    const cpu_tile_plan *p = c->plan;
    const cpu_kernels *k = p->kernels;
    const cpu_span span = cpu_row_span(&s->item, tile);
    for (int64_t h = 0; h < tile->heads; h++) {
        const int64_t row = tile->first + h * tile->positions;
        cpu_store_softmax(k, &span, &c->io.out, &c->io.lse, s->item.batch, first_head + tile->head + h,
                          p->request->problem->value_dim, p->value_dim, cpu_at(k, s->out, row * p->value_dim),
                          cpu_at(k, s->max, row), cpu_at(k, s->sum, row));
    }
}

static cpu_meeting meeting_of(forward_scratch *s, const cpu_row_tile *tile, int64_t columns)
{
    const cpu_tile_plan *p = s->call->plan;
    const cpu_kernels *k = p->kernels;
    return (cpu_meeting){
        .rows = tile->positions * tile->heads,
        .columns = columns,
        .head_dim = p->request->problem->head_dim,
        .value_dim = p->request->problem->value_dim,
        .q = cpu_at(k, s->q, tile->first * p->head_dim),
        .k = s->k_packed,
        .v = s->v_packed,
        .scores = s->scores,
        .max = cpu_at(k, s->max, tile->first),
        .sum = cpu_at(k, s->sum, tile->first),
        .out = cpu_at(k, s->out, tile->first * p->value_dim),
        .q_stride = p->head_dim,
        .score_stride = score_stride(&p->by_query),
        .out_stride = p->value_dim,
        .k_stride = s->lines ? line_stride(p) : 0,
        .scale = p->scale,
        .ahead = &s->ahead,
    };
}

/* A row tile meets a column tile of which it sees a part. */
static void meet_part(forward_scratch *s, const cpu_row_tile *tile, const cpu_span *columns, bool finite)
{
    const nf_work *work = &s->call->plan->by_query.work;
    cpu_reach runs[CPU_TILE_ROWS], reach[CPU_TILE_BLOCKS];
    const bool solid = cpu_find_runs(work, &s->item.work, &tile->box, columns->box, runs) && s->call->plan->scale >= 0;
    if (tile->head == 0 && (!solid || !finite))
        cpu_build_mask(work, &s->item.work, &tile->box, columns->box, s->mask);
    cpu_find_reach(runs, tile->positions, tile->heads, reach);
    cpu_meeting meeting = meeting_of(s, tile, columns->count);
    meeting.reach = reach;
    meeting.runs = solid ? runs : NULL;
    meeting.mask = s->mask;
    meeting.mask_rows = tile->positions;
    meeting.finite = finite;
    s->call->plan->kernels->attend_part(&meeting);
}

/* All row tiles that see the column tile meet it. finite: nothing in v is NaN or infinite. */
static void meet_columns(forward_scratch *s, const cpu_span *columns, bool finite)
{
    for (int64_t t = 0; t < s->item.tile_count; t++) {
        const cpu_row_tile *tile = &s->item.tiles[t];
        if (!columns->item || tile->kind == NF_TILE_FULL) {
            const cpu_meeting meeting = meeting_of(s, tile, columns->count);
            s->call->plan->kernels->attend(&meeting);
        } else if (tile->kind == NF_TILE_PARTIAL) {
            meet_part(s, tile, columns, finite);
        }
    }
}

/* Packs keys from where they lie if the kernels can, else from reals. */
static void pack_keys(const forward_scratch *s, const cpu_span *columns, const cpu_view *view)
{
    const cpu_kernels *k = s->call->plan->kernels;
    const int64_t n = s->call->plan->request->problem->head_dim;
    if (k->pack_transposed_elements && view->dim == 1) {
        cpu_point_at_rows(columns, view, s->item.batch, s->item.kv_head, s->rows);
        k->pack_transposed_elements(s->k_packed, s->rows, columns->count, n);
        return;
    }
    cpu_fetch_rows(k, columns, view, s->item.batch, s->item.kv_head, n, s->call->plan->head_dim, s->converted, s->rows);
    if (s->lines)
        k->pack_lines(s->k_packed, line_stride(s->call->plan), s->rows, columns->count, n);
    else
        k->pack_transposed(s->k_packed, s->rows, columns->count, n);
}

/* Packs values likewise. Returns whether they are finite, if asked to look. */
static bool pack_values(const forward_scratch *s, const cpu_span *columns, const cpu_view *view, bool look)
{
    const cpu_kernels *k = s->call->plan->kernels;
    const int64_t n = s->call->plan->request->problem->value_dim;
    if (k->pack_straight_elements && view->dim == 1 && !look) {
        cpu_point_at_rows(columns, view, s->item.batch, s->item.kv_head, s->rows);
        k->pack_straight_elements(s->v_packed, s->rows, columns->count, n);
        return true;
    }
    cpu_fetch_rows(k, columns, view, s->item.batch, s->item.kv_head, n, s->call->plan->value_dim, s->converted, s->rows);
    k->pack_straight(s->v_packed, s->rows, columns->count, n);
    return !look || k->all_finite(s->rows, columns->count, n);
}

static int64_t stream_of(const forward_scratch *s, const cpu_item *item)
{
    return item->batch * s->call->plan->request->problem->kv_heads + item->kv_head;
}

static bool is_kept(const forward_scratch *s, const cpu_item *item, int64_t column_tile)
{
    return column_tile < s->call->plan->kept_tiles && stream_of(s, item) == s->kept_stream && s->kept[column_tile];
}

static void add_packed_ahead(forward_scratch *s, int64_t slot)
{
    const cpu_tile_plan *p = s->call->plan;
    const cpu_kernels *k = p->kernels;
    const int64_t columns = p->by_query.columns * (k->pairs ? (int64_t)sizeof(uint16_t) : k->real_size);
    s->runs[s->ahead.runs++] = (cpu_ahead_run){.base = cpu_at(k, s->k_slots, slot * k_slot(p)), .rows = 1,
                                               .bytes = columns * p->head_dim};
    s->runs[s->ahead.runs++] = (cpu_ahead_run){.base = cpu_at(k, s->v_slots, slot * v_slot(p)), .rows = 1,
                                               .bytes = columns * p->value_dim};
}

static void add_columns_ahead(forward_scratch *s, const cpu_item *item, int64_t column_tile, const nf_box *box)
{
    if (is_kept(s, item, column_tile)) {
        add_packed_ahead(s, column_tile);
        return;
    }
    const nf_problem *problem = s->call->plan->request->problem;
    const cpu_views *io = &s->call->io;
    const int32_t rank = item->walk->work.grid->rank;
    const cpu_span columns = {.count = nf_box_volume(box, rank), .item = &item->work, .box = box,
                              .rows = item->walk->work.spec.rows, .columns = true, .rank = rank};
    const int64_t batch = item->batch, head = item->kv_head;
    s->ahead.runs += cpu_span_runs(&columns, &io->k, batch, head, problem->head_dim, s->runs + s->ahead.runs);
    s->ahead.runs += cpu_span_runs(&columns, &io->v, batch, head, problem->value_dim, s->runs + s->ahead.runs);
}

static void add_rows_ahead(forward_scratch *s, const cpu_item *item, const cpu_view *view, int64_t n)
{
    const int64_t group = nf_problem_group(s->call->plan->request->problem);
    for (int64_t t = 0; t < item->tile_count; t++) {
        const cpu_row_tile *tile = &item->tiles[t];
        const cpu_span span = cpu_row_span(item, tile);
        for (int64_t h = 0; h < tile->heads; h++)
            s->ahead.runs += cpu_span_runs(&span, view, item->batch, item->kv_head * group + tile->head + h, n,
                                           s->runs + s->ahead.runs);
    }
}

/* Blocks of rows and panels of k and v that the row tiles at a column tile take: as often kernels fetch. */
static int64_t count_fetches(const forward_scratch *s, int64_t columns)
{
    const int64_t panel = s->call->plan->kernels->panel, dim = s->call->plan->value_dim;
    int64_t halves = 0;
    for (int64_t t = 0; t < s->item.tile_count; t++) {
        const cpu_row_tile *tile = &s->item.tiles[t];
        const int64_t weight = tile->kind == NF_TILE_FULL ? 2 : tile->kind == NF_TILE_PARTIAL ? 1 : 0;
        halves += weight * (tile->positions * tile->heads / CPU_BLOCK_ROWS);
    }
    return nf_max64(halves * ((columns + panel - 1) / panel + (dim + panel - 1) / panel) / 2, 1);
}

/* Opens the item that will probably follow. */
static bool open_coming(forward_scratch *s)
{
    const cpu_tile_plan *p = s->call->plan;
    const int64_t index = cpu_share_guess(&s->call->share, s->stream);
    if (index < 0)
        return false;
    cpu_row_tile *tiles = s->tiles[s->item.tiles == s->tiles[0]];
    cpu_open_item(&s->coming, &p->by_query, p->request->problem, nf_problem_group(p->request->problem), tiles, index);
    s->coming_index = index;
    return true;
}

/* Lists what will be wanted once the row tiles have met a column tile: the next one, or the places of the results and the
 * rows and the first column tile of the next item. */
static void look_ahead(forward_scratch *s, const cpu_span *columns)
{
    const cpu_tile_plan *p = s->call->plan;
    const nf_problem *problem = p->request->problem;
    s->ahead = (cpu_ahead){.run = s->runs};
    if (!p->look_ahead || !columns->item)
        return;
    if (!s->item.last) {
        add_columns_ahead(s, &s->item, s->item.column_tile + 1, &s->item.next);
    } else {
        add_rows_ahead(s, &s->item, &s->call->io.out, problem->value_dim);
        if (open_coming(s)) {
            nf_box first;
            add_rows_ahead(s, &s->coming, &s->call->io.q, problem->head_dim);
            if (nf_work_column_tile_count(&p->by_query.work, &s->coming.work) > 0) {
                nf_work_column_tile(&p->by_query.work, &s->coming.work, 0, &first);
                add_columns_ahead(s, &s->coming, 0, &first);
            }
        }
    }
    const int64_t lines = cpu_ahead_lines(&s->ahead), fetches = count_fetches(s, columns->count);
    const int64_t row = (problem->head_dim * s->call->io.k.element + 63) / 64;
    s->ahead.rate = (lines + fetches * row - 1) / (fetches * row) * row;
}

/* Packs a column tile, or finds it kept from an item before. Returns whether its values are finite, if asked to look. */
static bool take_columns(forward_scratch *s, const cpu_span *columns, bool look)
{
    const cpu_tile_plan *p = s->call->plan;
    const cpu_views *io = &s->call->io;
    const bool keep = columns->item && !look && s->item.column_tile < p->kept_tiles;
    const int64_t slot = keep ? s->item.column_tile : p->kept_tiles;
    s->k_packed = cpu_at(p->kernels, s->k_slots, slot * k_slot(p));
    s->v_packed = cpu_at(p->kernels, s->v_slots, slot * v_slot(p));
    s->lines = look && !p->kernels->pairs && p->scale >= 0;
    if (keep && s->kept[slot])
        return true;
    if (keep)
        s->kept[slot] = true;
    pack_keys(s, columns, columns->item ? &io->k : &io->extra_k);
    return pack_values(s, columns, columns->item ? &io->v : &io->extra_v, look);
}

/* Packs a column tile and lets the row tiles meet it. */
static void visit_columns(void *context, const cpu_span *columns, bool any, bool partial)
{
    forward_scratch *s = context;
    if (!any)
        return;
    const bool finite = take_columns(s, columns, partial);
    look_ahead(s, columns);
    meet_columns(s, columns, finite);
}

static void forward_item(forward_scratch *s, int64_t index)
{
    const cpu_tile_plan *p = s->call->plan;
    const nf_problem *problem = p->request->problem;
    const int64_t group = nf_problem_group(problem);
    if (s->coming_index == index)
        s->item = s->coming;
    else
        cpu_open_item(&s->item, &p->by_query, problem, group, s->tiles[0], index);
    s->coming_index = -1; /* taken, or a wrong guess whose tiles may be overwritten by now */
    if (s->stream != s->kept_stream) {
        memset(s->kept, 0, (size_t)p->kept_tiles * sizeof *s->kept);
        s->kept_stream = s->stream;
    }
    for (int64_t t = 0; t < s->item.tile_count; t++)
        load_queries(s, &s->item.tiles[t], s->item.kv_head * group);
    cpu_for_columns(&s->item, visit_columns, s);
    cpu_for_extra(&s->item, problem, visit_columns, s);
    for (int64_t t = 0; t < s->item.tile_count; t++)
        store_results(s, &s->item.tiles[t], s->item.kv_head * group);
}

static void forward_thread(const forward_call *call, char *workspace, int64_t thread)
{
    forward_scratch scratch = {.call = call, .stream = -1, .coming_index = -1, .kept_stream = -1};
    cpu_arena arena = {.base = workspace + (size_t)thread * call->plan->thread_bytes};
    carve_forward(call->plan, &arena, &scratch);
    for (int64_t item; (item = cpu_share_take(&call->share, &scratch.stream)) >= 0;)
        forward_item(&scratch, item);
}

nf_status cpu_tile_forward(const void *prepared, const nf_tensor *const io[NF_ROLES], void *workspace)
{
    const cpu_tile_plan *plan = prepared;
    const forward_call call = {.plan = plan, .io = cpu_views_of(io, plan->request->problem->rank),
                               .share = cpu_share_walk(plan, &plan->by_query, workspace)};
    if (plan->threads == 1) { /* a parallel region costs system calls even then */
        forward_thread(&call, workspace, 0);
        return NF_OK;
    }
#pragma omp parallel num_threads((int)plan->threads)
    forward_thread(&call, workspace, cpu_thread_index());
    return NF_OK;
}
