/* Judging results before they are timed. */
#include "bench_check.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "elements.h"

static const char *const self = "bench";

/* Multiply-adds of one product that the reference backend is asked for; beyond, rows are sampled. */
static const double reference_limit = 3e8;
enum { SAMPLES = 6 };

/* Norm-wise limits for well-conditioned data: inputs are N(0, 1), so that scores stay small. */
static double limit_of(nf_dtype dtype, nf_role role)
{
    const double forward = dtype == NF_F64 ? 1e-13 : dtype == NF_F32 ? 1e-5 : dtype == NF_F16 ? 2e-3 : 2e-2;
    return role >= NF_DQ ? 4 * forward : forward;
}

static void judge(bench_verdict *verdict, const char *tensor, double error, double limit)
{
    const double measured = isnan(error) ? HUGE_VAL : error;
    verdict->passed = verdict->passed && measured <= limit;
    if (!verdict->tensor || measured / limit > verdict->error / verdict->limit) {
        verdict->tensor = tensor;
        verdict->error = measured;
        verdict->limit = limit;
    }
}

/* Sums of squares of a difference and of the truth. */
typedef struct squares {
    double difference, truth, count;
} squares;

static void add_element(squares *s, double got, double want)
{
    s->count++;
    if (got == want && isinf(want))
        return;
    s->difference += (got - want) * (got - want);
    s->truth += want * want;
}

/* A truth that is zero but for rounding, such as dq of a window of 1, counts as a hundredth per element. */
static double relative_error(const squares *s)
{
    return sqrt(s->difference / fmax(s->truth, 1e-4 * s->count));
}

/* Points io's outputs at fresh tensors. */
static int replace_outputs(const bench_data *data, bench_data *truth)
{
    *truth = *data;
    int status = NF_TOOL_OK;
    for (int role = 0; role < NF_ROLES; role++) {
        nf_tensor *tensor = &truth->tensors[role];
        if (!tensor->data)
            continue;
        if (bench_is_output((nf_role)role)) {
            tensor->data = malloc(nf_tool_tensor_bytes(tensor));
            if (!tensor->data)
                status = nf_tool_error(self, "out of memory for the reference's %s", nf_role_name((nf_role)role));
        }
        *nf_tool_io_slot(&truth->io, (nf_role)role) = tensor;
    }
    return status;
}

static void free_outputs(bench_data *truth)
{
    for (int role = 0; role < NF_ROLES; role++)
        if (bench_is_output((nf_role)role))
            free(truth->tensors[role].data);
}

/* Runs the reference backend on a problem and its tensors. */
static int run_reference(nf_context *context, const nf_problem *problem, const nf_io *forward, const nf_io *backward)
{
    nf_plan_options options;
    nf_plan_options_init(&options);
    options.backend = "reference";
    options.layout = backward ? backward : forward;
    nf_plan *plan = NULL;
    nf_status status = nf_plan_create(&plan, context, problem, &options);
    if (status == NF_OK)
        status = nf_forward(plan, forward, NULL);
    if (status == NF_OK && backward)
        status = nf_backward(plan, backward, NULL);
    nf_plan_destroy(plan);
    return status == NF_OK ? NF_TOOL_OK : nf_tool_fail_status(self, "the reference backend cannot judge this");
}

static int check_all(nf_context *context, const bench_data *data, bench_verdict *verdict)
{
    bench_data truth;
    int status = replace_outputs(data, &truth);
    if (status == NF_TOOL_OK) {
        const nf_io forward = bench_forward_io(&truth);
        status = run_reference(context, &truth.problem, &forward, data->io.dout ? &truth.io : NULL);
    }
    for (int role = 0; role < NF_ROLES && status == NF_TOOL_OK; role++) {
        const nf_tensor *got = &data->tensors[role], *want = &truth.tensors[role];
        if (!got->data || !bench_is_output((nf_role)role))
            continue;
        squares s = {0};
        const int64_t count = nf_tool_tensor_count(got);
        for (int64_t i = 0; i < count; i++)
            add_element(&s, nf_tool_load_element(got->data, got->dtype, i),
                        nf_tool_load_element(want->data, want->dtype, i));
        judge(verdict, nf_role_name((nf_role)role), relative_error(&s), limit_of(data->problem.dtype, (nf_role)role));
    }
    free_outputs(&truth);
    verdict->method = "reference";
    return status;
}

