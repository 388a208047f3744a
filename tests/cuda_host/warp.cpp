/* Collectives of a warp: each runs once, over what all lanes brought. */
#include "warp.h"

#include <string.h>

#include "block.h"

/* ---- Shuffles and votes ------------------------------------------------------------------------------------------ */

struct shuffled {
    unsigned value, result;
    int lane;
};

static void shuffle_all(void *const *lanes)
{
    for (int i = 0; i < HOST_LANES; i++) {
        shuffled *mine = static_cast<shuffled *>(lanes[i]);
        if (mine->lane < 0 || mine->lane >= HOST_LANES)
            host_fault("a shuffle with no lane");
        mine->result = static_cast<shuffled *>(lanes[mine->lane % HOST_LANES])->value;
    }
}

unsigned host_shuffle(unsigned value, int lane)
{
    shuffled mine = {value, 0, lane};
    host_meet(shuffle_all, &mine);
    return mine.result;
}

struct vote {
    bool holds;
    unsigned lanes;
};

static void vote_all(void *const *lanes)
{
    unsigned holding = 0;
    for (int i = 0; i < HOST_LANES; i++)
        holding |= static_cast<unsigned>(static_cast<vote *>(lanes[i])->holds) << i;
    for (int i = 0; i < HOST_LANES; i++)
        static_cast<vote *>(lanes[i])->lanes = holding;
}

unsigned host_ballot(bool holds)
{
    vote mine = {holds, 0};
    host_meet(vote_all, &mine);
    return mine.lanes;
}

static void only_meet(void *const *lanes)
{
    (void)lanes;
}

void host_sync_warp()
{
    host_meet(only_meet, nullptr);
}

/* ---- Matrices ---------------------------------------------------------------------------------------------------- */

enum { SIDE = 8, MATRICES = 4, A_ROWS = 16, A_COLUMNS = 16, B_COLUMNS = 8 };

struct loaded {
    unsigned *to;
    unsigned row;
    bool transposed;
};

/* One number of a matrix, whose row addresses lanes SIDE * matrix on have given. */
static uint16_t number_at(void *const *lanes, int matrix, int row, int column)
{
    uint16_t numbers[SIDE];
    memcpy(numbers, host_chunk_at(static_cast<loaded *>(lanes[SIDE * matrix + row])->row), sizeof numbers);
    return numbers[column];
}

static void load_all(void *const *lanes)
{
    for (int i = 0; i < HOST_LANES; i++) {
        const loaded *mine = static_cast<loaded *>(lanes[i]);
        const int g = i / 4, t = i % 4;
        for (int m = 0; m < MATRICES; m++) {
            const uint16_t first = mine->transposed ? number_at(lanes, m, 2 * t, g) : number_at(lanes, m, g, 2 * t);
            const uint16_t second =
                mine->transposed ? number_at(lanes, m, 2 * t + 1, g) : number_at(lanes, m, g, 2 * t + 1);
            mine->to[m] = first | static_cast<unsigned>(second) << 16;
        }
    }
}

void host_load_matrices(unsigned to[4], unsigned row, bool transposed)
{
    loaded mine = {to, row, transposed};
    host_meet(load_all, &mine);
}

struct product {
    float *sum;
    const unsigned *a, *b;
    float (*load)(uint16_t);
};

static void multiply_all(void *const *lanes)
{
    float a[A_ROWS][A_COLUMNS], b[A_COLUMNS][B_COLUMNS];
    for (int i = 0; i < HOST_LANES; i++) {
        const product *mine = static_cast<product *>(lanes[i]);
        const int g = i / 4, t = i % 4;
        for (int half = 0; half < 2; half++) {
            for (int r = 0; r < 4; r++)
                a[g + r % 2 * 8][2 * t + r / 2 * 8 + half] = mine->load(static_cast<uint16_t>(mine->a[r] >> 16 * half));
            for (int r = 0; r < 2; r++)
                b[2 * t + 8 * r + half][g] = mine->load(static_cast<uint16_t>(mine->b[r] >> 16 * half));
        }
    }
    for (int i = 0; i < HOST_LANES; i++) {
        float *sum = static_cast<product *>(lanes[i])->sum;
        for (int r = 0; r < 4; r++) {
            const int row = i / 4 + r / 2 * 8, column = i % 4 * 2 + r % 2;
            for (int k = 0; k < A_COLUMNS; k++)
                sum[r] += a[row][k] * b[k][column];
        }
    }
}

void host_mma(float sum[4], const unsigned a[4], const unsigned b[2], float (*load)(uint16_t))
{
    product mine = {sum, a, b, load};
    host_meet(multiply_all, &mine);
}
