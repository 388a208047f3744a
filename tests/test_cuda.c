/* A program's own CUDA memory and streams: tensors in one allocation, with strides of any sign. tests/cuda_kernels.sh
 * runs it on the mock driver of tests/cuda_host, which does nothing of what is enqueued before somebody waits for it.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "attend.h"
#include "backends/cuda/cu_boxes.h"
#include "core/dtype.h"
#include "fake.h"
#include "harness.h"
#include "merging.h"
#include "nearfield_cuda.h"
#include "placed.h"

static const char problem_text[] = "na2d f32 b2 h4/2 d5/3 7x6 w3x5 x2 both";
/* Of tensor cores, and with more dimensions than those take. */
static const char *const pair_texts[] = {"na2d f32 b2 h4/2 d5/3 7x6 w3x5 c1x0 x2 both",
                                         "na2d f32 b2 h4/2 d130/3 7x6 w3x5 c1x0 x2 both"};
enum { PAIRS = 2 * sizeof pair_texts / sizeof *pair_texts };
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

static CUdeviceptr memory_of(const placed *a)
{
    return (CUdeviceptr)(uintptr_t)a->memory;
}

/* By way of an image of the allocation. */
static void copy_tensors(placed *a, bool to_device)
{
    float *image = malloc(a->bytes);
    CHECK_CU(api.cuMemcpyDtoHAsync(image, memory_of(a), a->bytes, copies));
    CHECK_CU(api.cuStreamSynchronize(copies));
    if (to_device) {
        placed_fill(a, image);
        CHECK_CU(api.cuMemcpyHtoDAsync(memory_of(a), image, a->bytes, copies));
        CHECK_CU(api.cuStreamSynchronize(copies));
    } else
        placed_compare(a, image, tolerance);
    free(image);
}

static void place_tensors(placed *a, uint32_t in_host)
{
    CUdeviceptr memory;
    placed_lay(a, NF_CUDA, in_host);
    CHECK_CU(api.cuMemAlloc(&memory, a->bytes));
    a->memory = (void *)(uintptr_t)memory;
    for (int role = 0; role < NF_ROLES; role++)
        if (a->tensor[role].memory == NF_CUDA)
            a->tensor[role].data = (float *)a->memory + a->first[role];
    copy_tensors(a, true);
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
    CHECK_CU(api.cuMemFree(memory_of(a)));
    attend_destroy(&a->truth);
}

/* ---- Tests ------------------------------------------------------------------------------------------------------- */

/* A copy of the truth, because a call writes results that lie in host memory over it. */
static void keep(attend *kept, const placed *a, const char *text, bool scores)
{
    attend_create_text(kept, text);
    if (scores)
        placed_add_scores(kept);
    for (int role = 0; role < NF_ROLES; role++)
        if (kept->tensor[role].rank)
            attend_copy(kept, &a->truth, (nf_role)role);
}

static void compare_kept(const attend *kept, const placed *a, uint32_t in_host)
{
    for (int role = 0; role < NF_ROLES; role++)
        for (int64_t i = 0; in_host >> role & 1 && i < tensor_count(&kept->tensor[role]); i++) {
            const double is = tensor_get(&a->tensor[role], i), wanted = tensor_get(&kept->tensor[role], i);
            ck_assert_msg(is == wanted || fabs(is - wanted) < tolerance, "%s", nf_role_name((nf_role)role));
        }
}

/* Nothing, inputs, and gradients of keys in host memory. */
static const uint32_t in_host[] = {0, 1 << NF_Q | 1 << NF_K | 1 << NF_DOUT, 1 << NF_DK | 1 << NF_DEXTRA_V};

START_TEST(equals_reference)
{
    placed a;
    attend kept;
    place(&a, in_host[_i]);
    keep(&kept, &a, problem_text, false);
    nf_plan *plan = placed_plan(&a, context, "cuda");
    placed_run(&a, plan, NULL);
    compare_kept(&kept, &a, in_host[_i]);
    copy_tensors(&a, false);
    nf_plan_destroy(plan);
    attend_destroy(&kept);
    release(&a);
}
END_TEST

