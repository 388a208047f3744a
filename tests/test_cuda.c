/* A program's own CUDA memory and streams: tensors in one allocation, with strides of any sign. tests/cuda_kernels.sh
 * runs it on the mock driver of tests/cuda_host, which does nothing of what is enqueued before somebody waits for it.
 */
#include <stdlib.h>
#include <string.h>

#include "attend.h"
#include "backends/cuda/cu_api.h"
#include "fake.h"
#include "harness.h"
#include "nearfield_cuda.h"

static const char problem_text[] = "na2d f32 b2 h4/2 d5/3 7x6 w3x5 x2 both";
static const double tolerance = 1e-4;

static cu_api api;
static CUdevice device, other_device;
static CUcontext primary, other;
static CUstream copies;
static nf_context *context, *host_context;

#define CHECK_CU(call) ck_assert_int_eq((int)(call), CUDA_SUCCESS)

static CUstream make_stream(CUcontext owner)
{
    CUstream made;
    CUcontext left;
    CHECK_CU(api.cuCtxPushCurrent(owner));
    CHECK_CU(api.cuStreamCreate(&made, CU_STREAM_DEFAULT));
    CHECK_CU(api.cuCtxPopCurrent(&left));
    return made;
}

static void setup(void)
{
    clear_environment();
    ck_assert_msg(cu_api_load(&api) == NF_OK, "%s", nf_last_error());
    CHECK_CU(api.cuInit(0));
    CHECK_CU(api.cuDeviceGet(&device, 0));
    CHECK_CU(api.cuDeviceGet(&other_device, 1));
    CHECK_CU(api.cuDevicePrimaryCtxRetain(&primary, device));
    CHECK_CU(api.cuDevicePrimaryCtxRetain(&other, other_device));
    CHECK_CU(api.cuCtxPushCurrent(primary));
    copies = make_stream(primary);
    ck_assert_int_eq(nf_context_create(&host_context, NULL), NF_OK);
    ck_assert_int_eq(nf_context_create(&context, NULL), NF_OK);
    ck_assert_msg(nf_cuda_use(context, 0, NULL) == NF_OK, "%s", nf_last_error());
}

static void teardown(void)
{
    CUcontext left;
    nf_context_destroy(context);
    nf_context_destroy(host_context);
    CHECK_CU(api.cuStreamDestroy(copies));
    CHECK_CU(api.cuCtxPopCurrent(&left));
    ck_assert_ptr_eq(left, primary); /* nothing of ours is left current */
    CHECK_CU(api.cuDevicePrimaryCtxRelease(device));
    CHECK_CU(api.cuDevicePrimaryCtxRelease(other_device));
}

/* ---- Tensors in one allocation ----------------------------------------------------------------------------------- */

typedef struct arena {
    CUdeviceptr memory;
    size_t bytes;
    attend truth;               /* in host memory, by the reference */
    nf_tensor tensor[NF_ROLES]; /* in the allocation, or the host's */
    int64_t first[NF_ROLES];    /* where element [0, 0, ...] lies in it */
} arena;

/* Each tensor follows the one before, its last dimension running backwards. */
static void place_tensors(arena *a, uint32_t in_host)
{
    int64_t used = 1;
    for (int role = 0; role < NF_ROLES; role++) {
        nf_tensor *t = &a->tensor[role];
        *t = a->truth.tensor[role];
        if (t->rank == 0 || in_host >> role & 1)
            continue;
        const int32_t last = t->rank - 1;
        t->memory = NF_CUDA;
        t->strides[last] = -1;
        a->first[role] = used + t->extents[last] - 1;
        used += tensor_count(t);
    }
    a->bytes = (size_t)used * sizeof(float);
}

