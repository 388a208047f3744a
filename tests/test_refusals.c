/* What is refused, and with which words: one table of invalid problems, one of wrong calls. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "attend.h"
#include "core/context.h"
#include "fake.h"
#include "harness.h"

/* ---- Problems that parse and break a rule --------------------------------------------------------------------------
 */

static const struct {
    const char *text, *message;
} invalid_problems[] = {
    {"na1d 16", "head_dim 0 must be at least 1"},
    {"na1d d4/0 16", "value_dim 0 must be at least 1"},
    {"na1d d4", "axis 0: extent 0 must lie in 1..2^31 - 1"},
    {"na2d d4 16x0", "axis 1: extent 0 must lie in 1..2^31 - 1"},
    {"na1d d4 2147483648", "axis 0: extent 2147483648 must lie in 1..2^31 - 1"},
    {"na1d d4 8/2147483648", "axis 0: key_extent 2147483648 must lie in 1..2^31 - 1, or be 0"},
    {"na1d b0 d4 16", "batch 0 must be at least 1"},
    {"na1d h0 d4 16", "heads 0 must be at least 1"},
    {"na1d h4/0 d4 16", "kv_heads 0 must be at least 1"},
    {"na1d h8/3 d4 16", "heads 8 must be a multiple of kv_heads 3"},
    {"na1d h2/4 d4 16", "heads 2 must be a multiple of kv_heads 4"},
    {"na1d d4 16 w17", "axis 0: window 17 * dilation 1 = 17 exceeds the extent 16"},
    {"na2d d4 64x56 w9 dil7", "axis 1: window 9 * dilation 7 = 63 exceeds the extent 56"},
    {"na1d d4 16 dil2", "axis 0: window 16 (the whole extent) * dilation 2 = 32 exceeds the extent 16"},
    {"na1d d4 16 w4611686018427387904 dil4", "axis 0: window 4611686018427387904 * dilation 4 exceeds the extent 16"},
    {"na1d d4 16 w3 s4", "axis 0: stride 4 must lie in 1..window, 3"},
    {"na1d d4 16 w3 s0", "axis 0: stride 0 must lie in 1..window, 3"},
    {"na1d d4 16 s17", "axis 0: stride 17 must lie in 1..window, 16"},
    {"na1d d4 16 w3 dil0", "axis 0: dilation 0 must be at least 1"},
    {"na3d d4 4x5x6 c0x0x2", "axis 2: causal 2 must be 0 or 1"},
    {"na1d d4 16 q16:0", "axis 0: q_begin 16 must lie in 0..15"},
    {"na1d d4 16 q9:8", "axis 0: q_begin 9 + q_count 8 exceeds the extent 16"},
    {"na1d d4 16 k16:1", "axis 0: k_begin 16 must lie in 0..15"},
    {"na2d d4 16x8 k0:16x1:8", "axis 1: k_begin 1 + k_count 8 exceeds the extent 8"},
    {"na1d d4 16 q1:9223372036854775807", "axis 0: q_begin 1 + q_count 9223372036854775807 exceeds the extent 16"},
    {"na1d d4 8/16 w5", "axis 0: window 5 must be 0 when key_extent differs from extent"},
    {"na1d d4 8/16 s2", "axis 0: stride 2 must be 1 when key_extent differs from extent"},
    {"na1d d4 8/16 dil2", "axis 0: dilation 2 must be 1 when key_extent differs from extent"},
    {"na1d d4 8/16 q2:4",
     "axis 0: q_count 4 must be the extent 8 when key_extent differs from it: the range places all queries on the key "
     "axis"},
    {"na1d d4 8/16 q2:0",
     "axis 0: q_count 0 must be the extent 8 when key_extent differs from it: the range places all queries on the key "
     "axis"},
    {"na1d d4 8/16 q9:8", "axis 0: q_begin 9 + q_count 8 exceeds the extent 16"},
    {"na1d d4 8/16 k10:7", "axis 0: k_begin 10 + k_count 7 exceeds the extent 16"},
    {"na1d d4 16 f64 out=f32", "out_dtype f32 must be dtype, f64"},
    {"na1d d4 16 f32 out=f16", "out_dtype f16 must be dtype, f32"},
    {"na1d d4 16 bf16 out=f16", "out_dtype f16 must be dtype, bf16, or f32"},
    {"na1d d4 16 f16 out=f64", "out_dtype f64 must be dtype, f16, or f32"},
    {"na1d b4294967296 h4294967296 d4 16", "q: its size in bytes exceeds 2^63 - 1"},
    {"na1d h1 d1/1152921504606846976 16", "out: its size in bytes exceeds 2^63 - 1"},
    {"na1d d4 1/2147483647 b2147483647", "k: its size in bytes exceeds 2^63 - 1"},
    {"na1d d1 1 x1152921504606846976",
     "extra 1152921504606846976: the size of extra_k or extra_v in bytes exceeds 2^63 - 1"},
    {"na4d d2 2147483647x2147483647x2147483647x2147483647 w1", "q: its size in bytes exceeds 2^63 - 1"},
};
enum { INVALID_PROBLEMS = sizeof invalid_problems / sizeof invalid_problems[0] };

