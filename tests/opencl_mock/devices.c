/* Platforms, devices, contexts, queues and memory. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mock.h"

enum { MAX_DEVICES = 8 };

static struct _cl_platform_id platforms[MAX_DEVICES];
static struct _cl_device_id devices[MAX_DEVICES][MAX_DEVICES];

MOCK cl_int clGetPlatformIDs(cl_uint capacity, cl_platform_id *list, cl_uint *count)
{
    const cl_int code = mock_enter(__func__);
    if (code != CL_SUCCESS)
        return code;
    if (count)
        *count = (cl_uint)mock.platforms;
    for (cl_uint i = 0; list && i < capacity && i < (cl_uint)mock.platforms; i++) {
        platforms[i].index = (int)i;
        list[i] = &platforms[i];
    }
    return CL_SUCCESS;
}

MOCK cl_int clGetPlatformInfo(cl_platform_id platform, cl_platform_info key, size_t capacity, void *buffer,
                              size_t *length)
{
    const cl_int code = mock_enter(__func__);
    char name[MOCK_TEXT];
    if (code != CL_SUCCESS)
        return code;
    switch (key) {
    case CL_PLATFORM_NAME:
        snprintf(name, sizeof name, "Mock platform %d", platform->index);
        return ANSWER_TEXT(name);
    case CL_PLATFORM_VENDOR:
        return ANSWER_TEXT(mock.vendor);
    case CL_PLATFORM_VERSION:
        return ANSWER_TEXT(mock.version);
    case CL_PLATFORM_PROFILE:
        return ANSWER_TEXT("FULL_PROFILE");
    case CL_PLATFORM_EXTENSIONS:
        return ANSWER_TEXT("");
    default:
        return CL_INVALID_VALUE;
    }
}

MOCK cl_int clGetDeviceIDs(cl_platform_id platform, cl_device_type type, cl_uint capacity, cl_device_id *list,
                           cl_uint *count)
{
    const cl_int code = mock_enter(__func__);
    const bool wanted = type == CL_DEVICE_TYPE_ALL || type & (cl_device_type)mock.type;
    const cl_uint found = wanted && platform->index >= mock.empty ? (cl_uint)mock.devices : 0;
    if (code != CL_SUCCESS)
        return code;
    if (count)
        *count = found;
    for (cl_uint i = 0; list && i < capacity && i < found; i++) {
        devices[platform->index][i] = (struct _cl_device_id){.platform = platform, .index = (int)i};
        list[i] = &devices[platform->index][i];
    }
    return found ? CL_SUCCESS : CL_DEVICE_NOT_FOUND;
}

/* Devices are at 0000:81:02.1, in each vendor's words. */
static cl_int device_place(cl_device_info key, size_t capacity, void *buffer, size_t *length)
{
    enum { KHRONOS = 1, NVIDIA, AMD };
    static const struct {
        cl_device_info key;
        long pci;
        size_t size;
        unsigned char bytes[24];
    } answers[] = {
        {0x410F, KHRONOS, 16, {[4] = 0x81, [8] = 2, [12] = 1}},
        {0x4008, NVIDIA, 4, {0x81}},
        {0x4009, NVIDIA, 4, {2 << 3 | 1}},
        {0x4037, AMD, 24, {[0] = 1, [21] = 0x81, 2, 1}},
    };
    for (size_t i = 0; i < sizeof answers / sizeof *answers; i++)
        if (answers[i].key == key && answers[i].pci == mock.pci)
            return mock_answer(answers[i].bytes, answers[i].size, capacity, buffer, length);
    return CL_INVALID_VALUE;
}

static cl_int device_text(cl_device_id device, cl_device_info key, size_t capacity, void *buffer, size_t *length)
{
    char name[MOCK_TEXT + 8];
    switch (key) {
    case CL_DEVICE_NAME:
        snprintf(name, sizeof name, mock.devices > 1 ? "%s %d" : "%s", mock.name, device->index);
        return ANSWER_TEXT(name);
    case CL_DEVICE_VENDOR:
        return ANSWER_TEXT(mock.vendor);
    case CL_DEVICE_VERSION:
        return ANSWER_TEXT(mock.version);
    case CL_DEVICE_OPENCL_C_VERSION:
        return ANSWER_TEXT(mock.c_version);
    case CL_DRIVER_VERSION:
        return ANSWER_TEXT(mock.driver);
    case CL_DEVICE_PROFILE:
        return ANSWER_TEXT("FULL_PROFILE");
    case CL_DEVICE_EXTENSIONS:
        return ANSWER_TEXT(mock.fp64 ? mock.extensions : "");
    default:
        return device_place(key, capacity, buffer, length);
    }
}

