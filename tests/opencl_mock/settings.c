/* What the mock OpenCL library is set to, and what it is besides its books. */
#include <string.h>

#include "mock.h"

mock_settings mock = {
    .platforms = 1,
    .devices = 1,
    .local = 32768,
    .group = 256,
    .kernel_group = 256,
    .alloc = 1 << 28,
    .units = 4,
    .type = CL_DEVICE_TYPE_GPU,
    .available = 1,
    .compiler = 1,
    .fp64 = 1,
    .log = 40,
    .binary = MOCK_BINARY,
    .version = "OpenCL 1.2 mock",
    .c_version = "OpenCL C 1.2 mock",
    .name = "Mock",
    .driver = "1.0",
    .vendor = "Nobody",
    .extensions = "cl_khr_fp64",
};

static const mock_knob knobs[] = {
    {"platforms", &mock.platforms, NULL},
    {"devices", &mock.devices, NULL},
    {"empty", &mock.empty, NULL},
    {"local", &mock.local, NULL},
    {"group", &mock.group, NULL},
    {"kernel_group", &mock.kernel_group, NULL},
    {"alloc", &mock.alloc, NULL},
    {"units", &mock.units, NULL},
    {"type", &mock.type, NULL},
    {"available", &mock.available, NULL},
    {"compiler", &mock.compiler, NULL},
    {"fp64", &mock.fp64, NULL},
    {"log", &mock.log, NULL},
    {"binary", &mock.binary, NULL},
    {"verdict", &mock.verdict, NULL},
    {"pci", &mock.pci, NULL},
    {"version", NULL, mock.version},
    {"c_version", NULL, mock.c_version},
    {"name", NULL, mock.name},
    {"driver", NULL, mock.driver},
    {"vendor", NULL, mock.vendor},
    {"extensions", NULL, mock.extensions},
};

static const char *const kinds[KINDS] = {"context", "queue", "memory", "program", "kernel", "event"};

const mock_library mock_self = {
    .variable = "MOCK_OPENCL",
    .report = "MOCK_OPENCL_REPORT",
    .knobs = knobs,
    .knob_count = sizeof knobs / sizeof *knobs,
    .kinds = kinds,
    .kind_count = KINDS,
};

cl_int mock_enter_device(const char *name)
{
    const cl_int code = mock_enter(name);
    return code == CL_SUCCESS && mock_is_lost() ? CL_DEVICE_NOT_AVAILABLE : code;
}

cl_int mock_count_reference(const char *call, mock_kind kind, void *pointer, int change)
{
    const cl_int code = mock_enter(call);
    if (!mock_is_live(call, kind, pointer))
        return CL_INVALID_VALUE;
    if (code == CL_SUCCESS || change < 0)
        mock_refer(pointer, change);
    return code;
}

cl_int mock_answer(const void *value, size_t size, size_t capacity, void *buffer, size_t *length)
{
    if (length)
        *length = size;
    if (buffer && capacity < size)
        return CL_INVALID_VALUE;
    if (buffer)
        memcpy(buffer, value, size);
    return CL_SUCCESS;
}