START_TEST(runs_on_a_stream_of_the_program)
{
    const CUstream stream = make_stream(primary);
    placed a;
    nf_exec exec;
    place(&a, 0);
    nf_plan *plan = placed_plan(&a, context, "cuda");
    nf_exec_init(&exec);
    exec.queue = stream;
    placed_run(&a, plan, &exec);
    CHECK_CU(api.cuStreamSynchronize(stream));
    copy_tensors(&a, false);
    nf_plan_destroy(plan);
    release(&a);
    CHECK_CU(api.cuStreamDestroy(stream));
}
END_TEST

static void refuses(nf_status status, nf_status expected, const char *sentence)
{
    ck_assert_int_eq(status, expected);
    ck_assert_msg(strstr(nf_last_error(), sentence), "'%s' does not say '%s'", nf_last_error(), sentence);
}

/* The kernels run as often as asked for, copies once; results are those of one run. */
START_TEST(the_device_takes_the_time)
{
    nf_timing timing = {.runs = 3, .seconds = -1};
    placed a;
    nf_io io;
    nf_exec exec;
    attend kept;
    place(&a, in_host[_i]);
    keep(&kept, &a, problem_text, false);
    nf_plan *plan = placed_plan(&a, context, "cuda");
    nf_exec_init(&exec);
    exec.timing = &timing;
    placed_run(&a, plan, &exec);
    ck_assert(timing.seconds > 0);
    compare_kept(&kept, &a, in_host[_i]);
    copy_tensors(&a, false);
    placed_io(&io, &a);
    timing.runs = 0;
    refuses(nf_forward(plan, &io, &exec), NF_ERR_ARGUMENT, "exec: timing: runs 0 must be at least 1");
    nf_plan_destroy(plan);
    attend_destroy(&kept);
    release(&a);
}
END_TEST

START_TEST(the_device_is_measured)
{
    nf_peak peak = {.size = sizeof peak};
    ck_assert_msg(nf_backend_peak(context, "cuda", (nf_dtype)_i, &peak) == NF_OK, "%s", nf_last_error());
    ck_assert(peak.flops > 0);
    ck_assert(peak.bandwidth > 0);
    ck_assert_str_ne(peak.basis, "");
    refuses(nf_backend_peak(context, "cpu", (nf_dtype)_i, &peak), NF_ERR_UNSUPPORTED, "backend: ");
    refuses(nf_backend_peak(context, "cuda", (nf_dtype)4, &peak), NF_ERR_ARGUMENT, "dtype: 4 is no nf_dtype");
    refuses(nf_backend_peak(context, "cuda", (nf_dtype)_i, NULL), NF_ERR_ARGUMENT, "peak: NULL");
    peak.size = 1;
    refuses(nf_backend_peak(context, "cuda", (nf_dtype)_i, &peak), NF_ERR_ARGUMENT, "peak");
}
END_TEST

/* Calls that do not wait share a plan's scratch across streams; the plan may go before they end. */
START_TEST(calls_overlap)
{
    enum { STREAMS = 3, ROUNDS = 12 };
    CUstream streams[STREAMS];
    nf_exec exec;
    placed a;
    nf_exec_init(&exec);
    place(&a, 0);
    for (int i = 0; i < STREAMS; i++)
        streams[i] = make_stream(primary);
    ck_assert_int_eq(nf_cuda_use(context, 0, streams[0]), NF_OK);
    nf_plan *plan = placed_plan(&a, context, "cuda");
    placed_run(&a, plan, NULL);
    for (int i = 0; i < ROUNDS; i++) {
        exec.queue = streams[i % STREAMS];
        placed_run(&a, plan, &exec);
    }
    nf_plan_destroy(plan);
    for (int i = 0; i < STREAMS; i++)
        CHECK_CU(api.cuStreamSynchronize(streams[i]));
    copy_tensors(&a, false);
    release(&a);
    for (int i = 0; i < STREAMS; i++)
        CHECK_CU(api.cuStreamDestroy(streams[i]));
}
END_TEST

