/* What the mock CUDA driver is set to, and what it is besides its books. */
#include "mock.h"

mock_settings mock = {
    .devices = 1,
    .driver = 13000,
    .capability = 90,
    .units = 4,
    .threads = 1024,
    .shared = 48 << 10,
    .most_shared = 227 << 10,
    .memory = 1L << 30,
    .name = "Mock",
};

static const mock_knob knobs[] = {
    {"devices", &mock.devices, NULL},
    {"driver", &mock.driver, NULL},
    {"capability", &mock.capability, NULL},
    {"units", &mock.units, NULL},
    {"threads", &mock.threads, NULL},
    {"shared", &mock.shared, NULL},
    {"memory", &mock.memory, NULL},
    {"order", &mock.order, NULL},
    {"prohibited", &mock.prohibited, NULL},
    {"verdict", &mock.verdict, NULL},
    {"early", &mock.early, NULL},
    {"copies", &mock.copies, NULL},
    {"most_shared", &mock.most_shared, NULL},
    {"name", NULL, mock.name},
};

static const char *const kinds[KINDS] = {"context", "stream", "event", "module", "memory", "host memory"};

const mock_library mock_self = {
    .variable = "MOCK_CUDA",
    .report = "MOCK_CUDA_REPORT",
    .knobs = knobs,
    .knob_count = sizeof knobs / sizeof *knobs,
    .kinds = kinds,
    .kind_count = KINDS,
};

CUresult mock_enter_device(const char *name)
{
    const CUresult code = mock_enter(name);
    if (!mock_current()) {
        mock_misuse(name, "no context is current");
        return INVALID_CONTEXT;
    }
    return code == CUDA_SUCCESS && mock_is_lost() ? LAUNCH_FAILED : code;
}

static bool holds(const void *handle, const void *address)
{
    const mock_memory *memory = handle;
    return (uintptr_t)address - (uintptr_t)memory->bytes < memory->size;
}

mock_memory *mock_find_memory(mock_kind kind, const void *address)
{
    return mock_find(kind, holds, address);
}
