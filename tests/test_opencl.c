/* A program's own OpenCL objects: tensors in one buffer, at offsets, with strides of any sign, on queues of either
 * kind. */
#include <dlfcn.h>
#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "attend.h"
#include "backends/opencl/cl_device.h"
#include "fake.h"
#include "harness.h"
#include "merging.h"
#include "nearfield_opencl.h"
#include "placed.h"

/* Drivers leak. What the backend leaves to them is counted in opencl_faults.sh. */
__attribute__((visibility("default"))) const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
    return "detect_leaks=0";
}

static const char problem_text[] = "na2d f32 b2 h4/2 d5/3 7x6 w3x5 x2 both";
static const double tolerance = 1e-4;

static cl_api api;
static cl_device_id device;
static int64_t room;   /* in a buffer of a CPU, which takes memory where it is touched; of other devices 0 */
static bool simulated; /* by Oclgrind: a call takes seconds, and clFlush waits until all commands have ended */
static cl_context cl;
static cl_command_queue fill_queue;
static nf_context *context, *host_context;

/* Leaves device NULL where there is none to test with. wanted: NULL, or as in NEARFIELD_DEVICE. */
static void find_device(const char *wanted)
{
    cl_device_list list;
    int index;
    if (cl_api_load(&api) != NF_OK || cl_devices_find(&list, NULL, &api) != NF_OK)
        return;
    if (cl_devices_choose(&list, wanted, &index) == NF_OK) {
        device = list.devices[index].id;
        room = cl_is_cpu(&list.devices[index]) ? list.devices[index].limits.buffer_bytes : 0;
        simulated = strcmp(list.devices[index].platform_name, "Oclgrind") == 0;
    }
    cl_devices_release(&list, NULL);
}

static cl_context make_context(void)
{
    cl_int error;
    const cl_context made = api.clCreateContext(NULL, 1, &device, NULL, NULL, &error);
    ck_assert_int_eq(error, CL_SUCCESS);
    return made;
}

static cl_command_queue make_queue(cl_context owner, cl_command_queue_properties properties)
{
    cl_int error;
    const cl_command_queue made = api.clCreateCommandQueue(owner, device, properties, &error);
    return error == CL_SUCCESS ? made : NULL;
}

static void setup(void)
{
    const char *wanted = getenv("NEARFIELD_DEVICE");
    clear_environment();
    setenv("NEARFIELD_CACHE_DIR", "", 1);
    find_device(wanted && *wanted ? wanted : NULL);
    ck_assert_int_eq(nf_context_create(&host_context, NULL), NF_OK);
    ck_assert_int_eq(nf_context_create(&context, NULL), NF_OK);
    if (!device)
        return;
    cl = make_context();
    fill_queue = make_queue(cl, 0);
    ck_assert_msg(nf_opencl_use(context, cl, device, NULL) == NF_OK, "%s", nf_last_error());
}

static void teardown(void)
{
    nf_context_destroy(context);
    nf_context_destroy(host_context);
    if (device) {
        api.clReleaseCommandQueue(fill_queue);
        api.clReleaseContext(cl);
    }
}

/* ---- Tensors in one buffer --------------------------------------------------------------------------------------- */

/* The buffer is mapped. */
static void copy_tensors(placed *a, bool to_device)
{
    cl_int error;
    float *mapped = api.clEnqueueMapBuffer(fill_queue, a->memory, CL_TRUE, CL_MAP_READ | (to_device ? 1 << 1 : 0), 0,
                                           a->bytes, 0, NULL, NULL, &error);
    ck_assert_int_eq(error, CL_SUCCESS);
    if (to_device)
        placed_fill(a, mapped);
    else
        placed_compare(a, mapped, tolerance);
    ck_assert_int_eq(api.clEnqueueUnmapMemObject(fill_queue, a->memory, mapped, 0, NULL, NULL), CL_SUCCESS);
    ck_assert_int_eq(api.clFinish(fill_queue), CL_SUCCESS);
}