START_TEST(invalid_problem)
{
    nf_problem p;
    ck_assert_msg(nf_problem_parse(&p, invalid_problems[_i].text) == NF_OK, "%s", nf_last_error());
    ck_assert_int_eq(nf_problem_check(&p), NF_ERR_PROBLEM);
    ck_assert_str_eq(nf_last_error(), invalid_problems[_i].message);
    nf_plan *plan = NULL;
    nf_context *context = fake_context(NULL);
    ck_assert_int_eq(nf_plan_create(&plan, context, &p, NULL), NF_ERR_PROBLEM);
    ck_assert_ptr_null(plan);
    nf_context_destroy(context);
}
END_TEST

/* ---- Problems that no string can say -------------------------------------------------------------------------------
 */

static void rank_0(nf_problem *p)
{
    p->rank = 0;
}

static void rank_5(nf_problem *p)
{
    p->rank = 5;
}

static void bad_dtype(nf_problem *p)
{
    p->dtype = (nf_dtype)9;
}

static void bad_out_dtype(nf_problem *p)
{
    p->out_dtype = (nf_dtype)-1;
}

static void bad_direction(nf_problem *p)
{
    p->direction = (nf_direction)0;
}

static void scale_set_2(nf_problem *p)
{
    p->scale_set = 2;
}

static void scale_nan(nf_problem *p)
{
    p->scale_set = 1;
    p->scale = NAN;
}

static void scale_infinite(nf_problem *p)
{
    p->scale_set = 1;
    p->scale = -INFINITY;
}

static void negative_extra(nf_problem *p)
{
    p->extra = -1;
}

static void negative_window(nf_problem *p)
{
    p->axis[0].window = -3;
}

static void negative_causal(nf_problem *p)
{
    p->axis[0].causal = -1;
}

static void negative_begin(nf_problem *p)
{
    p->axis[0].q_begin = -1;
}

static void negative_count(nf_problem *p)
{
    p->axis[0].k_count = -2;
}

static void negative_key_extent(nf_problem *p)
{
    p->axis[0].key_extent = -4;
}

static void cross_rank_2(nf_problem *p)
{
    p->rank = 2;
    p->axis[1] = p->axis[0];
    p->axis[1].key_extent = 20;
}