/* Backward of another plan, on another stream, finds what forward has left: only the event puts it after. */
START_TEST(events_order_calls)
{
    placed a;
    nf_io io;
    nf_exec first, second;
    void *forward_done = NULL, *backward_done = NULL;
    place(&a, 0);
    placed_io(&io, &a);
    nf_plan *forward = placed_plan(&a, context, "cuda"), *backward = placed_plan(&a, context, "cuda");
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
    release(&a);
}
END_TEST

/* ---- The unfused pair, and merging ------------------------------------------------------------------------------- */

/* In place on a stream of the program's, against the cpu backend; and with scores in host memory, as staged tensors. */
START_TEST(the_pair_runs)
{
    const CUstream stream = make_stream(primary);
    const uint32_t host = _i % 2 ? UINT32_C(1) << NF_SCORES | UINT32_C(1) << NF_DK : 0;
    const char *text = pair_texts[_i / 2];
    placed a;
    attend kept;
    uint64_t seed = 3;
    nf_io io, truth;
    nf_exec exec;
    attend_create_text(&a.truth, text);
    placed_add_scores(&a.truth);
    attend_fill(&a.truth, &seed, 1);
    place_tensors(&a, host);
    placed_io(&io, &a);
    attend_io(&truth, &a.truth);
    nf_exec_init(&exec);
    exec.queue = stream;
    nf_plan *plan = placed_pair_plan(context, "cuda", &a.truth.problem, &io);
    nf_plan *truth_plan = placed_pair_plan(host_context, "cpu", &a.truth.problem, &truth);
    placed_run_pair(truth_plan, &truth, NULL);
    keep(&kept, &a, text, true);
    placed_run_pair(plan, &io, &exec);
    CHECK_CU(api.cuStreamSynchronize(stream));
    compare_kept(&kept, &a, host);
    copy_tensors(&a, false);
    nf_plan_destroy(plan);
    nf_plan_destroy(truth_plan);
    attend_destroy(&kept);
    release(&a);
    CHECK_CU(api.cuStreamDestroy(stream));
}
END_TEST

static CUdeviceptr place_merging(merging *m, nf_dtype dtype)
{
    CUdeviceptr memory;
    merging_create(m, dtype, NF_CUDA);
    void *image = calloc(1, m->bytes);
    CHECK_CU(api.cuMemAlloc(&memory, m->bytes));
    for (int t = 0; t < MERGING_TENSORS; t++)
        m->placed[t].data = (char *)(uintptr_t)memory + (size_t)m->first[t] * nf_dtype_size(dtype);
    merging_fill(m, image);
    CHECK_CU(api.cuMemcpyHtoDAsync(memory, image, m->bytes, copies));
    CHECK_CU(api.cuStreamSynchronize(copies));
    free(image);
    return memory;
}

static void compare_merging(const merging *m, CUdeviceptr memory)
{
    void *image = malloc(m->bytes);
    CHECK_CU(api.cuMemcpyDtoHAsync(image, memory, m->bytes, copies));
    CHECK_CU(api.cuStreamSynchronize(copies));
    merging_compare(m, image, tolerance);
    free(image);
}

/* f32 and f64; in place and at once, then after events. */
START_TEST(merges_in_place)
{
    merging m;
    nf_exec exec;
    void *forward_done = NULL;
    const CUdeviceptr memory = place_merging(&m, (nf_dtype)_i);
    const nf_tensor *outs[] = {&m.placed[0]}, *lses[] = {&m.placed[1]};
    ck_assert_msg(nf_merge_on(context, NULL, 1, outs, lses, outs[0], lses[0]) == NF_OK, "%s", nf_last_error());
    outs[0] = &m.host[0], lses[0] = &m.host[1];
    ck_assert_int_eq(nf_merge(1, outs, lses, outs[0], lses[0]), NF_OK);
    compare_merging(&m, memory);
    merging_run_host(&m);
    nf_exec_init(&exec);
    const CUevent done = merging_run(&m, context, &exec, &forward_done);
    CHECK_CU(api.cuEventSynchronize(done));
    CHECK_CU(api.cuEventDestroy(forward_done));
    CHECK_CU(api.cuEventDestroy(done));
    compare_merging(&m, memory);
    merging_destroy(&m);
    CHECK_CU(api.cuMemFree(memory));
}
END_TEST

