/* Items of a tile walk: their row tiles, the column tiles these meet, and the workspace they are handed. */
#include "backends/cpu/tile.h"

void *cpu_take(cpu_arena *arena, int64_t bytes)
{
    void *taken = arena->base ? arena->base + arena->used : NULL;
    arena->used += (size_t)(bytes + 63) / 64 * 64;
    return taken;
}

/* Row tiles in order of their boxes, and for each box of the heads folded or following. */
static int64_t list_row_tiles(const cpu_walk *walk, const nf_work_item *item, int64_t heads, cpu_row_tile *tiles)
{
    const int64_t boxes = nf_work_tile_count(&walk->work, item);
    int64_t count = 0, first = 0;
    for (int64_t t = 0; t < boxes; t++)
        for (int64_t head = 0; head < heads; head += walk->fold) {
            cpu_row_tile *tile = &tiles[count++];
            nf_work_tile(&walk->work, item, t, &tile->box);
            tile->positions = nf_box_volume(&tile->box, walk->work.grid->rank);
            tile->head = head;
            tile->heads = nf_min64(walk->fold, heads - head);
            tile->first = first;
            first += tile->positions * tile->heads;
        }
    return count;
}

void cpu_open_item(cpu_item *item, const cpu_walk *walk, const nf_problem *problem, int64_t heads, cpu_row_tile *tiles,
                   int64_t index)
{
    const int64_t stream = index / walk->work.items;
    *item = (cpu_item){.walk = walk, .index = index % walk->work.items, .batch = stream / problem->kv_heads,
                       .kv_head = stream % problem->kv_heads, .tiles = tiles};
    nf_work_get_item(&walk->work, item->index, &item->work);
    item->tile_count = list_row_tiles(walk, &item->work, heads, tiles);
}

cpu_share cpu_share_walk(const cpu_tile_plan *plan, const cpu_walk *walk, char *workspace)
{
    const nf_problem *problem = plan->request->problem;
    return cpu_share_create(workspace + (size_t)plan->threads * plan->thread_bytes, problem->batch * problem->kv_heads,
                            walk->work.items);
}

cpu_span cpu_row_span(const cpu_item *item, const cpu_row_tile *tile)
{
    return (cpu_span){.count = tile->positions, .item = &item->work, .box = &tile->box,
                      .rows = item->walk->work.spec.rows, .rank = item->walk->work.grid->rank, .lead = item->walk->lead};
}

void cpu_for_columns(cpu_item *item, cpu_visit_columns *visit, void *context)
{
    const nf_work *work = &item->walk->work;
    const int64_t column_tiles = nf_work_column_tile_count(work, &item->work);
    if (column_tiles > 0)
        nf_work_column_tile(work, &item->work, 0, &item->next);
    for (int64_t j = 0; j < column_tiles; j++) {
        const nf_box box = item->next;
        bool any = false, partial = false;
        item->column_tile = j;
        item->last = j + 1 == column_tiles;
        if (!item->last)
            nf_work_column_tile(work, &item->work, j + 1, &item->next);
        for (int64_t t = 0; t < item->tile_count; t++) {
            cpu_row_tile *tile = &item->tiles[t];
            tile->kind = nf_work_classify(work, &item->work, &tile->box, &box);
            any |= tile->kind != NF_TILE_ABSENT;
            partial |= tile->kind == NF_TILE_PARTIAL;
        }
        const cpu_span columns = {.count = nf_box_volume(&box, work->grid->rank), .item = &item->work, .box = &box,
                                  .rows = work->spec.rows, .columns = true, .rank = work->grid->rank};
        visit(context, &columns, any, partial);
    }
}

void cpu_for_extra(const cpu_item *item, const nf_problem *problem, cpu_visit_columns *visit, void *context)
{
    for (int64_t x = 0; x < problem->extra; x += item->walk->columns) {
        const cpu_span columns = {.count = nf_min64(item->walk->columns, problem->extra - x), .begin = x,
                                  .extents = &problem->extra, .rank = 1};
        visit(context, &columns, true, false);
    }
}

/* Pairs that a row tile of walk->fold heads computes of a column tile. */
static double pairs_of_tile(const cpu_walk *walk, const nf_work_item *item, const nf_box *rows, const nf_box *columns)
{
    const int32_t rank = walk->work.grid->rank;
    const int64_t count = nf_box_volume(rows, rank) * walk->fold;
    const nf_tile_kind kind = nf_work_classify(&walk->work, item, rows, columns);
    if (kind != NF_TILE_PARTIAL)
        return kind == NF_TILE_ABSENT ? 0 : (double)(count * nf_box_volume(columns, rank));
    cpu_reach runs[CPU_TILE_ROWS], reach[CPU_TILE_BLOCKS];
    double pairs = 0;
    cpu_find_runs(&walk->work, item, rows, columns, runs);
    cpu_find_reach(runs, nf_box_volume(rows, rank), walk->fold, reach);
    for (int64_t r = 0; r < count; r += CPU_BLOCK_ROWS) {
        const cpu_reach *block = &reach[r / CPU_BLOCK_ROWS];
        pairs += (double)block->rows * (block->end - block->begin);
    }
    return pairs;
}

double cpu_reached_pairs(const cpu_walk *walk, int64_t samples)
{
    const nf_work *work = &walk->work;
    const int64_t step = (work->items + samples - 1) / samples;
    double pairs = 0, looked_at = 0;
    for (int64_t i = step / 2; i < work->items; i += step, looked_at++) {
        nf_work_item item;
        nf_work_get_item(work, i, &item);
        const int64_t row_tiles = nf_work_tile_count(work, &item), column_tiles = nf_work_column_tile_count(work, &item);
        for (int64_t t = 0; t < row_tiles; t++)
            for (int64_t j = 0; j < column_tiles; j++) {
                nf_box rows, columns;
                nf_work_tile(work, &item, t, &rows);
                nf_work_column_tile(work, &item, j, &columns);
                pairs += pairs_of_tile(walk, &item, &rows, &columns) / (double)walk->fold;
            }
    }
    return looked_at > 0 ? pairs / looked_at * (double)work->items : 0;
}