MOCK cl_int clGetDeviceInfo(cl_device_id device, cl_device_info key, size_t capacity, void *buffer, size_t *length)
{
    const cl_int code = mock_enter(__func__);
    if (code != CL_SUCCESS)
        return code;
    const cl_device_type type = (cl_device_type)mock.type;
    const cl_ulong local = (cl_ulong)mock.local, alloc = (cl_ulong)mock.alloc, global = 4 * alloc;
    const cl_device_local_mem_type local_type = CL_LOCAL;
    const cl_device_fp_config fp64 = mock.fp64 ? CL_FP_FMA : 0, fp32 = CL_FP_ROUND_TO_NEAREST | CL_FP_INF_NAN;
    const cl_bool available = mock.available != 0, compiler = mock.compiler != 0, yes = CL_TRUE;
    const cl_uint units = (cl_uint)mock.units, dimensions = 3, bits = 64, vendor = 0xbeef, clock = 1000, align = 1024;
    const size_t group = (size_t)mock.group, items[3] = {group, group, group};
    const cl_platform_id platform = device->platform;
    switch (key) {
    case CL_DEVICE_TYPE:
        return ANSWER(type);
    case CL_DEVICE_VENDOR_ID:
        return ANSWER(vendor);
    case CL_DEVICE_MAX_COMPUTE_UNITS:
        return ANSWER(units);
    case CL_DEVICE_MAX_CLOCK_FREQUENCY:
        return ANSWER(clock);
    case CL_DEVICE_MAX_WORK_ITEM_DIMENSIONS:
        return ANSWER(dimensions);
    case CL_DEVICE_MAX_WORK_GROUP_SIZE:
        return ANSWER(group);
    case CL_DEVICE_MAX_WORK_ITEM_SIZES:
        return ANSWER(items);
    case CL_DEVICE_ADDRESS_BITS:
        return ANSWER(bits);
    case CL_DEVICE_MEM_BASE_ADDR_ALIGN:
        return ANSWER(align);
    case CL_DEVICE_MAX_MEM_ALLOC_SIZE:
        return ANSWER(alloc);
    case CL_DEVICE_MAX_CONSTANT_BUFFER_SIZE:
        return ANSWER(alloc);
    case CL_DEVICE_GLOBAL_MEM_SIZE:
        return ANSWER(global);
    case CL_DEVICE_LOCAL_MEM_SIZE:
        return ANSWER(local);
    case CL_DEVICE_LOCAL_MEM_TYPE:
        return ANSWER(local_type);
    case CL_DEVICE_SINGLE_FP_CONFIG:
        return ANSWER(fp32);
    case CL_DEVICE_DOUBLE_FP_CONFIG:
        return ANSWER(fp64);
    case CL_DEVICE_AVAILABLE:
        return ANSWER(available);
    case CL_DEVICE_COMPILER_AVAILABLE:
        return ANSWER(compiler);
    case CL_DEVICE_ENDIAN_LITTLE:
        return ANSWER(yes);
    case CL_DEVICE_PLATFORM:
        return ANSWER(platform);
    default:
        return device_text(device, key, capacity, buffer, length);
    }
}

MOCK cl_context clCreateContext(const cl_context_properties *properties, cl_uint count, const cl_device_id *list,
                                void (*notify)(const char *, const void *, size_t, void *), void *user, cl_int *error)
{
    (void)properties, (void)notify, (void)user;
    const cl_int code = mock_enter(__func__);
    if (code != CL_SUCCESS || count != 1)
        return mock_refuse(error, code != CL_SUCCESS ? code : CL_INVALID_VALUE);
    cl_context context = mock_make(CONTEXT, sizeof *context);
    context->device = *list;
    return mock_grant(error, context);
}

MOCK cl_int clRetainContext(cl_context context)
{
    return mock_count_reference(__func__, CONTEXT, context, 1);
}
MOCK cl_int clReleaseContext(cl_context context)
{
    return mock_count_reference(__func__, CONTEXT, context, -1);
}