START_TEST(merge_refusals)
{
    const CUstream strange = make_stream(other);
    merging m;
    nf_exec exec;
    void *no_event = NULL;
    const CUdeviceptr memory = place_merging(&m, NF_F32);
    const nf_tensor *outs[] = {&m.placed[0]}, *lses[] = {&m.placed[1]}, *out = &m.placed[4];
    nf_exec_init(&exec);
    exec.queue = strange;
    refuses(nf_merge_on(context, &exec, 1, outs, lses, out, NULL), NF_ERR_ARGUMENT,
            "exec: queue is a stream of another");
    exec.queue = NULL;
    exec.wait_count = 1;
    exec.wait_events = &no_event;
    refuses(nf_merge_on(context, &exec, 1, outs, lses, out, NULL), NF_ERR_ARGUMENT, "exec: wait_events[0] is NULL");
    exec.wait_count = 0;
    exec.timing = &(nf_timing){.runs = 1};
    refuses(nf_merge_on(context, &exec, 1, outs, lses, out, NULL), NF_ERR_ARGUMENT, "exec: timing must be NULL");
    m.placed[0].data = (void *)(uintptr_t)memory;
    refuses(nf_merge_on(context, NULL, 1, outs, lses, out, NULL), NF_ERR_TENSOR, "out_parts[0]: bytes ");
    m.placed[1].data = m.host[1].data;
    m.placed[0].data = m.placed[8].data;
    refuses(nf_merge_on(context, NULL, 1, outs, lses, out, NULL), NF_ERR_TENSOR,
            "lse_parts[0]: data is no CUDA pointer");
    merging_destroy(&m);
    CHECK_CU(api.cuMemFree(memory));
    CHECK_CU(api.cuStreamDestroy(strange));
}
END_TEST

START_TEST(refusals)
{
    const CUstream strange = make_stream(other);
    CUcontext left;
    CUdeviceptr elsewhere;
    placed a;
    nf_io io;
    nf_exec exec;
    place(&a, 0);
    nf_plan *plan = placed_plan(&a, context, "cuda");
    placed_io(&io, &a);
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
    refuses(nf_forward(plan, &io, NULL), NF_ERR_TENSOR, "v: data is memory of CUDA device 1, the context uses 0");
    CHECK_CU(api.cuMemFree(elsewhere));
    CHECK_CU(api.cuCtxPopCurrent(&left));
    spoiled.data = a.truth.tensor[NF_V].data;
    refuses(nf_forward(plan, &io, NULL), NF_ERR_TENSOR, "v: data is no CUDA pointer");
    spoiled.data = a.memory;
    refuses(nf_forward(plan, &io, NULL), NF_ERR_TENSOR, "v: bytes -8..");
    spoiled.data = (float *)a.memory + a.bytes / sizeof(float) - 1;
    refuses(nf_forward(plan, &io, NULL), NF_ERR_TENSOR, "do not lie in its allocation of");
    nf_plan_destroy(plan);
    CHECK_CU(api.cuStreamDestroy(strange));
    release(&a);
}
END_TEST

/* ---- Boxes ------------------------------------------------------------------------------------------------------- */

enum {
    BOXED_TOKENS = 64,
    BOXED_DIMS = 8,
    BOXED_ELEMENTS = BOXED_TOKENS * BOXED_DIMS,
    BOXED_APART = BOXED_ELEMENTS + 8, /* from one tensor to the next */
    BOXED_BYTES = 4 * BOXED_APART * sizeof(uint16_t)
};

static const char boxed_text[] = "na1d bf16 d8 64 w9 fwd";

/* q, k, v and out lie in one allocation, each 8 elements after the one before. */
static nf_tensor boxed_tensor(CUdeviceptr memory, int which)
{
    return (nf_tensor){.size = sizeof(nf_tensor),
                       .data = (uint16_t *)(uintptr_t)memory + which * BOXED_APART,
                       .dtype = NF_BF16,
                       .memory = NF_CUDA,
                       .rank = 4,
                       .extents = {1, BOXED_TOKENS, 1, BOXED_DIMS},
                       .strides = {BOXED_ELEMENTS, BOXED_DIMS, BOXED_DIMS, 1}};
}

