/* What the parts of the mock CUDA driver share: settings, books, handles.
 *
 * A libcuda.so.1 that runs kernels on the host (module.cpp) and fails where it is told to. It keeps the books of its
 * caller: every call, everything that was not released, every misuse. What is enqueued happens as late as its caller's
 * waits allow.
 *
 *   MOCK_CUDA          words with ';' between. fail=CALL:CODE[:FIRST[:LAST]]: the FIRST-th to LAST-th calls of an entry
 *                      point (all by default) return CODE. lost: once a kernel was enqueued the device is gone.
 *                      early: what is enqueued happens at once. NAME=VALUE: one of the settings below.
 *   MOCK_CUDA_MODULES  folder of the kernels, NAME.so.
 *   MOCK_CUDA_REPORT   file that gets the books at exit: "calls NAME COUNT", "leaked KIND COUNT", "misuse ...",
 *                      "kernel NAME COUNT". */
#ifndef NF_TESTS_CUDA_MOCK_H
#define NF_TESTS_CUDA_MOCK_H

#include <stdbool.h>
#include <stddef.h>

#include "backends/cuda/cu_names.h"

#define MOCK __attribute__((visibility("default")))

enum { MOCK_TEXT = 256 };

/* Results that only the mock names. */
enum { INVALID_VALUE = 1, INVALID_CONTEXT = 201, INVALID_HANDLE = 400, NOT_FOUND = 500, LAUNCH_FAILED = 719 };

typedef struct mock_settings {
    long devices, driver, capability; /* 1000 * major + 10 * minor; 10 * major + minor */
    long units, threads, shared, memory, prohibited;
    long order;   /* of the threads of a block: host_order */
    long verdict; /* how kernels end: 0, or the error that a wait gets */
    char name[MOCK_TEXT];
} mock_settings;

extern mock_settings mock;
extern bool mock_early;

typedef enum mock_kind { CONTEXT, STREAM, EVENT, MODULE, MEMORY, HOST_MEMORY, KINDS } mock_kind;

/* Begins every handle. Dead ones stay, so that their use is noticed. */
typedef struct mock_handle {
    mock_kind kind;
    int references;
    struct mock_handle *next;
} mock_handle;

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
};
struct CUmod_st {
    mock_handle base;
    void *library;
    struct CUfunc_st *functions;
};
struct CUfunc_st {
    const char *name;
    CUmodule module;
    void (*call)(void **);
    int parameters;
    struct CUfunc_st *next;
};
typedef struct mock_memory {
    mock_handle base;
    unsigned char *bytes; /* between guards */
    size_t size;
    int device;
} mock_memory;

/* Counts a call; what it must fail with, or CUDA_SUCCESS. mock_enter_device is for calls that need a current context
 * and the device, which may be lost. */
CUresult mock_enter(const char *call);
CUresult mock_enter_device(const char *call);
void mock_misuse(const char *call, const char *what);
void mock_kernel_ran(const char *name);
void mock_kernel_enqueued(void);

/* A new handle of one reference, zeroed. */
void *mock_make(mock_kind kind, size_t size);
/* Whether this is a live handle of its kind; if not, that is a misuse. */
bool mock_is_live(const char *call, mock_kind kind, const void *handle);
/* The live device or host memory that holds an address, NULL: none. */
mock_memory *mock_find_memory(mock_kind kind, const void *address);
void mock_drop(void *handle);
/* Calls something for each live handle of a kind. */
void mock_each(mock_kind kind, void (*visit)(void *handle));

/* driver.c: the context on top of the calling thread's stack, or NULL. */
CUcontext mock_current(void);
/* streams.c: does what was enqueued, up to a number of commands. Returns the first error of a kernel. */
CUresult mock_flush(CUstream stream, long until);
CUresult mock_flush_all(void);

#endif
