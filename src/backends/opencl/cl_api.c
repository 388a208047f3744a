/* Opening libOpenCL, and what its errors mean. */
#include "backends/opencl/cl_api.h"

#include <dlfcn.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const char library_name[] = "libOpenCL.so.1";

nf_status cl_api_load(cl_api *api)
{
    static const struct {
        const char *name;
        size_t offset;
    } functions[] = {
#define CL_ENTRY(type, name, parameters) {#name, offsetof(cl_api, name)},
        CL_FUNCTIONS(CL_ENTRY)
#undef CL_ENTRY
    };
    cl_api made = {.library = dlopen(library_name, RTLD_NOW | RTLD_LOCAL)};
    if (!made.library)
        return nf_fail(NF_ERR_UNAVAILABLE, "%s cannot be opened, the OpenCL loader is not installed: %s", library_name,
                       dlerror());
    for (size_t i = 0; i < sizeof functions / sizeof functions[0]; i++) {
        void *symbol = dlsym(made.library, functions[i].name);
        if (!symbol) {
            dlclose(made.library);
            return nf_fail(NF_ERR_UNAVAILABLE, "%s has no %s: it is older than OpenCL 1.2", library_name,
                           functions[i].name);
        }
        memcpy((char *)&made + functions[i].offset, &symbol, sizeof symbol);
    }
    *api = made;
    return NF_OK;
}

const char *cl_error_name(cl_int error)
{
    static const char *const names[] = {
        [0] = "CL_SUCCESS",
        [1] = "CL_DEVICE_NOT_FOUND",
        [2] = "CL_DEVICE_NOT_AVAILABLE",
        [3] = "CL_COMPILER_NOT_AVAILABLE",
        [4] = "CL_MEM_OBJECT_ALLOCATION_FAILURE",
        [5] = "CL_OUT_OF_RESOURCES",
        [6] = "CL_OUT_OF_HOST_MEMORY",
        [11] = "CL_BUILD_PROGRAM_FAILURE",
        [12] = "CL_MAP_FAILURE",
        [14] = "CL_EXEC_STATUS_ERROR_FOR_EVENTS_IN_WAIT_LIST",
        [30] = "CL_INVALID_VALUE",
        [33] = "CL_INVALID_DEVICE",
        [34] = "CL_INVALID_CONTEXT",
        [36] = "CL_INVALID_COMMAND_QUEUE",
        [38] = "CL_INVALID_MEM_OBJECT",
        [42] = "CL_INVALID_BINARY",
        [43] = "CL_INVALID_BUILD_OPTIONS",
        [44] = "CL_INVALID_PROGRAM",
        [45] = "CL_INVALID_PROGRAM_EXECUTABLE",
        [46] = "CL_INVALID_KERNEL_NAME",
        [48] = "CL_INVALID_KERNEL",
        [49] = "CL_INVALID_ARG_INDEX",
        [50] = "CL_INVALID_ARG_VALUE",
        [51] = "CL_INVALID_ARG_SIZE",
        [52] = "CL_INVALID_KERNEL_ARGS",
        [54] = "CL_INVALID_WORK_GROUP_SIZE",
        [55] = "CL_INVALID_WORK_ITEM_SIZE",
        [57] = "CL_INVALID_EVENT_WAIT_LIST",
        [58] = "CL_INVALID_EVENT",
        [59] = "CL_INVALID_OPERATION",
        [61] = "CL_INVALID_BUFFER_SIZE",
        [63] = "CL_INVALID_GLOBAL_WORK_SIZE",
    };
    const size_t count = sizeof names / sizeof names[0];
    const char *name = error <= 0 && (size_t) - (int64_t)error < count ? names[-error] : NULL;
    return name ? name : "an unknown error";
}

static nf_status status_of(cl_int error)
{
    switch (error) {
    case CL_MEM_OBJECT_ALLOCATION_FAILURE:
    case CL_OUT_OF_RESOURCES:
    case CL_OUT_OF_HOST_MEMORY:
    case CL_INVALID_BUFFER_SIZE:
        return NF_ERR_MEMORY;
    default:
        return NF_ERR_DEVICE;
    }
}

nf_status cl_fail(cl_int error, const char *format, ...)
{
    char what[400];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(what, sizeof what, format, arguments);
    va_end(arguments);
    return nf_fail(status_of(error), "%s: %s (%d)", what, cl_error_name(error), (int)error);
}