static void read_boxed(CUdeviceptr memory, float out[BOXED_ELEMENTS])
{
    uint16_t image[4 * BOXED_APART];
    CHECK_CU(api.cuMemcpyDtoHAsync(image, memory, sizeof image, copies));
    CHECK_CU(api.cuStreamSynchronize(copies));
    for (int i = 0; i < BOXED_ELEMENTS; i++)
        out[i] = nf_bf16_to_f32(image[3 * BOXED_APART + i]);
}

/* Runs forward with k so many elements further on; what it has to read there is the same. */
static void run_boxed(CUdeviceptr memory, nf_plan **plan, int further, float out[BOXED_ELEMENTS])
{
    uint16_t image[4 * BOXED_APART] = {0};
    nf_tensor tensor[4];
    for (int t = 0; t < 4; t++) {
        tensor[t] = boxed_tensor(memory, t);
        for (int i = 0; t < 3 && i < BOXED_ELEMENTS; i++)
            image[t * BOXED_APART + i + (t == 1 ? further : 0)] =
                nf_f32_to_bf16((float)((31 * i + 17 * t) % 23) / 8 - 1);
    }
    nf_io io = {.size = sizeof io, .q = &tensor[0], .k = &tensor[1], .v = &tensor[2], .out = &tensor[3]};
    if (!*plan) {
        nf_problem problem;
        nf_plan_options options;
        ck_assert_int_eq(nf_problem_parse(&problem, boxed_text), NF_OK);
        nf_plan_options_init(&options);
        options.layout = &io;
        options.backend = "cuda";
        options.algo = "wgmma";
        ck_assert_msg(nf_plan_create(plan, context, &problem, &options) == NF_OK, "%s", nf_last_error());
    }
    tensor[1].data = (uint16_t *)tensor[1].data + further;
    CHECK_CU(api.cuMemcpyHtoDAsync(memory, image, sizeof image, copies));
    CHECK_CU(api.cuStreamSynchronize(copies));
    ck_assert_msg(nf_forward(*plan, &io, NULL) == NF_OK, "%s", nf_last_error());
    read_boxed(memory, out);
}

/* Boxes are copied from multiples of 16 bytes; a tensor that lies elsewhere is met by other kernels of the same plan.
 */
START_TEST(boxes_from_any_address)
{
    float there[BOXED_ELEMENTS], elsewhere[BOXED_ELEMENTS], most = 0;
    CUdeviceptr memory;
    nf_plan *plan = NULL;
    CHECK_CU(api.cuMemAlloc(&memory, BOXED_BYTES));
    run_boxed(memory, &plan, 0, there);
    run_boxed(memory, &plan, 3, elsewhere);
    for (int i = 0; i < BOXED_ELEMENTS; i++) {
        ck_assert_msg(fabsf(there[i] - elsewhere[i]) <= 0.02f, "element %d: %g, %g", i, (double)there[i],
                      (double)elsewhere[i]);
        most = fmaxf(most, fabsf(there[i]));
    }
    ck_assert(most > 0.1f);
    nf_plan_destroy(plan);
    CHECK_CU(api.cuMemFree(memory));
}
END_TEST

/* One call meets boxes, the next one does not, on streams that know nothing of each other: what is there in the end is
 * of the last. */
