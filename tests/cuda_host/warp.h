/* What the lanes of a warp do together, as cu_ptx.h describes it. */
#ifndef NF_TESTS_CUDA_WARP_H
#define NF_TESTS_CUDA_WARP_H

#include <stdint.h>

unsigned host_shuffle(unsigned value, int lane); /* the value that a lane has given */
unsigned host_ballot(bool holds);                /* in which lanes it does, a bit each */
void host_sync_warp();
void host_load_matrices(unsigned to[4], unsigned row, bool transposed);
void host_mma(float sum[4], const unsigned a[4], const unsigned b[2], float (*load)(uint16_t));

#endif
