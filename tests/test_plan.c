/* Plans: the choice and its reasons, figures, workspaces, the guard, the log, and failures at every allocation. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "attend.h"
#include "core/context.h"
#include "core/mem.h"
#include "fake.h"
#include "harness.h"

static nf_context *context;
static log_book book;

static void setup(void)
{
    clear_environment();
    fake = (fake_control){.workspace_bytes = 640};
    memset(&book, 0, sizeof book);
    context = fake_context(&book);
}

static void teardown(void)
{
    nf_context_destroy(context);
    ck_assert_int_eq(fake.prepared, fake.released);
    ck_assert_int_eq(fake.opened, fake.closed);
    clear_environment();
}

static nf_plan *make_plan(const char *text, const nf_plan_options *options)
{
    nf_problem p;
    nf_plan *plan = NULL;
    ck_assert_msg(nf_problem_parse(&p, text) == NF_OK, "%s", nf_last_error());
    ck_assert_msg(nf_plan_create(&plan, context, &p, options) == NF_OK, "%s", nf_last_error());
    return plan;
}

static const char *describe(const nf_plan *plan)
{
    static char text[8192];
    size_t length = 0;
    ck_assert_int_eq(nf_plan_describe(plan, text, sizeof text, &length), NF_OK);
    ck_assert_uint_eq(length, strlen(text));
    return text;
}

/* ---- Selection -----------------------------------------------------------------------------------------------------
 */

START_TEST(cheapest_algorithm_of_the_first_backend)
{
    nf_plan *plan = make_plan("na1d d4 16 w3", NULL);
    ck_assert_ptr_nonnull(strstr(describe(plan), "problem: na1d f32 b1 h1 d4 16 w3 fwd\n"
                                                 "chosen: fake fast none, predicted 1 ms\n"
                                                 "not chosen:\n"
                                                 "  missing: disabled at build time\n"
                                                 "  fake slow: predicted 2 ms, fast 1 ms\n"
                                                 "  other: fake is preferred\n"
                                                 "  hidden: never chosen unless it is named\n"));
    ck_assert_ptr_nonnull(strstr(describe(plan), "a plan to do nothing for fwd\n"));
    nf_plan_destroy(plan);
    nf_plan_destroy(NULL);
}
END_TEST

START_TEST(refusals_are_kept)
{
    fake.fast_refuses = NF_BOTH;
    nf_plan *plan = make_plan("na1d d4 16 w3", NULL);
    ck_assert_ptr_nonnull(strstr(describe(plan), "chosen: fake slow none, predicted 2 ms\n"));
    ck_assert_ptr_nonnull(strstr(describe(plan), "  fake fast: too tired\n"));
    nf_plan_destroy(plan);
}
END_TEST

/* Forward by "fast", backward by "slow"; lines about why not the other way round. */
static void expect_mixed(const nf_plan *plan, const char *reasons)
{
    char start[1024];
    snprintf(start, sizeof start,
             "problem: na1d f32 b1 h1 d4 16 w3 both\n"
             "chosen: fake fast none for fwd, predicted 1 ms\n"
             "chosen: fake slow none for bwd, predicted 2 ms\n"
             "not chosen:\n"
             "  missing: disabled at build time\n"
             "%s"
             "  other: fake is preferred\n"
             "  hidden: never chosen unless it is named\n",
             reasons);
    ck_assert_msg(strncmp(describe(plan), start, strlen(start)) == 0, "%s", describe(plan));
    ck_assert_ptr_nonnull(strstr(describe(plan), "fast, fwd:\na plan to do nothing for fwd\n"
                                                 "slow, bwd:\na plan to do nothing for bwd\n"));
}

/* Each direction has the algorithm that is fastest there, which prepares that direction alone. */
START_TEST(an_algorithm_for_each_direction)
{
    fake.fast_lags = NF_BWD;
    fake.backward_bytes = 6400;
    nf_plan *plan = make_plan("na1d d4 16 w3 both", NULL);
    expect_mixed(plan, "  fake slow for fwd: predicted 2 ms, fast 1 ms\n"
                       "  fake fast for bwd: predicted 4 ms, slow 2 ms\n");
    nf_plan_info info = {.size = sizeof info};
    ck_assert_int_eq(nf_plan_get_info(plan, &info), NF_OK);
    ck_assert_str_eq(info.algo, "fast");
    ck_assert_str_eq(info.backward_algo, "slow");
    ck_assert_uint_eq(info.workspace_bytes, 640 + 6400);
    ck_assert_uint_lt(info.plan_bytes, 2 * 65536);
    ck_assert_int_eq(fake.prepared, 2);
    nf_plan_destroy(plan);
}
END_TEST