/* They are laid out. */
static void fill_buffer(placed *a)
{
    cl_int error;
    a->memory = api.clCreateBuffer(cl, CL_MEM_READ_WRITE, a->bytes, NULL, &error);
    ck_assert_int_eq(error, CL_SUCCESS);
    for (int role = 0; role < NF_ROLES; role++)
        if (a->tensor[role].memory == NF_OPENCL) {
            a->tensor[role].data = a->memory;
            a->tensor[role].offset = a->first[role];
        }
    copy_tensors(a, true);
}

static void place_tensors(placed *a, uint32_t in_host)
{
    placed_lay(a, NF_OPENCL, in_host);
    fill_buffer(a);
}

static void place(placed *a, uint32_t in_host)
{
    uint64_t seed = 1;
    attend_create_text(&a->truth, problem_text);
    attend_fill(&a->truth, &seed, 1);
    place_tensors(a, in_host);
    attend_run(&a->truth, host_context, "reference", NULL, NF_BOTH);
}

static void release(placed *a)
{
    api.clReleaseMemObject(a->memory);
    attend_destroy(&a->truth);
}

static nf_plan *make_plan(nf_context *owner, const char *backend, const char *algo, const nf_problem *problem,
                          const nf_io *io)
{
    nf_plan *plan;
    nf_plan_options options;
    nf_plan_options_init(&options);
    options.backend = backend;
    options.algo = algo;
    options.layout = io;
    ck_assert_msg(nf_plan_create(&plan, owner, problem, &options) == NF_OK, "%s", nf_last_error());
    return plan;
}

/* ---- Tests ------------------------------------------------------------------------------------------------------- */

/* Nothing, inputs, and gradients of keys in host memory. */
static const uint32_t in_host[] = {0, 1 << NF_Q | 1 << NF_K | 1 << NF_DOUT, 1 << NF_DK | 1 << NF_DEXTRA_V};

START_TEST(equals_reference)
{
    if (!device)
        NF_SKIP("there is no OpenCL device");
    placed a;
    place(&a, in_host[_i]);
    attend kept;
    attend_create_text(&kept, problem_text);
    for (int role = 0; role < NF_ROLES; role++)
        if (kept.tensor[role].rank)
            attend_copy(&kept, &a.truth, (nf_role)role);
    nf_plan *plan = placed_plan(&a, context, "opencl");
    placed_run(&a, plan, NULL);
    for (int role = 0; role < NF_ROLES; role++)
        if (kept.tensor[role].rank && in_host[_i] >> role & 1)
            ck_assert_msg(tensor_distance(&kept.tensor[role], &a.tensor[role]) < tolerance, "%s",
                          nf_role_name((nf_role)role));
    copy_tensors(&a, false);
    nf_plan_destroy(plan);
    attend_destroy(&kept);
    release(&a);
}
END_TEST

/* In order, and out of order. */
START_TEST(runs_on_a_queue_of_the_program)
{
    if (!device)
        NF_SKIP("there is no OpenCL device");
    const cl_command_queue queue = make_queue(cl, (cl_command_queue_properties)_i);
    if (!queue)
        NF_SKIP("the device has no such queue");
    placed a;
    place(&a, 0);
    nf_plan *plan = placed_plan(&a, context, "opencl");
    nf_exec exec;
    nf_exec_init(&exec);
    exec.queue = queue;
    placed_run(&a, plan, &exec);
    ck_assert_int_eq(api.clFinish(queue), CL_SUCCESS);
    copy_tensors(&a, false);
    nf_plan_destroy(plan);
    release(&a);
    api.clReleaseCommandQueue(queue);
}
END_TEST

