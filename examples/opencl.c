/* Neighborhood attention on a program's own OpenCL device and buffers: nothing is copied to the host and back. Events
 * order it between the program's commands.
 *
 *     cc opencl.c $(pkg-config --cflags --libs nearfield) -lOpenCL -o opencl
 */
#define CL_TARGET_OPENCL_VERSION 120
#include <CL/cl.h>
#include <nearfield_opencl.h>
#include <stdio.h>
#include <stdlib.h>

enum { HEIGHT = 8, WIDTH = 8, HEADS = 2, DIM = 4, VALUE_DIM = 3, TOKENS = HEIGHT * WIDTH, PLATFORMS = 16 };

/* The program's own kernel: channel 0 of every value is the row of its token. */
static const char *const source = "kernel void rows(global float *v)\n"
                                  "{\n"
                                  "    const size_t i = get_global_id(0);\n"
                                  "    v[i] = i % 3 == 0 ? (float)(i / (8 * 2 * 3)) : 0.0f;\n"
                                  "}\n";

static void require(nf_status status)
{
    if (status != NF_OK) {
        fprintf(stderr, "%s\n%s\n", nf_status_string(status), nf_last_error());
        exit(EXIT_FAILURE);
    }
}

static void require_cl(cl_int error)
{
    if (error != CL_SUCCESS) {
        fprintf(stderr, "OpenCL error %d\n", (int)error);
        exit(EXIT_FAILURE);
    }
}

static cl_device_id find_device(void)
{
    cl_platform_id platforms[PLATFORMS];
    cl_uint count;
    cl_device_id device;
    require_cl(clGetPlatformIDs(PLATFORMS, platforms, &count));
    for (cl_uint i = 0; i < count && i < PLATFORMS; i++)
        if (clGetDeviceIDs(platforms[i], CL_DEVICE_TYPE_ALL, 1, &device, NULL) == CL_SUCCESS)
            return device;
    fprintf(stderr, "no platform has a device\n");
    exit(EXIT_FAILURE);
}

static cl_event compute_values(cl_context cl, cl_device_id device, cl_command_queue queue, cl_mem v)
{
    cl_int error;
    cl_event computed;
    const size_t items = TOKENS * HEADS * VALUE_DIM;
    cl_program program = clCreateProgramWithSource(cl, 1, (const char **)&source, NULL, &error);
    require_cl(error);
    require_cl(clBuildProgram(program, 1, &device, NULL, NULL, NULL));
    cl_kernel kernel = clCreateKernel(program, "rows", &error);
    require_cl(error);
    require_cl(clSetKernelArg(kernel, 0, sizeof v, &v));
    require_cl(clEnqueueNDRangeKernel(queue, kernel, 1, NULL, &items, NULL, 0, NULL, &computed));
    require_cl(clFlush(queue));
    clReleaseKernel(kernel);
    clReleaseProgram(program);
    return computed;
}

static nf_tensor in_buffer(const nf_problem *problem, nf_role role, cl_mem memory, int64_t offset)
{
    nf_tensor tensor;
    require(nf_problem_tensor(problem, role, &tensor));
    tensor.memory = NF_OPENCL;
    tensor.data = memory;
    tensor.offset = offset;
    return tensor;
}

int main(void)
{
    cl_int error;
    cl_device_id device = find_device();
    cl_context cl = clCreateContext(NULL, 1, &device, NULL, NULL, &error);
    require_cl(error);
    cl_command_queue queue = clCreateCommandQueue(cl, device, 0, &error);
    require_cl(error);

    /* Queries and keys share a buffer; zeros, so that each query averages the values it sees. */
    static float zeros[2 * TOKENS * HEADS * DIM], out[TOKENS][HEADS][VALUE_DIM];
    cl_mem qk = clCreateBuffer(cl, CL_MEM_READ_ONLY | CL_MEM_COPY_HOST_PTR, sizeof zeros, zeros, &error);
    require_cl(error);
    cl_mem v = clCreateBuffer(cl, CL_MEM_READ_WRITE, sizeof out, NULL, &error);
    require_cl(error);
    cl_mem result = clCreateBuffer(cl, CL_MEM_READ_WRITE, sizeof out, NULL, &error);
    require_cl(error);

    nf_problem problem;
    nf_context *context;
    nf_plan *plan;
    require(nf_problem_parse(&problem, "na2d f32 h2 d4/3 8x8 w3"));
    require(nf_context_create(&context, NULL));
    require(nf_opencl_use(context, cl, device, NULL));

    const nf_tensor tensor_q = in_buffer(&problem, NF_Q, qk, 0);
    const nf_tensor tensor_k = in_buffer(&problem, NF_K, qk, TOKENS * HEADS * DIM);
    const nf_tensor tensor_v = in_buffer(&problem, NF_V, v, 0);
    const nf_tensor tensor_out = in_buffer(&problem, NF_OUT, result, 0);
    nf_io io;
    nf_plan_options options;
    nf_io_init(&io);
    io.q = &tensor_q, io.k = &tensor_k, io.v = &tensor_v, io.out = &tensor_out;
    nf_plan_options_init(&options);
    options.layout = &io;
    require(nf_plan_create(&plan, context, &problem, &options));

    /* On the plan's own queue, after the values are computed and before the result is read. */
    void *computed = compute_values(cl, device, queue, v), *attended;
    nf_exec exec;
    nf_exec_init(&exec);
    exec.wait_count = 1;
    exec.wait_events = &computed;
    exec.signal_event = &attended;
    require(nf_forward(plan, &io, &exec));
    const cl_event finished = attended;
    require_cl(clEnqueueReadBuffer(queue, result, CL_TRUE, 0, sizeof out, out, 1, &finished, NULL));
    clReleaseEvent(finished);
    clReleaseEvent(computed);
    printf("row 0: %.3f  row 1: %.3f  row 4: %.3f  row 7: %.3f\n", (double)out[0][0][0], (double)out[WIDTH + 5][1][0],
           (double)out[4 * WIDTH + 3][0][0], (double)out[7 * WIDTH + 7][1][0]);
    const float deviation = out[0][0][0] - 1.0f;

    nf_plan_destroy(plan);
    nf_context_destroy(context);
    clReleaseMemObject(result);
    clReleaseMemObject(v);
    clReleaseMemObject(qk);
    clReleaseCommandQueue(queue);
    clReleaseContext(cl);
    return deviation > -1e-6f && deviation < 1e-6f ? EXIT_SUCCESS : EXIT_FAILURE;
}
