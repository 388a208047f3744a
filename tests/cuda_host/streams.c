/* Streams and events. Commands wait in their stream until somebody waits for them, then they are done with all that
 * they wait for themselves, and nothing else is. */
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mock.h"

enum { ARGUMENTS_BYTES = 4 << 10, ARGUMENT_ALIGNMENT = 64, MOST_ARGUMENTS = ARGUMENTS_BYTES / ARGUMENT_ALIGNMENT };

struct mock_command {
    mock_command *next;
    CUfunction kernel; /* or NULL: */
    void *freed;       /* memory, */
    CUevent stamped;   /* an event that takes the time, */
    void *to;          /* a copy, or, where these are NULL, too, a wait */
    const void *from;
    size_t bytes;
    unsigned blocks, threads, shared;
    _Alignas(ARGUMENT_ALIGNMENT) unsigned char arguments[ARGUMENTS_BYTES];
    CUstream awaited;
    long until;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static CUresult failure; /* of a kernel: stays */
/* The device's clock counts kernels, so that a program that measures makes the same calls in every run. */
static long kernels_run;
static const float kernel_milliseconds = 10;

/* ---- Doing it ---------------------------------------------------------------------------------------------------- */

/* Where each argument lies. */
static void place_arguments(mock_command *c, void *places[MOST_ARGUMENTS])
{
    size_t used = 0;
    for (int i = 0; c->kernel->sizes[i]; i++) {
        places[i] = c->arguments + used;
        used += (c->kernel->sizes[i] + ARGUMENT_ALIGNMENT - 1) / ARGUMENT_ALIGNMENT * ARGUMENT_ALIGNMENT;
        if (used > ARGUMENTS_BYTES)
            abort();
    }
}

static CUresult run_kernel(mock_command *c)
{
    const char *(*run)(void (*)(void **), void **, unsigned, unsigned, unsigned, int, int);
    void *places[MOST_ARGUMENTS];
    place_arguments(c, places);
    *(void **)&run = dlsym(c->kernel->module->library, "host_run");
    const char *fault =
        run(c->kernel->call, places, c->blocks, c->threads, c->shared, (int)mock.order, mock.copies != 0);
    mock_kernel_ran(c->kernel->title);
    kernels_run++;
    if (!fault)
        return (CUresult)mock.verdict;
    fprintf(stderr, "cuda_host: kernel %s: %s\n", c->kernel->title, fault);
    mock_misuse(c->kernel->title, fault);
    return LAUNCH_FAILED;
}

static void flush_locked(CUstream stream, long until)
{
    while (stream->first && stream->done < until) {
        mock_command *c = stream->first;
        stream->first = c->next;
        if (!c->next)
            stream->last = NULL;
        if (c->awaited)
            flush_locked(c->awaited, c->until);
        else if (c->freed)
            mock_free("cuMemFreeAsync", c->freed);
        else if (c->stamped)
            c->stamped->time = kernels_run;
        else if (failure == CUDA_SUCCESS && c->kernel)
            failure = run_kernel(c);
        else if (failure == CUDA_SUCCESS)
            memcpy(c->to, c->from, c->bytes);
        stream->done++;
        free(c);
    }
}

CUresult mock_flush(CUstream stream, long until)
{
    pthread_mutex_lock(&lock);
    flush_locked(stream, until);
    const CUresult result = failure;
    pthread_mutex_unlock(&lock);
    return result;
}

static void flush_whole(void *stream)
{
    flush_locked(stream, ((CUstream)stream)->enqueued);
}

CUresult mock_flush_all(void)
{
    pthread_mutex_lock(&lock);
    mock_each(STREAM, flush_whole);
    const CUresult result = failure;
    pthread_mutex_unlock(&lock);
    return result;
}

static CUresult enqueue(CUstream stream, const mock_command *command)
{
    mock_command *c = aligned_alloc(ARGUMENT_ALIGNMENT, sizeof *c);
    if (!c)
        abort();
    *c = *command;
    pthread_mutex_lock(&lock);
    *(stream->last ? &stream->last->next : &stream->first) = c;
    stream->last = c;
    stream->enqueued++;
    if (mock.early)
        flush_locked(stream, stream->enqueued);
    pthread_mutex_unlock(&lock);
    return CUDA_SUCCESS;
}

/* ---- Streams ----------------------------------------------------------------------------------------------------- */

/* What to fail with, a stream that is none included. */
static CUresult enter(const char *call, CUstream stream)
{
    const CUresult code = mock_enter_device(call);
    return code == CUDA_SUCCESS && !mock_is_live(call, STREAM, stream) ? INVALID_HANDLE : code;
}

MOCK CUresult cuStreamCreate(CUstream *stream, unsigned flags)
{
    const CUresult code = mock_enter_device("cuStreamCreate");
    if (code != CUDA_SUCCESS || flags > 1)
        return code ? code : INVALID_VALUE;
    *stream = mock_make(STREAM, sizeof **stream);
    (*stream)->context = mock_current();
    return CUDA_SUCCESS;
}

MOCK CUresult cuStreamDestroy_v2(CUstream stream)
{
    const CUresult code = mock_enter_device("cuStreamDestroy_v2");
    if (!mock_is_live("cuStreamDestroy_v2", STREAM, stream))
        return INVALID_HANDLE;
    mock_flush(stream, stream->enqueued);
    mock_refer(stream, -1);
    return code;
}

MOCK CUresult cuStreamGetCtx(CUstream stream, CUcontext *context)
{
    const CUresult code = enter("cuStreamGetCtx", stream);
    if (code == CUDA_SUCCESS)
        *context = stream->context;
    return code;
}

MOCK CUresult cuStreamIsCapturing(CUstream stream, CUstreamCaptureStatus *status)
{
    *status = CU_STREAM_CAPTURE_STATUS_NONE;
    return enter("cuStreamIsCapturing", stream);
}

MOCK CUresult cuStreamSynchronize(CUstream stream)
{
    const CUresult code = enter("cuStreamSynchronize", stream);
    return code == CUDA_SUCCESS ? mock_flush(stream, stream->enqueued) : code;
}

MOCK CUresult cuStreamWaitEvent(CUstream stream, CUevent event, unsigned flags)
{
    const CUresult code = enter("cuStreamWaitEvent", stream);
    if (code != CUDA_SUCCESS || flags || !mock_is_live("cuStreamWaitEvent", EVENT, event))
        return code ? code : INVALID_VALUE;
    if (!event->stream)
        return CUDA_SUCCESS;
    return enqueue(stream, &(mock_command){.awaited = event->stream, .until = event->at});
}

/* ---- Events ------------------------------------------------------------------------------------------------------ */

MOCK CUresult cuEventCreate(CUevent *event, unsigned flags)
{
    const CUresult code = mock_enter_device("cuEventCreate");
    if (code != CUDA_SUCCESS || (flags && flags != CU_EVENT_DISABLE_TIMING))
        return code ? code : INVALID_VALUE;
    *event = mock_make(EVENT, sizeof **event);
    (*event)->timed = !flags;
    return CUDA_SUCCESS;
}

MOCK CUresult cuEventDestroy_v2(CUevent event)
{
    const CUresult code = mock_enter_device("cuEventDestroy_v2");
    if (mock_is_live("cuEventDestroy_v2", EVENT, event))
        mock_refer(event, -1);
    return code;
}

MOCK CUresult cuEventRecord(CUevent event, CUstream stream)
{
    const CUresult code = enter("cuEventRecord", stream);
    if (code != CUDA_SUCCESS || !mock_is_live("cuEventRecord", EVENT, event))
        return code ? code : INVALID_HANDLE;
    if (event->timed)
        enqueue(stream, &(mock_command){.stamped = event});
    event->stream = stream;
    event->at = stream->enqueued;
    return CUDA_SUCCESS;
}

MOCK CUresult cuEventElapsedTime(float *milliseconds, CUevent begin, CUevent end)
{
    const CUresult code = mock_enter_device("cuEventElapsedTime");
    if (code != CUDA_SUCCESS)
        return code;
    for (int i = 0; i < 2; i++) {
        const CUevent event = i ? end : begin;
        if (!mock_is_live("cuEventElapsedTime", EVENT, event) || !event->timed || !event->stream)
            return INVALID_HANDLE;
        if (event->stream->done < event->at)
            return NOT_READY;
    }
    *milliseconds = kernel_milliseconds * (float)(end->time - begin->time);
    return CUDA_SUCCESS;
}

MOCK CUresult cuEventSynchronize(CUevent event)
{
    const CUresult code = mock_enter_device("cuEventSynchronize");
    if (code != CUDA_SUCCESS || !mock_is_live("cuEventSynchronize", EVENT, event))
        return code ? code : INVALID_HANDLE;
    return event->stream ? mock_flush(event->stream, event->at) : CUDA_SUCCESS;
}

/* ---- Commands ---------------------------------------------------------------------------------------------------- */

static bool lies_in(mock_kind kind, const void *address, size_t bytes)
{
    const mock_memory *memory = mock_find_memory(kind, address);
    return memory && (size_t)((const unsigned char *)address - memory->bytes) + bytes <= memory->size;
}

/* A copy from or to ordinary memory is done with that memory when the call returns. */
static CUresult copy(const char *call, void *to, const void *from, size_t bytes, const void *host, CUstream stream)
{
    const CUresult code = enter(call, stream);
    if (code != CUDA_SUCCESS)
        return code;
    if (!lies_in(MEMORY, host == from ? to : from, bytes)) {
        mock_misuse(call, "not all of it is device memory");
        return INVALID_VALUE;
    }
    enqueue(stream, &(mock_command){.to = to, .from = from, .bytes = bytes});
    return lies_in(HOST_MEMORY, host, bytes) ? CUDA_SUCCESS : mock_flush(stream, stream->enqueued);
}

MOCK CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr to, const void *from, size_t bytes, CUstream stream)
{
    return copy("cuMemcpyHtoDAsync_v2", (void *)(uintptr_t)to, from, bytes, from, stream);
}

