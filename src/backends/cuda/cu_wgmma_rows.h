/* The rows of an item. */
#ifndef NF_CU_WGMMA_ROWS_H
#define NF_CU_WGMMA_ROWS_H

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
static void open_rows(const long *numbers, const ITEM *item, const int (&tensors)[N], long batch, long head,
                      LINES<ROWS, N> *lines, SIGHT<ROWS> *sight)
{
    const int count = volume(&item->rows);
    for (int r = ITEM_INDEX; r < ROWS; r += ITEMS) {
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

#endif
