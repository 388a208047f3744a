/* The driver itself, devices and contexts. A device's primary context is one handle, with a reference per user. */
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "mock.h"

enum { MOST_DEVICES = 8, STACK = 16 };

MOCK CUresult cuInit(unsigned flags)
{
    const CUresult code = mock_enter("cuInit");
    if (code != CUDA_SUCCESS)
        return code;
    return flags ? INVALID_VALUE : mock.devices ? CUDA_SUCCESS : CUDA_ERROR_NO_DEVICE;
}

MOCK CUresult cuDriverGetVersion(int *version)
{
    *version = (int)mock.driver;
    return mock_enter("cuDriverGetVersion");
}

static const struct {
    CUresult code;
    const char *name, *meaning;
} errors[] = {
    {CUDA_ERROR_OUT_OF_MEMORY, "CUDA_ERROR_OUT_OF_MEMORY", "out of memory"},
    {CUDA_ERROR_NO_DEVICE, "CUDA_ERROR_NO_DEVICE", "no CUDA-capable device is detected"},
    {CUDA_ERROR_INVALID_IMAGE, "CUDA_ERROR_INVALID_IMAGE", "device kernel image is invalid"},
    {INVALID_CONTEXT, "CUDA_ERROR_INVALID_CONTEXT", "invalid device context"},
    {CUDA_ERROR_NO_BINARY_FOR_GPU, "CUDA_ERROR_NO_BINARY_FOR_GPU", "no kernel image is available for the device"},
    {CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES, "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES", "too many resources requested"},
    {LAUNCH_FAILED, "CUDA_ERROR_LAUNCH_FAILED", "unspecified launch failure"},
};

MOCK CUresult cuGetErrorName(CUresult error, const char **name)
{
    for (size_t i = 0; i < sizeof errors / sizeof *errors; i++)
        if (errors[i].code == error) {
            *name = errors[i].name;
            return mock_enter("cuGetErrorName");
        }
    return INVALID_VALUE;
}

MOCK CUresult cuGetErrorString(CUresult error, const char **meaning)
{
    for (size_t i = 0; i < sizeof errors / sizeof *errors; i++)
        if (errors[i].code == error) {
            *meaning = errors[i].meaning;
            return mock_enter("cuGetErrorString");
        }
    return INVALID_VALUE;
}

/* ---- Devices: handles are not ordinals --------------------------------------------------------------------------- */

enum { FIRST_HANDLE = 70 };

static bool is_device(const char *call, CUdevice device)
{
    const bool known = device >= FIRST_HANDLE && device < FIRST_HANDLE + mock.devices;
    if (!known)
        mock_misuse(call, "no device");
    return known;
}

MOCK CUresult cuDeviceGetCount(int *count)
{
    *count = (int)mock.devices;
    return mock_enter("cuDeviceGetCount");
}

MOCK CUresult cuDeviceGet(CUdevice *device, int ordinal)
{
    *device = FIRST_HANDLE + ordinal;
    const CUresult code = mock_enter("cuDeviceGet");
    return code == CUDA_SUCCESS && !is_device("cuDeviceGet", *device) ? INVALID_VALUE : code;
}

MOCK CUresult cuDeviceGetName(char *name, int length, CUdevice device)
{
    const CUresult code = mock_enter("cuDeviceGetName");
    if (code == CUDA_SUCCESS && is_device("cuDeviceGetName", device))
        snprintf(name, (size_t)length, "%s %d", mock.name, device - FIRST_HANDLE);
    return code;
}

MOCK CUresult cuDeviceTotalMem_v2(size_t *bytes, CUdevice device)
{
    *bytes = (size_t)mock.memory;
    const CUresult code = mock_enter("cuDeviceTotalMem_v2");
    return code == CUDA_SUCCESS && !is_device("cuDeviceTotalMem_v2", device) ? INVALID_VALUE : code;
}

MOCK CUresult cuDeviceGetAttribute(int *value, CUdevice_attribute which, CUdevice device)
{
    const struct {
        CUdevice_attribute which;
        long value;
    } attributes[] = {
        {CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK, mock.threads},
        {CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK, mock.shared},
        {CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN, mock.most_shared},
        {CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, mock.units},
        {CU_DEVICE_ATTRIBUTE_COMPUTE_MODE, mock.prohibited ? CU_COMPUTEMODE_PROHIBITED : 0},
        {CU_DEVICE_ATTRIBUTE_PCI_BUS_ID, 1 + device - FIRST_HANDLE},
        {CU_DEVICE_ATTRIBUTE_PCI_DEVICE_ID, 0},
        {CU_DEVICE_ATTRIBUTE_PCI_DOMAIN_ID, 0},
        {CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, mock.capability / 10},
        {CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, mock.capability % 10},
    };
    const CUresult code = mock_enter("cuDeviceGetAttribute");
    if (code != CUDA_SUCCESS)
        return code;
    for (size_t i = 0; i < sizeof attributes / sizeof *attributes; i++)
        if (attributes[i].which == which) {
            *value = (int)attributes[i].value;
            return CUDA_SUCCESS;
        }
    return INVALID_VALUE;
}

/* ---- Contexts ---------------------------------------------------------------------------------------------------- */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static CUcontext primary[MOST_DEVICES];
static _Thread_local CUcontext stack[STACK];
static _Thread_local int depth;

CUcontext mock_current(void)
{
    return depth ? stack[depth - 1] : NULL;
}

MOCK CUresult cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice device)
{
    const CUresult code = mock_enter("cuDevicePrimaryCtxRetain");
    if (code != CUDA_SUCCESS || !is_device("cuDevicePrimaryCtxRetain", device))
        return code ? code : INVALID_VALUE;
    pthread_mutex_lock(&lock);
    CUcontext *held = &primary[device - FIRST_HANDLE];
    if (*held && (*held)->base.references > 0) {
        (*held)->base.references++;
    } else {
        *held = mock_make(CONTEXT, sizeof **held);
        (*held)->device = device - FIRST_HANDLE;
    }
    *context = *held;
    pthread_mutex_unlock(&lock);
    return CUDA_SUCCESS;
}

MOCK CUresult cuDevicePrimaryCtxRelease_v2(CUdevice device)
{
    const CUresult code = mock_enter("cuDevicePrimaryCtxRelease_v2");
    if (is_device("cuDevicePrimaryCtxRelease_v2", device) &&
        mock_is_live("cuDevicePrimaryCtxRelease_v2", CONTEXT, primary[device - FIRST_HANDLE]))
        mock_refer(primary[device - FIRST_HANDLE], -1);
    return code;
}

MOCK CUresult cuCtxPushCurrent_v2(CUcontext context)
{
    const CUresult code = mock_enter("cuCtxPushCurrent_v2");
    if (code != CUDA_SUCCESS)
        return code;
    if (!mock_is_live("cuCtxPushCurrent_v2", CONTEXT, context) || depth == STACK)
        return INVALID_CONTEXT;
    stack[depth++] = context;
    return CUDA_SUCCESS;
}

MOCK CUresult cuCtxPopCurrent_v2(CUcontext *context)
{
    const CUresult code = mock_enter("cuCtxPopCurrent_v2");
    if (!depth) {
        mock_misuse("cuCtxPopCurrent_v2", "no context is current");
        return INVALID_CONTEXT;
    }
    *context = stack[--depth];
    return code;
}