START_TEST(an_algorithm_may_refuse_one_direction)
{
    fake.fast_refuses = NF_BWD;
    nf_plan *plan = make_plan("na1d d4 16 w3 both", NULL);
    expect_mixed(plan, "  fake fast for bwd: too tired\n"
                       "  fake slow for fwd: predicted 2 ms, fast 1 ms\n");
    nf_plan_destroy(plan);
}
END_TEST

/* A backend that runs one direction only is none for both: the next one runs them. */
START_TEST(one_backend_runs_both_directions)
{
    nf_problem p;
    nf_plan_options options;
    nf_plan_options_init(&options);
    options.algo = "fast";
    fake.fast_refuses = NF_BWD;
    ck_assert_int_eq(nf_problem_parse(&p, "na1d d4 16 w3 both"), NF_OK);
    nf_plan *plan = NULL;
    ck_assert_int_eq(nf_plan_create(&plan, context, &p, &options), NF_ERR_UNSUPPORTED);
    ck_assert_str_eq(nf_last_error(),
                     "no backend allowed here can run this problem: missing: disabled at build time; "
                     "fake slow: not the algorithm asked for; fake fast for bwd: too tired; "
                     "other slow: not the algorithm asked for; hidden: never chosen unless it is named");
}
END_TEST

/* An algorithm that is asked for runs all directions, however slow it is, and prepares them together. */
START_TEST(an_algorithm_asked_for_runs_both_directions)
{
    nf_plan_options options;
    nf_plan_options_init(&options);
    options.algo = "fast";
    fake.fast_lags = NF_BWD;
    nf_plan *plan = make_plan("na1d d4 16 w3 both", &options);
    ck_assert_ptr_nonnull(strstr(describe(plan), "chosen: fake fast none, predicted 5 ms\n"));
    ck_assert_ptr_nonnull(strstr(describe(plan), "\na plan to do nothing for both\n"));
    nf_plan_destroy(plan);
}
END_TEST

START_TEST(nobody_supports)
{
    fake.refuses_all = true;
    nf_problem p;
    nf_plan *plan = NULL;
    ck_assert_int_eq(nf_problem_parse(&p, "na1d d4 16 w3"), NF_OK);
    ck_assert_int_eq(nf_plan_create(&plan, context, &p, NULL), NF_ERR_UNSUPPORTED);
    ck_assert_str_eq(nf_last_error(), "no backend allowed here can run this problem: missing: disabled at build time; "
                                      "fake slow: head_dim 4 is not to its taste; "
                                      "fake fast: head_dim 4 is not to its taste; "
                                      "other slow: head_dim 4 is not to its taste; "
                                      "hidden: never chosen unless it is named");
    ck_assert_ptr_null(plan);
}
END_TEST

START_TEST(options_narrow_the_choice)
{
    nf_plan_options options;
    nf_plan_options_init(&options);
    options.backend = "hidden";
    nf_plan *plan = make_plan("na1d d4 16 w3", &options);
    ck_assert_ptr_nonnull(strstr(describe(plan), "chosen: hidden slow"));
    ck_assert_ptr_nonnull(strstr(describe(plan), "  fake: not the backend asked for\n"));
    nf_plan_destroy(plan);
    options.backend = NULL;
    options.algo = "slow";
    plan = make_plan("na1d d4 16 w3", &options);
    ck_assert_ptr_nonnull(strstr(describe(plan), "chosen: fake slow"));
    ck_assert_ptr_nonnull(strstr(describe(plan), "  fake fast: not the algorithm asked for\n"));
    nf_plan_destroy(plan);
}
END_TEST

START_TEST(the_real_library_prefers_cpu)
{
    nf_context *real;
    nf_plan *plan;
    nf_problem p;
    ck_assert_int_eq(nf_context_create(&real, NULL), NF_OK);
    ck_assert_int_eq(nf_problem_parse(&p, "na2d f32 b1 h2 d16 12x12 w5 both"), NF_OK);
    ck_assert_msg(nf_plan_create(&plan, real, &p, NULL) == NF_OK, "%s", nf_last_error());
    nf_plan_info info = {.size = sizeof info};
    ck_assert_int_eq(nf_plan_get_info(plan, &info), NF_OK);
    ck_assert_str_eq(info.backend, "cpu");
    for (int i = 0; nf_backend_name(i); i++)
        ck_assert_ptr_nonnull(strstr(describe(plan), nf_backend_name(i)));
    nf_plan_destroy(plan);
    nf_context_destroy(real);
}
END_TEST

