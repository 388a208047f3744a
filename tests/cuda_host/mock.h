/* What the parts of the mock CUDA driver share.
 *
 * A libcuda.so.1 that runs kernels on the host (module.cpp) and fails where it is told to. What is enqueued
 * happens as late as its caller's waits allow.
 *
 *   MOCK_CUDA, MOCK_CUDA_REPORT   as mock_books.h says; early=1: what is enqueued happens at once. The name of a kernel
 *                                 begins with that of its program.
 *   MOCK_CUDA_MODULES             folder of the kernels, NAME.so. */
#ifndef NF_TESTS_CUDA_MOCK_H
#define NF_TESTS_CUDA_MOCK_H

#include <stdbool.h>
#include <stdint.h>

#include "backends/cuda/cu_names.h"
#include "mock_books.h"

/* Results that only the mock names. */
enum {
    INVALID_VALUE = 1,
    INVALID_CONTEXT = 201,
    INVALID_HANDLE = 400,
    NOT_FOUND = 500,
    NOT_READY = 600,
    LAUNCH_FAILED = 719
};

typedef struct mock_settings {
    long devices, driver, capability; /* 1000 * major + 10 * minor; 10 * major + minor */
    long units, threads, shared, most_shared, memory, prohibited;
    long order;   /* of the threads of a block: host_order */
    long verdict; /* how kernels end: 0, or the error that a wait gets */
    long early;   /* what is enqueued happens at once */
    long copies;  /* within kernels, asynchronous ones land 0: as late as waits allow, 1: at once */
    char name[MOCK_TEXT];
} mock_settings;

extern mock_settings mock;

typedef enum mock_kind { CONTEXT, STREAM, EVENT, MODULE, MEMORY, HOST_MEMORY, KINDS } mock_kind;

struct CUctx_st {
    mock_handle base;
    int device;
};

typedef struct mock_command mock_command;

struct CUstream_st {
    mock_handle base;
    CUcontext context;
    mock_command *first, *last; /* enqueued, not yet done */
    long enqueued, done;
};
struct CUevent_st {
    mock_handle base;
    CUstream stream; /* where it was recorded, NULL: nowhere */
    long at;         /* how many commands were before it */
    bool timed;
    long time; /* of one that is timed: when the stream came to it */
};
struct CUmod_st {
    mock_handle base;
    const char *program; /* its name */
    void *library;
    struct CUfunc_st *functions;
};
struct CUfunc_st {
    char title[MOCK_TEXT]; /* the names of its program and of itself */
    CUmodule module;
    void (*call)(void **);
    const size_t *sizes; /* of its parameters, 0 after the last */
    int shared;          /* dynamic shared memory that it may be launched with */
    struct CUfunc_st *next;
};
typedef struct mock_memory {
    mock_handle base;
    unsigned char *bytes; /* between guards */
    size_t size;
    int device;
} mock_memory;

/* mock_enter for calls that need a current context and the device, which may be lost. */
CUresult mock_enter_device(const char *call);
/* The live device or host memory that holds an address, NULL: none. */
mock_memory *mock_find_memory(mock_kind kind, const void *address);

/* driver.c: the context on top of the calling thread's stack, or NULL. */
CUcontext mock_current(void);
/* memory.c: makes device memory, whatever fits, and frees it. */
CUresult mock_allocate(CUdeviceptr *address, size_t size);
void mock_free(const char *call, const void *address);
/* streams.c: does what was enqueued, up to a number of commands. Returns the first error of a kernel. */
CUresult mock_flush(CUstream stream, long until);
CUresult mock_flush_all(void);

#endif
