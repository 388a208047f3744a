/* The programs of devices that have no compiler: all others are padded to one of these. ahead.awk reads this file, too,
 * and lists their options: one program per rank, pair of element types and tile.
 *
 * Each costs every build seconds and the library half a megabyte, so they are few: axes that a problem lacks have one
 * token, dimensions that a tile has too many are zeros, and those that it lacks are computed by further groups. */
#ifndef NF_GPU_AHEAD_H
#define NF_GPU_AHEAD_H

/* Ranks: 2 and 4. */

/* Tiles: bytes of what a program computes with, rows and columns, work-items on a side, dimensions of the results. */
#define GPU_AHEAD_TILES(X)                                                                                             \
    X(4, 64, 16, 64)                                                                                                   \
    X(4, 32, 8, 32)                                                                                                    \
    X(8, 32, 8, 32)

/* Of gpu_unfused.cl and gpu_naive.cl: one program per pair of element types. */
enum { GPU_AHEAD_PLAIN_RANK = 4, GPU_AHEAD_PLAIN_ITEMS = 64 };

/* Of the cuda backend's kernels for tensor cores (cu_mma.cu), one program per type of 16 bits and dimensions, and one
 * per dimensions of f32. */
#define GPU_AHEAD_MMA_DIMS(D) D(32) D(64) D(128) D(256)
#define GPU_AHEAD_MMA_F32_DIMS(D) D(32) D(64) D(128)
/* Of those that keep scores in memory (cu_unfused.cu), which memory slows more than zeros do. */
#define GPU_AHEAD_UNFUSED_DIMS(D) D(64) D(128) D(256)
#define GPU_AHEAD_UNFUSED_F32_DIMS(D) D(64) D(128)
/* The same of those for compute capability 9.0, forward and backward each (cu_wgmma.cu, cu_wgmma_backward.cu). */
#define GPU_AHEAD_WGMMA_DIMS(D) D(64) D(128)

#endif
