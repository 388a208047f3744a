/* What blocks of compute capability 9.0 do asynchronously, as cu_wgmma_ptx.h describes it: barriers of phases and
 * barriers of some threads (barriers.cpp), copies of boxes (boxes.cpp), products of warpgroups (warpgroup.cpp), and
 * what must be fenced before (fences.cpp). warpgroup.h has the wrappers that kernels call. */
#ifndef NF_TESTS_CUDA_ASYNC_H
#define NF_TESTS_CUDA_ASYNC_H

#include <stdint.h>

#include "block.h"
#include "map.h"
#include "told.h"

enum { HOST_PHASED = 64, HOST_NAMED = 16, HOST_BOXES = 256, HOST_PRODUCTS = 128 };

/* A barrier in shared memory. */
struct host_phased {
    unsigned address;
    int arrivals, awaited; /* in a phase, and still in this one */
    long bytes;            /* that this phase has yet to get */
    unsigned phase;
    unsigned maker, barriers_passed; /* when it was made */
    bool announced;
    char order[TURNS];
};

/* A barrier with a number. */
struct host_named {
    int threads, arrived;
    unsigned use;
    uint32_t came[HOST_MOST_THREADS / HOST_LANES];
    char order[TURNS];
};

/* On its way to shared memory. */
struct host_box {
    host_map map;
    int at[HOST_MAP_RANK];
    unsigned to, bytes;
    host_phased *barrier;
};

/* 64 x 16 by 16 x columns numbers. a and b are what cu_lines_at makes. */
struct host_factors {
    uint64_t a, b;
    bool across; /* a is in registers, b's lines are what is summed over */
    bool add;
    int columns;
    float (*load)(uint16_t);
};

/* Begun, and each thread's sums and numbers of a. */
struct host_product {
    host_factors factors;
    float *sums[HOST_WARPGROUP];
    const unsigned *a[HOST_WARPGROUP];
    long group;
};

struct host_warpgroup {
    host_product pending[HOST_PRODUCTS];
    int count, due; /* all, and those that a wait is for */
    long groups;    /* committed */
    bool begun;
};

enum { HOST_ROWS = 64, HOST_TERMS = 16, HOST_COLUMNS = 128 };

/* Numbers of the product that is computed. */
struct host_operands {
    float a[HOST_ROWS][HOST_TERMS], b[HOST_TERMS][HOST_COLUMNS], sums[HOST_ROWS][HOST_COLUMNS];
    float columns[HOST_COLUMNS][HOST_TERMS]; /* of b, where those are its lines */
};

/* A block's. Zeros when the launch begins. */
struct host_async {
    host_phased phased[HOST_PHASED];
    host_named named[HOST_NAMED];
    host_box boxes[HOST_BOXES];
    int phased_count, boxes_count;
    host_warpgroup warpgroups[HOST_MOST_THREADS / HOST_WARPGROUP];
    host_operands operands;
    uint32_t writes[(HOST_FIRST_ADDRESS + HOST_DYNAMIC_BYTES) / HOST_CHUNK + 1], fences[HOST_MOST_THREADS];
};
host_async *host_async_here();

void host_phased_init(unsigned address, int arrivals);
void host_phased_init_done();
void host_phased_arrive(unsigned address, int bytes); /* expects so many more */
void host_phased_wait(unsigned address, int parity);
host_phased *host_find_phased(unsigned address); /* NULL after a fault */
void host_bytes_come(host_phased *barrier, unsigned bytes);

void host_named_arrive(int barrier, int threads, bool waits);

void host_copy_box(unsigned to, const void *map, const int at[HOST_MAP_RANK], unsigned barrier);

/* What was written before by the calling thread may be touched by products and boxes. */
void host_fence();
void host_touch(unsigned address, unsigned bytes);
void host_forget_writes(unsigned address, unsigned bytes);

void host_products_begin();
void host_multiply(float *sums, const unsigned *a, const host_factors *factors);
void host_products_commit();
void host_products_wait(int pending);
void host_gather_only();

/* For block.cpp: a block begins; the oldest box that comes to a barrier lands; the products run that a warpgroup waits
 * for; a thread ends; the block has. */
void host_begin_async(host_async *async);
bool host_land_for(const void *barrier);
bool host_run_for(const void *warpgroup);
void host_end_of_products();
const char *host_judge_async();

#endif
