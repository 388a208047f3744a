/* A box of queries meets keys. Keys lie in the lanes: s = q k^T, dp = dout v^T, dv += p^T dout, dk += ds^T q, and what a box
 * adds to dq is ds k. */
#include <string.h>

#include "backends/cpu/backward_dkv.h"

static int64_t most_keys(const cpu_tile_plan *p)
{
    return nf_max64(p->by_key.tile_rows, CPU_TILE_ROWS);
}

/* Rows of n reals that are read across lie an odd number of cache lines apart, so that they spread over the sets. */
static int64_t rows_apart(const cpu_kernels *k, int64_t n)
{
    enum { LINE = 64 };
    return (((n * k->real_size + LINE - 1) / LINE) | 1) * LINE / k->real_size;
}

static int64_t line_stride(const cpu_tile_plan *p)
{
    return rows_apart(p->kernels, most_keys(p) + p->kernels->lanes);
}

static int64_t score_stride(const cpu_tile_plan *p)
{
    return most_keys(p) + p->kernels->panel + CPU_SCORE_PAD;
}

/* What is loaded of a box of queries. */
static void place_queries(const cpu_tile_plan *p, cpu_arena *arena, dkv_scratch *s)
{
    const cpu_kernels *k = p->kernels;
    const int64_t real = k->real_size, queries = p->by_key.columns;
    s->q = cpu_take(arena, queries * rows_apart(k, p->head_dim) * real);
    s->dout = cpu_take(arena, queries * rows_apart(k, p->value_dim) * real);
    if (k->pairs) {
        s->q_straight = cpu_take(arena, (queries + 1) / 2 * p->head_dim * real);
        s->dout_straight = cpu_take(arena, (queries + 1) / 2 * p->value_dim * real);
    }
    s->lse = cpu_take(arena, queries * real);
    s->delta = cpu_take(arena, queries * real);
}

size_t cpu_backward_box_bytes(const cpu_tile_plan *plan)
{
    cpu_arena arena = {0};
    dkv_scratch scratch;
    place_queries(plan, &arena, &scratch);
    return arena.used;
}

void cpu_dkv_carve(const cpu_tile_plan *p, cpu_arena *arena, dkv_scratch *s)
{
    const cpu_kernels *k = p->kernels;
    const int64_t real = k->real_size, keys = most_keys(p), queries = p->by_key.columns;
    const int64_t mask_bytes = queries * CPU_MASK_WORDS * (int64_t)sizeof *s->mask;
    s->tiles = cpu_take(arena, (int64_t)sizeof *s->tiles);
    s->k_transposed = cpu_take(arena, line_stride(p) * p->head_dim * real);
    s->v_transposed = cpu_take(arena, line_stride(p) * p->value_dim * real);
    s->k = cpu_take(arena, keys * rows_apart(k, p->head_dim) * real);
    s->k_straight = cpu_take(arena, (keys + 1) * p->head_dim * real);
    s->dk = cpu_take(arena, keys * p->head_dim * real);
    s->dv = cpu_take(arena, keys * p->value_dim * real);
    s->slots = cpu_take(arena, (p->kept_boxes + 1) * (int64_t)cpu_backward_box_bytes(p));
    s->kept = cpu_take(arena, p->kept_boxes * (int64_t)sizeof *s->kept);
    if (!k->pairs) {
        s->q_straight = cpu_take(arena, queries * p->head_dim * real);
        s->dout_straight = cpu_take(arena, queries * p->value_dim * real);
    }
    s->scores = cpu_take(arena, queries * score_stride(p) * real);
    s->dscores = cpu_take(arena, queries * score_stride(p) * real);
    s->dq = cpu_take(arena, p->five ? queries * p->head_dim * real : 0);
    s->masks.words = cpu_take(arena, mask_bytes);
    s->mask = cpu_take(arena, mask_bytes);
    s->rows = cpu_take(arena, nf_max64(keys, queries) * (int64_t)sizeof *s->rows);
}

size_t cpu_backward_dkv_bytes(const cpu_tile_plan *plan)
{
    cpu_arena arena = {0};
    dkv_scratch scratch;
    cpu_dkv_carve(plan, &arena, &scratch);
    return arena.used;
}

/* Points s->rows at count rows. */
static void point_at(const dkv_scratch *s, const void *rows, int64_t stride, int64_t count)
{
    for (int64_t i = 0; i < count; i++)
        s->rows[i] = cpu_at(s->call->plan->kernels, rows, i * stride);
}