static const struct {
    void (*spoil)(nf_problem *p);
    const char *message;
} invalid_structs[] = {
    {rank_0, "rank 0 must lie in 1..4"},
    {rank_5, "rank 5 must lie in 1..4"},
    {bad_dtype, "dtype 9 is no nf_dtype"},
    {bad_out_dtype, "out_dtype -1 is no nf_dtype"},
    {bad_direction, "direction 0 is no nf_direction"},
    {scale_set_2, "scale_set 2 must be 0 or 1"},
    {scale_nan, "scale nan must be finite"},
    {scale_infinite, "scale -inf must be finite"},
    {negative_extra, "extra -1 must be at least 0"},
    {negative_window, "axis 0: window -3 must be at least 1, or 0 for the whole extent"},
    {negative_causal, "axis 0: causal -1 must be 0 or 1"},
    {negative_begin, "axis 0: q_begin -1 must lie in 0..15"},
    {negative_count, "axis 0: k_count -2 must not be negative"},
    {negative_key_extent, "axis 0: key_extent -4 must lie in 1..2^31 - 1, or be 0"},
    {cross_rank_2, "axis 1: key_extent 20 differs from extent 16, which needs rank 1, not 2"},
};
enum { INVALID_STRUCTS = sizeof invalid_structs / sizeof invalid_structs[0] };

START_TEST(invalid_struct)
{
    nf_problem p;
    ck_assert_int_eq(nf_problem_parse(&p, "na1d d4 16"), NF_OK);
    invalid_structs[_i].spoil(&p);
    ck_assert_int_eq(nf_problem_check(&p), NF_ERR_PROBLEM);
    ck_assert_str_eq(nf_last_error(), invalid_structs[_i].message);
}
END_TEST

/* ---- Wrong calls ---------------------------------------------------------------------------------------------------
 */

/* A valid call of a fake plan, for each case to spoil. */
static nf_context *context;
static attend a;
static nf_plan *plan;
static nf_io io;
static nf_exec exec;
static nf_problem problem;
static nf_plan_options plan_options;
static nf_tensor spoiled;

static void setup(void)
{
    clear_environment();
    fake = (fake_control){.workspace_bytes = 640};
    context = fake_context(NULL);
    attend_create_text(&a, "na1d b2 h2 d4 8 w3 x3 both");
    problem = a.problem;
    ck_assert_int_eq(nf_plan_create(&plan, context, &problem, NULL), NF_OK);
    nf_io_init(&io);
    io.q = &a.tensor[NF_Q], io.k = &a.tensor[NF_K], io.v = &a.tensor[NF_V];
    io.extra_k = &a.tensor[NF_EXTRA_K], io.extra_v = &a.tensor[NF_EXTRA_V];
    io.out = &a.tensor[NF_OUT], io.lse = &a.tensor[NF_LSE];
    io.dout = &a.tensor[NF_DOUT], io.dlse = &a.tensor[NF_DLSE];
    io.dq = &a.tensor[NF_DQ], io.dk = &a.tensor[NF_DK], io.dv = &a.tensor[NF_DV];
    io.dextra_k = &a.tensor[NF_DEXTRA_K], io.dextra_v = &a.tensor[NF_DEXTRA_V];
    nf_exec_init(&exec);
    nf_plan_options_init(&plan_options);
}

static void teardown(void)
{
    nf_plan_destroy(plan);
    attend_destroy(&a);
    nf_context_destroy(context);
    clear_environment();
}

/* Puts a copy of a member's tensor in its place, to be changed. */
#define SPOIL(member) (spoiled = *io.member, io.member = &spoiled, &spoiled)

static nf_status forward(void)
{
    return nf_forward(plan, &io, NULL);
}

static nf_status backward(void)
{
    return nf_backward(plan, &io, NULL);
}

static nf_status no_q(void)
{
    io.q = NULL;
    return forward();
}

static nf_status no_out(void)
{
    io.out = NULL;
    return forward();
}

static nf_status no_extra_v(void)
{
    io.extra_v = NULL;
    return forward();
}

static nf_status no_dout(void)
{
    io.dout = NULL;
    return backward();
}

static nf_status no_gradients(void)
{
    io.dq = io.dk = io.dv = io.dextra_k = io.dextra_v = NULL;
    return backward();
}

static nf_status with_bias(void)
{
    io.bias = io.q;
    return forward();
}

