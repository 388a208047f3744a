/* Judging a problem that is too large for the reference backend by parts of it. A part is a problem with ranges: one
 * query and all keys for out, lse and dq; for dk and dv of a key, all queries near enough to see it. */
#include "bench_sample.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "bench_judge.h"
#include "elements.h"

static const char *const self = "bench";

enum { QUERY_SAMPLES = 6, KEY_SAMPLES = 2 };
/* Multiply-adds of one product that a sampled key may cost. */
static const double key_limit = 6e8;

/* A part of a problem: where its tensors begin in the whole ones. */
typedef struct sample {
    nf_problem problem;
    int64_t batch, kv_head, query[NF_MAX_RANK]; /* first query */
    int64_t key[NF_MAX_RANK];                   /* the key whose gradients are judged */
} sample;

static int64_t draw(uint64_t *state, int64_t count)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (int64_t)((*state >> 33) % (uint64_t)count);
}

/* One batch and one key/value head with the heads that read it. */
static sample draw_head(const bench_data *data, uint64_t *state)
{
    sample s = {.problem = data->problem};
    s.batch = draw(state, data->problem.batch);
    s.kv_head = draw(state, data->problem.kv_heads);
    s.problem.batch = s.problem.kv_heads = 1;
    s.problem.heads /= data->problem.kv_heads;
    return s;
}

static bool is_cross(const nf_axis *axis)
{
    return axis->key_extent != 0 && axis->key_extent != axis->extent;
}

/* One query. */
static sample draw_query(const bench_data *data, uint64_t *state)
{
    sample s = draw_head(data, state);
    for (int a = 0; a < s.problem.rank; a++) {
        nf_axis *axis = &s.problem.axis[a];
        const bool placed_last = is_cross(axis) && axis->q_count == 0;
        s.query[a] = draw(state, data->tensors[NF_Q].extents[1 + a]);
        axis->q_begin = s.query[a] + (placed_last ? axis->key_extent - axis->extent : axis->q_begin);
        axis->extent = is_cross(axis) ? 1 : axis->extent;
        axis->q_count = 1;
    }
    return s;
}

/* One key, and every query that may see it. *cost: visible pairs at most. */
static sample draw_key(const bench_data *data, uint64_t *state, double *cost)
{
    sample s = draw_head(data, state);
    *cost = (double)s.problem.heads;
    for (int a = 0; a < s.problem.rank; a++) {
        nf_axis *axis = &s.problem.axis[a];
        const int64_t queries = data->tensors[NF_Q].extents[1 + a], keys = data->tensors[NF_K].extents[1 + a];
        s.key[a] = draw(state, keys);
        *cost *= (double)(axis->window ? axis->window : keys);
        if (axis->window && !is_cross(axis)) {
            const int64_t reach = (axis->window + axis->stride) * axis->dilation;
            const int64_t at = axis->k_begin + s.key[a] - axis->q_begin, last = queries - 1;
            const int64_t from = at - reach < 0 ? 0 : at - reach > last ? last : at - reach;
            const int64_t to = at + reach > last ? last : at + reach < from ? from : at + reach;
            s.query[a] = from;
            axis->q_begin += from;
            axis->q_count = to - from + 1;
            *cost *= (double)axis->q_count;
        } else {
            *cost *= (double)queries;
        }
    }
    return s;
}

static bool is_of_queries(nf_role role)
{
    return role == NF_Q || role == NF_OUT || role == NF_LSE || role == NF_DOUT || role == NF_DQ;
}

/* The part of a whole tensor that a sample's tensor stands for. */
static nf_tensor view_of(const nf_tensor *whole, nf_role role, const sample *s)
{
    nf_tensor view;
    nf_problem_tensor(&s->problem, role, &view);
    memcpy(view.strides, whole->strides, sizeof(view.strides));
    const int head_axis = role == NF_LSE ? whole->rank - 1 : whole->rank - 2;
    const int64_t head = is_of_queries(role) ? s->kv_head * s->problem.heads : s->kv_head;
    int64_t offset = s->batch * whole->strides[0] + head * whole->strides[head_axis];
    for (int a = 0; a < s->problem.rank && is_of_queries(role); a++)
        offset += s->query[a] * whole->strides[1 + a];
    view.data = (char *)whole->data + offset * (int64_t)nf_dtype_size(whole->dtype);
    return view;
}

