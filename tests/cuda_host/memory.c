/* Device memory, which is the host's, between guards and full of NaN at first; and pinned memory. */
#include <stdlib.h>
#include <string.h>

#include "mock.h"

enum { GUARD = 256, GUARD_BYTE = 0xa5 };

static mock_memory *make(mock_kind kind, size_t size)
{
    unsigned char *whole = aligned_alloc(GUARD, (size + GUARD - 1) / GUARD * GUARD + 2 * GUARD);
    if (!whole)
        abort();
    mock_memory *memory = mock_make(kind, sizeof *memory);
    memory->bytes = whole + GUARD;
    memory->size = size;
    memory->device = mock_current()->device;
    memset(whole, GUARD_BYTE, GUARD);
    memset(memory->bytes, 0xff, size);
    memset(memory->bytes + size, GUARD_BYTE, GUARD);
    return memory;
}

static void release(const char *call, mock_kind kind, const void *address)
{
    mock_memory *memory = mock_find_memory(kind, address);
    if (!memory || memory->bytes != address) {
        mock_misuse(call, "no such memory");
        return;
    }
    for (int i = 0; i < GUARD; i++)
        if (memory->bytes[i - GUARD] != GUARD_BYTE || memory->bytes[memory->size + (size_t)i] != GUARD_BYTE) {
            mock_misuse(call, "something was written outside of the memory");
            break;
        }
    mock_refer(memory, -1);
    free(memory->bytes - GUARD);
}

CUresult mock_allocate(CUdeviceptr *address, size_t size)
{
    if (size == 0)
        return INVALID_VALUE;
    if (size > (size_t)mock.memory)
        return CUDA_ERROR_OUT_OF_MEMORY;
    *address = (CUdeviceptr)(uintptr_t)make(MEMORY, size)->bytes;
    return CUDA_SUCCESS;
}

void mock_free(const char *call, const void *address)
{
    release(call, MEMORY, address);
}

MOCK CUresult cuMemAlloc_v2(CUdeviceptr *address, size_t size)
{
    const CUresult code = mock_enter_device("cuMemAlloc_v2");
    return code == CUDA_SUCCESS ? mock_allocate(address, size) : code;
}

/* Waits for what uses the memory, as the driver does. */
MOCK CUresult cuMemFree_v2(CUdeviceptr address)
{
    const CUresult code = mock_enter_device("cuMemFree_v2");
    mock_flush_all();
    mock_free("cuMemFree_v2", (void *)(uintptr_t)address);
    return code;
}

MOCK CUresult cuMemAllocHost_v2(void **address, size_t size)
{
    const CUresult code = mock_enter_device("cuMemAllocHost_v2");
    if (code == CUDA_SUCCESS)
        *address = make(HOST_MEMORY, size)->bytes;
    return code;
}

MOCK CUresult cuMemFreeHost(void *address)
{
    const CUresult code = mock_enter_device("cuMemFreeHost");
    mock_flush_all();
    release("cuMemFreeHost", HOST_MEMORY, address);
    return code;
}

MOCK CUresult cuPointerGetAttribute(void *value, CUpointer_attribute which, CUdeviceptr address)
{
    const CUresult code = mock_enter("cuPointerGetAttribute");
    const mock_memory *memory = mock_find_memory(MEMORY, (void *)(uintptr_t)address);
    if (code != CUDA_SUCCESS || !memory)
        return code ? code : INVALID_VALUE;
    switch (which) {
    case CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL:
        *(int *)value = memory->device;
        return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_IS_MANAGED:
        *(unsigned *)value = 0;
        return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_RANGE_START_ADDR:
        *(CUdeviceptr *)value = (CUdeviceptr)(uintptr_t)memory->bytes;
        return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_RANGE_SIZE:
        *(size_t *)value = memory->size;
        return CUDA_SUCCESS;
    default:
        return INVALID_VALUE;
    }
}
