/* A kernel of a few steps that uses all of cu_wgmma_ptx.h, for tests/cuda_warpgroup.c: out = sum over steps of
 * (q k') v, where q and then q k' are rounded. One warp copies, a warpgroup multiplies. */
#include "backends/cuda/cu_words.h"
#ifdef __CUDACC__
#include "backends/cuda/cu_wgmma_ptx.h"
#else
#include "warpgroup.h"
#endif

enum {
    QUERIES = 64,
    KEYS = 128,
    WIDTH = 128, /* numbers of a row, */
    HALF = 64,   /* as many as a line of 128 bytes has */
    LINE = 128,
    PATTERN = 8 * LINE,
    SLOTS = 2,
    Q_BYTES = QUERIES * WIDTH * 2,
    KEY_BYTES = KEYS * WIDTH * 2,
    SLOT_BYTES = 2 * KEY_BYTES,
    FULL_OFFSET = SLOTS * SLOT_BYTES + Q_BYTES,
    EMPTY_OFFSET = FULL_OFFSET + 8 * (SLOTS + 1),
    CONSUMERS = 128,
    READY = 1,
    Q_ROUNDED
};

/* What is left out, or done too early. */
enum {
    NOTHING,
    WAIT_FOR_PRODUCTS, /* sums are read before */
    WAIT_FOR_SLOT,     /* a slot is filled while it is in use */
    SLOT_RETURNED_EARLY,
    ARRIVAL_OF_BYTES,
    EXPECTED_BYTES,
    WAIT_FOR_BYTES,
    BEGIN_OF_PRODUCTS,
    MAKING_KNOWN,
    BLOCK_BARRIER,
    LAST_WAIT,
    ARRIVAL_OF_WARP,
    COUNT_OF_WARP,
    ALIGNMENT,
    FENCE
};

static __device__ void copy_rows(cu_address to, const cu_map *map, int first, int rows, cu_address barrier)
{
    for (int half = 0; half < 2; half++) {
        const int at[5] = {half * HALF, first, 0, 0, 0};
        cu_copy_box(to + half * rows * LINE, map, at, barrier);
    }
}

/* Shared memory has the slots, q, a barrier for each slot that is full and for q, and one for each that is empty. */
static __device__ void produce(cu_address shared, const cu_map *q, const cu_map *k, const cu_map *v, int first,
                               int step, int steps, int without)
{
    const cu_address full = shared + FULL_OFFSET, empty = shared + EMPTY_OFFSET, q_full = full + 8 * SLOTS;
    cu_mbarrier_expect(q_full, Q_BYTES);
    copy_rows(shared + SLOTS * SLOT_BYTES, q, 0, QUERIES, q_full);
    for (int i = 0; i < steps; i++) {
        const int slot = i % SLOTS;
        const cu_address keys = shared + slot * SLOT_BYTES, values = keys + KEY_BYTES, barrier = full + 8 * slot;
        if (without != WAIT_FOR_SLOT)
            cu_mbarrier_wait(empty + 8 * slot, (i / SLOTS + 1) % 2);
        if (without == EXPECTED_BYTES)
            cu_mbarrier_arrive(barrier);
        else if (without != ARRIVAL_OF_BYTES)
            cu_mbarrier_expect(barrier, SLOT_BYTES);
        copy_rows(keys + (without == ALIGNMENT) * LINE, k, first + i * step, KEYS, barrier);
        copy_rows(values, v, first + i * step, KEYS, barrier);
    }
}

/* To 3 bits of fraction, towards 0. */
static __device__ void round_q(cu_address q, int without)
{
    for (int i = ITEM_INDEX * 16; i < Q_BYTES; i += CONSUMERS * 16) {
        unsigned numbers[4];
        cu_load_16(numbers, q + i);
        for (int j = 0; j < 4; j++)
            numbers[j] &= 0xfff0fff0;
        cu_store_16(q + i, numbers);
    }
    if (without != FENCE)
        cu_fence_async();
    cu_sync_some(Q_ROUNDED, CONSUMERS);
}

static __device__ void begin_scores(float (&scores)[KEYS / 8][4], cu_address q, cu_address k)
{
    for (int term = 0; term < WIDTH; term += 16) {
        const int half = term / HALF, place = term % HALF * 2;
        cu_wgmma_lines_bf16(scores, cu_lines_at(q + half * QUERIES * LINE + place, 0, PATTERN),
                            cu_lines_at(k + half * KEYS * LINE + place, 0, PATTERN), term > 0);
    }
    cu_wgmma_commit();
}

