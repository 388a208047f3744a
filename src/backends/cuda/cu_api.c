/* Opening libcuda, and what its errors mean. */
#include "backends/cuda/cu_api.h"

#include <dlfcn.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

static const char library_name[] = "libcuda.so.1";

nf_status cu_api_load(cu_api *api)
{
    static const struct {
        const char *symbol;
        size_t offset;
    } functions[] = {
#define CU_ENTRY(name, symbol, parameters) {symbol, offsetof(cu_api, name)},
        CU_FUNCTIONS(CU_ENTRY)
#undef CU_ENTRY
    };
    cu_api made = {.library = dlopen(library_name, RTLD_NOW | RTLD_LOCAL)};
    if (!made.library)
        return nf_fail(NF_ERR_UNAVAILABLE, "%s cannot be opened, NVIDIA's driver is not installed: %s", library_name,
                       dlerror());
    for (size_t i = 0; i < sizeof functions / sizeof functions[0]; i++) {
        void *symbol = dlsym(made.library, functions[i].symbol);
        if (!symbol) {
            dlclose(made.library);
            return nf_fail(NF_ERR_UNAVAILABLE, "%s has no %s: the driver is too old", library_name,
                           functions[i].symbol);
        }
        memcpy((char *)&made + functions[i].offset, &symbol, sizeof symbol);
    }
    *api = made;
    return NF_OK;
}

const char *cu_error_name(const cu_api *api, CUresult error)
{
    const char *name = NULL;
    return api->cuGetErrorName(error, &name) == CUDA_SUCCESS && name ? name : "an unknown error";
}

static nf_status status_of(CUresult error)
{
    return error == CUDA_ERROR_OUT_OF_MEMORY || error == CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES ? NF_ERR_MEMORY
                                                                                            : NF_ERR_DEVICE;
}

nf_status cu_fail(const cu_api *api, CUresult error, const char *format, ...)
{
    char what[400];
    const char *meaning = NULL;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(what, sizeof what, format, arguments);
    va_end(arguments);
    const bool known = api->cuGetErrorString(error, &meaning) == CUDA_SUCCESS && meaning;
    return nf_fail(status_of(error), "%s: %s (%d)%s%s", what, cu_error_name(api, error), (int)error, known ? ": " : "",
                   known ? meaning : "");
}
