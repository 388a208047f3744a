/* What programs of products of warpgroups begin with. */
#ifndef NF_CU_WGMMA_WORDS_H
#define NF_CU_WGMMA_WORDS_H

#include "backends/cuda/cu_words.h"

#ifdef __CUDACC__
#include "backends/cuda/cu_wgmma_ptx.h"
#else
#include "warpgroup.h"
#endif

#include "backends/gpu/gpu_tables.h"

#define RANK 4
#define OUT_TYPE IN_TYPE

#endif
