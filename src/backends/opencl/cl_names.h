/* The types and numbers of the OpenCL interface that this backend uses, as the Khronos headers have them: a build needs
 * no header of OpenCL, as it needs no library. tests/test_opencl_names.c compares them with <CL/cl.h> where there is
 * one. */
#ifndef NF_CL_NAMES_H
#define NF_CL_NAMES_H

#include <stddef.h>
#include <stdint.h>

/* That header, included before, has all of this but the list of constants. */
#ifndef CL_VERSION_1_2

typedef int32_t cl_int;
typedef uint32_t cl_uint;
typedef int64_t cl_long;
typedef uint64_t cl_ulong;
typedef cl_uint cl_bool;
typedef cl_ulong cl_bitfield;
typedef cl_bitfield cl_device_type, cl_device_fp_config, cl_command_queue_properties, cl_mem_flags, cl_map_flags;
typedef cl_uint cl_platform_info, cl_device_info, cl_context_info, cl_command_queue_info, cl_mem_info, cl_program_info;
typedef cl_uint cl_program_build_info, cl_kernel_work_group_info, cl_event_info;
typedef intptr_t cl_context_properties;

typedef struct _cl_platform_id *cl_platform_id;
typedef struct _cl_device_id *cl_device_id;
typedef struct _cl_context *cl_context;
typedef struct _cl_command_queue *cl_command_queue;
typedef struct _cl_mem *cl_mem;
typedef struct _cl_program *cl_program;
typedef struct _cl_kernel *cl_kernel;
typedef struct _cl_event *cl_event;

#endif

#define CL_CONSTANTS(X)                                                                                                \
    X(CL_SUCCESS, 0)                                                                                                   \
    X(CL_DEVICE_NOT_FOUND, -1)                                                                                         \
    X(CL_MEM_OBJECT_ALLOCATION_FAILURE, -4)                                                                            \
    X(CL_OUT_OF_RESOURCES, -5)                                                                                         \
    X(CL_OUT_OF_HOST_MEMORY, -6)                                                                                       \
    X(CL_BUILD_PROGRAM_FAILURE, -11)                                                                                   \
    X(CL_INVALID_BUFFER_SIZE, -61)                                                                                     \
    X(CL_TRUE, 1)                                                                                                      \
    X(CL_COMPLETE, 0)                                                                                                  \
    X(CL_PLATFORM_VERSION, 0x0901)                                                                                     \
    X(CL_PLATFORM_NAME, 0x0902)                                                                                        \
    X(CL_DEVICE_TYPE_CPU, 1 << 1)                                                                                      \
    X(CL_DEVICE_TYPE_GPU, 1 << 2)                                                                                      \
    X(CL_DEVICE_TYPE_ACCELERATOR, 1 << 3)                                                                              \
    X(CL_DEVICE_TYPE, 0x1000)                                                                                          \
    X(CL_DEVICE_MAX_COMPUTE_UNITS, 0x1002)                                                                             \
    X(CL_DEVICE_MAX_WORK_GROUP_SIZE, 0x1004)                                                                           \
    X(CL_DEVICE_MAX_MEM_ALLOC_SIZE, 0x1010)                                                                            \
    X(CL_DEVICE_GLOBAL_MEM_SIZE, 0x101F)                                                                               \
    X(CL_DEVICE_LOCAL_MEM_SIZE, 0x1023)                                                                                \
    X(CL_DEVICE_ENDIAN_LITTLE, 0x1026)                                                                                 \
    X(CL_DEVICE_AVAILABLE, 0x1027)                                                                                     \
    X(CL_DEVICE_COMPILER_AVAILABLE, 0x1028)                                                                            \
    X(CL_DEVICE_NAME, 0x102B)                                                                                          \
    X(CL_DEVICE_VENDOR, 0x102C)                                                                                        \
    X(CL_DRIVER_VERSION, 0x102D)                                                                                       \
    X(CL_DEVICE_VERSION, 0x102F)                                                                                       \
    X(CL_DEVICE_EXTENSIONS, 0x1030)                                                                                    \
    X(CL_DEVICE_PLATFORM, 0x1031)                                                                                      \
    X(CL_DEVICE_DOUBLE_FP_CONFIG, 0x1032)                                                                              \
    X(CL_DEVICE_NATIVE_VECTOR_WIDTH_FLOAT, 0x103A)                                                                     \
    X(CL_CONTEXT_DEVICES, 0x1081)                                                                                      \
    X(CL_CONTEXT_PLATFORM, 0x1084)                                                                                     \
    X(CL_QUEUE_CONTEXT, 0x1090)                                                                                        \
    X(CL_QUEUE_DEVICE, 0x1091)                                                                                         \
    X(CL_MEM_READ_WRITE, 1 << 0)                                                                                       \
    X(CL_MEM_READ_ONLY, 1 << 2)                                                                                        \
    X(CL_MEM_COPY_HOST_PTR, 1 << 5)                                                                                    \
    X(CL_MEM_SIZE, 0x1102)                                                                                             \
    X(CL_MEM_CONTEXT, 0x1106)                                                                                          \
    X(CL_MAP_READ, 1 << 0)                                                                                             \
    X(CL_MAP_WRITE_INVALIDATE_REGION, 1 << 2)                                                                          \
    X(CL_PROGRAM_BINARY_SIZES, 0x1165)                                                                                 \
    X(CL_PROGRAM_BINARIES, 0x1166)                                                                                     \
    X(CL_PROGRAM_BUILD_LOG, 0x1183)                                                                                    \
    X(CL_KERNEL_WORK_GROUP_SIZE, 0x11B0)                                                                               \
    X(CL_EVENT_COMMAND_EXECUTION_STATUS, 0x11D3)                                                                       \
    X(CL_EVENT_CONTEXT, 0x11D4)

#ifndef CL_VERSION_1_2
#define CL_CONSTANT(name, value) name = (value),
enum { CL_CONSTANTS(CL_CONSTANT) };
#undef CL_CONSTANT
#endif

#endif