/* Costs count each direction that a plan names, so naming more of them never makes an algorithm look better. */
START_TEST(the_choice_keeps_no_scores)
{
    static const char *const problems[] = {"na1d f32 h2 d64 1024", "na2d f32 h2 d32 56x56 w7",
                                           "na3d f32 h1 d64 8x16x16 w5", "na1d bf16 h2 d64 2048 w257"};
    static const char *const directions[] = {"fwd", "bwd", "both"};
    nf_context *real;
    ck_assert_int_eq(nf_context_create(&real, NULL), NF_OK);
    for (size_t i = 0; i < 12; i++) {
        char text[80];
        nf_problem p;
        nf_plan *plan;
        nf_plan_info info = {.size = sizeof info};
        snprintf(text, sizeof text, "%s %s", problems[i / 3], directions[i % 3]);
        ck_assert_int_eq(nf_problem_parse(&p, text), NF_OK);
        ck_assert_msg(nf_plan_create(&plan, real, &p, NULL) == NF_OK, "%s", nf_last_error());
        ck_assert_int_eq(nf_plan_get_info(plan, &info), NF_OK);
        ck_assert_msg(strcmp(info.algo, "tile") == 0 || strcmp(info.algo, "stencil") == 0, "%s: %s", text, info.algo);
        ck_assert_str_ne(info.backward_algo, "unfused");
        nf_plan_destroy(plan);
    }
    nf_context_destroy(real);
}
END_TEST

/* A plan of both directions runs each as a plan of that direction alone does, on one algorithm or on two. */
START_TEST(both_directions_are_each_alone)
{
    static const char *const problems[] = {"na2d f32 h8/2 d32 14x14 w7 dil2", "na2d bf16 h2 d16/24 12x12 w3 dil4",
                                           "na2d f32 h16 d32 7x7 w7",         "na2d f64 h2 d16 20x33 w5",
                                           "na2d f32 h2 d16 20x20 w17",       "na1d f32 h2 d64 300"};
    enum { PROBLEMS = sizeof problems / sizeof problems[0] };
    nf_context *real;
    int mixed = 0;
    ck_assert_int_eq(nf_context_create(&real, NULL), NF_OK);
    for (int i = 0; i < PROBLEMS; i++) {
        attend both, alone;
        uint64_t seed = 1, same_seed = 1;
        attend_create_text(&both, problems[i]);
        attend_create_text(&alone, problems[i]);
        attend_fill(&both, &seed, 1);
        attend_fill(&alone, &same_seed, 1);
        attend_run(&both, real, "cpu", NULL, NF_BOTH);
        attend_run(&alone, real, "cpu", NULL, NF_FWD);
        attend_run(&alone, real, "cpu", NULL, NF_BWD);
        for (int role = 0; role < NF_SCORES; role++)
            ck_assert_msg(!both.tensor[role].rank || tensor_equal(&both.tensor[role], &alone.tensor[role]), "%s: %s",
                          problems[i], nf_role_name((nf_role)role));
        both.problem.direction = NF_BOTH;
        nf_plan *plan;
        nf_plan_info info = {.size = sizeof info};
        ck_assert_int_eq(nf_plan_create(&plan, real, &both.problem, NULL), NF_OK);
        ck_assert_int_eq(nf_plan_get_info(plan, &info), NF_OK);
        mixed += strcmp(info.algo, info.backward_algo) != 0;
        nf_plan_destroy(plan);
        attend_destroy(&both);
        attend_destroy(&alone);
    }
    ck_assert_int_gt(mixed, 0);
    ck_assert_int_lt(mixed, PROBLEMS);
    nf_context_destroy(real);
}
END_TEST

/* ---- Figures -------------------------------------------------------------------------------------------------------
 */

START_TEST(figures)
{
    nf_plan *plan = make_plan("na2d bf16 out=f32 b2 h6/3 d4/2 5x7 w3 x5 both", NULL);
    nf_plan_info info = {.size = sizeof info};
    ck_assert_int_eq(nf_plan_get_info(plan, &info), NF_OK);
    ck_assert_uint_eq(info.size, sizeof info);
    ck_assert_str_eq(info.backend, "fake");
    ck_assert_str_eq(info.algo, "fast");
    ck_assert_str_eq(info.backward_algo, "fast");
    ck_assert_str_eq(info.kernel, "none");
    const double pairs = 2 * 6 * 35 * (9 + 5);
    ck_assert_double_eq(info.useful_pairs, pairs);
    ck_assert_double_eq(info.forward_flops, 2 * (4 + 2) * pairs);
    ck_assert_double_eq(info.backward_flops, 2.5 * info.forward_flops);
    ck_assert_double_eq(info.tensor_bytes, 2 * (2 * 35 * 6 * 4 + 2 * (35 + 5) * 3 * (4 + 2)) + 4 * 2 * 35 * 6 * 2);
    ck_assert_uint_eq(info.workspace_bytes, 640);
    ck_assert_uint_gt(info.plan_bytes, 640 + 1000);
    ck_assert_uint_lt(info.plan_bytes, 65536);
    ck_assert_int_eq(info.threads, nf_context_threads(context));
    nf_plan_destroy(plan);
    plan = make_plan("na1d d4 16 w3", NULL);
    ck_assert_int_eq(nf_plan_get_info(plan, &info), NF_OK);
    ck_assert_double_eq(info.backward_flops, 0);
    ck_assert_str_eq(info.backward_algo, "");
    nf_plan_destroy(plan);
}
END_TEST