/* ---- Sampled rows ------------------------------------------------------------------------------------------------ */

/* One query of one batch, with all its heads: the problem shrunk to it. */
typedef struct sample {
    nf_problem problem;
    int64_t batch, query[NF_MAX_RANK];
} sample;

static int64_t draw(uint64_t *state, int64_t count)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (int64_t)((*state >> 33) % (uint64_t)count);
}

static sample draw_sample(const bench_data *data, uint64_t *state)
{
    sample s = {.problem = data->problem, .batch = draw(state, data->problem.batch)};
    s.problem.batch = 1;
    for (int a = 0; a < s.problem.rank; a++) {
        nf_axis *axis = &s.problem.axis[a];
        const bool cross = axis->key_extent != 0 && axis->key_extent != axis->extent;
        const int64_t begin = cross && axis->q_count == 0 ? axis->key_extent - axis->extent : axis->q_begin;
        s.query[a] = draw(state, data->tensors[NF_Q].extents[1 + a]);
        axis->extent = cross ? 1 : axis->extent;
        axis->q_begin = begin + s.query[a];
        axis->q_count = 1;
    }
    return s;
}

static bool is_of_queries(nf_role role)
{
    return role == NF_Q || role == NF_OUT || role == NF_LSE || role == NF_DOUT || role == NF_DQ;
}

/* The part of a tensor that belongs to a sample. */
static nf_tensor view_of(const nf_tensor *tensor, nf_role role, const sample *s)
{
    nf_tensor view = *tensor;
    int64_t offset = s->batch * view.strides[0];
    view.extents[0] = 1;
    for (int a = 0; a < s->problem.rank && is_of_queries(role); a++) {
        offset += s->query[a] * view.strides[1 + a];
        view.extents[1 + a] = 1;
    }
    view.data = (char *)view.data + offset * (int64_t)nf_dtype_size(view.dtype);
    return view;
}

static int check_sample(nf_context *context, const bench_data *data, const sample *s, squares sums[NF_ROLES])
{
    static const nf_role outputs[] = {NF_OUT, NF_LSE, NF_DQ};
    nf_tensor views[NF_ROLES], got[NF_ROLES];
    nf_io io;
    nf_io_init(&io);
    int status = NF_TOOL_OK;
    for (int role = 0; role < NF_DK; role++) {
        if (!data->tensors[role].data)
            continue;
        got[role] = views[role] = view_of(&data->tensors[role], (nf_role)role, s);
        if (bench_is_output((nf_role)role)) {
            nf_problem_tensor(&s->problem, (nf_role)role, &views[role]);
            views[role].data = malloc(nf_tool_tensor_bytes(&views[role]));
            status = views[role].data ? status : nf_tool_error(self, "out of memory for a sampled row");
        }
        *nf_tool_io_slot(&io, (nf_role)role) = &views[role];
    }
    nf_io forward = io;
    forward.dout = forward.dq = NULL;
    if (status == NF_TOOL_OK)
        status = run_reference(context, &s->problem, &forward, io.dout ? &io : NULL);
    for (size_t o = 0; o < sizeof(outputs) / sizeof(*outputs); o++) {
        const nf_role role = outputs[o];
        if (!data->tensors[role].data)
            continue;
        const int64_t count = status == NF_TOOL_OK ? nf_tool_tensor_count(&views[role]) : 0;
        for (int64_t i = 0; i < count; i++)
            add_element(&sums[role], nf_tool_load_element(got[role].data, got[role].dtype, i),
                        nf_tool_load_element(views[role].data, views[role].dtype, i));
        free(views[role].data);
    }
    return status;
}

/* ---- Sums -------------------------------------------------------------------------------------------------------- */