/* Calls that do not wait share a plan's scratch across queues; the plan may go before they end. */
START_TEST(calls_overlap)
{
    if (!device)
        NF_SKIP("there is no OpenCL device");
    enum { QUEUES = 3 };
    const int rounds = simulated ? QUEUES : 12;
    cl_command_queue queues[QUEUES];
    nf_exec exec;
    placed a;
    nf_exec_init(&exec);
    place(&a, 0);
    for (int i = 0; i < QUEUES; i++)
        queues[i] = make_queue(cl, 0);
    ck_assert_int_eq(nf_opencl_use(context, cl, device, queues[0]), NF_OK);
    nf_plan *plan = placed_plan(&a, context, "opencl");
    placed_run(&a, plan, NULL);
    for (int i = 0; i < rounds; i++) {
        exec.queue = queues[i % QUEUES];
        placed_run(&a, plan, &exec);
    }
    nf_plan_destroy(plan);
    for (int i = 0; i < QUEUES; i++)
        ck_assert_int_eq(api.clFinish(queues[i]), CL_SUCCESS);
    copy_tensors(&a, false);
    release(&a);
    for (int i = 0; i < QUEUES; i++)
        api.clReleaseCommandQueue(queues[i]);
}
END_TEST

START_TEST(refusals)
{
    if (!device)
        NF_SKIP("there is no OpenCL device");
    placed a;
    place(&a, 0);
    nf_plan *plan = placed_plan(&a, context, "opencl");
    const cl_context stranger = make_context();
    const cl_command_queue strange_queue = make_queue(stranger, 0);
    cl_int error;
    nf_io io;
    nf_exec exec;
    placed_io(&io, &a);
    nf_exec_init(&exec);
    exec.queue = strange_queue;
    ck_assert_int_eq(nf_forward(plan, &io, &exec), NF_ERR_ARGUMENT);
    ck_assert_str_eq(nf_last_error(), "exec: queue belongs to another cl_context or device");
    nf_tensor spoiled = a.tensor[NF_V];
    io.v = &spoiled;
    spoiled.data = api.clCreateBuffer(stranger, CL_MEM_READ_WRITE, a.bytes, NULL, &error);
    ck_assert_int_eq(nf_forward(plan, &io, NULL), NF_ERR_TENSOR);
    ck_assert_str_eq(nf_last_error(), "v: its cl_mem belongs to another cl_context");
    api.clReleaseMemObject(spoiled.data);
    spoiled = a.tensor[NF_V];
    spoiled.offset = (int64_t)(a.bytes / sizeof(float));
    ck_assert_int_eq(nf_forward(plan, &io, NULL), NF_ERR_TENSOR);
    ck_assert_ptr_nonnull(strstr(nf_last_error(), "do not lie in its cl_mem of"));
    spoiled.offset = 0;
    ck_assert_int_eq(nf_forward(plan, &io, NULL), NF_ERR_TENSOR);
    ck_assert_ptr_nonnull(strstr(nf_last_error(), "v: elements -2.."));
    ck_assert_int_eq(nf_opencl_use(context, cl, device, strange_queue), NF_ERR_ARGUMENT);
    ck_assert_str_eq(nf_last_error(), "queue: does not belong to the cl_context and the device");
    ck_assert_int_eq(nf_opencl_use(context, NULL, device, NULL), NF_ERR_ARGUMENT);
    ck_assert_str_eq(nf_last_error(), "cl_context: NULL");
    nf_plan_destroy(plan);
    api.clReleaseCommandQueue(strange_queue);
    api.clReleaseContext(stranger);
    release(&a);
}
END_TEST

/* A context without nf_opencl_use makes a cl_context of its own. */
START_TEST(a_buffer_needs_its_context)
{
    if (!device)
        NF_SKIP("there is no OpenCL device");
    placed a;
    nf_io io;
    nf_plan *plan;
    nf_plan_options options;
    place(&a, 0);
    placed_io(&io, &a);
    nf_plan_options_init(&options);
    options.layout = &io;
    ck_assert_int_eq(nf_plan_create(&plan, host_context, &a.truth.problem, &options), NF_ERR_UNSUPPORTED);
    options.backend = "opencl";
    ck_assert_msg(nf_plan_create(&plan, host_context, &a.truth.problem, &options) == NF_OK, "%s", nf_last_error());
    ck_assert_int_eq(nf_forward(plan, &io, NULL), NF_ERR_TENSOR);
    nf_plan_destroy(plan);
    release(&a);
}
END_TEST

static const char *const algos[] = {"lanes", "tile", "unfused"};