/* Between the host's tensors and the allocation, by way of an image of it. */
static void copy_tensors(arena *a, bool to_device)
{
    float *image = malloc(a->bytes);
    CHECK_CU(api.cuMemcpyDtoHAsync(image, a->memory, a->bytes, copies));
    CHECK_CU(api.cuStreamSynchronize(copies));
    for (int role = 0; role < NF_ROLES; role++) {
        nf_tensor view = a->tensor[role];
        if (view.rank == 0 || view.memory != NF_CUDA)
            continue;
        view.memory = NF_HOST;
        view.data = image + a->first[role];
        nf_tensor *host = &a->truth.tensor[role];
        if (to_device)
            for (int64_t i = 0; i < tensor_count(&view); i++)
                tensor_set(&view, i, tensor_get(host, i));
        else
            ck_assert_msg(tensor_distance(&view, host) < tolerance, "%s", nf_role_name((nf_role)role));
    }
    if (to_device) {
        CHECK_CU(api.cuMemcpyHtoDAsync(a->memory, image, a->bytes, copies));
        CHECK_CU(api.cuStreamSynchronize(copies));
    }
    free(image);
}

static void arena_create(arena *a, uint32_t in_host)
{
    uint64_t seed = 1;
    attend_create_text(&a->truth, problem_text);
    attend_fill(&a->truth, &seed, 1);
    place_tensors(a, in_host);
    CHECK_CU(api.cuMemAlloc(&a->memory, a->bytes));
    for (int role = 0; role < NF_ROLES; role++)
        if (a->tensor[role].memory == NF_CUDA)
            a->tensor[role].data = (float *)(uintptr_t)a->memory + a->first[role];
    copy_tensors(a, true);
    attend_run(&a->truth, host_context, "reference", NULL, NF_BOTH);
}

static void arena_destroy(arena *a)
{
    CHECK_CU(api.cuMemFree(a->memory));
    attend_destroy(&a->truth);
}

static void arena_io(nf_io *io, const arena *a)
{
    nf_io_init(io);
    const nf_tensor **member[NF_ROLES] = {[NF_Q] = &io->q,
                                          [NF_K] = &io->k,
                                          [NF_V] = &io->v,
                                          [NF_EXTRA_K] = &io->extra_k,
                                          [NF_EXTRA_V] = &io->extra_v,
                                          [NF_OUT] = &io->out,
                                          [NF_LSE] = &io->lse,
                                          [NF_DOUT] = &io->dout,
                                          [NF_DLSE] = &io->dlse,
                                          [NF_DQ] = &io->dq,
                                          [NF_DK] = &io->dk,
                                          [NF_DV] = &io->dv,
                                          [NF_DEXTRA_K] = &io->dextra_k,
                                          [NF_DEXTRA_V] = &io->dextra_v};
    for (int role = 0; role < NF_ROLES; role++)
        if (member[role] && a->tensor[role].rank)
            *member[role] = &a->tensor[role];
}

static nf_plan *make_plan(const arena *a)
{
    nf_io io;
    nf_plan *plan;
    nf_plan_options options;
    nf_plan_info info = {.size = sizeof info};
    arena_io(&io, a);
    nf_plan_options_init(&options);
    options.layout = &io;
    ck_assert_msg(nf_plan_create(&plan, context, &a->truth.problem, &options) == NF_OK, "%s", nf_last_error());
    ck_assert_int_eq(nf_plan_get_info(plan, &info), NF_OK);
    ck_assert_str_eq(info.backend, "cuda");
    return plan;
}

static void run_both(const arena *a, const nf_plan *plan, const nf_exec *exec)
{
    nf_io io;
    arena_io(&io, a);
    ck_assert_msg(nf_forward(plan, &io, exec) == NF_OK, "%s", nf_last_error());
    ck_assert_msg(nf_backward(plan, &io, exec) == NF_OK, "%s", nf_last_error());
}

/* ---- Tests ------------------------------------------------------------------------------------------------------- */

/* Nothing, inputs, and gradients of keys in host memory. */
static const uint32_t in_host[] = {0, 1 << NF_Q | 1 << NF_K | 1 << NF_DOUT, 1 << NF_DK | 1 << NF_DEXTRA_V};