/* Adds sum a.b over the tokens of one batch and head to *sum, and the sum of absolute values to *size. The tensors have
 * the same extents [batch, tokens..., heads, dim]. */
static void add_products(const nf_tensor *a, const nf_tensor *b, int64_t batch, int64_t head, double *sum, double *size)
{
    const int64_t dim = a->extents[a->rank - 1], heads = a->extents[a->rank - 2];
    const int64_t tokens = nf_tool_tensor_count(a) / (a->extents[0] * heads * dim);
    for (int64_t t = 0; t < tokens; t++) {
        const int64_t at = ((batch * tokens + t) * heads + head) * dim;
        for (int64_t i = 0; i < dim; i++) {
            const double product =
                nf_tool_load_element(a->data, a->dtype, at + i) * nf_tool_load_element(b->data, b->dtype, at + i);
            *sum += product;
            *size += fabs(product);
        }
    }
}

/* Both sides of sum x.dx over the keys of a key/value head = sum y.z over the queries that read it. */
static double sum_mismatch(const bench_data *data, const nf_role keys[4], const nf_role queries[2], int64_t batch,
                           int64_t kv_head)
{
    const nf_problem *p = &data->problem;
    const int64_t group = p->heads / p->kv_heads;
    double left = 0, right = 0, size = 0;
    for (int i = 0; i < 4; i += 2)
        if (data->tensors[keys[i]].data)
            add_products(&data->tensors[keys[i]], &data->tensors[keys[i + 1]], batch, kv_head, &left, &size);
    for (int64_t head = kv_head * group; head < (kv_head + 1) * group; head++)
        add_products(&data->tensors[queries[0]], &data->tensors[queries[1]], batch, head, &right, &size);
    return fabs(left - right) / fmax(size, 1e-30);
}

/* dS k and dS^T q, and p v and p^T dout, share the scalars q.dq = k.dk and out.dout = v.dv, summed. */
static void check_sums(const bench_data *data, bench_verdict *verdict)
{
    static const nf_role dk_keys[] = {NF_K, NF_DK, NF_EXTRA_K, NF_DEXTRA_K}, dk_queries[] = {NF_Q, NF_DQ};
    static const nf_role dv_keys[] = {NF_V, NF_DV, NF_EXTRA_V, NF_DEXTRA_V}, dv_queries[] = {NF_OUT, NF_DOUT};
    for (int64_t b = 0; b < data->problem.batch; b++) {
        for (int64_t h = 0; h < data->problem.kv_heads; h++) {
            const double limit = limit_of(data->problem.dtype, NF_DK);
            judge(verdict, "sum of k.dk", sum_mismatch(data, dk_keys, dk_queries, b, h), limit);
            judge(verdict, "sum of v.dv", sum_mismatch(data, dv_keys, dv_queries, b, h), limit);
        }
    }
}

static int check_samples(nf_context *context, const bench_data *data, bench_verdict *verdict)
{
    squares sums[NF_ROLES] = {{0}};
    uint64_t state = 1;
    for (int i = 0; i < SAMPLES; i++) {
        const sample s = draw_sample(data, &state);
        if (check_sample(context, data, &s, sums))
            return NF_TOOL_BAD;
    }
    for (int role = 0; role < NF_ROLES; role++)
        if (sums[role].count > 0)
            judge(verdict, nf_role_name((nf_role)role), relative_error(&sums[role]),
                  limit_of(data->problem.dtype, (nf_role)role));
    if (data->io.dout)
        check_sums(data, verdict);
    verdict->method = "samples";
    return NF_TOOL_OK;
}

int bench_check(const bench_data *data, double pairs, bench_verdict *verdict)
{
    *verdict = (bench_verdict){.passed = true};
    nf_context *context = nf_tool_context(self, "reference", 0);
    if (!context)
        return NF_TOOL_BAD;
    const double work = pairs * (double)(data->problem.head_dim + data->problem.value_dim);
    const int status = work <= reference_limit ? check_all(context, data, verdict)
                                               : check_samples(context, data, verdict);
    nf_context_destroy(context);
    return status;
}