/* Batches lie so far apart that indices of elements need more than 32 bits. */
START_TEST(places_take_64_bits)
{
    static const int64_t apart = (INT64_C(1) << 31) + 7;
    if (!device)
        NF_SKIP("there is no OpenCL device");
    placed a;
    uint64_t seed = 1;
    nf_io io;
    attend_create_text(&a.truth, problem_text);
    attend_fill(&a.truth, &seed, 1);
    placed_lay(&a, NF_OPENCL, 0);
    for (int role = 0; role < NF_ROLES; role++)
        if (a.tensor[role].rank)
            a.tensor[role].strides[0] = apart;
    a.bytes += (size_t)apart * sizeof(float);
    if ((int64_t)a.bytes > room) {
        attend_destroy(&a.truth);
        NF_SKIP("the device is no CPU with buffers of more than 8 GiB");
    }
    fill_buffer(&a);
    attend_run(&a.truth, host_context, "reference", NULL, NF_BOTH);
    placed_io(&io, &a);
    nf_plan *plan = make_plan(context, "opencl", algos[_i], &a.truth.problem, &io);
    placed_run(&a, plan, NULL);
    copy_tensors(&a, false);
    nf_plan_destroy(plan);
    release(&a);
}
END_TEST

/* ---- The unfused pair -------------------------------------------------------------------------------------------- */

/* In place, on a queue of the program's, against the cpu backend. */
START_TEST(the_pair_runs_in_place)
{
    if (!device)
        NF_SKIP("there is no OpenCL device");
    const cl_command_queue queue = make_queue(cl, 0);
    placed a;
    uint64_t seed = 3;
    nf_io io, truth;
    nf_exec exec;
    attend_create_text(&a.truth, "na2d f32 b2 h4/2 d5/3 7x6 w3x5 c1x0 x2 both");
    placed_add_scores(&a.truth);
    attend_fill(&a.truth, &seed, 1);
    place_tensors(&a, 0);
    placed_io(&io, &a);
    attend_io(&truth, &a.truth);
    nf_exec_init(&exec);
    exec.queue = queue;
    nf_plan *plan = placed_pair_plan(context, "opencl", &a.truth.problem, &io);
    nf_plan *truth_plan = placed_pair_plan(host_context, "cpu", &a.truth.problem, &truth);
    placed_run_pair(plan, &io, &exec);
    placed_run_pair(truth_plan, &truth, NULL);
    ck_assert_int_eq(api.clFinish(queue), CL_SUCCESS);
    copy_tensors(&a, false);
    nf_plan_destroy(plan);
    nf_plan_destroy(truth_plan);
    api.clReleaseCommandQueue(queue);
    release(&a);
}
END_TEST

/* ---- Merging ----------------------------------------------------------------------------------------------------- */

static void map_merging(merging *m, cl_mem memory, bool to_device)
{
    cl_int error;
    void *mapped = api.clEnqueueMapBuffer(fill_queue, memory, CL_TRUE, CL_MAP_READ | (to_device ? 1 << 1 : 0), 0,
                                          m->bytes, 0, NULL, NULL, &error);
    ck_assert_int_eq(error, CL_SUCCESS);
    if (to_device)
        merging_fill(m, mapped);
    else
        merging_compare(m, mapped, tolerance);
    api.clEnqueueUnmapMemObject(fill_queue, memory, mapped, 0, NULL, NULL);
    ck_assert_int_eq(api.clFinish(fill_queue), CL_SUCCESS);
}

static cl_mem place_merging(merging *m, nf_dtype dtype)
{
    cl_int error;
    merging_create(m, dtype, NF_OPENCL);
    const cl_mem memory = api.clCreateBuffer(cl, CL_MEM_READ_WRITE, m->bytes, NULL, &error);
    ck_assert_int_eq(error, CL_SUCCESS);
    for (int t = 0; t < MERGING_TENSORS; t++) {
        m->placed[t].data = memory;
        m->placed[t].offset = m->first[t];
    }
    map_merging(m, memory, true);
    return memory;
}

static void release_merging(merging *m, cl_mem memory)
{
    merging_destroy(m);
    api.clReleaseMemObject(memory);
}