static nf_status other_dtype(void)
{
    SPOIL(k)->dtype = NF_F16;
    return forward();
}

static nf_status other_rank(void)
{
    SPOIL(lse)->rank = 4;
    spoiled.extents[3] = 1;
    return forward();
}

static nf_status other_extent(void)
{
    SPOIL(v)->extents[1] = 7;
    return forward();
}

static nf_status other_stride(void)
{
    SPOIL(k)->strides[2] = 64;
    return forward();
}

static nf_status other_memory(void)
{
    SPOIL(q)->memory = NF_CUDA;
    return forward();
}

static nf_status no_memory_kind(void)
{
    SPOIL(q)->memory = (nf_memory)7;
    return forward();
}

static nf_status null_data(void)
{
    SPOIL(out)->data = NULL;
    return forward();
}

static nf_status odd_data(void)
{
    SPOIL(q)->data = (void *)(uintptr_t)1026;
    return forward();
}

static nf_status bad_tensor_size(void)
{
    SPOIL(q)->size = 0;
    return forward();
}

static nf_status reserved_tensor_field(void)
{
    SPOIL(q)->reserved = 1;
    return forward();
}

static nf_status out_over_q(void)
{
    SPOIL(out)->data = (float *)io.q->data + 3;
    return forward();
}

static nf_status lse_over_out(void)
{
    SPOIL(lse)->data = (float *)io.out->data + 100;
    return forward();
}

static nf_status dk_is_k(void)
{
    SPOIL(dk)->data = io.k->data;
    return backward();
}

static nf_status dv_is_dk(void)
{
    SPOIL(dv)->data = io.dk->data;
    return backward();
}

static nf_status io_size(void)
{
    io.size = 8;
    return forward();
}

static nf_status null_io(void)
{
    return nf_forward(plan, NULL, NULL);
}

static nf_status null_plan(void)
{
    return nf_backward(NULL, &io, NULL);
}

static nf_status small_workspace(void)
{
    exec.workspace = (void *)(uintptr_t)4096;
    exec.workspace_bytes = 639;
    return nf_forward(plan, &io, &exec);
}

static nf_status odd_workspace(void)
{
    exec.workspace = (void *)(uintptr_t)4128;
    exec.workspace_bytes = 640;
    return nf_forward(plan, &io, &exec);
}

static nf_status with_queue(void)
{
    exec.queue = &exec;
    return nf_forward(plan, &io, &exec);
}

static nf_status with_waits(void)
{
    static void *const events[] = {&exec};
    exec.wait_count = 1;
    exec.wait_events = events;
    return nf_forward(plan, &io, &exec);
}

static nf_status with_signal(void)
{
    static void *event;
    exec.signal_event = &event;
    return nf_forward(plan, &io, &exec);
}

static nf_status with_timing(void)
{
    static nf_timing timing = {.runs = 1};
    exec.timing = &timing;
    return nf_forward(plan, &io, &exec);
}

static nf_status no_wait_events(void)
{
    exec.wait_count = 3;
    return nf_forward(plan, &io, &exec);
}

static nf_status negative_waits(void)
{
    exec.wait_count = -1;
    return nf_forward(plan, &io, &exec);
}

static nf_status exec_size(void)
{
    exec.size = 4;
    return nf_forward(plan, &io, &exec);
}

static nf_status create_plan(void)
{
    nf_plan *made = NULL;
    const nf_status status = nf_plan_create(&made, context, &problem, &plan_options);
    if (made)
        nf_plan_destroy(made);
    return status;
}

static nf_status unknown_backend(void)
{
    plan_options.backend = "fakir";
    return create_plan();
}

static nf_status absent_backend(void)
{
    plan_options.backend = "missing";
    return create_plan();
}

static nf_status unknown_algo(void)
{
    plan_options.algo = "fats";
    return create_plan();
}

static nf_status algo_of_another(void)
{
    plan_options.backend = "other";
    plan_options.algo = "fast";
    return create_plan();
}