MOCK cl_int clGetContextInfo(cl_context context, cl_context_info key, size_t capacity, void *buffer, size_t *length)
{
    const cl_int code = mock_enter(__func__);
    const cl_uint one = 1;
    if (code != CL_SUCCESS || !mock_is_live(__func__, CONTEXT, context))
        return code != CL_SUCCESS ? code : CL_INVALID_CONTEXT;
    return key == CL_CONTEXT_DEVICES       ? ANSWER(context->device)
           : key == CL_CONTEXT_NUM_DEVICES ? ANSWER(one)
                                           : CL_INVALID_VALUE;
}

MOCK cl_command_queue clCreateCommandQueue(cl_context context, cl_device_id device,
                                           cl_command_queue_properties properties, cl_int *error)
{
    (void)device, (void)properties;
    const cl_int code = mock_enter(__func__);
    if (code != CL_SUCCESS || !mock_is_live(__func__, CONTEXT, context))
        return mock_refuse(error, code != CL_SUCCESS ? code : CL_INVALID_CONTEXT);
    cl_command_queue queue = mock_make(QUEUE, sizeof *queue);
    queue->context = context;
    return mock_grant(error, queue);
}

MOCK cl_int clRetainCommandQueue(cl_command_queue queue)
{
    return mock_count_reference(__func__, QUEUE, queue, 1);
}
MOCK cl_int clReleaseCommandQueue(cl_command_queue queue)
{
    return mock_count_reference(__func__, QUEUE, queue, -1);
}

MOCK cl_int clGetCommandQueueInfo(cl_command_queue queue, cl_command_queue_info key, size_t capacity, void *buffer,
                                  size_t *length)
{
    const cl_int code = mock_enter(__func__);
    const cl_command_queue_properties none = 0;
    if (code != CL_SUCCESS || !mock_is_live(__func__, QUEUE, queue))
        return code != CL_SUCCESS ? code : CL_INVALID_COMMAND_QUEUE;
    return key == CL_QUEUE_CONTEXT      ? ANSWER(queue->context)
           : key == CL_QUEUE_DEVICE     ? ANSWER(queue->context->device)
           : key == CL_QUEUE_PROPERTIES ? ANSWER(none)
                                        : CL_INVALID_VALUE;
}

MOCK cl_mem clCreateBuffer(cl_context context, cl_mem_flags flags, size_t size, void *host, cl_int *error)
{
    const cl_int code = mock_enter_device(__func__);
    if (code != CL_SUCCESS || !mock_is_live(__func__, CONTEXT, context))
        return mock_refuse(error, code != CL_SUCCESS ? code : CL_INVALID_CONTEXT);
    if (size == 0 || size > (size_t)mock.alloc) {
        mock_misuse(__func__, size ? "more than CL_DEVICE_MAX_MEM_ALLOC_SIZE" : "no bytes");
        return mock_refuse(error, CL_INVALID_BUFFER_SIZE);
    }
    cl_mem memory = mock_make(MEMORY, sizeof *memory);
    memory->size = size;
    memory->context = context;
    memory->bytes = malloc(size);
    if (!memory->bytes)
        abort();
    if (flags & (CL_MEM_COPY_HOST_PTR | CL_MEM_USE_HOST_PTR))
        memcpy(memory->bytes, host, size);
    else
        memset(memory->bytes, 0, size);
    return mock_grant(error, memory);
}

MOCK cl_int clRetainMemObject(cl_mem memory)
{
    return mock_count_reference(__func__, MEMORY, memory, 1);
}

MOCK cl_int clReleaseMemObject(cl_mem memory)
{
    const cl_int code = mock_count_reference(__func__, MEMORY, memory, -1);
    if (code != CL_INVALID_VALUE && memory->base.references == 0) {
        free(memory->bytes);
        memory->bytes = NULL;
    }
    return code;
}

MOCK cl_int clGetMemObjectInfo(cl_mem memory, cl_mem_info key, size_t capacity, void *buffer, size_t *length)
{
    const cl_int code = mock_enter(__func__);
    if (code != CL_SUCCESS || !mock_is_live(__func__, MEMORY, memory))
        return code != CL_SUCCESS ? code : CL_INVALID_MEM_OBJECT;
    return key == CL_MEM_SIZE      ? ANSWER(memory->size)
           : key == CL_MEM_CONTEXT ? ANSWER(memory->context)
                                   : CL_INVALID_VALUE;
}