void cpu_dkv_load_keys(dkv_scratch *s, const cpu_span *span, const cpu_view *keys, const cpu_view *values, int64_t batch,
                       int64_t kv_head)
{
    const backward_call *c = s->call;
    const cpu_tile_plan *p = c->plan;
    const cpu_kernels *k = p->kernels;
    const nf_problem *problem = p->request->problem;
    const int64_t n = s->keys = span->count, apart = rows_apart(k, p->head_dim);
    cpu_load_rows(k, span, keys, batch, kv_head, problem->head_dim, apart, s->k);
    point_at(s, s->k, apart, n);
    k->pack_lines(s->k_transposed, line_stride(p), s->rows, n, problem->head_dim);
    s->keys_finite = c->five && k->all_finite(s->rows, n, problem->head_dim);
    if (c->five && k->pairs)
        k->pack_straight(s->k_straight, s->rows, n, problem->head_dim);
    cpu_load_rows(k, span, values, batch, kv_head, problem->value_dim, p->value_dim, s->dv); /* not yet in use */
    point_at(s, s->dv, p->value_dim, n);
    k->pack_lines(s->v_transposed, line_stride(p), s->rows, n, problem->value_dim);
    memset(s->dk, 0, (size_t)(n * p->head_dim * k->real_size));
    memset(s->dv, 0, (size_t)(n * p->value_dim * k->real_size));
    s->masks.places = 0;
}

/* Packs rows for a product from the right. */
static void pack_rows(const dkv_scratch *s, const void *rows, int64_t stride, int64_t count, int64_t n, void *straight)
{
    point_at(s, rows, rows_apart(s->call->plan->kernels, stride), count);
    s->call->plan->kernels->pack_straight(straight, s->rows, count, n);
}

static void pack_queries(const dkv_scratch *s, int64_t m)
{
    const cpu_tile_plan *p = s->call->plan;
    pack_rows(s, s->q, p->head_dim, m, p->request->problem->head_dim, s->q_straight);
    pack_rows(s, s->dout, p->value_dim, m, p->request->problem->value_dim, s->dout_straight);
}

static bool is_kept(const dkv_scratch *s, int64_t slot)
{
    return slot < s->call->plan->kept_boxes && s->kept[slot];
}

static char *slot_at(const dkv_scratch *s, int64_t slot)
{
    return s->slots + (size_t)slot * cpu_backward_box_bytes(s->call->plan);
}

void cpu_dkv_load_queries(dkv_scratch *s, const cpu_span *span, int64_t batch, int64_t head)
{
    const backward_call *c = s->call;
    const cpu_tile_plan *p = c->plan;
    const cpu_kernels *k = p->kernels;
    const nf_problem *problem = p->request->problem;
    cpu_arena slot = {.base = slot_at(s, s->slot)};
    place_queries(p, &slot, s);
    if (is_kept(s, s->slot))
        return;
    cpu_load_rows(k, span, &c->io.q, batch, head, problem->head_dim, rows_apart(k, p->head_dim), s->q);
    cpu_load_rows(k, span, &c->io.dout, batch, head, problem->value_dim, rows_apart(k, p->value_dim), s->dout);
    cpu_load_row_terms(c, span, batch, head, s->lse, s->delta);
    if (k->pairs)
        pack_queries(s, span->count);
    if (s->slot < p->kept_boxes)
        s->kept[s->slot] = true;
}

/* Asks for the rows of a box of queries ahead of their use: they lie far apart, and products hide the time they take. */
static void prefetch_rows(const cpu_span *span, const cpu_view *view, int64_t batch, int64_t head, int64_t n)
{
    enum { LINE = 64 };
    int64_t offsets[CPU_MAX_COLUMNS];
    if (span->count == 0 || view->dim != 1)
        return;
    cpu_span_offsets(span, view, offsets);
    const int64_t base = batch * view->batch + head * view->head, bytes = n * view->element;
    for (int64_t i = 0; i < span->count; i++) {
        const char *row = view->data + (base + offsets[i]) * view->element;
        for (int64_t at = 0; at < bytes; at += LINE)
            __builtin_prefetch(row + at, 0, 2);
        __builtin_prefetch(row + bytes - 1, 0, 2);
    }
}

/* Half of what the next box of queries is made of: its rows in a tensor, or half of where it is kept. */
static void prefetch_next(const dkv_scratch *s, const cpu_view *view, int64_t n, int half)
{
    enum { LINE = 64 };
    if (!is_kept(s, s->next_slot)) {
        prefetch_rows(&s->next, view, s->item.batch, s->next_head, n);
        return;
    }
    const int64_t bytes = (int64_t)cpu_backward_box_bytes(s->call->plan);
    const char *slot = slot_at(s, s->next_slot);
    for (int64_t at = half * bytes / 2; at < (half + 1) * bytes / 2; at += LINE)
        __builtin_prefetch(slot + at, 0, 2);
}

