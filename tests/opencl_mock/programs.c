/* Programs, which anything builds, and kernels, which do nothing. */
#include <stdlib.h>
#include <string.h>

#include "mock.h"

MOCK cl_program clCreateProgramWithSource(cl_context context, cl_uint count, const char **texts, const size_t *lengths,
                                          cl_int *error)
{
    (void)texts, (void)lengths;
    const cl_int code = mock_enter(__func__);
    if (code != CL_SUCCESS || !mock_is_live(__func__, CONTEXT, context) || !count)
        return mock_refuse(error, code != CL_SUCCESS ? code : CL_INVALID_VALUE);
    cl_program program = mock_make(PROGRAM, sizeof *program);
    program->context = context;
    memset(program->binary, 'm', MOCK_BINARY);
    return mock_grant(error, program);
}

MOCK cl_program clCreateProgramWithBinary(cl_context context, cl_uint count, const cl_device_id *list,
                                          const size_t *lengths, const unsigned char **binaries, cl_int *status,
                                          cl_int *error)
{
    (void)list;
    const cl_int code = mock_enter(__func__);
    if (code != CL_SUCCESS || !mock_is_live(__func__, CONTEXT, context) || count != 1)
        return mock_refuse(error, code != CL_SUCCESS ? code : CL_INVALID_VALUE);
    cl_program program = mock_make(PROGRAM, sizeof *program);
    memset(program->binary, 'm', MOCK_BINARY);
    const bool known = lengths[0] == MOCK_BINARY && memcmp(binaries[0], program->binary, MOCK_BINARY) == 0;
    if (status)
        *status = known ? CL_SUCCESS : CL_INVALID_BINARY;
    program->context = context;
    program->from_binary = true;
    program->base.references = known;
    return known ? mock_grant(error, program) : mock_refuse(error, CL_INVALID_BINARY);
}

MOCK cl_int clRetainProgram(cl_program program)
{
    return mock_count_reference(__func__, PROGRAM, program, 1);
}
MOCK cl_int clReleaseProgram(cl_program program)
{
    return mock_count_reference(__func__, PROGRAM, program, -1);
}

MOCK cl_int clBuildProgram(cl_program program, cl_uint count, const cl_device_id *list, const char *options,
                           void (*notify)(cl_program, void *), void *user)
{
    (void)count, (void)list, (void)options, (void)notify, (void)user;
    if (!mock_is_live(__func__, PROGRAM, program))
        return CL_INVALID_PROGRAM;
    const cl_int code = mock_enter(__func__);
    mock_enter(program->from_binary ? "build-binary" : "build-source");
    program->failed = code != CL_SUCCESS;
    program->built = !program->failed;
    return code;
}

MOCK cl_int clGetProgramInfo(cl_program program, cl_program_info key, size_t capacity, void *buffer, size_t *length)
{
    const cl_int code = mock_enter(__func__);
    const cl_uint one = 1;
    const size_t size = (size_t)mock.binary;
    if (code != CL_SUCCESS || !mock_is_live(__func__, PROGRAM, program))
        return code != CL_SUCCESS ? code : CL_INVALID_PROGRAM;
    switch (key) {
    case CL_PROGRAM_NUM_DEVICES:
        return ANSWER(one);
    case CL_PROGRAM_DEVICES:
        return ANSWER(program->context->device);
    case CL_PROGRAM_BINARY_SIZES:
        return ANSWER(size);
    case CL_PROGRAM_BINARIES:
        if (buffer && capacity >= sizeof(unsigned char *))
            memcpy(*(unsigned char **)buffer, program->binary, size < MOCK_BINARY ? size : MOCK_BINARY);
        if (length)
            *length = sizeof(unsigned char *);
        return CL_SUCCESS;
    default:
        return CL_INVALID_VALUE;
    }
}

/* A log of as many characters as the setting says, with a recognisable first line. */
MOCK cl_int clGetProgramBuildInfo(cl_program program, cl_device_id device, cl_program_build_info key, size_t capacity,
                                  void *buffer, size_t *length)
{
    (void)device;
    const cl_int code = mock_enter(__func__);
    if (code != CL_SUCCESS || !mock_is_live(__func__, PROGRAM, program))
        return code != CL_SUCCESS ? code : CL_INVALID_PROGRAM;
    const cl_build_status status = program->failed ? CL_BUILD_ERROR : CL_BUILD_SUCCESS;
    if (key == CL_PROGRAM_BUILD_STATUS)
        return ANSWER(status);
    if (key != CL_PROGRAM_BUILD_LOG)
        return CL_INVALID_VALUE;
    static const char line[] = "mock:7: error: no such thing as attention\n";
    const size_t size = (size_t)mock.log;
    char *log = malloc(size + sizeof line);
    if (!log)
        abort();
    for (size_t at = 0; at < size; at += sizeof line - 1)
        memcpy(log + at, line, sizeof line - 1);
    log[size] = 0;
    const cl_int result = mock_answer(log, size + 1, capacity, buffer, length);
    free(log);
    return result;
}

MOCK cl_kernel clCreateKernel(cl_program program, const char *name, cl_int *error)
{
    const cl_int code = mock_enter(__func__);
    if (code != CL_SUCCESS || !mock_is_live(__func__, PROGRAM, program) || !name || !*name)
        return mock_refuse(error, code != CL_SUCCESS ? code : CL_INVALID_VALUE);
    if (!program->built)
        return mock_refuse(error, CL_INVALID_PROGRAM_EXECUTABLE);
    cl_kernel kernel = mock_make(KERNEL, sizeof *kernel);
    kernel->program = program;
    return mock_grant(error, kernel);
}

MOCK cl_int clRetainKernel(cl_kernel kernel)
{
    return mock_count_reference(__func__, KERNEL, kernel, 1);
}
MOCK cl_int clReleaseKernel(cl_kernel kernel)
{
    return mock_count_reference(__func__, KERNEL, kernel, -1);
}

MOCK cl_int clSetKernelArg(cl_kernel kernel, cl_uint index, size_t size, const void *value)
{
    (void)index, (void)size, (void)value;
    const cl_int code = mock_enter(__func__);
    return code == CL_SUCCESS && !mock_is_live(__func__, KERNEL, kernel) ? CL_INVALID_KERNEL : code;
}

MOCK cl_int clGetKernelWorkGroupInfo(cl_kernel kernel, cl_device_id device, cl_kernel_work_group_info key,
                                     size_t capacity, void *buffer, size_t *length)
{
    (void)device;
    const cl_int code = mock_enter(__func__);
    const size_t group = (size_t)mock.kernel_group, multiple = 1;
    const cl_ulong none = 0;
    if (code != CL_SUCCESS || !mock_is_live(__func__, KERNEL, kernel))
        return code != CL_SUCCESS ? code : CL_INVALID_KERNEL;
    switch (key) {
    case CL_KERNEL_WORK_GROUP_SIZE:
        return ANSWER(group);
    case CL_KERNEL_PREFERRED_WORK_GROUP_SIZE_MULTIPLE:
        return ANSWER(multiple);
    case CL_KERNEL_LOCAL_MEM_SIZE:
    case CL_KERNEL_PRIVATE_MEM_SIZE:
        return ANSWER(none);
    default:
        return CL_INVALID_VALUE;
    }
}
