/* The entry points of the CUDA driver, looked up at run time in libcuda.so.1: one build runs everywhere. */
#ifndef NF_CU_API_H
#define NF_CU_API_H

#include "backends/cuda/cu_names.h"
#include "core/status.h"

/* Every entry point that this backend calls: our name, the symbol (cuda.h renames those whose parameters have changed),
 * parameters. All return CUresult. */
#define CU_FUNCTIONS(X)                                                                                                \
    X(cuInit, "cuInit", (unsigned))                                                                                    \
    X(cuDriverGetVersion, "cuDriverGetVersion", (int *))                                                               \
    X(cuGetErrorName, "cuGetErrorName", (CUresult, const char **))                                                     \
    X(cuGetErrorString, "cuGetErrorString", (CUresult, const char **))                                                 \
    X(cuDeviceGetCount, "cuDeviceGetCount", (int *))                                                                   \
    X(cuDeviceGet, "cuDeviceGet", (CUdevice *, int))                                                                   \
    X(cuDeviceGetName, "cuDeviceGetName", (char *, int, CUdevice))                                                     \
    X(cuDeviceTotalMem, "cuDeviceTotalMem_v2", (size_t *, CUdevice))                                                   \
    X(cuDeviceGetAttribute, "cuDeviceGetAttribute", (int *, CUdevice_attribute, CUdevice))                             \
    X(cuDevicePrimaryCtxRetain, "cuDevicePrimaryCtxRetain", (CUcontext *, CUdevice))                                   \
    X(cuDevicePrimaryCtxRelease, "cuDevicePrimaryCtxRelease_v2", (CUdevice))                                           \
    X(cuCtxPushCurrent, "cuCtxPushCurrent_v2", (CUcontext))                                                            \
    X(cuCtxPopCurrent, "cuCtxPopCurrent_v2", (CUcontext *))                                                            \
    X(cuModuleLoadData, "cuModuleLoadData", (CUmodule *, const void *))                                                \
    X(cuModuleUnload, "cuModuleUnload", (CUmodule))                                                                    \
    X(cuModuleGetFunction, "cuModuleGetFunction", (CUfunction *, CUmodule, const char *))                              \
    X(cuFuncSetAttribute, "cuFuncSetAttribute", (CUfunction, CUfunction_attribute, int))                               \
    X(cuMemAlloc, "cuMemAlloc_v2", (CUdeviceptr *, size_t))                                                            \
    X(cuMemFree, "cuMemFree_v2", (CUdeviceptr))                                                                        \
    X(cuMemAllocAsync, "cuMemAllocAsync", (CUdeviceptr *, size_t, CUstream))                                           \
    X(cuMemFreeAsync, "cuMemFreeAsync", (CUdeviceptr, CUstream))                                                       \
    X(cuMemAllocHost, "cuMemAllocHost_v2", (void **, size_t))                                                          \
    X(cuMemFreeHost, "cuMemFreeHost", (void *))                                                                        \
    X(cuMemcpyHtoDAsync, "cuMemcpyHtoDAsync_v2", (CUdeviceptr, const void *, size_t, CUstream))                        \
    X(cuMemcpyDtoHAsync, "cuMemcpyDtoHAsync_v2", (void *, CUdeviceptr, size_t, CUstream))                              \
    X(cuPointerGetAttribute, "cuPointerGetAttribute", (void *, CUpointer_attribute, CUdeviceptr))                      \
    X(cuStreamCreate, "cuStreamCreate", (CUstream *, unsigned))                                                        \
    X(cuStreamDestroy, "cuStreamDestroy_v2", (CUstream))                                                               \
    X(cuStreamGetCtx, "cuStreamGetCtx", (CUstream, CUcontext *))                                                       \
    X(cuStreamIsCapturing, "cuStreamIsCapturing", (CUstream, CUstreamCaptureStatus *))                                 \
    X(cuStreamSynchronize, "cuStreamSynchronize", (CUstream))                                                          \
    X(cuStreamWaitEvent, "cuStreamWaitEvent", (CUstream, CUevent, unsigned))                                           \
    X(cuEventCreate, "cuEventCreate", (CUevent *, unsigned))                                                           \
    X(cuEventSynchronize, "cuEventSynchronize", (CUevent))                                                             \
    X(cuEventDestroy, "cuEventDestroy_v2", (CUevent))                                                                  \
    X(cuEventElapsedTime, "cuEventElapsedTime", (float *, CUevent, CUevent))                                           \
    X(cuEventRecord, "cuEventRecord", (CUevent, CUstream))                                                             \
    X(cuLaunchKernel, "cuLaunchKernel",                                                                                \
      (CUfunction, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, CUstream, void **, void **))  \
    X(cuTensorMapEncodeTiled, "cuTensorMapEncodeTiled",                                                                \
      (CUtensorMap *, CUtensorMapDataType, cuuint32_t, void *, const cuuint64_t *, const cuuint64_t *,                 \
       const cuuint32_t *, const cuuint32_t *, CUtensorMapInterleave, CUtensorMapSwizzle, CUtensorMapL2promotion,      \
       CUtensorMapFloatOOBfill))

typedef struct cu_api {
    void *library;
#define CU_MEMBER(name, symbol, parameters) CUresult(*name) parameters;
    CU_FUNCTIONS(CU_MEMBER)
#undef CU_MEMBER
} cu_api;

/* NF_ERR_UNAVAILABLE with the reason. The library stays loaded: drivers do not survive being unloaded. */
nf_status cu_api_load(cu_api *api);

/* Records "WHAT: CUDA_NAME (number): the driver's words" and returns the status that a CUDA error amounts to. */
nf_status cu_fail(const cu_api *api, CUresult error, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* "CUDA_ERROR_OUT_OF_MEMORY", ...; "an unknown error" for a number that the driver does not know. */
const char *cu_error_name(const cu_api *api, CUresult error);

#endif