MOCK CUresult cuMemcpyDtoHAsync_v2(void *to, CUdeviceptr from, size_t bytes, CUstream stream)
{
    return copy("cuMemcpyDtoHAsync_v2", to, (void *)(uintptr_t)from, bytes, to, stream);
}

/* Memory is there at once, and is free when the stream comes to it. */
MOCK CUresult cuMemAllocAsync(CUdeviceptr *address, size_t size, CUstream stream)
{
    const CUresult code = enter("cuMemAllocAsync", stream);
    return code == CUDA_SUCCESS ? mock_allocate(address, size) : code;
}

MOCK CUresult cuMemFreeAsync(CUdeviceptr address, CUstream stream)
{
    const CUresult code = enter("cuMemFreeAsync", stream);
    void *freed = (void *)(uintptr_t)address;
    if (!mock_find_memory(MEMORY, freed)) {
        mock_misuse("cuMemFreeAsync", "no such memory");
        return INVALID_VALUE;
    }
    enqueue(stream, &(mock_command){.freed = freed});
    return code;
}

MOCK CUresult cuLaunchKernel(CUfunction function, unsigned x, unsigned y, unsigned z, unsigned block_x,
                             unsigned block_y, unsigned block_z, unsigned shared, CUstream stream, void **arguments,
                             void **extra)
{
    const CUresult code = enter("cuLaunchKernel", stream);
    if (code != CUDA_SUCCESS)
        return code;
    const long allowed = function->shared > mock.shared ? function->shared : mock.shared;
    if (y != 1 || z != 1 || block_y != 1 || block_z != 1 || shared > allowed || extra || !x || !block_x ||
        block_x > (unsigned)mock.threads)
        return INVALID_VALUE;
    mock_command c = {.kernel = function, .blocks = x, .threads = block_x, .shared = shared};
    void *places[MOST_ARGUMENTS];
    place_arguments(&c, places);
    for (int i = 0; function->sizes[i]; i++)
        memcpy(places[i], arguments[i], function->sizes[i]);
    mock_kernel_enqueued();
    return enqueue(stream, &c);
}
