/* What openers do, forward and backward: which item comes next, its rows and columns. */
#ifndef NF_CU_WGMMA_ROWS_H
#define NF_CU_WGMMA_ROWS_H

/* The head of keys and values that a head of queries meets. */
static long keys_head(const long *numbers, long head)
{
    return quotient(head * numbers[GPU_KV_HEADS], numbers[GPU_HEADS]);
}

/* Opens an item by query, as open_shared_item does. Ends with one that all may read. */
template <class OPENED> static void open_queries_of(const long *numbers, OPENED *o)
{
    const long in_walk = numbers[GPU_BY_QUERY + GPU_WALK_ITEMS], stream = quotient(o->index, in_walk);
    open_shared_item(numbers, GPU_BY_QUERY, o->index - stream * in_walk, &o->item);
    if (ITEM_INDEX == ITEMS - 1) { /* the others have axes */
        o->batch = quotient(stream, numbers[GPU_HEADS]);
        o->row_head = stream - o->batch * numbers[GPU_HEADS];
        o->column_head = keys_head(numbers, o->row_head);
    }
    BARRIER();
}

/* The index-th row of a box. Most axes that a problem lacks have one row, and a division takes long. */
static void find_row(const BOX *rows, int index, int (&position)[RANK])
{
    for (int a = RANK - 1; a >= 0; a--) {
        const int count = rows->count[a];
        position[a] = rows->begin[a];
        if (count == 1)
            continue;
        const uint rest = (uint)index / (uint)count;
        position[a] += index - (int)rest * count;
        index = (int)rest;
    }
}

/* What a row sees. Where an axis has one row, that is the hull. */
static void find_sight_of(const long *numbers, const ITEM *item, const int (&position)[RANK], int row,
                          SIGHT<ROWS> *sight)
{
    for (int a = 0; a < RANK; a++) {
        int begin = item->hull.begin[a], end = begin + item->hull.count[a];
        if (item->rows.count[a] > 1)
            row_sees(numbers, item, a, position[a], &begin, &end);
        sight->begin[a][row] = begin;
        sight->end[a][row] = end;
    }
}

/* By all openers: where tensors have the rows of an item, and what those see. */
template <int N>
static void find_rows(const long *numbers, const ITEM *item, const int (&tensors)[N], long batch, long head,
                      LINES<ROWS, N> *lines, SIGHT<ROWS> *sight)
{
    const int count = volume(&item->rows);
    ROLLED for (int r = ITEM_INDEX; r < ROWS; r += ITEMS)
    {
        int position[RANK];
        find_row(&item->rows, min(r, count - 1), position);
        lines->coordinates[r] = r < count ? 0 : ABSENT_COLUMN;
        UNROLLED(int i = 0; i < N; i++)
        {
            lines->offset[i][r] =
                base_of(numbers, tensors[i], batch, head) + place_of(numbers, tensors[i], &item->rows, position);
        }
        find_sight_of(numbers, item, position, r, sight);
    }
}

/* By all threads of a block: the columns of a tile by query, the same for all items, and extra tokens. */
static void put_columns_of(const long *numbers, HULL *grid, HULL *extra)
{
    int tile[RANK];
    for (int a = 0; a < RANK; a++)
        tile[a] = (int)numbers[GPU_BY_QUERY + GPU_WALK_COLUMNS + a];
    for (int c = (int)threadIdx.x; c < COLUMNS; c += THREADS) {
        int coordinate[RANK];
        const bool there = find_coordinates(tile, c, coordinate);
        put_coordinates(grid, c, there, coordinate);
        extra->coordinates[c] = (uint)c;
    }
}

/* ---- Items in turns ---------------------------------------------------------------------------------------------- */

/* Forward and backward have an OPENED, a SHARED and a CALL of their own, and items_of, open_steps and open_rows with
 * them. */

/* Which item comes next: one whose sums were not finite again, or the next, or none. */
template <class SHARED, class OPENED>
static void choose_item(const long *numbers, SHARED *shared, OPENED *o, bool first)
{
    const bool again = !first && !o->idle && o->not_finite && !o->careful;
    if (!again) {
        o->index = shared->next;
        shared->next += GROUP_COUNT;
    }
    o->careful = again;
    o->not_finite = 0;
    o->idle = o->index >= items_of(numbers, o);
    shared->idle = o->idle ? shared->idle + 1 : 0;
    o->stop = shared->idle == SLOTS; /* so that no slot holds an item that may have to be met again */
}

/* The loader begins as soon as it knows the steps. */
template <class CALL, class SHARED> static void open_items(const CALL *call, SHARED *shared)
{
    for (uint number = 0;; number++) {
        const int slot = number % SLOTS;
        auto *o = &shared->slots[slot];
        wait_for_free(shared->closed, number, SLOTS);
        if (ITEM_INDEX == 0)
            choose_item(call->numbers, shared, o, number < SLOTS);
        BARRIER();
        if (!o->idle)
            open_steps(call, o);
        cu_mbarrier_arrive(cu_address_of(&shared->planned[slot]));
        if (!o->idle)
            open_rows(call, shared, slot);
        cu_mbarrier_arrive(cu_address_of(&shared->opened[slot]));
        if (o->stop)
            return;
    }
}

#endif