/* A newer caller's larger struct keeps its size and its zero tail. */
START_TEST(info_of_a_newer_caller)
{
    struct {
        nf_plan_info info;
        double newer;
    } larger = {.info.size = sizeof larger};
    nf_plan *plan = make_plan("na1d d4 16 w3", NULL);
    ck_assert_int_eq(nf_plan_get_info(plan, &larger.info), NF_OK);
    ck_assert_uint_eq(larger.info.size, sizeof larger);
    ck_assert_double_eq(larger.newer, 0);
    larger.newer = 1;
    ck_assert_int_eq(nf_plan_get_info(plan, &larger.info), NF_ERR_ARGUMENT);
    nf_plan_destroy(plan);
}
END_TEST

START_TEST(memory_is_returned)
{
    size_t before, during, after;
    nf_context_memory(context, &before, NULL);
    nf_plan *plan = make_plan("na3d d8 6x7x8 w3 both", NULL);
    nf_context_memory(context, &during, NULL);
    nf_plan_info info = {.size = sizeof info};
    ck_assert_int_eq(nf_plan_get_info(plan, &info), NF_OK);
    ck_assert_uint_le(info.plan_bytes, during - before);
    ck_assert_uint_ge(info.plan_bytes + 2 * NF_ALIGNMENT, during - before);
    nf_plan_destroy(plan);
    nf_context_memory(context, &after, NULL);
    ck_assert_uint_eq(before, after);
}
END_TEST

/* ---- Calls ---------------------------------------------------------------------------------------------------------
 */

/* A plan with a complete io. */
typedef struct call {
    attend tensors;
    nf_plan *plan;
    nf_io io;
} call;

static nf_io io_of(attend *a)
{
    nf_io io;
    nf_io_init(&io);
    io.q = &a->tensor[NF_Q];
    io.k = &a->tensor[NF_K];
    io.v = &a->tensor[NF_V];
    io.out = &a->tensor[NF_OUT];
    io.lse = &a->tensor[NF_LSE];
    io.dout = &a->tensor[NF_DOUT];
    io.dlse = &a->tensor[NF_DLSE];
    io.dq = &a->tensor[NF_DQ];
    io.dk = &a->tensor[NF_DK];
    io.dv = &a->tensor[NF_DV];
    return io;
}

static void call_create(call *c, const char *text)
{
    attend_create_text(&c->tensors, text);
    c->plan = make_plan(text, NULL);
    c->io = io_of(&c->tensors);
}

static void call_destroy(call *c)
{
    nf_plan_destroy(c->plan);
    attend_destroy(&c->tensors);
}

START_TEST(directions)
{
    call c;
    call_create(&c, "na1d d4 16 w3 both");
    ck_assert_int_eq(nf_forward(c.plan, &c.io, NULL), NF_OK);
    ck_assert_int_eq(nf_backward(c.plan, &c.io, NULL), NF_OK);
    ck_assert_int_eq(fake.forwards, 1);
    ck_assert_int_eq(fake.backwards, 1);
    call_destroy(&c);
    call_create(&c, "na1d d4 16 w3 fwd");
    ck_assert_int_eq(nf_backward(c.plan, &c.io, NULL), NF_ERR_ARGUMENT);
    ck_assert_str_eq(nf_last_error(), "plan: made for fwd, which does not include bwd");
    call_destroy(&c);
    call_create(&c, "na1d d4 16 w3 bwd");
    ck_assert_int_eq(nf_forward(c.plan, &c.io, NULL), NF_ERR_ARGUMENT);
    ck_assert_str_eq(nf_last_error(), "plan: made for bwd, which does not include fwd");
    call_destroy(&c);
}
END_TEST