/* Adds the differences of one row [.., head, :] of each head; token NULL: of all rows. */
static void add_view(bench_squares *sum, const nf_tensor *got, const nf_tensor *want, const int64_t *token)
{
    const int64_t count = nf_tool_tensor_count(want);
    for (int64_t i = 0; i < count; i++) {
        int64_t rest = i, offset = 0;
        bool wanted = true;
        for (int d = want->rank - 1; d >= 0; d--) {
            const int64_t index = rest % want->extents[d];
            rest /= want->extents[d];
            offset += index * got->strides[d];
            wanted = wanted && (!token || d == 0 || d >= want->rank - 2 || index == token[d - 1]);
        }
        if (wanted)
            bench_add_element(sum, nf_tool_load_element(got->data, got->dtype, offset),
                              nf_tool_load_element(want->data, want->dtype, i));
    }
}

/* Runs the reference on a sample and adds up the errors of the judged outputs. */
static int check_sample(nf_context *context, const bench_data *data, const sample *s, const nf_role *judged, int count,
                        const int64_t *token, bench_squares sums[NF_ROLES])
{
    nf_tensor tensors[NF_ROLES], got[NF_ROLES];
    void *outputs[NF_ROLES] = {NULL};
    nf_io io;
    nf_io_init(&io);
    int status = NF_TOOL_OK;
    for (int role = 0; role < NF_ROLES && status == NF_TOOL_OK; role++) {
        bool wanted = role < NF_DQ;
        for (int i = 0; i < count; i++)
            wanted = wanted || role == (int)judged[i];
        if (!data->tensors[role].data || !wanted)
            continue;
        got[role] = tensors[role] = view_of(&data->tensors[role], (nf_role)role, s);
        if (bench_is_output((nf_role)role)) {
            nf_problem_tensor(&s->problem, (nf_role)role, &tensors[role]);
            tensors[role].data = outputs[role] = malloc(nf_tool_tensor_bytes(&tensors[role]));
            status = outputs[role] ? status : nf_tool_error(self, "out of memory for a sample");
        }
        *nf_tool_io_slot(&io, (nf_role)role) = &tensors[role];
    }
    nf_io forward = io;
    forward.dout = forward.dq = forward.dk = forward.dv = NULL;
    if (status == NF_TOOL_OK)
        status = bench_run_reference(context, &s->problem, &forward, io.dout ? &io : NULL);
    for (int i = 0; i < count && status == NF_TOOL_OK; i++)
        if (outputs[judged[i]])
            add_view(&sums[judged[i]], &got[judged[i]], &tensors[judged[i]], token);
    for (int role = 0; role < NF_ROLES; role++)
        free(outputs[role]);
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
            const double limit = bench_limit(data->problem.dtype, NF_DK);
            bench_judge(verdict, "sum of k.dk", sum_mismatch(data, dk_keys, dk_queries, b, h), limit);
            bench_judge(verdict, "sum of v.dv", sum_mismatch(data, dv_keys, dv_queries, b, h), limit);
        }
    }
}

int bench_check_samples(nf_context *context, const bench_data *data, bench_verdict *verdict)
{
    static const nf_role of_queries[] = {NF_OUT, NF_LSE, NF_DQ}, of_keys[] = {NF_DK, NF_DV};
    bench_squares sums[NF_ROLES] = {{0}};
    uint64_t state = 1;
    verdict->method = "samples";
    for (int i = 0; i < QUERY_SAMPLES; i++) {
        const sample s = draw_query(data, &state);
        if (check_sample(context, data, &s, of_queries, 3, NULL, sums))
            return NF_TOOL_BAD;
    }
    for (int i = 0; i < KEY_SAMPLES && data->io.dout; i++) {
        double pairs;
        const sample s = draw_key(data, &state, &pairs);
        const bool affordable = pairs * (double)(data->problem.head_dim + data->problem.value_dim) <= key_limit;
        if (affordable && check_sample(context, data, &s, of_keys, 2, s.key, sums))
            return NF_TOOL_BAD;
    }
    for (int role = 0; role < NF_ROLES; role++)
        if (sums[role].count > 0)
            bench_judge(verdict, nf_role_name((nf_role)role), bench_relative_error(&sums[role]),
                        bench_limit(data->problem.dtype, (nf_role)role));
    if (data->io.dout)
        check_sums(data, verdict);
    return NF_TOOL_OK;
}