/* Products of m queries with a run of keys, and of dout with their values, from the run's first key on. */
static void find_scores(const dkv_scratch *s, int64_t m, cpu_key_run run)
{
    const backward_call *c = s->call;
    const cpu_tile_plan *p = c->plan;
    const cpu_kernels *k = p->kernels;
    const nf_problem *problem = p->request->problem;
    const int64_t n = run.end - run.begin;
    const cpu_part keys = {.data = s->k_transposed, .stride = line_stride(p), .first_column = run.begin};
    const cpu_part values = {.data = s->v_transposed, .stride = line_stride(p), .first_column = run.begin};
    k->product_part(s->scores, score_stride(p), s->q, rows_apart(k, p->head_dim), &keys, m, n, problem->head_dim);
    prefetch_next(s, &c->io.q, problem->head_dim, 0);
    k->product_part(s->dscores, score_stride(p), s->dout, rows_apart(k, p->value_dim), &values, m, n, problem->value_dim);
    prefetch_next(s, &c->io.dout, problem->value_dim, 1);
}

/* Whether the m rows are finite whose products with one and the same column these are: NaN and infinity stay. */
static bool rows_finite(const cpu_kernels *k, const void *products, int64_t stride, int64_t m)
{
    double bad = 0;
    for (int64_t r = 0; r < m; r++)
        bad += cpu_get_real(k, products, r * stride) * 0;
    return bad == 0;
}

/* dv += p^T dout, dk += ds^T q, and dq = ds k. */
static void add_gradients(const dkv_scratch *s, int64_t m, cpu_key_run run)
{
    const cpu_tile_plan *p = s->call->plan;
    const cpu_kernels *k = p->kernels;
    const int64_t stride = score_stride(p), n = run.end - run.begin;
    const int64_t k_dim = p->request->problem->head_dim, v_dim = p->request->problem->value_dim;
    void *dk = cpu_at(k, s->dk, run.begin * p->head_dim), *dv = cpu_at(k, s->dv, run.begin * p->value_dim);
    cpu_part keys = {.data = s->k, .stride = rows_apart(k, p->head_dim), .first_row = run.begin};
    if (k->pairs) {
        keys = (cpu_part){.data = s->k_straight, .depth = s->keys, .columns = k_dim, .first_row = run.begin};
        k->product_transposed(dv, p->value_dim, s->scores, stride, s->dout_straight, n, v_dim, m, true);
        k->product_transposed(dk, p->head_dim, s->dscores, stride, s->q_straight, n, k_dim, m, true);
    } else {
        k->product_transposed_rows(dv, p->value_dim, s->scores, stride, s->dout, rows_apart(k, p->value_dim), n, v_dim, m,
                                   true);
        k->product_transposed_rows(dk, p->head_dim, s->dscores, stride, s->q, rows_apart(k, p->head_dim), n, k_dim, m, true);
    }
    if (!s->call->five)
        return;
    prefetch_rows(&s->queries, &s->call->dq_sum, s->item.batch, s->head, k_dim);
    k->product_part(s->dq, p->head_dim, s->dscores, stride, &keys, m, k_dim, n);
}

/* The same for all keys, leaving out what the mask hides, be it NaN. */
static void add_gradients_masked(const dkv_scratch *s, int64_t m, const uint32_t *mask)
{
    const cpu_tile_plan *p = s->call->plan;
    const cpu_kernels *k = p->kernels;
    const int64_t stride = score_stride(p), n = s->keys;
    const int64_t k_dim = p->request->problem->head_dim, v_dim = p->request->problem->value_dim;
    if (!k->pairs)
        pack_queries(s, m);
    k->product_transposed_masked(s->dv, p->value_dim, s->scores, stride, s->dout_straight, n, v_dim, m, mask, m);
    k->product_transposed_masked(s->dk, p->head_dim, s->dscores, stride, s->q_straight, n, k_dim, m, mask, m);
    if (!s->call->five)
        return;
    if (!k->pairs)
        pack_rows(s, s->k, p->head_dim, n, k_dim, s->k_straight);
    memset(s->dq, 0, (size_t)(m * p->head_dim * k->real_size));
    k->product_masked(s->dq, p->head_dim, s->dscores, stride, s->k_straight, m, k_dim, n, mask, m);
}

bool cpu_dkv_meet_keys(dkv_scratch *s, int64_t m, cpu_key_run run, uint32_t *mask)
{
    const cpu_tile_plan *p = s->call->plan;
    const cpu_kernels *k = p->kernels;
    const int64_t stride = score_stride(p);
    find_scores(s, m, run);
    const bool finite = !mask
                        || ((s->keys_finite || !s->call->five) && rows_finite(k, s->scores, stride, m)
                            && rows_finite(k, s->dscores, stride, m));
    if (!finite) {
        run = (cpu_key_run){0, s->keys, false};
        cpu_build_key_masks(&s->masks, &s->item, s->queries.box, 0, mask);
        find_scores(s, m, run);
    }
    k->gradient(s->scores, s->dscores, stride, m, run.end - run.begin, p->scale, mask, m, s->lse, s->delta, false);
    if (finite)
        add_gradients(s, m, run);
    else
        add_gradients_masked(s, m, mask);
    return finite;
}
