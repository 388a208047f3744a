/* From the text of a program to the program: from the cache, else from the compiler. */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "backends/opencl/cl.h"
#include "core/log.h"
#include "core/mem.h"

enum { MOST_TEXTS = 32, OPTIONS_CAPACITY = 1024, LOG_CAPACITY = 1600 };

/* PoCL 3.1 takes minutes over barriers in unrolled loops, or compiles them wrongly, unless it is told not to optimise.
 */
static const char *vendor_options(const cl_state *state, const gpu_plan *gpu)
{
    const bool pocl = strcmp(cl_used_device(state)->platform_name, "Portable Computing Language") == 0;
    return pocl && strcmp(gpu->shape, "tile") == 0 ? " -cl-opt-disable" : "";
}

static cl_key make_key(const cl_state *state, const gpu_plan *gpu, const char *options)
{
    const cl_device *device = cl_used_device(state);
    cl_key key = cl_key_begin();
    cl_key_add(&key, nf_version());
    cl_key_add(&key, device->name);
    cl_key_add(&key, device->version);
    cl_key_add(&key, device->driver);
    cl_key_add(&key, device->platform_version);
    cl_key_add(&key, options);
    for (const char *const *text = gpu->source; *text; text++)
        cl_key_add(&key, *text);
    return key;
}

static cl_int build(cl_program program, const cl_state *state, const char *options)
{
    return state->api.clBuildProgram(program, 1, &cl_used_device(state)->id, options, NULL, NULL);
}

/* ---- The cache --------------------------------------------------------------------------------------------------- */

/* NULL if nothing is stored, or the driver does not take it: then the text is compiled. */
static cl_program load(const cl_state *state, cl_context cl, const cl_key *key, const char *options)
{
    size_t bytes;
    unsigned char *binary = cl_cache_load(state, key, &bytes);
    if (!binary)
        return NULL;
    cl_int error, loaded = CL_SUCCESS;
    const unsigned char *const_binary = binary;
    cl_program program =
        state->api.clCreateProgramWithBinary(cl, 1, &cl_used_device(state)->id, &bytes, &const_binary, &loaded, &error);
    nf_release(state->context, binary);
    if (error != CL_SUCCESS || !program)
        return NULL;
    if (loaded == CL_SUCCESS && (error = build(program, state, options)) == CL_SUCCESS)
        return program;
    nf_log(state->context, NF_LOG_PLANS, "opencl: the driver does not take the stored program: %s",
           cl_error_name(loaded == CL_SUCCESS ? error : loaded));
    state->api.clReleaseProgram(program);
    return NULL;
}

static void store(const cl_state *state, cl_program program, const cl_key *key)
{
    size_t bytes = 0;
    if (!*state->cache_folder ||
        state->api.clGetProgramInfo(program, CL_PROGRAM_BINARY_SIZES, sizeof bytes, &bytes, NULL) != CL_SUCCESS ||
        bytes == 0)
        return;
    unsigned char *binary = nf_alloc(state->context, bytes);
    if (binary && state->api.clGetProgramInfo(program, CL_PROGRAM_BINARIES, sizeof binary, &binary, NULL) == CL_SUCCESS)
        cl_cache_store(state, key, binary, bytes);
    nf_release(state->context, binary);
}

/* ---- The compiler ------------------------------------------------------------------------------------------------ */

/* The first words of the log: they name the first error. */
static nf_status fail_build(const cl_state *state, cl_program program, cl_int error, const char *options)
{
    char log[LOG_CAPACITY] = "no build log";
    size_t bytes = 0;
    const cl_device *device = cl_used_device(state);
    if (state->api.clGetProgramBuildInfo(program, device->id, CL_PROGRAM_BUILD_LOG, 0, NULL, &bytes) == CL_SUCCESS &&
        bytes > 1) {
        char *whole = nf_alloc(state->context, bytes + 1);
        if (whole && state->api.clGetProgramBuildInfo(program, device->id, CL_PROGRAM_BUILD_LOG, bytes, whole, NULL) ==
                         CL_SUCCESS) {
            whole[bytes] = '\0';
            snprintf(log, sizeof log, "%s", whole);
        }
        nf_release(state->context, whole);
    }
    return nf_fail(NF_ERR_DEVICE, "%s cannot build the kernels (%s, options '%s'): %s", device->name,
                   cl_error_name(error), options, log);
}

static nf_status compile(cl_program *program, const cl_state *state, cl_context cl, const gpu_plan *gpu,
                         const char *options)
{
    const char *texts[MOST_TEXTS];
    cl_uint count = 0;
    for (; gpu->source[count] && count < MOST_TEXTS; count++)
        texts[count] = gpu->source[count];
    cl_int error;
    cl_program made = state->api.clCreateProgramWithSource(cl, count, texts, NULL, &error);
    if (error != CL_SUCCESS)
        return cl_fail(error, "opencl: clCreateProgramWithSource");
    error = build(made, state, options);
    if (error != CL_SUCCESS) {
        const nf_status status = fail_build(state, made, error, options);
        state->api.clReleaseProgram(made);
        return status;
    }
    *program = made;
    return NF_OK;
}

static double now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return 1e3 * (double)t.tv_sec + 1e-6 * (double)t.tv_nsec;
}

nf_status cl_program_create(cl_program *program, cl_state *state, cl_context cl, const gpu_plan *gpu)
{
    char options[OPTIONS_CAPACITY];
    snprintf(options, sizeof options, "-cl-std=CL1.2%s %s", vendor_options(state, gpu), gpu->options);
    const cl_key key = make_key(state, gpu, options);
    *program = load(state, cl, &key, options);
    if (*program)
        return NF_OK;
    const double start = now_ms();
    const nf_status status = compile(program, state, cl, gpu, options);
    if (status != NF_OK)
        return status;
    nf_log(state->context, NF_LOG_PLANS, "opencl: program built in %.1f ms", now_ms() - start);
    store(state, *program, &key);
    return NF_OK;
}