static __device__ void begin_sums(float (&sums)[WIDTH / 8][4], const unsigned (&weights)[KEYS / 16][4], cu_address v)
{
    for (int term = 0; term < KEYS; term += 16)
        cu_wgmma_across_bf16(sums, weights[term / 16], cu_lines_at(v + term * LINE, KEYS * LINE, PATTERN));
    cu_wgmma_commit();
}

/* A step's sums are computed while those of the next begin. */
static __device__ void consume(cu_address shared, float out[QUERIES][WIDTH], int steps, int without)
{
    const cu_address q = shared + SLOTS * SLOT_BYTES, full = shared + FULL_OFFSET, empty = shared + EMPTY_OFFSET;
    float sums[WIDTH / 8][4] = {};
    unsigned weights[KEYS / 16][4];
    cu_take_registers<240>();
    cu_mbarrier_wait(full + 8 * SLOTS, 0);
    round_q(q, without);
    for (int i = 0; i < steps; i++) {
        const cu_address slot = shared + i % SLOTS * SLOT_BYTES;
        float scores[KEYS / 8][4];
        if (without != WAIT_FOR_BYTES)
            cu_mbarrier_wait(full + i % SLOTS * 8, i / SLOTS % 2);
        if (without != BEGIN_OF_PRODUCTS)
            cu_wgmma_begin();
        begin_scores(scores, q, slot);
        cu_wgmma_wait<1>();
        cu_wgmma_hold(sums);
        if (i && without != SLOT_RETURNED_EARLY)
            cu_mbarrier_arrive(empty + (i - 1) % SLOTS * 8);
        if (without != WAIT_FOR_PRODUCTS)
            cu_wgmma_wait<0>();
        cu_wgmma_hold(scores);
        for (int j = 0; j < KEYS / 8; j++)
            for (int r = 0; r < 2; r++)
                weights[j / 2][j % 2 * 2 + r] = cu_pack_bf16(scores[j][2 * r], scores[j][2 * r + 1]);
        cu_wgmma_begin();
        begin_sums(sums, weights, slot + KEY_BYTES);
        if (without == SLOT_RETURNED_EARLY)
            cu_mbarrier_arrive(empty + i % SLOTS * 8);
    }
    if (without != LAST_WAIT)
        cu_wgmma_wait<0>();
    cu_wgmma_hold(sums);
    const int lane = ITEM_INDEX % 32;
    for (int j = 0; j < WIDTH / 8; j++)
        for (int r = 0; r < 4; r++)
            out[ITEM_INDEX / 32 * 16 + lane / 4 + r / 2 * 8][j * 8 + lane % 4 * 2 + r % 2] = sums[j][r];
}

/* Rows of keys are first, first + step, ... of the map. */
KERNEL void GROUP_ITEMS(2 * CONSUMERS)
    attend(const __grid_constant__ cu_map q, const __grid_constant__ cu_map k, const __grid_constant__ cu_map v,
           float *out, long first, long step, long steps, long without)
{
    DYNAMIC_SHARED(memory);
    const cu_address shared = cu_address_of(memory);
    if (ITEM_INDEX == 0) {
        for (int i = 0; i <= SLOTS; i++)
            cu_mbarrier_init(shared + FULL_OFFSET + 8 * i, 1);
        for (int i = 0; i < SLOTS; i++)
            cu_mbarrier_init(shared + EMPTY_OFFSET + 8 * i, CONSUMERS);
        if (without != MAKING_KNOWN)
            cu_mbarrier_init_done();
    }
    if (without != BLOCK_BARRIER)
        BARRIER();
    if (ITEM_INDEX < CONSUMERS) {
        consume(shared, (float(*)[WIDTH])(out + GROUP_INDEX * QUERIES * WIDTH), (int)steps, (int)without);
        cu_sync_some(READY, 2 * CONSUMERS - (without == COUNT_OF_WARP) * 32);
    } else {
        cu_give_registers<40>();
        if (ITEM_INDEX == CONSUMERS)
            produce(shared, &q, &k, &v, (int)first, (int)step, (int)steps, (int)without);
        if (without != ARRIVAL_OF_WARP || ITEM_INDEX > CONSUMERS)
            cu_arrive_some(READY, 2 * CONSUMERS);
    }
}

#define CU_KERNELS(X) X(attend)