START_TEST(boxes_and_lines_in_order)
{
    const CUstream streams[2] = {make_stream(primary), make_stream(primary)};
    float first[BOXED_ELEMENTS], last[BOXED_ELEMENTS], left[BOXED_ELEMENTS];
    CUdeviceptr memory;
    nf_plan *plan = NULL;
    nf_tensor tensor[4];
    nf_exec exec;
    nf_exec_init(&exec);
    CHECK_CU(api.cuMemAlloc(&memory, BOXED_BYTES));
    run_boxed(memory, &plan, 0, first);
    for (int t = 0; t < 4; t++)
        tensor[t] = boxed_tensor(memory, t);
    const nf_io io = {.size = sizeof io, .q = &tensor[0], .k = &tensor[1], .v = &tensor[2], .out = &tensor[3]};
    exec.queue = streams[0];
    ck_assert_msg(nf_forward(plan, &io, &exec) == NF_OK, "%s", nf_last_error());
    tensor[1].data = (uint16_t *)tensor[1].data + 1; /* other keys, elsewhere */
    exec.queue = streams[1];
    ck_assert_msg(nf_forward(plan, &io, &exec) == NF_OK, "%s", nf_last_error());
    CHECK_CU(api.cuStreamSynchronize(streams[1]));
    read_boxed(memory, last);
    CHECK_CU(api.cuStreamSynchronize(streams[0]));
    read_boxed(memory, left);
    ck_assert_int_ne(memcmp(first, last, sizeof last), 0);
    ck_assert_int_eq(memcmp(left, last, sizeof last), 0);
    nf_plan_destroy(plan);
    CHECK_CU(api.cuMemFree(memory));
    for (int i = 0; i < 2; i++)
        CHECK_CU(api.cuStreamDestroy(streams[i]));
}
END_TEST

/* Batches continue the first axis, as coordinates are scarce; together they have no more indices than int. */
START_TEST(joined_indices_are_int)
{
    enum { LINE = 8, AXES_ELEMENTS = 16 * LINE };
    const int64_t one[CU_BOX_AXES] = {1, 1, 1, 1};
    nf_tensor tensor = {
        .rank = 7,
        .extents = {INT32_MAX / 2, 2, 2, 2, 2, 1, LINE},
        .strides = {AXES_ELEMENTS, AXES_ELEMENTS / 2, AXES_ELEMENTS / 4, AXES_ELEMENTS / 8, LINE, LINE, 1},
    };
    cu_box_layout layout;
    ck_assert_msg(cu_boxes_lay_out(&layout, &tensor, "k", one, one) == NF_OK, "%s", nf_last_error());
    ck_assert_int_eq(layout.boxes.batch, layout.boxes.axis[0]);
    ck_assert_int_eq((int64_t)layout.extents[layout.boxes.batch], INT32_MAX - 1);
    tensor.extents[0]++;
    refuses(cu_boxes_lay_out(&layout, &tensor, "k", one, one), NF_ERR_UNSUPPORTED,
            "k: boxes have 5 coordinates, and strides[0] continues none of the other indices");
}
END_TEST

/* A context that was not told runs on the device's primary context, too. */
START_TEST(needs_no_word)
{
    placed a;
    nf_io io;
    place(&a, 0);
    nf_context *told = context;
    context = host_context;
    nf_plan *plan = placed_plan(&a, context, "cuda");
    context = told;
    placed_io(&io, &a);
    ck_assert_msg(nf_forward(plan, &io, NULL) == NF_OK, "%s", nf_last_error());
    nf_plan_destroy(plan);
    release(&a);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("cuda");
    TCase *tests = tcase_create("cuda");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_loop_test(tests, equals_reference, 0, sizeof in_host / sizeof *in_host);
    tcase_add_test(tests, runs_on_a_stream_of_the_program);
    tcase_add_loop_test(tests, the_device_takes_the_time, 0, sizeof in_host / sizeof *in_host);
    tcase_add_loop_test(tests, the_device_is_measured, NF_F32, NF_F16 + 1);
    tcase_add_test(tests, calls_overlap);
    tcase_add_test(tests, events_order_calls);
    tcase_add_test(tests, refusals);
    tcase_add_test(tests, boxes_from_any_address);
    tcase_add_test(tests, boxes_and_lines_in_order);
    tcase_add_test(tests, joined_indices_are_int);
    tcase_add_test(tests, needs_no_word);
    suite_add_tcase(suite, tests);
    TCase *pair = tcase_create("pair"), *merges = tcase_create("merging");
    tcase_add_checked_fixture(pair, setup, teardown);
    tcase_add_loop_test(pair, the_pair_runs, 0, PAIRS);
    suite_add_tcase(suite, pair);
    tcase_add_checked_fixture(merges, setup, teardown);
    tcase_add_loop_test(merges, merges_in_place, 0, 2);
    tcase_add_test(merges, merge_refusals);
    suite_add_tcase(suite, merges);
    return nf_test_main(suite);
}
