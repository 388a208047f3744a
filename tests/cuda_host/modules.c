/* Images are the words "host image NAME" (images.awk); NAME.so holds the kernels. */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mock.h"

/* The program of an image, or NULL. */
static const char *program_of(const char *image)
{
    static const char magic[] = "host image ";
    return strncmp(image, magic, sizeof magic - 1) == 0 ? image + sizeof magic - 1 : NULL;
}

static void *open_library(const char *program)
{
    const char *folder = getenv("MOCK_CUDA_MODULES");
    char path[4096];
    if (!folder || !program)
        return NULL;
    snprintf(path, sizeof path, "%s/%s.so", folder, program);
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!library)
        fprintf(stderr, "cuda_host: %s\n", dlerror());
    return library;
}

static void set_title(char title[MOCK_TEXT], const char *program, const char *kernel)
{
    snprintf(title, MOCK_TEXT, "%s %s", program, kernel);
}

static void note_kernels(CUmodule module)
{
    const char *(*name_of)(int);
    *(void **)&name_of = dlsym(module->library, "host_kernel_name");
    for (int i = 0; name_of(i); i++) {
        char title[MOCK_TEXT];
        set_title(title, module->program, name_of(i));
        mock_kernel_loaded(title);
    }
}

MOCK CUresult cuModuleLoadData(CUmodule *module, const void *image)
{
    const CUresult code = mock_enter_device("cuModuleLoadData");
    if (code != CUDA_SUCCESS)
        return code;
    const char *program = program_of(image);
    void *library = open_library(program);
    if (!library)
        return CUDA_ERROR_INVALID_IMAGE;
    *module = mock_make(MODULE, sizeof **module);
    (*module)->library = library;
    (*module)->program = program;
    note_kernels(*module);
    return CUDA_SUCCESS;
}

MOCK CUresult cuModuleUnload(CUmodule module)
{
    const CUresult code = mock_enter_device("cuModuleUnload");
    if (!mock_is_live("cuModuleUnload", MODULE, module))
        return INVALID_HANDLE;
    mock_flush_all();
    while (module->functions) {
        CUfunction next = module->functions->next;
        free(module->functions);
        module->functions = next;
    }
    dlclose(module->library);
    mock_refer(module, -1);
    return code;
}

MOCK CUresult cuModuleGetFunction(CUfunction *function, CUmodule module, const char *name)
{
    typedef void (*kernel)(void **);
    const CUresult code = mock_enter_device("cuModuleGetFunction");
    if (code != CUDA_SUCCESS || !mock_is_live("cuModuleGetFunction", MODULE, module))
        return code ? code : INVALID_HANDLE;
    kernel (*find)(const char *, const size_t **);
    const size_t *sizes = NULL;
    *(void **)&find = dlsym(module->library, "host_kernel");
    const kernel call = find ? find(name, &sizes) : NULL;
    if (!call)
        return NOT_FOUND;
    *function = calloc(1, sizeof **function);
    **function = (struct CUfunc_st){.module = module, .call = call, .sizes = sizes, .next = module->functions};
    set_title((*function)->title, module->program, name);
    module->functions = *function;
    return CUDA_SUCCESS;
}

MOCK CUresult cuFuncSetAttribute(CUfunction function, CUfunction_attribute which, int value)
{
    const CUresult code = mock_enter_device("cuFuncSetAttribute");
    if (code != CUDA_SUCCESS)
        return code;
    if (which != CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES || value < 0 || value > mock.most_shared)
        return INVALID_VALUE;
    function->shared = value;
    return CUDA_SUCCESS;
}