static nf_status options_size(void)
{
    plan_options.size = 1;
    return create_plan();
}

static nf_status problem_size(void)
{
    problem.size = 16;
    return create_plan();
}

static nf_status layout_overlaps_itself(void)
{
    SPOIL(out)->strides[1] = 0;
    plan_options.layout = &io;
    return create_plan();
}

static nf_status layout_of_another_shape(void)
{
    SPOIL(dq)->extents[3] = 5;
    plan_options.layout = &io;
    return create_plan();
}

static nf_status layout_without_role(void)
{
    problem.extra = 0;
    plan_options.layout = &io;
    return create_plan();
}

static nf_status layout_too_wide(void)
{
    SPOIL(k)->strides[0] = INT64_C(1) << 62;
    plan_options.layout = &io;
    return create_plan();
}

static nf_status null_problem(void)
{
    nf_plan *made = NULL;
    return nf_plan_create(&made, context, NULL, NULL);
}

static nf_status null_context(void)
{
    nf_plan *made = NULL;
    return nf_plan_create(&made, NULL, &problem, NULL);
}

static nf_status info_size(void)
{
    nf_plan_info info = {.size = 3};
    return nf_plan_get_info(plan, &info);
}

static nf_status create_context(nf_context_options *options)
{
    nf_context *made = NULL;
    const nf_status status = nf_context_create(&made, options);
    nf_context_destroy(made);
    return status;
}

static nf_status half_an_allocator(void)
{
    nf_context_options options;
    nf_context_options_init(&options);
    options.release = (void (*)(void *, void *, size_t))1;
    return create_context(&options);
}

static nf_status negative_threads(void)
{
    nf_context_options options;
    nf_context_options_init(&options);
    options.num_threads = -1;
    return create_context(&options);
}

static nf_status unknown_isa(void)
{
    nf_context_options options;
    nf_context_options_init(&options);
    options.isa = "mmx";
    return create_context(&options);
}

static nf_status context_size(void)
{
    nf_context_options options;
    nf_context_options_init(&options);
    options.size = 1 << 30;
    return create_context(&options);
}

static nf_status forced_backend(void)
{
    nf_context_options options;
    nf_context_options_init(&options);
    options.backend = fake_backend_missing.name;
    nf_context *made = NULL;
    return nf_context_create_with(&made, &options, fake_backends);
}

static nf_status tensor_of_rank_8(void)
{
    const int64_t extents[8] = {1, 1, 1, 1, 1, 1, 1, 1};
    return nf_tensor_init(&spoiled, NULL, NF_F32, 8, extents);
}

static nf_status empty_tensor(void)
{
    const int64_t extents[2] = {3, 0};
    return nf_tensor_init(&spoiled, NULL, NF_F32, 2, extents);
}

static nf_status endless_tensor(void)
{
    const int64_t extents[2] = {INT64_C(1) << 32, INT64_C(1) << 32};
    return nf_tensor_init(&spoiled, NULL, NF_F32, 2, extents);
}

static nf_status vast_tensor(void)
{
    const int64_t extents[2] = {INT64_C(1) << 30, INT64_C(1) << 30};
    return nf_tensor_init(&spoiled, NULL, NF_F32, 2, extents);
}

static nf_status typeless_tensor(void)
{
    const int64_t extents[1] = {1};
    return nf_tensor_init(&spoiled, NULL, (nf_dtype)4, 1, extents);
}

static nf_status tensor_of_bias(void)
{
    return nf_problem_tensor(&problem, NF_BIAS, &spoiled);
}

static nf_status tensor_of_no_extra(void)
{
    problem.extra = 0;
    return nf_problem_tensor(&problem, NF_EXTRA_K, &spoiled);
}

static nf_status tensor_of_no_role(void)
{
    return nf_problem_tensor(&problem, NF_ROLES, &spoiled);
}