START_TEST(optional_tensors)
{
    call c;
    call_create(&c, "na1d d4 16 w3 both");
    c.io.lse = NULL;
    ck_assert_int_eq(nf_forward(c.plan, &c.io, NULL), NF_OK);
    ck_assert_int_eq(nf_backward(c.plan, &c.io, NULL), NF_ERR_TENSOR);
    ck_assert_str_eq(nf_last_error(), "lse: NULL, but backward needs it");
    c.io.lse = &c.tensors.tensor[NF_LSE];
    c.io.dlse = NULL;
    c.io.dq = c.io.dk = NULL;
    ck_assert_int_eq(nf_backward(c.plan, &c.io, NULL), NF_OK);
    c.io.dv = NULL;
    ck_assert_int_eq(nf_backward(c.plan, &c.io, NULL), NF_ERR_TENSOR);
    ck_assert_str_eq(nf_last_error(), "dq, dk, dv, dextra_k, dextra_v: at least one must be present");
    call_destroy(&c);
}
END_TEST

static call *busy_call;
static nf_status busy_status;

static void call_again(void)
{
    fake.on_run = NULL;
    busy_status = nf_forward(busy_call->plan, &busy_call->io, NULL);
}

static void call_again_elsewhere(void)
{
    static _Alignas(64) char workspace[640];
    fake.on_run = NULL;
    nf_exec exec;
    nf_exec_init(&exec);
    exec.workspace = workspace;
    exec.workspace_bytes = sizeof workspace;
    busy_status = nf_forward(busy_call->plan, &busy_call->io, &exec);
}

START_TEST(own_workspace_is_guarded)
{
    call c;
    call_create(&c, "na1d d4 16 w3");
    busy_call = &c;
    fake.on_run = call_again;
    ck_assert_int_eq(nf_forward(c.plan, &c.io, NULL), NF_OK);
    ck_assert_int_eq(busy_status, NF_ERR_BUSY);
    ck_assert_str_eq(nf_last_error(),
                     "plan: another call is using its workspace; pass a workspace of 640 bytes in nf_exec");
    fake.on_run = call_again_elsewhere;
    ck_assert_int_eq(nf_forward(c.plan, &c.io, NULL), NF_OK);
    ck_assert_int_eq(busy_status, NF_OK);
    ck_assert_int_eq(nf_forward(c.plan, &c.io, NULL), NF_OK);
    call_destroy(&c);
}
END_TEST

START_TEST(no_workspace_needs_no_guard)
{
    call c;
    fake.workspace_bytes = 0;
    call_create(&c, "na1d d4 16 w3 fwd");
    busy_call = &c;
    fake.on_run = call_again;
    ck_assert_int_eq(nf_forward(c.plan, &c.io, NULL), NF_OK);
    ck_assert_int_eq(busy_status, NF_OK);
    call_destroy(&c);
}
END_TEST

START_TEST(a_failed_call_frees_the_workspace)
{
    call c;
    call_create(&c, "na1d d4 16 w3");
    fake.run_status = NF_ERR_DEVICE;
    ck_assert_int_eq(nf_forward(c.plan, &c.io, NULL), NF_ERR_DEVICE);
    ck_assert_str_eq(nf_last_error(), "it fell over");
    fake.run_status = NF_OK;
    ck_assert_int_eq(nf_forward(c.plan, &c.io, NULL), NF_OK);
    call_destroy(&c);
}
END_TEST

START_TEST(given_workspace)
{
    static _Alignas(64) char workspace[1024];
    call c;
    call_create(&c, "na1d d4 16 w3");
    ck_assert_int_eq(nf_forward(c.plan, &c.io, NULL), NF_OK);
    ck_assert_uint_eq((uintptr_t)fake.workspace % NF_ALIGNMENT, 0);
    nf_exec exec;
    nf_exec_init(&exec);
    exec.workspace = workspace;
    exec.workspace_bytes = sizeof workspace;
    ck_assert_int_eq(nf_forward(c.plan, &c.io, &exec), NF_OK);
    ck_assert_ptr_eq(fake.workspace, workspace);
    call_destroy(&c);
}
END_TEST

/* ---- Layouts -------------------------------------------------------------------------------------------------------
 */