/* f32 and f64. */
START_TEST(merges_in_place)
{
    if (!device)
        NF_SKIP("there is no OpenCL device");
    merging m;
    nf_exec exec;
    void *forward_done = NULL;
    nf_exec_init(&exec);
    const cl_mem memory = place_merging(&m, (nf_dtype)_i);
    const nf_tensor *outs[] = {&m.placed[0]}, *lses[] = {&m.placed[1]};
    if (nf_merge_on(context, NULL, 1, outs, lses, outs[0], lses[0]) == NF_ERR_UNSUPPORTED) {
        release_merging(&m, memory);
        NF_SKIP("the device has no such type");
    }
    outs[0] = &m.host[0], lses[0] = &m.host[1];
    ck_assert_int_eq(nf_merge(1, outs, lses, outs[0], lses[0]), NF_OK);
    map_merging(&m, memory, false);
    merging_run_host(&m);
    const cl_event done = merging_run(&m, context, &exec, &forward_done);
    ck_assert_int_eq(api.clWaitForEvents(1, &done), CL_SUCCESS);
    api.clReleaseEvent(forward_done);
    api.clReleaseEvent(done);
    map_merging(&m, memory, false);
    release_merging(&m, memory);
}
END_TEST

START_TEST(merge_refusals)
{
    if (!device)
        NF_SKIP("there is no OpenCL device");
    merging m;
    nf_exec exec;
    const cl_mem memory = place_merging(&m, NF_F32);
    nf_exec_init(&exec);
    const nf_tensor *outs[] = {&m.placed[0]}, *lses[] = {&m.placed[1]}, *out = &m.placed[4];
    ck_assert_int_eq(nf_merge(1, outs, lses, out, NULL), NF_ERR_TENSOR);
    ck_assert_str_eq(nf_last_error(), "out: memory opencl must be host");
    ck_assert_int_eq(nf_merge_on(NULL, NULL, 1, outs, lses, out, NULL), NF_ERR_ARGUMENT);
    ck_assert_str_eq(nf_last_error(), "context: NULL");
    exec.size = 1;
    ck_assert_int_eq(nf_merge_on(context, &exec, 1, outs, lses, out, NULL), NF_ERR_ARGUMENT);
    nf_exec_init(&exec);
    lses[0] = &m.host[1];
    ck_assert_int_eq(nf_merge_on(context, NULL, 1, outs, lses, out, NULL), NF_ERR_TENSOR);
    ck_assert_str_eq(nf_last_error(), "lse_parts[0]: memory host must be opencl");
    lses[0] = &m.placed[1];
    ck_assert_int_eq(nf_merge_on(host_context, NULL, 1, outs, lses, out, NULL), NF_ERR_TENSOR);
    ck_assert_str_eq(nf_last_error(), "out: its cl_mem belongs to another cl_context");
    m.placed[0].offset += 1000;
    ck_assert_int_eq(nf_merge_on(context, NULL, 1, outs, lses, out, NULL), NF_ERR_TENSOR);
    ck_assert_ptr_nonnull(strstr(nf_last_error(), "out_parts[0]: elements "));
    m.placed[0] = m.host[0], m.placed[1] = m.host[1];
    m.placed[0].memory = m.placed[1].memory = NF_CUDA;
    ck_assert_int_ne(nf_merge_on(context, NULL, 1, outs, lses, outs[0], NULL), NF_OK); /* such memory it is not */
    outs[0] = &m.host[0], lses[0] = &m.host[1];
    ck_assert_int_eq(nf_merge_on(context, NULL, 1, outs, lses, &m.host[4], NULL), NF_OK);
    exec.queue = fill_queue;
    ck_assert_int_eq(nf_merge_on(context, &exec, 1, outs, lses, &m.host[4], NULL), NF_ERR_ARGUMENT);
    ck_assert_str_eq(nf_last_error(), "exec: queue and events must be NULL, tensors in host memory have none");
    release_merging(&m, memory);
}
END_TEST

/* ---- Events ------------------------------------------------------------------------------------------------------ */

static cl_event make_gate(cl_context owner)
{
    cl_event (*create)(cl_context, cl_int *);
    cl_int error;
    *(void **)&create = dlsym(api.library, "clCreateUserEvent");
    const cl_event gate = create(owner, &error);
    ck_assert_int_eq(error, CL_SUCCESS);
    return gate;
}