/* A DLTensor of one float, field by field as DLPack 1.0 lays it out. */
typedef struct dlpack {
    void *data;
    int32_t device_type, device_id, ndim;
    uint8_t code, bits;
    uint16_t lanes;
    const int64_t *shape, *strides;
    uint64_t byte_offset;
} dlpack;

static const int64_t dl_shape[] = {1};
static const dlpack dl_float = {.device_type = 1, .ndim = 1, .code = 2, .bits = 32, .lanes = 1, .shape = dl_shape};

static nf_status dl_lanes(void)
{
    dlpack source = dl_float;
    source.lanes = 4;
    return nf_tensor_from_dlpack(&spoiled, &source);
}

static nf_status dl_integer(void)
{
    dlpack source = dl_float;
    source.code = 0;
    return nf_tensor_from_dlpack(&spoiled, &source);
}

static nf_status dl_device(void)
{
    dlpack source = dl_float;
    source.device_type = 8;
    return nf_tensor_from_dlpack(&spoiled, &source);
}

static nf_status dl_rank(void)
{
    dlpack source = dl_float;
    source.ndim = 0;
    return nf_tensor_from_dlpack(&spoiled, &source);
}

static nf_status dl_shapeless(void)
{
    dlpack source = dl_float;
    source.shape = NULL;
    return nf_tensor_from_dlpack(&spoiled, &source);
}

static nf_status buffer_null(void)
{
    return nf_problem_format(&problem, NULL, 10, NULL);
}

static nf_status format_negative(void)
{
    problem.batch = -1;
    return nf_problem_format(&problem, NULL, 0, NULL);
}

static nf_status format_rank(void)
{
    problem.rank = 7;
    return nf_problem_format(&problem, NULL, 0, NULL);
}

static nf_status parse_null(void)
{
    return nf_problem_parse(&problem, NULL);
}

static nf_status hash_null(void)
{
    return nf_problem_hash(&problem, NULL);
}