/* q, k, v and dq, dk, dv as slices [batch, tokens, 3, heads, dim] of two buffers. */
START_TEST(packed_qkv_is_accepted)
{
    enum { BATCH = 2, TOKENS = 8, HEADS = 3, DIM = 4, SLICE = HEADS * DIM };
    static float inputs[BATCH * TOKENS * 3 * SLICE], gradients[BATCH * TOKENS * 3 * SLICE];
    const char *text = "na1d b2 h3 d4 8 w3 both";
    attend a;
    attend_create_text(&a, text);
    static const nf_role roles[2][3] = {{NF_Q, NF_K, NF_V}, {NF_DQ, NF_DK, NF_DV}};
    nf_tensor packed[2][3];
    for (int side = 0; side < 2; side++)
        for (int slice = 0; slice < 3; slice++) {
            nf_tensor *t = &packed[side][slice];
            *t = a.tensor[roles[side][slice]];
            t->data = (side ? gradients : inputs) + slice * SLICE;
            t->strides[0] = TOKENS * 3 * SLICE;
            t->strides[1] = 3 * SLICE;
        }
    nf_io io = io_of(&a);
    io.q = &packed[0][0], io.k = &packed[0][1], io.v = &packed[0][2];
    io.dq = &packed[1][0], io.dk = &packed[1][1], io.dv = &packed[1][2];
    nf_plan_options options;
    nf_plan_options_init(&options);
    options.layout = &io;
    nf_plan *plan = make_plan(text, &options);
    ck_assert_msg(nf_forward(plan, &io, NULL) == NF_OK, "%s", nf_last_error());
    ck_assert_msg(nf_backward(plan, &io, NULL) == NF_OK, "%s", nf_last_error());
    packed[1][1].data = gradients + SLICE - 1;
    ck_assert_int_eq(nf_backward(plan, &io, NULL), NF_ERR_TENSOR);
    ck_assert_str_eq(nf_last_error(), "dk: an output must not overlap dq");
    packed[1][1].data = inputs + 2 * SLICE;
    ck_assert_int_eq(nf_backward(plan, &io, NULL), NF_ERR_TENSOR);
    ck_assert_str_eq(nf_last_error(), "dk: an output must not overlap v");
    nf_plan_destroy(plan);
    attend_destroy(&a);
}
END_TEST

START_TEST(inputs_may_have_any_strides)
{
    const char *text = "na1d b2 h3 d4 8 w3";
    attend a;
    attend_create_text(&a, text);
    nf_io io = io_of(&a);
    nf_tensor k = a.tensor[NF_K], v = a.tensor[NF_V];
    memset(k.strides, 0, sizeof k.strides);
    v.data = (float *)v.data + 7 * v.strides[1];
    v.strides[1] = -v.strides[1];
    io.k = &k;
    io.v = &v;
    nf_plan_options options;
    nf_plan_options_init(&options);
    options.layout = &io;
    nf_plan *plan = make_plan(text, &options);
    ck_assert_msg(nf_forward(plan, &io, NULL) == NF_OK, "%s", nf_last_error());
    k.strides[3] = 1;
    ck_assert_int_eq(nf_forward(plan, &io, NULL), NF_ERR_TENSOR);
    ck_assert_str_eq(nf_last_error(), "k: stride 3 is 1, the plan was made for 0");
    nf_plan_destroy(plan);
    attend_destroy(&a);
}
END_TEST

/* An extent of 1 has no neighbours, whatever stride a framework writes there. */
START_TEST(strides_of_single_extents_do_not_matter)
{
    call c;
    call_create(&c, "na1d b1 h1 d4 16 w3");
    nf_tensor q = c.tensors.tensor[NF_Q];
    q.strides[0] = 999;
    q.strides[2] = 0;
    c.io.q = &q;
    ck_assert_msg(nf_forward(c.plan, &c.io, NULL) == NF_OK, "%s", nf_last_error());
    call_destroy(&c);
}
END_TEST

START_TEST(host_backends_refuse_device_memory)
{
    nf_context *real;
    ck_assert_int_eq(nf_context_create(&real, NULL), NF_OK);
    nf_problem p;
    ck_assert_int_eq(nf_problem_parse(&p, "na1d d4 16 w3"), NF_OK);
    nf_tensor q;
    ck_assert_int_eq(nf_problem_tensor(&p, NF_Q, &q), NF_OK);
    q.memory = NF_CUDA;
    nf_io layout;
    nf_io_init(&layout);
    layout.q = &q;
    const char *const names[] = {NULL, "cpu", "reference"};
    for (int i = 0; i < 3; i++) {
        nf_plan_options options;
        nf_plan_options_init(&options);
        options.backend = names[i];
        options.layout = &layout;
        nf_plan *plan = NULL;
        ck_assert_int_eq(nf_plan_create(&plan, real, &p, &options), NF_ERR_UNSUPPORTED);
    }
    nf_context_destroy(real);
}
END_TEST

/* ---- Log -----------------------------------------------------------------------------------------------------------
 */

START_TEST(verbose_lines)
{
    fake.fast_lags = NF_BWD;
    nf_context_destroy(context);
    setenv("NEARFIELD_VERBOSE", "1", 1);
    context = fake_context(&book);
    call c;
    call_create(&c, "na1d d4 16 w3 both");
    ck_assert_int_eq(book.lines, 0);
    ck_assert_int_eq(nf_forward(c.plan, &c.io, NULL), NF_OK);
    ck_assert_int_eq(nf_backward(c.plan, &c.io, NULL), NF_OK);
    ck_assert_int_eq(book.lines, 2);
    ck_assert_ptr_nonnull(strstr(book.text, "1 fake fast forward "));
    ck_assert_ptr_nonnull(strstr(book.text, "1 fake slow backward "));
    ck_assert_ptr_nonnull(strstr(book.text, " ms: na1d f32 b1 h1 d4 16 w3 both\n"));
    call_destroy(&c);
}
END_TEST