static void set_gate(cl_event gate, cl_int verdict)
{
    cl_int (*set)(cl_event, cl_int);
    *(void **)&set = dlsym(api.library, "clSetUserEventStatus");
    ck_assert_int_eq(set(gate, verdict), CL_SUCCESS);
}

static cl_int verdict_of(cl_event event)
{
    cl_int verdict;
    ck_assert_int_eq(api.clGetEventInfo(event, CL_EVENT_COMMAND_EXECUTION_STATUS, sizeof verdict, &verdict, NULL),
                     CL_SUCCESS);
    return verdict;
}

/* Calls with an event of their own do not wait, be it on the plan's queue, or on one of either kind of the program's.
 */
START_TEST(events_order_calls)
{
    enum { PLANS_QUEUE = 2 };
    if (!device)
        NF_SKIP("there is no OpenCL device");
    if (simulated)
        NF_SKIP("Oclgrind's clFlush waits for commands, and so for events that this test has yet to end");
    const cl_command_queue queue = _i == PLANS_QUEUE ? NULL : make_queue(cl, (cl_command_queue_properties)_i);
    if (!queue && _i != PLANS_QUEUE)
        NF_SKIP("the device has no such queue");
    placed a;
    nf_io io;
    nf_exec exec;
    place(&a, 0);
    nf_plan *plan = placed_plan(&a, context, "opencl");
    cl_event gate = make_gate(cl);
    void *forward = NULL, *backward = NULL, *waited[] = {gate, NULL};
    placed_io(&io, &a);
    nf_exec_init(&exec);
    exec.queue = queue;
    exec.wait_count = 1;
    exec.wait_events = waited;
    exec.signal_event = &forward;
    ck_assert_msg(nf_forward(plan, &io, &exec) == NF_OK, "%s", nf_last_error());
    ck_assert_ptr_nonnull(forward);
    exec.wait_count = 2;
    waited[1] = forward;
    exec.signal_event = &backward;
    ck_assert_msg(nf_backward(plan, &io, &exec) == NF_OK, "%s", nf_last_error());
    ck_assert_int_gt(verdict_of(forward), CL_COMPLETE);
    ck_assert_int_gt(verdict_of(backward), CL_COMPLETE);
    nf_plan_destroy(plan);
    set_gate(gate, CL_COMPLETE);
    const cl_event last = backward;
    ck_assert_int_eq(api.clWaitForEvents(1, &last), CL_SUCCESS);
    ck_assert_int_eq(verdict_of(forward), CL_COMPLETE);
    copy_tensors(&a, false);
    api.clReleaseEvent(forward);
    api.clReleaseEvent(backward);
    api.clReleaseEvent(gate);
    release(&a);
    if (queue)
        api.clReleaseCommandQueue(queue);
}
END_TEST

/* Puts a tensor's values in place, late, and says so. */
typedef struct late_writer {
    pthread_t thread;
    nf_tensor *tensor;
    const nf_tensor *values;
    cl_event gate;
} late_writer;

static void *write_late(void *argument)
{
    static const struct timespec delay = {.tv_nsec = 30 * 1000 * 1000};
    const late_writer *w = argument;
    nanosleep(&delay, NULL);
    for (int64_t i = 0; i < tensor_count(w->tensor); i++)
        tensor_set(w->tensor, i, tensor_get(w->values, i));
    set_gate(w->gate, CL_COMPLETE);
    return NULL;
}