static const struct {
    nf_status (*call)(void);
    nf_status status;
    const char *message;
} wrong_calls[] = {
    {no_q, NF_ERR_TENSOR, "q: NULL, but forward needs it"},
    {no_out, NF_ERR_TENSOR, "out: NULL, but forward needs it"},
    {no_extra_v, NF_ERR_TENSOR, "extra_v: NULL, but forward needs it"},
    {no_dout, NF_ERR_TENSOR, "dout: NULL, but backward needs it"},
    {no_gradients, NF_ERR_TENSOR, "dq, dk, dv, dextra_k, dextra_v: at least one must be present"},
    {with_bias, NF_ERR_TENSOR, "bias: must be NULL, the problem has no such tensor"},
    {other_dtype, NF_ERR_TENSOR, "k: dtype is f16, the plan was made for f32"},
    {other_rank, NF_ERR_TENSOR, "lse: rank is 4, the plan was made for 3"},
    {other_extent, NF_ERR_TENSOR, "v: extent 1 is 7, the plan was made for 8"},
    {other_stride, NF_ERR_TENSOR, "k: stride 2 is 64, the plan was made for 4"},
    {other_memory, NF_ERR_TENSOR, "q: memory is cuda, the plan was made for host"},
    {no_memory_kind, NF_ERR_TENSOR, "q: memory 7 is no nf_memory"},
    {null_data, NF_ERR_TENSOR, "out: data is NULL"},
    {odd_data, NF_ERR_TENSOR, "q: data 0x402 is not aligned to its element size, 4 bytes"},
    {reserved_tensor_field, NF_ERR_TENSOR, "q: reserved 1 must be 0"},
    {out_over_q, NF_ERR_TENSOR, "out: an output must not overlap q"},
    {lse_over_out, NF_ERR_TENSOR, "lse: an output must not overlap out"},
    {dk_is_k, NF_ERR_TENSOR, "dk: an output must not overlap k"},
    {dv_is_dk, NF_ERR_TENSOR, "dv: an output must not overlap dk"},
    {null_io, NF_ERR_ARGUMENT, "io: NULL where a nf_io is required"},
    {null_plan, NF_ERR_ARGUMENT, "plan: NULL"},
    {small_workspace, NF_ERR_SPACE, "exec: workspace_bytes 639 is less than the plan needs, 640"},
    {odd_workspace, NF_ERR_ARGUMENT, "exec: workspace 0x1020 is not 64-byte aligned"},
    {with_queue, NF_ERR_ARGUMENT, "exec: queue must be NULL, the fake backend has none"},
    {with_waits, NF_ERR_ARGUMENT, "exec: wait_count 1 must be 0, the fake backend has no events"},
    {with_signal, NF_ERR_ARGUMENT, "exec: signal_event must be NULL, the fake backend has no events"},
    {with_timing, NF_ERR_UNSUPPORTED, "exec: timing must be NULL, the fake backend has no clock of its own"},
    {no_wait_events, NF_ERR_ARGUMENT, "exec: wait_events is NULL, wait_count 3"},
    {negative_waits, NF_ERR_ARGUMENT, "exec: wait_count -1 must be 0..2147483647"},
    {unknown_backend, NF_ERR_ARGUMENT, "backend: 'fakir' is no backend; the nearest is 'fake'"},
    {absent_backend, NF_ERR_UNAVAILABLE, "backend: missing is unavailable: disabled at build time"},
    {unknown_algo, NF_ERR_ARGUMENT, "algo: 'fats' is no algorithm; the nearest is 'fast'"},
    {algo_of_another, NF_ERR_ARGUMENT, "algo: 'fast' is no algorithm of other; the nearest is 'slow'"},
    {layout_overlaps_itself, NF_ERR_TENSOR, "out: an output must not overlap itself, its strides make it"},
    {layout_of_another_shape, NF_ERR_TENSOR, "dq: extent 3 is 5, the problem needs 4"},
    {layout_without_role, NF_ERR_TENSOR, "extra_k: the problem has no such tensor"},
    {layout_too_wide, NF_ERR_TENSOR, "k: its elements lie more than 2^57 apart"},
    {null_problem, NF_ERR_ARGUMENT, "problem: NULL where a nf_problem is required"},
    {null_context, NF_ERR_ARGUMENT, "context: NULL"},
    {half_an_allocator, NF_ERR_ARGUMENT, "options: allocate and release must be given together"},
    {negative_threads, NF_ERR_ARGUMENT, "options: num_threads -1 must lie in 0..65536"},
    {unknown_isa, NF_ERR_ARGUMENT, "isa 'mmx' is none of baseline, avx2, avx512, avx512bf16"},
    {forced_backend, NF_ERR_UNAVAILABLE, "the option backend: missing is unavailable: disabled at build time"},
    {tensor_of_rank_8, NF_ERR_TENSOR, "tensor: rank 8 must lie in 1..7"},
    {empty_tensor, NF_ERR_TENSOR, "tensor: extent 1 is 0, must be at least 1"},
    {endless_tensor, NF_ERR_TENSOR, "tensor: its number of elements exceeds 2^63 - 1"},
    {vast_tensor, NF_ERR_TENSOR, "tensor: its elements lie more than 2^57 apart"},
    {typeless_tensor, NF_ERR_TENSOR, "tensor: dtype 4 is no nf_dtype"},
    {tensor_of_bias, NF_ERR_ARGUMENT, "role: the problem has no bias"},
    {tensor_of_no_extra, NF_ERR_ARGUMENT, "role: the problem has no extra_k without extra tokens"},
    {tensor_of_no_role, NF_ERR_ARGUMENT, "role: 17 is no nf_role"},
    {dl_lanes, NF_ERR_TENSOR, "dltensor: lanes 4 must be 1"},
    {dl_integer, NF_ERR_TENSOR, "dltensor: type code 0 with 32 bits is none of f32, f64, bf16 and f16"},
    {dl_device, NF_ERR_TENSOR, "dltensor: device type 8 is none of cpu, cuda and opencl"},
    {dl_rank, NF_ERR_TENSOR, "dltensor: rank 0 must lie in 1..7"},
    {dl_shapeless, NF_ERR_TENSOR, "dltensor: shape is NULL"},
    {buffer_null, NF_ERR_ARGUMENT, "buffer: NULL with a capacity of 10 bytes"},
    {format_negative, NF_ERR_PROBLEM, "a negative size cannot be written"},
    {format_rank, NF_ERR_PROBLEM, "rank 7, dtype 0, out_dtype 0, direction 3, scale 0 cannot be written"},
    {parse_null, NF_ERR_ARGUMENT, "text: NULL"},
    {hash_null, NF_ERR_ARGUMENT, "hash: NULL"},
};
enum { WRONG_CALLS = sizeof wrong_calls / sizeof wrong_calls[0] };

