/* The roles of a block's warps: two warpgroups multiply; of a third one warp copies boxes, the others open items, one
 * ahead.
 *
 * The file that includes this one has COLUMNS of a step. */
#ifndef NF_CU_WGMMA_ROLES_H
#define NF_CU_WGMMA_ROLES_H

enum {
    GROUP_LANES = 128, /* of a warpgroup, which has 64 rows */
    GROUP_ROWS = 64,
    GROUPS = 2,
    CONSUMERS = GROUPS * GROUP_LANES,
    CONSUMER_WARPS = CONSUMERS / 32,
    THREADS = CONSUMERS + GROUP_LANES,
    LOADER = CONSUMERS, /* its first thread */
    FIRST_OPENER = CONSUMERS + 32,
    BLOCK_REGISTERS = 168 /* of a thread as the block begins: the most that fit */
};

enum { SLOTS = 2 }; /* of items: the one that is met, and the next */

/* Numbers of barriers; 0 is the block's. */
enum { OPENERS_BARRIER = 1, CONSUMERS_BARRIER, TURNS_BARRIER, /* one per warpgroup */ };

/* Registers of a thread that multiplies, and of any other. A warpgroup that takes more than others have given would
 * wait for ever. */
template <int CONSUMER, int PRODUCER>
constexpr bool REGISTERS_SUFFICE = GROUPS *CONSUMER + PRODUCER <= (GROUPS + 1) * BLOCK_REGISTERS;

/* Those that make tables and copy lines together are the openers. */
enum { ITEMS = THREADS - FIRST_OPENER };
#undef ITEM_INDEX
#define ITEM_INDEX ((int)threadIdx.x - FIRST_OPENER)
#undef BARRIER
#define BARRIER() cu_sync_some(OPENERS_BARRIER, ITEMS)

#define WARP ((int)threadIdx.x / 32)
#define GROUP ((int)threadIdx.x / GROUP_LANES)

/* Lines lie in parts of 64 dimensions, as copies of boxes put them. */
enum {
    ROWS = GROUPS * GROUP_ROWS,
    PART_DIMS = 64,
    PARTS = DIMS / PART_DIMS,
    PART_CHUNKS = PART_DIMS / 8,
    PART_LINE_BYTES = 2 * PART_DIMS,
    PART_BYTES = COLUMNS * PART_LINE_BYTES,
    EIGHT_LINES = 8 * PART_LINE_BYTES,
    GRAIN = DIMS / 16
};
static_assert(COLUMNS % GROUP_ROWS == 0, "rows may lie in parts as large as those of columns");

#endif
