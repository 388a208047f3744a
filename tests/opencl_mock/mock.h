/* What the parts of the mock OpenCL library share: settings, books, handles.
 *
 * A libOpenCL.so.1 that computes nothing and fails where it is told to, for tests/opencl_faults.sh and opencl_cache.sh.
 * It keeps the books of its caller: every call, every handle that was not released, every misuse.
 *
 *   MOCK_OPENCL         words with ';' between. fail=CALL:CODE[:FIRST[:LAST]]: the FIRST-th to LAST-th calls of an
 * entry point (all by default) return CODE. lost: once a kernel was enqueued the device is gone. NAME=VALUE: one of the
 * settings below. MOCK_OPENCL_REPORT  file that gets the books at exit: "calls NAME COUNT", "leaked KIND COUNT",
 * "misuse ..." */
#ifndef NF_TESTS_OPENCL_MOCK_H
#define NF_TESTS_OPENCL_MOCK_H

#define CL_TARGET_OPENCL_VERSION 120
#include <CL/cl.h>
#include <stdbool.h>
#include <stddef.h>

#define MOCK __attribute__((visibility("default")))

enum { MOCK_TEXT = 256, MOCK_BINARY = 64 };

typedef struct mock_settings {
    long platforms, devices; /* devices of every platform */
    long empty;              /* so many platforms, the first ones, have no device */
    long local, group, kernel_group, alloc, units, type, available, compiler, fp64;
    long log, binary; /* bytes of a build log and of a program's binary */
    long verdict;     /* how kernels end: 0, or the negative status of their events */
    char version[MOCK_TEXT], c_version[MOCK_TEXT], name[MOCK_TEXT], driver[MOCK_TEXT], vendor[MOCK_TEXT];
    char extensions[MOCK_TEXT];
} mock_settings;

extern mock_settings mock;

typedef enum mock_kind { CONTEXT, QUEUE, MEMORY, PROGRAM, KERNEL, EVENT, KINDS } mock_kind;

/* Begins every handle. Dead ones stay, so that their use is noticed. */
typedef struct mock_handle {
    mock_kind kind;
    int references;
    struct mock_handle *next;
} mock_handle;

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
struct _cl_event {
    mock_handle base;
    cl_context context;
    cl_int status;
};

/* Counts a call; what it must fail with, or CL_SUCCESS. The second is for calls that need the device, which may be
 * lost. */
cl_int mock_enter(const char *call);
cl_int mock_enter_device(const char *call);
bool mock_is_lost(void);
/* A kernel was enqueued. */
void mock_kernel_ran(void);

void mock_misuse(const char *call, const char *what);
/* A new handle of one reference, zeroed. */
void *mock_make(mock_kind kind, size_t size);
/* Whether this is a live handle of its kind; if not, that is a misuse. */
bool mock_is_live(const char *call, mock_kind kind, const void *handle);
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
