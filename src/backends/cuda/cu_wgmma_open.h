/* The openers of backward on products of warpgroups (cu_wgmma_backward.h): the tables of an item, and the lines of its
 * rows. */
#ifndef NF_CU_WGMMA_OPEN_H
#define NF_CU_WGMMA_OPEN_H

/* ---- Columns ----------------------------------------------------------------------------------------------------- */

/* By one thread: the tiles of an item's hull, `count` of them from `first` on. */
template <int WALK>
static void open_section(const ITEM *item, long first, long count, int source, SECTION<WALK> *section)
{
    measure_hull(item, &section->hull);
    section->first = first;
    section->steps = (int)count;
    section->source = source;
    for (int a = 0; a < RANK; a++) {
        section->origin[a] = item->hull.origin[a];
        section->between[a] = item->hull.step[a];
    }
}

/* ---- Queries as rows --------------------------------------------------------------------------------------------- */

static long items_of(const long *numbers, const OPENED<BY_QUERY> *)
{
    return count_items(numbers);
}

/* Keys of the grid, then extra tokens. */
static void open_keys(const long *numbers, OPENED<BY_QUERY> *o)
{
    count_tiles(&o->item);
    open_section(&o->item, 0, o->item.tiles, OF_GRID, &o->section[0]);
    o->section[1].steps = 0;
    if (numbers[GPU_EXTRA]) {
        ITEM extra;
        extra_columns(numbers, &extra);
        open_section(&extra, 0, extra.tiles, OF_EXTRA, &o->section[1]);
    }
}

static void open_steps(const CALL<BY_QUERY> *call, OPENED<BY_QUERY> *o)
{
    open_queries_of(call->numbers, o);
    if (ITEM_INDEX == ITEMS - 1) { /* a thread that has one row, not two */
        o->partial = NULL;
        open_keys(call->numbers, o);
    }
}

static void open_tables(const CALL<BY_QUERY> *call, OPENED<BY_QUERY> *o)
{
    find_rows(call->numbers, &o->item, {GPU_Q, GPU_DOUT, GPU_DELTA, GPU_DQ}, o->batch, o->row_head, &o->lines,
              &o->sight);
    for (int r = ITEM_INDEX; r < ROWS; r += ITEMS) /* whose offsets this thread has found */
        o->terms[r] = call->terms[o->lines.offset[ROW_TERMS][r]];
}

/* ---- Keys as rows ------------------------------------------------------------------------------------------------ */

static long runs_of_extra(const long *numbers)
{
    return (numbers[GPU_EXTRA] + ROWS - 1) / ROWS;
}

static long items_of_extra(const long *numbers)
{
    return runs_of_extra(numbers) * numbers[GPU_KV_HEADS] * numbers[GPU_BATCH] * numbers[GPU_SPLITS];
}

static long items_of(const long *numbers, const OPENED<BY_KEY> *)
{
    return items_of_extra(numbers) + numbers[GPU_BY_KEY + GPU_WALK_ITEMS] * numbers[GPU_KV_HEADS] * numbers[GPU_BATCH];
}

/* By one thread: the batch and heads. Others find them in shared memory, as they have few registers. */
static void open_stream(const long *numbers, long stream, OPENED<BY_KEY> *o)
{
    o->batch = quotient(stream, numbers[GPU_KV_HEADS]);
    o->row_head = stream - o->batch * numbers[GPU_KV_HEADS];
    o->column_head = o->row_head * quotient(numbers[GPU_HEADS], numbers[GPU_KV_HEADS]);
}

/* The queries that see the rows, of a group of heads: parts `begin` to `end` of so many. */
static void open_queries(const CALL<BY_KEY> *call, long begin, long end, long parts, int source, OPENED<BY_KEY> *o)
{
    const long *numbers = call->numbers;
    if (ITEM_INDEX == 0) {
        const long group = quotient(numbers[GPU_HEADS], numbers[GPU_KV_HEADS]), tiles = o->item.tiles * group;
        const long first = quotient(tiles * begin, parts);
        open_section(&o->item, first, quotient(tiles * end, parts) - first, source, &o->section[0]);
    }
    open_hull(numbers, &o->item, {GPU_DELTA}, o->batch, o->column_head, &o->section[0].hull);
}

static void open_grid_steps(const CALL<BY_KEY> *call, long index, OPENED<BY_KEY> *o)
{
    const long *numbers = call->numbers;
    const long in_walk = numbers[GPU_BY_KEY + GPU_WALK_ITEMS], stream = quotient(index, in_walk);
    open_shared_item(numbers, GPU_BY_KEY, index - stream * in_walk, &o->item);
    if (ITEM_INDEX == ITEMS - 1) { /* the others have axes */
        open_stream(numbers, stream, o);
        o->partial = NULL;
    }
    BARRIER();
    if (ITEM_INDEX == 0)
        count_tiles(&o->item);
    open_queries(call, 0, 1, 1, OF_GRID, o);
}

/* Extra tokens are seen by all queries: one part of those. */
static void open_extra_steps(const CALL<BY_KEY> *call, OPENED<BY_KEY> *o)
{
    const long *numbers = call->numbers;
    const long runs = runs_of_extra(numbers), streams = numbers[GPU_KV_HEADS] * numbers[GPU_BATCH];
    const long run = quotient(o->index, runs), split = quotient(run, streams);
    if (ITEM_INDEX == 0) {
        const long stream = run - split * streams;
        const int begin = (int)(o->index - run * runs) * ROWS;
        open_stream(numbers, stream, o);
        extra_box(begin, min((int)numbers[GPU_EXTRA] - begin, (int)ROWS), &o->item.rows);
        see_all_queries(numbers, COLUMNS, &o->item);
        o->partial = partial_of(numbers, call->scratch, split, stream, begin);
    }
    BARRIER();
    open_queries(call, split, split + 1, numbers[GPU_SPLITS], OF_EXTRA, o);
}

/* Items of extra tokens, which see the most, come first. */
static void open_steps(const CALL<BY_KEY> *call, OPENED<BY_KEY> *o)
{
    const long extra = items_of_extra(call->numbers);
    if (o->index < extra)
        open_extra_steps(call, o);
    else
        open_grid_steps(call, o->index - extra, o);
}

static void open_tables(const CALL<BY_KEY> *call, OPENED<BY_KEY> *o)
{
    if (o->section[0].source == OF_GRID)
        find_rows(call->numbers, &o->item, {GPU_K, GPU_V, GPU_DK, GPU_DV}, o->batch, o->row_head, &o->lines, &o->sight);
    else
        place_rows(call->numbers, &o->item.rows, {GPU_EXTRA_K, GPU_EXTRA_V, GPU_DEXTRA_K, GPU_DEXTRA_V}, o->batch,
                   o->row_head, &o->lines);
}

/* ---- Rows -------------------------------------------------------------------------------------------------------- */

template <int WALK> static void open_rows(const CALL<WALK> *call, SHARED<WALK> *shared, int slot)
{
    OPENED<WALK> *o = &shared->slots[slot];
    open_tables(call, o);
    BARRIER();
    ROLLED for (int part = 0; part < KINDS * GROUPS; part++)
    {
        const int kind = part / GROUPS, group = part % GROUPS, first = group * GROUP_ROWS;
        copy_lines(row_lines(slot, kind, group), GROUP_ROWS, &call->rows[o->section[0].source][kind],
                   o->lines.coordinates + first, ROW_LIMIT, o->lines.offset[kind] + first, 0);
    }
    cu_copy_async_commit();
    cu_copy_async_wait<0>();
    cu_fence_async();
}

#endif
