/* What the parts of the mock OpenCL library share.
 *
 * A libOpenCL.so.1 that computes nothing and fails where it is told to, for tests/opencl_faults.sh and opencl_cache.sh.
 * MOCK_OPENCL and MOCK_OPENCL_REPORT are as mock_books.h says. */
#ifndef NF_TESTS_OPENCL_MOCK_H
#define NF_TESTS_OPENCL_MOCK_H

#define CL_TARGET_OPENCL_VERSION 120
#include <CL/cl.h>

#include "mock_books.h"

enum { MOCK_BINARY = 64 };

typedef struct mock_settings {
    long platforms, devices; /* devices of every platform */
    long empty;              /* so many platforms, the first ones, have no device */
    long local, group, kernel_group, alloc, units, type, available, compiler, fp64;
    long log, binary; /* bytes of a build log and of a program's binary */
    long verdict;     /* how kernels end: 0, or the negative status of their events */
    long pci;         /* whose extension tells where devices are: 0 nobody's, 1 Khronos's, 2 NVIDIA's, 3 AMD's */
    char version[MOCK_TEXT], c_version[MOCK_TEXT], name[MOCK_TEXT], driver[MOCK_TEXT], vendor[MOCK_TEXT];
    char extensions[MOCK_TEXT];
} mock_settings;

extern mock_settings mock;

typedef enum mock_kind { CONTEXT, QUEUE, MEMORY, PROGRAM, KERNEL, EVENT, KINDS } mock_kind;

struct _cl_platform_id {
    int index;
};
struct _cl_device_id {
    cl_platform_id platform;
    int index;
};
struct _cl_context {
    mock_handle base;
    cl_device_id device;
};
struct _cl_command_queue {
    mock_handle base;
    cl_context context;
    cl_event last; /* that of its last command */
};
struct _cl_mem {
    mock_handle base;
    size_t size;
    unsigned char *bytes;
    int mapped;
    cl_context context;
};
struct _cl_program {
    mock_handle base;
    cl_context context;
    bool from_binary, built, failed;
    unsigned char binary[MOCK_BINARY];
};
struct _cl_kernel {
    mock_handle base;
    cl_program program;
};
enum { MOCK_WAITS = 4 };

struct _cl_event {
    mock_handle base;
    cl_context context;
    cl_int status, verdict; /* now, and in the end if nothing that it waits for fails */
    cl_event before;        /* in its queue */
    cl_event waits[MOCK_WAITS];
    cl_uint wait_count;
};

/* mock_enter for calls that need the device, which may be lost. */
cl_int mock_enter_device(const char *call);
/* clRetain..., clRelease...: CL_INVALID_VALUE for what is no such handle. */
cl_int mock_count_reference(const char *call, mock_kind kind, void *handle, int change);

static inline void *mock_refuse(cl_int *error, cl_int code)
{
    if (error)
        *error = code;
    return NULL;
}

static inline void *mock_grant(cl_int *error, void *made)
{
    if (error)
        *error = CL_SUCCESS;
    return made;
}

/* The answer to a clGet...Info. */
cl_int mock_answer(const void *value, size_t size, size_t capacity, void *buffer, size_t *length);
#define ANSWER(value) mock_answer(&(value), sizeof(value), capacity, buffer, length)
#define ANSWER_TEXT(text) mock_answer((text), strlen(text) + 1, capacity, buffer, length)

#endif
