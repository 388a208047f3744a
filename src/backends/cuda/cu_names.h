/* The types and numbers of the CUDA driver interface that this backend uses, as NVIDIA's cuda.h has them: a build needs
 * no header of CUDA, as it needs no library. tests/test_cuda_names.c compares them with <cuda.h> where there is one. */
#ifndef NF_CU_NAMES_H
#define NF_CU_NAMES_H

#include <stddef.h>
#include <stdint.h>

/* That header, included before, has all of this but the list of constants. */
#ifndef CUDA_VERSION

typedef int CUresult, CUdevice, CUdevice_attribute, CUfunction_attribute, CUpointer_attribute, CUstreamCaptureStatus;
typedef unsigned long long CUdeviceptr;
typedef struct CUctx_st *CUcontext;
typedef struct CUmod_st *CUmodule;
typedef struct CUfunc_st *CUfunction;
typedef struct CUstream_st *CUstream;
typedef struct CUevent_st *CUevent;
typedef uint32_t cuuint32_t;
typedef uint64_t cuuint64_t;
typedef int CUtensorMapDataType, CUtensorMapInterleave, CUtensorMapSwizzle, CUtensorMapL2promotion,
    CUtensorMapFloatOOBfill;
typedef struct CUtensorMap_st {
    _Alignas(64) cuuint64_t opaque[16];
} CUtensorMap;

#endif

#define CU_CONSTANTS(X)                                                                                                \
    X(CUDA_SUCCESS, 0)                                                                                                 \
    X(CUDA_ERROR_OUT_OF_MEMORY, 2)                                                                                     \
    X(CUDA_ERROR_NO_DEVICE, 100)                                                                                       \
    X(CUDA_ERROR_INVALID_IMAGE, 200)                                                                                   \
    X(CUDA_ERROR_NO_BINARY_FOR_GPU, 209)                                                                               \
    X(CUDA_ERROR_UNSUPPORTED_PTX_VERSION, 222)                                                                         \
    X(CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES, 701)                                                                         \
    X(CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK, 1)                                                                    \
    X(CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK, 8)                                                              \
    X(CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, 16)                                                                    \
    X(CU_DEVICE_ATTRIBUTE_COMPUTE_MODE, 20)                                                                            \
    X(CU_DEVICE_ATTRIBUTE_PCI_BUS_ID, 33)                                                                              \
    X(CU_DEVICE_ATTRIBUTE_PCI_DEVICE_ID, 34)                                                                           \
    X(CU_DEVICE_ATTRIBUTE_PCI_DOMAIN_ID, 50)                                                                           \
    X(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, 75)                                                                \
    X(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, 76)                                                                \
    X(CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN, 97)                                                       \
    X(CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, 8)                                                              \
    X(CU_COMPUTEMODE_PROHIBITED, 2)                                                                                    \
    X(CU_POINTER_ATTRIBUTE_IS_MANAGED, 8)                                                                              \
    X(CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL, 9)                                                                          \
    X(CU_POINTER_ATTRIBUTE_RANGE_START_ADDR, 11)                                                                       \
    X(CU_POINTER_ATTRIBUTE_RANGE_SIZE, 12)                                                                             \
    X(CU_EVENT_DEFAULT, 0)                                                                                             \
    X(CU_STREAM_DEFAULT, 0)                                                                                            \
    X(CU_STREAM_CAPTURE_STATUS_NONE, 0)                                                                                \
    X(CU_EVENT_DISABLE_TIMING, 2)                                                                                      \
    X(CU_TENSOR_MAP_DATA_TYPE_UINT16, 1)                                                                               \
    X(CU_TENSOR_MAP_DATA_TYPE_FLOAT16, 6)                                                                              \
    X(CU_TENSOR_MAP_DATA_TYPE_FLOAT32, 7)                                                                              \
    X(CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 9)                                                                             \
    X(CU_TENSOR_MAP_INTERLEAVE_NONE, 0)                                                                                \
    X(CU_TENSOR_MAP_SWIZZLE_NONE, 0)                                                                                   \
    X(CU_TENSOR_MAP_SWIZZLE_128B, 3)                                                                                   \
    X(CU_TENSOR_MAP_L2_PROMOTION_NONE, 0)                                                                              \
    X(CU_TENSOR_MAP_L2_PROMOTION_L2_256B, 3)                                                                           \
    X(CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE, 0)

#ifndef CUDA_VERSION
#define CU_CONSTANT(name, value) name = (value),
enum { CU_CONSTANTS(CU_CONSTANT) };
#undef CU_CONSTANT
#endif

#endif