START_TEST(equals_reference)
{
    arena a;
    attend kept;
    arena_create(&a, in_host[_i]);
    attend_create_text(&kept, problem_text);
    for (int role = 0; role < NF_ROLES; role++)
        if (kept.tensor[role].rank)
            attend_copy(&kept, &a.truth, (nf_role)role);
    nf_plan *plan = make_plan(&a);
    run_both(&a, plan, NULL);
    for (int role = 0; role < NF_ROLES; role++)
        if (kept.tensor[role].rank && in_host[_i] >> role & 1)
            ck_assert_msg(tensor_distance(&kept.tensor[role], &a.tensor[role]) < tolerance, "%s",
                          nf_role_name((nf_role)role));
    copy_tensors(&a, false);
    nf_plan_destroy(plan);
    attend_destroy(&kept);
    arena_destroy(&a);
}
END_TEST

START_TEST(runs_on_a_stream_of_the_program)
{
    const CUstream stream = make_stream(primary);
    arena a;
    nf_exec exec;
    arena_create(&a, 0);
    nf_plan *plan = make_plan(&a);
    nf_exec_init(&exec);
    exec.queue = stream;
    run_both(&a, plan, &exec);
    CHECK_CU(api.cuStreamSynchronize(stream));
    copy_tensors(&a, false);
    nf_plan_destroy(plan);
    arena_destroy(&a);
    CHECK_CU(api.cuStreamDestroy(stream));
}
END_TEST

/* Calls that do not wait share a plan's scratch across streams; the plan may go before they end. */
START_TEST(calls_overlap)
{
    enum { STREAMS = 3, ROUNDS = 12 };
    CUstream streams[STREAMS];
    nf_exec exec;
    arena a;
    nf_exec_init(&exec);
    arena_create(&a, 0);
    for (int i = 0; i < STREAMS; i++)
        streams[i] = make_stream(primary);
    ck_assert_int_eq(nf_cuda_use(context, 0, streams[0]), NF_OK);
    nf_plan *plan = make_plan(&a);
    run_both(&a, plan, NULL);
    for (int i = 0; i < ROUNDS; i++) {
        exec.queue = streams[i % STREAMS];
        run_both(&a, plan, &exec);
    }
    nf_plan_destroy(plan);
    for (int i = 0; i < STREAMS; i++)
        CHECK_CU(api.cuStreamSynchronize(streams[i]));
    copy_tensors(&a, false);
    arena_destroy(&a);
    for (int i = 0; i < STREAMS; i++)
        CHECK_CU(api.cuStreamDestroy(streams[i]));
}
END_TEST

/* Backward of another plan, on another stream, finds what forward has left: only the event puts it after. */
START_TEST(events_order_calls)
{
    arena a;
    nf_io io;
    nf_exec first, second;
    void *forward_done = NULL, *backward_done = NULL;
    arena_create(&a, 0);
    arena_io(&io, &a);
    nf_plan *forward = make_plan(&a), *backward = make_plan(&a);
    nf_exec_init(&first);
    nf_exec_init(&second);
    first.signal_event = &forward_done;
    second.wait_count = 1;
    second.wait_events = &forward_done;
    second.signal_event = &backward_done;
    ck_assert_msg(nf_forward(forward, &io, &first) == NF_OK, "%s", nf_last_error());
    ck_assert_ptr_nonnull(forward_done);
    ck_assert_msg(nf_backward(backward, &io, &second) == NF_OK, "%s", nf_last_error());
    CHECK_CU(api.cuEventSynchronize(backward_done));
    copy_tensors(&a, false);
    CHECK_CU(api.cuEventDestroy(forward_done));
    CHECK_CU(api.cuEventDestroy(backward_done));
    nf_plan_destroy(forward);
    nf_plan_destroy(backward);
    arena_destroy(&a);
}
END_TEST

