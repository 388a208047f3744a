/* What warps of different roles hand over to each other: copies of boxes, and barriers that are used in turns. */
#ifndef NF_CU_WGMMA_BOXES_H
#define NF_CU_WGMMA_BOXES_H

/* A tensor to copy boxes from: the host makes this (cu_boxes.h). A coordinate of the map is a sum of indices. */
typedef struct BOXES {
    cu_map map;
    int axis[RANK];          /* which coordinate an axis is part of */
    int batch, head;         /* and these, */
    int per_batch, per_head; /* times so much */
} BOXES;

/* Which boxes of a tensor an item copies; origin: tensor index of position 0. */
typedef struct BOXES_AT {
    int base[4]; /* coordinates but the first, of position 0 of all axes */
    uint parts;  /* a bit for each of these and each axis that is part of it */
} BOXES_AT;

static BOXES_AT find_boxes(const BOXES *boxes, const int (&origin)[RANK], long batch, long head)
{
    BOXES_AT at = {};
    UNROLLED(int i = 0; i < 4; i++)
    {
        at.base[i] = (boxes->batch == i + 1 ? (int)batch * boxes->per_batch : 0) +
                     (boxes->head == i + 1 ? (int)head * boxes->per_head : 0);
        UNROLLED(int a = 0; a < RANK; a++)
        {
            if (boxes->axis[a] == i + 1) {
                at.base[i] += origin[a];
                at.parts |= 1u << (RANK * i + a);
            }
        }
    }
    return at;
}

/* By one thread: maps that are sure to be used. */
template <int N> static void fetch_maps(const BOXES *const (&boxes)[N])
{
    for (const BOXES *of : boxes)
        cu_fetch_map(&of->map);
}

/* Copies the box of a column tile, one for each part of its dimensions. Its bytes come to the barrier `full`, at which
 * the calling thread arrives. */
static void copy_boxes(const cu_map *map, const BOXES_AT *boxes, const int (&offset)[RANK], int bytes, cu_address lines,
                       cu_address full)
{
    int at[5] = {0, boxes->base[0], boxes->base[1], boxes->base[2], boxes->base[3]};
    UNROLLED(int i = 0; i < 4; i++)
    {
        UNROLLED(int a = 0; a < RANK; a++)
        {
            at[i + 1] += boxes->parts >> (RANK * i + a) & 1 ? offset[a] : 0;
        }
    }
    cu_mbarrier_expect(full, bytes);
    UNROLLED(int part = 0; part < PARTS; part++)
    {
        at[0] = part * PART_DIMS;
        cu_copy_box(lines + part * PART_BYTES, map, at, full);
    }
}

/* The phases of barriers that are used in turns: the number-th use of all is of the slot number % count. */
static int phase(uint number, int count)
{
    return (int)(number / count & 1);
}

/* The slot has been used so often, and each time been given back. */
static void wait_for_free(const unsigned long *barriers, uint number, int count)
{
    cu_mbarrier_wait(cu_address_of(&barriers[number % count]), phase(number, count) ^ 1);
}

static void wait_for_use(const unsigned long *barriers, uint number, int count)
{
    cu_mbarrier_wait(cu_address_of(&barriers[number % count]), phase(number, count));
}

#endif
