/* What the mock driver writes into a CUtensorMap, and copies of boxes read. */
#ifndef NF_TESTS_CUDA_MAP_H
#define NF_TESTS_CUDA_MAP_H

#include <stdint.h>

enum { HOST_MAP_MARK = 0x6d6170, HOST_MAP_RANK = 5, HOST_MAP_BYTES = 128, HOST_MAP_ALIGNMENT = 64 };

typedef struct host_map {
    uint32_t mark; /* of a map that was made */
    uint8_t rank, element_bytes, swizzle, element_strides[HOST_MAP_RANK];
    uint16_t box[HOST_MAP_RANK];
    uint32_t last[HOST_MAP_RANK];             /* coordinates in the tensor */
    uint64_t address, strides[HOST_MAP_RANK]; /* in bytes */
} host_map;

#endif
