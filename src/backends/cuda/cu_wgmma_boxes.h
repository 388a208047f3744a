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

/* Copies the box of a column tile, one for each part of its dimensions; its bytes come to a barrier, at which the
 * calling thread arrives. The tile begins at positions `first`; position 0 of each axis is the tensor index origin, and
 * from one to the next are `between`. */
static void copy_boxes(const BOXES *boxes, const int (&origin)[RANK], const int (&between)[RANK],
                       const int (&first)[RANK], long batch, long head, int volume, cu_address lines,
                       const unsigned long *barrier)
{
    int at[5];
    UNROLLED(int i = 0; i < 5; i++)
    {
        at[i] = (boxes->batch == i ? (int)batch * boxes->per_batch : 0) +
                (boxes->head == i ? (int)head * boxes->per_head : 0);
        for (int a = 0; a < RANK; a++)
            at[i] += boxes->axis[a] == i ? origin[a] + first[a] * between[a] : 0;
    }
    cu_mbarrier_expect(cu_address_of(barrier), volume * PARTS * PART_LINE_BYTES);
    UNROLLED(int part = 0; part < PARTS; part++)
    {
        at[0] = part * PART_DIMS;
        cu_copy_box(lines + part * PART_BYTES, &boxes->map, at, cu_address_of(barrier));
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