START_TEST(wrong_call)
{
    ck_assert_int_eq(wrong_calls[_i].call(), wrong_calls[_i].status);
    ck_assert_str_eq(nf_last_error(), wrong_calls[_i].message);
    ck_assert_int_eq(fake.forwards + fake.backwards, 0);
}
END_TEST

/* Structs whose size field is wrong; the message ends in the right one. */
static const struct {
    nf_status (*call)(void);
    const char *message;
    size_t size;
} wrong_sizes[] = {
    {bad_tensor_size, "q: size 0 is not sizeof(nf_tensor), ", sizeof(nf_tensor)},
    {io_size, "io: size 8 is not sizeof(nf_io), ", sizeof(nf_io)},
    {exec_size, "exec: size 4 is not sizeof(nf_exec), ", sizeof(nf_exec)},
    {options_size, "options: size 1 is not sizeof(nf_plan_options), ", sizeof(nf_plan_options)},
    {problem_size, "problem: size 16 is not sizeof(nf_problem), ", sizeof(nf_problem)},
    {info_size, "info: size 3 is not sizeof(nf_plan_info), ", sizeof(nf_plan_info)},
    {context_size, "options: size 1073741824 is not sizeof(nf_context_options), ", sizeof(nf_context_options)},
};
enum { WRONG_SIZES = sizeof wrong_sizes / sizeof wrong_sizes[0] };

START_TEST(wrong_size)
{
    char message[256];
    snprintf(message, sizeof message, "%s%zu", wrong_sizes[_i].message, wrong_sizes[_i].size);
    ck_assert_int_eq(wrong_sizes[_i].call(), NF_ERR_ARGUMENT);
    ck_assert_str_eq(nf_last_error(), message);
    ck_assert_int_eq(fake.forwards + fake.backwards, 0);
}
END_TEST

/* The calls that the cases spoil are otherwise right. */
START_TEST(unspoiled_call)
{
    ck_assert_msg(forward() == NF_OK, "%s", nf_last_error());
    ck_assert_msg(backward() == NF_OK, "%s", nf_last_error());
    ck_assert_msg(create_plan() == NF_OK, "%s", nf_last_error());
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("refusals");
    TCase *problems = tcase_create("problems");
    tcase_add_loop_test(problems, invalid_problem, 0, INVALID_PROBLEMS);
    tcase_add_loop_test(problems, invalid_struct, 0, INVALID_STRUCTS);
    suite_add_tcase(suite, problems);
    TCase *calls = tcase_create("calls");
    tcase_add_checked_fixture(calls, setup, teardown);
    tcase_add_test(calls, unspoiled_call);
    tcase_add_loop_test(calls, wrong_call, 0, WRONG_CALLS);
    tcase_add_loop_test(calls, wrong_size, 0, WRONG_SIZES);
    suite_add_tcase(suite, calls);
    printf("%d refused inputs, each with its message checked\n",
           INVALID_PROBLEMS + INVALID_STRUCTS + WRONG_CALLS + WRONG_SIZES);
    return nf_test_main(suite);
}