static void refuses(nf_status status, nf_status expected, const char *sentence)
{
    ck_assert_int_eq(status, expected);
    ck_assert_msg(strstr(nf_last_error(), sentence), "'%s' does not say '%s'", nf_last_error(), sentence);
}

START_TEST(refusals)
{
    const CUstream strange = make_stream(other);
    CUcontext left;
    CUdeviceptr elsewhere;
    arena a;
    nf_io io;
    nf_exec exec;
    arena_create(&a, 0);
    nf_plan *plan = make_plan(&a);
    arena_io(&io, &a);
    nf_exec_init(&exec);
    exec.queue = strange;
    refuses(nf_forward(plan, &io, &exec), NF_ERR_ARGUMENT, "exec: queue is a stream of another context");
    void *no_event = NULL;
    exec.queue = NULL;
    exec.wait_count = 1;
    exec.wait_events = &no_event;
    refuses(nf_forward(plan, &io, &exec), NF_ERR_ARGUMENT, "exec: wait_events[0] is NULL");
    refuses(nf_cuda_use(context, 0, strange), NF_ERR_ARGUMENT, "stream: belongs to another context");
    refuses(nf_cuda_use(context, 7, NULL), NF_ERR_ARGUMENT, "device: 7 must be in 0..1");
    refuses(nf_cuda_use(context, -1, NULL), NF_ERR_ARGUMENT, "device: -1 must be in 0..1");
    refuses(nf_cuda_use(NULL, 0, NULL), NF_ERR_ARGUMENT, "context: NULL");
    CHECK_CU(api.cuCtxPushCurrent(other));
    CHECK_CU(api.cuMemAlloc(&elsewhere, a.bytes));
    nf_tensor spoiled = a.tensor[NF_V];
    io.v = &spoiled;
    spoiled.data = (void *)(uintptr_t)elsewhere;
    refuses(nf_forward(plan, &io, NULL), NF_ERR_TENSOR, "v: data is memory of CUDA device 1, the plan runs on 0");
    CHECK_CU(api.cuMemFree(elsewhere));
    CHECK_CU(api.cuCtxPopCurrent(&left));
    spoiled.data = a.truth.tensor[NF_V].data;
    refuses(nf_forward(plan, &io, NULL), NF_ERR_TENSOR, "v: data is no CUDA pointer");
    spoiled.data = (void *)(uintptr_t)a.memory;
    refuses(nf_forward(plan, &io, NULL), NF_ERR_TENSOR, "v: bytes -8..");
    spoiled.data = (float *)(uintptr_t)a.memory + a.bytes / sizeof(float) - 1;
    refuses(nf_forward(plan, &io, NULL), NF_ERR_TENSOR, "do not lie in its allocation of");
    nf_plan_destroy(plan);
    CHECK_CU(api.cuStreamDestroy(strange));
    arena_destroy(&a);
}
END_TEST

/* A context that was not told runs on the device's primary context, too. */
START_TEST(needs_no_word)
{
    arena a;
    nf_io io;
    arena_create(&a, 0);
    nf_context *told = context;
    context = host_context;
    nf_plan *plan = make_plan(&a);
    context = told;
    arena_io(&io, &a);
    ck_assert_msg(nf_forward(plan, &io, NULL) == NF_OK, "%s", nf_last_error());
    nf_plan_destroy(plan);
    arena_destroy(&a);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("cuda");
    TCase *tests = tcase_create("cuda");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_loop_test(tests, equals_reference, 0, sizeof in_host / sizeof *in_host);
    tcase_add_test(tests, runs_on_a_stream_of_the_program);
    tcase_add_test(tests, calls_overlap);
    tcase_add_test(tests, events_order_calls);
    tcase_add_test(tests, refusals);
    tcase_add_test(tests, needs_no_word);
    suite_add_tcase(suite, tests);
    return nf_test_main(suite);
}