START_TEST(host_memory_is_read_after_events)
{
    if (!device)
        NF_SKIP("there is no OpenCL device");
    placed a;
    attend kept;
    nf_io io;
    nf_exec exec;
    place(&a, 1 << NF_Q | 1 << NF_DOUT);
    attend_create_text(&kept, problem_text);
    attend_copy(&kept, &a.truth, NF_Q);
    nf_plan *plan = placed_plan(&a, context, "opencl");
    late_writer writer = {.tensor = &a.tensor[NF_Q], .values = &kept.tensor[NF_Q], .gate = make_gate(cl)};
    for (int64_t i = 0; i < tensor_count(writer.tensor); i++)
        tensor_set(writer.tensor, i, 0);
    void *event = NULL, *waited[] = {writer.gate};
    placed_io(&io, &a);
    nf_exec_init(&exec);
    exec.wait_count = 1;
    exec.wait_events = waited;
    exec.signal_event = &event;
    ck_assert_int_eq(pthread_create(&writer.thread, NULL, write_late, &writer), 0);
    ck_assert_msg(nf_forward(plan, &io, &exec) == NF_OK, "%s", nf_last_error());
    ck_assert_int_eq(pthread_join(writer.thread, NULL), 0);
    ck_assert_int_eq(verdict_of(event), CL_COMPLETE);
    ck_assert_msg(nf_backward(plan, &io, NULL) == NF_OK, "%s", nf_last_error());
    copy_tensors(&a, false);
    api.clReleaseEvent(event);
    api.clReleaseEvent(writer.gate);
    nf_plan_destroy(plan);
    attend_destroy(&kept);
    release(&a);
}
END_TEST

static const cl_int failure = -5;

static void *fail_late(void *argument)
{
    static const struct timespec delay = {.tv_nsec = 30 * 1000 * 1000};
    nanosleep(&delay, NULL);
    set_gate(argument, failure);
    return NULL;
}

/* A call fails with an event that had failed before, or, where it waits, fails during it; the next call does not mind.
 * (PoCL 3.1 aborts over commands in a queue that wait for an event that fails.) */
START_TEST(failed_events_fail_calls)
{
    const bool waits = _i;
    if (!device)
        NF_SKIP("there is no OpenCL device");
    placed a;
    nf_io io;
    nf_exec exec;
    pthread_t thread;
    place(&a, waits ? 1 << NF_DK : 0);
    nf_plan *plan = placed_plan(&a, context, "opencl");
    cl_event good = make_gate(cl), bad = make_gate(cl);
    void *event = NULL, *waited[] = {good, bad};
    placed_io(&io, &a);
    nf_exec_init(&exec);
    exec.wait_count = 2;
    exec.wait_events = waited;
    exec.signal_event = &event;
    set_gate(good, CL_COMPLETE);
    if (waits)
        ck_assert_int_eq(pthread_create(&thread, NULL, fail_late, bad), 0);
    else
        set_gate(bad, failure);
    for (int i = 0; i < 2; i++) {
        ck_assert_int_eq(nf_backward(plan, &io, &exec), NF_ERR_MEMORY);
        ck_assert_str_eq(nf_last_error(), "exec: wait_events[1] failed: CL_OUT_OF_RESOURCES (-5)");
        ck_assert_ptr_null(event);
    }
    if (waits)
        ck_assert_int_eq(pthread_join(thread, NULL), 0);
    placed_run(&a, plan, NULL);
    copy_tensors(&a, false);
    api.clReleaseEvent(good);
    api.clReleaseEvent(bad);
    nf_plan_destroy(plan);
    release(&a);
}
END_TEST

START_TEST(events_are_checked)
{
    if (!device)
        NF_SKIP("there is no OpenCL device");
    placed a;
    nf_io io;
    nf_exec exec;
    place(&a, 0);
    nf_plan *plan = placed_plan(&a, context, "opencl");
    const cl_context stranger = make_context();
    const cl_event gate = make_gate(cl), strange = make_gate(stranger);
    void *event = NULL, *waited[] = {gate, NULL};
    placed_io(&io, &a);
    nf_exec_init(&exec);
    exec.signal_event = &event;
    exec.wait_events = waited;
    exec.wait_count = 2;
    ck_assert_int_eq(nf_forward(plan, &io, &exec), NF_ERR_ARGUMENT);
    ck_assert_str_eq(nf_last_error(), "exec: wait_events[1] is no cl_event");
    waited[1] = strange;
    ck_assert_int_eq(nf_forward(plan, &io, &exec), NF_ERR_ARGUMENT);
    ck_assert_str_eq(nf_last_error(), "exec: wait_events[1] belongs to another cl_context");
    ck_assert_ptr_null(event);
    nf_plan_destroy(plan);
    api.clReleaseEvent(gate);
    api.clReleaseEvent(strange);
    api.clReleaseContext(stranger);
    release(&a);
}
END_TEST