START_TEST(very_verbose_lines)
{
    nf_context_destroy(context);
    setenv("NEARFIELD_VERBOSE", "2", 1);
    context = fake_context(&book);
    nf_plan_destroy(make_plan("na1d d4 16 w3", NULL));
    ck_assert_ptr_nonnull(strstr(book.text, "2 not fake slow: predicted 2 ms, fast 1 ms\n"));
    ck_assert_ptr_nonnull(strstr(book.text, "2 plan: fake fast, predicted 1 ms, workspace 640 bytes, na1d"));
    fake.fast_lags = NF_BWD;
    nf_plan_destroy(make_plan("na1d d4 16 w3 both", NULL));
    ck_assert_ptr_nonnull(strstr(book.text, "2 not fake fast for bwd: predicted 4 ms, slow 2 ms\n"));
    ck_assert_ptr_nonnull(strstr(book.text, "2 plan: fake fast for fwd, predicted 1 ms, workspace 640 bytes, na1d"));
    ck_assert_ptr_nonnull(strstr(book.text, "2 plan: fake slow for bwd, predicted 2 ms, workspace 640 bytes, na1d"));
}
END_TEST

/* ---- Failures ------------------------------------------------------------------------------------------------------
 */

typedef struct miser {
    int countdown, outstanding; /* countdown < 0: never fails */
    bool failed;
} miser;

static void *miser_allocate(void *user, size_t bytes, size_t alignment)
{
    miser *m = user;
    if (m->countdown >= 0 && m->countdown-- == 0) {
        m->failed = true;
        return NULL;
    }
    m->outstanding++;
    return aligned_alloc(alignment, bytes);
}

static void miser_release(void *user, void *memory, size_t bytes)
{
    (void)bytes;
    miser *m = user;
    m->outstanding--;
    free(memory);
}

static const struct {
    const char *backend, *problem; /* backend NULL: the fakes */
    nf_direction fast_lags;        /* of the fakes */
} fault_cases[] = {
    {NULL, "na2d d4 8x9 w3 both", 0},
    {NULL, "na2d d4 8x9 w3 both", NF_BWD},
    {"cpu", "na1d d8 33 w5 both", 0},
    {"cpu", "na3d bf16 b2 h4/2 d16/8 6x7x8 w3x5x4 s1x2x4 dil2x1x2 c0x1x0 x3 both", 0},
    {"cpu", "na1d f64 d3 16/64 c1 k5:40 bwd", 0},
    {"reference", "na2d f16 out=f32 d5 7x9 w3x4 dil2x1 x2 both", 0},
};

/* Fails the n-th allocation of a plan for every n until none is left to fail. */
START_TEST(every_allocation_may_fail)
{
    miser m = {.countdown = -1};
    fake.fast_lags = fault_cases[_i].fast_lags;
    nf_context_options options;
    nf_context_options_init(&options);
    options.allocate = miser_allocate;
    options.release = miser_release;
    options.memory_user = &m;
    nf_context *own;
    const nf_backend *const *table = fault_cases[_i].backend ? nf_backends : fake_backends;
    ck_assert_int_eq(nf_context_create_with(&own, &options, table), NF_OK);
    const int baseline = m.outstanding;
    size_t before, after;
    nf_context_memory(own, &before, NULL);
    nf_problem p;
    ck_assert_int_eq(nf_problem_parse(&p, fault_cases[_i].problem), NF_OK);
    nf_plan_options plan_options;
    nf_plan_options_init(&plan_options);
    plan_options.backend = fault_cases[_i].backend;
    int n = 0;
    for (bool more = true; more; n++) {
        ck_assert_int_lt(n, 1000);
        m.countdown = n;
        m.failed = false;
        nf_plan *plan = NULL;
        const nf_status status = nf_plan_create(&plan, own, &p, &plan_options);
        ck_assert_int_eq(status, m.failed ? NF_ERR_MEMORY : NF_OK);
        ck_assert_int_eq(plan == NULL, m.failed);
        more = m.failed;
        m.countdown = -1;
        nf_plan_destroy(plan);
        nf_context_memory(own, &after, NULL);
        ck_assert_uint_eq(before, after);
        ck_assert_int_eq(m.outstanding, baseline);
    }
    ck_assert_int_gt(n, 3);
    nf_context_destroy(own);
    ck_assert_int_eq(m.outstanding, 0);
}
END_TEST

/* ---- Threads -------------------------------------------------------------------------------------------------------
 */

