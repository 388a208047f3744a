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