/* ---- Threads ----------------------------------------------------------------------------------------------------- */

typedef struct worker {
    pthread_t thread;
    attend a;
    const nf_plan *plan;
    nf_status status;
} worker;

static void *work(void *argument)
{
    enum { WORKSPACE = 64 };
    const int rounds = simulated ? 1 : 20;
    worker *w = argument;
    nf_io io;
    nf_exec exec;
    attend_io(&io, &w->a);
    nf_exec_init(&exec);
    exec.workspace = aligned_alloc(WORKSPACE, WORKSPACE);
    exec.workspace_bytes = WORKSPACE;
    for (int i = 0; i < rounds && w->status == NF_OK; i++)
        if ((w->status = nf_forward(w->plan, &io, &exec)) == NF_OK)
            w->status = nf_backward(w->plan, &io, &exec);
    free(exec.workspace);
    return NULL;
}

START_TEST(threads_share_a_plan)
{
    if (!device)
        NF_SKIP("there is no OpenCL device");
    enum { WORKERS = 4 };
    worker workers[WORKERS];
    nf_plan *plan = NULL;
    for (int i = 0; i < WORKERS; i++) {
        uint64_t seed = (uint64_t)i;
        workers[i] = (worker){.status = NF_OK};
        attend_create_text(&workers[i].a, problem_text);
        attend_fill(&workers[i].a, &seed, 1);
    }
    ck_assert_int_eq(nf_plan_create(&plan, context, &workers[0].a.problem, NULL), NF_OK);
    for (int i = 0; i < WORKERS; i++) {
        workers[i].plan = plan;
        ck_assert_int_eq(pthread_create(&workers[i].thread, NULL, work, &workers[i]), 0);
    }
    for (int i = 0; i < WORKERS; i++) {
        attend truth;
        ck_assert_int_eq(pthread_join(workers[i].thread, NULL), 0);
        ck_assert_int_eq(workers[i].status, NF_OK);
        attend_create_text(&truth, problem_text);
        for (int role = 0; role < NF_ROLES; role++)
            if (truth.tensor[role].rank)
                attend_copy(&truth, &workers[i].a, (nf_role)role);
        attend_run(&truth, host_context, "reference", NULL, NF_BOTH);
        for (int role = 0; role < NF_ROLES; role++)
            if (truth.tensor[role].rank)
                ck_assert(tensor_distance(&truth.tensor[role], &workers[i].a.tensor[role]) < tolerance);
        attend_destroy(&truth);
        attend_destroy(&workers[i].a);
    }
    nf_plan_destroy(plan);
}
END_TEST

int main(void)
{
    TCase *cases = tcase_create("interop");
    tcase_add_checked_fixture(cases, setup, teardown);
    tcase_add_loop_test(cases, equals_reference, 0, sizeof in_host / sizeof in_host[0]);
    tcase_add_loop_test(cases, runs_on_a_queue_of_the_program, 0, 2);
    tcase_add_test(cases, calls_overlap);
    tcase_add_test(cases, refusals);
    tcase_add_test(cases, a_buffer_needs_its_context);
    tcase_add_loop_test(cases, places_take_64_bits, 0, sizeof algos / sizeof algos[0]);
    tcase_add_test(cases, the_pair_runs_in_place);
    tcase_add_loop_test(cases, merges_in_place, NF_F32, NF_F64 + 1);
    tcase_add_test(cases, merge_refusals);
    tcase_add_loop_test(cases, events_order_calls, 0, 3);
    tcase_add_test(cases, host_memory_is_read_after_events);
    tcase_add_loop_test(cases, failed_events_fail_calls, 0, 2);
    tcase_add_test(cases, events_are_checked);
    tcase_add_test(cases, threads_share_a_plan);
    Suite *suite = suite_create("opencl");
    suite_add_tcase(suite, cases);
    return nf_test_main(suite);
}