static void *make_plans(void *failures)
{
    nf_problem p;
    nf_problem_parse(&p, "na2d d4 8x9 w3");
    for (int i = 0; i < 200; i++) {
        nf_plan *plan;
        nf_plan_info info = {.size = sizeof info};
        if (nf_plan_create(&plan, context, &p, NULL) != NF_OK || nf_plan_get_info(plan, &info) != NF_OK)
            ++*(int *)failures;
        nf_plan_destroy(plan);
    }
    return NULL;
}

START_TEST(plans_from_many_threads)
{
    pthread_t threads[3];
    int failures[3] = {0};
    size_t before, after;
    nf_context_memory(context, &before, NULL);
    for (int i = 0; i < 3; i++)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, make_plans, &failures[i]), 0);
    for (int i = 0; i < 3; i++) {
        pthread_join(threads[i], NULL);
        ck_assert_int_eq(failures[i], 0);
    }
    nf_context_memory(context, &after, NULL);
    ck_assert_uint_eq(before, after);
}
END_TEST

/* What the threads of one plan saw. */
typedef struct tally {
    call *shared;
    int ok, busy, other;
} tally;

static void *execute_often(void *user)
{
    tally *t = user;
    for (int i = 0; i < 2000; i++) {
        const nf_status status = nf_forward(t->shared->plan, &t->shared->io, NULL);
        ++*(status == NF_OK ? &t->ok : status == NF_ERR_BUSY ? &t->busy : &t->other);
    }
    return NULL;
}

static _Atomic int inside, crowded;

static void count_inside(void)
{
    if (atomic_fetch_add(&inside, 1) > 0)
        crowded++;
    atomic_fetch_sub(&inside, 1);
}

START_TEST(one_thread_at_a_time_in_the_workspace)
{
    call c;
    call_create(&c, "na1d d4 16 w3");
    fake.on_run = count_inside;
    tally tallies[3] = {{&c, 0, 0, 0}, {&c, 0, 0, 0}, {&c, 0, 0, 0}};
    pthread_t threads[3];
    int ok = 0;
    for (int i = 0; i < 3; i++)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, execute_often, &tallies[i]), 0);
    for (int i = 0; i < 3; i++) {
        pthread_join(threads[i], NULL);
        ck_assert_int_eq(tallies[i].other, 0);
        ok += tallies[i].ok;
    }
    ck_assert_int_eq(crowded, 0);
    ck_assert_int_eq(ok, fake.forwards);
    call_destroy(&c);
}
END_TEST

static void add_calls(TCase *cases)
{
    tcase_add_test(cases, directions);
    tcase_add_test(cases, optional_tensors);
    tcase_add_test(cases, own_workspace_is_guarded);
    tcase_add_test(cases, no_workspace_needs_no_guard);
    tcase_add_test(cases, a_failed_call_frees_the_workspace);
    tcase_add_test(cases, given_workspace);
    tcase_add_test(cases, packed_qkv_is_accepted);
    tcase_add_test(cases, inputs_may_have_any_strides);
    tcase_add_test(cases, strides_of_single_extents_do_not_matter);
    tcase_add_test(cases, host_backends_refuse_device_memory);
    tcase_add_test(cases, verbose_lines);
    tcase_add_test(cases, very_verbose_lines);
}

int main(void)
{
    TCase *cases = tcase_create("plan");
    tcase_add_checked_fixture(cases, setup, teardown);
    tcase_add_test(cases, cheapest_algorithm_of_the_first_backend);
    tcase_add_test(cases, refusals_are_kept);
    tcase_add_test(cases, an_algorithm_for_each_direction);
    tcase_add_test(cases, an_algorithm_may_refuse_one_direction);
    tcase_add_test(cases, one_backend_runs_both_directions);
    tcase_add_test(cases, an_algorithm_asked_for_runs_both_directions);
    tcase_add_test(cases, nobody_supports);
    tcase_add_test(cases, options_narrow_the_choice);
    tcase_add_test(cases, the_real_library_prefers_cpu);
    tcase_add_test(cases, the_choice_keeps_no_scores);
    tcase_add_test(cases, both_directions_are_each_alone);
    tcase_add_test(cases, figures);
    tcase_add_test(cases, info_of_a_newer_caller);
    tcase_add_test(cases, memory_is_returned);
    add_calls(cases);
    tcase_add_loop_test(cases, every_allocation_may_fail, 0, sizeof fault_cases / sizeof fault_cases[0]);
    tcase_add_test(cases, plans_from_many_threads);
    tcase_add_test(cases, one_thread_at_a_time_in_the_workspace);
    Suite *suite = suite_create("plan");
    suite_add_tcase(suite, cases);
    return nf_test_main(suite);
}
